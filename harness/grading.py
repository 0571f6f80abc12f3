"""Opens a grader for a benchmark: sandbox, kept verdicts, and the environment that its tests need.

`score` and `check` grade through here; what `eval` needs beside it stands in `api.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from harness.benchmarks import Benchmark
from harness.errors import UsageError
from harness.grade import ENVIRONMENT, Grader
from harness.sandbox import Interpreter, Sandbox
from harness.verdicts import VerdictCache

VERDICTS = "verdicts.sqlite"  # in the cache folder


def needs_environment(benchmark: Benchmark) -> bool:
    """Whether what can be graded depends on what is installed for it (BigCodeBench)."""
    return benchmark.family == "bigcodebench"


def interpreters(benchmark: Benchmark, cache_dir: Path) -> dict[str, Interpreter]:
    """The Python of the environment that a benchmark's tests run in, by the environment's name.

    Raises UsageError when it needs one that was not made.
    """
    if not needs_environment(benchmark):
        return {}
    from harness.environments import find

    found = find(ENVIRONMENT, cache_dir)
    if found is None:
        raise UsageError(
            f"{benchmark.name} is graded in an environment of its own: make it with "
            f"`python -m harness env {ENVIRONMENT}`"
        )
    folder = found.folder.resolve()  # a guest sees no link that leads to it
    made = Interpreter(
        python=str(folder / found.python.relative_to(found.folder)),
        prefix=str(found.prefix),
        packages=(folder,),
        sites=(str(found.site.resolve()),),
        preload=found.preload,
        digest=found.digest,
    )
    return {ENVIRONMENT: made}


@contextlib.asynccontextmanager
async def open_grader(
    benchmark: Benchmark,
    *,
    cache_dir: Path,
    jobs: int | None = None,
    sandbox: Sandbox | None = None,
    unsafe_local: bool = False,
    kept: bool = True,
    regrade: bool = False,
    hidden: Sequence[Path] = (),
    say: Callable[[str], None] = lambda line: None,
) -> AsyncIterator[Grader]:
    """A grader for this benchmark; `kept` looks up and keeps verdicts in the cache folder.

    Programs see neither the files of the benchmark nor kept verdicts, nor what `hidden` names.
    Raises UsageError (a sandbox that does not isolate, without `unsafe_local`; no environment) and
    SandboxError.
    """
    found = interpreters(benchmark, cache_dir)
    sources = benchmark.sources
    kept_files = (cache_dir / VERDICTS, cache_dir / "data", cache_dir / "checks")
    ours = (*hidden, *kept_files, sources.data_dir, sources.cache_dir, *sources.overrides.values())
    covered = tuple(str(path.resolve()) for path in ours if path is not None and path.exists())
    sandbox = sandbox or await Sandbox.detect(hidden=covered)
    if not sandbox.isolates and not unsafe_local:
        raise UsageError(
            f"the sandbox here ({sandbox.tier}) does not keep model-written code from the network "
            "and our environment: install bubblewrap, or accept that with --unsafe-local"
        )
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(VerdictCache(cache_dir / VERDICTS, say)) if kept else None
        async with Grader(
            sandbox, lanes=jobs, verdicts=cache, regrade=regrade, interpreters=found
        ) as grader:
            yield grader


async def at_once(work: Callable[[], Awaitable[None]], count: int | None = None) -> None:
    """Run `count` tasks of `work` (by default enough to keep every lane busy) to their end.

    The first error of a task ends the others and is raised as it is.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(count or 2 * (os.cpu_count() or 1) + 2):
                group.create_task(_awaited(work))
    except BaseExceptionGroup as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def printable(text: str, width: int = 300) -> str:
    """One line of a text that a model may have written: no control characters, cut."""
    line = " ".join(text.split())
    kept = line if len(line) <= width else f"{line[:width]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in kept)
