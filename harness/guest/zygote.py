"""A warm parent: forks one locked-down child for each program, and cleans up after it.

It takes orders from a judge over a socket that no child can reach (`judge.py`): fork with this
socket as the child's channel, tell what the child has used, kill it. Where it has a pid namespace
of its own it is the first process there, which nothing inside can signal. After each child nothing
is left: no process, no file.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import time

sys.path.insert(0, __file__.rpartition("/")[0])
import confine
import wire

# what programs import most, paid once
LEAN = """
bisect cmath collections copy dataclasses datetime decimal enum fractions functools hashlib heapq
itertools marshal math operator random re statistics string typing
""".split()  # noqa: SIM905
MOST_ENTRIES = 20_000  # that are removed one by one after a program
TICK_S = 0.05  # how often memory and process count are looked at
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Children:
    """The processes of the running program, and what they have used since `begin`."""

    def __init__(self, own_pids):
        self.own_pids = own_pids
        self.first = None  # its first process

    def begin(self, pid):
        """A program starts with this process."""
        self.first = pid
        self.looked = time.monotonic()
        self.cpu = {}  # {process: CPU seconds of its own}, ended ones too
        self.cpu_s = self.starved_s = 0.0
        self.seen = {}  # {task: (CPU seconds, seconds without a core)} at the last look
        self.own_starved = wire.schedule("self")[1]

    def pids(self):
        """All live processes but this one."""
        own = os.getpid()
        try:
            found = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        except OSError:  # macOS: the harness looks at the tree from outside
            return [self.first]
        if self.own_pids:
            return [pid for pid in found if pid != own]
        parents = {}
        for pid in found:
            with contextlib.suppress(OSError, IndexError, ValueError):
                parents[pid] = int(_stat(pid)[1])
        known = {own}
        while more := {pid for pid, parent in parents.items() if parent in known} - known:
            known |= more
        return sorted(known - {own})

    def look(self):
        """What the program has used up to now: CPU seconds, seconds in which it or we wanted a
        core that others had, and what it has now: resident bytes, processes, tasks, and `crowd`,
        how many of its tasks wanted a core at a time (at least 1.0).

        CPU time of processes that nobody waited for counts, as far as it was seen. Of the tasks
        only the one that waited longest counts, and a crowd's waiting is its own doing: a program
        cannot stretch its time by starving itself.
        """
        now = time.monotonic()
        passed, self.looked = now - self.looked, now
        alive = resident = processes = 0
        tasks = {}
        for pid in self.pids():
            try:
                fields = _stat(pid)
                threads = os.listdir(f"/proc/{pid}/task")
            except (OSError, IndexError):
                continue
            own = (int(fields[11]) + int(fields[12])) / TICKS
            self.cpu[pid, fields[19]] = own  # with its start: numbers of processes come again
            alive += own + (int(fields[13]) + int(fields[14])) / TICKS
            resident += int(fields[21]) * PAGE
            processes += 1
            for thread in threads:
                tasks[pid, thread, fields[19]] = wire.schedule(f"{pid}/task/{thread}")
        wanted = longest = 0.0
        for task, (ran, starved) in tasks.items():
            before = self.seen.get(task, (0.0, 0.0))
            waited = max(starved - before[1], 0.0)
            wanted += min(max(ran - before[0], 0.0) + waited, passed)
            longest = max(longest, waited)
        own_starved = wire.schedule("self")[1]
        waited = min(longest + own_starved - self.own_starved, passed)
        self.seen, self.own_starved = tasks, own_starved
        crowd = max(wanted / passed, 1.0) if passed > 0 else 1.0
        self.starved_s += waited / crowd
        self.cpu_s = max(self.cpu_s, alive, sum(self.cpu.values()))
        found = {"resident": resident, "processes": processes, "tasks": len(tasks), "crowd": crowd}
        return {"cpu_s": self.cpu_s, "starved_s": self.starved_s, **found}

    def strike(self):
        """Send all of them SIGKILL; their statuses are left to be read."""
        for pid in [-1] if self.own_pids else self.pids():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def kill(self):
        """Kill all of them and wait until none is left."""
        while True:
            self.strike()
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                if self.own_pids or self.pids() in ([], [self.first]):
                    return
            time.sleep(0.0005)


def _stat(pid):
    """Fields of /proc/PID/stat after the name, which may hold anything: state first."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def entries(folders):
    """How many files and folders their file systems hold, as far as these count."""
    found = [os.statvfs(folder) for folder in folders]
    return sum(system.f_files - system.f_ffree for system in found)


def clean(folders):
    """Empty the folders that a program can write to. False when something resists."""
    for folder in folders:
        try:
            if hasattr(os, "listxattr"):  # notes, and access lists that what is made here inherits
                for name in os.listxattr(folder):
                    os.removexattr(folder, name)
            os.chmod(folder, 0o700)
            inside = list(os.scandir(folder))
        except OSError:
            return False
        for entry in inside:
            try:
                if entry.is_dir(follow_symlinks=False):
                    remove_tree(entry.path)
                else:
                    os.unlink(entry.path)
            except OSError:
                return False
    return True


def connections():
    """Whether the network namespace still holds a connection: a closed one keeps its port a minute.

    The next program that wants the port would not get it.
    """
    left = 0
    for name in ("sockstat", "sockstat6"):  # the tables themselves take milliseconds to read
        with contextlib.suppress(OSError), open(f"/proc/self/net/{name}") as file:
            for line in file:
                kind, *words = line.split()
                if kind in ("TCP:", "TCP6:"):  # its orphans and memory are those of the machine
                    counts = dict(zip(words[::2], words[1::2], strict=False))
                    left += int(counts["inuse"]) + int(counts.get("tw", 0))
    return left > 0


def remove_tree(path):
    """Remove a folder of any depth, also one that its maker locked. Raises OSError."""

    def unlock(function, name, _):
        parent = os.path.dirname(name)
        for locked in (parent, name):
            if not os.path.islink(locked):
                os.chmod(locked, 0o700)
        function(name)

    try:
        shutil.rmtree(path, onerror=unlock)
    except RecursionError as error:
        raise OSError("too deep") from error


class Zygote:
    """Obeys a judge: `kinds` has the `child` function of each kind of program, `limits` is what
    the sandbox passed on, `link` the socket that orders come from."""

    def __init__(self, kinds, limits, link):
        self.kinds, self.limits, self.link = kinds, limits, link
        self.children = Children(limits["own_pids"])
        self.entries = entries(limits["folders"])
        bpf = bytes.fromhex(limits["bpf"]) if limits["bpf"] else None
        self.lock = confine.prepare(bpf, {**limits, "cpu_s": None})

    def serve(self):
        while True:
            order, fds, _, _ = socket.recv_fds(self.link, 65536, 1)
            if not order:
                return
            order = json.loads(order)
            if order["do"] != "fork":
                continue  # for a program that has ended by itself meanwhile
            (fd,) = fds
            began = time.monotonic()
            pid = os.fork()
            if pid == 0:
                self.child(order, fd)
            os.close(fd)
            self.children.begin(pid)
            ended = self.watch(pid)
            self.children.kill()
            ended["wall_s"] = time.monotonic() - began
            # a lane's end frees many at once
            few = entries(self.limits["folders"]) - self.entries < MOST_ENTRIES
            ended["clean"] = few and clean(self.limits["folders"])
            ended["connections"] = self.children.own_pids and connections()
            self.link.send(json.dumps(ended).encode())

    def child(self, order, fd):
        """The forked child; never returns."""
        status = 70
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            resource.setrlimit(resource.RLIMIT_CPU, (order["cpu_s"], order["cpu_s"] + 1))
            null = os.open(os.devnull, os.O_RDWR)  # its own: others' have flags that it could set
            for number in range(3):
                os.dup2(null, number)
            self.lock(fd)
            with contextlib.suppress(OSError):
                os.chdir(self.limits["folders"][0])
            self.kinds[order["kind"]](wire.Channel(fd), order)
            status = 0
        finally:
            os._exit(status)

    def watch(self, pid):
        """Wait for the program's first process to end; how it ended, and what it used."""
        exits = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        poll = select.poll()
        poll.register(self.link, select.POLLIN)
        if exits is not None:
            poll.register(exits, select.POLLIN)
        limit = self.limits["memory_mb"] << 20
        reason, looked = None, time.monotonic()
        try:
            while True:
                ready = {fd for fd, _ in poll.poll(TICK_S * 1000 if exits is not None else 2)}
                done, status, used = os.wait4(pid, os.WNOHANG)
                if done:
                    cpu_s = max(self.children.cpu_s, used.ru_utime + used.ru_stime)
                    return {"status": os.waitstatus_to_exitcode(status), "reason": reason} | {
                        "cpu_s": cpu_s,
                        "peak_kb": used.ru_maxrss,
                    }
                if self.link.fileno() in ready:
                    order = self.link.recv(65536)
                    if not order:
                        self.children.kill()
                        sys.exit(0)
                    if json.loads(order)["do"] == "kill":
                        os.kill(pid, signal.SIGKILL)
                        self.children.strike()
                        reason = reason or "killed"
                        continue
                    self.link.send(json.dumps(self.children.look()).encode())
                if time.monotonic() - looked >= TICK_S:
                    looked = time.monotonic()
                    usage = self.children.look()
                    if usage["resident"] > limit:
                        reason = "memory"
                    elif any(usage[name] > self.limits[name] for name in ("processes", "tasks")):
                        reason = "processes"
                    if reason in ("memory", "processes"):
                        self.children.strike()
        finally:
            if exits is not None:
                os.close(exits)


def main():
    limits = json.loads(sys.argv[2])
    kinds = {name: importlib.import_module(name).child for name in limits["kinds"]}
    own = wire.connect(limits)
    link = socket.socket(fileno=limits["link"])
    link.set_inheritable(False)
    for name in (*LEAN, *limits["preload"]):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    zygote = Zygote(kinds, limits, link)
    gc.collect()
    gc.freeze()
    own.send(wire.HELLO)
    zygote.serve()
