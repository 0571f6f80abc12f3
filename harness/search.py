"""A method's search or training on problems that no evaluation list has: `fit`, journaled.

Implements `harness.types.FitContext`. An attempt at a problem is a sample of its own, with its own
calls, seeds and records; a graded one is a `trial` in the journal. A search that was killed is done
again from its beginning, and finds its replies and trials in the journal: nothing is paid twice.
What it found is an `Artifact`: plain data in a file that says on what it was found, at what cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.benchmarks import Item, described
from harness.budget import Budget, Expectation, unknown_sum
from harness.context import Aids, Recorded, SampleContext, Totals
from harness.errors import RequestRejected, StoreError, UsageError
from harness.grade import Grader, Report
from harness.journal import Journal, canonical, digest, write_atomically
from harness.pacing import Gate
from harness.replies import ReplyCache
from harness.types import (
    Completion,
    Context,
    Level,
    Message,
    Oracle,
    Problem,
    Sampling,
    Spent,
    Trial,
    Tried,
    Verdict,
    WorkflowLimits,
)

FORMAT = 2  # of artifact files
DESK = "search"  # the problem id of calls that belong to no problem
DETAIL_CHARS = 500  # of why a trial did not pass
ROOM = 2  # attempts that may be graded beside those that are asked for


@dataclass(frozen=True)
class Artifact:
    """What a fit found: plain data for the method's `solve`, with its origin and its cost."""

    method: str
    content: Mapping[str, Any]
    benchmark: str
    benchmark_digest: str
    list_digest: str  # of the problems that it was found on
    problems: tuple[str, ...]  # their ids: no evaluation may ask them
    config_hash: str  # of everything that decided the search
    spent: Mapping[
        str, Any
    ]  # calls, tokens, cost_usd (paid), fresh_cost_usd, wall_s; None: unknown
    run: str | None = None  # the fit's run
    simulated: bool = False
    format: int = FORMAT
    file: str | None = field(default=None, compare=False)  # where it was read from

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over what `solve` reads, and whose it is: equal ones make equal rows."""
        return digest(canonical([self.method, self.content]))

    @property
    def seal(self) -> str:
        """SHA-256 over all of it, so that an edited file is not taken for what was found."""
        return digest(canonical({**asdict(self), "file": None}))

    def as_dict(self) -> dict[str, Any]:
        found = {name: value for name, value in asdict(self).items() if name != "file"}
        found["problems"] = list(self.problems)
        return {**found, "digest": self.digest, "seal": self.seal}

    def described(self) -> dict[str, Any]:
        """What a row's run.json says of it."""
        return {
            "run": self.run,
            "file": None if self.run else self.file,
            "digest": self.digest,
            "list_digest": self.list_digest,
            "problems": len(self.problems),
            "spent": dict(self.spent),
        }


def write_artifact(path: Path, artifact: Artifact) -> None:
    """Write an artifact with its seal, whole or not at all. Raises StoreError."""
    write_atomically(path, json.dumps(artifact.as_dict(), ensure_ascii=False, indent=1) + "\n")


def read_artifact(path: Path) -> Artifact:
    """The artifact of a file. Raises StoreError that names the file: absent, or not one of ours."""
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise StoreError(f"{path}: cannot read: {error.strerror}") from error
    except ValueError as error:
        raise StoreError(f"{path}: no artifact of a fit: {error}") from error
    names = set(Artifact.__dataclass_fields__) - {"file"}
    if not isinstance(found, dict) or names - found.keys() or found["format"] != FORMAT:
        raise StoreError(f"{path}: no artifact of a fit that this version reads; fit again")
    wanted = {"content": dict, "spent": dict, "problems": list, "method": str, "simulated": bool}
    for name, kind in wanted.items():
        if not isinstance(found[name], kind):
            raise StoreError(f"{path}: {name} is no {kind.__name__}; fit again")
    if not all(isinstance(problem, str) for problem in found["problems"]):
        raise StoreError(f"{path}: problems wants ids; fit again")
    told = found.pop("seal", None)
    known = {name: value for name, value in found.items() if name in names}
    artifact = Artifact(**{**known, "problems": tuple(found["problems"])}, file=str(path))
    if told != artifact.seal:
        raise StoreError(f"{path}: it does not match its seal, so it was edited; fit again")
    return artifact


class _Room:
    """Admits attempts in the order of asking, `limit()` at once."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @contextlib.asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        self._busy -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._busy < self._limit():
            turn = self._waiting.popleft()
            if not turn.done():  # its waiter was not cancelled
                self._busy += 1
                turn.set_result(None)


@dataclass(frozen=True)
class Pool:
    """The problems of a search, and all tests of each."""

    items: Mapping[str, Item]  # under the protocol: what gives feedback
    oracles: Mapping[str, Oracle]  # by problem id: all official tests, under every protocol

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(item.problem for item in self.items.values())


@dataclass
class Found:
    """What a search has to show so far."""

    trials: int = 0
    passed: int = 0
    totals: list[Totals] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def spent(self) -> Spent:
        each = [totals.spent for totals in self.totals]
        return Spent(
            sum(one.calls for one in each),
            unknown_sum(one.tokens for one in each),
            unknown_sum(one.usd for one in each),
        )


class Search:
    """One fit. Implements `harness.types.FitContext`."""

    def __init__(
        self,
        *,
        pool: Pool,
        config_hash: str,
        seed: int,
        level: Level,
        sampling: Mapping[str, Sampling],
        gates: Mapping[str, Gate],
        grader: Grader,
        budget: Budget,
        replies: ReplyCache,
        journal: Journal,
        records: Iterable[Mapping[str, Any]],
        node_roles: Sequence[str] = ("worker",),
        aids: Aids | None = None,
        workflow_limits: WorkflowLimits | None = None,
        in_flight: int | None = None,
        listen: Callable[[Found], None] = lambda found: None,
    ) -> None:
        records = list(records)
        self.pool, self.level, self.sampling = pool, level, sampling
        self.found = Found()
        self._config_hash, self._grader, self._listen = config_hash, grader, listen
        texts = {r["sha256"]: r["text"] for r in records if r["kind"] == "artifact"}
        self._kept = {
            r["result_key"]: {**r, "code": texts[r["code_sha"]]}
            for r in records
            if r["kind"] == "trial" and r["code_sha"] in texts  # else its line is damaged
        }
        self._under_way: set[asyncio.Task[Any]] = set()
        self._labels: set[tuple[str, str]] = set()
        each = list({id(gate): gate for gate in gates.values()}.values())
        self._room = _Room(lambda: in_flight or max(gate.limit for gate in each) + ROOM)

        def context(
            problem: Problem,
            result_key: str,
            sample: int,
            tests: Sequence[str],
            run_tests: Callable[[str], Awaitable[Report]],
        ) -> SampleContext:
            return SampleContext(
                problem=problem,
                result_key=result_key,
                sample=sample,
                seed=seed,
                level=level,
                sampling=sampling,
                gates=gates,
                journal=journal,
                sandbox=grader.sandbox,
                budget=budget,
                recorded=recorded,
                replies=replies,
                expected=expected,
                feedback_tests=tests,
                run_tests=run_tests,
                workflow_limits=workflow_limits or WorkflowLimits(),
                node_roles=node_roles,
                aids=aids or Aids(),
            )

        # what a trial asked is not asked again, nor looked at
        recorded = Recorded(
            r for r in records if "sha256" in r or r.get("result_key") not in self._kept
        )
        expected = {role: Expectation() for role in gates}
        self._context = context
        desk = Problem(DESK, "", "", "", "", ())
        self.desk = context(desk, digest(f"{config_hash}/{DESK}")[:32], 0, (), _no_tests)
        self.rng = self.desk.rng
        self.found.totals.append(self.desk.totals)

    @property
    def round(self) -> int | None:
        return self.desk.round

    @round.setter
    def round(self, number: int | None) -> None:
        self.desk.round = number

    @property
    def nodes(self) -> Mapping[str, str]:
        return self.desk.nodes

    @property
    def spent(self) -> Spent:
        """What the whole search has used so far."""
        return self.found.spent

    async def ask(
        self, messages: str | Sequence[Message], role: str = "worker", **sampling: Any
    ) -> Completion:
        return await self.desk.ask(messages, role, **sampling)

    def is_greedy(self, role: str = "worker") -> bool:
        return self.desk.is_greedy(role)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return await self.desk.embed(texts)

    def note(
        self, kind: str, *, texts: Mapping[str, str | None] | None = None, **fields: Any
    ) -> None:
        self.desk.note(kind, texts=texts, **fields)

    async def attempt(
        self, problem: Problem, label: str, work: Callable[[Context], Awaitable[Tried]]
    ) -> Trial:
        """Do `work` on a search problem, and grade its program; see `FitContext.attempt`."""
        name = problem.problem_id
        if (name, label) in self._labels:
            raise ValueError(f"{name}: a second attempt with the label {label!r}")
        self._labels.add((name, label))
        key = digest(canonical([self._config_hash, name, label]))
        kept = self._kept.get(key[:32])
        if kept is not None:
            self.desk.journal.artifact(kept["code"])
            trial = Trial(**{n: v for n, v in kept.items() if n in Trial.__dataclass_fields__})
            self.found.totals.append(_totals(kept))
        else:
            task = asyncio.current_task()
            assert task is not None
            self._under_way.add(task)
            try:
                async with self._room.taken():
                    trial = await self._attempt(self.pool.items[name], key, label, work)
            finally:
                self._under_way.discard(task)
        self._count(trial)
        return trial

    async def finish(self, *, wait: bool = False) -> None:
        """End what is under way: cancelled, or waited for where it is paid for and ends by itself.

        Idempotent.
        """
        left = self._under_way - {asyncio.current_task()}
        if not wait:
            for task in left:
                task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self.desk.finish(wait=wait)

    def _count(self, trial: Trial) -> None:
        self.found.trials += 1
        self.found.passed += trial.passed
        self._listen(self.found)

    async def _attempt(
        self, item: Item, key: str, label: str, work: Callable[[Context], Awaitable[Tried]]
    ) -> Trial:
        problem, oracle = item.problem, self.pool.oracles[item.problem.problem_id]

        async def run_tests(code: str) -> Report:
            assert item.feedback is not None
            return await self._grader.run_tests(problem, oracle, item.feedback, code)

        # attempts at one problem draw apart from each other
        sample = int(key[-7:], 16)
        tests = described(item.feedback, problem.entry_point)
        ctx = self._context(problem, key[:32], sample, tests, run_tests)
        ctx.round = self.round
        self.found.totals.append(ctx.totals)
        try:
            try:
                tried = await work(ctx)
            except RequestRejected as error:  # too long, or against a policy: it did not answer
                tried = Tried("", {"error": str(error), "error_class": "rejected"})
        finally:
            await ctx.finish()
        report = await self._grader.run_tests(problem, oracle, oracle.tests, tried.code)
        passed = report.verdict is Verdict.PASSED
        trial = Trial(
            problem_id=problem.problem_id,
            code=tried.code,
            passed=passed,
            share=report.passed / len(report.outcomes) if report.outcomes else float(passed),
            detail="" if passed else f"{report.verdict}: {report.detail}"[:DETAIL_CHARS],
            facts=json.loads(json.dumps(dict(tried.facts))),
            calls=ctx.totals.calls,
            tokens=ctx.spent.tokens,
            usd=ctx.spent.usd,
            wall_s=round(ctx.stopwatch.seconds, 3),
        )
        kept = {k: v for k, v in asdict(trial).items() if k not in ("code", "problem_id")}
        self.desk.journal.write(
            "trial",
            result_key=key[:32],
            problem_id=problem.problem_id,
            sample=sample,
            label=label,
            round=ctx.round,
            code_sha=self.desk.journal.artifact(tried.code),
            prompt_tokens=ctx.totals.prompt_tokens,
            completion_tokens=ctx.totals.completion_tokens,
            cached_calls=ctx.totals.cached_calls,
            cost_usd=ctx.totals.cost_usd,
            **kept,
        )
        return trial

    def cost(self, wall_s: float) -> dict[str, Any]:
        """What the search took, as `Artifact.spent` has it."""
        totals = self.found.totals
        spent = self.spent
        return {
            "calls": spent.calls,
            "tokens": spent.tokens,
            "cost_usd": unknown_sum(one.cost_usd for one in totals),
            "fresh_cost_usd": spent.usd,
            "wall_s": round(wall_s, 3),
        }


async def _no_tests(code: str) -> Report:
    raise UsageError("no problem is being solved here: use ctx.attempt")


def _totals(record: Mapping[str, Any]) -> Totals:
    """What that trial used."""
    return Totals(
        calls=record["calls"],
        cached_calls=record["cached_calls"],
        prompt_tokens=record["prompt_tokens"],
        completion_tokens=record["completion_tokens"],
        cost_usd=record["cost_usd"],
        fresh_cost_usd=record["usd"],
    )


__all__ = ["DESK", "Artifact", "Found", "Pool", "Search", "read_artifact", "write_artifact"]
