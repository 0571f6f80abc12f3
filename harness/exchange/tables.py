"""Our own columns as Parquet (all of it, for other programs) and as CSV (samples). Both ways.

Parquet is a folder: `results.parquet`, `calls.parquet`, `rounds.parquet`, `runs.parquet`, and
`texts.parquet`, where each text that they name by its SHA-256 stands once a run. CSV is one file of
samples. A row of `results` or of the CSV says its run, benchmark, method and worker, so that it can
be read alone. Each file streams: out by DuckDB and row by row, in likewise.

In: `problem_id` and `verdict` are needed, all else is unknown where it is missing. A folder, its
`results.parquet` or any Parquet file or CSV of such columns is taken; several `run_id` are several
runs. The tables beside `results.parquet` are read with it.
"""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import StoreError, UsageError
from harness.exchange.files import new_path
from harness.exchange.foreign import Fields, Log, Row, parsed
from harness.exchange.ours import BATCH, ORDER, chunks, texts_of
from harness.exchange.wishes import Export, Wish

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

RUN = ("run_id", "kind", "benchmark", "benchmark_digest", "list", "protocol", "level", "method",
       "knobs", "worker", "meta", "grader_version")  # fmt: skip
# ... of its run, in every row of a result; then, of the sample:
RESULT: dict[str, str] = {
    "problem_id": "text", "sample": "whole", "verdict": "verdict", "detail": "text",
    "fresh": "verdict", "base": "verdict", "plus": "verdict", "prompt_tokens": "whole",
    "completion_tokens": "whole", "calls": "whole", "cached_calls": "whole", "rounds": "whole",
    "cost_usd": "number", "fresh_cost_usd": "number", "price_table": "text", "wall_s": "number",
    "grade_s": "number", "feedback_passed": "whole", "feedback_total": "whole",
    "error_kind": "text", "solution_sha": "text", "reruns": "verdicts",
}  # fmt: skip
BESIDE = {"calls": "call", "rounds": "round"}  # further tables, and the kind of their records
UNKEPT = {"run_no", "segment", "run_id", "result_key", "logged_at", "problem_no"}
TEXTS = 1_000  # of a row group
UNPRINTED = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f"
                       r"\ud800-\udfff\ufeff\ufff9-\ufffb]")  # fmt: skip
# ... controls but for tab and line feed, marks of direction, halves of characters
ESCAPED = re.compile(rf"\\|{UNPRINTED.pattern}")
ESCAPE = re.compile(r"\\(\\|r|x[0-9a-f]{2}|u[0-9a-f]{4})")
HEAD = ("list", "protocol", "level", "knobs", "seed", "price_table", "custom", "needs_environment",
        "environment", "left_out", "first_look", "config", "artifact", "sandbox", "commit",
        "dirty", "method_digest", "config_hash")  # fmt: skip
# ... of run.json, that an imported run keeps


def write_parquet(export: Export, target: Path) -> list[Path]:
    """Five files into a folder. Raises UsageError where one is there already, and StoreError."""
    import duckdb

    numbers = [run.run_no for run in export.runs]
    chosen = f"run_no IN ({', '.join(map(str, numbers))})"
    made: list[Path] = []
    of_run = ", ".join(f"runs.{name}" for name in RUN)
    own = ", ".join(f"t.{name}" for name in RESULT)
    queries = {  # in no order, so that DuckDB need not hold the rows to sort them
        "runs": f"SELECT * EXCLUDE (run_no) FROM runs WHERE {chosen} ORDER BY run_no",
        "results": f"SELECT {of_run}, {own}, t.logged_at FROM results t JOIN runs USING (run_no) "
        f"WHERE {chosen}",
        **{
            table: "SELECT runs.run_id, t.* EXCLUDE (run_no, segment, result_key) "
            f"FROM {table} t JOIN runs USING (run_no) WHERE {chosen}"
            for table in BESIDE
        },
    }
    for table, query in queries.items():
        with new_path(target / f"{table}.parquet", made) as path:
            name = str(path).replace("'", "''")
            with closing(export.connection.cursor()) as cursor:
                try:
                    cursor.execute(f"COPY ({query}) TO '{name}' (FORMAT parquet, COMPRESSION zstd)")
                except duckdb.IOException as error:
                    why = str(error).splitlines()[0].replace(path.name, f"{table}.parquet")
                    raise StoreError(f"{target}: cannot write: {why}") from error
    with new_path(target / "texts.parquet", made) as path:
        _write_texts(export, path)
    return made


def _write_texts(export: Export, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("run_id", pa.string()), ("sha256", pa.string()), ("text", pa.binary())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def flush(rows: list[tuple[str, str, bytes]]) -> None:
            columns = list(zip(*rows, strict=True))
            writer.write_table(pa.table(dict(zip(schema.names, columns, strict=True)), schema))

        rows: list[tuple[str, str, bytes]] = []
        for run in export.runs:
            for sha, text in texts_of(export.connection, export.results_dir, run):
                rows.append((run.run_id, sha, text.encode("utf-8", "surrogatepass")))
                if len(rows) >= TEXTS:
                    flush(rows)
                    rows = []
        if rows:
            flush(rows)


def write_csv(export: Export, target: Path) -> list[Path]:
    """One file of all samples; `target` is its name, or a folder. Raises UsageError, StoreError."""
    made: list[Path] = []
    path = target / "samples.csv" if target.is_dir() or target.suffix != ".csv" else target
    columns = (*RUN, *RESULT, "logged_at")
    select = ", ".join([*(f"runs.{n}" for n in RUN), *(f"t.{n}" for n in (*RESULT, "logged_at"))])
    with (
        new_path(path, made) as beside,
        beside.open("w", newline="", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        for run in export.runs:
            for ids in chunks(export.connection, run.run_no):
                with closing(export.connection.cursor()) as cursor:
                    cursor.execute(
                        f"SELECT {select} FROM results t JOIN runs USING (run_no) "
                        "WHERE run_no = ? AND problem_id IN (SELECT unnest(?)) "
                        f"ORDER BY {ORDER}",
                        [run.run_no, ids],
                    )
                    while batch := cursor.fetchmany(BATCH):
                        writer.writerows(
                            [defused(x) if isinstance(x, str) else x for x in row] for row in batch
                        )
    return made


def defused(cell: str) -> str:
    """A cell of a CSV that no spreadsheet takes for a formula and that steers no terminal.

    Where it could, an apostrophe stands before it, and every backslash or character that is not
    printed is an escape, as in Python; `original` undoes it. Any other cell is what it was.
    """
    odd = cell.lstrip("'")[:1] in ("=", "+", "-", "@", "\t", "\n")
    if not (odd or UNPRINTED.search(cell) or (cell.startswith("'") and "\\" in cell)):
        return cell
    return "'" + ESCAPED.sub(lambda found: _escape(found[0]), cell)


def _escape(found: str) -> str:
    return found.encode("unicode_escape").decode()


def original(cell: str) -> str:
    """What a cell of a CSV was before it was `defused`; itself where it was not."""
    if not cell.startswith("'"):
        return cell
    plain = ESCAPE.sub(lambda found: _unescaped(found[1]), cell[1:])
    return plain if defused(plain) == cell else cell


def _unescaped(code: str) -> str:
    if code[0] in "xu":
        return chr(int(code[1:], 16))
    return {"r": "\r"}.get(code, code)


def read_csv(path: Path, wish: Wish) -> Iterator[Log]:
    """A run for each `run_id` of a CSV. Raises UsageError that names the line."""
    heads: dict[str, Fields] = {}
    for where, row in _csv_rows(path):
        heads.setdefault(row.get("run_id") or "", Fields(row, where))
    for run_id, head in heads.items():

        def rows(run_id: str = run_id) -> Iterator[Row]:
            for where, row in _csv_rows(path):
                if (row.get("run_id") or "") == run_id:
                    yield _row(Fields(_typed(row, where), where))

        yield _log(head, rows, run_id, {}, several=len(heads) > 1)


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, str | None]]]:
    """(place, row) with None for what is empty. Raises UsageError."""
    csv.field_size_limit(1 << 30)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            names = next(reader, None)
            if not names:
                raise UsageError(f"{path}:1: expected a line of column names, found nothing")
            missing = [name for name in ("problem_id", "verdict") if name not in names]
            if missing:
                raise UsageError(
                    f"{path}:1: expected a column {missing[0]}, found {', '.join(names)[:200]}"
                )
            for line in reader:
                where = f"{path}:{reader.line_num}"
                if len(line) != len(names):
                    raise UsageError(f"{where}: expected {len(names)} fields, found {len(line)}")
                cells = [original(value) or None for value in line]
                yield where, dict(zip(names, cells, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not CSV in UTF-8: {error}") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error


def _typed(row: Mapping[str, str | None], where: str) -> dict[str, Any]:
    """A CSV's row with numbers where numbers belong."""
    found: dict[str, Any] = dict(row)
    for name, kind in {**RESULT, "logged_at": "number"}.items():
        value = row.get(name)
        if value is not None and kind in ("whole", "number"):
            try:
                found[name] = float(value) if "." in value or "e" in value.lower() else int(value)
            except ValueError:
                raise Fields(row, where).wrong(
                    name, f"a {kind}".replace("whole", "whole number")
                ) from None
    return found


def read_parquet(path: Path, wish: Wish) -> Iterator[Log]:
    """A run for each `run_id` of a Parquet file, with what stands beside it. Raises UsageError."""
    results = path / "results.parquet" if path.is_dir() else path
    if not results.is_file():
        raise UsageError(f"{path}: expected a folder with results.parquet, found none")
    beside = {}
    if results.name == "results.parquet":
        names = ("runs", "texts", *BESIDE)
        beside = {n: p for n in names if (p := results.with_name(f"{n}.parquet")).is_file()}
    columns = _columns(results)
    missing = [name for name in ("problem_id", "verdict") if name not in columns]
    if missing:
        raise UsageError(
            f"{results}: expected a column {missing[0]}, found {', '.join(columns)[:200]}"
        )
    wanted = [name for name in (*RUN, *RESULT, "solution", "logged_at") if name in columns]
    heads: dict[str, Fields] = {}
    if "run_id" in columns:
        of_run = [name for name in RUN if name in columns]
        query = f"SELECT DISTINCT ON (run_id) {', '.join(of_run)} FROM {{0}} ORDER BY run_id"
        for where, row in _select(results, query):
            heads[row["run_id"] or ""] = Fields(row, where)
    else:
        first = next(iter(_select(results, f"SELECT {', '.join(wanted)} FROM {{0}} LIMIT 1")), None)
        heads[""] = Fields(first[1] if first else {}, str(results))
    if "runs" in beside:
        for where, row in _select(beside["runs"], "SELECT run_id, run_json, worker FROM {0}"):
            if row["run_id"] in heads:
                found = heads[row["run_id"]]
                whole = parsed(row["run_json"] or "{}", where)
                heads[row["run_id"]] = Fields({**found.found, "run_json": whole}, where)
    for run_id, head in heads.items():
        condition = "WHERE run_id IS NOT DISTINCT FROM ?" if "run_id" in columns else ""
        given = [run_id or None] if condition else []

        def rows(condition: str = condition, given: Sequence[Any] = given) -> Iterator[Row]:
            query = f"SELECT {', '.join(wanted)} FROM {{0}} {condition}"
            for where, row in _select(results, query, given):
                yield _row(Fields(row, where))

        yield _log(
            head,
            rows,
            run_id,
            {n: p for n, p in beside.items() if p.name != results.name},
            several=len(heads) > 1,
            file=results,
        )


def _row(row: Fields) -> Row:
    reads: dict[str, Any] = {
        "text": row.text,
        "whole": row.whole,
        "number": row.number,
        "verdict": row.verdict,
        "verdicts": row.verdicts,
    }
    values: dict[str, Any] = {
        name: reads[kind](name) for name, kind in RESULT.items() if name in row.found
    }
    problem_id, verdict = values.pop("problem_id", None), values.pop("verdict", None)
    if problem_id is None:
        raise row.wrong("problem_id", "a string")
    if verdict is None:
        raise row.wrong("verdict", "one of our verdicts")
    detail = values.pop("detail", None) or ""
    return Row(
        problem_id=problem_id, verdict=verdict, where=row.where, detail=detail,
        solution=row.text("solution"), at=row.number("logged_at"), **values,
    )  # fmt: skip


def _log(
    head: Fields,
    rows: Any,
    run_id: str,
    beside: Mapping[str, Path],
    *,
    several: bool,
    file: Path | None = None,
) -> Log:
    """One run of a table. What its run.json says counts where that is beside it."""
    whole = head.inside("run_json").found if "run_json" in head.found else {}
    made: dict[str, Any] = dict(whole.get("roles") or {})
    roles = {
        role: str(m["model"])
        for role, m in made.items()
        if isinstance(m, dict) and isinstance(m.get("model"), str)
    }
    worker = roles.pop("worker", None) or head.text("worker")
    if "meta" not in roles and head.text("meta"):
        roles["meta"] = str(head.text("meta"))
    knobs = head.found.get("knobs")
    columns = {
        name: head.text(name) for name in ("list", "protocol", "level") if name in head.found
    }
    if isinstance(knobs, str):
        columns["knobs"] = parsed(knobs, head.where)
    given = Fields(whole, head.where)
    texts = beside.get("texts")
    tables = {n: p for n, p in beside.items() if n in BESIDE}
    simulated = "simulated" in (head.text("kind"), whole.get("kind"))
    return Log(
        tool="flowreasoner-harness" if run_id else "table",
        version=given.text("harness_version"),
        file=file,
        part=run_id if several else "",
        name=run_id or None,
        rows=rows,
        benchmark=head.text("benchmark"),
        method=head.text("method"),
        worker=worker,
        roles=roles,
        simulated=simulated,
        data_hash=head.text("benchmark_digest"),
        grader_version=head.text("grader_version"),
        started_at=given.number("started_at"),
        sampling=(made.get("worker") or {}).get("sampling") or {},
        head={**columns, **{name: whole[name] for name in HEAD if name in whole},
              "benchmark_digest": head.text("benchmark_digest")},
        said={"kind": head.text("kind")},
        companions=tuple(beside.values()),
        texts=(lambda: _texts(texts, run_id)) if texts else None,
        records=(lambda: _records(tables, run_id)) if tables else None,
    )  # fmt: skip


def _texts(path: Path, run_id: str) -> Iterator[tuple[str, str]]:
    for where, row in _select(path, "SELECT sha256, text FROM {0} WHERE run_id = ?", [run_id]):
        value, sha = row["text"], row["sha256"]
        if not isinstance(value, bytes) or not isinstance(sha, str):
            raise UsageError(f"{where}: expected a SHA-256 and its text, found something else")
        yield sha, value.decode("utf-8", "surrogatepass")


def _records(tables: Mapping[str, Path], run_id: str) -> Iterator[dict[str, Any]]:
    """Journal records of the tables beside the results."""
    for table, path in tables.items():
        for where, row in _select(path, "SELECT * FROM {0} WHERE run_id = ?", [run_id]):
            found = Fields(row, where)
            if found.whole("sample") is None or found.text("problem_id") is None:
                raise found.wrong("sample", "a problem_id and a sample")
            at = found.number("logged_at")
            record = {n: v for n, v in row.items() if n not in UNKEPT}
            if isinstance(record.get("scores"), str):
                record["scores"] = parsed(record["scores"], where)
            yield {"kind": BESIDE[table], **record, **({} if at is None else {"at": at})}


def _columns(path: Path) -> list[str]:
    with closing(_duckdb()) as connection:
        return [
            row[0] for row in _run(connection, path, "DESCRIBE SELECT * FROM {0}", []).fetchall()
        ]


def _select(
    path: Path, query: str, given: Sequence[Any] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of a query over a Parquet file, batch by batch. Raises UsageError."""
    with closing(_duckdb()) as connection:
        cursor = _run(connection, path, query, given)
        names = [column[0] for column in cursor.description or ()]
        number = 0
        while batch := cursor.fetchmany(BATCH):
            for row in batch:
                number += 1
                yield f"{path} row {number}", dict(zip(names, row, strict=True))


def _duckdb() -> DuckDBPyConnection:
    import duckdb

    config: dict[str, Any] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    return duckdb.connect(config=config)


def _run(
    connection: DuckDBPyConnection, path: Path, query: str, given: Sequence[Any]
) -> DuckDBPyConnection:
    import duckdb

    name = glob.escape(str(path.resolve())).replace("'", "''")
    try:
        return connection.execute(query.format(f"read_parquet('{name}')"), list(given))
    except duckdb.Error as error:
        raise UsageError(f"{path}: cannot be read: {str(error).splitlines()[0][:200]}") from error
