"""The paper's tables and Figure 4: what was measured here beside what the paper printed.

The two are never ranked together. How their protocols differ is said in words
(`harness.reported.PROTOCOL`), and so are the contradictions of the printed numbers.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import streamlit as st

from harness import reported
from harness.errors import UsageError
from harness.metrics import count, percent
from harness.page import things
from leaderboard.charts import AblationBar, ablation_chart
from leaderboard.figures import SizeBar, ablation, size_chart, sizes
from leaderboard.paper import (
    COLUMNS,
    TITLES,
    Number,
    PaperTable,
    build,
    column_of,
    reported_rows,
)
from leaderboard.paper_text import STYLE, WRITERS, html_part
from leaderboard.widgets import (
    Results,
    accept,
    board_rows,
    code,
    escaped,
    is_dark,
    kept,
    plain_table,
    refused,
    snapshot_words,
    stale,
)

TITLE = "Paper"
PATH = "paper"

FIGURE = "Figure 4"
STACKED = """<style>
@media (max-width: 640px) {
  .st-key-differences :is(table, tbody, tr, td) {display: block; width: 100%; min-width: 0}
  .st-key-differences td * {display: inline !important; margin: 0}
  .st-key-differences thead {display: none}
  .st-key-differences td {border: none; padding: 0.1rem 0}
  .st-key-differences td:first-child {font-weight: 600; padding-top: 0.6rem}
  .st-key-differences td:nth-child(2)::before {content: "In the paper: "; opacity: 0.7}
  .st-key-differences td:nth-child(3)::before {content: "Here: "; opacity: 0.7}
}
</style>"""  # a table of long texts is a list on a phone
TABLES: dict[str, Number] = {"Table 1": 1, "Table 2": 2, "Table 3": 3}  # as the address says it
NOTHING = "There is nothing measured to show here yet."
UNLIKE = "These runs may not share a table."
DIGITS = 2  # of a percentage, as the paper prints
FILES = (("LaTeX", "latex", "tex"), ("Markdown", "markdown", "md"), ("CSV", "csv", "csv"))


def page(results: Results) -> None:
    """The table or figure that the address names, and what keeps it apart from the paper's."""
    accept("paper", "table", [*TABLES, FIGURE])
    st.title("The paper's tables, measured", anchor=False)
    chosen = st.segmented_control(
        "Table", [*TABLES, FIGURE], default="Table 1", key="table", label_visibility="collapsed",
        bind="query-params", required=True,
    )  # fmt: skip
    if chosen == FIGURE:
        figure_part(results)
    else:
        table_part(results, TABLES[str(chosen)])
    differences()
    doubts()
    stale(results)
    st.caption(escaped(f"{snapshot_words(results)}."))


def table_part(results: Results, number: Number) -> None:
    """One table with its filters and downloads."""
    told, protocol, beside, anyway = filters(results)
    made: PaperTable | None = None
    try:
        made = kept(
            results,
            ("paper", number, told, protocol, beside, anyway),
            lambda: build(results.connection, number, with_reported=beside, anyway=anyway,
                          list_name=told, protocol=protocol),
        )  # fmt: skip
    except UsageError as error:
        none = "no complete" in str(error) or "simulated" in str(error)
        refused(NOTHING if none else UNLIKE, error)
    if made is None:
        rows = tuple(reported_rows(number))
        note = "Reported, not measured here. Nothing of these rows is compared with ours."
        made = PaperTable(number, f"{TITLES[number]}, as printed", rows, (), (note,))
    st.html(STYLE)
    st.html(html_part(made, DIGITS, compact=True))
    with st.container(horizontal=True):
        for name, form, suffix in FILES:
            st.download_button(f"Download {name}", WRITERS[form](made, DIGITS),
                               f"table{number}.{suffix}", type="tertiary")  # fmt: skip
    st.caption("The same on the command line:")
    command = f"python -m harness export --table {number} --format latex"
    command += "".join(f" --{name} {value}" for name, value in
                       (("list", told), ("protocol", protocol)) if value)  # fmt: skip
    code(command + (" --with-reported" if beside else "") + (" --anyway" if anyway else ""), "bash")


def filters(results: Results) -> tuple[str | None, str | None, bool, bool]:
    """(list, protocol, whether reported rows stand beside, whether unlike rows do)."""
    pairs = Counter(
        (row.list or "", row.protocol or "")
        for row in board_rows(results)
        if row.unranked is None and column_of(row.benchmark) is not None
    )
    names = {
        f"list {told}, protocol {protocol}": (told, protocol)
        for (told, protocol), _ in pairs.most_common()
    }
    with st.container(horizontal=True, vertical_alignment="center"):
        beside = st.toggle("Reported rows", value=True, key="reported", bind="query-params")
        anyway = st.toggle(
            "Unlike rows too", key="anyway", bind="query-params",
            help="Runs that may not share a ranking in one table, each with what differs",
        )  # fmt: skip
        if len(names) > 1 and not anyway:
            one = st.selectbox(
                "List and protocol", list(names), key="of", bind="query-params", width=260,
                label_visibility="collapsed",
            )  # fmt: skip
            told, protocol = names[str(one)]
            return told or None, protocol or None, beside, anyway
    return None, None, beside, anyway


def figure_part(results: Results) -> None:
    """Figure 4's panels and the sizes of workflows, from our runs; what is said of the paper's."""
    st.subheader("Meta-agents and workers, exchanged", anchor=False)
    try:
        panels: dict[str, list[AblationBar]] = kept(
            results, "ablation", lambda: ablation(results.connection)
        )
        for title, bars in panels.items():
            chart = ablation_chart(bars, title=title, dark=is_dark())
            st.altair_chart(chart, theme=None, width="stretch", key=f"panel-{title}")
            plain_table(
                ["Exchanged", "pass@1", "95% interval", "Broken workflows"],
                [[bar.name, percent(bar.score), f"{percent(bar.low)} to {percent(bar.high)}",
                  "unknown" if bar.broken is None else f"{percent(bar.broken)} %"]
                 for bar in bars],
            )  # fmt: skip
    except UsageError as error:
        refused("There are not enough runs yet to exchange one and keep the other.", error)
    st.subheader("Size of workflows by benchmark", anchor=False)
    try:
        bars_of: list[SizeBar] = kept(results, "sizes", lambda: sizes(results.connection))
        chart = size_chart(bars_of, dark=is_dark())
        st.altair_chart(chart, theme=None, width="stretch", key="sizes")
        plain_table(
            ["Benchmark", "Size", "Mean", "95% interval", "Problems"],
            [[bar.benchmark, bar.measure, count(bar.value), _between(bar),
              str(bar.problems)] for bar in bars_of],
        )  # fmt: skip
    except UsageError as error:
        refused("No run has workflows whose size could be told.", error)
    st.subheader("What is said of the paper's Figure 4", anchor=False)
    st.caption("It has no digits; these come from elsewhere, and are in no chart.")
    plain_table(
        ["Percent", "What it is said to be", "Source"],
        [[row["printed"], row["note"], row["source"]]
         for row in reported.rows() if row["place"] == "figure 4"],
    )  # fmt: skip


def _between(bar: SizeBar) -> str:
    if bar.low is None or bar.high is None:
        return "unknown: one problem"
    return f"{count(bar.low)} to {count(bar.high)}"


def differences() -> None:
    """Why the two are not compared."""
    st.subheader("What differs from the paper", anchor=False)
    st.html(STACKED)
    with st.container(key="differences"):
        plain_table(["What", "In the paper", "Here"], [list(row) for row in reported.PROTOCOL])


def doubts() -> None:
    """What is known of the printed numbers themselves."""
    with st.expander("Overall, recomputed from the printed columns"):
        weights = ", ".join(f"{n} {name}" for name, n in reported.PROBLEMS.items())
        st.caption(
            escaped(
                f"The mean over all problems, with weights {weights}, which are inferred. Rounding "
                f"can make a difference of {reported.ROUNDING}."
            )
        )
        plain_table(
            ["Row", "Printed", "Recomputed", "Difference", ""],
            [[f"{one.place}, {one.row_key}", str(one.printed),
              str(one.recomputed.quantize(Decimal("0.001"))),
              str(one.difference.quantize(Decimal("0.001"))),
              "" if one.exact else "beyond rounding"] for one in reported.overalls()],
        )  # fmt: skip
    cells: Counter[str] = Counter(place for place, _, _ in reported.no_strict_score())
    with st.expander("Printed scores that no strict pass@1 gives"):
        total = len(reported.no_strict_score())
        st.caption(
            escaped(
                "A strict pass@1 of one to five runs is a whole number of solved problems over all "
                f"samples. {things(total, 'cell')} of tables 1 and 2 are no such number on the "
                f"inferred lists ({', '.join(f'{n} in {place}' for place, n in cells.items())}, "
                "one row standing in both): most scores beside vanilla's are probably mean shares "
                "of passed tests."
            )
        )
        named: dict[tuple[str, str], list[Any]] = {}
        for place, key, name in reported.no_strict_score():
            named.setdefault((place, key), []).append(name)
        plain_table(["Row", *COLUMNS],
                    [[f"{place}, {key}", *("no" if name in names else "" for name in COLUMNS)]
                     for (place, key), names in named.items()])  # fmt: skip
    with st.expander("Contradictions of the printed numbers"):
        plain_table(["Where", "What"], [list(row) for row in reported.DISCREPANCIES])
