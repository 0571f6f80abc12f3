"""The board in a browser. Layout only: every number is one query of `queries`.

Run by `leaderboard.serve`, or `streamlit run leaderboard/app.py -- RESULTS_DIR`. It reads the
snapshot that `board.json` names and writes nothing. The address carries the view: `?run=` and
`&sample=` reopen what was being looked at; `?run=` may name a search as well.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from harness import graph
from harness.errors import StoreError
from harness.metrics import count, dollars, duration, percent
from harness.page import things
from harness.rounds import Round, Unit, price_unit
from harness.show import paid_line
from harness.show_rounds import WORDS, round_notes, round_table
from harness.show_sample import (
    HIDDEN,
    call_line,
    request_text,
    round_line,
    round_nodes,
    verdict_line,
    workflow_line,
)
from harness.store import (
    Pointer,
    Trajectory,
    current_snapshot,
    open_snapshot,
    out_option,
    plain,
)
from harness.tree import tree_dot, tree_text
from leaderboard.export import table, title
from leaderboard.queries import (
    BoardRow,
    Group,
    SampleRow,
    attempts,
    best_of_n,
    board,
    groups,
    run_rounds,
    sample_trajectory,
    samples,
    searches,
)
from leaderboard.searches import attempt_page, search_page, searches_table
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
    stamp,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

QUESTION = "Does this workflow solve more than one call of the same model?"
FIRST_ROW = "python -m harness eval --method flowreasoner"
STYLE = (
    "<style>.stMainBlockContainer {padding-top: 3.5rem} h1 {font-size: 1.8rem !important}</style>"
)
LINE = "Best program so far passes all"
AXES: dict[Unit, str] = {
    "calls": "Model calls of a sample, on average",
    "tokens": "Tokens of a sample, on average",
    "usd": "Dollars of a sample, on average",
}
MARKS = {"passed": "✓", "invalid": "?"}  # any other verdict is ✗


def main(results_dir: Path) -> None:
    """Draw the page that the address asks for."""
    st.set_page_config(page_title="Workflow board", page_icon="⚖️", layout="wide")
    st.html(STYLE)
    try:
        pointer = current_snapshot(results_dir)
        if pointer is None:
            empty(results_dir)
            return
        draw(results_dir, pointer)
    except StoreError as error:
        st.error("The results cannot be read.")
        st.code(plain(str(error)), language=None, wrap_lines=True)
    watch(results_dir)


def draw(results_dir: Path, pointer: Pointer) -> None:
    connection = snapshot(str(results_dir), pointer.seq).cursor()
    run_id, chosen = st.query_params.get("run"), st.query_params.get("sample")
    if run_id is None:
        board_page(connection, pointer)
        return
    problem_id, _, number = (chosen or "").rpartition(":")
    one = None
    if chosen is not None and number.isdigit():
        one = sample_trajectory(connection, results_dir, run_id, problem_id, int(number))
    for search in searches(connection, run_id):
        if one is None:
            search_page(connection, search)
            return
        tried = [a for a in attempts(connection, run_id)
                 if (a.problem_id, a.sample) == (one.problem_id, one.sample)]  # fmt: skip
        attempt_page(search, one, tried[0] if tried else None)
        one.notes = [note for note in one.notes if note["kind"] != "trial"]
        trajectory_part(one)
        return
    found = board(connection, run_id)
    if not found:
        st.warning("This address names a run that is not in the results.")
        st.code(plain(run_id), language=None)
        st.button("Back to the board", on_click=go)
        return
    if one is None:
        run_page(connection, results_dir, found[0])
    else:
        sample_page(connection, found[0], one)


def close(connection: DuckDBPyConnection) -> None:
    connection.close()


@st.cache_resource(max_entries=2, on_release=close, show_spinner=False)
def snapshot(results_dir: str, seq: int) -> DuckDBPyConnection:
    """The open snapshot of that number; the one before stays for readers that still hold it."""
    del seq  # it only tells the snapshots apart
    return open_snapshot(Path(results_dir))


@st.fragment(run_every=10)
def watch(results_dir: Path) -> None:
    """Draw the page again once a newer snapshot has appeared."""
    pointer = current_snapshot(results_dir)
    seen = st.session_state.setdefault("seen", pointer)
    if pointer != seen:
        st.session_state["seen"] = pointer
        st.rerun()


def empty(results_dir: Path) -> None:
    st.title(QUESTION)
    st.info("There is no result yet. This command makes the first row; then reload this page.")
    st.code(FIRST_ROW, language="bash", wrap_lines=True)
    st.caption(
        "Runs that already exist under this folder come in with `python -m harness rebuild`:"
    )
    st.code(str(results_dir), language=None, wrap_lines=True)
    watch(results_dir)


def board_page(connection: DuckDBPyConnection, pointer: Pointer) -> None:
    st.title(QUESTION)
    rows, tried = board(connection), searches(connection)
    if not rows:
        if tried:
            searches_table(tried)
        st.info("The database holds no run yet. This command makes the first row.")
        st.code(FIRST_ROW, language="bash", wrap_lines=True)
        return
    shown = filtered(rows)
    st.caption(
        "pass@1 in percent with its 95% interval; ★ best of the complete measured runs on the most "
        "problems. Click a row for its samples."
    )
    if not shown:
        st.info("No run matches these filters.")
    for number, group in enumerate(groups(shown)):
        board_table(group, number)
    if tried:
        searches_table(tried)
    if any(row.kind != "simulated" for row in rows):  # which no table for a paper holds
        with st.container(horizontal=True):
            for name, kind in (("CSV", "csv"), ("Markdown", "markdown"), ("LaTeX", "latex")):
                suffix = {"csv": "csv", "markdown": "md", "latex": "tex"}[kind]
                text = table(connection, kind)  # type: ignore[arg-type]
                st.download_button(f"Download {name}", text, f"board.{suffix}", type="tertiary")
    st.caption(f"{things(len(rows), 'run')}, snapshot {pointer.seq}.")


def filtered(rows: Sequence[BoardRow]) -> list[BoardRow]:
    """The rows that the three filters let through; the address remembers the filters."""
    shown = list(rows)
    places = st.columns(3)
    for place, name in zip(places, ("benchmark", "method", "worker"), strict=True):
        options = sorted({getattr(row, name) for row in rows})
        wanted = place.multiselect(
            name.capitalize(), options, key=name, placeholder=f"All {name}s",
            label_visibility="collapsed", bind="query-params",
        )  # fmt: skip
        shown = [row for row in shown if not wanted or getattr(row, name) in wanted]
    return shown


def board_table(group: Group, number: int) -> None:
    """One ranking; a click on a cell opens its run."""
    first = group.rows[0]
    st.subheader(escaped(title(group)))
    digest = (first.benchmark_digest or "unknown")[:12]
    made = f", environment {first.environment or 'unknown'}" if first.needs_environment else ""
    st.caption(
        escaped(
            f"Only these rows may be compared with one another: data {digest}, grader "
            f"{first.grader_version or 'unknown'}, prices {first.price_table or 'unknown'}"
            f"{made}."
        )
    )
    records = [
        {
            "Method": shortened(plain(row.named), NAME) + remark(group, row),
            "pass@1": None if row.estimate.value is None else float(percent(row.estimate.value)),
            "95% interval": None if row.estimate.value is None
            else f"{percent(row.estimate.low)} – {percent(row.estimate.high)}",
            "Overlap-free": None if row.overlap_free is None
            else float(percent(row.overlap_free)),
            "Calls": row.per_sample(row.calls),
            "Tokens": row.per_sample(row.tokens),
            "Dollars": row.fresh_cost_usd,
            "Time": row.per_sample(row.wall_s),
            "Search": "none" if row.search is None else row.search.words,
            "Problems": progress(row),
            "Left out": row.left_out,
            "Worker": plain(row.worker),
            "Meta-agent": plain(row.meta) if row.meta else "none",
            "Level": row.level,
            "Errored": errored(row),
            "Status": state(row),
            "Started": day(row.started_at),
            "Run": row.run_id,
        }
        for row in group.rows
    ]  # fmt: skip
    number_column = st.column_config.NumberColumn
    clickable(
        records,
        f"board-{number}",
        [(row.run_id, None) for row in group.rows],
        {
            "Method": st.column_config.TextColumn(pinned=True),
            "pass@1": number_column(format="%.1f", help="Share of problems solved, in percent"),
            "Overlap-free": number_column(
                format="%.1f", help="The same on hidden tests that no feedback test repeats"
            ),
            "Calls": number_column(format="%.1f", help="Model calls per sample"),
            "Tokens": number_column(format="%,.0f", help="Prompt and completion, per sample"),
            "Dollars": number_column(
                format="$%.5f", width=90, help="For the whole run, with no reply from a cache"
            ),
            "Time": number_column(
                format="%.1f s",
                help="Seconds per sample, without its waits for a turn at the model",
            ),
            "Search": st.column_config.TextColumn(
                help="What finding the method's workflow took before, once, in no other number: "
                "dollars, or tokens where it was free"
            ),
            "Left out": number_column(help="Problems asked for that could not be run here"),
            "Level": st.column_config.TextColumn(help="What the method may do with feedback tests"),
            "Errored": st.column_config.TextColumn(
                help="Samples without a verdict, and pass@1 if all of them had failed or passed"
            ),
        },
    )


def progress(row: BoardRow) -> str:
    asked = f" of {row.problems_asked}" if row.problems_asked is not None else ""
    return f"{row.estimate.problems}{asked}"


def remark(group: Group, row: BoardRow) -> str:
    note = ", ".join(x for x in (group.note(row), "custom data" if row.custom else "") if x)
    star = " ★" if row.run_id in group.best else ""
    return (f" ({note})" if note else "") + star


def state(row: BoardRow) -> str:
    """How a run stands, and how many samples it lacks."""
    left = f", {row.samples_left:,} left" if row.samples_left else ""
    return f"{row.status or 'not started'}{left}"


def errored(row: BoardRow) -> str:
    found = row.estimate
    if not found.errored:
        return "0"
    return f"{found.errored} ({percent(found.floor)} – {percent(found.ceiling)})"


def run_page(connection: DuckDBPyConnection, results_dir: Path, row: BoardRow) -> None:
    st.button("← All runs", on_click=go, type="tertiary")
    st.title(escaped(f"{row.named} on {row.benchmark}"))
    headline(row)
    if row.samples_left and row.status != "running":
        st.caption("To go on with it:")
        command = f"python -m harness resume {row.run_id}{out_option(results_dir)}"
        st.code(plain(command), language="bash", wrap_lines=True)
    rounds_part(connection, row)
    found = samples(connection, row.run_id)
    if not found:
        st.info("No sample of this run has been graded yet.")
        return
    st.subheader("Samples")
    verdicts = sorted({one.verdict for one in found})
    wanted = st.pills("Verdict", verdicts, selection_mode="multi", key="verdict",
                      bind="query-params")  # fmt: skip
    shown = [one for one in found if not wanted or one.verdict in wanted]
    st.caption("Click a sample for its trajectory.")
    clickable(
        [sample_cells(one) for one in shown],
        f"samples-{row.run_id}",
        [(row.run_id, f"{one.problem_id}:{one.sample}") for one in shown],
        {
            "Problem": st.column_config.TextColumn(pinned=True),
            "Dollars": st.column_config.NumberColumn(format="$%.5f"),
            "Time": st.column_config.NumberColumn(format="%.1f s"),
            "Detail": st.column_config.TextColumn(width="large"),
        },
    )
    about(row)


def rounds_part(connection: DuckDBPyConnection, row: BoardRow) -> None:
    """What each round brought: feedback beside hidden score, and best-of-n at equal cost."""
    rounds = run_rounds(connection, row.run_id)
    if not rounds:
        return
    rival = best_of_n(connection, row)
    st.subheader("Rounds")
    if any(one.hidden is not None for one in rounds):
        unit = chart_unit(rounds)
        points = curve("feedback", unit, [(one, one.passes) for one in rounds])
        points += curve("hidden", unit, [(one, one.hidden) for one in rounds])
        most = max(getattr(one, unit) or 0.0 for one in rounds)
        beside = [one for one in (rival[1] if rival else ()) if (getattr(one, unit) or 0) <= most]
        points += curve("best-of-n, hidden", unit, [(one, one.hidden) for one in beside])
        st.line_chart(points, x=unit, y="percent", color=LINE, height=300, x_label=AXES[unit],
                      y_label="Samples, percent", alt="The table below in lines")  # fmt: skip
    names, lines = round_table(rounds, rival and rival[1])
    plain_table(names, lines)
    beside_it = (f"{rival[0].named} ({rival[0].run_id})", rival[1]) if rival else None
    if notes := round_notes(rounds, row.method, beside_it):
        st.caption(escaped(f"{'. '.join(notes)}."))


def chart_unit(rounds: Sequence[Round]) -> Unit:
    """What the lines are drawn over: calls, or if it is chosen what these cost."""
    price = price_unit(rounds)
    if price is None:
        return "calls"
    words = {WORDS[unit].capitalize(): unit for unit in ("calls", price)}
    chosen = st.segmented_control("Over", list(words), default="Calls", key=f"over-{price}",
                                  label_visibility="collapsed")  # fmt: skip
    return words.get(str(chosen), "calls")


def curve(
    name: str, unit: Unit, values: Sequence[tuple[Round, float | None]]
) -> list[dict[str, Any]]:
    """Points of a line over what a sample took, those aside that are not known."""
    return [
        {LINE: name, unit: getattr(one, unit), "percent": 100 * value}
        for one, value in values
        if value is not None and getattr(one, unit) is not None
    ]


def sample_cells(one: SampleRow) -> dict[str, Any]:
    tokens = (one.prompt_tokens, one.completion_tokens)
    known = [n for n in tokens if n is not None]
    return {
        "Problem": plain(one.problem_id) + (f" #{one.sample}" if one.sample else ""),
        "Verdict": f"{MARKS.get(one.verdict, '✗')} {one.verdict}",
        "Calls": one.calls,
        "Tokens": sum(known) if len(known) == 2 else None,
        "Dollars": one.fresh_cost_usd,
        "Time": one.wall_s,
        "Detail": " ".join(plain(one.detail or one.error_kind or "").split()),
    }


def headline(row: BoardRow) -> None:
    found = row.estimate
    if row.kind != "measured":
        st.warning(escaped(f"This run is {row.kind}: its numbers say nothing about a model."))
    elif row.unranked:
        st.info(escaped(f"This run is in no ranking: {row.unranked}."))
    between = f"95% interval {percent(found.low)} to {percent(found.high)}"
    metrics(
        {"pass@1": "unknown" if found.value is None else f"{percent(found.value)} %",
         "Problems": progress(row), "Calls a sample": count(row.per_sample(row.calls)),
         "Tokens a sample": count(row.per_sample(row.tokens)),
         "Dollars": dollars(row.fresh_cost_usd),
         "Time a sample": duration(row.per_sample(row.wall_s))},
        {} if found.value is None else {"pass@1": between},
    )  # fmt: skip
    words = [] if found.value is None else [between]
    words += [f"worker {row.worker}", f"meta-agent {row.meta or 'none'}", f"list {row.list}",
              f"protocol {row.protocol}", f"level {row.level}", f"status {state(row)}"]  # fmt: skip
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
        st.button("Its search", on_click=go, args=(row.search.run,), type="tertiary")


def about(row: BoardRow) -> None:
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


def sample_page(connection: DuckDBPyConnection, row: BoardRow, found: Trajectory) -> None:
    with st.container(horizontal=True):
        st.button("← All runs", on_click=go, type="tertiary")
        st.button(escaped(f"← {row.named} on {row.benchmark}"), on_click=go, args=(row.run_id,),
                  type="tertiary", key="up")  # fmt: skip
    draw_no = f", sample {found.sample}" if found.sample else ""
    st.title(escaped(f"{found.problem_id}{draw_no}"))
    neighbours(connection, row.run_id, f"{found.problem_id}:{found.sample}")
    result = found.result
    if result is None:
        st.info("This sample has no verdict yet; what was recorded of it stands below.")
    else:
        verdict = str(result.get("verdict"))
        say = st.success if verdict == "passed" else st.error
        say(escaped(f"{MARKS.get(verdict, '✗')} {verdict_line(result)}"))
        if result.get("detail"):
            code(str(result["detail"]))
        solution = found.text(result.get("solution_sha"))
        st.subheader("Solution")
        if solution:
            code(solution, "python")
        else:
            st.caption("No program was handed in.")
    trajectory_part(found)


def trajectory_part(found: Trajectory) -> None:
    """What a sample did, round by round, each workflow with its graph."""
    st.subheader("Trajectory")
    nodes = round_nodes(found)
    if any(node.parent is not None for node in nodes):
        drawing(tree_dot(nodes), tree_text(nodes))
    if found.earlier:
        st.caption("An earlier, unfinished try is left out, but for its calls.")
    for number in found.round_numbers():
        part = found.of_round(number)
        if number is None:
            steps(found, part)
            continue
        with st.container(border=True):
            st.markdown(f"**{escaped(round_line(number, part)).capitalize()}**")
            for one in part.rounds:
                labelled("Modification", one.get("modification"))
                labelled("Error", one.get("error"))
                workflow_part(found.text(one.get("workflow_sha")))
                labelled("Prompts", found.text(one.get("prompts_sha")), "python", fold=True)
            steps(found, part)


def workflow_part(text: str | None) -> None:
    """A workflow's code, and beside it its graph."""
    if not text:
        return
    left, right = st.columns([3, 2])
    with left:
        labelled("Workflow", text, "python")
    with right:
        st.caption("Its graph")
        found = graph.workflow_graph(text)
        if found.error is None:
            drawing(graph.dot(found), graph.text(found))
        else:
            code(graph.text(found))


def steps(found: Trajectory, part: Trajectory) -> None:
    """The calls, executions, feedback and notes of one round, or of what lies outside of rounds."""
    for call in part.calls:
        with st.expander(escaped(call_line(call)), expanded=len(found.calls) <= 2):
            labelled("Prompt", request_text(found.text(call.get("request_sha"))))
            labelled("Reply", found.text(call.get("response_sha")))
            labelled("Error", call.get("error"))
            if call.get("finish") not in (None, "stop"):
                labelled("Stopped by", str(call["finish"]))
    for run in part.workflows:
        st.caption(escaped(workflow_line(run)))
        labelled("Error", run.get("error"))
    for told in part.feedback:
        st.caption(f"Feedback: {told.get('passed')} of {told.get('total')} tests passed")
        if told.get("errors"):
            code("\n".join(map(str, told["errors"])))
    for note in part.notes:
        said = {k: v for k, v in note.items() if k not in HIDDEN}
        labelled("Note", f"{note['kind']}: {json.dumps(said, ensure_ascii=False)}")


def neighbours(connection: DuckDBPyConnection, run_id: str, here: str) -> None:
    """Buttons to the samples before and after this one."""
    names = [f"{one.problem_id}:{one.sample}" for one in samples(connection, run_id)]
    if here not in names:
        return
    at = names.index(here)
    with st.container(horizontal=True):
        for label, to in (("Previous", at - 1), ("Next", at + 1)):
            inside = 0 <= to < len(names)
            st.button(label, on_click=go, args=(run_id, names[to] if inside else here),
                      disabled=not inside)  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results"))
