"""`python -m harness check BENCHMARK`: is a score here to be believed?

Every reference solution must pass, every trivial program must fail. A problem whose reference does
not pass here cannot be graded here: it is left out by name, with the reason. What was found is kept
by environment, rows and grader, so that `eval` asks once.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import benchmarks
from harness.benchmarks import Benchmark, DataSources, Item
from harness.errors import SandboxError
from harness.grade import VERSION as GRADER_VERSION
from harness.grade import Grader
from harness.grading import at_once, open_grader, printable
from harness.journal import canonical, digest, write_atomically
from harness.sandbox import own_interpreter
from harness.types import Verdict

# What no test should let pass. `*a, **k` so that they can be called in any way.
TRIVIAL = {
    "pass": "pass",
    "return None": "return None",
    "echo": "return a[0] if a else next(iter(k.values()), None)",
    "0": "return 0",
    '""': 'return ""',
    "[]": "return []",
    "True": "return True",
}
BROKEN = "the reference fails"  # the one reason that is no fault of the environment
ATTEMPTS = 2  # for a program that our side could not grade
NAMED = 10  # problems that one line names
# (kind, pattern in the grader's detail, how to say it); first match counts
_CAUSES = (
    ("library", r"No module named '([\w.]+)'", "no library {0}"),
    ("data", r"Resource (?:.\[93m)?(\w+)(?:.\[0m)? not found", "no NLTK data {0}"),
    (
        "network",
        r"getaddrinfo|gaierror|Name or service not known|name resolution|NameResolution|"
        r"Network is unreachable|URLError|Max retries exceeded|ConnectionRefused|"
        r"\bConnectionError\b|ServerNotFound",
        "needs network",
    ),
    ("display", r"no display name|TclError|tkinter", "needs a display"),
)


@dataclass(frozen=True)
class Finding:
    """A problem whose reference did not pass."""

    kind: str  # library, data, network, display, flaky, invalid, reference
    reason: str  # for people

    @property
    def ours(self) -> bool:
        """Whether an environment like this should have been able to run it."""
        return self.kind in ("reference", "invalid")


@dataclass(frozen=True)
class Check:
    """What a check of one benchmark found. `as_dict` is what `check --json` prints."""

    benchmark: str
    digest: str  # of its rows
    environment: str  # hash of what the verdicts depend on here
    grader: str
    references: int  # how many were run
    ungradable: Mapping[str, Finding] = field(default_factory=dict)  # by problem
    weak: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # trivial program -> problems
    trivial: int = 0  # how many trivial programs were run
    cached: bool = False

    @property
    def failed(self) -> list[str]:
        """Problems whose reference fails though nothing that they need is missing."""
        return [name for name, finding in self.ungradable.items() if finding.ours]

    def reasons(self) -> dict[str, str]:
        """{problem id: why it cannot be graded here}."""
        return {name: finding.reason for name, finding in self.ungradable.items()}

    def as_dict(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "digest": self.digest,
            "environment": self.environment,
            "grader": self.grader,
            "references": {
                "run": self.references,
                "passed": self.references - len(self.ungradable),
            },
            "ungradable": {
                name: {"kind": f.kind, "reason": f.reason} for name, f in self.ungradable.items()
            },
            "failed": self.failed,
            "trivial": {"run": self.trivial, "passed": {k: list(v) for k, v in self.weak.items()}},
            "cached": self.cached,
        }


Say = Callable[[int, int], None]  # programs done, programs in all


def environment_hash(grader: Grader) -> str:
    """A hash of what verdicts depend on here, beside rows and grader."""
    facts = {
        "system": platform.system(),
        "sandbox": grader.sandbox.tier,
        "interpreter": own_interpreter().digest,
        "environments": {name: made.digest for name, made in grader.interpreters.items()},
    }
    return digest(canonical(facts))


async def references(
    benchmark: Benchmark,
    grader: Grader,
    ids: Iterable[str] | None = None,
    *,
    repeat: int = 1,
    say: Say = lambda done, total: None,
) -> dict[str, Finding]:
    """Run the references of `ids` (all by default) `repeat` times; those that do not always pass.

    With `repeat` above 1 the grader should have no verdict cache.
    """
    items = [benchmark.items[name] for name in ids or benchmark.items if name in benchmark.items]
    verdicts: dict[str, list[tuple[Verdict, str]]] = {}
    jobs = [(item, item.oracle.reference) for item in items for _ in range(repeat)]

    def keep(item: Item, program: str, verdict: Verdict, detail: str) -> None:
        verdicts.setdefault(item.problem.problem_id, []).append((verdict, detail))

    await _run(grader, jobs, keep, say)
    found = {}
    for item in items:
        finding = _finding(verdicts[item.problem.problem_id])
        if finding is not None:
            found[item.problem.problem_id] = finding
    return found


def _finding(seen: list[tuple[Verdict, str]]) -> Finding | None:
    failed = [(verdict, detail) for verdict, detail in seen if verdict is not Verdict.PASSED]
    if not failed:
        return None
    verdict, detail = failed[0]
    said = printable(detail, 200)
    if len(failed) < len(seen):
        return Finding("flaky", f"flaky: {len(failed)} of {len(seen)} runs failed: {said}")
    if verdict is Verdict.INVALID:
        return Finding("invalid", f"the sandbox could not run it: {said}")
    for kind, pattern, words in _CAUSES:
        match = re.search(pattern, detail)
        if match:
            return Finding(kind, words.format(*match.groups()))
    return Finding("reference", f"{BROKEN}: {verdict}: {said}")


async def trivial(
    benchmark: Benchmark,
    grader: Grader,
    ids: Iterable[str],
    *,
    say: Say = lambda done, total: None,
) -> dict[str, tuple[str, ...]]:
    """{trivial program: problems on which it passes}."""
    jobs = []
    names: dict[str, str] = {}
    for item in (benchmark.items[name] for name in ids):
        for name, body in TRIVIAL.items():
            code = f"def {item.problem.entry_point}(*a, **k):\n    {body}\n"
            names[code] = name
            jobs.append((item, code))
    found: dict[str, list[str]] = {name: [] for name in TRIVIAL}

    def keep(item: Item, program: str, verdict: Verdict, detail: str) -> None:
        if verdict is Verdict.PASSED:
            found[names[program]].append(item.problem.problem_id)

    await _run(grader, jobs, keep, say)
    order = {name: place for place, name in enumerate(benchmark.items)}
    return {name: tuple(sorted(ids, key=order.__getitem__)) for name, ids in found.items() if ids}


async def _run(
    grader: Grader,
    jobs: list[tuple[Item, str]],
    keep: Callable[[Item, str, Verdict, str], None],
    say: Say,
) -> None:
    """Grade all jobs, some at once; what our side could not grade is tried once more."""
    done = 0
    queue = iter(jobs)

    async def work() -> None:
        nonlocal done
        for item, program in queue:
            oracle = replace(item.oracle, fresh=lambda: None)  # what is fresh is not asked
            for _ in range(ATTEMPTS):
                try:
                    report = await grader.grade(item.problem, oracle, program)
                    verdict, detail = report.verdict, report.detail
                except SandboxError as error:
                    verdict, detail = Verdict.INVALID, str(error)
                if verdict is not Verdict.INVALID:
                    break
            keep(item, program, verdict, detail)
            done += 1
            say(done, len(jobs))

    await at_once(work)


async def check(
    benchmark: Benchmark,
    grader: Grader,
    *,
    cache_dir: Path,
    repeat: int = 1,
    with_trivial: bool = True,
    fresh: bool = False,
    say: Say = lambda done, total: None,
) -> Check:
    """Check a benchmark, or take what an earlier check of the same found here.

    `repeat` above 1 runs each reference so often, to find those that only pass at times (by a
    grader without a verdict cache); `fresh` does not look at earlier checks. Raises StoreError
    when the finding cannot be kept.
    """
    here = environment_hash(grader)
    path = _path(cache_dir, benchmark, here)
    kept = None if fresh else _kept(path, benchmark, here)
    if kept is not None and (kept.trivial or not with_trivial) and repeat == 1:
        return kept
    found = await references(benchmark, grader, repeat=repeat, say=say)
    gradable = [name for name in benchmark.items if name not in found]
    weak = await trivial(benchmark, grader, gradable, say=say) if with_trivial else {}
    result = Check(
        benchmark=benchmark.name,
        digest=benchmark.digest,
        environment=here,
        grader=GRADER_VERSION,
        references=len(benchmark.items),
        ungradable=found,
        weak=weak,
        trivial=len(gradable) * len(TRIVIAL) if with_trivial else 0,
    )
    if not any(finding.kind == "invalid" for finding in found.values()):  # our fault: ask again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, canonical(asdict(result)))
    return result


async def findings(
    benchmark: Benchmark,
    grader: Grader,
    ids: Iterable[str] | None = None,
    *,
    cache_dir: Path,
    say: Say = lambda done, total: None,
) -> dict[str, Finding]:
    """{problem id: why it cannot be graded here}, of `ids` or all.

    A check of the whole benchmark answers at once; else the references of `ids` are run, which the
    grader's verdict cache makes quick the second time. Raises SandboxError when our side could not
    grade a reference: that says nothing about its problem.
    """
    here = environment_hash(grader)
    kept = _kept(_path(cache_dir, benchmark, here), benchmark, here)
    wanted = [name for name in ids if name in benchmark.items] if ids is not None else None
    if kept is not None:
        return {n: f for n, f in kept.ungradable.items() if wanted is None or n in wanted}
    found = await references(benchmark, grader, wanted, say=say)
    unknown = {name: finding for name, finding in found.items() if finding.kind == "invalid"}
    if unknown:
        name, finding = next(iter(unknown.items()))
        raise SandboxError(
            f"{len(unknown)} references could not be graded, {name} for one: {finding.reason}; "
            "run the same command again, or see `python -m harness doctor`"
        )
    return found


async def ungradable(
    benchmark: Benchmark,
    grader: Grader,
    ids: Iterable[str] | None = None,
    *,
    cache_dir: Path,
    say: Say = lambda done, total: None,
) -> dict[str, str]:
    """`findings` as {problem id: reason}. Raises SandboxError as that does."""
    found = await findings(benchmark, grader, ids, cache_dir=cache_dir, say=say)
    return {name: finding.reason for name, finding in found.items()}


def failing(benchmark: Benchmark, found: Mapping[str, Finding]) -> str | None:
    """A line about references that fail though nothing is missing; None when there is none."""
    ours = [
        f"{name} ({finding.reason.removeprefix(f'{BROKEN}: ')})"
        for name, finding in found.items()
        if finding.kind == "reference"
    ]
    if not ours:
        return None
    more = f" and {len(ours) - NAMED} more" if len(ours) > NAMED else ""
    return (
        f"our own reference fails here: {', '.join(ours[:NAMED])}{more}; "
        f"run `python -m harness check {benchmark.name}`"
    )


def _path(cache_dir: Path, benchmark: Benchmark, here: str) -> Path:
    key = digest(canonical([benchmark.digest, here, GRADER_VERSION, benchmark.protocol]))
    return cache_dir / "checks" / f"{benchmark.name}-{key[:16]}.json"


def _kept(path: Path, benchmark: Benchmark, here: str) -> Check | None:
    """An earlier finding on the same rows, environment and grader; None when there is none."""
    try:
        found = json.loads(path.read_text())
        ids = {name: Finding(**finding) for name, finding in found.pop("ungradable").items()}
        weak = {name: tuple(problems) for name, problems in found.pop("weak").items()}
        result = Check(**{**found, "cached": True}, ungradable=ids, weak=weak)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # absent, or not one of ours: the check is made again
    same = (result.digest, result.environment, result.grader)
    return result if same == (benchmark.digest, here, GRADER_VERSION) else None


def lines(found: Check) -> Iterator[str]:
    """What a person reads."""
    passed = found.references - len(found.ungradable)
    earlier = ", as found before" if found.cached else ""
    yield f"{found.benchmark}: {passed} of {found.references} references pass{earlier}"
    groups: dict[str, list[str]] = {}
    for name, finding in found.ungradable.items():
        groups.setdefault(finding.reason, []).append(name)
    for reason, names in sorted(groups.items(), key=lambda pair: -len(pair[1])):
        yield f"  {len(names)} cannot be graded here, {reason}: {', '.join(names)}"
    if found.trivial:
        yield f"  trivial programs: {found.trivial} run"
        for name, problems in found.weak.items():
            yield f"    {name} passes on {len(problems)} (weak tests): {', '.join(problems)}"
        if not found.weak:
            yield "    none passes"
    if found.failed:
        yield f"  FAILED: {len(found.failed)} references fail that should pass here"


async def check_benchmark(
    name: str,
    *,
    sources: DataSources,
    cache_dir: Path,
    jobs: int | None = None,
    repeat: int = 1,
    fresh: bool = False,
    unsafe_local: bool = False,
    say: Say = lambda done, total: None,
) -> Check:
    """Load a benchmark and check it: what the command does. Raises HarnessError of many kinds."""
    benchmark = benchmarks.load(name, sources)
    async with open_grader(
        benchmark,
        cache_dir=cache_dir,
        jobs=jobs,
        unsafe_local=unsafe_local,
        kept=repeat == 1 and not fresh,
    ) as grader:
        return await check(
            benchmark, grader, cache_dir=cache_dir, repeat=repeat, fresh=fresh, say=say
        )
