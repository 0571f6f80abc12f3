"""One run on a page: its numbers, its rounds beside best-of-n, its samples, how it was made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import streamlit as st

from harness.metrics import count, dollars, duration, percent
from harness.page import things
from harness.rounds import Round, Unit, price_unit
from harness.show import paid_line
from harness.show_rounds import WORDS, round_notes, round_table
from harness.store import out_option, plain
from leaderboard import charts
from leaderboard.queries import BoardRow, SampleRow, best_of_n, run_rounds
from leaderboard.records import some_samples, verdict_counts
from leaderboard.views.shown import mark, paged
from leaderboard.widgets import (
    DOLLARS,
    Results,
    clickable,
    code,
    draw_chart,
    escaped,
    go,
    kept,
    metrics,
    number,
    plain_table,
    shortened,
    stamp,
)

SAMPLES = 500  # of a run, in one table


def run_page(results: Results, row: BoardRow) -> None:
    """One run: its numbers, its rounds, its samples."""
    st.button("← Board", on_click=go, args=("board",), type="tertiary")
    st.title(escaped(f"{row.named} on {row.benchmark}"), anchor=False)
    headline(row)
    if row.samples_left and row.status != "running":
        st.caption("To go on with it:")
        command = f"python -m harness resume {row.run_id}{out_option(results.folder)}"
        code(command, "bash")
    rounds_part(results, row)
    samples_part(results, row)
    about(row)


def samples_part(results: Results, row: BoardRow) -> None:
    """The graded samples of a run, filtered by verdict; a click opens one."""
    counts = verdict_counts(results.connection, row.run_id)
    if not counts:
        st.info("No sample of this run has been graded yet.")
        return
    st.subheader("Samples", anchor=False)
    names = {safe(name): name for name in counts}  # as the address has them
    wanted = st.pills("Verdict", list(names), selection_mode="multi", key="verdict",
                      bind="query-params", label_visibility="collapsed")  # fmt: skip
    verdicts = [names[name] for name in wanted if name in names]
    found = sum(counts[name] for name in verdicts or counts)
    first = (paged("samples", found, SAMPLES, "page") - 1) * SAMPLES
    shown = some_samples(results.connection, row.run_id, verdicts, first=first, most=SAMPLES)
    said = ", ".join(f"{count(n)} {name}" for name, n in counts.items())
    st.caption(escaped(f"{said}. Click a sample for its trajectory."))
    clickable(
        [sample_cells(one) for one in shown],
        f"samples-{row.run_id}-{','.join(verdicts)}-{first}",
        [
            (
                "trajectory",
                {
                    "run": row.run_id,
                    "sample": f"{one.problem_id}:{one.sample}",
                    "among": ",".join(verdicts) or None,
                },
            )
            for one in shown
        ],
        {
            "Problem": st.column_config.TextColumn(pinned=True),
            "Tokens": st.column_config.NumberColumn(format="%,.0f"),
            "Dollars": st.column_config.NumberColumn(format=DOLLARS),
            "Time": st.column_config.NumberColumn(format="%.1f s"),
            "Detail": st.column_config.TextColumn(width="large"),
        },
        alt=f"{things(found, 'sample')} with verdict and what each took",
    )


def safe(verdict: str) -> str:
    """A verdict as a choice: ours as they are, any other one so that nothing reads it as marks."""
    return verdict if re.fullmatch("[a-z]+(_[a-z]+)*", verdict) else escaped(verdict)


def sample_cells(one: SampleRow) -> dict[str, Any]:
    """A sample as a row of the table."""
    both = (one.prompt_tokens, one.completion_tokens)
    detail = " ".join(plain(one.detail or one.error_kind or "").split())
    return {
        "Problem": plain(one.problem_id) + (f" #{one.sample}" if one.sample else ""),
        "Verdict": f"{mark(one.verdict)} {one.verdict}",
        "Calls": one.calls,
        "Tokens": None if None in both else sum(n for n in both if n is not None),
        "Dollars": number(dollars(one.fresh_cost_usd)),
        "Time": one.wall_s,
        "Detail": shortened(detail, 300),
    }


def rounds_part(results: Results, row: BoardRow) -> None:
    """What each round brought: feedback beside hidden score, and best-of-n at equal cost."""
    rounds, rival = kept(results, ("rounds", row.run_id), lambda: both_rounds(results, row))
    if not rounds:
        return
    st.subheader("Rounds", anchor=False)
    if any(one.hidden is not None for one in rounds):
        unit = chart_unit(rounds)
        if any(getattr(one, unit) is not None for one in rounds):
            beside = None if rival is None else tuple(rival[1])
            draw_chart(charts.rounds_chart, tuple(rounds), beside, unit)
    names, lines = round_table(rounds, rival and rival[1])
    plain_table(names, lines)
    beside_it = (f"{rival[0].named} ({rival[0].run_id})", rival[1]) if rival else None
    if notes := round_notes(rounds, row.method, beside_it):
        st.caption(escaped(f"{'. '.join(notes)}."))


def both_rounds(
    results: Results, row: BoardRow
) -> tuple[list[Round], tuple[BoardRow, list[Round]] | None]:
    """The rounds of a run, and of the best-of-n run that may be set beside it."""
    rounds = run_rounds(results.connection, row.run_id)
    return rounds, best_of_n(results.connection, row) if rounds else None


def chart_unit(rounds: Sequence[Round]) -> Unit:
    """What the lines are drawn over: calls, or if it is chosen what these cost."""
    price = price_unit(rounds)
    if price is None:
        return "calls"
    words = {WORDS[unit].capitalize(): unit for unit in ("calls", price)}
    chosen = st.segmented_control("Over", list(words), default="Calls", key="over",
                                  label_visibility="collapsed", bind="query-params")  # fmt: skip
    return words.get(str(chosen), "calls")


def headline(row: BoardRow) -> None:
    """What a run came to."""
    found = row.estimate
    if row.kind == "simulated":
        st.warning(escaped("This run is simulated: its numbers say nothing about a model."))
    elif row.kind == "imported":
        tool = (row.origin and row.origin.tool) or "an unknown tool"
        st.info(escaped(f"This run was graded by {tool}, not here: it is in no ranking."))
    elif row.unranked:
        st.info(escaped(f"This run is in no ranking: {row.unranked}."))
    between = f"95% interval {percent(found.low)} to {percent(found.high)}"
    asked = f" of {count(row.problems_asked)}" if row.problems_asked is not None else ""
    metrics(
        {"pass@1": "unknown" if found.value is None else f"{percent(found.value)} %",
         "Problems": f"{count(found.problems)}{asked}",
         "Calls a sample": count(row.per_sample(row.calls)),
         "Tokens a sample": count(row.per_sample(row.tokens)),
         "Dollars": dollars(row.fresh_cost_usd),
         "Time a sample": duration(row.per_sample(row.wall_s))},
        {} if found.value is None else {"pass@1": between},
    )  # fmt: skip
    left = f", {row.samples_left:,} left" if row.samples_left else ""
    words = [] if found.value is None else [between]
    words += [f"worker {row.worker}", f"meta-agent {row.meta or 'none'}",
              *(f"{name} {getattr(row, name) or 'unknown'}"
                for name in ("list", "protocol", "level")),
              f"status {row.status or 'not started'}{left}"]  # fmt: skip
    if paid := paid_line(row.cost_usd, row.fresh_cost_usd, row.cached_calls or 0, row.calls or 0):
        words.append(paid)
    words += [f"overlap-free {percent(row.overlap_free)}"] if row.overlap_free is not None else []
    words += [f"{things(row.left_out, 'problem')} left out"] if row.left_out else []
    words += ["custom data"] if row.custom else []
    if row.search is not None:
        words.append(f"search before it: {row.search.words}")
    if found.errored:
        words.append(
            f"{things(found.errored, 'errored sample')}: pass@1 between {percent(found.floor)} and "
            f"{percent(found.ceiling)} were they graded"
        )
    st.caption(escaped(" · ".join(words)))
    if row.search is not None and row.search.run is not None:
        st.button("Its search", on_click=go, args=("searches",), kwargs={"run": row.search.run},
                  type="tertiary")  # fmt: skip


def about(row: BoardRow) -> None:
    """With what a run was made, folded."""
    with st.expander("How this run was made"):
        dirty = " with uncommitted changes" if row.dirty else ""
        started = "unknown" if row.started_at is None else stamp(row.started_at)
        lines = {
            "run": row.run_id, "started": started, "command": row.command, "knobs": row.knobs,
            "seed": row.seed, "samples": f"{row.n_samples} per problem", "sandbox": row.sandbox,
            "grader": row.grader_version, "prices": row.price_table,
            "data": row.benchmark_digest, "packages": row.environment,
            "commit": f"{row.commit}{dirty}",
        }  # fmt: skip
        code("\n".join(f"{name:<9}{value}" for name, value in lines.items()))
