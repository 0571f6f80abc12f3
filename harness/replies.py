"""Replies of models, kept under the digest of the question: nothing is paid for twice.

One SQLite file for all runs and processes; deleting it loses only money. Who asks holds a byte of
the lock file beside it, at an offset made from the key, so that two processes with one question
pay once. The kernel drops that lock with its process, kill -9 included: there is no lease to wait
for. What is kept is committed before `keep` returns: kill -9 loses none of it, a power cut at most
the last ones, and neither tears the file (write-ahead log, synced at its checkpoints).

The file belongs on a local disk: a write-ahead log needs memory that all its users share, which
NFS does not have. Machines with one home folder give each a `--cache-dir` of its own.
Nothing is thrown out by itself; `ReplyCache.clear` is the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import sqlite3
import struct
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from harness.errors import StoreError
from harness.journal import canonical, digest
from harness.types import Completion, Message, Sampling

Mode = Literal["off", "read", "on"]

REPLIES = "replies.sqlite"  # its name in the cache folder
WRITE_WAIT_S = 2.0  # for another process's transaction; they take a fraction of a millisecond
POLL_S = (0.01, 0.2)  # between looks at another process's lock: first, and at most
TOLD_S = 30.0  # how long another process's answer is waited for before the user is told why
VERSION = 1  # of the table and of what its values hold
_SCHEMA = """CREATE TABLE replies (
    key TEXT PRIMARY KEY,
    model TEXT NOT NULL,       -- as the user wrote it
    at REAL NOT NULL,          -- unix seconds, when the reply was paid for
    prompt_tokens INTEGER,     -- null: not reported
    completion_tokens INTEGER,
    value BLOB NOT NULL        -- the reply: JSON, zlib
)"""
_OPENING = 1 << 60  # offset of the lock that guards the making of the file; those of keys are below
_STORED = tuple(f.name for f in fields(Completion) if f.name != "limits")


@dataclass(frozen=True)
class Kept:
    """A reply that was paid for once."""

    completion: Completion
    asked_at: float  # unix seconds, when the call ended
    latency_s: float


@dataclass(slots=True)
class Claim:
    """The right to ask one question, or its answer. While it is held, nobody else asks."""

    kept: Kept | None  # None: ask, then `keep`
    _keep: Callable[[Kept], None]

    def keep(self, kept: Kept) -> None:
        """Keep the reply for everybody; it is committed when this returns."""
        self._keep(kept)


@dataclass(frozen=True)
class Info:
    """What a cache holds."""

    path: Path
    replies: int
    bytes: int  # on disk, the write-ahead log included
    oldest: float | None  # unix seconds; None: there is none
    newest: float | None
    models: Mapping[str, tuple[int, int]]  # {model: (replies, tokens that were reported)}


@dataclass(slots=True)
class _Flight:
    """Those of this process who want one question answered, one of them asking."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: int = 0
    kept: Kept | None = None


def reply_key(
    identity: Mapping[str, Any],
    messages: Sequence[Message],
    sampling: Sampling,
    seed: int | None,
    draw: Sequence[int],
) -> str:
    """SHA-256 of all that decides a reply: model, request, seed, and which draw of it this is."""
    settings = sampling.as_dict()
    question = {
        "model": identity,
        "messages": messages,
        "sampling": settings,
        "seed": seed,
        "draw": list(draw),
    }
    return digest(canonical(question))


class ReplyCache:
    """Replies by key, for one event loop; close it, or use it as a context manager.

    `mode` "on" reads and keeps; "read" reads, and neither writes nor waits; "off" does nothing.
    No fault of the file stops a run: it costs what it would have saved, and `say` is told once.
    """

    def __init__(
        self, path: Path, mode: Mode = "on", say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.path, self.mode, self._say = path, mode, say
        self._db: sqlite3.Connection | None = None
        self._lock = -1  # descriptor of the lock file
        self._keeps = False  # whether rows can be written
        self._said: set[str] = set()
        self._told_why = False
        self._flights: dict[str, _Flight] = {}
        if mode == "off" or (mode == "read" and not path.exists()):
            return
        try:
            self._open()
        except (OSError, sqlite3.Error, StoreError) as error:
            self._tell("not used", error)
            self.close()

    @contextlib.asynccontextmanager
    async def claim(self, key: str, *, model: str | None = None) -> AsyncIterator[Claim]:
        """The reply kept under a key, or the right to ask for it, as soon as nobody else asks.

        `model` is its name in `info` and `clear`; without it, the id that the server reported.
        If the holder fails, is cancelled or killed before it keeps, the next one asks.
        """
        kept = self._get(key)
        if kept is not None or self.mode != "on":
            yield Claim(kept, _forget)
            return
        flight = self._flights.setdefault(key, _Flight())
        flight.wanted += 1
        try:
            async with flight.turn:
                if flight.kept is None:  # nobody of this process asked, or all who did failed
                    offset = await self._acquire(key)
                    try:
                        flight.kept = self._get(key)  # by another process, since we looked
                        if flight.kept is None:
                            yield Claim(None, functools.partial(self._put, key, model, flight))
                            return
                    finally:
                        self._release(offset)
            yield Claim(flight.kept, _forget)
        finally:
            flight.wanted -= 1
            if not flight.wanted:
                del self._flights[key]

    def info(self) -> Info:
        """What is kept. Raises StoreError when the file cannot be read."""
        with self._checked() as db:
            if db is None:
                return Info(self.path, 0, 0, None, None, {})
            count, oldest, newest = db.execute(
                "SELECT count(*), min(at), max(at) FROM replies"
            ).fetchone()
            rows = db.execute(
                "SELECT model, count(*), coalesce(sum(prompt_tokens), 0)"
                " + coalesce(sum(completion_tokens), 0) FROM replies GROUP BY model ORDER BY model"
            ).fetchall()
        size = sum(
            file.stat().st_size
            for file in (self.path, self.path.with_name(f"{self.path.name}-wal"))
            if file.exists()
        )
        return Info(self.path, count, size, oldest, newest, {m: (n, t) for m, n, t in rows})

    def clear(self, *, model: str | None = None, older_than_days: float | None = None) -> int:
        """Delete replies, all or of one model or those of some age; return how many.

        Running processes may go on meanwhile. Raises StoreError when the file cannot be written.
        """
        before = None if older_than_days is None else time.time() - 86_400 * older_than_days
        with self._checked() as db:
            if db is None:
                return 0
            deleted = db.execute(
                "DELETE FROM replies WHERE (?1 IS NULL OR model = ?1) AND (?2 IS NULL OR at < ?2)",
                (model, before),
            ).rowcount
            with contextlib.suppress(sqlite3.OperationalError):  # in use: its pages are used again
                db.execute("VACUUM")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return deleted

    def close(self) -> None:
        """Let go of the file and of every claim. A claim that is still held keeps nothing."""
        self._keeps = False
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
        if self._lock >= 0:
            os.close(self._lock)
        self._db, self._lock = None, -1

    def __enter__(self) -> ReplyCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the file --------------------------------------------------------------------------------

    def _open(self) -> None:
        """Connect, and make the table in a new file. Raises OSError, sqlite3.Error, StoreError."""
        if self.mode == "read":
            self._connect_to_read()
        else:
            self._connect_to_keep()
        assert self._db is not None
        if (found := _version(self._db)) != VERSION:
            what = "no cache of replies" if not found else f"of a newer version ({found})"
            raise StoreError(f"the file is {what}")

    def _connect_to_read(self) -> None:
        """Connect so that no row is ever written, whoever else writes meanwhile."""
        address = self.path.absolute().as_uri()
        # who may write the folder also clears away the log's files at the end; where nothing
        # may be written, and no log stands beside the file, it is read as it is
        for ending in ("mode=rw", "mode=ro", "mode=ro&immutable=1"):
            self._db = _connect(f"{address}?{ending}")
            try:
                self._db.execute("PRAGMA query_only = ON")
                self._db.execute("SELECT 1 FROM sqlite_master")
                return
            except sqlite3.OperationalError as error:
                self._db.close()
                refused = _code(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
                if not refused or "immutable" in ending:
                    raise

    def _connect_to_keep(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._lock = os.open(self.path.with_name(f"{self.path.name}.lock"), flags, 0o644)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS, errno.EPERM):
                raise
            if not self.path.exists():
                raise
            self._tell("read, but no reply is kept", error)
            self._connect_to_read()
            return
        deadline = time.monotonic() + WRITE_WAIT_S
        while not self._try_lock(_OPENING) and time.monotonic() < deadline:
            time.sleep(POLL_S[0])
        try:
            self._db = db = _connect(self.path.absolute().as_uri())
            if not _version(db) and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("BEGIN IMMEDIATE")
                db.execute(_SCHEMA)
                db.execute(f"PRAGMA user_version = {VERSION}")
                db.execute("COMMIT")
            db.execute("PRAGMA synchronous = NORMAL")
        finally:
            self._release(_OPENING)
        self._keeps = True

    def _get(self, key: str) -> Kept | None:
        if self._db is None:
            return None
        try:
            row = self._db.execute("SELECT value, at FROM replies WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            self._tell("no longer used", error)
            self.close()
            return None
        return None if row is None else _unpacked(*row)

    def _put(self, key: str, model: str | None, flight: _Flight, kept: Kept) -> None:
        flight.kept = kept
        if self._db is None or not self._keeps:
            return
        done = kept.completion
        row = (
            key,
            model or done.model or "unknown",
            kept.asked_at,
            done.prompt_tokens,
            done.completion_tokens,
            _packed(kept),
        )
        try:
            self._db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            if _code(error) == sqlite3.SQLITE_BUSY:  # the next one may be kept
                self._tell("busy, and not every reply is kept", error)
            else:  # what it holds can still be read
                self._keeps = False
                self._tell("read, but no reply is kept any more", error)

    @contextlib.contextmanager
    def _checked(self) -> Iterator[sqlite3.Connection | None]:
        """The connection, None for a file that is not there; its faults are StoreErrors."""
        if self._db is None and self.mode != "off" and self.path.exists():
            raise StoreError(f"{self.path}: it cannot be used as a cache of replies; delete it")
        try:
            yield self._db
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}; a damaged file can be deleted") from error

    def _tell(self, state: str, error: Exception) -> None:
        if state not in self._said:
            self._said.add(state)
            self._say(f"{self.path}: the cache of replies is {state}: {error}; {_advice(error)}")

    # -- the lock of a key -----------------------------------------------------------------------

    async def _acquire(self, key: str) -> int:
        """Hold a key's byte as soon as no other process does; return its offset."""
        offset = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "big")
        pause_s, longest_s = POLL_S
        began = time.monotonic()
        while not self._try_lock(offset):
            await asyncio.sleep(pause_s)
            pause_s = min(longest_s, 1.5 * pause_s)
            if not self._told_why and time.monotonic() - began > TOLD_S:
                self._told_why = True
                self._say(
                    f"{self.path}: another process is asking the same, and its answer is waited "
                    "for; end that process, or use --cache off, to ask at once"
                )
        return offset

    def _try_lock(self, offset: int) -> bool:
        if self._lock < 0:
            return True
        try:
            _lock_byte(self._lock, fcntl.F_WRLCK, offset)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            self._tell("without locks, so that a question may be paid for twice", error)
        return True

    def _release(self, offset: int) -> None:
        if self._lock >= 0:
            with contextlib.suppress(OSError):  # no locks here: `_try_lock` has said so
                _lock_byte(self._lock, fcntl.F_UNLCK, offset)


def _lock_byte(descriptor: int, kind: int, offset: int) -> None:
    """Lock or free one byte, without waiting. Raises OSError.

    Locks of the open file, not of the process (fcntl(2), "open file description locks"): two
    caches of one process keep each other out too. Where the kernel has none, the process's.
    """
    if sys.platform == "linux" and sys.maxsize > 2**32:
        # struct flock: l_type, l_whence, l_start, l_len, l_pid (0 for these locks)
        lock = struct.pack("hhqqi0q", kind, os.SEEK_SET, offset, 1, 0)
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
    else:
        flags = fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB
        fcntl.lockf(descriptor, flags, 1, offset)


def _connect(address: str) -> sqlite3.Connection:
    return sqlite3.connect(
        address, timeout=WRITE_WAIT_S, isolation_level=None, check_same_thread=False, uri=True
    )


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 for an error that is not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _packed(kept: Kept) -> bytes:
    reply = {name: getattr(kept.completion, name) for name in _STORED}
    return zlib.compress(json.dumps([reply, kept.latency_s]).encode(), 1)


def _unpacked(value: bytes, at: float) -> Kept | None:
    """The reply of a row; None for one that no version of this file would have written."""
    try:
        reply, latency_s = json.loads(zlib.decompress(value))
        completion = Completion(**{**reply, "ignored": tuple(reply["ignored"])})
        sound = isinstance(completion.text, str) and isinstance(latency_s, float | int)
        return Kept(completion, float(at), latency_s) if sound else None
    except (zlib.error, ValueError, TypeError, KeyError):
        return None


def _advice(error: Exception) -> str:
    if isinstance(error, StoreError):
        return "name another --cache-dir"
    if _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return "a damaged file can be deleted"
    if _code(error) == sqlite3.SQLITE_BUSY:
        return "another program is holding the file"
    return "free space there, make it writable, or name another --cache-dir"


def _forget(kept: Kept) -> None:
    """What a claim does with a reply that it is not to keep."""
