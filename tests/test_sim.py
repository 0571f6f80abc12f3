"""The simulated worker: as skilled as its name says, and formal enough for every method."""

import asyncio
import math
import re
import subprocess
import sys
from dataclasses import replace

import pytest

import baselines
from baselines import llm_debate, operators
from baselines.layouts import AGAIN, FIRST, SYSTEM
from baselines.workflows import operator_list, parse_reply
from harness import api, benchmarks
from harness.benchmarks import DataSources
from harness.errors import RequestRejected, UsageError
from harness.extract import code_block
from harness.journal import read_run
from harness.models.encoder import fetch_files
from harness.models.pull import default_cache_dir
from harness.models.sim import WORKFLOWS, WRONG, open_sim
from harness.store import Store, open_snapshot, read_run_json
from harness.types import About, Problem, Sampling, Verdict
from leaderboard.export import table
from leaderboard.queries import board, groups

DOUBLE = Problem("Test/0", "test", "Return twice x.\n\ndef double(x):", "double", "", ())
HALVE = replace(DOUBLE, problem_id="Test/1", prompt="Return half of x.", entry_point="halve")
TWICE = "def double(x):\n    # by addition\n    return x + x"
HALF = "def halve(x):\n    return x / 2"
FALSE = WRONG.format(name="double", number=5.375)


@pytest.fixture(scope="module")
def humaneval():
    return benchmarks.load("humaneval").items


def informed(spec, items=None):
    """A model of this name that knows HumanEval, or two problems of ours."""
    model = open_sim(spec)
    if items is None:
        model.learn({"Test/0": (DOUBLE, TWICE), "Test/1": (HALVE, HALF)})
    else:
        model.learn({key: (one.problem, one.oracle.reference) for key, one in items.items()})
    return model


async def ask(model, *texts, problem=DOUBLE, seed=None, **sampling):
    """The answer to a chat: the user's and the assistant's messages in turn."""
    roles = ("user", "assistant")
    chat = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    about = About(problem.problem_id, 0, "worker", 0)
    return await model.complete(chat, Sampling(**sampling), seed=seed, about=about)


async def programs(model, items, seed=None):
    """{problem: the program of its answer} to the prompt of every method's first call."""
    found = {}
    for key, item in items.items():
        text = operators.solve_prompt(item.problem)
        reply = await ask(model, text, problem=item.problem, seed=seed)
        found[key] = code_block(reply.text, item.problem.entry_point)
    return found


def right(found, items):
    """The ids of the problems that were answered with the reference."""
    plain = {
        key: code_block(f"```\n{one.oracle.reference}\n```", one.problem.entry_point)
        for key, one in items.items()
    }
    return {key for key, code in found.items() if code == plain[key]}


def is_likely(hits, trials, p):
    """Whether so many hits lie between the exact binomial's 0.01% tails."""
    share = [math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(trials + 1)]
    return min(sum(share[: hits + 1]), sum(share[hits:])) > 1e-4


# --- skill ---


@pytest.mark.parametrize("seed", range(4))
async def test_the_share_of_right_programs_is_the_skill(humaneval, seed):
    model = informed(f"sim/skill=0.7,seed={seed}", humaneval)
    hits = len(right(await programs(model, humaneval), humaneval))
    assert is_likely(hits, 164, 0.7)
    assert not is_likely(hits, 164, 0.4)


@pytest.mark.parametrize(("skill", "passed"), [(0, 0), (1, 164)])
async def test_at_no_skill_every_problem_fails_and_at_full_skill_none(
    humaneval, grader, skill, passed
):
    found = await programs(informed(f"sim/skill={skill}", humaneval), humaneval)
    reports = await asyncio.gather(
        *(grader.grade(one.problem, one.oracle, found[key]) for key, one in humaneval.items())
    )
    assert sum(report.verdict.solved for report in reports) == passed
    assert {report.verdict for report in reports} <= {Verdict.PASSED, Verdict.WRONG}


async def test_a_wrong_program_runs_and_fails_every_problem_of_mbpp(shared, grader):
    items = benchmarks.load("mbpp", DataSources(data_dir=shared / "data")).items
    found = await programs(informed("sim/skill=0", items), items)
    reports = await asyncio.gather(
        *(grader.grade(one.problem, one.oracle, found[key]) for key, one in items.items())
    )
    assert {report.verdict for report in reports} == {Verdict.WRONG}


async def test_the_spread_of_skill_is_over_problems_and_stays_in_its_bounds(humaneval):
    model = informed("sim/skill=0.6,spread=0.3", humaneval)
    skills = [model.skill(key) for key in humaneval]
    assert 0.3 <= min(skills) < 0.35
    assert 0.85 < max(skills) <= 0.9
    assert abs(sum(skills) / 164 - 0.6) < 0.05
    assert skills == [open_sim(model.name).skill(key) for key in humaneval]
    cut = [open_sim("sim/skill=0.9,spread=0.5").skill(key) for key in humaneval]
    assert max(cut) == 1.0
    assert {open_sim("sim/skill=0.4").skill(key) for key in humaneval} == {0.4}


async def test_other_seeds_and_other_prompts_are_independent_draws(humaneval):
    first = right(await programs(informed("sim/seed=1", humaneval), humaneval), humaneval)
    other_model = right(await programs(informed("sim/seed=2", humaneval), humaneval), humaneval)
    model = informed("sim/seed=1", humaneval)
    other_call = right(await programs(model, humaneval, seed=7), humaneval)
    for other in (other_model, other_call):
        both_or_neither = 164 - len(first ^ other)
        assert is_likely(both_or_neither, 164, 0.5)
    text = operators.solve_prompt(DOUBLE)
    found = [await ask(informed("sim/"), f"{k}\n{text}") for k in range(200)]
    hits = sum("x + x" in reply.text for reply in found)
    assert is_likely(hits, 200, 0.5)


@pytest.mark.parametrize(
    "other", ["skill=0.7,seed=1", "skill=0.5,seed=2", "skill=0.5,seed=1,latency_sd=1e-9"]
)
async def test_models_that_differ_in_any_setting_are_independent_draws(humaneval, other):
    one = right(await programs(informed("sim/skill=0.5,seed=1", humaneval), humaneval), humaneval)
    model = informed(f"sim/{other}", humaneval)
    two = right(await programs(model, humaneval), humaneval)
    assert is_likely(len(one & two), len(one), model.settings.skill)
    assert one - two  # no subset of the more skilled one's
    assert model.name != "sim/skill=0.5,seed=1"


def test_how_hard_a_problem_is_goes_by_the_seed_alone(humaneval):
    low, high, other = (
        open_sim(f"sim/{name},spread=0.2") for name in ("skill=0.5", "skill=0.7", "seed=1")
    )
    shifts = [high.skill(key) - low.skill(key) for key in humaneval]
    assert shifts == pytest.approx([0.2] * 164)
    assert [other.skill(key) for key in humaneval] != [low.skill(key) for key in humaneval]


async def test_a_greedy_run_is_the_same_whatever_its_seed_and_a_sampled_one_is_not(tmp_path):
    found = {}
    for temperature in (0.0, 0.7):
        for seed in (0, 1):
            summary = await api.evaluate_async(
                "vanilla", worker="sim/skill=0.5", limit="20", seed=seed, temperature=temperature,
                out=tmp_path / "results", cache_dir=tmp_path / "cache",
            )  # fmt: skip
            rows = summary.progress.rows.values()
            found[temperature, seed] = {r["problem_id"]: r["verdict"] for r in rows}
    assert found[0.0, 0] == found[0.0, 1]
    assert found[0.7, 0] != found[0.7, 1]


async def test_two_wrong_programs_differ_and_two_right_ones_do_not():
    text = operators.solve_prompt(DOUBLE)
    wrong = {(await ask(informed("sim/skill=0"), text, seed=k)).text for k in range(50)}
    same = {(await ask(informed("sim/skill=1"), text, seed=k)).text for k in range(50)}
    assert (len(wrong), len(same)) == (50, 1)


REPEAT = """
import asyncio, hashlib
from tests.test_sim import ask, informed, operators, DOUBLE

async def main():
    model = informed("sim/skill=0.5,seed=3,judge=0.5,broken=0.5")
    texts = [operators.solve_prompt(DOUBLE, f"way {k}") for k in range(40)] + ["Say something."]
    replies = [(await ask(model, text, temperature=0.5, seed=4)).text for text in texts]
    print(hashlib.sha256(repr(replies).encode()).hexdigest())

asyncio.run(main())
"""


def test_equal_requests_get_equal_answers_in_every_process():
    said = {
        subprocess.run(
            [sys.executable, "-c", REPEAT],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    assert open_sim("sim/").repeats


# --- which problem, and what is not answered ---


async def test_the_prompt_never_decides_which_problem_is_meant():
    model = informed("sim/skill=1")
    reply = await ask(model, operators.solve_prompt(HALVE), problem=DOUBLE)
    assert code_block(reply.text, "double") == TWICE
    assert "halve" not in reply.text


async def test_a_request_about_no_known_problem_is_rejected():
    model = informed("sim/")
    chat = [{"role": "user", "content": "hello"}]
    with pytest.raises(RequestRejected, match="without saying for which problem"):
        await model.complete(chat, Sampling())
    with pytest.raises(RequestRejected, match="Test/9"):
        await ask(model, "hello", problem=replace(DOUBLE, problem_id="Test/9"))


# --- forms ---


def review(code):
    return operators.REVIEW.format(prompt=DOUBLE.prompt, code=code)


async def test_a_review_judges_by_the_reference_and_reads_as_one():
    model = informed("sim/skill=0")
    assert operators.parse_review((await ask(model, review(TWICE))).text) == (True, "nothing")
    spaced = "def double( x ):\n\n    return x + x  # the same program"
    assert operators.parse_review((await ask(model, review(spaced))).text)[0] is True
    verdict, feedback = operators.parse_review((await ask(model, review(FALSE))).text)
    assert verdict is False
    assert feedback
    again = "End with one line: VERDICT: correct, or VERDICT: incorrect."
    reply = await ask(model, review(TWICE), "well", again)
    assert operators.parse_review(reply.text)[0] is True


async def test_a_judge_of_no_skill_is_always_wrong_and_one_of_half_half_the_time():
    lying, guessing = informed("sim/judge=0"), informed("sim/judge=0.5")
    assert operators.parse_review((await ask(lying, review(TWICE))).text)[0] is False
    assert operators.parse_review((await ask(lying, review(FALSE))).text)[0] is True
    said = [(await ask(guessing, review(TWICE), seed=k)).text for k in range(200)]
    assert is_likely(sum(operators.parse_review(text)[0] is True for text in said), 200, 0.5)


def ensemble(*codes):
    listed = "\n\n".join(f"{chr(65 + i)}:\n```python\n{c}\n```" for i, c in enumerate(codes))
    return operators.ENSEMBLE.format(prompt=DOUBLE.prompt, solutions=listed)


async def test_a_choice_names_a_right_program_by_its_letter():
    model = informed("sim/skill=0")
    for place in range(4):
        codes = [FALSE.replace("5.375", f"{k}.375") for k in range(4)]
        codes[place] = TWICE
        reply = await ask(model, ensemble(*codes))
        assert operators.parse_choice(reply.text, "ABCD") == place
    unreadable = await ask(model, ensemble("def double(", FALSE, TWICE))
    assert operators.parse_choice(unreadable.text, "ABC") == 2
    liar = await ask(informed("sim/judge=0"), ensemble(TWICE, FALSE, TWICE))
    assert operators.parse_choice(liar.text, "ABC") == 1
    hopeless = await ask(model, ensemble(FALSE, FALSE.replace("5", "6")))
    assert operators.parse_choice(hopeless.text, "AB") in (0, 1)


@pytest.mark.parametrize("template", [operators.REVISE, operators.REPAIR])
async def test_a_rewrite_keeps_a_right_program_and_draws_anew_for_a_wrong_one(template):
    fields = {"entry_point": "double", "prompt": DOUBLE.prompt, "feedback": "x", "failures": "y"}
    unskilled, skilled = informed("sim/skill=0"), informed("sim/skill=1")
    kept = (await ask(unskilled, template.format(code=TWICE, **fields))).text
    assert code_block(kept, "double") == TWICE
    drawn = (await ask(unskilled, template.format(code=FALSE, **fields))).text
    assert code_block(drawn, "double") not in ("", TWICE, FALSE.strip())
    mended = (await ask(skilled, template.format(code=FALSE, **fields))).text
    assert code_block(mended, "double") == TWICE


async def test_a_program_is_extracted_as_it_stands():
    fields = {"entry_point": "double", "prompt": DOUBLE.prompt}
    for code in (TWICE, FALSE.strip()):
        text = operators.FORMAT.format(text=f"Here:\n```python\n{code}\n```", **fields)
        reply = (await ask(informed("sim/"), text)).text
        assert code_block(reply, "double") == code


async def test_the_judge_of_a_debate_takes_a_right_program():
    listed = "\n\n".join(
        f"Program {i}:\n```python\n{p}\n```" for i, p in enumerate([FALSE, TWICE, FALSE], 1)
    )
    fields = {"entry_point": "double", "prompt": DOUBLE.prompt}
    reply = await ask(informed("sim/skill=0"), llm_debate.JUDGE.format(programs=listed, **fields))
    assert code_block(reply.text, "double") == TWICE


def design(model, *more):
    system = {"role": "system", "content": SYSTEM.format(operators=operator_list())}
    roles = ("user", "assistant")
    texts = (FIRST.format(problem=DOUBLE.prompt), *more)
    chat = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    about = About("Test/0", 0, "meta", 0)
    return model.complete([system, *chat], Sampling(), about=about)


async def test_a_meta_agent_writes_a_workflow_and_never_one_that_it_is_told_was_tried():
    model, chat, seen = informed("sim/"), [], []
    for _ in WORKFLOWS:
        reply = (await design(model, *chat)).text
        made = parse_reply(reply)
        assert made.error is None
        graph, prompts = WORKFLOWS[made.modification]
        assert (made.graph, made.prompts.strip()) == (graph, prompts.strip())
        seen.append(made.modification)
        chat += [reply, AGAIN]
    assert sorted(seen) == sorted(WORKFLOWS)
    assert parse_reply((await design(model, *chat)).text).modification in WORKFLOWS


async def test_a_searchs_own_calls_get_a_workflow_or_a_sentence_and_never_a_program():
    """They are about no problem, so nothing can be right or wrong."""
    none = replace(DOUBLE, problem_id="search")
    model = informed("sim/")
    asked = SYSTEM.format(operators=operator_list()) + FIRST.format(problem="any of these")
    assert parse_reply((await ask(model, asked, problem=none)).text).modification in WORKFLOWS
    assert (await ask(model, "Say what is hard here.", problem=none)).text.endswith(".")
    for text in (operators.solve_prompt(DOUBLE), review(TWICE)):
        with pytest.raises(RequestRejected, match="without saying for which problem"):
            await ask(model, text, problem=none)


async def test_anything_else_gets_a_short_sentence_without_a_program():
    reply = (await ask(informed("sim/"), "List the edge cases of this problem.")).text
    assert reply.endswith(".")
    assert code_block(reply, "double") == ""


# --- name, tokens, price ---


def test_a_name_is_canonical_and_all_of_it_is_its_identity():
    assert open_sim("sim/").name == "sim/skill=0.5,seed=0"
    model = open_sim("sim/seed=12345678901234567890,skill=0.70, latency=0")
    assert model.name == "sim/skill=0.7,seed=12345678901234567890"
    assert open_sim(model.name).identity() == model.identity()
    other = open_sim("sim/skill=0.7,seed=1,judge=0.9")
    assert other.name == "sim/skill=0.7,judge=0.9,seed=1"
    assert other.identity()["judge"] == 0.9
    assert model.simulated


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("sim/skil=0.7", "'skil' is no setting; a simulated model takes skill=0.5, spread=0,"),
        ("sim/skill=0.7,skill=0.8", "'skill' is given twice"),
        ("sim/skill=1.5", "skill is a number in 0 to 1, not '1.5'"),
        ("sim/skill", "skill is a number in 0 to 1, not ''"),
        ("sim/seed=0.5", "seed is a whole number of at least 0, not '0.5'"),
        ("sim/latency=inf", "latency is a number of at least 0, not 'inf'"),
    ],
)
def test_a_bad_name_is_told_in_one_line(spec, said):
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        open_sim(spec)
    assert "\n" not in str(caught.value)


async def test_tokens_are_words_dollars_go_by_them_and_a_long_answer_is_cut():
    model = informed("sim/skill=1,usd=2")
    text = operators.solve_prompt(DOUBLE)
    whole = await ask(model, text)
    assert (whole.prompt_tokens, whole.completion_tokens) == (
        len(text.split()),
        len(whole.text.split()),
    )
    tokens = whole.prompt_tokens + whole.completion_tokens
    assert model.price(whole) == pytest.approx(2e-6 * tokens)
    assert informed("sim/").price(whole) == 0.0
    cut = await ask(model, text, max_tokens=5)
    assert (cut.completion_tokens, cut.finish, whole.finish) == (5, "length", "stop")


async def test_an_answer_takes_its_latency_and_many_take_it_beside_each_other():
    model = informed("sim/latency=0.05,latency_sd=0.01")
    pauses = sorted(model._pause_s((k + 0.5) / 100) for k in range(100))
    assert sum(pauses) / 100 == pytest.approx(0.05, abs=1e-3)
    assert pauses[15] == pytest.approx(0.04, abs=1e-3)  # one deviation below
    assert min(open_sim("sim/latency_sd=1")._pause_s(k / 10) for k in range(10)) == 0.0
    answered = []

    async def one(number):
        await ask(model, str(number))
        answered.append(number)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(k)) for k in range(100)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
    assert sorted(answered) == list(range(100)) != answered  # each at a time of its own


# --- through the harness ---


SMALL = {  # searches of seconds
    "adas": {"generations": 1, "resamples": 100, "search_problems": 2},
    "aflow": {"max_rounds": 3, "evals": 1, "search_problems": 2},
    "maas": {"passes": 1, "batch": 2, "search_problems": 2},
    "scoreflow": {"workflows": 2, "evals": 1, "search_problems": 2},
    "flowreasoner": {"rounds": 3},
    "best-of-n": {"n": 4},
}


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=[pytest.mark.torch, pytest.mark.model] if name == "maas" else [])
        for name in sorted(baselines.REGISTRY)
    ],
)
async def test_every_method_runs_end_to_end_without_a_model(tmp_path, method):
    cache_dir = tmp_path / "cache"
    if method == "maas":  # it embeds texts, whose weights are in the user's cache
        weights = default_cache_dir()
        fetch_files(weights)
        cache_dir.mkdir()
        (cache_dir / "models").symlink_to(weights)
    for skill, passed in ((1, 1.0), (0, 0.0)):
        worker = f"sim/skill={skill}"
        roles = {"meta": f"{worker},seed=1"} if "meta" in baselines.load(method).roles else {}
        summary = await api.evaluate_async(
            method,
            worker=worker,
            roles=roles,
            knobs=SMALL.get(method, {}),
            problems=["0", "1", "54"],
            out=tmp_path / "results",
            cache_dir=cache_dir,
        )
        assert (summary.status, summary.estimate.value) == ("complete", passed)
        assert summary.as_dict()["cost_usd"] == 0.0


async def test_suites_that_share_prompts_share_no_kept_answers(tmp_path, shared):
    for benchmark in ("humaneval", "humaneval+"):  # whose references differ
        summary = await api.evaluate_async(
            "vanilla",
            worker="sim/skill=1",
            benchmark=benchmark,
            protocol="none",
            problems=["95", "124"],
            data=DataSources(data_dir=shared / "data"),
            out=tmp_path / "results",
            cache_dir=tmp_path / "cache",
        )
        assert (summary.estimate.value, summary.progress.cached_calls) == (1.0, 0)


async def test_all_workflows_of_the_family_load_and_run_and_the_broken_ones_do_not(tmp_path):
    common = {"problems": ["0", "1", "2"], "knobs": {"rounds": 6}, "worker": "sim/skill=0.3"}
    common |= {"out": tmp_path / "results", "cache_dir": tmp_path / "cache"}
    summary = await api.evaluate_async(roles={"meta": "sim/"}, **common)
    rounds = [r for r in read_run(summary.run_dir) if r["kind"] == "round"]
    assert {r["error"] for r in rounds} == {None}
    assert {r["modification"] for r in rounds} == {*WORKFLOWS, ""}
    summary = await api.evaluate_async(roles={"meta": "sim/broken=1"}, **common)
    rounds = [r for r in read_run(summary.run_dir) if r["kind"] == "round" and r["parent"]]
    classes = {r["error_class"] for r in rounds}
    assert classes == {"reply:NoWorkflow", "load:SyntaxError", "run:AttributeError"}
    assert summary.status == "complete"


async def test_a_simulation_is_marked_and_enters_no_ranking_and_no_table(tmp_path):
    summary = await api.evaluate_async(
        "vanilla",
        worker="sim/skill=1",
        list="search",
        limit="3",
        out=tmp_path,
        cache_dir=tmp_path / "c",
    )
    assert read_run_json(summary.run_dir)["kind"] == "simulated"
    store = Store(tmp_path)
    store.ingest()
    store.snapshot()
    with open_snapshot(tmp_path) as connection:
        (group,) = groups(board(connection))
        assert [row.kind for row in group.rows] == ["simulated"]
        assert group.best == set()
        with pytest.raises(UsageError, match="simulated"):
            table(connection, "latex")
