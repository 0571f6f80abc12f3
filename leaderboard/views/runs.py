"""All runs, searches too: how they stand, what went wrong in them, what they are made in.

A run that goes on is shown as of the snapshot, and the page moves on with the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from harness.metrics import count, dollars, duration
from harness.page import things
from harness.store import out_option, plain
from leaderboard.running import RunState, error_kinds, runs
from leaderboard.widgets import (
    DOLLARS,
    NAME,
    Results,
    clickable,
    code,
    escaped,
    first_row,
    go,
    kept,
    number,
    origin_words,
    plain_table,
    shortened,
    snapshot_words,
    stale,
    stamp,
)

TITLE = "Runs"
PATH = "runs"

ENDED = {  # how a run ended, in words
    "complete": "complete", "partial": "ended, with samples left", "interrupted": "interrupted",
    "budget": "stopped at its budget", "refused": "stopped: the provider refuses",
    "failed": "failed", "running": "running", None: "not started",
}  # fmt: skip
PLACES = {"sample": "sample without a verdict", "verdict": "sample that did not pass",
          "call": "request to a model"}  # fmt: skip


def page(results: Results) -> None:
    """One run where the address names it, else all of them."""
    st.title("Runs", anchor=False)
    found = kept(results, "runs", lambda: tuple(runs(results.connection)))
    if not found:
        first_row("The database holds no run yet. This command makes the first one.")
        return
    stale(results)
    run_id = st.query_params.get("run")
    if run_id is not None:
        one = next((run for run in found if run.run_id == run_id), None)
        st.button("← All runs", on_click=go, args=("runs",), type="tertiary")
        if one is None:
            st.warning("This address names a run that is not in the results.")
            st.code(plain(run_id), language=None)
        else:
            run_part(results, one)
        return
    live = [run for run in found if run.live]
    for run in live:
        live_part(run)
        st.button(
            escaped(f"State of {run.run_id}"), on_click=go, args=("runs",),
            kwargs={"run": run.run_id}, type="tertiary", key=f"state-{run.run_id}",
        )  # fmt: skip
    if not live:
        st.caption("No run goes on now.")
    all_runs(found)
    st.caption(escaped(f"{things(len(found), 'run')}; {snapshot_words(results)}."))


def live_part(run: RunState) -> None:
    """One run that goes on: how far it is, how fast, how long still."""
    with st.container(border=True):
        st.markdown(f"**{escaped(f'{run.named} on {run.benchmark}')}** · {escaped(run.worker)}")
        words = [done(run)]
        if run.rate is not None:
            words.append(f"{count(run.rate)} a minute")
        if run.rest_s is not None:
            words.append(f"about {duration(run.rest_s)} left")
        words += budget_words(run)
        if run.errored:
            words.append(things(run.errored, "errored sample"))
        if run.read_at is not None:
            words.append(f"as of {stamp(run.read_at)}")
        if run.share is not None:
            st.progress(min(1.0, max(0.0, run.share)), text=escaped(" · ".join(words)))
        else:
            st.caption(escaped(" · ".join(words)))


def done(run: RunState) -> str:
    """How many of the samples that were asked for have a verdict."""
    if run.samples_asked is None or run.samples_left is None:
        return things(run.graded, "verdict")
    return f"{count(run.samples_asked - run.samples_left)} of {count(run.samples_asked)} graded"


def budget_words(run: RunState) -> list[str]:
    """What is spent of what may be, as far as samples have ended; nothing without a budget."""
    words = []
    if (usd := run.budget.get("budget_usd")) is not None:
        words.append(f"{dollars(run.cost_usd)} of {dollars(usd)} spent")
    if (tokens := run.budget.get("budget_tokens")) is not None:
        words.append(f"{count(run.tokens)} of {count(tokens)} tokens")
    if (minutes := run.budget.get("budget_minutes")) is not None:
        spent = None
        if run.session_at is not None and run.read_at is not None:
            spent = max(0.0, run.read_at - run.session_at)
        words.append(f"{duration(spent)} of {duration(60 * minutes)}")
    return words


def all_runs(found: Sequence[RunState]) -> None:
    """Every run as a row; a click shows what went wrong in it and what it is made in."""
    st.subheader("All", anchor=False)
    left, right = st.columns([2, 1])
    words = left.text_input(
        "Search", key="search", placeholder="Search: several words, all must match",
        label_visibility="collapsed", bind="query-params", icon=":material/search:",
    )  # fmt: skip
    states = sorted({run.status or "not started" for run in found})
    wanted = right.multiselect("Status", states, key="status", placeholder="Any status",
                               label_visibility="collapsed", bind="query-params")  # fmt: skip
    terms = (words or "").casefold().split()
    shown = [
        run
        for run in found
        if (not wanted or (run.status or "not started") in wanted)
        and all(term in searched(run) for term in terms)
    ]
    if not shown:
        st.info("No run matches these filters.")
        return
    clickable(
        [cells(run) for run in shown],
        "runs",
        [("runs", {"run": run.run_id}) for run in shown],
        {
            "Run": st.column_config.TextColumn(pinned=True, width=170),
            "Status": st.column_config.TextColumn(width=100),
            "Graded": st.column_config.ProgressColumn(
                format="percent", help="Share of the samples asked for that have a verdict"
            ),
            "Errored": st.column_config.NumberColumn(
                width=82, help="Samples that ended without a verdict"
            ),
            "Paid": st.column_config.NumberColumn(
                format=DOLLARS, help="Dollars paid, with replies from a cache for nothing"
            ),
            "Dollars": st.column_config.NumberColumn(
                format=DOLLARS, help="Dollars with no reply from a cache"
            ),
        },
        alt="All runs with their status, errors, environment and origin",
    )


def searched(run: RunState) -> str:
    """What the words of the search may stand in."""
    return (
        f"{run.named} {run.worker} {run.meta or ''} {run.benchmark} {run.kind} {run.stage} "
        f"{run.status} {run.run_id} {run.commit} {run.sandbox}"
    ).casefold()


def cells(run: RunState) -> dict[str, Any]:
    """A row of the table, by the names of its columns."""
    search = "search: " if run.stage == "fit" else ""
    return {
        "Run": shortened(plain(search + run.named), NAME),
        "Status": ENDED.get(run.status, run.status),
        "Graded": run.share,
        "Samples": "none: a search" if search else done(run),
        "Errored": None if search else run.errored,
        "Benchmark": run.benchmark,
        "Worker": run.worker,
        "Origin": origin_words(run.kind, run.origin),
        "Paid": number(dollars(run.cost_usd)),
        "Dollars": number(dollars(run.fresh_cost_usd)),
        "Budget": " · ".join(budget_words(run)) or "none",
        "Sandbox": run.sandbox,
        "Commit": commit_words(run),
        "Host": host_words(run),
        "Started": None if run.started_at is None else stamp(run.started_at),
        "Id": run.run_id,
    }


def commit_words(run: RunState) -> str | None:
    """The commit, short, and that files differed from it."""
    if run.commit is None:
        return None
    return run.commit[:10] + (" with changes" if run.dirty else "")


def host_words(run: RunState) -> str | None:
    """The machine in a few words; nothing is told of an imported run's."""
    told = run.host
    parts = [told.get("cpu") or told.get("machine"), told.get("gpu"),
             f"{told['cores']} cores" if told.get("cores") else None]  # fmt: skip
    return ", ".join(str(part) for part in parts if part) or None


def run_part(results: Results, run: RunState) -> None:
    """What one run is made in, and what went wrong in it."""
    if run.live:
        live_part(run)
    st.subheader(escaped(f"{run.named} on {run.benchmark}"), anchor=False)
    status = ENDED.get(run.status, run.status or "unknown")
    st.caption(escaped(f"{status} · {done(run)} · {origin_words(run.kind, run.origin)}"))
    view, label = (
        ("searches", "The search") if run.stage == "fit" else ("trajectory", "Its samples")
    )
    st.button(label, on_click=go, args=(view,), kwargs={"run": run.run_id}, type="tertiary")
    if run.samples_left and not run.live and run.kind == "measured":
        st.caption("To go on with it:")
        command = f"python -m harness resume {run.run_id}{out_option(results.folder)}"
        st.code(plain(command), language="bash", wrap_lines=True)
    st.subheader("Errors by kind", anchor=False)
    found = kept(results, ("errors", run.run_id),
                 lambda: error_kinds(results.connection, run.run_id))  # fmt: skip
    if found:
        plain_table(
            ("What", "Kind", "How often"),
            [(PLACES.get(place, place), kind, count(times)) for place, kind, times in found],
        )
    else:
        st.caption("Nothing went wrong: every sample passed, and no request failed.")
    st.subheader("Environment", anchor=False)
    lines: dict[str, Any] = {
        "run": run.run_id, "command": run.command, "sandbox": run.sandbox,
        "host": ", ".join(f"{name} {value}" for name, value in run.host.items()) or None,
        "commit": commit_words(run), "harness": run.harness_version, "grader": run.grader_version,
        "packages": run.environment,
        "versions": ", ".join(f"{name} {number}" for name, number in run.versions.items()) or None,
        "budget": " · ".join(budget_words(run)) or "none",
    }  # fmt: skip
    if run.origin is not None:
        told = run.origin
        at = None if told.imported_at is None else stamp(told.imported_at)
        lines |= {"format": told.format, "file": told.file, "sha256": told.sha256, "imported": at}
    code("\n".join(f"{name:<9}{'unknown' if value is None else value}"
                   for name, value in lines.items()))  # fmt: skip
