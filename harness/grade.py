"""Solution + tests → verdict. Tests and solution run in two sandboxed processes that never meet.

The judge process (benchmark code only) calls the solution through us; what comes back is plain
data, compared among built-in types (`guest/wire.py`). A solution can lie about nothing but its
return values.

Time: the benchmark's official limit. It is spent by CPU time of the solution, or by wall time in
which the processes were not waiting for a core: a sleeper times out, a slow machine does not.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import SandboxError
from harness.guest import wire
from harness.sandbox import Guest, GuestGone, Limits, Sandbox
from harness.types import Oracle, Problem, Verdict

VERSION = "1"  # goes into every row; a change of verdicts is a new version
WALL_FACTOR = 20  # and however starved, a program ends after this many limits

_OUTCOMES = {
    "passed": Verdict.PASSED,
    "wrong": Verdict.WRONG,
    "exception": Verdict.EXCEPTION,
    "memory": Verdict.MEMORY,
    "tampered": Verdict.TAMPERED,
}


@dataclass(frozen=True)
class Report:
    """The grader's findings on one program. `outcomes` has one entry per test that was run."""

    verdict: Verdict
    detail: str
    outcomes: tuple[tuple[Verdict, str], ...]
    wall_s: float

    @property
    def passed(self) -> int:
        return sum(verdict is Verdict.PASSED for verdict, _ in self.outcomes)


class _TimedOut(Exception):
    pass


async def grade(sandbox: Sandbox, problem: Problem, oracle: Oracle, code: str) -> Report:
    """The verdict of the hidden tests on a method's final program.

    Raises SandboxError when our side broke: the sample is then `invalid`, not wrong.
    """
    return await run_tests(
        sandbox,
        problem,
        code,
        tests=oracle.tests,
        setup=oracle.setup,
        timeout_s=oracle.timeout_s,
        stop_early=True,
    )


async def run_tests(
    sandbox: Sandbox,
    problem: Problem,
    code: str,
    *,
    tests: Sequence[str],
    setup: str = "",
    timeout_s: float,
    stop_early: bool = False,
) -> Report:
    """Run test statements against a program, in order, within one time limit.

    Tests that a time-out or a crash left unrun count as failed. Raises SandboxError.
    """
    began = time.monotonic()
    outcomes: list[tuple[Verdict, str]] = []

    def report(verdict: Verdict, detail: str) -> Report:
        return Report(verdict, detail[:1000], tuple(outcomes), time.monotonic() - began)

    if not code.strip():
        return report(Verdict.NO_CODE, "no program in the answer")
    if problem.entry_point not in code:
        return report(Verdict.NO_CODE, f"{problem.entry_point} is not defined")

    limits = Limits(cpu_s=int(timeout_s) + 2)
    async with (
        sandbox.start("candidate", limits) as candidate,
        sandbox.start("judge", Limits(cpu_s=int(timeout_s) * 4 + 10)) as judge,
    ):
        clock = _Clock(timeout_s, candidate, judge)
        ended = await _load(problem, code, setup, tests, stop_early, candidate, judge, clock)
        if ended is None:
            ended = await _relay(candidate, judge, clock, outcomes)
    if ended is not None:
        outcomes.append(ended)
    if outcomes and not stop_early:
        outcomes.extend([(outcomes[-1][0], "not run")] * (len(tests) - len(outcomes)))
    failed = next((o for o in outcomes if o[0] is not Verdict.PASSED), None)
    if failed is not None:
        return report(*failed)
    if len(outcomes) < len(tests) or not outcomes:
        return report(Verdict.TAMPERED, f"{len(outcomes)} of {len(tests)} tests ran")
    return report(Verdict.PASSED, "")


class _Clock:
    """Wall time of two guests that take turns, less the time they waited for a core."""

    def __init__(self, limit_s: float, *guests: Guest) -> None:
        self.limit_s, self.guests = limit_s, guests
        self.start = time.monotonic()
        self.starved_before = sum(g.starved_s() for g in guests)
        self.cpu_before = guests[0].cpu_s()

    def left_s(self) -> float:
        """Seconds that are left of the limit; at most 0 when the program has used it up."""
        wall = time.monotonic() - self.start
        if wall > self.limit_s * WALL_FACTOR:
            return 0.0
        starved = sum(g.starved_s() for g in self.guests) - self.starved_before
        cpu = self.guests[0].cpu_s() - self.cpu_before
        return self.limit_s - max(cpu, wall - starved)

    async def receive(self, guest: Guest) -> tuple[bytes, bytes]:
        """The guest's next frame. Raises _TimedOut, GuestGone."""
        frame = asyncio.ensure_future(guest.receive())
        try:
            left = self.limit_s - (time.monotonic() - self.start)
            while True:
                done, _ = await asyncio.wait([frame], timeout=max(left, 0.02))
                if done:
                    return frame.result()
                left = self.left_s()
                if left <= 0:
                    raise _TimedOut
        finally:
            if not frame.done():
                frame.cancel()


async def _load(
    problem: Problem,
    code: str,
    setup: str,
    tests: Sequence[str],
    stop_early: bool,
    candidate: Guest,
    judge: Guest,
    clock: _Clock,
) -> tuple[Verdict, str] | None:
    """Give both sides their programs; a finding when the solution does not load."""
    work = {
        "prelude": problem.prelude,
        "setup": setup,
        "tests": list(tests),
        "stop_early": stop_early,
        "entry_point": problem.entry_point,
    }
    program = {"prelude": problem.prelude, "code": code, "entry_point": problem.entry_point}
    try:
        await judge.send(wire.LOAD, json.dumps(work).encode())
        kind, payload = await asyncio.wait_for(judge.receive(), 60)
    except (GuestGone, TimeoutError) as error:
        raise SandboxError(f"{problem.problem_id}: the judge did not load: {error}") from error
    if kind != wire.OK:
        raise SandboxError(f"{problem.problem_id}: its tests do not load: {payload.decode()}")
    try:
        await candidate.send(wire.LOAD, json.dumps(program).encode())
        kind, payload = await clock.receive(candidate)
    except _TimedOut:
        return Verdict.TIMEOUT, f"more than {clock.limit_s} s to load"
    except GuestGone as gone:
        return _gone(gone, clock)
    if kind == wire.OK:
        return None
    if kind == wire.MISSING:
        return Verdict.NO_CODE, f"{problem.entry_point} is not defined as a function"
    try:
        fact = json.loads(payload)
        line = f" (line {fact['line']})" if fact["line"] else ""
        detail = f"{fact['class']}: {fact['message']}{line}"
    except (ValueError, LookupError, TypeError, RecursionError):
        return Verdict.TAMPERED, f"a frame of kind {kind!r} that the sandbox does not send"
    if fact["class"] == "MemoryError":
        return Verdict.MEMORY, "out of memory at import"
    return Verdict.NOT_LOADABLE, detail


async def _relay(
    candidate: Guest, judge: Guest, clock: _Clock, outcomes: list[tuple[Verdict, str]]
) -> tuple[Verdict, str] | None:
    """Carry calls and returns until the judge is done; a finding when the solution broke off."""
    called = False
    while True:
        try:
            kind, payload = await clock.receive(judge)
        except _TimedOut:
            return Verdict.TIMEOUT, f"more than {clock.limit_s} s"
        except GuestGone as gone:
            if called:  # only the solution's data can have done that
                return Verdict.CRASHED, f"its result broke the judge: {gone.detail}"
            raise SandboxError(f"the judge ended: {gone.detail}") from gone
        if kind == wire.DONE:
            return None
        if kind == wire.TEST:
            fact = json.loads(payload)
            detail = fact["detail"]
            if fact["outcome"] == "exception" and detail.startswith("MemoryError"):
                fact["outcome"] = "memory"
            outcomes.append((_OUTCOMES[fact["outcome"]], detail))
            continue
        called = True
        try:
            await candidate.send(kind, payload)
            reply = await clock.receive(candidate)
        except _TimedOut:
            return Verdict.TIMEOUT, f"more than {clock.limit_s} s"
        except GuestGone as gone:
            return _gone(gone, clock)
        if reply[0] not in (wire.RETURNED, wire.RAISED):
            return Verdict.TAMPERED, f"a frame of kind {reply[0]!r} instead of a result"
        try:
            await judge.send(*reply)
        except GuestGone as gone:
            return Verdict.CRASHED, f"its result broke the judge: {gone.detail}"


def _gone(gone: GuestGone, clock: _Clock) -> tuple[Verdict, str]:
    if gone.reason == "memory":
        return Verdict.MEMORY, gone.detail
    if gone.reason == "cpu":
        return Verdict.TIMEOUT, f"more than {clock.limit_s} s of CPU"
    return Verdict.CRASHED, f"the program ended its own process: {gone.detail}"
