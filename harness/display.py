"""What `eval` shows in a terminal: what was chosen, live progress, and the result as a table."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

from harness.benchmarks import reasons
from harness.forecast import compared, difference, forecast, words
from harness.lockdown import layers_line
from harness.metrics import count, dollars, duration, percent
from harness.show import kinds_line, paid_line
from harness.types import Verdict

if TYPE_CHECKING:
    from harness.api import Fitted, Plan, Summary
    from harness.forecast import Seen
    from harness.run import Progress, Row
    from harness.search import Artifact, Found

LINE_EVERY_S = 10.0  # without a terminal, a line at most this often
LINE_WIDTH = 120  # and tables of this width


def score(estimate: Any) -> str:
    """66.7% [35.4, 87.9] of 9 problems."""
    if estimate.value is None:
        return "no verdict yet"
    return (
        f"{percent(estimate.value)}% [{percent(estimate.low)}, {percent(estimate.high)}]"
        f" of {estimate.problems} problem{'' if estimate.problems == 1 else 's'}"
    )


def search_line(found: Artifact) -> str:
    """What a search found and took, as one line."""
    spent, solved = found.spent, found.content.get("score")
    said = f", {percent(solved)}% of them solved" if isinstance(solved, int | float) else ""
    return (
        f"{found.method} searched on {len(found.problems)} problems{said}: "
        f"{spent['calls']:,} calls, {count(spent['tokens'])} tokens, "
        f"{dollars(spent['fresh_cost_usd'])}, {duration(spent['wall_s'])}"
    )


class Display:
    """Live progress on a terminal, plain lines elsewhere. Use as a context around the run."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console

        self.console = Console(file=stream, highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console.width = LINE_WIDTH
        self._live: Any = None
        self._last = 0.0
        self._progress: Progress | None = None

    def say(self, line: str) -> None:
        self.console.print(line, markup=False)

    def plan(self, plan: Plan, past: Seen | None = None) -> None:
        """The first lines: what runs, what was chosen for you, what all of it would cost.

        `past` is what earlier runs tell (`forecast.read_past`); without it calls are typical ones.
        """
        roles = ", ".join(f"{role} {model.name}" for role, model in plan.models.items())
        knobs = " ".join(f"{name}={value}" for name, value in plan.knobs.items())
        self.say(f"{plan.method.name} on {plan.benchmark.name}: {_ids(plan)}; {roles}")
        if plan.benchmark.custom:
            self.say("  custom data: its rows match no pinned file, so no run on those compares")
        if knobs:
            self.say(f"  knobs: {knobs}")
        for note in plan.notes:
            self.say(f"  {note}")
        if plan.greedy and plan.knobs.get("evals", 1) > 1:
            self.say("  the worker is greedy, so evaluations of one workflow are one: it runs once")
        self._search(plan)
        found = forecast(plan, past=past)
        self.say(f"  this run: {words(found)}")
        if limits := _limits(plan):
            self.say(f"  it stops at {limits}")
        if not plan.first_look:
            self.say(f"  {difference(found)}")
        self.say(f"  (as asked anew; {found.basis})")
        if len(plan.items) < plan.everything or plan.knobs != plan.full_knobs:
            every = forecast(plan, past=past, full=True)
            self.say(f"  all {plan.everything} problems: {words(every)}")
            self.say(f"  {difference(every)}")
            self.say(f"  to start that: {plan.full_command()}")

    def _search(self, plan: Plan) -> None:
        """What the method searches or trains on first, or where what it found comes from."""
        if plan.artifact is not None:
            spent = plan.artifact.spent
            where = plan.artifact.run or plan.artifact.file
            took = f"{count(spent.get('calls'))} calls, {dollars(spent.get('fresh_cost_usd'))}"
            self.say(
                f"  uses what {where} found on {len(plan.artifact.problems)} problems ({took})"
            )
        elif plan.unfitted is not None:
            problems = len(plan.unfitted.items)
            self.say(f"  searches first, on {problems} problems: {words(forecast(plan.unfitted))}")

    def fit_plan(self, plan: Plan) -> None:
        """The first lines of a fit."""
        roles = ", ".join(f"{role} {model.name}" for role, model in plan.models.items())
        knobs = plan.method.given_to(plan.method.fit, plan.knobs)
        self.say(f"{plan.method.name} fit on {plan.benchmark.name}: {roles}")
        self.say(f"  knobs: {' '.join(f'{name}={value}' for name, value in knobs.items())}")
        for note in plan.notes:
            if note != reasons(plan.left_out):  # of an evaluation, which this is not
                self.say(f"  {note}")
        self._search(plan)
        if limits := _limits(plan):
            self.say(f"  it stops at {limits}")

    def fitted(self, fitted: Fitted) -> None:
        """What a fit came to, and where to look next."""
        found = fitted.artifact
        self.say(search_line(found))
        if found.simulated:
            self.say("simulated: it says nothing about a model")
        out = fitted.plan.config.out
        option = "" if str(out) == "results" else f" --out {out}"
        self.say(f"artifact {fitted.path}")
        self.say(f"  python -m harness show {found.run}{option}")
        self.say(f"  to evaluate it: the same flags with eval, or --artifact {found.run}")

    def searching(self, found: Found) -> None:
        """Called for every trial of a search."""
        if time.monotonic() - self._last < LINE_EVERY_S:
            return
        self._last = time.monotonic()
        spent, share = found.spent, found.passed / max(found.trials, 1)
        self.say(
            f"search: {found.trials:,} trials, {percent(share, 0)}% passed, {spent.calls:,} calls, "
            f"{count(spent.tokens)} tokens, {dollars(spent.usd)}, {duration(found.elapsed_s)}"
        )

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            from rich.live import Live

            self._live = Live(
                console=self.console, get_renderable=self._status, refresh_per_second=2
            )
            self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.__exit__(*exc)

    def update(self, progress: Progress, row: Row | None) -> None:
        """Called at the start (row None) and for every finished sample."""
        self._progress = progress
        if row is None:
            if progress.resumed:
                self.say(f"resuming: {progress.resumed} of {progress.total} samples are done")
            return
        solved = row["verdict"] == Verdict.PASSED
        detail = f" ({row['detail'][:80]})" if row["detail"] and not solved else ""
        line = f"{row['problem_id']}: {row['verdict']}{detail}, {row['calls']} calls, "
        line += f"{duration(row['wall_s'])}"
        if self._live is not None or progress.total <= 30:
            self.say(line.replace("\n", " "))
        if self._live is None and time.monotonic() - self._last > LINE_EVERY_S:
            self._last = time.monotonic()
            self.say(str(self._status()))

    def _status(self) -> Any:
        from rich.text import Text

        progress = self._progress
        if progress is None:
            return Text("starting ...")
        calls, cached = progress.calls, progress.cached_calls
        parts = [
            f"{len(progress.rows)}/{progress.total}",
            f"pass@1 {score(progress.estimate())}",
            f"{calls:,} calls" + (f" ({percent(cached / calls, 0)}% cached)" if cached else ""),
            f"{count(progress.tokens)} tokens",
            dollars(progress.total_of("cost_usd")),
            f"{duration(progress.elapsed_s)} gone",
            f"{duration(progress.eta_s)} left",
        ]
        if progress.flight:
            parts.append(progress.flight)
        if progress.invalid:
            parts.insert(2, f"errored: {kinds_line(progress.error_kinds)}")
        return Text("  ".join(parts))

    def summary(self, summary: Summary) -> None:
        """The run as one table row, and where to look next."""
        from rich.table import Table

        progress, estimate = summary.progress, summary.estimate
        per_problem = progress.calls / max(len(progress.rows), 1)
        table = Table(title=None, show_edge=False, pad_edge=False)
        names = ("method", "pass@1 [95%]", "problems", "level", "calls", "tokens", "cost", "time*")
        simulated = any(model.simulated for model in summary.plan.models.values())
        for name in names:
            table.add_column(name, overflow="fold")
        table.add_row(
            _named(summary.plan) + (" (simulated)" if simulated else ""),
            score(estimate).partition(" of ")[0],
            str(estimate.problems),
            str(summary.plan.level),
            f"{progress.calls} ({per_problem:.1f} each)",
            count(progress.tokens),
            dollars(progress.total_of("fresh_cost_usd")),
            duration(sum(row["wall_s"] for row in progress.rows.values())),
        )
        self.console.print(table)
        self.say(f"* of all samples, one after another; this took {duration(summary.wall_s)}")
        verdicts = Counter(row["verdict"] for row in progress.rows.values())
        if summary.plan.benchmark.custom:
            self.say("custom data: its rows match no pinned file")
        if simulated:
            self.say("simulated: it says nothing about a model, and no ranking or export has it")
        if summary.plan.first_look:
            self.say("a first look at chosen problems: the board ranks no such run")
        self.say("verdicts: " + ", ".join(f"{k} {n}" for k, n in sorted(verdicts.items())))
        if summary.plan.protocol != "none":
            fresh = progress.overlap_free()
            if fresh.value is not None:
                self.say(f"on hidden tests that no feedback test repeats: {score(fresh)}")
        base, plus = progress.part("base"), progress.part("plus")
        if base.value is not None:
            self.say(f"base tests: {score(base)}; plus tests: {score(plus)}")
        if summary.plan.artifact is not None:
            self.say(f"{search_line(summary.plan.artifact)}; in no number above")
        if summary.plan.left_out:
            self.say(reasons(summary.plan.left_out))
        if progress.invalid:
            low, high = estimate.floor, estimate.ceiling
            bounds = (
                "unknown" if low is None or high is None else f"{percent(low)} to {percent(high)}%"
            )
            kinds = kinds_line(progress.error_kinds)
            self.say(
                f"{progress.invalid} errored ({kinds}) and are in no mean; graded, they could "
                f"make it {bounds}; the same command retries"
            )
        for line in _spent(summary):
            self.say(line)
        if summary.reason:
            self.say(f"stopped: {summary.reason}")
        self.say(f"run {summary.run_id}")
        self.say(f"sandbox {layers_line(summary.sandbox)}")
        out = summary.plan.config.out
        option = "" if str(out) == "results" else f" --out {out}"
        self.say(f"  python -m harness show {summary.run_id}{option}")
        self.say(f"  python -m harness leaderboard{option}")


def _named(plan: Plan) -> str:
    """The method with what was given of its knobs: what tells a control from the method itself."""
    from harness.store import named

    return named(plan.method.name, plan.config.knobs, plan.knobs)


def _ids(plan: Plan) -> str:
    ids = [item.problem.problem_id for item in plan.items]
    named = ", ".join(ids) if len(ids) <= 5 else f"{ids[0]} to {ids[-1]}"
    return f"{len(ids)} of {plan.everything} problems ({named})"


def _limits(plan: Plan) -> str:
    """The budgets of a run in words; empty where it has none."""
    config = plan.config
    parts = [
        dollars(config.budget_usd) if config.budget_usd is not None else "",
        f"{config.budget_tokens:,} tokens" if config.budget_tokens is not None else "",
        f"{config.budget_minutes:g} min" if config.budget_minutes is not None else "",
    ]
    return " or ".join(part for part in parts if part)


def _spent(summary: Summary) -> Iterator[str]:
    """What was paid of the price, what of a budget is spent, and what had been predicted."""
    progress = summary.progress
    paid, fresh = progress.total_of("cost_usd"), progress.total_of("fresh_cost_usd")
    if line := paid_line(paid, fresh, progress.cached_calls, progress.calls):
        yield line
    budget, spent = summary.budget, []
    if budget.usd is not None:
        spent.append(f"{dollars(budget.spent_usd)} of {dollars(budget.usd)}")
    if budget.tokens is not None:
        spent.append(f"{budget.spent_tokens:,} of {budget.tokens:,} tokens")
    if budget.minutes is not None:
        spent.append(f"{budget.minutes - budget.left_s() / 60:.1f} of {budget.minutes:g} min")
    if spent:
        yield f"budget spent: {', '.join(spent)}"
    if summary.forecast is not None and summary.status in ("complete", "partial"):
        line = compared(
            summary.forecast,
            calls=progress.calls,
            tokens=progress.tokens,
            usd=fresh,
            wall_s=summary.wall_s,
        )
        resumed = f" ({progress.resumed} samples were done before)" if progress.resumed else ""
        yield line + resumed


@contextlib.contextmanager
def download_bar(stream: IO[str], name: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for bytes; a line every tenth where there is no terminal."""
    from rich.console import Console

    console = Console(file=stream, highlight=False)
    if not console.is_terminal:
        told = -1

        def line(done: int, total: int) -> None:
            nonlocal told
            tenth = 10 * done // max(total, 1)
            if tenth > told:
                told = tenth
                console.print(f"{name}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB", markup=False)

        yield line
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    with Progress(
        "{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console
    ) as bar:
        task = bar.add_task(name, total=None)

        def draw(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield draw
