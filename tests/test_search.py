"""A search: attempts, what is taken over after a kill, artifacts."""

import asyncio
import json
from dataclasses import replace

import pytest

from harness.errors import ModelUnavailable, RequestRejected, StoreError
from harness.search import Artifact, read_artifact, write_artifact
from harness.types import Sampling, Tried
from tests.support import DOUBLE, RIGHT, WRONG, FitDesk

TRIPLE = replace(
    DOUBLE,
    problem_id="Test/1",
    prompt="def triple(x): ...",
    entry_point="triple",
    examples=("assert triple(1) == 3",),
)


async def ask_once(ctx):
    from harness.extract import code_block

    reply = await ctx.ask(ctx.problem.prompt)
    return Tried(code_block(reply.text, ctx.problem.entry_point), {"said": len(reply.text)})


@pytest.fixture
def desk(tmp_path, grader):
    def make(*worker, **options):
        return FitDesk(tmp_path / "fit", grader, {"worker": list(worker)}, **options)

    return make


async def test_an_attempt_is_graded_on_all_tests_and_journaled(desk):
    made = desk(RIGHT, WRONG)
    right = await made.ctx.attempt(DOUBLE, "one", ask_once)
    wrong = await made.ctx.attempt(DOUBLE, "two", ask_once)
    assert (right.passed, right.share, right.detail, right.calls) == (True, 1.0, "", 1)
    assert (wrong.passed, wrong.share) == (False, 0.5)
    assert wrong.detail.startswith("wrong: ")
    assert right.facts == {"said": len(RIGHT)}
    assert [r["label"] for r in made.records("trial")] == ["one", "two"]
    assert made.ctx.spent.calls == 2


async def test_a_search_that_was_killed_takes_over_its_trials_and_replies(desk, tmp_path):
    made = desk(RIGHT, "kept")
    await made.ctx.attempt(DOUBLE, "one", ask_once)

    async def half(ctx):
        await ctx.ask("first")
        raise ModelUnavailable("gone")

    with pytest.raises(ModelUnavailable):
        await made.ctx.attempt(DOUBLE, "two", half)
    before = made.ctx.spent
    made.journal.close()

    async def whole(ctx):
        first = await ctx.ask("first")
        return Tried("", {"first": first.text})

    again = desk()  # a model that would fail if it were asked
    assert (await again.ctx.attempt(DOUBLE, "one", ask_once)).passed
    assert (await again.ctx.attempt(DOUBLE, "two", whole)).facts == {"first": "kept"}
    assert again.models["worker"].requests == []
    assert again.ctx.spent == before


async def test_attempts_at_one_problem_draw_apart(desk):
    made = desk(RIGHT, RIGHT, sampling={"worker": Sampling(temperature=1.0)})
    for label in ("one", "two"):
        await made.ctx.attempt(DOUBLE, label, ask_once)
    first, second = made.records("call")
    assert first["seed"] != second["seed"]


async def test_a_rejected_request_is_a_trial_that_did_not_pass(desk):
    made = desk(RequestRejected("too long"))
    trial = await made.ctx.attempt(DOUBLE, "one", ask_once)
    assert not trial.passed
    assert trial.facts["error_class"] == "rejected"


async def test_a_label_is_used_once_for_a_problem(desk):
    made = desk(RIGHT, RIGHT, problems=[DOUBLE, TRIPLE])
    await made.ctx.attempt(DOUBLE, "one", ask_once)
    await made.ctx.attempt(TRIPLE, "one", ask_once)
    with pytest.raises(ValueError, match="second attempt"):
        await made.ctx.attempt(DOUBLE, "one", ask_once)


async def test_no_more_attempts_run_at_once_than_the_models_answer(desk):
    made = desk(*[RIGHT] * 40)
    made.ctx._room._limit = lambda: 3
    running = most = 0

    async def counted(ctx):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        found = await ask_once(ctx)
        running -= 1
        return found

    trials = await asyncio.gather(
        *(made.ctx.attempt(DOUBLE, f"run {k}", counted) for k in range(40))
    )
    assert (len(trials), most) == (40, 3)


ARTIFACT = Artifact(
    method="aflow",
    content={"graph": "class Workflow: ..."},
    benchmark="test",
    benchmark_digest="d",
    list_digest="l",
    problems=("Test/0",),
    config_hash="c",
    spent={"calls": 3, "tokens": None, "cost_usd": 0.0, "fresh_cost_usd": 0.0, "wall_s": 1.0},
    run="fit-test",
)


def test_an_artifact_is_read_as_it_was_written(tmp_path):
    write_artifact(tmp_path / "artifact.json", ARTIFACT)
    assert read_artifact(tmp_path / "artifact.json") == ARTIFACT


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot read"),
        ("{", "no artifact of a fit"),
        ("[]", "no artifact of a fit"),
        ('{"method": "aflow"}', "fit again"),
    ],
)
def test_what_is_no_artifact_is_refused_in_one_line(tmp_path, text, says):
    path = tmp_path / "artifact.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(StoreError, match=says):
        read_artifact(path)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("content", {"graph": "another"}, "does not match its seal"),
        ("problems", [], "does not match its seal"),
        ("simulated", True, "does not match its seal"),
        ("spent", {}, "does not match its seal"),
        ("problems", None, "problems is no list"),
        ("problems", [1], "problems wants ids"),
        ("spent", None, "spent is no dict"),
    ],
)
def test_an_artifact_that_was_edited_is_refused(tmp_path, name, value, says):
    path = tmp_path / "artifact.json"
    write_artifact(path, ARTIFACT)
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(StoreError, match=says):
        read_artifact(path)
