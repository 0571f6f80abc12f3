"""Two systems and many: each number against a case worked by hand, or against brute force."""

import itertools
import math
import random
from statistics import fmean, stdev

import pytest

from harness.metrics import Tally, detectable_difference, t_tail
from harness.paired import (
    MCNEMAR,
    NO_TEST,
    PAIRED_T,
    Pair,
    Rank,
    difference,
    holm,
    mcnemar,
    paired_bootstrap,
    pairwise,
    ranks,
    t_test,
    tango,
    tie_groups,
)
from tests.sim_coverage import (
    between,
    daggers,
    found_difference,
    pairs,
    several_pairs,
    tables_of_ranks,
)

Outcomes = dict[str, Tally]


def single(verdicts: str) -> Outcomes:
    """One sample a problem: 1 passed, 0 failed, ? errored; a blank was not asked."""
    tallies = {"1": Tally(1, 1, 1), "0": Tally(0, 1, 1), "?": Tally(0, 0, 1)}
    return {f"p{n}": tallies[x] for n, x in enumerate(verdicts) if x != " "}


def of(samples: int, *passed: int) -> Outcomes:
    return {f"p{n}": Tally(k, samples, samples) for n, k in enumerate(passed)}


def test_mcnemars_mid_p_worked_by_hand() -> None:
    # 10 discordant, 2 and 8: 1 + 10 ways below 2, 45 with 2, of 1024: (2 * 11 + 45) / 1024
    assert mcnemar(2, 8) == mcnemar(8, 2) == pytest.approx(67 / 1024)
    assert mcnemar(0, 5) == pytest.approx(1 / 32)
    assert mcnemar(4, 4) == mcnemar(0, 0) == 1.0


def test_mcnemars_mid_p_agrees_with_flipping_every_coin() -> None:
    for n in range(1, 11):
        sums = [sum(flips) for flips in itertools.product((0, 1), repeat=n)]
        for k in range(n + 1):
            far = abs(2 * k - n)
            beyond = sum(abs(2 * s - n) > far for s in sums)
            same = sum(abs(2 * s - n) == far for s in sums)
            expected = 1.0 if far == 0 else (beyond + same / 2) / 2**n
            assert mcnemar(k, n - k) == pytest.approx(expected)


def test_mcnemars_mid_p_stays_exact_for_many_problems() -> None:
    # 570 of 1,140: the normal approximation is good to three digits there
    p = mcnemar(530, 610)
    z = 80 / math.sqrt(1140)
    assert p == pytest.approx(math.erfc(z / math.sqrt(2)), rel=2e-3)
    assert mcnemar(0, 1000) == pytest.approx(2.0**-1000)


def test_tangos_interval_has_its_closed_forms() -> None:
    # no problem differs: +-z^2 / (n + z^2), of 10 problems 3.8415 / 13.8415
    assert tango(0, 0, 10) == pytest.approx((-0.27754, 0.27754), abs=1e-5)
    # at z = (9 - 3) / sqrt(9 + 3) McNemar's test is just met: the lower limit is 0
    assert tango(9, 3, 40, z=6 / math.sqrt(12))[0] == pytest.approx(0, abs=1e-9)
    assert tango(7, 0, 7)[1] == pytest.approx(1)
    low, high = tango(5, 12, 60)
    assert tango(12, 5, 60) == pytest.approx((-high, -low))


def test_tangos_limits_are_where_a_score_test_turns_found_by_another_way() -> None:
    def score(b: int, c: int, n: int, shift: float) -> float:
        """The score statistic at a difference, its nuisance share found by maximising."""

        def likelihood(q: float) -> float:
            terms = ((b, q + shift), (c, q), (n - b - c, 1 - 2 * q - shift))
            return sum(k * math.log(x) for k, x in terms if k)

        low, high = max(0.0, -shift) + 1e-13, (1 - shift) / 2 - 1e-13
        for _ in range(200):  # a golden section would do; the likelihood has one peak
            third = (high - low) / 3
            if likelihood(low + third) < likelihood(high - third):
                low += third
            else:
                high -= third
        return (b - c - n * shift) / math.sqrt(n * (low + high + shift * (1 - shift)))

    for b, c, n in ((9, 3, 40), (4, 0, 30), (20, 22, 164), (1, 6, 148)):
        low, high = tango(b, c, n)
        assert score(b, c, n, low) == pytest.approx(1.959964, abs=1e-4)
        assert score(b, c, n, high) == pytest.approx(-1.959964, abs=1e-4)


def test_a_difference_of_single_samples_worked_by_hand() -> None:
    a, b = single("1111110000"), single("1100001000")
    found = difference(a, b)
    assert (found.only_a, found.only_b, found.both, found.neither) == (4, 1, 2, 3)
    assert found.value == pytest.approx(0.3)
    assert found.test == MCNEMAR
    # 5 discordant, 1 and 4: (2 * 1 + 5) / 32
    assert found.p == pytest.approx(7 / 32)
    assert (found.low, found.high) == tango(4, 1, 10)
    assert (found.problems, found.discordant, found.errored) == (10, 0.5, 0)
    assert found.floor == found.ceiling == pytest.approx(0.3)
    back = difference(b, a)
    assert (back.value, back.low, back.p) == (-0.3, pytest.approx(-(found.high or 0)), found.p)


def test_a_problem_without_a_verdict_of_one_side_is_dropped_by_name_and_bounded() -> None:
    found = difference(single("11?0 1"), single("10110 "))
    assert found.problems == 3  # p0, p1, p3
    assert found.value == pytest.approx((0 + 1 - 1) / 3)
    assert found.dropped_a == ("p2", "p4")
    assert found.dropped_b == ("p5",)
    # p0 to p3 were asked of both; A's p2 fails or passes beside B's pass
    assert found.errored == 1
    assert found.floor == pytest.approx((0 + 1 - 1 - 1) / 4)
    assert found.ceiling == pytest.approx((0 + 1 + 0 - 1) / 4)


def test_nothing_in_common_is_unknown_and_not_a_tie() -> None:
    found = difference(single("1 ?"), single(" 11"))
    assert (found.value, found.low, found.p, found.test) == (None, None, None, NO_TEST)
    assert (found.discordant, found.detectable) == (None, None)
    assert found.dropped_a == ("p1", "p2")
    assert paired_bootstrap(single("1"), single(" 1")) is None


def test_several_samples_worked_by_hand() -> None:
    # shares of A 1, 1/2, 1, 0, of B 1/2, 1/2, 0, 0: differences 1/2, 0, 1, 0, mean 3/8,
    # squares 5/4, variance (5/4 - 4 * 9/64) / 3 = 0.22917, t = 0.375 / sqrt(0.22917 / 4)
    found = difference(of(2, 2, 1, 2, 0), of(4, 2, 2, 0, 0))
    assert found.value == pytest.approx(0.375)
    assert found.test == PAIRED_T
    assert found.p == pytest.approx(t_tail(0.375 / math.sqrt(0.229167 / 4), 3), rel=1e-5)
    reach = 3.182446 * math.sqrt(0.229167 / 4)
    assert found.low == pytest.approx(0.375 - reach, abs=1e-6)
    assert found.high == 1.0  # 0.375 + 0.762
    assert (found.only_a, found.only_b, found.both, found.neither) == (2, 0, 1, 1)
    # t quantile + 0.8416 standard errors: (3.1824 + 0.8416) * 0.23936
    assert found.detectable == pytest.approx(0.96319, abs=1e-4)


def test_several_samples_agree_with_the_textbook_t_on_random_results() -> None:
    draw = random.Random(4)
    for _ in range(30):
        n, k, m = draw.randrange(3, 40), draw.randrange(2, 7), draw.randrange(1, 7)
        a = of(k, *(draw.randrange(k + 1) for _ in range(n)))
        b = of(m, *(draw.randrange(m + 1) for _ in range(n)))
        off = [a[x].passed / k - b[x].passed / m for x in a]
        found = difference(a, b)
        assert found.value == pytest.approx(fmean(off))
        expected = t_tail(fmean(off) / (stdev(off) / math.sqrt(n)), n - 1)
        assert found.p == pytest.approx(expected, rel=1e-6)


def test_differences_without_spread_are_not_sure_of_themselves() -> None:
    same = difference(of(5, 5, 0, 3), of(5, 5, 0, 3))
    assert (same.value, same.p) == (0.0, 1.0)
    assert (same.low, same.high) == tango(0, 0, 3)
    shifted = difference(of(5, 2, 3, 4), of(5, 1, 2, 3))
    # three problems, all in one direction: twice one way of eight, less half of it twice
    assert (shifted.p, shifted.test, shifted.detectable) == (0.125, MCNEMAR, None)
    assert shifted.low is not None
    assert shifted.low < 0 < (shifted.high or 0)
    alone = difference(of(5, 5), of(5, 0))
    assert (alone.value, alone.p, alone.high) == (1.0, 0.5, 1.0)
    assert t_test(0.5, 0.0, 9) == mcnemar(9, 0) == 2**-9


def test_all_against_nothing_is_a_difference_however_often_problems_were_sampled() -> None:
    every, none = of(2, *[2] * 50), of(2, *[0] * 50)
    half = of(2, *[1] * 50)
    found = difference(every, none)
    assert (found.value, found.p, found.test) == (1.0, 2.0**-50, MCNEMAR)
    assert found.low is not None
    assert found.low > 0.85
    assert found.detectable == detectable_difference(50, 1.0)
    assert difference(none, every).p == found.p
    systems = {"half": half, "every": every, "none": none}
    assert tie_groups(systems) == {"half": Rank(2, 2), "every": Rank(1, 1), "none": Rank(3, 3)}
    assert pairwise(systems)["half", "none"].p == difference(half, none).p == 2.0**-50
    # as one sample of each would have it, but for what the interval is worth
    once = difference(of(1, *[1] * 50), of(1, *[0] * 50))
    assert (once.p, once.low, once.high) == (found.p, found.low, found.high)


def test_the_paired_bootstrap_is_seeded_and_near_the_t() -> None:
    draw = random.Random(5)
    a = of(5, *(draw.randrange(6) for _ in range(164)))
    b = of(5, *(draw.randrange(6) for _ in range(164)))
    found, drawn = difference(a, b), paired_bootstrap(a, b)
    assert drawn == paired_bootstrap(a, b) != paired_bootstrap(a, b, seed=1)
    assert drawn is not None
    assert drawn[0] == pytest.approx(found.low, abs=0.012)
    assert drawn[1] == pytest.approx(found.high, abs=0.012)
    assert paired_bootstrap(of(2, 1, 2), of(2, 1, 2)) == tango(0, 0, 2)


def test_holm_worked_by_hand() -> None:
    # in order .005 * 4, .01 * 3, .03 * 2, and .04 * 1 lifted to the one before it
    found = holm([0.01, 0.04, None, 0.03, 0.005])
    assert found == [pytest.approx(0.03), pytest.approx(0.06), None, pytest.approx(0.06),
                     pytest.approx(0.02)]  # fmt: skip
    assert holm([]) == []
    assert holm([None, None]) == [None, None]
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_holm_agrees_with_closed_testing() -> None:
    # an hypothesis falls when every set with it falls by Bonferroni: the largest of these p-values
    draw = random.Random(6)
    for _ in range(40):
        ps = [round(draw.random() ** 3, 3) for _ in range(draw.randrange(1, 7))]
        sets = [s for r in range(1, len(ps) + 1) for s in itertools.combinations(range(len(ps)), r)]
        for place, found in enumerate(holm(ps)):
            worst = max(min(1.0, len(s) * min(ps[i] for i in s)) for s in sets if place in s)
            assert found == pytest.approx(worst)


def test_every_pair_agrees_with_the_difference_of_two() -> None:
    draw = random.Random(7)

    def system(samples: int, least: int) -> Outcomes:
        made = {}
        for n in range(40):
            if draw.random() < 0.9:
                graded = draw.randrange(least, samples + 1)
                made[f"p{n}"] = Tally(draw.randrange(graded + 1), graded, samples)
        return made

    systems = {"a": system(1, 1), "b": system(1, 0), "c": system(1, 1), "d": system(5, 5),
               "e": system(4, 0), "f": {}, "g": system(6, 1)}  # fmt: skip
    found = pairwise(systems)
    assert list(found) == list(itertools.combinations(systems, 2))
    for (a, b), pair in found.items():
        made = difference(systems[a], systems[b])
        assert (pair.value, pair.problems) == (made.value, made.problems)
        assert pair.p == (None if made.p is None else pytest.approx(made.p, rel=1e-9))
    assert [p.adjusted for p in found.values()] == holm([p.p for p in found.values()])
    assert found["a", "f"] == Pair(None, None, None, 0)


def pair(value: float, adjusted: float | None) -> Pair:
    return Pair(value, adjusted, adjusted, 100)


def test_ranks_worked_by_hand() -> None:
    # a over c and d, b over d: a has 2 below it, b has 1, c has 1 above, d has 2
    pairs = {("a", "b"): pair(0.1, 0.3), ("a", "c"): pair(0.2, 0.01), ("a", "d"): pair(0.4, 0.001),
             ("b", "c"): pair(0.1, 0.2), ("d", "b"): pair(-0.3, 0.04),
             ("c", "d"): pair(0.2, 0.05)}  # fmt: skip
    found = ranks("abcd", pairs)
    assert found == {"a": Rank(1, 2), "b": Rank(1, 3), "c": Rank(2, 4), "d": Rank(3, 4)}
    assert [str(rank) for rank in found.values()] == ["1-2", "1-3", "2-4", "3-4"]
    assert str(Rank(2, 2)) == "2"
    assert ranks("abcd", pairs, level=0.005) == {
        "a": Rank(1, 3), "b": Rank(1, 4), "c": Rank(1, 4), "d": Rank(2, 4),
    }  # fmt: skip


def test_better_than_one_who_is_better_than_a_third_is_better_than_the_third() -> None:
    # a over b and b over c are shown; a over c is not, for their results go together less
    pairs = {("a", "b"): pair(0.1, 0.01), ("b", "c"): pair(0.1, 0.01), ("a", "c"): pair(0.2, 0.2)}
    assert ranks("abc", pairs) == {"a": Rank(1, 1), "b": Rank(2, 2), "c": Rank(3, 3)}


def test_whoever_is_better_stands_higher_at_both_ends() -> None:
    draw = random.Random(8)
    for _ in range(300):
        scores = {name: draw.random() for name in "abcdefg"}
        made = {
            (a, b): pair(scores[a] - scores[b], draw.choice((0.001, 0.2, None)))
            for a, b in itertools.combinations(scores, 2)
        }
        found = ranks("abcdefg", made)
        for (a, b), one in made.items():
            if one.adjusted == 0.001:
                better, worse = (a, b) if (one.value or 0) > 0 else (b, a)
                assert found[better].first < found[worse].first
                assert found[better].last < found[worse].last
        assert all(1 <= rank.first <= rank.last <= 7 for rank in found.values())


def test_a_circle_of_better_ones_is_a_tie() -> None:
    pairs = {("a", "b"): pair(0.1, 0.01), ("b", "c"): pair(0.1, 0.01), ("c", "a"): pair(0.1, 0.01),
             ("a", "d"): pair(0.1, 0.01)}  # fmt: skip
    found = ranks("abcd", pairs)
    assert {found[name] for name in "abc"} == {Rank(1, 3)}
    assert found["d"] == Rank(4, 4)


def test_tie_groups_of_outcomes() -> None:
    strong, weak = single("1" * 60 + "0" * 40), single("1" * 20 + "0" * 80)
    close = single("1" * 58 + "0" * 42)
    found = tie_groups({"weak": weak, "strong": strong, "close": close, "new": {}})
    assert found == {"weak": Rank(3, 4), "strong": Rank(1, 3), "close": Rank(1, 3),
                     "new": Rank(1, 4)}  # fmt: skip
    assert tie_groups({}) == {}
    assert tie_groups({"one": strong}) == {"one": Rank(1, 1)}


def test_the_paired_interval_and_test_of_single_samples_hold_in_simulation() -> None:
    equal = pairs(164, 0.1, 0.1, 0.6, 3000, 3)
    assert between(equal, "tango", 0.94, 0.96)
    assert between(equal, "mid-p", 0.035, 0.055)
    one_sided = pairs(164, 0.03, 0.0, 0.95, 3000, 3)
    assert between(one_sided, "tango", 0.94, 0.985)
    assert not between(one_sided, "wald", 0.94, 0.985)
    worse = pairs(378, 0.08, 0.03, 0.6, 3000, 3)
    assert between(worse, "mid-p", 0.84, 0.88)
    assert worse["unpaired z"] < 0.2


def test_the_paired_t_holds_in_simulation() -> None:
    equal = several_pairs(164, 5, 4, 0, 3, 0.3, 600, 3)
    assert between(equal, "t", 0.93, 0.97)
    assert between(equal, "found", 0.03, 0.07)
    better = several_pairs(164, 5, 0, 0.5, 3, 0.5, 300, 3)
    assert between(better, "t", 0.93, 0.97)
    assert between(better, "found", 0.82, 0.9)


def test_the_detectable_difference_is_found_by_mid_p_four_times_in_five() -> None:
    assert between(found_difference(164, 0.32, 2000, 3), "mid-p", 0.78, 0.83)


def test_what_is_worse_than_the_best_is_asked_over_all_pairs() -> None:
    equal = daggers(164, 14, 400, 3)
    assert between(equal, "pairs", 0.01, 0.05)
    assert equal["best"] > 0.13  # what forgets that the best was found in the same data


def test_all_places_lie_in_their_ranges_in_simulation() -> None:
    found = tables_of_ranks(164, 1, [0.0] * 5 + [0.6] * 3, 150, 3)
    assert between(found, "all", 0.95, 0.9999)
    assert found["places"] < 7.9
