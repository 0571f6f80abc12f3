"""Methods by name. One is added by a file with `METHOD` and a line here, or by an entry point."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from harness.errors import UsageError
from harness.types import Method, Preset

REGISTRY = {
    "vanilla": "baselines.vanilla",
    "self-refine": "baselines.self_refine",
    "llm-debate": "baselines.llm_debate",
    "llm-blender": "baselines.llm_blender",
    "autoagents": "baselines.autoagents",
    "adas": "baselines.adas",
    "aflow": "baselines.aflow",
    "maas": "baselines.maas",
    "scoreflow": "baselines.scoreflow",
    "flowreasoner": "baselines.flowreasoner",
    # controls: what a method has to beat
    "vanilla-tests": "baselines.vanilla_tests",
    "best-of-n": "baselines.best_of_n",
    "repair": "baselines.repair",
    "meta-direct": "baselines.meta_direct",
}
GROUP = "harness.methods"  # entry points of other packages: name -> module:METHOD
SEARCH_PROBLEMS = inspect.Parameter(
    "search_problems", inspect.Parameter.KEYWORD_ONLY, default=0, annotation=int
)  # a knob of every method with a fit: the first so many of the list `search`, 0 is all


def names() -> list[str]:
    """Every method: ours in order, then those that other packages bring."""
    return [*REGISTRY, *sorted(_brought().keys() - REGISTRY.keys())]


def load(name: str) -> Method:
    """The method of this name. Raises UsageError that names the valid ones."""
    if name in REGISTRY:
        method: Method = importlib.import_module(REGISTRY[name]).METHOD
        return method
    brought = _brought()
    if name not in brought:
        raise UsageError(f"unknown method {name!r}: use one of {', '.join(sorted(names()))}")
    point = brought[name]
    try:
        found = point.load()
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        raise UsageError(f"method {name!r} of {point.value} cannot be loaded: {told}") from error
    if not isinstance(found, Method) or found.name != name:
        raise UsageError(f"method {name!r}: {point.value} is no harness.types.Method of that name")
    return found


def _brought() -> dict[str, metadata.EntryPoint]:
    """Methods of other packages, by name."""
    return {point.name: point for point in metadata.entry_points(group=GROUP)}


def preset(method: Method, given: Mapping[str, Any]) -> Preset:
    """What knob `preset` names; an empty one where it is not given. Raises UsageError."""
    name = given.get("preset")
    if name is None:
        return Preset("")
    if name not in method.presets:
        known = ", ".join(method.presets) or "none"
        raise UsageError(f"{method.name} has no preset {name!r}; its presets: {known}")
    return method.presets[name]


def known_knobs(method: Method) -> dict[str, inspect.Parameter]:
    """All knobs of a method: of its `solve`, of its `fit`, and how many problems that sees."""
    found = {**method.knobs_of(method.fit), **method.knobs_of(method.solve)}
    return {**found, "search_problems": SEARCH_PROBLEMS} if method.fit else found


def knobs(method: Method, given: Mapping[str, str | Any]) -> dict[str, Any]:
    """All knobs of a method: defaults, then those of `given["preset"]`, then the others of `given`.

    Text is converted to their types. Raises UsageError on an unknown knob or preset, or a value of
    the wrong type.
    """
    known = known_knobs(method)
    merged = {n: p.default for n, p in known.items()} | dict(preset(method, given).knobs)
    for name, value in given.items():
        if name == "preset":
            continue
        if name not in known:
            valid = ", ".join(f"{n}={p.default}" for n, p in known.items()) or "none"
            presets = f"; presets: {', '.join(method.presets)}" if method.presets else ""
            raise UsageError(f"{method.name} has no knob {name!r}; its knobs: {valid}{presets}")
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
