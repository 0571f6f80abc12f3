"""Each metric against a case worked by hand, or against a printed table."""

import math
import random

import pytest

from harness.metrics import (
    Z95,
    Tally,
    bootstrap,
    count,
    detectable_difference,
    dollars,
    duration,
    half_up,
    interval,
    p_value,
    pass_at,
    pass_at_1,
    pass_at_k,
    percent,
    points,
    t_quantile,
    t_tail,
    tally,
    wilson,
)
from tests.sim_coverage import between, exact_coverage, several


def test_wilson_agrees_with_a_case_worked_by_hand() -> None:
    # 8 of 10, z = 2: middle 0.8 + 0.2 = 1.0, reach 2 * sqrt(0.016 + 0.01) = 0.3225, scale 1.4
    low, high = wilson(8, 10, z=2)
    assert low == pytest.approx((1.0 - 0.32249) / 1.4, abs=1e-5)
    assert high == pytest.approx((1.0 + 0.32249) / 1.4, abs=1e-5)


def test_wilson_ends_at_exactly_0_and_1_where_all_failed_or_passed() -> None:
    for n in range(1, 400):
        assert wilson(n, n)[1] == 1.0
        assert wilson(0, n)[0] == 0.0


def test_wilson_never_leaves_the_unit_interval_and_is_wide_at_the_ends() -> None:
    assert wilson(10, 10) == pytest.approx((0.72247, 1.0), abs=1e-5)
    assert wilson(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("freedom", "table"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (5, 2.5706), (10, 2.2281), (30, 2.0423),
     (163, 1.9746), (1139, 1.9620)],
)  # fmt: skip
def test_t_quantile_agrees_with_the_printed_table(freedom: int, table: float) -> None:
    assert t_quantile(freedom) == pytest.approx(table, abs=6e-5)


def test_the_tail_of_t_agrees_with_closed_forms_and_with_counting() -> None:
    # one degree of freedom: 1 - 2 atan(t) / pi; two: 1 - t / sqrt(2 + t * t)
    for t in (0.001, 0.3, 1.0, 2.5, 40.0):
        assert t_tail(t, 1) == pytest.approx(1 - 2 * math.atan(t) / math.pi, rel=1e-9)
        assert t_tail(-t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-9)
    # any other: twice the area under the density from t on, by Simpson's rule
    for freedom, t in ((5, 1.3), (29, 2.0), (163, 0.4), (1139, 2.2)):
        constant = math.exp(
            math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
        ) / math.sqrt(freedom * math.pi)  # fmt: skip
        steps, width = 20_000, t / 20_000
        heights = [
            constant * (1 + (k * width) ** 2 / freedom) ** (-(freedom + 1) / 2)
            for k in range(steps + 1)
        ]
        inside = heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2])
        assert t_tail(t, freedom) == pytest.approx(1 - 2 * inside * width / 3, abs=1e-9)
    assert (t_tail(0.0, 7), t_tail(1e-200, 7), t_tail(1e200, 7)) == (1.0, 1.0, 0.0)


def test_pass_at_k_agrees_with_counting_the_draws() -> None:
    assert pass_at_k(4, 2, 1) == pytest.approx(0.5)
    assert pass_at_k(4, 2, 2) == pytest.approx(1 - 1 / 6)  # one of the six pairs has no pass
    assert pass_at_k(4, 0, 3) == 0
    assert pass_at_k(4, 2, 3) == 1
    with pytest.raises(ValueError, match="k=5"):
        pass_at_k(4, 2, 5)


def test_one_sample_a_problem_gets_the_wilson_interval() -> None:
    estimate = pass_at_1({"a": [True], "b": [True], "c": [False], "d": [True]})
    assert estimate.value == 0.75
    assert (estimate.low, estimate.high) == wilson(3, 4)
    assert (estimate.problems, estimate.samples, estimate.errored) == (4, 4, 0)


def test_several_samples_are_clustered_by_problem() -> None:
    estimate = pass_at_1({"a": [True, True], "b": [False, False], "c": [True, False]})
    # shares 1, 0, 1/2: mean 0.5, variance 0.25. A single sample a problem would have 0.25 as well:
    # three effective problems. t with 2 degrees is 4.3027, its square 18.513: middle
    # (0.5 + 18.513 / 6) / (1 + 18.513 / 3) = 0.5, reach 4.3027 * sqrt(0.25 / 3 + 18.513 / 36)
    # / 7.171 = 0.4638
    assert estimate.value == 0.5
    assert (estimate.low, estimate.high) == pytest.approx((0.0362, 0.9638), abs=1e-4)
    # shares 1 and 1/2 in turn, 100 problems: variance 6.25 / 99, so 0.1875 * 100 * 99 / 6.25 = 297
    # effective problems, at t = 1.98422
    many = pass_at_1({f"{i}": [i % 2 == 0, True] for i in range(100)})
    assert many.value == 0.75
    assert (many.low, many.high) == pytest.approx(wilson(0.75 * 297, 297, 1.98422), abs=1e-5)


def test_samples_that_add_nothing_leave_the_interval_of_single_ones() -> None:
    once = pass_at_1({f"{i}": [i % 4 == 0] for i in range(400)})
    tenfold = pass_at_1({f"{i}": [i % 4 == 0] * 10 for i in range(400)})
    assert tenfold.value == once.value
    assert (tenfold.low, tenfold.high) == pytest.approx((once.low, once.high), abs=5e-4)


def test_an_interval_stays_within_0_and_1_and_never_has_no_width() -> None:
    for mean, deviation in ((0.001, 0.03), (0.999, 0.03), (0.5, 0.0), (1 / 3, 1e-17), (1.0, 0.0)):
        low, high = interval(mean, deviation, 50, single=False)
        assert 0 <= low < high <= 1
        assert low <= mean <= high


def test_a_problem_weighs_the_same_however_often_it_was_sampled() -> None:
    assert pass_at_1({"a": [True] * 9, "b": [False]}).value == 0.5


def test_samples_that_all_agree_still_get_an_interval() -> None:
    estimate = pass_at_1({"a": [True, True], "b": [True, True]})
    assert (estimate.low, estimate.high) == wilson(2, 2)


def test_an_errored_sample_is_in_no_mean_and_is_bounded() -> None:
    estimate = pass_at_1({"a": [True], "b": [False], "c": [None], "d": [None]})
    assert estimate.value == 0.5
    assert (estimate.problems, estimate.samples, estimate.errored) == (2, 2, 2)
    assert (estimate.floor, estimate.ceiling) == (0.25, 0.75)


def test_nothing_graded_is_unknown_and_not_zero() -> None:
    empty = pass_at_1({})
    assert (empty.value, empty.low, empty.high, empty.floor) == (None, None, None, None)
    errored = pass_at_1({"a": [None]})
    assert (errored.value, errored.floor, errored.ceiling) == (None, 0.0, 1.0)


def test_pass_at_k_is_the_mean_over_problems_with_its_interval() -> None:
    # of 4 samples 2, 0 and 4 passed: pass@2 is 5/6, 0 and 1
    made = pass_at({"a": Tally(2, 4, 4), "b": Tally(0, 4, 4), "c": Tally(4, 4, 4)}, 2)
    assert made.value == pytest.approx((5 / 6 + 0 + 1) / 3)
    assert made.low is not None
    assert made.high is not None
    assert 0 < made.low < made.value < made.high < 1


def test_pass_at_k_is_undefined_beyond_the_graded_samples_of_any_problem() -> None:
    short = {"a": Tally(2, 4, 4), "b": Tally(1, 1, 2), "c": Tally(0, 0, 2)}
    made = pass_at(short, 2)
    assert (made.value, made.low, made.high) == (None, None, None)
    assert (made.problems, made.samples, made.errored) == (2, 5, 3)
    # were all errored samples failures: pass@2 of 2 in 4, 1 in 2, 0 in 2; or all passed
    assert made.floor == pytest.approx((5 / 6 + 1 + 0) / 3)
    assert made.ceiling == pytest.approx((5 / 6 + 1 + 1) / 3)
    assert pass_at(short, 3).floor is None
    with pytest.raises(ValueError, match="k >= 1"):
        pass_at(short, 0)


def test_a_tally_counts_what_passed_what_was_graded_and_all() -> None:
    assert tally([True, None, False, True]) == Tally(2, 3, 4)
    assert pass_at({"a": tally([True, None])}) == pass_at_1({"a": [True, None]})


def test_the_bootstrap_agrees_with_enumerating_every_draw() -> None:
    # values 0, 0, 1: of the 27 draws of three, 8 have mean 0, 12 have 1/3, 6 have 2/3, 1 has 1.
    # Percentiles 2.5 and 97.5 are 0 and 1 (only 1 of 27 = 3.7% has 1, and 26 of 27 = 96.3% less).
    mean, wider = 1 / 3, 4.302652730 / Z95 * math.sqrt(3 / 2)
    low, high = bootstrap([0.0, 0.0, 1.0], draws=20_000, corrected=False)
    assert low == pytest.approx(mean + wider * (0 - mean))
    assert high == pytest.approx(mean + wider * (1 - mean))
    # BCa: below the mean 8/27, at it 12/27, so bias = inv_cdf(14/27) = 0.0465; skewness
    # ((2/3)^3 - 2/27) / (6 (2/3)^1.5) = 0.0680; the ends are at cdf(-1.6340) = 5.1% and
    # cdf(2.3710) = 99.1%: 0 and 1 again
    assert bootstrap([0.0, 0.0, 1.0], draws=20_000) == (0.0, 1.0)


def test_the_corrected_bootstrap_leans_to_the_longer_tail() -> None:
    values = [1.0] * 95 + [0.0] * 5
    mean = 0.95
    low, high = bootstrap(values)
    plain_low, plain_high = bootstrap(values, corrected=False)
    assert mean - low > high - mean
    assert low < plain_low
    assert high < plain_high
    assert bootstrap(values) == bootstrap(values)  # seeded
    assert bootstrap(values, seed=1) != bootstrap(values, seed=2)


def test_a_bootstrap_without_spread_has_no_width_and_without_values_is_refused() -> None:
    assert bootstrap([0.25] * 9) == (0.25, 0.25)
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap([])


def test_a_half_is_rounded_up_as_papers_print_it() -> None:
    assert percent(0.6125) == "61.3"
    assert percent(0.5) == "50.0"
    assert percent(1.0, 0) == "100"
    assert percent(None) == "unknown"
    assert percent(-0.0004) == "0.0"
    assert [half_up(x, 1) for x in (0.25, -0.25, -0.04, 1234.05)] == [
        "0.3",
        "-0.3",
        "0.0",
        "1,234.1",
    ]


def test_a_half_stays_a_half_through_the_arithmetic_of_floats() -> None:
    share = sum([91 / 400 / 7] * 7)
    noisy = math.nextafter(math.nextafter(0.2275, 0), 0)
    assert percent(91 / 400) == percent(share) == percent(noisy) == "22.8"
    assert points(noisy - 1) == "-77.3"  # -77.25
    assert half_up(math.nextafter(22.75, 0), 1) == "22.8"
    assert percent(0.2274999) == "22.7"  # a true digit stays
    assert half_up(22.7499999, 1) == "22.7"
    assert half_up(123456789012.05, 1) == "123,456,789,012.1"
    for of in (80, 160, 200, 400, 1140):
        for passed in range(of + 1):
            whole, rest = divmod(passed * 1000, of)
            tenths = whole + (2 * rest >= of)
            expected = f"{tenths // 10}.{tenths % 10}"
            assert percent(passed / of) == expected
            assert percent(math.fsum([passed / of / 3] * 3)) == expected


def test_durations_are_rounded_as_all_numbers_are() -> None:
    assert [duration(x) for x in (0, 0.0425, 0.125, 0.4, 0.996, 59.94, 59.96, 60.5, 3599.5)] == [
        "0 s", "0.043 s", "0.13 s", "0.4 s", "1.0 s", "59.9 s", "1 min 0 s", "1 min 1 s",
        "1 h 0 min",
    ]  # fmt: skip
    assert duration(1e-5) == "0.00001 s"
    assert duration(math.inf) == "inf s"


def test_numbers_beyond_all_measure_are_printed_all_the_same() -> None:
    assert half_up(1e300, 1).startswith("1,000,")
    assert (count(math.inf), count(math.nan)) == ("inf", "nan")


def test_differences_have_a_sign_and_small_p_values_an_end() -> None:
    said = [points(x) for x in (0.0494, -0.05, 0.0004, -0.0004, 0.0, None)]
    assert said == ["+4.9", "-5.0", "0.0", "0.0", "0.0", "unknown"]
    assert [p_value(x) for x in (0.0005, 0.001, 0.0625, 1.0, None)] == [
        "< 0.001", "0.001", "0.063", "1.000", "unknown",
    ]  # fmt: skip


def test_small_amounts_keep_three_digits_and_unknown_is_said() -> None:
    assert dollars(0.0) == "$0.00"
    assert dollars(0.000123456) == "$0.000123"
    assert dollars(0.5) == "$0.500"
    assert dollars(0.9999) == "$1.000"
    assert dollars(1234.5) == "$1,234.50"
    assert dollars(-5.0) == "-$5.00"
    assert dollars(2.345) == "$2.35"
    assert dollars(None) == "unknown"


def test_counts_and_durations_read_as_words() -> None:
    assert [count(x) for x in (3, 3.25, 12345.6, None)] == ["3", "3.3", "12,346", "unknown"]
    assert [duration(x) for x in (0.42, 12.34, 245, 7800, -5, None)] == [
        "0.42 s", "12.3 s", "4 min 5 s", "2 h 10 min", "-5.0 s", "unknown",
    ]  # fmt: skip


def power(problems: int, discordant: float, difference: float, runs: int = 1000) -> float:
    """How often McNemar's test finds a true difference, in simulated pairs of runs."""
    draw = random.Random(7)
    better, worse = (discordant + difference) / 2, (discordant - difference) / 2
    found = 0
    for _ in range(runs):
        draws = [draw.random() for _ in range(problems)]
        only_a = sum(x < better for x in draws)
        only_b = sum(better <= x < better + worse for x in draws)
        both = only_a + only_b
        found += bool(both) and (only_a - only_b) ** 2 / both >= 1.96**2
    return found / runs


@pytest.mark.parametrize(
    ("problems", "discordant"), [(148, 0.25), (164, 0.15), (164, 0.32), (378, 0.15), (1140, 0.15)]
)
def test_the_detectable_difference_is_found_four_times_in_five(
    problems: int, discordant: float
) -> None:
    difference = detectable_difference(problems, discordant)
    assert difference is not None
    assert 0.75 < power(problems, discordant, difference) < 0.85
    assert power(problems, discordant, 0.8 * difference) < 0.72


def test_the_detectable_difference_worked_by_hand_and_its_ends() -> None:
    # 400 problems, 0.16 differ: d * 20 = 1.96 * 0.4 + 0.8416 * sqrt(0.16 - d * d), d = 0.0558
    assert detectable_difference(400, 0.16) == pytest.approx(0.0558, abs=1e-4)
    assert detectable_difference(3) is None
    found = [detectable_difference(n) or 1.0 for n in (4, 10, 30, 100, 1000)]
    assert found == sorted(found, reverse=True)
    assert found[1] > 0.15  # more problems have to differ than were assumed to


def test_wilsons_interval_covers_as_it_says_by_enumeration() -> None:
    for problems in (148, 164, 378):
        for share in (0.05, 0.3, 0.5, 0.9, 0.97):
            held, plain = exact_coverage(problems, share)
            assert 0.94 < held < 0.97
            assert held > plain - 0.01
    assert exact_coverage(164, 0.97)[1] < 0.88  # what the plain interval is not used for


def test_the_interval_of_several_samples_covers_as_it_says_in_simulation() -> None:
    for problems, share, spread in ((30, 0.97, 2.0), (164, 0.97, 0.3), (164, 0.9, 2.0)):
        found = several(problems, share, 5, spread, 1500, 3)
        assert between(found, "interval", 0.93, 0.98)
        if problems == 30:
            assert not between(found, "t", 0.93, 0.98)  # which it replaced
