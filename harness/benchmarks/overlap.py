"""Which hidden tests repeat a feedback test: by syntax tree, and by (arguments, expected value).

Text is never compared: `assert f(1) is True`, `assert candidate(1) == True` and
`self.assertEqual(f(1), True)` are one test. A test method is repeated if any of its assertions is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from harness.benchmarks.syntax import parse
from harness.types import Assertions, Cases, Tests, UnitTests

_EQUAL = {"assertEqual", "assertEquals", "assertIs", "assertAlmostEqual"} | {
    f"assert{kind}Equal" for kind in ("List", "Tuple", "Set", "Dict", "Sequence", "MultiLine")
}
_WRAPPERS = {"set", "tuple", "list", "sorted", "round", "dict", "frozenset"}


@dataclass(frozen=True)
class Example:
    """A call with plain arguments and the plain value that it has to return."""

    arguments: list[Any]
    named: dict[str, Any]
    expected: Any


@dataclass(frozen=True)
class Facts:
    """What a test says: its syntax tree in one spelling, and its examples."""

    tree: str
    examples: tuple[Example, ...]

    def repeats(self, others: Iterable[Facts]) -> bool:
        """Whether one of the others has the same tree or shares an example."""
        return any(
            self.tree == other.tree or any(mine in other.examples for mine in self.examples)
            for other in others
        )


def fresh(hidden: Tests, feedback: Tests | None, entry_point: str) -> Tests | None:
    """The hidden tests that no feedback test repeats: `hidden` itself if that is all, None if none.

    HumanEval's `check` is taken apart for this (`single_tests`).
    """
    if feedback is None:
        return hidden
    if isinstance(hidden, Cases):
        return _fresh_cases(hidden, feedback, entry_point)
    shown = facts(feedback, entry_point).values()
    parts = single_tests(hidden) if isinstance(hidden, Assertions) else hidden
    kept = [name for name, said in facts(parts, entry_point).items() if not said.repeats(shown)]
    names = parts.tests if isinstance(parts, Assertions) else parts.methods
    if len(kept) == len(set(names)):
        return hidden
    if not kept:
        return None
    if isinstance(parts, Assertions):
        return replace(parts, tests=tuple(kept))
    return replace(parts, methods=tuple(kept))


def _fresh_cases(hidden: Cases, feedback: Tests, entry_point: str) -> Cases | None:
    """Cases on other inputs: the expected value is the reference's, so the input alone decides."""
    base, plus = hidden.inputs()
    inputs = base + plus
    positions = range(len(inputs)) if hidden.only is None else hidden.only
    if isinstance(feedback, Cases):
        shown = [inputs[n] for n in feedback.only or ()]
    else:
        said = facts(feedback, entry_point).values()
        shown = [e.arguments for one in said for e in one.examples if not e.named]
    kept = tuple(n for n in positions if not any(_same(inputs[n], given) for given in shown))
    if len(kept) == len(positions):
        return hidden
    return replace(hidden, only=kept) if kept else None


def _same(one: Any, other: Any) -> bool:
    """Equality that takes lists and tuples as one: JSON knows no tuples."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def facts(tests: Assertions | UnitTests | Cases, entry_point: str) -> dict[str, Facts]:
    """What each test says, by its text or, for unit tests, its method's name."""
    if isinstance(tests, Cases):
        raise TypeError("cases are compared by their inputs")
    if isinstance(tests, Assertions):
        return {test: _facts(_parsed(test), entry_point) for test in tests.tests}
    bodies = {
        part.name: [*map(ast.Expr, part.decorator_list), *part.body]  # a patch is part of a test
        for node in sorted(_classes(tests.source), key=lambda c: c.name == "TestCases")
        for part in node.body
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return {name: _facts(bodies[name], entry_point) for name in tests.methods}


def _classes(source: str) -> list[ast.ClassDef]:
    return [node for node in parse(source).body if isinstance(node, ast.ClassDef)]


def single_tests(tests: Assertions) -> Assertions:
    """HumanEval's `check(candidate)` as one test per assertion; other assertions as they are.

    Loops stay whole, statements that do not call the candidate become set-up, and assertions
    about nothing (`assert True`) go.
    """
    module = parse(tests.setup)
    checks = [n for n in module.body if isinstance(n, ast.FunctionDef) and n.name == "check"]
    if tests.tests != ("check(candidate)",) or not checks:
        return tests
    setup = [node for node in module.body if node is not checks[-1]]
    single = []
    for node in checks[-1].body:
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        if "candidate" in names:
            single.append(ast.unparse(node))
        elif not isinstance(node, ast.Assert):
            setup.append(node)
    return Assertions(tuple(dict.fromkeys(single)), "\n".join(map(ast.unparse, setup)))


def _parsed(test: str) -> list[ast.stmt]:
    try:
        return parse(test).body
    except SyntaxError:  # a published test that is no Python repeats nothing
        return []


def _facts(body: list[ast.stmt], entry_point: str) -> Facts:
    """Of statements that nobody else holds: they are spelled anew in place."""
    module = _Spelling(entry_point).visit(ast.Module(body=body, type_ignores=[]))
    return Facts(ast.dump(module), tuple(_examples(module)))


class _Spelling(ast.NodeTransformer):
    """`candidate` for the entry point, `==` for `is`, no messages, no docstrings."""

    def __init__(self, entry_point: str) -> None:
        self.entry_point = entry_point

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name("candidate", node.ctx) if node.id == self.entry_point else node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        node.ops = [ast.Eq() if isinstance(op, ast.Is) else op for op in node.ops]
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        self.generic_visit(node)
        node.msg = None
        return node


def _examples(module: ast.AST) -> Iterable[Example]:
    """Examples of every assertion in it; a variable that holds a call stands for the call."""
    held = {
        node.targets[0].id: node.value
        for node in ast.walk(module)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and _is_call(node.value)
    }
    for node in ast.walk(module):
        for actual, expected in _claims(node):
            call = held.get(actual.id, actual) if isinstance(actual, ast.Name) else actual
            if isinstance(call, ast.Call) and _is_call(call):
                try:
                    named = {k.arg or "**": ast.literal_eval(k.value) for k in call.keywords}
                    given = [ast.literal_eval(argument) for argument in call.args]
                    yield Example(given, named, ast.literal_eval(expected))
                except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                    continue  # not plain data: the tree alone is compared


def _is_call(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "candidate"
    )


def _claims(node: ast.AST) -> Iterable[tuple[ast.expr, ast.expr]]:
    """(one side, other side) of what an assertion holds equal, both ways round."""
    if isinstance(node, ast.Assert):
        yield from _held_equal(node.test)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in _EQUAL and len(node.args) >= 2:
            yield from _both(node.args[0], node.args[1])
        elif node.func.attr in ("assertTrue", "assertFalse") and node.args:
            yield from _held_equal(node.args[0], truth=node.func.attr == "assertTrue")


def _held_equal(test: ast.expr, *, truth: bool = True) -> Iterable[tuple[ast.expr, ast.expr]]:
    yield test, ast.Constant(truth)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yield from _held_equal(test.operand, truth=not truth)
    elif truth and isinstance(test, ast.Compare) and len(test.ops) == 1:
        if isinstance(test.ops[0], ast.Eq):
            yield from _both(test.left, test.comparators[0])
        elif isinstance(test.ops[0], ast.Lt | ast.LtE):  # abs(f(x) - y) < tolerance
            left = test.left
            if isinstance(left, ast.Call) and len(left.args) == 1:
                left = left.args[0]
            if isinstance(left, ast.BinOp) and isinstance(left.op, ast.Sub):
                yield from _both(left.left, left.right)
    elif (
        truth
        and isinstance(test, ast.Call)
        and isinstance(test.func, ast.Attribute)
        and test.func.attr in ("isclose", "allclose")
        and len(test.args) >= 2
    ):
        yield from _both(test.args[0], test.args[1])


def _both(one: ast.expr, other: ast.expr) -> Iterable[tuple[ast.expr, ast.expr]]:
    yield one, other
    yield other, one
    if (
        isinstance(one, ast.Call)
        and isinstance(other, ast.Call)
        and isinstance(one.func, ast.Name)
        and one.func.id in _WRAPPERS
        and one.args
        and other.args
        and ast.dump(one.func) == ast.dump(other.func)
    ):
        yield from _both(one.args[0], other.args[0])
