"""Each metric against a case worked by hand, or against a printed table."""

import math
import random

import pytest

from harness.metrics import (
    count,
    detectable_difference,
    dollars,
    duration,
    pass_at_1,
    pass_at_k,
    percent,
    t_quantile,
    wilson,
)


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
    ("freedom", "table", "within"),
    [(1, 12.706, 5e-4), (2, 4.303, 5e-4), (3, 3.182, 0.01), (5, 2.571, 1e-3), (10, 2.228, 1e-3),
     (30, 2.042, 1e-3), (163, 1.975, 1e-3)],
)  # fmt: skip
def test_t_quantile_agrees_with_the_printed_table(
    freedom: int, table: float, within: float
) -> None:
    assert t_quantile(freedom) == pytest.approx(table, abs=within)


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
    # shares 1, 0, 1/2: mean 0.5, standard deviation 0.5, t with 2 degrees 4.303: clipped
    assert estimate.value == 0.5
    assert (estimate.low, estimate.high) == (0.0, 1.0)
    many = pass_at_1({f"{i}": [i % 2 == 0, True] for i in range(100)})
    reach = 1.984 * 0.25 * math.sqrt(100 / 99) / 10
    assert many.value == 0.75
    assert many.low == pytest.approx(0.75 - reach, abs=1e-4)
    assert many.high == pytest.approx(0.75 + reach, abs=1e-4)


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


def test_a_half_is_rounded_up_as_papers_print_it() -> None:
    assert percent(0.6125) == "61.3"
    assert percent(0.5) == "50.0"
    assert percent(1.0, 0) == "100"
    assert percent(None) == "unknown"


def test_small_amounts_keep_three_digits_and_unknown_is_said() -> None:
    assert dollars(0.0) == "$0.00"
    assert dollars(0.000123456) == "$0.000123"
    assert dollars(0.5) == "$0.500"
    assert dollars(0.9999) == "$1.000"
    assert dollars(1234.5) == "$1,234.50"
    assert dollars(None) == "unknown"


def test_counts_and_durations_read_as_words() -> None:
    assert [count(x) for x in (3, 3.25, 12345.6, None)] == ["3", "3.2", "12,346", "unknown"]
    assert [duration(x) for x in (0.42, 12.34, 245, 7800, None)] == [
        "0.42 s", "12.3 s", "4 min 5 s", "2 h 10 min", "unknown",
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
