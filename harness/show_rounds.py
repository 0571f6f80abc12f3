"""A run's rounds as a table: what feedback said, what hidden tests say, and best-of-n beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import StoreError
from harness.metrics import count, percent
from harness.page import line, table
from harness.rounds import BEST_OF_N, Record, Round, at_calls, rounds_of
from harness.show_sample import records_of
from harness.store import UNGRADED, ranking, read_run_json

if TYPE_CHECKING:
    from rich.console import Console

KINDS = ("round", "hidden", "call", "result")
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
    if any(one.hidden is not None for one in rounds):
        line(console, NOTE, style="dim")
        line(console, rival_note(head.get("method"), rival and rival[0]), style="dim")


def round_table(
    rounds: Sequence[Round], rival: Sequence[Round] | None = None
) -> tuple[list[str], list[list[str]]]:
    """(names, rows): hidden scores only where they are known, `rival` at no more calls."""
    designed = any(one.designed for one in rounds)
    graded = any(one.hidden is not None for one in rounds)
    names = ["round", "workflows" if designed else "samples"]
    names += ["ran", "other than template"] if designed else []
    names += ["feedback", "best so far"]
    names += ["all feedback", "all hidden", "gap"] if graded else []
    counted = any(one.calls is not None for one in rounds)
    names += ["calls"] if counted else []
    names += [BEST_OF_N] if rival and graded else []
    rows = []
    for one in rounds:
        row = [str(one.number), str(one.samples)]
        row += [f"{percent(one.ran, 0)} %", f"{percent(one.other, 0)} %"] if designed else []
        row += [_share(one.feedback, "no test"), _share(one.best, "no test")]
        if graded:
            row += [_share(one.passes, "no test"), _share(one.hidden), points(one.gap)]
        row += [count(one.calls)] if counted else []
        if rival and graded:
            equal = at_calls(rival, one.calls)
            beside = equal and f"{_share(equal.hidden)} at {count(equal.calls)}"
            row += [beside or "none"]
        rows.append(row)
    return names, rows


def rival_note(method: object, rival: str | None) -> str:
    """What stands in the column of best-of-n, or why there is none."""
    if rival is not None:
        return f"best-of-n: all hidden of {rival}, at no more calls a sample"
    if method == BEST_OF_N:
        return "each round is one more draw; the best so far is the answer had it ended there"
    return "best-of-n at equal calls: no such run on these problems with this worker, here"


def problems_of(records: Iterable[Record]) -> frozenset[str]:
    """The problems that have a verdict."""
    return frozenset(
        str(r["problem_id"])
        for r in records
        if r["kind"] == "result" and r.get("verdict") not in UNGRADED
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
            found.append((len(rounds), told.get("started_at") or 0, other.name, rounds))
    return max(found, key=lambda one: one[:3])[2:] if found else None


def _worker(head: Mapping[str, Any]) -> Any:
    return ((head.get("roles") or {}).get("worker") or {}).get("model")
