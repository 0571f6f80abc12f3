"""LLM-Debate: agents answer alone, read the others' answers, answer again; then one decides.

Du et al. 2023, arXiv:2305.14325, section 2: 3 agents, 2 rounds, each with its own chat history;
from round 2 an agent reads the others' replies of the round before, never of its own.
Differs from the paper: code has no majority vote on strings, so a judge (one more call of the same
worker) reads the final programs in shuffled order and writes one; `aggregate=last` takes the last
agent's program instead.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from baselines.operators import first_message
from harness.errors import ModelUnavailable, RequestRejected
from harness.extract import code_block
from harness.types import (
    Completion,
    Context,
    Level,
    Message,
    Method,
    Problem,
    Sampling,
    Solution,
)

UPDATE = (
    "These are answers of other agents to the same problem:\n\n{others}\n\nUse them as advice, "
    "examine them and your own critically, and answer again with one Python code block that holds "
    "the complete function `{entry_point}`. The problem was:\n\n{prompt}"
)
ALONE = (
    "Check your answer once more, then answer again with one Python code block that holds the "
    "complete function `{entry_point}`. The problem was:\n\n{prompt}"
)
JUDGE = (
    "Several agents debated this problem. Compare their final programs and answer with one Python "
    "code block that holds the complete, correct function `{entry_point}`.\n\n"
    "Problem:\n{prompt}\n\n{programs}"
)


async def solve(
    problem: Problem,
    ctx: Context,
    *,
    agents: int = 3,
    rounds: int = 2,
    aggregate: Literal["judge", "last"] = "judge",
) -> Solution:
    """Return the judge's program. An agent whose call fails is left out.

    Raises the provider's error when every agent's call failed: that is not a wrong answer.
    """
    fields = {"entry_point": problem.entry_point, "prompt": problem.prompt}
    histories: list[list[Message]] = [first_message(problem) for _ in range(agents)]
    alive = list(range(agents))
    for turn in range(rounds):
        if turn > 0:
            said = {i: histories[i][-1]["content"] for i in alive}
            for i in alive:
                others = "\n\n".join(f"One agent:\n{said[j]}" for j in alive if j != i)
                text = UPDATE.format(others=others, **fields) if others else ALONE.format(**fields)
                histories[i].append({"role": "user", "content": text})
        # every reply is waited for, also when one ends the run: it is paid for
        asked = (ctx.ask(histories[i]) for i in alive)
        replies = await asyncio.gather(*asked, return_exceptions=True)
        for i, reply in zip(list(alive), replies, strict=True):
            if isinstance(reply, Completion):
                histories[i].append({"role": "assistant", "content": reply.text})
                continue
            alive.remove(i)
            if not alive or not isinstance(reply, RequestRejected | ModelUnavailable):
                raise reply
    finals = [code_block(histories[i][-1]["content"], problem.entry_point) for i in alive]
    programs = [code for code in finals if code]
    if not programs:
        return Solution("")
    if aggregate == "last" or len(programs) == 1:
        return Solution(programs[-1])
    ctx.rng.shuffle(programs)
    listed = "\n\n".join(f"Program {i}:\n```python\n{p}\n```" for i, p in enumerate(programs, 1))
    decision = await ctx.ask(JUDGE.format(programs=listed, **fields), temperature=0.0)
    return Solution(code_block(decision.text, problem.entry_point) or programs[0])


METHOD = Method(
    name="llm-debate",
    solve=solve,
    summary="agents answer, read each other, answer again; a judge decides (Du et al. 2023)",
    level=Level.L0,
    calls=lambda knobs: {
        "worker": (
            knobs["agents"] * knobs["rounds"],
            knobs["agents"] * knobs["rounds"] + (knobs["aggregate"] == "judge"),
        )
    },
    sampling={"worker": Sampling(temperature=0.7)},
    bounds={"agents": (1, 26), "rounds": (1, 100)},
)
