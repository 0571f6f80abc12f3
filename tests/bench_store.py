"""What the store takes at size: journals to database, beside the plainest insertion there is.

    .venv/bin/python tests/bench_store.py [--rows 1000000] [--per-run 10000] [--grow 10] [--dir DIR]

Makes journals of `--rows` results (one in ten with a call), runs of `--per-run`, and prints a
table of wall seconds, CPU seconds of all threads, and rows a CPU second (on a busy machine only
these say something). `floor` is an Arrow table of the same result rows,
inserted into an empty database: nothing is parsed, checked or counted. `one run more` is what a
running evaluation does at each look, an ingest of its own folder and a snapshot, with all the
other rows there; `copy` is a plain copy of the file. `--grow` then makes the database so many times
as large, without journals, and looks again: neither may take longer for it but for the copy.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from harness.journal import Journal
from harness.store import Store

PROBLEMS = 1_000  # of the benchmark
Took = tuple[float, float]  # wall and CPU seconds


def result(run: int, number: int) -> dict[str, Any]:
    """A result as a run of ours writes it."""
    sample, problem = divmod(number, PROBLEMS)
    return {
        "kind": "result", "at": 1.7e9 + number / 7, "result_key": f"{run:08x}{number:024x}",
        "problem_id": f"HumanEval/{problem}", "sample": sample,
        "verdict": ("passed", "wrong", "timeout")[(number * 7 + run) % 3],
        "detail": "assert 1 == 2",
        "fresh": "passed" if number % 2 else None, "base": None, "plus": None, "reruns": None,
        "solution_sha": f"{number:064x}", "prompt_tokens": 400 + number % 97,
        "completion_tokens": 200 + number % 53, "calls": 1, "cached_calls": 0, "rounds": 1,
        "cost_usd": 0.00025, "fresh_cost_usd": 0.00025, "price_table": "genai-prices 0.0.40",
        "wall_s": 1.25, "grade_s": 0.125, "feedback_passed": 1, "feedback_total": 2,
        "error_kind": None,
    }  # fmt: skip


def call(made: dict[str, Any]) -> dict[str, Any]:
    """A call of a sample as a run of ours writes it."""
    key = {name: made[name] for name in ("at", "result_key", "problem_id", "sample")}
    return {
        "kind": "call", **key, "call_no": 1, "attempt": 1, "round": None, "occurrence": 0,
        "role": "worker", "model": "openai/some-model", "request_sha": "a" * 64,
        "response_sha": "b" * 64, "prompt_tokens": 400, "completion_tokens": 200,
        "cached_tokens": 0, "reasoning_tokens": None, "temperature": 0.0, "seed": 1,
        "max_tokens": 2048, "served_by": "some-model-2026", "ignored": [], "cached": False,
        "cost_usd": 0.00025, "fresh_cost_usd": 0.00025, "latency_s": 1.5, "finish": "stop",
        "error": None, "error_kind": None,
    }  # fmt: skip


def make_run(results: Path, run: int, rows: int) -> int:
    """Write a run's journal; its bytes."""
    folder = results / "runs" / f"run-{run:05}"
    folder.mkdir(parents=True)
    head = {"run_id": folder.name, "benchmark": "humaneval", "method": f"method-{run % 12}",
            "kind": "measured", "grader_version": "2", "n_samples": rows // PROBLEMS,
            "roles": {"worker": {"model": f"openai/model-{run % 7}"}},
            "started_at": 1.7e9}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(head))
    asked = [f"HumanEval/{number}" for number in range(PROBLEMS)]
    start = {"kind": "session", "at": 1.7e9, "event": "start", "problems": PROBLEMS,
             "samples": rows, "asked": asked, "resumed": 0}  # fmt: skip
    with (folder / "0001.jsonl").open("w") as file:
        file.write(json.dumps(start) + "\n")
        for number in range(rows):
            made = result(run, number)
            if number % 10 == 0:
                file.write(json.dumps(call(made)) + "\n")
            file.write(json.dumps(made) + "\n")
        file.write(json.dumps({"kind": "session", "at": 1.8e9, "event": "end",
                               "status": "complete"}) + "\n")  # fmt: skip
    return (folder / "0001.jsonl").stat().st_size


def floor(rows: int) -> Took:
    """Seconds of inserting as many result rows from Arrow into an empty database."""
    import pyarrow as pa

    made = [result(number // 10_000, number % 10_000) for number in range(min(rows, 100_000))]
    table = pa.Table.from_pylist([{k: v for k, v in row.items() if v is not None} for row in made])
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(f"{folder}/floor") as connection:
        connection.register("batch", table)
        connection.execute("CREATE TABLE results AS SELECT * FROM batch LIMIT 0")

        def insert() -> None:
            connection.execute("BEGIN")
            for _ in range(max(1, rows // len(made))):
                connection.execute("INSERT INTO results SELECT * FROM batch")
            connection.execute("COMMIT")

        return timed(insert)


def timed(work: Callable[[], object]) -> Took:
    began = time.monotonic(), time.process_time()
    work()
    return time.monotonic() - began[0], time.process_time() - began[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--per-run", type=int, default=10_000)
    parser.add_argument("--grow", type=int, default=1)
    parser.add_argument("--dir", type=Path)
    given = parser.parse_args()
    results = given.dir or Path(tempfile.mkdtemp(prefix="bench_store"))
    runs = max(1, given.rows // given.per_run)
    size = sum(make_run(results, run, given.per_run) for run in range(runs))
    rows = runs * given.per_run
    records = rows + rows // 10 + 2 * runs
    print(f"{rows:,} results, {records:,} records, {runs} runs, {size / 2**20:,.0f} MiB of journal")

    def say(what: str, took: Took, done: int | None = None) -> None:
        rate = f"{done / took[1]:12,.0f}" if done else ""
        print(f"{what:34}{took[0]:10.3f}{took[1]:10.3f}{rate}", flush=True)

    print(f"{'':34}{'wall s':>10}{'CPU s':>10}{'rows/CPU s':>12}")
    store = Store(results)
    say("floor: Arrow insertion", floor(rows), rows)
    say("ingest of all journals", timed(store.ingest), records)
    say("ingest again, nothing new", timed(store.ingest))
    say("rebuild", timed(store.rebuild), records)
    say("snapshot", timed(store.snapshot))
    say("copy of the file", timed(lambda: shutil.copyfile(store.path, results / "copy")))
    say("one whole run more", _one_more(results, store, runs, given.per_run), given.per_run)
    looks = _looks(results, store, "live")
    say("a look at a live run: ingest", looks[0])
    say("a look at a live run: snapshot", looks[1])
    if given.grow > 1:
        _grow(store, given.grow)
        print(f"{rows * given.grow:,} results:")
        looks = _looks(results, store, "live-2")
        say("a look at a live run: ingest", looks[0])
        say("a look at a live run: snapshot", looks[1])
        say("copy of the file", timed(lambda: shutil.copyfile(store.path, results / "copy")))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"database {store.path.stat().st_size / 2**20:,.0f} MiB, peak memory {peak:,.0f} MiB")
    if given.dir is None:
        shutil.rmtree(results)


def _one_more(results: Path, store: Store, run: int, rows: int) -> Took:
    make_run(results, run, rows)
    return timed(lambda: store.ingest(results / "runs" / f"run-{run:05}"))


def _grow(store: Store, times: int) -> None:
    """Make a database so many times as large: every run again under other numbers and names."""
    with duckdb.connect(str(store.path)) as connection:
        ((top,),) = connection.execute("SELECT max(run_no) FROM runs").fetchall()
        for turn in range(1, times):
            for table in ("runs", "results", "problem_rollup", "calls", "sessions"):
                name = ", run_id || '-' || $2 AS run_id" if table == "runs" else ""
                values = [turn * top, str(turn)] if name else [turn * top]
                connection.execute(
                    f"INSERT INTO {table} SELECT * REPLACE (run_no + $1 AS run_no{name}) "
                    f"FROM {table} WHERE run_no <= {top}",
                    values,
                )
        connection.execute("CHECKPOINT")


def _looks(results: Path, store: Store, run_id: str) -> list[Took]:
    """What ingest and snapshot take, for 20 samples more in a run of 1,000: medians of 6."""
    journal = Journal(results / "runs" / run_id)
    head = {"run_id": run_id, "benchmark": "humaneval", "method": "direct", "roles": {}}
    (journal.run_dir / "run.json").write_text(json.dumps(head))
    took: list[list[Took]] = []
    for look in range(7):
        for number in range(1000 if look == 0 else 20):
            made = result(99_999_999, look * 1000 + number)
            journal.write(made.pop("kind"), **{k: v for k, v in made.items() if k != "at"})
        took.append([timed(lambda: store.ingest(journal.run_dir)), timed(store.snapshot)])
    journal.close()
    return [(statistics.median(one[part][0] for one in took[1:]),
             statistics.median(one[part][1] for one in took[1:])) for part in (0, 1)]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
