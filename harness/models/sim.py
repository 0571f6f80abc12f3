"""`sim/skill=0.7,seed=1`: a worker of known skill, for checking the harness itself.

It answers each problem rightly with a known probability, using the reference program, and every
other form of request (a verdict, a choice, a workflow) in the form that was asked for. So pass@1,
budgets, resumption and scale can be held against a known truth, and every method runs end to end
without a model. What it scores says nothing about any model: it is marked `simulated`, which keeps
it out of every ranking and paper table.

Which problem is meant is taken from the request's private metadata (`About`), never from the
prompt. Its form is read from the format instructions in the messages, as a model would read it;
`FORMS` is the table: patterns of such instructions, and what answers each; the first that fits
counts, so narrow ones stand above wide ones. Every answer is a pure function of the model's
settings, the problem, the messages, the sampling and the call's seed: equal requests get equal
answers in every process, and all others are independent draws, those to a model that differs only
in `latency` too. At temperature 0 a call has no seed, so a run's `--seed` changes nothing: as with
every greedy model that repeats its answers, a second run is a copy and no second draw. Give `seed=`
in the name, or a temperature, to draw anew. How hard a problem is (`spread`) goes by the seed in
the name alone: models of one seed find the same problems hard.

- A program is right with the problem's probability: it is the reference. A wrong one runs, and
  returns a number that no test expects; another draw returns another number.
- A request to rewrite a right program keeps it; to rewrite a wrong one is a new draw. A request to
  extract a program gets the last one that it shows.
- A verdict on a program, or a choice among several, is right with probability `judge`. A program
  counts as right when it is the reference, comments and layout aside. Of two that are both right or
  both wrong, neither is better.
- A workflow is one of a family of five, an agent (ADAS) one of a family of three, not one that the
  request names as tried. Fields of a JSON object get a program, a verdict or a sentence each.
- Anything else gets a short sentence.

A search's own calls are about no problem: those that ask for a workflow or a sentence are answered,
those that ask for a program or judge one are rejected.

Tokens are words, of prompt and answer: a stand-in. An answer longer than `max_tokens` words is cut.
"""

from __future__ import annotations

import ast
import asyncio
import functools
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import NormalDist
from typing import Any

from harness.errors import RequestRejected, UsageError
from harness.extract import code_block, defines, fenced_blocks
from harness.types import About, Completion, Message, Model, Problem, Sampling

ANSWERS = 3  # raised when the same request gets another answer than before: kept ones are then old
NO_PROBLEM = "search"  # what calls are about that belong to no problem: a search's own


@dataclass(frozen=True)
class Settings:
    """What a name may set. Probabilities lie in [0, 1]."""

    skill: float = 0.5  # probability that a program is right
    spread: float = 0.0  # each problem's own lies uniformly in skill +- spread, cut to [0, 1]
    judge: float = 1.0  # probability that a verdict or a choice is right
    broken: float = 0.0  # probability that a workflow does not load or run
    seed: int = 0  # of all of its draws, with the other settings
    latency: float = 0.0  # seconds that an answer takes, the mean
    latency_sd: float = 0.0  # their standard deviation (normal, cut at 0)
    usd: float = 0.0  # dollars per million tokens, of prompt and answer alike


def open_sim(spec: str) -> SimModel:
    """The model of `sim/skill=0.7,seed=1,...`; `sim/` alone has every default.

    Raises UsageError that names the settings: an unknown one, one given twice, a bad value.
    """
    known = [field.name for field in fields(Settings)]
    given: dict[str, Any] = {}
    for part in filter(None, spec.partition("/")[2].split(",")):
        name, _, text = (piece.strip() for piece in part.partition("="))
        if name not in known or name in given:
            wrong = "is given twice" if name in given else "is no setting"
            raise UsageError(
                f"{spec}: {name!r} {wrong}; a simulated model takes "
                + ", ".join(f"{one}={_plain(getattr(Settings, one))}" for one in known)
            )
        given[name] = _value(spec, name, text)
    return SimModel(Settings(**given))


def _value(spec: str, name: str, text: str) -> float:
    """The number of one setting. Raises UsageError."""
    try:
        value = int(text) if name == "seed" else float(text)
    except ValueError:
        value = math.nan
    most = 1.0 if name in ("skill", "spread", "judge", "broken") else math.inf
    if not (0 <= value <= most and math.isfinite(value)):
        kind = "a whole number" if name == "seed" else "a number"
        bound = " in 0 to 1" if most == 1 else " of at least 0"
        raise UsageError(f"{spec}: {name} is {kind}{bound}, not {text!r}")
    return value + 0  # no negative zero


def _plain(value: float) -> str:
    """A number as one would type it: 1 for 1.0."""
    return str(value).removesuffix(".0")


class SimModel(Model):
    """Implements `Model`; `learn` tells it the problems before it is asked."""

    connections, most_connections = 64, 256
    repeats = simulated = True
    cacheable = False  # asking again is free

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        chosen = {
            name: value
            for name, value in asdict(settings).items()
            if name in ("skill", "seed") or value != getattr(Settings, name)
        }
        self.name = "sim/" + ",".join(f"{name}={_plain(value)}" for name, value in chosen.items())
        self._known: dict[str, tuple[Problem, str]] = {}

    def identity(self) -> dict[str, Any]:
        """Its settings, and which benchmarks' references it goes by: suites share prompts."""
        known = sorted({problem.benchmark for problem, _ in self._known.values()})
        return {"name": self.name, **asdict(self.settings), "answers": ANSWERS, "known": known}

    def price(self, completion: Completion) -> float | None:
        if completion.prompt_tokens is None or completion.completion_tokens is None:
            return None
        tokens = completion.prompt_tokens + completion.completion_tokens
        return self.settings.usd * tokens / 1e6

    def learn(self, problems: Mapping[str, tuple[Problem, str]]) -> None:
        """Know these problems, with their reference programs by problem id, and no others."""
        self._known = dict(problems)

    def skill(self, problem_id: str) -> float:
        """The probability that a program for this problem is right."""
        mean, spread = self.settings.skill, self.settings.spread
        shift = 2 * _uniform(f"{self.settings.seed}/skill/{problem_id}") - 1
        return min(1.0, max(0.0, mean + spread * shift))

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        seed: int | None = None,
        about: About | None = None,
    ) -> Completion:
        """The answer to this request. Raises RequestRejected for a problem that it was not told."""
        name = None if about is None else about.problem_id
        if name not in self._known and name != NO_PROBLEM:
            raise self.unknown(name)
        request = [list(messages), sampling.as_dict(), seed]
        key = f"{name}/{json.dumps(request, sort_keys=True, default=str)}"

        def draw(label: str) -> float:
            return _uniform(f"{self.name}/{label}/{key}")

        it = Asked(self._known.get(name or NO_PROBLEM), messages, self, draw)
        text, finish = _cut(_answer(it), sampling.max_tokens)
        pause_s = self._pause_s(draw("latency"))
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        prompt_tokens = sum(len(message["content"].split()) for message in messages)
        return Completion(text, prompt_tokens, len(text.split()), finish=finish, model=self.name)

    def unknown(self, problem_id: str | None) -> RequestRejected:
        """What to raise where it would have to know a problem, and does not."""
        asked = "without saying for which problem" if problem_id is None else problem_id
        return RequestRejected(
            f"{self.name}: asked {asked}; a simulated model answers only problems that it was "
            "given to learn"
        )

    def _pause_s(self, share: float) -> float:
        mean, deviation = self.settings.latency, self.settings.latency_sd
        if deviation == 0:
            return mean
        inside = min(max(share, 1e-12), 1 - 1e-12)
        return max(0.0, NormalDist(mean, deviation).inv_cdf(inside))

    async def close(self) -> None:
        pass


def _uniform(key: str) -> float:
    """A number in [0, 1) that a text decides."""
    found = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(found[:6], "big") / 2**48


def _cut(text: str, words: int) -> tuple[str, str]:
    """(text, finish): the whole text, or its first `words` words."""
    if len(text.split()) <= words:
        return text, "stop"
    return "".join(re.findall(r"\s*\S+", text)[:words]), "length"


@dataclass(frozen=True)
class Asked:
    """One request, and the draws that decide its answer."""

    known: tuple[Problem, str] | None  # and its reference; None: about no problem
    messages: Sequence[Message]
    model: SimModel
    draw: Callable[[str], float]  # what is drawn -> a number in [0, 1)

    @property
    def problem(self) -> Problem:
        """The problem that is meant. Raises RequestRejected where there is none."""
        if self.known is None:
            raise self.model.unknown(None)
        return self.known[0]

    @property
    def reference(self) -> str:
        """A right program. Raises RequestRejected where no problem is meant."""
        if self.known is None:
            raise self.model.unknown(None)
        return self.known[1]

    @functools.cached_property
    def texts(self) -> tuple[str, ...]:
        """What asks: system messages, which hold for the whole chat, then the newest first."""
        order = {"system": 0, "user": 1}
        asking = [m for m in reversed(self.messages) if m["role"] in order]
        return tuple(m["content"] for m in sorted(asking, key=lambda m: order[m["role"]]))

    @functools.cached_property
    def programs(self) -> tuple[str, ...]:
        """The programs that the newest message with any shows, in order."""
        name = self.problem.entry_point
        for text in self.texts:
            if found := tuple(b for b in fenced_blocks(text) if defines(b, name)):
                return found
        return ()

    def is_right(self, program: str) -> bool:
        return _same(program, code_block(_fenced(self.reference), self.problem.entry_point))

    def pick(self, label: str, count: int) -> int:
        """One of the positions below `count`, each as likely as any other."""
        return int(self.draw(label) * count)


def _answer(asked: Asked) -> str:
    """What the first form answers that the newest message with any form asks for."""
    for text in asked.texts:
        for wanted, answer in FORMS.items():
            if wanted.search(text):
                return answer(asked)
    return SENTENCES[asked.pick("sentence", len(SENTENCES))]


def _workflow(asked: Asked) -> str:
    """A workflow in three parts: modification, graph, prompt."""
    if asked.draw("broken") < asked.model.settings.broken:
        return BROKEN[asked.pick("workflow", len(BROKEN))]
    said = "\n".join(message["content"] for message in asked.messages)
    names = [name for name in WORKFLOWS if name not in said] or list(WORKFLOWS)
    name = names[asked.pick("workflow", len(names))]
    graph, prompts = WORKFLOWS[name]
    return (
        f"<modification>{name}</modification>\n<graph>\n{graph}</graph>\n"
        f"<prompt>\n{prompts}</prompt>"
    )


def _instruction(asked: Asked) -> str:
    """An instruction for whoever writes programs."""
    return f"<prompt>\n{SENTENCES[asked.pick('instruction', len(SENTENCES))]}\n</prompt>"


def _agent(asked: Asked) -> str:
    """An agent as ADAS describes it; one that is reflected on stays as it is."""
    said = "\n".join(message["content"] for message in asked.messages)
    before = [m["content"] for m in asked.messages if m["role"] == "assistant"]
    if before and "debug_thought" not in asked.texts[0]:
        return before[-1]
    if asked.draw("broken") < asked.model.settings.broken:
        name, code = "Broken", BROKEN_AGENTS[asked.pick("agent", len(BROKEN_AGENTS))]
    else:
        names = [name for name in AGENTS if name not in said] or list(AGENTS)
        name = names[asked.pick("agent", len(names))]
        code = AGENTS[name]
    return json.dumps({"thought": "Try another way.", "name": name, "code": code})


def _fields(asked: Asked) -> str:
    """One JSON object: a program in fields of code, a verdict in `correct`, else a sentence."""
    request = next(text for text in asked.texts if _JSON.search(text))
    found = {}
    for name in _JSON.findall(request)[-1].split(", "):
        if "code" in name:
            reply = (_best if "final one" in request else _rewrite)(asked)
            found[name] = code_block(reply, asked.problem.entry_point)
        elif name == "correct":
            found[name] = str(_review(asked).endswith(": correct"))
        else:
            found[name] = SENTENCES[asked.pick(name, len(SENTENCES))]
    return json.dumps(found)


def _flow(asked: Asked) -> str:
    """A workflow for one problem, as ScoreFlow has them."""
    broken = asked.draw("broken") < asked.model.settings.broken
    family = BROKEN_FLOWS if broken else FLOWS
    return f"<graph>\n{family[asked.pick('workflow', len(family))]}</graph>"


def _review(asked: Asked) -> str:
    """A verdict on the last program shown."""
    right = bool(asked.programs) and asked.is_right(asked.programs[-1])
    if asked.draw("judge") >= asked.model.settings.judge:
        right = not right
    if right:
        return "FEEDBACK: nothing\nVERDICT: correct"
    return "FEEDBACK: it returns a wrong value; solve the problem anew\nVERDICT: incorrect"


def _chosen(asked: Asked, programs: Mapping[str, str]) -> str:
    """The name of a right program with probability `judge`, else of a wrong one."""
    right = [name for name, program in programs.items() if asked.is_right(program)]
    wrong = [name for name in programs if name not in right]
    wanted = right if asked.draw("judge") < asked.model.settings.judge else wrong
    options = wanted or right or wrong
    return options[asked.pick("choice", len(options))]


def _choice(asked: Asked) -> str:
    """The letter of one of the programs shown."""
    programs = dict(_LETTERED.findall(asked.texts[0])) or {"A": ""}
    return f"CHOICE: {_chosen(asked, programs)}"


def _compare(asked: Asked) -> str:
    """Which of the two programs last shown is right, or a tie where both are, or neither."""
    shown = next((found for text in asked.texts if len(found := _LETTERED.findall(text)) == 2), [])
    right = [name for name, program in shown if asked.is_right(program)]
    truth = right[0] if len(right) == 1 else "tie"
    if asked.draw("judge") >= asked.model.settings.judge:
        others = [answer for answer in ("A", "B", "tie") if answer != truth]
        truth = others[asked.pick("verdict", len(others))]
    return f"BETTER: {truth}"


def _plan(asked: Asked) -> str:
    """A team of two and its plan (AutoAgents)."""
    names = ("analyst", "programmer")
    roles = [
        {"name": name, "description": f"A careful {name}.", "prompt": SENTENCES[i]}
        for i, name in enumerate(names)
    ]
    steps = [
        {"roles": ["programmer"], "task": "Write the program."},
        {"roles": list(names), "task": "Check the program and mend it."},
    ]
    return json.dumps({"roles": roles, "steps": steps})


def _suggest(asked: Asked) -> str:
    """That there is nothing to mend with probability `judge`, else a sentence."""
    content = asked.draw("judge") < asked.model.settings.judge
    return "NONE" if content else SENTENCES[asked.pick("sentence", len(SENTENCES))]


def _select(asked: Asked) -> str:
    """The last program shown, or else a sentence."""
    shown = asked.programs[-1:]
    return _fenced(shown[0]) if shown else SENTENCES[asked.pick("sentence", len(SENTENCES))]


def _turn(asked: Asked) -> str:
    """A role's words in a step: a program, and that the step is done."""
    return f"{_rewrite(asked)}\nSTATUS: final"


def _best(asked: Asked) -> str:
    """One of the programs shown, as a program."""
    programs = {program: program for program in asked.programs}
    return _fenced(_chosen(asked, programs)) if programs else _code(asked)


def _extract(asked: Asked) -> str:
    """The last program shown, as it is."""
    return _fenced(asked.programs[-1]) if asked.programs else _code(asked)


def _rewrite(asked: Asked) -> str:
    """The program shown when it is right, else a new draw."""
    if asked.programs and asked.is_right(asked.programs[-1]):
        return _fenced(asked.programs[-1])
    return _code(asked)


def _code(asked: Asked) -> str:
    """The reference with the problem's probability, else a wrong program of this draw's own."""
    if asked.draw("right") < asked.model.skill(asked.problem.problem_id):
        return _fenced(asked.reference)
    number = int(asked.draw("wrong") * 1e9) + 0.375
    return _fenced(WRONG.format(name=asked.problem.entry_point, number=number))


_LETTERED = re.compile(r"^([A-Z]{1,2}):\n```python\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
_JSON = re.compile(r"\bJSON object with exactly these fields: ([^\n]*)\.")

# What asks for a form of answer -> what gives it. The first that fits counts.
FORMS: dict[re.Pattern[str], Callable[[Asked], str]] = {
    re.compile(pattern, re.IGNORECASE): answer
    for pattern, answer in {
        r"\bJSON object that describes one agent\b": _agent,
        r"\bJSON object with exactly these fields: ": _fields,
        r"<modification>[\s\S]*<graph>": _workflow,
        r"\bthe code of the class in <graph> tags\b": _flow,
        r"\bthe new instruction between <prompt> and </prompt>": _instruction,
        r'"steps": \[\{"roles": \[': _plan,
        r"\bsuggestions, or with the one word NONE": _suggest,
        r"\bAnswer with what the next step needs\b": _select,
        r"\bSTATUS: final when the step is done": _turn,
        r"\bTake its work as advice\b[\s\S]*\bone Python code block": _best,
        r"\bBETTER: A, or BETTER: B, or BETTER: tie": _compare,
        r"\bone improved program: one Python code block": _best,
        r"\bVERDICT: correct, or VERDICT: incorrect": _review,
        r"\bone line: CHOICE: letter": _choice,
        r"\bCompare their final programs and answer with one Python code block": _best,
        r"\bExtract the final program\b[^\n]*\bone Python code block": _extract,
        r"\bRewrite this Python solution\b[^\n]*\bone Python code block": _rewrite,
        r"\bPython solution fails tests\b[^\n]*\bone Python code block": _rewrite,
        r"\bImprove this Python solution\b[^\n]*\bone Python code block": _rewrite,
        r"\bcode block\b": _code,
    }.items()
}

SENTENCES = (
    "Mind the empty input, a single element and repeated values.",
    "Read the examples first; they settle the order and the type of the result.",
    "Go through the input once and keep what has been seen so far.",
    "Check the bounds: zero, negative numbers and the largest value that is allowed.",
)

# A negative number with a fraction: it equals nothing that a test expects, is near to nothing, and
# has neither length nor elements.
WRONG = "def {name}(*values, **options):\n    return -len(options) - {number}\n"

_CALL = "class Workflow:\n    async def __call__(self, problem: str, entry_point: str):\n"
_END = ", self.llm.cost_manager.total_cost\n"
_DRAFT = """\
        {name} = await self.custom_code_generate(
            problem=problem, entry_point=entry_point, instruction={instruction}
        )
"""
WORKFLOWS: dict[str, tuple[str, str]] = {  # modification -> (graph, prompts)
    "Review the draft and revise it when the review finds a fault.": (
        _CALL
        + _DRAFT.format(name="draft", instruction='""')
        + """\
        found = await self.review(problem=problem, solution=draft["response"])
        if found["review_result"]:
            return draft["response"]"""
        + _END
        + """\
        better = await self.revise(
            problem=problem, solution=draft["response"], feedback=found["feedback"]
        )
        return better["solution"]"""
        + _END,
        "",
    ),
    "Write three programs and choose the most consistent one.": (
        _CALL
        + """\
        programs = []
        for way in ("Be direct.", "Be careful with edge cases.", "Prefer plain loops."):
            draft = await self.custom_code_generate(
                problem=problem, entry_point=entry_point, instruction=way
            )
            programs.append(draft["response"])
        best = await self.sc_ensemble(solutions=programs, problem=problem)
        return best["response"]"""
        + _END,
        "",
    ),
    "Run the tests on the draft and repair it until they pass.": (
        _CALL
        + _DRAFT.format(name="draft", instruction='""')
        + """\
        tested = await self.test(
            problem=problem, solution=draft["response"], entry_point=entry_point
        )
        return tested["solution"]"""
        + _END,
        "",
    ),
    "Ask for a plan first, so that the program follows it.": (
        _CALL
        + """\
        plan = await self.custom(input=problem, instruction=prompt_custom.PLAN)
"""
        + _DRAFT.format(name="draft", instruction='plan["response"]')
        + '        return draft["response"]'
        + _END,
        'PLAN = """Plan a solution of this problem in three sentences. Write no program."""\n',
    ),
    "Write two programs, and take the second when the first fails a test.": (
        _CALL
        + _DRAFT.format(name="first", instruction='"Be direct."')
        + """\
        tested = await self.test(
            problem=problem, solution=first["response"], entry_point=entry_point, test_loop=0
        )
        if tested["result"] is not False:
            return first["response"]"""
        + _END
        + _DRAFT.format(name="second", instruction='"Take another way than the obvious one."')
        + '        return second["response"]'
        + _END,
        "",
    ),
}
BROKEN = (
    "<modification>Say less.</modification>",
    "<modification>Leave a bracket open.</modification>\n<graph>\n"
    f"{_CALL}        return (\n</graph>\n<prompt>\n</prompt>",
    "<modification>Call an operator that there is not.</modification>\n<graph>\n"
    f"{_CALL}        return await self.oracle(problem=problem){_END}</graph>\n<prompt>\n</prompt>",
)

_RUN = "class Workflow:\n    async def run_workflow(self):\n"
FLOWS = (  # as ScoreFlow has them: operators that know their problem
    f"""{_RUN}        draft = await self.custom_code_generate(instruction="Be direct.")
        return draft["response"]
""",
    f"""{_RUN}        draft = await self.custom_code_generate(instruction="Mind the edge cases.")
        tested = await self.test(solution=draft["response"])
        return tested["solution"]
""",
    f"""{_RUN}        drafts = []
        for way in ("Be direct.", "Mind the edge cases.", "Prefer plain loops."):
            drafts.append(await self.custom_code_generate(instruction=way))
        best = await self.sc_ensemble(solutions=drafts)
        return best["response"]
""",
)
BROKEN_FLOWS = (
    f"{_RUN}        return (\n",
    f"{_RUN}        await self.custom_code_generate(instruction='Be direct.')\n",
    f"{_RUN}        return await self.oracle()\n",
)

_FORWARD = """\
def forward(self, taskInfo):
    solver = LLMAgentBase(['thinking', 'code'], 'Solver')
"""
AGENTS: dict[str, str] = {  # as ADAS has them: name -> code
    "Second try": _FORWARD
    + """\
    thinking, code = solver([taskInfo], 'Write the program.')
    told, passed, total = self.run_examples(code)
    if passed < total:
        notes = Info('feedback', 'examples', told, 0)
        thinking, code = solver([taskInfo, code, notes], 'Write a better program.')
    return code
""",
    "Three and a judge": _FORWARD
    + """\
    with ThreadPoolExecutor(3) as pool:
        drafts = list(pool.map(lambda i: solver([taskInfo], 'Write the program.', i), range(3)))
    judge = LLMAgentBase(['code'], 'Judge')
    return judge([taskInfo] + drafts, 'Weigh the programs, then write the final one.')[0]
""",
    "Plan first": _FORWARD
    + """\
    plan = LLMAgentBase(['plan'], 'Planner')([taskInfo], 'Plan the program.')[0]
    return solver([taskInfo, plan], 'Follow the plan.')[1]
""",
}
BROKEN_AGENTS = (
    "",
    "def forward(self, taskInfo:\n    return taskInfo\n",
    _FORWARD
    + "    thinking, code = solver([taskInfo], 'Write the program.')\n    return program\n",
)


def _fenced(program: str) -> str:
    """A reply that holds the program, in a fence that the program itself does not have."""
    mark = "~~~~" if "```" in program else "```"
    return f"{mark}python\n{program.strip(chr(10))}\n{mark}"


def _same(one: str, other: str) -> bool:
    """Whether two programs are one: equal syntax trees, comments and layout aside."""
    if one.strip() == other.strip():
        return True
    try:
        return ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
