"""Benchmarks by name. Adding one is a file with `load(name, sources)` and a line here."""

from __future__ import annotations

import importlib

from harness.benchmarks.known import Known
from harness.benchmarks.protocols import PROTOCOL_LEVELS, apply
from harness.benchmarks.source import OVERRIDE_VARIABLES, DataSources
from harness.benchmarks.suite import (
    Benchmark,
    Item,
    described,
    leave_out,
    list_digest,
    reasons,
)
from harness.errors import UsageError

REGISTRY = {
    "humaneval": "harness.benchmarks.humaneval",
    "humaneval+": "harness.benchmarks.humaneval_plus",
    "mbpp": "harness.benchmarks.mbpp",
    "mbpp-full": "harness.benchmarks.mbpp",
    "mbpp+": "harness.benchmarks.mbpp_plus",
    "bigcodebench-complete": "harness.benchmarks.bigcodebench",
    "bigcodebench-instruct": "harness.benchmarks.bigcodebench",
    "bigcodebench-hard-complete": "harness.benchmarks.bigcodebench",
    "bigcodebench-hard-instruct": "harness.benchmarks.bigcodebench",
}
ALIASES = {
    "bigcodebench": "bigcodebench-complete",
    "bigcodebench-hard": "bigcodebench-hard-complete",
}

__all__ = [
    "ALIASES",
    "OVERRIDE_VARIABLES",
    "PROTOCOL_LEVELS",
    "REGISTRY",
    "Benchmark",
    "DataSources",
    "Item",
    "Known",
    "apply",
    "described",
    "leave_out",
    "list_digest",
    "load",
    "reasons",
]


def load(name: str, sources: DataSources | None = None) -> Benchmark:
    """Load a benchmark by name or alias, under protocol `none`.

    Raises UsageError (unknown name) or BenchmarkError (file absent, damaged or another one).
    """
    name = ALIASES.get(name, name)
    if name not in REGISTRY:
        raise UsageError(f"unknown benchmark {name!r}: use one of {', '.join(sorted(REGISTRY))}")
    module = importlib.import_module(REGISTRY[name])
    benchmark: Benchmark = module.load(name, sources or DataSources())
    return benchmark
