"""A database of an older harness becomes one of this, as a whole or not at all."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from harness import schema, store
from harness.errors import StoreError
from harness.schema import CHECKSUM, MIGRATIONS, SCHEMA_VERSION, TABLES
from harness.store import Store

SCHEMA_7 = Path(__file__).parent / "data" / "schema7"
TIMES = {"segments": "* EXCLUDE (updated_at)", "meta_schema": "version, checksum"}


def of_schema_7(results_dir: Path) -> Store:
    """A results folder as the harness of schema 7 left it: its journals, and its database."""
    shutil.copytree(SCHEMA_7 / "runs", results_dir / "runs")
    with duckdb.connect(str(results_dir / "harness.duckdb")) as connection:
        connection.execute((SCHEMA_7 / "database.sql").read_text())
    return Store(results_dir)


def told(database: Store, table: str) -> list[tuple[Any, ...]]:
    """A table's rows in words of the world: ids in the place of the database's own numbers."""
    chosen = TIMES.get(table, "*")
    source = f"(SELECT {chosen} FROM {table}) AS t"
    for number, named, names in (("run_no", "runs", "run_id"),
                                 ("problem_no", "problems", "benchmark, problem_id")):  # fmt: skip
        if number in TABLES[table]:
            others = f"SELECT {number} AS n, {names.replace(', ', ' || ')} AS told_{number}"
            source = (
                f"(SELECT * EXCLUDE ({number}, n) FROM {source} LEFT JOIN "
                f"({others} FROM {named}) ON t.{number} = n) AS t"
            )
    with duckdb.connect(str(database.path), read_only=True) as connection:
        return connection.execute(f"SELECT * FROM {source} ORDER BY ALL").fetchall()


def everything(database: Store) -> dict[str, list[tuple[Any, ...]]]:
    return {table: told(database, table) for table in TABLES if table != "meta_schema"}


def columns(database: Store) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(database.path), read_only=True) as connection:
        return connection.execute(
            "SELECT table_name, column_name, data_type, column_index FROM duckdb_columns() "
            "WHERE NOT internal ORDER BY ALL"
        ).fetchall()


def test_a_database_of_schema_7_is_migrated_and_says_what_a_rebuild_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = of_schema_7(tmp_path)
    with monkeypatch.context() as patched:  # nothing is read from the journals
        patched.setattr(Store, "_rebuild", None)
        assert old.ingest().records == 0
    migrated, made_of = everything(old), columns(old)
    assert told(old, "meta_schema") == [(7, None), (8, CHECKSUM)]
    assert migrated["problem_rollup"][0][:5] == (1, 1, 0, 0, 0)
    (rebuilt := Store(tmp_path)).rebuild()
    assert everything(rebuilt) == migrated
    assert columns(rebuilt) == made_of
    assert told(rebuilt, "meta_schema") == [(8, CHECKSUM)]


def test_what_a_migrated_database_holds_is_counted_on(tmp_path: Path) -> None:
    old = of_schema_7(tmp_path)
    old.ingest()
    with duckdb.connect(str(old.path), read_only=True) as connection:
        found = connection.execute(
            "SELECT benchmark, problem_id, samples, graded, passed, cost_usd, tokens, run_no "
            "FROM problem_rollup JOIN problems USING (problem_no) ORDER BY run_no, problem_id"
        ).fetchall()
        ((origin, kind),) = connection.execute(
            "SELECT origin ->> '$.format', kind FROM runs WHERE run_id = 'run-b'"
        ).fetchall()
    assert found == [
        ("humaneval", "HumanEval/0", 2, 2, 1, None, 30, 1),
        ("humaneval", "HumanEval/1", 2, 2, 2, 0.625, 30, 1),
        ("mbpp", "Mbpp/2", 1, 1, 0, None, None, 2),
        ("humaneval", "HumanEval/0", 1, 1, 0, 1.0, None, 3),
    ]
    assert (origin, kind) == ("evalplus", "measured")


def test_half_a_pair_in_an_old_run_json_keeps_no_database_from_being_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = of_schema_7(tmp_path)
    head = tmp_path / "runs" / "run-a" / "run.json"
    head.write_text('{"extra": "\\ud800", ' + head.read_text().lstrip()[1:])
    with duckdb.connect(str(old.path)) as connection:
        connection.execute(
            'UPDATE runs SET run_json = \'{"extra":"\\ud800",\' || run_json[2:] '
            "WHERE run_id = 'run-a'"
        )
    with monkeypatch.context() as patched:
        patched.setattr(Store, "_rebuild", None)
        assert old.ingest().problems == []
    migrated = everything(old)
    with duckdb.connect(str(old.path), read_only=True) as connection:
        found = "SELECT run_json ->> '$.extra' FROM runs WHERE run_id = 'run-a'"
        assert connection.execute(found).fetchall() == [("\\ud800",)]
    old.rebuild()
    assert everything(old) == migrated


def test_a_migration_that_fails_half_way_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = of_schema_7(tmp_path)
    before = columns(old)
    broken = (*MIGRATIONS[7], "SELECT * FROM no_such_table")
    with monkeypatch.context() as patched:
        patched.setitem(schema.MIGRATIONS, 7, broken)
        with pytest.raises(StoreError, match=r"no_such_table.*python -m harness rebuild"):
            old.ingest()
    assert (columns(old), old._found_version()) == (before, 7)
    old.ingest()
    assert old._found_version() == SCHEMA_VERSION


@pytest.mark.parametrize(
    "odd",
    ["INSERT INTO notes (run_no, kind) VALUES (1, 'verdict')",
     "INSERT INTO results (run_no) VALUES (1)",
     "UPDATE results SET verdict = 'solved'", "UPDATE results SET fresh = '[\"passed\"]'",
     "INSERT INTO notes (run_no, fields) VALUES (1, '{\"a\": \"\\ud800\"}')",
     "UPDATE meta_schema SET version = 6"],
)  # fmt: skip
def test_what_no_migration_makes_right_is_made_again_from_the_journals(
    tmp_path: Path, odd: str
) -> None:
    old = of_schema_7(tmp_path)
    with duckdb.connect(str(old.path)) as connection:
        connection.execute(odd)
    assert old.ingest().records == 21
    assert told(old, "meta_schema") == [(8, CHECKSUM)]


def test_tables_that_this_version_would_not_make_are_made_again(tmp_path: Path) -> None:
    old = of_schema_7(tmp_path)
    old.rebuild()
    before = everything(old)
    with duckdb.connect(str(old.path)) as connection:
        connection.execute("ALTER TABLE results ADD COLUMN scratch INTEGER")
        connection.execute("UPDATE meta_schema SET checksum = 'of another day'")
    assert old.ingest().records == 21
    assert everything(old) == before


def test_a_delete_and_a_snapshot_meet_an_older_database(tmp_path: Path) -> None:
    old = of_schema_7(tmp_path)
    with pytest.raises(StoreError, match="first run `python -m harness rebuild`"):
        old.snapshot()
    assert old.delete("run-a").rows == 18
    assert [row[:2] for row in told(old, "problems")] == [
        ("humaneval", "HumanEval/0"), ("mbpp", "Mbpp/2"),
    ]  # fmt: skip
    assert {row[-1] for row in told(old, "results")} == {"humanevalHumanEval/0", "mbppMbpp/2"}
    old.snapshot()


def test_the_papers_own_numbers_are_brought_to_their_version(tmp_path: Path) -> None:
    old = of_schema_7(tmp_path)
    old.ingest()
    before = told(old, "reported")
    assert len(before) > 50
    with duckdb.connect(str(old.path)) as connection:
        connection.execute("DELETE FROM reported WHERE place = 'table 1'")
    old.ingest()
    assert len(told(old, "reported")) < len(before)  # it is of that version: nobody looks again
    with duckdb.connect(str(old.path)) as connection:
        connection.execute("UPDATE meta_reported SET version = 'older'")
    old.ingest()
    assert told(old, "reported") == before


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    old = of_schema_7(tmp_path)
    with duckdb.connect(str(old.path)) as connection:
        connection.execute("UPDATE meta_schema SET version = ?", [SCHEMA_VERSION + 1])
    before = old.path.read_bytes()
    actions: list[Callable[[], object]] = [old.ingest, old.rebuild, old.snapshot]
    actions.append(lambda: store.delete_run(tmp_path, "run-a"))
    for action in actions:
        with pytest.raises(StoreError, match="newer harness"):
            action()
    assert old.path.read_bytes() == before
