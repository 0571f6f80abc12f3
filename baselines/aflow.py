"""AFlow: a search over workflows written as code, one workflow for a whole benchmark.

Zhang et al. 2024, arXiv:2410.10762, section 3 and algorithm 1, with its release (FoundationAgents/
AFlow). Round 1 is the template (one call of the code generator). In each later round a parent is
drawn by the soft mixed rule among round 1 and the best others; the meta-agent makes one
modification of it, given its score, what was tried on it and some of its failures; the new workflow
runs `evals` times on all search problems. The best by mean strict pass then answers each problem
once.

Differs from the paper and its release:
- Successes are shown as such ("improved to"); the release lists them under the same ban as
  failures. A modification already tried is asked for again `regenerations` times, not without end.
- A workflow that does not parse, load or run counts as a round with score 0; its error is shown as
  experience, and it is no parent. The release passes over such rounds without a record.
- One that does not load is not run again; one that fails in the same way on the first `give_up`
  problems is not run on the others. The release runs it everywhere, five attempts at each problem.
- Where all that a workflow asked about a problem was greedy, its evaluations there are one and the
  same: it is run once (`evals` in the round's record).
- The failures that the meta-agent sees hold question, program and what went wrong, without the
  reference solution.
- The release offers four operators for code; `operators=all` tells the meta-agent of all seven,
  which a workflow may call either way.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pvariance
from typing import Any, Literal

from baselines.operators import OPERATORS
from baselines.workflows import (
    ALLOWANCE_BOUNDS,
    DRAW_BOUNDS,
    RELEASED,
    TEMPLATE,
    Allowance,
    mixed_probabilities,
    operator_list,
    parse_reply,
    plain,
    same_program,
    taking,
)
from harness.errors import RequestRejected, UsageError
from harness.extract import code_block
from harness.types import (
    Context,
    FitContext,
    Level,
    Message,
    Method,
    Preset,
    Problem,
    Sampling,
    Solution,
    Trial,
    Tried,
    WorkflowLimits,
)

TOP, PATIENCE = 3, 5  # of the test of convergence
ROUNDING = 1e-9  # of sums of shares; shares themselves differ by more
MANY = 6  # worker calls of a long workflow
SHOWN = 2000  # characters of a question or program in a failure that the meta-agent sees

SYSTEM = """\
You improve a workflow: Python code that solves programming problems by calling a worker model
through operators. It has to serve a whole benchmark of such problems, so nothing in it may depend
on one of them: each problem is a text that asks for a function `entry_point`, and hidden tests
decide whether the program is right. You are told how well the workflow does, what was tried on it
already, and where it fails.

Operators (call them as `await self.NAME(...)`; each result is a dictionary):
{operators}

Rules:
- Write the complete class `Workflow` with `async def __call__(self, problem, entry_point)`.
- It returns `(solution_text, self.llm.cost_manager.total_cost)`; never return None.
- Make one modification of the given workflow: at most about 5 changed lines. Steps that review,
  revise, test or choose among several programs, loops and conditions are welcome; keep it under 10
  steps in all.
- `custom` sends instruction + input; its instruction may be a constant of your <prompt> part, used
  as `prompt_custom.NAME`. Define exactly those constants that you use; no placeholders in them.
  An example: `plan = await self.custom(input=problem, instruction=prompt_custom.PLAN)`, and
  `plan["response"]` is the reply's text.
- Import what you use beyond the operators.

Answer with three parts and nothing else: <modification>, one sentence that says what you change and
why; <graph>, the Python code; <prompt>, the constants as Python code, empty when there are none."""

ROUND = """\
The current workflow solves {score:.4f} of the problems (1.0 is all):
<graph>
{graph}</graph>
<prompt>
{prompts}</prompt>
{experience}{failures}
Write the next workflow."""

AGAIN = "That modification was already tried on this workflow. Propose a different one."


@dataclass
class Node:
    """One workflow of the search. Scores are shares of search problems solved, in [0, 1]."""

    number: int  # its round
    graph: str
    prompts: str
    parent: int | None = None
    modification: str = ""
    means: list[float] = field(default_factory=lambda: [0.0])  # of each evaluation
    failures: list[Trial] = field(default_factory=list)
    error: str | None = None  # one line: where, class, message; when no run gave an answer
    error_class: str | None = None  # "reply:NoWorkflow", "load:SyntaxError", "run:NameError", ...
    children: list[Node] = field(default_factory=list)

    @property
    def score(self) -> float:
        return fmean(self.means)


async def fit(
    problems: Sequence[Problem],
    ctx: FitContext,
    *,
    max_rounds: int = 20,
    evals: int = 5,
    sample: int = 4,
    alpha: float = 0.2,
    lam: float = 0.3,
    early_stop: bool = True,
    z: float = 0.0,
    regenerations: int = 3,
    failures: int = 3,
    give_up: int = 3,
    operators: Literal["release", "all"] = "release",
    **allowed: Any,
) -> dict[str, Any]:
    """The workflow that solves most of the search problems, the earliest on ties.

    `max_rounds` counts the meta-agent's workflows (the template comes before them), `evals` the
    executions of each on every problem, `sample` the parents in the mixed draw, `alpha` and `lam`
    its weights. `early_stop` ends the search once the mean of the three best has settled, within
    `z` standard errors. `failures` of the parent are shown. `allowed` are the knobs of
    `Allowance`. Raises what `ctx` raises.
    """
    limits = Allowance(**allowed).limits
    ctx.round = 1
    template = Node(1, TEMPLATE, "", modification="one call of the code generator")
    nodes = [await _evaluate(ctx, problems, template, evals, give_up, limits)]
    for number in range(2, max_rounds + 2):
        if early_stop and converged([node.means for node in nodes], z):
            break
        ctx.round = number
        parent = draw_parent(ctx.rng, nodes, sample, alpha, lam)
        shown = _request(ctx, problems, parent, failures)
        node, reply = await _propose(ctx, number, parent, shown, operators, regenerations)
        nodes.append(await _evaluate(ctx, problems, node, evals, give_up, limits, reply))
        parent.children.append(node)
    best = max(nodes, key=lambda node: (node.score, -node.number))
    return {
        "graph": best.graph,
        "prompts": best.prompts,
        "round": best.number,
        "score": best.score,
        "rounds": [
            {
                "round": node.number,
                "parent": node.parent,
                "modification": node.modification,
                "score": node.score,
                "error": node.error,
            }
            for node in nodes
        ],
    }


async def solve(problem: Problem, ctx: Context, **allowed: Any) -> Solution:
    """Return the program of the found workflow, run once within what is `allowed` (`Allowance`).

    Empty when it fails. Raises what `ctx` raises, UsageError without a found workflow.
    """
    if ctx.artifact is None:
        raise UsageError("aflow: no workflow was found yet; run `fit` on this benchmark first")
    limits = Allowance(**allowed).limits
    graph, prompts = ctx.artifact["graph"], ctx.artifact["prompts"]
    run = await ctx.run_workflow(graph, prompts, operators=OPERATORS, limits=limits)
    return Solution(code_block(run.answer or "", problem.entry_point))


def converged(rounds: Sequence[Sequence[float]], z: float) -> bool:
    """Whether the mean of the three best rounds has stood still for five rounds on end.

    `rounds` holds each round's scores, one per evaluation. Still: it moves by at most `z` standard
    errors of the difference; with z = 0, not at all. At least four rounds are looked at.
    """
    if len(rounds) <= TOP:
        return False
    means = [fmean(scores) for scores in rounds]
    still = 0
    before: tuple[float, float] | None = None
    for t in range(1, len(rounds) + 1):
        best = sorted(range(t), key=lambda i: (-means[i], i))[:TOP]
        top = math.fsum(means[i] for i in best) / len(best)
        error = math.sqrt(math.fsum(pvariance(rounds[i]) for i in best)) / TOP
        if before is not None:
            moved = abs(top - before[0]) - ROUNDING
            stands = moved <= z * math.hypot(error, before[1])
            still = still + 1 if stands else 0
            if still == PATIENCE:
                return True
        before = top, error
    return False


async def _evaluate(
    ctx: FitContext,
    problems: Sequence[Problem],
    node: Node,
    evals: int,
    give_up: int,
    limits: WorkflowLimits,
    reply: str | None = None,
) -> Node:
    """Run a workflow `evals` times on every problem, all at once, and journal the round."""
    done: dict[tuple[int, str], Trial] = {}  # by evaluation and problem

    async def work(at: Context) -> Tried:
        run = await at.run_workflow(node.graph, node.prompts, operators=OPERATORS, limits=limits)
        facts = {"error": run.error, "error_class": run.error_class, "sampled": run.sampled}
        return Tried(code_block(run.answer or "", at.problem.entry_point), facts)

    async def run(evaluations: range, on: Sequence[Problem]) -> None:
        """The attempts of these evaluations on these problems that are not done yet."""
        wanted = [(k, p) for k in evaluations for p in on if (k, p.problem_id) not in done]
        labels = [f"round {node.number}, run {k}" for k, _ in wanted]
        trials = await asyncio.gather(
            *(ctx.attempt(p, label, work) for (_, p), label in zip(wanted, labels, strict=True))
        )
        for (k, p), trial in zip(wanted, trials, strict=True):
            done[k, p.problem_id] = trial

    if node.error is None:
        await run(range(1, 2), problems[:1])
        if _failed(done.values()) and not _hopeless(done.values(), give_up):
            await run(range(1, 2), problems[: max(give_up, 1)])
        if not _hopeless(done.values(), give_up):
            await run(range(1, 2 if ctx.is_greedy() else evals + 1), problems)
            drawn = [p for p in problems if done[1, p.problem_id].facts.get("sampled")]
            await run(range(2, evals + 1), drawn)
            node.means = [
                fmean(done.get((k, p.problem_id), done[1, p.problem_id]).passed for p in problems)
                for k in range(1, evals + 1)
            ]
        node.failures = [trial for trial in done.values() if not trial.passed]
        failed = _failed(done.values())
        if len(failed) == len(done):
            node.error = failed[0].facts["error"]
            node.error_class = failed[0].facts["error_class"]
    ctx.note(
        "node",
        number=node.number,
        parent=node.parent,
        label=node.modification,
        score=node.score,
        scores=node.means,
        low=None,
        high=None,
        error=node.error,
        error_class=node.error_class,
        evals=max((k for k, _ in done), default=0),
        runs=len(done),
        failed=len(_failed(done.values())),
        same_as_template=same_program(node.graph, TEMPLATE),
        texts={"workflow": node.graph, "prompts": node.prompts, "reply": reply},
    )
    return node


def _failed(trials: Any) -> list[Trial]:
    """Those in which the workflow gave no answer."""
    return [trial for trial in trials if trial.facts.get("error_class")]


def _hopeless(trials: Any, give_up: int) -> bool:
    """Whether a workflow need not be run on further problems: see `give_up`."""
    kinds = [str(trial.facts.get("error_class") or "") for trial in trials]
    alike = 0 < give_up <= len(kinds) and len(set(kinds)) == 1 and kinds[0] != ""
    return kinds[0].startswith("load:") or alike


def draw_parent(
    rng: random.Random, nodes: Sequence[Node], sample: int, alpha: float, lam: float
) -> Node:
    """One of round 1 and the `sample` - 1 best others that work, by the soft mixed rule."""
    others = sorted((n for n in nodes[1:] if n.error is None), key=lambda n: -n.score)
    candidates = [nodes[0], *others[: sample - 1]]
    weights = mixed_probabilities([node.score for node in candidates], alpha, lam)
    return rng.choices(candidates, weights)[0]


async def _propose(
    ctx: FitContext, number: int, parent: Node, shown: str, operators: str, regenerations: int
) -> tuple[Node, str]:
    """Ask the meta-agent for the next workflow; (node, raw reply)."""
    listed = operator_list(RELEASED if operators == "release" else None)
    chat: list[Message] = [
        {"role": "system", "content": SYSTEM.format(operators=listed)},
        {"role": "user", "content": shown},
    ]
    tried = {plain(child.modification) for child in parent.children} - {""}
    node, reply = Node(number, "", "", parent.number), ""
    for _ in range(regenerations + 1):
        try:
            reply = (await ctx.ask(chat, role="meta")).text
        except RequestRejected as error:  # too long, or against a policy
            if not reply:  # this round's failure
                node.error, node.error_class = f"reply: Rejected: {error}", "reply:Rejected"
            break
        found = parse_reply(reply)
        node = Node(number, found.graph, found.prompts, parent.number, found.modification)
        node.error, node.error_class = found.error, found.error_class
        if plain(node.modification) not in tried:
            break
        chat = [*chat, {"role": "assistant", "content": reply}]
        chat.append({"role": "user", "content": AGAIN})
    return node, reply


def _request(ctx: FitContext, problems: Sequence[Problem], parent: Node, failures: int) -> str:
    """What the meta-agent is shown: the parent, what was tried on it, where it fails."""
    prompts = {problem.problem_id: problem.prompt for problem in problems}
    lines = ["\nIt failed on every problem: " + parent.error] if parent.error else []
    if parent.children:
        lines.append("\nAlready tried on it (do something different):")
    for child in parent.children:
        outcome = f"no gain, {child.score:.4f}"
        if child.error:
            outcome = f"failed: {child.error}"
        elif child.score > parent.score:
            outcome = f"improved to {child.score:.4f}"
        lines.append(f"- {child.modification or 'no description'}: {outcome}")
    shown = []
    for trial in ctx.rng.sample(parent.failures, min(failures, len(parent.failures))):
        why = trial.facts.get("error") or trial.detail
        program = trial.code[:SHOWN] or "(none)"
        shown.append(
            f"\nA problem that it does not solve:\n{prompts[trial.problem_id][:SHOWN]}\n"
            f"Its program:\n{program}\nWhat went wrong: {why}"
        )
    return ROUND.format(
        score=parent.score,
        graph=parent.graph if parent.graph.endswith("\n") else parent.graph + "\n",
        prompts=parent.prompts.rstrip("\n") + "\n" if parent.prompts else "",
        experience="".join(line + "\n" for line in lines),
        failures="".join(text + "\n" for text in shown),
    )


def _fit_calls(knobs: Mapping[str, Any], problems: int) -> Mapping[str, tuple[int, int]]:
    rounds = knobs["max_rounds"]
    least = min(rounds, PATIENCE) if knobs["early_stop"] else rounds
    return {
        "meta": (least, rounds * (1 + knobs["regenerations"])),
        "worker": ((least + 1) * problems, (rounds + 1) * problems * knobs["evals"] * MANY),
    }


METHOD = Method(
    name="aflow",
    solve=taking(Allowance, solve, last=True),
    fit=taking(Allowance, fit, last=True),
    summary="one workflow per benchmark, found by a tree search over code (Zhang et al. 2024)",
    level=Level.L3,
    calls=lambda knobs: {"worker": (1, MANY)},
    fit_calls=_fit_calls,
    roles=("worker", "meta"),
    sampling={"meta": Sampling(temperature=0.7, max_tokens=2048)},
    bounds={
        "evals": (1, 1000),
        **DRAW_BOUNDS,
        **ALLOWANCE_BOUNDS,
    },
    paper={
        "max_rounds": "20 (paper and release), which makes 21 workflows; 10 (FlowReasoner)",
        "evals": "5 (paper); 1 (standalone release, whose readme says 5); 3 (FlowReasoner)",
        "sample": "4 (release)",
        "alpha": "0.4 (paper); 0.2 (release)",
        "lam": "0.2 (paper); 0.3 (release)",
        "early_stop": "on (release)",
        "z": "0 (release)",
        "regenerations": "without end (release)",
        "failures": "up to 3, with the reference solution (release)",
        "give_up": "never (release)",
        "operators": "Custom, CustomCodeGenerate, ScEnsemble, Test for code (release)",
        "workflow_calls": "no limit (release)",
        "workflow_s": "60 s on HumanEval, then again up to five times; none on MBPP (release)",
    },
    presets={
        "paper": Preset(
            "the paper's weights, AFlow's public tests", {"alpha": 0.4, "lam": 0.2}, "aflow"
        ),
        "release": Preset(
            "the release's weights, AFlow's public tests", {"alpha": 0.2, "lam": 0.3}, "aflow"
        ),
    },
)
