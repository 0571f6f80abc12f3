"""Means over benchmarks, cost per solved problem and the front, each against a case by hand."""

import math
import random

import pytest

from harness.aggregate import cost_per_solved, macro, mean_interval, micro, pareto_front, weighted
from harness.metrics import Estimate, pass_at_1, wilson
from tests.sim_coverage import between, means, solved_costs

# Printed in tables 1 and 2 of arXiv:2504.15257: three columns, and the Overall
PRINTED = {"o1-mini": (57.67, 95.42, 74.19, 71.37), "GPT-4o-mini": (56.33, 88.55, 71.73, 68.60)}
PROBLEMS = {"BigCodeBench": 300, "HumanEval": 131, "MBPP": 341}


def part(passed: int, problems: int) -> Estimate:
    return Estimate(passed / problems, *wilson(passed, problems), problems, problems)


def test_the_weights_are_problems_and_give_the_printed_overall_back() -> None:
    for *columns, overall in PRINTED.values():
        values = dict(zip(PROBLEMS, columns, strict=True))
        assert weighted(values, PROBLEMS) == pytest.approx(overall, abs=0.011)


def test_the_micro_mean_is_that_of_all_problems_and_the_macro_mean_that_of_benchmarks() -> None:
    parts = {"big": part(90, 300), "small": part(90, 100)}
    assert micro(parts).value == pytest.approx(180 / 400)
    assert macro(parts).value == pytest.approx((0.3 + 0.9) / 2)
    assert micro(parts).weights == {"big": 0.75, "small": 0.25}
    assert micro(parts).problems == 400
    asked = micro(parts, {"big": 100, "small": 300, "other": 5})
    assert asked.value == pytest.approx(0.25 * 0.3 + 0.75 * 0.9)


def test_the_interval_of_a_mean_worked_by_hand() -> None:
    parts = {"big": part(150, 300), "small": part(90, 100)}
    # Wilson's widths are 0.112438 and 0.119347 (0.825637 to 0.944778 is 0.119141)
    widths = [(p.high or 0) - (p.low or 0) for p in parts.values()]
    variance = sum(
        (w * x / (2 * 1.959964)) ** 2 for w, x in zip((0.75, 0.25), widths, strict=True)
    )  # fmt: skip
    effective = 0.6 * 0.4 / variance
    found = micro(parts)
    assert found.value == pytest.approx(0.6)
    assert (found.low, found.high) == pytest.approx(wilson(0.6 * effective, effective), abs=1e-6)
    # the plain standard error is sqrt(.75^2 * .25 / 300 + .25^2 * .09 / 100) = 0.02291
    assert (found.high or 0) - (found.low or 0) == pytest.approx(2 * 1.96 * 0.02291, rel=0.02)
    assert (found.low or 0) > wilson(240, 400)[0]  # surer than if all problems were alike


def test_a_mean_of_one_benchmark_is_that_benchmark_and_a_perfect_one_has_a_low_end() -> None:
    only = part(30, 40)
    assert (micro({"a": only}).low, macro({"a": only}).high) == (only.low, only.high)
    perfect = micro({"a": part(40, 40), "b": part(60, 60)})
    assert perfect.value == 1.0
    assert (perfect.low, perfect.high) == pytest.approx(wilson(100, 100))
    third = macro({"a": part(40, 40), "b": part(40, 40), "c": part(40, 40)})
    assert (third.low, third.high) == pytest.approx(wilson(120, 120))
    assert (macro({"a": part(0, 9), "b": part(0, 9)}).low) == 0.0


def test_a_benchmark_without_a_score_leaves_the_mean_unknown() -> None:
    empty = pass_at_1({"a": [None]})
    found = micro({"a": part(30, 40), "b": empty})
    assert (found.value, found.low, found.problems, found.errored) == (None, None, 40, 1)
    assert macro({"a": part(30, 40), "b": empty}).value is None
    assert micro({}).value is None
    assert weighted({"a": None, "b": 1.0}, {"a": 1, "b": 1}) is None
    with pytest.raises(ValueError, match="b: expected a positive weight"):
        weighted({"a": 0.5, "b": 1.0}, {"a": 1})


def test_errored_samples_bound_a_mean() -> None:
    parts = {
        "a": pass_at_1({"x": [True], "y": [None]}),
        "b": pass_at_1({"x": [False], "y": [False]}),
    }
    found = macro(parts)
    assert found.value == 0.5
    assert (found.floor, found.ceiling, found.errored) == (0.25, 0.5, 1)


def test_cost_per_solved_worked_by_hand() -> None:
    # 1, 2, 3 and 2 dollars, two of four solved: 8 / 2 = 4. Off the ratio 1 - 4, 2, 3 - 4, 2:
    # squares 9 + 4 + 1 + 4 = 18, deviation sqrt(6), error sqrt(6) * 2 / 8 = 0.61237,
    # t with 3 degrees 3.18245: factor exp(1.94884) = 7.0205
    found = cost_per_solved([1.0, 2.0, 3.0, 2.0], [1, 0, 1, 0])
    assert found is not None
    assert (found.value, found.total, found.solved, found.problems) == (4.0, 8.0, 2, 4)
    assert found.low == pytest.approx(4 / 7.0205, rel=1e-4)
    assert found.high == pytest.approx(4 * 7.0205, rel=1e-4)


def test_cost_per_solved_is_unknown_without_a_price_and_without_a_solution() -> None:
    assert cost_per_solved([1.0, None], [1, 1]) is None
    assert cost_per_solved([], []) is None
    none = cost_per_solved([1.0, 2.0], [0, 0])
    assert none is not None
    assert (none.value, none.low, none.high, none.total) == (None, None, None, 3.0)
    alone = cost_per_solved([1.5], [0.5])
    assert alone is not None
    assert (alone.value, alone.low, alone.high) == (3.0, None, None)
    free = cost_per_solved([0.0, 0.0], [1, 0])
    assert free is not None
    assert (free.value, free.low, free.high) == (0.0, 0.0, 0.0)


def test_a_mean_interval_worked_by_hand() -> None:
    # 1, 2, 3, 6: mean 3, squares 4 + 1 + 0 + 9 = 14, error sqrt(14 / 3 / 4) = 1.08012
    found = mean_interval([1.0, 2.0, 3.0, 6.0])
    assert found == pytest.approx((3.0, 3 - 3.18245 * 1.08012, 3 + 3.18245 * 1.08012), abs=1e-4)
    assert mean_interval([4.0]) is None


def test_the_front_worked_by_hand() -> None:
    points = [(3.0, 0.9), (1.0, 0.5), (2.0, 0.5), (1.0, 0.5), (2.0, 0.7), (4.0, 0.9), (None, 1.0),
              (0.5, None), (1.0, 0.4)]  # fmt: skip
    assert pareto_front(points) == [1, 3, 4, 0]
    assert pareto_front([]) == []
    assert pareto_front([(None, 0.5)]) == []


def test_the_front_agrees_with_asking_every_pair() -> None:
    draw = random.Random(2)
    for _ in range(200):
        points = [(draw.randrange(6) / 2, draw.randrange(6) / 5) for _ in range(draw.randrange(9))]
        beaten = {
            n
            for n, (cost, score) in enumerate(points)
            for c, s in points
            if c <= cost and s >= score and (c, s) != (cost, score)
        }
        found = pareto_front(points)
        assert set(found) == set(range(len(points))) - beaten
        assert [points[n] for n in found] == sorted(points[n] for n in found)


def test_means_over_benchmarks_cover_as_they_say_in_simulation() -> None:
    for shares, sizes in (((0.5, 0.9, 0.7), (300, 131, 341)), ((0.9, 0.995, 0.95), (30, 164, 378))):
        found = means(shares, sizes, 1500, 3)
        assert between(found, "micro", 0.94, 0.98)
        assert between(found, "macro", 0.94, 0.98)
    assert not between(found, "macro delta", 0.94, 0.98)  # what is not used


def test_cost_per_solved_covers_as_it_says_in_simulation() -> None:
    found = solved_costs(164, 1, 0, 0.4, 1000, 3)
    assert between(found, "log", 0.93, 0.96)
    assert math.isclose(found["none"], 0.0)
