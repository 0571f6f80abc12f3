"""What a line of a journal may hold: the fields of each kind of record, and their types.

A line that holds anything else is left out by every reader alike, as if it were torn: by the
database, by `show`, by a run that is resumed. What no field here names is nobody's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.types import Verdict

LIMITS = {"INTEGER": 2**31, "BIGINT": 2**63, "DOUBLE": 1e300}
GRADED = ("verdict", "detail", "fresh", "base", "plus")  # what a grading says

# Columns that every fact has; `segment` is the number of the journal file that it came from.
SAMPLE = {"run_no": "INTEGER", "segment": "INTEGER", "logged_at": "DOUBLE", "result_key": "TEXT",
          "problem_id": "TEXT", "sample": "INTEGER"}  # fmt: skip
# ... and what happened in a round, or at another problem that the sample looked at (`about`)
STEP = SAMPLE | {"round": "INTEGER", "about": "TEXT"}
# What a grading says.
GRADING = dict.fromkeys(GRADED, "TEXT")

# One table per kind of record; JSON marks a value that is kept as JSON text. No key index on
# facts: it costs more than it saves. Times are unix seconds, costs US dollars, NULL is unknown.
# `cost_usd` is what was paid, `fresh_cost_usd` what it costs where no reply is kept.
FACTS: dict[str, dict[str, str]] = {
    "result": SAMPLE  # what was found by the last grading of the sample
    | GRADING
    | {"solution_sha": "TEXT", "prompt_tokens": "BIGINT", "completion_tokens": "BIGINT",
       "calls": "INTEGER", "rounds": "INTEGER",
       "cached_calls": "INTEGER", "cost_usd": "DOUBLE", "fresh_cost_usd": "DOUBLE",
       "price_table": "TEXT", "wall_s": "DOUBLE", "grade_s": "DOUBLE",
       "feedback_passed": "INTEGER", "feedback_total": "INTEGER", "reruns": "JSON",
       "error_kind": "TEXT",
       "problem_no": "INTEGER",  # of `problems`
       "grader_version": "TEXT",  # of that grading
       "regrades": "INTEGER"},  # 0: as first graded
    "round": STEP
    | {"parent": "INTEGER", "modification": "TEXT", "workflow_sha": "TEXT",
       "prompts_sha": "TEXT", "reply_sha": "TEXT", "score": "DOUBLE", "scores": "JSON",
       "same_as_template": "BOOLEAN",
       "error": "TEXT", "error_class": "TEXT", "code_sha": "TEXT"},
    "feedback": STEP
    | {"code_sha": "TEXT", "passed": "INTEGER", "total": "INTEGER",
       "verdict": "TEXT", "errors": "JSON"},
    "workflow": STEP
    | {"calls": "INTEGER", "operators": "JSON", "answer_sha": "TEXT",
       "error": "TEXT", "error_class": "TEXT"},
    "call": STEP
    | {"call_no": "INTEGER", "attempt": "INTEGER", "role": "TEXT", "operator": "TEXT",
       "output_format": "TEXT",
       "model": "TEXT", "request_sha": "TEXT", "response_sha": "TEXT", "prompt_tokens": "BIGINT",
       "completion_tokens": "BIGINT", "cached_tokens": "BIGINT", "reasoning_tokens": "BIGINT",
       "temperature": "DOUBLE", "seed": "BIGINT", "max_tokens": "BIGINT", "cached": "BOOLEAN",
       "cost_usd": "DOUBLE", "fresh_cost_usd": "DOUBLE", "latency_s": "DOUBLE",
       "finish": "TEXT", "error": "TEXT", "error_kind": "TEXT"},
    "hidden": SAMPLE | {"round": "INTEGER", "code_sha": "TEXT", "verdict": "TEXT"},
    "trial": SAMPLE
    | {"label": "TEXT", "round": "INTEGER", "passed": "BOOLEAN", "share": "DOUBLE",
       "detail": "TEXT", "code_sha": "TEXT", "facts": "JSON", "calls": "INTEGER",
       "tokens": "DOUBLE", "usd": "DOUBLE", "wall_s": "DOUBLE"},
    "node": STEP
    | {"number": "INTEGER", "parent": "INTEGER", "label": "TEXT",
       "score": "DOUBLE", "low": "DOUBLE", "high": "DOUBLE", "error": "TEXT",
       "workflow_sha": "TEXT", "prompts_sha": "TEXT", "reply_sha": "TEXT"},
    "note": SAMPLE | {"kind": "TEXT", "fields": "JSON"},  # any other kind that a method notes
}  # fmt: skip

SESSION = {
    "event": "TEXT", "status": "TEXT", "problems": "INTEGER", "samples": "INTEGER",
    "resumed": "INTEGER", "limit": "TEXT", "n_samples": "INTEGER", "sandbox": "TEXT",
    "commit": "TEXT", "dirty": "BOOLEAN", "command": "TEXT", "harness_version": "TEXT",
    "versions": "JSON", "asked": "JSON", "environment": "TEXT", "left_out": "JSON",
    "config": "JSON", "forecast": "JSON", "served_by": "JSON",
}  # fmt: skip

GIVEN = ("run_no", "segment", "logged_at")  # columns of facts that no record has
DERIVED = ("problem_no", "regrades")  # columns of results that the store finds
LISTS = ("reruns", "operators", "errors")  # columns kept as JSON that are lists of strings
NAMED = ("verdict", "fresh", "base", "plus")  # columns that hold a verdict
VERDICTS = frozenset(Verdict)
OBJECTS = ("config", "forecast", "versions", "served_by")  # columns of a session that are objects

_FOUND = {
    "grader_version": "TEXT",
    "environment": "TEXT",
    "sandbox": "TEXT",
    "solution_sha": "TEXT",
}
_FIELDS: dict[str, dict[str, str]] = {
    **FACTS,
    "verdict": SAMPLE | GRADING | _FOUND,
    "note": SAMPLE | {"round": "INTEGER"},
}


def _checks(columns: Mapping[str, str]) -> dict[str, str]:
    """What a field must be, by its name: a type of column, or one of the words below."""
    words = dict.fromkeys(LISTS, "LIST OF TEXT") | dict.fromkeys(NAMED, "VERDICT")
    words |= {"scores": "LIST", "price_table": "JSON"}  # the latter: its identity, once
    told = {n: words.get(n, k) for n, k in columns.items() if n not in (*GIVEN, *DERIVED)}
    return {"at": "DOUBLE", **{n: k for n, k in told.items() if k != "JSON"}}


_CHECKS = {kind: _checks(columns) for kind, columns in _FIELDS.items()}
_SESSION = {"at": "DOUBLE", "event": "TEXT", "status": "TEXT"} | {
    name: kind for name, kind in SESSION.items() if kind not in ("TEXT", "JSON")
}  # other texts may be anything: a command is words, a limit a number


def check(record: Mapping[str, Any]) -> None:
    """Raises ValueError, one line, unless all that a record says is of the types of its kind.

    An `artifact` whose text has another digest is one for `harness.journal` to refuse. A field that
    is absent or null is unknown, but for those that say which sample a record is of.
    """
    kind = record["kind"]
    if kind == "session":
        check_session(record)
        return
    if kind == "artifact":
        _fit(record, {"sha256": "TEXT", "text": "TEXT"}, needed=("sha256", "text"))
        return
    of_sample = kind in _CHECKS and kind != "note"
    needed = ("result_key", "problem_id", "sample") if of_sample else ("result_key",)
    _fit(record, _CHECKS[kind if of_sample else "note"], needed)


def check_session(record: Mapping[str, Any]) -> None:
    """`check` of a `session` record."""
    _fit(record, _SESSION)
    ids = record.get("asked")
    if ids is not None and not fits(ids, "LIST OF TEXT"):
        raise ValueError(f"asked: expected a list of ids, found {_short(ids)}")
    for name in OBJECTS:
        object_in(record, name)
    check_reasons(record)


def check_reasons(record: Mapping[str, Any]) -> None:
    """Raises ValueError unless `left_out` is absent or gives problems a reason in words."""
    for name, reason in object_in(record, "left_out").items():
        if not isinstance(reason, str):
            raise ValueError(f"left_out: expected a reason for {name}, found {_short(reason)}")


def object_in(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object under a name, empty where there is none. Raises ValueError for anything else."""
    value = found.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{name}: expected an object, found {_short(value)}")
    return value or {}


def fits(value: Any, kind: str) -> bool:
    """Whether a value that is there is of a type of column, or of one of our own words for one."""
    if kind in LIMITS:
        number = type(value) is int or (type(value) is float and kind == "DOUBLE")
        return number and abs(value) < LIMITS[kind]
    if kind == "TEXT":
        return isinstance(value, str)
    if kind == "VERDICT":
        return isinstance(value, str) and value in VERDICTS
    if kind == "LIST OF TEXT":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return isinstance(value, {"LIST": list, "BOOLEAN": bool}[kind])


def _fit(record: Mapping[str, Any], kinds: Mapping[str, str], needed: tuple[str, ...] = ()) -> None:
    """Raises ValueError unless the fields are there that are needed, and all are of their kinds."""
    for name in needed:
        if record.get(name) is None:
            raise ValueError(f"a {record['kind']!r} record without a {name}")
    for name, kind in kinds.items():
        value = record.get(name)
        if value is not None and not fits(value, kind):
            raise ValueError(f"{name}: expected {kind}, found {_short(value)}")


def _short(value: Any) -> str:
    return repr(str(value)[:60])
