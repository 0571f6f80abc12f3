"""How often each 95% interval holds the truth, and each test finds it, on simulated results.

    python -m tests.sim_coverage [--fast]

prints the tables of docs/statistics.md as Markdown (some minutes; `--fast` with a tenth of the
repetitions). The truth is drawn as results come about: problems have difficulties, systems solve
each with some probability, samples are independent given that; problems are drawn anew in each
repetition. Functions under test are the harness's own; what is shown beside them, as what was not
chosen, is written here. The suite runs short versions (`tests/test_metrics.py` and others).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from harness.aggregate import cost_per_solved, macro, mean_interval, micro
from harness.metrics import (
    Z95,
    Estimate,
    Tally,
    bootstrap,
    detectable_difference,
    interval,
    t_quantile,
    wilson,
)
from harness.paired import LEVEL, difference, holm, mcnemar, pairwise, tango, tie_groups

PROBLEMS = (30, 148, 164, 378, 1140)
LEVELS = (0.05, 0.3, 0.5, 0.9, 0.97)
SPREADS = {"bimodal": 0.3, "mild": 2.0}  # a + b of the beta distribution of difficulties
EDGE = 1e-9  # a limit that is the truth holds it


class Tell:
    """Counts of how often something was so, by name."""

    def __init__(self) -> None:
        self.hits: dict[str, float] = {}
        self.tries: dict[str, int] = {}

    def add(self, name: str, value: float) -> None:
        self.hits[name] = self.hits.get(name, 0.0) + value
        self.tries[name] = self.tries.get(name, 0) + 1

    def holds(self, name: str, ends: tuple[float, float], truth: float) -> None:
        self.add(name, ends[0] - EDGE <= truth <= ends[1] + EDGE)
        self.add(f"{name} width", ends[1] - ends[0])

    def __getitem__(self, name: str) -> float:
        return self.hits[name] / self.tries[name]


def binomial(tries: int, chance: float) -> list[float]:
    """The chances of 0, 1, ... hits."""
    return [
        math.exp(
            math.lgamma(tries + 1) - math.lgamma(k + 1) - math.lgamma(tries - k + 1)
            + k * math.log(chance) + (tries - k) * math.log1p(-chance)
        )
        for k in range(tries + 1)
    ]  # fmt: skip


def between(tell: Tell, name: str, low: float, high: float) -> bool:
    """Whether a chance from `low` to `high` could have given a count, but for 1 in 10,000.

    By the exact binomial tails: at most so many hits at `low`, at least so many at `high`.
    """
    hits, tries = round(tell.hits[name]), tell.tries[name]
    too_few = math.fsum(binomial(tries, low)[: hits + 1]) < 1e-4
    too_many = math.fsum(binomial(tries, high)[hits:]) < 1e-4
    return not too_few and not too_many


@cache
def wilson_of(passed: int, n: int) -> tuple[float, float]:
    return wilson(passed, n)


@cache
def tango_of(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    return tango(only_a, only_b, n)


@cache
def newcombe(both: int, only_a: int, only_b: int, neither: int) -> tuple[float, float]:
    """Method 10 of Newcombe 1998, Stat Med 17:2635: what was not chosen for pairs."""
    n = both + only_a + only_b + neither
    one, two = (both + only_a) / n, (both + only_b) / n
    (l1, u1), (l2, u2) = wilson(both + only_a, n), wilson(both + only_b, n)
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    excess = both * neither - only_a * only_b
    phi = 0.0
    if margins:
        phi = (max(excess - n / 2, 0) if excess > 0 else excess) / math.sqrt(margins)

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    return one - two - reach(one - l1, u2 - two), one - two + reach(u1 - one, two - l2)


def exact_coverage(problems: int, share: float) -> tuple[float, float]:
    """Coverage of Wilson's interval and of the plain one (Wald's), by enumeration."""
    held = plain = 0.0
    for k, chance in enumerate(binomial(problems, share)):
        low, high = wilson_of(k, problems)
        held += chance * (low <= share <= high)
        value = k / problems
        reach = Z95 * math.sqrt(value * (1 - value) / problems)
        plain += chance * (value - reach <= share <= value + reach)
    return held, plain


def several(
    problems: int, share: float, samples: int, spread: float, reps: int, seed: int,
    *, draws: int = 0, resampled: int = 0,
) -> Tell:  # fmt: skip
    """The interval of a score from several samples of a problem; difficulties are beta.

    Beside it Student's t, and for the first `resampled` repetitions the bootstrap.
    """
    import numpy as np

    rng, tell = np.random.default_rng(seed), Tell()
    for rep in range(reps):
        chances = rng.beta(share * spread, (1 - share) * spread, size=problems)
        shares = rng.binomial(samples, chances) / samples
        mean, deviation = float(shares.mean()), float(shares.std(ddof=1))
        tell.holds("interval", interval(mean, deviation, problems, single=False), share)
        reach = t_quantile(problems - 1) * deviation / math.sqrt(problems)
        plain = (max(0.0, mean - reach), min(1.0, mean + reach))
        tell.holds("t", plain if deviation else wilson(mean * problems, problems), share)
        if rep < resampled:
            values = shares.tolist()
            tell.holds("BCa", bootstrap(values, draws=draws, seed=rep), share)
            plain = bootstrap(values, draws=draws, seed=rep, corrected=False)
            tell.holds("percentile", plain, share)
    return tell


def pairs(
    problems: int, only_a: float, only_b: float, both: float, reps: int, seed: int
) -> Tell:  # fmt: skip
    """Two systems, one sample a problem: intervals of the difference, and how often tests find it.

    The three chances are those of a problem that only A, only B, or both solve.
    """
    import numpy as np

    rng, tell = np.random.default_rng(seed), Tell()
    truth = only_a - only_b
    cells = rng.multinomial(problems, [both, only_a, only_b, 1 - both - only_a - only_b], size=reps)
    for e, f, g, h in cells.tolist():
        tell.holds("tango", tango_of(f, g, problems), truth)
        tell.holds("newcombe", newcombe(e, f, g, h), truth)
        value = (f - g) / problems
        deviation = math.sqrt(((f + g) / problems - value**2) * problems / (problems - 1))
        reach = t_quantile(problems - 1) * deviation / math.sqrt(problems)
        tell.holds("wald", (value - reach, value + reach), truth)
        found = mcnemar(f, g) < 0.05
        tell.add("mid-p", found)
        low, high = tango_of(f, g, problems)
        tell.add("disagree", found != (not low <= 0 <= high))
        a, b = (e + f) / problems, (e + g) / problems
        error = math.sqrt((a * (1 - a) + b * (1 - b)) / problems)
        tell.add("unpaired z", bool(error) and abs(a - b) / error > Z95)
    return tell


def several_pairs(
    problems: int, samples: int, base: float, gap: float, spread: float, own: float,
    reps: int, seed: int, *, draws: int = 0, resampled: int = 0,
) -> Tell:  # fmt: skip
    """Two systems, several samples a problem: the paired t, and the paired bootstrap.

    The log-odds of solving are base + spread x difficulty, + `gap` for A, + `own` x what is the
    system's own on that problem.
    """
    import numpy as np

    rng, tell = np.random.default_rng(seed), Tell()

    def chances(n: int) -> tuple[Any, Any]:
        common = base + spread * rng.normal(size=n)
        return tuple(
            1 / (1 + np.exp(-(common + more + own * rng.normal(size=n)))) for more in (gap, 0.0)
        )

    truth = 0.0
    if gap:
        one, two = chances(2_000_000)
        truth = float((one - two).mean())
    for rep in range(reps):
        one, two = chances(problems)
        passed = [rng.binomial(samples, x).tolist() for x in (one, two)]
        a, b = ({str(n): Tally(k, samples, samples) for n, k in enumerate(x)} for x in passed)
        found = difference(a, b)
        tell.holds("t", (found.low or 0.0, found.high or 0.0), truth)
        tell.add("found", found.p is not None and found.p < 0.05)
        if rep < resampled:
            values = [(x - y) / samples for x, y in zip(*passed, strict=True)]
            plain = bootstrap(values, draws=draws, seed=rep, corrected=False)
            tell.holds("percentile", plain, truth)
            tell.holds("BCa", bootstrap(values, draws=draws, seed=rep), truth)
    return tell


def means(shares: Sequence[float], sizes: Sequence[int], reps: int, seed: int) -> Tell:
    """Micro and macro means over benchmarks, one sample a problem; beside them the delta method."""
    import numpy as np

    rng, tell = np.random.default_rng(seed), Tell()
    total = sum(sizes)
    weights = {"micro": [n / total for n in sizes], "macro": [1 / len(sizes)] * len(sizes)}
    for passed in rng.binomial(sizes, shares, size=(reps, len(sizes))).tolist():
        parts = {
            f"{place}": Estimate(k / n, *wilson_of(k, n), n, n)
            for place, (k, n) in enumerate(zip(passed, sizes, strict=True))
        }
        for name, made in (("micro", micro(parts)), ("macro", macro(parts))):
            truth = math.fsum(w * s for w, s in zip(weights[name], shares, strict=True))
            tell.holds(name, (made.low or 0.0, made.high or 0.0), truth)
            values = [k / n for k, n in zip(passed, sizes, strict=True)]
            error = math.sqrt(
                math.fsum(
                    w * w * v * (1 - v) / n
                    for w, v, n in zip(weights[name], values, sizes, strict=True)
                )
            )
            value = made.value or 0.0
            tell.holds(f"{name} delta", (value - Z95 * error, value + Z95 * error), truth)
    return tell


def solved_costs(
    problems: int, samples: int, base: float, harder: float, reps: int, seed: int
) -> Tell:
    """Cost per solved problem; costs are log-normal, larger on harder problems by `harder`.

    Beside it the plain delta method, and Student's t for a mean cost (`mean`).
    """
    import numpy as np

    rng, tell = np.random.default_rng(seed), Tell()

    def drawn(n: int) -> tuple[Any, Any]:
        ease = 2 * rng.normal(size=n)
        solved = rng.binomial(samples, 1 / (1 + np.exp(-(ease + base)))) / samples
        return np.exp(-harder * ease + 0.7 * rng.normal(size=n)), solved

    costs, solved = drawn(4_000_000)
    truth, mean = float(costs.mean() / solved.mean()), float(costs.mean())
    for _ in range(reps):
        costs, solved = drawn(problems)
        found = cost_per_solved(costs.tolist(), solved.tolist())
        tell.add("none", found is None or found.value is None)
        if found is None or found.value is None or found.low is None or found.high is None:
            continue
        tell.holds("log", (found.low, found.high), truth)
        tell.add("relative width", (found.high - found.low) / truth)
        off = costs - found.value * solved
        error = float(off.std(ddof=1)) / math.sqrt(problems) / float(solved.mean())
        reach = t_quantile(problems - 1) * error
        tell.holds("delta", (found.value - reach, found.value + reach), truth)
        made = mean_interval(costs.tolist())
        tell.holds("mean", made[1:] if made else (0.0, 0.0), mean)
    return tell


def tables_of_ranks(
    problems: int, samples: int, abilities: Sequence[float], reps: int, seed: int
) -> Tell:
    """Rank ranges of systems of these abilities (log-odds): do all hold the true places at once?

    Systems of equal ability may stand in any order of their places.
    """
    import numpy as np

    rng, tell = np.random.default_rng(seed), Tell()
    n = len(abilities)
    for _ in range(reps):
        common = 2.5 * rng.normal(size=problems)
        systems = {}
        for place, ability in enumerate(abilities):
            chances = 1 / (1 + np.exp(-(common + ability + 0.5 * rng.normal(size=problems))))
            passed = rng.binomial(samples, chances).tolist()
            systems[str(place)] = {
                str(k): Tally(x, samples, samples) for k, x in enumerate(passed)
            }  # fmt: skip
        made = tie_groups(systems)
        held = True
        for place, ability in enumerate(abilities):
            rank = made[str(place)]
            better = sum(other > ability for other in abilities)
            worse = sum(other < ability for other in abilities)
            held = held and rank.first <= 1 + better and rank.last >= n - worse
            tell.add("places", rank.last - rank.first + 1)
        tell.add("all", held)
    return tell


def daggers(
    problems: int, systems: int, reps: int, seed: int, *, base: float = 0.3, spread: float = 1.5
) -> Tell:
    """Of equal systems, one sample a problem: how often some system is called worse than the best.

    `pairs`: after Holm over all pairs, as the tables do it; `best`: over the pairs with the best
    alone, which forgets that the best was found in the same data.
    """
    import numpy as np

    rng, tell = np.random.default_rng(seed), Tell()
    for _ in range(reps):
        chance = 1 / (1 + np.exp(-(spread * rng.normal(size=problems) + base)))
        passed = (rng.random((systems, problems)) < chance).astype(int)
        scores = passed.sum(axis=1)
        top = int(scores.argmax())
        others = [n for n in range(systems) if scores[n] < scores[top]]
        made = pairwise({
            str(n): {str(k): Tally(int(x), 1, 1) for k, x in enumerate(row)}
            for n, row in enumerate(passed)
        })  # fmt: skip
        found = [made[str(min(n, top)), str(max(n, top))] for n in others]
        tell.add("pairs", any((one.adjusted or 0.0) < LEVEL for one in found))
        tell.add("best", any((p or 0.0) < LEVEL for p in holm([one.p for one in found])))
    return tell


def found_difference(problems: int, discordant: float, reps: int, seed: int) -> Tell:
    """How often McNemar's mid-p finds the difference that `detectable_difference` names."""
    truth = detectable_difference(problems, discordant) or 1.0
    split = max(discordant, truth)
    return pairs(problems, (split + truth) / 2, (split - truth) / 2, (1 - split) / 2, reps, seed)


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """A table; shares to three decimals."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        cells = (f"{x:.3f}" if isinstance(x, float) else str(x) for x in row)
        yield "| " + " | ".join(cells) + " |"
    yield ""


def report(scale: float, say: Callable[[str], object]) -> None:
    """Every table, one after the other."""

    def reps(n: int) -> int:
        return max(50, round(n * scale))

    def told(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        say(f"**{title}**\n")
        for line in markdown(head, rows):
            say(line)

    told("One sample a problem: exact coverage of Wilson's interval (of Wald's)",
         ["problems", *(f"p = {p}" for p in LEVELS)],
         ([n, *("{:.3f} ({:.3f})".format(*exact_coverage(n, p)) for p in LEVELS)]
          for n in PROBLEMS))  # fmt: skip

    def by_problem() -> Iterator[list[object]]:
        for name, spread in SPREADS.items():
            for samples in (5, 10):
                for n in PROBLEMS:
                    cells = [several(n, p, samples, spread, reps(2000), 10) for p in LEVELS]
                    shown = (f"{cell['interval']:.3f} ({cell['t']:.3f})" for cell in cells)
                    yield [name, samples, n, *shown]

    told("Several samples: coverage of the interval (of Student's t)",
         ["difficulties", "samples", "problems", *(f"p = {p}" for p in LEVELS)],
         by_problem())  # fmt: skip

    def resampled() -> Iterator[list[object]]:
        for name, spread in SPREADS.items():
            for n in (30, 164):
                for p in (0.05, 0.5, 0.97):
                    cell = several(n, p, 5, spread, reps(400), 11, draws=1000, resampled=reps(400))
                    yield [name, n, p, cell["interval"], cell["BCa"], cell["percentile"],
                           cell["interval width"], cell["BCa width"]]  # fmt: skip

    told("Five samples: the bootstrap beside the interval (1,000 draws)",
         ["difficulties", "problems", "p", "interval", "BCa", "percentile", "width",
          "BCa's"], resampled())  # fmt: skip

    cases = ((0.02, 0.02, 0.5), (0.10, 0.10, 0.6), (0.01, 0.01, 0.96), (0.08, 0.03, 0.6),
             (0.15, 0.0, 0.8), (0.03, 0.0, 0.95), (0.05, 0.02, 0.02),
             (0.30, 0.10, 0.3))  # fmt: skip

    def paired() -> Iterator[list[object]]:
        for a, b, both in cases:
            for n in PROBLEMS:
                cell = pairs(n, a, b, both, reps(4000), 12)
                yield [a, b, both, n, cell["tango"], cell["newcombe"], cell["wald"],
                       cell["tango width"], cell["mid-p"], cell["unpaired z"],
                       cell["disagree"]]  # fmt: skip

    told("Pairs, one sample a problem: coverage; size (first three cases) and power of the tests",
         ["only A", "only B", "both", "problems", "Tango", "Newcombe 10", "Wald t", "width",
          "mid-p finds", "unpaired z finds", "mid-p and interval disagree"], paired())  # fmt: skip

    settings = {"equal, half solved": (0, 0, 3, 0.5), "equal, 87% solved": (4, 0, 3, 0.3),
                "equal, own strengths": (0, 0, 6, 1.5), "A better, half": (0, 0.5, 3, 0.5),
                "A better, 90%": (4, 0.5, 3, 0.3), "A better, 99%": (6, 0.5, 2, 0),
                "A better, 6%": (-6, 0.5, 3, 0.3)}  # fmt: skip

    def several_paired() -> Iterator[list[object]]:
        for name, (base, gap, spread, own) in settings.items():
            for samples in (5, 10):
                for n in (30, 164, 378):
                    cell = several_pairs(n, samples, base, gap, spread, own, reps(1000), 13)
                    yield [name, samples, n, cell["t"], cell["t width"], cell["found"]]

    told("Pairs, several samples: coverage of the paired t; size (equal) and power",
         ["truth", "samples", "problems", "t", "width", "finds"], several_paired())  # fmt: skip

    def paired_resampled() -> Iterator[list[object]]:
        for name, (base, gap, spread, own) in settings.items():
            for n in (30, 164):
                cell = several_pairs(n, 5, base, gap, spread, own, reps(300), 14,
                                     draws=1000, resampled=reps(300))  # fmt: skip
                yield [name, n, cell["t"], cell["percentile"], cell["BCa"]]

    told("Pairs, five samples: the bootstrap beside the paired t (1,000 draws)",
         ["truth", "problems", "t", "percentile, widened", "BCa"], paired_resampled())  # fmt: skip

    strata = (((0.5, 0.9, 0.7), (300, 131, 341)), ((0.97, 0.97, 0.97), (300, 131, 341)),
              ((0.05, 0.97, 0.5), (300, 131, 341)), ((0.99, 0.99, 0.99), (148, 164, 378)),
              ((0.05, 0.05, 0.05), (30, 30, 30)), ((0.97, 0.97, 0.97), (30, 30, 30)),
              ((0.6, 0.99, 0.8), (1140, 164, 378)),
              ((0.9, 0.995, 0.95), (30, 164, 378)))  # fmt: skip

    def overall() -> Iterator[list[object]]:
        for shares, sizes in strata:
            cell = means(shares, sizes, reps(4000), 15)
            yield [", ".join(map(str, shares)), ", ".join(map(str, sizes)), cell["micro"],
                   cell["micro delta"], cell["macro"], cell["macro delta"]]  # fmt: skip

    told("Means over benchmarks: coverage (of the plain delta method)",
         ["scores", "problems", "micro", "delta", "macro", "delta"], overall())  # fmt: skip

    def costs() -> Iterator[list[object]]:
        for base, harder in ((0, 0.0), (0, 0.4), (3, 0.4), (-3, 0.4)):
            for samples in (1, 5):
                for n in (30, 164, 378, 1140):
                    cell = solved_costs(n, samples, base, harder, reps(2000), 16)
                    yield [{0: "half", 3: "84%", -3: "16%"}[base], "yes" if harder else "no",
                           samples, n, cell["log"], cell["delta"], cell["relative width"],
                           cell["mean"]]  # fmt: skip

    told("Cost per solved problem: coverage; and of a mean cost by Student's t",
         ["solved", "harder costs more", "samples", "problems", "log scale", "plain delta",
          "width / truth", "mean cost"], costs())  # fmt: skip

    def ranked() -> Iterator[list[object]]:
        groups = {"10 equal": [0.0] * 10, "5 + 5": [0.0] * 5 + [0.6] * 5,
                  "10 apart": [0.2 * k for k in range(10)]}  # fmt: skip
        for name, abilities in groups.items():
            for samples in (1, 5):
                for n in (164, 1140):
                    cell = tables_of_ranks(n, samples, abilities, reps(1000), 17)
                    yield [name, samples, n, cell["all"], cell["places"]]

    told("Ranks of ten systems: how often every range holds its true place; mean places in a range",
         ["systems", "samples", "problems", "all hold", "places"], ranked())  # fmt: skip

    def best_found() -> Iterator[list[object]]:
        for systems in (2, 4, 8, 14):
            cell = daggers(164, systems, reps(2000), 19)
            yield [systems, cell["best"], cell["pairs"]]

    told("Equal systems, 164 problems: how often one is called worse than the best (meant: 0.05)",
         ["systems", "Holm over pairs with the best", "Holm over all pairs"],
         best_found())  # fmt: skip

    def detectable() -> Iterator[list[object]]:
        for n in PROBLEMS:
            for discordant in (0.05, 0.15, 0.32):
                cell = found_difference(n, discordant, reps(4000), 18)
                yield [n, discordant, detectable_difference(n, discordant) or 1.0, cell["mid-p"]]

    told("The smallest detectable difference: how often mid-p finds it (meant: 0.8)",
         ["problems", "discordant", "difference", "found"], detectable())  # fmt: skip


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--fast", action="store_true", help="a tenth of the repetitions")
    report(0.1 if asked.parse_args().fast else 1.0, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
