"""The self-check: references pass, trivial programs do not, and what cannot be graded is named."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from harness import benchmarks
from harness.benchmarks import DataSources
from harness.check import TRIVIAL, check, failing, findings, lines, references, ungradable
from harness.errors import SandboxError
from harness.grade import Grader
from harness.types import Assertions
from harness.verdicts import VerdictCache

SCHEMA = json.loads((Path(__file__).parents[1] / "docs/schemas/check.json").read_text())


@pytest.fixture
def part(shared):
    """Some problems of a real benchmark."""

    def make(name, *numbers):
        loaded = benchmarks.load(name, DataSources(data_dir=shared / "data", offline=True))
        prefix = next(iter(loaded.items)).partition("/")[0]
        wanted = [f"{prefix}/{n}" for n in numbers]
        return replace(loaded, items={name: loaded.items[name] for name in wanted})

    return make


def with_reference(benchmark, problem_id, reference):
    item = benchmark.items[problem_id]
    changed = replace(item, oracle=replace(item.oracle, reference=reference))
    return replace(benchmark, items={**benchmark.items, problem_id: changed})


@pytest.mark.parametrize(("name", "numbers"), [("humaneval", range(20)), ("mbpp", (2, 3, 4, 7))])
async def test_references_pass_and_trivial_programs_fail(part, sandbox, tmp_path, name, numbers):
    benchmark = part(name, *numbers)
    async with Grader(sandbox) as grader:
        found = await check(benchmark, grader, cache_dir=tmp_path)
    jsonschema.validate(found.as_dict(), SCHEMA)
    assert (found.references, found.ungradable, found.weak) == (len(numbers), {}, {})
    assert found.trivial == len(numbers) * len(TRIVIAL)
    assert list(lines(found))[-1] == "    none passes"


async def test_a_problem_with_weak_tests_is_named(part, sandbox, tmp_path):
    async with Grader(sandbox) as grader:
        found = await check(part("mbpp", 404), grader, cache_dir=tmp_path)
    assert found.weak == {"echo": ("Mbpp/404",)}  # minimum(1, 2), minimum(-5, -4), minimum(0, 0)
    assert any("echo passes on 1 (weak tests): Mbpp/404" in line for line in lines(found))


async def test_why_a_problem_cannot_be_graded_is_told(part, sandbox, tmp_path):
    benchmark = part("humaneval", 53, 23, 45, 34)
    made = {
        "HumanEval/53": "import nolibrary\ndef add(x, y): return x + y",
        "HumanEval/23": "import urllib.request\ndef strlen(s):\n"
        "    return len(urllib.request.urlopen('http://example.com').read())",
        "HumanEval/45": "def triangle_area(a, h): return a",
    }
    for problem_id, reference in made.items():
        benchmark = with_reference(benchmark, problem_id, reference)
    async with Grader(sandbox) as grader:
        found = await check(benchmark, grader, cache_dir=tmp_path)
        some = await ungradable(benchmark, grader, ["HumanEval/53"], cache_dir=tmp_path)
    jsonschema.validate(found.as_dict(), SCHEMA)
    reasons = found.reasons()
    assert set(reasons) == set(made)
    assert reasons["HumanEval/53"] == "no library nolibrary"
    assert reasons["HumanEval/23"] == "needs network"
    assert reasons["HumanEval/45"].startswith("the reference fails: wrong: ")
    assert found.failed == ["HumanEval/45"]
    assert some == {"HumanEval/53": "no library nolibrary"}
    assert "FAILED: 1 references" in list(lines(found))[-1]


async def test_a_check_is_kept_for_its_rows_and_environment_and_asked_once(part, sandbox, tmp_path):
    benchmark = part("humaneval", 53, 23)
    async with Grader(sandbox) as grader:
        first = await check(benchmark, grader, cache_dir=tmp_path)
        again = await check(benchmark, grader, cache_dir=tmp_path)
        fresh = await check(benchmark, grader, cache_dir=tmp_path, fresh=True)
        other = await check(replace(benchmark, digest="0" * 64), grader, cache_dir=tmp_path)
    assert (first.cached, again.cached, fresh.cached, other.cached) == (False, True, False, False)
    assert replace(again, cached=False) == first
    kept = sorted((tmp_path / "checks").iterdir())
    assert len(kept) == 2
    for path in kept:
        path.write_text("{damaged")
    async with Grader(sandbox) as grader:
        assert not (await check(benchmark, grader, cache_dir=tmp_path)).cached


async def test_a_reference_that_passes_only_at_times_is_flaky(part, sandbox):
    coin = "import os\ndef add(x, y): return x + y + (os.urandom(1)[0] & 1)"
    benchmark = with_reference(part("humaneval", 53, 23), "HumanEval/53", coin)
    # one call, so that half of all runs pass
    item = benchmark.items["HumanEval/53"]
    tests = Assertions(("assert candidate(1, 2) == 3",))
    once = replace(item, oracle=replace(item.oracle, tests=tests))
    benchmark = replace(benchmark, items={**benchmark.items, "HumanEval/53": once})
    async with Grader(sandbox) as grader:
        found = await references(benchmark, grader, repeat=16)
    assert {name: finding.kind for name, finding in found.items()} == {"HumanEval/53": "flaky"}
    assert "of 16 runs failed" in found["HumanEval/53"].reason


async def test_a_killed_check_goes_on_from_the_kept_verdicts(part, sandbox, tmp_path):
    benchmark = part("humaneval", *range(12))
    seen = []
    with VerdictCache(tmp_path / "verdicts.sqlite") as cache:
        async with Grader(sandbox, verdicts=cache) as grader:
            await references(benchmark, grader, [f"HumanEval/{n}" for n in range(6)])
            item = benchmark.items["HumanEval/0"]
            report = await grader.grade(item.problem, item.oracle, item.oracle.reference)
            await references(benchmark, grader, say=lambda done, total: seen.append((done, total)))
    assert report.cached
    assert seen[-1] == (12, 12)


class Breaking(Grader):
    """A grader whose sandbox gives up on the first `times` programs."""

    times = 0

    async def grade(self, problem, oracle, code):
        if self.times:
            self.times -= 1
            raise SandboxError("the sandbox was taken away")
        return await super().grade(problem, oracle, code)


@pytest.mark.parametrize(("times", "drops"), [(1, False), (9, True)])
async def test_our_own_fault_is_tried_again_and_then_said_and_leaves_no_problem_out(
    part, sandbox, tmp_path, times, drops
):
    async with Breaking(sandbox) as grader:
        grader.times = times
        if not drops:
            assert await ungradable(part("humaneval", 53, 23), grader, cache_dir=tmp_path) == {}
            return
        with pytest.raises(SandboxError) as caught:
            await ungradable(part("humaneval", 53, 23), grader, cache_dir=tmp_path)
    assert "2 references could not be graded, HumanEval/53 for one" in str(caught.value)
    assert "the sandbox was taken away" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


async def test_a_reference_that_fails_for_no_reason_is_said_loudly(part, sandbox, tmp_path):
    benchmark = part("humaneval", 53, 23)
    benchmark = with_reference(benchmark, "HumanEval/53", "import nolibrary")
    async with Grader(sandbox) as grader:
        quiet = await findings(benchmark, grader, cache_dir=tmp_path)
        benchmark = with_reference(benchmark, "HumanEval/23", "def strlen(s): return 5")
        found = await findings(benchmark, grader, cache_dir=tmp_path)
    assert failing(benchmark, quiet) is None
    said = failing(benchmark, found)
    assert said.startswith("our own reference fails here: HumanEval/23 (wrong: ")
    assert said.endswith("; run `python -m harness check humaneval`")
    assert "nolibrary" not in said


def test_trivial_programs_are_programs():
    for body in TRIVIAL.values():
        namespace = {}
        exec(f"def f(*a, **k):\n    {body}\n", namespace)
        namespace["f"](1, b=2)
        namespace["f"]()
