"""The loop: many samples at once, each ending in one journaled result; resumes where it stopped.

This is the one place that turns an error into a row: the sandbox's or the provider's fault makes an
`invalid` sample, which the next run of the same command tries again.
"""

from __future__ import annotations

import ast
import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.benchmarks import Item, described
from harness.context import Budget, Gate, Recorded, SampleContext, unknown_sum
from harness.errors import BudgetReached, ModelError, ModelRefused, SandboxError
from harness.grade import Grader, Report
from harness.journal import Journal, canonical, digest, read_run
from harness.metrics import Estimate, pass_at_1
from harness.types import Cases, Level, Method, Sampling, Verdict
from harness.workflow import WorkflowLimits

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """All that decides one run's samples; `identity` is what makes two samples the same work."""

    run_dir: Path
    config_hash: str
    method: Method
    knobs: Mapping[str, Any]
    level: Level
    items: Sequence[Item]
    n_samples: int
    seed: int
    sampling: Mapping[str, Sampling]
    in_flight: int
    workflow_limits: WorkflowLimits = field(default_factory=WorkflowLimits)
    session: Mapping[str, Any] = field(default_factory=dict)  # facts for the session's record

    def result_key(self, item: Item, sample: int) -> str:
        """What makes two samples the same work: config, problem, its feedback tests, draw."""
        tests = described(item.feedback, item.problem.entry_point)
        parts = [self.config_hash, item.problem.problem_id, sample, *tests]
        return digest(canonical(parts))[:32]


@dataclass
class Progress:
    """What a run has to show so far."""

    total: int  # samples asked for
    rows: dict[str, Row] = field(default_factory=dict)  # results by key, resumed ones included
    resumed: int = 0
    started: float = field(default_factory=time.monotonic)
    finished_now: int = 0
    live: dict[str, SampleContext] = field(default_factory=dict)

    def outcomes(self) -> dict[str, list[bool | None]]:
        """{problem: passed of each sample}; None where the sample is invalid."""
        found: dict[str, list[bool | None]] = {}
        for row in list(self.rows.values()):  # a display reads this from a thread of its own
            invalid = row["verdict"] == Verdict.INVALID
            passed = None if invalid else row["verdict"] == Verdict.PASSED
            found.setdefault(row["problem_id"], []).append(passed)
        return found

    def estimate(self) -> Estimate:
        return pass_at_1(self.outcomes())

    def part(self, name: str) -> Estimate:
        """pass@1 by a part of the tests, `fresh`, `base` or `plus`, where a problem has it."""
        found: dict[str, list[bool | None]] = {}
        for row in list(self.rows.values()):
            if row.get(name) is not None:
                found.setdefault(row["problem_id"], []).append(row[name] == Verdict.PASSED)
        return pass_at_1(found)

    def overlap_free(self) -> Estimate:
        """pass@1 on the hidden tests that no feedback test repeats, where such are left."""
        return self.part("fresh")

    @property
    def invalid(self) -> int:
        return sum(row["verdict"] == Verdict.INVALID for row in list(self.rows.values()))

    @property
    def calls(self) -> int:
        live = sum(context.totals.calls for context in list(self.live.values()))
        return sum(int(row["calls"]) for row in list(self.rows.values())) + live

    def total_of(self, name: str) -> float | None:
        """The sum of a column over results and running samples; None when some part is unknown."""
        live = (getattr(context.totals, name) for context in list(self.live.values()))
        return unknown_sum((*(row[name] for row in list(self.rows.values())), *live))

    @property
    def tokens(self) -> float | None:
        return unknown_sum((self.total_of("prompt_tokens"), self.total_of("completion_tokens")))

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the pace of this process; None before its first result."""
        if not self.finished_now:
            return None
        return self.elapsed_s / self.finished_now * (self.total - len(self.rows))


Listener = Callable[[Progress, Row | None], None]


def source_digest(*files: Path) -> str:
    """A digest of programs, comments and layout aside: editing a comment is not a new method."""
    trees = [ast.dump(ast.parse(file.read_text())) for file in files]
    return digest("\n".join(trees))


async def run(
    job: Job,
    *,
    gates: Mapping[str, Gate],
    grader: Grader,
    budget: Budget,
    journal: Journal,
    listen: Listener,
) -> tuple[Progress, str, str | None]:
    """Run what is left of a job; (progress, status, why it stopped early).

    The status is complete, partial (some samples are invalid) or budget. Raises ModelRefused, and
    what the operating system or a bug raises; the journal then holds all that was finished.
    """
    records = [record for record in read_run(job.run_dir) if _whole(record)]
    asked = [(item, k) for item in job.items for k in range(job.n_samples)]
    keys = {job.result_key(item, k): (item, k) for item, k in asked}
    done = {
        r["result_key"]: r for r in records if r["kind"] == "result" and r["result_key"] in keys
    }
    progress = Progress(len(keys))
    progress.rows = {k: r for k, r in done.items() if r["verdict"] != Verdict.INVALID}
    progress.resumed = len(progress.rows)
    open_keys = set(keys) - set(progress.rows)
    recorded = Recorded(r for r in records if r.get("result_key") in open_keys or "sha256" in r)
    budget.resume(records)
    answered = {r["model"] for r in records if r["kind"] == "call" and r["error"] is None}
    for gate in gates.values():
        gate.proven = gate.model.name in answered
    del records
    journal.write(
        "session",
        event="start",
        status="running",
        problems=len(job.items),
        samples=len(keys),
        resumed=progress.resumed,
        asked=[item.problem.problem_id for item in job.items],
        **job.session,
    )
    listen(progress, None)
    todo = [keys[key] for key in keys if key in open_keys]
    todo.sort(key=lambda work: work[1])  # the first sample of every problem before the second
    queue = iter(todo)

    async def lane() -> None:
        for item, sample in queue:
            key = job.result_key(item, sample)
            context = _context(job, item, sample, gates, grader, budget, journal, recorded)
            progress.live[key] = context
            try:
                row = await _sample(job, item, context, grader)
            finally:
                await context.finish()
                del progress.live[key]
            journal.write("result", **row)
            progress.rows[key] = row
            progress.finished_now += 1
            listen(progress, row)

    status, reason = "failed", None
    lanes = [asyncio.create_task(lane()) for _ in range(max(1, min(job.in_flight, len(todo))))]
    try:
        await _all(lanes)
        status = "partial" if progress.invalid else "complete"
    except BudgetReached as reached:
        status, reason = "budget", str(reached)
    except ModelRefused:
        status = "refused"
        raise
    except asyncio.CancelledError:
        status = "interrupted"
        raise
    finally:
        for task in lanes:
            task.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
        journal.write("session", event="end", status=status, reason=reason)
    return progress, status, reason


_NEEDED = {  # what resuming reads of a record; a line that lacks it is as good as lost
    "artifact": {"sha256", "text"},
    "session": {"at", "event"},
    "result": {"result_key", "problem_id", "sample", "verdict", "detail", "calls", "wall_s"}
    | {"prompt_tokens", "completion_tokens", "cost_usd"},
    "call": {"at", "result_key", "request_sha", "response_sha", "model", "error", "latency_s"}
    | {"prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "finish"}
    | {"cost_usd"},
}


def _whole(record: Row) -> bool:
    """Whether a record has the fields that resuming reads."""
    return _NEEDED.get(record["kind"], set()) <= record.keys()


async def _all(lanes: list[asyncio.Task[None]]) -> None:
    """Wait for every lane; raise the first failure.

    A spent budget or a refused key meets the other lanes at their next request, so they finish what
    is in flight (it is paid for); any other failure ends the run at once.
    """
    pending = set(lanes)
    failure: BaseException | None = None
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
        for error in (task.exception() for task in done):
            if error is not None and not isinstance(error, BudgetReached | ModelRefused):
                raise error
            failure = failure or error
    if failure is not None:
        raise failure


def _context(
    job: Job,
    item: Item,
    sample: int,
    gates: Mapping[str, Gate],
    grader: Grader,
    budget: Budget,
    journal: Journal,
    recorded: Recorded,
) -> SampleContext:
    async def drill(code: str) -> Report:
        assert item.feedback is not None
        return await grader.run_tests(item.problem, item.oracle, item.feedback, code)

    return SampleContext(
        problem=item.problem,
        result_key=job.result_key(item, sample),
        sample=sample,
        seed=job.seed,
        level=job.level,
        sampling=job.sampling,
        gates=gates,
        journal=journal,
        sandbox=grader.sandbox,
        budget=budget,
        recorded=recorded,
        feedback_tests=described(item.feedback, item.problem.entry_point),
        run_tests=drill,
        workflow_limits=job.workflow_limits,
    )


async def _sample(job: Job, item: Item, context: SampleContext, grader: Grader) -> Row:
    """The result row of one sample; an error of ours or the provider's is `invalid`."""
    grade_s = 0.0
    code, error_kind, feedback = "", None, None
    fresh: Verdict | None = None
    parts: Mapping[str, Verdict] = {}
    try:
        solution = await job.method.solve(item.problem, context, **job.knobs)
        code = solution.code
        graded = time.monotonic()
        report = await grader.grade(item.problem, item.oracle, code)
        grade_s = time.monotonic() - graded
        feedback = await _final_feedback(context, code)
        verdict, detail = report.verdict, report.detail
        fresh, parts = report.fresh, report.parts
        if isinstance(item.oracle.tests, Cases):  # no program, or no input of the other part
            parts = {"base": verdict, "plus": verdict, **parts}
    except (ModelRefused, BudgetReached):
        raise
    except ModelError as error:
        verdict, detail, error_kind = Verdict.INVALID, str(error), error.kind
    except SandboxError as error:
        verdict, detail, error_kind = Verdict.INVALID, str(error), "sandbox"
    totals = context.totals
    return {
        "result_key": context.result_key,
        "problem_id": item.problem.problem_id,
        "sample": context.sample,
        "verdict": str(verdict),
        "detail": detail,
        "fresh": fresh and str(fresh),
        "base": parts.get("base") and str(parts["base"]),
        "plus": parts.get("plus") and str(parts["plus"]),
        "solution_sha": context.journal.artifact(code) if code else None,
        "prompt_tokens": totals.prompt_tokens,
        "completion_tokens": totals.completion_tokens,
        "calls": totals.calls,
        "rounds": totals.rounds,
        "cost_usd": totals.cost_usd,
        "wall_s": round(context.stopwatch.seconds, 3),
        "grade_s": round(grade_s, 3),
        "feedback_passed": feedback[0] if feedback else None,
        "feedback_total": feedback[1] if feedback else None,
        "error_kind": error_kind,
    }


async def _final_feedback(context: SampleContext, code: str) -> tuple[int, int] | None:
    """(passed, total) of the feedback tests on the answer, for every method alike; None: no tests.

    Measured after the answer is frozen, so it steers nothing.
    """
    total = len(context.feedback_tests)
    if not total or not code:
        return None
    report = await context.run_tests(code)
    return report.passed, total
