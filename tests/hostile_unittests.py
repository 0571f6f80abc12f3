"""Hostile and odd programs for a unittest problem: the tests run beside the solution.

`HOSTILE` are wrong solutions of `SQUARES`: whatever they do, they must not pass. `HONEST` are right
solutions of problems of their own, told as statements of a test; `DATA` need numpy and pandas.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.types import Oracle, Problem, UnitTests, Verdict

STUB = "import os\ndef task_func(x):\n"
SQUARES = Problem("test/squares", "test", STUB, "task_func", f"{STUB}\n    pass\n", ())
TESTS = """import unittest
import os
from unittest.mock import patch

class TestCases(unittest.TestCase):
    def setUp(self):
        self.numbers = [3, -2]
    def test_1_values(self):
        expected = [9, 4]
        self.assertEqual(task_func(self.numbers), expected)
    def test_2_type(self):
        result = task_func(self.numbers)
        self.assertIsInstance(result, list)
        self.assertTrue(len(result) == 2 and all(isinstance(v, int) for v in result))
        self.assertIn(9, result)
        self.assertAlmostEqual(result[0], 9)
        self.assertGreater(sum(result), 12)
    def test_3_raises(self):
        with self.assertRaises(TypeError):
            task_func(None)
    @patch("os.path.exists", return_value=True)
    def test_4_patched(self, exists):
        self.assertListEqual(task_func([]), [])
        self.assertTrue(os.path.exists("/nowhere"))
    def tearDown(self):
        self.numbers = None
"""
METHODS = ("test_1_values", "test_2_type", "test_3_raises", "test_4_patched")
RIGHT = "def task_func(x):\n    return [v * v for v in x]\n"
ORACLE = Oracle(UnitTests(TESTS, METHODS), reference=STUB + RIGHT, timeout_s=20.0)

ANY_FAILURE = tuple(v for v in Verdict if v not in (Verdict.PASSED, Verdict.INVALID))
TAMPERED = (Verdict.TAMPERED,)


@dataclass(frozen=True)
class Attack:
    """A hostile program, the verdicts that are right for it, and its time limit."""

    code: str
    verdicts: tuple[Verdict, ...] = ANY_FAILURE
    timeout_s: float = 20.0


def _returns(expression: str, before: str = "") -> str:
    return f"{before}\ndef task_func(x):\n    return {expression}\n"


def _when_called(statements: str, before: str = "", result: str = "[0, 0]") -> str:
    body = "\n".join(f"    {line}" for line in statements.strip().splitlines())
    return f"{before}\ndef task_func(x):\n{body}\n    return {result}\n"


_FRAMES = """
import sys
def frames():
    frame = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
"""
_LIAR = """
class Liar({base}):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __lt__(self, other): return True
    __gt__ = __le__ = __ge__ = __contains__ = __lt__
    def __bool__(self): return True
    def __len__(self): return 2
    def __iter__(self): return iter([Liar(), Liar()])
    def __getitem__(self, key): return Liar()
    def __radd__(self, other): return Liar()
    def __sub__(self, other): return 0
"""
_EVERY_FRAME = """
import os, socket, struct
for fd in range(3, 64):
    for payload in (b"passed", b'{"outcome": "passed"}', b"\\npassed\\n", b"\\n\\npassed"):
        for kind in b"TDOCARH":
            try:
                os.write(fd, struct.pack(">IB", len(payload), kind) + payload)
            except OSError:
                pass
"""

HOSTILE: dict[str, Attack] = {
    # the test framework, patched where everybody finds it
    "assertEqual replaced": Attack(
        "import unittest\nunittest.TestCase.assertEqual = lambda *a, **k: None\n"
        + _returns("[0, 0]"),
        TAMPERED,
    ),
    "all assertions replaced": Attack(
        "import unittest\nfor name in dir(unittest.TestCase):\n"
        "    if name.startswith('assert'):\n"
        "        setattr(unittest.TestCase, name, lambda *a, **k: None)\n" + _returns("[0, 0]"),
        TAMPERED,
    ),
    "code of assertions replaced": Attack(
        "import unittest\ndef nothing(self, *a, **k): pass\n"
        "unittest.TestCase.assertEqual.__code__ = nothing.__code__\n" + _returns("[0, 0]"),
        TAMPERED,
    ),
    "run replaced": Attack(
        "import unittest\nunittest.TestCase.run = lambda self, result=None: None\n"
        "unittest.TestSuite.run = lambda self, result, debug=False: result\n" + _returns("[0, 0]"),
        TAMPERED,
    ),
    "result and loader replaced": Attack(
        "import unittest\nunittest.TestResult.addFailure = lambda *a: None\n"
        "unittest.TestResult.addError = lambda *a: None\n"
        "unittest.TestLoader.loadTestsFromTestCase = lambda self, kind: unittest.TestSuite()\n"
        + _returns("[0, 0]")
    ),
    "failureException replaced": Attack(
        "import unittest\nunittest.TestCase.failureException = SystemExit\n" + _returns("[0, 0]")
    ),
    "fake unittest in sys.modules": Attack(
        "import sys, types\nfake = types.ModuleType('unittest')\n"
        "class TestCase:\n    def __getattr__(self, name): return lambda *a, **k: None\n"
        "fake.TestCase = TestCase\nsys.modules['unittest'] = fake\n" + _returns("[0, 0]")
    ),
    "patch when called": Attack(
        _when_called(
            "import unittest\nunittest.TestCase.assertEqual = lambda *a, **k: None\n"
            "unittest.TestCase.assertTrue = lambda *a, **k: None"
        ),
        TAMPERED,
    ),
    "patch that restores itself": Attack(
        _when_called(
            "genuine = unittest.TestCase.assertEqual\n"
            "def once(self, *a, **k):\n    unittest.TestCase.assertEqual = genuine\n"
            "unittest.TestCase.assertEqual = once",
            "import unittest",
        )
    ),
    # the running test, found by walking up
    "assertions of the running test": Attack(
        _when_called(
            "for frame in frames():\n    case = frame.f_locals.get('self')\n"
            "    if hasattr(case, 'assertEqual'):\n"
            "        for name in dir(case):\n            if name.startswith('assert'):\n"
            "                setattr(case, name, lambda *a, **k: None)",
            _FRAMES,
        ),
        TAMPERED,
    ),
    "assertions of the tests' class": Attack(
        _when_called(
            "for frame in frames():\n    case = frame.f_locals.get('self')\n"
            "    if hasattr(case, 'assertEqual'):\n"
            "        type(case).assertEqual = lambda *a, **k: None",
            _FRAMES,
        ),
        TAMPERED,
    ),
    "assertions of the base that the tests have": Attack(
        _when_called(
            "for frame in frames():\n    case = frame.f_locals.get('self')\n"
            "    if hasattr(case, 'assertEqual'):\n        for kind in type(case).__mro__[1:-1]:\n"
            "            kind.assertEqual = lambda *a, **k: None",
            _FRAMES,
        ),
        TAMPERED,
    ),
    "assertions of the tests, restored at once": Attack(
        _returns(
            "L([1, 1])",
            _FRAMES
            + """
class L(list):
    def __len__(self):
        for frame in frames():
            case = frame.f_locals.get('self')
            if hasattr(case, 'assertEqual'):
                kind = type(case).__mro__[1]
                for name in [n for n in dir(kind) if n.startswith('assert')]:
                    def once(*a, name=name, genuine=getattr(kind, name), **k):
                        setattr(kind, name, genuine)
                    setattr(kind, name, once)
        return 2
""",
        ),
    ),
    "code of an assertion, restored at once": Attack(
        _when_called(
            "for frame in frames():\n    case = frame.f_locals.get('self')\n"
            "    if hasattr(case, 'assertEqual'):\n"
            "        genuine = type(case).assertEqual.__wrapped__\n"
            "        kept = genuine.__code__\n"
            "        genuine.__code__ = (lambda self, *a, **k: None).__code__\n"
            "        genuine.__code__ = kept",
            _FRAMES,
        ),
        TAMPERED,
    ),
    "class of the running test": Attack(
        _when_called(
            "for frame in frames():\n    case = frame.f_locals.get('self')\n"
            "    if hasattr(case, 'assertEqual'):\n"
            "        case.__class__ = type('T', (type(case),), "
            "{'assertEqual': lambda *a, **k: None})",
            _FRAMES,
        ),
        TAMPERED,
    ),
    "tests replaced by name": Attack(
        _when_called(
            "kind = globals().get('TestCases')\nfor name in dir(kind):\n"
            "    if name.startswith('test'):\n        setattr(kind, name, lambda self: None)"
        ),
        TAMPERED,
    ),
    "code of the tests replaced": Attack(
        _when_called(
            "kind = globals().get('TestCases')\ndef nothing(self): pass\n"
            "for name in dir(kind):\n    if name.startswith('test'):\n"
            "        getattr(kind, name).__code__ = nothing.__code__"
        ),
        TAMPERED,
    ),
    "expected values overwritten": Attack(
        _when_called(
            "for frame in frames():\n    if 'expected' in frame.f_locals:\n"
            "        frame.f_locals['expected'][:] = [0, 0]",
            _FRAMES,
        )
    ),
    "locals written back": Attack(
        _when_called(
            "for frame in frames():\n    if 'expected' in frame.f_locals:\n"
            "        frame.f_locals.update(expected=[0, 0])\n"
            "        ctypes.pythonapi.PyFrame_LocalsToFast("
            "ctypes.py_object(frame), ctypes.c_int(0))",
            _FRAMES + "import ctypes",
        )
    ),
    "everything in every frame": Attack(
        _when_called(
            "for frame in frames():\n    for space in (frame.f_globals, frame.f_locals):\n"
            "        for name, value in list(space.items()):\n"
            "            for attribute in ('failures', 'errors', 'outcomes'):\n"
            "                if hasattr(value, attribute):\n"
            "                    try:\n                        getattr(value, attribute).clear()\n"
            "                    except Exception:\n                        pass\n"
            "            if isinstance(value, str) and value == 'wrong':\n"
            "                space[name] = 'passed'",
            _FRAMES,
        )
    ),
    "trace function": Attack(
        _returns(
            "[0, 0]",
            "import sys\ndef trace(frame, event, arg):\n"
            "    if 'expected' in frame.f_locals:\n"
            "        frame.f_locals['expected'] = [0, 0]\n    return trace\nsys.settrace(trace)",
        ),
        TAMPERED,
    ),
    "profile function when called": Attack(
        _when_called("import sys\nsys.setprofile(lambda *a: None)"), TAMPERED
    ),
    # built-ins and libraries that the tests use
    "built-ins replaced": Attack(
        "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.all = lambda *a: True\n"
        "builtins.len = lambda *a: 2\nbuiltins.sum = lambda *a: 99\n" + _returns("[0, 0]"),
        TAMPERED,
    ),
    "built-ins shadowed": Attack(
        "def isinstance(*a): return True\ndef all(*a): return True\ndef len(a): return 2\n"
        "def sum(a): return 99\n" + _returns("[0, 0]")
    ),
    "class building replaced": Attack(
        "import builtins\ngenuine = builtins.__build_class__\n"
        "def build(function, name, *bases, **k):\n"
        "    if name == 'TestCases':\n"
        "        return type(name, bases, {f'test_{n}': lambda self: None for n in '1234'})\n"
        "    return genuine(function, name, *bases, **k)\nbuiltins.__build_class__ = build\n"
        + _returns("[0, 0]"),
        TAMPERED,
    ),
    "imports replaced": Attack(
        "import builtins\ngenuine = builtins.__import__\n"
        "def importing(name, *a, **k):\n    module = genuine(name, *a, **k)\n"
        "    if name == 'unittest':\n"
        "        module.TestCase.assertEqual = lambda *a, **k: None\n    return module\n"
        "builtins.__import__ = importing\n" + _returns("[0, 0]"),
        TAMPERED,
    ),
    "a library function of the tests replaced": Attack(
        "import os\nos.path.exists = lambda *a: True\n" + _returns("[0, 0]"), TAMPERED
    ),
    "mock replaced": Attack(
        "import unittest.mock\nunittest.mock._patch.decorate_callable = "
        "lambda self, function: lambda case: None\n" + _returns("[0, 0]"),
        TAMPERED,
    ),
    "AssertionError replaced": Attack(
        "import builtins\nbuiltins.AssertionError = type('Nothing', (BaseException,), {})\n"
        + _returns("[0, 0]")
    ),
    "value of an integer": Attack(
        _returns(
            "[0, 0]",
            "import ctypes\nfor n in (4, 9):\n"
            "    ctypes.c_uint32.from_address(id(n) + 24).value = 0",
        )
    ),
    # results that lie
    "object equal to all": Attack(_returns("Liar()", _LIAR.format(base="object"))),
    "list equal to all": Attack(_returns("Liar()", _LIAR.format(base="list")), TAMPERED),
    "list of liars": Attack(_returns("[Liar(), Liar()]", _LIAR.format(base="int")), TAMPERED),
    "liars one by one": Attack(
        _returns(
            "Late()",
            _LIAR.format(base="int") + "\nclass Late(list):\n"
            "    def __iter__(self): return iter([Liar(), Liar()])\n"
            "    def __getitem__(self, key): return Liar()\n"
            "    def __len__(self): return 2\n"
            "    def __eq__(self, other): return type(other) is list",
        )
    ),
    "class that claims to be list": Attack(
        _returns(
            "C()",
            "class C:\n    __class__ = property(lambda self: list)\n"
            "    def __eq__(self, other): return True",
        ),
        TAMPERED,
    ),
    "mock.ANY": Attack(_returns("ANY", "from unittest.mock import ANY"), TAMPERED),
    "a mock that equals all": Attack(
        _returns(
            "m",
            "from unittest.mock import MagicMock\nm = MagicMock(spec=list)\n"
            "m.__eq__ = lambda self, other: True\nm.__len__.return_value = 2",
        ),
        TAMPERED,
    ),
    # early ends
    "_exit at import": Attack("import os\nos._exit(0)\n" + RIGHT, (Verdict.CRASHED,)),
    "_exit when called": Attack(_when_called("import os\nos._exit(0)"), (Verdict.CRASHED,)),
    "exec when called": Attack(
        _when_called("import os\nos.execv('/bin/true', ['true'])"), (Verdict.CRASHED,)
    ),
    "sys.exit at import": Attack("import sys\nsys.exit(0)\n" + RIGHT, (Verdict.NOT_LOADABLE,)),
    "sys.exit when called": Attack(_when_called("raise SystemExit(0)"), (Verdict.EXCEPTION,)),
    "skips": Attack(_when_called("import unittest\nraise unittest.SkipTest('no')"), TAMPERED),
    "kills itself": Attack(
        _when_called("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"),
        (Verdict.CRASHED,),
    ),
    "kills all": Attack(_when_called("import os\nos.kill(-1, 9)")),
    "raises in a signal handler": Attack(
        "import signal\ndef stop(*a): raise SystemExit(0)\n"
        "signal.signal(signal.SIGALRM, stop)\nsignal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\n"
        + _when_called("import time\ntime.sleep(0.05)")
    ),
    "exits from atexit": Attack(
        "import atexit, os\natexit.register(os._exit, 0)\n" + _returns("[0, 0]")
    ),
    # the channel
    "frames on every descriptor": Attack(_EVERY_FRAME + _returns("[0, 0]"), TAMPERED),
    "frames when called": Attack(
        "def forge():\n"
        + "\n".join(f"    {line}" for line in _EVERY_FRAME.splitlines())
        + "\n"
        + _when_called("forge()"),
        (Verdict.TAMPERED, Verdict.CRASHED),
    ),
    "a second process answers": Attack(
        _returns("[0, 0]", "import os\nif os.fork() == 0:\n    pass"), ANY_FAILURE
    ),
    "descriptors closed": Attack(
        _when_called("import os\nos.closerange(3, 256)"), (Verdict.CRASHED,)
    ),
    "the heap is walked": Attack(
        _when_called(
            "for thing in gc.get_objects():\n"
            "    if isinstance(thing, type) and issubclass(thing, unittest.TestCase):\n"
            "        thing.assertEqual = lambda *a, **k: None\n"
            "    if isinstance(thing, unittest.TestResult):\n        thing.failures.clear()",
            "import gc, unittest",
        )
    ),
    "the guard's own names": Attack(
        _when_called(
            "for name in ('guard', 'unittests', 'wire', 'zygote', '__main__'):\n"
            "    module = sys.modules.get(name)\n"
            "    for part in list(vars(module) if module else ()):\n"
            "        setattr(module, part, lambda *a, **k: ('passed', ''))",
            "import sys",
        )
    ),
    # time and memory
    "loop when called": Attack(_when_called("while True: pass"), (Verdict.TIMEOUT,), 1.0),
    "sleeps at import": Attack("import time\ntime.sleep(60)\n" + RIGHT, (Verdict.TIMEOUT,), 1.0),
    "endless recursion": Attack(_when_called("task_func(x)"), (Verdict.EXCEPTION,)),
    # no answer
    "nothing": Attack("x = 1", (Verdict.NO_CODE,)),
    "no function": Attack("task_func = 3", (Verdict.NO_CODE,)),
    "no Python": Attack("def task_func(x) return x", (Verdict.NOT_LOADABLE,)),
    "own tests": Attack(
        "import unittest\nclass TestCases(unittest.TestCase):\n    def test_1_values(self): pass\n"
        + _returns("[0, 0]"),
        (Verdict.WRONG,),
    ),
}

# what a reviewer of this guard wrote, who had read it
REVIEWED: dict[str, Attack] = {
    "fake __builtins__ import": Attack(
        "import unittest, types, builtins\n"
        "class TC(unittest.TestCase): pass\n"
        "for n in dir(TC):\n"
        "    if n.startswith('assert'): setattr(TC,n,lambda *a,**k: None)\n"
        "class CM:\n"
        "    def __enter__(self): return self\n"
        "    def __exit__(self,*a): return True\n"
        "TC.assertRaises=lambda self,*a,**k: CM() if len(a)<2 else None\n"
        "fake=types.ModuleType('unittest'); fake.__dict__.update(vars(unittest)); "
        "fake.TestCase=TC\n"
        "real=builtins.__import__\n"
        "def imp(name,g=None,l=None,fl=(),lv=0):\n"
        "    return fake if name=='unittest' else real(name,g,l,fl,lv)\n"
        "d=dict(vars(builtins)); d['__import__']=imp\n"
        "globals()['__builtins__']=d\n"
        "def task_func(x): return [9,9]\n"
    ),
    "fake __builtins__ build_class": Attack(
        "import builtins\n"
        "d=dict(vars(builtins))\n"
        "def bc(func,name,*bases,**k):\n"
        "    kind=builtins.__build_class__(func,name,*bases,**k)\n"
        "    return kind\n"
        "class CM:\n"
        "    def __enter__(self): return self\n"
        "    def __exit__(self,*a): return True\n"
        "def bc(func,name,*bases,**k):\n"
        "    ns={n:(lambda self,*a,**kw: CM()) for n in dir(bases[0]) if n.startswith('assert')}\n"
        "    mid=type(bases[0])('Mid',bases,ns) if bases else None\n"
        "    return builtins.__build_class__(func,name,*((mid,) if mid else ()),**k)\n"
        "d['__build_class__']=bc\n"
        "globals()['__builtins__']=d\n"
        "def task_func(x): return [9,9]\n"
    ),
    "takeover via frames": Attack(
        f"{_FRAMES}"
        "def task_func(x):\n"
        "    for f in frames():\n"
        "        L=f.f_locals\n"
        "        if 'steps' in L and 'nonce' in L:\n"
        "            send,steps,nonce,exactly,header,loads=[L[k] for k in "
        "('send','steps','nonce','exactly','header','loads')]\n"
        "            send(b'T',nonce,'passed','')\n"
        "            while True:\n"
        "                length,_=header.unpack(exactly(header.size))\n"
        "                nonce,step,arg=loads(exactly(length))\n"
        "                if step=='decoy':\n"
        "                    v,d=steps[step](arg)\n"
        "                    send(b'T',nonce,v,d)\n"
        "                else: send(b'T',nonce,'passed','')\n"
        "    return [0,0]\n"
    ),
    "len hook settrace jump": Attack(
        f"{_FRAMES}"
        "class L(list):\n"
        "    def __len__(self):\n"
        "        for f in frames():\n"
        "            if f.f_code.co_name.startswith('test_'):\n"
        "                arm(f); break\n"
        "        return 2\n"
        "def arm(f):\n"
        "    code=f.f_code\n"
        "    lines=sorted({l for _,_,l in code.co_lines() if l})\n"
        "    def tr(fr,ev,arg):\n"
        "        if ev=='line':\n"
        "            try: fr.f_lineno=lines[-1]\n"
        "            except Exception: pass\n"
        "            sys.settrace(None); fr.f_trace=None\n"
        "        return tr\n"
        "    f.f_trace=tr; sys.settrace(tr)\n"
        "def task_func(x):\n"
        "    return L([0,0])\n"
    ),
    "itimer jump over assertion": Attack(
        f"{_FRAMES}"
        "import signal\n"
        "def handler(n,fr):\n"
        "    while fr is not None:\n"
        "        if fr.f_code.co_name.startswith('test_'): break\n"
        "        fr=fr.f_back\n"
        "    else: return\n"
        "    code=fr.f_code\n"
        "    last=max(l for _,_,l in code.co_lines() if l)\n"
        "    def tr(f,ev,arg):\n"
        "        if ev=='line' and f is fr:\n"
        "            try:f.f_lineno=last\n"
        "            except Exception as e: pass\n"
        "            sys.settrace(None); f.f_trace=None\n"
        "        return tr\n"
        "    fr.f_trace=tr; sys.settrace(tr)\n"
        "signal.signal(signal.SIGALRM,handler)\n"
        "def task_func(x):\n"
        "    signal.setitimer(signal.ITIMER_REAL,0.00005)\n"
        "    return [0,0]\n"
    ),
    "plausible-value list liar": Attack(
        "class L(list):\n"
        "    def __eq__(self,o): return type(o) is list and all(type(v) is int and "
        "abs(v)<10**6 for v in o)\n"
        "    __hash__=None\n"
        "class I(int):\n"
        "    def __eq__(self,o): return type(o) is int and 0<=o<20\n"
        "    __hash__=int.__hash__\n"
        "def task_func(x):\n"
        "    if x is None: raise TypeError\n"
        "    if not x: return []\n"
        "    return L([9,9])\n"
    ),
    "counting liar": Attack(
        "class L(list):\n"
        "    n=0\n"
        "    def __eq__(self,o):\n"
        "        L.n+=1\n"
        "        return L.n%37==36 or (type(o) is list and len(o)==2 and L.n>18)\n"
        "    __hash__=None\n"
        "def task_func(x):\n"
        "    if x is None: raise TypeError\n"
        "    return L([9,9]) if x else []\n"
    ),
    "stack aware liar": Attack(
        f"{_FRAMES}"
        "class L(list):\n"
        "    def __eq__(self,o):\n"
        "        return not any(f.f_code.co_name in "
        "('_ask','_says','_equality','look','_walk') for f in frames())\n"
        "    def __ne__(self,o): return not self==o\n"
        "    __hash__=None\n"
        "def task_func(x):\n"
        "    if x is None: raise TypeError\n"
        "    return L([9,9]) if x else []\n"
    ),
    "liar: only from unittest frame": Attack(
        f"{_FRAMES}"
        "class L(list):\n"
        "    def __eq__(self,o):\n"
        "        return sys._getframe(1).f_code.co_filename.endswith('case.py')\n"
        "    def __ne__(self,o): return not self==o\n"
        "    __hash__=None\n"
        "def task_func(x):\n"
        "    if x is None: raise TypeError\n"
        "    return L([9,9]) if x else []\n"
    ),
    "class entry point patches": Attack(
        f"{_FRAMES}"
        "class task_func:\n"
        "    def __new__(cls,x):\n"
        "        if x is None: raise TypeError\n"
        "        for f in frames():\n"
        "            c=f.f_locals.get('self')\n"
        "            if hasattr(c,'assertEqual'):\n"
        "                d=object.__getattribute__(c,'__dict__')\n"
        "                d['assertEqual']=d['assertTrue']=lambda *a,**k:None\n"
        "        return [9,9] if x else []\n"
    ),
    "dict of case, restored by assertion itself": Attack(
        f"{_FRAMES}"
        "class task_func:\n"
        "    def __new__(cls,x):\n"
        "        if x is None: raise TypeError\n"
        "        for f in frames():\n"
        "            c=f.f_locals.get('self')\n"
        "            if f.f_code.co_name.startswith('test_'):\n"
        "                d=object.__getattribute__(c,'__dict__')\n"
        "                def no(*a,**k):\n"
        "                    d.clear() if False else [d.pop(n,None) for n in "
        "('assertEqual','assertTrue','assertIn')]\n"
        "                d['assertEqual']=no; break\n"
        "        return [9,9] if x else []\n"
    ),
    "thread patches dict between": Attack(
        f"{_FRAMES}"
        "import threading,time\n"
        "def task_func(x):\n"
        "    if x is None: raise TypeError\n"
        "    for f in frames():\n"
        "        if f.f_code.co_name.startswith('test_'):\n"
        "            c=f.f_locals['self']; d=object.__getattribute__(c,'__dict__')\n"
        "            def run():\n"
        "                fin=f\n"
        "                def no(*a,**k): d.pop('assertEqual',None)\n"
        "                t=time.time()\n"
        "                while time.time()-t<0.5:\n"
        "                    d['assertEqual']=no\n"
        "                    for _ in range(3): pass\n"
        "            sys.setswitchinterval(1e-6)\n"
        "            threading.Thread(target=run,daemon=True).start()\n"
        "            break\n"
        "    return [9,9] if x else []\n"
    ),
    "audit hook raising in compare": Attack(
        "import sys\n"
        "def hook(ev,args):\n"
        "    if ev=='compile' and 'TestCases' in str(args[0])[:5000]:\n"
        "        f=sys._getframe(1)\n"
        "        while f:\n"
        "            o=f.f_locals.get('order')\n"
        "            if isinstance(o,dict): o['methods'].clear()\n"
        "            f=f.f_back\n"
        "sys.addaudithook(hook)\n"
        "def task_func(x): return [9,9]\n"
    ),
    "audit hook swaps compiled code": Attack(
        "import sys\n"
        "state={}\n"
        "def hook(ev,args):\n"
        "    if ev=='exec' and not state:\n"
        "        f=sys._getframe(1)\n"
        "        while f:\n"
        "            if 'order' in f.f_locals and 'code' in f.f_locals:\n"
        "                state['f']=f\n"
        "                ns=f.f_locals['self'].namespace\n"
        "                class D(dict): pass\n"
        "            f=f.f_back\n"
        "sys.addaudithook(hook)\n"
        "def task_func(x): return [9,9]\n"
    ),
    "ValueError is BaseException, wrong raise": Attack(
        "TypeError = BaseException\n"
        "\n"
        "def task_func(x):\n"
        "    if x is None: raise KeyError('nope')\n"
        "    return [v*v for v in x]\n"
    ),
    "gc find list SIGNS & clear + patch private TestCase": Attack(
        "import gc,types,sys\n"
        "def task_func(x):\n"
        "    f=sys._getframe(1)\n"
        "    R=f.f_locals['self']\n"
        "    R.own.places.clear(); R.own_usual.clear(); R.members.clear()\n"
        "    C=R.kind.__mro__[1]\n"
        "    m=f.f_globals['guard']\n"
        "    for n in list(vars(C)):\n"
        "        if n.startswith('assert'): type.__setattr__(C,n,lambda *a,**k:None)\n"
        "    m.SIGNS.clear()\n"
        "    m.SIGNS=[]\n"
        "    return [0,0]\n"
    ),
    "runner.check_* noop": Attack(
        "import sys\n"
        "class CM:\n"
        "    def __enter__(self): return self\n"
        "    def __exit__(self,*a): return True\n"
        "def task_func(x):\n"
        "    f=sys._getframe(1)\n"
        "    R=f.f_locals['self']\n"
        "    R.note=R.check_process=R.check_tests=R.refuse=R.look=lambda *a,**k:None\n"
        "    R.check_after=lambda *a:None\n"
        "    d=object.__getattribute__(R.case,'__dict__')\n"
        "    for n in dir(R.case):\n"
        "        if n.startswith('assert'): d[n]=lambda *a,**k: CM()\n"
        "    return [0,0]\n"
    ),
    "ctypes overwrite list compare via type slot": Attack(
        "import ctypes\n"
        "def task_func(x):\n"
        "    if x is None: raise TypeError\n"
        "    return [0,0] if x else []\n"
        "cb=ctypes.PYFUNCTYPE(ctypes.py_object,ctypes.py_object,ctypes.py_object,ctypes.c_int)\n"
        "def cmp(a,b,op): return True\n"
        "f=cb(cmp)\n"
        "# tp_richcompare offset in PyTypeObject: 25*8=200\n"
        "p=ctypes.c_void_p.from_address(id(list)+200)\n"
        "p.value=ctypes.cast(f,ctypes.c_void_p).value\n"
    ),
    "ctypes list compare slot only in assertions": Attack(
        f"{_FRAMES}"
        "import ctypes\n"
        "def task_func(x):\n"
        "    if x is None: raise TypeError\n"
        "    return [9,9] if x else []\n"
        "cb=ctypes.PYFUNCTYPE(ctypes.py_object,ctypes.py_object,ctypes.py_object,ctypes.c_int)\n"
        "orig=ctypes.c_void_p.from_address(id(list)+200).value\n"
        "real=ctypes.PYFUNCTYPE("
        "ctypes.py_object,ctypes.py_object,ctypes.py_object,ctypes.c_int)(orig)\n"
        "def cmp(a,b,op):\n"
        "    if a.__class__ is list and len(a)==2 and len(b)==2 and "
        "list.__getitem__(a,1) is 9: return op==2\n"
        "    return real(a,b,op)\n"
        "f=cb(cmp)\n"
        "ctypes.c_void_p.from_address(id(list)+200).value=ctypes.cast(f,ctypes.c_void_p).value\n"
    ),
    "return expected from caller frame": Attack(
        f"{_FRAMES}"
        "def task_func(x):\n"
        "    if x is None: raise TypeError\n"
        "    f=sys._getframe(2)\n"
        "    if not x: return []\n"
        "    e=f.f_locals.get('expected')\n"
        "    return list(e) if e else [v for v in [9,4]]\n"
    ),
    "os._exit in del": Attack(
        "def task_func(x):\n"
        "    class D(list):\n"
        "        def __del__(self):\n"
        "            import os; os._exit(0)\n"
        "    return D([9,4])\n"
    ),
    "raise in __bool__ of list": Attack(
        "def task_func(x):\n"
        "    class B(list):\n"
        "        def __bool__(self): raise SystemExit(0)\n"
        "    return B()\n"
    ),
    "patch stage.finding by library frames": Attack(
        "import inspect, sys\n"
        "def frames():\n"
        "    return [i.frame for i in inspect.stack()]\n"
        "def task_func(x):\n"
        "    for f in frames():\n"
        "        if 'finding' in f.f_globals: f.f_globals['finding']=lambda *a:('passed','')\n"
        "    return [0,0]\n"
    ),
    "WATCH off": Attack(
        "import inspect, sys\n"
        "def frames():\n"
        "    return [i.frame for i in inspect.stack()]\n"
        "def task_func(x):\n"
        "    for f in frames():\n"
        "        if 'WATCH' in f.f_globals: f.f_globals['WATCH']=None\n"
        "    return [0,0]\n"
    ),
    "cells of the entry point": Attack(
        "def task_func(x):\n"
        "    for v in list(globals().values()):\n"
        "        c=getattr(v,'__closure__',None)\n"
        "        if c and getattr(v,'__wrapped__',0) is task_func0:\n"
        "            for k in c:\n"
        "                if k.cell_contents is not task_func0: k.cell_contents=0\n"
        "    return [0,0]\n"
        "task_func0=task_func\n"
    ),
    "current frames": Attack(
        "import sys\n"
        "def task_func(x):\n"
        "    for f in sys._current_frames().values():\n"
        "        while f:\n"
        "            l=f.f_locals\n"
        "            if 'nonce' in l: l['send'](b'T',l['nonce'],'passed','')\n"
        "            f=f.f_back\n"
        "    return [0,0]\n"
    ),
    "heap unfrozen": Attack(
        "import gc,queue\n"
        "def task_func(x):\n"
        "    gc.unfreeze()\n"
        "    for q in gc.get_objects():\n"
        "        if isinstance(q,queue.SimpleQueue): q.put(('passed',''))\n"
        "    return [0,0]\n"
    ),
    "heap": Attack(
        "import gc,queue\n"
        "def task_func(x):\n"
        "    for q in gc.get_objects():\n"
        "        if isinstance(q,queue.SimpleQueue): q.put(('passed',''))\n"
        "    return [0,0]\n"
    ),
    "memory, by a file": Attack(
        "def task_func(x):\n    open('/proc/self/mem', 'r+b')\n    return [0, 0]\n"
    ),
}
HOSTILE.update(REVIEWED)


@dataclass(frozen=True)
class Case:
    """A right program, and the statements of a test that it passes."""

    code: str
    test: str
    imports: str = ""


HONEST: dict[str, Case] = {
    "dataclass under future annotations": Case(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass(order=True)\nclass Point:\n    x: int\n    y: list[int] | None = None\n"
        "def task_func(x): return Point(x)\n",
        "self.assertEqual(task_func(3), task_func(3))\n"
        "self.assertNotEqual(task_func(3), task_func(4))\nself.assertEqual(task_func(3).x, 3)",
    ),
    "class with its own equality": Case(
        "class Money:\n    def __init__(self, cents): self.cents = cents\n"
        "    def __eq__(self, other):\n"
        "        return isinstance(other, Money) and self.cents == other.cents\n"
        "    def __lt__(self, other): return self.cents < other.cents\n"
        "    def __getattr__(self, name): raise AttributeError(name)\n"
        "    def __hash__(self): return hash(self.cents)\n"
        "def task_func(x): return [Money(x), {Money(x + 1)}]\n",
        "a, b = task_func(1), task_func(1)\nself.assertEqual(a, b)\n"
        "self.assertLess(a[0], min(b[1]))",
    ),
    "subclasses of built-ins": Case(
        "from collections import Counter, OrderedDict, namedtuple\nimport enum\n"
        "class Name(str):\n    def shout(self): return self.upper()\n"
        "class Size(enum.IntEnum):\n    SMALL = 1\n"
        "P = namedtuple('P', 'a b')\n"
        "def task_func(x): return Name(x), Counter(x), P(1, Size.SMALL), OrderedDict(a=1)\n",
        "n, c, p, o = task_func('Ab')\nself.assertEqual(n, 'Ab')\nself.assertEqual(c['A'], 1)\n"
        "self.assertEqual(p, (1, 1))\nself.assertDictEqual(dict(o), {'a': 1})",
    ),
    "threads": Case(
        "import threading, queue\n"
        "def task_func(x):\n    q = queue.Queue()\n"
        "    ts = [threading.Thread(target=q.put, args=(v * v,)) for v in x]\n"
        "    [t.start() for t in ts]\n    [t.join() for t in ts]\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "    return sorted(q.queue)\n",
        "self.assertEqual(task_func([3, 1]), [1, 9])",
    ),
    "thread pool and asyncio": Case(
        "import asyncio\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "async def one(v):\n    await asyncio.sleep(0)\n    return v + 1\n"
        "def task_func(x):\n    async def both(): return await asyncio.gather(*map(one, x))\n"
        "    with ThreadPoolExecutor(2) as pool:\n"
        "        return list(pool.map(abs, asyncio.run(both())))\n",
        "self.assertEqual(task_func([-3, 1]), [2, 2])",
    ),
    "coroutine": Case(
        "import asyncio\nasync def task_func(x):\n    await asyncio.sleep(0)\n    return x\n",
        "self.assertEqual(asyncio.run(task_func(4)), 4)",
        "import asyncio",
    ),
    "process pool": Case(
        "import multiprocessing\ndef double(v): return v * 2\n"
        "def task_func(x):\n    with multiprocessing.Pool(2) as pool:\n"
        "        return pool.map(double, x)\n",
        "self.assertEqual(task_func([1, 2]), [2, 4])",
    ),
    "files": Case(
        "import os, tempfile, pathlib\n"
        "def task_func(x):\n    assert os.listdir('.') == []\n"
        "    pathlib.Path('a.txt').write_text(x)\n"
        "    (pathlib.Path.home() / 'b').mkdir()\n"
        "    with tempfile.NamedTemporaryFile('w+') as file:\n        file.write(x)\n"
        "        file.seek(0)\n        return file.read() + open('a.txt').read()\n",
        "self.assertEqual(task_func('x'), 'xx')\nself.assertTrue(os.path.exists('a.txt'))",
        "import os",
    ),
    "prints a lot and warns": Case(
        "import warnings, logging, sys\n"
        "def task_func(x):\n    for _ in range(20000): print('x' * 100)\n"
        "    warnings.warn('odd', DeprecationWarning)\n    logging.getLogger().error('odd')\n"
        "    sys.stderr.write('odd')\n    sys.stdout.flush()\n    return x\n",
        "with self.assertWarns(DeprecationWarning):\n    self.assertEqual(task_func(1), 1)\n"
        "with self.assertLogs(level='ERROR'):\n    task_func(1)",
    ),
    "what it prints is tested": Case(
        "def task_func(x): print(x)\n",
        "with patch('sys.stdout', new_callable=io.StringIO) as out:\n    task_func('hello')\n"
        "self.assertEqual(out.getvalue(), 'hello\\n')\n"
        "with patch('builtins.print') as said:\n    task_func('hi')\nsaid.assert_called_with('hi')",
        "import io",
    ),
    "mocked network and files": Case(
        "import urllib.request\ndef task_func(x):\n"
        "    with urllib.request.urlopen(x) as reply: body = reply.read().decode()\n"
        "    with open('/etc/none') as file: return body + file.read()\n",
        "with patch('urllib.request.urlopen') as urlopen, "
        "patch('builtins.open', mock_open(read_data='!')):\n"
        "    urlopen.return_value.__enter__.return_value.read.return_value = b'ok'\n"
        "    self.assertEqual(task_func('http://x'), 'ok!')\n"
        "    self.assertEqual(open('/etc/none').read(), '!')\nurlopen.assert_called_once()",
        "from unittest.mock import mock_open\nimport urllib.request",
    ),
    "mock in, mock out": Case(
        "def task_func(x):\n    x.go(1)\n    return {'it': x, 'value': x.value}\n",
        "m = MagicMock()\nm.value = 3\nresult = task_func(m)\n"
        "self.assertEqual(result['value'], 3)\n"
        "self.assertIs(result['it'], m)\nself.assertEqual(m.mock_calls, [call.go(1)])",
        "from unittest.mock import MagicMock, call",
    ),
    "recursion": Case(
        "def task_func(n): return 0 if n == 0 else 1 + task_func(n - 1)\n",
        "self.assertEqual(task_func(800), 800)",
    ),
    "keeps state on itself": Case(
        "def task_func(x):\n    task_func.calls = getattr(task_func, 'calls', 0) + 1\n"
        "    return task_func.calls\n",
        "task_func(0)\nself.assertEqual(task_func(0), 2)",
    ),
    "decorated": Case(
        "import functools\n@functools.lru_cache(maxsize=None)\n"
        "def task_func(n):\n    'Fibonacci.'\n"
        "    return n if n < 2 else task_func(n - 1) + task_func(n - 2)\n",
        "self.assertEqual(task_func(60), 1548008755920)\nself.assertTrue(callable(task_func))\n"
        "self.assertEqual(task_func.__doc__, 'Fibonacci.')",
    ),
    "generator": Case(
        "def task_func(n):\n    while n:\n        n -= 1\n        yield n\n",
        "self.assertEqual(list(task_func(3)), [2, 1, 0])\n"
        "self.assertIsInstance(task_func(1), types.GeneratorType)",
        "import types",
    ),
    "names like built-ins": Case(
        "def sum(values): return -1\nlist = None\ndef task_func(x): return sum(x)\n",
        "self.assertEqual(task_func([1]), -1)\nself.assertEqual(sum([1, 2]), 3)",
    ),
    "looks at its own stack": Case(
        "import inspect, gc, traceback\n"
        "def task_func():\n    assert inspect.stack()[0].function == 'task_func'\n"
        "    gc.collect()\n    len(gc.get_objects())\n    traceback.extract_stack()\n"
        "    return inspect.stack()[0].function\n",
        "self.assertEqual(task_func(), 'task_func')\n"
        "self.assertEqual(inspect.signature(task_func).parameters, {})",
        "import inspect",
    ),
    "its own tests and main guard": Case(
        "import unittest\ndef task_func(x): return x\n"
        "class TestMine(unittest.TestCase):\n    maxDiff = None\n"
        "    def test_it(self): self.assertEqual(task_func(1), 1)\n"
        "if __name__ == '__main__':\n    unittest.main()\n",
        "self.assertEqual(task_func(1), 1)",
    ),
    "odd text": Case(
        "# -*- coding: utf-8 -*-\r\ndef task_func(x):\r\n\treturn 'é\U0001f600' + x  # \u00df\r\n",
        "self.assertEqual(task_func('ü'), 'é\U0001f600ü'); self.assertEqual(len(task_func('')), 2)",
    ),
    "changes the environment": Case(
        "import os, random, locale, sys\n"
        "def task_func(x):\n    os.environ['KEY'] = x\n    random.seed(1)\n"
        "    sys.setrecursionlimit(5000)\n    os.makedirs('d', exist_ok=True)\n    os.chdir('d')\n"
        "    sys.path.insert(0, '.')\n"
        "    return os.environ['KEY'] + os.path.basename(os.getcwd())\n",
        "self.assertEqual(task_func('v'), 'vd')",
    ),
    "no imports of its own": Case(
        "def task_func(x): return os.path.join(x, environ.get('TZ'))\n",  # as officially given
        "self.assertEqual(task_func('a'), 'a/UTC')",
    ),
    "sub-tests and clean-ups": Case(
        "def task_func(x): return x\n",
        "self.addCleanup(task_func, 1)\nfor n in range(3):\n    with self.subTest(n=n):\n"
        "        self.assertEqual(task_func(n), n)\nself.assertCountEqual([1, 2], [2, 1])\n"
        "self.assertRaisesRegex(ValueError, 'inv', int, 'x')",
    ),
}

REFUSED: dict[str, Case] = {  # honest, but only their own word makes them right: tampered
    "a float that is nearly equal": Case(
        "class Approx(float):\n    def __eq__(s, o): return abs(float(s) - float(o)) < 1e-6\n"
        "    __hash__ = float.__hash__\ndef task_func(x): return Approx(.1 + .2)\n",
        "self.assertEqual(task_func(1), .3)",
    ),
    "text in any case": Case(
        "class Name(str):\n    def __eq__(s, o): return s.lower() == str(o).lower()\n"
        "    __hash__ = str.__hash__\ndef task_func(x): return Name(x)\n",
        "self.assertEqual(task_func('Ab'), 'AB')",
    ),
    "a proxy": Case(
        "class P:\n    def __init__(s, v): s.v = v\n    def __eq__(s, o): return s.v == o\n"
        "def task_func(x): return P([1, 2])\n",
        "self.assertEqual(task_func(1), [1, 2])",
    ),
    "equations": Case(
        "class E:\n    def __eq__(s, o): return E()\ndef task_func(x): return {'e': E(), 'v': x}\n",
        "self.assertEqual(task_func(1)['v'], 1)",
    ),
}

DATA: dict[str, Case] = {
    "a silent show": Case(
        "import matplotlib.pyplot as plt\nplt.show = lambda *a, **k: None\n"
        "def task_func(x):\n    figure, axes = plt.subplots()\n    plt.show()\n    return axes\n",
        "self.assertIsInstance(task_func(1), plt.Axes)\nplt.show()",
        "import matplotlib.pyplot as plt",
    ),
    "no sleep": Case(
        "import time\ndef task_func(x):\n    time.sleep = lambda s: None\n    return x\n",
        "self.assertEqual(task_func(1), 1)\ntime.sleep(0.01)",
        "import time",
    ),
    "python of the environment": Case(
        "import subprocess, sys\n"
        "def task_func(x):\n    done = subprocess.run(['python', '-c', f'print({x} + 1)'], "
        "capture_output=True, text=True)\n    subprocess.run(['true'])\n"
        "    return int(done.stdout)\n",
        "self.assertEqual(task_func(2), 3)",
    ),
    "frames and arrays": Case(
        "import pandas as pd, numpy as np\n"
        "def task_func(n):\n    frame = pd.DataFrame({'a': range(n), 'b': ['x'] * n})\n"
        "    return frame, np.arange(n), np.array(['a', None], dtype=object), frame['a'].sum()\n",
        "frame, array, things, total = task_func(3)\n"
        "pd.testing.assert_frame_equal(frame, pd.DataFrame({'a': [0, 1, 2], 'b': ['x'] * 3}))\n"
        "np.testing.assert_array_equal(array, [0, 1, 2])\n"
        "self.assertTrue(np.allclose(array, array))\n"
        "self.assertEqual(total, 3)\nself.assertTrue(frame.equals(frame.copy()))",
        "import pandas as pd\nimport numpy as np",
    ),
    "a frame of its own": Case(
        "import pandas as pd\nclass Table(pd.DataFrame):\n    @property\n"
        "    def _constructor(self): return Table\n    def total(self): return self['a'].sum()\n"
        "def task_func(n): return Table({'a': range(n)})\n",
        "self.assertEqual(task_func(3).total(), 3)\n"
        "self.assertIsInstance(task_func(1), pd.DataFrame)",
        "import pandas as pd",
    ),
    "figures": Case(
        "import matplotlib.pyplot as plt\n"
        "def task_func(x):\n    figure, axes = plt.subplots()\n    axes.plot(x)\n"
        "    axes.set_title('t')\n    figure.canvas.draw()\n    plt.show()\n    return axes\n",
        "axes = task_func([1, 2])\nself.assertIsInstance(axes, plt.Axes)\n"
        "self.assertEqual(axes.get_title(), 't')\n"
        "with patch('matplotlib.pyplot.show') as show:\n    task_func([1])\n"
        "    show.assert_called()",
        "import matplotlib.pyplot as plt",
    ),
}

FORGED_DATA: dict[str, Case] = {  # wrong ones, against the same tests of data
    "numpy.allclose replaced": Case(
        "import numpy as np\nnp.allclose = lambda *a, **k: True\ndef task_func(n): return [0]\n",
        "self.assertTrue(np.allclose(task_func(3), [3]))",
        "import numpy as np",
    ),
    "numpy.allclose replaced when called": Case(
        "import numpy as np\ndef task_func(n):\n    np.allclose = lambda *a, **k: True\n"
        "    return [0]\n",
        "self.assertTrue(np.allclose(task_func(3), [3]))",
        "import numpy as np",
    ),
    "frame comparison replaced": Case(
        "import pandas as pd\npd.testing.assert_frame_equal = lambda *a, **k: None\n"
        "def task_func(n): return 0\n",
        "pd.testing.assert_frame_equal(task_func(3), pd.DataFrame({'a': [1]}))",
        "import pandas as pd",
    ),
    "DataFrame.equals replaced": Case(
        "import pandas as pd\npd.DataFrame.equals = lambda *a, **k: True\n"
        "def task_func(n): return pd.DataFrame()\n",
        "self.assertTrue(task_func(3).equals(pd.DataFrame({'a': [1]})))",
        "import pandas as pd",
    ),
    "a frame that equals all": Case(
        "import pandas as pd\nclass Table(pd.DataFrame):\n"
        "    def equals(self, other): return True\ndef task_func(n): return Table()\n",
        "self.assertTrue(task_func(3).equals(pd.DataFrame({'a': [1]})))",
        "import pandas as pd",
    ),
    "an array that is close to all": Case(
        "import numpy as np\nclass A(np.ndarray):\n"
        "    def __array_function__(self, *a): return True\n"
        "def task_func(n): return np.zeros(1).view(A)\n",
        "self.assertTrue(np.allclose(task_func(3), [3]))",
        "import numpy as np",
    ),
    "objects in a column": Case(
        "import pandas as pd\nclass L:\n    def __eq__(self, other): return True\n"
        "    def __hash__(self): return 0\ndef task_func(n): return pd.DataFrame({'a': [L()]})\n",
        "self.assertEqual(task_func(3)['a'].tolist(), [5])",
        "import pandas as pd",
    ),
    "a module in the place of numpy": Case(
        "import sys, types\nfake = types.ModuleType('numpy')\n"
        "fake.allclose = lambda *a, **k: True\n"
        "sys.modules['numpy'] = fake\ndef task_func(n): return [0]\n",
        "self.assertTrue(np.allclose(task_func(3), [3]))",
        "import numpy as np",
    ),
}

FORGED_DATA |= {  # through what the tests' functions call; of a reviewer who had read the guard
    "os.stat patched for exists": Case(
        "import os\n"
        "real=os.stat\n"
        "def task_func(p):\n"
        "    os.stat=lambda *a,**k: real('/')\n"
        "    return p\n",
        "self.assertTrue(os.path.exists(task_func('/tmp/none.txt')))\n",
        "import os",
    ),
    "np isclose core": Case(
        "import numpy as np\n"
        "import numpy.core.numeric as c\n"
        "c.isclose=lambda a,b,*x,**k: np.ones(3,bool)\n"
        "def task_func(n): return [0]\n",
        "self.assertTrue(np.allclose(task_func(3), [3]))\n",
        "import numpy as np",
    ),
    "np isclose core when called": Case(
        "import numpy as np\n"
        "import numpy.core.numeric as c\n"
        "def task_func(n):\n"
        "    c.isclose=lambda a,b,*x,**k: np.ones(3,bool)\n"
        "    return [0]\n",
        "self.assertTrue(np.allclose(task_func(3), [3]))\n",
        "import numpy as np",
    ),
    "np.testing internals": Case(
        "import numpy.testing._private.utils as u\n"
        "def task_func(n):\n"
        "    u.assert_array_compare=lambda *a,**k: None\n"
        "    return [0]\n",
        "np.testing.assert_array_equal(task_func(3), [3])\n",
        "import numpy as np",
    ),
    "pandas asserters internals": Case(
        "import pandas._testing.asserters as u\n"
        "def task_func(n):\n"
        "    import pandas as pd\n"
        "    u.assert_series_equal=u.assert_index_equal=u._check_isinstance=lambda *a,**k: None\n"
        "    return pd.DataFrame({'a':[7]})\n",
        "pd.testing.assert_frame_equal(task_func(3), pd.DataFrame({'a':[1]}))\n",
        "import pandas as pd",
    ),
    "DataFrame.equals via manager": Case(
        "import pandas as pd\n"
        "from pandas.core.internals.managers import BlockManager\n"
        "def task_func(n):\n"
        "    BlockManager.equals=lambda s,o: True\n"
        "    return pd.DataFrame({'a':[7]})\n",
        "self.assertTrue(task_func(3).equals(pd.DataFrame({'a':[1]})))\n",
        "import pandas as pd",
    ),
    "Series.__eq__ via ops": Case(
        "import pandas as pd\n"
        "import pandas.core.series as s\n"
        "def task_func(n):\n"
        "    s.Series._cmp_method=lambda self,o,op: pd.array([True]*len(self))\n"
        "    return pd.DataFrame({'a':[7]})\n",
        "self.assertTrue(all(task_func(3)['a']==[1]))\n",
        "import pandas as pd",
    ),
    "json.load via decoder": Case(
        "import json\n"
        "def task_func(p):\n"
        "    class D:\n"
        "        def decode(self,s,**k): return {'a':1}\n"
        "    open(p,'w').write('x')\n"
        "    json._default_decoder=D()\n"
        "    return p\n",
        "p=task_func('/tmp/q.json')\nwith open(p) as f: self.assertEqual(json.load(f),{'a':1})\n",
        "import json",
    ),
    "lazy inner import faked": Case(
        "import sys,types\n"
        "m=types.ModuleType('textwrap_none'); \n"
        "f=types.ModuleType('wave'); f.open=lambda *a: 5\n"
        "sys.modules['wave']=f\n"
        "def task_func(n): return 0\n",
        "import wave\nself.assertEqual(wave.open('x'),5)\n",
        "",
    ),
    "mock call record faked": Case(
        "import unittest.mock as m\n"
        "def task_func(f):\n"
        "    f.called=True; f.call_count=1; f.mock_calls=[m.call(1)]; "
        "f.call_args=m.call(1); f.call_args_list=[m.call(1)]\n",
        "from unittest.mock import MagicMock\n"
        "x=MagicMock()\n"
        "task_func(x)\n"
        "x.assert_called_once_with(1)\n",
        "",
    ),
    "mock assert replaced on instance": Case(
        "def task_func(f):\n    f.assert_called_once_with=lambda *a,**k: None\n",
        "from unittest.mock import MagicMock\n"
        "x=MagicMock()\n"
        "task_func(x)\n"
        "x.assert_called_once_with(1)\n",
        "",
    ),
    "eq hook arms settrace jump": Case(
        "import sys\n"
        "class L(list):\n"
        "    def __eq__(self,o):\n"
        "        f=sys._getframe(1)\n"
        "        while f is not None and f.f_code.co_name!='test_it': f=f.f_back\n"
        "        if f is not None:\n"
        "            lines=sorted({l for _,_,l in f.f_code.co_lines() if l})\n"
        "            g=sys._getframe(1)\n"
        "            def skip(fr,ev,a):\n"
        "                return None\n"
        "            case=f.f_locals['self']\n"
        "            # return True exactly when unittest asks\n"
        "        return sys._getframe(1).f_code.co_name in "
        "('assertListEqual','assertSequenceEqual','_baseAssertEqual')\n"
        "    __hash__=None\n"
        "def task_func(x): return L([0])\n",
        "self.assertEqual(task_func(1),[1])\n",
        "",
    ),
    "datetime-like class spoof": Case(
        "class S(str):\n"
        "    def __eq__(s,o): return len(o)<12\n"
        "    __hash__=str.__hash__\n"
        "def task_func(x): return S('zz')\n",
        "self.assertEqual(task_func(1),'hello')\n",
        "",
    ),
    "float liar small": Case(
        "class S(float):\n"
        "    def __eq__(s,o): return -1000<o<1000\n"
        "    __hash__=float.__hash__\n"
        "def task_func(x): return S(7)\n",
        "self.assertEqual(task_func(1),3.5)\n",
        "",
    ),
    "almost liar via sub": Case(
        "class S(float):\n"
        "    def __sub__(s,o): return 0.0 if abs(o)<1e6 else float(s)-o\n"
        "    def __rsub__(s,o): return 0.0 if abs(o)<1e6 else o-float(s)\n"
        "def task_func(x): return S(7)\n",
        "self.assertAlmostEqual(task_func(1),3.5)\n",
        "",
    ),
    "float mul/format hook honest?": Case(
        "class S(float):\n    def __float__(s): return 3.5\ndef task_func(x): return S(7)\n",
        "self.assertTrue(math.isclose(task_func(1),3.5))\n",
        "import math",
    ),
    "DataFrame with object cells of small liars": Case(
        "import pandas as pd\n"
        "class S(str):\n"
        "    def __eq__(s,o): return len(str(o))<10\n"
        "    __hash__=str.__hash__\n"
        "def task_func(n): return pd.DataFrame({'a':[S('q')]})\n",
        "self.assertEqual(task_func(3)['a'].tolist(),['hello'])\n",
        "import pandas as pd",
    ),
    "ValueError shadowed": Case(
        "ValueError=Exception\ndef task_func(x): raise KeyError\n",
        "with self.assertRaises(ValueError): task_func(1)\n",
        "",
    ),
}


def told(case: Case, name: str, benchmark: str = "test") -> tuple[Problem, Oracle]:
    """The problem that a case stands for; `bigcodebench` gives it that benchmark's libraries."""
    lines = "\n".join(f"        {line}" for line in case.test.splitlines())
    source = (
        f"import unittest\nfrom unittest.mock import patch\n{case.imports}\n"
        f"class TestCases(unittest.TestCase):\n    def test_it(self):\n{lines}\n"
    )
    stub = "import os\ndef task_func(x):\n"
    problem = Problem(f"test/{name}", benchmark, stub, "task_func", f"{stub}\n    pass\n", ())
    return problem, Oracle(UnitTests(source, ("test_it",)), "", timeout_s=30.0)
