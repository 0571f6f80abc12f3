"""What happened in a sample, in order: its records as stages, each with what it took.

Pure functions from a `harness.store.Trajectory` (texts not needed) to a `Timeline`, whatever the
method: a stage is a round of a method that works in rounds, or what lies before, between or after
them; a method without rounds has one stage. Costs are US dollars, times seconds, scores shares in
[0, 1]; None is unknown, and a sum with an unknown part is unknown.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from harness.store import Trajectory

Record = Mapping[str, Any]
Place = Literal["round", "before", "after", "alone"]
Number = TypeVar("Number", int, float)

BOOKKEEPING = {"kind", "at", "run_no", "segment", "logged_at", "result_key", "problem_id",
               "sample", "round", "about"}  # fmt: skip
# fields of a note that say where it stands, not what it says
ORDER = {"call": 0, "workflow": 1, "feedback": 2, "round": 3, "note": 4}  # in one millisecond
_LINE = re.compile(r"\(line (\d{1,7})\)\s*$")
_TAGS = re.compile(r"<(/?)(?:think|thinking|reasoning)>", re.IGNORECASE)


@dataclass(frozen=True)
class Spent:
    """What some answered calls took. Failed attempts are counted, and in no sum."""

    calls: int = 0
    failed: int = 0  # attempts without an answer
    cached: int = 0  # calls answered without paying
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    fresh_cost_usd: float | None = 0.0  # the price where no reply is kept
    cost_usd: float | None = 0.0  # what was paid
    model_s: float | None = 0.0  # latencies, one after the other; of kept replies, as first paid

    @property
    def tokens(self) -> int | None:
        """Prompt and completion."""
        return _plus(self.prompt_tokens, self.completion_tokens)

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.calls + other.calls,
            self.failed + other.failed,
            self.cached + other.cached,
            _plus(self.prompt_tokens, other.prompt_tokens),
            _plus(self.completion_tokens, other.completion_tokens),
            _plus(self.fresh_cost_usd, other.fresh_cost_usd),
            _plus(self.cost_usd, other.cost_usd),
            _plus(self.model_s, other.model_s),
        )


@dataclass(frozen=True)
class Call:
    """One request to a model; a failed attempt too."""

    number: int | None  # 1-based, of the sample
    attempt: int  # 1-based
    role: str
    model: str
    operator: str | None  # of the workflow, that asked
    output_format: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None  # of the prompt, by the provider's cache
    reasoning_tokens: int | None  # of the completion
    fresh_cost_usd: float | None
    cost_usd: float | None
    latency_s: float | None
    cached: bool  # answered without paying
    finish: str | None
    error: str | None
    error_kind: str | None
    about: str | None  # the problem that it was made at, where that is not the sample's own
    temperature: float | None
    seed: int | None
    max_tokens: int | None
    request_sha: str | None
    response_sha: str | None
    wrote: bool = False  # its reply is the round's design
    earlier: bool = False  # made by an earlier try, whose reply the last one took over

    @property
    def spent(self) -> Spent:
        """What this call adds to a sum: a failed attempt is counted, and adds nothing else."""
        if self.error is not None or self.error_kind is not None:
            return Spent(failed=1)
        return Spent(
            1, 0, int(self.cached), self.prompt_tokens, self.completion_tokens,
            self.fresh_cost_usd, self.cost_usd, self.latency_s,
        )  # fmt: skip


@dataclass(frozen=True)
class Feedback:
    """What the feedback tests said of a program."""

    passed: int | None  # tests
    total: int | None
    verdict: str | None
    errors: tuple[str, ...]  # failing tests in words
    code_sha: str | None
    about: str | None
    inside: bool = False  # asked for by an operator, while the workflow ran


@dataclass(frozen=True)
class Step:
    """One operator that a workflow called, with the model calls that it made."""

    operator: str
    calls: tuple[Call, ...]
    several: int = 1  # so many steps of this name share these calls, which cannot be told apart

    @property
    def spent(self) -> Spent:
        return sum((call.spent for call in self.calls), Spent())


@dataclass(frozen=True)
class Execution:
    """One execution of a workflow."""

    steps: tuple[Step, ...]  # operators in the order in which they were called
    told_calls: int | None  # operator calls that reached a model, as the record says
    known: bool  # its calls are those of `steps`; False: they cannot be told from others
    feedback: tuple[Feedback, ...]  # that its operators asked for
    error: str | None
    error_class: str | None
    line: int | None  # 1-based, of the workflow's code, that failed
    answer_sha: str | None
    about: str | None

    @property
    def calls(self) -> Iterator[Call]:
        for step in self.steps:
            yield from step.calls

    @property
    def spent(self) -> Spent:
        return sum((call.spent for call in self.calls), Spent())


@dataclass(frozen=True)
class Note:
    """What a method noted, in its own words."""

    kind: str
    fields: Mapping[str, Any]  # plain data
    texts: tuple[tuple[str, str], ...]  # (name, digest) of its long texts


Event = Call | Execution | Feedback | Note


@dataclass(frozen=True)
class Design:
    """What a round made: a workflow, or a program alone."""

    parent: int | None
    modification: str
    score: float | None  # by feedback
    scores: tuple[float, ...]  # of each run
    error: str | None
    error_class: str | None
    line: int | None  # of the workflow, that failed
    same_as_template: bool | None
    about: str | None
    workflow_sha: str | None
    prompts_sha: str | None
    reply_sha: str | None
    code_sha: str | None


@dataclass(frozen=True)
class Stage:
    """A round, or what lies outside of rounds, with its events in order."""

    place: Place
    number: int | None  # of the round
    designs: tuple[Design, ...]  # one, as a rule; of several, the last one holds
    events: tuple[Event, ...]
    hidden: str | None  # verdict of the round's program on hidden tests
    spent: Spent
    total: Spent  # up to here
    chosen: bool = False  # its program, or workflow, is the sample's answer

    @property
    def design(self) -> Design | None:
        return self.designs[-1] if self.designs else None

    @property
    def score(self) -> float | None:
        return self.design.score if self.design else None

    @property
    def errors(self) -> tuple[str, ...]:
        """What failed in it, each once: of the round, and of executions of its workflow."""
        told = [design.error for design in self.designs]
        told += [event.error for event in self.events if isinstance(event, Execution)]
        return tuple(dict.fromkeys(error for error in told if error))

    @property
    def lines(self) -> tuple[int, ...]:
        """Lines of its workflow that failed, each once."""
        told = [design.line for design in self.designs]
        told += [event.line for event in self.events if isinstance(event, Execution)]
        return tuple(dict.fromkeys(line for line in told if line is not None))

    @property
    def calls(self) -> tuple[Call, ...]:
        """All of its calls, those of executions among them."""
        return tuple(_calls_in(self.events))


@dataclass(frozen=True)
class Timeline:
    """A sample from its first call to its verdict."""

    run_id: str
    problem_id: str
    sample: int
    stages: tuple[Stage, ...]
    result: Record | None  # the last verdict; None: not graded yet
    trial: Record | None  # where it is an attempt of a search: how that ended
    spent: Spent
    earlier: int  # records of earlier tries, left out

    @property
    def rounds(self) -> tuple[Stage, ...]:
        return tuple(stage for stage in self.stages if stage.place == "round")

    @property
    def decisive(self) -> frozenset[int]:
        """Which stages (by their index) a reader has to see first.

        The chosen one, the first with an error, the only one; of an unfinished sample the last.
        """
        if len(self.stages) == 1:
            return frozenset({0})
        failed = [at for at, stage in enumerate(self.stages) if stage.errors]
        kept = set(failed[:1])
        kept |= {at for at, stage in enumerate(self.stages) if stage.chosen}
        if self.result is None and self.trial is None and self.stages:
            kept.add(len(self.stages) - 1)
        return frozenset(kept)


def timeline(found: Trajectory) -> Timeline:
    """The stages of a sample, oldest first, from its records as they were read."""
    last = max((_segment(r) for r in (*found.rounds, *found.workflows, *found.feedback,
                                      *found.notes)), default=None)  # fmt: skip
    replies = {r.get("reply_sha") for r in found.rounds if r.get("reply_sha")}
    trial = next((n for n in reversed(found.notes) if n.get("kind") == "trial"), None)
    records = [("call", r) for r in found.calls] + [("workflow", r) for r in found.workflows]
    records += [("feedback", r) for r in found.feedback] + [("round", r) for r in found.rounds]
    records += [("note", r) for r in found.notes if r is not trial]
    records.sort(key=lambda one: (_segment(one[1]), _moment(one[1]), ORDER[one[0]]))
    hidden = {r.get("round"): r.get("verdict") for r in found.hidden}
    chosen = _chosen(found)
    stages: list[Stage] = []
    total = Spent()
    for place, number, own in _apart(records):
        events = _events(own, replies, last)
        spent = sum((call.spent for call in _calls_in(events)), Spent())
        total = total + spent
        stages.append(
            Stage(
                place,
                number,
                tuple(_design(r) for kind, r in own if kind == "round"),
                events,
                _text(hidden.get(number)) if number is not None else None,
                spent,
                total,
                number is not None and number == chosen,
            )
        )
    return Timeline(
        found.run_id, found.problem_id, found.sample, tuple(stages), found.result, trial, total,
        found.earlier,
    )  # fmt: skip


def split_reasoning(reply: str) -> tuple[str, str]:
    """(reasoning, answer): what stands in think tags, and the rest as `extract` reads it.

    A reply whose opening tag a template swallowed counts as reasoning up to the closing one; an
    unclosed tag is no reasoning. The rest equals `harness.extract.strip_reasoning`.
    """
    kept: list[str] = []
    thoughts: list[str] = []
    start, opened = 0, None
    for tag in _TAGS.finditer(reply):
        if not tag.group(1):
            if opened is None:
                kept.append(reply[start : tag.start()])
                start = opened = tag.start()
            continue
        if opened is None:  # the opening tag is not there
            thoughts = ["".join((*thoughts, *kept, reply[start : tag.start()]))]
            kept.clear()
        else:
            inside = reply[opened : tag.start()]
            thoughts.append(inside[inside.index(">") + 1 :])
        start, opened = tag.end(), None
    return "\n\n".join(part.strip() for part in thoughts if part.strip()), "".join(
        (*kept, reply[start:])
    )


def failed_line(error: str | None) -> int | None:
    """The line of the workflow that an error names at its end, as `WorkflowError` writes it."""
    found = _LINE.search(error or "")
    return (int(found.group(1)) or None) if found else None


def numbered(code: str, line: int, around: int = 2) -> str | None:
    """The lines about a failed one with their numbers, an arrow before it; None: no such line."""
    lines = as_python_reads(code).split("\n")
    if not 1 <= line <= len(lines):
        return None
    shown = range(max(1, line - around), min(len(lines), line + around) + 1)
    width = len(str(shown[-1]))
    return "\n".join(f"{'→' if n == line else ' '} {n:>{width}}  {lines[n - 1]}" for n in shown)


def as_python_reads(code: str) -> str:
    """`code` with the ends of lines that Python counts, so that numbers of lines are right."""
    return code.replace("\r\n", "\n").replace("\r", "\n")


def _apart(
    records: Sequence[tuple[str, Record]],
) -> Iterator[tuple[Place, int | None, list[tuple[str, Record]]]]:
    """(place, round, its records) in the order of rounds; outside of rounds: before and after.

    What lies between rounds counts as after them: no method of ours does anything there.
    """
    rounds: dict[int, list[tuple[str, Record]]] = {}
    before: list[tuple[str, Record]] = []
    after: list[tuple[str, Record]] = []
    for kind, record in records:
        number = record.get("round")
        if kind == "note" and record.get("kind") == "chosen":  # its number is the one it took
            number = None
        if isinstance(number, int):
            rounds.setdefault(number, []).append((kind, record))
        else:
            (after if rounds else before).append((kind, record))
    if before:
        yield "before" if rounds else "alone", None, before
    for number in sorted(rounds):
        yield "round", number, rounds[number]
    if after:
        yield "after", None, after


def _events(
    records: Sequence[tuple[str, Record]], replies: set[Any], last: int | None
) -> tuple[Event, ...]:
    """The events of one stage, calls and feedback inside of the executions that they belong to.

    An execution is noted at its end, so that the operators' calls since the one before are its
    own, if there are as many as it says: several at once cannot be told apart. Tests that were run
    between such calls were asked for by an operator.
    """
    events: list[Event] = []
    waiting: list[Call | Feedback] = []  # of an execution that has not ended
    left = sum(kind == "workflow" for kind, _ in records)  # executions that are yet to come
    for kind, record in records:
        if kind == "call":
            call = _call(record, replies, last)
            (waiting if left and call.operator is not None else events).append(call)
        elif kind == "feedback":
            (waiting if waiting else events).append(_feedback(record))
        elif kind == "workflow":
            left -= 1
            calls = [one for one in waiting if isinstance(one, Call)]
            asked = tuple(replace(o, inside=True) for o in waiting if isinstance(o, Feedback))
            own = len({call.number for call in calls}) == record.get("calls")
            if not own:
                events += calls
            events.append(_execution(record, calls if own else [], asked, known=own))
            waiting = []
        elif kind == "note":
            events.append(_note(record))
    return (*events, *waiting)


def _execution(
    record: Record, calls: Sequence[Call], feedback: tuple[Feedback, ...], *, known: bool
) -> Execution:
    operators = _texts(record.get("operators"))
    error = _text(record.get("error"))
    steps = _steps(operators, sorted(calls, key=lambda c: (c.number or 0, c.attempt)))
    return Execution(
        steps, _whole(record.get("calls")), known, feedback, error,
        _text(record.get("error_class")), failed_line(error), _text(record.get("answer_sha")),
        _text(record.get("about")),
    )  # fmt: skip


def _steps(operators: Sequence[str], calls: Sequence[Call]) -> tuple[Step, ...]:
    """Operators in order, with their calls: one each, or all of the only step of a name.

    Where a name has several steps and another number of calls, its first step holds them all and
    says so. Calls of an operator that is not listed follow at the end.
    """
    of_name: dict[str, dict[int | None, list[Call]]] = {}
    for call in calls:
        attempts = of_name.setdefault(call.operator or "", {})
        attempts.setdefault(call.number, []).append(call)
    found: list[Step] = []
    seen: dict[str, int] = {}
    for name in operators:
        number, steps = seen.get(name, 0), operators.count(name)
        seen[name] = number + 1
        made = list(of_name.get(name, {}).values())
        if len(made) == steps:
            found.append(Step(name, tuple(made[number])))
        elif number == 0:
            every = tuple(call for attempts in made for call in attempts)
            found.append(Step(name, every, steps if made else 1))
        else:
            found.append(Step(name, (), steps if made else 1))
    found += [
        Step(name, tuple(call for attempts in made.values() for call in attempts))
        for name, made in of_name.items()
        if name not in seen
    ]
    return tuple(found)


def _call(record: Record, replies: set[Any], last: int | None) -> Call:
    names = {name: record.get(name) for name in Call.__dataclass_fields__ if name in record}
    fresh = record.get("fresh_cost_usd", record.get("cost_usd"))
    told = {
        "number": record.get("call_no"),
        "attempt": record.get("attempt") or 1,
        "role": str(record.get("role") or "unknown"),
        "model": str(record.get("model") or "unknown"),
        "cached": bool(record.get("cached")),
        "fresh_cost_usd": fresh,
        "wrote": record.get("response_sha") is not None and record["response_sha"] in replies,
        "earlier": last is not None and _segment(record) < last,
    }
    empty = dict.fromkeys(Call.__dataclass_fields__)
    return Call(**{**empty, **names, **told})


def _feedback(record: Record) -> Feedback:
    return Feedback(
        _whole(record.get("passed")), _whole(record.get("total")), _text(record.get("verdict")),
        tuple(_texts(record.get("errors"))), _text(record.get("code_sha")),
        _text(record.get("about")),
    )  # fmt: skip


def _note(record: Record) -> Note:
    texts = [(name.removesuffix("_sha"), value) for name, value in record.items()
             if name.endswith("_sha") and isinstance(value, str)]  # fmt: skip
    fields = {
        name: value
        for name, value in record.items()
        if name not in BOOKKEEPING and not name.endswith("_sha") and value is not None
    }
    return Note(str(record.get("kind")), fields, tuple(texts))


def _design(record: Record) -> Design:
    error = _text(record.get("error"))
    scores = record.get("scores")
    return Design(
        _whole(record.get("parent")),
        str(record.get("modification") or ""),
        record.get("score"),
        tuple(s for s in (scores if isinstance(scores, list) else ())
              if isinstance(s, int | float) and not isinstance(s, bool)),
        error,
        _text(record.get("error_class")),
        failed_line(error),
        record.get("same_as_template"),
        _text(record.get("about")),
        *(_text(record.get(f"{name}_sha")) for name in ("workflow", "prompts", "reply", "code")),
    )  # fmt: skip


def _chosen(found: Trajectory) -> int | None:
    """The round whose program, or workflow, is the answer: as the method noted it, else the best
    by feedback (the earliest of equals) of those with the solution's text; None where none has it.
    """
    for note in reversed(found.notes):
        if note.get("kind") == "chosen" and isinstance(note.get("round"), int):
            return int(note["round"])
    solution = (found.result or {}).get("solution_sha")
    same = [r for r in found.rounds if solution is not None and r.get("code_sha") == solution
            and isinstance(r.get("round"), int)]  # fmt: skip
    best = max(same, key=lambda r: (_best(r), -r["round"]), default=None)
    return None if best is None else int(best["round"])


def _best(record: Record) -> float:
    scores = [*_design(record).scores, record.get("score")]
    return max((float(s) for s in scores if s is not None), default=-1.0)


def _calls_in(events: Iterable[Event]) -> Iterator[Call]:
    for event in events:
        if isinstance(event, Call):
            yield event
        elif isinstance(event, Execution):
            yield from event.calls


def _segment(record: Record) -> int:
    return int(record.get("segment") or 0)


def _moment(record: Record) -> float:
    at = record.get("logged_at", record.get("at"))
    return float(at) if isinstance(at, int | float) and math.isfinite(at) else 0.0


def _plus(one: Number | None, other: Number | None) -> Number | None:
    return None if one is None or other is None else one + other


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _texts(value: Any) -> list[str]:
    """A list of texts, whatever JSON stands there."""
    if value is None:
        return []
    if isinstance(value, list):
        return [one if isinstance(one, str) else json.dumps(one) for one in value]
    return [value if isinstance(value, str) else json.dumps(value)]
