"""A run in the terminal, read straight from its journal: no database, no browser.

Whatever a model wrote is printed as text: no markup is read in it, and control characters are
shown as escapes, so that a reply cannot steer the terminal.
"""

from __future__ import annotations

import difflib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import StoreError, UsageError
from harness.forecast import compared, from_dict
from harness.journal import read_segment, segments
from harness.metrics import Estimate, count, dollars, duration, pass_at_1, percent
from harness.store import (
    MIXED,
    Trajectory,
    find_run,
    is_simulated,
    out_option,
    plain,
    read_run_json,
    session_row,
    standing,
    trajectory,
    with_fresh_cost,
    writer_is_gone,
)

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 160  # columns, where there is no terminal
OTHER_WIDTH = 70  # columns of the table of samples without its detail
DETAIL_WIDTH = 80  # characters of a verdict's detail in the table of samples
NAMED = 10  # problems left out for one reason that are named
SHORT = 1200  # characters of a text that are shown unless all of it is asked for


def show_run(
    results_dir: Path,
    run_id: str,
    out: Console | Callable[[str], object] | None = None,
    problem: str | None = None,
    *,
    sample: int | None = None,
    full: bool = False,
) -> None:
    """Print a run: its head, its score and its samples, or one `problem`'s trajectories.

    `out` is where to (default: stdout, in colour on a terminal), or takes the text line by line;
    `problem` is an id or what follows its slash, "0" for "HumanEval/0"; `sample` picks one draw of
    it; `full` prints texts in their whole length. Raises
    UsageError for an unknown run or problem, StoreError when run.json cannot be read.
    """
    from rich.console import Console

    if callable(out):
        page = io.StringIO()
        show_run(results_dir, run_id, Console(file=page), problem, sample=sample, full=full)
        for line in page.getvalue().splitlines():
            out(line)
        return
    console = _console(out)
    run_dir = find_run(results_dir, run_id)
    head = read_run_json(run_dir)
    if problem is None:
        _print_run(console, run_dir, head, out_option(results_dir))
        return
    found = _trajectories(run_dir, _known_problem(run_dir, problem, out_option(results_dir)))
    chosen = [t for t in found if sample in (None, t.sample)]
    if not chosen:
        drawn = ", ".join(str(t.sample) for t in found)
        raise UsageError(f"{run_id}: no sample {sample} of {problem}; it has {drawn}")
    for one in chosen:
        _print_trajectory(console, one, full=full)


def list_runs(results_dir: Path, out: Console | None = None) -> None:
    """Print a line for every run: name, state, what is left, protocol, score. Oldest first."""
    console = _console(out)
    runs = results_dir / "runs"
    found = [p for p in runs.iterdir() if (p / "run.json").is_file()] if runs.is_dir() else []
    if not found:
        _line(console, f"no runs under {runs}; `python -m harness eval` makes one")
    heads, unreadable = {}, []
    for run_dir in sorted(found):
        try:
            heads[run_dir] = read_run_json(run_dir)
        except StoreError as error:
            unreadable.append(str(error))
    for run_dir, head in sorted(heads.items(), key=lambda item: item[1].get("started_at") or 0):
        rows, state = _state(run_dir, head)
        asked = state["samples_asked"]
        done = f"{len(rows)}/{asked if asked is not None else '?'}"
        done += f", {state['samples_left']} left" if state["samples_left"] else ""
        score = score_line(_estimate(rows), *_remarks({**head, **state}))
        under = f"{head.get('protocol') or 'unknown'} {head.get('level') or 'unknown'}"
        _line(console, f"{run_dir.name}  {state['status']} {done}  {under}  {score}")
    for line in unreadable:
        _line(console, line)


def _console(out: Console | None) -> Console:
    """Where to print; lines of a file or pipe are as long as a table needs."""
    from rich.console import Console

    console = out or Console()
    if out is None and not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def _known_problem(run_dir: Path, problem: str, out: str) -> str:
    """The id of a problem that the run has a record of. Raises UsageError, naming near ones."""
    ids = {str(r["problem_id"]) for _, r in _records(run_dir) if r.get("problem_id") is not None}
    known = sorted(ids, key=lambda name: _natural(name, 0))
    short = {name.rpartition("/")[2]: name for name in known}
    if problem in known or problem in short:
        return problem if problem in known else short[problem]
    wanted = problem if "/" in problem or not known else f"{known[0].rpartition('/')[0]}/{problem}"
    near = difflib.get_close_matches(wanted, known, n=5, cutoff=0.4) or known[:5]
    raise UsageError(
        f"{run_dir.name}: no record of {problem}; near it: {', '.join(near) or 'none'}; "
        f"`python -m harness show {run_dir.name}{out}` lists its samples"
    )


def _records(run_dir: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for path in segments(run_dir):
        for _, _, record in read_segment(path):
            if record is not None:
                yield int(path.stem), with_fresh_cost(record)


def _trajectories(run_dir: Path, problem: str) -> list[Trajectory]:
    """Every sample of a problem with its texts: one pass for the records, one for the texts."""
    by_sample: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    for segment, record in _records(run_dir):
        if record.get("problem_id") == problem and isinstance(record.get("sample"), int):
            by_sample.setdefault(record["sample"], []).append((segment, record))
    found = [
        trajectory(run_dir.name, problem, sample, records)
        for sample, records in sorted(by_sample.items())
    ]
    wanted = {sha for one in found for sha in one.digests()}
    texts = {
        record["sha256"]: record["text"]
        for _, record in _records(run_dir)
        if record["kind"] == "artifact" and record.get("sha256") in wanted
    }
    for one in found:
        one.texts = texts
    return found


def _print_run(console: Console, run_dir: Path, head: dict[str, Any], out: str) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows, state = _state(run_dir, head)
    head, asked = {**head, **state}, state["samples_asked"]
    _line(console, str(head.get("run_id")), style="bold")
    for name, value in _words(head):
        _line(console, f"  {name:<10} {value}")
    done = f"{len(rows)} of {asked} samples" if asked is not None else f"{len(rows)} samples"
    if left := state["samples_left"]:
        done += f", {left} left"
    _line(console, f"  {'status':<10} {state['status']}, {done}")
    if left and state["status"] != "running":
        _line(console, f"  {'go on':<10} python -m harness resume {run_dir.name}{out}")
    _line(console, "")
    _line(console, score_line(_estimate(rows), *_remarks(head)))
    for line in _part_lines(rows):
        _line(console, line)
    counted = Counter(str(row.get("verdict")) for row in rows)
    if counted:
        _line(console, "verdicts: " + ", ".join(f"{n} {v}" for v, n in counted.most_common()))
    kinds = Counter(str(row.get("error_kind") or "unknown") for row in rows
                    if row.get("verdict") == "invalid")  # fmt: skip
    if kinds:
        _line(console, f"errors: {kinds_line(kinds)}")
    for line in _spent_lines(rows, state):
        _line(console, line)
    _line(console, "")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    widest = min(DETAIL_WIDTH, max(console.width - OTHER_WIDTH, 8))
    for name in ("problem", "verdict", "calls", "tokens", "cost", "time"):
        text = name in ("problem", "verdict")
        table.add_column(name, justify="left" if text else "right", no_wrap=True)
    table.add_column("detail", overflow="ellipsis", no_wrap=True, max_width=widest)
    for row in rows:
        name = str(row.get("problem_id")) + (f" #{row['sample']}" if row.get("sample") else "")
        detail = " ".join(str(row.get("detail") or row.get("error_kind") or "").split())
        cells = [name, str(row.get("verdict")), count(row.get("calls")), count(_tokens(row)),
                 dollars(row.get("fresh_cost_usd")), duration(row.get("wall_s")),
                 detail]  # fmt: skip
        table.add_row(*(Text(plain(cell)) for cell in cells))
    if rows:
        console.print(table)
    _print_rounds(console, run_dir)
    if rows:
        _line(console, f"One problem in full: python -m harness show {run_dir.name} "
                       f"--problem {rows[0].get('problem_id')}{out}")  # fmt: skip


def _print_rounds(console: Console, run_dir: Path) -> None:
    """For methods that work in rounds: what became of the workflows of each round."""
    from rich import box
    from rich.table import Table

    last: dict[tuple[str, int], dict[str, Any]] = {}
    for _, record in _records(run_dir):
        if record["kind"] == "round" and isinstance(record.get("round"), int):
            last[str(record.get("result_key")), record["round"]] = record
    if not last:
        return
    best: dict[str, float] = {}  # by sample: the best feedback score up to the round
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="rounds", title_justify="left")
    names = ("round", "workflows", "ran", "other than template", "feedback", "best so far")
    for name in names:
        table.add_column(name, justify="right")
    for number in sorted({number for _, number in last}):
        of_round = {key: r for (key, n), r in last.items() if n == number}
        scores = {k: r["score"] for k, r in of_round.items() if r.get("score") is not None}
        for key, score in scores.items():
            best[key] = max(best.get(key, 0.0), score)
        ran = sum(r.get("error") is None for r in of_round.values())
        other = sum(
            r.get("error") is None and not r.get("same_as_template") for r in of_round.values()
        )
        share = len(of_round)
        cells = [str(number), str(share), f"{percent(ran / share, 0)} %"]
        cells.append(f"{percent(other / share, 0)} %")
        for values in (scores, best):
            mean = sum(values.values()) / len(values) if values else None
            cells.append("no test" if mean is None else f"{percent(mean)} %")
        table.add_row(*cells)
    console.print(table)


def _state(run_dir: Path, head: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(result of every sample in the benchmark's order, what the sessions come to)."""
    last: dict[str, tuple[int, dict[str, Any]]] = {}
    sessions: list[dict[str, Any]] = []
    told: Any = None  # the last forecast
    wall_s, began = 0.0, None
    for segment, record in _records(run_dir):
        if record["kind"] == "result":
            last[str(record.get("result_key"))] = segment, record
        elif record["kind"] == "session":
            with suppress(ValueError):  # a broken line, left out as the database does
                session = session_row(segment, record)
                sessions.append(session)
                told, at = record.get("forecast") or told, session["logged_at"]
                if session["event"] == "start":
                    began = at
                elif None not in (began, at):
                    wall_s, began = wall_s + at - began, None
    found = [
        (
            segment,
            str(row.get("problem_id")),
            _draw(row),
            row.get("verdict"),
            row.get("price_table"),
        )
        for segment, row in last.values()
    ]
    state = standing(head, sessions, found)
    if state["status"] == "running" and writer_is_gone(run_dir):
        state["status"] = "interrupted"
    rows = [row for _, row in last.values()]
    rows.sort(key=lambda r: _natural(str(r.get("problem_id")), _draw(r)))
    spent = {"forecast": told, "session_s": wall_s}
    return rows, {**state, **spent, "status": state["status"] or "not started"}


def _remarks(head: Mapping[str, Any]) -> list[str]:
    """What keeps a run out of every ranking, whatever its score."""
    mixed = str(head.get("sandbox")).startswith(MIXED)
    return [
        *(["custom data"] if head.get("custom") else []),
        *(["simulated: says nothing about a model"] if is_simulated(head) else []),
        *(["first look, not a score"] if head.get("first_look") else []),
        *([f"not ranked: sandbox {head['sandbox']}"] if mixed else []),
    ]


def score_line(estimate: Estimate, *remarks: str) -> str:
    """pass@1 with its interval, what it rests on and any remarks, as one line."""
    if estimate.value is None:
        line = "pass@1 unknown: no sample has a verdict yet"
    else:
        line = (
            f"pass@1 {percent(estimate.value)} % "
            f"(95% interval {percent(estimate.low)} to {percent(estimate.high)}), "
            f"{estimate.problems} problems, {estimate.samples} samples"
        )
    if estimate.errored:
        line += (
            f"; {estimate.errored} errored: between {percent(estimate.floor)} "
            f"and {percent(estimate.ceiling)} % were they graded"
        )
    return line + "".join(f"  [{remark}]" for remark in remarks)


def kinds_line(kinds: Mapping[str, int]) -> str:
    """How many samples errored for what reason, the most frequent first."""
    ranked = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number} {kind}" for kind, number in ranked)


def paid_line(paid: float | None, fresh: float | None, cached: int, calls: int) -> str | None:
    """What was paid of the price without kept replies; None where no call was answered by one."""
    if not cached:
        return None
    line = f"{cached:,} of {calls:,} calls came from the cache"
    return line if fresh == 0 else f"paid {dollars(paid)} of {dollars(fresh)}: {line}"


def _spent_lines(rows: list[dict[str, Any]], state: Mapping[str, Any]) -> Iterator[str]:
    """What all samples took, what of it was paid, and what had been predicted."""
    if not rows:
        return

    def total(name: str) -> Any:
        values = [row.get(name) for row in rows]
        return None if None in values else sum(v for v in values if v is not None)

    both = total("prompt_tokens"), total("completion_tokens")
    tokens = None if None in both else sum(both)
    calls, fresh = total("calls"), total("fresh_cost_usd")
    yield f"took {count(calls)} calls, {count(tokens)} tokens, {dollars(fresh)}"
    if line := paid_line(total("cost_usd"), fresh, total("cached_calls") or 0, calls or 0):
        yield line
    if state["forecast"] is None or state["status"] != "complete" or calls is None:
        return
    with suppress(ValueError):  # of a newer harness
        told = from_dict(state["forecast"])
        yield compared(told, calls=calls, tokens=tokens, usd=fresh, wall_s=state["session_s"])


def verdict_line(result: Mapping[str, Any]) -> str:
    """A sample's verdict, and beside it those on parts of the tests, where there are any."""
    names = {"base": "base", "plus": "plus", "fresh": "overlap-free"}
    parts = [f"{words} {result[n]}" for n, words in names.items() if result.get(n) is not None]
    return str(result.get("verdict")) + (f" ({', '.join(parts)})" if parts else "")


def _part_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The scores beside pass@1: on tests that no feedback test repeats, on base and plus tests."""
    fresh = _estimate([row for row in rows if row.get("fresh") is not None], "fresh")
    if fresh.value is not None:
        yield f"on hidden tests that no feedback test repeats: {score_line(fresh)}"
    elif any("fresh" in row and row.get("verdict") != "invalid" for row in rows):
        yield "on hidden tests that no feedback test repeats: none is left"
    for part in ("base", "plus"):
        found = _estimate([row for row in rows if row.get(part) is not None], part)
        if found.value is not None:
            yield f"on {part} tests: {score_line(found)}"


def _left_out(text: str | None) -> str | None:
    """Problems that were not run, by reason, at most `NAMED` names each; None: none, or unknown."""
    found: dict[str, str] = json.loads(text or "{}")
    by_reason: dict[str, list[str]] = {}
    for name, reason in found.items():
        by_reason.setdefault(reason, []).append(name)
    parts = []
    for reason, names in by_reason.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        parts.append(f"{reason} ({', '.join(names[:NAMED])}{more})")
    return f"{len(found)}: {'; '.join(parts)}" if found else None


def _words(head: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """run.json as (name, words), what is absent left out."""
    digest = str(head.get("benchmark_digest") or "")[:8]
    parts = [head.get("benchmark"), f"list {head['list']}" if head.get("list") else "",
             f"digest {digest}" if digest else "",
             "custom data" if head.get("custom") else ""]  # fmt: skip
    yield "benchmark", ", ".join(str(x) for x in parts if x)
    knobs = ", ".join(f"{k}={v}" for k, v in (head.get("knobs") or {}).items())
    yield "method", f"{head.get('method')}" + (f" ({knobs})" if knobs else "")
    for role, made in (head.get("roles") or {}).items():
        sampling = ", ".join(f"{k} {v}" for k, v in (made.get("sampling") or {}).items()
                             if v is not None)  # fmt: skip
        yield role, f"{made.get('model')}" + (f" ({sampling})" if sampling else "")
    yield "protocol", f"{head.get('protocol')}, level {head.get('level')}"
    yield "sampling", f"{head.get('n_samples')} per problem, seed {head.get('seed')}"
    environment = f", environment {head['environment']}" if head.get("environment") else ""
    yield "sandbox", f"{head.get('sandbox')}, grader {head.get('grader_version')}{environment}"
    if left_out := _left_out(head.get("left_out")):
        yield "left out", left_out
    if isinstance(started := head.get("started_at"), int | float):
        yield "started", datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d %H:%M UTC")
    dirty = ", with uncommitted changes" if head.get("dirty") else ""
    commit = re.sub(r"\b([0-9a-f]{12})[0-9a-f]+", r"\1", str(head.get("commit") or "unknown"))
    yield "harness", f"{head.get('harness_version')}, commit {commit}{dirty}"
    if command := head.get("command"):
        yield "command", " ".join(command) if isinstance(command, list) else str(command)


def _estimate(rows: list[dict[str, Any]], part: str = "verdict") -> Estimate:
    outcomes: dict[str, list[bool | None]] = {}
    for row in rows:
        verdict = row.get(part)
        solved = None if verdict == "invalid" else verdict == "passed"
        outcomes.setdefault(str(row.get("problem_id")), []).append(solved)
    return pass_at_1(outcomes)


def _tokens(record: Mapping[str, Any]) -> int | None:
    both = (record.get("prompt_tokens"), record.get("completion_tokens"))
    return None if None in both else sum(x for x in both if x is not None)


def _draw(row: Mapping[str, Any]) -> int:
    sample = row.get("sample")
    return sample if isinstance(sample, int) else 0


def _natural(problem_id: str, sample: int) -> tuple[str, int, int]:
    stem = problem_id.rstrip("0123456789")
    return stem, int(problem_id[len(stem) :] or 0), sample


def _print_trajectory(console: Console, found: Trajectory, *, full: bool) -> None:
    console.rule(style="dim")
    draw = f", sample {found.sample}" if found.sample else ""
    _line(console, f"{found.problem_id}{draw} in {found.run_id}", style="bold")
    if found.earlier:
        _line(console, "(an earlier, unfinished try is left out, but for its calls)")
    for number in found.round_numbers():
        part = found.of_round(number)
        if number is not None:
            _line(console, "")
            _line(console, round_line(number, part), style="bold cyan")
        for one in part.rounds:
            _text(console, "modification", one.get("modification"), full=full)
            _text(console, "error", one.get("error"), full=full)
            _text(console, "workflow", found.text(one.get("workflow_sha")), full=True)
        for call in part.calls:
            _print_call(console, found, call, full=full)
        for run in part.workflows:
            _line(console, f"  {workflow_line(run)}")
            _text(console, "error", run.get("error"), full=full)
        for told in part.feedback:
            line = f"{told.get('passed')} of {told.get('total')} passed, {told.get('verdict')}"
            _line(console, f"  feedback: {line}")
            _text(console, "errors", "\n".join(told.get("errors") or []), full=full)
        for note in part.notes:
            said = {k: v for k, v in note.items() if k not in HIDDEN}
            _line(console, f"  {note['kind']}: {json.dumps(said, ensure_ascii=False)}")
    _line(console, "")
    if found.result is None:
        _line(console, "no verdict yet", style="bold")
        return
    _text(console, "solution", found.text(found.result.get("solution_sha")), full=True)
    style = "bold green" if found.result.get("verdict") == "passed" else "bold red"
    _line(console, f"verdict: {verdict_line(found.result)}", style=style)
    _text(console, "detail", found.result.get("detail"), full=full)


HIDDEN = {"kind", "at", "run_no", "segment", "logged_at", "result_key", "problem_id", "sample",
          "round"}  # fmt: skip


def round_line(number: int, part: Trajectory) -> str:
    """A round's number, parent and feedback score as one line, without any text of a model."""
    line = f"round {number}"
    for one in part.rounds:
        if one.get("parent") is not None:
            line += f" · from round {one['parent']}"
        line += f" · score {percent(one['score'], 0)} %" if one.get("score") is not None else ""
        line += " · no feedback test" if one.get("score") is None and not one.get("error") else ""
        line += " · failed" if one.get("error") else ""
    return line


def workflow_line(run: Mapping[str, Any]) -> str:
    """What one execution of a workflow called, as one line."""
    calls, operators = run.get("calls"), ", ".join(run.get("operators") or []) or "none"
    unit = "model call" if calls == 1 else "model calls"
    return f"workflow executed: {count(calls)} {unit}; operators: {operators}"


def call_line(call: Mapping[str, Any]) -> str:
    """A call's number, role, model, tokens, time, fresh price and how it ended, as one line."""
    again = f", attempt {call['attempt']}" if (call.get("attempt") or 1) > 1 else ""
    cancelled = call.get("error_kind") == "cancelled"
    ended = " · cancelled" if cancelled else " · failed" if call.get("error") else ""
    tokens = f"{count(call.get('prompt_tokens'))} + {count(call.get('completion_tokens'))} tokens"
    kept = " · from the cache" if call.get("cached") else ""
    price = dollars(call.get("fresh_cost_usd", call.get("cost_usd")))
    return (
        f"call {call.get('call_no')}{again} · {call.get('role')} · {call.get('model')} · {tokens}"
        f" · {duration(call.get('latency_s'))} · {price}{kept}{ended}"
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
    _line(console, f"  {call_line(call)}", style="bold")
    prompt = request_text(found.text(call.get("request_sha")))
    _text(console, "prompt", prompt, full=full, tail=True)
    _text(console, "reply", found.text(call.get("response_sha")), full=full)
    if call.get("error"):
        _text(console, "error", f"{call.get('error_kind')}: {call['error']}", full=full)
    if call.get("finish") not in (None, "stop"):
        _line(console, f"    stopped by: {call['finish']}")


def _text(
    console: Console, title: str, text: str | None, *, full: bool, tail: bool = False
) -> None:
    """A titled, indented block; shortened to its head, or its tail, with the loss counted."""
    if not text:
        return
    lost = 0 if full else max(0, len(text) - SHORT)
    if lost:
        text = text[lost:] if tail else text[:-lost]
    _line(console, f"    {title}" + (f" (last {SHORT} characters)" if lost and tail else ""),
          style="dim")  # fmt: skip
    for line in text.rstrip("\n").split("\n"):
        _line(console, f"      {line}")
    if lost:
        more = "before this" if tail else "more"
        _line(console, f"      … {lost} characters {more}; --full shows all", style="dim")


def _line(console: Console, text: str, style: str = "") -> None:
    from rich.text import Text

    console.print(Text(plain(text), style=style), soft_wrap=True)
