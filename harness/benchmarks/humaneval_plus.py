"""HumanEval+ v0.1.10: HumanEval's problems with about 80 times the tests.

Liu et al. 2023, arXiv:2305.01210. The prompts are HumanEval's (115 has its import moved up).
"""

from __future__ import annotations

from harness.benchmarks import evalplus, lists
from harness.benchmarks.humaneval import public
from harness.benchmarks.source import DataSources, Row, Source, read
from harness.benchmarks.suite import Benchmark, Item, build
from harness.types import Problem

SOURCE = Source(
    file="HumanEvalPlus.jsonl.gz",
    sha256="272720b90ac375502c8ed23cd791c2a93dfb22a911641a494da74a426c09f101",
    digest="76898f8f797cbfe2a06cf896983c3a35cd5d8daf06b520b808c95d52095507dc",
    rows=164,
    fields=evalplus.FIELDS,
    licence="Apache-2.0",
    revision="v0.1.10",
    urls=(
        "https://github.com/evalplus/humanevalplus_release/releases/download/v0.1.10/"
        "HumanEvalPlus.jsonl.gz",
    ),
    override="humaneval+",
)


def load(name: str, sources: DataSources) -> Benchmark:
    """All 164 problems. Raises BenchmarkError when the file is absent or not the pinned one."""
    return build(
        name,
        SOURCE,
        read(SOURCE, sources),
        item,
        lists=lists.humaneval,
        family="humaneval",
        paper="Liu et al. 2023, arXiv:2305.01210",
        sources=sources,
        public=public,
    )


def item(row: Row, line: bytes) -> Item:
    """One row of the file. The prompt is valid Python, a stub with a docstring: the prelude."""
    prompt = row["prompt"]
    problem = Problem(row["task_id"], "humaneval+", prompt, row["entry_point"], prompt, ())
    return Item(problem, evalplus.oracle(row, line, "humaneval"))
