"""One sample in the terminal: its rounds, calls, workflows and verdict, from the journal alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import graph
from harness.ingest import YEAR_10000
from harness.journal import read_segment, segments
from harness.metrics import count, dollars, duration, percent
from harness.page import block, line, things
from harness.store import Trajectory, trajectory, with_fresh_cost
from harness.tree import SearchNode, tree_text

if TYPE_CHECKING:
    from rich.console import Console

HIDDEN = {"kind", "at", "run_no", "segment", "logged_at", "result_key", "problem_id", "sample",
          "round"}  # fmt: skip
# fields of a note that say where it stands, not what it says


def records_of(run_dir: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every whole record of a run with the number of its segment, in order."""
    for path in segments(run_dir):
        for _, _, record in read_segment(path):
            if record is not None:
                yield int(path.stem), with_fresh_cost(record)


def trajectories(
    run_dir: Path, problem: str, part: Callable[[Mapping[str, Any]], Any]
) -> list[tuple[Any, Trajectory]]:
    """Every sample of a problem, in the order of `part`, which tells one sample's records from
    another's; with their texts. One pass reads the records, one the texts.
    """
    apart: dict[Any, list[tuple[int, dict[str, Any]]]] = {}
    for segment, record in records_of(run_dir):
        if record.get("problem_id") == problem and isinstance(record.get("sample"), int):
            apart.setdefault(part(record), []).append((segment, record))
    found = [
        (name, trajectory(run_dir.name, problem, records[0][1]["sample"], records))
        for name, records in apart.items()
    ]
    texts = texts_of(run_dir, {sha for _, one in found for sha in one.digests()})
    for _, one in found:
        one.texts = texts
    return found


def texts_of(run_dir: Path, wanted: set[str]) -> dict[str, str]:
    """The texts of a run with these digests, by digest."""
    return {
        record["sha256"]: record["text"]
        for _, record in records_of(run_dir)
        if record["kind"] == "artifact" and record.get("sha256") in wanted
    }


def print_trajectory(
    console: Console, title: str, found: Trajectory, *, full: bool, judged: bool = True
) -> None:
    """All that a sample did, round by round; its verdict unless another line tells it."""
    _head(console, title, found)
    for number in found.round_numbers():
        part = found.of_round(number)
        if number is not None:
            line(console, "")
            line(console, round_line(number, part), style="bold cyan")
        for one in part.rounds:
            block(console, "modification", one.get("modification"), full=full)
            block(console, "error", one.get("error"), full=full)
            block(console, "workflow", found.text(one.get("workflow_sha")), full=True)
        for call in part.calls:
            _print_call(console, found, call, full=full)
        for run in part.workflows:
            line(console, f"  {workflow_line(run)}")
            block(console, "error", run.get("error"), full=full)
        for told in part.feedback:
            said = f"{told.get('passed')} of {told.get('total')} passed, {told.get('verdict')}"
            line(console, f"  feedback: {said}")
            block(console, "errors", "\n".join(told.get("errors") or []), full=full)
        for note in part.notes:
            kept = {k: v for k, v in note.items() if k not in HIDDEN}
            line(console, f"  {note['kind']}: {json.dumps(kept, ensure_ascii=False)}")
    if judged:
        _tail(console, found, full=full)


def print_workflows(console: Console, title: str, found: Trajectory) -> bool:
    """The rounds of a sample as a tree, then each one's workflow drawn; False where it has none."""
    drawn = [one for one in found.rounds if found.text(one.get("workflow_sha"))]
    if not drawn:
        return False
    _head(console, title, found)
    line(console, tree_text(round_nodes(found)))
    for one in drawn:
        part = found.of_round(one.get("round"))
        line(console, "")
        line(console, round_line(one.get("round"), part), style="bold cyan")
        block(console, "modification", one.get("modification"), full=True)
        block(console, "error", one.get("error"), full=True)
        block(console, "workflow", drawing(found.text(one["workflow_sha"])), full=True)
    _tail(console, found, full=False, brief=True)
    return True


def drawing(code: str | None) -> str:
    """A workflow drawn as text, from its code."""
    return graph.text(graph.workflow_graph(code or ""), width=90)


def round_nodes(found: Trajectory) -> list[SearchNode]:
    """A sample's rounds as the nodes of its search."""
    return [
        SearchNode(
            one["round"], one.get("parent"), str(one.get("modification") or ""),
            one.get("score"), error=one.get("error"), workflow_sha=one.get("workflow_sha"),
        )
        for one in found.rounds
        if isinstance(one.get("round"), int)
    ]  # fmt: skip


def _head(console: Console, title: str, found: Trajectory) -> None:
    console.rule(style="dim")
    line(console, title, style="bold")
    if found.earlier:
        line(console, "(an earlier, unfinished try is left out, but for its calls)")


def _tail(console: Console, found: Trajectory, *, full: bool, brief: bool = False) -> None:
    line(console, "")
    if found.result is None:
        line(console, "no verdict yet", style="bold")
        return
    if not brief:
        solution = found.text(found.result.get("solution_sha"))
        block(console, "solution", solution, full=True)
    style = "bold green" if found.result.get("verdict") == "passed" else "bold red"
    line(console, f"verdict: {verdict_line(found.result)}", style=style)
    block(console, "detail", found.result.get("detail"), full=full)
    for number, graded in enumerate(found.verdicts, start=1):
        line(console, f"  grading {number}: {grading_line(graded)}")


def verdict_line(result: Mapping[str, Any]) -> str:
    """A sample's verdict, and beside it those on parts of the tests and of further final runs."""
    names = {"base": "base", "plus": "plus", "fresh": "overlap-free"}
    parts = [f"{words} {result[n]}" for n, words in names.items() if result.get(n) is not None]
    if reruns := result.get("reruns"):
        parts.append(f"run again: {', '.join(map(str, reruns))}")
    return str(result.get("verdict")) + (f" ({', '.join(parts)})" if parts else "")


def grading_line(graded: Mapping[str, Any]) -> str:
    """One of several gradings of a sample: its verdict, by which grader, where and when."""
    words = verdict_line(graded)
    words += " · as the sample was made" if graded["kind"] == "result" else ""
    words += f" · grader {graded['grader_version']}" if graded.get("grader_version") else ""
    words += f" · environment {graded['environment']}" if graded.get("environment") else ""
    return f"{words} · {_moment(graded.get('at'))}"


def _moment(at: object) -> str:
    """Unix seconds as a date and time; "unknown" for anything else."""
    if not isinstance(at, int | float) or not 0 <= at < YEAR_10000:
        return "unknown"
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M UTC}"


def round_line(number: int | None, part: Trajectory) -> str:
    """A round's number, parent, feedback score and hidden verdict, without any text of a model."""
    words = f"round {number}"
    for one in part.rounds:
        if one.get("parent") is not None:
            words += f" · from round {one['parent']}"
        words += f" · score {percent(one['score'], 0)} %" if one.get("score") is not None else ""
        words += " · no feedback test" if one.get("score") is None and not one.get("error") else ""
        words += " · failed" if one.get("error") else ""
        words += f" · at {one['about']}" if one.get("about") else ""
    for graded in part.hidden:
        words += f" · hidden tests: {graded.get('verdict')}"
    return words


def workflow_line(run: Mapping[str, Any]) -> str:
    """What one execution of a workflow called, as one line."""
    operators = ", ".join(run.get("operators") or []) or "none"
    return f"workflow executed: {things(run.get('calls'), 'model call')}; operators: {operators}"


def call_line(call: Mapping[str, Any]) -> str:
    """A call's number, role, model, tokens, time, fresh price and how it ended, as one line."""
    again = f", attempt {call['attempt']}" if (call.get("attempt") or 1) > 1 else ""
    cancelled = call.get("error_kind") == "cancelled"
    ended = " · cancelled" if cancelled else " · failed" if call.get("error") else ""
    tokens = f"{count(call.get('prompt_tokens'))} + {count(call.get('completion_tokens'))} tokens"
    kept = " · from the cache" if call.get("cached") else ""
    price = dollars(call.get("fresh_cost_usd", call.get("cost_usd")))
    node = f" · {call['operator']}" if call.get("operator") else ""
    node += f" as {graph.shown(str(call['output_format']))}" if call.get("output_format") else ""
    return (
        f"call {call.get('call_no')}{again} · {call.get('role')} · {call.get('model')}{node}"
        f" · {tokens} · {duration(call.get('latency_s'))} · {price}{kept}{ended}"
    )


def request_text(request: str | None) -> str | None:
    """The messages of a recorded request, one under the other; the text itself if it holds none."""
    try:
        found = json.loads(request or "null")
    except ValueError:
        return request
    messages = found.get("messages") if isinstance(found, dict) else found
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        return request
    return "\n\n".join(f"[{m.get('role')}]\n{m.get('content')}" for m in messages)


def _print_call(console: Console, found: Trajectory, call: dict[str, Any], *, full: bool) -> None:
    line(console, f"  {call_line(call)}", style="bold")
    prompt = request_text(found.text(call.get("request_sha")))
    block(console, "prompt", prompt, full=full, tail=True)
    block(console, "reply", found.text(call.get("response_sha")), full=full)
    if call.get("error"):
        block(console, "error", f"{call.get('error_kind')}: {call['error']}", full=full)
    if call.get("finish") not in (None, "stop"):
        line(console, f"    stopped by: {call['finish']}")
