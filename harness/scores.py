"""What a score run found: rows of verdicts, what they say together, and how they are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.benchmarks import Benchmark
from harness.deviations import Deviation
from harness.grade import VERSION as GRADER_VERSION
from harness.grading import printable
from harness.metrics import Estimate, pass_at_1, pass_at_k, percent
from harness.types import Cases, Verdict

KS = (1, 10, 100)


@dataclass(frozen=True)
class Row:
    """One graded sample. `base` and `plus` are None where the suite has no such parts."""

    problem_id: str
    sample: int
    verdict: Verdict  # the official checker's where it was asked
    detail: str
    base: Verdict | None = None
    plus: Verdict | None = None
    ours: Verdict | None = None  # beside an official verdict
    ours_base: Verdict | None = None
    deviation: Deviation | None = None  # what may account for a difference between the two

    @property
    def differs(self) -> bool:
        """Whether ours and the official verdict disagree on passed or not, in all or on base."""
        if self.verdict is Verdict.INVALID:
            return False
        pairs = ((self.ours, self.verdict), (self.ours_base, self.base))
        return any(a is not None and b is not None and a.solved != b.solved for a, b in pairs)


@dataclass(frozen=True)
class Scores:
    """All rows, in the benchmark's order. `as_dict` is what `score --json` prints."""

    benchmark: Benchmark
    sandbox: str
    rows: tuple[Row, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)  # in no mean: problem id -> reason
    passed_over: Mapping[str, int] = field(
        default_factory=dict
    )  # rows of problems not in the suite
    official: str | None = None  # package and version whose verdicts these are
    wall_s: float = 0.0

    def outcomes(self, part: Callable[[Row], Verdict | None]) -> dict[str, list[bool | None]]:
        """{problem: [passed, or None where ungraded, of each sample]}, without those left out."""
        found: dict[str, list[bool | None]] = {}
        for row in self.rows:
            if row.problem_id not in self.left_out:
                verdict = part(row)
                graded = row.verdict is not Verdict.INVALID and verdict is not None
                found.setdefault(row.problem_id, []).append(
                    verdict.solved if graded and verdict is not None else None
                )
        return found

    @property
    def estimate(self) -> Estimate:
        return pass_at_1(self.outcomes(lambda row: row.verdict))

    @property
    def base(self) -> Estimate | None:
        """pass@1 on the original tests alone, for suites that add others."""
        if not has_parts(self.benchmark):
            return None
        return pass_at_1(self.outcomes(lambda row: row.base))

    def pass_at(self) -> dict[int, float]:
        """Unbiased pass@k for 1, 10 and 100, as far as every problem has so many samples."""
        found: dict[int, float] = {}
        graded = [
            [passed for passed in row if passed is not None]
            for row in self.outcomes(lambda row: row.verdict).values()
        ]
        graded = [row for row in graded if row]
        for k in KS:
            if graded and min(map(len, graded)) >= k:
                chances = [pass_at_k(len(row), sum(row), k) for row in graded]
                found[k] = sum(chances) / len(chances)
        return found

    @property
    def counts(self) -> dict[str, int]:
        """{verdict: samples}, most frequent first."""
        return dict(Counter(str(row.verdict) for row in self.rows).most_common())

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as docs/schemas/score.json describes."""
        both = has_parts(self.benchmark)
        base = self.base
        found: dict[str, Any] = {
            "benchmark": self.benchmark.name,
            "digest": self.benchmark.digest,
            "custom": self.benchmark.custom,
            "sandbox": self.sandbox,
            "grader": GRADER_VERSION,
            "official": self.official,
            "problems": [self._row(row, both) for row in self.rows],
            "pass@1": _interval(self.estimate),
            "pass@k": {str(k): value for k, value in self.pass_at().items()},
            "counts": self.counts,
            "left_out": dict(self.left_out),
            "passed_over": dict(self.passed_over),
            "errors": self.counts.get("invalid", 0),
            "wall_s": round(self.wall_s, 3),
        }
        return found if base is None else found | {"base_pass@1": _interval(base)}

    def _row(self, row: Row, both: bool) -> dict[str, Any]:
        found: dict[str, Any] = {
            "problem_id": row.problem_id,
            "sample": row.sample,
            "verdict": str(row.verdict),
            "detail": row.detail,
        }
        if both:
            found |= {"base": row.base and str(row.base), "plus": row.plus and str(row.plus)}
        if row.ours is not None:
            found |= {"ours": str(row.ours)}
        if row.ours_base is not None:
            found |= {"ours_base": str(row.ours_base)}
        if row.differs:
            found |= {"deviation": row.deviation and row.deviation.name}
        if row.problem_id in self.left_out:
            found |= {"left_out": self.left_out[row.problem_id]}
        return found


def has_parts(benchmark: Benchmark) -> bool:
    """Whether its problems have base and plus tests."""
    return any(isinstance(item.oracle.tests, Cases) for item in benchmark.items.values())


def _interval(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "problems": estimate.problems,
    }


def lines(scores: Scores) -> Iterator[str]:
    """What a person reads: score, verdicts, and what is in no mean, by name."""
    kind = f", verdicts of {scores.official}" if scores.official else ""
    custom = " (custom rows)" if scores.benchmark.custom else ""
    yield f"{scores.benchmark.name}{custom} {scores.benchmark.digest[:12]}{kind}"
    base = scores.base
    if base is not None:
        yield f"  pass@1 base      {_shown(base)}"
    yield f"  pass@1           {_shown(scores.estimate)}"
    for k, value in scores.pass_at().items():
        if k > 1:
            yield f"  pass@{k:<12}{percent(value)}%"
    yield "  verdicts         " + ", ".join(f"{v} {n}" for v, n in scores.counts.items())
    here = {row.problem_id for row in scores.rows}
    reasons: dict[str, list[str]] = {}
    for problem_id, reason in scores.left_out.items():
        if problem_id in here:
            reasons.setdefault(reason, []).append(problem_id)
    for reason, names in reasons.items():
        yield f"  in no mean       {len(names)}, {printable(reason)}: {', '.join(names)}"
    if scores.passed_over:
        few = ", ".join(list(scores.passed_over)[:8]) + (
            " ..." if len(scores.passed_over) > 8 else ""
        )
        count = sum(scores.passed_over.values())
        yield f"  not in the suite {count} rows of {len(scores.passed_over)} problems: {few}"
    for row in scores.rows:
        if row.verdict is Verdict.INVALID:
            said = printable(row.detail)
            yield f"  not graded       {row.problem_id} sample {row.sample}: {said}"
    if scores.official:
        yield from _differences(scores)


def _differences(scores: Scores) -> Iterator[str]:
    differing = [row for row in scores.rows if row.differs]
    yield f"  ours differs     on {len(differing)} of {len(scores.rows)} samples"
    for row in differing:
        known = "not a known deviation"
        if row.deviation is not None:
            word = "deviation" if row.deviation.certain else "perhaps deviation"
            known = f"{word} {row.deviation.name}: {row.deviation.official}"
        yield (
            f"    {row.problem_id} sample {row.sample}: ours {_parts(row.ours, row.ours_base)}, "
            f"official {_parts(row.verdict, row.base)} ({printable(row.detail, 80)}); {known}"
        )


def _parts(verdict: Verdict | None, base: Verdict | None) -> str:
    return f"{verdict}" if base is None else f"{verdict} (base {base})"


def _shown(estimate: Estimate) -> str:
    if estimate.value is None:
        return "no verdict"
    low, high = percent(estimate.low), percent(estimate.high)
    return f"{percent(estimate.value)}% [{low}, {high}] of {estimate.problems} problems"
