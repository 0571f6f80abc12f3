"""Many programs in a row leave nothing behind; any load gives the same verdicts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import benchmarks
from harness.benchmarks import DataSources, Item
from harness.grade import Grader
from harness.sandbox import Sandbox
from harness.types import Verdict
from tests.hostile import HOSTILE, SQUARE, oracle
from tests.test_grade import every_core_busy

RIGHT = "def square(x): return x * x"
LITTER = """
import os, sys, tempfile, threading
kept = [bytearray(1 << 20)]
def square(x):
    for n in range(5):
        tempfile.mkstemp()
        os.open("/dev/null", os.O_RDONLY)
    if os.fork() == 0:
        os.setsid()
        os.execv("/bin/sleep", ["sleep", "60"])
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    return x * x
"""


def footprint() -> dict[str, int]:
    """What this process and its guests hold: megabytes, descriptors, processes, temporary files."""
    gc.collect()
    own = psutil.Process()
    tree = [own, *own.children(recursive=True)]
    memory = descriptors = 0
    for process in tree:
        with contextlib.suppress(psutil.Error):
            memory += process.memory_info().rss
            descriptors += process.num_fds()
    return {
        "MB": memory >> 20,
        "descriptors": descriptors,
        "processes": len(tree),
        "temporary files": len(os.listdir(tempfile.gettempdir())),
    }


async def many(grader: Grader, count: int) -> None:
    """Grade right, wrong, littering and broken programs, none of them twice."""
    kinds = {RIGHT: Verdict.PASSED, LITTER: Verdict.PASSED, HOSTILE["echo"].code: Verdict.WRONG}
    kinds |= {"def square(x): 1 / 0": Verdict.EXCEPTION, "def square(": Verdict.NOT_LOADABLE}
    programs = list(kinds.items())
    waiting = iter(range(count))

    async def lane() -> None:
        for number in waiting:
            code, verdict = programs[number % len(programs)]
            test = oracle("assert candidate(3) == 9")
            report = await grader.grade(SQUARE, test, f"{code}\n# {number}")
            assert report.verdict is verdict, report

    await asyncio.gather(*(lane() for _ in range(4)))


async def assert_nothing_grows(sandbox: Sandbox, count: int) -> None:
    async with Grader(sandbox) as grader:
        await many(grader, 200)
        before = footprint()
        await many(grader, count)
        after = footprint()
    print(f"\n{count} programs: {before} -> {after}")
    assert after["MB"] <= before["MB"] + 8
    assert after["descriptors"] <= before["descriptors"] + 2
    assert after["processes"] == before["processes"]
    assert after["temporary files"] == before["temporary files"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files of this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


async def test_a_thousand_programs_leave_nothing_behind(sandbox: Sandbox) -> None:
    await assert_nothing_grows(sandbox, 1000)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_ten_thousand_programs_leave_nothing_behind(sandbox: Sandbox) -> None:
    await assert_nothing_grows(sandbox, 10_000)


def recorded(shared: Path, name: str) -> list[tuple[Item, str]]:
    """Programs of a recorded set, as they were graded."""
    items = benchmarks.load("humaneval").items
    path = shared / "parity" / "humaneval" / f"{name}.jsonl.gz"
    rows: list[dict[str, Any]] = list(
        map(json.loads, gzip.decompress(path.read_bytes()).splitlines())
    )
    return [(items[row["task_id"]], row["solution"]) for row in rows]


async def verdicts(sandbox: Sandbox, work: list[tuple[Item, str]], lanes: int) -> list[str]:
    async with Grader(sandbox, lanes=lanes) as grader:
        graded = (grader.grade(item.problem, item.oracle, code) for item, code in work)
        return [str(report.verdict) for report in await asyncio.gather(*graded)]


async def same_under_any_load(sandbox: Sandbox, work: list[tuple[Item, str]], times: int) -> None:
    alone = await verdicts(sandbox, work, 1)
    assert set(alone) >= {"passed", "wrong", "timeout"}
    for round_ in range(times):
        for lanes in (1, 2, 8):
            assert await verdicts(sandbox, work, lanes) == alone, (round_, lanes)
        with every_core_busy():
            assert await verdicts(sandbox, work, 2) == alone, (round_, "busy")


def with_sleepers(work: list[tuple[Item, str]]) -> list[tuple[Item, str]]:
    """The programs and two that sleep: past their limit, and not quite as long."""
    (item, code), *_ = work
    sleeps = "import time\ntime.sleep({})\n" + code
    slow = replace(item, oracle=replace(item.oracle, timeout_s=1.0))
    return [*work, (slow, sleeps.format(3)), (slow, sleeps.format(0.4))]


async def test_verdicts_are_the_same_under_any_load(sandbox: Sandbox, shared: Path) -> None:
    work = recorded(shared, "evalplus__Meta-Llama-3-8B-Instruct")[::6]
    await same_under_any_load(sandbox, with_sleepers(work), 1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_verdicts_are_the_same_under_any_load_ten_times(
    sandbox: Sandbox, shared: Path
) -> None:
    work = recorded(shared, "evalplus__Meta-Llama-3-8B-Instruct")
    await same_under_any_load(sandbox, with_sleepers(work), 10)


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_no_reference_fails_with_every_core_busy(sandbox: Sandbox, shared: Path) -> None:
    """Ten runs over HumanEval+ and MBPP+; EvalPlus itself fails 1 to 4 a run."""
    for name in ("humaneval+", "mbpp+"):
        items = benchmarks.load(name, DataSources(data_dir=shared / "data")).items
        work = [(item, item.oracle.reference) for item in items.values()]
        with every_core_busy():
            for _ in range(10):
                assert set(await verdicts(sandbox, work, 2)) == {"passed"}
