"""A unittest module beside the solution, in one process (BigCodeBench). Guarded, not proved.

Tests and solution share an interpreter, for results are figures, frames and mocks, which cannot
cross to another process. So what a test says counts only under guard (docs/bigcodebench.md):

- The tests come over the channel after the solution has loaded. The judge names each next one when
  the last is answered, with a new nonce, and asks for all of a list that it made itself.
- The channel, the nonces and the outcomes belong to a thread that no frame leads to; tests and
  solution run on the main thread, above a loop without frames (`stage.py`).
- They derive from a private copy of `unittest.TestCase`, and reach built-ins and the entry point by
  names that nobody knows beforehand.
- What they rely on (unittest, mock, built-ins, the library functions that they call) is compared by
  identity and code: after the solution has loaded, around each call of it, after each test.
- Results are looked at for objects that decide what they equal (`guard.py`).
- At random places the judge asks decoys whose answer it knows, with the tests' own assertions.

Any sign is `tampered`. Else the semantics are those of `untrusted_check` in bigcodebench 0.2.5, but
that zero or skipped tests never pass and that the module is registered before it runs.
"""

import _thread
import builtins
import collections
import functools
import gc
import importlib.util
import marshal
import operator
import os
import queue
import random
import secrets
import struct
import sys
import time
import types
import unittest
import unittest.mock

import guard
import stage
import wire
from link import Ended
from plan import Plan, decoy

__builtins__ = guard.__builtins__  # a private copy: the functions below know no other

DECOYS = 3  # asked for each program, at random places
os.environ.setdefault("MPLBACKEND", "Agg")  # before a warm parent imports matplotlib

# In the child, off the main thread


def second(module):
    """Another instance of a module of ours, which nothing on the main thread refers to."""
    spec = importlib.util.find_spec(module.__name__)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


GUARD = second(guard)


def whole(*modules):
    """Slots for all that modules of ours hold."""
    slots = GUARD.Slots()
    for module in modules:
        slots.add_functions(module)
        slots.add(module, list(vars(module)))
    return slots


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
    sys.stdin, sys.stdout, sys.stderr = stage.Sink(), stage.Sink(), stage.Sink()
    sys.argv = [stage.FILE]
    here = os.path.dirname(os.path.abspath(__file__)) + os.sep
    for name, module in list(sys.modules.items()):
        if (vars(module).get("__file__") or "").startswith(here):
            del sys.modules[name]
    sys.modules["__main__"] = types.ModuleType("__main__")  # what a spawned process would load


class Runner:
    """Has tests run on the main thread, and looks on. Made before the solution is loaded.

    `on_main` runs a function there and returns what it returns.
    """

    def __init__(self, on_main, program):
        self.on_main = on_main
        on_main(stage.imported, program["modules"])
        self.world = GUARD.surroundings(program)
        self.usual = self.world.read()
        self.machinery = GUARD.Slots()
        self.machinery.places = list(stage.MACHINERY.places)
        self.machinery_usual = self.machinery.read()
        world = guard.Slots()
        world.places = list(self.world.places)
        self.watch = stage.WATCH = stage.Watch(world, program["literals"])
        self.own = GUARD.Slots()  # what the tests themselves defined
        self.own_usual = []
        self.stage = whole(guard, stage)
        self.stage.add(guard.Liars, list(vars(guard.Liars)))
        self.stage.add(guard.Slots, list(vars(guard.Slots)))
        for part in (self.watch, self.watch.liars):
            names = [n for n in vars(part) if n not in ("case", "kind", "calls", "busy")]
            self.stage.add(part, names, "the guard")
        self.stage_usual = self.stage.read()
        found = [self.machinery_usual, self.usual, self.stage_usual, self.own_usual]
        self.signs, self.tests = guard.watch(found, stage.FILE)
        self.mocks = unittest.mock.NonCallableMock, stage.PACKAGE.mock._patch
        self.codes = {}  # of the test methods -> their bytes
        self.functions = {}

    def load(self, program):
        """Load the solution. Raises stage.Refused."""
        self.namespace, self.entry_point = self.asked(stage.load, program)
        self.note(self.world.changed(self.usual))
        self.check()

    def asked(self, step, *arguments):
        """What a step on the main thread returns. Raises stage.Refused."""
        found = self.on_main(stage.tried, step, *arguments)
        if type(found) is stage.Refused:
            self.refuse()
            raise found
        return found

    def note(self, sign):
        if sign is not None:
            self.signs.append(sign)

    def refuse(self):
        if self.signs:
            raise stage.Refused("tampered", f"it changed or forged {self.signs[0]}"[:300])

    def check(self):
        """Raises stage.Refused when something is no longer what it was."""
        self.note(self.stage.changed(self.stage_usual))
        self.note(self.machinery.changed(self.machinery_usual))
        self.note(self.own.changed(self.own_usual))
        self.on_main(self.watch.check)
        for name, (function, code) in self.functions.items():
            if function.__code__ is not code or marshal.dumps(code, 2) != self.codes[name]:
                self.note(f"the code of {name}")
        self.refuse()

    def prepare(self, order):
        """Define the tests. Raises stage.Refused.

        `order`: source, names (made up -> built-in), entry (made up), methods, globals, rebind.
        """
        space = self.namespace
        names = {new: getattr(builtins, name) for new, name in order["names"].items()}
        names[order["entry"]] = self.watch.guarded(self.entry_point)
        space.update(names)
        if order["rebind"]:  # the tests bind the entry point's name, or speak of it in a text
            space[order["rebind"]] = names[order["entry"]]
        code = self.asked(stage.define, order["source"], space)
        if space.get("__builtins__") is not builtins or not self.imports_hold():
            raise stage.Refused("tampered", "it changed or forged what the tests import")
        genuine = set(codes_in(code))
        self.tests |= genuine
        stage.TESTS.update(genuine)
        self.kind = kind = self.class_of_tests(genuine)
        for name in order["methods"]:
            function = getattr(kind, name, None)
            while hasattr(function, "__wrapped__"):
                function = function.__wrapped__
            if getattr(function, "__code__", None) not in genuine:
                raise stage.Refused("tampered", f"{name} is not the test of that name")
            self.functions[name] = function, function.__code__
            self.codes[name] = marshal.dumps(function.__code__, 2)
        for base in kind.__mro__:
            if base.__module__ == stage.MODULE:
                self.own.add_functions(base)
        self.watch.kind = kind
        self.watch.members.update((b, frozenset(vars(b))) for b in kind.__mro__)
        used = set(order["globals"]) & space.keys() - names.keys()
        if not order["rebind"]:
            used.discard(order["entry_point"])  # they call it by the other name
        values = [(n, space[n]) for n in used]
        shared = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)
        fixed = [n for n, value in values if issubclass(type(value), shared)]
        self.own.places += [(space, n, f"{n} of the tests") for n in fixed]
        self.own.places += [(space, n, "a name of the tests") for n in (*names, "__builtins__")]
        self.own_usual += self.own.read()
        self.watch.own.places += self.own.places
        self.watch.own_usual += self.own_usual
        guard.seal({*stage.ASSERTING, *order["methods"], "__class__"})
        gc.freeze()  # out of the sight of gc.get_objects
        self.refuse()

    def imports_hold(self):
        found = self.namespace.get("unittest")
        return found is None or found is stage.PACKAGE or found is unittest

    def class_of_tests(self, genuine):
        """TestCases, when each part of it is of the tests or of unittest. Raises stage.Refused."""
        kind = self.namespace.get("TestCases")
        bases = stage.CASE.TestCase, unittest.TestCase
        if type(kind) not in (type, guard.Sealed) or not issubclass(kind, bases):
            raise stage.Refused("tampered", "TestCases is not the tests' own class")
        for base in kind.__mro__:
            if base in (*bases, object):
                continue
            for name, value in vars(base).items():
                function = getattr(value, "__func__", value)
                while hasattr(function, "__wrapped__"):
                    function = function.__wrapped__
                of_code = isinstance(function, types.FunctionType)
                if of_code and base.__module__ == stage.MODULE and function.__code__ not in genuine:
                    raise stage.Refused("tampered", f"{name} is not of the tests")
            library = sys.modules.get(base.__module__)
            if base.__module__ != stage.MODULE and vars(library).get(base.__name__) is not base:
                raise stage.Refused("tampered", "TestCases has a base of the solution's")
        return kind

    def found(self, step, *arguments):
        return self.on_main(stage.finding, step, *arguments)

    def method(self, name):
        """[verdict, detail] of one test. Raises stage.Refused."""
        made = []
        found = self.found(lambda: made.append(self.kind(name)))
        if not made:
            return found
        (case,) = made
        self.watch.case = case
        found = self.found(self.kind.setUp, case)
        before = self.world.read()
        if found[0] == "passed":
            found = self.found(vars_of(self.kind, name), case)
            self.note(self.world.changed(before, allow=self.mocks))
            self.check()
            after = self.found(self.kind.tearDown, case)
            found = after if found[0] == "passed" else found
        after = self.found(stage.cleaned, case)
        self.check()
        self.watch.case = None
        return after if found[0] == "passed" else found

    def decoy(self, source):
        """[verdict, detail] of a test that only the judge knows the answer of."""
        names = {"unittest": stage.PACKAGE, "__name__": stage.MODULE}
        for module in ("numpy", "pandas"):
            names[module] = sys.modules.get(module)
        kind, name = self.on_main(stage.decoy, source, names)
        return self.found(vars(kind)[name], self.on_main(kind, name))

    def class_step(self, name):
        """Run setUpClass or tearDownClass; its finding. Raises stage.Refused."""
        found = self.found(getattr(self.kind, name))
        if name == "tearDownClass" and found[0] == "passed":
            found = self.found(stage.cleaned_class, self.kind)
        self.check()
        return found


def vars_of(kind, name):
    """What a class has by a name, as its instances would call it."""
    return next(vars(base)[name] for base in kind.__mro__ if name in vars(base))


def codes_in(code):
    """A code object and all that it holds."""
    yield code
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from codes_in(part)


def begin(channel):
    """A callable that runs what it is asked on its thread, in a loop without a frame of Python.

    Another thread loads the program and asks, until the channel closes.
    """
    _, payload = channel.receive()
    jobs, done = queue.SimpleQueue(), queue.SimpleQueue()
    getpid, own_pid, exit_now = os.getpid, os.getpid(), os._exit

    def same_process(result):
        if getpid() != own_pid:  # a copy that the solution forked: it has no say
            exit_now(0)
        return result

    def on_main(function, *arguments):
        jobs.put(functools.partial(function, *arguments))
        return done.get()

    _thread.start_new_thread(
        answer,
        (channel, marshal.loads(payload), on_main, functools.partial(jobs.put, None)),
    )
    made = map(same_process, map(operator.methodcaller("__call__"), iter(jobs.get, None)))
    return functools.partial(collections.deque, map(done.put, made), 0)


def answer(channel, program, on_main, end):
    """Load the solution, then have run what the judge asks for, until the channel closes."""
    # all that is needed later, as it is now
    read, write, descriptor = os.read, os.write, channel.fileno()
    exit_now = os._exit
    header, loads = struct.Struct(">IB"), marshal.loads

    def send(kind, *parts):
        text = "\n".join(parts).encode("utf-8", "backslashreplace")
        data = memoryview(header.pack(len(text), kind[0]) + text)
        while data:
            data = data[write(descriptor, data) :]

    def exactly(count):
        parts = []
        while count:
            parts.append(read(descriptor, count))
            if not parts[-1]:
                exit_now(0)
            count -= len(parts[-1])
        return b"".join(parts)

    try:
        settle()
        runner = Runner(on_main, program)
        gc.freeze()
        steps = {"prepare": runner.prepare, "method": runner.method, "decoy": runner.decoy}
        steps["class"] = runner.class_step
        nonce = ""
        try:
            runner.load({name: program[name] for name in ("prelude", "code", "entry_point")})
            send(wire.OK)
            while True:
                length, _ = header.unpack(exactly(header.size))
                nonce, step, argument = loads(exactly(length))
                verdict, detail = steps[step](argument) or ("passed", "")
                send(wire.TEST, nonce, verdict, detail)
        except stage.Refused as refused:
            send(wire.ERROR, nonce, *refused.args)
            end()
    finally:  # a loss of this thread is the end of the program
        exit_now(70)


def _child(channel, _order):
    hold.append(channel)  # noqa: F821 - its globals are its own
    del channel, _order
    begin()()


def bare(function):
    """A function whose globals hold nothing once it runs: its frame is beneath every test."""
    space = {"__builtins__": guard.__builtins__, "__name__": "child", "hold": []}

    def start():
        channel = space["hold"].pop()
        space.clear()
        return begin(channel)

    space["begin"] = start
    return types.FunctionType(function.__code__, space, "child")


child = bare(_child)


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
