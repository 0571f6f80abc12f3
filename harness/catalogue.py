"""What `list methods` says: each method, and with `verbose` its plan, levels and every knob."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import baselines
from harness.errors import UsageError
from harness.types import Method


def methods(*, verbose: bool = False) -> Iterator[str]:
    """Every method in a few lines; `verbose` sets the paper's value beside each knob."""
    for name in baselines.names():
        try:
            method = baselines.load(name)
        except UsageError as error:  # of another package: what is ours loads
            yield f"{name:14} {error}"
            continue
        try:
            yield from [
                f"{name:14} {method.summary}",
                *(_all_of(method) if verbose else _short(method)),
            ]
        except Exception as error:
            if name in baselines.REGISTRY:
                raise
            yield f"{name:14} cannot be told of: {type(error).__name__}: {error}"


def _short(method: Method) -> Iterator[str]:
    knobs = " ".join(f"{n}={v}" for n, v in baselines.knobs(method, {}).items())
    yield f"{'':14} roles: {', '.join(method.roles)}; knobs: {knobs or 'none'}"


def _all_of(method: Method) -> Iterator[str]:
    knobs = baselines.knobs(method, {})
    level = method.level if method.level_of is None else method.level_of(knobs)
    most = "" if level is method.level else f" ({method.level} at most)"
    yield f"  level {level}{most}; roles {', '.join(method.roles)}{_nodes(method)}"
    calls = "; ".join(f"{role} {_range(*ends)}" for role, ends in method.calls(knobs).items())
    yield f"  calls a problem: {calls}"
    if method.fit is not None:
        when = "" if method.fits(knobs) else " (not with these knobs)"
        plan = method.fit_calls(knobs, 33)
        searched = "; ".join(f"{role} {_range(*ends)}" for role, ends in plan.items())
        yield f"  searches on list `search` first{when}: {searched or 'unknown'} on 33 problems"
    for role, sampling in method.sampling.items():
        settings = {k: v for k, v in sampling.as_dict().items() if v is not None}
        yield f"  {role}: {', '.join(f'{k} {_plain(v)}' for k, v in settings.items())}"
    for name, knob in baselines.known_knobs(method).items():
        yield f"  -A {name}={knobs[name]}{_choices(knob)}{_paper(method, name)}"
    for name, preset in method.presets.items():
        changed = " ".join(f"{k}={v}" for k, v in preset.knobs.items())
        protocol = f" --protocol {preset.protocol}" if preset.protocol else ""
        for role, chosen in preset.sampling.items():
            protocol += "".join(f" {role}.{k}={_plain(v)}" for k, v in chosen.items())
        yield f"  -A preset={name}: {preset.summary}: {changed}{protocol}"
    yield ""


def _nodes(method: Method) -> str:
    return ", and any that --role NAME=MODEL adds" if method.nodes else ""


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _choices(knob: inspect.Parameter) -> str:
    choices: tuple[Any, ...] = getattr(knob.annotation, "__args__", ())
    return f" ({' | '.join(map(str, choices))})" if choices else ""


def _paper(method: Method, name: str) -> str:
    if name == "search_problems":
        return "   0: all of list `search`"
    return f"   sources: {method.paper[name]}" if name in method.paper else ""
