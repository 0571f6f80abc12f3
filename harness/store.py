"""Journals → DuckDB → snapshots. The database can always be deleted and made again.

Under one `results` directory:

- `runs/<run_id>/`: the journals, the only truth (`harness.journal`)
- `harness.duckdb`: written by one process at a time, which holds `.ingest.lock`. Each record is
  counted exactly once: the offset that a segment was read to is committed with its rows.
- `board-<seq>.duckdb`, named by `board.json`: read-only copies for the leaderboard. DuckDB lets no
  process read a file that another one writes, so readers are given a copy under a new name.
- `harness.rebuild.duckdb`, `.board-<seq>.duckdb`: half made; whoever next has the lock clears them
- `.deleted-<run_id>`: a deleted run whose rows are still in the database; `.gone-<run_id>`: one
  whose files still have to go. Whoever next has the lock finishes either.
- `.merge-<run_id>`: left by a merge that was cut off; the next one clears it (`harness.merge`)

Tables and their version are in `harness.schema`, what becomes of a record in `harness.ingest`.

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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import StoreError, UsageError
from harness.ingest import (
    MIXED,
    UNGRADED,
    IngestReport,
    delete_facts,
    disk,
    is_simulated,
    read_run_json,
    read_runs,
    session_row,
    standing,
    with_fresh_cost,
    writer_is_gone,
)
from harness.journal import digest, regraded, segments, write_atomically
from harness.kinds import FACTS
from harness.schema import (
    REBUILD,
    SCHEMA_VERSION,
    TABLE_OF,
    TABLES,
    Damaged,
    Unwritable,
    connect,
    connected,
    create,
    first,
    migrate,
    plain_path,
    quoted,
    transaction,
    version_of,
    write_reported,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

VERDICTS = ("result", "hidden", "verdict")  # kinds that say how something was graded
DELETED, GONE = ".deleted-", ".gone-"  # how the folders of deleted runs begin
NEW = "harness.rebuild.duckdb"  # a database that is being made
FOREMOST = ("preset", "workflow", "ranker")  # knobs that say most of what a row is
LONG = 24  # characters of a knob with its value, from which it stands last
CHOSEN = {"llm-blender": ("ranker",)}  # knobs that a method settles itself, by what is there
RANKING = ("benchmark", "benchmark_digest", "list", "protocol", "grader_version", "price_table")
# what two rows must share to be compared; `ranking` adds the environment where one is needed
UNTOLD = "unknown of "  # how a digest that is not known stands in a ranking, with its run


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
    verdicts: list[dict[str, Any]] = field(default_factory=list)  # every grading, where several
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
            only(self.hidden), self.verdicts, self.texts, self.earlier,
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
            found.verdicts += [record] if found.verdicts else []
        elif record["kind"] == "verdict":
            if not found.verdicts and found.result:
                found.verdicts.append(found.result)
            found.verdicts.append(record)
            found.result = found.result and regraded(found.result, record)
        elif record["kind"] == "hidden":
            hidden[record.get("round")] = record  # the last one of a round holds
        elif segment != max(tries) and record["kind"] != "call":
            # a process does a sample once: the last to try it
            found.earlier += 1
        else:
            lists.get(record["kind"], found.notes).append(record)
    found.hidden = list(hidden.values())
    return found


class Store:
    """The database of one `results` directory."""

    def __init__(self, results_dir: Path, *, lock_wait_s: float = 10.0) -> None:
        self.results_dir = results_dir
        self.path = results_dir / "harness.duckdb"
        self.lock_wait_s = lock_wait_s

    def ingest(self, run_dir: Path | None = None) -> IngestReport:
        """Read what the journals hold anew, of one run or of all; return what was found.

        Runs whose folder somebody took away stay as they are until `rebuild`. A database of an
        older schema is migrated, or made again, first. Raises StoreError: locked, damaged or newer
        database, no disk.
        """
        with self._locked():
            if not self._is_current(self._found_version()):
                return self._rebuild()
            with connected(self.path) as connection:
                create(connection)
                _write_reported(connection)
                self._clear_deleted(connection)
                dirs = [self._own(run_dir)] if run_dir else self._run_dirs()
                return read_runs(connection, self.results_dir, dirs)

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
        damaged or newer, and then nothing has changed. Where the database cannot be written, on a
        full disk say, the files go all the same: the error says so, and the rows go as soon as they
        can.
        """
        folder = find_run(self.results_dir, run_id, exact=True)
        if not (folder / "run.json").exists() and not segments(folder):
            raise UsageError(f"{folder}: holds nothing of a run, so it stays; remove it by hand")
        with self._locked():
            known = self._found_version()  # a database that is refused is refused before the move
            try:
                if known is not None and self._is_current(known):
                    known = SCHEMA_VERSION
                    with connected(self.path) as connection:
                        self._clear_deleted(connection)
            except Unwritable:
                self._empty_deleted()
            with disk(folder), only_writer(folder):
                size = sum(p.lstat().st_size for p in folder.rglob("*") if not p.is_dir())
                os.replace(folder, self.results_dir / f"{DELETED}{run_id}")
            try:
                rows = self._forget_deleted(known)
            except Unwritable:
                self._empty_deleted()
                try:
                    rows = self._forget_deleted(known)  # with the room that the files have left
                except Unwritable as error:
                    raise Unwritable(
                        f"{run_id}: its files are gone, {size / 1e6:,.1f} MB, but not its rows "
                        f"yet: {error}; they go when the database is next written"
                    ) from error
            if known == SCHEMA_VERSION and (self.results_dir / "board.json").exists():
                try:
                    self._snapshot()
                except StoreError as error:
                    raise StoreError(
                        f"{run_id}: deleted, but the board shows it still: {error}"
                    ) from error
        return Deleted(run_id, folder, size, rows)

    def _snapshot(self) -> Path:
        if self._found_version() != SCHEMA_VERSION:
            raise StoreError(f"{self.path}: nothing to copy; first run `{REBUILD}`")
        with connected(self.path) as connection:
            connection.execute("CHECKPOINT")
        copies = {int(p.stem[6:]): p for p in self.results_dir.glob("board-*.duckdb")
                  if p.stem[6:].isdecimal()}  # fmt: skip
        seq = max(copies, default=0) + 1
        copy = self.results_dir / f"board-{seq}.duckdb"
        with disk(copy), self._no_parts_left():
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

    def _forget_deleted(self, known: int | None) -> int:
        """Remove the rows and files of deleted runs from a database of a version; how many rows."""
        rows = 0
        if known == SCHEMA_VERSION:
            with connected(self.path) as connection:
                rows = self._clear_deleted(connection)
        elif known is None:
            self._remove_files()
        else:
            self._rebuild()
        return rows

    def _empty_deleted(self) -> None:
        """Remove the files of deleted runs whose rows cannot go yet; what is left says that."""
        with disk(self.results_dir):
            for aside in self.results_dir.glob(f"{DELETED}*"):
                if aside.is_symlink() or not aside.is_dir():
                    continue
                for inside in aside.iterdir():
                    if inside.is_dir() and not inside.is_symlink():
                        shutil.rmtree(inside)
                    else:
                        inside.unlink()
        self._remove_gone()

    def _remove_files(self) -> None:
        """Remove the files of deleted runs, whose rows are gone from the database."""
        with disk(self.results_dir):
            for aside in self.results_dir.glob(f"{DELETED}*"):
                # under this name no rows go: a run that was begun anew under the old one keeps its
                gone = aside.with_name(f"{GONE}{aside.name.removeprefix(DELETED)}")
                while gone.exists():
                    gone = gone.with_name(f"{gone.name}-")
                os.replace(aside, gone)
        self._remove_gone()

    def _remove_gone(self) -> None:
        with disk(self.results_dir):
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
        connection = connect(self.path, read_only=True)
        try:
            return version_of(connection, self.path)
        finally:
            connection.close()

    def _is_current(self, version: int | None) -> bool:
        """Whether the database is of this schema, or none yet; migrated where SQL can do it."""
        if version in (None, SCHEMA_VERSION):
            return True
        with connected(self.path) as connection:
            return migrate(connection, version or 0)

    def _rebuild(self) -> IngestReport:
        with self._no_parts_left():
            return self._made_again()

    def _made_again(self) -> IngestReport:
        new = self.path.with_name(NEW)
        damaged = False
        try:
            self._found_version()
        except Damaged:
            damaged = True
        with connected(new) as connection:
            create(connection)
            _write_reported(connection)
            report = read_runs(connection, self.results_dir, self._run_dirs())
            connection.execute("CHECKPOINT")
        with disk(self.path):
            if damaged:
                aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
                os.replace(self.path, aside)
                report.problems.append(f"{self.path.name}: was damaged, kept as {aside.name}")
            _wal(self.path).unlink(missing_ok=True)  # it belongs to the old file
            os.replace(new, self.path)
        self._remove_files()
        return report

    @contextmanager
    def _no_parts_left(self) -> Iterator[None]:
        """Remove what is made within where that fails: it takes room, and is of no use."""
        try:
            yield
        except BaseException:
            with suppress(StoreError):  # the error that is on its way says more
                self._remove_parts()
            raise

    def _remove_parts(self) -> None:
        """Remove half-made databases: only who has the lock makes one."""
        new = self.path.with_name(NEW)
        with disk(self.results_dir):
            if self.path.is_file() and not self.path.stat().st_size:
                self.path.unlink()  # made on a full disk; DuckDB opens no empty file
            for part in (new, _wal(new), *self.results_dir.glob(".board-*.duckdb")):
                if not part.is_dir():
                    part.unlink(missing_ok=True)

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
        try:
            str(self.results_dir).encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{plain_path(self.results_dir)}: a name that is no UTF-8, which no database can "
                "have; use another --out"
            ) from None
        path = self.results_dir / ".ingest.lock"
        with disk(path):
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
            with disk(path):
                os.ftruncate(lock, 0)
                with suppress(OSError):  # a full disk takes no name, and may be made room on
                    os.pwrite(lock, f"process {os.getpid()}".encode(), 0)
            self._remove_parts()
            yield
        finally:
            os.close(lock)


def delete_run(results_dir: Path, run_id: str) -> Deleted:
    """Take a run away: its folder, its rows, and the board's view of it; see `Store.delete`."""
    return Store(results_dir).delete(run_id)


def find_run(results_dir: Path, run_id: str, *, exact: bool = False) -> Path:
    """The folder of a run by its name, or unless `exact` by its path or what only it is `called`.

    Raises UsageError, naming near ones, when there is none or more than one.
    """
    runs = results_dir / "runs"
    known = sorted(p.name for p in runs.iterdir() if p.is_dir()) if runs.is_dir() else []
    if run_id in known:
        return runs / run_id
    asked = Path(run_id)
    if not exact and asked.name in known and asked.resolve() == (runs / asked.name).resolve():
        return runs / asked.name
    meant = called(run_id, known)
    if len(meant) == 1 and not exact:
        return runs / meant[0]
    if len(meant) > 1:
        raise UsageError(f"{run_id}: {len(meant)} runs are called so: {', '.join(meant[:5])}")
    if not known:
        raise UsageError(f"{run_id}: no run of that name, {runs} holds none")
    near = difflib.get_close_matches(run_id, known, n=3, cutoff=0.4)
    near = near or meant or known[-3:]
    raise UsageError(
        f"{run_id}: no run of that name under {runs}; near it: {', '.join(near)}; "
        f"`python -m harness list runs{out_option(results_dir)}` names all"
    )


def called(name: str, known: Iterable[str]) -> list[str]:
    """Those of the known names that a name, or a part of one, means: one where it is clear.

    The name itself; else those that begin or end so; else those that it is a part of anywhere. The
    one rule for runs wherever they are named.
    """
    names = list(known)
    if not name or name in names:
        return [name] if name else []
    ends = [one for one in names if one.startswith(name) or one.endswith(name)]
    return ends or [one for one in names if name in one]


def out_option(results_dir: Path) -> str:
    """The flag that a command needs to find these results, with a space before it; or nothing."""
    return "" if results_dir == Path("results") else f" --out {shlex.quote(str(results_dir))}"


def current_snapshot(results_dir: Path) -> Pointer | None:
    """The snapshot that readers should open; None before the first one was made."""
    path = results_dir / "board.json"
    try:
        found = json.loads(path.read_text())
        return Pointer(int(found["seq"]), results_dir / Path(found["file"]).name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise StoreError(f"{path}: not readable ({error!r}); run `{REBUILD}`") from error


def open_snapshot(results_dir: Path) -> DuckDBPyConnection:
    """A read-only connection to the newest snapshot; whoever opens it closes it.

    An open one may be read for as long as anybody likes: that its file is removed meanwhile is not
    noticed. Raises StoreError when there is none, or it was made by another version of the harness.
    """
    while True:
        pointer = current_snapshot(results_dir)
        if pointer is None:
            raise StoreError(f"{results_dir}: no snapshot yet; run `{REBUILD}`")
        try:
            return _open_copy(pointer.path)
        except StoreError:
            if current_snapshot(results_dir) in (None, pointer):
                raise  # else it was replaced twice between looking and opening: the newest, then


def _open_copy(path: Path) -> DuckDBPyConnection:
    if not path.exists():
        raise StoreError(f"{path}: the snapshot is gone; run `{REBUILD}`")
    connection = connect(path, read_only=True)
    try:
        if version_of(connection, path) != SCHEMA_VERSION:
            raise StoreError(f"{path}: made by an older harness; run `{REBUILD}`")
    except BaseException:
        connection.close()
        raise
    return connection


def gradings(
    connection: DuckDBPyConnection, run_id: str, problem_id: str, sample: int
) -> list[dict[str, Any]]:
    """Every grading of a sample, the first one first; none where it was graded once only.

    Columns of `verdicts`; `first` is how it was graded when it was made.
    """
    names = list(TABLES["verdicts"])
    rows = connection.execute(
        f"SELECT {', '.join(map(quoted, names))} FROM verdicts WHERE run_no = "
        "(SELECT run_no FROM runs WHERE run_id = ?) AND problem_id = ? AND sample = ? "
        "ORDER BY rowid",
        [run_id, problem_id, sample],
    ).fetchall()
    return [dict(zip(names, row, strict=True)) for row in rows]


def read_artifact(results_dir: Path, path: str, start: int, size: int) -> str:
    """The text of the artifact record at byte `start` of a segment, `size` bytes long.

    `path` is relative to `results_dir`. Raises StoreError when the journal changed or is gone.
    """
    with disk(results_dir / path):
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
    if text.isprintable():
        return text
    return "".join(
        ch if ch.isprintable() or ch in "\n\t" else ch.encode("unicode_escape").decode()
        for ch in text
    )


@contextmanager
def only_writer(run_dir: Path) -> Iterator[None]:
    """Hold a run's lock, as its writer does. Raises StoreError when a process is writing it."""
    with disk(run_dir):
        lock = os.open(run_dir / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 64, 0).decode() or "another process"
            raise StoreError(
                f"{run_dir.name}: {holder} is writing this run; stop it first, or wait for its end"
            ) from None
        with disk(run_dir):
            os.ftruncate(lock, 0)
            with suppress(OSError):  # as in `Store._locked`
                os.pwrite(lock, f"process {os.getpid()}".encode(), 0)
        yield
    finally:
        os.close(lock)


def _delete_rows(connection: DuckDBPyConnection, run_id: str) -> int:
    """Remove all that the database holds of a run, or nothing; how many rows that was."""
    found = first(connection, "SELECT run_no FROM runs WHERE run_id = ?", run_id)
    if found is None:
        return 0
    with transaction(connection):
        rows = delete_facts(connection, found[0], run_id)
        connection.execute("DELETE FROM runs WHERE run_no = ?", [found[0]])
    return rows + 1


def _write_reported(connection: DuckDBPyConnection) -> None:
    """Bring the papers' own numbers into the database."""
    from harness import reported

    write_reported(connection, reported.VERSION, reported.rows)


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
    """What a run and another must share to be compared at all, from its columns.

    Data that nobody knows is the same as no other: such a run stands alone.
    """
    shared = {name: row.get(name) for name in RANKING}
    shared["environment"] = row.get("environment") if row.get("needs_environment") else None
    if not shared["benchmark_digest"]:
        shared["benchmark_digest"] = f"{UNTOLD}{row.get('run_id')}"
    return tuple(str(value or "") for value in shared.values())


def _wal(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


__all__ = [
    "FACTS", "MIXED", "REBUILD", "SCHEMA_VERSION", "TABLES", "TABLE_OF", "UNGRADED", "UNTOLD",
    "Deleted", "IngestReport", "Pointer", "Store", "Trajectory", "called", "current_snapshot",
    "delete_run", "disk", "find_run", "gradings", "is_simulated", "named", "named_in",
    "only_writer", "open_snapshot", "out_option", "plain", "ranking", "read_artifact",
    "read_run_json", "session_row", "standing", "trajectory", "with_fresh_cost", "writer_is_gone",
]  # fmt: skip
