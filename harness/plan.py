"""A run that is settled and has spent nothing yet: what `eval` and `fit` go by.

`prepare` checks everything that can be checked before a token is spent: names, knobs, presets,
protocol and level, problems, models, what a search found, and what makes two runs the same.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

import baselines
from harness import benchmarks as benchmark_registry
from harness import forecast as forecasts
from harness import provenance
from harness.benchmarks import PROTOCOL_LEVELS, Benchmark, Item, Known, reasons
from harness.benchmarks.suite import leave_out, list_digest
from harness.config import SETTINGS, advice, setting_of
from harness.context import Aids
from harness.errors import UsageError
from harness.forecast import Forecast
from harness.grade import VERSION as GRADER_VERSION
from harness.grading import interpreters, needs_environment
from harness.journal import canonical, digest, last_results, read_run, whole
from harness.models import Endpoint, resolve
from harness.models.prices import Prices
from harness.models.wire import check_extra
from harness.options import Config, check_data_dir, check_out
from harness.run import Job, Progress, source_digest
from harness.sandbox import own_interpreter
from harness.search import DESK, Artifact, read_artifact
from harness.types import (
    Completion,
    Knobs,
    Level,
    Method,
    Model,
    Problem,
    Protocol_,
    Sampling,
)

DEFAULT_MODEL = "local/qwen2.5-coder-1.5b-instruct"  # embedded: needs no key and no server
# A bare run with the embedded model: a problem that its one call solves and two where it fails an
# example of the prompt, so that there is something to improve; and few rounds, for minutes.
FIRST_LOOK = ("HumanEval/0", "HumanEval/10", "HumanEval/54")
FIRST_LOOK_KNOBS = {"rounds": 2}
ARTIFACT = "artifact.json"  # in the folder of a fit's run
_LEVELS = [Level.L0, Level.L1, Level.L2, Level.L3]
ROLE_NAME = re.compile(r"[A-Za-z][\w-]*")
REMOTE = ("openai", "anthropic", "vllm")  # providers that --base-url may speak of


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
    seen: frozenset[str] = frozenset()  # problems that were searched or trained on

    def __repr__(self) -> str:
        models = ", ".join(f"{role} {model.name}" for role, model in self.models.items())
        what = f"{self.method.name} on {self.benchmark.name}, {len(self.items)} problems"
        return f"<Plan: {what}; {models}>"

    @functools.cached_property
    def everything(self) -> int:
        """How many problems of the whole list the protocol leaves."""
        ids = [i for i in self.loaded.lists[self.config.list] if i not in self.seen]
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
            "ahead": ranges(ahead(found, progress)),
        }

    @property
    def asked_role(self) -> str:
        """The role that a run is named by: the worker, or where none is asked the first that is."""
        asked = self.method.calls(self.knobs)
        return "worker" if "worker" in asked else next(iter(asked))

    @property
    def greedy(self) -> bool:
        """Whether equal requests to the worker get equal answers."""
        sampled = self.sampling["worker"].temperature > 0
        return not sampled and not self.models["worker"].samples_always

    def calls(self, *, full: bool = False) -> dict[str, tuple[int, int]]:
        """{role: (fewest, most)} model calls of this run, or of the `full` one: all problems."""
        count = (self.everything if full else len(self.items)) * self.config.n_samples
        knobs = dict(self.full_knobs if full else self.knobs)
        if self.bill is not None and knobs.get("by") == "executions":
            told = [self.bill["bill"].get(i.problem.problem_id) for i in self.items]
            drawn = sum(max(1, one["executions"]) if one else knobs["n"] for one in told)
            expected = round(drawn / len(told) * count)
            return {"worker": (expected, expected)}
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
        return {"done": False, "problems": len(self.unfitted.items), **ranges(found)}

    def full_command(self) -> str:
        """The command that runs all problems with the method's own knobs."""
        return provenance.command(self, usual_cache=usual_cache(), full=True)


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
    root = Path(cache_dir) if cache_dir else usual_cache()
    prices = Prices(config.prices)
    ready = _models(method, config, servers, models or {}, root / "models", prices)
    trained = _trained(method, ready, config.knobs, notes)
    knobs = baselines.knobs(method, {**trained, **given})
    full_knobs = baselines.knobs(method, {**trained, **config.knobs})
    if method.settle is not None:
        there = functools.partial(_there, root)
        knobs |= method.settle(knobs, there)
        full_knobs |= method.settle(full_knobs, there)
    level = _level(method, knobs, protocol, config.level)
    if level is Level.L0 and method.level_of and method.level_of(knobs) is Level.L1:
        notes.append(f"protocol {protocol} has no example that the prompt shows, so none is run")
    sampling = _sampling(method, config, tuple(ready))
    ids = _ids(benchmark, config)
    loaded = benchmark
    pool = _pool(method, knobs, loaded, config)
    if len(pool) == len(loaded.lists.get("search", ())) and "search_problems" in knobs:
        knobs["search_problems"] = full_knobs["search_problems"] = 0  # all of them
    if config.artifact is not None:
        notes.append(f"--artifact {config.artifact}: searched with settings of its own")
    if method.matches and knobs.get("by") == "tokens" and not knobs.get("match"):
        raise UsageError(f"{method.name}: by=tokens wants match=RUN, whose tokens it may use")
    artifact = None if config.artifact is None else _given_artifact(config, method)
    seen = {*(artifact.problems if artifact is not None else pool)}
    seen |= {name for model in ready.values() for name in model.trained_on}
    if like is not None and like.protocol == protocol and not {*seen} & {*ids}:
        kept, benchmark = like.known, like.benchmark
    else:
        kept = Known(root / "checks", loaded.digest, protocol)
        benchmark = benchmark_registry.apply(loaded, protocol, only=ids, known=kept)
        benchmark = leave_out(benchmark, seen, f"{method.name} was searched or trained on these")
    items = [benchmark.items[i] for i in ids if i in benchmark.items]
    if level is Level.ORACLE:
        items = [revealed(item) for item in items]
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
        "source": method_digest(method),
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
    if level is not _level(method, knobs, protocol, None):
        identity["level"] = str(level)
    bill = _bill(config.out, knobs["match"]) if method.matches and knobs.get("match") else None
    if bill is not None:
        identity["bill"] = digest(canonical(bill))
        notes += _unbilled(bill, knobs, protocol, [item.problem.problem_id for item in items])
    if method.peers(knobs):  # who is whose peer follows from all of them
        if len(items) < 2:
            raise UsageError(f"{method.name}: with these knobs it wants at least two problems")
        identity["peers"] = list_digest([item.problem.problem_id for item in items])
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
        seen=frozenset(seen),
    )
    return refreshed(plan) if artifact is None else with_artifact(plan, artifact)


def refreshed(plan: Plan) -> Plan:
    """The plan with what a fit of its settings has found by now, if there is one."""
    found = None if plan.fitting is None else _newest_artifact(plan)
    return with_artifact(plan, found)


def with_artifact(plan: Plan, artifact: Artifact | None) -> Plan:
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


def _there(root: Path, name: str) -> bool:
    """Whether the weights of a small model beside the worker are on this machine."""
    if name != "pairrm":
        raise ValueError(f"{name}: no such model")
    from harness.models import pairrm

    return pairrm.available(root) is not None


def _trained(
    method: Method, models: Mapping[str, Model], given: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    """The knobs that the meta-agent's checkpoint was trained with, where they are not given."""
    if "meta" not in models:
        return {}
    known, model = baselines.known_knobs(method), models["meta"]
    told = model.trained_knobs.items()
    found = {name: value for name, value in told if name in known and name not in given}
    notes += [f"{model.name} was trained with {name}={value}" for name, value in found.items()]
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
    found = min(bounds, key=_LEVELS.index)
    # L1 is for examples that the prompt shows, and other protocols have none as feedback
    unseen = found is Level.L1 and PROTOCOL_LEVELS[protocol] is not Level.L1
    return Level.L0 if unseen else found


def revealed(item: Item) -> Item:
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
    from harness.store import find_run, read_run_json

    run_dir = find_run(out, name)
    executions: dict[str, int] = {}
    tokens: dict[str, list[int]] = {}
    for record in filter(whole, read_run(run_dir)):
        if record["kind"] == "session" and record["event"] == "start":
            # what was cut off is run again, and journaled again
            executions = {key: n for key, n in executions.items() if key in tokens}
        elif record["kind"] == "workflow" and record["calls"]:  # else no model was asked
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
        "protocol": read_run_json(run_dir).get("protocol"),
        "bill": {
            problem: {
                "executions": round(sum(e for e, _ in found) / len(found)),
                "tokens": round(sum(t for _, t in found) / len(found)),
            }
            for problem, found in by_problem.items()
        },
    }


def _unbilled(
    bill: Mapping[str, Any], knobs: Knobs, protocol: str, ids: Sequence[str]
) -> list[str]:
    """What is to be said of a bill. Raises UsageError for one that could match nothing."""
    name, by_problem = bill["match"], bill["bill"]
    known = [by_problem[problem] for problem in ids if problem in by_problem]
    if not known:
        raise UsageError(f"match={name}: it has none of these problems")
    if knobs.get("by") == "executions" and not any(one["executions"] for one in known):
        raise UsageError(f"match={name}: it ran no workflow; use -A by=tokens")
    short = len(ids) - len(known)
    said = [f"match={name} has not got {short} of these problems: n there"] if short else []
    if bill["protocol"] != protocol:
        said.append(f"match={name} was under protocol {bill['protocol']}, this is {protocol}")
    return said


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


def job_of(plan: Plan, run_dir: Path, session: Mapping[str, Any]) -> Job:
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
        artifact=artifact_content(plan),
        node_roles=node_roles(plan),
        aids=SmallModels(plan.cache_dir),
        session=session,
    )


def artifact_content(plan: Plan) -> Mapping[str, Any] | None:
    """What `solve` finds as `ctx.artifact`."""
    return plan.bill if plan.artifact is None else plan.artifact.content


def node_roles(plan: Plan) -> tuple[str, ...]:
    """The roles whose models a workflow's node may ask for: the worker's, and those added to it."""
    return ("worker", *(role for role in plan.models if role not in plan.method.roles))


@dataclass(frozen=True)
class SmallModels(Aids):
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
    run_dir = run_dir or folder(plan)
    records = list(filter(whole, read_run(run_dir)))
    results = last_results(records)
    out: set[str] = set()  # problems that this environment cannot grade
    for record in records:
        if record["kind"] == "session" and record.get("environment") == plan.environment:
            out |= (record.get("left_out") or {}).keys()
    can = [item for item in plan.items if item.problem.problem_id not in out]
    among = can if plan.method.peers(plan.knobs) else plan.items  # peers are of those that can
    job = job_of(replace(plan, items=among), run_dir, {})
    asked = [(item, k) for item in among for k in range(plan.config.n_samples)]
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


def ranges(found: Forecast) -> dict[str, Any]:
    """The ranges of a forecast as plain data, by name."""
    plain = forecasts.as_dict(found)
    return {name: plain[name] for name in ("calls", "tokens", "usd", "minutes")}


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


def usual_cache() -> Path:
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
    if "meta" in more:  # no workflow's node: a role of methods that have one
        more.remove("meta")
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


def method_digest(method: Method) -> str:
    """Digest of everything of ours that shapes a method's behaviour: its file and shared steps."""
    here, package = Path(__file__).parent, Path(baselines.__file__).parent
    try:
        source = inspect.getsourcefile(inspect.unwrap(method.solve))
        own = Path(str(source))
        if source is None or not own.is_file():
            raise TypeError
    except TypeError:
        raise UsageError(
            f"method {method.name}: its solve has to be a function of a Python file"
        ) from None
    guests = [here / "guest" / "workflow.py", here / "guest" / "agents.py"]
    shared = [package / "operators.py", here / "extract.py", here / "workflow.py", *guests]
    files = _imported(own, package, method.solve.__module__.partition(".")[0])
    return source_digest(*(file for file in files if file not in shared), *shared)


def _imported(source: Path, ours: Path, top: str, seen: tuple[Path, ...] = ()) -> tuple[Path, ...]:
    """A method's file and those that it is made of, in the order of its imports.

    Of `baselines`, which lies in `ours`, and of the method's own package, `top`.
    """
    seen = (*seen, source)
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            parent = source.parents[node.level - 1] if node.level else None
            near = [parent / f"{name.name}.py" for name in node.names] if parent else []
            if parent and node.module:
                near.append(parent / f"{node.module.replace('.', '/')}.py")
            names = [node.module] if node.module and not node.level else []
            names += [f"{node.module}.{name.name}" for name in node.names if not node.level]
        elif isinstance(node, ast.Import):
            near, names = [], [name.name for name in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "baselines" and rest:
                near.append(ours / f"{rest.replace('.', '/')}.py")
            elif package == top != "baselines":
                spec = importlib.util.find_spec(name) if _is_module(name) else None
                near += [Path(spec.origin)] if spec and spec.origin else []
        for file in near:
            if file not in seen and file.is_file() and file.suffix == ".py":
                seen = _imported(file, ours, top, seen)
    return seen


def _is_module(name: str) -> bool:
    """Whether a dotted name is a module's: what is imported from one may be a function."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


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
    worker = plan.models[plan.asked_role].name.rpartition("/")[2].removesuffix(".gguf")
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
    before = (read_run_json(run_dir).get("artifact") or {}).get("digest")
    if before and plan.artifact is not None and before != plan.artifact.digest:
        raise UsageError(
            f"{run_dir.name} cannot go on: a later search found something else; name the one that "
            "it used by --artifact"
        )
    raise UsageError(
        f"{run_dir.name} cannot go on: the method, the data, the grader or the models have changed "
        f"since; to make the row anew: {plan.full_command()}"
    )


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"
