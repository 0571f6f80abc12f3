"""Vanilla: one call of the worker. The row that every other one is measured against."""

from __future__ import annotations

from baselines.operators import first_message
from harness.extract import code_block
from harness.types import Context, Level, Method, Problem, Solution


async def solve(problem: Problem, ctx: Context) -> Solution:
    """Return the program of a single reply."""
    reply = await ctx.ask(first_message(problem))
    return Solution(code_block(reply.text, problem.entry_point))


METHOD = Method(
    name="vanilla",
    solve=solve,
    summary="one call of the worker",
    level=Level.L0,
    calls=lambda knobs: {"worker": (1, 1)},
)
