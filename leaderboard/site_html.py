"""Pieces of a static page: text made safe, tables that a screen reader can walk, one style.

Whatever comes from a run goes through `text`; what does not is ours. There is no script, and the
page's policy forbids one; there is no style attribute either, so that the policy can name the one
style sheet by its digest. Colours are variables, dark or light as the reader's system wants.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.store import plain
from leaderboard.charts import DARK, FAINT, GRID, INK, LIGHT, PAGE, svg
from leaderboard.paper_text import STYLE as PAPER_STYLE

NAV = (("index.html", "Board"), ("problems.html", "Problems"), ("paper.html", "Paper"),
       ("runs.html", "Runs"))  # fmt: skip
MOST_TEXT = 20_000  # characters of one text; what is beyond is counted
WIDE, SLIM = 760, 340  # px of a chart on a desk and on a phone


def _variables(dark: bool) -> str:
    """The colours of charts and pages as CSS variables."""
    found = {"page": PAGE[dark], "ink": INK[dark], "faint": FAINT[dark], "grid": GRID[dark],
             "solved": "#14476b" if dark else "#cfe6f5", "failed": "#5a3418" if dark else "#f6e0cf",
             "partly": "#3c3d4a" if dark else "#e8e6ea", "code": "#191c24" if dark else "#f5f6f8",
             "link": "#6cb8f0" if dark else "#005fa3"}  # fmt: skip
    found |= {_variable(name): colour for name, colour in (DARK if dark else LIGHT).items()}
    return "".join(f"--{name}:{colour};" for name, colour in found.items())


def _variable(family: str) -> str:
    return family.lower().replace(" ", "-")


STYLE = (
    ":root{color-scheme:light dark;" + _variables(False) + "}"
    "@media (prefers-color-scheme:dark){:root{" + _variables(True) + "}}"
    """
*{box-sizing:border-box}
body{margin:0 auto;padding:0 1rem 4rem;max-width:76rem;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,Arial,sans-serif;overflow-wrap:anywhere}
a{color:var(--link)}
a:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:3px solid var(--link);
outline-offset:2px}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;padding:1rem 0;
border-bottom:1px solid var(--grid)}
nav a[aria-current]{color:var(--ink);font-weight:600;text-decoration:none}
h1{font-size:1.7rem;line-height:1.25;margin:1.5rem 0 .5rem}
h2{font-size:1.25rem;line-height:1.3;margin:2.25rem 0 .5rem}
h3{font-size:1.05rem;margin:1.5rem 0 .35rem}
p,ul{margin:.5rem 0;max-width:46rem}
.note{color:var(--faint);font-size:.875rem;max-width:60rem}
.scroll{overflow-x:auto;margin:.75rem 0}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums;
overflow-wrap:normal}
caption{text-align:left;font-weight:600;padding:.25rem 0}
th,td{padding:.3rem .6rem;text-align:left;vertical-align:top;
border-bottom:1px solid var(--grid);white-space:nowrap}
thead th{color:var(--faint);font-weight:500}
tbody th{font-weight:500;position:sticky;left:0;background:var(--page);white-space:normal;
min-width:8.5rem;max-width:16rem;overflow-wrap:anywhere}
td.number,th.number{text-align:right}
td.wide{white-space:normal;min-width:14rem;overflow-wrap:anywhere}
td.solved{background:var(--solved)}td.failed{background:var(--failed)}
td.partly{background:var(--partly)}
.matrix td,.matrix thead th{text-align:center;padding:.2rem .45rem}
.matrix td a{color:inherit;text-decoration:none;display:block}
pre{background:var(--code);padding:.6rem .8rem;border-radius:.35rem;overflow-x:auto;
font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;white-space:pre-wrap;
overflow-wrap:anywhere;margin:.25rem 0 .75rem}
details{margin:.35rem 0}summary{cursor:pointer}
section.stage{border:1px solid var(--grid);border-radius:.5rem;padding:0 .9rem .5rem;
margin:1rem 0}
section.stage h2{margin-top:.8rem;font-size:1.1rem}
figure{margin:1rem 0}figure svg{max-width:100%;height:auto}
.slim{display:none}
@media (min-width:641px){tbody th{min-width:13rem}.matrix tbody th{min-width:8.5rem}}
@media (max-width:640px){.wide-chart{display:none}.slim{display:inline}h1{font-size:1.4rem}}
""" + PAPER_STYLE.removeprefix("<style>").removesuffix("</style>")
)
POLICY = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'"
)


def text(said: Any) -> str:
    """Anything as text of a page: no mark-up, no character that could steer anything."""
    return html.escape(plain(str(said)))


def page(title: str, body: Iterable[str], *, here: str = "", up: str = "") -> str:
    """A whole page; `here` is its place in the navigation, `up` leads to the site's folder."""
    mark = ' aria-current="page"'
    links = "".join(
        f'<a href="{up}{name}"{mark if name == here else ""}>{words}</a>' for name, words in NAV
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#content">To the content</a>\n'
        f'<nav aria-label="Pages">{links}</nav>\n<main id="content">\n'
        f"<h1>{text(title)}</h1>\n" + "\n".join(body) + "\n</main>\n</body>\n</html>\n"
    )


def link(to: str, words: str) -> str:
    return f'<a href="{html.escape(to)}">{text(words)}</a>'


@dataclass(frozen=True)
class Cell:
    """A cell of a class that the style sheet has; what it holds is mark-up already."""

    inside: str
    kind: str = ""


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str | Cell]],
    *,
    numbers: Iterable[str] = (),
    kind: str = "",
    marked: bool = False,
) -> str:
    """A table with its caption, its first column the headers of rows; cells are mark-up already.

    `numbers` are names of columns to the right. `head` is text, unless it is `marked`: ours, and
    mark-up already.
    """
    right = {place for place, name in enumerate(head) if name in set(numbers)}

    def cell_of(place: int, one: str | Cell) -> Cell:
        return one if isinstance(one, Cell) else Cell(one, "number" if place in right else "")

    heads = "".join(
        f'<th scope="col"{_classed("number" if place in right else "")}>'
        f"{name if marked else text(name)}</th>"
        for place, name in enumerate(head)
    )
    lines = []
    for row in rows:
        first, *rest = (cell_of(place, one) for place, one in enumerate(row))
        cells = "".join(f"<td{_classed(one.kind)}>{one.inside}</td>" for one in rest)
        lines.append(f'<tr><th scope="row">{first.inside}</th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}">\n'
        f"<table{_classed(kind)}>\n"
        f"<caption>{text(caption)}</caption>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n"
        + "\n".join(lines)
        + "\n</tbody>\n</table>\n</div>"
    )


def _classed(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def block(said: str | None) -> str:
    """A text of a model as it is; nothing where there is none."""
    if not said:
        return ""
    lost = len(said) - MOST_TEXT
    more = f'<p class="note">{lost:,} more characters are left out here.</p>' if lost > 0 else ""
    return f"<pre>{text(said[:MOST_TEXT])}</pre>{more}"


def labelled(label: str, said: str | None) -> str:
    """A text of a model under a word of ours; nothing where there is none."""
    return f'<p class="note">{text(label)}</p>\n{block(said)}' if said else ""


def folded(summary: str, *parts: str) -> str:
    """Parts that open at a click; nothing but the summary where there are none."""
    inside = "\n".join(part for part in parts if part)
    if not inside:
        return f"<p>{text(summary)}</p>"
    return f"<details><summary>{text(summary)}</summary>\n{inside}\n</details>"


def figure(chart: Any, label: str) -> str:
    """A chart as drawings within the page, one for a desk and one for a phone."""
    drawn = "".join(
        f'<span class="{name}">{_themed(svg(chart, width=width), label)}</span>'
        for name, width in (("wide-chart", WIDE), ("slim", SLIM))
    )
    return f"<figure>{drawn}</figure>"


def _themed(drawing: str, label: str) -> str:
    """A drawing made for a light page, its colours made variables, its parts one image."""
    named = {colour: _variable(name) for name, colour in LIGHT.items()}
    named |= {INK[False]: "ink", FAINT[False]: "faint", GRID[False]: "grid", PAGE[False]: "page"}
    for colour, name in named.items():
        drawing = drawing.replace(f'"{colour}"', f'"var(--{name})"')
    drawing = re.sub(r' (?:role|aria-[a-z]+)="[^"]*"', "", drawing)  # one image, not its parts
    return drawing.replace("<svg ", f'<svg role="img" aria-label="{text(label)}" ', 1)
