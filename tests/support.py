"""Shared by tests: a sample's context over scripted models, and small problems."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.benchmarks import Item
from harness.budget import Budget, Expectation
from harness.context import Aids, Recorded, SampleContext
from harness.grade import Grader, Report
from harness.journal import Journal, read_run
from harness.models.scripted import Replies, ScriptedModel
from harness.pacing import Gate
from harness.replies import ReplyCache
from harness.search import Pool, Search
from harness.types import Assertions, Level, Oracle, Problem, Sampling

DOUBLE = Problem(
    problem_id="Test/0",
    benchmark="test",
    prompt='def double(x: int) -> int:\n    """Return twice x. double(2) is 4."""\n',
    entry_point="double",
    prelude='def double(x: int) -> int:\n    """Return twice x."""\n',
    examples=("assert double(2) == 4", "assert double(0) == 0"),
)
RIGHT = "```python\ndef double(x):\n    return 2 * x\n```"
WRONG = "```python\ndef double(x):\n    return x\n```"


_made: list[Journal] = []


def close_journals() -> None:
    """Close what the test's desks left open: a suite would otherwise run out of descriptors."""
    while _made:
        with contextlib.suppress(OSError):  # a test may have closed its own
            _made.pop().close()


class Desk:
    """A context, its models and its journal, for one sample of one problem."""

    def __init__(
        self,
        folder: Path,
        grader: Grader,
        replies: Mapping[str, Replies],
        *,
        problem: Problem = DOUBLE,
        level: Level = Level.L1,
        sampling: Mapping[str, Sampling] | None = None,
        budget: Budget | None = None,
        recorded: Iterable[Mapping[str, Any]] = (),
        kept: ReplyCache | None = None,
        seed: int = 0,
        artifact: Mapping[str, Any] | None = None,
        aids: Aids | None = None,
    ) -> None:
        self.models = {role: ScriptedModel(f"scripted/{role}", r) for role, r in replies.items()}
        self.journal = Journal(folder)
        _made.append(self.journal)
        self.folder = folder
        settings = {role: Sampling() for role in replies} | dict(sampling or {})
        self.grader = grader
        self.ctx = SampleContext(
            problem=problem,
            result_key="key",
            sample=0,
            seed=seed,
            level=level,
            sampling=settings,
            gates={role: Gate(model) for role, model in self.models.items()},
            journal=self.journal,
            sandbox=grader.sandbox,
            budget=budget or Budget(),
            recorded=Recorded(recorded),
            replies=kept or ReplyCache(folder / "replies.sqlite", "off"),
            expected={role: Expectation() for role in self.models},
            feedback_tests=problem.examples if level is not Level.L0 else (),
            run_tests=self.run_tests,
            artifact=artifact,
            node_roles=[role for role in self.models if role != "meta"],
            aids=aids or Aids(),
        )

    async def run_tests(self, code: str) -> Report:
        problem = self.ctx.problem
        tests = Assertions(problem.examples)
        return await self.grader.run_tests(problem, Oracle(tests, "", 3.0), tests, code)

    def records(self, kind: str) -> list[dict[str, Any]]:
        return [r for r in read_run(self.folder) if r["kind"] == kind]

    def asked(self, role: str = "worker") -> list[str]:
        """The last message of every request to a role, in order."""
        return [r["messages"][-1]["content"] for r in self.models[role].requests]


class FitDesk:
    """A search over small problems, its models and its journal, for `fit(desk.problems, desk.ctx)`.

    All tests of a problem are its examples; the first of them is its feedback. The same folder
    again goes on with the search, as after a kill.
    """

    def __init__(
        self,
        folder: Path,
        grader: Grader,
        replies: Mapping[str, Replies],
        *,
        problems: Sequence[Problem] = (DOUBLE,),
        level: Level = Level.L3,
        sampling: Mapping[str, Sampling] | None = None,
        budget: Budget | None = None,
        seed: int = 0,
        aids: Aids | None = None,
    ) -> None:
        self.models = {role: ScriptedModel(f"scripted/{role}", r) for role, r in replies.items()}
        self.folder = folder
        self.problems = tuple(problems)
        records = list(read_run(folder)) if folder.is_dir() else []
        self.journal = Journal(folder)
        _made.append(self.journal)
        oracles = {p.problem_id: Oracle(Assertions(p.examples), "", 3.0) for p in problems}
        items = {
            p.problem_id: Item(p, oracles[p.problem_id], Assertions(p.examples[:1]))
            for p in problems
        }
        self.ctx = Search(
            pool=Pool(items, oracles),
            config_hash="hash",
            seed=seed,
            level=level,
            sampling={role: Sampling() for role in replies} | dict(sampling or {}),
            gates={role: Gate(model) for role, model in self.models.items()},
            grader=grader,
            budget=budget or Budget(),
            replies=ReplyCache(folder / "replies.sqlite", "off"),
            journal=self.journal,
            records=records,
            node_roles=[role for role in self.models if role != "meta"],
            aids=aids,
        )

    def records(self, kind: str) -> list[dict[str, Any]]:
        return [r for r in read_run(self.folder) if r["kind"] == kind]

    def asked(self, role: str = "worker") -> list[str]:
        """The last message of every request to a role, in order."""
        return [r["messages"][-1]["content"] for r in self.models[role].requests]
