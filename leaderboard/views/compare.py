"""Two runs on the same problems: is one better, who solves what, for what, and how each did it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from harness.errors import StoreError, UsageError
from harness.metrics import Tally, p_value, percent, points
from harness.page import things
from harness.store import plain
from leaderboard.comparison import SAID, WORDS, Comparison, compared, run_named
from leaderboard.outcomes import outcomes
from leaderboard.queries import BoardRow, Group, groups
from leaderboard.records import Texts, read_sample
from leaderboard.views.trajectory import sample_part
from leaderboard.widgets import (
    NAME,
    Results,
    board_rows,
    bound,
    clickable,
    code,
    escaped,
    first_row,
    go,
    kept,
    metrics,
    plain_table,
    shortened,
    snapshot_words,
    stale,
)

TITLE = "Compare"
PATH = "compare"

CONTEXT = 3  # lines around a difference of two programs
ANYWAY = "; --anyway"  # how the advice of a refusal begins, which is the command line's


def page(results: Results) -> None:
    """The two runs that the address names; without names, the first two of the largest ranking."""
    st.title("Is one better than the other?", anchor=False)
    rows = board_rows(results)
    if len(rows) < 2:
        first_row(
            "Two runs are needed to compare, and the board holds "
            f"{'one' if rows else 'none'}. This command makes one more."
        )
        return
    a, b = chosen(results, rows)
    found = comparison(results, a, b)
    if found is not None:
        show(results, found)
    stale(results)
    st.caption(escaped(f"{things(len(rows), 'run')}; {snapshot_words(results)}."))


def chosen(results: Results, rows: Sequence[BoardRow]) -> tuple[str, str]:
    """The ids of A and B: the address's, or what is picked, which the address then says."""
    by_id = {row.run_id: row for row in rows}
    places = st.columns(2)
    told = [asked(results, name) for name in ("a", "b")]
    picked = []
    for place, name, run_id in zip(places, ("a", "b"), filled(rows, told), strict=True):
        key = f"run {name}"
        st.session_state[key] = run_id

        def changed(name: str = name, key: str = key) -> None:
            st.query_params[name] = st.session_state[key]
            st.query_params.pop("problem", None)

        picked.append(
            place.selectbox(
                name.upper(), list(by_id), key=key, on_change=changed,
                format_func=lambda run_id: option(by_id[run_id]),
            )
        )  # fmt: skip
    a, b = picked

    def swapped() -> None:
        st.query_params.update({"a": b, "b": a})

    st.button("Swap A and B", icon=":material/swap_horiz:", on_click=swapped, type="tertiary")
    return a, b


def asked(results: Results, name: str) -> str | None:
    """The run that the address names; None, and a line that says so, where there is no such run."""
    told = st.query_params.get(name)
    if told is None:
        return None
    try:
        return run_named(results.connection, told)
    except UsageError as error:
        st.warning(escaped(f"{name.upper()}: {error}"))
        return None


def filled(rows: Sequence[BoardRow], told: Sequence[str | None]) -> list[str]:
    """The runs that the address names, the best other ones of their ranking in the place of None.

    Without a name it is the ranking with the most ranked rows; then whatever else there is.
    """

    def fits(group: Group) -> tuple[int, int]:
        return sum(row.run_id in told for row in group.rows), len(group.ranked)

    largest = max(groups(rows), key=fits)
    first = [*largest.ranked, *largest.rows, *rows]
    others = iter([one for one in dict.fromkeys(row.run_id for row in first) if one not in told])
    return [next(others) if run_id is None else run_id for run_id in told]


def option(row: BoardRow) -> str:
    """A run as it is chosen: what it is, on what, its score, and its id."""
    note = f", {row.unranked}" if row.unranked else ""
    return plain(
        f"{shortened(row.named, NAME)} · {row.benchmark} · {row.worker} · "
        f"{percent(row.estimate.value)} %{note} · {row.run_id}"
    )


def comparison(results: Results, a: str, b: str) -> Comparison | None:
    """A beside B; None where that is refused, which is then said with a way on."""
    told = st.query_params.get("anyway") == "true"  # until the choice is drawn
    anyway = bool(st.session_state.get("anyway", told))
    try:
        found = kept(results, ("compared", a, b, anyway),
                     lambda: compared(results.connection, a, b, anyway=anyway))  # fmt: skip
    except UsageError as error:
        said, _, advice = str(error).partition(ANYWAY)
        st.warning(escaped(f"{said}."))
        if advice or anyway:
            still()
        return None
    if any(one.data for one in found.unlike):
        still()
    return found


def still() -> None:
    """The choice to compare what was given unlike data."""
    st.checkbox("Compare anyway, on the problems that they share by name", key="anyway",
                bind="query-params")  # fmt: skip


def show(results: Results, found: Comparison) -> None:
    """All that is known of the two."""
    for note in found.notes:
        st.warning(escaped(note))
    verdict(found)
    left, right = st.columns(2)
    with left:
        who_solves(found)
    with right:
        spent(found)
    beside = [[one.field, one.a, one.b] for one in found.unlike if not one.ranking]
    if beside:
        with st.expander(f"What differs between the two ({len(beside)})"):
            plain_table(["What", "A", "B"], beside)
    flips(results, found)
    problem_part(results, found)


def verdict(found: Comparison) -> None:
    """The difference with its interval and p-value, and what that means in words."""
    made = found.difference
    metrics(
        {
            "A minus B": f"{points(made.value)} points",
            "95% interval": f"{points(made.low)} to {points(made.high)}",
            "p": p_value(made.p),
            "A": f"{percent(found.score_a.value)} %",
            "B": f"{percent(found.score_b.value)} %",
        },
        {"p": "How often chance alone would make them differ so much, were they equally good"},
    )
    st.markdown(f"**{escaped(found.words)}**")
    words = [f"{things(made.problems, 'problem')} with a verdict of both", f"test: {made.test}"]
    words.append(
        "so few problems that no difference would be found four times in five"
        if made.detectable is None
        else f"a true difference of {percent(made.detectable)} points would be found four times in "
        "five"
    )
    if made.errored:
        words.append(
            f"{things(made.errored, 'sample')} without a verdict: between {points(made.floor)} and "
            f"{points(made.ceiling)} however they would have ended"
        )
    for name, dropped in (("A", made.dropped_a), ("B", made.dropped_b)):
        if dropped:
            words.append(f"{things(len(dropped), 'problem')} left out, without a verdict of {name}")
    st.caption(escaped("; ".join(words) + "."))


def several(found: Comparison) -> bool:
    """Whether some problem has several samples, so that "solves" is "more often"."""
    return found.score_a.samples + found.score_b.samples > 2 * found.difference.problems


def who_solves(found: Comparison) -> None:
    """The problems by who solves them, two by two."""
    made = found.difference
    st.subheader("Who solves what", anchor=False)
    if several(found):
        plain_table(
            ["Problems", "Number"],
            [["A solves more often", str(made.only_a)], ["B solves more often", str(made.only_b)],
             ["both, equally often", str(made.both)], ["neither", str(made.neither)]],
        )  # fmt: skip
        return
    plain_table(
        ["Problems", "B solves", "B does not"],
        [["A solves", str(made.both), str(made.only_a)],
         ["A does not", str(made.only_b), str(made.neither)]],
    )  # fmt: skip


def spent(found: Comparison) -> None:
    """What a sample took on either side, and the difference."""
    st.subheader("What a sample took", anchor=False)
    lines = []
    for one in found.spent:
        said = SAID[one.unit]
        between = "unknown" if one.low is None else f"{said(one.low)} to {said(one.high)}"
        lines.append([WORDS[one.unit].capitalize(), said(one.a), said(one.b), said(one.value),
                      between])  # fmt: skip
    plain_table(["Mean", "A", "B", "A minus B", "95% interval"], lines)
    st.caption("Over the problems compared; dollars are those with no reply from a cache.")


def flips(results: Results, found: Comparison) -> None:
    """The problems that one solves and the other does not, or less often."""
    st.subheader("Problems that flip", anchor=False)
    a, b = found.a.run_id, found.b.run_id
    names = [*found.only_a, *found.only_b]
    if not names:
        st.info("There is none: both solve the same problems, equally often.")
        return
    solved = outcomes_of(results, found)
    st.caption("Click one for both trajectories, side by side, below.")
    anyway = "true" if any(one.data for one in found.unlike) else None
    clickable(
        [
            {
                "Problem": name,
                "Solved by": "A" if name in set(found.only_a) else "B",
                "A passed": passed(solved[a], name),
                "B passed": passed(solved[b], name),
            }
            for name in names
        ],
        f"flips-{a}-{b}",
        [("compare", {"a": a, "b": b, "problem": name, "anyway": anyway}) for name in names],
        {"Problem": st.column_config.TextColumn(pinned=True)},
        alt="Problems on which the two differ, with how many samples of each passed",
    )


def outcomes_of(results: Results, found: Comparison) -> dict[str, dict[str, Tally]]:
    """What became of each problem, of both runs."""
    ids = (found.a.run_id, found.b.run_id)
    return kept(results, ("outcomes", *ids), lambda: outcomes(results.connection, ids))


def passed(solved: Mapping[str, Tally], name: str) -> str:
    """How many of the graded samples of a problem passed."""
    one = solved.get(name)
    return "not asked" if one is None else f"{one.passed} of {one.graded}"


def problem_part(results: Results, found: Comparison) -> None:
    """One problem as both did it: the difference of their programs, and their trajectories."""
    name = st.query_params.get("problem")
    if name is None:
        return
    st.header(escaped(f"Problem {name}"), anchor="problem")
    solved = outcomes_of(results, found)
    drawn = {row.run_id: solved[row.run_id].get(name) for row in (found.a, found.b)}
    if all(one is None for one in drawn.values()):
        st.warning("Neither of the two was given a problem of this name.")
        return
    anyway = "true" if any(one.data for one in found.unlike) else None
    st.button("Close", on_click=go, args=("compare",), type="tertiary",
              kwargs={"a": found.a.run_id, "b": found.b.run_id, "anyway": anyway})  # fmt: skip
    most = max(one.samples for one in drawn.values() if one is not None)
    number = 0
    if most > 1:
        told = st.number_input("Sample", 0, most - 1, 0, key="sample", width=160,
                               bind=bound("sample"))  # fmt: skip
        number = int(told or 0)
    difference_part(results, found, name, number)
    for place, letter, row in zip(st.columns(2), "AB", (found.a, found.b), strict=True):
        with place:
            st.subheader(escaped(f"{letter}: {row.named}"), anchor=False)
            one = drawn[row.run_id]
            if one is None or number >= one.samples:
                st.info("It has no such sample of this problem.")
            else:
                sample_part(results, row.run_id, name, number)


def difference_part(results: Results, found: Comparison, name: str, number: int) -> None:
    """Both programs' difference, line by line, as a unified diff from A to B."""
    st.subheader("From A's program to B's", anchor=False)
    programs = []
    for letter, row in zip("AB", (found.a, found.b), strict=True):
        record = read_sample(results.connection, row.run_id, name, number).result or {}
        texts = Texts(results.folder, results.connection, row.run_id)
        try:
            program = texts.read(record.get("solution_sha"))
        except StoreError as error:
            st.info("The journal of one of the two cannot be read.")
            code(str(error))
            return
        if program is None:
            st.info(f"{letter} handed in no program.")
            return
        programs.append(program)
    changed = unified(*programs)
    if changed:
        code(changed, "diff")
    else:
        st.info("Both handed in the same program.")


def unified(a: str, b: str) -> str:
    """A unified diff of two texts; empty where they are the same."""
    lines: Any = difflib.unified_diff(plain(a).splitlines(), plain(b).splitlines(), "A", "B",
                                      n=CONTEXT, lineterm="")  # fmt: skip
    return "\n".join(lines)
