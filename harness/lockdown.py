"""Layers below the namespaces: seccomp filters, Landlock, control groups. Linux only.

Each is there or it is not: what is missing is told by `layers()` and its reason is shown, so that
a run can say in one line what held (`layers_line`). Nothing here starts untrusted code; the sandbox
does (`sandbox.py`), and `guest/confine.py` applies the filters in the forked child.

seccomp goes through libseccomp (package pyseccomp), which knows every architecture's system calls,
Landlock through the package landlockpy.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import itertools
import json
import os
import signal
import socket
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import SandboxError
from harness.guest import confine

LINUX = sys.platform == "linux"
MIN_ABI = 3  # Landlock without `truncate` (before Linux 6.2) does not keep files from being emptied
SCOPE_ABI = 6  # from here on Landlock keeps signals and abstract sockets inside (Linux 6.12)
GROUP_PREFIX = "harness-"
LAUNCH_FAILED = 71  # EX_OSERR

# What no solution needs: a way out, a look into other processes, the machine's own settings, and
# what outlives a program inside one lane (System V and POSIX queues, keys).
_DENIED = """
ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd
mount umount umount2 pivot_root chroot move_mount open_tree fsopen fsconfig fsmount fspick
mount_setattr unshare setns
bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register
keyctl add_key request_key
kexec_load kexec_file_load init_module finit_module delete_module create_module query_module
shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl
mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
reboot swapon swapoff settimeofday clock_settime clock_adjtime adjtimex stime
sethostname setdomainname syslog acct quotactl quotactl_fd vhangup iopl ioperm personality
name_to_handle_at open_by_handle_at fanotify_init fanotify_mark lookup_dcookie nfsservctl
uselib ustat sysfs _sysctl vm86 vm86old migrate_pages move_pages memfd_secret ioprio_set
"""
_SIGNALS = "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal"
# Landlock has no say about these: they seem to succeed and change nothing, for copying a file
# within the scratch folder ends with them
_METADATA = "chmod fchmod fchmodat fchmodat2 utime utimes utimensat futimesat"
_OWNERS = "chown fchown lchown fchownat chown32 fchown32 lchown32"
# notes on the scratch folders, and access lists that all below them inherits
_ATTRIBUTES = """
setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat
"""
# linux/sched.h
_CLONE_NEW = (0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
_UNKNOWN = -1  # __NR_SCMP_ERROR
_TIOCLINUX = 0x541C  # asm-generic/ioctls.h: like TIOCSTI, types into a terminal
_NETWORK_FAMILIES = (1, 2, 10, 16)  # Unix, IPv4, IPv6, netlink (getaddrinfo asks it)


def seccomp_missing() -> str | None:
    """Why there are no seccomp filters here; None where there are."""
    if not LINUX:
        return "not Linux"
    try:
        import pyseccomp  # noqa: F401
    except ImportError:
        return "pip install pyseccomp"
    except RuntimeError:
        return "install libseccomp (Debian: libseccomp2)"
    status = Path("/proc/self/status")
    if status.exists() and "\nSeccomp:" not in status.read_text():
        return "the kernel has no seccomp"
    return None


@functools.cache
def filters(*, signals: bool = True) -> Mapping[str, bytes]:
    """The compiled filters `full` and `offline` for `guest/confine.py`; {} where none can be had.

    `full` is every program's own and denies what no solution needs; `offline` goes around the
    lanes of tiers without a network namespace: no sockets but pairs, and permissions and times of
    files stay as they are. Without `signals` a program can send none at all: for tiers where one
    could reach outside.
    """
    if seccomp_missing():
        return {}
    return {name: _compiled(name, signals) for name in ("full", "offline")}


def _compiled(name: str, signals: bool) -> bytes:
    from pyseccomp import (
        ALLOW,
        EQ,
        ERRNO,
        GT,
        KILL_PROCESS,
        MASKED_EQ,
        NE,
        Arg,
        Attr,
        SyscallFilter,
    )

    made = SyscallFilter(ALLOW)
    # another architecture's system calls (32-bit on 64-bit) would go by other numbers
    made.set_attr(Attr.ACT_BADARCH, KILL_PROCESS)

    def deny(names: str, *arguments: Any, error: int = errno.EPERM) -> None:
        for each in names.split():
            number = _syscall_number(each)
            if number is not None:
                made.add_rule(ERRNO(error), number, *arguments)

    deny(_DENIED)
    if not signals and name != "offline":  # the lane's own parent has to kill what is below it
        deny(_SIGNALS)
    # other processes of the lane keep their limits, cores and priority; so does the program: where
    # it steps back behind others, its time would stand still. That seems to succeed, as in os.nice
    priority = "sched_setscheduler sched_setparam sched_setattr"
    deny(f"prlimit64 sched_setaffinity {priority}", Arg(0, NE, 0))
    deny(priority, Arg(0, EQ, 0), error=0)
    deny("setpriority", Arg(0, NE, os.PRIO_PROCESS))
    deny("setpriority", Arg(1, NE, 0))
    deny("setpriority", Arg(0, EQ, os.PRIO_PROCESS), Arg(1, EQ, 0), error=0)
    deny(_ATTRIBUTES, error=errno.ENOTSUP)
    for request in (termios.TIOCSTI, _TIOCLINUX):
        deny("ioctl", Arg(1, MASKED_EQ, 0xFFFFFFFF, request))
    deny("clone3", error=errno.ENOSYS)  # its flags are out of sight; the C library falls back
    for flag in _CLONE_NEW:
        deny("clone", Arg(0, MASKED_EQ, flag, flag))
    if name == "full":
        last = max(_NETWORK_FAMILIES)
        deny("socket", Arg(0, GT, last))
        for family in sorted(set(range(last)) - set(_NETWORK_FAMILIES)):
            deny("socket", Arg(0, EQ, family))
    if name == "offline":
        deny("socket connect")
        # a pair of these kinds could send to a named socket of the machine
        deny("socketpair", Arg(0, NE, socket.AF_UNIX))
        for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
            deny("socketpair", Arg(1, MASKED_EQ, 0xF, kind))
        deny(_METADATA, error=0)
        deny(_OWNERS, error=errno.ENOTSUP)
    with open(os.memfd_create("filter"), "r+b") as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


def _syscall_number(name: str) -> int | None:
    """None when the call is younger than this libseccomp."""
    from pyseccomp import Arch, resolve_syscall

    number = int(resolve_syscall(Arch.NATIVE, name))
    return None if number == _UNKNOWN else number


def landlock_abi() -> int | None:
    """The kernel's Landlock version; None where it has none, or landlockpy is not installed."""
    try:
        import landlockpy
    except ImportError:
        return None
    return (landlockpy.abi_version() or None) if LINUX else None


def landlock_available() -> str | None:
    """Why the tier `landlock` cannot be had here; None where it can."""
    if not LINUX:
        return "not Linux"
    try:
        import landlockpy  # noqa: F401
    except ImportError:
        return "pip install landlockpy"
    abi = landlock_abi()
    if abi is None:
        return "the kernel has no Landlock, or it is not among its active security modules"
    if abi < MIN_ABI:
        return f"the kernel's Landlock is version {abi}, {MIN_ABI} needed (Linux 6.2)"
    # the network and the files' permissions are kept by the filter, not by Landlock
    missing = seccomp_missing()
    return f"needs seccomp: {missing}" if missing else None


@contextlib.contextmanager
def child_domain() -> Iterator[tuple[int, int] | None]:
    """(descriptor, system call) with which each child enters a Landlock domain of its own.

    Pass the descriptor on to the guest and both as `limits["landlock"]` to `confine.prepare`. In
    its domain a child can signal, trace and read no process but those it made, whatever the tier.
    None before Linux 6.12.
    """
    scoped = not seccomp_missing() and (landlock_abi() or 0) >= SCOPE_ABI
    number = _syscall_number("landlock_restrict_self") if scoped else None
    if number is None:
        yield None
        return
    from landlockpy import AccessFS, AccessNet, Ruleset, Scope

    everything = Scope.SIGNAL | Scope.ABSTRACT_UNIX_SOCKET
    made = Ruleset(handled_fs=AccessFS.NONE, handled_net=AccessNet.NONE, scoped=everything)
    with contextlib.closing(made):
        yield made.fileno(), number


def landlock_command(
    command: Sequence[str],
    readable: Sequence[str],
    writable: Sequence[str],
    hidden: Sequence[str] = (),
    *,
    own_network: bool = False,
) -> list[str]:
    """`command` behind a launcher that shuts it in with Landlock and the filter `offline`.

    `readable` files and folders can be read and executed, but for what is `hidden` below them, of
    which at most the names can be listed; `writable` folders can also be changed. Nothing else can
    be opened, the devices null, zero, full and (u)random apart. No sockets; where Landlock can
    (from Linux 6.12), no signals to processes outside. With `own_network`, for a command that has
    namespaces of its own, sockets and files' permissions are left to these. The launcher replaces
    itself by the command and hands its descriptors on. It exits with LAUNCH_FAILED and one line
    when it cannot.
    """
    paths = {"readable": list(readable), "writable": list(writable), "hidden": list(hidden)}
    bpf = "" if own_network else filters()["offline"].hex()
    wanted = json.dumps({"paths": paths, "bpf": bpf})
    # neither the working folder nor the environment decides what is imported
    path = [str(Path(__file__).parents[1]), *(p for p in sys.path if os.path.isabs(p))]
    start = f"import sys; sys.path[:] = {path!r}; from harness import lockdown; lockdown.launch()"
    return [sys.executable, "-I", "-S", "-B", "-c", start, wanted, *command]


def launch() -> None:
    """Shut this process in and become the command in argv; see `landlock_command`."""
    first, *command = sys.argv[1:]
    wanted = json.loads(first)
    try:
        # as root too: a capability opens the environments of all processes, Landlock or not
        confine.drop_capabilities()
        _enter_landlock(**wanted["paths"], network=not wanted["bpf"])
        if wanted["bpf"]:
            confine.load_filter(bytes.fromhex(wanted["bpf"]))
        os.execv(command[0], command)
    except OSError as error:
        print(f"landlock: {command[0]} cannot be shut in: {error}", file=sys.stderr)
        sys.exit(LAUNCH_FAILED)


def _enter_landlock(
    readable: list[str], writable: list[str], hidden: list[str], network: bool
) -> None:
    from landlockpy import AccessFS, AccessNet, Ruleset, Scope

    of_files = AccessFS.EXECUTE | AccessFS.WRITE_FILE | AccessFS.READ_FILE | AccessFS.TRUNCATE
    read = AccessFS.EXECUTE | AccessFS.READ_FILE | AccessFS.READ_DIR
    devices = AccessFS.MAKE_CHAR | AccessFS.MAKE_BLOCK | AccessFS.IOCTL_DEV
    covered = {os.path.realpath(path) for path in hidden}
    scoped = Scope.SIGNAL | Scope.ABSTRACT_UNIX_SOCKET
    with Ruleset(handled_net=AccessNet.NONE if network else None, scoped=scoped) as rules:
        grants = [(path, rules.handled_fs & ~devices) for path in writable]
        for path in readable:
            if os.path.exists(path):
                whole, listed = _less(os.path.realpath(path), covered)
                grants += [(p, read) for p in whole]
                grants += [(p, AccessFS.READ_DIR) for p in listed]
        for path, access in grants:
            rules.allow_path(path, access if os.path.isdir(path) else access & of_files)
        for name in ("null", "zero", "full", "random", "urandom"):
            with contextlib.suppress(FileNotFoundError):
                rules.allow_path(f"/dev/{name}", AccessFS.READ_FILE | AccessFS.WRITE_FILE)
        rules.restrict()


def _less(path: str, covered: set[str]) -> tuple[list[str], list[str]]:
    """(paths to grant whole, folders to grant a listing of) for `path` less what is covered.

    Landlock can only allow: a folder with something to hide is granted entry by entry.
    """
    if path in covered:
        return [], []
    if not any(hidden.startswith(f"{path.rstrip('/')}/") for hidden in covered):
        return [path], []
    whole, listed = [], [path]
    for entry in os.scandir(path):
        if entry.is_symlink():
            continue  # what it points to is granted, or not, where it lies
        more, lists = _less(entry.path, covered)
        whole += more
        listed += lists
    return whole, listed


@dataclass(frozen=True)
class Group:
    """The control groups of one lane: one folder, or one for each controller."""

    folders: tuple[tuple[str, Path], ...]  # what for ("pids", "memory+pids+kill"), where

    @property
    def controllers(self) -> tuple[str, ...]:
        """Of pids, memory and kill (every process at once), those that it has."""
        return tuple(name for names, _ in self.folders for name in names.split("+"))

    def add(self, pid: int) -> None:
        """Take in a process; all that it starts from now on belong too. Raises SandboxError."""
        for name, folder in self.folders:
            try:
                (folder / "cgroup.procs").write_text(str(pid))
            except ProcessLookupError:
                return
            except OSError as error:
                raise SandboxError(f"cgroup {name}: {folder}: {error}") from error

    def kill(self) -> None:
        """Kill every process in it, a fork bomb too."""
        for _, folder in self.folders:
            _kill_all(folder)

    def cpu_s(self) -> float | None:
        """CPU seconds of all its processes, dead ones included; None where that is not counted."""
        for _, folder in self.folders:
            with contextlib.suppress(OSError):
                return int((folder / "cpuacct.usage").read_text()) / 1e9
            with contextlib.suppress(OSError):
                return dict(_pairs(folder / "cpu.stat"))["usage_usec"] / 1e6
        return None

    def peak_bytes(self) -> int | None:
        """The most memory that it held at once; None where that is not counted."""
        for _, folder in self.folders:
            for name in ("memory.max_usage_in_bytes", "memory.peak"):
                with contextlib.suppress(OSError):
                    return int((folder / name).read_text())
        return None

    def out_of_memory(self) -> int | None:
        """How many of its processes the kernel killed at the memory limit; None if not counted."""
        for _, folder in self.folders:
            for name in ("memory.oom_control", "memory.events"):
                with contextlib.suppress(OSError, KeyError):
                    return dict(_pairs(folder / name))["oom_kill"]
        return None


def _pairs(path: Path) -> Iterator[tuple[str, int]]:
    for line in path.read_text().splitlines():
        name, _, value = line.partition(" ")
        yield name, int(value)


@contextlib.contextmanager
def cgroup(*, tasks: int | None = None, memory_mb: int | None = None) -> Iterator[Group]:
    """Control groups for one lane, as far as they can be made here; no folders where none can.

    `tasks` counts processes and threads together: it stops a fork bomb at once, for root too.
    `memory_mb` is for all processes together, files in memory included. Put the lane's first
    process in right after its start. On leaving, what is still in it is killed. Groups that a
    killed harness left behind are cleared away first.
    """
    limits: dict[str, dict[str, int]] = {"kill": {}}
    if tasks is not None:
        limits["pids"] = {"pids.max": tasks}
    if memory_mb is not None:
        limits["memory"] = dict.fromkeys(
            ("memory.limit_in_bytes", "memory.max"), memory_mb << 20
        )  # whichever there is
    with contextlib.ExitStack() as stack:
        folders = []
        for names, parent in _places():
            wanted = [name for name in names if name in limits]
            folder = _make(parent, stack) if wanted else None
            if folder is None:
                continue
            stack.callback(_remove, folder)
            files = [file for name in wanted for file in limits[name].items()]
            if all(_write(folder / name, value) for name, value in files):
                folders.append(("+".join(wanted), folder))
        yield Group(tuple(folders))


def _places() -> Iterator[tuple[tuple[str, ...], Path]]:
    """(what it is for, folder to make it in) of every group that a lane can have here.

    Below our own group, so that what limits us limits the lane. In the unified hierarchy a group
    that holds processes cannot hand on controllers; there it stands beside ours, if it may.
    """
    own = _own_groups()
    legacy = {"pids", "memory"} & own.keys()
    for name in sorted(legacy):
        yield (name,), own[name]
    if "" not in own:
        return
    for folder in (own[""], own[""].parent):
        names = sorted(({"pids", "memory"} & _handed_on(folder)) - legacy)
        if names and os.access(folder, os.W_OK):
            yield (*names, "kill"), folder
            return
    yield ("kill",), own[""]


def _own_groups() -> dict[str, Path]:
    """{controller, or "" for the unified hierarchy: the folder of our own group}."""
    mounts = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            root, point = before.split()[3:5]
            kind, _, options = after.split(" ", 2)
            if kind == "cgroup2":
                mounts[""] = (root, point)
            elif kind == "cgroup":
                mounts |= dict.fromkeys(options.split(","), (root, point))
    found = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            for name in names.split(","):
                if name in mounts:
                    root, point = mounts[name]
                    with contextlib.suppress(ValueError):  # our group is not below what is mounted
                        found[name] = Path(point) / Path(path).relative_to(root)
    return {name: folder for name, folder in found.items() if folder.is_dir()}


def _handed_on(folder: Path) -> set[str]:
    """The controllers that groups made in this folder get (unified hierarchy)."""
    try:
        return set((folder / "cgroup.subtree_control").read_text().split())
    except OSError:
        return set()


_NUMBERS = itertools.count()


def _make(parent: Path, stack: contextlib.ExitStack) -> Path | None:
    """A new group, locked for as long as this process lives; None where it cannot be made."""
    _clear_stale(parent)
    while True:
        folder = parent / f"{GROUP_PREFIX}{os.getpid()}-{next(_NUMBERS)}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError:  # not ours to write, or read-only as in most containers
            return None
        held = hold(folder)
        if held is not None and folder.is_dir():
            stack.callback(os.close, held)
            return folder
        if held is not None:  # another process took it for a stale one between the two
            os.close(held)


def hold(folder: Path) -> int | None:
    """A descriptor that holds a folder as ours; None when another process has it, or it is gone.

    The kernel lets go of it when we die, however we die: a folder that can be held is stale.
    """
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return None
    return held


def _clear_stale(parent: Path) -> None:
    for folder in parent.glob(f"{GROUP_PREFIX}*"):
        held = hold(folder)
        if held is not None:
            _remove(folder)
            os.close(held)


def _write(file: Path, value: int) -> bool:
    """False where there is such a file and it does not take the value."""
    try:
        if file.exists():
            file.write_text(str(value))
    except OSError:
        return False
    return True


def _kill_all(folder: Path, patience_s: float = 5.0) -> None:
    end = time.monotonic() + patience_s
    with contextlib.suppress(OSError):
        while pids := [int(p) for p in (folder / "cgroup.procs").read_text().split()]:
            try:
                (folder / "cgroup.kill").write_text("1")  # Linux 5.14, unified hierarchy
            except OSError:
                for pid in filter(None, pids):  # 0 is a process that we cannot see
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            if time.monotonic() > end:
                return
            time.sleep(0.001)


def _remove(folder: Path, patience_s: float = 5.0) -> None:
    """Kill what is in a group and remove it; one that resists stays for the next start."""
    end = time.monotonic() + patience_s
    while folder.is_dir():
        _kill_all(folder, patience_s)
        try:
            folder.rmdir()
        except OSError:  # its last processes are not quite gone
            if time.monotonic() > end:
                return
            time.sleep(0.002)


@dataclass(frozen=True)
class Layers:
    """What this machine has below the namespaces; found by trying."""

    seccomp: str | None  # why there are no filters; None where there are
    landlock: int | None  # the kernel's version; None where there is none
    cgroups: tuple[str, ...]  # controllers that a lane gets


@functools.cache
def layers() -> Layers:
    """The layers of this machine, found once."""
    with cgroup(tasks=64, memory_mb=64) as group:
        found = group.controllers
    return Layers(seccomp_missing(), landlock_abi() if LINUX else None, found)


def held(tier: str, found: Layers | None = None) -> dict[str, str | None]:
    """{layer: None where it holds in this tier, else why it does not}, strongest first."""
    found = found or layers()
    if not LINUX:
        return {"limits": None}
    own = tier in ("bubblewrap", "unshare")
    scoped = not found.seccomp and (found.landlock or 0) >= SCOPE_ABI
    old = f"Linux 6.12 or newer; this kernel's Landlock is version {found.landlock or 'none'}"
    watched = "no group of ours can be made here; processes and memory are watched from outside"
    told = {"namespaces": None if own else "bubblewrap or user namespaces"}
    if tier in ("unshare", "landlock"):
        enough = not found.seccomp and (found.landlock or 0) >= MIN_ABI
        told["Landlock files"] = None if enough else "Linux 6.2 or newer; files can be read"
    told |= {
        "Landlock signals": None if scoped else old,
        "seccomp": found.seccomp,
        "pids cgroup": None if "pids" in found.cgroups else watched,
        "memory cgroup": None if "memory" in found.cgroups else watched,
        "no new privileges": None,
        "limits": None,
    }
    return told


def layers_line(tier: str, found: Layers | None = None) -> str:
    """One line of less than 160 characters: the layers that hold in this tier, and the missing.

    Takes a millisecond where the sandbox is in use already.
    """
    told = held(tier, found)
    has = ", ".join(name for name, why in told.items() if why is None)
    missing = ", ".join(name for name, why in told.items() if why is not None)
    return f"{tier}: {has}" + (f"; missing: {missing}" if missing else "")
