"""AutoAgents: drafting until both observers agree, then the plan step by step, then a finaliser."""

from __future__ import annotations

import json
from typing import Any

import pytest

import baselines
from baselines import autoagents
from baselines.autoagents import FALLBACK, METHOD, parse_plan, parse_suggestions, parse_turn
from harness.errors import ModelUnavailable, RequestRejected
from harness.models.sim import open_sim
from harness.pacing import Gate
from harness.types import Level, Sampling
from tests.support import DOUBLE, RIGHT, WRONG, Desk

DONE, ON = "STATUS: final", "STATUS: continue"
LIMITS = {"max_roles": 5, "max_steps": 6}


def draft(
    *steps: tuple[str, ...], roles: tuple[str, ...] = ("coder", "critic"), **more: Any
) -> str:
    """A planner's reply: these roles, and a step for each tuple of names."""
    plan = {
        "roles": [
            {"name": n, "description": f"Is a {n}.", "prompt": f"Do as {n}s do."} for n in roles
        ],
        "steps": [{"roles": list(who), "task": f"Task {i}."} for i, who in enumerate(steps, 1)],
    }
    return f"A plan:\n```json\n{json.dumps(plan | more, indent=2)}\n```"


AGREED = [draft(("coder",)), "NONE", "NONE"]


def kinds(made: Desk) -> str:
    """The requests in order: p(lanner), t(eam observer), P(lan observer), a(ction observer),
    r(ole), f(inaliser)."""
    marks = {
        "You plan the work": "p",
        "You check the team": "t",
        "You check the plan": "P",
        "A team works on a problem step by step": "a",
        "You are ": "r",
        "A team has worked": "f",
    }
    return "".join(
        next(m for begin, m in marks.items() if text.startswith(begin)) for text in made.asked()
    )


async def test_observers_who_agree_end_the_drafting(desk):
    made = desk(*AGREED, f"{WRONG}\n{DONE}", RIGHT)
    assert "2 * x" in (await autoagents.solve(DOUBLE, made.ctx)).code
    assert kinds(made) == "ptPrf"


async def test_suggestions_go_to_the_next_draft_and_only_those_of_this_round_count(desk):
    made = desk(
        draft(("coder",)), "Add a mathematician.", "NONE",
        draft(("coder",)), "NONE", "Check at the end.",
        draft(("coder",), ("critic",)), "Still no mathematician.", "NONE",
        DONE, "-", DONE, RIGHT,
    )  # fmt: skip
    await autoagents.solve(DOUBLE, made.ctx)
    assert kinds(made) == "ptP" * 3 + "rar" + "f"
    first, second, third = (made.asked()[i] for i in (0, 3, 6))
    assert "Improve on it" not in first
    assert "Improve on it:\nAdd a mathematician." in second
    assert "Improve on it:\nCheck at the end." in third
    assert "mathematician" not in third
    team, plan = made.asked()[7:9]  # each observer knows what it said before, and nobody else's
    assert "so far:\nAdd a mathematician." in team
    assert "Check at the end." not in team
    assert "so far:\nCheck at the end." in plan
    assert "mathematician" not in plan


async def test_the_team_observer_sees_the_team_and_the_plan_observer_both(desk):
    made = desk(*AGREED, DONE, RIGHT)
    await autoagents.solve(DOUBLE, made.ctx)
    _, team, plan = made.asked()[:3]
    assert "Is a critic." in team
    assert "Task 1." not in team
    assert "Is a critic." in plan
    assert "1. coder: Task 1." in plan


async def test_a_bad_draft_is_told_why_and_costs_no_observer(desk):
    made = desk(draft(("coder", "ghost")), *AGREED, DONE, RIGHT)
    await autoagents.solve(DOUBLE, made.ctx)
    assert kinds(made) == "pptPrf"
    assert "'ghost', which is no role" in made.asked()[1]


async def test_two_bad_drafts_give_the_fixed_team(desk):
    steps = [DONE, "-", f"{WRONG}\n{DONE}", "-", DONE, f"{RIGHT}\n{DONE}"]
    made = desk("I have no plan.", "{}", *steps, "no program")
    assert "2 * x" in (await autoagents.solve(DOUBLE, made.ctx)).code
    assert kinds(made) == "pp" + "rarar" + "rf"
    assert [text.split(".")[0] for text in made.asked() if text.startswith("You are")] == [
        "You are analyst", "You are programmer", "You are reviewer", "You are programmer",
    ]  # fmt: skip
    [note] = made.records("plan")
    assert (note["failed_drafts"], note["fallback"]) == (2, True)


async def test_two_bad_drafts_after_a_good_one_leave_the_good_one(desk):
    made = desk(draft(("critic",)), "Shorter.", "NONE", "no", "no", DONE, RIGHT)
    await autoagents.solve(DOUBLE, made.ctx)
    assert kinds(made) == "ptPpprf"
    assert "Shorter." in made.asked()[4]  # what is to be improved is not forgotten
    assert made.asked()[5].startswith("You are critic")


async def test_without_drafts_the_fixed_team_works(desk):
    made = desk(DONE, "-", DONE, "-", DONE, DONE, RIGHT)
    await autoagents.solve(DOUBLE, made.ctx, drafts=0)
    assert kinds(made) == "rararrf"


async def test_roles_speak_in_turn_until_all_of_them_are_done(desk):
    replies = [f"One.\n{ON}", f"Two.\n{DONE}", f"Three.\n{DONE}", f"Four.\n{DONE}"]
    made = desk(draft(("coder", "critic")), "NONE", "NONE", *replies, RIGHT)
    await autoagents.solve(DOUBLE, made.ctx)
    assert kinds(made) == "ptPrrrrf"
    third = made.asked()[5]
    assert "Said in this step:\ncoder:\nOne.\n\ncritic:\nTwo.\n\n" in third
    assert "One." not in made.asked()[7]  # the step hands on what each said last
    assert "coder:\nThree.\n\ncritic:\nFour." in made.asked()[7]


async def test_a_step_ends_after_its_sub_rounds_and_says_so_in_the_last(desk):
    made = desk(*AGREED, *["I go on."] * 3, RIGHT)
    await autoagents.solve(DOUBLE, made.ctx, sub_rounds=3)
    assert kinds(made) == "ptPrrrf"
    assert ["the last turn" in text for text in made.asked()[3:6]] == [False, False, True]


async def test_a_step_gets_what_the_action_observer_extracts_from_earlier_ones(desk):
    made = desk(
        draft(("coder",), ("critic",)), "NONE", "NONE",
        f"Mind zero.\n{DONE}", "<think>?</think>Zero matters.", DONE, RIGHT,
    )  # fmt: skip
    await autoagents.solve(DOUBLE, made.ctx)
    assert kinds(made) == "ptPrarf"  # before the first step there is nothing to extract
    first, observer, second = made.asked()[3:6]
    assert "From earlier steps:\nnothing\n" in first
    assert "Found so far:\nStep 1: Task 1.\n\ncoder:\nMind zero.\n" in observer
    assert "From earlier steps:\nZero matters.\n" in second


async def test_a_plan_is_cut_at_its_most_steps(desk):
    made = desk(draft(*[("coder",)] * 9), "NONE", "NONE", DONE, "-", DONE, RIGHT)
    await autoagents.solve(DOUBLE, made.ctx, max_steps=2)
    assert kinds(made) == "ptPrarf"


async def test_a_rejected_finaliser_leaves_the_last_program_of_a_role_where_there_is_one(
    desk, tmp_path, grader
):
    rejected = RequestRejected("too long")
    made = desk(*AGREED, f"{RIGHT}\n{DONE}", rejected)
    assert "2 * x" in (await autoagents.solve(DOUBLE, made.ctx)).code
    assert made.records("rejected")[0]["step"] == "finaliser"
    none = Desk(tmp_path / "none", grader, {"worker": [*AGREED, f"words\n{DONE}", rejected]})
    with pytest.raises(RequestRejected):
        await autoagents.solve(DOUBLE, none.ctx)


async def test_a_finaliser_without_a_program_leaves_the_last_one_of_a_role(desk):
    made = desk(*AGREED, f"{WRONG}\n{ON}", f"{RIGHT}\n{DONE}", "It is done.")
    assert "2 * x" in (await autoagents.solve(DOUBLE, made.ctx)).code


async def test_nobody_who_writes_a_program_makes_an_empty_answer(desk):
    made = desk(*AGREED, DONE, "It is done.")
    assert (await autoagents.solve(DOUBLE, made.ctx)).code == ""


async def test_a_program_is_run_on_the_examples_only_when_that_is_asked_for(desk, tmp_path, grader):
    replies = [*AGREED, f"{WRONG}\n{ON}", DONE, RIGHT]
    made = desk(*replies)
    await autoagents.solve(DOUBLE, made.ctx, run_examples=True)
    assert "Examples: the program passes 1 of 2.\nassert double(2) == 4: wrong" in made.asked()[4]
    plain = Desk(tmp_path / "plain", grader, {"worker": replies})
    await autoagents.solve(DOUBLE, plain.ctx)
    assert "Examples:" not in plain.asked()[4]
    assert plain.records("feedback") == []


async def test_without_examples_there_is_nothing_to_run(desk):
    made = desk(*AGREED, f"{RIGHT}\n{DONE}", RIGHT, level=Level.L0)
    await autoagents.solve(DOUBLE, made.ctx, run_examples=True)
    assert "Examples:" not in made.asked()[-1]


async def test_a_model_that_is_gone_in_the_middle_is_not_a_wrong_answer(desk, monkeypatch):
    monkeypatch.setattr("harness.pacing.BACKOFF_S", 0.0)
    made = desk(*AGREED, *[ModelUnavailable("down")] * 5)
    with pytest.raises(ModelUnavailable):
        await autoagents.solve(DOUBLE, made.ctx)


def test_running_examples_makes_it_l1():
    assert METHOD.level_of is not None
    assert METHOD.level_of(baselines.knobs(METHOD, {})) is Level.L0
    assert METHOD.level_of(baselines.knobs(METHOD, {"run_examples": "true"})) is Level.L1


GOOD = draft(("coder", "critic"), ("critic",))


@pytest.mark.parametrize(
    "reply",
    [
        GOOD,
        GOOD.replace("```json\n", "").replace("```", ""),
        f"<think>{draft(('other',), roles=('other',))}</think>{GOOD}",
        f"Like {draft(('other',), roles=('other',))}? No:\n{GOOD}\nThat {{is}} it.",
        GOOD.replace("Is a coder.", 'Is a\ncoder {of} \\"braces\\".'),  # a raw line break
        GOOD.replace('"roles": [\n        "critic"\n      ]', '"roles": "critic"'),
    ],
)
def test_the_last_plan_of_a_reply_counts_whatever_stands_around_it(reply):
    plan = parse_plan(reply, **LIMITS)
    assert list(plan.roles) == ["coder", "critic"]
    assert [names for names, _ in plan.steps] == [("coder", "critic"), ("critic",)]
    assert plan.roles["critic"] == "Is a critic. Do as critics do."


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("", "no JSON object"),
        ('{"roles": [], "steps": ', "no JSON object"),
        ("{" * 5000, "no JSON object"),
        (draft(("coder",), roles=()), "0 roles"),
        (draft(("a",), roles=tuple("abcdef")), "6 roles, not 1 to 5"),
        (draft(("coder",), roles=("coder", "coder")), "two roles have it"),
        (draft(("coder",), roles=("coder", " ")), "'' is no name"),
        (draft(), "no step"),
        (draft(()), "without a role"),
        (draft(("coder", "ghost")), "'ghost', which is no role"),
        (draft(("coder",), roles=["coder"], steps=[{"roles": ["coder"]}]), "lacks a field"),
        (draft(("coder",), steps=[{"roles": ["coder"], "task": " "}]), "without a role or a task"),
        (draft(("coder",), steps=[{"roles": [7], "task": "x"}]), "lacks a field"),
        ('{"roles": "coder", "steps": [{"roles": ["coder"], "task": "x"}]}', "lacks a field"),
        (draft(("coder",), steps=None), "lacks a field"),
    ],
)
def test_a_plan_that_does_not_hold_is_said_in_one_line(reply, says):
    with pytest.raises(ValueError, match=says) as caught:
        parse_plan(reply, **LIMITS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "suggestions"),
    [
        ("NONE", ""),
        ("**None.**", ""),
        ("<think>add a tester</think>\nSuggestions: none", ""),
        ("The team is fine.\n\nNONE", ""),
        ("No further suggestions.", ""),
        ("", ""),
        ("None of the roles checks edge cases.", "None of the roles checks edge cases."),
        ("- Add a tester.\n- Drop the poet.", "- Add a tester.\n- Drop the poet."),
    ],
)
def test_an_observer_is_content_when_a_line_of_its_own_says_so(reply, suggestions):
    assert parse_suggestions(reply) == suggestions


@pytest.mark.parametrize(
    ("reply", "words", "final"),
    [
        ("Mind zero.\nSTATUS: final", "Mind zero.", True),
        ("STATUS: final\nNo, wait.\nstatus: **continue**", "No, wait.", False),
        ("Mind zero. STATUS: final.", "Mind zero.", True),
        ("<think>STATUS: final</think>Mind zero.", "Mind zero.", False),
        ("STATUS: finally", "STATUS: finally", False),
    ],
)
def test_a_role_is_done_when_its_last_status_says_final(reply, words, final):
    assert parse_turn(reply) == (words, final)


def test_an_echo_of_the_request_is_no_status_and_leaves_no_words():
    echo = "the program\nSTATUS: final when the step is done, or STATUS: continue."
    assert parse_turn(echo) == ("the program", False)
    assert parse_turn(f"{DONE}\n{echo}") == ("the program", True)


def test_the_fixed_team_is_a_plan_that_holds():
    assert {name for names, _ in FALLBACK.steps for name in names} == set(FALLBACK.roles)


async def test_the_call_plan_bounds_what_a_simulated_worker_takes(desk):
    few, many = METHOD.calls(baselines.knobs(METHOD, {}))["worker"]
    assert (few, many) == (9, 45)
    model = open_sim("sim/skill=0.5")
    model.learn({"Test/0": (DOUBLE, "def double(x):\n    return 2 * x")})
    made = desk(sampling={"worker": Sampling(0.3, 1500)})
    made.ctx.gates = {"worker": Gate(model)}
    solution = await autoagents.solve(DOUBLE, made.ctx)
    assert "def double" in solution.code
    assert made.records("plan")[0]["fallback"] is False
    # a draft and two observers; two steps, of one and of two roles; the finaliser
    assert len(made.records("call")) == 3 + 1 + (1 + 2) + 1


async def test_a_simulated_finaliser_keeps_a_right_program_of_the_team(tmp_path, grader):
    """Every role draws anew while the last program is wrong: 3 draws, and a finaliser who knows."""
    model = open_sim("sim/skill=0.5")
    model.learn({"Test/0": (DOUBLE, "def double(x):\n    return 2 * x")})
    solved, trials, expected = 0, 100, 1 - 0.5**3
    for seed in range(trials):
        made = Desk(tmp_path / str(seed), grader, {"worker": []}, seed=seed,
                    sampling={"worker": Sampling(0.3, 1500)})  # fmt: skip
        made.ctx.gates = {"worker": Gate(model)}
        solved += "2 * x" in (await autoagents.solve(DOUBLE, made.ctx)).code
    assert abs(solved - expected * trials) < 4 * (expected * (1 - expected) * trials) ** 0.5
