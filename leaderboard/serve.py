"""Start the board in a process of its own, on this machine unless told otherwise."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

from harness.errors import UsageError
from harness.store import Store, current_snapshot


def serve(
    results_dir: Path, *, host: str = "127.0.0.1", port: int = 8501, open_browser: bool = True
) -> int:
    """Serve the board until it is interrupted; return 0 then, else the server's exit code.

    Journals without a snapshot are ingested first. Raises UsageError when Streamlit is missing,
    StoreError when the results cannot be read.
    """
    if importlib.util.find_spec("streamlit") is None:
        raise UsageError(
            "the board needs Streamlit: pip install 'flowreasoner-harness[leaderboard]'"
        )
    if current_snapshot(results_dir) is None and any(results_dir.glob("runs/*/run.json")):
        store = Store(results_dir)
        store.ingest()
        store.snapshot()
    child = subprocess.Popen(command(results_dir, host, port, open_browser))
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.send_signal(signal.SIGINT)
        child.wait()
        return 0
    finally:
        if child.poll() is None:
            child.terminate()


def command(results_dir: Path, host: str, port: int, open_browser: bool) -> list[str]:
    """The server's command line: no usage statistics, no e-mail prompt, no Deploy button."""
    options = {
        "server.address": host,
        "server.port": port,
        "server.headless": not open_browser,
        "server.showEmailPrompt": False,
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
    }
    flags = [f"--{name}={str(value).lower()}" for name, value in options.items()]
    app = Path(__file__).with_name("app.py")
    return [sys.executable, "-m", "streamlit", "run", str(app), *flags, "--", str(results_dir)]
