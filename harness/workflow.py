"""Model-written workflow code, run in the sandbox, its operators answered from here.

The contract is AFlow's and FlowReasoner's (arXiv:2504.15257, figures 5 to 11): a class `Workflow`
with `async __call__` that takes any of `problem`, `entry_point`, `test_cases` and returns a text, a
dictionary or (text, cost); or ScoreFlow's, with `async run_workflow`; or ADAS's function `forward`
(contract `agent`). The guest (`guest/workflow.py`, `guest/agents.py`) holds neither keys nor tests
nor models; each operator call is a request that is answered here.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Protocol

from harness.errors import RequestRejected, WorkflowError
from harness.guest import wire
from harness.sandbox import Guest, GuestGone, Limits, Sandbox
from harness.types import Contract, Operator, Problem, WorkflowLimits, WorkflowRun

NODE: ContextVar[Mapping[str, Any]] = ContextVar("NODE", default=MappingProxyType({}))
# what a call record says of the workflow's node that made it: {"operator", "output_format"}
GUESTS: Mapping[Contract, str] = {"workflow": "workflow", "agent": "agents"}
TICK_S = 1.0  # how often the time limit is looked at while operators are being answered
MESSAGE_BYTES = 1 << 20  # of an operator call or answer: reading a program of 1 MB takes seconds
FORM_CHARS = 200  # of an output_format, in the ledger
STAGES = ("load", "run")  # that a workflow may tell of; "limit" is for us to say
CLASS_CHARS, ERROR_CHARS, MOST_LINES = 80, 500, 1_000_000  # of what it tells of its error
# what an operator raises over arguments that make no sense to it
_MISUSE = (TypeError, KeyError, ValueError, OverflowError, AttributeError, RecursionError)


class _Watch(Protocol):
    @property
    def here_s(self) -> float: ...


class _Asker(Protocol):
    problem: Problem

    @property
    def stopwatch(self) -> _Watch: ...  # does not run while the sample waits for a model

    def is_greedy(self, role: str = "worker") -> bool: ...

    async def ask(self, messages: Any, role: str = "worker", **sampling: Any) -> Any: ...


class _Counted:
    """A context for operators that counts what this workflow asks of models, up to its limits.

    Tokens that a provider does not report count nothing: the limit of calls holds for those.
    """

    def __init__(self, context: Any, limits: WorkflowLimits) -> None:
        self._context, self._limits = context, limits
        self.calls = self.tokens = 0
        self.sampled = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def ask(self, messages: Any, role: str = "worker", **sampling: Any) -> Any:
        if self.calls >= self._limits.calls:
            most = self._limits.calls
            raise WorkflowError("limit", "CallLimit", f"more than {most} model calls")
        if self.tokens >= self._limits.tokens:
            most = self._limits.tokens
            raise WorkflowError("limit", "TokenLimit", f"its {most} tokens are used up")
        self.calls += 1
        drawn = sampling.get("temperature", 0) > 0
        self.sampled = self.sampled or drawn or not self._context.is_greedy(role)
        completion = await self._context.ask(messages, role, **sampling)
        self.tokens += (completion.prompt_tokens or 0) + (completion.completion_tokens or 0)
        return completion


async def execute(
    sandbox: Sandbox,
    context: _Asker,
    code: str,
    prompts: str,
    *,
    operators: Mapping[str, Operator],
    test_cases: Sequence[str] = (),
    contract: Contract = "workflow",
    limits: WorkflowLimits | None = None,
) -> WorkflowRun:
    """Run one workflow on the context's problem. Whatever it does wrong comes back as data.

    Raises SandboxError (our side), ModelRefused and BudgetReached (the run's end), ModelUnavailable
    (the provider's fault, not the workflow's).
    """
    limits = limits or WorkflowLimits()
    counted = _Counted(context, limits)
    called: list[str] = []
    problem = context.problem
    work = {
        "code": code,
        "prompts": prompts,
        "operators": sorted(operators),
        "inputs": {
            "problem": problem.prompt,
            "entry_point": problem.entry_point,
            "test_cases": list(test_cases),
        },
    }
    guest_limits = Limits(cpu_s=int(limits.own_s) + 2, memory_mb=limits.memory_mb, file_mb=16)
    try:
        async with sandbox.start(GUESTS[contract], guest_limits) as guest:
            await guest.send(wire.LOAD, json.dumps(work).encode())
            answer = await _serve(guest, counted, operators, called, limits)
    except WorkflowError as error:
        kind = f"{error.stage}:{error.error_class}"
        return WorkflowRun(None, counted.calls, str(error), kind, tuple(called), counted.sampled)
    except GuestGone as gone:
        message = f"run: the workflow's process ended ({gone.detail})"
        kind = f"run:{gone.reason}"
        return WorkflowRun(None, counted.calls, message, kind, tuple(called), counted.sampled)
    return WorkflowRun(answer, counted.calls, operators=tuple(called), sampled=counted.sampled)


async def _serve(
    guest: Guest,
    context: _Counted,
    operators: Mapping[str, Operator],
    called: list[str],
    limits: WorkflowLimits,
) -> str:
    """Answer operator calls until the workflow's answer comes. Raises WorkflowError, GuestGone."""
    answering: set[asyncio.Task[None]] = set()
    slots = asyncio.Semaphore(limits.at_once)
    began_s: float = context.stopwatch.here_s
    own_s, resumed = 0.0, time.monotonic()
    incoming = asyncio.ensure_future(guest.receive())
    try:
        while True:
            if context.stopwatch.here_s - began_s > limits.total_s:
                raise WorkflowError("limit", "TimeLimit", f"more than {limits.total_s:g} s in all")
            left = limits.own_s - own_s - (time.monotonic() - resumed)
            if not answering and left <= 0:
                raise WorkflowError(
                    "limit", "TimeLimit", f"more than {limits.own_s:g} s of its own"
                )
            done, _ = await asyncio.wait(
                {incoming, *answering},
                timeout=TICK_S if answering else left,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done & answering:
                answering.discard(task)
                if task.exception() is not None:  # a provider's or our own ends the workflow here
                    # the others are paid for, and meet what stops the run at their next call
                    await asyncio.gather(*answering, return_exceptions=True)
                    task.result()
                if not answering:
                    resumed = time.monotonic()
            if incoming not in done:
                continue
            message = _message(*incoming.result())
            if "answer" in message:
                return message["answer"]  # type: ignore[no-any-return]
            if len(called) >= limits.operator_calls:
                most = limits.operator_calls
                raise WorkflowError("limit", "CallLimit", f"more than {most} operator calls")
            if not answering:
                own_s += time.monotonic() - resumed
            called.append(message["operator"][:CLASS_CHARS])
            answering.add(asyncio.create_task(_answer(guest, context, operators, message, slots)))
            incoming = asyncio.ensure_future(guest.receive())
    finally:
        for task in (incoming, *answering):
            task.cancel()
        await asyncio.gather(incoming, *answering, return_exceptions=True)


def _message(kind: bytes, payload: bytes) -> dict[str, Any]:
    """What a frame says: an answer or an operator call. Raises WorkflowError on all else.

    The workflow shares its process with the program that writes frames, so a frame can hold
    anything.
    """
    if len(payload) > MESSAGE_BYTES:
        told = f"a call or answer of {len(payload)} bytes, {MESSAGE_BYTES} allowed"
        raise WorkflowError("limit", "TooLong", told)
    try:
        message = json.loads(payload)
        if kind == wire.ANSWER:
            return {"answer": str(message["answer"])}
        if kind == wire.ERROR:
            stage, line = message["stage"], message["line"]
            raise WorkflowError(
                stage if stage in STAGES else "run",
                _line(message["class"], CLASS_CHARS),
                _line(message["message"], ERROR_CHARS),
                line if isinstance(line, int) and 0 < line < MOST_LINES else None,
            )
        if kind == wire.REQUEST:
            arguments = message["arguments"]
            positional, keywords = arguments["positional"], arguments["keywords"]
            if isinstance(positional, list) and isinstance(keywords, dict):
                return {
                    "id": int(message["id"]),
                    "operator": str(message["operator"]),
                    "positional": positional,
                    "keywords": keywords,
                }
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise WorkflowError("run", "BadFrame", f"{type(error).__name__} in a frame") from error
    raise WorkflowError("run", "BadFrame", f"a frame of kind {kind!r}")


def _line(told: Any, most: int) -> str:
    """What is told as one line of at most so many characters."""
    return " ".join(str(told).split())[:most]


async def _answer(
    guest: Guest,
    context: _Counted,
    operators: Mapping[str, Operator],
    request: dict[str, Any],
    slots: asyncio.Semaphore,
) -> None:
    """Answer one operator call. A misuse goes back as an exception that the workflow may catch."""
    name = request["operator"]
    number = {"id": request["id"]}
    try:
        if name not in operators:
            raise AttributeError(f"no such operator; there are {', '.join(operators)}")
        operator = operators[name]
        arguments = _fitting(operator, request["positional"], request["keywords"])
        form = str(arguments.get("output_format") or "")[:FORM_CHARS]
        NODE.set({"operator": name, "output_format": form or None})  # this task's own
        async with slots:
            result = await operator(context, **arguments)
        reply = json.dumps({**number, "result": result})
    except RequestRejected as error:  # a prompt that the workflow made too long, say
        reply = _refusal(number, "RuntimeError", f"{name}: {error}")
    except WorkflowError as error:
        if error.stage == "limit":
            raise
        reply = _refusal(number, error.error_class, error.detail)
    except _MISUSE as error:
        reply = _refusal(number, type(error).__name__, f"{name}: {error}")
    if len(reply) > wire.FRAME_MB << 20:
        raise WorkflowError("limit", "TooLong", f"{name}: its result is too long")
    await guest.send(wire.REPLY, reply.encode())


def _refusal(number: Mapping[str, int], error_class: str, message: str) -> str:
    """A reply that raises inside the workflow."""
    return json.dumps({**number, "error": {"class": error_class, "message": message}})


def _fitting(operator: Operator, positional: list[Any], keywords: dict[str, Any]) -> dict[str, Any]:
    """Positional arguments by name. Keywords that the operator does not know are left out."""
    parameters = dict(inspect.signature(operator).parameters)
    parameters.pop("ctx", None)
    names = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(positional) > len(names):
        raise TypeError(f"takes {len(names)} arguments ({', '.join(names)})")
    given = dict(zip(names, positional, strict=False))
    free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = {k: v for k, v in keywords.items() if k in parameters or (free and k != "ctx")}
    return {**given, **known}
