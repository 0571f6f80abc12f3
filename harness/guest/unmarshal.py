"""Reads what `marshal.dumps(value, 2)` writes for plain data, as marshal must not: without trust.

Memory grows with the bytes, time too but for sets and dictionaries of values whose hashes were made
to collide, where it grows with the square: the caller limits the length.
"""

import struct

_ALONE = {b"N": None, b"T": True, b"F": False, b".": ..., b"S": StopIteration}
_ENDS = b"0"


class Reader:
    """Values of exact built-in types from bytes that anybody may have made."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if count < 0 or self.at + count > len(self.data):
            raise ValueError("cut off")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form):
        (value,) = struct.unpack(form, self.take(struct.calcsize(form)))
        return value

    def items(self):
        count = self.number("<i")
        if not 0 <= count <= len(self.data) - self.at:  # each takes a byte at least
            raise ValueError("a wrong count")
        return [self.value() for _ in range(count)]

    def value(self):
        """Raises ValueError, TypeError (what cannot be hashed) or RecursionError."""
        kind = self.take(1)
        if kind in _ALONE:
            return _ALONE[kind]
        if kind == b"i":
            return self.number("<i")
        if kind == b"l":
            return self.long()
        if kind == b"g":
            return self.number("<d")
        if kind == b"y":
            return complex(self.number("<d"), self.number("<d"))
        if kind == b"s":
            return self.take(self.number("<i"))
        if kind in b"ut":
            return self.take(self.number("<i")).decode("utf-8", "surrogatepass")
        if kind == b"(":
            return tuple(self.items())
        if kind == b"[":
            return self.items()
        if kind == b"<":
            return set(self.items())
        if kind == b">":
            return frozenset(self.items())
        if kind == b"{":
            made = {}
            while self.data[self.at : self.at + 1] != _ENDS:
                key = self.value()
                made[key] = self.value()
            self.take(1)
            return made
        raise ValueError(f"no plain value begins with {kind!r}")

    def long(self):
        count = self.number("<i")
        digits = struct.unpack(f"<{abs(count)}H", self.take(2 * abs(count)))
        if any(digit >> 15 for digit in digits):
            raise ValueError("a wrong digit")
        bits = "".join(f"{digit:015b}" for digit in reversed(digits)) or "0"
        value = int(bits, 2)  # linear, and of any length: a power of two
        return -value if count < 0 else value


def loads(data):
    """The value. Raises ValueError on anything that is not the whole of one plain value."""
    reader = Reader(data)
    try:
        value = reader.value()
    except (TypeError, struct.error) as error:
        raise ValueError(str(error)) from error
    if reader.at != len(data):
        raise ValueError("more than one value")
    return value
