"""The record of a run: append-only JSON lines under `results/runs/<run_id>/`.

`run.json` says what the run is. Each process appends to a segment of its own, `<n>.jsonl`, one
`write` per record, so that kill -9 can tear at most the last line; a reader skips a torn line.
Everything else (DuckDB, the board, tables) is derived and can be deleted.

Records (`kind`, and `at` = unix seconds, in all of them; texts stand once, by SHA-256); one with a
field of another type than `harness.kinds` has is none, for all who read:

- `session`: `event` start|end, `status` running|complete|partial|interrupted|budget|refused|failed;
  a start says `problems` and `samples` asked for, how many are `resumed`, and with what they are
  made: `sandbox`, `commit`, `dirty`, `versions`, `command`, `limit`, `n_samples`; `asked` lists
  the ids of the problems, `config` holds all of `harness.api.Config`, `forecast` what the session
  was expected to take; an end says `served_by`, the ids that servers reported, by model, and
  `elapsed_s`
- `artifact`: `sha256`, `text`
- `call`: one request to a model, failed attempts too: `result_key`, `problem_id`, `sample`,
  `call_no` (1-based, of the sample), `attempt` (1-based), `round` (null outside of rounds),
  `occurrence` (0-based, among equal requests of the sample),
  `role`, `model`, `request_sha` (JSON of messages and sampling), `response_sha`,
  `prompt_tokens`, `completion_tokens`, `cached_tokens`, `reasoning_tokens`, `temperature`, `seed`,
  `max_tokens`, `served_by` (the id that the server reported), `ignored` (settings that the model
  does not take), `cached` (answered without paying: by the reply cache or a recording), `cost_usd`
  (paid; null: unknown), `fresh_cost_usd` (the price when it is not cached), `latency_s` (of a
  cached one: what the answer took when it was paid for), `finish`, `error`, `error_kind`
  (`cancelled`: given up while in flight; what the provider bills for it is not known, and the most
  that it can be is `charged_tokens` and `charged_usd`)
  where a workflow's operator asked, `operator` and `output_format`; where the call was made at
  another problem than the sample's own, `about`, its id (so in the next three kinds)
- `feedback`: `result_key`, `problem_id`, `sample`, `round`, `code_sha`, `passed`, `total`,
  `verdict`, `errors`
- `workflow`: one execution: `result_key`, `problem_id`, `sample`, `round`, `calls`, `operators`,
  `answer_sha`, `error`, `error_class`
- `round`: `result_key`, `problem_id`, `sample`, `round`, `parent`, `modification`, `workflow_sha`,
  `prompts_sha`, `reply_sha`, `score` (null: no feedback test), `scores`, `error`, `error_class`,
  `code_sha` (the program with the best feedback score of the round)
- `hidden`: the hidden-test verdict of a round's program, found after the answer was frozen:
  `result_key`, `problem_id`, `sample`, `round`, `code_sha`, `verdict`
- any other kind a method notes, with the same first three fields
- `result`: one graded sample: `result_key`, `problem_id`, `sample`, `verdict`, `detail`, `fresh`
  (verdict on the hidden tests that no feedback test repeats; null: none is left), `base`, `plus`
  (null where the suite does not have both), `solution_sha`, `prompt_tokens`,
  `completion_tokens`, `calls`, `cached_calls`, `rounds`, `cost_usd` (paid), `fresh_cost_usd`,
  `price_table`, `wall_s`, `grade_s`, `feedback_passed`, `feedback_total`, `error_kind`; `reruns`,
  verdicts of further final runs, or null; `grader_version` where it is another than run.json's.
  The last one of a key holds.
- `verdict`: a later grading of the program of a result, by `score RUN --keep`: `result_key`,
  `problem_id`, `sample`, `verdict`, `detail`, `fresh`, `base`, `plus`, `solution_sha`,
  `grader_version`, `environment`, `sandbox`. The last one after its result holds in the place of
  what that says, unless it is `invalid` (ours was at fault) or on another program (`regraded`).
  It says nothing of `reruns` and `hidden`: these stay as they were first graded.

run.json of an imported run says where it is from: `kind` is `imported`, and `origin` has `format`,
`file`, `sha256`, `tool` and `imported_at`.

run.json says its `stage`: `eval`, or `fit` for a search (`harness.search`). An evaluation names in
`artifact` what was found for it, and what that took. A fit's journal has no `result`, but

- `trial`: one graded attempt at a search problem: `result_key`, `problem_id`, `sample` (a number
  that tells attempts apart), `label`, `round`, `passed`, `share`, `detail`, `code_sha`, `facts`,
  `calls`, `cached_calls`, `prompt_tokens`, `completion_tokens`, `tokens`, `usd` (as asked anew),
  `cost_usd` (paid), `wall_s`
- `node`: a workflow or agent of the search: `number`, `parent`, `label`, `score`, `low`, `high`,
  `error`, `workflow_sha`, `prompts_sha`, `reply_sha`
- `step`: a step of training: `number`, and numbers by name

Calls that belong to no problem have the problem id `search`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.kinds import GRADED, LIMITS, check, fits

LOCK_WAIT_S = 1.0  # for a lock that a reader may hold


def digest(text: str) -> str:
    """SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: what digests are made of."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


class Journal:
    """One process's segment of a run. Raises StoreError when the disk refuses."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._lock = -1
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(run_dir / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if not _locked(self._lock):
                holder = os.pread(self._lock, 64, 0).decode() or "another process"
                os.close(self._lock)
                raise StoreError(
                    f"{run_dir.name}: {holder} is writing this run; wait for it, or use --fresh"
                )
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"process {os.getpid()}".encode(), 0)
            number = max((int(p.stem) for p in segments(run_dir)), default=0) + 1
            path = run_dir / f"{number:04d}.jsonl"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._file = os.open(path, flags, 0o644)
        except OSError as error:
            if self._lock >= 0:
                os.close(self._lock)
            raise StoreError(f"{run_dir}: cannot write: {error.strerror}") from error
        self._seen: set[str] = set()

    def write(self, kind: str, **fields: Any) -> None:
        """Append one record with a single write. Raises StoreError: no disk, or not plain data."""
        if self._file < 0:
            raise StoreError(f"{self.run_dir.name}: its journal is closed")
        record = {"kind": kind, "at": round(time.time(), 3), **fields}
        try:
            line = json.dumps(record, ensure_ascii=True, allow_nan=False).encode() + b"\n"
        except (ValueError, TypeError) as error:
            raise StoreError(f"{self.run_dir.name}: a {kind} that is no data: {error}") from error
        try:
            written = os.write(self._file, line)
        except OSError as error:
            raise StoreError(f"{self.run_dir}: cannot write: {error.strerror}") from error
        if written != len(line):
            raise StoreError(f"{self.run_dir}: disk full after {written} of {len(line)} bytes")

    def artifact(self, text: str) -> str:
        """Keep a text once; return its SHA-256."""
        sha = digest(text)
        if sha not in self._seen:
            self._seen.add(sha)
            self.write("artifact", sha256=sha, text=text)
        return sha

    def close(self) -> None:
        """Release the run. Whoever still writes gets a StoreError, not another run's file."""
        os.close(self._file)
        os.close(self._lock)
        self._file = -1


def _locked(lock: int) -> bool:
    """Whether the lock is ours now; a reader that looks who writes holds it for a moment."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)


def read_segment(path: Path, start: int = 0) -> Iterator[tuple[int, int, dict[str, Any] | None]]:
    """Yield (offset, end, record) of every whole line from byte `start`; None for a broken line.

    Broken is what holds anything else than a record of its kind may (`harness.kinds`). An
    unfinished last line is not yielded: its writer may still be at it, or was killed.
    """
    with path.open("rb") as file:
        file.seek(start)
        offset = start
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                record = record_of(line)
            except ValueError:
                record = None
            yield offset, offset + len(line), record
            offset += len(line)


def record_of(line: bytes) -> dict[str, Any]:
    """The record of a line. Raises ValueError, one line, where it holds none: `kinds.check`."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # the latter: nested a thousandfold
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        raise ValueError("not a JSON object with a kind")
    check(record)
    if record["kind"] == "artifact" and digest(record["text"]) != record["sha256"]:
        raise ValueError("the text of an artifact does not have its digest")
    return record


def segments(run_dir: Path) -> list[Path]:
    """The run's segments in the order in which they were begun."""
    found = [
        (int(path.stem), path.name, path)
        for path in run_dir.glob("*.jsonl")
        if path.stem.isdecimal() and int(path.stem) < LIMITS["INTEGER"] and path.is_file()
    ]
    return [path for _, _, path in sorted(found)]


def read_run(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Every whole record of a run, oldest segment first; broken lines are left out."""
    for path in segments(run_dir):
        for _, _, record in read_segment(path):
            if record is not None:
                yield record


_NEEDED = {  # what resuming reads of a record; a line that lacks it is as good as lost
    "session": {"at", "event"},
    "result": {"detail", "wall_s", "prompt_tokens", "completion_tokens", "cost_usd"},
    "workflow": {"calls"},
    "call": {"at", "request_sha", "response_sha", "model", "error", "latency_s"}
    | {"prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "finish"}
    | {"cost_usd"},
}
_KNOWN = {  # ... and what of it may not be null
    "session": ("at", "event"),
    "result": ("verdict", "calls"),
    "verdict": ("verdict",),
    "call": ("at", "request_sha", "model"),
}
_BESIDE = {  # ... and the types of what it reads that is in no table
    "session": {"elapsed_s": "DOUBLE"},
    "call": {"charged_tokens": "BIGINT", "charged_usd": "DOUBLE", "occurrence": "INTEGER"},
}


def whole(record: Mapping[str, Any]) -> bool:
    """Whether a record has the fields that resuming reads."""
    kind = record["kind"]
    return (
        _NEEDED.get(kind, set()) <= record.keys()
        and all(record.get(name) is not None for name in _KNOWN.get(kind, ()))
        and all(
            record.get(name) is None or fits(record[name], type_)
            for name, type_ in _BESIDE.get(kind, {}).items()
        )
    )


def holds(verdict: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    """Whether a `verdict` takes the place of what a result says: it is one, of the same program."""
    same = verdict.get("solution_sha") in (None, result.get("solution_sha"))
    return same and verdict.get("verdict") not in (None, "invalid")


def regraded(result: dict[str, Any], verdict: Mapping[str, Any]) -> dict[str, Any]:
    """A `result` with what a later `verdict` says in its place; itself where that does not hold.

    `regrades` counts these. What the verdict says nothing of stays: `reruns` are of the grader that
    graded the sample first.
    """
    if not holds(verdict, result):
        return result
    names = (*GRADED, "grader_version")
    before = result.get("regrades")
    count = (before if isinstance(before, int) else 0) + 1
    return {**result, **{name: verdict.get(name) for name in names}, "regrades": count}


def last_results(records: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The `result` that holds for every sample, by its key, as its last grading has it."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        key = record.get("result_key")
        if not isinstance(key, str):
            continue
        if record["kind"] == "result":
            found[key] = record
        elif record["kind"] == "verdict" and key in found:
            found[key] = regraded(found[key], record)
    return found


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file of JSON as a whole. Raises StoreError.

    Half a pair, as a byte of a command line that is no UTF-8 comes to us, is written as its escape.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(f"{path}: cannot write: {error.strerror}") from error
