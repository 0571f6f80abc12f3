"""FlowReasoner's loop with scripted models: calls, selection, failures, the meta-agent's view."""

import pytest

from baselines.flowreasoner import solve
from baselines.workflows import mixed_probabilities, parse_reply, same_program
from harness.errors import RequestRejected
from harness.types import Level, Sampling
from tests.support import DOUBLE, RIGHT, WRONG, Desk


def reply(name, body, prompts=""):
    return (
        f"<modification>{name}</modification>\n<graph>\nclass Workflow:\n"
        f"    async def __call__(self, problem, entry_point):\n        {body}\n</graph>\n"
        f"<prompt>\n{prompts}\n</prompt>"
    )


CUSTOM = "return (await self.custom(input=problem, instruction=prompt_custom.DO))['response'], 0"
BROKEN = "return undefined_name"


@pytest.fixture
def desk(tmp_path, grader):
    def make(worker, meta, **options):
        replies = {"worker": worker, "meta": meta}
        return Desk(tmp_path / "run", grader, replies, **options)

    return make


async def test_a_better_workflow_wins_and_its_program_is_kept(desk):
    made = desk([WRONG, RIGHT], [reply("ask otherwise", CUSTOM, 'DO = "Think."')])
    found = await solve(DOUBLE, made.ctx, rounds=1)
    assert found.code == "def double(x):\n    return 2 * x"
    first, second = made.records("round")
    assert (first["round"], first["score"], first["parent"]) == (1, 0.5, None)
    assert (second["round"], second["score"], second["parent"]) == (2, 1.0, 1)
    assert (first["same_as_template"], second["same_as_template"]) == (True, False)
    assert made.asked()[1].startswith("Think.")
    assert [r["role"] for r in made.records("call")] == ["worker", "meta", "worker"]
    assert [r["round"] for r in made.records("call")] == [1, 2, 2]


async def test_the_earliest_round_wins_a_tie(desk):
    other = RIGHT.replace("2 * x", "x + x")
    made = desk([RIGHT, other], [reply("same score", CUSTOM, "DO = 'a'")])
    assert "2 * x" in (await solve(DOUBLE, made.ctx, rounds=1)).code


async def test_a_broken_workflow_scores_zero_and_its_error_reaches_the_meta_agent(desk):
    made = desk(
        [WRONG, RIGHT],
        [reply("break it", BROKEN), reply("mend it", CUSTOM, "DO = 'a'")],
    )
    found = await solve(DOUBLE, made.ctx, rounds=2, parent="latest")
    assert "2 * x" in found.code
    rounds = made.records("round")
    assert [r["score"] for r in rounds] == [0.5, 0.0, 1.0]
    assert rounds[1]["error_class"] == "run:NameError"
    assert "undefined_name" in made.asked("meta")[1]
    assert "It failed: run: NameError" in made.asked("meta")[1]


async def test_what_was_tried_on_a_parent_is_shown_with_its_outcome(desk):
    made = desk(
        [WRONG, WRONG, WRONG],
        [reply("first idea", BROKEN), reply("second idea", CUSTOM, "DO = 'a'")],
    )
    await solve(DOUBLE, made.ctx, rounds=2, sample=1)  # the template is the only parent
    assert "- first idea: failed: run: NameError" in made.asked("meta")[1]


async def test_a_repeated_modification_is_asked_for_again_at_most_twice(desk):
    same = reply("First  idea.", CUSTOM, "DO = 'a'")
    made = desk([WRONG, WRONG, WRONG], [reply("first idea", CUSTOM, "DO = 'a'"), same, same, same])
    await solve(DOUBLE, made.ctx, rounds=2, sample=1)
    assert len(made.models["meta"].requests) == 4
    assert "already tried" in made.asked("meta")[2]


async def test_a_reply_without_a_workflow_is_a_scored_zero_round(desk):
    made = desk([WRONG], ["I would rather not."])
    found = await solve(DOUBLE, made.ctx, rounds=1)
    assert "return x" in found.code
    assert made.records("round")[1]["error_class"] == "reply:NoWorkflow"
    assert made.records("round")[1]["score"] == 0.0


async def test_greedy_workers_evaluate_a_workflow_once_and_sampling_ones_as_told(desk, tmp_path):
    made = desk([RIGHT], [])
    await solve(DOUBLE, made.ctx, rounds=0, evals=3)
    assert made.records("round")[0]["evals"] == 1


async def test_a_sampling_worker_is_evaluated_as_often_as_told(desk):
    made = desk([WRONG, RIGHT, WRONG], [], sampling={"worker": Sampling(temperature=0.8)})
    found = await solve(DOUBLE, made.ctx, rounds=0, evals=3)
    (only,) = made.records("round")
    assert (only["scores"], only["evals"]) == ([0.5, 1.0, 0.5], 3)
    assert only["score"] == pytest.approx(2 / 3)
    assert "2 * x" in found.code  # the best of the three programs, not the last


async def test_a_model_that_takes_no_temperature_is_never_greedy(desk):
    made = desk([WRONG, RIGHT, WRONG], [])
    made.models["worker"].samples_always = True
    await solve(DOUBLE, made.ctx, rounds=0, evals=3)
    assert made.records("round")[0]["evals"] == 3


async def test_a_workflow_that_asks_for_a_temperature_is_evaluated_as_often_as_told(desk):
    warm = "return (await self.custom(input=problem, instruction='x', temperature=1.0))['response']"
    made = desk([WRONG, RIGHT, WRONG, RIGHT], [reply("warm", warm)])
    await solve(DOUBLE, made.ctx, rounds=1, evals=3)
    assert [r["evals"] for r in made.records("round")] == [1, 3]
    assert made.records("round")[1]["scores"] == [1.0, 0.5, 1.0]


async def test_a_failed_evaluation_scores_zero_whichever_it_is(desk):
    sometimes = (
        "r = (await self.custom(input=problem, instruction='x', temperature=1.0))['response']\n"
        "        return r if 'def' in r else undefined"
    )
    made = desk([WRONG, "nothing", RIGHT, RIGHT], [reply("sometimes", sometimes)])
    await solve(DOUBLE, made.ctx, rounds=1, evals=3)
    last = made.records("round")[1]
    assert (last["scores"], last["error"]) == ([0.0, 1.0, 1.0], None)
    assert last["score"] == pytest.approx(2 / 3)


async def test_a_rejected_meta_call_is_a_failed_round_and_not_a_lost_sample(desk):
    made = desk([RIGHT], [RequestRejected("context too long")])
    made.ctx.gates["meta"].answered = True
    found = await solve(DOUBLE, made.ctx, rounds=1)
    assert "2 * x" in found.code
    assert made.records("round")[1]["error_class"] == "reply:Rejected"


async def test_without_feedback_the_first_program_ends_the_rounds(desk):
    made = desk(["no program", RIGHT], [reply("again", CUSTOM, "DO = 'a'")] * 4, level=Level.L0)
    found = await solve(DOUBLE, made.ctx, rounds=4)
    assert "2 * x" in found.code
    assert len(made.models["meta"].requests) == 1


async def test_half_a_character_in_an_error_reaches_the_meta_agent_and_ends_nothing(desk):
    made = desk(
        [WRONG, RIGHT],
        [reply("break", "raise ValueError('\\ud83d')"), reply("mend", CUSTOM, "DO = 'a'")],
        sampling={"meta": Sampling(temperature=0.7)},
    )
    found = await solve(DOUBLE, made.ctx, rounds=2, parent="latest")
    assert "2 * x" in found.code
    made.asked("meta")[1].encode()


async def test_when_every_workflow_fails_there_is_no_answer(desk):
    made = desk([], [reply("a", BROKEN), reply("b", BROKEN)])
    found = await solve(DOUBLE, made.ctx, rounds=2, init_template=False)
    assert found.code == ""


async def test_rerun_executes_the_winning_workflow_again(desk):
    made = desk([WRONG, RIGHT], [])
    found = await solve(DOUBLE, made.ctx, rounds=0, final="rerun")
    assert "2 * x" in found.code


async def test_early_stop_ends_at_a_perfect_score(desk):
    made = desk([RIGHT], [])
    await solve(DOUBLE, made.ctx, rounds=5, early_stop=True)
    assert made.models["meta"].requests == []


async def test_without_a_feedback_test_the_templates_answer_is_kept(desk):
    made = desk([WRONG], [], level=Level.L0)
    found = await solve(DOUBLE, made.ctx, rounds=5)
    assert "return x" in found.code
    assert made.records("round")[0]["score"] is None


async def test_without_a_template_the_meta_agent_writes_the_first_workflow(desk):
    made = desk([RIGHT], [reply("start", CUSTOM, "DO = 'a'")])
    found = await solve(DOUBLE, made.ctx, rounds=1, init_template=False)
    assert "2 * x" in found.code
    assert "There is no workflow yet" in made.asked("meta")[0]


async def test_failed_tests_are_shown_only_when_asked_for(desk):
    made = desk([WRONG, WRONG], [reply("a", CUSTOM, "DO = 'a'")])
    await solve(DOUBLE, made.ctx, rounds=1, feedback="errors")
    assert "assert double(2) == 4: wrong got 2" in made.asked("meta")[0]


async def test_by_default_the_meta_agent_sees_a_scalar(desk):
    made = desk([WRONG, WRONG], [reply("a", CUSTOM, "DO = 'a'")])
    await solve(DOUBLE, made.ctx, rounds=1)
    assert "scores 0.50" in made.asked("meta")[0]
    assert "assert double" not in made.asked("meta")[0]


def test_mixed_selection_agrees_with_the_worked_example():
    found = mixed_probabilities([1.0, 0.9, 0.8, 0.0], alpha=0.2, lam=0.3)
    assert [round(p, 4) for p in found] == [0.6818, 0.1571, 0.0861, 0.0750]
    assert sum(found) == pytest.approx(1)


@pytest.mark.parametrize(
    "text",
    [
        "<think>use <graph>wrong</graph></think>\n" + reply("m", "return 1"),
        reply("m", "return 1")
        .replace("<graph>\n", "<graph>\n```python\n")
        .replace("\n</graph>", "\n```\n</graph>"),
        "Here it is:\n```python\n"
        "class Workflow:\n    async def __call__(self, problem, entry_point):\n"
        "        return 1\n```",
        reply("m", "return 1").partition("</graph>")[0],
    ],
)
def test_workflows_are_read_from_untidy_replies(text):
    made = parse_reply(text)
    assert made.error is None
    assert same_program(made.graph, reply("m", "return 1").split("<graph>")[1].split("</graph>")[0])
    assert made.parent == 1


def test_a_fence_inside_a_prompt_constant_stays_where_it_is():
    prompts = 'DO = """Answer with\n```python\ndef f(): ...\n```"""'
    made = parse_reply(reply("m", CUSTOM, prompts))
    assert made.prompts == prompts
    fenced = parse_reply(reply("m", CUSTOM, f"```python\n{'DO = 1'}\n```"))
    assert fenced.prompts == "DO = 1"


def test_tags_named_in_the_modification_are_words():
    text = reply("Change the <graph> so that its <prompt> is used", CUSTOM, "DO = 'a'")
    made = parse_reply(text)
    assert made.modification == "Change the <graph> so that its <prompt> is used"
    assert made.graph.startswith("class Workflow")
    assert made.prompts == "DO = 'a'"
