"""`python -m harness score`: verdicts on anybody's samples, without a model.

A sample is graded as the benchmark's official evaluator would run it (`samples.program`), in the
sandbox, against all official hidden tests. What was graded before is taken from the verdict cache,
so a run that was killed goes on where it was.

`--keep` adds what was found to the journal of a run of ours, one `verdict` for each sample as soon
as it is graded; what was found before stays there. The last one is what the sample counts as.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import benchmarks
from harness.benchmarks import Benchmark, DataSources, Item
from harness.check import ungradable
from harness.deviations import explain
from harness.errors import BenchmarkError, SandboxError, StoreError, UsageError
from harness.grade import VERSION as GRADER_VERSION
from harness.grade import Grader, Report
from harness.grading import at_once, interpreters, needs_environment, open_grader
from harness.journal import digest
from harness.page import things
from harness.samples import Sample, Survey, program, read, survey
from harness.sandbox import own_interpreter
from harness.scores import Row, Scores, lines
from harness.types import Cases, Problem, Verdict

if TYPE_CHECKING:
    from harness.official import Finding
    from harness.sandbox import Interpreter, Sandbox

ATTEMPTS = 2  # for a sample that our side could not grade
SLOW_S = 0.5  # CPU seconds of a reference on all inputs


@dataclass
class Progress:
    """How far a score run is."""

    total: int
    done: int = 0
    passed: int = 0
    began: float = field(default_factory=time.monotonic)

    def line(self) -> str:
        seconds = time.monotonic() - self.began
        rate = self.done / seconds if seconds > 0 else 0.0
        return f"{self.done}/{self.total} graded, {self.passed} passed, {rate:.1f} a second"


Listener = Callable[[Progress], None]
Keep = Callable[[Sample, Report, bool], None]  # a sample, what was found, whether in two parts


def _keep_nothing(sample: Sample, report: Report, both: bool) -> None:
    """What `score` does with a verdict beyond returning it, unless told otherwise."""


def prefix(benchmark: Benchmark) -> str:
    """What its problem ids begin with, before the slash; empty when they have none."""
    first = next(iter((*benchmark.items, *benchmark.left_out)), benchmark.family)
    return first.rpartition("/")[0]


def stubs(benchmark: Benchmark) -> Callable[[Problem], str]:
    """The code that a `completion` of a problem continues.

    HumanEval: the prompt. MBPP: nothing, its prompt is text. BigCodeBench: the prompt of
    `complete`, under `instruct` too, as its evaluator has it. Raises BenchmarkError.
    """
    if benchmark.family == "bigcodebench":
        name = benchmark.name.replace("-instruct", "-complete")
        complete = benchmark if name == benchmark.name else benchmarks.load(name, benchmark.sources)
        return lambda problem: complete.items[problem.problem_id].problem.prompt
    if benchmark.family == "humaneval":
        return lambda problem: problem.prelude
    return lambda problem: ""


async def score(
    benchmark: Benchmark,
    samples: Iterable[Sample],
    grader: Grader,
    *,
    stub: Callable[[Problem], str] = lambda problem: problem.prelude,
    calibrated: bool = True,
    total: int = 0,
    listen: Listener = lambda progress: None,
    left_out: Mapping[str, str] | None = None,
    passed_over: Mapping[str, int] | None = None,
    keep: Keep = _keep_nothing,
) -> Scores:
    """Grade samples, some at once; a sample that our side could not grade is `invalid`.

    `left_out` names problems that are graded, but in no mean (`check.ungradable`). `keep` is told
    each verdict as it is found, but for invalid ones.
    """
    began = time.monotonic()
    progress = Progress(total)
    rows: list[Row] = []
    queue = iter(samples)

    async def work() -> None:
        for sample in queue:
            row = await _graded(
                grader, benchmark.items[sample.problem_id], sample, stub, calibrated, keep
            )
            rows.append(row)
            progress.done += 1
            progress.passed += row.verdict.solved
            listen(progress)

    await at_once(work)
    order = {problem_id: position for position, problem_id in enumerate(benchmark.items)}
    rows.sort(key=lambda row: (order[row.problem_id], row.sample))
    return Scores(
        benchmark=benchmark,
        sandbox=grader.sandbox.tier,
        rows=tuple(rows),
        left_out=left_out or {},
        passed_over=passed_over or {},
        wall_s=time.monotonic() - began,
    )


async def _graded(
    grader: Grader,
    item: Item,
    sample: Sample,
    stub: Callable[[Problem], str],
    calibrated: bool,
    keep: Keep,
) -> Row:
    problem, oracle, code = program(
        sample, item.problem, item.oracle, stub=stub(item.problem), calibrated=calibrated
    )
    error = "not graded"
    for _ in range(ATTEMPTS):
        try:
            report = await grader.grade(problem, oracle, code)
        except SandboxError as failure:
            error = str(failure)
            continue
        if report.verdict is not Verdict.INVALID:
            both = isinstance(item.oracle.tests, Cases)
            keep(sample, report, both)
            return _row(sample, report, both)
        error = report.detail
    return Row(sample.problem_id, sample.sample, Verdict.INVALID, error)


def _row(sample: Sample, report: Report, both: bool) -> Row:
    """A program that did not get as far as its tests failed both parts in the same way."""
    base = report.parts.get("base", report.verdict) if both else None
    plus = report.parts.get("plus") if "base" in report.parts else base
    return Row(sample.problem_id, sample.sample, report.verdict, report.detail, base, plus)


async def compare(
    scores: Scores,
    samples: Iterable[Sample],
    sandbox: Sandbox,
    package: str,
    interpreter: Interpreter,
    *,
    stub: Callable[[Problem], str],
    calibrated: bool = True,
    jobs: int | None = None,
    listen: Listener = lambda progress: None,
) -> Scores:
    """The same samples by the official checker: its verdicts, with ours beside them.

    Raises SandboxError when the package does not start in the sandbox.
    """
    from harness import official

    began = time.monotonic()
    by_problem: dict[str, list[Sample]] = {}
    for sample in samples:
        by_problem.setdefault(sample.problem_id, []).append(sample)
    progress = Progress(len(scores.rows))
    ours = {(row.problem_id, row.sample): row for row in scores.rows}
    found: dict[tuple[str, int], Row] = {}
    queue = iter(by_problem.items())

    async def work() -> None:
        for problem_id, drawn in queue:
            item = scores.benchmark.items[problem_id]
            made = [
                program(
                    s, item.problem, item.oracle, stub=stub(item.problem), calibrated=calibrated
                )
                for s in drawn
            ]
            rows = [ours[problem_id, s.sample] for s in drawn]
            programs = [
                (problem, code, row.verdict.solved)
                for (problem, _, code), row in zip(made, rows, strict=True)
            ]
            findings = official.check(sandbox, item, programs, interpreter)
            async with contextlib.aclosing(findings):
                position = 0
                async for finding in findings:
                    row = _beside(rows[position], finding, package, programs[position][1])
                    found[row.problem_id, row.sample] = row
                    position += 1
                    progress.done += 1
                    progress.passed += finding.verdict.solved
                    listen(progress)

    await at_once(work, jobs or os.cpu_count())
    rows = tuple(found[row.problem_id, row.sample] for row in scores.rows)
    wall_s = scores.wall_s + time.monotonic() - began
    version = official.VERSIONS[package]
    return replace(scores, rows=rows, official=f"{package} {version}", wall_s=wall_s)


def _beside(ours: Row, finding: Finding, package: str, code: str) -> Row:
    """The official finding, with ours and what may account for a difference."""
    reason = explain(package, ours.problem_id, code, ours.verdict, finding.verdict)
    if reason is None and ours.base is not None:
        reason = explain(package, ours.problem_id, code, ours.base, finding.base)
    return Row(
        ours.problem_id,
        ours.sample,
        finding.verdict,
        finding.detail,
        base=finding.base if ours.base is not None else None,
        plus=finding.plus,
        ours=ours.verdict,
        ours_base=ours.base,
        deviation=reason,
    )


def of_run(results: Path, run_id: str) -> tuple[dict[str, Any], list[Sample]]:
    """(run.json, its recorded solutions) of a run of ours. Raises UsageError, StoreError."""
    head, recorded, _ = _recorded(_folder(results, run_id))
    return head, [sample for sample, _ in recorded]


def _folder(results: Path, run_id: str) -> Path:
    run_dir = results / "runs" / run_id
    if not run_dir.is_dir():
        raise UsageError(f"{run_id}: no run of that name; `python -m harness list runs` names all")
    return run_dir


def _recorded(run_dir: Path) -> tuple[dict[str, Any], list[tuple[Sample, dict[str, Any]]], int]:
    """(run.json, each solution with the `result` that names it, how many samples have none).

    What is invalid is no solution, whatever program stands beside it: the fault was not its own.
    """
    from harness.journal import read_run
    from harness.store import read_run_json

    head = read_run_json(run_dir)
    texts: dict[str, str] = {}
    last: dict[tuple[str, int], dict[str, Any]] = {}
    for record in read_run(run_dir):
        if record["kind"] == "artifact":
            texts[record["sha256"]] = record["text"]
        elif record["kind"] == "result":
            last[record["problem_id"], record["sample"]] = record
    found = [
        (Sample(problem_id, number, texts.get(str(sha), ""), "answer", run_dir.name), record)
        for (problem_id, number), record in last.items()
        for sha in [record.get("solution_sha")]
        if record.get("verdict") not in (None, Verdict.INVALID)
        if sha is None or sha in texts
    ]
    if not found:
        raise UsageError(f"{run_dir.name}: no solution is recorded in it")
    return head, found, len(last) - len(found)


class Keeper:
    """Adds verdicts to the journal of a run, which nobody else may write meanwhile.

    Raises StoreError: a process is writing the run, or the disk refuses. Close it, or use it as a
    context manager.
    """

    def __init__(self, run_dir: Path, *, environment: str) -> None:
        from harness.journal import Journal
        from harness.store import writer_is_gone

        if not writer_is_gone(run_dir):
            raise StoreError(
                f"{run_dir.name}: a process is writing this run; stop it first, or wait for its end"
            )
        self.kept = self.changed = 0
        self._of: dict[Sample, dict[str, Any]] = {}
        self._last: dict[str, dict[str, Any]] = {}
        self._left_out: frozenset[str] = frozenset()
        self._told = {"grader_version": GRADER_VERSION, "environment": environment}
        self._journal = Journal(run_dir)

    def expect(self, recorded: Iterable[tuple[Sample, dict[str, Any]]]) -> None:
        """Say of which `result` each sample is; read under the run's lock."""
        from harness.journal import last_results, read_run

        self._of = {sample: result for sample, result in recorded if result.get("result_key")}
        self._last = last_results(read_run(self._journal.run_dir))

    def leave_out(self, problems: Iterable[str]) -> None:
        """Keep nothing on problems whose reference fails here: the fault is not the program's."""
        self._left_out = frozenset(problems)

    def graded_in(self, sandbox: str) -> None:
        """Say in which sandbox it is graded."""
        self._told["sandbox"] = sandbox

    def __call__(self, sample: Sample, report: Report, both: bool) -> None:
        result = self._of.get(sample)  # None: its line lacks the key, so it is no row either
        if result is None or sample.problem_id in self._left_out:
            return
        parts = {**({"base": report.verdict, "plus": report.verdict} if both else {}),
                 **report.parts}  # fmt: skip
        fields = {name: result[name] for name in ("result_key", "problem_id", "sample")}
        self._journal.write(
            "verdict",
            **fields,
            verdict=str(report.verdict),
            detail=report.detail,
            fresh=report.fresh and str(report.fresh),
            base=parts.get("base") and str(parts["base"]),
            plus=parts.get("plus") and str(parts["plus"]),
            solution_sha=result.get("solution_sha"),
            **self._told,
        )
        self.kept += 1
        self.changed += self._last[result["result_key"]].get("verdict") != str(report.verdict)

    def close(self) -> None:
        """Let go of the run."""
        self._journal.close()

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def of_protocol(benchmark: Benchmark, head: Mapping[str, Any]) -> Benchmark:
    """The benchmark as a recorded run had it. Raises BenchmarkError when its rows are others."""
    if head.get("benchmark_digest") != benchmark.digest:
        raise BenchmarkError(
            f"{head['run_id']} was made with rows {str(head.get('benchmark_digest'))[:12]}, here "
            f"{benchmark.name} has {benchmark.digest[:12]}: give the same file"
        )
    return benchmarks.apply(benchmark, head.get("protocol", "none"))


@dataclass(frozen=True)
class Options:
    """How `score_file` and `score_run` grade."""

    cache_dir: Path  # of kept verdicts, earlier checks and environments
    official: bool = False  # ask the official package, too, and report its verdicts
    calibrated: bool = True  # BigCodeBench: put the stub in front of a program that lacks it
    checked: bool = True  # BigCodeBench: run the references first; those that fail are in no mean
    regrade: bool = False  # grade again what was graded before
    jobs: int | None = None
    unsafe_local: bool = False
    keep: bool = False  # of a run of ours: add the verdicts to its journal
    listen: Listener = lambda progress: None
    say: Callable[[str], None] = lambda line: None


async def score_file(path: Path, benchmark: Benchmark, options: Options) -> Scores:
    """Grade a samples file or folder: what the command does. Raises HarnessError of many kinds."""
    start = prefix(benchmark)
    found = survey(path, benchmark.items, start)

    def samples() -> Iterator[Sample]:
        return read(path, benchmark.items, start)

    return await _scored(samples, benchmark, found, options, stubs(benchmark), hidden=path)


async def score_run(results: Path, run_id: str, sources: DataSources, options: Options) -> Scores:
    """Grade the recorded solutions of a run of ours again; with `keep` its rows become what was
    found now, in the journal and on the board.

    Raises HarnessError of many kinds; StoreError with `keep` while a process is writing the run.
    """
    from harness.store import out_option, read_run_json

    run_dir = _folder(results, run_id)
    head = read_run_json(run_dir)
    benchmark = of_protocol(benchmarks.load(head["benchmark"], sources), head)
    with contextlib.ExitStack() as stack:
        keeper = None
        if options.keep:
            environment = graded_where(benchmark, options.cache_dir)
            keeper = stack.enter_context(Keeper(run_dir, environment=environment))
        _, every, without = _recorded(run_dir)
        recorded = [one for one in every if one[0].problem_id in benchmark.items]
        if keeper is not None:
            keeper.expect(recorded)
            if without:
                again = f"python -m harness resume {shlex.quote(run_id)}{out_option(results)}"
                options.say(
                    f"{things(without, 'sample')} without a verdict or its program: not graded "
                    f"again; `{again}` makes them anew"
                )
        known = [sample for sample, _ in recorded]
        found = Survey(Counter(sample.problem_id for sample in known))
        scores = await _scored(
            lambda: known, benchmark, found, options, lambda _: "", hidden=results, keeper=keeper
        )
    if keeper is not None:
        _show_kept(results, run_dir, keeper, options)
    return scores


def graded_where(benchmark: Benchmark, cache_dir: Path) -> str:
    """A short digest of what a benchmark's programs are graded in, as a run of ours says it.

    Raises UsageError when the benchmark needs an environment that was not made.
    """
    (interpreter,) = interpreters(benchmark, cache_dir).values() or (own_interpreter(),)
    return digest(interpreter.digest)[:12]


def _show_kept(results: Path, run_dir: Path, keeper: Keeper, options: Options) -> None:
    """Bring the board up to date with what was kept. A failure is said; the journal has it."""
    from harness.store import Store

    others = f"{keeper.changed} of them other than before"
    options.say(f"{things(keeper.kept, 'verdict')} kept in {run_dir}, {others}")
    store = Store(results)
    try:
        store.ingest(run_dir)
        store.snapshot()
    except StoreError as error:
        options.say(f"the board was not brought up to date: {error}; the journal has everything")


async def _scored(
    samples: Callable[[], Iterable[Sample]],
    benchmark: Benchmark,
    found: Survey,
    options: Options,
    stub: Callable[[Problem], str],
    *,
    hidden: Path,
    keeper: Keeper | None = None,
) -> Scores:
    asked = _package(benchmark, options.cache_dir) if options.official else None
    async with open_grader(
        benchmark,
        cache_dir=options.cache_dir,
        jobs=options.jobs,
        regrade=options.regrade,
        unsafe_local=options.unsafe_local,
        hidden=(hidden,),
        say=options.say,
    ) as grader:
        left_out: dict[str, str] = {}
        if options.checked and needs_environment(benchmark):
            options.say(f"running {len(found.counts)} references first (not with --no-check)")
            left_out = await ungradable(
                benchmark, grader, found.counts, cache_dir=options.cache_dir
            )
        if keeper is not None:
            keeper.graded_in(grader.sandbox.tier)
            keeper.leave_out(left_out)
        scores = await score(
            benchmark,
            _slow_first(samples, benchmark, grader),
            grader,
            stub=stub,
            calibrated=options.calibrated,
            total=found.total,
            listen=options.listen,
            left_out=left_out,
            passed_over=found.left_out,
            keep=_keep_nothing if keeper is None else keeper,
        )
        if asked is None:
            return scores
        options.say(f"the same by {asked[0]}'s own checker")
        return await compare(
            scores,
            samples(),
            grader.sandbox,
            *asked,
            stub=stub,
            calibrated=options.calibrated,
            jobs=options.jobs,
            listen=options.listen,
        )


def _slow_first(
    samples: Callable[[], Iterable[Sample]], benchmark: Benchmark, grader: Grader
) -> Iterator[Sample]:
    """The samples, those first whose reference is known to take long: none is waited for alone."""
    seconds = {key: grader.reference_s(item.oracle) for key, item in benchmark.items.items()}
    slow = {key for key, known in seconds.items() if known is not None and known > SLOW_S}
    if slow:
        yield from (sample for sample in samples() if sample.problem_id in slow)
    yield from (sample for sample in samples() if sample.problem_id not in slow)


def _package(benchmark: Benchmark, cache_dir: Path) -> tuple[str, Interpreter]:
    """The official package and the Python that has it. Raises UsageError."""
    from harness import official

    name = official.package(benchmark)
    if name == "bigcodebench":
        return name, interpreters(benchmark, cache_dir)[name]
    return name, official.interpreter(name)


__all__ = [
    "Keeper", "Options", "Progress", "Row", "Scores", "compare", "graded_where", "lines",
    "of_protocol", "of_run", "prefix", "score", "score_file", "score_run", "stubs",
]  # fmt: skip
