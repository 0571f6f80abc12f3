"""Steps that methods share, and the seven operators that a workflow may call.

Operators and their interfaces: AFlow (Zhang et al. 2024, arXiv:2410.10762) and FlowReasoner (Gao
et al. 2025, arXiv:2504.15257, section 4.1): Code Generator, Format Generator, Ensemble, Review,
Revise, Code Test, and Custom. The wording is our own. Differs from their releases: the Test
operator runs the feedback tests in the sandbox and says so when there is none (theirs then reports
success); Ensemble falls back to the first solution when no letter is named (theirs raises).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from harness.extract import code_block, strip_reasoning
from harness.types import Context, Message, Operator, Problem

SOLVE = (
    "Solve this problem in Python. Answer with one Python code block that holds the complete "
    "function `{entry_point}` with everything that it needs.\n\n{prompt}"
)

REVIEW = (
    "Review this Python solution critically. Think through edge cases and the examples of the "
    "problem, step by step. Judge it incorrect only if you are more than 95% sure.\n\n"
    "Problem:\n{prompt}\n\nSolution:\n```python\n{code}\n```\n\n"
    "End your answer with two lines:\nFEEDBACK: what is wrong and how to mend it, or nothing\n"
    "VERDICT: correct, or VERDICT: incorrect"
)

REVISE = (
    "Rewrite this Python solution so that it meets the feedback. Answer with one Python code block "
    "that holds the complete function `{entry_point}`, without tests.\n\n"
    "Problem:\n{prompt}\n\nSolution:\n```python\n{code}\n```\n\nFeedback:\n{feedback}"
)

ENSEMBLE = (
    "Several solutions to one problem follow. Choose the one that is most consistent with the "
    "others and with the problem. Think briefly, then end with one line: CHOICE: letter.\n\n"
    "Problem:\n{prompt}\n\n{solutions}"
)

REPAIR = (
    "This Python solution fails tests. Find the cause, then answer with one Python code block that "
    "holds the complete corrected function `{entry_point}`.\n\n"
    "Problem:\n{prompt}\n\nSolution:\n```python\n{code}\n```\n\nFailures:\n{failures}"
)

FORMAT = (
    "Extract the final program from this text. Answer with one Python code block that holds the "
    "complete function `{entry_point}` and nothing else.\n\nProblem:\n{prompt}\n\nText:\n{text}"
)

_VERDICT = re.compile(r"VERDICT:\W*(incorrect|correct)\b", re.IGNORECASE)
_FEEDBACK = re.compile(r"FEEDBACK:\s*(.*?)(?=\n\W*VERDICT:|\Z)", re.IGNORECASE | re.DOTALL)
_CHOICE = re.compile(r"CHOICE:\W*([A-Z])\b", re.IGNORECASE)


def solve_prompt(problem: Problem, instruction: str = "") -> str:
    """The text of every method's first generation; an instruction of its own goes before it."""
    text = SOLVE.format(entry_point=problem.entry_point, prompt=problem.prompt)
    return f"{instruction.strip()}\n\n{text}" if instruction.strip() else text


def first_message(problem: Problem) -> list[Message]:
    return [{"role": "user", "content": solve_prompt(problem)}]


def parse_review(reply: str) -> tuple[bool | None, str]:
    """(verdict, feedback) of a review; the verdict is None when none can be read."""
    text = strip_reasoning(reply)
    verdicts = _VERDICT.findall(text)
    notes = _FEEDBACK.findall(text)
    feedback = notes[-1].strip() if notes else _VERDICT.sub("", text).strip()
    return (verdicts[-1].lower() == "correct" if verdicts else None), feedback


async def review_code(ctx: Context, code: str) -> tuple[bool | None, str]:
    """Ask the worker for a verdict on a program; one re-ask when it cannot be read."""
    asked: list[Message] = [
        {"role": "user", "content": REVIEW.format(prompt=ctx.problem.prompt, code=code)}
    ]
    reply = (await ctx.ask(asked)).text
    verdict, feedback = parse_review(reply)
    if verdict is None:
        again = "End with one line: VERDICT: correct, or VERDICT: incorrect."
        asked += [{"role": "assistant", "content": reply}, {"role": "user", "content": again}]
        verdict, _ = parse_review((await ctx.ask(asked)).text)
    return verdict, feedback


async def revise_code(ctx: Context, code: str, feedback: str) -> str:
    """Ask the worker to rewrite a program; the old one when the reply holds none."""
    problem = ctx.problem
    fields = {"entry_point": problem.entry_point, "prompt": problem.prompt}
    reply = await ctx.ask(REVISE.format(**fields, code=code, feedback=feedback))
    return code_block(reply.text, problem.entry_point) or code


def _sampling(temperature: float | None) -> dict[str, Any]:
    if temperature is None:
        return {}
    if not 0 <= float(temperature) <= 2:  # not a number fails this too
        raise ValueError(f"a temperature lies in 0 to 2, not {temperature}")
    return {"temperature": float(temperature)}


def _program(ctx: Context, solution: Any) -> str:
    """The program in what a workflow passes as a solution: code, or a reply that holds it."""
    return code_block(str(solution), ctx.problem.entry_point) or str(solution)


async def custom(
    ctx: Context, input: Any = "", instruction: Any = "", temperature: float | None = None
) -> dict[str, Any]:
    """One free call: instruction, then input. The raw reply."""
    text = "\n\n".join(t for t in (str(instruction).strip(), str(input).strip()) if t)
    if not text:
        raise ValueError("custom needs an input or an instruction")
    reply = await ctx.ask(text, **_sampling(temperature))
    return {"response": reply.text}


async def custom_code_generate(
    ctx: Context,
    problem: Any = "",
    entry_point: Any = "",
    instruction: Any = "",
    temperature: float | None = None,
) -> dict[str, Any]:
    """Write a program for the problem: the benchmark's own text of it, unless another is given."""
    given = str(problem).strip()
    if given and given != ctx.problem.prompt.strip():
        text = SOLVE.format(entry_point=ctx.problem.entry_point, prompt=given)
        text = f"{instruction}\n\n{text}" if str(instruction).strip() else text
    else:
        text = solve_prompt(ctx.problem, str(instruction))
    reply = await ctx.ask(text, **_sampling(temperature))
    code = code_block(reply.text, ctx.problem.entry_point)
    return {"response": code or reply.text}


async def sc_ensemble(ctx: Context, solutions: Any = (), problem: Any = "") -> dict[str, Any]:
    """The most consistent of several solutions, chosen by the worker."""
    if isinstance(solutions, str):
        solutions = [solutions]
    programs = [_program(ctx, s) for s in solutions][:26]
    if not programs:
        raise ValueError("sc_ensemble needs a list of solutions")
    if len(set(programs)) == 1:
        return {"response": programs[0], "solution": programs[0]}
    listed = "\n\n".join(
        f"{chr(65 + i)}:\n```python\n{program}\n```" for i, program in enumerate(programs)
    )
    reply = await ctx.ask(ENSEMBLE.format(prompt=ctx.problem.prompt, solutions=listed))
    choices = _CHOICE.findall(strip_reasoning(reply.text))
    index = ord(choices[-1].upper()) - 65 if choices else 0
    chosen = programs[index if index < len(programs) else 0]
    return {"response": chosen, "solution": chosen}


async def test(
    ctx: Context,
    problem: Any = "",
    solution: Any = "",
    entry_point: Any = "",
    test_cases: Any = (),
    test_loop: int = 3,
) -> dict[str, Any]:
    """Run the feedback tests; on failure let the worker rewrite, up to `test_loop` times.

    `result` is True when all pass, False when some fail, None when there is no feedback test.
    """
    code = _program(ctx, solution)
    loops = min(max(int(test_loop), 0), 5)
    for rewrite in range(loops + 1):
        feedback = await ctx.run_feedback(code)
        if feedback.score is None:
            return {"result": None, "solution": code, "response": code, "feedback": "no test"}
        if feedback.score == 1.0:
            return {"result": True, "solution": code, "response": code, "feedback": ""}
        failures = "\n".join(feedback.errors) or f"{feedback.passed} of {feedback.total} tests pass"
        if rewrite < loops:
            fields = {"entry_point": ctx.problem.entry_point, "prompt": ctx.problem.prompt}
            reply = await ctx.ask(REPAIR.format(**fields, code=code, failures=failures))
            code = code_block(reply.text, ctx.problem.entry_point) or code
    return {"result": False, "solution": code, "response": code, "feedback": failures}


async def review(ctx: Context, problem: Any = "", solution: Any = "") -> dict[str, Any]:
    """The worker's verdict on a solution, and what it would mend."""
    verdict, feedback = await review_code(ctx, _program(ctx, solution))
    correct = verdict is not False
    return {"review_result": correct, "result": correct, "feedback": feedback, "response": feedback}


async def revise(
    ctx: Context, problem: Any = "", solution: Any = "", feedback: Any = ""
) -> dict[str, Any]:
    """The solution rewritten to meet the feedback."""
    code = await revise_code(ctx, _program(ctx, solution), str(feedback))
    return {"solution": code, "response": code}


async def format(ctx: Context, problem: Any = "", solution: Any = "") -> dict[str, Any]:
    """The final program out of a longer text."""
    fields = {"entry_point": ctx.problem.entry_point, "prompt": ctx.problem.prompt}
    reply = await ctx.ask(FORMAT.format(**fields, text=str(solution)))
    code = code_block(reply.text, ctx.problem.entry_point) or _program(ctx, solution)
    return {"solution": code, "response": code}


OPERATORS: dict[str, Operator] = {
    "custom": custom,
    "custom_code_generate": custom_code_generate,
    "sc_ensemble": sc_ensemble,
    "test": test,
    "review": review,
    "revise": revise,
    "format": format,
}

DESCRIPTIONS: Sequence[str] = (
    "custom(input, instruction) -> {'response'}: one free call of the worker model.",
    "custom_code_generate(problem, entry_point, instruction) -> {'response'}: write the program.",
    "sc_ensemble(solutions, problem) -> {'response'}: the most consistent of a list of programs.",
    "test(problem, solution, entry_point) -> {'result', 'solution'}: run the feedback tests and "
    "repair the program up to 3 times; result says whether they pass.",
    "review(problem, solution) -> {'review_result', 'feedback'}: judge a program.",
    "revise(problem, solution, feedback) -> {'solution'}: rewrite a program to meet feedback.",
    "format(problem, solution) -> {'solution'}: take the final program out of a longer text.",
)
