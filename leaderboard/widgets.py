"""Parts of a page: how what a model wrote is shown as text, tables that lead on, drawings.

Whatever a model wrote goes through `code`, a table cell, or a drawing's quoted label; labels of
ours that hold some go through `escaped`. None of it is read as Markdown or HTML.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlencode

import streamlit as st

from harness.store import out_option, plain
from leaderboard.queries import BoardRow, Origin, board

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

NAME = 44  # characters of a row's name in a table
PAGES = "pages of the navigation"  # the session's, by the name of their view; set by `app`

FIRST_ROW = "python -m harness eval --method flowreasoner"
STALE_S = 120  # by which journals may be ahead: a run makes a snapshot every 30 s
TALL = 640  # pixels of a table that scrolls in itself
DOLLARS = "$%.9g"  # of a column: the digits of `number(dollars(value))`
JOINER = "\u2060"  # a character of no width
ACTIVE = re.compile(
    r"(?<=:)(?=//|material/|[a-z_]\w*:)|(?<=@)(?=[-\w])|(?<=www)(?=\.)"
    r"|(?<=\s[-<>=~!])(?=[-<>=](?:\s|$))|(?<=^[-<>=~!])(?=[-<>=](?:\s|$))",
    re.IGNORECASE,
)  # where the page would make a link, an icon or another sign of plain text, escaped or not
NO_BREAK = "\u00a0"  # a space at which no line ends
SHORT = 20  # characters of a cell
LINK_WORDS = 4  # cells of a row that its link says
AS_LINKS = "As plain links, for screen readers and the keyboard"
KEPT = 256  # answers kept for all readers together, of whatever snapshots
CHARTS = 64  # charts kept so

Found = TypeVar("Found")
Made = tuple[int, int] | None  # inode and time of change (ns) of a snapshot's file; None: gone
Target = tuple[str, Mapping[str, str | None]]  # a view and the parameters of its address


@dataclass(frozen=True)
class Results:
    """What a page shows: the folder of the results, and a snapshot of them to ask."""

    folder: Path
    connection: DuckDBPyConnection  # read-only, and this page's own
    seq: int  # of the snapshot
    made: Made = None  # with `seq`, what tells this snapshot from one of deleted results


def kept(results: Results, key: Hashable, make: Callable[[], Found]) -> Found:
    """What `make` finds in this snapshot, made once for all readers; nobody may change it.

    `key` says what it is, in texts, numbers and tuples of them: ("matrix", *run_ids).
    """
    of = (str(results.folder.absolute()), results.seq, results.made)
    found: Found = _kept(of, key, make)
    return found


@st.cache_resource(max_entries=KEPT, show_spinner=False)
def _kept(of: tuple[str, int, Made], key: Hashable, _make: Callable[[], Any]) -> Any:
    del of, key  # they only tell the answers apart
    return _make()


def board_rows(results: Results) -> tuple[BoardRow, ...]:
    """Every run of the board, best first, asked of the snapshot once."""
    return kept(results, "board", lambda: tuple(board(results.connection)))


def refused(why: str, error: Exception) -> None:
    """Why a part of a page cannot be drawn: in short, in full, and the command that mends it."""
    st.info(why)
    parts = str(error).split("`")  # what stands between two of these is a command
    st.caption(escaped("the command below".join(parts[0::2])))
    for command in parts[1::2]:
        code(command, "bash")


def first_row(why: str) -> None:
    """Why there is nothing to show, and which command changes that."""
    st.info(why)
    st.code(FIRST_ROW, language="bash", wrap_lines=True)


def origin_words(kind: str, told: Origin | None) -> str:
    """Where a run comes from, in words."""
    if kind == "measured":
        return "measured here"
    if told is None:
        return plain(kind)
    words = [told.tool or told.format, f"from {told.file}" if told.file else None]
    return plain(" ".join(["imported:", *(word for word in words if word)]))


def snapshot_words(results: Results) -> str:
    """Which snapshot is shown, and of when."""
    made = _mtime(results.folder / f"board-{results.seq}.duckdb")
    return f"snapshot {results.seq}" + ("" if made is None else f" of {stamp(made)}")


def stale(results: Results) -> None:
    """Say it where the journals have gone on and the snapshot has not."""
    made = _mtime(results.folder / f"board-{results.seq}.duckdb")
    newest = _newest_journal(str(results.folder))
    if made is None or newest is None or newest - made < STALE_S:
        return
    st.warning(
        escaped(
            f"What is shown is of {stamp(made)}, and the journals hold records of {stamp(newest)}. "
            "A run that goes on brings the board up to date by itself; otherwise start the board "
            "again, or use:"
        )
    )
    st.code(f"python -m harness rebuild{out_option(results.folder)}", language="bash",
            wrap_lines=True)  # fmt: skip


@st.cache_resource(ttl=10, max_entries=8, show_spinner=False)
def _newest_journal(folder: str) -> float | None:
    """When something was last written to the journal of a run that can be read."""
    found = (_mtime(path) for path in Path(folder).glob("runs/*/*.jsonl"))
    return max((at for at in found if at is not None), default=None)


def made_as(path: Path) -> Made:
    """What tells a file from another one of its name, made later."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _mtime(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # a snapshot that was followed by two others, or a deleted run
        return None


def go(view: str, **params: str | None) -> None:
    """Open a view with these parameters in its address; None leaves one out.

    May be called from a page, which ends there, and as a callback:
    `st.button("Its run", on_click=go, args=("trajectory",), kwargs={"run": run_id})`.
    """
    told = {name: value for name, value in params.items() if value is not None}
    st.switch_page(st.session_state[PAGES][view], query_params=told)


def clickable(
    records: Sequence[dict[str, Any]],
    key: str,
    targets: Sequence[Target],
    columns: dict[str, Any],
    *,
    alt: str | None = None,
    click: Callable[[Target], None] | None = None,
    linked: bool = True,
) -> None:
    """A table in which a click on a row opens its target: `("trajectory", {"run": run_id})`.

    The same targets stand above it as links, unless they are `linked` elsewhere: in the table
    itself the first arrow key is a click. `click` is done instead of opening, for a target on the
    page that is shown.
    """
    import pyarrow as pa

    def chosen() -> None:
        selection = st.session_state[key]["selection"]
        picked = [*selection["rows"], *(cell[0] for cell in selection["cells"])]
        if picked:
            open_target(targets[picked[0]])

    def open_target(target: Target) -> None:
        if click is not None:
            click(target)
        else:
            go(target[0], **target[1])

    if linked:
        named = [[_words(name, value) for name, value in row.items()] for row in records]
        links([[(", ".join(filter(None, words[:LINK_WORDS])), target)]
               for words, target in zip(named, targets, strict=True)])  # fmt: skip
    st.dataframe(
        pa.Table.from_pylist([{k: _cell(v) for k, v in row.items()} for row in records]),
        key=key,
        hide_index=True,
        height="content" if len(records) <= 25 else TALL,
        placeholder="unknown",
        column_config=columns,
        on_select=chosen,
        selection_mode=("single-row", "single-cell"),
        alt=alt,
    )


def clickable_cells(
    table: pa.Table,
    key: str,
    target: Callable[[int, str], Target | None],
    columns: dict[str, Any],
    *,
    alt: str | None = None,
) -> None:
    """A large table, of cells that are safe to show, in which a click on a cell opens its target.

    `target` is told the row of the cell and the name of its column; None: it leads nowhere.
    """

    def chosen() -> None:
        for row, column in st.session_state[key]["selection"]["cells"]:
            if (found := target(row, column)) is not None:
                view, params = found
                go(view, **params)

    st.dataframe(
        table, key=key, hide_index=True, placeholder="", column_config=columns, on_select=chosen,
        selection_mode="single-cell", alt=alt,
        height="content" if table.num_rows <= 25 else TALL,
    )  # fmt: skip


def _words(name: str, value: Any) -> str:
    """A cell of a table in words: a text as it is, a number after the name of its column."""
    if value is None or value == "":
        return ""
    if isinstance(value, str):
        return shortened(" ".join(plain(value).split()), NAME)
    return f"{name} {value:.9g}"


def links(lines: Sequence[Sequence[tuple[str, Target]]]) -> None:
    """Lines of links by their words, folded: a table can be read and followed by keyboard so."""
    items = "".join(
        f"<li>{' · '.join(anchor(words, target) for words, target in line)}</li>"
        for line in lines
        if line
    )
    st.html(f"<details><summary>{AS_LINKS}</summary><ul>{items}</ul></details>")


def anchor(words: str, target: Target) -> str:
    """A link of a page to another as HTML; its words are escaped."""
    view, params = target
    told = urlencode({name: value for name, value in params.items() if value is not None})
    to = html.escape(f"{view}?{told}")
    return f'<a href="{to}" target="_self">{html.escape(plain(words))}</a>'


def plain_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A small table of texts that leads nowhere, as HTML."""
    import pyarrow as pa

    cells = [dict(zip(names, map(_kept_together, row), strict=True)) for row in rows]
    st.table(pa.Table.from_pylist(cells), border="horizontal", hide_index=True)


def _kept_together(text: str) -> str:
    """A text of a table, safe; a short one stands on one line, however narrow the page is."""
    return escaped(text).replace(" ", NO_BREAK) if len(text) <= SHORT else escaped(text)


def _cell(value: Any) -> Any:
    return plain(value) if isinstance(value, str) else value


def drawing(dot: str, text: str) -> None:
    """A graph in Graphviz's language, drawn by the browser; `text` is for those who cannot see."""
    st.graphviz_chart(dot, width="content", alt=text)


def draw_chart(make: Callable[..., Any], *told: Hashable, **named: Hashable) -> None:
    """A chart of `leaderboard.charts` in the colours of the reader's page and as wide as its place.

    It is what `make(*told, **named, dark=...)` gives, made once for all readers.
    """
    text = _chart_text(make, told, tuple(named.items()), is_dark())
    st.vega_lite_chart(json.loads(text), theme=None, width="stretch")


@lru_cache(maxsize=CHARTS)
def _chart_text(
    make: Callable[..., Any],
    told: tuple[Hashable, ...],
    named: tuple[tuple[str, Hashable], ...],
    dark: bool,
) -> str:
    """A chart as text: making it takes some 100 ms, and its objects twenty times the memory."""
    return json.dumps(make(*told, **dict(named), dark=dark).to_dict())


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
    """`text` for a label, where Markdown would be read: every mark loses its meaning.

    What the page would still make of it (links of plain addresses, icons, arrows) is kept apart by
    a character of no width.
    """
    marks = "\\`*_{}[]()<>#+-.!|~$:&"
    words = " ".join(plain(text).split())
    return "".join(f"\\{ch}" if ch in marks else ch for ch in ACTIVE.sub(JOINER, words))


def is_dark() -> bool:
    """Whether the reader's page is dark."""
    return st.context.theme.type == "dark"


def metrics(values: Mapping[str, str], helps: Mapping[str, str] | None = None) -> None:
    """Numbers side by side, each wide enough for what it says."""
    with st.container(horizontal=True):
        for name, value in values.items():
            width = max(150, 20 * len(value))
            st.metric(name, escaped(value), help=(helps or {}).get(name), width=width)


def shortened(text: str, most: int) -> str:
    """`text` of at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def number(printed: str) -> float | None:
    """The number that a formatter of `harness.metrics` prints, for a column that is sorted.

    So that a table rounds as all else does: half up.
    """
    return None if printed == "unknown" else float(printed.replace(",", "").replace("$", "", 1))


def bound(name: str) -> Literal["query-params"] | None:
    """Whether the address may hold a whole number: not one that is too large for any machine."""
    try:
        endless = math.isinf(float(st.query_params.get(name, "0")))
    except ValueError:  # which the page's own reading turns down
        return "query-params"
    return None if endless else "query-params"


def accept(view: str, name: str, options: Iterable[str]) -> None:
    """Go on to the printed form of a choice that the address says as a person types it.

    In any case, or by its last word: "equal level" and "level" are "Equal level", "3" is "Table 3".
    Called before any widget of the page is drawn.
    """
    told = st.query_params.get(name, "").casefold()
    if name in st.session_state or not told or st.query_params[name] in options:
        return
    for option in options:
        if told in (option.casefold(), option.casefold().rpartition(" ")[2]):
            others = {one: st.query_params.get_all(one) for one in st.query_params}
            st.switch_page(st.session_state[PAGES][view], query_params={**others, name: option})


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def day(at: float | None) -> str | None:
    return None if at is None else stamp(at)[:10]
