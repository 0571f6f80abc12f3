"""MBPP+ v0.2.0: 378 problems of sanitized MBPP with about 35 times the tests.

Liu et al. 2023, arXiv:2305.01210. The prompt is the text and the signature, as for `mbpp`;
EvalPlus's own prompt, text and first assertion, is what protocol `public` shows.
"""

from __future__ import annotations

import ast
import functools

from harness.benchmarks import evalplus, lists
from harness.benchmarks.mbpp import with_example
from harness.benchmarks.signatures import imports_used, with_signature
from harness.benchmarks.source import DataSources, Row, Source, read
from harness.benchmarks.suite import Benchmark, Item, build
from harness.benchmarks.syntax import parse
from harness.types import Assertions, Problem

SOURCE = Source(
    file="MbppPlus.jsonl.gz",
    sha256="af43697e8791c4c149bdfd6b489d8b5412507551ac20e28a439f650b8225db63",
    digest="1f25313a0b50724476191791a6d78f76ac5a495b9b52bd0171aa73c86eaaf093",
    rows=378,
    fields={**evalplus.FIELDS, "assertion": str},
    licence="Apache-2.0",
    revision="v0.2.0",
    urls=(
        "https://github.com/evalplus/mbppplus_release/releases/download/v0.2.0/MbppPlus.jsonl.gz",
    ),
    override="mbpp+",
)


def load(name: str, sources: DataSources) -> Benchmark:
    """All 378 problems. Raises BenchmarkError when the file is absent or not the pinned one."""
    data = read(SOURCE, sources)
    examples: dict[str, Assertions] = {}

    def make(row: Row, line: bytes) -> Item:
        examples[row["task_id"]] = shown(row)[1]
        return item(row, line)

    return build(
        name,
        SOURCE,
        data,
        make,
        lists=lists.mbpp,
        family="mbpp",
        paper="Liu et al. 2023, arXiv:2305.01210",
        sources=sources,
        public=functools.partial(with_example, examples),
    )


def item(row: Row, line: bytes) -> Item:
    """One row of the file."""
    name = row["entry_point"]
    prompt = with_signature(shown(row)[0], row["canonical_solution"], (name,))
    problem = Problem(row["task_id"], "mbpp+", prompt, name, prelude="", examples=())
    return Item(problem, evalplus.oracle(row, line, "mbpp"))


def shown(row: Row) -> tuple[str, Assertions]:
    """(text, assertions) of EvalPlus's prompt, a docstring that ends in the assertions it shows."""
    text, mark, code = row["prompt"].strip().strip('"').strip().partition("\nassert ")
    tests = tuple(ast.unparse(n) for n in parse(f"assert {code}").body) if mark else ()
    used = imports_used(f"{row['canonical_solution']}\n{row['assertion']}", tests)
    return text, Assertions(tests, used)
