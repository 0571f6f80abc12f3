"""The composition root: benchmarks + methods + models + sandbox + store, as one call.

`evaluate(...)` runs one method on one benchmark and returns a `Summary`; the command line only
wraps it. `prepare` checks everything that can be checked before a token is spent.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Unpack, cast

from harness import forecast as forecasts
from harness.benchmarks import DataSources, reasons
from harness.budget import Budget
from harness.errors import HarnessError, StoreError, UsageError
from harness.extract import code_block
from harness.fitting import Fitted, fit, fitted, searched_for
from harness.forecast import Forecast
from harness.grade import Grader
from harness.grading import open_grader
from harness.journal import Journal, read_run
from harness.metrics import Estimate, count, dollars, duration, percent
from harness.models import Endpoint
from harness.options import CACHE_MODES, Config, Options, settled
from harness.plan import (
    ARTIFACT,
    DEFAULT_MODEL,
    FIRST_LOOK,
    FIRST_LOOK_KNOBS,
    Plan,
    ahead,
    begun,
    done,
    fit_folder,
    folder,
    job_of,
    prepare,
    refreshed,
)
from harness.record import (
    close_models,
    describe,
    ending,
    gates_of,
    ingest,
    session_facts,
    shown,
)
from harness.replies import REPLIES, ReplyCache
from harness.replies import Mode as CacheMode
from harness.run import Listener, Progress, Row, run
from harness.sandbox import Sandbox
from harness.search import Found
from harness.types import (
    Context,
    Level,
    Method,
    Model,
    Problem,
    Solution,
    WorkflowRun,
)

WARM_S = 0.1  # until the first requests are likely to be out


@dataclass(frozen=True, repr=False)
class Summary:
    """What a run came to. `as_dict` is what `eval --json` prints (docs/schemas/eval.json)."""

    run_id: str
    run_dir: Path
    plan: Plan
    sandbox: str
    status: str  # complete, partial, budget; refused, interrupted, failed where it raised
    reason: str | None  # why it stopped early
    progress: Progress
    estimate: Estimate
    wall_s: float
    forecast: Forecast | None  # what it was expected to take; None where it was over too soon
    budget: Budget

    def __repr__(self) -> str:
        value, low, high = self.estimate.value, self.estimate.low, self.estimate.high
        found = "no verdict"
        if value is not None:
            found = f"pass@1 {percent(value)}% [{percent(low)}, {percent(high)}]"
        of = f"{self.estimate.problems} problems"
        return f"<Summary: {self.run_id}: {self.status}, {found} of {of}>"

    @property
    def exit_code(self) -> int:
        codes = {"complete": 0, "budget": 3, "refused": 4, "interrupted": 130}
        return codes.get(self.status, 1)

    @property
    def spent(self) -> dict[str, float | None]:
        """What its budget counts, of earlier processes too; None: unknown, as a price may be."""
        budget = self.budget
        priced = self.progress.total_of("cost_usd") is not None
        counted = self.progress.tokens is not None
        return {
            "usd": round(budget.spent_usd, 9) if priced else None,
            "tokens": budget.spent_tokens if counted else None,
            "minutes": round(budget.spent_minutes + self.wall_s / 60, 3),
        }

    def as_dict(self) -> dict[str, Any]:
        rows = sorted(self.progress.rows.values(), key=lambda r: (r["problem_id"], r["sample"]))
        order = {item.problem.problem_id: i for i, item in enumerate(self.plan.items)}
        rows.sort(key=lambda r: (order[r["problem_id"]], r["sample"]))
        columns = ("problem_id", "sample", "verdict", "detail", "fresh")
        parts = ("base", "plus")
        return {
            "run": self.run_id,
            "status": self.status,
            "reason": self.reason,
            "benchmark": self.plan.benchmark.name,
            "digest": self.plan.benchmark.digest,
            "custom": self.plan.benchmark.custom,
            "environment": self.plan.environment,
            "list": self.plan.config.list,
            "protocol": self.plan.protocol,
            "level": str(self.plan.level),
            "method": self.plan.method.name,
            "knobs": self.plan.knobs,
            "roles": {role: model.name for role, model in self.plan.models.items()},
            "sandbox": self.sandbox,
            "problems": [
                {name: row.get(name) for name in columns}
                | {name: row[name] for name in parts if row.get(name) is not None}
                for row in rows
            ],
            "search": self.plan.search_as_dict(),
            "pass@1": _interval(self.estimate),
            "overlap_free": _interval(self.progress.overlap_free()),
            "left_out": self.plan.left_out,
            "calls": self.progress.calls,
            "tokens": self.progress.tokens,
            "cost_usd": self.progress.total_of("cost_usd"),
            "fresh_cost_usd": self.progress.total_of("fresh_cost_usd"),
            "cached_calls": self.progress.cached_calls,
            "wall_s": round(self.wall_s, 3),
            "errors": self.progress.invalid,
            "bounds": [self.estimate.floor, self.estimate.ceiling],
            "error_kinds": self.progress.error_kinds,
            "spent": self.spent,
        }


def _interval(value: Estimate) -> dict[str, Any]:
    return {
        "value": value.value,
        "low": value.low,
        "high": value.high,
        "problems": value.problems,
    }


async def execute(
    plan: Plan,
    *,
    sandbox: Sandbox | None = None,
    listen: Listener = lambda progress, row: None,
    warn: Callable[[str], None] = lambda line: None,
    budget: Budget | None = None,
    unfinished: Callable[[Summary], None] = lambda summary: None,
    searching: Callable[[Found], None] = lambda found: None,
) -> Summary:
    """Run a plan; what an earlier run of the same plan finished is taken over.

    `budget` is one that several runs share, and that knows already what they have spent; without
    it the run has its config's. A run that ends by an exception (a refusal, an interrupt) gives
    what it came to to `unfinished`, and raises. Raises UsageError when the sandbox is too weak
    (unless `unsafe_local`), StoreError, SandboxError and ModelRefused. The database is brought up
    to date while it runs and at the end.
    """
    began = time.monotonic()
    config = plan.config
    async with open_grader(
        plan.benchmark,
        cache_dir=plan.cache_dir,
        sandbox=sandbox,
        unsafe_local=config.unsafe_local,
        hidden=(config.out, plan.cache_dir / REPLIES),
        say=warn,
    ) as grader:
        plan = await _checked(plan, grader, warn)
        config = plan.config
        replies = ReplyCache(plan.cache_dir / REPLIES, cast(CacheMode, config.cache), say=warn)
        gates = gates_of(plan)
        own = Budget(config.budget_usd, config.budget_tokens, config.budget_minutes)
        if plan.fitting is not None:
            if budget is None:
                own.resume(searched_for(plan))
            if plan.artifact is None:
                warn(f"{plan.method.name} searches first, on {len(plan.fitting.ids)} problems")
                try:
                    plan = await fitted(
                        plan, grader, gates, budget or own, replies, warn, searching
                    )
                except BaseException:
                    await close_models(plan)
                    replies.close()
                    raise
        run_dir = folder(plan)
        journal = Journal(run_dir)
        job = job_of(plan, run_dir, session_facts(plan, grader.sandbox))
        # past runs are read while the first requests are under way
        foreseen = asyncio.create_task(asyncio.to_thread(_foreseen, plan, run_dir.name, warn))
        heard: list[Progress] = []

        def hear(progress: Progress, row: Row | None) -> None:
            heard[:] = [progress]
            listen(progress, row)

        def summary(status: str, reason: str | None, forecast: Forecast | None) -> Summary:
            return Summary(
                run_id=run_dir.name,
                run_dir=run_dir,
                plan=plan,
                sandbox=grader.sandbox.tier,
                status=status,
                reason=reason,
                progress=heard[0],
                estimate=heard[0].estimate(),
                wall_s=time.monotonic() - began,
                forecast=forecast,
                budget=budget or own,
            )

        try:
            async with contextlib.AsyncExitStack() as at_end:  # the last one is done first
                at_end.callback(ingest, config.out, run_dir, warn)
                at_end.push_async_callback(close_models, plan)
                at_end.push_async_callback(asyncio.wait, [foreseen])
                at_end.callback(plan.known.save)
                # it waits for the disk, and nobody has to wait for it
                at_end.callback(asyncio.get_running_loop().run_in_executor, None, replies.close)
                at_end.callback(journal.close)
                describe(plan, run_dir, grader.sandbox)
                async with shown(config.out, run_dir, warn):
                    _, status, reason = await run(
                        job,
                        gates=gates,
                        grader=grader,
                        budget=budget or own,
                        replies=replies,
                        journal=journal,
                        listen=hear,
                        resume_budget=budget is None,
                        closing=lambda: _closing(foreseen),
                    )
                forecast = await foreseen
        except BaseException as error:
            if heard:
                unfinished(summary(*ending(error), None))
            raise
    return summary(status, reason, forecast)


def _foreseen(plan: Plan, run_id: str, warn: Callable[[str], None]) -> Forecast | None:
    """What a run will probably take, from past ones; imports what its end will need besides."""
    time.sleep(WARM_S)
    try:
        past = forecasts.read_past(plan, besides=run_id)
        return forecasts.forecast(plan, past=past)
    except StoreError as error:
        warn(f"no forecast: {error}")
        return None


def _closing(foreseen: asyncio.Task[Forecast | None]) -> dict[str, Any]:
    """The forecast as the session's end records it, where it was there in time."""
    there = foreseen.done() and not foreseen.cancelled() and foreseen.exception() is None
    found = foreseen.result() if there else None
    return {"forecast": None if found is None else forecasts.as_dict(found)}


async def _checked(plan: Plan, grader: Grader, warn: Callable[[str], None]) -> Plan:
    """The plan without the problems that this environment cannot grade, told by name.

    Raises UsageError when none is left, SandboxError when our side could not grade a reference.
    """
    from harness.check import failing, findings

    ids = [item.problem.problem_id for item in plan.items]
    found = await findings(plan.benchmark, grader, ids, cache_dir=plan.cache_dir)
    if not found:
        return plan
    out = {name: finding.reason for name, finding in found.items()}
    warn(reasons(out))
    if loud := failing(plan.benchmark, found):
        warn(loud)
    items = [item for item in plan.items if item.problem.problem_id not in out]
    if not items:
        raise UsageError(f"nothing here can be graded: {reasons(out)}")
    return replace(plan, items=items, left_out={**plan.left_out, **out})


def resumed(out: Path, run_id: str, **changes: Any) -> Config:
    """The config that a run was last started with, to go on with it; `changes` replace fields.

    Raises UsageError: no such run, or one that does not say how it was made.
    """
    from harness.store import find_run

    run_dir = find_run(out, run_id)
    starts = [r for r in read_run(run_dir) if r["kind"] == "session" and r.get("config")]
    if not starts:
        raise UsageError(f"{run_dir.name} does not say with what it was started: use `eval`")
    stored = dict(starts[-1]["config"])
    data = stored.pop("data")
    sources = DataSources(
        data_dir=_path(data["data_dir"]),
        cache_dir=_path(data["cache_dir"]),
        overrides={key: Path(path) for key, path in data["overrides"].items()},
        offline=data["offline"],
    )
    known = {f.name for f in fields(Config)}
    kept = {name: value for name, value in stored.items() if name in known}
    kept |= {"out": out, "data": sources, "fresh": False, "run": run_dir.name}
    return Config(**{**kept, **changes})


def is_fit(out: Path, run_id: str) -> bool:
    """Whether a run is a search. Raises UsageError: no such run."""
    from harness.store import find_run, read_run_json

    return read_run_json(find_run(out, run_id)).get("stage") == "fit"


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


async def evaluate_async(
    method: str = "flowreasoner",
    *,
    endpoints: Mapping[str, Endpoint] | None = None,
    models: Mapping[str, Model] | None = None,
    cache_dir: str | Path | None = None,
    listen: Listener = lambda progress, row: None,
    **options: Unpack[Options],
) -> Summary:
    """Evaluate one method on one benchmark; the options are the fields of `Config`, and `meta`.

    Keys are never read from the environment here: pass `endpoints`, as in
    `{"openai": Endpoint(api_key=...)}`, or ready-made `models={"worker": ...}`.
    Weights of `local/NAME` are fetched when absent. Raises the errors of `prepare` and `execute`.
    """
    config = settled(method, options)
    plan = prepare(config, endpoints=endpoints, models=models, cache_dir=cache_dir)
    await asyncio.to_thread(fetch_weights, plan)
    return await execute(plan, listen=listen)


def evaluate(
    method: str = "flowreasoner",
    *,
    endpoints: Mapping[str, Endpoint] | None = None,
    models: Mapping[str, Model] | None = None,
    cache_dir: str | Path | None = None,
    listen: Listener = lambda progress, row: None,
    **options: Unpack[Options],
) -> Summary:
    """`evaluate_async` for callers that are not async; in a notebook it runs in a thread.

    An interrupt ends the run in order; the same call goes on.
    """

    def asked() -> Coroutine[Any, Any, Summary]:
        return evaluate_async(
            method,
            endpoints=endpoints,
            models=models,
            cache_dir=cache_dir,
            listen=listen,
            **options,
        )

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(asked())
    loop = asyncio.new_event_loop()
    task = loop.create_task(asked())

    def work() -> Summary:
        with contextlib.closing(loop):
            asyncio.set_event_loop(loop)
            try:
                return loop.run_until_complete(task)
            finally:
                loop.run_until_complete(loop.shutdown_default_executor())

    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(work)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                loop.call_soon_threadsafe(task.cancel)
            raise


@dataclass(frozen=True)
class Ran:
    """One workflow on one problem. `as_dict` is what `run-workflow --json` prints."""

    file: Path
    run: WorkflowRun | None  # None: the provider or the sandbox failed before it ended
    row: Row
    code: str
    benchmark: str

    def as_dict(self) -> dict[str, Any]:
        run, row = self.run, self.row
        both = row["prompt_tokens"], row["completion_tokens"]
        told = row["feedback_passed"], row["feedback_total"]
        return {
            "file": str(self.file),
            "benchmark": self.benchmark,
            "problem": row["problem_id"],
            "answer": run.answer if run else None,
            "code": self.code,
            "error": run.error if run else row["detail"],
            "error_class": run.error_class if run else row["error_kind"],
            "verdict": row["verdict"],
            "detail": row["detail"],
            "feedback": None if None in told else list(told),
            "operators": list(run.operators) if run else [],
            "calls": row["calls"],
            "tokens": None if None in both else sum(both),
            "cost_usd": row["cost_usd"],
            "fresh_cost_usd": row["fresh_cost_usd"],
            "wall_s": row["wall_s"],
        }

    def lines(self) -> list[str]:
        """The same for a terminal."""
        from harness.store import plain

        found = self.as_dict()
        lines = [plain(self.code)] if self.code else []
        if found["error"]:
            lines.append(f"error: {plain(str(found['error']))}")
        detail = f": {plain(found['detail'])}" if found["detail"] else ""
        lines.append(f"{found['problem']}: {found['verdict']}{detail}")
        if found["feedback"]:
            lines.append("feedback: {} of {} tests passed".format(*found["feedback"]))
        lines.append(f"operators: {', '.join(found['operators']) or 'none'}")
        lines.append(
            f"{count(found['calls'])} model calls, {count(found['tokens'])} tokens, "
            f"{dollars(found['fresh_cost_usd'])}, {duration(found['wall_s'])}"
        )
        return lines


async def run_workflow(
    file: Path,
    config: Config,
    *,
    prompts: Path | None = None,
    endpoints: Mapping[str, Endpoint] | None = None,
    models: Mapping[str, Model] | None = None,
    cache_dir: str | Path | None = None,
    warn: Callable[[str], None] = lambda line: None,
    fetch: Callable[[str], object] = lambda name: None,
) -> Ran:
    """Run the workflow of a file, with its constants in `prompts`, on the config's one problem.

    Raises UsageError where a file cannot be read, and what `prepare` and `execute` raise.
    """
    from baselines.operators import OPERATORS

    code, constants = _source(file), "" if prompts is None else _source(prompts)
    runs: list[WorkflowRun] = []
    programs: list[str] = []

    async def solve(problem: Problem, ctx: Context) -> Solution:
        runs.append(await ctx.run_workflow(code, constants, operators=OPERATORS))
        programs.append(code_block(runs[-1].answer or "", problem.entry_point))
        return Solution(programs[-1])

    method = Method(
        name="run-workflow",
        solve=solve,
        summary="one workflow of a file",
        level=Level.L3,
        calls=lambda knobs: {"worker": (1, 30)},
        nodes=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        plan = prepare(
            replace(config, out=Path(folder), method=method.name, knobs={}),
            endpoints=endpoints,
            models=models,
            cache_dir=cache_dir,
            method=method,
        )
        for name in absent_weights(plan):
            await asyncio.to_thread(fetch, name)
        summary = await execute(plan, warn=warn)
    (row,) = summary.progress.rows.values()
    return Ran(
        file,
        runs[-1] if runs else None,
        row,
        programs[-1] if programs else "",
        plan.benchmark.name,
    )


def _source(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: no Python file: it is not UTF-8 text") from None


def fetch_weights(
    plan: Plan,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Fetch the weights of the plan's local models that the cache lacks.

    Raises ModelError when no source has the right bytes.
    """
    from harness.models.pull import pull

    for name in absent_weights(plan):
        pull(name, cache_dir=plan.cache_dir / "models", say=say, progress=progress)


def absent_weights(plan: Plan) -> list[str]:
    """Names of the plan's registered local models whose file is not in the cache, each once."""
    absent = {m.name for m in plan.models.values() if getattr(m, "absent", False)}
    return sorted(name.partition("/")[2] for name in absent)


__all__ = [
    "ARTIFACT",
    "CACHE_MODES",
    "DEFAULT_MODEL",
    "FIRST_LOOK",
    "FIRST_LOOK_KNOBS",
    "Config",
    "Endpoint",
    "Fitted",
    "HarnessError",
    "Options",
    "Plan",
    "Ran",
    "Summary",
    "absent_weights",
    "ahead",
    "begun",
    "done",
    "evaluate",
    "evaluate_async",
    "execute",
    "fetch_weights",
    "fit",
    "fit_folder",
    "folder",
    "is_fit",
    "prepare",
    "refreshed",
    "resumed",
    "run_workflow",
]
