"""Tests that call the solution (HumanEval, MBPP): run by the judge, answered by the child.

`candidate(...)` sends its arguments out as plain data and gets plain data back; a solution can lie
about nothing but its return values.
"""

import builtins
import json
import marshal
import sys
import types

import wire
from link import Ended

BUILTINS = vars(builtins).copy()


# In the child


def builtin_base(error):
    """The name of the nearest built-in exception class, so that a test can catch it."""
    for kind in type(error).__mro__:
        if BUILTINS.get(kind.__name__) is kind:
            return kind.__name__
    return "BaseException"


def describe(error, file_name="<solution>"):
    """Class, nearest built-in class, message and line of the solution, as JSON bytes."""
    line = None
    if isinstance(error, SyntaxError):
        line = error.lineno
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file_name:
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        message = error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception:  # noqa: BLE001 - a hostile __str__ must not take the guest down
        message = "<no message>"
    name, base = type(error).__name__, builtin_base(error)
    fact = {"class": name, "base": base, "message": message[:500], "line": line}
    return json.dumps(fact).encode()


def load(channel, program):
    """The solution's entry point, reported as loaded; None when that failed, reported too."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    try:
        exec(compile(program["prelude"], "<prompt>", "exec", dont_inherit=True), vars(module))
        vars(module).pop(program["entry_point"], None)  # a stub is no answer
        exec(compile(program["code"], "<solution>", "exec", dont_inherit=True), vars(module))
    except BaseException as error:  # noqa: BLE001 - SystemExit at import is a finding too
        channel.send(wire.ERROR, describe(error))
        return None
    entry_point = vars(module).get(program["entry_point"])
    if not callable(entry_point):
        channel.send(wire.MISSING)
        return None
    channel.send(wire.OK)
    return entry_point


def child(channel, order):
    """Load the solution and answer calls until the channel closes."""
    _, payload = channel.receive()
    entry_point = load(channel, marshal.loads(payload))
    while entry_point is not None:
        kind, payload = channel.receive()
        arguments, keywords = (marshal.loads if kind == wire.CALL else wire.load)(payload)
        try:
            reply = wire.RETURNED, wire.dump(entry_point(*arguments, **keywords))
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a solution is its failure
            reply = wire.RAISED, describe(error)
        channel.send(*reply)


# In the judge


def loaded(link, work, **more):
    """Give the child its program, and `more`; None, or why it does not load: [verdict, detail].

    Raises Ended.
    """
    program = {name: work[name] for name in ("prelude", "code", "entry_point")}
    link.start(work["kind"], {**program, **more})
    kind, payload = link.receive()
    if kind == wire.OK:
        return None
    if kind == wire.MISSING:
        return ["no_code", f"{work['entry_point']} is not defined as a function"]
    try:
        fact = json.loads(payload)
        line = f" (line {fact['line']})" if fact["line"] else ""
        found = f"{fact['class']}: {fact['message']}{line}"
    except (ValueError, LookupError, TypeError, RecursionError):
        return ["tampered", f"a frame of kind {kind!r} that the sandbox does not send"]
    if fact["class"] == "MemoryError":
        return ["memory", "out of memory at import"]
    return ["not_loadable", found]


class Caller:
    """`candidate`: stands for the solution in the tests."""

    def __init__(self, link):
        self.link = link
        self.calls = 0
        self.raised = None  # the exception that stands for the solution's last one
        self.returned = None

    def __call__(self, *arguments, **keywords):
        if self.link.over is not None:
            raise self.link.over
        self.calls += 1
        try:
            self.link.send(wire.CALL, marshal.dumps((arguments, keywords), 2))
        except ValueError:  # not plain data
            self.link.send(wire.VALUES, wire.dump([list(arguments), keywords]))
        kind, payload = self.link.receive()
        if kind == wire.RETURNED:
            self.returned = wire.load(payload)
            return self.returned
        if kind != wire.RAISED:
            self.link.end("tampered", f"a frame of kind {kind!r} instead of a result")
        fact = json.loads(payload)
        base = getattr(builtins, fact["base"], Exception)
        if not (isinstance(base, type) and issubclass(base, Exception)):
            base = Exception  # SystemExit in a solution must not end the judge
        try:
            self.raised = base(f"{fact['class']}: {fact['message']}")
        except TypeError:  # UnicodeDecodeError and the like want more arguments
            self.raised = Exception(f"{fact['class']}: {fact['message']}")
        raise self.raised

    def test(self, source, namespace):
        """[verdict, detail] of one test statement. Raises Ended."""
        before, self.raised, self.returned = self.calls, None, None
        try:
            exec(compile(source, "<test>", "exec", dont_inherit=True), namespace)
        except MemoryError:
            return ["memory", "the returned value does not fit"]
        except BaseException as error:  # noqa: BLE001
            if self.link.over is not None:
                raise self.link.over from None
            return self.finding(error)
        if self.link.over is not None:  # a test swallowed it
            raise self.link.over
        if self.calls == before:
            return ["tampered", "the test called nothing"]
        return ["passed", ""]

    def finding(self, error):
        said = shown(str, error, 300)
        if error is self.raised:
            return ["memory" if said.startswith("MemoryError") else "exception", said]
        got = shown(repr, self.returned, 300)
        if isinstance(error, AssertionError):
            return ["wrong", f"got {got}" + (f" ({said})" if said else "")]
        return ["wrong", f"{type(error).__name__}: {said} on {got}"]


def shown(form, value, length):
    """A value as text, cut; whatever that may raise."""
    try:
        return form(value)[:length]
    except Exception as error:  # noqa: BLE001 - a value nested too deeply, a number too long
        return f"<{type(value).__name__}, {type(error).__name__} when shown>"


def judge(link, work):
    """Run the tests in order; {"outcomes": [[verdict, detail] of each that ran]}. Raises Ended.

    `work`: prelude, code, entry_point, setup, tests, stop_early. The benchmark's own code is run
    here; a failure to load it is reported as "broken".
    """
    outcomes = []
    report = {"outcomes": outcomes}
    namespace = {"__name__": "tests"}
    try:
        exec(compile(work["prelude"], "<prompt>", "exec", dont_inherit=True), namespace)
        exec(compile(work["setup"], "<setup>", "exec", dont_inherit=True), namespace)
    except Exception as error:  # noqa: BLE001 - the benchmark's own code is broken: our fault
        return {**report, "broken": f"{type(error).__name__}: {error}"}
    caller = Caller(link)
    namespace[work["entry_point"]] = namespace["candidate"] = caller
    try:
        found = loaded(link, work)
        if found is not None:
            return {**report, "ended": found}
        for source in work["tests"]:
            outcomes.append(caller.test(source, namespace))
            if outcomes[-1][0] != "passed" and work["stop_early"]:
                break
    except Ended as ended:
        return {**report, "ended": [ended.verdict, ended.detail]}
    return report
