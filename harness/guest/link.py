"""The judge's end of one program: frames out and in, within the program's time.

A limit is used up by CPU time of the program, or by wall time in which nobody waited for a core: a
sleeper times out, a slow machine does not, and a program that keeps itself from its cores does
(`zygote.Children.look`). The judge's own CPU time over what a program sent is
limited as the program's is (`Link.limit`).
"""

import json
import marshal
import math
import resource
import select
import signal
import socket
import time

import wire

CPU_SPARE_S = 5  # how far the kernel's own CPU limit lies behind the clock here
OWN_SPARE_S = 1  # the same for the judge's own CPU time
OWN_TICK_S = 0.1  # the judge is reminded so often that its time is up
_OUT_OF_CPU = -24  # SIGXCPU


class Ended(BaseException):
    """The program's process is gone, or its time is up; no test may catch this."""

    def __init__(self, verdict, detail):
        super().__init__(detail)
        self.verdict, self.detail = verdict, detail


class Link:
    """A program in a child process of the zygote. Limits in seconds: `total_s` for all of it,
    `step_s` (None: no such limit) since the last `mark`."""

    def __init__(self, control, work):
        self.control = control
        self.total_s = work["limit_s"]
        self.step_s = None
        self.frame_mb = wire.VALUE_MB  # the largest frame that the program may send
        self.busy_factor = work["busy_factor"]
        self.data = None
        self.over = None  # the Ended that was raised, also when a test swallowed it
        self.usage = {"cpu_s": 0.0, "starved_s": 0.0, "wall_s": 0.0}  # of the children that ended

    def limit(self):
        """Limit the CPU time of this process to that of the program, until `unlimit`.

        Ended is raised, once, between two steps of Python. A single step that goes on, comparing
        values that were made for it, is ended by the kernel, and this process with it (SIGXCPU).
        """
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        last = math.ceil(time.process_time() + self.total_s) + OWN_SPARE_S
        if hard == resource.RLIM_INFINITY or last < hard:
            resource.setrlimit(resource.RLIMIT_CPU, (last, hard))
        signal.signal(signal.SIGPROF, self._late)
        signal.setitimer(signal.ITIMER_PROF, self.total_s, OWN_TICK_S)

    def unlimit(self):
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))

    def _late(self, _, frame):
        while frame is not None:
            if frame.f_globals is globals():  # it would lose a word of the zygote's; the next tick
                return
            frame = frame.f_back
        if self.over is None:
            self.end("timeout", f"comparing its results took more than {self.total_s:g} s")

    def start(self, kind, program):
        """Fork a child for a program and send it there; one at a time."""
        ours, theirs = socket.socketpair()
        self.data, self.buffer, self.ended, self.over = ours, bytearray(), None, None
        self.poll = select.poll()
        self.poll.register(ours, select.POLLIN)
        self.poll.register(self.control, select.POLLIN)
        self.seen = {"cpu_s": 0.0, "starved_s": 0.0, "crowd": 1.0}
        self.own_seen, self.own_starved = _starved_s(), 0.0
        self.began = self.marked = time.monotonic()
        self.starved_at_mark = 0.0
        with theirs:
            order = {"do": "fork", "kind": kind, "cpu_s": int(self.total_s) + CPU_SPARE_S}
            try:
                socket.send_fds(self.control, [json.dumps(order).encode()], [theirs.fileno()])
            except OSError as error:
                self._lost(error)
        self.send(wire.LOAD, marshal.dumps(program, 2))

    def stop(self):
        """End the child, whatever it does, and wait until its sandbox is clean. Raises Ended."""
        if self.data is None:
            return
        self.data.close()
        self.data = None
        if self.ended is None:
            self._order("kill")
        while self.ended is None:
            self._hear(self._told())
        self.usage["cpu_s"] += self.ended["cpu_s"]
        self.usage["wall_s"] += self.ended["wall_s"]
        self.usage["starved_s"] += min(self.starved_s(), self.ended["wall_s"])
        if not self.ended["clean"]:
            self._lost("a program's files are too many, or could not be removed")
        if self.ended["connections"]:
            self._lost("a program's connections keep their ports for a minute")

    def mark(self, step_s):
        """Begin a new step."""
        self.step_s = step_s
        self.marked = time.monotonic()
        self.starved_at_mark = self.starved_s()

    def send(self, kind, payload=b""):
        """One frame to the program. Raises Ended."""
        data = memoryview(wire.frame(kind, payload))
        while data:
            try:
                data = data[self.data.send(data, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                self._wait(select.POLLOUT)
            except OSError:
                self._gone()

    def receive(self):
        """The program's next (kind, payload). Raises Ended."""
        while True:
            if len(self.buffer) >= wire.HEADER_BYTES:
                try:
                    length, kind = wire.parse_header(
                        self.buffer[: wire.HEADER_BYTES], self.frame_mb
                    )
                except ValueError as error:
                    self.end("tampered", str(error))
                whole = wire.HEADER_BYTES + length
                if len(self.buffer) >= whole:
                    payload = bytes(memoryview(self.buffer)[wire.HEADER_BYTES : whole])
                    del self.buffer[:whole]
                    return kind, payload
            try:
                part = self.data.recv(1 << 20, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait(select.POLLIN)
                continue
            except OSError:
                part = b""
            if not part:
                self._gone()
            self.buffer += part

    def _wait(self, event):
        """Until the channel is ready. Raises Ended when the program's time is up before."""
        self.poll.modify(self.data, event)
        now = time.monotonic()
        left = self.total_s - (now - self.began)
        if self.step_s is not None:
            left = min(left, self.step_s - (now - self.marked))
        while True:
            ready = dict(self.poll.poll(max(left, 0.01) * 1000))
            if self.data.fileno() in ready:
                return
            if self.control.fileno() in ready:
                self._hear(self._told())
                if event == select.POLLOUT:
                    self._gone()
                continue  # what it sent before its end is still to be read
            left = self.left_s()
            if left <= 0:
                limit = min(self.total_s, self.step_s or self.total_s)
                self.end("timeout", f"more than {limit:g} s")

    def left_s(self):
        """Seconds left by the time rule. Raises Ended when this machine has none to give."""
        if self.ended is None:
            self._order("usage")
            self._hear(self._told())
        now = time.monotonic()
        starved, wall = self.starved_s(), now - self.began
        left = self.total_s - max(self.seen["cpu_s"], wall - starved)
        if self.step_s is not None:
            used = now - self.marked - (starved - self.starved_at_mark)
            left = min(left, self.step_s - used)
        if left > 0 and wall > self.total_s * self.busy_factor:
            cpu = self.seen["cpu_s"]
            self.end("busy", f"the program got {cpu:.1f} s of a core in {wall:.0f} s")
        return left

    def starved_s(self):
        """Seconds of the wall time in which the program, its zygote or the judge waited for a core
        that other programs had, as far as seen."""
        now = _starved_s()
        self.own_starved += (now - self.own_seen) / self.seen["crowd"]
        self.own_seen = now
        return min(self.seen["starved_s"] + self.own_starved, time.monotonic() - self.began)

    def _order(self, what):
        try:
            self.control.send(json.dumps({"do": what}).encode())
        except OSError as error:
            self._lost(error)

    def _told(self):
        """The zygote's next word. Raises Ended when it is gone."""
        try:
            said = self.control.recv(65536)
        except OSError as error:
            self._lost(error)
        if not said:
            self._lost("it closed")
        return json.loads(said)

    def _hear(self, told):
        if "status" in told:
            self.ended = told
            self.poll.unregister(self.control)
        else:  # an ended process takes what it used along
            self.seen = {name: told[name] for name in self.seen}

    def _lost(self, why):
        self.data = None
        self.end("lost", f"the sandbox is gone: {why}")

    def _gone(self):
        """The channel is closed: say how the process ended. Raises Ended."""
        deadline = time.monotonic() + 2
        while self.ended is None and self.poll_control(deadline - time.monotonic()):
            self._hear(self._told())
        if self.ended is None:
            self.end("crashed", "the program closed its channel")
        reason, status = self.ended["reason"], self.ended["status"]
        if reason == "memory":
            self.end("memory", "limit on memory reached")
        if reason == "processes":
            self.end("crashed", "limit on processes reached")
        if status == _OUT_OF_CPU:
            self.end("timeout", f"more than {self.total_s:g} s of CPU")
        self.end("crashed", f"the program ended its own process: exit status {status}")

    def poll_control(self, seconds):
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        return bool(poll.poll(max(seconds, 0) * 1000))

    def end(self, verdict, detail):
        """Raise Ended, and remember it: a test may swallow it."""
        self.over = Ended(verdict, detail)
        raise self.over


def _starved_s():
    """Seconds that this process waited for a core."""
    return wire.schedule("self")[1]
