"""Meta-direct: the meta-agent's model solves the problem alone, without a workflow or a worker.

A control of FlowReasoner's claim (Gao et al. 2025, arXiv:2504.15257): what its meta-agent's model
reaches with the same feedback and the same number of calls when it writes programs, not workflows.
Our own design, where nothing is to be reproduced: the first call is every method's first prompt;
each later one shows one earlier program with its score (`feedback=errors`: and its failed tests, as
far as the level allows), as FlowReasoner shows a workflow. The best program by feedback is the
answer, the earliest on ties. Without a feedback test nothing can be compared: one call.
"""

from __future__ import annotations

from typing import Literal

from baselines.operators import solve_prompt
from baselines.repair import note_program
from harness.errors import RequestRejected
from harness.extract import code_block
from harness.types import Context, Feedback, Level, Method, Problem, Sampling, Solution

IMPROVE = (
    "Improve this Python solution, or keep it if nothing is wrong. Answer with one Python code "
    "block that holds the complete function `{entry_point}`.\n\n"
    "Problem:\n{prompt}\n\nSolution:\n```python\n{code}\n```\n\n"
    "It scores {score:.2f} on tests (best is 1.0).{failures}"
)
NO_PROGRAM = "An earlier answer held no such function. Give the whole program."


async def solve(
    problem: Problem,
    ctx: Context,
    *,
    rounds: int = 10,
    feedback: Literal["scalar", "errors"] = "scalar",
    shown: Literal["best", "latest"] = "best",
    early_stop: bool = False,
) -> Solution:
    """Return the program with the best feedback among those of `rounds` calls.

    `shown` is which program the next call sees; `early_stop` ends at a feedback of 1.0. A call that
    is rejected is a round without a program, unless it is the first. Raises what `ctx` raises.
    """
    tried: list[tuple[str, Feedback, int]] = []  # program, feedback, round
    asked = solve_prompt(problem)
    for number in range(1, rounds + 1):
        ctx.round = number
        best = max(tried, key=lambda t: (bool(t[0]), t[1].score or 0.0, -t[2]), default=None)
        start = best if shown == "best" or not tried else tried[-1]
        if start is not None:
            asked = _request(problem, start[0], start[1], feedback)
        parent = start[2] if start else None
        try:
            reply = (await ctx.ask(asked, role="meta")).text
        except RequestRejected as error:  # too long, or against a policy: this round's failure
            if not tried:
                raise
            note_program(ctx, number, parent, 0.0, "", f"reply: Rejected: {error}")
            continue
        code = code_block(reply, problem.entry_point)
        found = await ctx.run_feedback(code)
        note_program(ctx, number, parent, found.score, code)
        tried.append((code, found, number))
        if found.score is None or (early_stop and found.score == 1.0):
            break
    ctx.round = None
    best = max(tried, key=lambda t: (bool(t[0]), t[1].score or 0.0, -t[2]))
    return Solution(best[0])


def _request(problem: Problem, code: str, found: Feedback, feedback: str) -> str:
    """The next request: the program that it starts from, and what its tests told."""
    if not code:
        return solve_prompt(problem, NO_PROGRAM)
    failures = ""
    if feedback == "errors" and found.errors:
        failures = "\n\nFailed tests:\n" + "\n".join(f"- {line}" for line in found.errors)
    return IMPROVE.format(
        entry_point=problem.entry_point,
        prompt=problem.prompt,
        code=code,
        score=found.score or 0.0,
        failures=failures,
    )


METHOD = Method(
    name="meta-direct",
    solve=solve,
    summary="the meta-agent's model solves alone, with the same feedback and calls (control)",
    level=Level.L3,
    calls=lambda knobs: {"meta": (1 if knobs["early_stop"] else knobs["rounds"], knobs["rounds"])},
    roles=("worker", "meta"),
    sampling={"meta": Sampling(temperature=0.7, max_tokens=2048)},
    bounds={"rounds": (1, 1000)},
    paper={"rounds": "10 (FlowReasoner's number of calls of the meta-agent)"},
)
