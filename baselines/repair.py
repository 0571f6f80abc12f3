"""Repair: generate, run the feedback tests, show what fails, rewrite; until all pass.

A control: what feedback alone is worth, without a meta-agent. Our own design, where nothing is to
be reproduced: each rewrite sees the problem, the last version and its failures, in the words of
the Test operator, and nothing of earlier ones; a reply without a program leaves that version as it
is. The answer is the version with the best feedback, the earliest on ties, as in FlowReasoner's
selection. Below the levels that may see tests, the worker is told how many pass. Without a
feedback test the draft is the answer.
"""

from __future__ import annotations

from baselines.operators import REPAIR, solve_prompt
from harness.errors import RequestRejected
from harness.extract import code_block
from harness.types import Context, Feedback, Level, Method, Problem, Solution


async def solve(problem: Problem, ctx: Context, *, rounds: int = 10) -> Solution:
    """Return the version that passes most feedback tests, after at most `rounds` rewrites.

    It stops once all pass, when a rewrite is rejected (the next one would be too), and when a
    greedy worker comes back to a version of before: it would go round in circles.
    """
    fields = {"entry_point": problem.entry_point, "prompt": problem.prompt}
    versions: dict[str, float] = {}  # program -> its feedback score
    code = ""
    told: Feedback | None = None  # what the tests said of `code`
    for number in range(1, rounds + 2):
        ctx.round = number
        asked = solve_prompt(problem)
        if told is not None:
            failures = "\n".join(told.errors) or f"{told.passed} of {told.total} tests pass"
            asked = REPAIR.format(**fields, code=code, failures=failures)
        try:
            reply = await ctx.ask(asked)
        except RequestRejected as error:
            if told is None:
                raise
            note_program(ctx, number, number - 1, None, "", f"reply: Rejected: {error}")
            break
        code = code_block(reply.text, problem.entry_point) or code
        circling = code in versions and ctx.is_greedy()
        told = await ctx.run_feedback(code)
        note_program(ctx, number, number - 1 or None, told.score, code)
        if told.score is None:
            versions[code] = 0.0
            break
        versions.setdefault(code, told.score if code else -1.0)
        if told.score == 1.0 or circling:
            break
    ctx.round = None
    return Solution(max(versions, key=lambda version: versions[version]))


def note_program(
    ctx: Context,
    number: int,
    parent: int | None,
    score: float | None,
    code: str,
    error: str | None = None,
) -> None:
    """Journal a program as a round of its own, to be drawn beside the rounds of workflows."""
    ctx.note(
        "round",
        round=number,
        parent=parent,
        modification="",
        score=score,
        scores=[] if score is None else [score],
        evals=1,
        error=error,
        error_class=None if error is None else "reply:Rejected",
        same_as_template=False,
        texts={"code": code or None},
    )


METHOD = Method(
    name="repair",
    solve=solve,
    summary="generate, run the feedback tests, show what fails, rewrite (control)",
    level=Level.L3,
    calls=lambda knobs: {"worker": (1, 1 + knobs["rounds"])},
    bounds={"rounds": (0, 1000)},
    paper={"rounds": "10 (FlowReasoner's number of rounds)"},
)
