"""Two systems on the same problems, and many: differences, p-values, ranks as tie groups.

What is paired is the problem: the same ones are hard for everybody, so a difference taken problem
by problem is far surer than two scores beside each other (Miller 2024, arXiv:2411.00640, section
4.2). Sources: McNemar 1947, Psychometrika 12:153; the mid-p value of his test, Fagerland, Lydersen
and Laake 2013, BMC Med Res Methodol 13:91; the interval of a paired difference, Tango 1998, Stat
Med 17:891; several comparisons, Holm 1979, Scand J Stat 6:65; ranks as ranges, Mohamad, Goeman and
van Zwet 2019, arXiv:1812.05507, and Klein, Wright and Wieczorek 2020, JRSS A 183:589. Why these and
how well they cover: docs/statistics.md.
Pure functions, standard library only. Shares lie in [0, 1]; unknown is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import mul
from typing import NamedTuple

from harness.metrics import Z80, Z95, Tally, bootstrap, detectable_difference, t_quantile, t_tail

LEVEL = 0.05  # of every test
MCNEMAR = "McNemar's exact test, mid-p"
PAIRED_T = "paired t test over problems"
NO_TEST = "none: there is too little to compare"


@dataclass(frozen=True)
class Difference:
    """pass@1 of A less that of B, over the problems on which both have a verdict.

    Every share is None without such a problem. "Solves" means here: of the one sample, or of
    several a larger share than the other system.
    """

    value: float | None
    low: float | None  # 95% interval
    high: float | None
    p: float | None  # that chance alone makes the two differ so much; not adjusted
    test: str  # in words
    problems: int  # compared
    only_a: int  # problems that A solves (more often)
    only_b: int
    both: int  # that both solve, equally often
    neither: int
    discordant: float | None  # share of problems on which they differ
    detectable: float | None  # the smallest difference that this comparison finds with 80% power
    dropped_a: tuple[str, ...] = ()  # problems of B on which A has no verdict: in no number above
    dropped_b: tuple[str, ...] = ()
    errored: int = 0  # samples of either side without a verdict: bounded by the next two
    floor: float | None = None  # the value if those of A had failed and those of B had passed
    ceiling: float | None = None  # the other way round


class Pair(NamedTuple):
    """One of all comparisons within a table."""

    value: float | None  # A - B in pass@1
    p: float | None
    adjusted: float | None  # the p-value after Holm over the whole table
    problems: int  # on which both have a verdict


class Rank(NamedTuple):
    """The places that a system may have, 1 the best."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """The p-values adjusted for how many there are, in their order; None stays None.

    Those below the level are, with 95% certainty, all true differences. The smallest of m is
    multiplied by m, the next by m - 1 and so on; none falls below the one before it.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    most = 0.0
    for rank, (p, place) in enumerate(known):
        most = max(most, min(1.0, (len(known) - rank) * p))
        adjusted[place] = most
    return adjusted


def tie_groups(
    systems: Mapping[str, Mapping[str, Tally]], *, level: float = LEVEL
) -> dict[str, Rank]:
    """The range of places of each system, as in "1-3": {system: outcomes} -> {system: Rank}.

    A system's first place is 1 + the number of systems that are better than it, its last place the
    number of systems - the number of those that are worse; better and worse are differences that
    stay significant at `level` after Holm over all pairs (`pairwise`), and what follows from them:
    better than one that is better than a third is better than the third. So with 95% certainty all
    true places lie in these ranges at once, whoever is better stands higher at both ends, and
    "tied" need not carry over from one neighbour to the next, which it does not.
    Two systems that are better than each other along some way (only possible where pairs have
    different problems) are held as tied. Systems without a comparison may have any place.
    """
    return ranks(list(systems), pairwise(systems), level=level)


def ranks(
    names: Sequence[str], pairs: Mapping[tuple[str, str], Pair], *, level: float = LEVEL
) -> dict[str, Rank]:
    """`tie_groups` of comparisons that were made already, all of one table."""
    places = {name: place for place, name in enumerate(names)}
    above = [0] * len(names)  # bit j of i: system j is better than i
    for (a, b), pair in pairs.items():
        if pair.adjusted is not None and pair.adjusted < level and pair.value:
            better, worse = (a, b) if pair.value > 0 else (b, a)
            above[places[worse]] |= 1 << places[better]
    for middle in range(len(names)):  # Warshall's closure
        for one in range(len(names)):
            if above[one] >> middle & 1:
                above[one] |= above[middle]
    found: dict[str, Rank] = {}
    for name, own in places.items():
        higher = {other for other in range(len(names)) if above[own] >> other & 1}
        lower = {other for other in range(len(names)) if above[other] >> own & 1}
        in_circle = higher & lower
        found[name] = Rank(1 + len(higher - in_circle), len(names) - len(lower - in_circle))
    return found


def difference(a: Mapping[str, Tally], b: Mapping[str, Tally]) -> Difference:
    """A against B, from the outcomes of each: {problem: Tally}.

    With one sample of each problem on both sides, McNemar's test with Tango's interval; with
    several, Student's t on the differences of the problems, and the former two again where all
    problems differ by the same, which leaves no spread to judge by. A problem without a verdict of
    one side is dropped, and named.
    """
    common = [name for name, one in a.items() if one.graded and name in b and b[name].graded]
    dropped_a = tuple(name for name, two in b.items() if two.graded and not _graded(a, name))
    dropped_b = tuple(name for name, one in a.items() if one.graded and not _graded(b, name))
    both_asked = [name for name in a if name in b and a[name].samples and b[name].samples]
    errored = sum(x[name].samples - x[name].graded for name in both_asked for x in (a, b))
    least = [_least(a[name]) - _most(b[name]) for name in both_asked]
    most = [_most(a[name]) - _least(b[name]) for name in both_asked]
    floor = math.fsum(least) / len(least) if least else None
    ceiling = math.fsum(most) / len(most) if most else None
    rest = (dropped_a, dropped_b, errored, floor, ceiling)
    problems = len(common)
    if not common:
        return Difference(None, None, None, None, NO_TEST, 0, 0, 0, 0, 0, None, None, *rest)
    signs = [a[n].passed * b[n].graded - b[n].passed * a[n].graded for n in common]
    only_a, only_b = sum(s > 0 for s in signs), sum(s < 0 for s in signs)
    neither = sum(a[n].passed == 0 == b[n].passed for n in common)
    both = problems - only_a - only_b - neither
    discordant = (only_a + only_b) / problems
    if all(a[n].graded == 1 == b[n].graded for n in common):
        value = (only_a - only_b) / problems
        low, high = tango(only_a, only_b, problems)
        p: float | None = mcnemar(only_a, only_b)
        test, detectable = MCNEMAR, detectable_difference(problems, discordant)
    else:
        scale = math.lcm(*(x[n].graded for n in common for x in (a, b)))
        scaled = [_scaled(a[n], scale) - _scaled(b[n], scale) for n in common]
        value, deviation = _moments(sum(scaled), sum(map(mul, scaled, scaled)), problems, scale)
        ups, downs = sum(x for x in scaled if x > 0), -sum(x for x in scaled if x < 0)
        low, high = _mean_interval(value, deviation, ups / scale, downs / scale, problems)
        p, test = t_test(value, deviation, problems), PAIRED_T
        detectable = _detectable(deviation, problems)
        if deviation == 0:  # all differ alike: only how many they are says anything
            test, detectable = MCNEMAR, detectable_difference(problems, discordant)
    return Difference(value, low, high, p, test, problems, only_a, only_b, both, neither,
                      discordant, detectable, *rest)  # fmt: skip


def _graded(outcomes: Mapping[str, Tally], name: str) -> bool:
    return name in outcomes and outcomes[name].graded > 0


def _least(one: Tally) -> float:
    """The share solved if every errored sample had failed."""
    return one.passed / one.samples


def _most(one: Tally) -> float:
    """The share solved if every errored sample had passed."""
    return (one.passed + one.samples - one.graded) / one.samples


def _scaled(one: Tally, scale: int) -> int:
    """The share solved in whole steps of 1 / scale, so that sums are exact."""
    return one.passed * (scale // one.graded)


def _moments(total: int, squares: int, problems: int, scale: int) -> tuple[float, float]:
    """Mean and sample standard deviation of differences, given in steps of 1 / scale, by sums."""
    value = total / (problems * scale)
    if problems == 1:
        return value, 0.0
    spread = problems * squares - total * total
    return value, math.sqrt(spread / (problems * (problems - 1))) / scale


@lru_cache(maxsize=65_536)
def mcnemar(only_a: int, only_b: int) -> float:
    """The two-sided mid-p value of McNemar's exact test.

    Of the problems that just one system solves, each had the same chance for both. Twice the
    binomial tail of the smaller count, less its own probability; 1 where the counts agree.
    """
    n, least = only_a + only_b, min(only_a, only_b)
    if only_a == only_b:
        return 1.0
    term, below = 1, 0  # the number of ways to share n problems so
    for k in range(least):
        below += term
        term = term * (n - k) // (k + 1)
    return (2 * below + term) / (1 << n)


def tango(only_a: float, only_b: float, problems: int, z: float = Z95) -> tuple[float, float]:
    """Tango's score interval (low, high) of a paired difference of shares, A minus B.

    The differences that a score test would not reject; found by bisection. At 0 that test is
    McNemar's without correction, so the interval and the p-value agree but at the very edge.
    `problems` is at least 1.
    """

    def edge(more: float, less: float) -> float:
        """The upper limit of (more - less) / problems."""
        n, share = problems, (more - less) / problems
        low, high = share, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            if middle in (low, high):
                break
            b = (2 * n + less - more) * middle - more - less
            # share of problems of the second kind, most likely under this difference
            c = -less * middle * (1 - middle)
            q = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
            variance = n * max(0.0, 2 * q + middle * (1 - middle))
            beyond = (n * middle - more + less) ** 2 >= z * z * variance
            low, high = (low, middle) if beyond else (middle, high)
        return high

    return -edge(only_b, only_a), edge(only_a, only_b)


def t_test(value: float, deviation: float, problems: int) -> float:
    """The two-sided p-value of a mean difference over problems, by Student's t.

    Without spread (one problem, or all differ alike) that of McNemar's test, which counts problems
    and not by how much they differ; 1 where none differs.
    """
    if value == 0:
        return 1.0
    if deviation == 0:
        return mcnemar(problems, 0)
    return t_tail(value / deviation * math.sqrt(problems), problems - 1)


def _mean_interval(
    value: float, deviation: float, ups: float, downs: float, problems: int
) -> tuple[float, float]:
    """Student's interval of a mean difference, in [-1, 1]; Tango's, as if there were one sample a
    problem, where the differences show no spread to estimate from."""
    if deviation == 0:
        return tango(ups, downs, problems)
    reach = t_quantile(problems - 1) * deviation / math.sqrt(problems)
    return max(-1.0, value - reach), min(1.0, value + reach)


def _detectable(deviation: float, problems: int) -> float | None:
    """What a paired t test finds with 80% power, if differences spread like these."""
    if deviation == 0:
        return None
    reach = (t_quantile(problems - 1) + Z80) * deviation / math.sqrt(problems)
    return reach if reach <= 1 else None


def pairwise(systems: Mapping[str, Mapping[str, Tally]]) -> dict[tuple[str, str], Pair]:
    """Every pair of systems: the value and p of `difference`, adjusted by Holm over all of them.

    The keys are (earlier, later) in the order of `systems`. Made for tables: the problems of a
    system are the bits of a few integers, so that 435 pairs take well under a second.
    """
    places: dict[str, int] = {}
    for outcomes in systems.values():
        for name in outcomes:
            places.setdefault(name, len(places))
    scale = math.lcm(*{one.graded for x in systems.values() for one in x.values() if one.graded})
    rows = {name: _Row(outcomes, places, scale) for name, outcomes in systems.items()}
    names = list(rows)
    found: dict[tuple[str, str], tuple[float | None, float | None, int]] = {}
    for place, a in enumerate(names):
        for b in names[place + 1 :]:
            found[a, b] = _compared(rows[a], rows[b], scale)
    adjusted = holm([p for _, p, _ in found.values()])
    return {
        pair: Pair(value, p, after, problems)
        for (pair, (value, p, problems)), after in zip(found.items(), adjusted, strict=True)
    }


class _Row:
    """The outcomes of one system; problem k is bit k."""

    def __init__(
        self, outcomes: Mapping[str, Tally], places: Mapping[str, int], scale: int
    ) -> None:
        graded, single, passed = (bytearray(len(places)) for _ in range(3))
        self.shares = [0] * len(places)  # in steps of 1 / scale
        for name, one in outcomes.items():
            if one.graded:
                place = places[name]
                graded[place], single[place] = 1, one.graded == 1
                passed[place] = one.passed > 0
                self.shares[place] = _scaled(one, scale)
        self.graded, self.single, self.passed = map(_bits, (graded, single, passed))
        self._kept: dict[int, tuple[list[int], int, int]] = {}

    def over(self, mask: int) -> tuple[list[int], int, int]:
        """The shares on the problems of a mask, their sum and that of their squares."""
        if mask not in self._kept:
            shares = [x for place, x in enumerate(self.shares) if mask >> place & 1]
            self._kept[mask] = shares, sum(shares), sum(map(mul, shares, shares))
        return self._kept[mask]


def _bits(flags: bytearray) -> int:
    """Flags as an integer whose bit k is flag k."""
    return int(bytes(flags[::-1]).translate(_DIGITS) or b"0", 2)


_DIGITS = bytes([ord("0"), *(ord("1") for _ in range(255))])


def _compared(a: _Row, b: _Row, scale: int) -> tuple[float | None, float | None, int]:
    """Value, p-value and number of problems of one pair."""
    common = a.graded & b.graded
    problems = common.bit_count()
    if not problems:
        return None, None, 0
    if not common & ~(a.single & b.single):
        only_a = (common & a.passed & ~b.passed).bit_count()
        only_b = (common & b.passed & ~a.passed).bit_count()
        return (only_a - only_b) / problems, mcnemar(only_a, only_b), problems
    (xs, sum_a, squares_a), (ys, sum_b, squares_b) = a.over(common), b.over(common)
    squares = squares_a + squares_b - 2 * sum(map(mul, xs, ys))
    value, deviation = _moments(sum_a - sum_b, squares, problems, scale)
    return value, t_test(value, deviation, problems), problems


def paired_bootstrap(
    a: Mapping[str, Tally], b: Mapping[str, Tally], *, draws: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """The 95% interval of A minus B by drawing problems anew, both systems' outcomes together.

    Beside `difference`, for whoever doubts Student's t there: no assumption but that problems are
    like one another. Tango's interval where all differ alike; None without a problem in common.
    """
    common = [name for name, one in a.items() if one.graded and _graded(b, name)]
    if not common:
        return None
    values = [_share(a[name]) - _share(b[name]) for name in common]
    low, high = bootstrap(values, draws=draws, seed=seed, corrected=False)
    if low == high:
        ups, downs = sum(x for x in values if x > 0), -sum(x for x in values if x < 0)
        return tango(ups, downs, len(values))
    return max(-1.0, low), min(1.0, high)


def _share(one: Tally) -> float:
    return one.passed / one.graded
