"""A served board and the Chromium that is installed, for tests: one browser for the whole session.

Import the fixtures: `from tests.browser import chromium, page, serve_board`. Without Chromium they
skip, and say so. `CHROMIUM` names another one.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update",
         "--disable-sync"]  # fmt: skip
CODE = (
    "import sys, pathlib; from leaderboard.serve import serve\n"
    "serve(pathlib.Path(sys.argv[1]), port=int(sys.argv[2]), open_browser=False)"
)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Board:
    """One served board; `stop` interrupts it as Ctrl-C does."""

    def __init__(self, results_dir: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.child = subprocess.Popen([sys.executable, "-c", CODE, str(results_dir), str(port)])
        for _ in range(300):
            assert self.child.poll() is None, "the server ended at once"
            try:
                urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=5).close()
                return
            except urllib.error.URLError:
                time.sleep(0.2)
        self.child.kill()
        raise AssertionError("the server did not come up")

    def stop(self) -> int:
        """Interrupt the server; its exit code."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGINT)
        try:
            return self.child.wait(30)
        finally:
            self.child.kill()
            self.child.wait()


@pytest.fixture(scope="session")
def serve_board() -> Iterator[Callable[[Path], Board]]:
    """Serves the board over a folder of results, once for each folder."""
    boards: dict[Path, Board] = {}

    def serve(results_dir: Path) -> Board:
        if results_dir not in boards:
            boards[results_dir] = Board(results_dir)
        return boards[results_dir]

    yield serve
    for board in boards.values():
        board.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[BrowserContext]:
    """The installed Chromium, headless; its cache is kept, so that pages come fast.

    Of one file: while it is there an event loop runs, beside which no asynchronous test can.
    """
    path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if not Path(path).exists():
        pytest.skip(f"no Chromium at {path}; set CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        context = browser.new_context()
        context.set_default_timeout(20_000)
        yield context
        browser.close()


@pytest.fixture
def page(chromium: BrowserContext) -> Iterator[Page]:
    """A page of its own, 1280 pixels wide."""
    opened = chromium.new_page()
    opened.set_viewport_size({"width": 1280, "height": 900})
    yield opened
    opened.close()


def cell(page: Page, text: str) -> Locator:
    """A cell of a table: it is painted on a canvas, and its text stands inside that as a table."""
    return page.locator("canvas td").get_by_text(text, exact=True)


def settled(page: Page) -> None:
    """Wait until the page has been drawn to its end."""
    page.locator(".stApp[data-test-script-state='notRunning']").wait_for(state="attached")
    page.wait_for_function("!document.querySelector('.stSkeleton')")
