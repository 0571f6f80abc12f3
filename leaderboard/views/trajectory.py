"""Trajectory: what a run's samples did, and one of them round by round. Layout only.

`?run=R` is the page of a run, `&sample=HumanEval/3:0` that of a sample; `&open=2,after` says which
of its stages are unfolded, `&calls-2=3` which page of a stage's calls is shown. Long texts are read
from the journal when they are unfolded, and cut where they are longer than a page bears.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

import streamlit as st

from harness.metrics import count, dollars, duration, percent
from harness.page import things
from harness.show import paid_line
from harness.show_sample import verdict_line
from harness.store import plain
from leaderboard.queries import BoardRow, board
from leaderboard.records import Texts, gradings, is_search, neighbours, read_sample, source_of
from leaderboard.timeline import Execution, Timeline, as_python_reads, numbered, timeline
from leaderboard.views.run_part import run_page
from leaderboard.views.shown import (
    LABEL,
    SHOWN,
    Shown,
    error_part,
    fold,
    long_text,
    mark,
    read,
    text_part,
)
from leaderboard.views.stage_part import overview, trajectory_part
from leaderboard.widgets import (
    NAME,
    Results,
    clickable,
    code,
    escaped,
    go,
    metrics,
    number,
    plain_table,
    shortened,
    stamp,
)

TITLE = "Trajectory"
PATH = "trajectory"


def page(results: Results) -> None:
    """Draw what the address asks for: a run, a sample of it, or which runs there are."""
    run_id, asked = st.query_params.get("run"), st.query_params.get("sample")
    if run_id is None:
        choose(results)
        return
    if is_search(results.connection, run_id):
        go("searches", run=run_id, sample=asked)
    found = board(results.connection, run_id)
    if not found:
        st.title("Trajectory", anchor=False)
        st.warning("This address names a run that is not in the results.")
        st.code(plain(run_id), language=None)
        st.button("All runs", on_click=go, args=("runs",))
        return
    named = sample_named(asked)
    if asked is None:
        run_page(results, found[0])
    elif named is None:
        st.warning("This address names no sample: it should end in its number, as HumanEval/3:0.")
        st.code(plain(asked), language=None)
        st.button("Its run", on_click=go, args=("trajectory",), kwargs={"run": run_id})
    else:
        sample_page(results, found[0], *named)


def sample_named(asked: str | None) -> tuple[str, int] | None:
    """(problem id, number) of "HumanEval/3:0"; None for anything else."""
    found = re.fullmatch(r"(.+):([0-9]{1,9})", asked or "", re.DOTALL)
    return (found.group(1), int(found.group(2))) if found else None


def choose(results: Results) -> None:
    """Which runs there are, for an address that names none."""
    st.title("Trajectory", anchor=False)
    rows = sorted(board(results.connection), key=lambda row: -(row.started_at or 0.0))
    if not rows:
        st.info("No run has been recorded yet. This command makes the first one.")
        code("python -m harness eval --method flowreasoner", "bash")
        return
    st.caption("Choose a run, then one of its samples: what it did, round by round. Newest first.")
    clickable(
        [
            {
                "Method": shortened(row.named, NAME),
                "pass@1": number(percent(row.estimate.value)),
                "Benchmark": row.benchmark,
                "Worker": row.worker,
                "Status": row.status or "not started",
                "Run": row.run_id,
            }
            for row in rows
        ],
        "runs-to-look-at",
        [("trajectory", {"run": row.run_id}) for row in rows],
        {"Method": st.column_config.TextColumn(pinned=True, width=170),
         "pass@1": st.column_config.NumberColumn(format="%.1f", width=74),
         "Status": st.column_config.TextColumn(width=100)},
        alt="Runs, newest first",
    )  # fmt: skip


# --- a sample ---


def sample_page(results: Results, row: BoardRow, problem_id: str, sample: int) -> None:
    """One sample of a run, from its first call to its verdict."""
    shown, missing = look_at(results, row.run_id, problem_id, sample, bound=True)
    with st.container(horizontal=True):
        st.button("← Board", on_click=go, args=("board",), type="tertiary")
        st.button(escaped(f"← {row.named} on {row.benchmark}"), on_click=go, args=("trajectory",),
                  kwargs={"run": row.run_id}, type="tertiary", key="up")  # fmt: skip
    st.title(
        escaped(f"{shortened(problem_id, LABEL)}{f', sample {sample}' if sample else ''}"),
        anchor=False,
    )
    before_and_after(results, row.run_id, problem_id, sample)
    line = shown.line
    if line.result is None and not line.stages:
        st.warning("This run has no such sample, or nothing of it has been recorded yet.")
        return
    verdict_banner(line)
    bill(line)
    if missing:
        st.caption(escaped(f"It ran a workflow that is not shown here: {missing}."))
    trajectory_part(shown)
    verdict_part(shown)


def look_at(
    results: Results, run_id: str, problem_id: str, sample: int, *, bound: bool
) -> tuple[Shown, str | None]:
    """A sample as it is shown, and why the workflow that it was given is not."""
    found = read_sample(results.connection, run_id, problem_id, sample)
    line = timeline(found)
    name = hashlib.sha256(json.dumps([run_id, problem_id, sample]).encode()).hexdigest()[:8]
    texts = Texts(results.folder, results.connection, run_id)
    source, missing = None, None
    executed = any(isinstance(e, Execution) for stage in line.stages for e in stage.events)
    if executed and not any(d.workflow_sha for stage in line.stages for d in stage.designs):
        source, missing = source_of(results.connection, results.folder, run_id)
    return Shown(results, line, texts, name, bound, source), missing


def before_and_after(results: Results, run_id: str, problem_id: str, sample: int) -> None:
    """Buttons to the samples before and after, among those that the table of the run showed."""
    among = st.query_params.get("among")
    verdicts = among.split(",") if among else []
    found = neighbours(results.connection, run_id, problem_id, sample, verdicts)
    if found == (None, None):
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        for label, to in zip(("Previous", "Next"), found, strict=True):
            st.button(
                label, on_click=go, args=("trajectory",), disabled=to is None,
                kwargs={"run": run_id, "sample": to, "among": among},
            )  # fmt: skip
        if verdicts:
            st.caption(escaped(f"among {', '.join(verdicts)}"), width="content")


def verdict_banner(line: Timeline) -> None:
    """How a sample ended, in one line."""
    if line.result is None:
        st.info("This sample has no verdict yet; what was recorded of it stands below.")
        return
    verdict = str(line.result.get("verdict"))
    say = st.success if verdict == "passed" else st.error
    say(escaped(shortened(f"{mark(verdict)} {verdict_line(line.result)}", 300)))


def bill(line: Timeline) -> None:
    """What a sample took."""
    spent, result = line.spent, line.result or {}
    values = {
        "Calls": count(spent.calls),
        "Tokens": count(spent.tokens),
        "Dollars": dollars(spent.fresh_cost_usd),
        "Model time": duration(spent.model_s),
    }
    if result.get("wall_s") is not None:
        values["Time"] = duration(result["wall_s"])
    metrics(
        values,
        {"Dollars": "With no reply from a cache",
         "Model time": "All calls one after another; for a kept reply, as when it was paid for",
         "Time": "Of the sample, without its waits for a turn at the model"},
    )  # fmt: skip
    words = []
    if paid := paid_line(spent.cost_usd, spent.fresh_cost_usd, spent.cached, spent.calls):
        words.append(paid)
    words += [f"{things(spent.failed, 'attempt')} without an answer"] if spent.failed else []
    words += ["an earlier, unfinished try is left out, but for its calls"] if line.earlier else []
    if words:
        st.caption(escaped(" · ".join(words)))


# --- how it ended ---


def verdict_part(shown: Shown) -> None:
    """The verdict with the test output, gradings before it, and the solution."""
    result = shown.line.result
    if result is None:
        return
    st.subheader("Verdict", anchor=False)
    verdict_banner(shown.line)
    said = []
    if result.get("feedback_total") is not None:
        said.append(f"feedback {result.get('feedback_passed')} of {result['feedback_total']} tests")
    if result.get("error_kind"):
        said.append(f"error {result['error_kind']}")
    if result.get("grade_s") is not None:
        said.append(f"graded in {duration(result['grade_s'])}")
    if result.get("grader_version"):
        said.append(f"grader {result['grader_version']}")
    if said:
        st.caption(escaped(" · ".join(said)))
    if result.get("detail"):
        long_text(shown, "detail", str(result["detail"]), label="Test output")
    if result.get("regrades"):
        regrades_part(shown)
    st.subheader("Solution", anchor=False)
    if result.get("solution_sha"):
        text_part(shown, "solution", result["solution_sha"], "python", line_numbers=True)
    else:
        st.caption("No program was handed in.")


def regrades_part(shown: Shown) -> None:
    """Every grading of a sample that was graded again."""
    line = shown.line
    found = gradings(shown.results.connection, line.run_id, line.problem_id, line.sample)
    if not found:
        return
    st.caption("It was graded again; the last verdict holds.")
    plain_table(
        ["When", "Verdict", "Grader", "Detail"],
        [
            [
                "unknown" if one.logged_at is None else stamp(one.logged_at),
                str(one.verdict),
                one.grader_version or "unknown",
                shortened(" ".join((one.detail or "").split()), 160),
            ]
            for one in found
        ],
    )


def sample_part(results: Results, run_id: str, problem_id: str, sample: int) -> None:
    """One sample in a column, for the page that compares: verdict, bill, rounds, code, solution.

    Says so in words where the run has no such sample. Texts that the journal lost are said too.
    """
    shown, missing = look_at(results, run_id, problem_id, sample, bound=False)
    line = shown.line
    if line.result is None and not line.stages:
        st.info("This run has no such sample.")
        return
    verdict_banner(line)
    spent = line.spent
    st.caption(escaped(
        f"{things(spent.calls, 'call')} · {count(spent.tokens)} tokens · "
        f"{dollars(spent.fresh_cost_usd)} · {duration(spent.model_s)} of model time"
    ))  # fmt: skip
    if line.result and line.result.get("detail"):
        long_text(shown, "detail", str(line.result["detail"]), label="Test output")
    if len(line.stages) > 1:
        overview(shown, linked=False)
    if shown.source is not None:
        lines = tuple(dict.fromkeys(at for stage in line.stages for at in stage.lines))
        compact_workflow(shown, "source", "The workflow that its search found", shown.source.code,
                         lines)  # fmt: skip
    elif missing:
        st.caption(escaped(f"It ran a workflow that is not shown here: {missing}."))
    for at, stage in enumerate(line.stages):
        design = stage.design
        if at not in line.decisive or design is None:
            continue
        text = read(shown, design.workflow_sha)
        if text:
            label = f"Workflow of round {stage.number}{', the answer' if stage.chosen else ''}"
            compact_workflow(shown, f"{at}", label, text, stage.lines)
        if stage.errors:
            error_part(shown, f"{at}-error", stage.errors[0])
    if line.result and line.result.get("solution_sha"):
        text_part(shown, "solution", line.result["solution_sha"], "python", label="Solution")
    st.button(
        "Its whole trajectory", on_click=go, args=("trajectory",), type="tertiary",
        kwargs={"run": run_id, "sample": f"{problem_id}:{sample}"}, key=f"whole-{shown.key}",
    )  # fmt: skip


def compact_workflow(shown: Shown, key: str, label: str, text: str, lines: Sequence[int]) -> None:
    """A workflow folded, what failed of it in the open."""

    def body() -> None:
        long_text(shown, f"{key}-workflow", as_python_reads(text), language="python",
                  line_numbers=True)  # fmt: skip

    fold(shown, escaped(label), f"{key}-fold", body, ours=False)
    for line in lines:
        if (excerpt := numbered(text[:SHOWN], line)) is not None:
            st.caption(f"Line {line} failed")
            code(excerpt)
