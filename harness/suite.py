"""Runs a suite: every cell of a grid (`harness/grid.py`) after the other, under one budget.

What an earlier process finished is taken over: a cell that is complete starts nothing, so the same
command again goes on. All cells share the cache of replies. Two processes may run one suite: a
cell that the other one writes is come back to at the end; each then has a budget of its own.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from harness import api, forecast
from harness.budget import Budget
from harness.display import search_line
from harness.errors import (
    BudgetReached,
    HarnessError,
    ModelRefused,
    StoreError,
    UsageError,
)
from harness.forecast import Forecast
from harness.grid import Cell, Suite, load, shipped, short
from harness.journal import read_run, read_segment, segments, whole
from harness.metrics import count, dollars, duration, percent
from harness.models import Endpoint
from harness.run import Listener, Progress
from harness.store import writer_is_gone
from harness.types import Completion

if TYPE_CHECKING:
    from harness.sandbox import Sandbox

BUSY_S = 2.0  # between looks at a run that another process writes
WIDTH, NAME = 120, 9  # characters of a table, and of a name in it, or what tells names apart
TELLING = ("workflow", "preset", "match")  # knobs that make a control of a method
Range = tuple[float, float]


@dataclass
class Row:
    """A cell and how far it is."""

    cell: Cell
    plan: api.Plan
    progress: Progress
    run_dir: Path
    status: str = "left"  # or complete, partial, busy, budget, refused, skipped, failed
    reason: str | None = None
    forecast: Forecast | None = None  # of all of the cell
    search: Forecast | None = None  # of what its method finds first, if that is to come

    @property
    def left(self) -> int:
        """Samples without a verdict."""
        return self.progress.total - self.done

    @property
    def done(self) -> int:
        return api.done(self.progress)

    def ahead(self) -> dict[str, Range | None]:
        """Calls, tokens, usd and minutes of what is left, as (least, most); None is unknown."""
        if self.forecast is None:
            return {}
        parts = [_ends(api.ahead(self.forecast, self.progress))]
        if self.search is not None:
            parts.append(_ends(self.search))
        return _summed(parts)

    def as_dict(self) -> dict[str, Any]:
        plan, progress, estimate = self.plan, self.progress, self.progress.estimate()
        found = {
            "label": self.cell.label,
            "row": self.cell.row,
            "benchmark": plan.benchmark.name,
            "list": plan.config.list,
            "protocol": plan.config.protocol,
            "method": plan.method.name,
            "knobs": plan.knobs,
            "roles": {role: model.name for role, model in plan.models.items()},
            "seed": plan.config.seed,
            "status": self.status,
            "reason": self.reason,
            "run": self.run_dir.name if self.run_dir.exists() else None,
            "samples": progress.total,
            "left": self.left,
            "errors": progress.invalid,
            "pass@1": {
                "value": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "problems": estimate.problems,
            },
            "calls": progress.calls,
            "tokens": progress.tokens,
            "cost_usd": progress.total_of("cost_usd"),
            "fresh_cost_usd": progress.total_of("fresh_cost_usd"),
        }
        if self.forecast is not None:
            found["forecast"] = forecast.as_dict(self.forecast)
            found["ahead"] = {
                name: None if ends is None else [round(end, 6) for end in ends]
                for name, ends in self.ahead().items()
            }
        return found


@dataclass(frozen=True)
class SuiteSummary:
    """All cells of a suite and how far they are. `as_dict` is what `suite --json` prints."""

    suite: Suite
    rows: list[Row]
    stopped: str | None = None  # which budget ended it

    @property
    def exit_code(self) -> int:
        """3 at the budget, 4 when a provider refused a cell, 1 when something errored, else 0."""
        if self.stopped is not None:
            return 3
        states = {row.status for row in self.rows}
        if states & {"refused", "skipped"}:
            return 4
        return int(bool(states & {"partial", "failed"}))

    def as_dict(self) -> dict[str, Any]:
        return {
            "suite": self.suite.name,
            "summary": self.suite.summary,
            "budget": dict(self.suite.budget),
            "stopped": self.stopped,
            "cells": [row.as_dict() for row in self.rows],
            "left": sum(row.left for row in self.rows),
            "ahead": {
                name: None if ends is None else [round(end, 6) for end in ends]
                for name, ends in self.ahead().items()
            },
        }

    def ahead(self) -> dict[str, Range | None]:
        """The sums of what the cells still take; None as soon as one is unknown."""
        return _summed([row.ahead() for row in self.rows])


def _ends(found: Forecast) -> dict[str, Range | None]:
    """Calls of all roles, tokens, usd and minutes of a forecast."""
    calls = [sum(ends) for ends in zip(*found.calls.values(), strict=True)]
    parts: dict[str, Range | None] = {"calls": (calls[0], calls[1]), "tokens": found.tokens}
    return parts | {"usd": found.usd, "minutes": found.minutes}


def _summed(parts: Sequence[Mapping[str, Range | None]]) -> dict[str, Range | None]:
    """The sums of such parts; None as soon as one is unknown."""
    found: dict[str, Range | None] = {}
    for name in parts[0] if parts else ():
        ends = [part[name] for part in parts]
        known = [end for end in ends if end is not None]
        total = (sum(low for low, _ in known), sum(high for _, high in known))
        found[name] = total if len(known) == len(ends) else None
    return found


def survey(
    suite: Suite,
    *,
    endpoints: Mapping[str, Endpoint] | None = None,
    cache_dir: Path | None = None,
    forecasts: bool = False,
) -> SuiteSummary:
    """How far every cell is, and with `forecasts` what the rest will take. Runs and sends nothing.

    A key that is not set is no error here. Raises UsageError and BenchmarkError.
    """
    rows = _rows(suite, endpoints or {}, cache_dir, planning=True)
    for row in rows:
        if forecasts:
            past = forecast.read_past(row.plan)
            row.forecast = forecast.forecast(row.plan, past=past)
            if row.plan.unfitted is not None:
                row.search = forecast.forecast(row.plan.unfitted)
    return SuiteSummary(suite, rows)


async def run_suite(
    suite: Suite,
    *,
    endpoints: Mapping[str, Endpoint] | None = None,
    cache_dir: Path | None = None,
    sandbox: Sandbox | None = None,
    listen: Listener = lambda progress, row: None,
    warn: Callable[[str], None] = lambda line: None,
) -> SuiteSummary:
    """Run what is left of every cell, one after the other, under one budget.

    All cells are prepared before the first one runs. A provider that refuses for good ends its
    cell, and the model's other cells are skipped; what else goes wrong with one ends that one. A
    cell that another process writes is come back to at the end. Raises UsageError, BenchmarkError
    and StoreError.
    """
    rows = _rows(suite, endpoints or {}, cache_dir)
    tokens = suite.budget.get("tokens")
    spent = Budget(
        usd=suite.budget.get("usd"),
        tokens=None if tokens is None else int(tokens),
        minutes=suite.budget.get("minutes"),
    )
    for row in rows:
        _check_prices(row, spent)
    searches = {api.fit_folder(row.plan) for row in rows if row.plan.fitting is not None}
    for run_dir in sorted({row.run_dir for row in rows} | searches):  # cells may share one
        spent.resume(read_run(run_dir))
    work = _Work(rows, spent, sandbox, listen, warn)
    stopped = None
    try:
        busy = [row for row in rows if not await work.turn(row)]
        for row in busy:
            while not await work.turn(row):
                spent.check()
                await asyncio.sleep(BUSY_S)
    except BudgetReached as reached:
        stopped = str(reached)
    return SuiteSummary(suite, rows, stopped)


@dataclass
class _Work:
    """What the cells of one suite share while they run."""

    rows: list[Row]
    budget: Budget
    sandbox: Sandbox | None
    listen: Listener
    warn: Callable[[str], None]
    refused: set[str] = field(default_factory=set)  # models

    async def turn(self, row: Row) -> bool:
        """Bring one cell as far as it goes; False when another process is at it.

        Raises BudgetReached, StoreError, UsageError and BenchmarkError, which end the suite.
        """
        place = f"cell {self.rows.index(row) + 1} of {len(self.rows)}: {row.cell.label}"
        row.plan = api.refreshed(row.plan) if row.plan.unfitted else row.plan
        row.run_dir = api.folder(row.plan)  # another one, once its search is done
        _look(row)
        if row.left == 0:
            row.status = "complete"
            return True
        models = {model.name for model in row.plan.models.values()}
        if refused := sorted(models & self.refused):
            row.status, row.reason = "skipped", f"{refused[0]} was refused before"
            return True
        if not _is_free(row):
            return self._later(row, place)
        self.budget.check()
        self.warn(f"{place}: {row.left} of {row.progress.total} samples are left")
        try:
            await asyncio.to_thread(api.fetch_weights, row.plan, self.warn)
            summary = await api.execute(
                row.plan,
                sandbox=self.sandbox,
                listen=self.listen,
                warn=self.warn,
                budget=self.budget,
            )
        except ModelRefused as error:
            _look(row)
            row.status, row.reason = "refused", str(error)
            self.refused |= _refusing(row) or models
        except StoreError:
            if _is_free(row):
                raise
            return self._later(row, place)
        except HarnessError as error:
            _look(row)
            row.status, row.reason = "failed", str(error)
        else:
            row.progress, row.plan = summary.progress, summary.plan
            row.run_dir = summary.run_dir
            row.status, row.reason = summary.status, summary.reason
            if summary.status == "budget":
                raise BudgetReached(str(summary.reason))
        if row.status in ("refused", "failed"):
            self.warn(f"{place}: {row.status}: {row.reason}")
        return True

    def _later(self, row: Row, place: str) -> bool:
        if row.status != "busy":
            self.warn(f"{place}: another process is at it; it is looked at again at the end")
        row.status = "busy"
        return False


def _rows(
    suite: Suite,
    endpoints: Mapping[str, Endpoint],
    cache_dir: Path | None,
    *,
    planning: bool = False,
) -> list[Row]:
    """Every cell, prepared, with what its journal holds. Raises UsageError and BenchmarkError."""
    rows: list[Row] = []
    first: dict[str, api.Plan] = {}  # cells on the same problems read them once
    for cell in suite.cells():
        config = cell.config
        parts = (config.benchmark, config.list, config.protocol, config.limit, config.problems)
        same = repr((*parts, config.data))
        try:
            plan = api.prepare(
                config,
                endpoints=endpoints,
                cache_dir=cache_dir,
                like=first.get(same),
                planning=planning,
            )
        except UsageError as error:
            raise UsageError(f"{suite.file}: [[row]] {cell.row}: {error}") from None
        # else some problems are left out of it
        trained = any(model.trained_on for model in plan.models.values())
        if plan.fitting is None and plan.artifact is None and not trained:
            first.setdefault(same, plan)
        row = Row(cell, plan, Progress(0), api.folder(plan))
        _look(row)
        if row.left == 0:
            row.status = "complete"
        rows.append(row)
    return rows


def _is_free(row: Row) -> bool:
    """Whether no other process writes a cell's run, or the search that comes before it."""
    search = [api.fit_folder(row.plan)] if row.plan.unfitted else []
    return all(writer_is_gone(place) for place in (row.run_dir, *search))


def _look(row: Row) -> None:
    """Take from a cell's journal how far it is."""
    row.progress = api.begun(row.plan, row.run_dir)


def _refusing(row: Row) -> set[str]:
    """The models that a cell's newest process asked in vain."""
    failed: set[str] = set()
    answered: set[str] = set()
    for path in segments(row.run_dir)[-1:]:
        for _, _, record in read_segment(path):
            if record is not None and whole(record) and record["kind"] == "call":
                (answered if record["error"] is None else failed).add(record["model"])
    return failed - answered


def _check_prices(row: Row, budget: Budget) -> None:
    """Raise UsageError when a budget in dollars cannot hold for a cell."""
    for model in row.plan.models.values():
        if budget.usd is None or model.recorded:
            continue
        if model.price(Completion("", 1000, 1000)) is None:
            raise UsageError(
                f"the price of {model.name} is unknown, so a budget in dollars cannot hold: "
                "use tokens, or give its price with --prices"
            )


def show(summary: SuiteSummary, stream: IO[str], *, missing: bool = False) -> None:
    """Print a table, a line a cell: how far it is, or with forecasts what the rest takes.

    With `missing` only the cells of which something is left. Where a line would be longer than
    `WIDTH`, names lose their middle, or all but what tells them apart.
    """
    rows = [row for row in summary.rows if row.left or not missing]
    ahead = bool(rows) and rows[0].forecast is not None
    names = ["benchmark", "method", "worker", "meta"]
    numbers = ["left", "calls", "tokens", "cost", "time"]
    if not ahead:
        numbers = ["done", "pass@1 [95%]", "calls", "tokens", "cost", "status"]
    lines = [[*names, "seed", *numbers]]
    lines += [[*_names(row), *(_expected(row) if ahead else _measured(row))] for row in rows]
    columns = _narrowed([list(column) for column in zip(*lines, strict=True)], len(names))
    widths = [max(map(len, column)) for column in columns]
    left = {*range(len(names)), *([] if ahead else [len(columns) - 1])}
    for line in zip(*columns, strict=True) if rows else ():
        placed = (
            text.ljust(width) if place in left else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(placed).rstrip(), file=stream)
    for row in rows:
        if row.reason:
            print(f"{row.cell.label}: {row.status}: {row.reason}", file=stream)
    searches = {artifact.digest: artifact for row in rows if (artifact := row.plan.artifact)}
    for artifact in searches.values():
        print(f"{search_line(artifact)}; in no number above", file=stream)
    for note in _copies(rows):
        print(note, file=stream)
    if any(model.simulated for row in rows for model in row.plan.models.values()):
        print("sim/: simulated, which says nothing about a model; never ranked", file=stream)
    print(_closing(summary, ahead), file=stream, flush=True)


def _names(row: Row) -> list[str]:
    models = row.plan.models
    meta = short(models["meta"].name) if "meta" in models else ""
    config = row.plan.config
    worker = short(models["worker"].name)
    told = [f"{name}={config.knobs[name]}" for name in TELLING if name in config.knobs]
    return [config.benchmark, " ".join([config.method, *told]), worker, meta, str(config.seed)]


def _narrowed(columns: list[list[str]], names: int) -> list[list[str]]:
    """The columns of a table, the first `names` of them cut until a line fits, the widest first.

    What stands in one of these columns is told from what stands in another, too: a worker may be
    another cell's meta-agent.
    """
    every = list(dict.fromkeys(itertools.chain(*columns[:names])))
    widths = [max(map(len, column)) for column in columns]
    can = set(range(names))
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH and can:
        widest = max(can, key=lambda place: widths[place])
        if widths[widest] > NAME and _cut(every, widths[widest] - 1) is not None:
            widths[widest] -= 1
        else:
            can.remove(widest)
    cuts = [_cut(every, width) or {} for width in widths[:names]]
    cuts += [{}] * (len(columns) - names)
    return [
        [cut.get(text, text) for text in column] for column, cut in zip(columns, cuts, strict=True)
    ]


def _cut(names: Iterable[str], width: int) -> dict[str, str] | None:
    """Names in so many characters, different ones still different; None: that is not to be had."""
    found = {name: _fitted(name, width) for name in names}
    for text in set(found.values()):
        alike = [name for name, other in found.items() if other == text]
        if len(alike) > 1:
            found |= _apart(alike, width)
    return found if len(set(found.values())) == len(found) else None


def _apart(names: list[str], width: int) -> dict[str, str]:
    """What tells the names apart, between the beginning and the end that they share.

    `qwen2.5..0.5b..` and `qwen2.5..1.5b..` of two names that end alike.
    """
    head = _shared(names)
    tail = _shared([name[len(head) :][::-1] for name in names])
    found = {}
    for name in names:
        own = name[len(head) : len(name) - len(tail)]
        marks = 2 * bool(head) + 2 * bool(tail)
        room = max(0, width - len(own) - marks)
        start = head if len(head) <= room + 2 else f"{head[:room]}.."
        found[name] = _fitted(f"{start}{own}{'..' if tail else ''}", width)
    return found


def _shared(names: list[str]) -> str:
    """What all names begin with, up to where a part of a name ends."""
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    shared = "".join(letters[0] for letters in same)
    return shared[: 1 + max(shared.rfind(mark) for mark in "-_/=,: ")]


def _fitted(name: str, width: int) -> str:
    """A name in so many characters, without its middle where it is longer."""
    if len(name) <= width:
        return name
    head = width // 2 - 1
    return f"{name[:head]}..{name[head + 2 - width :]}"


def _copies(rows: Iterable[Row]) -> Iterator[str]:
    """A line for cells that differ in their seed alone, where nothing is drawn by seed."""
    alike: dict[str, list[Row]] = {}
    for row in rows:
        plan = row.plan
        if all(
            model.repeats and not model.samples_always and plan.sampling[role].temperature == 0
            for role, model in plan.models.items()
        ):
            same = replace(row.cell.config, seed=0)
            alike.setdefault(repr(same), []).append(row)
    for group in alike.values():
        if len(group) > 1:
            seeds = ", ".join(str(row.plan.config.seed) for row in group)
            label = group[0].cell.label.rpartition(" seed ")[0]
            yield (
                f"{label}: greedy and exactly repeatable: seeds {seeds} are one and the same run "
                "where the method draws nothing itself, so do not pool them"
            )


def _measured(row: Row) -> list[str]:
    """Samples done, pass@1, calls, tokens, the cost as if asked anew, and the status."""
    estimate, progress = row.progress.estimate(), row.progress
    done = f"{row.done}/{progress.total}"
    if not progress.rows:
        return [done, "", "", "", "", row.status]
    score = "no verdict"
    if estimate.value is not None:
        low, high = percent(estimate.low), percent(estimate.high)
        score = f"{percent(estimate.value)} [{low}, {high}]"
    tokens = None if progress.tokens is None else forecast.rounded(progress.tokens)
    cost = dollars(progress.total_of("fresh_cost_usd"))
    return [done, score, count(progress.calls), tokens or "unknown", cost, row.status]


def _expected(row: Row) -> list[str]:
    """Samples left, and the calls, tokens, dollars and time that they take."""
    return [str(row.left), *_spans(row.ahead())]


def _spans(ahead: Mapping[str, Range | None]) -> list[str]:
    texts: dict[str, Callable[[float], str]] = {
        "calls": forecast.rounded,
        "tokens": forecast.rounded,
        "usd": lambda usd: dollars(usd) if usd < 10 else f"${usd:,.0f}",
        "minutes": lambda minutes: duration(60 * minutes),
    }
    found = []
    for name, text in texts.items():
        ends = ahead[name]
        low, high = ("unknown", "unknown") if ends is None else map(text, ends)
        found.append(low if low == high else f"{low}-{high}")
    return found


def _closing(summary: SuiteSummary, ahead: bool) -> str:
    """One line: how many cells are complete, what is left, why it stopped."""
    complete = sum(row.left == 0 for row in summary.rows)
    left = sum(row.left for row in summary.rows)
    line = f"{summary.suite.name}: {complete} of {len(summary.rows)} cells are complete"
    if left:
        line += f"; {left:,} samples are left"
    if ahead and left:
        calls, tokens, usd, time = _spans(summary.ahead())
        price, took = ("price unknown", "time unknown")
        line += f": {calls} calls, {tokens} tokens"
        line += f", {price if usd == 'unknown' else usd}, {took if time == 'unknown' else time}"
    if summary.stopped is not None:
        line += f"; stopped: {summary.stopped}"
    return line


__all__ = ["Cell", "Row", "Suite", "SuiteSummary", "load", "run_suite", "shipped", "show", "survey"]
