"""MaAS: a small controller picks, per query, the operators of each layer of an agentic supernet.

Zhang et al. 2025, arXiv:2502.04180, section 3, with the numbers of its release. `fit` trains the
controller on the search problems by policy gradient on score - weight * dollars; `solve` draws a
team for the problem and executes it: layer by layer, in the order of choice, on a growing pool of
solutions, of which the latest is the current one. At the end the Test operator always runs, and
what it cannot mend is written anew once. An easy query gets a short team: operator EarlyStop.

Differs from the paper: the textual gradient (off by default, as released) rewrites one operator's
instruction, once, and edits neither temperatures nor structure. Differs from the release:
- A trial's cost is its own; theirs is a counter that problems in flight share. Where the worker is
  free or has no known price, its tokens are counted at `token_usd` (`cost=auto`).
- A trial that broke off counts as score 0 with its own log-probability (theirs: a constant 0).
- GenerateCoT and MultiGenerateCoT ask for steps (theirs send the very prompt of Generate), and the
  last call sees the failing program; `archive=true` is as released in both.
- A greedy worker is asked at `spread` by MultiGenerateCoT: three equal programs are one.
- Without a feedback test the Test operator changes nothing (theirs reports success); its rewrites
  and the instruction of ScEnsemble are fixed, so the textual gradient leaves them alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from baselines.maas_controller import Controller, Team, one_core
from baselines.maas_operators import DESCRIPTIONS, described, execute, instructions
from baselines.workflows import tagged, unfenced
from harness.errors import RequestRejected, UsageError
from harness.extract import code_block, strip_reasoning
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
)

GRADIENT = """\
A team of operators, each a step of a language model, solves Python problems. The mean score of the
team's answers fell from {before:.2f} to {after:.2f}. Improve one operator's instruction.

Operator {name}: {does}.
Its instruction now:
<prompt>
{instruction}
</prompt>
Some answers that failed:
{failures}

The instruction stands before each problem, so it names none. Say what to do in at most 100 words.
End with the new instruction between <prompt> and </prompt>."""
AGAIN = "I found none. End with the new instruction between <prompt> and </prompt>."
LONGEST = 2000  # characters of a new instruction


async def solve(
    problem: Problem,
    ctx: Context,
    *,
    mode: Literal["sample", "argmax"] = "sample",
    threshold: float = 0.3,
    several: int = 3,
    spread: float = 0.7,
    rewrites: int = 3,
    archive: bool = False,
) -> Solution:
    """Return the program of the team that the trained controller picks for this problem.

    `mode=argmax` takes the likeliest operators in place of a draw. `threshold` is the probability
    that a layer's operators add up to, `several` the programs of MultiGenerateCoT, `rewrites` those
    of each Test. Calls: 1 for EarlyStop at once, usually 3 to 15. Raises what `ctx` raises.
    """
    if ctx.artifact is None:
        raise UsageError("maas needs the controller that its fit trains: run `harness fit` first")
    *rows, query = await ctx.embed([*described(), problem.prompt])
    controller = Controller.from_dict(ctx.artifact["controller"])
    known = dict(zip(DESCRIPTIONS, rows, strict=True))
    team = controller.draw(query, known, threshold, ctx.rng if mode == "sample" else None)
    ctx.note("architecture", layers=team.layers, probability=float(team.log_pi.exp()))
    act = partial(execute, several=several, spread=spread, rewrites=rewrites, archive=archive)
    found = await act(ctx, team.layers, ctx.artifact["instructions"])
    return Solution(code_block(found, problem.entry_point))


async def fit(
    problems: Sequence[Problem],
    ctx: FitContext,
    *,
    passes: int = 4,
    batch: int = 4,
    learning_rate: float = 0.01,
    weight: float = 3.0,
    cost: Literal["auto", "usd", "tokens", "none"] = "auto",
    token_usd: float = 0.3,
    layers: int = 4,
    hidden: int = 32,
    textual: bool = False,
    threshold: float = 0.3,
    several: int = 3,
    spread: float = 0.7,
    rewrites: int = 3,
    archive: bool = False,
) -> dict[str, Any]:
    """Return the trained controller, the operators' instructions, and what each pass came to.

    A step is `batch` problems, one team each: Adam on -mean(log pi * (score - `weight` * dollars)),
    the score being 1 where all official tests pass. `cost` says whose dollars: the trial's own
    (`usd`), its tokens at `token_usd` per million (`tokens`), or the own where they are known and
    not 0 (`auto`). `textual` lets the role `meta` rewrite one instruction, once, after the first
    pass whose mean score fell. Raises what `ctx` raises.
    """
    count = len(DESCRIPTIONS)
    vectors = await ctx.embed([*described(), *(problem.prompt for problem in problems)])
    known = dict(zip(DESCRIPTIONS, vectors[:count], strict=True))
    import torch

    controller = Controller.fresh(ctx.rng, size=len(vectors[0]), layers=layers, hidden=hidden)
    adam = torch.optim.Adam(list(controller.weights.values()), lr=learning_rate)
    act = partial(execute, several=several, spread=spread, rewrites=rewrites, archive=archive)
    told = instructions(archive)
    rewritten: str | None = None
    done: list[dict[str, Any]] = []
    step = 0

    async def work(team: Team, attempt: Context) -> Tried:
        found = await act(attempt, team.layers, told)
        code = code_block(found, attempt.problem.entry_point)
        return Tried(code, {"layers": team.layers})

    for number in range(1, passes + 1):
        ctx.round = number
        ended: list[tuple[Team, Trial]] = []
        for start in range(0, len(problems), batch):
            step += 1
            some = problems[start : start + batch]
            queries = vectors[count + start : count + start + batch]
            teams = [controller.draw(query, known, threshold, ctx.rng) for query in queries]
            attempts = [
                ctx.attempt(problem, f"pass {number}", partial(work, team))
                for problem, team in zip(some, teams, strict=True)
            ]
            pairs = list(zip(teams, await asyncio.gather(*attempts), strict=True))
            dollars = costs([trial for _, trial in pairs], cost, token_usd)
            gains = [t.passed - weight * usd for (_, t), usd in zip(pairs, dollars, strict=True)]
            weighed = [team.log_pi * gain for team, gain in zip(teams, gains, strict=True)]
            with one_core():
                loss = -torch.stack(weighed).mean()
                adam.zero_grad()
                loss.backward()
                adam.step()
            utility = sum(gains) / len(gains)
            ctx.note("step", number=step, loss=loss.item(), utility=utility, **summary(pairs))
            ended += pairs
        done.append(summary(ended))
        if textual and not rewritten and number > 1 and done[-1]["score"] < done[-2]["score"]:
            rewritten = ctx.rng.choice(list(told))
            scores = (done[-2]["score"], done[-1]["score"])
            trials = [trial for _, trial in ended]
            text = await rewrite(ctx, rewritten, told[rewritten], scores, trials)
            told[rewritten] = text or told[rewritten]
    ctx.round = None
    return {
        "controller": controller.as_dict(),
        "instructions": told,
        "rewritten": rewritten,
        "passes": done,
    }


def costs(trials: Sequence[Trial], cost: str, token_usd: float) -> list[float]:
    """What each trial cost in dollars, by the rule `cost` of `fit`.

    Where that is unknown the mean of the others stands in, and 0 where it is of all: then the score
    alone decides.
    """
    found: list[float | None] = []
    for trial in trials:
        counted = None if trial.tokens is None else trial.tokens * token_usd / 1e6
        by_rule = {"usd": trial.usd, "tokens": counted, "none": 0.0, "auto": trial.usd or counted}
        found.append(by_rule[cost])
    told = [usd for usd in found if usd is not None]
    mean = sum(told) / len(told) if told else 0.0
    return [mean if usd is None else usd for usd in found]


def summary(pairs: Sequence[tuple[Team, Trial]]) -> dict[str, Any]:
    """Means of these trials. None: some part is unknown."""

    def mean(values: Sequence[float | None]) -> float | None:
        told = [value for value in values if value is not None]
        return sum(told) / len(told) if told and len(told) == len(values) else None

    return {
        "score": mean([float(trial.passed) for _, trial in pairs]),
        "usd": mean([trial.usd for _, trial in pairs]),
        "tokens": mean([trial.tokens for _, trial in pairs]),
        "layers": mean([float(len(team.layers)) for team, _ in pairs]),
    }


async def rewrite(
    ctx: FitContext,
    name: str,
    instruction: str,
    scores: tuple[float, float],
    trials: Sequence[Trial],
) -> str | None:
    """The role `meta`'s new instruction for an operator; None where it gives none, asked twice."""
    failures = [
        f"{trial.detail}\n```python\n{trial.code}\n```" for trial in trials if not trial.passed
    ][:3]
    asked: list[Message] = [
        {
            "role": "user",
            "content": GRADIENT.format(
                before=scores[0],
                after=scores[1],
                name=name,
                does=DESCRIPTIONS[name][0],
                instruction=instruction or "(none: it gets the problem alone)",
                failures="\n".join(failures),
            ),
        }
    ]
    found: str | None = None
    for _ in range(2):
        try:
            reply = (await ctx.ask(asked, role="meta")).text
        except RequestRejected:  # too long, or against a policy: the old instruction stays
            break
        found = unfenced(tagged(strip_reasoning(reply), "prompt") or "").strip()[:LONGEST] or None
        if found:
            break
        asked += [{"role": "assistant", "content": reply}, {"role": "user", "content": AGAIN}]
    ctx.note("rewrite", operator=name, texts={"before": instruction, "after": found})
    return found


def _calls(knobs: Mapping[str, Any], problems: int = 1) -> dict[str, tuple[int, int]]:
    """1 where a team stops at once; 9 in 10 teams of an untrained controller take up to 15."""
    most = 9 + knobs["several"] + knobs["rewrites"]
    return {"worker": (problems, most * problems)}


METHOD = Method(
    name="maas",
    solve=solve,
    summary="a trained controller picks operators per query (Zhang et al. 2025)",
    level=Level.L3,
    calls=_calls,
    roles=("worker", "meta"),
    sampling={"meta": Sampling(temperature=0.7)},
    bounds={
        "threshold": (0, 1),
        "several": (1, 20),
        "spread": (0, 2),
        "rewrites": (0, 5),
        "passes": (0, 1000),
        "batch": (1, 10_000),
        "learning_rate": (0, 10),
        "layers": (1, 20),
        "hidden": (1, 4096),
    },
    paper={
        "mode": "sample (release)",
        "threshold": "0.3 (paper, release)",
        "several": "3 (release)",
        "spread": "the worker's own temperature (release)",
        "rewrites": "3 (release)",
        "archive": "true (release)",
        "passes": "4 (paper, release)",
        "batch": "4 (release)",
        "learning_rate": "0.01 (release)",
        "weight": "0.001, 0.005 or 0.01 on its own measure of cost (paper); 3 per dollar (release)",
        "cost": "usd (release)",
        "layers": "4 (paper, release)",
        "hidden": "32 (release)",
        "textual": "true (paper); false (release)",
    },
    presets={
        "release": Preset(
            "as released: generators without instruction, dollars alone, public tests of AFlow",
            {"archive": True, "cost": "usd"},
            protocol="aflow",
        ),
        "paper": Preset("with the textual gradient", {"textual": True}),
    },
    fit=fit,
    fit_calls=lambda knobs, problems: (
        _calls(knobs, problems * knobs["passes"]) | ({"meta": (1, 2)} if knobs["textual"] else {})
    ),
)
