"""What agents written as code are made of: how one asks a model, and the seven that a search has.

ADAS / Meta Agent Search, Hu et al. 2024, arXiv:2408.08435, section 3 and its release: an agent is a
function `forward(self, taskInfo)` over `Info` and `LLMAgentBase` (`harness/guest/agents.py`); each
question to a model names output fields, and the reply is a JSON object with these. The wording is
our own, and so is the code of the seven agents.

Differs from the release:
- The answer of an agent is a program: fields `thinking` and `code`, and no `answer`. The task is
  the text of every method's first generation.
- A reply that is no tidy JSON is read as far as it can be, field by field; what is missing is an
  empty text and recorded. Fields come in the order in which they were asked for (there: in the
  order of the reply, so that two can change places), and each is a text.
- The role stands in the request, without a system message; it asks for JSON in words, without a
  provider's JSON mode.
- `run_examples` runs the protocol's feedback tests in the sandbox and tells what the level allows.
- Self-consistency takes the majority over identical programs, the first on ties; self-refine looks
  at the tests first, where there are any, and at its critic otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from baselines.operators import asked_model
from baselines.workflows import unfenced
from harness.extract import code_block, defines, fenced_blocks, parses, strip_reasoning
from harness.types import Context, Operator

FORM = "Reply with one JSON object with exactly these fields: {fields}."
PROGRAM = (
    "`{field}` is a text that holds the complete Python program with the function `{entry_point}` "
    "and everything that it needs, without tests. It stands in the JSON object, whatever the task "
    "says of code blocks."
)

_DECODER = json.JSONDecoder(strict=False)  # a line may end inside a text
_QUOTE = re.compile(r"[A-Za-z]?(\"\"\"|'''|[\"']|`(?!``))")

_LANGUAGE = re.compile(r"\A\s*python3?[ \t]*\n", re.IGNORECASE)  # left of a fence
MOST_CUTS = 50  # ends that are tried for a program whose text was not closed


def is_program(field: str) -> bool:
    """Whether an output field of this name holds the task's program: `code`, `final_code`, ..."""
    words = field.lower().split("_")
    return words[-1] == "code" and not {"test", "tests"} & set(words)


def read_fields(reply: str, fields: Sequence[str], entry_point: str) -> dict[str, str]:
    """Those of `fields` that a reply gives, as texts, be it JSON, JSON gone wrong, or plain text.

    A program is also taken from a fenced block. Without any field named, a program is what the
    reply holds of one, and all of it is the first of the other fields.
    """
    text = strip_reasoning(reply)
    objects = [found for found in _objects(text) if any(field in found for field in fields)]
    raw = objects[-1] if objects else _loose(text, fields, entry_point)
    found = {field: _text(raw[field], is_program(field)) for field in fields if field in raw}
    for field in fields:
        if is_program(field):
            blocks = [b for b in fenced_blocks(text) if defines(b, entry_point)]
            program = _program(found.get(field, ""), entry_point) or (blocks or [""])[-1]
            program = program or ("" if raw else code_block(text, entry_point))
            if program:
                found[field] = program
    others = [field for field in fields if not is_program(field)]
    if not raw and others and text.strip():
        found[others[0]] = text.strip()
    return found


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects of a text, outermost ones, in order."""
    at = text.find("{")
    while at >= 0:
        end = at + 1
        try:
            value, end = _DECODER.raw_decode(text, at)
            yield value
        except (ValueError, RecursionError):
            pass
        at = text.find("{", end)


def _loose(text: str, fields: Sequence[str], entry_point: str) -> dict[str, str]:
    """What follows each field's name and a colon, up to the next name: JSON with broken texts."""
    names = "|".join(re.escape(field) for field in fields)
    pattern = rf"""(?:^[\s*#-]*|["'`])({names})["'`*]*\s*:[\s*]*"""
    keys = list(re.finditer(pattern, text, re.MULTILINE | re.IGNORECASE))
    ends = [*(key.start() for key in keys[1:]), len(text)]
    asked = {field.lower(): field for field in fields}
    found = {}
    for key, end in zip(keys, ends, strict=False):
        field, value = asked[key.group(1).lower()], text[key.end() : end].strip()
        opening = _QUOTE.match(value)
        if opening is None:
            value = value.rstrip("}, \n")
            found[field] = value if is_program(field) else _unescaped(value)
            continue
        mark, body = opening.group(1), value[opening.end() :]
        closing = body.rfind(mark)
        inner = body[: closing if closing >= 0 else None]
        found[field] = (
            _cut(body, mark, entry_point) or inner if is_program(field) else _unescaped(inner)
        )
    return found


def _cut(body: str, mark: str, entry_point: str) -> str:
    """The longest program at the head of a text that was never closed, or closed by a docstring."""
    stops = re.finditer(rf"{re.escape(mark)}|^\s*(?:`{{3}}|~{{3}}|\}})", body, re.MULTILINE)
    ends = [*(stop.start() for stop in stops), len(body)]
    for end in reversed(ends[-MOST_CUTS:]):
        program = _program(body[:end], entry_point)
        if defines(program, entry_point):
            return program
    return ""


def _text(value: Any, program: bool) -> str:
    """A field's value as a text: of a program written as a list, its lines."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(line.rstrip("\n") for line in value) if program else "\n".join(value)
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def _program(value: str, entry_point: str) -> str:
    """A program out of a field: without a fence, and without escapes that belong to the JSON."""
    inner = _LANGUAGE.sub("", unfenced(value))
    for candidate in (inner, inner.replace('\\"', '"'), _unescaped(inner)):
        if candidate.strip() and parses(candidate):
            return code_block(candidate, entry_point) or candidate.strip("\n")
    return code_block(value, entry_point) or value.strip("\n")


def _unescaped(value: str) -> str:
    """A JSON text's escapes, read; those of other languages stay."""
    marks = {"\\n": "\n", "\\t": "\t", '\\"': '"', "\\\\": "\\", "\\'": "'", "\\/": "/"}
    return re.sub(r"\\[nt\"'\\/]", lambda found: marks[found.group()], value)


def render(
    entry_point: str,
    fields: Sequence[str],
    name: str,
    role: str,
    inputs: Sequence[Sequence[Any]],
    instruction: str,
) -> str:
    """The request of one agent: its role, what it is told, what to do, the form of the reply.

    `inputs` are rows [name, author, content, iteration].
    """
    parts = [f"You are a {role}."]
    for what, author, content, iteration in inputs:
        number = f" {iteration + 1}" if iteration >= 0 else ""
        by = f" by {author}{' (yourself)' if author == name else ''}" if author else ""
        title = "# Task" if what == "task" else f"## {what}{number}{by}"
        said = _text(content, False)
        if is_program(what) and said.strip():
            fence = "~~~~" if "```" in said else "```"
            said = f"{fence}python\n{said}\n{fence}"
        parts.append(f"{title}\n{said}")
    programs = [field for field in fields if is_program(field)]
    parts.append(f"# Instruction\n{instruction}")
    parts += [PROGRAM.format(field=field, entry_point=entry_point) for field in programs]
    parts.append(FORM.format(fields=", ".join(fields)))
    return "\n\n".join(parts)


async def agent(
    ctx: Context,
    output_fields: Sequence[str],
    agent_name: str = "Agent",
    role: str = "helpful assistant",
    inputs: Sequence[Sequence[Any]] = (),
    instruction: str = "",
    model: str | None = None,
    temperature: float | None = None,
) -> dict[str, Any]:
    """One question to a model: `values`, a text for each output field, in their order."""
    fields = list(output_fields)
    if not fields or len(set(fields)) < len(fields):
        raise ValueError(f"an agent needs output fields, each once, not {fields}")
    name = ctx.problem.entry_point
    request = render(name, fields, agent_name, role, inputs, instruction)
    reply = await ctx.ask(request, **asked_model(ctx, model, temperature))
    found = read_fields(reply.text, fields, name)
    if missing := [field for field in fields if not found.get(field)]:
        ctx.note("fields", agent=agent_name, missing=missing)
    return {"values": [found.get(field, "") for field in fields]}


async def run_examples(ctx: Context, code: str) -> dict[str, Any]:
    """What the feedback tests say of a program, as far as the level allows: text and counts."""
    found = await ctx.run_feedback(code_block(code, ctx.problem.entry_point) or code)
    if found.score is None:
        return {"feedback": "There is no example to run.", "passed": 0, "total": 0}
    counts = f"{found.passed} of {found.total} examples pass."
    lines = [counts, *(f"- {line}" for line in found.errors)]
    return {"feedback": "\n".join(lines), "passed": found.passed, "total": found.total}


OPERATORS: Mapping[str, Operator] = {"agent": agent, "run_examples": run_examples}

CHAIN_OF_THOUGHT = """\
def forward(self, taskInfo):
    # fields are answered in this order: thinking comes before the program
    solver = LLMAgentBase(['thinking', 'code'], 'Solver')
    thinking, code = solver([taskInfo], 'Think step by step, then write the program.')
    return code
"""

SELF_CONSISTENCY = """\
def forward(self, taskInfo):
    import ast

    def meaning(code):  # layout and comments aside
        try:
            return ast.dump(ast.parse(code.content))
        except (SyntaxError, ValueError):
            return code.content

    instruction = 'Think step by step, then write the program.'
    programs = []
    for _ in range(5):
        solver = LLMAgentBase(['thinking', 'code'], 'Solver', temperature=0.8)
        thinking, code = solver([taskInfo], instruction)
        programs.append(code)
    votes = Counter(meaning(code) for code in programs if code.content.strip())
    if not votes:
        return programs[0]
    winner = votes.most_common(1)[0][0]  # the first one on ties
    return next(code for code in programs if meaning(code) == winner)
"""

SELF_REFINE = """\
def forward(self, taskInfo):
    solver = LLMAgentBase(['thinking', 'code'], 'Solver')
    critic = LLMAgentBase(['feedback', 'correct'], 'Critic')
    review = ('Look for mistakes in the last program: edge cases, wrong types, a task misread. '
              'Say in `feedback` what to mend. `correct` is True only if you are sure that '
              'nothing is wrong, else False.')
    retry = ('Earlier attempts and what was found wrong with them stand above. Find where the last '
             'one fails, and write a better program.')
    inputs = [taskInfo]
    thinking, code = solver(inputs, 'Think step by step, then write the program.', 0)
    for attempt in range(1, 5):
        told, passed, total = self.run_examples(code)
        if total and passed == total:
            break
        inputs = inputs + [thinking, code]
        if total:
            inputs = inputs + [Info('feedback', 'examples', told, attempt - 1)]
        else:
            feedback, correct = critic(inputs, review, attempt - 1)
            if correct.content.strip().lower().startswith('true'):
                break
            inputs = inputs + [feedback]
        thinking, code = solver(inputs, retry, attempt)
    return code
"""

DEBATE = """\
def forward(self, taskInfo):
    roles = ['designer of algorithms', 'tester who looks for edge cases', 'Python expert']
    debaters = [LLMAgentBase(['thinking', 'code'], 'Debater', role=role, temperature=0.8)
                for role in roles]
    first = 'Think step by step, then write the program.'
    update = ('Programs of the other debaters stand above. Take from them what convinces you, '
              'then write your updated program.')
    said = []
    for round_number in range(2):
        now = []
        for debater in debaters:
            inputs = [taskInfo] + said
            instruction = update if round_number else first
            now.extend(debater(inputs, instruction, round_number))
        said = now
    judge = LLMAgentBase(['thinking', 'code'], 'Judge', temperature=0.1)
    thinking, code = judge([taskInfo] + said, 'Weigh the programs above, then write the final one.')
    return code
"""

STEP_BACK = """\
def forward(self, taskInfo):
    thinker = LLMAgentBase(['thinking', 'principles'], 'Principles')
    solver = LLMAgentBase(['thinking', 'code'], 'Solver')
    thinking, principles = thinker(
        [taskInfo], 'Do not solve the task yet. Which principles, algorithms and pitfalls are '
                    'behind it? Explain each.')
    thinking, code = solver(
        [taskInfo, thinking, principles], 'Follow the principles above step by step, then write '
                                          'the program.')
    return code
"""

QUALITY_DIVERSITY = """\
def forward(self, taskInfo):
    solver = LLMAgentBase(['thinking', 'code'], 'Solver')
    inputs = [taskInfo]
    for attempt in range(3):
        instruction = 'Think step by step, then write the program.'
        if attempt:
            instruction = 'Solve the task in a way that none of the attempts above has taken.'
        inputs.extend(solver(inputs, instruction, attempt))
    judge = LLMAgentBase(['thinking', 'code'], 'Judge', temperature=0.1)
    thinking, code = judge(inputs, 'Weigh the programs above, then write the final one.')
    return code
"""

ROLE_ASSIGNMENT = """\
def forward(self, taskInfo):
    roles = {
        'algorithms': 'designer of efficient algorithms',
        'mathematics': 'mathematician who programs',
        'text': 'expert in parsing and formatting text',
        'libraries': 'expert in the standard library and its common packages',
    }
    router = LLMAgentBase(['choice'], 'Router')
    choice = router([taskInfo], 'Who should solve the task? Choose one of: ' + ', '.join(roles))[0]
    named = [name for name in roles if name in choice.content.lower()]
    expert = LLMAgentBase(['thinking', 'code'], 'Expert', role=roles[(named or list(roles))[0]])
    thinking, code = expert([taskInfo], 'Think step by step, then write the program.')
    return code
"""

SEEDS = (  # (name, thought, code)
    (
        "Chain of thought",
        "A model that reasons before it writes makes fewer mistakes.",
        CHAIN_OF_THOUGHT,
    ),
    (
        "Self-consistency",
        "Lines of reasoning differ, right programs agree: draw five, take the majority.",
        SELF_CONSISTENCY,
    ),
    (
        "Self-refine",
        "Feedback on an attempt, from examples or from a critic, shows what the next must mend.",
        SELF_REFINE,
    ),
    (
        "Debate",
        "Models in different roles see different faults, and convince each other.",
        DEBATE,
    ),
    (
        "Step back",
        "Naming the principles behind a task first keeps its solution from being shallow.",
        STEP_BACK,
    ),
    (
        "Quality and diversity",
        "Attempts that must differ from each other cover more ways; a judge takes the best.",
        QUALITY_DIVERSITY,
    ),
    (
        "Role assignment",
        "Tasks want different experts: a router chooses who solves this one.",
        ROLE_ASSIGNMENT,
    ),
)
