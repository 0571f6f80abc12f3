"""Every suite: its rows, its two sides, its lists."""

from __future__ import annotations

import ast
import dataclasses
import gzip
import hashlib
import json
import re
import types
from collections import Counter
from pathlib import Path

import pytest

from harness import benchmarks
from harness.benchmarks import Benchmark, DataSources, leave_out, list_digest, lists, reasons
from harness.benchmarks.source import Source, checked, rows_digest, split
from harness.benchmarks.syntax import parse
from harness.errors import BenchmarkError, UsageError
from harness.samples import read
from harness.score import prefix
from harness.types import Assertions, Cases, UnitTests

ROWS = {
    "humaneval": 164,
    "humaneval+": 164,
    "mbpp": 427,
    "mbpp-full": 974,
    "mbpp+": 378,
    "bigcodebench-complete": 1140,
    "bigcodebench-instruct": 1140,
    "bigcodebench-hard-complete": 148,
    "bigcodebench-hard-instruct": 148,
}
SIZES = {  # full, paper, search, train
    "humaneval": (164, 131, 33, 33),
    "humaneval+": (164, 131, 33, 33),
    "mbpp": (427, 341, 86, 86),
    "mbpp-full": (974, 341, 86, 633),
    "mbpp+": (378, 301, 77, 77),
    "bigcodebench-complete": (1140, 300, 228, 729),
    "bigcodebench-instruct": (1140, 300, 228, 729),
    "bigcodebench-hard-complete": (148, 37, 0, 0),
    "bigcodebench-hard-instruct": (148, 37, 0, 0),
}
LIST_DIGESTS = {  # as published in docs/protocols.md
    ("humaneval", "paper"): "468ed27c128a24f73e466b9f78b8739583509c795dee5cf75be04a324fa6afd4",
    ("humaneval", "search"): "bc8904ae5e3663a1c9712e14127c0a7cb152d6623729bce1af6d4d6d3c030267",
    ("mbpp", "paper"): "9cd22346c14047bd1cba2e32642d664a22d94c6a2e90b16aa605db2cf968564d",
    ("mbpp", "search"): "83da8233172e7f9d5a8693f28e9eab87c3bf7ec6629514163572819362699765",
    (
        "bigcodebench-complete",
        "paper",
    ): "515c96f11acba31919f5beea0b04a1f8dae2c7929c493d7477c4da647896e127",
    (
        "bigcodebench-complete",
        "search",
    ): "9de15d99b9a2421e3708a1f44cc2545bdb72d97b9d25afe4d44bc84ddb726c28",
}


@pytest.fixture(scope="module")
def data(shared: Path) -> DataSources:
    return DataSources(shared / "data", offline=True)


@pytest.fixture(scope="module")
def suites(data: DataSources) -> dict[str, Benchmark]:
    return {name: benchmarks.load(name, data) for name in benchmarks.REGISTRY}


def sources() -> list[Source]:
    from harness.benchmarks import aflow, bigcodebench, humaneval, humaneval_plus, mbpp, mbpp_plus

    found = [value for module in (aflow, bigcodebench, humaneval, humaneval_plus, mbpp, mbpp_plus)
             for value in vars(module).values() if isinstance(value, Source)]  # fmt: skip
    return list({source.file: source for source in found}.values())


def test_the_names_are_those_of_the_contract() -> None:
    assert set(benchmarks.REGISTRY) == set(ROWS)
    assert benchmarks.ALIASES == {
        "bigcodebench": "bigcodebench-complete",
        "bigcodebench-hard": "bigcodebench-hard-complete",
    }


def test_every_pin_is_the_files_own(shared: Path) -> None:
    assert len(sources()) == 9
    for source in sources():
        packed = (shared / "data" / source.file).read_bytes()
        lines = split(packed, source.file)
        rows = [json.loads(line) for line in lines]
        assert hashlib.sha256(packed).hexdigest() == source.sha256
        assert checked(source, lines, source.file) == rows_digest(rows) == source.digest
        assert len(rows) == source.rows


def test_every_suite_has_its_rows_and_its_digest(suites: dict[str, Benchmark]) -> None:
    digests = {source.digest for source in sources()}
    for name, suite in suites.items():
        assert (suite.name, len(suite.items), suite.custom) == (name, ROWS[name], False)
        assert suite.digest in digests
        assert suite.protocol == "none"
        assert suite.left_out == {}
        for key, item in suite.items.items():
            assert (item.problem.problem_id, item.problem.benchmark) == (key, name)
            assert item.feedback is None
            assert item.problem.examples == ()
            assert item.oracle.fresh() is item.oracle.tests


def test_an_alias_loads_the_complete_prompts(data: DataSources) -> None:
    assert benchmarks.load("bigcodebench-hard", data).name == "bigcodebench-hard-complete"


def test_ids_are_the_benchmarks_own(suites: dict[str, Benchmark]) -> None:
    firsts = {name: next(iter(suite.items)) for name, suite in suites.items()}
    assert firsts == {
        "humaneval": "HumanEval/0",
        "humaneval+": "HumanEval/0",
        "mbpp": "Mbpp/2",
        "mbpp-full": "Mbpp/1",
        "mbpp+": "Mbpp/2",
        "bigcodebench-complete": "BigCodeBench/0",
        "bigcodebench-instruct": "BigCodeBench/0",
        "bigcodebench-hard-complete": "BigCodeBench/13",
        "bigcodebench-hard-instruct": "BigCodeBench/13",
    }


def test_each_suite_is_tested_in_its_own_way(suites: dict[str, Benchmark]) -> None:
    for name, suite in suites.items():
        kinds = Counter(type(item.oracle.tests) for item in suite.items.values())
        if name.endswith("+"):
            assert set(kinds) == {Cases}
        elif name.startswith("bigcodebench"):
            assert set(kinds) == {UnitTests}
        else:
            assert kinds[UnitTests] == (4 if name == "mbpp-full" else 0)
            assert kinds[Assertions] == len(suite.items) - kinds[UnitTests]


def test_limits_are_the_official_ones(suites: dict[str, Benchmark]) -> None:
    limits = {name: {i.oracle.timeout_s for i in s.items.values()} for name, s in suites.items()}
    for name, found in limits.items():
        plus, library = name.endswith("+"), name.startswith("bigcodebench")
        assert found == {60.0 if plus else 240.0 if library else 3.0}


def test_lists_have_their_sizes_and_do_not_overlap(suites: dict[str, Benchmark]) -> None:
    hard = {f"BigCodeBench/{n}" for n in lists.BIGCODEBENCH_HARD}
    for name, suite in suites.items():
        kinds = ("full", "paper", "search", "train")
        found = {kind: set(suite.lists.get(kind, ())) for kind in kinds}
        assert tuple(map(len, found.values())) == SIZES[name]
        assert found["full"] == set(suite.items)
        assert not found["paper"] & found["search"]
        assert not found["paper"] & found["train"]
        assert found["search"] <= found["train"]
        assert found["train"] == found["full"] - found["paper"] - hard
        for ids in suite.lists.values():
            assert list(ids) == [key for key in suite.items if key in set(ids)]


def test_suites_that_share_ids_share_lists(suites: dict[str, Benchmark]) -> None:
    for one, other in (
        ("humaneval", "humaneval+"),
        ("mbpp", "mbpp+"),
        ("mbpp-full", "mbpp"),
        ("bigcodebench-complete", "bigcodebench-instruct"),
        ("bigcodebench-complete", "bigcodebench-hard-complete"),
    ):
        larger, smaller = suites[one], suites[other]
        for name in ("paper", "search"):
            common = set(larger.lists[name]) & set(smaller.items)
            assert set(smaller.lists.get(name, ())) == common


def test_the_hard_tasks_are_those_of_the_hard_file(suites: dict[str, Benchmark]) -> None:
    hard = suites["bigcodebench-hard-complete"]
    full = suites["bigcodebench-complete"]
    assert list(hard.items) == [f"BigCodeBench/{n}" for n in sorted(lists.BIGCODEBENCH_HARD)]
    for key, item in hard.items.items():
        assert item.oracle == full.items[key].oracle


def test_the_published_lists_have_not_changed(suites: dict[str, Benchmark]) -> None:
    docs = (Path(__file__).parents[1] / "docs" / "protocols.md").read_text()
    for (suite, name), digest in LIST_DIGESTS.items():
        assert list_digest(suites[suite].lists[name]) == digest
        assert digest in docs


def test_the_list_digest_knows_ids_and_no_order() -> None:
    assert list_digest(["b", "a", "a"]) == list_digest(["a", "b"]) != list_digest(["a"])
    assert list_digest(["a", "b"]) == hashlib.sha256(b"a\nb\n").hexdigest()


def test_an_unknown_list_is_a_usage_error(suites: dict[str, Benchmark]) -> None:
    with pytest.raises(UsageError, match="has no list 'search': use one of full, paper"):
        suites["bigcodebench-hard-complete"].choose("search")


def test_problems_are_left_out_by_name(suites: dict[str, Benchmark]) -> None:
    suite = suites["humaneval"]
    less = leave_out(suite, ["HumanEval/3", "Mbpp/2"], "trained on")
    assert less.left_out == {"HumanEval/3": "trained on"}
    assert set(suite.items) - set(less.items) == {"HumanEval/3"}
    assert less.lists == suite.lists
    assert len(less.choose("paper")) == 130


def test_an_override_serves_its_suites_and_is_marked(data: DataSources, tmp_path: Path) -> None:
    assert data.data_dir is not None
    mini = {"humaneval+": data.data_dir / "HumanEvalPlus-Mini.jsonl.gz"}
    suite = benchmarks.load("humaneval+", dataclasses.replace(data, overrides=mini))
    assert (suite.custom, len(suite.items)) == (True, 164)
    assert suite.digest != benchmarks.load("humaneval+", data).digest
    whole = {"bigcodebench": data.data_dir / "BigCodeBench-v0.1.4.jsonl.gz"}
    hard = benchmarks.load("bigcodebench-hard", DataSources(overrides=whole, offline=True))
    assert (hard.custom, len(hard.items)) == (False, 148)
    path = tmp_path / "few.jsonl"
    path.write_bytes(gzip.decompress(whole["bigcodebench"].read_bytes()).splitlines()[0])
    few = DataSources(overrides={"bigcodebench": path}, offline=True)
    assert list(benchmarks.load("bigcodebench", few).lists) == ["full", "paper"]
    with pytest.raises(BenchmarkError, match=r"no rows for BigCodeBench-Hard-v0\.1\.4"):
        benchmarks.load("bigcodebench-hard", few)


def test_mbpp_prompts_are_the_text_and_the_signature(suites: dict[str, Benchmark]) -> None:
    assert suites["mbpp"].items["Mbpp/3"].problem.prompt == (
        "Write a python function to identify non-prime numbers.\n\ndef is_not_prime(n):\n"
    )
    for name in ("mbpp", "mbpp-full", "mbpp+"):
        for item in suites[name].items.values():
            head = item.problem.prompt.rstrip().rpartition("\n")[2]
            assert head.startswith(f"def {item.problem.entry_point}(")
            ast.parse(f"{head} pass")
            assert "assert " not in item.problem.prompt


def test_mbpp_tests_run_beside_the_solution_where_plain_data_is_not_enough(
    suites: dict[str, Benchmark],
) -> None:
    full = suites["mbpp-full"].items
    beside = [key for key, i in full.items() if isinstance(i.oracle.tests, UnitTests)]
    # a class of the solution, and `int` as an argument
    assert beside == ["Mbpp/367", "Mbpp/533", "Mbpp/601", "Mbpp/927"]
    assert "class Pair(object):\n    def __init__(self, a, b):" in full["Mbpp/601"].problem.prompt
    tests = full["Mbpp/367"].oracle.tests
    assert isinstance(tests, UnitTests)
    assert tests.methods == ("test_1", "test_2", "test_3")


def test_mbpp_tests_bring_their_imports(suites: dict[str, Benchmark]) -> None:
    for name in ("mbpp", "mbpp-full"):
        setups = {k: i.oracle.tests for k, i in suites[name].items.items()}
        sized = setups["Mbpp/596"]  # sys.getsizeof, which its row does not import
        assert isinstance(sized, Assertions)
        assert sized.setup == "import sys"
    with_math = [k for k, t in setups.items() if isinstance(t, Assertions) and "math" in t.setup]
    assert with_math == []  # only the sanitized file compares floats with math.isclose


def test_evalplus_inputs_are_as_many_as_released(suites: dict[str, Benchmark]) -> None:
    for name, expected in (("humaneval+", (1570, 122_683)), ("mbpp+", (1174, 39_841))):
        base, plus = 0, 0
        for item in suites[name].items.values():
            assert isinstance(item.oracle.tests, Cases)
            inputs = item.oracle.tests.inputs()
            base, plus = base + len(inputs[0]), plus + len(inputs[1])
            assert all(isinstance(given, list) for part in inputs for given in part)
        assert (base, plus) == expected


TYPED = {
    "Mbpp/2": "(3, 4, 5, 6), (5, 7, 4, 10)",
    "Mbpp/63": "[(3, 5), (1, 7), (10, 3), (1, 2)]",
    "Mbpp/75": "[(6, 24, 12), (7, 9, 6), (12, 18, 21)], 6",
    "Mbpp/106": "[5, 6, 7], (9, 10)",
    "Mbpp/124": "0.0, 1j",
    "Mbpp/250": "(10, 8, 5, 2, 10, 15, 10, 8, 5, 8, 8, 2), 4",
    "Mbpp/252": "(1+0j)",
    "Mbpp/259": "((1, 3), (4, 5), (2, 9), (1, 10)), ((6, 7), (3, 9), (1, 1), (7, 3))",
    "Mbpp/278": "(1, 5, 7, (4, 6), 10)",
    "Mbpp/580": "(4, 5, (7, 6, (2, 4)), 6, 8)",
}  # the arguments of each task's first official assertion, or what EvalPlus has in its place


def test_mbpp_inputs_have_the_types_of_the_official_tests(suites: dict[str, Benchmark]) -> None:
    for key, expected in TYPED.items():
        tests = suites["mbpp+"].items[key].oracle.tests
        assert isinstance(tests, Cases)
        first = tests.inputs()[0][0]
        assert repr(tuple(first)) == repr(eval(f"({expected},)")), key


def test_the_special_rules_are_for_these_tasks(suites: dict[str, Benchmark]) -> None:
    rules: dict[str, list[str]] = {}
    for name in ("humaneval+", "mbpp+"):
        for key, item in suites[name].items.items():
            assert isinstance(item.oracle.tests, Cases)
            rules.setdefault(item.oracle.tests.rule, []).append(key)
    assert len(rules.pop("equal")) == 164 + 378 - 13
    assert rules == {
        "find_zero": ["HumanEval/32"],
        "set": ["Mbpp/2", "Mbpp/7", "Mbpp/111", "Mbpp/140", "Mbpp/232", "Mbpp/579", "Mbpp/769"],
        "digit_distance": ["Mbpp/558"],
        "surface_area": ["Mbpp/581"],
        "not_none": ["Mbpp/737", "Mbpp/787", "Mbpp/794"],
    }


def test_case_digests_tell_problems_apart(suites: dict[str, Benchmark]) -> None:
    digests = []
    for name in ("humaneval+", "mbpp+"):
        for item in suites[name].items.values():
            assert isinstance(item.oracle.tests, Cases)
            digests.append(item.oracle.tests.digest)
    assert len(set(digests)) == 164 + 378


def test_parsed_inputs_are_not_kept(suites: dict[str, Benchmark]) -> None:
    tests = suites["humaneval+"].items["HumanEval/0"].oracle.tests
    assert isinstance(tests, Cases)
    assert tests.inputs() == tests.inputs()
    assert tests.inputs()[0] is not tests.inputs()[0]


def test_bigcodebench_test_methods_are_those_that_unittest_finds(
    suites: dict[str, Benchmark],
) -> None:
    names = re.compile(r"^    (?:async )?def (test\w*)\(", re.MULTILINE)
    for key, item in suites["bigcodebench-complete"].items.items():
        tests = item.oracle.tests
        assert isinstance(tests, UnitTests)
        assert tests.methods == tuple(sorted(set(tests.methods)))
        own = tests.source if key != "BigCodeBench/790" else tests.source.partition("\nclass C")[0]
        assert set(names.findall(own)) == set(tests.methods), key
        assert len(tests.methods) >= 3


def test_inherited_test_methods_count() -> None:
    from harness.benchmarks.bigcodebench import methods

    source = "class A:\n def test_b(self): ...\nclass TestCases(A, unittest.TestCase):\n"
    assert methods(f"{source} def test_a(self): ...\n def helper(self): ...") == (
        "test_a",
        "test_b",
    )


def test_bigcodebench_is_calibrated(suites: dict[str, Benchmark]) -> None:
    for name in ("complete", "instruct"):
        for item in suites[f"bigcodebench-{name}"].items.values():
            prelude = item.problem.prelude
            assert prelude.endswith("\n    pass\n")
            stub = prelude.removesuffix("\n    pass\n")
            assert item.oracle.reference.startswith(stub)
            parse(prelude)


def test_the_prompt_is_all_that_tells_complete_from_instruct(suites: dict[str, Benchmark]) -> None:
    complete = suites["bigcodebench-complete"].items
    for key, item in suites["bigcodebench-instruct"].items.items():
        assert item.oracle == complete[key].oracle
        assert item.problem.prompt != complete[key].problem.prompt
        assert item.problem.prelude == complete[key].problem.prelude


def test_the_benchmark_of_the_docs_is_short_and_works(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
    code = docs.split("## A benchmark")[1].split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) < 60
    module = types.ModuleType("sums")
    exec(compile(code, "sums.py", "exec"), module.__dict__)
    (tmp_path / "sums.jsonl").write_text(
        '{"task_id": "Sums/0", "prompt": "def add(a, b):\\n", "entry_point": "add", '
        '"solution": "def add(a, b):\\n    return a + b\\n", "tests": ["assert add(1, 2) == 3"]}\n'
    )
    suite = module.load("sums", DataSources(tmp_path, offline=True))
    assert (suite.name, list(suite.items)) == ("sums", ["Sums/0"])
    assert suite.items["Sums/0"].oracle.tests == Assertions(("assert add(1, 2) == 3",))
    start = prefix(suite)
    samples = tmp_path / "samples.jsonl"
    for spelled in (0, "0", "Sums/0", "Sums_0"):
        samples.write_text(json.dumps({"task_id": spelled, "solution": "add = max"}) + "\n")
        assert [s.problem_id for s in read(samples, suite.items, start)] == ["Sums/0"]
    samples.write_text('{"task_id": "7", "solution": ""}\n')
    with pytest.raises(UsageError, match=r"unknown task_id '7'; ids are like Sums/0$"):
        list(read(samples, suite.items, start))


def test_what_is_left_out_is_counted_in_plain_words() -> None:
    assert reasons({"A/1": "no data"}) == "1 problem left out: no data (A/1)"
    several = {"A/1": "no data", "A/2": "no data", "A/3": "slow"}
    assert reasons(several) == "3 problems left out: no data (A/1, A/2); slow (A/3)"
