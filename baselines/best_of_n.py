"""Best-of-N: N samples of the worker, the one that passes most feedback tests.

A control: what as many plain calls are worth as another method takes. N is FlowReasoner's number of
workflow executions, 11 workflows of 3 runs each; `match` takes it from a run instead, problem by
problem: its workflow executions, or its tokens. Our own choices: the earliest of the best samples
is the answer, one without a program comes last, and a sample whose request is rejected counts as
drawn. Two cases are asked once, for more could not change the answer: a greedy worker, whose
samples are one and the same, and a problem without a feedback test.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from baselines.operators import first_message
from baselines.repair import note_program
from harness.errors import RequestRejected
from harness.extract import code_block
from harness.types import Completion, Context, Level, Method, Problem, Sampling, Solution

AT_ONCE = 8  # samples asked beside each other


async def solve(
    problem: Problem,
    ctx: Context,
    *,
    n: int = 33,
    match: str = "",
    by: Literal["executions", "tokens"] = "executions",
    early_stop: bool = False,
) -> Solution:
    """Return the sample with the best feedback.

    `match` names a run whose bill (`by` executions or tokens) settles how many are drawn, at least
    one; a problem without a bill there gets `n`. By tokens, the last sample is the one after which
    another, at the mean of those so far, would go beyond the bill. `early_stop` ends at a sample
    that passes all tests, which makes calls unequal. Raises what `ctx` raises, and RequestRejected
    only when no sample came.
    """
    bill = (ctx.artifact or {}).get("bill", {}).get(problem.problem_id, {}).get(by)
    tokens = bill if by == "tokens" else None
    most = n if bill is None or by == "tokens" else max(1, bill)
    drawn, answered = 0, 0
    best: tuple[float, str] | None = None
    rejected: RequestRejected | None = None
    ended = "all drawn"
    while ended == "all drawn" and _more(ctx, drawn, answered, most, tokens):
        alone = best is None or early_stop or tokens is not None
        batch = range(drawn + 1, drawn + 1 + (1 if alone else min(AT_ONCE, most - drawn)))
        # every reply is waited for, also when one ends the sample: it is paid for
        asked = (_ask(ctx, problem, number) for number in batch)
        for reply in await asyncio.gather(*asked, return_exceptions=True):
            drawn += 1
            ctx.round = drawn
            if isinstance(reply, RequestRejected):
                rejected = reply
                note_program(ctx, drawn, None, None, "", f"reply: Rejected: {reply}")
                continue
            if isinstance(reply, BaseException):
                raise reply
            answered += 1
            code = code_block(reply.text, problem.entry_point)
            score = (await ctx.run_feedback(code)).score
            note_program(ctx, drawn, None, score, code)
            rank = -1.0 if not code else score or 0.0
            if best is None or rank > best[0]:
                best = rank, code
            if score is None:
                ended = "no feedback test"
            elif early_stop and score == 1.0:
                ended = "all tests pass"
        if ctx.is_greedy():
            ended = "greedy worker"
    ctx.round = None
    unknown = match and (bill is None or (by == "tokens" and not ctx.spent.tokens))
    ctx.note("control", drawn=drawn, ended=ended, bill=bill, bill_unknown=bool(unknown))
    if best is None and rejected is not None:
        raise rejected
    return Solution(best[1] if best else "")


def _more(ctx: Context, drawn: int, answered: int, most: int, tokens: float | None) -> bool:
    """Whether another sample is due, by their number or, where it is known, by their tokens."""
    spent = ctx.spent.tokens
    if tokens is None or not spent or not answered:
        return drawn < most
    return spent / answered * (drawn + 1) <= tokens


async def _ask(ctx: Context, problem: Problem, number: int) -> Completion:
    ctx.round = number  # each call is recorded under the round that is set when it is made
    return await ctx.ask(first_message(problem))


METHOD = Method(
    name="best-of-n",
    solve=solve,
    summary="N samples, the best by feedback tests (control)",
    level=Level.L3,
    calls=lambda knobs: {"worker": (1 if knobs["early_stop"] else knobs["n"], knobs["n"])},
    sampling={"worker": Sampling(temperature=0.8)},
    bounds={"n": (1, 100_000)},
    paper={"n": "33 (FlowReasoner's workflow executions: 11 workflows of 3 runs)"},
    matches=True,
)
