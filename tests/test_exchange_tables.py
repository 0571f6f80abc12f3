"""Our own columns as Parquet and CSV: whole on the way out, and the same when they come back."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.errors import UsageError
from harness.exchange import bring_in, detect, ours, send_out
from harness.exchange.tables import defused, original
from harness.journal import digest, read_run
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

OUTCOMES = {"HumanEval/10": ["passed", "timeout"], "HumanEval/9": ["wrong", "invalid"]}


def ordered(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    return sorted(of_kind(run_dir, kind), key=lambda r: (r["problem_id"], r["sample"]))


def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    results = tmp_path / "results"
    first = whole_run(results, "first", "humaneval+", OUTCOMES)
    second = whole_run(results, "second", "mbpp", {"Mbpp/2": ["passed"]}, method="cot")
    published(results)
    return first, second


def test_parquet_brings_back_verdicts_calls_rounds_and_texts(tmp_path: Path) -> None:
    first, second = two_runs(tmp_path)
    out = tmp_path / "out"
    made = send_out(tmp_path / "results", "parquet", out)
    names = ["runs", "results", "calls", "rounds", "texts"]
    assert [p.name for p in made] == [f"{name}.parquet" for name in names]
    rows = [pq.read_metadata(p).num_rows for p in made]
    assert rows[:4] == [2, 5, 5, 5]
    assert detect(out) == detect(out / "results.parquet") == "parquet"

    back = tmp_path / "back"
    runs = bring_in(out, back, sources=HERE, say=silent)
    assert [head_of(run)["origin"]["run_id"] for run in runs] == ["first", "second"]
    published(back)
    for run, was in zip(runs, (first, second), strict=True):
        assert ordered(run, "result") == ordered(was, "result")
        for kind, unkept in (("call", {"occurrence"}), ("round", set())):
            old = [{k: v for k, v in r.items() if k not in unkept} for r in ordered(was, kind)]
            new = [{k: v for k, v in r.items() if k in old[0]} for r in ordered(run, kind)]
            assert new == old
        texts = [{r["sha256"]: r["text"] for r in of_kind(d, "artifact")} for d in (run, was)]
        assert texts[0] == texts[1]
        same = ("benchmark", "benchmark_digest", "method", "knobs", "level", "protocol", "seed",
                "roles", "config", "n_samples", "grader_version", "started_at")  # fmt: skip
        ours_, theirs_ = head_of(was), head_of(run)
        for name in set(same) - {"roles"}:
            assert theirs_[name] == ours_[name], name
        models = {role: made["model"] for role, made in ours_["roles"].items()}
        assert {role: made["model"] for role, made in theirs_["roles"].items()} == models
    old_row, new_row = row_of(tmp_path / "results", first), row_of(back, runs[0])
    assert new_row.estimate == old_row.estimate
    assert (new_row.tokens, new_row.calls) == (old_row.tokens, old_row.calls) == (400, 4)
    assert (new_row.kind, old_row.kind) == ("imported", "measured")
    assert bring_in(out / "results.parquet", back, sources=HERE, say=silent) == runs


def test_a_parquet_file_of_two_columns_is_enough_and_guesses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "odd [1].parquet"  # DuckDB would take it for a pattern
    ids = ["HumanEval/0", "HumanEval/0", "HumanEval/1"]
    pq.write_table(pa.table({"problem_id": ids, "verdict": ["passed", "wrong", "timeout"]}), path)
    run = one(path, tmp_path / "results", benchmark="humaneval", worker="openai/x")
    rows = of_kind(run, "result")
    assert [(r["problem_id"], r["sample"], r["verdict"]) for r in rows] == [
        ("HumanEval/0", 0, "passed"), ("HumanEval/0", 1, "wrong"), ("HumanEval/1", 0, "timeout"),
    ]  # fmt: skip
    told = {"kind", "problem_id", "sample", "verdict", "detail"}
    assert {value for r in rows for name, value in r.items() if name not in told} == {None}
    head = head_of(run)
    assert (head["method"], head["protocol"], head["started_at"]) == (None, None, None)
    assert head["origin"]["digest_by"] == "ids"
    row = row_of(tmp_path / "results", run)
    assert (row.estimate.value, row.estimate.problems) == (0.25, 2)


def test_a_parquet_value_of_another_kind_is_named_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns: dict[str, list[Any]] = {"problem_id": ["a", "b"], "verdict": ["passed", "passed"],
                                     "prompt_tokens": [1.0, 1.5]}  # fmt: skip
    pq.write_table(pa.table(columns), path)
    with pytest.raises(UsageError, match=r"a\.parquet row 2: prompt_tokens: expected a whole"):
        one(path, tmp_path / "results", benchmark="mine")
    pq.write_table(pa.table({"verdict": ["passed"]}), path)
    with pytest.raises(UsageError, match="expected a column problem_id, found verdict"):
        one(path, tmp_path / "results", benchmark="mine")


def test_a_text_that_was_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    two_runs(tmp_path)
    out = tmp_path / "out"
    send_out(tmp_path / "results", "parquet", out, runs=["second"])
    table = pq.read_table(out / "texts.parquet").to_pydict()
    table["text"][0] = b"another"
    pq.write_table(pa.table(table), out / "texts.parquet")
    with pytest.raises(UsageError, match="a text does not have its digest"):
        one(out, tmp_path / "back")


def test_csv_brings_back_the_samples(tmp_path: Path) -> None:
    first, second = two_runs(tmp_path)
    (path,) = send_out(tmp_path / "results", "csv-samples", tmp_path / "samples.csv")
    assert path == tmp_path / "samples.csv"
    assert len(path.read_text().splitlines()) == 6
    runs = bring_in(path, tmp_path / "back", sources=HERE, say=silent)
    for run, was in zip(runs, (first, second), strict=True):
        assert ordered(run, "result") == ordered(was, "result")
        assert head_of(run)["method"] == head_of(was)["method"]
        assert head_of(run)["roles"]["meta"]["model"] == "openai/big"
        assert head_of(run)["knobs"] == {"rounds": 2}


CELLS = ["=HYPERLINK(1)", "+1", "-1", "@x", "\t=1", "\n", "'=1", "''=1", "'quoted'",
         "'a\\x1b", "'\\", "a\x1b[31mred", "a\\x1b[31m", "=\\x1b\x1b\\", "two\nlines\r\n", "\0",
         "\u202eabc", "plain", "é \u00a0 中", "a=b", "'", "\x7f\x85"]  # fmt: skip


def test_no_cell_of_a_csv_is_a_formula_or_steers_a_terminal_and_each_comes_back(
    tmp_path: Path,
) -> None:
    results = tmp_path / "results"
    run = whole_run(results, "own", "humaneval", {cell: ["passed"] for cell in CELLS})
    published(results)
    (path,) = send_out(results, "csv-samples", tmp_path / "samples.csv")
    with path.open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t", "\n")]
    assert not re.search(r"[\0-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\u202e]", path.read_text())
    assert "'=HYPERLINK(1)" in cells
    assert "plain" in cells
    back = one(path, tmp_path / "back")
    assert {r["problem_id"] for r in of_kind(back, "result")} == set(CELLS)
    assert ordered(back, "result") == ordered(run, "result")


@pytest.mark.parametrize("cell", [*CELLS, "half \ud800", "'NoneType' object", "'\\n", "\\"])
def test_a_defused_cell_has_one_original(cell: str) -> None:
    assert original(defused(cell)) == cell
    assert defused(cell).isprintable() or {"\n", "\t", "\u00a0"} & set(cell)


def test_a_cell_of_somebody_elses_is_read_as_it_stands() -> None:
    told = {"'NoneType' object": "'NoneType' object", "'=1": "=1", r"C:\new": r"C:\new"}
    assert {cell: original(cell) for cell in told} == told


def test_texts_that_no_reader_of_utf_8_takes_go_through_parquet_whole(tmp_path: Path) -> None:
    run = whole_run(tmp_path / "results", "own", "humaneval", {"HumanEval/0": ["passed"]})
    odd = "half \ud800, zero \0, escape \x1b[31m"
    with (run / "0002.jsonl").open("w") as file:
        record = {"kind": "artifact", "at": 1.0, "sha256": digest(odd), "text": odd}
        file.write(json.dumps(record) + "\n")
    published(tmp_path / "results")
    send_out(tmp_path / "results", "parquet", tmp_path / "out")
    back = one(tmp_path / "out", tmp_path / "back")
    assert odd in {r["text"] for r in of_kind(back, "artifact")}


def test_an_export_holds_some_samples_at_a_time_and_not_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    outcomes = {f"HumanEval/{n}": ["passed"] * 40 for n in range(30)}
    whole_run(results, "own", "humaneval+", outcomes)
    published(results)
    monkeypatch.setattr(ours, "CHUNK", 200)
    asked: list[int] = []
    chunks = ours.chunks

    def counted(*arguments: Any) -> Any:
        for ids in chunks(*arguments):
            asked.append(len(ids))
            yield ids

    monkeypatch.setattr(ours, "chunks", counted)
    for form in ("evalplus", "inspect"):
        send_out(results, form, tmp_path / form, say=silent)
    assert set(asked) == {5}  # 5 problems of 40 samples each time
    assert asked.count(5) == 6 * (1 + 6)  # results; and for Inspect five tables beside them
    lines = (tmp_path / "evalplus" / "own.jsonl").read_text().splitlines()
    assert len(lines) == 1200
    assert len(list(read_run(results / "runs" / "own"))) > 3600
