"""What rounds bring: feedback and hidden score of the best program so far, round by round.

Pure functions over records of a run (`round`, `hidden`, `call`), whatever the method: a round of
best-of-n is a draw. The program that feedback picks looks better by that feedback than it is, the
more so the more there were to pick from (the winner's curse): `gap` is by how much.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]
BEST_OF_N = "best-of-n"  # the method that those working in rounds are set beside


@dataclass(frozen=True)
class Round:
    """All samples of a run after one more round; shares in [0, 1], None where nothing is known.

    A sample that ended earlier counts with what it had by then.
    """

    number: int
    samples: int  # that came this far
    designed: bool  # their programs come from workflows
    ran: float  # share of them whose workflow gave an answer
    other: float  # share that gave one, and is not the template
    feedback: float | None  # mean feedback score of the round's own programs
    best: float | None  # mean of the best feedback score so far
    passes: float | None  # share of samples whose best program so far passes all feedback tests
    hidden: float | None  # share whose best program so far passes all hidden tests
    gap: float | None  # `passes` less `hidden`, over the samples where both are known
    calls: float | None  # model calls of a sample up to here; None where no call is recorded


@dataclass
class _Sample:
    """What one sample had after some round."""

    score: float | None = None  # the best feedback score so far
    chosen: Record | None = None  # the round whose program is the best so far
    key: tuple[bool, float] = (False, -2.0)
    calls: int = 0

    def add(self, record: Record) -> None:
        score = record.get("score")
        if score is not None:
            self.score = score if self.score is None else max(self.score, score)
        key = (record.get("code_sha") is not None, -1.0 if score is None else score)
        if key > self.key:  # the earliest of equals stays
            self.chosen, self.key = record, key

    @property
    def passes(self) -> bool | None:
        """Whether the chosen program passes every feedback test; None where there is none."""
        if self.score is None or self.chosen is None:
            return None
        scores = [s for s in self.chosen.get("scores") or () if isinstance(s, int | float)]
        return bool(max([*scores, self.chosen.get("score") or 0.0]) >= 1.0 and self.key[0])

    def solved(self, hidden: Mapping[int, str | None]) -> bool | None:
        """Whether the chosen program passes every hidden test; None where that is not known."""
        if self.chosen is None:
            return None
        if not self.key[0]:  # no round gave a program
            return False
        verdict = hidden.get(self.chosen["round"])
        return None if verdict in (None, "invalid") else verdict == "passed"


def rounds_of(records: Iterable[Record]) -> list[Round]:
    """The rounds of a run, first to last; empty for a method without rounds.

    `records` in the order of the journal: of a round's several, the last one holds. A `call` may
    stand for several of its round, with their `count`.
    """
    made: dict[str, dict[int, Record]] = {}
    verdicts: dict[str, dict[int, str | None]] = {}
    calls: dict[str, dict[int, int]] = {}
    for record in records:
        number, key = record.get("round"), str(record.get("result_key"))
        if not isinstance(number, int):
            continue
        if record["kind"] == "round":
            made.setdefault(key, {})[number] = record
        elif record["kind"] == "hidden":
            verdicts.setdefault(key, {})[number] = record.get("verdict")
        elif record["kind"] == "call" and record.get("error") is None:
            of_key = calls.setdefault(key, {})
            of_key[number] = of_key.get(number, 0) + record.get("count", 1)
    samples: dict[str, _Sample] = {}
    found = []
    counted: dict[str, int] = dict.fromkeys(made, -1)  # up to which round calls are counted
    for number in sorted({number for of_key in made.values() for number in of_key}):
        here = {key: of_key[number] for key, of_key in made.items() if number in of_key}
        for key, record in here.items():
            sample = samples.setdefault(key, _Sample())
            sample.add(record)
            upto = counted[key]
            sample.calls += sum(n for at, n in calls.get(key, {}).items() if upto < at <= number)
            counted[key] = number
        found.append(_after(number, here, samples, verdicts, counts=bool(calls)))
    return found


def _after(
    number: int,
    here: Mapping[str, Record],
    samples: Mapping[str, _Sample],
    verdicts: Mapping[str, Mapping[int, str | None]],
    *,
    counts: bool,
) -> Round:
    scores = [r["score"] for r in here.values() if r.get("score") is not None]
    ran = [r.get("error") is None for r in here.values()]
    other = [r.get("error") is None and not r.get("same_as_template") for r in here.values()]
    passes = {key: sample.passes for key, sample in samples.items()}
    solved = {
        key: sample.solved(verdicts.get(key, {})) if verdicts else None
        for key, sample in samples.items()
    }
    both = [key for key in samples if passes[key] is not None and solved[key] is not None]
    gaps = [float(passes[key] or False) - float(solved[key] or False) for key in both]
    return Round(
        number=number,
        samples=len(here),
        designed=any(r.get("workflow_sha") or r.get("same_as_template") for r in here.values()),
        ran=sum(ran) / len(here),
        other=sum(other) / len(here),
        feedback=_mean(scores),
        best=_mean(sample.score for sample in samples.values()),
        passes=_mean(passes.values()),
        hidden=_mean(solved.values()),
        gap=_mean(gaps),
        calls=_mean(sample.calls for sample in samples.values()) if counts else None,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def at_calls(rounds: Sequence[Round], calls: float | None) -> Round | None:
    """The last round that a sample reaches with so many calls; None where it takes more."""
    if calls is None:
        return None
    within = [one for one in rounds if one.calls is not None and one.calls <= calls + 1e-9]
    return within[-1] if within else None
