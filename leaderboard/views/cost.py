"""Score against what it took: dollars, calls, tokens or time, one chart for each ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from harness.metrics import percent
from harness.page import things
from harness.store import plain
from leaderboard.charts import MEASURES, SAID, Measure, Spread, cost_chart, spread_chart
from leaderboard.costs import (
    CostRow,
    ProblemCost,
    by_problem,
    cached_rows,
    cost_rows,
    drawable,
    labels,
    points,
    search_words,
    solved_words,
    spreads,
    standing,
)
from leaderboard.export import title
from leaderboard.queries import BoardRow, Group, groups
from leaderboard.widgets import (
    DOLLARS,
    NAME,
    Results,
    accept,
    board_rows,
    bound,
    clickable,
    draw_chart,
    escaped,
    first_row,
    is_dark,
    kept,
    number,
    shortened,
    snapshot_words,
    stale,
)

TITLE = "Cost"
PATH = "cost"

UNITS: dict[str, Measure] = {"Dollars": "usd", "Calls": "calls", "Tokens": "tokens",
                             "Time": "time"}  # as the address has them  # fmt: skip
MOST = 6  # rankings that are drawn at once
LEAST, SPREAD, MOST_SPREAD = 1, 1000, 1_000_000  # problems that a search is spread over
FORMATS: dict[Measure, str] = {"usd": DOLLARS, "calls": "%.1f", "tokens": "%,.0f",
                               "time": "%.1f s"}  # of the column  # fmt: skip
NOTES: dict[Measure, str] = {
    "usd": "Dollars are the price with no reply taken from a cache.",
    "calls": "Calls are those to models, of every role.",
    "tokens": "Tokens are those of prompts and completions together.",
    "time": "Time is without waits for a turn at the model.",
}


def page(results: Results) -> None:
    """The rankings that the address asks for, each as chart, table and distribution."""
    accept("cost", "over", UNITS)
    st.title("What does a score cost?", anchor=False)
    rows = board_rows(results)
    if not rows:
        first_row("The database holds no run yet. This command makes the first row.")
        return
    shown, unit, spread = chosen(rows)
    ids = {row.run_id for row in shown}
    st.caption(
        escaped(
            "pass@1 with its 95% interval, against the mean of a sample. The dashed steps are the "
            "Pareto front: no complete measured row does better for no more, or as well for less. "
            f"Hollow marks are in no ranking. {NOTES[unit]}"
        )
    )
    found = [group for group in groups(rows) if any(row.run_id in ids for row in group.rows)]
    if not found:
        st.info("No run matches these filters.")
    for place, group in enumerate(found[:MOST]):
        ranking(results, group, ids, unit, spread, place)
    if len(found) > MOST:
        st.info(
            escaped(
                f"{len(found) - MOST} more rankings match, which may not stand in the same chart; "
                "choose a benchmark or a worker above to see them."
            )
        )
    stale(results)
    st.caption(escaped(f"{things(len(shown), 'run')}; {snapshot_words(results)}."))


def chosen(rows: Sequence[BoardRow]) -> tuple[list[BoardRow], Measure, int | None]:
    """The rows that the filters let through, the unit, and over how many problems a search goes."""
    shown = list(rows)
    priced = any(row.fresh_cost_usd for row in rows)
    with st.container(horizontal=True, vertical_alignment="center"):
        over = st.segmented_control(
            "Over", list(UNITS), default="Dollars" if priced else "Tokens", key="over",
            label_visibility="collapsed", bind="query-params", required=True,
        )  # fmt: skip
        counted = st.toggle(
            "Search counted in", key="search", bind="query-params",
            help="What finding a method's workflow took before is spread over so many problems",
        )  # fmt: skip
        spread = SPREAD
        if counted:
            told = st.number_input(
                "Problems that it serves", LEAST, MOST_SPREAD, SPREAD, key="spread",
                bind=bound("spread"), width=180,
            )  # fmt: skip
            spread = int(told or SPREAD)
    places = st.columns(2)
    for place, name in zip(places, ("benchmark", "worker"), strict=True):
        wanted = place.multiselect(
            name.capitalize(), sorted({getattr(row, name) for row in rows}), key=name,
            placeholder=f"All {name}s", label_visibility="collapsed", bind="query-params",
        )  # fmt: skip
        shown = [row for row in shown if not wanted or getattr(row, name) in wanted]
    return shown, UNITS[str(over)], spread if counted else None


def ranking(
    results: Results, group: Group, shown: set[str], unit: Measure, spread: int | None, place: int
) -> None:
    """One ranking: rows of another one are never in the same chart."""
    ids = tuple(row.run_id for row in group.rows)

    def problems() -> dict[str, list[ProblemCost]]:  # a line each: too many to be kept
        return by_problem(results.connection, ids, unit)

    made = kept(results, ("costs", unit, spread, ids),
                lambda: cost_rows(group, problems(), unit, spread))  # fmt: skip
    rows = [one for one in made if one.row.run_id in shown]
    st.subheader(escaped(title(group)), anchor=False)
    spoken = " with search" if spread is not None else ""
    if spread is not None:
        st.caption(escaped(search_words(rows, unit, spread)))
    if unit == "time" and (cached := cached_rows(rows)):
        names = ", ".join(dict.fromkeys(shortened(plain(row.named), NAME) for row in cached))
        st.warning(
            escaped(
                f"Time may not be compared where calls were answered by a cache: {names}. What a "
                "kept reply once took is not in it."
            )
        )
    found = points(rows)
    known = [point.cost for point in found if point.cost is not None]
    if drawable(found):
        label = f"{MEASURES[unit]} of a sample{spoken}, on average"
        draw_chart(cost_chart, tuple(found), unit, label=label)
    elif known and not any(known):
        st.info(escaped(f"All of these took no {unit_words(unit)}: choose another unit above."))
    elif found and not known:
        st.info(escaped(f"What these rows took in {unit_words(unit)} is not known."))
    table(rows, unit, place, labels(group.rows))
    by_itself = st.expander("By problem: not only means", key=f"by problem {place}",
                            on_change="rerun")  # fmt: skip
    if by_itself.open:
        with by_itself:
            problem_part(spreads(rows, problems()), unit)


def problem_part(spreading: Sequence[Spread], unit: Measure) -> None:
    """What single problems took, row by row."""
    if not any(any(one.costs) for one in spreading):
        known = any(one.costs for one in spreading)
        st.info(f"No problem took any {unit_words(unit)}." if known
                else f"What problems took in {unit_words(unit)} is not known.")  # fmt: skip
        return
    st.caption(
        "Box: the middle half of the problems, with their median; line: 5th to 95th percentile; "
        "◆ mean. A search is in none of it."
    )
    st.altair_chart(spread_chart(spreading, unit, dark=is_dark()), theme=None, width="stretch")


def unit_words(unit: Measure) -> str:
    return {"usd": "dollars", "calls": "model calls", "tokens": "tokens", "time": "time"}[unit]


def table(rows: Sequence[CostRow], unit: Measure, place: int, names: Mapping[str, str]) -> None:
    """What the chart shows in numbers; a click on a row opens its run. `names` of runs by id."""
    name = {"usd": "Dollars", "calls": "Calls", "tokens": "Tokens", "time": "Time"}[unit]
    records = [
        {
            "Method": shortened(plain(one.row.named), NAME),
            "pass@1": number(percent(one.row.estimate.value)),
            name: one.cost if unit == "time" else number(SAID[unit](one.cost)),
            "Note": one.note,
            "A solved problem": solved_words(one, unit),
            "Front": standing(one, names),
            "95% interval": None if one.row.estimate.value is None
            else f"{percent(one.row.estimate.low)} – {percent(one.row.estimate.high)}",
            "Search before it": "none" if one.row.search is None else one.row.search.words,
            "From a cache": one.row.cached_calls,
            "Worker": one.row.worker,
            "Run": one.row.run_id,
        }
        for one in rows
    ]  # fmt: skip
    if not any(one.note for one in rows):
        records = [{k: v for k, v in record.items() if k != "Note"} for record in records]
    text, numbers = st.column_config.TextColumn, st.column_config.NumberColumn
    clickable(
        records,
        f"cost-{place}",
        [("trajectory", {"run": one.row.run_id}) for one in rows],
        {
            "Method": text(pinned=True, width=170),  # so that a phone shows the score beside it
            "Note": text(width=140),
            name: numbers(format=FORMATS[unit], width=82, help="Mean of a sample"),
            "pass@1": numbers(format="%.1f", width=74, help="Share of problems solved, in percent"),
            "A solved problem": text(
                help="All that the run took by the problems that it solved, with its 95% interval"
            ),
            "Front": text(help="Whether a row of this ranking does as well or better for less"),
            "From a cache": numbers(help="Calls answered by kept replies"),
        },
        alt="Score, cost of a sample and of a solved problem, and who does better for less",
    )
