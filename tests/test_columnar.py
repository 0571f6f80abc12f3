"""Many lines at once come to what the same lines come to one by one, whatever they hold."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from harness import columnar, ingest
from harness.journal import digest
from harness.schema import TABLES
from harness.store import IngestReport, Store

KEY: dict[str, Any] = {"result_key": "k", "problem_id": "HumanEval/1", "sample": 0}
RESULT = {"kind": "result", "at": 1.5, **KEY, "verdict": "passed", "calls": 2, "cached_calls": 0,
          "cost_usd": 0.1, "fresh_cost_usd": 0.1, "price_table": "t 1", "wall_s": 3,
          "reruns": ["wrong", "é"]}  # fmt: skip
CALL = {"kind": "call", "at": 2.5, **KEY, "call_no": 1, "cached": False, "seed": 2**62,
        "fresh_cost_usd": None, "cost_usd": None, "temperature": 0}  # fmt: skip
TEXT = {"kind": "artifact", "at": 1.0, "sha256": digest("x\ud800é"), "text": "x\ud800é"}
PLAIN = {"kind": "artifact", "at": 1.0, "sha256": digest("x\x00é漢"), "text": "x\x00é漢"}
OTHERS = [
    {"kind": "feedback", "at": 1, **KEY, "round": 1, "passed": 1, "errors": ["a\nb", "\u202e"]},
    {"kind": "workflow", "at": 1, **KEY, "calls": 0, "operators": [], "about": "HumanEval/2"},
    {"kind": "hidden", "at": None, **KEY, "round": 1, "verdict": "wrong"},
    {"kind": "round", "at": 1, **KEY, "round": 1, "scores": [1, 0.5]},
    {"kind": "verdict", **KEY, "verdict": "wrong"},
    {"kind": "verdict", **KEY, "verdict": "wrong", "grader_version": "9"},
]


def line(record: dict[str, Any], **fields: Any) -> str:
    return json.dumps({**record, **fields})


NO_PRICE = {name: value for name, value in RESULT.items() if name != "fresh_cost_usd"}
LINES: dict[str, str | bytes] = {
    **{f"result {name}={value!r:.30}": line(RESULT, **{name: value}) for name, value in (
        ("sample", 1.0), ("sample", True), ("sample", "1"), ("sample", 2**31), ("sample", -(2**31)),
        ("sample", -(2**31) + 1), ("sample", None), ("wall_s", float("nan")), ("wall_s", 1e300),
        ("wall_s", float("inf")), ("wall_s", 10**400), ("wall_s", -0.0), ("wall_s", 123456789e-9),
        ("wall_s", "3"), ("verdict", 5), ("verdict", {"a": 1}), ("verdict", "\x00\x1b[31m\u202e"),
        ("detail", "\ud800"), ("detail", "漢" * 300), ("detail", '"kind": "call"'), ("at", "now"),
        ("at", None), ("result_key", None), ("result_key", 7), ("problem_id", None),
        ("reruns", []), ("reruns", [1]), ("reruns", {"a": 1}), ("reruns", ["a", None]),
        ("prompt_tokens", 2**63 - 1), ("prompt_tokens", 2**63), ("prompt_tokens", -(2**63)),
        ("price_table", {"a": 1}), ("problem_no", "x"), ("regrades", 5), ("grader_version", "7"),
        ("grader_version", ""), ("fresh_cost_usd", None), ("cost_usd", None), ("kind", "call"),
        ("unknown", {"fresh_cost_usd": [1]}), ("run_no", "x"), ("segment", []),
        ("verdict", "solved"), ("verdict", None), ("fresh", "passed"), ("fresh", "Passed"),
        ("base", "no_code"), ("plus", ""), ("plus", "invalid"), ("problem_id", ["a"]),
    )},
    "a result of before replies were kept": line(NO_PRICE),
    "the same without a price": line({**NO_PRICE, "cost_usd": None}),
    "the same without cached calls": line(
        {n: v for n, v in NO_PRICE.items() if n not in ("cached_calls", "cost_usd")}
    ),
    "raw characters": json.dumps(RESULT | {"detail": "é漢\U0001f600"}, ensure_ascii=False),
    "no text at all": json.dumps(RESULT).encode().replace(b"passed", b"\xff\xfe"),
    "a second sample": line(RESULT, sample=0.0),
    "two objects": line(RESULT) + " " + line(RESULT, result_key="other"),
    "cut off": line(RESULT)[:-5],
    "a name twice": line(RESULT)[:-1] + ', "sample": 4}',
    "another kind at the end": line(RESULT)[:-1] + ', "kind": "call"}',
    "a name in escapes": line(RESULT).replace('"sample"', '"s\\u0061mple"'),
    "a raw tab": line(RESULT).replace("passed", "pas\tsed"),
    "a trailing comma": line(RESULT)[:-1] + ",}",
    "a leading zero": line(RESULT).replace('"calls": 2', '"calls": 02'),
    "an exponent": line(RESULT).replace('"calls": 2', '"calls": 2e0'),
    "a minus zero": line(RESULT).replace('"calls": 2', '"calls": -0'),
    "a comment": line(RESULT) + " // fine",
    "nested a thousandfold": line(RESULT)[:-1] + ', "deep": ' + "[" * 9999 + "]" * 9999 + "}",
    "a kind that is none": '{"kind": ["result"], "result_key": "k"}',
    "other spaces": json.dumps(RESULT, separators=(",", ":")),
    "call": line(CALL), "call without a flag": line({**CALL, "cached": None}),
    "call of before": line({n: v for n, v in CALL.items() if not n.startswith(("fresh", "cach"))}),
    "call without a sample": line(CALL, sample=None),
    "call without a problem": line(CALL, problem_id=None), "call of 5": line(CALL, problem_id=5),
    "feedback of 5": line(OTHERS[0], errors=5), "no text": line(OTHERS[0], errors=[None]),
    "feedback verdict": line(OTHERS[0], verdict="solved"), "no round": line(OTHERS[2], round="1"),
    "a vote of a round": line({"kind": "vote", **KEY, "round": 1}),
    "a vote of no round": line({"kind": "vote", **KEY, "round": [1]}),
    "call flag 1": line(CALL, cached=1), "call seed": line(CALL, seed=1.5),
    "artifact": line(PLAIN), "artifact with half a pair": line(TEXT),
    "artifact of another digest": line(PLAIN, text="y"), "artifact None": line(PLAIN, text=None),
    "no digest": line(PLAIN, sha256=None), "artifact 5": line(PLAIN, text=5),
    **{f"other {number}": line(record) for number, record in enumerate(OTHERS)},
}  # fmt: skip


def everything(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    with duckdb.connect(str(store.path), read_only=True) as connection:
        return {
            table: connection.execute(f"SELECT {columns} FROM {table} ORDER BY {order}").fetchall()
            for table in TABLES
            for columns in ["* EXCLUDE (updated_at)" if table == "segments" else "*"]
            for order in ["ALL" if table in ("runs", "segments", "problems") else "rowid"]
            if table not in ("meta_schema", "reported")
        }


def read_in(results_dir: Path) -> tuple[IngestReport, dict[str, list[tuple[Any, ...]]]]:
    store = Store(results_dir)
    report = store.ingest()
    return report, everything(store)


def test_whatever_a_line_holds_it_comes_to_the_same_as_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [line(record, result_key="good", problem_id="HumanEval/0") for record in (RESULT, CALL)]
    for folder in ("many", "one"):
        run = tmp_path / folder / "runs" / "run-a"
        run.mkdir(parents=True)
        head = {"run_id": "run-a", "benchmark": "humaneval", "grader_version": "4"}
        (run / "run.json").write_text(json.dumps(head))
        for number, odd in enumerate(LINES.values(), start=1):  # a segment each, so a batch
            text = odd if isinstance(odd, bytes) else odd.encode("utf-8", "surrogatepass")
            text = text.replace(b'"k"', f'"k{number}"'.encode())
            lines = [good[0].encode(), good[1].encode(), text, line(PLAIN).encode()]
            (run / f"{number:04}.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    monkeypatch.setattr(ingest, "MANY", 1)
    monkeypatch.setattr(ingest, "FEW", 1)
    at_once: list[object] = []
    facts = columnar.facts

    def counted(*arguments: Any) -> Any:
        found = facts(*arguments)
        at_once.append(found)
        return found

    monkeypatch.setattr(columnar, "facts", counted)
    many = read_in(tmp_path / "many")
    taken = sum(found is not None for found in at_once)
    monkeypatch.setattr(columnar, "kind_of", lambda line: None)
    one = read_in(tmp_path / "one")
    for table, found in one[1].items():
        assert many[1][table] == found, table
    assert many == one
    assert one[0].broken > 30
    assert taken > 100  # and most lines were indeed read at once


def test_a_run_of_many_lines_is_the_same_in_pieces_and_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "run-a"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"run_id": "run-a", "benchmark": "humaneval"}))
    lines = [
        line(record, result_key=f"key {number % 5000}", problem_id=f"HumanEval/{number % 50}",
             verdict=("passed", "wrong", "invalid")[number % 3])
        for number in range(6000) for record in (RESULT, CALL)
    ]  # fmt: skip
    segment = run / "0001.jsonl"
    monkeypatch.setattr(ingest, "BATCH", 300_000)
    store = Store(tmp_path)
    for cut in (100, 9_000, 12_000):
        segment.write_text("\n".join(lines[:cut]) + "\n")
        store.ingest()
    pieces = everything(store)
    assert len(pieces["results"]) == 5000
    monkeypatch.setattr(columnar, "kind_of", lambda line: None)
    store.rebuild()
    for table, found in everything(store).items():
        assert sorted(map(str, pieces[table])) == sorted(map(str, found)), table
