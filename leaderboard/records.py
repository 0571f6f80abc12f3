"""What the pages of one run and one sample ask of a snapshot, and the texts behind it.

Texts stay in the journal and are read one by one, when they are shown. No Streamlit here.
Connections come from `harness.store.open_snapshot`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.schema import FACTS, TABLE_OF, natural
from harness.store import Trajectory, read_artifact, trajectory
from leaderboard.queries import SampleRow

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

OWN = "run_no = (SELECT run_no FROM runs WHERE run_id = ?)"
NATURAL = f"{natural()}, sample"
# the benchmark's order, as far as ids tell it


@dataclass(frozen=True)
class Grading:
    """One grading of a sample that was graded more than once."""

    logged_at: float | None  # unix seconds
    verdict: str | None
    detail: str | None
    grader_version: str | None
    first: bool  # as it was made, not again


@dataclass(frozen=True)
class Source:
    """The workflow or agent that a search found for a run, which runs it as it is."""

    run: str | None  # of the search
    name: str  # where it was read
    code: str
    prompts: str


class Texts:
    """The long texts of a run by their digest, read from its journal when asked for."""

    def __init__(self, folder: Path, connection: DuckDBPyConnection, run_id: str) -> None:
        self._folder, self._connection, self._run_id = folder, connection, run_id
        self._places: dict[str, tuple[str, int, int] | None] = {}
        self.read_bytes = 0  # of journals, so far

    def find(self, shas: Iterable[str | None]) -> None:
        """Look up where these texts stand, in one query."""
        wanted = sorted({sha for sha in shas if sha} - self._places.keys())
        if not wanted:
            return
        self._places |= dict.fromkeys(wanted)
        found = self._connection.execute(
            f"SELECT DISTINCT ON (sha256) sha256, path, start, bytes FROM artifacts WHERE {OWN} "
            "AND sha256 IN (SELECT unnest(?))",
            [self._run_id, wanted],
        ).fetchall()
        self._places |= {sha: (path, start, size) for sha, path, start, size in found}

    def read(self, sha: str | None) -> str | None:
        """One text; None where there is none, or the journal never had it.

        Raises StoreError when the journal is gone or changed.
        """
        if not sha:
            return None
        self.find([sha])
        place = self._places[sha]
        if place is None:
            return None
        self.read_bytes += place[2]
        return read_artifact(self._folder, *place)


def read_sample(
    connection: DuckDBPyConnection, run_id: str, problem_id: str, sample: int
) -> Trajectory:
    """One sample's records, oldest first, without their texts; empty for one that is not there."""
    records: list[tuple[int, float, int, dict[str, Any]]] = []
    for kind, table in TABLE_OF.items():
        columns = FACTS[kind]
        names = ", ".join(f'"{name}"' for name in columns)
        for row in _rows(
            connection,
            f"SELECT {names} FROM {table} WHERE {OWN} AND problem_id = ? AND sample = ? "
            "ORDER BY segment, rowid",
            [run_id, problem_id, sample],
        ):
            for name in (n for n, sql in columns.items() if sql == "JSON" and row[n]):
                row[name] = json.loads(row[name])
            record = {"kind": kind, **(row.pop("fields", None) or {}), **row}
            records.append((row["segment"], row["logged_at"] or 0.0, len(records), record))
    records.sort(key=lambda one: one[:3])
    return trajectory(run_id, problem_id, sample, [(one[0], one[3]) for one in records])


def gradings(
    connection: DuckDBPyConnection, run_id: str, problem_id: str, sample: int
) -> list[Grading]:
    """Every grading of a sample that was graded again, in order; empty for all others."""
    rows = _rows(
        connection,
        f'SELECT logged_at, verdict, detail, grader_version, "first" FROM verdicts WHERE {OWN} '
        "AND problem_id = ? AND sample = ? ORDER BY segment, rowid",
        [run_id, problem_id, sample],
    )
    return [Grading(**{**row, "first": bool(row["first"])}) for row in rows]


def verdict_counts(connection: DuckDBPyConnection, run_id: str) -> dict[str, int]:
    """How many samples of a run have each verdict, the most frequent first."""
    found = connection.execute(
        f"SELECT coalesce(verdict, 'unknown'), count(*) AS n FROM results WHERE {OWN} "
        "GROUP BY 1 ORDER BY n DESC, 1",
        [run_id],
    ).fetchall()
    return dict(found)


def some_samples(
    connection: DuckDBPyConnection,
    run_id: str,
    verdicts: Sequence[str] = (),
    *,
    first: int = 0,
    most: int = 500,
) -> list[SampleRow]:
    """`most` graded samples of a run from the `first` on, of some verdicts or of all."""
    where, given = _among(verdicts)
    names = ", ".join(SampleRow.__dataclass_fields__)
    rows = _rows(
        connection,
        f"SELECT {names} FROM results WHERE {OWN}{where} ORDER BY {NATURAL} LIMIT ? OFFSET ?",
        [run_id, *given, most, first],
    )
    return [SampleRow(**{**row, "verdict": row["verdict"] or "unknown"}) for row in rows]


def neighbours(
    connection: DuckDBPyConnection,
    run_id: str,
    problem_id: str,
    sample: int,
    verdicts: Sequence[str] = (),
) -> tuple[str | None, str | None]:
    """The samples before and after one, as addresses name them ("HumanEval/3:0").

    Among those of some verdicts, or all; None where there is none.
    """
    where, given = _among(verdicts)
    found = connection.execute(
        "SELECT before, after FROM (SELECT problem_id, sample, lag(name) OVER w AS before, "
        "lead(name) OVER w AS after FROM (SELECT *, problem_id || ':' || sample AS name "
        f"FROM results WHERE {OWN} AND (true{where} OR (problem_id = ? AND sample = ?))) "
        f"WINDOW w AS (ORDER BY {NATURAL})) WHERE problem_id = ? AND sample = ?",
        [run_id, *given, problem_id, sample, problem_id, sample],
    ).fetchone()
    return (found[0], found[1]) if found else (None, None)


def source_of(
    connection: DuckDBPyConnection, folder: Path, run_id: str
) -> tuple[Source | None, str | None]:
    """(what a search found for a run, why it cannot be shown): both None where it needs none.

    Read from the artifact of the search's folder under these results, which may be gone.
    """
    found = connection.execute("SELECT artifact FROM runs WHERE run_id = ?", [run_id]).fetchone()
    told = json.loads(found[0]) if found and found[0] else None
    if not isinstance(told, Mapping):
        return None, None
    name = told.get("run")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.,=+-]+", name) or name in (".", ".."):
        return None, "it was read from a file that is not among these results"
    path = folder / "runs" / name / "artifact.json"
    try:
        content = json.loads(path.read_text())["content"]
    except (OSError, ValueError, KeyError, TypeError):
        return None, f"the search {name} is not among these results"
    code = content.get("graph", content.get("code")) if isinstance(content, dict) else None
    if not isinstance(code, str):
        return None, None  # a controller, say: no code of a model
    return Source(name, f"runs/{name}", code, str(content.get("prompts") or "")), None


def is_search(connection: DuckDBPyConnection, run_id: str) -> bool:
    """Whether a run of that name is a search."""
    found = connection.execute("SELECT stage FROM runs WHERE run_id = ?", [run_id]).fetchone()
    return found is not None and found[0] == "fit"


def _among(verdicts: Sequence[str]) -> tuple[str, list[Any]]:
    if not verdicts:
        return "", []
    return " AND coalesce(verdict, 'unknown') IN (SELECT unnest(?))", [list(verdicts)]


def _rows(
    connection: DuckDBPyConnection, query: str, parameters: Sequence[Any]
) -> list[dict[str, Any]]:
    result = connection.execute(query, list(parameters))
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
