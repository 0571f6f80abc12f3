"""Vanilla, Self-Refine and LLM-Debate: the exact sequence of calls, stopping and fallbacks."""

import inspect

import pytest

import baselines
from baselines import llm_debate, self_refine, vanilla
from harness.errors import ModelUnavailable, RequestRejected, UsageError
from tests.support import DOUBLE, RIGHT, WRONG

ACCEPT = "Fine.\nFEEDBACK: nothing\nVERDICT: correct"
REJECT = "Bad.\nFEEDBACK: multiply by two\nVERDICT: incorrect"


async def test_vanilla_is_one_call(desk):
    made = desk(RIGHT)
    assert "2 * x" in (await vanilla.solve(DOUBLE, made.ctx)).code
    assert len(made.asked()) == 1
    assert DOUBLE.prompt in made.asked()[0]


async def test_an_answer_without_a_program_is_empty(desk):
    assert (await vanilla.solve(DOUBLE, desk("I do not know.").ctx)).code == ""


@pytest.mark.parametrize(
    ("replies", "calls", "answer"),
    [
        ([RIGHT, ACCEPT], 2, "2 * x"),
        ([WRONG, REJECT, RIGHT, ACCEPT], 4, "2 * x"),
        ([WRONG, REJECT, WRONG, REJECT, RIGHT, ACCEPT], 6, "2 * x"),
        ([WRONG, REJECT, WRONG, REJECT, WRONG, REJECT, RIGHT], 7, "2 * x"),
        ([WRONG, "hm", "hm again"], 3, "return x"),  # unreadable twice: accepted
        ([WRONG, "hm", "VERDICT: incorrect", RIGHT, ACCEPT], 5, "2 * x"),
        (
            [WRONG, REJECT, "no code here", ACCEPT],
            4,
            "return x",
        ),  # no revision
    ],
)
async def test_self_refine_stops_where_the_critic_does(desk, replies, calls, answer):
    made = desk(*replies)
    assert answer in (await self_refine.solve(DOUBLE, made.ctx)).code
    assert len(made.asked()) == calls


async def test_self_refine_gives_the_critics_words_to_the_editor(desk):
    made = desk(WRONG, REJECT, RIGHT, ACCEPT)
    await self_refine.solve(DOUBLE, made.ctx)
    assert "multiply by two" in made.asked()[2]


async def test_debaters_read_the_round_before_and_never_their_own(desk):
    answers = [RIGHT.replace("2 * x", f"2 * x + {i} * 0") for i in range(6)]
    made = desk(*answers, RIGHT)
    await llm_debate.solve(DOUBLE, made.ctx)
    asked = made.asked()
    assert len(asked) == 7
    for agent in range(3):
        second = asked[3 + agent]
        seen = {i for i in range(6) if f"+ {i} * 0" in second}
        assert seen == {0, 1, 2} - {agent}
    assert sum(f"+ {i} * 0" in asked[6] for i in (3, 4, 5)) == 3


async def test_a_debater_whose_call_fails_is_left_out(desk):
    made = desk(RIGHT, RequestRejected("too long"), RIGHT, RIGHT, RIGHT, RIGHT)
    made.ctx.gates["worker"].answered = True
    assert "2 * x" in (await llm_debate.solve(DOUBLE, made.ctx)).code
    assert len(made.asked()) == 6


async def test_a_debate_that_the_provider_ended_is_not_a_wrong_answer(desk, monkeypatch):
    monkeypatch.setattr("harness.pacing.BACKOFF_S", 0.0)
    made = desk(*[ModelUnavailable("down")] * 15)
    with pytest.raises(ModelUnavailable):
        await llm_debate.solve(DOUBLE, made.ctx)


async def test_every_debaters_paid_reply_is_in_the_ledger_when_a_budget_ends_the_run(desk):
    from harness.context import Budget
    from harness.errors import BudgetReached

    made = desk(*[RIGHT] * 7, budget=Budget(tokens=200))
    with pytest.raises(BudgetReached):
        await llm_debate.solve(DOUBLE, made.ctx)
    assert len(made.records("call")) == len(made.models["worker"].requests) > 0


async def test_a_refusal_ends_the_debate_and_is_no_left_out_agent(desk):
    from harness.errors import ModelRefused

    made = desk(RIGHT, ModelRefused("403"), RIGHT)
    with pytest.raises(ModelRefused):
        await llm_debate.solve(DOUBLE, made.ctx)


async def test_a_judge_that_answers_nonsense_leaves_a_debaters_program(desk):
    made = desk(*[RIGHT] * 6, "They are all nice.")
    assert "2 * x" in (await llm_debate.solve(DOUBLE, made.ctx)).code


@pytest.mark.parametrize("name", list(baselines.REGISTRY))
def test_every_method_declares_its_calls_for_its_roles(name):
    method = baselines.load(name)
    assert method.name == name
    plan = method.calls(baselines.knobs(method, {}))
    assert set(plan) == set(method.roles)
    assert all(0 < low <= high for low, high in plan.values())
    assert list(inspect.signature(method.solve).parameters)[:2] == ["problem", "ctx"]


@pytest.mark.parametrize(
    ("method", "given", "says"),
    [
        ("flowreasoner", {"round": "3"}, "rounds=10"),
        ("flowreasoner", {"rounds": "many"}, "rounds wants int"),
        ("flowreasoner", {"rounds": "-1"}, "rounds is at least 0, not -1"),
        ("flowreasoner", {"evals": "0"}, "evals is at least 1"),
        ("flowreasoner", {"alpha": "nan"}, "alpha is at least 0"),
        ("flowreasoner", {"lam": "2"}, "lam is at least 0 and at most 1, not 2"),
        ("llm-debate", {"agents": "0"}, "agents is at least 1"),
        ("llm-debate", {"rounds": "0"}, "rounds is at least 1"),
        ("flowreasoner", {"early_stop": "maybe"}, "early_stop wants bool"),
        ("flowreasoner", {"final": "best"}, "final is one of keep, rerun"),
        ("flowreasoner", {"rounds": "0", "init_template": "false"}, "no model is asked anything"),
        ("flowreasoner", {"alpha": "1e307"}, "alpha is at least 0 and at most 1000"),
        ("vanilla", {"rounds": "3"}, "its knobs: none"),
    ],
)
def test_a_bad_knob_is_one_line_that_names_the_valid_ones(method, given, says):
    with pytest.raises(UsageError, match=says) as caught:
        baselines.knobs(baselines.load(method), given)
    assert "\n" not in str(caught.value)


def test_an_unknown_method_names_the_valid_ones():
    with pytest.raises(UsageError, match="flowreasoner, llm-debate, self-refine, vanilla"):
        baselines.load("alphacode")
