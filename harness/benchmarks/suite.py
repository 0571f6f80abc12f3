"""What a loaded benchmark is, and how the rows of a file become one."""

from __future__ import annotations

import ast
import functools
import hashlib
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from harness.benchmarks.known import Known
from harness.benchmarks.overlap import fresh, parameters
from harness.benchmarks.source import Data, DataSources, Row, Source
from harness.benchmarks.syntax import parse
from harness.errors import BenchmarkError, UsageError
from harness.types import Assertions, Oracle, Problem, Protocol_, Tests, UnitTests


@dataclass(frozen=True)
class Item:
    """A problem with the side that only the grader and data checks may hold."""

    problem: Problem
    oracle: Oracle
    feedback: Tests | None = None  # the protocol's tests that steer a method; None when it has none


def _unchanged(item: Item) -> Item:
    return item


def with_fresh(item: Item, known: Known) -> Item:
    """The item whose oracle tells hidden tests apart from what its feedback repeats."""
    oracle, entry_point = item.oracle, item.problem.entry_point

    def find() -> Tests | None:
        binds = parameters(oracle.reference, entry_point)
        return fresh(oracle.tests, item.feedback, entry_point, binds)

    @functools.cache
    def rest() -> Tests | None:
        return known.fresh(item.problem.problem_id, oracle.tests, find)

    return replace(item, oracle=replace(oracle, fresh=rest))


@dataclass(frozen=True)
class Benchmark:
    """A loaded benchmark. `digest` is over canonical rows, so any file of this content agrees.

    As loaded its protocol is `none`; `harness.benchmarks.protocols.apply` settles another one.
    """

    name: str
    digest: str
    licence: str
    revision: str
    paper: str
    family: str  # "humaneval", "mbpp" or "bigcodebench": suites that share ids
    lists: dict[str, tuple[str, ...]]  # list name -> problem ids, as published
    items: dict[str, Item]  # by problem id, in the benchmark's order, without those left out
    protocol: Protocol_ = "none"
    custom: bool = False  # rows that match no pinned digest
    left_out: dict[str, str] = field(default_factory=dict)  # problem id -> reason
    public: Callable[[Item], Item] = field(default=_unchanged, repr=False)
    # the item with what protocol `public` shows in its prompt, and those examples as feedback
    sources: DataSources = field(default_factory=DataSources, repr=False)

    def choose(self, name: str) -> dict[str, Item]:
        """Items of one list, in the benchmark's order, without those left out.

        Raises UsageError when the benchmark has no such list.
        """
        if name not in self.lists:
            known = ", ".join(self.lists)
            raise UsageError(f"{self.name} has no list {name!r}: use one of {known}")
        wanted = set(self.lists[name])
        return {key: item for key, item in self.items.items() if key in wanted}


def build(
    name: str,
    source: Source,
    data: Data,
    make: Callable[[Row, bytes], Item],
    *,
    lists: Callable[[Iterable[str]], dict[str, tuple[str, ...]]],
    family: str,
    paper: str,
    sources: DataSources,
    public: Callable[[Item], Item] = _unchanged,
) -> Benchmark:
    """The benchmark of these rows; `make` gets a row and its JSON text.

    Raises BenchmarkError that names file and row when a row cannot be made an item.
    """
    items: dict[str, Item] = {}
    for number, (row, line) in enumerate(zip(data.rows(), data.lines, strict=True), 1):
        try:
            item = make(row, line)
        except (SyntaxError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise BenchmarkError(
                f"{data.path} row {number}: {type(error).__name__}: {error}; correct the file"
            ) from error
        every = functools.partial(lambda tests: tests, item.oracle.tests)  # without feedback
        items[item.problem.problem_id] = replace(item, oracle=replace(item.oracle, fresh=every))
    return Benchmark(
        name=name,
        digest=data.digest,
        licence=source.licence,
        revision=source.revision,
        paper=paper,
        family=family,
        lists=lists(items),
        items=items,
        custom=data.custom,
        public=public,
        sources=sources,
    )


def described(tests: Tests | None, entry_point: str) -> tuple[str, ...]:
    """Each test as text, in order: what a method at level L3 is shown. Empty without tests.

    The calls of `Cases` stand without what they should return.
    """
    if tests is None:
        return ()
    if isinstance(tests, Assertions):
        return tests.tests
    if isinstance(tests, UnitTests):
        found = {
            node.name: textwrap.dedent(
                ast.get_source_segment(tests.source, node, padded=True) or ""
            )
            for node in ast.walk(parse(tests.source))
            if isinstance(node, ast.FunctionDef)
        }
        return tuple(found.get(name, name) for name in tests.methods)
    base, plus = tests.inputs()
    inputs = [*base, *plus]
    positions = range(len(inputs)) if tests.only is None else tests.only
    calls = (", ".join(f"{value!r:.200}" for value in inputs[k]) for k in positions)
    return tuple(f"{entry_point}({arguments})" for arguments in calls)


def leave_out(benchmark: Benchmark, ids: Iterable[str], reason: str) -> Benchmark:
    """The benchmark without these problems; `left_out` names them. Unknown ids are passed over."""
    out = {key: reason for key in ids if key in benchmark.items}
    kept = {key: item for key, item in benchmark.items.items() if key not in out}
    return replace(benchmark, items=kept, left_out=benchmark.left_out | out)


def reasons(left_out: Mapping[str, str]) -> str:
    """`2 problems left out: 1 test: nothing to split (HumanEval/32, HumanEval/38)`."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in left_out.items():
        by_reason.setdefault(reason, []).append(key)
    parts = (f"{reason} ({', '.join(keys)})" for reason, keys in by_reason.items())
    problems = "problem" if len(left_out) == 1 else "problems"
    return f"{len(left_out)} {problems} left out: {'; '.join(parts)}"


def list_digest(ids: Iterable[str]) -> str:
    """SHA-256 over the ids of a list, sorted, one a line: what an artifact names as its pool."""
    return hashlib.sha256("".join(f"{key}\n" for key in sorted(set(ids))).encode()).hexdigest()
