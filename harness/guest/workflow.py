"""Runs one model-written workflow; every operator call is a request to the harness.

Accepts what meta-agents write (figures 5 to 11 of arXiv:2504.15257, and AFlow's files): with or
without `__init__`, any subset of `problem`, `entry_point`, `test_cases` as arguments or as free
names, `prompt_custom.NAME`, `operator.Custom(self.llm)`, results used as dictionaries or as text.
"""

import asyncio
import importlib.abc
import importlib.machinery
import inspect
import itertools
import json
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
FOREIGN = ("metagpt", "workspace", "scripts", "examples", "optimized")  # imports of AFlow's files
TEXT_KEYS = ("response", "solution", "code", "answer", "result", "text", "output")


class Result(dict):
    """An operator's result: a dictionary that can also be used as its text."""

    def __str__(self):
        for key in TEXT_KEYS:
            if isinstance(self.get(key), str):
                return self[key]
        return json.dumps(dict(self))

    def __missing__(self, key):
        if key in TEXT_KEYS or isinstance(key, int | slice):
            return str(self)[key] if isinstance(key, int | slice) else str(self)
        raise KeyError(key)

    def __getitem__(self, key):
        if isinstance(key, slice):  # not hashable before Python 3.12
            return str(self)[key]
        return super().__getitem__(key)

    def __getattr__(self, name):
        if dict.__contains__(self, name) or name in TEXT_KEYS:
            return self[name]
        return getattr(str(self), name)

    def __contains__(self, item):
        return dict.__contains__(self, item) or (isinstance(item, str) and item in str(self))

    def get(self, key, default=None):
        return dict.get(self, key, default)

    def __add__(self, other):
        return str(self) + str(other)

    def __radd__(self, other):
        return str(other) + str(self)


def plain(value):
    """What crosses to the harness: JSON data; anything else as its text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Result):
        return str(value)
    if isinstance(value, list | tuple | set | types.GeneratorType):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
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
            future.set_exception((base if usable else RuntimeError)(reply["error"]["message"]))
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


class LLM:
    """`self.llm`: its cost is accounted outside, so the counters here stay at zero."""

    def __init__(self, link):
        self.link = link
        self.cost_manager = types.SimpleNamespace(total_cost=0.0)

    def get_usage_summary(self):
        return {"total_cost": 0.0}

    async def __call__(self, prompt, *_, **__):
        return str(await self.link.call("custom", ["", str(prompt)], {}))

    aask = __call__


class Foreign(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives empty modules with our names for the imports that AFlow's workflow files begin with."""

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
    shims = {name: operator_class(link, ours) for name, ours in CLASSES.items()}
    operator = types.SimpleNamespace(**shims)
    names = {
        "asyncio": asyncio,
        "typing": typing,
        **{n: getattr(typing, n) for n in ("Any", "Dict", "List", "Literal", "Optional", "Tuple")},
        "operator": operator,
        "prompt_custom": prompts,
        "create": lambda *_, **__: LLM(link),
        "create_llm_instance": lambda *_, **__: LLM(link),
        "create_llm": lambda *_, **__: LLM(link),
        "CostManager": types.SimpleNamespace,
        "LLMConfig": dict,
        "DatasetType": str,
        **work["inputs"],
    }
    sys.meta_path.append(Foreign({**names, **shims}))
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
        if "__init__" in vars(kind):
            made.__init__(**fitting(made.__init__, {"name": "workflow"}, fill=""))
    except BaseException as error:
        raise Failed("load", error) from error
    if not callable(made):
        raise Failed("load", NameError("class Workflow has no method __call__"))
    return made


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


async def run(link, work):
    """The workflow's answer as text. Raises Failed."""
    link.listen(asyncio.get_running_loop())
    workflow = load(link, work)
    try:
        made = workflow(**fitting(workflow.__call__, work["inputs"]))
        answer = await made if inspect.isawaitable(made) else made
        if isinstance(answer, tuple) and not isinstance(answer, Result):
            answer = answer[0] if answer else None
        if isinstance(answer, dict):
            answer = str(Result(answer))
        if answer is None:
            raise ValueError("the workflow returned None")
        return str(answer)
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
            message = error.msg if isinstance(error, SyntaxError) else str(error)[:500]
        except Exception:  # noqa: BLE001 - a hostile __str__
            message = "<no message>"
        fact = {"stage": failed.stage, "class": type(error).__name__, "message": message}
        channel.send(wire.ERROR, json.dumps({**fact, "line": failed.line}).encode())
