"""Vanilla with tests: one call of the worker, the feedback tests' text in its prompt.

A control: what the text of the tests alone is worth, without any workflow. The first message is
everybody's; the tests stand after it. Where a method may not see them, or the problem has none, it
is vanilla, and the trajectory says so.
"""

from __future__ import annotations

from baselines.operators import solve_prompt
from harness.extract import code_block
from harness.types import Context, Level, Method, Problem, Solution

TESTS = "{prompt}\n\nThe function has to pass these tests:\n\n{tests}"


async def solve(problem: Problem, ctx: Context) -> Solution:
    """Return the program of a single reply to the problem and its feedback tests."""
    text = solve_prompt(problem)
    if ctx.test_cases:
        text = TESTS.format(prompt=text, tests="\n".join(ctx.test_cases))
    ctx.note("control", tests_shown=len(ctx.test_cases))
    reply = await ctx.ask(text)
    return Solution(code_block(reply.text, problem.entry_point))


METHOD = Method(
    name="vanilla-tests",
    solve=solve,
    summary="one call of the worker, with the feedback tests in its prompt (control)",
    level=Level.L3,
    calls=lambda knobs: {"worker": (1, 1)},
)
