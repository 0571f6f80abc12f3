"""A unittest module without some of its tests, so that what runs beside a solution holds no other.

Under `split` the tests that steer a method run in the process of its program, which can read all
that is in there. What is left is what the chosen methods need: imports, statements that run at
import, set-up, and the definitions, constants and helpers that they reach by name. Comments and
docstrings outside of these go, and so does `if __name__ == "__main__"`.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import unittest
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from harness.benchmarks.syntax import parse
from harness.types import UnitTests

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_PATH = re.compile(r"[A-Za-z_][\w.]*")
_HOOKS = {*dir(unittest.IsolatedAsyncioTestCase), "load_tests"}  # what unittest asks for by itself


@dataclass(frozen=True)
class _Part:
    """A statement of the module or of a test class."""

    node: ast.stmt
    owner: ast.ClassDef | None  # the test class that holds it
    names: frozenset[str]  # that it defines
    test: bool = False


@dataclass
class _Reach:
    """What the kept parts name: in code, and in strings (`patch("os.remove")`)."""

    code: set[str]
    strings: set[str]

    def add(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            for part in ast.walk(node):
                if isinstance(part, ast.Name):
                    self.code.add(part.id)
                elif isinstance(part, ast.Attribute):
                    self.code.add(part.attr)
                elif isinstance(part, ast.Global | ast.Nonlocal):
                    self.code.update(part.names)
                elif isinstance(part, ast.Constant) and _PATH.fullmatch(str(part.value)):
                    self.strings.update(str(part.value).split("."))


def only(tests: UnitTests, methods: Collection[str]) -> UnitTests:
    """The module with these test methods of `TestCases` and what they need.

    A test method that a kept one calls by name stays, but is not among `methods`. Raises
    SyntaxError when the source is no Python.
    """
    module = parse(tests.source)
    parts = list(_parts(module))
    kept = [part for part in parts if _always(part, methods)]
    reach = _Reach({"TestCases"}, set())
    reach.add(part.node for part in kept)
    classes = {part.owner.name: part.owner for part in parts if part.owner is not None}
    reached: set[str] = set()
    while True:
        new = [p for p in parts if p not in kept and _needed(p, reach)]
        heads = [c for name, c in classes.items() if name in reach.code - reached]
        if not new and not heads:
            break
        kept += new
        reached |= {head.name for head in heads}
        reach.add(part.node for part in new)
        for head in heads:
            reach.add([*head.bases, *head.keywords, *head.decorator_list])
    alive = [part for part in kept if part.owner is None or part.owner.name in reached]
    owners = [node for name, node in classes.items() if name in reached]
    gone = {name for p in parts if p.test and p not in alive for name in p.names}
    source = _text(tests.source, [part.node for part in alive], owners, gone)
    return replace(tests, source=source, methods=tuple(m for m in tests.methods if m in methods))


def _parts(module: ast.Module) -> Iterator[_Part]:
    bases = _base_names(module)
    for node in module.body:
        if isinstance(node, ast.ClassDef) and (node.name in bases or _tests_of(node)):
            for inner in node.body:
                named = isinstance(inner, _Function) and inner.name.startswith("test")
                yield _Part(inner, node, _defined(inner), named)
        else:
            yield _Part(node, None, _defined(node))


def _base_names(module: ast.Module) -> set[str]:
    """`TestCases` and the names that it and its bases derive from."""
    classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
    found: set[str] = set()
    waiting = ["TestCases"]
    while waiting:
        name = waiting.pop()
        if name in classes and name not in found:
            found.add(name)
            waiting += [base.id for base in classes[name].bases if isinstance(base, ast.Name)]
    return found


def _tests_of(node: ast.ClassDef) -> bool:
    return any(isinstance(part, _Function) and part.name.startswith("test") for part in node.body)


def _defined(node: ast.stmt) -> frozenset[str]:
    """Names that a definition or plain assignment makes; empty for all else, which runs anyway."""
    if isinstance(node, _Function | ast.ClassDef):
        return frozenset({node.name})
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    flat = [e for t in targets for e in (t.elts if isinstance(t, ast.Tuple | ast.List) else [t])]
    names = [target.id for target in flat if isinstance(target, ast.Name)]
    return frozenset(names) if len(names) == len(flat) else frozenset()


def _always(part: _Part, methods: Collection[str]) -> bool:
    """Whether it stays without being named: chosen tests, hooks of unittest, what runs anyway."""
    if part.test:
        return bool(part.names & set(methods))
    node = part.node
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return False
    if isinstance(node, ast.If) and not node.orelse and "__name__" in ast.unparse(node.test):
        return False
    return not part.names or bool(part.names & _HOOKS)


def _needed(part: _Part, reach: _Reach) -> bool:
    names = reach.code if part.test else reach.code | reach.strings
    return bool(part.names & names)


def _text(
    source: str, nodes: Iterable[ast.stmt], owners: Iterable[ast.ClassDef], gone: Collection[str]
) -> str:
    """The lines of these statements and of the heads of these classes, in their order.

    A comment that speaks of a test that is gone goes too.
    """
    lines = [line.rstrip("\n") for line in io.StringIO(source, newline=None)]
    word = re.compile(rf"\b(?:{'|'.join(map(re.escape, gone)) or '(?!)'})\b")
    for token in tokenize.generate_tokens(io.StringIO(source, newline=None).readline):
        if token.type == tokenize.COMMENT and word.search(token.string):
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    keep: set[int] = set()
    for node in nodes:
        keep.update(range(_first(node), (node.end_lineno or node.lineno) + 1))
    for owner in owners:
        head = range(_first(owner), _first(owner.body[0]))
        keep.update(n for n in head if lines[n - 1].strip() and lines[n - 1].strip()[0] != "#")
        if not any(_first(part) in keep for part in owner.body):
            lines[owner.body[0].lineno - 1] = f"{' ' * owner.body[0].col_offset}pass"
            keep.add(owner.body[0].lineno)
    return "".join(f"{lines[n - 1]}\n" for n in sorted(keep))


def _first(node: ast.stmt) -> int:
    """The first line of a statement, decorators included."""
    starts = [node.lineno]
    if isinstance(node, _Function | ast.ClassDef):
        starts += [decorator.lineno for decorator in node.decorator_list]
    return min(starts)
