"""Two runs side by side, from journals to the page of text and the JSON: numbers worked by hand."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from harness.errors import UsageError
from harness.journal import Journal
from harness.metrics import Tally, points
from harness.store import open_snapshot
from leaderboard.comparison import Spending, as_dict, compared, lines, run_named
from leaderboard.outcomes import hardest, matrix, most_contested, outcomes
from tests.results_maker import published, run, search

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SCHEMA = Path(__file__).parent.parent / "docs" / "schemas" / "compare.json"
WORDS = {"1": "passed", "0": "wrong", "?": "invalid"}


def of(verdicts: str, samples: int = 1) -> dict[str, list[str]]:
    """Problems a/0, a/1, ... with so many samples each, written one after the other."""
    words = [WORDS[x] for x in verdicts]
    return {f"a/{n}": words[n * samples : (n + 1) * samples] for n in range(len(words) // samples)}


@contextmanager
def opened(results_dir: Path) -> "Iterator[DuckDBPyConnection]":
    connection = open_snapshot(published(results_dir))
    try:
        yield connection
    finally:
        connection.close()


def test_outcomes_are_counts_by_problem_of_the_runs_asked_for(tmp_path: Path) -> None:
    run(tmp_path, "one", of("110?0", 1))
    run(tmp_path, "many", of("11010?", 2))
    run(tmp_path, "other", of("1"))
    with opened(tmp_path) as connection:
        found = outcomes(connection, ["many", "absent", "one"])
    assert list(found) == ["many", "absent", "one"]
    assert found["absent"] == {}
    assert found["one"] == {
        "a/0": Tally(1, 1, 1), "a/1": Tally(1, 1, 1), "a/2": Tally(0, 1, 1),
        "a/3": Tally(0, 0, 1), "a/4": Tally(0, 1, 1),
    }  # fmt: skip
    assert found["many"] == {"a/0": Tally(2, 2, 2), "a/1": Tally(1, 2, 2), "a/2": Tally(0, 1, 2)}


def test_the_matrix_has_every_problem_in_order_with_a_cell_for_each_system(tmp_path: Path) -> None:
    run(tmp_path, "one", of("1" * 9 + "011"))
    run(tmp_path, "two", of("1" * 10 + "?"))
    with opened(tmp_path) as connection:
        rows = matrix(connection, ["two", "absent", "one"])
    assert [row.problem_id for row in rows] == [f"a/{n}" for n in range(12)]
    ninth = rows[9]
    assert ninth.cells == (Tally(1, 1, 1), None, Tally(0, 1, 1))
    assert (ninth.solved, ninth.contested, ninth.systems, ninth.solvers) == (0.5, 1.0, 2, 1)
    assert rows[10].cells == (Tally(0, 0, 1), None, Tally(1, 1, 1))
    assert (rows[10].solved, rows[10].systems) == (1.0, 1)
    assert rows[11].cells == (None, None, Tally(1, 1, 1))


def test_hardest_and_most_contested_are_what_they_say(tmp_path: Path) -> None:
    # solved by      none  all   half each  one of four: always
    per_problem = {"a/0": ["0000", "0000", "0000", "0000"], "a/1": ["1111"] * 4,
                   "a/2": ["1100", "1100", "0011", "0101"],
                   "a/3": ["1111", "0000", "0000", "0000"]}  # fmt: skip
    for place in range(4):
        run(tmp_path, f"s{place}", {name: [WORDS[x] for x in rows[place]]
                                    for name, rows in per_problem.items()})  # fmt: skip
    run(tmp_path, "broken", {"a/4": ["invalid"]})
    with opened(tmp_path) as connection:
        rows = matrix(connection, ["s0", "s1", "s2", "s3", "broken"])
    assert [row.problem_id for row in hardest(rows)] == ["a/0", "a/3", "a/2", "a/1"]
    assert [row.problem_id for row in hardest(rows, 1)] == ["a/0"]
    # a/2 is a coin for everybody: not contested. a/3: 4 * (1/4 * 3/4)
    apart = most_contested(rows)
    assert [(row.problem_id, row.contested) for row in apart] == [("a/3", pytest.approx(0.75))]
    assert rows[4].solved is None


def test_two_runs_side_by_side_worked_by_hand(tmp_path: Path) -> None:
    run(tmp_path, "flow", of("1111110000"), cost=0.5)
    run(tmp_path, "plain", of("1100001000"), method="vanilla", level="L0", cost=0.125)
    with opened(tmp_path) as connection:
        found = compared(connection, "flow", "plain")
    assert (found.difference.only_a, found.difference.only_b) == (4, 1)
    assert found.only_a == ("a/2", "a/3", "a/4", "a/5")
    assert found.only_b == ("a/6",)
    assert (found.score_a.value, found.score_b.value) == (0.6, 0.3)
    assert found.spent[0] == Spending("usd", 0.5, 0.125, 0.375, 0.375, 0.375, 10)
    assert [(one.unit, one.a, one.b) for one in found.spent[1:]] == [
        ("calls", 1.0, 1.0), ("tokens", 100.0, 100.0), ("time", 3.0, 3.0),
    ]  # fmt: skip
    assert found.shares_ranking
    assert [(one.field, one.a, one.b) for one in found.unlike] == [
        ("method", "flow", "vanilla"), ("level", "L2", "L0"),
    ]  # fmt: skip
    text = "\n".join(lines(found))
    assert "pass@1, percent  60.0    30.0    +30.0" in text
    assert "p = 0.219, McNemar's exact test, mid-p" in text
    assert "neither is shown to solve more" in text
    assert "both solve 2, neither 3" in text
    assert "only A 4: a/2, a/3, a/4, a/5" in text
    assert "dollars          $0.500  $0.125  +$0.375  +$0.375 to +$0.375" in text
    assert "A true difference of" in text


def test_a_clear_difference_is_said_whichever_side_it_is_on(tmp_path: Path) -> None:
    run(tmp_path, "good", of("1" * 40))
    run(tmp_path, "bad", of("1" * 20 + "0" * 20))
    with opened(tmp_path) as connection:
        one, two = compared(connection, "good", "bad"), compared(connection, "bad", "good")
    assert one.words.startswith("A solves more")
    assert two.words.startswith("B solves more")
    assert "p < 0.001, " in "\n".join(lines(one))


def test_several_samples_are_compared_by_how_often_they_solve(tmp_path: Path) -> None:
    run(tmp_path, "one", of("11100100", 2), n_samples=2)
    run(tmp_path, "two", of("11110000", 2), n_samples=2)
    with opened(tmp_path) as connection:
        found = compared(connection, "one", "two")
    assert found.difference.value == pytest.approx((0 - 0.5 + 0.5 + 0) / 4)
    assert (found.only_a, found.only_b) == (("a/2",), ("a/1",))
    text = "\n".join(lines(found))
    assert "more often A 1: a/2" in text
    assert "paired t test over problems" in text
    assert "both solve 1, neither 1 (several samples: equally often)" in text


def test_unlike_data_are_refused_in_a_line_unless_asked_for_and_then_said(tmp_path: Path) -> None:
    run(tmp_path, "full", of("1100"))
    run(tmp_path, "paper", of("10"), list="paper", benchmark_digest="another-digest")
    run(tmp_path, "graded", of("1010"), grader_version="2")
    with opened(tmp_path) as connection:
        with pytest.raises(UsageError) as refused:
            compared(connection, "full", "paper")
        found = compared(connection, "full", "paper", anyway=True)
        other = compared(connection, "full", "graded")  # the same problems: said, not refused
    said = str(refused.value)
    assert said.count("\n") == 0
    assert "data 7dce6050a7d6 against another-dige" in said
    assert "list full against paper" in said
    assert "--anyway" in said
    assert not found.shares_ranking
    assert found.difference.problems == 2
    assert found.difference.dropped_b == ("a/2", "a/3")
    assert any("list full and paper" in line for line in lines(found))
    assert not other.shares_ranking
    assert any("grader 1 and 2" in note for note in other.notes)


def test_a_run_is_found_by_a_part_of_its_name_and_near_ones_are_named(tmp_path: Path) -> None:
    run(tmp_path, "humaneval-flow-a1", of("1"))
    run(tmp_path, "humaneval-plain-b2", of("0"))
    search(tmp_path)
    with opened(tmp_path) as connection:
        assert run_named(connection, "humaneval-flow-a1") == "humaneval-flow-a1"
        assert run_named(connection, "b2") == "humaneval-plain-b2"
        for name, said in (("humaneval", "2 runs are called so"), ("fit-a", "no evaluated run"),
                           ("humaneval-flow-a2", "near it: humaneval-flow-a1")):  # fmt: skip
            with pytest.raises(UsageError, match=said):
                run_named(connection, name)
        with pytest.raises(UsageError, match="the same run twice"):
            compared(connection, "b2", "humaneval-plain-b2")


def test_runs_without_a_verdict_in_common_are_refused(tmp_path: Path) -> None:
    run(tmp_path, "one", {"a/0": ["passed"], "a/1": ["invalid"]})
    run(tmp_path, "two", {"a/0": ["invalid"], "a/1": ["passed"]})
    with opened(tmp_path) as connection, pytest.raises(UsageError, match="no problem on which"):
        compared(connection, "one", "two")


def test_an_unknown_price_stays_unknown_and_errored_samples_bound_the_rest(tmp_path: Path) -> None:
    run(tmp_path, "priced", of("110"))
    run(tmp_path, "free", of("1?0"), cost=None)
    with opened(tmp_path) as connection:
        found = compared(connection, "priced", "free")
    usd = found.spent[0]
    assert (usd.a, usd.b, usd.value, usd.low) == (0.25, None, None, None)
    assert (found.difference.floor, found.difference.ceiling) == (0.0, pytest.approx(1 / 3))
    text = "\n".join(lines(found))
    assert "dollars          $0.250  unknown  unknown  unknown" in text
    assert "left out, no verdict of B 1: a/1" in text
    assert "1 sample without a verdict: the difference lies between 0.0 and +33.3" in text
    assert "B is in no ranking: partial." in text


def test_a_sure_difference_that_missing_verdicts_could_turn_round_is_said_to_be_so(
    tmp_path: Path,
) -> None:
    run(tmp_path, "x", of("1" * 30 + "0" * 70))
    run(tmp_path, "y", of("0" * 40 + "?" * 60))
    run(tmp_path, "z", of("0" * 99 + "?"))
    with opened(tmp_path) as connection:
        found, other = compared(connection, "x", "y"), compared(connection, "x", "z")
    assert found.difference.p is not None
    assert found.difference.p < 0.001
    assert (found.difference.floor, found.difference.ceiling) == (pytest.approx(-0.3), 0.3)
    assert found.words == (
        "A solves more than chance alone would make it, where there are verdicts; 60 samples "
        "without one could turn it round."
    )
    assert other.words == "A solves more than chance alone would make it."
    assert other.difference.errored == 1


def test_problems_stand_in_the_benchmarks_order_whatever_was_graded_first(tmp_path: Path) -> None:
    names = [f"a/{n}" for n in (10, 2, 30, 1, 9)] + ["b", "a"]
    run(tmp_path, "one", {name: ["passed"] for name in names} | {"a/100": ["passed"]})
    run(tmp_path, "two", {name: ["wrong"] for name in names} | {"a/11": ["passed"]})
    with opened(tmp_path) as connection:
        found = compared(connection, "one", "two")
    assert found.only_a == ("a/1", "a/2", "a/9", "a/10", "a/30", "a", "b")
    assert (found.difference.dropped_a, found.difference.dropped_b) == (("a/11",), ("a/100",))


def roles(*, temperature: float = 0.0, judge: str | None = None) -> dict[str, Any]:
    asked: dict[str, Any] = {"temperature": temperature, "max_tokens": 1024, "top_p": None}
    found: dict[str, Any] = {"worker": {"model": "local/small", "sampling": asked}}
    return found | ({"judge": {"model": judge, "sampling": asked}} if judge else {})


def test_how_the_models_were_asked_is_among_what_differs(tmp_path: Path) -> None:
    run(tmp_path, "one", of("1101"), roles=roles(judge="local/judge"), method_digest="a" * 64)
    run(tmp_path, "two", of("1010"), roles=roles(temperature=0.8), method_digest="b" * 64,
        dirty=True, n_samples=2)  # fmt: skip
    with opened(tmp_path) as connection:
        found = compared(connection, "one", "two")
    assert {(one.field, one.a, one.b) for one in found.unlike} == {
        ("code of the method", "a" * 12, "b" * 12), ("uncommitted changes", "unknown", "yes"),
        ("samples of a problem", "1", "2"), ("temperature", "0", "0.8"),
        ("judge", "local/judge", "none"), ("judge.temperature", "0", "none"),
        ("judge.max_tokens", "1024", "none"),
    }  # fmt: skip
    assert found.shares_ranking


def test_the_bootstrap_stands_beside_the_interval_with_its_seed(tmp_path: Path) -> None:
    run(tmp_path, "one", of("1" * 30 + "0" * 10))
    run(tmp_path, "two", of("1" * 12 + "0" * 26 + "11"))
    with opened(tmp_path) as connection:
        found = compared(connection, "one", "two")
    outcome = [Tally(int(x), 1, 1) for x in "1" * 30 + "0" * 10]
    assert list(found.outcomes_a.values()) == outcome
    low, high = found.bootstrap or (0.0, 0.0)
    assert low == pytest.approx(found.difference.low, abs=0.05)
    assert high == pytest.approx(found.difference.high, abs=0.05)
    assert as_dict(found)["bootstrap"] == {"low": low, "high": high, "draws": 2000, "seed": 0}
    said = f"for whoever doubts the other: {points(low)} to {points(high)} (2,000 draws"
    assert said in "\n".join(lines(found))


def test_long_lists_of_problems_are_cut_and_counted(tmp_path: Path) -> None:
    run(tmp_path, "one", of("1" * 30))
    run(tmp_path, "two", of("0" * 30))
    with opened(tmp_path) as connection:
        found = compared(connection, "one", "two")
    assert any(line.endswith("a/23 and 6 more (--json names all)") for line in lines(found))
    assert any(line.endswith("a/29") for line in lines(found, names=None))


def test_what_a_run_calls_itself_cannot_steer_the_terminal(tmp_path: Path) -> None:
    run(tmp_path, "one", of("10"), method="\x1b[31mred\nsecond line")
    run(tmp_path, "two", {"a/0": ["passed"], "a/1\x1b[2J": ["passed"]})
    journal = Journal(tmp_path / "runs" / "one")
    journal.write("result", result_key="x", problem_id="a/1\x1b[2J", sample=0, verdict="wrong",
                  cost_usd=0.0)  # fmt: skip
    journal.close()
    with opened(tmp_path) as connection:
        text = lines(compared(connection, "one", "two"))
    assert not any(mark in line for line in text for mark in "\x1b\n")
    assert any("only B 1: a/1\\x1b[2J" in line for line in text)


def test_the_json_is_what_its_schema_says(tmp_path: Path) -> None:
    run(tmp_path, "one", of("1101"))
    run(tmp_path, "two", of("1010"), cost=None, roles={"worker": {"model": "local/small"}})
    run(tmp_path, "paper", of("0"), list="paper")
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    with opened(tmp_path) as connection:
        made = [as_dict(compared(connection, "one", other, anyway=True))
                for other in ("two", "paper")]  # fmt: skip
    for one in made:
        shown: dict[str, Any] = json.loads(json.dumps(one, allow_nan=False))
        jsonschema.validate(shown, schema)
    assert made[0]["only_a"] == ["a/1", "a/3"]
    assert made[0]["a"]["run"] == "one"
    assert made[0]["b"]["meta"] is None
    assert made[0]["spent"]["usd"]["b"] is None
    assert made[0]["difference"]["p"] == 0.625  # 2 and 1: (2 * 1 + 3) / 8
    assert [one["data"] for one in made[1]["unlike"]] == [True]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**made[0], "more": 1}, schema)
