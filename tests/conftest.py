"""Fixtures that several test files share."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.grade import Grader
from harness.sandbox import Sandbox
from tests.support import Desk, close_journals

SHARED = Path(__file__).parents[2] / "shared"

# a suite started in the background inherits a deaf SIGINT and would pass it on to the processes
# whose answer to Ctrl-C is tested
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under CI a test that has the real data and is skipped all the same has failed."""
    report = yield
    wants = "shared" in getattr(item, "fixturenames", ())
    if report.skipped and os.environ.get("CI") == "true" and wants and SHARED.is_dir():
        report.outcome = "failed"
        report.longrepr = f"skipped although {SHARED.name}/ is there: {report.longrepr}"
    return report


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sandbox() -> Sandbox:
    """The strongest sandbox of this machine, probed once."""
    return await Sandbox.detect()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded verdicts and benchmark files beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED.name}/ beside the repository")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests find out is not kept in the user's cache, and nothing is taken from there."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr("harness.plan.user_cache_path", lambda _: folder)
        yield


@pytest.fixture(autouse=True)
def closed_journals() -> Iterator[None]:
    """No descriptor of a desk outlives its test."""
    yield
    close_journals()


@pytest_asyncio.fixture
async def grader(sandbox: Sandbox) -> AsyncIterator[Grader]:
    """A grader with lanes of its own; started when the first program comes."""
    async with Grader(sandbox) as made:
        yield made


@pytest.fixture
def desk(tmp_path: Path, grader: Grader) -> Callable[..., Desk]:
    """Makes a sample's context whose worker gives these replies."""

    def make(*replies: str | Exception, **options: Any) -> Desk:
        return Desk(tmp_path / "run", grader, {"worker": list(replies)}, **options)

    return make
