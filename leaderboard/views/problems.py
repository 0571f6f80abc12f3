"""Problems x systems: who solves which, the hardest problems, those on which systems differ most.

Systems stand side by side only where their verdicts are of the same thing: what must agree for a
ranking, but for the prices, which decide no verdict.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from harness.metrics import Tally, count, percent
from harness.page import things
from harness.store import plain, ranking
from leaderboard.charts import MatrixCell, matrix_chart
from leaderboard.outcomes import ProblemRow, hardest, matrix, most_contested
from leaderboard.queries import BoardRow
from leaderboard.widgets import (
    Results,
    Target,
    board_rows,
    clickable,
    clickable_cells,
    escaped,
    first_row,
    is_dark,
    kept,
    links,
    number,
    shortened,
    snapshot_words,
)

if TYPE_CHECKING:
    import pyarrow as pa

TITLE = "Problems"
PATH = "problems"

LIST = 10  # of the hardest and of the most contested
DRAWN = 1500  # cells that are drawn as a heat map beside the table; more are slow to draw
ORDERS = ("as in the benchmark", "hardest first", "most contested first")
HEAD = ("Problem", "Solved", "Contested")  # columns before those of the systems


def page(results: Results) -> None:
    """One table of problems and systems, of what the address asks for."""
    st.title("Problems", anchor=False)
    apart = tables(board_rows(results))
    if not apart:
        first_row("No run has a verdict yet. This command makes the first one.")
        return
    left, right = st.columns([1, 2])
    benchmark = left.selectbox("Benchmark", sorted(apart), key="benchmark", bind="query-params")
    of_it = apart[benchmark]
    words = right.text_input("Problem", key="search", placeholder="Search: part of a problem's id",
                             bind="query-params", icon=":material/search:")  # fmt: skip
    data = next(iter(of_it))
    if len(of_it) > 1:
        data = st.selectbox(
            "Data", list(of_it), key="data", bind="query-params",
            help="Runs on other rows, lists, protocols or graders are in a table of their own",
        )  # fmt: skip
    systems = of_it[data]
    ids = tuple(row.run_id for row in systems)
    found = kept(results, ("matrix", ids), lambda: compact(matrix(results.connection, ids)))
    terms = (words or "").casefold().split()
    shown = searched(found, terms)
    st.caption(
        escaped(
            f"{data[0].upper()}{data[1:]}: {count(len(shown))} of {things(len(found), 'problem')}, "
            f"{things(len(systems), 'system')}, the best first. Solved: mean over systems of the "
            "share of samples that pass, in percent. Contested: 100 where half of the systems "
            "always solve it and the others never, 0 where all solve it equally often."
        )
    )
    if not shown:
        st.info("No problem matches this search.")
        return
    if not terms:
        lists(found)
    matrix_part(results, systems, found, shown)
    st.caption(escaped(f"{things(len(systems), 'system')}; {snapshot_words(results)}."))


def searched(rows: Sequence[ProblemRow], terms: Sequence[str]) -> list[ProblemRow]:
    """The problems whose id holds each of the words; one whose whole id is searched for alone."""
    alone = [row for row in rows if row.problem_id.casefold().split() == list(terms)]
    return alone or [
        row for row in rows if all(term in row.problem_id.casefold() for term in terms)
    ]


def compact(rows: Sequence[ProblemRow]) -> list[ProblemRow]:
    """The same with every outcome once in memory: of 100,000 cells a few differ."""
    once: dict[Tally | None, Tally | None] = {}
    return [replace(row, cells=tuple(once.setdefault(cell, cell) for cell in row.cells))
            for row in rows]  # fmt: skip


def tables(rows: Sequence[BoardRow]) -> dict[str, dict[str, list[BoardRow]]]:
    """Rows with a verdict by benchmark, then by what their verdicts are of; the largest first."""
    apart: dict[tuple[str, ...], list[BoardRow]] = {}
    for row in rows:
        if row.estimate.problems:
            apart.setdefault(ranking({**vars(row), "price_table": None}), []).append(row)
    found: dict[str, dict[str, list[BoardRow]]] = {}
    for members in sorted(apart.values(), key=lambda some: -len(some)):
        of_it = found.setdefault(members[0].benchmark, {})
        of_it[table_name(members[0], of_it)] = members
    return found


def table_name(row: BoardRow, taken: Container[str]) -> str:
    """What the verdicts of a row are of; the more of it, the more of the words are taken."""
    words = [f"list {row.list or 'unknown'}", f"protocol {row.protocol or 'unknown'}"]
    words += ["custom data"] if row.custom else []
    more = [f"data {(row.benchmark_digest or 'unknown')[:12]}",
            f"grader {row.grader_version or 'unknown'}",
            f"environment {row.environment or 'unknown'}", f"run {row.run_id}"]  # fmt: skip
    while plain(", ".join(words)) in taken:
        words.append(more.pop(0))
    return plain(", ".join(words))


def lists(found: Sequence[ProblemRow]) -> None:
    """The hardest problems, and beside them the most contested."""
    left, right = st.columns(2)
    hard = hardest(found, LIST)
    apart = most_contested(found, LIST)
    with left:
        st.subheader("Hardest", anchor=False)
        short_list("hardest", hard, "Solved", [percent(row.solved) for row in hard])
    with right:
        st.subheader("Most contested", anchor=False)
        if apart:
            values = [percent(row.contested, 0) for row in apart]
            short_list("contested", apart, "Contested", values)
        else:
            st.caption("No two systems differ on any problem.")


def search_for(target: Target) -> None:
    """Show one problem alone: its id becomes the search, and what else is chosen stays."""
    st.session_state["search"] = target[1]["search"]


def short_list(key: str, rows: Sequence[ProblemRow], name: str, values: Sequence[str]) -> None:
    """Some problems, each with a number; a click shows that problem alone."""
    clickable(
        [
            {"Problem": row.problem_id, name: number(value),
             "Solved by": f"{row.solvers} of {row.systems}"}
            for row, value in zip(rows, values, strict=True)
        ],
        key,
        [("problems", {"benchmark": st.session_state.get("benchmark"),
                       "data": st.session_state.get("data"), "search": row.problem_id})
         for row in rows],
        {},
        alt=f"{name}: the first {len(rows)} problems",
        click=search_for,
    )  # fmt: skip


def matrix_part(
    results: Results,
    systems: Sequence[BoardRow],
    found: Sequence[ProblemRow],
    shown: Sequence[ProblemRow],
) -> None:
    """Every problem and system; a click on a cell opens the trajectory behind it."""
    st.subheader("Who solves what", anchor=False)
    order = st.segmented_control("Order", ORDERS, default=ORDERS[0], key="order", required=True,
                                 label_visibility="collapsed", bind="query-params")  # fmt: skip
    place = {row.problem_id: number for number, row in enumerate(found)}
    if order == ORDERS[1]:
        shown = hardest(shown)
    elif order == ORDERS[2]:
        shown = sorted(shown, key=lambda row: -(row.contested or 0.0))
    names = system_names(systems)
    st.caption(
        "● solved · ○ not solved · 2/3 solved in two of three samples · ? no verdict · empty: not "
        "attempted. Click a cell for its trajectory."
    )
    if len(shown) * len(systems) <= DRAWN:
        cells = [
            MatrixCell(problem=row.problem_id, system=name, share=share(cell),
                       samples=cell.graded if cell else 0)
            for column, name in enumerate(names)
            for row in shown
            for cell in [row.cells[column]]
        ]  # fmt: skip
        st.altair_chart(matrix_chart(cells, dark=is_dark()), theme=None, width="stretch")
    ids = tuple(row.run_id for row in systems)
    whole = kept(results, ("cells", ids), lambda: cell_table(found, names))
    rows = list(shown)

    def target(row: int, column: str) -> Target | None:
        at = names.index(column) if column in names else None
        if at is None or rows[row].cells[at] is None:
            return None
        sample = f"{rows[row].problem_id}:0"
        return "trajectory", {"run": systems[at].run_id, "sample": sample}

    if len(rows) * len(systems) <= DRAWN:
        links(
            [
                [
                    (f"{row.problem_id}, {name}: {mark(row.cells[at])}", to)
                    for at, name in enumerate(names)
                    if (to := target(place_of, name)) is not None
                ]
                for place_of, row in enumerate(rows)
            ]
        )
    else:
        st.caption("A search for a part of a problem's id shows its trajectories as plain links.")
    text = st.column_config.TextColumn
    clickable_cells(
        whole.take([place[row.problem_id] for row in rows]),
        "matrix",
        target,
        {
            "Problem": text(pinned=True),
            **{name: st.column_config.NumberColumn(format="%.1f", width=80) for name in HEAD[1:]},
            **{name: text(width=84, alignment="center") for name in names},
        },
        alt="Every problem with the verdict of every system",
    )


def system_names(systems: Sequence[BoardRow]) -> list[str]:
    """A short name for the column of each system, no two the same."""
    several = len({row.worker for row in systems}) > 1
    found: list[str] = []
    for row in systems:
        note = "" if row.kind == "measured" else f" ({row.kind})"
        worker = f" · {row.worker.rpartition('/')[2]}" if several else ""
        name = plain(f"{row.named}{note}{worker}")
        name = shortened(name, 60)
        again = sum(one == name or one.startswith(f"{name} #") for one in found)
        found.append(f"{name} #{again + 1}" if again or name in HEAD else name)
    return found


def share(cell: Tally | None) -> float | None:
    return cell.passed / cell.graded if cell is not None and cell.graded else None


def mark(cell: Tally | None) -> str:
    """How a system did on a problem, as one mark."""
    if cell is None:
        return ""
    if not cell.graded:
        return "?"
    if cell.samples == 1:
        return "●" if cell.passed else "○"
    return f"{cell.passed}/{cell.graded}"


def cell_table(found: Sequence[ProblemRow], names: Sequence[str]) -> pa.Table:
    """All problems as rows and all systems as columns, in the order given."""
    import pyarrow as pa

    columns: dict[str, Any] = {
        "Problem": [plain(row.problem_id) for row in found],
        "Solved": [number(percent(row.solved)) for row in found],
        "Contested": [number(percent(row.contested)) for row in found],
    }
    for place, name in enumerate(names):
        columns[name] = pa.array([mark(row.cells[place]) for row in found], pa.string())
    return pa.table(columns)
