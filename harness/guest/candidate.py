"""Holds one solution and answers calls to its entry point with plain data.

Tests never run here: a solution can at most return a wrong value. See `judge.py`.
"""

import json
import sys
import types

sys.path.insert(0, __file__.rpartition("/")[0])
import wire

BUILTINS = vars(__builtins__)


def builtin_base(error):
    """The name of the nearest built-in exception class, so that a test can catch it."""
    for kind in type(error).__mro__:
        if BUILTINS.get(kind.__name__) is kind:
            return kind.__name__
    return "BaseException"


def describe(error, file_name):
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


def main():
    channel = wire.start()
    _, payload = channel.receive()
    program = json.loads(payload)
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    try:
        exec(compile(program["prelude"], "<prompt>", "exec", dont_inherit=True), vars(module))
        vars(module).pop(program["entry_point"], None)  # a stub is no answer
        exec(compile(program["code"], "<solution>", "exec", dont_inherit=True), vars(module))
    except BaseException as error:  # noqa: BLE001 - SystemExit at import is a finding too
        channel.send(wire.ERROR, describe(error, "<solution>"))
        return
    entry_point = vars(module).get(program["entry_point"])
    if not callable(entry_point):
        channel.send(wire.MISSING)
        return
    channel.send(wire.OK)
    while True:
        _, payload = channel.receive()
        arguments, keywords = wire.load(payload)
        try:
            reply = wire.RETURNED, wire.dump(entry_point(*arguments, **keywords))
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a solution is its failure
            reply = wire.RAISED, describe(error, "<solution>")
        channel.send(*reply)


main()
