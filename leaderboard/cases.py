"""Case studies: workflows of a run that stated rules choose, as listings for a paper.

The counterpart of FlowReasoner's figures 5 to 11 (arXiv:2504.15257). Nothing is picked by hand:
each case says by which rules it was found, ties go to the earlier problem of the benchmark and then
to the earlier round, so that the same results give the same cases. A workflow's size is the number
of operators that its executions called, on average; texts come from the journal.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.metrics import count, percent
from harness.page import things
from harness.schema import natural
from harness.store import called, plain, read_artifact
from leaderboard.export import markdown_text, tex_text
from leaderboard.queries import BoardRow, board

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

METHOD = "flowreasoner"
COMMAND = "python -m harness eval --method flowreasoner -b humaneval"
EMPTY = hashlib.sha256(b"").hexdigest()  # what a reply in which no workflow was found is kept as
LINES, WIDTH = 80, 92  # of a listing: lines in all, characters of a line

# The last record of each round of a run, with its size; `written` is false of the template.
ROUNDS = f"""
WITH last AS (
  SELECT DISTINCT ON (result_key, round) * FROM rounds
  WHERE run_no = (SELECT run_no FROM runs WHERE run_id = ?) AND round IS NOT NULL
        AND about IS NULL
  ORDER BY result_key, round, segment DESC, logged_at DESC, rowid DESC
), ran AS (
  SELECT result_key, round, avg(calls) AS calls,
         avg(json_array_length(operators)) AS operators
  FROM workflows
  WHERE run_no = (SELECT run_no FROM runs WHERE run_id = ?) AND about IS NULL AND error IS NULL
  GROUP BY ALL
), chosen AS (
  SELECT result_key, max((fields ->> '$.round')::INTEGER) AS round FROM notes
  WHERE run_no = (SELECT run_no FROM runs WHERE run_id = ?) AND kind = 'chosen'
  GROUP BY result_key
), first AS (  -- where no note says which round was chosen: the best by feedback, the earliest
  SELECT result_key, arg_min(round, (-score, round)) AS round FROM last
  WHERE error IS NULL AND score IS NOT NULL GROUP BY result_key
)
SELECT last.problem_id, last.sample, last.round, last.parent, last.score, last.error,
       last.error_class, last.workflow_sha, last.prompts_sha, last.modification,
       NOT (last.parent IS NULL AND last.reply_sha IS NULL AND last.error IS NULL) AS written,
       coalesce(last.round = coalesce(chosen.round, first.round), false) AS chosen,
       ran.calls, ran.operators, results.verdict
FROM last LEFT JOIN ran USING (result_key, round) LEFT JOIN chosen USING (result_key)
     LEFT JOIN first USING (result_key)
     LEFT JOIN (SELECT * FROM results
                WHERE run_no = (SELECT run_no FROM runs WHERE run_id = ?)) AS results
       USING (result_key)
ORDER BY {natural("last")},
         last.sample, last.round
"""


@dataclass(frozen=True)
class RoundRow:
    """One round of one sample: what became of the workflow that it tried."""

    problem_id: str
    sample: int
    round: int
    parent: int | None
    score: float | None  # feedback, a share; None: no feedback test
    error: str | None
    error_class: str | None
    workflow_sha: str | None
    prompts_sha: str | None
    modification: str | None
    written: bool  # by the meta-agent; else it is the template
    chosen: bool  # the one that the answer comes from
    calls: float | None  # model calls of an execution, on average
    operators: float | None  # that an execution called, on average
    verdict: str | None  # of the sample


@dataclass(frozen=True)
class Case:
    """One workflow with why it is shown."""

    rule: str  # by which it was chosen, in words
    run_id: str
    problem_id: str
    sample: int
    round: int
    facts: tuple[str, ...]  # score, verdict, size, in words
    error: str | None
    code: str | None  # of the workflow; None: the reply held none
    prompts: str | None


def round_rows(connection: DuckDBPyConnection, run_id: str) -> list[RoundRow]:
    """Every round of a run's own workflows, in the order of the benchmark."""
    found = connection.execute(ROUNDS, [run_id] * 4).fetchall()
    return [RoundRow(*row) for row in found]


def searched(
    connection: DuckDBPyConnection, runs: Sequence[str] | None, what: str
) -> list[BoardRow]:
    """The runs named, or all measured ones of FlowReasoner, the newest first.

    Raises UsageError where there is none, or a name fits none.
    """
    rows = board(connection)
    if runs is not None:
        found = []
        for name in runs:
            names = called(name, [row.run_id for row in rows])
            fits = [row for row in rows if row.run_id in names]
            if len(fits) != 1:
                raise UsageError(
                    f"{name}: {'several runs are called so' if fits else 'no such evaluation'}; "
                    "`python -m harness list runs` names them"
                )
            found += fits
    else:
        found = [row for row in rows if row.method == METHOD and row.unranked is None]
        found = [row for row in found if own_workflows(row)]
        found.sort(key=lambda row: (-(row.started_at or 0.0), row.run_id))
    if not found:
        raise UsageError(
            f"{what}: no complete measured run of flowreasoner; `{COMMAND}` makes one, or --runs "
            "names others"
        )
    return found


def own_workflows(row: BoardRow) -> bool:
    """Whether each problem is answered by the workflow that was searched for it."""
    return bool(json.loads(row.knobs or "{}").get("workflow", "own") == "own")


def find_cases(
    connection: DuckDBPyConnection, results_dir: Path, run_id: str | None = None
) -> list[Case]:
    """The cases of a run, or of the newest run of FlowReasoner on the most problems.

    A rule that nothing satisfies gives no case. Raises UsageError without a run that has rounds.
    """
    found = searched(connection, None if run_id is None else [run_id], "cases")
    row = max(found, key=lambda one: (one.estimate.problems, one.started_at or 0.0, one.run_id))
    rounds = round_rows(connection, row.run_id)
    if not rounds:
        raise UsageError(f"cases: {row.run_id} has no rounds of workflows; `{COMMAND}` makes some")
    picked = _together(_picked(rounds, _failed_by_vanilla(connection, row)))
    shas = [sha for _, one, _ in picked for sha in (one.workflow_sha, one.prompts_sha) if sha]
    texts = _texts(connection, results_dir, row.run_id, shas)
    return [
        Case(
            rule, row.run_id, one.problem_id, one.sample, one.round, (*_facts(one), *more),
            one.error, texts.get(one.workflow_sha or ""),
            (texts.get(one.prompts_sha or "") or "").strip() or None,
        )
        for rule, one, more in picked
    ]  # fmt: skip


def _picked(
    rounds: Sequence[RoundRow], failed: Mapping[str, str]
) -> Iterable[tuple[str, RoundRow, tuple[str, ...]]]:
    """(rule, round, further facts) of each rule that something satisfies."""
    samples: dict[tuple[str, int], list[RoundRow]] = {}
    for one in rounds:
        samples.setdefault((one.problem_id, one.sample), []).append(one)
    gains = []
    for of_sample in samples.values():
        by_number = {one.round: one for one in of_sample}
        for one in of_sample:
            parent = by_number.get(one.parent or 0)
            if one.score is not None and parent is not None and parent.score is not None:
                gains.append((one.score - parent.score, one, parent))
    most = max((gain for gain, _, _ in gains), default=0.0)
    for gain, one, parent in gains:
        if gain == most > 0:
            told = f"its parent, round {parent.round}, had {percent(parent.score)} %"
            yield "the largest gain in feedback over the workflow that it was made of", one, (told,)
            break
    chosen = [one for one in rounds if one.chosen]
    for one in chosen:
        if one.verdict == "passed" and one.problem_id in failed and one.written:
            yield (
                "the first problem solved by a workflow of the meta-agent that vanilla fails",
                one,
                (f"vanilla's verdict: {failed[one.problem_id]}",),
            )
            break
    sized = [one for one in chosen if one.operators is not None and one.written]
    sizes = [(one.operators or 0.0, one.calls or 0.0) for one in sized]
    if sized:
        yield "the smallest workflow chosen", sized[sizes.index(min(sizes))], ()
        if max(sizes) > min(sizes):
            yield "the largest workflow chosen", sized[sizes.index(max(sizes))], ()
    for one in rounds:
        if one.error is not None and one.written and one.workflow_sha not in (None, EMPTY):
            yield "the first workflow that broke", one, ()
            break


def _together(
    picked: Iterable[tuple[str, RoundRow, tuple[str, ...]]],
) -> list[tuple[str, RoundRow, tuple[str, ...]]]:
    """A round that several rules chose once, with all of them."""
    found: dict[RoundRow, tuple[list[str], list[str]]] = {}
    for rule, one, more in picked:
        rules, facts = found.setdefault(one, ([], []))
        rules.append(rule)
        facts.extend(more)
    return [("; ".join(rules), one, tuple(facts)) for one, (rules, facts) in found.items()]


def _failed_by_vanilla(connection: DuckDBPyConnection, row: BoardRow) -> dict[str, str]:
    """{problem: verdict} of what the newest vanilla run of the same ranking and worker fails."""
    fits = [
        other
        for other in board(connection)
        if (other.method, other.worker, other.ranking) == ("vanilla", row.worker, row.ranking)
        and other.unranked is None
    ]
    if not fits:
        return {}
    newest = max(fits, key=lambda other: (other.started_at or 0.0, other.run_id))
    found = connection.execute(
        "SELECT problem_id, arg_min(verdict, sample) FROM results "
        "WHERE run_no = (SELECT run_no FROM runs WHERE run_id = ?) AND verdict <> 'invalid' "
        "GROUP BY problem_id HAVING count(*) FILTER (verdict = 'passed') = 0",
        [newest.run_id],
    ).fetchall()
    return dict(found)


def _facts(one: RoundRow) -> list[str]:
    words = [f"round {one.round}"]
    words.append("no feedback test" if one.score is None else f"feedback {percent(one.score)} %")
    if one.operators is not None and one.calls is not None:
        words.append(f"operators {count(one.operators)}, calls {count(one.calls)} a run")
    if one.chosen:
        words.append(f"answer {one.verdict or 'not graded'}")
    return words


def _texts(
    connection: DuckDBPyConnection, results_dir: Path, run_id: str, shas: Sequence[str]
) -> dict[str, str]:
    """{digest: text} from the journal. Raises StoreError when it is gone or changed."""
    places = connection.execute(
        "SELECT DISTINCT ON (sha256) sha256, path, start, bytes FROM artifacts "
        "WHERE run_no = (SELECT run_no FROM runs WHERE run_id = ?) "
        "AND sha256 IN (SELECT unnest(?::TEXT[]))",
        [run_id, list(shas)],
    ).fetchall()
    return {sha: read_artifact(results_dir, *place) for sha, *place in places}


def listing(code: str, most: int = LINES, width: int = WIDTH) -> list[str]:
    """The lines of a program as they are printed: no control characters, long ones cut in two."""
    lines = []
    for line in code.expandtabs(4).rstrip("\n").split("\n"):
        said = plain(line).rstrip()
        indent = " " * min(len(said) - len(said.lstrip()) + 4, width // 2)
        lines.append(said[: (end := _break(said, width))])
        rest = said[end:].lstrip()
        while rest:
            end = _break(rest, width - len(indent))
            lines.append(indent + rest[:end])
            rest = rest[end:].lstrip()
    if len(lines) > most:
        lines = [*lines[: most - 1], f"... {things(len(lines) - most + 1, 'more line')}"]
    return lines


def _break(said: str, width: int) -> int:
    """Where a line of at most `width` characters ends: after a space that stands late in it."""
    if len(said) <= width:
        return len(said)
    return max(said.rfind(" ", width * 3 // 4, width) + 1, 0) or width


def _parts(case: Case) -> list[tuple[str, str]]:
    """(caption, text) of what is listed for a case."""
    parts = [("Workflow", case.code)] if case.code else [("Workflow", "(the reply held none)")]
    if case.prompts:
        parts.append(("Prompts", case.prompts))
    if case.error:
        parts.append(("Error", case.error))
    return parts


def _head(number: int, case: Case) -> str:
    return f"Case {number}: {case.rule}"


def _where(case: Case) -> str:
    return f"{case.problem_id}, sample {case.sample}; {'; '.join(case.facts)}; run {case.run_id}"


def latex(cases: Sequence[Case]) -> str:
    """Listings in the environment `verbatim`, which base LaTeX has; pages break within them.

    Letters beyond ASCII stand as Python's escapes, and `\\end{verbatim}` with a space in it.
    """
    lines = []
    for number, case in enumerate(cases, 1):
        lines += [rf"\paragraph{{{tex_text(_head(number, case))}.}} {tex_text(_where(case))}.", ""]
        for caption, said in _parts(case):
            body = "\n".join(listing(said)).encode("ascii", "backslashreplace").decode()
            body = body.replace(r"\end{verbatim}", r"\end {verbatim}")
            lines += [rf"\noindent {caption}:", r"{\scriptsize\begin{verbatim}", body,
                      r"\end{verbatim}}", ""]  # fmt: skip
    return "\n".join(lines)


def markdown(cases: Sequence[Case]) -> str:
    """Listings in fenced blocks, whose fences are longer than any in them."""
    lines = []
    for number, case in enumerate(cases, 1):
        lines += [f"### {markdown_text(_head(number, case))}", "", markdown_text(_where(case)), ""]
        for caption, said in _parts(case):
            body = "\n".join(listing(said))
            fence = "`" * max(3, _longest_run(body, "`") + 1)
            language = "python" if caption != "Error" else ""
            lines += [f"{caption}:", "", fence + language, body, fence, ""]
    return "\n".join(lines)


def _longest_run(said: str, mark: str) -> int:
    longest = run = 0
    for ch in said:
        run = run + 1 if ch == mark else 0
        longest = max(longest, run)
    return longest


def html_text(cases: Sequence[Case]) -> str:
    """Listings as preformatted text, escaped."""
    lines = []
    for number, case in enumerate(cases, 1):
        lines += ["<section>", f"<h3>{html.escape(_head(number, case))}</h3>",
                  f"<p>{html.escape(_where(case))}</p>"]  # fmt: skip
        for caption, said in _parts(case):
            body = html.escape("\n".join(listing(said)))
            lines += [f"<p>{caption}</p>", f"<pre><code>{body}</code></pre>"]
        lines.append("</section>")
    return "\n".join([*lines, ""])


WRITERS: dict[str, Callable[[Sequence[Case]], str]] = {
    "latex": latex, "markdown": markdown, "html": html_text,
}  # fmt: skip


def cases_text(
    connection: DuckDBPyConnection, results_dir: Path, format: str, *, run_id: str | None = None
) -> str:
    """The cases as `latex`, `markdown` or `html`. Raises UsageError: unknown format, or no run."""
    if format not in WRITERS:
        raise UsageError(f"{format}: unknown format of cases; one of {', '.join(WRITERS)}")
    found = find_cases(connection, results_dir, run_id)
    return WRITERS[format](found)
