"""One run beside another on the same problems: who solves what, for what, and whether it is chance.

Pure but for `compared`, which reads a snapshot. The statistics are `harness.paired`'s; what a
sample took is compared problem by problem as well. Two runs of unlike data (benchmark, digest or
list) are refused unless asked for, and then what is unlike is said; other things that keep two rows
out of one ranking, and what else differs, always are.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any

from harness.aggregate import mean_interval
from harness.errors import UsageError
from harness.metrics import (
    Estimate,
    Tally,
    count,
    dollars,
    duration,
    p_value,
    pass_at,
    percent,
    points,
)
from harness.page import things
from harness.paired import LEVEL, Difference, difference, paired_bootstrap
from harness.store import RANKING, UNTOLD, called, plain, ranking
from leaderboard.outcomes import outcomes
from leaderboard.queries import BoardRow, board
from leaderboard.sampling import differing as asked_differently
from leaderboard.sampling import settings

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

UNITS = {"usd": "fresh_cost_usd", "calls": "calls", "tokens": "tokens", "time": "wall_s"}
SAID = {"usd": dollars, "calls": count, "tokens": count, "time": duration}
WORDS = {"usd": "dollars", "calls": "calls", "tokens": "tokens", "time": "time"}
DATA = ("benchmark", "benchmark_digest", "list")  # fields that say which problems were given
BESIDE = ("method", "method_digest", "knobs", "worker", "meta", "level", "seed", "sandbox",
          "commit", "dirty")  # fmt: skip
FIELDS = {"benchmark_digest": "data", "grader_version": "grader", "price_table": "prices",
          "meta": "meta-agent", "method_digest": "code of the method",
          "dirty": "uncommitted changes", "samples": "samples of a problem"}  # fmt: skip
DRAWS = 2000  # of the bootstrap
SHOWN = 24  # names of problems in a line of the terminal

SPENT = """
WITH asked AS (SELECT unnest(?::TEXT[]) AS run_id)
SELECT run_id, problem_id, samples, fresh_cost_usd, calls, tokens, wall_s
FROM asked JOIN runs USING (run_id) JOIN problem_rollup USING (run_no)
     JOIN problems USING (problem_no)
ORDER BY problem_no
"""


@dataclass(frozen=True)
class Unlike:
    """A field in which the two runs differ."""

    field: str  # in words
    a: str
    b: str
    ranking: bool  # it keeps the two out of one ranking
    data: bool  # ... for the problems themselves may be others


@dataclass(frozen=True)
class Spending:
    """What a sample took on either side: means over the problems compared, each problem equal.

    Dollars as if no reply had been kept. None: unknown on a problem of either side.
    """

    unit: str  # usd, calls, tokens or time (seconds)
    a: float | None
    b: float | None
    value: float | None  # A - B
    low: float | None  # 95% interval, by Student's t over problems
    high: float | None
    problems: int


@dataclass(frozen=True)
class Comparison:
    """Run A beside run B."""

    a: BoardRow
    b: BoardRow
    score_a: Estimate  # on the problems compared
    score_b: Estimate
    difference: Difference
    only_a: tuple[str, ...]  # problems that A solves more often, by name, in the benchmark's order
    only_b: tuple[str, ...]
    spent: tuple[Spending, ...]
    unlike: tuple[Unlike, ...]
    outcomes_a: Mapping[str, Tally] = field(repr=False)  # of all its problems
    outcomes_b: Mapping[str, Tally] = field(repr=False)

    @cached_property
    def bootstrap(self) -> tuple[float, float] | None:
        """The difference's 95% interval once more, by drawing problems anew, seeded.

        For whoever doubts the other: it assumes nothing but that problems are like one another.
        """
        return paired_bootstrap(self.outcomes_a, self.outcomes_b, draws=DRAWS)

    @property
    def turnable(self) -> bool:
        """Whether samples without a verdict could turn round which one solves more."""
        found = self.difference
        if not found.errored or found.floor is None or found.ceiling is None:
            return False
        return found.floor <= 0 <= found.ceiling

    @property
    def shares_ranking(self) -> bool:
        """Whether the two may stand in one ranking at all."""
        return not any(one.ranking for one in self.unlike)

    @property
    def words(self) -> str:
        """What the test says, in a sentence."""
        found = self.difference
        if found.p is None or found.value is None:
            return "There is too little to say which one solves more."
        if found.p >= LEVEL:
            return "Chance alone may make such a difference: neither is shown to solve more."
        said = f"{'A' if found.value > 0 else 'B'} solves more than chance alone would make it"
        if self.turnable:
            missing = things(found.errored, "sample")
            return f"{said}, where there are verdicts; {missing} without one could turn it round."
        return f"{said}."

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before the numbers mean something, a sentence each."""
        said = []
        kept_apart = [one for one in self.unlike if one.ranking]
        if kept_apart:
            fields = "; ".join(f"{one.field} {one.a} and {one.b}" for one in kept_apart)
            said.append(f"The two may not share a ranking: {fields}.")
        for name, row in (("A", self.a), ("B", self.b)):
            if row.unranked:
                said.append(f"{name} is in no ranking: {row.unranked}.")
        found = self.difference
        if found.p is not None and found.low is not None and found.high is not None:
            apart = not found.low <= 0 <= found.high
            if apart != (found.p < LEVEL):
                said.append(
                    "Interval and test disagree on whether 0 is ruled out, as they may where few "
                    "problems differ, or all by the same; the test is the exact one."
                )
        timed = any(one.unit == "time" and one.value is not None for one in self.spent)
        cached = [n for n, row in (("A", self.a), ("B", self.b)) if row.cached_calls != 0]
        if cached and timed:
            said.append(
                f"Time is not comparable: kept replies answered calls of {' and '.join(cached)}, "
                "or may have."
            )
        return tuple(said)


def run_named(connection: DuckDBPyConnection, name: str) -> str:
    """The id of the only run that is `called` so.

    Raises UsageError, naming near ones, when there is none or more than one.
    """
    known = [row[0] for row in connection.execute(
        "SELECT run_id FROM runs WHERE stage = 'eval' ORDER BY run_id").fetchall()]  # fmt: skip
    meant = called(name, known)
    if len(meant) == 1:
        return str(meant[0])
    if meant:
        raise UsageError(f"{name}: {len(meant)} runs are called so: {', '.join(meant[:5])}")
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[-3:]
    told = f"; near it: {', '.join(near)}" if near else ", the board holds none"
    raise UsageError(f"{name}: no evaluated run of that name on the board{told}")


def compared(connection: DuckDBPyConnection, a: str, b: str, *, anyway: bool = False) -> Comparison:
    """Run A beside run B, each told by its id or by a part of it (`run_named`).

    Raises UsageError: no such run, the same one twice, no problem on which both have a verdict, or
    unlike data (unless `anyway`).
    """
    ids = run_named(connection, a), run_named(connection, b)
    if ids[0] == ids[1]:
        raise UsageError(f"{ids[0]}: the same run twice; name two runs")
    (row_a,), (row_b,) = board(connection, ids[0]), board(connection, ids[1])
    unlike = differing(row_a, row_b)
    if (data := [one for one in unlike if one.data]) and not anyway:
        fields = ", ".join(f"{one.field} {one.a} against {one.b}" for one in data)
        raise UsageError(
            f"{ids[0]} and {ids[1]} were given unlike data: {fields}; "
            "--anyway compares the problems that they share by name"
        )
    by_run = {name: _in_order(found) for name, found in outcomes(connection, ids).items()}
    own, other = by_run[ids[0]], by_run[ids[1]]
    made = difference(own, other)
    if not made.problems:
        raise UsageError(f"{ids[0]} and {ids[1]}: there is no problem on which both have a verdict")
    both = [n for n, one in own.items() if one.graded and n in other and other[n].graded]
    scores = [pass_at({name: x[name] for name in both}) for x in (own, other)]
    more = [_share(own[name]) - _share(other[name]) for name in both]
    return Comparison(
        row_a, row_b, scores[0], scores[1], made,
        tuple(name for name, by in zip(both, more, strict=True) if by > 0),
        tuple(name for name, by in zip(both, more, strict=True) if by < 0),
        _spent(connection, ids, both), unlike, own, other,
    )  # fmt: skip


def _in_order(found: Mapping[str, Tally]) -> dict[str, Tally]:
    """Outcomes in the benchmark's order: by the number at the end of a name, then by name."""

    def place(name: str) -> tuple[bool, int, str]:
        number = re.search(r"[0-9]+\Z", name)
        return number is None, int(number[0]) if number else 0, name

    return {name: found[name] for name in sorted(found, key=place)}


def _share(one: Tally) -> float:
    return one.passed / one.graded


def differing(a: BoardRow, b: BoardRow) -> tuple[Unlike, ...]:
    """The fields in which two rows differ: those of a ranking first, then what was done."""
    found = []
    for place, (one, two) in enumerate(zip(ranking(vars(a)), ranking(vars(b)), strict=True)):
        if one != two:
            name = RANKING[place] if place < len(RANKING) else "environment"
            found.append(_unlike(name, one, two, ranks=True))
    for name in BESIDE:
        one, two = getattr(a, name), getattr(b, name)
        if one != two:
            found.append(_unlike(name, one, two, ranks=False))
    asked = [settings(row) for row in (a, b)]
    for name in asked_differently([a, b]):
        one, two = (told.get(name, "none") for told in asked)
        found.append(_unlike(name, one, two, ranks=False))
    return tuple(found)


def _unlike(name: str, a: object, b: object, *, ranks: bool) -> Unlike:
    def said(value: object) -> str:
        if name == "benchmark_digest" and str(value).startswith(UNTOLD):
            return "unknown"
        digests = ("benchmark_digest", "method_digest", "commit")
        short = str(value)[:12] if name in digests else str(value)
        if isinstance(value, bool):
            return "yes" if value else "no"
        return short if value not in (None, "") else "none" if name == "meta" else "unknown"

    return Unlike(FIELDS.get(name, name), said(a), said(b), ranks, name in DATA)


def _spent(
    connection: DuckDBPyConnection, ids: Sequence[str], problems: Sequence[str]
) -> tuple[Spending, ...]:
    """What a sample took on both sides, unit by unit."""
    taken: dict[str, dict[str, list[float | None]]] = {run_id: {} for run_id in ids}
    for run_id, name, samples, *sums in connection.execute(SPENT, [list(ids)]).fetchall():
        taken[run_id][name] = [None if x is None else x / samples for x in sums]
    found = []
    for place, unit in enumerate(UNITS):
        pairs = [(taken[ids[0]][name][place], taken[ids[1]][name][place]) for name in problems]
        ours, theirs = ([x for x in side if x is not None] for side in zip(*pairs, strict=True))
        n = len(problems)
        a = fmean(ours) if len(ours) == n else None
        b = fmean(theirs) if len(theirs) == n else None
        value: float | None = None
        low: float | None = None
        high: float | None = None
        if a is not None and b is not None:
            off = [x - y for x, y in zip(ours, theirs, strict=True)]
            value = fmean(off)
            if (interval := mean_interval(off)) is not None:
                _, low, high = interval
        found.append(Spending(unit, a, b, value, low, high, n))
    return tuple(found)


def lines(comparison: Comparison, *, names: int | None = SHOWN) -> list[str]:
    """The comparison as a page of text; of long lists of problems the first `names` (None: all)."""
    a, b, found = comparison.a, comparison.b, comparison.difference
    said = [f"{name}  {row.named}, worker {row.worker}"
            + (f", meta-agent {row.meta}" if row.meta else "") + f"  ({row.run_id})"
            for name, row in (("A", a), ("B", b))]  # fmt: skip
    said += [
        f"on {a.benchmark}, list {a.list or 'unknown'}, protocol {a.protocol or 'unknown'}: "
        f"{things(found.problems, 'problem')} with a verdict of both",
        "",
    ]
    said += _table(
        ["", "A", "B", "A - B", "95% interval"],
        [
            ["pass@1, percent", percent(comparison.score_a.value),
             percent(comparison.score_b.value), points(found.value),
             f"{points(found.low)} to {points(found.high)}"],
            *(_spent_row(one) for one in comparison.spent),
        ],
    )  # fmt: skip
    said += [
        "(percent of problems; the rest is for a sample, dollars as if no reply had been kept)",
        "",
        f"p = {p_value(found.p)}, {found.test}".replace("= <", "<"),
        comparison.words,
    ]
    if found.detectable is None:
        said.append("So few problems that no difference would be found four times in five.")
    else:
        said.append(
            f"A true difference of {percent(found.detectable)} points would be found four times in "
            "five."
        )
    if comparison.bootstrap is not None:
        low, high = comparison.bootstrap
        said.append(
            f"Bootstrap interval, for whoever doubts the other: {points(low)} to {points(high)} "
            f"({count(DRAWS)} draws of problems, seed 0)."
        )
    if found.errored:
        said.append(
            f"{things(found.errored, 'sample')} without a verdict: the difference lies between "
            f"{points(found.floor)} and {points(found.ceiling)}, however they would have ended."
        )
    said += [
        "",
        f"both solve {found.both}, neither {found.neither}"
        + (" (several samples: equally often)" if _several(comparison) else ""),
        *_named(f"{'more often ' if _several(comparison) else 'only '}A", comparison.only_a, names),
        *_named(f"{'more often ' if _several(comparison) else 'only '}B", comparison.only_b, names),
        *_named("left out, no verdict of A", found.dropped_a, names),
        *_named("left out, no verdict of B", found.dropped_b, names),
    ]
    beside = [one for one in comparison.unlike if not one.ranking]
    if beside:
        said += ["", *_table(["differs", "A", "B"], [[o.field, o.a, o.b] for o in beside])]
    if comparison.notes:
        said += ["", *(f"* {note}" for note in comparison.notes)]
    return [plain(line).replace("\n", " ").rstrip() for line in said]


def _several(comparison: Comparison) -> bool:
    """Whether some problem compared has several samples."""
    return (
        comparison.score_a.samples + comparison.score_b.samples > 2 * comparison.difference.problems
    )


def _spent_row(one: Spending) -> list[str]:
    said = SAID[one.unit]

    def signed(value: float | None) -> str:
        return f"+{said(value)}" if value is not None and value > 0 else said(value)

    between = "unknown" if one.low is None else f"{signed(one.low)} to {signed(one.high)}"
    return [WORDS[one.unit], said(one.a), said(one.b), signed(one.value), between]


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side; a cell longer than a column ought to be is cut."""
    cells = [[_short(cell) for cell in row] for row in (names, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in cells]


def _short(text: str, most: int = 48) -> str:
    flat = " ".join(plain(text).split())
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"


def _named(title: str, found: Sequence[str], most: int | None) -> list[str]:
    """How many problems, and which."""
    if not found:
        return [] if title.startswith("left out") else [f"{title} 0"]
    shown = found[:most]
    rest = len(found) - len(shown)
    more = f" and {rest} more (--json names all)" if rest else ""
    return [f"{title} {len(found)}: {', '.join(shown)}{more}"]


def _side(row: BoardRow, score: Estimate) -> dict[str, Any]:
    names = ("run_id", "named", "method", "worker", "meta", "benchmark", "benchmark_digest", "list",
             "protocol", "level", "grader_version", "price_table", "environment", "kind", "status",
             "complete", "unranked")  # fmt: skip
    told = {name: getattr(row, name) for name in names}
    return {"run" if k == "run_id" else k: v for k, v in told.items()} | {
        "pass@1": {"value": score.value, "low": score.low, "high": score.high,
                   "problems": score.problems, "samples": score.samples}
    }  # fmt: skip


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """What `compare --json` prints: docs/schemas/compare.json."""
    return {
        "a": _side(comparison.a, comparison.score_a),
        "b": _side(comparison.b, comparison.score_b),
        "shares_ranking": comparison.shares_ranking,
        "unlike": [asdict(one) for one in comparison.unlike],
        "difference": asdict(comparison.difference),
        "bootstrap": None if comparison.bootstrap is None else {
            "low": comparison.bootstrap[0], "high": comparison.bootstrap[1], "draws": DRAWS,
            "seed": 0},
        "only_a": list(comparison.only_a),
        "only_b": list(comparison.only_b),
        "spent": {one.unit: {k: v for k, v in asdict(one).items() if k != "unit"}
                  for one in comparison.spent},
        "words": comparison.words,
        "notes": list(comparison.notes),
    }  # fmt: skip
