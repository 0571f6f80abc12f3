"""The paper's tables from our runs: method x benchmark with interval, ties, significance, Overall.

Table 1 compares methods, table 2 meta-agents under one worker, table 3 workers under a meta-agent;
rows and columns are those of FlowReasoner, arXiv:2504.15257. What was measured comes from runs of
the store, and each number is one of `queries` or `outcomes`; what the paper printed
(`harness.reported`) stands in rows of its own where it is asked for, said to be reported, and in no
comparison.

A row is a method with its knobs, level, worker and meta-agent, and with how its models were asked
where such runs differ in that (`leaderboard.sampling`). Of its runs on a benchmark the one on the
most problems stands in the cell, and of these the newest. Rows that may not share a ranking
(`harness.store.ranking`, the same problems, and on every benchmark the same list and protocol) are
refused unless they are asked for; then each says in a note how it differs, and is in no comparison.
Simulated runs are in no table.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from harness import reported
from harness.aggregate import Mean, macro, micro
from harness.errors import UsageError
from harness.metrics import Estimate, Tally, percent
from harness.page import things
from harness.paired import LEVEL, Difference, difference, holm, pairwise
from harness.rounds import BEST_OF_N
from harness.store import RANKING, UNTOLD, called
from leaderboard.export import day
from leaderboard.outcomes import outcomes
from leaderboard.queries import BoardRow, board, usual_problems
from leaderboard.sampling import differing, settings

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Number = Literal[1, 2, 3]
COLUMNS = ("BigCodeBench", "HumanEval", "MBPP")
OVERALL = "Overall"
# The benchmarks that a column may show: the first of them that has a run.
SUITES: dict[str, tuple[str, ...]] = {
    "BigCodeBench": ("bigcodebench-complete", "bigcodebench-instruct",
                     "bigcodebench-hard-complete", "bigcodebench-hard-instruct"),
    "HumanEval": ("humaneval", "humaneval+"),
    "MBPP": ("mbpp", "mbpp+", "mbpp-full"),
}  # fmt: skip
# Name and type of each method, in the paper's order; its controls stand before the last type.
METHODS: dict[str, tuple[str, str]] = {
    "vanilla": ("Vanilla", "Vanilla"),
    "self-refine": ("Manual", "Self-Refine"), "llm-debate": ("Manual", "LLM-Debate"),
    "llm-blender": ("Manual", "LLM-Blender"),
    "autoagents": ("Auto", "AutoAgents"), "adas": ("Auto", "ADAS"), "aflow": ("Auto", "AFlow"),
    "maas": ("Auto", "MaAS"), "scoreflow": ("Auto", "ScoreFlow"),
    "vanilla-tests": ("Control", "Vanilla + tests"), BEST_OF_N: ("Control", "Best-of-n"),
    "repair": ("Control", "Repair"), "meta-direct": ("Control", "Meta-agent alone"),
    "flowreasoner": ("Ours", "FlowReasoner"),
}  # fmt: skip
TYPES = ("Vanilla", "Manual", "Auto", "Control", "Other", "Ours")
OURS = "flowreasoner"
BASES = {"vanilla": "vanilla", BEST_OF_N: "best-of-n"}  # what rows are tested against
WORDS = {"benchmark_digest": "data", "grader_version": "grader", "price_table": "prices"}
TITLES: dict[Number, str] = {
    1: "Performance of methods on three benchmarks",
    2: "Meta-agents by size and training",
    3: "Generalisation to other workers",
}
PLACES: dict[Number, str] = {1: "table 1", 2: "table 2", 3: "table 3"}


@dataclass(frozen=True)
class Cell:
    """One score."""

    estimate: Estimate
    run: str | None  # its run; None for Overall
    best: bool = False  # the highest of its column, among at least two that are compared
    tied: bool = False  # not shown to differ from the best


@dataclass(frozen=True)
class Versus:
    """A row less what it is tested against, over all problems of the columns that both have."""

    difference: Difference
    adjusted: float | None  # the p-value after Holm over the rows of the table
    base: tuple[str, ...]  # the runs tested against

    @property
    def significant(self) -> bool:
        """Whether the difference stays significant at the 5% level."""
        return self.adjusted is not None and self.adjusted < LEVEL


@dataclass(frozen=True)
class PaperRow:
    """One row: measured, with a cell for each column it has; or reported, as printed."""

    type: str
    method: str
    detail: str  # knobs that were given
    worker: str | None
    meta: str | None
    level: str | None
    cells: Mapping[str, Cell]
    versus: Mapping[str, Versus]  # by the name of what it is tested against
    notes: tuple[str, ...] = ()
    reported: bool = False
    printed: Mapping[str, str] | None = None  # of a reported row: percent, as printed
    source: str | None = None
    apart: frozenset[str] = frozenset()  # the columns in which it is compared with no other row
    macro: Mean | None = None  # of the three benchmarks, each the same; None unless it has all


@dataclass(frozen=True)
class PaperTable:
    """A table, ready to be written in any format."""

    number: Number
    title: str
    rows: tuple[PaperRow, ...]
    bases: tuple[str, ...]  # the comparisons that some row has
    footnotes: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The scores of a row, in order."""
        return (*COLUMNS, OVERALL)


def paper_table(
    connection: DuckDBPyConnection,
    number: Number,
    format: str,
    *,
    runs: Sequence[str] | None = None,
    with_reported: bool = False,
    anyway: bool = False,
    digits: int = 2,
    list_name: str | None = None,
    protocol: str | None = None,
) -> str:
    """Table 1, 2 or 3 as `latex`, `markdown`, `csv` or `html`; percent with `digits` decimals.

    `runs` names the runs to show, `list_name` and `protocol` choose among them all. Raises
    UsageError: unknown table, format or run; nothing to show; rows that may not share a table,
    unless `anyway`.
    """
    from leaderboard.paper_text import WRITERS

    if format not in WRITERS:
        raise UsageError(f"{format}: unknown format of a table; one of {', '.join(WRITERS)}")
    made = build(connection, number, runs=runs, with_reported=with_reported, anyway=anyway,
                 list_name=list_name, protocol=protocol)  # fmt: skip
    return WRITERS[format](made, digits)


def build(
    connection: DuckDBPyConnection,
    number: Number,
    *,
    runs: Sequence[str] | None = None,
    with_reported: bool = False,
    anyway: bool = False,
    list_name: str | None = None,
    protocol: str | None = None,
) -> PaperTable:
    """The rows of a table with their comparisons and footnotes. Raises as `paper_table` does."""
    if number not in TITLES:
        raise UsageError(f"{number}: no such table; one of 1, 2, 3")
    found = _candidates(board(connection), number, runs, list_name, protocol)
    shown, left_out = _comparable(found, number, named=runs is not None, anyway=anyway)
    references = {name: _reference(shown.get(name, ())) for name in COLUMNS}
    all_picked = _picked(shown, references, named=runs is not None, anyway=anyway)
    picked = {key: cells for key, cells in all_picked.items() if number == 1 or key.method == OURS}
    stand = {row.run_id for cells in all_picked.values() for row in cells.values()}
    bases_of = {
        (key, name): _base(key, cells, method, shown, stand)
        for key, cells in picked.items()
        for method, name in BASES.items()
    }
    ids = {row.run_id for cells in (*picked.values(), *bases_of.values()) for row in cells.values()}
    by_run = outcomes(connection, sorted(ids))
    if not anyway:
        _same_problems(picked.values(), by_run)
    usual = {name: _usual(name, references[name], picked.values()) for name in COLUMNS}
    rows = [
        _row(key, cells, {name: bases_of[key, name] for name in BASES.values()}, by_run, usual)
        for key, cells in sorted(picked.items(), key=lambda item: _order(item[0], number))
    ]
    rows = _adjusted(_marked(rows, by_run))
    bases = tuple(name for name in BASES.values() if any(name in row.versus for row in rows))
    notes = _footnotes(number, rows, bases, found, left_out)
    if with_reported:
        rows = _beside(rows, number)
        notes.append(_reported_note(number))
    return PaperTable(number, TITLES[number], tuple(rows), bases, tuple(notes))


@dataclass(frozen=True)
class _Key:
    """What makes a row."""

    method: str
    detail: str  # knobs, and how it was asked where that tells it from another row
    level: str
    worker: str
    meta: str
    unlike: tuple[str, ...] = ()  # what of its ranking is its own, where several are shown


@dataclass(frozen=True)
class _Usual:
    """What a row must have in a column to be compared with others there."""

    ranking: tuple[str, ...] | None
    problems: int
    problem_set: int | None


def column_of(benchmark: str) -> str | None:
    """The column that a benchmark stands in; None for one that the paper has not."""
    return next((name for name, suites in SUITES.items() if benchmark in suites), None)


def _candidates(
    rows: Iterable[BoardRow],
    number: Number,
    runs: Sequence[str] | None,
    list_name: str | None,
    protocol: str | None,
) -> dict[str, list[BoardRow]]:
    """The runs that may stand in each column: those named, or all that are in a ranking.

    Raises UsageError where nothing is left, or a run that was named cannot be shown.
    """
    known = list(rows)
    if runs is not None:
        known = _named_runs(known, runs)
    found: dict[str, list[BoardRow]] = {}
    for row in known:
        column = column_of(row.benchmark)
        said = (list_name in (None, row.list)) and protocol in (None, row.protocol)
        if column is not None and said and (runs is not None or row.unranked is None):
            found.setdefault(column, []).append(row)
    mine = [row for of_column in found.values() for row in of_column
            if number == 1 or row.method == OURS]  # fmt: skip
    if not mine:
        raise UsageError(_nothing(number, known, list_name, protocol))
    if runs is None:
        for column, of_column in found.items():
            weighed = [row for row in of_column if number == 1 or row.method == OURS] or of_column
            suites = {row.benchmark for row in weighed}
            first = next(suite for suite in SUITES[column] if suite in suites)
            found[column] = [row for row in of_column if row.benchmark == first]
    if number == 2 and runs is None:
        found = _of_one_worker(found)
    return {name: found[name] for name in COLUMNS if name in found}


def _named_runs(rows: Sequence[BoardRow], runs: Sequence[str]) -> list[BoardRow]:
    """The runs that are `called` so."""
    found = []
    for name in dict.fromkeys(runs):
        names = called(name, [row.run_id for row in rows])
        fits = [row for row in rows if row.run_id in names]
        if len(fits) != 1:
            many = "several runs are called so" if fits else "no such evaluation in the results"
            raise UsageError(f"{name}: {many}; `python -m harness list runs` names them")
        if fits[0].kind == "simulated":
            raise UsageError(f"{name}: simulated, which says nothing of a model: in no table")
        if column_of(fits[0].benchmark) is None:
            raise UsageError(f"{name}: {fits[0].benchmark} is no column of the paper's tables")
        found.append(fits[0])
    return found


def _nothing(
    number: Number, rows: Sequence[BoardRow], list_name: str | None, protocol: str | None
) -> str:
    """Why there is no table, and what to run."""
    asked = [f"--list {list_name}" if list_name else "", f"--protocol {protocol}"
             if protocol else ""]  # fmt: skip
    method = "vanilla" if number == 1 else OURS
    command = " ".join(
        ["python -m harness eval --method", method, "-b humaneval", *filter(None, asked)]
    )
    whose = "run" if number == 1 else f"run of {OURS}"
    if rows and all(row.kind == "simulated" for row in rows):
        return f"table {number}: every run is simulated, and says nothing of a model; `{command}`"
    wanted = f" with {' '.join(filter(None, asked))}" if any(asked) else ""
    return f"table {number}: no complete measured {whose}{wanted}; `{command}` makes one"


def _of_one_worker(found: Mapping[str, list[BoardRow]]) -> dict[str, list[BoardRow]]:
    """Only the worker under which the most meta-agents were run; of several the newest used."""
    metas: dict[str, set[str]] = {}
    newest: dict[str, float] = {}
    for row in (row for rows in found.values() for row in rows if row.method == OURS):
        metas.setdefault(row.worker, set()).add(row.meta or "")
        newest[row.worker] = max(newest.get(row.worker, 0.0), row.started_at or 0.0)
    chosen = max(metas, key=lambda worker: (len(metas[worker]), newest[worker], worker))
    kept = {name: [row for row in rows if row.worker == chosen] for name, rows in found.items()}
    return {name: rows for name, rows in kept.items() if rows}


def _comparable(
    found: Mapping[str, list[BoardRow]], number: Number, *, named: bool, anyway: bool
) -> tuple[dict[str, list[BoardRow]], list[BoardRow]]:
    """(the runs that are shown, those left out as they have fewer problems).

    Raises UsageError, in one line that names what differs, where they may not share a table.
    """
    shown: dict[str, list[BoardRow]] = {}
    short: list[BoardRow] = []
    for column, rows in found.items():
        mine = [row for row in rows if number == 1 or row.method == OURS] or rows
        most = max(row.estimate.problems for row in mine)  # others only stand beside these
        few = [row for row in rows if row.estimate.problems < most]
        shown[column] = list(rows) if named or anyway else [row for row in rows if row not in few]
        if anyway:
            continue
        if named:
            _ranked(rows)
        needs = any(row.needs_environment for row in rows)
        _alike(column, rows, (*RANKING, *(("environment",) if needs else ())))
        if named and few:
            has = f"{few[0].run_id} has {few[0].estimate.problems} of {most} problems"
            raise UsageError(_refusal(f"{column}: {has}"))
        short += few
    if not anyway:
        together = [row for rows in shown.values() for row in rows]
        _alike(f"table {number}", together, ("list", "protocol"))
    return shown, short


def _same_problems(
    picked: Iterable[Mapping[str, BoardRow]], by_run: Mapping[str, Mapping[str, Tally]]
) -> None:
    """Raise UsageError where rows of a column have as many problems, but others."""
    first: dict[str, BoardRow] = {}
    for column, row in ((column, row) for cells in picked for column, row in cells.items()):
        other = first.setdefault(column, row)
        if row.problem_set != other.problem_set:
            mine, theirs = (
                {name for name, one in by_run[x.run_id].items() if one.graded} for x in (row, other)
            )
            raise UsageError(
                _refusal(
                    f"{column}: {other.run_id} and {row.run_id} share {len(mine & theirs)} of "
                    f"their {things(len(mine), 'problem')}"
                )
            )


def _ranked(rows: Sequence[BoardRow]) -> None:
    for row in rows:
        if row.unranked:
            raise UsageError(_refusal(f"{row.run_id} is in no ranking: {row.unranked}"))


def _alike(what: str, rows: Sequence[BoardRow], names: Sequence[str]) -> None:
    """Raise UsageError where rows differ in one of the named columns, with the values."""
    for name in names:
        values = Counter(str(getattr(row, name) or "unknown") for row in rows)
        if len(values) > 1:
            said = ", ".join(f"{_short(value)} ({things(n, 'run')})"
                             for value, n in sorted(values.items()))  # fmt: skip
            raise UsageError(_refusal(f"{what}: {WORDS.get(name, name)} {said}"))


def _refusal(what: str) -> str:
    return (
        f"{what}: not to be compared in one table; choose with --list, --protocol or --runs, or "
        "show all with --anyway"
    )


def _short(value: str) -> str:
    """A digest as far as people read it."""
    if value.startswith(UNTOLD):
        return "unknown"
    hexadecimal = len(value) >= 32 and all(ch in "0123456789abcdef" for ch in value)
    return value[:12] if hexadecimal else value


def _picked(
    shown: Mapping[str, Sequence[BoardRow]],
    references: Mapping[str, tuple[str, ...] | None],
    *,
    named: bool,
    anyway: bool,
) -> dict[_Key, dict[str, BoardRow]]:
    """{row: {column: run}}. Raises UsageError where two named runs are for one cell."""
    alike: dict[_Key, list[tuple[str, BoardRow]]] = {}
    for column, rows in shown.items():
        for row in rows:
            unlike = _unlike(row, references[column]) if anyway else ()
            key = _Key(row.method, _detail(row), row.level or "", row.worker, row.meta or "",
                       unlike)  # fmt: skip
            alike.setdefault(key, []).append((column, row))
    found: dict[_Key, dict[str, BoardRow]] = {}
    for general, members in alike.items():
        names = differing(row for _, row in members)
        for column, row in members:
            known = settings(row)
            asked = [f"{name}={known[name]}" for name in names if name in known]
            key = replace(general, detail=" ".join([general.detail, *asked]).strip())
            other = found.setdefault(key, {}).get(column)
            if other is not None and named:
                raise UsageError(
                    f"{other.run_id} and {row.run_id} are the same row on {column}: name one"
                )
            if other is None or _newer(row, other):
                found[key][column] = row
    return found


def _unlike(row: BoardRow, reference: tuple[str, ...] | None) -> tuple[str, ...]:
    """What tells rows of one method apart that are in different rankings.

    List and protocol, which all columns share, and what differs from the column's usual ranking.
    """
    usual = reference or row.ranking
    own = (x if x != y else "" for x, y in zip(row.ranking[1:], usual[1:], strict=True))
    return row.list or "", row.protocol or "", *own


def _newer(row: BoardRow, other: BoardRow) -> bool:
    def place(one: BoardRow) -> tuple[int, int, float, str]:
        order = SUITES[column_of(one.benchmark) or ""].index(one.benchmark)
        return -order, one.estimate.problems, one.started_at or 0.0, one.run_id

    return place(row) > place(other)


def _detail(row: BoardRow) -> str:
    """The knobs that were given, but which run they were matched to."""
    told = row.named.removeprefix(row.method).strip()
    return " ".join(word for word in told.split(" ") if not word.startswith("match="))


def _order(key: _Key, number: Number) -> tuple[Any, ...]:
    kind, _ = METHODS.get(key.method, ("Other", key.method))
    names = list(METHODS)
    place = names.index(key.method) if key.method in METHODS else len(names)
    if number == 3:
        return key.worker, key.meta, key.detail, key.level
    return TYPES.index(kind), place, key.worker, key.detail, key.meta, key.level, key.unlike


def _reference(rows: Sequence[BoardRow]) -> tuple[str, ...] | None:
    """The ranking of a column that the most rows are of, the newest of several."""
    members = [row for row in rows if row.unranked is None] or rows
    found = Counter(row.ranking for row in members)
    newest = {row.ranking: row.started_at or 0.0
              for row in sorted(members, key=lambda row: row.started_at or 0.0)}  # fmt: skip
    return max(found, key=lambda one: (found[one], newest[one]), default=None)


def _usual(
    column: str,
    reference: tuple[str, ...] | None,
    picked: Iterable[Mapping[str, BoardRow]],
) -> _Usual:
    """What the rows of a column that are compared have in common."""
    rows = [cells[column] for cells in picked if column in cells]
    full = [row for row in rows if row.unranked is None and row.ranking == reference]
    most = max((row.estimate.problems for row in full), default=0)
    most_common = usual_problems(row for row in full if row.estimate.problems == most)
    return _Usual(reference, most, most_common)


def _row(
    key: _Key,
    cells: Mapping[str, BoardRow],
    bases: Mapping[str, Mapping[str, BoardRow]],
    by_run: Mapping[str, Mapping[str, Tally]],
    usual: Mapping[str, _Usual],
) -> PaperRow:
    scores = {name: Cell(row.estimate, row.run_id) for name, row in cells.items()}
    mean: Mean | None = None
    if all(name in cells for name in COLUMNS):
        scores[OVERALL] = Cell(overall(cells), None)
        mean = macro({name: row.estimate for name, row in cells.items()})
    kind, name = METHODS.get(key.method, ("Other", key.method))
    versus = {}
    for base, against in bases.items():
        if against:
            made = difference(_union(cells, against, by_run), _union(against, cells, by_run))
            versus[base] = Versus(made, None, tuple(row.run_id for row in against.values()))
    why_not = {name: list(_why_apart(row, usual[name])) for name, row in cells.items()}
    notes = [
        f"{name}: {note}"
        for name, row in cells.items()
        for note in (*why_not[name], *_notes(row))
    ]  # fmt: skip
    return PaperRow(kind, name, key.detail, key.worker, key.meta or None, key.level or None, scores,
                    versus, tuple(notes), macro=mean,
                    apart=frozenset(name for name, why in why_not.items() if why))  # fmt: skip


def _base(
    key: _Key,
    cells: Mapping[str, BoardRow],
    method: str,
    shown: Mapping[str, Sequence[BoardRow]],
    stand: Collection[str],
) -> dict[str, BoardRow]:
    """{column: run} of what a row is tested against, under its own worker and ranking.

    One of the runs that stand for a row (`stand`), or one that was matched to this row's own run.
    Of several the one that was matched, then one without knobs, then one whose worker was asked
    alike, then the newest. Empty for a row of that method; a row in no ranking is tested against
    none.
    """

    def place(other: BoardRow, row: BoardRow) -> tuple[bool, bool, bool, float, str]:
        alike = settings(other, "worker") == settings(row, "worker")
        return (_matched(other) == row.run_id, not _detail(other), alike, other.started_at or 0.0,
                other.run_id)  # fmt: skip

    found: dict[str, BoardRow] = {}
    for column, row in cells.items() if key.method != method else ():
        fits = [
            other
            for other in shown[column]
            if (other.method, other.worker, other.ranking) == (method, row.worker, row.ranking)
            and row.unranked is None is other.unranked
            and (other.run_id in stand or _matched(other) == row.run_id)
        ]
        if fits:
            found[column] = max(fits, key=lambda other: place(other, row))
    return found


def _matched(row: BoardRow) -> object:
    """The run whose bill settled how many samples a row drew."""
    return json.loads(row.knobs or "{}").get("match")


def _union(
    cells: Mapping[str, BoardRow],
    others: Mapping[str, BoardRow],
    by_run: Mapping[str, Mapping[str, Tally]],
) -> dict[str, Tally]:
    """The outcomes of a row on all columns that the other has too."""
    return {
        f"{name}: {problem}": tally
        for name, row in cells.items()
        if name in others
        for problem, tally in by_run[row.run_id].items()
    }


def overall(cells: Mapping[str, BoardRow]) -> Estimate:
    """The mean over all problems of a row's benchmarks: weights are their numbers of problems."""
    found = micro({name: row.estimate for name, row in cells.items()})
    samples = sum(row.estimate.samples for row in cells.values())
    return Estimate(found.value, found.low, found.high, found.problems, samples, found.errored,
                    found.floor, found.ceiling)  # fmt: skip


def _why_apart(row: BoardRow, usual: _Usual) -> Iterable[str]:
    """Why a run is compared with no other one of its column."""
    if row.unranked:
        yield f"in no ranking: {row.unranked}"
    if usual.ranking is not None and row.ranking != usual.ranking:
        names = (*RANKING, "environment")
        apart = [
            f"{WORDS.get(name, name)} {_short(mine) or 'none'} instead of "
            f"{_short(theirs) or 'none'}"
            for name, mine, theirs in zip(names, row.ranking, usual.ranking, strict=True)
            if mine != theirs
        ]
        yield f"not comparable: {', '.join(apart)}"
    elif row.unranked is None:
        mine = row.estimate.problems
        if mine < usual.problems:
            yield f"{things(mine, 'problem')}, others have {usual.problems}; tested on those alone"
        elif row.problem_set != usual.problem_set:
            yield f"not comparable: other problems, though as many ({mine})"


def _notes(row: BoardRow) -> Iterable[str]:
    """What else a reader has to know of a score."""
    estimate = row.estimate
    if estimate.errored:
        yield (
            f"{estimate.errored} of {estimate.samples + estimate.errored} samples errored: the "
            f"score lies between {percent(estimate.floor, 2)} and {percent(estimate.ceiling, 2)}, "
            "however they would have ended"
        )
    if row.problems_asked is not None and estimate.problems < row.problems_asked:
        yield f"{estimate.problems} of {row.problems_asked} problems have a verdict"
    if row.custom:
        yield "custom data"
    if row.left_out:
        yield f"{row.left_out} problems asked for could not be run here"


def _marked(rows: Sequence[PaperRow], by_run: Mapping[str, Mapping[str, Tally]]) -> list[PaperRow]:
    """The rows with the best of each column marked, and what does not differ from it.

    After Holm over all pairs of the column: which row is the best was found in the same data, so
    that Holm over the others alone would call too many of them worse (docs/statistics.md).
    """
    marked = [dict(row.cells) for row in rows]
    for column in (*COLUMNS, OVERALL):
        compared = [
            number for number, row in enumerate(rows)
            if column in row.cells and row.cells[column].estimate.value is not None
            and not row.apart & set(COLUMNS if column == OVERALL else (column,))
        ]  # fmt: skip
        if len(compared) < 2:
            continue
        scores = {n: rows[n].cells[column].estimate.value or 0.0 for n in compared}
        top = max(compared, key=lambda n: scores[n])
        best = [n for n in compared if math.isclose(scores[n], scores[top], abs_tol=1e-12)]
        pairs = pairwise({str(n): _outcomes_of(rows[n], column, by_run) for n in compared})
        for n in compared:
            if n in best:
                marked[n][column] = replace(rows[n].cells[column], best=True)
                continue
            p = pairs[str(min(n, top)), str(max(n, top))].adjusted
            tied = p is not None and p >= LEVEL
            marked[n][column] = replace(rows[n].cells[column], tied=tied)
    return [replace(row, cells=cells) for row, cells in zip(rows, marked, strict=True)]


def _outcomes_of(
    row: PaperRow, column: str, by_run: Mapping[str, Mapping[str, Tally]]
) -> dict[str, Tally]:
    columns = COLUMNS if column == OVERALL else (column,)
    return {
        f"{name}: {problem}": tally
        for name in columns
        for problem, tally in by_run[row.cells[name].run or ""].items()
    }


def _adjusted(rows: Sequence[PaperRow]) -> list[PaperRow]:
    """The p-values of all comparisons of the table after Holm, base by base."""
    made = [dict(row.versus) for row in rows]
    for base in BASES.values():
        having = [n for n, row in enumerate(rows) if base in row.versus]
        adjusted = holm([rows[n].versus[base].difference.p for n in having])
        for n, p in zip(having, adjusted, strict=True):
            made[n][base] = replace(rows[n].versus[base], adjusted=p)
    return [replace(row, versus=versus) for row, versus in zip(rows, made, strict=True)]


def _footnotes(
    number: Number,
    rows: Sequence[PaperRow],
    bases: Sequence[str],
    found: Mapping[str, Sequence[BoardRow]],
    left_out: Sequence[BoardRow],
) -> list[str]:
    """What a reader must know to use the numbers."""
    ids = {cell.run for row in rows for cell in row.cells.values() if cell.run}
    ids |= {run for row in rows for versus in row.versus.values() for run in versus.base}
    runs = [row for of_column in found.values() for row in of_column if row.run_id in ids]
    notes = [
        "pass@1 in percent over the hidden tests with its 95% interval (Wilson; "
        "where problems were sampled several times, that of as many single samples as would leave "
        "it as uncertain). Overall is the mean over all "
        "problems of the three benchmarks, so that their numbers of problems are its weights, and "
        "they are the strata of its interval; a dash is what was not measured."
    ]
    if any(cell.best for row in rows for cell in row.cells.values()):
        notes.append(
            "Bold: the best of a column. †: not shown to differ from it (paired over problems: "
            "McNemar's exact test, mid-p, or a paired t test where problems were sampled several "
            "times; 5% level after Holm over all pairs of the column, as which row is the best was "
            "found in the same data)."
        )
    if bases:
        notes.append(
            f"Against {' and '.join(bases)}: the difference in points under the same worker, over "
            "all problems of the columns that both have, with its p-value in the same test, "
            "after Holm over the rows, for each base by itself; *: below 0.05. Of several runs of "
            "a base the one that was matched to the row's own, then one without knobs, then one "
            "whose worker was asked alike, then the newest."
        )
    protocols = sorted({f"list {row.list or 'unknown'}, protocol {row.protocol or 'unknown'}"
                        for row in runs})  # fmt: skip
    said = "; ".join(protocols)
    notes.append(f"{said[0].upper()}{said[1:]}. {' '.join(_data(runs))}")
    days = sorted({day(row.started_at) for row in runs if row.started_at is not None})
    dates = " to ".join(dict.fromkeys([days[0], days[-1]])) if days else "unknown date"
    commits = sorted({(row.commit or "unknown")[:7] + ("+" if row.dirty else "") for row in runs})
    workers = sorted({row.worker for row in runs})
    notes.append(
        f"Prices {', '.join(sorted({row.price_table or 'unknown' for row in runs}))}; {dates}; "
        f"commit {', '.join(commits)}; {', '.join(sorted({row.kind for row in runs}))}; worker "
        f"{', '.join(workers)}."
    )
    notes.append(_asked(runs))
    complete = "complete " if all(row.unranked is None for row in runs) else ""
    notes.append(
        "A row is a method with its knobs, level, worker and meta-agent, and with how its models "
        f"were asked where that differs; of its {complete}runs on a "
        "benchmark the one on the most problems, and of these the newest. "
        + ("The worker is the one under which the most meta-agents were run. "
           if number == 2 else "")
        + f"Runs: {', '.join(sorted(ids))}."
    )  # fmt: skip
    if left_out:
        notes.append(
            f"Left out, as they have fewer problems than others of their column: "
            f"{', '.join(sorted(row.run_id for row in left_out))}."
        )
    return notes


def _asked(runs: Sequence[BoardRow]) -> str:
    """How often problems were sampled, and how warm the worker was; of whom, where it differs."""
    said = []
    for name, words in (("samples", "Samples a problem:"), ("temperature", "temperature")):
        found: dict[str, dict[str, None]] = {}
        for row in sorted(runs, key=lambda row: list(METHODS).index(row.method)
                          if row.method in METHODS else len(METHODS)):  # fmt: skip
            value = settings(row, "worker").get(name, "unknown")
            _, method = METHODS.get(row.method, ("", row.method))
            found.setdefault(value, {})[method] = None
        told = [f"{value} ({', '.join(methods)})" if len(found) > 1 else value
                for value, methods in found.items()]  # fmt: skip
        said.append(f"{words} {', '.join(told)}")
    return f"{'; '.join(said)}."


def _data(runs: Sequence[BoardRow]) -> Iterable[str]:
    """Data, grader and environment of each column."""
    for column in COLUMNS:
        told = dict.fromkeys(
            f"{row.benchmark}, {row.estimate.problems} problems, data "
            f"{_short(row.benchmark_digest or 'unknown')}, grader {row.grader_version or 'unknown'}"
            + (f", environment {row.environment or 'unknown'}" if row.needs_environment else "")
            for row in runs
            if column_of(row.benchmark) == column
        )
        if told:
            yield f"{column}: {'; '.join(told)}."


def _beside(rows: Sequence[PaperRow], number: Number) -> list[PaperRow]:
    """Measured and reported rows: those of one type (or worker) next to one another."""
    told = reported_rows(number)
    both = [*rows, *told]
    return [row for kind in TYPES for row in both if row.type == kind] if number == 1 else both


def reported_rows(number: Number) -> list[PaperRow]:
    """The rows that the paper printed, in its order. Shares are in the cells, text in `printed`."""
    made: dict[str, list[dict[str, Any]]] = {}
    for row in reported.rows():
        if row["place"] == PLACES[number]:
            made.setdefault(row["row_key"], []).append(row)
    found = []
    for cells in made.values():
        head = cells[0]
        printed = {cell["benchmark"]: cell["printed"] for cell in cells}
        scores = {
            cell["benchmark"]: Cell(Estimate(cell["value"], None, None, 0, 0), None)
            for cell in cells
        }
        notes = dict.fromkeys(_reported_words(cell) for cell in cells if cell["note"])
        found.append(
            PaperRow(head["type"], head["method"], "", head["worker"], head["meta"], None, scores,
                     {}, tuple(notes), reported=True, printed=printed, source=head["source"])
        )  # fmt: skip
    return found


def _reported_words(cell: Mapping[str, Any]) -> str:
    """The note on a printed number; one on the row's head stands for all its cells."""
    general = cell["worker"] is None
    return str(cell["note"] if general else f"{cell['benchmark']}: {cell['note']}")


def derived_overall(row: PaperRow) -> Decimal | None:
    """The Overall that a reported row's columns come to, in percent; None without all of them."""
    printed = row.printed or {}
    if not all(name in printed for name in COLUMNS):
        return None
    return reported.micro({name: Decimal(printed[name]) for name in COLUMNS})


def _reported_note(number: Number) -> str:
    brackets = " In brackets: Overall by their columns, not printed." if number == 3 else ""
    return (
        f"In italics: reported, not measured here: printed in {reported.PAPER}, under another "
        "protocol (its lists of 300, 131 and 341 problems are inferred, and its scores are "
        f"probably not strict pass@1), and in no comparison of this table.{brackets}"
    )
