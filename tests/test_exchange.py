"""What other tools wrote becomes runs that say so; a bad file becomes one line and nothing else."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.benchmarks import DataSources
from harness.errors import UsageError
from harness.exchange import EXPORTS, IMPORTS, bring_in, companions, detect, send_out
from harness.exchange.evalplus import HASHES
from harness.journal import read_run
from harness.show import list_runs, show_run
from harness.store import Store, open_snapshot
from leaderboard.queries import BoardRow, board
from tests.results_maker import app_text, published

HERE = DataSources()  # HumanEval comes with the installation; nothing is downloaded
LM_EVAL = "2026-11-20T18-49-10.598547"
LONG = "Qwen--Qwen2.5-7B--main--bigcodebench-hard-complete--vllm-0.2-1-sanitized_calibrated"


def graded(task: str, base: str, plus: str | None = None, **more: Any) -> dict[str, Any]:
    """A sample as evalplus 0.3.1 writes it."""
    return {"task_id": task, "solution": f"def f():\n    return {task!r}\n", "base_status": base,
            "plus_status": plus, "base_fail_tests": [], "plus_fail_tests": [], **more}  # fmt: skip


def evalplus_file(path: Path, samples: list[dict[str, Any]], **more: Any) -> Path:
    tasks: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        tasks.setdefault(sample["task_id"], []).append(sample)
    head = {"date": "2024-05-01 10:20", "hash": "fe585eb4df8c88d844eeb463ea4d0302"}
    path.write_text(json.dumps({**head, "eval": tasks, **more}))
    return path


def bigcodebench_file(folder: Path) -> Path:
    """Three tasks as bigcodebench 0.2.5 writes them, with the rates beside."""
    failed = {"test_case_1": "Traceback (most recent call last):\n  ...\nAssertionError: 1 != 2"}
    statuses: dict[str, tuple[str, dict[str, str]]] = {
        "BigCodeBench/13": ("pass", {}),
        "BigCodeBench/15": ("fail", failed),
        "BigCodeBench/17": ("timeout", {"ALL": "timed out"}),
    }
    tasks = {
        task: [{"task_id": task, "solution": f"# {task}", "status": status, "details": details}]
        for task, (status, details) in statuses.items()
    }
    path = folder / f"{LONG}_eval_results.json"
    path.write_text(json.dumps({"date": "2024-12-25 02:51", "eval": tasks}))
    rates = {"pass@1": 1 / 3, "model": "Qwen--Qwen2.5-7B--main", "split": "complete",
             "subset": "hard", "calibrated": True, "gt_pass_rate": 1.0,
             "failed_tasks": []}  # fmt: skip
    (folder / f"{LONG}_pass_at_k.json").write_text(json.dumps(rates))
    return path


def lm_eval_row(number: int, share: float, replies: list[str], **more: Any) -> dict[str, Any]:
    """A line of a samples file of lm-eval 0.4.13."""
    prompt = f"def f{number}():\n"
    doc = {"task_id": f"HumanEval/{number}", "prompt": prompt, "test": "SECRET TEST"}
    return {
        "doc_id": number, "doc": doc, "target": "SECRET TEST",
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {"until": ["\nclass"],
                                     "max_gen_toks": 1024, "do_sample": False}}},
        "resps": [replies], "filtered_resps": [[prompt + reply for reply in replies]],
        "filter": "create_test", "metrics": ["pass@1"], "doc_hash": "", "prompt_hash": "",
        "target_hash": "", "pass@1": share, **more,
    }  # fmt: skip


def lm_eval_files(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A results file with its samples beside it; the model's arguments hold a key."""
    samples = folder / f"samples_humaneval_{LM_EVAL}.jsonl"
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = folder / f"results_{LM_EVAL}.json"
    results.write_text(json.dumps({
        "results": {"humaneval": {"pass@1,create_test": 0.5}}, "n-shot": {"humaneval": 0},
        "n-samples": {"humaneval": {"original": 164, "effective": 2}},
        "config": {"model": "local-completions", "limit": 2.0, "random_seed": 7,
                   "model_args": {"api_key": "sk-SECRET", "base_url": "http://u:p@host"}},
        "date": 1795200550.5, "lm_eval_version": "0.4.13", "model_source": "local-completions",
        "model_name": "tiny", "task_hashes": {"humaneval": "60bf"}, "versions": {"humaneval": 1.0},
        "git_hash": None,
    }))  # fmt: skip
    return results


def whole_run(results_dir: Path, run_id: str, benchmark: str, outcomes: dict[str, list[str]],
              **fields: Any) -> Path:  # fmt: skip
    """A measured run as `eval` leaves one: a call, a round and a result for each sample."""
    from harness.journal import Journal, canonical, digest

    journal = Journal(results_dir / "runs" / run_id)
    draws = max(map(len, outcomes.values()))
    parts = benchmark.endswith("+")
    head = {
        "run_id": run_id, "benchmark": benchmark, "benchmark_digest": "ab" * 32, "list": "full",
        "protocol": "public", "level": "L2", "method": "flow", "knobs": {"rounds": 2},
        "config": {"knobs": {"rounds": 2}}, "n_samples": draws, "seed": 3, "grader_version": "9",
        "roles": {"worker": {"model": "openai/small", "sampling": {"temperature": 0.5}},
                  "meta": {"model": "openai/big"}},
        "price_table": "2026", "kind": "measured", "started_at": 1762000000.0, "stage": "eval",
    }  # fmt: skip
    (journal.run_dir / "run.json").write_text(json.dumps(head | fields))
    journal.write("session", event="start", problems=len(outcomes), samples=len(outcomes) * draws,
                  asked=list(outcomes), n_samples=draws)  # fmt: skip
    for problem_id, verdicts in outcomes.items():
        for sample, verdict in enumerate(verdicts):
            key = {"result_key": digest(f"{problem_id}:{sample}"), "problem_id": problem_id,
                   "sample": sample}  # fmt: skip
            request = canonical({"messages": [{"role": "user", "content": f"Solve {problem_id}."}]})
            invalid = verdict == "invalid"
            journal.write(
                "call", **key, call_no=1, attempt=1, round=1, occurrence=0, role="meta",
                model="openai/big", request_sha=journal.artifact(request),
                response_sha=journal.artifact(f"reply {problem_id} {sample}"), prompt_tokens=70,
                completion_tokens=30, cached_tokens=20, reasoning_tokens=5, temperature=0.5,
                seed=1, max_tokens=512, cached=sample == 1, cost_usd=0.0 if sample == 1 else 0.25,
                fresh_cost_usd=0.25, latency_s=0.5, finish="length", error=None, error_kind=None,
            )  # fmt: skip
            journal.write("round", **key, round=1, parent=None, modification="first", score=0.5,
                          scores=[0.5], error=None, error_class=None,
                          workflow_sha=journal.artifact("class Workflow: ..."))  # fmt: skip
            base = None if not parts else "passed" if verdict != "timeout" else "timeout"
            journal.write(
                "result", **key, verdict=verdict, detail="" if verdict == "passed" else "reason",
                fresh=None, base=base, plus=verdict if parts else None, reruns=["passed", "wrong"],
                solution_sha=None if invalid else journal.artifact(f"def f(): return {sample}"),
                prompt_tokens=70, completion_tokens=30, calls=1, cached_calls=int(sample == 1),
                rounds=1, cost_usd=0.0 if sample == 1 else 0.25, fresh_cost_usd=0.25,
                price_table="2026", wall_s=3.25, grade_s=0.125, feedback_passed=1,
                feedback_total=2, error_kind="sandbox" if invalid else None,
            )  # fmt: skip
    journal.write("session", event="end", status="complete")
    journal.close()
    return journal.run_dir


def of_kind(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    """A run's records of a kind, without what an import gives anew."""
    records = [r for r in read_run(run_dir) if r["kind"] == kind]
    return [{k: v for k, v in r.items() if k not in {"result_key", "at"}} for r in records]


def head_of(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "run.json").read_text())
    return found


def row_of(results_dir: Path, run_dir: Path) -> BoardRow:
    with open_snapshot(published(results_dir)) as connection:
        return next(row for row in board(connection) if row.run_id == run_dir.name)


def silent(_line: str) -> None:
    pass


def one(path: Path, results: Path, **wish: Any) -> Path:
    (made,) = bring_in(path, results, sources=HERE, say=wish.pop("say", silent), **wish)
    return made


def test_evalplus_words_become_verdicts_with_base_and_plus_apart(tmp_path: Path) -> None:
    path = evalplus_file(tmp_path / "a_eval_results.json", [
        graded("HumanEval/0", "pass", "pass"),
        graded("HumanEval/0", "pass", "fail", plus_fail_tests=[[1, 2]]),
        graded("HumanEval/1", "fail", "fail"),
        graded("HumanEval/2", "timeout", "timeout"),
    ])  # fmt: skip
    run = one(path, tmp_path / "results")
    rows = of_kind(run, "result")
    assert [(r["problem_id"], r["sample"], r["verdict"], r["base"], r["plus"]) for r in rows] == [
        ("HumanEval/0", 0, "passed", "passed", "passed"),
        ("HumanEval/0", 1, "wrong", "passed", "wrong"),
        ("HumanEval/1", 0, "wrong", "wrong", "wrong"),
        ("HumanEval/2", 0, "timeout", "timeout", "timeout"),
    ]
    assert rows[1]["detail"] == "plus: failed on [[1, 2]]"
    unsaid = ("calls", "prompt_tokens", "completion_tokens", "cost_usd", "fresh_cost_usd", "wall_s",
              "rounds", "cached_calls", "fresh")  # fmt: skip
    assert {r[name] for r in rows for name in unsaid} == {None}
    head = head_of(run)
    assert (head["kind"], head["benchmark"], head["method"]) == ("imported", "humaneval+", None)
    assert head["roles"] == {}
    origin = head["origin"]
    assert (origin["format"], origin["file"], origin["tool"]) == ("evalplus", path.name, "evalplus")
    assert len(origin["sha256"]) == 64
    assert time.time() - origin["imported_at"] < 60
    assert head["started_at"] == 1714558800.0  # 2024-05-01 10:20 UTC


def test_an_imported_run_is_on_the_board_in_show_and_survives_a_rebuild(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    path = evalplus_file(tmp_path / "a_eval_results.json", [
        graded("HumanEval/0", "pass", "pass"), graded("HumanEval/0", "pass", "fail"),
        graded("HumanEval/1", "pass", "pass"),
    ])  # fmt: skip
    run = one(path, results, method="cot", worker="openai/x")
    row = row_of(results, run)
    assert (row.estimate.value, row.estimate.problems, row.estimate.samples) == (0.75, 2, 3)
    assert (row.kind, row.method, row.worker, row.tokens) == ("imported", "cot", "openai/x", None)
    Store(results).rebuild()
    assert row_of(results, run).estimate.value == 0.75
    show_run(results, run.name, problem="HumanEval/0", sample=1)
    shown = capsys.readouterr().out
    assert "def f():" in shown
    assert "plus: failed" in shown


def test_a_file_makes_one_run_however_often_it_comes(tmp_path: Path) -> None:
    results = tmp_path / "results"
    path = evalplus_file(tmp_path / "a_eval_results.json", [graded("HumanEval/0", "pass", "pass")])
    first = one(path, results)
    written = sorted(p.read_bytes() for p in first.iterdir())
    moved = tmp_path / "other_name.json"
    moved.write_bytes(path.read_bytes())
    said: list[str] = []
    assert one(moved, results, say=said.append) == first
    assert said == [f"other_name.json: was brought in before, as {first.name}"]
    assert sorted(p.read_bytes() for p in first.iterdir()) == written
    with pytest.raises(UsageError, match=r"with method unknown, not cot; .* delete"):
        one(path, results, method="cot")
    assert [p.name for p in (results / "runs").iterdir()] == [first.name]


def test_an_older_evalplus_file_takes_its_programs_from_the_samples_beside_it(
    tmp_path: Path,
) -> None:
    old = {"HumanEval/0": {"nfiles": 2, "base": [["success", []], ["timed out", [True]]],
                           "plus": [["failed", [True]], ["failed", []]]}}  # fmt: skip
    path = evalplus_file(tmp_path / "m_eval_results.json", [], eval=old)
    samples = [{"task_id": "HumanEval/0", "solution": f"# {n}"} for n in range(2)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, samples)))
    run = one(path, tmp_path / "results")
    assert [(r["verdict"], r["base"], r["plus"]) for r in of_kind(run, "result")] == [
        ("wrong", "passed", "wrong"), ("timeout", "timeout", "wrong"),
    ]  # fmt: skip
    assert [r["text"] for r in of_kind(run, "artifact")] == ["# 0", "# 1"]
    assert [c["file"] for c in head_of(run)["origin"]["companions"]] == ["m.jsonl"]


def test_base_tests_alone_are_no_verdict_of_the_plus_suite(tmp_path: Path) -> None:
    path = evalplus_file(tmp_path / "a_eval_results.json", [graded("HumanEval/0", "pass")])
    run = one(path, tmp_path / "results")
    assert head_of(run)["benchmark"] == "humaneval"
    assert head_of(run)["benchmark_digest"] is None  # the file's hash is of other rows
    both = evalplus_file(tmp_path / "b_eval_results.json", [graded("HumanEval/0", "pass", "pass")])
    with pytest.raises(UsageError, match=r"plus tests, so of humaneval\+, not humaneval"):
        one(both, tmp_path / "results", benchmark="humaneval")
    some = [graded("HumanEval/0", "pass", "pass"), graded("HumanEval/1", "pass")]
    with pytest.raises(UsageError, match="in all samples or in none, found in some"):
        one(evalplus_file(tmp_path / "c_eval_results.json", some), tmp_path / "results")


def test_real_evalplus_verdicts_come_in_and_go_out_task_by_task(
    tmp_path: Path, shared: Path
) -> None:
    lines = gzip.decompress(
        (shared / "parity/humaneval/evalplus__Meta-Llama-3-8B-Instruct.jsonl.gz").read_bytes()
    ).splitlines()
    samples = [
        graded(r["task_id"], r["base"], r["plus"], solution=r["solution"])
        for r in map(json.loads, lines)
    ]
    path = evalplus_file(tmp_path / "llama_eval_results.json", samples)
    results, sources = tmp_path / "results", DataSources(data_dir=shared / "data")
    (run,) = bring_in(path, results, sources=sources, say=silent)
    head = head_of(run)
    assert HASHES[head["benchmark_digest"]] == "fe585eb4df8c88d844eeb463ea4d0302"
    assert head["origin"]["digest_by"] == "hash"
    counts = Counter(r["verdict"] for r in of_kind(run, "result"))
    assert counts == {"passed": 94, "wrong": 70}  # 105 pass base, 95 plus, 94 both
    made = send_out(published(results), "evalplus", tmp_path / "out", runs=[run.name])
    back = json.loads(next(p for p in made if p.suffix == ".json").read_text())
    assert back == json.loads(path.read_text())
    programs = next(p for p in made if p.suffix == ".jsonl").read_text().splitlines()
    sent = {row["task_id"]: row["solution"] for row in map(json.loads, programs)}
    assert sent == {s["task_id"]: s["solution"] for s in samples}

    other = evalplus_file(tmp_path / "x_eval_results.json", samples, hash="0" * 32)
    said: list[str] = []
    (run,) = bring_in(other, results, sources=sources, say=said.append)
    assert head_of(run)["benchmark_digest"] is None
    assert "graded on other rows than those of humaneval+" in said[-1]


def test_failing_inputs_survive_the_way_in_and_out(tmp_path: Path) -> None:
    samples = [
        graded("HumanEval/10", "pass", "fail", plus_fail_tests=[["a"], [None]]),
        graded("HumanEval/10", "pass", "pass"),
        graded("HumanEval/9", "fail", "fail", base_fail_tests=[[1]]),
    ]
    path = evalplus_file(tmp_path / "a_eval_results.json", samples)
    run = one(path, tmp_path / "results")
    made = send_out(published(tmp_path / "results"), "evalplus", tmp_path / "out", runs=[run.name])
    back = json.loads(next(p for p in made if p.suffix == ".json").read_text())
    assert back["eval"] == json.loads(path.read_text())["eval"]
    assert list(back["eval"]) == ["HumanEval/9", "HumanEval/10"]


def test_ids_that_a_benchmark_does_not_have_are_counted_and_named(tmp_path: Path) -> None:
    names = [f"HumanEval/{900 + n}" for n in range(6)]
    samples = [graded(task, "pass") for task in ["HumanEval/0", *names]]
    said: list[str] = []
    path = evalplus_file(tmp_path / "a_eval_results.json", samples)
    run = one(path, tmp_path / "results", say=said.append)
    assert said == [
        f"{path.name}: 7 samples of 7 problems; humaneval has 164",
        f"{path.name}: 6 problems not in humaneval: {', '.join(names[:5])}, ...",
    ]
    assert head_of(run)["origin"]["unknown_problems"] == 6
    assert head_of(run)["benchmark_digest"] is None
    assert len(of_kind(run, "result")) == 7  # nothing is lost


def test_bigcodebench_results_say_their_model_and_split_and_go_out_again(tmp_path: Path) -> None:
    path = bigcodebench_file(tmp_path)
    assert detect(path) == "bigcodebench"
    results = tmp_path / "results"
    run = one(path, results)
    head = head_of(run)
    assert head["benchmark"] == "bigcodebench-hard-complete"
    assert head["roles"]["worker"]["model"] == "Qwen--Qwen2.5-7B--main"
    assert head["roles"]["worker"]["sampling"] == {"temperature": 0.2}
    assert [(r["verdict"], r["detail"], r["base"]) for r in of_kind(run, "result")] == [
        ("passed", "", None),
        ("wrong", "test_case_1: AssertionError: 1 != 2", None),
        ("timeout", "ALL: timed out", None),
    ]
    made = send_out(published(results), "bigcodebench", tmp_path / "out", runs=[run.name])
    ours = {p.name.rpartition("sanitized_calibrated")[2]: p for p in made}
    assert set(ours) == {".jsonl", "_eval_results.json", "_pass_at_k.json"}
    assert json.loads(ours["_eval_results.json"].read_text()) == json.loads(path.read_text())
    rates = json.loads(ours["_pass_at_k.json"].read_text())
    assert rates["pass@1"] == pytest.approx(1 / 3)
    assert (rates["subset"], rates["split"], rates["gt_pass_rate"]) == ("hard", "complete", 1.0)
    with pytest.raises(UsageError, match="holds only means; import the"):
        detect(path.with_name(f"{LONG}_pass_at_k.json"))


def test_lm_eval_samples_keep_what_they_know_and_no_more(tmp_path: Path) -> None:
    path = lm_eval_files(tmp_path, [
        lm_eval_row(0, 1.0, ["a", "b"]), lm_eval_row(1, 0.5, ["c", "d"]),
        lm_eval_row(0, 0.0, ["a", "b"], filter="other"),
    ])  # fmt: skip
    said: list[str] = []
    run = one(path, tmp_path / "results", say=said.append)
    assert "1 row of other filters than create_test left out" in said[0]
    rows = of_kind(run, "result")
    assert [(r["problem_id"], r["sample"], r["verdict"], r["calls"]) for r in rows] == [
        ("HumanEval/0", 0, "passed", 1), ("HumanEval/0", 1, "passed", 1),
        ("HumanEval/1", 0, "passed", 1), ("HumanEval/1", 1, "wrong", 1),
    ]  # fmt: skip
    assert [r["solution_sha"] is None for r in rows] == [False, False, True, True]
    assert rows[2]["detail"] == "1 of 2 passed; the file does not say which"
    calls = of_kind(run, "call")
    assert {(c["model"], c["prompt_tokens"], c["cost_usd"], c["max_tokens"]) for c in calls} == {
        ("tiny", None, None, 1024)
    }
    head = head_of(run)
    assert (head["benchmark"], head["grader_version"]) == ("humaneval", "lm-eval 0.4.13")
    assert (head["seed"], head["started_at"]) == (7, 1795200550.5)
    assert head["benchmark_digest"] is None  # its prompts are not HumanEval's
    assert "2 problems with another text than in humaneval" in said[2]
    kept = b"".join(p.read_bytes() for p in run.iterdir())
    assert b"SECRET" not in kept  # neither the key nor the hidden tests
    assert b"u:p@" not in kept
    samples = next(tmp_path.glob("samples_*"))
    assert bring_in(samples, tmp_path / "results", sources=HERE, say=silent) == [run]


def test_lm_eval_means_alone_are_no_run(tmp_path: Path) -> None:
    path = lm_eval_files(tmp_path, [])
    next(tmp_path.glob("samples_*")).unlink()
    with pytest.raises(UsageError, match="run lm-eval with --log_samples"):
        one(path, tmp_path / "results")


BAD = {
    "not json": ("evalplus", "{", r"bad.json: expected JSON, .* at line 1 column 2"),
    "no eval": ("evalplus", '{"date": "x"}', "eval: expected an object of graded samples"),
    "status": ("evalplus", json.dumps({"eval": {"HumanEval/0": [graded("HumanEval/0", "okay")]}}),
               r"HumanEval/0 sample 0: base_status: expected pass, fail or timeout, found 'okay'"),
    "samples": ("evalplus", '{"eval": {"a": [{"base_status": "pass"}], "HumanEval/1": 3}}',
                "HumanEval/1: expected a list of samples, found 3"),
    "details": ("bigcodebench", '{"eval": {"BigCodeBench/0": [{"status": "pass", "details": 3}]}}',
                "sample 0: details: expected an object, found 3"),
    "line": ("lm-eval", json.dumps(lm_eval_row(0, 1.0, ["a"])) + "\n{]\n",
             r"bad.jsonl:2: expected JSON"),
    "metric": ("lm-eval", json.dumps({"doc": {"task_id": "a"}, "metrics": ["acc"]}),
               r"bad.jsonl:1: expected a metric pass@1, found acc"),
    "share": ("lm-eval", json.dumps(lm_eval_row(0, 0.3, ["a", "b"])),
              r"pass@1: expected the share of 2 samples that passed, found 0.3"),
    "version": ("inspect", '{"version": 9, "eval": {}}', "version: expected 1 or 2, found 9"),
    "zip": ("inspect", "PK\x03\x04 and no more", "expected a zip file"),
    "column": ("csv", "problem_id,answer\na,b\n", "bad.json:1: expected a column verdict"),
    "fields": ("csv", "problem_id,verdict\na,passed\nb\n",
               "bad.json:3: expected 2 fields, found 1"),
    "verdict": ("csv", "problem_id,verdict\na,pass\n",
                "bad.json:2: verdict: expected one of passed"),
    "number": ("csv", "problem_id,verdict,calls\na,passed,many\n",
               "bad.json:2: calls: expected a whole number, found 'many'"),
    "twice": ("csv", "problem_id,verdict,sample\na,passed,0\na,wrong,0\n",
              "bad.json:3: sample 0 of a stands twice; leave the column `sample` out"),
    "keys": ("evalplus", '{"eval": {"HumanEval/0": [], "HumanEval/1": [], "HumanEval/0": []}}',
             r"bad.json: 'HumanEval/0' stands twice in one object"),
    "parquet": ("parquet", "PAR1 and no more", "bad.json: cannot be read"),
    "deep": ("evalplus", "[" * 100_000, "bad.json: not JSON"),
    "many": ("csv", "problem_id,verdict,calls\na,passed,3000000000\n",
             "bad.json:2: calls: expected less than 2.14748e\\+09, found 3000000000"),
    "vast": ("csv", "problem_id,verdict,wall_s\na,passed,1" + "0" * 400 + "\n",
             "bad.json:2: wall_s: expected a finite number"),
    "date": ("inspect", json.dumps({"version": 2, "eval": {"task": "t", "model": "m", "created":
             "0999-01-01T00:00:00+00:00"}, "samples": [{"id": 1, "epoch": 1}]}),
             "expected a date since 1970"),
    "empty": ("csv", "problem_id,verdict\n", "no graded sample in it"),
}  # fmt: skip


def test_nothing_that_a_file_holds_steers_a_terminal(tmp_path: Path) -> None:
    task = "\x1b[31mred\nsecond line"
    path = evalplus_file(tmp_path / "a_eval_results.json", [graded(task, "okay")])
    with pytest.raises(UsageError) as found:
        one(path, tmp_path / "results", benchmark="humaneval")
    assert r"\x1b[31mred\nsecond line sample 0: base_status" in str(found.value)
    said: list[str] = []
    path = evalplus_file(tmp_path / "a_eval_results.json", [graded(task, "pass")])
    one(path, tmp_path / "results", benchmark="humaneval", say=said.append)
    assert said[1].endswith(r"1 problem not in humaneval: \x1b[31mred\nsecond line")


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    form, text, expected = BAD[name]
    path = tmp_path / ("bad.jsonl" if form == "lm-eval" else "bad.json")
    path.write_text(text)
    results = tmp_path / "results"
    with pytest.raises(UsageError, match=expected) as found:
        bring_in(path, results, format=form, benchmark="humaneval", sources=HERE, say=silent)
    assert "\n" not in str(found.value)
    assert [p for p in results.rglob("*") if p.is_file()] == []


def test_one_bad_run_of_several_keeps_the_others_out_too(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("run_id,problem_id,verdict\nx,a,passed\ny,a,passed\ny,a,nonsense\n")
    results = tmp_path / "results"
    with pytest.raises(UsageError, match=r"two\.csv:4: verdict"):
        one(path, results, benchmark="mine")
    assert [p for p in results.rglob("*") if p.is_file()] == []


def test_a_kill_in_the_middle_leaves_no_run_and_the_next_import_clears_up(tmp_path: Path) -> None:
    results, path = tmp_path / "results", tmp_path / "a.csv"
    path.write_text("problem_id,verdict\na,passed\n")
    code = """
import os, signal, sys
from pathlib import Path
from harness.exchange import IMPORTS, bring_in
from harness.exchange.foreign import Log, Row
from harness.types import Verdict

def read(path, wish):
    def rows():
        for n in range(20_000):
            yield Row(problem_id=str(n), verdict=Verdict.PASSED, where="here", solution="x" * 100)
        os.kill(os.getpid(), signal.SIGKILL)
    yield Log(tool="t", rows=rows, benchmark="mine")

IMPORTS["killed"] = (__name__, "read")
bring_in(Path(sys.argv[1]), Path(sys.argv[2]), format="killed")
"""
    done = subprocess.run([sys.executable, "-c", code, path, results], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not (results / "runs").exists()
    (left,) = results.glob(".importing-*")
    assert (left / "rows").stat().st_size > 1e6
    os.utime(left, (time.time() - 3600,) * 2)
    run = one(path, results, benchmark="mine")
    assert not list(results.glob(".importing-*"))
    assert sorted(p.name for p in run.iterdir()) == ["0001.jsonl", "run.json"]


def test_a_format_is_known_by_what_a_file_holds(tmp_path: Path) -> None:
    lm_eval = lm_eval_files(tmp_path, [lm_eval_row(0, 1.0, ["a"])])
    assert detect(lm_eval) == detect(next(tmp_path.glob("samples_*"))) == "lm-eval"
    assert detect(evalplus_file(tmp_path / "e.json", [graded("HumanEval/0", "pass")])) == "evalplus"
    table = tmp_path / "t.csv"
    table.write_text("problem_id,verdict\n")
    assert detect(table) == "csv"
    samples = tmp_path / "s.jsonl"
    samples.write_text('{"task_id": "HumanEval/0", "completion": ""}\n')
    with pytest.raises(UsageError, match="samples without verdicts; `score --samples` grades them"):
        detect(samples)
    samples.write_text("hello")
    with pytest.raises(UsageError, match="of no format known here"):
        detect(samples)
    with pytest.raises(UsageError, match="No such file"):
        detect(tmp_path / "absent.json")


def test_a_measured_answer_goes_out_behind_the_imports_that_it_was_graded_with(
    tmp_path: Path,
) -> None:
    from harness.benchmarks import load

    loaded = load("humaneval", HERE)
    results = tmp_path / "results"
    whole_run(results, "own", "humaneval", {"HumanEval/0": ["passed", "invalid"]},
              benchmark_digest=loaded.digest)  # fmt: skip
    said: list[str] = []
    made = send_out(published(results), "evalplus", tmp_path / "out", sources=HERE,
                    say=said.append)  # fmt: skip
    assert [p.name for p in made] == ["own.jsonl"]  # not graded on EvalPlus's base tests
    (row,) = map(json.loads, made[0].read_text().splitlines())
    prelude = loaded.items["HumanEval/0"].problem.prelude
    assert prelude
    assert row["solution"] == f"{prelude}\ndef f(): return 0"
    assert said == [
        "own: 1 sample without a verdict left out",
        "own: has no verdicts of EvalPlus's base and plus tests, so only its samples are written; "
        "`evalplus.evaluate` grades them",
    ]


def test_a_simulated_run_goes_out_only_where_a_format_can_say_so(tmp_path: Path) -> None:
    results = tmp_path / "results"
    whole_run(results, "sim", "humaneval+", {"HumanEval/0": ["passed"]},
              roles={"worker": {"model": "sim/x"}})  # fmt: skip
    published(results)
    with pytest.raises(UsageError, match="every run is simulated"):
        send_out(results, "parquet", tmp_path / "out")
    with pytest.raises(UsageError, match="simulated, and EvalPlus's files cannot say so"):
        send_out(results, "evalplus", tmp_path / "out", runs=["sim"])
    made = send_out(results, "inspect", tmp_path / "out", runs=["sim"])
    assert row_of(results, one(made[0], results)).kind == "simulated"


def test_what_is_asked_for_wrongly_is_said_before_anything_is_written(tmp_path: Path) -> None:
    results = tmp_path / "results"
    whole_run(results, "own", "humaneval+", {"HumanEval/0": ["passed"]})
    published(results)
    with pytest.raises(UsageError, match="unknown format 'xlsx'"):
        send_out(results, "xlsx", tmp_path / "out")
    with pytest.raises(UsageError, match="on humaneval\\+, not on BigCodeBench"):
        send_out(results, "bigcodebench", tmp_path / "out")
    with pytest.raises(UsageError, match="no run of that name"):
        send_out(results, "evalplus", tmp_path / "out", runs=["absent"])
    with pytest.raises(UsageError, match="unknown format 'xlsx'"):
        bring_in(tmp_path / "x", results, format="xlsx")
    assert not (tmp_path / "out").exists()
    send_out(results, "evalplus", tmp_path / "out", say=silent)
    with pytest.raises(UsageError, match=r"own\.jsonl: is there already"):
        send_out(results, "evalplus", tmp_path / "out", say=silent)


def test_what_is_no_file_of_results_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    results, pipe = tmp_path / "results", tmp_path / "pipe"
    os.mkfifo(pipe)
    for wish in ({}, {"format": "inspect"}):
        with pytest.raises(UsageError, match="pipe: neither a file nor a folder"):
            bring_in(pipe, results, **wish)
        with pytest.raises(UsageError, match="No such file"):
            bring_in(tmp_path / "absent", results, **wish)
    with pytest.raises(UsageError, match="name a file in it"):
        bring_in(tmp_path, results, format="inspect")
    with pytest.raises(UsageError, match=r"a folder without results\.parquet"):
        bring_in(tmp_path, results)
    assert not results.exists()


def test_a_run_of_ours_is_merged_and_not_imported(tmp_path: Path) -> None:
    run = whole_run(tmp_path / "other", "own", "humaneval", {"HumanEval/0": ["passed"]})
    merge = f"`python -m harness merge {tmp_path / 'other'}`"
    for path in (run, run / "0001.jsonl", tmp_path / "other"):
        with pytest.raises(UsageError, match="runs of this harness; ") as found:
            bring_in(path, tmp_path / "results")
        assert merge in str(found.value)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("humanevl", "humaneval"), ("HumanEval", "humaneval"), ("humaneval_plus", "humaneval+"),
     ("mbp", "mbpp"), ("bigcodebench-hard-complet", "bigcodebench-hard-complete")],
)  # fmt: skip
def test_a_slip_in_a_benchmarks_name_is_named(tmp_path: Path, wrong: str, right: str) -> None:
    path = evalplus_file(tmp_path / "a_eval_results.json", [graded("HumanEval/0", "pass")])
    with pytest.raises(UsageError) as found:
        one(path, tmp_path / "results", benchmark=wrong)
    assert f"{wrong}: no benchmark here, but near one: {right};" in str(found.value)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", ["humaneval-x", "live-humaneval", "swe-bench", "bigcodebench-v2"])
def test_another_benchmark_is_taken_and_that_is_said(tmp_path: Path, name: str) -> None:
    path, said = tmp_path / "a.csv", list[str]()
    path.write_text("problem_id,verdict\na,passed\n")
    assert head_of(one(path, tmp_path / "results", benchmark=name, say=said.append))[
        "benchmark"
    ] == name  # fmt: skip
    assert said == [
        f"a.csv: 1 sample of 1 problem; {name} is no benchmark of ours, so its problem ids were "
        "not checked"
    ]


def test_a_mark_of_utf_8_before_a_file_changes_nothing(tmp_path: Path) -> None:
    plain = evalplus_file(tmp_path / "a_eval_results.json", [graded("HumanEval/0", "pass")])
    marked = tmp_path / "b_eval_results.json"
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    table = tmp_path / "t"
    table.write_bytes(b"\xef\xbb\xbfproblem_id,verdict\nHumanEval/0,passed\n")
    assert (detect(marked), detect(table)) == ("evalplus", "csv")
    runs = [one(path, tmp_path / "results") for path in (plain, marked)]
    runs.append(one(table, tmp_path / "results", benchmark="humaneval"))
    assert [[r["verdict"] for r in of_kind(run, "result")] for run in runs] == [["passed"]] * 3
    assert of_kind(runs[0], "result") == of_kind(runs[1], "result")


def test_files_that_are_read_with_another_are_not_brought_in_alone(tmp_path: Path) -> None:
    results = bigcodebench_file(tmp_path)
    rates, samples = (tmp_path / f"{LONG}{end}" for end in ("_pass_at_k.json", ".jsonl"))
    samples.write_text("{}")
    other = tmp_path / "lone_pass_at_k.json"
    other.write_text("{}")
    assert companions([rates, results, other, samples]) == (
        [results, other],
        [f"{p.name}: left out, read with {results.name}" for p in (rates, samples)],
    )
    table = tmp_path / "t.csv"
    assert companions([table, rates]) == (
        [table], [f"{rates.name}: left out, has no verdicts; import {results.name}"]
    )  # fmt: skip
    assert companions([rates]) == ([rates], [])  # its own error names what to import
    (tmp_path / "folder").mkdir()
    moved = tmp_path / "folder" / ".." / rates.name
    assert companions([results, moved])[0] == [results]


def test_show_says_where_an_imported_run_comes_from_and_claims_no_more(tmp_path: Path) -> None:
    results = tmp_path / "results"
    samples = [graded("HumanEval/0", "pass", "pass")]
    theirs = evalplus_file(tmp_path / "a_eval_results.json", samples)
    lm_eval = lm_eval_files(tmp_path, [lm_eval_row(0, 1.0, ["a"])])
    table = tmp_path / "t.csv"
    table.write_text("problem_id,verdict\nHumanEval/0,passed\n")
    runs = [one(theirs, results, benchmark="mine+"), one(lm_eval, results)]
    runs.append(one(table, results, benchmark="humaneval"))
    shas = [head_of(run)["origin"]["sha256"][:12] for run in runs]
    told: list[str] = []
    for run in runs:
        lines: list[str] = []
        show_run(results, run.name, lines.append)
        assert not [x for x in lines if "hidden tests that no feedback test repeats" in x]
        told += [x.partition("origin")[2].strip() for x in lines if x.startswith("  origin ")]
    samples_file = f"samples_humaneval_{LM_EVAL}.jsonl"
    assert told == [
        f"evalplus, version unknown; evalplus file a_eval_results.json, sha256 {shas[0]}; data "
        "unknown",
        f"lm-eval 0.4.13; lm-eval file {samples_file}, sha256 {shas[1]}; data unknown",
        f"table, version unknown; csv file t.csv, sha256 {shas[2]}; data by the ids of its "
        "problems alone",
    ]


def test_a_list_of_runs_leaves_out_what_an_import_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    path = evalplus_file(tmp_path / "a_eval_results.json", [graded("HumanEval/0", "pass", "pass")])
    run = one(path, results)
    list_runs(results)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{run.name}  complete 1/1  pass@1 100.0 % ")
    assert line.endswith("[imported: not ranked]")
    assert "unknown" not in line.removeprefix(run.name)


def test_a_page_says_who_graded_an_imported_run(tmp_path: Path) -> None:
    results = tmp_path / "results"
    run = one(lm_eval_files(tmp_path, [lm_eval_row(0, 1.0, ["a"])]), results)
    text = app_text(published(results), "trajectory", run=run.name)
    assert "This run was graded by lm-eval 0.4.13, not here: it is in no ranking." in text
    assert "say nothing about a model" not in text
    assert "list unknown · protocol unknown · level unknown" in text


def test_a_point_of_an_imported_run_says_so_in_the_figure_of_costs(tmp_path: Path) -> None:
    from leaderboard.figures import figure

    results = tmp_path / "results"
    whole_run(results, "own", "humaneval", {"HumanEval/0": ["passed"]})
    drawn = []
    for _ in range(2):
        with open_snapshot(published(results)) as connection:
            drawn.append(figure(connection, results, "cost", "svg").decode())
        if len(drawn) == 1:
            one(send_out(results, "parquet", tmp_path / "out")[0].parent, results)
    assert "flow rounds=2" in drawn[0]
    assert "imported" not in drawn[0]
    assert "flow rounds=2 (imported)" in drawn[1]


def test_data_that_nobody_knows_is_no_common_data(tmp_path: Path) -> None:
    from leaderboard.comparison import compared
    from leaderboard.queries import groups

    results = tmp_path / "results"
    rows = [graded("HumanEval/0", "pass", "pass")]
    files = [
        evalplus_file(tmp_path / f"{name}_eval_results.json", rows, date=f"2024-05-0{name} 10:20")
        for name in "12"
    ]
    made = [one(path, results, benchmark="mine+") for path in files]
    table = tmp_path / "t.csv"
    for number in range(2):  # the same, on data that is known
        table.write_text(f"problem_id,verdict,run_id\nHumanEval/0,passed,{number}\n")
        made.append(one(table, results, benchmark="humaneval"))
    with open_snapshot(published(results)) as connection:
        assert sorted(len(group.rows) for group in groups(board(connection))) == [1, 1, 2]
        with pytest.raises(UsageError, match="given unlike data: data"):
            compared(connection, made[0].name, made[1].name)
        assert compared(connection, made[2].name, made[3].name).shares_ranking


def test_a_place_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    path = evalplus_file(tmp_path / "a_eval_results.json", [graded("HumanEval/0", "pass")])
    taken = tmp_path / "taken"
    taken.write_text("")
    for place in (taken, taken / "below", Path("/proc/nope")):
        with pytest.raises(UsageError, match="cannot be written: ") as found:
            one(path, place)
        assert str(found.value).startswith(f"{place}: ")
        assert ".importing" not in str(found.value)
    results = tmp_path / "results"
    one(path, results)
    published(results)
    for form in ("parquet", "evalplus", "inspect"):
        with pytest.raises(UsageError, match="taken: is a file; name a folder to write into"):
            send_out(results, form, taken)
        with pytest.raises(UsageError, match="/proc/nope: cannot be written"):
            send_out(results, form, Path("/proc/nope"))
    assert taken.read_text() == ""


def test_an_export_is_named_inside_its_folder_whatever_the_benchmark_is_called(
    tmp_path: Path,
) -> None:
    results, out = tmp_path / "results", tmp_path / "out"
    whole_run(results, "own", "bigcodebench-/../../x", {"BigCodeBench/0": ["passed"]})
    made = send_out(published(results), "bigcodebench", out / "in", say=silent)
    assert {path.resolve().parent for path in made} == {out / "in"}
    assert [p.name for p in out.iterdir()] == ["in"]


def test_each_format_in_the_tables_is_a_function() -> None:
    import importlib

    for module, name in (*IMPORTS.values(), *EXPORTS.values()):
        assert callable(getattr(importlib.import_module(module), name))
