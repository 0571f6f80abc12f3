"""Fixtures for all tests: the sandbox of this machine, and the shared data where it is."""

import asyncio
from pathlib import Path

import pytest

from harness.sandbox import Sandbox


@pytest.fixture(scope="session")
def sandbox():
    return asyncio.run(Sandbox.detect())


@pytest.fixture(scope="session")
def shared():
    """The folder of benchmark files and recorded verdicts beside the repository."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("../shared is not there")
    return folder
