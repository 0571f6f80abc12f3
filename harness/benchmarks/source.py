"""Pinned benchmark files: read, check the bytes, digest the rows."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import BenchmarkError
from harness.types import Oracle, Problem


@dataclass(frozen=True)
class Item:
    """A problem with the side that only the grader and data checks may hold."""

    problem: Problem
    oracle: Oracle


@dataclass(frozen=True)
class Benchmark:
    """A loaded benchmark. `digest` is over canonical rows, so any file of this content agrees."""

    name: str
    digest: str
    licence: str
    paper: str
    lists: dict[str, tuple[str, ...]]  # list name -> problem ids
    items: dict[str, Item]  # by problem id, in the benchmark's order


def read_pinned(path: Path, sha256: str, rows: int) -> list[dict[str, Any]]:
    """Rows of a .jsonl.gz file whose bytes are the pinned ones. Raises BenchmarkError."""
    if not path.is_file():
        raise BenchmarkError(f"{path}: not there; expected a file with SHA-256 {sha256}")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise BenchmarkError(
            f"{path.name}: expected SHA-256 {sha256}, found {found}; install its package again"
        )
    read = [json.loads(line) for line in gzip.decompress(data).splitlines() if line.strip()]
    if len(read) != rows:
        raise BenchmarkError(f"{path.name}: expected {rows} rows, found {len(read)}")
    return read


def rows_digest(rows: list[dict[str, Any]]) -> str:
    """SHA-256 over canonical rows: sorted keys, UTF-8, one row a line, in the file's order."""
    canonical = (json.dumps(r, sort_keys=True, ensure_ascii=False) + "\n" for r in rows)
    return hashlib.sha256("".join(canonical).encode()).hexdigest()
