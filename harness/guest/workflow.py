"""Runs one model-written workflow; every operator call is a request to the harness.

Accepts what meta-agents write (figures 5 to 11 of arXiv:2504.15257, AFlow's and ScoreFlow's files):
with or without `__init__`, `__call__` or `run_workflow`, any subset of `problem`, `entry_point`,
`test_cases` as arguments or as free names, `prompt_custom.NAME` read or assigned,
`operator.Custom(self.llm)`, results used as dictionaries or as text.
"""

import asyncio
import collections.abc
import importlib.abc
import importlib.machinery
import inspect
import itertools
import json
import logging
import sys
import threading
import types
import typing

sys.path.insert(0, __file__.rpartition("/")[0])
import wire

# AFlow's spelling of the operators -> ours
CLASSES = {
    "Custom": "custom",
    "CustomCodeGenerate": "custom_code_generate",
    "ScEnsemble": "sc_ensemble",
    "Test": "test",
    "Review": "review",
    "Revise": "revise",
    "Format": "format",
}
# imports that AFlow's and ScoreFlow's files begin with
FOREIGN = ("metagpt", "workspace", "scripts", "examples", "optimized", "ScoreFlow")
PACKAGE = "workspace.workflows.round_1"  # where a workflow file lies, for `from . import prompt`
VIEWS = collections.abc.MappingView | collections.abc.Iterator  # of a dictionary; a generator
TEXT_KEYS = ("response", "solution", "code", "answer", "result", "text", "output")


class Result(str):
    """An operator's result: its text, which is also the dictionary that AFlow's operators give.

    A text by nature, so that `json.loads`, `re` and `join` take it; `isinstance` also says dict.
    """

    def __new__(cls, fields):
        made = super().__new__(cls, text_of(fields))
        made.fields = dict(fields)
        return made

    @property
    def __class__(self):
        return dict

    def __str__(self):
        return text_of(self.fields)

    def __reduce__(self):
        return Result, (self.fields,)

    def __getitem__(self, key):
        if not isinstance(key, str):
            return super().__getitem__(key)
        if key in self.fields:
            return self.fields[key]
        if key in TEXT_KEYS:
            return str(self)
        raise KeyError(key)

    def __setitem__(self, key, value):
        self.fields[key] = value

    def __getattr__(self, name):
        fields = vars(self).get("fields", {})
        if name in fields or name in TEXT_KEYS:
            return self[name]
        if hasattr(dict, name):  # keys, items, update, ...
            return getattr(fields, name)
        raise AttributeError(f"an operator's result has no attribute {name!r}")

    def get(self, key, default=None):
        missing = default is None or default == ""
        return self[key] if key in self.fields or (missing and key in TEXT_KEYS) else default

    def __contains__(self, item):
        return item in self.fields or (isinstance(item, str) and item in str(self))

    def __bool__(self):
        return bool(str(self)) or any(key not in TEXT_KEYS for key in self.fields)

    def __eq__(self, other):
        if type(other) is dict:
            return self.fields == other
        return super().__eq__(other)

    def __ne__(self, other):
        return not self == other

    __hash__ = str.__hash__

    def __add__(self, other):
        return NotImplemented if isinstance(other, list | tuple) else str(self) + str(other)

    def __radd__(self, other):
        return NotImplemented if isinstance(other, list | tuple) else str(other) + str(self)


def text_of(fields):
    """The text among a result's fields; without one, all of them as JSON."""
    for key in TEXT_KEYS:
        if isinstance(fields.get(key), str):
            return str(fields[key])
    return json.dumps(plain(dict(fields)))


def plain(value):
    """What crosses to the harness: JSON data; anything else as its text."""
    if isinstance(value, Result):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | collections.abc.Set | VIEWS):
        return [plain(v) for v in value]
    return str(value)


class Link:
    """Requests out, replies in; replies are read by a thread and wake the event loop."""

    def __init__(self, channel):
        self.channel = channel
        self.waiting = {}
        self.numbers = itertools.count(1)

    def listen(self, loop):
        def read():
            while True:
                _, payload = self.channel.receive()
                loop.call_soon_threadsafe(self.resolve, json.loads(payload))

        threading.Thread(target=read, daemon=True).start()

    def resolve(self, reply):
        future = self.waiting.pop(reply["id"])
        if future.cancelled():
            return
        if "error" in reply:
            kind = reply["error"]["class"]
            base = getattr(sys.modules["builtins"], kind, None)
            usable = isinstance(base, type) and issubclass(base, Exception)
            message = reply["error"]["message"]
            try:
                error = (base if usable else RuntimeError)(message)
            except TypeError:  # one that takes more than a message
                error = RuntimeError(message)
            future.set_exception(error)
        else:
            result = reply["result"]
            future.set_result(Result(result) if isinstance(result, dict) else result)

    async def call(self, operator, positional, keywords):
        number = next(self.numbers)
        arguments = {"positional": plain(positional), "keywords": plain(keywords)}
        request = {"id": number, "operator": operator, "arguments": arguments}
        future = self.waiting[number] = asyncio.get_running_loop().create_future()
        self.channel.send(wire.REQUEST, json.dumps(request).encode())
        return await future


def operator_class(link, name):
    """`operator.Custom` and the like: instances are awaitable, whatever they are made with."""

    class Operator:
        def __init__(self, *_, **__):
            pass

        async def __call__(self, *positional, **keywords):
            return await link.call(name, list(positional), keywords)

    Operator.__name__ = Operator.__qualname__ = name
    return Operator


class Operators:
    """`operator` as in AFlow's files: its classes by name."""

    def __init__(self, shims):
        vars(self).update(shims)

    def __getattr__(self, name):
        known = ", ".join(vars(self))
        raise AttributeError(f"there is no operator {name}; there are {known}")


class CostManager:
    """Cost is accounted outside, so the counters here stay at zero."""

    def __init__(self, *_, **__):
        self.total_cost = 0.0
        self.total_prompt_tokens = self.total_completion_tokens = 0

    def get_total_cost(self):
        return self.total_cost


class LLM:
    """`self.llm`: the worker, as a call of its own."""

    def __init__(self, link):
        self.link = link
        self.cost_manager = CostManager()

    def get_usage_summary(self):
        return {"total_cost": 0.0, "total_tokens": 0}

    async def __call__(self, prompt, *_, **__):
        return str(await self.link.call("custom", ["", str(prompt)], {}))

    aask = __call__


class Foreign(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives modules with our names for the imports that workflow files begin with."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in FOREIGN:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        vars(module).update(self.names)


def where(error, file_name):
    """The line of the workflow that raised, or None."""
    if isinstance(error, SyntaxError) and error.filename == file_name:
        return error.lineno
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file_name:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


class Failed(Exception):
    def __init__(self, stage, error, file_name="<workflow>"):
        self.stage, self.error, self.line = stage, error, where(error, file_name)


def namespace(link, work, prompts):
    """The names that a workflow finds without importing them."""
    offered = {name: ours for name, ours in CLASSES.items() if ours in work["operators"]}
    shims = {name: operator_class(link, ours) for name, ours in offered.items()}
    names = {
        "asyncio": asyncio,
        "typing": typing,
        **{n: getattr(typing, n) for n in ("Any", "Dict", "List", "Literal", "Optional", "Tuple")},
        "operator": Operators(shims),
        "prompt_custom": prompts,
        "logger": logging.getLogger("workflow"),
        "create": lambda *_, **__: LLM(link),
        "create_llm_instance": lambda *_, **__: LLM(link),
        "create_llm": lambda *_, **__: LLM(link),
        "CostManager": CostManager,
        "LLMConfig": dict,
        "DatasetType": str,
        **work["inputs"],
    }
    sys.meta_path.append(Foreign({**vars(prompts), **names, **shims, "prompt": prompts}))
    return names


def load(link, work):
    """The workflow object. Raises Failed."""
    prompts = types.ModuleType("prompt_custom")
    try:
        exec(compile(work["prompts"], "<prompts>", "exec", dont_inherit=True), vars(prompts))
    except BaseException as error:
        raise Failed("load", error, "<prompts>") from error
    sys.modules["prompt_custom"] = prompts
    module = types.ModuleType("workflow")
    module.__package__ = PACKAGE
    sys.modules["workflow"] = module
    vars(module).update(namespace(link, work, prompts))
    try:
        exec(compile(work["code"], "<workflow>", "exec", dont_inherit=True), vars(module))
        kind = vars(module).get("Workflow")
        if not isinstance(kind, type):
            raise NameError("no class Workflow is defined")
        made = kind.__new__(kind)
        for name in work["operators"]:
            setattr(made, name, operator_class(link, name)())
        made.llm = LLM(link)
        made.name, made.dataset = "workflow", ""
        if kind.__init__ is not object.__init__:
            given = {"name": "workflow", **work["inputs"]}
            made.__init__(**fitting(made.__init__, given, fill=""))
    except BaseException as error:
        raise Failed("load", error) from error
    entry = made if callable(made) else getattr(made, "run_workflow", None)
    if not callable(entry):
        raise Failed("load", NameError("class Workflow has no method __call__"))
    return entry


def fitting(function, given, fill=None):
    """Those of `given` that the function takes; `fill` for other required parameters."""
    taken = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            return {**given, **taken}
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if name in given:
            taken[name] = given[name]
        elif parameter.default is parameter.empty and fill is not None:
            taken[name] = fill
    return taken


def answer_of(returned):
    """The text in what a workflow returned: a text, a dictionary that holds one, (text, cost).

    Raises ValueError or TypeError that say what to return.
    """
    if isinstance(returned, tuple):
        returned = returned[0] if returned else None
    if returned is None:
        raise ValueError("the workflow returned None; return the solution's text")
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise TypeError("the workflow returned a coroutine; await it, and return its text")
    if isinstance(returned, str):
        return str(returned)
    if isinstance(returned, dict) and any(isinstance(returned.get(k), str) for k in TEXT_KEYS):
        return text_of(returned)
    kind = type(returned).__name__
    raise TypeError(f"the workflow returned {kind}; return the solution's text, or (text, cost)")


async def run(link, work):
    """The workflow's answer as text. Raises Failed."""
    link.listen(asyncio.get_running_loop())
    entry = load(link, work)
    try:
        made = entry(**fitting(entry, work["inputs"]))
        return answer_of(await made if inspect.isawaitable(made) else made)
    except BaseException as error:
        raise Failed("run", error) from error


def main():
    channel = wire.start()
    _, payload = channel.receive()
    work = json.loads(payload)
    try:
        answer = asyncio.run(run(Link(channel), work))
        channel.send(wire.ANSWER, json.dumps({"answer": answer}).encode())
    except Failed as failed:
        error = failed.error
        try:
            message = str(error.msg if isinstance(error, SyntaxError) else error)[:500]
        except Exception:  # noqa: BLE001 - a hostile __str__
            message = "<no message>"
        fact = {"stage": failed.stage, "class": type(error).__name__, "message": message}
        channel.send(wire.ERROR, json.dumps({**fact, "line": failed.line}).encode())
