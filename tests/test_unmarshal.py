"""Bytes that anybody may have made are read as plain values, or refused."""

from __future__ import annotations

import marshal
import random
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from harness.guest import unmarshal

SEED = 20240229
MOST = 1 << 16  # bytes of a record: `harness/guest/cases.py`
TEXTS = ("", "abc", "é\0\ud800\U0001f600", "x" * 300)
NUMBERS = (0, -1, 2**31 - 1, -(2**31), 2**31, -(2**63), 7**500, -(7**500))
FLOATS = (0.0, -0.0, 1.5, float("inf"), float("-inf"), 5e-324)


def plain(chance: random.Random, depth: int = 0) -> Any:
    """A random value of the kinds that cross."""
    leaves: list[Any] = [
        None,
        True,
        False,
        ...,
        chance.randrange(-300, 300),
        chance.choice(NUMBERS),
        chance.choice(FLOATS),
        chance.random(),
        complex(chance.random(), -0.0),
        chance.choice(TEXTS),
        chance.randbytes(chance.randrange(9)),
    ]
    kind = chance.randrange(8) if depth < 5 else 0
    if kind < 3:
        return chance.choice(leaves)
    count = chance.randrange(5)
    if kind in (5, 6):  # what can be hashed
        made = (chance.choice(leaves) for _ in range(count))
        return set(made) if kind == 5 else frozenset(made)
    items = [plain(chance, depth + 1) for _ in range(count)]
    if kind == 7:
        return {chance.choice(leaves): item for item in items}
    return items if kind == 3 else tuple(items)


KINDS = {type(None), bool, int, float, complex, str, bytes, type(...), type}
KINDS |= {list, tuple, set, frozenset, dict}  # type: of StopIteration, which marshal can write


def kinds(value: Any) -> set[type]:
    """The types of a value and of all that it holds."""
    parts = value if isinstance(value, (list, tuple, set, frozenset, dict)) else ()
    more = value.values() if isinstance(value, dict) else ()
    return {type(value)}.union(*map(kinds, parts), *map(kinds, more))


def values(count: int) -> Iterator[Any]:
    chance = random.Random(SEED)
    return (plain(chance) for _ in range(count))


def test_what_marshal_writes_is_read_back() -> None:
    for value in values(5000):
        data = marshal.dumps(value, 2)
        back = unmarshal.loads(data)
        assert type(back) is type(value)
        assert repr(back) == repr(marshal.loads(data))  # of sets, the order too


def test_integers_of_every_length_are_read_back() -> None:
    for bits in (0, 1, 14, 15, 16, 29, 30, 31, 32, 63, 64, 65, 1000, 500_000):
        for value in (1 << bits, -(1 << bits), (1 << bits) - 1, 1 - (1 << bits)):
            assert unmarshal.loads(marshal.dumps(value, 2)) == value


def test_nan_stays_the_same_nan() -> None:
    data = b"g" + bytes.fromhex("01000000000cf8ff")
    assert marshal.dumps(unmarshal.loads(data), 2) == data


def test_changed_bytes_are_another_value_or_refused() -> None:
    chance = random.Random(SEED)
    for value in values(5000):
        data = bytearray(marshal.dumps(value, 2))
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(data) + 1)
            change = chance.randrange(3)
            if change == 0 and place < len(data):
                data[place] = chance.randrange(256)
            elif change == 1:
                del data[place : place + chance.randrange(1, 5)]
            else:
                data[place:place] = chance.randbytes(chance.randrange(1, 5))
        try:
            back = unmarshal.loads(bytes(data))
        except (ValueError, RecursionError):
            continue
        assert kinds(back) <= KINDS


def test_any_bytes_are_a_value_or_refused() -> None:
    chance = random.Random(SEED)
    codes = b"NTF.Silgysut([<>{0" + bytes(8)  # random bytes alone rarely get beyond the first
    for _ in range(20_000):
        data = bytes(chance.choices(codes, k=chance.randrange(1, 40)))
        try:
            unmarshal.loads(data)
        except (ValueError, RecursionError):
            continue


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"NN",
        b"0",
        b"r" + bytes(4),
        marshal.dumps([1, 2], 4),
        marshal.dumps(compile("1", "", "eval"), 2),
        b"c" + bytes(64),
        b"[" + b"\xff\xff\xff\x7f",
        b"(" + b"\xff" * 4,
        b"s" + b"\xff" * 4,
        b"s" + b"\xff\xff\xff\x7f",
        b"l" + b"\x00\x00\x00\x80",
        b"l" + b"\xff\xff\xff\x7f",
        b"l\x01\0\0\0\xff\xff",
        b"<\x01\0\0\0[" + bytes(4),
        b">\x01\0\0\0{0",
        b"{[" + bytes(4) + b"N0",
        b"{N0",
        b"{",
        b"u\x01\0\0\0\xff",
        b"g" + bytes(7),
    ],
    ids=lambda data: data[:12].hex() or "nothing",
)
def test_what_is_no_plain_value_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whichever part of it is wrong
        unmarshal.loads(data)


def test_what_is_nested_too_deeply_is_refused_as_such() -> None:
    deep = b"[\x01\0\0\0" * (MOST // 5) + b"N"
    with pytest.raises(RecursionError):
        unmarshal.loads(deep)


# of the length that a record may have, those that are most costly to read
COSTLY = {
    "values of a byte": b"[" + (65_000).to_bytes(4, "little") + b"N" * 65_000,
    "empty lists": b"[" + (13_000).to_bytes(4, "little") + (b"[" + bytes(4)) * 13_000,
    "empty sets": b"[" + (13_000).to_bytes(4, "little") + (b"<" + bytes(4)) * 13_000,
    "empty dictionaries": b"[" + (32_000).to_bytes(4, "little") + b"{0" * 32_000,
    "a long integer": b"l" + (32_000).to_bytes(4, "little") + b"\xff\x7f" * 32_000,
    "values that collide": marshal.dumps({k * (2**61 - 1) for k in range(4200)}, 2),
}


@pytest.mark.parametrize("name", COSTLY)
def test_memory_and_time_for_a_record_are_bounded(name: str) -> None:
    data = COSTLY[name]
    assert len(data) <= 1.1 * MOST
    tracemalloc.start()
    began = time.process_time()
    try:
        unmarshal.loads(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20
    assert time.process_time() - began < 5
