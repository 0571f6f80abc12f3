"""Hostile and odd programs against the grading by cases, in lanes that stay warm."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import psutil
import pytest
import pytest_asyncio

from harness.errors import SandboxError
from harness.grade import Grader, Report
from harness.sandbox import Sandbox
from harness.types import Cases, Verdict
from tests.hostile_cases import (
    CANARY,
    FOUND,
    HOSTILE,
    MARK,
    ODD,
    ON_EVERY_TIER,
    PUZZLES,
    SECRET,
    TRACES,
    Puzzle,
)

RIGHT = "def tidy(values): return sorted({*values}) if values else ['" + SECRET + "']"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def grader(sandbox: Sandbox) -> AsyncIterator[Grader]:
    """One lane for all programs here, as the harness uses it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", CANARY)
        async with Grader(sandbox, lanes=1) as made:
            yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["unshare", "landlock"])
async def lesser(request: pytest.FixtureRequest) -> AsyncIterator[Grader]:
    """The same in a weaker tier."""
    if sys.platform != "linux":
        pytest.skip("these tiers are Linux's")
    try:
        weaker = await Sandbox.detect((request.param,))
    except SandboxError as error:
        pytest.skip(f"not here: {error}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", CANARY)
        async with Grader(weaker, lanes=1) as made:
            yield made


async def graded(grader: Grader, puzzle: Puzzle, code: str) -> Report:
    return await grader.grade(puzzle.problem, puzzle.oracle, code)


def survivors() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if MARK in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


async def attacked(grader: Grader, name: str) -> None:
    """Grade an attack, and look whether it got or left anything."""
    attack = HOSTILE[name]
    puzzle = replace(PUZZLES[attack.puzzle], case_s=attack.case_s, timeout_s=attack.case_s)
    report = await graded(grader, puzzle, attack.code)
    assert not report.verdict.solved
    assert report.verdict in attack.verdicts, report
    told = report.detail + repr(report.outcomes)
    assert CANARY not in told
    assert FOUND not in told
    assert survivors() == []
    # the lane, or the one that took its place, still judges right, and by the right outputs
    right = await graded(grader, PUZZLES["tidy"], RIGHT)
    assert right.verdict is Verdict.PASSED, right


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_program_gets_its_verdict_and_nothing_else(
    grader: Grader, name: str
) -> None:
    await attacked(grader, name)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ON_EVERY_TIER)
async def test_a_hostile_program_fares_no_better_in_a_weaker_tier(
    lesser: Grader, name: str
) -> None:
    await attacked(lesser, name)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", TRACES)
async def test_a_program_leaves_nothing_to_the_next_one(grader: Grader, name: str) -> None:
    left = await graded(grader, PUZZLES["tidy"], TRACES[name].leave)
    assert not left.verdict.solved
    found = await graded(grader, PUZZLES["tidy"], TRACES[name].look)
    assert found.verdict is Verdict.WRONG, found
    assert FOUND not in found.detail


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ODD)
async def test_an_odd_but_right_program_passes(grader: Grader, name: str) -> None:
    odd = ODD[name]
    report = await graded(grader, odd.puzzle, odd.code)
    assert report.verdict is Verdict.PASSED, report


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", PUZZLES)
async def test_the_references_of_the_puzzles_pass(grader: Grader, name: str) -> None:
    puzzle = PUZZLES[name]
    assert isinstance(puzzle.oracle.tests, Cases)
    report = await graded(grader, puzzle, puzzle.reference + "\n# as a solution")
    assert report.verdict is Verdict.PASSED, report
