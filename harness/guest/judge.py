"""Runs benchmark code against programs that live in another process; stays for many programs.

Nothing model-written is loaded here. For each program the judge asks its zygote (`zygote.py`) for a
fresh child, gives it the program over a socket of their own, and takes plain data back, so that
comparisons happen among built-in types that no program can influence.
"""

import contextlib
import importlib
import json
import marshal
import resource
import socket
import sys

sys.path.insert(0, __file__.rpartition("/")[0])
import wire
from link import Ended, Link

MOST = 1000  # characters of a detail


def judged(kinds, control, work):
    """The report on one program: plain data."""
    link = Link(control, work)
    report = {"outcomes": []}
    try:
        link.limit()
        report = kinds[work["kind"]](link, work)
    except Ended as ended:
        report["ended"] = [ended.verdict, ended.detail]
    except RecursionError:
        report["ended"] = ["crashed", "its result is nested too deeply"]
    except MemoryError:
        report["ended"] = ["memory", "its result does not fit"]
    try:
        link.unlimit()
        link.stop()
    except Ended as ended:
        report["lane"] = ended.detail
    report["outcomes"] = [[verdict, detail[:MOST]] for verdict, detail in report["outcomes"]]
    if "ended" in report:
        report["ended"] = [report["ended"][0], report["ended"][1][:MOST]]
    return {**report, "usage": link.usage}


def main():
    limits = json.loads(sys.argv[2])
    most = limits["memory_mb"] << 20
    with contextlib.suppress(ValueError):  # macOS refuses
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    kinds = {name: importlib.import_module(name).judge for name in limits["kinds"]}
    channel = wire.connect(limits)
    control = socket.socket(fileno=limits["link"])
    control.set_inheritable(False)
    channel.send(wire.HELLO)
    while True:
        _, payload = channel.receive()
        report = judged(kinds, control, marshal.loads(payload))
        if "made" in report:  # by a reference, so its bytes are ours
            channel.send(wire.MADE, marshal.dumps(report, 2))
        else:
            channel.send(wire.DONE, json.dumps(report).encode())
