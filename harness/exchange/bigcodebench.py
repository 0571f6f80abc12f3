"""BigCodeBench's results, `*_eval_results.json`, with `*_pass_at_k.json` beside them. Both ways.

bigcodebench 0.2.5 `evaluate.py`: {"date", "eval": {task: [{"solution", "status", "details"}]}};
`details` has a text by failed test. The file does not hash its problems. Its name says the model
and the split: `MODEL--REVISION--bigcodebench[-hard]-SPLIT--BACKEND-TEMPERATURE-N-...`. A solution
there begins with the stub that the evaluator puts before it ("calibrated"), and keeps it here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from harness.errors import UsageError
from harness.exchange.evalplus import DATE, date_of, refuse_simulated, status, word
from harness.exchange.files import new_path
from harness.exchange.foreign import Fields, Log, Row, parsed, read_bytes, shown
from harness.exchange.ours import Run, samples_of
from harness.exchange.wishes import Export, Wish
from harness.metrics import pass_at_k
from harness.page import things
from harness.types import Verdict

NAME = re.compile(
    r"(?P<model>.+?)--bigcodebench(?P<hard>-hard)?-(?P<split>complete|instruct)--"
    r"(?P<backend>.+?)-(?P<temperature>\d+(?:\.\d+)?)-(?P<n>\d+)\b"
)
RESULTS, RATES = "eval_results.json", "pass_at_k.json"
KS = (1, 5, 10)


def read(path: Path, wish: Wish) -> Iterator[Log]:
    """The one run of a results file. Raises UsageError."""
    found = Fields(parsed(read_bytes(path), str(path)), str(path))
    tasks = found.inside("eval")
    if not tasks.found:
        raise found.wrong("eval", "an object of graded samples by task")
    beside = path.with_name(path.name.replace(RESULTS, RATES))
    rates = None
    if beside != path and beside.is_file():
        rates = Fields(parsed(read_bytes(beside), str(beside)), str(beside))
    named = NAME.match(path.name)
    model = rates.text("model") if rates else named["model"] if named else None
    split = rates.text("split") if rates else named["split"] if named else None
    hard = rates.text("subset") == "hard" if rates else bool(named and named["hard"])

    def rows() -> Iterator[Row]:
        for task, samples in tasks.found.items():
            if not isinstance(samples, list) or not samples:
                raise UsageError(
                    f"{path}: {task}: expected a list of samples, found {shown(samples)}"
                )
            for number, one in enumerate(samples):
                yield _row(task, Fields(one, f"{path}: {task} sample {number}"))

    yield Log(
        tool="bigcodebench",
        rows=rows,
        benchmark=split and f"bigcodebench-{'hard-' if hard else ''}{split.lower()}",
        worker=model,
        started_at=date_of(found),
        sampling={"temperature": float(named["temperature"])} if named else {},
        companions=(beside,) if rates else (),
        said={
            "date": found.text("date"),
            "calibrated": rates.truth("calibrated") if rates else None,
            "gt_pass_rate": rates.number("gt_pass_rate") if rates else None,
            "failed_tasks": rates.several("failed_tasks") if rates else None,
        },
    )


def _row(task: str, sample: Fields) -> Row:
    verdict = status(sample, "status")
    if verdict is None:
        raise sample.wrong("status", "pass, fail or timeout")
    details = sample.inside("details").found
    last = {test: (str(text).strip().splitlines() or [""])[-1] for test, text in details.items()}
    return Row(
        problem_id=task,
        verdict=verdict,
        where=sample.where,
        detail="; ".join(f"{test}: {line}" for test, line in last.items()),
        solution=sample.text("solution"),
        official={"details": dict(details)} if details else None,
    )


def write(export: Export, target: Path) -> list[Path]:
    """Each run's samples, results and pass@k into a folder, under BigCodeBench's long names.

    Raises UsageError: a run of another benchmark, or a simulated one, which the format cannot say.
    """
    made: list[Path] = []
    for run in export.runs:
        if not run.benchmark.startswith("bigcodebench-"):
            raise UsageError(f"{run.run_id}: on {run.benchmark}, not on BigCodeBench")
        refuse_simulated(run, "BigCodeBench's files")
        stem = _stem(run)
        samples, results, rates = (
            target / f"{stem}{ending}" for ending in (".jsonl", f"_{RESULTS}", f"_{RATES}")
        )
        with new_path(samples, made) as a, new_path(results, made) as b, new_path(rates, made) as c:
            with a.open("w") as programs, b.open("w") as graded:
                counts = _write(export, run, programs, graded)
            c.write_text(json.dumps(_rates(run, stem, counts), indent=2))
    return made


def _stem(run: Run) -> str:
    """The name of a samples file, without its ending."""
    suite = _part(run.benchmark.removesuffix("-complete").removesuffix("-instruct"))
    split = _part(run.benchmark.rpartition("-")[2])
    worker = _part((run.columns["worker"] or "unknown").replace("/", "--"))
    method = _part(run.named)
    sampling = ((run.head.get("roles") or {}).get("worker") or {}).get("sampling") or {}
    temperature = sampling.get("temperature")
    heat = "unknown" if temperature is None else f"{temperature:g}"
    draws = run.columns["n_samples"] or 0
    ending = run.run_id.rpartition("-")[2][:12]
    return (
        f"{worker}--{method}--{suite}-{split}--harness-{heat}-{draws}-{ending}-sanitized_calibrated"
    )


def _part(text: str) -> str:
    """A part of a file's name."""
    return re.sub(r"[^\w.+=-]+", "-", text)[:60]


def _write(
    export: Export, run: Run, samples: IO[str], results: IO[str]
) -> dict[str, tuple[int, int]]:
    """Write both files of a run; (samples, passed) by task."""
    counts: dict[str, tuple[int, int]] = {}
    task, left_out = None, 0
    results.write(json.dumps({"date": _date(run)})[:-1] + ', "eval": {')
    for sample in samples_of(export.connection, export.results_dir, run, solutions=True):
        if sample.verdict == Verdict.INVALID:
            left_out += 1
            continue
        row = {"task_id": sample.problem_id, "solution": sample.solution or ""}
        samples.write(json.dumps(row) + "\n")
        n, passed = counts.get(sample.problem_id, (0, 0))
        counts[sample.problem_id] = n + 1, passed + (sample.verdict == Verdict.PASSED)
        opening = "" if task is None else "], "
        same = sample.problem_id == task
        results.write(", " if same else f"{opening}{json.dumps(sample.problem_id)}: [")
        details: dict[str, Any] = (sample.official or {}).get("details", {})
        if not details and sample.verdict != Verdict.PASSED and sample.result["detail"]:
            details = {"ALL": sample.result["detail"]}
        graded = {**row, "status": word(sample.verdict), "details": details}
        results.write(json.dumps(graded))
        task = sample.problem_id
    results.write(("]" if task is not None else "") + "}}")
    if left_out:
        export.say(f"{run.run_id}: {things(left_out, 'sample')} without a verdict left out")
    return counts


def _date(run: Run) -> str | None:
    started = run.columns["started_at"]
    return None if started is None else datetime.fromtimestamp(started, UTC).strftime(DATE)


def _rates(run: Run, stem: str, counts: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """What BigCodeBench says of all tasks. What we do not know of its references is null."""
    least = min((n for n, _ in counts.values()), default=0)
    rates = {
        f"pass@{k}": sum(pass_at_k(n, c, k) for n, c in counts.values()) / len(counts)
        for k in KS
        if counts and least >= k
    }
    said = run.head.get("origin") or {}
    return rates | {
        "model": stem.split("--bigcodebench-", maxsplit=1)[0],
        "split": run.benchmark.rpartition("-")[2],
        "subset": "hard" if "-hard-" in run.benchmark else "full",
        "calibrated": said.get("calibrated", True),
        "gt_pass_rate": said.get("gt_pass_rate"),
        "failed_tasks": said.get("failed_tasks"),
    }
