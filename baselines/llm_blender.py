"""LLM-Blender: sample candidates, rank them pair by pair, fuse the best into one answer.

Jiang et al. 2023, arXiv:2306.02561, sections 3 (PairRanker) and 4 (GenFuser); test-time rules of
the release. Differs from the paper: the pool is the worker, sampled n times, unless --role names
further models (the paper has eleven, each asked once); where PairRM's weights are not on this
machine a judge, the worker, compares each pair in both orders and counts as a logit of +1, 0 or
-1; the worker writes the fused program, for GenFuser cuts each candidate to 128 tokens, which
leaves no program whole (it is not offered). Candidates that are one program, comments and layout
aside, are ranked as one, and when there is only one it is the answer. `max_wins` adds up both of
its terms, where the release adds a sum to a mean. `bubble` is sure of the best alone; the others
follow as its one pass left them. A model whose request fails is left out; a comparison that is
rejected is a tie. A fused program that does not define the entry point gives way to the first in
rank, and so does a fusion that is rejected.
"""

from __future__ import annotations

import ast
import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from baselines.operators import first_message
from harness.errors import ModelUnavailable, RequestRejected, UsageError
from harness.extract import code_block, defines, strip_reasoning
from harness.types import Completion, Context, Level, Message, Method, Problem, Sampling, Solution

COMPARE = (
    "Two solutions to one problem follow. Find out which is more likely to be correct on every "
    "input that the problem allows: look at edge cases and at the examples of the problem.\n\n"
    "Problem:\n{prompt}\n\nA:\n```python\n{first}\n```\n\nB:\n```python\n{second}\n```\n\n{form}"
)
FORM = "Think briefly, then end with one line: BETTER: A, or BETTER: B, or BETTER: tie."
FUSE = (
    "Several programs for one problem follow, the most promising first. Take what is right in each "
    "of them, mend what is wrong, and answer with one improved program: one Python code block that "
    "holds the complete function `{entry_point}`.\n\nProblem:\n{prompt}\n\n{programs}"
)
_BETTER = re.compile(r"BETTER:\W*(A|B|tie)\b", re.IGNORECASE)
_BARE = re.compile(r"\A\W*(A|B|tie)\s*(?:[.,:;*]|\n|\Z)", re.IGNORECASE)  # small models answer "B."
_LOGITS = {"a": 1.0, "b": -1.0, "tie": 0.0}

Matrix = list[list[float]]  # M[i][j] > 0: candidate i, shown first, beats j
Compare = Callable[[Sequence[str]], Awaitable[Matrix]]


async def solve(
    problem: Problem,
    ctx: Context,
    *,
    n: int = 5,
    ranker: Literal["auto", "pairrm", "judge"] = "auto",
    aggregation: Literal["max_logits", "max_wins", "bubble"] = "max_logits",
    top: int = 3,
    fuse: Literal["llm", "top1"] = "llm",
) -> Solution:
    """Return the fusion of the `top` candidates, or with `top1` the first in rank."""
    programs = await _candidates(problem, ctx, n)
    if len(programs) < 2:
        return Solution("".join(programs))

    compare: Compare = partial(_judged, ctx)
    if ranker == "pairrm":
        compare = partial(ctx.compare, problem.prompt)
    matrix = None
    if aggregation == "bubble":
        order = await bubble(programs, compare, ctx.rng)
    else:
        matrix = await compare(programs)
        scores = max_logits(matrix) if aggregation == "max_logits" else max_wins(matrix)
        order = sorted(range(len(programs)), key=lambda i: -scores[i])  # the earlier on ties
    ranked = [programs[i] for i in order]
    fused = await _fused(problem, ctx, ranked[:top]) if fuse == "llm" else ""
    taken = "fused" if fused else "first in rank"
    ctx.note("ranking", candidates=len(programs), order=order, logits=matrix, answer=taken)
    return Solution(fused or ranked[0])


async def _candidates(problem: Problem, ctx: Context, n: int) -> list[str]:
    """The different programs of n samples, the models of the pool in turn."""
    roles = list(ctx.nodes)
    turns = [roles[i % len(roles)] for i in range(n)]
    # a greedy model's second sample would be its first once more
    turns = [r for i, r in enumerate(turns) if i < len(roles) or not ctx.is_greedy(r)]
    asked = (ctx.ask(first_message(problem), role) for role in turns)
    # every reply is waited for, also when one ends the run: it is paid for
    replies = await asyncio.gather(*asked, return_exceptions=True)
    said = [reply for reply in replies if isinstance(reply, Completion)]
    for reply in replies:
        left_out = isinstance(reply, RequestRejected | ModelUnavailable) and bool(said)
        if isinstance(reply, BaseException) and not left_out:
            raise reply
    programs = [code_block(reply.text, problem.entry_point) for reply in said]
    different: dict[str, str] = {}
    for program in filter(None, programs):
        different.setdefault(_normal(program), program)
    # one that lacks the function cannot be the answer, whatever a ranker thinks of it
    able = [one for one in different.values() if defines(one, problem.entry_point)]
    return able or list(different.values())


def _normal(program: str) -> str:
    """A program as it is compared: its syntax tree without docstrings, or else its text."""
    try:
        tree = ast.parse(program)
        documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
        for node in ast.walk(tree):
            if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
        return ast.dump(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return program.strip()


def max_logits(matrix: Matrix) -> list[float]:
    """By candidate, the mean over all candidates j of M[i][j] - M[j][i]."""
    every = range(len(matrix))
    return [sum(matrix[i][j] - matrix[j][i] for j in every) / len(matrix) for i in every]


def max_wins(matrix: Matrix) -> list[float]:
    """By candidate, how many comparisons it wins, shown first or second."""
    every = range(len(matrix))
    return [float(sum((matrix[i][j] > 0) + (matrix[j][i] < 0) for j in every)) for i in every]


async def bubble(programs: Sequence[str], compare: Compare, rng: random.Random) -> list[int]:
    """Positions of the programs, the best first: one pass over a random order, N-1 comparisons.

    The one that leads keeps its lead unless the next is better over both orders.
    """
    order = list(range(len(programs)))
    rng.shuffle(order)
    for at in range(len(order) - 1):
        leader, rival = order[at], order[at + 1]
        pair = await compare([programs[leader], programs[rival]])
        if pair[0][1] - pair[1][0] >= 0:
            order[at], order[at + 1] = rival, leader
    return order[::-1]


async def _judged(ctx: Context, programs: Sequence[str]) -> Matrix:
    """The worker's comparisons of all ordered pairs, as logits."""
    every = range(len(programs))
    pairs = [(i, j) for i in every for j in every if i != j]
    found = await asyncio.gather(*(_verdict(ctx, programs[i], programs[j]) for i, j in pairs))
    logits = dict(zip(pairs, found, strict=True))
    return [[logits.get((i, j), 0.0) for j in every] for i in every]


async def _verdict(ctx: Context, first: str, second: str) -> float:
    """+1 when the first is better, -1 when the second is, 0 on a tie or without a verdict."""
    text = COMPARE.format(prompt=ctx.problem.prompt, first=first, second=second, form=FORM)
    chat: list[Message] = [{"role": "user", "content": text}]
    for _ in range(2):
        try:
            reply = (await ctx.ask(chat, temperature=0.0)).text
        except RequestRejected as error:
            ctx.note("rejected", step="comparison", error=str(error))
            break
        said = strip_reasoning(reply)
        if verdicts := _BETTER.findall(said) or _BARE.findall(said):
            return _LOGITS[verdicts[-1].lower()]
        chat += [{"role": "assistant", "content": reply}, {"role": "user", "content": FORM}]
    return 0.0


async def _fused(problem: Problem, ctx: Context, programs: Sequence[str]) -> str:
    """One program out of several; empty when the reply's does not define the entry point."""
    shown = "\n\n".join(f"Rank {i}:\n```python\n{p}\n```" for i, p in enumerate(programs, 1))
    fields = {"entry_point": problem.entry_point, "prompt": problem.prompt}
    try:
        reply = await ctx.ask(FUSE.format(programs=shown, **fields), temperature=0.0)
    except RequestRejected as error:  # several programs may be too long for its context
        ctx.note("rejected", step="fusion", error=str(error))
        return ""
    code = code_block(reply.text, problem.entry_point)
    return code if defines(code, problem.entry_point) else ""


def _settle(knobs: Mapping[str, Any], there: Callable[[str], bool]) -> Mapping[str, Any]:
    """What ranks here. Raises UsageError when PairRM is asked for and is not there."""
    if knobs["ranker"] == "pairrm" and not there("pairrm"):
        raise UsageError(
            "llm-blender: ranker=pairrm needs the extra `train` and, as folder PairRM among the "
            "models that `python -m harness cache info` names, llm-blender/PairRM-hf; without "
            "them take -A ranker=judge"
        )
    if knobs["ranker"] != "auto":
        return {}
    return {"ranker": "pairrm" if there("pairrm") else "judge"}


def _calls(knobs: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    n, judged = knobs["n"], 0
    if knobs["ranker"] != "pairrm":
        judged = 2 * (n - 1) if knobs["aggregation"] == "bubble" else n * (n - 1)
    return {"worker": (n, n + judged + (knobs["fuse"] == "llm" and n > 1))}


METHOD = Method(
    name="llm-blender",
    solve=solve,
    summary="sample, rank pair by pair, fuse the best (Jiang et al. 2023)",
    level=Level.L0,
    calls=_calls,
    sampling={"worker": Sampling(temperature=0.7)},
    bounds={"n": (1, 100), "top": (1, 100)},
    paper={
        "n": "11 models, one answer each (paper); for Table 1 nobody says how many of what",
        "ranker": "PairRM, a cross-encoder of 0.4B (paper and release)",
        "aggregation": "max_logits (paper, and the release's default)",
        "top": "3 (paper and release)",
        "fuse": "GenFuser, Flan-T5-XL of 3B, each candidate cut to 128 tokens (paper and release)",
    },
    settle=_settle,
    nodes=True,
)
