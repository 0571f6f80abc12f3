"""The run loop through the Python API: results, resuming, failures, budgets, what is recorded."""

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from harness import api, environments
from harness.benchmarks import DataSources
from harness.errors import ModelRefused, ModelUnavailable, RequestRejected, StoreError, UsageError
from harness.journal import Journal, read_run
from harness.models.scripted import ScriptedModel

BODY = {  # reference-like answers for the first problems
    "has_close_elements": "return any(abs(a - b) < threshold for i, a in enumerate(numbers)"
    " for b in numbers[i + 1:])",
    "truncate_number": "return number % 1.0",
}


def answer(messages):
    """Right for two functions, wrong for all others: a model of known skill."""
    text = messages[-1]["content"]
    for name, body in BODY.items():
        if f"def {name}(" in text:
            line = next(x for x in text.splitlines() if x.startswith(f"def {name}("))
            return f"```python\nfrom typing import List\n{line}\n    {body}\n```"
    name = text.partition("function `")[2].partition("`")[0]
    return f"```python\ndef {name}(*args):\n    return None\n```"


async def evaluate(out, sandbox, replies=answer, method="vanilla", **config):
    model = ScriptedModel("scripted/known", replies)
    plan = api.prepare(api.Config(method=method, out=out, **config), models={"worker": model})
    summary = await api.execute(plan, sandbox=sandbox)
    return summary, model


async def test_verdicts_totals_and_interval_come_out_exactly(tmp_path, sandbox):
    summary, model = await evaluate(tmp_path, sandbox, limit="4")
    found = summary.as_dict()
    assert [p["verdict"] for p in found["problems"]] == ["passed", "wrong", "passed", "wrong"]
    assert found["pass@1"]["value"] == 0.5
    assert found["pass@1"]["problems"] == 4
    assert 0.14 < found["pass@1"]["low"] < 0.16
    assert found["calls"] == len(model.requests) == 4
    assert found["cost_usd"] == 0.0
    assert (summary.status, summary.exit_code) == ("complete", 0)


async def test_the_same_command_resumes_and_a_longer_one_extends(tmp_path, sandbox):
    first, _ = await evaluate(tmp_path, sandbox, limit="2")
    again, model = await evaluate(tmp_path, sandbox, limit="2")
    assert model.requests == []
    assert again.run_id == first.run_id
    longer, model = await evaluate(tmp_path, sandbox, limit="4")
    assert longer.run_id == first.run_id
    assert len(model.requests) == 2
    assert longer.as_dict()["calls"] == 4


async def test_fresh_begins_a_run_of_its_own(tmp_path, sandbox):
    first, _ = await evaluate(tmp_path, sandbox, limit="1")
    second, model = await evaluate(tmp_path, sandbox, limit="1", fresh=True)
    assert (len(model.requests), second.run_id) == (1, f"{first.run_id}-2")
    third, model = await evaluate(tmp_path, sandbox, limit="1")
    assert (len(model.requests), third.run_id) == (0, second.run_id)


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"temperature": 0.5}, {"protocol": "none"}, {"max_tokens": 7}, {"list": "paper"}],
)
async def test_another_config_is_another_run(tmp_path, sandbox, change):
    first, _ = await evaluate(tmp_path, sandbox, limit="1")
    second, model = await evaluate(tmp_path, sandbox, limit="1", **change)
    assert second.run_id != first.run_id
    assert len(model.requests) == 1


async def test_a_refused_key_costs_one_request_however_many_samples_wait(tmp_path, sandbox):
    model = ScriptedModel("scripted/refusing", [ModelRefused("401"), *["x"] * 50])
    plan = api.prepare(
        api.Config(method="vanilla", out=tmp_path, limit="20", jobs=8), models={"worker": model}
    )
    with pytest.raises(ModelRefused) as caught:
        await api.execute(plan, sandbox=sandbox)
    assert caught.value.exit_code == 4
    assert len(model.requests) == 1


async def test_a_rejected_first_request_ends_the_run_and_a_later_one_its_sample(tmp_path, sandbox):
    def first_rejected(messages):
        raise RequestRejected("bad parameter")

    with pytest.raises(ModelRefused, match="the first 2 requests were rejected, and none has succ"):
        await evaluate(tmp_path / "a", sandbox, first_rejected, limit="3")

    def one_too_long(messages):
        if "has_close_elements" in messages[-1]["content"]:
            raise RequestRejected("too long")
        return answer(messages)

    summary, _ = await evaluate(tmp_path / "c", sandbox, one_too_long, limit="3", jobs=1)
    verdicts = [p["verdict"] for p in summary.as_dict()["problems"]]
    assert verdicts == ["invalid", "wrong", "passed"]

    def second_rejected(messages):
        if "separate_paren_groups" in messages[-1]["content"]:
            raise RequestRejected("too long")
        return answer(messages)

    summary, _ = await evaluate(tmp_path / "b", sandbox, second_rejected, limit="3", jobs=1)
    rows = summary.as_dict()
    assert [p["verdict"] for p in rows["problems"]] == ["passed", "invalid", "passed"]
    assert rows["pass@1"]["value"] == 1.0
    assert rows["pass@1"]["problems"] == 2
    assert (rows["errors"], summary.exit_code) == (1, 1)
    assert (summary.estimate.floor, summary.estimate.ceiling) == (pytest.approx(2 / 3), 1.0)


async def test_an_invalid_sample_is_tried_again_by_the_next_run(tmp_path, sandbox, monkeypatch):
    monkeypatch.setattr("harness.pacing.BACKOFF_S", 0.0)
    down = [*["def f(): pass"], *[ModelUnavailable("503")] * 5]
    summary, model = await evaluate(tmp_path, sandbox, down, limit="2", jobs=1)
    assert summary.as_dict()["errors"] == 1
    assert len(model.requests) == 6
    summary, model = await evaluate(tmp_path, sandbox, limit="2", jobs=1)
    assert summary.as_dict()["errors"] == 0
    assert len(model.requests) == 1
    attempts = [r["attempt"] for r in read_run(summary.run_dir) if r["kind"] == "call"]
    assert attempts == [1, 1, 2, 3, 4, 5, 1]


async def test_transient_failures_are_retried_and_counted(tmp_path, sandbox, monkeypatch):
    monkeypatch.setattr("harness.pacing.BACKOFF_S", 0.0)
    replies = [ModelUnavailable("500"), ModelUnavailable("429", retry_after_s=0.0), "no code"]
    summary, model = await evaluate(tmp_path, sandbox, replies, limit="1")
    assert len(model.requests) == 3
    calls = [r for r in read_run(summary.run_dir) if r["kind"] == "call"]
    assert [c["error_kind"] for c in calls] == ["unavailable", "unavailable", None]
    assert summary.as_dict()["calls"] == 1


async def test_a_token_budget_stops_cleanly_and_more_of_it_goes_on(tmp_path, sandbox):
    summary, model = await evaluate(tmp_path, sandbox, limit="6", jobs=1, budget_tokens=100)
    assert (summary.status, summary.exit_code) == ("budget", 3)
    assert 1 <= len(model.requests) < 6
    rest, more = await evaluate(tmp_path, sandbox, limit="6", jobs=1)
    assert rest.status == "complete"
    assert len(model.requests) + len(more.requests) == 6


async def test_a_budget_is_the_runs_and_not_each_processes(tmp_path, sandbox):
    _, first = await evaluate(tmp_path, sandbox, limit="6", jobs=1, budget_tokens=100)
    again, second = await evaluate(tmp_path, sandbox, limit="6", jobs=1, budget_tokens=100)
    assert len(first.requests) >= 1
    assert second.requests == []
    assert again.status == "budget"
    assert again.reason == "--budget-tokens 100 is spent; the same command with more of it goes on"


def test_a_dollar_budget_over_an_unknown_price_is_refused_before_any_work(tmp_path):
    model = ScriptedModel("scripted/known", answer)
    model.price = lambda completion: None
    config = api.Config(method="vanilla", out=tmp_path, limit="1", budget_usd=1.0)
    with pytest.raises(UsageError, match="the price of scripted/known is unknown"):
        api.prepare(config, models={"worker": model})


async def test_a_rejected_sample_does_not_block_the_run_when_it_is_resumed(tmp_path, sandbox):
    def too_long(messages):
        if "separate_paren_groups" in messages[-1]["content"]:
            raise RequestRejected("too long")
        return answer(messages)

    await evaluate(tmp_path, sandbox, too_long, limit="3", jobs=1)
    summary, _ = await evaluate(tmp_path, sandbox, too_long, limit="4", jobs=1)
    verdicts = [p["verdict"] for p in summary.as_dict()["problems"]]
    assert verdicts == ["passed", "invalid", "passed", "wrong"]


async def test_only_the_first_request_goes_alone(tmp_path, sandbox):
    class Counting(ScriptedModel):
        busy = most = 0

        async def complete(self, messages, sampling, **rest):
            self.busy += 1
            self.most = max(self.most, self.busy)
            first = len(self.requests) == 0
            reply = await super().complete(messages, sampling, **rest)
            await asyncio.sleep(0.05)
            assert not (first and self.busy > 1)
            self.busy -= 1
            return reply

    model = Counting("scripted/counting", lambda messages: "no code")
    config = api.Config(method="vanilla", out=tmp_path, limit="20", jobs=9)
    await api.execute(api.prepare(config, models={"worker": model}), sandbox=sandbox)
    assert model.most == model.connections == 8


async def test_a_debate_resumes_without_paying_for_a_reply_twice(tmp_path, sandbox):
    """Equal first questions, different answers: each must come back to the agent that had it."""

    class Interrupted(BaseException):
        pass

    class Debate(ScriptedModel):
        async def complete(self, messages, sampling, **rest):
            number = len(self.requests)
            reply = await super().complete(messages, sampling, **rest)
            await asyncio.sleep((0.05, 0.15, 0.1)[number % 3])  # answers come out of order
            return reply

    def until_the_judge(messages):
        if "Several agents debated" in messages[-1]["content"]:
            raise Interrupted
        until_the_judge.count += 1
        return f"```python\ndef has_close_elements(*a):\n    return {until_the_judge.count}\n```"

    until_the_judge.count = 0
    config = api.Config(method="llm-debate", out=tmp_path, limit="1")
    first = Debate("scripted/debate", until_the_judge)
    with pytest.raises(Interrupted):
        await api.execute(api.prepare(config, models={"worker": first}), sandbox=sandbox)
    assert len(first.requests) == 7
    second = Debate("scripted/debate", lambda messages: "```python\nx = 1\n```")
    summary = await api.execute(api.prepare(config, models={"worker": second}), sandbox=sandbox)
    assert len(second.requests) == 1
    assert summary.as_dict()["calls"] == 7


async def test_a_resumed_sample_keeps_the_seconds_it_had_used(tmp_path, sandbox):
    class Interrupted(BaseException):
        pass

    class Slow(ScriptedModel):
        async def complete(self, messages, sampling, **rest):
            if "Review this" in messages[-1]["content"] and self.stop:
                raise Interrupted
            await asyncio.sleep(0.0 if "Review this" in messages[-1]["content"] else 1.0)
            return await super().complete(messages, sampling, **rest)

    model = Slow("scripted/slow", lambda m: "VERDICT: correct" if "Review" in str(m) else answer(m))
    config = api.Config(method="self-refine", out=tmp_path, limit="1")
    model.stop = True
    with pytest.raises(Interrupted):
        await api.execute(api.prepare(config, models={"worker": model}), sandbox=sandbox)
    model.stop = False
    summary = await api.execute(api.prepare(config, models={"worker": model}), sandbox=sandbox)
    (row,) = summary.progress.rows.values()
    assert row["wall_s"] >= 1.0


async def test_each_session_says_with_what_it_was_made(tmp_path, sandbox):
    await evaluate(tmp_path, sandbox, limit="1")
    summary, _ = await evaluate(tmp_path, sandbox, limit="2")
    starts = [r for r in read_run(summary.run_dir) if r.get("event") == "start"]
    assert [(s["limit"], s["sandbox"], s["samples"]) for s in starts] == [
        ("1", sandbox.tier, 1),
        ("2", sandbox.tier, 2),
    ]
    assert all("commit" in s and "versions" in s for s in starts)


@pytest.mark.parametrize("content", ["", "[]", '{"run_id":', '{"knobs": 5}'])
async def test_a_damaged_run_json_is_one_line(tmp_path, sandbox, content):
    summary, _ = await evaluate(tmp_path, sandbox, limit="1")
    (summary.run_dir / "run.json").write_text(content)
    with pytest.raises(StoreError) as caught:
        await evaluate(tmp_path, sandbox, limit="1")
    assert "\n" not in str(caught.value)


async def test_damaged_journal_lines_cost_only_themselves(tmp_path, sandbox):
    summary, _ = await evaluate(tmp_path, sandbox, limit="2")
    with (summary.run_dir / "0001.jsonl").open("a") as file:
        for kind in ("call", "session", "result", "artifact", "round", "note"):
            file.write(json.dumps({"kind": kind, "at": 1.0}) + "\n")
    again, model = await evaluate(tmp_path, sandbox, limit="3")
    assert len(again.progress.rows) == 3
    assert len(model.requests) == 1


async def test_a_server_that_asks_for_a_long_pause_does_not_stop_the_run(tmp_path, sandbox):
    replies = ["no code", ModelUnavailable("429", retry_after_s=100_000.0)]
    summary, model = await evaluate(tmp_path, sandbox, replies, limit="2", jobs=1)
    assert [p["verdict"] for p in summary.as_dict()["problems"]] == ["no_code", "invalid"]
    assert len(model.requests) == 2


async def test_a_zero_budget_asks_nothing(tmp_path, sandbox):
    summary, model = await evaluate(tmp_path, sandbox, limit="2", budget_usd=0)
    assert (summary.status, model.requests) == ("budget", [])
    assert summary.as_dict()["pass@1"]["value"] is None


async def test_replies_of_an_interrupted_sample_are_not_paid_twice(tmp_path, sandbox):
    class Interrupted(BaseException):
        pass

    accept = "FEEDBACK: none\nVERDICT: correct"

    def dies_at_the_second_call(messages):
        if "Review this" in messages[-1]["content"]:
            raise Interrupted
        return answer(messages)

    with pytest.raises(Interrupted):
        await evaluate(tmp_path, sandbox, dies_at_the_second_call, "self-refine", limit="1")
    summary, model = await evaluate(
        tmp_path, sandbox, lambda messages: accept, "self-refine", limit="1"
    )
    assert len(model.requests) == 1  # the review; the draft was taken over
    found = summary.as_dict()
    assert (found["calls"], found["problems"][0]["verdict"]) == (2, "passed")


def test_kill_9_loses_nothing_and_repeats_only_what_was_in_flight(tmp_path, sandbox):
    """A real process, killed at three moments; a model that logs each request to a file."""
    log = tmp_path / "requests"
    script = tmp_path / "run.py"
    script.write_text(
        "import asyncio, sys, time\n"
        "from harness import api\n"
        "from harness.models.scripted import ScriptedModel\n"
        "from harness.sandbox import Sandbox\n"
        "class Slow(ScriptedModel):\n"
        "    async def complete(self, messages, sampling, **rest):\n"
        f"        with open({str(log)!r}, 'a') as file:\n"
        "            text = messages[-1]['content'].partition('function `')[2]\n"
        "            file.write(text[:30] + chr(10))\n"
        "        await asyncio.sleep(0.15)\n"
        "        return await super().complete(messages, sampling, **rest)\n"
        "model = Slow('scripted/slow', lambda messages: 'no code')\n"
        "config = api.Config(method='vanilla', limit='24', jobs=2, out=__import__('pathlib')"
        f".Path({str(tmp_path / 'results')!r}))\n"
        "plan = api.prepare(config, models={'worker': model})\n"
        f"print(asyncio.run(api.execute(plan, sandbox=Sandbox({sandbox.tier!r},"
        f" {sandbox.prevented!r}))).as_dict()['calls'])\n"
    )
    root = Path(api.__file__).parents[1]
    command = [sys.executable, str(script)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    for wanted in (4, 9, 16):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if log.exists() and len(log.read_text().splitlines()) >= wanted:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "24"
    asked = log.read_text().splitlines()
    assert len(set(asked)) == 24
    assert len(asked) <= 24 + 3 * 2
    (run_dir,) = (tmp_path / "results" / "runs").iterdir()
    keys = [r["result_key"] for r in read_run(run_dir) if r["kind"] == "result"]
    assert len(keys) == len(set(keys)) == 24


async def test_run_json_says_how_to_make_the_row_again_and_holds_no_key(tmp_path, sandbox):
    told = {"jobs": 3, "cache": "read", "budget_tokens": 9999, "max_connections": 7}
    summary, _ = await evaluate(tmp_path, sandbox, limit="1", **told)
    head = json.loads((summary.run_dir / "run.json").read_text())
    for name in ("command", "commit", "dirty", "versions", "host", "seed", "grader_version"):
        assert name in head
    parts = ["--limit 1", "--jobs 3", "--cache read", "--budget-tokens 9999", f"--out {tmp_path}"]
    for part in (*parts, "--max-connections 7"):
        assert part in head["command"]
    assert head["host"]["cpu"]
    assert head["host"]["memory_bytes"] > 2**30
    assert {"aiohttp", "httpx2", "pyarrow", "openai"} <= head["versions"].keys()
    assert head["kind"] == "simulated"
    assert head["benchmark_digest"] == summary.plan.benchmark.digest
    assert head["level"] == "L0"


@pytest.mark.parametrize(
    ("method", "knobs"),
    [("vanilla", {}), ("self-refine", {}), ("llm-debate", {}), ("flowreasoner", {"rounds": 2})],
)
async def test_hidden_tests_and_references_reach_no_request(tmp_path, sandbox, method, knobs):
    """Every hidden assertion and reference line that the prompt does not show, for every method."""
    plan_of = {}

    def nosy(messages):
        text = messages[-1]["content"]
        if "Write the next workflow" in text:
            return (
                "<modification>look</modification><graph>class Workflow:\n"
                "    async def __call__(self, problem, entry_point, test_cases):\n"
                "        t = await self.test(problem, 'def f(): pass', entry_point, test_loop=1)\n"
                "        r = await self.custom(input=str(t) + str(test_cases), instruction='x')\n"
                "        return r['response'], 0</graph><prompt></prompt>"
            )
        return answer(messages)

    model = ScriptedModel("scripted/nosy", nosy)
    roles = {"worker": model, "meta": model} if method == "flowreasoner" else {"worker": model}
    config = api.Config(method=method, out=tmp_path, problems=["1", "2", "60"], knobs=knobs)
    plan = api.prepare(config, models=roles)
    await api.execute(plan, sandbox=sandbox)
    sent = "\n".join(m["content"] for r in model.requests for m in r["messages"])
    assert sent
    checked = 0
    for item in plan.items:
        plan_of[item.problem.problem_id] = item
        shown = item.problem.prompt + "".join(item.problem.examples)
        hidden = [*item.oracle.tests.setup.splitlines(), *item.oracle.reference.splitlines()]
        for line in (line.strip() for line in hidden):
            if len(line) > 20 and line not in shown:
                checked += 1
                assert line not in sent
    assert checked >= 12


async def test_two_processes_do_not_write_one_run(tmp_path, sandbox):
    summary, _ = await evaluate(tmp_path, sandbox, limit="1")
    journal = Journal(summary.run_dir)
    with pytest.raises(StoreError, match="is writing this run"):
        await evaluate(tmp_path, sandbox, limit="2")
    journal.close()


@pytest.mark.parametrize("planning", [True, False])
def test_a_place_that_cannot_be_written_is_a_usage_error_before_any_work(tmp_path, planning):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError) as caught:
            api.prepare(api.Config(out=place), cache_dir=tmp_path / "c", planning=planning)
        (line,) = str(caught.value).splitlines()
        assert line.startswith(f"--out {place}: cannot write: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


async def test_an_interrupt_is_journaled_and_resumes(tmp_path, sandbox):
    model = ScriptedModel("scripted/known", answer)

    async def hang(messages, sampling, **rest):
        await asyncio.sleep(60)

    plan = api.prepare(
        api.Config(method="vanilla", out=tmp_path, limit="2"), models={"worker": model}
    )
    model.complete = hang
    task = asyncio.create_task(api.execute(plan, sandbox=sandbox))
    while not list(tmp_path.glob("runs/*/0001.jsonl")):
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (run_dir,) = (tmp_path / "runs").iterdir()
    ends = [r for r in read_run(run_dir) if r["kind"] == "session" and r["event"] == "end"]
    assert [r["status"] for r in ends] == ["interrupted"]
    summary, _ = await evaluate(tmp_path, sandbox, limit="2")
    assert summary.status == "complete"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"benchmark": "humanevil"}, "unknown benchmark 'humanevil': use one of "),
        ({"list": "best"}, "has no list 'best': use one of full, paper, search"),
        ({"protocol": "secret"}, "unknown protocol 'secret': use one of none, public"),
        ({"problems": ["999"]}, "has no problem '999'"),
        ({"limit": "0"}, "leaves no problem"),
        ({"problems": []}, "--problems names no problem"),
        (
            {"base_url": "http://x", "worker": "local/smollm2-135m-instruct"},
            "no model is behind a server",
        ),
        ({"limit": "many"}, "--limit is a number"),
        ({"limit": "1.5"}, "--limit is a number"),
        ({"n_samples": 0}, "--n-samples is at least 1"),
        ({"budget_usd": float("nan")}, "--budget-usd is a number of at least 0"),
        ({"budget_tokens": -1}, "--budget-tokens is a number of at least 0"),
        ({"budget_minutes": float("inf")}, "--budget-minutes is a number of at least 0"),
        ({"seed": 2**63}, "--seed lies in"),
        ({"seed": -1}, "--seed lies in"),
        ({"max_tokens": 2**31}, "--max-tokens is a whole number in 1 to 2^31 - 1, not 2147483648"),
        ({"temperature": -1.0}, "--temperature is a number in 0 to 2, not -1.0"),
        ({"top_p": 0}, "--top-p is a number above 0"),
        ({"reasoning_effort": "9"}, "--reasoning-effort is a word"),
        ({"sampling": {"meta": {"temperature": 1}}}, "vanilla has no role 'meta'"),
        ({"sampling": {"worker": {"heat": 1}}}, "worker.heat: unknown setting 'heat': use one"),
        ({"sampling": {"worker": {"extra_body": "[1]"}}}, "worker.extra_body is a JSON object"),
        ({"sampling": {"worker": {"extra_body": {"seed": 1}}}}, "extra_body may not hold seed"),
        ({"cache": "sometimes"}, "--cache is one of off, read, on"),
        ({"roles": {"judge": "local/x"}}, "has no role 'judge'; its roles: worker"),
        ({"worker": "telepathy/x"}, "unknown model 'telepathy/x'"),
        ({"worker": "local/gpt-9"}, "gpt-9"),
        ({"worker": "openai/gpt-4o-mini"}, 'endpoints={"openai": Endpoint(api_key=...)}'),
        ({"worker": "anthropic/claude"}, 'endpoints={"anthropic": Endpoint(api_key=...)}'),
        ({"base_urls": {"judge": "http://x"}}, "has no role 'judge'; its roles: worker"),
        ({"base_urls": {"worker": "http://x"}, "worker": "sim/"}, "sim/ is not behind a server"),
        ({"base_urls": {"worker": "x"}, "worker": "vllm/x"}, "--role-url worker does not begin"),
        ({"base_url": "x", "worker": "vllm/x"}, "--base-url does not begin with http://"),
        ({"data": "/nowhere"}, "/nowhere: no such folder; correct --data-dir"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, config, says):
    with pytest.raises(UsageError) as caught:
        api.prepare(api.Config(method="vanilla", out=tmp_path / "results", **config))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "results").exists()


def test_a_base_url_goes_to_the_workers_provider_and_no_other_key_with_it(tmp_path):
    from harness.models import Endpoint

    keys = {"openai": Endpoint(api_key="a"), "anthropic": Endpoint(api_key="b")}
    config = api.Config(
        worker="openai/x", roles={"meta": "anthropic/y"}, base_url="http://host/v1",
        limit="1", out=tmp_path, knobs={"rounds": 2}, unsafe_local=True, budget_tokens=5000,
    )  # fmt: skip
    plan = api.prepare(config, endpoints=keys)
    assert "host" in str(plan.models["worker"].identity())
    assert "host" not in str(plan.models["meta"].identity())
    command = plan.full_command()
    assert "--base-url http://host/v1" in command
    assert "-A rounds=2" in command
    assert f"--out {tmp_path}" in command
    assert "--unsafe-local" in command
    assert "--budget-tokens 5000" in command
    config = api.Config(
        worker="local/smollm2-135m-instruct", roles={"meta": "openai/y"}, base_url="http://host/v1"
    )
    assert "host" in str(api.prepare(config, endpoints=keys).models["meta"].identity())


def test_one_name_at_two_servers_is_two_models_and_each_role_may_have_its_own():
    def servers(**config):
        told = api.Config(worker="vllm/x", limit="1", **config)
        plan = api.prepare(told)
        return {role: m.endpoint() for role, m in plan.models.items()}, plan

    base = "http://a/v1"
    found, plan = servers(base_url=base, base_urls={"meta": "http://b/v1"})
    assert found == {"worker": "http://a/v1", "meta": "http://b/v1"}
    assert "--base-url http://a/v1 --role-url meta=http://b/v1" in plan.full_command()
    same, one = servers(base_url=base, base_urls={"meta": base})
    assert set(same.values()) == {base}
    assert one.models["worker"] is one.models["meta"]
    assert plan.config_hash != one.config_hash != servers(base_urls={"meta": base})[1].config_hash
    found, _ = servers(roles={"meta": "vllm/y"}, base_urls={"worker": base, "meta": "http://c"})
    assert found == {"worker": base, "meta": "http://c"}


@pytest.mark.parametrize(
    ("limit", "ids"),
    [("2", [0, 1]), ("3-5", [3, 4, 5]), ("0.02", [0, 1, 2])],
)
def test_limits_choose_problems(tmp_path, limit, ids):
    model = ScriptedModel("scripted/known", answer)
    plan = api.prepare(api.Config(method="vanilla", limit=limit), models={"worker": model})
    assert [i.problem.problem_id for i in plan.items] == [f"HumanEval/{n}" for n in ids]


def test_problems_are_named_by_number_or_id():
    model = ScriptedModel("scripted/known", answer)
    config = api.Config(method="vanilla", problems=["7", "HumanEval/3", "7"])
    plan = api.prepare(config, models={"worker": model})
    assert [i.problem.problem_id for i in plan.items] == ["HumanEval/7", "HumanEval/3"]


def test_a_bare_run_chooses_a_first_look_and_an_explicit_flag_is_obeyed(tmp_path):
    plan = api.prepare(api.Config(), cache_dir=tmp_path)
    assert plan.models["worker"].name == api.DEFAULT_MODEL
    assert [i.problem.problem_id for i in plan.items] == list(api.FIRST_LOOK)
    assert plan.knobs["rounds"] == api.FIRST_LOOK_KNOBS["rounds"]
    plan = api.prepare(api.Config(list="search"), cache_dir=tmp_path)
    assert [i.problem.problem_id for i in plan.items] == [f"HumanEval/{n}" for n in (9, 12, 15)]
    plan = api.prepare(api.Config(limit="164", knobs={"rounds": "10"}), cache_dir=tmp_path)
    assert (len(plan.items), plan.knobs["rounds"]) == (164, 10)


SCHEMAS = Path(__file__).parents[1] / "docs/schemas"


def recorded(summary):
    """run.json and the start of each session."""
    head = json.loads((summary.run_dir / "run.json").read_text())
    return head, [r for r in read_run(summary.run_dir) if r.get("event") == "start"]


def planned(**config):
    model = ScriptedModel("scripted/known", answer)
    return api.prepare(api.Config(method="vanilla", **config), models={"worker": model})


async def test_what_is_left_out_and_the_environment_are_recorded_and_shown(tmp_path, sandbox):
    from harness.show import show_run

    summary, _ = await evaluate(tmp_path, sandbox, protocol="split", limit="31-32")
    head, (start,) = recorded(summary)
    assert list(head["left_out"]) == ["HumanEval/32"]
    assert head["left_out"] == start["left_out"] == summary.as_dict()["left_out"]
    assert head["environment"] == start["environment"] == summary.plan.environment
    assert (head["custom"], head["needs_environment"]) == (False, False)
    jsonschema.validate(summary.as_dict(), json.loads((SCHEMAS / "eval.json").read_text()))
    lines = []
    show_run(tmp_path, summary.run_id, lines.append)
    assert any("left out   1: " in line and "(HumanEval/32)" in line for line in lines)
    assert any(f"environment {summary.plan.environment}" in line for line in lines)


async def test_a_failing_reference_is_left_out_loudly_and_the_exit_code_stays(tmp_path, sandbox):
    plan = planned(limit="2", out=tmp_path)
    item = plan.items[1]
    item = replace(item, oracle=replace(item.oracle, reference="def separate_paren_groups(s): 0"))
    items = {**plan.benchmark.items, item.problem.problem_id: item}
    benchmark = replace(plan.benchmark, items=items, digest="0" * 64)
    said = []
    plan = replace(plan, benchmark=benchmark, items=list(items.values()))
    summary = await api.execute(plan, sandbox=sandbox, warn=said.append)
    assert any(line.startswith("our own reference fails here: HumanEval/1 (") for line in said)
    assert list(recorded(summary)[0]["left_out"]) == ["HumanEval/1"]
    assert (summary.status, summary.exit_code) == ("complete", 0)
    assert len(summary.progress.rows) == 1


async def test_custom_data_says_so_wherever_the_run_is_shown(tmp_path, sandbox, shared):
    from harness.show import list_runs, show_run

    with gzip.open(shared / "data" / "HumanEvalPlus.jsonl.gz", "rt") as file:
        rows = [next(file), next(file)]
    own = tmp_path / "own.jsonl"
    own.write_text("".join(rows))
    data = DataSources(data_dir=shared / "data", overrides={"humaneval+": own}, offline=True)
    out = tmp_path / "results"
    summary, _ = await evaluate(out, sandbox, benchmark="humaneval+", data=data)
    assert summary.as_dict()["custom"] is True
    jsonschema.validate(summary.as_dict(), json.loads((SCHEMAS / "eval.json").read_text()))
    assert recorded(summary)[0]["custom"] is True
    lines = []
    show_run(out, summary.run_id, lines.append)
    assert any("custom data" in line for line in lines)
    assert any(line.startswith("on base tests: pass@1 50.0 %") for line in lines)
    assert any(line.startswith("on plus tests: pass@1 50.0 %") for line in lines)
    list_runs(out)


async def test_an_answer_without_a_program_fails_the_base_and_plus_tests(tmp_path, sandbox, shared):
    data = DataSources(data_dir=shared / "data", offline=True)
    summary, _ = await evaluate(
        tmp_path, sandbox, lambda messages: "", benchmark="humaneval+", data=data, limit="1"
    )
    (row,) = summary.progress.rows.values()
    assert (row["verdict"], row["base"], row["plus"]) == ("no_code",) * 3


def environment(cache_dir, tier, digest):
    """A complete environment as far as its stamp says; nothing runs in it."""
    folder = environments._folder("bigcodebench", tier, "3.10", cache_dir)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    stamp = {"name": "bigcodebench", "tier": tier, "prefix": "/usr", "site": str(folder),
             "version": "3.10.1", "packages": {}, "missing": {}, "modules": [], "nltk": [],
             "digest": digest}  # fmt: skip
    (folder / "environment.json").write_text(json.dumps(stamp))


def test_another_environment_of_bigcodebench_is_another_run(tmp_path, shared):
    data = DataSources(data_dir=shared / "data", offline=True)
    model = ScriptedModel("scripted/known", answer)

    def plan(cache_dir, benchmark="bigcodebench-hard-complete"):
        config = api.Config(
            method="vanilla", benchmark=benchmark, data=data, limit="1", protocol="none"
        )
        return api.prepare(config, models={"worker": model}, cache_dir=cache_dir)

    with pytest.raises(UsageError, match="python -m harness env bigcodebench"):
        plan(tmp_path / "none")
    environment(tmp_path / "a", "light", "1" * 64)
    environment(tmp_path / "b", "full", "2" * 64)
    light, full = plan(tmp_path / "a"), plan(tmp_path / "b")
    assert len({light.environment, full.environment}) == 2
    assert light.config_hash != full.config_hash
    assert plan(tmp_path / "a").config_hash == light.config_hash
    hashes = {plan(tmp_path / name, "humaneval").config_hash for name in "ab"}
    assert len(hashes) == 1


def test_the_full_command_counts_what_the_protocol_leaves_and_finds_the_same_data(tmp_path):
    plan = planned(limit="2", protocol="split", data=DataSources(data_dir=tmp_path))
    assert plan.everything == planned(protocol="split").everything == 160
    assert planned(limit="2", list="paper", protocol="none").everything == 131
    assert plan.calls(full=True) == {"worker": (160, 160)}
    assert f"--data-dir {tmp_path}" in plan.full_command()
    assert "--cache-dir" not in plan.full_command()
    model = ScriptedModel("scripted/known", answer)
    config = api.Config(method="vanilla", limit="2")
    elsewhere = api.prepare(config, models={"worker": model}, cache_dir=tmp_path / "c")
    assert f"--cache-dir {tmp_path / 'c'}" in elsewhere.full_command()


def test_a_plan_says_protocol_level_and_what_is_left_out():
    found = planned(limit="31-32", protocol="split").as_dict()
    jsonschema.validate(found, json.loads((SCHEMAS / "dry_run.json").read_text()))
    assert (found["list"], found["protocol"], found["level"]) == ("full", "split", "L0")
    assert (found["problems"], list(found["left_out"])) == (1, ["HumanEval/32"])
