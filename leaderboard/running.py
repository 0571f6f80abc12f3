"""How runs stand, searches too, as of the snapshot: what is done, what went wrong, what is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leaderboard.queries import Origin, dicts, named_columns, object_of, origin_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# `try`: JSON that names half a character is none to DuckDB, and one such run takes down no page.
# The journal is read up to `updated_at` of its segments, so that is the time of what is known.
RUNS = """
WITH done AS (
  SELECT run_no, sum(samples)::BIGINT AS samples, sum(graded)::BIGINT AS graded,
         sum(passed)::BIGINT AS passed,
         CASE WHEN count(tokens) = count(*) THEN sum(tokens) END::BIGINT AS tokens,
         CASE WHEN count(fresh_cost_usd) = count(*) THEN sum(fresh_cost_usd) END AS fresh_cost_usd,
         CASE WHEN count(cost_usd) = count(*) THEN sum(cost_usd) END AS cost_usd
  FROM problem_rollup GROUP BY run_no
), last AS (
  SELECT DISTINCT ON (run_no) run_no, logged_at AS session_at, resumed, versions,
         coalesce(config, '{}') AS config
  FROM sessions WHERE event = 'start' ORDER BY run_no, segment DESC
), read AS (
  SELECT string_split(path, '/')[2] AS run_id, max(updated_at) AS read_at
  FROM segments GROUP BY ALL
)
SELECT try(runs.run_json -> '$.config.knobs') AS given, runs.knobs,
       runs.run_id, runs.stage, runs.method, runs.worker, runs.meta, runs.benchmark, runs.kind,
       runs.origin, runs.status, runs.started_at, session_at, read_at, runs.samples_asked,
       runs.samples_left, resumed, coalesce(samples, 0) AS samples, coalesce(graded, 0) AS graded,
       coalesce(passed, 0) AS passed, tokens, cost_usd, fresh_cost_usd,
       try(json_object('budget_usd', config -> '$.budget_usd',
                       'budget_tokens', config -> '$.budget_tokens',
                       'budget_minutes', config -> '$.budget_minutes')) AS budget,
       runs.sandbox, runs.commit, runs.dirty, runs.harness_version, runs.grader_version,
       runs.environment, runs.command, try(runs.run_json -> '$.host') AS host,
       coalesce(versions, try(runs.run_json -> '$.versions')) AS versions
FROM runs LEFT JOIN done USING (run_no) LEFT JOIN last USING (run_no)
LEFT JOIN read USING (run_id)
ORDER BY runs.started_at DESC NULLS LAST, runs.run_id
"""


@dataclass(frozen=True)
class RunState:
    """How a run stands, as of the snapshot, and what it is made in."""

    run_id: str
    stage: str  # eval, or fit for a search
    named: str
    method: str
    worker: str
    meta: str | None
    benchmark: str
    kind: str
    origin: Origin | None
    status: str | None
    started_at: float | None  # unix seconds
    session_at: float | None  # when its last session began
    read_at: float | None  # when its journal was last read
    samples_asked: int | None
    samples_left: int | None
    resumed: int | None  # samples that the last session found done
    samples: int  # with a result
    graded: int
    passed: int
    tokens: int | None
    cost_usd: float | None  # paid
    fresh_cost_usd: float | None
    budget: dict[str, float]  # of the last session: budget_usd, budget_tokens, budget_minutes
    sandbox: str | None
    commit: str | None
    dirty: bool | None
    harness_version: str | None
    grader_version: str | None
    environment: str | None
    command: str | None
    versions: dict[str, str | None]  # of packages
    host: dict[str, Any]

    @property
    def live(self) -> bool:
        return self.status == "running"

    @property
    def errored(self) -> int:
        """Samples that ended without a verdict."""
        return self.samples - self.graded

    @property
    def share(self) -> float | None:
        """How much of what was asked for has a verdict."""
        if not self.samples_asked or self.samples_left is None:
            return None
        return 1 - self.samples_left / self.samples_asked

    @property
    def rate(self) -> float | None:
        """Verdicts a minute in the session that goes on; None before the first."""
        if not self.live or self.session_at is None or self.read_at is None:
            return None
        minutes, done = (self.read_at - self.session_at) / 60, self.graded - (self.resumed or 0)
        return done / minutes if minutes > 0 and done > 0 else None

    @property
    def rest_s(self) -> float | None:
        """How long the rest takes if it goes on at this rate, in seconds."""
        if self.rate is None or self.samples_left is None:
            return None
        return 60 * self.samples_left / self.rate


def runs(connection: DuckDBPyConnection) -> list[RunState]:
    """How every run stands, searches too; the newest first."""
    return [_run_state(found) for found in dicts(connection, RUNS)]


def _run_state(found: dict[str, Any]) -> RunState:
    budget, versions, host = (object_of(found.pop(name)) for name in ("budget", "versions", "host"))
    origin = origin_of(found.pop("origin"))
    amounts = {k: v for k, v in budget.items() if isinstance(v, int | float)}
    known = {name: value for name, value in named_columns(found).items() if name != "knobs"}
    return RunState(**known, origin=origin, budget=amounts, versions=versions, host=host)


def error_kinds(connection: DuckDBPyConnection, run_id: str) -> list[tuple[str, str, int]]:
    """What went wrong in a run, as (where, kind, how often), the most frequent first.

    "sample": those without a verdict; "verdict": graded ones that did not pass; "call": requests to
    a model that failed, those that were tried again with success too.
    """
    run_no = "(SELECT run_no FROM runs WHERE run_id = $run)"
    found = connection.execute(
        "SELECT CASE WHEN verdict = 'invalid' THEN 'sample' ELSE 'verdict' END AS place, "
        "CASE WHEN verdict = 'invalid' THEN coalesce(error_kind, 'unknown') ELSE verdict END "
        f"AS kind, count(*) AS times FROM results WHERE run_no = {run_no} AND verdict <> 'passed' "
        "GROUP BY ALL UNION ALL SELECT 'call', coalesce(error_kind, 'unknown'), count(*) "
        f"FROM calls WHERE run_no = {run_no} AND error IS NOT NULL GROUP BY ALL "
        "ORDER BY place, times DESC, kind",
        {"run": run_id},
    ).fetchall()
    return [(str(place), str(kind), int(times)) for place, kind, times in found]
