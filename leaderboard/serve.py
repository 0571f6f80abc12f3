"""Serve the board, on this machine unless told otherwise."""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import NoReturn

from harness.errors import StoreError, UsageError
from harness.processes import child_environment
from harness.store import Store, current_snapshot, plain
from leaderboard.views import VIEWS

LOCAL = ("localhost", "127.0.0.1", "::1")


def serve(
    results_dir: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8501,
    open_browser: bool = True,
    names: Sequence[str] = (),
) -> NoReturn:
    """Become the server of the board, which ends when it is interrupted, with exit code 0.

    What the journals hold anew is brought in first. On an address of this machine alone, only pages
    that were asked for under a name of it are answered, so that no web site can have its own name
    lead here; `names` are further ones, as a proxy in front of it has.

    Raises UsageError when the port is none or taken, Streamlit or the results folder missing;
    StoreError when the results cannot be read.
    """
    _check_address(host, port)
    if importlib.util.find_spec("streamlit") is None:
        raise UsageError(
            "the board needs Streamlit: pip install 'flowreasoner-harness[leaderboard]'"
        )
    refresh(results_dir, lambda line: print(line, file=sys.stderr, flush=True))
    line = command(results_dir, host, port, open_browser, names)
    # threads draw the pages; with a heap for each of them memory is not given back
    os.execve(line[0], line, {"MALLOC_ARENA_MAX": "2", **child_environment()})


def _check_address(host: str, port: int) -> None:
    """Listen for a moment. Raises UsageError where that is not possible."""
    if not 1 <= port <= 65535:
        raise UsageError(f"--port {port}: expected a number from 1 to 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            probe.bind(address)
            probe.listen()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise UsageError(
            f"{host}:{port} is taken or cannot be listened on: {reason or error}; "
            f"try --port {8501 if port == 8502 else 8502}"
        ) from error


def refresh(results_dir: Path, say: Callable[[str], object], *, lock_wait_s: float = 10.0) -> None:
    """Make a snapshot of all that the journals hold; `say` gets a line about what was left out.

    Where the database cannot be written (another process is at it), an earlier snapshot stays and
    that is said: the page moves on by itself to the next one. Raises StoreError without any,
    UsageError where there is no such folder.
    """
    if results_dir.is_dir() and not any(results_dir.glob("runs/*/run.json")):
        return
    store = Store(results_dir, lock_wait_s=lock_wait_s)
    try:
        report = store.ingest()
        store.snapshot()
    except StoreError as error:
        pointer = current_snapshot(results_dir)
        if pointer is None:
            raise
        say(plain(f"{error}; until then the board shows snapshot {pointer.seq}"))
        return
    for problem in report.problems:
        say(plain(problem))


def command(
    results_dir: Path, host: str, port: int, open_browser: bool, names: Sequence[str] = ()
) -> list[str]:
    """The server's command line: no usage statistics, no e-mail prompt, no Deploy button."""
    options = {
        "server.address": host,
        "server.port": port,
        "server.headless": not open_browser,
        "server.showEmailPrompt": False,
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "theme.light.primaryColor": "#1d6fb8",
        "theme.dark.primaryColor": "#3b86d1",
    }
    flags = [f"--{name}={str(value).lower()}" for name, value in options.items()]
    if names or _is_local(host):
        known = dict.fromkeys([*LOCAL, host, *names])
        flags += [f"--server.allowedHosts={name}" for name in known]
    app = Path(__file__).with_name("app.py")
    return [sys.executable, "-m", "leaderboard.serve", "run", str(app), *flags, "--",
            str(results_dir)]  # fmt: skip


def _is_local(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def warm() -> None:
    """Import what pages need, so that the first one does not wait for it."""
    for name in ("duckdb", "pandas", "pyarrow", "altair"):
        importlib.import_module(name)
    for name in VIEWS:
        importlib.import_module(f"leaderboard.views.{name}")


def main() -> None:
    """Streamlit's command line in this process, its pages' imports under way beside it."""
    from streamlit.web.cli import main as streamlit

    threading.Thread(target=warm, daemon=True).start()
    streamlit(prog_name="streamlit")


if __name__ == "__main__":
    main()
