"""HumanEval: pinned bytes, two sides that never mix, and examples from the prompt alone."""

from __future__ import annotations

import ast
import dataclasses
import gzip
import json
from pathlib import Path

import pytest

from harness import benchmarks
from harness.benchmarks import Benchmark
from harness.benchmarks.examples import examples
from harness.benchmarks.humaneval import CONTRADICTED, ROWS, SHA256
from harness.benchmarks.source import read_pinned, rows_digest
from harness.errors import BenchmarkError, UsageError
from harness.types import Problem

WITHOUT_EXAMPLES = [38, 41, 50, 80, 81, 83, 105, 116, 149, 160]


@pytest.fixture(scope="module")
def humaneval() -> Benchmark:
    return benchmarks.load("humaneval")


def test_all_problems_are_there_in_order(humaneval: Benchmark) -> None:
    assert list(humaneval.items) == [f"HumanEval/{n}" for n in range(164)]
    assert {i.problem.problem_id for i in humaneval.items.values()} == set(humaneval.items)


def test_the_lists_are_the_whole_and_its_two_parts(humaneval: Benchmark) -> None:
    full, paper, search = (humaneval.lists[name] for name in ("full", "paper", "search"))
    assert (len(full), len(paper), len(search)) == (164, 131, 33)
    assert set(paper) | set(search) == set(full)
    assert not set(paper) & set(search)


def test_the_packaged_file_is_the_official_release(shared: Path, humaneval: Benchmark) -> None:
    path = shared / "data" / "HumanEval.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert rows_digest(rows) == humaneval.digest


def test_an_unknown_benchmark_is_a_usage_error_that_names_the_known() -> None:
    with pytest.raises(UsageError, match="'humanevil': use one of humaneval"):
        benchmarks.load("humanevil")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"none\.jsonl\.gz: not there"):
        read_pinned(tmp_path / "none.jsonl.gz", SHA256, ROWS)


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "HumanEval.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"task_id": "HumanEval/0"}\n'))
    with pytest.raises(BenchmarkError, match=f"expected SHA-256 {SHA256}, found [0-9a-f]{{64}}"):
        read_pinned(path, SHA256, ROWS)


def test_the_digest_is_of_the_content_not_of_its_spelling() -> None:
    one, two = [{"a": 1, "b": "é"}], [{"b": "é", "a": 1}]
    assert rows_digest(one) == rows_digest(two)
    assert rows_digest(one) != rows_digest([{"a": 2, "b": "é"}])


def test_what_a_method_sees_holds_no_reference_and_no_hidden_test(humaneval: Benchmark) -> None:
    assert {f.name for f in dataclasses.fields(Problem)} == {
        "problem_id", "benchmark", "prompt", "entry_point", "prelude", "examples",
    }  # fmt: skip
    for item in humaneval.items.values():
        seen = "\n".join(str(value) for value in dataclasses.asdict(item.problem).values())
        assert item.oracle.setup.strip() not in seen
        assert item.oracle.reference.removeprefix(item.problem.prompt).strip() not in seen


def test_the_problems_without_an_example_are_these(humaneval: Benchmark) -> None:
    found = [n for n, i in enumerate(humaneval.items.values()) if not i.problem.examples]
    assert found == WITHOUT_EXAMPLES


def test_examples_come_from_the_prompt_alone(humaneval: Benchmark) -> None:
    for item in humaneval.items.values():
        problem = item.problem
        made = examples(problem.prompt, problem.entry_point)
        assert set(problem.examples) <= set(made)
        left_out = set(made) - set(problem.examples)
        assert left_out == set(CONTRADICTED.get(problem.problem_id, ()))


def test_each_value_of_an_example_is_in_the_prompt(humaneval: Benchmark) -> None:
    for item in humaneval.items.values():
        prompt = item.problem.prompt
        shown = "".join(prompt.split())
        for example in item.problem.examples:
            for node in ast.walk(ast.parse(example)):
                if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
                    value = repr(node.value)
                    words = {"True": "true", "False": "false", "None": "none"}
                    assert value in shown or words.get(value, value) in shown.lower(), example
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    text = "".join(node.value.split())
                    forms = (text, "".join(repr(node.value)[1:-1].split()))
                    assert any(form in shown for form in forms), example


def test_every_example_is_one_assertion_on_the_entry_point(humaneval: Benchmark) -> None:
    for item in humaneval.items.values():
        assert len(set(item.problem.examples)) == len(item.problem.examples)
        for example in item.problem.examples:
            (node,) = ast.parse(example).body
            assert isinstance(node, ast.Assert)
            assert item.problem.entry_point in example


def same_test(assertion: ast.AST, name: str) -> str:
    """An assertion's test with `candidate` for the function and `==` for `is`, as text."""
    assert isinstance(assertion, ast.Assert)
    test = ast.parse(ast.unparse(assertion.test))
    for node in ast.walk(test):
        if isinstance(node, ast.Name) and node.id == name:
            node.id = "candidate"
        elif isinstance(node, ast.Compare):
            node.ops = [ast.Eq() if isinstance(op, ast.Is) else op for op in node.ops]
    return ast.dump(test)


def test_the_examples_that_repeat_a_hidden_assertion_are_this_many(humaneval: Benchmark) -> None:
    repeated, total = 0, 0
    for item in humaneval.items.values():
        name = item.problem.entry_point
        tree = ast.walk(ast.parse(item.oracle.setup))
        hidden = {same_test(n, name) for n in tree if isinstance(n, ast.Assert)}
        shown = [same_test(ast.parse(e).body[0], name) for e in item.problem.examples]
        repeated += sum(test in hidden for test in shown)
        total += len(shown)
    assert (repeated, total) == (311, 441)  # as docs/protocols.md says


PROMPTS = {
    "doctest": (">>> f(1)\n    2", ("assert f(1) == 2",)),
    "doctest on one line": (">>> f(1) 2", ("assert f(1) == 2",)),
    "doctest that prints nothing": (">>> f(1)\n\n", ("assert f(1) is None",)),
    "equality": ("f(1) == 2", ("assert f(1) == 2",)),
    "arrow": ("f([1, 2], 'a') ➞ [2]", ("assert f([1, 2], 'a') == [2]",)),
    "double arrow": ("* f(1) => True", ("assert f(1) is True",)),
    "words": ("f(1) should return 'a b'.", ("assert f(1) == 'a b'",)),
    "returns": ("f(1) returns 2", ("assert f(1) == 2",)),
    "lower-case words of other languages": ("f(1) -> true", ("assert f(1) is True",)),
    "comment": ("f(1) == 2 # one and one", ("assert f(1) == 2",)),
    "nested call": (">>> f(f(1))\n    3", ("assert f(f(1)) == 3",)),
    "input and output": ("Input: a = 1, b = [2]\n    Output: 3", ("assert f(1, [2]) == 3",)),
    "twice the same": (">>> f(1)\n    2\n    >>> f(1)\n    2", ("assert f(1) == 2",)),
    "no literal": ("f(1) == g(2)", ()),
    "unknown name": ("f(xs) == 2", ()),
    "mention": ("f(1) is called twice", ()),
    "not a call": ("f is 2", ()),
    "another function": (">>> g(1)\n    2\n    xf(1) == 2", ()),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_an_example_is_read_as_it_is_written(name: str) -> None:
    text, expected = PROMPTS[name]
    prompt = f'def f(*args):\n    """Do it.\n    {text}\n    """\n'
    assert examples(prompt, "f") == expected


def test_a_prompt_without_a_docstring_has_no_example() -> None:
    assert examples("def f(x):\n    # f(1) == 2\n", "f") == ()
