"""The tables of the database, their version, and how a database of an older version becomes one.

A database is of the version in `meta_schema`, with a checksum of every table's definition: one that
this file would not make is made again from the journals. `MIGRATIONS` spares that where SQL can do
it: those from its version on run in order, in one transaction. A newer database is refused.

Numbers that a database gives (`run_no`, `problem_no`) are its own; `rebuild` gives others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import StoreError
from harness.journal import GRADED, canonical, digest

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SCHEMA_VERSION = 8
REBUILD = "python -m harness rebuild"
FEW = 500  # rows that go into one statement as JSON
MANY = 5_000  # rows from which an import of 0.3 s pays
LIMITS = {"INTEGER": 2**31, "BIGINT": 2**63, "DOUBLE": 1e300}

# Columns that every fact has; `segment` is the number of the journal file that it came from.
SAMPLE = {"run_no": "INTEGER", "segment": "INTEGER", "logged_at": "DOUBLE", "result_key": "TEXT",
          "problem_id": "TEXT", "sample": "INTEGER"}  # fmt: skip
# ... and what happened in a round, or at another problem that the sample looked at (`about`)
STEP = SAMPLE | {"round": "INTEGER", "about": "TEXT"}
# What a grading says.
GRADING = dict.fromkeys(GRADED, "TEXT")

# One table per kind of record; JSON marks a value that is kept as JSON text. No key index on
# facts: it costs more than it saves. Times are unix seconds, costs US dollars, NULL is unknown.
# `cost_usd` is what was paid, `fresh_cost_usd` what it costs where no reply is kept.
FACTS: dict[str, dict[str, str]] = {
    "result": SAMPLE  # what was found by the last grading of the sample
    | GRADING
    | {"solution_sha": "TEXT", "prompt_tokens": "BIGINT", "completion_tokens": "BIGINT",
       "calls": "INTEGER", "rounds": "INTEGER",
       "cached_calls": "INTEGER", "cost_usd": "DOUBLE", "fresh_cost_usd": "DOUBLE",
       "price_table": "TEXT", "wall_s": "DOUBLE", "grade_s": "DOUBLE",
       "feedback_passed": "INTEGER", "feedback_total": "INTEGER", "reruns": "JSON",
       "error_kind": "TEXT",
       "problem_no": "INTEGER",  # of `problems`
       "grader_version": "TEXT",  # of that grading
       "regrades": "INTEGER"},  # 0: as first graded
    "round": STEP
    | {"parent": "INTEGER", "modification": "TEXT", "workflow_sha": "TEXT",
       "prompts_sha": "TEXT", "reply_sha": "TEXT", "score": "DOUBLE", "scores": "JSON",
       "same_as_template": "BOOLEAN",
       "error": "TEXT", "error_class": "TEXT", "code_sha": "TEXT"},
    "feedback": STEP
    | {"code_sha": "TEXT", "passed": "INTEGER", "total": "INTEGER",
       "verdict": "TEXT", "errors": "JSON"},
    "workflow": STEP
    | {"calls": "INTEGER", "operators": "JSON", "answer_sha": "TEXT",
       "error": "TEXT", "error_class": "TEXT"},
    "call": STEP
    | {"call_no": "INTEGER", "attempt": "INTEGER", "role": "TEXT", "operator": "TEXT",
       "output_format": "TEXT",
       "model": "TEXT", "request_sha": "TEXT", "response_sha": "TEXT", "prompt_tokens": "BIGINT",
       "completion_tokens": "BIGINT", "cached_tokens": "BIGINT", "reasoning_tokens": "BIGINT",
       "temperature": "DOUBLE", "seed": "BIGINT", "max_tokens": "BIGINT", "cached": "BOOLEAN",
       "cost_usd": "DOUBLE", "fresh_cost_usd": "DOUBLE", "latency_s": "DOUBLE",
       "finish": "TEXT", "error": "TEXT", "error_kind": "TEXT"},
    "hidden": SAMPLE | {"round": "INTEGER", "code_sha": "TEXT", "verdict": "TEXT"},
    "trial": SAMPLE
    | {"label": "TEXT", "round": "INTEGER", "passed": "BOOLEAN", "share": "DOUBLE",
       "detail": "TEXT", "code_sha": "TEXT", "facts": "JSON", "calls": "INTEGER",
       "tokens": "DOUBLE", "usd": "DOUBLE", "wall_s": "DOUBLE"},
    "node": STEP
    | {"number": "INTEGER", "parent": "INTEGER", "label": "TEXT",
       "score": "DOUBLE", "low": "DOUBLE", "high": "DOUBLE", "error": "TEXT",
       "workflow_sha": "TEXT", "prompts_sha": "TEXT", "reply_sha": "TEXT"},
    "note": SAMPLE | {"kind": "TEXT", "fields": "JSON"},  # any other kind that a method notes
}  # fmt: skip
TABLE_OF = {"result": "results", "round": "rounds", "feedback": "feedback",
            "workflow": "workflows", "call": "calls", "hidden": "hidden", "trial": "trials",
            "node": "nodes", "note": "notes"}  # fmt: skip

# Once a sample is graded again: every grading of it, in order; `first` as it was made, not again.
GRADINGS = SAMPLE | GRADING | {"grader_version": "TEXT", "environment": "TEXT",
                               "first": "BOOLEAN", "sandbox": "TEXT"}  # fmt: skip
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
SESSION = {
    "event": "TEXT", "status": "TEXT", "problems": "INTEGER", "samples": "INTEGER",
    "resumed": "INTEGER", "limit": "TEXT", "n_samples": "INTEGER", "sandbox": "TEXT",
    "commit": "TEXT", "dirty": "BOOLEAN", "command": "TEXT", "harness_version": "TEXT",
    "versions": "JSON", "asked": "JSON", "environment": "TEXT", "left_out": "JSON",
    "config": "JSON", "forecast": "JSON", "served_by": "JSON",
}  # fmt: skip
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
        "WHERE json_type(run_json, '$.origin') = 'OBJECT'",
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
        "base TEXT, plus TEXT, grader_version TEXT, environment TEXT, first BOOLEAN, sandbox TEXT)",
        "CREATE TABLE reported (source TEXT, place TEXT, row_key TEXT, type TEXT, method TEXT, "
        "worker TEXT, meta TEXT, benchmark TEXT, value DOUBLE, printed TEXT, note TEXT)",
        "CREATE TABLE meta_reported (version TEXT)",
    ),
}
# What no SQL makes of a version: a query that finds something then sends to `rebuild`.
REBUILT_IF = {7: "SELECT 1 FROM notes WHERE kind = 'verdict' UNION ALL "
                 "SELECT 1 FROM results WHERE problem_id IS NULL"}  # fmt: skip


class Damaged(StoreError):
    """The database cannot be read, whatever the reason; a rebuild helps."""


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
    return Damaged(f"{path}: cannot be read ({first_line}); run `{REBUILD}`")


def connect(path: Path, *, read_only: bool = False) -> DuckDBPyConnection:
    """An open database. Raises StoreError: damaged, or another program has it open."""
    import duckdb

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
        first_line = str(error).splitlines()[0]
        raise StoreError(f"{path}: {first_line}; if this stays so, run `{REBUILD}`") from error
    finally:
        with suppress(duckdb.Error):  # the error that made closing fail is already on its way
            connection.close()


@contextmanager
def transaction(connection: DuckDBPyConnection) -> Iterator[None]:
    """All of what happens within, or nothing of it."""
    connection.execute("BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
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
        return clean(canonical(value))  # TEXT too: the identity of a price table, say
    if kind == "TEXT" and isinstance(value, str):
        return clean(value)
    number = isinstance(value, int | float if kind == "DOUBLE" else int)
    if number and not isinstance(value, bool) and abs(value) < LIMITS.get(kind, 0):
        return value
    raise ValueError(f"expected {kind}, found {str(value)[:60]!r}")


def clean(text: str) -> str:
    """Text that UTF-8 can hold: a lone surrogate becomes its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


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
