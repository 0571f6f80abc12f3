"""What grading has found out already, kept in one file: identical work is done once.

A verdict is kept under the digest of all that decides it (program, tests, limits, interpreter,
grader's version), the outputs of a reference under the digest of its inputs. Samples, methods and
runs share it; several processes may use it at once. Deleting the file loses nothing but time.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

WAIT_S = 5.0  # for another process that writes
_SCHEMA = "CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID"


class VerdictCache:
    """Bytes by key in an SQLite file. Close it, or use it as a context manager.

    A file that cannot be used costs only what it would have saved: `say` is told once, and nothing
    is kept from then on.
    """

    def __init__(self, path: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self.path, self._say = path, say
        self._db: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path, timeout=WAIT_S, isolation_level=None, check_same_thread=False
            )
            # a lost last write costs one grading; so no waiting for the disk
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def get(self, key: str) -> bytes | None:
        """The value kept under a key; None when there is none."""
        if self._db is None:
            return None
        try:
            row = self._db.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()
            return None if row is None else zlib.decompress(row[0])
        except (sqlite3.Error, zlib.error) as error:
            self._give_up(error)
            return None

    def put(self, key: str, value: bytes) -> None:
        """Keep a value."""
        if self._db is None:
            return
        packed = zlib.compress(value, 1)
        try:
            self._db.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (key, packed))
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._say(f"{self.path}: no verdicts are kept: {error}; a damaged file can be deleted")
        self.close()

    def close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
        self._db = None

    def __enter__(self) -> VerdictCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
