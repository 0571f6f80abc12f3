"""Our own runs, read for export: from a snapshot of the database, texts from the journals.

Everything streams: runs of a million samples take no more memory than one batch of rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.schema import natural
from harness.store import Trajectory, find_run, named_in, read_artifact, trajectory

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BATCH = 1_000  # rows that are taken from the database at a time
CHUNK = 20_000  # samples, or texts, of which the database holds what it found at a time
ORDER = f"{natural('t')}, t.sample"  # of a table t
KINDS = {"calls": "call", "rounds": "round", "feedback": "feedback", "workflows": "workflow",
         "hidden": "hidden"}  # fmt: skip
# ... tables of what happened in a sample, and the kind that their records have in a journal


@dataclass(frozen=True)
class Run:
    """One run that is exported: its columns in `runs`, and its run.json."""

    run_no: int
    run_id: str
    columns: Mapping[str, Any]
    head: Mapping[str, Any]

    @property
    def benchmark(self) -> str:
        return str(self.columns["benchmark"])

    @property
    def named(self) -> str:
        """The method with the knobs that it was given."""
        return named_in(dict(self.head))

    @property
    def simulated(self) -> bool:
        return bool(self.columns["kind"] == "simulated")


@dataclass
class Sample:
    """One result of a run: its columns, its solution where asked for, its trajectory likewise."""

    result: dict[str, Any]
    solution: str | None = None
    official: Mapping[str, Any] | None = None  # what a foreign grader said beside its verdict
    trajectory: Trajectory | None = None  # its texts by digest
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def problem_id(self) -> str:
        return str(self.result["problem_id"])

    @property
    def verdict(self) -> str:
        return str(self.result["verdict"])


def runs_of(
    connection: DuckDBPyConnection, results_dir: Path, wanted: Sequence[str] | None
) -> list[Run]:
    """Evaluations by name, or all but simulated ones. Raises UsageError: none, or an unknown one.

    A simulated run says nothing of a model, so it is exported only when it is named.
    """
    cursor = connection.execute("SELECT * FROM runs WHERE stage = 'eval' ORDER BY run_no")
    names = [column[0] for column in cursor.description or ()]
    found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    runs = {
        row["run_id"]: Run(row["run_no"], row["run_id"], row, json.loads(row["run_json"]))
        for row in found
    }
    if wanted is None:
        chosen = [run for run in runs.values() if not run.simulated]
        if not chosen:
            why = "every run is simulated; name those you want" if runs else "there is no run"
            raise UsageError(f"nothing to export: {why}")
        return chosen
    ids = [find_run(results_dir, name).name for name in wanted]
    for run_id in ids:
        if run_id not in runs:
            raise UsageError(f"{run_id}: no evaluation, or not in the database; `rebuild` it")
    return [runs[run_id] for run_id in dict.fromkeys(ids)]


def samples_of(
    connection: DuckDBPyConnection,
    results_dir: Path,
    run: Run,
    *,
    solutions: bool = False,
    trajectories: bool = False,
) -> Iterator[Sample]:
    """The samples of a run by problem and number; a solution's text and the rest where asked for.

    Raises StoreError where a text is no longer in its journal.
    """
    paths = _Texts(results_dir)
    official = """LEFT JOIN (
        SELECT result_key, any_value(fields ->> 'said_sha') AS said_sha FROM notes
        WHERE run_no = $run AND kind = 'official' GROUP BY result_key
    ) official ON official.result_key = t.result_key"""
    rows = _rows(
        connection,
        "results t " + (official if solutions else ""),
        run.run_no,
        ("solution_sha", "said_sha") if solutions else ("solution_sha",) if trajectories else (),
        "t.*" + (", said_sha" if solutions else ""),
        ORDER,
    )
    beside = [_Beside(connection, run.run_no, table) for table in KINDS] if trajectories else []
    for row, places in rows:
        sample = Sample(row)
        if "said_sha" in row:
            said = paths.read(places.get("said_sha"))
            sample.official = None if said is None else json.loads(said)
            del row["said_sha"]
        sample.solution = paths.read(places.get("solution_sha"))
        if trajectories:
            key = row["problem_id"], row["sample"]
            records = [(row["segment"], {"kind": "result", **row})]
            for stream in beside:
                for record, found in stream.of(key):
                    records.append((record["segment"], record))
                    for name, place in found.items():
                        text = paths.read(place)
                        if text is not None:
                            sample.texts[record[name]] = text
            records.sort(key=lambda of: (of[0], of[1].get("logged_at") or 0))
            sample.trajectory = trajectory(run.run_id, *key, records)
            sample.trajectory.texts = sample.texts
        yield sample


def texts_of(
    connection: DuckDBPyConnection, results_dir: Path, run: Run
) -> Iterator[tuple[str, str]]:
    """Every text of a run as (SHA-256, text), as often as processes wrote it."""
    last = ("", -1)
    while True:
        places = connection.execute(
            "SELECT path, start, bytes, sha256 FROM artifacts WHERE run_no = ? "
            "AND (path > ? OR path = ? AND start > ?) ORDER BY path, start LIMIT ?",
            [run.run_no, last[0], *last, CHUNK],
        ).fetchall()
        if not places:
            return
        for path, start, size, sha in places:
            yield sha, read_artifact(results_dir, path, start, size)
        last = places[-1][:2]


def chunks(connection: DuckDBPyConnection, run_no: int) -> Iterator[list[str]]:
    """The problems of a run in the order of an export, about `CHUNK` samples at a time."""
    found = connection.execute(
        "SELECT problem_id, count(*) FROM results WHERE run_no = ? GROUP BY problem_id "
        f"ORDER BY {natural()}",
        [run_no],
    ).fetchall()
    held: list[str] = []
    samples = 0
    for problem_id, count in found:
        if held and samples + count > CHUNK:
            yield held
            held, samples = [], 0
        held.append(problem_id)
        samples += count
    if held:
        yield held


Place = tuple[str, int, int]  # of a text: segment, byte, bytes


class _Texts:
    """Reads texts; a few of the last are kept, since a workflow's rounds often share one."""

    def __init__(self, results_dir: Path) -> None:
        self._results_dir = results_dir
        self._kept: dict[Place, str] = {}

    def read(self, place: Place | None) -> str | None:
        if place is None:
            return None
        if place not in self._kept:
            if len(self._kept) >= 64:
                del self._kept[next(iter(self._kept))]
            self._kept[place] = read_artifact(self._results_dir, *place)
        return self._kept[place]


def _rows(
    connection: DuckDBPyConnection,
    source: str,
    run_no: int,
    shas: Sequence[str],
    columns: str,
    order: str,
) -> Iterator[tuple[dict[str, Any], dict[str, Place]]]:
    """Rows of a table `t` with the places of the texts that they name, some problems at a time."""
    joins = "".join(
        f" LEFT JOIN places a{n} ON a{n}.sha256 = rows.{sha}" for n, sha in enumerate(shas)
    )
    places = "".join(f", a{n}.path, a{n}.start, a{n}.bytes" for n in range(len(shas)))
    wanted = " UNION ALL ".join(f"SELECT {sha} AS sha FROM rows" for sha in shas)
    query = (
        f"WITH rows AS MATERIALIZED (SELECT {columns}, row_number() OVER (ORDER BY {order}) AS nr_ "
        f"FROM {source} WHERE t.run_no = $run AND t.problem_id IN (SELECT unnest($ids)))"
    )
    if shas:
        query += (
            ", places AS (SELECT DISTINCT ON (sha256) sha256, path, start, bytes FROM artifacts "
            f"WHERE run_no = $run AND sha256 IN ({wanted}))"
        )
    query += f" SELECT rows.* EXCLUDE (nr_){places} FROM rows{joins} ORDER BY nr_"
    for ids in chunks(connection, run_no):
        cursor = connection.cursor()
        cursor.execute(query, {"run": run_no, "ids": ids})
        names = [column[0] for column in cursor.description or ()]
        own = len(names) - 3 * len(shas)
        while batch := cursor.fetchmany(BATCH):
            for row in batch:
                found = dict(zip(names[:own], row, strict=False))
                rest = row[own:]
                at = {sha: rest[3 * n : 3 * n + 3] for n, sha in enumerate(shas)}
                yield found, {sha: place for sha, place in at.items() if place[0] is not None}


class _Beside:
    """Rows of a table in the order of the results, taken sample by sample."""

    def __init__(self, connection: DuckDBPyConnection, run_no: int, table: str) -> None:
        self._kind = KINDS[table]
        cursor = connection.execute(f"SELECT * FROM {table} LIMIT 0")
        shas = [c[0] for c in cursor.description or () if c[0].endswith("_sha")]
        self._rows = _rows(
            connection,
            f"{table} t SEMI JOIN results r ON r.run_no = $run AND r.problem_id = t.problem_id "
            "AND r.sample = t.sample",
            run_no,
            shas,
            "t.*",
            f"{ORDER}, t.segment, t.logged_at, t.rowid",
        )
        self._next = next(self._rows, None)

    def of(self, key: tuple[str, int]) -> Iterator[tuple[dict[str, Any], dict[str, Place]]]:
        while self._next is not None:
            row, places = self._next
            if (row["problem_id"], row["sample"]) != key:
                return
            yield {"kind": self._kind, **row}, places
            self._next = next(self._rows, None)
