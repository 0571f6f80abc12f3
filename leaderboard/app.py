"""The board in a browser: which page the address asks for. What a page shows is in `views`.

Run by `leaderboard.serve`, or `streamlit run leaderboard/app.py -- RESULTS_DIR`. It reads the
snapshot that `board.json` names and writes nothing. The address carries the view and all that is
chosen in it, so that a reload or a link shows the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import streamlit as st

from harness.errors import StoreError
from harness.store import Pointer, current_snapshot, open_snapshot, out_option, plain
from leaderboard.views import VIEWS
from leaderboard.widgets import PAGES, Made, Results, first_row, made_as

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

NAME = "Workflow board"
QUESTION = "Does this workflow solve more than one call of the same model?"
SHARED = ("search", "benchmark", "worker", "over", "reported", "anyway")  # choices on several pages
WATCH_S = 10  # between two looks for a newer snapshot
STYLE = """<style>
.stMainBlockContainer {padding-top: 4.5rem; padding-bottom: 3rem}
h1 {font-size: 1.8rem !important}
h2 {font-size: 1.4rem !important}
h3 {font-size: 1.2rem !important}
@media (max-width: 640px) {
  .stMainBlockContainer {padding-left: 1rem; padding-right: 1rem}
  h1 {font-size: 1.5rem !important}
  .st-key-filters .stColumn {min-width: calc(50% - 0.5rem); flex: 1 1 calc(50% - 0.5rem)}
  .st-key-filters .stHorizontalBlock {gap: 0.5rem}
}
</style>"""


def main(results_dir: Path) -> None:
    """Draw the page that the address asks for."""
    views = {name: import_module(f"leaderboard.views.{name}") for name in VIEWS}
    pages = {  # without icons: a browser would ask another host for them
        name: st.Page(
            _drawing(view, results_dir), title=view.TITLE, url_path=view.PATH, default=not view.PATH
        )
        for name, view in views.items()
    }
    st.session_state[PAGES] = pages
    chosen = st.navigation(list(pages.values()), position="top")
    forget_others(chosen.url_path)
    st.set_page_config(
        page_title=f"{chosen.title} · {NAME}" if chosen.url_path else NAME,
        page_icon="⚖️",
        layout="wide",
    )
    st.html(STYLE)
    chosen.run()
    watch(results_dir)


def forget_others(path: str) -> None:
    """Drop what was chosen on another page under a name that this page has too.

    Streamlit carries choices that the address holds from page to page by their names alone, and
    what is a text on one page is a switch on another.
    """
    if st.session_state.setdefault("path of the page", path) != path:
        for name in SHARED:
            if name not in st.query_params:
                st.session_state.pop(name, None)
        st.session_state["path of the page"] = path


def _drawing(view: ModuleType, results_dir: Path) -> Callable[[], None]:
    return partial(draw, view, results_dir)


def draw(view: ModuleType, results_dir: Path) -> None:
    """One page over the newest snapshot; in words what keeps it from being drawn."""
    import duckdb

    try:
        pointer = current_snapshot(results_dir)
        if pointer is None:
            empty(results_dir)
            return
        view.page(results_of(results_dir, pointer))
    except (StoreError, duckdb.Error) as error:
        st.error("The results cannot be read.")
        st.code(plain(str(error)), language=None, wrap_lines=True)
        if not isinstance(error, StoreError):  # a snapshot that is damaged somewhere inside
            st.code(f"python -m harness rebuild{out_option(results_dir)}", language="bash")


def results_of(results_dir: Path, pointer: Pointer) -> Results:
    """The snapshot as a page gets it, with a cursor of its own."""
    made = made_as(pointer.path)
    before = _opened(str(results_dir))
    if before.get(pointer.seq, made) != made:  # DuckDB shares what is open under a path
        snapshot.clear(str(results_dir), pointer.seq, before[pointer.seq])
    before[pointer.seq] = made
    connection = snapshot(str(results_dir), pointer.seq, made)
    return Results(results_dir, connection.cursor(), pointer.seq, made)


def close(connection: DuckDBPyConnection) -> None:
    connection.close()


@st.cache_resource(max_entries=8, show_spinner=False)
def _opened(results_dir: str) -> dict[int, Made]:
    """Which files the snapshots of a folder were opened as, by their numbers."""
    del results_dir  # it only tells the folders apart
    return {}


@st.cache_resource(max_entries=2, on_release=close, show_spinner=False)
def snapshot(results_dir: str, seq: int, made: Made) -> DuckDBPyConnection:
    """The open snapshot of that number; the one before stays for readers that still hold it."""
    del seq, made  # they only tell the snapshots apart
    return open_snapshot(Path(results_dir))


@st.fragment(run_every=WATCH_S)
def watch(results_dir: Path) -> None:
    """Draw the page again once a newer snapshot has appeared."""
    found = newest(results_dir)
    seen = st.session_state.setdefault("seen", found)
    if found != seen:
        st.session_state["seen"] = found
        st.rerun()


def newest(results_dir: Path) -> tuple[Pointer, Made] | str | None:
    """The snapshot that the page should show, or why none can be found: the page then says it."""
    try:
        pointer = current_snapshot(results_dir)
    except StoreError as error:
        return str(error)
    return None if pointer is None else (pointer, made_as(pointer.path))


def empty(results_dir: Path) -> None:
    """What to do where there is no snapshot yet."""
    st.title(QUESTION, anchor=False)
    first_row("There is no result yet. This command makes the first row; then reload this page.")
    st.caption(
        "Runs that already exist under this folder come in with `python -m harness rebuild`:"
    )
    st.code(str(results_dir), language=None, wrap_lines=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results"))
