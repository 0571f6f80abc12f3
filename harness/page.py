"""How text gets onto a terminal: whatever a model wrote is shown as text, never as markup.

Control characters appear as escapes, so that a reply cannot steer the terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.metrics import count
from harness.store import plain

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 160  # columns, where there is no terminal
SHORT = 1200  # characters of a text that are shown unless all of it is asked for


def things(number: int | None, noun: str) -> str:
    """1 problem, 2 problems, unknown problems."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def console_for(out: Console | None) -> Console:
    """Where to print; lines of a file or pipe are as long as a table needs."""
    from rich.console import Console

    console = out or Console()
    if out is None and not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def line(console: Console, text: str, style: str = "") -> None:
    from rich.text import Text

    console.print(Text(plain(text), style=style), soft_wrap=True)


def block(
    console: Console, title: str, text: str | None, *, full: bool, tail: bool = False
) -> None:
    """A titled, indented block; shortened to its head, or its tail, with the loss counted."""
    if not text:
        return
    lost = 0 if full else max(0, len(text) - SHORT)
    if lost:
        text = text[lost:] if tail else text[:-lost]
    line(console, f"    {title}" + (f" (last {SHORT} characters)" if lost and tail else ""),
         style="dim")  # fmt: skip
    for one in text.rstrip("\n").split("\n"):
        line(console, f"      {one}")
    if lost:
        more = "before this" if tail else "more"
        line(console, f"      … {lost} characters {more}; --full shows all", style="dim")


def table(
    console: Console, title: str, names: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """A table of numbers, right-justified, under a title."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for name in names:
        drawn.add_column(Text(plain(name)), justify="right")
    for row in rows:
        drawn.add_row(*(Text(plain(cell)) for cell in row))
    console.print(drawn)
