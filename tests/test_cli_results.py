"""The commands that look at results: what they print, write and refuse."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from harness.cli import app
from harness.errors import UsageError
from tests.results_maker import run

ROOT = Path(__file__).parents[1]
WORKER = {"worker": {"model": "local/small"}, "meta": {"model": "local/big"}}
Ask = Callable[..., str]


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Gives a command line in this process to the results; what it printed on stdout."""

    def asked(*words: str) -> str:
        assert not app([*words, "--out", str(tmp_path / "results")], standalone_mode=False)
        return capsys.readouterr().out

    return asked


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A results folder of two runs: one solves 7 of 8 problems, the other only the last."""
    problems = [f"HumanEval/{n}" for n in range(8)]
    run(tmp_path / "results", "humaneval-flow-small-1",
        {p: ["wrong" if p == "HumanEval/7" else "passed"] for p in problems})  # fmt: skip
    run(tmp_path / "results", "humaneval-vanilla-small-2", method="vanilla", level="L0",
        outcomes={p: ["passed" if p == "HumanEval/7" else "wrong"] for p in problems})  # fmt: skip
    return tmp_path / "results"


def test_two_runs_are_compared_by_parts_of_their_names(two: Path, ask: Ask) -> None:
    said = ask("compare", "humaneval-flow", "humaneval-vanilla")
    # McNemar, 7 to 1: P(X >= 7) = 9/256 either side, mid-p takes half of P(X = 7) = 8/256 off
    assert "p = 0.039" in said
    assert "+75.0" in said
    assert "only B 1: HumanEval/7" in said
    told = json.loads(ask("compare", "humaneval-flow", "humaneval-vanilla", "--json"))
    schema = json.loads((ROOT / "docs/schemas/compare.json").read_text())
    jsonschema.validate(told, schema, cls=jsonschema.Draft202012Validator)
    assert told["difference"]["value"] == pytest.approx(0.75)


def test_runs_on_other_data_are_compared_on_request_only(two: Path, ask: Ask) -> None:
    run(two, "humaneval-flow-small-3", {"HumanEval/0": ["passed"]}, benchmark_digest="0" * 64)
    with pytest.raises(UsageError, match="data"):
        ask("compare", "humaneval-flow-small-1", "humaneval-flow-small-3")
    assert "may not share a ranking" in ask(
        "compare", "humaneval-flow-small-1", "humaneval-flow-small-3", "--anyway"
    )


def test_a_table_goes_to_stdout_or_into_a_file_whose_name_says_the_format(
    two: Path, ask: Ask, tmp_path: Path
) -> None:
    assert ask("export").startswith("**humaneval")
    assert r"\toprule" in ask("export", "--table", "1", "--format", "latex")
    assert "o1-mini" not in ask("export", "--table", "1")
    assert "o1-mini" in ask("export", "--table", "1", "--with-reported")
    path = tmp_path / "board.tex"
    assert ask("export", "--to", str(path)) == f"{path}\n"
    assert r"\toprule" in path.read_text()


def test_a_figure_is_written_in_each_format(two: Path, ask: Ask, tmp_path: Path) -> None:
    for ending, start in ((".svg", b"<svg"), (".png", b"\x89PNG"), (".pdf", b"%PDF")):
        path = tmp_path / f"cost{ending}"
        ask("export", "--figure", "cost", "--to", str(path))
        assert path.read_bytes().startswith(start)


def test_what_export_cannot_do_is_one_line(two: Path, ask: Ask, tmp_path: Path) -> None:
    for words, said in (
        (("--table", "4"), "1, 2 or 3|unknown table|no such table"),
        (("--figure", "pie"), "no such figure"),
        (("--table", "1", "--figure", "cost"), "--table and --figure: one of them at a time"),
        (("--table", "1", "--format", "evalplus"), "one of them at a time"),
        (("--format", "docx"), "unknown format"),
        (("--format", "parquet"), "--to DIR"),
        (("--figure", "cost", "--format", "latex"), "pdf, svg or png, not latex"),
        (("--to", str(tmp_path / "no" / "board.md")), "cannot be written"),
        (("--table", "1", "--runs", "nothing-of-that-name"), "nothing-of-that-name"),
    ):
        with pytest.raises(UsageError, match=said) as refused:
            ask("export", *words)
        assert "\n" not in str(refused.value)


def test_the_board_is_written_as_pages(two: Path, ask: Ask, tmp_path: Path) -> None:
    index = tmp_path / "public" / "index.html"
    assert ask("export", "--site", str(index.parent)) == f"{index}\n"
    assert "<table" in index.read_text()


def test_runs_leave_for_another_tool_and_come_back_as_imported(
    two: Path, ask: Ask, tmp_path: Path
) -> None:
    ask("export", "--format", "parquet", "--to", str(tmp_path / "tables"))
    other = tmp_path / "other"
    other.mkdir()
    app(["import", str(tmp_path / "tables"), "--out", str(other)], standalone_mode=False)
    heads = [json.loads(path.read_text()) for path in other.glob("runs/*/run.json")]
    assert {head["kind"] for head in heads} == {"imported"}
    assert len(heads) == 2


def test_results_of_another_machine_are_merged_once(two: Path, ask: Ask, tmp_path: Path) -> None:
    other = tmp_path / "there"
    run(other, "humaneval-flow-small-9", {"HumanEval/0": ["passed"]}, seed=9)
    assert "1 new, 0 extended, 0 as before, 0 left out" in ask("merge", str(other))
    assert "0 new, 0 extended, 1 as before, 0 left out" in ask("merge", str(other))
    assert "humaneval-flow-small-9" in ask("list", "runs")


@pytest.mark.parametrize("words", [("compare", "a", "b"), ("export",), ("export", "--table", "1")])
def test_without_a_run_the_line_says_what_makes_one(
    words: tuple[str, ...], ask: Ask, tmp_path: Path
) -> None:
    (tmp_path / "results").mkdir()
    with pytest.raises(UsageError, match="eval"):
        ask(*words)


def test_an_import_that_is_no_result_file_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a result\n")
    (tmp_path / "results").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "harness", "import", str(file), "--out", str(tmp_path / "results")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*notes\.txt: of no format known here.*\n", done.stderr)
    assert not list((tmp_path / "results").glob("runs/*"))


def test_a_flag_that_an_export_does_not_take_is_refused(
    two: Path, ask: Ask, tmp_path: Path
) -> None:
    for words, name in (
        (("--runs", "humaneval-flow-small-1"), "--runs"),
        (("--site", str(tmp_path / "site"), "--runs", "humaneval-flow-small-1"), "--runs"),
        (("--format", "inspect", "-b", "mbpp", "--to", str(tmp_path / "logs")), "--benchmark"),
        (("--table", "1", "-b", "humaneval"), "--benchmark"),
        (("--protocol", "split"), "--protocol"),
        (("--figure", "cost", "--with-reported"), "--with-reported"),
        (("--table", "1", "--runs", ","), "--runs names no run"),
        (("--figure", "cost", "--to", str(tmp_path / "x.jpg")), r"x\.jpg: its ending"),
    ):
        with pytest.raises(UsageError, match=name):
            ask("export", *words)
    assert list(tmp_path.iterdir()) == [tmp_path / "results"]


def test_a_good_file_beside_a_bad_one_comes_in(
    two: Path, ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask("export", "--format", "parquet", "--to", str(tmp_path / "tables"))
    bad = tmp_path / "notes.txt"
    bad.write_text("not a result\n")
    other = tmp_path / "other"
    other.mkdir()
    words = ["import", str(bad), str(tmp_path / "tables"), "--out", str(other), "--json"]
    assert app(words, standalone_mode=False) == 2
    told = json.loads(capsys.readouterr().out)
    assert len(told["runs"]) == 2
    assert "notes.txt" in told["errors"][0]
