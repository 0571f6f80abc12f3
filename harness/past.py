"""What the runs in the store tell of runs to come: calls, tokens and seconds, by run and role.

Read from the board's snapshot, a copy that nobody writes: it waits for no lock.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import StoreError
from harness.store import open_snapshot

PAIR = 50  # problems that two runs must share to tell on how many of them methods differ
PAIRED_RUNS = 20  # newest runs that are compared for that


@dataclass(frozen=True)
class PastCalls:
    """What one role of one past run did, over its samples."""

    run_id: str
    method: str
    family: str  # of its benchmark: humaneval, mbpp, bigcodebench
    knobs: str  # canonical JSON
    models: Mapping[str, str]  # of all roles
    role: str
    samples: int
    calls: float  # mean a sample
    calls_deviation: float
    prompt_tokens: float | None  # mean a call, as the next
    completion_tokens: float | None
    spread: float | None  # standard deviation over mean of a sample's tokens a call
    latency_s: float | None  # mean of the calls that were really asked

    @property
    def model(self) -> str:
        return self.models.get(self.role, "")


@dataclass(frozen=True)
class Past:
    """What earlier runs tell."""

    calls: tuple[PastCalls, ...] = ()
    discordant: float | None = None  # share of problems on which two methods differ


def family(benchmark: str) -> str:
    """The benchmark whose problems these are: `humaneval` of `humaneval+`."""
    return benchmark.partition("+")[0].partition("-")[0]


def read(
    results_dir: Path,
    *,
    benchmark: str,
    method: str,
    models: Collection[str],
    simulated: bool,
    besides: str | None = None,
) -> Past | None:
    """What is known of a method and of models by name; None without a snapshot that can be read.

    Simulated runs tell only of simulated ones. `besides` is a run that is not looked at: the one
    that is to be foretold.
    """
    try:
        connection = open_snapshot(results_dir)
    except StoreError:  # no run yet, or an older harness's: the next run makes a new one
        return None
    import duckdb

    try:
        wanted = [besides or "", method, sorted(models), simulated]
        rows = connection.execute(_CALLS, wanted).fetchall()
        pairs = connection.execute(_PAIRS, [family(benchmark), PAIRED_RUNS, PAIR]).fetchall()
    except duckdb.Error as error:  # a damaged file: the next snapshot is a new one
        raise StoreError(f"{results_dir}: past runs cannot be read: {error}") from error
    finally:
        connection.close()
    found = []
    for run_id, of_method, of_benchmark, knobs, run_json, role, *numbers in rows:
        made = json.loads(run_json).get("roles") or {}
        by_role = {name: str(one.get("model")) for name, one in made.items()}
        found.append(
            PastCalls(run_id, of_method, family(of_benchmark), knobs, by_role, role, *numbers)
        )
    return Past(tuple(found), pairs[0][0] or None)


# One row for a role of a run, from the answered calls of its graded samples, those without a call
# counted too; replies that were kept took no time.
_CALLS = """
WITH wanted AS (
  SELECT run_no, run_id, method, benchmark, knobs, run_json FROM runs
  WHERE run_id <> ? AND
        (method = ? OR run_no IN (SELECT run_no FROM calls WHERE model IN (SELECT unnest(?))))
        AND (kind = 'simulated') = ? AND stage = 'eval'
), graded AS (
  SELECT run_no, result_key FROM results SEMI JOIN wanted USING (run_no)
  WHERE verdict <> 'invalid'
), sizes AS (
  SELECT run_no, count(*) AS samples FROM graded GROUP BY run_no
), per_sample AS (
  SELECT run_no, result_key, role, count(*) AS calls,
         avg(prompt_tokens) AS prompt, avg(completion_tokens) AS completion,
         avg(latency_s) FILTER (NOT coalesce(cached, false)) AS latency
  FROM calls SEMI JOIN graded USING (run_no, result_key)
  WHERE error IS NULL GROUP BY ALL
)
SELECT run_id, method, benchmark, knobs, run_json, role, any_value(samples),
       sum(calls) / any_value(samples),
       sqrt(greatest(sum(calls * calls) - sum(calls) ** 2 / any_value(samples), 0)
            / greatest(any_value(samples) - 1, 1)),
       sum(prompt * calls) / sum(calls) FILTER (prompt IS NOT NULL),
       sum(completion * calls) / sum(calls) FILTER (completion IS NOT NULL),
       stddev_samp(prompt + completion) / nullif(avg(prompt + completion), 0),
       sum(latency * calls) / sum(calls) FILTER (latency IS NOT NULL)
FROM per_sample JOIN wanted USING (run_no) JOIN sizes USING (run_no)
GROUP BY ALL ORDER BY run_id, role
"""

# On what share of the problems two methods over one worker differ: pairs of the newest runs.
_PAIRS = """
WITH chosen AS (
  SELECT run_no, benchmark_digest, protocol, worker, method, meta, knobs FROM runs
  WHERE kind = 'measured' AND complete AND stage = 'eval'
        AND regexp_extract(benchmark, '^[^+-]*') = ?
  ORDER BY started_at DESC NULLS LAST LIMIT ?
), one AS (
  SELECT chosen.*, problem_id, verdict = 'passed' AS passed
  FROM chosen JOIN results USING (run_no) WHERE sample = 0 AND verdict <> 'invalid'
), pairs AS (
  SELECT a.run_no, b.run_no AS other, avg((a.passed <> b.passed)::INTEGER) AS share
  FROM one AS a JOIN one AS b USING (benchmark_digest, protocol, worker, problem_id)
  WHERE a.run_no < b.run_no
        AND (a.method, a.meta, a.knobs) IS DISTINCT FROM (b.method, b.meta, b.knobs)
  GROUP BY ALL HAVING count(*) >= ?
)
SELECT avg(share) FROM pairs
"""
