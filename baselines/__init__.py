"""Methods by name. Adding one is a file with `METHOD` and a line here."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Mapping
from typing import Any

from harness.errors import UsageError
from harness.types import Method

REGISTRY = {
    "vanilla": "baselines.vanilla",
    "self-refine": "baselines.self_refine",
    "llm-debate": "baselines.llm_debate",
    "flowreasoner": "baselines.flowreasoner",
}


def load(name: str) -> Method:
    """The method of this name. Raises UsageError that names the valid ones."""
    if name not in REGISTRY:
        raise UsageError(f"unknown method {name!r}: use one of {', '.join(sorted(REGISTRY))}")
    method: Method = importlib.import_module(REGISTRY[name]).METHOD
    return method


def knobs(method: Method, given: Mapping[str, str | Any]) -> dict[str, Any]:
    """All knobs of a method: its defaults with `given` put in, text converted to their types.

    Raises UsageError on an unknown knob or a value of the wrong type.
    """
    parameters = inspect.signature(method.solve, eval_str=True).parameters
    known = {n: p for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    merged = {n: p.default for n, p in known.items()}
    for name, value in given.items():
        if name not in known:
            valid = ", ".join(f"{n}={p.default}" for n, p in known.items()) or "none"
            raise UsageError(f"{method.name} has no knob {name!r}; its knobs: {valid}")
        merged[name] = _converted(method, name, known[name], value)
    if sum(most for _, most in method.calls(merged).values()) == 0:
        raise UsageError(f"{method.name}: with these knobs no model is asked anything")
    return merged


def _converted(method: Method, name: str, knob: inspect.Parameter, value: Any) -> Any:
    choices = getattr(knob.annotation, "__args__", None)
    kind = type(knob.default)
    try:
        if isinstance(value, str) and kind is bool:
            value = {"true": True, "false": False, "1": True, "0": False}[value.lower()]
        elif isinstance(value, str):
            value = kind(value)
    except (KeyError, ValueError):
        raise UsageError(f"{method.name}: {name} wants {kind.__name__}, not {value!r}") from None
    if kind in (str,) and choices and value not in choices:
        raise UsageError(
            f"{method.name}: {name} is one of {', '.join(map(str, choices))}, not {value!r}"
        )
    if not isinstance(value, kind) and not (kind is float and isinstance(value, int)):
        raise UsageError(f"{method.name}: {name} wants {kind.__name__}, not {value!r}")
    low, high = method.bounds.get(name, (0, math.inf))
    if kind in (int, float) and not (math.isfinite(value) and low <= value <= high):
        most = "" if high == math.inf else f" and at most {high:g}"
        raise UsageError(f"{method.name}: {name} is at least {low:g}{most}, not {value}")
    return value
