"""Tries what a sandboxed program must not be able to do, and reports what happened.

It locks itself as a program is locked first, with the same filter. One JSON object:
each key is an attempt, true means that it was *prevented*. Asked to "crowd" it starts processes
instead, and tells how many it got; asked for a "daemon" it also leaves one that holds the link.
"""

import ctypes
import json
import os
import socket
import subprocess
import sys
import time

sys.path.insert(0, __file__.rpartition("/")[0])
import confine
import wire

CLONE_NEWUSER, PTRACE_SEIZE = 0x10000000, 0x4206  # linux/sched.h, linux/ptrace.h


def prevented(attempt):
    try:
        return not attempt()
    except OSError:
        return True


def connects(port):
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def parent_environment(secret):
    if not os.path.isdir("/proc/self"):  # macOS
        shown = subprocess.run(["ps", "-axEww"], capture_output=True, check=False).stdout
        return secret.encode() in shown
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    if secret.encode() in file.read():
                        return True
            except OSError:
                continue
    return False


def opens(path):
    """Whether a file can be opened, or a folder listed: Landlock hides contents, not names."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        return True
    except OSError:
        return False


def writes(path):
    with open(path, "w") as file:
        file.write("x")
    os.unlink(path)
    return True


def outsiders(mark, pid):
    """Process ids, as they are seen here, of the harness's process with `mark` in its command."""
    if not os.path.isdir("/proc/self"):  # macOS
        return [pid]
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                if entry.isdigit() and mark.encode() in file.read():
                    found.append(int(entry))
        except OSError:
            continue
    return found


def signals(pids):
    """Whether one of them takes a signal from here."""
    return not all(prevented(lambda pid=pid: os.kill(pid, 0) is None) for pid in pids)


def traces(pids):
    """Whether another process can be traced, or its memory read."""
    libc = ctypes.CDLL(None, use_errno=True)
    for pid in {*pids} - {0, os.getpid()}:
        if hasattr(libc, "ptrace") and libc.ptrace(PTRACE_SEIZE, pid, 0, 0) == 0:
            return True
        try:
            open(f"/proc/{pid}/mem", "rb").close()
            return True
        except OSError:
            continue
    return False


def gains_namespaces():
    return ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER) == 0


def status():
    with open("/proc/self/status") as file:
        parts = (line.partition(":") for line in file)
        return {name: value.strip() for name, _, value in parts}


def daemon(link):
    """Leave a process behind that no longer belongs to this one; it holds `link` open."""
    try:
        child = os.fork()
        if child == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, link)
                time.sleep(60)
            os._exit(0)
        os.waitpid(child, 0)  # the daemon is there before anybody is told
    except OSError:
        return  # told by the link all the same


def crowd(wanted, channel):
    """How many processes can be alive at once, up to `wanted`; none of them holds the channel."""
    made = 0
    try:
        while made < wanted:
            if os.fork() == 0:
                channel.close()  # whatever its number
                time.sleep(60)
                os._exit(0)
            made += 1
    except OSError:
        return made
    time.sleep(1)  # who watches from outside may act now
    return made


def main():
    channel = wire.start()
    limits = json.loads(sys.argv[2])
    _, payload = channel.receive()
    canary = json.loads(payload)
    bpf = limits.get("bpf")
    confine.prepare(bytes.fromhex(bpf) if bpf else None, limits)()
    if "crowd" in canary:
        channel.send(wire.DONE, json.dumps(crowd(canary["crowd"], channel)).encode())
        return
    others = outsiders(canary["mark"], canary["pid"]) if "mark" in canary else [canary["pid"]]
    found = {
        "network": prevented(lambda: connects(canary["port"])),
        "environment": canary["secret"] not in "".join(os.environ.values())
        and prevented(lambda: parent_environment(canary["secret"])),
        "home": not any(opens(path) for path in canary["home"]),
        "outside writes": prevented(lambda: writes(canary["outside"])),
        "other processes": not signals(others),
    }
    if canary["data"]:  # nothing to look for is no finding
        found["benchmark data"] = not any(opens(path) for path in canary["data"])
    if sys.platform == "linux":
        found["ptrace"] = not traces((*others, os.getppid(), 1))
        told = status()
        powers = (int(told[f"Cap{name}"], 16) for name in ("Prm", "Eff", "Amb"))
        found["privileges"] = told["NoNewPrivs"] == "1" and not any(powers)
        found["system calls"] = told.get("Seccomp") == "2"
        found["new namespaces"] = not gains_namespaces()  # last: it brings back capabilities
    if canary.get("daemon"):
        daemon(limits["link"])
    channel.send(wire.DONE, json.dumps(found).encode())
