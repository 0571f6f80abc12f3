"""The grader: verdicts on honest, wrong and hostile programs, and agreement with recorded ones."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import multiprocessing
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from harness import benchmarks
from harness import grade as grading
from harness.benchmarks import Item
from harness.errors import SandboxError
from harness.grade import Grader, Report
from harness.sandbox import Sandbox
from harness.types import Assertions, Oracle, Problem, Verdict
from tests.hostile import (
    CANARY,
    FOUND,
    HONEST,
    HONEST_PRELUDE,
    HOSTILE,
    MARK,
    SECRET,
    SQUARE,
    SQUARE_TESTS,
    UNEQUAL,
    Case,
    oracle,
)

SOLVE = Problem("test/solve", "test", "", "solve", prelude=HONEST_PRELUDE, examples=())
RIGHT = "def square(x): return x * x"


@pytest.fixture(scope="module")
def items() -> dict[str, Item]:
    return benchmarks.apply(benchmarks.load("humaneval"), "public").items


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)


@pytest_asyncio.fixture
async def on_exit() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


async def every(
    grader: Grader, code: str, tests: tuple[str, ...], setup: str = "", timeout_s: float = 5.0
) -> Report:
    """The report on each of these tests of `SQUARE`."""
    asked = Assertions(tests, setup)
    return await grader.run_tests(SQUARE, Oracle(asked, "", timeout_s), asked, code)


async def in_pairs(grader: Grader, work: Iterable[tuple[Item, str]]) -> list[Report]:
    """Reports of the hidden tests, two programs at a time, in order."""
    two = asyncio.Semaphore(2)

    async def one(item: Item, code: str) -> Report:
        async with two:
            return await grader.grade(item.problem, item.oracle, code)

    return list(await asyncio.gather(*(one(item, code) for item, code in work)))


def marked_processes() -> list[psutil.Process]:
    """Live processes that a hostile program left behind."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if MARK in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_program_gets_its_verdict_and_nothing_else(
    grader: Grader, name: str
) -> None:
    attack = HOSTILE[name]
    report = await grader.grade(SQUARE, oracle(SQUARE_TESTS, attack.timeout_s), attack.code)
    assert report.verdict in attack.verdicts, report
    assert not report.verdict.solved
    told = report.detail + repr(report.outcomes)
    assert CANARY not in told
    assert SECRET not in told
    assert FOUND not in told
    assert marked_processes() == []


@pytest.mark.parametrize("name", HONEST)
async def test_an_odd_but_right_program_passes(grader: Grader, name: str) -> None:
    case = HONEST[name]
    report = await grader.grade(SOLVE, oracle(case.check), case.code)
    assert report.verdict is Verdict.PASSED, report


@pytest.mark.parametrize("name", UNEQUAL)
async def test_results_are_compared_as_the_official_tests_compare_them(
    grader: Grader, name: str
) -> None:
    case = UNEQUAL[name]
    report = await grader.grade(SOLVE, oracle(case.check), case.code)
    assert report.verdict is Verdict.WRONG, report
    assert not officially_passes(case)


def officially_passes(case: Case) -> bool:
    """Whether the assertion holds where program and test share a process, without a sandbox."""
    check = "\n".join(f"    {line}" for line in case.check.splitlines())
    program = f"{case.code}\n\ndef check(candidate):\n{check}\n\ncheck(solve)\n"
    return subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def test_the_honest_programs_pass_officially_too() -> None:
    whole = [Case(f"{HONEST_PRELUDE}\n{c.code}", c.check) for c in HONEST.values() if c.code]
    future = "from __future__"  # has to come first, so it cannot follow the prelude
    judged = {c.code: officially_passes(c) for c in whole if future not in c.code}
    skipped = {c.code for c in whole if "__main__" in c.code}  # a script here, a module there
    assert [code for code, passed in judged.items() if not passed and code not in skipped] == []


async def test_every_reference_passes_its_hidden_tests_and_its_examples(
    grader: Grader, items: dict[str, Item]
) -> None:
    both = []
    for item in items.values():
        tests = item.oracle.tests
        assert isinstance(tests, Assertions)
        more = Assertions((*tests.tests, *item.problem.examples), tests.setup)
        both.append(
            Item(item.problem, dataclasses.replace(item.oracle, tests=more, fresh=lambda: None))
        )
    reports = await in_pairs(grader, [(item, item.oracle.reference) for item in both])
    failed = [
        (item.problem.problem_id, report)
        for item, report in zip(both, reports, strict=True)
        if report.verdict is not Verdict.PASSED
    ]
    assert failed == []
    for item, report in zip(both, reports, strict=True):
        assert isinstance(item.oracle.tests, Assertions)
        assert report.passed == len(item.oracle.tests.tests)


@pytest.mark.parametrize("body", ["pass", "return None", "return args[0]"])
async def test_an_empty_body_and_an_echo_fail(
    grader: Grader, items: dict[str, Item], body: str
) -> None:
    some = list(items.values())[::16]
    work = [(i, f"def {i.problem.entry_point}(*args):\n    {body}\n") for i in some]
    for report in await in_pairs(grader, work):
        assert report.verdict in (Verdict.WRONG, Verdict.EXCEPTION), report


async def test_the_prompt_alone_is_no_answer_but_a_wrong_one(
    grader: Grader, items: dict[str, Item]
) -> None:
    item = items["HumanEval/0"]
    report = await grader.grade(item.problem, item.oracle, item.problem.prompt)
    assert report.verdict is Verdict.WRONG


async def test_tests_that_call_nothing_never_pass(grader: Grader) -> None:
    for tests in (("pass",), ("x = 1", "assert x == 1")):
        report = await every(grader, RIGHT, tests)
        assert report.verdict is Verdict.TAMPERED


async def test_no_tests_never_pass(grader: Grader) -> None:
    nothing = Assertions(())
    empty = Oracle(nothing, "", 5.0)
    for report in (
        await grader.grade(SQUARE, empty, RIGHT),
        await grader.run_tests(SQUARE, empty, nothing, RIGHT),
    ):
        assert report.verdict is Verdict.TAMPERED
        assert report.outcomes == ()


async def test_tests_that_do_not_load_are_our_fault_and_no_verdict(grader: Grader) -> None:
    with pytest.raises(SandboxError, match="its tests do not load: NameError"):
        await every(grader, RIGHT, ("check(candidate)",), setup="absent")


async def test_each_test_has_an_outcome_of_its_own(grader: Grader) -> None:
    tests = (
        "assert square(2) == 4",
        "assert square(3) == 8",
        "assert square('a') == 1",
        "assert square(1) == 1",
    )
    report = await every(grader, RIGHT, tests)
    kinds = [verdict for verdict, _ in report.outcomes]
    assert kinds == [Verdict.PASSED, Verdict.WRONG, Verdict.EXCEPTION, Verdict.PASSED]
    assert (report.verdict, report.passed) == (Verdict.WRONG, 2)
    assert report.detail == "got 9"
    assert report.outcomes[2][1].startswith("TypeError: ")


async def test_tests_after_a_time_out_count_as_failed(grader: Grader) -> None:
    code = "def square(x):\n    while x == 3: pass\n    return x * x"
    tests = ("assert square(2) == 4", "assert square(3) == 9", "assert square(4) == 16")
    report = await every(grader, code, tests, timeout_s=0.5)
    kinds = [verdict for verdict, _ in report.outcomes]
    assert kinds == [Verdict.PASSED, Verdict.TIMEOUT, Verdict.TIMEOUT]
    assert (report.verdict, report.passed) == (Verdict.TIMEOUT, 1)


async def test_an_error_says_the_line_of_the_program(grader: Grader) -> None:
    report = await grader.grade(SQUARE, oracle(SQUARE_TESTS), "x = 1\nx / 0\ndef square(x): ...")
    assert report.verdict is Verdict.NOT_LOADABLE
    assert report.detail == "ZeroDivisionError: division by zero (line 2)"


async def test_a_set_has_the_same_order_every_time(grader: Grader) -> None:
    code = "def square(x): return list(set('abcdefgh'))"
    test = oracle("assert candidate(0) == 0")
    details = {(await grader.grade(SQUARE, test, code)).detail for _ in range(3)}
    assert len(details) == 1


def _burn() -> None:
    while True:
        pass


@contextlib.contextmanager
def every_core_busy(times: int = 1) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    count = times * (os.cpu_count() or 1)
    burners = [context.Process(target=_burn, daemon=True) for _ in range(count)]
    for burner in burners:
        burner.start()
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.join()


async def test_verdicts_are_the_same_with_every_core_busy(grader: Grader) -> None:
    # half of its limit in CPU time: on a busy core its wall time is beyond the limit
    works = "import time\ndef square(x):\n    end = time.process_time() + 0.5\n"
    works += "    while time.process_time() < end: pass\n    return x * x"
    programs = {
        RIGHT: Verdict.PASSED,
        works: Verdict.PASSED,
        HOSTILE["echo"].code: Verdict.WRONG,
        HOSTILE["loop when called"].code: Verdict.TIMEOUT,
        HOSTILE["sleeps when called"].code: Verdict.TIMEOUT,
    }
    with every_core_busy():
        for code, verdict in programs.items():
            test = oracle("assert candidate(3) == 9", timeout_s=1.0)
            report = await grader.grade(SQUARE, test, code)
            assert report.verdict is verdict, (code, report)


class Watched(Grader):
    """Notes how many programs are graded at once, with each one that starts."""

    alive = 0

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.company: list[int] = []

    async def work(self, *what: Any) -> dict[str, Any]:
        self.alive += 1
        self.company.append(self.alive)
        try:
            return await super().work(*what)
        finally:
            self.alive -= 1


SLEEPS = HOSTILE["sleeps when called"].code
NINE = "assert candidate(3) == 9"


async def test_no_more_programs_run_at_once_than_there_are_lanes(sandbox: Sandbox) -> None:
    most = max(2, os.cpu_count() or 1)
    async with Watched(sandbox) as grader:
        work = [grader.grade(SQUARE, oracle(NINE), RIGHT) for _ in range(4 * most)]
        reports = await asyncio.gather(*work)
    assert {report.verdict for report in reports} == {Verdict.PASSED}
    assert len(grader.company) == 4 * most
    assert max(grader.company) <= most


async def test_a_workflow_that_waits_for_its_tests_keeps_no_test_waiting(grader: Grader) -> None:
    async def workflow() -> Report:
        async with grader.sandbox.start("workflow"):
            return await grader.grade(SQUARE, oracle(NINE), RIGHT)

    many = 2 * max(2, os.cpu_count() or 1) + 1
    reports = await asyncio.wait_for(asyncio.gather(*(workflow() for _ in range(many))), 120)
    assert {report.verdict for report in reports} == {Verdict.PASSED}


async def test_a_time_out_beside_others_is_run_again_alone(sandbox: Sandbox) -> None:
    test = oracle(NINE, timeout_s=0.5)
    works = "import time\ndef square(x):\n    time.sleep(0.2)\n    return x * x"
    async with Watched(sandbox) as grader:
        programs = (SLEEPS, works, f"{SLEEPS}#", f"{works}#")
        reports = await asyncio.gather(*(grader.grade(SQUARE, test, code) for code in programs))
    found = [(report.verdict, report.rerun) for report in reports]
    assert found == [(Verdict.TIMEOUT, True), (Verdict.PASSED, False)] * 2
    assert len(grader.company) == 4 + 2
    assert grader.company[-2:] == [1, 1]


@pytest.mark.parametrize("starved", [False, True])
async def test_a_time_out_alone_counts_at_once_unless_it_waited_for_a_core(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, starved: bool
) -> None:
    # whatever this machine does meanwhile, none or all of the time is beyond the share
    monkeypatch.setattr(grading, "STARVED_SHARE", -1.0 if starved else 2.0)
    async with Watched(sandbox) as grader:
        report = await grader.grade(SQUARE, oracle(NINE, timeout_s=0.5), SLEEPS)
    assert (report.verdict, report.rerun) == (Verdict.TIMEOUT, starved)
    assert grader.company == [1] * (1 + starved)


async def test_the_run_alone_decides(tmp_path: Path) -> None:
    # a machine that is slow as long as the file is there: both first runs time out
    slow = tmp_path / "slow"
    slow.touch()
    code = f"import os, time\ndef square(x):\n    time.sleep(9 * os.path.exists({str(slow)!r}))\n"
    test = oracle(NINE, timeout_s=0.5)

    class Recovers(Watched):
        async def work(self, *what: Any) -> dict[str, Any]:
            if len(self.company) == 2:
                slow.unlink()
            return await super().work(*what)

    async with Recovers(Sandbox("rlimits")) as grader:
        work = [grader.grade(SQUARE, test, f"{code}    return x * {n}") for n in (3, 4)]
        reports = await asyncio.gather(*work)
    assert [(r.verdict, r.rerun) for r in reports] == [
        (Verdict.PASSED, True),
        (Verdict.WRONG, True),
    ]


async def test_a_program_that_gets_no_core_is_our_fault_and_no_time_out(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grading, "BUSY_FACTOR", 1)
    async with Grader(sandbox) as grader:
        await grader.grade(SQUARE, oracle(NINE), RIGHT)  # the lane is warm
        test = oracle(NINE, timeout_s=1.0)
        with every_core_busy(4), pytest.raises(SandboxError, match="busy to grade: the program"):
            await grader.grade(SQUARE, test, HOSTILE["loop when called"].code)


@pytest.mark.parametrize("tier", ["unshare", "landlock", "rlimits"])
async def test_the_weaker_tiers_grade_alike(
    items: dict[str, Item], on_exit: contextlib.AsyncExitStack, tier: str
) -> None:
    sandbox = Sandbox(tier)
    try:
        await sandbox.probe()
    except SandboxError as error:
        pytest.skip(str(error))
    weaker = await on_exit.enter_async_context(Grader(sandbox))
    some = [items[f"HumanEval/{n}"] for n in (0, 32, 38, 53, 100)]
    for report in await in_pairs(weaker, [(item, item.oracle.reference) for item in some]):
        assert report.verdict is Verdict.PASSED, report
    for name in ("echo", "_exit when called", "loop when called", "sys.exit at import"):
        attack = HOSTILE[name]
        report = await weaker.grade(SQUARE, oracle(SQUARE_TESTS, attack.timeout_s), attack.code)
        assert report.verdict in attack.verdicts, report
