"""Which hidden tests repeat a feedback test: by syntax tree, and by (arguments, expected value).

Text is never compared: `assert f(1) is True`, `assert candidate(1) == True` and
`self.assertEqual(f(1), True)` are one test; `f(2 * 3)`, `f(6)` and `f(n=6)` are one call; `f(1)`,
`f(1.0)` and `f(True)` are three. A test is repeated if any of its assertions is.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.benchmarks.syntax import parse
from harness.types import Assertions, Cases, Tests, UnitTests

_EQUAL = {"assertEqual", "assertEquals", "assertIs", "assertAlmostEqual"} | {
    f"assert{kind}Equal" for kind in ("List", "Tuple", "Set", "Dict", "Sequence", "MultiLine")
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_WRAPPERS = {"set", "tuple", "list", "sorted", "round", "dict", "frozenset"}


@dataclass(frozen=True, eq=False)
class Example:
    """A call with plain arguments and the plain value that it has to return."""

    arguments: list[Any]
    named: dict[str, Any]  # those that cannot be bound to a position
    expected: Any

    def repeats(self, other: Example) -> bool:
        """Whether both make the same call and expect what `==` takes as the same, 2 as 2.0."""
        return (
            _same(self.arguments, other.arguments)
            and _same(self.named, other.named)
            and _same(self.expected, other.expected, numbers=True)
        )


@dataclass(frozen=True)
class Facts:
    """What a test says: its syntax tree in one spelling, and its examples."""

    tree: str
    examples: tuple[Example, ...]

    def repeats(self, others: Iterable[Facts]) -> bool:
        """Whether one of the others has the same tree or shares an example."""
        return any(
            self.tree == other.tree
            or any(mine.repeats(its) for mine in self.examples for its in other.examples)
            for other in others
        )


def fresh(
    hidden: Tests, feedback: Tests | None, entry_point: str, binds: Sequence[str] = ()
) -> Tests | None:
    """The hidden tests that no feedback test repeats: `hidden` itself if that is all, None if none.

    HumanEval's `check` is taken apart for this (`single_tests`). `binds` are the names of the
    function's positional parameters, so that `f(1)` and `f(n=1)` are one call.
    """
    if feedback is None:
        return hidden
    if isinstance(hidden, Cases):
        return _fresh_cases(hidden, feedback, entry_point, binds)
    shown = facts(feedback, entry_point, binds).values()
    parts = single_tests(hidden) if isinstance(hidden, Assertions) else hidden
    found = facts(parts, entry_point, binds)
    kept = [name for name, said in found.items() if not said.repeats(shown)]
    names = parts.tests if isinstance(parts, Assertions) else parts.methods
    if len(kept) == len(set(names)):
        return hidden
    if not kept:
        return None
    if isinstance(parts, Assertions):
        return replace(parts, tests=tuple(kept))
    return replace(parts, methods=tuple(kept))


def _fresh_cases(
    hidden: Cases, feedback: Tests, entry_point: str, binds: Sequence[str]
) -> Cases | None:
    """Cases on other inputs: the expected value is the reference's, so the input alone decides."""
    base, plus = hidden.inputs()
    inputs = base + plus
    positions = range(len(inputs)) if hidden.only is None else hidden.only
    if isinstance(feedback, Cases):
        shown = [inputs[n] for n in feedback.only or ()]
    else:
        said = facts(feedback, entry_point, binds).values()
        shown = [e.arguments for one in said for e in one.examples if not e.named]
    kept = tuple(
        n for n in positions if not any(_same(inputs[n], given, lists=True) for given in shown)
    )
    if len(kept) == len(positions):
        return hidden
    return replace(hidden, only=kept) if kept else None


def _same(one: Any, other: Any, *, numbers: bool = False, lists: bool = False) -> bool:
    """Equality of value and type, all the way down.

    `numbers`: 2 is 2.0, but not True. `lists`: (1,) is [1], for JSON knows no tuples.
    """
    kinds = {type(one), type(other)}
    alike = (numbers and kinds <= {int, float, complex}) or (lists and kinds <= {list, tuple})
    if len(kinds) > 1 and not alike:
        return False
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(
            _same(a, b, numbers=numbers, lists=lists) for a, b in pairs
        )
    if isinstance(one, dict | set | frozenset):
        if len(one) != len(other):
            return False
        keys = {key: key for key in other}  # as the other spells them: 1 finds True
        if not all(key in keys and _same(key, keys[key], numbers=numbers) for key in one):
            return False
        return not isinstance(one, dict) or all(
            _same(one[key], other[key], numbers=numbers, lists=lists) for key in one
        )
    return bool(one == other)


def parameters(code: str, entry_point: str) -> tuple[str, ...]:
    """Names of the positional parameters of a top-level function; empty when there is none."""
    found: tuple[str, ...] = ()
    for node in parse(code).body:
        if isinstance(node, ast.FunctionDef) and node.name == entry_point:
            found = tuple(each.arg for each in (*node.args.posonlyargs, *node.args.args))
    return found


def facts(
    tests: Assertions | UnitTests | Cases, entry_point: str, binds: Sequence[str] = ()
) -> dict[str, Facts]:
    """What each test says, by its text or, for unit tests, its method's name."""
    if isinstance(tests, Cases):
        raise TypeError("cases are compared by their inputs")
    if isinstance(tests, Assertions):
        return {test: _facts(_parsed(test), entry_point, binds) for test in tests.tests}
    bodies = {
        part.name: [*map(ast.Expr, part.decorator_list), *part.body]  # a patch is part of a test
        for node in sorted(_classes(tests.source), key=lambda c: c.name == "TestCases")
        for part in node.body
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return {name: _facts(bodies[name], entry_point, binds) for name in tests.methods}


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


def _facts(body: list[ast.stmt], entry_point: str, binds: Sequence[str]) -> Facts:
    """Of statements that nobody else holds: they are spelled anew in place."""
    module = _Spelling(entry_point).visit(ast.Module(body=body, type_ignores=[]))
    return Facts(ast.dump(module), tuple(_examples(module, binds)))


class _Spelling(ast.NodeTransformer):
    """`candidate` for the entry point, `==` for `is`, numbers worked out, no messages."""

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

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        value = _number(node.operand)
        if value is None or not isinstance(node.op, ast.USub):
            return node
        return ast.Constant(-value)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        left, right = _number(node.left), _number(node.right)
        work = _ARITHMETIC.get(type(node.op))
        if work is None or left is None or right is None:
            return node
        if isinstance(node.op, ast.Pow) and not (0 <= right <= 1000 and abs(left) <= 1000):
            return node
        try:
            return ast.Constant(work(left, right))
        except (ArithmeticError, ValueError):
            return node


def _number(node: ast.expr) -> int | float | None:
    """The value of a literal number that is short enough to be spelled out."""
    value = node.value if isinstance(node, ast.Constant) else None
    if type(value) is int and value.bit_length() <= 4096:
        return value
    return value if type(value) is float else None


def _examples(module: ast.AST, binds: Sequence[str]) -> Iterable[Example]:
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
                    while len(given) < len(binds) and binds[len(given)] in named:
                        given.append(named.pop(binds[len(given)]))
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
    elif isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And if truth else ast.Or):
        for part in test.values:  # each of them has to hold
            yield from _held_equal(part, truth=truth)
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
