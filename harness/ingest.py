"""Journals → rows: what a run's run.json, sessions and segments come to in the database.

A segment is read from where it was last read to, in batches; a batch's rows, what follows from them
(`problem_rollup`, `verdicts`, the columns of `runs`) and the offset up to which the segment is now
read are one transaction, so each record is counted exactly once. What a line that is no record
holds is left out and counted.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import columnar
from harness.errors import StoreError
from harness.journal import canonical, holds, record_of, regraded, segments
from harness.kinds import (
    DERIVED,
    FACTS,
    GIVEN,
    SAMPLE,
    SESSION,
    check_reasons,
    check_session,
    object_in,
)
from harness.schema import (
    FEW,
    GRADINGS,
    MANY,
    REBUILD,
    ROLLUP_OF,
    RUN_FIELDS,
    TABLE_OF,
    TABLES,
    cell,
    clean,
    clean_json,
    first,
    insert,
    insert_table,
    quoted,
    transaction,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

UNGRADED = (None, "invalid")  # verdicts that are none
MIXED = "mixed: "  # how a run's sandbox, commit or prices begin when it had several
UNREAL = ("sim/", "scripted/")  # how the names of models begin that are none
BATCH = 1 << 24  # bytes of a segment per transaction
YEAR_10000 = 253_402_300_800  # unix seconds; no calendar here goes that far

SUMS = ("problem_rollup",)  # tables whose rows are no records
TOLD = {n: k for n, k in FACTS["result"].items() if n not in DERIVED}  # by a record

Row = dict[str, Any]
Numbers = dict[str | None, dict[str, int]]  # of problems, by benchmark and id


@dataclass
class IngestReport:
    """What one reading of the journals found."""

    runs: int = 0  # with a readable run.json
    records: int = 0  # new ones, now in the database
    broken: int = 0  # new lines that are no record, left out
    problems: list[str] = field(default_factory=list)  # one line each, for the user

    def add(self, other: IngestReport) -> None:
        """Count in what another one found of records."""
        self.records += other.records
        self.broken += other.broken
        self.problems += other.problems


def session_row(segment: int, record: Mapping[str, Any]) -> dict[str, Any]:
    """A `session` record as a row of `sessions`. Raises ValueError for a value of another type."""
    check_session(record)
    row = {name: cell(record.get(name), kind) for name, kind in SESSION.items()}
    return {**row, "segment": segment, "logged_at": cell(record.get("at"), "DOUBLE")}


def standing(
    head: dict[str, Any],
    sessions: Sequence[Mapping[str, Any]],
    results: Iterable[tuple[int, str, int, str | None, str | None]],
    *,
    again: Mapping[tuple[str, int], Mapping[str, Any]] | None = None,
    graders: Iterable[str | None] = (),
) -> dict[str, Any]:
    """What the sessions of a run come to, as columns of `runs`.

    `head` is run.json, which speaks where older sessions say nothing; `sessions` are rows, oldest
    first; `results` are the last ones, as (segment, problem id, sample, verdict, price table).
    What was asked for is every sample that a session asked for, and the run is complete when all
    of them have a verdict: a shorter command after a long one completes nothing. Where a session
    does not say which problems it asked for, that of the most samples stands for all. Sandbox,
    environment, commit, grader version and price table are those of the verdicts, "mixed: ..." when
    they were several: `again` has, by (problem id, sample), `sandbox` and `environment` of those
    that were found by grading again, `graders` the grader version of every result. Left out is what
    some session left out and none asked for; None where no session says.
    A search (stage `fit`) has no samples: it is complete when its last session says so.
    """
    head = run_row(head)
    starts = [s for s in sessions if s["event"] == "start"]
    problems = max((s["problems"] for s in starts if s["problems"] is not None), default=None)
    samples = max((s["samples"] for s in starts if s["samples"] is not None), default=None)
    largest = [s for s in starts if s["samples"] == samples]
    found = list(results)
    graded = Counter(segment for segment, _, _, verdict, _ in found if verdict not in UNGRADED)
    invalid = sum(verdict == "invalid" for _, _, _, verdict, _ in found)
    used = [s for s in starts if graded[s["segment"]]] or starts[-1:] or [head]
    again = again or {}
    first_hand = {segment for segment, p, k, verdict, _ in found
                  if verdict not in UNGRADED and (p, k) not in again}  # fmt: skip
    places = [s for s in used if s["segment"] in first_hand] if again and starts else used

    def told(session: Mapping[str, Any], name: str) -> Any:
        return head[name] if session[name] is None else session[name]

    def asked(session: Mapping[str, Any]) -> set[tuple[str, int]] | None:
        ids, draws = session["asked"], told(session, "n_samples")
        if ids is None or draws is None:
            return None
        return {(problem_id, k) for problem_id in json.loads(ids) for k in range(draws)}

    def several(name: str) -> str | None:
        return _one_or_mixed(told(s, name) for s in used)

    def graded_in(name: str) -> str | None:
        return _one_or_mixed(
            [*(told(s, name) for s in places), *(one.get(name) for one in again.values())]
        )

    shown = (largest or [head])[-1]
    command = told(shown, "command")
    each = [(s, asked(s)) for s in starts]
    known = [of_one for _, of_one in each if of_one is not None]
    told_out = [json.loads(out) for s in starts or [head] if (out := told(s, "left_out"))]
    run = {problem_id for of_one in known for problem_id, _ in of_one}
    left_out = {name: why for out in told_out for name, why in out.items() if name not in run}
    if starts and len(known) == len(starts):
        every = set[tuple[str, int]]().union(*known)
        if command and all(of_one != every for s, of_one in each if s is shown):
            command += ", and others"
        problems, samples = len({problem_id for problem_id, _ in every}), len(every)
        open_samples = every - {(p, k) for _, p, k, verdict, _ in found if verdict not in UNGRADED}
        left: int | None = len(open_samples)
        complete = bool(every) and not open_samples and not invalid
    else:
        seen = [(s["resumed"] or 0) + graded[s["segment"]] for s in largest]  # of those asked
        left = None if samples is None else max(0, samples - max(seen))
        complete = bool(samples) and max(seen) >= (samples or 0) and not invalid
    last = sessions[-1] if sessions else None
    status = last and ("running" if last["event"] == "start" else last["status"])
    if head["stage"] == "fit":  # a search has no samples: it is complete when it says so
        complete, samples, left = status == "complete", None, None
    dirty = [told(s, "dirty") for s in used]
    return {
        "status": "partial" if status == "complete" and not complete else status,
        "problems_asked": problems,
        "samples_asked": samples,
        "samples_left": left,
        "price_table": _one_or_mixed(
            head["price_table"] if price is None else price for *_, price in found
        )
        or head["price_table"],
        "complete": complete,
        "sandbox": graded_in("sandbox"),
        "environment": graded_in("environment"),
        "grader_version": _one_or_mixed(graders) or head["grader_version"],
        "left_out": canonical(left_out) if told_out else None,
        "commit": several("commit"),
        "dirty": True if True in dirty else None if None in dirty else False,
        "command": command,
        **{name: told(shown, name) for name in ("n_samples", "harness_version")},
    }


def _one_or_mixed(values: Iterable[Any]) -> str | None:
    """The one value that there is, None aside; "mixed: ..." of several."""
    known = sorted({str(value) for value in set(values) if value is not None})
    return f"{MIXED}{', '.join(known)}" if len(known) > 1 else next(iter(known), None)


def read_run_json(run_dir: Path) -> dict[str, Any]:
    """What the run.json of a run says. Raises StoreError, one line, when it describes no run."""
    path = run_dir / "run.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        run_row(found)
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not readable as a run: {error}") from error
    return dict(found)


def run_row(found: Any) -> dict[str, Any]:
    """A row of `runs` from run.json. Raises ValueError for anything else."""
    if not isinstance(found, dict) or not isinstance(found.get("run_id"), str):
        raise ValueError("no run_id")
    object_in(found, "knobs")
    check_reasons(found)
    roles = {role: object_in(object_in(found, "roles"), role) for role in object_in(found, "roles")}
    for made in roles.values():
        object_in(made, "sampling")
    row = {name: cell(found.get(name), kind) for name, kind in RUN_FIELDS.items()}
    row["kind"] = "simulated" if is_simulated(found) else row["kind"]
    row["stage"] = row["stage"] or "eval"  # which runs of before searches had a stage were
    object_in(object_in(found, "artifact"), "spent")
    row["origin"] = cell(found["origin"], "JSON") if object_in(found, "origin") else None
    if not 0 <= (row["started_at"] or 0) < YEAR_10000:
        raise ValueError(f"started_at: expected unix seconds, found {row['started_at']!r}")
    if isinstance(words := found.get("command"), list):
        row["command"] = clean(" ".join(map(str, words)))
    for role in ("worker", "meta"):
        row[role] = cell(roles.get(role, {}).get("model"), "TEXT")
    return {**row, "run_json": cell(found, "JSON")}


def is_simulated(head: Mapping[str, Any]) -> bool:
    """Whether run.json names a model that is none, or replies of one: never ranked, never exported.

    Whatever it says of its kind: a run is simulated as soon as one role is.
    """
    made = object_in(head, "roles").values()
    return head.get("kind") == "simulated" or any(
        str(role.get("model")).startswith(UNREAL) or object_in(role, "identity").get("simulated")
        for role in made
    )


def with_fresh_cost(record: dict[str, Any]) -> dict[str, Any]:
    """A `call` or `result` of before replies were kept, with what it would say now; or itself."""
    defaults: dict[str, Any] = {"call": {"cached": False}, "result": {"cached_calls": 0}}
    if record["kind"] not in defaults or "fresh_cost_usd" in record:
        return record
    return {**defaults[record["kind"]], "fresh_cost_usd": record.get("cost_usd"), **record}


def writer_is_gone(run_dir: Path) -> bool:
    """Whether no process holds a run's `.lock` any more, as its writer does until it ends."""
    path = run_dir / ".lock"
    with disk(path):
        try:
            lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:  # shared, so that two who look are not taken for a writer by each other
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(lock)
    return True


def read_runs(
    connection: DuckDBPyConnection, results_dir: Path, dirs: Sequence[Path]
) -> IngestReport:
    """Bring the rows of these run folders up to date with their journals.

    A run that cannot be read is reported and keeps the rows that it has; the others are read.
    """
    import duckdb

    report = IngestReport()
    problems: Numbers = {}
    for run_dir in dirs:
        try:
            _read_run(connection, results_dir, run_dir, problems, report)
        except (StoreError, duckdb.DataError, duckdb.InvalidInputException) as error:
            problems.clear()  # of what was rolled back
            said = str(error).splitlines()[0]
            report.problems.append(f"not read to its end: {run_dir}: {said}")
    _mark_the_dead(connection, results_dir, report)
    return report


@dataclass(frozen=True)
class Head:
    """What the rows of a run need to know of it."""

    run_no: int
    benchmark: str | None
    grader_version: str | None  # of results that do not say theirs


@dataclass(frozen=True)
class Part:
    """A segment with what is not read of it yet."""

    path: Path
    name: str  # in `segments`
    start: int  # up to which it was read
    size: int


def _read_run(
    connection: DuckDBPyConnection,
    results_dir: Path,
    run_dir: Path,
    problems: Numbers,
    report: IngestReport,
) -> None:
    """Read what is new of a run, in batches, each a transaction.

    All of it is read anew, in one transaction, where its benchmark or grader is another than
    before, or a segment has grown that others came after, as merging can make it: of several
    gradings of a sample the last one in the order of the segments holds.
    """
    row = _head_row(run_dir, report)
    if row is None:
        return
    known = first(
        connection,
        "SELECT run_no, run_json, benchmark, try(run_json ->> '$.grader_version') "
        "FROM runs WHERE run_id = ?",
        row["run_id"],
    )
    parts = _parts(connection, results_dir, run_dir)
    other = known and tuple(known[2:]) != (row["benchmark"], row["grader_version"])
    if other or _grown_behind(parts):
        assert known is not None
        head = Head(int(known[0]), row["benchmark"], row["grader_version"])
        told = IngestReport()
        with transaction(connection):
            delete_facts(connection, head.run_no, row["run_id"])
            problems.clear()  # of those that only it had, the numbers are gone
            _update_head(connection, head.run_no, row)
            for batch in _batches(head, [replace(part, start=0) for part in parts], report):
                batch.write(connection, problems)
                batch.tell(told)
            _settle(connection, head.run_no)
        report.add(told)
    else:
        head = _with_head(connection, row, known)
        last: Batch | None = None
        for batch in _batches(head, parts, report):
            if last is not None:
                with transaction(connection):
                    last.write(connection, problems)
                last.tell(report)
            last = batch
        if last is not None:
            with transaction(connection):
                last.write(connection, problems)
                _settle(connection, head.run_no)
            last.tell(report)
    report.runs += 1


def _head_row(run_dir: Path, report: IngestReport) -> Row | None:
    """The row of `runs` that run.json makes; None, reported, when it says nothing of this run."""
    try:
        row = run_row(read_run_json(run_dir))
    except StoreError as error:
        report.problems.append(f"left out: {error}")
        return None
    if row["run_id"] != run_dir.name:
        path = run_dir / "run.json"
        report.problems.append(f"left out: {path}: holds the id {row['run_id']!r}")
        return None
    return row


def _with_head(connection: DuckDBPyConnection, row: Row, known: tuple[Any, ...] | None) -> Head:
    """The run, numbered on first sight, with what run.json says now."""
    if known is not None:
        run_no = int(known[0])
        if known[1] != row["run_json"]:  # a resumed run may have written it again
            with transaction(connection):
                _update_head(connection, run_no, row)
                _settle(connection, run_no)
    else:
        top = first(connection, "SELECT coalesce(max(run_no), 0) + 1 FROM runs")
        assert top is not None
        run_no = int(top[0])
        with transaction(connection):
            insert(connection, "runs", [{"run_no": run_no, **row}])
            _settle(connection, run_no)
    return Head(run_no, row["benchmark"], row["grader_version"])


def _update_head(connection: DuckDBPyConnection, run_no: int, row: Row) -> None:
    names = [name for name in row if name != "run_id"]
    connection.execute(
        f"UPDATE runs SET {', '.join(f'{quoted(n)} = ?' for n in names)} WHERE run_no = ?",
        [*(row[n] for n in names), run_no],
    )


def delete_facts(connection: DuckDBPyConnection, run_no: int, run_id: str) -> int:
    """Remove all rows of a run but that of `runs`; how many those of tables of records were."""
    rows = 0
    for table, columns in TABLES.items():
        if "run_no" in columns and table != "runs":
            gone = first(connection, f"DELETE FROM {table} WHERE run_no = ?", run_no)
            rows += gone[0] if gone and table not in SUMS else 0
    connection.execute("DELETE FROM segments WHERE starts_with(path, ?)", [f"runs/{run_id}/"])
    connection.execute(
        "DELETE FROM problems WHERE problem_no NOT IN (SELECT problem_no FROM problem_rollup)"
    )
    return rows


def _parts(connection: DuckDBPyConnection, results_dir: Path, run_dir: Path) -> list[Part]:
    """The segments of a run, in order, with how far each was read."""
    folder = run_dir.relative_to(results_dir).as_posix()
    read = connection.execute(
        "SELECT path, read_bytes FROM segments WHERE starts_with(path, ?)", [f"{folder}/"]
    ).fetchall()
    offsets = dict(read)
    parts = []
    with disk(run_dir):
        for path in segments(run_dir):
            name = f"{folder}/{path.name}"
            parts.append(Part(path, name, offsets.get(name, 0), path.stat().st_size))
    return parts


def _grown_behind(parts: Sequence[Part]) -> bool:
    """Whether a segment has more whole lines although a later one was read."""
    last = max((at for at, part in enumerate(parts) if part.start), default=0)
    return any(part.size > part.start and _has_line(part) for part in parts[:last])


def _has_line(part: Part) -> bool:
    """Whether there is a whole line that was not read: a torn tail is none."""
    with disk(part.path), part.path.open("rb") as file:
        file.seek(part.start)
        return file.readline().endswith(b"\n")


def _batches(head: Head, parts: Sequence[Part], report: IngestReport) -> Iterator[Batch]:
    """What the segments of a run hold beyond where they were last read to."""
    for part in parts:
        if part.size < part.start:
            report.problems.append(
                f"{part.name}: shorter than when it was last read; run `{REBUILD}`"
            )
        if part.size <= part.start:
            continue
        start = part.start
        with disk(part.path), part.path.open("rb") as file:
            file.seek(start)
            whole = True
            while whole and (lines := file.readlines(BATCH)):
                whole = lines[-1].endswith(b"\n")
                if not whole:  # its writer may still be at it, or was killed: what it adds while
                    lines.pop()  # this is read is no line of its own
                if lines:
                    yield (batch := Batch(head, int(part.path.stem), part.name, start, lines))
                    start = batch.end


class Batch:
    """A stretch of a segment on its way into one transaction."""

    def __init__(
        self, head: Head, segment: int, path: str, start: int, lines: Sequence[bytes]
    ) -> None:
        self.head, self.segment, self.path, self.lines = head, segment, path, lines
        *self.starts, self.end = accumulate(map(len, lines), initial=start)  # bytes of the segment
        self.broken = 0
        self.first_broken: tuple[int, str] | None = None  # byte, what is wrong
        self.rows: dict[str, list[tuple[int, Row]]] = {}  # by table, with that byte
        self.gradings: list[tuple[int, bool, Row]] = []  # ..., whether it is a `result`
        self.tables: dict[str, Any] = {}  # kinds that were read many lines at once, as Arrow tables

    def read(self, connection: DuckDBPyConnection) -> None:
        """Make rows of the lines: of many regular ones at once, of all others one by one."""
        many: dict[str, list[tuple[int, bytes]]] = {}
        for place in zip(self.starts, self.lines, strict=True):
            if kind := columnar.kind_of(place[1]):
                many.setdefault(kind, []).append(place)
            else:
                self._read_one(*place)
        enough = sum(map(len, many.values())) >= MANY  # for the import of Arrow to pay
        for kind, lines in many.items():
            table = "artifacts" if kind == "artifact" else TABLE_OF[kind]
            alone = not enough or len(lines) < FEW or table in self.rows
            if kind == "result" and not alone:
                alone = bool(self.gradings) or _has_history(connection, self.head.run_no)
            found = None if alone else self._read_many(kind, lines)
            if found is not None:
                self.tables[table] = found
            else:
                for place in lines:
                    self._read_one(*place)
        self.gradings.sort(key=lambda item: item[0])
        for rows in self.rows.values():
            rows.sort(key=lambda item: item[0])

    def _read_many(self, kind: str, lines: list[tuple[int, bytes]]) -> Any | None:
        """The rows of many lines of a kind as an Arrow table; None: look at each."""
        texts = [line for _, line in lines]
        run_no = self.head.run_no
        if kind != "artifact":
            return columnar.facts(kind, texts, run_no, self.segment)
        shas = columnar.digests(texts)
        if shas is None:
            return None
        return columnar.artifacts(shas, self.path, [at for at, _ in lines], texts, run_no)

    def _read_one(self, offset: int, line: bytes) -> None:
        try:
            self._add(offset, offset + len(line), record_of(line))
        except (ValueError, RecursionError) as error:  # the latter: nested too deep to be written
            self.broken += 1
            said = offset, str(error)
            self.first_broken = min(self.first_broken or said, said)

    def _add(self, offset: int, end: int, record: dict[str, Any]) -> None:
        kind, run_no = record["kind"], self.head.run_no
        if kind == "session":
            row = {"run_no": run_no, **session_row(self.segment, record)}
            self.rows.setdefault("sessions", []).append((offset, row))
            return
        if kind == "artifact":
            place = {
                "sha256": record["sha256"],
                "path": self.path,
                "start": offset,
                "bytes": end - offset,
            }
            self.rows.setdefault("artifacts", []).append((offset, {"run_no": run_no, **place}))
            return
        if kind in ("result", "verdict"):
            self._add_grading(offset, kind == "result", record)
            return
        known = kind if kind in FACTS and kind != "note" else "note"
        if known == "note":
            fields = {k: v for k, v in record.items() if k not in {"kind", "at", *SAMPLE}}
            record = {**record, "fields": fields}
        row = self._row(with_fresh_cost(record), FACTS[known])
        if known == "note":  # in the order of the method's
            text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
            row["fields"] = clean_json(text)
        self.rows.setdefault(TABLE_OF[known], []).append((offset, row))

    def _row(self, record: Mapping[str, Any], columns: Mapping[str, str]) -> Row:
        row = {n: cell(record.get(n), k) for n, k in columns.items() if n not in GIVEN}
        row |= {"run_no": self.head.run_no, "segment": self.segment}
        row["logged_at"] = cell(record.get("at"), "DOUBLE")
        return row

    def _add_grading(self, offset: int, made: bool, record: dict[str, Any]) -> None:
        if made:
            row = self._row(with_fresh_cost(record), TOLD)
            row |= {"problem_no": None, "regrades": 0}
            if row["grader_version"] is None:
                row["grader_version"] = self.head.grader_version
        else:
            row = self._row(record, GRADINGS)
            row |= {"first": False, "held": None}
            row["solution_sha"] = cell(record.get("solution_sha"), "TEXT")
        self.gradings.append((offset, made, row))

    def write(self, connection: DuckDBPyConnection, problems: Numbers) -> None:
        """Write the rows, what follows from them, and the offset up to which the segment is read.

        `problems` are the numbers that are known so far. In the caller's transaction.
        """
        self.read(connection)
        for table, rows in self.rows.items():
            insert(connection, table, [row for _, row in rows])
        for table, found in self.tables.items():
            if table == "results":
                self._write_many_results(connection, problems, found)
            else:
                insert_table(connection, table, found)
        if self.gradings:
            self._write_results(connection, problems)
        before = first(
            connection, "DELETE FROM segments WHERE path = ? RETURNING rows, broken", self.path
        )
        rows_before, broken_before = before or (0, 0)
        place = {"path": self.path, "read_bytes": self.end, "updated_at": time.time()}
        counts = {"rows": rows_before + self.records, "broken": broken_before + self.broken}
        insert(connection, "segments", [{**place, **counts}])

    @property
    def records(self) -> int:
        """How many of the lines are records."""
        return len(self.lines) - self.broken

    def _write_many_results(
        self, connection: DuckDBPyConnection, problems: Numbers, found: Any
    ) -> None:
        """Write results, each of another sample, of a run that nobody graded again."""
        run_no, benchmark = self.head.run_no, self.head.benchmark
        ids = columnar.distinct(found["problem_id"])
        numbers = _numbered(connection, problems, benchmark, ids)
        found = columnar.numbered(found, numbers, self.head.grader_version)
        connection.register("batch", found)
        gone = []
        if first(connection, "SELECT 1 FROM results WHERE run_no = ? LIMIT 1", run_no):
            gone = connection.execute(
                "DELETE FROM results WHERE run_no = ? "
                "AND result_key IN (SELECT result_key FROM batch) RETURNING problem_no",
                [run_no],
            ).fetchall()
        connection.unregister("batch")
        insert_table(connection, "results", found)
        roll_up(connection, run_no, {n for (n,) in gone} | {numbers[one] for one in ids})

    def _write_results(self, connection: DuckDBPyConnection, problems: Numbers) -> None:
        """The last grading of a sample holds; `verdicts` has each, once there is a second one."""
        changed, history = self._graded(connection)
        run_no = self.head.run_no
        numbers = _numbered(
            connection, problems, self.head.benchmark, (r["problem_id"] for r in changed.values())
        )
        for row in changed.values():
            row["problem_no"] = numbers[row["problem_id"]]
        gone = connection.execute(
            "DELETE FROM results WHERE run_no = ? AND result_key IN (SELECT unnest(?)) "
            "RETURNING problem_no",
            [run_no, list(changed)],
        ).fetchall()
        insert(connection, "results", list(changed.values()))
        insert(connection, "verdicts", history)
        touched = {number for (number,) in gone} | {r["problem_no"] for r in changed.values()}
        roll_up(connection, run_no, touched)

    def _graded(self, connection: DuckDBPyConnection) -> tuple[dict[str, Row], list[Row]]:
        """(rows of `results` that are new, by key; rows of `verdicts`)."""
        run_no = self.head.run_no
        known = connection.execute(
            "SELECT DISTINCT result_key FROM verdicts WHERE run_no = ?", [run_no]
        ).fetchall()
        again = {key for (key,) in known}
        keys = {row["result_key"] for _, made, row in self.gradings if not made}
        held: dict[str, Row] = {}
        if keys:
            names = list(FACTS["result"])
            found = connection.execute(
                f"SELECT {', '.join(map(quoted, names))} FROM results "
                "WHERE run_no = ? AND result_key IN (SELECT unnest(?))",
                [run_no, list(keys)],
            ).fetchall()
            held = {row["result_key"]: row for one in found
                    for row in [dict(zip(names, one, strict=True))]}  # fmt: skip
        changed: dict[str, Row] = {}
        history: list[Row] = []
        for _, made, row in self.gradings:
            key = row["result_key"]
            if made:
                held[key] = changed[key] = row
                if key in again:
                    history.append(self._as_first(connection, row))
                continue
            now = held.get(key)
            if key not in again and now is not None:
                history.append(self._as_first(connection, now))
            again.add(key)
            taken = now is not None and holds(row, now)
            history.append({**{name: row[name] for name in GRADINGS}, "held": taken})
            if taken:
                assert now is not None
                held[key] = changed[key] = regraded(now, row)
        return changed, history

    def _as_first(self, connection: DuckDBPyConnection, result: Row) -> Row:
        """A result's own grading as a row of `verdicts`; where it was done, its session says."""
        found = first(
            connection,
            "SELECT coalesce(s.environment, try(r.run_json ->> '$.environment')), "
            "coalesce(s.sandbox, try(r.run_json ->> '$.sandbox')) "
            "FROM runs AS r LEFT JOIN sessions AS s ON s.run_no = r.run_no AND s.segment = ? "
            "AND s.event = 'start' WHERE r.run_no = ? LIMIT 1",
            result["segment"], self.head.run_no,
        )  # fmt: skip
        environment, sandbox = found or (None, None)
        row = {name: result.get(name) for name in GRADINGS}
        place = {"environment": environment, "sandbox": sandbox}
        return {**row, **place, "first": True, "held": True}

    def tell(self, report: IngestReport) -> None:
        """Count in a report what is now in the database."""
        report.records += self.records
        report.broken += self.broken
        if self.first_broken:
            lines = "1 line" if self.broken == 1 else f"{self.broken} lines"
            offset, error = self.first_broken
            report.problems.append(f"{self.path}: {lines} left out, first byte {offset}: {error}")


def _has_history(connection: DuckDBPyConnection, run_no: int) -> bool:
    """Whether some sample of a run was graded again."""
    return bool(first(connection, "SELECT 1 FROM verdicts WHERE run_no = ? LIMIT 1", run_no))


def _numbered(
    connection: DuckDBPyConnection,
    problems: Numbers,
    benchmark: str | None,
    ids: Iterable[str],
) -> dict[str, int]:
    """The numbers of a benchmark's problems, new ones given to those that have none."""
    if benchmark not in problems:
        found = connection.execute(
            "SELECT problem_id, problem_no FROM problems WHERE benchmark IS NOT DISTINCT FROM ?",
            [benchmark],
        ).fetchall()
        problems[benchmark] = dict(found)
    numbers = problems[benchmark]
    if new := [problem_id for problem_id in dict.fromkeys(ids) if problem_id not in numbers]:
        top = first(connection, "SELECT coalesce(max(problem_no), 0) FROM problems")
        assert top is not None
        given = {problem_id: top[0] + n for n, problem_id in enumerate(new, start=1)}
        rows = [{"problem_no": number, "benchmark": benchmark, "problem_id": problem_id}
                for problem_id, number in given.items()]  # fmt: skip
        insert(connection, "problems", rows)
        numbers |= given
    return numbers


def roll_up(connection: DuckDBPyConnection, run_no: int, numbers: Iterable[int]) -> None:
    """Bring a run's rows of `problem_rollup` up to date, for the problems of these numbers."""
    wanted = [run_no, sorted(numbers)]
    where = "WHERE run_no = ? AND problem_no IN (SELECT unnest(?))"
    connection.execute(f"DELETE FROM problem_rollup {where}", wanted)
    connection.execute(
        f"INSERT INTO problem_rollup {ROLLUP_OF} {where} GROUP BY run_no, problem_no ORDER BY ALL",
        wanted,
    )


def _settle(connection: DuckDBPyConnection, run_no: int) -> None:
    """Bring the columns of `runs` that its sessions and verdicts decide up to date."""
    found = first(connection, "SELECT run_json FROM runs WHERE run_no = ?", run_no)
    head = json.loads(found[0]) if found else {}
    names = ["segment", *SESSION]
    rows = connection.execute(
        f"SELECT {', '.join(map(quoted, names))} FROM sessions WHERE run_no = ? "
        "ORDER BY segment, rowid",
        [run_no],
    ).fetchall()
    results = connection.execute(
        "SELECT segment, problem_id, sample, verdict, price_table FROM results WHERE run_no = ?",
        [run_no],
    ).fetchall()
    graders = connection.execute(
        "SELECT DISTINCT grader_version FROM results WHERE run_no = ?", [run_no]
    ).fetchall()
    again: dict[tuple[str, int], dict[str, Any]] = {}
    if _has_history(connection, run_no):
        later = connection.execute(
            "SELECT v.problem_id, v.sample, v.environment, v.sandbox FROM verdicts AS v "
            "JOIN results AS r ON r.run_no = v.run_no AND r.result_key = v.result_key "
            "WHERE v.run_no = ? AND NOT v.first AND v.held AND r.regrades > 0 "
            "ORDER BY v.segment, v.rowid",
            [run_no],
        ).fetchall()
        again = {(p, k): {"environment": environment, "sandbox": sandbox}
                 for p, k, environment, sandbox in later}  # fmt: skip
    columns = standing(
        head,
        [dict(zip(names, row, strict=True)) for row in rows],
        results,
        again=again,
        graders=(grader for (grader,) in graders),
    )
    connection.execute(
        f"UPDATE runs SET {', '.join(f'{quoted(name)} = ?' for name in columns)} WHERE run_no = ?",
        [*columns.values(), run_no],
    )


def _mark_the_dead(connection: DuckDBPyConnection, results_dir: Path, report: IngestReport) -> None:
    """A run that was killed could not say so: it is interrupted, not running."""
    running = connection.execute("SELECT run_no, run_id FROM runs WHERE status = 'running'")
    for run_no, run_id in running.fetchall():
        try:
            gone = writer_is_gone(results_dir / "runs" / run_id)
        except StoreError as error:
            report.problems.append(str(error))
            continue
        if gone:
            connection.execute("UPDATE runs SET status = 'interrupted' WHERE run_no = ?", [run_no])


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into a StoreError that names the file."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from error
