"""Protocols: what is feedback, what is hidden, and what of the hidden a feedback test repeats."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness import benchmarks
from harness.benchmarks import PROTOCOL_LEVELS, Benchmark, DataSources, Item, apply
from harness.benchmarks.doctests import doctests
from harness.benchmarks.overlap import facts, fresh, parameters, single_tests
from harness.benchmarks.syntax import parse
from harness.benchmarks.unit_tests import only
from harness.errors import BenchmarkError, UsageError
from harness.grade import Grader
from harness.sandbox import Sandbox
from harness.types import Assertions, Cases, Level, Problem, Protocol_, Tests, UnitTests, Verdict

FAMILIES = ("humaneval", "mbpp", "humaneval+", "mbpp+", "mbpp-full", "bigcodebench-hard-complete")


@pytest.fixture(scope="module")
def data(shared: Path) -> DataSources:
    return DataSources(shared / "data", offline=True)


@pytest.fixture(scope="module")
def suites(data: DataSources) -> dict[str, Benchmark]:
    return {name: benchmarks.load(name, data) for name in FAMILIES}


@pytest.fixture(scope="module")
def settled(suites: dict[str, Benchmark]) -> dict[tuple[str, str], Benchmark]:
    """Every suite under every protocol that it has."""
    protocols: tuple[Protocol_, ...] = ("none", "public", "split", "aflow")
    return {
        (name, protocol): apply(suite, protocol)
        for name, suite in suites.items()
        for protocol in protocols
        if protocol != "aflow" or name in ("humaneval", "humaneval+", "mbpp", "mbpp+")
    }


def names(tests: Tests | None) -> list[str]:
    """What tells the tests of one problem apart."""
    if tests is None:
        return []
    if isinstance(tests, Assertions):
        return list(single_tests(tests).tests)
    if isinstance(tests, UnitTests):
        return list(tests.methods)
    base, plus = tests.inputs()
    return list(map(str, range(len(base) + len(plus)) if tests.only is None else tests.only))


def text(code: str) -> str:
    """Text as the published overlap counts were made: no spaces, no quotes."""
    return re.sub(r"[\s'\"]", "", code)


def test_each_protocol_has_the_level_of_the_contract() -> None:
    assert PROTOCOL_LEVELS == {
        "none": Level.L0,
        "public": Level.L1,
        "split": Level.L3,
        "aflow": Level.L3,
    }


def test_none_gives_no_feedback_and_hides_everything(
    settled: dict[tuple[str, str], Benchmark],
) -> None:
    for name in FAMILIES:
        suite = settled[name, "none"]
        assert all(i.feedback is None for i in suite.items.values())
        assert all(i.oracle.fresh() is i.oracle.tests for i in suite.items.values())
        assert suite.left_out == {}


def test_the_official_tests_stay_whole_but_under_split(
    settled: dict[tuple[str, str], Benchmark], suites: dict[str, Benchmark]
) -> None:
    for (name, protocol), suite in settled.items():
        assert suite.protocol == protocol
        if protocol != "split":
            for key, item in suite.items.items():
                assert item.oracle.tests == suites[name].items[key].oracle.tests


def test_split_divides_the_official_tests_without_rest(
    settled: dict[tuple[str, str], Benchmark], suites: dict[str, Benchmark]
) -> None:
    for name in FAMILIES:
        suite = settled[name, "split"]
        for key, item in suite.items.items():
            official = names(suites[name].items[key].oracle.tests)
            shown, hidden = names(item.feedback), names(item.oracle.tests)
            assert shown, key
            assert hidden, key
            assert not set(shown) & set(hidden), key
            assert set(shown) | set(hidden) == set(official), key


def test_split_gives_a_third_or_for_mbpp_the_first(
    settled: dict[tuple[str, str], Benchmark], suites: dict[str, Benchmark]
) -> None:
    for key, item in settled["humaneval", "split"].items.items():
        every = names(suites["humaneval"].items[key].oracle.tests)
        assert len(names(item.feedback)) == max(1, len(every) // 3)
    for key, item in settled["mbpp", "split"].items.items():
        assert names(item.feedback) == names(suites["mbpp"].items[key].oracle.tests)[:1]
    for key, item in settled["humaneval+", "split"].items.items():
        tests = suites["humaneval+"].items[key].oracle.tests
        assert isinstance(tests, Cases)
        base = len(tests.inputs()[0])
        assert len(names(item.feedback)) == max(1, base // 3)
        assert all(int(n) < base for n in names(item.feedback))


def test_the_same_methods_are_feedback_in_every_bigcodebench_suite(data: DataSources) -> None:
    some = ["BigCodeBench/13", "BigCodeBench/1137"]
    found = set()
    for name in benchmarks.REGISTRY:
        if name.startswith("bigcodebench"):
            suite = apply(benchmarks.load(name, data), "split", some)
            found.add(tuple(tuple(names(item.feedback)) for item in suite.items.values()))
    assert len(found) == 1


def test_what_cannot_be_split_is_left_out_by_name(
    settled: dict[tuple[str, str], Benchmark],
) -> None:
    left_out = {n: settled[n, "split"].left_out for n in FAMILIES if settled[n, "split"].left_out}
    assert {name: list(out) for name, out in left_out.items()} == {
        "humaneval": ["HumanEval/32", "HumanEval/34", "HumanEval/38", "HumanEval/50"],
        "humaneval+": ["HumanEval/34"],
        "mbpp-full": ["Mbpp/37"],  # the same assertion three times
    }
    assert left_out["humaneval"]["HumanEval/34"] == "1 test: nothing to split"
    assert not set(left_out["humaneval"]) & set(settled["humaneval", "split"].items)


def test_humaneval_checks_come_apart_by_statement(suites: dict[str, Benchmark]) -> None:
    def apart(number: int) -> Assertions:
        tests = suites["humaneval"].items[f"HumanEval/{number}"].oracle.tests
        assert isinstance(tests, Assertions)
        return single_tests(tests)

    loops = [n for n in range(164) if any(t.startswith("for ") for t in apart(n).tests)]
    assert loops == [32, 38, 44, 50, 53]
    assert "odd_sum = " in apart(151).setup  # set-up of the last assertion
    assert apart(151).tests[-1].startswith("assert candidate(lst) == odd_sum")
    assert "import random" in apart(53).setup
    assert not any("assert True" in test for n in range(164) for test in apart(n).tests)


def test_public_shows_nothing_that_the_prompt_does_not(
    settled: dict[tuple[str, str], Benchmark],
) -> None:
    for name in ("mbpp", "mbpp-full", "mbpp+"):
        for key, item in settled[name, "public"].items.items():
            assert len(item.problem.examples) == len(names(item.feedback)) == 1, key
            assert item.problem.examples[0] in item.problem.prompt
            if isinstance(item.feedback, Assertions):
                assert item.feedback.tests == item.problem.examples
    for item in settled["humaneval", "public"].items.values():
        assert tuple(names(item.feedback)) == item.problem.examples


def test_other_protocols_show_no_example_in_an_mbpp_prompt(
    settled: dict[tuple[str, str], Benchmark],
) -> None:
    for protocol in ("none", "split", "aflow"):
        for item in settled["mbpp", protocol].items.values():
            assert item.problem.examples == ()
            assert "assert" not in item.problem.prompt.rpartition("def ")[2]


def test_an_instruct_prompt_shows_no_example(data: DataSources) -> None:
    suite = apply(benchmarks.load("bigcodebench-hard-instruct", data), "public")
    assert all(i.feedback is None for i in suite.items.values())


def counts(suite: Benchmark) -> dict[str, int]:
    """How many problems and feedback tests there are, and how many of them repeat hidden tests."""
    found = dict.fromkeys(("problems", "tests", "repeating", "touched", "none_left"), 0)
    for item in suite.items.values():
        found["problems"] += item.feedback is not None
        found["tests"] += len(names(item.feedback))
        found["touched"] += item.oracle.fresh() is not item.oracle.tests
        found["none_left"] += item.oracle.fresh() is None
        found["repeating"] += repeating(item)
    return found


def repeating(item: Item) -> int:
    hidden, name = item.oracle.tests, item.problem.entry_point
    if isinstance(hidden, Cases) or item.feedback is None:
        return 0
    parts = single_tests(hidden) if isinstance(hidden, Assertions) else hidden
    said = facts(parts, name).values()
    return sum(one.repeats(said) for one in facts(item.feedback, name).values())


COUNTS = {
    ("humaneval", "public"): (154, 441, 325, 124, 1),
    ("humaneval", "split"): (160, 320, 0, 0, 0),
    ("humaneval", "aflow"): (159, 463, 335, 126, 1),
    ("mbpp", "public"): (427, 427, 427, 427, 0),
    ("mbpp", "split"): (427, 427, 0, 0, 0),
    ("mbpp", "aflow"): (427, 427, 422, 422, 0),
    ("mbpp-full", "public"): (974, 974, 974, 974, 1),
    ("mbpp-full", "split"): (973, 973, 0, 0, 0),
    ("humaneval+", "public"): (154, 441, 0, 131, 0),
    ("humaneval+", "split"): (163, 466, 0, 56, 0),
    ("humaneval+", "aflow"): (159, 463, 0, 135, 0),
    ("mbpp+", "public"): (378, 378, 0, 374, 0),
    ("mbpp+", "split"): (378, 381, 0, 45, 0),
    ("mbpp+", "aflow"): (378, 378, 0, 369, 0),
    ("bigcodebench-hard-complete", "public"): (35, 58, 1, 1, 0),
    ("bigcodebench-hard-complete", "split"): (148, 213, 1, 1, 0),
}  # as in docs/protocols.md


def test_the_overlap_is_as_the_docs_count_it(
    settled: dict[tuple[str, str], Benchmark],
) -> None:
    docs = (Path(__file__).parents[1] / "docs" / "protocols.md").read_text()
    for (name, protocol), expected in COUNTS.items():
        found = tuple(counts(settled[name, protocol]).values())
        assert found == expected, (name, protocol)
        problems, tests, repeats, touched, none_left = map(str, expected)
        repeats = "–" if name.endswith("+") else repeats
        row = (f"`{name}`", f"`{protocol}`", problems, tests, repeats, touched, none_left)
        assert f"| {' | '.join(row)} |" in docs


@pytest.mark.slow
def test_the_overlap_of_all_of_bigcodebench_is_as_the_docs_count_it(data: DataSources) -> None:
    docs = (Path(__file__).parents[1] / "docs" / "protocols.md").read_text()
    suite = benchmarks.load("bigcodebench", data)
    protocols: dict[Protocol_, tuple[int, ...]] = {
        "public": (427, 651, 24, 19, 0),
        "split": (1140, 1564, 13, 12, 1),
    }
    for protocol, expected in protocols.items():
        assert tuple(counts(apply(suite, protocol)).values()) == expected
        assert f"| `{suite.name}` | `{protocol}` | {' | '.join(map(str, expected))} |" in docs


def defined(source: str) -> set[str]:
    """Test methods that a unittest module holds, of any class."""
    classes = (node for node in parse(source).body if isinstance(node, ast.ClassDef))
    functions = (n for c in classes for n in c.body if isinstance(n, ast.FunctionDef))
    return {node.name for node in functions if node.name.startswith("test")}


def own_strings(source: str, methods: set[str]) -> set[str]:
    """String literals that these test methods have and nothing else in the module."""
    inside: set[str] = set()
    outside: set[str] = set()

    def collect(node: ast.AST, found: set[str]) -> None:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            found = inside if node.name in methods else outside
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        for part in ast.iter_child_nodes(node):
            collect(part, found)

    collect(parse(source), outside)
    return {text for text in inside if len(text) >= 10 and not any(text in o for o in outside)}


def holds_nothing_of(shown: Tests | None, hidden: set[str], official: Tests) -> None:
    assert isinstance(shown, UnitTests)
    assert isinstance(official, UnitTests)
    assert defined(shown.source) == set(shown.methods)
    words = set(re.findall(r"\w+", re.sub(r"'test_data/\w+\.csv'", "", shown.source)))
    assert not words & hidden  # BigCodeBench/927 names its input files as its tests
    held = {n.value for n in ast.walk(parse(shown.source)) if isinstance(n, ast.Constant)}
    assert not held & own_strings(official.source, hidden)


def test_what_runs_beside_a_solution_holds_no_hidden_test_of_mbpp(
    settled: dict[tuple[str, str], Benchmark], suites: dict[str, Benchmark]
) -> None:
    for protocol in ("public", "split"):
        found = []
        for key, item in settled["mbpp-full", protocol].items.items():
            official = suites["mbpp-full"].items[key].oracle.tests
            if isinstance(official, UnitTests):
                found.append(key)
                assert item.feedback is not None
                assert names(item.feedback) == [official.methods[0]]
                holds_nothing_of(item.feedback, set(official.methods[1:]), official)
        assert found == [f"Mbpp/{n}" for n in (367, 533, 601, 927)]


def test_what_runs_beside_a_solution_holds_no_hidden_test_of_bigcodebench(
    data: DataSources,
) -> None:
    suite = benchmarks.load("bigcodebench", data)
    for key, item in apply(suite, "split").items.items():
        official, hidden = suite.items[key].oracle.tests, item.oracle.tests
        assert isinstance(hidden, UnitTests)
        holds_nothing_of(item.feedback, set(hidden.methods), official)
        assert defined(hidden.source) == set(hidden.methods), key


MODULE = '''"""About test_b."""
import os
import unittest
LIMIT, SECRET = 3, "of test_b"
USED = "used"
random.seed(1)
def helper():
    return USED
def unused():
    return SECRET
class Fake:  # not a test
    def read(self): ...
class Base(unittest.TestCase):
    """Docs."""
    def test_c(self): ...
class Other(unittest.TestCase):
    def test_d(self): ...
class TestCases(
    Base,
):
    # test_b comes later
    answer = 42
    maxDiff = None
    def setUp(self):
        self.fake = Fake()  # for test_b too
        self.path = "a.txt"  # a file
    def check(self):
        self.assertEqual(helper(), LIMIT)
    @mock.patch("os.remove")
    def test_a(self, remove):
        self.check()
    def test_b(self):
        self.assertEqual(unused(), self.answer)
if __name__ == "__main__":
    unittest.main()
'''


def test_a_module_keeps_what_the_chosen_tests_reach() -> None:
    left = only(UnitTests(MODULE, ("test_a", "test_b", "test_c")), {"test_a"})
    assert left.methods == ("test_a",)
    assert (
        left.source
        == """import os
import unittest
LIMIT, SECRET = 3, "of test_b"
USED = "used"
random.seed(1)
def helper():
    return USED
class Fake:  # not a test
    def read(self): ...
class Base(unittest.TestCase):
    pass
class TestCases(
    Base,
):
    maxDiff = None
    def setUp(self):
        self.fake = Fake()
        self.path = "a.txt"  # a file
    def check(self):
        self.assertEqual(helper(), LIMIT)
    @mock.patch("os.remove")
    def test_a(self, remove):
        self.check()
"""
    )
    again = only(UnitTests(MODULE, ("test_a", "test_b", "test_c")), {"test_b", "test_c"})
    assert again.methods == ("test_b", "test_c")
    assert defined(again.source) == {"test_b", "test_c"}
    for kept in ("return SECRET", "answer = 42"):
        assert kept in again.source
    for gone in ("helper", "USED", "Other"):
        assert gone not in again.source


def test_a_test_that_another_one_calls_stays_with_it() -> None:
    source = (
        "class TestCases(unittest.TestCase):\n"
        "    def test_a(self):\n        self.test_b()\n"
        "    def test_b(self): ...\n    def test_c(self): ...\n"
    )
    left = only(UnitTests(source, ("test_a", "test_b", "test_c")), {"test_a"})
    assert (left.methods, defined(left.source)) == (("test_a",), {"test_a", "test_b"})


@pytest.mark.parametrize("protocol", ["public", "split"])
async def test_references_pass_their_parts_of_a_unittest_module(
    settled: dict[tuple[str, str], Benchmark], grader: Grader, protocol: str
) -> None:
    for number in (367, 533, 601, 927):
        item = settled["mbpp-full", protocol].items[f"Mbpp/{number}"]
        for tests in (item.feedback, item.oracle.tests):
            assert isinstance(tests, UnitTests)
            report = await grader.run_tests(item.problem, item.oracle, tests, item.oracle.reference)
            assert report.verdict is Verdict.PASSED, (number, report.detail)


PLAIN = [13, 15, 19, 147, 273, 274, 310, 326, 368, 454, 592, 594]  # the standard library is enough


def elsewhere(item: Item) -> Problem:
    """A BigCodeBench problem whose tests need none of its environment."""
    return replace(item.problem, benchmark="mbpp")


async def test_references_pass_both_parts_of_bigcodebench_tasks(
    settled: dict[tuple[str, str], Benchmark], grader: Grader
) -> None:
    for number in PLAIN:
        item = settled["bigcodebench-hard-complete", "split"].items[f"BigCodeBench/{number}"]
        for tests in (item.feedback, item.oracle.tests):
            assert tests is not None
            given = (elsewhere(item), item.oracle, tests, item.oracle.reference)
            report = await grader.run_tests(*given)
            assert report.verdict is Verdict.PASSED, (number, report.detail)
            assert len(report.outcomes) == len(names(tests))


async def test_references_pass_what_is_hidden_and_what_is_feedback(
    settled: dict[tuple[str, str], Benchmark], sandbox: Sandbox
) -> None:
    wrong: dict[str, set[str]] = {}
    async with Grader(sandbox) as grader:

        async def check(protocol: str, item: Item) -> None:
            oracle = item.oracle
            parts = {protocol: item.feedback, f"{protocol}, fresh": oracle.fresh()}
            if protocol == "split":
                parts["split, hidden"] = oracle.tests
            for part, tests in parts.items():
                if tests is not None:
                    given = (item.problem, oracle, tests, oracle.reference)
                    if (await grader.run_tests(*given)).verdict is not Verdict.PASSED:
                        wrong.setdefault(part, set()).add(item.problem.problem_id)

        for (name, protocol), suite in settled.items():
            if name in ("humaneval", "mbpp") and protocol != "none":
                await asyncio.gather(*(check(protocol, item) for item in suite.items.values()))
    known = {f"HumanEval/{n}" for n in (33, 41, 47, 53, 116, 148)}
    assert wrong == {"aflow": known | {f"Mbpp/{n}" for n in (2, 7, 111, 140, 232)}}


def test_aflow_overlaps_literally_as_published(
    settled: dict[tuple[str, str], Benchmark], shared: Path
) -> None:
    suite = settled["humaneval", "aflow"]
    rows = (shared / "data" / "splits" / "humaneval_public_test.jsonl").read_text().splitlines()
    literally = total = 0
    for row in map(json.loads, rows):
        hidden = suite.items[row["problem_id"]].oracle.tests
        assert isinstance(hidden, Assertions)
        total += len(row["test"])
        literally += sum(text(test) in text(hidden.setup) for test in row["test"])
    assert (literally, total) == (313, 464)  # an empty string is one of them
    of_mbpp = settled["mbpp", "aflow"].items.items()
    differing = [key for key, item in of_mbpp if item.oracle.fresh() is item.oracle.tests]
    assert differing == ["Mbpp/2", "Mbpp/7", "Mbpp/111", "Mbpp/140", "Mbpp/232"]


def test_every_aflow_row_finds_its_problem(settled: dict[tuple[str, str], Benchmark]) -> None:
    without = [k for k, i in settled["humaneval", "aflow"].items.items() if i.feedback is None]
    assert without == [f"HumanEval/{n}" for n in (32, 38, 50, 83, 105)]
    for key, item in settled["mbpp", "aflow"].items.items():
        own = settled["mbpp", "public"].items[key].feedback
        assert isinstance(own, Assertions)
        assert isinstance(item.feedback, Assertions)
        if item.oracle.fresh() is not item.oracle.tests:
            name = item.problem.entry_point
            mine, theirs = (next(iter(facts(t, name).values())) for t in (own, item.feedback))
            assert mine.tree == theirs.tree, key


def test_aflow_is_for_its_own_benchmarks(suites: dict[str, Benchmark]) -> None:
    for name in ("bigcodebench-hard-complete", "mbpp-full"):
        with pytest.raises(UsageError, match=f"{name} has no AFlow tests: use protocol none"):
            apply(suites[name], "aflow")


def test_aflow_without_its_file_says_which(suites: dict[str, Benchmark]) -> None:
    lost = replace(suites["mbpp"], sources=DataSources(offline=True))
    with pytest.raises(BenchmarkError, match=r"splits/mbpp_public_test\.jsonl is not at hand"):
        apply(lost, "aflow")


def test_a_protocol_is_settled_once(suites: dict[str, Benchmark]) -> None:
    with pytest.raises(UsageError, match="humaneval is under protocol public: load it again"):
        apply(apply(suites["humaneval"], "public"), "split")
    with pytest.raises(UsageError, match="unknown protocol 'oracle': use one of none, public"):
        apply(suites["humaneval"], "oracle")  # type: ignore[arg-type]


def test_only_the_problems_asked_for_are_settled(suites: dict[str, Benchmark]) -> None:
    few = apply(suites["humaneval"], "split", ["HumanEval/1", "HumanEval/32"])
    assert (list(few.items), list(few.left_out)) == (["HumanEval/1"], ["HumanEval/32"])


SAME = {
    "spelling": ("assert f( 1 )==2", "assert candidate(1) == 2, 'message'"),
    "quotes": ('assert f("a") == 2', "assert candidate('a') == 2"),
    "is and ==": ("assert f(1) is True", "assert candidate(1) == True"),
    "truth": ("assert f(1) == True", "assert candidate(1)"),
    "not": ("assert f(1) is False", "assert not candidate(1)"),
    "sides": ("assert f(1) == 2", "assert 2 == candidate(1)"),
    "numbers": ("assert f(1) == 2", "assert candidate(1) == 2.0"),
    "arithmetic": ("assert f(2 * 3 - 10) == 2", "assert candidate(-4) == 4 // 2"),
    "a parameter by name": ("assert f(1, k=2) == 2", "assert candidate(n=1, k=2) == 2"),
    "two in one": ("assert f(1) == 2 and f(3) == 4", "assert candidate(3) == 4"),
    "neither of two": ("assert not (f(1) or f(3))", "assert candidate(3) is False"),
    "tolerance": ("assert f(1) == 0.5", "assert abs(candidate(1) - 0.5) < 1e-6"),
    "closeness": ("assert f(1) == 0.5", "assert math.isclose(candidate(1), 0.5, rel_tol=0.1)"),
    "sets": ("assert f(1) == (1, 2)", "assert set(candidate(1)) == set((1, 2))"),
    "no literal": ("assert f([0] * 9) == 2", "assert candidate([0] * 9) == 2"),
}
DIFFERENT = {
    "another argument": ("assert f(1) == 2", "assert candidate(2) == 2"),
    "another value": ("assert f(1) == 2", "assert candidate(1) == 3"),
    "a list, not a tuple": ("assert f([1]) == 2", "assert candidate((1,)) == 2"),
    "more arguments": ("assert f(1) == 2", "assert candidate(1, 2) == 2"),
    "a name": ("assert f(1) == 2", "assert candidate(x) == 2"),
    "a float argument": ("assert f(1.0) == 2", "assert candidate(1) == 2"),
    "a truth value as argument": ("assert f(True) == 2", "assert candidate(1) == 2"),
    "a truth value inside": ("assert f({1: [True]}) == 2", "assert candidate({1: [1]}) == 2"),
    "a truth value as key": ("assert f({True: 0}) == 2", "assert candidate({1: 0}) == 2"),
    "a truth value expected": ("assert f(1) == True", "assert candidate(1) == 1"),
    "another parameter": ("assert f(1, k=2) == 2", "assert candidate(1, other=2) == 2"),
    "either of two": ("assert f(1) == 2 or f(3) == 4", "assert candidate(3) == 4"),
    "a division by zero": ("assert f(1 / 0) == 2", "assert candidate(1) == 2"),
    "no Python": ("assert f(1) == [2", "assert candidate(1) == 2"),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_test_is_known_in_another_form(name: str) -> None:
    shown, hidden = SAME[name]
    other = "assert candidate(99) == 99"
    left = fresh(Assertions((hidden, other)), Assertions((shown,)), "f", ("n", "k"))
    assert left == Assertions((other,))
    assert fresh(Assertions((hidden,)), Assertions((shown,)), "f", ("n", "k")) is None


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_tests_stay_apart(name: str) -> None:
    shown, hidden = DIFFERENT[name]
    tests = Assertions((hidden,))
    assert fresh(tests, Assertions((shown,)), "f", ("n", "k")) is tests


METHODS = """
class TestCases(unittest.TestCase):
    def test_a(self):
        self.assertEqual(f([1]), 2)
    def test_b(self):
        result = f([1])
        self.assertTrue(result > 1)
        self.assertEqual(result, 2)
    def test_c(self):
        self.assertEqual(f([1]), 3)
    @patch("os.remove")
    def test_d(self, mock):
        f([2])
    @patch("os.listdir")
    def test_e(self, mock):
        f([2])
"""


def test_a_method_that_repeats_an_assertion_of_another_is_found() -> None:
    hidden = UnitTests(METHODS, ("test_b", "test_c", "test_e"))
    left = fresh(hidden, UnitTests(METHODS, ("test_a", "test_d")), "f")
    assert left == UnitTests(METHODS, ("test_c", "test_e"))


def test_cases_on_the_inputs_of_the_feedback_are_not_fresh() -> None:
    cases = Cases(lambda: ([[1, [2]], [3]], [[1, (2,)], [4]]), "digest")
    shown = Assertions(("assert f(1, (2,)) == 0",))
    left = fresh(cases, shown, "f")
    assert isinstance(left, Cases)
    assert left.only == (1, 3)
    assert fresh(cases, Assertions(("assert f(9) == 0",)), "f") is cases
    assert fresh(cases, Assertions(("assert f(3.0) == 0",)), "f") is cases


def test_parameters_are_those_of_the_last_definition() -> None:
    code = "def f(x): ...\ndef g(y): ...\ndef f(n, /, k=1, *, named): ...\n"
    assert parameters(code, "f") == ("n", "k")
    assert parameters(code, "h") == ()


PROMPT = '''
def task_func(n):
    """Do it.

    Example:
    >>> import random
    >>> task_func(2)  # twice
    4
    >>> print(task_func(3))
    6
    >>> frame = task_func(4)
    >>> frame.shape
    (2, 2)
    >>> frame
       a  b
    0  1  2
    >>> random.random() < 0
    False
    """
'''


def test_docstring_examples_with_a_literal_result_become_methods() -> None:
    made = doctests(PROMPT, "task_func", (1, 2, 3))
    assert made is not None
    assert made.methods == ("test_example_1", "test_example_2", "test_example_3")
    body = made.source.split("def test_example_3(self):\n")[1]
    assert body.splitlines()[:5] == [
        "        import random",
        "        task_func(2)",
        "        print(task_func(3))",
        "        frame = task_func(4)",
        "        self.assertEqual(frame.shape, (2, 2))",
    ]
    assert "self.assertEqual(str(task_func(3)), '6')" in made.source


def test_examples_that_the_reference_does_not_confirm_are_left_out() -> None:
    made = doctests(PROMPT, "task_func", (2,))
    assert made is not None
    assert made.methods == ("test_example_2",)
    assert doctests(PROMPT, "task_func", ()) is None
    assert doctests("def task_func(:", "task_func", (1,)) is None
