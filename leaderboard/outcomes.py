"""Who solves which problem: the outcomes of runs by problem, and the matrix of problems x systems.

Each is one query over the rollup (`problem_rollup`, one row per run and problem), joined by
numbers alone; a connection comes from `harness.store.open_snapshot`. Runs are told by their ids;
an id that is not in the snapshot has no outcomes. Simulated, unfinished and unlike runs are for
the caller to leave out (`harness.store.ranking`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.metrics import Tally, pass_at_k
from harness.schema import natural

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

OUTCOMES = """
WITH asked AS (SELECT unnest(?::TEXT[]) AS run_id)
SELECT runs.run_id, list(problems.problem_id ORDER BY r.problem_no),
       list(r.passed ORDER BY r.problem_no), list(r.graded ORDER BY r.problem_no),
       list(r.samples ORDER BY r.problem_no)
FROM asked JOIN runs USING (run_id) JOIN problem_rollup AS r USING (run_no)
     JOIN problems USING (problem_no)
GROUP BY runs.run_id
"""

MATRIX = f"""
WITH asked AS (
  SELECT run_no, place FROM (SELECT unnest(?::TEXT[]) AS run_id,
                                    generate_subscripts(?::TEXT[], 1) AS place)
  JOIN runs USING (run_id)
), cells AS (
  SELECT problem_no, place, passed, graded, samples,
         CASE WHEN graded > 0 THEN passed / graded END AS share
  FROM problem_rollup JOIN asked USING (run_no)
)
SELECT benchmark, problem_id, avg(share) AS solved, 4 * var_pop(share) AS contested,
       count(share) AS systems, count(share) FILTER (share > 0) AS solvers,
       list(place ORDER BY place) AS places, list(passed ORDER BY place) AS passed,
       list(graded ORDER BY place) AS graded, list(samples ORDER BY place) AS samples
FROM cells JOIN problems USING (problem_no)
GROUP BY problem_no, benchmark, problem_id
ORDER BY benchmark, {natural()}
"""


# How often each count of passed and graded samples stands, of the runs in which every problem with
# a verdict has at least so many verdicts.
COUNTS = """
SELECT run_no, passed, graded, count(*) FROM problem_rollup
WHERE graded > 0 AND run_no IN (
  SELECT run_no FROM problem_rollup WHERE graded > 0 GROUP BY run_no HAVING min(graded) >= ?)
GROUP BY ALL
"""


@dataclass(frozen=True)
class ProblemRow:
    """One problem as all systems of a matrix fared on it."""

    benchmark: str
    problem_id: str
    solved: float | None  # mean over systems of the share of samples solved; None: no verdict
    contested: float | None  # 4 x variance of those shares over systems, in [0, 1]
    systems: int  # with a verdict
    solvers: int  # of them, that solved it at least once
    cells: tuple[Tally | None, ...]  # one a system, in the order asked for; None: not attempted


def outcomes(connection: DuckDBPyConnection, run_ids: Sequence[str]) -> dict[str, dict[str, Tally]]:
    """{run_id: {problem_id: Tally(passed, graded, samples)}}, the runs in the order asked for.

    What `harness.paired` takes. A run without a sample, or one unknown, has no problem.
    """
    found: dict[str, dict[str, Tally]] = {run_id: {} for run_id in run_ids}
    for run_id, names, *counts in connection.execute(OUTCOMES, [list(found)]).fetchall():
        found[run_id] = dict(zip(names, map(Tally, *counts), strict=True))
    return found


def pass_at_several(
    connection: DuckDBPyConnection, ks: Sequence[int]
) -> dict[int, dict[int, float]]:
    """{run_no: {k: pass@k}} of all runs that have it: k verdicts on each problem that has one."""
    found: dict[int, dict[int, float]] = {}
    for k in ks:
        sums: dict[int, tuple[float, int]] = {}
        for run_no, passed, graded, many in connection.execute(COUNTS, [k]).fetchall():
            total, problems = sums.get(run_no, (0.0, 0))
            sums[run_no] = total + many * pass_at_k(graded, passed, k), problems + many
        for run_no, (total, problems) in sums.items():
            found.setdefault(run_no, {})[k] = total / problems
    return found


def matrix(connection: DuckDBPyConnection, run_ids: Sequence[str]) -> list[ProblemRow]:
    """Every problem that one of the runs attempted, in the benchmark's order.

    A problem is the harder the smaller its share `solved`. It is the more `contested` the more the
    systems differ on it: 1 where half of them always solve it and the others never, 0 where all
    solve it equally often, be that always, never or every second time.
    """
    names = list(dict.fromkeys(run_ids))
    rows = []
    for row in connection.execute(MATRIX, [names, names]).fetchall():
        benchmark, problem_id, solved, contested, systems, solvers, places, *counts = row
        cells: list[Tally | None] = [None] * len(names)
        for place, one in zip(places, map(Tally, *counts), strict=True):
            cells[place - 1] = one
        rows.append(
            ProblemRow(benchmark, problem_id, solved, contested, systems, solvers, tuple(cells))
        )
    return rows


def hardest(rows: Sequence[ProblemRow], most: int | None = None) -> list[ProblemRow]:
    """The problems with a verdict by share solved, the hardest first; ties stay in their order."""
    known = [row for row in rows if row.solved is not None]
    return sorted(known, key=lambda row: row.solved or 0.0)[:most]


def most_contested(rows: Sequence[ProblemRow], most: int | None = None) -> list[ProblemRow]:
    """The problems on which systems differ, by how much, the most contested first."""
    apart = [row for row in rows if row.contested]
    return sorted(apart, key=lambda row: -(row.contested or 0.0))[:most]
