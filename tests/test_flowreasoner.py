"""FlowReasoner's loop with scripted models: calls, selection, failures, the meta-agent's view."""

import itertools
from dataclasses import replace

import pytest

import baselines
from baselines import layouts
from baselines.design import Search, design
from baselines.flowreasoner import METHOD, fit, solve
from baselines.layouts import Round, View, continued, read_reply, render, render_record
from baselines.workflows import TEMPLATE, mixed_probabilities, parse_reply, same_program
from harness import api
from harness.errors import ModelUnavailable, RequestRejected, UsageError
from harness.journal import read_run
from harness.rounds import rounds_of
from harness.types import Level, Sampling
from tests.support import DOUBLE, RIGHT, WRONG, Desk, FitDesk

TRIPLE = replace(
    DOUBLE,
    problem_id="Test/1",
    prompt="def triple(x): ...",
    entry_point="triple",
    prelude="",
    examples=("assert triple(1) == 3", "assert triple(0) == 0"),
)
WARM = {"worker": Sampling(temperature=1.0)}


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
    def make(worker, meta, folder="run", **options):
        replies = {"worker": worker, "meta": meta}
        return Desk(tmp_path / folder, grader, replies, **options)

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


async def test_the_best_program_is_kept_although_its_workflow_is_not_the_best(desk):
    bad = WRONG.replace("return x", "return 1")
    ideas = [reply("a gamble", CUSTOM, "DO = 'a'"), reply("again", CUSTOM, "DO = 'b'")]
    other = RIGHT.replace("2 * x", "x + x")
    made = desk([WRONG, WRONG, bad, RIGHT, other, bad], ideas, sampling=WARM)
    found = await solve(DOUBLE, made.ctx, rounds=2, evals=2)
    assert [r["scores"] for r in made.records("round")] == [[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]]
    assert "2 * x" in found.code
    (chosen,) = made.records("chosen")
    assert (chosen["round"], chosen["score"]) == (2, 0.5)
    shown = rounds_of([*made.records("round"), *made.records("call")])
    assert [r.passes for r in shown] == [0.0, 1.0, 1.0]


async def test_rerun_executes_the_best_workflow_and_not_the_best_programs(desk):
    bad = WRONG.replace("return x", "return 1")
    made = desk([WRONG, WRONG, RIGHT, bad, WRONG], [IDEAS[0]], sampling=WARM)
    found = await solve(DOUBLE, made.ctx, rounds=1, evals=2, final="rerun")
    assert "return x" in found.code
    assert made.records("chosen")[0]["round"] == 1


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


# --- layouts ---


IDEAS = [reply(f"idea {n}", CUSTOM, f"DO = 'way {n}'") for n in range(2, 6)]


def searched(made, **knobs):
    return design(DOUBLE, made.ctx, Search(**knobs))


@pytest.mark.parametrize("parent", ["mixed", "latest"])
@pytest.mark.parametrize("layout", ["round", "multi_turn", "concat"])
@pytest.mark.parametrize("init_template", [True, False])
async def test_what_a_training_record_holds_is_what_inference_sends(
    desk, layout, parent, init_template
):
    meta = [IDEAS[0], reply("break it", BROKEN), "I would rather not.", *IDEAS[1:]]
    made = desk([WRONG] * 7, meta)
    options = {"layout": layout, "feedback": "errors"}
    history = await searched(made, rounds=6, parent=parent, init_template=init_template, **options)
    sent = [request["messages"] for request in made.models["meta"].requests]
    written = history[init_template:]
    assert len(sent) == len(written) == 6
    for made_round, messages in zip(written, sent, strict=True):
        record = render_record(DOUBLE, history[: made_round.number], View(**options))
        if layout == "concat":
            *asked, begun = messages
            assert record[:-1] == asked
            text = record[-1]["content"]
            assert text.startswith(f"{begun['content']}\n{continued(made_round.reply)}\n\n")
            assert begun["role"] == "assistant"
            assert begun["content"].endswith(f"\n\nRound {made_round.number}:") or (
                begun["content"] == f"<think>\nRound {made_round.number}:"
            )
        else:
            assert record == [*messages, {"role": "assistant", "content": made_round.reply}]
            assert messages[-1]["role"] == "user"


@pytest.mark.parametrize("layout", ["multi_turn", "concat"])
async def test_each_request_begins_with_the_whole_one_before(desk, layout):
    made = desk([WRONG] * 5, [IDEAS[0], reply("break it", BROKEN), *IDEAS[1:3]])
    await searched(made, rounds=4, layout=layout)
    sent = [request["messages"] for request in made.models["meta"].requests]
    for shorter, longer in itertools.pairwise(sent):
        if layout == "multi_turn":
            assert longer[: len(shorter)] == shorter
            assert [m["role"] for m in longer[len(shorter) :]] == ["assistant", "user"]
        else:
            assert longer[:2] == shorter[:2]
            assert longer[2]["content"].startswith(shorter[2]["content"] + "\n")


async def test_a_chat_of_many_turns_is_as_documented(desk):
    made = desk([WRONG] * 3, [reply("break it", BROKEN), IDEAS[0], IDEAS[1]])
    await searched(made, rounds=3, layout="multi_turn", parent="latest", feedback="errors")
    system, first, one, second, two, third = made.models["meta"].requests[-1]["messages"]
    assert system["content"].startswith("You design workflows.")
    assert "The current workflow scores 0.50" in first["content"]
    assert "- assert double(2) == 4: wrong got 2" in first["content"]
    assert (one["content"], two["content"]) == (reply("break it", BROKEN), IDEAS[0])
    lines = second["content"].splitlines()
    assert lines[0].startswith("Feedback on round 2: it failed: run: NameError")
    assert lines[-1] == "Write the next workflow for this problem."
    assert "Go on from" not in second["content"]
    assert third["content"].startswith(
        "Feedback on round 3: it scores 0.50 (best is 1.0).\n"
        "Failed tests:\n- assert double(2) == 4: wrong got 2\n"
    )


async def test_a_drawn_parent_is_shown_again_in_a_chat_and_named_in_one_answer(desk):
    meta = [IDEAS[0], IDEAS[1]]
    made = desk([WRONG] * 3, meta)
    await searched(made, rounds=2, layout="multi_turn", sample=1)  # only the template is drawn
    last = made.asked("meta")[1]
    assert "Go on from the workflow of round 1, which scores 0.50" in last
    assert TEMPLATE in last
    assert "- idea 2: scored 0.50" in last
    view = View(layout="concat")
    template, second = Round(1, TEMPLATE, "", scores=[0.5]), Round(2, "x", "", 1, reply=IDEAS[0])
    text = render(DOUBLE, [template, second], template, view)[-1]["content"]
    assert text.endswith("\nGo on from the workflow of round 1.\n\nRound 3:")


def test_one_growing_answer_is_as_documented():
    view = View(layout="concat", feedback="errors")
    template = Round(1, TEMPLATE, "", scores=[0.5], has_feedback=True)
    second = Round(
        2, "class Workflow: a\n", "", 1, "try a", reply="<think>hm</think>\n" + IDEAS[0],
        scores=[0.0, 1.0], failures=("assert f(1): wrong",),
    )  # fmt: skip
    third = Round(3, "class Workflow: b\n", "B = 1", 2, "try b", reply=IDEAS[1])
    third.error, third.error_class, third.scores = "run: E: no", "run:E", [0.0]
    record = render_record(DOUBLE, [template, second, third], view, final=second)
    assert [m["role"] for m in record] == ["system", "user", "assistant"]
    assert record[1]["content"].endswith(layouts.CONTINUE)
    assert record[2]["content"] == (
        f"<think>\nRound 2:\nhm\n{IDEAS[0]}\n\n"
        "Feedback on round 2: it scores 0.50 (best is 1.0).\nFailed tests:\n- assert f(1): wrong"
        f"\n\nRound 3:\n{IDEAS[1]}\n\n"
        "Feedback on round 3: it failed: run: E: no\n</think>\n\n"
        "<modification>try a</modification>\n<graph>\nclass Workflow: a\n</graph>\n"
        "<prompt>\n</prompt>"
    )


def test_what_a_model_writes_behind_its_round_is_left_out():
    gone_on = f"thoughts\n{IDEAS[0]}\n\nFeedback on round 2: it scores 1.00.\n\nRound 3:\nmore"
    assert continued(gone_on) == f"thoughts\n{IDEAS[0]}"
    assert continued(f"{gone_on}\n</think>\n{IDEAS[1]}") == f"thoughts\n{IDEAS[0]}"
    assert continued("no workflow\n\nFeedback on round 2: it scores 1.00.") == "no workflow"
    assert read_reply(gone_on, View(layout="concat")).modification == "idea 2"
    anew = f"<think>as <graph>class Workflow</graph></think>\n{IDEAS[1]}"
    assert read_reply(anew, View(layout="concat")).modification == "idea 3"
    assert "think>" not in continued(anew)


@pytest.mark.parametrize("layout", ["round", "multi_turn", "concat"])
async def test_a_repeated_modification_is_asked_for_again_in_every_layout(desk, layout):
    made = desk([WRONG] * 3, [IDEAS[0], IDEAS[0], IDEAS[1]])
    history = await searched(made, rounds=2, sample=1, layout=layout)
    assert [r.modification for r in history] == ["", "idea 2", "idea 3"]
    again = made.models["meta"].requests[2]["messages"]
    assert [m["role"] for m in again][-2:] == (
        ["user", "assistant"] if layout == "concat" else ["assistant", "user"]
    )
    assert layouts.AGAIN in again[-1]["content"]
    if layout == "concat":
        assert again[-1]["content"].endswith(f"{layouts.AGAIN}\n\nRound 3:")


async def test_a_round_without_a_reply_is_passed_over_in_a_chat(desk):
    made = desk([WRONG, WRONG], [RequestRejected("too long"), IDEAS[0]])
    made.ctx.gates["meta"].answered = True
    history = await searched(made, rounds=2, layout="multi_turn")
    assert [r.error_class for r in history] == [None, "reply:Rejected", None]
    assert [m["role"] for m in made.models["meta"].requests[1]["messages"]] == ["system", "user"]


async def test_a_rejected_second_request_leaves_the_repeated_workflow(desk):
    made = desk([WRONG] * 3, [IDEAS[0], IDEAS[0], RequestRejected("too long")])
    history = await searched(made, rounds=2, sample=1)
    assert (history[2].modification, history[2].error) == ("idea 2", None)


# --- what else is a knob ---


async def test_lost_rounds_leave_no_trace_and_errors_no_text(desk):
    unclosed = reply("open a bracket", "return (")
    made = desk([WRONG] * 3, [unclosed, reply("break it", BROKEN), IDEAS[0]])
    history = await searched(made, rounds=3, parent="latest", failed_rounds="lost")
    assert [r.parent for r in history] == [None, 1, 1, 3]
    assert made.records("round")[1]["error_class"] == "load:SyntaxError"
    _, second, third = made.asked("meta")
    assert "open a bracket" not in second
    assert "scores 0.00" in third
    assert "NameError" not in third


async def test_a_workflow_that_does_not_load_is_no_parent_in_the_draw(desk):
    unclosed = reply("open a bracket", "return (")
    made = desk([WRONG] * 9, [unclosed] + [reply(f"i{n}", "return (") for n in range(8)])
    history = await searched(made, rounds=9)
    assert {r.parent for r in history[1:]} == {1}


async def test_the_releases_four_operators_are_told_and_there_are_no_others(desk):
    body = "return (await self.review(problem=problem, solution='x'))['feedback']"
    made = desk([WRONG], [reply("review", body)])
    history = await searched(made, rounds=1, operators="release")
    system, asked = (m["content"] for m in made.models["meta"].requests[0]["messages"])
    assert "4. test(" in system
    assert "revise(" not in system
    assert "It does not use: custom, sc_ensemble, test." in asked
    assert history[1].error_class == "run:AttributeError"


@pytest.mark.parametrize(("level", "told"), [(Level.L3, True), (Level.L2, False)])
async def test_test_cases_are_told_of_where_the_level_may_see_them(desk, level, told):
    body = "return (await self.custom(input=str(test_cases)))['response']"
    given = reply("show tests", body).replace("problem, entry_point", "problem, test_cases")
    made = desk([WRONG, WRONG], [given], level=level)
    await searched(made, rounds=1, test_cases=True)
    assert ("`test_cases`" in made.models["meta"].requests[0]["messages"][0]["content"]) is told
    assert ("assert double(2) == 4" in made.asked()[1]) is told


async def test_settings_of_a_node_and_its_size_are_told_when_asked_for(desk):
    made = desk([WRONG] * 2, [IDEAS[0]])
    await searched(made, rounds=1, node_settings=True, max_complexity=4)
    system = made.models["meta"].requests[0]["messages"][0]["content"]
    assert "`model=` (one of: scripted/worker)" in system
    assert "under 4 steps" in system
    other = desk([WRONG] * 2, [IDEAS[0]], folder="other")
    await searched(other, rounds=1)
    assert "model=" not in other.models["meta"].requests[0]["messages"][0]["content"]


async def test_a_failing_workflow_is_executed_again_as_often_as_told(desk):
    sometimes = (
        "r = (await self.custom(input=problem, instruction='x'))['response']\n"
        "        return r if 'def' in r else undefined"
    )
    worker = [RIGHT, "no", "no", RIGHT]
    made = desk(worker, [reply("sometimes", sometimes)], sampling=WARM)
    history = await searched(made, rounds=1, evals=1, attempts=3)
    assert (history[1].scores, history[1].error) == ([1.0], None)
    assert len(made.records("workflow")) == 4


async def test_a_workflow_that_loops_meets_its_limit_of_calls(desk):
    loop = "while True:\n            await self.custom(input=problem, instruction='x')"
    made = desk([WRONG] * 4, [reply("loop", loop), IDEAS[0]])
    made.models["worker"]._replies = lambda messages: WRONG
    history = await searched(made, rounds=2, workflow_calls=3, parent="latest")
    assert history[1].error_class == "limit:CallLimit"
    assert len(made.models["worker"].requests) == 1 + 3 + 1
    assert "more than 3 model calls" in made.asked("meta")[1]


async def test_limits_on_tokens_and_time_reach_the_workflow(desk):
    made = desk([WRONG] * 2, [])
    given = []
    real = made.ctx.run_workflow

    async def run_workflow(*arguments, limits, **options):
        given.append(limits)
        return await real(*arguments, limits=limits, **options)

    made.ctx.run_workflow = run_workflow
    await searched(made, rounds=0, workflow_tokens=1234, workflow_s=56.0)
    (limits,) = given
    assert (limits.calls, limits.tokens, limits.total_s) == (30, 1234, 56.0)


async def test_a_request_that_is_rejected_inside_a_workflow_is_that_workflows_failure(desk):
    made = desk([WRONG, RequestRejected("context too long")], [IDEAS[0]])
    made.ctx.gates["worker"].answered = True
    found = await solve(DOUBLE, made.ctx, rounds=1)
    assert "return x" in found.code
    last = made.records("round")[1]
    assert (last["score"], last["error_class"]) == (0.0, "run:RuntimeError")
    assert "context too long" in last["error"]


async def test_a_provider_that_fails_in_round_seven_ends_the_sample_and_nothing_is_paid_twice(
    desk, tmp_path
):
    ideas = [reply(f"idea {n}", CUSTOM, f"DO = 'way {n}'") for n in range(2, 12)]
    gone = ModelUnavailable("gone", retry_after_s=1e6)
    made = desk([WRONG] * 6, [*ideas[:5], gone])
    with pytest.raises(ModelUnavailable, match="gone"):
        await solve(DOUBLE, made.ctx)
    assert [r["round"] for r in made.records("round")] == [1, 2, 3, 4, 5, 6]
    before = list(read_run(tmp_path / "run"))
    resumed = desk([WRONG] * 4 + [RIGHT], ideas[5:], "again", recorded=before)
    found = await solve(DOUBLE, resumed.ctx)
    assert "2 * x" in found.code
    assert len(resumed.models["meta"].requests) == 5


async def test_further_final_runs_are_reruns(desk):
    made = desk([WRONG, RIGHT, WRONG, RIGHT], [], sampling=WARM)
    found = await solve(DOUBLE, made.ctx, rounds=0, evals=1, final="rerun", final_runs=3)
    assert "2 * x" in found.code
    assert [("2 * x" in code) for code in found.reruns] == [False, True]


async def test_greedy_final_runs_are_one(desk):
    made = desk([RIGHT, RIGHT], [])
    found = await solve(DOUBLE, made.ctx, rounds=0, final="rerun", final_runs=3)
    assert found.reruns == ()
    (chosen,) = made.records("chosen")
    assert (chosen["round"], chosen["score"], chosen["final"]) == (1, 1.0, "rerun")


@pytest.mark.parametrize("name", ["paper", "release"])
async def test_a_preset_runs_as_its_source_has_it(desk, name):
    knobs = baselines.knobs(METHOD, {"preset": name})
    preset = METHOD.presets[name]
    assert (preset.protocol, preset.sampling) == ("split", {"worker": {"temperature": 1.0}})
    ideas = [reply(f"idea {n}", CUSTOM, f"DO = 'way {n}'") for n in range(2, 12)]
    made = desk(lambda messages: WRONG, ideas, sampling=WARM, level=Level.L3)
    found = await solve(DOUBLE, made.ctx, **METHOD.given_to(solve, knobs))
    assert len(made.models["meta"].requests) == 10
    assert len(made.models["worker"].requests) == 11 * 3 + 3
    assert len(found.reruns) == 2
    few, many = METHOD.calls(knobs)["worker"]
    assert few <= 36 <= many


def test_every_knob_has_its_papers_value_or_is_ours():
    ours = {"workflow_calls", "workflow_tokens", "candidates", "search_problems"}
    assert set(baselines.known_knobs(METHOD)) - set(METHOD.paper) == ours


# --- the controls: another problem's workflow, and one for all ---


def peered(made):
    async def run_tests(code):
        from harness.types import Assertions, Oracle

        tests = Assertions(TRIPLE.examples)
        return await made.grader.run_tests(TRIPLE, Oracle(tests, "", 3.0), tests, code)

    made.ctx.seat = lambda ctx: ctx.at(TRIPLE, TRIPLE.examples, run_tests)
    return made


def thrice(factor):
    return f"```python\ndef triple(x):\n    return {factor} * x\n```"


async def test_a_shuffled_workflow_is_searched_for_the_peer_and_run_once_here(desk):
    made = peered(desk([thrice(2), thrice(3), RIGHT], [IDEAS[0]]))
    found = await solve(DOUBLE, made.ctx, rounds=1, workflow="shuffled")
    assert "def double" in found.code
    assert TRIPLE.prompt in made.asked("meta")[0]
    assert made.asked()[2].startswith("way 2")
    assert DOUBLE.prompt.strip() in made.asked()[2]
    (chosen,) = made.records("chosen")
    assert (chosen["searched_for"], chosen["round"]) == ("Test/1", 2)
    assert {r["about"] for r in made.records("round")} == {"Test/1"}
    assert [r.get("about") for r in made.records("workflow")] == ["Test/1", "Test/1", None]


async def test_shuffling_wants_a_second_problem(desk):
    with pytest.raises(UsageError, match="at least two problems"):
        await solve(DOUBLE, desk([], []).ctx, workflow="shuffled")


def fit_desk(tmp_path, grader, worker, meta):
    replies = {"worker": worker, "meta": meta}
    return FitDesk(tmp_path / "fit", grader, replies, problems=[DOUBLE, TRIPLE])


async def test_the_single_workflow_is_the_one_that_solves_most_search_problems(tmp_path, grader):
    def worker(messages):
        text = messages[-1]["content"]
        name = "double" if "double" in text else "triple"
        right = "Think." in text or (name == "double" and "Hope." in text)
        factor = {"double": 2, "triple": 3}[name] if right else 1
        return f"```python\ndef {name}(x):\n    return {factor} * x\n```"

    def meta(messages):
        word = "Hope." if "double" in messages[-1]["content"] else "Think."
        return reply(word, CUSTOM, f"DO = {word!r}")

    made = fit_desk(tmp_path, grader, worker, meta)
    artifact = await fit(made.problems, made.ctx, rounds=1)
    assert artifact["prompts"].strip() == "DO = 'Think.'"
    assert (artifact["searched_for"], artifact["score"]) == ("Test/1", 1.0)
    assert artifact["scores"] == [0.5, 1.0]
    labels = [r["label"] for r in made.records("trial")]
    assert sorted(labels) == ["candidate 1"] * 2 + ["candidate 2"] * 2 + ["own"] * 2
    nodes = made.records("node")
    assert [(n["number"], n["score"]) for n in nodes] == [(1, 0.5), (2, 1.0)]
    answering = Desk(tmp_path / "eval", grader, {"worker": worker, "meta": []}, artifact=artifact)
    found = await solve(DOUBLE, answering.ctx, workflow="single")
    assert "2 * x" in found.code
    assert answering.asked()[0].startswith("Think.")
    assert answering.models["meta"].requests == []


async def test_equal_workflows_are_one_candidate_and_the_best_own_scores_come_first(
    tmp_path, grader
):
    def worker(messages):
        return WRONG if "double" in messages[-1]["content"] else thrice(3)

    made = fit_desk(tmp_path, grader, worker, [])
    artifact = await fit(made.problems, made.ctx, rounds=0)
    assert (artifact["searched_for"], artifact["scores"]) == ("Test/1", [0.5])

    def meta(messages):
        return reply("own", CUSTOM, f"DO = '{len(messages[1]['content'])}'")

    replies = {"worker": worker, "meta": meta}
    capped = FitDesk(tmp_path / "capped", grader, replies, problems=[DOUBLE, TRIPLE])
    artifact = await fit(capped.problems, capped.ctx, rounds=1, init_template=False, candidates=1)
    assert artifact["searched_for"] == "Test/1"


async def test_a_fit_without_any_workflow_says_what_to_do(tmp_path, grader):
    made = fit_desk(tmp_path, grader, [], lambda messages: "I would rather not.")
    with pytest.raises(UsageError, match="use another --meta, or init_template=true"):
        await fit(made.problems, made.ctx, rounds=1, init_template=False)


async def test_a_single_workflow_wants_its_fit(desk):
    with pytest.raises(UsageError, match="fit it first"):
        await solve(DOUBLE, desk([], []).ctx, workflow="single")


def test_only_the_single_workflow_needs_a_fit_and_only_the_shuffled_one_a_peer():
    for name in ("own", "shuffled", "single"):
        knobs = baselines.knobs(METHOD, {"workflow": name})
        assert METHOD.fits(knobs) is (name == "single")
        assert METHOD.peers(knobs) is (name == "shuffled")
    assert "meta" not in METHOD.calls(knobs)
    assert METHOD.fit_calls(knobs, 5)["meta"] == (50, 150)


@pytest.mark.parametrize("layout", ["round", "multi_turn", "concat"])
def test_simulated_models_play_every_layout(tmp_path, layout):
    found = api.evaluate(
        method="flowreasoner", benchmark="humaneval", worker="sim/skill=0.5",
        meta="sim/skill=0.5,broken=0.2", limit=2, knobs={"rounds": 3, "layout": layout},
        out=tmp_path,
    )  # fmt: skip
    assert (found.status, found.estimate.problems) == ("complete", 2)
    rounds = [r for r in read_run(found.run_dir) if r["kind"] == "round"]
    assert len(rounds) == 8
    assert any(r["score"] and not r["same_as_template"] for r in rounds)
