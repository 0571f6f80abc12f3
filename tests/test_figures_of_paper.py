"""Figures and case studies say what the journals say, by stated rules, and are real files."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from duckdb import DuckDBPyConnection

from harness.aggregate import mean_interval
from harness.errors import UsageError
from harness.journal import Journal
from harness.store import Store, open_snapshot
from leaderboard.cases import cases_text, find_cases, latex, listing, markdown
from leaderboard.figures import (
    FORMATS,
    NAMES,
    SizeBar,
    ablation,
    broken_shares,
    figure,
    size_chart,
    sizes,
)

START = {"pdf": b"%PDF", "svg": b"<svg", "png": b"\x89PNG"}
HOSTILE = (
    "</text><script>alert(1)</script> \\end{verbatim} ```` \x1b[31m ünder %$#&_^~ \\input{x} "
    + "x" * 150
)
ROUND = {"score": 1.0, "verdict": "passed", "parent": 1, "operators": ["custom"], "error": None}
TEMPLATE = {"score": 0.5, "parent": None, "operators": ["custom_code_generate"],
            "verdict": "wrong"}  # fmt: skip


def run(
    results_dir: Path, run_id: str, samples: Mapping[str, Sequence[dict[str, Any]]], **fields: Any
) -> None:
    """A finished run in rounds: what each workflow scored and called, the last best one chosen."""
    journal = Journal(results_dir / "runs" / run_id)
    models = {"worker": fields.pop("worker", "local/small"), "meta": fields.pop("meta", "hf/big")}
    head = {"run_id": run_id, "benchmark": "humaneval", "benchmark_digest": "7dce", "list": "full",
            "protocol": "public", "level": "L1", "method": "flowreasoner", "knobs": {},
            "roles": {name: {"model": model} for name, model in models.items()}, "n_samples": 1,
            "seed": 0, "grader_version": "2", "price_table": "none", "kind": "measured",
            "started_at": 1762000000.0}  # fmt: skip
    (journal.run_dir / "run.json").write_text(json.dumps(head | fields))
    journal.write("session", event="start", problems=len(samples), samples=len(samples))
    for problem_id, rounds in samples.items():
        key = {"result_key": f"{problem_id}:0", "problem_id": problem_id, "sample": 0}
        calls = 0
        best = max(range(len(rounds)), key=lambda n: (ROUND | rounds[n])["score"] or 0.0)
        for number, told in enumerate(rounds, 1):
            one = ROUND | told
            code = one.get("code", f"class Workflow:  # {number}\n    ...")
            own = {**key, "round": number}
            for _ in one["operators"]:
                calls += 1
                journal.write("call", **own, call_no=calls, role="worker", prompt_tokens=10,
                              completion_tokens=5, cost_usd=0.1, fresh_cost_usd=0.1)  # fmt: skip
            journal.write("workflow", **own, calls=len(one["operators"]), error=one["error"],
                          operators=one["operators"])  # fmt: skip
            program = journal.artifact(f"program {number}")
            journal.write(
                "round", **own, parent=one["parent"], score=one["score"], scores=[one["score"]],
                workflow_sha=journal.artifact(code), error=one["error"], code_sha=program,
                prompts_sha=journal.artifact(""),
                reply_sha=None if one["parent"] is None else journal.artifact(f"reply {number}"),
            )  # fmt: skip
            journal.write("hidden", **own, code_sha=program, verdict=one["verdict"])
        journal.write("chosen", **key, round=best + 1)
        journal.write("result", **key, verdict=(ROUND | rounds[best])["verdict"], calls=calls,
                      prompt_tokens=10 * calls, completion_tokens=5 * calls, wall_s=1.0,
                      cost_usd=0.1 * calls, fresh_cost_usd=0.1 * calls)  # fmt: skip
    journal.write("session", event="end", status="complete")
    journal.close()


def opened(results_dir: Path) -> DuckDBPyConnection:
    store = Store(results_dir)
    store.ingest()
    store.snapshot()
    return open_snapshot(results_dir)


BROKEN = {"score": 0.0, "error": f"run: NameError: {HOSTILE}", "verdict": "wrong",
          "code": f"class Workflow:\n    x = 1  # {HOSTILE}", "operators": []}  # fmt: skip
FLOW: dict[str, list[dict[str, Any]]] = {
    "HumanEval/2": [TEMPLATE, {"score": 0.75, "operators": ["custom", "test", "custom"]}],
    "HumanEval/10": [TEMPLATE, {"operators": ["custom", "test"], "score": 1.0}, BROKEN],
    "HumanEval/11": [{**TEMPLATE, "score": 1.0, "verdict": "passed"}, BROKEN],
}


def filled(folder: Path) -> None:
    run(folder, "flow", FLOW)
    draws = {name: [{**TEMPLATE, "verdict": "passed"}, {"parent": None}] for name in FLOW}
    run(folder, "draws", draws, method="best-of-n", level="L1")
    run(folder, "vanilla", {name: [TEMPLATE] for name in FLOW}, method="vanilla", level="L0")
    run(folder, "other-meta", {name: [TEMPLATE, BROKEN] for name in FLOW}, meta="hf/weak")
    run(folder, "other-worker", {name: [TEMPLATE, {}] for name in FLOW}, worker="local/strong")
    run(folder, "mbpp", {"Mbpp/1": [TEMPLATE, {"operators": ["custom"] * 4}]}, benchmark="mbpp")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DuckDBPyConnection, Path]]:
    folder = tmp_path_factory.mktemp("figures")
    filled(folder)
    with opened(folder) as connection:
        yield connection, folder


WORDS = {"cost": "best-of-n", "ablation": "Meta-agents, worker local/small",
         "rounds": "best-of-n, all hidden", "cases": "the first workflow that broke",
         "size": "humaneval (3 problems)"}  # fmt: skip
MARKS = {"cost": 8, "ablation": 10, "rounds": 12, "cases": 0, "size": 6}


@pytest.mark.parametrize("name", NAMES)
def test_each_figure_is_a_file_of_its_format_without_a_browser(
    results: tuple[DuckDBPyConnection, Path], name: str
) -> None:
    pytest.importorskip("vl_convert")
    for form in FORMATS if name == "size" else ("svg",):
        runs = ["flow"] if name in ("cases", "rounds") else None
        made = figure(*results, name, form, runs=runs)
        assert made.startswith(START[form])
        assert len(made) > 2_000
        if form == "svg":
            tree = ET.fromstring(made)
            assert not [x for x in tree.iter() if x.tag.endswith("script")]
            assert WORDS[name] in "".join(tree.itertext()).replace("\u00a0", " ")
            marks = [x for x in tree.iter() if x.tag.endswith("path") and x.get("d")]
            assert len(marks) > MARKS[name]  # of data, beside those of axes


def test_a_figure_is_the_same_each_time_but_for_numbered_ids(
    results: tuple[DuckDBPyConnection, Path],
) -> None:
    pytest.importorskip("vl_convert")
    one, other = (figure(*results, "size", "svg") for _ in range(2))
    assert re.sub(rb"clip\d+", b"", one) == re.sub(rb"clip\d+", b"", other)


def test_the_share_of_broken_workflows_leaves_the_template_out(
    results: tuple[DuckDBPyConnection, Path],
) -> None:
    shares = broken_shares(results[0], ["flow", "other-meta", "other-worker", "vanilla"])
    assert shares == {"flow": 2 / 4, "other-meta": 1.0, "other-worker": 0.0}


def test_figure_4_exchanges_one_thing_and_keeps_the_other(
    results: tuple[DuckDBPyConnection, Path],
) -> None:
    panels = ablation(results[0])
    found = {title: [(bar.name, bar.score, bar.broken) for bar in bars]
             for title, bars in panels.items()}  # fmt: skip
    assert found == {
        "Meta-agents, worker local/small: humaneval, flowreasoner":
            [("big", 1.0, 0.5), ("weak", 0.0, 1.0)],
        "Workers, meta-agent hf/big: humaneval, flowreasoner":
            [("small", 1.0, 0.5), ("strong", 1.0, 0.0)],
    }  # fmt: skip


def test_the_size_of_workflows_is_that_of_the_chosen_ones_over_problems(
    results: tuple[DuckDBPyConnection, Path],
) -> None:
    bars = {(bar.benchmark, bar.measure): bar for bar in sizes(results[0])}
    by_hand = mean_interval([3.0, 2.0, 1.0])  # operators of the chosen round of each problem
    one = bars["humaneval", "Operators"]
    assert by_hand is not None
    assert (one.value, one.low, one.high) == (by_hand[0], 0.0, by_hand[2])  # none is negative
    assert (one.problems, one.run) == (3, "flow")
    alone = bars["mbpp", "Operators"]
    assert (alone.value, alone.low, alone.problems) == (4.0, None, 1)
    said = size_chart(list(bars.values())).to_dict()["description"]
    assert "humaneval (3 problems), Operators 2; " in said


def test_cases_are_found_by_their_rules(results: tuple[DuckDBPyConnection, Path]) -> None:
    found = {case.rule: case for case in find_cases(*results, "flow")}
    places = {rule: (case.problem_id, case.round) for rule, case in found.items()}
    assert places == {
        "the largest gain in feedback over the workflow that it was made of; the smallest workflow "
        "chosen": ("HumanEval/10", 2),
        "the first problem solved by a workflow of the meta-agent that vanilla fails; the largest "
        "workflow chosen": ("HumanEval/2", 2),
        "the first workflow that broke": ("HumanEval/10", 3),
    }
    gain = next(case for rule, case in found.items() if "gain" in rule)
    assert gain.facts == ("round 2", "feedback 100.0 %", "operators 2, calls 2 a run",
                          "answer passed", "its parent, round 1, had 50.0 %")  # fmt: skip
    broke = found["the first workflow that broke"]
    assert (broke.error or "").startswith("run: NameError")
    assert find_cases(*results, "flow") == list(found.values())


def test_a_workflow_that_broke_has_a_workflow(tmp_path: Path) -> None:
    # a reply in which none is found is kept as the empty text
    empty = {**BROKEN, "code": "", "error": "design: the reply held no workflow"}
    run(tmp_path, "flow", {"HumanEval/1": [TEMPLATE, empty], "HumanEval/2": [TEMPLATE, BROKEN]})
    with opened(tmp_path) as connection:
        (broke,) = (case for case in find_cases(connection, tmp_path, "flow")
                    if case.rule.endswith("broke"))  # fmt: skip
    assert (broke.problem_id, broke.round) == ("HumanEval/2", 2)
    assert broke.code


def test_two_runs_named_on_one_benchmark_have_no_size_together(tmp_path: Path) -> None:
    run(tmp_path, "one", FLOW)
    run(tmp_path, "two", FLOW, meta="hf/weak")
    run(tmp_path, "mbpp", {"Mbpp/1": [TEMPLATE, {}]}, benchmark="mbpp")
    with opened(tmp_path) as connection:
        with pytest.raises(UsageError, match="size: one and two are both on humaneval; name one"):
            sizes(connection, ["one", "two"])
        assert {bar.run for bar in sizes(connection, ["one", "mbpp"])} == {"one", "mbpp"}


def test_a_size_is_printed_as_all_numbers_are() -> None:
    bars = [SizeBar("humaneval", "Operators", 2.25, 1.0, 3.0, 4, "flow")]
    assert "Operators 2.3" in size_chart(bars).to_dict()["description"]  # half up, not to even


def test_a_listing_keeps_every_character_and_no_control_character() -> None:
    code = "def f():\n\treturn " + "x" * 200 + " \x1b[31m\n"
    lines = listing(code)
    assert all(len(line) <= 92 for line in lines)
    assert "".join(line.strip() for line in lines).count("x") == 200 + 1  # and that of \x1b
    assert not any("\x1b" in line for line in lines)
    assert listing("a\n" * 100)[-1] == "... 21 more lines"
    assert len(listing("a\n" * 100)) == 80


def test_nothing_of_a_listing_is_read_as_markup(
    results: tuple[DuckDBPyConnection, Path],
) -> None:
    found = find_cases(*results, "flow")
    tex, text = latex(found), markdown(found)
    assert tex.count(r"\begin{verbatim}") == tex.count(r"\end{verbatim}") == 4
    assert tex.isascii()
    fences = [line for line in text.splitlines() if line.startswith("`````")]
    assert len(fences) == 4  # longer than those within, around workflow and error of the broken one
    assert "<script>" not in cases_text(*results, "html", run_id="flow")


def test_the_cases_compile(results: tuple[DuckDBPyConnection, Path], tmp_path: Path) -> None:
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex")
    body = latex(find_cases(*results, "flow"))
    document = f"\\documentclass{{article}}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (tmp_path / "cases.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "cases.tex"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stdout[-2000:]


def test_empty_results_say_what_to_run(tmp_path: Path) -> None:
    run(tmp_path, "pretended", FLOW, worker="sim/skill=1")
    with opened(tmp_path) as connection:
        for name in NAMES:
            with pytest.raises(UsageError, match="python -m harness eval --method") as error:
                figure(connection, tmp_path, name, "svg")
            assert "\n" not in str(error.value)
        with pytest.raises(UsageError, match="one of cost, ablation, rounds, cases, size"):
            figure(connection, tmp_path, "pie", "svg")
        with pytest.raises(UsageError, match="one of pdf, svg, png"):
            figure(connection, tmp_path, "cost", "gif")
        with pytest.raises(UsageError, match="nosuch: no such evaluation"):
            figure(connection, tmp_path, "rounds", "svg", runs=["nosuch"])


def test_one_meta_agent_and_one_worker_are_no_ablation(tmp_path: Path) -> None:
    run(tmp_path, "flow", FLOW)
    with opened(tmp_path) as connection:
        with pytest.raises(UsageError, match="share all but the meta-agent"):
            ablation(connection)
