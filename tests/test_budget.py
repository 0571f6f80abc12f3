"""Budgets: what is reserved, what is spent, when a request has to wait and when the run stops."""

import asyncio

import pytest

from harness.budget import Budget, Expectation
from harness.errors import BudgetReached
from harness.models.scripted import ScriptedModel
from harness.types import Completion, Message, Sampling

CHAT: list[Message] = [{"role": "user", "content": "x" * 300}]


async def spend(budget: Budget, log: list[int], reserve: int, take: int) -> None:
    """One request that was expected to take `reserve` tokens and takes `take`."""
    async with budget.reserve(reserve, None):
        log.append(budget.in_flight)
        await asyncio.sleep(0.001)
        budget.spend(Completion("", take, 0), 0.0)


async def test_no_more_is_in_flight_than_fits() -> None:
    budget, log = Budget(tokens=1000), list[int]()
    await asyncio.gather(*(spend(budget, log, 300, 100) for _ in range(8)))
    assert max(log) == 3
    assert budget.spent_tokens == 800


async def test_what_is_left_goes_out_one_request_at_a_time_and_then_the_run_stops() -> None:
    budget, log = Budget(tokens=1000), list[int]()
    asked = [spend(budget, log, 800, 300) for _ in range(8)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    stopped = [outcome for outcome in outcomes if isinstance(outcome, BudgetReached)]
    assert log == [1, 1, 1, 1]
    assert (len(stopped), budget.spent_tokens) == (4, 1200)  # over by part of one request


async def test_a_request_larger_than_the_whole_budget_goes_alone() -> None:
    budget, log = Budget(tokens=10), list[int]()
    await spend(budget, log, 5000, 8)
    assert log == [1]


async def test_one_that_is_cancelled_while_it_waits_holds_nothing() -> None:
    budget, log = Budget(tokens=100), list[int]()
    first = asyncio.create_task(spend(budget, log, 90, 10))
    waiting = asyncio.create_task(spend(budget, log, 90, 10))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(first, waiting, return_exceptions=True)
    await spend(budget, log, 90, 10)
    assert log == [1, 1]
    assert (budget.in_flight, budget.reserved_tokens) == (0, 0)


async def test_dollars_are_held_like_tokens() -> None:
    budget = Budget(usd=1.0)
    async with budget.reserve(10, 0.6):
        other = asyncio.create_task(budget.reserve(10, 0.6).__aenter__())
        await asyncio.sleep(0.01)
        assert not other.done()
        budget.spend(Completion("", 5, 5), 0.1)
    await other
    assert (budget.in_flight, budget.spent_usd) == (1, 0.1)


def test_what_a_request_will_take_is_learned_from_answers() -> None:
    expected = Expectation()
    assert expected.of(CHAT, Sampling(max_tokens=1000)) == (101, 1000)
    expected.learn(CHAT, Completion("", 60, 40))
    expected.learn(CHAT, Completion("", 90, 25))
    assert expected.of(CHAT, Sampling(max_tokens=1000)) == (76, 40)
    assert expected.of(CHAT, Sampling(max_tokens=30)) == (76, 30)


def test_what_earlier_processes_paid_counts_and_what_came_from_the_cache_does_not() -> None:
    names = "result_key request_sha response_sha model latency_s cached_tokens reasoning_tokens"
    rest = dict.fromkeys([*names.split(), "finish"]) | {"request_sha": "r", "model": "m"}
    tokens = {"prompt_tokens": 7, "completion_tokens": 3, "error": None, **rest}
    budget = Budget(tokens=100, usd=1.0)
    budget.resume(
        [
            {"kind": "session", "event": "start", "at": 0.0},
            {"kind": "call", "at": 30.0, "cost_usd": 0.5, **tokens},
            {"kind": "call", "at": 60.0, "cost_usd": 0.0, "cached": True, **tokens},
            {"kind": "call", "at": 90.0, "cost_usd": None, **tokens, "error": "503"},
            {"kind": "call", "at": 90.0},  # a damaged line
        ]
    )
    assert (budget.spent_tokens, budget.spent_usd, budget.spent_minutes) == (10, 0.5, 1.5)


def test_a_request_given_up_in_an_earlier_process_stays_charged() -> None:
    names = "result_key request_sha response_sha model latency_s prompt_tokens completion_tokens"
    more = ("cached_tokens", "reasoning_tokens", "finish", "cost_usd")
    given_up = {"kind": "call", "at": 5.0, "error": "given up", **dict.fromkeys(names.split())}
    given_up |= dict.fromkeys(more) | {"charged_tokens": 350, "charged_usd": 0.25}
    given_up |= {"request_sha": "r", "model": "m"}
    budget = Budget(tokens=100)
    budget.resume([given_up])
    assert (budget.spent_tokens, budget.spent_usd) == (350, 0.25)


def test_minutes_are_those_of_a_steady_clock_where_a_session_ended_in_order() -> None:
    start = {"kind": "session", "event": "start"}
    budget = Budget(minutes=10)
    budget.resume(
        [
            {**start, "at": 0.0},
            {"kind": "session", "event": "end", "at": 30_000.0, "elapsed_s": 60.0},  # it slept
            {**start, "at": 40_000.0},
            {
                "kind": "artifact",
                "sha256": "",
                "text": "",
                "at": 36_400.0,
            },  # the clock was set back
        ]
    )
    assert budget.spent_minutes == 1.0


async def test_a_wait_ends_where_the_minutes_end() -> None:
    budget = Budget(minutes=0.001)
    with pytest.raises(BudgetReached, match="--budget-minutes"):
        async with budget.in_time():
            await asyncio.sleep(30)


def test_an_answer_that_nobody_waits_for_is_charged_at_its_most() -> None:
    budget, model = Budget(tokens=10_000), ScriptedModel("scripted/free", [])
    assert budget.lose(model, CHAT, Sampling(max_tokens=50)) == (350, 0.0)
    assert budget.spent_tokens == 350


@pytest.mark.parametrize("limit", [{"usd": 0}, {"tokens": 0}, {"minutes": 0}])
async def test_a_budget_of_nothing_asks_nothing(limit: dict[str, float]) -> None:
    with pytest.raises(BudgetReached, match="is spent; the same command with more"):
        async with Budget(**limit).reserve(1, 0.0):  # type: ignore[arg-type]
            raise AssertionError("a request went out")
