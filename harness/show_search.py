"""A search in the terminal: what a method's `fit` tried, what it found, and what that took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.metrics import count, dollars, duration, percent
from harness.page import block, line, table, things
from harness.show_sample import drawing, texts_of
from harness.tree import best_of, best_words, node_words, nodes_of, steps_of, tree_text

if TYPE_CHECKING:
    from rich.console import Console

STEP_ROWS = 20  # of a training's curve, evenly spaced
STEP_COLUMNS = 8


@dataclass(frozen=True)
class Bill:
    """What a search took so far. Dollars are fresh prices; None: some part is unknown."""

    calls: int
    tokens: int | None
    fresh_cost_usd: float | None
    cost_usd: float | None  # paid
    cached_calls: int


def bill_of(records: Iterable[Mapping[str, Any]]) -> Bill:
    """The sum of all answered calls."""
    calls = [r for r in records if r["kind"] == "call" and r.get("error") is None]

    def total(*names: str) -> Any:
        values = [call.get(name) for call in calls for name in names]
        return None if None in values else sum(value for value in values if value is not None)

    return Bill(
        len(calls),
        total("prompt_tokens", "completion_tokens"),
        total("fresh_cost_usd"),
        total("cost_usd"),
        sum(bool(call.get("cached")) for call in calls),
    )


def print_search(
    console: Console,
    run_dir: Path,
    records: Sequence[Mapping[str, Any]],
    spent: Sequence[str],
    out: str,
    *,
    workflow: bool,
    full: bool,
) -> None:
    """What stands below the head of a search: its best, attempts, what it `spent`, tree, steps.

    `workflow` draws the best one's workflow, with `full` those of all.
    """
    nodes = nodes_of(records)
    trials = trials_of(records)
    best = best_of(nodes)
    if words := best_words(nodes):
        line(console, words, style="bold")
    if best is not None:
        block(console, "what it is", best.label, full=full)
    if trials:
        line(console, trials_line(trials))
    for said in spent:
        line(console, said)
    if nodes:
        line(console, "")
        line(console, tree_text(nodes))
    steps = steps_of(records)
    if steps:
        table(console, "steps", *step_table(steps))
    drawn = [one for one in nodes if workflow and (one is best or full)]
    if workflow and nodes and not drawn:
        line(console, "")
        line(console, "none of these is the best of all; --full draws each one's workflow")
    texts = texts_of(run_dir, {str(one.workflow_sha) for one in drawn})
    for one in drawn:
        line(console, "")
        line(console, f"{one.number}: {node_words(one)}", style="bold cyan")
        block(console, "workflow", drawing(texts.get(str(one.workflow_sha))), full=True)
    named = [str(trial["problem_id"]) for trial in trials]
    if named:
        line(console, "")
        line(console, f"One problem's attempts: python -m harness show {run_dir.name} "
                      f"--problem {named[0]}{out}")  # fmt: skip


def trials_of(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The graded attempts of a search; of one noted again, the last holds."""
    trials = {str(r.get("result_key")): r for r in records if r["kind"] == "trial"}
    return list(trials.values())


def trials_line(trials: Sequence[Mapping[str, Any]]) -> str:
    """How many attempts there were, at how many problems, and how many passed."""
    passed = sum(trial.get("passed") is True for trial in trials)
    problems = len({trial.get("problem_id") for trial in trials})
    return (
        f"{things(len(trials), 'attempt')} at {things(problems, 'problem')}, "
        f"{percent(passed / len(trials))} % passed all tests"
    )


def search_line(records: Sequence[Mapping[str, Any]]) -> str:
    """A search in a few words."""
    trials, best = trials_of(records), best_words(nodes_of(records))
    words = [trials_line(trials)] if trials else ["no attempt yet"]
    words += [best] if best is not None else []
    bill = bill_of(records)
    return ", ".join([*words, spent_line(bill.calls, bill.tokens, bill.fresh_cost_usd)])


def spent_line(calls: int | None, tokens: float | None, usd: float | None) -> str:
    return f"took {things(calls, 'call')}, {count(tokens)} tokens, {dollars(usd)}"


def cost_words(calls: float | None, tokens: float | None, usd: float | None) -> str:
    """What a search took, short: dollars where it cost some, else tokens, or calls.

    A price that is not known is said: only what was free stands in tokens alone.
    """
    if usd:
        return dollars(usd)
    amounts = ((tokens, "tokens"), (calls, "calls"))
    known = [f"{count(number)} {noun}" for number, noun in amounts if number is not None]
    if usd is None:
        return ", ".join([*known[:1], "price unknown"]) if known else "unknown"
    return known[0] if known else dollars(usd)


def artifact_line(artifact: Mapping[str, Any]) -> str:
    """Which search a row rests on, and what that took, as run.json tells it."""
    spent = artifact.get("spent") or {}
    took = spent_line(spent.get("calls"), spent.get("tokens"), spent.get("fresh_cost_usd"))
    name = artifact.get("run") or artifact.get("file") or "unknown"
    wall_s = spent.get("wall_s")
    time = f", {duration(wall_s)}" if wall_s is not None else ""
    on = things(artifact.get("problems"), "problem")
    return f"{name}, on {on}: {took}{time}, once; in no number below"


def search_cost(artifact: Mapping[str, Any]) -> str:
    """What the search that a row rests on took, short."""
    spent = artifact.get("spent") or {}
    return cost_words(spent.get("calls"), spent.get("tokens"), spent.get("fresh_cost_usd"))


def attempt_title(name: tuple[str, str], trials: Mapping[str, Mapping[str, Any]]) -> str:
    """What one attempt was and how it ended; `name` is its problem and its key."""
    problem, key = name
    trial = trials.get(key)
    if trial is None:
        return f"{problem}: calls of the search itself, or of an attempt that was not graded"
    ended = "passed" if trial.get("passed") else str(trial.get("detail") or "did not pass")
    return f"{problem}, {trial.get('label')}: {ended}"


def step_table(
    steps: Sequence[Mapping[str, float]], rows: int = STEP_ROWS
) -> tuple[list[str], list[list[str]]]:
    """(names, rows) of a curve, at most `rows` of its points, the first and the last among them."""
    names = list(dict.fromkeys(name for step in steps for name in step))
    names = ["number", *(name for name in names if name != "number")][:STEP_COLUMNS]
    kept = list(range(len(steps)))
    if len(steps) > rows:
        kept = [round(at * (len(steps) - 1) / (rows - 1)) for at in range(rows)]
    return names, [[_number(steps[at].get(name)) for name in names] for at in kept]


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
