"""Fixtures that several test files share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import pytest_asyncio

from harness.sandbox import Sandbox

# a suite started in the background inherits a deaf SIGINT and would pass it on to the processes
# whose answer to Ctrl-C is tested
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sandbox() -> Sandbox:
    """The strongest sandbox of this machine, probed once."""
    return await Sandbox.detect()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded verdicts and benchmark files beside the repository."""
    path = Path(__file__).parents[2] / "shared"
    if not path.is_dir():
        pytest.skip(f"no {path.name}/ beside the repository")
    return path
