"""The layers below the namespaces: each promise has a program that tries to break it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import lockdown
from harness.guest import confine
from harness.sandbox import TIERS

GUEST = str(Path(confine.__file__).parent)
# A parent that locks one child, as the guest does, and tells what `attempt()` found there.
PARENT = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import confine
work = json.load(sys.stdin)
if work["warm"]:
    exec(work["warm"])
lock = confine.prepare(bytes.fromhex(work["bpf"]), work["limits"])
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    names = {"parent": os.getppid()}
    try:
        lock(1, 2, write)
        exec(work["code"], names)
        found = names["attempt"]()
    except BaseException as error:
        found = f"{type(error).__name__}: {error}"
    os.write(write, json.dumps(found).encode())
    os._exit(0)
os.close(write)
found = b"".join(iter(lambda: os.read(read, 65536), b""))
_, status = os.waitpid(pid, 0)
print(json.dumps([json.loads(found or b"null"), os.waitstatus_to_exitcode(status)]))
"""


@pytest.fixture(autouse=True)
def needs_linux() -> None:
    if sys.platform != "linux":
        pytest.skip("these layers are Linux's")


@pytest.fixture
def filters() -> dict[str, bytes]:
    missing = lockdown.seccomp_missing()
    if missing:
        pytest.skip(f"no seccomp: {missing}")
    return dict(lockdown.filters())


def locked(code: str, bpf: bytes = b"", *, warm: str = "", **limits: Any) -> tuple[Any, int]:
    """(what `attempt()` of `code` returned in a locked child, the child's exit status)."""
    work = {"code": code, "bpf": bpf.hex(), "limits": limits, "warm": warm}
    fds = [limits["landlock"][0]] if "landlock" in limits else []
    done = subprocess.run(
        [sys.executable, "-c", PARENT, GUEST],
        input=json.dumps(work),
        capture_output=True,
        text=True,
        timeout=60,
        pass_fds=fds,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, status = json.loads(done.stdout)
    return found, status


TRIES = """
def tried(*attempts):
    done = []
    for attempt in attempts:
        try:
            attempt()
            done.append("done")
        except OSError as error:
            done.append(type(error).__name__)
    return done
"""


# the filters


@pytest.mark.parametrize("name", ["full", "offline"])
def test_what_no_solution_needs_is_refused_by_every_filter(
    filters: dict[str, bytes], name: str
) -> None:
    from pyseccomp import Arch, resolve_syscall

    known = {n: resolve_syscall(Arch.NATIVE, n) for n in lockdown._DENIED.split()}
    numbers = {n: number for n, number in known.items() if number >= 0}  # others: not on this CPU
    code = f"""
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def attempt():
    got = {{}}
    for name, number in {numbers!r}.items():
        result = libc.syscall(number, 0, 0, 0, 0, 0, 0)
        got[name] = result == -1 and ctypes.get_errno() == errno.EPERM
    return [name for name, refused in got.items() if not refused]
"""
    assert len(numbers) > 60
    assert locked(code, filters[name]) == ([], 0)


def test_a_child_has_threads_numpy_asyncio_and_files(filters: dict[str, bytes]) -> None:
    code = """
import asyncio, concurrent.futures, socket, subprocess, tempfile, threading
def attempt():
    import numpy as np
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        total = sum(pool.map(abs, range(-10, 0)))
    async def later():
        await asyncio.sleep(0)
        return await asyncio.to_thread(abs, -3)
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
    a, b = socket.socketpair()
    a.send(b"x")
    matrix = np.ones((300, 300))
    return [total, asyncio.run(later()), float((matrix @ matrix)[0, 0]), len(b.recv(9))]
"""
    assert locked(code, filters["full"], memory_mb=4096) == ([55, 3, 300.0, 1], 0)


def test_a_child_has_processes_and_the_sockets_of_its_network(
    filters: dict[str, bytes], tmp_path: Path
) -> None:
    code = f"""
import multiprocessing, os, socket, subprocess, sys, threading
def attempt():
    os.chdir({str(tmp_path)!r})
    with multiprocessing.get_context("fork").Pool(2) as pool:
        forked = pool.map(abs, [-1, -2])
    with open("spawned.py", "w") as file:
        file.write("import multiprocessing as m\\nif __name__ == '__main__':\\n"
                   "    with m.get_context('spawn').Pool(1) as p: print(p.map(abs, [-7]))")
    spawned = subprocess.run([sys.executable, "spawned.py"], capture_output=True, text=True)
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: server.accept()[0].send(b"hello")).start()
    with socket.create_connection(server.getsockname()) as client:
        said = client.recv(9).decode()
    return [forked, spawned.stdout.strip() or spawned.stderr, said,
            bool(socket.getaddrinfo("localhost", 80)), bool(socket.if_nameindex())]
"""
    assert locked(code, filters["full"]) == ([[1, 2], "[7]", "hello", True, True], 0)


def test_a_child_has_no_other_sockets_and_no_namespaces(filters: dict[str, bytes]) -> None:
    code = f"""
import ctypes, os, socket
{TRIES}
libc = ctypes.CDLL(None, use_errno=True)
def clone(flag):
    # as the C library does it: on x86 and ARM flags come first, no stack means fork
    pid = libc.syscall({{"x86_64": 56}}.get(os.uname().machine, 220), flag | 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone")
def attempt():
    families = [f for f in range(46) if f not in (1, 2, 10, 16)]
    flags = {lockdown._CLONE_NEW!r}
    return sorted(set(tried(
        *(lambda f=f: socket.socket(f, socket.SOCK_DGRAM) for f in families),
        *(lambda f=f: socket.socket(f, socket.SOCK_STREAM) for f in families),
        *(lambda f=f: clone(f) for f in flags),
    )))
"""
    assert locked(code, filters["full"]) == (["PermissionError"], 0)


def test_another_architectures_system_calls_kill(filters: dict[str, bytes]) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("written in the machine code of x86-64")
    code = """
import ctypes, mmap
def attempt():
    page = mmap.mmap(-1, 4096, prot=7)
    page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, getpid of i386; int 0x80; ret
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""
    for bpf in filters.values():
        assert locked(code, bpf) == (None, -signal.SIGSYS)


def test_without_signals_none_is_sent(filters: dict[str, bytes]) -> None:
    code = f"""
import os, signal, threading
{TRIES}
def attempt():
    return tried(
        lambda: os.kill(parent, 0), lambda: os.kill(os.getpid(), 0), lambda: os.kill(-1, 0),
        lambda: signal.pthread_kill(threading.get_ident(), 0),
        lambda: signal.pidfd_send_signal(os.pidfd_open(parent), 0),
    )
"""
    mute = lockdown.filters(signals=False)["full"]
    assert locked(code, mute) == (["PermissionError"] * 5, 0)


# what the locked child is


def test_a_child_has_no_capability_and_gains_none(filters: dict[str, bytes]) -> None:
    code = """
def attempt():
    lines = open("/proc/self/status").read().splitlines()
    status = dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
    capabilities = {int(status[f"Cap{n}"], 16) for n in ("Inh", "Prm", "Eff", "Amb")}
    return [sorted(capabilities), status["NoNewPrivs"], status["Seccomp"]]
"""
    assert locked(code, filters["full"]) == ([[0], "1", "2"], 0)
    if os.geteuid() == 0:
        bounding = "def attempt(): return open('/proc/self/status').read().split('CapBnd:')[1][:18]"
        assert locked(bounding)[0].strip() == "0" * 16


def test_a_childs_limits_hold() -> None:
    code = f"""
import os, resource
{TRIES}
def memory():
    try:
        bytearray(400 << 20)
    except MemoryError:
        raise OSError
def attempt():
    with open("/dev/null") as null:
        opened = tried(*(lambda: files.append(os.dup(null.fileno())) for _ in range(70)))
    return [tried(memory), opened[-1], resource.getrlimit(resource.RLIMIT_CPU),
            resource.getrlimit(resource.RLIMIT_CORE), os.getsid(0) == os.getpid()]
files = []
"""
    found, _ = locked(code, memory_mb=300, files=32, cpu_s=7)
    assert found == [["OSError"], "OSError", [7, 8], [0, 0], True]


def test_a_child_keeps_only_the_descriptors_it_is_given() -> None:
    code = """
import os
def attempt():
    opened = []
    for fd in range(1024):
        try:
            os.fstat(fd)
            opened.append(fd)
        except OSError:
            pass
    return [fd for fd in opened if fd > 2]
"""
    warm = "kept = [open('/dev/null') for _ in range(20)]"
    found, _ = locked(code, warm=warm)
    assert len(found) == 1  # the pipe that it answers through


def test_a_child_dies_with_its_parent() -> None:
    code = (
        "import os, time\ndef attempt():\n    os.write(1, b'%d' % os.getpid())\n    time.sleep(60)"
    )
    work = json.dumps({"code": code, "bpf": "", "limits": {}, "warm": ""})
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, GUEST], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdin
    assert parent.stdout
    parent.stdin.write(work.encode())
    parent.stdin.close()
    child = int(os.read(parent.stdout.fileno(), 20))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(child)


def gone(pid: int, patience_s: float = 5.0) -> bool:
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_a_filter_that_cannot_be_loaded_stops_the_child() -> None:
    found, _ = locked("def attempt(): return 'ran'", b"\xff" * 16)
    assert found.startswith("OSError: [Errno 22] seccomp")


def test_a_child_keeps_its_priority_and_is_not_told(filters: dict[str, bytes]) -> None:
    code = """
import os
def attempt():
    os.nice(7)
    os.setpriority(os.PRIO_PROCESS, 0, 9)
    for policy in (os.SCHED_IDLE, os.SCHED_BATCH):
        os.sched_setscheduler(0, policy, os.sched_param(0))
    return [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)]
"""
    own = [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)]
    assert locked(code, filters["full"]) == (own, 0)


def test_a_child_writes_no_attribute_of_a_file(filters: dict[str, bytes], tmp_path: Path) -> None:
    code = f"""
import errno, os, shutil
def attempt():
    open({str(tmp_path / "a")!r}, "w").close()
    shutil.copy2({str(tmp_path / "a")!r}, {str(tmp_path / "b")!r})  # does without
    said = []
    for call in (lambda: os.setxattr({str(tmp_path)!r}, "user.x", b"x"),
                 lambda: os.removexattr({str(tmp_path)!r}, "user.x")):
        try:
            call()
        except OSError as error:
            said.append(error.errno == errno.ENOTSUP)
    return said
"""
    assert locked(code, filters["full"]) == ([True, True], 0)


def test_a_child_leaves_its_parent_alone(filters: dict[str, bytes]) -> None:
    with lockdown.child_domain() as domain:
        if domain is None:
            pytest.skip("Landlock here does not keep signals inside")
        code = f"""
import os, resource, signal
{TRIES}
def attempt():
    return tried(
        lambda: os.kill(parent, 0),
        lambda: os.kill(parent, signal.SIGSTOP),
        lambda: signal.pidfd_send_signal(os.pidfd_open(parent), 0),
        lambda: open(f"/proc/{{parent}}/mem", "rb"),
        lambda: open(f"/proc/{{parent}}/environ", "rb").read(),
        lambda: os.readlink(f"/proc/{{parent}}/fd/0"),
        lambda: resource.prlimit(parent, resource.RLIMIT_AS, (1, 1)),
        lambda: os.setpriority(os.PRIO_PROCESS, parent, 19),
        lambda: os.setpriority(os.PRIO_USER, 0, 19),
        lambda: os.sched_setaffinity(parent, {{0}}),
        lambda: os.sched_setscheduler(parent, os.SCHED_IDLE, os.sched_param(0)),
    )
"""
        found, status = locked(code, filters["full"], landlock=list(domain))
        assert (found, status) == (["PermissionError"] * 11, 0)


def test_a_child_still_signals_what_it_started(filters: dict[str, bytes]) -> None:
    with lockdown.child_domain() as domain:
        code = """
import signal, subprocess
def attempt():
    started = subprocess.Popen(["/bin/sleep", "60"])
    started.terminate()
    return started.wait(5)
"""
        limits = {"landlock": list(domain)} if domain else {}
        assert locked(code, filters["full"], **limits) == (-signal.SIGTERM, 0)


# Landlock as a tier


@pytest.fixture
def landlock() -> None:
    missing = lockdown.landlock_available()
    if missing:
        pytest.skip(f"no Landlock: {missing}")


def system() -> list[str]:
    return [*(f"/{n}" for n in ("usr", "bin", "lib", "lib64")), os.path.realpath(sys.base_prefix)]


def shut_in(code: str, scratch: Path, *more: str, hidden: tuple[str, ...] = (), **kind: Any) -> Any:
    """What `attempt()` of `code` returns behind Landlock. The interpreter knows no environment."""
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    program = f"{code}\nimport json\nprint(json.dumps(attempt()))"
    command = [python, "-I", "-S", "-B", "-c", program]
    done = subprocess.run(
        lockdown.landlock_command(command, [*system(), *more], [str(scratch)], hidden, **kind),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=scratch,
        env={},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "key").write_text("sk-canary")
    (folder / "key").chmod(0o640)
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.mark.usefixtures("landlock")
def test_behind_landlock_only_what_was_granted_is_read_or_written(
    outside: Path, scratch: Path
) -> None:
    code = f"""
import os, shutil
{TRIES}
outside, key = {str(outside)!r}, {str(outside / "key")!r}
def attempt():
    return tried(
        lambda: open(key), lambda: open("/etc/passwd"), lambda: os.listdir("/"),
        lambda: os.listdir(os.path.expanduser("~root")), lambda: open("/proc/self/environ"),
        lambda: open(key, "w"), lambda: open(f"{{outside}}/new", "w"), lambda: os.unlink(key),
        lambda: os.rename(key, "here"), lambda: os.link(key, "here"),
        lambda: os.truncate(key, 0), lambda: os.mkdir(f"{{outside}}/new"),
        lambda: os.symlink("x", f"{{outside}}/new"), lambda: os.chown(key, 1, 1),
        lambda: os.setxattr(key, "user.x", b"x"), lambda: open("/dev/shm/x", "w"),
        lambda: open("/dev/sda"), lambda: open("/dev/mem"), lambda: open("/dev/kmsg"),
    )
"""
    found = shut_in(code, scratch)
    refused = {"PermissionError", "OSError", "FileNotFoundError"}  # no such device here
    assert [index for index, said in enumerate(found) if said not in refused] == []
    assert [p.name for p in outside.iterdir()] == ["key"]
    assert (outside / "key").read_text() == "sk-canary"


@pytest.mark.usefixtures("landlock")
def test_behind_landlock_permissions_and_times_of_files_stay(outside: Path, scratch: Path) -> None:
    before = (outside / "key").stat()
    code = f"""
import os
def attempt():
    os.chmod({str(outside / "key")!r}, 0)
    os.utime({str(outside / "key")!r}, (0, 0))
    return "did"
"""
    assert shut_in(code, scratch) == "did"
    after = (outside / "key").stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


@pytest.mark.usefixtures("landlock")
def test_behind_landlock_a_program_works_in_its_scratch(scratch: Path) -> None:
    code = """
import os, shutil, subprocess, sys, tempfile
def attempt():
    os.makedirs("a/b")
    with open("a/b/file", "w") as file:
        file.write("text")
    os.rename("a/b/file", "a/file")
    shutil.copy2("a/file", "copy")
    os.mkfifo("pipe")
    os.symlink("copy", "link")
    with open("script.sh", "w") as file:
        file.write("echo script")
    said = subprocess.run(["/bin/sh", "script.sh"], capture_output=True, text=True).stdout
    shutil.rmtree("a")
    with tempfile.TemporaryFile(dir=".") as file:
        file.write(os.urandom(9))
    open("/dev/null", "w").close()
    return [open("link").read(), said, sorted(os.listdir("."))]
"""
    assert shut_in(code, scratch) == ["text", "script\n", ["copy", "link", "pipe", "script.sh"]]


@pytest.mark.usefixtures("landlock")
def test_behind_landlock_no_socket_reaches_anything(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        path = str(scratch / "socket")  # even one in its own folder
        unix.bind(path)
        unix.listen()
        code = f"""
import asyncio, socket
{TRIES}
def attempt():
    a, b = socket.socketpair()
    a.send(b"x")
    async def nothing(): return len(b.recv(9))
    return [asyncio.run(nothing()), tried(
        lambda: socket.create_connection(("127.0.0.1", {tcp.getsockname()[1]}), 1),
        lambda: socket.socket(socket.AF_UNIX).connect({path!r}),
        lambda: a.connect({path!r}),
        lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("9.9.9.9", 53)),
        lambda: socket.socketpair(type=socket.SOCK_DGRAM),
        lambda: socket.socket(40),
        lambda: socket.getaddrinfo("example.org", 443),
    )]
"""
        refused = ["PermissionError"] * 6 + ["gaierror"]
        assert shut_in(code, scratch) == [1, refused]


@pytest.mark.usefixtures("landlock")
def test_behind_landlock_a_network_of_its_own_can_be_used(scratch: Path) -> None:
    code = """
import os, socket
def attempt():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            client.send(b"x")
    try:
        return open("/etc/passwd").read()
    except PermissionError:
        return "used"
"""
    assert shut_in(code, scratch, own_network=True) == "used"


@pytest.mark.usefixtures("landlock")
def test_behind_landlock_no_process_outside_is_touched(scratch: Path) -> None:
    if (lockdown.landlock_abi() or 0) < lockdown.SCOPE_ABI:
        pytest.skip("Landlock here does not keep signals inside")
    code = f"""
import os, subprocess
{TRIES}
outside = {os.getpid()}
def attempt():
    own = subprocess.Popen(["/bin/sleep", "60"])
    own.kill()
    return [own.wait(), tried(
        lambda: os.kill(outside, 0),
        *(lambda n=n: open(f"/proc/{{outside}}/{{n}}", "rb").read(9)
          for n in ("environ", "mem", "maps", "fd/0", "auxv", "syscall")),
    )]
"""
    assert shut_in(code, scratch, "/proc") == [-9, ["PermissionError"] * 7]


@pytest.mark.usefixtures("landlock")
def test_what_is_hidden_below_a_readable_folder_stays_hidden(outside: Path, scratch: Path) -> None:
    for name in ("package/secret", "package/open", "other/file"):
        (outside / name).parent.mkdir(exist_ok=True)
        (outside / name).write_text(name)
    os.symlink(outside / "package/secret", outside / "other/link")
    code = f"""
{TRIES}
def attempt():
    names = ("package/secret", "key", "other/link", "package/open", "other/file")
    return tried(*(lambda n=n: open({str(outside)!r} + "/" + n) for n in names))
"""
    hidden = (str(outside / "package/secret"), str(outside / "key"))
    found = shut_in(code, scratch, str(outside), hidden=hidden)
    assert found == ["PermissionError"] * 3 + ["done"] * 2


@pytest.mark.usefixtures("landlock")
def test_a_command_that_cannot_be_shut_in_says_so(scratch: Path) -> None:
    command = lockdown.landlock_command(["/nothing"], system(), [str(scratch / "gone")])
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == lockdown.LAUNCH_FAILED
    assert len(done.stderr.splitlines()) == 1
    assert "/nothing" in done.stderr


# control groups


@pytest.fixture
def controllers() -> tuple[str, ...]:
    return lockdown.layers().cgroups


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sleep", "300"]) as process:
        yield process
        process.kill()


BOMB = """
import os, sys, time
sys.stdin.read(1)
made = 0
for _ in range(200):
    try:
        if os.fork() == 0:
            time.sleep(300)
            os._exit(0)
        made += 1
    except BlockingIOError:
        break
print(made, flush=True)
time.sleep(300)
"""


def test_a_fork_bomb_stops_at_the_groups_limit(controllers: tuple[str, ...]) -> None:
    if "pids" not in controllers:
        pytest.skip("no pids cgroup can be made here")
    with lockdown.cgroup(tasks=20) as group:
        process = subprocess.Popen(
            [sys.executable, "-c", BOMB], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        group.add(process.pid)
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"x")
        process.stdin.close()
        assert int(process.stdout.readline()) == 19  # and the parent
        group.kill()
        assert process.wait(5) == -signal.SIGKILL
        process.stdout.close()
    assert not any(folder.exists() for _, folder in group.folders)


def test_memory_is_counted_over_all_processes(controllers: tuple[str, ...]) -> None:
    if "memory" not in controllers:
        pytest.skip("no memory cgroup can be made here")
    code = """
import os, sys
sys.stdin.read(1)
for _ in range(4):
    if os.fork() == 0:
        held = bytearray(os.urandom(1)) * (30 << 20)
        os.read(0, 1)
        os._exit(0)
codes = [os.waitpid(-1, 0)[1] for _ in range(4)]
print(sum(code == 9 for code in codes), flush=True)
"""
    with lockdown.cgroup(tasks=20, memory_mb=64) as group:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        group.add(process.pid)
        out, _ = process.communicate(b"x", timeout=60)
        assert process.returncode == -signal.SIGKILL or int(out) >= 1
        assert group.out_of_memory() in (None, *range(1, 9))
        peak = group.peak_bytes()
        assert peak is None or 30 << 20 < peak <= 64 << 20


def test_leaving_a_group_kills_what_is_in_it(
    controllers: tuple[str, ...], sleeper: subprocess.Popen[bytes]
) -> None:
    if not controllers:
        pytest.skip("no cgroup can be made here")
    with lockdown.cgroup(tasks=5) as group:
        group.add(sleeper.pid)
        assert group.cpu_s() is None or group.cpu_s() >= 0  # type: ignore[operator]
    assert sleeper.wait(5) == -signal.SIGKILL
    assert not any(folder.exists() for _, folder in group.folders)


def test_groups_of_a_killed_harness_are_cleared_and_those_of_a_live_one_are_not(
    controllers: tuple[str, ...], sleeper: subprocess.Popen[bytes]
) -> None:
    if not controllers:
        pytest.skip("no cgroup can be made here")
    code = f"""
import time
from harness import lockdown
with lockdown.cgroup(tasks=5) as group:
    group.add({sleeper.pid})
    print(*(folder for _, folder in group.folders), flush=True)
    time.sleep(300)
"""
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert owner.stdout
    folders = [Path(p) for p in owner.stdout.readline().decode().split()]
    with lockdown.cgroup(tasks=5):
        assert all(folder.is_dir() for folder in folders)
        assert sleeper.poll() is None
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert all(folder.is_dir() for folder in folders)
    with lockdown.cgroup(tasks=5):
        assert not any(folder.exists() for folder in folders)
    assert sleeper.wait(5) == -signal.SIGKILL


def test_where_no_group_can_be_made_there_is_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0 and lockdown.layers().cgroups:
        monkeypatch.setattr(lockdown, "_places", lambda: iter([(("pids",), Path("/proc/none"))]))
    with lockdown.cgroup(tasks=5, memory_mb=64) as group:
        assert group.folders == ()
        group.add(os.getpid())
        group.kill()
    assert group.cpu_s() is None
    assert group.peak_bytes() is None
    assert group.out_of_memory() is None


# what is told


def test_the_line_names_what_holds_and_what_is_missing() -> None:
    everything = lockdown.Layers(None, 7, ("memory", "pids", "kill"))
    line = lockdown.layers_line("bubblewrap", everything)
    assert "missing" not in line
    assert all(word in line for word in ("namespaces", "seccomp", "Landlock", "pids", "limits"))
    nothing = lockdown.Layers("pip install pyseccomp", None, ())
    line = lockdown.layers_line("rlimits", nothing)
    has, _, missing = line.partition("missing: ")
    wanted = ("namespaces", "seccomp", "Landlock", "pids cgroup", "memory cgroup")
    assert all(word in missing and word not in has for word in wanted)
    assert "\n" not in line
    assert lockdown.held("rlimits", nothing)["seccomp"] == "pip install pyseccomp"
    assert "Landlock files" in lockdown.layers_line("unshare", everything)
    for tier in TIERS:
        for found in (everything, nothing):
            line = lockdown.layers_line(tier, found)
            assert line.startswith(f"{tier}: ")
            assert len(line) < 160
            assert "\n" not in line
