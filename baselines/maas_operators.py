"""MaAS's operators for code, and a team of them at work on one problem.

Zhang et al. 2025, arXiv:2502.04180, section 3; what differs is listed in `baselines.maas`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from baselines import operators
from baselines.maas_controller import GENERATORS
from harness.extract import code_block
from harness.types import Context

STEPS = (
    "Work in steps: say what goes in and what comes out, list the cases that need care, choose an "
    "algorithm, and trace it by hand on one example. Then write the program."
)
INSTRUCTIONS = {  # what the textual gradient may rewrite
    "Generate": "",
    "GenerateCoT": STEPS,
    "MultiGenerateCoT": STEPS,
    "SelfRefine": "Read it as a strict reviewer would: trace it on the examples and on edge cases, "
    "mend every fault that you find, and keep what is right.",
}
DESCRIPTIONS = {  # operator -> what it does, and its interface; the controller reads both
    "Generate": ("writes a program for the problem", "problem -> solution"),
    "GenerateCoT": ("thinks step by step, then writes a program", "problem -> solution"),
    "MultiGenerateCoT": (
        "thinks step by step several times and writes several programs",
        "problem -> solutions",
    ),
    "ScEnsemble": (
        "chooses the most consistent one of several programs",
        "problem, solutions -> solution",
    ),
    "SelfRefine": ("reviews a program and rewrites it", "problem, solution -> solution"),
    "Test": (
        "runs tests on a program and repairs it while they fail",
        "problem, solution, entry point -> solution",
    ),
    "EarlyStop": ("ends here: the problem needs no further step", "nothing -> nothing"),
}
IMPROVE = (
    "Earlier programs for this problem failed its tests. Find another way to solve it, and mind "
    "the details that a hasty reader overlooks."
)
FAILING = "{improve}\n\nA program that fails:\n```python\n{code}\n```\n\nFailures:\n{failures}"


def instructions(archive: bool) -> dict[str, str]:
    """The operators' instructions to begin with; as released, generators have none."""
    return INSTRUCTIONS | (dict.fromkeys(GENERATORS, "") if archive else {})


def described() -> list[str]:
    """The text of each operator that is embedded, in order."""
    return [
        f"{i}. {name}: {does}, with interface {interface}"
        for i, (name, (does, interface)) in enumerate(DESCRIPTIONS.items(), 1)
    ]


async def execute(
    ctx: Context,
    layers: Sequence[Sequence[str]],
    told: Mapping[str, str],
    *,
    several: int = 3,
    spread: float = 0.7,
    rewrites: int = 3,
    archive: bool = False,
) -> str:
    """The program of a team of operators, each of which is `told` its instruction.

    With `archive` the last call, after a test that failed to the end, does not see the program.
    """
    pool: list[str] = []

    async def write(name: str, **sampling: Any) -> None:
        made = await operators.custom_code_generate(ctx, instruction=told[name], **sampling)
        pool.append(made["response"])

    for name in (name for layer in layers for name in layer):
        if name in ("Generate", "GenerateCoT"):
            await write(name)
        elif name == "MultiGenerateCoT":
            varied = {"temperature": spread} if ctx.is_greedy() else {}
            for _ in range(several):
                await write(name, **varied)
        elif name == "ScEnsemble" and any(program.strip() for program in pool):
            pool = [(await operators.sc_ensemble(ctx, pool))["response"]]
        elif name == "SelfRefine":
            pool.append(await operators.revise_code(ctx, pool[-1], told[name]))
        elif name == "Test":
            pool.append(
                (await operators.test(ctx, solution=pool[-1], test_loop=rewrites))["solution"]
            )
    tested = await operators.test(ctx, solution=pool[-1], test_loop=rewrites)
    if tested["result"] is not False:
        return str(tested["solution"])
    instruction = IMPROVE
    if not archive:
        instruction = FAILING.format(
            improve=IMPROVE, code=tested["solution"], failures=tested["feedback"]
        )
    text = operators.solve_prompt(ctx.problem, instruction)
    reply = await ctx.ask(text)
    return code_block(reply.text, ctx.problem.entry_point) or str(tested["solution"])
