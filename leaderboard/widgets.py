"""Parts of a page: how what a model wrote is shown as text, tables that lead on, drawings.

Whatever a model wrote goes through `code`, a table cell, or a drawing's quoted label; labels of
ours that hold some go through `escaped`. None of it is read as Markdown or HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from harness.store import plain

NAME = 44  # characters of a row's name in a table


def go(run: str | None = None, sample: str | None = None) -> None:
    """Make the address say which run and sample are looked at."""
    for name, value in (("run", run), ("sample", sample)):
        if value is not None:
            st.query_params[name] = value
        elif name in st.query_params:
            del st.query_params[name]


def clickable(
    records: Sequence[dict[str, Any]],
    key: str,
    targets: Sequence[tuple[str, str | None]],
    columns: dict[str, Any],
) -> None:
    """A table in which a click on a row makes the address name its target."""
    import pyarrow as pa

    def chosen() -> None:
        selection = st.session_state[key]["selection"]
        picked = [*selection["rows"], *(cell[0] for cell in selection["cells"])]
        if picked:
            go(*targets[picked[0]])

    st.dataframe(
        pa.Table.from_pylist([{k: _cell(v) for k, v in row.items()} for row in records]),
        key=key,
        hide_index=True,
        height="content" if len(records) <= 30 else "auto",
        placeholder="unknown",
        column_config=columns,
        on_select=chosen,
        selection_mode=("single-row", "single-cell"),
    )


def plain_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A small table of texts that leads nowhere, as HTML."""
    import pyarrow as pa

    cells = [dict(zip(names, map(escaped, row), strict=True)) for row in rows]
    st.table(pa.Table.from_pylist(cells), border="horizontal", hide_index=True)


def _cell(value: Any) -> Any:
    return plain(value) if isinstance(value, str) else value


def drawing(dot: str, text: str) -> None:
    """A graph in Graphviz's language, drawn by the browser; `text` is for those who cannot see."""
    st.graphviz_chart(dot, width="content", alt=text)


def labelled(
    label: str, text: str | None, language: str | None = None, *, fold: bool = False
) -> None:
    """A caption of ours over a text of a model; nothing when there is no text."""
    if not text:
        return
    if fold:
        with st.expander(label):
            code(text, language)
        return
    st.caption(label)
    code(text, language)


def code(text: str, language: str | None = None) -> None:
    """Any text as it is: no Markdown, no HTML, control characters as escapes."""
    st.code(plain(text), language=language, wrap_lines=True)


def escaped(text: str) -> str:
    """`text` for a label, where Markdown would be read: every mark loses its meaning."""
    marks = "\\`*_{}[]()<>#+-.!|~$:"
    return "".join(f"\\{ch}" if ch in marks else ch for ch in " ".join(plain(text).split()))


def metrics(values: Mapping[str, str], helps: Mapping[str, str] | None = None) -> None:
    """Numbers side by side, each wide enough for "unknown"."""
    with st.container(horizontal=True):
        for name, value in values.items():
            width = 190 if len(value) > 9 else 150
            st.metric(name, escaped(value), help=(helps or {}).get(name), width=width)


def shortened(text: str, most: int) -> str:
    """`text` of at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def day(at: float | None) -> str | None:
    return None if at is None else stamp(at)[:10]
