"""The paper's printed numbers are the printed ones, and its Overall follows from its columns."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from harness.reported import (
    DISCREPANCIES,
    PROBLEMS,
    VERSION,
    micro,
    no_strict_score,
    overalls,
    pass_counts,
    rows,
)

TABLES = Path(__file__).parents[2] / "shared" / "paper_tables.json"
FIELDS = {"source", "place", "row_key", "type", "method", "worker", "meta", "benchmark", "value",
          "printed", "note"}  # fmt: skip


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    if not TABLES.exists():
        pytest.skip(f"{TABLES} is not there")
    return json.loads(TABLES.read_text())  # type: ignore[no-any-return]


def printed() -> dict[tuple[str, str, str], str]:
    return {(row["place"], row["row_key"], row["benchmark"]): row["printed"] for row in rows()}


def test_overall_is_the_mean_over_all_problems_of_every_row_but_one() -> None:
    found = overalls()
    assert len(found) == 18
    assert all(abs(round(one.difference, 3)) <= Decimal("0.011") for one in found)
    assert [(one.place, one.row_key) for one in found if not one.exact] == [
        ("table 1", "llm_debate_o1_mini")
    ]


def test_the_mean_over_all_problems_is_worked_by_hand() -> None:
    # (300 * 50 + 131 * 100 + 341 * 0) / 772 = 28,100 / 772
    three = {"BigCodeBench": Decimal(50), "HumanEval": Decimal(100), "MBPP": Decimal(0)}
    assert round(micro(three), 4) == Decimal("36.3990")
    assert sum(PROBLEMS.values()) == 772


def test_rows_have_the_columns_of_the_table_and_one_number_a_cell() -> None:
    found = rows()
    assert all(set(row) == FIELDS for row in found)
    assert len(printed()) == len(found) == 14 * 4 + 4 * 4 + 8 * 3 + 4
    assert all(round(Decimal(row["value"]) * 100, 2) == Decimal(row["printed"]) for row in found)
    assert all(0 < row["value"] < 1 for row in found)
    assert all(row["source"] for row in found)
    assert len(VERSION) == 64


def test_a_doubtful_number_says_so() -> None:
    told = {row["row_key"]: row for row in rows() if row["place"] == "figure 4"}
    assert len(told) == 4
    assert "almost certainly wrong" in told["best_worker"]["note"]
    assert all("not the paper" in row["source"] for row in told.values())
    (scoreflow,) = {row["source"] for row in rows() if row["row_key"] == "scoreflow"}
    assert scoreflow.endswith("the later version only")
    inferred = {row["row_key"] for row in rows() if "inferred" in (row["note"] or "")}
    assert inferred == {"autoagents", "adas", "aflow", "maas", "scoreflow"}


def test_a_strict_score_is_a_whole_number_of_solved_problems() -> None:
    assert pass_counts("50.00", 2) == [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10)]
    assert pass_counts("33.33", 3, 1) == [(1, 3)]
    assert pass_counts("33.34", 3) == []
    assert pass_counts("57.67", 300, 1) == [(173, 300)]
    assert len(no_strict_score()) == 28  # of 54, the 14B row standing in two tables


def test_every_number_is_that_of_the_collected_tables(tables: dict[str, Any]) -> None:
    theirs = {}
    for place in ("table1", "table2"):
        for key, row in tables["tables"][place]["rows"].items():
            for name, value in row["values"].items():
                theirs[f"table {place[-1]}", key, name] = value
    for worker, row in tables["tables"]["table3"]["rows"].items():
        for meta, cells in row["meta_agents"].items():
            for name, value in cells["values"].items():
                theirs["table 3", f"{worker}/{meta}", name] = value
    claims = [claim["value"] for claim in tables["figure4"]["secondary_claims"]]
    ours = printed()
    assert {k: float(v) for k, v in ours.items() if k[0] != "figure 4"} == theirs
    assert [float(v) for k, v in ours.items() if k[0] == "figure 4"] == claims


def test_names_workers_and_notes_are_those_of_the_collected_tables(tables: dict[str, Any]) -> None:
    heads = {row["row_key"]: row for row in rows() if row["place"] == "table 1"}
    for key, row in tables["tables"]["table1"]["rows"].items():
        found = heads[key]
        assert (found["type"], found["method"], found["worker"], found["meta"]) == (
            row["type"], row["method"], row["worker"], row["meta_agent"],
        )  # fmt: skip
        both = {"000_d24badb98341196d.txt", "001_5058f571db5aad19.txt"} <= set(row["sources"])
        assert ("version 1" in found["source"]) == both
    for row in rows():
        if row["place"] == "table 3":
            worker, _, meta = row["row_key"].partition("/")
            assert row["worker"] == tables["tables"]["table3"]["rows"][worker]["worker"]
            assert row["meta"].lower().replace("-", "_").startswith(meta[: len("flowreasoner_7")])
    assert len(DISCREPANCIES) >= len(tables["discrepancies"]) - 1


def test_the_signs_of_partial_credit_are_those_of_the_collected_tables(
    tables: dict[str, Any],
) -> None:
    listed = tables["partial_credit_signal"]["cells_without_any_fit"]
    ours = [f"{place.replace(' ', '')}/{key}/{name}" for place, key, name in no_strict_score()]
    assert sorted(ours) == sorted(listed)
    for place, key, name in list(printed()):
        if place in ("table 1", "table 2") and name in PROBLEMS:
            row = tables["tables"][place.replace(" ", "")]["rows"][key]
            counts = [(c["passes"], c["of"]) for c in row["consistent_pass_counts"][name]]
            assert pass_counts(printed()[place, key, name], PROBLEMS[name]) == counts
