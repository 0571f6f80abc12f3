"""Round by round: the program that feedback picks, what hidden tests say of it, and its calls."""

import random
from typing import Any

import pytest

from harness.rounds import Round, price_unit, rounds_of, within

Records = list[dict[str, Any]]


def sample(key: str, *rounds: tuple[float | None, str | None, int], **fields: Any) -> Records:
    """Records of one sample: (feedback score, hidden verdict, calls) of each round.

    A hidden verdict of None is a round without a program.
    """
    found: Records = []
    for number, (score, verdict, calls) in enumerate(rounds, 1):
        of = {"result_key": key, "round": number}
        found += [{"kind": "call", **of, "error": None}] * calls
        found.append({"kind": "call", **of, "error": "HTTP 500"})  # not answered: not counted
        code = None if verdict is None else f"{key}{number}"
        found.append({"kind": "round", **of, "score": score, "scores": [score], "code_sha": code,
                      "error": None, **fields})  # fmt: skip
        if verdict is not None:
            found.append({"kind": "hidden", **of, "verdict": verdict})
    return found


def test_feedback_picks_and_hidden_tests_judge_what_was_picked() -> None:
    records = [
        *sample("a", (0.5, "wrong", 1), (1.0, "wrong", 2), (1.0, "passed", 2)),
        *sample("b", (0.0, "wrong", 1), (0.5, "passed", 2), (1.0, "passed", 2)),
    ]
    first, second, third = rounds_of(records)
    assert (first.feedback, first.best, first.passes, first.hidden) == (0.25, 0.25, 0.0, 0.0)
    # the second rounds: `a` passes its feedback tests and fails the hidden ones, `b` the reverse
    assert (second.best, second.passes, second.hidden, second.gap) == (0.75, 0.5, 0.5, 0.0)
    # the third: the earliest of equals stays, so `a` keeps the program that is wrong
    assert (third.passes, third.hidden, third.gap) == (1.0, 0.5, 0.5)
    assert [one.calls for one in (first, second, third)] == [1, 3, 5]


def test_a_sample_that_ended_counts_with_what_it_had() -> None:
    records = [
        *sample("a", (1.0, "passed", 1)),
        *sample("b", (0.0, "wrong", 1), (0.0, "wrong", 4)),
    ]
    last = rounds_of(records)[-1]
    assert (last.number, last.samples, last.best, last.hidden) == (2, 1, 0.5, 0.5)
    assert (last.feedback, last.calls) == (0.0, 3)


def test_unknown_is_none_and_a_round_without_a_program_solves_nothing() -> None:
    old = [r for r in sample("a", (1.0, "passed", 0)) if r["kind"] == "round"]
    assert rounds_of(old)[0] == Round(1, 1, False, 1.0, 1.0, 1.0, 1.0, 1.0, None, None, None)
    nothing = rounds_of(sample("a", (0.0, None, 1)) + sample("b", (1.0, "passed", 1)))[0]
    assert (nothing.passes, nothing.hidden) == (0.5, 0.5)
    invalid = rounds_of(sample("a", (1.0, "invalid", 1)) + sample("b", (1.0, "passed", 1)))[0]
    assert (invalid.passes, invalid.hidden, invalid.gap) == (1.0, 1.0, 0.0)
    untested = rounds_of(sample("a", (None, "passed", 1)) + sample("b", (1.0, "wrong", 1)))[0]
    assert (untested.best, untested.passes, untested.hidden) == (1.0, 1.0, 0.5)
    assert untested.gap == 1.0  # of `b` alone
    assert rounds_of([]) == []
    assert rounds_of([{"kind": "round", "result_key": "a", "round": None}]) == []


def test_the_last_of_a_round_noted_again_holds() -> None:
    records = sample("a", (1.0, "wrong", 0)) + sample("a", (0.5, "passed", 1))
    (only,) = rounds_of(records)
    assert (only.best, only.hidden, only.calls) == (0.5, 1.0, 1)


def test_a_mean_of_several_runs_passes_by_its_best_program() -> None:
    records = sample("a", (0.5, "passed", 1), scores=[0.0, 1.0])
    assert (rounds_of(records)[0].best, rounds_of(records)[0].passes) == (0.5, 1.0)


def test_the_best_program_of_all_runs_is_chosen_the_earliest_on_ties() -> None:
    records = [
        *sample("a", (0.5, "wrong", 1), scores=[0.5, 0.5]),
        *(r | {"round": 2} for r in sample("a", (0.5, "passed", 1), scores=[0.0, 1.0])),
        *(r | {"round": 3} for r in sample("a", (0.9, "wrong", 1), scores=[0.8, 1.0])),
    ]
    found = rounds_of(records)
    assert [one.best for one in found] == [0.5, 0.5, 0.9]  # of rounds
    assert [one.passes for one in found] == [0.0, 1.0, 1.0]  # of programs
    assert [one.hidden for one in found] == [0.0, 1.0, 1.0]


def by_definition(records: Records, number: int) -> tuple[Any, ...]:
    """(best, passes, hidden, calls) after a round, from the definitions alone."""
    keys = sorted({r["result_key"] for r in records})
    best, passes, hidden, calls = [], [], [], []
    for key in keys:
        own = [r for r in records if r["result_key"] == key and r["round"] <= number]
        rounds = [r for r in own if r["kind"] == "round"]
        scored = [r["score"] for r in rounds if r["score"] is not None]
        best += [max(scored)] if scored else []
        programs = [r for r in rounds if r["code_sha"]]
        top = max((-1.0 if r["score"] is None else r["score"] for r in programs), default=None)
        picked = next(
            (r for r in programs if (-1.0 if r["score"] is None else r["score"]) == top), None
        )
        if scored:
            passes.append(picked is not None and picked["score"] == 1.0)
        verdicts = {r["round"]: r["verdict"] for r in own if r["kind"] == "hidden"}
        hidden.append(picked is not None and verdicts[picked["round"]] == "passed")
        calls.append(sum(r["kind"] == "call" and r["error"] is None for r in own))
    return tuple(sum(x) / len(x) if x else None for x in (best, passes, hidden, calls))


@pytest.mark.parametrize("seed", range(20))
def test_any_run_agrees_with_the_definitions(seed: int) -> None:
    rng = random.Random(seed)
    records: Records = []
    for key in "abcde":
        rounds = [
            (rng.choice([None, 0.0, 0.5, 1.0, 1.0]), rng.choice([None, "passed", "wrong"]),
             rng.randrange(4))
            for _ in range(rng.randrange(1, 6))
        ]  # fmt: skip
        records += sample(key, *rounds)
    if not any(r["kind"] == "hidden" for r in records):
        return
    for one in rounds_of(records):
        found = (one.best, one.passes, one.hidden, one.calls)
        assert found == pytest.approx(by_definition(records, one.number))


def test_the_winners_curse_is_the_gap_that_grows_with_the_draws() -> None:
    rng = random.Random(7)
    records: Records = []
    for key in range(400):  # programs that are all alike: feedback is luck, hidden tests are not
        rounds = [(float(rng.random() < 0.4), "wrong", 1) for _ in range(8)]
        records += sample(str(key), *rounds)
    gaps = [one.gap or 0.0 for one in rounds_of(records)]
    for number, gap in enumerate(gaps, 1):
        expected = 1 - 0.6**number
        assert gap == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 400) ** 0.5)


def test_equal_calls_is_the_last_round_that_takes_no_more() -> None:
    rounds = rounds_of(sample("a", (0.0, "wrong", 2), (0.0, "wrong", 1), (1.0, "passed", 3)))
    assert [one.calls for one in rounds] == [2, 3, 6]
    found = [within(rounds, calls) for calls in (1, 2, 3, 5.9, 6, 99)]
    assert [one and one.number for one in found] == [None, 1, 2, 2, 3, 3]
    assert within(rounds, None) is None


def priced(key: str, *usd: float | None) -> Records:
    """One sample: rounds of one call of 10 tokens, at these prices."""
    found = sample(key, *[(1.0, "passed", 0)] * len(usd))
    for number, price in enumerate(usd, 1):
        found.append({"kind": "call", "result_key": key, "round": number, "prompt_tokens": 7,
                      "completion_tokens": 3, "fresh_cost_usd": price})  # fmt: skip
    return found


def test_dollars_and_tokens_add_up_and_are_unknown_once_a_part_is() -> None:
    rounds = rounds_of(priced("a", 1.0, 2.0, None) + priced("b", 3.0))
    assert [one.usd for one in rounds] == [2.0, 3.0, None]
    assert [one.tokens for one in rounds] == [10.0, 15.0, 20.0]
    of_several = {"kind": "call", "result_key": "a", "round": 1, "count": 4, "prompt_tokens": 30,
                  "completion_tokens": 12, "fresh_cost_usd": 0.5}  # fmt: skip
    (one,) = rounds_of([*sample("a", (1.0, "passed", 0)), of_several])
    assert (one.calls, one.tokens, one.usd) == (4, 42, 0.5)


def test_equal_is_by_dollars_and_by_tokens_where_all_is_free_or_a_price_unknown() -> None:
    dear = rounds_of(priced("a", 0.0, 0.5))
    assert price_unit(dear) == "usd"
    assert price_unit(rounds_of(priced("a", 0.0, 0.0))) == "tokens"
    assert price_unit(rounds_of(priced("a", 1.0, None))) == "tokens"
    assert price_unit(rounds_of(sample("a", (1.0, "passed", 2)))) is None
    assert price_unit([]) is None
    rival = rounds_of(priced("b", 0.25, 0.25, 0.25))
    found = [within(rival, one.usd, "usd") for one in dear]
    assert [one and one.number for one in found] == [None, 2]


def test_rounds_of_another_problem_say_so() -> None:
    own, other = sample("a", (1.0, "passed", 1)), sample("b", (1.0, "passed", 1), about="a/9")
    assert [one.about for one in rounds_of(own)] == [False]
    assert [one.about for one in rounds_of(own + other)] == [True]
