"""What the user asks for beside a file: names for what is brought in, runs for what is sent out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.benchmarks import DataSources
from harness.exchange.foreign import suite
from harness.exchange.ours import Run, Sample

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class Wish:
    """What the user says of a file, before what the file says of itself."""

    benchmark: str | None = None
    method: str | None = None
    worker: str | None = None
    sources: DataSources | None = None
    say: Callable[[str], None] = print


@dataclass(frozen=True)
class Export:
    """Which runs are written, and what they are read from."""

    connection: DuckDBPyConnection
    results_dir: Path
    runs: tuple[Run, ...]
    sources: DataSources | None = None
    say: Callable[[str], None] = print

    def whole(self, run: Run) -> Callable[[Sample], str]:
        """Makes the program of a sample that an official evaluator grades as we did.

        An answer of ours is graded behind the prompt's imports and helpers; those of imported runs
        are programs as they are. Without the benchmark's data an answer stays alone, and that is
        said.
        """
        if run.columns["kind"] == "imported" or run.benchmark.startswith("bigcodebench"):
            return lambda sample: sample.solution or ""
        known = suite(run.benchmark, self.sources)
        loaded = known.loaded
        if loaded is None or loaded.digest != run.columns["benchmark_digest"]:
            why = known.absent or f"its rows are not those of {run.benchmark} here"
            self.say(f"{run.run_id}: {why}; its answers stand without the prompt's imports")
            return lambda sample: sample.solution or ""

        def program(sample: Sample) -> str:
            item = loaded.items.get(sample.problem_id)
            prelude = item.problem.prelude if item else ""
            return f"{prelude}\n{sample.solution or ''}" if prelude else sample.solution or ""

        return program
