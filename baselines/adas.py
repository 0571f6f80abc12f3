"""ADAS, Meta Agent Search: a meta-agent writes agents as code, one after another, into an archive.

Hu et al. 2024, arXiv:2408.08435, section 3 and algorithm 1, with the loop of its release. The
archive begins with seven known agents; each generation the meta-agent sees all of it with fitness,
proposes a new agent, reflects on it twice, and mends it while it fails on the search problems; then
it joins the archive. The best by mean on the search problems answers every problem, once.

Differs from the paper and its release:
- One agent is chosen by its mean on the search problems, by the lower end of its interval on ties,
  then the earliest; the release evaluates the whole archive on the test set and reports the best.
  `rank` asks for the second or third instead.
- A generation that fails is made up for by another attempt, `attempts` in all; there it is lost,
  since its loop counts on.
- An agent that fails on some problem fails that problem; there the whole evaluation is given up.
  One that does not load is tried on the first problem only. It is mended when hardly any problem is
  solved: with its most frequent error, or with the word that all failed. An agent that still solves
  none joins the archive if it answered any problem at all.
- The last version that is mended is run as well; there its reply is thrown away. Every version
  is evaluated anew: there an old result can stand beside newer code.
- The fitness text is our own wording of the same median and percentile interval, of 10,000
  resamples with a fixed seed (100,000 there).
- Agents write programs: what that changes in agents is listed in `adas_agents.py`.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from baselines.adas_agents import OPERATORS, SEEDS, read_fields
from baselines.operators import solve_prompt
from harness.errors import RequestRejected, UsageError
from harness.extract import code_block
from harness.types import (
    Context,
    FitContext,
    Knobs,
    Level,
    Message,
    Method,
    Preset,
    Problem,
    Sampling,
    Solution,
    Tried,
    WorkflowLimits,
)

PROPOSE = """\
You invent agents: programs that combine calls of a language model to solve programming tasks. Each
task describes one Python function; an agent's answer is that function's program, and hidden tests
decide whether it is right. Your aim is an agent that solves as many tasks as it can.

An agent is one Python function `forward(self, taskInfo)`. It finds these names without importing:
- Info(name, author, content, iteration_idx), a named tuple with one piece of text in `content`.
  `taskInfo` is the Info of the task.
- LLMAgentBase(output_fields, agent_name, role='helpful assistant', temperature={temperature}): one
  model in a role. Calling it, `agent(input_infos, instruction, iteration_idx=-1)`, asks the model
  once: it sees the role, the given list of Infos and the instruction, and nothing else. What comes
  back is a list of Infos, one for each output field in their order. The field `code` holds a
  program; put a field such as `thinking` before it. All contents are text.
- self.run_examples(code) -> (feedback, passed, total): runs the examples that the task comes with
  on a program. `feedback` is a text; `total` is 0 where there is none.
- Counter, ThreadPoolExecutor, json, math, random, re. One agent may ask at most {calls} times.
`forward` returns the Info of the program that it settles on, or the program as text.

Agents so far, with the share of tasks that each solved (median and interval of a bootstrap):
{archive}

Do not:
- write `class` around `forward`, examples of its use, or anything that runs when it is loaded;
- pass texts where Infos are wanted: LLMAgentBase takes a list of Infos, as in `[taskInfo, code]`;
- take one field for many: `thinking, code = agent(...)`, and `feedback = agent(...)[0]` for one;
- write the answer's format into instructions: the fields are asked for already;
- parse programs by hand, or run them by yourself: use self.run_examples;
- hide errors with a bare `except`, or leave names undefined.

Learn from the archive what works and what does not, and propose the next agent. It should be
interesting: not a variation of one that is there. Ideas from any field may inspire it.
`thought` holds what the archive teaches, the idea, and how it is implemented; `name` is short;
`code` is the complete function.

{form}"""

FORM = "Answer with one JSON object that describes one agent, with the fields: {fields}."

REFLECT = """\
Look at your proposal again.{previous}
1. Is it new and interesting beside the archive, or the old idea with other numbers? If it is not,
   replace it.
2. Is the code right? Go through it line by line against the description of the names above.
3. Can the idea be carried out better, without changing what it is about?
`reflection` holds your findings. Keep or improve `thought`, `name` and `code`.

{form}"""

PREVIOUS = "\nThe agent before it in the archive was:\n{agent}\n"

RECHECK = """\
Check the code once more against the list of what not to do above, point by point, and mend it where
it is on the list. `reflection` holds what you found. Repeat `thought` and `name`; `code` is the
complete function again.

{form}"""

DEBUG = """\
The agent was run on tasks, and this came of it:
{error}
Find the cause in your last code, and mend it for the same idea. Repeat `thought` and `name`;
`debug_thought` holds the cause; `code` is the complete function.

{form}"""

FIELDS = ("thought", "name", "code")
LISTED = ", ".join(FIELDS)
ALL_FAILED = "no task was solved: every program was wrong, or missing"


@dataclass
class Agent:
    """One agent, and how it does on the search problems."""

    name: str
    thought: str
    code: str
    generation: int  # 0: a seed
    scores: tuple[float, ...] = ()  # one for each search problem: 1.0 where it passes all tests
    error: str | None = None  # why it does not count as working
    answered: bool = False  # whether any execution gave an answer
    low: float = 0.0  # of the 95% interval of its mean
    median: float = 0.0
    high: float = 0.0

    @property
    def score(self) -> float:
        return sum(self.scores) / len(self.scores) if self.scores else 0.0

    @property
    def fitness(self) -> str:
        return (
            f"median {self.median:.1%} of the tasks, 95% interval {self.low:.1%} to {self.high:.1%}"
        )

    def described(self) -> dict[str, Any]:
        """What the meta-agent sees of it."""
        when = {"generation": self.generation or "initial", "fitness": self.fitness}
        return {"thought": self.thought, "name": self.name, "code": self.code, **when}


def bootstrap(scores: Sequence[float], resamples: int, seed: int = 0) -> tuple[float, float, float]:
    """(low, median, high) of the means of `resamples` draws with replacement: 2.5, 50 and 97.5%."""
    rng = random.Random(seed)
    ordered = sorted(scores)  # so that the same scores in another order give the same
    size = len(ordered)
    means = sorted(sum(rng.choices(ordered, k=size)) / size for _ in range(resamples))
    low, median, high = (percentile(means, share) for share in (0.025, 0.5, 0.975))
    return low, median, high


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value at a share of the way through ascending values, linear between neighbours."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


async def solve(
    problem: Problem, ctx: Context, *, rank: int = 1, agent_calls: int = 30
) -> Solution:
    """Return the program of the agent that the search found, run once.

    `rank` takes the agent of that place by validation instead of the best. Raises UsageError when
    there is none.
    """
    archive = (ctx.artifact or {}).get("archive", ())
    if rank > len(archive):
        found = f"the archive has {len(archive)} agents" if archive else "there is no archive"
        raise UsageError(f"adas: no agent of rank {rank}, {found}: fit first, or lower rank")
    answer, _ = await _run(ctx, archive[rank - 1]["code"], agent_calls)
    return Solution(code_block(answer, problem.entry_point))


async def _run(ctx: Context, code: str, calls: int) -> tuple[str, str | None]:
    """(answer, error) of one run of an agent on the context's problem."""
    run = await ctx.run_workflow(
        code,
        solve_prompt(ctx.problem),
        operators=OPERATORS,
        contract="agent",
        limits=WorkflowLimits(calls=calls),
    )
    return run.answer or "", run.error


async def fit(
    problems: Sequence[Problem],
    ctx: FitContext,
    *,
    generations: int = 30,
    attempts: int = 45,
    debugging: int = 3,
    least: float = 0.01,
    shown: int = 0,
    resamples: int = 10_000,
    agent_calls: int = 30,
) -> Mapping[str, Any]:
    """Return the archive of the search, best agent first, with that agent's name and code.

    `generations` new agents are aimed at; `attempts` is the most that are made, failed ones
    included, so that with fewer attempts than generations these alone decide. An agent is mended
    up to `debugging` times while its mean stays below `least`. The meta-agent sees the best
    `shown` agents, 0: all.
    """
    if not problems:
        raise UsageError("adas: the search list is empty; give it at least one problem")
    search = _Search(problems, ctx, debugging, least, resamples, agent_calls)
    ctx.round = 0
    seeds = [Agent(name, thought, code, 0) for name, thought, code in SEEDS]
    await asyncio.gather(*(search.evaluate(seed, f"seed {seed.name}") for seed in seeds))
    for seed in seeds:
        search.note(seed)
    archive = seeds
    tried = 0
    while archive[-1].generation < generations and tried < attempts:
        tried += 1
        ctx.round = tried
        made, reply = await search.propose(archive, f"attempt {tried}", shown)
        search.note(made, reply)
        if made.error is None:
            archive.append(made)
    ctx.round = None
    ranked = sorted(archive, key=lambda one: (-one.score, -one.low))
    best = ranked[0]
    told = [
        {**one.described(), "score": one.score, "low": one.low, "high": one.high} for one in ranked
    ]
    return {
        "name": best.name,
        "code": best.code,
        "fitness": best.fitness,
        "score": best.score,
        "archive": told,
    }


@dataclass
class _Search:
    """What every agent of one search meets."""

    problems: Sequence[Problem]
    ctx: FitContext
    debugging: int
    least: float
    resamples: int
    calls: int
    nodes: int = 0

    async def evaluate(self, agent: Agent, label: str) -> None:
        """Run an agent once on each search problem and score it there; what failed is `error`."""

        async def work(ctx: Context) -> Tried:
            answer, error = await _run(ctx, agent.code, self.calls)
            return Tried(code_block(answer, ctx.problem.entry_point), {"error": error})

        trials = [await self.ctx.attempt(self.problems[0], label, work)]
        if not str(trials[0].facts.get("error")).startswith("load:"):
            rest = self.problems[1:]
            trials += await asyncio.gather(*(self.ctx.attempt(p, label, work) for p in rest))
        errors = Counter(trial.facts.get("error") for trial in trials)
        agent.answered = errors[None] > 0
        scores = [float(trial.passed) for trial in trials]
        agent.scores = (*scores, *[0.0] * (len(self.problems) - len(scores)))
        found = await asyncio.to_thread(bootstrap, agent.scores, self.resamples)
        agent.low, agent.median, agent.high = found
        del errors[None]
        agent.error = None
        if agent.score < self.least:
            agent.error = errors.most_common(1)[0][0] if errors else ALL_FAILED

    async def propose(self, archive: Sequence[Agent], label: str, shown: int) -> tuple[Agent, str]:
        """The next agent, reflected on twice and mended while it fails; and the last raw reply."""
        made = Agent("unnamed", "", "", archive[-1].generation + 1)
        reply = ""
        chat: list[Message] = []
        try:
            for request in self.requests(archive, shown):
                reply = await self.ask(chat, request, made)
            for version in range(self.debugging + 1):
                if version:
                    before, form = made.code, FORM.format(fields=f"debug_thought, {LISTED}")
                    reply = await self.ask(chat, DEBUG.format(error=made.error, form=form), made)
                    if made.code == before:  # nothing was mended
                        continue
                if made.code:
                    await self.evaluate(made, f"{label}, version {version}")
                else:
                    made.error = "reply: NoAgent: the answer holds no field `code` with a program"
                if made.error is None:
                    break
        except RequestRejected as error:  # too long, or against a policy: this attempt's failure
            made.error = f"reply: Rejected: {error}"
            return made, reply
        if made.answered:  # wrong everywhere, but working
            made.error = None
        return made, reply

    def requests(self, archive: Sequence[Agent], shown: int) -> tuple[str, str, str]:
        """What the meta-agent is asked: a proposal, and two reflections on it."""
        best = sorted(archive, key=lambda one: -one.score)[:shown]
        seen = [one for one in archive if one in best] if shown else archive
        again = FORM.format(fields=f"reflection, {LISTED}")
        last = json.dumps(archive[-1].described(), ensure_ascii=False, indent=1)
        previous = PREVIOUS.format(agent=last) if archive[-1].generation else ""
        return (
            PROPOSE.format(
                temperature=self.ctx.sampling["worker"].temperature,
                calls=self.calls,
                archive=json.dumps([one.described() for one in seen], ensure_ascii=False, indent=1),
                form=FORM.format(fields=LISTED),
            ),
            REFLECT.format(previous=previous, form=again),
            RECHECK.format(form=again),
        )

    async def ask(self, chat: list[Message], request: str, made: Agent) -> str:
        """Ask the meta-agent on; what its reply gives of an agent replaces what stands."""
        chat.append({"role": "user", "content": request})
        reply = (await self.ctx.ask(chat, role="meta")).text
        chat.append({"role": "assistant", "content": reply})
        found = read_fields(reply, FIELDS, "forward")
        if found.get("code"):
            made.code = found["code"]
        if found.get("name"):  # else what is read of a thought may be anything
            made.name = " ".join(found["name"].split())[:80]
            made.thought = found.get("thought", made.thought)
        return reply

    def note(self, agent: Agent, reply: str | None = None) -> None:
        """Journal an agent, in the archive or failed."""
        self.nodes += 1
        self.ctx.note(
            "node",
            number=self.nodes,
            parent=None,
            label=agent.name,
            generation=agent.generation,
            score=agent.score if agent.answered else None,
            low=agent.low if agent.answered else None,
            high=agent.high if agent.answered else None,
            error=agent.error,
            texts={"workflow": agent.code, "reply": reply},
        )


SEED_CALLS = (1 + 5 + 2 + 7 + 2 + 4 + 2, 1 + 5 + 9 + 7 + 2 + 4 + 2)  # of all seven on one problem


def _fit_calls(knobs: Knobs, problems: int) -> Mapping[str, tuple[int, int]]:
    new, most = knobs["generations"], max(knobs["attempts"], knobs["generations"])
    new = min(new, knobs["attempts"])
    versions = 1 + knobs["debugging"]
    few = problems * (SEED_CALLS[0] + new)
    many = problems * (SEED_CALLS[1] + most * versions * 5)
    return {"worker": (few, many), "meta": (3 * new, (2 + versions) * knobs["attempts"])}


METHOD = Method(
    name="adas",
    solve=solve,
    fit=fit,
    summary="a meta-agent writes agents into an archive, the best answers (Hu et al. 2024)",
    level=Level.L3,
    calls=lambda knobs: {"worker": (1, min(9, knobs["agent_calls"]))},
    fit_calls=_fit_calls,
    roles=("worker", "meta"),
    sampling={
        "worker": Sampling(temperature=0.5),
        "meta": Sampling(temperature=0.8, max_tokens=4096),
    },
    bounds={
        "rank": (1, 1000),
        "least": (0, 1),
        "resamples": (100, 1_000_000),
        "agent_calls": (1, 1000),
    },
    paper={
        "generations": "30; 25 for ARC (release); 30 (AFlow's comparison)",
        "attempts": "as many as generations: what fails is lost (release)",
        "debugging": "3, the last reply unused (release)",
        "least": "0.01 (release)",
        "shown": "0, all of it (paper and release)",
        "resamples": "100000 (release)",
        "agent_calls": "not limited (release)",
        "rank": "the whole archive is tested (release); the best on the test set is told (paper)",
        "search_problems": "128, in GPQA 32 five times over (release); no code benchmark",
    },
    presets={
        "release": Preset(
            "what fails is lost, 100000 resamples; code benchmarks are not in it",
            {"generations": 30, "attempts": 30, "resamples": 100_000},
        ),
        "aflow": Preset(
            "30 rounds, as AFlow compares: Claude 3.5 Sonnet as meta-agent, gpt-4o-mini as worker",
            {"generations": 30, "attempts": 30},
            protocol="aflow",
        ),
    },
    nodes=True,
)
