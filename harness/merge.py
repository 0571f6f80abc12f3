"""Runs of other machines come into ours: `python -m harness merge DIR…`.

A run that is not here is copied under a temporary name and then renamed, so it is here as a whole
or not at all. One that is here under the same name must be the same run (`SAME`); then its segments
come in under new numbers, unless they are here already, byte by byte; one that has grown since it
was taken replaces what is here of it. Where theirs is ours gone on with, as a search can be, their
run.json and what else lies beside the journals hold, too. Of a segment whose last line is torn the
whole lines count. So shards of one run on several machines become one run, the same merge again
changes nothing, and after one that was cut off the next one does the rest. Where two sides have
graded the same sample, the one that came last holds: that of the later directory, over ours.

What is refused is refused by name, and nothing of it is taken: a run that is being written on
either side, another run of the same name, symbolic links, a folder that describes no run.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.errors import StoreError, UsageError
from harness.journal import canonical, record_of, segments, write_atomically
from harness.store import Store, disk, only_writer, read_run_json, writer_is_gone

# What two run.json of one run agree on. Limit, problems, machine, commit and prices may differ:
# sessions and results say theirs.
SAME = ("run_id", "stage", "config_hash", "benchmark", "benchmark_digest", "custom", "list",
        "protocol", "level", "method", "method_digest", "knobs", "seed", "grader_version", "kind",
        "needs_environment", "artifact", "match", "origin")  # fmt: skip
PART = ".merge-"  # how the name of what is not here as a whole begins
BLOCK = 1 << 20
HEAD = 4096  # bytes of a segment by which another of the same beginning is looked for


@dataclass(frozen=True)
class Merged:
    """What became of one run of another directory."""

    run_id: str
    source: Path  # the results directory that it is from
    outcome: Literal["new", "extended", "same"]
    segments: int  # that came, or grew
    bytes: int  # that came
    samples: int  # results in them
    again: int  # of these, samples that were graded here already: what came holds


@dataclass
class MergeReport:
    """What a merge took, and what it did not."""

    merged: list[Merged] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # reason by "DIR/runs/RUN" or DIR
    problems: list[str] = field(default_factory=list)  # of reading in what came, one line each

    def lines(self) -> Iterator[str]:
        """All of it for a terminal, a line for each run and then one for everything."""
        for one in self.merged:
            if one.outcome == "same":
                yield f"{one.run_id}: nothing new in {one.source}"
                continue
            said = f", {one.again} of them graded here already: the new ones hold"
            yield (
                f"{one.run_id}: {one.outcome} from {one.source}, {one.segments} segments with "
                f"{one.samples} samples{said if one.again else ''}"
            )
        for place, reason in self.refused.items():
            yield f"left out: {place}: {reason}"
        yield from self.problems
        new = sum(one.outcome == "new" for one in self.merged)
        more = sum(one.outcome == "extended" for one in self.merged)
        same = len(self.merged) - new - more
        yield f"{new} new, {more} extended, {same} as before, {len(self.refused)} left out"


class _Refused(Exception):
    """Why a run is not taken."""


def merge(results_dir: Path, others: Sequence[Path]) -> MergeReport:
    """Bring the runs of other results directories into ours, in their order, and onto our board.

    `results_dir` is made when it is not there. Raises UsageError, before anything is taken, for a
    directory that is not there, is ours, or holds no `runs` folder; StoreError where ours cannot be
    written, or another merge is under way.
    """
    folders = [_runs_of(other, results_dir) for other in others]
    report = MergeReport()
    with disk(results_dir):
        (results_dir / "runs").mkdir(parents=True, exist_ok=True)
    with _only_merge(results_dir):
        _clear(results_dir)
        for other, runs in zip(others, folders, strict=True):
            with disk(runs):
                found = sorted(p for p in runs.iterdir() if not p.name.startswith("."))
            if not found:
                report.refused[str(other)] = "holds no runs"
            for theirs in found:
                if not theirs.is_symlink() and not theirs.is_dir():
                    continue
                try:
                    report.merged.append(_take(results_dir, other, theirs))
                except _Refused as refused:
                    report.refused[str(theirs)] = str(refused)
    _show(results_dir, report)
    return report


def _runs_of(other: Path, results_dir: Path) -> Path:
    runs = other / "runs"
    if not other.is_dir():
        raise UsageError(f"{other}: there is no such folder")
    if other.resolve() == results_dir.resolve():
        raise UsageError(f"{other}: is the folder to merge into; name others")
    if (other / "run.json").exists() or (other.name == "runs" and not runs.is_dir()):
        raise UsageError(f"{other}: give the results folder, the one that holds `runs`")
    if not runs.is_dir():
        raise UsageError(f"{other}: holds no folder `runs`, so no results of ours")
    return runs


def _take(results_dir: Path, other: Path, theirs: Path) -> Merged:
    """Bring one run in. Raises _Refused."""
    if theirs.is_symlink():
        raise _Refused("is a symbolic link; merge the folder that it leads to")
    head = _readable(theirs)
    ours = results_dir / "runs" / theirs.name
    if ours.is_symlink() or (ours.exists() and not ours.is_dir()):
        raise _Refused(f"{ours} is no folder")
    if not ours.is_dir():
        return _copy(results_dir, ours, other, theirs)
    with ExitStack() as stack:
        try:
            stack.enter_context(only_writer(ours))
        except StoreError as error:
            raise _Refused(str(error)) from error
        return _extend(ours, other, theirs, head)


def _readable(theirs: Path) -> dict[str, Any]:
    """The run.json of a run that can be copied. Raises _Refused."""
    try:
        for path in sorted(theirs.iterdir()):
            if path.is_symlink() or not path.is_file():
                raise _Refused(f"{path.name} in it is no plain file")
            path.open("rb").close()
        if not writer_is_gone(theirs):
            raise _Refused("is being written; merge again when it has ended")
    except OSError as error:
        raise _Refused(f"cannot be read: {error.filename}: {error.strerror}") from error
    return _head(theirs)


def _head(run_dir: Path) -> dict[str, Any]:
    try:
        head = read_run_json(run_dir)
    except StoreError as error:
        raise _Refused(str(error)) from error
    if head["run_id"] != run_dir.name:
        raise _Refused(f"its run.json holds the id {head['run_id']!r}")
    return head


def _copy(results_dir: Path, ours: Path, other: Path, theirs: Path) -> Merged:
    """A run that is not here: its files under a temporary name, then renamed as a whole."""
    part = results_dir / f"{PART}{theirs.name}"
    size = count = 0
    keys: set[str] = set()
    with disk(ours), ExitStack() as at_end:
        part.mkdir()
        at_end.callback(shutil.rmtree, part, ignore_errors=True)  # gone by its name once it is here
        journals = set(segments(theirs))
        for path in sorted(theirs.iterdir()):
            if path.name.startswith("."):
                continue
            taken = _whole_bytes(path) if path in journals else path.stat().st_size
            if path in journals and not taken:
                continue
            _copy_bytes(path, part / path.name, taken)
            size += taken
            if path in journals:
                count += 1
                keys |= _keys(part / path.name)
        try:
            os.rename(part, ours)
        except OSError:
            if not ours.is_dir():
                raise
            raise _Refused("a run of that name was begun here meanwhile; merge again") from None
    return Merged(theirs.name, other, "new", count, size, len(keys), 0)


def _extend(ours: Path, other: Path, theirs: Path, head: Mapping[str, Any]) -> Merged:
    """A run that is here: what its segments here lack."""
    here = _head(ours)
    _same_run(here, head)
    with disk(ours):
        own = {path: _whole_bytes(path) for path in segments(ours)}
        steps = list(_steps(own, segments(theirs)))
        went_on = bool(steps) and _went_on(own, segments(theirs))
        if steps and (why := _no_shards(head)) and not went_on:
            raise _Refused(f"{why}; delete the one here to take the other")
        before: set[str] = set()
        if steps:
            before = {key for path in own for key in _keys(path)}
        number = max((int(path.stem) for path in own), default=0)
        size, came = 0, set[str]()
        files = _copy_others(ours, theirs, newer=went_on)
        for path, old, whole in steps:
            if old is None:
                number += 1
            target = ours / f"{number:04d}.jsonl" if old is None else old
            part = ours / f"{PART}{target.name}"
            _copy_bytes(path, part, whole)
            start = 0 if old is None else own[old]
            came |= _keys(part, start)
            size += whole - start
            os.replace(part, target)
    if not went_on and here.get("first_look") and head.get("first_look") is False:
        write_atomically(ours / "run.json", canonical({**here, "first_look": False}))
    outcome: Literal["extended", "same"] = "extended" if steps or files else "same"
    again = len(came & before)
    return Merged(theirs.name, other, outcome, len(steps), size, len(came), again)


def _steps(
    own: Mapping[Path, int], theirs: Sequence[Path]
) -> Iterator[tuple[Path, Path | None, int]]:
    """(their segment, ours that is its beginning or None, its whole bytes) of what is to come."""
    for path in theirs:
        whole = _whole_bytes(path)
        if not whole:
            continue
        old = _begun_alike(path, whole, own)
        if old is None or own[old] < whole:
            yield path, old, whole


def _begun_alike(path: Path, whole: int, own: Mapping[Path, int]) -> Path | None:
    """The segment of ours of which one is the beginning of the other; None where there is none."""
    alike = [mine for mine, size in own.items() if size and _alike(path, mine, min(whole, size))]
    return max(alike, key=lambda mine: own[mine], default=None)


def _alike(one: Path, other: Path, size: int) -> bool:
    """Whether two files begin with the same bytes."""
    with one.open("rb") as a, other.open("rb") as b:
        block = min(HEAD, size)
        while block and a.read(block) == b.read(block):
            size -= block
            block = min(BLOCK, size)
        return not size


def _same_run(here: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    """Raises _Refused, naming what differs, unless two run.json are of one run."""
    a, b = _identity(here), _identity(there)
    for name in a:
        if a[name] != b[name]:
            raise _Refused(
                f"another run of the same name: {name} is {_short(a[name])} here and "
                f"{_short(b[name])} there"
            )
    if not here.get("config_hash") and not here.get("origin") and here != there:
        raise _Refused("no config_hash says that it is the same run as the one here")


def _identity(head: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: head.get(name) for name in SAME}
    said["stage"] = said["stage"] or "eval"
    if isinstance(origin := said["origin"], Mapping):  # the same file imported twice is one run
        said["origin"] = {k: v for k, v in origin.items() if k not in ("file", "imported_at")}
    for role, made in (head.get("roles") or {}).items():
        said[f"roles.{role}"] = {name: made.get(name) for name in ("model", "sampling")}
    roles = sorted(name for name in said if name.startswith("roles."))
    return {**said, "roles": roles}


def _short(value: Any) -> str:
    text = canonical(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _no_shards(head: Mapping[str, Any]) -> str | None:
    """Why a run cannot have been made in parts on several machines; None where it can."""
    if head.get("stage") == "fit":
        return "another search of the same name, and two are no one search"
    return "the same file was imported on both sides" if head.get("origin") else None


def _went_on(own: Mapping[Path, int], theirs: Sequence[Path]) -> bool:
    """Whether theirs is what is here, gone on with."""
    return all(
        not size or any(_whole_bytes(p) >= size and _alike(p, path, size) for p in theirs)
        for path, size in own.items()
    )


def _copy_others(ours: Path, theirs: Path, *, newer: bool) -> int:
    """Files beside journals, what a search found say, that are not here yet; how many came.

    Where theirs is `newer`, what is here gone on with, theirs take the place of those here, of
    run.json too. They come before the segments: a merge that is cut off in between is made again.
    """
    count = 0
    journals = set(segments(theirs))
    for path in sorted(theirs.iterdir()):
        if path.name.startswith(".") or path in journals:
            continue
        here = ours / path.name
        if not here.exists() or (newer and here.read_bytes() != path.read_bytes()):
            part = ours / f"{PART}{path.name}"
            _copy_bytes(path, part, path.stat().st_size)
            os.replace(part, ours / path.name)
            count += 1
    return count


def _copy_bytes(source: Path, target: Path, size: int) -> None:
    """The first bytes of a file as a new one, or none of it."""
    try:
        with source.open("rb") as read, target.open("wb") as written:
            while size > 0 and (block := read.read(min(BLOCK, size))):
                written.write(block)
                size -= len(block)
    except OSError:
        target.unlink(missing_ok=True)
        raise


def _whole_bytes(path: Path) -> int:
    """How much of a segment is whole lines."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - BLOCK)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0


def _keys(path: Path, start: int = 0) -> set[str]:
    """The keys of the results in a segment, from a byte on."""
    found = set()
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if b'"result"' not in line or not line.endswith(b"\n"):
                continue
            with suppress(ValueError):  # left out by every reader, and counted by the store
                record = record_of(line)
                if record["kind"] == "result":
                    found.add(record["result_key"])
    return found


@contextmanager
def _only_merge(results_dir: Path) -> Iterator[None]:
    """Hold `.merge.lock`. Raises StoreError while another merge is under way."""
    path = results_dir / ".merge.lock"
    with disk(path):
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{results_dir}: another merge is under way; wait for it") from None
        yield
    finally:
        os.close(lock)


def _clear(results_dir: Path) -> None:
    """Remove what a merge that was cut off has left."""
    with disk(results_dir):
        for left in (*results_dir.glob(f"{PART}*"), *results_dir.glob(f"runs/*/{PART}*")):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


def _show(results_dir: Path, report: MergeReport) -> None:
    """Bring the database and the board up to date. A failure is said; the journals have it all."""
    if all(one.outcome == "same" for one in report.merged):
        return
    store = Store(results_dir)
    try:
        report.problems += store.ingest().problems
        store.snapshot()
    except StoreError as error:
        report.problems.append(f"the board was not brought up to date: {error}")
