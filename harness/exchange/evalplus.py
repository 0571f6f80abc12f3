"""EvalPlus's results, `*_eval_results.json` or `*.eval_results.json`, and its samples. Both ways.

evalplus 0.3.1 `evaluate.py`: {"date", "hash", "eval": {task: [{"solution", "base_status",
"plus_status", "base_fail_tests", "plus_fail_tests"}, ...]}}; before 0.2, {task: {"base": [[status,
details], ...], "plus": ...}} without solutions, which then come from the samples beside it.

"pass", "fail" and "timeout" are `passed`, `wrong` and `timeout`: EvalPlus does not tell a wrong
answer from an exception. A sample passes when base and plus do; where plus was not run the rows are
of the base tests alone, so of `humaneval` or `mbpp`, whose other data they do not have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from harness.errors import UsageError
from harness.exchange.files import new_path
from harness.exchange.foreign import Fields, Log, Row, folded, parsed, read_bytes, shown
from harness.exchange.ours import Run, Sample, samples_of
from harness.exchange.wishes import Export, Wish
from harness.page import things
from harness.types import Verdict

STATUS = {
    "pass": Verdict.PASSED,
    "fail": Verdict.WRONG,
    "timeout": Verdict.TIMEOUT,
    # of versions before 0.2
    "success": Verdict.PASSED,
    "failed": Verdict.WRONG,
    "timed out": Verdict.TIMEOUT,
}
# MD5 of the file that EvalPlus graded on, by the digest of our rows of the same content
HASHES = {
    # HumanEvalPlus v0.1.10
    "76898f8f797cbfe2a06cf896983c3a35cd5d8daf06b520b808c95d52095507dc": (
        "fe585eb4df8c88d844eeb463ea4d0302"
    ),
    # MbppPlus v0.2.0
    "1f25313a0b50724476191791a6d78f76ac5a495b9b52bd0171aa73c86eaaf093": (
        "ee43ecabebf20deef4bb776a405ac5b1"
    ),
}
DATE = "%Y-%m-%d %H:%M"
SUITES = {"HumanEval": "humaneval", "Mbpp": "mbpp"}


def read(path: Path, wish: Wish) -> Iterator[Log]:
    """The one run of a results file. Raises UsageError."""
    found = Fields(parsed(read_bytes(path), str(path)), str(path))
    tasks = found.inside("eval")
    if not tasks.found:
        raise found.wrong("eval", "an object of graded samples by task")
    plain = {task: _samples(tasks, task, found.where) for task in tasks.found}
    plus = [s.found.get("plus_status") is not None for each in plain.values() for s in each]
    if any(plus) and not all(plus):
        raise UsageError(f"{path}: plus_status: expected in all samples or in none, found in some")
    beside = (
        _beside(path, wish)
        if not any("solution" in s.found for s in plain[next(iter(plain))])
        else None
    )
    solutions = _solutions(beside, plain, wish) if beside else {}
    base = SUITES.get(next(iter(plain)).partition("/")[0])
    benchmark = None if base is None else f"{base}+" if plus and all(plus) else base
    if wish.benchmark is not None and plus and all(plus) and not wish.benchmark.endswith("+"):
        raise UsageError(
            f"{path}: has verdicts of the plus tests, so of {benchmark}, not {wish.benchmark}"
        )

    def rows() -> Iterator[Row]:
        for task, samples in plain.items():
            for number, sample in enumerate(samples):
                yield _row(task, sample, solutions.get((task, number)))

    yield Log(
        tool="evalplus",
        rows=rows,
        benchmark=benchmark,
        data_hash=found.text("hash"),
        hashes=HASHES,
        started_at=date_of(found),
        companions=(beside,) if beside else (),
        said={"date": found.text("date"), "hash": found.text("hash")},
    )


def date_of(found: Fields) -> float | None:
    """The date of a results file, which has no zone, as if it were UTC: unix seconds."""
    date = found.text("date")
    if date is None:
        return None
    try:
        return datetime.strptime(date, DATE).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise found.wrong("date", "a date like 2025-01-31 23:59") from None


def _samples(tasks: Fields, task: str, where: str) -> list[Fields]:
    """The samples of a task, those of the old layout in the words of the new one."""
    place, value = f"{where}: {task}", tasks.found[task]
    if isinstance(value, dict) and "base" in value:
        old = Fields(value, place)
        base, plus = old.several("base"), old.several("plus")
        if plus and len(plus) != len(base):
            raise UsageError(f"{place}: plus: expected {len(base)} results, found {len(plus)}")
        words = [_first(result, place) for result in (*base, *plus)]
        value = [
            {"base_status": words[n], "plus_status": words[len(base) + n] if plus else None}
            for n in range(len(base))
        ]
    if not isinstance(value, list) or not value:
        raise UsageError(f"{place}: expected a list of samples, found {shown(value)}")
    return [Fields(sample, f"{place} sample {n}") for n, sample in enumerate(value)]


def _first(result: Any, where: str) -> Any:
    if not isinstance(result, list) or not result:
        raise UsageError(f"{where}: expected [status, details], found {shown(result)}")
    return result[0]


def status(sample: Fields, name: str) -> Verdict | None:
    """A status of EvalPlus or BigCodeBench as a verdict. Raises UsageError for another word."""
    word = sample.found.get(name)
    if word is None:
        return None
    if not isinstance(word, str) or word not in STATUS:
        raise sample.wrong(name, "pass, fail or timeout")
    return STATUS[word]


def _row(task: str, sample: Fields, solution: str | None) -> Row:
    base, plus = status(sample, "base_status"), status(sample, "plus_status")
    if base is None:
        raise sample.wrong("base_status", "pass, fail or timeout")
    fails = {n: sample.several(n) for n in ("base_fail_tests", "plus_fail_tests")}
    words = [
        f"{part}: {'timed out' if verdict is Verdict.TIMEOUT else 'failed'}"
        + (
            f" on {json.dumps(fails[f'{part}_fail_tests'])[:200]}"
            if fails[f"{part}_fail_tests"]
            else ""
        )
        for part, verdict in (("base", base), ("plus", plus))
        if verdict is not None and not verdict.solved
    ]
    verdict = folded((base, plus))
    assert verdict is not None
    return Row(
        problem_id=task,
        verdict=verdict,
        where=sample.where,
        detail="; ".join(words),
        base=base,
        plus=plus,
        solution=sample.text("solution") if solution is None else solution,
        official=fails if any(fails.values()) else None,
    )


def _beside(path: Path, wish: Wish) -> Path | None:
    """The samples that a results file was made of, where they are still beside it."""
    for ending in ("_eval_results.json", ".eval_results.json"):
        stem = path.name.removesuffix(ending)
        if stem != path.name and (found := path.with_name(f"{stem}.jsonl")).is_file():
            return found
    wish.say(
        f"{path.name}: holds no solutions, and no samples are beside it: their text is unknown"
    )
    return None


def _solutions(
    path: Path, tasks: dict[str, list[Fields]], wish: Wish
) -> dict[tuple[str, int], str]:
    """The programs of a samples file, by task and number. Raises UsageError."""
    from harness.samples import read as read_samples

    prefix = next(iter(tasks)).partition("/")[0]
    found = list(read_samples(path, tasks, prefix))
    whole = {(s.problem_id, s.sample): s.text for s in found if s.kind == "solution"}
    if len(whole) < len(found):
        wish.say(f"{path.name}: holds completions, not programs: left out, their prompt is unknown")
    counts = {task: len(samples) for task, samples in tasks.items()}
    stale = [task for task, number in whole if number >= counts.get(task, 0)]
    if stale:
        raise UsageError(f"{path}: has more samples of {stale[0]} than were graded; it is newer")
    return whole


def write(export: Export, target: Path) -> list[Path]:
    """Each run's samples, and its results where base and plus are known apart, into a folder.

    Raises UsageError: a run of another benchmark, or a simulated one, which the format cannot say.
    """
    made: list[Path] = []
    for run in export.runs:
        family = run.benchmark.removesuffix("+").partition("-")[0]
        if family not in SUITES.values():
            raise UsageError(f"{run.run_id}: on {run.benchmark}; EvalPlus has humaneval and mbpp")
        refuse_simulated(run, "EvalPlus's files")
        programs = target / f"{run.run_id}.jsonl"
        graded = target / f"{run.run_id}_eval_results.json"
        with new_path(programs, made) as first, new_path(graded, made) as second:
            with first.open("w") as samples, second.open("w") as results:
                whole = _write(export, run, samples, results)
            if not whole:
                second.unlink()
                export.say(
                    f"{run.run_id}: has no verdicts of EvalPlus's base and plus tests, so only "
                    "its samples are written; `evalplus.evaluate` grades them"
                )
    return made


def refuse_simulated(run: Run, what: str) -> None:
    """Raises UsageError for a run whose replies are no model's, where a format cannot say so."""
    if run.simulated:
        raise UsageError(
            f"{run.run_id}: simulated, and {what} cannot say so; use parquet or inspect"
        )


def _write(export: Export, run: Run, samples: IO[str], results: IO[str]) -> bool:
    """Write both files of a run; whether every sample had a base verdict."""
    whole = export.whole(run)
    started = run.columns["started_at"]
    date = None if started is None else datetime.fromtimestamp(started, UTC).strftime(DATE)
    said = run.head.get("origin") or {}
    data = said.get("hash") or HASHES.get(str(run.columns["benchmark_digest"]))
    results.write(json.dumps({"date": date, "hash": data})[:-1] + ', "eval": {')
    task, graded, left_out = None, True, 0
    for sample in samples_of(export.connection, export.results_dir, run, solutions=True):
        if sample.verdict == Verdict.INVALID:
            left_out += 1
            continue
        code = whole(sample)
        samples.write(json.dumps({"task_id": sample.problem_id, "solution": code}) + "\n")
        graded = graded and sample.result["base"] is not None
        if graded:
            opening = "]" * (task is not None) + ", " * (task is not None)
            same = sample.problem_id == task
            results.write(", " if same else f"{opening}{json.dumps(sample.problem_id)}: [")
            results.write(json.dumps(_entry(sample, code)))
            task = sample.problem_id
    results.write("]" * (task is not None) + "}}")
    if left_out:
        export.say(f"{run.run_id}: {things(left_out, 'sample')} without a verdict left out")
    return graded


def _entry(sample: Sample, code: str) -> dict[str, Any]:
    official = sample.official or {}
    return {
        "task_id": sample.problem_id,
        "solution": code,
        "base_status": word(sample.result["base"]),
        "plus_status": word(sample.result["plus"]),
        "base_fail_tests": official.get("base_fail_tests", []),
        "plus_fail_tests": official.get("plus_fail_tests", []),
    }


def word(verdict: str | None) -> str | None:
    """A verdict as EvalPlus and BigCodeBench say it; None where there is none."""
    if verdict is None:
        return None
    return {Verdict.PASSED: "pass", Verdict.TIMEOUT: "timeout"}.get(Verdict(verdict), "fail")
