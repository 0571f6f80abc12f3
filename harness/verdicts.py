"""What grading has found out already, kept in one file: identical work is done once.

A verdict is kept under the digest of all that decides it (program, tests, limits, interpreter,
grader's version), the outputs of a reference under the digest of its inputs. Samples, methods and
runs share it; several processes may use it at once. Deleting the file loses nothing but time.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from pathlib import Path

from harness.errors import StoreError

_SCHEMA = "CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID"


class VerdictCache:
    """Bytes by key in an SQLite file. Close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError when the file cannot be made or is no such cache."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path, timeout=30, isolation_level=None, check_same_thread=False
            )
            # a lost last write costs one grading; so no waiting for the disk
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path}: no verdicts can be kept there: {error}") from error

    def get(self, key: str) -> bytes | None:
        """The value kept under a key; None when there is none. Raises StoreError."""
        try:
            row = self._db.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()
            return None if row is None else zlib.decompress(row[0])
        except (sqlite3.Error, zlib.error) as error:
            raise StoreError(f"{self.path}: damaged ({error}): delete it") from error

    def put(self, key: str, value: bytes) -> None:
        """Keep a value. Raises StoreError."""
        packed = zlib.compress(value, 1)
        try:
            self._db.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (key, packed))
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def __enter__(self) -> VerdictCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
