"""`doctor` names every layer, and what would give a missing one."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness import benchmarks, doctor, lockdown
from harness.benchmarks import DataSources
from harness.errors import SandboxError
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


@pytest.mark.parametrize("tier", ["bubblewrap", "unshare", "landlock"])
async def test_the_probe_leaves_no_process_behind(tier: str) -> None:
    began = time.time() - 1
    try:
        await Sandbox.detect((tier,))
    except SandboxError as error:
        pytest.skip(f"not here: {error}")

    def left() -> list[int]:
        return [
            p.info["pid"]
            for p in psutil.process_iter(["pid", "cmdline", "create_time", "status"])
            if "import probe" in " ".join(p.info["cmdline"] or ())
            and p.info["create_time"] > began
            and p.info["status"] != psutil.STATUS_ZOMBIE
        ]

    end = time.monotonic() + 10  # a probe beside this one ends by itself; what is left stays
    while left() and time.monotonic() < end:
        await asyncio.sleep(0.1)
    assert left() == []


def test_a_missing_layer_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = lockdown.Layers("pip install pyseccomp", None, ())
    monkeypatch.setattr(lockdown, "layers", lambda: bare)
    lines: list[str] = []
    tier = asyncio.run(Sandbox.detect()).tier
    doctor._sandbox(lines.append)
    assert any("missing: pip install pyseccomp" in line for line in lines), tier
    assert sum("missing: " in line for line in lines) >= 4


def test_benchmarks_are_looked_for_where_they_are_said_to_be(shared: Path) -> None:
    lines: list[str] = []
    assert doctor._benchmarks(DataSources(shared / "data"), lines.append)
    assert len(lines) == len(benchmarks.REGISTRY)
    assert all("digest checked" in line for line in lines)


def test_an_absent_benchmark_is_one_short_line_and_no_failure(tmp_path: Path) -> None:
    lines: list[str] = []
    assert doctor._benchmarks(DataSources(tmp_path), lines.append)  # a package carries HumanEval
    told = dict(line.removeprefix("benchmark").strip().split(": ", 1) for line in lines)
    assert told["humaneval"] == "164 problems, digest checked"
    assert told["mbpp+"].startswith("MbppPlus.jsonl.gz absent")
    assert max(map(len, lines)) < 120


def test_a_damaged_benchmark_is_a_failure_that_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "mbpp.jsonl.gz").write_bytes(b"no gzip")
    lines: list[str] = []
    assert not doctor._benchmarks(DataSources(tmp_path), lines.append)
    (said,) = [line for line in lines if "mbpp-full" in line]
    assert str(tmp_path / "mbpp.jsonl.gz") in said


def test_without_humaneval_a_plain_run_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # its package is away
    lines: list[str] = []
    assert not doctor._benchmarks(DataSources(tmp_path), lines.append)
    assert all("absent" in line for line in lines)


def test_a_report_ends_with_the_keys_that_are_set_and_never_their_values(
    tmp_path: Path, shared: Path
) -> None:
    lines: list[str] = []
    found = doctor.examine(
        tmp_path / "results",
        tmp_path,
        {"OPENAI_API_KEY": True, "ANTHROPIC_API_KEY": False},
        lines.append,
        DataSources(shared / "data"),
    )
    assert found in (0, 1)  # 1 where this machine has no isolation
    assert lines[-2].split() == ["OPENAI_API_KEY", "set"]
    assert lines[-1].split() == ["ANTHROPIC_API_KEY", "not", "set"]
