"""What a run, or a whole suite, may spend: dollars, tokens, minutes.

Each request reserves what it will probably take before it is sent, so that at the limit no more
is in flight than fits; a request alone is sent as long as anything is left. What was in flight
when the limit fell is the most that can be overspent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import BudgetReached
from harness.journal import whole
from harness.types import Completion, Message, Model, Sampling

TOKENS_PER_CHARACTER = 1 / 3  # of a prompt, before a model has told better; few languages have more


def unknown_sum(values: Iterable[float | None]) -> float | None:
    """The sum, or None as soon as one part is unknown."""
    total: float = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


class Expectation:
    """What the next request to one role will take, from what its requests took so far."""

    def __init__(self) -> None:
        self._characters = self._tokens = 0
        self._longest: int | None = None  # completion so far

    def of(self, chat: Sequence[Message], sampling: Sampling) -> tuple[int, int]:
        """(prompt, completion) tokens: by this role's ratio, and its longest reply so far."""
        characters = sum(len(message["content"]) for message in chat)
        ratio = self._tokens / self._characters if self._characters else TOKENS_PER_CHARACTER
        longest = sampling.max_tokens if self._longest is None else self._longest
        return int(characters * ratio) + 1, min(longest, sampling.max_tokens)

    def learn(self, chat: Sequence[Message], completion: Completion) -> None:
        """Take an answer into account."""
        if completion.prompt_tokens:
            self._characters += sum(len(message["content"]) for message in chat)
            self._tokens += completion.prompt_tokens
        if completion.completion_tokens is not None:
            self._longest = max(self._longest or 0, completion.completion_tokens)


@dataclass
class Budget:
    """Limits, None is no limit; and what is spent, by all processes and runs that share it."""

    usd: float | None = None
    tokens: int | None = None
    minutes: float | None = None
    spent_usd: float = 0.0
    spent_tokens: int = 0
    spent_minutes: float = 0.0  # by earlier processes
    started: float = field(default_factory=time.monotonic)
    reserved_usd: float = 0.0
    reserved_tokens: int = 0
    in_flight: int = 0

    def __post_init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def resume(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take over what earlier processes of a run spent, from its journal."""
        seconds = began = last = 0.0
        for record in filter(whole, records):
            if record["kind"] == "session" and record["event"] == "start":
                seconds += max(0.0, last - began)  # of one that was killed
                began = last = record["at"]
            elif record["kind"] == "session" and record.get("elapsed_s") is not None:
                seconds += record["elapsed_s"]  # no clock of the day, which may be set or sleep
                began = last = record["at"]
            elif record["kind"] == "call" and record["error"] is None:
                if not record.get("cached"):
                    self.spent_tokens += record["prompt_tokens"] or 0
                    self.spent_tokens += record["completion_tokens"] or 0
                self.spent_usd += record["cost_usd"] or 0.0
            elif record["kind"] == "call":
                self.spent_tokens += record.get("charged_tokens") or 0
                self.spent_usd += record.get("charged_usd") or 0.0
            last = record.get("at", last)
        self.spent_minutes += (seconds + max(0.0, last - began)) / 60

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

    @contextlib.asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Around a wait: it ends where the minutes end. Raises BudgetReached."""
        if self.minutes is None:
            yield
            return
        try:
            async with asyncio.timeout(max(0.0, self.left_s())):
                yield
        except TimeoutError:
            self.check()
            raise

    @contextlib.asynccontextmanager
    async def reserve(self, tokens: int, usd: float | None) -> AsyncIterator[None]:
        """Hold what a request will probably take; wait while others hold too much of the rest.

        `usd` None (no price is known) reserves none. Raises BudgetReached once a limit is spent.
        """
        if self.usd is None and self.tokens is None:
            self.check()
            yield
            return
        while True:
            self.check()
            if not self.in_flight or self._fits(tokens, usd or 0.0):
                break
            settled = asyncio.get_running_loop().create_future()
            self._waiting.append(settled)
            await settled
        self.in_flight += 1
        self.reserved_tokens += tokens
        self.reserved_usd += usd or 0.0
        try:
            yield
        finally:
            self.in_flight -= 1
            self.reserved_tokens -= tokens
            self.reserved_usd -= usd or 0.0
            for one in self._waiting:
                if not one.done():  # nobody cancelled its waiter
                    one.set_result(None)
            self._waiting.clear()

    def _fits(self, tokens: int, usd: float) -> bool:
        held_tokens = self.spent_tokens + self.reserved_tokens + tokens
        held_usd = self.spent_usd + self.reserved_usd + usd
        return (self.tokens is None or held_tokens <= self.tokens) and (
            self.usd is None or held_usd <= self.usd
        )

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

    def lose(
        self, model: Model, chat: Sequence[Message], sampling: Sampling
    ) -> tuple[int, float | None]:
        """Charge a request whose answer nobody waits for the most that it can be; that much.

        (tokens, dollars): a token for each character, and a full reply; None: no price is known.
        """
        most = Completion("", sum(len(m["content"]) for m in chat), sampling.max_tokens)
        tokens = (most.prompt_tokens or 0) + (most.completion_tokens or 0)
        usd = 0.0 if model.recorded else model.price(most)
        self.spent_tokens += tokens
        self.spent_usd += usd or 0.0
        return tokens, usd
