"""BigCodeBench v0.1.4: functions that call libraries, tested by unittest. Zhuo et al. 2024.

arXiv:2406.15877. `complete` gives a stub with a docstring, `instruct` a text; `hard` are the 148
tasks of its section on hard ones. Solutions are calibrated as bigcodebench 0.2.5 does: the stub,
with `pass` for a body, stands before them. The tests run beside the solution, in one process,
within 240 s.

The released v0.1.4 is on the Hugging Face hub alone; the pinned rows are v0.1.0 with the
published changes to 10 tasks.
"""

from __future__ import annotations

import ast
import dataclasses
import functools

from harness.benchmarks import lists
from harness.benchmarks.doctests import confirmed, doctests
from harness.benchmarks.source import DataSources, Row, Source, read
from harness.benchmarks.suite import Benchmark, Item, build
from harness.benchmarks.syntax import parse
from harness.types import Oracle, Problem, UnitTests

_TEXTS = "task_id complete_prompt instruct_prompt canonical_solution code_prompt test entry_point"
_HUB = "https://huggingface.co/datasets/bigcode"
_FILE = "resolve/main/data/v0.1.4-00000-of-00001.parquet"
FULL = Source(
    file="BigCodeBench-v0.1.4.jsonl.gz",
    sha256="b0b6a4a346f20cfdae76f9eb8837ff020676759fbabfcbfaf91e3cbaf5fcebb5",
    digest="6f3442384e576147f71875242068ce217885e0f761603cfb62175736e0331abd",
    rows=1140,
    fields=dict.fromkeys(_TEXTS.split(), str),
    licence="Apache-2.0",
    revision="v0.1.4",
    urls=(f"{_HUB}/bigcodebench/{_FILE}",),
    override="bigcodebench",
)
HARD = dataclasses.replace(
    FULL,
    file="BigCodeBench-Hard-v0.1.4.jsonl.gz",
    sha256="d4110d3d5f25c70b3f8aedc43d6d869673b01a12ed37e977d734a3a90b461847",
    digest="544c183681c621550a0d9aee0d49e69ed668ed735402778523ebf9d1fede8a63",
    rows=148,
    urls=(f"{_HUB}/bigcodebench-hard/{_FILE}",),
)
TIMEOUT_S = 240.0


def load(name: str, sources: DataSources) -> Benchmark:
    """`bigcodebench[-hard]-{complete,instruct}`. Raises BenchmarkError: file absent or wrong."""
    source = HARD if "-hard-" in name else FULL
    hard = {f"BigCodeBench/{n}" for n in lists.BIGCODEBENCH_HARD}
    keep = (lambda row: row["task_id"] in hard) if source is HARD else None
    return build(
        name,
        source,
        read(source, sources, keep=keep),
        functools.partial(item, name),
        lists=lists.bigcodebench,
        family="bigcodebench",
        paper="Zhuo et al. 2024, arXiv:2406.15877",
        sources=sources,
        public=public,
    )


def item(benchmark: str, row: Row, _line: bytes) -> Item:
    """One row of either file."""
    stub = row["code_prompt"]
    prompt = row["complete_prompt" if benchmark.endswith("-complete") else "instruct_prompt"]
    calibration = f"{stub}\n    pass\n"
    problem = Problem(row["task_id"], benchmark, prompt, row["entry_point"], calibration, ())
    tests = UnitTests(row["test"], methods(row["test"]))
    return Item(problem, Oracle(tests, stub + row["canonical_solution"], timeout_s=TIMEOUT_S))


def methods(source: str) -> tuple[str, ...]:
    """Test methods of `TestCases` and its bases in the module, as unittest sorts them."""
    classes = {node.name: node for node in parse(source).body if isinstance(node, ast.ClassDef)}
    found: set[str] = set()
    waiting = ["TestCases"]
    while waiting:
        node = classes.pop(waiting.pop(), None)
        if node is not None:
            waiting += [base.id for base in node.bases if isinstance(base, ast.Name)]
            parts = (p for p in node.body if isinstance(p, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {part.name for part in parts if part.name.startswith("test")}
    return tuple(sorted(found))


def public(item: Item) -> Item:
    """The item with its docstring's examples as feedback; an instruct prompt shows none."""
    problem = item.problem
    if problem.benchmark.endswith("-instruct"):
        return item
    shown = doctests(problem.prompt, problem.entry_point, confirmed(problem.problem_id))
    return dataclasses.replace(item, feedback=shown)
