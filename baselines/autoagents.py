"""AutoAgents: a planner invents a team and a plan, observers criticise, the team carries it out.

Chen et al. 2023, arXiv:2309.17288, section 3; loops and limits of the release. Differs from the
release: observers count by what they say of this draft (there an old "no suggestions" still ends
later rounds); roles stand in a step by their whole name (there by a part of it); the action
observer is asked before every step but the first, when nothing has been found yet (there its call
is commented out); a finaliser who is always last writes the program, in place of the language
expert. A reply that holds no such plan is told why; after two of them the team is that of an
earlier draft, or else a fixed one: analyst, programmer, reviewer. Nobody searches the web or writes
files, and no code is run, which is L0; with `run_examples` every program that a role shows is run
on the examples, which is L1. A step hands on each role's last words in it. When the finaliser
writes no program, or its request is rejected, the last one that a role wrote is the answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from baselines.operators import SOLVE
from harness.errors import RequestRejected
from harness.extract import code_block, strip_reasoning
from harness.types import Context, Level, Method, Problem, Sampling, Solution

PLAN = (
    "You plan the work of a team of experts on a problem that asks for a Python function "
    "`{entry_point}`. Choose at most {max_roles} roles that this very problem needs, each with its "
    "own field, and write a plan of at most {max_steps} steps: who does what, in order. They can "
    "think and write, and have no other tool. Someone else puts the final program together.\n\n"
    "Problem:\n{prompt}\n\n{before}Answer with one JSON object of this form:\n"
    '{{"roles": [{{"name": "...", "description": "what it is good at", "prompt": "how it works"}}],'
    ' "steps": [{{"roles": ["name of a role"], "task": "what is done"}}]}}'
)
OBSERVE = (
    "You check {what} that a planner has drafted for a problem. {questions}\n\nProblem:\n{prompt}"
    "\n\nDraft:\n{draft}\n\nYour suggestions so far:\n{history}\n\nRepeat no suggestion that the "
    "draft meets. Answer with a short list of suggestions, or with the one word NONE."
)
TEAM_QUESTIONS = (
    "Is any role missing, needless, or the same as another? Does each prompt say what its role "
    "has to do?"
)
PLAN_QUESTIONS = (
    "Do the steps, in this order, lead to a correct program? Is each done by the right roles, and "
    "is nothing done twice?"
)
SELECT = (
    "A team works on a problem step by step. From what it has found so far, extract all that the "
    "next step needs, word for word where it is code; leave out the rest.\n\nProblem:\n{prompt}\n\n"
    "Found so far:\n{memory}\n\nNext step: {task}\n\nAnswer with what the next step needs, nothing "
    "else."
)
ACT = (
    "You are {name}. {role}\n\nThe team works on this problem:\n{prompt}\n\n"
    "Step: {task}\n\nFrom earlier steps:\n{given}\n\nSaid in this step:\n{said}\n\nDo your part of "
    "this step; show a program in one Python code block. {last}End with one line: STATUS: final "
    "when the step is done, or STATUS: continue."
)
LAST = "This is the last turn of the step: bring together what was said and give its result. "
FINALISE = "A team has worked on this problem:\n\n{memory}\n\nTake its work as advice.\n\n" + SOLVE

_NONE = re.compile(
    r"\W*(suggestions?\W+)?(none|no (further |more )?suggestions?)\W*", re.IGNORECASE
)
_STATUS = re.compile(r"STATUS:\W*(final|continue)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Plan:
    """A team, and what it does step by step."""

    roles: Mapping[str, str]  # name -> what it is and how it works
    steps: tuple[tuple[tuple[str, ...], str], ...]  # (names of roles, task)

    def team(self) -> str:
        return "\n".join(f"- {name}: {what}" for name, what in self.roles.items())

    def text(self) -> str:
        steps = (f"{i}. {', '.join(who)}: {task}" for i, (who, task) in enumerate(self.steps, 1))
        return "\n".join((self.team(), *steps))


FALLBACK = Plan(
    {
        "analyst": "Reads problems closely. Say what is asked, and list the edge cases.",
        "programmer": "Writes Python. Write the complete function.",
        "reviewer": "Finds faults. Go through the program by hand on the edge cases.",
    },
    (
        (("analyst",), "Work out what the function has to do, edge cases included."),
        (("programmer",), "Write the complete program."),
        (("reviewer", "programmer"), "Find what is wrong with the program and mend it."),
    ),
)


async def solve(
    problem: Problem,
    ctx: Context,
    *,
    drafts: int = 3,
    max_roles: int = 5,
    max_steps: int = 6,
    sub_rounds: int = 5,
    run_examples: bool = False,
) -> Solution:
    """Return the finaliser's program. In a step each role speaks at most `sub_rounds` times."""
    fields = {"entry_point": problem.entry_point, "prompt": problem.prompt}
    limits = {"max_roles": max_roles, "max_steps": max_steps}
    plan = await _draft(ctx, drafts, limits)
    memory: list[str] = []
    program = ""
    for number, (names, task) in enumerate(plan.steps, 1):
        given = "nothing"
        if memory:
            found = "\n\n".join(memory)
            reply = await ctx.ask(SELECT.format(memory=found, task=task, **fields))
            given = strip_reasoning(reply.text).strip() or given
        said: list[str] = []
        latest: dict[str, str] = {}
        for turn in range(1, sub_rounds + 1):
            finals = []
            for name in names:
                so_far = "\n\n".join(said) or "nothing"
                step = {"name": name, "role": plan.roles[name], "task": task, "given": given}
                last = LAST if turn == sub_rounds else ""
                reply = await ctx.ask(ACT.format(said=so_far, last=last, **step, **fields))
                latest[name], final = parse_turn(reply.text)
                finals.append(final)
                said.append(f"{name}:\n{latest[name]}")
                if code := code_block(latest[name], problem.entry_point):
                    program = code
                    said += await _try(ctx, code) if run_examples else ()
            if all(finals):
                break
        words = "\n\n".join(f"{name}:\n{words}" for name, words in latest.items())
        memory.append(f"Step {number}: {task}\n\n{words}")
    try:
        reply = await ctx.ask(FINALISE.format(memory="\n\n".join(memory), **fields))
    except RequestRejected as error:  # all that was found may be too long for its context
        if not program:
            raise
        ctx.note("rejected", step="finaliser", error=str(error))
        return Solution(program)
    return Solution(code_block(reply.text, problem.entry_point) or program)


async def _draft(ctx: Context, drafts: int, limits: Mapping[str, int]) -> Plan:
    """The team and plan that both observers agree to, or the last ones drafted."""
    problem, plan, failed, notes = ctx.problem, None, 0, ""
    fields = {"entry_point": problem.entry_point, "prompt": problem.prompt}
    observers: tuple[tuple[str, str, list[str]], ...] = (
        ("the team", TEAM_QUESTIONS, []),
        ("the plan", PLAN_QUESTIONS, []),
    )
    for _ in range(drafts):
        before = f"Your draft:\n{plan.text()}\n\n" if plan else ""
        before += f"Improve on it:\n{notes}\n\n" if notes else ""
        reply = await ctx.ask(PLAN.format(before=before, **limits, **fields))
        try:
            plan = parse_plan(reply.text, **limits)
        except ValueError as error:
            failed += 1
            if failed == 2:
                break
            notes = f"{notes}\nYour last answer was not such an object: {error}.".strip()
            continue
        now: list[str] = []
        for what, questions, history in observers:
            text = OBSERVE.format(
                what=what,
                questions=questions,
                draft=plan.team() if what == "the team" else plan.text(),
                history="\n".join(history) or "none",
                **fields,
            )
            if words := parse_suggestions((await ctx.ask(text)).text):
                history.append(words)
                now.append(words)
        if not now:
            break
        notes = "\n".join(now)
    ctx.note(
        "plan",
        failed_drafts=failed,
        fallback=plan is None,
        texts={"plan": (plan or FALLBACK).text()},
    )
    return plan or FALLBACK


def parse_plan(reply: str, *, max_roles: int, max_steps: int) -> Plan:
    """The last plan in a reply, without steps beyond the most. Raises ValueError: what is wrong."""
    found = [one for one in _objects(strip_reasoning(reply)) if {"roles", "steps"} <= set(one)]
    if not found:
        raise ValueError("it holds no JSON object with roles and steps")
    roles: dict[str, str] = {}
    steps: list[tuple[tuple[str, ...], str]] = []
    try:
        for role in found[-1]["roles"]:
            name, *what = (role[key].strip() for key in ("name", "description", "prompt"))
            if not name or name in roles:
                raise ValueError(f"{name!r} is no name, or two roles have it")
            roles[name] = " ".join(f"{text.rstrip('.')}." for text in what)
        for step in found[-1]["steps"]:
            who = [step["roles"]] if isinstance(step["roles"], str) else step["roles"]
            steps.append((tuple(dict.fromkeys(name.strip() for name in who)), step["task"].strip()))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("a role or a step lacks a field, or has one that is no text") from error
    if not 1 <= len(roles) <= max_roles:
        raise ValueError(f"it has {len(roles)} roles, not 1 to {max_roles}")
    if not steps or not all(who and task for who, task in steps):
        raise ValueError("it has no step, or one without a role or a task")
    if unknown := [name for who, _ in steps for name in who if name not in roles]:
        raise ValueError(f"a step is done by {unknown[0]!r}, which is no role")
    return Plan(roles, tuple(steps[:max_steps]))


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects in a text, those inside another left out."""
    decoder, start, found = json.JSONDecoder(strict=False), text.find("{"), []
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
            found.append(value)
        except (ValueError, RecursionError):
            end = start + 1
        start = text.find("{", end)
    return found


def parse_suggestions(reply: str) -> str:
    """An observer's suggestions; empty when its first or last line says that there are none."""
    text = strip_reasoning(reply).strip()
    lines = text.splitlines()
    return "" if any(_NONE.fullmatch(line) for line in (*lines[:1], *lines[-1:])) else text


def parse_turn(reply: str) -> tuple[str, bool]:
    """(what a role says, whether it is done with the step); without a status line it goes on.

    A line that names both is an echo of the request, and no status.
    """
    said: list[str] = []
    done = False
    for line in strip_reasoning(reply).splitlines():
        found = list(_STATUS.finditer(line))
        said.append(line[: found[0].start()].rstrip() if found else line)
        words = {one.group(1).lower() for one in found}
        if len(words) == 1:
            done = words == {"final"}
    return "\n".join(said).strip(), done


async def _try(ctx: Context, code: str) -> list[str]:
    """What a program does on the examples, as said in the step; empty when there are none."""
    feedback = await ctx.run_feedback(code)
    if feedback.score is None:
        return []
    failures = "".join(f"\n{error}" for error in feedback.errors)
    return [f"Examples: the program passes {feedback.passed} of {feedback.total}.{failures}"]


def _calls(knobs: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Few: one draft, three steps of one role that speaks once. Many: all drafts and all steps,
    each with as many turns as one role may have."""
    few = 3 * min(1, knobs["drafts"]) + 2 * min(3, knobs["max_steps"])
    many = 3 * knobs["drafts"] + knobs["max_steps"] * (1 + knobs["sub_rounds"])
    return {"worker": (few, many)}


METHOD = Method(
    name="autoagents",
    solve=solve,
    summary="an invented team carries out an invented plan (Chen et al. 2023)",
    level=Level.L1,
    calls=_calls,
    sampling={"worker": Sampling(temperature=0.3, max_tokens=1500)},
    bounds={"drafts": (0, 20), "max_roles": (1, 20), "max_steps": (1, 20), "sub_rounds": (1, 20)},
    paper={
        "drafts": "3 (paper and release)",
        "max_roles": "no limit (release)",
        "max_steps": "no limit (release)",
        "sub_rounds": "5 (paper and release)",
        "run_examples": "no code is run (release)",
    },
    level_of=lambda knobs: Level.L1 if knobs["run_examples"] else Level.L0,
)
