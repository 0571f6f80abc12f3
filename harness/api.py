"""The composition root: benchmarks + methods + models + sandbox + store, as one call.

`evaluate(...)` runs one method on one benchmark and returns a `Summary`; the command line only
wraps it. `prepare` checks everything that can be checked before a token is spent.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
import math
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Unpack, cast

from platformdirs import user_cache_path

import baselines
from harness import __version__, provenance
from harness import benchmarks as benchmark_registry
from harness import forecast as forecasts
from harness.benchmarks import PROTOCOL_LEVELS, Benchmark, DataSources, Item, Known, reasons
from harness.benchmarks.suite import leave_out, list_digest
from harness.budget import Budget
from harness.config import SETTINGS, advice, setting_of
from harness.context import Aids
from harness.errors import BudgetReached, HarnessError, ModelRefused, StoreError, UsageError
from harness.extract import code_block
from harness.forecast import Forecast
from harness.grade import VERSION as GRADER_VERSION
from harness.grade import Grader
from harness.grading import interpreters, needs_environment, open_grader
from harness.journal import Journal, canonical, digest, read_run, whole, write_atomically
from harness.metrics import Estimate, count, dollars, duration, percent
from harness.models import Endpoint, resolve
from harness.models.prices import Prices
from harness.models.wire import check_extra, public_url
from harness.options import CACHE_MODES, Config, Options, check_data_dir, check_out, settled
from harness.pacing import Connections, Gate
from harness.replies import Mode as CacheMode
from harness.replies import ReplyCache
from harness.run import Job, Listener, Progress, Row, run, source_digest
from harness.sandbox import Sandbox, facts, own_interpreter
from harness.search import DESK, Artifact, Found, Pool, Search, read_artifact, write_artifact
from harness.types import (
    Completion,
    Context,
    Knobs,
    Level,
    Method,
    Model,
    Problem,
    Protocol_,
    Sampling,
    Solution,
    WorkflowRun,
)

DEFAULT_MODEL = "local/qwen2.5-coder-1.5b-instruct"  # embedded: needs no key and no server
# A bare run with the embedded model: a problem that its one call solves and two where it fails an
# example of the prompt, so that there is something to improve; and few rounds, for minutes.
FIRST_LOOK = ("HumanEval/0", "HumanEval/10", "HumanEval/54")
FIRST_LOOK_KNOBS = {"rounds": 2}
WARM_S = 0.1  # until the first requests are likely to be out
SNAPSHOT_S = 30.0  # how often a running evaluation is shown to the board
REPLIES = "replies.sqlite"  # in the cache folder
ARTIFACT = "artifact.json"  # in the folder of a fit's run
_LEVELS = [Level.L0, Level.L1, Level.L2, Level.L3]
ROLE_NAME = re.compile(r"[A-Za-z][\w-]*")


@dataclass(frozen=True)
class Fitting:
    """The search or training that a method does first: on what, and what makes it the same."""

    ids: tuple[str, ...]  # of the list `search`
    config_hash: str


@dataclass(frozen=True, repr=False)
class Plan:
    """A checked run that has spent nothing yet."""

    config: Config
    benchmark: Benchmark
    method: Method
    knobs: dict[str, Any]
    level: Level
    items: list[Item]
    models: dict[str, Model]
    sampling: dict[str, Sampling]
    config_hash: str
    notes: tuple[str, ...]  # what was chosen because it was not given
    full_knobs: dict[str, Any]  # the knobs without what was chosen for a first look
    first_look: bool  # problems were chosen for showing, not for measuring
    left_out: dict[str, str]  # problems asked for that cannot be run, with the reason
    cache_dir: Path
    environment: str  # short digest of the Python and packages that programs are graded in
    prices: Prices
    known: Known
    loaded: Benchmark  # before the protocol, all problems
    protocol: Protocol_
    identity: Mapping[str, Any]  # what `config_hash` is of
    fitting: Fitting | None = None  # None: nothing has to be found first, or it is given
    artifact: Artifact | None = None  # what was found, by a fit of ours or a file
    bill: Mapping[str, Any] | None = None  # what the run of knob `match` took, by problem

    def __repr__(self) -> str:
        models = ", ".join(f"{role} {model.name}" for role, model in self.models.items())
        what = f"{self.method.name} on {self.benchmark.name}, {len(self.items)} problems"
        return f"<Plan: {what}; {models}>"

    @functools.cached_property
    def everything(self) -> int:
        """How many problems of the whole list the protocol leaves."""
        ids = self.loaded.lists[self.config.list]
        protocol = self.benchmark.protocol
        if protocol == "none" or len(self.items) == len(ids):
            return sum(name in self.loaded.items for name in ids)
        return len(benchmark_registry.apply(self.loaded, protocol, only=ids).items)

    def as_dict(self) -> dict[str, Any]:
        """What `eval --dry-run --json` prints (docs/schemas/dry_run.json)."""
        found = forecasts.forecast(self, past=forecasts.read_past(self))
        progress = begun(self)
        return {
            "benchmark": self.benchmark.name,
            "custom": self.benchmark.custom,
            "list": self.config.list,
            "protocol": self.protocol,
            "level": str(self.level),
            "method": self.method.name,
            "knobs": self.knobs,
            "problems": len(self.items),
            "left_out": self.left_out,
            "roles": {role: model.name for role, model in self.models.items()},
            **forecasts.as_dict(found),
            "search": self.search_as_dict(),
            "samples": progress.total,
            "done": done(progress),
            "ahead": _ranges(ahead(found, progress)),
        }

    @property
    def greedy(self) -> bool:
        """Whether equal requests to the worker get equal answers."""
        sampled = self.sampling["worker"].temperature > 0
        return not sampled and not self.models["worker"].samples_always

    def calls(self, *, full: bool = False) -> dict[str, tuple[int, int]]:
        """{role: (fewest, most)} model calls of this run, or of the `full` one: all problems."""
        count = (self.everything if full else len(self.items)) * self.config.n_samples
        knobs = dict(self.full_knobs if full else self.knobs)
        if "evals" in knobs and self.greedy:
            knobs["evals"] = 1
        ranges = self.method.calls(knobs)
        return {role: (low * count, high * count) for role, (low, high) in ranges.items()}

    @property
    def unfitted(self) -> FitView | None:
        """What has to be found before this run can begin; None where nothing has."""
        return None if self.fitting is None or self.artifact is not None else FitView(self)

    def search_as_dict(self) -> dict[str, Any] | None:
        """What the method's search took, or will take; None for a method without one."""
        if self.artifact is not None:
            return {"done": True, **self.artifact.described()}
        if self.unfitted is None:
            return None
        found = forecasts.forecast(self.unfitted)
        return {"done": False, "problems": len(self.unfitted.items), **_ranges(found)}

    def full_command(self) -> str:
        """The command that runs all problems with the method's own knobs."""
        return provenance.command(self, usual_cache=_usual_cache(), full=True)


@dataclass(frozen=True)
class FitView:
    """The fit of a plan, as a forecast looks at it: all problems of the search are one run."""

    plan: Plan

    @property
    def config(self) -> Config:
        return replace(self.plan.config, n_samples=1)

    @property
    def benchmark(self) -> Benchmark:
        return self.plan.benchmark

    @property
    def method(self) -> Method:
        return replace(self.plan.method, name=f"{self.plan.method.name} fit")

    @property
    def knobs(self) -> Mapping[str, Any]:
        return self.plan.knobs

    full_knobs = knobs

    @property
    def items(self) -> tuple[str, ...]:
        assert self.plan.fitting is not None
        return self.plan.fitting.ids

    @property
    def everything(self) -> int:
        return len(self.items)

    @property
    def models(self) -> Mapping[str, Model]:
        return self.plan.models

    @property
    def sampling(self) -> Mapping[str, Sampling]:
        return self.plan.sampling

    @property
    def greedy(self) -> bool:
        return self.plan.greedy

    def calls(self, *, full: bool = False) -> Mapping[str, tuple[int, int]]:
        return self.plan.method.fit_calls(self.plan.knobs, len(self.items))


REMOTE = ("openai", "anthropic", "vllm")  # providers that --base-url may speak of


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


def prepare(
    config: Config,
    *,
    endpoints: Mapping[str, Endpoint] | None = None,
    models: Mapping[str, Model] | None = None,
    cache_dir: str | Path | None = None,
    like: Plan | None = None,
    planning: bool = False,
    method: Method | None = None,
) -> Plan:
    """Check a config and settle its defaults. `models` gives ready-made models by role; `like` is
    a plan of the same problems, which are then not read again; `method` is one that no name leads
    to. When only `planning`, programs need no environment yet, and models no key.

    Raises UsageError (unknown names, bad values, missing keys) and BenchmarkError.
    """
    notes: list[str] = []
    check_out(config.out)
    check_data_dir(config.data.data_dir)
    servers = _servers(endpoints or {}, keyless=planning)
    _check_models(models or {})
    method = method or baselines.load(config.method)
    benchmark = like.loaded if like else benchmark_registry.load(config.benchmark, config.data)
    given = dict(config.knobs)
    first_look = False
    if config.worker is None and "worker" not in (models or {}):
        config = replace(config, worker=DEFAULT_MODEL)
        notes.append(f"no --worker given: the embedded model {DEFAULT_MODEL}, greedy")
        if config.limit is None and config.problems is None:
            listed = benchmark.lists.get(config.list, ())
            look = [p for p in FIRST_LOOK if p in listed] or list(listed[: len(FIRST_LOOK)])
            config, first_look = replace(config, problems=look), True
            notes.append(f"no --limit given: a first look at {len(look)} problems, no score")
            known = inspect.signature(method.solve).parameters
            for name, value in FIRST_LOOK_KNOBS.items():
                if name in known and name not in given and method.name == "flowreasoner":
                    given[name] = value
                    default = known[name].default
                    notes.append(f"no -A {name} given: {value} instead of the paper's {default}")
    asked = baselines.preset(method, given)
    protocol = config.protocol or asked.protocol or "public"
    if protocol not in PROTOCOL_LEVELS:
        valid = ", ".join(PROTOCOL_LEVELS)
        raise UsageError(f"unknown protocol {protocol!r}: use one of {valid}")
    config = replace(config, protocol=protocol, sampling=_over(asked.sampling, config.sampling))
    root = Path(cache_dir) if cache_dir else _usual_cache()
    prices = Prices(config.prices)
    ready = _models(method, config, servers, models or {}, root / "models", prices)
    given = _trained(method, ready, given, notes)
    knobs = baselines.knobs(method, given)
    full_knobs = baselines.knobs(method, {**config.knobs, **_new(given, config.knobs, knobs)})
    if method.settle is not None:
        there = functools.partial(_there, root)
        knobs |= method.settle(knobs, there)
        full_knobs |= method.settle(full_knobs, there)
    level = _level(method, knobs, protocol, config.level)
    sampling = _sampling(method, config, tuple(ready))
    ids = _ids(benchmark, config)
    loaded = benchmark
    pool = _pool(method, knobs, loaded, config)
    artifact = None if config.artifact is None else _given_artifact(config, method)
    seen = artifact.problems if artifact is not None else pool
    if like is not None and like.protocol == protocol and not {*seen} & {*ids}:
        kept, benchmark = like.known, like.benchmark
    else:
        kept = Known(root / "checks", loaded.digest, protocol)
        benchmark = benchmark_registry.apply(loaded, protocol, only=ids, known=kept)
        benchmark = leave_out(benchmark, seen, f"{method.name} was searched or trained on it")
    items = [benchmark.items[i] for i in ids if i in benchmark.items]
    if level is Level.ORACLE:
        items = [_revealed(item) for item in items]
    left_out = {i: benchmark.left_out[i] for i in ids if i in benchmark.left_out}
    if not items:
        raise UsageError(f"nothing is left to solve: {reasons(left_out)}")
    for model in ready.values():  # simulated ones have to know what is right
        learn = getattr(model, "learn", None)
        if learn is not None:
            there_are = {i: loaded.items[i] for i in {*pool, *ids} if i in loaded.items}
            there_are |= {i.problem.problem_id: i for i in items}
            learn(
                {i: (item.problem, item.oracle.reference) for i, item in there_are.items()}
                | {DESK: (Problem(DESK, benchmark.name, "", "", "", ()), "")}
            )
    for model in ready.values():
        if config.budget_usd is None or model.recorded:
            continue
        if model.price(Completion("", 1000, 1000)) is None:
            raise UsageError(
                f"the price of {model.name} is unknown, so --budget-usd cannot hold: "
                "use --budget-tokens"
            )
    environment = _environment(benchmark, root, planning)
    identity: dict[str, Any] = {
        "benchmark": benchmark.digest,
        "list": config.list,
        "method": method.name,
        "source": _method_digest(method),
        "knobs": knobs,
        "protocol": protocol,
        "roles": {
            role: {"model": model.identity(), "sampling": sampling[role].as_dict()}
            for role, model in ready.items()
        },
        "seed": config.seed,
        "grader": GRADER_VERSION,
    }
    if needs_environment(benchmark):  # what is installed there decides which problems can pass
        identity["environment"] = environment
    if config.level is not None:
        identity["level"] = str(level)
    bill = _bill(config.out, knobs["match"]) if method.matches and knobs.get("match") else None
    if bill is not None:
        identity["bill"] = digest(canonical(bill))
    fitting = None
    if pool:
        parts = {name: value for name, value in identity.items() if name not in ("list", "knobs")}
        parts |= {"stage": "fit", "problems": list_digest(pool)}
        parts["knobs"] = method.given_to(method.fit, knobs)
        fitting = Fitting(pool, digest(canonical(parts)))
    plan = Plan(
        config=config,
        benchmark=benchmark,
        method=method,
        knobs=knobs,
        level=level,
        items=items,
        models=ready,
        sampling=sampling,
        config_hash="",
        notes=(*notes, *([reasons(left_out)] if left_out else [])),
        full_knobs=full_knobs,
        first_look=first_look,
        left_out=left_out,
        cache_dir=root,
        environment=environment,
        prices=prices,
        known=kept,
        loaded=loaded,
        protocol=protocol,
        identity=identity,
        fitting=fitting,
        bill=bill,
    )
    return refreshed(plan) if artifact is None else _with(plan, artifact)


def refreshed(plan: Plan) -> Plan:
    """The plan with what a fit of its settings has found by now, if there is one."""
    found = None if plan.fitting is None else _newest_artifact(plan)
    return _with(plan, found)


def _with(plan: Plan, artifact: Artifact | None) -> Plan:
    """The plan with this artifact, which is part of what makes two runs the same."""
    identity = dict(plan.identity)
    if artifact is not None:
        identity["artifact"] = artifact.digest
    elif plan.fitting is not None:
        identity["artifact"] = f"fit {plan.fitting.config_hash}"
    return replace(plan, artifact=artifact, config_hash=digest(canonical(identity)))


def _newest_artifact(plan: Plan) -> Artifact | None:
    """What the newest finished fit of these settings found."""
    runs = _runs_named(plan, _fit_name(plan))
    found = [runs[number] / ARTIFACT for number in sorted(runs)]
    there = [path for path in found if path.is_file()]
    return read_artifact(there[-1]) if there else None


def _given_artifact(config: Config, method: Method) -> Artifact:
    """The artifact that --artifact names: a run of a fit, its folder, or a file.

    Raises UsageError: none there, or one of another method; StoreError: it cannot be read.
    """
    named = Path(str(config.artifact))
    places = (config.out / "runs" / named / ARTIFACT, named / ARTIFACT, named)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UsageError(f"--artifact {named}: no finished fit of that name, and no file")
    artifact = read_artifact(path)
    if artifact.method != method.name:
        raise UsageError(f"--artifact {named} is of {artifact.method}, not of {method.name}")
    return artifact


def _over(
    below: Mapping[str, Mapping[str, Any]], above: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Settings by role, those of `above` before those of `below`."""
    return {role: {**below.get(role, {}), **above.get(role, {})} for role in {**below, **above}}


def _new(given: Mapping[str, Any], own: Mapping[str, Any], knobs: Knobs) -> dict[str, Any]:
    """What a checkpoint sets of the knobs: part of the full run, too."""
    return {n: v for n, v in given.items() if n not in own and n not in FIRST_LOOK_KNOBS}


def _there(root: Path, name: str) -> bool:
    """Whether the weights of a small model beside the worker are on this machine."""
    if name != "pairrm":
        raise ValueError(f"{name}: no such model")
    from harness.models import pairrm

    return pairrm.available(root) is not None


def _trained(
    method: Method, models: Mapping[str, Model], given: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    """The knobs given, and those that a checkpoint was trained with where they are not."""
    known, found = baselines.known_knobs(method), dict(given)
    for role, model in models.items():
        for name, value in model.trained.items():
            if name in known and name not in found and role == "meta":
                found[name] = value
                notes.append(f"{model.name} was trained with {name}={value}")
    return found


def _level(method: Method, knobs: Knobs, protocol: Protocol_, most: str | None) -> Level:
    """What the method may do: what it makes use of, within the protocol and within --level.

    Raises UsageError for an unknown level.
    """
    own = method.level if method.level_of is None else method.level_of(knobs)
    if most is not None and most not in tuple(Level):
        raise UsageError(f"--level is one of {', '.join(Level)}, not {most!r}")
    if most == Level.ORACLE:
        if own is Level.L0:
            raise UsageError(f"{method.name} uses no feedback, so --level oracle changes nothing")
        return Level.ORACLE
    bounds = [own, PROTOCOL_LEVELS[protocol], *([Level(most)] if most is not None else [])]
    return min(bounds, key=_LEVELS.index)


def _revealed(item: Item) -> Item:
    """The item with its hidden tests as feedback: none is left that the method was not told of."""
    oracle = replace(item.oracle, fresh=lambda: None)
    return replace(item, feedback=item.oracle.tests, oracle=oracle)


def _pool(method: Method, knobs: Knobs, benchmark: Benchmark, config: Config) -> tuple[str, ...]:
    """Ids of the problems that the method searches on first; none where it does not.

    Raises UsageError for a benchmark without such a list.
    """
    if method.fit is None or config.artifact is not None or not method.fits(knobs):
        return ()
    if "search" not in benchmark.lists:
        raise UsageError(
            f"{benchmark.name} has no list for {method.name} to search on: search on another "
            "benchmark with `fit`, and give the result by --artifact"
        )
    ids = benchmark.lists["search"]
    return ids[: knobs["search_problems"] or len(ids)]


def _bill(out: Path, name: str) -> dict[str, Any]:
    """What a run took by problem, means over its samples. Raises UsageError, StoreError."""
    from harness.store import find_run

    run_dir = find_run(out, name)
    executions: dict[str, int] = {}
    tokens: dict[str, list[int]] = {}
    for record in filter(whole, read_run(run_dir)):
        if record["kind"] == "workflow":
            key = record["result_key"]
            executions[key] = executions.get(key, 0) + 1
        elif record["kind"] == "result" and record["verdict"] != "invalid":
            both = record["prompt_tokens"], record["completion_tokens"]
            if None in both:
                raise UsageError(f"match={name}: its tokens are unknown, so none can be matched")
            tokens[record["result_key"]] = [record["problem_id"], sum(both)]
    if not tokens:
        raise UsageError(f"match={name}: it has no graded sample yet")
    by_problem: dict[str, list[tuple[int, int]]] = {}
    for key, (problem_id, used) in tokens.items():
        by_problem.setdefault(str(problem_id), []).append((executions.get(key, 0), used))
    return {
        "match": run_dir.name,
        "bill": {
            problem: {
                "executions": round(sum(e for e, _ in found) / len(found)),
                "tokens": round(sum(t for _, t in found) / len(found)),
            }
            for problem, found in by_problem.items()
        },
    }


def _environment(benchmark: Benchmark, cache_dir: Path, planning: bool) -> str:
    """A short digest of what a benchmark's programs are graded in: Python and its packages.

    Raises UsageError when the benchmark needs an environment that was not made.
    """
    try:
        made = interpreters(benchmark, cache_dir)
    except UsageError:
        if planning:
            return "not made"
        raise
    (interpreter,) = made.values() or (own_interpreter(),)
    return digest(interpreter.digest)[:12]


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
        gates = _gates(plan)
        own = Budget(config.budget_usd, config.budget_tokens, config.budget_minutes)
        if plan.fitting is not None:
            if budget is None:
                own.resume(_searched_for_runs(fit_folder(replace(plan, config=_old(config)))))
            if plan.artifact is None:
                warn(f"{plan.method.name} searches first, on {len(plan.fitting.ids)} problems")
                try:
                    plan = await _fitted(
                        plan, grader, gates, budget or own, replies, warn, searching
                    )
                except BaseException:
                    for model in {id(m): m for m in plan.models.values()}.values():
                        await model.close()
                    replies.close()
                    raise
        run_dir = folder(plan)
        journal = Journal(run_dir)
        job = _job(plan, run_dir, _session(plan, grader.sandbox))
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
                at_end.callback(_ingest, config.out, run_dir, warn)
                for model in {id(m): m for m in plan.models.values()}.values():
                    at_end.push_async_callback(model.close)
                at_end.push_async_callback(asyncio.wait, [foreseen])
                at_end.callback(plan.known.save)
                # it waits for the disk, and nobody has to wait for it
                at_end.callback(asyncio.get_running_loop().run_in_executor, None, replies.close)
                at_end.callback(journal.close)
                _describe(plan, run_dir, grader.sandbox)
                async with _shown(config.out, run_dir, warn):
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
                unfinished(summary(*_ending(error), None))
            raise
    return summary(status, reason, forecast)


@dataclass(frozen=True)
class Fitted:
    """What a fit came to. `as_dict` is what `fit --json` prints (docs/schemas/fit.json)."""

    plan: Plan
    artifact: Artifact
    path: Path

    def as_dict(self) -> dict[str, Any]:
        plan, found = self.plan, self.artifact
        return {
            "run": found.run,
            "artifact": str(self.path),
            "digest": found.digest,
            "method": found.method,
            "benchmark": found.benchmark,
            "protocol": plan.protocol,
            "level": str(plan.level),
            "problems": len(found.problems),
            "list_digest": found.list_digest,
            "knobs": plan.method.given_to(plan.method.fit, plan.knobs),
            "roles": {role: model.name for role, model in plan.models.items()},
            "score": found.content.get("score"),
            "simulated": found.simulated,
            "spent": dict(found.spent),
        }


async def fit(
    plan: Plan,
    *,
    warn: Callable[[str], None] = lambda line: None,
    searching: Callable[[Found], None] = lambda found: None,
) -> Fitted:
    """Let a plan's method search or train, and keep what it found for its evaluations.

    A finished fit of the same settings is taken as it is, unless the config says `fresh`. Raises
    UsageError (nothing to fit), BudgetReached (the same call goes on) and what `execute` raises.
    """
    if plan.fitting is None:
        raise UsageError(f"{plan.method.name} has nothing to fit with these knobs: use `eval`")
    config = plan.config
    if plan.artifact is None or config.fresh:
        async with open_grader(
            plan.benchmark,
            cache_dir=plan.cache_dir,
            unsafe_local=config.unsafe_local,
            hidden=(config.out, plan.cache_dir / REPLIES),
            say=warn,
        ) as grader:
            replies = ReplyCache(plan.cache_dir / REPLIES, cast(CacheMode, config.cache), say=warn)
            budget = Budget(config.budget_usd, config.budget_tokens, config.budget_minutes)
            run_dir = fit_folder(plan)
            if run_dir.is_dir():
                budget.resume(read_run(run_dir))
            try:
                plan = await _fitted(
                    plan, grader, _gates(plan), budget, replies, warn, searching, alone=True
                )
            finally:
                for model in {id(m): m for m in plan.models.values()}.values():
                    await model.close()
                replies.close()
    assert plan.artifact is not None
    return Fitted(plan, plan.artifact, config.out / "runs" / str(plan.artifact.run) / ARTIFACT)


def _old(config: Config) -> Config:
    return replace(config, fresh=False)


def _searched_for_runs(run_dir: Path) -> list[Row]:
    """The records of a fit that an evaluation had to do first: part of what it may spend."""
    if not run_dir.is_dir():
        return []
    records = [record for record in read_run(run_dir) if whole(record)]
    alone = any(r["kind"] == "session" and r.get("alone") for r in records)
    return [] if alone else records


async def _fitted(
    plan: Plan,
    grader: Grader,
    gates: Mapping[str, Gate],
    budget: Budget,
    replies: ReplyCache,
    warn: Callable[[str], None],
    searching: Callable[[Found], None],
    *,
    alone: bool = False,
) -> Plan:
    """Search or train; the plan with what was found. `alone`: no evaluation asked for it."""
    assert plan.fitting is not None
    assert plan.method.fit is not None
    began = time.monotonic()
    items = await _pool_items(plan, grader, warn)
    run_dir = fit_folder(plan if alone else replace(plan, config=_old(plan.config)))
    with contextlib.closing(Journal(run_dir)) as journal:
        records = [record for record in read_run(run_dir) if whole(record)]
        _describe_fit(plan, run_dir, grader.sandbox)
        search = Search(
            pool=Pool(items, {i: plan.loaded.items[i].oracle for i in items}),
            config_hash=plan.fitting.config_hash,
            seed=plan.config.seed,
            level=plan.level,
            sampling=plan.sampling,
            gates=gates,
            grader=grader,
            budget=budget,
            replies=replies,
            journal=journal,
            records=records,
            node_roles=_node_roles(plan),
            aids=_Aids(plan.cache_dir),
            in_flight=plan.config.jobs,
            listen=searching,
        )
        start = {"event": "start", "status": "running", "problems": len(items), "samples": None}
        start |= {"asked": [*items], "alone": alone, **_session(plan, grader.sandbox)}
        journal.write("session", **start)
        status, reason = "failed", None
        try:
            async with _shown(plan.config.out, run_dir, warn):
                knobs = plan.method.given_to(plan.method.fit, plan.knobs)
                content = await plan.method.fit(search.pool.problems, search, **knobs)
            status = "complete"
        except BaseException as error:
            status, reason = _ending(error)
            if isinstance(error, BudgetReached):
                status = "budget"
            raise
        finally:
            paid = status in ("budget", "refused")
            await search.finish(wait=paid)
            elapsed_s = time.monotonic() - began
            end = {"status": status, "reason": reason, "elapsed_s": round(elapsed_s, 3)}
            journal.write("session", event="end", **end)
        earlier_s = sum(r.get("elapsed_s") or 0.0 for r in records if r["kind"] == "session")
        artifact = Artifact(
            method=plan.method.name,
            content=json.loads(json.dumps(dict(content))),
            benchmark=plan.benchmark.name,
            benchmark_digest=plan.benchmark.digest,
            list_digest=list_digest(items),
            problems=tuple(items),
            config_hash=plan.fitting.config_hash,
            spent=search.cost(earlier_s + elapsed_s),
            run=run_dir.name,
            simulated=any(model.simulated for model in plan.models.values()),
        )
        write_artifact(run_dir / ARTIFACT, artifact)
    await asyncio.to_thread(_ingest, plan.config.out, run_dir, warn)
    return _with(plan, artifact)


async def _pool_items(plan: Plan, grader: Grader, warn: Callable[[str], None]) -> dict[str, Item]:
    """The search problems that the protocol and this environment leave. Raises UsageError."""
    from harness.check import findings

    assert plan.fitting is not None
    ids = plan.fitting.ids
    pool = benchmark_registry.apply(plan.loaded, plan.protocol, only=ids, known=plan.known)
    found = await findings(
        pool, grader, [i for i in ids if i in pool.items], cache_dir=plan.cache_dir
    )
    out = {i: pool.left_out[i] for i in ids if i in pool.left_out}
    out |= {name: finding.reason for name, finding in found.items()}
    if out:
        warn(f"of the search problems, {reasons(out)}")
    items = {i: pool.items[i] for i in ids if i in pool.items and i not in out}
    if not items:
        raise UsageError(f"no problem is left to search on: {reasons(out)}")
    if plan.level is Level.ORACLE:
        items = {i: _revealed(item) for i, item in items.items()}
    return items


def _ending(error: BaseException) -> tuple[str, str]:
    """(status, reason) of a run that an exception ended."""
    if isinstance(error, ModelRefused):
        return "refused", str(error)
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return "interrupted", "interrupted"
    return "failed", str(error) if isinstance(error, HarnessError) else repr(error)


def _job(plan: Plan, run_dir: Path, session: Mapping[str, Any]) -> Job:
    return Job(
        run_dir=run_dir,
        config_hash=plan.config_hash,
        method=plan.method,
        knobs=plan.knobs,
        level=plan.level,
        items=plan.items,
        n_samples=plan.config.n_samples,
        seed=plan.config.seed,
        sampling=plan.sampling,
        in_flight=plan.config.jobs,
        price_table=plan.prices.version,
        artifact=_content(plan),
        node_roles=_node_roles(plan),
        aids=_Aids(plan.cache_dir),
        session=session,
    )


def _content(plan: Plan) -> Mapping[str, Any] | None:
    """What `solve` finds as `ctx.artifact`."""
    return plan.bill if plan.artifact is None else plan.artifact.content


def _node_roles(plan: Plan) -> tuple[str, ...]:
    """The roles whose models a workflow's node may ask for: the worker's, and those added to it."""
    return ("worker", *(role for role in plan.models if role not in plan.method.roles))


@dataclass(frozen=True)
class _Aids(Aids):
    """The small models beside the worker, opened when they are first asked."""

    cache_dir: Path

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        from harness.models import encoder

        return await encoder.embed(texts, cache_dir=self.cache_dir / "models")

    async def compare(self, source: str, candidates: Sequence[str]) -> list[list[float]]:
        from harness.models import pairrm

        folder = pairrm.available(self.cache_dir)
        if folder is None:
            raise UsageError(
                f"PairRM's weights are not in {self.cache_dir / 'models'}: use -A ranker=judge"
            )
        return await pairrm.compare(source, candidates, folder=folder)


def begun(plan: Plan, run_dir: Path | None = None) -> Progress:
    """How far earlier processes brought this plan, from the journal: of the samples asked for.

    Those that its environment could not grade are not asked for. Raises UsageError where the plan
    names a run that was made otherwise.
    """
    job = _job(plan, run_dir or folder(plan), {})
    results: dict[str, Row] = {}
    out: set[str] = set()  # problems that this environment cannot grade
    for record in filter(whole, read_run(job.run_dir)):
        if record["kind"] == "result":
            results[record["result_key"]] = record
        elif record["kind"] == "session" and record.get("environment") == plan.environment:
            out |= (record.get("left_out") or {}).keys()
    asked = [(item, k) for item in plan.items for k in range(plan.config.n_samples)]
    keys = {job.result_key(item, k): item.problem.problem_id for item, k in asked}
    kept = [key for key, problem in keys.items() if key in results or problem not in out]
    return Progress(len(kept), rows={key: results[key] for key in kept if key in results})


def done(progress: Progress) -> int:
    """Samples that have a verdict, and are not asked again."""
    return len(progress.rows) - progress.invalid


def ahead(found: Forecast, progress: Progress) -> Forecast:
    """The part of a run's forecast that is still to come."""
    share = 1 - done(progress) / progress.total if progress.total else 0.0

    def part(ends: tuple[float, float] | None) -> tuple[float, float] | None:
        return None if ends is None else (share * ends[0], share * ends[1])

    calls = {
        role: (math.floor(share * low), math.ceil(share * high))
        for role, (low, high) in found.calls.items()
    }
    return replace(
        found,
        calls=calls,
        tokens=part(found.tokens),
        usd=part(found.usd),
        minutes=part(found.minutes),
    )


def _ranges(found: Forecast) -> dict[str, Any]:
    """The ranges of a forecast as plain data, by name."""
    plain = forecasts.as_dict(found)
    return {name: plain[name] for name in ("calls", "tokens", "usd", "minutes")}


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


def _gates(plan: Plan) -> dict[str, Gate]:
    """A gate for each role; roles of one model share it, models of one server its connections."""
    by_model: dict[int, Gate] = {}
    by_server: dict[str, Connections] = {}
    for model in plan.models.values():
        if id(model) not in by_model:
            server = model.endpoint()
            if server not in by_server:
                by_server[server] = Connections(
                    plan.config.max_connections,
                    start=model.connections,
                    most=model.most_connections,
                )
            by_model[id(model)] = Gate(model, by_server[server])
    return {role: by_model[id(model)] for role, model in plan.models.items()}


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


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _plain(config: Config) -> dict[str, Any]:
    """A config as plain data, without what a URL may hold of secrets."""
    found = asdict(config)
    if config.base_url is not None:
        found["base_url"] = public_url(config.base_url)
    found["base_urls"] = {role: public_url(url) for role, url in config.base_urls.items()}
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return plain


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


def _ids(benchmark: Benchmark, config: Config) -> list[str]:
    """Ids of the problems asked for. Raises UsageError."""
    if config.list not in benchmark.lists:
        valid = ", ".join(benchmark.lists)
        raise UsageError(f"{benchmark.name} has no list {config.list!r}: use one of {valid}")
    ids = list(benchmark.lists[config.list])
    if config.problems is not None:
        if not config.problems:
            raise UsageError("--problems names no problem")
        known = {**{i: i for i in ids}, **{i.rpartition("/")[2]: i for i in ids}}
        unknown = [p for p in config.problems if p not in known]
        if unknown:
            raise UsageError(
                f"{benchmark.name} ({config.list}) has no problem {unknown[0]!r}: ids are like "
                f"{ids[0]} or {ids[0].rpartition('/')[2]}"
            )
        ids = list(dict.fromkeys(known[p] for p in config.problems))
    if config.limit is not None:
        ids = _limited(ids, config.limit)
    return ids


def _limited(ids: list[str], limit: str) -> list[str]:
    """N (the first so many), A-B (positions, 0-based, B included) or a share like 0.1."""
    message = f"--limit is a number, a range like 10-19, or a share like 0.1, not {limit!r}"
    first, dash, last = limit.partition("-")
    try:
        if dash:
            chosen = ids[int(first) : int(last) + 1]
        elif "." in limit:
            share = float(limit)
            if not 0 < share <= 1:
                raise UsageError(message)
            chosen = ids[: max(1, round(share * len(ids)))]
        else:
            chosen = ids[: int(limit)] if int(limit) > 0 else []
    except ValueError:
        raise UsageError(message) from None
    if not chosen:
        raise UsageError(f"--limit {limit} leaves no problem; there are {len(ids)}")
    return chosen


def _sampling(method: Method, config: Config, roles: Sequence[str]) -> dict[str, Sampling]:
    """How each role is asked: the method's own settings, then what the config says of a role."""
    given: dict[str, dict[str, Any]] = {role: dict(s) for role, s in config.sampling.items()}
    for name in SETTINGS:
        value = getattr(config, name, None)
        if value is not None:
            given.setdefault("worker", {})[name] = value
    if unknown := [role for role in given if role not in roles]:
        raise UsageError(f"{method.name} has no role {unknown[0]!r}; its roles: {', '.join(roles)}")
    sampling: dict[str, Sampling] = {}
    for role in roles:
        settings = {
            name: setting_of(name, value, f"--sampling {role}.{name}")
            for name, value in given.get(role, {}).items()
        }
        check_extra(settings.get("extra_body", {}))
        usual = sampling["worker"] if role not in method.roles else Sampling()
        sampling[role] = replace(method.sampling.get(role, usual), **settings)
    return sampling


def _usual_cache() -> Path:
    """The cache folder where none is given."""
    return user_cache_path("flowreasoner-harness")


def _servers(endpoints: Mapping[str, Endpoint], *, keyless: bool) -> dict[str, Endpoint]:
    """The endpoints by provider; where `keyless`, with a stand-in for each key that is not given.

    Raises UsageError, which never shows a value: it may be a key.
    """
    for provider, endpoint in endpoints.items():
        if provider not in REMOTE:
            raise UsageError(f"endpoints has no provider {provider!r}: {advice(provider, REMOTE)}")
        if not isinstance(endpoint, Endpoint):
            raise UsageError(f'endpoints wants {{"{provider}": Endpoint(api_key=...)}}')
    found = dict(endpoints)
    for provider in REMOTE if keyless else ():
        given = found.get(provider, Endpoint())
        found[provider] = replace(given, api_key=given.api_key or "none")
    return found


def _check_models(models: Mapping[str, Model]) -> None:
    """Raise UsageError for what is no ready-made model."""
    for role, model in models.items():
        if not hasattr(model, "complete"):
            raise UsageError(
                f"models wants ready-made models, and {role} is {model!r}: a model's name goes to "
                "worker=, meta= or roles="
            )


def _models(
    method: Method,
    config: Config,
    endpoints: Mapping[str, Endpoint],
    ready: Mapping[str, Model],
    cache_dir: Path,
    prices: Prices,
) -> dict[str, Model]:
    """A model for every role of the method; a role that is not named gets the worker's.

    One name at one server is one model, at two servers two.
    """
    more = [role for role in {**config.roles, **ready} if role not in method.roles]
    roles = (*method.roles, *(sorted(more) if method.nodes else ()))
    for role in (*config.roles, *config.base_urls, *ready):
        if role not in roles or not ROLE_NAME.fullmatch(role):
            raise UsageError(
                f"{method.name} has no role {role!r}; its roles: {', '.join(method.roles)}"
            )
    specs = {role: config.roles.get(role) for role in roles} | {"worker": config.worker}
    if config.base_url is not None:
        named = [spec.partition("/")[0] for spec in specs.values() if spec]
        remote = [provider for provider in named if provider in REMOTE]
        if not remote:
            raise UsageError("--base-url is given, but no model is behind a server")
        endpoints = {
            **endpoints,
            remote[0]: _at(config.base_url, "--base-url", endpoints, remote[0]),
        }
    found: dict[str, Model] = {}
    at: dict[tuple[str, str | None], Model] = {}
    for role, named_spec in specs.items():
        url = config.base_urls.get(role)
        spec = named_spec or (config.worker if url else None)
        if role in ready and url is None:
            found[role] = ready[role]
        elif spec is None and url is None:
            found[role] = found["worker"]
        elif spec is None or role in ready:
            raise UsageError(
                f"--role-url {role}: name a model for {role}, a ready-made one has none"
            )
        else:
            provider = spec.partition("/")[0]
            if url is not None:
                if provider not in REMOTE:
                    raise UsageError(f"--role-url {role}: {spec} is not behind a server")
                server = _at(url, f"--role-url {role}", endpoints, provider)
            else:
                server = endpoints.get(provider, Endpoint())
            if (spec, server.base_url) not in at:
                told = {**endpoints, provider: server} if url else endpoints
                at[spec, server.base_url] = _resolved(spec, told, cache_dir, prices)
            found[role] = at[spec, server.base_url]
    return found


def _at(url: str, origin: str, endpoints: Mapping[str, Endpoint], provider: str) -> Endpoint:
    """A provider's endpoint with another URL; `origin` is the flag that gave it."""
    return Endpoint(url, endpoints.get(provider, Endpoint()).api_key, origin=origin)


def _resolved(
    spec: str, endpoints: Mapping[str, Endpoint], cache_dir: Path, prices: Prices
) -> Model:
    """The model of a name. Raises UsageError; of a missing key in words for who passes keys."""
    provider, _, name = spec.partition("/")
    try:
        return resolve(spec, endpoints=endpoints, cache_dir=cache_dir, prices=prices)
    except UsageError:
        if provider not in REMOTE or provider in endpoints or not name:
            raise
        raise UsageError(
            f'{spec} needs a key: endpoints={{"{provider}": Endpoint(api_key=...)}}, '
            "with `from harness import Endpoint`"
        ) from None


def _method_digest(method: Method) -> str:
    """Digest of everything of ours that shapes a method's behaviour: its file and shared steps."""
    here, package = Path(__file__).parent, Path(baselines.__file__).parent
    source = inspect.getsourcefile(method.solve)
    assert source is not None
    shared = [here / "extract.py", here / "workflow.py", here / "guest" / "workflow.py"]
    return source_digest(Path(source), package / "operators.py", *shared)


def folder(plan: Plan) -> Path:
    """Where this plan's run lives: the newest of its config, or a new one with --fresh.

    Raises UsageError when the config names a run that was made otherwise.
    """
    if plan.config.run is not None:
        return _very_run(plan, plan.config.out / "runs" / plan.config.run)
    name = _run_name(plan, plan.config_hash)
    newest = max(_runs_named(plan, name), default=0)
    return plan.config.out / "runs" / _numbered(name, max(1, newest + plan.config.fresh))


def fit_folder(plan: Plan) -> Path:
    """Where the fit of a plan lives: the newest of its settings, or a new one with --fresh."""
    name = _fit_name(plan)
    newest = max(_runs_named(plan, name), default=0)
    return plan.config.out / "runs" / _numbered(name, max(1, newest + plan.config.fresh))


def _run_name(plan: Plan, config_hash: str) -> str:
    worker = plan.models["worker"].name.rpartition("/")[2].removesuffix(".gguf")
    return f"{plan.benchmark.name}-{plan.method.name}-{worker}-{config_hash[:8]}"


def _fit_name(plan: Plan) -> str:
    assert plan.fitting is not None
    return f"fit-{_run_name(plan, plan.fitting.config_hash)}"


def _runs_named(plan: Plan, name: str) -> dict[int, Path]:
    """The folders of runs of this name, by number; 1 is that without one."""
    pattern = re.compile(rf"{re.escape(name)}(?:-(\d+))?")
    found = ((pattern.fullmatch(path.name), path) for path in _entries(plan.config.out / "runs"))
    return {int(match[1] or 1): path for match, path in found if match}


def _entries(folder: Path) -> list[Path]:
    """What a folder holds; nothing where there is none."""
    return list(folder.iterdir()) if folder.is_dir() else []


def _very_run(plan: Plan, run_dir: Path) -> Path:
    """The folder of the run to go on with. Raises UsageError when the plan is not of its config."""
    from harness.store import read_run_json

    if read_run_json(run_dir).get("config_hash") == plan.config_hash:
        return run_dir
    raise UsageError(
        f"{run_dir.name} cannot go on: the method, the data, the grader or the models have changed "
        f"since; to make the row anew: {plan.full_command()}"
    )


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _describe(plan: Plan, run_dir: Path, sandbox: Sandbox) -> None:
    """Write run.json: everything needed to say what a row is, and to make it again.

    The run's first process writes it; what later ones change stands in their session records.
    """
    from harness.store import read_run_json

    path = run_dir / "run.json"
    if path.exists():
        head = read_run_json(run_dir)
        if head.get("first_look") and not plan.first_look:  # it was extended to a real one
            write_atomically(path, canonical({**head, "first_look": False}))
        return
    write_atomically(path, canonical(_description(plan, run_dir, sandbox)))


def _description(plan: Plan, run_dir: Path, sandbox: Sandbox) -> dict[str, Any]:
    """All of an evaluation's run.json."""
    simulated = any(model.simulated for model in plan.models.values())
    simulated = simulated or (plan.artifact is not None and plan.artifact.simulated)
    roles = {
        role: {
            "model": model.name,
            "identity": model.identity(),
            "sampling": plan.sampling[role].as_dict(),
        }
        for role, model in plan.models.items()
    }
    return {
        "run_id": run_dir.name,
        "stage": "eval",
        "artifact": None if plan.artifact is None else plan.artifact.described(),
        "match": None if plan.bill is None else plan.bill["match"],
        "config_hash": plan.config_hash,
        "benchmark": plan.benchmark.name,
        "benchmark_digest": plan.benchmark.digest,
        "custom": plan.benchmark.custom,
        "needs_environment": needs_environment(plan.benchmark),
        "list": plan.config.list,
        "protocol": plan.protocol,
        "level": str(plan.level),
        "method": plan.method.name,
        "method_digest": _method_digest(plan.method),
        "knobs": plan.knobs,
        "roles": roles,
        "seed": plan.config.seed,
        "first_look": plan.first_look,
        "sandbox_facts": facts(sandbox),
        "grader_version": GRADER_VERSION,
        "price_table": plan.prices.version,
        "prompts_digest": _prompts_digest(plan),
        "kind": "simulated" if simulated else "measured",
        "host": provenance.host(),
        "started_at": round(time.time(), 3),
        **_session(plan, sandbox),
    }


def _describe_fit(plan: Plan, run_dir: Path, sandbox: Sandbox) -> None:
    """Write run.json of a fit: a row of an evaluation in all, but for what it is on."""
    assert plan.fitting is not None
    if (run_dir / "run.json").exists():
        return
    described = _description(plan, run_dir, sandbox)
    described |= {
        "stage": "fit",
        "artifact": None,
        "config_hash": plan.fitting.config_hash,
        "list": "search",
        "first_look": False,
        "n_samples": 1,
        "left_out": {},
        "problems": [*plan.fitting.ids],
    }
    write_atomically(run_dir / "run.json", canonical(described))


def _prompts_digest(plan: Plan) -> str:
    """Digest of the task texts of this run's problems, as the protocol shows them."""
    return digest(canonical({i.problem.problem_id: i.problem.prompt for i in plan.items}))


def _session(plan: Plan, sandbox: Sandbox) -> dict[str, Any]:
    """What one process brings to a run and a later one may bring differently."""
    commit, dirty = provenance.commit()
    return {
        "sandbox": sandbox.tier,
        "harness_version": __version__,
        "commit": commit,
        "dirty": dirty,
        "versions": provenance.versions(),
        "command": provenance.command(plan, usual_cache=_usual_cache()),
        "limit": plan.config.limit,
        "n_samples": plan.config.n_samples,
        "environment": plan.environment,
        "left_out": plan.left_out,
        "config": _plain(plan.config),
    }


@contextlib.asynccontextmanager
async def _shown(results: Path, run_dir: Path, warn: Callable[[str], None]) -> AsyncIterator[None]:
    """Keep the database and the board's snapshot fresh while a run goes on."""

    at_work: asyncio.Future[None] | None = None

    async def refresh() -> None:
        nonlocal at_work
        while True:
            await asyncio.sleep(SNAPSHOT_S)
            at_work = asyncio.ensure_future(asyncio.to_thread(_ingest, results, run_dir, warn))
            await asyncio.shield(at_work)

    task = asyncio.create_task(refresh())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if at_work is not None:  # a thread cannot be cancelled, and holds the database's lock
            await asyncio.wait([at_work])


def _ingest(results: Path, run_dir: Path, warn: Callable[[str], None]) -> None:
    """Bring the database up to date. A failure is said; the journals have everything."""
    from harness.store import Store

    try:
        store = Store(results)
        report = store.ingest(run_dir)
        store.snapshot()
        for problem in report.problems:
            warn(problem)
    except StoreError as error:
        warn(f"the board was not brought up to date: {error}; the journal has everything")


__all__ = [
    "CACHE_MODES",
    "Config",
    "Endpoint",
    "HarnessError",
    "Options",
    "Plan",
    "Summary",
    "absent_weights",
    "ahead",
    "begun",
    "done",
    "evaluate",
    "evaluate_async",
    "execute",
    "fetch_weights",
    "prepare",
]
