"""The page of one sample on the static site: what happened in it, in order, as escaped text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import StoreError
from harness.metrics import count, dollars, duration, percent
from harness.page import things
from harness.schema import FACTS, TABLE_OF
from harness.show_sample import request_text, verdict_line
from harness.store import Trajectory, trajectory
from leaderboard.queries import BoardRow
from leaderboard.records import Grading, Texts
from leaderboard.site_html import block, folded, labelled, link, page, text
from leaderboard.timeline import Call, Execution, Feedback, Note, Spent, Stage, Timeline

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

GONE = "This text is no longer in the run's journal, or the journal was changed."
Read = Callable[[str | None], str | None]


def sample_page(
    row: BoardRow, told: Timeline, texts: Texts, gradings: list[Grading], up: str
) -> str:
    """One sample from its first call to its verdict; `up` leads to the site's folder."""
    read = reader(texts)
    body = [
        f"<p>{link('index.html', f'{row.named} on {row.benchmark}')}</p>",
        *_verdict(told, read),
    ]
    body += [_grading(number, one) for number, one in enumerate(gradings, 1)]
    body.append(f"<p>{text(spent_words(told.spent))}</p>")
    if told.earlier:
        body.append("<p>An earlier, unfinished try is left out, but for its calls.</p>")
    body += [_stage(stage, read) for stage in told.stages]
    draw = f", sample {told.sample}" if told.sample else ""
    return page(f"{told.problem_id}{draw}", body, up=up)


def reader(texts: Texts) -> Read:
    """What reads a text by its digest; in words where it cannot be read."""

    def read(sha: str | None) -> str | None:
        try:
            return texts.read(sha)
        except StoreError:
            return GONE

    return read


def _verdict(told: Timeline, read: Read) -> list[str]:
    result = told.result
    if result is None:
        return ["<p>This sample has no verdict yet.</p>"]
    mark = "✓" if result.get("verdict") == "passed" else "✗"
    found = [f"<p><strong>{mark} {text(verdict_line(result))}</strong></p>"]
    found += [block(str(result["detail"])) if result.get("detail") else ""]
    solution = read(result.get("solution_sha"))
    found.append("<h2>Solution</h2>")
    found.append(block(solution) or "<p>No program was handed in.</p>")
    return [part for part in found if part]


def _grading(number: int, one: Grading) -> str:
    first = ", as the sample was made" if one.first else ""
    said = f"Grading {number}: {one.verdict} by grader {one.grader_version or 'unknown'}{first}"
    return f'<p class="note">{text(said)}</p>'


def spent_words(spent: Spent) -> str:
    """Calls, tokens and dollars in one line."""
    words = [things(spent.calls, "call"), f"{count(spent.tokens)} tokens",
             dollars(spent.fresh_cost_usd)]  # fmt: skip
    words += [f"{spent.cached} from the cache"] if spent.cached else []
    words += [things(spent.failed, "failed attempt")] if spent.failed else []
    return " · ".join(words)


def _stage(stage: Stage, read: Read) -> str:
    names = {"before": "Before the rounds", "after": "After the rounds", "alone": "What it did"}
    words = [f"Round {stage.number}" if stage.place == "round" else names[stage.place]]
    design = stage.design
    if design is not None and design.parent is not None:
        words.append(f"from round {design.parent}")
    if stage.score is not None:
        words.append(f"feedback {percent(stage.score, 0)} %")
    if stage.hidden is not None:
        words.append(f"hidden tests: {stage.hidden}")
    words += ["failed"] if stage.errors else []
    words += ["its answer was taken"] if stage.chosen else []
    parts = [
        f"<h2>{text(' · '.join(words))}</h2>",
        f'<p class="note">{text(spent_words(stage.spent))}</p>',
    ]
    for one in stage.designs:
        parts += [
            labelled("Modification", one.modification),
            labelled(f"Error{_line(one.line)}", one.error),
            labelled("Workflow", read(one.workflow_sha)),
            folded("Prompts", said) if (said := block(read(one.prompts_sha))) else "",
        ]
    parts += [_event(event, read) for event in stage.events]
    inside = "\n".join(part for part in parts if part)
    return f'<section class="stage">\n{inside}\n</section>'


def _line(number: int | None) -> str:
    return "" if number is None else f" in line {number} of the workflow"


def _event(event: Call | Execution | Feedback | Note, read: Read) -> str:
    if isinstance(event, Call):
        return _call(event, read)
    if isinstance(event, Feedback):
        return _feedback(event)
    if isinstance(event, Note):
        said = "\n".join(f"{name}: {value}" for name, value in event.fields.items())
        longer = [labelled(name, read(sha)) for name, sha in event.texts]
        return folded(f"Noted: {event.kind}", block(said), *longer)
    names = ", ".join(step.operator for step in event.steps) or "none"
    parts = [f"<p>{text(f'Workflow executed; operators: {names}')}</p>"]
    parts += [_call(call, read) for call in event.calls]
    parts += [_feedback(one) for one in event.feedback]
    parts.append(labelled(f"Error{_line(event.line)}", event.error))
    return "\n".join(part for part in parts if part)


def call_words(call: Call) -> str:
    """A call's number, role, model, operator, tokens, time and price in one line."""
    again = f", attempt {call.attempt}" if call.attempt > 1 else ""
    words = [
        f"Call {call.number if call.number is not None else '?'}{again}",
        call.role,
        call.model,
    ]
    words += [call.operator] if call.operator else []
    words.append(f"{count(call.prompt_tokens)} + {count(call.completion_tokens)} tokens")
    words += [duration(call.latency_s), dollars(call.fresh_cost_usd)]
    words += ["from the cache"] if call.cached else []
    words += [call.error_kind or "failed"] if call.error or call.error_kind else []
    return " · ".join(words)


def _call(call: Call, read: Read) -> str:
    return folded(
        call_words(call),
        labelled("Prompt", request_text(read(call.request_sha))),
        labelled("Reply", read(call.response_sha)),
        labelled("Error", call.error),
        labelled("Stopped by", call.finish if call.finish != "stop" else None),
    )


def _feedback(told: Feedback) -> str:
    known: Any = "unknown" if told.passed is None else told.passed
    said = f"Feedback: {known} of {count(told.total)} tests passed"
    return f"<p>{text(said)}</p>" + block("\n".join(told.errors))


def read_samples(
    connection: DuckDBPyConnection, run_id: str, keys: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], Trajectory]:
    """The records of some samples (problem, number) of a run, without their texts.

    As `leaderboard.records.read_sample` finds them one by one, with one query a table for all.
    """
    apart: dict[tuple[str, int], list[tuple[int, float, int, dict[str, Any]]]] = {
        key: [] for key in keys
    }
    names, numbers = [name for name, _ in apart], [number for _, number in apart]
    for kind, table in TABLE_OF.items():
        columns = FACTS[kind]
        chosen = ", ".join(f'"{name}"' for name in columns)
        rows = connection.execute(
            f"SELECT {chosen} FROM {table} "
            "WHERE run_no = (SELECT run_no FROM runs WHERE run_id = ?) AND (problem_id, sample) "
            "IN (SELECT (unnest(?::TEXT[]), unnest(?::INTEGER[]))) ORDER BY segment, rowid",
            [run_id, names, numbers],
        ).fetchall()
        for values in rows:
            row = dict(zip(columns, values, strict=True))
            for name in (n for n, sql in columns.items() if sql == "JSON" and row[n]):
                row[name] = json.loads(row[name])
            record = {"kind": kind, **(row.pop("fields", None) or {}), **row}
            found = apart[record["problem_id"], record["sample"]]
            found.append((row["segment"], row["logged_at"] or 0.0, len(found), record))
    told = {}
    for (problem_id, sample), found in apart.items():
        found.sort(key=lambda one: one[:3])
        records = [(segment, record) for segment, _, _, record in found]
        told[problem_id, sample] = trajectory(run_id, problem_id, sample, records)
    return told


def graded_again(connection: DuckDBPyConnection, run_id: str) -> set[tuple[str, int]]:
    """The samples (problem, number) of a run that were graded more than once."""
    found = connection.execute(
        "SELECT DISTINCT problem_id, sample FROM verdicts "
        "WHERE run_no = (SELECT run_no FROM runs WHERE run_id = ?)",
        [run_id],
    )
    return {(problem_id, sample) for problem_id, sample in found.fetchall()}
