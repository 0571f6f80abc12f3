"""Programs that try to be graded better than they are, to do harm, or that are honest but odd.

`HOSTILE` are wrong solutions of `SQUARE`: whatever they do, they must not pass, must not see
`CANARY` or `SECRET`, and must leave no process behind. Where they find what they must not see, they
return `FOUND`. `HONEST` are right solutions of problems of their own, told as the body of a check;
`UNEQUAL` are results that the official `==` refuses although they look alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from harness.types import Assertions, Oracle, Problem, Verdict

CANARY = "sk-canary-5d0a6f"  # in our environment while hostile programs run
SECRET = "hidden-test-71c3e9"  # in the hidden tests
FOUND = "found it"
MARK = "31415926"  # seconds that a program's children sleep; tells them from all other processes

SQUARE = Problem("test/square", "test", "def square(x):\n", "square", prelude="", examples=())


def oracle(body: str, timeout_s: float = 5.0) -> Oracle:
    """A hidden check around statements on `candidate`."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    setup = f'SECRET = "{SECRET}"\n\ndef check(candidate):\n{lines}\n'
    tests = Assertions(("check(candidate)",), setup)
    return Oracle(tests, reference="", timeout_s=timeout_s, fresh=lambda: tests)


SQUARE_TESTS = "assert candidate(3) == 9\nassert candidate(-2) == 4"

WRONG, EXCEPTION, TIMEOUT = Verdict.WRONG, Verdict.EXCEPTION, Verdict.TIMEOUT
MEMORY, NO_CODE, NOT_LOADABLE = Verdict.MEMORY, Verdict.NO_CODE, Verdict.NOT_LOADABLE
TAMPERED, CRASHED = Verdict.TAMPERED, Verdict.CRASHED


@dataclass(frozen=True)
class Attack:
    """A hostile program, the verdicts that are right for it, and its time limit."""

    code: str
    verdicts: tuple[Verdict, ...]
    timeout_s: float = 5.0


def _returns(expression: str, before: str = "") -> str:
    return f"{before}\ndef square(x):\n    return {expression}\n"


def _when_called(statements: str, before: str = "") -> str:
    body = "\n".join(f"    {line}" for line in statements.strip().splitlines())
    return f"{before}\ndef square(x):\n{body}\n"


_LIAR = """
class Liar({base}):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __bool__(self): return True
"""

_WIRE = """
import os, stat, struct, sys
def is_socket(fd):
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False
FD = next(fd for fd in range(3, 1024) if is_socket(fd))
def put(kind, payload=b""):
    os.write(FD, struct.pack(">IB", len(payload), kind[0]) + payload)
"""

_DAEMON = """
import os
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv("/bin/sleep", ["sleep", "{mark}"])
        os._exit(0)
"""

_LOOKS_AT = """
def look(texts):
    wanted = ("sk-" + "canary-5d0a6f", "hidden-" + "test-71c3e9")
    return "found " + "it" if any(w in text for text in texts for w in wanted) else 0
def files(paths):
    for path in paths:
        try:
            with open(path, "rb") as file:
                yield file.read(1 << 20).decode("latin-1")
        except OSError:
            pass
"""


def _forged(payload: str) -> str:
    """A program that answers its call with a frame of its own making."""
    return _when_called(f"put({payload})", _WIRE)


_CROWD = """
import os, signal, time
def square(x):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in range(18):
        if os.fork() == 0:
            try:
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            except OSError:
                os.nice(19)
            while True: pass
    def spin():
        if os.fork() == 0:
            end = time.time() + 0.25
            while time.time() < end: pass
            os._exit(0)
    while True:
        for _ in range(4): spin()
        time.sleep(0.24)
"""

HOSTILE: dict[str, Attack] = {
    # results that lie about what they equal
    "object equal to all": Attack(_returns("Liar()", _LIAR.format(base="object")), (WRONG,)),
    "int equal to all": Attack(_returns("Liar(0)", _LIAR.format(base="int")), (WRONG,)),
    "float equal to all": Attack(_returns("Liar(0)", _LIAR.format(base="float")), (WRONG,)),
    "str equal to all": Attack(_returns("Liar('')", _LIAR.format(base="str")), (WRONG,)),
    "list equal to all": Attack(_returns("Liar()", _LIAR.format(base="list")), (WRONG,)),
    "tuple equal to all": Attack(_returns("Liar()", _LIAR.format(base="tuple")), (WRONG,)),
    "dict equal to all": Attack(_returns("Liar()", _LIAR.format(base="dict")), (WRONG,)),
    "nested liar": Attack(_returns("[Liar(0)]", _LIAR.format(base="int")), (WRONG,)),
    "class that claims to be int": Attack(
        _returns("C()", "class C:\n    __class__ = property(lambda self: int)"), (EXCEPTION, WRONG)
    ),
    "numpy array of ones": Attack(_returns("numpy.ones(4, dtype=bool)", "import numpy"), (WRONG,)),
    "nan": Attack(_returns("float('nan')"), (WRONG,)),
    "not implemented": Attack(_returns("NotImplemented"), (WRONG,)),
    "itself": Attack(_returns("square"), (WRONG,)),
    # tampering with what a grader would use
    "patched built-ins": Attack(
        _returns(
            "0",
            "import builtins\nbuiltins.AssertionError = type('A', (Exception,), {})\n"
            "builtins.sorted = builtins.abs = lambda *a: 9\nbuiltins.exec = lambda *a: None",
        ),
        (WRONG,),
    ),
    "patched unittest": Attack(
        _returns("0", "import unittest\nunittest.TestCase.assertEqual = lambda *a: None"), (WRONG,)
    ),
    "patched codec": Attack(
        _returns("0", "import sys\nsys.modules['wire'].dump = lambda value: b'{\"o\": 1}'"),
        (WRONG,),
    ),
    "patched channel": Attack(
        _returns("0", "import sys\nsys.modules['wire'].Channel.send = lambda *a: None"),
        (TIMEOUT,),
        0.5,
    ),
    "own check function": Attack(
        _returns(
            "0", "def check(candidate): pass\nimport sys\nsys.modules['__main__'].check = check"
        ),
        (WRONG,),
    ),
    # looking for the tests, or for our keys
    "walks the stack": Attack(
        _returns(
            "look(repr(vars_) for f in inspect.stack() "
            "for vars_ in (f.frame.f_globals, f.frame.f_locals))",
            "import inspect\n" + _LOOKS_AT,
        ),
        (WRONG,),
    ),
    "walks the heap": Attack(
        _returns(
            "look([o for o in gc.get_objects() if isinstance(o, str)] "
            "+ [repr(list(o.values())) for o in gc.get_objects() if type(o) is dict])",
            "import gc\n" + _LOOKS_AT,
        ),
        (WRONG,),
    ),
    "reads every environment": Attack(
        _returns(
            "look([repr(dict(os.environ)), *files(glob.glob('/proc/*/environ')), "
            "*files(glob.glob('/proc/*/cmdline'))])",
            "import glob, os\n" + _LOOKS_AT,
        ),
        (WRONG,),
    ),
    "reads its parent's memory": Attack(
        _when_called(
            """
for pid in {os.getppid(), 1}:
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for line in maps:
                start, end = (int(n, 16) for n in line.split()[0].split("-"))
                if "rw" in line and end - start < 1 << 26:
                    memory.seek(start)
                    if look([memory.read(end - start).decode("latin-1")]):
                        return "found " + "it"
    except (OSError, ValueError):
        pass
""",
            "import os\n" + _LOOKS_AT,
        ),
        (WRONG,),
    ),
    # ends that claim success
    "_exit at import": Attack("import os\nos._exit(0)\ndef square(x): pass", (CRASHED,)),
    "_exit when called": Attack(_when_called("os._exit(0)", "import os"), (CRASHED,)),
    "sys.exit at import": Attack("import sys\nsys.exit(0)\ndef square(x): pass", (NOT_LOADABLE,)),
    "sys.exit when called": Attack(_when_called("raise SystemExit(0)"), (EXCEPTION,)),
    "keyboard interrupt": Attack(_when_called("raise KeyboardInterrupt"), (EXCEPTION,)),
    "generator exit": Attack(_when_called("raise GeneratorExit"), (EXCEPTION,)),
    "assertion error": Attack(_when_called("raise AssertionError('passed')"), (EXCEPTION,)),
    "segmentation fault": Attack(_when_called("ctypes.string_at(0)", "import ctypes"), (CRASHED,)),
    "abort": Attack(_when_called("os.abort()", "import os"), (CRASHED,)),
    "kills its parent": Attack(
        _when_called("os.kill(os.getppid(), 9)", "import os"), (WRONG, CRASHED, EXCEPTION)
    ),
    "kills everyone": Attack(
        _when_called("os.kill(-1, 9)", "import os"), (WRONG, CRASHED, EXCEPTION)
    ),
    "stops itself": Attack(
        _when_called("os.kill(os.getpid(), signal.SIGSTOP)", "import os, signal"), (TIMEOUT,), 0.5
    ),
    # exceptions
    "str of the exception raises": Attack(
        _when_called("raise E", "class E(Exception):\n    def __str__(self): raise ValueError"),
        (EXCEPTION,),
    ),
    "str of the exception exits": Attack(
        _when_called("raise E", "class E(Exception):\n    def __str__(self): raise SystemExit(0)"),
        (EXCEPTION, CRASHED),
    ),
    "str of the exception is no str": Attack(
        _when_called("raise E", "class E(Exception):\n    def __str__(self): return 7"),
        (EXCEPTION,),
    ),
    "surrogate in the exception": Attack(
        _when_called("raise ValueError('\\ud800' + 'x' * 10**6)"), (EXCEPTION,)
    ),
    "exception with a lying class": Attack(
        _when_called(
            "raise E",
            "class M(type):\n    __name__ = property(lambda c: 1 / 0)\n"
            "class E(Exception, metaclass=M): pass",
        ),
        (EXCEPTION, CRASHED),
    ),
    "decode error": Attack(_when_called("return b'\\xff'.decode()"), (EXCEPTION,)),
    "endless recursion": Attack(_returns("square(x)"), (EXCEPTION,)),
    "recursion without a limit": Attack(
        _returns("square([x])", "import sys\nsys.setrecursionlimit(10**9)"),
        (CRASHED, EXCEPTION, MEMORY, TIMEOUT),
        1.0,
    ),
    # time
    "loop when called": Attack(_when_called("while True: pass"), (TIMEOUT,), 0.5),
    "loop at import": Attack("while True: pass\ndef square(x): pass", (TIMEOUT,), 0.5),
    "sleeps when called": Attack(_when_called("time.sleep(60)", "import time"), (TIMEOUT,), 0.5),
    "sleeps at import": Attack("import time\ntime.sleep(60)\ndef square(x): pass", (TIMEOUT,), 0.5),
    "deaf to signals": Attack(
        _when_called(
            "while True: pass",
            "import signal\nfor n in set(signal.Signals) - {9, 19}:\n"
            "    signal.signal(n, signal.SIG_IGN)",
        ),
        (TIMEOUT,),
        0.5,
    ),
    "catches all and goes on": Attack(
        _when_called(
            "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
        ),
        (TIMEOUT,),
        0.5,
    ),
    "waits for a thread": Attack(
        _when_called(
            "t = threading.Thread(target=time.sleep, args=(60,))\nt.start()\nt.join()",
            "import threading, time",
        ),
        (TIMEOUT,),
        0.5,
    ),
    "str of the exception loops": Attack(
        _when_called(
            "raise E", "class E(Exception):\n    def __str__(self):\n        while True: pass"
        ),
        (TIMEOUT,),
        0.5,
    ),
    # memory and size
    "asks for a terabyte": Attack(_returns("bytes(10**12)"), (MEMORY,)),
    "a terabyte at import": Attack("x = [0] * 10**12\ndef square(x): pass", (MEMORY,)),
    "endless generator": Attack(
        _returns("itertools.count()", "import itertools"), (TIMEOUT, MEMORY), 0.5
    ),
    "result over the frame size": Attack(_returns("'x' * (65 << 20)"), (WRONG,)),
    "large result": Attack(_returns("'x' * (20 << 20)"), (WRONG,)),
    "huge integer": Attack(_returns("1 << 200_000"), (WRONG,)),
    "deeply nested": Attack(
        _when_called("y = []\nfor _ in range(10**5): y = [y]\nreturn y"), (WRONG, CRASHED)
    ),
    "contains itself": Attack(_when_called("y = []\ny.append(y)\nreturn y"), (WRONG,)),
    "floods stdout and stderr": Attack(
        _when_called(
            "for _ in range(300):\n    print(line)\n    print(line, file=sys.stderr)",
            "import sys\nline = 'x' * 65536",
        ),
        (WRONG,),
    ),
    "endless output": Attack(
        _when_called("while True: print('x' * 65536, file=sys.stderr)", "import sys"),
        (TIMEOUT,),
        0.5,
    ),
    "fills its disk": Attack(
        _when_called(
            "for n in range(99):\n    with open(f'/tmp/{n}', 'wb') as f: f.write(bytes(8 << 20))"
        ),
        (EXCEPTION,),
    ),
    "fills shared memory": Attack(
        _when_called(
            "for n in range(99):\n"
            "    with open(f'/dev/shm/{n}', 'wb') as f: f.write(bytes(8 << 20))"
        ),
        (EXCEPTION,),
    ),
    "one file that is too large": Attack(
        _when_called("with open('/tmp/x', 'wb') as f: f.write(bytes(65 << 20))"), (EXCEPTION,)
    ),
    # processes
    "daemon": Attack(_when_called("daemon()", _DAEMON.format(mark=MARK)), (WRONG,)),
    "daemon and exit": Attack(
        _when_called("daemon()\nos._exit(0)", _DAEMON.format(mark=MARK)), (CRASHED,)
    ),
    "daemon and time-out": Attack(
        _when_called("daemon()\nwhile True: pass", _DAEMON.format(mark=MARK)), (TIMEOUT,), 0.5
    ),
    "daemon at import": Attack(_returns("0", _DAEMON.format(mark=MARK) + "daemon()"), (WRONG,)),
    "many children": Attack(
        _when_called(
            "for _ in range(60):\n    if os.fork() == 0:\n"
            f"        os.execv('/bin/sleep', ['sleep', '{MARK}'])\ntime.sleep(9)",
            "import os, time",
        ),
        (CRASHED,),
    ),
    # time: what it waits for its own crowd is no excuse, nor does CPU time vanish with its children
    "hides behind a crowd of idle children": Attack(_CROWD, (TIMEOUT,), 0.5),
    "sleeps beside a crowd of idle children": Attack(
        _CROWD.replace(
            "    while True:\n        for _", "    time.sleep(60)\n    while True:\n        for _"
        ),
        (TIMEOUT,),
        0.5,
    ),
    "loops in a crowd": Attack(
        _when_called("for _ in range(4):\n    os.fork()\nwhile True: pass", "import os"),
        (TIMEOUT,),
        0.5,
    ),
    "children too short to be seen": Attack(
        _when_called(
            "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
            "def burst():\n    end = time.monotonic() + 0.02\n"
            "    while time.monotonic() < end: pass\n"
            "while True:\n    if os.fork() == 0:\n        burst()\n        os._exit(0)\n"
            "    time.sleep(0.004)",
            "import os, signal, time",
        ),
        (TIMEOUT, EXCEPTION, CRASHED),
        0.5,
    ),
    # bounded: as root no limit of the kernel holds, and 2**n processes are a burden to all
    "fork bomb": Attack(
        _when_called("for _ in range(8): os.fork()\ntime.sleep(30)", "import os, time"),
        (CRASHED, EXCEPTION),
    ),
    "thread bomb": Attack(
        _when_called(
            "for _ in range(5000):\n"
            "    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
            "import threading, time",
        ),
        (EXCEPTION, TIMEOUT, CRASHED, MEMORY),
        1.0,
    ),
    # forged frames
    "forged end": Attack(_forged("b'D'"), (TAMPERED,)),
    "forged test": Attack(_forged("""b'T', b'{"outcome": "passed", "detail": ""}'"""), (TAMPERED,)),
    "forged garbage for a result": Attack(_forged("b'R', b'\\xff\\x00['"), (WRONG,)),
    "forged untagged result": Attack(_forged("b'R', b'[9]'"), (WRONG,)),
    "forged unknown tag": Attack(_forged("""b'R', b'{"zz": 9}'"""), (WRONG,)),
    "forged two tags": Attack(_forged("""b'R', b'{"l": [], "t": []}'"""), (WRONG,)),
    "forged division by zero": Attack(_forged("""b'R', b'{"F": [1, 0]}'"""), (WRONG,)),
    "forged unhashable key": Attack(_forged("""b'R', b'{"s": [{"l": []}]}'"""), (WRONG,)),
    "forged depth": Attack(_forged("""b'R', b'{"l":[' * 10**5"""), (WRONG, CRASHED)),
    "forged garbage for an error": Attack(_forged("b'X', b'[]'"), (WRONG,)),
    "forged class that is no class": Attack(
        _forged("""b'X', b'{"class": "x", "base": "print", "message": ""}'"""), (WRONG, EXCEPTION)
    ),
    "forged exit of the judge": Attack(
        _forged("""b'X', b'{"class": "x", "base": "SystemExit", "message": ""}'"""), (EXCEPTION,)
    ),
    "forged length": Attack(_when_called("os.write(FD, b'\\xff' * 5)", _WIRE), (TAMPERED,)),
    "half a frame": Attack(
        _when_called("os.write(FD, b'\\0\\0\\1\\0R')\nwhile True: pass", _WIRE), (TIMEOUT,), 0.5
    ),
    "closes the channel": Attack(_when_called("os.close(FD)\nwhile True: pass", _WIRE), (CRASHED,)),
    "forged garbage at import": Attack(_returns("0", _WIRE + "put(b'E', b'garbage')"), (TAMPERED,)),
    "forged error without its fields": Attack(
        _returns("0", _WIRE + "put(b'E', b'{}')"), (TAMPERED,)
    ),
    "forged depth at import": Attack(_returns("0", _WIRE + "put(b'E', b'[' * 10**5)"), (TAMPERED,)),
    "forged number at import": Attack(
        _returns("0", _WIRE + "put(b'E', b'9' * 10**5)"), (TAMPERED,)
    ),
    "forged end at import": Attack(_returns("0", _WIRE + "put(b'D')"), (TAMPERED,)),
    "forged results ahead of the calls": Attack(
        _returns("0", _WIRE + "put(b'O')\nfor _ in range(9): put(b'R', b'0')"), (WRONG,)
    ),
    # no program
    "empty": Attack("  \n", (NO_CODE,)),
    "another function": Attack("def cube(x): return x ** 3", (NO_CODE,)),
    "a comment": Attack("# square", (NO_CODE,)),
    "not a function": Attack("square = 9", (NO_CODE,)),
    "a method of a class": Attack(
        "class Solution:\n    def square(self, x): return x * x", (NO_CODE,)
    ),
    "syntax error": Attack("def square(x) return x * x", (NOT_LOADABLE,)),
    "null byte": Attack("def square(x): return x * x\0", (NOT_LOADABLE,)),
    "parser overflow": Attack("def square(x): return " + "(" * 5000, (NOT_LOADABLE, MEMORY)),
    "raises at import": Attack("1 / 0\ndef square(x): return x * x", (NOT_LOADABLE,)),
    "absent package": Attack("import torch\ndef square(x): return x * x", (NOT_LOADABLE,)),
    # ordinary failures
    "empty body": Attack("def square(x): pass", (WRONG,)),
    "returns None": Attack("def square(x): return None", (WRONG,)),
    "echo": Attack("def square(x): return x", (WRONG,)),
    "right for one test only": Attack("def square(x): return 9", (WRONG,)),
    "wrong number of arguments": Attack("def square(): return 9", (EXCEPTION,)),
    "coroutine": Attack("async def square(x): return x * x", (WRONG,)),
    "result in a list": Attack("def square(x): return [x * x]", (WRONG,)),
    "result as text": Attack("def square(x): return str(x * x)", (WRONG,)),
}


class Case(NamedTuple):
    """A program for the entry point `solve`, and statements on `candidate`."""

    code: str
    check: str


HONEST: dict[str, Case] = {
    "numpy scalar": Case(
        "import numpy as np\ndef solve(x): return np.sum(x)", "assert candidate([1, 2]) == 3"
    ),
    "numpy float": Case(
        "import numpy as np\ndef solve(x): return np.mean(x)",
        "assert abs(candidate([1, 2]) - 1.5) < 1e-9",
    ),
    "numpy bool": Case(
        "import numpy as np\ndef solve(x): return np.bool_(x)", "assert candidate(1) == True"
    ),
    "list of numpy scalars": Case(
        "import numpy as np\ndef solve(x): return list(np.sort(x))",
        "assert candidate([2, 1]) == [1, 2]",
    ),
    "numpy array read as a list": Case(
        "import numpy as np\ndef solve(x): return np.sort(x)",
        "assert list(candidate([2, 1])) == [1, 2]",
    ),
    "numpy array of one item": Case(
        "import numpy as np\ndef solve(x): return np.array([x])", "assert candidate(3) == 3"
    ),
    "named tuple": Case(
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\n"
        "def solve(x): return P(x, x + 1)",
        "assert candidate(1) == (1, 2)",
    ),
    "counter": Case(
        "from collections import Counter\ndef solve(x): return Counter(x)",
        "assert candidate('aab') == {'a': 2, 'b': 1}",
    ),
    "default dictionary": Case(
        "from collections import defaultdict\ndef solve(x):\n    d = defaultdict(list)\n"
        "    d[1].append(x)\n    return d",
        "assert candidate(5) == {1: [5]}",
    ),
    "keys equal to a set": Case(
        "def solve(x): return dict.fromkeys(x).keys()", "assert candidate('ab') == {'a', 'b'}"
    ),
    "frozen set": Case("solve = frozenset", "assert candidate([1]) == {1}"),
    "generator read by the test": Case(
        "def solve(x):\n    yield from x", "assert list(candidate([1, 2])) == [1, 2]"
    ),
    "range read by the test": Case("solve = range", "assert [*candidate(3)] == [0, 1, 2]"),
    "decimal": Case(
        "from decimal import Decimal\ndef solve(x): return Decimal(x)",
        "assert candidate('1.50') == 1.5",
    ),
    "fraction": Case(
        "from fractions import Fraction\ndef solve(x): return Fraction(x, 4)",
        "assert candidate(2) == 0.5",
    ),
    "complex and bytes": Case(
        "def solve(x): return (complex(0, x), bytes([x]), bytearray([x]))",
        "assert candidate(1) == (1j, b'\\x01', bytearray(b'\\x01'))",
    ),
    "enumerations": Case(
        "import enum\nclass I(enum.IntEnum):\n    A = 1\nclass S(str, enum.Enum):\n    B = 'b'\n"
        "def solve(x): return [I.A, S.B, True]",
        "assert candidate(0) == [1, 'b', 1]",
    ),
    "infinity and minus zero": Case(
        "class F(float): pass\ndef solve(x): return [float('inf'), F(-0.0)]",
        "import math\nassert candidate(0)[0] == math.inf\n"
        "assert math.copysign(1, candidate(0)[1]) == -1",
    ),
    "text with every kind of character": Case(
        "def solve(x): return x + '\\ud800\\0é\\U0001f600'",
        "assert candidate('é') == 'é\\ud800\\0é\\U0001f600'",
    ),
    "large integers": Case("def solve(x): return x ** 5000", "assert candidate(7) == 7 ** 5000"),
    "cached by a decorator": Case(
        "from functools import lru_cache\n@lru_cache(None)\n"
        "def solve(n): return n if n < 2 else solve(n - 1) + solve(n - 2)",
        "assert candidate(80) == 23416728348467685",
    ),
    "partial function": Case(
        "from functools import partial\nsolve = partial(pow, 2)", "assert candidate(3) == 8"
    ),
    "unpacked into a name": Case("solve, other = (lambda x: x), 1", "assert candidate(3) == 3"),
    "callable object": Case(
        "class S:\n    def __call__(self, x): return x\nsolve = S()", "assert candidate(3) == 3"
    ),
    "bound method": Case(
        "class S:\n    def solve(self, x): return x\nsolve = S().solve", "assert candidate(3) == 3"
    ),
    "defined under try": Case(
        "try:\n    import nothing_like_it\nexcept ImportError:\n    def solve(x): return x",
        "assert candidate(3) == 3",
    ),
    "defined by exec": Case("exec('def solve(x): return x')", "assert candidate(3) == 3"),
    "async helper": Case(
        "import asyncio\nasync def helper(x): return x\n"
        "def solve(x): return asyncio.run(helper(x))",
        "assert candidate(3) == 3",
    ),
    "dataclass with postponed annotations": Case(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass(order=True)\nclass P:\n    x: int\ndef solve(x): return max(P(1), P(x)).x",
        "assert candidate(3) == 3",
    ),
    "uses the prelude": Case(
        "def solve(x: List[int]) -> Optional[int]: return helper(x)", "assert candidate([1]) == 1"
    ),
    "prints and logs": Case(
        "import logging, sys\ndef solve(x):\n    print(x)\n    logging.error('x')\n"
        "    sys.stdout.flush()\n    return x",
        "assert candidate(3) == 3",
    ),
    "reads a terminal that is not there": Case(
        "def solve(x):\n    try:\n        return input()\n    except EOFError:\n        return x",
        "assert candidate(3) == 3",
    ),
    "main guard": Case(
        "def solve(x): return x\nif __name__ == '__main__':\n    raise SystemExit",
        "assert candidate(3) == 3",
    ),
    "windows lines and tabs": Case(
        "def solve(x):\r\n\ty = x\r\n\treturn y\r\n", "assert candidate(3) == 3"
    ),
    "temporary file": Case(
        "import tempfile\ndef solve(x):\n    with tempfile.TemporaryFile('w+') as f:\n"
        "        f.write(x)\n        f.seek(0)\n        return f.read()",
        "assert candidate('a') == 'a'",
    ),
    "thread pool": Case(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def solve(x):\n    with ThreadPoolExecutor(2) as pool:\n"
        "        return list(pool.map(abs, x))",
        "assert candidate([-1, 2]) == [1, 2]",
    ),
    "process pool": Case(
        "import multiprocessing\n"
        "def solve(x):\n    with multiprocessing.Pool(2) as pool:\n        return pool.map(abs, x)",
        "assert candidate([-1, 2]) == [1, 2]",
    ),
    "deep recursion": Case(
        "import sys\nsys.setrecursionlimit(20000)\n"
        "def solve(n): return 0 if n == 0 else 1 + solve(n - 1)",
        "assert candidate(5000) == 5000",
    ),
    "keyword arguments": Case("def solve(*, a, b=2): return a + b", "assert candidate(a=1) == 3"),
    "deque read by the test": Case(
        "from collections import deque\nsolve = deque",
        "assert set(candidate([1, 2])) == {1, 2}\nassert len(candidate([1, 2])) == 2",
    ),
    "user's own list": Case(
        "from collections import UserList\nsolve = UserList", "assert candidate([1]) == [1]"
    ),
    "asks who it is": Case(
        "import getpass, grp, os, pwd\ndef solve(x):\n    user = pwd.getpwuid(os.getuid())\n"
        "    return [getpass.getuser() == user.pw_name, os.path.expanduser('~' + user.pw_name),\n"
        "            len(grp.getgrgid(user.pw_gid).gr_name)]",
        "import os\nassert candidate(0)[0]\nassert candidate(0)[1].startswith('/')",
    ),
    "steps back behind others": Case(
        "import os\ndef solve(x):\n    os.nice(1)\n    os.setpriority(os.PRIO_PROCESS, 0, 5)\n"
        "    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))\n    return x",
        "assert candidate(1) == 1",
    ),
    "many open files": Case(
        "def solve(x): return len([open('/dev/null') for _ in range(900)])",
        "assert candidate(0) == 900",
    ),
    "raises what the test expects": Case(
        "def solve(x): raise KeyError(x)",
        "try:\n    candidate(1)\nexcept KeyError:\n    pass\nelse:\n    assert False",
    ),
}
HONEST_PRELUDE = """from typing import List, Optional

def helper(x):
    return x[0]

def solve(x):
    pass
"""

UNEQUAL: dict[str, Case] = {
    "tuple and list": Case("solve = tuple", "assert candidate([1]) == [1]"),
    "range and list": Case("solve = range", "assert candidate(2) == [0, 1]"),
    "generator and list": Case("def solve(x):\n    yield x", "assert candidate(1) == [1]"),
    "map and list": Case("def solve(x): return map(abs, x)", "assert candidate([1]) == [1]"),
    "values and list": Case("def solve(x): return {1: x}.values()", "assert candidate(2) == [2]"),
    "text and number": Case("solve = str", "assert candidate(1) == 1"),
    "bytes and text": Case("def solve(x): return x.encode()", "assert candidate('a') == 'a'"),
    "set and list": Case("solve = set", "assert candidate([1]) == [1]"),
    "deque and list": Case(
        "from collections import deque\nsolve = deque", "assert candidate([1]) == [1]"
    ),
    "numpy array and list": Case(
        "import numpy as np\nsolve = np.array", "assert candidate([1, 2]) == [1, 2]"
    ),
}
