"""`fit`: a method's search or training before it answers, as a run of its own.

Its journal lies beside those of evaluations; what was found is `artifact.json` in its folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from harness import benchmarks as benchmark_registry
from harness.benchmarks import Item, reasons
from harness.benchmarks.suite import list_digest
from harness.budget import Budget
from harness.errors import BudgetReached, UsageError
from harness.grade import Grader
from harness.grading import open_grader
from harness.journal import Journal, read_run, read_segment, segments, whole
from harness.pacing import Gate
from harness.plan import (
    ARTIFACT,
    Plan,
    SmallModels,
    fit_folder,
    node_roles,
    revealed,
    with_artifact,
)
from harness.record import (
    close_models,
    describe_fit,
    ending,
    gates_of,
    ingest,
    session_facts,
    shown,
)
from harness.replies import REPLIES, ReplyCache
from harness.replies import Mode as CacheMode
from harness.run import Row
from harness.search import Artifact, Found, Pool, Search, write_artifact
from harness.types import (
    Level,
)


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
    begun = not (fit_folder(plan) / ARTIFACT).is_file()  # the newest, or with `fresh` a new one
    if plan.artifact is None or begun:
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
                plan = await fitted(
                    plan, grader, gates_of(plan), budget, replies, warn, searching, alone=True
                )
            finally:
                await close_models(plan)
                replies.close()
    assert plan.artifact is not None
    return Fitted(plan, plan.artifact, config.out / "runs" / str(plan.artifact.run) / ARTIFACT)


def not_fresh(plan: Plan) -> Plan:
    """The plan as one that goes on with a search that was begun: --fresh is of the evaluation."""
    return replace(plan, config=replace(plan.config, fresh=False))


def searched_for(plan: Plan) -> list[Row]:
    """What this evaluation's own processes recorded of its search: part of what it may spend.

    What `fit` or another evaluation searched is not. A process writes one segment.
    """
    run_dir = fit_folder(not_fresh(plan))
    found: list[Row] = []
    for path in segments(run_dir):
        records = [r for _, _, r in read_segment(path) if r is not None and whole(r)]
        if any(r["kind"] == "session" and r.get("for") == _wanted_by(plan) for r in records):
            found += records
    return found


def _wanted_by(plan: Plan) -> str:
    """What names an evaluation before its search is done."""
    return with_artifact(plan, None).config_hash


async def fitted(
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
    run_dir = fit_folder(plan if alone else not_fresh(plan))
    with contextlib.closing(Journal(run_dir)) as journal:
        records = [record for record in read_run(run_dir) if whole(record)]
        describe_fit(plan, run_dir, grader.sandbox)
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
            node_roles=node_roles(plan),
            aids=SmallModels(plan.cache_dir),
            in_flight=plan.config.jobs,
            listen=searching,
        )
        start = {"event": "start", "status": "running", "problems": len(items), "samples": None}
        wanted = None if alone else _wanted_by(plan)
        start |= {"asked": [*items], "for": wanted, **session_facts(plan, grader.sandbox, "fit")}
        journal.write("session", **start)
        status, reason = "failed", None
        try:
            async with shown(plan.config.out, run_dir, warn):
                knobs = plan.method.given_to(plan.method.fit, plan.knobs)
                found = await plan.method.fit(search.pool.problems, search, **knobs)
            content = _plain(plan.method.name, found)
            status = "complete"
        except BaseException as error:
            status, reason = ending(error)
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
            content=content,
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
    await asyncio.to_thread(ingest, plan.config.out, run_dir, warn)
    return with_artifact(plan, artifact)


def _plain(method: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """What a fit returned, as JSON has it. Raises UsageError: it is no plain data."""
    try:
        content: dict[str, Any] = json.loads(json.dumps(dict(found), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{method}: its fit has to return plain data: {error}") from error
    return content


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
        items = {i: revealed(item) for i, item in items.items()}
    return items
