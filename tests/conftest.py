"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import pytest_asyncio

from harness.sandbox import Sandbox


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sandbox() -> Sandbox:
    """The strongest sandbox of this machine, probed once."""
    return await Sandbox.detect()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded verdicts and benchmark files beside the repository."""
    path = Path(__file__).parents[2] / "shared"
    if not path.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{path} should be there in CI")
        pytest.skip(f"no {path.name}/ beside the repository")
    return path
