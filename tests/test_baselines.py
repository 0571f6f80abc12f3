"""Vanilla, Self-Refine and LLM-Debate: the exact sequence of calls, stopping and fallbacks."""

import inspect
import random

import pytest

import baselines
from baselines import llm_debate, operators, self_refine, vanilla
from harness.errors import ModelUnavailable, RequestRejected, UsageError
from harness.types import Feedback, Level
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


async def test_self_refine_with_full_history_revises_in_sight_of_all_before(desk):
    drafts = [RIGHT.replace("2 * x", f"2 * x + {i}") for i in range(3)]
    replies = [drafts[0], REJECT, drafts[1], REJECT.replace("multiply", "add"), drafts[2], ACCEPT]
    made = desk(*replies)
    assert "+ 2" in (await self_refine.solve(DOUBLE, made.ctx, history="full")).code
    chats = [request["messages"] for request in made.models["worker"].requests]
    assert [len(chat) for chat in chats] == [1, 1, 3, 1, 5, 1]  # reviews see the last version alone
    assert chats[4][:4] == [*chats[2], {"role": "assistant", "content": drafts[1]}]
    assert "multiply by two" in chats[4][2]["content"]
    assert "add by two" in chats[4][4]["content"]
    plain = [chat[-1] for chat in chats]
    assert plain[4]["content"].endswith("Feedback:\nadd by two")


async def test_self_refine_keeps_the_version_when_a_revision_holds_no_program(desk):
    made = desk(RIGHT, REJECT, "It is fine as it is.", REJECT, "I said so.", ACCEPT)
    assert "2 * x" in (await self_refine.solve(DOUBLE, made.ctx, history="full")).code
    last = made.models["worker"].requests[4]["messages"]
    assert last[3] == {"role": "assistant", "content": "It is fine as it is."}


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


METHOD_OF_A_CLASS = (
    "```python\nclass Solution:\n    def double(self, x):\n        return 2 * x\n```"
)


async def test_a_program_without_the_function_is_no_candidate(desk):
    made = desk(RIGHT, METHOD_OF_A_CLASS, RIGHT, *[METHOD_OF_A_CLASS] * 2, RIGHT)
    assert "class" not in (await llm_debate.solve(DOUBLE, made.ctx)).code
    assert len(made.asked()) == 6  # one of the three is left, and there is nothing to judge


async def test_a_judge_that_writes_no_such_function_leaves_a_debaters_program(desk):
    judged = desk(*[RIGHT] * 6, METHOD_OF_A_CLASS)
    assert "class" not in (await llm_debate.solve(DOUBLE, judged.ctx)).code


@pytest.mark.parametrize("seed", range(5))  # whatever the order that the judge was to see
async def test_a_rejected_judge_leaves_the_lowest_agents_program(desk, seed):
    finals = [RIGHT.replace("2 * x", f"2 * x + {i} * 0") for i in range(3)]
    made = desk(*[RIGHT] * 3, *finals, RequestRejected("too long"), seed=seed)
    assert "+ 0 * 0" in (await llm_debate.solve(DOUBLE, made.ctx)).code
    assert made.records("rejected")[0]["step"] == "judge"


@pytest.mark.parametrize(
    ("replies", "answer"),
    [
        ([WRONG, RequestRejected("too long")], "return x"),
        ([WRONG, "hm", RequestRejected("too long")], "return x"),
        ([WRONG, REJECT, RequestRejected("too long")], "return x"),
        ([WRONG, REJECT, RIGHT, RequestRejected("too long")], "2 * x"),
    ],
)
async def test_a_rejected_review_or_revision_leaves_the_version_so_far(desk, replies, answer):
    made = desk(*replies)
    assert answer in (await self_refine.solve(DOUBLE, made.ctx)).code
    assert len(made.asked()) == len(replies)
    [note] = made.records("rejected")
    assert (note["step"], note["error"]) == ("refinement", "too long")


async def test_a_rejected_draft_is_no_wrong_answer(desk):
    with pytest.raises(RequestRejected):
        await self_refine.solve(DOUBLE, desk(RequestRejected("too long")).ctx)


CLUSTER = {"aggregate": "cluster"}
ZERO, THREE = (RIGHT.replace("2 * x", code) for code in ("0", "3 * x"))


@pytest.mark.parametrize(
    ("finals", "answer", "groups"),
    [
        ([ZERO, RIGHT, RIGHT.replace("2 * x", "x + x")], "2 * x", [[1, 2], [0]]),
        ([ZERO, THREE, THREE], "3 * x", [[1, 2], [0]]),  # each wrong in its own way
        ([ZERO, RIGHT.replace("2", "0"), RIGHT], "return 0", [[0, 1], [2]]),  # right is no majority
        ([ZERO, RIGHT, RIGHT.replace("2 * x", "1 / x")], "return 0", [[0], [1], [2]]),  # a tie
    ],
)
async def test_a_vote_takes_the_lowest_agent_of_the_largest_group(desk, finals, answer, groups):
    made = desk(*[RIGHT] * 3, *finals)
    assert answer in (await llm_debate.solve(DOUBLE, made.ctx, **CLUSTER)).code
    assert len(made.asked()) == 6
    assert made.records("vote")[0]["groups"] == groups


async def test_without_an_example_there_is_no_vote_and_the_judge_decides(desk):
    for_judge = RIGHT.replace("2 * x", "x + x")
    made = desk(*[RIGHT] * 6, for_judge, level=Level.L0)
    assert "x + x" in (await llm_debate.solve(DOUBLE, made.ctx, **CLUSTER)).code
    assert len(made.asked()) == 7
    assert made.records("vote")[0]["decided"] == "by the judge: there is no example"
    assert made.records("feedback") == []


def test_a_vote_makes_debate_l1_and_nothing_else_does():
    method = baselines.load("llm-debate")
    assert method.level_of is not None
    levels = {
        way: method.level_of(baselines.knobs(method, {"aggregate": way}))
        for way in ("judge", "cluster", "last")
    }
    assert levels == {"judge": Level.L0, "cluster": Level.L1, "last": Level.L0}


def test_groups_agree_with_brute_force():
    rng = random.Random(0)
    for _ in range(300):
        failed = [frozenset(t for t in range(3) if rng.random() < 0.5) for _ in range(5)]
        told = [Feedback(1 - len(f) / 3, 3 - len(f), 3, tuple(map(str, sorted(f)))) for f in failed]
        found = llm_debate.groups(told)
        assert sorted(i for group in found for i in group) == [0, 1, 2, 3, 4]
        most = max(failed.count(f) for f in failed)
        assert found[0][0] == min(i for i, f in enumerate(failed) if failed.count(f) == most)
        assert all(len({failed[i] for i in group}) == 1 for group in found)
        assert [len(group) for group in found] == sorted(map(len, found), reverse=True)
        assert len(found) == len(set(failed))


async def test_personas_stand_before_each_agents_first_prompt_in_turn(desk):
    made = desk(*[RIGHT] * 8, RIGHT)
    await llm_debate.solve(DOUBLE, made.ctx, agents=4, personas=True)
    for agent, persona in enumerate([*llm_debate.PERSONAS, llm_debate.PERSONAS[0]]):
        first = made.asked()[agent]
        assert first == f"{persona}\n\n{operators.solve_prompt(DOUBLE)}"
        second = made.models["worker"].requests[4 + agent]["messages"]
        assert second[0]["content"] == first  # an agent keeps its own history
    assert not made.asked()[8].startswith("You are")


async def test_the_judge_of_adas_is_asked_at_its_own_temperature(desk):
    knobs = baselines.load("llm-debate").presets["adas"].knobs
    made = desk(*[RIGHT] * 7)
    await llm_debate.solve(DOUBLE, made.ctx, **knobs)
    assert [r["temperature"] for r in made.models["worker"].requests] == [0.0] * 6 + [0.1]


@pytest.mark.parametrize("name", list(baselines.REGISTRY))
def test_every_method_declares_its_calls_for_its_roles(name):
    method = baselines.load(name)
    assert method.name == name
    knobs = baselines.knobs(method, {})
    plan, search = method.calls(knobs), method.fit_calls(knobs, 10)
    assert plan
    assert search or method.fit is None or not method.fits(knobs)
    asked = {"worker", *plan, *search}  # a run always has a worker
    assert asked <= set(method.roles)
    assert asked == set(method.roles) or method.fit is not None  # some knob of a fit may ask more
    for few, many in (*plan.values(), *search.values()):
        assert 0 <= few <= many > 0
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
    with pytest.raises(UsageError, match="unknown method 'alphacode'") as caught:
        baselines.load("alphacode")
    assert str(caught.value).endswith(f"use one of {', '.join(sorted(baselines.names()))}")


@pytest.mark.parametrize("name", list(baselines.REGISTRY))
def test_what_papers_and_presets_speak_of_are_knobs(name):
    method = baselines.load(name)
    known = baselines.known_knobs(method)
    assert set(method.paper) <= set(known)
    for preset in method.presets.values():
        settled = baselines.knobs(method, preset.knobs)  # of the right types, within bounds
        assert preset.knobs.items() <= settled.items()
        assert set(preset.sampling) <= set(method.roles)
