"""AFlow's public tests, the feedback tests of the literature. Zhang et al. 2024, arXiv:2410.10762.

They are kept as published, so those of HumanEval/33, 41, 47, 53, 116 and 148 fail on the reference
(one of 33's is no Python). Only an empty string among those of 148 is left out: it tests nothing.
MBPP's rows carry no task id, and eight of their functions occur twice: those are told apart by the
assertion. Five HumanEval problems (32, 38, 50, 83, 105) have none.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.benchmarks.overlap import facts
from harness.benchmarks.source import Data, Source, read
from harness.benchmarks.suite import Benchmark
from harness.errors import UsageError
from harness.types import Assertions

COMMIT = "2d1d7ca219aa77d41bc69c38931cc05577dcdea9"
_REPOSITORY = f"https://raw.githubusercontent.com/FoundationAgents/MetaGPT/{COMMIT}"
HUMANEVAL = Source(
    file="splits/humaneval_public_test.jsonl",
    sha256="ad5e3bdddfa5d0a48ad75d027d293858b2cab4526ca645a54f117c4f0b596edc",
    digest="b3718de53c5e38e8e5c348f09b41272b7eb30bb042548a7b3e2630de03118c50",
    rows=159,
    fields={"problem_id": str, "test": list, "entry_point": str},
    licence="MIT",
    revision=COMMIT,
    urls=(f"{_REPOSITORY}/examples/aflow/data/humaneval_public_test.jsonl",),
)
MBPP = Source(
    file="splits/mbpp_public_test.jsonl",
    sha256="a3a15f074b278432b5a01227fac049670f30c0ebf8a193013bb956c1f6f04e82",
    digest="a3a15f074b278432b5a01227fac049670f30c0ebf8a193013bb956c1f6f04e82",
    rows=427,
    fields={"test": list, "entry_point": str},
    licence="MIT, content CC-BY-4.0",
    revision=COMMIT,
    urls=(f"{_REPOSITORY}/examples/aflow/data/mbpp_public_test.jsonl",),
)
RENAMED = {"check_answer": "check"}  # AFlow's name of Mbpp/56's function
SETUP = "import math\nimport sys"  # its executor has one at hand, the solution the other


def public_tests(benchmark: Benchmark) -> Mapping[str, Assertions]:
    """AFlow's tests by problem id. Raises UsageError for a benchmark that AFlow does not have."""
    if benchmark.family == "humaneval":
        rows = read(HUMANEVAL, benchmark.sources).rows()
        return {row["problem_id"]: _assertions(row["test"]) for row in rows}
    if benchmark.name in ("mbpp", "mbpp+"):
        return _by_function(benchmark, read(MBPP, benchmark.sources))
    raise UsageError(f"{benchmark.name} has no AFlow tests: use protocol none, public or split")


def _assertions(tests: list[str]) -> Assertions:
    return Assertions(tuple(test for test in tests if test.strip()), SETUP)


def _by_function(benchmark: Benchmark, data: Data) -> dict[str, Assertions]:
    """MBPP's rows by id: by the function's name and, where that is not enough, the assertion."""
    by_name: dict[str, list[str]] = {}
    for key, item in benchmark.items.items():
        by_name.setdefault(item.problem.entry_point, []).append(key)
    found: dict[str, Assertions] = {}
    for row in data.rows():
        own = str(row["entry_point"])
        name = RENAMED.get(own, own)
        tests = _assertions(row["test"])
        ids = by_name.get(name, [])
        if len(ids) > 1:
            ids = [key for key in ids if _shows(benchmark, key, tests)]
        found.update(dict.fromkeys(ids, tests))  # two that show the same get the same
    return found


def _shows(benchmark: Benchmark, key: str, tests: Assertions) -> bool:
    """Whether the first test is also the first that the problem's own row gives."""
    item = benchmark.items[key]
    own = benchmark.public(item).feedback
    name = item.problem.entry_point
    if not isinstance(own, Assertions):
        return False
    trees = [next(iter(facts(each, name).values())).tree for each in (own, tests)]
    return trees[0] == trees[1]
