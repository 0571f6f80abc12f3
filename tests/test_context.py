"""One sample's context: time, seeds, budgets, prices."""

import asyncio

import pytest

from harness.budget import Budget, unknown_sum
from harness.context import Stopwatch
from harness.errors import BudgetReached
from harness.types import Completion, Sampling
from tests.support import RIGHT, Desk


def test_an_unknown_part_makes_the_sum_unknown():
    assert unknown_sum([1, 2.5]) == 3.5
    assert unknown_sum([1, None]) is None
    assert unknown_sum([]) == 0


async def test_waiting_for_a_turn_is_not_a_samples_time():
    watch = Stopwatch()
    with watch.turn() as begin:
        await asyncio.sleep(0.3)  # another sample has the model
        waited = watch.seconds
        begin()
        await asyncio.sleep(0.1)
    assert waited < 0.2
    assert watch.seconds >= 0.1


async def test_waiting_beside_an_own_call_is_its_time():
    watch = Stopwatch()
    with watch.turn() as begin, watch.turn():
        begin()
        await asyncio.sleep(0.1)
    assert watch.seconds >= 0.1


def test_seconds_of_earlier_processes_count_once_where_calls_ran_beside_each_other():
    watch = Stopwatch()
    for start, end in ((10.0, 13.0), (11.0, 12.0), (12.5, 14.0), (20.0, 21.0)):
        watch.add(start, end)
    assert watch.seconds - watch.here_s == pytest.approx(5.0, abs=0.01)
    assert watch.here_s < 1.0


async def test_a_call_given_up_in_flight_makes_tokens_unknown_and_counts_in_the_budget(
    tmp_path, grader
):
    desk = Desk(tmp_path, grader, {"worker": [RIGHT]}, budget=Budget(tokens=10**6))

    async def hang(messages, sampling, **rest):
        await asyncio.sleep(600)

    desk.models["worker"].complete = hang
    desk.models["worker"].price = lambda completion: 0.01
    task = asyncio.create_task(desk.ctx.ask("four"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (desk.ctx.totals.prompt_tokens, desk.ctx.totals.cost_usd) == (None, None)
    assert desk.ctx.budget.spent_tokens == 4 + Sampling().max_tokens
    assert desk.ctx.budget.spent_usd == 0.01
    (call,) = desk.records("call")
    assert (call["error_kind"], call["cost_usd"]) == ("cancelled", None)


async def test_sampled_calls_get_a_seed_each_the_same_in_every_process(tmp_path, grader):
    def seeds(folder, seed=0):
        desk = Desk(
            tmp_path / folder, grader, {"worker": [RIGHT] * 3}, seed=seed,
            sampling={"worker": Sampling(temperature=0.7)},
        )  # fmt: skip
        return desk

    found = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        desk = seeds(folder, seed)
        for _ in range(3):
            await desk.ctx.ask("the same question")
        found.append([r["seed"] for r in desk.models["worker"].requests])
    assert found[0] == found[1]
    assert len({*found[0], *found[2]}) == 6


async def test_greedy_calls_carry_no_seed(tmp_path, grader):
    desk = Desk(tmp_path, grader, {"worker": [RIGHT]})
    await desk.ctx.ask("q")
    assert desk.models["worker"].requests[0]["seed"] is None


async def test_a_dollar_budget_does_not_pretend_to_hold_without_a_price(tmp_path, grader):
    desk = Desk(tmp_path, grader, {"worker": [RIGHT]}, budget=Budget(usd=1.0))
    desk.models["worker"].price = lambda completion: None
    with pytest.raises(BudgetReached, match="price of a call is unknown"):
        await desk.ctx.ask("q")
    (call,) = desk.records("call")
    assert call["cost_usd"] is None


def test_a_budget_counts_tokens_and_minutes():
    budget = Budget(tokens=10)
    budget.spend(Completion("x", 6, 3), 0.0)
    budget.check()
    with pytest.raises(BudgetReached, match="reports no token counts"):
        budget.spend(Completion("x", 1, None), 0.0)
    budget.spend(Completion("x", 1, 0), 0.0)
    with pytest.raises(BudgetReached, match="--budget-tokens 10 is spent"):
        budget.check()
    with pytest.raises(BudgetReached, match="--budget-minutes 0"):
        Budget(minutes=0).check()


async def test_a_program_is_tested_once_and_the_level_decides_what_is_told(tmp_path, grader):
    from harness.types import Level

    wrong = "def double(x):\n    return x"
    told = await Desk(tmp_path / "a", grader, {"worker": []}).ctx.run_feedback(wrong)
    assert (told.score, told.passed, told.total) == (0.5, 1, 2)
    assert told.errors == ("assert double(2) == 4: wrong got 2",)
    desk = Desk(tmp_path / "b", grader, {"worker": []}, level=Level.L2)
    assert (await desk.ctx.run_feedback(wrong)).errors == ()
    desk = Desk(tmp_path / "c", grader, {"worker": []}, level=Level.L0)
    assert (await desk.ctx.run_feedback(wrong)).score is None
