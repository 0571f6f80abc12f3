"""Solution + tests → verdict. Tests and solution run in two sandboxed processes that never meet.

A judge process (benchmark code only) calls the solution in a child of a warm parent; what comes
back is plain data, compared among built-in types (`guest/wire.py`). Only BigCodeBench's unittest
modules run beside the solution, guarded (`guest/unittests.py`).

Time: the benchmark's official limit. It is spent by CPU time of the solution, or by wall time in
which the processes were not waiting for a core: a sleeper times out, a slow machine does not. A
time-out on a busy machine is run again, alone, before it counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import marshal
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType, TracebackType
from typing import Any

from harness.errors import SandboxError
from harness.guest import wire
from harness.sandbox import (
    GUEST_DIR,
    GuestGone,
    Interpreter,
    Lane,
    Limits,
    Sandbox,
    own_interpreter,
)
from harness.types import Assertions, Cases, Oracle, Problem, Tests, UnitTests, Verdict
from harness.verdicts import VerdictCache

VERSION = "2"  # goes into every row and every kept verdict; a change of verdicts is a new version
BUSY_FACTOR = 20  # a program that had no core for so many limits cannot be graded here
STARVED_SHARE = 0.1  # of a program's wall time, beyond which its time-out is run again
REFERENCE_FACTOR = 4.0  # EvalPlus: an input may take four times the reference's time
MAKING_S = 3600.0  # for a reference's outputs
KILLED = "exit status -9"  # at the end of the detail of a program that SIGKILL ended
ENVIRONMENT = "bigcodebench"  # of the benchmarks whose names begin so

LIGHT, HEAVY = "assertions and cases", "unittests"  # lanes with our own interpreter
LEAN = Limits(memory_mb=4096)  # EvalPlus's limit on memory
WIDE = Limits(memory_mb=30 * 1024, file_mb=1024, processes=256, files=1024, stack_mb=10)


@dataclass(frozen=True)
class Report:
    """The grader's findings on one program. `outcomes` has one entry per test that was run."""

    verdict: Verdict
    detail: str
    outcomes: tuple[tuple[Verdict, str], ...]
    wall_s: float
    rerun: bool = False  # it timed out on a busy machine; these are the findings of its run alone
    cached: bool = False  # found before, for the same program and tests
    parts: Mapping[str, Verdict] = field(default_factory=lambda: MappingProxyType({}))
    fresh: Verdict | None = None  # on the tests that no feedback test repeats; None: none is left

    @property
    def passed(self) -> int:
        return sum(verdict is Verdict.PASSED for verdict, _ in self.outcomes)


@dataclass(eq=False)
class _Turn:
    """One program's time in the sandbox."""

    beside: bool = False  # another was graded for a part of it


class _Floor:
    """Admits programs to be graded: `slots` at once, or one alone; in the order of asking."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._free = asyncio.Semaphore(slots)
        self._door = asyncio.Lock()
        self._turns: set[_Turn] = set()

    @contextlib.asynccontextmanager
    async def shared(self) -> AsyncIterator[_Turn]:
        """Wait for a slot; the turn that comes back learns who else is there."""
        async with contextlib.AsyncExitStack() as stack:
            async with self._door:
                await stack.enter_async_context(self._free)
            turn = _Turn(beside=bool(self._turns))
            for other in self._turns:
                other.beside = True
            self._turns.add(turn)
            stack.callback(self._turns.discard, turn)
            yield turn

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait until nobody is there and keep all out. Asked with a slot in hand, it never ends."""
        async with self._door, contextlib.AsyncExitStack() as stack:
            for _ in range(self.slots):
                await stack.enter_async_context(self._free)
            yield


class _Lanes:
    """Warm lanes of one interpreter, started when they are first wanted."""

    def __init__(
        self, sandbox: Sandbox, kinds: Sequence[str], interpreter: Interpreter | None = None
    ) -> None:
        self.sandbox, self.kinds, self.interpreter = sandbox, kinds, interpreter
        self._idle: list[tuple[Lane, contextlib.AsyncExitStack]] = []

    @contextlib.asynccontextmanager
    async def lane(self) -> AsyncIterator[Lane]:
        """A lane; left by an exception, it is not used again."""
        lane, stack = self._idle.pop() if self._idle else await self._start()
        try:
            yield lane
        except BaseException:
            await stack.aclose()
            raise
        self._idle.append((lane, stack))

    async def _start(self) -> tuple[Lane, contextlib.AsyncExitStack]:
        limits = WIDE if self.interpreter else LEAN
        stack = contextlib.AsyncExitStack()
        lane = await stack.enter_async_context(
            self.sandbox.lane(self.kinds, limits, self.interpreter)
        )
        return lane, stack

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop()[1].aclose()


class _Discard(Exception):
    """The lane that gave this report must not be used again."""

    def __init__(self, report: dict[str, Any]) -> None:
        super().__init__()
        self.report = report


class Grader:
    """Grades programs in warm lanes, `lanes` at once (a core each by default).

    `interpreters` has the Python of each environment that a benchmark needs beside our own.
    Programs that were graded before are looked up in `verdicts`; with `regrade` they are graded
    again, and what the references return is still taken from there. Use it as a context manager.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        lanes: int | None = None,
        verdicts: VerdictCache | None = None,
        regrade: bool = False,
        interpreters: Mapping[str, Interpreter] | None = None,
    ) -> None:
        # what was found without isolation holds for nobody else
        self.verdicts = verdicts if sandbox.isolates else None
        self.sandbox, self.regrade = sandbox, regrade
        self.interpreters = dict(interpreters or {})
        self._floor = _Floor(lanes or max(2, os.cpu_count() or 1))
        # unittest takes long to import, so what does without has lanes of its own
        self._lanes = {
            LIGHT: _Lanes(sandbox, ["assertions", "cases"]),
            HEAVY: _Lanes(sandbox, ["unittests"]),
        }
        for name, interpreter in self.interpreters.items():
            self._lanes[name] = _Lanes(sandbox, ["unittests"], interpreter)
        self._expected: dict[str, asyncio.Task[dict[str, Any]]] = {}

    async def __aenter__(self) -> Grader:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all lanes."""
        for task in self._expected.values():
            task.cancel()
        await asyncio.gather(*self._expected.values(), return_exceptions=True)
        for lanes in self._lanes.values():
            await lanes.close()

    async def grade(self, problem: Problem, oracle: Oracle, code: str) -> Report:
        """The verdict of the hidden tests on a method's final program, and of the fresh ones.

        Raises SandboxError when our side broke: the sample is then `invalid`, not wrong.
        """
        report = await self._run(problem, oracle, oracle.tests, code, stop_early=True)
        rest = oracle.fresh()
        if rest is None:
            return report
        if rest is oracle.tests or report.verdict is Verdict.PASSED:
            return replace(report, fresh=report.verdict)
        fresh = await self._run(problem, oracle, rest, code, stop_early=True)
        return replace(report, fresh=fresh.verdict)

    async def run_tests(self, problem: Problem, oracle: Oracle, tests: Tests, code: str) -> Report:
        """Run other tests of a problem, all of them, within the oracle's limits.

        Tests that a time-out or a crash left unrun count as failed. Raises SandboxError.
        """
        return await self._run(problem, oracle, tests, code, stop_early=False)

    async def _run(
        self, problem: Problem, oracle: Oracle, tests: Tests, code: str, *, stop_early: bool
    ) -> Report:
        if not code.strip():
            return Report(Verdict.NO_CODE, "no program in the answer", (), 0.0)
        environment = HEAVY if isinstance(tests, UnitTests) else LIGHT
        if problem.benchmark.startswith(ENVIRONMENT):
            environment = ENVIRONMENT
        if environment not in self._lanes:
            raise SandboxError(
                f"{problem.problem_id} needs the environment of {environment}: "
                f"python -m harness env {environment}"
            )
        key = self._key(environment, problem, oracle, tests, code, stop_early)
        if (found := self._kept(key)) is not None:
            return found
        job = _Job(self, problem, oracle, tests, code, stop_early, environment)
        async with self._floor.shared() as turn:
            report, starved = await job.run()
        timed_out = any(v is Verdict.TIMEOUT for v, _ in report.outcomes) or (
            Verdict.TIMEOUT in (report.verdict, *report.parts.values())
        )
        # the signal may be the program's own, or the system's that ran out of memory
        killed = report.verdict is Verdict.CRASHED and report.detail.endswith(KILLED)
        if killed or (timed_out and (turn.beside or starved > STARVED_SHARE)):
            async with self._floor.alone():
                report, _ = await job.run()
            report = replace(report, rerun=True)
        if report.verdict is not Verdict.CRASHED:  # that may have been our side
            self._keep(key, report)
        return report

    def _key(
        self,
        environment: str,
        problem: Problem,
        oracle: Oracle,
        tests: Tests,
        code: str,
        stop_early: bool,
    ) -> str:
        """The digest of all that decides a verdict, the sandbox among it."""
        interpreter = self.interpreters.get(environment) or own_interpreter()
        if isinstance(tests, Cases):
            asked: Any = [tests.digest, tests.atol, tests.rule, tests.case_s, tests.only]
            asked.append(oracle.reference)
        elif isinstance(tests, Assertions):
            asked = [tests.setup, tests.tests]
        else:
            asked = [tests.source, tests.methods]
        program = [problem.prelude, code, problem.entry_point]
        parts = [type(tests).__name__, program, asked, oracle.timeout_s, stop_early]
        return _digest([VERSION, _guests(), self.sandbox.tier, interpreter.digest, *parts])

    def _kept(self, key: str) -> Report | None:
        data = self.verdicts.get(key) if self.verdicts and not self.regrade else None
        if data is None:
            return None
        row = json.loads(data)
        return Report(
            verdict=Verdict(row["verdict"]),
            detail=row["detail"],
            outcomes=tuple((Verdict(v), detail) for v, detail in row["outcomes"]),
            wall_s=row["wall_s"],
            rerun=row["rerun"],
            cached=True,
            parts={name: Verdict(v) for name, v in row["parts"].items()},
        )

    def _keep(self, key: str, report: Report) -> None:
        if self.verdicts is None:
            return
        names = ("verdict", "detail", "outcomes", "wall_s", "rerun", "parts")
        row = {name: getattr(report, name) for name in names}
        self.verdicts.put(key, json.dumps({**row, "parts": dict(report.parts)}).encode())

    async def work(self, environment: str, work: dict[str, Any], named: str) -> dict[str, Any]:
        """A judge's report on one job, in a lane that was not harmed before. Raises SandboxError.

        A program that takes its lane or its judge down does so twice before it counts.
        """
        for last in (False, True):
            try:
                async with self._lanes[environment].lane() as lane:
                    report = await _judged(lane, work)
                    if "lane" in report or _ended(report) == "lost":
                        raise _Discard(report)
            except _Discard as discarded:
                report = discarded.report
            if "broken" in report:
                raise SandboxError(f"{named}: its tests do not load: {report['broken']}")
            if _ended(report) == "busy":
                raise SandboxError(
                    f"this machine is too busy to grade: {report['ended'][1]}; "
                    "run fewer programs beside it"
                )
            if _ended(report) != "lost" or last:
                break
        if _ended(report) == "lost":
            report["ended"] = ["crashed", report["ended"][1]]
        return report

    async def expected(
        self, problem: Problem, oracle: Oracle, cases: Cases, keep: Sequence[int] = ()
    ) -> dict[str, Any]:
        """What the reference returns on all inputs: computed once, then kept.

        `keep`: positions whose output is wanted whole, however large. Raises SandboxError.
        """
        key = _expected_key(oracle, cases, keep)
        if key not in self._expected:
            made = self._make_expected(key, problem, oracle, cases, keep)
            self._expected[key] = asyncio.create_task(made)
        try:
            return await asyncio.shield(self._expected[key])
        finally:
            if self._expected.get(key) is not None and self._expected[key].done():
                del self._expected[key]  # one problem's outputs can be large

    async def _make_expected(
        self, key: str, problem: Problem, oracle: Oracle, cases: Cases, keep: Sequence[int]
    ) -> dict[str, Any]:
        data = self.verdicts.get(key) if self.verdicts else None
        if data is not None:
            kept: dict[str, Any] = marshal.loads(data)
            return kept
        base, plus = cases.inputs()
        parts = {}
        for name, inputs in (("base", base), ("plus", plus)):
            work = {
                "kind": "cases",
                "prelude": "",
                "code": oracle.reference,
                "entry_point": problem.entry_point,
                "inputs": marshal.dumps(inputs, 2),
                "count": len(inputs),
                "alone": [],
                "case_s": MAKING_S,
                "limit_s": MAKING_S,
                "busy_factor": BUSY_FACTOR,
                "rule": cases.rule,
                "expected": None,
                "keep": [k - (len(base) if name == "plus" else 0) for k in keep],
                "stop_early": True,
            }
            report = await self.work(LIGHT, work, problem.problem_id)
            if "made" not in report:
                said = report.get("ended") or report.get("lane")
                raise SandboxError(f"{problem.problem_id}: its reference does not run: {said}")
            parts[name] = {**report["made"], "inputs": work["inputs"], "count": len(inputs)}
        if self.verdicts is not None:
            self.verdicts.put(key, marshal.dumps(parts, 2))
            seconds = sum(sum(part["times"]) for part in parts.values())
            self.verdicts.put(f"{key}/s", repr(seconds).encode())
        return parts

    def reference_s(self, oracle: Oracle) -> float | None:
        """CPU seconds that the reference takes on all inputs; None when that is not known yet."""
        if not isinstance(oracle.tests, Cases) or self.verdicts is None:
            return None
        known = self.verdicts.get(f"{_expected_key(oracle, oracle.tests)}/s")
        return None if known is None else float(known)


def _expected_key(oracle: Oracle, cases: Cases, keep: Sequence[int] = ()) -> str:
    parts = ["expected", VERSION, _guests(), cases.digest, oracle.reference]
    return _digest([*parts, own_interpreter().digest, *sorted(keep)])


def _digest(parts: Sequence[Any]) -> str:
    text = json.dumps(parts, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@functools.cache
def _guests() -> str:
    """The digest of what runs in the sandbox: another judge may find otherwise."""
    sources = sorted(GUEST_DIR.glob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()


async def _judged(lane: Lane, work: dict[str, Any]) -> dict[str, Any]:
    """Give a lane's judge one job and wait for its report. Raises _Discard, SandboxError."""
    most_s = work["limit_s"] * 4 + 10  # between two looks at a judge that does not answer
    looks = 0
    cpu_before = 0.0
    try:
        await lane.judge.send(wire.LOAD, marshal.dumps(work, 2))
        receiving = asyncio.ensure_future(lane.judge.receive())
        try:
            while not (await asyncio.wait([receiving], timeout=most_s))[0]:
                looks += 1
                cpu_before = cpu_before or lane.judge.cpu_s()
                if lane.judge.cpu_s() - cpu_before > most_s / 2:
                    raise GuestGone("cpu", "comparing its results took too long")
                if looks > 2 * BUSY_FACTOR:
                    raise SandboxError("this machine is too busy to grade: no word from the judge")
            kind, payload = receiving.result()
        finally:
            receiving.cancel()
    except GuestGone as gone:  # the solution's data can have done that, or somebody outside
        ended = ["lost", f"its result broke the judge: {gone.detail}"]
        if gone.reason == "cpu":
            ended = ["timeout", "comparing its results took too long"]
        raise _Discard({"outcomes": [], "ended": ended}) from gone
    report: dict[str, Any] = (marshal.loads if kind == wire.MADE else json.loads)(payload)
    return report


@dataclass
class _Job:
    """One program and its tests, ready to be run (again)."""

    grader: Grader
    problem: Problem
    oracle: Oracle
    tests: Tests
    code: str
    stop_early: bool
    environment: str

    async def run(self) -> tuple[Report, float]:
        """The findings, and for which share of the time the program waited for a core."""
        began = time.monotonic()
        if isinstance(self.tests, Cases):
            return await self._cases(self.tests, began)
        if isinstance(self.tests, Assertions):
            asked: dict[str, Any] = {
                "setup": self.tests.setup,
                "tests": list(self.tests.tests),
            }
            count = len(self.tests.tests)
        else:
            asked = {"tests": self.tests.source, "methods": list(self.tests.methods)}
            count = len(self.tests.methods)
        kind = "unittests" if isinstance(self.tests, UnitTests) else "assertions"
        report = await self._work(kind, self.oracle.timeout_s, asked)
        outcomes = _outcomes(report)
        ended = report.get("ended")
        if ended is not None:
            outcomes.append((Verdict(ended[0]), ended[1]))
            if not self.stop_early:  # what broke off failed the tests that it left unrun, too
                outcomes.extend([(outcomes[-1][0], "not run")] * (count - len(outcomes)))
        failed = next((o for o in outcomes if o[0] is not Verdict.PASSED), None)
        if failed is None and (len(outcomes) < count or not outcomes):
            failed = Verdict.TAMPERED, f"{len(outcomes)} of {count} tests ran"
        verdict, detail = failed or (Verdict.PASSED, "")
        wall_s = time.monotonic() - began
        return Report(verdict, detail[:1000], tuple(outcomes), wall_s), _starved([report])

    async def _cases(self, tests: Cases, began: float) -> tuple[Report, float]:
        keep: list[int] = []
        while True:
            expected = await self.grader.expected(self.problem, self.oracle, tests, keep)
            reports: dict[str, dict[str, Any]] = {}
            start = 0
            needs = None
            for name, part in expected.items():
                chosen = _chosen(part, start, tests.only)
                if chosen["count"]:
                    reports[name] = await self._part(tests, chosen)
                    if "needs" in reports[name]:
                        needs = start + chosen["places"][reports[name]["needs"]]
                        break
                start += part["count"]
            if needs is None:
                break
            if needs in keep:
                raise SandboxError(f"{self.problem.problem_id}: no output for input {needs}")
            keep.append(needs)
        outcomes = [outcome for report in reports.values() for outcome in _outcomes(report)]
        parts, detail = {}, ""
        for name, report in reports.items():
            ended = report.get("ended", ["passed", ""])
            parts[name] = Verdict(ended[0])
            if not self.stop_early and parts[name] is Verdict.PASSED:
                failed = next((o for o in _outcomes(report) if o[0] is not Verdict.PASSED), None)
                parts[name], ended = failed[0] if failed else parts[name], failed or ended
            if parts[name] is not Verdict.PASSED and not detail:
                detail = f"{name}: {ended[1]}"
        verdict = next((v for v in parts.values() if v is not Verdict.PASSED), Verdict.PASSED)
        if not parts:
            verdict, detail = Verdict.TAMPERED, "no input was left to run"
        wall_s = time.monotonic() - began
        findings = Report(verdict, detail[:1000], tuple(outcomes), wall_s, parts=parts)
        return findings, _starved(list(reports.values()))

    async def _part(self, tests: Cases, part: dict[str, Any]) -> dict[str, Any]:
        times = part.pop("times")
        limits = [max(tests.case_s, REFERENCE_FACTOR * t) for t in times]
        alone = [(i, limit) for i, limit in enumerate(limits) if limit > tests.case_s]
        work = {
            "inputs": part["inputs"],
            "count": part["count"],
            "alone": alone,
            "case_s": tests.case_s,
            "rule": tests.rule,
            "atol": tests.atol,
            "expected": {name: part[name] for name in ("records", "lengths", "values")},
        }
        return await self._work("cases", min(self.oracle.timeout_s, sum(limits)) + 1, work)

    async def _work(self, kind: str, limit_s: float, asked: dict[str, Any]) -> dict[str, Any]:
        work = {
            "kind": kind,
            "prelude": self.problem.prelude,
            "code": self.code,
            "entry_point": self.problem.entry_point,
            "limit_s": limit_s,
            "busy_factor": BUSY_FACTOR,
            "stop_early": self.stop_early,
            **asked,
        }
        return await self.grader.work(self.environment, work, self.problem.problem_id)


def _chosen(part: dict[str, Any], start: int, only: Sequence[int] | None) -> dict[str, Any]:
    """A part's inputs and expected outputs, those that `only` (positions in all parts) wants."""
    if only is None:
        return {**part, "places": range(part["count"])}
    places = [k - start for k in only if start <= k < start + part["count"]]
    inputs = marshal.loads(part["inputs"])
    offset, records = 0, []
    for length in part["lengths"]:
        records.append(part["records"][offset : offset + length])
        offset += length
    return {
        "places": places,
        "inputs": marshal.dumps([inputs[k] for k in places], 2),
        "count": len(places),
        "records": b"".join(records[k] for k in places),
        "lengths": [part["lengths"][k] for k in places],
        "values": {i: part["values"][k] for i, k in enumerate(places) if k in part["values"]},
        "times": [part["times"][k] for k in places],
    }


def _ended(report: Mapping[str, Any]) -> str | None:
    """How the program broke off, in the judge's words; None when all of its tests were run."""
    ended = report.get("ended")
    return None if ended is None else str(ended[0])


def _outcomes(report: Mapping[str, Any]) -> list[tuple[Verdict, str]]:
    return [(Verdict(verdict), str(detail)) for verdict, detail in report["outcomes"]]


def _starved(reports: Sequence[Mapping[str, Any]]) -> float:
    """The share of the programs' wall time in which they waited for a core."""
    usage = [report["usage"] for report in reports if "usage" in report]
    wall = sum(u["wall_s"] for u in usage)
    return sum(u["starved_s"] for u in usage) / wall if wall else 0.0
