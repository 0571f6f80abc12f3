"""Inputs on which a solution must return what the reference returns (EvalPlus 0.3.1's rules).

The child calls the solution on every input and sends its outputs in chunks, as bytes that can be
compared without being decoded; only an output whose bytes differ from the reference's is asked for
as plain data and compared as EvalPlus does. Outputs beyond BIG travel as a digest.
"""

import contextlib
import hashlib
import itertools
import json
import marshal
import math
import struct
import time

import unmarshal
import wire
from assertions import describe, load, loaded, shown
from link import Ended

BIG = 1 << 16  # bytes of an output that travels as its digest
CHUNK_S = 0.01  # a chunk is sent once it has taken so long,
CHUNK_COUNT, CHUNK_BYTES = 2048, 1 << 18  # or holds so many outputs or bytes
SLICE = 1 << 14  # items of a long list that are encoded at once
TOO_LARGE = b"~"  # stands for an output that fits into no frame
RAISED = b"!"  # begins the description of an exception that stands for an output
DIGEST = b"#"  # begins the record of a digest; no type code of marshal's

NONE = marshal.dumps(None, 2)
_QUESTION = struct.Struct(">I?")  # position, whether only floats are wanted
_COUNTS = struct.Struct(">III")  # first position, outputs, bytes of their lengths


# In the child


def record(value):
    """Bytes that tell a plain value from any other; None when it is not plain data."""
    try:
        if type(value) is list and len(value) > SLICE:
            digest = hashlib.blake2b(digest_size=32)
            for start in range(0, len(value), SLICE):
                part = value[start : start + SLICE]
                data = marshal.dumps(part, 2)
                if misread(part, data, SETS):
                    return None
                digest.update(data)
            return DIGEST + len(value).to_bytes(8, "big") + digest.digest()
        data = marshal.dumps(value, 2)
    except ValueError:
        return None
    if misread(value, data, SETS if len(data) > BIG else frozenset()):
        return None
    return data if len(data) <= BIG else DIGEST + hashlib.blake2b(data, digest_size=32).digest()


SETS = frozenset((set, frozenset))
HOLDERS = frozenset((list, tuple, dict)) | SETS
PLAIN = frozenset((int, float, str, bool, type(None), complex, bytes)) | HOLDERS


def types_in(value):
    """The types of a value and of all that it holds; level by level, at the speed of C."""
    found, level = set(), [value]
    while level:
        here = set(map(type, level))
        found |= here
        holders = here & HOLDERS
        if not holders or not here <= PLAIN:
            return found
        if dict in holders:
            values = (v.values() for v in level if type(v) is dict)
            level = [*itertools.chain.from_iterable(values), *_items(level, here, holders)]
        else:
            level = _items(level, here, holders)
    return found


def misread(value, data, unwanted):
    """Whether marshal's bytes do not stand for this value, or it holds a type of `unwanted`.

    It writes what only looks like bytes (a numpy scalar) as bytes, and equal sets in any order.
    """
    codes = (b"s", b"<", b">") if unwanted else (b"s",)
    if not any(code in data for code in codes):
        return False
    found = types_in(value)
    return not found <= PLAIN or not found.isdisjoint(unwanted)


def _items(level, here, holders):
    holding = level if here == holders else [v for v in level if type(v) in holders]
    return list(itertools.chain.from_iterable(holding))


class Chunk:
    """Outputs that were not sent yet. Each is kept as its record, or as its values where the
    record cannot be turned back: what a later call changes in it does not count."""

    def __init__(self, channel, most_mb):
        self.channel, self.most_mb = channel, most_mb  # most_mb: of a value that is shown
        self.first, self.since = 0, time.monotonic()
        self.clear(0)

    def clear(self, first):
        self.first, self.records, self.values, self.bytes = first, [], {}, 0

    def add(self, value):
        """Whether the chunk should be sent now."""
        data = record(value)
        if data is None:
            self.values[len(self.records)] = dumped(value, self.most_mb)
            data = b""
        elif data[:1] == DIGEST:
            self.values[len(self.records)] = value  # sent before anything can change it
        self.records.append(data)
        self.bytes += len(data)
        return (
            data[:1] == DIGEST
            or time.monotonic() - self.since > CHUNK_S
            or len(self.records) >= CHUNK_COUNT
            or self.bytes >= CHUNK_BYTES
        )

    def add_raised(self, description):
        """An exception in place of an output."""
        self.values[len(self.records)] = RAISED + description
        self.records.append(b"")
        return True

    def send(self):
        """Send it; answer the judge's questions about its values until it wants more."""
        if not self.records:
            return
        lengths = struct.pack(f">{len(self.records)}I", *map(len, self.records))
        head = _COUNTS.pack(self.first, len(self.records), len(lengths))
        self.channel.send(wire.CHUNK, b"".join((head, lengths, *self.records)))
        while True:
            kind, payload = self.channel.receive()
            if kind == wire.MORE:
                break
            place, only_floats = _QUESTION.unpack(payload)
            self.channel.send(wire.SHOWN, self.shown(place - self.first, only_floats))
        self.clear(self.first + len(self.records))
        self.since = time.monotonic()

    def shown(self, place, only_floats):
        value = self.values.get(place)
        if isinstance(value, bytes):
            return value
        if only_floats and not is_floats(value):
            return TOO_LARGE
        return dumped(value, self.most_mb)


def dumped(value, most_mb):
    """[whether its type is exact, the value] for the judge; TOO_LARGE beyond `most_mb`."""
    data = wire.dump([exact(value), value], most_mb)
    if data == wire.DEEP:
        return b'{"l": [false, ' + wire.DEEP + b"]}"
    return TOO_LARGE if data == wire.TOO_LARGE else data


def exact(value):
    """Whether its type is one of Python's own, not a subclass: EvalPlus compares types."""
    return type(value).__module__ == "builtins"


def child(channel, order):
    """Load the solution, call it on every input, send what it returns."""
    _, payload = channel.receive()
    program = marshal.loads(payload)
    inputs = marshal.loads(program["inputs"])
    alone = set(program["alone"])  # positions of inputs that take long, sent by themselves
    entry_point = load(channel, program)
    if entry_point is None:
        return
    channel.receive()  # the judge's word to begin
    most_mb = wire.FRAME_MB if program["timed"] else wire.VALUE_MB
    chunk, times, clock = Chunk(channel, most_mb), [], time.process_time
    for position, arguments in enumerate(inputs):
        if position in alone:
            chunk.send()
        try:
            if program["timed"]:
                began = clock()
                full = chunk.add(entry_point(*arguments))
                times.append(clock() - began)
            else:
                full = chunk.add(entry_point(*arguments))
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a solution is its failure
            if not program["every"]:
                chunk.send()
                channel.send(wire.RAISED, describe(error))
                return
            full = chunk.add_raised(describe(error))
        if full or position in alone:
            chunk.send()
    chunk.send()
    channel.send(wire.DONE, struct.pack(f">{len(times)}d", *times))
    channel.receive()


# In the judge


class Expected:
    """What the reference returns: records one after another, and where each begins."""

    def __init__(self, records, lengths, values):
        self.records, self.values = records, values  # values: of digests, by position, as asked
        self.offsets = [0]
        for length in lengths:
            self.offsets.append(self.offsets[-1] + length)

    def between(self, position, count):
        """The records of `count` positions, joined."""
        return self.records[self.offsets[position] : self.offsets[position + count]]

    def record(self, position):
        return self.between(position, 1)

    def value(self, position):
        """Raises KeyError when only its digest is known."""
        data = self.record(position)
        if position in self.values or data[:1] in (DIGEST, b""):
            return wire.load(self.values[position])[1]
        return marshal.loads(data)


class Rule:
    """EvalPlus's comparison of one part's outputs, in order: its tolerance is kept once widened."""

    def __init__(self, name, atol, expected, inputs):
        self.name, self.atol, self.expected = name, atol, expected
        self.packed, self.inputs = inputs, None  # marshalled until an output differs
        self.seen = 0  # positions whose expected output was looked at for the tolerance

    def equal(self, position, kind_is_exact, out):
        """Whether `out` counts as the reference's output. Raises what odd values raise."""
        wanted = self.expected.value(position)
        self.inputs = self.inputs or marshal.loads(self.packed)
        arguments = self.inputs[position]
        if self.name == "find_zero":
            return abs(poly(*arguments, out)) <= self.atol
        same = bool(out == wanted)
        if self.name == "any":
            same = True
        elif self.name == "sum_div":
            same = same or bool(out == 0)
        elif self.name == "surface_area":
            same = same or abs(out - surface_area(*arguments)) <= self.atol
        elif self.name == "digit_distance":
            same = same or bool(out == digit_distance(*arguments))
        elif self.name == "set":
            same = set(out) == set(wanted)
        elif self.name == "not_none":
            same = out == wanted if isinstance(out, bool) else wanted == (out is not None)
        atol = self.tolerance(position)
        if same or atol == 0:
            return same
        if not kind_is_exact or type(out) is not type(wanted):
            return False
        if isinstance(wanted, list | tuple) and len(out) != len(wanted):
            return False
        import numpy

        return bool(numpy.allclose(out, wanted, rtol=1e-07, atol=atol))

    def tolerance(self, position):
        """The tolerance at a position: widened from the first float output of the part on."""
        while self.atol == 0 and self.seen <= position:
            data = self.expected.record(self.seen)
            if data[:1] in b"g[(#":  # a float, or what may hold floats
                with contextlib.suppress(KeyError):  # a list of floats would have been kept
                    if is_floats(self.expected.value(self.seen)):
                        self.atol = 1e-6
            self.seen += 1
        return self.atol


def is_floats(value):
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def poly(coefficients, x):
    """The polynomial's value at x (HumanEval/32)."""
    return sum(c * math.pow(x, power) for power, c in enumerate(coefficients))


def surface_area(base, height):
    """Of a square pyramid whose height is the perpendicular one (Mbpp/581)."""
    slant = math.sqrt((base / 2) ** 2 + height**2)
    return round(base**2 + 4 * (base * slant) / 2)


def digit_distance(first, second):
    """Sum of the digits' differences, the shorter number filled up with zeros (Mbpp/558)."""
    length = max(len(str(first)), len(str(second)))
    pairs = zip(str(first).zfill(length), str(second).zfill(length), strict=True)
    return sum(abs(int(a) - int(b)) for a, b in pairs)


class Collector:
    """Takes a reference's outputs; `keep`: positions whose value is wanted however large it is."""

    def __init__(self, rule, keep):
        self.rule, self.keep = rule, set(keep)
        self.records, self.lengths, self.values = [], [], {}

    def take(self, link, place, data):
        if self.rule == "not_none":  # all that EvalPlus keeps of such an output
            data = marshal.dumps(data != NONE, 2)
        elif not data or data[:1] == DIGEST:
            # of large outputs only those need to be kept for which a tolerance may count
            only_floats = bool(data) and place not in self.keep
            link.send(wire.SHOW, _QUESTION.pack(place, only_floats))
            value = answer(link)
            if value is not None:
                self.values[place] = value
        elif marshal.loads(data) != marshal.loads(data):  # nan: no output equals it
            self.values[place], data = wire.dump([True, marshal.loads(data)]), b""
        self.records.append(data)
        self.lengths.append(len(data))


def answer(link):
    """The child's plain data for an output, as bytes; None when it is too large. Raises Ended."""
    kind, payload = link.receive()
    if kind != wire.SHOWN:
        raise Ended("tampered", f"a frame of kind {kind!r} instead of a value")
    return None if payload == TOO_LARGE else payload


class Outputs:
    """One chunk as it came: `count` records from position `first` on, in `blob`."""

    def __init__(self, payload):
        """Raises struct.error or ValueError when it is not one."""
        self.first, count, size = _COUNTS.unpack_from(payload)
        self.lengths = struct.unpack_from(f">{count}I", payload, _COUNTS.size)
        self.blob = payload[_COUNTS.size + size :]
        if not count or size != 4 * count or sum(self.lengths) != len(self.blob):
            raise ValueError("lengths that do not fit")
        if max(self.lengths) > BIG:  # what is larger travels as its digest
            raise ValueError("a record that is too long")

    def records(self):
        """(position, record) of each."""
        start = 0
        for place, length in enumerate(self.lengths, self.first):
            yield place, self.blob[start : start + length]
            start += length


def chunks(link, work, times=None):
    """The chunks in order; `times` takes the CPU seconds of each call at the end. Raises Ended."""
    limits, least_s = dict(work["alone"]), work["case_s"]
    done = 0
    link.send(wire.OK)
    while True:
        link.mark(limits.get(done, least_s))
        kind, payload = link.receive()
        if kind == wire.DONE:
            break
        if kind == wire.RAISED:
            raise Ended("exception", raised(payload))
        if kind != wire.CHUNK:
            raise Ended("tampered", f"a frame of kind {kind!r} instead of outputs")
        try:
            outputs = Outputs(payload)
        except (struct.error, ValueError):
            raise Ended("tampered", "a chunk that the sandbox does not send") from None
        done += len(outputs.lengths)
        if outputs.first + len(outputs.lengths) != done or done > work["count"]:
            raise Ended("tampered", "outputs out of order")
        yield outputs
        link.send(wire.MORE)
    if done != work["count"]:
        raise Ended("tampered", f"{done} of {work['count']} outputs")
    if times is not None:
        times += struct.unpack(f">{done}d", payload)


def raised(payload):
    try:
        fact = json.loads(payload)
        return f"{fact['class']}: {fact['message']}"[:500]
    except (ValueError, LookupError, TypeError, RecursionError):
        return "an exception"


def judge(link, work):
    """Compare all outputs, in order, up to the first that differs.

    `work`: prelude, code, entry_point, inputs (marshalled argument lists), count, alone (pairs of
    position and limit in seconds), case_s, rule, atol, and expected: what a run with expected None
    reports as "made". A report without "ended" is a pass; "needs" names a position whose expected
    value has to be kept (`keep`) first. Without `stop_early`, "outcomes" has one for each input.
    """
    report = {"outcomes": []}
    try:
        alone = [place for place, _ in work["alone"]]
        timed = work["expected"] is None
        if timed:  # the reference, which nobody made to harm us
            link.frame_mb = wire.FRAME_MB
        every = not work["stop_early"]
        more = {"inputs": work["inputs"], "alone": alone, "timed": timed, "every": every}
        found = loaded(link, work, **more)
        if found is not None:
            return {**report, "ended": found}
        if timed:
            return {**report, "made": collected(link, work)}
        expected = Expected(**work["expected"])
        rule = Rule(work["rule"], work["atol"], expected, work["inputs"])
        for outputs in chunks(link, work):
            same = outputs.blob == expected.between(outputs.first, len(outputs.lengths))
            if same and not every:
                continue
            for place, data in outputs.records():
                found = None if same else differs(link, rule, place, data)
                if found is not None and ("needs" in found or not every):
                    return {**report, **found}
                if every:
                    report["outcomes"].append(found["ended"] if found else ["passed", ""])
    except Ended as ended:
        return {**report, "ended": [ended.verdict, ended.detail]}
    return report


def collected(link, work):
    collector, times = Collector(work["rule"], work["keep"]), []
    for outputs in chunks(link, work, times):
        for place, data in outputs.records():
            collector.take(link, place, data)
    return {
        "records": b"".join(collector.records),
        "lengths": collector.lengths,
        "values": collector.values,
        "times": times,
    }


def differs(link, rule, place, data):
    """What the report says of an output that is not the reference's; None when it is equal.

    An output has one answer only: its record, or what is shown where the record holds no value.
    """
    if data and data == rule.expected.record(place):
        return None
    try:
        if data and data[:1] != DIGEST:
            kind_is_exact, out = True, unmarshal.loads(data)
        else:
            link.send(wire.SHOW, _QUESTION.pack(place, False))
            payload = answer(link)
            if payload is None:
                said = "not the reference's output, and too large"
                return {"ended": ["wrong", f"input {place}: {said}"]}
            if payload[:1] == RAISED:
                return {"ended": ["exception", raised(payload[1:])]}
            kind_is_exact, out = wire.load(payload)
            if data and record(out) != data:
                raise Ended("tampered", f"input {place}: another value than before")
    except (ValueError, TypeError):
        raise Ended("tampered", "a value that is none") from None
    try:
        if rule.equal(place, kind_is_exact, out):
            return None
    except KeyError:
        return {"needs": place}
    except MemoryError:
        return {"ended": ["memory", "the returned value does not fit"]}
    except Exception as error:  # noqa: BLE001 - as in EvalPlus, an odd value that breaks it fails
        return {
            "ended": ["wrong", f"input {place}: {type(error).__name__} on {shown(repr, out, 200)}"]
        }
    try:
        wanted = shown(repr, rule.expected.value(place), 200)
    except KeyError:
        wanted = "another"
    return {"ended": ["wrong", f"input {place}: got {shown(repr, out, 200)}, expected {wanted}"]}
