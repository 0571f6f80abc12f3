"""What every command of the command line shares: how flags are read, folders found, work run.

With `harness/cli.py` and `harness/cli_results.py`, the only reader of the environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer
from typer.core import TyperCommand

from harness import config as settings
from harness.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from harness.benchmarks import DataSources

T = TypeVar("T")

KEYS = {  # provider -> (key variables, base URL variables), the first one set counts
    "openai": (("OPENAI_API_KEY",), ("OPENAI_BASE_URL", "OPENAI_API_BASE")),
    "anthropic": (("ANTHROPIC_API_KEY",), ("ANTHROPIC_BASE_URL",)),
    "vllm": (("VLLM_API_KEY",), ("VLLM_BASE_URL",)),
}


class Command(TyperCommand):
    """A command whose flags also come from the file of `--config`, then from the environment.

    Repeatable flags of all three are put together; of one name, the command line's counts.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        parameters = {p.name: p for p in self.get_params(ctx) if p.name != "help"}
        flags = [_flag(p) for p in parameters.values()]
        own = {name for flag in flags for name in flag.names}
        Owed.object = "as_json" in parameters and "--json" in args

        def known(name: str) -> str:
            ours = settings.ALIASES.get(name, name)
            return ours if name not in own and ours in own else name

        ctx.token_normalize_func = known
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        if "help" in given:
            return super().parse_args(ctx, args)
        for line in settings.strangers(os.environ, _variables(ctx)):
            say(line)
        found = settings.from_environment(os.environ, flags)
        places = {f.name: settings.variable(f) for f in flags if f.name in found}
        repeated = _repeated(parameters, found)
        if "config" in parameters and (file := given.get("config") or found.get("config")):
            path = Path(str(file))
            of_file = settings.from_file(path, [f for f in flags if f.name != "config"])
            repeated += _repeated(parameters, of_file)
            found |= of_file
            places |= dict.fromkeys(of_file, str(path))
        if str(found.get("as_json", "")).lower() in ("1", "true", "t", "yes", "y", "on"):
            Owed.object = True
        ctx.default_map = found
        try:
            rest = super().parse_args(ctx, [*repeated, *args])
            Owed.object = bool(ctx.params.get("as_json"))
            return rest
        except typer.BadParameter as error:
            name = getattr(error.param, "name", "")
            if given.get(name) is not None or name not in places:
                raise
            raise UsageError(f"{places[name]}: {error.format_message()}") from None


class Owed:
    """Whether stdout still has to get the one JSON object that --json promises."""

    object = False


def _variables(ctx: Any) -> set[str]:
    """The variables of all commands; walked only where the environment holds any."""
    if not any(name.startswith(settings.PREFIX) for name in os.environ):
        return set()
    found: set[str] = set()
    left = [ctx.find_root().command]
    while left:
        command = left.pop()
        left += getattr(command, "commands", {}).values()
        if isinstance(command, Command):
            found |= {settings.variable(_flag(p)) for p in command.get_params(ctx)}
    return found


def _flag(parameter: Any) -> settings.Flag:
    if parameter.param_type_name == "argument":
        kind: settings.Kind = "many" if parameter.nargs == -1 else "one"
        names: tuple[str, ...] = (parameter.name.replace("_", "-"),)
        return settings.Flag(parameter.name, names, kind, variable=False)
    kind = "switch" if parameter.is_flag else "many" if parameter.multiple else "one"
    names = tuple(name.lstrip("-") for name in parameter.opts)
    return settings.Flag(parameter.name, names, kind, variable=parameter.allow_from_autoenv)


def _repeated(parameters: Mapping[str, Any], found: dict[str, settings.Value]) -> list[str]:
    """The repeatable options of `found`, taken out of it, as they stand on a command line."""
    names = [n for n, p in parameters.items() if getattr(p, "multiple", False) and n in found]
    return [
        text for n in names for value in cast(list[str], found.pop(n))
        for text in (parameters[n].opts[0], value)
    ]  # fmt: skip


Out = Annotated[Path, typer.Option("--out", help="Folder of results.")]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        help="Folder of fetched models and data, kept replies, verdicts and environments.",
    ),
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder of benchmark files.")]
MaxConnections = Annotated[
    int | None, typer.Option("--max-connections", help="Requests to one model at once.")
]
RUN = "A run, as in `list runs`; part of its name, its folder, or latest."
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML or YAML file of these flags; those given here win."),
]
Jobs = Annotated[int | None, typer.Option("--jobs", help="Programs at once; a core each.")]
Unsafe = Annotated[
    bool, typer.Option("--unsafe-local", help="Run model-written code without isolation.")
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout, the rest on stderr.")
]


def settle(wrong: str, code: int) -> None:
    """Print what --json still owes, where a command ends without its own object."""
    if Owed.object:
        print_object({"error": wrong, "exit_code": code})


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def environment() -> dict[str, str]:
    """The keys and base URLs that are set, in the environment or in `.env`."""
    names = [name for pair in KEYS.values() for part in pair for name in part]
    return settings.with_dotenv(os.environ, Path(), names)


def cache_folder(given: Path | None) -> Path:
    """The cache folder: `models`, `data`, `envs`, `checks` and kept verdicts are below it."""
    from platformdirs import user_cache_path

    return given or user_cache_path("flowreasoner-harness")


def is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "yes")


def data_sources(data_dir: Path | None, cache_dir: Path | None) -> DataSources:
    """Where benchmark files may come from: folders, and the variables that name single files."""
    from harness.benchmarks import OVERRIDE_VARIABLES, DataSources

    named = {key: os.environ.get(variable, "") for key, variable in OVERRIDE_VARIABLES.items()}
    overrides = {key: Path(path) for key, path in named.items() if path}
    if data_dir is not None and not data_dir.is_dir():
        raise UsageError(f"{data_dir}: no such folder; correct --data-dir or HARNESS_DATA_DIR")
    return DataSources(data_dir, cache_folder(cache_dir), overrides, is_offline())


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`: Ctrl-C or SIGTERM ends the work in order, a second one the process at once."""
    import asyncio

    stopped = False
    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    heard = [name for name, old in before.items() if old is not signal.SIG_IGN]

    async def watched() -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()

        def stop(number: int, frame: Any) -> None:
            nonlocal stopped
            stopped = True
            for name in heard:
                signal.signal(name, _at_once)
            if task is not None:
                task.cancel()
            loop.call_soon_threadsafe(lambda: None)  # wakes it

        for name in heard:
            signal.signal(name, stop)
        return await work

    try:
        found = asyncio.run(watched())
    except asyncio.CancelledError:
        if stopped:
            raise KeyboardInterrupt from None
        raise
    for name in heard:
        signal.signal(name, before[name])
    return found


def _at_once(number: int, frame: Any) -> None:
    """What is below dies with this process; nothing that was journalled is lost."""
    cursor = b"\x1b[?25h" if os.isatty(2) else b""  # a progress bar may have hidden it
    with contextlib.suppress(OSError):
        os.write(2, cursor + b"interrupted at once: the same command goes on from here\n")
    if Owed.object:
        with contextlib.suppress(OSError):
            os.write(1, b'{"error": "interrupted at once", "exit_code": 130}\n')
    os._exit(130)


def print_object(found: Mapping[str, Any]) -> None:
    """The one object of --json."""
    Owed.object = False
    print(json.dumps(found))


def named_run(out: Path, run: str) -> tuple[Path, str]:
    """(results folder, name) of a run: `latest` is the newest there, a path may lie elsewhere.

    A part of a name is made whole where only one run is `called` so; else the name stays as it is,
    for whoever takes it to refuse.
    """
    from harness.journal import segments
    from harness.store import called

    path = Path(run)
    if path.parent.name == "runs" and (path / "run.json").is_file():
        return path.parent.parent, path.name
    runs = [folder for folder in (out / "runs").glob("*") if segments(folder)]
    if run == "latest" and runs:
        return out, max(runs, key=lambda one: segments(one)[-1].stat().st_mtime).name
    meant = called(run, [folder.name for folder in (out / "runs").glob("*") if folder.is_dir()])
    return out, meant[0] if len(meant) == 1 else run


def ticker() -> Callable[[str, bool], None]:
    """Prints progress to stderr: in place on a terminal, else a line at most every 10 s."""
    terminal = sys.stderr.isatty()
    last = time.monotonic()

    def tick(line: str, done: bool) -> None:
        nonlocal last
        now = time.monotonic()
        if terminal and (done or now - last > 0.2):
            print(f"\r{line}\x1b[K", end="\n" if done else "", file=sys.stderr, flush=True)
            last = now
        elif not terminal and (done or now - last > 10):
            say(line)
            last = now

    return tick


def make_sure(question: str, yes: bool) -> None:
    """Ask before deleting. Raises UsageError where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} give --yes where nobody can be asked")
    if not typer.confirm(question, err=True):
        say("nothing was deleted")
        raise typer.Exit(1)
