"""What the board, the export and the pages show, each as one query over a snapshot connection.

Shares are in [0, 1], times in seconds, costs in US dollars; None is unknown, and a sum with an
unknown part is unknown. A connection comes from `harness.store.open_snapshot`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.metrics import Estimate, interval
from harness.rounds import BEST_OF_N, Round, rounds_of
from harness.show_search import cost_words
from harness.store import (
    FACTS,
    MIXED,
    TABLE_OF,
    UNGRADED,
    Trajectory,
    named,
    ranking,
    read_artifact,
    trajectory,
)
from harness.tree import SearchNode, best_of, nodes_of, steps_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BOARD = """
WITH per_problem AS (
  SELECT run_no, problem_id,
         count(*) FILTER (verdict = 'passed') AS passed,
         count(*) FILTER (verdict <> 'invalid') AS graded,
         count(*) FILTER (fresh = 'passed') AS fresh_passed,
         count(fresh) AS fresh_graded,
         count(*) AS samples
  FROM results GROUP BY ALL
), scores AS (
  SELECT run_no,
         avg(passed / graded) FILTER (graded > 0) AS value,
         coalesce(stddev_samp(passed / graded) FILTER (graded > 0), 0) AS deviation,
         avg(fresh_passed / fresh_graded) FILTER (fresh_graded > 0) AS overlap_free,
         count(*) FILTER (graded > 0) AS problems,
         sum(graded)::BIGINT AS graded,
         sum(samples - graded)::BIGINT AS errored,
         avg(passed / samples) AS floor,
         avg((passed + samples - graded) / samples) AS ceiling
  FROM per_problem GROUP BY run_no
), spent AS (
  SELECT run_no,
         CASE WHEN count(calls) = count(*) THEN sum(calls) END::BIGINT AS calls,
         CASE WHEN count(prompt_tokens) = count(*) AND count(completion_tokens) = count(*)
              THEN sum(prompt_tokens + completion_tokens) END::BIGINT AS tokens,
         CASE WHEN count(fresh_cost_usd) = count(*) THEN sum(fresh_cost_usd) END AS fresh_cost_usd,
         CASE WHEN count(cost_usd) = count(*) THEN sum(cost_usd) END AS cost_usd,
         CASE WHEN count(cached_calls) = count(*) THEN sum(cached_calls) END::BIGINT
           AS cached_calls,
         CASE WHEN count(wall_s) = count(*) THEN sum(wall_s) END AS wall_s
  FROM results GROUP BY run_no
)
SELECT runs.run_json -> '$.config.knobs' AS given,
       runs.run_id, runs.method, runs.worker, runs.meta, runs.benchmark, runs.benchmark_digest,
       runs.list, runs.protocol, runs.level, runs.grader_version, runs.price_table, runs.kind,
       runs.status, runs.started_at, runs.n_samples, runs.problems_asked, runs.samples_asked,
       runs.samples_left,
       runs.knobs, runs.seed, runs.sandbox, runs.commit, runs.dirty, runs.command,
       coalesce(runs.complete, false) AS complete,
       coalesce(runs.first_look, false) AS first_look,
       coalesce(runs.custom, false) AS custom,
       coalesce(runs.needs_environment, false) AS needs_environment,
       runs.environment, runs.left_out, runs.artifact,
       value, deviation, coalesce(problems, 0) AS problems, coalesce(graded, 0) AS graded,
       coalesce(errored, 0) AS errored, floor, ceiling, overlap_free, calls, tokens,
       fresh_cost_usd, cost_usd, cached_calls, wall_s
FROM runs LEFT JOIN scores USING (run_no) LEFT JOIN spent USING (run_no)
WHERE runs.stage = 'eval'
ORDER BY value DESC NULLS LAST, started_at
"""


SEARCHES = """
WITH tried AS (
  SELECT run_no, count(*) AS trials, count(*) FILTER (passed) AS passed,
         count(DISTINCT problem_id) AS problems
  FROM (SELECT DISTINCT ON (run_no, result_key) * FROM trials) GROUP BY run_no
), spent AS (
  SELECT run_no, count(*) AS calls,
         CASE WHEN count(prompt_tokens) = count(*) AND count(completion_tokens) = count(*)
              THEN sum(prompt_tokens + completion_tokens) END::BIGINT AS tokens,
         CASE WHEN count(fresh_cost_usd) = count(*) THEN sum(fresh_cost_usd) END AS fresh_cost_usd,
         CASE WHEN count(cost_usd) = count(*) THEN sum(cost_usd) END AS cost_usd,
         count(*) FILTER (cached) AS cached_calls
  FROM calls WHERE error IS NULL GROUP BY run_no
)
SELECT run_id, run_json -> '$.config.knobs' AS given, method, worker, meta, benchmark, list,
       protocol, level, kind, status, started_at,
       knobs, command, coalesce(trials, 0) AS trials, coalesce(passed, 0) AS passed,
       coalesce(problems, 0) AS problems, coalesce(calls, 0) AS calls, tokens, fresh_cost_usd,
       cost_usd, coalesce(cached_calls, 0) AS cached_calls,
       (SELECT list(rows.run_id ORDER BY rows.run_id) FROM runs AS rows
        WHERE rows.stage = 'eval' AND rows.artifact ->> 'run' = runs.run_id) AS used_by
FROM runs LEFT JOIN tried USING (run_no) LEFT JOIN spent USING (run_no)
WHERE stage = 'fit'
ORDER BY started_at NULLS LAST, run_id
"""


TAKEN = ("prompt_tokens", "completion_tokens", "fresh_cost_usd")  # by a call


@dataclass(frozen=True)
class SearchCost:
    """What the search behind a row took, once, before it: in no other number of the row."""

    run: str | None  # its run, or where it was read from
    file: str | None
    problems: int | None  # that it was made on
    calls: int | None
    tokens: int | None
    cost_usd: float | None  # paid
    fresh_cost_usd: float | None  # the price where no reply is kept
    wall_s: float | None

    @property
    def words(self) -> str:
        """Dollars where it cost some, else tokens; a price that is not known is said."""
        return cost_words(self.calls, self.tokens, self.fresh_cost_usd)


@dataclass(frozen=True)
class SearchRow:
    """One search: what a method's `fit` tried before any row, and what that took so far."""

    run_id: str
    named: str  # the method with the knobs that it was given
    method: str
    worker: str
    meta: str | None
    benchmark: str
    list: str | None
    protocol: str | None
    level: str | None
    kind: str
    status: str | None
    started_at: float | None
    knobs: str  # JSON
    command: str | None
    trials: int  # graded attempts
    passed: int  # of these
    problems: int  # that were attempted
    calls: int
    tokens: int | None
    fresh_cost_usd: float | None
    cost_usd: float | None
    cached_calls: int
    used_by: tuple[str, ...]  # rows that rest on it
    nodes: tuple[SearchNode, ...]

    @property
    def best(self) -> SearchNode | None:
        return best_of(self.nodes)


@dataclass(frozen=True)
class Attempt:
    """One graded attempt of a search at a problem."""

    problem_id: str
    sample: int  # tells it from other attempts at the problem
    label: str | None
    passed: bool | None
    share: float | None  # of all tests of the problem
    detail: str | None
    code_sha: str | None
    calls: int | None
    tokens: float | None
    usd: float | None
    wall_s: float | None


@dataclass(frozen=True)
class BoardRow:
    """One run: what was asked, how often it solved, and what that took (sums over samples)."""

    run_id: str
    named: str  # the method with the knobs that it was given
    method: str
    worker: str
    meta: str | None
    benchmark: str
    benchmark_digest: str | None
    list: str | None
    protocol: str | None
    level: str | None
    grader_version: str | None
    price_table: str | None
    kind: str  # measured or simulated
    status: str | None  # running, complete, partial, interrupted, budget, refused, failed
    started_at: float | None  # unix seconds
    n_samples: int | None  # draws per problem
    problems_asked: int | None  # the most that a session of the run asked for
    samples_asked: int | None
    samples_left: int | None  # of those, without a verdict
    knobs: str  # JSON
    seed: int | None
    sandbox: str | None  # "mixed: ..." when verdicts were found in several
    commit: str | None
    dirty: bool | None
    command: str | None
    complete: bool  # every sample that was asked for has a verdict
    first_look: bool  # problems were chosen for showing, not for measuring
    custom: bool  # rows that match no pinned file
    needs_environment: bool  # what can pass depends on the packages that were installed for it
    environment: str | None  # digest of what programs were graded in; "mixed: ..." of several
    left_out: int | None  # problems that were asked for and could not be run
    estimate: Estimate
    overlap_free: float | None  # pass@1 on the hidden tests that no feedback test repeats
    calls: int | None
    tokens: int | None  # prompt and completion
    fresh_cost_usd: float | None  # the price where no reply is kept: what rows are compared by
    cost_usd: float | None  # what was paid
    cached_calls: int | None  # answered by kept replies, so that time is not comparable
    wall_s: float | None
    search: SearchCost | None = None  # None: the method needs none

    def per_sample(self, total: float | None) -> float | None:
        """A sum over this run's samples as their mean; None when it is unknown or there is none."""
        samples = self.estimate.samples + self.estimate.errored
        return total / samples if total is not None and samples else None

    @property
    def ranking(self) -> tuple[str, ...]:
        """What two rows must share to be compared at all."""
        return ranking(vars(self))

    @property
    def unranked(self) -> str | None:
        """Why this row is shown without a rank; None when it has one."""
        if self.kind != "measured":
            return self.kind
        if self.level == "oracle" or self.protocol == "oracle":
            return "oracle"
        if self.first_look:
            return "first look, not a score"
        if (self.sandbox or "").startswith(MIXED):
            return f"sandbox {self.sandbox}"
        if not self.complete:
            return self.status or "incomplete"
        return None


@dataclass(frozen=True)
class Group:
    """Rows that share a ranking, best first and unranked ones last."""

    rows: tuple[BoardRow, ...]
    best: frozenset[str]  # run ids of the first place; empty where nothing is compared
    problems: int  # the most that a ranked row has; rows with fewer solved another task

    def note(self, row: BoardRow) -> str:
        """What keeps a row out of the ranking, in a few words; empty when it is in it."""
        if row.unranked:
            return row.unranked
        short = row.estimate.problems < self.problems
        return f"only {row.estimate.problems} of {self.problems} problems" if short else ""


@dataclass(frozen=True)
class SampleRow:
    """One graded sample."""

    problem_id: str
    sample: int  # 0-based draw
    verdict: str
    detail: str | None
    calls: int | None
    rounds: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    fresh_cost_usd: float | None
    wall_s: float | None
    grade_s: float | None
    error_kind: str | None


def board(connection: DuckDBPyConnection, run_id: str | None = None) -> list[BoardRow]:
    """Every run as a row, or the one asked for; best first."""
    rows = []
    for found in _dicts(connection, BOARD):
        if run_id not in (None, found["run_id"]):
            continue
        left_out = found.pop("left_out")
        found["left_out"] = None if left_out is None else len(json.loads(left_out))
        found["search"] = _search_cost(found.pop("artifact"))
        value, deviation = found.pop("value"), found.pop("deviation")
        problems, graded = found.pop("problems"), found.pop("graded")
        low, high = None, None
        if value is not None:
            low, high = interval(value, deviation, problems, single=problems == graded)
        bounds = (found.pop("errored"), found.pop("floor"), found.pop("ceiling"))
        estimate = Estimate(value, low, high, problems, graded, *bounds)
        rows.append(BoardRow(**_known(found), estimate=estimate))
    return rows


def _known(found: dict[str, Any]) -> dict[str, Any]:
    """The columns of a run, with its name, and "unknown" where it has to be called something."""
    said = {k: found[k] or "unknown" for k in ("method", "worker", "benchmark", "kind")}
    given, knobs = json.loads(found["given"] or "null"), json.loads(found["knobs"] or "null")
    rest = {k: v for k, v in found.items() if k != "given"}
    return {**rest, **said, "named": named(said["method"], given, knobs)}


def _search_cost(artifact: str | None) -> SearchCost | None:
    """The cost of a search from what run.json says of it."""
    told = json.loads(artifact or "null")
    if told is None:
        return None
    spent = told.get("spent") or {}
    numbers = ("calls", "tokens", "cost_usd", "fresh_cost_usd", "wall_s")
    known = {name: spent.get(name) for name in numbers}
    for name, value in known.items():
        known[name] = value if isinstance(value, int | float) else None
    return SearchCost(told.get("run"), told.get("file"), told.get("problems"), **known)


def searches(connection: DuckDBPyConnection, run_id: str | None = None) -> list[SearchRow]:
    """Every search, or the one asked for; the oldest first."""
    rows = []
    for found in _dicts(connection, SEARCHES):
        if run_id in (None, found["run_id"]):
            nodes = tuple(nodes_of(_facts(connection, "node", found["run_id"])))
            used_by = tuple(found.pop("used_by") or ())
            rows.append(SearchRow(**_known(found), used_by=used_by, nodes=nodes))
    return rows


def search_steps(connection: DuckDBPyConnection, run_id: str) -> list[dict[str, float]]:
    """The steps of a search that trains, their numbers by name."""
    return steps_of(_facts(connection, "note", run_id))


def attempts(connection: DuckDBPyConnection, run_id: str) -> list[Attempt]:
    """The graded attempts of a search, in the order in which they ended."""
    last = {row["result_key"]: row for row in _facts(connection, "trial", run_id)}
    names = Attempt.__dataclass_fields__
    return [Attempt(**{name: row[name] for name in names}) for row in last.values()]


def _whole(name: str) -> str:
    """A sum that is unknown once a part is."""
    return f"CASE WHEN count({name}) = count(*) THEN sum({name})::DOUBLE END"


def run_rounds(
    connection: DuckDBPyConnection, run_id: str, problems: frozenset[str] | None = None
) -> list[Round]:
    """The rounds of a run, or of its samples of some problems."""
    found = [
        {"kind": kind, **row}
        for kind in ("round", "hidden")
        for row in _facts(connection, kind, run_id)
    ]
    found += [
        {"kind": "call", **row}
        for row in _dicts(
            connection,
            "SELECT result_key, problem_id, round, count(*) AS count, "
            f"{', '.join(f'{_whole(name)} AS {name}' for name in TAKEN)} FROM calls "
            "WHERE run_no = (SELECT run_no FROM runs WHERE run_id = ?) AND error IS NULL "
            "GROUP BY ALL",
            [run_id],
        )
    ]
    return rounds_of(row for row in found if problems is None or row["problem_id"] in problems)


def best_of_n(connection: DuckDBPyConnection, row: BoardRow) -> tuple[BoardRow, list[Round]] | None:
    """The best-of-n run that may be compared with a row, looked at on the row's problems.

    It shares the ranking and the worker, and has a verdict on each of the problems; of several, the
    one of the most draws, and of these the newest.
    """
    problems = solved_problems(connection, row.run_id)
    if row.method == BEST_OF_N or not problems:
        return None
    found = []
    for other in board(connection):
        if (other.method, other.worker, other.ranking) != (BEST_OF_N, row.worker, row.ranking):
            continue
        if problems <= solved_problems(connection, other.run_id):
            rounds = run_rounds(connection, other.run_id, problems)
            found.append((len(rounds), other.started_at or 0.0, other.run_id, other, rounds))
    return max(found, key=lambda one: one[:3])[3:] if found else None


def solved_problems(connection: DuckDBPyConnection, run_id: str) -> frozenset[str]:
    """The problems of a run that have a verdict."""
    return frozenset(one.problem_id for one in samples(connection, run_id)
                     if one.verdict not in UNGRADED)  # fmt: skip


def _facts(connection: DuckDBPyConnection, kind: str, run_id: str) -> list[dict[str, Any]]:
    """All records of a kind that a run has, in the order of its journal, in the journal's words."""
    names = ", ".join(f'"{name}"' for name in FACTS[kind])
    found = []
    for row in _dicts(
        connection,
        f"SELECT {names} FROM {TABLE_OF[kind]} "
        "WHERE run_no = (SELECT run_no FROM runs WHERE run_id = ?) ORDER BY segment, rowid",
        [run_id],
    ):
        for name in (n for n, sql in FACTS[kind].items() if sql == "JSON" and row[n]):
            row[name] = json.loads(row[name])
        found.append({"kind": kind, **(row.pop("fields", None) or {}), **row})
    return found


def groups(rows: Iterable[BoardRow]) -> list[Group]:
    """The rows apart by what may be compared, the groups by benchmark and then by size."""
    apart: dict[tuple[str, ...], list[BoardRow]] = {}
    for row in rows:
        apart.setdefault(row.ranking, []).append(row)
    found = []
    for members in apart.values():
        ranked = [row for row in members if row.unranked is None]
        problems = max((row.estimate.problems for row in ranked), default=0)
        full = [row for row in ranked if row.estimate.problems == problems]
        top = max((row.estimate.value or 0.0 for row in full), default=None)
        best = frozenset(row.run_id for row in full if row.estimate.value == top)
        members.sort(key=lambda row: row not in full)  # the order by score stays within both
        found.append(Group(tuple(members), best if len(full) > 1 else frozenset(), problems))
    return sorted(found, key=lambda g: (g.rows[0].benchmark, -len(g.rows)))


def samples(connection: DuckDBPyConnection, run_id: str) -> list[SampleRow]:
    """The graded samples of a run, in the benchmark's order as far as ids tell it."""
    names = ", ".join(SampleRow.__dataclass_fields__)
    found = _dicts(
        connection,
        f"SELECT {names} FROM results JOIN runs USING (run_no) WHERE run_id = ? "
        "ORDER BY try_cast(regexp_extract(problem_id, '([0-9]+)$', 1) AS INTEGER), "
        "problem_id, sample",
        [run_id],
    )
    return [SampleRow(**row) for row in found]


def sample_trajectory(
    connection: DuckDBPyConnection, results_dir: Path, run_id: str, problem_id: str, sample: int
) -> Trajectory:
    """One sample's last try with its texts, which are read from the journal.

    Raises StoreError when the journal is gone or changed.
    """
    records: list[tuple[float, int, dict[str, Any]]] = []
    for kind, table in TABLE_OF.items():
        names = ", ".join(f'"{name}"' for name in FACTS[kind])
        for row in _dicts(
            connection,
            f"SELECT {names} FROM {table} WHERE run_no = (SELECT run_no FROM runs WHERE run_id = ?)"
            " AND problem_id = ? AND sample = ?",
            [run_id, problem_id, sample],
        ):
            for name in (n for n, sql in FACTS[kind].items() if sql == "JSON" and row[n]):
                row[name] = json.loads(row[name])
            record = {"kind": kind, **(row.pop("fields", None) or {}), **row}
            records.append((row["logged_at"] or 0.0, row["segment"], record))
    records.sort(key=lambda item: (item[1], item[0]))
    found = trajectory(run_id, problem_id, sample, [(s, record) for _, s, record in records])
    places = connection.execute(
        "SELECT DISTINCT ON (sha256) sha256, path, start, bytes FROM artifacts "
        "WHERE run_no = (SELECT run_no FROM runs WHERE run_id = ?) "
        "AND sha256 IN (SELECT unnest(?))",
        [run_id, found.digests()],
    ).fetchall()
    found.texts = {sha: read_artifact(results_dir, *place) for sha, *place in places}
    return found


def _dicts(
    connection: DuckDBPyConnection, query: str, parameters: Sequence[Any] = ()
) -> list[dict[str, Any]]:
    result = connection.execute(query, list(parameters))
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
