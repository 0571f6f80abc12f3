"""A run's rounds as a table: what feedback said, what hidden tests say, and best-of-n beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import StoreError
from harness.journal import last_results
from harness.metrics import count, dollars, percent
from harness.page import line, table
from harness.rounds import BEST_OF_N, Record, Round, Unit, price_unit, rounds_of, within
from harness.show_sample import records_of
from harness.store import UNGRADED, named_in, ranking, read_run_json

if TYPE_CHECKING:
    from rich.console import Console

WORDS: dict[Unit, str] = {"calls": "calls", "tokens": "tokens", "usd": "dollars"}
ELSEWHERE = (
    "these rounds are of other problems: what they made for one was then run on another, "
    "which alone is in the score"
)
KINDS = ("round", "hidden", "call", "result", "verdict")
NOTE = (
    "all feedback, all hidden: samples whose best program so far, as feedback has it, passes all "
    "of these tests; gap: the first less the second in points, where both are known"
)


def print_rounds(console: Console, run_dir: Path, head: Mapping[str, Any]) -> None:
    """For methods that work in rounds: what became of each, and what its feedback was worth."""
    records = _kept(run_dir)
    rounds = rounds_of(records)
    if not rounds:
        return
    rival = _best_of_n(run_dir, head, problems_of(records))
    table(console, "rounds", *round_table(rounds, rival and rival[1]))
    for said in round_notes(rounds, head.get("method"), rival):
        line(console, said, style="dim")


def round_table(
    rounds: Sequence[Round], rival: Sequence[Round] | None = None
) -> tuple[list[str], list[list[str]]]:
    """(names, rows), what matters most first: hidden scores only where they are known.

    `rival` stands beside them where it takes no more calls, and where it costs no more.
    """
    designed = any(one.designed for one in rounds)
    graded = any(one.hidden is not None for one in rounds)
    counted = any(one.calls is not None for one in rounds)
    units: list[Unit] = ["calls"] if counted else []
    units += [unit] if (unit := price_unit(rounds)) else []
    columns: list[tuple[str, Callable[[Round], str]]] = [("round", lambda one: str(one.number))]
    if graded:
        columns += [("all hidden", lambda one: _share(one.hidden)),
                    ("gap", lambda one: points(one.gap))]  # fmt: skip
    if graded and rival:
        columns += [(f"{BEST_OF_N}, equal {WORDS[unit]}", _beside(rival, unit)) for unit in units]
    if graded:
        columns += [("all feedback", lambda one: _share(one.passes, "no test"))]
    columns += [("feedback", lambda one: _share(one.feedback, "no test")),
                ("best so far", lambda one: _share(one.best, "no test"))]  # fmt: skip
    columns += [(WORDS[unit], _taken(unit)) for unit in units]
    columns += [("workflows" if designed else "samples", lambda one: str(one.samples))]
    if designed:
        columns += [("ran", lambda one: f"{percent(one.ran, 0)} %"),
                    ("other than template", lambda one: f"{percent(one.other, 0)} %")]  # fmt: skip
    return [name for name, _ in columns], [[cell(one) for _, cell in columns] for one in rounds]


def _taken(unit: Unit) -> Callable[[Round], str]:
    """What a sample took up to a round, in words."""
    said = dollars if unit == "usd" else count
    return lambda one: said(getattr(one, unit))


def _beside(rival: Sequence[Round], unit: Unit) -> Callable[[Round], str]:
    """What the rival had where it took no more."""

    def cell(one: Round) -> str:
        if getattr(one, unit) is None:
            return "unknown"
        equal = within(rival, getattr(one, unit), unit)
        return f"{_share(equal.hidden)} at {_taken(unit)(equal)}" if equal else "none"

    return cell


def round_notes(
    rounds: Sequence[Round], method: object, rival: tuple[str, Sequence[Round]] | None
) -> list[str]:
    """What a reader of the table has to know; `rival` is the run of best-of-n beside it."""
    notes = [ELSEWHERE] if any(one.about for one in rounds) else []
    if any(one.hidden is not None for one in rounds):
        notes += [NOTE, rival_note(method, rival and rival[0])]
    return notes


def rival_note(method: object, rival: str | None) -> str:
    """What stands in the columns of best-of-n, or why there is none."""
    if rival is not None:
        return f"best-of-n: all hidden of {rival}, where a sample takes no more than here"
    if method == BEST_OF_N:
        return "each round is one more draw; the best so far is the answer had it ended there"
    return "best-of-n at equal calls: no such run on these problems with this worker, here"


def problems_of(records: Iterable[Record]) -> frozenset[str]:
    """The problems that have a verdict."""
    return frozenset(
        str(r["problem_id"])
        for r in last_results(dict(record) for record in records).values()
        if r.get("verdict") not in UNGRADED
    )


def points(gap: float | None) -> str:
    """A difference of shares in percentage points, with its sign."""
    return "unknown" if gap is None else f"{'+' if gap > 0 else ''}{percent(gap)}"


def _share(value: float | None, unknown: str = "unknown") -> str:
    return unknown if value is None else f"{percent(value)} %"


def _kept(run_dir: Path) -> list[Record]:
    return [record for _, record in records_of(run_dir) if record["kind"] in KINDS]


def _best_of_n(
    run_dir: Path, head: Mapping[str, Any], problems: frozenset[str]
) -> tuple[str, list[Round]] | None:
    """(name, rounds) of a best-of-n run beside this one that may be compared with it.

    It shares the ranking and the worker, and has a verdict on each of the problems, on which it is
    looked at; of several, the one of the most draws, and of these the newest.
    """
    if head.get("method") == BEST_OF_N or not problems:
        return None
    found = []
    for other in sorted(p for p in run_dir.parent.iterdir() if (p / "run.json").is_file()):
        try:
            told = read_run_json(other)
        except StoreError:
            continue  # `list runs` says so
        if told.get("method") != BEST_OF_N or told.get("stage") == "fit":
            continue
        if ranking(told) != ranking(head) or _worker(told) != _worker(head):
            continue
        records = _kept(other)
        if problems <= problems_of(records):
            rounds = rounds_of(r for r in records if r.get("problem_id") in problems)
            name = f"{named_in(told)} ({other.name})"
            found.append((len(rounds), told.get("started_at") or 0, other.name, (name, rounds)))
    return max(found, key=lambda one: one[:3])[3] if found else None


def _worker(head: Mapping[str, Any]) -> Any:
    return ((head.get("roles") or {}).get("worker") or {}).get("model")
