"""One FlowReasoner search: a problem's workflows, written, executed and improved round by round.

Gao et al. 2025, arXiv:2504.15257, section 4; AFlow's loop (arXiv:2410.10762) on a dataset of one
problem. What differs from the paper and its release stands in flowreasoner.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from baselines.layouts import (
    Layout,
    Round,
    View,
    modifications,
    read_reply,
    render,
    render_again,
    told,
)
from baselines.operators import OPERATORS
from baselines.workflows import (
    RELEASED,
    TEMPLATE,
    Allowance,
    mixed_probabilities,
    plain,
    same_program,
)
from harness.errors import RequestRejected
from harness.extract import code_block
from harness.types import Context, Problem, WorkflowRun


@dataclass(frozen=True, kw_only=True)
class Search(Allowance):
    """The knobs of the search for one problem's workflow, which `solve` and `fit` share."""

    rounds: int = 10  # workflows that the meta-agent writes; the template comes before them
    evals: int = 3  # executions of each on the feedback tests
    sample: int = 4  # parents in the mixed draw: the first workflow and the best others
    alpha: float = 0.2  # weight of the score in that draw
    lam: float = 0.3  # share of it that is uniform
    layout: Layout = "round"  # how the meta-agent sees earlier rounds (layouts.py)
    parent: Literal["mixed", "latest"] = "mixed"  # which workflow is modified
    feedback: Literal["scalar", "errors"] = "scalar"  # errors: failed tests, where the level allows
    init_template: bool = True  # False: the meta-agent writes the first workflow too (figure 4a)
    operators: Literal["all", "release"] = "all"  # all seven, or the four that the release enables
    failed_rounds: Literal["kept", "lost"] = "kept"  # whether they leave experience
    test_cases: bool = False  # tell that workflows may show the tests to workers (level L3)
    node_settings: bool = False  # tell of model=, temperature=, output_format= per operator call
    max_complexity: int = 10  # steps of a workflow, in words
    regenerations: int = 2  # times that a repeated modification is asked for again
    attempts: int = 1  # executions of a workflow that fails, each evaluation
    early_stop: bool = False  # stop at a mean feedback of 1.0

    @property
    def names(self) -> tuple[str, ...]:
        return RELEASED if self.operators == "release" else tuple(OPERATORS)

    def view(self, ctx: Context) -> View:
        """What the meta-agent is told on this problem."""
        models = tuple(ctx.nodes.values())
        return View(
            layout=self.layout,
            feedback=self.feedback,
            failed_rounds=self.failed_rounds,
            operators=self.names,
            max_complexity=self.max_complexity,
            test_cases=self.test_cases and bool(ctx.test_cases),
            models=models if self.node_settings or len(models) > 1 else (),
        )

    async def execute(self, ctx: Context, graph: str, prompts: str) -> WorkflowRun:
        """Run a workflow once; again where it failed, another run may differ, and knobs allow."""
        operators = {name: OPERATORS[name] for name in self.names}
        for attempt in range(1, max(self.attempts, 1) + 1):
            run = await ctx.run_workflow(graph, prompts, operators=operators, limits=self.limits)
            settled = run.answer is not None or _stage(run) == "load" or not run.sampled
            if settled or attempt == self.attempts:
                break
        return run


async def design(problem: Problem, ctx: Context, search: Search) -> list[Round]:
    """All rounds of one search: each a workflow, written and run on the feedback tests."""
    history: list[Round] = []
    view = search.view(ctx)
    if search.init_template:
        history.append(await _evaluate(ctx, search, Round(1, TEMPLATE, "")))
    for _ in range(search.rounds):
        if any(r.best_code and not r.has_feedback for r in history):
            break
        if search.early_stop and any(r.score == 1.0 for r in history):
            break
        ctx.round = len(history) + 1
        made = await _propose(problem, ctx, search, view, history)
        history.append(await _evaluate(ctx, search, made))
    ctx.round = None
    return history


async def _propose(
    problem: Problem, ctx: Context, search: Search, view: View, history: Sequence[Round]
) -> Round:
    """Ask the meta-agent for the next workflow, anew where it repeats what was tried."""
    parent = _parent(ctx, told(history, view), search)
    chat = render(problem, history, parent, view)
    tried = modifications(told(history, view), parent)
    made = Round(len(history) + 1, "", "", parent.number if parent else None, reply="")
    for _ in range(search.regenerations + 1):
        try:
            reply = (await ctx.ask(chat, role="meta")).text
        except RequestRejected as error:  # too long, or against a policy
            if not made.reply:  # this round's failure
                made.error, made.error_class = f"reply: Rejected: {error}", "reply:Rejected"
            break
        found = read_reply(reply, view)
        made.graph, made.prompts, made.reply = found.graph, found.prompts, reply
        made.modification = found.modification
        made.error, made.error_class = found.error, found.error_class
        if plain(made.modification) not in tried:
            break
        chat = render_again(render(problem, history, parent, view), reply, view)
    return made


def _parent(ctx: Context, history: Sequence[Round], search: Search) -> Round | None:
    """The workflow to modify: a draw among the first and the best others, or the latest."""
    written = [r for r in history if r.graph]
    able = [r for r in written if r.loads] or written
    if not able:
        return None
    if search.parent == "latest":
        return written[-1]
    others = sorted(able[1:], key=lambda r: -r.score)[: max(search.sample - 1, 0)]
    candidates = [able[0], *others]
    weights = mixed_probabilities([r.score for r in candidates], search.alpha, search.lam)
    return ctx.rng.choices(candidates, weights)[0]


async def _evaluate(ctx: Context, search: Search, made: Round) -> Round:
    """Run a workflow on the feedback tests, as often as told, and journal the round.

    A failed execution scores 0. A workflow that does not load is not tried again, a reply without
    a workflow not at all, and one that asked no model anything but greedily is run once.
    """
    ctx.round = made.number
    runs = 0
    error, error_class = made.error, made.error_class
    while runs < search.evals and made.error is None:
        runs += 1
        run = await search.execute(ctx, made.graph, made.prompts)
        if run.answer is None:
            error, error_class = run.error, run.error_class
            made.scores.append(0.0)
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
        untested = made.answered and not made.has_feedback  # more of it could not be compared
        if not run.sampled or untested or _stage(run) == "load":
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
            "reply": made.reply,
            "code": made.best_code or None,
        },
    )
    return made


def best_workflow(history: Sequence[Round]) -> Round | None:
    """The workflow with the best mean feedback, the earliest on ties; None: none was written."""
    written = [r for r in history if r.graph]
    return max(written, key=lambda r: (r.score, r.answered, -r.number), default=None)


def best_round(history: Sequence[Round]) -> Round | None:
    """The round of the program with the best feedback, the earliest on ties; None: no program.

    It need not be the best workflow's: one run of another may have done better than its mean.
    """
    made = [r for r in history if r.best_code]
    return max(made, key=lambda r: (r.best_score, -r.number), default=None)


def _stage(run: WorkflowRun) -> str:
    return (run.error_class or "").partition(":")[0]
