"""A run in the terminal, read straight from its journal: no database, no browser."""

from __future__ import annotations

import difflib
import io
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import StoreError, UsageError
from harness.forecast import compared, from_dict
from harness.journal import regraded
from harness.metrics import Estimate, count, dollars, duration, pass_at_1, percent
from harness.page import console_for, line, things
from harness.show_rounds import print_rounds
from harness.show_sample import (
    print_trajectory,
    print_workflows,
    records_of,
    trajectories,
)
from harness.show_search import (
    artifact_line,
    attempt_title,
    bill_of,
    print_search,
    search_cost,
    search_line,
    spent_line,
    trials_of,
)
from harness.store import (
    MIXED,
    find_run,
    is_simulated,
    named_in,
    out_option,
    plain,
    read_run_json,
    session_row,
    standing,
    writer_is_gone,
)

if TYPE_CHECKING:
    from rich.console import Console

OTHER_WIDTH = 70  # columns of the table of samples without its detail
DETAIL_WIDTH = 80  # characters of a verdict's detail in the table of samples
NAMED = 10  # problems left out for one reason that are named
DIGESTED = {  # how the data of an imported run is known, by `digest_by` of its origin
    "hash": "by the file's own hash",
    "texts": "by the texts of its problems",
    "ids": "by the ids of its problems alone",
}


def show_run(
    results_dir: Path,
    run_id: str,
    out: Console | Callable[[str], object] | None = None,
    problem: str | None = None,
    *,
    sample: int | None = None,
    full: bool = False,
    workflow: bool = False,
) -> None:
    """Print a run or a search: its head, its score and its samples, or one `problem` of it.

    `out` is where to (default: stdout, in colour on a terminal), or takes the text line by line;
    `problem` is an id or what follows its slash, "0" for "HumanEval/0"; `sample` picks one draw of
    it; `full` prints texts in their whole length; `workflow` draws the workflows instead of telling
    the trajectory. Raises UsageError for an unknown run or problem, a `sample` without its problem,
    or where nothing can be drawn, StoreError when run.json cannot be read.
    """
    from rich.console import Console

    if callable(out):
        buffer = io.StringIO()
        show_run(
            results_dir, run_id, Console(file=buffer), problem,
            sample=sample, full=full, workflow=workflow,
        )  # fmt: skip
        for text in buffer.getvalue().splitlines():
            out(text)
        return
    if problem is None and sample is not None:
        raise UsageError("--sample is one draw of a problem: add --problem")
    console = console_for(out)
    run_dir = find_run(results_dir, run_id)
    head = read_run_json(run_dir)
    option = out_option(results_dir)
    search = head.get("stage") == "fit"
    if problem is None:
        if workflow and not search:
            run_dir, head = _search_of(run_dir, head)
        _print_run(console, run_dir, head, option, workflow=workflow, full=full)
        return
    problem_id = _known_problem(run_dir, problem, option)
    if search:
        _print_attempts(console, run_dir, problem_id, full=full)
        return
    found = trajectories(run_dir, problem_id, lambda record: record["sample"])
    found.sort(key=lambda one: one[1].sample)
    chosen = [one for _, one in found if sample in (None, one.sample)]
    if not chosen:
        drawn = ", ".join(str(one.sample) for _, one in found)
        raise UsageError(f"{run_id}: no sample {sample} of {problem}; it has {drawn}")
    for one in chosen:
        draw = f", sample {one.sample}" if one.sample else ""
        title = f"{one.problem_id}{draw} in {one.run_id}"
        if not workflow:
            print_trajectory(console, title, one, full=full)
        elif not print_workflows(console, title, one):
            raise UsageError(
                f"{run_dir.name}: {problem} has no workflow of its own to draw; without --problem, "
                "that of the search behind it is drawn, where there was one"
            )


def _search_of(run_dir: Path, head: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The search that a run rests on. Raises UsageError: there was none, or it is not here."""
    name = (head.get("artifact") or {}).get("run")
    if not name:
        raise UsageError(f"{run_dir.name}: --workflow draws one problem's workflows: add --problem")
    found = run_dir.parent / str(name)
    if found.parent != run_dir.parent or not (found / "run.json").is_file():
        raise UsageError(f"{run_dir.name}: its search, {name}, is not under {run_dir.parent}")
    return found, read_run_json(found)


def _print_attempts(console: Console, run_dir: Path, problem: str, *, full: bool) -> None:
    """Every attempt of a search at a problem."""
    trials = {
        str(trial["result_key"]): trial
        for trial in trials_of(record for _, record in records_of(run_dir))
    }
    for key, one in trajectories(run_dir, problem, lambda record: str(record.get("result_key"))):
        one.notes = [note for note in one.notes if note["kind"] != "trial"]
        title = attempt_title((problem, key), trials)
        print_trajectory(console, title, one, full=full, judged=False)


def list_runs(results_dir: Path, out: Console | None = None) -> None:
    """Print a line for every run: name, state, what is left, protocol, score. Oldest first."""
    console = console_for(out)
    runs = results_dir / "runs"
    found = [p for p in runs.iterdir() if (p / "run.json").is_file()] if runs.is_dir() else []
    if not found:
        line(console, f"no runs under {runs}; `python -m harness eval` makes one")
    heads, unreadable = {}, []
    for run_dir in sorted(found):
        try:
            heads[run_dir] = read_run_json(run_dir)
        except StoreError as error:
            unreadable.append(str(error))
    for run_dir, head in sorted(heads.items(), key=lambda item: item[1].get("started_at") or 0):
        rows, state = _state(run_dir, head)
        name = named_in(head)
        extra = name not in (head.get("method"), "unknown")
        called = f"{run_dir.name}  " + (f"{name}  " if extra else "")
        if head.get("stage") == "fit":
            told = search_line([record for _, record in records_of(run_dir)])
            remarks = "".join(f"  [{remark}]" for remark in _remarks(head))
            line(console, f"{called}{state['status']}  search: {told}{remarks}")
            continue
        asked = state["samples_asked"]
        done = f"{len(rows)}/{asked if asked is not None else '?'}"
        done += f", {state['samples_left']} left" if state["samples_left"] else ""
        score = score_line(_estimate(rows), *_remarks({**head, **state}))
        under = "".join(f"{head[n]} " for n in ("protocol", "level") if head.get(n) is not None)
        under, before = f"  {under.strip()}" if under else "", ""
        if artifact := head.get("artifact"):
            before = f"  search before it: {search_cost(artifact)}"
        line(console, f"{called}{state['status']} {done}{under}  {score}{before}")
    for said in unreadable:
        line(console, said)


def _known_problem(run_dir: Path, problem: str, out: str) -> str:
    """The id of a problem that the run has a record of. Raises UsageError, naming near ones."""
    ids = {str(r["problem_id"]) for _, r in records_of(run_dir) if r.get("problem_id") is not None}
    known = sorted(ids, key=lambda name: _natural(name, 0))
    short = {name.rpartition("/")[2]: name for name in known}
    if problem in known or problem in short:
        return problem if problem in known else short[problem]
    wanted = problem if "/" in problem or not known else f"{known[0].rpartition('/')[0]}/{problem}"
    near = difflib.get_close_matches(wanted, known, n=5, cutoff=0.4) or known[:5]
    raise UsageError(
        f"{run_dir.name}: no record of {problem}; near it: {', '.join(near) or 'none'}; "
        f"`python -m harness show {_pasted(run_dir.name)}{out}` lists its samples"
    )


def _print_run(
    console: Console,
    run_dir: Path,
    told: dict[str, Any],
    out: str,
    *,
    workflow: bool = False,
    full: bool = False,
) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows, state = _state(run_dir, told)
    head, asked = {**told, **state}, state["samples_asked"]
    line(console, str(head.get("run_id")), style="bold")
    for name, value in _words(head):
        line(console, f"  {name:<10} {value}")
    if head.get("stage") == "fit":
        remarks = "".join(f"  [{remark}]" for remark in _remarks(head))
        took = duration(state["session_s"])
        line(console, f"  {'status':<10} {state['status']}, after {took}{remarks}")
        if state["status"] not in ("complete", "running"):
            line(console, f"  {'go on':<10} python -m harness resume {_pasted(run_dir.name)}{out}")
        line(console, "")
        records = [record for _, record in records_of(run_dir)]
        bill = bill_of(records)
        paid = paid_line(bill.cost_usd, bill.fresh_cost_usd, bill.cached_calls, bill.calls)
        spent = [spent_line(bill.calls, bill.tokens, bill.fresh_cost_usd)]
        spent += [paid] if paid else []
        print_search(console, run_dir, records, spent, out, workflow=workflow, full=full)
        return
    done = f"{len(rows)} of {things(asked, 'sample')}" if asked is not None else (
        things(len(rows), "sample"))  # fmt: skip
    if left := state["samples_left"]:
        done += f", {left} left"
    line(console, f"  {'status':<10} {state['status']}, {done}")
    if left and state["status"] != "running":
        line(console, f"  {'go on':<10} python -m harness resume {_pasted(run_dir.name)}{out}")
    line(console, "")
    line(console, score_line(_estimate(rows), *_remarks(head)))
    for said in _part_lines(rows, imported=head.get("kind") == "imported"):
        line(console, said)
    counted = Counter(str(row.get("verdict")) for row in rows)
    if counted:
        line(console, "verdicts: " + ", ".join(f"{n} {v}" for v, n in counted.most_common()))
    kinds = Counter(str(row.get("error_kind") or "unknown") for row in rows
                    if row.get("verdict") == "invalid")  # fmt: skip
    if kinds:
        line(console, f"errors: {kinds_line(kinds)}")
    for said in _spent_lines(rows, state):
        line(console, said)
    line(console, "")
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
    print_rounds(console, run_dir, told)
    if rows:
        line(console, f"One problem in full: python -m harness show {_pasted(run_dir.name)} "
                       f"--problem {_pasted(rows[0].get('problem_id'))}{out}")  # fmt: skip


def _pasted(name: object) -> str:
    """A name as a word of a command that somebody may paste."""
    return shlex.quote(plain(str(name)))


def _state(run_dir: Path, head: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(result of every sample in the benchmark's order, what the sessions come to)."""
    last: dict[str, tuple[int, dict[str, Any]]] = {}
    again: dict[tuple[str, int], dict[str, Any]] = {}  # what graded a sample another time
    sessions: list[dict[str, Any]] = []
    told: Any = None  # the last forecast
    wall_s, began, last_at = 0.0, None, None
    for segment, record in records_of(run_dir):
        key = str(record.get("result_key"))
        if record["kind"] == "result":
            last[key] = segment, record
            again.pop((str(record.get("problem_id")), _draw(record)), None)
        elif record["kind"] == "verdict" and key in last:
            of, result = last[key]
            if (later := regraded(result, record)) is not result:
                again[str(result.get("problem_id")), _draw(result)] = record
            last[key] = of, later
        elif record["kind"] == "session":
            with suppress(ValueError):  # a broken line, left out as the database does
                session = session_row(segment, record)
                sessions.append(session)
                told, at = record.get("forecast") or told, session["logged_at"]
                if session["event"] == "start":  # one before that did not end lasted that long
                    wall_s, began = wall_s + _between(began, last_at), at
                else:
                    wall_s, began = wall_s + _between(began, at), None
        if isinstance(record.get("at"), int | float):
            last_at = record["at"]
    wall_s += _between(began, last_at)
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
    rows = [row for _, row in last.values()]
    graders = [row.get("grader_version") or head.get("grader_version") for row in rows]
    state = standing(head, sessions, found, again=again, graders=graders)
    if state["status"] == "running" and writer_is_gone(run_dir):
        state["status"] = "interrupted"
    rows.sort(key=lambda r: _natural(str(r.get("problem_id")), _draw(r)))
    spent = {"forecast": told, "session_s": wall_s}
    return rows, {**state, **spent, "status": state["status"] or "not started"}


def _between(start: float | None, end: float | None) -> float:
    """Seconds from one to the other; nothing where either is not known."""
    return 0.0 if start is None or end is None else max(0.0, end - start)


def _remarks(head: Mapping[str, Any]) -> list[str]:
    """What keeps a run out of every ranking, whatever its score."""
    mixed = [
        f"not ranked: {what} {head[name]}"
        for what, name in (("sandbox", "sandbox"), ("grader", "grader_version"))
        if str(head.get(name)).startswith(MIXED)
    ]
    return [
        *(["custom data"] if head.get("custom") else []),
        *(["simulated: says nothing about a model"] if is_simulated(head) else []),
        *(["first look, not a score"] if head.get("first_look") else []),
        *(["imported: not ranked"] if head.get("kind") == "imported" else []),
        *mixed,
    ]


def score_line(estimate: Estimate, *remarks: str) -> str:
    """pass@1 with its interval, what it rests on and any remarks, as one line."""
    if estimate.value is None:
        line = "pass@1 unknown: no sample has a verdict yet"
    else:
        line = (
            f"pass@1 {percent(estimate.value)} % "
            f"(95% interval {percent(estimate.low)} to {percent(estimate.high)}), "
            f"{things(estimate.problems, 'problem')}, {things(estimate.samples, 'sample')}"
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
    line = f"{cached:,} of {things(calls, 'call')} came from the cache"
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
    yield spent_line(calls, tokens, fresh)
    if said := paid_line(total("cost_usd"), fresh, total("cached_calls") or 0, calls or 0):
        yield said
    if state["forecast"] is None or state["status"] != "complete" or calls is None:
        return
    with suppress(ValueError):  # of a newer harness
        told = from_dict(state["forecast"])
        yield compared(told, calls=calls, tokens=tokens, usd=fresh, wall_s=state["session_s"])


def _part_lines(rows: list[dict[str, Any]], *, imported: bool) -> Iterator[str]:
    """The scores beside pass@1: over further final runs, on parts of the tests.

    Of an imported run it is not known which of its tests no feedback test repeats.
    """
    if any(row.get("reruns") for row in rows):
        every = [
            {**row, "verdict": v}
            for row in rows
            for v in (row.get("verdict"), *(row.get("reruns") or ()))
        ]
        again = any(row.get("regrades") and row.get("reruns") for row in rows)
        said = ", the further ones by the grader that graded them first" if again else ""
        yield f"over all final runs{said}: {score_line(_estimate(every))}"
    fresh = _estimate([row for row in rows if row.get("fresh") is not None], "fresh")
    if fresh.value is not None:
        yield f"on hidden tests that no feedback test repeats: {score_line(fresh)}"
    elif not imported and any("fresh" in r and r.get("verdict") != "invalid" for r in rows):
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

    def said(name: str) -> object:
        return "unknown" if head.get(name) is None else head[name]

    digest = str(head.get("benchmark_digest") or "")[:8]
    parts = [head.get("benchmark"), f"list {head['list']}" if head.get("list") else "",
             f"digest {digest}" if digest else "",
             "custom data" if head.get("custom") else ""]  # fmt: skip
    yield "benchmark", ", ".join(str(x) for x in parts if x)
    if isinstance(origin := head.get("origin"), Mapping):
        yield "origin", origin_line(origin, digest)
    knobs = ", ".join(f"{k}={v}" for k, v in (head.get("knobs") or {}).items())
    yield "method", f"{said('method')}" + (f" ({knobs})" if knobs else "")
    if artifact := head.get("artifact"):
        yield "search", artifact_line(artifact)
    for role, made in (head.get("roles") or {}).items():
        sampling = ", ".join(f"{k} {v}" for k, v in (made.get("sampling") or {}).items()
                             if v is not None)  # fmt: skip
        yield role, f"{made.get('model') or 'unknown'}" + (f" ({sampling})" if sampling else "")
    yield "protocol", f"{said('protocol')}, level {said('level')}"
    drawn = "" if head.get("stage") == "fit" else f"{said('n_samples')} per problem, "
    yield "sampling", f"{drawn}seed {said('seed')}"
    environment = f", environment {head['environment']}" if head.get("environment") else ""
    yield "sandbox", f"{said('sandbox')}, grader {said('grader_version')}{environment}"
    if left_out := _left_out(head.get("left_out")):
        yield "left out", left_out
    if isinstance(started := head.get("started_at"), int | float):
        yield "started", datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d %H:%M UTC")
    dirty = ", with uncommitted changes" if head.get("dirty") else ""
    commit = re.sub(r"\b([0-9a-f]{12})[0-9a-f]+", r"\1", str(head.get("commit") or "unknown"))
    yield "harness", f"{said('harness_version')}, commit {commit}{dirty}"
    if command := head.get("command"):
        yield "command", " ".join(command) if isinstance(command, list) else str(command)


def origin_line(origin: Mapping[str, Any], digest: str) -> str:
    """Where an imported run comes from: who graded it, of which file, and how its data is known."""
    tool = str(origin.get("tool") or "unknown")
    if "version" in origin and origin["version"] is None:
        tool += ", version unknown"
    file = f"{origin.get('format') or 'unknown'} file {origin.get('file') or 'unknown'}"
    known = DIGESTED.get(str(origin.get("digest_by")), "as the file says" if digest else "unknown")
    return f"{tool}; {file}, sha256 {str(origin.get('sha256') or 'unknown')[:12]}; data {known}"


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
