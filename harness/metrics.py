"""What a set of verdicts says: pass@k with its uncertainty, and how numbers are printed.

pass@k: Chen et al. 2021, arXiv:2107.03374, equation 1. The score interval: Wilson 1927, JASA
22:209. Several samples of one problem are not independent draws, so the interval is then taken
over problems (cluster means): Miller 2024, arXiv:2411.00640, section 2.2. The power of a paired
comparison: Connor 1987, Biometrics 43:207, equation 2.
Pure functions, standard library only. Scores lie in [0, 1]; unknown is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from statistics import NormalDist, fmean, stdev

Z95 = NormalDist().inv_cdf(0.975)
Z80 = NormalDist().inv_cdf(0.80)
# Share of problems that one of two systems solves and the other does not. Two sizes of one model
# differ on 0.32 of HumanEval (results/README.md); two methods over one model on less.
DISCORDANT = 0.15


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


def wilson(passed: float, n: int, z: float = Z95) -> tuple[float, float]:
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


def t_quantile(freedom: int) -> float:
    """The 97.5% quantile of Student's t with `freedom` >= 1 degrees of freedom.

    Exact for 1 and 2; above, the expansion of Abramowitz and Stegun 26.7.5, good to 0.01 at 3 and
    to 0.001 from 5.
    """
    if freedom == 1:
        return math.tan(math.pi * 0.475)
    if freedom == 2:
        return 0.95 / math.sqrt(2 * 0.975 * 0.025)
    z, v = Z95, freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )


def interval(mean: float, deviation: float, problems: int, *, single: bool) -> tuple[float, float]:
    """The 95% interval of a mean over `problems` >= 1 per-problem shares, within [0, 1].

    Wilson when each problem has a `single` sample. Otherwise Student's t on the per-problem
    shares, whose sample standard deviation is `deviation`; Wilson again, with one trial a problem,
    where they show no spread to estimate from (one problem, or all shares equal).
    """
    if single or problems == 1 or deviation == 0:
        return wilson(mean * problems, problems)
    reach = t_quantile(problems - 1) * deviation / math.sqrt(problems)
    return max(0.0, mean - reach), min(1.0, mean + reach)


def pass_at_1(outcomes: Mapping[str, Sequence[bool | None]]) -> Estimate:
    """pass@1 of samples by problem: True passed, False did not, None errored (no verdict)."""
    graded = {name: [x for x in row if x is not None] for name, row in outcomes.items()}
    shares = [fmean(row) for row in graded.values() if row]
    samples = sum(map(len, graded.values()))
    errored = sum(map(len, outcomes.values())) - samples
    floor = [fmean(x is True for x in row) for row in outcomes.values() if row]
    ceiling = [fmean(x is not False for x in row) for row in outcomes.values() if row]
    bounds = {"floor": fmean(floor), "ceiling": fmean(ceiling)} if floor else {}
    if not shares:
        return Estimate(None, None, None, 0, 0, errored, **bounds)
    value = fmean(shares)
    spread = stdev(shares) if len(shares) > 1 else 0.0
    low, high = interval(value, spread, len(shares), single=samples == len(shares))
    return Estimate(value, low, high, len(shares), samples, errored, **bounds)


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


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage without the sign, half rounded up (0.6125 is 61.3), as papers do."""
    if value is None:
        return "unknown"
    step = Decimal(1).scaleb(-digits)
    return str((Decimal(str(value)) * 100).quantize(step, rounding=ROUND_HALF_UP))


def dollars(value: float | None) -> str:
    """US dollars to cents, or to three significant digits below one dollar."""
    if value is None:
        return "unknown"
    if value == 0 or abs(value) >= 1:
        return f"${value:,.2f}"
    return f"${float(f'{value:.3g}'):.{2 - math.floor(math.log10(abs(value)))}f}"


def count(value: float | None) -> str:
    """A count or a mean count: thousands apart, one decimal only where there is a fraction."""
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if float(value).is_integer() or value >= 1000 else f"{value:,.1f}"


def duration(seconds: float | None) -> str:
    """Seconds in the two units that a reader needs: 0.42 s, 12.3 s, 4 min 5 s, 2 h 10 min."""
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
