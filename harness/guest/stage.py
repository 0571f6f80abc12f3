"""What runs on the main thread of a unittest's process, among the frames of hostile code.

The solution can reach all of it (each frame above its own, by `f_back`), so nothing here holds the
channel, a nonce or the outcome of a test: `unittests.py` asks for one part after the other from a
thread that no frame leads to, and compares all of this with what it was. Signs of tampering go
where nothing can take them back (`guard.note`).
"""

import builtins
import contextlib
import functools
import io
import os
import sys
import types
import unittest
import unittest.mock

import guard

__builtins__ = guard.__builtins__  # a private copy: the functions below know no other

MODULE = guard.MODULE_OF_SOLUTION
FILE = f"{MODULE}.py"
PRINTED = 1 << 20  # characters of output that are kept before the rest is dropped
OFTEN = 100  # calls of the entry point after which a call is no longer looked at by itself

PACKAGE, CASE = guard.private_unittest()
WATCH = None  # of the program that runs here


def looking(assertion):
    own = assertion.__name__ in ("assertEqual", "assertEquals", "assertAlmostEqual")

    @functools.wraps(assertion)
    def looked(self, *arguments, **keywords):
        if WATCH is not None:
            for argument in arguments:
                WATCH.look(argument)
            if own and len(arguments) > 1:
                WATCH.look_at_both(arguments[0], arguments[1])
        return assertion(self, *arguments, **keywords)

    return looked


for _name, _value in list(vars(CASE.TestCase).items()):
    if _name.startswith("assert") and isinstance(_value, types.FunctionType):
        setattr(CASE.TestCase, _name, looking(_value))


_RECORDS = frozenset("called call_count call_args call_args_list mock_calls method_calls".split())  # noqa: SIM905
_MOCKING = vars(unittest.mock)


def recording(setting):
    @functools.wraps(setting)
    def recorded(self, name, value):
        if name in _RECORDS or name.startswith("assert_"):
            caller = sys._getframe(1)
            genuine = caller.f_globals is _MOCKING or caller.f_code in TESTS
            if WATCH is not None and not genuine:
                guard.note(f"{name} of a mock")
        return setting(self, name, value)

    return recorded


TESTS = set()  # code objects of the tests
_mock = unittest.mock.NonCallableMock
_mock.__setattr__ = recording(_mock.__setattr__)
MACHINERY = guard.machinery(CASE)
for _value in vars(CASE.TestCase).values():
    if hasattr(_value, "__wrapped__"):
        MACHINERY.add(_value, ["__wrapped__"])
# what an attribute of a running test must not hide
ASSERTING = frozenset(
    name
    for name in dir(CASE.TestCase)
    if name.startswith(("assert", "fail", "_get", "_base", "_deprecate", "_format", "_truncate"))
)


class Sink(io.StringIO):
    """Standard input and output: takes all, keeps little, gives nothing."""

    def write(self, text):
        if self.tell() < PRINTED:
            super().write(text)
        return len(text)

    def _refuse(self, *_):
        raise OSError("nothing can be read here")

    read = readline = readlines = _refuse

    def readable(self):
        return False


class Refused(Exception):
    """Ends the grading: a verdict and why."""


def tried(step, *arguments):
    """What a step returns, or the Refused that it raises."""
    try:
        return step(*arguments)
    except Refused as refused:
        return refused


def compiled(program):
    """Code objects of prelude and solution, in order. Raises what `compile` does."""
    prelude, code = program["prelude"], program["code"]
    try:
        return [compile(f"{prelude}\n{code}", FILE, "exec", dont_inherit=True)]
    except SyntaxError as error:
        own = compile(code, FILE, "exec", dont_inherit=True)  # its lines are the solution's
        if "__future__" not in str(error):
            raise
    # an import that has to come first is an error by the calibration alone: here it is none
    return [compile(prelude, FILE, "exec", dont_inherit=True), own]


def last_line(code):
    """The last line that a code object has, those inside included."""
    lines = [line for _, _, line in code.co_lines() if line]
    inside = [last_line(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return max([*lines, *inside], default=0)


def load(program):
    """(namespace, entry point) of the solution. Raises Refused.

    `program`: prelude, code, entry_point.
    """
    module = types.ModuleType(MODULE)
    namespace = vars(module)
    namespace.update(__builtins__=builtins, __file__=FILE, __package__=None, __doc__=None)
    namespace.update(sys=sys, os=os, environ=os.environ)
    sys.modules[MODULE] = module
    name, before = program["entry_point"], 0
    stub = None
    try:
        codes = compiled(program)
        if len(codes) == 1:
            before = program["prelude"].count("\n") + 1
        else:
            exec(codes[0], namespace)
            stub = namespace.get(name)
        exec(codes[-1], namespace)
    except BaseException as error:  # noqa: BLE001 - SystemExit at import is a finding too
        verdict = "memory" if isinstance(error, MemoryError) else "not_loadable"
        raise Refused(verdict, guard.told(error, FILE, before)) from None
    found = namespace.get(name)
    if before and type(found) is types.FunctionType and last_line(found.__code__) <= before:
        stub = found
    if not callable(found) or found is stub:
        raise Refused("no_code", f"{name} is not defined as a function")
    return namespace, found


def imported(modules):
    """Import what the tests do, the genuine ones. `modules`: [(name, names from it)]."""
    for module, names in modules:
        with contextlib.suppress(Exception):  # the tests will say so themselves
            __import__(module, fromlist=names)


class Watch:
    """What is looked at while a test runs. `world`: Slots; `literals`: constants of the tests."""

    def __init__(self, world, literals):
        self.liars = guard.Liars(literals)
        self.world = world
        self.own = guard.Slots()  # what the tests themselves defined
        self.own_usual = []
        self.case = None  # the TestCase that is running
        self.kind = None  # its class
        self.members = {}  # of the tests' classes -> their names
        self.calls = 0

    def look(self, value):
        try:
            self.liars.look(value)
        except guard.Liar as liar:
            guard.note(str(liar))

    def look_at_both(self, first, second):
        """An equality: the word of the solution's own class does not count for plain data."""
        try:
            self.liars.look_at_both(first, second)
        except guard.Liar as liar:
            guard.note(str(liar))

    def guarded(self, function):
        """The entry point as the tests call it."""
        if isinstance(function, type):
            return function

        @functools.wraps(function)
        def entry_point(*arguments, **keywords):
            self.calls += 1
            often = self.calls > OFTEN
            before = None if often else self.world.read()
            try:
                result = function(*arguments, **keywords)
            finally:
                if not often:
                    noted(self.world.changed(before))
                self.check()
            self.look(result)
            return result

        return entry_point

    def check(self):
        """Note it when what the tests are made of is no longer in place."""
        noted(process())
        noted(self.own.changed(self.own_usual))
        case = self.case
        if case is None:
            return
        if type(case) is not self.kind and type(case).__module__ == MODULE:
            guard.note("the class of the running test")
        for name in object.__getattribute__(case, "__dict__"):
            if name in ASSERTING:
                guard.note(f"{name} of the running test")
        for base in self.kind.__mro__:
            for name in vars(base).keys() - self.members.get(base, frozenset()):
                if name in ASSERTING:
                    guard.note(f"{name} of the tests")


def noted(sign):
    if sign is not None:
        guard.note(sign)


def process():
    """A sign of tampering with the whole process, or None."""
    if sys.gettrace() is not None or sys.getprofile() is not None:
        return "a trace function"
    return None if guard.integers_hold() else "the value of an integer"


def define(source, namespace):
    """Run the tests' source; its code object. Raises Refused."""
    if namespace.get("__builtins__") is not builtins:
        raise Refused("tampered", "it changed or forged the built-ins of its module")
    public = sys.modules.get("unittest")
    sys.modules["unittest"] = PACKAGE
    try:
        code = compile(source, FILE, "exec", dont_inherit=True)
        exec(code, namespace)
    except BaseException as error:  # noqa: BLE001
        raise Refused("not_loadable", f"with its tests: {guard.told(error)}") from None
    finally:
        sys.modules["unittest"] = public
    return code


def decoy(source, names):
    """Define a test of the judge's: (its class, its name)."""
    exec(compile(source, FILE, "exec", dont_inherit=True), names)
    (kind,) = (v for v in names.values() if isinstance(v, type))
    (name,) = (n for n in vars(kind) if n.startswith("test"))
    return kind, name


def cleaned(case):
    """Run the clean-ups of a test, the last added first."""
    while case._cleanups:
        function, arguments, keywords = case._cleanups.pop()
        function(*arguments, **keywords)


def cleaned_class(kind):
    """Run the clean-ups of a class of tests. Raises the last error of theirs."""
    kind.doClassCleanups()  # keeps what they raise
    for _, error, _ in kind.tearDown_exceptions:
        raise RuntimeError(guard.told(error)) from error


def finding(step, *arguments):
    """[verdict, detail] of running a part of a test."""
    try:
        step(*arguments)
    except (CASE.SkipTest, unittest.SkipTest):
        return "tampered", "a test was skipped"
    except MemoryError:
        return "memory", "out of memory"
    except AssertionError as error:
        return "wrong", guard.told(error)
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a solution is its failure
        return "exception", guard.told(error)
    return "passed", ""
