"""FlowReasoner: a meta-agent writes one workflow per problem and improves it by execution feedback.

Gao et al. 2025, arXiv:2504.15257, section 4 and equation 5. Round 1 is the template (one call of
the code generator); each later round the meta-agent sees a parent workflow, its score and the
modifications tried on it, and writes the next one as Python code; every workflow runs on the
feedback tests; the best by mean feedback wins, the earliest on ties.

Differs from the paper and its release:
- `final=keep` (default) grades the best program that was already produced; the release executes the
  winning workflow again (`final=rerun`).
- Where every call of a workflow was greedy, its three evaluations are one and the same: it is run
  once, and the round says so (`evals` in its record).
- A workflow that does not parse, load or run scores 0 and its error is shown to the meta-agent as
  experience; the release loses such rounds.
- `final=rerun` executes the winner once; the paper's tables average three such runs.
- A modification already tried on its parent is asked for again at most twice, not without end.
- On a problem without a feedback test nothing can be compared: the template's answer is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from baselines.operators import OPERATORS
from baselines.workflows import (
    TEMPLATE,
    mixed_probabilities,
    operator_list,
    parse_reply,
    plain,
    same_program,
    unused_operators,
)
from harness.errors import RequestRejected
from harness.extract import code_block
from harness.types import Context, Level, Message, Method, Problem, Sampling, Solution

SYSTEM = """\
You design workflows. A workflow is Python code that solves one programming problem by calling a
worker model through operators. You improve a workflow step by step, guided by its score.

Operators (call them as `await self.NAME(...)`; each result is a dictionary):
{operators}

Rules:
- Write the complete class `Workflow` with `async def __call__(self, problem, entry_point)`.
- It returns `(solution_text, self.llm.cost_manager.total_cost)`; never return None.
- Make one modification of the given workflow: at most about 5 changed lines. Review, revise,
  ensemble, testing, loops and conditions are welcome; keep it under 10 steps.
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

ROUND = """\
The problem that the workflow is for:
{problem}

The current workflow scores {score} (best is 1.0):
<graph>
{graph}</graph>
<prompt>
{prompts}</prompt>
It does not use: {unused}.
{experience}
Write the next workflow for this problem."""

FIRST = """\
The problem that the workflow is for:
{problem}

There is no workflow yet. Write the first one for this problem."""

AGAIN = "That modification was already tried on this workflow. Propose a different one."


@dataclass
class Round:
    """One workflow and what became of it. Scores are feedback pass rates in [0, 1]."""

    number: int
    graph: str
    prompts: str
    parent: int | None = None
    modification: str = ""
    scores: list[float] = field(default_factory=list)
    answered: bool = False  # whether any execution gave an answer
    has_feedback: bool = False  # whether any answer could be tested
    error: str | None = None  # one line: where, class, message
    error_class: str | None = None  # "load:SyntaxError", "run:TypeError", "limit:CallLimit", ...
    best_code: str = ""
    best_score: float = -1.0
    failures: tuple[str, ...] = ()  # failed tests of the best program, as far as the level allows
    tried: list[tuple[str, float, str | None]] = field(default_factory=list)
    # modifications made of this workflow: (text, score of the child, its error)

    @property
    def score(self) -> float:
        return sum(self.scores) / len(self.scores) if self.scores else 0.0


async def solve(
    problem: Problem,
    ctx: Context,
    *,
    rounds: int = 10,
    evals: int = 3,
    sample: int = 4,
    alpha: float = 0.2,
    lam: float = 0.3,
    layout: Literal["round"] = "round",
    parent: Literal["mixed", "latest"] = "mixed",
    feedback: Literal["scalar", "errors"] = "scalar",
    init_template: bool = True,
    final: Literal["keep", "rerun"] = "keep",
    early_stop: bool = False,
) -> Solution:
    """Return the program of the best workflow by feedback.

    `rounds` counts the meta-agent's workflows (the template comes before them), `evals` the
    executions of each, `sample` the parents in the mixed draw, `alpha` and `lam` its weights.
    `layout` is how the meta-agent sees earlier rounds: `round`, a prompt of its own for each.
    `feedback=errors` shows it failed tests, as far as the level allows. `early_stop` ends at a mean
    feedback of 1.0. Raises what `ctx` raises.
    """
    history: list[Round] = []
    if init_template:
        history.append(await _evaluated(ctx, Round(1, TEMPLATE, ""), evals))
    for _ in range(rounds):
        if any(r.best_code and not r.has_feedback for r in history):
            break
        if early_stop and any(r.score == 1.0 for r in history):
            break
        number = len(history) + 1
        ctx.round = number
        chosen = _parent(ctx, history, sample, alpha, lam, parent)
        made, reply = await _propose(ctx, problem, number, chosen, feedback)
        history.append(await _evaluated(ctx, made, evals, reply))
        if chosen is not None:
            chosen.tried.append((made.modification, made.score, made.error))
    ctx.round = None
    best = max(history, key=lambda r: (r.score, -r.number), default=None)
    if best is None:
        return Solution("")
    if final == "rerun":
        run = await ctx.run_workflow(best.graph, best.prompts, operators=OPERATORS)
        return Solution(code_block(run.answer or "", problem.entry_point))
    if not best.best_code:
        best = max(history, key=lambda r: (bool(r.best_code), r.best_score, -r.number))
    return Solution(best.best_code)


async def _evaluated(ctx: Context, made: Round, evals: int, reply: str | None = None) -> Round:
    """Run a workflow `evals` times on the feedback tests and journal the round.

    A failed execution scores 0. A workflow that does not load is not tried again, a reply without
    a workflow not at all, and one that asked no model anything but greedily is run once.
    """
    ctx.round = made.number
    runs = 0
    error, error_class = made.error, made.error_class
    while runs < evals and made.error is None:
        runs += 1
        run = await ctx.run_workflow(made.graph, made.prompts, operators=OPERATORS)
        if run.answer is None:
            error, error_class = run.error, run.error_class
            made.scores.append(0.0)
            if (error_class or "").startswith("load:"):
                break
        else:
            code = code_block(run.answer, ctx.problem.entry_point)
            found = await ctx.run_feedback(code)
            score = found.score or 0.0
            made.has_feedback = found.score is not None
            made.answered = True
            made.scores.append(score)
            if score > made.best_score and code:
                made.best_code, made.best_score = code, score
                made.failures = found.errors
        if not run.sampled:
            break
    if not made.answered:
        made.error, made.error_class = error, error_class
        made.scores = made.scores or [0.0]
    ctx.note(
        "round",
        round=made.number,
        parent=made.parent,
        modification=made.modification,
        score=made.score if made.has_feedback or made.error else None,
        scores=made.scores,
        evals=runs,
        error=made.error,
        error_class=made.error_class,
        same_as_template=same_program(made.graph, TEMPLATE),
        texts={
            "workflow": made.graph,
            "prompts": made.prompts,
            "reply": reply,
            "code": made.best_code or None,
        },
    )
    return made


def _parent(
    ctx: Context, history: list[Round], sample: int, alpha: float, lam: float, rule: str
) -> Round | None:
    """The workflow to modify: a draw among the first and the best others, or the latest."""
    if not history:
        return None
    if rule == "latest":
        return history[-1]
    others = sorted(history[1:], key=lambda r: -r.score)[: max(sample - 1, 0)]
    candidates = [history[0], *others]
    weights = mixed_probabilities([r.score for r in candidates], alpha, lam)
    return ctx.rng.choices(candidates, weights)[0]


async def _propose(
    ctx: Context, problem: Problem, number: int, parent: Round | None, feedback: str
) -> tuple[Round, str]:
    """Ask the meta-agent for the next workflow; (round, raw reply)."""
    chat: list[Message] = [
        {"role": "system", "content": SYSTEM.format(operators=operator_list())},
        {"role": "user", "content": _request(problem, parent, feedback)},
    ]
    tried = {plain(text) for text, _, _ in parent.tried} if parent else set()
    for attempt in range(3):
        try:
            reply = (await ctx.ask(chat, role="meta")).text
        except RequestRejected as error:  # too long, or against a policy: this round's failure
            made = Round(number, "", "", parent.number if parent else None)
            made.error, made.error_class = f"reply: Rejected: {error}", "reply:Rejected"
            return made, ""
        found = parse_reply(reply)
        made = Round(number, found.graph, found.prompts, parent.number if parent else None)
        made.modification = found.modification
        made.error, made.error_class = found.error, found.error_class
        if plain(made.modification) not in tried or not made.modification or attempt == 2:
            break
        chat = [*chat[:2], {"role": "assistant", "content": reply}]
        chat.append({"role": "user", "content": AGAIN})
    return made, reply


def _request(problem: Problem, parent: Round | None, feedback: str) -> str:
    if parent is None:
        return FIRST.format(problem=problem.prompt)
    lines = []
    if parent.error:
        lines.append(f"It failed: {parent.error}")
    if parent.tried:
        lines.append("\nAlready tried on it (do something different):")
        for text, score, error in parent.tried:
            outcome = f"failed: {error}" if error else f"scored {score:.2f}"
            lines.append(f"- {text or 'no description'}: {outcome}")
    if feedback == "errors" and parent.failures:
        lines.append("\nFailed tests:")
        lines += [f"- {line}" for line in parent.failures]
    return ROUND.format(
        problem=problem.prompt,
        score=f"{parent.score:.2f}",
        graph=parent.graph if parent.graph.endswith("\n") else parent.graph + "\n",
        prompts=parent.prompts + "\n" if parent.prompts else "",
        unused=unused_operators(parent.graph),
        experience="\n".join(lines),
    )


METHOD = Method(
    name="flowreasoner",
    solve=solve,
    summary="a meta-agent writes one workflow per problem, improved by feedback (Gao et al. 2025)",
    level=Level.L3,
    calls=lambda knobs: {
        "meta": (knobs["rounds"], 3 * knobs["rounds"]),
        "worker": (
            (knobs["rounds"] + knobs["init_template"]),
            (knobs["rounds"] + knobs["init_template"]) * knobs["evals"] * 4,
        ),
    },
    roles=("worker", "meta"),
    sampling={"meta": Sampling(temperature=0.7, max_tokens=2048)},
    bounds={"evals": (1, 1000), "sample": (1, 1000), "alpha": (0, 1000), "lam": (0, 1)},
)
