"""Searches: what methods tried before any row, and what trainings noted. Layout only.

`?run=R` is the page of a search or training, `&sample=HumanEval/3:417` that of one attempt.
A training is anything with `step` records: its numbers are drawn under the names that it gave them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from harness.metrics import count, dollars, duration, percent
from harness.page import things
from harness.show import paid_line
from harness.show_search import step_table
from harness.store import Trajectory, plain
from harness.tree import SINGLES, SearchNode, best_words, node_words, tree_dot, tree_text
from leaderboard import charts
from leaderboard.records import Texts
from leaderboard.search_rows import Attempt, SearchRow, attempts, search_steps, searches
from leaderboard.timeline import timeline
from leaderboard.views.shown import Shown, long_text, paged, read, text_part
from leaderboard.views.stage_part import trajectory_part, workflow_part
from leaderboard.views.trajectory import bill, look_at, sample_named
from leaderboard.widgets import (
    DOLLARS,
    NAME,
    Results,
    clickable,
    code,
    day,
    drawing,
    escaped,
    go,
    is_dark,
    metrics,
    number,
    plain_table,
    shortened,
)

TITLE = "Searches"
PATH = "searches"

DESK = "search"  # the problem id of calls that belong to no problem
DRAWN = 120  # nodes of a tree that a browser draws; more are a list
CURVES = 8  # charts of a training that are drawn at once
ATTEMPTS = 500  # in one table
ACROSS = 2  # charts beside one another


def page(results: Results) -> None:
    """Draw what the address asks for: a search, an attempt of it, or which searches there are."""
    run_id, asked = st.query_params.get("run"), st.query_params.get("sample")
    if run_id is None:
        every(results)
        return
    found = searches(results.connection, run_id)
    if not found:
        st.title("Searches", anchor=False)
        st.warning("This address names a search that is not in the results.")
        st.code(plain(run_id), language=None)
        st.button("All searches", on_click=go, args=("searches",))
        return
    named = sample_named(asked)
    if asked is None:
        search_page(results, found[0])
    elif named is None:
        st.warning("This address names no attempt: it should end in a number, as HumanEval/3:0.")
        st.code(plain(asked), language=None)
        st.button("Its search", on_click=go, args=("searches",), kwargs={"run": run_id})
    else:
        attempt_page(results, found[0], *named)


def every(results: Results) -> None:
    """Every search: they have no score and no rank."""
    st.title("Searches", anchor=False)
    rows = searches(results.connection)
    if not rows:
        st.info("No search has been recorded yet. This command makes one; then reload this page.")
        code("python -m harness fit --method aflow --benchmark humaneval", "bash")
        return
    st.caption(
        "What methods tried, or trained, on problems of no evaluation list before any row: not "
        "scores, and in no ranking. Click one for its tree and its curves."
    )
    clickable(
        [
            {
                "Method": shortened(row.named, NAME),
                "Best": found_words(row),
                "Attempts": row.trials,
                "Calls": row.calls,
                "Tokens": row.tokens,
                "Dollars": number(dollars(row.fresh_cost_usd)),
                "Benchmark": row.benchmark,
                "Worker": row.worker,
                "Meta-agent": row.meta or "none",
                "Status": row.status,
                "Rows": len(row.used_by),
                "Started": day(row.started_at),
                "Search": row.run_id,
            }
            for row in rows
        ],
        "searches",
        [("searches", {"run": row.run_id}) for row in rows],
        {
            "Method": st.column_config.TextColumn(pinned=True, width=170),
            "Best": st.column_config.TextColumn(
                help="Share of search problems that the best candidate solves, in percent"
            ),
            "Attempts": st.column_config.NumberColumn(help="Runs of candidates on problems"),
            "Tokens": st.column_config.NumberColumn(format="%,.0f"),
            "Dollars": st.column_config.NumberColumn(format=DOLLARS),
            "Rows": st.column_config.NumberColumn(help="Runs on the board that rest on it"),
        },
        alt="Searches, the oldest first",
    )


def found_words(row: SearchRow) -> str:
    """The best score; or that there is none, for each workflow is for a problem of its own."""
    if row.best is not None:
        return percent(row.best.score)
    if best_words(row.nodes):
        return SINGLES
    return "none yet" if row.status == "running" else "none told"


def search_page(results: Results, row: SearchRow) -> None:
    """One search: what it found, its tree or archive, its curves, its attempts, its cost."""
    st.button("← All searches", on_click=go, args=("searches",), type="tertiary")
    steps = search_steps(results.connection, row.run_id)
    what = "Training" if steps and not row.nodes and not row.trials else "Search"
    st.title(escaped(f"{what} of {row.named} on {row.benchmark}"), anchor=False)
    if row.kind != "measured":
        st.warning(escaped(f"This search is {row.kind}: its numbers say nothing about a model."))
    cost_part(row, len(steps))
    rows_part(row)
    if row.nodes:
        nodes_part(results, row)
    curves_part(steps)
    attempts_part(results, row)
    with st.expander("How this search was made"):
        code(f"search   {row.run_id}\ncommand  {row.command}\nknobs    {row.knobs}")


def cost_part(row: SearchRow, steps: int) -> None:
    """What a search came to and took."""
    values = {} if row.best is None else {"Best": f"{percent(row.best.score)} %"}
    values |= {"Steps": count(steps)} if steps else {}
    if row.trials:
        values |= {"Attempts": count(row.trials), "Problems": count(row.problems)}
    if row.calls:
        values |= {"Calls": count(row.calls), "Tokens": count(row.tokens),
                   "Dollars": dollars(row.fresh_cost_usd)}  # fmt: skip
    metrics(
        values, {"Dollars": "With no reply from a cache; in no number of the rows that rest on it"}
    )
    words = [f"worker {row.worker}", f"meta-agent {row.meta or 'none'}"]
    told = {"list": row.list, "protocol": row.protocol, "level": row.level, "status": row.status}
    words += [f"{name} {value or 'unknown'}" for name, value in told.items()]
    if paid := paid_line(row.cost_usd, row.fresh_cost_usd, row.cached_calls, row.calls):
        words.append(paid)
    st.caption(escaped(" · ".join(words)))


def rows_part(row: SearchRow) -> None:
    """The rows of the board that rest on a search."""
    if not row.used_by:
        st.caption("No row rests on it yet.")
        return
    with st.container(horizontal=True):
        for run_id in row.used_by:
            st.button(escaped(f"Row: {run_id}"), on_click=go, args=("trajectory",),
                      kwargs={"run": run_id}, type="tertiary", key=f"row-{run_id}")  # fmt: skip


def nodes_part(results: Results, row: SearchRow) -> None:
    """The tree or archive, and one candidate of it with its workflow."""
    best = row.best
    alone = best is None and best_words(row.nodes) is not None
    st.subheader(SINGLES.capitalize() if alone else "Candidates", anchor=False)
    st.caption(
        "Each made for one problem, with its score on that: none is the best of all."
        if alone
        else "Each under the one that it was made of, with its score on the search problems."
    )
    if len(row.nodes) <= DRAWN:
        drawing(tree_dot(row.nodes), tree_text(row.nodes))
        with st.expander("The same in words", type="compact"):
            code(tree_text(row.nodes))
    else:
        code(tree_text(row.nodes))
    numbers = [node.number for node in row.nodes]
    by_number = {node.number: node for node in row.nodes}
    first = best.number if best is not None else numbers[0]
    told = st.query_params.get("candidate", "")
    key = f"candidate of {row.run_id}"
    st.session_state[key] = int(told) if told in map(str, numbers) else first

    def changed() -> None:
        st.query_params["candidate"] = str(st.session_state[key])

    chosen = st.selectbox(
        "Candidate", numbers, key=key, on_change=changed,
        format_func=lambda number: plain(f"{number}: {node_words(by_number[number])}"),
    )  # fmt: skip
    node_part(results, row, by_number[chosen])


def node_part(results: Results, row: SearchRow, node: SearchNode) -> None:
    """One candidate: what it changed, its code and its graph."""
    texts = Texts(results.folder, results.connection, row.run_id)
    line = timeline(Trajectory(row.run_id, DESK, 0))
    shown = Shown(results, line, texts, "search", bound=False)
    key = f"node-{node.number}"
    if node.label:
        long_text(shown, f"{key}-label", node.label, label="What it is")
    if node.error:
        long_text(shown, f"{key}-error", node.error, label="Error")
    if text := read(shown, node.workflow_sha):
        workflow_part(shown, key, text, ())
    else:
        st.caption("Its code is not in the journal." if node.workflow_sha else "It has no code.")


def curves_part(steps: Sequence[dict[str, float]]) -> None:
    """What a training noted at each step, a small chart for each of its numbers."""
    names = list(dict.fromkeys(name for step in steps for name in step if name != "number"))
    if not names:
        return
    st.subheader("Training", anchor=False)
    st.caption(escaped(f"{things(len(steps), 'step')}; {things(len(names), 'number')} at each."))
    if any(sum(name in step for step in steps) > 1 for name in names):  # there is a line to draw
        wanted = names
        if len(names) > CURVES:
            told = {plain(name): name for name in names}  # as the address has them
            picked = st.multiselect(
                "Numbers", list(told), default=list(told)[:CURVES], key="numbers",
                bind="query-params", max_selections=CURVES,
            )  # fmt: skip
            wanted = [told[name] for name in picked]
        kept = [{name: value for name, value in step.items() if name in {*wanted, "number"}}
                for step in steps]  # fmt: skip
        drawn = list(charts.training_charts(kept, dark=is_dark()).values())
        for first in range(0, len(drawn), ACROSS):
            for place, chart in zip(
                st.columns(ACROSS), drawn[first : first + ACROSS], strict=False
            ):
                with place:
                    st.altair_chart(chart, theme=None, width="stretch")
    table_names, lines = step_table(steps)
    with st.expander("As a table", expanded=len(steps) == 1):
        plain_table(table_names, lines)


def attempts_part(results: Results, row: SearchRow) -> None:
    """The graded attempts of a search; a click opens one."""
    tried = attempts(results.connection, row.run_id)
    if not tried:
        return
    st.subheader("Attempts", anchor=False)
    first = (paged("attempts", len(tried), ATTEMPTS, "attempts") - 1) * ATTEMPTS
    shown = tried[first : first + ATTEMPTS]
    clickable(
        [attempt_cells(one) for one in shown],
        f"attempts-{row.run_id}-{first}",
        [("searches", {"run": row.run_id, "sample": f"{one.problem_id}:{one.sample}"})
         for one in shown],
        {"Problem": st.column_config.TextColumn(pinned=True),
         "Tokens": st.column_config.NumberColumn(format="%,.0f"),
         "Dollars": st.column_config.NumberColumn(format=DOLLARS),
         "Detail": st.column_config.TextColumn(width="large")},
        alt=f"{things(len(tried), 'attempt')} at search problems",
    )  # fmt: skip
    st.button("Calls of the search itself", on_click=go, args=("searches",), type="tertiary",
              kwargs={"run": row.run_id, "sample": f"{DESK}:0"})  # fmt: skip


def attempt_cells(one: Attempt) -> dict[str, Any]:
    """An attempt as a row of the table."""
    return {
        "Problem": one.problem_id,
        "Attempt": shortened(one.label or "", 80),
        "Passed": "✓" if one.passed else "✗",
        "Share": number(percent(one.share)),
        "Calls": one.calls,
        "Tokens": one.tokens,
        "Dollars": number(dollars(one.usd)),
        "Detail": shortened(" ".join((one.detail or "").split()), 300),
    }


def attempt_page(results: Results, row: SearchRow, problem_id: str, sample: int) -> None:
    """One attempt of a search: how it ended, then what it did."""
    shown, _ = look_at(results, row.run_id, problem_id, sample, bound=True)
    with st.container(horizontal=True):
        st.button("← All searches", on_click=go, args=("searches",), type="tertiary")
        st.button(escaped(f"← Search of {row.named}"), on_click=go, args=("searches",),
                  kwargs={"run": row.run_id}, type="tertiary", key="up")  # fmt: skip
    st.title(
        "The search itself" if problem_id == DESK else escaped(shortened(problem_id, 120)),
        anchor=False,
    )
    if shown.line.trial is None and not shown.line.stages:
        st.warning("This address names an attempt that is not in the search.")
        return
    trial_banner(shown)
    bill(shown.line)
    trajectory_part(shown)
    trial_part(shown)


def trial_banner(shown: Shown) -> None:
    """How an attempt ended, in one line."""
    trial = shown.line.trial
    if trial is None:
        st.info("This attempt was not graded, or these are calls of the search itself.")
        return
    say = st.success if trial.get("passed") else st.error
    label = shortened(str(trial.get("label") or "attempt"), 200)
    share = trial.get("share")
    part = f", {percent(share, 0)} % of all tests" if share is not None else ""
    say(escaped(f"{label}: {'passed' if trial.get('passed') else 'did not pass'}{part}"))


def trial_part(shown: Shown) -> None:
    """The output of an attempt's tests, its program, and what the method keeps of it."""
    trial = shown.line.trial
    if trial is None:
        return
    if trial.get("wall_s") is not None:
        st.caption(f"It took {duration(trial['wall_s'])}.")
    if trial.get("detail"):
        long_text(shown, "detail", str(trial["detail"]), label="Test output")
    st.subheader("Program", anchor=False)
    if trial.get("code_sha"):
        text_part(shown, "program", trial["code_sha"], "python", line_numbers=True)
    else:
        st.caption("No program was handed in.")
