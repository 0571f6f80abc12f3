"""What a set of verdicts says: pass@k with its uncertainty, and how numbers are printed.

pass@k: Chen et al. 2021, arXiv:2107.03374, equation 1. The score interval: Wilson 1927, JASA
22:209. Several samples of one problem are not independent draws, so uncertainty is then taken over
problems (Miller 2024, arXiv:2411.00640, section 2.2), by the score interval at as many problems as
would make a score as sure (Korn and Graubard 1998, Survey Methodology 24:193). The bootstrap: Efron
1987, JASA 82:171. The power of a paired comparison: Connor 1987, Biometrics 43:207, equation 2.
How well each interval covers, and why it was chosen: docs/statistics.md.
Pure functions, standard library only. Scores lie in [0, 1]; unknown is None, never 0.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

Z95 = NormalDist().inv_cdf(0.975)
Z80 = NormalDist().inv_cdf(0.80)
# Share of problems that one of two systems solves and the other does not. Two sizes of one model
# differ on 0.32 of HumanEval (results/README.md); two methods over one model on less.
DISCORDANT = 0.15
NO_SPREAD = 1e-9  # a standard deviation below it is a rounding error


class Tally(NamedTuple):
    """The samples of one problem, counted."""

    passed: int
    graded: int  # with a verdict
    samples: int  # the others errored


@dataclass(frozen=True)
class Estimate:
    """pass@1 of a set of samples; every field but the counts is None without a graded sample."""

    value: float | None  # mean over problems of the share of samples that passed
    low: float | None  # 95% interval
    high: float | None
    problems: int  # with at least one graded sample
    samples: int  # graded
    errored: int = 0  # ended without a verdict: in no mean, bounded by the next two
    floor: float | None = None  # the value if every errored sample were a failure
    ceiling: float | None = None  # the value if every errored sample had passed


def wilson(passed: float, n: float, z: float = Z95) -> tuple[float, float]:
    """The score interval (low, high) of `passed` successes in `n` trials; (0, 1) without trials."""
    if n == 0:
        return 0.0, 1.0
    share = passed / n
    middle = share + z * z / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if passed <= 0 else max(0.0, (middle - reach) / scale)
    high = 1.0 if passed >= n else min(1.0, (middle + reach) / scale)  # which rounding would miss
    return low, high


def t_tail(value: float, freedom: int) -> float:
    """The two-sided p-value of Student's t: how often |t| is at least |value| by chance.

    The regularised incomplete beta function at (freedom / 2, 1 / 2), by its continued fraction
    (DLMF 8.17.22), good to 1e-12. `freedom` is at least 1.
    """
    square = value * value
    if square == 0 or math.isinf(square):  # too small or too large to square
        return 1.0 if square == 0 else 0.0
    x, y = freedom / (freedom + square), square / (freedom + square)
    a, b = freedom / 2, 0.5
    logs = a * math.log(x) + b * math.log(y)
    scale = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + logs)
    if x < (a + 1) / (a + b + 2):
        return scale * _beta_fraction(a, b, x) / a
    return 1 - scale * _beta_fraction(b, a, y) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    tiny = 1e-300
    d = 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    c, found = 1.0, d
    for m in range(1, 500):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + step * d
            c = 1 + step / c
            d = 1 / (d if abs(d) > tiny else tiny)
            c = c if abs(c) > tiny else tiny
            found *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return found


@lru_cache(maxsize=4096)
def t_quantile(freedom: int) -> float:
    """The 97.5% quantile of Student's t with `freedom` >= 1 degrees of freedom, to 1e-9."""
    low, high = Z95, 13.0  # of infinite freedom, and above that of one
    while high - low > 1e-10:
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, freedom) > 0.05 else (low, middle)
    return (low + high) / 2


def interval(mean: float, deviation: float, problems: int, *, single: bool) -> tuple[float, float]:
    """The 95% interval of a mean over `problems` >= 1 per-problem shares, within [0, 1].

    Wilson's when each problem has a `single` sample. Otherwise Wilson's too, at the number of
    single samples that would leave the mean as uncertain as the spread of the shares does (their
    sample standard deviation is `deviation`), and with Student's quantile for having estimated it.
    At least problems - 1 by construction; the problems themselves where there is no spread to
    estimate from (one problem, or all shares equal).
    """
    if single or problems == 1 or deviation < NO_SPREAD:
        return wilson(mean * problems, problems)
    effective = mean * (1 - mean) * problems / deviation**2
    return wilson(mean * effective, effective, t_quantile(problems - 1))


def tally(outcomes: Sequence[bool | None]) -> Tally:
    """The samples of one problem: True passed, False did not, None errored (no verdict)."""
    graded = sum(x is not None for x in outcomes)
    return Tally(sum(x is True for x in outcomes), graded, len(outcomes))


def pass_at_1(outcomes: Mapping[str, Sequence[bool | None]]) -> Estimate:
    """pass@1 of samples by problem: True passed, False did not, None errored (no verdict)."""
    return pass_at({name: tally(row) for name, row in outcomes.items()})


def pass_at(outcomes: Mapping[str, Tally], k: int = 1) -> Estimate:
    """pass@k, the mean over problems of `pass_at_k`, with the interval of `interval`.

    Undefined (None) for k above the samples with a verdict of some problem that has any; so are
    the bounds for k above the samples of some problem. Raises ValueError unless k >= 1.
    """
    if k < 1:
        raise ValueError(f"pass@k: needs k >= 1, got {k}")
    asked = [one for one in outcomes.values() if one.samples]
    graded = [one for one in asked if one.graded]
    samples = sum(one.graded for one in graded)
    errored = sum(one.samples for one in asked) - samples
    bounds = {}
    if asked and all(one.samples >= k for one in asked):
        lost = [one.samples - one.graded for one in asked]
        bounds = {
            "floor": fmean(_share(one.samples, one.passed, k) for one in asked),
            "ceiling": fmean(
                _share(one.samples, one.passed + more, k)
                for one, more in zip(asked, lost, strict=True)
            ),
        }
    if not graded or any(one.graded < k for one in graded):
        return Estimate(None, None, None, len(graded), samples, errored, **bounds)
    shares = [_share(one.graded, one.passed, k) for one in graded]
    value = fmean(shares)
    spread = stdev(shares) if len(shares) > 1 else 0.0
    low, high = interval(value, spread, len(shares), single=samples == len(shares))
    return Estimate(value, low, high, len(shares), samples, errored, **bounds)


def _share(n: int, c: int, k: int) -> float:
    return c / n if k == 1 else pass_at_k(n, c, k)


def bootstrap(
    values: Sequence[float], *, draws: int = 2000, seed: int = 0, corrected: bool = True
) -> tuple[float, float]:
    """The 95% interval of a mean over problems, one value each, by drawing problems anew.

    `corrected` for bias and skewness (BCa), as scores near 0 and 1 need it. Without, the
    percentiles, as far from the mean as Student's t for so many problems asks: what covers better
    where values lie on both sides of 0, as differences do. The same seed gives the same interval;
    where all values are equal there is none to find, and the mean stands twice. Raises ValueError
    without a value.
    """
    n = len(values)
    if not n:
        raise ValueError("bootstrap: expected at least one value, found none")
    mean = fmean(values)
    off = [value - mean for value in values]
    squares = math.fsum(x * x for x in off)
    if squares < n * NO_SPREAD**2:
        return mean, mean
    draw = random.Random(seed)
    means = sorted(fmean(draw.choices(values, k=n)) for _ in range(draws))
    if not corrected:
        wider = t_quantile(n - 1) / Z95 * math.sqrt(n / (n - 1))
        low, high = means[_place(0.025, draws)], means[_place(0.975, draws)]
        return mean + wider * (low - mean), mean + wider * (high - mean)
    near = mean - NO_SPREAD, mean + NO_SPREAD
    below = (bisect_left(means, near[0]) + bisect_right(means, near[1])) / 2  # half of the ties
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(below / draws, 0.5 / draws), 1 - 0.5 / draws))
    skew = math.fsum(x**3 for x in off) / (6 * squares**1.5)
    ends = [bias + (bias + z) / (1 - skew * (bias + z)) for z in (-Z95, Z95)]
    low, high = (means[_place(normal.cdf(z), draws)] for z in ends)
    return low, high


def _place(share: float, draws: int) -> int:
    """Where the quantile stands among so many sorted draws."""
    return min(draws - 1, max(0, round(share * draws - 0.5)))


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased chance that one of `k` samples passes, when `c` of `n` did.

    Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k: needs 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def detectable_difference(problems: int, discordant: float = DISCORDANT) -> float | None:
    """The smallest difference in pass@1 that a paired comparison over `problems` finds.

    Found with 80% power by McNemar's two-sided test at the 5% level, in its normal approximation:
    one sample a problem, both systems on the same problems, and only one of them solving a share
    `discordant` of these (at least the difference itself; the more, the larger the difference has
    to be). None where even one that solves all beside one that solves none would not be found.
    """

    def found(difference: float) -> bool:
        split = max(discordant, difference)
        reach = Z95 * math.sqrt(split) + Z80 * math.sqrt(split - difference**2)
        return difference * math.sqrt(problems) >= reach

    if not found(1.0):
        return None
    low, high = 0.0, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def _decimal(value: float, digits: int) -> Decimal:
    """A number for rounding to so many decimals, without what sums and means of floats add to it:
    half of 0.455 (0.22749999999999998) is 0.2275."""
    return Decimal(str(round(value, digits + 8)))


def half_up(value: float, digits: int) -> str:
    """A number with so many decimals, half rounded away from zero as papers do, never "-0.0"."""
    if not abs(value) < 1e15:  # no number of ours, and more digits than a Decimal keeps
        return f"{value:,.{digits}f}"
    step = Decimal(1).scaleb(-digits)
    found = _decimal(value, digits).quantize(step, rounding=ROUND_HALF_UP)
    return f"{found if found else abs(found):,f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage without the sign, half rounded up (0.6125 is 61.3), as papers do."""
    if value is None:
        return "unknown"
    step = Decimal(1).scaleb(-digits)
    found = (_decimal(value, digits + 2) * 100).quantize(step, rounding=ROUND_HALF_UP)
    return str(found if found else abs(found))


def points(value: float | None, digits: int = 1) -> str:
    """A difference of two shares in percentage points, with its sign: +4.9, -0.1, 0.0."""
    said = percent(value, digits)
    return f"+{said}" if value is not None and value > 0 and said.strip("0.") else said


def p_value(p: float | None) -> str:
    """A p-value to three decimals; "< 0.001" below that, "unknown" where there was no test."""
    if p is None:
        return "unknown"
    return "< 0.001" if p < 0.001 else half_up(p, 3)


def dollars(value: float | None) -> str:
    """US dollars to cents, or to three significant digits below one dollar."""
    if value is None:
        return "unknown"
    sign, size = "-" if value < 0 else "", abs(value)
    if size == 0 or size >= 1:
        return f"{sign}${half_up(size, 2)}"
    digits = 2 - math.floor(math.log10(size))
    return f"{sign}${half_up(size, digits)}"


def count(value: float | None) -> str:
    """A count or a mean count: thousands apart, one decimal only where there is a fraction."""
    if value is None:
        return "unknown"
    return half_up(value, 0 if float(value).is_integer() or abs(value) >= 1000 else 1)


def duration(seconds: float | None) -> str:
    """Seconds in the two units that a reader needs: 0.42 s, 12.3 s, 4 min 5 s, 2 h 10 min."""
    if seconds is None:
        return "unknown"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if not seconds < 1e15:
        return f"{half_up(seconds, 0)} s"
    if seconds == 0:
        return "0 s"
    if seconds < 0.995:  # two significant digits
        said = half_up(seconds, 1 - math.floor(math.log10(seconds)))
        return f"{said.rstrip('0')} s"
    if seconds < 59.95:
        return f"{half_up(seconds, 1)} s"
    whole = math.floor(seconds + 0.5)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
