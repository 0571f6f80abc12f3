"""`fit` and what an evaluation does with it, on HumanEval with simulated and scripted models."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

import baselines
from harness import api
from harness.benchmarks import suite as problem_lists
from harness.display import Display
from harness.errors import BudgetReached, UsageError
from harness.journal import read_run
from harness.models.scripted import ScriptedModel
from harness.options import Config
from harness.types import Level, Method, Solution, Tried

ROOT = Path(__file__).parents[1]
SCHEMAS = ROOT / "docs" / "schemas"
SIM = "sim/skill=0.5"
WRONG = "```python\ndef similar_elements(a, b):\n    return ()\n```"


async def _fit(problems, ctx, *, tries: int = 2):
    """Asks each problem `tries` times and keeps how many passed."""

    async def once(one):
        reply = await one.ask(f"Write a code block for\n\n{one.problem.prompt}", temperature=1.0)
        return Tried(reply.text.partition("python\n")[2].partition("\n```")[0])

    passed = 0
    for k in range(tries):
        for problem in problems:
            passed += (await ctx.attempt(problem, f"try {k}", once)).passed
    ctx.note("node", number=1, parent=None, label="all", score=passed / tries / len(problems))
    return {"passed": passed, "score": passed / tries / len(problems)}


async def _solve(problem, ctx, *, looks: int = 1):
    ctx.note("found", passed=ctx.artifact["passed"])
    reply = await ctx.ask(f"Write a code block for\n\n{problem.prompt}", temperature=1.0)
    return Solution(reply.text.partition("python\n")[2].partition("\n```")[0])


FITTING = Method(
    name="fitting",
    solve=_solve,
    summary="for tests",
    level=Level.L0,
    calls=lambda knobs: {"worker": (1, 1)},
    fit=_fit,
    fit_calls=lambda knobs, n: {"worker": (n * knobs["tries"], n * knobs["tries"])},
)


def planned(tmp_path, method=FITTING, **fields):
    options = {"worker": SIM, "list": "paper", "limit": "3", "out": tmp_path / "results", **fields}
    config = Config(method=method.name, **options)
    return api.prepare(config, cache_dir=tmp_path / "cache", method=method)


async def test_an_evaluation_searches_first_and_says_so_and_the_next_one_does_not(tmp_path):
    plan = planned(tmp_path, knobs={"search_problems": "4"})
    said = []
    summary = await api.execute(plan, warn=said.append)
    assert any("fitting searches first, on 4 problems" in line for line in said)
    (fit_dir,) = (tmp_path / "results" / "runs").glob("fit-*")
    head = json.loads((summary.run_dir / "run.json").read_text())
    assert head["stage"] == "eval"
    assert (head["artifact"]["run"], head["artifact"]["problems"]) == (fit_dir.name, 4)
    assert head["artifact"]["spent"]["calls"] == 8
    assert summary.progress.calls == 3  # the search is no part of the problems' cost
    assert summary.as_dict()["search"]["spent"]["calls"] == 8
    jsonschema.validate(summary.as_dict(), json.loads((SCHEMAS / "eval.json").read_text()))
    said.clear()
    again = planned(tmp_path, knobs={"search_problems": "4"}, limit="5")
    assert again.artifact is not None
    more = await api.execute(again, warn=said.append)
    assert said == []
    assert (more.run_dir, more.progress.resumed, more.progress.calls) == (summary.run_dir, 3, 5)


async def test_fit_makes_the_artifact_that_an_evaluation_of_these_settings_uses(tmp_path):
    fitted = await api.fit(planned(tmp_path))
    assert len(fitted.artifact.problems) == 33
    assert fitted.artifact.list_digest == problem_lists.list_digest(fitted.artifact.problems)
    assert fitted.artifact.simulated
    jsonschema.validate(fitted.as_dict(), json.loads((SCHEMAS / "fit.json").read_text()))
    plan = planned(tmp_path)
    assert plan.artifact == fitted.artifact
    other = planned(tmp_path, knobs={"tries": "3"})  # another search
    assert other.artifact is None
    given = planned(tmp_path, knobs={"looks": "2"})  # no matter of the search
    assert given.artifact == fitted.artifact


async def test_what_was_searched_on_is_not_evaluated_and_is_told_by_name(tmp_path):
    before = planned(tmp_path, list="full", limit=None)
    assert (len(before.items), len(before.left_out)) == (131, 33)
    assert set(before.left_out.values()) == {"fitting was searched or trained on these"}
    small = planned(tmp_path, list="full", limit=None, knobs={"search_problems": "2"})
    assert [*small.left_out] == ["HumanEval/9", "HumanEval/12"]
    await api.fit(small)
    name = next((tmp_path / "results" / "runs").glob("fit-*")).name
    given = planned(tmp_path, list="full", limit=None, artifact=name)
    assert [*given.left_out] == ["HumanEval/9", "HumanEval/12"]
    with pytest.raises(UsageError, match="nothing is left to solve: 1 problem left out"):
        planned(tmp_path, list="full", limit=None, artifact=name, problems="9")


def test_a_search_on_all_problems_by_number_is_the_full_one_and_no_other_is_offered(tmp_path):
    plan = planned(tmp_path, limit=None, knobs={"search_problems": "33"})
    assert plan.config_hash == planned(tmp_path, limit=None).config_hash
    said = io.StringIO()
    Display(said).plan(plan)
    assert "searches first, on 33 problems" in said.getvalue()
    assert "to start that:" not in said.getvalue()


async def test_a_given_artifact_needs_no_search_and_is_part_of_what_the_run_is(tmp_path):
    fitted = await api.fit(planned(tmp_path, knobs={"search_problems": "2"}))
    by_run = planned(tmp_path, artifact=fitted.artifact.run)
    by_file = planned(tmp_path, artifact=str(fitted.path))
    assert by_run.config_hash == by_file.config_hash != planned(tmp_path).config_hash
    assert by_run.unfitted is None


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"artifact": "nowhere"}, "--artifact nowhere: no finished fit of that name, and no file"),
        ({"knobs": {"tries": "some"}}, "tries wants int"),
        ({"knobs": {"search_problems": "-1"}}, "search_problems is at least 0"),
        ({"knobs": {"preset": "x"}}, "fitting has no preset 'x'; its presets: none"),
        ({"benchmark": "bigcodebench-hard"}, "has no list for fitting to search on"),
        ({"level": "L9"}, "--level is one of L0, L1, L2, L3, oracle, not 'L9'"),
        ({"level": "oracle"}, "fitting uses no feedback, so --level oracle changes nothing"),
        ({"roles": {"strong": SIM}}, "fitting has no role 'strong'"),
    ],
)
def test_bad_settings_are_one_line(tmp_path, shared, fields, says):
    with pytest.raises(UsageError, match=says):
        planned(tmp_path, data=shared / "data", **fields)


async def test_an_artifact_of_another_method_is_refused(tmp_path):
    fitted = await api.fit(planned(tmp_path, knobs={"search_problems": "1"}))
    other = replace(FITTING, name="other")
    with pytest.raises(UsageError, match=r"--artifact .* is of fitting, not of other"):
        planned(tmp_path, method=other, artifact=str(fitted.path))


async def test_a_method_without_a_fit_has_nothing_to_fit(tmp_path):
    with pytest.raises(UsageError, match="vanilla has nothing to fit with these knobs"):
        await api.fit(planned(tmp_path, method=baselines.load("vanilla")))


async def test_a_budget_ends_a_search_and_more_of_it_goes_on(tmp_path):
    knobs = {"search_problems": "5"}
    with pytest.raises(BudgetReached, match="--budget-tokens 100 is spent"):
        await api.fit(planned(tmp_path, knobs=knobs, budget_tokens=100))
    (fit_dir,) = (tmp_path / "results" / "runs").glob("fit-*")
    paid = [r for r in read_run(fit_dir) if r["kind"] == "call"]
    assert 0 < len(paid) < 10
    fitted = await api.fit(planned(tmp_path, knobs=knobs, budget_tokens=10**6))
    calls = [r for r in read_run(fit_dir) if r["kind"] == "call"]
    assert (len(calls), fitted.artifact.spent["calls"]) == (10, 10)  # none was asked twice


async def test_an_evaluation_is_not_charged_for_the_search_of_another(tmp_path):
    knobs = {"search_problems": "5"}
    await api.execute(planned(tmp_path, knobs=knobs))
    other = planned(tmp_path, knobs=knobs, list="full", budget_tokens=10**6)
    summary = await api.execute(other)
    assert summary.spent["tokens"] == summary.progress.tokens


async def test_a_search_begun_anew_goes_on_and_the_old_result_is_not_taken_for_its(tmp_path):
    knobs = {"search_problems": "5"}
    old = await api.fit(planned(tmp_path, knobs=knobs))
    with pytest.raises(BudgetReached):
        await api.fit(planned(tmp_path, knobs=knobs, fresh=True, budget_tokens=100))
    new = await api.fit(planned(tmp_path, knobs=knobs))
    assert new.artifact.run == f"{old.artifact.run}-2"
    again = await api.fit(planned(tmp_path, knobs=knobs))
    assert again.artifact == new.artifact


async def test_a_fit_that_returns_no_plain_data_is_one_line_and_a_failed_run(tmp_path):
    async def odd(problems, ctx, *, tries: int = 2):
        return {"found": {1, 2}}

    with pytest.raises(UsageError, match="fitting: its fit has to return plain data"):
        await api.fit(planned(tmp_path, method=replace(FITTING, fit=odd)))
    (fit_dir,) = (tmp_path / "results" / "runs").glob("fit-*")
    ended = [r["status"] for r in read_run(fit_dir) if r.get("event") == "end"]
    assert ended == ["failed"]


async def test_what_an_evaluation_searched_is_part_of_its_budget(tmp_path):
    knobs = {"search_problems": "5"}
    first = await api.execute(planned(tmp_path, knobs=knobs, budget_tokens=10**6))
    searched = first.plan.artifact.spent["tokens"]
    assert first.spent["tokens"] == searched + first.progress.tokens
    again = await api.execute(planned(tmp_path, knobs=knobs, budget_tokens=10**6))
    assert again.spent["tokens"] == first.spent["tokens"]


def test_a_search_that_was_killed_loses_nothing_and_pays_nothing_twice(tmp_path):
    code = """
import asyncio, sys
from pathlib import Path
from tests.test_fit import FITTING, planned
from harness import api
async def main():
    plan = planned(Path(sys.argv[1]), worker="sim/skill=0.5,latency=0.03", knobs={"tries": 3})
    return await api.fit(plan)
print(asyncio.run(main()).artifact.digest)
"""
    command = [sys.executable, "-c", code]

    def lines(folder):
        found = (folder / "results" / "runs").glob("fit-*/*.jsonl")
        return sum(len(path.read_bytes().splitlines()) for path in found)

    whole = subprocess.run([*command, str(tmp_path / "b")], cwd=ROOT, capture_output=True)
    for most in (20, 90, 170):
        process = subprocess.Popen(
            [*command, str(tmp_path / "a")], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        until = time.monotonic() + 60
        while lines(tmp_path / "a") < most and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    last = subprocess.run([*command, str(tmp_path / "a")], cwd=ROOT, capture_output=True)
    assert last.stdout == whole.stdout != b""
    (fit_dir,) = (tmp_path / "a" / "results" / "runs").glob("fit-*")
    calls = [r for r in read_run(fit_dir) if r["kind"] == "call"]
    trials = [r["result_key"] for r in read_run(fit_dir) if r["kind"] == "trial"]
    assert len(trials) == len(set(trials)) == 99
    assert 99 <= len(calls) <= 99 + 3  # one was in flight at each kill


async def test_a_preset_sets_knobs_protocol_and_sampling_and_what_is_given_goes_before(tmp_path):
    config = {"method": "flowreasoner", "worker": SIM, "limit": "2", "out": tmp_path}
    paper = api.prepare(Config(**config, knobs={"preset": "paper"}), cache_dir=tmp_path / "cache")
    assert (paper.protocol, paper.level) == ("split", Level.L3)
    assert (paper.knobs["final"], paper.knobs["final_runs"]) == ("rerun", 3)
    assert paper.sampling["worker"].temperature == 1.0
    assert "preset" not in paper.knobs
    mine = api.prepare(
        Config(
            **config, knobs={"preset": "paper", "rounds": "2"}, protocol="public", temperature=0.5
        ),
        cache_dir=tmp_path / "cache",
    )
    assert (mine.protocol, mine.knobs["rounds"], mine.knobs["final"]) == ("public", 2, "rerun")
    assert mine.sampling["worker"].temperature == 0.5
    for knobs, says in (
        ({"preset": "papr"}, "has no preset 'papr'; its presets: paper, release"),
        ({"final_runs": "3"}, "final_runs wants final=rerun"),
    ):
        with pytest.raises(UsageError, match=says):
            api.prepare(Config(**config, knobs=knobs), cache_dir=tmp_path / "cache")


async def test_the_oracle_level_scores_by_the_hidden_tests_and_is_told_as_such(tmp_path):
    options = {
        "method": "best-of-n",
        "worker": SIM,
        "limit": "4",
        "out": tmp_path,
        "level": "oracle",
    }
    plan = api.prepare(Config(**options, knobs={"n": "12"}), cache_dir=tmp_path / "cache")
    assert plan.level is Level.ORACLE
    summary = await api.execute(plan)
    for row in summary.progress.rows.values():
        solved = row["verdict"] == "passed"
        assert solved == (row["feedback_passed"] == row["feedback_total"])
        assert row["fresh"] is None
    assert json.loads((summary.run_dir / "run.json").read_text())["level"] == "oracle"
    usual, same = (
        api.prepare(Config(**{**options, "level": level}, knobs={"n": "12"}),
                    cache_dir=tmp_path / "cache")
        for level in (None, "L1")
    )  # fmt: skip
    assert usual.config_hash != plan.config_hash
    assert usual.config_hash == same.config_hash  # L1 is what it has under `public`


@pytest.mark.parametrize(
    ("method", "knobs"),
    [
        ("vanilla-tests", {}),
        ("repair", {"rounds": "2"}),
        ("llm-debate", {"aggregate": "cluster"}),
        ("autoagents", {"run_examples": "true"}),
    ],
)
async def test_level_l1_shows_no_test_that_the_prompt_does_not_show(
    tmp_path, shared, method, knobs
):
    models = {"worker": ScriptedModel("scripted/wrong", lambda messages: WRONG)}
    config = Config(method=method, benchmark="mbpp", protocol="split", level="L1", limit="1",
                    knobs=knobs, out=tmp_path, data=shared / "data")  # fmt: skip
    plan = api.prepare(config, models=models, cache_dir=tmp_path / "cache")
    assert plan.level is Level.L0
    await api.execute(plan)
    (item,) = plan.items
    asked = json.dumps(models["worker"].requests)
    assert item.feedback.tests[0].partition("assert ")[2][:30] not in asked


async def test_a_lower_level_hides_what_failed(tmp_path):
    config = Config(method="repair", worker=SIM, protocol="split", level="L2", limit="6",
                    out=tmp_path, knobs={"rounds": "2"})  # fmt: skip
    plan = api.prepare(config, cache_dir=tmp_path / "cache")
    summary = await api.execute(plan)
    told = [r for r in read_run(summary.run_dir) if r["kind"] == "feedback"]
    assert any(r["passed"] < r["total"] for r in told)
    assert all(r["errors"] == [] for r in told)


async def test_every_round_is_graded_on_the_hidden_tests_after_the_answer(tmp_path):
    config = Config(method="best-of-n", worker=SIM, limit="3", out=tmp_path, knobs={"n": "4"})
    summary = await api.execute(api.prepare(config, cache_dir=tmp_path / "cache"))
    records = list(read_run(summary.run_dir))
    rounds = [(r["result_key"], r["round"], r["code_sha"]) for r in records if r["kind"] == "round"]
    hidden = [
        (r["result_key"], r["round"], r["code_sha"]) for r in records if r["kind"] == "hidden"
    ]
    assert sorted(hidden) == sorted(rounds)
    assert len(hidden) == 12
    verdict = {r["code_sha"]: r["verdict"] for r in records if r["kind"] == "hidden"}
    for row in summary.progress.rows.values():
        assert verdict[row["solution_sha"]] == row["verdict"]


async def test_a_workflow_may_choose_among_the_models_that_roles_add(tmp_path):
    graph = (
        "class Workflow:\n    async def __call__(self, problem, entry_point):\n"
        "        one = await self.custom(input=problem, instruction='a', model='strong')\n"
        "        two = await self.custom(input=problem, instruction='b', model='scripted/worker')\n"
        "        return one['response'] + two['response']\n"
    )
    file = tmp_path / "flow.py"
    file.write_text(graph)
    models = {
        "worker": ScriptedModel("scripted/worker", ["from the worker"]),
        "strong": ScriptedModel("scripted/strong", ["from the other, "]),
    }
    config = Config(problems="0", out=tmp_path)
    ran = await api.run_workflow(file, config, models=models, cache_dir=tmp_path / "cache")
    assert ran.run.answer == "from the other, from the worker"
    jsonschema.validate(ran.as_dict(), json.loads((SCHEMAS / "run_workflow.json").read_text()))
    file.write_text(graph.replace("strong", "gpt-9"))
    models["worker"] = ScriptedModel("scripted/worker", [])
    ran = await api.run_workflow(file, config, models=models, cache_dir=tmp_path / "cache")
    assert ran.run.error.startswith("run: ValueError")
    assert "strong" in ran.run.error  # what is allowed is named


async def test_shuffled_runs_a_peers_workflow_and_asks_what_the_peer_asked(tmp_path):
    options = {"method": "flowreasoner", "worker": "sim/skill=0.5,usd=1", "limit": "4"}
    options |= {"out": tmp_path / "r", "temperature": 0.7}
    own = Config(**options, knobs={"rounds": "2", "evals": "1"})
    other = Config(**options, knobs={"rounds": "2", "evals": "1", "workflow": "shuffled"})
    first = await api.execute(api.prepare(own, cache_dir=tmp_path / "cache"))
    second = await api.execute(api.prepare(other, cache_dir=tmp_path / "cache"))
    chosen = {
        r["problem_id"]: r["searched_for"]
        for r in read_run(second.run_dir)
        if r["kind"] == "chosen"
    }
    ids = {f"HumanEval/{n}" for n in range(4)}
    assert chosen.keys() == set(chosen.values()) == ids
    assert all(problem != searched for problem, searched in chosen.items())

    def proposals(run_dir, about):
        found = {}
        for r in read_run(run_dir):
            if r["kind"] == "round":
                found.setdefault(r.get(about) or r["problem_id"], []).append(r["workflow_sha"])
        return found

    assert proposals(second.run_dir, "about") == proposals(first.run_dir, "problem_id")
    with pytest.raises(UsageError, match="at least two problems"):
        api.prepare(replace(other, limit="1"), cache_dir=tmp_path / "cache")
    # with more problems every peer is another one: that is another run
    more = api.prepare(replace(other, limit="5"), cache_dir=tmp_path / "cache")
    assert more.config_hash != second.plan.config_hash


async def test_best_of_n_matches_what_another_run_took_problem_by_problem(tmp_path):
    common = {"worker": SIM, "limit": "4", "out": tmp_path}
    flow = Config(method="flowreasoner", knobs={"rounds": "2", "evals": "1"}, **common)
    first = await api.execute(api.prepare(flow, cache_dir=tmp_path / "cache"))
    runs = {r["problem_id"]: 0 for r in first.progress.rows.values()}
    for record in read_run(first.run_dir):
        if record["kind"] == "workflow":
            runs[record["problem_id"]] += 1
    same = Config(method="best-of-n", knobs={"match": first.run_id}, **common)
    plan = api.prepare(same, cache_dir=tmp_path / "cache")
    second = await api.execute(plan)
    assert {r["problem_id"]: r["calls"] for r in second.progress.rows.values()} == runs
    assert json.loads((second.run_dir / "run.json").read_text())["match"] == first.run_id
    assert plan.calls() == {"worker": (sum(runs.values()), sum(runs.values()))}
    vanilla = await api.execute(
        api.prepare(Config(method="vanilla", **common), cache_dir=tmp_path / "cache")
    )
    for knobs, says in (
        ({"match": "nowhere"}, "no run"),
        ({"by": "tokens"}, "by=tokens wants match=RUN"),
        ({"match": vanilla.run_id}, "it ran no workflow; use -A by=tokens"),
    ):
        with pytest.raises(UsageError, match=says):
            api.prepare(replace(same, knobs=knobs), cache_dir=tmp_path / "cache")
    longer = api.prepare(replace(same, limit="6"), cache_dir=tmp_path / "cache")
    assert f"match={first.run_id} has not got 2 of these problems: n there" in longer.notes


async def test_what_a_resumed_run_ran_again_is_billed_once(tmp_path):
    common = {"worker": "sim/skill=0.5", "limit": "3", "out": tmp_path}
    flow = Config(method="flowreasoner", knobs={"rounds": "3", "evals": "1"}, **common)
    cut = await api.execute(
        api.prepare(replace(flow, budget_tokens=2500), cache_dir=tmp_path / "cache")
    )
    assert cut.status == "budget"
    whole = await api.execute(api.prepare(flow, cache_dir=tmp_path / "cache"))
    again = api.prepare(replace(flow, out=tmp_path / "anew"), cache_dir=tmp_path / "cache")
    anew = await api.execute(again)
    bills = []
    for summary in (whole, anew):
        best = Config(method="best-of-n", knobs={"match": summary.run_id}, **common)
        best = replace(best, out=summary.plan.config.out)
        bills.append(api.prepare(best, cache_dir=tmp_path / "cache").bill["bill"])
    assert bills[0] == bills[1]


PACKAGE = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "twice-method"
version = "1.0"

[project.entry-points."harness.methods"]
twice = "twice:METHOD"
broken = "twice:ABSENT"
worse = "worse:METHOD"

[tool.setuptools]
py-modules = ["twice", "worse"]
""",
    "worse.py": "raise RuntimeError('out of order')\n",
    "twice.py": '''
from baselines.operators import first_message, revise_code
from harness.extract import code_block
from harness.types import Context, Level, Method, Problem, Solution


async def solve(problem: Problem, ctx: Context, *, looks: int = 1) -> Solution:
    """Return the program after `looks` revisions."""
    code = code_block((await ctx.ask(first_message(problem))).text, problem.entry_point)
    for _ in range(looks):
        code = await revise_code(ctx, code, "Check the edge cases once more.")
    return Solution(code)


METHOD = Method(
    name="twice",
    solve=solve,
    summary="draft, then look again",
    level=Level.L0,
    calls=lambda knobs: {"worker": (1 + knobs["looks"], 1 + knobs["looks"])},
)
''',
}


def test_a_method_of_another_package_is_one_like_ours(tmp_path):
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name, text in PACKAGE.items():
        (source / name).write_text(text)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--target", str(site), str(source)],
        check=True, capture_output=True,
    )  # fmt: skip

    def harness(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "harness", *arguments], cwd=ROOT, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(site)},
        )  # fmt: skip

    listed = harness("list", "methods")
    assert "twice          draft, then look again" in listed.stdout
    assert (
        "worse          method 'worse' of worse:METHOD cannot be loaded: RuntimeError: out of order"
        in (listed.stdout)
    )
    assert "broken         method 'broken' of twice:ABSENT cannot be loaded" in listed.stdout
    done = harness(
        "eval", "--method", "twice", "-A", "looks=2", "--worker", SIM, "--limit", "2", "--json",
        "--out", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["calls"] == 6
    wrong = harness("eval", "--method", "broken", "--worker", SIM)
    assert wrong.returncode == 2
    assert "method 'broken' of twice:ABSENT cannot be loaded" in wrong.stderr
