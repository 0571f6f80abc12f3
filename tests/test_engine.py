"""What a run promises, counted at the server: real commands against a server that misbehaves.

Everything here is a count (requests, answers, rows, tokens), never a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from harness import benchmarks
from harness.journal import read_run
from tests import fault_server
from tests.fault_server import Server

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "docs" / "schemas" / "eval.json"
PATIENCE_S = 120.0  # nothing waits so long unless it fails
PROVIDERS = ("OPENAI_", "ANTHROPIC_", "VLLM_", "HARNESS_")
SAMPLED = ("--temperature", "0.8")  # so that each sample of a problem is a question of its own


@dataclass
class Done:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str
    found: dict[str, Any] = field(default_factory=dict)  # what --json printed

    def verdicts(self) -> list[tuple[str, int, str]]:
        return [(p["problem_id"], p["sample"], p["verdict"]) for p in self.found["problems"]]


@dataclass
class Desk:
    """The command line over folders of its own."""

    folder: Path
    begun: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(
        self, server: Server, *arguments: str, out: str = "out", method: str = "vanilla"
    ) -> subprocess.Popen[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(PROVIDERS)}
        command = [
            sys.executable, "-m", "harness", "eval", "--json", "--method", method,
            "--worker", "openai/fault", "--base-url", server.openai_url,
            "--out", str(self.folder / out), "--cache-dir", str(self.folder / "cache"),
        ]  # fmt: skip
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            env={**kept, "OPENAI_API_KEY": "sk-none"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.begun.append(process)
        return process

    def run(self, server: Server, *arguments: str, **options: str) -> Done:
        return finished(self.start(server, *arguments, **options))

    def runs(self, out: str = "out") -> list[Path]:
        return sorted((self.folder / out).glob("runs/*"))

    def records(self, kind: str, out: str = "out") -> list[dict[str, Any]]:
        return [r for folder in self.runs(out) for r in read_run(folder) if r["kind"] == kind]

    def replies(self) -> int:
        """How many replies the cache holds."""
        path = self.folder / "cache" / "replies.sqlite"
        with contextlib.closing(sqlite3.connect(path)) as db:
            return int(db.execute("SELECT count(*) FROM replies").fetchone()[0])


def finished(process: subprocess.Popen[str]) -> Done:
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    lines = stdout.splitlines()
    return Done(process.returncode, stdout, stderr, json.loads(lines[-1]) if lines else {})


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something is so, while a process runs."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    for process in made.begun:  # those of a test that failed
        process.kill()


def one_object(done: Done, status: str) -> None:
    """stdout holds one object of the published form, with this status."""
    (line,) = done.stdout.splitlines()
    jsonschema.validate(json.loads(line), json.loads(SCHEMA.read_text()))
    assert (done.found["status"], bool(done.found["reason"])) == (status, status != "complete")


def results_once(desk: Desk, count: int, out: str = "out") -> None:
    """Every sample has one graded row."""
    graded = [r["result_key"] for r in desk.records("result", out) if r["verdict"] != "invalid"]
    assert (len(graded), len(set(graded))) == (count, count)


# -- the cache -------------------------------------------------------------------------------------


def test_the_same_run_again_asks_nothing_and_finds_the_same_rows(desk: Desk) -> None:
    with fault_server.start() as server:
        first = desk.run(server, "--limit", "60")
        assert (first.code, server.stats()["requests"]) == (0, 60)
        again = desk.run(server, "--limit", "60", "--fresh")
        assert (again.code, server.stats()["requests"]) == (0, 60)
    assert again.found["run"] != first.found["run"]
    assert again.verdicts() == first.verdicts()
    assert again.found["tokens"] == first.found["tokens"]
    assert (first.found["cached_calls"], again.found["cached_calls"]) == (0, 60)
    calls = desk.records("call")
    assert Counter(call["cached"] for call in calls) == {False: 60, True: 60}
    assert {call["cost_usd"] for call in calls if call["cached"]} == {0.0}


def test_draws_of_one_problem_are_asked_each_and_other_runs_share_them(desk: Desk) -> None:
    some = ("--limit", "10", *SAMPLED)
    with fault_server.start() as server:
        assert desk.run(server, *some, "--n-samples", "3").code == 0
        assert (server.stats()["requests"], server.stats()["unique"]) == (30, 30)
        more = desk.run(server, *some, "--n-samples", "5", "--fresh")
        assert server.stats()["requests"] == 50
        assert more.found["cached_calls"] == 30
        desk.run(server, *some, "--seed", "1")  # other draws
        assert server.stats()["requests"] == 60


def test_two_processes_with_the_same_questions_pay_once_for_each(desk: Desk) -> None:
    with fault_server.start(latency=0.05) as server:
        outs = ("one", "other")
        processes = [
            desk.start(server, "--limit", "80", "--max-connections", "8", out=out) for out in outs
        ]
        done = [finished(process) for process in processes]
        stats = server.stats()
    assert [one.code for one in done] == [0, 0]
    assert (stats["requests"], stats["unique"], stats["paid_twice"]) == (80, 80, 0)
    assert done[0].verdicts() == done[1].verdicts()
    assert sum(one.found["cached_calls"] for one in done) == 80


def test_cache_off_asks_again_and_keeps_nothing(desk: Desk) -> None:
    with fault_server.start() as server:
        for times in (1, 2):
            assert desk.run(server, "--limit", "10", "--fresh", "--cache", "off").code == 0
            assert server.stats()["requests"] == 10 * times
    assert not list((desk.folder / "cache").glob("replies*"))


def test_cache_read_takes_what_is_kept_and_adds_nothing(desk: Desk) -> None:
    with fault_server.start() as server:
        desk.run(server, "--limit", "10")
        for times in (1, 2):
            done = desk.run(server, "--limit", "20", "--fresh", "--cache", "read")
            assert done.found["cached_calls"] == 10
            assert server.stats()["requests"] == 10 + 10 * times
    assert desk.replies() == 10


# -- kill -9, Ctrl-C -------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["on", "off"])
def test_kill_at_random_moments_loses_no_row_and_repeats_only_what_was_in_flight(
    desk: Desk, cache: str
) -> None:
    rng = random.Random(cache)
    width, kills = 8, 5
    command = (
        "--limit", "100", "--n-samples", "4", *SAMPLED,
        "--max-connections", str(width), "--cache", cache,
    )  # fmt: skip
    with fault_server.start(latency=0.02) as server:
        for kill in range(kills):
            process = desk.start(server, *command)
            moment = 400 * (kill + rng.random()) / kills
            until(lambda moment=moment: server.stats()["requests"] >= moment, process)  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            process.communicate()
        done = desk.run(server, *command)
        stats = server.stats()
    assert done.code == 0
    assert len(done.verdicts()) == len(set(done.verdicts())) == 400
    assert (stats["unique"], stats["answered"]) == (400, 400)
    assert stats["requests"] <= 400 + kills * width
    results_once(desk, 400)


def test_a_run_killed_while_it_grades_asks_nothing_again(desk: Desk) -> None:
    canned = desk.folder / "canned.jsonl"
    slow = [  # each takes the grader a while
        {**row, "reply": row["reply"].replace("```python", "```python\nimport time; time.sleep(1)")}
        for row in answers(12, 9)
    ]
    canned.write_text("".join(json.dumps(row) + "\n" for row in slow))
    command = ("--limit", "12", "--jobs", "12", "--cache", "off")
    with fault_server.start(canned=canned) as server:
        process = desk.start(server, *command)
        until(lambda: len(desk.records("call")) == 12, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert len(desk.records("result")) < 12
        done = desk.run(server, *command)
        assert server.stats()["requests"] == 12
    assert done.code == 0
    assert done.found["pass@1"]["value"] == 9 / 12
    results_once(desk, 12)


def test_a_killed_process_leaves_its_questions_to_the_other_one(desk: Desk) -> None:
    command = ("--limit", "80", "--max-connections", "8")
    with fault_server.start(latency=0.05) as server:
        one, other = (desk.start(server, *command, out=out) for out in ("one", "other"))
        until(lambda: server.stats()["requests"] >= 30, one)
        one.send_signal(signal.SIGKILL)
        one.communicate()
        done = finished(other)
        stats = server.stats()
    assert done.code == 0
    assert (stats["unique"], stats["answered"]) == (80, 80)
    assert stats["requests"] <= 80 + 8
    results_once(desk, 80, "other")


def test_ctrl_c_is_exit_130_and_the_same_command_goes_on(desk: Desk) -> None:
    command = ("--limit", "60", "--max-connections", "4")
    with fault_server.start(latency=0.05) as server:
        process = desk.start(server, *command)
        until(lambda: server.stats()["requests"] >= 20, process)
        process.send_signal(signal.SIGINT)
        stopped = finished(process)
        assert stopped.code == 130
        one_object(stopped, "interrupted")
        found = stopped.found
        assert 0 < len(found["problems"]) == found["pass@1"]["problems"] < 60
        told = (
            f"{len(found['problems'])} of 60 samples of {found['run']} are done; the same command"
        )
        assert f"interrupted: {told}" in stopped.stderr
        assert f"run {found['run']}" in stopped.stderr.splitlines()
        left = server.stats()
        assert left["requests"] < 60
        done = desk.run(server, *command)
        stats = server.stats()
    assert done.code == 0
    assert stats["unique"] == 60
    assert stats["requests"] <= 60 + 4
    results_once(desk, 60)


# -- faults ----------------------------------------------------------------------------------------


def answers(count: int, right: int) -> Iterator[dict[str, str]]:
    """Recorded replies to the first problems of HumanEval: `right` solve theirs."""
    items = list(benchmarks.load("humaneval").items.values())[:count]
    for number, item in enumerate(items):
        code = item.oracle.reference if number < right else "def wrong(): pass"
        yield {"match": item.problem.prompt, "reply": f"```python\n{code}\n```"}


def test_failing_first_attempts_cost_one_request_each_and_no_score(desk: Desk) -> None:
    canned = desk.folder / "canned.jsonl"
    canned.write_text("".join(json.dumps(row) + "\n" for row in answers(30, 21)))
    faults = {500: 0.1, 429: 0.05}
    with fault_server.start(
        canned=canned, status_rate=faults, first_only=True, seed=1, latency=0.01
    ) as server:
        done = desk.run(server, "--limit", "30", "--n-samples", "4", *SAMPLED)
        stats = server.stats()
    assert done.code == 0
    failed = stats["statuses"]["500"] + stats["statuses"]["429"]
    assert failed >= 5
    assert (stats["answered"], stats["requests"]) == (120, 120 + failed)
    assert done.found["pass@1"]["value"] == 21 / 30
    assert done.found["errors"] == 0
    kinds = Counter(call["error_kind"] for call in desk.records("call"))
    assert kinds == {
        None: 120, "unavailable": stats["statuses"]["500"], "rate_limited": stats["statuses"]["429"]
    }  # fmt: skip


def test_a_refused_key_costs_two_requests_at_most_and_exit_4(desk: Desk) -> None:
    with fault_server.start(refuse=True) as server:
        done = desk.run(server, "--limit", "50", "--max-connections", "16")
        stats = server.stats()
    assert done.code == 4
    assert 1 <= stats["requests"] <= 2
    one_object(done, "refused")
    assert done.found["problems"] == []
    assert f"run {done.found['run']}" in done.stderr.splitlines()
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in done.stderr


def test_calls_that_hang_hold_up_no_other(desk: Desk) -> None:
    command = ("--limit", "50", "--n-samples", "4", *SAMPLED, "--max-connections", "64")
    with fault_server.start(hang=0.05, first_only=True) as server:
        process = desk.start(server, *command)

        def only_the_hanging_are_left() -> bool:
            stats = server.stats()
            hanging: int = stats["statuses"].get("hang", 0)
            return bool(hanging) and stats["answered"] + hanging == 200 == stats["unique"]

        until(only_the_hanging_are_left, process)
        hanging = server.stats()["statuses"]["hang"]
        until(lambda: len(desk.records("result")) == 200 - hanging, process)
        process.send_signal(signal.SIGINT)
        assert finished(process).code == 130
        done = desk.run(server, *command)
        stats = server.stats()
    assert done.code == 0
    assert stats["requests"] == 200 + hanging
    results_once(desk, 200)


def test_a_rejected_request_is_its_samples_error_and_leaves_bounds(desk: Desk) -> None:
    canned = desk.folder / "canned.jsonl"
    canned.write_text("".join(json.dumps(row) + "\n" for row in answers(20, 10)))
    refused = "|".join(("separate_paren_groups", "truncate_number"))
    with fault_server.start(canned=canned, reject_matching=refused) as server:
        done = desk.run(server, "--limit", "20")
        stats = server.stats()
        assert stats["statuses"] == {"200": 18, "400": 2}
        assert done.code == 1
        again = desk.run(server, "--limit", "20")  # only those two, and each once
        assert server.stats()["statuses"] == {"200": 18, "400": 4}
        assert again.code == 1
    assert done.found["errors"] == 2
    assert done.found["error_kinds"] == {"rejected": 2}
    rows = [r for r in desk.records("result") if r["verdict"] == "invalid"]
    assert {row["error_kind"] for row in rows} == {"rejected"}
    assert all("context" in row["detail"] for row in rows)
    assert done.found["pass@1"]["value"] == 8 / 18
    bounds = [line for line in done.stderr.splitlines() if "2 errored (2 rejected)" in line]
    assert len(bounds) == 1
    assert "40.0" in bounds[0]  # all of them fail: 8 of 20
    assert "50.0" in bounds[0]  # all of them pass: 10 of 20


def test_where_every_request_is_rejected_the_run_ends_at_once(desk: Desk) -> None:
    with fault_server.start(reject_matching=".") as server:
        done = desk.run(server, "--limit", "50")
        stats = server.stats()
    assert done.code == 4
    assert stats["requests"] <= 2
    assert "context" in done.stderr


def test_a_limit_of_requests_is_kept_to_with_few_refusals(desk: Desk) -> None:
    with fault_server.start(rpm=600, burst=20, retry_after=True, headers=True) as server:
        done = desk.run(server, "--limit", "100")
        stats = server.stats()
    assert done.code == 0
    assert stats["answered"] == 100
    assert stats["requests"] <= 120


def test_a_server_that_dies_and_comes_back_costs_no_sample(desk: Desk) -> None:
    command = ("--limit", "100", "--max-connections", "4")
    with fault_server.start(latency=0.03) as server:
        process = desk.start(server, *command)
        until(lambda: server.stats()["answered"] >= 30, process)
        before = server.stats()["answered"]
        port = server.port
    with fault_server.start(latency=0.03, port=port) as server:
        done = finished(process)
        stats = server.stats()
    assert done.code == 0
    assert done.found["errors"] == 0
    assert stats["paid_twice"] == 0
    assert 100 - before - 4 <= stats["answered"] <= 100 - before + 4
    results_once(desk, 100)
    assert {call["error_kind"] for call in desk.records("call")} == {None, "unavailable"}


def test_a_server_that_stays_away_is_an_error_of_its_samples(desk: Desk) -> None:
    with fault_server.start(status_rate={500: 1.0}, first_only=True) as server:
        pass  # its address answers no more
    done = desk.run(server, "--limit", "1")
    assert done.code == 1
    assert done.found["error_kinds"] == {"unavailable": 1}


# -- how many at once ------------------------------------------------------------------------------


def test_a_thousand_samples_keep_as_many_in_flight_as_they_may(desk: Desk) -> None:
    command = ("--limit", "100", "--n-samples", "10", *SAMPLED, "--max-connections", "100")
    with fault_server.start(latency=0.2) as server:
        done = desk.run(server, *command)
        stats = server.stats()
    assert done.code == 0
    assert (stats["requests"], stats["answered"], stats["paid_twice"]) == (1000, 1000, 0)
    assert stats["peak_in_flight"] == 100
    results_once(desk, 1000)


@pytest.mark.slow
def test_chains_of_calls_are_all_under_way_at_once(desk: Desk) -> None:
    """164 problems of ten calls one after another each."""
    knobs = ("-A", "agents=1", "-A", "rounds=10", "-A", "aggregate=last")
    with fault_server.start(latency=0.2) as server:
        done = desk.run(server, *knobs, "--max-connections", "164", method="llm-debate")
        stats = server.stats()
    assert done.code == 0
    assert (stats["requests"], stats["answered"], stats["paid_twice"]) == (1640, 1640, 0)
    assert stats["peak_in_flight"] == 164
    assert done.found["calls"] == 1640
    results_once(desk, 164)


@pytest.mark.slow
@pytest.mark.parametrize("headers", [True, False])
def test_120_requests_a_minute_are_found_out_with_few_refusals(desk: Desk, headers: bool) -> None:
    told = {"headers": headers, "retry_after": True}
    with fault_server.start(rpm=120, burst=20, latency=0.05, **told) as server:
        done = desk.run(server, "--limit", "100", "--max-connections", "16")
        stats = server.stats()
    assert done.code == 0
    assert stats["answered"] == 100
    assert stats["requests"] <= 1.2 * 100
    results_once(desk, 100)


FIRST = """
import http.server, os, sys, threading
from harness import cli

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        there = {name.partition('.')[0] for name in list(sys.modules)}
        print(*sorted(there), flush=True)
        os._exit(0)

server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f'http://127.0.0.1:{server.server_address[1]}/v1'
sys.argv[1:] = ['eval', '--method', 'vanilla', '--worker', 'openai/x', '--limit', '20',
                '--base-url', url, '--out', sys.argv[1], '--cache-dir', sys.argv[2]]
cli.main()
"""


def test_the_first_request_waits_for_nothing_that_is_not_needed_to_send_it(desk: Desk) -> None:
    """What is imported at that moment stands for what was waited for."""
    folders = [str(desk.folder / name) for name in ("out", "cache")]
    done = subprocess.run(
        [sys.executable, "-c", FIRST, *folders],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S,
        env={k: v for k, v in os.environ.items() if not k.startswith(PROVIDERS)},
    )  # fmt: skip
    there = set(done.stdout.split())
    assert {"harness", "openai", "aiohttp"} <= there, done.stderr
    late = {"torch", "transformers", "pandas", "streamlit", "pyarrow", "duckdb"}
    assert not late & there


# -- budgets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 16])
def test_a_token_budget_is_overspent_by_what_was_in_flight_at_most(desk: Desk, width: int) -> None:
    command = ("--limit", "60", "--max-connections", str(width), "--max-tokens", "64")
    with fault_server.start(latency=0.02, slots=width) as server:
        done = desk.run(server, *command, "--budget-tokens", "3000")
        spent = done.found["tokens"]
        calls = [c["prompt_tokens"] + c["completion_tokens"] for c in desk.records("call")]
        assert done.code == 3
        assert done.found["status"] == "budget"
        assert 0 < server.stats()["requests"] < 60
        assert spent == sum(calls)
        assert spent <= 3000 + max(calls) * width
        assert spent >= 3000 - max(calls) - 64  # and not stopped long before
        stopped = server.stats()["requests"]
        again = desk.run(server, *command, "--budget-tokens", "3000")
        assert again.code == 3
        assert server.stats()["requests"] == stopped
        rest = desk.run(server, *command, "--budget-tokens", "1000000")
        assert rest.code == 0
        assert server.stats()["requests"] == 60
    results_once(desk, 60)


def test_what_the_cache_answers_takes_nothing_from_a_budget(desk: Desk) -> None:
    with fault_server.start() as server:
        desk.run(server, "--limit", "30")
        done = desk.run(server, "--limit", "30", "--fresh", "--budget-tokens", "1")
        assert (done.code, server.stats()["requests"]) == (0, 30)
    assert done.found["cached_calls"] == 30


def test_a_dollar_budget_holds_at_the_prices_of_a_file_and_the_cache_keeps_the_fresh_price(
    desk: Desk,
) -> None:
    prices = desk.folder / "prices.toml"
    prices.write_text('["openai/fault"]\ninput = 1000.0\noutput = 2000.0\n')  # per million tokens
    command = ("--limit", "40", "--max-connections", "4", "--prices", str(prices))
    with fault_server.start(latency=0.02) as server:
        done = desk.run(server, *command, "--max-tokens", "64", "--budget-usd", "2")
        stopped = server.stats()["requests"]
        costs = [call["cost_usd"] for call in desk.records("call")]
        assert (done.code, done.found["cost_usd"]) == (3, pytest.approx(sum(costs)))
        assert 2 - max(costs) - 0.128 <= sum(costs) <= 2 + 4 * max(costs)
        assert 0 < stopped < 40
        rest = desk.run(server, *command, "--max-tokens", "64", "--budget-usd", "1000")
        assert (rest.code, server.stats()["requests"]) == (0, 40)
        again = desk.run(server, *command, "--max-tokens", "64", "--fresh")
        assert (again.code, server.stats()["requests"]) == (0, 40)
    for call in desk.records("call"):
        tokens = call["prompt_tokens"] + 2 * call["completion_tokens"]
        assert call["fresh_cost_usd"] == pytest.approx(tokens / 1000)
    assert rest.found["cost_usd"] == pytest.approx(rest.found["fresh_cost_usd"])
    assert again.found["cost_usd"] == 0.0
    assert again.found["fresh_cost_usd"] == pytest.approx(rest.found["fresh_cost_usd"])
