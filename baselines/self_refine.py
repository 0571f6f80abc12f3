"""Self-Refine: one worker drafts, criticises and revises its own code.

Madaan et al. 2023, arXiv:2303.17651, section 2, algorithm 1; calls and stopping as in AFlow's
adaptation to code: generate, then up to 3 times review (boolean, 95% rule) and revise.
Differs from the paper: 3 iterations (4 there), and no history in the prompts.
"""

from __future__ import annotations

from baselines.operators import first_message, review_code, revise_code
from harness.extract import code_block
from harness.types import Context, Level, Method, Problem, Solution


async def solve(problem: Problem, ctx: Context, *, max_iterations: int = 3) -> Solution:
    """Return the last version; stop once the review accepts it or cannot be read twice.

    Calls: 2, 4 or 6 when accepted at review 1, 2 or 3, and 7 after three rejections; a review that
    cannot be read is asked for once more.
    """
    code = code_block((await ctx.ask(first_message(problem))).text, problem.entry_point)
    for _ in range(max_iterations):
        correct, feedback = await review_code(ctx, code)
        if correct is not False:
            break
        code = await revise_code(ctx, code, feedback)
    return Solution(code)


METHOD = Method(
    name="self-refine",
    solve=solve,
    summary="draft, criticise, revise (Madaan et al. 2023)",
    level=Level.L0,
    calls=lambda knobs: {
        "worker": (1 + min(1, knobs["max_iterations"]), 1 + 2 * knobs["max_iterations"])
    },
)
