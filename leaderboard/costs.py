"""What score costs: rows against dollars, calls, tokens or time, and who does no worse for less.

Pure over rows of the board and one query over the rollup. A cost is the mean of a sample, as if no
reply had been kept (`fresh_cost_usd`); with a search counted in, its cost over the number of
problems that it is spread over is added to each. Unknown stays None. Rows that may not be compared
are on no front: rows come as the groups of `leaderboard.queries.groups`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from harness.aggregate import SolvedCost, cost_per_solved, pareto_front
from harness.page import things
from leaderboard.charts import SAID, CostPoint, Measure, Spread
from leaderboard.queries import BoardRow, Group, SearchCost

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

COLUMNS: dict[Measure, str] = {"usd": "fresh_cost_usd", "calls": "calls", "tokens": "tokens",
                               "time": "wall_s"}  # fmt: skip

BY_PROBLEM = """
WITH asked AS (SELECT unnest(?::TEXT[]) AS run_id)
SELECT run_id, list(samples ORDER BY problem_no), list(graded ORDER BY problem_no),
       list(passed ORDER BY problem_no), list({column}::DOUBLE ORDER BY problem_no)
FROM asked JOIN runs USING (run_id) JOIN problem_rollup USING (run_no)
GROUP BY run_id
"""


class ProblemCost(NamedTuple):
    """One problem in one run: counts, and what all its samples took."""

    samples: int
    graded: int
    passed: int
    taken: float | None  # in the unit asked for


@dataclass(frozen=True)
class CostRow:
    """One row of a ranking with what its score took, in one unit."""

    row: BoardRow
    cost: float | None  # mean of a sample
    solved: SolvedCost | None  # cost per solved problem with its interval; None: not known
    note: str  # what keeps it out of the ranking; empty when it is in it
    front: bool  # no ranked row of known cost does better for no more, or as well for less
    beaten_by: BoardRow | None  # the best of those that do; None on the front or without a cost


def by_problem(
    connection: DuckDBPyConnection, run_ids: Sequence[str], unit: Measure
) -> dict[str, list[ProblemCost]]:
    """{run_id: one entry a problem}; a run without a sample has none."""
    found: dict[str, list[ProblemCost]] = {run_id: [] for run_id in run_ids}
    query = BY_PROBLEM.format(column=COLUMNS[unit])
    for run_id, *lists in connection.execute(query, [list(found)]).fetchall():
        found[run_id] = [ProblemCost(*one) for one in zip(*lists, strict=True)]
    return found


def sample_cost(row: BoardRow, unit: Measure, spread: int | None = None) -> float | None:
    """What a sample of a row took on average; with `spread`, its share of the search as well."""
    extra = search_share(row.search, unit, spread)
    mean = row.per_sample(getattr(row, COLUMNS[unit]))
    return None if mean is None or extra is None else mean + extra


def search_share(search: SearchCost | None, unit: Measure, spread: int | None) -> float | None:
    """What each of `spread` problems bears of a search; 0 where nothing is counted in."""
    if search is None or spread is None:
        return 0.0
    total = getattr(search, COLUMNS[unit])
    return None if total is None else float(total) / spread


def cost_rows(
    group: Group,
    problems: Mapping[str, Sequence[ProblemCost]],
    unit: Measure,
    spread: int | None = None,
) -> list[CostRow]:
    """The rows of one ranking in its order, with cost, cost per solved problem and the front.

    `problems` is what `by_problem` found of them, in the same unit.
    """
    costs = {row.run_id: sample_cost(row, unit, spread) for row in group.rows}
    known = [
        (row, cost, row.estimate.value)
        for row in group.ranked
        if (cost := costs[row.run_id]) is not None and row.estimate.value is not None
    ]
    places = pareto_front([(cost, value) for _, cost, value in known])
    on = {known[place][0].run_id for place in places}
    found = []
    for row in group.rows:
        mine = costs[row.run_id]
        value = row.estimate.value
        better = [
            (theirs, -cost, other)
            for other, cost, theirs in known
            if row.run_id not in on and mine is not None and value is not None
            and cost <= mine and theirs >= value and (cost < mine or theirs > value)
        ]  # fmt: skip
        best = max(better, key=lambda one: one[:2])[2] if better and not group.note(row) else None
        found.append(
            CostRow(row, mine, _solved(problems.get(row.run_id, ()), row, unit, spread),
                    group.note(row), row.run_id in on, best)
        )  # fmt: skip
    return found


def _solved(
    problems: Sequence[ProblemCost], row: BoardRow, unit: Measure, spread: int | None
) -> SolvedCost | None:
    """Cost per solved problem; None where a cost is not known."""
    extra = search_share(row.search, unit, spread)
    costs = [None if one.taken is None or extra is None else one.taken / one.samples + extra
             for one in problems]  # fmt: skip
    return cost_per_solved(costs, [one.passed / one.graded if one.graded else 0.0
                                   for one in problems])  # fmt: skip


def labels(rows: Sequence[BoardRow]) -> dict[str, str]:
    """{run: its name}, with its worker, and then its id, where others would be called the same."""
    found: dict[str, str] = {}
    named = Counter(row.named for row in rows)
    told = {row.run_id: row.named if named[row.named] == 1
            else f"{row.named}, {row.worker.rpartition('/')[2]}" for row in rows}  # fmt: skip
    again = Counter(told.values())
    for row in rows:
        name = told[row.run_id]
        found[row.run_id] = name if again[name] == 1 else f"{row.named}, {row.run_id}"
    return found


def points(rows: Sequence[CostRow]) -> list[CostPoint]:
    """The rows with a score as points of a chart; simulated ones only among themselves."""
    real = [one for one in rows if one.row.kind != "simulated"] or list(rows)
    real = [one for one in real if one.row.estimate.value is not None]
    names = labels([one.row for one in real])
    return [
        CostPoint(
            name=names[one.row.run_id], method=one.row.method, score=one.row.estimate.value,
            low=one.row.estimate.low, high=one.row.estimate.high, cost=one.cost,
            ranked=not one.note, run=one.row.run_id,
        )
        for one in real
        if one.row.estimate.value is not None
    ]  # fmt: skip


def drawable(found: Sequence[CostPoint]) -> bool:
    """Whether a chart would say anything: two points of known cost, and one that took some."""
    known = [point.cost for point in found if point.cost is not None]
    return len(known) > 1 and any(known)


def spreads(rows: Sequence[CostRow], problems: Mapping[str, Sequence[ProblemCost]]) -> list[Spread]:
    """What single problems took, by row; a search is in none of it."""
    found = []
    real = [one for one in rows if one.row.kind != "simulated"] or list(rows)
    names = labels([one.row for one in real])
    for one in real:
        taken = [(p.taken, p.samples) for p in problems.get(one.row.run_id, ()) if p.samples]
        known = tuple(total / samples for total, samples in taken if total is not None)
        found.append(Spread(names[one.row.run_id], one.row.method, known, len(taken) - len(known)))
    return found


def cached_rows(rows: Sequence[CostRow]) -> list[BoardRow]:
    """The rows of which calls were answered from a cache, so that their time says little."""
    return [one.row for one in rows if one.row.cached_calls]


def solved_words(one: CostRow, unit: Measure) -> str:
    """Cost per solved problem with its interval."""
    found, said = one.solved, SAID[unit]
    if found is None:
        return "unknown"
    if found.value is None:
        return "none solved"
    if found.low is None:
        return said(found.value)
    return f"{said(found.value)} ({said(found.low)} – {said(found.high)})"


def standing(one: CostRow, names: Mapping[str, str]) -> str:
    """Whether a row is on the front, or who does as well or better for less; `names` by run."""
    if one.note:
        return "not ranked"
    if one.front:
        return "on the front"
    return "cost unknown" if one.beaten_by is None else f"below {names[one.beaten_by.run_id]}"


def search_words(rows: Sequence[CostRow], unit: Measure, spread: int) -> str:
    """What counting searches in adds to each sample, by row."""
    said = []
    for one in rows:
        if one.row.search is not None:
            share = search_share(one.row.search, unit, spread)
            said.append(f"{one.row.named} {SAID[unit](share)}")
    over = f"spread over {things(spread, 'problem')}"
    if not said:
        return f"With search, {over}: no row here needed one."
    return f"With search, {over}, which adds to a sample: {', '.join(said)}."
