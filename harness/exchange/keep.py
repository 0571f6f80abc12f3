"""A run of somebody else's, written as a journal of ours under `results/runs/`.

It is written beside that folder and put there as a whole, so a kill or a bad file leaves nothing
behind. Its id ends in a digest of the file, so a file makes one run however often it is brought in.
Nothing of what is imported is executed, and nothing of a file is copied but what a journal has.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from harness import __version__
from harness.errors import StoreError, UsageError
from harness.exchange.foreign import SAMPLES, Call, Log, Row, Suite, short, suite
from harness.exchange.wishes import Wish
from harness.ingest import YEAR_10000
from harness.journal import canonical, digest, write_atomically
from harness.page import things
from harness.schema import FACTS, LIMITS
from harness.store import read_run_json, writer_is_gone

ASIDE = ".importing-"  # how the folders of runs begin that are being written
STALE_S = 60.0  # a folder so old without a writer was left by a kill
LETTERS = 12  # of the digest in a run's id
SEEN = 50_000  # digests of texts that are kept in mind, so that most stand once
NAMED = 5  # problem ids in a message
TWICE = {  # what a sample's number is in a format, and why one may stand twice
    "inspect": ("epoch", 1, "two samples of its id say the same epoch"),
}
IN_TABLES = ("sample", 0, "leave the column `sample` out, and equal ids are numbered")
UNREAL = "mockllm/"  # how models of Inspect are called that are none
_SLUG = re.compile(r"[^a-z0-9.+]+")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex. Raises UsageError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error


@contextmanager
def written(
    log: Log, path: Path, form: str, results_dir: Path, wish: Wish
) -> Iterator[Callable[[], Path]]:
    """Write one run of a file beside the others; yield what puts it in its place, once.

    That gives the run's folder, the old one where the file was brought in before. Raises
    UsageError: a bad file, or it was brought in before under another name; StoreError.
    """
    path = log.file or path
    sha256 = file_digest(path)
    ending = digest(canonical([sha256, log.part]))[:LETTERS]
    benchmark = wish.benchmark or log.benchmark
    if benchmark is None:
        raise UsageError(f"{path}: does not say its benchmark; give --benchmark")
    known = suite(benchmark, wish.sources)
    named = {
        "benchmark": known.name,
        "method": wish.method or log.method,
        "worker": wish.worker or log.worker,
    }
    there = _there(results_dir, ending)
    if there is not None:
        _same(there, wish, known, path)
        wish.say(f"{path.name}: was brought in before, as {there.name}")
        yield lambda: there
        return
    words = (known.name, named["method"] or named["worker"] or "unknown")
    run_id = f"{'-'.join(_slug(word) for word in words)}-imported-{ending}"
    runs = results_dir / "runs"
    with _aside(results_dir, run_id) as folder:
        head = _written(folder, log, path, sha256, form, known, named, wish)
        write_atomically(folder / "run.json", canonical({"run_id": run_id, **head}))

        def publish() -> Path:
            try:
                runs.mkdir(parents=True, exist_ok=True)
                (folder / ".lock").unlink()
                os.rename(folder, runs / run_id)
            except OSError as error:
                if not (runs / run_id / "run.json").exists():  # no other process was faster
                    raise StoreError(
                        f"{runs / run_id}: cannot write: {error.strerror or error}"
                    ) from error
            return runs / run_id

        yield publish


def _slug(text: str) -> str:
    return _SLUG.sub("-", text.lower()).strip("-.")[:40] or "unknown"


def _there(results_dir: Path, ending: str) -> Path | None:
    """The run that a file has become before."""
    return next(iter(sorted((results_dir / "runs").glob(f"*-imported-{ending}"))), None)


def _same(there: Path, wish: Wish, known: Suite, path: Path) -> None:
    """Raises UsageError where a run was brought in under other names than are wished now."""
    head = read_run_json(there)
    roles = head.get("roles") or {}
    was = {
        "benchmark": (head.get("benchmark"), wish.benchmark and known.name),
        "method": (head.get("method"), wish.method),
        "worker": ((roles.get("worker") or {}).get("model"), wish.worker),
    }
    for name, (before, now) in was.items():
        if now is not None and now != before:
            raise UsageError(
                f"{path}: was brought in before, as {there.name} with {name} "
                f"{before or 'unknown'}, not {now}; `python -m harness delete {there.name}` first"
            )


@contextmanager
def _aside(results_dir: Path, run_id: str) -> Iterator[Path]:
    """A folder that nobody reads, removed again unless it was renamed; clears what a kill left.

    Raises UsageError where it cannot be made, StoreError where it cannot be filled.
    """
    folder = results_dir / f"{ASIDE}{run_id}-{os.getpid()}"
    lock = -1
    try:
        for old in results_dir.glob(f"{ASIDE}*"):
            if time.time() - old.stat().st_mtime > STALE_S and writer_is_gone(old):
                shutil.rmtree(old, ignore_errors=True)
        folder.mkdir(parents=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        if lock >= 0:
            os.close(lock)
        raise UsageError(
            f"{results_dir}: cannot be written: {error.strerror or error}; name another with --out"
        ) from error
    try:
        yield folder
    except OSError as error:
        raise StoreError(
            f"{results_dir}: cannot write the run: {error.strerror or error}"
        ) from error
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


class Pen:
    """Writes journal records, texts mostly once."""

    def __init__(self, file: IO[bytes], at: float) -> None:
        self._file, self._at = file, at
        self._seen: dict[str, None] = {}

    def write(self, kind: str, **fields: Any) -> None:
        record = {"kind": kind, "at": self._at, **fields}
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")

    def text(self, text: str | None) -> str | None:
        """Keep a text; its SHA-256. A digest long out of mind makes the text stand again."""
        if text is None:
            return None
        sha = digest(text)
        if sha not in self._seen:
            if len(self._seen) >= SEEN:
                del self._seen[next(iter(self._seen))]
            self._seen[sha] = None
            self.write("artifact", sha256=sha, text=text)
        return sha


class _Tally:
    """What the rows of a run came to."""

    def __init__(self, known: Suite, form: str) -> None:
        self.known, self.form = known, form
        self.samples: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.other_text: Counter[str] = Counter()
        self.compared = 0
        self._drawn: dict[str, int] = {}  # problem -> its sample numbers, as bits

    def number(self, problem_id: str, row: Row) -> int:
        """The sample's number. Raises UsageError for one that stands twice, or is none."""
        drawn = self._drawn.get(problem_id, 0)
        number = drawn.bit_length() if row.sample is None else row.sample
        word, first, hint = TWICE.get(self.form, IN_TABLES)
        if not 0 <= number < SAMPLES:
            raise UsageError(
                f"{row.where}: {word}: expected {first} to {first + SAMPLES - 1}, "
                f"found {first + number} of {problem_id}"
            )
        if drawn >> number & 1:
            raise UsageError(
                f"{row.where}: {word} {first + number} of {problem_id} stands twice; {hint}"
            )
        self._drawn[problem_id] = drawn | 1 << number
        self.samples[problem_id] += 1
        return number

    def compare(self, problem_id: str, row: Row) -> None:
        """Note an id that is not of the benchmark, or a problem whose text is another."""
        loaded = self.known.loaded
        if loaded is None:
            return
        if not self.known.has(problem_id):
            self.unknown[problem_id] += 1
        elif row.task_text is not None and problem_id in loaded.items:
            self.compared += 1
            if row.task_text.strip() not in loaded.items[problem_id].problem.prompt:
                self.other_text[problem_id] += 1

    def data(self, log: Log) -> tuple[str | None, str | None]:
        """(our digest of the problems, by what it is known); None, None where it is not."""
        loaded = self.known.loaded
        if loaded is None or self.unknown or self.other_text or not self.samples:
            return None, None
        if log.data_hash is not None:
            agrees = log.data_hash in (loaded.digest, log.hashes.get(loaded.digest))
            return (loaded.digest, "hash") if agrees else (None, None)
        return loaded.digest, "texts" if self.compared == self.samples.total() else "ids"


def _written(
    folder: Path,
    log: Log,
    path: Path,
    sha256: str,
    form: str,
    known: Suite,
    named: Mapping[str, str | None],
    wish: Wish,
) -> dict[str, Any]:
    """Write a run's journal into a folder; what its run.json says, but for the id."""
    now = round(time.time(), 3)
    tally = _Tally(known, form)
    body = folder / "rows"
    with body.open("wb") as file:
        pen = Pen(file, now)
        for text_sha, text in log.texts() if log.texts else ():
            if digest(text) != text_sha:
                raise UsageError(f"{path}: a text does not have its digest {text_sha[:12]}")
            pen.text(text)
        for row in log.rows():
            _record(pen, tally, row, log, sha256)
        if not tally.samples:
            raise UsageError(
                f"{path}: no graded sample in it{f' ({log.part})' if log.part else ''}"
            )
        for record in log.records() if log.records else ():
            problem_id = known.spelled(record.pop("problem_id"))
            key = _key(sha256, log.part, problem_id, record["sample"])
            kind = record.pop("kind")
            pen.write(kind, **{**key, **fitting(kind, record, f"{path}: {kind} of {problem_id}")})
    if log.started_at is not None and not 0 <= log.started_at < YEAR_10000:
        raise UsageError(f"{path}: expected a date since 1970, found {log.started_at!r:.40}")
    benchmark_digest, known_by = tally.data(log)
    asked, draws = _asked(log, tally)
    with (folder / "0001.jsonl").open("wb") as file:
        pen = Pen(file, now)
        counts = {"problems": len(asked), "samples": sum(asked.values()), "resumed": 0}
        ids = {"asked": list(asked), "n_samples": draws} if draws is not None else {}
        pen.write("session", event="start", **counts, **ids)
        with body.open("rb") as rows:
            shutil.copyfileobj(rows, file)
        pen.write("session", event="end", status=log.status)
    body.unlink()
    _report(tally, log, path, benchmark_digest, wish)
    roles = {
        role: {"model": model, "identity": _identity(model, log), "sampling": {}}
        for role, model in {"worker": named["worker"], **log.roles}.items()
        if model is not None
    }
    if "worker" in roles:
        roles["worker"]["sampling"] = dict(log.sampling)
    origin = {
        "format": form,
        "file": path.name,
        "sha256": sha256,
        "tool": log.tool if log.version is None else f"{log.tool} {log.version}",
        "version": log.version,
        "imported_at": now,
        "harness_version": __version__,
        "part": log.part or None,
        "run_id": log.name,
        "digest_by": known_by,
        "unknown_problems": len(tally.unknown),
        "companions": [{"file": p.name, "sha256": file_digest(p)} for p in log.companions],
        **log.said,
    }
    return {
        "list": None,
        "protocol": None,
        "level": None,
        "knobs": {},
        "seed": None,
        "price_table": None,
        **log.head,
        "stage": "eval",
        "kind": "imported",
        "origin": origin,
        "benchmark": named["benchmark"],
        "benchmark_digest": benchmark_digest or log.head.get("benchmark_digest"),
        "method": named["method"],
        "roles": roles,
        "n_samples": draws,
        "grader_version": log.grader_version or origin["tool"],
        "started_at": log.started_at,
    }


def _identity(model: str, log: Log) -> dict[str, Any]:
    return {"simulated": True} if log.simulated or model.startswith(UNREAL) else {}


def _asked(log: Log, tally: _Tally) -> tuple[dict[str, int], int | None]:
    """({problem id: samples asked for}, samples of each, None where they differ)."""
    asked = dict(tally.samples)
    if log.asked is not None:
        ids, draws = log.asked
        for problem_id in map(tally.known.spelled, ids):
            asked[problem_id] = max(draws, asked.get(problem_id, 0))
    draws_of = set(asked.values())
    return asked, draws_of.pop() if len(draws_of) == 1 else None


def _key(sha256: str, part: str, problem_id: str, sample: int) -> dict[str, Any]:
    key = digest(canonical([sha256, part, problem_id, sample]))[:32]
    return {"result_key": key, "problem_id": problem_id, "sample": sample}


def _record(pen: Pen, tally: _Tally, row: Row, log: Log, sha256: str) -> None:
    """Write one sample: its calls, what its grader said, its result."""
    problem_id = tally.known.spelled(row.problem_id)
    sample = tally.number(problem_id, row)
    tally.compare(problem_id, row)
    key = _key(sha256, log.part, problem_id, sample)
    for number, call in enumerate(row.trajectory, 1):
        pen.write("call", **key, **fitting("call", _call(pen, call, number), row.where))
    if row.official:
        pen.write("official", **key, said_sha=pen.text(canonical(row.official)))
    at = {} if row.at is None else {"at": row.at}
    result = dict(
        verdict=str(row.verdict),
        detail=short(row.detail),
        fresh=row.fresh and str(row.fresh),
        base=row.base and str(row.base),
        plus=row.plus and str(row.plus),
        reruns=None if row.reruns is None else list(row.reruns),
        solution_sha=row.solution_sha if row.solution is None else pen.text(row.solution),
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        calls=row.calls,
        cached_calls=row.cached_calls,
        rounds=row.rounds,
        cost_usd=row.cost_usd,
        fresh_cost_usd=row.fresh_cost_usd,
        price_table=row.price_table,
        wall_s=row.wall_s,
        grade_s=row.grade_s,
        feedback_passed=row.feedback_passed,
        feedback_total=row.feedback_total,
        error_kind=row.error_kind,
    )
    pen.write("result", **key, **at, **fitting("result", result, row.where))


def fitting(kind: str, fields: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields of a record. Raises UsageError for a number that its column does not hold."""
    for name, value in fields.items():
        limit = LIMITS.get(FACTS[kind].get(name, ""))
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and limit is not None and not abs(value) < limit:
            raise UsageError(f"{where}: {name}: expected less than {limit:g}, found {value!r:.60}")
    return fields


def _call(pen: Pen, call: Call, number: int) -> dict[str, Any]:
    """A `call` record, but for its key."""
    request = None
    if call.messages is not None:
        sampling = {"max_tokens": call.max_tokens, "temperature": call.temperature}
        request = canonical({"messages": list(call.messages), "sampling": sampling})
    return {
        "call_no": number,
        "attempt": 1,
        "round": None,
        "occurrence": 0,
        "role": call.role,
        "model": call.model,
        "request_sha": pen.text(request),
        "response_sha": pen.text(call.reply),
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "cached_tokens": call.cached_tokens,
        "reasoning_tokens": call.reasoning_tokens,
        "temperature": call.temperature,
        "seed": call.seed,
        "max_tokens": call.max_tokens,
        "cached": call.cached,
        "cost_usd": call.cost_usd,
        "fresh_cost_usd": call.fresh_cost_usd,
        "latency_s": call.latency_s,
        "finish": call.finish,
        "error": call.error,
        **call.more,
    }


def _report(tally: _Tally, log: Log, path: Path, benchmark_digest: str | None, wish: Wish) -> None:
    """Say what was found, and what of it could not be taken for what it seems."""
    known = tally.known

    def line(text: str) -> None:
        wish.say(f"{path.name}{f' ({log.part})' if log.part else ''}: {text}")

    samples, problems = tally.samples.total(), len(tally.samples)
    counted = f"{things(samples, 'sample')} of {things(problems, 'problem')}"
    if known.loaded is None:
        line(f"{counted}; {known.absent}, so its problem ids were not checked")
        return
    of_all = len(known.loaded.items) + len(known.loaded.left_out)
    line(f"{counted}; {known.name} has {of_all:,}")
    for found, words in (
        (tally.unknown, "not in"),
        (tally.other_text, "with another text than in"),
    ):
        if found:
            some = ", ".join(list(found)[:NAMED]) + (", ..." if len(found) > NAMED else "")
            line(f"{things(len(found), 'problem')} {words} {known.name}: {some}")
    if benchmark_digest is None and not tally.unknown and not tally.other_text:
        line(f"graded on other rows than those of {known.name} here (hash {log.data_hash})")
