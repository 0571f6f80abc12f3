"""A unittest module beside the solution, in one process (BigCodeBench). No pass can be forged.

Tests and solution share an interpreter, for results are figures, frames and mocks, which cannot
cross to another process. So what a test says counts only under guard (docs/bigcodebench.md):

- The tests come over the channel after the solution has loaded. The judge names each next one when
  the last is answered, with a new nonce, and asks for all of a list that it made itself.
- They derive from a private copy of `unittest.TestCase`, and reach built-ins and the entry point by
  names that nobody knows beforehand.
- What they rely on (unittest, mock, built-ins, the library functions that they call) is compared by
  identity and code: after the solution has loaded, around each call of it, after each test.
- Results are looked at for objects that claim to equal everything (`guard.py`).
- At random places the judge asks decoys whose answer it knows, with the tests' own assertions.

Any sign is `tampered`. Else the semantics are those of `untrusted_check` in bigcodebench 0.2.5, but
that zero or skipped tests never pass and that the module is registered before it runs.
"""

import builtins
import contextlib
import functools
import gc
import io
import marshal
import os
import random
import secrets
import struct
import sys
import time
import types
import unittest
import unittest.mock

import guard
import wire
from link import Ended
from plan import Plan, decoy

__builtins__ = guard.__builtins__  # a private copy: the functions below know no other

MODULE = guard.MODULE_OF_SOLUTION
FILE = f"{MODULE}.py"
PRINTED = 1 << 20  # characters of output that are kept before the rest is dropped
DECOYS = 3  # asked for each program, at random places
os.environ.setdefault("MPLBACKEND", "Agg")  # before a warm parent imports matplotlib

# In the child

PACKAGE, CASE = guard.private_unittest()
LOOKS = []  # what every assertion shows its arguments to


def looking(assertion):
    @functools.wraps(assertion)
    def looked(self, *arguments, **keywords):
        for look in LOOKS:
            for argument in arguments:
                look(argument)
        return assertion(self, *arguments, **keywords)

    return looked


for _name, _value in list(vars(CASE.TestCase).items()):
    if _name.startswith("assert") and isinstance(_value, types.FunctionType):
        setattr(CASE.TestCase, _name, looking(_value))
MACHINERY = guard.machinery(CASE)
for _value in vars(CASE.TestCase).values():
    if hasattr(_value, "__wrapped__"):
        MACHINERY.add(_value, ["__wrapped__"])
MACHINERY_USUAL = MACHINERY.read()
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


def settle():
    """Give the process the surroundings that official programs have, and hide ours."""
    base = os.getcwd()
    for name in ("home", "work"):
        os.makedirs(os.path.join(base, name), exist_ok=True)
    os.chdir(os.path.join(base, "work"))
    os.environ["HOME"] = os.path.join(base, "home")
    os.environ.update(TZ="UTC", OMP_NUM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    time.tzset()
    own = os.path.dirname(sys.executable)  # where `python` has the environment's packages
    if own not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = f"{own}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    for site in sys.path:
        data = os.path.normpath(os.path.join(site, "../../../nltk_data"))
        if os.path.isdir(data):
            os.environ["NLTK_DATA"] = data
            if "nltk" in sys.modules:
                sys.modules["nltk"].data.path.insert(0, data)
    builtins.exit = builtins.quit = None
    sys.stdin, sys.stdout, sys.stderr = Sink(), Sink(), Sink()
    sys.argv = [FILE]
    here = os.path.dirname(os.path.abspath(__file__)) + os.sep
    for name, module in list(sys.modules.items()):
        if (vars(module).get("__file__") or "").startswith(here):
            del sys.modules[name]
    sys.modules["__main__"] = types.ModuleType("__main__")  # what a spawned process would load


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
    """(namespace, entry point) of the solution. Raises Refused."""
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


class Runner:
    """Runs tests in this process, under guard. Made before the solution is loaded."""

    def __init__(self, program):
        for module, names in program["modules"]:  # the tests' own imports, genuine ones
            with contextlib.suppress(Exception):  # the tests will say so themselves
                __import__(module, fromlist=names)
        self.liars = guard.Liars(program["literals"])
        LOOKS.append(self.look)
        self.world = guard.surroundings(program)
        self.usual = self.world.read()
        self.case = None  # the TestCase that is running
        self.own = guard.Slots()  # what the tests themselves defined
        self.own_usual = []
        guard.watch(MACHINERY_USUAL, self.usual, self.own_usual)
        self.namespace = {}
        self.names = {}  # known to the tests alone -> genuine object
        self.codes = {}  # of the test methods -> their bytes
        self.methods = {}

    def look(self, value):
        try:
            self.liars.look(value)
        except guard.Liar as liar:
            self.note(str(liar))

    def note(self, sign):
        if sign is not None:
            guard.SIGNS.append(sign)

    def loaded(self, namespace, entry_point):
        """The solution is there: check what it may have changed. Raises Refused."""
        self.namespace, self.entry_point = namespace, entry_point
        self.note(MACHINERY.changed(MACHINERY_USUAL))
        self.note(self.world.changed(self.usual))
        self.check_process()
        self.refuse()

    def refuse(self):
        if guard.SIGNS:
            raise Refused("tampered", f"it changed or forged {guard.SIGNS[0]}"[:300])

    def check_process(self):
        if sys.gettrace() is not None or sys.getprofile() is not None:
            self.note("a trace function")
        if not guard.integers_hold():
            self.note("the value of an integer")

    def prepare(self, order):
        """Define the tests. Raises Refused.

        `order`: source, names (made up -> built-in), entry (made up), methods, globals, rebind.
        """
        self.names = {new: getattr(builtins, name) for new, name in order["names"].items()}
        self.names[order["entry"]] = self.guarded(self.entry_point)
        self.namespace.update(self.names)
        if order["rebind"]:  # the tests bind the entry point's name, or speak of it in a text
            self.namespace[order["rebind"]] = self.names[order["entry"]]
        public = sys.modules.get("unittest")
        sys.modules["unittest"] = PACKAGE
        try:
            code = compile(order["source"], FILE, "exec", dont_inherit=True)
            exec(code, self.namespace)
        except BaseException as error:  # noqa: BLE001
            raise Refused("not_loadable", f"with its tests: {guard.told(error)}") from None
        finally:
            sys.modules["unittest"] = public
        self.define(code, order)

    def define(self, code, order):
        """Find the test methods and make sure that they are those of the source. Raises Refused."""
        kind = self.namespace.get("TestCases")
        bases = CASE.TestCase, unittest.TestCase
        if type(kind) not in (type, guard.Sealed) or not issubclass(kind, bases):
            raise Refused("tampered", "TestCases is not the tests' own class")
        self.kind = kind
        genuine = set(codes_in(code))
        for name in order["methods"]:
            function = getattr(kind, name, None)
            while hasattr(function, "__wrapped__"):
                function = function.__wrapped__
            if getattr(function, "__code__", None) not in genuine:
                raise Refused("tampered", f"{name} is not the test of that name")
            self.methods[name] = function.__code__
            self.codes[name] = marshal.dumps(function.__code__, 2)
        for base in kind.__mro__:
            if base.__module__ == MODULE:
                self.own.add_functions(base)
        self.members = {base: frozenset(vars(base)) for base in kind.__mro__}
        used = set(order["globals"]) & self.namespace.keys() - self.names.keys()
        if not order["rebind"]:
            used.discard(order["entry_point"])  # they call it by the other name
        values = [(n, self.namespace[n]) for n in used]
        shared = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)
        fixed = [n for n, value in values if issubclass(type(value), shared)]
        self.own.places += [(self.namespace, n, f"{n} of the tests") for n in fixed]
        self.own.places += [(self.namespace, n, "a name of the tests") for n in self.names]
        self.own_usual += self.own.read()
        guard.seal({*ASSERTING, *order["methods"], "__class__"})
        gc.freeze()  # out of the sight of gc.get_objects

    def guarded(self, function):
        """The entry point as the tests call it."""
        if isinstance(function, type):
            return function

        @functools.wraps(function)
        def entry_point(*arguments, **keywords):
            before = self.world.read()
            try:
                result = function(*arguments, **keywords)
            finally:
                self.note(self.world.changed(before))
                self.check_tests()
            self.look(result)
            return result

        return entry_point

    def check_tests(self):
        """What the tests and their machinery are made of is still in place."""
        self.check_process()
        self.note(self.own.changed(self.own_usual))
        case = self.case
        if case is None:
            return
        if type(case) is not self.kind and type(case).__module__ == MODULE:
            self.note("the class of the running test")
        for name in object.__getattribute__(case, "__dict__"):
            if name in ASSERTING:
                self.note(f"{name} of the running test")
        for base in self.kind.__mro__:
            for name in vars(base).keys() - self.members.get(base, frozenset()):
                if name in ASSERTING:
                    self.note(f"{name} of the tests")

    def check_after(self, before):
        """After a test: all of it, more slowly. `before`: the surroundings at its start."""
        mocks = unittest.mock.NonCallableMock, PACKAGE.mock._patch
        self.note(self.world.changed(before, allow=mocks))
        self.note(MACHINERY.changed(MACHINERY_USUAL))
        self.check_tests()
        for name, code in self.methods.items():
            if marshal.dumps(code, 2) != self.codes[name]:
                self.note(f"the code of {name}")

    def method(self, name):
        """[verdict, detail] of one test. Raises Refused."""
        self.case = None
        made = []
        found = finding(lambda: made.append(self.kind(name)))
        if not made:
            return found
        (case,) = made
        self.case = case
        found = finding(case.setUp)
        before = self.world.read()
        if found[0] == "passed":
            found = finding(getattr(case, name))
            self.check_after(before)
            after = finding(case.tearDown)
            found = after if found[0] == "passed" else found
        after = finding(lambda: cleaned(case))
        self.check_tests()
        self.case = None
        self.refuse()
        return after if found[0] == "passed" else found

    def decoy(self, source):
        """[verdict, detail] of a test that only the judge knows the answer of. Raises Refused."""
        names = {"unittest": PACKAGE, "__name__": MODULE}
        for module in ("numpy", "pandas"):
            names[module] = sys.modules.get(module)
        exec(compile(source, FILE, "exec", dont_inherit=True), names)
        (kind,) = (v for v in names.values() if isinstance(v, type))
        (name,) = (n for n in vars(kind) if n.startswith("test"))
        return finding(getattr(kind(name), name))

    def class_step(self, name):
        """Run setUpClass or tearDownClass; its finding."""
        verdict, detail = finding(getattr(self.kind, name))
        if name == "tearDownClass" and verdict == "passed":
            self.kind.doClassCleanups()  # keeps what they raise
            for _, error, _ in self.kind.tearDown_exceptions:
                verdict, detail = "exception", guard.told(error)
        self.check_tests()
        self.refuse()
        return verdict, detail


def codes_in(code):
    """A code object and all that it holds."""
    yield code
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from codes_in(part)


def cleaned(case):
    """Run the clean-ups of a test, the last added first."""
    while case._cleanups:
        function, arguments, keywords = case._cleanups.pop()
        function(*arguments, **keywords)


def finding(step):
    """[verdict, detail] of running a part of a test."""
    try:
        step()
    except (CASE.SkipTest, unittest.SkipTest):
        return "tampered", "a test was skipped"
    except MemoryError:
        return "memory", "out of memory"
    except AssertionError as error:
        return "wrong", guard.told(error)
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a solution is its failure
        return "exception", guard.told(error)
    return "passed", ""


def child(channel, _order):
    """Load the solution, then run what the judge asks for, until the channel closes."""
    _, payload = channel.receive()
    program = marshal.loads(payload)
    # all that is needed later, as it is now
    read, write, exit_now = os.read, os.write, os._exit
    getpid, own_pid, descriptor = os.getpid, os.getpid(), channel.fileno()
    header, loads = struct.Struct(">IB"), marshal.loads

    def send(kind, *parts):
        if getpid() != own_pid:  # a copy that the solution forked: it has no say
            exit_now(0)
        text = "\n".join(parts).encode("utf-8", "backslashreplace")
        data = memoryview(header.pack(len(text), kind[0]) + text)
        while data:
            data = data[write(descriptor, data) :]

    def exactly(count):
        parts = []
        while count:
            parts.append(read(descriptor, count))
            if not parts[-1] or getpid() != own_pid:
                exit_now(0)
            count -= len(parts[-1])
        return b"".join(parts)

    settle()
    runner = Runner(program)
    gc.freeze()
    try:
        namespace, entry_point = load(program)
        runner.loaded(namespace, entry_point)
    except Refused as refused:
        send(wire.ERROR, "", *refused.args)
        return
    send(wire.OK)
    steps = {"prepare": runner.prepare, "method": runner.method, "decoy": runner.decoy}
    steps["class"] = runner.class_step
    while True:
        length, _ = header.unpack(exactly(header.size))
        nonce, step, argument = loads(exactly(length))
        try:
            verdict, detail = steps[step](argument) or ("passed", "")
        except Refused as refused:
            send(wire.ERROR, nonce, *refused.args)
            return
        send(wire.TEST, nonce, verdict, detail)


# In the judge


class Lied(Exception):
    """The child's answer cannot be a genuine one."""


class Asking:
    """Asks the child step by step."""

    def __init__(self, link):
        self.link = link

    def ask(self, step, argument):
        """[verdict, detail, whether it is the last word]. Raises Lied, Ended."""
        nonce = secrets.token_hex(16)
        self.link.send(wire.LOAD, marshal.dumps((nonce, step, argument), 2))
        kind, payload = self.link.receive()
        answer = payload.decode("utf-8", "replace").split("\n", 2)
        if kind not in (wire.TEST, wire.ERROR) or len(answer) != 3 or answer[0] != nonce:
            raise Lied(f"a frame of kind {kind!r} that answers no question")
        if answer[1] not in VERDICTS:
            raise Lied("a verdict that there is not")
        return answer[1], answer[2][:400], kind == wire.ERROR


VERDICTS = ("passed", "wrong", "exception", "memory", "no_code", "not_loadable", "tampered")


def judge(link, work):
    """Run the test methods in order; {"outcomes": [[verdict, detail] of each that ran]}.

    `work`: prelude, code, entry_point, tests (source), methods, stop_early. Ends with "ended" when
    the program does not load, tampers or is gone; with "broken" when the tests are no Python.
    """
    outcomes = []
    report = {"outcomes": outcomes}
    try:
        plan = Plan(work)
    except (SyntaxError, ValueError) as error:
        return {**report, "broken": f"{type(error).__name__}: {error}"}
    try:
        ended = run(link, work, plan, outcomes)
    except Lied as lied:
        ended = ["tampered", str(lied)]
    except Ended as over:
        ended = [over.verdict, over.detail]
    return report if ended is None else {**report, "ended": ended}


def run(link, work, plan, outcomes):
    """Fill `outcomes`; [verdict, detail] when it ended before all tests ran, else None."""
    program = {name: work[name] for name in ("prelude", "code", "entry_point")}
    link.start("unittests", {**program, **plan.watched()})
    kind, payload = link.receive()
    if kind != wire.OK:
        said = payload.decode("utf-8", "replace").split("\n", 2)
        if kind != wire.ERROR or len(said) != 3 or said[1] not in VERDICTS[1:]:
            raise Lied(f"a frame of kind {kind!r} that the sandbox does not send")
        return said[1:]
    asking, dice = Asking(link), random.SystemRandom()
    methods = list(work["methods"])
    verdict, detail, _ = asking.ask("prepare", plan.order(methods))
    if verdict != "passed":
        return [verdict, detail]
    traps = sorted(dice.randrange(len(methods) + 1) for _ in range(DECOYS))
    verdict, detail, last = asking.ask("class", "setUpClass")
    for place, name in enumerate([*methods, None]):
        for _ in range(traps.count(place)):
            source, holds = decoy(plan.assertions, dice)
            told, _, _ = asking.ask("decoy", source)
            if told != ("passed" if holds else "wrong"):
                raise Lied(f"a test that has to {'pass' if holds else 'fail'} was {told}")
        if name is None:
            break
        if verdict == "passed":
            told, said, last = asking.ask("method", name)
        else:
            told, said = verdict, f"setUpClass: {detail}"
        if last:
            return [told, said]
        outcomes.append([told, said])
        if told != "passed" and work["stop_early"]:
            return None
    verdict, detail, last = asking.ask("class", "tearDownClass")
    return None if verdict == "passed" else [verdict, f"tearDownClass: {detail}"]
