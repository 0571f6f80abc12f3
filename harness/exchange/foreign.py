"""What a file of somebody else's says of one run, in our words, before it becomes a journal.

Reading is strict: what is not of the expected kind is a UsageError of one line that names the file,
the place in it, what was expected and what stands there. What a file does not say is None.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.benchmarks import ALIASES, REGISTRY, Benchmark, DataSources, load
from harness.errors import BenchmarkError, UsageError
from harness.types import Message, Verdict

_ID = re.compile(r"(?:[A-Za-z]+[/_])?(\d+)")
LARGEST = 2**53  # the largest whole number that every reader of JSON keeps exactly
MOST = 1e300  # that a number is below
SAMPLES = 1_000_000  # of one problem; a larger number in a column `sample` is a mistake
SHOWN = 60  # characters of a wrong value in a message
DETAIL = 1000  # characters of a reason; the whole of it stays in the journal as a text


@dataclass(frozen=True)
class Call:
    """One request to a model, as a file records it. Tokens, dollars and seconds: None is unknown.

    `prompt_tokens` counts all of the prompt, `cached_tokens` being those of it that the provider
    read from its cache.
    """

    model: str | None = None
    messages: Sequence[Message] | None = None
    reply: str | None = None
    role: str = "worker"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    cached: bool | None = None  # answered without paying, from a cache of replies
    cost_usd: float | None = None  # paid
    fresh_cost_usd: float | None = None  # where no reply is kept
    latency_s: float | None = None
    finish: str | None = None
    error: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)  # further fields of a `call` record


@dataclass(frozen=True)
class Row:
    """One graded sample of a file. `problem_id` is as the file spells it."""

    problem_id: str | int
    verdict: Verdict
    where: str  # place in the file, for messages
    sample: int | None = None  # None: numbered in the order of the file
    detail: str = ""
    fresh: Verdict | None = None
    base: Verdict | None = None
    plus: Verdict | None = None
    solution: str | None = None
    solution_sha: str | None = None  # where the text itself is not in the row
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    calls: int | None = None
    cached_calls: int | None = None
    rounds: int | None = None
    cost_usd: float | None = None
    fresh_cost_usd: float | None = None
    price_table: str | None = None
    wall_s: float | None = None
    grade_s: float | None = None
    feedback_passed: int | None = None
    feedback_total: int | None = None
    error_kind: str | None = None
    reruns: Sequence[str] | None = None  # verdicts of further final runs
    at: float | None = None  # unix seconds at which it was graded
    task_text: str | None = None  # what the file says the problem is, to hold against ours
    trajectory: tuple[Call, ...] = ()
    official: Mapping[str, Any] | None = None  # the grader's own words, kept as a text


@dataclass(frozen=True)
class Log:
    """One run in a file: what it is called there, and its samples, read when asked for."""

    tool: str  # who graded: "evalplus", "lm-eval", "inspect_ai", ...
    rows: Callable[[], Iterator[Row]]
    file: Path | None = None  # that it is in, where that is not the one that was given
    version: str | None = None  # of the tool, where the file says it
    part: str = ""  # tells it from other runs of the file
    name: str | None = None  # of its run there, as in `run_id`
    benchmark: str | None = None  # in our words where it is one of ours
    method: str | None = None
    worker: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)  # further models, by role
    simulated: bool = False  # its model is none
    data_hash: str | None = None  # MD5 or SHA-256 of the problems, as the file has it
    hashes: Mapping[str, str] = field(default_factory=dict)  # our digest of rows -> their hash
    grader_version: str | None = None
    started_at: float | None = None  # unix seconds
    status: str = "complete"
    asked: tuple[Sequence[str | int], int] | None = None  # (problem ids, samples of each)
    sampling: Mapping[str, Any] = field(default_factory=dict)  # of the worker
    head: Mapping[str, Any] = field(default_factory=dict)  # further fields of run.json
    said: Mapping[str, Any] = field(default_factory=dict)  # further fields of its `origin`
    companions: tuple[Path, ...] = ()  # other files that were read for it
    texts: Callable[[], Iterator[tuple[str, str]]] | None = None  # (SHA-256, text)
    records: Callable[[], Iterator[dict[str, Any]]] | None = None  # journal records of samples


@dataclass(frozen=True)
class Suite:
    """A benchmark by name, with its problems where its data is at hand."""

    name: str
    loaded: Benchmark | None = None
    absent: str | None = None  # why they are not known here

    def spelled(self, problem_id: str | int) -> str:
        """Our spelling of a problem's id: 11, "11" and "MBPP_11" are "Mbpp/11" on MBPP.

        Another id is what it was, as text.
        """
        text = str(problem_id)
        if self.loaded is None or self.has(text):
            return text
        number = _ID.fullmatch(text.strip())
        first = next(iter((*self.loaded.items, *self.loaded.left_out)), "")
        ours = f"{first.rpartition('/')[0]}/{int(number[1])}" if number else text
        return ours if self.has(ours) else text

    def has(self, problem_id: str) -> bool:
        """Whether the benchmark has a problem of that id."""
        found = self.loaded
        return found is not None and (problem_id in found.items or problem_id in found.left_out)


def suite(name: str, sources: DataSources | None) -> Suite:
    """A benchmark of ours with its problems, or only its name.

    Nothing is downloaded: without its data on this machine, ids are not checked.
    """
    name = ALIASES.get(name, name)
    if name not in REGISTRY:
        return Suite(name, absent=f"{name} is no benchmark of ours")
    try:
        return Suite(name, load(name, replace(sources or DataSources(), offline=True)))
    except BenchmarkError:
        return Suite(name, absent=f"the data of {name} is not here (`check {name}` fetches it)")


class Fields:
    """The fields of one object of a file, each as what it should be or a UsageError that says."""

    def __init__(self, found: Any, where: str) -> None:
        if not isinstance(found, Mapping):
            raise UsageError(f"{where}: expected an object, found {shown(found)}")
        self.found, self.where = found, where

    def wrong(self, name: str, expected: str) -> UsageError:
        """The error that `name` is not what was expected."""
        found = shown(self.found[name]) if name in self.found else "nothing"
        return UsageError(f"{self.where}: {name}: expected {expected}, found {found}")

    def text(self, name: str) -> str | None:
        value = self.found.get(name)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "a string")
        return value

    def needed(self, name: str) -> str:
        """A string that has to be there."""
        value = self.found.get(name)
        if not isinstance(value, str):
            raise self.wrong(name, "a string")
        return value

    def whole(self, name: str) -> int | None:
        """A whole number of at least 0."""
        value = self.found.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
            raise self.wrong(name, "a whole number of at least 0")
        return value

    def seed(self, name: str) -> int | None:
        """A whole number of any sign; None for anything else, which is no seed of ours."""
        value = self.found.get(name)
        known = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST
        return value if known else None

    def number(self, name: str) -> float | None:
        """A finite number of at least 0."""
        value = self.found.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, "a number")
        if not 0 <= value < MOST or not math.isfinite(value):
            raise self.wrong(name, "a finite number of at least 0")
        return float(value)

    def truth(self, name: str) -> bool | None:
        value = self.found.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def inside(self, name: str) -> Fields:
        """The object under a name; empty where there is none."""
        value = self.found.get(name)
        return Fields({} if value is None else value, f"{self.where}: {name}")

    def several(self, name: str) -> list[Any]:
        """The list under a name; empty where there is none."""
        value = self.found.get(name)
        if value is not None and not isinstance(value, list):
            raise self.wrong(name, "a list")
        return value or []

    def verdict(self, name: str) -> Verdict | None:
        """One of our own verdicts."""
        value = self.found.get(name)
        if value is None:
            return None
        try:
            return Verdict(value)
        except ValueError:
            raise self.wrong(name, f"one of {', '.join(Verdict)}") from None

    def verdicts(self, name: str) -> list[str] | None:
        """Several of our own verdicts, as a list or as the JSON of one."""
        value = self.found.get(name)
        if isinstance(value, str):
            value = parsed(value, f"{self.where}: {name}")
        if value is not None and not (isinstance(value, list) and set(value) <= set(Verdict)):
            raise self.wrong(name, f"a list of {', '.join(Verdict)}")
        return value


def shown(value: Any) -> str:
    """A wrong value as a message shows it: its kind, and its beginning where that helps."""
    kinds: dict[type, str] = {dict: "an object", list: "a list", type(None): "null"}
    return kinds.get(type(value)) or f"{value!r:.{SHOWN}}"


def parsed(text: bytes | str, where: str) -> Any:
    """JSON as data. Raises UsageError with line and column, or a name that an object has twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(name for name, n in Counter(n for n, _ in pairs).items() if n > 1)
            raise UsageError(f"{where}: {shown(twice)} stands twice in one object")
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        at = f"line {error.lineno} column {error.colno}"
        raise UsageError(f"{where}: expected JSON, {error.msg} at {at}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON: {str(error).splitlines()[0][:100]}") from None


def read_bytes(path: Path, most: int = -1) -> bytes:
    """All of a file, or its first bytes. Raises UsageError."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, value) of each line that is not empty. Raises UsageError that names the line."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    where = f"{path}:{number}"
                    yield where, parsed(line, where)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error


def short(text: str) -> str:
    """A reason as a row shows it."""
    return text if len(text) <= DETAIL else f"{text[: DETAIL - 1]}…"


def folded(verdicts: Sequence[Verdict | None]) -> Verdict | None:
    """What several suites come to: the first that is not passed; None where none is known."""
    known = [v for v in verdicts if v is not None]
    return next((v for v in known if not v.solved), known[0] if known else None)
