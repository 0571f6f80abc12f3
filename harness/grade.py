"""Solution + tests → verdict. Tests and solution run in two sandboxed processes that never meet.

The judge process (benchmark code only) calls the solution through us; what comes back is plain
data, compared among built-in types (`guest/wire.py`). A solution can lie about nothing but its
return values.

Time: the benchmark's official limit. It is spent by CPU time of the solution, or by wall time in
which the processes were not waiting for a core: a sleeper times out, a slow machine does not. A
time-out on a busy machine is run again, alone, before it counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from harness.errors import SandboxError
from harness.guest import wire
from harness.sandbox import Guest, GuestGone, Limits, Sandbox
from harness.types import Oracle, Problem, Verdict

VERSION = "1"  # goes into every row; a change of verdicts is a new version
WALL_FACTOR = 20  # a program that had no core for so many limits cannot be graded here
STARVED_SHARE = 0.1  # of a program's wall time, beyond which its time-out is run again

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
    rerun: bool = False  # it timed out on a busy machine; these are the findings of its run alone

    @property
    def passed(self) -> int:
        return sum(verdict is Verdict.PASSED for verdict, _ in self.outcomes)


class _TimedOut(Exception):
    pass


@dataclass(eq=False)
class _Turn:
    """One program's time in the sandbox."""

    beside: bool = False  # another was graded for a part of it


class _Floor:
    """Admits programs to be graded: `slots` at once, or one alone; in the order of asking.

    Workflows take no slot: they hold their guest while their operators wait for one. How many of
    them live is bounded by the samples in flight.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots  # each is a pair of guests
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


_FLOORS: WeakKeyDictionary[asyncio.AbstractEventLoop, _Floor] = WeakKeyDictionary()


def _floor() -> _Floor:
    """This event loop's floor: two guests for each core, four at least."""
    return _FLOORS.setdefault(asyncio.get_running_loop(), _Floor(max(2, os.cpu_count() or 1)))


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
    if not code.strip():
        return Report(Verdict.NO_CODE, "no program in the answer", (), 0.0)
    if problem.entry_point not in code:
        return Report(Verdict.NO_CODE, f"{problem.entry_point} is not defined", (), 0.0)
    program = sandbox, problem, code, tests, setup, timeout_s, stop_early
    floor = _floor()
    async with floor.shared() as turn:
        report, starved = await _run(*program)
    timed_out = any(verdict is Verdict.TIMEOUT for verdict, _ in report.outcomes)
    if timed_out and (turn.beside or starved > STARVED_SHARE):
        async with floor.alone():
            report, _ = await _run(*program)
        return replace(report, rerun=True)
    return report


async def _run(
    sandbox: Sandbox,
    problem: Problem,
    code: str,
    tests: Sequence[str],
    setup: str,
    timeout_s: float,
    stop_early: bool,
) -> tuple[Report, float]:
    """The findings, and for which share of the time the guests waited for a core."""
    began = time.monotonic()
    outcomes: list[tuple[Verdict, str]] = []
    limits = Limits(cpu_s=int(timeout_s) + 2)
    async with (
        sandbox.start("candidate", limits) as candidate,
        sandbox.start("judge", Limits(cpu_s=int(timeout_s) * 4 + 10)) as judge,
    ):
        clock = _Clock(timeout_s, candidate, judge)
        ended = await _load(problem, code, setup, tests, stop_early, candidate, judge, clock)
        if ended is None:
            ended = await _relay(candidate, judge, clock, outcomes)
        starved = clock.starved_share()

    def report(verdict: Verdict, detail: str) -> tuple[Report, float]:
        wall_s = time.monotonic() - began
        return Report(verdict, detail[:1000], tuple(outcomes), wall_s), starved

    if ended is not None:
        outcomes.append(ended)
        if not stop_early:  # what broke off failed the tests that it left unrun, too
            outcomes.extend([(ended[0], "not run")] * (len(tests) - len(outcomes)))
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
        self.starved_most = 0.0
        self.cpu_before = guests[0].cpu_s()

    def starved_s(self) -> float:
        """Seconds that the guests waited for a core; an ended process takes none of them along."""
        starved = sum(g.starved_s() for g in self.guests) - self.starved_before
        self.starved_most = max(self.starved_most, starved)
        return self.starved_most

    def starved_share(self) -> float:
        return self.starved_s() / max(time.monotonic() - self.start, 1e-9)

    def left_s(self) -> float:
        """Seconds that are left of the limit; at most 0 when the program has used it up.

        Raises SandboxError when this machine has no time for the program.
        """
        wall = time.monotonic() - self.start
        cpu = self.guests[0].cpu_s() - self.cpu_before
        left = self.limit_s - max(cpu, wall - self.starved_s())
        if left > 0 and wall > self.limit_s * WALL_FACTOR:
            raise SandboxError(
                f"this machine is too busy to grade: the program got {cpu:.1f} s of a core in "
                f"{wall:.0f} s; run fewer programs beside it"
            )
        return left

    async def receive(self, guest: Guest) -> tuple[bytes, bytes]:
        """The guest's next frame. Raises _TimedOut, GuestGone, SandboxError."""
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
