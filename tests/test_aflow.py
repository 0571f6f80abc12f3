"""AFlow's search with scripted models: rounds, parents, experience, convergence, failures."""

import itertools
import math
import random
import statistics
from collections import Counter
from dataclasses import replace

import pytest

from baselines.aflow import METHOD, ROUND, SYSTEM, Node, converged, draw_parent, fit, solve
from baselines.workflows import TEMPLATE, mixed_probabilities, same_program
from harness.errors import ModelUnavailable, RequestRejected, UsageError
from harness.models.sim import open_sim
from harness.types import About, Sampling
from tests.support import DOUBLE, RIGHT, WRONG, Desk, FitDesk

TRIPLE = replace(
    DOUBLE,
    problem_id="Test/1",
    prompt='def triple(x: int) -> int:\n    """Return three times x."""\n',
    entry_point="triple",
    prelude="",
    examples=("assert triple(1) == 3", "assert triple(0) == 0"),
)
HALF = replace(
    DOUBLE,
    problem_id="Test/2",
    prompt='def half(x: int) -> float:\n    """Return half of x."""\n',
    entry_point="half",
    prelude="",
    examples=("assert half(2) == 1", "assert half(0) == 0"),
)
PROBLEMS = (DOUBLE, TRIPLE, HALF)
PROGRAMS = {"double": "2 * x", "triple": "3 * x", "half": "x / 2"}
CUSTOM = "return (await self.custom(input=problem, instruction=prompt_custom.DO))['response'], 0"
SAME = "return (await self.custom_code_generate(problem, entry_point, 'Please.'))['response'], 0"
BROKEN = "return undefined_name"
TIE = {"early_stop": False}


def reply(name, body, prompts=""):
    return (
        f"<modification>{name}</modification>\n<graph>\nclass Workflow:\n"
        f"    async def __call__(self, problem, entry_point):\n        {body}\n</graph>\n"
        f"<prompt>\n{prompts}\n</prompt>"
    )


def do(skill):
    """A reply whose workflow solves the problems that its instruction names."""
    return reply(f"solve {skill}", CUSTOM, f'DO = "SKILL {skill}"')


def worker(messages):
    """Solves what "SKILL ..." in the request names, and nothing without it."""
    text = messages[-1]["content"]
    entry = next(name for name in PROGRAMS if f"def {name}" in text)
    named = text.partition("SKILL ")[2].partition("\n")[0]
    body = PROGRAMS[entry] if entry in named else "None"
    return f"```python\ndef {entry}(x):\n    return {body}\n```"


@pytest.fixture
def desk(tmp_path, grader):
    def make(meta, answers=worker, **options):
        replies = {"worker": answers, "meta": meta}
        return FitDesk(tmp_path / "fit", grader, replies, **{"problems": PROBLEMS, **options})

    return make


async def test_the_best_workflow_is_found_and_every_round_is_a_node_of_the_tree(desk):
    made = desk([do("double"), do("double triple half"), do("triple")])
    found = await fit(made.problems, made.ctx, max_rounds=3, **TIE)
    assert (found["round"], found["score"]) == (3, 1.0)
    assert "DO" in found["prompts"]
    assert "prompt_custom.DO" in found["graph"]
    nodes = made.records("node")
    assert [n["number"] for n in nodes] == [1, 2, 3, 4]
    assert [n["score"] for n in nodes] == pytest.approx([0, 1 / 3, 1, 1 / 3])
    assert nodes[0]["parent"] is None
    assert all(n["parent"] in range(1, n["number"]) for n in nodes[1:])
    assert nodes[0]["same_as_template"]
    assert [r["round"] for r in found["rounds"]] == [1, 2, 3, 4]
    assert found["rounds"][2]["modification"] == "solve double triple half"


async def test_twenty_rounds_make_twenty_one_workflows(desk):
    made = desk([reply(f"idea {n}", SAME) for n in range(20)], problems=[DOUBLE])
    found = await fit(made.problems, made.ctx, **TIE)
    assert len(found["rounds"]) == 21
    assert len(made.models["meta"].requests) == 20
    assert len(made.records("trial")) == 21


async def test_the_earliest_round_wins_a_tie(desk):
    made = desk([do("double"), do("triple")])
    found = await fit(made.problems, made.ctx, max_rounds=2, **TIE)
    assert found["round"] == 2


async def test_a_search_that_stands_still_ends_early(desk):
    made = desk([reply(f"idea {n}", SAME) for n in range(20)], problems=[DOUBLE])
    found = await fit(made.problems, made.ctx)
    assert len(found["rounds"]) == 6  # five times on end, the top three did not change


async def test_greedy_workers_run_a_workflow_once_on_each_problem_and_the_node_says_so(desk):
    made = desk([do("double")])
    await fit(made.problems, made.ctx, max_rounds=1)
    assert [n["evals"] for n in made.records("node")] == [1, 1]
    assert [n["runs"] for n in made.records("node")] == [3, 3]
    assert {t["label"] for t in made.records("trial")} == {"round 1, run 1", "round 2, run 1"}


async def test_sampling_workers_run_it_as_often_as_told_with_seeds_of_their_own(desk):
    made = desk([do("double")], sampling={"worker": Sampling(temperature=0.8)})
    await fit(made.problems, made.ctx, max_rounds=1, evals=4)
    assert [n["evals"] for n in made.records("node")] == [4, 4]
    assert [n["runs"] for n in made.records("node")] == [12, 12]
    calls = [c for c in made.records("call") if c["role"] == "worker"]
    assert len({c["seed"] for c in calls}) == len(calls) == 24


async def test_only_problems_on_which_it_sampled_are_run_again(desk):
    warm = reply(
        "warm for one problem",
        "t = 1.0 if entry_point == 'half' else 0.0\n"
        "        return (await self.custom(problem, 'SKILL half', temperature=t))['response'], 0",
    )
    made = desk([warm])
    await fit(made.problems, made.ctx, max_rounds=1, evals=3)
    last = made.records("node")[1]
    assert (last["runs"], last["evals"], last["score"]) == (5, 3, pytest.approx(1 / 3))
    again = [t for t in made.records("trial") if t["label"].endswith(("run 2", "run 3"))]
    assert [t["problem_id"] for t in again] == [HALF.problem_id] * 2


async def test_a_score_is_the_mean_over_problems_then_over_evaluations(desk):
    answers = [WRONG, RIGHT, RIGHT, WRONG, RIGHT]
    made = desk([], answers, problems=[DOUBLE], sampling={"worker": Sampling(temperature=0.8)})
    found = await fit(made.problems, made.ctx, max_rounds=0)
    (only,) = made.records("node")
    assert sorted(only["scores"]) == [0, 0, 1, 1, 1]
    assert found["score"] == pytest.approx(0.6)


async def test_a_workflow_that_does_not_load_is_run_once_and_scores_zero(desk):
    made = desk([reply("leave a bracket open", "return (")])
    found = await fit(made.problems, made.ctx, max_rounds=1)
    last = made.records("node")[1]
    assert (last["score"], last["error_class"], last["runs"]) == (0.0, "load:SyntaxError", 1)
    assert found["rounds"][1]["error"].startswith("load: SyntaxError")


async def test_a_workflow_that_fails_alike_on_three_problems_is_not_run_on_the_others(desk):
    four = [*PROBLEMS, replace(DOUBLE, problem_id="Test/3")]
    made = desk([reply("break it", BROKEN)] * 2, problems=four)
    await fit(made.problems, made.ctx, max_rounds=1)
    assert [n["runs"] for n in made.records("node")] == [4, 3]
    assert made.records("node")[1]["error_class"] == "run:NameError"


async def test_a_workflow_can_be_run_everywhere_although_it_fails(desk):
    four = [*PROBLEMS, replace(DOUBLE, problem_id="Test/3")]
    made = desk([reply("break it", BROKEN)], problems=four)
    await fit(made.problems, made.ctx, max_rounds=1, give_up=0)
    assert made.records("node")[1]["runs"] == 4


async def test_one_failed_run_is_a_failure_of_that_problem_alone(desk):
    sometimes = "if entry_point == 'double':\n            return undefined_name\n        " + CUSTOM
    made = desk([reply("sometimes", sometimes, "DO = 'SKILL double triple half'")])
    await fit(made.problems, made.ctx, max_rounds=1)
    last = made.records("node")[1]
    assert (last["failed"], last["error"], last["score"]) == (1, None, pytest.approx(2 / 3))


async def test_a_workflow_that_loops_meets_its_limit(desk):
    loop = "while True:\n            await self.custom(input=problem)"
    made = desk([reply("loop", loop)])
    await fit(made.problems, made.ctx, max_rounds=1, workflow_calls=4, give_up=1)
    last = made.records("node")[1]
    assert (last["error_class"], last["score"]) == ("limit:CallLimit", 0.0)
    assert len(made.models["worker"].requests) == 3 + 4


async def test_a_failed_workflow_is_experience_and_never_a_parent(desk):
    made = desk(
        [reply("break it", BROKEN), reply("no code", "").replace("graph", "drawing"), do("half")]
    )
    await fit(made.problems, made.ctx, max_rounds=3, **TIE)
    nodes = made.records("node")
    assert [n["parent"] for n in nodes] == [None, 1, 1, 1]
    assert nodes[2]["error_class"] == "reply:NoWorkflow"
    assert "- break it: failed: run: NameError" in made.asked("meta")[1]
    assert "- no code: failed: reply: NoWorkflow" in made.asked("meta")[2]


async def test_experience_tells_gains_from_losses(desk):
    made = desk([do("double triple"), reply("no help", SAME), do("half")], seed=0)
    await fit(made.problems, made.ctx, max_rounds=3, sample=1, **TIE)  # only round 1 is a parent
    assert "solves 0.0000 of the problems" in made.asked("meta")[0]
    assert "Already tried" not in made.asked("meta")[0]
    assert "- solve double triple: improved to 0.6667" in made.asked("meta")[2]
    assert "- no help: no gain, 0.0000" in made.asked("meta")[2]


async def test_failures_of_the_parent_are_shown_up_to_three(desk):
    many = [replace(DOUBLE, problem_id=f"Test/{n}") for n in range(5)]
    made = desk([do("double")], problems=many)
    await fit(made.problems, made.ctx, max_rounds=1)
    shown = made.asked("meta")[0]
    assert shown.count("A problem that it does not solve") == 3
    assert "return None" in shown
    assert "What went wrong: wrong: " in shown


async def test_failures_can_be_left_out(desk):
    made = desk([do("double")])
    await fit(made.problems, made.ctx, max_rounds=1, failures=0)
    assert "does not solve" not in made.asked("meta")[0]


async def test_a_repeated_modification_is_asked_for_again_at_most_three_times(desk):
    same = reply("First  idea.", SAME)
    made = desk([reply("first idea", SAME), same, same, same, same])
    found = await fit(made.problems, made.ctx, max_rounds=2, sample=1)
    assert len(made.models["meta"].requests) == 5
    assert made.asked("meta")[2].startswith("That modification was already tried")
    assert found["rounds"][2]["modification"] == "First  idea."


async def test_another_modification_ends_the_asking(desk):
    made = desk([reply("first idea", SAME), reply("first idea", SAME), do("half")])
    found = await fit(made.problems, made.ctx, max_rounds=2, sample=1)
    assert found["rounds"][2]["modification"] == "solve half"


async def test_a_rejected_request_to_the_meta_agent_is_a_round_with_score_zero(desk):
    made = desk([RequestRejected("context too long"), do("half")])
    await fit(made.problems, made.ctx, max_rounds=2)
    nodes = made.records("node")
    assert (nodes[1]["error_class"], nodes[1]["score"]) == ("reply:Rejected", 0.0)
    assert nodes[2]["score"] == pytest.approx(1 / 3)


async def test_a_rejected_second_request_leaves_the_repeated_workflow(desk):
    same = reply("first idea", SAME)
    made = desk([same, same, RequestRejected("context too long")])
    found = await fit(made.problems, made.ctx, max_rounds=2, sample=1)
    assert found["rounds"][2]["modification"] == "first idea"
    node = made.records("node")[2]
    assert (node["error"], node["runs"]) == (None, 3)
    assert node["reply_sha"] == made.records("node")[1]["reply_sha"]


async def test_a_meta_agent_that_fails_in_round_7_ends_the_search_which_then_goes_on(desk):
    ideas = [reply(f"idea {n}", SAME) for n in range(5)]
    gone = ModelUnavailable("gone", retry_after_s=1e9)
    made = desk([*ideas, gone])
    with pytest.raises(ModelUnavailable):
        await fit(made.problems, made.ctx, max_rounds=6, **TIE)
    await made.ctx.finish()
    made.journal.close()
    again = desk([do("double triple half")])
    found = await fit(again.problems, again.ctx, max_rounds=6, **TIE)
    assert len(again.models["meta"].requests) == 1
    assert len(again.models["worker"].requests) == 3
    assert (found["round"], found["score"]) == (7, 1.0)


async def test_what_the_meta_agent_is_told_of_the_operators_is_a_knob(desk):
    made = desk([do("half")])
    await fit(made.problems, made.ctx, max_rounds=1)
    system = made.models["meta"].requests[0]["messages"][0]["content"]
    assert "4. test(" in system
    assert "revise(" not in system
    assert DOUBLE.prompt not in system


async def test_all_operators_can_be_told_of(desk):
    made = desk([do("half")])
    await fit(made.problems, made.ctx, max_rounds=1, operators="all")
    assert "6. revise(" in made.models["meta"].requests[0]["messages"][0]["content"]


def test_parents_are_drawn_by_the_mixed_rule_among_round_1_and_the_best_others():
    scores = [0.8, 0.2, 0.9, 1.0, 0.5, 1.0]
    nodes = [Node(n, "", "", means=[score]) for n, score in enumerate(scores, 1)]
    nodes[5].error = "run: NameError: x"  # the other 1.0: what does not work is no parent
    weights = mixed_probabilities([0.8, 1.0, 0.9, 0.5], 0.1, 0.3)
    expected = dict(zip((1, 4, 3, 5), weights, strict=True))
    rng = random.Random(0)
    drawn = Counter(draw_parent(rng, nodes, 4, 0.1, 0.3).number for _ in range(20_000))
    assert drawn.keys() == expected.keys()
    for number, probability in expected.items():
        spread = math.sqrt(20_000 * probability * (1 - probability))
        assert drawn[number] == pytest.approx(20_000 * probability, abs=5 * spread)
    assert {draw_parent(rng, nodes, 1, 0.1, 0.3).number for _ in range(100)} == {1}


async def test_solve_runs_the_found_workflow_once(tmp_path, grader):
    found = {"graph": TEMPLATE, "prompts": ""}
    made = Desk(tmp_path / "run", grader, {"worker": [RIGHT]}, artifact=found)
    assert "2 * x" in (await solve(DOUBLE, made.ctx)).code
    assert len(made.records("call")) == 1


async def test_a_found_workflow_that_fails_is_no_answer_and_no_second_try(tmp_path, grader):
    loop = (
        "class Workflow:\n    async def __call__(self):\n        while True: await self.custom('x')"
    )
    made = Desk(
        tmp_path / "run",
        grader,
        {"worker": lambda _: RIGHT},
        artifact={"graph": loop, "prompts": ""},
    )
    assert (await solve(DOUBLE, made.ctx, workflow_calls=3)).code == ""
    assert len(made.records("call")) == 3
    (ran,) = made.records("workflow")
    assert ran["error_class"] == "limit:CallLimit"


async def test_an_answer_without_a_program_is_no_answer(tmp_path, grader):
    found = {"graph": TEMPLATE, "prompts": ""}
    made = Desk(tmp_path / "run", grader, {"worker": ["I cannot."]}, artifact=found)
    assert (await solve(DOUBLE, made.ctx)).code == ""


async def test_without_a_found_workflow_there_is_a_usage_error(tmp_path, grader):
    made = Desk(tmp_path / "run", grader, {"worker": [RIGHT]})
    with pytest.raises(UsageError, match="run `fit`"):
        await solve(DOUBLE, made.ctx)


def brute(rounds, z):
    """Convergence, worked out anew from every prefix of the search."""
    tops, errors = [], []
    for t in range(1, len(rounds) + 1):
        means = [statistics.mean(r) for r in rounds[:t]]
        count = min(3, t)
        best = max(
            itertools.combinations(range(t), count),
            key=lambda chosen: (sum(means[i] for i in chosen), [-i for i in chosen]),
        )
        tops.append(sum(means[i] for i in best) / count)
        errors.append(math.sqrt(sum(statistics.pstdev(rounds[i]) ** 2 for i in best)) / 3)
    still = [
        abs(b - a) <= z * math.sqrt(x * x + y * y) + 1e-12
        for a, b, x, y in zip(tops, tops[1:], errors, errors[1:], strict=False)
    ]
    return len(rounds) >= 4 and any(all(still[i : i + 5]) for i in range(len(still) - 4))


@pytest.mark.parametrize("z", [0.0, 0.5, 1.0, 3.0])
def test_convergence_agrees_with_brute_force(z):
    rng = random.Random(0)
    seen = set()
    for _ in range(400):
        rounds = [[rng.randrange(9) / 8 for _ in range(3)] for _ in range(rng.randrange(1, 14))]
        assert converged(rounds, z) == brute(rounds, z), rounds
        seen.add(converged(rounds, z))
    assert seen == {True, False}


@pytest.mark.parametrize("problems", [33, 86])
def test_a_score_that_stands_still_converges_whatever_its_sums_round_to(problems):
    for solved in range(problems + 1):
        assert converged([[solved / problems] * 5] * 6, 0.0), solved
    moving = [[n / 4 / problems] * 5 for n in range(20)]  # by a third of the least step
    assert not converged(moving, 0.0)


def test_convergence_worked_by_hand():
    rising = [[n / 10] for n in range(10)]
    assert not converged(rising, 0.0)
    assert converged([[0.0]] * 6, 0.0)
    assert not converged([[0.0]] * 5, 0.0)
    # the fourth best does not matter, nor does a round that fails
    assert converged([*rising[:6], [0.0], [0.3], [0.1], [0.2], [0.0]], 0.0)
    assert not converged([*rising[:6], [0.0], [0.3], [0.1], [0.2]], 0.0)


def test_the_call_plan_has_twenty_one_workflows():
    knobs = {"max_rounds": 20, "early_stop": False, "regenerations": 3, "evals": 5}
    plan = METHOD.fit_calls(knobs, 33)
    assert plan["meta"] == (20, 80)
    assert plan["worker"][0] == 21 * 33
    assert plan["worker"][1] >= 21 * 5 * 33 == 3465


async def test_a_simulated_meta_agent_answers_the_search():
    model = open_sim("sim/skill=0.5")
    shown = ROUND.format(score=0.5, graph=TEMPLATE, prompts="", experience="", failures="")
    chat = [
        {"role": "system", "content": SYSTEM.format(operators="")},
        {"role": "user", "content": shown},
    ]
    about = About("search", 0, "meta", 0)
    answer = await model.complete(chat, Sampling(0.7, 2048), seed=1, about=about)
    assert "<modification>" in answer.text
    assert not same_program(answer.text, TEMPLATE)
