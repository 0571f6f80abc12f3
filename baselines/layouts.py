"""What FlowReasoner's meta-agent is told of a problem and of the rounds so far, in three layouts.

Gao et al. 2025, arXiv:2504.15257, section 4 and equation 2. All functions are pure: what `solve`
sends and what a training record holds come from the same ones (`render`, `render_record`).

- `round` (the release): system; user with the problem, the parent workflow, its score and what was
  tried on it. Nothing else of earlier rounds.
- `multi_turn`: one growing chat. System; user as in `round`; then, for each round, the meta-agent's
  reply as it came, and a user turn with that workflow's feedback, with the workflow to go on from
  where that is another one, and the request for the next.
- `concat` (the paper's equation 2): system; user as in `round`; then one assistant turn that grows,
  and that a request ends with, so that the model goes on where it stops:

      <think>
      Round 2:
      {the reply, up to the end of its first workflow, without think tags}

      Feedback on round 2: it scores 0.50 (best is 1.0).
      {Failed tests: and one line for each, where they are shown}
      {Go on from the workflow of round 1. Only where that is not the latest}

      Round 3:

  It ends without a line break, which some providers reject; the reply is joined to it by one. A
  record goes on to the end: the last round's feedback, `</think>`, an empty line, and the final
  workflow in its three tags.

A request for a later round begins with the whole request for the one before, in `multi_turn` and
`concat`, as long as no round is left out: replies without text and, with `failed_rounds=lost`,
rounds whose workflow could not be loaded. A round's number is the harness's: without a template the
first one is 1. Differs from the paper: the wording and format are ours, the paper prints neither.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from baselines.operators import OPERATORS
from baselines.workflows import Proposal, operator_list, parse_reply, plain, unused_operators
from harness.types import Message, Problem

Layout = Literal["round", "multi_turn", "concat"]

SYSTEM = """\
You design workflows. A workflow is Python code that solves one programming problem by calling a
worker model through operators. You improve a workflow step by step, guided by its score.

Operators (call them as `await self.NAME(...)`; each result is a dictionary):
{operators}

Rules:
- Write the complete class `Workflow` with `async def __call__(self, problem, entry_point)`.
- It returns `(solution_text, self.llm.cost_manager.total_cost)`; never return None.
- Make one modification of the given workflow: at most about 5 changed lines. Review, revise,
  ensemble, testing, loops and conditions are welcome.
- `custom` sends instruction + input; its instruction may be a constant of your <prompt> part, used
  as `prompt_custom.NAME`. Define exactly those constants that you use; no placeholders in them.
- Import what you use beyond the operators. Use operators that the workflow does not use yet.

Answer with three parts and nothing else: <modification>, one sentence that says what you change and
why; <graph>, the Python code; <prompt>, the constants as Python code, empty when there are none.
An answer to another request, as an example:
<modification>Let the worker list edge cases first, so that the program covers them.</modification>
<graph>
class Workflow:
    async def __call__(self, problem: str, entry_point: str):
        cases = await self.custom(input=problem, instruction=prompt_custom.CASES)
        solution = await self.custom_code_generate(
            problem=problem, entry_point=entry_point, instruction=cases["response"]
        )
        return solution["response"], self.llm.cost_manager.total_cost
</graph>
<prompt>
CASES = \"\"\"List the edge cases of this problem, one line each. Write no code.\"\"\"
</prompt>"""
SIZE = "Keep a workflow under {steps} steps."
TEST_CASES = (
    "`__call__` may also take `test_cases`: a list of tests of the problem, each a text, which the "
    "workflow may show to the worker."
)
NODES = (
    "Every operator that asks a model also takes `temperature=` (0 to 2), `output_format=` (text, "
    "code, json or xml) and `model=` (one of: {models})."
)

PROBLEM = "The problem that the workflow is for:\n{problem}\n\n"
PARENT = """\
scores {score} (best is 1.0):
<graph>
{graph}</graph>
<prompt>
{prompts}</prompt>
It does not use: {unused}.
{experience}
"""
NEXT = "Write the next workflow for this problem."
ROUND = PROBLEM + "The current workflow " + PARENT + NEXT
FIRST = PROBLEM + "There is no workflow yet. Write the first one for this problem."
START = "There is no workflow yet. Write one for this problem."
FEEDBACK = "Feedback on round {number}: {outcome}"
GO_ON = "Go on from the workflow of round {number}, which " + PARENT
BACK = "Go on from the workflow of round {number}."
CONTINUE = (
    "You work in rounds: in each you think and write one workflow, and its feedback is put behind "
    "it. Go on with the round that was begun."
)
AGAIN = "That modification was already tried on this workflow. Propose a different one."
FINAL = (
    "<modification>{modification}</modification>\n<graph>\n{graph}</graph>\n"
    "<prompt>\n{prompts}</prompt>"
)


@dataclass
class Round:
    """One workflow and what became of it. Scores are feedback pass rates in [0, 1]."""

    number: int
    graph: str
    prompts: str
    parent: int | None = None
    modification: str = ""
    reply: str | None = None  # the meta-agent's, as it came; None: the template
    scores: list[float] = field(default_factory=list)
    answered: bool = False  # whether any execution gave an answer
    has_feedback: bool = False  # whether any answer could be tested
    error: str | None = None  # one line: where, class, message
    error_class: str | None = None  # "load:SyntaxError", "run:TypeError", "limit:CallLimit", ...
    best_code: str = ""
    best_score: float = -1.0
    failures: tuple[str, ...] = ()  # failed tests of the best program, as far as the level allows

    @property
    def score(self) -> float:
        return math.fsum(self.scores) / len(self.scores) if self.scores else 0.0

    @property
    def loads(self) -> bool:
        """Whether it holds a workflow that could be loaded."""
        return not (self.error_class or "").startswith(("reply:", "load:"))


@dataclass(frozen=True)
class View:
    """How much the meta-agent is told, and in which layout."""

    layout: Layout = "round"
    feedback: Literal["scalar", "errors"] = "scalar"  # with failed tests or without
    failed_rounds: Literal["kept", "lost"] = "kept"  # their errors are shown, or leave no trace
    operators: Sequence[str] = tuple(OPERATORS)
    max_complexity: int = 10  # steps of a workflow, in words only
    test_cases: bool = False  # whether it may know that workflows can take them
    models: tuple[str, ...] = ()  # that a node may ask for; empty: nothing is said of nodes


def render(
    problem: Problem, history: Sequence[Round], parent: Round | None, view: View
) -> list[Message]:
    """The request for the next workflow, to be made from `parent`; None: there is none yet."""
    shown = told(history, view)
    if view.layout == "multi_turn":
        return _render_turns(problem, shown, parent, view)
    number = history[-1].number + 1 if history else 1
    if view.layout == "concat":
        return _render_concat(problem, shown, parent, number, view)
    return [_system(view), _user(_request(problem, shown, parent, view))]


def render_again(chat: Sequence[Message], reply: str, view: View) -> list[Message]:
    """The request once more, behind a reply that repeats what was tried."""
    if view.layout != "concat":
        return [*chat, {"role": "assistant", "content": reply}, _user(AGAIN)]
    *before, last = chat
    begun = last["content"]
    header = begun.rpartition("\n")[2]
    text = f"{begun}\n{continued(reply)}\n\n{AGAIN}\n\n{header}"
    return [*before, {"role": "assistant", "content": text}]


def render_record(
    problem: Problem, history: Sequence[Round], view: View, final: Round | None = None
) -> list[Message]:
    """A training record: the request of the last round of `history`, and its answer.

    In `concat` the turn goes on to its end: feedback, and `final`, the workflow that was chosen.
    """
    *before, last = history
    numbered = {r.number: r for r in before}
    chat = render(problem, before, numbered.get(last.parent or 0), view)
    reply = last.reply or ""
    if view.layout != "concat":
        return [*chat, {"role": "assistant", "content": reply}]
    *asked, begun = chat
    chosen = final or last
    answer = FINAL.format(
        modification=chosen.modification, graph=_ended(chosen.graph), prompts=_ended(chosen.prompts)
    )
    text = f"{begun['content']}\n{continued(reply)}\n\n{_feedback(last, view)}"
    return [*asked, {"role": "assistant", "content": f"{text}\n</think>\n\n{answer}"}]


def read_reply(reply: str, view: View) -> Proposal:
    """What a reply proposes; in `concat` its first workflow, which a model may have gone past."""
    opened = re.match(r"\s*<think", reply, re.IGNORECASE)
    return parse_reply(reply if view.layout != "concat" or opened else continued(reply))


def told(history: Sequence[Round], view: View) -> list[Round]:
    """The rounds that leave a trace."""
    return [r for r in history if view.failed_rounds == "kept" or r.loads]


def modifications(history: Sequence[Round], parent: Round | None) -> set[str]:
    """What was tried on a workflow, as it is compared."""
    if parent is None:
        return set()
    made = (r.modification for r in history if r.parent == parent.number)
    return {plain(text) for text in made if text}


_WORKFLOW = re.compile(
    r"<graph>(?:(?!</graph>).)*\bclass\s+Workflow\b.*?</graph>(?:\s*<prompt>.*?</prompt>)?",
    re.DOTALL | re.IGNORECASE,
)
_MADE_UP = re.compile(r"^Feedback on round \d+:", re.MULTILINE)
_THINK = re.compile(r"</?think(?:ing)?>", re.IGNORECASE)


def continued(reply: str) -> str:
    """What a reply adds to the growing text: all up to its first workflow's end, no think tags.

    A model that goes on behind that makes up its own feedback. One that opens a think block of its
    own has begun a new answer: all of that counts.
    """
    if not re.match(r"\s*<think", reply, re.IGNORECASE):
        if found := _WORKFLOW.search(reply):
            reply = reply[: found.end()]
        elif made_up := _MADE_UP.search(reply):
            reply = reply[: made_up.start()]
    return _THINK.sub("", reply).strip()


def _render_turns(
    problem: Problem, history: Sequence[Round], parent: Round | None, view: View
) -> list[Message]:
    chat = [_system(view)]
    before: Round | None = None
    for turn, start, earlier in _turns(history, parent):
        if before is None:
            chat.append(_user(_request(problem, earlier, start, view)))
        else:
            chat.append(_user(_follow_up(before, earlier, start, view)))
        if turn is not None:
            chat.append({"role": "assistant", "content": turn.reply or ""})
        before = turn
    return chat


def _render_concat(
    problem: Problem, history: Sequence[Round], parent: Round | None, number: int, view: View
) -> list[Message]:
    text, request = "<think>\n", ""
    before: Round | None = None
    for turn, start, earlier in _turns(history, parent):
        if before is None:
            request = f"{_request(problem, earlier, start, view)}\n{CONTINUE}"
        else:
            back = start is not None and start is not before
            text += f"\n{BACK.format(number=start.number)}\n\n" if start and back else "\n\n"
        text += f"Round {turn.number if turn else number}:"
        if turn is not None:
            text += f"\n{continued(turn.reply or '')}\n\n{_feedback(turn, view)}"
        before = turn
    return [_system(view), _user(request), {"role": "assistant", "content": text}]


def _turns(
    history: Sequence[Round], parent: Round | None
) -> list[tuple[Round | None, Round | None, Sequence[Round]]]:
    """(round, its parent, what was before it) of each that was replied, then of the next one."""
    numbered = {r.number: r for r in history}
    spoken = [r for r in history if r.reply]
    return [
        *((r, numbered.get(r.parent or 0), [b for b in history if b.number < r.number])
          for r in spoken),
        (None, parent, history),
    ]  # fmt: skip


def _system(view: View) -> Message:
    parts = [
        SYSTEM.format(operators=operator_list(view.operators)),
        SIZE.format(steps=view.max_complexity),
    ]
    if view.test_cases:
        parts.append(TEST_CASES)
    if view.models:
        parts.append(NODES.format(models=", ".join(view.models)))
    return {"role": "system", "content": parts[0] + "\n\n" + "\n".join(parts[1:])}


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _request(problem: Problem, history: Sequence[Round], parent: Round | None, view: View) -> str:
    if parent is None:
        return FIRST.format(problem=problem.prompt)
    return ROUND.format(problem=problem.prompt, **_parent_fields(history, parent, view))


def _follow_up(before: Round, history: Sequence[Round], parent: Round | None, view: View) -> str:
    """The user turn behind a reply: its feedback, and what to do next."""
    text = _feedback(before, view)
    if parent is None:
        return f"{text}\n\n{START}"
    if parent is before:
        return f"{text}\n\nIt does not use: {_unused(before, view)}.\n{NEXT}"
    fields = _parent_fields(history, parent, view)
    return f"{text}\n\n{GO_ON.format(number=parent.number, **fields)}{NEXT}"


def _feedback(made: Round, view: View) -> str:
    """What became of a round's workflow, as far as it may be told."""
    outcome = f"it scores {made.score:.2f} (best is 1.0)."
    if made.error and view.failed_rounds == "kept":
        outcome = f"it failed: {made.error}"
    lines = [FEEDBACK.format(number=made.number, outcome=outcome), *_failed_tests(made, view)]
    return "\n".join(lines)


def _failed_tests(made: Round, view: View) -> list[str]:
    if view.feedback != "errors" or not made.failures:
        return []
    return ["Failed tests:", *(f"- {line}" for line in made.failures)]


def _parent_fields(history: Sequence[Round], parent: Round, view: View) -> dict[str, str]:
    lines = []
    shows_errors = view.failed_rounds == "kept"
    if parent.error and shows_errors:
        lines.append(f"It failed: {parent.error}")
    tried = [r for r in history if r.parent == parent.number]
    if tried:
        lines.append("\nAlready tried on it (do something different):")
        for made in tried:
            failed = made.error and shows_errors
            outcome = f"failed: {made.error}" if failed else f"scored {made.score:.2f}"
            lines.append(f"- {made.modification or 'no description'}: {outcome}")
    if failed_tests := _failed_tests(parent, view):
        lines += ["", *failed_tests]
    return {
        "score": f"{parent.score:.2f}",
        "graph": _ended(parent.graph),
        "prompts": _ended(parent.prompts),
        "unused": _unused(parent, view),
        "experience": "\n".join(lines),
    }


def _unused(made: Round, view: View) -> str:
    return unused_operators(made.graph, view.operators)


def _ended(text: str) -> str:
    """A text that ends its last line, or none."""
    return text if not text or text.endswith("\n") else text + "\n"
