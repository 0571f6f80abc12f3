"""Over several benchmarks, and against what it took: means, dollars per solved, the Pareto front.

The paper's Overall is the micro mean: every problem counts the same, so the weights are the
problems of each benchmark, 300 of BigCodeBench, 131 of HumanEval and 341 of MBPP (inferred from its
printed rows, which it gives back to the rounding). Benchmarks are strata: their variances add, each
by the square of its weight. Cost per solved problem is a ratio of two sums over the same problems:
Cochran 1977, Sampling Techniques, section 6.3, on the log scale. Dollars are fresh prices
(`fresh_cost_usd`, as if no reply had been kept), so that what a cache saved counts for nobody.
Why these, and how well they cover: docs/statistics.md.
Pure functions, standard library only. Scores lie in [0, 1]; unknown is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.metrics import NO_SPREAD, Z95, Estimate, t_quantile, wilson


@dataclass(frozen=True)
class Mean:
    """A mean over benchmarks; None as soon as one of them has no score."""

    value: float | None
    low: float | None  # 95% interval
    high: float | None
    weights: Mapping[str, float]  # by benchmark, adding up to 1
    problems: int  # with a verdict, of all
    errored: int = 0  # samples without one: bounded by the next two
    floor: float | None = None
    ceiling: float | None = None


@dataclass(frozen=True)
class SolvedCost:
    """What a solved problem costs: all that was spent over all that was solved."""

    value: float | None  # None: nothing was solved
    low: float | None  # 95% interval; None too where a single problem tells nothing of the spread
    high: float | None
    solved: float  # problems, those with several samples by the share that passed
    total: float  # spent, in the unit of the costs
    problems: int


def weighted(values: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    """The mean of values by name with the weights of these names; None if a value is unknown.

    Raises ValueError where a value has no positive weight.
    """
    shares = _shares(values, weights)
    known = [share * value for name, share in shares.items() if (value := values[name]) is not None]
    return math.fsum(known) if known and len(known) == len(values) else None


def micro(parts: Mapping[str, Estimate], weights: Mapping[str, float] | None = None) -> Mean:
    """The mean in which every problem counts the same: weights are numbers of problems.

    By default those with a verdict; `harness.reported.PROBLEMS` are those of the paper's lists.
    Raises ValueError where a benchmark has no positive weight.
    """
    if weights is None and any(not part.problems for part in parts.values()):
        return Mean(None, None, None, {}, sum(p.problems for p in parts.values()),
                    sum(p.errored for p in parts.values()))  # fmt: skip
    return _mean(parts, weights or {name: part.problems for name, part in parts.items()})


def macro(parts: Mapping[str, Estimate]) -> Mean:
    """The mean in which every benchmark counts the same, however many problems it has."""
    return _mean(parts, dict.fromkeys(parts, 1))


def _shares(values: Mapping[str, object], weights: Mapping[str, float]) -> dict[str, float]:
    """The weights of these names, adding up to 1."""
    for name in values:
        if not weights.get(name, 0) > 0:
            raise ValueError(f"{name}: expected a positive weight, found {weights.get(name)}")
    total = math.fsum(weights[name] for name in values)
    return {name: weights[name] / total for name in values}


def _mean(parts: Mapping[str, Estimate], weights: Mapping[str, float]) -> Mean:
    shares = _shares(parts, weights)
    problems = sum(part.problems for part in parts.values())
    errored = sum(part.errored for part in parts.values())
    value, floor, ceiling = (
        weighted({name: getattr(part, field) for name, part in parts.items()}, weights)
        for field in ("value", "floor", "ceiling")
    )
    low: float | None = None
    high: float | None = None
    widths = {
        name: part.high - part.low
        for name, part in parts.items()
        if part.low is not None and part.high is not None
    }
    if len(parts) == 1:
        (only,) = parts.values()
        low, high = only.low, only.high
    elif value is not None and len(widths) == len(parts):
        low, high = _strata(value, shares, widths, parts)
    return Mean(value, low, high, shares, problems, errored, floor, ceiling)


def _strata(
    value: float,
    shares: Mapping[str, float],
    widths: Mapping[str, float],
    parts: Mapping[str, Estimate],
) -> tuple[float, float]:
    """The score interval at the number of problems that would leave the mean as uncertain.

    A benchmark's standard error is its interval's width over 2 x 1.96, which is never 0, not even
    where every problem was solved.
    """
    left = value * (1 - value)
    if left < NO_SPREAD:  # all solved, or none
        effective = 1 / math.fsum(share**2 / parts[n].problems for n, share in shares.items())
        return wilson(round(value) * effective, effective)
    effective = left / math.fsum(
        (share * widths[n] / (2 * Z95)) ** 2 for n, share in shares.items()
    )
    return wilson(value * effective, effective)


def cost_per_solved(costs: Sequence[float | None], solved: Sequence[float]) -> SolvedCost | None:
    """Cost per solved problem, from what each problem cost and whether it was solved.

    Of several samples, both are their means: the cost of one sample, the share that passed. Failed
    and errored samples count on the side of the cost too. None where a cost is not known, or
    without a problem. The interval takes both sums as uncertain together, by problem, on the log
    scale: value x or / exp(t x relative error).
    """
    problems = len(costs)
    known = [cost for cost in costs if cost is not None]
    if not problems or len(known) < problems:
        return None
    total, passed = math.fsum(known), math.fsum(solved)
    if not passed:
        return SolvedCost(None, None, None, 0.0, total, problems)
    value = total / passed
    if problems == 1:
        return SolvedCost(value, None, None, passed, total, problems)
    if not total:
        return SolvedCost(0.0, 0.0, 0.0, passed, total, problems)
    off = [cost - value * share for cost, share in zip(known, solved, strict=True)]
    deviation = math.sqrt(math.fsum(x * x for x in off) / (problems - 1))
    error = deviation * math.sqrt(problems) / total  # of the logarithm
    factor = math.exp(min(700.0, t_quantile(problems - 1) * error))
    return SolvedCost(value, value / factor, value * factor, passed, total, problems)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float] | None:
    """(mean, low, high) over problems of any quantity, by Student's t; None for fewer than two.

    For costs, calls, tokens, and for their differences problem by problem.
    """
    n = len(values)
    if n < 2:
        return None
    mean = fmean(values)
    spread = math.fsum((x - mean) ** 2 for x in values) / (n - 1)
    reach = t_quantile(n - 1) * math.sqrt(spread / n)
    return mean, mean - reach, mean + reach


def pareto_front(points: Sequence[tuple[float | None, float | None]]) -> list[int]:
    """Which points (cost, score) no other one beats, as places in `points`, the cheapest first.

    One point beats another that is no dearer and no worse, and better in one of the two. Equal
    points stand on the front together; a point of unknown cost or score never does.
    """
    known = [
        (cost, -score, place)
        for place, (cost, score) in enumerate(points)
        if cost is not None and score is not None
    ]
    front: list[tuple[float, float, int]] = []
    for point in sorted(known):
        if not front or point[1] < front[-1][1] or point[:2] == front[-1][:2]:
            front.append(point)
    return [place for *_, place in front]
