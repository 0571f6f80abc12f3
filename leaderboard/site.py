"""The board as a folder of pages that need no server and no script.

`index.html` (the rankings, what they cost, paired differences to the controls), `problems.html`
(who solves what), `paper.html` (the paper's tables), `runs.html`, `board.csv`, under `searches/` a
page for each search, and under `runs/` a folder for each run: its samples, and pages of some of
them with all that happened. Numbers are
those of `queries`, `outcomes`, `paired` and `costs`, as on the pages of `views`. The same snapshot
and journals make the same bytes: nothing says when it was written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.metrics import Tally, count, dollars, duration, p_value, percent
from harness.metrics import points as points_of
from harness.page import things
from harness.paired import LEVEL, Rank, difference, holm
from harness.rounds import BEST_OF_N
from harness.store import MIXED
from leaderboard import export
from leaderboard.charts import MEASURES, Measure, cost_chart
from leaderboard.costs import (
    CostRow,
    by_problem,
    cost_rows,
    drawable,
    labels,
    points,
    sample_cost,
    solved_words,
    standing,
)
from leaderboard.figures import INSTALL
from leaderboard.outcomes import matrix, outcomes
from leaderboard.paper import (
    TITLES,
    Number,
    PaperTable,
    build,
    column_of,
    reported_rows,
)
from leaderboard.paper_text import html_part
from leaderboard.queries import BoardRow, Group, SampleRow, board, groups
from leaderboard.records import Texts, gradings, some_samples, verdict_counts
from leaderboard.running import runs
from leaderboard.search_rows import attempts, search_steps, searches
from leaderboard.site_html import Cell, figure, link, page, table, text
from leaderboard.site_sample import graded_again, read_samples, sample_page
from leaderboard.site_search import search_page
from leaderboard.timeline import timeline

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MARK = "site.json"  # which says that a folder is such a site
FORMAT = "workflow board, static site 1"
PAGES = 200  # samples of a run that have a page, unless told otherwise
LISTED = 5000  # samples of a run that its page lists
DETAIL = 120  # characters of what a grader said, in a list
CONTROLS = (BEST_OF_N, "vanilla")  # methods that the others of a ranking are set beside
PASSED = "passed"
REPORTED_ALONE = "All of it is reported, nothing measured here."


def write_site(
    connection: DuckDBPyConnection, results_dir: Path, folder: Path, *, sample_pages: int = PAGES
) -> Path:
    """Write the site of a snapshot into `folder` and return its first page.

    Up to `sample_pages` samples of each run get a page of their own, failures first; texts are
    read from the journals under `results_dir`. All is written beside and then renamed, so that a
    site that is there is whole at any time. Raises UsageError where `folder` is anything but such
    a site, an empty folder or nothing, or cannot be written, and where a package is missing that
    draws the charts.
    """
    try:
        import altair  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise UsageError(f"the site needs {error.name}: `{INSTALL}`") from error
    target = Path(os.path.abspath(folder))
    _check_replaceable(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror or error}") from error
    try:
        _write(connection, results_dir, made, sample_pages)
        _put_in_place(made, target)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)  # gone by now, unless something failed
    return target / "index.html"


def _check_replaceable(target: Path) -> None:
    """Raises UsageError unless the site may stand in the place of what is there."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError(f"{target}: is no folder; name another place for the site")
    if not target.exists() or not any(target.iterdir()):
        return
    try:
        told = json.loads((target / MARK).read_text())
    except (OSError, ValueError):
        told = None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise UsageError(
            f"{target}: holds something that is no such site; name another folder, or an empty one"
        )


def _put_in_place(made: Path, target: Path) -> None:
    """Rename the new site to its place; the one before is put back should that fail."""
    made.chmod(0o755)  # a server may be somebody else
    if not target.exists():
        made.rename(target)
        return
    old = made.with_name(f"{made.name}.old")
    target.rename(old)
    try:
        made.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)


def _write(
    connection: DuckDBPyConnection, results_dir: Path, made: Path, sample_pages: int
) -> None:
    rows = board(connection)
    apart = groups(rows)
    places = {row.run_id: _slug(row.run_id) for row in rows}
    found = _write_searches(connection, results_dir, made, places)
    pages: dict[tuple[str, str, int], str] = {}  # addresses of samples, from the site's folder
    for group in apart:
        for row in group.rows:
            pages |= _write_run(connection, results_dir, made, row, group.note(row),
                                places[row.run_id], sample_pages, found)  # fmt: skip
    _save(made / "index.html", _index(connection, apart, places))
    _save(made / "problems.html", _problems(connection, apart, places, pages))
    _save(made / "paper.html", _paper(connection, rows))
    _save(made / "runs.html", _runs(connection, places, found))
    try:
        _save(made / "board.csv", export.table(connection, "csv"))
    except UsageError as error:  # nothing measured: the page says it as well
        _save(made / "board.csv", f"# {error}\n")
    _save(made / MARK, json.dumps({"format": FORMAT, "runs": len(rows)}) + "\n")


def _write_searches(
    connection: DuckDBPyConnection, results_dir: Path, made: Path, places: Mapping[str, str]
) -> dict[str, str]:
    """Write a page for each search; give their addresses from the site's folder, by run."""
    found: dict[str, str] = {}
    for row in searches(connection):
        found[row.run_id] = f"searches/{_slug(row.run_id)}.html"
        steps, tried = search_steps(connection, row.run_id), attempts(connection, row.run_id)
        texts = Texts(results_dir, connection, row.run_id)
        _save(made / found[row.run_id], search_page(row, steps, tried, texts, places, "../"))
    return found


def _save(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8", "backslashreplace"))


def _slug(name: str, *, always: bool = False) -> str:
    """A name as a part of an address; with a digest unless it is that already."""
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60]
    if safe == name and not always:
        return safe
    digest = hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()[:10]
    return f"{safe}-{digest}" if safe else digest


def _run_link(
    row: BoardRow, places: Mapping[str, str], names: Mapping[str, str] | None = None
) -> str:
    """A link to the page of a run, by its name; `names` tells equal ones apart."""
    name = row.named if names is None else names[row.run_id]
    return link(f"runs/{places[row.run_id]}/index.html", name)


def _index(
    connection: DuckDBPyConnection, apart: Sequence[Group], places: Mapping[str, str]
) -> str:
    body = [
        "<p>Does this workflow solve more than one call of the same model, and at what price? "
        "pass@1 in percent with its 95% interval; ★ best of the complete measured runs. Rows of "
        f"different tables may not be compared. {link('board.csv', 'The same as CSV')}.</p>"
    ]
    if not apart:
        body.append("<p>There is no run yet.</p>")
    ranks = export.ranks_of(connection, apart)
    for group in apart:
        body.append(f"<h2>{text(export.title(group))}</h2>")
        body.append(_board_table(group, places, ranks))
        body.append(f'<p class="note">{text(export.footnote(group))}</p>')
        body += _cost_part(connection, group, places)
        body += _control_part(connection, group, places)
    return page("Workflow board", body, here="index.html")


def _board_table(group: Group, places: Mapping[str, str], ranks: Mapping[str, Rank]) -> str:
    lines = []
    for row in group.rows:
        name, *cells = (text(cell) for cell in export.cells(group, row, ranks=ranks))
        if row.run_id in group.best:
            cells[0] = f"<strong>{cells[0]} ★</strong>"
        note = name.removeprefix(text(row.named)).strip()  # why it has no rank, what errored
        said = f' <span class="note">{note}</span>' if note else ""
        lines.append([_run_link(row, places) + said, *cells])
    return table(f"Scores: {export.title(group)}", export.HEAD, lines, numbers=export.NUMBERS)


def _cost_part(
    connection: DuckDBPyConnection, group: Group, places: Mapping[str, str]
) -> list[str]:
    """Score against cost, as a drawing and as a table; nothing where no cost is known."""
    unit = _unit(group)
    if unit is None:
        return []
    ids = [row.run_id for row in group.rows]
    rows = cost_rows(group, by_problem(connection, ids, unit), unit)
    label = f"pass@1 against {MEASURES[unit].lower()} of a sample: {export.title(group)}"
    found = ["<h3>What a score costs</h3>"]
    if drawable(drawn := points(rows)):
        found.append(figure(cost_chart(drawn, unit), label))
        found.append(
            '<p class="note">The dashed steps are the Pareto front: no complete measured row '
            "does better for no more, or as well for less. Hollow marks are in no ranking.</p>"
        )
    found.append(_cost_table(rows, unit, places, label, labels(group.rows)))
    return found


def _unit(group: Group) -> Measure | None:
    """Dollars where one is known and something was paid for, else tokens, else calls."""
    found: list[Measure] = ["usd", "tokens", "calls"]
    return next((u for u in found if any(sample_cost(row, u) for row in group.rows)), None)


def _cost_table(
    rows: Sequence[CostRow],
    unit: Measure,
    places: Mapping[str, str],
    label: str,
    names: Mapping[str, str],
) -> str:
    said = {"usd": dollars, "calls": count, "tokens": count, "time": duration}[unit]
    lines = [
        [_run_link(one.row, places, names), text(percent(one.row.estimate.value)),
         text(said(one.cost)), text(solved_words(one, unit)), text(standing(one, names)),
         text("none" if one.row.search is None else one.row.search.words)]
        for one in rows
    ]  # fmt: skip
    heads = ["Method", "pass@1", f"{MEASURES[unit]} a sample", "A solved problem", "Front",
             "Search before it"]  # fmt: skip
    return table(label, heads, lines, numbers=heads[1:4])


def _control_part(
    connection: DuckDBPyConnection, group: Group, places: Mapping[str, str]
) -> list[str]:
    """Paired differences of the ranked rows to best-of-n and to vanilla of the same worker."""
    ids = [row.run_id for row in group.ranked]
    solved = outcomes(connection, ids)
    found = []
    for control in CONTROLS:
        beside = _beside(group, control)
        if beside:
            found.append(_difference_table(group, control, beside, solved, places))
    if found:
        said = (
            "Differences in points of pass@1, problem by problem, to the best such row of the same "
            "worker. p: two-sided, p (Holm): over the rows of its table. A difference is marked "
            f"* where that is below {LEVEL}. Detectable: the smallest difference that this "
            "comparison finds four times in five."
        )
        found = ["<h3>Beside the controls</h3>", *found, f'<p class="note">{text(said)}</p>']
    return found


def _beside(group: Group, control: str) -> list[tuple[BoardRow, BoardRow]]:
    """(row, control) for each ranked row that has one: of its worker, the one that scores best."""
    best: dict[str, BoardRow] = {}
    for row in group.ranked:
        if row.method == control:
            best.setdefault(row.worker, row)  # rows stand best first
    return [
        (row, best[row.worker])
        for row in group.ranked
        if row.worker in best and row.method != control
    ]


def _difference_table(
    group: Group,
    control: str,
    beside: Sequence[tuple[BoardRow, BoardRow]],
    solved: Mapping[str, Mapping[str, Tally]],
    places: Mapping[str, str],
) -> str:
    found = [difference(solved[row.run_id], solved[other.run_id]) for row, other in beside]
    names = labels(group.ranked)
    lines = []
    for (row, other), one, adjusted in zip(beside, found, holm([d.p for d in found]), strict=True):
        star = " *" if adjusted is not None and adjusted < LEVEL else ""
        between = "unknown" if one.low is None else f"{points_of(one.low)} to {points_of(one.high)}"
        lines.append(
            [_run_link(row, places, names), text(points_of(one.value) + star), text(between),
             text(p_value(one.p)), text(p_value(adjusted)), text(f"{one.only_a} / {one.only_b}"),
             text("none" if one.detectable is None else percent(one.detectable)),
             text(one.problems), _run_link(other, places, names)]
        )  # fmt: skip
    heads = ["Method", f"Minus {control}", "95% interval", "p", "p (Holm)",
             "Solved by this / that alone", "Detectable", "n", "Beside"]  # fmt: skip
    return table(f"Paired differences to {control}: {export.title(group)}", heads, lines,
                 numbers=heads[1:-1])  # fmt: skip


def _problems(
    connection: DuckDBPyConnection,
    apart: Sequence[Group],
    places: Mapping[str, str],
    pages: Mapping[tuple[str, str, int], str],
) -> str:
    body = [
        "<p>✓ every graded sample of the problem passed, ✗ none, 2/5 two of five, ? no verdict, – "
        "not asked. A mark that is a link leads to the sample.</p>"
    ]
    for group in apart:
        ids = [row.run_id for row in group.rows]
        found = matrix(connection, ids)
        if not found:
            continue
        names = [_letters(n) for n in range(len(ids))]
        body.append(f"<h2>{text(export.title(group))}</h2>")
        key = [
            f"<li><strong>{name}</strong> {_run_link(row, places)}, {text(row.worker)}: "
            f"{text(percent(row.estimate.value))} %</li>"
            for name, row in zip(names, group.rows, strict=True)
        ]
        body.append("<ul>" + "".join(key) + "</ul>")
        lines: list[list[str | Cell]] = [
            [text(one.problem_id), text(f"{one.solvers} of {one.systems}"),
             *(_cell(cell, pages.get((run_id, one.problem_id, 0)))
               for run_id, cell in zip(ids, one.cells, strict=True))]
            for one in found
        ]  # fmt: skip
        heads = [f'<abbr title="{text(row.named)}">{name}</abbr>'
                 for name, row in zip(names, group.rows, strict=True)]  # fmt: skip
        body.append(
            table(f"Who solves what: {export.title(group)}", ["Problem", "Solved by", *heads],
                  lines, kind="matrix", marked=True)
        )  # fmt: skip
    if len(body) == 1:
        body.append("<p>No problem was attempted yet.</p>")
    return page("Problems", body, here="problems.html")


def _letters(number: int) -> str:
    """A, B, … Z, AA, AB, … as spreadsheets name their columns."""
    found = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        found = chr(ord("A") + rest) + found
    return found


def _cell(one: Tally | None, to: str | None) -> Cell:
    """How one system did at one problem; a colour says what the mark says."""
    if one is None:
        return Cell("–")
    if not one.graded:
        kind, mark = "", "?"
    elif one.passed == one.graded:
        kind, mark = "solved", "✓"
    elif not one.passed:
        kind, mark = "failed", "✗"
    else:
        kind, mark = "partly", f"{one.passed}/{one.graded}"
    return Cell(link(to, mark) if to else mark, kind)


def _paper(connection: DuckDBPyConnection, rows: Sequence[BoardRow]) -> str:
    """The paper's tables, one for each list and protocol, with what it reports beside.

    Where nothing measured may stand in a table, it says why, and what is reported stands alone.
    """
    body = ["<p>Measured rows beside those that the paper prints, which are in no comparison.</p>"]
    pairs = Counter((row.list or "", row.protocol or "") for row in rows
                    if row.unranked is None and column_of(row.benchmark))  # fmt: skip
    numbers: tuple[Number, ...] = (1, 2, 3)
    for number in numbers:
        body.append(f"<h2>Table {number}</h2>")
        refused: dict[str, str] = {}
        made = 0
        for told, protocol in sorted(pairs, key=lambda pair: (-pairs[pair], pair)):
            name = f"list {told or 'unknown'}, protocol {protocol or 'unknown'}"
            try:
                found = build(connection, number, with_reported=not made, list_name=told or None,
                              protocol=protocol or None)  # fmt: skip
            except UsageError as error:
                refused[name] = str(error)
                continue
            made += 1
            body += [f"<h3>Measured on {text(name)}</h3>", html_part(found, 2, compact=True)]
        body += [f'<p class="note">{text(f"{name}: {why}")}.</p>' for name, why in refused.items()]
        if not made:
            title = f"{TITLES[number]}, as printed"
            alone = PaperTable(number, title, tuple(reported_rows(number)), (), (REPORTED_ALONE,))
            body.append(html_part(alone, 2, compact=True))
    return page("The paper's tables", body, here="paper.html")


def _runs(
    connection: DuckDBPyConnection, places: Mapping[str, str], found: Mapping[str, str]
) -> str:
    """Every run and search, the newest first; `found` are the addresses of searches, by run."""
    names = ["Run", "Status", "Method", "Benchmark", "Worker", "Samples", "Passed", "Errored",
             "Dollars", "Started", "Kind", "Commit"]  # fmt: skip
    lines = []
    for one in runs(connection):
        to = f"runs/{places[one.run_id]}/index.html" if one.run_id in places else None
        to = found.get(one.run_id, to)
        lines.append(
            [link(to, one.run_id) if to else text(one.run_id),
             text(one.status or "not started"), text(one.named), text(one.benchmark),
             text(one.worker), text(count(one.samples)), text(count(one.passed)),
             text(count(one.errored)), text(dollars(one.fresh_cost_usd)),
             text(export.day(one.started_at)), text(one.kind if one.stage == "eval" else "search"),
             text((one.commit or "unknown")[:12] + (" and changes" if one.dirty else ""))]
        )  # fmt: skip
    body = [table("Runs and searches", names, lines, numbers=names[5:9])]
    if not lines:
        body = ["<p>There is no run yet.</p>"]
    if found:
        body.append(
            f'<p class="note">{len(found)} of these are searches, made before any row: they have '
            "no score and no rank.</p>"
        )
    return page("Runs", body, here="runs.html")


def _write_run(
    connection: DuckDBPyConnection,
    results_dir: Path,
    made: Path,
    row: BoardRow,
    note: str,
    place: str,
    most: int,
    searched: Mapping[str, str],
) -> dict[tuple[str, str, int], str]:
    """Write the pages of a run; give the addresses of its samples' pages."""
    counts = verdict_counts(connection, row.run_id)
    listed = some_samples(connection, row.run_id, most=LISTED)
    chosen = _chosen(connection, row.run_id, counts, most)
    names = {
        (one.problem_id, one.sample): _slug(f"{one.problem_id}:{one.sample}", always=True) + ".html"
        for one in chosen
    }
    texts = Texts(results_dir, connection, row.run_id)
    read = read_samples(connection, row.run_id, list(names))
    texts.find(sha for found in read.values() for sha in found.digests())
    several = graded_again(connection, row.run_id)
    for key, found in read.items():
        again = gradings(connection, row.run_id, *key) if key in several else []
        _save(made / "runs" / place / names[key],
              sample_page(row, timeline(found), texts, again, "../../"))  # fmt: skip
    _save(
        made / "runs" / place / "index.html", _run_page(row, note, counts, listed, names, searched)
    )
    return {(row.run_id, *key): f"runs/{place}/{name}" for key, name in names.items()}


def _chosen(
    connection: DuckDBPyConnection, run_id: str, counts: Mapping[str, int], most: int
) -> list[SampleRow]:
    """The samples that get a page: those that failed first, each in the benchmark's order."""
    failed = [verdict for verdict in counts if verdict != PASSED]
    found = some_samples(connection, run_id, failed, most=most) if failed and most else []
    if len(found) < most:
        found += some_samples(connection, run_id, [PASSED], most=most - len(found))
    return found


def _run_page(
    row: BoardRow,
    note: str,
    counts: Mapping[str, int],
    listed: Sequence[SampleRow],
    names: Mapping[tuple[str, int], str],
    searched: Mapping[str, str],
) -> str:
    body = []
    if note:
        body.append(f"<p><strong>In no ranking: {text(note)}.</strong></p>")
    body.append(f"<p>{text(_score_words(row))}</p>")
    if row.search is not None and (to := searched.get(row.search.run or "")) is not None:
        body.append(f"<p>{link(f'../../{to}', 'Its search')}</p>")
    facts = {
        "Worker": row.worker, "Meta-agent": row.meta or "none", "List": row.list,
        "Protocol": row.protocol, "Level": row.level, "Status": row.status,
        "Started": export.day(row.started_at), "Knobs": row.knobs, "Seed": row.seed,
        "Samples a problem": row.n_samples, "Grader": row.grader_version,
        "Prices": row.price_table, "Data": row.benchmark_digest, "Sandbox": row.sandbox,
        "Environment": row.environment, "Commit": _commit(row), "Command": row.command,
        "Run": row.run_id,
    }  # fmt: skip
    told = [[Cell(text(name)), Cell(text("unknown" if value is None else value), "wide")]
            for name, value in facts.items()]  # fmt: skip
    body.append("<h2>Samples</h2>")
    total = sum(counts.values())
    body.append(f"<p>{text(_counts_words(counts))}</p>" if total else "<p>None is graded yet.</p>")
    if total > len(names):
        body.append(
            f'<p class="note">{len(names):,} of {total:,} samples have a page here, those that did '
            "not pass first; all of them are on the board and in the journal.</p>"
        )
    if total > len(listed):
        body.append(f'<p class="note">The first {len(listed):,} of {total:,} are listed.</p>')
    if listed:
        heads = ["Problem", "Verdict", "Calls", "Tokens", "Dollars", "Time", "Detail"]
        lines = [_sample_line(one, names) for one in listed]
        body.append(table(f"Samples of {row.named}", heads, lines, numbers=heads[2:6]))
    body.append("<h2>How this run was made</h2>")
    body.append(table("Settings", ["Setting", "Value"], told))
    return page(f"{row.named} on {row.benchmark}", body, up="../../")


def _score_words(row: BoardRow) -> str:
    found = row.estimate
    if found.value is None:
        return "No sample has a verdict yet."
    words = [f"pass@1 {percent(found.value)} %, 95% interval {percent(found.low)} to "
             f"{percent(found.high)}, {things(found.problems, 'problem')}"]  # fmt: skip
    words += [f"{count(row.per_sample(row.calls))} calls and {count(row.per_sample(row.tokens))} "
              f"tokens a sample, {dollars(row.fresh_cost_usd)} in all"]  # fmt: skip
    if found.errored:
        words.append(
            f"{things(found.errored, 'errored sample')}: between {percent(found.floor)} and "
            f"{percent(found.ceiling)} were they graded"
        )
    if row.search is not None:
        words.append(f"search before it: {row.search.words}")
    return "; ".join(words) + "."


def _commit(row: BoardRow) -> str | None:
    if row.commit is None or row.commit.startswith(MIXED):
        return row.commit
    return row.commit + (" with uncommitted changes" if row.dirty else "")


def _counts_words(counts: Mapping[str, int]) -> str:
    said = ", ".join(f"{count(number)} {verdict}" for verdict, number in counts.items())
    return f"{things(sum(counts.values()), 'sample')}: {said}."


def _sample_line(one: SampleRow, names: Mapping[tuple[str, int], str]) -> list[str | Cell]:
    said = one.problem_id + (f" #{one.sample}" if one.sample else "")
    to = names.get((one.problem_id, one.sample))
    tokens = [one.prompt_tokens, one.completion_tokens]
    known = [n for n in tokens if n is not None]
    mark = "✓" if one.verdict == PASSED else "?" if one.verdict == "invalid" else "✗"
    detail = " ".join((one.detail or one.error_kind or "").split())
    return [
        link(to, said) if to else text(said), text(f"{mark} {one.verdict}"), text(count(one.calls)),
        text(count(sum(known)) if len(known) == 2 else "unknown"),
        text(dollars(one.fresh_cost_usd)), text(duration(one.wall_s)),
        Cell(text(detail[:DETAIL] + ("…" if len(detail) > DETAIL else "")), "wide"),
    ]  # fmt: skip
