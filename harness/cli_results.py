"""The commands that look at results, change what is kept of them, and hand them on."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from harness.command import (
    RUN,
    CacheDir,
    Command,
    ConfigFile,
    DataDir,
    Json,
    Out,
    Yes,
    data_sources,
    make_sure,
    named_run,
    print_object,
    say,
)
from harness.errors import UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from harness.benchmarks import DataSources

results_app = typer.Typer()
Anyway = Annotated[
    bool, typer.Option("--anyway", help="Rows too that may not share a ranking; a note says so.")
]


@results_app.command(cls=Command)
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

    out, run = named_run(out, run)
    show_run(out, run, problem=problem, sample=sample, full=full, workflow=workflow)


@results_app.command(cls=Command)
def rebuild(out: Out = Path("results")) -> None:
    """Make the database anew from the journals."""
    from harness.store import Store

    if out.is_dir() and not (out / "runs").is_dir():
        raise UsageError(f"{out}: no results folder, it holds no runs/; --out names another")
    store = Store(out)
    report = store.rebuild()
    store.snapshot()
    print(f"{report.runs} runs, {report.records:,} records, {report.broken} broken lines left out")
    for problem in report.problems:
        say(problem)


@results_app.command(cls=Command)
def delete(
    run: Annotated[str, typer.Argument(help="A run, as in `list runs`.")],
    yes: Yes = False,
    out: Out = Path("results"),
    as_json: Json = False,
) -> None:
    """Delete a run for good: its folder and its rows."""
    from harness.store import delete_run, find_run

    make_sure(f"delete {find_run(out, run, exact=True)} for good?", yes)
    gone = delete_run(out, run)
    if as_json:
        print_object({"run": gone.run_id, "bytes": gone.bytes, "rows": gone.rows})
    else:
        print(f"deleted {gone.folder}: {gone.bytes / 1e6:,.1f} MB, {gone.rows:,} rows")


@results_app.command(cls=Command)
def leaderboard(
    out: Out = Path("results"),
    config: ConfigFile = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port")] = 8501,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host", help="A name that it is reached by, behind a proxy. Repeatable."
        ),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open one.")] = True,
) -> None:
    """Open the leaderboard in a browser."""
    from leaderboard.serve import serve

    serve(out, host=host, port=port, open_browser=browser, names=tuple(allow_host or ()))


@results_app.command(cls=Command)
def compare(
    a: Annotated[str, typer.Argument(help=RUN)],
    b: Annotated[str, typer.Argument(help="The run to set beside it.")],
    anyway: Anyway = False,
    out: Out = Path("results"),
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Two runs problem by problem: the difference, its interval and p-value, who solves what."""
    from leaderboard.comparison import as_dict, compared, lines

    (out, a), (_, b) = named_run(out, a), named_run(out, b)
    with _snapshot(out) as connection:
        found = compared(connection, a, b, anyway=anyway)
    if as_json:
        print_object(as_dict(found))
    else:
        print("\n".join(lines(found)))


@results_app.command("import", cls=Command)
def bring_in(
    files: Annotated[
        list[Path], typer.Argument(help="Result files of EvalPlus, BigCodeBench, ...")
    ],
    form: Annotated[
        str | None, typer.Option("--format", help="Told by the file, unless given here.")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", "-b", help="What the file is of.")
    ] = None,
    method: Annotated[str | None, typer.Option("--method", help="What to call its method.")] = None,
    worker: Annotated[
        str | None, typer.Option("--worker", "-m", help="The model that answered.")
    ] = None,
    out: Out = Path("results"),
    config: ConfigFile = None,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Take over results of other tools; such rows say so and are never ranked with our own."""
    from harness import exchange
    from harness.store import out_option

    sources = replace(data_sources(data_dir, cache_dir), offline=True)
    made: list[str] = []
    errors: list[str] = []
    files, left_out = exchange.companions(files)
    for line in left_out:
        say(line)
    for file in files:
        try:
            made += [
                folder.name
                for folder in exchange.bring_in(
                    file, out, format=form, benchmark=benchmark, method=method, worker=worker,
                    sources=sources, say=say,
                )
            ]  # fmt: skip
        except UsageError as error:
            errors.append(str(error))
    if made:
        _refresh(out)
    for name in made if not as_json else ():
        print(f"{name}: `python -m harness show {name}{out_option(out)}`")
    for wrong in errors[:-1] if not as_json else ():
        say(f"error: {wrong}")
    if as_json:
        print_object({"runs": made, "errors": errors})
    elif errors:
        raise UsageError(errors[-1])
    raise typer.Exit(2 if errors else 0)


@results_app.command(cls=Command)
def merge(
    folders: Annotated[list[Path], typer.Argument(help="Results folders, of other machines say.")],
    out: Out = Path("results"),
    config: ConfigFile = None,
) -> None:
    """Bring the runs of other results folders into this one; what cannot come is named."""
    from harness.merge import merge as merged

    report = merged(out, folders)
    print("\n".join(report.lines()))
    raise typer.Exit(1 if report.refused else 0)


@results_app.command(cls=Command)
def export(
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Tables: markdown, latex, csv, html. Figures: pdf, svg, png. Data for other "
            "tools: parquet, csv-samples, evalplus, bigcodebench, inspect.",
        ),
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", "-b", help="The board of this one only.")
    ] = None,
    paper_table: Annotated[
        int | None, typer.Option("--table", help="Table 1, 2 or 3 of the paper, of our runs.")
    ] = None,
    figure: Annotated[
        str | None, typer.Option("--figure", help="cost, ablation, rounds, size or cases.")
    ] = None,
    site: Annotated[
        Path | None, typer.Option("--site", help="Folder for the board as pages without a server.")
    ] = None,
    runs: Annotated[
        list[str] | None, typer.Option("--runs", help="Only these: names, with commas. Repeatable.")
    ] = None,
    with_reported: Annotated[
        bool, typer.Option("--with-reported", help="The paper's own numbers beside ours.")
    ] = False,
    anyway: Anyway = False,
    digits: Annotated[
        int | None, typer.Option("--digits", min=0, max=6, help="Decimals of a percentage.")
    ] = None,
    list_name: Annotated[
        str | None, typer.Option("--list", help="--table: runs on this list only.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="--table: runs under this protocol only.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="File (or, for data, folder) to write.")
    ] = None,
    out: Out = Path("results"),
    config: ConfigFile = None,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Tables and figures for a paper, the board as static pages, runs for other tools."""
    from harness.exchange import EXPORTS

    kinds = {"--table": paper_table, "--figure": figure, "--site": site}
    asked = [name for name, value in kinds.items() if value is not None]
    if form in EXPORTS:
        asked.append(f"--format {form}")
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)}: one of them at a time")
    if form is None and to is not None:
        if to.suffix not in ENDINGS:
            raise UsageError(
                f"{to}: its ending names no format; give --format, or one of {' '.join(ENDINGS)}"
            )
        form = ENDINGS[to.suffix]
    what = asked[0].split()[0] if asked else "the board"
    named = _named(runs)
    given = {
        "--benchmark": benchmark, "--runs": named, "--digits": digits, "--list": list_name,
        "--protocol": protocol, "--with-reported": with_reported or None,
        "--anyway": anyway or None, "--format": form if to is None else None,
    }  # fmt: skip
    strange = [n for n, v in given.items() if v is not None and n not in FLAGS[what]]
    if strange:
        raise UsageError(f"{', '.join(strange)}: nothing that export of {what} takes")
    fits = PICTURES + TEXTS if figure else TEXTS
    if form is not None and form not in EXPORTS and form not in fits:
        raise UsageError(f"unknown format {form!r}: use one of {', '.join([*fits, *EXPORTS])}")
    with _snapshot(out) as connection:
        if form in EXPORTS:
            _send(connection, out, form, to, named, data_sources(data_dir, cache_dir))
        elif site is not None:
            from leaderboard.site import write_site

            print(write_site(connection, out, site))
        elif figure is not None and (form is None or form in PICTURES):
            from leaderboard.figures import figure as drawn

            _write(drawn(connection, out, figure, form or "svg", runs=named), to, figure)
        elif figure is not None:
            _write(_cases(connection, out, figure, str(form), named), to, figure)
        elif paper_table is not None:
            from leaderboard.paper import paper_table as tabled

            text = tabled(
                connection, cast(Any, paper_table), form or "markdown", runs=named,
                with_reported=with_reported, anyway=anyway, digits=2 if digits is None else digits,
                list_name=list_name, protocol=protocol,
            )  # fmt: skip
            _write(text, to, "table")
        else:
            from leaderboard.export import table

            board = table(connection, cast(Any, form or "markdown"), benchmark=benchmark,
                          digits=1 if digits is None else digits)  # fmt: skip
            _write(board, to, "board")


FLAGS = {  # of export, by what is exported
    "the board": {"--format", "--benchmark", "--digits"},
    "--table": {
        "--format",
        "--runs",
        "--with-reported",
        "--anyway",
        "--digits",
        "--list",
        "--protocol",
    },
    "--figure": {"--format", "--runs"},
    "--site": set(),
    "--format": {"--format", "--runs"},
}
PICTURES, TEXTS = ("pdf", "svg", "png"), ("markdown", "latex", "csv", "html")
ENDINGS = {
    ".md": "markdown", ".tex": "latex", ".csv": "csv", ".html": "html",
    ".pdf": "pdf", ".svg": "svg", ".png": "png",
}  # fmt: skip


def _named(runs: list[str] | None) -> list[str] | None:
    """The names in --runs, which may hold commas themselves. Raises UsageError for none."""
    if runs is None:
        return None
    found = [
        part for given in runs for part in ([given] if "=" in given else given.split(",")) if part
    ]
    if not found:
        raise UsageError("--runs names no run")
    return found


def _cases(
    connection: DuckDBPyConnection, out: Path, figure: str, form: str, runs: list[str] | None
) -> str:
    """The case studies as text. Raises UsageError for another figure, or several runs."""
    from leaderboard.cases import cases_text

    if figure != "cases":
        raise UsageError(f"--figure {figure} is pdf, svg or png, not {form}")
    if runs is not None and len(runs) > 1:
        raise UsageError("--figure cases is of one run; name one in --runs")
    return cases_text(connection, out, form, run_id=runs[0] if runs else None)


def _send(
    connection: DuckDBPyConnection, out: Path, form: str, to: Path | None,
    runs: list[str] | None, sources: DataSources,
) -> None:  # fmt: skip
    from harness.exchange import send_out

    if to is None:
        raise UsageError(f"--format {form} writes files: name a folder, --to DIR")
    for path in send_out(out, form, to, runs=runs, connection=connection, sources=sources, say=say):
        print(path)


def _write(made: str | bytes, to: Path | None, what: str) -> None:
    """Into the file, or on stdout. Raises UsageError for bytes on a terminal."""
    if to is None and isinstance(made, bytes) and sys.stdout.isatty():
        raise UsageError(f"a picture is no text: name a file, --to {what}.svg")
    data = f"{made.rstrip()}\n".encode() if isinstance(made, str) else made
    if to is None:
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UsageError(f"stdout cannot be written: {error.strerror or error}") from error
        return
    try:
        to.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{to}: cannot be written: {error.strerror or error}") from error
    print(to)


def _refresh(out: Path) -> None:
    from leaderboard.serve import refresh

    refresh(out, say)


@contextlib.contextmanager
def _snapshot(out: Path) -> Iterator[DuckDBPyConnection]:
    """A snapshot of all that the journals hold. Raises UsageError where there is no run."""
    from harness.store import Store, current_snapshot, open_snapshot

    _refresh(out)
    if current_snapshot(out) is None:
        if (store := Store(out)).path.exists():
            store.ingest()  # says what is wrong with it
        raise UsageError(f"no run under {out}; `python -m harness eval` makes one")
    with contextlib.closing(open_snapshot(out)) as connection:
        yield connection
