"""Steps that methods share, and the seven operators that a workflow may call.

Operators and their interfaces: AFlow (Zhang et al. 2024, arXiv:2410.10762) and FlowReasoner (Gao
et al. 2025, arXiv:2504.15257, section 4.1): Code Generator, Format Generator, Ensemble, Review,
Revise, Code Test, and Custom. A node may choose its model, temperature and output format per call
(same section). The wording is our own. Differs from their releases: the Test operator runs the
feedback tests of the problem (not of a function name) in the sandbox, and says so when there is
none (theirs then reports success); a step that fails says so in `failure`, where theirs raises or
lacks its field: Ensemble then takes the first solution, Review accepts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.extract import code_block, fenced_blocks, strip_reasoning
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

_VERDICTS = "VERDICT: correct, or VERDICT: incorrect"
# colon or not, quoted or tagged: `"verdict": "correct"`, <verdict>correct</verdict>
_VERDICT = re.compile(r"VERDICT\W*(incorrect|correct)\b", re.IGNORECASE)
_FEEDBACK = re.compile(r"FEEDBACK:\s*(.*?)(?=\n\W*VERDICT\b|\Z)", re.IGNORECASE | re.DOTALL)
_CHOICE = re.compile(r"(?:CHOICE|solution_letter)\b[^\w\n]*[:=>]([^\n]*)", re.IGNORECASE)
_MARKS = " \t*_`'\"()[]{}<>.,;:"  # around a letter
_LABEL = re.compile(r"\b[A-Z]{1,2}\b")

WANTED = {
    "text": "plain text",
    "code": "one Python code block",
    "json": "one JSON object",
    "xml": "XML, each part in a tag of its own",
}
WANTED_CHARS = 300  # of an output format in a workflow's own words
MOST_FIELDS = 50  # taken from an XML answer
TEXTS = ("response", "solution", "code", "answer", "result", "text", "output")
LOOPS, MOST_LOOPS = 3, 5  # rewrites of one test call: as released; as many as a workflow may ask


def solve_prompt(problem: Problem, instruction: str = "") -> str:
    """The text of every method's first generation; an instruction of its own goes before it."""
    text = SOLVE.format(entry_point=problem.entry_point, prompt=problem.prompt)
    return f"{instruction.strip()}\n\n{text}" if instruction.strip() else text


def first_message(problem: Problem) -> list[Message]:
    return [{"role": "user", "content": solve_prompt(problem)}]


def parse_review(reply: str) -> tuple[bool | None, str]:
    """(verdict, feedback) of a review; the verdict is None when none can be read."""
    text = strip_reasoning(reply).replace(_VERDICTS, "")  # an echo of the request is no verdict
    verdicts = _VERDICT.findall(text)
    notes = _FEEDBACK.findall(text)
    feedback = notes[-1].strip() if notes else _VERDICT.sub("", text).strip()
    return (verdicts[-1].lower() == "correct" if verdicts else None), feedback


async def review_code(
    ctx: Context, code: str, *, form: str = "", **node: Any
) -> tuple[bool | None, str]:
    """Ask for a verdict on a program; one re-ask when it cannot be read.

    `form` goes before the request; `node` is the role to ask (the worker) and its sampling.
    """
    request = REVIEW.format(prompt=ctx.problem.prompt, code=code)
    asked: list[Message] = [{"role": "user", "content": form + request}]
    reply = (await ctx.ask(asked, **node)).text
    verdict, feedback = parse_review(reply)
    if verdict is None:
        again = f"End with one line: {_VERDICTS}."
        asked += [{"role": "assistant", "content": reply}, {"role": "user", "content": again}]
        verdict, _ = parse_review((await ctx.ask(asked, **node)).text)
    return verdict, feedback


async def revise_code(
    ctx: Context, code: str, feedback: str, *, form: str = "", **node: Any
) -> str:
    """Ask for a program rewritten to meet feedback; the old one when the reply holds none."""
    fields = _about(ctx.problem)
    reply = await ctx.ask(form + REVISE.format(**fields, code=code, feedback=feedback), **node)
    return code_block(reply.text, ctx.problem.entry_point) or code


def parse_choice(reply: str, labels: Sequence[str]) -> int | None:
    """The position of the label that a reply chooses; None when it names none of them."""
    text = strip_reasoning(reply)
    lines = text.strip().splitlines()
    for words in reversed(_CHOICE.findall(text)):
        for label in (words.strip(_MARKS).upper(), *_LABEL.findall(words)):
            if label in labels:
                return labels.index(label)
    last = lines[-1].strip(_MARKS).upper() if lines else ""
    return labels.index(last) if last in labels else None


def label_of(position: int) -> str:
    """The label of the solution at a position: A to Z, then AA, AB, ..."""
    first, last = divmod(position, 26)
    return (chr(64 + first) if first else "") + chr(65 + last)


def asked_model(ctx: Context, model: Any, temperature: Any) -> dict[str, Any]:
    """Whom a node asks, and how: nothing for the worker as it is set.

    A model goes by its role, its name, or what follows the name's last slash. Raises ValueError.
    """
    node: dict[str, Any] = {}
    if model is not None and (wanted := str(model).strip().lower()):
        for role, name in ctx.nodes.items():
            full = name.lower()
            if wanted in (role.lower(), full, full.rpartition("/")[2]):
                node["role"] = role
                break
        else:
            raise ValueError(f"no model {model!r} for a node; allowed: {_named(ctx.nodes)}")
    if temperature is not None:
        if not 0 <= float(temperature) <= 2:  # not a number fails this too
            raise ValueError(f"a temperature lies in 0 to 2, not {temperature}")
        node["temperature"] = float(temperature)
    return node


def _named(nodes: Mapping[str, str]) -> str:
    return ", ".join(f"{role} ({name})" for role, name in nodes.items())


def node_options(nodes: Mapping[str, str]) -> str:
    """What a meta-agent is told of the choices that each operator call has."""
    return (
        "Each operator call may also set temperature=0 to 2, output_format='text', 'code', 'json' "
        f"or 'xml', and model=, one of: {_named(nodes)}."
    )


def _form(output_format: Any) -> str:
    """The line that states the wanted form of an answer; empty when none is asked for.

    Raises ValueError when it is no short text.
    """
    wanted = "" if output_format is None else " ".join(str(output_format).split())
    if len(wanted) > WANTED_CHARS:
        raise ValueError(f"an output_format is a short text, not {len(wanted)} characters")
    return f"Form of the answer: {WANTED.get(wanted.lower(), wanted)}." if wanted else ""


def _ahead(output_format: Any) -> str:
    """The same, before a request that ends with a form of its own."""
    form = _form(output_format)
    return f"{form}\n\n" if form else ""


def _is(output_format: Any, name: str) -> bool:
    return str(output_format).strip().lower() == name


def parse_fields(reply: str, output_format: Any) -> dict[str, Any]:
    """The fields of a reply in JSON or XML, as far as it can be read; the last of a name counts."""
    text = strip_reasoning(reply)
    if _is(output_format, "json"):
        for candidate in (
            *reversed(fenced_blocks(text)),
            text,
            text[text.find("{") : text.rfind("}") + 1],
        ):
            try:
                found = json.loads(candidate, strict=False)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                return found
    if _is(output_format, "xml"):
        found = {}
        for name in list(dict.fromkeys(re.findall(r"</([A-Za-z_]\w*)>", text)))[:MOST_FIELDS]:
            closing = text.rfind(f"</{name}>")
            opening = text.rfind(f"<{name}>", 0, closing)
            if opening >= 0:
                found[name] = text[opening + len(name) + 2 : closing].strip()
        return found
    return {}


def _about(problem: Problem) -> dict[str, str]:
    return {"entry_point": problem.entry_point, "prompt": problem.prompt}


def _text(given: Any) -> str:
    """What a workflow passes as text; a dictionary or list of several things as JSON."""
    if isinstance(given, Mapping | list):
        return json.dumps(given, ensure_ascii=False, indent=1)
    return str(given)


def _failed(what: str) -> dict[str, str]:
    """What a result holds beside its fallback when its step failed."""
    return {"failure": what}


def _program(ctx: Context, solution: Any) -> str:
    """The program in what a workflow passes as a solution: code, or a reply that holds it."""
    if isinstance(solution, Mapping):
        found = (solution[name] for name in TEXTS if isinstance(solution.get(name), str))
        solution = next(found, solution)
    text = _text(solution)
    return code_block(text, ctx.problem.entry_point) or text


async def custom(
    ctx: Context,
    input: Any = "",
    instruction: Any = "",
    context: Any = "",
    *,
    model: Any = None,
    temperature: Any = None,
    output_format: Any = None,
) -> dict[str, Any]:
    """One free call: instruction, then input and context. The raw reply."""
    parts = [_text(t).strip() for t in (instruction, input, context)]
    if not any(parts):
        raise ValueError("custom needs an input or an instruction")
    text = "\n\n".join(t for t in (*parts, _form(output_format)) if t)
    reply = (await ctx.ask(text, **asked_model(ctx, model, temperature))).text
    if _is(output_format, "code"):
        code = code_block(reply, ctx.problem.entry_point) or code_block(reply)
        return {"response": code or reply}
    return {**parse_fields(reply, output_format), "response": reply}


async def custom_code_generate(
    ctx: Context,
    problem: Any = "",
    entry_point: Any = "",
    instruction: Any = "",
    context: Any = "",
    *,
    model: Any = None,
    temperature: Any = None,
    output_format: Any = None,
) -> dict[str, Any]:
    """Write a program for the problem: the benchmark's own text of it, unless another is given."""
    given = _text(problem).strip()
    before = (_text(instruction), _text(context).strip(), _form(output_format))
    instructions = "\n\n".join(t for t in before if t.strip())
    if given and given != ctx.problem.prompt.strip():
        text = SOLVE.format(entry_point=ctx.problem.entry_point, prompt=given)
        text = f"{instructions}\n\n{text}" if instructions else text
    else:
        text = solve_prompt(ctx.problem, instructions)
    reply = (await ctx.ask(text, **asked_model(ctx, model, temperature))).text
    code = code_block(reply, ctx.problem.entry_point)
    found = {**parse_fields(reply, output_format), "response": code or reply}
    return found if code else {**found, **_failed("no program in the reply")}


async def sc_ensemble(
    ctx: Context,
    solutions: Any = (),
    problem: Any = "",
    *,
    model: Any = None,
    temperature: Any = None,
    output_format: Any = None,
) -> dict[str, Any]:
    """The most consistent of several solutions, chosen by the worker."""
    given = [solutions] if isinstance(solutions, str | Mapping) else list(solutions)
    programs = [p for p in (_program(ctx, s) for s in given) if p.strip()]
    if not programs:
        raise ValueError("sc_ensemble needs a list of solutions")
    if len(set(programs)) == 1:
        return {"response": programs[0], "solution": programs[0]}
    labels = [label_of(i) for i in range(len(programs))]
    listed = "\n\n".join(
        f"{label}:\n```python\n{program}\n```"
        for label, program in zip(labels, programs, strict=True)
    )
    text = _ahead(output_format) + ENSEMBLE.format(prompt=ctx.problem.prompt, solutions=listed)
    reply = (await ctx.ask(text, **asked_model(ctx, model, temperature))).text
    chosen = parse_choice(reply, labels)
    program = programs[chosen or 0]
    found = {**parse_fields(reply, output_format), "response": program, "solution": program}
    failed = _failed("no letter in the reply: the first is taken") if chosen is None else {}
    return {**found, **failed}


async def test(
    ctx: Context,
    problem: Any = "",
    solution: Any = "",
    entry_point: Any = "",
    test_cases: Any = (),
    test_loop: Any = None,
    *,
    loops: Any = None,
    model: Any = None,
    temperature: Any = None,
    output_format: Any = None,
) -> dict[str, Any]:
    """Run the feedback tests; on failure let the worker rewrite, up to `loops` times.

    `result` is True when all pass, False when some fail, None when there is no feedback test.
    Tests that a workflow passes are not run: what counts as feedback is the protocol's.
    """
    code = _program(ctx, solution)
    if isinstance(test_cases, int):  # AFlow's fourth argument is the number of rewrites
        test_loop = test_cases
    wanted = next((n for n in (loops, test_loop) if n is not None), LOOPS)
    most = min(max(int(wanted), 0), MOST_LOOPS)
    node, form = asked_model(ctx, model, temperature), _ahead(output_format)
    for rewrite in range(most + 1):
        found = await ctx.run_feedback(code)
        made = {"solution": code, "response": code}
        if found.score is None:
            return {"result": None, **made, "feedback": "no test", **_failed("no test")}
        if found.score == 1.0:
            return {"result": True, **made, "feedback": ""}
        failures = "\n".join(found.errors) or f"{found.passed} of {found.total} tests pass"
        if rewrite < most:
            request = REPAIR.format(**_about(ctx.problem), code=code, failures=failures)
            reply = await ctx.ask(form + request, **node)
            code = code_block(reply.text, ctx.problem.entry_point) or code
    return {"result": False, **made, "feedback": failures}


async def review(
    ctx: Context,
    problem: Any = "",
    solution: Any = "",
    *,
    model: Any = None,
    temperature: Any = None,
    output_format: Any = None,
) -> dict[str, Any]:
    """The worker's verdict on a solution, and what it would mend."""
    node = asked_model(ctx, model, temperature)
    code = _program(ctx, solution)
    verdict, feedback = await review_code(ctx, code, form=_ahead(output_format), **node)
    found = {"review_result": verdict is not False, "result": verdict is not False}
    fields = {**parse_fields(feedback, output_format), **found}
    failed = _failed("no verdict in the reply: accepted") if verdict is None else {}
    return {**fields, "feedback": feedback, "response": feedback, **failed}


async def revise(
    ctx: Context,
    problem: Any = "",
    solution: Any = "",
    feedback: Any = "",
    *,
    model: Any = None,
    temperature: Any = None,
    output_format: Any = None,
) -> dict[str, Any]:
    """The solution rewritten to meet the feedback."""
    node = asked_model(ctx, model, temperature)
    code, form = _program(ctx, solution), _ahead(output_format)
    better = await revise_code(ctx, code, _text(feedback), form=form, **node)
    failed = _failed("nothing was rewritten") if better == code else {}
    return {"solution": better, "response": better, **failed}


async def format(
    ctx: Context,
    problem: Any = "",
    solution: Any = "",
    *,
    model: Any = None,
    temperature: Any = None,
    output_format: Any = None,
) -> dict[str, Any]:
    """The final program out of a longer text."""
    request = _ahead(output_format) + FORMAT.format(**_about(ctx.problem), text=_text(solution))
    reply = await ctx.ask(request, **asked_model(ctx, model, temperature))
    code = code_block(reply.text, ctx.problem.entry_point)
    failed = {} if code else _failed("no program in the reply")
    code = code or _program(ctx, solution)
    return {"solution": code, "response": code, **failed}


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
