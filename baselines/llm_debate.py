"""LLM-Debate: agents answer alone, read the others' answers, answer again; then one decides.

Du et al. 2023, arXiv:2305.14325, section 2: 3 agents, 2 rounds, each with its own chat history;
from round 2 an agent reads the others' replies of the round before, never of its own.
Differs from the paper: code has no majority vote on strings, so a judge (one more call of the same
worker) reads the final programs in shuffled order and writes one. Instead, `aggregate=cluster` is a
vote on behaviour: programs that do the same on the visible examples stand together, the largest
group wins, and its lowest agent's program is the answer (which makes it L1; without an example the
judge decides); `aggregate=last` takes the last agent's. `personas` gives the agents the three roles
of AFlow's MultiPersona; its script for code shows no agent the others' answers, ours does. Where
the judge's request is rejected, the lowest agent's program is the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from baselines.operators import solve_prompt
from harness.errors import ModelUnavailable, RequestRejected
from harness.extract import code_block, defines
from harness.types import (
    Completion,
    Context,
    Feedback,
    Level,
    Message,
    Method,
    Preset,
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
PERSONAS = (
    "You are a competitive programmer who knows algorithms and their edge cases.",
    "You are a professor of mathematics who reasons exactly.",
    "You are a researcher in computer science who designs sound programs.",
)


async def solve(
    problem: Problem,
    ctx: Context,
    *,
    agents: int = 3,
    rounds: int = 2,
    aggregate: Literal["judge", "cluster", "last"] = "judge",
    judge_temperature: float = 0.0,
    personas: bool = False,
) -> Solution:
    """Return what `aggregate` makes of the final programs, of agents whose calls all succeeded.

    An agent whose call fails is left out; without any program the answer is empty. Raises what the
    last agent raised when every agent's call failed: that is not a wrong answer.
    """
    fields = {"entry_point": problem.entry_point, "prompt": problem.prompt}
    roles = PERSONAS if personas else ("",)
    texts = [solve_prompt(problem, roles[i % len(roles)]) for i in range(agents)]
    histories: list[list[Message]] = [[{"role": "user", "content": text}] for text in texts]
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
    # one that lacks the function cannot be the answer, whatever a judge thinks of it
    able = [code for code in finals if defines(code, problem.entry_point)]
    programs = able or [code for code in finals if code]
    if not programs:
        return Solution("")
    if aggregate == "last" or len(programs) == 1:
        return Solution(programs[-1])
    if aggregate == "cluster":
        behaviours = [await ctx.run_feedback(code) for code in programs]
        if behaviours[0].score is not None:
            voted = groups(behaviours)
            ctx.note("vote", groups=voted, decided="by behaviour on the examples")
            return Solution(programs[voted[0][0]])
        ctx.note("vote", groups=None, decided="by the judge: there is no example")
    first = programs[0]
    ctx.rng.shuffle(programs)
    listed = "\n\n".join(f"Program {i}:\n```python\n{p}\n```" for i, p in enumerate(programs, 1))
    text = JUDGE.format(programs=listed, **fields)
    try:
        decision = await ctx.ask(text, temperature=judge_temperature)
    except RequestRejected as error:  # several programs may be too long for its context
        ctx.note("rejected", step="judge", error=str(error))
        return Solution(first)
    code = code_block(decision.text, problem.entry_point)
    return Solution(code if defines(code, problem.entry_point) else first)


def groups(behaviours: Sequence[Feedback]) -> list[list[int]]:
    """Positions of the programs that do the same on the examples, the largest group first.

    The same is: they pass as many, and fail the others in the same words, wrong values included.
    Of groups of one size, that of the lowest position goes before.
    """
    found: dict[Feedback, list[int]] = {}
    for position, behaviour in enumerate(behaviours):
        found.setdefault(behaviour, []).append(position)
    return sorted(found.values(), key=lambda group: -len(group))


METHOD = Method(
    name="llm-debate",
    solve=solve,
    summary="agents answer, read each other, answer again; a judge decides (Du et al. 2023)",
    level=Level.L1,
    calls=lambda knobs: {
        "worker": (
            knobs["agents"] * knobs["rounds"],
            knobs["agents"] * knobs["rounds"] + (knobs["aggregate"] != "last"),
        )
    },
    sampling={"worker": Sampling(temperature=0.7)},
    bounds={"agents": (1, 26), "rounds": (1, 100), "judge_temperature": (0, 2)},
    paper={
        "agents": "3, on arithmetic 2 (paper); 3 (AFlow's and ADAS's versions); 5 (MaAS's)",
        "rounds": "2, on arithmetic 3 (paper); 2 (AFlow's, ADAS's and MaAS's versions)",
        "aggregate": "a majority vote on answers (paper); one more call (AFlow's and ADAS's)",
        "judge_temperature": "no judge (paper); 0.1 (ADAS's version)",
        "personas": "none (paper); three (AFlow's and ADAS's versions)",
    },
    presets={
        "paper": Preset(
            "3 agents, 2 rounds, a vote; the temperature that providers default to",
            {"agents": 3, "rounds": 2, "aggregate": "cluster"},
            sampling={"worker": {"temperature": 1.0}},
        ),
        "aflow": Preset(
            "AFlow's MultiPersona, with the exchange that it was meant to have",
            {"agents": 3, "rounds": 2, "aggregate": "judge", "personas": True},
            sampling={"worker": {"temperature": 0.0}},
        ),
        "adas": Preset(
            "ADAS's seed agent",
            {
                "agents": 3,
                "rounds": 2,
                "aggregate": "judge",
                "judge_temperature": 0.1,
                "personas": True,
            },
            sampling={"worker": {"temperature": 0.8}},
        ),
    },
    level_of=lambda knobs: Level.L1 if knobs["aggregate"] == "cluster" else Level.L0,
)
