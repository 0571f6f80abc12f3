"""The board's speed over millions of graded samples, in a real browser, beside its floors.

    python tests/bench_board.py [--rows 1000000,10000000] [--repeat 3] [--keep DIR] [--views]

For each size: a folder of results is made (sessions, searches and texts through real journals and
the store; `results`, `calls`, `rounds` straight in SQL), published by `Store.snapshot`, served by
`python -m harness leaderboard`, and read by headless Chromium (CHROMIUM, else /usr/bin/chromium).
Before anything is timed, every number of the board is compared with one taken from `results`.

"Painted" is when the browser's canvas was told to draw the numbers: a table of Streamlit is drawn
on a canvas, so every page counts the texts that go through `fillText`, with their times. A page is
painted at the last of: score and interval of the best row, as the check computed them. (The table
for screen readers inside the canvas lags by 200 ms; it is used to see that a filter left one row.)
Times are the browser's own, from the start of its navigation or from the key that was pressed.

Floors, in the same minutes: an empty page of Streamlit, a page that shows one table of as many
rows and nothing else, and the board's query alone. On a machine with other work, the ratios to the
floors count, not the seconds; the load is printed. `--keep` keeps the folders for the next time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.journal import Journal
from harness.metrics import interval, percent
from harness.schema import ROLLUP_OF, connected, transaction
from harness.store import Store, open_snapshot
from leaderboard.queries import BOARD, board, groups
from leaderboard.views import VIEWS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from playwright.sync_api import Browser, BrowserContext, Page

ROOT = Path(__file__).resolve().parents[1]
MARK = "made_by_bench_board.json"  # in a folder that this file made, and may make again
MADE = 3  # version of what is made
RUNS = 96
PATIENCE_MS = 120_000

# Problems of each benchmark; the numbers of the full lists.
BENCHMARKS = {"humaneval": ("HumanEval", 164, 0.9), "mbpp": ("Mbpp", 378, 0.3),
              "bigcodebench": ("BigCodeBench", 1140, -0.8)}  # fmt: skip
# (skill in logits, calls a sample, rounds, level)
METHODS = {"vanilla": (0.0, 1, 0, "L0"), "cot": (0.15, 1, 0, "L0"),
           "self-consistency": (0.35, 5, 0, "L0"), "best-of-n": (0.6, 5, 0, "L1"),
           "self-refine": (0.3, 3, 0, "L1"), "maas": (0.7, 4, 0, "L1"),
           "aflow": (0.8, 6, 0, "L1"), "flowreasoner": (1.0, 8, 3, "L2")}  # fmt: skip
# (skill, US dollars a million tokens)
WORKERS = {"openai/gpt-4o-mini": (0.7, 0.3), "anthropic/claude-3-5-haiku": (0.9, 1.6),
           "local/qwen2.5-coder-7b-instruct": (0.2, 0.0), "local/qwen2.5-coder-1.5b-instruct":
           (-0.8, 0.0)}  # fmt: skip
SEED = 20261120

# Everything by hash, so that the same rows come out on every machine: uniform in [0, 1).
UNIFORM = "(hash({}) / 18446744073709551616.0)"
RESULTS = f"""
WITH drawn AS (
  SELECT problem_no, problem_id, sample,
         {UNIFORM.format("$run_no, problem_no, sample, 1")} AS luck,
         {UNIFORM.format("$run_no, problem_no, sample, 2")} AS fate,
         1 / (1 + exp(-($skill + 2.5 * ({UNIFORM.format("problem_no, 3")} - 0.5)
                       + 1.5 * ({UNIFORM.format("$run_no, problem_no, 4")} - 0.5)))) AS ease
  FROM problems, range($samples) AS samples(sample) WHERE benchmark = $benchmark
), graded AS (
  SELECT *, CASE WHEN fate < $errors THEN 'invalid' WHEN luck < ease THEN 'passed'
                 WHEN fate < 0.93 THEN 'wrong' WHEN fate < 0.97 THEN 'exception'
                 ELSE 'timeout' END AS verdict,
         $calls * (250 + problem_no % 200) AS prompt_tokens,
         $calls * (120 + sample % 60) AS completion_tokens
  FROM drawn
)
SELECT $run_no::INTEGER AS run_no, 1::INTEGER AS segment, 1.79e9 + sample AS logged_at,
       md5(concat_ws(':', $run_no, problem_id, sample)) AS result_key, problem_id,
       sample::INTEGER AS sample, verdict,
       CASE WHEN verdict = 'wrong' THEN 'AssertionError: 3 of 7 tests' END AS detail,
       CASE WHEN verdict <> 'invalid' AND problem_no % 5 > 0 THEN verdict END AS fresh,
       CASE WHEN verdict = 'invalid' THEN NULL ELSE $solution END AS solution_sha,
       prompt_tokens, completion_tokens, $calls::INTEGER AS calls, $rounds::INTEGER AS rounds,
       0::INTEGER AS cached_calls,
       (prompt_tokens + completion_tokens) * $price / 1e6 AS cost_usd,
       (prompt_tokens + completion_tokens) * $price / 1e6 AS fresh_cost_usd,
       'bench prices 1' AS price_table, round($calls * (0.8 + luck), 3) AS wall_s,
       0.25 AS grade_s, 2::INTEGER AS feedback_passed, 3::INTEGER AS feedback_total,
       CASE WHEN verdict = 'invalid' THEN 'provider' END AS error_kind,
       problem_no, '1' AS grader_version, 0::INTEGER AS regrades
FROM graded ORDER BY problem_no, sample
"""
# The first sample of every problem has a trajectory.
CALLS = """
SELECT run_no, segment, logged_at, result_key, problem_id, sample,
       CASE WHEN rounds > 0 THEN (call - 1) % rounds + 1 END::INTEGER AS round,
       call::INTEGER AS call_no, 1::INTEGER AS attempt,
       CASE WHEN rounds > 0 AND call <= rounds THEN 'meta' ELSE 'worker' END AS role,
       $model AS model,
       $request AS request_sha, $reply AS response_sha,
       (prompt_tokens // calls)::BIGINT AS prompt_tokens,
       (completion_tokens // calls)::BIGINT AS completion_tokens, 0::BIGINT AS cached_tokens,
       0.7 AS temperature, 1024::BIGINT AS max_tokens, false AS cached,
       cost_usd / calls AS cost_usd, fresh_cost_usd / calls AS fresh_cost_usd,
       wall_s / calls AS latency_s, 'stop' AS finish
FROM results, LATERAL (SELECT unnest(range(1, calls + 1)) AS call)
WHERE run_no = $run_no AND sample = 0 ORDER BY problem_no, call
"""
ROUNDS = """
SELECT run_no, segment, logged_at, result_key, problem_id, sample, number::INTEGER AS round,
       CASE WHEN number > 1 THEN number - 1 END::INTEGER AS parent,
       'asks for one more draft' AS modification, $workflow AS workflow_sha,
       least(1, number / 3) AS score, '[' || least(1, number / 3) || ']' AS scores,
       solution_sha AS code_sha
FROM results, LATERAL (SELECT unnest(range(1, rounds + 1)) AS number)
WHERE run_no = $run_no AND sample = 0 ORDER BY problem_no, number
"""
HIDDEN = """
SELECT run_no, segment, logged_at, result_key, problem_id, sample, round, code_sha,
       CASE WHEN score > 0.5 THEN 'passed' ELSE 'wrong' END AS verdict
FROM rounds WHERE run_no = $run_no
"""
# The columns of `runs` that verdicts decide: here no session says which problems it asked for.
SETTLED = """
UPDATE runs SET samples_left = errored, complete = errored = 0,
       status = CASE WHEN errored = 0 THEN 'complete' ELSE 'partial' END
FROM (SELECT run_no, sum(samples - graded)::INTEGER AS errored FROM problem_rollup GROUP BY run_no)
     AS found WHERE found.run_no = runs.run_no
"""

WORKFLOW = '''\
class Workflow:
    """Drafts, tests and repairs."""

    async def __call__(self, problem, entry_point):
        drafts = []
        for _ in range(3):
            drafts.append(await self.custom_code_generate(problem=problem, entry_point=entry_point))
        solution = await self.sc_ensemble(solutions=drafts, problem=problem)
        tested = await self.test(problem=problem, solution=solution, entry_point=entry_point)
        if not tested["result"]:
            solution = await self.custom(input=problem, instruction=tested["solution"])
        return solution, self.llm.cost
'''
PROGRAM = "def add(a, b):\n    return a + b\n" + "".join(
    f"\n\ndef helper_{n}(x):\n    return x + {n}\n" for n in range(12)
)


# --- the results ---


@dataclass(frozen=True)
class System:
    """One run to be made."""

    run_id: str
    method: str
    worker: str
    benchmark: str
    variant: int  # of the method's knobs
    samples: int  # of each problem
    errors: float  # share of samples without a verdict

    @property
    def skill(self) -> float:
        ease = BENCHMARKS[self.benchmark][2]
        return METHODS[self.method][0] + WORKERS[self.worker][0] + ease + 0.05 * self.variant


def systems(rows: int, runs: int) -> list[System]:
    """Which runs make about so many rows, spread evenly over the problems of all."""
    names = [
        (method, worker, benchmark, variant)
        for variant in range(math.ceil(runs / (len(METHODS) * len(WORKERS) * len(BENCHMARKS))))
        for worker in WORKERS
        for method in METHODS
        for benchmark in BENCHMARKS
    ][:runs]
    samples = max(1, round(rows / sum(BENCHMARKS[name[2]][1] for name in names)))
    return [
        System(
            f"{benchmark}-{method}-{worker.partition('/')[2]}-{variant:08x}", method, worker,
            benchmark, variant, samples, 0.002 if place % 16 == 5 else 0.0,
        )
        for place, (method, worker, benchmark, variant) in enumerate(names)
    ]  # fmt: skip


def make_results(results_dir: Path, rows: int, runs: int = RUNS) -> None:
    """Fill an empty folder with about `rows` graded samples, and publish them as a snapshot.

    All is as the store would have it of journals that held these results, but one thing: the
    journals hold sessions, texts and the search only, so `rebuild` would leave no result. A result
    key is a hash, as real ones are; texts are few. The same rows come out every time.
    """
    asked = systems(rows, runs)
    texts = {system.run_id: _write_journal(results_dir, system) for system in asked}
    _write_search(results_dir)
    store = Store(results_dir)
    store.ingest()
    with connected(store.path) as connection, transaction(connection):
        _insert_problems(connection)
        numbers = dict(connection.execute("SELECT run_id, run_no FROM runs").fetchall())
        for system in asked:
            _insert_results(connection, numbers[system.run_id], system, texts[system.run_id])
        connection.execute(
            f"INSERT INTO problem_rollup {ROLLUP_OF} GROUP BY run_no, problem_no ORDER BY ALL"
        )
        connection.execute(SETTLED)
    store.snapshot()


def _insert_problems(connection: DuckDBPyConnection) -> None:
    """The problems of every benchmark, in its order."""
    for benchmark, (name, problems, _) in BENCHMARKS.items():
        connection.execute(
            "INSERT INTO problems SELECT (SELECT coalesce(max(problem_no), 0) FROM problems) "
            "+ 1 + n, ?, ? || n FROM range(?) AS numbers(n)",
            [benchmark, f"{name}/", problems],
        )


def _insert_results(
    connection: DuckDBPyConnection, run_no: int, system: System, texts: Mapping[str, str]
) -> None:
    """The results of one run, and the trajectories of its first samples."""
    _, calls, rounds, _ = METHODS[system.method]
    _insert(connection, "results", RESULTS, run_no=run_no, skill=system.skill,
            samples=system.samples, benchmark=system.benchmark, errors=system.errors, calls=calls,
            rounds=rounds, price=WORKERS[system.worker][1], solution=texts["program"])  # fmt: skip
    _insert(connection, "calls", CALLS, run_no=run_no, model=system.worker,
            request=texts["request"], reply=texts["reply"])  # fmt: skip
    if rounds:
        _insert(connection, "rounds", ROUNDS, run_no=run_no, workflow=texts["workflow"])
        _insert(connection, "hidden", HIDDEN, run_no=run_no)


def _insert(connection: DuckDBPyConnection, table: str, query: str, **values: Any) -> None:
    connection.execute(f"INSERT INTO {table} BY NAME {query}", values)


def _write_journal(results_dir: Path, system: System) -> dict[str, str]:
    """What the journal of a run says but its results; the digests of its texts by name."""
    _, _, rounds, level = METHODS[system.method]
    knobs = {"rounds": 2 + system.variant} if system.variant else {}
    problems = BENCHMARKS[system.benchmark][1]
    roles = {"worker": {"model": system.worker}}
    if rounds:
        roles["meta"] = {"model": "local/qwen2.5-coder-7b-instruct"}
    head = {
        "run_id": system.run_id, "benchmark": system.benchmark, "benchmark_digest": "b" * 64,
        "list": "full", "protocol": "public", "level": level, "method": system.method,
        "knobs": knobs, "config": {"knobs": knobs}, "roles": roles, "n_samples": system.samples,
        "seed": 0, "sandbox": "bubblewrap", "grader_version": "1", "price_table": "bench prices 1",
        "kind": "measured", "stage": "eval", "harness_version": "0.1.0", "commit": "0" * 40,
        "dirty": False, "command": "python tests/bench_board.py", "first_look": False,
        "started_at": 1.79e9 + system.variant,
    }  # fmt: skip
    if system.method == "aflow":
        head["artifact"] = {"run": "fit-aflow", "digest": "a" * 64, "problems": 33,
                            "spent": {"calls": 4000, "tokens": 2_000_000, "cost_usd": 1.5,
                                      "fresh_cost_usd": 1.5, "wall_s": 3600.0}}  # fmt: skip
    journal = _journal(results_dir, head)
    journal.write("session", event="start", status="running", problems=problems,
                  samples=problems * system.samples, resumed=0, n_samples=system.samples,
                  sandbox="bubblewrap", config={"budget_usd": 20.0},
                  versions={"python": "3.11.7", "duckdb": "2.0.0"})  # fmt: skip
    request = {"messages": [{"role": "user", "content": "Write a function that adds. " * 40}]}
    texts = {
        "program": journal.artifact(f"{PROGRAM}# {system.run_id}\n"),
        "workflow": journal.artifact(f"{WORKFLOW}# {system.run_id}\n"),
        "request": journal.artifact(json.dumps(request)),
        "reply": journal.artifact(f"Here it is.\n```python\n{PROGRAM}```\n"),
    }
    journal.write("session", event="end", status="complete")
    journal.close()
    return texts


def _write_search(results_dir: Path) -> None:
    """A search of twenty workflows on thirty problems, all in its journal."""
    head = {"run_id": "fit-aflow", "stage": "fit", "benchmark": "humaneval", "method": "aflow",
            "benchmark_digest": "b" * 64, "list": "search", "protocol": "public", "level": "L1",
            "roles": {"worker": {"model": "openai/gpt-4o-mini"}}, "knobs": {"rounds": 20},
            "kind": "measured", "started_at": 1.79e9, "grader_version": "1"}  # fmt: skip
    journal = _journal(results_dir, head)
    journal.write("session", event="start", problems=30, samples=600)
    for number in range(1, 21):
        parent = number // 2 or None
        for problem in range(30):
            key = {"result_key": f"{number}:{problem}", "problem_id": f"HumanEval/{problem}",
                   "sample": 1000 * number + problem}  # fmt: skip
            solved = (problem * 7 + number * 3) % 10 < 5 + number // 5
            journal.write("trial", **key, label=f"round {number}", round=number, passed=solved,
                          share=float(solved), calls=3, tokens=900.0, usd=0.001,
                          wall_s=4.0)  # fmt: skip
        journal.write("node", result_key="desk", problem_id="search", sample=0, number=number,
                      parent=parent, label=f"round {number}", score=0.5 + number / 60,
                      workflow_sha=journal.artifact(f"{WORKFLOW}# round {number}\n"))  # fmt: skip
    journal.write("session", event="end", status="complete")
    journal.close()


def _journal(results_dir: Path, head: Mapping[str, Any]) -> Journal:
    journal = Journal(results_dir / "runs" / str(head["run_id"]))
    (journal.run_dir / "run.json").write_text(json.dumps(head))
    return journal


def results_of(keep: Path | None, folder: Path, rows: int, runs: int) -> tuple[Path, float | None]:
    """The folder of so many rows, and the seconds that making it took; None: it was there.

    Raises SystemExit where a folder to be kept is somebody else's: nothing but what this file made
    is ever written to.
    """
    results_dir = (keep or folder) / f"rows-{rows}-runs-{runs}"
    told = json.dumps({"made": MADE, "rows": rows, "runs": runs, "seed": SEED})
    mark = results_dir / MARK
    if results_dir.exists():
        if not mark.exists():
            raise SystemExit(f"{results_dir}: is there and was not made here; give --keep another")
        if mark.read_text() == told:
            return results_dir, None
        shutil.rmtree(results_dir)
    results_dir.mkdir(parents=True)
    mark.write_text("{}")  # until it is whole
    began = time.monotonic()
    make_results(results_dir, rows, runs)
    mark.write_text(told)
    return results_dir, time.monotonic() - began


# --- whether the board's numbers are right ---

# The board's numbers from the samples alone, in other words than the store's and the board's.
BRUTE_FORCE = """
WITH shares AS (
  SELECT run_no, problem_id, avg(CASE verdict WHEN 'passed' THEN 1 WHEN 'invalid' THEN NULL ELSE 0
                                 END) AS share,
         avg(CASE WHEN fresh = 'passed' THEN 1 WHEN fresh IS NOT NULL THEN 0 END) AS fresh,
         avg((verdict = 'passed')::INTEGER) AS least,
         avg((verdict IN ('passed', 'invalid'))::INTEGER) AS most, avg(fresh_cost_usd) AS dollars
  FROM results GROUP BY run_no, problem_id
), means AS (
  SELECT run_no, avg(share) AS value, coalesce(stddev_samp(share), 0) AS deviation,
         count(share) AS problems, avg(fresh) AS overlap_free, avg(least) AS floor,
         avg(most) AS ceiling, sum(dollars) FILTER (share IS NOT NULL) / sum(share)
           AS cost_per_solved
  FROM shares GROUP BY run_no
), sums AS (
  SELECT run_no, count(*) FILTER (verdict <> 'invalid') AS samples,
         count(*) FILTER (verdict = 'invalid') AS errored, sum(calls) AS calls,
         sum(prompt_tokens) + sum(completion_tokens) AS tokens, sum(cost_usd) AS cost_usd,
         sum(fresh_cost_usd) AS fresh_cost_usd, sum(wall_s) AS wall_s
  FROM results GROUP BY run_no
)
SELECT * FROM means JOIN sums USING (run_no) ORDER BY run_no
"""


def check_board(connection: DuckDBPyConnection) -> tuple[int, int]:
    """(runs, numbers) that agree. Raises AssertionError at the first number that is wrong."""
    found = connection.execute(BRUTE_FORCE)
    names = [column[0] for column in found.description or ()]
    truth = {row[0]: dict(zip(names, row, strict=True)) for row in found.fetchall()}
    rows = board(connection)
    assert {row.run_no for row in rows} == set(truth)
    numbers = 0
    for row in rows:
        shown = {**vars(row), **vars(row.estimate)}
        of_it = truth.pop(row.run_no)
        of_it.pop("run_no")
        one_each = of_it["samples"] == of_it["problems"]
        of_it["low"], of_it["high"] = interval(
            of_it["value"], of_it.pop("deviation"), of_it["problems"], single=one_each
        )
        for name, true in of_it.items():
            assert true is not None, (row.run_id, name)
            assert math.isclose(shown[name], true, rel_tol=1e-9), (row.run_id, name, shown[name])
            numbers += 1
    return len(rows), numbers


@dataclass(frozen=True)
class Known:
    """Rows that the browser is to look for, with what their cells say."""

    best: str  # the run that stands first
    best_cells: tuple[str, ...]
    other: str  # one that stands too low to be painted at once
    other_cells: tuple[str, ...]
    sample: str


def known_rows(connection: DuckDBPyConnection) -> Known:
    """The first and the last row of the first ranking, their scores taken from `results`."""
    group = groups(board(connection))[0]
    first, last = group.rows[0], group.ranked[-1]
    truth = {
        run_no: value
        for run_no, value, *_ in connection.execute(BRUTE_FORCE).fetchall()
    }  # fmt: skip

    def cells(row: Any) -> tuple[str, ...]:
        low, high = row.estimate.low, row.estimate.high
        return percent(truth[row.run_no]), f"{percent(low)} – {percent(high)}"

    name = BENCHMARKS[first.benchmark][0]
    return Known(first.run_id, cells(first), last.run_id, cells(last), f"{name}/3:0")


# --- a server ---


class Server:
    """A command that serves pages until it is stopped."""

    def __init__(self, command: Sequence[str], port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        began = time.monotonic()
        self.child = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        while not self._up():
            if self.child.poll() is not None or time.monotonic() - began > 300:
                raise SystemExit(f"no server: {' '.join(command)} ended, or said nothing in 300 s")
            time.sleep(0.02)
        self.up_s = time.monotonic() - began

    def _up(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=5).close()
            return True
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def memory_mb(self) -> tuple[float, float]:
        """(resident set, proportional set) of the process and all below it."""
        import psutil

        main = psutil.Process(self.child.pid)
        found = [one.memory_full_info() for one in (main, *main.children(recursive=True))]
        return sum(m.rss for m in found) / 2**20, sum(m.pss for m in found) / 2**20

    def stop(self) -> None:
        self.child.send_signal(signal.SIGINT)
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()


@contextmanager
def served(command: Callable[[int], Sequence[str]]) -> Iterator[Server]:
    """A server on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = Server(command(port), port)
    try:
        yield server
    finally:
        server.stop()


def the_board(results_dir: Path) -> Callable[[int], list[str]]:
    """The board as a user starts it."""
    return lambda port: [
        sys.executable, "-m", "harness", "leaderboard", "--out", str(results_dir), "--port",
        str(port), "--no-browser",
    ]  # fmt: skip


def bare(script: Path) -> Callable[[int], list[str]]:
    """Streamlit's own command line over a script, with nothing of ours."""
    return lambda port: [
        sys.executable, "-m", "streamlit", "run", str(script), "--server.address=127.0.0.1",
        f"--server.port={port}", "--server.headless=true", "--server.fileWatcherType=none",
        "--browser.gatherUsageStats=false", "--server.showEmailPrompt=false",
        "--client.toolbarMode=minimal",
    ]  # fmt: skip


EMPTY = "import streamlit as st\nst.title('Nothing')\n"
TABLE = """\
import json, sys, streamlit as st, pyarrow as pa
st.title("One table")
st.dataframe(pa.Table.from_pylist(json.loads({rows!r})), hide_index=True, height=640)
"""


def one_table(known: Known, rows: int = 32) -> str:
    """A script that shows one table with the known cells and nothing else."""
    words = [known.best_cells, *((f"{n}.0", f"{n} - {n + 1}") for n in range(rows - 1))]
    records = [{"Method": f"method {n}", "pass@1": score, "95% interval": interval,
                **{f"Column {k}": n * k for k in range(18)}}
               for n, (score, interval) in enumerate(words)]  # fmt: skip
    return TABLE.format(rows=json.dumps(records))


# --- a browser ---

# Counts what the page paints and receives. Texts are drawn on canvases by fillText alone.
WATCH = """
(() => {
  const seen = window.__seen = {drawn: new Map(), key: null, sockets: [], messages: []};
  const fill = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
    seen.drawn.set(String(text), performance.now());
    return fill.call(this, text, ...rest);
  };
  addEventListener('keydown', e => { if (e.key === 'Enter') seen.key = performance.now(); }, true);
  const Native = window.WebSocket;
  window.WebSocket = class extends Native {
    constructor(...args) {
      super(...args);
      this.addEventListener('open', () => seen.sockets.push(performance.now()));
      this.addEventListener('message', e => seen.messages.push(
        [performance.now(), e.data.size ?? e.data.byteLength ?? e.data.length]));
    }
  };
  performance.setResourceTimingBufferSize(1000);
})();
"""
PAINTED = """
([cells, since]) => {
  const times = cells.map(cell => window.__seen.drawn.get(cell) ?? -1);
  return times.every(t => t > since) ? Math.max(...times) : null;
}
"""
DONE = """
([selector, canvas]) => {
  const app = document.querySelector('.stApp');
  const still = app && app.dataset.testScriptState === 'notRunning'
    && !document.querySelector('.stSkeleton') && document.querySelector(selector)
    && (!canvas || window.__seen.drawn.size > 0);
  return still ? performance.now() : null;
}
"""
ONE_ROW = """
() => document.querySelectorAll('canvas tbody tr').length === 1 ? performance.now() : null
"""
TOOK = """
() => {
  const all = [...performance.getEntriesByType('navigation'),
               ...performance.getEntriesByType('resource')];
  const {sockets, messages} = window.__seen;
  return {
    requests: all.length,
    fetched: all.filter(e => e.transferSize > 300).length,
    wire_kb: all.reduce((sum, e) => sum + e.transferSize, 0) / 1000,
    decoded_kb: all.reduce((sum, e) => sum + e.decodedBodySize, 0) / 1000,
    socket_ms: sockets[0], first_ms: messages[0]?.[0], last_ms: messages.at(-1)?.[0],
    messages: messages.length, received_kb: messages.reduce((sum, m) => sum + m[1], 0) / 1000,
    elements: document.querySelectorAll('[data-testid=stElementContainer], .stElementContainer')
      .length,
  };
}
"""
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update",
         "--disable-sync"]  # fmt: skip
# What stands on each page once it is drawn, and whether it draws on a canvas.
CANVAS = ("canvas", True)
STANDS = {"board": CANVAS, "cost": ("[data-testid=stVegaLiteChart] .marks", False),
          "compare": ("[data-testid=stMetric]", False), "problems": CANVAS, "a run": CANVAS,
          "trajectory": ("[data-testid=stCode]", False), "searches": CANVAS,
          "paper": ("table", False), "runs": CANVAS}  # fmt: skip


@contextmanager
def new_browser(chromium: Browser) -> Iterator[Page]:
    """A page of a new profile, whose cache is empty."""
    context: BrowserContext = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script(WATCH)
    try:
        yield context.new_page()
    finally:
        context.close()


def until(page: Page, condition: str, *arguments: Any) -> float:
    """Seconds on the page's clock at which a condition gave a time."""
    told = page.wait_for_function(condition, arg=list(arguments), polling="raf")
    return float(told.json_value()) / 1000


def painted(page: Page, cells: Sequence[str], since_s: float = 0.0) -> float:
    """Seconds at which the last of these cells was painted, all after `since_s`."""
    return until(page, PAINTED, list(cells), since_s * 1000)


def open_board(page: Page, url: str, known: Known) -> float:
    """Seconds from navigation until the table shows its numbers."""
    page.goto(url, wait_until="commit")
    return painted(page, known.best_cells)


def open_view(page: Page, url: str, view: str) -> float:
    """Seconds from navigation until a view is drawn to its end."""
    page.goto(url, wait_until="commit")
    return until(page, DONE, *STANDS[view])


def filter_rows(page: Page, words: str, cells: Sequence[str]) -> float:
    """Seconds from Enter in the search field until the table shows these cells."""
    box = page.get_by_role("textbox", name="Search").first
    box.fill(words)
    box.press("Enter")
    began = float(page.evaluate("window.__seen.key")) / 1000
    return painted(page, cells, began) - began


def view_paths(known: Known) -> dict[str, str]:
    """The address of each view with what it needs, and that of a run, where the board leads."""
    run, sample = known.best, known.sample
    asked = {"compare": f"compare?a={run}&b={known.other}", "board": "",
             "trajectory": f"trajectory?run={run}&sample={sample}"}  # fmt: skip
    return {view: asked.get(view, view) for view in VIEWS} | {"a run": f"trajectory?run={run}"}


# --- the table ---

GOALS = {"a new browser, warm server": 2.0, "the same browser again (permalink)": 1.2,
         "a filter": 0.4}  # fmt: skip
MEMORY_GOAL_MB = 300


@dataclass
class Times:
    """What was measured, seconds by name; and where a new browser's time went."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    loads: list[float] = field(default_factory=list)
    took: list[dict[str, float]] = field(default_factory=list)
    memory_mb: list[tuple[float, float]] = field(default_factory=list)

    def add(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)
        self.loads.append(os.getloadavg()[0])

    def median(self, name: str) -> float | None:
        return statistics.median(self.seconds[name]) if name in self.seconds else None

    def load(self) -> str:
        return f"{min(self.loads):.1f} to {max(self.loads):.1f}"


def measure_board(
    times: Times, chromium: Browser, results_dir: Path, known: Known, *, views: bool
) -> None:
    """One turn over one folder: a server from its start, new browsers, a filter, every view."""
    benchmark = known.best.partition("-")[0]
    with served(the_board(results_dir)) as server:
        times.add("server up", server.up_s)
        with new_browser(chromium) as page:
            times.add("first page ever", open_board(page, server.url, known))
        with new_browser(chromium) as page:
            times.add("a new browser, warm server", open_board(page, server.url, known))
            times.took.append(page.evaluate(TOOK))
            seconds = open_board(page, f"{server.url}/?benchmark={benchmark}", known)
            times.add("the same browser again (permalink)", seconds)
            open_board(page, server.url, known)
            until(page, DONE, *STANDS["board"])
            times.add("a filter", filter_rows(page, known.other, known.other_cells))
            until(page, ONE_ROW)
            times.add("the filter off again", filter_rows(page, "", known.best_cells))
        for view, path in view_paths(known).items() if views else ():
            for name in ("first of", "new browser,"):
                with new_browser(chromium) as page:
                    times.add(f"{name} {view}", open_view(page, f"{server.url}/{path}", view))
        times.memory_mb.append(server.memory_mb())


def measure_floor(times: Times, chromium: Browser, script: Path, cells: Sequence[str]) -> None:
    """The same of a bare page; without cells, until its title stands."""

    def opened(page: Page, url: str) -> float:
        page.goto(url, wait_until="commit")
        return painted(page, cells) if cells else until(page, DONE, "h1", False)

    with served(bare(script)) as server:
        times.add("server up", server.up_s)
        with new_browser(chromium) as page:
            times.add("first page ever", opened(page, server.url))
        with new_browser(chromium) as page:
            times.add("a new browser, warm server", opened(page, server.url))
            times.took.append(page.evaluate(TOOK))
            seconds = opened(page, f"{server.url}/?benchmark=humaneval")
            times.add("the same browser again (permalink)", seconds)
        times.memory_mb.append(server.memory_mb())


def quiet(below: float | None) -> None:
    """Wait until the load of the machine is below a number, if one is asked for."""
    while below is not None and os.getloadavg()[0] >= below:
        time.sleep(5)


def counted(connection: DuckDBPyConnection) -> dict[str, int]:
    """How many rows the large tables have."""
    tables = ("results", "problem_rollup", "calls", "rounds")
    counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    found = connection.execute(f"SELECT {counts}").fetchall()[0]
    return dict(zip(tables, found, strict=True))


def query_s(results_dir: Path, repeat: int = 9) -> float:
    """The board's query alone, on an open snapshot."""
    with open_snapshot(results_dir) as connection:
        found = []
        for _ in range(repeat):
            began = time.monotonic()
            connection.execute(BOARD, [None, None]).fetchall()
            found.append(time.monotonic() - began)
    return statistics.median(found)


PAGE = ("server up", "first page ever", "a new browser, warm server",
        "the same browser again (permalink)", "a filter", "the filter off again")  # fmt: skip
# (what, of `Times.took`, how it is written)
PARTS = (("socket open, s", "socket_ms", 1000), ("first message, s", "first_ms", 1000),
         ("last message, s", "last_ms", 1000), ("requests", "requests", 1),
         ("kB on the wire", "wire_kb", 1), ("kB unpacked", "decoded_kb", 1),
         ("messages of the server", "messages", 1), ("kB of them", "received_kb", 1),
         ("elements", "elements", 1))  # fmt: skip


def report(
    boards: Mapping[str, Times], floors: Mapping[str, Times], queries: Mapping[str, float]
) -> str:
    """All tables, as Markdown."""
    table = floors["one table"]
    lines = _table(
        ["Seconds (times one table)", "goal", *boards, *floors],
        [
            [name, f"{GOALS[name]:g}" if name in GOALS else "",
             *(_goal_cell(name, times, table) for times in boards.values()),
             *(_seconds(times.median(name)) for times in floors.values())]
            for name in PAGE
        ]
        + [
            ["the board's query alone", "", *(f"{queries[name]:.3f}" for name in boards),
             *("" for _ in floors)],
            ["memory of the server, MB", f"{MEMORY_GOAL_MB}",
             *(_memory(times) for times in (*boards.values(), *floors.values()))],
            ["load of the machine", "",
             *(times.load() for times in (*boards.values(), *floors.values()))],
        ],
    )  # fmt: skip
    both = {**boards, **floors}
    lines += ["", "A new browser on a warm server:", ""]
    lines += _table(
        ["", *both],
        [
            [words, *(_part(times, name, unit) for times in both.values())]
            for words, name, unit in PARTS
        ],
    )
    seen = {name for times in boards.values() for name in times.seconds}
    shown = [view for view in STANDS if f"new browser, {view}" in seen]
    if shown:
        lines += ["", "Each view in a new browser: first of all (its numbers are made then), and "
                  "median after that:", ""]  # fmt: skip
        lines += _table(
            ["Seconds", *boards],
            [
                [view, *(f"{_seconds(times.median(f'first of {view}'))}; "
                         f"{_seconds(times.median(f'new browser, {view}'))}"
                         for times in boards.values())]
                for view in shown
            ],
        )  # fmt: skip
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    bar = ["---" for _ in head]
    return [f"| {' | '.join(cells)} |" for cells in (head, bar, *rows)]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _goal_cell(name: str, times: Times, floor: Times) -> str:
    """A median, bold where it misses its goal, and how often the floor's it is."""
    value, base = times.median(name), floor.median(name)
    if value is None:
        return ""
    text = f"{value:.2f}"
    if name in GOALS and value > GOALS[name]:
        text = f"**{text}**"
    return text if base is None else f"{text} ({value / base:.1f}x)"


def _memory(times: Times) -> str:
    resident, split = (statistics.median(values) for values in zip(*times.memory_mb, strict=True))
    return f"{resident:.0f} ({split:.0f} with shared pages split)"


def _part(times: Times, name: str, unit: float) -> str:
    known = [one[name] for one in times.took if one.get(name) is not None]
    if not known:
        return ""
    value = statistics.median(known) / unit
    return f"{value:.2f}" if unit > 1 else f"{value:,.0f}"


@dataclass
class Size:
    """A folder of results with what is to be measured on it."""

    folder: Path
    known: Known
    times: Times
    query_s: float


def prepared(results_dir: Path, made_s: float | None) -> tuple[str, Size]:
    """The checked folder, by the name of its size; what was found is printed."""
    with open_snapshot(results_dir) as connection:
        runs, numbers = check_board(connection)
        known, counts = known_rows(connection), counted(connection)
    size = f"{counts['results'] / 1e6:.1f} M rows"
    told = ", ".join(f"{number:,} {table}" for table, number in counts.items())
    made = "they were there" if made_s is None else f"made in {made_s:.0f} s"
    megabytes = (results_dir / "harness.duckdb").stat().st_size / 1e6
    print(f"{size}: {runs} runs, {told}, {megabytes:.0f} MB, {made}; {numbers} numbers of the "
          "board are those of the samples", flush=True)  # fmt: skip
    return size, Size(results_dir, known, Times(), query_s(results_dir))


def main() -> None:
    """Make, check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", default="1000000,10000000", help="sizes, with commas between")
    parser.add_argument("--runs", type=int, default=RUNS, help="runs that the rows are spread over")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder for the results, used again if there")
    parser.add_argument("--no-views", action="store_true", help="only the board itself")
    parser.add_argument("--below", type=float, help="before every turn, wait for a load below it")
    asked = parser.parse_args()
    path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if not Path(path).exists():
        raise SystemExit(f"no Chromium at {path}; set CHROMIUM")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        folder = Path(name)
        sizes = dict(
            prepared(*results_of(asked.keep, folder, rows, asked.runs))
            for rows in map(int, asked.rows.split(","))
        )
        known = next(iter(sizes.values())).known
        floors = {"one table": (one_table(known), known.best_cells), "empty page": (EMPTY, ())}
        floor_times = {floor: Times() for floor in floors}
        chromium = driver.chromium.launch(executable_path=path, args=FLAGS)
        for _ in range(asked.repeat):  # in turns, so that all have the same neighbours
            for size in sizes.values():
                quiet(asked.below)
                measure_board(size.times, chromium, size.folder, size.known,
                              views=not asked.no_views)  # fmt: skip
            for floor, (script, cells) in floors.items():
                quiet(asked.below)
                file = folder / "floor.py"
                file.write_text(script)
                measure_floor(floor_times[floor], chromium, file, cells)
        chromium.close()
    print()
    print(
        report(
            {name: size.times for name, size in sizes.items()},
            floor_times,
            {name: size.query_s for name, size in sizes.items()},
        )
    )


if __name__ == "__main__":
    main()
