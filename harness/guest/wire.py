"""Frames and plain values between the harness and a sandboxed program. Both sides use this file.

A frame is a 4-byte big-endian length, one kind byte, and that many bytes of payload. Values cross
as JSON with tagged containers, never as pickle: what comes out of the sandbox is data of exact
built-in types, so nothing inside can decide how it compares.
"""

import collections
import collections.abc
import contextlib
import itertools
import json
import resource
import socket
import struct
import sys

FRAME_MB = 64  # the largest frame either side accepts
MOST_ITEMS = 1_000_000  # of an object that may have no end
VALUE_MB = 16  # the largest that the judge takes from a solution: decoded it is many times as large
HELLO, LOAD, OK, ERROR = b"H", b"L", b"O", b"E"
CALL, RETURNED, RAISED, TEST, DONE = b"C", b"R", b"X", b"T", b"D"
REQUEST, REPLY, ANSWER = b"Q", b"A", b"F"
VALUES = b"V"  # a call whose arguments marshal cannot hold
CHUNK, MORE, SHOW, SHOWN, MADE = (
    b"K",
    b"N",
    b"S",
    b"W",
    b"B",
)  # outputs of several inputs (`cases.py`)
MISSING = b"M"  # the program loaded, but does not define its entry point
# what stands for a value that cannot cross
DEEP, TOO_LARGE = b'{"o": "deeply nested"}', b'{"o": "too large"}'

_HEADER = struct.Struct(">IB")


class Opaque:
    """Stands for a value that is not plain data: equal to nothing, itself included."""

    def __init__(self, name):
        self.name = name

    def __eq__(self, other):
        return False

    __hash__ = None

    def __repr__(self):
        return f"<{self.name} object>"


class Array(list):
    """A numpy array's items. As there, a comparison is true only where there is a single item,
    however deep it or the other's lies."""

    def __init__(self, items):
        super().__init__(Array(item) if type(item) is list else item for item in items)

    def __eq__(self, other):
        own, other = _single(self), _single(other)
        return not isinstance(own, list) and not isinstance(other, list | tuple) and own == other

    def __ne__(self, other):
        return not self == other

    __hash__ = None


def _single(value):
    """The one item in nested sequences of one each; else the first that has none or several."""
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return value


class Items:
    """An object that can be read again and again, such as a deque: its items, equal to no list.

    Two are equal when they are of one class and hold equal items, in order.
    """

    def __init__(self, name, items):
        self.name, self._items = name, tuple(items)

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)

    def __getitem__(self, index):
        found = self._items[index]
        return Items(self.name, found) if isinstance(index, slice) else found

    def __contains__(self, value):
        return value in self._items

    def __eq__(self, other):
        same = type(other) is Items and other.name == self.name
        return same and self._items == other._items

    __hash__ = None

    def __repr__(self):
        return f"{self.name.rpartition('.')[2]}({list(self._items)!r})"


def frame(kind, payload=b""):
    """The bytes of one frame. Raises ValueError when the payload is too large."""
    if len(payload) > FRAME_MB << 20:
        raise ValueError(f"frame of {len(payload)} bytes, {FRAME_MB} MB allowed")
    return _HEADER.pack(len(payload), kind[0]) + payload


def parse_header(header, most_mb=FRAME_MB):
    """(payload length, kind) of the 5 header bytes. Raises ValueError when it is too large."""
    length, kind = _HEADER.unpack(header)
    if length > most_mb << 20:
        raise ValueError(f"frame of {length} bytes, {most_mb} MB allowed")
    return length, bytes([kind])


HEADER_BYTES = _HEADER.size


class Channel:
    """The guest's end: blocking send and receive on an inherited socket."""

    def __init__(self, fd):
        self._socket = socket.socket(fileno=fd)
        self._socket.set_inheritable(False)

    def fileno(self):
        return self._socket.fileno()

    def close(self):
        self._socket.close()

    def send(self, kind, payload=b""):
        self._socket.sendall(frame(kind, payload))

    def _read(self, count):
        parts = []
        while count:
            part = self._socket.recv(min(count, 1 << 20))
            if not part:
                sys.exit(0)  # the harness closed the channel: nothing is left to do
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def receive(self):
        length, kind = parse_header(self._read(HEADER_BYTES))
        return kind, self._read(length)


def schedule(task):
    """(CPU seconds, seconds that it waited for a core) of a task below /proc; zeros where nobody
    counts (macOS) or it is gone."""
    try:
        with open(f"/proc/{task}/schedstat") as file:
            ran, waited, _ = file.read().split()
            return int(ran) / 1e9, int(waited) / 1e9
    except (OSError, ValueError):
        return 0.0, 0.0


def connect(limits):
    """The channel to the harness of a guest that stays."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.path[:] = [p for p in sys.path if not p.endswith("/guest")] + limits["packages"]
    return Channel(int(sys.argv[1]))


def start():
    """Lock this process in as argv says and return its channel. Called before anything else."""
    limits = json.loads(sys.argv[2])
    sys.set_int_max_str_digits(0)
    megabytes = limits["memory_mb"] << 20
    wanted = {
        resource.RLIMIT_AS: megabytes,
        resource.RLIMIT_DATA: megabytes,
        resource.RLIMIT_CPU: limits["cpu_s"],
        resource.RLIMIT_FSIZE: limits["file_mb"] << 20,
        resource.RLIMIT_NOFILE: limits["files"],
        resource.RLIMIT_CORE: 0,
    }
    if limits["tasks"]:
        wanted[resource.RLIMIT_NPROC] = limits["tasks"]
    for name, value in wanted.items():
        _, hard = resource.getrlimit(name)
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # a second apart for CPU time: the soft limit's signal tells it from any other end
        above = int(name == resource.RLIMIT_CPU and limit != hard)
        # macOS refuses RLIMIT_AS; there the harness's own memory watch is what holds
        with contextlib.suppress(ValueError):
            resource.setrlimit(name, (limit, limit + above))
    import confine

    confine.prepare(bytes.fromhex(limits["bpf"] or ""), {})()
    sys.path[:] = [p for p in sys.path if not p.endswith("/guest")] + limits["packages"]
    channel = Channel(int(sys.argv[1]))
    channel.send(HELLO)
    return channel


def dump(value, most_mb=VALUE_MB):
    """Encode a value as bytes; what is not plain data, or too large, becomes a tagged type name."""
    try:
        data = json.dumps(_pack(value)).encode()
    except RecursionError:
        return DEEP
    return data if len(data) <= most_mb << 20 else TOO_LARGE


def load(payload):
    """Decode what `dump` made: exact built-in types only. Raises ValueError on anything else."""
    try:
        return _unpack(json.loads(payload))
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
        raise ValueError(f"not a plain value: {type(error).__name__}") from error


def _pack(value):
    kind = type(value)
    if kind is int and (value >> 63) not in (0, -1):
        return {"x": hex(value)}  # decimal digits take a time that grows with their square
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return {"l": [_pack(v) for v in value]}
    if kind is tuple:
        return {"t": [_pack(v) for v in value]}
    return _pack_rare(value)


def _pack_rare(value):
    # subclasses (Counter, namedtuple, IntEnum, numpy.float64, ...) become their built-in base
    if isinstance(value, bool | int):
        return _pack(int.__add__(value, 0))
    if isinstance(value, float):
        return float.__pos__(value)
    if isinstance(value, str):
        return "".join(str.__iter__(value))
    if isinstance(value, bytes | bytearray):
        return {"b" if isinstance(value, bytes) else "ba": bytes(value).hex()}
    if isinstance(value, complex):
        return {"c": [value.real, value.imag]}
    if isinstance(value, list):
        return {"l": [_pack(v) for v in list.__iter__(value)]}
    if isinstance(value, tuple):
        return {"t": [_pack(v) for v in tuple.__iter__(value)]}
    if isinstance(value, dict):
        return {"d": [[_pack(k), _pack(v)] for k, v in dict.items(value)]}
    if isinstance(value, set):
        return {"s": [_pack(v) for v in set.__iter__(value)]}
    if isinstance(value, frozenset):
        return {"fs": [_pack(v) for v in frozenset.__iter__(value)]}
    if isinstance(value, range):
        return {"r": [value.start, value.stop, value.step]}
    module, name = type(value).__module__, type(value).__name__
    if (module, name) == ("decimal", "Decimal"):
        return {"D": str(value)}
    if (module, name) == ("fractions", "Fraction"):
        return {"F": [value.numerator, value.denominator]}
    if module.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        items = value.tolist()
        return {"n": _pack(items)} if isinstance(items, list) else _pack(items)
    if name in ("dict_keys", "dict_values", "dict_items") and module == "builtins":
        return {"v": [name, [_pack(v) for v in value]]}
    if hasattr(value, "__next__"):  # a generator or iterator: its items, to be read once
        return {"i": [_pack(v) for v in value]}
    return _pack_iterable(value, f"{module}.{name}")


def _pack_iterable(value, name):
    try:
        return _packed_items(value, name)
    except RecursionError:
        raise
    except Exception:  # noqa: BLE001 - it only looked as if it could be read
        return {"o": name}


def _packed_items(value, name):
    # what compares as a built-in becomes one
    if isinstance(value, collections.UserString):
        return _pack(str(value))
    if isinstance(value, collections.UserList):
        return {"l": [_pack(v) for v in value]}
    if isinstance(value, memoryview):
        return {"b": bytes(value).hex()}
    if isinstance(value, collections.abc.Mapping):
        return {"d": [[_pack(k), _pack(value[k])] for k in value]}
    if isinstance(value, collections.abc.Set):
        return {"s": [_pack(v) for v in value]}
    if not hasattr(type(value), "__iter__"):
        return {"o": name}
    items = list(itertools.islice(value, MOST_ITEMS + 1))
    return {"q": [name, [_pack(v) for v in items]]} if len(items) <= MOST_ITEMS else {"o": name}


def _view(name, items):
    if name == "dict_keys":
        return dict.fromkeys(items).keys()
    if name == "dict_items":
        return dict(items).items()
    return dict(enumerate(items)).values()


def _decimal(text):
    from decimal import Decimal

    return Decimal(text)


def _fraction(pair):
    from fractions import Fraction

    return Fraction(*pair)


_UNPACK = {
    "l": lambda body: [_unpack(v) for v in body],
    "t": lambda body: tuple(_unpack(v) for v in body),
    "d": lambda body: {_unpack(k): _unpack(v) for k, v in body},
    "s": lambda body: {_unpack(v) for v in body},
    "fs": lambda body: frozenset(_unpack(v) for v in body),
    "n": lambda body: Array(_unpack(body)),
    "i": lambda body: iter([_unpack(v) for v in body]),
    "q": lambda body: Items(str(body[0]), [_unpack(v) for v in body[1]]),
    "v": lambda body: _view(body[0], [_unpack(v) for v in body[1]]),
    "r": lambda body: range(*body),
    "x": lambda body: int(body, 16),
    "b": bytes.fromhex,
    "ba": bytearray.fromhex,
    "c": lambda body: complex(*body),
    "D": _decimal,
    "F": _fraction,
    "o": lambda body: Opaque(str(body)),
}


def _unpack(value):
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise ValueError("an untagged list")
        return value
    ((tag, body),) = value.items()
    return _UNPACK[tag](body)
