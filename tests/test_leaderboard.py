"""The board says what the journals say, keeps apart what may not be compared, and runs nothing."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from harness.errors import StoreError, UsageError
from harness.journal import Journal
from harness.metrics import pass_at_1
from harness.show import show_run
from harness.show_rounds import round_table
from harness.show_sample import call_line
from harness.store import Store, open_snapshot
from leaderboard.export import table
from leaderboard.queries import (
    BoardRow,
    attempts,
    best_of_n,
    board,
    groups,
    run_rounds,
    sample_trajectory,
    samples,
    search_steps,
    searches,
)
from leaderboard.serve import refresh, serve

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    " **bold** $x^2$ [link](http://example.com) \x1b[31mred \ud800 :smile:"
)

HALF = "\ud800"  # of a character: no code that Python reads holds one
LABEL = "</text><script>document.title='owned'</script>"
WORKFLOW = f"""\
class Workflow:
    async def __call__(self, problem, entry_point):
        solution = await self.custom_code_generate(problem=problem, model={LABEL!r})
        while solution == "\\"]; n9 [URL=\\"javascript:alert(1)\\"];":
            solution = await self.test(solution=solution)
        return solution, 0  # {HOSTILE.replace(HALF, "")}
"""


def run(results_dir: Path, run_id: str, outcomes: dict[str, list[str]], **fields: Any) -> Path:
    """A finished run: the verdicts of each problem's samples, every sample with a trajectory."""
    journal = Journal(results_dir / "runs" / run_id)
    asked = fields.pop("asked", sum(map(len, outcomes.values())))
    cost = fields.pop("cost", 0.25)
    session = fields.pop("session", {})
    head = {"run_id": run_id, "benchmark": "humaneval", "benchmark_digest": "7dce6050a7d6",
            "list": "full", "protocol": "public", "level": "L2", "method": "flow", "knobs": {},
            "roles": {"worker": {"model": "local/small"}, "meta": {"model": "local/big"}},
            "n_samples": 1, "seed": 0, "grader_version": "1", "price_table": "none",
            "kind": "measured", "started_at": 1762000000.0}  # fmt: skip
    (journal.run_dir / "run.json").write_text(json.dumps(head | fields))
    journal.write("session", event="start", problems=len(outcomes), samples=asked,
                  **session)  # fmt: skip
    for problem_id, verdicts in outcomes.items():
        for sample, verdict in enumerate(verdicts):
            key = {"result_key": f"{problem_id}:{sample}", "problem_id": problem_id,
                   "sample": sample}  # fmt: skip
            request = {"messages": [{"role": "user", "content": f"Solve {problem_id}. {HOSTILE}"}]}
            journal.write(
                "call", **key, call_no=1, attempt=1, round=1, role="meta", model="local/big",
                request_sha=journal.artifact(json.dumps(request)),
                response_sha=journal.artifact(f"reply to {problem_id} {HOSTILE}"),
                prompt_tokens=70, completion_tokens=30, cost_usd=cost, latency_s=0.5,
            )  # fmt: skip
            workflow_sha = journal.artifact(WORKFLOW)
            journal.write("round", **key, round=1, modification=HOSTILE, score=0.5, scores=[0.5],
                          workflow_sha=workflow_sha)  # fmt: skip
            broken = journal.artifact(f"class Workflow(: ...  # {HOSTILE.replace(HALF, '')}")
            journal.write("round", **key, round=2, parent=1, modification=HOSTILE, score=0.0,
                          scores=[0.0], workflow_sha=broken, error=HOSTILE)  # fmt: skip
            journal.write("feedback", **key, round=1, passed=1, total=2, errors=[HOSTILE])
            journal.write("ensemble", **key, winner=HOSTILE)
            journal.write(
                "result", **key, verdict=verdict, detail=HOSTILE, calls=1, prompt_tokens=70,
                completion_tokens=30, cost_usd=cost, wall_s=3.0,
                solution_sha=journal.artifact(f"def f(): ...  # {problem_id} {HOSTILE}"),
            )  # fmt: skip
    journal.write("session", event="end", status="complete")
    journal.close()
    return journal.run_dir


def published(results_dir: Path) -> Path:
    store = Store(results_dir)
    store.ingest()
    store.snapshot()
    return results_dir


def board_of(results_dir: Path) -> dict[str, BoardRow]:
    with open_snapshot(published(results_dir)) as connection:
        return {row.run_id: row for row in board(connection)}


def test_the_board_and_the_metric_agree_on_every_kind_of_run(tmp_path: Path) -> None:
    runs: dict[str, dict[str, list[str]]] = {
        "single": {"a/0": ["passed"], "a/1": ["wrong"], "a/2": ["passed"]},
        "several": {"a/0": ["passed", "wrong"], "a/1": ["wrong", "wrong"], "a/2": ["passed"] * 2},
        "errored": {"a/0": ["passed"], "a/1": ["invalid"], "a/2": ["timeout"]},
        "one": {"a/0": ["passed", "wrong"]},
        "broken": {"a/0": ["invalid"]},
        "empty": {},
    }
    for name, outcomes in runs.items():
        run(tmp_path, name, outcomes)
    rows = board_of(tmp_path)
    for name, outcomes in runs.items():
        expected = pass_at_1({
            problem: [None if v == "invalid" else v == "passed" for v in verdicts]
            for problem, verdicts in outcomes.items()
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
    for number, kept in ((2, 1), (3, 2)):  # other problems, so that four are graded in the end
        journal = Journal(run_dir)
        journal.write("session", event="start", problems=1, samples=1, command="eval --problems")
        journal.write("result", result_key=f"a/{number}:0", problem_id=f"a/{number}", sample=0,
                      verdict="passed")  # fmt: skip
        journal.write("session", event="end", status="complete")
        journal.close()
        row = board_of(tmp_path)["long"]
        assert (row.estimate.samples, row.samples_asked, row.complete) == (2 + kept, 4, False)
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
        found = sample_trajectory(connection, tmp_path, "flow", "a/0", 0)
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
        listed = [(one.problem_id, one.sample) for one in samples(connection, "flow")]
        assert listed == [("HumanEval/9", 0), ("HumanEval/9", 1), ("HumanEval/10", 0)]
        found = sample_trajectory(connection, tmp_path, "flow", "HumanEval/9", 1)
        assert found.result is not None
        assert found.result["verdict"] == "wrong"
        assert found.text(found.calls[0]["response_sha"]) == f"reply to HumanEval/9 {HOSTILE}"
        assert found.round_numbers() == [None, 1, 2]
        assert found.feedback[0]["errors"][0].startswith("<script>")
        assert found.notes[0]["kind"] == "ensemble"
        assert len(found.of_round(1).calls) == 1
        shutil.rmtree(run_dir)
        with pytest.raises(StoreError, match="No such file"):
            sample_trajectory(connection, tmp_path, "flow", "HumanEval/9", 1)


def in_rounds(
    results_dir: Path, run_id: str, samples: dict[str, list[tuple[float, str]]], **fields: Any
) -> None:
    """A finished run in rounds of one call each: (feedback score, hidden verdict) by problem."""
    outcomes = {name: [rounds[-1][1]] for name, rounds in samples.items()}
    journal = Journal(run(results_dir, run_id, outcomes, **fields))
    for problem_id, rounds in samples.items():
        key = {"result_key": f"{problem_id}:0", "problem_id": problem_id, "sample": 0}
        for number, (score, verdict) in enumerate(rounds, 1):
            code = journal.artifact(f"program {number}")
            if number > 1:  # the first round has its call already
                journal.write("call", **key, call_no=number, round=number, role="worker")
            journal.write("round", **key, round=number, score=score, scores=[score],
                          code_sha=code)  # fmt: skip
            journal.write("hidden", **key, round=number, code_sha=code, verdict=verdict)
    journal.write("session", event="start", problems=len(samples), samples=len(samples),
                  resumed=len(samples))  # fmt: skip
    journal.write("session", event="end", status="complete")
    journal.close()


def search(results_dir: Path, *, ended: str = "complete", **fields: Any) -> None:
    """A search `fit-a`, and a row `found` that rests on it."""
    journal = Journal(results_dir / "runs" / "fit-a")
    head = {"run_id": "fit-a", "stage": "fit", "benchmark": "humaneval", "method": "aflow",
            "list": "search", "roles": {"worker": {"model": "local/small"}}, "knobs": {},
            "kind": "measured", "started_at": 1762000000.0}  # fmt: skip
    (journal.run_dir / "run.json").write_text(json.dumps(head | fields))
    journal.write("session", event="start", problems=2, samples=2)
    desk: dict[str, Any] = {"result_key": "desk", "problem_id": "search", "sample": 0}
    for number, parent, score in ((1, None, 0.5), (2, 1, 1.0), (3, 2, 0.0)):
        key = {"result_key": f"t{number}", "problem_id": "a/8", "sample": 1000 + number}
        journal.write("call", **key, call_no=1, round=number, role="worker", prompt_tokens=300,
                      completion_tokens=200, cost_usd=0.25, latency_s=1.0,
                      response_sha=journal.artifact(f"reply {number}"))  # fmt: skip
        journal.write("trial", **key, label=f"round {number}, run 1", round=number,
                      passed=score > 0.5, share=score, detail=HOSTILE, calls=1, tokens=500.0,
                      code_sha=journal.artifact(f"program {number}"), usd=0.25)  # fmt: skip
        journal.write("node", **desk, number=number, parent=parent, label=LABEL, score=score,
                      error=HOSTILE if number == 3 else None)  # fmt: skip
        journal.write("step", **desk, number=number, loss=1 / number)
    journal.write("session", event="end", status=ended)
    journal.close()
    spent = {"calls": 9, "tokens": 4500, "cost_usd": 0.0, "fresh_cost_usd": 2.25, "wall_s": 61.0}
    artifact = {"run": "fit-a", "digest": "d", "problems": 2, "spent": spent}
    run(results_dir, "found", {"a/0": ["passed"]}, artifact=artifact, method="aflow")


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
        one = sample_trajectory(connection, tmp_path, "fit-a", "a/8", 1002)
        assert one.text(one.calls[0]["response_sha"]) == "reply 2"


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
    assert "round 2, run 1\\: passed" in app_text(tmp_path, run="fit-a", sample="a/8:1002")
    assert "was not graded" in app_text(tmp_path, run="fit-a", sample="search:0")
    assert "search before it: $2.25" in app_text(tmp_path, run="found").replace("\\", "")


def test_a_board_of_searches_alone_lists_them(tmp_path: Path) -> None:
    search(tmp_path)
    shutil.rmtree(tmp_path / "runs" / "found")
    published(tmp_path)
    assert "The database holds no run yet" in app_text(tmp_path)


FLOW = {"a/0": [(0.0, "wrong"), (1.0, "wrong")], "a/1": [(1.0, "passed")] * 2}
DRAWS = {f"a/{n}": [(0.0, "wrong"), (1.0, "passed"), (0.0, "wrong")] for n in range(3)}


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


def drawn(results_dir: Path, **query: str) -> Any:
    """The page, drawn without a browser."""
    from streamlit.testing.v1 import AppTest

    script = (
        "import pathlib\nfrom leaderboard.app import main\n"
        f"main(pathlib.Path({str(results_dir)!r}))\n"
    )
    app = AppTest.from_string(script, default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def app_text(results_dir: Path, **query: str) -> str:
    """All that the page says."""
    app = drawn(results_dir, **query)
    parts = [*app.title, *app.info, *app.warning, *app.error, *app.success, *app.caption, *app.code]
    return "\n".join(str(part.value) for part in parts)


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
    assert "1 run, snapshot 1" in app_text(published(tmp_path)).replace("\\", "")
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
    assert "no verdict yet" in app_text(tmp_path, run="flow", sample="HumanEval/7:0")


def test_a_journal_that_is_gone_is_said_and_the_page_still_stands(tmp_path: Path) -> None:
    run_dir = run(tmp_path, "gone", {"HumanEval/0": ["passed"]})
    published(tmp_path)
    shutil.rmtree(run_dir)
    text = app_text(tmp_path, run="gone", sample="HumanEval/0:0")
    assert "The results cannot be read" in text
    assert "No such file" in text


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A served board with two runs; interrupting it must end it cleanly."""
    results_dir = tmp_path_factory.mktemp("results")
    run(results_dir, "flow-run", {"HumanEval/0": ["passed"], "HumanEval/1": ["wrong"],
                                  "HumanEval/2": ["passed"]})  # fmt: skip
    run(results_dir, "sim-run", {"HumanEval/0": ["passed"]}, kind="simulated", method="sim")
    search(results_dir)
    in_rounds(results_dir, "rounds-run", FLOW, benchmark="mbpp")
    in_rounds(results_dir, "draws-run", DRAWS, benchmark="mbpp", method="best-of-n")
    port = free_port()
    code = (
        "import sys, pathlib; from leaderboard.serve import serve\n"
        "sys.exit(serve(pathlib.Path(sys.argv[1]), port=int(sys.argv[2]), open_browser=False))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, results_dir, str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert child.poll() is None, "the server ended at once"
            try:
                urllib.request.urlopen(f"{url}/_stcore/health", timeout=5).close()
                break
            except urllib.error.URLError:
                time.sleep(0.2)
        yield url
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 0
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url, timeout=5)
    finally:
        child.kill()
        child.wait()


@pytest.fixture
def page(tmp_path: Path) -> Iterator["Page"]:
    """A page of the installed Chromium."""
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if not Path(chromium).exists():
        pytest.skip(f"no Chromium at {chromium}; set CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update",
             "--disable-sync"]  # fmt: skip
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=flags)
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        opened.set_default_timeout(20_000)
        yield opened
        browser.close()


def cell(page: "Page", text: str) -> "Locator":
    """A cell of a table: it is painted on a canvas, and its text stands inside that as a table."""
    return page.locator("canvas td").get_by_text(text, exact=True)


@pytest.mark.browser
def test_a_click_leads_from_the_score_to_the_samples_and_a_reload_keeps_the_view(
    address: str, page: "Page"
) -> None:
    page.goto(address)
    cell(page, "66.7").wait_for(state="attached")
    assert cell(page, "sim (simulated)").count() == 1
    assert page.get_by_text("Deploy", exact=True).count() == 0
    page.locator(".stDataFrameGlideDataEditor").first.click(position={"x": 300, "y": 52})
    page.get_by_role("heading", name="flow on humaneval").wait_for()
    assert "run=flow-run" in page.url
    page.reload()
    page.get_by_role("heading", name="flow on humaneval").wait_for()
    page.locator(".stDataFrameGlideDataEditor").first.click(position={"x": 200, "y": 87})
    page.get_by_role("heading", name="HumanEval/1").wait_for()
    assert "sample=HumanEval" in page.url
    page.get_by_role("button", name="All runs").click()
    page.get_by_role("heading", name="Does this workflow").wait_for()


@pytest.mark.browser
def test_what_a_model_wrote_is_shown_as_text_and_runs_nothing(address: str, page: "Page") -> None:
    page.goto(f"{address}/?run=flow-run&sample=HumanEval/1:0")
    page.get_by_text("reply to HumanEval/1 <script>").wait_for()
    body = page.locator(".stMain").inner_text()
    for part in ("Solve HumanEval/1.", "class Workflow(: ...", "def f(): ...", "ensemble:"):
        assert part in body
    assert "**bold** $x^2$ [link](http://example.com) \\x1b[31mred \\ud800 :smile:" in body
    assert page.locator(".stMain a[href*='example.com'], .stMain img, .stMain .katex").count() == 0
    assert page.title() == "Workflow board"


@pytest.mark.browser
def test_graphs_are_drawn_offline_and_a_label_that_a_model_wrote_is_text_in_them(
    address: str, page: "Page"
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/?run=flow-run&sample=HumanEval/1:0")
    drawn = page.locator(".stMain svg g.node text")
    drawn.get_by_text("custom_code_generate").wait_for()
    # as in the code, shortened, and nothing but text: no element, link or attribute of its own
    assert (
        page.locator(".stMain svg").get_by_text("model=</text><script>document.title").count() == 1
    )
    assert page.locator(".stMain svg").get_by_text("while solution == '\"]; n9").count() == 1
    assert page.locator(".stMain svg script, .stMain svg a, .stMain svg image").count() == 0
    assert page.locator(".stMain").get_by_text("not drawn: SyntaxError").count() == 1
    assert page.locator(".stMain svg g.node").count() == 4 + 2  # the workflow, the tree of rounds
    page.goto(f"{address}/?run=fit-a")
    page.locator(".stMain svg").get_by_text("100.0 %").wait_for()
    assert page.locator(".stMain svg g.node").count() == 3
    assert page.locator(".stMain svg g.edge").count() == 2
    assert page.title() == "Workflow board"
    assert [url for url in asked if not url.startswith((address, "blob:", "data:"))] == []


@pytest.mark.browser
def test_rounds_are_lines_and_a_table_with_best_of_n_beside(address: str, page: "Page") -> None:
    page.goto(f"{address}/?run=rounds-run")
    page.locator(".stVegaLiteChart").wait_for()
    row = page.locator(".stTable tr").nth(2)
    row.wait_for()
    cells = row.locator("td").all_inner_texts()
    assert cells[:4] == ["2", "50.0 %", "+50.0", "100.0 % at 2"]


@pytest.mark.browser
def test_a_phone_sees_the_score_without_scrolling_sideways(address: str, page: "Page") -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(address)
    cell(page, "66.7").wait_for(state="attached")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
