"""One sample's view of the world: every model call, feedback test and workflow goes through it.

It journals each call (failed attempts too), retries what is worth retrying, prices it, keeps to the
budget, and gives back replies that an earlier, interrupted process of the same run already paid
for. The method sees none of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from harness.errors import (
    BudgetReached,
    ModelError,
    ModelRefused,
    ModelUnavailable,
    RequestRejected,
)
from harness.grade import Report
from harness.journal import Journal, canonical, digest
from harness.models.wire import clean
from harness.sandbox import Sandbox
from harness.types import (
    Completion,
    Feedback,
    Level,
    Message,
    Model,
    Operator,
    Problem,
    Sampling,
    WorkflowRun,
)
from harness.workflow import WorkflowLimits, execute

ATTEMPTS = 5  # requests for one call before its sample is given up
BACKOFF_S = 1.0  # doubled each time, with jitter; a server's Retry-After counts for more
BACKOFF_MAX_S = 60.0
RETRY_AFTER_MAX_S = 600.0  # a server that wants a longer pause gets none: the sample is given up


def unknown_sum(values: Iterable[float | None]) -> float | None:
    """The sum, or None as soon as one part is unknown."""
    total: float = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


@dataclass
class Budget:
    """What a run may spend, all its processes together; None is no limit. Checked before each
    request, so the overspend is at most what was in flight."""

    usd: float | None = None
    tokens: int | None = None
    minutes: float | None = None
    spent_usd: float = 0.0
    spent_tokens: int = 0
    spent_minutes: float = 0.0  # by earlier processes
    started: float = field(default_factory=time.monotonic)

    def resume(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take over what earlier processes of the run spent, from their journal."""
        began: float | None = None
        last = 0.0
        for record in records:
            if record["kind"] == "session" and record["event"] == "start":
                self.spent_minutes += (last - began) / 60 if began is not None else 0.0
                began = record["at"]
            elif record["kind"] == "call" and record["error"] is None:
                self.spent_tokens += record["prompt_tokens"] or 0
                self.spent_tokens += record["completion_tokens"] or 0
                self.spent_usd += record["cost_usd"] or 0.0
            last = record["at"]
        self.spent_minutes += (last - began) / 60 if began is not None else 0.0

    def check(self) -> None:
        """Raise BudgetReached once a limit is spent."""
        minutes = self.spent_minutes + (time.monotonic() - self.started) / 60
        for name, spent, limit in (
            ("--budget-usd", self.spent_usd, self.usd),
            ("--budget-tokens", self.spent_tokens, self.tokens),
            ("--budget-minutes", minutes, self.minutes),
        ):
            if limit is not None and spent >= limit:
                raise BudgetReached(
                    f"{name} {limit:g} is spent; the same command with more of it goes on"
                )

    def left_s(self) -> float:
        """Seconds that --budget-minutes leaves."""
        if self.minutes is None:
            return float("inf")
        return 60 * (self.minutes - self.spent_minutes) - (time.monotonic() - self.started)

    def spend(self, completion: Completion, cost_usd: float | None) -> None:
        """Count one answer. Raises BudgetReached when what a limit counts is not known."""
        tokens = unknown_sum((completion.prompt_tokens, completion.completion_tokens))
        if tokens is None and self.tokens is not None:
            raise BudgetReached(
                "the server reports no token counts, so --budget-tokens cannot hold; "
                "use --budget-minutes"
            )
        if cost_usd is None and self.usd is not None:
            raise BudgetReached(
                "the price of a call is unknown, so --budget-usd cannot hold; use --budget-tokens"
            )
        self.spent_tokens += int(tokens or 0)
        self.spent_usd += cost_usd or 0.0


class Gate:
    """Admits requests to one model: `connections` at once, but one alone until it has answered.

    So a wrong key or name costs one request, however many samples are waiting.
    """

    def __init__(self, model: Model, connections: int | None = None) -> None:
        self.model = model
        self.connections = connections or model.connections
        self._slots = asyncio.Semaphore(self.connections)
        self.answered = False  # in this process; set by the caller with the first completion
        self.proven = False  # in this run: set when an earlier process had an answer
        self._first = asyncio.Lock()
        self._refused: ModelRefused | None = None

    @contextlib.asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """Wait for a slot. Raises ModelRefused at once when an earlier request was refused."""
        async with self._slots:
            alone = not self.answered
            if alone:
                await self._first.acquire()
                if self.answered:  # while this one waited
                    self._first.release()
                    alone = False
            try:
                if self._refused:
                    raise self._refused
                yield
            except RequestRejected as error:
                if self.answered or self.proven:
                    raise
                # nothing has succeeded: whatever is wrong is wrong with every request
                self._refused = ModelRefused(f"the first request was rejected: {error}")
                raise self._refused from error
            except ModelRefused as error:
                self._refused = error
                raise
            finally:
                if alone:
                    self._first.release()


class _Cancelled(ModelError):
    kind = "cancelled"


@dataclass
class Totals:
    """What one sample has used. None: some part is unknown."""

    calls: int = 0
    prompt_tokens: float | None = 0
    completion_tokens: float | None = 0
    cost_usd: float | None = 0.0
    rounds: int = 0

    def add(self, completion: Completion, cost_usd: float | None) -> None:
        self.calls += 1
        self.prompt_tokens = unknown_sum((self.prompt_tokens, completion.prompt_tokens))
        self.completion_tokens = unknown_sum((self.completion_tokens, completion.completion_tokens))
        self.cost_usd = unknown_sum((self.cost_usd, cost_usd))


class Stopwatch:
    """Seconds of a sample, less those in which all that it did was to wait for a turn at a model.

    So the time of a sample does not depend on how many others ran beside it.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._waited_s = 0.0
        self._before: list[tuple[float, float]] = []  # spent by earlier processes
        self._idle_since: float | None = None
        self._waiting = self._running = 0

    @contextlib.contextmanager
    def turn(self) -> Iterator[Callable[[], None]]:
        """Around one wait for a turn and the request after it; call the result when it begins."""
        began = False
        self._change(waiting=1)

        def begin() -> None:
            nonlocal began
            began = True
            self._change(waiting=-1, running=1)

        try:
            yield begin
        finally:
            self._change(**({"running": -1} if began else {"waiting": -1}))

    def _change(self, waiting: int = 0, running: int = 0) -> None:
        now = time.monotonic()
        if self._idle_since is not None:
            self._waited_s += now - self._idle_since
        self._waiting += waiting
        self._running += running
        self._idle_since = now if self._waiting and not self._running else None

    def add(self, start: float, end: float) -> None:
        """Count what an earlier process spent on this sample, calls beside each other once."""
        self._before.append((start, end))

    @property
    def seconds(self) -> float:
        """Seconds so far, all processes together."""
        total, reached = 0.0, 0.0
        for start, end in sorted(self._before):
            total += max(0.0, end - max(start, reached))
            reached = max(reached, end)
        return total + self.here_s

    @property
    def here_s(self) -> float:
        """Seconds so far in this process."""
        now = time.monotonic()
        idle_s = now - self._idle_since if self._idle_since is not None else 0.0
        return now - self._began - self._waited_s - idle_s


@dataclass(frozen=True)
class Paid:
    """A reply that an earlier process of this run already paid for."""

    completion: Completion
    cost_usd: float | None
    ended_at: float  # unix seconds
    latency_s: float


class Recorded:
    """Replies that earlier processes of this run journaled, by sample, request and occurrence."""

    def __init__(self, records: Iterable[Mapping[str, Any]]) -> None:
        texts: dict[str, str] = {}
        self._replies: dict[tuple[str, str, int], Paid] = {}
        for record in records:
            if record["kind"] == "artifact":
                texts[record["sha256"]] = record["text"]
            elif record["kind"] == "call" and record["error"] is None:
                text = texts.get(record["response_sha"])
                if text is None:  # its line is damaged: the call is made again
                    continue
                completion = Completion(
                    text,
                    record["prompt_tokens"],
                    record["completion_tokens"],
                    record["cached_tokens"],
                    record["reasoning_tokens"],
                    record["finish"],
                )
                key = record["result_key"], record["request_sha"], record.get("occurrence", 0)
                self._replies[key] = Paid(
                    completion, record["cost_usd"], record["at"], record["latency_s"]
                )

    def take(self, result_key: str, request_sha: str, occurrence: int) -> Paid | None:
        """The reply to the n-th equal request of this sample, if one was recorded."""
        return self._replies.pop((result_key, request_sha, occurrence), None)


@dataclass
class SampleContext:
    """Implements `harness.types.Context` for one sample of one run."""

    problem: Problem
    result_key: str
    sample: int
    seed: int
    level: Level
    sampling: Mapping[str, Sampling]
    gates: Mapping[str, Gate]
    journal: Journal
    sandbox: Sandbox
    budget: Budget
    recorded: Recorded
    feedback_tests: Sequence[str]  # each as text; only a level that may see it gets it
    run_tests: Callable[[str], Awaitable[Report]]  # runs them on a program
    workflow_limits: WorkflowLimits = field(default_factory=WorkflowLimits)
    round: int | None = None
    totals: Totals = field(default_factory=Totals)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    def __post_init__(self) -> None:
        identity = f"{self.seed}/{self.problem.problem_id}/{self.sample}"
        self.rng = random.Random(int(digest(identity)[:16], 16))
        self._asked: Counter[str] = Counter()
        self._feedback: dict[str, Feedback] = {}
        self._call_no = 0
        self._asking: set[asyncio.Task[Any]] = set()
        self._finished = False

    async def finish(self) -> None:
        """Cancel what the method left in flight, and take no further call. Idempotent."""
        self._finished = True
        left = self._asking - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _key(self) -> dict[str, Any]:
        problem_id = self.problem.problem_id
        return {"result_key": self.result_key, "problem_id": problem_id, "sample": self.sample}

    async def ask(
        self, messages: str | Sequence[Message], role: str = "worker", **sampling: Any
    ) -> Completion:
        """Ask a role's model.

        Raises ModelRefused (ends the run), RequestRejected or ModelUnavailable (end this sample),
        BudgetReached.
        """
        if self._finished:
            raise RuntimeError(f"{self.problem.problem_id}: a call after its sample was finished")
        task = asyncio.current_task()
        assert task is not None
        self._asking.add(task)
        try:
            return await self._ask(messages, role, sampling)
        finally:
            self._asking.discard(task)

    async def _ask(
        self, messages: str | Sequence[Message], role: str, sampling: dict[str, Any]
    ) -> Completion:
        given: Sequence[Message] = (
            [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        )
        # half a character, which a workflow's error text may hold, fits into no request
        chat: list[Message] = [{"role": m["role"], "content": clean(m["content"])} for m in given]
        settings = replace(self.sampling[role], **sampling)
        gate = self.gates[role]
        request = {"model": gate.model.name, "messages": chat, "sampling": asdict(settings)}
        text = canonical(request)
        occurrence = self._asked[text]
        self._asked[text] += 1
        seed = self._draw(text, occurrence) if settings.temperature > 0 else None
        request_sha = digest(text)
        self._call_no += 1
        call_no = self._call_no
        paid = self.recorded.take(self.result_key, request_sha, occurrence)
        if paid is not None:
            self.totals.add(paid.completion, paid.cost_usd)
            self.stopwatch.add(paid.ended_at - paid.latency_s, paid.ended_at)
            return paid.completion
        self.journal.artifact(text)
        common = {
            **self._key(),
            "call_no": call_no,
            "round": self.round,
            "role": role,
            "model": gate.model.name,
            "request_sha": request_sha,
            "occurrence": occurrence,
            "temperature": settings.temperature,
            "seed": seed,
            "max_tokens": settings.max_tokens,
        }
        for attempt in range(1, ATTEMPTS + 1):
            with self.stopwatch.turn() as begin:
                async with gate.admit():
                    begin()
                    outcome = await self._attempt(
                        gate, chat, settings, {**common, "attempt": attempt}
                    )
            if isinstance(outcome, Completion):
                return outcome
            if attempt == ATTEMPTS:
                raise outcome
            asked_s = outcome.retry_after_s
            if asked_s is not None and asked_s > min(RETRY_AFTER_MAX_S, self.budget.left_s()):
                raise outcome
            await asyncio.sleep(self._backoff_s(attempt) if asked_s is None else asked_s)
        raise AssertionError("unreachable")

    async def _attempt(
        self, gate: Gate, chat: Sequence[Message], settings: Sampling, record: dict[str, Any]
    ) -> Completion | ModelUnavailable:
        """One request, journaled. A failure that is worth another attempt is returned."""
        self.budget.check()
        began = time.monotonic()
        try:
            completion = await gate.model.complete(
                chat,
                max_tokens=settings.max_tokens,
                temperature=settings.temperature,
                top_p=settings.top_p,
                seed=record["seed"],
            )
        except asyncio.CancelledError:
            self._journal_error(record, _Cancelled("given up in flight"), time.monotonic() - began)
            self._lose(gate.model, chat, settings)
            raise
        except (ModelRefused, RequestRejected, ModelUnavailable) as error:
            self._journal_error(record, error, time.monotonic() - began)
            if isinstance(error, ModelUnavailable):
                return error
            raise
        gate.answered = True
        cost = gate.model.price(completion)
        self._journal_call(record, completion, cost, time.monotonic() - began)
        self.totals.add(completion, cost)
        self.budget.spend(completion, cost)
        return completion

    def _lose(self, model: Model, chat: Sequence[Message], settings: Sampling) -> None:
        """Account for a request whose answer nobody waits for: its tokens and dollars are unknown.

        The budget is charged the most that it can be: a token for each character, a full reply.
        """
        most = Completion("", sum(len(m["content"]) for m in chat), settings.max_tokens)
        cost = model.price(most)
        self.totals.prompt_tokens = self.totals.completion_tokens = None
        self.totals.cost_usd = self.totals.cost_usd if cost == 0 else None
        self.budget.spent_tokens += (most.prompt_tokens or 0) + (most.completion_tokens or 0)
        self.budget.spent_usd += cost or 0.0

    def is_greedy(self, role: str = "worker") -> bool:
        """Whether equal requests to this role get equal answers."""
        return self.sampling[role].temperature == 0 and not self.gates[role].model.samples_always

    def _draw(self, request: str, occurrence: int) -> int:
        """A seed for one sampled call: the same in every process that gets to this call."""
        parts = f"{self.seed}/{self.problem.problem_id}/{self.sample}/{occurrence}/{request}"
        return int(digest(parts)[:8], 16) >> 1

    @staticmethod
    def _backoff_s(attempt: int) -> float:
        longest: float = min(BACKOFF_S * 2.0 ** (attempt - 1), BACKOFF_MAX_S)
        return longest * random.uniform(0.5, 1.0)

    def _journal_call(
        self, record: dict[str, Any], completion: Completion, cost: float | None, latency_s: float
    ) -> None:
        self.journal.write(
            "call",
            **record,
            response_sha=self.journal.artifact(completion.text),
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            cached_tokens=completion.cached_tokens,
            reasoning_tokens=completion.reasoning_tokens,
            finish=completion.finish,
            served_by=completion.model,
            ignored=list(completion.ignored),
            cost_usd=cost,
            latency_s=round(latency_s, 3),
            error=None,
            error_kind=None,
        )

    def _journal_error(self, record: dict[str, Any], error: ModelError, latency_s: float) -> None:
        unknown = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")
        self.journal.write(
            "call",
            **record,
            **dict.fromkeys((*unknown, "response_sha", "finish", "cost_usd")),
            latency_s=round(latency_s, 3),
            error=str(error),
            error_kind=error.kind,
        )

    async def run_feedback(self, code: str) -> Feedback:
        """Run the protocol's feedback tests on a program; the same program is run once.

        Raises SandboxError.
        """
        if not self.feedback_tests:
            return Feedback(None, 0, 0)
        sha = digest(code)
        if sha not in self._feedback:
            report = await self.run_tests(code)
            total = len(self.feedback_tests)
            told = self.level in (Level.L1, Level.L3)
            errors = tuple(
                f"{test}: {verdict} {detail}".rstrip()[:400]
                for test, (verdict, detail) in zip(
                    self.feedback_tests, report.outcomes, strict=False
                )
                if told and not verdict.solved
            )
            if told and not report.outcomes:
                errors = (f"{report.verdict}: {report.detail}",)
            self._feedback[sha] = Feedback(
                report.passed / total, report.passed, total, errors, str(report.verdict)
            )
        feedback = self._feedback[sha]
        self.journal.write(
            "feedback",
            **self._key(),
            round=self.round,
            code_sha=self.journal.artifact(code),
            passed=feedback.passed,
            total=feedback.total,
            verdict=feedback.verdict,
            errors=list(feedback.errors),
        )
        return feedback

    async def run_workflow(
        self, code: str, prompts: str, *, operators: Mapping[str, Operator]
    ) -> WorkflowRun:
        """Run model-written workflow code outside our process; errors come back as data."""
        tests = self.feedback_tests if self.level in (Level.L1, Level.L3) else ()
        run = await execute(
            self.sandbox,
            self,
            code,
            prompts,
            operators=operators,
            test_cases=tests,
            limits=self.workflow_limits,
        )
        self.journal.write(
            "workflow",
            **self._key(),
            round=self.round,
            calls=run.calls,
            operators=list(run.operators),
            answer_sha=None if run.answer is None else self.journal.artifact(run.answer),
            error=run.error,
            error_class=run.error_class,
        )
        return run

    def note(
        self, kind: str, *, texts: Mapping[str, str | None] | None = None, **fields: Any
    ) -> None:
        """Journal a record of the method's own; each of `texts` is stored once as `<name>_sha`."""
        shas = {
            f"{name}_sha": None if text is None else self.journal.artifact(text)
            for name, text in (texts or {}).items()
        }
        if kind == "round":
            self.totals.rounds += 1
        self.journal.write(kind, **self._key(), **fields, **shas)
