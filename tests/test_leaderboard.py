"""The board says what the journals say, keeps apart what may not be compared, and runs nothing."""

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from html import unescape
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from rich.console import Console
from streamlit.util import calc_hash

from harness.aggregate import cost_per_solved
from harness.errors import StoreError, UsageError
from harness.journal import Journal
from harness.metrics import dollars, pass_at_1
from harness.show import show_run
from harness.show_rounds import round_table
from harness.show_sample import call_line
from harness.store import Store, current_snapshot, open_snapshot
from leaderboard import widgets
from leaderboard.app import SHARED
from leaderboard.costs import by_problem, cost_rows
from leaderboard.export import table
from leaderboard.outcomes import matrix, outcomes
from leaderboard.queries import (
    BoardRow,
    best_of_n,
    board,
    groups,
    matching,
    model_facts,
    reported,
    run_rounds,
)
from leaderboard.records import Texts, read_sample, some_samples
from leaderboard.running import error_kinds, runs
from leaderboard.search_rows import attempts, search_steps, searches
from leaderboard.serve import command, refresh, serve
from leaderboard.views import VIEWS, run_part
from leaderboard.views import board as board_view
from leaderboard.views.board import QUESTION
from leaderboard.widgets import AS_LINKS, Results, escaped, kept
from tests.browser import free_port
from tests.results_maker import (
    DRAWS,
    FLOW,
    HALF,
    HOSTILE,
    LABEL,
    app_text,
    drawn,
    in_rounds,
    published,
    run,
    search,
    text_of,
)

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

PATHS = [import_module(f"leaderboard.views.{name}").PATH for name in VIEWS]


def board_of(results_dir: Path) -> dict[str, BoardRow]:
    with open_snapshot(published(results_dir)) as connection:
        return {row.run_id: row for row in board(connection)}


def test_the_board_and_the_metric_agree_on_every_kind_of_run(tmp_path: Path) -> None:
    told: dict[str, dict[str, list[str]]] = {
        "single": {"a/0": ["passed"], "a/1": ["wrong"], "a/2": ["passed"]},
        "several": {"a/0": ["passed", "wrong"], "a/1": ["wrong", "wrong"], "a/2": ["passed"] * 2},
        "errored": {"a/0": ["passed"], "a/1": ["invalid"], "a/2": ["timeout"]},
        "one": {"a/0": ["passed", "wrong"]},
        "broken": {"a/0": ["invalid"]},
        "empty": {},
    }
    for name, found_of in told.items():
        run(tmp_path, name, found_of)
    rows = board_of(tmp_path)
    for name, found_of in told.items():
        expected = pass_at_1({
            problem: [None if v == "invalid" else v == "passed" for v in verdicts]
            for problem, verdicts in found_of.items()
        })  # fmt: skip
        found = rows[name].estimate
        assert (found.problems, found.samples, found.errored) == (
            expected.problems, expected.samples, expected.errored,
        )  # fmt: skip
        for part in ("value", "low", "high", "floor", "ceiling"):
            assert getattr(found, part) == pytest.approx(getattr(expected, part))


def test_sums_are_over_the_run_and_unknown_once_a_part_is(tmp_path: Path) -> None:
    outcomes = {"a/0": ["passed"], "a/1": ["wrong"]}
    run(tmp_path, "priced", outcomes)
    run(tmp_path, "free", outcomes, cost=0.0)
    journal = Journal(run(tmp_path, "unpriced", outcomes))
    journal.write("result", result_key="a/2:0", problem_id="a/2", sample=0, verdict="wrong")
    journal.close()
    rows = board_of(tmp_path)
    assert (rows["priced"].cost_usd, rows["free"].cost_usd) == (0.5, 0.0)
    assert (rows["priced"].calls, rows["priced"].tokens, rows["priced"].wall_s) == (2, 200, 6.0)
    assert rows["priced"].per_sample(rows["priced"].tokens) == 100
    unpriced = rows["unpriced"]
    assert (unpriced.cost_usd, unpriced.calls, unpriced.tokens) == (None, None, None)


def test_only_like_rows_share_a_table_and_only_complete_measured_ones_are_best(
    tmp_path: Path,
) -> None:
    full = {"a/0": ["passed"], "a/1": ["wrong"]}
    run(tmp_path, "flow", full)
    run(tmp_path, "direct", {"a/0": ["wrong"], "a/1": ["wrong"]})
    run(tmp_path, "simulated", {"a/0": ["passed"], "a/1": ["passed"]}, kind="simulated")
    run(tmp_path, "oracle", {"a/0": ["passed"], "a/1": ["passed"]}, level="oracle")
    run(tmp_path, "short", {"a/0": ["passed"]})
    run(tmp_path, "cut", {"a/0": ["passed"]}, asked=2)
    for number, other in enumerate([{"grader_version": "2"}, {"benchmark_digest": "else"},
                                    {"list": "paper"}, {"protocol": "none"},
                                    {"price_table": "new"}]):  # fmt: skip
        run(tmp_path, f"other-{number}", full, **other)
    found = groups(board_of(tmp_path).values())
    assert len(found) == 6
    (group,) = [g for g in found if len(g.rows) > 1]
    assert [row.run_id for row in group.rows[:2]] == ["flow", "direct"]
    assert group.best == {"flow"}
    notes = {row.run_id: group.note(row) for row in group.rows}
    assert notes == {"flow": "", "direct": "", "simulated": "simulated", "oracle": "oracle",
                     "short": "only 1 of 2 problems", "cut": "partial"}  # fmt: skip


def test_a_first_look_and_a_run_of_two_sandboxes_are_never_best(tmp_path: Path) -> None:
    run(tmp_path, "flow", {"a/0": ["passed"], "a/1": ["wrong"]})
    run(tmp_path, "direct", {"a/0": ["wrong"], "a/1": ["wrong"]})
    full = {"a/0": ["passed"], "a/1": ["passed"]}
    run(tmp_path, "look", full, first_look=True)
    run_dir = run(tmp_path, "mixed", full, session={"sandbox": "bubblewrap"}, asked=3)
    journal = Journal(run_dir)
    journal.write("session", event="start", problems=3, samples=3, resumed=2, sandbox="rlimits")
    journal.write("result", result_key="a/2:0", problem_id="a/2", sample=0, verdict="passed")
    journal.write("session", event="end", status="complete")
    journal.close()
    (group,) = groups(board_of(tmp_path).values())
    assert group.best == {"flow"}
    assert group.problems == 2
    notes = {row.run_id: group.note(row) for row in group.rows if group.note(row)}
    assert notes == {"look": "first look, not a score",
                     "mixed": "sandbox mixed: bubblewrap, rlimits"}  # fmt: skip
    assert "in no ranking: first look, not a score" in app_text(tmp_path, run="look").replace(
        "\\", ""
    )


def test_runs_in_two_environments_share_a_ranking_only_where_none_is_needed(tmp_path: Path) -> None:
    full = {"a/0": ["passed"], "a/1": ["wrong"]}
    for name in ("light", "full"):
        run(tmp_path, name, full, environment=name, needs_environment=True, benchmark="bcb")
        run(tmp_path, f"plain-{name}", full, environment=name)
    run(tmp_path, "own", full, custom=True, benchmark_digest="own",
        session={"left_out": {"a/2": "needs network"}})  # fmt: skip
    rows = board_of(tmp_path)
    shared = sorted(sorted(row.run_id for row in g.rows) for g in groups(rows.values()))
    assert shared == [["full"], ["light"], ["own"], ["plain-full", "plain-light"]]
    assert (rows["own"].custom, rows["own"].left_out, rows["light"].left_out) == (True, 1, None)
    text = app_text(tmp_path, run="own")
    assert "custom data" in text
    assert "1 problem left out" in text
    assert "environment light" in app_text(tmp_path).replace("\\", "")


def test_a_shorter_command_does_not_complete_a_long_run(tmp_path: Path) -> None:
    half = {f"a/{n}": ["passed"] for n in range(2)}
    run_dir = run(tmp_path, "long", half, asked=4, session={"command": "eval --limit 4"})
    for number, more in ((2, 1), (3, 2)):  # other problems, so that four are graded in the end
        journal = Journal(run_dir)
        journal.write("session", event="start", problems=1, samples=1, command="eval --problems")
        journal.write("result", result_key=f"a/{number}:0", problem_id=f"a/{number}", sample=0,
                      verdict="passed")  # fmt: skip
        journal.write("session", event="end", status="complete")
        journal.close()
        row = board_of(tmp_path)["long"]
        assert (row.estimate.samples, row.samples_asked, row.complete) == (2 + more, 4, False)
        assert (row.unranked, row.command) == ("partial", "eval --limit 4")
    journal = Journal(run_dir)
    journal.write("session", event="start", problems=4, samples=4, resumed=4)
    journal.write("session", event="end", status="complete")
    journal.close()
    row = board_of(tmp_path)["long"]
    assert (row.complete, row.status, row.unranked) == (True, "complete", None)


def test_a_call_given_up_in_flight_is_listed_and_changes_no_sum(tmp_path: Path) -> None:
    run_dir = run(tmp_path, "flow", {"a/0": ["passed"]})
    before = board_of(tmp_path)["flow"]
    journal = Journal(run_dir)
    journal.write("call", result_key="a/0:0", problem_id="a/0", sample=0, call_no=2, attempt=1,
                  round=1, role="worker", model="local/small", prompt_tokens=None,
                  completion_tokens=None, cost_usd=None, latency_s=0.5, error="given up in flight",
                  error_kind="cancelled")  # fmt: skip
    journal.close()
    after = board_of(tmp_path)["flow"]
    assert (after.tokens, after.cost_usd, after.calls) == (before.tokens, before.cost_usd, 1)
    with open_snapshot(tmp_path) as connection:
        found = read_sample(connection, "flow", "a/0", 0)
    assert call_line(found.calls[1]).endswith(
        "unknown + unknown tokens · 0.5 s · unknown · cancelled"
    )


def test_the_board_begins_with_what_the_journals_hold_now(tmp_path: Path) -> None:
    said: list[str] = []
    refresh(tmp_path, said.append)
    assert list(tmp_path.iterdir()) == []
    run(tmp_path, "early", {"a/0": ["passed"]})
    published(tmp_path)
    run(tmp_path, "late", {"a/0": ["passed"]})
    (tmp_path / "runs" / "odd").mkdir()
    (tmp_path / "runs" / "odd" / "run.json").write_text("{")
    refresh(tmp_path, said.append)
    with open_snapshot(tmp_path) as connection:
        assert {row.run_id for row in board(connection)} == {"early", "late"}
    assert len(said) == 1
    assert "odd/run.json: not readable as a run" in said[0]


def test_a_board_beside_a_writer_shows_the_snapshot_that_is_there_and_says_so(
    tmp_path: Path,
) -> None:
    run(tmp_path, "early", {"a/0": ["passed"]})
    said: list[str] = []
    with Store(tmp_path)._locked(), pytest.raises(StoreError, match="has been writing"):
        refresh(tmp_path, said.append, lock_wait_s=0.1)
    published(tmp_path)
    run(tmp_path, "late", {"a/0": ["passed"]})
    with Store(tmp_path)._locked():
        refresh(tmp_path, said.append, lock_wait_s=0.1)
    assert f"process {os.getpid()} has been writing" in said[0]
    assert "until then the board shows snapshot 1" in said[0]
    with open_snapshot(tmp_path) as connection:
        assert [row.run_id for row in board(connection)] == ["early"]


def test_a_trajectory_holds_every_step_with_its_text(tmp_path: Path) -> None:
    run_dir = run(tmp_path, "flow", {"HumanEval/10": ["passed"], "HumanEval/9": ["wrong", "wrong"]})
    with open_snapshot(published(tmp_path)) as connection:
        listed = [(one.problem_id, one.sample) for one in some_samples(connection, "flow")]
        assert listed == [("HumanEval/9", 0), ("HumanEval/9", 1), ("HumanEval/10", 0)]
        found = read_sample(connection, "flow", "HumanEval/9", 1)
        texts = Texts(tmp_path, connection, "flow")
        assert found.result is not None
        assert found.result["verdict"] == "wrong"
        assert texts.read(found.calls[0]["response_sha"]) == f"reply to HumanEval/9 {HOSTILE}"
        assert found.round_numbers() == [None, 1, 2]
        assert found.feedback[0]["errors"][0].startswith("<script>")
        assert found.notes[0]["kind"] == "ensemble"
        assert len(found.of_round(1).calls) == 1
        shutil.rmtree(run_dir)
        with pytest.raises(StoreError, match="No such file"):
            texts.read(found.calls[0]["response_sha"])


def test_a_search_is_no_row_and_its_cost_is_in_no_number_of_the_row(tmp_path: Path) -> None:
    search(tmp_path)
    rows = board_of(tmp_path)
    assert set(rows) == {"found"}
    row = rows["found"]
    assert row.search is not None
    assert (row.search.run, row.search.words) == ("fit-a", "$2.25")
    assert (row.calls, row.tokens, row.fresh_cost_usd) == (1, 100, 0.25)
    with open_snapshot(tmp_path) as connection:
        (found,) = searches(connection)
        assert (found.trials, found.passed, found.problems) == (3, 1, 1)
        assert (found.calls, found.tokens, found.fresh_cost_usd) == (3, 1500, 0.75)
        assert (found.used_by, found.status) == (("found",), "complete")
        assert [(n.number, n.parent, n.score) for n in found.nodes] == [
            (1, None, 0.5), (2, 1, 1.0), (3, 2, 0.0),
        ]  # fmt: skip
        assert found.best == found.nodes[1]
        assert search_steps(connection, "fit-a")[-1] == {"number": 3, "loss": 1 / 3}
        assert [one.label for one in attempts(connection, "fit-a")] == [
            f"round {n}, run 1" for n in (1, 2, 3)
        ]
        one = read_sample(connection, "fit-a", "a/8", 1002)
        texts = Texts(tmp_path, connection, "fit-a")
        assert texts.read(one.calls[0]["response_sha"]) == "reply 2"


@pytest.mark.parametrize(
    ("spent", "words"),
    [({"calls": 3, "tokens": 1200, "fresh_cost_usd": 0.0}, "1,200 tokens"),
     ({"calls": 3, "tokens": 1200, "fresh_cost_usd": None}, "1,200 tokens, price unknown"),
     ({"calls": 3, "tokens": None}, "3 calls, price unknown"), ({}, "unknown")],
)  # fmt: skip
def test_a_searchs_cost_is_told_in_what_is_known_of_it(
    tmp_path: Path, spent: dict[str, Any], words: str
) -> None:
    run(tmp_path, "found", {"a/0": ["passed"]}, artifact={"run": None, "spent": spent})
    search_cost = board_of(tmp_path)["found"].search
    assert search_cost is not None
    assert search_cost.words == words


def test_a_row_is_called_by_the_knobs_that_it_was_given(tmp_path: Path) -> None:
    full = {"a/0": ["passed"], "a/1": ["wrong"]}
    given = {"rounds": "4", "workflow": "shuffled"}
    run(tmp_path, "plain", full, method="flowreasoner", config={"knobs": {}})
    run(tmp_path, "other", full, method="flowreasoner", config={"knobs": given})
    long = {"match": "humaneval-flowreasoner-qwen2.5-coder-0.5b-instruct-01234567", "n": "8"}
    run(tmp_path, "draws", full, method="best-of-n", config={"knobs": long})
    run(tmp_path, "odd", full, method="vanilla", config=["knobs"])
    search(tmp_path, config={"knobs": {"rounds": 3}})
    rows = board_of(tmp_path)
    assert {name: row.named for name, row in rows.items()} == {
        "plain": "flowreasoner", "other": "flowreasoner workflow=shuffled rounds=4",
        "draws": f"best-of-n n=8 match={long['match']}", "odd": "vanilla", "found": "aflow",
    }  # fmt: skip
    with open_snapshot(tmp_path) as connection:
        assert searches(connection)[0].named == "aflow rounds=3"
        assert "| flowreasoner workflow=shuffled rounds=4 |" in table(connection, "markdown")
        assert f"match={long['match']}" in table(connection, "html")
        assert ",best-of-n n=8 match=" in table(connection, "csv")
    page = drawn(tmp_path)
    names = [name for one in page.dataframe for name in one.value.get("Method", [])]
    assert "flowreasoner workflow=shuffled rounds=4" in " ".join(names)
    assert max(map(len, names)) < 60
    assert "flowreasoner workflow=shuffled rounds=4 on humaneval" in app_text(
        tmp_path, run="other"
    ).replace("\\", "")


def test_workflows_of_single_problems_have_no_best(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "runs" / "fit-s")
    head = {"run_id": "fit-s", "stage": "fit", "method": "scoreflow", "benchmark": "humaneval"}
    (journal.run_dir / "run.json").write_text(json.dumps(head))
    for number, problem in enumerate(("a/0", "a/1")):
        journal.write("node", result_key="desk", problem_id="search", sample=0, number=number,
                      label="w", score=float(number), about=problem)  # fmt: skip
    journal.write("step", result_key="desk", problem_id="search", sample=0, number=1, pairs=3,
                  accepted=2)  # fmt: skip
    journal.close()
    with open_snapshot(published(tmp_path)) as connection:
        (found,) = searches(connection)
        assert (found.best, found.nodes[1].about) == (None, "a/1")
        (step,) = search_steps(connection, "fit-s")
    assert list(step) == ["number", "pairs", "accepted"]  # as the method has them
    page = drawn(tmp_path, run="fit-s")
    assert "Workflows of single problems" in [one.value for one in page.subheader]
    assert "Best" not in [one.label for one in page.metric]
    assert [list(one.value.columns) for one in page.table] == [["number", "pairs", "accepted"]]
    assert not page.button_group  # one point is no line, and has nothing to choose


def test_a_run_without_a_verdict_shows_its_rounds(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "runs" / "cut")
    (journal.run_dir / "run.json").write_text('{"run_id": "cut", "method": "flow"}')
    journal.write("round", result_key="k", problem_id="a/0", sample=0, round=1, score=0.5,
                  about="a/7")  # fmt: skip
    journal.close()
    page = drawn(published(tmp_path), run="cut")
    assert [one.value for one in page.subheader] == ["Rounds"]
    assert "of other problems" in page.caption[-1].value
    assert "No sample of this run has been graded" in page.info[-1].value


def test_the_page_of_a_search_and_of_an_attempt_stand(tmp_path: Path) -> None:
    search(tmp_path)
    published(tmp_path)
    text = app_text(tmp_path, run="fit-a").replace("\\", "")
    assert "Search of aflow on humaneval" in text
    assert "list search" in text
    assert "round 2, run 1: passed" in app_text(tmp_path, run="fit-a", sample="a/8:1002")
    assert "was not graded" in app_text(tmp_path, run="fit-a", sample="search:0")
    assert "search before it: $2.25" in app_text(tmp_path, run="found").replace("\\", "")


def test_a_board_of_searches_alone_lists_them(tmp_path: Path) -> None:
    search(tmp_path)
    shutil.rmtree(tmp_path / "runs" / "found")
    published(tmp_path)
    assert "The database holds no run yet" in app_text(tmp_path)


def test_the_board_and_show_tell_the_same_rounds(tmp_path: Path) -> None:
    in_rounds(tmp_path, "flow", FLOW)
    in_rounds(tmp_path, "short", {n: r[:1] for n, r in DRAWS.items()}, method="best-of-n")
    in_rounds(tmp_path, "draws", DRAWS, method="best-of-n")
    in_rounds(tmp_path, "fewer", {"a/0": DRAWS["a/0"] * 3}, method="best-of-n")
    in_rounds(tmp_path, "other", DRAWS, method="best-of-n", protocol="split")
    rows = board_of(tmp_path)
    with open_snapshot(tmp_path) as connection:
        found = run_rounds(connection, "flow")
        rival = best_of_n(connection, rows["flow"])
        assert best_of_n(connection, rows["draws"]) is None
    assert [(one.passes, one.hidden, one.gap, one.calls) for one in found] == [
        (0.5, 0.5, 0.0, 1), (1.0, 0.5, 0.5, 2),
    ]  # fmt: skip
    assert rival is not None
    assert rival[0].run_id == "draws"
    assert [one.hidden for one in rival[1]] == [0.0, 1.0, 1.0]
    printed = io.StringIO()
    show_run(tmp_path, "flow", Console(file=printed, width=160))
    told = [" ".join(line.split()) for line in printed.getvalue().splitlines()]
    names, cells = round_table(found, rival[1])
    for line in cells:
        assert " ".join(line) in told
    assert names[:4] == ["round", "all hidden", "gap", "best-of-n, equal calls"]
    assert cells[-1][:4] == ["2", "50.0 %", "+50.0", "100.0 % at 2"]


def test_the_board_counts_tokens_and_dollars_as_show_does(tmp_path: Path) -> None:
    for run_id, method, usd in (("flow", "flow", 0.5), ("draws", "best-of-n", 0.25)):
        journal = Journal(run(tmp_path, run_id, {"a/0": ["passed"]}, method=method, cost=usd))
        key = {"result_key": "a/0:0", "problem_id": "a/0", "sample": 0}
        for number in (1, 2, 3):
            code = journal.artifact(f"program {number}")
            journal.write("call", **key, call_no=9, round=number, role="worker", prompt_tokens=1,
                          completion_tokens=2, cost_usd=0.0, fresh_cost_usd=usd)  # fmt: skip
            journal.write("round", **key, round=number, score=1.0, scores=[1.0], code_sha=code)
            journal.write("hidden", **key, round=number, code_sha=code, verdict="passed")
        journal.close()
    rows = board_of(tmp_path)
    with open_snapshot(tmp_path) as connection:
        found = run_rounds(connection, "flow")
        rival = best_of_n(connection, rows["flow"])
    assert rival is not None
    assert [(one.calls, one.tokens, one.usd) for one in found] == [
        (2, 103, 1.0), (3, 106, 1.5), (4, 109, 2.0),
    ]  # fmt: skip
    names, cells = round_table(found, rival[1])
    assert names[3:5] == ["best-of-n, equal calls", "best-of-n, equal dollars"]
    assert [line[3:5] for line in cells] == [
        ["100.0 % at 2", "100.0 % at $1.00"], ["100.0 % at 3", "100.0 % at $1.00"],
        ["100.0 % at 4", "100.0 % at $1.00"],
    ]  # fmt: skip
    printed = io.StringIO()
    show_run(tmp_path, "flow", Console(file=printed, width=200))
    told = [" ".join(line.split()) for line in printed.getvalue().splitlines()]
    assert all(" ".join(line) in told for line in cells)
    (switch,) = drawn(tmp_path, run="flow").segmented_control
    assert (switch.options, switch.value) == (["Calls", "Dollars"], "Calls")


def test_an_oracle_row_is_never_ranked_best_or_bold(tmp_path: Path) -> None:
    run(tmp_path, "flow", {"a/0": ["passed"], "a/1": ["wrong"]})
    run(tmp_path, "other", {"a/0": ["wrong"], "a/1": ["wrong"]})
    in_rounds(tmp_path, "oracle", {"a/0": [(1.0, "passed")], "a/1": [(1.0, "passed")]},
              level="oracle")  # fmt: skip
    (group,) = groups(board_of(tmp_path).values())
    assert group.best == {"flow"}
    assert group.rows[-1].run_id == "oracle"
    assert group.note(group.rows[-1]) == "oracle"
    with open_snapshot(tmp_path) as connection:
        lines = table(connection, "markdown").splitlines()
    assert any("(oracle) | 100.0 |" in line for line in lines)
    assert any("**50.0**" in line for line in lines)


def test_a_page_tells_the_fresh_price_what_was_paid_and_what_is_left(tmp_path: Path) -> None:
    run_dir = run(tmp_path, "cut", {"a/0": ["passed"]}, asked=4, cost=0.5)
    journal = Journal(run_dir)
    journal.write("session", event="start", problems=4, samples=4, resumed=1)
    journal.write("result", result_key="a/1:0", problem_id="a/1", sample=0, verdict="wrong",
                  calls=3, cached_calls=2, cost_usd=0.1, fresh_cost_usd=0.7, wall_s=1.0,
                  prompt_tokens=1, completion_tokens=1)  # fmt: skip
    journal.write("session", event="end", status="interrupted")
    journal.close()
    row = board_of(tmp_path)["cut"]
    assert (row.fresh_cost_usd, row.cost_usd, row.cached_calls) == (1.2, 0.6, 2)
    assert (row.status, row.samples_left) == ("interrupted", 2)
    text = app_text(tmp_path, run="cut").replace("\\", "")
    assert "paid $0.600 of $1.20: 2 of 4 calls came from the cache" in text
    assert "status interrupted, 2 left" in text
    assert f"python -m harness resume cut --out {tmp_path}" in text


def test_a_board_of_simulated_runs_alone_offers_no_table(tmp_path: Path) -> None:
    run(tmp_path, "sim", {"a/0": ["passed"]}, roles={"worker": {"model": "sim/skill=1"}})
    page = drawn(published(tmp_path))
    assert "1 of 1 run shown; snapshot 1 of" in text_of(page)
    assert not page.get("download_button")
    (row,) = board_of(tmp_path).values()
    assert row.unranked == "simulated"


def test_an_empty_page_says_which_command_makes_the_first_row(tmp_path: Path) -> None:
    text = app_text(tmp_path)
    assert "no result yet" in text
    assert "python -m harness eval --method flowreasoner\n" in text


def test_an_address_that_names_nothing_is_answered_in_words(tmp_path: Path) -> None:
    run(tmp_path, "flow", {"HumanEval/0": ["passed"]})
    search(tmp_path)
    published(tmp_path)
    assert "names a run that is not in the results" in app_text(tmp_path, run="nothing")
    assert "names an attempt that is not in" in app_text(tmp_path, run="fit-a", sample="a/8:77")
    assert "no such sample" in app_text(tmp_path, run="flow", sample="HumanEval/7:0")
    assert "names a run that is not in the results" in app_text(tmp_path, "runs", run="nothing")


def test_a_snapshot_that_cannot_be_read_is_said_and_the_page_still_stands(tmp_path: Path) -> None:
    run(tmp_path, "flow", {"HumanEval/0": ["passed"]})
    published(tmp_path)
    (tmp_path / "board-1.duckdb").write_bytes(b"no database")
    for view in PATHS:
        text = app_text(tmp_path, view)
        assert "The results cannot be read" in text
        assert "python -m harness rebuild" in text


def test_a_board_of_no_folder_is_refused_and_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no results under .*resluts"):
        serve(tmp_path / "resluts", port=free_port(), open_browser=False)
    assert not (tmp_path / "resluts").exists()


def test_an_address_that_cannot_be_listened_on_is_one_line(tmp_path: Path) -> None:
    for port in (-1, 0, 65536):
        with pytest.raises(UsageError, match=f"--port {port}: expected a number from 1 to 65535"):
            serve(tmp_path, port=port)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError) as caught:
            serve(tmp_path, port=port)
    assert str(caught.value) == (
        f"127.0.0.1:{port} is taken or cannot be listened on: Address already in use; "
        "try --port 8502"
    )
    for host in ("203.0.113.1", "a..b"):  # the first is nobody's
        with pytest.raises(UsageError, match=f"{host}:{port} is taken or cannot be") as caught:
            serve(tmp_path, host=host, port=port)
        assert "\n" not in str(caught.value)


def board_table(page: "AppTest", number: int = 0) -> dict[str, dict[str, Any]]:
    """The rows of a table of the board, by run and by column."""
    return {row["Run"]: row for row in page.dataframe[number].value.to_dict("records")}


def shown_runs(results_dir: Path, **query: str | list[str]) -> set[str]:
    """The runs that the board shows in all its tables."""
    page = drawn(results_dir, "", **query)
    return {run_id for one in page.dataframe for run_id in one.value["Run"]}


MANY = {f"a/{n}": ["passed" if n < 20 else "wrong"] for n in range(30)}  # 20 of 30
FEW = {f"a/{n}": ["passed" if n < 4 else "wrong"] for n in range(30)}  # 4 of these 20


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board of several methods, workers, levels and benchmarks; nobody writes it."""
    folder = tmp_path_factory.mktemp("mixed")

    def roles(worker: str) -> dict[str, Any]:
        return {"worker": {"model": worker}}

    qwen, gpt = "vllm/Qwen2.5-Coder-7B-Instruct", "openai/gpt-4o-mini"
    run(folder, "flow-qwen", MANY, method="flow", level="L3", calls=11, roles=roles(qwen))
    run(folder, "flow-gpt", MANY, method="flow", level="L3", calls=10, cost=0.5, roles=roles(gpt))
    run(folder, "direct-gpt", FEW, method="direct", level="L0", roles=roles(gpt))
    run(folder, "cut-gpt", {"a/0": ["passed"]}, method="cut", asked=30, roles=roles(gpt))
    run(folder, "mbpp-sim", {"b/0": ["passed"]}, benchmark="mbpp", method=LABEL,
        roles=roles("sim/skill=1"))  # fmt: skip
    run(folder, "taken", {"a/0": ["passed"]}, method="direct", kind="imported",
        benchmark_digest="else", roles=roles("local/qwen2.5-coder-0.5b-instruct"),
        origin={"format": "evalplus", "file": "x_eval_results.json", "tool": "evalplus 0.3.1",
                "sha256": "00", "imported_at": 1762000000.0})  # fmt: skip
    return published(folder)


ALL = {"flow-qwen", "flow-gpt", "direct-gpt", "cut-gpt", "mbpp-sim", "taken"}


@pytest.mark.parametrize(
    ("query", "runs_shown"),
    [({}, ALL), ({"benchmark": "mbpp"}, {"mbpp-sim"}),
     ({"method": ["flow", "cut"]}, {"flow-qwen", "flow-gpt", "cut-gpt"}),
     ({"method": "flow", "worker": "openai/gpt-4o-mini"}, {"flow-gpt"}),
     ({"level": "L0"}, {"direct-gpt"}), ({"weights": "open"}, {"flow-qwen", "taken"}),
     ({"weights": "closed"}, {"flow-gpt", "direct-gpt", "cut-gpt"}),
     ({"weights": "not told"}, {"mbpp-sim"}), ({"size": "to 1B"}, {"taken"}),
     ({"size": ["to 1B", "4B to 15B"]}, {"taken", "flow-qwen"}),
     ({"complete": "true"}, {"flow-qwen", "flow-gpt", "direct-gpt"}),
     ({"search": "GPT dire"}, {"direct-gpt"}), ({"search": "qwen nobody"}, set()),
     ({"method": "of another board"}, ALL)],
)  # fmt: skip
def test_an_address_holds_the_filters(
    mixed: Path, query: dict[str, Any], runs_shown: set[str]
) -> None:
    page = drawn(mixed, **query)
    found = {run_id for one in page.dataframe for run_id in one.value["Run"]}
    assert found == runs_shown
    assert ("No run matches these filters" in text_of(page)) == (not runs_shown)
    assert f"{len(runs_shown)} of 6 runs shown" in text_of(page)


def test_filters_that_are_chosen_hold_together(mixed: Path) -> None:
    page = drawn(mixed)
    page.multiselect(key="method").set_value(["flow"])
    page.toggle(key="complete").set_value(True)
    page.text_input(key="search").set_value("gpt").run()
    assert list(board_table(page)) == ["flow-gpt"]


def test_ranks_are_ties_of_the_whole_ranking_whatever_is_shown(mixed: Path) -> None:
    rows = board_table(drawn(mixed))
    assert {name: row["Rank"] for name, row in rows.items()} == {
        "flow-qwen": "1–2", "flow-gpt": "1–2", "direct-gpt": "3", "cut-gpt": "–",
    }  # fmt: skip
    assert board_table(drawn(mixed, method="direct"))["direct-gpt"]["Rank"] == "3"
    equal = drawn(mixed, rank="Equal level")
    assert board_table(equal, 1)["cut-gpt"]["Level"] == "L2"
    heads = [one.value for one in equal.subheader if one.value.startswith("humaneval")]
    assert [head.replace("\\", "").rpartition(", ")[2] for head in heads] == [
        "level L0", "level L2", "level L3", "level L2",  # the last one on other data
    ]  # fmt: skip
    assert {row["Rank"] for row in board_table(equal, 2).values()} == {"1–2"}


def test_ranks_are_made_anew_only_where_outcomes_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def counted(connection: Any, ids: list[str]) -> Any:
        asked.append(sorted(ids))
        return outcomes(connection, ids)

    monkeypatch.setattr(board_view, "outcomes", counted)
    for name, verdicts in (("one", ["passed"] * 9), ("two", ["wrong"] * 9)):
        run(tmp_path, f"re-{name}", {f"a/{n}": [v] for n, v in enumerate(verdicts)}, method=name)
    drawn(published(tmp_path))
    assert asked == [["re-one", "re-two"]]
    run(tmp_path, "re-other", {"a/0": ["passed"]}, benchmark="mbpp")
    assert board_table(drawn(published(tmp_path)))["re-two"]["Rank"] == "2"
    assert len(asked) == 1  # of another snapshot, in which these two are what they were
    journal = Journal(tmp_path / "runs" / "re-two")
    for n in range(9):
        journal.write("result", result_key=f"a/{n}:0", problem_id=f"a/{n}", sample=0,
                      verdict="passed", calls=1)  # fmt: skip
    journal.write("session", event="start", problems=9, samples=9, resumed=0)
    journal.write("session", event="end", status="complete")
    journal.close()
    assert board_table(drawn(published(tmp_path)))["re-two"]["Rank"] == "1–2"
    assert len(asked) == 2


def test_rows_at_equal_calls_lie_within_a_tenth_of_the_least(tmp_path: Path) -> None:
    for name, calls, cost in (("a", 10, 0.5), ("b", 11, 0.25), ("c", 12, 0.5), ("d", None, None)):
        run(tmp_path, name, MANY, calls=calls, cost=cost)
    rows = board_of(tmp_path).values()
    found = groups(rows, "calls")
    assert [(g.equal, {row.run_id for row in g.rows}) for g in found] == [
        ("10 to 11 calls a sample", {"a", "b"}), ("12 calls a sample", {"c"}),
        ("calls unknown", {"d"}),
    ]  # fmt: skip
    assert [g.best for g in found] == [{"a", "b"}, set(), set()]
    found = groups(rows, "dollars")
    assert [(g.equal, {row.run_id for row in g.rows}) for g in found] == [
        ("$0.250 a sample", {"b"}), ("$0.500 a sample", {"a", "c"}), ("dollars unknown", {"d"}),
    ]  # fmt: skip
    assert [len(g.rows) for g in groups(rows)] == [4]


def test_a_row_that_is_never_ranked_moves_no_window_of_those_that_are(tmp_path: Path) -> None:
    for name, calls in (("a", 100), ("b", 110), ("c", 120)):
        run(tmp_path, name, MANY, calls=calls)
    alone = groups(board_of(tmp_path).values(), "calls")
    run(tmp_path, "under", MANY, calls=95, asked=40)  # of which 100 is within a tenth
    run(tmp_path, "within", MANY, calls=105, asked=40)
    run(tmp_path, "few", {"a/0": ["passed"]}, calls=90)  # complete, of fewer problems
    found = groups(board_of(tmp_path).values(), "calls")
    assert [(g.equal, {row.run_id for row in g.rows}) for g in found] == [
        ("90 to 95 calls a sample", {"few", "under"}),
        ("100 to 110 calls a sample", {"a", "b", "within"}), ("120 calls a sample", {"c"}),
    ]  # fmt: skip
    ranked = [[row.run_id for row in g.ranked] for g in found[1:]]
    assert ranked == [[row.run_id for row in g.ranked] for g in alone] == [["a", "b"], ["c"]]


def test_a_row_says_what_a_solved_problem_costs_and_where_it_comes_from(mixed: Path) -> None:
    page = drawn(mixed)
    rows = board_table(page)
    assert rows["flow-gpt"]["$ a solved"] == 0.75  # 30 x $0.50 for 20
    assert rows["flow-gpt"]["Dollars"] == 15.0
    assert rows["flow-gpt"]["Method"] == "★ flow"
    assert list(page.dataframe[0].value)[:4] == ["Method", "pass@1", "95% interval", "Rank"]
    assert rows["flow-gpt"]["Origin"] == "measured here"
    taken = board_table(page, 1)["taken"]
    assert taken["Origin"] == "imported: evalplus 0.3.1 from x_eval_results.json"
    assert (taken["Rank"], taken["Method"], taken["Note"]) == ("–", "direct", "imported")
    assert rows["cut-gpt"]["Note"] == "partial"
    (row,) = (row for name, row in board_of(mixed).items() if name == "flow-gpt")
    expected = cost_per_solved([0.5] * 30, [1.0] * 20 + [0.0] * 10)
    assert expected is not None
    assert row.cost_per_solved == pytest.approx(expected.value)


def test_several_samples_of_a_problem_count_as_one_in_what_a_solved_one_costs(
    tmp_path: Path,
) -> None:
    run(tmp_path, "two", {"a/0": ["passed", "wrong"], "a/1": ["wrong", "wrong"]}, cost=0.25)
    run(tmp_path, "none", {"a/0": ["wrong"]})
    broken = {"a/0": ["passed"] * 2, "a/1": ["invalid"] * 2, "a/2": ["passed", "wrong"]}
    run(tmp_path, "broken", broken, cost=0.5)
    rows = board_of(tmp_path)
    assert rows["two"].cost_per_solved == 1.0  # $0.25 and $0.25 a sample, for half a problem
    assert rows["none"].cost_per_solved is None
    assert rows["broken"].cost_per_solved == 1.0  # $0.50 a sample of three, for one and a half
    with open_snapshot(tmp_path) as connection:
        problems = by_problem(connection, list(rows), "usd")
        shown = {one.row.run_id: one.solved for group in groups(rows.values())
                 for one in cost_rows(group, problems, "usd")}  # fmt: skip
    pure = {"two": cost_per_solved([0.25] * 2, [0.5, 0.0]),
            "none": cost_per_solved([0.25], [0.0]),
            "broken": cost_per_solved([0.5] * 3, [1.0, 0.0, 0.5])}  # fmt: skip
    assert shown == pure
    assert {name: found and found.value for name, found in pure.items()} == {
        name: row.cost_per_solved for name, row in rows.items()
    }


def test_an_address_holds_the_order_in_which_what_is_not_known_stands_last(mixed: Path) -> None:
    orders = {
        "rank": ["flow-gpt", "flow-qwen", "direct-gpt", "cut-gpt"],
        "dollars": ["cut-gpt", "flow-qwen", "direct-gpt", "flow-gpt"],
        "calls": ["direct-gpt", "cut-gpt", "flow-gpt", "flow-qwen"],
    }
    for sort, expected in orders.items():
        page = drawn(mixed, sort=sort)
        assert list(board_table(page)) == expected
        assert board_table(page)["direct-gpt"]["Rank"] == "3"


def test_what_papers_report_stands_in_a_section_of_its_own(mixed: Path) -> None:
    with open_snapshot(mixed) as connection:
        told = reported(connection)
    assert {row.benchmark for row in told} >= {"HumanEval", "MBPP", "BigCodeBench"}
    plain_page, page = drawn(mixed), drawn(mixed, reported="true")
    assert not plain_page.table
    assert "Reported by papers" not in text_of(plain_page)
    assert "in no ranking" in text_of(page)
    assert [len(one.value) for one in page.dataframe] == [
        len(one.value) for one in plain_page.dataframe
    ]
    assert {name for one in page.table for name in one.value["Benchmark"]} == {
        "HumanEval", "MBPP",  # of which something is shown
    }  # fmt: skip
    assert "Source: FlowReasoner, arXiv:2504.15257" in text_of(page)
    noted = {number for one in page.table for number in one.value["Note"]} - {""}
    assert noted
    assert all(f"{number}: " in text_of(page).partition("Notes. ")[2] for number in noted)
    only = drawn(mixed, reported="true", benchmark="mbpp").table
    assert {name for one in only for name in one.value["Benchmark"]} == {"MBPP"}


def test_the_board_is_a_plain_table_too_and_text_in_it_is_text(mixed: Path) -> None:
    (body,) = [one.proto.body for one in drawn(mixed).get("html") if "<table" in one.proto.body]
    assert body.count("<caption>") == body.count("<table>") == 3
    assert '<th scope="col">pass@1</th>' in body
    assert (
        '<th scope="row"><a href="trajectory?run=flow-gpt" target="_self">★ flow</a></th>' in body
    )
    assert "<script" not in body
    assert "&lt;/text&gt;&lt;script&gt;" in body
    assert body.count('<th scope="row">') == len(ALL)
    assert "66.7" in body


@pytest.mark.parametrize(
    ("said", "shown"),
    [("see http://a.b", "see http\\:\u2060//a\\.b"), ("www.a.b", "www\u2060\\.a\\.b"),
     ("me@a.b", "me@\u2060a\\.b"),
     ("me@-a.b", "me@\u2060\\-a\\.b"), (":material/home:", "\\:\u2060material/home\\:"),
     ("&lt;", "\\&lt;"), ("a -> b", "a \\-\u2060\\> b"), ("a-b", "a\\-b"), ("12:30", "12\\:30")],
)  # fmt: skip
def test_a_label_says_what_it_is_given_and_becomes_nothing_else(said: str, shown: str) -> None:
    assert escaped(said) == shown


def test_an_address_of_before_leads_on_once_and_going_back_comes_back(mixed: Path) -> None:
    page = drawn(mixed, run="flow-gpt", sample="a/1:0")
    assert page.query_params == {"run": "flow-gpt", "sample": "a/1:0"}
    assert "a/1" in text_of(page)
    page._page_hash = calc_hash("")  # back: the session has seen the board
    page.run()
    assert QUESTION in text_of(page)
    assert page.query_params == {}


def test_every_page_says_what_to_do_where_there_is_nothing(tmp_path: Path) -> None:
    for view in PATHS:
        assert "python -m harness eval" in app_text(tmp_path, view)
    (tmp_path / "runs").mkdir()
    published(tmp_path)
    for view in ("", "problems", "runs"):
        assert "python -m harness eval" in app_text(tmp_path, view)


def test_a_board_behind_its_journals_says_so(tmp_path: Path) -> None:
    run_dir = run(tmp_path, "flow", {"a/0": ["passed"]})
    published(tmp_path)
    assert "journals hold records of" not in app_text(tmp_path)
    later = (tmp_path / "board-1.duckdb").stat().st_mtime + 3600
    os.utime(run_dir / "0001.jsonl", (later, later))
    moved = tmp_path.rename(tmp_path.with_name("moved"))  # what was looked up is kept for 10 s
    for view in ("", "runs"):
        text = app_text(moved, view)
        assert "journals hold records of" in text
        assert f"python -m harness rebuild --out {moved}" in text


def test_the_board_and_the_matrix_ask_no_table_of_samples(tmp_path: Path) -> None:
    search(tmp_path)
    in_rounds(tmp_path, "flow", FLOW)
    published(tmp_path)
    with open_snapshot(tmp_path) as connection:
        before = [board(connection), runs(connection), matrix(connection, ["flow", "found"]),
                  outcomes(connection, ["flow"]), reported(connection)]  # fmt: skip
    with duckdb.connect(str(tmp_path / "board-1.duckdb")) as connection:
        for name in ("results", "calls", "rounds", "trials", "notes", "hidden", "verdicts"):
            connection.execute(f"DROP TABLE {name}")
    with duckdb.connect(str(tmp_path / "board-1.duckdb"), read_only=True) as connection:
        assert before == [board(connection), runs(connection),
                          matrix(connection, ["flow", "found"]), outcomes(connection, ["flow"]),
                          reported(connection)]  # fmt: skip


def test_the_rounds_of_a_run_are_asked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counted(connection: Any, run_id: str) -> Any:
        asked.append(run_id)
        return run_rounds(connection, run_id)

    monkeypatch.setattr(run_part, "run_rounds", counted)
    in_rounds(tmp_path, "flow", FLOW)
    published(tmp_path)
    for _ in range(2):
        page = drawn(tmp_path, "trajectory", run="flow")
        assert "Rounds" in [one.value for one in page.subheader]
    assert asked == ["flow"]


def test_what_is_found_in_a_snapshot_is_found_once(tmp_path: Path) -> None:
    run(tmp_path, "flow", {"a/0": ["passed"]})
    published(tmp_path)
    asked: list[int] = []

    def ask(seq: int) -> int:
        asked.append(seq)
        return seq

    with open_snapshot(tmp_path) as connection:
        for seq in (1, 1, 2, 1):
            results = Results(tmp_path, connection, seq)
            assert kept(results, ("key", "a"), partial(ask, seq)) == seq
    assert asked == [1, 2]


@pytest.mark.parametrize(
    ("name", "facts"),
    [("openai/gpt-4o-mini", (False, None)), ("anthropic/claude-sonnet-4-5", (False, None)),
     ("vllm/Qwen/Qwen2.5-Coder-7B-Instruct", (True, 7.0)), ("openai/gpt-oss-20b", (True, 20.0)),
     ("local/qwen2.5-coder-0.5b-instruct-q8", (True, 0.5)), ("hf/SmolLM2-135M", (True, 0.135)),
     ("openai/my-own-model", (None, None)), ("vllm/qwen3-30b-a3b", (True, 30.0)),
     ("vllm/mixtral-8x7b", (True, None)), ("sim/skill=7b", (None, None)),
     ("openai/o3-mini", (False, None)), ("openai/olmo-2-32b", (True, 32.0)),
     ("unknown", (None, None))],
)  # fmt: skip
def test_a_models_name_says_its_size_and_whether_it_is_open_or_nothing(
    name: str, facts: tuple[bool | None, float | None]
) -> None:
    assert model_facts(name) == facts


def test_every_word_of_a_search_must_match(mixed: Path) -> None:
    rows = list(board_of(mixed).values())
    assert {row.run_id for row in matching(rows, "")} == ALL
    assert {row.run_id for row in matching(rows, "  QWEN2.5 imported ")} == {"taken"}


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Path]:
    """A run that goes on, beside one that has ended with errors."""
    ended = Journal(run(tmp_path, "ended", {"a/0": ["invalid"], "a/1": ["timeout"]},
                        host={"cpu": HALF}))  # fmt: skip
    ended.write("call", result_key="a/0:0", problem_id="a/0", sample=0, call_no=2, attempt=1,
                error="429", error_kind="rate_limit")  # fmt: skip
    ended.close()
    journal = Journal(run(tmp_path, "live", {"a/0": ["passed"]}, cost=0.5, asked=4,
                          host={"cpu": HOSTILE.replace(HALF, ""), "cores": 2}))  # fmt: skip
    versions = {"python": "3.11.7"}
    journal.write("session", event="start", problems=4, samples=4, resumed=1, sandbox="bubblewrap",
                  versions=versions, config={"budget_usd": 2.0, "budget_tokens": None})  # fmt: skip
    journal.write("result", result_key="a/1:0", problem_id="a/1", sample=0, verdict="wrong",
                  calls=1, cost_usd=0.25, fresh_cost_usd=0.25, wall_s=1.0, prompt_tokens=1,
                  completion_tokens=1)  # fmt: skip
    yield published(tmp_path)
    journal.close()


def test_a_run_that_goes_on_says_how_far_it_is_and_how_long_still(live: Path) -> None:
    with open_snapshot(live) as connection:
        found = {one.run_id: one for one in runs(connection)}
    one = found["live"]
    assert (one.live, one.share, one.budget) == (True, 0.5, {"budget_usd": 2.0})
    assert one.read_at is not None
    half = replace(one, session_at=one.read_at - 30)  # one verdict in 30 s, two left
    assert (half.rate, half.rest_s) == (2.0, 60.0)
    assert replace(one, graded=1).rate is None
    assert found["ended"].rate is None
    page = drawn(live, "runs")
    (line,) = [one.proto.text for one in page.get("progress")]
    told = line.replace("\\", "")
    assert told.startswith("2 of 4 graded · ")
    assert "$0.750 of $2.00 spent" in told
    rows = {row["Id"]: row for row in page.dataframe[0].value.to_dict("records")}
    assert (rows["live"]["Status"], rows["live"]["Graded"]) == ("running", 0.5)
    assert (rows["ended"]["Status"], rows["ended"]["Errored"]) == ("ended, with samples left", 1)
    assert rows["live"]["Sandbox"] == "bubblewrap"


def test_a_run_says_what_went_wrong_in_it_and_what_it_was_made_in(live: Path) -> None:
    with open_snapshot(live) as connection:
        assert error_kinds(connection, "ended") == [
            ("call", "rate_limit", 1), ("sample", "unknown", 1), ("verdict", "timeout", 1),
        ]  # fmt: skip
    page = drawn(live, "runs", run="live")
    assert "python 3.11.7" in text_of(page)
    assert "cpu <script>document.title='owned'</script>" in text_of(page)
    assert "\x1b" not in text_of(page)
    assert list(page.table[0].value["How often"]) == ["1"]
    assert "resume live" not in text_of(page)  # it goes on
    assert "python -m harness resume ended" in app_text(live, "runs", run="ended")


def test_a_filter_of_runs_is_in_the_address(live: Path) -> None:
    for query, expected in (({"status": "running"}, ["live"]), ({"search": "nobody"}, []),
                            ({"search": "ended flow"}, ["ended"])):  # fmt: skip
        page = drawn(live, "runs", **query)
        assert [one for table in page.dataframe for one in table.value["Id"]] == expected


def test_problems_and_systems_are_a_table_with_a_mark_for_each_pair(tmp_path: Path) -> None:
    run(tmp_path, "one", {"a/0": ["passed"], "a/1": ["wrong"], "a/2": ["invalid"]}, method="one")
    run(tmp_path, "two", {"a/0": ["passed", "wrong"], "a/1": ["wrong", "wrong"],
                          "a/10": ["passed", "passed"]}, method="two", n_samples=2)  # fmt: skip
    run(tmp_path, "again", {"a/0": ["passed"], "a/1": ["passed"]}, method="one")
    run(tmp_path, "else", {"a/0": ["passed"]}, benchmark_digest="else")
    run(tmp_path, "prices", {"a/0": ["wrong"]}, price_table="other", method="last")
    run(tmp_path, "mbpp", {"b/0": ["passed"]}, benchmark="mbpp")
    published(tmp_path)
    page = drawn(tmp_path, "problems")
    assert page.selectbox(key="benchmark").options == ["humaneval", "mbpp"]
    table_shown = page.dataframe[-1].value
    assert list(table_shown.columns) == [
        "Problem", "Solved", "Contested", "one", "one #2", "two", "last",
    ]  # fmt: skip
    told = table_shown.astype(object).fillna("").itertuples(index=False)
    assert [tuple(row) for row in told] == [
        ("a/0", 62.5, 68.8, "●", "●", "1/2", "○"), ("a/1", 33.3, 88.9, "●", "○", "0/2", ""),
        ("a/2", "", "", "", "?", "", ""), ("a/10", 100.0, 0.0, "", "", "2/2", ""),
    ]  # fmt: skip
    assert list(page.dataframe[0].value["Problem"]) == ["a/1", "a/0", "a/10"]  # the hardest
    assert list(page.dataframe[1].value["Problem"]) == ["a/1", "a/0"]  # the most contested
    first = drawn(tmp_path, "problems", order="hardest first", search="1").dataframe[0].value
    assert list(first["Problem"]) == ["a/1", "a/10"]


def test_runs_on_other_data_are_in_a_table_of_their_own(tmp_path: Path) -> None:
    run(tmp_path, "one", {"a/0": ["passed"]})
    run(tmp_path, "two", {"a/0": ["wrong"]}, method="two")
    run(tmp_path, "else", {"a/0": ["passed"]}, benchmark_digest="else")
    published(tmp_path)
    page = drawn(tmp_path, "problems")
    names = page.selectbox(key="data").options
    assert names == ["list full, protocol public", "list full, protocol public, data else"]
    assert page.dataframe[-1].value.shape == (1, 5)
    other = drawn(tmp_path, "problems", data=names[1])
    assert other.dataframe[-1].value.shape == (1, 4)


def test_a_search_for_problems_that_finds_none_says_so(mixed: Path) -> None:
    assert "No problem matches this search" in app_text(mixed, "problems", search="zzz")


def test_an_exact_id_finds_that_problem_alone_and_a_click_searches_for_it(tmp_path: Path) -> None:
    run(tmp_path, "one", {f"HumanEval/{n}": ["passed"] for n in (1, 10, 11)})
    published(tmp_path)
    for said, found in (("humaneval/1", ["HumanEval/1"]), ("/1", [1, 10, 11]), ("eval 10", [10])):
        page = drawn(tmp_path, "problems", search=said)
        names = [one if isinstance(one, str) else f"HumanEval/{one}" for one in found]
        assert list(page.dataframe[-1].value["Problem"]) == names
    page = drawn(tmp_path, "problems")
    (hardest,) = links_of(page)[:1]
    assert hardest[0][0].endswith("search=HumanEval%2F1")
    assert hardest[0][1] == "HumanEval/1, Solved 100, 1 of 1"
    assert links_of(page)[1][0] == ("trajectory?run=one&sample=HumanEval%2F1%3A0",
                                    "HumanEval/1, flow: ●")  # fmt: skip


def links_of(page: "AppTest") -> list[list[tuple[str, str]]]:
    """(address, words) of the plain links beside each table of a page."""
    bodies = [one.proto.body for one in page.get("html") if AS_LINKS in one.proto.body]
    return [
        [(unescape(to), unescape(words))
         for to, words in re.findall(r'<a href="([^"]*)" target="_self">([^<]*)</a>', body)]
        for body in bodies
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("view", "query", "first"),
    [("cost", {}, "trajectory?run="), ("runs", {}, "runs?run="),
     ("trajectory", {}, "trajectory?run="),
     ("trajectory", {"run": "flow-gpt"}, "trajectory?run=flow-gpt&sample="),
     ("compare", {"a": "flow-gpt", "b": "direct-gpt"}, "compare?a=flow-gpt&b=direct-gpt&problem="),
     ("problems", {}, "problems?benchmark=")],
)  # fmt: skip
def test_every_table_that_leads_on_stands_beside_it_as_plain_links(
    mixed: Path, view: str, query: dict[str, str], first: str
) -> None:
    page = drawn(mixed, view, **query)
    found = links_of(page)
    assert len(found) == len(page.dataframe) > 0
    assert [len(some) for some in found[:1]] == [len(page.dataframe[0].value)]
    assert all(to.startswith(first) and words for to, words in found[0])


def test_searches_and_attempts_stand_as_plain_links_too(tmp_path: Path) -> None:
    search(tmp_path)
    published(tmp_path)
    assert [to for to, _ in links_of(drawn(tmp_path, "searches"))[0]] == ["searches?run=fit-a"]
    (tried,) = links_of(drawn(tmp_path, "searches", run="fit-a"))
    assert [to for to, _ in tried] == [
        f"searches?run=fit-a&sample=a%2F8%3A100{n}" for n in (1, 2, 3)
    ]


def test_a_name_of_choices_on_several_pages_is_forgotten_between_them() -> None:
    pages: dict[str, set[str]] = {}
    for name in VIEWS:
        text = Path(str(import_module(f"leaderboard.views.{name}").__file__)).read_text()
        for key in re.findall(r'(?:key=|chosen_of\([\w.]+, )"([a-z]+)"', text):
            pages.setdefault(key, set()).add(name)
    several = {key for key, found in pages.items() if len(found) > 1}
    assert {"search", "reported", "anyway"} <= several - {"up"} <= set(SHARED)  # a button


def test_an_address_is_read_as_a_person_types_it(mixed: Path) -> None:
    for said in ("equal calls", "calls", "EQUAL CALLS"):
        page = drawn(mixed, rank=said, method=["flow", "direct"])
        assert board_view.EQUAL_WORDS["calls"] in [one.value for one in page.caption]
        assert page.query_params["rank"] == "Equal calls"  # so a reload shows it too
        assert page.multiselect(key="method").value == ["flow", "direct"]
        page.toggle(key="complete").set_value(True).run()
        assert board_view.EQUAL_WORDS["calls"] in [one.value for one in page.caption]
    assert "Tokens are those" in app_text(mixed, "cost", over="tokens")
    for said in ("3", "table 3"):
        assert "export --table 3" in app_text(mixed, "paper", table=said)
    assert "Meta-agents and workers" in app_text(mixed, "paper", table="figure 4")


def test_a_number_in_an_address_that_is_none_is_the_usual_one(mixed: Path) -> None:
    for said in ("1e400", "nan", "-1", "many"):
        drawn(mixed, "cost", search="true", spread=said)  # which draws without an exception
        drawn(mixed, "compare", a="flow-gpt", b="direct-gpt", problem="HumanEval/0", sample=said)


def test_a_printed_number_is_read_back_with_its_sign() -> None:
    assert widgets.number(dollars(-1234.5)) == -1234.5
    assert widgets.number(dollars(0.25)) == 0.25
    assert widgets.number("1,234.5") == 1234.5
    assert widgets.number("unknown") is None


def test_results_that_are_deleted_and_made_again_are_not_shown_from_before(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    for name in ("before", "after"):
        run(folder, name, {"a/0": ["passed"]}, method=name)
        published(folder)
        assert [*board_table(drawn(folder))] == [name]
        assert current_snapshot(folder).seq == 1  # type: ignore[union-attr]
        shutil.rmtree(folder)


def test_a_pointer_that_breaks_while_a_page_is_open_is_said_in_words(tmp_path: Path) -> None:
    run(tmp_path, "one", {"a/0": ["passed"]})
    page = drawn(published(tmp_path))
    (tmp_path / "board.json").write_text("{")
    page.run()
    assert not page.exception
    assert "The results cannot be read" in text_of(page)
    assert "board.json: not readable" in text_of(page)


def test_starting_the_server_loads_no_page_and_nothing_heavy() -> None:
    code = "import sys, leaderboard.serve; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "leaderboard.views" in loaded
    assert not loaded & {"streamlit", "pandas", "altair", "numpy", "pyarrow", "duckdb"}
    assert not [name for name in loaded if name.startswith("leaderboard.views.")]


def test_the_server_tells_nobody_and_offers_no_deploy(tmp_path: Path) -> None:
    words = command(tmp_path, "127.0.0.1", 8501, open_browser=False)
    assert "--server.address=127.0.0.1" in words
    assert "--browser.gatherUsageStats=false" in words
    assert "--client.toolbarMode=minimal" in words
    assert "--client.showErrorDetails=none" in words
    assert not [
        word for word in words if re.search("xsrf|cors", word, re.IGNORECASE)
    ]  # as they are
