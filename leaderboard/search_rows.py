"""Searches: what methods tried, or trained, before any row, and what that took.

Their scores are of search problems, in no ranking and in no number of the rows that rest on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.tree import SearchNode, best_of, nodes_of, steps_of
from leaderboard.queries import dicts, facts_of, named_columns

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SEARCHES = """
WITH tried AS (
  SELECT run_no, count(*) AS trials, count(*) FILTER (passed) AS passed,
         count(DISTINCT problem_id) AS problems
  FROM (SELECT DISTINCT ON (run_no, result_key) * FROM trials) GROUP BY run_no
), fits AS (
  SELECT run_no FROM runs WHERE stage = 'fit'
), spent AS (
  SELECT run_no, count(*) AS calls,
         CASE WHEN count(prompt_tokens) = count(*) AND count(completion_tokens) = count(*)
              THEN sum(prompt_tokens + completion_tokens) END::BIGINT AS tokens,
         CASE WHEN count(fresh_cost_usd) = count(*) THEN sum(fresh_cost_usd) END AS fresh_cost_usd,
         CASE WHEN count(cost_usd) = count(*) THEN sum(cost_usd) END AS cost_usd,
         count(*) FILTER (cached) AS cached_calls
  FROM calls SEMI JOIN fits USING (run_no) WHERE error IS NULL GROUP BY run_no
)
SELECT run_id, try(run_json -> '$.config.knobs') AS given, method, worker, meta, benchmark, list,
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


def searches(connection: DuckDBPyConnection, run_id: str | None = None) -> list[SearchRow]:
    """Every search, or the one asked for; the oldest first."""
    rows = []
    for found in dicts(connection, SEARCHES):
        if run_id in (None, found["run_id"]):
            nodes = tuple(nodes_of(facts_of(connection, "node", found["run_id"])))
            used_by = tuple(found.pop("used_by") or ())
            rows.append(SearchRow(**named_columns(found), used_by=used_by, nodes=nodes))
    return rows


def search_steps(connection: DuckDBPyConnection, run_id: str) -> list[dict[str, float]]:
    """The steps of a search that trains, their numbers by name."""
    return steps_of(facts_of(connection, "note", run_id))


def attempts(connection: DuckDBPyConnection, run_id: str) -> list[Attempt]:
    """The graded attempts of a search, in the order in which they ended."""
    last = {row["result_key"]: row for row in facts_of(connection, "trial", run_id)}
    names = Attempt.__dataclass_fields__
    return [Attempt(**{name: row[name] for name in names}) for row in last.values()]
