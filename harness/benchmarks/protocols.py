"""Feedback protocols: which tests steer a method, and which are left to score it.

`none`; `public`: examples that the prompt shows; `split`: a part of the official tests, taken out
of the hidden ones; `aflow`: the tests that the literature used, overlap and all. The numbers are in
docs/protocols.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from harness.benchmarks import unit_tests
from harness.benchmarks.aflow import public_tests
from harness.benchmarks.known import Known
from harness.benchmarks.overlap import single_tests
from harness.benchmarks.suite import Benchmark, Item, with_fresh
from harness.errors import UsageError
from harness.types import Assertions, Cases, Level, Problem, Protocol_, Tests

PROTOCOL_LEVELS: dict[Protocol_, Level] = {
    "none": Level.L0,
    "public": Level.L1,
    "split": Level.L3,
    "aflow": Level.L3,
}  # the most that a method may do under each
SEED = 42


def apply(
    benchmark: Benchmark,
    protocol: Protocol_,
    only: Iterable[str] | None = None,
    known: Known | None = None,
) -> Benchmark:
    """The benchmark with feedback settled; problems that the protocol cannot serve are left out.

    With `only`, a benchmark of these problems alone: settling all of BigCodeBench takes seconds.
    `known` keeps what is found out about fresh tests. Which those are is looked at when asked for.
    Raises UsageError for an unknown protocol or one that this benchmark does not have, and
    BenchmarkError when AFlow's files are absent.
    """
    if benchmark.protocol != "none":
        raise UsageError(f"{benchmark.name} is under protocol {benchmark.protocol}: load it again")
    known = known or Known(None, benchmark.digest, protocol)
    settle = _settler(benchmark, protocol)
    items: dict[str, Item] = {}
    left_out = dict(benchmark.left_out)
    wanted = benchmark.items.keys() if only is None else set(only)
    for key, item in benchmark.items.items():
        if key not in wanted:
            continue
        settled = settle(item)
        if isinstance(settled, str):
            left_out[key] = settled
        else:
            items[key] = with_fresh(settled, known)
    return replace(benchmark, protocol=protocol, items=items, left_out=left_out)


def _settler(benchmark: Benchmark, protocol: str) -> Callable[[Item], Item | str]:
    """What makes of an item its form under the protocol, or the reason to leave it out."""
    if protocol == "none":
        return lambda item: item
    if protocol == "public":
        return benchmark.public
    if protocol == "split":
        return lambda item: _split(item, benchmark.family)
    if protocol == "aflow":
        tests = public_tests(benchmark)
        known = {*benchmark.lists.get("paper", ()), *benchmark.lists.get("search", ())}

        def as_published(item: Item) -> Item | str:
            key = item.problem.problem_id
            if key not in known:
                return "AFlow does not have it"
            return replace(item, feedback=tests.get(key))

        return as_published
    raise UsageError(f"unknown protocol {protocol!r}: use one of {', '.join(PROTOCOL_LEVELS)}")


def _split(item: Item, family: str) -> Item | str:
    """The item with a part of its hidden tests as feedback instead."""
    tests, problem = item.oracle.tests, item.problem
    shown: Tests
    hidden: Tests
    if isinstance(tests, Cases):
        base, plus = tests.inputs()
        if len(base) < 2:
            return f"{len(base)} base input: nothing to split"
        chosen = set(_third([str(n) for n in range(len(base))], problem))
        positions = range(len(base) + len(plus))
        shown = replace(tests, only=tuple(n for n in positions if str(n) in chosen))
        hidden = replace(tests, only=tuple(n for n in positions if str(n) not in chosen))
    elif isinstance(tests, Assertions):
        single = single_tests(tests)
        single = replace(single, tests=tuple(dict.fromkeys(single.tests)))  # some occur twice
        if len(single.tests) < 2:
            return f"{len(single.tests)} test: nothing to split"
        first = single.tests[:1]
        parts = set(first if family == "mbpp" else _third(single.tests, problem))
        shown = replace(single, tests=tuple(t for t in single.tests if t in parts))
        hidden = replace(single, tests=tuple(t for t in single.tests if t not in parts))
    else:
        if len(tests.methods) < 2:
            return f"{len(tests.methods)} test method: nothing to split"
        first = tests.methods[:1]
        parts = set(first if family == "mbpp" else _third(tests.methods, problem))
        shown = unit_tests.only(tests, parts)  # runs beside the solution, which can read it all
        hidden = unit_tests.only(tests, set(tests.methods) - parts)
    return replace(item, feedback=shown, oracle=replace(item.oracle, tests=hidden))


def _third(names: Sequence[str], problem: Problem) -> list[str]:
    """A third of them, one at least: the first by SHA-256 of "42/<problem id>/<name>"."""

    def order(name: str) -> bytes:
        return hashlib.sha256(f"{SEED}/{problem.problem_id}/{name}".encode()).digest()

    return sorted(names, key=order)[: max(1, len(names) // 3)]
