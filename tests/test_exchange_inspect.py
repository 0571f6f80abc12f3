"""Inspect's logs: ours open in its viewer and come back the same, its own are read as they are."""

import importlib.util
import json
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pytest

from harness.errors import UsageError
from harness.exchange import bring_in, detect, send_out
from harness.exchange.zips import opened
from tests.test_exchange import (
    HERE,
    head_of,
    of_kind,
    one,
    published,
    row_of,
    silent,
    whole_run,
)

SCHEMA = json.loads((Path(__file__).parents[1] / "docs/schemas/inspect_log.json").read_text())
OUTCOMES = {
    "HumanEval/10": ["passed", "timeout"],
    "HumanEval/9": ["wrong", "passed"],
    "HumanEval/0": ["invalid", "no_code"],
}


def zstd_zip(path: Path, members: dict[str, bytes]) -> Path:
    """A zip whose members are compressed as Inspect does it (method 93), the first in two frames.

    After APPNOTE 4.3: a local header before each, the central directory, its end.
    """
    body, directory = b"", b""
    for number, (name, content) in enumerate(members.items()):
        half = len(content) // 2 if number == 0 else 0
        frames = [content[:half], content[half:]] if half else [content]
        packed = b"".join(pa.compress(frame, codec="zstd", asbytes=True) for frame in frames)
        raw = name.encode()
        common = (20, 0, 93, 0, 33, zlib.crc32(content), len(packed), len(content), len(raw), 0)
        local = struct.pack("<4s5H3I2H", b"PK\x03\x04", *common)
        directory += struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, *common, 0, 0, 0, 0, len(body))
        directory += raw
        body += local + raw + packed
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, len(members), len(members), len(directory),
                      len(body), 0)  # fmt: skip
    path.write_bytes(body + directory + end)
    return path


def message(role: str, content: str) -> dict[str, Any]:
    return {"id": f"m-{content}", "role": role, "content": content}


def theirs(number: int, epoch: int, value: Any, **more: Any) -> dict[str, Any]:
    """A sample as inspect_ai 0.3.285 writes it: pooled messages, texts as attachments."""
    usage = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 18,
             "input_tokens_cache_read": 6}  # fmt: skip
    event = {
        "uuid": "e1", "timestamp": "2026-11-20T18:38:24+00:00", "working_start": 0.0,
        "event": "model", "model": "openai/gpt", "input": [], "input_refs": [[0, 1]], "tools": [],
        "tool_choice": "none", "config": {"temperature": 0.5, "max_tokens": 64, "seed": 9},
        "output": {"model": "gpt", "usage": usage, "choices": [
            {"message": message("assistant", "attachment://ab"), "stop_reason": "max_tokens"}]},
        "working_time": 1.5,
    }  # fmt: skip
    return {
        "id": f"HumanEval/{number}", "epoch": epoch, "input": "Solve it.", "target": "SECRET TEST",
        "metadata": {"test": "SECRET TEST"}, "messages": [], "attachments": {"ab": "the reply"},
        "scores": {"verify": {"value": value, "answer": "def f(): ...", "explanation": "why"},
                   "style": {"value": "I"}},
        "events": [{"event": "sample_init", "sample": {"target": "SECRET TEST"}}, event],
        "events_data": {"messages": [message("user", "Solve it.")], "calls": []},
        "model_usage": {"openai/gpt": usage}, "total_time": 3.5,
        "completed_at": "2026-11-20T18:38:25+00:00", **more,
    }  # fmt: skip


HEADER = {
    "version": 2, "status": "success",
    "eval": {
        "eval_id": "abc", "created": "2026-11-20T18:38:24+00:00", "task": "inspect_evals/humaneval",
        "model": "openai/gpt", "model_args": {"api_key": "sk-SECRET"}, "config": {"epochs": 2},
        "dataset": {"name": "humaneval", "sample_ids": ["HumanEval/0", "HumanEval/1"]},
        "model_generate_config": {"temperature": 0.5}, "packages": {"inspect_ai": "0.3.285"},
        "scorers": [{"name": "verify"}, {"name": "style"}],
    },
    "plan": {"steps": [{"solver": "chain_of_thought"}, {"solver": "generate"}]},
    "results": {"scores": [{"name": "verify", "scorer": "verify", "metrics": {}}]},
}  # fmt: skip
SAMPLES = [
    theirs(0, 1, "C"),
    theirs(0, 2, 1.0),
    theirs(1, 1, "I", limit={"type": "time", "limit": 5}),
    theirs(1, 2, "C", error={"message": "it broke", "traceback": "", "traceback_ansi": ""}),
]


def their_log(path: Path, header: dict[str, Any] = HEADER, name: str = "header.json") -> Path:
    members = {
        f"samples/{s['id']}_epoch_{s['epoch']}.json": json.dumps(s).encode() for s in SAMPLES
    }
    return zstd_zip(path, {name: json.dumps(header).encode(), **members})


def exported(tmp_path: Path, **fields: Any) -> tuple[Path, Path]:
    """(our run, its log)."""
    results = tmp_path / "results"
    run = whole_run(results, "own", "humaneval+", OUTCOMES, **fields)
    (log,) = send_out(published(results), "inspect", tmp_path / "out", runs=["own"])
    return run, log


def test_a_log_of_inspect_becomes_a_run_with_its_calls_tokens_and_times(tmp_path: Path) -> None:
    path = their_log(tmp_path / "a.eval")
    assert detect(path) == "inspect"
    results = tmp_path / "results"
    run = one(path, results)
    rows = of_kind(run, "result")
    assert [(r["problem_id"], r["sample"], r["verdict"], r["detail"]) for r in rows] == [
        ("HumanEval/0", 0, "passed", "why"),
        ("HumanEval/0", 1, "passed", "why"),
        ("HumanEval/1", 0, "wrong", "stopped by the limit of time; why"),
        ("HumanEval/1", 1, "invalid", "error: it broke"),
    ]
    assert {(r["prompt_tokens"], r["completion_tokens"], r["calls"]) for r in rows} == {(11, 7, 1)}
    assert {(r["wall_s"], r["cost_usd"], r["base"]) for r in rows} == {(3.5, None, None)}
    call = of_kind(run, "call")[0]
    assert (call["prompt_tokens"], call["cached_tokens"], call["completion_tokens"]) == (11, 6, 7)
    assert (call["temperature"], call["seed"], call["max_tokens"]) == (0.5, 9, 64)
    assert (call["latency_s"], call["finish"], call["model"]) == (1.5, "max_tokens", "openai/gpt")
    texts = {r["sha256"]: r["text"] for r in of_kind(run, "artifact")}
    assert texts[call["response_sha"]] == "the reply"
    assert json.loads(texts[call["request_sha"]])["messages"] == [
        {"role": "user", "content": "Solve it."}
    ]
    head = head_of(run)
    assert (head["benchmark"], head["method"]) == ("humaneval", "chain_of_thought+generate")
    assert head["grader_version"] == "inspect_ai 0.3.285"
    assert head["roles"]["worker"] == {
        "model": "openai/gpt", "identity": {}, "sampling": {"temperature": 0.5}
    }  # fmt: skip
    assert "SECRET" not in "".join(p.read_text() for p in run.iterdir())
    row = row_of(results, run)
    assert (row.estimate.value, row.estimate.errored, row.complete) == (0.5, 1, False)


def test_the_same_log_as_json_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**HEADER, "samples": SAMPLES}))
    assert detect(path) == "inspect"
    zipped = one(their_log(tmp_path / "a.eval"), tmp_path / "results")
    plain = one(path, tmp_path / "results")
    for kind in ("result", "call", "artifact"):
        assert of_kind(plain, kind) == of_kind(zipped, kind)


def test_a_log_whose_writer_was_killed_is_an_interrupted_run(tmp_path: Path) -> None:
    start = {name: HEADER[name] for name in ("version", "eval", "plan")}
    start["eval"] = {
        **HEADER["eval"],  # type: ignore[dict-item]
        "dataset": {"sample_ids": ["HumanEval/0", "HumanEval/1", "HumanEval/2"]},
    }
    path = their_log(tmp_path / "a.eval", start, "_journal/start.json")
    run = one(path, tmp_path / "results")
    row = row_of(tmp_path / "results", run)
    assert (row.status, row.samples_asked, row.complete) == ("interrupted", 6, False)


def test_a_sample_in_pieces_is_read_as_one_in_one(tmp_path: Path) -> None:
    whole = theirs(0, 1, "C")
    shell = {k: v for k, v in whole.items() if k not in {"events", "events_data", "attachments"}}
    event = json.loads(json.dumps(whole["events"][1]).replace("attachment://ab", "attachment://1"))
    start = "samples/HumanEval/0_epoch_1"
    path = zstd_zip(tmp_path / "pieces.eval", {
        name: json.dumps(found).encode() for name, found in {
            "header.json": HEADER, f"{start}/sample.json": shell,
            f"{start}/skeleton.json": {}, f"{start}/events/stats.json": {},
            f"{start}/events/0.json": [whole["events"][0]], f"{start}/events/1.json": [event],
            f"{start}/messages/0.json": whole["events_data"]["messages"],
            f"{start}/attachments/0.json": ["another", "the reply"],
        }.items()
    })  # fmt: skip
    other = zstd_zip(tmp_path / "one.eval", {
        "header.json": json.dumps(HEADER).encode(), f"{start}.json": json.dumps(whole).encode(),
    })  # fmt: skip
    pieces, in_one = one(path, tmp_path / "results"), one(other, tmp_path / "results")
    for kind in ("result", "call", "artifact"):
        assert of_kind(pieces, kind) == of_kind(in_one, kind)


def test_a_damaged_or_swollen_member_is_refused(tmp_path: Path) -> None:
    path = zstd_zip(tmp_path / "a.zip", {"first": b"x" * 10_000, "second": b"hello"})
    with opened(path) as archive:
        assert (archive.read("first"), archive.read("second")) == (b"x" * 10_000, b"hello")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(struct.pack("<I", zlib.crc32(b"hello")), b"\0\0\0\0"))
    with opened(path) as archive, pytest.raises(UsageError, match="second: damaged: its bytes"):
        archive.read("second")
    path.write_bytes(whole.replace(struct.pack("<I", 10_000), struct.pack("<I", 100)))
    with opened(path) as archive, pytest.raises(UsageError, match="first: damaged"):
        archive.read("first")
    path.write_bytes(whole.replace(struct.pack("<I", 10_000), struct.pack("<I", (256 << 20) + 1)))
    with opened(path) as archive, pytest.raises(UsageError, match="expected at most 268,435,456 b"):
        archive.read("first")
    path.write_bytes(whole.replace(struct.pack("<I", 10_000), struct.pack("<I", 200 << 20)))
    with opened(path) as archive, pytest.raises(UsageError, match="expected at most 1,000 times"):
        archive.read("first")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_member_that_says_less_than_it_holds_fills_no_memory(tmp_path: Path, method: int) -> None:
    path, size = tmp_path / "a.zip", 50 << 20
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("bomb", bytes(size))
    assert path.stat().st_size < 60_000
    for said in (size, 100):
        content = path.read_bytes().replace(struct.pack("<I", size), struct.pack("<I", said))
        path.write_bytes(content)
        tracemalloc.start()
        with (
            opened(path) as archive,
            pytest.raises(UsageError, match=r"expected|damaged|packed by"),
        ):
            archive.read("bomb")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20


def test_no_member_of_a_log_leads_out_of_the_folder_that_it_is_unpacked_in(tmp_path: Path) -> None:
    hostile = ["../../etc/passwd", "/etc/x", "a/./b", "a\\..\\b", "C:/x", "x" * 300, "half \ud800",
               "red \x1b[31m", "..", "a//b"]  # fmt: skip
    results = tmp_path / "results"
    ids = [*hostile, "HumanEval/10", "My task é #1"]
    run = whole_run(results, "own", "humaneval", {name: ["passed"] for name in ids})
    (log,) = send_out(published(results), "inspect", tmp_path / "out", runs=["own"])
    with zipfile.ZipFile(log) as archive:
        names = [name for name in archive.namelist() if name.startswith("samples/")]
        assert len(names) == len(set(names)) == 12
        for name in names:
            parts = name.split("/")
            assert not {"", ".", ".."} & set(parts)
            assert "\\" not in name
            assert name.isprintable()
            assert len(name) < 250
        archive.extractall(tmp_path / "unpacked")
    assert {"samples/HumanEval/10_epoch_1.json", "samples/My task é #1_epoch_1.json"} <= set(names)
    assert sum("HumanEval" in name or "#1" in name for name in names) == 2
    unpacked = [p for p in (tmp_path / "unpacked").rglob("*.json") if "_epoch_" in p.name]
    assert len(unpacked) == 12
    back = one(log, tmp_path / "back")
    was = sorted(r["problem_id"].encode("utf-8", "backslashreplace").decode()
                 for r in of_kind(run, "result"))  # fmt: skip
    assert sorted(r["problem_id"] for r in of_kind(back, "result")) == was


def test_two_samples_of_one_epoch_are_told_in_the_words_of_the_format(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**HEADER, "samples": [theirs(0, 2, "C"), theirs(0, 2, "I")]}))
    with pytest.raises(
        UsageError, match=r"samples\[1\]: epoch 2 of HumanEval/0 stands twice"
    ) as found:
        one(path, tmp_path / "results")
    assert "column" not in str(found.value)


def test_ours_through_inspect_is_ours_again(tmp_path: Path) -> None:
    run, log = exported(tmp_path)
    back = one(log, tmp_path / "results")
    unkept = {"request_sha", "error_kind"}  # of a call: how its request was put into JSON
    for kind in ("result", "call"):
        sides = []
        for folder in (run, back):
            found = [
                {k: v for k, v in r.items() if kind == "result" or k not in unkept}
                for r in of_kind(folder, kind)
            ]
            sides.append(sorted(found, key=lambda r: (r["problem_id"], r["sample"])))
        assert sides[0] == sides[1]
    assert len(of_kind(back, "result")) == 6
    texts = {r["sha256"] for r in of_kind(run, "artifact")}
    texts -= {r["workflow_sha"] for r in of_kind(run, "round")}
    named = {r["solution_sha"] for r in of_kind(back, "result")} - {None}
    named |= {r["response_sha"] for r in of_kind(back, "call")}
    assert named <= texts
    was, now = head_of(run), head_of(back)
    same = ("benchmark", "benchmark_digest", "list", "protocol", "level", "method", "knobs", "seed",
            "grader_version", "price_table", "started_at", "n_samples", "config")  # fmt: skip
    assert {name: now[name] for name in same} == {name: was[name] for name in same}
    assert now["roles"]["worker"]["sampling"] == was["roles"]["worker"]["sampling"]
    assert (now["kind"], now["origin"]["kind"], now["origin"]["run_id"]) == (
        "imported", "measured", "own",
    )  # fmt: skip
    rows = [row_of(tmp_path / "results", folder) for folder in (run, back)]
    assert rows[0].estimate == rows[1].estimate
    assert (rows[0].tokens, rows[0].calls, rows[0].fresh_cost_usd) == (600, 6, 1.5)
    assert (rows[1].tokens, rows[1].calls, rows[1].fresh_cost_usd) == (600, 6, 1.5)
    assert rows[0].cost_usd == rows[1].cost_usd == 0.75


def test_a_log_of_ours_holds_what_the_reader_needs_and_no_hidden_test(tmp_path: Path) -> None:
    _, log = exported(tmp_path)

    def valid(part: str, found: Any) -> None:
        jsonschema.validate(found, {**SCHEMA, "$ref": f"#/$defs/{part}"})

    with zipfile.ZipFile(log) as archive:
        names = archive.namelist()
        header = json.loads(archive.read("header.json"))
        valid("log", header)
        summaries = json.loads(archive.read("summaries.json"))
        for summary in summaries:
            valid("summary", summary)
        samples = {n: json.loads(archive.read(n)) for n in names if n.startswith("samples/")}
        for sample in samples.values():
            valid("sample", sample)
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_DEFLATED}
    assert [s["id"] for s in summaries] == [f"HumanEval/{n}" for n in (0, 0, 9, 9, 10, 10)]
    assert len(samples) == 6
    scores = {s["name"]: s["metrics"]["accuracy"]["value"] for s in header["results"]["scores"]}
    # of HumanEval/0 one sample is graded, and not solved; of 9 and 10 one of two each
    assert scores["verdict"] == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert scores["base"] == pytest.approx((1 + 1 + 0.5) / 3)
    stderr = header["results"]["scores"][0]["metrics"]["stderr"]["value"]
    assert stderr == pytest.approx((1 / 12) ** 0.5 / 3**0.5)  # variance of 0, 0.5, 0.5 is 1/12
    assert header["stats"]["model_usage"]["openai/big"] == {
        "input_tokens": 300, "output_tokens": 180, "total_tokens": 600,
        "input_tokens_cache_read": 120, "reasoning_tokens": 30, "total_cost": 1.5,
    }  # fmt: skip
    first = samples["samples/HumanEval/10_epoch_1.json"]
    assert [e["event"] for e in first["events"]] == ["model", "info", "score", "score", "score"]
    assert first["events"][1]["data"]["workflow"] == "class Workflow: ..."
    assert first["output"]["completion"] == "```python\ndef f(): return 0\n```"
    broken = samples["samples/HumanEval/0_epoch_1.json"]
    assert (broken["error"]["message"], "scores" in broken) == ("reason", False)


def test_the_same_run_makes_the_same_log(tmp_path: Path) -> None:
    _, log = exported(tmp_path)
    (again,) = send_out(tmp_path / "results", "inspect", tmp_path / "again", runs=["own"])
    assert (again.name, again.read_bytes()) == (log.name, log.read_bytes())


def test_a_log_of_ours_opens_in_inspect_itself(tmp_path: Path) -> None:
    if importlib.util.find_spec("inspect_ai") is None:
        pytest.skip("inspect_ai is not installed: pip install inspect-ai pandas")
    _, log = exported(tmp_path)
    code = """
import json, sys
from inspect_ai.log import read_eval_log, read_eval_log_sample_summaries
from inspect_ai.analysis import evals_df, events_df, messages_df, samples_df
log = read_eval_log(sys.argv[1])
metrics = {s.name: s.metrics["accuracy"].value for s in log.results.scores}
usage = log.stats.model_usage["openai/big"]
frames = [f(sys.argv[1], quiet=True) for f in (evals_df, samples_df, messages_df, events_df)]
print(json.dumps({
    "status": log.status, "samples": len(log.samples), "metrics": metrics,
    "errors": sum(s.error is not None for s in log.samples), "tokens": usage.total_tokens,
    "summaries": len(read_eval_log_sample_summaries(sys.argv[1])),
    "events": [e.event for e in log.samples[-1].events], "rows": [len(f) for f in frames],
}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, log], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["metrics"]["verdict"] == pytest.approx(1 / 3)
    assert (found["status"], found["samples"], found["errors"]) == ("success", 6, 1)
    assert (found["summaries"], found["tokens"]) == (6, 600)
    assert found["events"] == ["model", "info", "score", "score", "score"]
    assert found["rows"] == [1, 6, 12, 27]


def test_what_inspect_calls_a_mock_is_simulated(tmp_path: Path) -> None:
    header = {**HEADER, "eval": {**HEADER["eval"], "model": "mockllm/model"}}  # type: ignore[dict-item]
    run = one(their_log(tmp_path / "a.eval", header), tmp_path / "results")
    assert row_of(tmp_path / "results", run).kind == "simulated"


def test_a_task_that_is_no_benchmark_of_ours_keeps_its_name(tmp_path: Path) -> None:
    header = {**HEADER, "eval": {**HEADER["eval"], "task": "mine"}}  # type: ignore[dict-item]
    said: list[str] = []
    path = their_log(tmp_path / "a.eval", header)
    run = one(path, tmp_path / "results", say=said.append)
    assert head_of(run)["benchmark"] == "mine"
    assert said == [
        "a.eval: its task 'mine' is no benchmark of ours; --benchmark names one",
        "a.eval: 4 samples of 2 problems; mine is no benchmark of ours, so its problem ids were "
        "not checked",
    ]


def test_a_value_that_is_no_verdict_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**HEADER, "samples": [theirs(0, 1, {"a": 1})]}))
    with pytest.raises(UsageError, match=r"samples\[0\]: scores: verify: value: expected C, I"):
        bring_in(path, tmp_path / "results", sources=HERE, say=silent)
