"""`replay/FILE`: answers from recorded calls, for nothing.

FILE is the folder of a run, one segment of its journal (`harness/journal.py`), or JSON lines of
one's own, one call each:

    {"messages": [{"role": "user", "content": "..."}], "response": "...",
     "sampling": {"temperature": 0.0, "max_tokens": 1024}, "seed": 7,
     "prompt_tokens": 12, "completion_tokens": 30, "cost_usd": 0.001}

Only `messages` and `response` are needed. Beside those shown a line may hold `cached_tokens`,
`reasoning_tokens`, `finish`, `model`, and what the call was for: `problem_id`, `sample`, `role`,
`occurrence`.

A request gets the answer recorded for its messages, sampling and seed, whichever model gave it; a
line without sampling or seed answers any. Of several, the one recorded for the same problem,
sample, role and occurrence answers. Where none was, they answer in their order: of problem, sample
and occurrence, or of the file; the n-th (sample + occurrence) gets the n-th, and the last repeats.
So an answer depends on the request alone, in every process.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import RequestRejected, UsageError
from harness.models import wire
from harness.types import About, Completion, Message, Model, Sampling

_SIMULATED = ("sim/", "scripted/")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return wire.tokens(value) is not None


def _is_usd(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < math.inf


_EXPECTED: Mapping[str, tuple[Callable[[Any], bool], str]] = {  # what a line may say, beside a chat
    "seed": (_is_count, "a whole number"),
    "prompt_tokens": (_is_count, "a number of tokens"),
    "completion_tokens": (_is_count, "a number of tokens"),
    "cached_tokens": (_is_count, "a number of tokens"),
    "reasoning_tokens": (_is_count, "a number of tokens"),
    "finish": (_is_text, "a text"),
    "model": (_is_text, "a text"),
    "cost_usd": (_is_usd, "dollars"),
    "problem_id": (_is_text, "a text"),
    "sample": (_is_count, "a whole number"),
    "role": (_is_text, "a text"),
    "occurrence": (_is_count, "a whole number"),
}
_KEYS = {"messages", "response", "sampling", *_EXPECTED}


def open_replay(spec: str) -> ReplayModel:
    """The model of `replay/FILE`. Reads the recording.

    Raises UsageError: no such file, no call in it, or a damaged line before its last.
    """
    path = Path(spec.removeprefix("replay/")).expanduser()
    simulated = _is_simulated((path if path.is_dir() else path.parent) / "run.json")
    if path.is_dir():
        files = sorted(p for p in path.glob("*.jsonl") if p.stem.isdigit())
    else:
        files = [path] if path.is_file() else []
    if not files:
        found = "a folder without journal segments" if path.is_dir() else "not there"
        raise UsageError(f"{spec}: {path} is {found}: expected a run's folder or a .jsonl file")
    digest = hashlib.sha256()
    recordings: list[_Recording] = []
    for file in files:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise UsageError(f"{file}: cannot read recorded calls: {error.strerror}") from error
        digest.update(content)
        recordings += _read(content, file, simulated=simulated)
    if not recordings:
        raise UsageError(f"{spec}: no recorded answer in {path}")
    return ReplayModel(spec, recordings, digest.hexdigest())


@dataclass(frozen=True)
class _Recording:
    """One answered call."""

    messages: str  # digest
    sampling: dict[str, Any] | None  # None: any
    seed: int | None
    any_seed: bool
    about: About | None  # what it was for, where that is known
    simulated: bool
    usd: float | None  # what it cost when it was paid for
    completion: Completion


class ReplayModel(Model):
    """Recorded calls behind the interface of a model."""

    connections = 64
    most_connections = 256
    repeats = True
    cacheable = False  # it is a cache
    recorded = True

    def __init__(self, name: str, recordings: Sequence[_Recording], sha256: str) -> None:
        self.name = name
        self._sha256 = sha256
        self.simulated = any(one.simulated for one in recordings)
        self.samples_always = all("temperature" in one.completion.ignored for one in recordings)
        self._prices = {one.completion: one.usd for one in recordings}
        self._by_messages: defaultdict[str, list[_Recording]] = defaultdict(list)
        for one in recordings:
            self._by_messages[one.messages].append(one)
        self._asked: Counter[tuple[str, str]] = Counter()  # that do not say what they are for

    def identity(self) -> dict[str, Any]:
        """Digest of what was recorded, and whether a simulated model gave some of it."""
        return {"name": self.name, "sha256": self._sha256, "simulated": self.simulated}

    def price(self, completion: Completion) -> float | None:
        """Dollars that this answer cost when it was recorded; None where that is unknown.

        Nothing is paid now: `recorded` says so.
        """
        return self._prices.get(completion)

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        seed: int | None = None,
        about: About | None = None,
    ) -> Completion:
        """The recorded answer. Raises RequestRejected when there is none."""
        asked, settings = _digest(messages), sampling.as_dict()
        same = self._by_messages.get(asked, [])
        alike = [one for one in same if one.sampling in (None, settings)]
        fitting = [one for one in alike if one.any_seed or one.seed == seed]
        if not fitting:
            raise RequestRejected(f"{self.name}: {_why(same, alike, settings, seed)}")
        exact = [one for one in fitting if about is not None and one.about == about]
        if exact:
            return exact[-1].completion
        if about is None:
            key = asked, json.dumps([settings, seed])
            place = self._asked[key]
            self._asked[key] += 1
        else:
            place = about.sample + about.occurrence
        ordered = sorted(fitting, key=_order)
        return ordered[min(place, len(ordered) - 1)].completion

    async def close(self) -> None:
        pass


def _order(one: _Recording) -> tuple[bool, str, int, int]:
    about = one.about
    if about is None:
        return (False, "", 0, 0)  # sorting leaves these as they stand in the file
    return (True, about.problem_id, about.sample, about.occurrence)


def _why(
    same: Sequence[_Recording],
    alike: Sequence[_Recording],
    settings: Mapping[str, Any],
    seed: int | None,
) -> str:
    if not same:
        return "no answer to this request was recorded; record it with the model itself"
    if not alike:
        recorded = json.dumps(same[0].sampling)
        return f"recorded with the sampling {recorded}, asked with {json.dumps(settings)}"
    return f"recorded with the seed {alike[0].seed}, asked with {seed}: run with the same --seed"


def _digest(messages: Sequence[Mapping[str, Any]]) -> str:
    turns = [[message["role"], message["content"]] for message in messages]
    return hashlib.sha256(json.dumps(turns).encode()).hexdigest()


def _is_simulated(head: Path) -> bool:
    """Whether run.json says so, of the run or of a role; False where there is none.

    A replay of a replay of a simulation names no simulated model in its calls.
    """
    try:
        found = json.loads(head.read_bytes())
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{head}: cannot read the run of these calls: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{head}: cannot read the run of these calls: expected an object")
    made = wire.part(found, "roles")
    roles = [wire.part(made, role) for role in made]
    return found.get("kind") == "simulated" or any(
        _is_no_model(role.get("model")) or bool(wire.part(role, "identity").get("simulated"))
        for role in roles
    )


def _is_no_model(name: object) -> bool:
    return str(name).startswith(_SIMULATED)


def _read(content: bytes, path: Path, *, simulated: bool) -> Iterator[_Recording]:
    """The answered calls of one file. A last line that was torn is left out."""
    texts: dict[str, str] = {}  # by SHA-256
    lines = content.splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                return
            raise UsageError(f"{where}: damaged: {error}; take the line out") from error
        kind = record.get("kind") if isinstance(record, dict) else None
        try:
            if kind == "artifact":
                texts[record["sha256"]] = record["text"]
            elif kind == "call":
                if record["error"] is None:
                    yield _from_journal(record, texts, simulated=simulated)
            elif kind is None:
                yield _from_line(record)
        except (KeyError, TypeError, ValueError) as error:
            words = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UsageError(f"{where}: no recorded call: {words}") from error


def _from_journal(
    record: Mapping[str, Any], texts: Mapping[str, str], *, simulated: bool
) -> _Recording:
    """A `call` record of a run that is `simulated` or not. Raises KeyError, TypeError, ValueError.

    Where the run does not tell, the call does: by the model asked, and by the one that answered.
    """

    def text(which: str) -> str:
        sha = record[which]
        if sha not in texts:
            raise ValueError(f"the text {sha} is missing: its line was lost")
        return texts[sha]

    asked = json.loads(text("request_sha"))
    occurrence = record.get("occurrence", 0)
    return _Recording(
        messages=_digest(asked["messages"]),
        sampling=_sampling(asked["sampling"]),
        seed=record["seed"],
        any_seed=False,
        about=About(record["problem_id"], record["sample"], record["role"], occurrence),
        simulated=simulated
        or _is_no_model(record["model"])
        or _is_no_model(record.get("served_by")),
        usd=record["fresh_cost_usd"] if record.get("cached") else record["cost_usd"],
        completion=_completion(text("response_sha"), record, record.get("served_by")),
    )


def _from_line(record: Any) -> _Recording:
    """A line of one's own. Raises KeyError or ValueError that says what is wrong with it."""
    if not isinstance(record, dict):
        raise ValueError("expected an object with messages and response")
    unknown = record.keys() - _KEYS
    if unknown:
        raise ValueError(
            f"unknown {', '.join(sorted(unknown))}; known are {', '.join(sorted(_KEYS))}"
        )
    messages, response = record["messages"], record["response"]
    turns = messages if isinstance(messages, list) else []
    if not turns or not all(
        isinstance(turn, dict)
        and isinstance(turn.get("role"), str)
        and isinstance(turn.get("content"), str)
        for turn in turns
    ):
        raise ValueError("messages: expected a list of {role, content}")
    if not isinstance(response, str):
        raise ValueError("response: expected a text")
    for key, (fits, expected) in _EXPECTED.items():
        if record.get(key) is not None and not fits(record[key]):
            raise ValueError(f"{key}: expected {expected}, found {record[key]!r}")
    about = None
    if record.get("problem_id") is not None:
        about = About(
            record["problem_id"],
            record.get("sample") or 0,
            record.get("role") or "worker",
            record.get("occurrence") or 0,
        )
    return _Recording(
        messages=_digest(turns),
        sampling=_sampling(record["sampling"]) if "sampling" in record else None,
        seed=record.get("seed"),
        any_seed="seed" not in record,
        about=about,
        simulated=_is_no_model(record.get("model")),
        usd=record.get("cost_usd"),
        completion=_completion(wire.clean(response), record, record.get("model")),
    )


def _completion(text: str, record: Mapping[str, Any], model: str | None) -> Completion:
    return Completion(
        text,
        prompt_tokens=record.get("prompt_tokens"),
        completion_tokens=record.get("completion_tokens"),
        cached_tokens=record.get("cached_tokens"),
        reasoning_tokens=record.get("reasoning_tokens"),
        finish=record.get("finish"),
        model=model,
        ignored=tuple(record.get("ignored", ())),
    )


def _sampling(found: Any) -> dict[str, Any]:
    """Settings with those left out at their defaults. Raises ValueError for an unknown one."""
    try:
        return Sampling(**found).as_dict()
    except TypeError:
        known = ", ".join(Sampling.__dataclass_fields__)
        raise ValueError(f"sampling: expected some of {known}, found {found!r}") from None
