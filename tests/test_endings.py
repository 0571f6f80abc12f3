"""How runs end: what is counted, kept and closed when something stops in the middle."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from harness import api
from harness.benchmarks.known import Known
from harness.errors import ModelRefused, ModelUnavailable, RequestRejected, StoreError
from harness.grade import Grader
from harness.journal import Journal, read_run
from harness.models.scripted import ScriptedModel
from harness.record import close_models
from harness.replies import ReplyCache
from harness.sandbox import Sandbox
from harness.store import Store
from harness.types import Completion, Level, Method, Solution, WorkflowLimits
from tests.support import RIGHT, Desk

ACCEPT = "FEEDBACK: none\nVERDICT: correct"


class Worth(ScriptedModel):
    """A script whose replies are kept, as a model's are."""

    cacheable = True


async def test_a_kept_answer_proves_the_model_so_one_rejection_is_one_samples(
    tmp_path: Path, grader: Grader
) -> None:
    with ReplyCache(tmp_path / "replies.sqlite") as replies:
        first = Desk(tmp_path / "a", grader, {"worker": []}, kept=replies)
        gate = first.ctx.gates["worker"]
        gate.model = Worth("scripted/worker", [RIGHT])
        await first.ctx.ask("known")
        again = Desk(tmp_path / "b", grader, {"worker": []}, kept=replies)
        gate = again.ctx.gates["worker"]
        gate.model = Worth("scripted/worker", [RequestRejected("too long")] * 3)
        await again.ctx.ask("known")
        for number in range(3):
            with pytest.raises(RequestRejected):
                await again.ctx.ask(f"unknown {number}")
    assert gate.served_by == {"scripted/worker"}
    assert [c["cached"] for c in again.records("call")] == [True, False, False, False]
    assert again.ctx.totals.cached_calls == 1


async def test_what_a_cut_off_sample_paid_is_counted(tmp_path: Path, sandbox: Sandbox) -> None:
    replies = ["no code", ACCEPT, "no code", ACCEPT]
    model = ScriptedModel("scripted/known", replies)
    config = api.Config(method="self-refine", out=tmp_path, limit="3", jobs=1, budget_tokens=150)
    summary = await api.execute(api.prepare(config, models={"worker": model}), sandbox=sandbox)
    answered = [r for r in read_run(summary.run_dir) if r["kind"] == "call" and not r["error"]]
    found = summary.as_dict()
    assert found["status"] == "budget"
    assert len(summary.progress.rows) < 3
    assert found["calls"] == len(answered) == len(model.requests)
    assert found["tokens"] == sum(r["prompt_tokens"] + r["completion_tokens"] for r in answered)


async def test_calls_that_a_method_left_in_flight_make_its_tokens_unknown(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hedge(problem, ctx):  # type: ignore[no-untyped-def]
        asked = [asyncio.create_task(ctx.ask(f"{problem.prompt} {n}")) for n in range(3)]
        done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        return Solution(done.pop().result().text)

    class Slow(ScriptedModel):
        async def complete(self, messages, sampling, **rest) -> Completion:  # type: ignore[no-untyped-def]
            reply = await super().complete(messages, sampling, **rest)
            await asyncio.sleep(0.0 if len(self.requests) == 1 else 30.0)
            return reply

    method = Method("hedge", hedge, "first of three", Level.L0, lambda knobs: {"worker": (3, 3)})
    monkeypatch.setattr("baselines.load", lambda name: method)
    model = Slow("scripted/slow", lambda messages: "no code")
    plan = api.prepare(api.Config(out=tmp_path, limit="1"), models={"worker": model})
    summary = await asyncio.wait_for(api.execute(plan, sandbox=sandbox), 20)
    (row,) = summary.progress.rows.values()
    assert (row["calls"], row["prompt_tokens"]) == (1, None)
    left = [r for r in read_run(summary.run_dir) if r.get("error_kind") == "cancelled"]
    assert len(left) == 2
    assert all(r["charged_tokens"] > 0 for r in left)


async def test_calls_beside_one_that_fails_in_a_workflow_are_finished_and_kept(
    tmp_path: Path, grader: Grader
) -> None:
    class Mixed(ScriptedModel):
        async def complete(self, messages, sampling, **rest) -> Completion:  # type: ignore[no-untyped-def]
            if "FAIL" in messages[-1]["content"]:
                await asyncio.sleep(0.1)
                raise ModelRefused("403")
            await asyncio.sleep(0.4)
            return await super().complete(messages, sampling, **rest)

    from baselines.operators import OPERATORS

    desk = Desk(tmp_path, grader, {"worker": []})
    desk.ctx.gates["worker"].model = Mixed("scripted/mixed", lambda messages: "fine")
    desk.ctx.gates["worker"].proven = desk.ctx.gates["worker"].answered = True
    desk.ctx.workflow_limits = WorkflowLimits()
    code = (
        "import asyncio\n"
        "class Workflow:\n"
        "    async def __call__(self, problem, entry_point):\n"
        "        asked = [self.custom(input=i) for i in ('a', 'FAIL', 'b')]\n"
        "        await asyncio.gather(*asked)\n"
        "        return 'x', 0\n"
    )
    with pytest.raises(ModelRefused):
        await desk.ctx.run_workflow(code, "", operators=OPERATORS)
    assert sorted(str(c["error"]) for c in desk.records("call")) == ["403", "None", "None"]


def test_a_journal_that_cannot_be_begun_lets_go_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def full(path, flags, *rest, **more):  # type: ignore[no-untyped-def]
        if str(path).endswith(".jsonl"):
            raise OSError(28, "No space left on device")
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr("harness.journal.os.open", full)
    with pytest.raises(StoreError, match="No space left"):
        Journal(tmp_path / "run")
    monkeypatch.undo()
    Journal(tmp_path / "run").close()


def test_what_is_fresh_is_kept_and_a_folder_that_takes_nothing_is_no_error(tmp_path: Path) -> None:
    from harness import benchmarks

    loaded = benchmarks.load("humaneval")
    folder = tmp_path / "checks"
    known = Known(folder, loaded.digest, "public")
    some = list(loaded.items)[:40]
    found = {
        key: item.oracle.fresh()
        for key, item in benchmarks.apply(loaded, "public", some, known).items.items()
    }
    known.save()
    (file,) = folder.iterdir()
    assert set(json.loads(file.read_text())) == set(found)
    again = benchmarks.apply(loaded, "public", some, Known(folder, loaded.digest, "public"))
    assert {key: item.oracle.fresh() for key, item in again.items.items()} == found
    assert len({str(kept) for kept in json.loads(file.read_text()).values()}) > 2
    (tmp_path / "file").write_text("")
    nowhere = Known(tmp_path / "file" / "below", loaded.digest, "public")
    nowhere.fresh("x", loaded.items[some[0]].oracle.tests, lambda: None)
    nowhere.save()


async def test_a_damaged_snapshot_costs_the_forecast_and_no_more(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    def run(limit: str):  # type: ignore[no-untyped-def]
        model = ScriptedModel("scripted/known", lambda messages: "no code")
        config = api.Config(method="vanilla", out=tmp_path, limit=limit)
        return api.prepare(config, models={"worker": model})

    await api.execute(run("1"), sandbox=sandbox)
    (snapshot,) = tmp_path.glob("board-*.duckdb")
    with snapshot.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * (snapshot.stat().st_size - 4096 * 3))
    told: list[str] = []
    summary = await api.execute(run("2"), sandbox=sandbox, warn=told.append)
    assert summary.status == "complete"
    assert summary.forecast is None or not told
    Store(tmp_path).ingest()


class Held(ScriptedModel):
    """A script that tells what was closed, in order, and fails to close where it is told to."""

    def __init__(self, name: str, closed: list[str], failing: bool = False) -> None:
        super().__init__(name, [])
        self.closed, self.failing = closed, failing

    async def close(self) -> None:
        self.closed.append(self.name)
        if self.failing:
            raise ModelUnavailable(f"{self.name}: cannot close")


@pytest.mark.parametrize("failing", [0, 1])
async def test_models_are_closed_once_each_also_where_one_fails_to(
    tmp_path: Path, failing: int
) -> None:
    closed: list[str] = []
    worker, meta = (Held(f"scripted/{k}", closed, failing=k == failing) for k in (0, 1))
    plan = api.prepare(
        api.Config(limit="1", out=tmp_path),
        models={"worker": worker, "meta": meta, "judge": worker},
        cache_dir=tmp_path / "cache",
    )
    with pytest.raises(ModelUnavailable, match="cannot close"):
        await close_models(plan)
    assert sorted(closed) == ["scripted/0", "scripted/1"]


async def test_a_failed_attempt_is_no_answer_of_the_model(tmp_path: Path, grader: Grader) -> None:
    desk = Desk(tmp_path, grader, {"worker": [ModelUnavailable("503", 0.0), RIGHT]})
    await desk.ctx.ask("q")
    assert [c["attempt"] for c in desk.records("call")] == [1, 2]
    assert desk.ctx.totals.calls == 1


def test_a_run_is_found_by_what_only_it_is_called(tmp_path: Path) -> None:
    from harness.errors import UsageError
    from harness.store import find_run

    for name in ("humaneval-vanilla-a-1111", "humaneval-vanilla-a-2222", "mbpp-vanilla-a-3333"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    runs = tmp_path / "runs"
    for asked in ("mbpp", "3333", "mbpp-vanilla-a-3333", str(runs / "mbpp-vanilla-a-3333")):
        assert find_run(tmp_path, asked) == runs / "mbpp-vanilla-a-3333"
    with pytest.raises(UsageError, match="2 runs are called so"):
        find_run(tmp_path, "humaneval")
    for asked in ("", "..", "nothing"):
        with pytest.raises(UsageError, match="no run of that name"):
            find_run(tmp_path, asked)


def test_the_time_left_is_not_a_multiple_of_what_it_takes() -> None:
    from harness.run import Progress

    progress = Progress(200)
    assert progress.eta_s is None
    progress.started -= 1.0
    progress.finished_now = 1
    progress.rows = {"1": {}}
    progress.live = dict.fromkeys(map(str, range(100)))  # type: ignore[arg-type]
    assert progress.eta_s is not None
    assert 1.0 < progress.eta_s < 5.0
