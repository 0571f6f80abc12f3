"""What the board, the export and the pages show, each as one query over a snapshot connection.

Shares are in [0, 1], times in seconds, costs in US dollars; None is unknown, and a sum with an
unknown part is unknown. A connection comes from `harness.store.open_snapshot`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.metrics import Estimate, count, dollars, interval
from harness.rounds import BEST_OF_N, Round, rounds_of
from harness.show_search import cost_words
from harness.store import (
    FACTS,
    MIXED,
    TABLE_OF,
    named,
    ranking,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BOARD = """
WITH scores AS (
  SELECT run_no,
         avg(passed / graded) FILTER (graded > 0) AS value,
         coalesce(stddev_samp(passed / graded) FILTER (graded > 0), 0) AS deviation,
         avg(fresh_passed / fresh_graded) FILTER (fresh_graded > 0) AS overlap_free,
         count(*) FILTER (graded > 0) AS problems,
         bit_xor(hash(problem_no)) FILTER (graded > 0) AS problem_set,
         bit_xor(hash(problem_no, passed, graded, samples)) AS outcome_set,
         sum(graded)::BIGINT AS graded,
         sum(samples - graded)::BIGINT AS errored,
         avg(passed / samples) AS floor,
         avg((passed + samples - graded) / samples) AS ceiling,
         CASE WHEN count(calls) = count(*) THEN sum(calls) END::BIGINT AS calls,
         CASE WHEN count(tokens) = count(*) THEN sum(tokens) END::BIGINT AS tokens,
         CASE WHEN count(fresh_cost_usd) = count(*) THEN sum(fresh_cost_usd) END AS fresh_cost_usd,
         CASE WHEN count(cost_usd) = count(*) THEN sum(cost_usd) END AS cost_usd,
         CASE WHEN count(cached_calls) = count(*) THEN sum(cached_calls) END::BIGINT
           AS cached_calls,
         CASE WHEN count(wall_s) = count(*) THEN sum(wall_s) END AS wall_s,
         CASE WHEN count(fresh_cost_usd) = count(*)
              THEN sum(fresh_cost_usd / samples)
                   / nullif(sum(passed / graded) FILTER (graded > 0), 0)
         END AS cost_per_solved
  FROM problem_rollup GROUP BY run_no
)
SELECT try(runs.run_json -> '$.config.knobs') AS given,
       runs.run_no, runs.run_id, runs.method, runs.worker, runs.meta, runs.benchmark,
       runs.benchmark_digest,
       runs.list, runs.protocol, runs.level, runs.grader_version, runs.price_table, runs.kind,
       runs.status, runs.started_at, runs.n_samples, runs.problems_asked, runs.samples_asked,
       runs.samples_left,
       runs.knobs, runs.seed, runs.sandbox, runs.commit, runs.dirty, runs.command,
       coalesce(runs.complete, false) AS complete,
       coalesce(runs.first_look, false) AS first_look,
       coalesce(runs.custom, false) AS custom,
       coalesce(runs.needs_environment, false) AS needs_environment,
       runs.environment, runs.left_out, runs.artifact, runs.origin,
       try(runs.run_json -> '$.roles') AS roles, runs.method_digest, problem_set,
       outcome_set,
       value, deviation, coalesce(problems, 0) AS problems, coalesce(graded, 0) AS graded,
       coalesce(errored, 0) AS errored, floor, ceiling, overlap_free, calls, tokens,
       fresh_cost_usd, cost_usd, cached_calls, wall_s, cost_per_solved
FROM runs LEFT JOIN scores USING (run_no)
WHERE runs.stage = 'eval' AND (?::TEXT IS NULL OR runs.run_id = ?)
ORDER BY value DESC NULLS LAST, started_at, runs.run_id
"""


Equal = Literal["all", "level", "calls", "dollars"]
TOLERANCE = 0.10  # by which mean calls or dollars that count as equal may lie apart
OPEN = ("gpt-oss", "qwen", "llama", "mistral", "mixtral", "gemma", "deepseek", "starcoder", "phi-",
        "smollm", "olmo", "granite", "glm-", "kimi", "codestral", "devstral")  # fmt: skip
CLOSED = ("gpt-", "chatgpt", "claude", "gemini", "o1", "o3", "o4")
TAKEN = ("prompt_tokens", "completion_tokens", "fresh_cost_usd")  # by a call


@dataclass(frozen=True)
class SearchCost:
    """What the search behind a row took, once, before it: in no other number of the row."""

    run: str | None  # its run, or where it was read from
    file: str | None
    problems: int | None  # that it was made on
    calls: int | None
    tokens: int | None
    cost_usd: float | None  # paid
    fresh_cost_usd: float | None  # the price where no reply is kept
    wall_s: float | None

    @property
    def words(self) -> str:
        """Dollars where it cost some, else tokens; a price that is not known is said."""
        return cost_words(self.calls, self.tokens, self.fresh_cost_usd)


@dataclass(frozen=True)
class Origin:
    """Where an imported run was read from."""

    format: str | None
    file: str | None
    sha256: str | None
    tool: str | None  # that made the file, with its version where the file says it
    imported_at: float | None  # unix seconds


@dataclass(frozen=True)
class BoardRow:
    """One run: what was asked, how often it solved, and what that took (sums over samples)."""

    run_no: int  # its number in this snapshot
    run_id: str
    named: str  # the method with the knobs that it was given
    method: str
    worker: str
    meta: str | None
    benchmark: str
    benchmark_digest: str | None
    list: str | None
    protocol: str | None
    level: str | None
    grader_version: str | None
    price_table: str | None
    kind: str  # measured, simulated or imported
    status: str | None  # running, complete, partial, interrupted, budget, refused, failed
    started_at: float | None  # unix seconds
    n_samples: int | None  # draws per problem
    problems_asked: int | None  # the most that a session of the run asked for
    samples_asked: int | None
    samples_left: int | None  # of those, without a verdict
    knobs: str  # JSON
    seed: int | None
    sandbox: str | None  # "mixed: ..." when verdicts were found in several
    commit: str | None
    dirty: bool | None
    command: str | None
    complete: bool  # every sample that was asked for has a verdict
    first_look: bool  # problems were chosen for showing, not for measuring
    custom: bool  # rows that match no pinned file
    needs_environment: bool  # what can pass depends on the packages that were installed for it
    environment: str | None  # digest of what programs were graded in; "mixed: ..." of several
    left_out: int | None  # problems that were asked for and could not be run
    estimate: Estimate
    overlap_free: float | None  # pass@1 on the hidden tests that no feedback test repeats
    calls: int | None
    tokens: int | None  # prompt and completion
    fresh_cost_usd: float | None  # the price where no reply is kept: what rows are compared by
    cost_usd: float | None  # what was paid
    cached_calls: int | None  # answered by kept replies, so that time is not comparable
    wall_s: float | None
    cost_per_solved: float | None = None  # by `harness.aggregate.cost_per_solved`, of fresh prices
    origin: Origin | None = None  # None: measured here
    search: SearchCost | None = None  # None: the method needs none
    roles: str | None = None  # JSON: of each role its model and how that was asked
    method_digest: str | None = None
    problem_set: int | None = None  # the same number: the same problems, in this snapshot
    outcome_set: int | None = None  # the same numbers of all rows: the same outcomes by problem

    @property
    def facts(self) -> tuple[bool | None, float | None]:
        """Whether the worker's weights are open, and its parameters in billions."""
        return model_facts(self.worker)

    def per_sample(self, total: float | None) -> float | None:
        """A sum over this run's samples as their mean; None when it is unknown or there is none."""
        samples = self.estimate.samples + self.estimate.errored
        return total / samples if total is not None and samples else None

    @property
    def ranking(self) -> tuple[str, ...]:
        """What two rows must share to be compared at all."""
        return ranking(vars(self))

    @property
    def unranked(self) -> str | None:
        """Why this row is shown without a rank; None when it has one."""
        if self.kind != "measured":
            return self.kind
        if self.level == "oracle" or self.protocol == "oracle":
            return "oracle"
        if self.first_look:
            return "first look, not a score"
        for name in ("sandbox", "grader_version"):
            if (getattr(self, name) or "").startswith(MIXED):
                return f"{name.partition('_')[0]} {getattr(self, name)}"
        if not self.complete:
            return self.status or "incomplete"
        return None


@dataclass(frozen=True)
class Group:
    """Rows that share a ranking, best first and unranked ones last."""

    rows: tuple[BoardRow, ...]
    best: frozenset[str]  # run ids of the first place; empty where nothing is compared
    problems: int  # the most that a ranked row has; rows with fewer solved another task
    equal: str = ""  # what else they share, in words: "level L1", "5 to 5.4 calls a sample"
    problem_set: int | None = None  # of the ranked rows; with as many, but others: another task too

    @property
    def ranked(self) -> tuple[BoardRow, ...]:
        """The rows that are compared with one another, best first."""
        return tuple(row for row in self.rows if not self.note(row))

    def note(self, row: BoardRow) -> str:
        """What keeps a row out of the ranking, in a few words; empty when it is in it."""
        if row.unranked:
            return row.unranked
        if row.estimate.problems < self.problems:
            return f"only {row.estimate.problems} of {self.problems} problems"
        return "other problems" if row.problem_set != self.problem_set else ""


@dataclass(frozen=True)
class ReportedRow:
    """One number that a paper prints."""

    source: str
    place: str  # "table 1"
    row_key: str
    type: str | None
    method: str | None
    worker: str | None
    meta: str | None
    benchmark: str  # "HumanEval", "MBPP", "BigCodeBench", "Overall"
    value: float | None  # a share
    printed: str | None
    note: str | None


@dataclass(frozen=True)
class SampleRow:
    """One graded sample."""

    problem_id: str
    sample: int  # 0-based draw
    verdict: str
    detail: str | None
    calls: int | None
    rounds: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    fresh_cost_usd: float | None
    wall_s: float | None
    grade_s: float | None
    error_kind: str | None


def board(connection: DuckDBPyConnection, run_id: str | None = None) -> list[BoardRow]:
    """Every run as a row, or the one asked for; best first."""
    rows = []
    for found in dicts(connection, BOARD, [run_id, run_id]):
        left_out = found.pop("left_out")
        found["left_out"] = None if left_out is None else len(json.loads(left_out))
        found["search"] = _search_cost(found.pop("artifact"))
        found["origin"] = origin_of(found["origin"])
        value, deviation = found.pop("value"), found.pop("deviation")
        problems, graded = found.pop("problems"), found.pop("graded")
        low, high = None, None
        if value is not None:
            low, high = interval(value, deviation, problems, single=problems == graded)
        bounds = (found.pop("errored"), found.pop("floor"), found.pop("ceiling"))
        estimate = Estimate(value, low, high, problems, graded, *bounds)
        rows.append(BoardRow(**named_columns(found), estimate=estimate))
    return rows


def named_columns(found: dict[str, Any]) -> dict[str, Any]:
    """The columns of a run, with its name, and "unknown" where it has to be called something."""
    said = {k: found[k] or "unknown" for k in ("method", "worker", "benchmark", "kind")}
    given, knobs = json.loads(found["given"] or "null"), json.loads(found["knobs"] or "null")
    rest = {k: v for k, v in found.items() if k != "given"}
    return {**rest, **said, "named": named(said["method"], given, knobs)}


def _search_cost(artifact: str | None) -> SearchCost | None:
    """The cost of a search from what run.json says of it."""
    told = json.loads(artifact or "null")
    if told is None:
        return None
    spent = told.get("spent") or {}
    numbers = ("calls", "tokens", "cost_usd", "fresh_cost_usd", "wall_s")
    known = {name: spent.get(name) for name in numbers}
    for name, value in known.items():
        known[name] = value if isinstance(value, int | float) else None
    return SearchCost(told.get("run"), told.get("file"), told.get("problems"), **known)


def origin_of(told: str | None) -> Origin | None:
    """Where an imported run comes from, from what run.json says of it."""
    found = object_of(told)
    if not found:
        return None
    texts = {name: None if found.get(name) is None else str(found[name])
             for name in ("format", "file", "sha256", "tool")}  # fmt: skip
    at = found.get("imported_at")
    return Origin(**texts, imported_at=at if isinstance(at, int | float) else None)


def stage_of(connection: DuckDBPyConnection, run_id: str) -> str | None:
    """What a run is, eval or fit; None where there is no such run."""
    found = connection.execute("SELECT stage FROM runs WHERE run_id = ?", [run_id]).fetchone()
    return None if found is None else str(found[0])


def _whole(name: str) -> str:
    """A sum that is unknown once a part is."""
    return f"CASE WHEN count({name}) = count(*) THEN sum({name})::DOUBLE END"


def run_rounds(
    connection: DuckDBPyConnection, run_id: str, problems: frozenset[str] | None = None
) -> list[Round]:
    """The rounds of a run, or of its samples of some problems."""
    found = [
        {"kind": kind, **row}
        for kind in ("round", "hidden")
        for row in facts_of(connection, kind, run_id)
    ]
    found += [
        {"kind": "call", **row}
        for row in dicts(
            connection,
            "SELECT result_key, problem_id, round, count(*) AS count, "
            f"{', '.join(f'{_whole(name)} AS {name}' for name in TAKEN)} FROM calls "
            "WHERE run_no = (SELECT run_no FROM runs WHERE run_id = ?) AND error IS NULL "
            "GROUP BY ALL",
            [run_id],
        )
    ]
    return rounds_of(row for row in found if problems is None or row["problem_id"] in problems)


def best_of_n(connection: DuckDBPyConnection, row: BoardRow) -> tuple[BoardRow, list[Round]] | None:
    """The best-of-n run that may be compared with a row, looked at on the row's problems.

    It shares the ranking and the worker, and has a verdict on each of the problems; of several, the
    one of the most draws, and of these the newest.
    """
    problems = solved_problems(connection, row.run_id)
    if row.method == BEST_OF_N or not problems:
        return None
    found = []
    for other in board(connection):
        if (other.method, other.worker, other.ranking) != (BEST_OF_N, row.worker, row.ranking):
            continue
        if problems <= solved_problems(connection, other.run_id):
            rounds = run_rounds(connection, other.run_id, problems)
            found.append((len(rounds), other.started_at or 0.0, other.run_id, other, rounds))
    return max(found, key=lambda one: one[:3])[3:] if found else None


def solved_problems(connection: DuckDBPyConnection, run_id: str) -> frozenset[str]:
    """The problems of a run that have a verdict."""
    found = connection.execute(
        "SELECT problem_id FROM problem_rollup JOIN problems USING (problem_no) "
        "WHERE run_no = (SELECT run_no FROM runs WHERE run_id = ?) AND graded > 0",
        [run_id],
    )
    return frozenset(problem_id for (problem_id,) in found.fetchall())


def facts_of(connection: DuckDBPyConnection, kind: str, run_id: str) -> list[dict[str, Any]]:
    """All records of a kind that a run has, in the order of its journal, in the journal's words."""
    names = ", ".join(f'"{name}"' for name in FACTS[kind])
    found = []
    for row in dicts(
        connection,
        f"SELECT {names} FROM {TABLE_OF[kind]} "
        "WHERE run_no = (SELECT run_no FROM runs WHERE run_id = ?) ORDER BY segment, rowid",
        [run_id],
    ):
        for name in (n for n, sql in FACTS[kind].items() if sql == "JSON" and row[n]):
            row[name] = json.loads(row[name])
        found.append({"kind": kind, **(row.pop("fields", None) or {}), **row})
    return found


def groups(rows: Iterable[BoardRow], equal: Equal = "all") -> list[Group]:
    """The rows apart by what may be compared, the groups by benchmark and then by size.

    `equal` takes each further apart. By "level": only what may do the same with feedback tests. By
    "calls" or "dollars": rows whose means a sample agree within TOLERANCE. Of the ranked rows, the
    least mean and all that are at most so much above it stand together, then the least of the rest,
    and so on; a row that is in no ranking stands with those that it agrees with, and decides for
    none. Rows whose mean is not known stand apart, each alone.
    """
    apart: dict[tuple[str, ...], list[BoardRow]] = {}
    for row in rows:
        apart.setdefault(row.ranking, []).append(row)
    like = sorted(apart.values(), key=lambda members: (members[0].benchmark, -len(members)))
    return [_group(some, words) for members in like for words, some in _apart(members, equal)]


def _group(members: list[BoardRow], equal: str) -> Group:
    ranked = [row for row in members if row.unranked is None]
    problems = max((row.estimate.problems for row in ranked), default=0)
    full = [row for row in ranked if row.estimate.problems == problems]
    problem_set = usual_problems(full)
    full = [row for row in full if row.problem_set == problem_set]
    top = max((row.estimate.value or 0.0 for row in full), default=None)
    best = frozenset(row.run_id for row in full if row.estimate.value == top)
    ids = {row.run_id for row in full}
    members.sort(key=lambda row: row.run_id not in ids)  # the order by score stays within both
    best = best if len(full) > 1 else frozenset()
    return Group(tuple(members), best, problems, equal, problem_set)


def usual_problems(rows: Iterable[BoardRow]) -> int | None:
    """The `problem_set` that the most of the rows have, of several that of the oldest run."""
    by_age = sorted(rows, key=lambda row: (row.started_at or 0.0, row.run_id))
    found = Counter(row.problem_set for row in by_age)  # equal counts stay in this order
    return found.most_common(1)[0][0] if found else None


def _apart(members: list[BoardRow], equal: Equal) -> list[tuple[str, list[BoardRow]]]:
    """Rows of one ranking by what they are to agree in, with what that is in words."""
    if equal == "all":
        return [("", members)]
    if equal == "level":
        levels = sorted({row.level or "unknown" for row in members})
        return [
            (f"level {level}", [row for row in members if (row.level or "unknown") == level])
            for level in levels
        ]

    def mean(row: BoardRow) -> float | None:
        return row.per_sample(row.calls if equal == "calls" else row.fresh_cost_usd)

    words = count if equal == "calls" else dollars
    means = {row.run_id: m for row in members if (m := mean(row)) is not None}
    ranked = {row.run_id for row in _group(list(members), equal).ranked}
    lows = _lows(means[run_id] for run_id in ranked & means.keys())
    lows += _lows(m for m in means.values() if not any(_agree(low, m) for low in lows))
    apart: dict[float, list[BoardRow]] = {low: [] for low in sorted(lows)}
    for row in members:
        if row.run_id in means:  # of two windows, that of the ranked rows
            low = next(low for low in lows if _agree(low, means[row.run_id]))
            apart[low].append(row)
    unit = "calls a sample" if equal == "calls" else "a sample"
    found = []
    for low, some in apart.items():
        high = max(means[row.run_id] for row in some)
        between = words(low) if low == high else f"{words(low)} to {words(high)}"
        found.append((f"{between} {unit}", some))
    return found + [(f"{equal} unknown", [row]) for row in members if row.run_id not in means]


def _agree(low: float, mean: float) -> bool:
    """Whether a mean stands with the least of its window."""
    return low <= mean <= low * (1 + TOLERANCE)


def _lows(means: Iterable[float]) -> list[float]:
    """The least of each window: the least of all means, then of those that it does not hold."""
    found: list[float] = []
    for mean in sorted(means):
        if not found or not _agree(found[-1], mean):
            found.append(mean)
    return found


def matching(rows: Iterable[BoardRow], words: str) -> list[BoardRow]:
    """The rows in which each of the words stands somewhere, in any case."""
    terms = words.casefold().split()
    return [
        row
        for row in rows
        if all(
            term
            in f"{row.named} {row.worker} {row.meta or ''} {row.benchmark} {row.list} "
            f"{row.protocol} {row.level} {row.kind} {row.status} {row.run_id}".casefold()
            for term in terms
        )
    ]


def model_facts(name: str) -> tuple[bool | None, float | None]:
    """Whether a model's weights are open, and its parameters in billions; None: not told.

    What can be run here (`local/`, `hf/`, `vllm/`) is open. A server speaks for any model: there
    the name decides, as far as it is that of a known family. The size is the one that the name
    says, in all ("30b-a3b" is 30); "8x7b" leaves open what the parts share.
    """
    provider, _, rest = name.casefold().partition("/")
    rest = rest or provider
    open_weights: bool | None = None
    if provider in ("local", "hf", "vllm") or any(family in rest for family in OPEN):
        open_weights = True
    elif any(rest.rpartition("/")[2].startswith(family) for family in CLOSED):
        open_weights = False
    if provider in ("sim", "scripted", "replay"):
        return (None, None)
    found = re.search(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", rest)
    if found is None:
        return open_weights, None
    return open_weights, float(found[1]) / (1 if found[2] == "b" else 1000)


def reported(connection: DuckDBPyConnection) -> list[ReportedRow]:
    """What papers print, by their places and rows: measured by others, in no ranking here."""
    names = ", ".join(ReportedRow.__dataclass_fields__)
    return [
        ReportedRow(**row)
        for row in dicts(connection, f"SELECT {names} FROM reported ORDER BY rowid")
    ]


def object_of(text: str | None) -> dict[str, Any]:
    """The object that a JSON text holds; empty where it holds none."""
    found = json.loads(text or "null")
    return found if isinstance(found, dict) else {}


def dicts(
    connection: DuckDBPyConnection, query: str, parameters: Sequence[Any] = ()
) -> list[dict[str, Any]]:
    result = connection.execute(query, list(parameters))
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
