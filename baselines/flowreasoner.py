"""FlowReasoner: a meta-agent writes one workflow per problem and improves it by execution feedback.

Gao et al. 2025, arXiv:2504.15257, section 4 and equation 5. Round 1 is the template (one call of
the code generator); each later round the meta-agent sees a parent workflow, its score and the
modifications tried on it (layouts.py), and writes the next one as Python code; every workflow runs
on the feedback tests; the best by mean feedback wins, the earliest on ties.

Differs from the paper and its release, each as a knob; `-A preset=paper` and `-A preset=release`
set them as those have it:
- `final=keep` (default) grades the program with the best feedback of all that were produced, the
  earliest on ties; the release executes the winning workflow anew, three times (`final=rerun`,
  `final_runs`). Further programs are `reruns`.
- Where every call of a workflow was greedy, its three evaluations are one and the same: it is run
  once, and the round says so (`evals` in its record); the presets sample at temperature 1.
- A workflow that does not parse, load or run scores 0 and its error is shown to the meta-agent as
  experience; in the mixed draw, one that does not parse or load is no parent where there is
  another. The release loses such rounds (`failed_rounds=lost`), and executes a workflow that fails
  up to five times (`attempts`).
- A modification already tried on its parent is asked for again at most twice (`regenerations`),
  not without end.
- A workflow may take 900 s (`workflow_s`), which counts its models' answers, for local models are
  slow; the release has 60 s on two benchmarks, and no limit on MBPP.
- On a problem without a feedback test nothing can be compared: the first answer is kept.

Two controls of the claim that each problem needs a workflow of its own: `workflow=shuffled` answers
with the workflow that was searched for another problem; `workflow=single` with the one workflow
that is best on the search list (`fit`). Neither is in the paper.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

from baselines.design import Search, best_round, best_workflow, design
from baselines.layouts import AGAIN, FIRST, SYSTEM
from baselines.workflows import ALLOWANCE_BOUNDS, DRAW_BOUNDS, same_program, taking
from harness.errors import UsageError
from harness.extract import code_block
from harness.types import (
    Context,
    FitContext,
    Knobs,
    Level,
    Method,
    Preset,
    Problem,
    Sampling,
    Solution,
    Trial,
    Tried,
)


async def solve(
    problem: Problem,
    ctx: Context,
    *,
    workflow: Literal["own", "shuffled", "single"] = "own",
    final: Literal["keep", "rerun"] = "keep",
    final_runs: int = 1,
    **knobs: Any,
) -> Solution:
    """Return the best program by feedback, or the program of the best workflow run anew.

    `workflow` is whose: this problem's own, another problem's, or the single one that `fit` found.
    `final` keeps the best program already produced, or runs the workflow `final_runs` times anew.
    The other knobs are those of `Search`. Raises what `ctx` raises.
    """
    search = Search(**knobs)
    runs = final_runs if final == "rerun" else 1
    if workflow == "single":
        if ctx.artifact is None:
            raise UsageError("flowreasoner: workflow=single wants what its fit found: fit it first")
        return await _run(ctx, search, ctx.artifact["graph"], ctx.artifact["prompts"], runs)
    searched = ctx.peer() if workflow == "shuffled" else ctx
    history = await design(searched.problem, searched, search)
    best = best_workflow(history)
    if best is None:
        return Solution("")
    kept = best_round(history) if workflow == "own" and final == "keep" else None
    best = kept or best
    ctx.note(
        "chosen",
        round=best.number,
        score=best.score if best.has_feedback else None,
        searched_for=searched.problem.problem_id,
        final="keep" if workflow == "own" and final == "keep" else "rerun",
        texts={"workflow": best.graph, "prompts": best.prompts},
    )
    if workflow == "own" and final == "keep":
        return Solution(best.best_code)
    return await _run(ctx, search, best.graph, best.prompts, runs)


async def _run(ctx: Context, search: Search, graph: str, prompts: str, runs: int) -> Solution:
    """The programs of `runs` executions; of one, where all others would be the same."""
    codes: list[str] = []
    while len(codes) < max(runs, 1):
        run = await search.execute(ctx, graph, prompts)
        codes.append(code_block(run.answer or "", ctx.problem.entry_point))
        if not run.sampled:
            break
    return Solution(codes[0], tuple(codes[1:]))


async def fit(
    problems: Sequence[Problem], ctx: FitContext, *, candidates: int = 8, **knobs: Any
) -> dict[str, Any]:
    """The single workflow that solves most of the search problems, for `workflow=single`.

    The search is run for each problem. Of the workflows that it ends with, the `candidates` whose
    own program passed the largest share of their problem's tests (then by feedback, then in the
    order of problems) are run once on every problem; the one with the most passes wins, the
    earliest on ties.
    """
    search = Search(**knobs)

    async def own(c: Context) -> Tried:
        history = await design(c.problem, c, search)
        best = best_workflow(history)
        if best is None:
            return Tried("")
        facts = {"graph": best.graph, "prompts": best.prompts, "score": best.score}
        return Tried(best.best_code, {**facts, "round": best.number})

    def once(trial: Trial) -> Callable[[Context], Awaitable[Tried]]:
        async def work(c: Context) -> Tried:
            run = await search.execute(c, trial.facts["graph"], trial.facts["prompts"])
            code = code_block(run.answer or "", c.problem.entry_point)
            return Tried(code, {"error": run.error})

        return work

    found = await asyncio.gather(*(ctx.attempt(problem, "own", own) for problem in problems))
    chosen = _distinct(found)[:candidates]
    if not chosen:
        raise UsageError(
            f"flowreasoner: the meta-agent wrote no workflow on any of {len(problems)} search "
            "problems: use another --meta, or init_template=true"
        )
    passed: list[int] = []
    for number, trial in enumerate(chosen, 1):
        ctx.round = number
        label = f"candidate {number}"
        work = once(trial)
        trials = await asyncio.gather(*(ctx.attempt(p, label, work) for p in problems))
        passed.append(sum(one.passed for one in trials))
        ctx.note(
            "node",
            number=number,
            parent=None,
            label=f"searched for {trial.problem_id}",
            score=passed[-1] / len(problems),
            low=None,
            high=None,
            error=None if any(one.code for one in trials) else trials[0].facts.get("error"),
            texts={"workflow": trial.facts["graph"], "prompts": trial.facts["prompts"]},
        )
    ctx.round = None
    best = max(range(len(chosen)), key=lambda i: (passed[i], -i))
    facts = chosen[best].facts
    return {
        "graph": facts["graph"],
        "prompts": facts["prompts"],
        "searched_for": chosen[best].problem_id,
        "score": passed[best] / len(problems),
        "scores": [number / len(problems) for number in passed],  # of each candidate
    }


def _distinct(found: Sequence[Trial]) -> list[Trial]:
    """Those that hold a workflow, the best first, without those that equal a better one."""
    holding = [trial for trial in found if trial.facts.get("graph")]
    kept: list[Trial] = []
    for trial in sorted(holding, key=lambda t: (-t.share, -t.facts["score"])):
        if not any(_same(trial.facts, other.facts) for other in kept):
            kept.append(trial)
    return kept


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    equal = one["graph"] == other["graph"] or same_program(one["graph"], other["graph"])
    return bool(equal and one["prompts"].strip() == other["prompts"].strip())


def _search_calls(knobs: Knobs) -> dict[str, tuple[int, int]]:
    """{role: (few, many)} calls of one problem's search."""
    workflows = knobs["rounds"] + knobs["init_template"]
    return {
        "meta": (knobs["rounds"], knobs["rounds"] * (1 + knobs["regenerations"])),
        "worker": (workflows, workflows * knobs["evals"] * 4),
    }


def _calls(knobs: Knobs) -> dict[str, tuple[int, int]]:
    reruns = knobs["workflow"] != "own" or knobs["final"] == "rerun"
    runs = knobs["final_runs"] if knobs["final"] == "rerun" else int(reruns)
    if knobs["workflow"] == "single":
        return {"worker": (1, 4 * runs)}
    calls = _search_calls(knobs)
    few, many = calls["worker"]
    return {**calls, "worker": (few + reruns, many + 4 * runs)}


def _fit_calls(knobs: Knobs, problems: int) -> dict[str, tuple[int, int]]:
    few, many = _search_calls(knobs)["worker"]
    least, most = _search_calls(knobs)["meta"]
    runs = problems * min(knobs["candidates"], problems)
    return {
        "meta": (problems * least, problems * most),
        "worker": (problems * few + problems, problems * many + 4 * runs),
    }


def _settle(knobs: Knobs, there: Callable[[str], bool]) -> dict[str, Any]:
    """Nothing to set; raises UsageError for knobs that would be of no matter."""
    if knobs["final_runs"] > 1 and knobs["final"] != "rerun":
        raise UsageError("flowreasoner: final_runs wants final=rerun")
    return {}


_SHARED: dict[str, Any] = {"rounds": 10, "evals": 3, "final": "rerun", "final_runs": 3}

METHOD = Method(
    name="flowreasoner",
    solve=taking(Search, solve),
    summary="a meta-agent writes one workflow per problem, improved by feedback (Gao et al. 2025)",
    level=Level.L3,
    calls=_calls,
    roles=("worker", "meta"),
    sampling={"meta": Sampling(temperature=0.7, max_tokens=2048)},
    bounds={
        "evals": (1, 1000),
        **DRAW_BOUNDS,
        "max_complexity": (1, 1000),
        "regenerations": (0, 100),
        "attempts": (1, 100),
        "final_runs": (1, 100),
        "candidates": (1, 1000),
        **ALLOWANCE_BOUNDS,
    },
    paper={
        "rounds": "10 (paper, release)",
        "evals": "3 (paper, release)",
        "sample": "4 (release)",
        "alpha": "0.2 (release)",
        "lam": "0.3 (release)",
        "layout": "concat, as trained (paper, equation 2); round (release)",
        "parent": "mixed (release); each workflow follows from all before it (paper, equation 2)",
        "feedback": "scalar (release)",
        "init_template": "true; false in figure 4a (paper)",
        "operators": "six and custom, all of ours (paper); custom, custom_code_generate, "
        "sc_ensemble, test (release)",
        "failed_rounds": "lost (release)",
        "test_cases": "true, by its figures (paper); false (release)",
        "node_settings": "a node has a model, a prompt, a temperature and an output format "
        "(paper); no workflow in its figures sets them; false (release)",
        "max_complexity": "10 (release)",
        "regenerations": "without end (release)",
        "attempts": "5 (release)",
        "early_stop": "false (release)",
        "workflow_s": "60 on HumanEval and BigCodeBench, none on MBPP (release)",
        "workflow": "own (paper, release)",
        "final": "rerun (release)",
        "final_runs": "3 (release)",
    },
    presets={
        "paper": Preset(
            "as the paper describes it: one growing answer, all operators, tests for the workers; "
            "workers at temperature 1.0, what o1-mini is fixed to",
            knobs={**_SHARED, "layout": "concat", "parent": "latest", "test_cases": True},
            protocol="split",
            sampling={"worker": {"temperature": 1.0}},
        ),
        "release": Preset(
            "as the released code works: AFlow's loop on one problem, four operators, failed "
            "rounds lost; workers at temperature 1.0, what o1-mini is fixed to; a repeated "
            "modification is asked for again 10 times (there: without end)",
            knobs={
                **_SHARED,
                "operators": "release",
                "failed_rounds": "lost",
                "regenerations": 10,
                "attempts": 5,
            },
            protocol="split",
            sampling={"worker": {"temperature": 1.0}},
        ),
    },
    settle=_settle,
    fit=taking(Search, fit),
    fits=lambda knobs: knobs["workflow"] == "single",
    fit_calls=_fit_calls,
    peers=lambda knobs: knobs["workflow"] == "shuffled",
    nodes=True,
)

__all__ = ["AGAIN", "FIRST", "METHOD", "SYSTEM", "fit", "solve"]
