"""Journals → DuckDB → snapshots. The database can always be deleted and made again.

Under one `results` directory:

- `runs/<run_id>/`: the journals, the only truth (`harness.journal`)
- `harness.duckdb`: written by one process at a time, which holds `.ingest.lock`. Each record is
  counted exactly once: the offset that a segment was read to is committed with its rows.
- `board-<seq>.duckdb`, named by `board.json`: read-only copies for the leaderboard. DuckDB lets no
  process read a file that another one writes, so readers are given a copy under a new name.
- `.deleted-<run_id>`: a deleted run whose rows are still in the database; `.gone-<run_id>`: one
  whose files still have to go. Whoever next has the lock finishes either.

Long texts stay in the journal; `artifacts` says at which byte of which segment each one stands.
Every function here raises StoreError where a file cannot be read or written; a Store raises
UsageError where its directory does not exist.
"""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import StoreError, UsageError
from harness.journal import canonical, digest, read_segment, segments, write_atomically

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SCHEMA_VERSION = 7
REBUILD = "python -m harness rebuild"
VERDICTS = ("result", "hidden")  # kinds that say how something was graded, not how it was made
UNGRADED = (None, "invalid")  # verdicts that are none
MIXED = "mixed: "  # how a run's sandbox, commit or prices begin when it had several
DELETED, GONE = ".deleted-", ".gone-"  # how the folders of deleted runs begin
UNREAL = ("sim/", "scripted/")  # how the names of models begin that are none
FOREMOST = ("preset", "workflow", "ranker")  # knobs that say most of what a row is
LONG = 24  # characters of a knob with its value, from which it stands last
CHOSEN = {"llm-blender": ("ranker",)}  # knobs that a method settles itself, by what is there
BATCH = 20_000  # records per transaction
FEW = 500  # rows that go into one statement as JSON
MANY = 5_000  # rows from which an import of 0.3 s pays
LIMITS = {"INTEGER": 2**31, "BIGINT": 2**63, "DOUBLE": 1e300}
YEAR_10000 = 253_402_300_800  # unix seconds; no calendar here goes that far

# Columns that every fact has; `segment` is the number of the journal file that it came from.
SAMPLE = {"run_no": "INTEGER", "segment": "INTEGER", "logged_at": "DOUBLE", "result_key": "TEXT",
          "problem_id": "TEXT", "sample": "INTEGER"}  # fmt: skip
# ... and what happened in a round, or at another problem that the sample looked at (`about`)
STEP = SAMPLE | {"round": "INTEGER", "about": "TEXT"}

# One table per kind of record; JSON marks a value that is kept as JSON text. No key index on
# facts: it costs more than it saves. Times are unix seconds, costs US dollars, NULL is unknown.
# `cost_usd` is what was paid, `fresh_cost_usd` what it costs where no reply is kept.
FACTS: dict[str, dict[str, str]] = {
    "result": SAMPLE
    | {"verdict": "TEXT", "detail": "TEXT", "fresh": "TEXT", "base": "TEXT", "plus": "TEXT",
       "solution_sha": "TEXT", "prompt_tokens": "BIGINT", "completion_tokens": "BIGINT",
       "calls": "INTEGER", "rounds": "INTEGER",
       "cached_calls": "INTEGER", "cost_usd": "DOUBLE", "fresh_cost_usd": "DOUBLE",
       "price_table": "TEXT", "wall_s": "DOUBLE", "grade_s": "DOUBLE",
       "feedback_passed": "INTEGER", "feedback_total": "INTEGER", "reruns": "JSON",
       "error_kind": "TEXT"},
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

RUN_FIELDS = {
    "run_id": "TEXT", "config_hash": "TEXT", "benchmark": "TEXT", "benchmark_digest": "TEXT",
    "list": "TEXT", "protocol": "TEXT", "level": "TEXT", "method": "TEXT", "method_digest": "TEXT",
    "knobs": "JSON", "n_samples": "INTEGER", "seed": "BIGINT", "sandbox": "TEXT",
    "grader_version": "TEXT", "price_table": "TEXT", "kind": "TEXT", "harness_version": "TEXT",
    "commit": "TEXT", "dirty": "BOOLEAN", "command": "TEXT", "started_at": "DOUBLE",
    "first_look": "BOOLEAN", "custom": "BOOLEAN", "needs_environment": "BOOLEAN",
    "environment": "TEXT", "left_out": "JSON", "stage": "TEXT", "artifact": "JSON",
}  # fmt: skip
RANKING = ("benchmark", "benchmark_digest", "list", "protocol", "grader_version", "price_table")
# what two rows must share to be compared; `ranking` adds the environment where one is needed
SESSION = {
    "event": "TEXT", "status": "TEXT", "problems": "INTEGER", "samples": "INTEGER",
    "resumed": "INTEGER", "limit": "TEXT", "n_samples": "INTEGER", "sandbox": "TEXT",
    "commit": "TEXT", "dirty": "BOOLEAN", "command": "TEXT", "harness_version": "TEXT",
    "versions": "JSON", "asked": "JSON", "environment": "TEXT", "left_out": "JSON",
    "config": "JSON", "forecast": "JSON", "served_by": "JSON",
}  # fmt: skip
TABLES: dict[str, dict[str, str]] = {
    "meta_schema": {"version": "INTEGER", "applied_at": "DOUBLE"},
    "runs": {"run_no": "INTEGER"}
    | RUN_FIELDS
    | {"worker": "TEXT", "meta": "TEXT", "status": "TEXT", "problems_asked": "INTEGER",
       "samples_asked": "INTEGER", "samples_left": "INTEGER", "complete": "BOOLEAN",
       "run_json": "JSON"},
    "sessions": {"run_no": "INTEGER", "segment": "INTEGER", "logged_at": "DOUBLE"} | SESSION,
    "artifacts": {"run_no": "INTEGER", "sha256": "TEXT", "path": "TEXT", "start": "BIGINT",
                  "bytes": "BIGINT"},
    "segments": {"path": "TEXT", "read_bytes": "BIGINT", "rows": "BIGINT", "broken": "BIGINT",
                 "updated_at": "DOUBLE"},
    **{table: FACTS[kind] for kind, table in TABLE_OF.items()},
}  # fmt: skip


@dataclass
class IngestReport:
    """What one reading of the journals found."""

    runs: int = 0  # with a readable run.json
    records: int = 0  # new ones, now in the database
    broken: int = 0  # new lines that are no record, left out
    problems: list[str] = field(default_factory=list)  # one line each, for the user


@dataclass(frozen=True)
class Deleted:
    """What deleting a run took away."""

    run_id: str
    folder: Path  # where it was
    bytes: int  # of its files
    rows: int  # of the database


@dataclass(frozen=True)
class Pointer:
    """The snapshot that `board.json` names."""

    seq: int
    path: Path


@dataclass
class Trajectory:
    """One sample's records in the journal's words, oldest first; texts by their SHA-256.

    Where a sample was cut off and done again, these are the records of its last try, with all its
    calls: the last try takes over the replies that earlier ones paid for.
    """

    run_id: str
    problem_id: str
    sample: int
    result: dict[str, Any] | None = None  # None: not graded yet
    rounds: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    workflows: list[dict[str, Any]] = field(default_factory=list)
    feedback: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    hidden: list[dict[str, Any]] = field(default_factory=list)  # verdicts on rounds' programs
    texts: dict[str, str] = field(default_factory=dict)
    earlier: int = 0  # records of earlier tries, left out here

    def digests(self) -> list[str]:
        """The digests of every text that these records name."""
        records = [*self.rounds, *self.calls, *self.workflows, *self.feedback, *self.notes]
        records += [self.result] if self.result else []
        named = {v for r in records for k, v in r.items() if k.endswith("_sha") and v}
        return sorted(named)

    def text(self, sha: str | None) -> str | None:
        """The text behind a digest; None when there is none, or it is no longer in the journal."""
        return self.texts.get(sha) if sha else None

    def of_round(self, number: int | None) -> Trajectory:
        """The same sample, cut down to one round; None is what happened outside of rounds."""

        def only(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [r for r in records if r.get("round") == number]

        return Trajectory(
            self.run_id, self.problem_id, self.sample, self.result, only(self.rounds),
            only(self.calls), only(self.workflows), only(self.feedback), only(self.notes),
            only(self.hidden), self.texts, self.earlier,
        )  # fmt: skip

    def round_numbers(self) -> list[int | None]:
        """Every round that left a record, in order; None first, when something lies outside."""
        records = (*self.rounds, *self.calls, *self.workflows, *self.feedback, *self.notes)
        return sorted({r.get("round") for r in records}, key=lambda n: -1 if n is None else n)


def trajectory(
    run_id: str, problem_id: str, sample: int, records: Iterable[tuple[int, dict[str, Any]]]
) -> Trajectory:
    """One sample's records, given oldest first as (segment, record), without their texts yet."""
    own = list(records)
    tries = [segment for segment, record in own if record["kind"] not in VERDICTS]
    found = Trajectory(run_id, problem_id, sample)
    lists = {"round": found.rounds, "call": found.calls, "workflow": found.workflows,
             "feedback": found.feedback}  # fmt: skip
    hidden: dict[Any, dict[str, Any]] = {}
    for segment, record in own:
        if record["kind"] == "result":
            found.result = record
        elif record["kind"] == "hidden":
            hidden[record.get("round")] = record  # the last one of a round holds
        elif segment != max(tries) and record["kind"] != "call":
            # a process does a sample once: the last to try it
            found.earlier += 1
        else:
            lists.get(record["kind"], found.notes).append(record)
    found.hidden = list(hidden.values())
    return found


def session_row(segment: int, record: Mapping[str, Any]) -> dict[str, Any]:
    """A `session` record as a row of `sessions`. Raises ValueError for a value of another type."""
    ids = record.get("asked")
    if ids is not None and not (isinstance(ids, list) and all(isinstance(i, str) for i in ids)):
        raise ValueError(f"asked: expected a list of ids, found {str(ids)[:60]!r}")
    _reasons(record)
    row = {name: _cell(record.get(name), kind) for name, kind in SESSION.items()}
    return {**row, "segment": segment, "logged_at": _cell(record.get("at"), "DOUBLE")}


def standing(
    head: dict[str, Any],
    sessions: Sequence[Mapping[str, Any]],
    results: Iterable[tuple[int, str, int, str | None, str | None]],
) -> dict[str, Any]:
    """What the sessions of a run come to, as columns of `runs`.

    `head` is run.json, which speaks where older sessions say nothing; `sessions` are rows, oldest
    first; `results` are the last ones, as (segment, problem id, sample, verdict, price table).
    What was asked for is every sample that a session asked for, and the run is complete when all
    of them have a verdict: a shorter command after a long one completes nothing. Where a session
    does not say which problems it asked for, that of the most samples stands for all. Sandbox,
    environment, commit and price table are those of the verdicts, "mixed: ..." when they were
    several. Left out is what some session left out and none asked for; None where no session says.
    A search (stage `fit`) has no samples: it is complete when its last session says so.
    """
    head = _run_row(head)
    starts = [s for s in sessions if s["event"] == "start"]
    problems = max((s["problems"] for s in starts if s["problems"] is not None), default=None)
    samples = max((s["samples"] for s in starts if s["samples"] is not None), default=None)
    largest = [s for s in starts if s["samples"] == samples]
    found = list(results)
    graded = Counter(segment for segment, _, _, verdict, _ in found if verdict not in UNGRADED)
    invalid = sum(verdict == "invalid" for _, _, _, verdict, _ in found)
    used = [s for s in starts if graded[s["segment"]]] or starts[-1:] or [head]

    def told(session: Mapping[str, Any], name: str) -> Any:
        return head[name] if session[name] is None else session[name]

    def asked(session: Mapping[str, Any]) -> set[tuple[str, int]] | None:
        ids, draws = session["asked"], told(session, "n_samples")
        if ids is None or draws is None:
            return None
        return {(problem_id, k) for problem_id in json.loads(ids) for k in range(draws)}

    def several(name: str) -> str | None:
        return _one_or_mixed(told(s, name) for s in used)

    shown = (largest or [head])[-1]
    command = told(shown, "command")
    known = [of_one for s in starts if (of_one := asked(s)) is not None]
    told_out = [json.loads(out) for s in starts or [head] if (out := told(s, "left_out"))]
    run = {problem_id for of_one in known for problem_id, _ in of_one}
    left_out = {name: why for out in told_out for name, why in out.items() if name not in run}
    if starts and len(known) == len(starts):
        every = set[tuple[str, int]]().union(*known)
        if command and asked(shown) != every:
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
        "sandbox": several("sandbox"),
        "environment": several("environment"),
        "left_out": canonical(left_out) if told_out else None,
        "commit": several("commit"),
        "dirty": True if True in dirty else None if None in dirty else False,
        "command": command,
        **{name: told(shown, name) for name in ("n_samples", "harness_version")},
    }


def _one_or_mixed(values: Iterable[Any]) -> str | None:
    """The one value that there is, None aside; "mixed: ..." of several."""
    known = sorted({str(value) for value in values if value is not None})
    return f"{MIXED}{', '.join(known)}" if len(known) > 1 else next(iter(known), None)


class Store:
    """The database of one `results` directory."""

    def __init__(self, results_dir: Path, *, lock_wait_s: float = 10.0) -> None:
        self.results_dir = results_dir
        self.path = results_dir / "harness.duckdb"
        self.lock_wait_s = lock_wait_s

    def ingest(self, run_dir: Path | None = None) -> IngestReport:
        """Read what the journals hold anew, of one run or of all; return what was found.

        Runs whose folder somebody took away stay as they are until `rebuild`. A database of an
        older schema is made again first. Raises StoreError: locked, damaged or newer database, no
        disk.
        """
        with self._locked():
            if self._found_version() not in (None, SCHEMA_VERSION):
                return self._rebuild()
            with _connected(self.path) as connection:
                _create(connection)
                self._clear_deleted(connection)
                dirs = [self._own(run_dir)] if run_dir else self._run_dirs()
                return self._read_runs(connection, dirs)

    def rebuild(self) -> IngestReport:
        """Make the database again from all journals, then put it in the place of the old one.

        A damaged database is kept beside it as `.damaged-<time>`; a newer one is refused.
        """
        with self._locked():
            return self._rebuild()

    def snapshot(self) -> Path:
        """Copy the database for readers, point `board.json` at the copy; return its path.

        The last two copies stay, so that a reader of the one before is not cut off.
        """
        with self._locked():
            return self._snapshot()

    def delete(self, run_id: str) -> Deleted:
        """Take a run away: its folder, its rows, and the board's view of it.

        First its folder is moved aside as a whole, then its rows go, then its files: cut off in
        between, it is no run any more, and whoever next has the lock does the rest. Raises
        UsageError for an unknown run; StoreError: it is being written, or the database is locked,
        damaged or newer, and then nothing has changed.
        """
        folder = find_run(self.results_dir, run_id, exact=True)
        if not (folder / "run.json").exists() and not segments(folder):
            raise UsageError(f"{folder}: holds nothing of a run, so it stays; remove it by hand")
        with self._locked():
            known = self._found_version()  # a database that is refused is refused before the move
            if known == SCHEMA_VERSION:
                with _connected(self.path) as connection:
                    self._clear_deleted(connection)
            with _disk(folder), _only_writer(folder):
                size = sum(p.lstat().st_size for p in folder.rglob("*") if not p.is_dir())
                os.replace(folder, self.results_dir / f"{DELETED}{run_id}")
            rows = 0
            if known == SCHEMA_VERSION:
                with _connected(self.path) as connection:
                    rows = self._clear_deleted(connection)
                if (self.results_dir / "board.json").exists():
                    self._snapshot()
            elif known is None:
                self._remove_files()
            else:
                self._rebuild()
        return Deleted(run_id, folder, size, rows)

    def _snapshot(self) -> Path:
        if self._found_version() != SCHEMA_VERSION:
            raise StoreError(f"{self.path}: nothing to copy; first run `{REBUILD}`")
        with _connected(self.path) as connection:
            connection.execute("CHECKPOINT")
        copies = {int(p.stem[6:]): p for p in self.results_dir.glob("board-*.duckdb")
                  if p.stem[6:].isdigit()}  # fmt: skip
        seq = max(copies, default=0) + 1
        copy = self.results_dir / f"board-{seq}.duckdb"
        with _disk(copy):
            temporary = copy.with_name(f".{copy.name}")
            shutil.copyfile(self.path, temporary)
            os.replace(temporary, copy)
            pointer = json.dumps({"seq": seq, "file": copy.name})
            write_atomically(self.results_dir / "board.json", pointer + "\n")
            for old in sorted(copies)[:-1]:
                copies[old].unlink(missing_ok=True)
        return copy

    def _clear_deleted(self, connection: DuckDBPyConnection) -> int:
        """Finish what was begun to be deleted; how many rows went."""
        rows = 0
        for aside in sorted(self.results_dir.glob(f"{DELETED}*")):
            rows += _delete_rows(connection, aside.name.removeprefix(DELETED))
        self._remove_files()
        return rows

    def _remove_files(self) -> None:
        """Remove the files of deleted runs, whose rows are gone from the database."""
        with _disk(self.results_dir):
            for aside in self.results_dir.glob(f"{DELETED}*"):
                # under this name no rows go: a run that was begun anew under the old one keeps its
                gone = aside.with_name(f"{GONE}{aside.name.removeprefix(DELETED)}")
                while gone.exists():
                    gone = gone.with_name(f"{gone.name}-")
                os.replace(aside, gone)
            for gone in self.results_dir.glob(f"{GONE}*"):
                if gone.is_symlink():
                    gone.unlink()
                else:
                    shutil.rmtree(gone)

    def _own(self, run_dir: Path) -> Path:
        own = self.results_dir / "runs" / run_dir.name
        if own.resolve() != run_dir.resolve():
            raise StoreError(f"{run_dir}: expected a folder of {own.parent}")
        return own

    def _run_dirs(self) -> list[Path]:
        runs = self.results_dir / "runs"
        return sorted(p for p in runs.iterdir() if p.is_dir()) if runs.is_dir() else []

    def _found_version(self) -> int | None:
        """The schema version of the database; None without one, or when it holds no table yet.

        Looks without writing. Raises StoreError for a newer or unreadable one.
        """
        if not self.path.exists():
            return None
        connection = _connect(self.path, read_only=True)
        try:
            return _version(connection, self.path)
        finally:
            connection.close()

    def _rebuild(self) -> IngestReport:
        new = self.path.with_name("harness.rebuild.duckdb")
        damaged = False
        try:
            self._found_version()
        except _Damaged:
            damaged = True
        with _disk(new):
            new.unlink(missing_ok=True)
            _wal(new).unlink(missing_ok=True)
        with _connected(new) as connection:
            _create(connection)
            report = self._read_runs(connection, self._run_dirs())
            connection.execute("CHECKPOINT")
        with _disk(self.path):
            if damaged:
                aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
                os.replace(self.path, aside)
                report.problems.append(f"{self.path.name}: was damaged, kept as {aside.name}")
            _wal(self.path).unlink(missing_ok=True)  # it belongs to the old file
            os.replace(new, self.path)
        self._remove_files()
        return report

    def _read_runs(self, connection: DuckDBPyConnection, dirs: Sequence[Path]) -> IngestReport:
        report = IngestReport()
        for run_dir in dirs:
            run_no = self._read_run_json(connection, run_dir, report)
            if run_no is None:
                continue
            report.runs += 1
            for path in segments(run_dir):
                self._read_segment(connection, run_no, path, report)
            _settle(connection, run_no)
        _mark_the_dead(connection, self.results_dir)
        return report

    def _read_run_json(
        self, connection: DuckDBPyConnection, run_dir: Path, report: IngestReport
    ) -> int | None:
        """The run's number, given on first sight; None, reported, when run.json says nothing."""
        try:
            row = _run_row(read_run_json(run_dir))
        except StoreError as error:
            report.problems.append(f"left out: {error}")
            return None
        if row["run_id"] != run_dir.name:
            path = run_dir / "run.json"
            report.problems.append(f"left out: {path}: holds the id {row['run_id']!r}")
            return None
        found = _first(
            connection, "SELECT run_no, run_json FROM runs WHERE run_id = ?", row["run_id"]
        )
        if found is None:
            top = _first(connection, "SELECT max(run_no) FROM runs")
            run_no = (top[0] or 0) + 1 if top else 1
            _insert(connection, "runs", [{"run_no": run_no, **row}])
            return int(run_no)
        if found[1] != row["run_json"]:  # a resumed run may have written it again
            names = [name for name in row if name != "run_id"]
            connection.execute(
                f"UPDATE runs SET {', '.join(f'{_q(n)} = ?' for n in names)} WHERE run_no = ?",
                [*(row[n] for n in names), found[0]],
            )
        return int(found[0])

    def _read_segment(
        self, connection: DuckDBPyConnection, run_no: int, path: Path, report: IngestReport
    ) -> None:
        name = path.relative_to(self.results_dir).as_posix()
        found = _first(connection, "SELECT read_bytes FROM segments WHERE path = ?", name)
        start = int(found[0]) if found else 0
        with _disk(path):
            size = path.stat().st_size
        if size < start:
            report.problems.append(f"{name}: shorter than when it was last read; run `{REBUILD}`")
            return
        batch = _Batch(run_no, int(path.stem), name, start)
        with _disk(path):
            for offset, end, record in read_segment(path, start):
                batch.add(offset, end, record)
                if batch.records + batch.broken >= BATCH:
                    batch.commit(connection, report)
                    batch = _Batch(run_no, int(path.stem), name, end)
        if batch.end > batch.start:
            batch.commit(connection, report)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold `.ingest.lock`; StoreError, naming the holder, after `lock_wait_s`.

        Raises UsageError where there is no such folder: a mistyped one is not made.
        """
        if not self.results_dir.is_dir():
            raise UsageError(
                f"no results under {self.results_dir}: there is no such folder; "
                "`python -m harness eval` makes one"
            )
        path = self.results_dir / ".ingest.lock"
        with _disk(path):
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            deadline = time.monotonic() + self.lock_wait_s
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        holder = os.pread(lock, 64, 0).decode() or "another process"
                        raise StoreError(
                            f"{path}: {holder} has been writing for {self.lock_wait_s:g} s; "
                            "try again when it is done"
                        ) from None
                    time.sleep(0.05)
            with _disk(path):
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"process {os.getpid()}".encode(), 0)
            yield
        finally:
            os.close(lock)


class _Damaged(StoreError):
    """The database cannot be read, whatever the reason; a rebuild helps."""


class _Batch:
    """Rows of one stretch of a segment, on their way into one transaction."""

    def __init__(self, run_no: int, segment: int, path: str, start: int) -> None:
        self.run_no, self.segment, self.path = run_no, segment, path
        self.start = self.end = start
        self.records = self.broken = 0
        self.first_broken: str | None = None
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def add(self, offset: int, end: int, record: dict[str, Any] | None) -> None:
        self.end = end
        try:
            if record is None:
                raise ValueError("not a JSON object with a kind")
            self._add(offset, end, record)
            self.records += 1
        except ValueError as error:
            self.broken += 1
            self.first_broken = self.first_broken or f"byte {offset}: {error}"

    def _add(self, offset: int, end: int, record: dict[str, Any]) -> None:
        kind = record["kind"]
        if kind == "session":
            row = {"run_no": self.run_no, **session_row(self.segment, record)}
            self.rows.setdefault("sessions", []).append(row)
            return
        if kind == "artifact":
            sha, text = record.get("sha256"), record.get("text")
            if not isinstance(text, str) or digest(text) != sha:
                raise ValueError("the text of an artifact does not have its digest")
            place = {"sha256": sha, "path": self.path, "start": offset, "bytes": end - offset}
            self.rows.setdefault("artifacts", []).append({"run_no": self.run_no, **place})
            return
        if not isinstance(record.get("result_key"), str):
            raise ValueError(f"a {kind!r} record without a result_key")
        known = kind if kind in FACTS and kind != "note" else "note"
        if known == "note":
            fields = {k: v for k, v in record.items() if k not in {"kind", "at", *SAMPLE}}
            record = {**record, "fields": fields}
        columns = FACTS[known]
        record = with_fresh_cost(record)
        row = {n: _cell(record.get(n), columns[n]) for n in columns}
        row |= {"run_no": self.run_no, "segment": self.segment}
        row["logged_at"] = _cell(record.get("at"), "DOUBLE")
        if known == "note":  # in the order of the method's
            row["fields"] = _clean(json.dumps(fields, ensure_ascii=False, separators=(",", ":")))
        self.rows.setdefault(TABLE_OF[known], []).append(row)

    def commit(self, connection: DuckDBPyConnection, report: IngestReport) -> None:
        """Write the rows and the offset up to which the segment is now read, or neither."""
        connection.execute("BEGIN")
        try:
            if results := self.rows.get("results"):  # the last one of a key holds
                last = {row["result_key"]: row for row in results}
                self.rows["results"] = list(last.values())
                connection.execute(
                    "DELETE FROM results WHERE run_no = ? AND result_key IN (SELECT unnest(?))",
                    [self.run_no, list(last)],
                )
            for table, rows in self.rows.items():
                _insert(connection, table, rows)
            before = _first(
                connection,
                "DELETE FROM segments WHERE path = ? RETURNING rows, broken",
                self.path,
            )
            rows_before, broken_before = before or (0, 0)
            place = {"path": self.path, "read_bytes": self.end, "updated_at": time.time()}
            counts = {"rows": rows_before + self.records, "broken": broken_before + self.broken}
            _insert(connection, "segments", [{**place, **counts}])
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        report.records += self.records
        report.broken += self.broken
        if self.first_broken:
            lines = "1 line" if self.broken == 1 else f"{self.broken} lines"
            report.problems.append(f"{self.path}: {lines} left out, first {self.first_broken}")


def delete_run(results_dir: Path, run_id: str) -> Deleted:
    """Take a run away: its folder, its rows, and the board's view of it; see `Store.delete`."""
    return Store(results_dir).delete(run_id)


def find_run(results_dir: Path, run_id: str, *, exact: bool = False) -> Path:
    """The folder of a run by its name, or unless `exact` by its path, or a beginning or an end of
    its name that no other one has.

    Raises UsageError, naming near ones, when there is none or more than one.
    """
    runs = results_dir / "runs"
    known = sorted(p.name for p in runs.iterdir() if p.is_dir()) if runs.is_dir() else []
    if run_id in known:
        return runs / run_id
    asked = Path(run_id)
    if not exact and asked.name in known and asked.resolve() == (runs / asked.name).resolve():
        return runs / asked.name
    meant = [
        name for name in known if run_id and (name.startswith(run_id) or name.endswith(run_id))
    ]
    if len(meant) == 1 and not exact:
        return runs / meant[0]
    if len(meant) > 1:
        raise UsageError(f"{run_id}: {len(meant)} runs are called so: {', '.join(meant[:5])}")
    if not known:
        raise UsageError(f"{run_id}: no run of that name, {runs} holds none")
    near = difflib.get_close_matches(run_id, known, n=3, cutoff=0.4)
    near = near or [name for name in known if run_id in name][:3] or known[-3:]
    raise UsageError(
        f"{run_id}: no run of that name under {runs}; near it: {', '.join(near)}; "
        f"`python -m harness list runs{out_option(results_dir)}` names all"
    )


def out_option(results_dir: Path) -> str:
    """The flag that a command needs to find these results, with a space before it; or nothing."""
    return "" if results_dir == Path("results") else f" --out {shlex.quote(str(results_dir))}"


def with_fresh_cost(record: dict[str, Any]) -> dict[str, Any]:
    """A `call` or `result` of before replies were kept, with what it would say now; or itself."""
    defaults: dict[str, Any] = {"call": {"cached": False}, "result": {"cached_calls": 0}}
    if record["kind"] not in defaults or "fresh_cost_usd" in record:
        return record
    return {**defaults[record["kind"]], "fresh_cost_usd": record.get("cost_usd"), **record}


def current_snapshot(results_dir: Path) -> Pointer | None:
    """The snapshot that readers should open; None before the first one was made."""
    path = results_dir / "board.json"
    try:
        found = json.loads(path.read_text())
        return Pointer(int(found["seq"]), results_dir / Path(found["file"]).name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: not readable ({error!r}); run `{REBUILD}`") from error


def open_snapshot(results_dir: Path) -> DuckDBPyConnection:
    """A read-only connection to the newest snapshot; whoever opens it closes it.

    Raises StoreError when there is none, or it was made by another version of the harness.
    """
    pointer = current_snapshot(results_dir)
    if pointer is None:
        raise StoreError(f"{results_dir}: no snapshot yet; run `{REBUILD}`")
    if not pointer.path.exists():
        raise StoreError(f"{pointer.path}: the snapshot is gone; run `{REBUILD}`")
    connection = _connect(pointer.path, read_only=True)
    try:
        if _version(connection, pointer.path) != SCHEMA_VERSION:
            raise StoreError(f"{pointer.path}: made by an older harness; run `{REBUILD}`")
    except BaseException:
        connection.close()
        raise
    return connection


def read_artifact(results_dir: Path, path: str, start: int, size: int) -> str:
    """The text of the artifact record at byte `start` of a segment, `size` bytes long.

    `path` is relative to `results_dir`. Raises StoreError when the journal changed or is gone.
    """
    with _disk(results_dir / path):
        with (results_dir / path).open("rb") as file:
            file.seek(start)
            line = file.read(size)
    try:
        record = json.loads(line)
        text = record["text"]
        whole = isinstance(text, str) and digest(text) == record["sha256"]
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise StoreError(f"{path}: no artifact at byte {start}; the journal changed, `{REBUILD}`")
    return str(text)


def plain(text: str) -> str:
    """`text` with every character that could steer a terminal or a page shown as an escape.

    Line feeds and tabs stay; escape sequences, bidirectional marks and lone surrogates do not.
    """
    return "".join(
        ch if ch.isprintable() or ch in "\n\t" else ch.encode("unicode_escape").decode()
        for ch in text
    )


def writer_is_gone(run_dir: Path) -> bool:
    """Whether no process holds a run's `.lock` any more, as its writer does until it ends."""
    path = run_dir / ".lock"
    with _disk(path):
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


@contextmanager
def _only_writer(run_dir: Path) -> Iterator[None]:
    """Hold a run's lock, as its writer does. Raises StoreError when a process is writing it."""
    lock = os.open(run_dir / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 64, 0).decode() or "another process"
            raise StoreError(
                f"{run_dir.name}: {holder} is writing this run; stop it first, or wait for its end"
            ) from None
        yield
    finally:
        os.close(lock)


def _delete_rows(connection: DuckDBPyConnection, run_id: str) -> int:
    """Remove all that the database holds of a run, or nothing; how many rows that was."""
    found = _first(connection, "SELECT run_no FROM runs WHERE run_id = ?", run_id)
    if found is None:
        return 0
    rows = 0
    connection.execute("BEGIN")
    try:
        for table, columns in TABLES.items():
            if "run_no" in columns:
                gone = _first(connection, f"DELETE FROM {table} WHERE run_no = ?", found[0])
                rows += gone[0] if gone else 0
        place = f"runs/{run_id}/"
        connection.execute("DELETE FROM segments WHERE starts_with(path, ?)", [place])
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return rows


def _settle(connection: DuckDBPyConnection, run_no: int) -> None:
    """Bring the columns of `runs` that its sessions decide up to date."""
    found = _first(connection, "SELECT run_json FROM runs WHERE run_no = ?", run_no)
    head = json.loads(found[0]) if found else {}
    names = ["segment", *SESSION]
    rows = connection.execute(
        f"SELECT {', '.join(map(_q, names))} FROM sessions WHERE run_no = ? "
        "ORDER BY segment, rowid",
        [run_no],
    ).fetchall()
    results = connection.execute(
        "SELECT segment, problem_id, sample, verdict, price_table FROM results WHERE run_no = ?",
        [run_no],
    ).fetchall()
    columns = standing(head, [dict(zip(names, row, strict=True)) for row in rows], results)
    connection.execute(
        f"UPDATE runs SET {', '.join(f'{_q(name)} = ?' for name in columns)} WHERE run_no = ?",
        [*columns.values(), run_no],
    )


def _mark_the_dead(connection: DuckDBPyConnection, results_dir: Path) -> None:
    """A run that was killed could not say so: it is interrupted, not running."""
    running = connection.execute("SELECT run_no, run_id FROM runs WHERE status = 'running'")
    for run_no, run_id in running.fetchall():
        if writer_is_gone(results_dir / "runs" / run_id):
            connection.execute("UPDATE runs SET status = 'interrupted' WHERE run_no = ?", [run_no])


def read_run_json(run_dir: Path) -> dict[str, Any]:
    """What the run.json of a run says. Raises StoreError, one line, when it describes no run."""
    path = run_dir / "run.json"
    try:
        found = json.loads(path.read_text())
        _run_row(found)
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not readable as a run: {error}") from error
    return dict(found)


def _run_row(found: Any) -> dict[str, Any]:
    """A row of `runs` from run.json. Raises ValueError for anything else."""
    if not isinstance(found, dict) or not isinstance(found.get("run_id"), str):
        raise ValueError("no run_id")
    _object(found, "knobs")
    _reasons(found)
    roles = {role: _object(_object(found, "roles"), role) for role in _object(found, "roles")}
    for made in roles.values():
        _object(made, "sampling")
    row = {name: _cell(found.get(name), kind) for name, kind in RUN_FIELDS.items()}
    row["kind"] = "simulated" if is_simulated(found) else row["kind"]
    row["stage"] = row["stage"] or "eval"  # which runs of before searches had a stage were
    _object(_object(found, "artifact"), "spent")
    if not 0 <= (row["started_at"] or 0) < YEAR_10000:
        raise ValueError(f"started_at: expected unix seconds, found {row['started_at']!r}")
    if isinstance(words := found.get("command"), list):
        row["command"] = _clean(" ".join(map(str, words)))
    for role in ("worker", "meta"):
        row[role] = _cell(roles.get(role, {}).get("model"), "TEXT")
    return {**row, "run_json": _cell(found, "JSON")}


def is_simulated(head: Mapping[str, Any]) -> bool:
    """Whether run.json names a model that is none, or replies of one: never ranked, never exported.

    Whatever it says of its kind: a run is simulated as soon as one role is.
    """
    made = _object(head, "roles").values()
    return head.get("kind") == "simulated" or any(
        str(role.get("model")).startswith(UNREAL) or _object(role, "identity").get("simulated")
        for role in made
    )


def named(method: str, given: object = None, knobs: object = None) -> str:
    """A method as a row is called: with the knobs that were given, and those that it chose itself.

    `given` is what a config says (`$.config.knobs` of run.json), `knobs` what they came to; an
    older run says nothing of the first, and its method stands alone. So that no two rows with
    other knobs look the same: "flowreasoner workflow=shuffled rounds=4".
    """
    told = dict(given) if isinstance(given, Mapping) else {}
    if isinstance(knobs, Mapping):
        told |= {name: knobs[name] for name in CHOSEN.get(method, ()) if name in knobs}
    words = {name: f"{name}={_said(value)}" for name, value in told.items()}

    def place(name: str) -> tuple[int, bool, str]:
        first = FOREMOST.index(name) if name in FOREMOST else len(FOREMOST)
        return first, len(words[name]) > LONG, name  # what may be cut off stands last

    return " ".join([method, *(words[name] for name in sorted(words, key=place))])


def named_in(head: Mapping[str, Any]) -> str:
    """The name of the row that a run.json describes."""
    config = head.get("config")
    given = config.get("knobs") if isinstance(config, Mapping) else None
    return named(str(head.get("method") or "unknown"), given, head.get("knobs"))


def _said(value: Any) -> str:
    """A knob's value as it is given on a command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def ranking(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a run and another must share to be compared at all, from its columns."""
    environment = row.get("environment") if row.get("needs_environment") else None
    return tuple(str(x or "") for x in (*(row.get(name) for name in RANKING), environment))


def _object(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object under a name, empty where there is none. Raises ValueError for anything else."""
    value = found.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{name}: expected an object, found {str(value)[:60]!r}")
    return value or {}


def _reasons(record: Mapping[str, Any]) -> None:
    """Raises ValueError unless `left_out` is absent or gives problems a reason in words."""
    for name, reason in _object(record, "left_out").items():
        if not isinstance(reason, str):
            raise ValueError(f"left_out: expected a reason for {name}, found {str(reason)[:60]!r}")


def _cell(value: Any, kind: str) -> Any:
    """`value` as a column of `kind` takes it. Raises ValueError when it is of another type."""
    if value is None or (kind == "BOOLEAN" and isinstance(value, bool)):
        return value
    if kind == "JSON" or (kind == "TEXT" and isinstance(value, dict | list | int | float)):
        return _clean(canonical(value))  # TEXT too: the identity of a price table, say
    if kind == "TEXT" and isinstance(value, str):
        return _clean(value)
    number = isinstance(value, int | float if kind == "DOUBLE" else int)
    if number and not isinstance(value, bool) and abs(value) < LIMITS.get(kind, 0):
        return value
    raise ValueError(f"expected {kind}, found {str(value)[:60]!r}")


def _clean(text: str) -> str:
    """Text that UTF-8 can hold: a lone surrogate becomes its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def _q(name: str) -> str:
    return f'"{name}"'


def _sql_type(kind: str) -> str:
    return "TEXT" if kind == "JSON" else kind


def _insert(connection: DuckDBPyConnection, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows, hundreds of times as fast as one by one.

    Many go through Arrow, few as JSON: for few, importing Arrow (and pandas, which it looks for)
    would take longer than all the rest of a run's end, and as much memory as the run.
    """
    columns = TABLES[table]
    if len(rows) < MANY:
        kinds = {name: "TEXT" if kind == "JSON" else kind for name, kind in columns.items()}
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
    connection.register("batch", pa.table(arrays))
    connection.execute(f"INSERT INTO {table} SELECT * FROM batch")
    connection.unregister("batch")


def _first(connection: DuckDBPyConnection, query: str, *parameters: Any) -> tuple[Any, ...] | None:
    """The first row; the result is read to its end, as DuckDB wants before the next statement."""
    return next(iter(connection.execute(query, list(parameters)).fetchall()), None)


def _create(connection: DuckDBPyConnection) -> None:
    """Make the tables in one transaction, unless they are there."""
    if _first(connection, "SELECT 1 FROM duckdb_tables() LIMIT 1"):
        return
    connection.execute("BEGIN")
    for table, columns in TABLES.items():
        body = ", ".join(f"{_q(name)} {_sql_type(kind)}" for name, kind in columns.items())
        connection.execute(f"CREATE TABLE {table} ({body})")
    _insert(connection, "meta_schema", [{"version": SCHEMA_VERSION, "applied_at": time.time()}])
    connection.execute("COMMIT")


def _version(connection: DuckDBPyConnection, path: Path) -> int | None:
    """The schema version; None for an empty database. Raises StoreError: foreign or newer."""
    import duckdb

    try:
        names = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        if not names:
            return None
        found = _first(connection, "SELECT max(version) FROM meta_schema")
    except duckdb.Error as error:
        raise _unreadable(path, error) from error
    version = int(found[0]) if found and found[0] is not None else 0
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: written by a newer harness (schema {version}, this one knows "
            f"{SCHEMA_VERSION}); update the harness, or move the file away and run `{REBUILD}`"
        )
    return version


def _unreadable(path: Path, error: Exception) -> StoreError:
    first = str(error).splitlines()[0]
    if "Could not set lock" in first:
        return StoreError(f"{path}: another program has it open: {first}")
    return _Damaged(f"{path}: cannot be read ({first}); run `{REBUILD}`")


def _connect(path: Path, *, read_only: bool = False) -> DuckDBPyConnection:
    import duckdb

    try:
        return duckdb.connect(str(path), read_only=read_only)
    except duckdb.Error as error:
        raise _unreadable(path, error) from error


@contextmanager
def _connected(path: Path) -> Iterator[DuckDBPyConnection]:
    """An open database, closed afterwards; DuckDB's errors leave as StoreError."""
    import duckdb

    connection = _connect(path)
    try:
        yield connection
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        raise StoreError(f"{path}: {first}; if this stays so, run `{REBUILD}`") from error
    finally:
        with suppress(duckdb.Error):  # the error that made closing fail is already on its way
            connection.close()


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into a StoreError that names the file."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from error


def _wal(path: Path) -> Path:
    return path.with_name(path.name + ".wal")
