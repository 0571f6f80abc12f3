"""Unittest modules beside the solution: official semantics, nothing forged, nothing odd refused."""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness import environments
from harness.grade import Grader, Report
from harness.sandbox import Interpreter, Sandbox
from harness.types import Oracle, Problem, UnitTests, Verdict
from tests.hostile_unittests import (
    DATA,
    FORGED_DATA,
    HONEST,
    HOSTILE,
    METHODS,
    ORACLE,
    REFUSED,
    RIGHT,
    SQUARES,
    TESTS,
    told,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def grader(sandbox: Sandbox) -> AsyncIterator[Grader]:
    """Runs unittest modules on our own interpreter: the standard library is enough here."""
    async with Grader(sandbox, lanes=2) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def data_grader(sandbox: Sandbox) -> AsyncIterator[Grader]:
    """Runs them in the environment that `env bigcodebench` makes."""
    found = environments.find("bigcodebench", environments.default_cache_dir())
    if found is None:
        pytest.skip("no environment: python -m harness env bigcodebench")
    python = Interpreter(
        python=str(found.python),
        prefix=str(found.prefix),
        packages=(found.folder,),
        sites=(str(found.site),),
        preload=("numpy", "pandas", "matplotlib.pyplot"),
        digest=found.digest,
    )
    async with Grader(sandbox, lanes=1, interpreters={"bigcodebench": python}) as made:
        yield made


def oracle(source: str, *methods: str, timeout_s: float = 20.0) -> Oracle:
    return Oracle(UnitTests(source, methods), reference="", timeout_s=timeout_s)


async def grade(grader: Grader, code: str, tests: Oracle = ORACLE) -> Report:
    return await grader.grade(SQUARES, tests, code)


async def test_the_right_program_passes_and_each_method_is_reported(grader: Grader) -> None:
    report = await grade(grader, RIGHT)
    assert report.verdict is Verdict.PASSED, report.detail
    assert report.outcomes == ((Verdict.PASSED, ""),) * len(METHODS)


async def test_a_wrong_program_stops_at_its_first_failing_method(grader: Grader) -> None:
    report = await grade(grader, "def task_func(x): return [v for v in x]")
    assert report.verdict is Verdict.WRONG
    assert "[3, -2] != [9, 4]" in report.detail
    assert len(report.outcomes) == 1


async def test_feedback_runs_every_method(grader: Grader) -> None:
    code = "def task_func(x): return [v for v in x]"
    report = await grader.run_tests(SQUARES, ORACLE, ORACLE.tests, code)
    verdicts = [verdict for verdict, _ in report.outcomes]
    assert verdicts == [Verdict.WRONG, Verdict.WRONG, Verdict.PASSED, Verdict.PASSED]


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_programs_do_not_pass(grader: Grader, name: str) -> None:
    attack = HOSTILE[name]
    tests = dataclasses.replace(ORACLE, timeout_s=attack.timeout_s)
    report = await grade(grader, attack.code, tests)
    assert report.verdict in attack.verdicts, report
    beside = await grade(grader, RIGHT)
    assert beside.verdict is Verdict.PASSED, beside


@pytest.mark.parametrize("name", HONEST)
async def test_odd_but_right_programs_pass(grader: Grader, name: str) -> None:
    report = await grader.grade(*told(HONEST[name], name), HONEST[name].code)
    assert report.verdict is Verdict.PASSED, report


@pytest.mark.parametrize("name", REFUSED)
async def test_right_programs_by_their_own_word_alone_are_refused(
    grader: Grader, name: str
) -> None:
    report = await grader.grade(*told(REFUSED[name], name), REFUSED[name].code)
    assert report.verdict is Verdict.TAMPERED, report


async def test_no_frame_of_the_grader_leads_to_its_channel(grader: Grader) -> None:
    code = (
        "import inspect\ndef task_func(x):\n    seen = set()\n"
        "    for f in [i.frame for i in inspect.stack()]:\n"
        "        seen |= f.f_locals.keys() | f.f_globals.keys()\n"
        "    seen &= {'nonce', 'send', 'channel', 'runner', 'jobs', 'done', 'Runner', 'answer'}\n"
        "    if seen: raise KeyError(seen)\n"
        "    if x is None: raise TypeError\n    return [v * v for v in x]\n"
    )
    report = await grade(grader, code)
    assert report.verdict is Verdict.PASSED, report


@pytest.mark.parametrize("name", DATA)
async def test_right_programs_with_data_pass(data_grader: Grader, name: str) -> None:
    report = await data_grader.grade(*told(DATA[name], name, "bigcodebench"), DATA[name].code)
    assert report.verdict is Verdict.PASSED, report


@pytest.mark.parametrize("name", FORGED_DATA)
async def test_forged_comparisons_of_data_do_not_pass(data_grader: Grader, name: str) -> None:
    case = FORGED_DATA[name]
    report = await data_grader.grade(*told(case, name, "bigcodebench"), case.code)
    assert report.verdict in (Verdict.TAMPERED, Verdict.WRONG, Verdict.EXCEPTION), report


async def test_references_pass_in_the_environment(data_grader: Grader, shared: Path) -> None:
    with gzip.open(shared / "data" / "BigCodeBench-v0.1.4.jsonl.gz", "rt") as file:
        rows = {row["task_id"]: row for row in map(json.loads, file)}
    # mocks, figures, files, a web framework's settings, patched streams and paths, subprocesses
    for number in (8, 12, 17, 39, 76, 145, 183, 324, 562, 684, 715, 1072):
        row = rows[f"BigCodeBench/{number}"]
        stub, name = row["code_prompt"], row["entry_point"]
        problem = Problem(row["task_id"], "bigcodebench", "", name, f"{stub}\n    pass\n", ())
        found = re.findall(r"^    def (test\w*)", row["test"], re.MULTILINE)
        tests = Oracle(UnitTests(row["test"], tuple(sorted(set(found)))), "", timeout_s=240.0)
        report = await data_grader.grade(problem, tests, stub + row["canonical_solution"])
        assert report.verdict is Verdict.PASSED, (number, report)
        empty = await data_grader.grade(problem, tests, f"{stub}\n    return None\n")
        assert empty.verdict not in (Verdict.PASSED, Verdict.TAMPERED), (number, empty)


@pytest.mark.parametrize(
    ("source", "methods"),
    [
        ("import unittest\nclass TestCases(unittest.TestCase): pass", ()),
        (
            "import unittest\nclass TestCases(unittest.TestCase):\n"
            "    def test_a(self): self.skipTest('not here')",
            ("test_a",),
        ),
        ("class TestCases: pass", ("test_a",)),
        ("import unittest\nclass Other(unittest.TestCase): pass", ("test_a",)),
    ],
)
async def test_no_test_run_is_no_pass(
    grader: Grader, source: str, methods: tuple[str, ...]
) -> None:
    report = await grade(grader, RIGHT, oracle(source, *methods))
    assert report.verdict is Verdict.TAMPERED, report


async def test_every_part_of_a_test_can_fail_it(grader: Grader) -> None:
    start = "import unittest\nclass TestCases(unittest.TestCase):\n    def test_a(self): pass\n"
    parts = {
        "def setUp(self): raise KeyError(1)": Verdict.EXCEPTION,
        "def tearDown(self): self.fail('no')": Verdict.WRONG,
        "def setUp(self): self.addCleanup(int, 'x')": Verdict.EXCEPTION,
        "@classmethod\n    def setUpClass(cls): raise OSError('gone')": Verdict.EXCEPTION,
        "@classmethod\n    def tearDownClass(cls): assert False": Verdict.WRONG,
        "@classmethod\n    def setUpClass(cls): cls.addClassCleanup(int, 'x')": Verdict.EXCEPTION,
        "def __init__(self, name): raise TypeError": Verdict.EXCEPTION,
    }
    for part, verdict in parts.items():
        report = await grade(grader, RIGHT, oracle(f"{start}    {part}\n", "test_a"))
        assert report.verdict is verdict, (part, report)


async def test_solution_and_tests_share_one_module_as_officially(grader: Grader) -> None:
    tests = (
        "import unittest\nLIMIT = 7\nclass TestCases(unittest.TestCase):\n"
        "    def test_a(self):\n        self.assertEqual(task_func(1), 7)\n"
        "        self.assertEqual(helper(), 'of the solution')\n"
        "        self.assertEqual(task_func.__module__, __name__)\n"
    )
    code = "LIMIT = 1\ndef helper(): return 'of the solution'\ndef task_func(x): return LIMIT\n"
    report = await grade(grader, code, oracle(tests, "test_a"))
    assert report.verdict is Verdict.PASSED, report


async def test_a_body_alone_completes_the_stub_as_officially(grader: Grader) -> None:
    report = await grade(grader, "    return [v * v for v in x]  # task_func\n")
    assert report.verdict is Verdict.PASSED, report


async def test_a_problem_that_names_its_function_in_texts_is_guarded_too(grader: Grader) -> None:
    tests = TESTS.replace("expected)", 'expected, f"{task_func([1])}")')
    code = "class L(list):\n    def __eq__(self, other): return True\ndef task_func(x): return L()"
    report = await grade(grader, code, oracle(tests, *METHODS))
    assert report.verdict is Verdict.TAMPERED, report
    assert (await grade(grader, RIGHT, oracle(tests, *METHODS))).verdict is Verdict.PASSED


async def test_messages_name_the_line_of_the_solution(grader: Grader) -> None:
    report = await grade(grader, "x = 1\ndef task_func(x) return x")
    assert report.verdict is Verdict.NOT_LOADABLE
    assert "(line 2)" in report.detail
    report = await grade(grader, "import nowhere\n" + RIGHT)
    assert report.verdict is Verdict.NOT_LOADABLE
    assert "ModuleNotFoundError: No module named 'nowhere' (line 1)" in report.detail


async def test_tests_that_are_no_python_are_our_fault(grader: Grader) -> None:
    from harness.errors import SandboxError

    with pytest.raises(SandboxError, match="do not load: SyntaxError"):
        await grade(grader, RIGHT, oracle("class TestCases(:", "test_a"))


async def test_a_problem_without_a_stub_is_graded(grader: Grader) -> None:
    problem = Problem("test/bare", "test", "", "task_func", prelude="", examples=())
    report = await grader.grade(problem, ORACLE, RIGHT)
    assert report.verdict is Verdict.PASSED, report
