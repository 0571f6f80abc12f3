"""Gives up, for good, what an untrusted program does not need. Linux; elsewhere only the limits.

`lock = prepare(bpf, limits)` once in the parent that forks, then `lock()` first thing in each
forked child. What costs time or is inherited anyway is done once, in the parent itself: it loses
its capabilities, can gain none, is not dumpable (nobody reads its memory, environment or files
through /proc) and becomes the parent of orphans below it. The child adds a session of its own, its
limits, a Landlock domain and the seccomp filter. A layer that was asked for and cannot be had
raises OSError: the program must then not run.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys

LINUX = sys.platform == "linux"
# linux/prctl.h, linux/seccomp.h and linux/capability.h: values that never change
_PDEATHSIG, _DUMPABLE, _SECCOMP, _CAPBSET_DROP = 1, 4, 22, 24
_SUBREAPER, _NO_NEW_PRIVS, _CAP_AMBIENT, _CAP_AMBIENT_CLEAR = 36, 38, 47, 4
_FILTER_MODE, _CAP_VERSION_3 = 2, 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
if LINUX:
    _libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    _libc.syscall.argtypes = [ctypes.c_long] * 3
    _libc.syscall.restype = ctypes.c_long


class _Program(ctypes.Structure):
    """struct sock_fprog: a compiled filter and the number of its 8-byte instructions."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def _checked(result, what):
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _prctl(what, option, *arguments):
    _checked(_libc.prctl(option, *arguments, *[0] * (4 - len(arguments))), what)


def drop_capabilities():
    """Give up every capability of this process, those that it could get back included."""
    for number in range(64):
        # EINVAL: past the last one; EPERM: no right to narrow the set, and so none to widen it
        if _libc.prctl(_CAPBSET_DROP, number, 0, 0, 0):
            break
    _libc.prctl(_CAP_AMBIENT, _CAP_AMBIENT_CLEAR, 0, 0, 0)  # EINVAL before Linux 4.3: none there
    header, none = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(header, none), "capabilities")


def load_filter(bpf):
    """Put this process under a compiled seccomp filter for good. Raises OSError."""
    _, load = _filter(bpf)
    load()


def _filter(bpf):
    """(memory to keep, what loads it): nothing is left to allocate when it is loaded."""
    code = ctypes.create_string_buffer(bpf, len(bpf))
    program = _Program(len(bpf) // 8, ctypes.addressof(code))
    address = ctypes.addressof(program)
    return (code, program), lambda: _prctl("seccomp", _SECCOMP, _FILTER_MODE, address)


def prepare(bpf, limits):
    """Lock this process as far as its children want it, and return the children's `lock`.

    `bpf`: a compiled seccomp filter (`harness.lockdown.filters`), or None for no such layer.
    `limits`, all optional: cpu_s, memory_mb, file_mb, stack_mb, files (open at once), nproc
    (tasks of this user; root does not heed it), landlock: [a ruleset's descriptor, the number of
    landlock_restrict_self]. `lock(*keep)` closes all descriptors from 3 on but `keep`, if given.
    """
    limit = _limits(limits)
    if not LINUX:
        return lambda *keep: _lock_portable(limit, keep)
    drop_capabilities()
    _prctl("no-new-privileges", _NO_NEW_PRIVS, 1)
    _prctl("dumpable", _DUMPABLE, 0)
    _prctl("subreaper", _SUBREAPER, 1)
    landlock = limits.get("landlock")
    kept, load = _filter(bpf) if bpf else ((), None)

    def lock(*keep):
        _prctl("death signal", _PDEATHSIG, signal.SIGKILL)
        _lock_portable(limit, keep and (*keep, *(landlock or ())[:1]))
        if landlock:
            _checked(_libc.syscall(landlock[1], landlock[0], 0), "Landlock")
            os.close(landlock[0])
        if load:
            load()

    lock.kept = kept
    return lock


def _limits(limits):
    """[(resource, soft, hard)] of what is asked for, never above what this process has."""
    megabytes = {
        resource.RLIMIT_AS: "memory_mb",
        resource.RLIMIT_DATA: "memory_mb",
        resource.RLIMIT_FSIZE: "file_mb",
        resource.RLIMIT_STACK: "stack_mb",
    }
    wanted = {name: limits[key] << 20 for name, key in megabytes.items() if limits.get(key)}
    wanted[resource.RLIMIT_CORE] = 0
    others = {"RLIMIT_CPU": "cpu_s", "RLIMIT_NOFILE": "files", "RLIMIT_NPROC": "nproc"}
    wanted |= {getattr(resource, n): limits[key] for n, key in others.items() if limits.get(key)}
    found = []
    for name, value in wanted.items():
        _, hard = resource.getrlimit(name)
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # a second apart for CPU time: the soft limit's signal tells it from any other end
        above = int(name == resource.RLIMIT_CPU and soft != hard)
        found.append((name, soft, soft + above))
    return found


def _lock_portable(limits, keep):
    with contextlib.suppress(PermissionError):  # the leader of a group already has a session
        os.setsid()
    if keep:
        low = 3
        for fd in sorted({fd for fd in keep if fd >= low}):
            os.closerange(low, fd)
            low = fd + 1
        os.closerange(low, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for name, soft, hard in limits:
        # macOS refuses RLIMIT_AS; there the harness's own memory watch is what holds
        with contextlib.suppress(*(() if LINUX else (ValueError,))):
            resource.setrlimit(name, (soft, hard))
