"""The engine beside bare clients and peers, on one fault server, one after another.

    make bench-engine [ARGS="--only one-call,refused --repeat 3 --peers ~/.cache/peers"]

Every row is a whole command, started as a user would: wall seconds, CPU seconds of its process
tree (dead ones included), peak memory of the command itself and of the tree (proportional set size,
5 times a second), and what the server saw (`tests/fault_server.py`, in a process of its own).
`ideal` is the time that the server's latency or rate limit alone asks for. Beside the harness: a
bare aiohttp loop, the openai SDK alone, and with --peers inspect-ai and lm-eval, each installed on
demand into a folder of its own there. `first` is from the start of the command to its first request
at the server, `after` from the last answer to its exit. Of --repeat runs the one of median wall
time is shown. The table is Markdown, as docs/engine.md holds it. On a machine with other work, the
ratios to the bare rows of the same minute count, not the seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LATENCY_S = 0.2
LOOK_S = 0.2
SUBREAPER = 36  # linux/prctl.h
PEERS = {"inspect": ["inspect-ai", "openai"], "lm-eval": ["lm-eval[api]"]}
PACKAGES = {"inspect": "inspect-ai", "lm-eval": "lm-eval"}


@dataclass
class Used:
    """What a command took."""

    wall_s: float
    cpu_s: float
    main_mb: float  # peak resident set of the command's own process
    tree_mb: float  # peak proportional set of it and all below it
    code: int
    began: float  # Unix seconds
    stdout: str
    stderr: str


class Command:
    """A running command in a tree that hands its dead to us."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
        self.folder = folder
        self.out = tempfile.TemporaryFile()  # noqa: SIM115
        self.err = tempfile.TemporaryFile()  # noqa: SIM115
        self.began, self.clock = time.time(), time.monotonic()
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "NO_COLOR": "1", **env},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self.out,
            stderr=self.err,
            start_new_session=True,
        )
        self.peak_kb = 0
        self.ended = threading.Event()
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()

    def _watch(self) -> None:
        import psutil

        main = psutil.Process(self.process.pid)
        while not self.ended.wait(LOOK_S):
            with contextlib.suppress(psutil.Error):
                tree = [main, *main.children(recursive=True)]
                self.peak_kb = max(self.peak_kb, sum(map(_pss_kb, tree)))

    def kill(self) -> None:
        """kill -9 of the command's own process, and of nothing else."""
        self.process.send_signal(signal.SIGKILL)

    @property
    def over(self) -> bool:
        """Whether it ended; `wait` still has to collect it."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.process.pid, flags) is not None

    def wait(self, *, sweep: bool = True) -> Used:
        """The command's use once it ended. `sweep` ends what it left behind, and counts it."""
        _, status, used = os.wait4(self.process.pid, 0)
        wall_s = time.monotonic() - self.clock
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.ended.set()
        self.watcher.join()
        cpu_s = used.ru_utime + used.ru_stime + (_sweep() if sweep else 0.0)
        texts = []
        for file in (self.out, self.err):
            file.seek(0)
            texts.append(file.read().decode())
            file.close()
        main_mb, tree_mb = used.ru_maxrss / 1e3, self.peak_kb / 1e3
        return Used(wall_s, cpu_s, main_mb, tree_mb, self.process.returncode, self.began, *texts)


_servers: set[int] = set()  # children that are no command's


def _sweep() -> float:
    """End and collect what ended commands left to us; its CPU seconds."""
    import psutil

    own, cpu_s = psutil.Process(), 0.0
    while left := [child for child in own.children() if child.pid not in _servers]:
        for child in left:  # whose own children come to us in turn
            with contextlib.suppress(psutil.Error):
                child.kill()
            with contextlib.suppress(ChildProcessError):
                _, _, used = os.wait4(child.pid, 0)
                cpu_s += used.ru_utime + used.ru_stime
    return cpu_s


def _pss_kb(process: Any) -> int:
    """Pages that several processes share count in parts."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


@dataclass
class Row:
    """One line of the table; None where a column says nothing."""

    case: str
    client: str
    used: Used
    stats: dict[str, Any]
    ideal_s: float | None = None
    needed: int | None = None  # requests, without a wasted one
    said: str = ""  # findings in words
    target: str = ""
    met: bool | None = None

    def since_ideal(self, seconds: float | None) -> float | None:
        return None if seconds is None or not self.ideal_s else seconds / self.ideal_s

    @property
    def first_s(self) -> float | None:
        """None where the server saw a request before this command, too."""
        first = self.stats.get("first_at")
        return None if first is None or first < self.used.began else first - self.used.began

    @property
    def after_s(self) -> float | None:
        if self.first_s is None or self.stats.get("span_s") is None:
            return None
        return float(self.used.wall_s - self.first_s - self.stats["span_s"])

    def cells(self) -> list[str]:
        requests = str(self.stats["requests"]) if "requests" in self.stats else ""
        if self.needed and requests:
            requests += f" of {self.needed}"
        verdict = {None: "", True: "met", False: "**missed**"}[self.met]
        return [
            self.case,
            self.client,
            f"{self.used.wall_s:.2f}",
            _ratio(self.since_ideal(self.used.wall_s)),
            f"{self.used.cpu_s:.2f}",
            f"{self.used.main_mb:.0f} / {self.used.tree_mb:.0f}",
            requests,
            _ratio(self.since_ideal(self.stats.get("span_s"))),
            str(self.stats.get("peak_in_flight", "")),
            _seconds(self.first_s),
            _seconds(self.after_s),
            str(self.used.code),
            "; ".join(part for part in (self.said, self.target, verdict) if part),
        ]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "first_s": self.first_s, "after_s": self.after_s}


HEADER = ["case", "client", "wall s", "x ideal", "CPU s", "RSS MB", "requests", "span x"]
HEADER += ["peak", "first s", "after s", "exit", "found"]


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


@dataclass
class Bench:
    """Where everything lies, and how much of it to do."""

    folder: Path
    tree: Path = ROOT  # whose harness is measured
    quick: bool = False
    repeat: int = 1
    peers: Path | None = None
    rows: list[Row] = field(default_factory=list)
    number: int = 0
    warm: Path | None = None

    def fresh(self, name: str) -> Path:
        """A new empty folder."""
        self.number += 1
        path = self.folder / f"{self.number:03d}-{name}"
        path.mkdir()
        return path

    def cache(self) -> Path:
        """A cache folder that knows what this machine can grade, and no reply."""
        if self.warm is None:
            self.warm = self.fresh("warm")
            with self.server(latency=0) as server:
                self.harness(server.url, "--method", "vanilla", cache=self.warm).wait()
            for path in self.warm.glob("replies*"):
                path.unlink()
        path = self.fresh("cache")
        shutil.copytree(self.warm, path, dirs_exist_ok=True)
        return path

    @contextlib.contextmanager
    def server(self, **options: Any) -> Iterator[Any]:
        """A fault server, of 200 ms unless told otherwise."""
        from tests.fault_server import start

        with start(**{"latency": LATENCY_S, **options}) as server:
            _servers.add(server.process.pid)
            try:
                yield server
            finally:
                _servers.discard(server.process.pid)

    def harness(
        self, url: str, *flags: str, out: Path | None = None, cache: Path | None = None
    ) -> Command:
        """`python -m harness eval FLAGS` with results and a cache of its own unless given."""
        folders = ["--out", str(out or self.fresh("out"))]
        folders += ["--cache-dir", str(cache or self.cache())]
        command = [sys.executable, "-m", "harness", "eval", "--worker", "openai/fault", *folders]
        env = {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "sk-bench"}
        return Command([*command, *flags], {**env, "PYTHONPATH": str(self.tree)}, self.tree)

    def client(self, kind: str, url: str, chains: int, calls: int, flight: int) -> Command:
        """A bare client: this file as a program."""
        numbers = [str(chains), str(calls), str(flight)]
        command = [sys.executable, __file__, "--client", kind, url, *numbers]
        return Command(command, {}, self.folder)

    def add(self, *rows: Row) -> None:
        self.rows += rows
        for row in rows:
            print(_line(row.cells()), flush=True)

    def median(self, makers: Sequence[Callable[[], Row]]) -> list[Row]:
        """Each maker's row of median wall time; they take turns, so that they share the minute."""
        found: list[list[Row]] = [[] for _ in makers]
        for _ in range(self.repeat):
            for rows, make in zip(found, makers, strict=True):
                rows.append(make())
        middle = (len(found[0]) - 1) // 2
        return [sorted(rows, key=lambda row: row.used.wall_s)[middle] for rows in found]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# ---- cases -----------------------------------------------------------------------------------


def _run(bench: Bench, server: Any, case: str, name: str, command: Command, **known: Any) -> Row:
    used = command.wait()
    return Row(case, name, used, server.stats(), **known)


def _compared(
    bench: Bench,
    case: str,
    flags: Sequence[str],
    chains: int,
    calls: int,
    flight: int,
    *,
    target: Callable[[Row], tuple[str, bool]],
    options: Mapping[str, Any] | None = None,
    bare: bool = True,
    peers: bool = True,
) -> None:
    """The harness, the bare clients and the peers on the same work."""
    ideal_s = -(-chains // flight) * calls * LATENCY_S
    known = {"ideal_s": ideal_s, "needed": chains * calls}
    with bench.server(**(options or {})) as server:

        def measured(name: str, start: Callable[[], Command]) -> Callable[[], Row]:
            def make() -> Row:
                server.reset()
                return _run(bench, server, case, name, start(), **known)

            return make

        makers = [measured("harness", lambda: bench.harness(server.url, *flags))]
        for kind in ("aiohttp", "openai") if bare else ():
            start = lambda kind=kind: bench.client(kind, server.url, chains, calls, flight)  # noqa: E731
            makers.append(measured(kind, start))
        if bench.peers and peers:
            work = (chains, calls, flight)
            makers.append(measured("inspect", lambda: _inspect(bench, server.url, *work)))
            if calls == 1:
                makers.append(measured("lm-eval", lambda: _lm_eval(bench, server.url, *work)))
        rows = bench.median(makers)
    rows[0].target, rows[0].met = target(rows[0])
    bench.add(*rows)


def _within(row: Row, wall: float, cpu_s: float | None, mb: float | None) -> tuple[str, bool]:
    """A target in words, and whether the row meets it."""
    texts, checks = [f"wall <= {wall} x"], [row.used.code == 0]
    checks.append((row.since_ideal(row.used.wall_s) or 0) <= wall)
    checks.append(row.stats["requests"] == row.needed)
    if cpu_s is not None:
        texts.append(f"CPU <= {cpu_s:g} s")
        checks.append(row.used.cpu_s <= cpu_s)
    if mb is not None:
        texts.append(f"RSS <= {mb:g} MB")
        checks.append(row.used.main_mb <= mb)
    return ", ".join(texts), all(checks)


def one_call(bench: Bench) -> None:
    """1,000 one-call samples, 100 in flight; no reply holds a program."""
    problems = 25 if bench.quick else 125
    flags = ["--method", "vanilla", "--limit", str(problems), "--n-samples", "8"]
    flags += ["--temperature", "0.8", "--max-connections", "100"]
    samples = problems * 8
    _compared(
        bench, f"{samples:,} x 1 call", flags, samples, 1, 100,
        target=lambda row: _within(row, 1.5, 2, 150),
    )  # fmt: skip


def adaptive(bench: Bench) -> None:
    """The same without a limit of connections given: it grows from a few."""
    problems = 25 if bench.quick else 125
    flags = ["--method", "vanilla", "--limit", str(problems), "--n-samples", "8"]
    flags += ["--temperature", "0.8"]
    _compared(
        bench, f"{problems * 8:,} x 1 call, connections adaptive", flags, problems * 8, 1, 100,
        target=lambda row: ("no limit given", row.stats["requests"] == row.needed),
        bare=False, peers=False,
    )  # fmt: skip


def graded(bench: Bench) -> None:
    """The same with replies that hold the reference program, so that grading is in it."""
    problems = 25 if bench.quick else 125
    flags = ["--method", "vanilla", "--limit", str(problems), "--n-samples", "8"]
    flags += ["--temperature", "0.8", "--max-connections", "100"]
    _compared(
        bench, f"{problems * 8:,} x 1 call, graded", flags, problems * 8, 1, 100,
        target=lambda row: ("all passed", "passed 100.0%" in _pass_rate(row)),
        options={"canned": _references(bench)}, bare=False, peers=False,
    )  # fmt: skip


def _pass_rate(row: Row) -> str:
    found = [line for line in row.used.stderr.splitlines() if line.startswith("verdicts: ")]
    return "passed 100.0%" if found and set(found[0].split()[1:-1]) == {"passed"} else str(found)


def _references(bench: Bench) -> Path:
    """HumanEval's references as replies, each told by a line that only its prompt has."""
    from harness.benchmarks import DataSources, load

    items = load("humaneval", DataSources(cache_dir=bench.folder)).items.values()
    lines = Counter(line for i in items for line in set(i.problem.prompt.splitlines()))
    path = bench.folder / "references.jsonl"
    with path.open("w") as file:
        for item in items:
            own = [x for x in item.problem.prompt.splitlines() if lines[x] == 1 and x.isascii()]
            reply = f"```python\n{item.oracle.reference}\n```"
            file.write(json.dumps({"match": max(own, key=len), "reply": reply}) + "\n")
    return path


def chained(bench: Bench) -> None:
    """164 problems with 10 calls one after another, all problems in flight."""
    flags = ["--method", "llm-debate", "-A", "agents=1", "-A", "rounds=10", "-A", "aggregate=last"]
    flags += ["--max-connections", "164"]
    problems, flags = (20, [*flags, "--limit", "20"]) if bench.quick else (164, flags)
    _compared(
        bench, f"{problems} x 10 calls", flags, problems, 10, 164,
        target=lambda row: _within(row, 1.7, None, None),
    )  # fmt: skip


def rate_limit(bench: Bench) -> None:
    """200 samples on a server that takes 120 requests a minute."""
    rpm, samples = (600, 650) if bench.quick else (120, 200)
    # (what, server, seconds that the best client needs)
    bucket_s = (samples - rpm) / rpm * 60 + LATENCY_S
    window_s = 60 * (-(-samples // rpm) - 1) + LATENCY_S
    kinds: list[tuple[str, dict[str, Any], float]] = [
        ("bucket, headers", {"headers": True, "retry_after": True}, bucket_s),
        ("bucket, Retry-After", {"retry_after": True}, bucket_s),
        ("window, headers", {"headers": True, "retry_after": True, "window": 60}, window_s),
    ]
    flags = ["--method", "vanilla", "--limit", str(samples // 2), "--n-samples", "2"]
    if bench.quick:
        kinds, flags = kinds[:1], [*flags[:3], "130", "--n-samples", "5"]
    flags += ["--temperature", "0.8", "--max-connections", "100"]
    for what, options, ideal_s in kinds:
        case, known = f"{rpm}/min, {what}", {"ideal_s": ideal_s, "needed": samples}
        with bench.server(rpm=rpm, **options) as server:
            row = _run(bench, server, case, "harness", bench.harness(server.url, *flags), **known)
            sent, ratio = row.stats["requests"], row.since_ideal(row.used.wall_s) or 0
            row.target = "requests <= 1.2 x, wall <= 1.1 x"
            row.met = sent <= 1.2 * samples and ratio <= 1.1 and row.used.code == 0
            row.said = _lost(row, samples)
            bench.add(row)
        if bench.peers and what == kinds[0][0]:
            for name, start in (("inspect", _inspect), ("lm-eval", _lm_eval)):
                with bench.server(rpm=rpm, **options) as server:
                    command = start(bench, server.url, samples, 1, 100)
                    row = _run(bench, server, case, name, command, **known)
                    row.said = _lost(row, samples)
                    bench.add(row)


def _lost(row: Row, samples: int) -> str:
    missing = samples - row.stats["answered"]
    return f"{missing} never answered" if missing else ""


def refused(bench: Bench) -> None:
    """Every request is refused: 401."""
    flags = ["--method", "vanilla", "--limit", "20"]
    with bench.server(refuse=True) as server:
        row = _run(bench, server, "all 401", "harness", bench.harness(server.url, *flags))
        errors = [line for line in row.used.stderr.splitlines() if line.startswith("error: ")]
        row.said = f"{len(errors)} error line"
        row.target = "<= 2 requests, exit 4"
        row.met = row.stats["requests"] <= 2 and row.used.code == 4 and len(errors) == 1
        bench.add(row)
        if bench.peers:
            for name, start in (("inspect", _inspect), ("lm-eval", _lm_eval)):
                server.reset()
                bench.add(_run(bench, server, "all 401", name, start(bench, server.url, 20, 1, 20)))


def faults(bench: Bench) -> None:
    """A tenth of the first attempts fail with 500, a twentieth with 429."""
    flags = ["--method", "vanilla", "--limit", "100", "--n-samples", "2"]
    flags += ["--temperature", "0.8", "--max-connections", "100"]
    options = {"status_rate": {500: 0.1, 429: 0.05}, "first_only": True}
    starts: list[tuple[str, Callable[[str], Command]]] = [
        ("harness", lambda url: bench.harness(url, *flags))
    ]
    if bench.peers:
        starts.append(("inspect", lambda url: _inspect(bench, url, 200, 1, 100)))
        starts.append(("lm-eval", lambda url: _lm_eval(bench, url, 200, 1, 100)))
    for name, start in starts:
        with bench.server(**options) as server:
            row = _run(bench, server, "10% 500, 5% 429", name, start(server.url))
            failed = row.stats["statuses"].get("500", 0) + row.stats["statuses"].get("429", 0)
            row.needed = 200 + failed
            row.said = _lost(row, 200)
            if name == "harness":
                row.target = "all right, none wasted"
                right = row.stats["answered"] == 200 and row.used.code == 0
                row.met = right and row.stats["requests"] == row.needed
            bench.add(row)


def killed(bench: Bench) -> None:
    """kill -9 at random moments of a 400-sample run, then the same command to its end."""
    samples, flight, moments = 400, 20, 3 if bench.quick else 20
    flags = ["--method", "vanilla", "--limit", "100", "--n-samples", "4"]
    flags += ["--temperature", "0.8", "--max-connections", str(flight)]
    rng = random.Random(4)
    lost = doubled = most = sent = 0
    codes: Counter[int] = Counter()
    last: Row | None = None
    with bench.server() as server:
        for moment in range(moments):
            server.reset()
            out, cache = bench.fresh("out"), bench.cache()
            with_cache = ["--cache", "off"] if moment % 2 else []  # the journal must do it alone
            command = bench.harness(server.url, *flags, *with_cache, out=out, cache=cache)
            # before the first request, anywhere between, or while it brings the board up to date
            until = rng.uniform(-0.05, 1.1) * samples
            while server.stats()["answered"] < min(until, samples) and not command.over:
                time.sleep(0.02)
            time.sleep(rng.uniform(0, LATENCY_S))
            command.kill()
            command.wait()
            again = bench.harness(server.url, *flags, *with_cache, out=out, cache=cache)
            last = _run(bench, server, f"kill -9, {moments} times", "harness", again)
            codes[last.used.code] += 1
            keys = _results(out)
            lost += samples - len(keys)
            doubled += sum(n - 1 for n in keys.values())
            repeats = last.stats["requests"] - last.stats["unique"]
            most, sent = max(most, repeats), sent + last.stats["requests"]
            shutil.rmtree(out)
            shutil.rmtree(cache)
    assert last is not None
    last.needed, last.stats = samples * moments, {"requests": sent}
    last.said = f"lost {lost}, duplicate {doubled}, repeated at most {most} of {flight} in flight"
    last.target = "0 lost, 0 duplicate, repeats <= in flight"
    last.met = not lost and not doubled and most <= flight and set(codes) == {0}
    bench.add(last)
    if bench.peers:
        bench.add(_inspect_killed(bench, samples, flight), _lm_eval_killed(bench, samples, flight))


def _results(out: Path) -> Counter[str]:
    """How often each sample's result stands in the journals below a folder of results."""
    from harness.journal import read_run

    found: Counter[str] = Counter()
    for run_dir in (out / "runs").iterdir():
        rows = [record for record in read_run(run_dir) if record["kind"] == "result"]
        found.update(row["result_key"] for row in rows if row["verdict"] != "invalid")
    return found


def cached(bench: Bench) -> None:
    """1,000 samples that an earlier run paid for, run anew."""
    problems = 25 if bench.quick else 125
    flags = ["--method", "vanilla", "--limit", str(problems), "--n-samples", "8"]
    flags += ["--temperature", "0.8", "--max-connections", "100"]
    out, cache = bench.fresh("out"), bench.cache()
    with bench.server() as server:
        bench.harness(server.url, *flags, out=out, cache=cache).wait()
        server.reset()

        def again() -> Row:
            command = bench.harness(server.url, *flags, "--fresh", out=out, cache=cache)
            return _run(bench, server, f"{problems * 8:,} cached, --fresh", "harness", command)

        (row,) = bench.median([again])
    rows = [sum(1 for _ in path.open()) for path in (out / "runs").glob("*-2/*.jsonl")]
    row.said = "" if rows else "no second run"
    row.target = "0 requests, <= 1.5 s"
    row.met = row.stats["requests"] == 0 and row.used.wall_s <= 1.5 and row.used.code == 0
    bench.add(row)


def two_processes(bench: Bench) -> None:
    """The same 400 questions by two commands at once, with one cache."""
    flags = ["--method", "vanilla", "--limit", "100", "--n-samples", "4"]
    flags += ["--temperature", "0.8", "--max-connections", "50"]
    cache = bench.cache()
    with bench.server() as server:
        commands = [bench.harness(server.url, *flags, cache=cache) for _ in range(2)]
        first, second = (command.wait(sweep=False) for command in commands)
        _sweep()
        row = Row("two processes, one cache", "harness", first, server.stats(), 400 / 50 * 0.2, 400)
    row.used.wall_s = max(first.wall_s, second.wall_s)
    row.used.cpu_s += second.cpu_s
    row.used.main_mb = max(first.main_mb, second.main_mb)
    row.used.code = max(first.code, second.code)
    row.said = f"paid twice: {row.stats['paid_twice']}"
    row.target = "each question paid once"
    row.met = row.stats["requests"] == row.stats["unique"] == 400 and row.used.code == 0
    bench.add(row)


def start_up(bench: Bench) -> None:
    """`--help`, and the time to the first request: with an empty cache folder and a used one."""
    env = {"PYTHONPATH": str(bench.tree)}
    shown = [sys.executable, "-m", "harness", "--help"]
    helps = [Command(shown, env, bench.tree).wait() for _ in range(5)]
    middle = sorted(helps, key=lambda used: used.cpu_s)[2]
    row = Row("--help", "harness", middle, {})
    row.target, row.met = "<= 0.15 s CPU", middle.cpu_s <= 0.15
    bench.add(row)
    flags = ["--method", "vanilla", "--limit", "20", "--max-connections", "20"]
    with bench.server() as server:
        for name in ("first request, new cache", "first request"):
            cache = bench.fresh("cache") if "new" in name else bench.cache()
            rows = []
            for _ in range(1 if "new" in name else 5):
                server.reset()
                command = bench.harness(server.url, *flags, *_asking(bench), cache=cache)
                rows.append(_run(bench, server, name, "harness", command))
            row = sorted(rows, key=lambda row: row.first_s or 0)[len(rows) // 2]
            seconds = [row.first_s or 0 for row in rows]
            row.said = f"median {statistics.median(seconds):.2f}, best {min(seconds):.2f} s"
            row.target, row.met = "first request <= 1 s", (row.first_s or 9) <= 1
            bench.add(row)


def _asking(bench: Bench) -> list[str]:
    """Flags that make every run ask, cache or not: a seed that no other run had."""
    bench.number += 1
    return ["--temperature", "0.8", "--seed", str(bench.number)]


CASES: dict[str, Callable[[Bench], None]] = {
    "start-up": start_up,
    "one-call": one_call,
    "adaptive": adaptive,
    "graded": graded,
    "chained": chained,
    "cached": cached,
    "two-processes": two_processes,
    "refused": refused,
    "faults": faults,
    "rate-limit": rate_limit,
    "killed": killed,
}

# ---- peers -----------------------------------------------------------------------------------

INSPECT_TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageUser
from inspect_ai.solver import solver

@solver
def chain(calls):
    async def solve(state, generate):
        for call in range(calls):
            if call:
                state.messages.append(ChatMessageUser(content="Check your answer once more."))
            state = await generate(state)
        return state
    return solve

@task
def bench(samples: int = 1, calls: int = 1):
    rows = [Sample(input=QUESTION.format(n), id=n) for n in range(1, samples + 1)]
    return Task(dataset=MemoryDataset(rows), solver=chain(calls))

QUESTION = "Question {}. " + "Write a function that adds two numbers. " * 20
"""
LM_EVAL_TASK = """
task: bench
dataset_path: json
dataset_kwargs: {data_files: FILE}
test_split: train
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["</s>"], max_gen_toks: 256, temperature: 0.0}
metric_list: [{metric: exact_match}]
"""
QUESTION = "Question {}. " + "Write a function that adds two numbers. " * 20


def _peer(bench: Bench, name: str) -> Path:
    """The folder of a peer's programs, installed when absent."""
    assert bench.peers is not None
    venv = bench.peers / name
    if not (venv / "installed").exists():
        print(f"installing {name} into {venv}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *PEERS[name]], check=True)
        (venv / "installed").touch()
    return venv / "bin"


def _version(bench: Bench, name: str) -> str:
    code = f"from importlib.metadata import version; print(version({PACKAGES[name]!r}))"
    command = [str(_peer(bench, name) / "python"), "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return found.stdout.strip()


def _inspect(
    bench: Bench, url: str, samples: int, calls: int, flight: int, logs: Path | None = None
) -> Command:
    folder = bench.fresh("inspect")
    (folder / "bench.py").write_text(INSPECT_TASK)
    command = [str(_peer(bench, "inspect") / "inspect"), "eval", "bench.py@bench"]
    command += ["-T", f"samples={samples}", "-T", f"calls={calls}", "--model", "openai/fault"]
    command += ["--model-base-url", f"{url}/v1", "-M", "responses_api=false", "--display", "none"]
    command += ["--max-connections", str(flight), "--max-samples", str(flight)]
    command += ["--log-dir", str(logs or folder / "logs")]
    return Command(command, {"OPENAI_API_KEY": "sk-bench"}, folder)


def _inspect_killed(bench: Bench, samples: int, flight: int) -> Row:
    """Once, at half."""
    logs = bench.fresh("inspect-logs")
    with bench.server() as server:
        command = _inspect(bench, server.url, samples, 1, flight, logs)
        _kill_at_half(server, command, samples)
        (log,) = logs.glob("*.eval")
        retry = [str(_peer(bench, "inspect") / "inspect"), "eval-retry", str(log)]
        retry += ["--display", "none", "--log-dir", str(logs)]
        again = Command(retry, {"OPENAI_API_KEY": "sk-bench"}, command.folder)
        row = _run(bench, server, "kill -9 once, at half", "inspect", again, needed=samples)
    row.said = _repeats(row, samples)
    return row


def _lm_eval(
    bench: Bench, url: str, samples: int, calls: int, flight: int, kept: Path | None = None
) -> Command:
    assert calls == 1, "lm-eval asks once per problem"
    folder = bench.fresh("lm-eval")
    rows = [{"question": QUESTION.format(n), "answer": "none"} for n in range(samples)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = LM_EVAL_TASK.replace("FILE", str(folder / "rows.jsonl"))
    (folder / "bench.yaml").write_text(task)
    arguments = f"model=fault,base_url={url}/v1/chat/completions,num_concurrent={flight}"
    command = [str(_peer(bench, "lm-eval") / "lm_eval"), "--model", "local-chat-completions"]
    command += ["--model_args", f"{arguments},max_retries=3,tokenized_requests=False"]
    command += ["--include_path", str(folder), "--tasks", "bench", "--apply_chat_template"]
    command += ["--output_path", str(folder / "out")]
    command += ["--use_cache", str(kept / "replies")] if kept else []
    env = {"OPENAI_API_KEY": "sk-bench", "HF_HOME": str(bench.folder / "hf"), "HF_HUB_OFFLINE": "1"}
    return Command(command, env, folder)


def _lm_eval_killed(bench: Bench, samples: int, flight: int) -> Row:
    """Once, at half; it keeps replies where it is told to."""
    kept = bench.fresh("lm-eval-kept")
    with bench.server() as server:
        command = _lm_eval(bench, server.url, samples, 1, flight, kept)
        _kill_at_half(server, command, samples)
        again = _lm_eval(bench, server.url, samples, 1, flight, kept)
        row = _run(bench, server, "kill -9 once, at half", "lm-eval", again, needed=samples)
    row.said = _repeats(row, samples)
    return row


def _kill_at_half(server: Any, command: Command, samples: int) -> None:
    while server.stats()["answered"] < samples / 2 and not command.over:
        time.sleep(0.05)
    command.kill()
    command.wait()


def _repeats(row: Row, samples: int) -> str:
    repeated = row.stats["requests"] - row.stats["unique"]
    return f"lost {samples - row.stats['answered']}, repeated {repeated}"


# ---- bare clients, as a program ----------------------------------------------------------------


async def _client(kind: str, url: str, chains: int, calls: int, flight: int) -> None:
    """`chains` tasks of `calls` calls one after another, `flight` tasks at once."""
    slots = asyncio.Semaphore(flight)
    async with contextlib.AsyncExitStack() as stack:
        ask = await (_aiohttp if kind == "aiohttp" else _openai)(stack, url)

        async def chain(number: int) -> None:
            async with slots:
                messages = [{"role": "user", "content": QUESTION.format(number)}]
                for _ in range(calls):
                    text = await ask(messages)
                    messages.append({"role": "assistant", "content": text})
                    messages.append({"role": "user", "content": "Check your answer once more."})

        await asyncio.gather(*(chain(number) for number in range(chains)))


async def _aiohttp(stack: contextlib.AsyncExitStack, url: str) -> Callable[..., Any]:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0)
    session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))

    async def ask(messages: list[dict[str, str]]) -> str:
        body = {"model": "fault", "messages": messages, "max_tokens": 1024, "temperature": 0.0}
        async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
            found: str = (await reply.json())["choices"][0]["message"]["content"]
            return found

    return ask


async def _openai(stack: contextlib.AsyncExitStack, url: str) -> Callable[..., Any]:
    import openai

    client = openai.AsyncOpenAI(
        base_url=f"{url}/v1",
        api_key="none",
        max_retries=0,
        http_client=openai.DefaultAioHttpClient(),
    )
    await stack.enter_async_context(client)

    async def ask(messages: Any) -> str:
        reply = await client.chat.completions.create(
            model="fault", messages=messages, max_tokens=1024, temperature=0.0
        )
        return reply.choices[0].message.content or ""

    return ask


def _heading(bench: Bench) -> str:
    """What is compared, and on what."""
    code = "import harness, sys; print(harness.__version__)"
    ours = subprocess.run(
        [sys.executable, "-c", code], cwd=bench.tree, capture_output=True, text=True, check=True
    ).stdout.strip()
    names = [f"harness {ours}", f"Python {sys.version.split()[0]}"]
    if bench.peers:
        names += [f"{PACKAGES[name]} {_version(bench, name)}" for name in PEERS]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    quick = "; quick: the targets are those of the full work" if bench.quick else ""
    machine = f"{os.cpu_count()} cores, load {load}"
    return f"{', '.join(names)}; {machine}; latency {LATENCY_S} s{quick}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="CASES", help=f"with commas: {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="a fifth of the work")
    parser.add_argument("--repeat", type=int, default=1, help="runs a row; the median is shown")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="measure peers, installed there")
    parser.add_argument("--tree", type=Path, default=ROOT, help="another checkout's harness")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument("--client", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        kind, url, *numbers = options.client
        asyncio.run(_client(kind, url, *map(int, numbers)))
        return
    names = options.only.split(",") if options.only else list(CASES)
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"no case {unknown[0]!r}: use {', '.join(CASES)}")
    sys.path.insert(0, str(ROOT))
    peers = options.peers.resolve() if options.peers else None
    with tempfile.TemporaryDirectory(prefix="bench-engine-") as folder:
        bench = Bench(Path(folder), options.tree.resolve(), options.quick, options.repeat, peers)
        print(_heading(bench))
        print()
        print(_line(HEADER))
        print(_line(["---"] * len(HEADER)), flush=True)
        for name in names:
            CASES[name](bench)
        print(f"\nload at the end {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps([row.as_dict() for row in bench.rows], indent=1))
    missed = [row for row in bench.rows if row.met is False]
    if missed:
        print(f"{len(missed)} missed: {', '.join(row.case for row in missed)}")


if __name__ == "__main__":
    main()
