"""Self-Refine: one worker drafts, criticises and revises its own code.

Madaan et al. 2023, arXiv:2303.17651, section 2, algorithm 1; calls and stopping as in AFlow's
adaptation to code: generate, then up to 3 times review (boolean, 95% rule) and revise. Differs from
the paper: 3 iterations (4 there), no examples in the prompts, and a revision sees only the last
version and its review, as in the release for code; with `history=full` it sees all earlier ones.
A review is of the code (AFlow's script shows a whole record); one that cannot be read is asked for
once more and then accepts (there it rejects); where a request for a review or a revision is
rejected, the version so far stands.
"""

from __future__ import annotations

from typing import Literal

from baselines.operators import REVISE, first_message, review_code
from harness.errors import RequestRejected
from harness.extract import code_block
from harness.types import Context, Level, Message, Method, Preset, Problem, Solution


async def solve(
    problem: Problem,
    ctx: Context,
    *,
    max_iterations: int = 3,
    history: Literal["none", "full"] = "none",
) -> Solution:
    """Return the last version; stop once the review accepts it or cannot be read twice.

    Calls: 2, 4 or 6 when accepted at review 1, 2 or 3, and 7 after three rejections; a review that
    cannot be read is asked for once more.
    """
    chat = first_message(problem)
    reply = (await ctx.ask(chat)).text
    code = code_block(reply, problem.entry_point)
    fields = {"entry_point": problem.entry_point, "prompt": problem.prompt}
    for _ in range(max_iterations):
        try:
            correct, feedback = await review_code(ctx, code)
            if correct is not False:
                break
            text = REVISE.format(**fields, code=code, feedback=feedback)
            asked: list[Message] = [{"role": "user", "content": text}]
            chat = [*chat, {"role": "assistant", "content": reply}, *asked]
            reply = (await ctx.ask(chat if history == "full" else asked)).text
        except RequestRejected as error:  # too long, say
            ctx.note("rejected", step="refinement", error=str(error))
            break
        code = code_block(reply, problem.entry_point) or code
    return Solution(code)


METHOD = Method(
    name="self-refine",
    solve=solve,
    summary="draft, criticise, revise (Madaan et al. 2023)",
    level=Level.L0,
    calls=lambda knobs: {
        "worker": (1 + min(1, knobs["max_iterations"]), 1 + 2 * knobs["max_iterations"])
    },
    paper={
        "max_iterations": "4 (paper); 3 (AFlow's version for code)",
        "history": "full (paper); none (release for code, AFlow's version)",
    },
    presets={
        "paper": Preset("as in the paper", {"max_iterations": 4, "history": "full"}),
        "aflow": Preset("as AFlow ran it", {"max_iterations": 3, "history": "none"}),
    },
)
