"""Results of other tools, in and out. Adding a format is one file and a line in each table here.

`bring_in` makes ordinary journals of files of EvalPlus, BigCodeBench, lm-eval and Inspect and of
our own tables; `send_out` writes runs of ours for them. docs/exchange.md says what each format
holds, what of it is taken over, and how its words become our verdicts.
"""

from __future__ import annotations

import difflib
import importlib
import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from harness.benchmarks import DataSources

IMPORTS = {  # format -> module and the function in it that reads a file: (path, wish) -> logs
    "evalplus": ("harness.exchange.evalplus", "read"),
    "bigcodebench": ("harness.exchange.bigcodebench", "read"),
    "lm-eval": ("harness.exchange.lm_eval", "read"),
    "inspect": ("harness.exchange.inspect_logs", "read"),
    "parquet": ("harness.exchange.tables", "read_parquet"),
    "csv": ("harness.exchange.tables", "read_csv"),
}
EXPORTS = {  # format -> module and the function in it that writes runs: (export, target) -> files
    "evalplus": ("harness.exchange.evalplus", "write"),
    "bigcodebench": ("harness.exchange.bigcodebench", "write"),
    "inspect": ("harness.exchange.inspect_logs", "write"),
    "parquet": ("harness.exchange.tables", "write_parquet"),
    "csv-samples": ("harness.exchange.tables", "write_csv"),
}
BEGINNING = 1 << 20  # bytes of a file that tell its format
NEAR = 0.75  # likeness, by difflib, from which a name is one of ours with a slip
_RESULTS = ("_eval_results.json", ".eval_results.json")
_BESIDE = ("_pass_at_k.json", ".jsonl")  # what those tools write beside such a file
_NAMES: dict[str, tuple[str, ...]] = {  # names in JSON of which one tells a format, in this order
    "inspect": ('"eval_id"', '"task_registry_name"'),
    "lm-eval": ('"lm_eval_version"', '"n-shot"', '"filtered_resps"', '"group_subtasks"'),
    "evalplus": ('"base_status"', '"nfiles"', '"base":', '"files":'),
    "bigcodebench": ('"status"', '"details"'),
}


def detect(path: Path) -> str:
    """The format of a file or folder, by its name and beginning. Raises UsageError."""
    from harness.exchange.foreign import read_bytes

    _refuse_strange(path)
    if path.is_dir():
        return "parquet"
    beginning = read_bytes(path, BEGINNING)
    if beginning.startswith(b"PAR1"):
        return "parquet"
    if beginning.startswith(b"PK\x03\x04"):
        return "inspect"
    text = beginning.decode("utf-8-sig", "replace")
    if path.name.endswith("pass_at_k.json"):
        raise UsageError(f"{path}: holds only means; import the *_eval_results.json beside it")
    if re.match(r"\s*[{\[]", text):
        for form, names in _NAMES.items():
            if any(name in text for name in names):
                return form
        if '"task_id"' in text:
            raise UsageError(f"{path}: samples without verdicts; `score --samples` grades them")
    elif path.suffix == ".csv" or "problem_id" in text.partition("\n")[0]:
        return "csv"
    raise UsageError(f"{path}: of no format known here; name one: --format {'|'.join(IMPORTS)}")


def _refuse_strange(path: Path) -> None:
    """Raises UsageError for what is no file of results: absent, a pipe, a folder, a run of ours."""
    try:
        path.stat()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not (path.is_file() or path.is_dir()):
        raise UsageError(f"{path}: neither a file nor a folder; write it into a file first")
    if path.is_dir() and (path / "results.parquet").is_file():
        return
    folder = path if path.is_dir() else path.parent
    run = (folder / "run.json").is_file() and folder.resolve().parent.name == "runs"
    if run or (path.is_dir() and (path / "runs").is_dir()):
        whole = folder.resolve().parent.parent if run else path
        raise UsageError(
            f"{path}: runs of this harness; `python -m harness merge {shlex.quote(str(whole))}` "
            "brings in those of another results folder"
        )
    if path.is_dir():
        raise UsageError(f"{path}: a folder without results.parquet; name a file in it")


def _refuse_slip(benchmark: str) -> None:
    """Raises UsageError, naming it, for what is nearly a benchmark of ours.

    A longer name that has one of ours in it as a word ("humaneval-x") is another benchmark's.
    """
    from harness.benchmarks import ALIASES, REGISTRY

    known = (*REGISTRY, *ALIASES)
    if benchmark in known:
        return
    like = re.sub(r"[-+ ]?plus$", "+", benchmark.lower().replace("_", "-"))
    begins = [f"{name}-" for name in known if like.startswith(f"{name}-")]
    start = "" if like in known else max(begins, key=len, default="")
    tails = {name.removeprefix(start): name for name in known if name.startswith(start)}
    if not start:
        tails = {name: name for name in known if not like.endswith(f"-{name.rstrip('+')}")}
    near = difflib.get_close_matches(like.removeprefix(start), tails, n=1, cutoff=NEAR)
    if near:
        raise UsageError(
            f"{benchmark}: no benchmark here, but near one: {tails[near[0]]}; `list benchmarks` "
            "names all"
        )


def companions(files: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """(files to bring in, a line for each that is left out) of several files.

    Rates and samples that EvalPlus and BigCodeBench write beside a results file are read with it.
    Where nothing else would be left, they stay, to be refused one by one.
    """
    given = {path.resolve() for path in files}
    kept: list[Path] = []
    left_out: list[str] = []
    for path in files:
        stems = [path.name.removesuffix(end) for end in _BESIDE if path.name.endswith(end)]
        results = [path.with_name(f"{stem}{end}") for stem in stems for end in _RESULTS]
        among = next((p for p in results if p.resolve() in given), None)
        near = among or next((p for p in results if p.is_file()), None)
        if near is None:
            kept.append(path)
        else:
            why = "read with" if among else "has no verdicts; import"
            left_out.append(_one_line(f"{path.name}: left out, {why} {near.name}"))
    return (kept, left_out) if kept else (list(files), [])


def bring_in(
    path: Path,
    results_dir: Path,
    *,
    format: str | None = None,
    benchmark: str | None = None,
    method: str | None = None,
    worker: str | None = None,
    sources: DataSources | None = None,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Make a run of each run in a file; return their folders, those of before where it was known.

    `benchmark`, `method` and `worker` are what the file is of, in place of what it says itself.
    `sources` say where benchmark data lies; nothing is downloaded. `say` is told, line by line,
    what was found and what was left out. The caller ingests. Raises UsageError, one line that names
    file and place, with nothing written; StoreError.
    """
    from harness.exchange.keep import written
    from harness.exchange.wishes import Wish

    form = format or detect(path)
    if form not in IMPORTS:
        raise UsageError(f"unknown format {form!r}: use one of {', '.join(IMPORTS)}")
    _refuse_strange(path)
    if path.is_dir() and form != "parquet":
        raise UsageError(f"{path}: a folder; name a file in it")
    if benchmark is not None:
        _refuse_slip(benchmark)
    module, name = IMPORTS[form]
    wish = Wish(benchmark, method, worker, sources, lambda line: say(_one_line(line)))
    try:
        with ExitStack() as stack:  # all runs are whole before the first one is put in its place
            ready = [
                stack.enter_context(written(log, path, form, results_dir, wish))
                for log in getattr(importlib.import_module(module), name)(path, wish)
            ]
            if not ready:
                raise UsageError(f"{path}: no graded sample in it")
            return [publish() for publish in ready]
    except UsageError as error:  # it may quote the file
        raise UsageError(_one_line(str(error))) from error


def _one_line(text: str) -> str:
    """A message without what could steer a terminal."""
    from harness.store import plain

    return plain(text).replace("\n", "\\n")


def send_out(
    results_dir: Path,
    format: str,
    target: Path,
    *,
    runs: Sequence[str] | None = None,
    connection: DuckDBPyConnection | None = None,
    sources: DataSources | None = None,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Write runs into a folder (or, CSV, a file) in another tool's format; return the files.

    `runs` are names as in `list runs`, all but simulated ones by default. `connection` is that of
    the snapshot to read, the newest by default: the caller ingests before. Files that are there
    already are not replaced. Raises UsageError, StoreError.
    """
    from harness.exchange.ours import runs_of
    from harness.exchange.wishes import Export
    from harness.store import open_snapshot

    if format not in EXPORTS:
        raise UsageError(f"unknown format {format!r}: use one of {', '.join(EXPORTS)}")
    own = open_snapshot(results_dir) if connection is None else None
    chosen = connection if own is None else own
    assert chosen is not None
    try:
        found = tuple(runs_of(chosen, results_dir, runs))
        module, name = EXPORTS[format]
        write = getattr(importlib.import_module(module), name)
        files: list[Path] = write(Export(chosen, results_dir, found, sources, say), target)
        return files
    finally:
        if own is not None:
            own.close()
