"""What a run takes beside its calls, in seconds: starting, grading, and running workflows.

From past runs of the same method where there are some, else from what was measured once. Read from
the board's snapshot, as `harness/past.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import StoreError
from harness.past import family
from harness.store import open_snapshot

Range = tuple[float, float]

START_S = (0.2, 2.0)  # until the first sample begins, and after the last one
# Seconds of one core, measured on two, and a factor of some 2 to 4 to either side. Grading a
# sample: README, "Beside the official graders"; a workflow: 0.085 to 0.125 in flowreasoner on sim/.
GRADE_S = {"assertions": (0.005, 0.1), "many inputs": (0.03, 0.5), "packages": (0.2, 4.0)}
WORKFLOW_S = (0.04, 0.3)
OFF = 2.0  # the factor by which a run of the same method, knobs and benchmark may be off


@dataclass(frozen=True)
class PastOverhead:
    """What one session of a past run took beside its calls."""

    method: str
    family: str  # of its benchmark
    knobs: str  # canonical JSON
    samples: int
    seconds: float  # a sample, on all cores of this machine


def read(
    results_dir: Path, *, method: str, simulated: bool, besides: str | None = None
) -> tuple[PastOverhead, ...]:
    """What the finished sessions of a method's runs took, the run `besides` left out.

    Raises StoreError without a snapshot.
    """
    connection = open_snapshot(results_dir)
    import duckdb

    try:
        rows = connection.execute(_SESSIONS, [besides or "", method, simulated]).fetchall()
    except duckdb.Error as error:  # a damaged file: the next snapshot is a new one
        raise StoreError(f"{results_dir}: past runs cannot be read: {error}") from error
    finally:
        connection.close()
    return tuple(
        PastOverhead(method, family(benchmark), knobs, samples, seconds)
        for benchmark, knobs, samples, seconds in rows
    )


def expected(
    past: Iterable[PastOverhead], *, benchmark: str, knobs: str, samples: int, workflows: int
) -> Range:
    """(least, most) seconds of grading and of running `workflows`, for so many samples."""
    cores = os.cpu_count() or 1
    busy = min(cores, samples)
    same = [one for one in past if one.family == family(benchmark) and one.knobs == knobs]
    if same:  # a run of fewer samples than cores left some idle
        least = min(one.seconds * min(1.0, one.samples / cores) for one in same) / OFF
        most = max(one.seconds for one in same) * OFF * cores / busy
        return samples * least, samples * most
    of_one = "assertions"
    if "+" in benchmark:
        of_one = "many inputs"
    elif family(benchmark) == "bigcodebench":
        of_one = "packages"
    ends = (a * samples + b * workflows for a, b in zip(GRADE_S[of_one], WORKFLOW_S, strict=True))
    least, most = ends
    return least / cores, most / busy


# A session's seconds, less the share of its samples' time in which a call of theirs was under way
# (calls beside each other counted once; a reply that was kept took no time).
_SESSIONS = """
WITH wanted AS (
  SELECT run_no, benchmark, knobs FROM runs
  WHERE run_id <> ? AND method = ? AND (kind = 'simulated') = ?
), took AS (
  SELECT run_no, segment, max(logged_at) FILTER (event = 'end')
                          - min(logged_at) FILTER (event = 'start') AS seconds
  FROM sessions SEMI JOIN wanted USING (run_no) GROUP BY ALL
), graded AS (
  SELECT run_no, segment, result_key, wall_s FROM results SEMI JOIN wanted USING (run_no)
  WHERE verdict <> 'invalid' AND wall_s IS NOT NULL
), asked AS (
  SELECT run_no, segment, result_key, logged_at - latency_s AS since, logged_at AS until,
         max(logged_at) OVER (PARTITION BY run_no, segment, result_key
                              ORDER BY logged_at - latency_s
                              ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
  FROM calls SEMI JOIN graded USING (run_no, segment, result_key)
  WHERE latency_s IS NOT NULL AND NOT coalesce(cached, false)
), asking AS (
  SELECT run_no, segment,
         sum(greatest(0, until - greatest(since, coalesce(reached, since)))) AS asked_s
  FROM asked GROUP BY ALL
), sizes AS (
  SELECT run_no, segment, count(*) AS samples, sum(wall_s) AS wall_s FROM graded GROUP BY ALL
)
SELECT benchmark, knobs, samples,
       seconds * greatest(0, 1 - coalesce(asked_s, 0) / wall_s) / samples
FROM sizes JOIN took USING (run_no, segment) JOIN wanted USING (run_no)
     LEFT JOIN asking USING (run_no, segment)
WHERE seconds > 0 AND wall_s > 0
"""
