"""BigCodeBench's docstring examples to a unittest module of ours.

An example counts when its result is a Python literal and the function was called in it or before
it. All that stands before it in the docstring is run first, in the same method, as doctest would.
"""

from __future__ import annotations

import ast
import doctest
import textwrap
from collections.abc import Container, Iterator

from harness.benchmarks.syntax import parse
from harness.types import UnitTests

_PARSER = doctest.DocTestParser()


def doctests(prompt: str, entry_point: str, wrong: Container[int] = ()) -> UnitTests | None:
    """A test method for each example but those numbered in `wrong`; None when none is left.

    Examples are numbered from 1 in the docstring's order, counting those with a literal result.
    """
    before: list[str] = []
    methods: dict[str, str] = {}
    called, number = False, 0
    for statement, check in _examples(prompt, entry_point):
        called = called or entry_point in statement
        if check is not None and called:
            number += 1
            if number not in wrong:
                body = textwrap.indent("\n".join((*before, check)), " " * 8)
                methods[f"test_example_{number}"] = body
        before.append(statement)
    if not methods:
        return None
    defined = "\n".join(f"    def {name}(self):\n{body}" for name, body in methods.items())
    source = f"import unittest\n\nclass TestCases(unittest.TestCase):\n{defined}\n"
    return UnitTests(source, tuple(sorted(methods)))


def _examples(prompt: str, entry_point: str) -> Iterator[tuple[str, str | None]]:
    """(statement, check or None) of the examples, up to one that is no Python."""
    try:
        functions = [n for n in parse(prompt).body if isinstance(n, ast.FunctionDef)]
        text = next((ast.get_docstring(f) for f in functions if f.name == entry_point), None)
        for example in _PARSER.get_examples(text or ""):
            tree = parse(example.source)
            yield ast.unparse(tree), _check(tree, example.want)
    except (SyntaxError, ValueError):
        return


def _check(tree: ast.Module, want: str) -> str | None:
    """A statement that holds the example's value against its result; None without a literal one."""
    try:
        (statement,) = tree.body
        expected = ast.literal_eval(want.strip())
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None
    if not isinstance(statement, ast.Expr):
        return None
    value = statement.value
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "print" and len(value.args) == 1:
        return f"self.assertEqual(str({ast.unparse(value.args[0])}), {want.strip()!r})"
    return f"self.assertEqual({ast.unparse(value)}, {expected!r})"
