"""Opens a grader for a benchmark: sandbox, kept verdicts, and the environment that its tests need.

`score` and `check` grade through here; what `eval` needs beside it stands in `api.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
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
    made = Interpreter(
        python=str(found.python),
        prefix=str(found.prefix),
        packages=(found.folder,),
        sites=(str(found.site),),
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
    hidden: Sequence[Path] = (),
) -> AsyncIterator[Grader]:
    """A grader for this benchmark; `kept` looks up and keeps verdicts in the cache folder.

    `hidden` names files and folders that programs must not see. Raises UsageError (a sandbox that
    does not isolate, without `unsafe_local`; no environment), SandboxError and StoreError.
    """
    found = interpreters(benchmark, cache_dir)
    sandbox = sandbox or await Sandbox.detect(hidden=tuple(str(path.resolve()) for path in hidden))
    if not sandbox.isolates and not unsafe_local:
        raise UsageError(
            f"the sandbox here ({sandbox.tier}) does not keep model-written code from the network "
            "and our environment: install bubblewrap, or accept that with --unsafe-local"
        )
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(VerdictCache(cache_dir / VERDICTS)) if kept else None
        async with Grader(sandbox, lanes=jobs, verdicts=cache, interpreters=found) as grader:
            yield grader
