"""Runs tests against a solution that lives in another process (`candidate.py`).

Only benchmark code runs here. `candidate(...)` sends its arguments out as plain data and gets plain
data back, so comparisons happen among built-in types that the solution cannot influence.
"""

import builtins
import json
import sys

sys.path.insert(0, __file__.rpartition("/")[0])
import wire


class Judge:
    def __init__(self, channel):
        self.channel = channel
        self.calls = 0
        self.raised = None  # the exception that stands for the solution's last one
        self.returned = None

    def candidate(self, *arguments, **keywords):
        self.calls += 1
        self.channel.send(wire.CALL, wire.dump([list(arguments), keywords]))
        kind, payload = self.channel.receive()
        if kind == wire.RETURNED:
            self.returned = wire.load(payload)
            return self.returned
        fact = json.loads(payload)
        base = getattr(builtins, fact["base"], Exception)
        if not issubclass(base, Exception):
            base = Exception  # SystemExit in a solution must not end the judge
        try:
            self.raised = base(f"{fact['class']}: {fact['message']}")
        except TypeError:  # UnicodeDecodeError and the like want more arguments
            self.raised = Exception(f"{fact['class']}: {fact['message']}")
        raise self.raised

    def run(self, source, namespace):
        """(outcome, detail) of one test statement."""
        before, self.raised, self.returned = self.calls, None, None
        try:
            exec(compile(source, "<test>", "exec", dont_inherit=True), namespace)
        except MemoryError:
            return "memory", "the returned value does not fit"
        except BaseException as error:  # noqa: BLE001
            if error is self.raised:
                return "exception", str(error)[:500]
            if isinstance(error, AssertionError):
                said = f"{error}"[:200]
                return "wrong", f"got {self.returned!r:.300}" + (f" ({said})" if said else "")
            return "wrong", f"{type(error).__name__}: {error}"[:300] + f" on {self.returned!r:.200}"
        if self.calls == before:
            return "tampered", "the test called nothing"
        return "passed", ""


def main():
    channel = wire.start()
    _, payload = channel.receive()
    work = json.loads(payload)
    judge = Judge(channel)
    namespace = {"__name__": "tests"}
    try:
        exec(compile(work["prelude"], "<prompt>", "exec", dont_inherit=True), namespace)
        exec(compile(work["setup"], "<setup>", "exec", dont_inherit=True), namespace)
    except Exception as error:  # noqa: BLE001 - the benchmark's own code is broken: our fault
        channel.send(wire.ERROR, f"{type(error).__name__}: {error}".encode())
        return
    namespace[work["entry_point"]] = namespace["candidate"] = judge.candidate
    channel.send(wire.OK)
    for source in work["tests"]:
        outcome, detail = judge.run(source, namespace)
        channel.send(wire.TEST, json.dumps({"outcome": outcome, "detail": detail}).encode())
        if outcome != "passed" and work["stop_early"]:
            break
    channel.send(wire.DONE)


main()
