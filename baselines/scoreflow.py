"""ScoreFlow: a generator writes one workflow per problem, in one shot and without feedback.

Wang et al. 2025, arXiv:2502.04306, section 3, with its release (Gen-Verse/ScoreFlow). What makes
the generator good is training on pairs of workflows: for each search problem it writes eight, each
is executed three times and scored by the share of passes, and pairs of one problem with different
scores are drawn, with weight (s_w - s_l)^3, for a score-aware DPO. `fit` does all but the training:
its artifact holds the pairs (`training_pairs`). Here the generator is any chat model, role `meta`:

- `generate=zero-shot` (default): it has seen no pairs, and nothing has to be searched.
- `generate=fit`: the pairs are made first; the generator that answers is still the same model.

Differs from the paper and its release:
- Without training this is a zero-shot generator: no row of it stands for the paper's.
- A workflow that is rejected is written anew `attempts` times in all (the release: 500 passes);
  where none is accepted, there is no answer. An accepted one runs once; when it fails, there is no
  answer either.
- A workflow in a code block without tags, or cut before its closing tag, is read all the same.
- The toy run is one in the sandbox on operators that answer with a fixed program: no model call.
- Where all that a workflow asked was greedy, its executions are one and the same: it is run once.
  A greedy generator writes one workflow per problem, for its others would be the same.
- Two workflows that are one text make no pair, whatever their scores.
"""

from __future__ import annotations

import ast
import asyncio
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from statistics import fmean
from typing import Any, Literal

from baselines import operators
from baselines.workflows import ALLOWANCE_BOUNDS, Allowance, parse_reply, taking
from harness.extract import code_block
from harness.types import (
    Context,
    FitContext,
    Level,
    Message,
    Method,
    Operator,
    Preset,
    Problem,
    Sampling,
    Solution,
    Tried,
)

TEMPLATE = """\
class Workflow:
    async def run_workflow(self):
        solution = await self.custom_code_generate(instruction="Write the function.")
        return solution["response"]
"""

GENERATE = """\
Write a workflow for the programming problem below: Python code that has a worker model solve it
through operators. The operators know the problem; call them as `await self.NAME(...)`:

1. custom_code_generate(instruction) -> {{'response'}}: the worker writes a program.
2. sc_ensemble(solutions) -> {{'response'}}: the most consistent of a list of programs.
3. test(solution) -> {{'result', 'solution'}}: tests a program and repairs it; result says whether
   the tests pass.

The smallest workflow:
<graph>
{template}</graph>

Rules:
- Write the complete class `Workflow` with `async def run_workflow(self)`; it returns a program.
- Fit its steps to the kind and the difficulty of the problem; the smallest workflow is for the
  easiest ones. Do not solve the problem in it: instructions hold advice, not the problem's details.
- Fewer than 7 steps; no loop goes round more than 3 times. Do not take programs apart as text.

The problem:
{problem}

Answer with the code of the class in <graph> tags and nothing else."""

MANY = 20  # worker calls of a long workflow
# what the release refuses: workflows that take the worker's programs apart
FORBIDDEN = re.compile(r"""\.split\(\s*(?:"\s*"|'\s*')?\s*\)|\bint\(""")


@dataclass(frozen=True)
class Written:
    """One workflow of a search problem. `score` is its mean strict pass, in [0, 1]."""

    problem_id: str
    reply: str  # the generator's text, to its closing tag
    graph: str
    score: float


async def solve(
    problem: Problem,
    ctx: Context,
    *,
    generate: Literal["zero-shot", "fit"] = "zero-shot",
    attempts: int = 3,
    similarity: float = 1.1,
    reflections: int = 10,
    **allowed: Any,
) -> Solution:
    """Return the program of a workflow that is written for this problem, run once.

    `attempts` workflows are written until one is accepted; `similarity` to the template above which
    one is rejected (1.1: never). `reflections` bounds the rewrites of one Test; `allowed` are the
    knobs of `Allowance`. Raises what `ctx` raises.
    """
    limits = Allowance(**allowed).limits
    found = await write_workflow(ctx, attempts, similarity)
    error, error_class, code = found["rejected"], "reply:NotAccepted", ""
    if error is None:
        made = bound_operators(reflections)
        run = await ctx.run_workflow(found["graph"], "", operators=made, limits=limits)
        error, error_class = run.error, run.error_class or ""
        code = code_block(run.answer or "", problem.entry_point)
    ctx.note(
        "round",
        round=1,
        parent=None,
        modification="",
        score=None,
        scores=[],
        evals=1,
        error=error,
        error_class=error_class if error else None,
        same_as_template=False,
        written=found["written"],
        texts={
            "workflow": found["graph"],
            "prompts": "",
            "reply": found["reply"],
            "code": code or None,
        },
    )
    return Solution(code)


async def fit(
    problems: Sequence[Problem],
    ctx: FitContext,
    *,
    workflows: int = 8,
    evals: int = 3,
    pairs: int = 0,
    attempts: int = 3,
    similarity: float = 1.1,
    reflections: int = 10,
    **allowed: Any,
) -> dict[str, Any]:
    """Scored workflows of all search problems, and the pairs drawn among them.

    `workflows` are written for each problem, each is executed `evals` times on it; `pairs` are
    drawn (0: 600 on HumanEval, 2000 elsewhere); `allowed` are the knobs of `Allowance`. Raises what
    `ctx` raises.
    """
    limits = Allowance(**allowed).limits
    made = bound_operators(reflections)
    count = 1 if ctx.is_greedy("meta") else workflows

    async def execute(at: Context, graph: str) -> Tried:
        run = await at.run_workflow(graph, "", operators=made, limits=limits)
        facts = {"error": run.error, "error_class": run.error_class, "sampled": run.sampled}
        return Tried(code_block(run.answer or "", at.problem.entry_point), facts)

    async def write(at: Context) -> Tried:
        """A workflow, and its first execution."""
        found = await write_workflow(at, attempts, similarity)
        tried = await execute(at, found["graph"]) if found["rejected"] is None else Tried("")
        return Tried(tried.code, {**found, **tried.facts})

    async def score(problem: Problem, number: int) -> Written | None:
        label = f"workflow {number}, run "
        first = await ctx.attempt(problem, f"{label}1", write)
        if first.facts.get("rejected", "not asked") is not None:
            return None
        graph = first.facts["graph"]
        again = range(2, evals + 1 if first.facts.get("sampled") else 2)
        runs = [first] + await asyncio.gather(
            *(ctx.attempt(problem, f"{label}{k}", lambda at: execute(at, graph)) for k in again)
        )
        return Written(
            problem.problem_id, first.facts["reply"], graph, fmean(run.passed for run in runs)
        )

    ctx.round = 1
    tried = await asyncio.gather(
        *(score(problem, number) for problem in problems for number in range(1, count + 1))
    )
    kept = [one for one in tried if one is not None]
    wanted = pairs or (600 if problems[0].benchmark.startswith("humaneval") else 2000)
    drawn = draw_pairs(kept, wanted, ctx.rng)
    for number, problem in enumerate(problems, 1):
        own = [one for one in kept if one.problem_id == problem.problem_id]
        best = max(own, key=lambda one: one.score, default=None)
        ctx.note(
            "node",
            number=number,
            parent=None,
            about=problem.problem_id,
            label=f"{problem.problem_id}: the best of {len(own)}",
            score=best.score if best else None,
            low=None,
            high=None,
            error=None if best else "every workflow was rejected",
            texts={"workflow": best.graph if best else "", "reply": best.reply if best else None},
        )
    facts: dict[str, Any] = {
        "workflows": len(kept),
        "rejected": len(tried) - len(kept),
        "score": fmean(one.score for one in kept) if kept else None,
        "problems_with_pairs": len({kept[w].problem_id for w, _ in possible_pairs(kept)}),
        "pairs": len(drawn),
    }
    ctx.note("step", number=1, **facts)
    return {
        "generator": "zero-shot",
        "counts": facts,
        "prompts": {problem.problem_id: request(problem) for problem in problems},
        "workflows": [asdict(one) for one in kept],
        "pairs": [list(pair) for pair in drawn],
    }


def training_pairs(artifact: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pairs of a fit in full, in the order of drawing, as Score-DPO reads them."""
    workflows = artifact["workflows"]
    return [
        {
            "problem_id": workflows[chosen]["problem_id"],
            "prompt": artifact["prompts"][workflows[chosen]["problem_id"]],
            "chosen": workflows[chosen]["reply"],
            "rejected": workflows[rejected]["reply"],
            "chosen_score": workflows[chosen]["score"],
            "rejected_score": workflows[rejected]["score"],
        }
        for chosen, rejected in artifact["pairs"]
    ]


def possible_pairs(workflows: Sequence[Written]) -> list[tuple[int, int]]:
    """(better, worse) positions of all pairs of one problem with different scores and texts."""
    by_problem: dict[str, list[int]] = {}
    for position, one in enumerate(workflows):
        by_problem.setdefault(one.problem_id, []).append(position)
    return [
        (win, lose)
        for own in by_problem.values()
        for win in own
        for lose in own
        if workflows[win].score > workflows[lose].score
        and workflows[win].reply != workflows[lose].reply
    ]


def pair_weights(workflows: Sequence[Written], pairs: Sequence[tuple[int, int]]) -> list[float]:
    """What a pair is drawn with: the third power of its gap."""
    return [(workflows[win].score - workflows[lose].score) ** 3 for win, lose in pairs]


def draw_pairs(
    workflows: Sequence[Written], count: int, rng: random.Random
) -> list[tuple[int, int]]:
    """`count` pairs, drawn with replacement; none where every problem ties."""
    pairs = possible_pairs(workflows)
    return rng.choices(pairs, pair_weights(workflows, pairs), k=count) if pairs else []


def request(problem: Problem) -> list[Message]:
    """What the generator is asked."""
    text = GENERATE.format(template=TEMPLATE, problem=problem.prompt)
    return [{"role": "user", "content": text}]


async def write_workflow(ctx: Context, attempts: int, similarity: float) -> dict[str, Any]:
    """A workflow for the context's problem: graph, reply, how many were written, why rejected.

    A greedy generator is asked once: it would write the same again.
    """
    chat = request(ctx.problem)
    graph, reply, reason = "", "", "no workflow was asked for"
    for number in range(1, 2 if ctx.is_greedy("meta") else attempts + 1):
        reply = up_to_closing_tag((await ctx.ask(chat, role="meta")).text)
        graph, rejected = read_workflow(reply, similarity)
        if rejected is None:
            toy = await ctx.run_workflow(graph, "", operators=TOYS)
            rejected = toy.error
        if rejected is None:
            return {"graph": graph, "reply": reply, "written": number, "rejected": None}
        reason = rejected
    return {"graph": graph, "reply": reply, "written": number, "rejected": reason}


def up_to_closing_tag(reply: str) -> str:
    """A reply as generation would have stopped: at its last closing tag."""
    end = reply.lower().rfind("</graph>")
    return reply if end < 0 else reply[: end + len("</graph>")]


def read_workflow(reply: str, similarity: float) -> tuple[str, str | None]:
    """(graph, why it is rejected); the reason is None for one that may be tried."""
    found = parse_reply(reply)
    if found.error is not None:
        return "", found.error
    graph = found.graph
    try:
        tree = ast.parse(graph)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return graph, f"reply: {type(error).__name__}: the workflow does not parse"
    runs = [
        method
        for kind in ast.walk(tree)
        if isinstance(kind, ast.ClassDef) and kind.name == "Workflow"
        for method in kind.body
        if isinstance(method, ast.AsyncFunctionDef | ast.FunctionDef)
        and method.name == "run_workflow"
    ]
    returns = [n for run in runs for n in ast.walk(run) if isinstance(n, ast.Return) and n.value]
    if not returns:
        return graph, "reply: NoReturn: no class Workflow with a run_workflow that returns a value"
    if FORBIDDEN.search(graph):
        return graph, "reply: Forbidden: it splits text at white space, or casts to int"
    if (
        similarity < 1
        and SequenceMatcher(None, graph, TEMPLATE, autojunk=False).ratio() > similarity
    ):
        return graph, "reply: Template: it is too close to the template"
    return graph, None


def bound_operators(reflections: int) -> dict[str, Operator]:
    """The three operators of a workflow, which know their problem."""

    async def custom_code_generate(ctx: Context, instruction: Any = "") -> dict[str, Any]:
        """Write a program."""
        return await operators.custom_code_generate(ctx, instruction=instruction)

    async def sc_ensemble(ctx: Context, solutions: Any = ()) -> dict[str, Any]:
        """The most consistent of several programs."""
        return await operators.sc_ensemble(ctx, solutions=solutions)

    async def test(ctx: Context, solution: Any = "") -> dict[str, Any]:
        """Run the feedback tests, rewrite up to `reflections` times, then write a program anew."""
        tested = await operators.test(ctx, solution=solution, test_loop=min(reflections, 1))
        for _ in range(1, reflections):
            if tested["result"] is not False:
                break
            tested = await operators.test(ctx, solution=tested["solution"], test_loop=1)
        if tested["result"] is not False:
            return tested
        fresh = await operators.custom_code_generate(ctx)
        return await operators.test(ctx, solution=fresh["response"], test_loop=0)

    return {
        "custom_code_generate": custom_code_generate,
        "sc_ensemble": sc_ensemble,
        "test": test,
    }


async def _toy_code(ctx: Context, instruction: Any = "") -> dict[str, Any]:
    return {"response": TOY}


async def _toy_choice(ctx: Context, solutions: Any = ()) -> dict[str, Any]:
    return {"response": TOY, "solution": TOY}


async def _toy_test(ctx: Context, solution: Any = "") -> dict[str, Any]:
    return {"result": True, "solution": TOY, "response": TOY, "feedback": ""}


TOY = "def answer():\n    return 1"
TOYS: dict[str, Operator] = {
    "custom_code_generate": _toy_code,
    "sc_ensemble": _toy_choice,
    "test": _toy_test,
}


def _fit_calls(knobs: Mapping[str, Any], problems: int) -> Mapping[str, tuple[int, int]]:
    written = knobs["workflows"] * problems
    return {
        "meta": (written, written * knobs["attempts"]),
        "worker": (written, written * knobs["evals"] * MANY),
    }


METHOD = Method(
    name="scoreflow",
    solve=taking(Allowance, solve, last=True),
    fit=taking(Allowance, fit, last=True),
    fits=lambda knobs: knobs["generate"] == "fit",
    summary="a generator, here untrained, writes a workflow per problem (Wang et al. 2025)",
    level=Level.L3,
    calls=lambda knobs: {"meta": (1, knobs["attempts"]), "worker": (1, MANY)},
    fit_calls=_fit_calls,
    roles=("worker", "meta"),
    sampling={"meta": Sampling(temperature=0.2, max_tokens=1000, top_p=0.95)},
    bounds={
        "workflows": (1, 1000),
        "evals": (1, 1000),
        "attempts": (1, 10_000),
        **ALLOWANCE_BOUNDS,
    },
    paper={
        "generate": "a trained generator: 2 iterations (release's example), up to 3 (paper)",
        "workflows": "8 (release)",
        "evals": "3 (release)",
        "pairs": "600 on HumanEval, 2000 elsewhere (release)",
        "attempts": "500 (release)",
        "similarity": "1.1 on code, which is off (release)",
        "reflections": "10, then a fresh program (release)",
        "workflow_calls": "no limit; at most 3 loops and complexity below 7 in words (release)",
        "workflow_s": "240 (release, when scoring)",
    },
    presets={
        "release": Preset(
            "the release's passes and time limit, AFlow's public tests; the generator is untrained",
            {"attempts": 500, "workflow_s": 240.0},
            "aflow",
        )
    },
)
