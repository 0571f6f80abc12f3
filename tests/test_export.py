"""The exported table holds the board's numbers, escaped, one ranking at a time."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from duckdb import DuckDBPyConnection

from harness.errors import UsageError
from harness.journal import Journal
from harness.store import Store, open_snapshot
from leaderboard.export import FORMATS, table, tex_text
from leaderboard.queries import board, groups
from tests.test_paper import compiled


def run(results_dir: Path, run_id: str, verdicts: list[str], **fields: Any) -> None:
    """A finished run with one sample per verdict, of so many `problems` in turn from `begin` on."""
    journal = Journal(results_dir / "runs" / run_id)
    fresh, session = fields.pop("fresh", False), fields.pop("session", {})
    kept = fields.pop("kept", 0)  # calls of each sample that the cache answered, all or none
    begin, problems = fields.pop("begin", 0), fields.pop("problems", len(verdicts))
    head = {"run_id": run_id, "benchmark": "humaneval", "benchmark_digest": "7dce6050a7d6d172",
            "list": "full", "protocol": "public", "level": "L0", "method": "direct", "knobs": {},
            "roles": {"worker": {"model": "local/small_model"}}, "n_samples": 1, "seed": 0,
            "grader_version": "1", "price_table": "none", "kind": "measured",
            "started_at": 1762000000.0}  # fmt: skip
    (journal.run_dir / "run.json").write_text(json.dumps(head | fields))
    journal.write("session", event="start", problems=len(verdicts), samples=len(verdicts),
                  **session)  # fmt: skip
    for number, verdict in enumerate(verdicts):
        journal.write(
            "result", result_key=f"k{number}", sample=number // problems,
            problem_id=f"HumanEval/{begin + number % problems}",
            verdict=verdict, fresh=verdict if fresh and number else None, calls=2,
            prompt_tokens=70, completion_tokens=30,
            cached_calls=kept, fresh_cost_usd=0.25 if run_id != "unpriced" else None,
            cost_usd=0.0 if kept else 0.25 if run_id != "unpriced" else None, wall_s=3.0,
        )  # fmt: skip
    journal.write("session", event="end", status="complete")
    journal.close()


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[DuckDBPyConnection]:
    run(tmp_path, "good", ["passed", "passed", "wrong", "passed"], method="a&b_c|<i>")
    run(tmp_path, "poor", ["passed", "wrong", "wrong", "passed"], fresh=True,
        session={"left_out": {"a/9": "needs network", "a/8": "no test"}})  # fmt: skip
    run(tmp_path, "unpriced", ["passed", "wrong", "invalid", "passed"], method="refine")
    run(tmp_path, "pretended", ["passed"] * 4, kind="simulated", method="sim")
    run(tmp_path, "other", ["passed"] * 2, benchmark="mbpp", protocol="none", custom=True)
    store = Store(tmp_path)
    store.ingest()
    store.snapshot()
    with open_snapshot(tmp_path) as opened:
        yield opened


def test_markdown_keeps_rankings_apart_and_the_best_measured_row_bold(
    connection: DuckDBPyConnection,
) -> None:
    text = table(connection, "markdown")
    assert text.count("| Method |") == 2
    assert r"| a\&b\_c\|\<i\> | **75.0** | 30.1 to 95.4 | 1-2 | – | 4 |" in text
    assert text.count("**75.0**") == 1
    assert "2025-11-01; measured." in text


def test_an_errored_run_is_marked_and_its_unknown_cost_is_said(
    connection: DuckDBPyConnection,
) -> None:
    (line,) = [x for x in table(connection, "markdown").splitlines() if x.startswith("| refine")]
    assert "refine (partial; 1 errored) | 66.7 |" in line
    assert "| 2 | 100 | unknown | 3.0 s |" in line


def test_latex_needs_booktabs_only_and_is_escaped(connection: DuckDBPyConnection) -> None:
    text = table(connection, "latex", benchmark="humaneval")
    assert r"\raggedright a\&b\_c\textbar{}\textless{}i\textgreater{} & " in text
    assert r"\textbf{75.0} {\scriptsize {[}30.1, 95.4{]}} & 1-2 & 2 & 100 & \$1.00 \\" in text
    assert r"refine {\scriptsize partial; 1 errored} &" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    assert r"local/small\_model" in text
    assert r"\$1.00" in text
    assert "siunitx" not in text


def test_html_is_escaped(connection: DuckDBPyConnection) -> None:
    text = table(connection, "html")
    assert "a&amp;b_c|&lt;i&gt;" in text
    assert "<i>" not in text


def test_csv_holds_raw_values_and_an_empty_cell_for_unknown(
    connection: DuckDBPyConnection,
) -> None:
    rows = {row["run_id"]: row for row in csv.DictReader(io.StringIO(table(connection, "csv")))}
    assert set(rows) == {"good", "poor", "unpriced", "other"}
    assert rows["good"]["pass@1_value"] == "0.75"
    assert rows["good"]["cost_usd"] == "1.0"
    assert rows["unpriced"]["cost_usd"] == ""
    assert (rows["unpriced"]["pass@1_floor"], rows["unpriced"]["pass@1_ceiling"]) == ("0.5", "0.75")
    assert rows["good"]["started_at"] == "2025-11-01T12:26:40Z"
    assert (rows["good"]["unranked"], rows["unpriced"]["unranked"]) == ("", "partial")


def test_an_unknown_format_or_an_empty_board_is_a_usage_error(
    connection: DuckDBPyConnection,
) -> None:
    with pytest.raises(UsageError, match=", ".join(FORMATS)):
        table(connection, "word")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no run on bigcodebench"):
        table(connection, benchmark="bigcodebench")


def test_the_overlap_free_score_stands_beside_pass_at_1(connection: DuckDBPyConnection) -> None:
    assert "| 50.0 | 15.0 to 85.0 | 1-2 | 33.3 | 4 |" in table(connection, "markdown")
    assert "<td>33.3</td>" in table(connection, "html")
    assert "– where none is left" in table(connection, "html")


def test_custom_data_and_what_was_left_out_is_said(connection: DuckDBPyConnection) -> None:
    assert r"**mbpp (custom data), list full, protocol none**" in table(connection, "markdown")
    rows = {row["run_id"]: row for row in csv.DictReader(io.StringIO(table(connection, "csv")))}
    assert (rows["poor"]["left_out"], rows["good"]["left_out"]) == ("2", "")
    assert (rows["other"]["custom"], rows["good"]["custom"]) == ("True", "False")


@pytest.mark.parametrize("form", FORMATS)
def test_no_table_holds_a_simulated_run_whatever_its_journal_says(
    tmp_path: Path, connection: DuckDBPyConnection, form: Any
) -> None:
    text = table(connection, form)
    assert "sim" not in text
    assert "pretended" not in text
    for name, model in (("a", "sim/skill=1"), ("b", "scripted/known")):
        run(tmp_path / "only", name, ["passed"] * 4, roles={"worker": {"model": model}})
    replayed = {"model": "replay/x.jsonl", "identity": {"simulated": True}}
    run(tmp_path / "only", "c", ["passed"] * 4, roles={"worker": replayed})
    store = Store(tmp_path / "only")
    store.ingest()
    store.snapshot()
    with open_snapshot(tmp_path / "only") as opened:
        with pytest.raises(UsageError, match="every run is simulated"):
            table(opened, form)


def test_dollars_are_the_fresh_price_and_the_paid_ones_stand_in_the_raw_values(
    tmp_path: Path,
) -> None:
    run(tmp_path, "first", ["passed", "wrong"], kept=0)
    run(tmp_path, "again", ["passed", "wrong"], kept=2)
    store = Store(tmp_path)
    store.ingest()
    store.snapshot()
    with open_snapshot(tmp_path) as connection:
        text = table(connection, "csv")
        rows = {row["run_id"]: row for row in csv.DictReader(io.StringIO(text))}
        lines = [x for x in table(connection, "markdown").splitlines() if "small" in x]
    assert [rows[n]["fresh_cost_usd"] for n in ("first", "again")] == ["0.5", "0.5"]
    assert [rows[n]["cost_usd"] for n in ("first", "again")] == ["0.5", "0.0"]
    assert [rows[n]["cached_calls"] for n in ("first", "again")] == ["0", "4"]
    assert len(lines) == 2
    assert len(set(lines)) == 1


def test_what_a_search_took_is_a_column_of_its_own(tmp_path: Path) -> None:
    spent = {"calls": 3465, "tokens": 1_200_000, "cost_usd": 0.5, "fresh_cost_usd": 2.25,
             "wall_s": 61.5}  # fmt: skip
    run(tmp_path, "found", ["passed", "wrong"], artifact={"run": "fit-a", "problems": 33,
                                                          "spent": spent})  # fmt: skip
    free = {"run": None, "file": "a.json", "spent": {**spent, "fresh_cost_usd": 0.0}}
    run(tmp_path, "free", ["passed", "wrong"], method="free", artifact=free)
    run(tmp_path, "plain", ["passed", "wrong"], method="plain")
    run(tmp_path, "fit-a", ["passed", "wrong"], stage="fit")
    store = Store(tmp_path)
    store.ingest()
    store.snapshot()
    with open_snapshot(tmp_path) as connection:
        text = table(connection, "csv")
        rows = {row["run_id"]: row for row in csv.DictReader(io.StringIO(text))}
        markdown = table(connection, "markdown")
    assert set(rows) == {"found", "free", "plain"}  # a search is no row
    names = [name for name in rows["found"] if name.startswith("search_")]
    assert [rows["found"][name] for name in names] == [
        "fit-a", "", "33", "3465", "1200000", "2.25", "0.5", "61.5",
    ]  # fmt: skip
    assert {rows["plain"][name] for name in names} == {""}
    cells = {line.split(" | ")[0]: line.split(" | ")[-1] for line in markdown.splitlines()}
    assert (cells["| direct"], cells["| free"], cells["| plain"]) == (
        r"\$2.25 |", "1,200,000 tokens |", "– |",
    )  # fmt: skip
    assert rows["found"]["fresh_cost_usd"] == rows["plain"]["fresh_cost_usd"] == "0.5"
    assert "in none of these numbers" in markdown


def test_the_table_compiles_whatever_a_row_is_called(
    connection: DuckDBPyConnection, tmp_path: Path
) -> None:
    assert compiled(table(connection, "latex"), tmp_path).stat().st_size > 10_000


def test_the_table_is_as_wide_as_it_says_and_begins_no_row_with_a_mark(tmp_path: Path) -> None:
    long = {"roles": {"worker": {"model": "local/qwen2.5-coder-0.5b-instruct"},
                      "meta": {"model": "local/qwen2.5-coder-32b-instruct"}}}  # fmt: skip
    # what stands after \\ is its argument or its star
    for number, method in enumerate(("[9pt] agent", "*starred", "flowreasoner", "?`a")):
        knobs = {"workflow": "single", "candidates": 2, "evals": 1}
        run(tmp_path, f"r{number}", ["passed"] * (20 - 5 * number) + ["wrong"] * 5 * number,
            method=method, knobs=knobs, config={"knobs": knobs}, level="L1", **long)  # fmt: skip
    store = Store(tmp_path)
    store.ingest()
    store.snapshot()
    with open_snapshot(tmp_path) as connection:
        tex = table(connection, "latex")
    assert "; 16 cm wide: " in tex
    assert not re.search(r"\\\\\s*[\[*]", tex)
    compiled(tex, tmp_path, width="16cm")
    log = (tmp_path / "paper.log").read_text(errors="replace")
    wide = [float(x) for x in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", log)]
    assert max(wide, default=0.0) < 1, log[-2000:]


def test_marks_that_tex_takes_for_arguments_are_harmless_at_a_rows_beginning() -> None:
    assert tex_text("[beta] a*b ?`") == "{[}beta{]} a{*}b ?{`}"


def test_rows_on_other_problems_are_noted_and_not_ranked(tmp_path: Path) -> None:
    run(tmp_path, "first", ["passed", "wrong", "passed"], method="first")
    run(tmp_path, "beside", ["passed", "wrong", "wrong"], method="beside")
    run(tmp_path, "other", ["passed"] * 3, method="other", begin=7)
    run(tmp_path, "shifted", ["passed"] * 3, method="shifted", begin=1)
    store = Store(tmp_path)
    store.ingest()
    store.snapshot()
    with open_snapshot(tmp_path) as connection:
        (group,) = groups(board(connection))
        text = table(connection, "markdown")
        rows = {x["run_id"]: x for x in csv.DictReader(io.StringIO(table(connection, "csv")))}
    assert {row.run_id: group.note(row) for row in group.rows} == {
        "first": "", "beside": "", "other": "other problems", "shifted": "other problems",
    }  # fmt: skip
    assert group.best == {"first"}
    assert [row.run_id for row in group.rows[:2]] == ["first", "beside"]
    assert "| other (other problems) | 100.0 |" in text
    assert (rows["first"]["rank_last"], rows["other"]["rank_last"]) == ("2", "")


def test_of_as_many_rows_on_either_problems_the_older_ones_are_ranked(tmp_path: Path) -> None:
    run(tmp_path, "new", ["passed"] * 3, begin=7, started_at=1763000000.0)
    run(tmp_path, "old", ["wrong"] * 3)
    store = Store(tmp_path)
    store.ingest()
    store.snapshot()
    with open_snapshot(tmp_path) as connection:
        (group,) = groups(board(connection))
    assert {row.run_id: group.note(row) for row in group.rows} == {
        "old": "", "new": "other problems",
    }  # fmt: skip


def test_pass_at_5_and_10_are_given_where_every_problem_has_so_many_verdicts(
    tmp_path: Path,
) -> None:
    run(tmp_path, "one", ["passed", "wrong"])
    run(tmp_path, "five", ["passed", "wrong"] + ["wrong", "wrong"] * 4, problems=2)
    run(tmp_path, "short", ["passed", "wrong"] + ["wrong", "wrong"] * 3 + ["wrong", "invalid"],
        problems=2)  # fmt: skip
    twelve = ["passed", "passed"] + ["passed", "wrong"] * 2 + ["wrong", "wrong"] * 9
    run(tmp_path, "twelve", twelve, problems=2)
    store = Store(tmp_path)
    store.ingest()
    store.snapshot()
    with open_snapshot(tmp_path) as connection:
        text = table(connection, "csv")
    rows = {row["run_id"]: row for row in csv.DictReader(io.StringIO(text))}
    assert {name: (row["pass@5"], row["pass@10"]) for name, row in rows.items()
            if name in ("one", "short")} == {"one": ("", ""), "short": ("", "")}  # fmt: skip
    assert (rows["five"]["pass@5"], rows["five"]["pass@10"]) == ("0.5", "")
    # 3 and 1 of 12: the chance to miss all is C(9,5)/C(12,5) = 126/792 and C(11,5)/C(12,5) = 7/12
    expected = 1 - (126 / 792 + 7 / 12) / 2
    assert float(rows["twelve"]["pass@5"]) == pytest.approx(expected)
    # of 10: none without a pass with 3, C(11,10)/C(12,10) = 11/66 with 1
    assert float(rows["twelve"]["pass@10"]) == pytest.approx(1 - 11 / 66 / 2)


def test_a_rank_is_the_range_of_places_that_paired_comparisons_leave_open(tmp_path: Path) -> None:
    run(tmp_path, "best", ["passed"] * 20, method="best")
    run(tmp_path, "near", ["passed"] * 19 + ["wrong"], method="near")
    run(tmp_path, "far", ["wrong"] * 20, method="far")
    run(tmp_path, "cut", ["passed"] * 2, method="cut")
    store = Store(tmp_path)
    store.ingest()
    store.snapshot()
    with open_snapshot(tmp_path) as connection:
        text = table(connection, "csv")
    rows = {row["run_id"]: row for row in csv.DictReader(io.StringIO(text))}
    places = {name: (row["rank_first"], row["rank_last"]) for name, row in rows.items()}
    assert places == {"best": ("1", "2"), "near": ("1", "2"), "far": ("3", "3"), "cut": ("", "")}
