"""What a run will take, told before it runs: calls, tokens, dollars, minutes; and what it can show.

Calls come from the method's own plan, or from past runs of the very same work; tokens per call and
seconds per call from past runs in the store, the likest first (`LIKENESS`); what is not asking
(starting, grading, running workflows) from `harness/overhead.py`; dollars from the model's price of
those tokens. Replies that are kept already are not guessed: what is in the cache
is neither asked nor paid again. A range is meant to hold what a run comes to four times in five;
each kind of likeness widens it, and so do few problems. Unknown is None, never 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness import overhead
from harness import past as past_runs
from harness.metrics import DISCORDANT, count, detectable_difference, dollars, duration, percent
from harness.overhead import PastOverhead
from harness.past import Past, PastCalls, family
from harness.types import Completion, Model, Sampling

# (prompt, completion) tokens of a typical call: means of the runs in results/README.md
TYPICAL_TOKENS = {"worker": (250, 230), "meta": (890, 220)}
FOUR_OF_FIVE = 1.2816  # so many standard errors hold four of five normal draws
SPREAD = 0.6  # standard deviation over mean of a sample's tokens a call, where no run tells it
FEW = 10  # samples; a run of fewer says nothing of how many calls a sample takes
# How alike a past run is, best first, and the factor by which its tokens may be off besides.
LIKENESS = (("method, model and benchmark", 1.15), ("method and model", 1.5), ("method", 1.6),
            ("model", 2.0), ("typical calls", 2.5))  # fmt: skip

Range = tuple[float, float]


@dataclass(frozen=True)
class Forecast:
    """(least, most) of what a run takes, as asked anew; None where a part of it is unknown."""

    calls: dict[str, tuple[int, int]]  # by role
    tokens: Range | None  # prompt and completion
    usd: Range | None  # 0.0 only where it is free
    minutes: Range | None
    detectable: float | None  # the smallest difference in pass@1 that so many problems show
    basis: str  # what it rests on, in words


class Config(Protocol):
    """What a forecast reads of a config (`harness.api.Config`)."""

    @property
    def n_samples(self) -> int: ...
    @property
    def max_connections(self) -> int | None: ...
    @property
    def jobs(self) -> int | None: ...
    @property
    def out(self) -> Path: ...


class Named(Protocol):
    @property
    def name(self) -> str: ...


class Plan(Protocol):
    """What a forecast reads of a plan (`harness.api.Plan`)."""

    @property
    def config(self) -> Config: ...
    @property
    def benchmark(self) -> Named: ...
    @property
    def method(self) -> Named: ...
    @property
    def knobs(self) -> Mapping[str, Any]: ...
    @property
    def full_knobs(self) -> Mapping[str, Any]: ...
    @property
    def items(self) -> Sequence[Any]: ...
    @property
    def everything(self) -> int: ...
    @property
    def models(self) -> Mapping[str, Model]: ...
    @property
    def sampling(self) -> Mapping[str, Sampling]: ...
    @property
    def greedy(self) -> bool: ...
    def calls(self, *, full: bool = False) -> Mapping[str, tuple[int, int]]: ...


@dataclass(frozen=True)
class Seen(Past):
    """What earlier runs tell of calls, and of what a run takes beside them."""

    beside: tuple[PastOverhead, ...] = ()


@dataclass(frozen=True)
class _Role:
    """One role's part of a forecast."""

    calls: tuple[int, int]
    prompt_tokens: Range  # of a call, as the next
    completion_tokens: Range
    latency_s: Range | None
    basis: str


def forecast(plan: Plan, *, past: Seen | None = None, full: bool = False) -> Forecast:
    """What a plan will take, or with `full` the run of all problems with the method's own knobs.

    `past` is `read_past(plan)`; without it nothing is read, and calls are typical ones.
    """
    past = past or Seen()
    problems = plan.everything if full else len(plan.items)
    samples = problems * plan.config.n_samples
    roles = {
        role: _role(plan, role, calls, past, samples, full=full)
        for role, calls in plan.calls(full=full).items()
    }
    tokens = _sum(
        _times(one.calls, _plus(one.prompt_tokens, one.completion_tokens)) for one in roles.values()
    )
    usd = _sum(_dollars(plan.models[role], one) for role, one in roles.items())
    parts = dict.fromkeys(f"{role}: {one.basis}" for role, one in roles.items())
    return Forecast(
        calls={role: one.calls for role, one in roles.items()},
        tokens=tokens,
        usd=usd,
        minutes=_minutes(plan, roles, samples, _beside(plan, roles, past, samples, full=full)),
        detectable=detectable_difference(problems, past.discordant or DISCORDANT),
        basis="; ".join([*parts, _basis_of_difference(past)]),
    )


def read_past(plan: Plan, *, besides: str | None = None) -> Seen | None:
    """What earlier runs under the plan's `out` tell of it; None when there are none.

    `besides` is the id of a run that is not looked at: the one that is to be foretold.
    """
    out, simulated = plan.config.out, any(model.simulated for model in plan.models.values())
    past = past_runs.read(
        out,
        benchmark=plan.benchmark.name,
        method=plan.method.name,
        models={model.name for model in plan.models.values()},
        simulated=simulated,
        besides=besides,
    )
    if past is None:
        return None
    beside = overhead.read(out, method=plan.method.name, simulated=simulated, besides=besides)
    return Seen(past.calls, past.discordant, beside)


def as_dict(found: Forecast) -> dict[str, Any]:
    """A forecast as plain data: fields of docs/schemas/dry_run.json, and of `session` records."""

    def pair(span: Range | None, digits: int) -> list[float] | None:
        return None if span is None else [round(x, digits) for x in span]

    return {
        "calls": {role: list(span) for role, span in found.calls.items()},
        "tokens": pair(found.tokens, 0),
        "usd": pair(found.usd, 6),
        "minutes": pair(found.minutes, 4),
        "detectable_difference": None if found.detectable is None else round(found.detectable, 4),
        "basis": found.basis,
    }


def from_dict(found: Mapping[str, Any]) -> Forecast:
    """The forecast that `as_dict` gave. Raises ValueError when it is none."""

    def pair(value: Any) -> Range | None:
        return None if value is None else (float(value[0]), float(value[1]))

    try:
        return Forecast(
            calls={role: (int(low), int(high)) for role, (low, high) in found["calls"].items()},
            tokens=pair(found["tokens"]),
            usd=pair(found["usd"]),
            minutes=pair(found["minutes"]),
            detectable=found["detectable_difference"],
            basis=str(found["basis"]),
        )
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"not a forecast: {error!r}") from error


def words(found: Forecast) -> str:
    """Calls by role, tokens, dollars and minutes in one line; what is unknown is said."""
    calls = ", ".join(f"{span(found.calls[role], count)} {role} calls" for role in found.calls)
    parts = [calls, "tokens unknown" if found.tokens is None else f"{span(found.tokens)} tokens"]
    if found.usd is None:
        parts.append("price unknown")
    elif found.usd[1] > 0:
        parts.append(span(found.usd, dollars))
    parts.append("time unknown" if found.minutes is None else _time(found.minutes))
    return ", ".join(parts)


def compared(
    found: Forecast, *, calls: int, tokens: float | None, usd: float | None, wall_s: float
) -> str:
    """Predicted against actual in one line; `usd` is the fresh price, `wall_s` of the run."""
    every = [sum(ends) for ends in zip(*found.calls.values(), strict=True)]
    told, took = [f"{span((every[0], every[-1]), count)} calls"], [f"{calls:,}"]
    if found.tokens is not None:
        told.append(f"{span(found.tokens)} tokens")
        took.append("unknown" if tokens is None else rounded(tokens))
    if found.usd is not None and found.usd[1] > 0:
        told.append(span(found.usd, dollars))
        took.append(dollars(usd))
    if found.minutes is not None:
        told.append(_time(found.minutes))
        took.append(duration(wall_s))
    return f"predicted {', '.join(told)}; took {', '.join(took)}"


def difference(found: Forecast) -> str:
    """What a comparison on these problems can show, in one line."""
    if found.detectable is None:
        return "so few problems show no difference between two methods"
    return (
        f"two methods compared on these problems: a difference of {percent(found.detectable)} "
        "points in pass@1 is found (80% power, 5% level)"
    )


def rounded(number: float) -> str:
    """A count to two digits that matter: 950, 12k, 3.4M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if number >= unit:
            digits = 0 if number >= 10 * unit else 1
            return f"{number / unit:,.{digits}f}{name}"
    return f"{number:.0f}"


def span(ends: Range, text: Any = rounded) -> str:
    """Two ends as text, one where both read the same."""
    low, high = (text(end) for end in ends)
    return str(low) if low == high else f"{low} to {high}"


def _time(minutes: Range) -> str:
    return span((60 * minutes[0], 60 * minutes[1]), duration)


def _role(
    plan: Plan, role: str, planned: tuple[int, int], past: Past, samples: int, *, full: bool
) -> _Role:
    level, rows = _likest(plan, role, past)
    alike, factor = LIKENESS[level]
    limit = plan.sampling[role].max_tokens
    seen = sum(row.samples for row in rows)
    if rows:
        prompts = [row.prompt_tokens or 0.0 for row in rows]
        completions = [row.completion_tokens or 0.0 for row in rows]
        spreads = [row.spread for row in rows if row.spread is not None]
        spread = max(spreads, default=SPREAD)
        runs = "1 run" if len(rows) == 1 else f"{len(rows)} runs"
        basis = f"{seen:,} samples of {runs} of the same {alike}"
    else:
        prompt, completion = TYPICAL_TOKENS.get(role, TYPICAL_TOKENS["worker"])
        prompts, completions, spread = [prompt], [completion], SPREAD
        basis = alike
    wide = factor * (1 + FOUR_OF_FIVE * spread * math.sqrt(1 / samples + (1 / seen if seen else 0)))
    completion_tokens = (
        min(min(completions) / wide, limit),
        min(max(completions) * wide, limit),
    )
    return _Role(
        calls=_calls(plan, role, planned, rows, samples, full=full) if level == 0 else planned,
        prompt_tokens=(min(prompts) / wide, max(prompts) * wide),
        completion_tokens=completion_tokens,
        latency_s=_latency(plan, role, past, completion_tokens),
        basis=basis,
    )


def _likest(plan: Plan, role: str, past: Past) -> tuple[int, list[PastCalls]]:
    """(place in LIKENESS, runs) of the likest past runs in which this role reported its tokens."""
    own = family(plan.benchmark.name)
    model = plan.models[role].name
    rows = [
        row
        for row in past.calls
        if row.role == role and row.prompt_tokens is not None and row.completion_tokens is not None
    ]
    of_method = [row for row in rows if row.method == plan.method.name]
    both = [row for row in of_method if row.model == model]
    for level, found in enumerate(
        (
            [row for row in both if row.family == own],
            both,
            of_method,
            [row for row in rows if row.model == model],
        )
    ):
        if found:
            return level, found
    return len(LIKENESS) - 1, []


def _calls(
    plan: Plan,
    role: str,
    planned: tuple[int, int],
    rows: Iterable[PastCalls],
    samples: int,
    *,
    full: bool,
) -> tuple[int, int]:
    """Calls as past runs of the same knobs and models took them; else as the method plans them."""
    from harness.journal import canonical

    knobs = canonical(dict(plan.full_knobs if full else plan.knobs))
    models = {name: model.name for name, model in plan.models.items()}
    same = [
        row for row in rows
        if row.knobs == knobs and dict(row.models) == models and row.samples >= FEW
    ]  # fmt: skip
    if not same:
        return planned
    low, high = math.inf, 0.0
    for row in same:
        error = FOUR_OF_FIVE * row.calls_deviation * math.sqrt(1 / samples + 1 / row.samples)
        low, high = min(low, row.calls - error), max(high, row.calls + error)
    least = max(low, 0.0) * samples
    return math.floor(least), math.ceil(high * samples)


def _latency(plan: Plan, role: str, past: Past, completion_tokens: Range) -> Range | None:
    """Seconds of one call of this model, in the likest runs that asked it; None where none did.

    What a reply's length changes lies between nothing and all of it.
    """
    model = plan.models[role].name
    rows = [row for row in past.calls if row.model == model and row.latency_s is not None]
    for alike in (
        [row for row in rows if row.method == plan.method.name and row.role == role],
        [row for row in rows if row.role == role],
        rows,
    ):
        ends = [_stretched(row, completion_tokens) for row in alike]
        if ends:
            return min(low for low, _ in ends), max(high for _, high in ends)
    return None


def _stretched(row: PastCalls, completion_tokens: Range) -> Range:
    seconds, long = row.latency_s or 0.0, row.completion_tokens
    if not long:
        return seconds, seconds
    low, high = (tokens / long for tokens in completion_tokens)
    return seconds * min(1.0, low), seconds * max(1.0, high)


def _beside(
    plan: Plan, roles: Mapping[str, _Role], past: Seen, samples: int, *, full: bool
) -> Range:
    """Seconds of grading and of running workflows; each that is written runs `evals` times."""
    from harness.journal import canonical

    knobs = dict(plan.full_knobs if full else plan.knobs)
    evals = 1 if plan.greedy else int(knobs.get("evals", 1))
    return overhead.expected(
        past.beside,
        benchmark=plan.benchmark.name,
        knobs=canonical(knobs),
        samples=samples,
        workflows=evals * roles["meta"].calls[0] if "meta" in roles else 0,
    )


def _minutes(plan: Plan, roles: Mapping[str, _Role], samples: int, beside: Range) -> Range | None:
    """Minutes of the whole run, `beside` seconds of it not asking; None: a role's speed is unknown.

    A model answers as many at once as it begins with, at best as many as it may grow to, each call
    as long as in past runs; a sample is one chain of calls, at best all of a role's at once. A
    model of this machine has a rate besides, at which it answers however many ask; the range then
    holds both. What is not asking is at best done beside it.
    """
    here: dict[str, Range] = {}  # by server
    config = plan.config
    for role, one in roles.items():
        model = plan.models[role]
        rate = getattr(model, "seconds_per", None)
        fast, slow = (
            rate(one.prompt_tokens[end], one.completion_tokens[end]) if rate else None
            for end in (0, 1)
        )
        parts = []
        if fast is not None and slow is not None:
            parts.append((one.calls[0] * fast, one.calls[1] * slow))
        if one.latency_s is not None:
            most = config.max_connections or model.most_connections
            usual = config.max_connections or model.connections
            lanes = min(samples, config.jobs or samples)
            short, long = one.latency_s
            chain = one.calls[1] / samples * long
            low = max(short, one.calls[0] * short / min(most, lanes))
            parts.append((low, max(chain, one.calls[1] * long / min(usual, lanes))))
        if not parts:
            return None
        either = min(low for low, _ in parts), max(high for _, high in parts)
        here[model.endpoint()] = _plus(here.get(model.endpoint(), (0.0, 0.0)), either)
    if not here:
        return None
    least = max(beside[0], *(low for low, _ in here.values()))
    longest = beside[1] + sum(high for _, high in here.values())
    return (overhead.START_S[0] + least) / 60, (overhead.START_S[1] + longest) / 60


def _dollars(model: Model, one: _Role) -> Range | None:
    """Dollars of a role's calls at today's prices; None: no price is known."""
    prices = [
        model.price(
            Completion("", round(one.prompt_tokens[end]), round(one.completion_tokens[end]))
        )
        for end in (0, 1)
    ]
    if prices[0] is None or prices[1] is None:
        return None
    return _times(one.calls, (prices[0], prices[1]))


def _basis_of_difference(past: Past) -> str:
    share = past.discordant or DISCORDANT
    source = "as runs here did" if past.discordant else "assumed"
    return f"difference: two methods differ on {percent(share, 0)}% of the problems, {source}"


def _plus(a: Range, b: Range) -> Range:
    return a[0] + b[0], a[1] + b[1]


def _times(a: Range, b: Range) -> Range:
    return a[0] * b[0], a[1] * b[1]


def _sum(parts: Iterable[Range | None]) -> Range | None:
    """The sum of ranges; None as soon as one is unknown."""
    found = list(parts)
    if any(part is None for part in found):
        return None
    return functools.reduce(_plus, (part for part in found if part is not None), (0.0, 0.0))
