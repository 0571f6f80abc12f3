"""The board: method x worker x benchmark, one table for each ranking.

Ranks are places among all rows of a ranking, whatever the filters show: they come from paired
comparisons of all of them (`harness.paired.tie_groups`).
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from harness.metrics import count, dollars, duration, percent
from harness.page import things
from harness.paired import Rank, tie_groups
from harness.store import open_snapshot, plain
from leaderboard.export import Format, table, title
from leaderboard.outcomes import outcomes
from leaderboard.queries import (
    TOLERANCE,
    BoardRow,
    Equal,
    Group,
    ReportedRow,
    groups,
    matching,
    reported,
    stage_of,
)
from leaderboard.widgets import (
    DOLLARS,
    NAME,
    Results,
    Target,
    accept,
    board_rows,
    clickable,
    day,
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
)

TITLE = "Board"
PATH = ""

QUESTION = "Does this workflow solve more than one call of the same model?"
RANKED: dict[str, Equal] = {"All": "all", "Equal level": "level", "Equal calls": "calls",
                           "Equal dollars": "dollars"}  # as the address has them  # fmt: skip
SIZES: dict[str, tuple[float, float]] = {  # parameters in billions, above the first
    "to 1B": (0, 1), "1B to 4B": (1, 4), "4B to 15B": (4, 15), "15B to 80B": (15, 80),
    "over 80B": (80, float("inf")),
}  # fmt: skip
RANK = "rank"
SORTS: dict[str, Callable[[BoardRow], float | None]] = {  # upwards
    RANK: lambda row: 0,  # as the ranking has them
    "dollars": lambda row: row.fresh_cost_usd,
    "dollars a solved problem": lambda row: row.cost_per_solved,
    "calls": lambda row: row.per_sample(row.calls),
    "tokens": lambda row: row.per_sample(row.tokens),
    "time": lambda row: row.per_sample(row.wall_s),
    "newest": lambda row: None if row.started_at is None else -row.started_at,
}
UNTOLD = "not told"
WEIGHTS = {"open": True, "closed": False, UNTOLD: None}
LEAST = 100  # problems, below which a score says little
RANKINGS = 64  # whose ranks are kept, of whatever snapshots


def page(results: Results) -> None:
    """The whole board, or as much of it as the address asks for."""
    onward(results)
    accept("board", "rank", RANKED)
    st.title(QUESTION, anchor=False)
    rows = board_rows(results)
    if not rows:
        first_row("The database holds no run yet. This command makes the first row.")
        return
    shown, equal, sort = filtered(rows)
    st.caption(
        "pass@1 in percent with its 95% interval. ★ best of the complete measured runs; the rank "
        "is the range of places that paired comparisons leave open. Click a row for its samples."
    )
    if EQUAL_WORDS[equal]:
        st.caption(EQUAL_WORDS[equal])
    ids = {row.run_id for row in shown}
    found = [group for group in groups(rows, equal) if any(row.run_id in ids for row in group.rows)]
    if not found:
        st.info("No run matches these filters.")
    drawn = [(group, of_it(group, ids, sort), ranks_of(results, group)) for group in found]
    if drawn:  # before the others, in which Tab goes from cell to cell
        st.html(screen_table(drawn))
    for place, (group, rows_of_it, ranks) in enumerate(drawn):
        ranking(group, rows_of_it, ranks, place)
    if st.session_state.get("reported"):
        reported_part(results, shown)
    downloads(results, rows)
    stale(results)
    st.caption(
        escaped(f"{len(shown)} of {things(len(rows), 'run')} shown; {snapshot_words(results)}.")
    )


def onward(results: Results) -> None:
    """Addresses of before (`/?run=…`) lead to the run; once, so that going back comes back here."""
    run_id, sample = st.query_params.get("run"), st.query_params.get("sample")
    if run_id is not None:
        if not st.session_state.get("been on the board"):
            st.session_state["been on the board"] = True
            view = "searches" if stage_of(results.connection, run_id) == "fit" else "trajectory"
            go(view, run=run_id, sample=sample)
        for name in ("run", "sample"):
            st.query_params.pop(name, None)
    st.session_state["been on the board"] = True


EQUAL_WORDS: dict[Equal, str] = {
    "all": "",
    "level": "Only rows of one level, of what a method may do with feedback tests, are ranked "
    "together.",
    "calls": f"Only rows whose mean calls a sample lie within {percent(TOLERANCE, 0)} % of the "
    "least of them are ranked together.",
    "dollars": f"Only rows whose mean dollars a sample lie within {percent(TOLERANCE, 0)} % of the "
    "least of them are ranked together; dollars are those with no reply from a cache.",
}  # fmt: skip


def filtered(rows: Sequence[BoardRow]) -> tuple[list[BoardRow], Equal, str]:
    """The rows that the filters let through, what is to be equal, and by what to sort.

    The address has all of it; a click on a column's head sorts too, until the page is left.
    """
    shown = list(rows)
    places = st.container(key="filters").columns(4)
    words = places[0].text_input(
        "Search", key="search", placeholder="Search: several words, all must match",
        label_visibility="collapsed", bind="query-params", icon=":material/search:",
    )  # fmt: skip
    shown = matching(shown, words or "")
    for place, name in zip(places[1:], ("benchmark", "method", "worker"), strict=True):
        wanted = chosen_of(place.multiselect, name, {getattr(row, name) for row in rows})
        shown = [row for row in shown if not wanted or getattr(row, name) in wanted]
    with st.container(horizontal=True, vertical_alignment="center"):
        ranked = st.segmented_control(
            "Rank", list(RANKED), default="All", key="rank", label_visibility="collapsed",
            bind="query-params", required=True,
        )  # fmt: skip
        complete = st.toggle("Complete only", key="complete", bind="query-params",
                             help="Only measured runs in which all that was asked for has a "
                             "verdict, on all problems of their ranking")  # fmt: skip
        st.toggle(
            "Reported beside", key="reported", bind="query-params",
            help="What papers print on these benchmarks, in a section of its own",
        )  # fmt: skip
        with st.popover(more_words(), icon=":material/tune:"):
            levels = chosen_of(st.multiselect, "level", {row.level or "unknown" for row in rows})
            weights = chosen_of(st.multiselect, "weights", WEIGHTS, "Weights of the worker")
            sizes = chosen_of(st.multiselect, "size", (*SIZES, UNTOLD), "Size of the worker")
            sort = st.selectbox("Sort by", list(SORTS), key="sort", bind="query-params")
    if complete:
        full = {row.run_id for group in groups(rows) for row in group.ranked}
        shown = [row for row in shown if row.run_id in full]
    shown = [
        row
        for row in shown
        if (not levels or (row.level or "unknown") in levels)
        and (not weights or row.facts[0] in [WEIGHTS[one] for one in weights])
        and (not sizes or size_of(row) in sizes)
    ]
    return shown, RANKED.get(str(ranked), "all"), sort


def chosen_of(
    widget: Callable[..., list[str]], name: str, options: Any, label: str | None = None
) -> list[str]:
    """What is chosen of some options; the address remembers it under the name."""
    ordered = sorted(options) if isinstance(options, set) else list(options)
    return widget(
        label or name.capitalize(), ordered, key=name, bind="query-params",
        placeholder="Any" if label or name == "level" else f"All {name}s",
        label_visibility="visible" if label or name == "level" else "collapsed",
    )  # fmt: skip


def more_words() -> str:
    used = sum(bool(st.session_state.get(name)) for name in ("level", "weights", "size"))
    used += st.session_state.get("sort", RANK) != RANK
    return f"More filters ({used})" if used else "More filters"


def size_of(row: BoardRow) -> str:
    params_b = row.facts[1]
    if params_b is None:
        return UNTOLD
    return next(name for name, (low, high) in SIZES.items() if low < params_b <= high)


def ranks_of(results: Results, group: Group) -> dict[str, Rank]:
    """The places of the rows of a ranking, by run.

    Made once for all snapshots in which these rows have the same outcomes: while a run goes on,
    the finished rows of other rankings are not compared anew every half minute.
    """
    rows = group.ranked
    ids = [row.run_id for row in rows]
    if len(ids) < 2:
        return {}
    key = "\n".join(f"{row.run_id} {row.outcome_set}" for row in rows)
    found: dict[str, Rank] = _ranks(key, lambda: tie_groups(outcomes(results.connection, ids)))
    return found


@st.cache_resource(max_entries=RANKINGS, show_spinner=False)
def _ranks(outcome_sets: str, _make: Callable[[], dict[str, Rank]]) -> dict[str, Rank]:
    del outcome_sets  # it only tells the answers apart
    return _make()


def of_it(group: Group, shown: set[str], sort: str) -> list[BoardRow]:
    """The rows of a ranking that are shown, in their order; what is not known stands last."""
    rows = [row for row in group.rows if row.run_id in shown]
    value = SORTS[sort]
    return sorted(rows, key=lambda row: ((x := value(row)) is None, 0 if x is None else x))


def ranking(group: Group, rows: Sequence[BoardRow], ranks: Mapping[str, Rank], place: int) -> None:
    """One ranking; a click on a row opens its run."""
    first = group.rows[0]
    st.subheader(escaped(heading(group)), anchor=False)
    digest = (first.benchmark_digest or "unknown")[:12]
    made = f", environment {first.environment or 'unknown'}" if first.needs_environment else ""
    few = (f" With {group.problems} problems, differences of a few points say nothing."
           if 0 < group.problems < LEAST else "")  # fmt: skip
    st.caption(
        escaped(
            f"Only these rows may be compared with one another: data {digest}, grader "
            f"{first.grader_version or 'unknown'}, prices {first.price_table or 'unknown'}"
            f"{made}.{few}"
        )
    )
    records = [cells(group, row, ranks) for row in rows]
    if not any(record["Note"] for record in records):
        records = [{k: v for k, v in record.items() if k != "Note"} for record in records]
    clickable(
        records,
        f"board-{place}",
        [target(row) for row in rows],
        columns(),
        alt=f"{heading(group)}; the same as a plain table stands above",
        linked=False,
    )


def heading(group: Group) -> str:
    return title(group) + (f", {group.equal}" if group.equal else "")


def target(row: BoardRow) -> Target:
    return "trajectory", {"run": row.run_id}


def cells(group: Group, row: BoardRow, ranks: Mapping[str, Rank]) -> dict[str, Any]:
    """A row of the table, by the names of its columns."""
    return {
        "Method": star(group, row) + shortened(plain(row.named), NAME),
        "pass@1": number(percent(row.estimate.value)),
        "95% interval": interval_words(row),
        "Rank": rank_words(row, ranks),
        "Note": remark(group, row),
        "Worker": plain(row.worker),
        "Level": row.level,
        "Calls": number(count(row.per_sample(row.calls))),
        "Tokens": number(count(row.per_sample(row.tokens))),
        "Dollars": number(dollars(row.fresh_cost_usd)),
        "$ a solved": number(dollars(row.cost_per_solved)),
        "Time": row.per_sample(row.wall_s),
        "Search": "none" if row.search is None else row.search.words,
        "Overlap-free": number(percent(row.overlap_free)),
        "Problems": progress(row),
        "Left out": row.left_out,
        "Errored": errored(row),
        "Meta-agent": plain(row.meta) if row.meta else "none",
        "Origin": origin_words(row.kind, row.origin),
        "Status": state(row),
        "Started": day(row.started_at),
        "Run": row.run_id,
    }


def columns() -> dict[str, Any]:
    """How the columns are shown."""
    numbers, text = st.column_config.NumberColumn, st.column_config.TextColumn
    return {
        "Method": text(pinned=True, width=170),  # so that a phone shows the score beside it
        "pass@1": numbers(format="%.1f", width=74, help="Share of problems solved, in percent"),
        "Note": text(width=140),
        "Rank": text(
            help="Range of places, from paired comparisons of all rows with Holm's correction"
        ),
        "Level": text(help="What the method may do with feedback tests"),
        "Calls": numbers(format="%.1f", width=82, help="Model calls per sample"),
        "Tokens": numbers(format="%,.0f", width=82, help="Prompt and completion, per sample"),
        "Dollars": numbers(
            format=DOLLARS, width=82, help="For the whole run, with no reply from a cache"
        ),
        "$ a solved": numbers(
            format=DOLLARS, help="Dollars of a sample of each problem, by the problems solved"
        ),
        "Time": numbers(
            format="%.1f s", width=82,
            help="Seconds per sample, without its waits for a turn at the model",
        ),
        "Search": text(
            help="What finding the method's workflow took before, once, in no other number: "
            "dollars, or tokens where it was free"
        ),
        "Overlap-free": numbers(
            format="%.1f", help="pass@1 on hidden tests that no feedback test repeats"
        ),
        "Left out": numbers(help="Problems asked for that could not be run here"),
        "Errored": text(
            help="Samples without a verdict, and pass@1 if all of them had failed or passed"
        ),
        "Origin": text(help="Measured here, imported from another tool's file, or simulated"),
    }  # fmt: skip


def interval_words(row: BoardRow) -> str | None:
    found = row.estimate
    if found.value is None:
        return None
    return f"{percent(found.low)} – {percent(found.high)}"


def rank_words(row: BoardRow, ranks: Mapping[str, Rank]) -> str:
    """The place or places of a row; a dash where it is in no comparison."""
    return str(ranks[row.run_id]).replace("-", "–") if row.run_id in ranks else "–"


def progress(row: BoardRow) -> str:
    asked = f" of {row.problems_asked}" if row.problems_asked is not None else ""
    return f"{row.estimate.problems}{asked}"


def star(group: Group, row: BoardRow) -> str:
    return "★ " if row.run_id in group.best else ""


def remark(group: Group, row: BoardRow) -> str:
    """Why a row is in no rank, and that its data is of its own."""
    return ", ".join(x for x in (group.note(row), "custom data" if row.custom else "") if x)


def state(row: BoardRow) -> str:
    """How a run stands, and how many samples it lacks."""
    left = f", {row.samples_left:,} left" if row.samples_left else ""
    return f"{row.status or 'not started'}{left}"


def errored(row: BoardRow) -> str:
    found = row.estimate
    if not found.errored:
        return "0"
    return f"{found.errored} ({percent(found.floor)} – {percent(found.ceiling)})"


HEAD = ("Method", "pass@1", "95% interval", "Rank", "Worker", "Level", "Calls a sample",
        "Tokens a sample", "Dollars of the run", "Dollars a solved problem", "Time a sample",
        "Problems", "Errored", "Origin", "Status")  # fmt: skip


Drawn = tuple[Group, Sequence[BoardRow], Mapping[str, Rank]]  # a ranking as it is shown


def screen_table(found: Sequence[Drawn]) -> str:
    """The rankings as plain HTML tables, for a screen reader and for the keyboard; escaped."""

    def text(value: str) -> str:
        return html.escape(plain(value))

    parts = ["<details><summary>As plain tables, for screen readers and the keyboard</summary>"]
    for group, rows, ranks in found:
        parts += [
            '<div style="overflow-x: auto" tabindex="0"><table>',
            f"<caption>{text(heading(group))}</caption><thead><tr>",
            *(f'<th scope="col">{text(name)}</th>' for name in HEAD),
            "</tr></thead><tbody>",
        ]
        for row in rows:
            link = f"trajectory?{urlencode({'run': row.run_id})}"
            values = (
                percent(row.estimate.value), interval_words(row) or "unknown",
                rank_words(row, ranks), row.worker, row.level or "unknown",
                count(row.per_sample(row.calls)), count(row.per_sample(row.tokens)),
                dollars(row.fresh_cost_usd), dollars(row.cost_per_solved),
                duration(row.per_sample(row.wall_s)), progress(row), errored(row),
                origin_words(row.kind, row.origin), state(row),
            )  # fmt: skip
            note = remark(group, row)
            name = text(star(group, row) + row.named + (f" ({note})" if note else ""))
            parts += [
                f'<tr><th scope="row"><a href="{html.escape(link)}" target="_self">{name}</a></th>',
                *(f"<td>{text(value)}</td>" for value in values),
                "</tr>",
            ]
        parts.append("</tbody></table></div>")
    return "".join([*parts, "</details>"])


def reported_part(results: Results, shown: Sequence[BoardRow]) -> None:
    """What papers print on the benchmarks shown: beside the rankings, never in one."""
    st.subheader("Reported by papers", anchor=False)
    told = kept(results, "reported", lambda: reported(results.connection))
    families = {family(row.benchmark) for row in shown}
    rows = [row for row in told if family(row.benchmark) in families]
    if not rows:
        st.info("No reported number on these benchmarks is in the store.")
        return
    st.caption(
        "As printed, measured by their authors with models, prompts and tests of their own: in no "
        "ranking, and no row above may be called better or worse than one of these."
    )
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    for source in dict.fromkeys(row.source for row in rows):
        st.caption(escaped(f"Source: {source}."))
        plain_table(
            ("Method", "pass@1", "Benchmark", "Worker", "Meta-agent", "Place", "Note"),
            [reported_cells(row, notes) for row in rows if row.source == source],
        )
    if notes:
        said = (f"{number}: {note}." for number, note in enumerate(notes, 1))
        st.caption(escaped(f"Notes. {' '.join(said)}"))


def reported_cells(row: ReportedRow, notes: Sequence[str]) -> list[str]:
    """A reported number as a row; its note by number, for many share one."""
    printed = row.printed or percent(row.value, 2)
    note = str(notes.index(row.note) + 1) if row.note else ""
    return [row.method or row.row_key, printed, row.benchmark, row.worker or "–", row.meta or "–",
            row.place, note]  # fmt: skip


def family(benchmark: str) -> str:
    """What a benchmark is called in papers, whatever its list: "bigcodebench-complete" and all."""
    name = benchmark.casefold()
    return next((one for one in ("humaneval", "mbpp", "bigcodebench") if name.startswith(one)),
                name)  # fmt: skip


def downloads(results: Results, rows: Sequence[BoardRow]) -> None:
    """The board as files, made when they are asked for; simulated runs are in none."""
    if not any(row.kind != "simulated" for row in rows):
        return
    with st.container(horizontal=True):
        for name, kind, suffix in DOWNLOADS:
            st.download_button(
                f"Download {name}", partial(exported, results, kind),
                f"board.{suffix}", type="tertiary", icon=":material/download:", key=f"get-{kind}",
                on_click="ignore", help="All rows, whatever the filters show",
            )  # fmt: skip


def exported(results: Results, kind: Format) -> str:
    """The board as text, of the newest snapshot: the page may be older than the click."""
    with open_snapshot(results.folder) as connection:
        return table(connection, kind)


DOWNLOADS: tuple[tuple[str, Format, str], ...] = (
    ("CSV", "csv", "csv"), ("Markdown", "markdown", "md"), ("LaTeX", "latex", "tex"),
)  # fmt: skip
