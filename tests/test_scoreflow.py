"""ScoreFlow with scripted models: what is accepted, scored, paired, and run at test time."""

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from baselines.scoreflow import (
    METHOD,
    TEMPLATE,
    Written,
    bound_operators,
    draw_pairs,
    fit,
    pair_weights,
    possible_pairs,
    read_workflow,
    request,
    solve,
    training_pairs,
    up_to_closing_tag,
)
from harness.errors import ModelUnavailable, RequestRejected
from harness.extract import fenced_blocks
from harness.models.sim import open_sim
from harness.types import About, Level, Sampling
from tests.support import DOUBLE, RIGHT, WRONG, Desk, FitDesk

OTHER = replace(DOUBLE, problem_id="Test/1", prompt=DOUBLE.prompt + "# again\n")
WARM = {"meta": Sampling(temperature=0.2)}
HOT = {**WARM, "worker": Sampling(temperature=0.8)}


def flow(body, note=""):
    return (
        f"Here it is.\n<graph>\nclass Workflow:\n    async def run_workflow(self):\n"
        f"        {body}\n</graph>{note}"
    )


def draft(instruction):
    """A workflow of one call, known by its instruction."""
    return flow(f"return (await self.custom_code_generate({instruction!r}))['response']")


def worker(messages):
    """Right when the request says so."""
    return RIGHT if "SKILL" in messages[-1]["content"] else WRONG


GOOD, BAD = draft("SKILL"), draft("Try.")
NO_RETURN = flow("await self.custom_code_generate('x')")
BROKEN = flow("return undefined_name")
LOOP = flow("while True: await self.custom_code_generate('x')\n        return ''")


@pytest.fixture
def desk(tmp_path, grader):
    def make(meta, answers=worker, **options):
        replies = {"worker": answers, "meta": meta}
        settings = {"sampling": WARM, "level": Level.L3, **options}
        return Desk(tmp_path / "run", grader, replies, **settings)

    return make


@pytest.fixture
def search(tmp_path, grader):
    def make(meta, answers=worker, **options):
        replies = {"worker": answers, "meta": meta}
        return FitDesk(tmp_path / "fit", grader, replies, **{"sampling": WARM, **options})

    return make


async def test_a_workflow_is_written_for_the_problem_and_run_once(desk):
    made = desk([GOOD])
    assert "2 * x" in (await solve(DOUBLE, made.ctx)).code
    assert [r["role"] for r in made.records("call")] == ["meta", "worker"]
    assert DOUBLE.prompt in made.asked("meta")[0]
    (only,) = made.records("round")
    assert (only["error"], only["written"]) == (None, 1)


async def test_rejected_workflows_are_written_anew_up_to_the_bound(desk):
    made = desk([NO_RETURN, BROKEN, GOOD])
    assert "2 * x" in (await solve(DOUBLE, made.ctx)).code
    assert [r["role"] for r in made.records("call")] == ["meta"] * 3 + ["worker"]
    seeds = [r["seed"] for r in made.models["meta"].requests]
    assert len(set(seeds)) == 3  # the same request, drawn anew


async def test_a_generator_that_answers_nonsense_gives_no_answer(desk):
    made = desk(["I would rather not."] * 3)
    assert (await solve(DOUBLE, made.ctx)).code == ""
    (only,) = made.records("round")
    assert only["written"] == 3
    assert "NoWorkflow" in only["error"]
    assert made.models["worker"].requests == []


async def test_a_greedy_generator_is_not_asked_the_same_again(desk):
    made = desk(["nonsense"], sampling={})
    assert (await solve(DOUBLE, made.ctx)).code == ""
    assert len(made.models["meta"].requests) == 1


async def test_a_workflow_that_loops_for_ever_meets_its_limit_and_is_not_written_anew(desk):
    made = desk([LOOP])
    # on the toy operators it would loop as well: it is rejected there
    assert (await solve(DOUBLE, made.ctx, attempts=1)).code == ""
    (only,) = made.records("round")
    assert "CallLimit" in only["error"]
    assert made.models["worker"].requests == []


async def test_a_workflow_that_loops_on_real_answers_only_ends_at_its_limit(desk):
    sly = flow(
        "while 'answer' not in str(r := await self.custom_code_generate('x')): pass\n"
        "        return r['response']"
    )
    made = desk([sly, GOOD])
    assert (await solve(DOUBLE, made.ctx, workflow_calls=5)).code == ""
    assert len(made.models["worker"].requests) == 5
    assert len(made.models["meta"].requests) == 1
    assert made.records("round")[0]["error_class"] == "limit:CallLimit"


async def test_a_workflow_with_a_constructor_runs_as_the_release_writes_it(desk):
    text = (
        "<graph>\nclass Workflow:\n    def __init__(self, config, problem):\n"
        "        self.problem = problem\n\n    async def run_workflow(self):\n"
        "        first = await self.custom_code_generate(instruction='Try.')\n"
        "        second = await self.custom_code_generate(instruction='SKILL')\n"
        "        best = await self.sc_ensemble(solutions=[first, second])\n"
        "        return (await self.test(solution=best['response']))['solution']\n</graph>"
    )
    made = desk([text], [WRONG, RIGHT, "CHOICE: B"])
    assert "2 * x" in (await solve(DOUBLE, made.ctx)).code
    assert made.records("workflow")[-1]["operators"] == [
        "custom_code_generate",
        "custom_code_generate",
        "sc_ensemble",
        "test",
    ]


async def test_a_worker_that_fails_ends_the_sample_and_a_rejection_is_the_workflows(desk):
    made = desk([GOOD], [RequestRejected("too long")])
    made.ctx.gates["worker"].answered = True
    assert (await solve(DOUBLE, made.ctx)).code == ""
    assert made.records("round")[0]["error_class"] == "run:RuntimeError"


async def test_testing_rewrites_ten_times_and_then_writes_anew(desk):
    drafts = [WRONG.replace("return x", f"return x + {n}") for n in range(3, 14)]
    made = desk([], [*drafts[:10], RIGHT])
    test = bound_operators(10)["test"]
    found = await test(made.ctx, WRONG)
    assert found["result"] is True
    asked = made.asked()
    assert ["fails tests" in text for text in asked] == [True] * 10 + [False]
    assert all(one != other for one, other in pairwise(asked[:10]))


@pytest.mark.parametrize(("reflections", "rewrites"), [(0, 0), (1, 1), (3, 3)])
async def test_the_number_of_rewrites_is_a_knob(desk, reflections, rewrites):
    made = desk([], lambda _: WRONG)
    found = await bound_operators(reflections)["test"](made.ctx, WRONG)
    assert found["result"] is False
    assert ["fails tests" in text for text in made.asked()] == [True] * rewrites + [False]


async def test_testing_stops_at_the_first_program_that_passes(desk):
    made = desk([], [WRONG, RIGHT])
    found = await bound_operators(10)["test"](made.ctx, WRONG)
    assert (found["result"], len(made.asked())) == (True, 2)


async def test_without_a_feedback_test_the_program_stays_and_nothing_is_claimed(desk):
    made = desk([], [], level=Level.L0)
    found = await bound_operators(10)["test"](made.ctx, WRONG)
    assert found["result"] is None
    assert "return x" in found["solution"]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("nothing", "NoWorkflow"),
        (NO_RETURN, "NoReturn"),
        (flow("return"), "NoReturn"),
        (GOOD.replace("run_workflow", "solve"), "NoReturn"),
        (flow("return ("), "SyntaxError"),
        (flow("return (await self.test('x')).split()[0]"), "Forbidden"),
        (flow("return (await self.test('x')).split(' ')[0]"), "Forbidden"),
        (flow("return int(await self.test('x'))"), "Forbidden"),
    ],
)
def test_a_workflow_is_rejected_for_a_reason(reply, reason):
    assert f"reply: {reason}: " in read_workflow(reply, 1.1)[1]


@pytest.mark.parametrize(
    "reply",
    [
        GOOD,
        "<think>use <graph>this</graph></think>" + GOOD,
        GOOD.partition("</graph>")[0],
        "```python\n" + GOOD.partition("<graph>\n")[2].partition("</graph>")[0] + "```",
        flow("print('a,b'.split(','))\n        return 'x'"),
        flow("return 'print(1)'"),
    ],
)
def test_a_workflow_is_read_from_untidy_replies(reply):
    graph, reason = read_workflow(reply, 1.1)
    assert reason is None
    assert graph.startswith("class Workflow")


def test_the_template_is_too_close_to_itself_only_when_that_is_asked_for():
    reply = f"<graph>\n{TEMPLATE}</graph>"
    assert read_workflow(reply, 1.1)[1] is None
    assert "reply: Template: " in read_workflow(reply, 0.9)[1]
    assert read_workflow(LOOP, 0.9)[1] is None


def test_a_reply_ends_where_generation_would_have_stopped():
    assert up_to_closing_tag(flow("return 1", "\nI hope that helps.")).endswith("</graph>")
    assert up_to_closing_tag("no tags") == "no tags"


async def test_fit_scores_each_workflow_on_its_own_problem(search):
    made = search([GOOD, BAD, GOOD, BAD], problems=[DOUBLE, OTHER])
    found = await fit(made.problems, made.ctx, workflows=2, pairs=50)
    by_problem = Counter((w["problem_id"], w["score"]) for w in found["workflows"])
    assert by_problem == {(p, s): 1 for p in ("Test/0", "Test/1") for s in (0.0, 1.0)}
    assert found["counts"] == {
        "workflows": 4,
        "rejected": 0,
        "score": 0.5,
        "problems_with_pairs": 2,
        "pairs": 50,
    }
    rows = training_pairs(found)
    assert len(rows) == 50
    assert {(r["chosen"], r["rejected"]) for r in rows} == {(GOOD, BAD)}
    assert {(r["chosen_score"], r["rejected_score"]) for r in rows} == {(1.0, 0.0)}
    assert {r["problem_id"] for r in rows} == {"Test/0", "Test/1"}
    assert all(
        r["prompt"] == request(p)
        for r in rows
        for p in (DOUBLE, OTHER)
        if p.problem_id == r["problem_id"]
    )
    (step,) = made.records("step")
    assert (step["number"], step["workflows"], step["pairs"]) == (1, 4, 50)
    assert [n["score"] for n in made.records("node")] == [1.0, 1.0]


async def test_greedy_executions_are_one_and_sampling_ones_three(search, tmp_path, grader):
    made = search([GOOD])
    await fit(made.problems, made.ctx, workflows=1)
    assert [t["label"] for t in made.records("trial")] == ["workflow 1, run 1"]
    made = FitDesk(
        tmp_path / "hot",
        grader,
        {"worker": [RIGHT, WRONG, RIGHT], "meta": [GOOD]},
        sampling=HOT,
    )
    found = await fit(made.problems, made.ctx, workflows=1)
    assert found["workflows"][0]["score"] == pytest.approx(2 / 3)
    assert len({c["seed"] for c in made.records("call") if c["role"] == "worker"}) == 3


async def test_each_workflow_of_a_problem_is_a_draw_of_its_own(search):
    made = search([GOOD] * 8)
    await fit(made.problems, made.ctx)
    seeds = [r["seed"] for r in made.models["meta"].requests]
    assert len(set(seeds)) == 8


async def test_a_greedy_generator_writes_one_workflow_per_problem(search):
    made = search([GOOD], sampling={})
    found = await fit(made.problems, made.ctx)
    assert found["counts"]["workflows"] == 1


async def test_ties_produce_no_pair(search):
    made = search([GOOD, draft("SKILL too"), GOOD])
    found = await fit(made.problems, made.ctx, workflows=3)
    assert (found["pairs"], found["counts"]["problems_with_pairs"]) == ([], 0)
    assert training_pairs(found) == []


async def test_rejected_workflows_are_counted_and_not_executed(search):
    made = search(["nonsense"] * 4 + [GOOD, BAD])
    found = await fit(made.problems, made.ctx, workflows=4, attempts=2)
    assert (found["counts"]["workflows"], found["counts"]["rejected"]) == (2, 2)
    assert len(made.models["worker"].requests) == 2


async def test_when_every_workflow_is_rejected_the_fit_says_so(search):
    made = search(lambda _: "nonsense")
    found = await fit(made.problems, made.ctx, workflows=2)
    assert (found["counts"]["score"], found["pairs"]) == (None, [])
    (node,) = made.records("node")
    assert (node["score"], node["error"]) == (None, "every workflow was rejected")


async def test_a_rejected_request_to_the_generator_is_a_rejected_workflow(search):
    made = search([RequestRejected("too long"), GOOD])
    found = await fit(made.problems, made.ctx, workflows=2)
    assert (found["counts"]["workflows"], found["counts"]["rejected"]) == (1, 1)


async def test_a_crash_counts_as_a_run_that_did_not_pass(search):
    crash = flow(
        "r = await self.custom_code_generate('x')\n"
        "        if 'answer' in r['response']: return r['response']\n"
        "        raise ValueError('not a toy')"
    )
    made = search([crash])
    found = await fit(made.problems, made.ctx, workflows=1)
    assert found["workflows"][0]["score"] == 0.0
    assert made.records("trial")[0]["facts"]["error_class"] == "run:ValueError"


async def test_a_provider_that_fails_ends_the_fit_which_then_goes_on(search):
    gone = ModelUnavailable("gone", retry_after_s=1e9)
    made = search([GOOD, BAD, gone])
    with pytest.raises(ModelUnavailable):
        await fit(made.problems, made.ctx, workflows=3)
    await made.ctx.finish(wait=True)  # the other two are graded
    made.journal.close()
    again = search([GOOD])
    found = await fit(again.problems, again.ctx, workflows=3, pairs=10)
    assert sorted(w["score"] for w in found["workflows"]) == [0.0, 1.0, 1.0]
    assert len(again.models["meta"].requests) == len(again.models["worker"].requests) == 1
    assert found["counts"]["pairs"] == 10


def written(*scores, problem="Test/0"):
    return [Written(problem, f"reply {n}", "", s) for n, s in enumerate(scores)]


def test_pair_weights_agree_with_the_worked_example():
    kept = written(1.0, 2 / 3, 1 / 3)
    pairs = possible_pairs(kept)
    assert pairs == [(0, 1), (0, 2), (1, 2)]
    weights = pair_weights(kept, pairs)
    assert [w / sum(weights) for w in weights] == pytest.approx([0.1, 0.8, 0.1])


def test_pairs_are_drawn_with_replacement_by_weight():
    kept = written(1.0, 2 / 3, 1 / 3)
    drawn = Counter(draw_pairs(kept, 10_000, random.Random(0)))
    assert drawn.total() == 10_000
    # five standard deviations of a binomial of 10,000
    assert drawn[0, 1] == pytest.approx(1000, abs=150)
    assert drawn[0, 2] == pytest.approx(8000, abs=200)


def test_pairs_agree_with_brute_force():
    rng = random.Random(1)
    kept = [
        Written(f"p{rng.randrange(4)}", f"reply {rng.randrange(6)}", "", rng.randrange(4) / 3)
        for _ in range(30)
    ]
    expected = {
        (i, j)
        for i in range(30)
        for j in range(30)
        if kept[i].problem_id == kept[j].problem_id
        and kept[i].score > kept[j].score
        and kept[i].reply != kept[j].reply
    }
    found = possible_pairs(kept)
    assert expected == set(found)
    assert len(found) == len(expected)


def test_no_pair_crosses_problems_or_joins_equal_texts():
    assert possible_pairs([*written(1.0), *written(0.0, problem="Test/1")]) == []
    assert possible_pairs([*written(1.0), *written(0.0)]) == []


@pytest.mark.parametrize(("benchmark", "count"), [("humaneval", 600), ("mbpp", 2000)])
async def test_the_number_of_pairs_goes_by_the_benchmark(search, benchmark, count):
    made = search([GOOD, BAD], problems=[replace(DOUBLE, benchmark=benchmark)])
    found = await fit(made.problems, made.ctx, workflows=2)
    assert found["counts"]["pairs"] == count


def test_only_generate_fit_needs_a_fit():
    assert not METHOD.fits({"generate": "zero-shot"})
    assert METHOD.fits({"generate": "fit"})


async def test_a_simulated_generator_writes_workflows_that_are_accepted():
    model = open_sim("sim/skill=0.5")
    model.learn({DOUBLE.problem_id: (DOUBLE, fenced_blocks(RIGHT)[0])})
    seen = set()
    for seed in range(12):
        about = About(DOUBLE.problem_id, 0, "meta", 0)
        answer = await model.complete(request(DOUBLE), Sampling(0.2), seed=seed, about=about)
        graph, reason = read_workflow(answer.text, 1.1)
        assert reason is None
        seen.add(graph)
    assert len(seen) >= 3


async def test_a_simulated_generator_can_write_workflows_that_are_rejected(desk):
    model = open_sim("sim/broken=1")
    model.learn({DOUBLE.problem_id: (DOUBLE, "")})
    for seed in range(6):
        about = About(DOUBLE.problem_id, 0, "meta", 0)
        answer = await model.complete(request(DOUBLE), Sampling(0.2), seed=seed, about=about)
        made = desk([answer.text])
        assert (await solve(DOUBLE, made.ctx, attempts=1)).code == ""
        assert made.models["worker"].requests == []
        made.journal.close()
