"""Tries what a sandboxed program must not be able to do, and reports what happened.

One JSON object: each key is an attempt, true means that it was *prevented*.
"""

import json
import os
import socket
import subprocess
import sys

sys.path.insert(0, __file__.rpartition("/")[0])
import wire


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
    try:
        with open(path, "rb"):
            return True
    except OSError:
        return False


def writes(path):
    with open(path, "w") as file:
        file.write("x")
    os.unlink(path)
    return True


def main():
    channel = wire.start()
    _, payload = channel.receive()
    canary = json.loads(payload)
    found = {
        "network": prevented(lambda: connects(canary["port"])),
        "environment": canary["secret"] not in "".join(os.environ.values())
        and prevented(lambda: parent_environment(canary["secret"])),
        "home": prevented(lambda: any(os.path.lexists(path) for path in canary["home"])),
        "outside writes": prevented(lambda: writes(canary["outside"])),
        "other processes": prevented(lambda: os.kill(canary["pid"], 0) is None),
    }
    if canary["data"]:  # nothing to look for is no finding
        found["benchmark data"] = not any(opens(path) for path in canary["data"])
    channel.send(wire.DONE, json.dumps(found).encode())


main()
