"""The meta-agent's model alone: what it is shown, what is kept, when it stops."""

import pytest

import baselines
from baselines.meta_direct import METHOD, NO_PROGRAM, solve
from harness import api
from harness.errors import ModelUnavailable, RequestRejected
from harness.journal import read_run
from harness.types import Level
from tests.support import DOUBLE, RIGHT, WRONG, Desk

ZERO = "```python\ndef double(x):\n    return 1\n```"  # passes no test
OTHER = RIGHT.replace("2 * x", "x + x")


@pytest.fixture
def desk(tmp_path, grader):
    def make(*meta, **options):
        replies = {"worker": [], "meta": list(meta)}
        return Desk(tmp_path / "run", grader, replies, **options)

    return make


async def test_it_asks_the_meta_agent_alone_as_often_as_flowreasoner_does(desk):
    made = desk(WRONG, *[ZERO] * 8, RIGHT)
    found = await solve(DOUBLE, made.ctx)
    assert "2 * x" in found.code
    assert len(made.models["meta"].requests) == 10
    assert made.models["worker"].requests == []
    rounds = made.records("round")
    assert [r["round"] for r in rounds] == list(range(1, 11))
    assert [r["score"] for r in rounds] == [0.5, *[0.0] * 8, 1.0]
    assert [r["parent"] for r in rounds] == [None, *[1] * 9]


async def test_the_first_prompt_is_every_methods_and_later_ones_show_the_best_program(desk):
    made = desk(WRONG, ZERO, RIGHT)
    await solve(DOUBLE, made.ctx, rounds=3)
    first, second, third = made.asked("meta")
    assert first.startswith("Solve this problem in Python.")
    assert second == third
    assert "    return x\n" in third
    assert "It scores 0.50 on tests (best is 1.0)." in third
    assert "assert double" not in third


async def test_the_latest_program_is_shown_when_told_and_the_best_is_still_the_answer(desk):
    made = desk(WRONG, ZERO, ZERO)
    found = await solve(DOUBLE, made.ctx, rounds=3, shown="latest")
    assert "return 1" in made.asked("meta")[2]
    assert "It scores 0.00" in made.asked("meta")[2]
    assert "return x" in found.code


@pytest.mark.parametrize(("level", "told"), [(Level.L3, True), (Level.L2, False)])
async def test_failed_tests_are_shown_as_far_as_the_level_allows(desk, level, told):
    made = desk(WRONG, RIGHT, level=level)
    await solve(DOUBLE, made.ctx, rounds=2, feedback="errors")
    assert ("- assert double(2) == 4: wrong got 2" in made.asked("meta")[1]) is told


async def test_the_earliest_program_wins_a_tie_and_a_perfect_one_is_gone_on_from(desk):
    made = desk(RIGHT, OTHER)
    found = await solve(DOUBLE, made.ctx, rounds=2)
    assert "2 * x" in found.code
    assert len(made.models["meta"].requests) == 2


async def test_early_stop_ends_at_a_perfect_score(desk):
    made = desk(WRONG, RIGHT)
    await solve(DOUBLE, made.ctx, early_stop=True)
    assert len(made.models["meta"].requests) == 2


async def test_without_a_feedback_test_one_call_is_the_answer(desk):
    made = desk(WRONG, level=Level.L0)
    found = await solve(DOUBLE, made.ctx)
    assert "return x" in found.code
    assert made.records("round")[0]["score"] is None


async def test_an_answer_without_a_program_is_asked_for_again_and_never_kept(desk):
    made = desk("I would rather not.", ZERO, "Still not.")
    found = await solve(DOUBLE, made.ctx, rounds=3)
    assert made.asked("meta")[1].startswith(NO_PROGRAM)
    assert "return 1" in made.asked("meta")[2]
    assert "return 1" in found.code


async def test_nothing_but_refusals_is_no_answer(desk):
    made = desk(*["I would rather not."] * 2)
    assert (await solve(DOUBLE, made.ctx, rounds=2)).code == ""


async def test_a_rejected_call_is_a_lost_round_unless_it_is_the_first(desk):
    made = desk(WRONG, RequestRejected("too long"), RIGHT)
    found = await solve(DOUBLE, made.ctx, rounds=3)
    assert "2 * x" in found.code
    lost = made.records("round")[1]
    assert (lost["score"], lost["error"]) == (0.0, "reply: Rejected: too long")
    first = Desk(made.folder.parent / "other", made.grader, {"meta": [RequestRejected("no")]})
    with pytest.raises(RequestRejected):
        await solve(DOUBLE, first.ctx)


async def test_a_provider_that_fails_in_round_seven_ends_the_sample(desk):
    made = desk(*[WRONG] * 6, ModelUnavailable("gone", retry_after_s=1e6))
    with pytest.raises(ModelUnavailable, match="gone"):
        await solve(DOUBLE, made.ctx)
    assert len(made.records("round")) == 6


def test_its_plan_counts_calls_of_the_meta_agent_only():
    assert METHOD.calls(baselines.knobs(METHOD, {})) == {"meta": (10, 10)}
    assert METHOD.calls(baselines.knobs(METHOD, {"early_stop": "true"})) == {"meta": (1, 10)}


def test_a_simulated_model_improves_what_is_wrong_and_keeps_what_is_right(tmp_path):
    found = api.evaluate(
        method="meta-direct", benchmark="humaneval", worker="sim/skill=0", meta="sim/skill=0.5",
        limit=2, knobs={"rounds": 4}, out=tmp_path,
    )  # fmt: skip
    assert (found.status, found.estimate.problems) == ("complete", 2)
    rounds = [r for r in read_run(found.run_dir) if r["kind"] == "round"]
    assert len(rounds) == 8
    by_problem = {}
    for r in rounds:
        by_problem.setdefault(r["problem_id"], []).append(r["score"])
    for scores in by_problem.values():
        assert scores == sorted(scores)  # a right program stays right
