"""Inputs and outputs (EvalPlus's kind): comparison rules, limits, what is kept, and both parts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.errors import SandboxError
from harness.grade import Grader, Report
from harness.sandbox import Sandbox
from harness.types import Cases, Oracle, Problem, Verdict
from harness.verdicts import VerdictCache

SOLVE = Problem("test/solve", "test", "", "solve", prelude="", examples=())


@pytest_asyncio.fixture
async def grader(sandbox: Sandbox, tmp_path: Path) -> AsyncIterator[Grader]:
    with VerdictCache(tmp_path / "verdicts.sqlite") as verdicts:
        async with Grader(sandbox, verdicts=verdicts) as made:
            yield made


def oracle(
    reference: str,
    base: list[Any],
    plus: list[Any] | None = None,
    *,
    timeout_s: float = 10.0,
    **how: Any,
) -> Oracle:
    """Argument lists on which a solution has to return what the reference returns."""
    inputs = base, plus or []
    digest = f"{reference}{inputs!r}"
    tests = Cases(inputs=lambda: inputs, digest=digest, **how)
    return Oracle(tests, reference, timeout_s, fresh=lambda: tests)


def returns(expression: str) -> str:
    return f"def solve(x):\n    return {expression}\n"


async def judged(
    grader: Grader, wanted: str, given: str, base: list[Any] | None = None, **how: Any
) -> Report:
    asked = oracle(returns(wanted), base or [[1], [2]], **how)
    return await grader.grade(SOLVE, asked, returns(given))


# (reference returns, solution returns): equal for EvalPlus, which compares with == in one process
EQUAL = [
    ("x", "x * 1.0"),
    ("x", "x + 0j"),
    ("x > 0", "1"),
    ("[x, 2]", "[x * 1.0, True * 2]"),
    ("{1: x}", "__import__('collections').OrderedDict([(1, x)])"),
    ("{'a': 1}", "__import__('collections').Counter('a')"),
    ("(x, 2)", "__import__('collections').namedtuple('P', 'a b')(x, 2)"),
    ("{3, 1, 2}", "frozenset([1, 2, 3])"),
    ("x / 3", "x / 3 + 1e-7"),
    ("[x / 3, 1.0]", "[x / 3 + 1e-7, 1.0]"),
    ("0.0 * x", "-0.0 * x"),
    ("(1.0, x * 1.0)", "(1.0, __import__('numpy').float64(x))"),
    ("None", "None"),
    ("list(range(30000))", "[float(i) for i in range(30000)]"),
    ("[0.5] * 30000", "[0.5 + 1e-8] * 30000"),
]
UNEQUAL = [
    ("x", "str(x)"),
    ("[x]", "(x,)"),
    ("x / 3", "x / 3 + 1e-4"),
    ("x", "x + 1e-9"),  # no float among the outputs of the reference: no tolerance
    ("[x / 3]", "(x / 3 + 1e-8,)"),  # within the tolerance, but another type
    (
        "float(x)",
        "__import__('fractions').Fraction(x) + __import__('fractions').Fraction(1, 10**9)",
    ),
    ("[x / 3, 1.0]", "[x / 3]"),
    ("float('nan')", "float('nan')"),
    ("[x]", "None"),
    ("b'a' * 8", "__import__('array').array('b', b'a' * 8)"),
    ("x", "lambda: x"),
    ("x", "(v for v in [x])"),
    ("list(range(30000))", "list(range(30001))"),
    ("list(range(30000))", "[0] * 30000"),
    ("'a' * 200000", "'a' * 199999 + 'b'"),
]


@pytest.mark.parametrize(("wanted", "given"), EQUAL)
async def test_what_compares_equal_in_one_process_passes(
    grader: Grader, wanted: str, given: str
) -> None:
    assert officially(wanted, given) is True
    assert (await judged(grader, wanted, given)).verdict is Verdict.PASSED


@pytest.mark.parametrize(("wanted", "given"), UNEQUAL)
async def test_what_does_not_compare_equal_is_wrong(
    grader: Grader, wanted: str, given: str
) -> None:
    assert officially(wanted, given) is False
    assert (await judged(grader, wanted, given)).verdict is Verdict.WRONG


def officially(wanted: str, given: str) -> bool:
    """EvalPlus 0.3.1's comparison of two expressions at x = 1 and x = 2, written from its rules."""
    import numpy

    atol = 0.0
    for x in (1, 2):
        expected, out = eval(wanted, {"x": x}), eval(given, {"x": x})
        floats = expected if isinstance(expected, list | tuple) and expected else [expected]
        if all(isinstance(value, float) for value in floats):
            atol = 1e-6
        if out == expected:
            continue
        if not atol or type(out) is not type(expected):
            return False
        if isinstance(expected, list | tuple) and len(out) != len(expected):
            return False
        if not numpy.allclose(out, expected, rtol=1e-07, atol=atol):
            return False
    return True


async def test_a_tolerance_once_widened_stays_for_the_inputs_after_it(grader: Grader) -> None:
    near, base = "x + 1e-9 if x > 1 else float(x)", [[1], [2]]
    wanted = "float(x) if x == 1 else float(x)"
    assert (await judged(grader, wanted, near, base)).verdict is Verdict.PASSED
    # the reference's second output is no float, but an earlier one was
    wanted = "float(x) if x == 1 else [x]"
    assert (await judged(grader, wanted, "float(x) if x == 1 else [x + 1e-9]")).verdict is (
        Verdict.PASSED
    )
    wanted, near = "[x] if x == 1 else float(x)", "[x + 1e-9] if x == 1 else float(x)"
    assert (await judged(grader, wanted, near)).verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("rule", "wanted", "right", "wrong"),
    [
        ("any", "x", "'whatever'", None),
        ("sum_div", "x + 5", "0", "1"),
        ("set", "[x, 2]", "(2, x, 2)", "[x]"),
        ("not_none", "'a match'", "{1: x}", "None"),
        ("not_none", "None", "None", "'a match'"),
        ("not_none", "'a match'", "True", "False"),
        ("not_none", "False", "True", "False"),  # a reference that returns False: not None either
    ],
)
async def test_special_rules_accept_what_evalplus_accepts(
    grader: Grader, rule: str, wanted: str, right: str, wrong: str | None
) -> None:
    assert (await judged(grader, wanted, right, rule=rule)).verdict is Verdict.PASSED
    if wrong is not None:
        assert (await judged(grader, wanted, wrong, rule=rule)).verdict is Verdict.WRONG


async def test_rules_on_arguments_use_the_arguments(grader: Grader) -> None:
    zero = oracle("def solve(xs): return 2.0", [[[-6.0, 3.0]]], atol=1e-4, rule="find_zero")
    good = "def solve(xs): return 2.0 + 1e-6"
    assert (await grader.grade(SOLVE, zero, good)).verdict is Verdict.PASSED
    bad = "def solve(xs): return 2.1"
    assert (await grader.grade(SOLVE, zero, bad)).verdict is Verdict.WRONG
    digits = oracle("def solve(a, b): return -1", [[1, 2], [23, 56]], rule="digit_distance")
    good = "def solve(a, b): return 1 if a == 1 else 6"
    assert (await grader.grade(SOLVE, digits, good)).verdict is Verdict.PASSED
    area = oracle("def solve(a, b): return -1", [[3, 4]], rule="surface_area")
    right = round(9 + 6 * math.sqrt(1.5**2 + 16))
    good = f"def solve(a, b): return {right}"
    assert (await grader.grade(SOLVE, area, good)).verdict is Verdict.PASSED


async def test_base_and_plus_have_a_verdict_each_and_both_have_to_pass(grader: Grader) -> None:
    asked = oracle(returns("x"), [[1]], [[2], [3]])
    for code, base, plus in (
        ("x", Verdict.PASSED, Verdict.PASSED),
        ("1", Verdict.PASSED, Verdict.WRONG),
        ("x if x > 1 else 0", Verdict.WRONG, Verdict.PASSED),
        ("1 / 0", Verdict.EXCEPTION, Verdict.EXCEPTION),
    ):
        report = await grader.grade(SOLVE, asked, returns(code))
        assert report.parts == {"base": base, "plus": plus}
        assert report.verdict is (base if base is not Verdict.PASSED else plus)


async def test_state_does_not_leak_from_base_to_plus(grader: Grader) -> None:
    counts = "seen = []\ndef solve(x):\n    seen.append(x)\n    return x if len(seen) < 3 else 0"
    report = await grader.grade(SOLVE, oracle(returns("x"), [[1], [2]], [[3], [4]]), counts)
    assert report.verdict is Verdict.PASSED  # as in EvalPlus, which runs two processes


async def test_an_input_that_takes_too_long_times_out_by_itself(grader: Grader) -> None:
    asked = oracle(returns("x"), [[n] for n in range(50)], case_s=0.3)
    slow = "import time\ndef solve(x):\n    time.sleep(9 if x == 30 else 0.001)\n    return x"
    report = await grader.grade(SOLVE, asked, slow)
    assert report.verdict is Verdict.TIMEOUT
    assert report.wall_s < 5
    steady = "import time\ndef solve(x):\n    time.sleep(0.02)\n    return x"
    assert (await grader.grade(SOLVE, asked, steady)).verdict is Verdict.PASSED  # 1 s in all


async def test_all_inputs_together_have_a_limit(grader: Grader) -> None:
    asked = oracle(returns("x"), [[n] for n in range(50)], case_s=9, timeout_s=0.5)
    steady = "import time\ndef solve(x):\n    time.sleep(0.2)\n    return x"
    report = await grader.grade(SOLVE, asked, steady)
    assert report.verdict is Verdict.TIMEOUT
    assert report.wall_s < 6


async def test_an_input_may_take_four_times_what_the_reference_took(grader: Grader) -> None:
    burn = "import time\ndef solve(x):\n    end = time.process_time() + {s}\n"
    burn += "    while x == 2 and time.process_time() < end: pass\n    return x"
    asked = oracle(burn.format(s=0.3), [[1], [2], [3]], case_s=0.1)
    assert (await grader.grade(SOLVE, asked, burn.format(s=0.8))).verdict is Verdict.PASSED
    assert (await grader.grade(SOLVE, asked, burn.format(s=3))).verdict is Verdict.TIMEOUT


async def test_feedback_on_inputs_has_an_outcome_for_each(grader: Grader) -> None:
    asked = oracle(returns("x"), [[1], [2], [3], [4]], [[5]])
    assert isinstance(asked.tests, Cases)
    chosen = dataclasses.replace(asked.tests, only=(1, 2, 3))
    code = "def solve(x):\n    if x == 3: raise ValueError('no')\n    return x if x < 4 else 0"
    report = await grader.run_tests(SOLVE, asked, chosen, code)
    kinds = [verdict for verdict, _ in report.outcomes]
    assert kinds == [Verdict.PASSED, Verdict.EXCEPTION, Verdict.WRONG]
    assert report.outcomes[1][1] == "ValueError: no"
    assert report.parts == {"base": Verdict.EXCEPTION}


async def test_a_part_of_the_inputs_can_be_hidden_from_the_score(grader: Grader) -> None:
    asked = oracle(returns("x"), [[1], [2]], [[3]])
    assert isinstance(asked.tests, Cases)
    fresh = dataclasses.replace(asked.tests, only=(1, 2))
    report = await grader.grade(
        SOLVE, dataclasses.replace(asked, fresh=lambda: fresh), returns("x if x > 1 else 0")
    )
    assert (report.verdict, report.fresh) == (Verdict.WRONG, Verdict.PASSED)
    none = await grader.grade(SOLVE, dataclasses.replace(asked, fresh=lambda: None), returns("x"))
    assert (none.verdict, none.fresh) == (Verdict.PASSED, None)


async def test_what_a_later_call_changes_in_an_output_does_not_count(grader: Grader) -> None:
    shared = "kept = []\ndef solve(x):\n    kept.clear()\n    kept.append(x * 1.0)\n    return kept"
    asked = oracle(returns("[x]"), [[n] for n in range(100)])
    assert (await grader.grade(SOLVE, asked, shared)).verdict is Verdict.PASSED


async def test_a_reference_that_fails_is_our_fault_and_no_verdict(grader: Grader) -> None:
    with pytest.raises(SandboxError, match="test/solve: its reference does not run"):
        await grader.grade(SOLVE, oracle(returns("1 / 0"), [[1]]), returns("x"))


async def test_the_same_work_is_done_once(sandbox: Sandbox, tmp_path: Path) -> None:
    asked = oracle(returns("x"), [[1]])
    path = tmp_path / "kept" / "verdicts.sqlite"
    reports = []
    for _ in range(2):
        with VerdictCache(path) as verdicts:
            async with Grader(sandbox, verdicts=verdicts) as grader:
                reports += [await grader.grade(SOLVE, asked, returns(e)) for e in ("x", "0")]
    assert [r.cached for r in reports] == [False, False, True, True]
    for first, again in zip(reports[:2], reports[2:], strict=True):
        assert dataclasses.replace(again, cached=False) == first


@pytest.mark.parametrize("change", ["code", "prelude", "inputs", "atol", "only", "timeout_s"])
async def test_another_program_test_or_limit_is_other_work(grader: Grader, change: str) -> None:
    asked, problem, code = oracle(returns("x"), [[1], [2]]), SOLVE, returns("x")
    await grader.grade(problem, asked, code)
    assert (await grader.grade(problem, asked, code)).cached
    assert isinstance(asked.tests, Cases)
    if change == "code":
        code += "#"
    elif change == "prelude":
        problem = dataclasses.replace(problem, prelude="import math")
    elif change == "inputs":
        asked = oracle(returns("x"), [[1], [3]])
    elif change == "atol":
        asked = dataclasses.replace(asked, tests=dataclasses.replace(asked.tests, atol=0.1))
    elif change == "only":
        asked = dataclasses.replace(asked, tests=dataclasses.replace(asked.tests, only=(1,)))
    else:
        asked = dataclasses.replace(asked, timeout_s=3.0)
    assert not (await grader.grade(problem, asked, code)).cached
