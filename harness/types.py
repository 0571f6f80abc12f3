"""The nouns of the harness. Standard library only; everything else imports this.

What a method may see (`Problem`) and what only the grader sees (`Oracle`) are two types, so a
hidden test cannot reach a method by accident.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol, TypedDict


class Verdict(StrEnum):
    """The grader's finding on one sample. All but `passed` and `invalid` count as not solved."""

    PASSED = "passed"
    WRONG = "wrong"  # an assertion failed
    EXCEPTION = "exception"  # the solution raised while it was being tested
    TIMEOUT = "timeout"
    MEMORY = "memory"
    NO_CODE = "no_code"  # no program in the answer, or one that does not define the entry point
    NOT_LOADABLE = "not_loadable"  # the program does not compile, or raises at import
    TAMPERED = "tampered"  # no test ran although the program claims success
    CRASHED = "crashed"  # the program took its own sandbox down
    INVALID = "invalid"  # our sandbox or the provider broke: rerun it, never average it

    @property
    def solved(self) -> bool:
        return self is Verdict.PASSED


class Level(StrEnum):
    """What a method may do with feedback tests (docs/protocols.md)."""

    L0 = "L0"  # nothing but the prompt
    L1 = "L1"  # execute examples that are visible in the prompt
    L2 = "L2"  # a scalar from tests that are not in the prompt
    L3 = "L3"  # their text or failure messages
    ORACLE = "oracle"  # feedback from the hidden tests: an upper bound, never ranked


Protocol_ = Literal["none", "public", "split", "aflow"]


@dataclass(frozen=True)
class Problem:
    """One item of a benchmark: all that a method may see."""

    problem_id: str  # the benchmark's own id, "HumanEval/0"
    benchmark: str
    prompt: str  # the only task text given to any model
    entry_point: str  # the function that the solution must define
    prelude: str  # code that stands before every solution: the prompt's imports and helpers
    examples: tuple[str, ...]  # asserts that restate what the prompt shows; may be empty


@dataclass(frozen=True)
class Assertions:
    """Statements that call the solution, as `candidate` or by its name (HumanEval, MBPP).

    They run in a process of their own; the solution's process answers with plain data.
    """

    tests: tuple[str, ...]  # each one test, run in order
    setup: str = ""  # run once before them ("def check(candidate): ...")


@dataclass(frozen=True)
class Cases:
    """Inputs on which a solution has to return what the reference returns (EvalPlus)."""

    inputs: Callable[[], tuple[list[Any], list[Any]]]  # (base, plus): argument lists, plain data
    digest: str  # SHA-256 of the inputs and of all that decides the expected outputs
    atol: float = 0.0  # how far a float may be off; EvalPlus widens it where outputs are floats
    rule: str = "equal"  # how outputs are compared; `harness/guest/cases.py` lists the rules
    case_s: float = (
        1.0  # least limit for one input; four times the reference's time if that is more
    )
    only: tuple[int, ...] | None = None  # positions in base + plus that count; None is all


@dataclass(frozen=True)
class UnitTests:
    """A unittest module that runs beside the solution, in its process (BigCodeBench)."""

    source: str  # appended to the program; holds `class TestCases`
    methods: tuple[str, ...]  # those of TestCases that must run and pass


Tests = Assertions | Cases | UnitTests


@dataclass(frozen=True)
class Oracle:
    """The hidden side of a problem: only the grader and the data checks hold one."""

    tests: Tests  # all official hidden tests
    reference: str  # a solution that passes
    timeout_s: float  # the official limit for all tests together
    fresh: Callable[[], Tests | None] = field(default=lambda: None, compare=False)
    # those that no feedback test repeats, None when none is left; found out when first asked for


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Limits:
    """Rate limits as a server's headers told them beside one reply; None where it says nothing.

    `left` are what may still be used now, and `reset_s` the seconds until all of it is back: so
    (limit - left) / reset_s is the rate at which it comes back, whatever the server's period.
    """

    requests: float | None = None  # the most at once, with nothing used
    requests_left: float | None = None
    requests_reset_s: float | None = None
    tokens: float | None = None
    tokens_left: float | None = None
    tokens_reset_s: float | None = None


@dataclass(frozen=True)
class Completion:
    """The answer of one model call. Token counts are the provider's; None means not reported."""

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    finish: str | None = None  # "stop", "length", ...
    model: str | None = None  # the id that the server reported
    ignored: tuple[str, ...] = ()  # settings that this model does not take, as recorded
    cache_write_tokens: int | None = None  # of the prompt, written to the provider's cache
    limits: Limits | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Sampling:
    """How a role's model is asked; a method may override fields per call."""

    temperature: float = 0.0
    max_tokens: int = 1024
    top_p: float | None = None
    reasoning_effort: str | None = None  # "low", "medium", ...; for models that reason
    extra_body: Mapping[str, Any] = field(default_factory=dict)  # put into the request as it is

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain data; the last two only where given, so that digests stay."""
        found: dict[str, Any] = {
            "temperature": float(self.temperature),
            "max_tokens": self.max_tokens,
            "top_p": None if self.top_p is None else float(self.top_p),
        }
        if self.reasoning_effort is not None:
            found["reasoning_effort"] = self.reasoning_effort
        if self.extra_body:
            found["extra_body"] = dict(self.extra_body)
        return found


@dataclass(frozen=True)
class About:
    """What a request is for: known to the harness, never sent. Simulated models go by it."""

    problem_id: str
    sample: int
    role: str
    occurrence: int  # 0-based, among equal requests of the sample


class Model(Protocol):
    """A model behind any provider. One request per call: retries belong to the caller.

    A provider subclasses it and sets what differs from these defaults.
    """

    name: str  # as the user wrote it: "openai/gpt-4o-mini", "local/qwen2.5-coder-0.5b-instruct"
    connections: int = 16  # how many requests it can usefully answer at once, to begin with
    most_connections: int = 200  # how far that may grow while the server keeps up
    samples_always: bool = False  # it takes no temperature, so it is never greedy
    repeats: bool = False  # equal greedy requests get equal answers, in every process
    cacheable: bool = True  # its replies are worth keeping for other runs
    recorded: bool = False  # its answers were paid for before: nothing is paid again
    simulated: bool = False  # its answers are not a model's: never ranked, never in a paper
    trained_knobs: Mapping[str, Any] = {}  # of the method whose meta-agent it was trained as
    trained_on: tuple[str, ...] = ()  # ids of the problems that it was trained on

    def identity(self) -> dict[str, Any]:
        """What tells this model from another: name, base URL, weights digest. No key, ever."""
        ...

    def endpoint(self) -> str:
        """What shares one limit of connections with it: the server, or the model itself."""
        return self.name

    def price(self, completion: Completion) -> float | None:
        """Dollars for one completion; None when the price is unknown, 0.0 only when it is free."""
        ...

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        seed: int | None = None,
        about: About | None = None,
    ) -> Completion:
        """Answer once.

        Raises ModelRefused (permanent), RequestRejected (this request), RateLimited or
        ModelUnavailable (retry).
        """
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Solution:
    """What a method returns. `code` is graded as it is; empty means no answer.

    `reruns` are programs of further runs of the very system that made `code`; each is graded, and
    the row says how many passed.
    """

    code: str
    reruns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Feedback:
    """What one run of the feedback tests told, as far as the level allows.

    `score` is the share of tests passed in [0, 1], None when the problem has no feedback test.
    `errors` holds one line per failed test, empty below level L1.
    """

    score: float | None
    passed: int
    total: int
    errors: tuple[str, ...] = ()
    verdict: str | None = None  # of the first failed test, "passed" when none failed


@dataclass(frozen=True)
class WorkflowRun:
    """One execution of a model-written workflow: an answer, or the error as data."""

    answer: str | None  # text that holds the program; None when the workflow failed
    calls: int  # operator calls that reached a model
    error: str | None = None  # one line: stage, class, message, line of the workflow
    error_class: str | None = None
    operators: tuple[str, ...] = ()  # operators called, in order of call
    sampled: bool = False  # some model call was not greedy: another execution may differ


@dataclass(frozen=True)
class WorkflowLimits:
    """What one workflow execution may use."""

    calls: int = 30  # model calls
    tokens: int = 200_000  # prompt and completion; what is in flight when it falls is let finish
    operator_calls: int = 100  # operator calls of any kind
    at_once: int = 8  # operator calls answered at a time; further ones wait
    own_s: float = 20.0  # seconds of its own: while no operator call of it is being answered
    total_s: float = 900.0  # seconds in all, less those spent waiting for a turn at a model
    memory_mb: int = 512


Contract = Literal["workflow", "agent"]
# What model-written code defines: `class Workflow` (AFlow, FlowReasoner: `__call__`; ScoreFlow:
# `run_workflow`), or a function `forward(self, taskInfo)` over `LLMAgentBase` (ADAS).

Operator = Callable[..., Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Spent:
    """What has been used so far, as asked anew. None: some part is unknown."""

    calls: int
    tokens: float | None  # prompt and completion
    usd: float | None  # as if no reply had been kept


class Context(Protocol):
    """One sample's view of the world: every model call, test and workflow goes through it."""

    problem: Problem
    rng: random.Random  # seeded by run seed, problem and sample
    round: int | None  # set by methods that work in rounds; every record carries it
    level: Level
    sampling: Mapping[str, Sampling]  # by role
    artifact: Mapping[str, Any] | None  # what the method's `fit` found; None where it has none

    @property
    def test_cases(self) -> tuple[str, ...]:
        """The text of each feedback test; empty at levels that may not see it (L0, L2, oracle)."""
        ...

    @property
    def spent(self) -> Spent:
        """What this sample has used so far."""
        ...

    @property
    def nodes(self) -> Mapping[str, str]:
        """The models that a workflow's node may ask for: {role: name}, `worker` first."""
        ...

    def peer(self) -> Context:
        """This sample's view of another problem of the run, with calls and records of its own.

        Who is whose peer is a seeded cycle through all problems. Raises UsageError when there is
        only one.
        """
        ...

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A sentence embedding of each text (all-MiniLM-L6-v2: 384 numbers, length 1).

        Raises UsageError when what it needs is not installed.
        """
        ...

    async def compare(self, source: str, candidates: Sequence[str]) -> list[list[float]]:
        """PairRM's logits M[i][j]: above 0, candidate i (shown first) beats j; 0 on the diagonal.

        Raises UsageError when its weights are not there.
        """
        ...

    async def ask(
        self, messages: str | Sequence[Message], role: str = "worker", **sampling: Any
    ) -> Completion:
        """Ask a role's model; recorded, priced and retried. A string is one user message."""
        ...

    def is_greedy(self, role: str = "worker") -> bool:
        """Whether equal requests to this role get equal answers."""
        ...

    async def run_feedback(self, code: str) -> Feedback:
        """Run `code` against the protocol's feedback tests in the sandbox."""
        ...

    async def run_workflow(
        self,
        code: str,
        prompts: str,
        *,
        operators: Mapping[str, Operator],
        contract: Contract = "workflow",
        limits: WorkflowLimits | None = None,
    ) -> WorkflowRun:
        """Run model-written workflow code in the sandbox; its operators are answered from here."""
        ...

    def note(
        self, kind: str, *, texts: Mapping[str, str | None] | None = None, **fields: Any
    ) -> None:
        """Add a record to the trajectory (`round`, ...): plain data, and long `texts` by name."""
        ...


@dataclass(frozen=True)
class Tried:
    """What one attempt at a search problem came to: a program, and plain data beside it."""

    code: str  # empty: no answer
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One graded attempt at a search problem. Journaled: a resumed search takes it over."""

    problem_id: str
    code: str
    passed: bool  # all official tests of the problem
    share: float  # of these tests that passed, in [0, 1]
    detail: str  # why it did not pass: verdict and message
    facts: Mapping[str, Any]  # what the attempt told beside its program
    calls: int
    tokens: float | None
    usd: float | None  # as asked anew
    wall_s: float


class FitContext(Protocol):
    """A method's view while it searches or learns, on problems that no evaluation list has.

    `ask`, `note`, `rng` and the rest are as in `Context`, for calls that belong to no problem.
    Killed at any moment, the same search goes on: replies and trials of before are taken over, so
    what `fit` does has to follow from those and from `rng` alone.
    """

    rng: random.Random
    round: int | None
    level: Level
    sampling: Mapping[str, Sampling]

    @property
    def nodes(self) -> Mapping[str, str]: ...

    @property
    def spent(self) -> Spent:
        """What the whole search has used so far."""
        ...

    async def ask(
        self, messages: str | Sequence[Message], role: str = "worker", **sampling: Any
    ) -> Completion: ...

    def is_greedy(self, role: str = "worker") -> bool: ...

    async def embed(self, texts: Sequence[str]) -> list[list[float]]: ...

    async def attempt(
        self, problem: Problem, label: str, work: Callable[[Context], Awaitable[Tried]]
    ) -> Trial:
        """Do `work` on a search problem, then grade its program on all official tests.

        `label` names the attempt ("round 3, run 2"): with the problem, once per search. Any number
        may be awaited at once; as many run as the models answer. A request that was rejected is a
        trial that did not pass. Raises what ends a run: ModelRefused, BudgetReached,
        ModelUnavailable, SandboxError.
        """
        ...

    def note(
        self, kind: str, *, texts: Mapping[str, str | None] | None = None, **fields: Any
    ) -> None:
        """Add a record to the search's journal. Kinds that are drawn, as trees and curves:

        `node`: number, parent (a number or None), label, score in [0, 1] or None, low and high
        (of its interval, or None), error; texts workflow, prompts, reply. `step`: number, and any
        numbers by name (loss, utility, ...).
        """
        ...


@dataclass(frozen=True)
class Preset:
    """Named settings of a method, as a paper or a release has them. What is given goes before."""

    summary: str
    knobs: Mapping[str, Any] = field(default_factory=dict)
    protocol: Protocol_ | None = None
    sampling: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by role, by setting


Solve = Callable[..., Awaitable[Solution]]
Fit = Callable[..., Awaitable[Mapping[str, Any]]]
Knobs = Mapping[str, Any]
Calls = Mapping[str, tuple[int, int]]  # {role: (few, many)} model calls


@dataclass(frozen=True)
class Method:
    """One line of the leaderboard: a `solve` and what the harness must know about it.

    `solve(problem, ctx, **knobs) -> Solution`; the knobs are its keyword-only arguments. A method
    that searches or learns first has `fit(problems, ctx, **knobs)`, which returns plain data (JSON)
    that `solve` finds as `ctx.artifact`; a knob of both has one default.
    """

    name: str
    solve: Solve
    summary: str  # one line, with the paper
    level: Level  # the highest level that it makes use of
    calls: Callable[[Knobs], Calls]  # knobs -> what a sample usually takes, for the dry run
    roles: tuple[str, ...] = ("worker",)
    sampling: Mapping[str, Sampling] = field(default_factory=dict)  # the paper's, by role
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # of numeric knobs
    paper: Mapping[str, str] = field(default_factory=dict)
    # knob -> what paper or release have, in words: "4 (paper); 3 (AFlow's version for code)"
    presets: Mapping[str, Preset] = field(default_factory=dict)
    fit: Fit | None = None
    fits: Callable[[Knobs], bool] = lambda knobs: True  # whether these knobs need the fit
    fit_calls: Callable[[Knobs, int], Calls] = lambda knobs, problems: {}
    # knobs, search problems -> what the whole search usually takes
    level_of: Callable[[Knobs], Level] | None = None  # the level with these knobs; None: `level`
    peers: Callable[[Knobs], bool] = lambda knobs: False  # whether `solve` uses `ctx.peer()`
    settle: Callable[[Knobs, Callable[[str], bool]], Mapping[str, Any]] | None = None
    # (knobs, whether weights of that name are here) -> knobs to set: what an "auto" comes to
    nodes: bool = False  # its workflows may use further roles, named by --role NAME=MODEL
    matches: bool = False  # it takes knob `match`, a run whose calls and tokens it may use as well

    def knobs_of(self, function: Callable[..., Any] | None) -> dict[str, inspect.Parameter]:
        """The knobs of `solve` or `fit`, by name."""
        if function is None:
            return {}
        parameters = inspect.signature(function, eval_str=True).parameters
        return {n: p for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}

    def given_to(self, function: Callable[..., Any] | None, knobs: Knobs) -> dict[str, Any]:
        """Those of all knobs that `solve` or `fit` takes."""
        return {name: knobs[name] for name in self.knobs_of(function)}
