"""Evaluation harness for agentic workflows on code benchmarks. `from harness import evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import Endpoint, evaluate, evaluate_async

__all__ = ["Endpoint", "__version__", "evaluate", "evaluate_async"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in {"Endpoint", "evaluate", "evaluate_async"}:
        import harness.api

        return getattr(harness.api, name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
