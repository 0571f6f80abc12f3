"""Benchmarks by name. Adding one is a file with `load() -> Benchmark` and a line here."""

from __future__ import annotations

import importlib

from harness.benchmarks.source import Benchmark, Item
from harness.errors import UsageError

REGISTRY = {"humaneval": "harness.benchmarks.humaneval"}

__all__ = ["REGISTRY", "Benchmark", "Item", "load"]


def load(name: str) -> Benchmark:
    """Load a benchmark by name. Raises UsageError (unknown name) or BenchmarkError (bad file)."""
    if name not in REGISTRY:
        raise UsageError(f"unknown benchmark {name!r}: use one of {', '.join(sorted(REGISTRY))}")
    benchmark: Benchmark = importlib.import_module(REGISTRY[name]).load()
    return benchmark
