"""What a run keeps beside its samples: run.json, facts of each session, the database.

Shared by evaluations (`harness.api`) and searches (`harness.fitting`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import __version__, provenance
from harness.errors import HarnessError, ModelRefused, StoreError
from harness.grade import VERSION as GRADER_VERSION
from harness.grading import needs_environment
from harness.journal import canonical, digest, write_atomically
from harness.models.wire import public_url
from harness.options import Config
from harness.pacing import Connections, Gate
from harness.plan import Plan, method_digest, usual_cache
from harness.sandbox import Sandbox, facts

SNAPSHOT_S = 30.0  # how often a running evaluation is shown to the board


def ending(error: BaseException) -> tuple[str, str]:
    """(status, reason) of a run that an exception ended."""
    if isinstance(error, ModelRefused):
        return "refused", str(error)
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return "interrupted", "interrupted"
    return "failed", str(error) if isinstance(error, HarnessError) else repr(error)


def gates_of(plan: Plan) -> dict[str, Gate]:
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


async def close_models(plan: Plan) -> None:
    """Close each of a plan's models, also where another one fails to; roles may share one."""
    async with contextlib.AsyncExitStack() as at_end:
        for model in {id(m): m for m in plan.models.values()}.values():
            at_end.push_async_callback(model.close)


def describe(plan: Plan, run_dir: Path, sandbox: Sandbox) -> None:
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


def _description(plan: Plan, run_dir: Path, sandbox: Sandbox, verb: str = "eval") -> dict[str, Any]:
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
        "method_digest": method_digest(plan.method),
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
        **session_facts(plan, sandbox, verb),
    }


def describe_fit(plan: Plan, run_dir: Path, sandbox: Sandbox) -> None:
    """Write run.json of a fit: a row of an evaluation in all, but for what it is on."""
    assert plan.fitting is not None
    if (run_dir / "run.json").exists():
        return
    described = _description(plan, run_dir, sandbox, "fit")
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


def session_facts(plan: Plan, sandbox: Sandbox, verb: str = "eval") -> dict[str, Any]:
    """What one process brings to a run and a later one may bring differently.

    `verb` is the command that makes it: `eval`, or `fit` for its search.
    """
    commit, dirty = provenance.commit()
    return {
        "sandbox": sandbox.tier,
        "harness_version": __version__,
        "commit": commit,
        "dirty": dirty,
        "versions": provenance.versions(),
        "command": provenance.command(plan, usual_cache=usual_cache(), verb=verb),
        "limit": plan.config.limit,
        "n_samples": plan.config.n_samples,
        "environment": plan.environment,
        "left_out": plan.left_out,
        "config": _plain(plan.config),
    }


def _plain(config: Config) -> dict[str, Any]:
    """A config as plain data, without what a URL may hold of secrets."""
    found = asdict(config)
    if config.base_url is not None:
        found["base_url"] = public_url(config.base_url)
    found["base_urls"] = {role: public_url(url) for role, url in config.base_urls.items()}
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return plain


@contextlib.asynccontextmanager
async def shown(results: Path, run_dir: Path, warn: Callable[[str], None]) -> AsyncIterator[None]:
    """Keep the database and the board's snapshot fresh while a run goes on."""

    at_work: asyncio.Future[None] | None = None

    async def refresh() -> None:
        nonlocal at_work
        while True:
            await asyncio.sleep(SNAPSHOT_S)
            at_work = asyncio.ensure_future(asyncio.to_thread(ingest, results, run_dir, warn))
            await asyncio.shield(at_work)

    task = asyncio.create_task(refresh())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if at_work is not None:  # a thread cannot be cancelled, and holds the database's lock
            await asyncio.wait([at_work])


def ingest(results: Path, run_dir: Path, warn: Callable[[str], None]) -> None:
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
