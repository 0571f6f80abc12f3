"""The board as a table for a paper, a README or a spreadsheet; the numbers of `queries`.

One table per ranking: rows that may not be compared never stand in one. Simulated runs are in
none: their numbers say nothing about a model. Dollars are fresh prices, as if no reply had been
kept. LaTeX needs booktabs and nothing else, and leaves out what would make it wider than a page;
its text and the HTML's are escaped. CSV is one flat table of raw values.
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from harness.errors import UsageError
from harness.metrics import Estimate, count, dollars, duration, percent
from harness.page import things
from harness.paired import Rank, tie_groups
from harness.store import plain
from leaderboard.outcomes import outcomes, pass_at_several
from leaderboard.queries import BoardRow, Group, board, groups

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Format = Literal["markdown", "csv", "latex", "html"]
FORMATS: tuple[Format, ...] = ("markdown", "csv", "latex", "html")
HEAD = ("Method", "pass@1", "95% interval", "Rank", "Overlap-free", "n", "Worker", "Meta-agent",
        "Level", "Calls", "Tokens", "Dollars", "Time", "Search")  # fmt: skip
# The columns in LaTeX, with the width of those whose texts are broken into lines.
TEX_HEAD = {"Method": "4cm", "Worker": "3.4cm", "Level": "", "pass@1": "", "Rank": "", "Calls": "",
            "Tokens": "", "Dollars": ""}  # fmt: skip
SEVERAL = (5, 10)  # the k of pass@k in the CSV, where every problem has so many samples
ABSENT = "–"  # in place of an overlap-free score, of a rank, or of a search
NUMBERS = frozenset({"pass@1", "Rank", "Overlap-free", "n", "Calls", "Tokens", "Dollars", "Time",
                     "Search"})  # fmt: skip


def table(
    connection: DuckDBPyConnection,
    format: Format = "markdown",
    *,
    benchmark: str | None = None,
    digits: int = 1,
) -> str:
    """The board, or one `benchmark` of it, as text; percentages with `digits` decimals.

    The best complete measured row of each ranking is bold. Raises UsageError: unknown format, or
    no row to show, simulated ones aside.
    """
    if format not in FORMATS:
        raise UsageError(f"{format}: unknown format; one of {', '.join(FORMATS)}")
    found = [row for row in board(connection) if benchmark in (None, row.benchmark)]
    rows = [row for row in found if row.kind != "simulated"]
    if found and not rows:
        raise UsageError("nothing to export: every run is simulated, and says nothing of a model")
    if not rows:
        where = f"no run on {benchmark}" if benchmark else "no run at all"
        raise UsageError(f"nothing to export: {where}; `python -m harness eval` makes one")
    apart = groups(rows)
    ranks = ranks_of(connection, apart)
    if format == "csv":
        return _csv(rows, ranks, pass_at_several(connection, SEVERAL))
    write = {"markdown": _markdown, "latex": _latex, "html": _html}[format]
    return "\n".join(write(group, ranks, digits) for group in apart)


def ranks_of(connection: DuckDBPyConnection, apart: Sequence[Group]) -> dict[str, Rank]:
    """{run: the places that it may have in its ranking}; without those that are in none."""
    found: dict[str, Rank] = {}
    for group in apart:
        ids = [row.run_id for row in group.ranked]
        if len(ids) > 1:
            found |= tie_groups(outcomes(connection, ids))
    return found


def title(group: Group) -> str:
    """What the rows of a ranking share, in words."""
    row = group.rows[0]
    custom = " (custom data)" if row.custom else ""
    return (
        f"{row.benchmark}{custom}, list {row.list or 'unknown'}, "
        f"protocol {row.protocol or 'unknown'}"
    )


def footnote(group: Group, shown: Collection[str] = HEAD) -> str:
    """What a reader must know to use the numbers: data, grader, prices, dates, kinds, intervals,
    and of the columns `shown` what they are."""
    row = group.rows[0]
    days = sorted({day(r.started_at) for r in group.rows if r.started_at is not None})
    dates = " to ".join(dict.fromkeys([days[0], days[-1]])) if days else "unknown date"
    kinds = sorted({r.kind for r in group.rows})
    environment = f"environment {row.environment or 'unknown'}, " if row.needs_environment else ""
    words = {
        "n": "n problems",
        "Rank": "rank: the places that a row may have, by paired differences of all pairs after "
        "Holm, 95% certain together",
        "Overlap-free": "overlap-free: pass@1 on the hidden tests that no feedback test repeats, "
        f"{ABSENT} where none is left",
        "Time": "calls, tokens and time are means per sample",
        "Dollars": "dollars are for the whole run, with no reply taken from a cache",
        "Search": "search: what finding the method's workflow took before, once and in none of "
        "these numbers, in dollars, or in tokens where it was free, "
        f"{ABSENT} where nothing was searched for",
    }
    if "Time" not in shown:
        words["Tokens"] = "calls and tokens are means per sample"
    problems = "" if "n" in shown else f" over {things(group.problems, 'problem')}"
    return (
        f"Protocol {row.protocol or 'unknown'}, list {row.list or 'unknown'}, "
        f"data {(row.benchmark_digest or 'unknown')[:12]}, "
        f"grader {row.grader_version or 'unknown'}, {environment}"
        f"prices {row.price_table or 'unknown'}; "
        f"{dates}; {', '.join(kinds)}. pass@1 in percent{problems}; Wilson interval, "
        "where problems were sampled several times that of as many single samples as would leave "
        f"it as uncertain; {'; '.join(said for name, said in words.items() if name in shown)}."
    )


def cells(
    group: Group, row: BoardRow, digits: int = 1, ranks: Mapping[str, Rank] | None = None
) -> list[str]:
    """A row as the texts under HEAD, not yet escaped."""
    found = row.estimate
    note = group.note(row)
    errored = f"{found.errored} errored" if found.errored else ""
    marks = "; ".join(x for x in (note, errored) if x)
    interval = "unknown" if found.value is None else (
        f"{percent(found.low, digits)} to {percent(found.high, digits)}")  # fmt: skip
    return [
        row.named + (f" ({marks})" if marks else ""), percent(found.value, digits), interval,
        str((ranks or {}).get(row.run_id, ABSENT)),
        ABSENT if row.overlap_free is None else percent(row.overlap_free, digits),
        count(found.problems), row.worker, row.meta or "none", row.level or "unknown",
        count(row.per_sample(row.calls)), count(row.per_sample(row.tokens)),
        dollars(row.fresh_cost_usd), duration(row.per_sample(row.wall_s)),
        ABSENT if row.search is None else row.search.words,
    ]  # fmt: skip


def _lines(
    group: Group,
    ranks: Mapping[str, Rank],
    digits: int,
    escape: Callable[[str], str],
    bold: Callable[[str], str],
) -> list[list[str]]:
    """The escaped cells of a group; the score of the best rows made bold."""
    found = []
    for row in group.rows:
        line = [escape(cell) for cell in cells(group, row, digits, ranks)]
        if row.run_id in group.best:
            line[1] = bold(line[1])
        found.append(line)
    return found


def span(estimate: Estimate, digits: int) -> str:
    """An interval in brackets, in percent."""
    return f"[{percent(estimate.low, digits)}, {percent(estimate.high, digits)}]"


def text(said: str) -> str:
    """One line of text without control characters, of which nothing is escaped yet."""
    return " ".join(plain(said).split())


def markdown_text(said: str) -> str:
    """`said` in Markdown, where none of its marks means anything."""
    for mark in "\\`*_|<>[]$~&#!":
        said = said.replace(mark, f"\\{mark}")
    return text(said)


TEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
       "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
       "[": "{[}", "]": "{]}", "*": "{*}", "`": "{`}",  # which mean something after \\ and ?
       "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
       "–": "--", "†": r"$\dagger$", "…": r"\ldots{}"}  # fmt: skip


def tex_text(said: str) -> str:
    """`said` in LaTeX of any engine: marks lose their meaning, letters beyond ASCII are named."""
    return "".join(TEX.get(ch, ch if ch.isascii() else f"U+{ord(ch):04X}") for ch in text(said))


def _markdown(group: Group, ranks: Mapping[str, Rank], digits: int) -> str:
    rule = ["---:" if name in NUMBERS else "---" for name in HEAD]
    body = [HEAD, rule, *_lines(group, ranks, digits, markdown_text, lambda said: f"**{said}**")]
    lines = ["| " + " | ".join(line) + " |" for line in body]
    head = f"**{markdown_text(title(group))}**"
    return "\n".join([head, "", *lines, "", markdown_text(footnote(group)), ""])


def _latex(group: Group, ranks: Mapping[str, Rank], digits: int) -> str:
    """A table across the page, of the columns of `TEX_HEAD`; names break where they are too long.

    What else is known stands in the other formats.
    """
    body = []
    for row in group.rows:
        told = dict(zip(HEAD, cells(group, row, digits, ranks), strict=True))
        score = tex_text(told["pass@1"])
        if row.run_id in group.best:
            score = rf"\textbf{{{score}}}"
        if row.estimate.value is not None:
            score += rf" {{\scriptsize {tex_text(span(row.estimate, digits))}}}"
        named, note = told["Method"], ""
        if (rest := named.removeprefix(row.named)) != named:
            named, note = row.named, rest.strip(" ()")
        under = "; ".join(x for x in (f"meta-agent {row.meta}" if row.meta else "", note) if x)
        name = tex_text(named) + (rf" {{\scriptsize {tex_text(under)}}}" if under else "")
        line = {"Method": rf"\raggedright {name}", "pass@1": score,
                "Worker": rf"\raggedright {tex_text(row.worker)}"}  # fmt: skip
        body.append([line.get(x) or tex_text(told[x]) for x in TEX_HEAD])
    columns = "".join(f"p{{{wide}}}" if wide else "r" for wide in TEX_HEAD.values())
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}; 16 cm wide: a page of two columns, or a landscape one",
            r"\begin{table*}",
            r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{tex_text(title(group))}.}}",
            rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"\toprule",
            " & ".join(tex_text(name) for name in TEX_HEAD) + r" \\",
            r"\midrule",
            *(" & ".join(line) + r" \\" for line in body),
            r"\bottomrule",
            r"\end{tabular}",
            "",
            r"\smallskip",
            r"\begin{minipage}{\textwidth}\raggedright\scriptsize",
            tex_text(footnote(group, TEX_HEAD)),
            r"\end{minipage}",
            r"\end{table*}",
            "",
        ]
    )


def _html(group: Group, ranks: Mapping[str, Rank], digits: int) -> str:
    def escape(said: str) -> str:
        return html.escape(text(said))

    body = _lines(group, ranks, digits, escape, lambda said: f"<strong>{said}</strong>")

    def line(tag: str, row: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in row) + "</tr>"

    return "\n".join(
        [
            "<table>",
            f"<caption>{escape(title(group))}</caption>",
            f"<thead>{line('th', HEAD)}</thead>",
            "<tbody>",
            *(line("td", row) for row in body),
            "</tbody>",
            "</table>",
            f"<p>{escape(footnote(group))}</p>",
            "",
        ]
    )


def _csv(
    rows: Sequence[BoardRow],
    ranks: Mapping[str, Rank],
    several: Mapping[int, Mapping[int, float]],
) -> str:
    """Raw values: shares in [0, 1], sums over the run, an empty cell where a value is unknown."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    plain = ("run_id", "benchmark", "benchmark_digest", "list", "protocol", "level", "method",
             "named", "knobs", "worker", "meta", "n_samples", "seed", "grader_version",
             "price_table", "kind", "status", "commit", "dirty", "problems_asked", "samples_asked",
             "samples_left", "sandbox", "first_look", "custom", "environment", "left_out",
             "unranked")  # fmt: skip
    scores = ("value", "low", "high", "problems", "samples", "errored", "floor", "ceiling")
    sums = ("overlap_free", "calls", "tokens", "fresh_cost_usd", "cost_usd", "cached_calls",
            "wall_s")  # fmt: skip
    search = ("run", "file", "problems", "calls", "tokens", "fresh_cost_usd", "cost_usd", "wall_s")
    writer.writerow([*plain, "started_at", *(f"pass@1_{name}" for name in scores),
                     *(f"pass@{k}" for k in SEVERAL),
                     "rank_first", "rank_last", *sums,
                     *(f"search_{name}" for name in search)])  # fmt: skip
    for row in rows:
        started = None if row.started_at is None else _iso(row.started_at)
        writer.writerow(
            [*(getattr(row, name) for name in plain), started,
             *(getattr(row.estimate, name) for name in scores),
             *(several.get(row.run_no, {}).get(k) for k in SEVERAL),
             *ranks.get(row.run_id, (None, None)),
             *(None if (value := getattr(row, name)) is None else round(value, 9)
               for name in sums),
             *(getattr(row.search, name, None) for name in search)]
        )  # fmt: skip
    return out.getvalue()


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def day(at: float | None) -> str:
    """The date of a time in unix seconds, as YYYY-MM-DD; "unknown" without one."""
    return "unknown" if at is None else _iso(at)[:10]
