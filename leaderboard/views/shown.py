"""Texts of one sample on a page: read when they are unfolded, cut where they are too long."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from harness.errors import StoreError
from harness.page import things
from harness.store import plain
from leaderboard.records import Source, Texts
from leaderboard.timeline import Timeline
from leaderboard.widgets import Results, code, escaped

PAGE = 50  # calls and other events of a stage that are shown at once; and rounds
SHOWN = 20_000  # characters of a text that a page bears
TALL = 40  # lines from which a text scrolls in a frame of its own
WIDE = 100  # characters of a line, after which it is wrapped, roughly
HEIGHT = 480  # px of that frame
LABEL = 120  # characters of a model's words in a label
MARKS = {"passed": "✓", "invalid": "?", "unknown": "?"}  # any other verdict is ✗


@dataclass(frozen=True)
class Shown:
    """One sample on a page."""

    results: Results
    line: Timeline
    texts: Texts
    key: str  # of its widgets, so that two samples may stand on one page
    bound: bool  # whether the address says what is unfolded
    source: Source | None = None  # the workflow that it was given, and did not write


def read(shown: Shown, sha: str | None) -> str | None:
    """A text from the journal; None where it is not there, which is said where it was lost."""
    try:
        return shown.texts.read(sha)
    except StoreError as error:
        st.warning("A text cannot be read from the journal.")
        code(str(error))
        return None


def text_part(
    shown: Shown,
    key: str,
    sha: str | None,
    language: str | None = None,
    *,
    label: str | None = None,
    form: Callable[[str], str] = lambda text: text,
    line_numbers: bool = False,
) -> None:
    """A text of the journal, shown in a `form`; its download is as it was recorded."""
    text = read(shown, sha)
    if text is None:
        if sha:
            st.caption(f"{label or 'The text'}: not in the journal")
        return
    long_text(shown, key, form(text), label=label, language=language, whole=sha,
              line_numbers=line_numbers)  # fmt: skip


def long_text(
    shown: Shown,
    key: str,
    text: str,
    *,
    label: str | None = None,
    language: str | None = None,
    whole: str | None = None,
    line_numbers: bool = False,
) -> None:
    """Any text as it is; of one that is too long its beginning, its length, and all as a file.

    `whole` is the digest of what is downloaded; without one it is `text`.
    """
    cut = len(text) > SHOWN
    if cut:
        said = f"{things(len(text), 'character')}, of which the first {SHOWN:,} are shown"
        st.caption(f"{label}: {said}" if label else said.capitalize())
    elif label:
        st.caption(label)
    told = text[:SHOWN]
    lines = sum(1 + len(line) // WIDE for line in told.split("\n"))
    st.code(
        plain(told), language=language, wrap_lines=True, line_numbers=line_numbers,
        height=HEIGHT if lines > TALL else "content",
    )  # fmt: skip
    if cut:
        st.download_button(
            "Download all of it",
            lambda: as_file((shown.texts.read(whole) if whole else None) or text),
            file_name(shown, key),
            "text/plain",
            key=f"file-{shown.key}-{key}",
            on_click="ignore",
            type="tertiary",
        )


def as_file(text: str) -> bytes:
    """A text as UTF-8; what UTF-8 cannot hold as an escape."""
    return text.encode("utf-8", "backslashreplace")


def file_name(shown: Shown, key: str) -> str:
    """A name for a download: letters, digits and hyphens only."""
    words = f"{shown.line.problem_id}-{shown.line.sample}-{key}"
    return re.sub(r"[^A-Za-z0-9]+", "-", words).strip("-")[:80] + ".txt"


def error_part(shown: Shown, key: str, error: str) -> None:
    """What failed, as text under a red line of ours."""
    st.error("Failed", icon=":material/error:")
    long_text(shown, key, error)


def fold(
    shown: Shown,
    label: str,
    key: str,
    body: Callable[[], None],
    *,
    expanded: bool = False,
    ours: bool = True,
) -> None:
    """An expander whose content is made once it is open. A label that is not `ours` is escaped."""
    box = st.expander(
        escaped(label) if ours else label, expanded=expanded, key=f"fold-{shown.key}-{key}",
        on_change="rerun", type="compact",
    )  # fmt: skip
    if box.open:
        with box:
            body()


def paged(key: str, number: int, size: int, address: str | None = None) -> int:
    """Which page of so many things is shown, 1-based; a choice only where there are several."""
    if number <= size:
        return 1
    pages = -(-number // size)
    if address is None:
        return st.pagination(pages, key=key)
    return st.pagination(pages, key=address, bind="query-params")


def mark(verdict: str | None) -> str:
    return MARKS.get(verdict or "unknown", "✗")
