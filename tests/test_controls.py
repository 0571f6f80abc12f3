"""Vanilla with tests, best-of-N and repair: calls, selection, stopping, failures on the way."""

import dataclasses

import pytest

from baselines import best_of_n, repair, vanilla, vanilla_tests
from baselines.operators import first_message, solve_prompt
from harness.budget import Budget
from harness.errors import BudgetReached, ModelRefused, ModelUnavailable, RequestRejected
from harness.journal import read_run
from harness.types import Completion, Level, Sampling
from tests.support import DOUBLE, RIGHT, WRONG, Desk

WARM = {"worker": Sampling(temperature=0.8)}
ZERO = "```python\ndef double(x):\n    return 7\n```"  # passes no test; WRONG passes one of two
OTHER = RIGHT.replace("2 * x", "x + x")
EMPTY = "I would rather not."


@pytest.fixture
def desk(tmp_path, grader):
    def make(*replies, folder="run", **options):
        options = {"sampling": WARM, **options}
        return Desk(tmp_path / folder, grader, {"worker": list(replies)}, **options)

    return make


def rounds(made):
    return [(r["round"], r["score"]) for r in made.records("round")]


# --- vanilla with tests ---


async def test_the_tests_stand_after_everybodys_first_message(desk):
    made = desk(RIGHT, level=Level.L3)
    assert "2 * x" in (await vanilla_tests.solve(DOUBLE, made.ctx)).code
    (text,) = made.asked()
    assert text.startswith(solve_prompt(DOUBLE))
    shown = text.removeprefix(solve_prompt(DOUBLE))
    assert all(test in shown for test in DOUBLE.examples)
    assert made.records("control")[0]["tests_shown"] == 2


@pytest.mark.parametrize("level", [Level.L0, Level.L2, Level.ORACLE])
async def test_where_tests_may_not_be_seen_it_is_vanilla_and_says_so(desk, level):
    made, plain = desk(RIGHT, level=level), desk(RIGHT, level=level, folder="plain")
    await vanilla_tests.solve(DOUBLE, made.ctx)
    await vanilla.solve(DOUBLE, plain.ctx)
    assert made.asked() == plain.asked()
    assert made.records("control")[0]["tests_shown"] == 0


# --- best-of-N ---


async def test_the_best_of_n_equal_requests_is_kept_the_earliest_on_ties(desk):
    made = desk(ZERO, WRONG, RIGHT, OTHER, WRONG)
    found = await best_of_n.solve(DOUBLE, made.ctx, n=5)
    assert found.code == "def double(x):\n    return 2 * x"
    requests = made.models["worker"].requests
    assert all(r["messages"] == first_message(DOUBLE) for r in requests)
    assert len({r["seed"] for r in requests}) == 5
    assert rounds(made) == [(1, 0.0), (2, 0.5), (3, 1.0), (4, 1.0), (5, 0.5)]
    assert made.records("control")[0]["ended"] == "all drawn"


async def test_every_record_of_a_sample_carries_its_number_although_many_are_asked_at_once(desk):
    replies = [ZERO.replace("7", str(7 + k)) for k in range(12)]
    made = desk(*replies)
    found = await best_of_n.solve(DOUBLE, made.ctx, n=12)
    assert "return 7" in found.code
    for kind in ("call", "feedback", "round"):
        assert [r["round"] for r in made.records(kind)] == list(range(1, 13))
    texts = {r["sha256"]: r["text"] for r in made.records("artifact")}
    said = [texts[r["response_sha"]] for r in made.records("call")]
    tested = [texts[r["code_sha"]] for r in made.records("feedback")]
    assert said == [f"```python\n{code}\n```" for code in tested] == replies
    assert made.ctx.round is None


async def test_default_is_as_many_samples_as_flowreasoner_executes_workflows(desk):
    made = desk(*[WRONG] * 33)
    await best_of_n.solve(DOUBLE, made.ctx)
    assert len(made.asked()) == 33 == 11 * 3


async def test_a_greedy_worker_is_asked_once_and_the_trajectory_says_so(desk):
    made = desk(WRONG, sampling={})
    assert "return x" in (await best_of_n.solve(DOUBLE, made.ctx, n=5)).code
    (note,) = made.records("control")
    assert (note["drawn"], note["ended"]) == (1, "greedy worker")


async def test_without_feedback_the_first_sample_is_the_answer(desk):
    made = desk(WRONG, level=Level.L0)
    assert "return x" in (await best_of_n.solve(DOUBLE, made.ctx, n=5)).code
    (note,) = made.records("control")
    assert (note["drawn"], note["ended"]) == (1, "no feedback test")
    assert rounds(made) == [(1, None)]


async def test_a_scalar_level_is_enough_to_choose(desk):
    made = desk(WRONG, RIGHT, level=Level.L2)
    assert "2 * x" in (await best_of_n.solve(DOUBLE, made.ctx, n=2)).code


async def test_early_stop_ends_at_the_first_sample_that_passes_everything(desk):
    made = desk(WRONG, RIGHT)
    assert "2 * x" in (await best_of_n.solve(DOUBLE, made.ctx, n=5, early_stop=True)).code
    assert made.records("control")[0]["ended"] == "all tests pass"


async def test_a_sample_without_a_program_comes_last_and_all_of_them_are_no_answer(desk):
    made = desk(EMPTY, ZERO, EMPTY)
    assert "return 7" in (await best_of_n.solve(DOUBLE, made.ctx, n=3)).code
    made = desk(EMPTY, EMPTY, "", folder="none")
    assert (await best_of_n.solve(DOUBLE, made.ctx, n=3)).code == ""
    assert rounds(made) == [(1, 0.0), (2, 0.0), (3, 0.0)]


async def test_a_rejected_sample_counts_as_drawn_and_the_others_are_judged(desk):
    replies = [WRONG] * 6 + [RequestRejected("against a policy")] + [WRONG, RIGHT]
    made = desk(*replies)
    assert "2 * x" in (await best_of_n.solve(DOUBLE, made.ctx, n=9)).code
    seventh = made.records("round")[6]
    assert (seventh["round"], seventh["score"]) == (7, None)
    assert seventh["error"] == "reply: Rejected: against a policy"


async def test_when_the_first_is_rejected_the_next_goes_alone(desk):
    made = desk(RequestRejected("a hiccup"), WRONG, level=Level.L0)
    assert "return x" in (await best_of_n.solve(DOUBLE, made.ctx, n=5)).code
    assert len(made.asked()) == 2


async def test_a_problem_whose_every_request_is_rejected_is_no_wrong_answer(desk):
    made = desk(RequestRejected("too long"))
    with pytest.raises(RequestRejected):
        await best_of_n.solve(DOUBLE, made.ctx, n=1)
    made = desk(*[RequestRejected("too long")] * 5, folder="more")
    with pytest.raises(ModelRefused):  # the gate: a model that rejects all is refused
        await best_of_n.solve(DOUBLE, made.ctx, n=5)


async def test_a_provider_that_fails_in_round_7_ends_the_sample_and_nothing_is_paid_twice(
    desk, monkeypatch
):
    monkeypatch.setattr("harness.pacing.BACKOFF_S", 0.0)
    down = [ModelUnavailable("down")] * 5
    made = desk(*[WRONG] * 6, *down)
    with pytest.raises(ModelUnavailable):
        await best_of_n.solve(DOUBLE, made.ctx, n=7)
    again = desk(RIGHT, folder="again", recorded=read_run(made.folder))
    assert "2 * x" in (await best_of_n.solve(DOUBLE, again.ctx, n=7)).code
    assert len(again.asked()) == 1
    assert rounds(again) == [(k, 0.5) for k in range(1, 7)] + [(7, 1.0)]


async def test_every_paid_sample_is_in_the_ledger_when_a_budget_ends_the_run(desk):
    made = desk(*[RIGHT] * 20, budget=Budget(tokens=200))
    with pytest.raises(BudgetReached):
        await best_of_n.solve(DOUBLE, made.ctx, n=20)
    assert len(made.records("call")) == len(made.models["worker"].requests) > 1


def billed(**bill):
    return {"match": "a-run", "bill": {DOUBLE.problem_id: bill}}


@pytest.mark.parametrize(("executions", "drawn"), [(3, 3), (1, 1), (0, 1), (40, 40)])
async def test_a_matched_run_settles_the_number_by_its_executions(desk, executions, drawn):
    made = desk(*[WRONG] * drawn, artifact=billed(executions=executions, tokens=10**6))
    await best_of_n.solve(DOUBLE, made.ctx, match="a-run")
    (note,) = made.records("control")
    assert (note["drawn"], note["bill"], note["bill_unknown"]) == (drawn, executions, False)


async def test_a_matched_run_settles_the_number_by_its_tokens(desk):
    each = len(solve_prompt(DOUBLE).split()) + len(WRONG.split())
    for folder, tokens, drawn in [
        ("a", 5 * each, 5),
        ("b", 5 * each - 1, 4),
        ("c", each - 1, 1),
        ("d", 50 * each, 50),  # more than n
    ]:
        made = desk(*[WRONG] * drawn, folder=folder, artifact=billed(executions=2, tokens=tokens))
        await best_of_n.solve(DOUBLE, made.ctx, match="a-run", by="tokens")
        assert made.ctx.spent.tokens == drawn * each <= max(tokens, each)
        assert made.records("control")[0]["drawn"] == drawn


async def test_by_tokens_the_next_sample_is_foreseen_at_the_mean_of_those_so_far(desk):
    prompt = len(solve_prompt(DOUBLE).split())
    long = WRONG + " word" * 60
    spent = 2 * prompt + len(WRONG.split()) + len(long.split())
    made = desk(WRONG, long, WRONG, artifact=billed(tokens=spent * 3 // 2 - 1))
    await best_of_n.solve(DOUBLE, made.ctx, match="a-run", by="tokens")
    assert len(made.asked()) == 2
    made = desk(WRONG, long, WRONG, folder="b", artifact=billed(tokens=spent * 3 // 2 + 1))
    await best_of_n.solve(DOUBLE, made.ctx, match="a-run", by="tokens")
    assert len(made.asked()) == 3


@pytest.mark.parametrize("by", ["executions", "tokens"])
@pytest.mark.parametrize("bill", [{}, {"executions": None, "tokens": None}])
async def test_a_problem_without_a_bill_gets_n_and_the_trajectory_says_so(desk, by, bill):
    made = desk(*[WRONG] * 4, artifact=billed(**bill) if bill else {"match": "x", "bill": {}})
    await best_of_n.solve(DOUBLE, made.ctx, n=4, match="a-run", by=by)
    (note,) = made.records("control")
    assert (note["drawn"], note["bill_unknown"]) == (4, True)


async def test_a_worker_that_reports_no_tokens_cannot_be_matched_by_them(desk, monkeypatch):
    made = desk(*[WRONG] * 4, artifact=billed(tokens=10**6))
    model = made.models["worker"]
    told = model.complete

    async def silent(*given, **named) -> Completion:
        reply = await told(*given, **named)
        return dataclasses.replace(reply, prompt_tokens=None, completion_tokens=None)

    monkeypatch.setattr(model, "complete", silent)
    await best_of_n.solve(DOUBLE, made.ctx, n=4, match="a-run", by="tokens")
    (note,) = made.records("control")
    assert (note["drawn"], note["bill_unknown"]) == (4, True)


# --- repair ---


@pytest.mark.parametrize(
    ("replies", "scores", "answer"),
    [
        ([RIGHT], [1.0], "2 * x"),
        ([WRONG, RIGHT], [0.5, 1.0], "2 * x"),
        ([WRONG, ZERO, RIGHT], [0.5, 0.0, 1.0], "2 * x"),
        ([ZERO, WRONG, ZERO, ZERO], [0.0, 0.5, 0.0, 0.0], "return x"),  # not the last
        ([WRONG, WRONG + "\n", WRONG, WRONG.replace("x\n", "x \n")], [0.5] * 4, "return x"),
        ([EMPTY, RIGHT], [0.0, 1.0], "2 * x"),
        ([WRONG, EMPTY, ZERO, EMPTY], [0.5, 0.5, 0.0, 0.0], "return x"),
        ([EMPTY, ZERO, EMPTY, EMPTY], [0.0] * 4, "return 7"),  # a program before none
        ([EMPTY] * 4, [0.0] * 4, None),
    ],
)
async def test_repair_ends_when_all_pass_and_answers_with_the_best(desk, replies, scores, answer):
    made = desk(*replies)
    found = await repair.solve(DOUBLE, made.ctx, rounds=3)
    assert found.code == "" if answer is None else answer in found.code
    assert rounds(made) == list(enumerate(scores, 1))
    assert len(made.asked()) == len(replies)
    assert [r["round"] for r in made.records("call")] == list(range(1, len(replies) + 1))


async def test_the_first_of_two_equally_good_versions_is_the_answer(desk):
    made = desk(WRONG, WRONG.replace("return x", "return x * 1"))
    assert (await repair.solve(DOUBLE, made.ctx, rounds=1)).code.endswith("return x")


async def test_default_is_ten_rewrites_after_the_draft(desk):
    made = desk(*[WRONG] * 11)
    await repair.solve(DOUBLE, made.ctx)
    assert len(made.asked()) == 11


async def test_a_rewrite_sees_the_last_version_and_its_failures(desk):
    made = desk(ZERO, WRONG, RIGHT, level=Level.L3)
    await repair.solve(DOUBLE, made.ctx)
    draft, first, second = made.asked()
    assert draft == solve_prompt(DOUBLE)
    assert "return 7" in first
    assert all(f"{test}: wrong" in first for test in DOUBLE.examples)
    assert "return x" in second
    assert "return 7" not in second
    assert "double(2) == 4: wrong" in second
    assert "double(0) == 0: wrong" not in second


async def test_below_the_levels_that_see_tests_only_counts_are_told(desk):
    made = desk(WRONG, RIGHT, level=Level.L2)
    await repair.solve(DOUBLE, made.ctx)
    told = made.asked()[1].partition("Failures:\n")[2]
    assert told == "1 of 2 tests pass"


async def test_without_feedback_the_draft_is_the_answer(desk):
    made = desk(WRONG, level=Level.L0)
    assert "return x" in (await repair.solve(DOUBLE, made.ctx)).code
    assert rounds(made) == [(1, None)]
    made = desk(EMPTY, level=Level.L0, folder="empty")
    assert (await repair.solve(DOUBLE, made.ctx)).code == ""


async def test_a_greedy_worker_that_comes_back_to_a_version_goes_no_further(desk):
    made = desk(WRONG, ZERO, WRONG, sampling={})
    assert "return x" in (await repair.solve(DOUBLE, made.ctx)).code
    assert len(made.asked()) == 3
    made = desk(EMPTY, EMPTY, sampling={}, folder="empty")
    assert (await repair.solve(DOUBLE, made.ctx)).code == ""
    assert len(made.asked()) == 2


async def test_a_rewrite_that_is_rejected_in_round_7_leaves_the_best_version(desk):
    versions = [ZERO.replace("7", str(k)) for k in range(5)]
    made = desk(WRONG, *versions, RequestRejected("too long"))
    assert "return x" in (await repair.solve(DOUBLE, made.ctx)).code
    last = made.records("round")[-1]
    assert (last["round"], last["score"], last["error_class"]) == (7, None, "reply:Rejected")


async def test_a_draft_that_is_rejected_is_no_wrong_answer(desk):
    made = desk(RequestRejected("too long"))
    with pytest.raises(RequestRejected):
        await repair.solve(DOUBLE, made.ctx)


async def test_a_repair_whose_provider_fails_in_round_7_goes_on_where_it_was(desk, monkeypatch):
    monkeypatch.setattr("harness.pacing.BACKOFF_S", 0.0)
    down = [ModelUnavailable("down")] * 5
    made = desk(*[WRONG] * 6, *down)
    with pytest.raises(ModelUnavailable):
        await repair.solve(DOUBLE, made.ctx)
    again = desk(RIGHT, folder="again", recorded=read_run(made.folder))
    assert "2 * x" in (await repair.solve(DOUBLE, again.ctx)).code
    assert len(again.asked()) == 1
