"""The tables of the database, their version, and how a database of an older version becomes one.

A database is of the version in `meta_schema`, with a checksum of every table's definition: one that
this file would not make is made again from the journals. `MIGRATIONS` spares that where SQL can do
it: those from its version on run in order, in one transaction. A newer database is refused.

Numbers that a database gives (`run_no`, `problem_no`) are its own; `rebuild` gives others.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import StoreError
from harness.journal import canonical, digest
from harness.kinds import FACTS, GRADING, LIMITS, SAMPLE, SESSION, VERDICTS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SCHEMA_VERSION = 8
REBUILD = "python -m harness rebuild"
FEW = 500  # rows that go into one statement as JSON
MANY = 5_000  # rows from which an import of 0.3 s pays

TABLE_OF = {"result": "results", "round": "rounds", "feedback": "feedback",
            "workflow": "workflows", "call": "calls", "hidden": "hidden", "trial": "trials",
            "node": "nodes", "note": "notes"}  # fmt: skip

# Once a sample is graded again: every grading of it, in order; `first` as it was made, not again;
# `held` where it took the place of what held before it.
GRADINGS = SAMPLE | GRADING | {"grader_version": "TEXT", "environment": "TEXT",
                               "first": "BOOLEAN", "sandbox": "TEXT",
                               "held": "BOOLEAN"}  # fmt: skip
# One row per run and problem, sums over its samples, unknown as soon as a part is; what is shown
# by run or by problem is read from here, never from `results`. samples - graded is errored.
ROLLUP = {"run_no": "INTEGER", "problem_no": "INTEGER", "samples": "INTEGER", "graded": "INTEGER",
          "passed": "INTEGER", "fresh_graded": "INTEGER", "fresh_passed": "INTEGER",
          "calls": "BIGINT", "tokens": "BIGINT", "cached_calls": "BIGINT",
          "fresh_cost_usd": "DOUBLE", "cost_usd": "DOUBLE", "wall_s": "DOUBLE",
          "rounds": "DOUBLE"}  # fmt: skip
# What a paper printed (`harness.reported`), with where: in no query that ranks.
REPORTED = {"source": "TEXT", "place": "TEXT", "row_key": "TEXT", "type": "TEXT", "method": "TEXT",
            "worker": "TEXT", "meta": "TEXT", "benchmark": "TEXT", "value": "DOUBLE",
            "printed": "TEXT", "note": "TEXT"}  # fmt: skip

RUN_FIELDS = {
    "run_id": "TEXT", "config_hash": "TEXT", "benchmark": "TEXT", "benchmark_digest": "TEXT",
    "list": "TEXT", "protocol": "TEXT", "level": "TEXT", "method": "TEXT", "method_digest": "TEXT",
    "knobs": "JSON", "n_samples": "INTEGER", "seed": "BIGINT", "sandbox": "TEXT",
    "grader_version": "TEXT", "price_table": "TEXT", "kind": "TEXT", "harness_version": "TEXT",
    "commit": "TEXT", "dirty": "BOOLEAN", "command": "TEXT", "started_at": "DOUBLE",
    "first_look": "BOOLEAN", "custom": "BOOLEAN", "needs_environment": "BOOLEAN",
    "environment": "TEXT", "left_out": "JSON", "stage": "TEXT", "artifact": "JSON",
}  # fmt: skip
ORIGIN = {"origin": "JSON"}  # of an imported run: format, file, sha256, tool, imported_at
TABLES: dict[str, dict[str, str]] = {
    "meta_schema": {"version": "INTEGER", "applied_at": "DOUBLE", "checksum": "TEXT"},
    "runs": {"run_no": "INTEGER"}
    | RUN_FIELDS
    | {"worker": "TEXT", "meta": "TEXT", "status": "TEXT", "problems_asked": "INTEGER",
       "samples_asked": "INTEGER", "samples_left": "INTEGER", "complete": "BOOLEAN",
       "run_json": "JSON"}
    | ORIGIN,
    "sessions": {"run_no": "INTEGER", "segment": "INTEGER", "logged_at": "DOUBLE"} | SESSION,
    "artifacts": {"run_no": "INTEGER", "sha256": "TEXT", "path": "TEXT", "start": "BIGINT",
                  "bytes": "BIGINT"},
    "segments": {"path": "TEXT", "read_bytes": "BIGINT", "rows": "BIGINT", "broken": "BIGINT",
                 "updated_at": "DOUBLE"},
    **{table: FACTS[kind] for kind, table in TABLE_OF.items()},
    "problems": {"problem_no": "INTEGER", "benchmark": "TEXT", "problem_id": "TEXT"},
    "problem_rollup": ROLLUP,
    "verdicts": GRADINGS,
    "reported": REPORTED,
    "meta_reported": {"version": "TEXT"},  # of `reported`
}  # fmt: skip


def whole_sum(name: str) -> str:
    """SQL: the sum of a column, NULL as soon as a row of it is."""
    return f"CASE WHEN count({name}) = count(*) THEN sum({name}) END"


ROLLUP_OF = f"""
SELECT run_no, problem_no, count(*)::INTEGER AS samples,
       (count(*) FILTER (verdict <> 'invalid'))::INTEGER AS graded,
       (count(*) FILTER (verdict = 'passed'))::INTEGER AS passed,
       count(fresh)::INTEGER AS fresh_graded,
       (count(*) FILTER (fresh = 'passed'))::INTEGER AS fresh_passed,
       {whole_sum("calls")}::BIGINT AS calls,
       {whole_sum("(prompt_tokens + completion_tokens)")}::BIGINT AS tokens,
       {whole_sum("cached_calls")}::BIGINT AS cached_calls,
       {whole_sum("fresh_cost_usd")}::DOUBLE AS fresh_cost_usd,
       {whole_sum("cost_usd")}::DOUBLE AS cost_usd,
       {whole_sum("wall_s")}::DOUBLE AS wall_s,
       {whole_sum("rounds")}::DOUBLE AS rounds
FROM results"""  # rows of `problem_rollup`, once WHERE and GROUP BY run_no, problem_no are added


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever word it is."""
    return f'"{name}"'


def _definition(table: str) -> str:
    columns = (f"{quoted(name)} {_sql_type(kind)}" for name, kind in TABLES[table].items())
    return f"CREATE TABLE {table} ({', '.join(columns)})"


def _sql_type(kind: str) -> str:
    return "TEXT" if kind == "JSON" else kind


CHECKSUM = digest("\n".join(_definition(table) for table in TABLES))

# From version N to N + 1, under N. Order, names and types must come out as TABLES has them.
MIGRATIONS: dict[int, tuple[str, ...]] = {
    7: (
        "ALTER TABLE meta_schema ADD COLUMN checksum TEXT",
        "ALTER TABLE runs ADD COLUMN origin TEXT",
        "UPDATE runs SET origin = run_json -> '$.origin' "
        "WHERE try(json_type(run_json, '$.origin')) = 'OBJECT'",
        "CREATE TABLE problems (problem_no INTEGER, benchmark TEXT, problem_id TEXT)",
        "INSERT INTO problems SELECT row_number() OVER (ORDER BY run_no, place)::INTEGER, "
        "benchmark, problem_id FROM (SELECT benchmark, problem_id, min(run_no) AS run_no, "
        "min(results.rowid) AS place FROM results JOIN runs USING (run_no) GROUP BY ALL)",
        "CREATE TABLE results_8 AS SELECT results.*, problem_no::INTEGER AS problem_no, "
        "runs.grader_version AS grader_version, 0::INTEGER AS regrades "
        "FROM results JOIN runs USING (run_no) JOIN problems "
        "ON problems.benchmark IS NOT DISTINCT FROM runs.benchmark "
        "AND problems.problem_id = results.problem_id ORDER BY run_no, results.rowid",
        "DROP TABLE results",
        "ALTER TABLE results_8 RENAME TO results",
        "CREATE TABLE problem_rollup (run_no INTEGER, problem_no INTEGER, samples INTEGER, "
        "graded INTEGER, passed INTEGER, fresh_graded INTEGER, fresh_passed INTEGER, "
        "calls BIGINT, tokens BIGINT, cached_calls BIGINT, fresh_cost_usd DOUBLE, "
        "cost_usd DOUBLE, wall_s DOUBLE, rounds DOUBLE)",
        f"INSERT INTO problem_rollup {ROLLUP_OF} GROUP BY run_no, problem_no ORDER BY ALL",
        "CREATE TABLE verdicts (run_no INTEGER, segment INTEGER, logged_at DOUBLE, "
        "result_key TEXT, problem_id TEXT, sample INTEGER, verdict TEXT, detail TEXT, fresh TEXT, "
        "base TEXT, plus TEXT, grader_version TEXT, environment TEXT, first BOOLEAN, sandbox TEXT, "
        "held BOOLEAN)",
        "CREATE TABLE reported (source TEXT, place TEXT, row_key TEXT, type TEXT, method TEXT, "
        "worker TEXT, meta TEXT, benchmark TEXT, value DOUBLE, printed TEXT, note TEXT)",
        "CREATE TABLE meta_reported (version TEXT)",
    ),
}
# What no SQL makes of a version: a query that finds something then sends to `rebuild`.
_NO_VERDICT = " OR ".join(
    f"{name} NOT IN ({', '.join(repr(str(one)) for one in sorted(VERDICTS))})"
    for name in ("verdict", "fresh", "base", "plus")
)
REBUILT_IF = {
    7: "SELECT 1 FROM notes WHERE kind = 'verdict' OR NOT json_valid(fields) UNION ALL "
    "SELECT 1 FROM sessions WHERE NOT json_valid(config) OR NOT json_valid(forecast) UNION ALL "
    f"SELECT 1 FROM results WHERE problem_id IS NULL OR sample IS NULL OR {_NO_VERDICT}"
}


# What the disk refuses, in the operating system's words, which DuckDB hands on.
REFUSALS = {
    os.strerror(number): advice
    for number, advice in (
        (errno.ENOSPC, "make room, by `python -m harness delete` say, and try again"),
        (errno.EDQUOT, "make room, by `python -m harness delete` say, and try again"),
        (errno.EFBIG, "a file may be no larger here; raise the limit, or use another --out"),
        (errno.EROFS, "use another --out"),
        (errno.EACCES, "use another --out, or ask for the right to write here"),
        (errno.EIO, "the disk fails; copy `runs` away, it holds everything"),
    )
}


class Damaged(StoreError):
    """The database cannot be read, whatever the reason; a rebuild helps."""


class Unwritable(StoreError):
    """The disk refuses a write: it is full, say. What was written before is whole."""


def create(connection: DuckDBPyConnection) -> None:
    """Make the tables in one transaction, unless they are there."""
    if first(connection, "SELECT 1 FROM duckdb_tables() LIMIT 1"):
        return
    with transaction(connection):
        for table in TABLES:
            connection.execute(_definition(table))
        _stamp(connection)


def _stamp(connection: DuckDBPyConnection) -> None:
    row = {"version": SCHEMA_VERSION, "applied_at": time.time(), "checksum": CHECKSUM}
    insert(connection, "meta_schema", [row])


def migrate(connection: DuckDBPyConnection, version: int) -> bool:
    """Bring a database from `version` to this one, as a whole; False where no SQL can."""
    steps = range(version, SCHEMA_VERSION)
    if not steps or any(step not in MIGRATIONS for step in steps):
        return False
    if (odd := REBUILT_IF.get(version)) and first(connection, f"{odd} LIMIT 1"):
        return False
    with transaction(connection):
        for step in steps:
            for statement in MIGRATIONS[step]:
                connection.execute(statement)
        _stamp(connection)
    return True


def plain_path(path: Path) -> str:
    """A path in words that can be printed: bytes that are no UTF-8 as escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def version_of(connection: DuckDBPyConnection, path: Path) -> int | None:
    """The schema version; None for an empty database, 0 where the tables are others than its
    version has. Raises StoreError: foreign or newer.
    """
    import duckdb

    try:
        names = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        if not names:
            return None
        found = first(connection, "SELECT max(version) FROM meta_schema")
        version = int(found[0]) if found and found[0] is not None else 0
        if version == SCHEMA_VERSION:
            told = first(
                connection, "SELECT max(checksum) FROM meta_schema WHERE version = ?", version
            )
            return version if told == (CHECKSUM,) else 0
    except duckdb.Error as error:
        raise unreadable(path, error) from error
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: written by a newer harness (schema {version}, this one knows "
            f"{SCHEMA_VERSION}); update the harness, or move the file away and run `{REBUILD}`"
        )
    return version


def unreadable(path: Path, error: Exception) -> StoreError:
    """What to say of a database that DuckDB does not open: it is in use, or damaged."""
    first_line = str(error).splitlines()[0]
    if "Could not set lock" in first_line:
        return StoreError(f"{path}: another program has it open: {first_line}")
    return unwritable(path, error) or Damaged(
        f"{path}: cannot be read ({first_line}); run `{REBUILD}`"
    )


def unwritable(path: Path, error: Exception) -> Unwritable | None:
    """What to say of an error of DuckDB's that is the disk's; None for any other."""
    for words, advice in REFUSALS.items():
        if words in str(error):
            return Unwritable(f"{path}: {words}; {advice}")
    return None


def connect(path: Path, *, read_only: bool = False) -> DuckDBPyConnection:
    """An open database. Raises StoreError: damaged, another program has it open, no such name."""
    import duckdb

    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise StoreError(
            f"{plain_path(path)}: its name is no UTF-8, and DuckDB opens no such file; use another "
            "--out"
        ) from None
    try:
        return duckdb.connect(str(path), read_only=read_only)
    except duckdb.Error as error:
        raise unreadable(path, error) from error


@contextmanager
def connected(path: Path) -> Iterator[DuckDBPyConnection]:
    """An open database, closed afterwards; DuckDB's errors leave as StoreError."""
    import duckdb

    connection = connect(path)
    try:
        yield connection
    except duckdb.Error as error:
        if refused := unwritable(path, error):
            raise refused from error
        first_line = str(error).splitlines()[0]
        raise StoreError(f"{path}: {first_line}; if this stays so, run `{REBUILD}`") from error
    finally:
        with suppress(duckdb.Error):  # the error that made closing fail is already on its way
            connection.close()


@contextmanager
def transaction(connection: DuckDBPyConnection) -> Iterator[None]:
    """All of what happens within, or nothing of it."""
    import duckdb

    connection.execute("BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(duckdb.Error):  # a full disk has rolled back already: say that, not this
            connection.execute("ROLLBACK")
        raise


def first(connection: DuckDBPyConnection, query: str, *parameters: Any) -> tuple[Any, ...] | None:
    """The first row; the result is read to its end, as DuckDB wants before the next statement."""
    return next(iter(connection.execute(query, list(parameters)).fetchall()), None)


def insert(connection: DuckDBPyConnection, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows, hundreds of times as fast as one by one.

    Many go through Arrow, few as JSON: for few, importing Arrow (and pandas, which it looks for)
    would take longer than all the rest of a run's end, and as much memory as the run.
    """
    columns = TABLES[table]
    if len(rows) < MANY:
        kinds = {name: _sql_type(kind) for name, kind in columns.items()}
        for start in range(0, len(rows), FEW):
            some = [{n: row.get(n) for n in columns} for row in rows[start : start + FEW]]
            connection.execute(
                f"INSERT INTO {table} SELECT r.* FROM (SELECT unnest(from_json(?, ?)) AS r)",
                [json.dumps(some), json.dumps([kinds])],
            )
        return
    import pyarrow as pa

    types = {"INTEGER": pa.int32(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(),
             "BOOLEAN": pa.bool_(), "TEXT": pa.string(), "JSON": pa.string()}  # fmt: skip
    arrays = {n: pa.array([row.get(n) for row in rows], types[kind]) for n, kind in columns.items()}
    insert_table(connection, table, pa.table(arrays))


def insert_table(connection: DuckDBPyConnection, table: str, rows: Any) -> None:
    """Add the rows of an Arrow table, which has the columns of `table` in their order."""
    connection.register("batch", rows)
    connection.execute(f"INSERT INTO {table} SELECT * FROM batch")
    connection.unregister("batch")


def cell(value: Any, kind: str) -> Any:
    """`value` as a column of `kind` takes it. Raises ValueError when it is of another type."""
    if value is None or (kind == "BOOLEAN" and isinstance(value, bool)):
        return value
    if kind == "JSON" or (kind == "TEXT" and isinstance(value, dict | list | int | float)):
        return clean_json(canonical(value))  # TEXT too: the identity of a price table, say
    if kind == "TEXT" and isinstance(value, str):
        return clean(value)
    number = isinstance(value, int | float if kind == "DOUBLE" else int)
    if number and not isinstance(value, bool) and abs(value) < LIMITS.get(kind, 0):
        return value
    raise ValueError(f"expected {kind}, found {str(value)[:60]!r}")


def natural(table: str = "") -> str:
    """Sort keys in SQL of problem ids as people count: HumanEval/9 before HumanEval/10."""
    name = f"{table}.problem_id" if table else "problem_id"
    return f"try_cast(regexp_extract({name}, '([0-9]+)$', 1) AS BIGINT), {name}"


def clean(text: str) -> str:
    """Text that UTF-8 can hold: a lone surrogate becomes its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def clean_json(text: str) -> str:
    """JSON that DuckDB reads: in it a lone surrogate becomes the text of its escape."""
    return re.sub("[\ud800-\udfff]", lambda half: f"\\\\u{ord(half[0]):04x}", text)


def write_reported(
    connection: DuckDBPyConnection,
    version: str,
    rows: Callable[[], Sequence[Mapping[str, Any]]],
) -> None:
    """Bring `reported` to a version, unless it is of it."""
    if first(connection, "SELECT version FROM meta_reported") == (version,):
        return
    with transaction(connection):
        connection.execute("DELETE FROM reported")
        connection.execute("DELETE FROM meta_reported")
        insert(connection, "reported", rows())
        insert(connection, "meta_reported", [{"version": version}])


__all__ = [
    "CHECKSUM", "FACTS", "FEW", "GRADINGS", "LIMITS", "MANY", "MIGRATIONS", "REBUILD",
    "REBUILT_IF", "ROLLUP_OF", "RUN_FIELDS", "SCHEMA_VERSION", "SESSION", "TABLES", "TABLE_OF",
    "Damaged", "Unwritable", "cell", "clean", "clean_json", "connect", "connected", "create",
    "first", "insert", "insert_table", "migrate", "plain_path", "quoted", "transaction",
    "unreadable", "unwritable", "version_of", "whole_sum", "write_reported",
]  # fmt: skip
