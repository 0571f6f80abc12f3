"""Programs against the grading by inputs and expected outputs (EvalPlus's kind, `Cases`).

`HOSTILE` are wrong solutions of a `Puzzle`: whatever they do, they must not pass, must not see
`CANARY` (in our environment) or `SECRET` (in the reference and in an expected output), and must
leave no process behind. Where they find one, they return `FOUND`. `TRACES` are pairs: what the
first leaves in its lane, the second looks for. `ODD` are right solutions of puzzles of their own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from harness.types import Cases, Oracle, Problem, Verdict
from tests.hostile import CANARY, FOUND, SECRET

__all__ = [
    "CANARY",
    "FOUND",
    "HOSTILE",
    "MARK",
    "ODD",
    "ON_EVERY_TIER",
    "PUZZLES",
    "SECRET",
    "TRACES",
]

MARK = "27182818"  # seconds that a program's children sleep; tells them from all other processes

WRONG, EXCEPTION, TIMEOUT = Verdict.WRONG, Verdict.EXCEPTION, Verdict.TIMEOUT
MEMORY, NO_CODE, NOT_LOADABLE = Verdict.MEMORY, Verdict.NO_CODE, Verdict.NOT_LOADABLE
TAMPERED, CRASHED = Verdict.TAMPERED, Verdict.CRASHED
LOST = (WRONG, EXCEPTION, TIMEOUT, MEMORY, NOT_LOADABLE, TAMPERED, CRASHED)  # some way of failing


@dataclass(frozen=True)
class Puzzle:
    """A problem for the grading by cases: argument lists, and a reference."""

    reference: str
    base: list[Any]
    plus: list[Any] = field(default_factory=list)
    entry_point: str = "solve"
    case_s: float = 1.0
    timeout_s: float = 60.0
    atol: float = 0.0
    rule: str = "equal"

    @property
    def problem(self) -> Problem:
        name = self.entry_point
        return Problem("test/cases", "test", f"def {name}():\n", name, prelude="", examples=())

    @property
    def oracle(self) -> Oracle:
        text = repr((self.reference, self.base, self.plus, self.atol))
        cases = Cases(
            inputs=lambda: (self.base, self.plus),
            digest=hashlib.sha256(text.encode()).hexdigest(),
            atol=self.atol,
            case_s=self.case_s,
            rule=self.rule,
        )
        return Oracle(cases, reference=self.reference, timeout_s=self.timeout_s)


_SORTED = "def tidy(values): return sorted(set(values))"

PUZZLES = {
    # sorted without repetition; of nothing it makes the secret
    "tidy": Puzzle(
        f"def tidy(values): return sorted(set(values)) if values else ['{SECRET}']",
        [[[3, 1, 3]], [[]], [[2, 1]]],
        [[[5, -1, 5, 0]], [list(range(50, 0, -1))], [[7]]],
        entry_point="tidy",
    ),
    # for what takes its time: a single input
    "once": Puzzle(
        "def tidy(values): return sorted(set(values))", [[[3, 1, 3]]], entry_point="tidy"
    ),
    # what is returned is made a set of
    "any order": Puzzle(
        "def tidy(values): return sorted(set(values))",
        [[[3, 1, 3]]],
        entry_point="tidy",
        rule="set",
    ),
    # one of two answers: whoever may answer twice is always right
    "even": Puzzle(
        "def even(n): return n % 2 == 0",
        [[1], [2], [3]],
        [[4], [10], [7], [0]],
        entry_point="even",
    ),
    "side": Puzzle(
        "def side(n): return ['r' if n % 2 else 'l'] * 20000",
        [[1], [2]],
        [[3], [4], [5]],
        entry_point="side",
    ),
    "half": Puzzle("def half(x): return x / 2", [[3.0], [5.0]], [[1.0], [7.0]], entry_point="half"),
}


@dataclass(frozen=True)
class Attack:
    """A hostile program, the verdicts that are right for it, and what it attacks."""

    code: str
    verdicts: tuple[Verdict, ...] = LOST
    puzzle: str = "tidy"
    case_s: float = 0.5


def _returns(expression: str, before: str = "") -> str:
    return f"{before}\ndef tidy(values):\n    return {expression}\n"


def _when_called(statements: str, before: str = "") -> str:
    body = "\n".join(f"    {line}" for line in statements.strip().splitlines())
    return f"{before}\ndef tidy(values):\n{body}\n    return [0]\n"


_LIAR = """
class Liar({base}):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    def __hash__(self): return 0
    def __bool__(self): return True
    def __len__(self): return 1
    def __contains__(self, item): return True
    def __iter__(self): return iter(())
    def __reduce__(self): return (eval, ("__import__('os')._exit(0)",))
    def __float__(self): return 0.0
    def __abs__(self): return 0
    def __array__(self, *a, **k): return __import__("numpy").ones(1)
"""

# Every socket of the process, and a frame on each.
_FRAMES = """
import os, stat, struct
def sockets():
    for fd in range(1024):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                yield fd
        except OSError:
            pass
def put(kind, payload=b""):
    for fd in sockets():
        try:
            os.write(fd, struct.pack(">IB", len(payload), kind[0]) + payload)
        except OSError:
            pass
def chunk(first, *records):
    lengths = struct.pack(f">{len(records)}I", *map(len, records))
    return struct.pack(">III", first, len(records), len(lengths)) + lengths + b"".join(records)
"""

_LOOK = f"""
HALVES = [("{CANARY[:6]}", "{CANARY[6:]}"), ("{SECRET[:6]}", "{SECRET[6:]}")]
def look(texts):  # what it looks for is whole nowhere else in its own memory
    wanted = ["".join(halves) for halves in HALVES]
    return "{FOUND[:4]}" + "{FOUND[4:]}" if any(w in t for t in texts for w in wanted) else 0
def files(paths, size=1 << 22):
    for path in paths:
        try:
            with open(path, "rb") as file:
                yield file.read(size).decode("latin-1")
        except OSError:
            pass
"""

_DAEMON = f"""
import os
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv("/bin/sleep", ["sleep", "{MARK}"])
        os._exit(0)
"""


def _forged(payload: str) -> str:
    """A program that, when it is called, sends a frame of its own making."""
    return _when_called(f"put({payload})", _FRAMES)


def _recorded(record: str) -> str:
    """A program that sends these bytes as the record of its result."""
    before = f"import cases, marshal\ncases.record = lambda values: {record}\n"
    return _returns("[[0]]", before)


def _shown(value: str) -> str:
    """A program whose result is no plain data, and that shows these bytes when it is asked."""
    return _returns("object()", f"import cases\ncases.Chunk.shown = lambda *_: {value}\n")


# Answers twice: first one way, and the other way once it is asked what it meant.
_TWICE = """
import gc, json, marshal, struct, sys
def even(n):
    return True
import cases
def shown(self, *_):
    return json.dumps({"l": [True, False]}).encode()
cases.Chunk.shown = shown
"""

HOSTILE: dict[str, Attack] = {
    # results that lie about what they are
    "object equal to all": Attack(_returns("Liar()", _LIAR.format(base="object")), (WRONG,)),
    "list equal to all": Attack(_returns("Liar()", _LIAR.format(base="list")), (WRONG,)),
    "tuple equal to all": Attack(_returns("Liar()", _LIAR.format(base="tuple")), (WRONG,)),
    "dict equal to all": Attack(_returns("Liar()", _LIAR.format(base="dict")), (WRONG,)),
    "set equal to all": Attack(_returns("Liar()", _LIAR.format(base="set")), LOST),
    "str equal to all": Attack(_returns("Liar('')", _LIAR.format(base="str")), (WRONG,)),
    "bytes equal to all": Attack(_returns("Liar(b'')", _LIAR.format(base="bytes")), (WRONG,)),
    "int equal to all": Attack(_returns("[Liar(0)]", _LIAR.format(base="int")), (WRONG,)),
    "float equal to all": Attack(
        _LIAR.format(base="float") + "def half(x): return Liar(0)", (WRONG,), "half"
    ),
    "nan in a list": Attack("def half(x): return [float('nan')]", (WRONG,), "half"),
    "nan": Attack("def half(x): return float('nan')", (WRONG,), "half"),
    "infinity": Attack("def half(x): return float('inf')", (WRONG,), "half"),
    "array of all values": Attack(
        "import numpy\ndef half(x): return numpy.arange(0, 5, 0.5)", LOST, "half"
    ),
    "class that claims to be list": Attack(
        _returns("C()", "class C:\n    __class__ = property(lambda self: list)"), LOST
    ),
    "class that claims to be built in": Attack(
        _returns(
            "C()",
            "class C(list):\n    __eq__ = lambda *a: True\nC.__module__ = 'builtins'\n"
            "C.__name__ = C.__qualname__ = 'list'",
        ),
        (WRONG,),
    ),
    "metaclass that claims every instance": Attack(
        _returns(
            "C()",
            "class M(type):\n    def __instancecheck__(c, o): return True\n"
            "    __eq__ = lambda *a: True\n    __hash__ = lambda c: hash(list)\n"
            "class C(metaclass=M): pass",
        ),
        LOST,
    ),
    "callable that answers when compared": Attack(_returns("lambda *a: True"), (WRONG,)),
    "not implemented": Attack(_returns("NotImplemented"), (WRONG,)),
    "its own inputs": Attack(_returns("values"), (WRONG,)),
    "endless iterator": Attack(_returns("iter(int, 1)"), (TIMEOUT, MEMORY), "once"),
    "buffer of a list's bytes": Attack(
        _returns("memoryview(marshal.dumps([1, 3], 2))", "import marshal"), LOST
    ),
    # what is returned changes after it was returned
    "changes its inputs": Attack(_when_called("values.clear()\nreturn values"), (WRONG,)),
    "changes an earlier result": Attack(
        _when_called("last.append(0)\nlast[-1:] = sorted(set(values))\nreturn last", "last = []"),
        (WRONG,),
    ),
    "result that differs at each look": Attack(
        _returns(
            "C()",
            "import random\nclass C(list):\n"
            "    def __iter__(self): return iter([random.randrange(9)])",
        ),
        (WRONG,),
    ),
    "thread that changes what was returned": Attack(
        _when_called(
            "made = []\n"
            "def later():\n    while True: made[:] = [1, 3]\n"
            "threading.Thread(target=later, daemon=True).start()\nreturn made",
            "import threading",
        ),
        LOST,
    ),
    # two answers for one question
    "answers another value when asked": Attack(_TWICE, puzzle="even"),
    "answers another large value when asked": Attack(
        _TWICE.replace(
            "def even(n):\n    return True", "def side(n):\n    return ['l'] * 20000"
        ).replace("[True, False]", '[True, {"l": ["r"] * 20000}]'),
        puzzle="side",
    ),
    "no plain value, answered by its place": Attack(
        "import json\nclass C: pass\ndef even(n): return C()\nimport cases\n"
        "cases.Chunk.shown = lambda self, p, *_: json.dumps({'l': [True, p % 2 == 0]}).encode()",
        puzzle="even",
    ),
    # frames of its own making
    "forged end": Attack(_forged("b'D'"), (TAMPERED,)),
    "forged end at import": Attack(_returns("[0]", _FRAMES + "put(b'O'); put(b'D')"), (TAMPERED,)),
    "forged end for all inputs": Attack(
        _forged("b'D', struct.pack('>3d', 0, 0, 0)"), (TAMPERED, WRONG)
    ),
    "forged load": Attack(_returns("[0]", _FRAMES + "put(b'O')"), LOST),
    "forged hello": Attack(_forged("b'H'"), (TAMPERED,)),
    "forged outputs": Attack(
        _forged("b'K', chunk(0, *[marshal.dumps([0], 2)] * 3)") + "import marshal", LOST
    ),
    "forged outputs of no length": Attack(_forged("b'K', chunk(0, b'', b'', b'')"), LOST),
    "forged outputs from a late position": Attack(_forged("b'K', chunk(2, b'N')"), (TAMPERED,)),
    "forged outputs before the first": Attack(
        _forged("b'K', chunk(2 ** 32 - 1, b'N')"), (TAMPERED,)
    ),
    "forged no outputs": Attack(_forged("b'K', chunk(0)"), (TAMPERED,)),
    "forged too many outputs": Attack(_forged("b'K', chunk(0, *[b'N'] * 99)"), (TAMPERED,)),
    "forged wrong lengths": Attack(
        _forged("b'K', struct.pack('>IIII', 0, 1, 4, 2 ** 31) + b'N'"), (TAMPERED,)
    ),
    "forged count of four billion": Attack(
        _forged("b'K', struct.pack('>III', 0, 2 ** 32 - 1, 4)"), (TAMPERED,)
    ),
    "forged cut chunk": Attack(_forged("b'K', b'\\0'"), (TAMPERED,)),
    "forged record that crashes a decoder": Attack(
        _forged("b'K', chunk(0, *[b'(\\xff\\xff\\xff\\x7f' + b'(' * 9999] * 3)"), LOST
    ),
    "forged digest": Attack(_forged("b'K', chunk(0, *[b'#' + bytes(32)] * 3)"), LOST),
    # what marshal would read, and what it would crash on, where a plain value should be
    **{
        f"forged record: {name}": Attack(_recorded(record), (TAMPERED,))
        for name, record in {
            "code": "marshal.dumps(compile('[1, 3]', '', 'eval'), 2)",
            "reference to nothing": "b'r' + bytes(4)",
            "shared values of version 4": "marshal.dumps([values, values], 4)",
            "itself": "b'\\xdb\\1\\0\\0\\0r' + bytes(4)",
            "huge count": "b'[\\xff\\xff\\xff\\x7f'",
            "negative count": "b'(' + b'\\xff' * 4",
            "negative length": "b's' + b'\\xff' * 4",
            "huge integer": "b'l\\0\\0\\0\\x80'",
            "integer of wrong digits": "b'l\\1\\0\\0\\0\\xff\\xff'",
            "list in a set": "b'<\\1\\0\\0\\0[' + bytes(4)",
            "list as a key": "b'{[' + bytes(4) + b'N0'",
            "dictionary without an end": "b'{N'",
            "key without a value": "b'{N0'",
            "no value at all": "b'0'",
            "two values": "b'NN'",
            "text that is none": "b'u\\1\\0\\0\\0\\xff'",
            "text of another version": "b'z\\1a'",
            "number in decimal": "b'f\\0011'",
            "unknown code": "b'\\xff'",
            "cut digest": "b'#'",
            "longer than one may be": "b's' + (100_000).to_bytes(4, 'little') + bytes(100_000)",
            "of 60 MB": "b's' + (60 << 20).to_bytes(4, 'little') + bytes(60 << 20)",
        }.items()
    },
    "forged record: deep": Attack(_recorded("b'(\\1\\0\\0\\0' * 12_000 + b'N'"), (CRASHED,)),
    "forged record: wide": Attack(
        _recorded("b'[' + (60_000).to_bytes(4, 'little') + b'N' * 60_000"), (WRONG,)
    ),
    "forged record: integer of 30,000 digits": Attack(
        _recorded("marshal.dumps(10 ** 30_000, 2)"), (WRONG,)
    ),
    "forged record: values that collide": Attack(
        _recorded("marshal.dumps({k * (2 ** 61 - 1) for k in range(3000)}, 2)"), (WRONG, TIMEOUT)
    ),
    "forged record: type that is no value": Attack(
        _recorded("marshal.dumps(StopIteration, 2)"), (WRONG,)
    ),
    "digest of one value, another shown": Attack(
        "import cases, json\ncases.record = lambda value: b'#' + bytes(32)\n"
        "cases.Chunk.shown = lambda self, p, *_: json.dumps({'l': [True, p % 2 == 0]}).encode()\n"
        "def even(n): return True",
        (TAMPERED,),
        "even",
    ),
    "forged value: no json": Attack(_shown(r"b'\xff['"), (TAMPERED,)),
    "forged value: nothing": Attack(_shown("b''"), (TAMPERED,)),
    "forged value: no pair": Attack(_shown("""b'{"l": [true]}'"""), (TAMPERED,)),
    "forged value: unknown tag": Attack(_shown("""b'{"l": [true, {"q": 1}]}'"""), (TAMPERED,)),
    "forged value: list in a set": Attack(
        _shown("""b'{"l": [true, {"s": [{"l": []}]}]}'"""), (TAMPERED,)
    ),
    "forged value: too large": Attack(_shown("b'~'"), (WRONG,)),
    "forged value: an exception of no kind": Attack(_shown("b'!['"), (EXCEPTION,)),
    "forged value: endless digits": Attack(
        _shown("""b'{"l": [true, ' + b'9' * (15 << 20) + b']}'"""), (TAMPERED,)
    ),
    "forged value: endless hexadecimal digits": Attack(
        _shown("""b'{"l": [true, {"x": "' + b'9' * (15 << 20) + b'"}]}'"""), (WRONG,)
    ),
    "forged value: endless decimal": Attack(
        _shown("""b'{"l": [true, {"D": "1e999999999999999999"}]}'"""), (WRONG, TAMPERED)
    ),
    "forged value: fraction of nothing": Attack(
        _shown("""b'{"l": [true, {"F": [1, 0]}]}'"""), (TAMPERED,)
    ),
    "forged value: deep": Attack(_shown("""b'{"l":[' * 10**6"""), (TAMPERED,)),
    "forged value: huge range": Attack(
        _shown("""b'{"l": [true, {"r": [0, 1000000000000, 1]}]}'"""), (WRONG,)
    ),
    "forged value: a set of a huge range": Attack(
        _shown("""b'{"l": [true, {"r": [0, 1000000000000, 1]}]}'"""),
        (TIMEOUT, MEMORY),
        "any order",
        case_s=0.3,
    ),
    "forged value: 60 MB": Attack(
        _shown("""b'{"l": [true, "' + b'x' * (60 << 20) + b'"]}'"""), (TAMPERED,)
    ),
    "forged value: takes memory": Attack(
        _shown("""b'{"l": [true, {"l": [' + b'{"l": []},' * 1_500_000 + b'1]}]}'"""),
        (WRONG, TIMEOUT, MEMORY),
        "once",
    ),
    # a judge that is kept busy: between two steps, and within one
    "forged value: a set of values that collide": Attack(
        _shown(
            """b'{"l": [true, {"s": [' + b','.join(b'%d' % (k * (2 ** 61 - 1))"""
            """ for k in range(300_000)) + b']}]}'"""
        ),
        (TIMEOUT,),
        "once",
        case_s=0.3,
    ),
    "forged value: a list of values that collide": Attack(
        _shown(
            """b'{"l": [true, {"l": [' + b','.join(b'%d' % (k * (2 ** 61 - 1))"""
            """ for k in range(300_000)) + b']}]}'"""
        ),
        (TIMEOUT,),
        "any order",
        case_s=0.3,
    ),
    "forged exception": Attack(_forged("b'X', b'[]'"), (EXCEPTION, TAMPERED)),
    "forged exception that is deep": Attack(_forged("b'X', b'[' * 10**6"), LOST),
    "forged length": Attack(
        _when_called("for fd in sockets(): os.write(fd, b'\\xff' * 5)", _FRAMES), (TAMPERED,)
    ),
    "half a frame": Attack(
        _when_called(
            "for fd in sockets(): os.write(fd, b'\\0\\0\\1\\0K')\nwhile True: pass", _FRAMES
        ),
        (TIMEOUT,),
        "once",
        case_s=0.3,
    ),
    "frames on every descriptor": Attack(
        _when_called(
            "for fd in range(1024):\n"
            "    for data in (b'\\0\\0\\0\\0D', b'{\"status\": 0}', b'\\0\\0\\0\\2D{}'):\n"
            "        try: os.write(fd, data)\n        except OSError: pass",
            "import os",
        ),
        (TAMPERED, WRONG),
    ),
    "closes every descriptor": Attack(
        _when_called("os.closerange(0, 1024)\nwhile True: pass", "import os"), (CRASHED,), "once"
    ),
    "reads what the judge says": Attack(
        _when_called(
            "for fd in sockets():\n"
            "    try: said = socket.socket(fileno=os.dup(fd)).recv(1 << 20, socket.MSG_DONTWAIT)\n"
            "    except OSError: continue\n"
            "    if look([said.decode('latin-1')]): return look([said.decode('latin-1')])",
            "import socket\n" + _FRAMES + _LOOK,
        ),
    ),
    "guesses the judge's socket": Attack(
        _when_called(
            "for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):\n"
            "    for name in ['\\0' + n for n in ('judge', 'harness', 'link', '')] + names():\n"
            "        try:\n"
            "            s = socket.socket(socket.AF_UNIX, kind)\n"
            "            s.connect(name)\n"
            "            s.send(b'\\0\\0\\0\\0D')\n"
            f"            return '{FOUND[:4]}' + '{FOUND[4:]}'\n"
            "        except OSError: pass",
            "import socket\ndef names():\n    try:\n"
            "        lines = open('/proc/net/unix').read().split()\n"
            "    except OSError: return []\n"
            "    return [n.replace('@', '\\0') for n in lines if n[:1] in '/@']",
        ),
        (WRONG,),
    ),
    "hands its channel away": Attack(
        _when_called(
            "a, b = socket.socketpair()\n"
            "for fd in list(sockets()):\n"
            "    socket.send_fds(a, [b'x'], [fd])\nos.closerange(3, 1024)",
            "import socket\n" + _FRAMES,
        ),
        LOST,
    ),
    "has more sockets than its channel": Attack(
        _returns("'found ' + 'it' if len([*sockets()]) != 1 else 0", _FRAMES), (WRONG,)
    ),
    # looking for the expected outputs, the reference, the keys
    "walks the stack": Attack(
        _when_called(
            "frame, seen = sys._getframe(), []\n"
            "while frame:\n"
            "    seen += [repr(frame.f_locals), repr(list(frame.f_globals.values()))]\n"
            "    frame = frame.f_back\nreturn look(seen)",
            "import sys\n" + _LOOK,
        ),
        (WRONG,),
    ),
    "walks the heap": Attack(
        _when_called(
            "seen = []\nfor o in gc.get_objects():\n"
            "    if type(o) in (list, tuple, dict, set):\n"
            "        seen += [s for s in (o.values() if type(o) is dict else o)"
            " if type(s) in (str, bytes)]\n"
            "return look(s if type(s) is str else s.decode('latin-1') for s in seen)",
            "import gc\n" + _LOOK,
        ),
        (WRONG,),
    ),
    "reads others' memory": Attack(
        _when_called(
            "for pid in {1, os.getppid(), *map(int, filter(str.isdigit, os.listdir('/proc')))}:\n"
            "    if pid == os.getpid(): continue\n"
            "    try:\n"
            "        with open(f'/proc/{pid}/maps') as maps, "
            "open(f'/proc/{pid}/mem', 'rb', 0) as memory:\n"
            "            for line in maps:\n"
            "                start, end = (int(n, 16) for n in line.split()[0].split('-'))\n"
            "                if 'rw' in line and end - start < 1 << 26:\n"
            "                    memory.seek(start)\n"
            "                    if look([memory.read(end - start).decode('latin-1')]): "
            "return 'found ' + 'it'\n"
            "    except (OSError, ValueError): pass",
            "import os\n" + _LOOK,
        ),
        (WRONG, EXCEPTION),
    ),
    "reads every environment and command": Attack(
        _returns(
            "look([repr(dict(os.environ)), *files(glob.glob('/proc/*/environ')), "
            "*files(glob.glob('/proc/*/cmdline')), *files(glob.glob('/proc/*/task/*/environ'))])",
            "import glob, os\n" + _LOOK,
        ),
        (WRONG,),
    ),
    "opens others' descriptors": Attack(
        _when_called(
            "for path in glob.glob('/proc/[0-9]*/fd/*'):\n"
            "    if path.split('/')[2] in ('self', str(os.getpid())): continue\n"
            "    try: fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)\n    except OSError: continue\n"
            "    return 'found ' + 'it'",
            "import glob, os",
        ),
        (WRONG,),
    ),
    "steals others' descriptors": Attack(
        _when_called(
            "libc = ctypes.CDLL(None)\n"
            "for pid in (1, os.getppid()):\n"
            "    try: held = os.pidfd_open(pid)\n    except OSError: continue\n"
            "    for fd in range(64):\n"
            "        if libc.syscall(438, held, fd, 0) >= 0: return 'found ' + 'it'",
            "import ctypes, os",
        ),
        (WRONG,),
    ),
    "traces its parent": Attack(
        _when_called(
            "libc = ctypes.CDLL(None)\n"
            "for pid in (1, os.getppid()):\n"
            "    if libc.ptrace(16, pid, 0, 0) == 0: return 'found ' + 'it'\n"
            "    if libc.ptrace(0x4206, pid, 0, 0) == 0: return 'found ' + 'it'",
            "import ctypes, os",
        ),
        (WRONG,),
    ),
    "reads all files": Attack(
        _when_called(
            "paths = [os.path.join(folder, name) for top in ('/guest', '/packages', '/tmp', "
            "'/dev/shm', '/home', '/root', '/etc', '/run', '/var', '/opt', '/srv', '/mnt')"
            " for folder, _, names in os.walk(top) for name in names][:3000]\n"
            "return look(files((p for p in paths if os.path.isfile(p)), 1 << 16))",
            "import os\n" + _LOOK,
        ),
        (WRONG,),
        "once",
        case_s=5.0,
    ),
    # ends that claim success
    "_exit at import": Attack("import os\nos._exit(0)\ndef tidy(v): pass", (CRASHED,)),
    "_exit when called": Attack(_when_called("os._exit(0)", "import os"), (CRASHED,)),
    "_exit half way": Attack(
        _when_called("if values == [2, 1]: os._exit(0)\nreturn sorted(set(values))", "import os"),
        (WRONG, CRASHED),
    ),
    "sys.exit when called": Attack(_when_called("raise SystemExit(0)"), (EXCEPTION,)),
    "sys.exit at import": Attack("raise SystemExit(0)\ndef tidy(v): pass", (NOT_LOADABLE,)),
    "keyboard interrupt": Attack(_when_called("raise KeyboardInterrupt"), (EXCEPTION,)),
    "end of input": Attack(_when_called("raise EOFError"), (EXCEPTION,)),
    "raises the grader's own end": Attack(
        _when_called("raise Ended('passed', '')", "from link import Ended"), LOST
    ),
    "exit handler that forges": Attack(
        _returns("[0]", _FRAMES + "import atexit\natexit.register(put, b'D')"), (WRONG,)
    ),
    "segmentation fault": Attack(_when_called("ctypes.string_at(0)", "import ctypes"), (CRASHED,)),
    "stops itself": Attack(
        _when_called("os.kill(os.getpid(), signal.SIGSTOP)", "import os, signal"),
        (TIMEOUT,),
        "once",
        case_s=0.3,
    ),
    "kills its parent": Attack(
        _when_called(
            "for n in (9, 15, 2, 19, 11, 6):\n    for pid in (os.getppid(), 1, -1):\n"
            "        try: os.kill(pid, n)\n        except OSError: pass",
            "import os",
        ),
        (WRONG, CRASHED),
    ),
    "stops and starves its parent": Attack(
        _when_called(
            "for attempt in (\n"
            "    lambda: os.kill(os.getppid(), signal.SIGSTOP),\n"
            "    lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19),\n"
            "    lambda: os.setpriority(os.PRIO_USER, 0, 19),\n"
            "    lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0)),\n"
            "    lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1)),\n"
            "    lambda: os.sched_setscheduler(os.getppid(), os.SCHED_IDLE, os.sched_param(0)),\n"
            "):\n"
            "    try: attempt()\n    except OSError: pass",
            "import os, resource, signal",
        ),
        (WRONG,),
    ),
    "filters its own system calls": Attack(
        _when_called(
            "libc = ctypes.CDLL(None)\nlibc.prctl(38, 1, 0, 0, 0)\nlibc.prctl(22, 1, 0, 0, 0)",
            "import ctypes",
        ),
        (CRASHED, WRONG),
    ),
    # time
    "loops in one case": Attack(
        _when_called("if values == [2, 1]:\n    while True: pass\nreturn sorted(set(values))"),
        (WRONG, TIMEOUT),
        case_s=0.3,
    ),
    "loops at import": Attack(
        "while True: pass\ndef tidy(v): pass", (TIMEOUT,), "once", case_s=0.3
    ),
    "sleeps": Attack(_when_called("time.sleep(60)", "import time"), (TIMEOUT,), "once", case_s=0.3),
    "deaf to signals": Attack(
        _when_called(
            "while True: pass",
            "import signal\nfor n in set(signal.Signals) - {9, 19}:\n"
            "    signal.signal(n, signal.SIG_IGN)",
        ),
        (TIMEOUT,),
        "once",
        case_s=0.3,
    ),
    "interrupted without end": Attack(
        _when_called(
            "while True:\n    try: time.sleep(1)\n    except Exception: pass",
            "import signal, time\nsignal.signal(signal.SIGALRM, lambda *a: 1 / 0)\n"
            "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)",
        ),
        (TIMEOUT, EXCEPTION, CRASHED),
        "once",
        case_s=0.3,
    ),
    "sets back its clocks": Attack(
        _when_called(
            "while True: pass",
            "import time\ntime.monotonic = time.process_time = time.time = lambda: 0.0",
        ),
        (TIMEOUT,),
        "once",
        case_s=0.3,
    ),
    "drips a frame": Attack(
        _when_called(
            "data = struct.pack('>IB', 1 << 20, 75)\nwhile True:\n"
            "    for fd in sockets():\n        try: os.write(fd, data[:1])\n"
            "        except OSError: pass\n    data = data[1:] or b'\\0'\n    time.sleep(0.05)",
            "import time\n" + _FRAMES,
        ),
        (TIMEOUT, TAMPERED),
        "once",
        case_s=0.3,
    ),
    "does not read": Attack(
        "import cases, time\ncases.Chunk.send = lambda self: time.sleep(60)\n"
        "def tidy(v): return [0]",
        (TIMEOUT,),
        "once",
        case_s=0.3,
    ),
    "catches all and goes on": Attack(
        _when_called("while True:\n    try:\n        while True: pass\n    except: pass"),
        (TIMEOUT,),
        "once",
        case_s=0.3,
    ),
    "hides its time in a child": Attack(
        _when_called(
            "if os.fork() == 0:\n    while True: pass\nos.wait()",
            "import os",
        ),
        (TIMEOUT, EXCEPTION),
        "once",
        case_s=0.3,
    ),
    # memory and size
    "endless recursion": Attack(_returns("tidy(values)"), (EXCEPTION,)),
    "recursion without a limit": Attack(
        _returns("tidy([values])", "import sys\nsys.setrecursionlimit(10**9)"), LOST, "once", 0.3
    ),
    "asks for a terabyte": Attack(_returns("bytes(10**12)"), (MEMORY, EXCEPTION), "once"),
    "takes memory in pieces": Attack(
        _when_called("held = []\nwhile True: held.append(bytearray(1 << 24))"),
        (MEMORY, EXCEPTION),
        "once",
        case_s=10.0,
    ),
    "takes memory in many children": Attack(
        _when_called(
            "for _ in range(16):\n    if os.fork() == 0:\n"
            "        held = bytearray(b'x') * (1 << 29)\n        time.sleep(60)\ntime.sleep(60)",
            "import os, time",
        ),
        (MEMORY, CRASHED, TIMEOUT, EXCEPTION),
        "once",
        case_s=5.0,
    ),
    "integer of a million digits": Attack(_returns("10 ** 1_000_000"), (WRONG, TIMEOUT)),
    "integer of ten million bits": Attack(_returns("[1 << 10_000_000]"), (WRONG, TIMEOUT)),
    "text of 100 MB": Attack(_returns("'x' * (100 << 20)"), (WRONG, TIMEOUT), "once"),
    "list of a million lists": Attack(_returns("[[]] * 10**6"), (WRONG, TIMEOUT), "once"),
    "a large result for every case": Attack(_returns("['x' * (30 << 20)]"), (WRONG, TIMEOUT)),
    "deeply nested": Attack(
        _when_called("y = []\nfor _ in range(10**5): y = [y]\nreturn y"), (WRONG,)
    ),
    "nested a million times in tuples": Attack(
        _when_called("y = ()\nfor _ in range(10**6): y = (y,)\nreturn y"), (WRONG, TIMEOUT)
    ),
    "contains itself": Attack(_when_called("y = []\ny.append(y)\nreturn y"), (WRONG,)),
    "dictionary that contains itself": Attack(_when_called("y = {}\ny[1] = y\nreturn y"), (WRONG,)),
    "shared a hundred times over": Attack(  # a billion leaves, a hundred objects
        _when_called("y = [0]\nfor _ in range(100): y = [y, y]\nreturn y"),
        (WRONG, TIMEOUT, MEMORY, CRASHED, EXCEPTION),
        "once",
        case_s=0.3,
    ),
    "floods stdout and stderr": Attack(
        _when_called(
            "for _ in range(300):\n    print(line)\n    print(line, file=sys.stderr)",
            "import sys\nline = 'x' * 65536",
        ),
        (WRONG,),
    ),
    "fills its disk": Attack(
        _when_called(
            "for n in range(99):\n    with open(f'/tmp/{n}', 'wb') as f: f.write(bytes(8 << 20))"
        ),
        (EXCEPTION,),
    ),
    "fills its disk with names": Attack(
        _when_called("for n in range(20_000): open(f'/tmp/{n}', 'w').close()"),
        LOST,
        "once",
        case_s=5.0,
    ),
    "fills shared memory": Attack(
        _when_called(
            "for n in range(99):\n"
            "    with open(f'/dev/shm/{n}', 'wb') as f: f.write(bytes(1 << 23))"
        ),
        (EXCEPTION,),
    ),
    # processes and threads
    "daemon": Attack(_when_called("daemon()", _DAEMON), (WRONG, EXCEPTION)),
    "daemon and exit": Attack(_when_called("daemon()\nos._exit(0)", _DAEMON), (CRASHED, EXCEPTION)),
    "daemon at import": Attack(_returns("[0]", _DAEMON + "daemon()"), (WRONG, NOT_LOADABLE)),
    "fork bomb": Attack(
        _when_called("while True:\n    try: os.fork()\n    except OSError: pass", "import os"),
        (CRASHED, TIMEOUT, EXCEPTION, MEMORY),
    ),
    "thread bomb": Attack(
        _when_called(
            "for _ in range(5000):\n"
            "    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
            "import threading, time",
        ),
        (EXCEPTION, TIMEOUT, CRASHED, MEMORY),
    ),
    "thread that outlives the answer": Attack(
        _when_called(
            "def later():\n    while True: put(b'D')\n"
            "threading.Thread(target=later, daemon=True).start()",
            "import threading\n" + _FRAMES,
        ),
        LOST,
    ),
    "thread that is waited for": Attack(
        _returns(
            "[0]",
            "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()",
        ),
        (WRONG,),
    ),
    # tampering with what stands around it
    "patched codec": Attack(
        _returns(
            "[0]",
            "import marshal, json, struct\nmarshal.dumps = lambda *a: b''\n"
            "marshal.loads = lambda *a: None\njson.dumps = lambda *a, **k: 'true'",
        ),
    ),
    "patched channel": Attack(
        _returns("[0]", "import wire\nwire.Channel.send = lambda *a: None"),
        (TIMEOUT, CRASHED),
        "once",
        case_s=0.3,
    ),
    "patched comparison": Attack(
        _returns(
            "[0]",
            "import cases\ncases.Rule.equal = cases.differs = cases.judge = lambda *a: None\n"
            "cases.BIG = cases.CHUNK_BYTES = -1",
        ),
    ),
    "patched built-ins": Attack(
        _returns(
            "[0]",
            "import builtins\nbuiltins.sorted = builtins.len = builtins.enumerate = None\n"
            "builtins.type = lambda *a: list\nbuiltins.isinstance = lambda *a: True",
        ),
    ),
    "patched hash": Attack(
        _returns("'x' * 10**6", "import hashlib\nhashlib.blake2b = lambda *a, **k: None")
    ),
    "does away with the inputs": Attack(
        _when_called(
            "for o in gc.get_objects():\n"
            "    if type(o) is list and len(o) == 3 and o[1] == [[]]: del o[:]\nreturn [1, 3]",
            "import gc",
        ),
        (TAMPERED, WRONG),
    ),
    "counts one answer for all": Attack(
        _when_called(
            "frame = sys._getframe(1)\nwhile frame and 'inputs' not in frame.f_locals:\n"
            "    frame = frame.f_back\nif frame: del frame.f_locals['inputs'][1:]\nreturn [1, 3]",
            "import sys",
        ),
        (TAMPERED, WRONG),
    ),
}


@dataclass(frozen=True)
class Trace:
    """What a program leaves, and a second one, in the same lane, that looks for it."""

    leave: str
    look: str


def _left(statements: str, before: str = "") -> str:
    body = "\n".join(f"        {line}" for line in statements.strip().splitlines())
    return (
        f"{before}\ndef tidy(values):\n    try:\n{body}\n    except OSError: pass\n    return 0\n"
    )


def _finds(condition: str, before: str = "", *, refused: bool = False) -> str:
    """A program that finds what `condition` tells; with `refused`, an error is no trace."""
    found = f"return '{FOUND[:4]}' + '{FOUND[4:]}' if {condition} else 0"
    if refused:
        found = f"try:\n        {found}\n    except OSError:\n        return 0"
    return f"{before}\ndef tidy(values):\n    {found}\n"


TRACES: dict[str, Trace] = {
    "a file in /tmp": Trace(
        _left("open('/tmp/left', 'w').write('x')"),
        _finds("os.path.exists('/tmp/left') or os.listdir('/tmp')", "import os"),
    ),
    "a file in shared memory": Trace(
        _left("open('/dev/shm/left', 'w').write('x')"),
        _finds("os.listdir('/dev/shm')", "import os"),
    ),
    "a file of an odd name": Trace(
        _left("open(b'/tmp/\\xff\\n -rf', 'w').write('x')"),
        _finds("os.listdir(b'/tmp')", "import os"),
    ),
    "a locked folder": Trace(
        _left(
            "os.makedirs('/tmp/a/b/c')\nopen('/tmp/a/b/c/d', 'w').close()\n"
            "os.chmod('/tmp/a/b', 0)\nos.chmod('/tmp/a', 0)\nos.chmod('/tmp', 0)",
            "import os",
        ),
        _finds("os.listdir('/tmp')", "import os"),
    ),
    "a deep folder": Trace(
        _left(
            "for _ in range(2000):\n    os.mkdir('d')\n    os.chdir('d')",
            "import os\nos.chdir('/tmp')",
        ),
        _finds("os.listdir('/tmp')", "import os"),
    ),
    "a link out of /tmp": Trace(
        _left("os.symlink('/usr/lib', '/tmp/lib')\nos.symlink('/', '/tmp/root')", "import os"),
        _finds("os.listdir('/tmp') or not os.path.isdir('/usr/lib')", "import os"),
    ),
    "a pipe": Trace(
        _left("os.mkfifo('/tmp/pipe')", "import os"), _finds("os.listdir('/tmp')", "import os")
    ),
    "a module beside the guest's": Trace(
        _left(
            "for folder in [*sys.path, '.', '/guest', '/packages', '/tmp']:\n"
            "    try: open(f'{folder}/heapq.py', 'w').write('LEFT = 1')\n    except OSError: pass",
            "import sys",
        ),
        _finds(
            "any(os.path.exists(f'{f}/heapq.py') for f in ('.', '/guest', '/packages', '/tmp'))"
            " or hasattr(heapq, 'LEFT')",
            "import heapq, os",
        ),
    ),
    "flags and size of the standard streams": Trace(
        _left(
            "for fd in (0, 1, 2):\n"
            "    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)\n"
            "    fcntl.fcntl(fd, fcntl.F_SETOWN, 1)\nfcntl.fcntl(2, 1031, 4096)",  # F_SETPIPE_SZ
            "import fcntl, os",
        ),
        _finds(
            "any(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK or fcntl.fcntl(fd, fcntl.F_GETOWN)"
            " for fd in (0, 1, 2)) or [os.write(2, b'x' * 65536) for _ in range(9)] != [65536] * 9",
            "import fcntl, os",
        ),
    ),
    "notes on its folders": Trace(
        _left(
            "for folder in ('/tmp', '/dev/shm'):\n"
            "    for name in ('user.left', 'trusted.left', 'security.left'):\n"
            "        try: os.setxattr(folder, name, b'x')\n"
            "        except OSError: pass",
            "import os",
        ),
        _finds("os.listxattr('/tmp') or os.listxattr('/dev/shm')", "import os"),
    ),
    "an access list that files inherit": Trace(
        _left(
            "none = struct.pack('<I', 2) + b''.join(\n"
            "    struct.pack('<HHI', tag, 0, 0xFFFFFFFF) for tag in (1, 4, 32))\n"
            "for folder in ('/tmp', '/dev/shm'):\n"
            "    os.setxattr(folder, 'system.posix_acl_default', none)",
            "import os, struct",
        ),
        _finds(
            "not (open('/tmp/x', 'w').close() or open('/dev/shm/x', 'w').close()"
            " or open('/tmp/x').close()) and not os.access('/dev/shm/x', os.R_OK)",
            "import os",
        ),
    ),
    "ports of connections that it closed": Trace(
        _left(
            "for port in range(8080, 8084):\n"
            "    with socket.create_server(('127.0.0.1', port)) as server:\n"
            "        client = socket.create_connection(('127.0.0.1', port))\n"
            "        server.accept()[0].close()\n        client.recv(1)\n        client.close()",
            "import socket",
        ),
        "import socketserver\ndef tidy(values):\n"
        "    for port in range(8080, 8084):\n"
        "        try:\n"
        "            socketserver.TCPServer(('127.0.0.1', port), None).server_close()\n"
        "        except OSError:\n"
        f"            return '{FOUND[:4]}' + '{FOUND[4:]}'\n    return 0\n",
    ),
    "patched modules": Trace(
        _left(
            "for m in (builtins, json, marshal, wire, cases): m.LEFT = 1\n"
            "sys.modules['left'] = sys\nsys.path.append('left')",
            "import builtins, json, marshal, sys, wire, cases",
        ),
        _finds(
            "any(hasattr(m, 'LEFT') for m in (builtins, json, marshal, wire, cases))"
            " or 'left' in sys.modules or 'left' in sys.path",
            "import builtins, json, marshal, sys, wire, cases",
        ),
    ),
    "its environment, folder, mask and limits": Trace(
        _left(
            "os.environ['LEFT'] = '1'\nos.umask(0)\nos.nice(5)\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\n"
            "signal.signal(signal.SIGUSR1, signal.SIG_IGN)\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})\nos.chdir('/')",
            "import os, resource, signal",
        ),
        _finds(
            "'LEFT' in os.environ or os.nice(0) or os.getcwd() == '/'"
            " or resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 20"
            " or signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN"
            " or signal.pthread_sigmask(signal.SIG_BLOCK, ())",
            "import os, resource, signal",
        ),
    ),
    "System V shared memory": Trace(
        _left(
            "at = libc.shmget(0x1234, 4096, 0o1666)", "import ctypes\nlibc = ctypes.CDLL(None)"
        ),
        _finds(
            "libc.shmget(0x1234, 0, 0) >= 0", "import ctypes\nlibc = ctypes.CDLL(None)"
        ),
    ),
    "a message queue": Trace(
        _left(
            "libc.msgget(0x1234, 0o1666)\nlibc.mq_open(b'/left', 0o102, 0o666, None)",
            "import ctypes\nlibc = ctypes.CDLL(None)",
        ),
        _finds(
            "libc.msgget(0x1234, 0) >= 0 or libc.mq_open(b'/left', 0) >= 0",
            "import ctypes\nlibc = ctypes.CDLL(None)",
        ),
    ),
    "a key in the kernel": Trace(
        _left(
            "libc.syscall(248, b'user', b'left', b'x', 1, -3)",
            "import ctypes\nlibc = ctypes.CDLL(None)",
        ),
        _finds(
            "libc.syscall(250, 10, -3, b'user', b'left', 0) > 0",
            "import ctypes\nlibc = ctypes.CDLL(None)",
        ),
    ),
    "a listening socket": Trace(
        _left(
            "s = socket.socket(socket.AF_UNIX)\ns.bind('\\0left')\ns.listen()\n"
            "if os.fork() == 0: time.sleep(60)",
            "import os, socket, time",
        ),
        _finds(
            "socket.socket(socket.AF_UNIX).connect('\\0left') is None",
            "import socket",
            refused=True,
        ),
    ),
    "a process": Trace(
        _left("if os.fork() == 0:\n    os.setsid()\n    time.sleep(60)", "import os, time"),
        _finds(
            "len([p for p in os.listdir('/proc') if p.isdigit()"
            " and int(p) not in (1, os.getpid(), os.getppid())])",
            "import os",
        ),
    ),
    "the channel of its parent": Trace(
        _left(
            "for fd in range(3, 64):\n    try: os.write(fd, b'{\"do\": \"fork\"}')\n"
            "    except OSError: pass",
            "import os",
        ),
        _finds("len([n for n in range(3, 64) if opened(n)]) > 3", "import os\ndef opened(n):\n"
               "    try: return bool(os.fstat(n))\n    except OSError: return False"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Odd:
    """A right solution that is odd, and the puzzle that it solves."""

    code: str
    puzzle: Puzzle


_DOUBLE = Puzzle("def solve(x): return x * 2", [[1], [5]], [[0], [-3]])
_MEAN = Puzzle("def solve(x): return sum(x) / len(x)", [[[1, 2]], [[0.1, 0.2]]], [[[1, 1, 2]]])
_LIST = Puzzle("def solve(x): return sorted(x)", [[[2, 1]]], [[[3, 1, 2]], [[]]])
_PAIR = Puzzle("def solve(x): return (x, x + 1)", [[1]], [[2]])
_COUNT = Puzzle(
    "def solve(s): return {c: s.count(c) for c in s}", [["aab"]], [["abc"], [""], ["ba"]]
)

ODD: dict[str, Odd] = {
    "numpy integer": Odd("import numpy as np\ndef solve(x): return np.int64(x) * 2", _DOUBLE),
    "numpy float": Odd("import numpy as np\ndef solve(x): return np.mean(x)", _MEAN),
    "numpy float32, near enough": Odd(
        "import numpy as np\ndef solve(x): return float(np.float32(sum(x) / len(x)))", _MEAN
    ),
    "numpy boolean": Odd(
        "import numpy as np\ndef solve(x): return np.bool_(x % 2 == 0)",
        Puzzle("def solve(x): return x % 2 == 0", [[1], [2]], [[4]]),
    ),
    "list of numpy integers": Odd(
        "import numpy as np\ndef solve(x): return list(np.sort(np.array(x, dtype=int)))", _LIST
    ),
    "numpy array of one item": Odd(
        "import numpy as np\ndef solve(x): return np.array([x * 2])", _DOUBLE
    ),
    "numpy text": Odd(
        "import numpy as np\ndef solve(s): return np.str_(s[::-1])",
        Puzzle("def solve(s): return s[::-1]", [["abc"]], [[""]]),
    ),
    "named tuple": Odd(
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\n"
        "def solve(x): return P(x, x + 1)",
        _PAIR,
    ),
    "counter": Odd("from collections import Counter\nsolve = Counter", _COUNT),
    "ordered dictionary": Odd(
        "from collections import OrderedDict\n"
        "def solve(s): return OrderedDict((c, s.count(c)) for c in reversed(s))",
        _COUNT,
    ),
    "dictionary in another order": Odd(
        "def solve(s): return {c: s.count(c) for c in sorted(s)}", _COUNT
    ),
    "set in another order": Odd(
        "def solve(x):\n    made = set()\n    for v in reversed(x): made.add(v)\n    return made",
        Puzzle("def solve(x): return set(x)", [[[1, 9, 17, 33]]], [[list(range(0, 4000, 8))]]),
    ),
    "frozen set for a set": Odd(
        "solve = frozenset", Puzzle("def solve(x): return set(x)", [[[1, 2]]], [[[8, 0, 16]]])
    ),
    "true for one": Odd(
        "def solve(x): return x > 0", Puzzle("def solve(x): return int(x > 0)", [[1]], [[-1]])
    ),
    "float for an integer": Odd("def solve(x): return float(x * 2)", _DOUBLE),
    "minus zero": Odd("def solve(x): return -0.0 if x == 0 else x * 2", _DOUBLE),
    "fraction": Odd(
        "from fractions import Fraction\ndef solve(x): return Fraction(x * 2)", _DOUBLE
    ),
    "decimal": Odd("from decimal import Decimal\ndef solve(x): return Decimal(x) * 2", _DOUBLE),
    "complex without an imaginary part": Odd("def solve(x): return complex(x * 2)", _DOUBLE),
    "enumeration": Odd(
        "import enum\nclass E(enum.IntEnum):\n    A = 2\n    B = 10\n    C = 0\n    D = -6\n"
        "def solve(x): return E(x * 2)",
        _DOUBLE,
    ),
    "list subclass": Odd("class L(list): pass\ndef solve(x): return L(sorted(x))", _LIST),
    "byte array for bytes": Odd(
        "def solve(x): return bytearray(x)", Puzzle("def solve(x): return bytes(x)", [[[1, 2]]])
    ),
    "float within the tolerance": Odd("def solve(x): return sum(x) / len(x) + 1e-9", _MEAN),
    "the input itself, sorted in place": Odd("def solve(x):\n    x.sort()\n    return x", _LIST),
    "one list for all answers": Odd(
        "made = []\ndef solve(x):\n    made[:] = sorted(x)\n    return made", _LIST
    ),
    "output of ten megabytes": Odd(
        "def solve(n): return ['x'] * n",
        Puzzle("def solve(n): return list('x' * n)", [[10]], [[2_000_000]]),
    ),
    "text of every kind": Odd(
        "def solve(s): return s + '\\ud800\\0\\U0001f600'",
        Puzzle("def solve(s): return f'{s}\\ud800\\0\\U0001f600'", [["é"]], [["\ud801"], [""]]),
    ),
    "large integers": Odd(
        "def solve(n): return 7 ** n", Puzzle("def solve(n): return pow(7, n)", [[9]], [[9000]])
    ),
    "infinity and none": Odd(
        "def solve(x): return [float('inf'), None, x]",
        Puzzle("import math\ndef solve(x): return [math.inf, None, x]", [[1]], [[2]]),
    ),
    "prints, reads and leaves threads": Odd(
        "import threading, time\ndef solve(x):\n    print(x)\n"
        "    threading.Thread(target=time.sleep, args=(30,)).start()\n    try: input()\n"
        "    except EOFError: pass\n    return x * 2",
        _DOUBLE,
    ),
    "replaces the standard streams": Odd(
        "import io, sys\nsys.stdout = io.StringIO()\nsys.stderr = sys.stdin = None\n"
        "def solve(x): return x * 2",
        _DOUBLE,
    ),
    "an exit handler": Odd(
        "import atexit, time\natexit.register(time.sleep, 60)\ndef solve(x): return x * 2", _DOUBLE
    ),
    "callable object with a cache": Odd(
        "from functools import lru_cache\nclass S:\n"
        "    @lru_cache(None)\n    def __call__(self, x): return x * 2\nsolve = S()",
        _DOUBLE,
    ),
    "deep recursion": Odd(
        "import sys\nsys.setrecursionlimit(20000)\n"
        "def solve(x): return x if x <= 0 else 1 + solve(x - 1)",
        Puzzle("def solve(x): return max(x, 0)", [[5]], [[5000]]),
    ),
    "a name of its own for the guest's modules": Odd(
        "import types\nimport sys\nclass cases: pass\nwire = marshal = json = None\n"
        "def solve(x): return x * 2",
        _DOUBLE,
    ),
    "dataclass with postponed annotations": Odd(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass(order=True)\nclass P:\n    x: int\ndef solve(x): return P(x * 2).x",
        _DOUBLE,
    ),
    "a temporary file": Odd(
        "import tempfile\ndef solve(x):\n    with tempfile.NamedTemporaryFile('w+') as f:\n"
        "        f.write(str(x * 2))\n        f.seek(0)\n        return int(f.read())",
        _DOUBLE,
    ),
    "asyncio and a thread pool": Odd(
        "import asyncio\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "async def twice(x): return await asyncio.to_thread(lambda: x * 2)\n"
        "def solve(x):\n    with ThreadPoolExecutor(2) as pool:\n"
        "        return pool.submit(lambda: asyncio.run(twice(x))).result()",
        _DOUBLE,
    ),
}

# Attacks that the tiers keep off by different means: all of them are run on each.
ON_EVERY_TIER = (
    "object equal to all",
    "answers another value when asked",
    "forged end",
    "frames on every descriptor",
    "guesses the judge's socket",
    "has more sockets than its channel",
    "reads others' memory",
    "reads every environment and command",
    "opens others' descriptors",
    "steals others' descriptors",
    "traces its parent",
    "reads all files",
    "_exit when called",
    "kills its parent",
    "stops and starves its parent",
    "sleeps",
    "takes memory in many children",
    "daemon",
    "daemon and exit",
    "fork bomb",
)
