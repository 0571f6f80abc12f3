"""Anybody's samples: files and folders of programs in the formats that people exchange.

- HumanEval: JSON lines with `task_id` and `completion`, a continuation of the prompt
- EvalPlus: JSON lines with `solution` (a whole program) or `completion`, or a folder that has
  `HumanEval_0/0.py`, `HumanEval_0/1.py`, ... (whole programs)
- BigCodeBench: as EvalPlus; whole programs, in front of which its evaluator puts the stub that the
  prompt gives ("calibrated"), or which have it already (`...-sanitized-calibrated.jsonl`)

Any of the files may be gzipped. Where a row has both fields, `solution` counts, as in the official
evaluators. Several rows of one task are its samples, numbered in their order. Reading streams: a
file of 100,000 rows takes no more memory than its longest line.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal

from harness.errors import UsageError
from harness.types import Assertions, Oracle, Problem

# Suites of one family share ids: a row that another of them has is left out, not an error.
_FAMILIES = {"HumanEval": range(164), "Mbpp": range(1, 975), "BigCodeBench": range(1140)}
_SUITE = {"HumanEval": "humaneval", "Mbpp": "mbpp", "BigCodeBench": "bigcodebench"}
_ID = re.compile(r"(?:([A-Za-z]+)[/_])?(\d+)")
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Sample:
    """One program of a samples file."""

    problem_id: str  # as the benchmark spells it
    sample: int  # 0-based, among the problem's rows
    text: str
    kind: Literal["completion", "solution", "answer"]  # answer: one of our own runs', see `program`
    where: str  # file and line, for messages


@dataclass
class Survey:
    """What a file holds, found by reading all of it once before anything is graded."""

    counts: Counter[str] = field(default_factory=Counter)  # rows by problem
    left_out: Counter[str] = field(default_factory=Counter)  # rows of the family's other suites

    @property
    def total(self) -> int:
        return self.counts.total()


def survey(path: Path, ids: Container[str], prefix: str) -> Survey:
    """Check every row of `path` against a benchmark's `ids`, which begin with `prefix`.

    Raises UsageError, one line that names file and line: absent or empty file, no UTF-8, no JSON,
    no program in a row, a task that is not of this benchmark.
    """
    found = Survey()
    for task_id, _, _, where in _rows(path):
        problem_id = _resolve(task_id, ids, prefix, where)
        counter = found.counts if problem_id in ids else found.left_out
        counter[problem_id] += 1
    if not found.counts:
        reason = "no samples in it"
        if found.left_out:
            reason = f"none of its {found.left_out.total()} rows is a problem of this suite"
        raise UsageError(f"{path}: {reason}")
    return found


def read(path: Path, ids: Container[str], prefix: str) -> Iterator[Sample]:
    """The samples of a file or folder, in its order; see `survey` for `prefix` and errors."""
    seen: Counter[str] = Counter()
    for task_id, kind, text, where in _rows(path):
        problem_id = _resolve(task_id, ids, prefix, where)
        if problem_id in ids:
            yield Sample(problem_id, seen[problem_id], text, kind, where)
            seen[problem_id] += 1


def program(
    sample: Sample, problem: Problem, oracle: Oracle, *, stub: str, calibrated: bool = True
) -> tuple[Problem, Oracle, str]:
    """What to grade so that a program stands as it does in the official evaluator.

    HumanEval and EvalPlus run nothing in front of a program but the prompt of a `completion`, so
    `problem.prelude` is emptied; tests that need helpers of the prompt keep them on their side.
    BigCodeBench puts the prelude in front, unless it is there already or `calibrated` is False.
    `stub` is the code that a completion continues. An `answer` is graded as in `eval`.
    """
    if sample.kind == "answer":
        return problem, oracle, sample.text
    code = stub + sample.text if sample.kind == "completion" else sample.text
    if problem.problem_id.startswith("BigCodeBench/"):
        if calibrated and not code.startswith(problem.prelude):
            return problem, oracle, code
        return replace(problem, prelude=""), oracle, code
    tests = oracle.tests
    if isinstance(tests, Assertions):
        setup = f"{problem.prelude}\n{tests.setup}"
        oracle = replace(oracle, tests=replace(tests, setup=setup), fresh=lambda: None)
    return replace(problem, prelude=""), oracle, code


def _resolve(task_id: Any, ids: Container[str], prefix: str, where: str) -> str:
    """The benchmark's own spelling of an id: 2, "2", "MBPP/2" and "Mbpp_2" are "Mbpp/2"."""
    if isinstance(task_id, str) and task_id in ids:
        return task_id
    if isinstance(task_id, int | str) and not isinstance(task_id, bool):
        found = _ID.fullmatch(str(task_id).strip())
        if found:
            family = next(
                (f for f in _FAMILIES if f.lower() == (found[1] or prefix).lower()), found[1]
            )
            number = int(found[2])
            start = family or prefix
            problem_id = f"{start}/{number}" if start else str(number)
            if problem_id in ids or (family == prefix and number in _FAMILIES.get(prefix, ())):
                return problem_id
            if family in _SUITE and family != prefix:
                raise UsageError(
                    f"{where}: {task_id!r:.80} is no problem of this benchmark; it looks like "
                    f"--benchmark {_SUITE[family]}"
                )
    raise UsageError(
        f"{where}: unknown task_id {task_id!r:.80}; ids are like {_example(ids, prefix)}"
    )


def _example(ids: Container[str], prefix: str) -> str:
    return next(iter(ids), prefix) if isinstance(ids, Iterable) else prefix


def _rows(path: Path) -> Iterator[tuple[Any, Literal["completion", "solution"], str, str]]:
    """(task_id, field, text, where) of every row."""
    if path.is_dir():
        yield from _folder(path)
        return
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == _GZIP
            raw.seek(0)
            lines: IO[bytes] = gzip.GzipFile(fileobj=raw) if zipped else raw  # type: ignore[assignment]
            yield from _lines(path, lines)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UsageError(f"{path}: a damaged gzip file: {error}") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error


def _lines(
    path: Path, lines: Iterable[bytes]
) -> Iterator[tuple[Any, Literal["completion", "solution"], str, str]]:
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise UsageError(f"{where}: not UTF-8 at byte {error.start} of the line") from None
        if not text:
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise UsageError(f"{where}: not JSON: {error}") from None
        except RecursionError:
            raise UsageError(f"{where}: not JSON: nested too deeply") from None
        if not isinstance(row, dict):
            raise UsageError(f"{where}: expected one JSON object a line, found {_kind(row)}")
        if "task_id" not in row:
            raise UsageError(f"{where}: no task_id")
        yield row["task_id"], *_text(row, where), where


def _text(row: dict[str, Any], where: str) -> tuple[Literal["completion", "solution"], str]:
    fields: tuple[Literal["solution"], Literal["completion"]] = ("solution", "completion")
    for name in fields:
        if isinstance(row.get(name), str):
            return name, row[name]
    for name in fields:
        if row.get(name) is not None:
            hint = "; repeat the task_id for several" if isinstance(row[name], list) else ""
            raise UsageError(f"{where}: {name} is {_kind(row[name])}, not a string{hint}")
    raise UsageError(f"{where}: neither completion nor solution")


def _kind(value: Any) -> str:
    names = {list: "a list", dict: "an object", bool: "a boolean", str: "a string"}
    return "null" if value is None else names.get(type(value), "a number")


def _folder(path: Path) -> Iterator[tuple[Any, Literal["completion", "solution"], str, str]]:
    """`HumanEval_0/0.py` and so on; samples in the order of their numbers."""
    for folder in sorted((p for p in path.iterdir() if p.is_dir()), key=_natural):
        if folder.name.startswith((".", "__")):
            continue
        for file in sorted(folder.glob("*.py"), key=_natural):
            try:
                text = file.read_bytes().decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise UsageError(f"{file}: not UTF-8 at byte {error.start}") from None
            except OSError as error:
                raise UsageError(f"{file}: cannot be read: {error.strerror or error}") from error
            yield folder.name.replace("_", "/"), "solution", text, str(file)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts 2.py before 10.py."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(int(p), "") if p.isdigit() else (-1, p) for p in parts]
