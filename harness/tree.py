"""A search drawn from its nodes: AFlow's tree of rounds, ADAS's archive, one problem's rounds.

`tree_text` draws for a terminal, `tree_dot` for Graphviz; labels are text and nothing else, as in
`harness.graph`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.graph import quoted, shown
from harness.metrics import percent

DRAWN = 500  # nodes of one search; what is more is counted
DEEPEST = 15  # levels that are indented
WORDS = 100  # characters of a score with its error
SINGLES = "workflows of single problems"  # what some searches find, and none of them is the best
OWN = {"at", "sample", "round", "run_no", "segment", "logged_at"}  # numbers of any record


@dataclass(frozen=True)
class SearchNode:
    """A candidate of a search: a round of a tree, or a member of an archive."""

    number: int
    parent: int | None = None  # of what it was made
    label: str = ""
    score: float | None = None  # in [0, 1]
    low: float | None = None  # of its interval
    high: float | None = None
    error: str | None = None  # why it has no good score
    workflow_sha: str | None = None  # of its text
    about: str | None = None  # the one problem that it is for; None: for all


def nodes_of(records: Iterable[Mapping[str, Any]]) -> list[SearchNode]:
    """The nodes among a search's records, by number; of one noted again, the last holds."""
    found: dict[int, SearchNode] = {}
    for record in records:
        number = record.get("number")
        if record["kind"] == "node" and isinstance(number, int):
            told = {name: record.get(name) for name in SearchNode.__dataclass_fields__}
            found[number] = SearchNode(**{**told, "label": str(told["label"] or "")})  # type: ignore[arg-type]
    return [found[number] for number in sorted(found)]


def steps_of(records: Iterable[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The steps of a search's training by number, their numbers by name; the last note holds."""
    found: dict[int, dict[str, float]] = {}
    for record in records:
        if record["kind"] == "step" and isinstance(record.get("number"), int):
            found[record["number"]] = {
                name: value
                for name, value in record.items()
                if name not in OWN and isinstance(value, int | float)
            }
    return [found[number] for number in sorted(found)]


def best_of(nodes: Iterable[SearchNode]) -> SearchNode | None:
    """The node with the best score; the higher lower bound, then the earlier one, on ties.

    Those for one problem each are not compared: their scores are on other problems.
    """
    scored = [node for node in nodes if node.score is not None and node.about is None]
    return max(
        scored, key=lambda n: (n.score or 0.0, -1.0 if n.low is None else n.low, -n.number),
        default=None,
    )  # fmt: skip


def best_words(nodes: Sequence[SearchNode]) -> str | None:
    """What a search found, in a few words; None where nothing can be said of it yet."""
    best = best_of(nodes)
    if best is not None:
        return f"best {best.number}: {node_words(best)}"
    return SINGLES if any(node.about is not None for node in nodes) else None


def node_words(node: SearchNode) -> str:
    """A node's score, interval and error, on one line."""
    words = [] if node.score is None else [f"{percent(node.score)} %"]
    if node.low is not None and node.high is not None:
        words.append(f"({percent(node.low)} to {percent(node.high)})")
    if node.error:
        words.append(f"failed: {node.error}")
    return shown(" ".join(words) or "no score", WORDS)


def tree_text(nodes: Sequence[SearchNode], width: int = 100) -> str:
    """A search as a tree for a terminal, children under the node that they were made of.

    Nodes without parents, as an archive has, stand one under the other; `*` marks the best.
    """
    best = best_of(nodes)
    lines: list[str] = []
    for node, branch in _ordered(nodes):
        if len(lines) == DRAWN:
            lines.append(f"and {len(nodes) - DRAWN} more")
            break
        star = " *" if node is best else ""
        line = f"{branch}{node.number}{star} {node_words(node)}"
        left = width - len(line) - 2
        label = f"  {shown(node.label, left)}" if node.label and left > 8 else ""
        lines.append((line + label)[:width])
    return "\n".join(lines)


def _ordered(nodes: Sequence[SearchNode]) -> Iterator[tuple[SearchNode, str]]:
    """(node, the branch that leads to it), each node once, whatever parents say."""
    known = {node.number: node for node in nodes}
    numbers = sorted(known)
    below: dict[int, list[int]] = {}
    roots = []
    for number in numbers:
        parent = known[number].parent
        if parent in known and parent is not None and parent != number:
            below.setdefault(parent, []).append(number)
        else:
            roots.append(number)
    seen: set[int] = set()
    for root in [*roots, *numbers]:  # what no root leads to goes round in circles
        waiting = [(root, "", "")]
        while waiting:
            number, branch, before = waiting.pop()
            if number in seen:
                continue
            seen.add(number)
            yield known[number], branch
            children = below.get(number, [])
            deep = len(before) >= 3 * DEEPEST
            for child in reversed(children):
                last = child == children[-1]
                after = before if deep else before + ("   " if last else "│  ")
                waiting.append((child, before + ("└─ " if last else "├─ "), after))


def tree_dot(nodes: Sequence[SearchNode]) -> str:
    """A search in Graphviz's language; an archive, where no node has a parent, in rows of four."""
    best = best_of(nodes)
    lines = [
        "digraph search {",
        "rankdir=TB; bgcolor=white",
        'node [shape=box, style=rounded, fontname="sans-serif", fontsize=11]',
    ]
    kept = [node for node, _ in _ordered(nodes)][:DRAWN]
    known = {node.number for node in kept}
    for node in kept:
        star = " ★" if node is best else ""
        label = quoted(f"{node.number}{star}", node_words(node), node.label)
        bold = ", penwidth=3" if node is best else ""
        dashed = ', style="rounded,dashed"' if node.error else ""
        lines.append(f"{_mark(node.number)} [label={label}{bold}{dashed}]")
    parents = [(n.parent, n.number) for n in kept if n.parent in known and n.parent is not None]
    lines += [f"{_mark(start)} -> {_mark(end)}" for start, end in parents]
    if not parents:
        rows = zip(kept, kept[4:], strict=False)
        lines += [f"{_mark(a.number)} -> {_mark(b.number)} [style=invis]" for a, b in rows]
    if len(nodes) > len(kept):
        lines.append(f'more [shape=plaintext, label="and {len(nodes) - len(kept)} more"]')
    return "\n".join([*lines, "}"])


def _mark(number: int) -> str:
    return f"n{number}" if number >= 0 else f"m{-number}"
