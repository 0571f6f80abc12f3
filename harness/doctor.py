"""`python -m harness doctor`: what this machine can do, proved where it can be."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness import __version__
from harness.errors import BenchmarkError, HarnessError, SandboxError

if TYPE_CHECKING:
    from harness.benchmarks import DataSources

EXTRAS = {"local": "xllamacpp", "leaderboard": "streamlit"}
FIRST = "humaneval"  # the benchmark that a plain run needs; its package carries it


def examine(
    results: Path,
    cache_dir: Path,
    keys: Mapping[str, bool],
    say: Callable[[str], None],
    sources: DataSources | None = None,
) -> int:
    """Print a report; 1 when something that a plain run needs is missing or damaged, else 0.

    `keys` tells which variables are set; their values never come here. `sources` (default: what
    is installed) says where benchmark files are looked for; nothing is downloaded.
    """
    say(f"harness {__version__}, Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    parts = (
        _sandbox(say),
        _benchmarks(sources, say),
        _environment(cache_dir, say),
        _models(cache_dir, say),
        _results(results, say),
    )
    for variable, is_set in keys.items():
        say(f"{variable:16} {'set' if is_set else 'not set'}")
    return 0 if all(parts) else 1


def _sandbox(say: Callable[[str], None]) -> bool:
    from harness import lockdown
    from harness.sandbox import Sandbox

    try:
        sandbox = asyncio.run(Sandbox.detect())
    except SandboxError as error:
        say(f"sandbox          none: {error}")
        return False
    say(f"sandbox          {sandbox.tier}" + ("" if sandbox.isolates else "  (no isolation)"))
    for attempt, prevented in sandbox.prevented:
        say(f"  {attempt:20} {'prevented' if prevented else 'OPEN to model-written code'}")
    for layer, missing in lockdown.held(sandbox.tier).items():
        say(f"  {layer:20} {'holds' if missing is None else f'missing: {missing}'}")
    if sandbox.tier != "bubblewrap" and sys.platform == "linux":
        found = shutil.which("bwrap")
        advice = f"{found} does not work here" if found else "install the package bubblewrap"
        say(f"  the strongest tier needs bubblewrap: {advice}")
    if not sandbox.isolates:
        say("  eval will refuse to run here without --unsafe-local")
    return sandbox.isolates


def _benchmarks(sources: DataSources | None, say: Callable[[str], None]) -> bool:
    """False when a file is damaged, or the first benchmark is absent."""
    from harness import benchmarks

    at_hand = replace(sources or benchmarks.DataSources(), offline=True)
    fine = True
    for name in benchmarks.REGISTRY:
        try:
            loaded = benchmarks.load(name, at_hand)
            kind = "rows of your own" if loaded.custom else "digest checked"
            say(f"benchmark        {name}: {len(loaded.items)} problems, {kind}")
        except BenchmarkError as error:
            file, absent, _ = str(error).partition(" is not at hand")
            if absent:
                say(f"benchmark        {name}: {file} absent; its first use fetches it")
            else:
                say(f"benchmark        {name}: {error}")
            fine = fine and bool(absent) and name != FIRST
    return fine


def _environment(cache_dir: Path, say: Callable[[str], None]) -> bool:
    from harness.environments import find
    from harness.grade import ENVIRONMENT

    found = find(ENVIRONMENT, cache_dir)
    told = f"python -m harness env {ENVIRONMENT}"
    if found is not None:
        told = f"{found.tier}, Python {found.version}, {len(found.packages)} packages"
    say(f"environment      {ENVIRONMENT}: {told}")
    return True


def _models(cache_dir: Path, say: Callable[[str], None]) -> bool:
    from harness.models.pull import cached
    from harness.models.registry import WEIGHTS

    directory = cache_dir / "models"
    for name, weights in WEIGHTS.items():
        state = "fetched" if cached(weights, directory) else f"models pull {name}"
        say(f"model            local/{name}: {state}")
    for extra, module in EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            say(f"extra            {extra}: pip install 'flowreasoner-harness[{extra}]'")
    return True


def _results(results: Path, say: Callable[[str], None]) -> bool:
    from harness.store import Store

    try:
        results.mkdir(parents=True, exist_ok=True)
        free_gb = shutil.disk_usage(results).free / 1e9
        report = Store(results).ingest()
    except (OSError, HarnessError) as error:
        say(f"results          {error}")
        return False
    say(f"results          {results}: {report.runs} runs, {free_gb:,.0f} GB free")
    return True
