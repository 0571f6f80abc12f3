"""One sample's view of the world: every model call, feedback test and workflow goes through it.

It journals each call (failed attempts too), retries what is worth retrying, prices it, keeps to the
budget, and gives back replies that were already paid for: by an earlier, interrupted process of the
same run (its journal), or by any run that asked the same (the reply cache). The method sees none of
that.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import (
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from typing import Any

from harness.budget import Budget, Expectation, unknown_sum
from harness.errors import (
    ModelError,
    ModelRefused,
    ModelUnavailable,
    RateLimited,
    RequestRejected,
    UsageError,
)
from harness.grade import Report
from harness.journal import Journal, canonical, digest
from harness.models.wire import clean
from harness.pacer import RETRY_AFTER_MAX_S
from harness.pacing import Gate, backoff_s
from harness.replies import Kept, ReplyCache, reply_key
from harness.sandbox import Sandbox
from harness.types import (
    About,
    Completion,
    Contract,
    Feedback,
    Level,
    Message,
    Operator,
    Problem,
    Sampling,
    Spent,
    WorkflowLimits,
    WorkflowRun,
)
from harness.workflow import NODE, execute

ATTEMPTS = 5  # requests for one call before its sample is given up
LIMITED_ATTEMPTS = 60  # the same for 429, after which all requests wait until the pacer lets one go


TOLD = (Level.L1, Level.L3)  # levels that may see what a feedback test says


class _Cancelled(ModelError):
    kind = "cancelled"


@dataclass(frozen=True)
class Price:
    """What one answer cost here, and what it costs when it is asked for. None: unknown."""

    fresh_usd: float | None
    cached: bool = False

    @property
    def paid_usd(self) -> float | None:
        return 0.0 if self.cached else self.fresh_usd


@dataclass
class Totals:
    """What one sample has used. None: some part is unknown."""

    calls: int = 0
    cached_calls: int = 0  # of these, answered without paying
    prompt_tokens: float | None = 0
    completion_tokens: float | None = 0
    cost_usd: float | None = 0.0  # paid
    fresh_cost_usd: float | None = 0.0  # as if nothing had been answered from a cache
    rounds: int = 0

    def add(self, completion: Completion, price: Price) -> None:
        self.calls += 1
        self.cached_calls += price.cached
        self.prompt_tokens = unknown_sum((self.prompt_tokens, completion.prompt_tokens))
        self.completion_tokens = unknown_sum((self.completion_tokens, completion.completion_tokens))
        self.cost_usd = unknown_sum((self.cost_usd, price.paid_usd))
        self.fresh_cost_usd = unknown_sum((self.fresh_cost_usd, price.fresh_usd))

    def lose(self, cost_usd: float | None) -> None:
        """A request was given up in flight: what it took is unknown, unless it was free."""
        self.prompt_tokens = self.completion_tokens = None
        if cost_usd != 0:
            self.cost_usd = self.fresh_cost_usd = None

    @property
    def spent(self) -> Spent:
        tokens = unknown_sum((self.prompt_tokens, self.completion_tokens))
        return Spent(self.calls, tokens, self.fresh_cost_usd)


@dataclass(frozen=True)
class _Call:
    """One call as asked: who, what, how, and the fields that all its records share."""

    role: str
    gate: Gate
    chat: Sequence[Message]
    settings: Sampling
    seed: int | None
    about: About
    record: dict[str, Any]


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
    price: Price
    ended_at: float  # unix seconds
    latency_s: float


def _view(result_key: str, about: str | None) -> str:
    """What tells a sample's own calls from those at another problem."""
    return result_key if about is None else f"{result_key}@{about}"


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
                    record.get("served_by"),
                )
                sample = _view(record["result_key"], record.get("about"))
                key = sample, record["request_sha"], record.get("occurrence", 0)
                cached = bool(record.get("cached"))
                fresh = record["fresh_cost_usd"] if cached else record["cost_usd"]
                self._replies[key] = Paid(
                    completion, Price(fresh, cached), record["at"], record["latency_s"]
                )

    def take(self, result_key: str, request_sha: str, occurrence: int) -> Paid | None:
        """The reply to the n-th equal request of this sample, if one was recorded."""
        return self._replies.pop((result_key, request_sha, occurrence), None)


class Aids:
    """The small models beside the worker, for methods that rank or embed; none are here."""

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        raise UsageError("sentence embeddings are not set up here")

    async def compare(self, source: str, candidates: Sequence[str]) -> list[list[float]]:
        raise UsageError("PairRM is not set up here")


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
    replies: ReplyCache
    expected: dict[str, Expectation]  # by role, what its next request will take
    feedback_tests: Sequence[str]  # each as text; only a level that may see it gets it
    run_tests: Callable[[str], Awaitable[Report]]  # runs them on a program
    workflow_limits: WorkflowLimits = field(default_factory=WorkflowLimits)
    artifact: Mapping[str, Any] | None = None
    node_roles: Sequence[str] = ("worker",)  # whose models a workflow's node may ask for
    aids: Aids = field(default_factory=Aids)
    seat: Callable[[SampleContext], SampleContext] | None = None  # makes the peer's view
    owner: SampleContext | None = None  # whose view this is, at another problem
    round: int | None = None
    totals: Totals = field(default_factory=Totals)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    def __post_init__(self) -> None:
        identity = f"{self.seed}/{self.problem.problem_id}/{self.sample}"
        self.rng = random.Random(int(digest(identity)[:16], 16))
        self._asked: Counter[str] = Counter()
        self._feedback: dict[str, Feedback] = {}
        self._finished = False
        self.programs: list[tuple[int, str]] = []  # (round, program) as the method noted them
        # a view at another problem is a part of the same sample
        self._numbers: Iterator[int] = self.owner._numbers if self.owner else itertools.count(1)
        self._asking: set[asyncio.Task[Any]] = self.owner._asking if self.owner else set()

    async def finish(self, *, wait: bool = False) -> None:
        """Take no further call; cancel what the method left in flight, or `wait` for it.

        Idempotent.
        """
        self._finished = True
        left = self._asking - {asyncio.current_task()}
        if not wait:
            for task in left:
                task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def at(
        self,
        problem: Problem,
        feedback_tests: Sequence[str],
        run_tests: Callable[[str], Awaitable[Report]],
    ) -> SampleContext:
        """This sample's view of another problem: its calls and records are this sample's.

        What it asks is what a sample of that problem asks, so kept replies serve both.
        """
        return replace(
            self,
            problem=problem,
            feedback_tests=feedback_tests,
            run_tests=run_tests,
            seat=None,
            owner=self,
        )

    def _key(self) -> dict[str, Any]:
        of = (self.owner or self).problem.problem_id
        key = {"result_key": self.result_key, "problem_id": of, "sample": self.sample}
        return key if self.owner is None else {**key, "about": self.problem.problem_id}

    async def ask(
        self, messages: str | Sequence[Message], role: str = "worker", **sampling: Any
    ) -> Completion:
        """Ask a role's model.

        Raises ModelRefused (ends the run), RequestRejected or ModelUnavailable (end this sample),
        BudgetReached.
        """
        if (self.owner or self)._finished:
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
        question = {"messages": chat, "sampling": settings.as_dict()}
        text = canonical({"model": gate.model.name, **question})
        occurrence = self._asked[text]
        self._asked[text] += 1
        seed = self._draw(canonical(question), occurrence) if settings.temperature > 0 else None
        request_sha = digest(text)
        call_no = next(self._numbers)
        view = _view(self.result_key, self._key().get("about"))
        paid = self.recorded.take(view, request_sha, occurrence)
        if paid is not None:
            if paid.completion.model:
                gate.served_by.add(paid.completion.model)
            self.totals.add(paid.completion, paid.price)
            self.stopwatch.add(paid.ended_at - paid.latency_s, paid.ended_at)
            return paid.completion
        self.journal.artifact(text)
        call = _Call(
            role=role,
            gate=gate,
            chat=chat,
            settings=settings,
            seed=seed,
            about=About(self.problem.problem_id, self.sample, role, occurrence),
            record={
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
                **NODE.get(),
            },
        )
        if not gate.model.cacheable:
            return (await self._request(call)).completion
        # where equal requests get equal answers, one answer serves them all
        draw = () if gate.model.repeats else (self.seed, self.sample, occurrence)
        key = reply_key(gate.identity, chat, settings, seed, draw)
        async with contextlib.AsyncExitStack() as stack:
            with self.stopwatch.turn():  # until nobody else is asking the same
                held = self.replies.claim(key, model=gate.model.name)
                claim = await stack.enter_async_context(held)
            if claim.kept is not None:
                return self._take(call, claim.kept)
            return (await self._request(call, claim.keep)).completion

    def _take(self, call: _Call, kept: Kept) -> Completion:
        """Account for an answer that another run paid for."""
        call.gate.proven = (
            True  # the model has answered: what it rejects from now on is one request
        )
        if kept.completion.model:
            call.gate.served_by.add(kept.completion.model)
        price = Price(call.gate.model.price(kept.completion), cached=True)
        self._journal_call({**call.record, "attempt": 1}, kept.completion, price, kept.latency_s)
        self.totals.add(kept.completion, price)
        self.stopwatch.add(kept.asked_at - kept.latency_s, kept.asked_at)
        return kept.completion

    async def _request(self, call: _Call, keep: Callable[[Kept], None] = lambda kept: None) -> Kept:
        """Ask until there is an answer, within the budget. Raises as `ask`.

        `keep` gets the answer before anything else is done with it.
        """
        model, expected = call.gate.model, self.expected[call.role]
        prompt, completion = expected.of(call.chat, call.settings)
        likely = Completion("", prompt, completion)
        usd = 0.0 if model.recorded or self.budget.usd is None else model.price(likely)
        failed = limited = 0
        async with contextlib.AsyncExitStack() as stack:
            with self.stopwatch.turn():
                async with self.budget.in_time():
                    held = self.budget.reserve(prompt + completion, usd)
                    await stack.enter_async_context(held)
            while True:
                try:
                    with self.stopwatch.turn() as begin:
                        async with contextlib.AsyncExitStack() as at_the_gate:
                            async with self.budget.in_time():
                                waiting = call.gate.admit(prompt + completion)
                                turn = await at_the_gate.enter_async_context(waiting)
                            begin()
                            kept = await self._attempt(call, failed + limited + 1, keep)
                            turn.answered(kept.completion, kept.latency_s)
                            return kept
                except ModelUnavailable as error:
                    busy = isinstance(error, RateLimited)
                    failed, limited = failed + (not busy), limited + busy
                    if failed == ATTEMPTS or limited == LIMITED_ATTEMPTS:
                        raise
                    asked_s = error.retry_after_s
                    if asked_s is not None and asked_s > min(
                        RETRY_AFTER_MAX_S, self.budget.left_s()
                    ):
                        raise
                if not busy:  # else the gate holds all requests back
                    async with self.budget.in_time():
                        await asyncio.sleep(backoff_s(failed) if asked_s is None else asked_s)

    async def _attempt(self, call: _Call, number: int, keep: Callable[[Kept], None]) -> Kept:
        """One request, journaled whatever comes of it."""
        self.budget.check()
        model, record = call.gate.model, {**call.record, "attempt": number}
        began = time.monotonic()
        try:
            completion = await model.complete(
                call.chat, call.settings, seed=call.seed, about=call.about
            )
        except asyncio.CancelledError:
            tokens, usd = self.budget.lose(model, call.chat, call.settings)
            self.totals.lose(usd)
            gone = _Cancelled("given up in flight")
            charged = {"charged_tokens": tokens, "charged_usd": usd}
            self._journal_error({**record, **charged}, gone, time.monotonic() - began)
            raise
        except (ModelRefused, RequestRejected, ModelUnavailable) as error:
            self._journal_error(record, error, time.monotonic() - began)
            raise
        kept = Kept(completion, time.time(), time.monotonic() - began)
        keep(kept)  # before anything that may fail: it is paid for
        price = Price(model.price(completion), cached=model.recorded)
        self._journal_call(record, completion, price, kept.latency_s)
        self.totals.add(completion, price)
        self.expected[call.role].learn(call.chat, completion)
        if not price.cached:
            self.budget.spend(completion, price.paid_usd)
        return kept

    @property
    def test_cases(self) -> tuple[str, ...]:
        """The text of each feedback test, where the level may see it."""
        return tuple(self.feedback_tests) if self.level in TOLD else ()

    @property
    def spent(self) -> Spent:
        """What this sample has used so far."""
        return self.totals.spent

    @property
    def nodes(self) -> Mapping[str, str]:
        """The models that a workflow's node may ask for, by role."""
        return {role: self.gates[role].model.name for role in self.node_roles}

    def peer(self) -> SampleContext:
        """This sample's view of another problem. Raises UsageError when there is none."""
        if self.seat is None:
            raise UsageError("this needs a run of at least two problems")
        return self.seat(self)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A sentence embedding of each text. Raises UsageError: not installed."""
        with self.stopwatch.turn():  # one machine computes those of all samples
            return await self.aids.embed(texts)

    async def compare(self, source: str, candidates: Sequence[str]) -> list[list[float]]:
        """PairRM's logits of all ordered pairs. Raises UsageError: no weights."""
        with self.stopwatch.turn():
            return await self.aids.compare(source, candidates)

    def is_greedy(self, role: str = "worker") -> bool:
        """Whether equal requests to this role get equal answers."""
        return self.sampling[role].temperature == 0 and not self.gates[role].model.samples_always

    def _draw(self, request: str, occurrence: int) -> int:
        """A seed for one sampled call: the same in every process that gets to this call."""
        parts = f"{self.seed}/{self.problem.problem_id}/{self.sample}/{occurrence}/{request}"
        return int(digest(parts)[:8], 16) >> 1

    def _journal_call(
        self, record: dict[str, Any], completion: Completion, price: Price, latency_s: float
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
            cached=price.cached,
            cost_usd=price.paid_usd,
            fresh_cost_usd=price.fresh_usd,
            latency_s=round(latency_s, 3),
            error=None,
            error_kind=None,
        )

    def _journal_error(self, record: dict[str, Any], error: ModelError, latency_s: float) -> None:
        unknown = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")
        self.journal.write(
            "call",
            **record,
            **dict.fromkeys((*unknown, "response_sha", "finish", "cost_usd", "fresh_cost_usd")),
            cached=False,
            latency_s=round(latency_s, 3),
            error=str(error),
            error_kind=error.kind,
        )

    async def run_feedback(self, code: str) -> Feedback:
        """Run the protocol's feedback tests on a program; the same program is run once.

        Raises SandboxError.
        """
        if not self.feedback_tests or self.level is Level.L0:
            return Feedback(None, 0, 0)
        sha = digest(code)
        if sha not in self._feedback:
            report = await self.run_tests(code)
            total = len(self.feedback_tests)
            told = self.level in TOLD
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
        self,
        code: str,
        prompts: str,
        *,
        operators: Mapping[str, Operator],
        contract: Contract = "workflow",
        limits: WorkflowLimits | None = None,
    ) -> WorkflowRun:
        """Run model-written workflow code outside our process; errors come back as data."""
        run = await execute(
            self.sandbox,
            self,
            code,
            prompts,
            operators=operators,
            test_cases=self.test_cases,
            contract=contract,
            limits=limits or self.workflow_limits,
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
            if code := (texts or {}).get("code"):
                self.programs.append((fields["round"], code))
        self.journal.write(kind, **self._key(), **fields, **shas)
