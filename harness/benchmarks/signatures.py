"""What MBPP's rows do not say: the function under test, its signature, the classes tests need."""

from __future__ import annotations

import ast
import builtins
import textwrap
from collections import Counter
from collections.abc import Iterable

from harness.benchmarks.syntax import parse
from harness.types import UnitTests

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def entry_point(code: str, tests: Iterable[str]) -> str:
    """The function of `code` that the tests call most. Raises ValueError when they call none."""
    functions = {n: d for n, d in _definitions(code).items() if not isinstance(d, ast.ClassDef)}
    called = Counter(
        node.func.id
        for test in tests
        for node in ast.walk(parse(test))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    )
    known = [(count, name) for name, count in called.items() if name in functions]
    if not known:
        raise ValueError("its tests call no function of its code")
    return max(known)[1]


def classes_used(code: str, tests: Iterable[str]) -> tuple[str, ...]:
    """Classes of `code` that the tests name: a solution has to define them too."""
    named = _names(tests)
    classes = (n for n, d in _definitions(code).items() if isinstance(d, ast.ClassDef))
    return tuple(name for name in classes if name in named)


def passes_objects(tests: Iterable[str]) -> bool:
    """Whether a test calls with what is no plain data: a type or a function (`f([1], int)`)."""
    calls = (n for t in tests for n in ast.walk(parse(t)) if isinstance(n, ast.Call))
    given = (a for call in calls for a in (*call.args, *(k.value for k in call.keywords)))
    return any(
        isinstance(a, ast.Lambda) or (isinstance(a, ast.Name) and hasattr(builtins, a.id))
        for a in given
    )


def imports_used(code: str, tests: Iterable[str]) -> str:
    """The imports of `code` whose names the tests use: they do not always bring their own."""
    named = _names(tests)
    imports = [n for n in parse(code).body if isinstance(n, ast.Import | ast.ImportFrom)]
    needed = [n for n in imports if named & {a.asname or a.name for a in n.names}]
    return "\n".join(dict.fromkeys(map(ast.unparse, needed)))


def with_signature(text: str, code: str, names: Iterable[str]) -> str:
    """The task's text, then the heads of these definitions of `code`."""
    definitions = _definitions(code)
    heads = "\n\n".join(_head(definitions[name]) for name in names)
    return f"{text.strip()}\n\n{heads}\n"


def beside(tests: Iterable[str], setup: str) -> UnitTests:
    """The same assertions as a unittest module, for those that need a class of the solution."""
    methods = [
        f"    def test_{number}(self):\n{textwrap.indent(test, ' ' * 8)}\n"
        for number, test in enumerate(tests, 1)
    ]
    source = f"import unittest\n{setup}\nclass TestCases(unittest.TestCase):\n{''.join(methods)}"
    return UnitTests(source, tuple(f"test_{number}" for number in range(1, len(methods) + 1)))


def _names(tests: Iterable[str]) -> set[str]:
    trees = (ast.walk(parse(test)) for test in tests)
    return {node.id for tree in trees for node in tree if isinstance(node, ast.Name)}


def _definitions(code: str) -> dict[str, _Definition]:
    """Those at the top level; of several by one name the last, as Python has it."""
    body = parse(code).body
    return {node.name: node for node in body if isinstance(node, _Definition)}


def _head(node: _Definition) -> str:
    """The definition without its bodies: `def f(a, b=1):`."""
    if isinstance(node, ast.ClassDef):
        methods = [part for part in node.body if isinstance(part, _Definition)]
        bases = ", ".join(ast.unparse(part) for part in (*node.bases, *node.keywords))
        own = f"class {node.name}({bases}):" if bases else f"class {node.name}:"
        return "\n".join((own, *(textwrap.indent(_head(part), "    ") for part in methods)))
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{word} {node.name}({ast.unparse(node.args)}){returns}:"
