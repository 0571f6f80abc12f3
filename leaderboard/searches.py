"""Pages of searches: what a method's `fit` tried before any row. Layout only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

from harness.metrics import count, dollars, percent
from harness.show import paid_line
from harness.show_search import step_table
from harness.store import Trajectory
from harness.tree import SINGLES, best_words, node_words, tree_dot, tree_text
from leaderboard.queries import Attempt, SearchRow, attempts, search_steps
from leaderboard.widgets import (
    NAME,
    clickable,
    code,
    day,
    drawing,
    escaped,
    go,
    labelled,
    metrics,
    plain_table,
    shortened,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

DRAWN = 120  # nodes of a tree that a browser draws; more are a list


def searches_table(rows: Sequence[SearchRow]) -> None:
    """Every search, as a section of the board: they have no score and no rank."""
    st.subheader("Searches")
    st.caption(
        "What methods tried on the search list before any row: not scores, and in no ranking. "
        "Click one for its tree."
    )
    clickable(
        [
            {
                "Method": shortened(row.named, NAME),
                "Best": found_words(row),
                "Attempts": row.trials,
                "Calls": row.calls,
                "Tokens": row.tokens,
                "Dollars": row.fresh_cost_usd,
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
        [(row.run_id, None) for row in rows],
        {
            "Best": st.column_config.TextColumn(
                help="Share of search problems that the best candidate solves, in percent"
            ),
            "Attempts": st.column_config.NumberColumn(help="Runs of candidates on problems"),
            "Tokens": st.column_config.NumberColumn(format="%,.0f"),
            "Dollars": st.column_config.NumberColumn(format="$%.5f"),
            "Rows": st.column_config.NumberColumn(help="Runs on the board that rest on it"),
        },
    )


def found_words(row: SearchRow) -> str:
    """The best score; or that there is none, for each workflow is for a problem of its own."""
    if row.best is not None:
        return percent(row.best.score)
    return SINGLES if best_words(row.nodes) else "none yet"


def search_page(connection: DuckDBPyConnection, row: SearchRow) -> None:
    st.button("← All runs", on_click=go, type="tertiary")
    st.title(escaped(f"Search of {row.named} on {row.benchmark}"))
    if row.kind != "measured":
        st.warning(escaped(f"This search is {row.kind}: its numbers say nothing about a model."))
    best = row.best
    told_best = {} if best is None else {"Best": f"{percent(best.score)} %"}
    metrics(
        {**told_best, "Attempts": count(row.trials), "Problems": count(row.problems),
         "Calls": count(row.calls), "Tokens": count(row.tokens),
         "Dollars": dollars(row.fresh_cost_usd)}
    )  # fmt: skip
    words = [f"worker {row.worker}", f"meta-agent {row.meta or 'none'}"]
    told = {"list": row.list, "protocol": row.protocol, "level": row.level, "status": row.status}
    words += [f"{name} {value or 'unknown'}" for name, value in told.items()]
    if paid := paid_line(row.cost_usd, row.fresh_cost_usd, row.cached_calls, row.calls):
        words.append(paid)
    st.caption(escaped(" · ".join(words)))
    for run_id in row.used_by:
        st.button(escaped(f"Row: {run_id}"), on_click=go, args=(run_id,), type="tertiary",
                  key=f"row-{run_id}")  # fmt: skip
    if best is not None:
        labelled(escaped(f"Best: {best.number}, {node_words(best)}"), best.label)
    if row.nodes:
        alone = best is None and best_words(row.nodes) is not None
        st.subheader(SINGLES.capitalize() if alone else "Candidates")
        st.caption(
            "Each made for one problem, with its score on that: none is the best of all."
            if alone
            else "Each under the one that it was made of, with its score on the search problems."
        )
        if len(row.nodes) <= DRAWN:
            drawing(tree_dot(row.nodes), tree_text(row.nodes))
        else:
            code(tree_text(row.nodes))
    curve(search_steps(connection, row.run_id))
    tried = attempts(connection, row.run_id)
    if tried:
        st.subheader("Attempts")
        clickable(
            [attempt_cells(one) for one in tried],
            f"attempts-{row.run_id}",
            [(row.run_id, f"{one.problem_id}:{one.sample}") for one in tried],
            {"Tokens": st.column_config.NumberColumn(format="%,.0f"),
             "Dollars": st.column_config.NumberColumn(format="$%.5f"),
             "Detail": st.column_config.TextColumn(width="large")},
        )  # fmt: skip
    with st.expander("How this search was made"):
        code(f"search   {row.run_id}\ncommand  {row.command}\nknobs    {row.knobs}")


def attempt_cells(one: Attempt) -> dict[str, Any]:
    return {
        "Problem": one.problem_id,
        "Attempt": one.label,
        "Passed": "✓" if one.passed else "✗",
        "Share": None if one.share is None else float(percent(one.share)),
        "Calls": one.calls,
        "Tokens": one.tokens,
        "Dollars": one.usd,
        "Detail": " ".join((one.detail or "").split()),
    }


def curve(steps: Sequence[dict[str, float]]) -> None:
    """What a search that trains noted at each step, a line for each number."""
    names = list(dict.fromkeys(name for step in steps for name in step if name != "number"))
    if not names:
        return
    st.subheader("Training")
    if not any(sum(name in step for step in steps) > 1 for name in names):  # no line to draw
        plain_table(*step_table(steps))
        return
    shown = st.pills("Number", names, default=names[0], key="number", format_func=escaped,
                     label_visibility="collapsed")  # fmt: skip
    points = [{"step": s["number"], "value": s[shown]} for s in steps if shown and shown in s]
    if points:
        st.line_chart(points, x="step", y="value", y_label=shown, height=260)


def attempt_page(row: SearchRow, found: Trajectory, attempt: Attempt | None) -> None:
    """The head of one attempt; what it did stands below it."""
    with st.container(horizontal=True):
        st.button("← All runs", on_click=go, type="tertiary")
        st.button(escaped(f"← Search of {row.named}"), on_click=go, args=(row.run_id,),
                  type="tertiary", key="up")  # fmt: skip
    st.title(escaped(found.problem_id))
    if attempt is None and not found.round_numbers():
        st.warning("This address names an attempt that is not in the search.")
        return
    if attempt is None:
        st.info("This attempt was not graded, or these are calls of the search itself.")
        return
    say = st.success if attempt.passed else st.error
    say(escaped(f"{attempt.label}: {'passed' if attempt.passed else 'did not pass'}"))
    if attempt.detail:
        code(attempt.detail)
    if program := found.text(attempt.code_sha):
        st.subheader("Program")
        code(program, "python")
