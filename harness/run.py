"""The loop: many samples at once, each ending in one journaled result; resumes where it stopped.

This is the one place that turns an error into a row: the sandbox's or the provider's fault makes an
`invalid` sample, which the next run of the same command tries again.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.benchmarks import Item, described
from harness.budget import Budget, Expectation, unknown_sum
from harness.context import Aids, Recorded, SampleContext, Totals
from harness.errors import BudgetReached, ModelError, ModelRefused, SandboxError
from harness.grade import Grader, Report
from harness.journal import Journal, canonical, digest, last_results, read_run, whole
from harness.metrics import Estimate, pass_at_1
from harness.pacing import Gate
from harness.replies import ReplyCache
from harness.types import Cases, Level, Method, Sampling, Verdict, WorkflowLimits

Row = dict[str, Any]
GRADED = 2  # samples that may be graded beside those that are asked for
ROOM_S = 0.1  # how often it is looked at whether more samples may begin


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
    in_flight: int | None  # samples at once; None: as many as the models' connections allow
    price_table: str  # what prices come from, with its version
    workflow_limits: WorkflowLimits = field(default_factory=WorkflowLimits)
    artifact: Mapping[str, Any] | None = None  # what the method's fit found
    node_roles: Sequence[str] = ("worker",)
    aids: Aids = field(default_factory=Aids)
    session: Mapping[str, Any] = field(default_factory=dict)  # facts for the session's record

    def result_key(self, item: Item, sample: int) -> str:
        """What makes two samples the same work: config, problem, its feedback tests, draw."""
        tests = described(item.feedback, item.problem.entry_point)
        parts = [self.config_hash, item.problem.problem_id, sample, *tests]
        if self.method.peers(self.knobs) and (peer := self.peer(item)) is not None:
            parts.append(peer.problem.problem_id)
        return digest(canonical(parts))[:32]

    def peer(self, item: Item) -> Item | None:
        """The problem after this one in a seeded cycle through all; None where it is alone."""
        after = self._cycle[item.problem.problem_id]
        return None if after is item else after

    @functools.cached_property
    def _cycle(self) -> dict[str, Item]:
        def order(item: Item) -> str:
            return digest(f"{self.seed}/peer/{item.problem.problem_id}")

        ring = sorted(self.items, key=order)
        return {
            item.problem.problem_id: after
            for item, after in zip(ring, [*ring[1:], *ring[:1]], strict=True)
        }


@dataclass
class Progress:
    """What a run has to show so far."""

    total: int  # samples asked for
    rows: dict[str, Row] = field(default_factory=dict)  # results by key, resumed ones included
    resumed: int = 0
    started: float = field(default_factory=time.monotonic)
    finished_now: int = 0
    live: dict[str, SampleContext] = field(default_factory=dict)
    cut: list[Totals] = field(default_factory=list)  # of samples that the run's end cut off
    gates: Sequence[Gate] = ()

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

    def unfinished(self) -> list[Totals]:
        """What samples without a result have used."""
        return [*(context.totals for context in list(self.live.values())), *self.cut]

    @property
    def calls(self) -> int:
        return sum(int(row["calls"]) for row in list(self.rows.values())) + sum(
            totals.calls for totals in self.unfinished()
        )

    @property
    def cached_calls(self) -> int:
        """How many of these were answered without paying."""
        return sum(row.get("cached_calls") or 0 for row in list(self.rows.values())) + sum(
            totals.cached_calls for totals in self.unfinished()
        )

    @property
    def error_kinds(self) -> dict[str, int]:
        """How many samples ended without a verdict, by what went wrong."""
        kinds: dict[str, int] = {}
        for row in list(self.rows.values()):
            if row["verdict"] == Verdict.INVALID:
                kind = row["error_kind"] or "unknown"
                kinds[kind] = kinds.get(kind, 0) + 1
        return dict(sorted(kinds.items()))

    @property
    def flight(self) -> str:
        """What is being asked at this moment, and what holds the rest back."""
        return "; ".join(status for gate in self.gates if (status := gate.status))

    def total_of(self, name: str) -> float | None:
        """The sum of a column over results and running samples; None when some part is unknown."""
        live = [getattr(totals, name) for totals in self.unfinished()]
        rows = list(self.rows.values())
        if name == "fresh_cost_usd":  # rows of older journals paid for everything
            return unknown_sum((*(row.get(name, row["cost_usd"]) for row in rows), *live))
        return unknown_sum((*(row[name] for row in rows), *live))

    @property
    def tokens(self) -> float | None:
        return unknown_sum((self.total_of("prompt_tokens"), self.total_of("completion_tokens")))

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the pace of this process; None before its first result.

        What is under way counts as half done, so that the first results of many do not mislead.
        """
        if not self.finished_now:
            return None
        half = len(self.live) / 2
        left = max(0.0, self.total - len(self.rows) - half)
        return self.elapsed_s / (self.finished_now + half) * left


Listener = Callable[[Progress, Row | None], None]


@functools.cache
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
    replies: ReplyCache,
    journal: Journal,
    listen: Listener,
    resume_budget: bool = True,
    closing: Callable[[], Mapping[str, Any]] = dict,
) -> tuple[Progress, str, str | None]:
    """Run what is left of a job; (progress, status, why it stopped early).

    The status is complete, partial (some samples are invalid) or budget. `resume_budget` is False
    where the budget knows already what earlier processes spent; `closing` gives more fields for the
    session's end. Raises ModelRefused, and what the operating system or a bug raises; the journal
    then holds all that was finished.
    """
    records = [record for record in read_run(job.run_dir) if whole(record)]
    asked = [(item, k) for item in job.items for k in range(job.n_samples)]
    keys = {job.result_key(item, k): (item, k) for item, k in asked}
    done = {key: row for key, row in last_results(records).items() if key in keys}
    each = list({id(gate): gate for gate in gates.values()}.values())
    progress = Progress(len(keys), gates=each)
    progress.rows = {k: r for k, r in done.items() if r["verdict"] != Verdict.INVALID}
    progress.resumed = len(progress.rows)
    open_keys = set(keys) - set(progress.rows)
    recorded = Recorded(r for r in records if r.get("result_key") in open_keys or "sha256" in r)
    if resume_budget:
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
    expected = {role: Expectation() for role in gates}

    async def one(item: Item, sample: int) -> None:
        key = job.result_key(item, sample)
        context = SampleContext(
            problem=item.problem,
            result_key=key,
            sample=sample,
            seed=job.seed,
            level=job.level,
            sampling=job.sampling,
            gates=gates,
            journal=journal,
            sandbox=grader.sandbox,
            budget=budget,
            recorded=recorded,
            replies=replies,
            expected=expected,
            feedback_tests=described(item.feedback, item.problem.entry_point),
            run_tests=functools.partial(_drill, grader, item),
            workflow_limits=job.workflow_limits,
            artifact=job.artifact,
            node_roles=job.node_roles,
            aids=job.aids,
            seat=functools.partial(_seat, grader, peer) if (peer := job.peer(item)) else None,
        )
        progress.live[key] = context
        row = None
        try:
            row = await _sample(job, item, context, grader)
        finally:
            await context.finish()
            del progress.live[key]
            if row is None:
                progress.cut.append(context.totals)
        journal.write("result", **row)
        progress.rows[key] = row
        progress.finished_now += 1
        listen(progress, row)

    def room() -> int:
        """How many samples may be under way: as many as models answer, and some being graded."""
        return job.in_flight or max(gate.limit for gate in each) + GRADED

    status, reason = "failed", None
    running: set[asyncio.Task[None]] = set()
    try:
        await _all((one(item, sample) for item, sample in todo), running, room)
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
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        served: dict[str, list[str]] = {}
        for gate in each:  # two servers may have a model of one name
            known = served.get(gate.model.name, [])
            served[gate.model.name] = sorted({*known, *gate.served_by})
        end = {"status": status, "reason": reason, "served_by": served, **closing()}
        end["elapsed_s"] = round(progress.elapsed_s, 3)
        journal.write("session", event="end", **end)
    return progress, status, reason


async def _all(
    work: Iterator[Coroutine[Any, Any, None]],
    running: set[asyncio.Task[None]],
    room: Callable[[], int],
) -> None:
    """Do all of the work, `room()` pieces at once; raise the first failure.

    A spent budget or a refused key meets the other pieces at their next request, so they finish
    what is in flight (it is paid for); any other failure ends the run at once. What is still under
    way stands in `running`.
    """
    failure: BaseException | None = None
    more, wake = True, asyncio.Event()
    finished: list[asyncio.Task[None]] = []

    def done(task: asyncio.Task[None]) -> None:
        running.discard(task)
        finished.append(task)
        wake.set()

    while True:
        while more and failure is None and len(running) < room():
            piece = next(work, None)
            more = piece is not None
            if piece is not None:
                task = asyncio.create_task(piece)
                running.add(task)
                task.add_done_callback(done)
        if failure is not None:
            more = False
        if not running and not finished:
            break
        with contextlib.suppress(TimeoutError):  # room may grow before any of these is done
            async with asyncio.timeout(ROOM_S if more else None):
                await wake.wait()
        wake.clear()
        errors = [error for task in finished if (error := task.exception()) is not None]
        finished.clear()
        for error in errors:
            if not isinstance(error, BudgetReached | ModelRefused):
                raise error
            failure = failure or error
    if failure is not None:
        raise failure


async def _drill(grader: Grader, item: Item, code: str) -> Report:
    """The feedback tests of an item, run on a program."""
    assert item.feedback is not None
    return await grader.run_tests(item.problem, item.oracle, item.feedback, code)


def _seat(grader: Grader, peer: Item, context: SampleContext) -> SampleContext:
    """A sample's view of the problem that is its peer."""
    tests = described(peer.feedback, peer.problem.entry_point)
    return context.at(peer.problem, tests, functools.partial(_drill, grader, peer))


async def _sample(job: Job, item: Item, context: SampleContext, grader: Grader) -> Row:
    """The result row of one sample; an error of ours or the provider's is `invalid`."""
    grade_s = looked_s = 0.0
    code, error_kind, feedback = "", None, None
    fresh: Verdict | None = None
    parts: Mapping[str, Verdict] = {}
    reruns: list[str] | None = None
    try:
        solution = await job.method.solve(
            item.problem, context, **job.method.given_to(job.method.solve, job.knobs)
        )
        await context.finish()  # what it left in flight belongs to this sample
        code = solution.code
        graded = time.monotonic()
        report = await grader.grade(item.problem, item.oracle, code)
        grade_s = time.monotonic() - graded
        feedback = await _final_feedback(context, code)
        looking = time.monotonic()
        if solution.reruns:
            reruns = [str(await _verdict(item, grader, one)) for one in solution.reruns]
        await _look_back(item, context, grader, code, report.verdict)
        looked_s = time.monotonic() - looking  # our measurement, no time of the method's
        verdict, detail = report.verdict, report.detail
        fresh, parts = report.fresh, report.parts
        if isinstance(item.oracle.tests, Cases):  # no program, or no input of the other part
            parts = {"base": verdict, "plus": verdict, **parts}
    except (ModelRefused, BudgetReached):
        await context.finish(wait=True)
        raise
    except ModelError as error:
        await context.finish()
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
        "reruns": reruns,
        "solution_sha": context.journal.artifact(code) if code else None,
        "prompt_tokens": totals.prompt_tokens,
        "completion_tokens": totals.completion_tokens,
        "calls": totals.calls,
        "cached_calls": totals.cached_calls,
        "rounds": totals.rounds,
        "cost_usd": totals.cost_usd,
        "fresh_cost_usd": totals.fresh_cost_usd,
        "price_table": job.price_table,
        "wall_s": round(context.stopwatch.seconds - looked_s, 3),
        "grade_s": round(grade_s, 3),
        "feedback_passed": feedback[0] if feedback else None,
        "feedback_total": feedback[1] if feedback else None,
        "error_kind": error_kind,
    }


async def _look_back(
    item: Item, context: SampleContext, grader: Grader, code: str, verdict: Verdict
) -> None:
    """Journal the hidden-test verdict of each round's program, beside its feedback score.

    After the answer is frozen, so it steers nothing.
    """
    found = {code: verdict}
    for number, program in context.programs:
        if program not in found:
            found[program] = await _verdict(item, grader, program)
        context.note("hidden", round=number, verdict=str(found[program]), texts={"code": program})


async def _verdict(item: Item, grader: Grader, code: str) -> Verdict:
    """The hidden tests' verdict on a program that is not the answer; `invalid` where ours broke.

    So that what is only looked back at does not take the answer's own verdict away.
    """
    try:
        return (await grader.grade(item.problem, item.oracle, code)).verdict
    except SandboxError:
        return Verdict.INVALID


async def _final_feedback(context: SampleContext, code: str) -> tuple[int, int] | None:
    """(passed, total) of the feedback tests on the answer, for every method alike; None: no tests.

    Measured after the answer is frozen, so it steers nothing.
    """
    total = len(context.feedback_tests)
    if not total or not code:
        return None
    report = await context.run_tests(code)
    return report.passed, total
