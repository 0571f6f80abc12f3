"""Tables of the paper as LaTeX, Markdown, HTML and CSV.

LaTeX needs booktabs and nothing else. Every text is escaped for its format; names of models and
knobs are texts like any other. A score stands over its interval.
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Sequence
from typing import Any

from harness.metrics import p_value, percent, points
from harness.paired import Difference
from leaderboard.export import markdown_text, span, tex_text, text
from leaderboard.paper import (
    OVERALL,
    Cell,
    PaperRow,
    PaperTable,
    Versus,
    derived_overall,
)

ABSENT = "–"
FLOAT = 480  # points that rows may take of a page
ONE_LINE, TWO_LINES = 10.5, 23  # points of a row
NOTE_LINE = 130  # characters of a line of footnotes
WIDE = 17  # characters of a name on one line of a LaTeX table
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def head(table: PaperTable) -> list[str]:
    """The names of the columns that say what a row is."""
    return {1: ["Type", "Method", "Worker", "Level"], 2: ["Training", "Meta-agent", "Worker",
            "Level"], 3: ["Worker", "Meta-agent", "Level"]}[table.number]  # fmt: skip


def label(table: PaperTable, row: PaperRow) -> list[str]:
    """What a row is, under `head`; its method's knobs stand with `below`."""
    worker, level = short(table, row.worker), row.level or ABSENT
    if table.number == 1:
        return [row.type, row.method, worker, level]
    meta = row.method if row.reported else short(table, row.meta)
    if table.number == 2:
        return [row.type if row.reported else ABSENT, meta, worker, level]
    return [worker, meta, level]


def below(table: PaperTable, row: PaperRow) -> str:
    """The smaller words under a row's name: knobs, and the meta-agent where it is no column."""
    meta = f"meta-agent {short(table, row.meta)}" if row.meta and table.number == 1 else ""
    return ", ".join(x for x in (row.detail, meta if not row.reported else "") if x)


def short(table: PaperTable, model: str | None) -> str:
    """A model's name, without its provider unless two of the table differ in that alone."""
    if model is None:
        return ABSENT
    named = {name for row in table.rows for name in (row.worker, row.meta) if name}
    tail = model.rpartition("/")[2]
    return model if any(x != model and x.rpartition("/")[2] == tail for x in named) else tail


def score(row: PaperRow, column: str, digits: int) -> str | None:
    """The number of a cell, as it is shown; None where there is none."""
    if row.reported:
        printed = (row.printed or {}).get(column)
        if printed is None and column == OVERALL:
            derived = derived_overall(row)
            return None if derived is None else f"({percent(float(derived / 100), digits)})"
        return printed
    cell = row.cells.get(column)
    return None if cell is None or cell.estimate.value is None else percent(
        cell.estimate.value, digits)  # fmt: skip


def numbered(
    table: PaperTable, notes_of: Callable[[PaperRow], Sequence[str]] = lambda row: row.notes
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """({note: letters}, [(letters, note)]): the notes on rows, in the order of the rows."""
    notes = list(dict.fromkeys(note for row in table.rows for note in notes_of(row)))
    marks = {note: _letters(n) for n, note in enumerate(notes)}
    return marks, [(mark, note) for note, mark in marks.items()]


def _letters(number: int) -> str:
    first, last = divmod(number, len(LETTERS))
    return (LETTERS[first - 1] if first else "") + LETTERS[last]


def latex(table: PaperTable, digits: int) -> str:
    """A floating table across the page, with its footnotes under it.

    A row is two lines: under a score its interval, under a name its level and knobs; long names of
    models take both. The type of table 1 and the worker of the others stand over their rows, which
    makes a table as narrow as a page of one column: 12 cm, the first 14 cm with both comparisons.
    What is too high for a page stands in several floats, and its footnotes in the text after them.
    """
    marks, told = numbered(table, lambda row: _tex_notes(table, row))
    names = _named(table, head(table), head(table))
    columns = "l" * len(names) + "c" * (len(table.columns) + len(table.bases))
    parts: list[list[str]] = [[]]
    height = 0.0
    for number, row in enumerate(table.rows):
        over = _over(table, row)
        new = not number or over != _over(table, table.rows[number - 1])
        first, second = _latex_row(table, row, marks, digits)
        needs = (TWO_LINES if any(second) else ONE_LINE) + new * ONE_LINE
        if height + needs > FLOAT:
            parts.append([])
            height, new = 0, True
        height += needs
        if new:
            across = len(names) + len(table.columns) + len(table.bases)
            parts[-1] += [r"\addlinespace"] if parts[-1] else []
            parts[-1].append(rf"\multicolumn{{{across}}}{{@{{}}l}}{{{tex_text(over)}}} \\")
        parts[-1].append(f"{' & '.join(first)} \\\\")
        if any(second):
            parts[-1].append(f"{' & '.join(second)} \\\\[2pt]")
    notes = [tex_text(note) for note in table.footnotes]
    notes += [rf"$^{{\mathrm{{{mark}}}}}$\,{tex_text(note)}." for mark, note in told]
    under = " ".join(notes)
    title = [*map(tex_text, names), *(_tiny(x) if len(x) > 9 else x for x in table.columns),
             *("vs." for _ in table.bases)]  # fmt: skip
    bases = [""] * (len(names) + len(table.columns)) + [tex_text(base) for base in table.bases]
    fits = len(parts) == 1 and height + ONE_LINE * len(under) / NOTE_LINE < FLOAT
    made = [r"% needs \usepackage{booktabs}"]
    for number, lines in enumerate(parts):
        more = ", continued" if number else ""
        made += [
            r"\begin{table*}[tp]",
            r"\centering\footnotesize\setlength{\tabcolsep}{2pt}",
            *([r"\addtocounter{table}{-1}"] if number else []),
            rf"\caption{{{tex_text(table.title)}{more}: pass@1 in percent.}}",
            *([] if number else [rf"\label{{tab:paper-{table.number}}}"]),
            rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"\toprule",
            f"{' & '.join(title)} \\\\",
            *([f"{' & '.join(bases)} \\\\"] if table.bases else []),
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
        ]
        if fits:
            made += ["", r"\smallskip", r"\begin{minipage}{\textwidth}\raggedright\scriptsize",
                     under, r"\end{minipage}"]  # fmt: skip
        made.append(r"\end{table*}")
    if not fits:
        made += [
            "% the notes are too long to float with the table: they belong under it",
            r"\par{\noindent\raggedright\scriptsize",
            rf"Table~\ref{{tab:paper-{table.number}}}: {under}",
            r"\par}",
        ]
    return "\n".join([*made, ""])


def _latex_row(
    table: PaperTable, row: PaperRow, marks: dict[str, str], digits: int
) -> tuple[list[str], list[str]]:
    """The scores of a row, and the smaller line under them."""
    told = _named(table, label(table, row), head(table))
    halves = [_halves(x) for x in told]
    named, small = ([tex_text(half[n]) for half in halves] for n in (0, 1))
    if row.reported:
        named = [rf"\textit{{{x}}}" for x in named]
    small = [x and (rf"\textit{{{x}}}" if row.reported else x) for x in small]
    own = ",".join(marks[note] for note in _tex_notes(table, row))
    named[0] = rf"\quad {named[0]}" + (rf"$^{{\mathrm{{{own}}}}}$" if own else "")
    said, _ = _details(table, row)
    if said and not small[0]:
        small[0] = _tiny(tex_text(said))
    small[0] = small[0] and rf"\quad {small[0]}"
    for column in table.columns:
        found, cell = score(row, column, digits), row.cells.get(column)
        if found is None:
            named.append("--")
            small.append("")
        elif row.reported or cell is None:
            named.append(rf"\textit{{{found}}}")
            small.append("")
        else:
            found = rf"\textbf{{{found}}}" if cell.best else found
            named.append(found + (r"$^{\dagger}$" if cell.tied else ""))
            small.append(_tiny(span(cell.estimate, max(1, digits - 1)).replace(", ", ",")))
    for base in table.bases:
        versus = row.versus.get(base)
        if versus is None or versus.difference.value is None:
            named.append("--")
            small.append("")
            continue
        star = "$^{*}$" if versus.significant else ""
        named.append(f"${points(versus.difference.value, digits)}${star}")
        small.append(_tiny(f"$p {_tex_p(versus.adjusted)}$"))
    return named, small


def _over(table: PaperTable, row: PaperRow) -> str:
    """What stands over the rows that share it."""
    return row.type if table.number == 1 else f"Worker {short(table, row.worker)}"


def _named(table: PaperTable, told: list[str], names: list[str]) -> list[str]:
    """What a row is, without what stands elsewhere: over it, or under its name."""
    kept = ("Method", "Worker") if table.number == 1 else ("Meta-agent",)
    return [x for x, name in zip(told, names, strict=True) if name in kept]


def _details(table: PaperTable, row: PaperRow) -> tuple[str, str]:
    """(the words under a row's name, those that are too long for there)."""
    said = ", ".join(x for x in (row.level, below(table, row)) if x)
    if row.reported:
        return (row.type if table.number == 2 else ""), ""
    taken = _halves(label(table, row)[1])[1]
    if len(said) <= WIDE and not taken:
        return said, ""
    return ("", said) if taken else (row.level or "", below(table, row))


def _tex_notes(table: PaperTable, row: PaperRow) -> list[str]:
    """The notes on a row, and of its name what found no place."""
    _, rest = _details(table, row)
    return [*([rest] if rest else []), *row.notes]


def _halves(name: str) -> tuple[str, str]:
    """A name on two lines, where one would be too long, parted at a hyphen, space or underscore."""
    places = [n for n, ch in enumerate(name, 1) if ch in "-_ " and n < len(name)]
    if len(name) <= WIDE or not places:
        return name, ""
    middle = min(places, key=lambda n: abs(n - len(name) / 2))
    return name[:middle].rstrip(), name[middle:]


def _tiny(said: str) -> str:
    return rf"{{\scriptsize {said}}}"


def _tex_p(p: float | None) -> str:
    said = p_value(p)
    return said if said.startswith("<") else f"= {said}" if p is not None else r"\mathrm{unknown}"


def markdown(table: PaperTable, digits: int) -> str:
    """A table in GitHub's Markdown, with its footnotes under it."""
    marks, told = numbered(table)
    names = [*head(table), *table.columns, *(f"vs. {base}" for base in table.bases)]
    rule = ["---"] * len(head(table)) + ["---:"] * (len(names) - len(head(table)))
    lines = []
    for row in table.rows:
        cells = [markdown_text(x) for x in label(table, row)]
        place = 1 if table.number != 3 else 0
        said = below(table, row)
        cells[place] += f" ({markdown_text(said)})" if said else ""
        if row.reported:
            cells = [f"*{x}*" if x != ABSENT else x for x in cells]
        own = ",".join(marks[note] for note in row.notes)
        cells[place] += f" [{own}]" if own else ""
        for column in table.columns:
            found, cell = score(row, column, digits), row.cells.get(column)
            if found is None:
                cells.append(ABSENT)
            elif row.reported or cell is None:
                cells.append(f"*{found}*")
            else:
                found = f"**{found}**" if cell.best else found
                dagger = "†" if cell.tied else ""
                cells.append(f"{found}{dagger} {markdown_text(span(cell.estimate, digits))}")
        cells += [markdown_text(_plain_versus(row.versus.get(base), digits))
                  for base in table.bases]  # fmt: skip
        lines.append(cells)
    body = ["| " + " | ".join(line) + " |" for line in (names, rule, *lines)]
    notes = [markdown_text(note) for note in table.footnotes]
    notes += [f"[{mark}] {markdown_text(note)}." for mark, note in told]
    title = f"**{markdown_text(table.title)}**: pass@1 in percent."
    return "\n".join([title, "", *body, "", "  \n".join(notes), ""])


def _plain_versus(versus: Versus | None, digits: int) -> str:
    if versus is None or versus.difference.value is None:
        return ABSENT
    star = "*" if versus.significant else ""
    said = p_value(versus.adjusted)
    p = f"p {said}" if said.startswith("<") else f"p = {said}"
    return f"{points(versus.difference.value, digits)}{star} ({p})"


STYLE = (
    "<style>.paper{overflow-x:auto}.paper table{border-collapse:collapse;font-size:.9rem}"
    ".paper caption{text-align:left;font-weight:600;padding-bottom:.4rem}"
    ".paper th,.paper td{padding:.25rem .6rem;text-align:right;vertical-align:top;"
    "white-space:nowrap;border:0;border-bottom:1px solid rgba(128,128,128,.25)}"
    ".paper th[scope=row],.paper thead th.what{text-align:left}"
    ".paper small{display:block;opacity:.75;font-weight:400}"
    ".paper .reported td,.paper .reported th{font-style:italic}.paper .reported td{opacity:.85}"
    ".paper tbody th{font-weight:400}"
    ".paper.compact th:first-child{position:sticky;left:0;z-index:1;white-space:normal;"
    "background:var(--st-background-color,Canvas);min-width:7.5rem}"
    "@media (max-width:640px){.paper.compact table{font-size:.8rem}"
    ".paper.compact th,.paper.compact td{padding:.2rem .3rem}"
    ".paper.compact small{font-size:.65rem;overflow-wrap:anywhere}}</style>"
)


def html_table(table: PaperTable, digits: int) -> str:
    """A table with its footnotes, in one division of the class `paper`, with its style."""
    return STYLE + html_part(table, digits)


def html_part(table: PaperTable, digits: int, *, compact: bool = False) -> str:
    """The same without its style, which a page has once.

    `compact` is for narrow pages: what a row is stands in its first column, and scores follow.
    """
    marks, told = numbered(table)
    names = head(table)
    place = 1 if table.number != 3 else 0
    what = [names[place]] if compact else names
    top = "".join(f'<th scope="col" class="what">{html.escape(x)}</th>' for x in what)
    scores = (*table.columns, *(f"vs. {base}" for base in table.bases))
    macro = not compact and any(row.macro for row in table.rows)
    top += "".join(f'<th scope="col">{html.escape(x)}</th>' for x in scores)
    top += '<th scope="col">Macro</th>' if macro else ""
    lines = []
    for row in table.rows:
        named = [html.escape(text(x)) for x in label(table, row)]
        own = ",".join(marks[note] for note in row.notes)
        mark = f" <sup>{own}</sup>" if own else ""
        said = below(table, row)
        if compact:
            rest = [x for n, x in enumerate(label(table, row)) if n != place and x != ABSENT]
            rest = [*(["reported"] if row.reported else []), *rest, *([said] if said else [])]
            small = f"<small>{html.escape(text(' · '.join(rest)))}</small>"
            cells = [f'<th scope="row">{named[place]}{mark}{small}</th>']
        else:
            small = f"<small>{html.escape(text(said))}</small>" if said else ""
            named[place] += mark + small
            cells = [f'<th scope="row">{x}</th>' for x in named]
        cells += [f"<td>{_html_score(row, column, digits)}</td>" for column in table.columns]
        cells += [f"<td>{html.escape(_plain_versus(row.versus.get(base), digits))}</td>"
                  for base in table.bases]  # fmt: skip
        cells += [f"<td>{_html_macro(row, digits)}</td>"] if macro else []
        kind = ' class="reported"' if row.reported else ""
        lines.append(f"<tr{kind}>{''.join(cells)}</tr>")
    notes = [html.escape(text(note)) for note in table.footnotes]
    notes += ["Macro: the mean of the three benchmarks, each the same."] if macro else []
    notes += [f"<sup>{mark}</sup> {html.escape(text(note))}." for mark, note in told]
    caption = f"Table {table.number}. {table.title}: pass@1 in percent."
    under = [f"<p><small>{note}</small></p>" for note in notes]
    if compact:
        under = ["<details><summary>How to read this table</summary>", *under, "</details>"]
    kind = "paper compact" if compact else "paper"
    return "\n".join(
        [f'<div class="{kind}"><table>', f"<caption>{html.escape(caption)}</caption>",
         f"<thead><tr>{top}</tr></thead>", "<tbody>", *lines, "</tbody>", "</table></div>",
         *under, ""]
    )  # fmt: skip


def _html_score(row: PaperRow, column: str, digits: int) -> str:
    found, cell = score(row, column, digits), row.cells.get(column)
    if found is None:
        return ABSENT
    if row.reported or cell is None:
        return html.escape(found)
    found = f"<strong>{found}</strong>" if cell.best else found
    interval = html.escape(span(cell.estimate, digits))
    return f"{found}{'†' if cell.tied else ''}<small>{interval}</small>"


def _html_macro(row: PaperRow, digits: int) -> str:
    if row.macro is None or row.macro.value is None:
        return ABSENT
    said = f"[{percent(row.macro.low, digits)}, {percent(row.macro.high, digits)}]"
    return f"{percent(row.macro.value, digits)}<small>{html.escape(said)}</small>"


def raw(table: PaperTable, digits: int) -> str:
    """CSV of raw values: shares in [0, 1], differences too; an empty cell for what is unknown.

    `macro` is the mean of the three benchmarks in which each counts the same.
    """
    del digits  # nothing is rounded
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    parts = ("", "_low", "_high", "_problems", "_run", "_mark")
    scores = [f"{name}{part}" for name in table.columns for part in parts]
    against = ("", "_low", "_high", "_p", "_p_holm", "_problems", "_test", "_runs")
    versus = [f"vs_{base.replace('-', '_')}{part}" for base in table.bases for part in against]
    writer.writerow(["table", "kind", "type", "method", "knobs", "worker", "meta", "level", *scores,
                     "macro", "macro_low", "macro_high", *versus, "notes", "source"])  # fmt: skip
    for row in table.rows:
        kind = "reported" if row.reported else "measured"
        line: list[Any] = [table.number, kind, row.type, row.method, row.detail, row.worker,
                           row.meta, row.level]  # fmt: skip
        for column in table.columns:
            line += _raw_cell(row.cells.get(column))
        mean = row.macro
        line += [None] * 3 if mean is None else [mean.value, mean.low, mean.high]
        for base in table.bases:
            line += _raw_versus(row.versus.get(base))
        writer.writerow([_safe(x) for x in (*line, "; ".join(row.notes), row.source)])
    return out.getvalue()


def _raw_cell(cell: Cell | None) -> list[Any]:
    if cell is None:
        return [None] * 6
    found = cell.estimate
    mark = "best" if cell.best else "tied" if cell.tied else None
    return [found.value, found.low, found.high, found.problems or None, cell.run, mark]


def _raw_versus(versus: Versus | None) -> list[Any]:
    if versus is None:
        return [None] * 8
    found: Difference = versus.difference
    numbers = [found.value, found.low, found.high, found.p, versus.adjusted, found.problems]
    return [*numbers, found.test, " ".join(versus.base)]


def _safe(value: Any) -> Any:
    """Text that no spreadsheet takes for a formula."""
    if isinstance(value, str):
        value = text(value)
        return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value
    return value


WRITERS: dict[str, Callable[[PaperTable, int], str]] = {
    "latex": latex, "markdown": markdown, "csv": raw, "html": html_table,
}  # fmt: skip
