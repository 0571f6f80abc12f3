"""The paper's tables hold the board's numbers, compare only what may be, and compile."""

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from duckdb import DuckDBPyConnection

from harness.errors import UsageError
from harness.journal import Journal
from harness.metrics import p_value, percent
from harness.reported import PROBLEMS, rows
from harness.store import Store, open_snapshot
from leaderboard.export import table
from leaderboard.paper import build, derived_overall, paper_table, reported_rows
from leaderboard.paper_text import WRITERS, latex
from tests.results_maker import drawn, text_of

IDS = {"humaneval": "HumanEval", "humaneval+": "HumanEval", "mbpp": "Mbpp",
       "bigcodebench-complete": "BigCodeBench"}  # fmt: skip
BIG = {"bigcodebench-complete": 30, "humaneval": 13, "mbpp": 34}  # a tenth of the paper's


def run(results_dir: Path, run_id: str, solved: Sequence[bool | None], **fields: Any) -> None:
    """A finished run of one sample a problem: solved, not solved, or errored (None).

    `begin` is the number of the first problem; `asked_of` gives the sampling of a role, `judge` the
    model of a further one.
    """
    journal = Journal(results_dir / "runs" / run_id)
    models = {"worker": fields.pop("worker", "local/small"), "meta": fields.pop("meta", None),
              "judge": fields.pop("judge", None)}  # fmt: skip
    given, begin, asked_of = (fields.pop(name, value) for name, value in
                              (("given", {}), ("begin", 0), ("asked_of", {})))  # fmt: skip
    head = {"run_id": run_id, "benchmark": "humaneval", "benchmark_digest": "7dce6050a7d6d172" * 4,
            "list": "paper", "protocol": "public", "level": "L0", "method": "vanilla",
            "knobs": given, "config": {"knobs": given}, "n_samples": 1, "seed": 0,
            "roles": {name: {"model": model, "sampling": asked_of.get(name, {})}
                      for name, model in models.items() if model},
            "grader_version": "2", "price_table": "none", "kind": "measured",
            "commit": "0123456789abcdef", "started_at": 1762000000.0}  # fmt: skip
    head |= fields
    (journal.run_dir / "run.json").write_text(json.dumps(head))
    asked = fields.get("asked", len(solved))
    journal.write("session", event="start", problems=asked, samples=asked)
    for number, one in enumerate(solved):
        verdict = "invalid" if one is None else "passed" if one else "wrong"
        journal.write(
            "result", result_key=f"k{number}", sample=0, verdict=verdict, calls=1,
            problem_id=f"{IDS[head['benchmark']]}/{begin + number}", prompt_tokens=70,
            completion_tokens=30, cost_usd=0.0, fresh_cost_usd=0.0, wall_s=1.0,
        )  # fmt: skip
    journal.write("session", event="end", status="complete")
    journal.close()


def share(passed: int, of: int) -> list[bool]:
    return [number < passed for number in range(of)]


def three(results_dir: Path, name: str, passed: tuple[int, int, int], **fields: Any) -> None:
    """A run on each benchmark, with so many problems solved."""
    for (benchmark, of), solved in zip(BIG.items(), passed, strict=True):
        run(results_dir, f"{name}-{benchmark}", share(solved, of), benchmark=benchmark, **fields)


def opened(results_dir: Path) -> DuckDBPyConnection:
    store = Store(results_dir)
    store.ingest()
    store.snapshot()
    return open_snapshot(results_dir)


def filled(results_dir: Path) -> None:
    """Two methods, a control and FlowReasoner on all benchmarks, and an odd name."""
    three(results_dir, "vanilla", (15, 10, 20))
    three(results_dir, "refine", (16, 10, 20), method="self-refine", given={"rounds": 2})
    three(results_dir, "bon", (17, 11, 22), method="best-of-n", level="L1", given={"n": 8})
    three(results_dir, "flow", (28, 13, 33), method="flowreasoner", level="L1",
          meta="local/qwen2.5-coder-32b-instruct")  # fmt: skip
    three(results_dir, "other", (14, 9, 18), worker="local/qwen2.5-coder-1.5b-instruct")
    run(results_dir, "odd", share(5, 13), method="a&b_c|<i>%$#{}~^\\", worker='local/ü_"x"')


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBPyConnection]:
    folder = tmp_path_factory.mktemp("paper")
    filled(folder)
    with opened(folder) as found:
        yield found


def csv_rows(text: str) -> dict[str, dict[str, str]]:
    return {row["method"]: row for row in csv.DictReader(io.StringIO(text))
            if not row["worker"].endswith("instruct")}  # fmt: skip


def test_overall_is_the_mean_over_all_problems(connection: DuckDBPyConnection) -> None:
    found = csv_rows(paper_table(connection, 1, "csv"))
    flow = found["FlowReasoner"]
    assert float(flow["Overall"]) == pytest.approx((28 + 13 + 33) / 77)
    assert flow["Overall_problems"] == "77"
    assert float(flow["BigCodeBench"]) == pytest.approx(28 / 30)
    assert found["a&b_c|<i>%$#{}~^\\"]["Overall"] == ""


def test_the_paper_s_own_overall_comes_out_of_its_own_columns() -> None:
    apart = 0.0
    for row in reported_rows(1) + reported_rows(2):
        derived = derived_overall(row)
        assert derived is not None
        apart = max(apart, abs(float(derived) - float((row.printed or {})["Overall"])))
    assert round(apart, 3) <= 0.011
    assert sum(PROBLEMS.values()) == 772


def test_a_missing_cell_is_a_dash_and_never_a_zero(connection: DuckDBPyConnection) -> None:
    line = next(x for x in paper_table(connection, 1, "markdown").splitlines() if "a\\&b" in x)
    assert line.count("| – ") == 5  # three scores and two comparisons; below them one score
    assert " 0.00" not in line
    assert "38.46" in line


def test_the_best_is_bold_and_what_does_not_differ_from_it_is_marked(tmp_path: Path) -> None:
    run(tmp_path, "best", share(40, 50), method="flowreasoner")
    run(tmp_path, "close", share(39, 50), method="repair")
    run(tmp_path, "far", share(10, 50))
    with opened(tmp_path) as connection:
        table = build(connection, 1)
        text = paper_table(connection, 1, "markdown")
        tex = paper_table(connection, 1, "latex")
    cells = {row.method: row.cells["HumanEval"] for row in table.rows}
    marks = {name: (cell.best, cell.tied) for name, cell in cells.items()}
    assert marks == {"FlowReasoner": (True, False), "Repair": (False, True),
                     "Vanilla": (False, False)}  # fmt: skip
    assert "**80.00** " in text
    assert "78.00† " in text
    assert r"\textbf{80.00} &" in tex
    assert r"78.00$^{\dagger}$" in tex


def test_significance_is_that_of_the_paired_test_after_holm(tmp_path: Path) -> None:
    # 8 problems that only `a` solves and none that only vanilla does: mid-p 2^-8 = 0.00390625;
    # 1 against 0: mid-p 0.5. Holm over two: 0.0078125 and 0.5.
    run(tmp_path, "base", share(10, 50))
    run(tmp_path, "a", share(18, 50), method="repair")
    run(tmp_path, "b", share(11, 50), method="self-refine")
    with opened(tmp_path) as connection:
        found = csv_rows(paper_table(connection, 1, "csv"))
        text = paper_table(connection, 1, "markdown")
    assert float(found["Repair"]["vs_vanilla_p"]) == pytest.approx(2**-8)
    assert float(found["Repair"]["vs_vanilla_p_holm"]) == pytest.approx(2**-7)
    assert float(found["Self-Refine"]["vs_vanilla_p_holm"]) == pytest.approx(0.5)
    assert found["Vanilla"]["vs_vanilla"] == ""
    assert "+16.00\\* (p = 0.008)" in text
    assert "+2.00 (p = 0.500)" in text


def test_a_row_is_tested_against_best_of_n_that_was_matched_to_its_run(tmp_path: Path) -> None:
    run(tmp_path, "flow", share(20, 50), method="flowreasoner")
    run(tmp_path, "matched", share(15, 50), method="best-of-n", given={"match": "flow"})
    run(tmp_path, "newer", share(5, 50), method="best-of-n", given={"n": 2},
        started_at=1763000000.0)  # fmt: skip
    # also without a knob of its own, and newer: all that sets it apart is whose bill it had
    run(tmp_path, "another", share(2, 50), method="best-of-n", given={"match": "else"},
        started_at=1764000000.0)  # fmt: skip
    with opened(tmp_path) as connection:
        found = csv_rows(paper_table(connection, 1, "csv"))
        text = paper_table(connection, 1, "markdown")
    assert found["FlowReasoner"]["vs_best_of_n_runs"] == "matched"
    assert float(found["FlowReasoner"]["vs_best_of_n"]) == pytest.approx(0.1)
    assert "the one that was matched to the row's own, then one without knobs, then one" in text
    assert "for each base by itself" in text


def test_without_a_matched_one_a_base_is_without_knobs_asked_alike_and_new(tmp_path: Path) -> None:
    warm = {"worker": {"temperature": 0.8, "max_tokens": 1024}}
    cool = {"worker": {"temperature": 0.0, "max_tokens": 1024}}
    run(tmp_path, "refine", share(20, 50), method="self-refine", asked_of=cool)
    run(tmp_path, "greedy", share(15, 50), asked_of=cool)
    run(tmp_path, "drawn", share(12, 50), asked_of=warm, started_at=1763000000.0)
    run(tmp_path, "knobs", share(11, 50), given={"prompt": 2}, asked_of=cool,
        started_at=1764000000.0)  # fmt: skip
    run(tmp_path, "warm", share(21, 50), method="repair", asked_of=warm)
    with opened(tmp_path) as connection:
        found = csv_rows(paper_table(connection, 1, "csv"))
    assert found["Self-Refine"]["vs_vanilla_runs"] == "greedy"
    assert found["Repair"]["vs_vanilla_runs"] == "drawn"


def test_what_holm_over_all_pairs_leaves_open_is_marked(tmp_path: Path) -> None:
    # Each of the others solves 6 fewer than the best: mid-p 2^-6 = 0.0156. Two others: three pairs,
    # 3 x 2^-6 = 0.047, worse. Three: six pairs, 6 x 2^-6 = 0.094, open, though over the pairs with
    # the best alone it were 0.047. Four: ten pairs, open.
    run(tmp_path, "best", share(20, 60), method="flowreasoner")
    for method in ("repair", "vanilla", "self-refine", "aflow"):
        run(tmp_path, method, share(14, 60), method=method)
    with opened(tmp_path) as connection:
        found = {row.method: row.cells["HumanEval"] for row in build(connection, 1).rows}
        few = build(connection, 1, runs=["best", "repair", "vanilla"])
        four = build(connection, 1, runs=["best", "repair", "vanilla", "aflow"])
    assert [cell.tied for name, cell in found.items() if name != "FlowReasoner"] == [True] * 4
    assert not any(row.cells["HumanEval"].tied for row in few.rows)
    assert [row.cells["HumanEval"].tied for row in four.rows].count(True) == 3
    assert any("after Holm over all pairs of the column" in note for note in few.footnotes)


def test_all_against_nothing_is_no_tie_however_often_problems_were_sampled(tmp_path: Path) -> None:
    for name, verdict, method in (("all", True, "repair"), ("none", False, "vanilla")):
        run(tmp_path, name, [verdict] * 50, method=method, n_samples=2)
        journal = Journal(tmp_path / "runs" / name)
        journal.write("session", event="start", problems=50, samples=100, resumed=50)
        for number in range(50):
            journal.write("result", result_key=f"again{number}", sample=1,
                          problem_id=f"HumanEval/{number}", calls=1,
                          verdict="passed" if verdict else "wrong")  # fmt: skip
        journal.write("session", event="end", status="complete")
        journal.close()
    with opened(tmp_path) as connection:
        made = build(connection, 1)
        board_text = table(connection, "markdown")
    cells = {row.method: row.cells["HumanEval"] for row in made.rows}
    assert (cells["Repair"].best, cells["Vanilla"].tied) == (True, False)
    (repair,) = (row for row in made.rows if row.method == "Repair")
    assert repair.versus["vanilla"].significant
    assert "| **100.0** | 92.9 to 100.0 | 1 |" in board_text


def test_runs_on_other_problems_are_refused_and_compared_with_none_if_asked_for(
    tmp_path: Path,
) -> None:
    run(tmp_path, "a", share(36, 40))
    run(tmp_path, "b", share(16, 40), method="repair", begin=100)
    run(tmp_path, "c", share(24, 40), method="self-refine")
    run(tmp_path, "d", share(39, 40), method="aflow", begin=30)
    with opened(tmp_path) as connection:
        with pytest.raises(UsageError, match="a and b share 0 of their 40 problems: not to be"):
            build(connection, 1, runs=["a", "b"])
        with pytest.raises(UsageError, match="share 10 of their 40 problems: not to be"):
            build(connection, 1, runs=["a", "d"])
        with pytest.raises(UsageError, match="of their 40 problems"):
            build(connection, 1)
        made = build(connection, 1, anyway=True)
    rows = {row.method: row for row in made.rows}
    other = ("HumanEval: not comparable: other problems, though as many (40)",)
    assert {name: row.notes for name, row in rows.items()} == {
        "Vanilla": (), "Self-Refine": (), "Repair": other, "AFlow": other,
    }  # fmt: skip
    marks = {name: (row.cells["HumanEval"].best, row.cells["HumanEval"].tied)
             for name, row in rows.items()}  # fmt: skip
    assert marks == {"Vanilla": (True, False), "Self-Refine": (False, False),
                     "Repair": (False, False), "AFlow": (False, False)}  # fmt: skip
    assert rows["Repair"].versus["vanilla"].difference.value is None
    assert not rows["Repair"].versus["vanilla"].significant


def test_a_row_in_no_ranking_is_compared_with_none_whatever_was_asked_for(tmp_path: Path) -> None:
    run(tmp_path, "base", share(30, 100))
    run(tmp_path, "oracle", share(99, 100), method="flowreasoner", level="oracle")
    run(tmp_path, "taken", share(90, 100), method="aflow", kind="imported")
    run(tmp_path, "look", share(90, 100), method="adas", first_look=True)
    run(tmp_path, "cut", share(90, 100), method="maas", asked=120)
    run(tmp_path, "good", share(60, 100), method="repair")
    names = ["base", "oracle", "taken", "look", "cut", "good"]
    with opened(tmp_path) as connection:
        made = build(connection, 1, runs=names, anyway=True)
        alone = build(connection, 1)
        (oracle,) = (x for x in paper_table(connection, 1, "markdown", runs=names, anyway=True)
                     .splitlines() if "| oracle |" in x)  # fmt: skip
    assert {row.method for row in made.rows if row.versus} == {"Repair"}
    assert {row.method for row in made.rows if row.cells["HumanEval"].best} == {"Repair"}
    assert "*" not in oracle
    assert "; of its runs on a benchmark" in made.footnotes[-1]
    assert "; of its complete runs on a benchmark" in alone.footnotes[-1]


def test_a_base_that_is_in_no_ranking_is_none(tmp_path: Path) -> None:
    run(tmp_path, "cut", share(30, 100), asked=120)
    run(tmp_path, "good", share(60, 100), method="repair")
    with opened(tmp_path) as connection:
        made = build(connection, 1, runs=["cut", "good"], anyway=True)
    assert not any(row.versus for row in made.rows)


def test_anyway_shows_a_method_once_for_each_ranking_and_tests_against_what_is_shown(
    tmp_path: Path,
) -> None:
    run(tmp_path, "old", share(10, 20))
    run(tmp_path, "new", share(18, 20), grader_version="3", started_at=1763000000.0)
    run(tmp_path, "other", share(15, 20), method="repair")
    for name in ("vanilla", "self-refine"):  # the graders of one column say nothing of another
        run(tmp_path, f"mbpp-{name}", share(5, 34), method=name, benchmark="mbpp")
    with opened(tmp_path) as connection:
        made = build(connection, 1, anyway=True)
    cells = {row.cells["HumanEval"].run: row for row in made.rows if "HumanEval" in row.cells}
    assert set(cells) == {"old", "new", "other"}
    assert cells["new"].notes == ("HumanEval: not comparable: grader 3 instead of 2",)
    assert cells["old"].cells["MBPP"].run == "mbpp-vanilla"  # still one row over its columns
    assert cells["other"].versus["vanilla"].base == ("old",)


def test_a_complete_row_on_fewer_problems_says_so_and_is_tested_on_those(tmp_path: Path) -> None:
    run(tmp_path, "base", share(30, 64))
    run(tmp_path, "few", share(11, 11), method="repair")
    run(tmp_path, "late", share(1, 11), started_at=1763000000.0)  # the row of `base`, not shown
    run(tmp_path, "full", share(40, 64), method="self-refine")
    with opened(tmp_path) as connection:
        made = build(connection, 1, anyway=True)
    (few,) = (row for row in made.rows if row.method == "Repair")
    assert few.notes == ("HumanEval: 11 problems, others have 64; tested on those alone",)
    assert few.versus["vanilla"].base == ("base",)
    assert few.versus["vanilla"].difference.problems == 11
    assert (few.cells["HumanEval"].best, few.cells["HumanEval"].tied) == (False, False)


def asked(temperature: float, **more: Any) -> dict[str, Any]:
    return {"worker": {"temperature": temperature, "max_tokens": 1024, "top_p": None, **more}}


def test_rows_that_were_asked_otherwise_are_rows_of_their_own(tmp_path: Path) -> None:
    run(tmp_path, "greedy", share(10, 20), asked_of=asked(0.0))
    run(tmp_path, "again", share(11, 20), asked_of=asked(0.0), started_at=1763000000.0)
    run(tmp_path, "warm", share(12, 20), asked_of=asked(0.8), started_at=1764000000.0)
    run(tmp_path, "j1", share(10, 20), method="llm-blender", judge="local/a", asked_of=asked(0.7))
    run(tmp_path, "j2", share(11, 20), method="llm-blender", judge="local/b", asked_of=asked(0.7))
    run(tmp_path, "one", share(11, 20), method="repair", asked_of=asked(0.0))
    with opened(tmp_path) as connection:
        made = build(connection, 1)
    assert {(row.method, row.detail): row.cells["HumanEval"].run for row in made.rows} == {
        ("Vanilla", "temperature=0"): "again", ("Vanilla", "temperature=0.8"): "warm",
        ("LLM-Blender", "judge=local/a"): "j1", ("LLM-Blender", "judge=local/b"): "j2",
        ("Repair", ""): "one",
    }  # fmt: skip
    (said,) = (note for note in made.footnotes if note.startswith("Samples a problem"))
    assert said == ("Samples a problem: 1; temperature 0.8 (Vanilla), 0 (Vanilla, Repair), "
                    "0.7 (LLM-Blender).")  # fmt: skip


def test_samples_of_a_problem_tell_rows_apart_and_are_said(tmp_path: Path) -> None:
    run(tmp_path, "once", share(10, 20), asked_of=asked(0.0))
    with opened(tmp_path) as connection:
        assert "Samples a problem: 1; temperature 0." in build(connection, 1).footnotes
    run(tmp_path, "thrice", share(12, 20), asked_of=asked(0.0), n_samples=3)
    with opened(tmp_path) as connection:
        made = build(connection, 1)
    assert sorted(row.detail for row in made.rows) == ["samples=1", "samples=3"]
    with opened(tmp_path) as connection:
        named = build(connection, 1, runs=["once", "thrice"])  # no two of one row
    assert len(named.rows) == 2


def test_the_macro_mean_stands_in_csv_and_html(connection: DuckDBPyConnection) -> None:
    found = csv_rows(paper_table(connection, 1, "csv"))
    expected = (28 / 30 + 13 / 13 + 33 / 34) / 3
    assert float(found["FlowReasoner"]["macro"]) == pytest.approx(expected)
    low, high = (float(found["FlowReasoner"][f"macro_{end}"]) for end in ("low", "high"))
    assert low < expected < high
    assert found["a&b_c|<i>%$#{}~^\\"]["macro"] == ""
    page = paper_table(connection, 1, "html")
    assert '<th scope="col">Macro</th>' in page
    assert f"<td>{percent(expected, 2)}<small>[" in page
    assert "each the same" in page


def test_marks_of_tex_in_names_neither_vanish_nor_break_the_tables(tmp_path: Path) -> None:
    for n, name in enumerate(("[5pt]model", "*starred", "my-long-model-name [9pt]-after",
                              "another-long-name *starred-after")):  # fmt: skip
        run(tmp_path, f"r{n}", share(10 + n, 20), method="flowreasoner", worker="local/one",
            meta=name)  # fmt: skip
        run(tmp_path, f"v{n}", share(9 + n, 20), method=name)
    with opened(tmp_path) as connection:
        texts = [paper_table(connection, number, "latex") for number in (1, 2, 3)]
    for text in texts:
        assert not re.search(r"\\\\\s*[\[*]", text.replace(r"\\[2pt]", r"\\"))
        assert "{[}5pt{]}model" in text
        assert "{*}starred" in text
    compiled("\n".join(texts), tmp_path)


def test_the_newest_of_the_runs_on_the_most_problems_stands_for_a_row(tmp_path: Path) -> None:
    run(tmp_path, "old", share(10, 50))
    run(tmp_path, "new", share(20, 50), started_at=1763000000.0)
    run(tmp_path, "limited", share(5, 5), started_at=1764000000.0)
    run(tmp_path, "short", share(5, 5), method="repair", started_at=1764000000.0)
    run(tmp_path, "cut", share(50, 50), asked=60, started_at=1765000000.0)
    with opened(tmp_path) as connection:
        found = csv_rows(paper_table(connection, 1, "csv"))
        text = paper_table(connection, 1, "markdown")
        assert set(found) == {"Vanilla"}
        assert found["Vanilla"]["HumanEval_run"] == "new"
        assert "Runs: new." in text
        assert "fewer problems than others of their column: limited, short." in text
        with pytest.raises(UsageError, match="old and new are the same row on HumanEval: name one"):
            paper_table(connection, 1, "csv", runs=["old", "new"])
        with pytest.raises(UsageError, match="short has 5 of 50 problems: not to be compared"):
            paper_table(connection, 1, "csv", runs=["old", "short"])
        with pytest.raises(UsageError, match="cut is in no ranking: partial"):
            paper_table(connection, 1, "csv", runs=["cut"])


@pytest.mark.parametrize(("field", "value", "said"), [
    ("list", "full", r"HumanEval: list full \(1 run\), paper \(1 run\)"),
    ("protocol", "split", r"protocol public \(1 run\), split"),
    ("benchmark_digest", "f" * 64, r"data 7dce6050a7d6 \(1 run\), ffffffffffff"),
    ("grader_version", "1", "grader"),
    ("price_table", "new", r"prices new \(1 run\), none"),
])  # fmt: skip
def test_rows_that_may_not_share_a_ranking_are_refused_and_footnoted_if_asked_for(
    tmp_path: Path, field: str, value: str, said: str
) -> None:
    run(tmp_path, "one", share(10, 20))
    run(tmp_path, "two", share(15, 20), method="repair", **{field: value})
    with opened(tmp_path) as connection:
        with pytest.raises(UsageError, match=said) as error:
            paper_table(connection, 1, "latex")
        assert "\n" not in str(error.value)
        table = build(connection, 1, anyway=True)
    notes = {row.method: row.notes for row in table.rows}
    assert sorted(map(len, notes.values())) == [0, 1]
    (note,) = (note for row in notes.values() for note in row)
    assert note.startswith("HumanEval: not comparable: ")
    assert not any(cell.best for row in table.rows for cell in row.cells.values())
    assert not any(row.versus for row in table.rows)


def test_lists_and_protocols_are_one_over_all_columns(tmp_path: Path) -> None:
    run(tmp_path, "one", share(10, 20))
    run(tmp_path, "two", share(15, 20), benchmark="mbpp", protocol="split")
    with opened(tmp_path) as connection:
        with pytest.raises(UsageError, match=r"table 1: protocol public \(1 run\), split"):
            paper_table(connection, 1, "latex")
        only = csv_rows(paper_table(connection, 1, "csv", protocol="split"))
        assert (only["Vanilla"]["MBPP"], only["Vanilla"]["HumanEval"]) == ("0.75", "")
        with pytest.raises(UsageError, match="no complete measured run with --protocol none"):
            paper_table(connection, 1, "csv", protocol="none")


@pytest.mark.parametrize("form", WRITERS)
def test_no_table_holds_a_simulated_run(tmp_path: Path, form: str) -> None:
    run(tmp_path, "real", share(10, 20))
    run(tmp_path, "pretended", share(20, 20), method="repair", worker="sim/skill=1")
    with opened(tmp_path) as connection:
        text = paper_table(connection, 1, form, anyway=True)
        assert "pretended" not in text
        assert "epair" not in text
        with pytest.raises(UsageError, match="pretended: simulated, which says nothing"):
            paper_table(connection, 1, form, runs=["pretended"], anyway=True)


def test_nothing_to_show_says_what_to_run(tmp_path: Path) -> None:
    run(tmp_path, "vanilla", share(10, 20))
    with opened(tmp_path) as connection:
        with pytest.raises(UsageError, match="table 2: no complete measured run of flowreasoner"):
            paper_table(connection, 2, "latex")
        with pytest.raises(UsageError, match="nosuch: no such evaluation"):
            paper_table(connection, 1, "latex", runs=["nosuch"])
        with pytest.raises(UsageError, match="one of latex, markdown, csv, html"):
            paper_table(connection, 1, "word")


def test_reported_rows_stand_beside_measured_ones_as_they_were_printed(
    connection: DuckDBPyConnection,
) -> None:
    alone, beside = (build(connection, 1, with_reported=told) for told in (False, True))
    assert [row for row in beside.rows if not row.reported] == list(alone.rows)
    told = [row for row in beside.rows if row.reported]
    assert len(told) == 14
    assert not any(cell.best or cell.tied for row in told for cell in row.cells.values())
    assert [row.reported for row in beside.rows if row.type == "Ours"] == [False, True]
    text = paper_table(connection, 1, "markdown", with_reported=True)
    (line,) = [x for x in text.splitlines() if "FlowReasoner-14B" in x and x.startswith("|")]
    assert "| *63.53* | *97.26* | *92.15* | *81.89* | – | – |" in line
    assert "In italics: reported, not measured here" in text
    printed = [x["printed"] for x in rows() if x["place"] == "table 1"]
    assert all(f"*{number}*" in text for number in printed)


def test_tables_2_and_3_hold_meta_agents_and_workers(tmp_path: Path) -> None:
    for meta in ("hf/small_sft", "hf/small_rl"):
        three(tmp_path, meta[3:], (15, 10, 20), method="flowreasoner", meta=meta)
    three(tmp_path, "vanilla", (10, 9, 15))
    three(tmp_path, "else", (20, 11, 25), method="flowreasoner", meta="hf/small_rl",
          worker="local/other")  # fmt: skip
    with opened(tmp_path) as connection:
        second, third = (build(connection, n, with_reported=True) for n in (2, 3))
    measured = [row for row in second.rows if not row.reported]
    assert [row.meta for row in measured] == ["hf/small_rl", "hf/small_sft"]
    assert {row.worker for row in measured} == {"local/small"}
    assert [row.versus["vanilla"].difference.only_a for row in measured] == [11, 11]
    workers = [row.worker for row in third.rows if not row.reported]
    assert workers == ["local/other", "local/small", "local/small"]
    assert len([row for row in third.rows if row.reported]) == 8
    assert "(75.60)" in latex(third, 2)  # GPT-4o-mini with the 14B meta-agent, not printed


def test_an_errored_sample_is_told_and_in_no_mean(tmp_path: Path) -> None:
    run(tmp_path, "one", [True, False, True])
    journal = Journal(tmp_path / "runs" / "one")
    journal.write("session", event="start", problems=4, samples=4, resumed=3)
    journal.write("result", result_key="k3", problem_id="HumanEval/3", sample=0, verdict="invalid")
    journal.close()
    with opened(tmp_path) as connection:
        text = paper_table(connection, 1, "markdown", runs=["one"], anyway=True)
    assert "66.67" in text
    assert ("1 of 4 samples errored: the score lies between 50.00 and 75.00, however they would "
            "have ended") in text  # fmt: skip
    assert "3 of 4 problems have a verdict" in text


def test_workers_that_differ_in_their_provider_alone_are_named_in_full(tmp_path: Path) -> None:
    run(tmp_path, "one", share(10, 20), worker="local/small")
    run(tmp_path, "two", share(11, 20), worker="vllm/small")
    run(tmp_path, "three", share(11, 20), worker="vllm/large")
    with opened(tmp_path) as connection:
        text = paper_table(connection, 1, "markdown")
    assert [x.split(" | ")[2] for x in text.splitlines() if x.startswith("| Vanilla")] == [
        "local/small", "large", "vllm/small",
    ]  # fmt: skip


def test_half_is_rounded_up(tmp_path: Path) -> None:
    run(tmp_path, "one", share(49, 80))  # 61.25 %
    with opened(tmp_path) as connection:
        assert "| 61.3 " in paper_table(connection, 1, "markdown", digits=1)
    assert [p_value(p) for p in (0.0125, 0.0004, None)] == ["0.013", "< 0.001", "unknown"]


def test_html_and_csv_hold_no_mark_of_a_name(connection: DuckDBPyConnection) -> None:
    text = paper_table(connection, 1, "html")
    assert "a&amp;b_c|&lt;i&gt;" in text
    assert "<i>" not in text
    assert text.count("<table>") == text.count("</table>") == 1


def compiled(tex: str, folder: Path, *, width: str = "14cm") -> Path:
    """The PDF of a document that holds `tex`, with booktabs alone; skips where there is no TeX."""
    document = (
        "\\documentclass{article}\n\\usepackage{booktabs}\n"
        f"\\usepackage[textwidth={width},textheight=24cm]{{geometry}}\n"
        f"\\begin{{document}}\n{tex}\n\\end{{document}}\n"
    )
    if shutil.which("pdflatex"):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    elif shutil.which("tectonic"):
        command = ["tectonic", "-C", "paper.tex"]
    else:
        pytest.skip("no pdflatex and no tectonic")
    (folder / "paper.tex").write_text(document, encoding="utf-8")
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    missing = re.search(r"File `(\S+)' not found", made.stdout)
    if missing and missing[1] in ("booktabs.sty", "geometry.sty"):
        pytest.skip(f"TeX has no {missing[1]}")
    assert made.returncode == 0, made.stdout[-2000:]
    return folder / "paper.pdf"


def test_the_tables_compile(connection: DuckDBPyConnection, tmp_path: Path) -> None:
    narrow = "\n".join(paper_table(connection, n, "latex", with_reported=True) for n in (2, 3))
    pdf = compiled(narrow, tmp_path, width="345pt")  # of the class `article` as it is
    log = (tmp_path / "paper.log").read_text(errors="replace")
    assert "Overfull" not in log, log[-3000:]
    tex = "\n".join(paper_table(connection, n, "latex", with_reported=True) for n in (1, 2, 3))
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == 3
    assert tex.isascii()
    pdf = compiled(tex, tmp_path)
    assert pdf.stat().st_size > 10_000
    log = (tmp_path / "paper.log").read_text(errors="replace")
    wide = [float(x) for x in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", log)]
    assert max(wide, default=0.0) < 8, log[-3000:]


def shown(results_dir: Path, **query: str) -> tuple[str, str]:
    """(the tables of the page as HTML, all its words) at an address."""
    app = drawn(results_dir, "paper", **query)
    said = [str(part.proto.body) for part in app.get("html")]
    return "".join(said), text_of(app)


def test_the_page_shows_reported_beside_measured_and_the_address_says_which_table(
    tmp_path: Path,
) -> None:
    filled(tmp_path)
    opened(tmp_path).close()
    page, words = shown(tmp_path)
    assert "Table 1. Performance of methods" in page
    assert page.count('class="reported"') == 14
    assert "<strong>96.10</strong>" in page
    assert "a&amp;b_c|&lt;i&gt;" in page
    assert "<i>" not in page
    assert "What differs from the paper" in words
    page, words = shown(tmp_path, table="Table 3", reported="false")
    assert "Table 3. Generalisation" in page
    assert 'class="reported"' not in page
    assert "export --table 3 --format latex" in words
    page, words = shown(tmp_path, table="Figure 4")
    assert "Figure 4" in words
    assert "share all but the meta-agent" in words


def test_the_page_chooses_a_protocol_and_says_why_it_shows_nothing(tmp_path: Path) -> None:
    run(tmp_path, "one", share(10, 20))
    run(tmp_path, "two", share(15, 20), method="repair", protocol="split")
    opened(tmp_path).close()
    page, _ = shown(tmp_path, of="list paper, protocol public")
    assert "<td>50.00" in page
    assert "<td>75.00" not in page
    page, _ = shown(tmp_path, anyway="true")
    assert "not comparable: protocol" in page
    page, words = shown(tmp_path, table="Table 2")
    assert "There is nothing measured to show here yet." in words
    assert "SFT+RL" in page


@pytest.mark.parametrize("number", [2, 3])
def test_meta_agents_on_fewer_problems_than_vanilla_stand_in_their_tables(
    tmp_path: Path, number: int
) -> None:
    run(tmp_path, "vanilla-1", share(10, 16))
    run(tmp_path, "flow-1", share(6, 8), method="flowreasoner", meta="local/big-7b")
    made = build(opened(tmp_path), number)  # type: ignore[arg-type]
    assert [row.cells["HumanEval"].run for row in made.rows] == ["flow-1"]
    versus = made.rows[0].versus["vanilla"].difference
    assert versus.problems == 8  # those that both have: 6 beside 8
    assert versus.value == pytest.approx(-0.25)


def test_a_table_that_is_too_high_for_a_page_keeps_all_its_rows_and_notes(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for number in range(24):
        run(results, f"m{number}", share(5, 9), method=f"method-{number}", level="L1")
    made = paper_table(opened(results), 1, "latex", with_reported=True)
    floats, _, rest = made.rpartition(r"\end{table*}")
    assert floats.count(r"\begin{table*}") == floats.count(r"\bottomrule") > 1
    assert [f"method-{n}" in floats for n in range(24)] == [True] * 24
    assert (
        rest.count("Overall is the mean over all problems") == 1
    )  # in no float, which would cut it
    assert made.count(r"\label{tab:paper-1}") == 1
    compiled(made, tmp_path)
    assert "Float too large" not in (tmp_path / "paper.log").read_text(errors="replace")
