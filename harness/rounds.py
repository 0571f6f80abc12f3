"""What rounds bring: feedback and hidden score of the best program so far, round by round.

Pure functions over records of a run (`round`, `hidden`, `call`), whatever the method: a round of
best-of-n is a draw. The program that feedback picks looks better by that feedback than it is, the
more so the more there were to pick from (the winner's curse): `gap` is by how much.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Unit = Literal["calls", "tokens", "usd"]  # by what methods are made equal
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
    best: float | None  # mean of the best feedback score of a round so far
    passes: float | None  # share of samples whose best program so far passes all feedback tests
    hidden: float | None  # share whose best program so far passes all hidden tests
    gap: float | None  # `passes` less `hidden`, over the samples where both are known
    calls: float | None  # model calls of a sample up to here; None where no call is recorded
    tokens: float | None = None  # of these calls; None as soon as one's are not known
    usd: float | None = None  # their price where no reply is kept
    about: bool = False  # some of it was made for and judged on a problem that is not the sample's


@dataclass
class _Spent:
    """What answered calls took; None as soon as a part is not known."""

    calls: int = 0
    tokens: float | None = 0.0
    usd: float | None = 0.0

    def add(self, calls: int, tokens: float | None, usd: float | None) -> None:
        self.calls += calls
        self.tokens = None if self.tokens is None or tokens is None else self.tokens + tokens
        self.usd = None if self.usd is None or usd is None else self.usd + usd


@dataclass
class _Sample:
    """What one sample had after some round."""

    score: float | None = None  # the best feedback score of a round so far
    chosen: Record | None = None  # the round of the best program so far
    key: tuple[bool, float] = (False, -2.0)
    spent: _Spent = field(default_factory=_Spent)

    def add(self, record: Record) -> None:
        score = record.get("score")
        if score is not None:
            self.score = score if self.score is None else max(self.score, score)
        key = (record.get("code_sha") is not None, _best(record))
        if key > self.key:  # the earliest of equals stays
            self.chosen, self.key = record, key

    @property
    def passes(self) -> bool | None:
        """Whether the chosen program passes every feedback test; None where there is none."""
        if self.score is None or self.chosen is None:
            return None
        return _best(self.chosen) >= 1.0 and self.key[0]

    def solved(self, hidden: Mapping[int, str | None]) -> bool | None:
        """Whether the chosen program passes every hidden test; None where that is not known."""
        if self.chosen is None:
            return None
        if not self.key[0]:  # no round gave a program
            return False
        verdict = hidden.get(self.chosen["round"])
        return None if verdict in (None, "invalid") else verdict == "passed"


def _best(record: Record) -> float:
    """The feedback score of a round's program, the best of its runs'; -1 where it has none."""
    if record.get("score") is None:
        return -1.0
    scores = [s for s in record.get("scores") or () if isinstance(s, int | float)]
    return float(max([*scores, record["score"]]))


def rounds_of(records: Iterable[Record]) -> list[Round]:
    """The rounds of a run, first to last; empty for a method without rounds.

    `records` in the order of the journal: of a round's several, the last one holds. A `call` may
    stand for several of its round, with their `count` and the sums of what they took.
    """
    made: dict[str, dict[int, Record]] = {}
    verdicts: dict[str, dict[int, str | None]] = {}
    spent: dict[str, dict[int, _Spent]] = {}
    for record in records:
        number, key = record.get("round"), str(record.get("result_key"))
        if not isinstance(number, int):
            continue
        if record["kind"] == "round":
            made.setdefault(key, {})[number] = record
        elif record["kind"] == "hidden":
            verdicts.setdefault(key, {})[number] = record.get("verdict")
        elif record["kind"] == "call" and record.get("error") is None:
            both = record.get("prompt_tokens"), record.get("completion_tokens")
            tokens = None if None in both else sum(n for n in both if n is not None)
            here = spent.setdefault(key, {}).setdefault(number, _Spent())
            here.add(record.get("count", 1), tokens, record.get("fresh_cost_usd"))
    samples: dict[str, _Sample] = {}
    found = []
    counted: dict[str, int] = dict.fromkeys(made, -1)  # up to which round calls are counted
    for number in sorted({number for of_key in made.values() for number in of_key}):
        came = {key: of_key[number] for key, of_key in made.items() if number in of_key}
        for key, record in came.items():
            sample = samples.setdefault(key, _Sample())
            sample.add(record)
            for at, took in spent.get(key, {}).items():
                if counted[key] < at <= number:
                    sample.spent.add(took.calls, took.tokens, took.usd)
            counted[key] = number
        found.append(_after(number, came, samples, verdicts, counts=bool(spent)))
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
        calls=_mean(sample.spent.calls for sample in samples.values()) if counts else None,
        tokens=_whole(sample.spent.tokens for sample in samples.values()) if counts else None,
        usd=_whole(sample.spent.usd for sample in samples.values()) if counts else None,
        about=any(record.get("about") is not None for record in here.values()),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _whole(values: Iterable[float | None]) -> float | None:
    """The mean of all; None as soon as one is not known."""
    found = list(values)
    return None if None in found else _mean(found)


def price_unit(rounds: Sequence[Round]) -> Unit | None:
    """What rounds are priced in: dollars, tokens where all was free or a price is not known."""
    if all(one.usd is not None for one in rounds) and any(one.usd for one in rounds):
        return "usd"
    return "tokens" if rounds and all(one.tokens is not None for one in rounds) else None


def within(rounds: Sequence[Round], most: float | None, unit: Unit = "calls") -> Round | None:
    """The last round that a sample reaches with so much; None where it takes more."""
    if most is None:
        return None
    found = [one for one in rounds if (took := getattr(one, unit)) is not None
             and took <= most * (1 + 1e-9)]  # fmt: skip
    return found[-1] if found else None
