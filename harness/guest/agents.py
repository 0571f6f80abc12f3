"""Runs one model-written agent; every question to a model in it is a request to the harness.

Accepts what the meta-agents of ADAS write (Hu et al. 2024, arXiv:2408.08435): one function
`forward(self, taskInfo)`, plain or async, alone or inside a class, over `Info` and `LLMAgentBase`,
with `self.run_examples(code)`. Requests are served by an event loop in a thread of its own, so that
an agent's calls may block, in a pool of threads too. Its task text is what came as `prompts`.
"""

import asyncio
import collections
import concurrent.futures
import contextlib
import copy
import importlib
import inspect
import itertools
import json
import math
import random
import re
import sys
import threading
import traceback
import types

sys.path.insert(0, __file__.rpartition("/")[0])
import wire
from workflow import Failed, Link, plain

FILE = "<agent>"
STACK_BYTES = 1 << 20  # of each thread
M_ARENA_MAX = -8  # mallopt(3): how many threads get 64 MB of addresses each, else all but a few


class Info(collections.namedtuple("Info", "name author content iteration_idx")):
    """One piece of what agents tell each other; as text, it is its content."""

    __slots__ = ()

    def __str__(self):
        return str(self.content)


class Answers(list):
    """What an agent answered, one Info for each output field. It may be awaited."""

    __hash__ = object.__hash__  # asyncio.gather wants it

    def __await__(self):
        return self
        yield


def told(inputs):
    """Inputs as rows [name, author, content, iteration]: an Info, a text, or lists of them."""
    if isinstance(inputs, Info):
        name, author, content, iteration = inputs
        number = iteration if isinstance(iteration, int) else -1
        return [[str(name), str(author), plain(content), number]]
    if inputs is None:
        return []
    if isinstance(inputs, list | tuple | set | types.GeneratorType):
        return [row for one in inputs for row in told(one)]
    return [["text", "", plain(inputs), -1]]


def names(link, loop):
    """The names that an agent finds without importing them, and the `self` of `forward`."""

    def ask(operator, **keywords):
        call = link.call(operator, [], keywords)
        return asyncio.run_coroutine_threadsafe(call, loop).result()

    made, lock = collections.Counter(), threading.Lock()

    class LLMAgentBase:
        def __init__(
            self,
            output_fields,
            agent_name="Agent",
            role="helpful assistant",
            model=None,
            temperature=None,
        ):
            several = not isinstance(output_fields, str)
            self.output_fields = [str(f) for f in output_fields] if several else [output_fields]
            self.agent_name, self.role = str(agent_name), str(role)
            self.model, self.temperature = model, temperature
            with lock:  # a number, not a random id: equal runs ask equal questions
                made[self.agent_name] += 1
                self.id = made[self.agent_name]

        def __repr__(self):
            return f"{self.agent_name} {self.id}"

        def query(self, input_infos=(), instruction="", iteration_idx=-1):
            found = ask(
                "agent",
                output_fields=self.output_fields,
                agent_name=repr(self),
                role=self.role,
                inputs=told(input_infos),
                instruction=str(instruction),
                iteration=iteration_idx,
                model=self.model,
                temperature=self.temperature,
            )
            pairs = zip(self.output_fields, found["values"], strict=True)
            return Answers(Info(name, repr(self), text, iteration_idx) for name, text in pairs)

        def __call__(self, *positional, **keywords):
            return self.query(*positional, **keywords)

    class AgentSystem:
        def run_examples(self, code):
            found = ask("run_examples", code=str(code))
            return found["feedback"], found["passed"], found["total"]

    modules = (asyncio, collections, copy, itertools, json, math, random, re)
    found = {
        **{module.__name__: module for module in modules},
        "Counter": collections.Counter,
        "ThreadPoolExecutor": concurrent.futures.ThreadPoolExecutor,
        "Info": Info,
        "LLMAgentBase": LLMAgentBase,
    }
    return found, AgentSystem()


def load(code, found):
    """The function `forward`. Raises Failed."""
    module = types.ModuleType("agent")
    vars(module).update(found)
    before = set(vars(module))
    try:
        exec(compile(code, FILE, "exec", dont_inherit=True), vars(module))
        forward = vars(module).get("forward")
        if forward is None:
            own = [value for name, value in vars(module).items() if name not in before]
            holders = [one for one in own if isinstance(one, type) and hasattr(one, "forward")]
            forward = holders[-1].forward if holders else None
        if not callable(forward):
            raise NameError("no function forward(self, taskInfo) is defined")
    except BaseException as error:
        raise Failed("load", error, FILE) from error
    return forward


def answer(found):
    """The text of what `forward` returned: of an Info its content, of several the code's."""
    if isinstance(found, list | tuple) and not isinstance(found, Info):
        several = [one for one in found if isinstance(one, Info)]
        if not several and found and isinstance(found[0], str):
            return found[0]
        code = [one for one in several if one.name == "code"]
        found = (code or several or [found])[-1]
    if isinstance(found, Info):
        found = found.content
    if found is None:
        raise ValueError("forward returned None: return an Info or a text")
    if not isinstance(found, str):
        kind = type(found).__name__
        raise TypeError(f"forward returned {kind}: return an Info or a text")
    return found


def solve(link, loop, work):
    """The agent's answer as text. Raises Failed."""
    found, system = names(link, loop)
    forward = load(work["code"], found)
    try:
        task = Info("task", "User", work["prompts"], -1)
        alone = "self" not in inspect.signature(forward).parameters
        made = forward(task) if alone else forward(system, task)
        if inspect.iscoroutine(made):
            made = asyncio.run(made)
        return str(answer(made))
    except BaseException as error:
        raise Failed("run", error, FILE) from error


def share_memory():
    """Let many threads fit into the memory that an agent may have."""
    threading.stack_size(STACK_BYTES)
    with contextlib.suppress(ImportError, AttributeError, OSError):  # another C library
        ctypes = importlib.import_module("ctypes")
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def main():
    channel = wire.start()
    share_memory()
    _, payload = channel.receive()
    work = json.loads(payload)
    loop, link = asyncio.new_event_loop(), Link(channel)
    threading.Thread(target=loop.run_forever, daemon=True).start()
    link.listen(loop)
    random.seed(0)  # what an agent draws is the same in every run
    try:
        kind, fact = wire.ANSWER, {"answer": solve(link, loop, work)}
    except Failed as failed:
        error = failed.error
        traceback.clear_frames(error.__traceback__)  # they may hold all the memory there is
        try:
            message = error.msg if isinstance(error, SyntaxError) else str(error)[:500]
        except Exception:  # noqa: BLE001 - a hostile __str__
            message = "<no message>"
        fact = {"stage": failed.stage, "class": type(error).__name__, "message": message}
        kind, fact = wire.ERROR, {**fact, "line": failed.line}

    async def tell():  # from where requests are sent: threads that are left may still ask
        channel.send(kind, json.dumps(fact).encode())

    asyncio.run_coroutine_threadsafe(tell(), loop).result()
