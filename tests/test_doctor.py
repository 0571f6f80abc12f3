"""`doctor` names every layer, and what would give a missing one."""

from __future__ import annotations

import asyncio
import sys

import pytest

from harness import doctor, lockdown
from harness.sandbox import Sandbox


def test_doctor_has_a_line_for_each_layer_and_each_attempt(sandbox: Sandbox) -> None:
    lines: list[str] = []
    isolates = doctor._sandbox(lines.append)
    assert isolates == sandbox.isolates
    told = "\n".join(lines)
    assert sandbox.tier in lines[0]
    for name in (*dict(sandbox.prevented), *lockdown.held(sandbox.tier)):
        assert f"\n  {name} " in told


async def test_the_probe_tries_what_the_layers_keep_off(sandbox: Sandbox) -> None:
    if sys.platform != "linux" or not sandbox.isolates:
        pytest.skip(f"the sandbox here is {sandbox.tier}")
    found = await sandbox.probe()
    wanted = {"network", "environment", "outside writes", "other processes", "ptrace", "privileges"}
    assert wanted <= {attempt for attempt, prevented in found.items() if prevented}


def test_a_missing_layer_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = lockdown.Layers("pip install pyseccomp", None, ())
    monkeypatch.setattr(lockdown, "layers", lambda: bare)
    lines: list[str] = []
    tier = asyncio.run(Sandbox.detect()).tier
    doctor._sandbox(lines.append)
    assert any("missing: pip install pyseccomp" in line for line in lines), tier
    assert sum("missing: " in line for line in lines) >= 4
