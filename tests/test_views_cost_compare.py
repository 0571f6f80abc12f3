"""What score costs and whether one run is better: the numbers by hand, and the pages in words."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.journal import Journal
from harness.store import open_snapshot
from leaderboard.costs import (
    CostRow,
    ProblemCost,
    by_problem,
    cached_rows,
    cost_rows,
    labels,
    points,
    sample_cost,
    search_words,
    solved_words,
    spreads,
    standing,
)
from leaderboard.queries import board, groups
from leaderboard.views.compare import unified
from leaderboard.widgets import _chart_text
from tests.results_maker import HOSTILE, drawn, published, run, search, text_of

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

FOUR = [f"HumanEval/{n}" for n in range(4)]


def solving(which: str) -> dict[str, list[str]]:
    """Verdicts of the four problems: "1100" solves the first two."""
    return {name: ["passed" if mark == "1" else "wrong"] for name, mark in
            zip(FOUR, which, strict=True)}  # fmt: skip


def rows_of(results_dir: Path, unit: Any = "usd", spread: int | None = None) -> dict[str, CostRow]:
    """The rows of the largest ranking with their costs, by run."""
    with open_snapshot(published(results_dir)) as connection:
        group = max(groups(board(connection)), key=lambda one: len(one.rows))
        problems = by_problem(connection, [row.run_id for row in group.rows], unit)
        return {one.row.run_id: one for one in cost_rows(group, problems, unit, spread)}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    run(tmp_path, "cheap", solving("1000"), method="vanilla", cost=0.01)
    run(tmp_path, "middle", solving("1110"), method="best-of-n", cost=0.02)
    run(tmp_path, "worse", solving("1100"), method="self-refine", cost=0.03)
    run(tmp_path, "dear", solving("1111"), method="flowreasoner", cost=0.5)
    run(tmp_path, "unpriced", solving("1110"), method="llm-debate", cost=None)
    run(tmp_path, "made-up", solving("1111"), method="vanilla", cost=0.001, kind="simulated")
    return tmp_path


def test_the_front_has_whoever_does_best_for_its_price_and_names_who_beats_the_others(
    results: Path,
) -> None:
    rows = rows_of(results)
    names = labels([one.row for one in rows.values()])
    assert {name: standing(one, names) for name, one in rows.items()} == {
        "cheap": "on the front", "middle": "on the front", "worse": "below best-of-n",
        "dear": "on the front", "unpriced": "cost unknown", "made-up": "not ranked",
    }  # fmt: skip
    assert {name: one.cost for name, one in rows.items()} == {
        "cheap": 0.01, "middle": 0.02, "worse": 0.03, "dear": 0.5, "unpriced": None,
        "made-up": 0.001,
    }  # fmt: skip
    assert {point.run for point in points(list(rows.values()))} == set(rows) - {"made-up"}
    alone = [one for name, one in rows.items() if name == "made-up"]
    assert [point.ranked for point in points(alone)] == [False]


def test_a_solved_problem_costs_what_all_took_by_what_was_solved(results: Path) -> None:
    rows = rows_of(results)
    solved = rows["middle"].solved
    assert solved is not None
    assert solved.value == pytest.approx(0.08 / 3)  # four samples of $0.02, three solved
    assert solved.low is not None
    assert solved.low < 0.08 / 3
    assert solved_words(rows["middle"], "usd").startswith("$0.0267 ($")
    assert solved_words(rows["unpriced"], "usd") == "unknown"
    calls = rows_of(results, "calls")
    assert calls["cheap"].solved is not None
    assert calls["cheap"].solved.value == 4.0


def test_costs_by_problem_are_sums_over_its_samples_and_unknown_once_one_is(tmp_path: Path) -> None:
    run(tmp_path, "flow", {"a/0": ["passed", "wrong"], "a/1": ["wrong", "invalid"]}, cost=0.25)
    journal = Journal(run(tmp_path, "part", {"a/0": ["passed"]}))
    journal.write("result", result_key="a/1:0", problem_id="a/1", sample=0, verdict="wrong")
    journal.close()
    with open_snapshot(published(tmp_path)) as connection:
        found = by_problem(connection, ["part", "flow", "gone"], "usd")
        tokens = by_problem(connection, ["flow"], "tokens")
        assert found == {
            "part": [ProblemCost(1, 1, 1, 0.25), ProblemCost(1, 1, 0, None)],
            "flow": [ProblemCost(2, 2, 1, 0.5), ProblemCost(2, 1, 0, 0.5)], "gone": [],
        }  # fmt: skip
        assert [one.taken for one in tokens["flow"]] == [200.0, 200.0]
    rows = rows_of(tmp_path)
    by_run = {one.name: one for one in spreads(list(rows.values()), found)}
    assert {one.costs for one in by_run.values()} <= {(0.25,), (0.25, 0.25)}
    assert rows["part"].solved is None
    flow = rows["flow"].solved
    assert flow is not None
    assert flow.value == 1.0  # $0.25 and $0.25 a sample, for half a problem and none


def test_a_search_is_counted_in_only_when_asked_and_then_over_so_many_problems(
    tmp_path: Path,
) -> None:
    search(tmp_path)  # $2.25, 9 calls, 4,500 tokens and 61 s behind run `found`
    run(tmp_path, "plain", {"a/0": ["passed"]}, method="vanilla")
    without, spread = rows_of(tmp_path), rows_of(tmp_path, spread=9)
    assert without["found"].cost == 0.25
    assert spread["found"].cost == 0.5
    assert spread["plain"].cost == 0.25
    assert without["found"].front
    assert not spread["found"].front  # it is as good as `plain`, and dearer
    assert standing(spread["found"], {"plain": "vanilla"}) == "below vanilla"
    row = without["found"].row
    assert [sample_cost(row, unit, 9) for unit in ("calls", "tokens", "time")] == [
        2.0, 600.0, pytest.approx(3 + 61 / 9),
    ]  # fmt: skip
    assert search_words([*spread.values()], "usd", 9) == (
        "With search, spread over 9 problems, which adds to a sample: aflow $0.250."
    )
    solved = spread["found"].solved
    assert solved is not None
    assert solved.value == 0.5


def test_rows_of_one_name_are_told_apart_by_worker_and_then_by_run(tmp_path: Path) -> None:
    for run_id, method, worker in (("one", "vanilla", "local/small"), ("two", "vanilla", "a/big"),
                                   ("three", "repair", "a/big"), ("four", "repair", "a/big"),
                                   ("five", "aflow", "a/big")):  # fmt: skip
        run(tmp_path, run_id, solving("1000"), method=method,
            roles={"worker": {"model": worker}})  # fmt: skip
    rows = rows_of(tmp_path)
    assert labels([one.row for one in rows.values()]) == {
        "one": "vanilla, small", "two": "vanilla, big", "three": "repair, three",
        "four": "repair, four", "five": "aflow",
    }  # fmt: skip


def test_a_search_of_unknown_cost_makes_the_cost_with_it_unknown(tmp_path: Path) -> None:
    run(tmp_path, "found", {"a/0": ["passed"]}, artifact={"run": None, "spent": {"calls": 3}})
    assert rows_of(tmp_path)["found"].cost == 0.25
    with_it = rows_of(tmp_path, spread=10)["found"]
    assert (with_it.cost, with_it.solved) == (None, None)


def page_text(app: "AppTest") -> str:
    """What a page says outside of tables of data, small tables too."""
    small = [cell for one in app.table for line in lines_of(one) for cell in line]
    said = [text_of(app), *(str(one.value) for one in app.markdown), *small]
    return "\n".join(said).replace("\\", "")


def lines_of(table: Any) -> list[list[str]]:
    """The cells of a small table; a short one has spaces at which no line ends."""
    return [[str(cell).replace("\u00a0", " ") for cell in line]
            for line in table.value.to_numpy().tolist()]  # fmt: skip


def charts_of(app: "AppTest") -> list[dict[str, Any]]:
    """The specifications of the charts of a page."""
    return [json.loads(one.proto.spec) for one in app.get("vega_lite_chart")]


def test_the_cost_page_never_draws_two_rankings_in_one_chart(results: Path) -> None:
    for name in ("one", "two"):
        run(results, f"other-{name}", solving("1100"), method=name, benchmark="mbpp", cost=0.01)
    app = drawn(published(results), "cost")
    assert [one.value.replace("\\", "") for one in app.subheader] == [
        "humaneval, list full, protocol public", "mbpp, list full, protocol public",
    ]  # fmt: skip
    tables = [list(one.value["Run"]) for one in app.dataframe]
    assert [len(runs) for runs in tables] == [6, 2]
    assert set(tables[1]) == {"other-one", "other-two"}
    fronts = dict(zip(tables[0], app.dataframe[0].value["Front"], strict=True))
    assert fronts["worse"] == "below best-of-n"
    assert fronts["unpriced"] == "cost unknown"
    drawings = charts_of(app)
    scores = [spec for spec in drawings if "pass@1 against" in spec["description"]]
    assert len(scores) == 2
    assert "llm-debate 75.0 % at unknown" in scores[0]["description"]
    assert "one 50.0 %" not in scores[0]["description"]
    one = drawn(results, "cost", benchmark="mbpp")
    assert [list(each.value["Run"]) for each in one.dataframe] == [tables[1]]


def test_the_cost_by_problem_is_drawn_once_it_is_unfolded_and_a_chart_is_made_once(
    results: Path,
) -> None:
    _chart_text.cache_clear()
    app = drawn(published(results), "cost")
    assert ["by problem" in spec["description"] for spec in charts_of(app)] == [False]
    app.session_state["by problem 0"] = True
    app.run()
    assert not app.exception
    drawings = [spec["description"] for spec in charts_of(app)]
    assert [said.startswith("Dollars by problem: ") for said in drawings] == [False, True]
    drawn(results, "cost")
    assert _chart_text.cache_info()[:2] == (2, 1)  # found twice, made once
    app.segmented_control[0].set_value("Calls").run()
    assert charts_of(app)[1]["description"].startswith("Model calls by problem: ")
    assert _chart_text.cache_info()[:2] == (2, 2)


def test_time_that_a_cache_saved_is_said_not_to_be_comparable(results: Path) -> None:
    journal = Journal(run(results, "kept", {FOUR[0]: ["passed"]}, method="repair", asked=2))
    journal.write("result", result_key="x:0", problem_id=FOUR[1], sample=0, verdict="wrong",
                  calls=1, cached_calls=1, wall_s=0.1)  # fmt: skip
    journal.close()
    published(results)
    journal = Journal(results / "runs" / "kept")
    journal.write("result", result_key=f"{FOUR[0]}:0", problem_id=FOUR[0], sample=0,
                  verdict="passed", calls=1, cached_calls=1, wall_s=0.1)  # fmt: skip
    journal.close()
    rows = rows_of(results, "time")
    assert [row.run_id for row in cached_rows(list(rows.values()))] == ["kept"]
    assert "answered by a cache: repair" in page_text(drawn(results, "cost", over="Time"))
    assert "answered by a cache" not in page_text(drawn(results, "cost", over="Calls"))


def test_free_and_unpriced_rankings_say_so_in_place_of_a_chart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(tmp_path, name, solving("1100"), method=name, cost=0.0)
    published(tmp_path)
    assert "took no dollars" in page_text(drawn(tmp_path, "cost", over="Dollars"))
    plain = drawn(tmp_path, "cost")  # nothing was paid, so tokens stand first
    assert "Tokens" in plain.dataframe[0].value
    for name in ("one", "two"):
        run(tmp_path / "unpriced", name, solving("1100"), method=name, cost=None)
    published(tmp_path / "unpriced")
    assert "in dollars is not known" in page_text(
        drawn(tmp_path / "unpriced", "cost", over="Dollars")
    )


def test_the_cost_page_of_an_empty_board_says_what_to_do(tmp_path: Path) -> None:
    search(tmp_path, ended="running")
    (tmp_path / "runs" / "found" / "run.json").unlink()
    assert "python -m harness eval" in page_text(drawn(published(tmp_path), "cost"))
    assert "holds none" in page_text(drawn(tmp_path, "compare"))


def test_compare_says_difference_who_solves_what_and_which_problems_flip(results: Path) -> None:
    app = drawn(published(results), "compare", a="cheap", b="dear")
    text = page_text(app)
    values = {one.label: one.value.replace("\\", "") for one in app.metric}
    assert values["A minus B"] == "-75.0 points"
    assert (values["A"], values["B"]) == ("25.0 %", "100.0 %")
    assert values["p"] == "0.125"  # three flips, all one way: mid-p 2 x (1/8) - 1/8
    assert "Chance alone may make such a difference" in text
    assert lines_of(app.table[0]) == [
        ["A solves", "1", "0"], ["A does not", "3", "0"],
    ]  # fmt: skip
    flips = app.dataframe[0].value
    assert list(flips["Problem"]) == FOUR[1:]
    assert set(flips["Solved by"]) == {"B"}
    assert list(flips["B passed"]) == ["1 of 1"] * 3
    took = {line[0]: line[1:] for line in lines_of(app.table[1])}
    assert [cell.replace("\\", "") for cell in took["Dollars"][:3]] == [
        "$0.0100", "$0.500", "-$0.490",
    ]  # fmt: skip


def test_several_samples_are_told_as_how_often(tmp_path: Path) -> None:
    run(tmp_path, "two", {"a/0": ["passed", "passed"], "a/1": ["wrong", "passed"]}, method="two")
    run(tmp_path, "one", {"a/0": ["passed", "wrong"], "a/1": ["wrong", "passed"]}, method="one")
    app = drawn(published(tmp_path), "compare", a="two", b="one")
    assert lines_of(app.table[0]) == [
        ["A solves more often", "1"], ["B solves more often", "0"], ["both, equally often", "1"],
        ["neither", "0"],
    ]  # fmt: skip
    flips = app.dataframe[0].value
    assert [list(flips[name]) for name in ("Problem", "A passed", "B passed")] == [
        ["a/0"], ["2 of 2"], ["1 of 2"],
    ]  # fmt: skip


def test_a_chosen_problem_shows_both_trajectories_and_the_difference_of_the_programs(
    results: Path,
) -> None:
    journal = Journal(results / "runs" / "dear")
    program = f"def f():\n    return 2  # {HOSTILE}"
    journal.write("result", result_key=f"{FOUR[1]}:0", problem_id=FOUR[1], sample=0,
                  verdict="passed", calls=1, prompt_tokens=70, completion_tokens=30, cost_usd=0.5,
                  wall_s=3.0, solution_sha=journal.artifact(program))  # fmt: skip
    journal.close()
    app = drawn(published(results), "compare", a="cheap", b="dear", problem=FOUR[1])
    (changed,) = [one.value for one in app.code if one.language == "diff"]
    assert changed.startswith("--- A\n+++ B\n")
    assert "\n+def f():" in changed
    assert "\x1b" not in changed
    heads = [one.value.replace("\\", "") for one in app.subheader]
    assert {"A: vanilla", "B: flowreasoner"} <= set(heads)
    text = page_text(app)
    assert "✗ wrong" in text
    assert "✓ passed" in text
    gone = page_text(drawn(results, "compare", a="cheap", b="dear", problem="a/99"))
    assert "Neither of the two was given a problem of this name" in gone


def test_unlike_runs_are_refused_in_words_and_compared_anyway_with_a_note(results: Path) -> None:
    run(results, "other", solving("1110"), method="vanilla", benchmark="mbpp")
    app = drawn(published(results), "compare", a="cheap", b="other")
    assert "given unlike data: benchmark humaneval against mbpp" in page_text(app)
    assert "--anyway" not in page_text(app)
    assert not app.metric
    app.checkbox[0].check().run()
    assert not app.exception
    text = page_text(app)
    assert "may not share a ranking: benchmark humaneval and mbpp" in text
    assert app.metric[0].value.replace("\\", "") == "-50.0 points"
    linked = drawn(results, "compare", a="cheap", b="other", anyway="true")
    assert linked.metric[0].value == app.metric[0].value
    linked.checkbox[0].uncheck().run()
    assert not linked.metric


def test_an_address_that_names_no_run_or_one_twice_is_answered_in_words(results: Path) -> None:
    published(results)
    assert "A: nothing-like-it: no evaluated run" in page_text(
        drawn(results, "compare", a="nothing-like-it", b="dear")
    )
    assert "the same run twice" in page_text(drawn(results, "compare", a="dear", b="dear"))


def test_without_names_the_best_two_of_the_largest_ranking_are_compared(results: Path) -> None:
    app = drawn(published(results), "compare")
    assert [one.value for one in app.selectbox] == ["dear", "middle"]
    app.button[0].click().run()  # swap
    assert [one.value for one in app.selectbox] == ["middle", "dear"]
    assert (app.query_params["a"], app.query_params["b"]) == ("middle", "dear")
    app.selectbox[0].set_value("cheap").run()
    assert app.query_params["a"] == "cheap"


def test_one_name_alone_is_compared_with_another_run(results: Path) -> None:
    a, b = (one.value for one in drawn(published(results), "compare").selectbox)
    for name, run_id in (("a", b), ("b", a), ("a", a), ("b", b)):
        page = drawn(results, "compare", **{name: run_id})
        picked = dict(zip("ab", (one.value for one in page.selectbox), strict=True))
        assert picked[name] == run_id
        assert set(picked.values()) == {a, b}


def test_a_difference_of_programs_is_lines_of_text() -> None:
    assert unified("a\nb", "a\nb") == ""
    assert unified("a\nb", "a\n\x1b[31mc") == ("--- A\n+++ B\n@@ -1,2 +1,2 @@\n a\n-b\n+\\x1b[31mc")
