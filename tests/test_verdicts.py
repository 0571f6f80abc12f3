"""What grading keeps, for whom it holds, and what is never kept."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import grade as grading
from harness.grade import Grader
from harness.sandbox import Lane, Sandbox
from harness.types import Verdict
from harness.verdicts import VerdictCache
from tests.hostile import HOSTILE, SQUARE, oracle

RIGHT = "def square(x): return x * x"
NINE = oracle("assert candidate(3) == 9")


async def cached(sandbox: Sandbox, verdicts: VerdictCache, code: str = RIGHT) -> bool:
    async with Grader(sandbox, verdicts=verdicts) as grader:
        return (await grader.grade(SQUARE, NINE, code)).cached


async def test_a_verdict_holds_for_the_sandbox_that_found_it(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    with VerdictCache(tmp_path / "kept.sqlite") as verdicts:
        assert [await cached(sandbox, verdicts) for _ in range(2)] == [False, True]
        weaker = replace(sandbox, tier="unshare")
        assert not await cached(weaker, verdicts)


async def test_what_was_found_without_isolation_is_kept_for_nobody(tmp_path: Path) -> None:
    open_to_all = Sandbox("rlimits")
    with VerdictCache(tmp_path / "kept.sqlite") as verdicts:
        assert [await cached(open_to_all, verdicts) for _ in range(2)] == [False, False]


async def test_a_program_that_took_its_process_down_is_graded_again(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    with VerdictCache(tmp_path / "kept.sqlite") as verdicts:
        for _ in range(2):
            async with Grader(sandbox, verdicts=verdicts) as grader:
                code = HOSTILE["_exit when called"].code
                report = await grader.grade(SQUARE, NINE, code)
                assert (report.verdict, report.cached) == (Verdict.CRASHED, False)


async def test_programs_that_differ_in_half_a_character_are_two(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    with VerdictCache(tmp_path / "kept.sqlite") as verdicts:
        whole, halves = f"{RIGHT}  # \U0001f600", f"{RIGHT}  # \ud83d\ude00"
        assert not await cached(sandbox, verdicts, whole)
        assert not await cached(sandbox, verdicts, halves)


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("times", [1, 2, 4])
async def test_a_judge_that_somebody_else_killed_costs_no_verdict_unless_again_and_again(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    genuine, calls = grading._judged, []

    async def killed(lane: Lane, work: dict[str, Any]) -> dict[str, Any]:
        calls.append(lane)
        if len(calls) <= times:
            below = lane.judge.tree()[1:]  # asyncio itself waits for the first
            lane.judge.kill()
            while any(map(_alive, below)):  # or it may answer before it is dead
                await asyncio.sleep(0.001)
        return await genuine(lane, work)

    monkeypatch.setattr(grading, "_judged", killed)
    async with Grader(sandbox) as grader:
        report = await grader.grade(SQUARE, NINE, RIGHT)
        assert report.verdict is (Verdict.CRASHED if times == 4 else Verdict.PASSED)
        assert (await grader.grade(SQUARE, NINE, RIGHT)).verdict is Verdict.PASSED


@pytest.mark.parametrize("harm", ["damaged", "a folder", "below a file"])
async def test_a_cache_that_cannot_be_used_costs_only_its_help(
    sandbox: Sandbox, tmp_path: Path, harm: str
) -> None:
    path = tmp_path / "kept.sqlite"
    if harm == "damaged":
        path.write_bytes(b"no database" * 1000)
    elif harm == "a folder":
        path.mkdir()
    else:
        path.write_text("")
        path = path / "kept.sqlite"
    said: list[str] = []
    with VerdictCache(path, said.append) as verdicts:
        assert [await cached(sandbox, verdicts) for _ in range(2)] == [False, False]
    assert len(said) == 1
    assert "no verdicts are kept" in said[0]


async def test_a_cache_that_breaks_meanwhile_costs_only_its_help(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    said: list[str] = []
    with VerdictCache(tmp_path / "kept.sqlite", said.append) as verdicts:
        assert verdicts._db is not None
        verdicts._db.execute("DROP TABLE kept")
        assert [await cached(sandbox, verdicts) for _ in range(2)] == [False, False]
    assert len(said) == 1
