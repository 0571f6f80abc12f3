"""The page of one search on the static site: what it tried, with its code, as escaped text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.metrics import count, dollars, percent
from harness.page import things
from harness.show_search import step_table
from harness.tree import node_words, tree_text
from leaderboard.records import Texts
from leaderboard.search_rows import Attempt, SearchRow
from leaderboard.site_html import Cell, block, folded, labelled, link, page, table, text
from leaderboard.site_sample import reader

CODES = 200  # candidates of a search whose code stands on its page
LISTED = 5000  # attempts that it lists
DETAIL = 120  # characters of what a grader said


def search_page(
    row: SearchRow,
    steps: Sequence[Mapping[str, float]],
    tried: Sequence[Attempt],
    texts: Texts,
    rows: Mapping[str, str],
    up: str,
) -> str:
    """A search: its candidates as a tree, their code, its steps and its attempts.

    `rows` are the addresses of the runs' pages, by run; `up` leads to the site's folder.
    """
    body = []
    if row.kind != "measured":
        body.append(f"<p><strong>This search is {text(row.kind)}.</strong></p>")
    body += [f"<p>{text(_words(row))}</p>", _rest(row, rows, up)]
    if row.nodes:
        body += _candidates(row, texts)
    if steps:
        names, lines = step_table(steps)
        cells = [[text(cell) for cell in line] for line in lines]
        body += ["<h2>Training</h2>", table("Numbers by step", names, cells, numbers=names[1:])]
    if tried:
        body += _attempts(tried)
    facts = {
        "Worker": row.worker, "Meta-agent": row.meta or "none", "List": row.list,
        "Protocol": row.protocol, "Level": row.level, "Status": row.status, "Knobs": row.knobs,
        "Command": row.command, "Search": row.run_id,
    }  # fmt: skip
    told = [[Cell(text(name)), Cell(text("unknown" if value is None else value), "wide")]
            for name, value in facts.items()]  # fmt: skip
    body += ["<h2>How this search was made</h2>", table("Settings", ["Setting", "Value"], told)]
    return page(f"Search of {row.named} on {row.benchmark}", body, up=up)


def _words(row: SearchRow) -> str:
    words = ["Made before any row: no score, in no ranking"]
    if row.best is not None:
        words.append(f"its best candidate solves {percent(row.best.score)} % of its problems")
    if row.trials:
        words.append(f"{things(row.trials, 'attempt')} at {things(row.problems, 'problem')}")
    if row.calls:
        words.append(f"{things(row.calls, 'call')}, {count(row.tokens)} tokens, "
                     f"{dollars(row.fresh_cost_usd)}")  # fmt: skip
    return "; ".join(words) + "."


def _rest(row: SearchRow, rows: Mapping[str, str], up: str) -> str:
    """Links to the rows that rest on a search."""
    if not row.used_by:
        return '<p class="note">No row rests on it yet.</p>'
    links = [
        link(f"{up}runs/{rows[run_id]}/index.html", run_id) if run_id in rows else text(run_id)
        for run_id in row.used_by
    ]
    return f"<p>Rows that rest on it: {', '.join(links)}.</p>"


def _candidates(row: SearchRow, texts: Texts) -> list[str]:
    note = "Each under the one that it was made of, with its score on search problems; * the best."
    body = ["<h2>Candidates</h2>", f'<p class="note">{note}</p>', block(tree_text(row.nodes))]
    read = reader(texts)
    shown = row.nodes[:CODES]
    texts.find(node.workflow_sha for node in shown)
    for node in shown:
        body.append(
            folded(
                f"{node.number}: {node_words(node)}", labelled("What it is", node.label),
                labelled("Error", node.error), labelled("Code", read(node.workflow_sha)),
            )
        )  # fmt: skip
    if len(row.nodes) > len(shown):
        body.append(f'<p class="note">The code of the first {CODES} is shown.</p>')
    return body


def _attempts(tried: Sequence[Attempt]) -> list[str]:
    heads = ["Problem", "Attempt", "Passed", "Share of tests", "Calls", "Tokens", "Dollars",
             "Detail"]  # fmt: skip
    lines: list[list[str | Cell]] = []
    for one in tried[:LISTED]:
        detail = " ".join((one.detail or "").split())
        cut = detail[:DETAIL] + ("…" if len(detail) > DETAIL else "")
        lines.append(
            [text(one.problem_id), text(one.label or ""), "✓" if one.passed else "✗",
             text(percent(one.share)), text(count(one.calls)), text(count(one.tokens)),
             text(dollars(one.usd)), Cell(text(cut), "wide")]
        )  # fmt: skip
    body = ["<h2>Attempts</h2>", table("Attempts", heads, lines, numbers=heads[3:7])]
    if len(tried) > LISTED:
        body.append(f'<p class="note">The first {LISTED:,} of {len(tried):,} are listed.</p>')
    return body
