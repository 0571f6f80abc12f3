"""When a request may go out: connections to a server, and the pace of a model.

`Gate` admits the requests to one model, first come first served. `Connections` says how many may
be at one server at once, `Pacer` (harness/pacer.py) when the rate limits let the next one through.
"""

from __future__ import annotations

import asyncio
import functools
import math
import random
import time
import weakref
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from harness.errors import (
    HarnessError,
    ModelError,
    ModelRefused,
    ModelUnavailable,
    RateLimited,
    RequestRejected,
)
from harness.pacer import RETRY_AFTER_MAX_S, Clock, Pacer, Ticket
from harness.types import Completion, Model

BACKOFF_S = 1.0  # the longest first wait after a failure; doubled each time
BACKOFF_MAX_S = 60.0
EASE_FROM = 32  # connections; what fewer can lose to a limit is not worth a wait
EASED_IN = 5  # answers per connection after which a refused burst would be a small part of all
EASE_STEP_S = 0.005  # those of so many seconds go together
REJECTIONS = 2  # so many requests rejected (400), and none answered, and the model is refused
SECOND_AFTER_S = 2.0  # when the first request takes longer, a second one may go out beside it


def backoff_s(attempt: int) -> float:
    """Seconds before another attempt after failure number `attempt` (1, 2, ...), full jitter.

    "Full jitter": uniform between nothing and a cap that doubles (AWS Architecture Blog,
    "Exponential Backoff And Jitter", 2015): those that failed together do not come back together.
    """
    return random.uniform(0.0, min(BACKOFF_S * 2.0 ** (attempt - 1), BACKOFF_MAX_S))


class Connections:
    """How many requests may be at one server at once: fixed, or grown while the server keeps up.

    It begins with `start`. Whenever all are in use and somebody waits, the median time per token
    of the latest answers is held against the one before the last growth: as long as the server
    answers more per second than before, there are more connections. They become fewer when it
    refuses or lets requests run out of time. Gates of models at one server share one object.
    """

    SETTLED = 8  # windows of answers until growth is tried again where it did not pay
    SLOW_S = 20.0  # a request that fails later than this may have run out of time
    FIXED_TOKENS = 50  # the part of a latency that every answer has, in tokens' worth

    def __init__(
        self,
        fixed: int | None = None,
        *,
        start: int = 16,
        most: int = 200,
        clock: Clock = time.monotonic,
    ) -> None:
        self.fixed = fixed is not None
        self.limit = fixed if fixed is not None else min(start, most)
        self.busy = 0
        self.most = max(self.limit, most)
        self.gates: list[Gate] = []
        self._clock = clock
        self._wanted = False  # somebody waited for one since the limit was last looked at
        self._changed_at = -math.inf  # answers to requests of before tell nothing of this limit
        self._sent = 0  # since then, with somebody waiting or not
        self._asked_until = math.inf  # when the last request was sent whose time counts
        self._times: list[float] = []  # seconds per token of the answers to those
        self._before: tuple[int, float] | None = None  # (limit, median) that growth is held against
        self._slowest = 0.0  # seconds, of late
        self._patience = self.SETTLED
        self._settled = 0  # windows without growth that are left

    def free(self) -> bool:
        """Whether one more may go out."""
        if self.busy < self.limit:
            return True
        self._wanted = True
        return False

    def take(self, now: float) -> None:
        """One goes out."""
        self.busy += 1
        self._sent += 1
        if self._sent == self._window:
            self._asked_until = now

    def release(self) -> None:
        """Give one back; whoever waits for it, at any gate, goes."""
        self.busy -= 1
        if len(self.gates) > 1:
            self.gates.append(self.gates.pop(0))
        for gate in self.gates:
            gate.pump()

    def answered(self, sent_at: float, latency_s: float, tokens: int | None, told: bool) -> None:
        """Learn from an answer; `told`: the pacer knows the rate limits, so growth is safe."""
        if self.fixed or not self._changed_at <= sent_at <= self._asked_until:
            return
        self._slowest = max(latency_s, 0.98 * self._slowest)
        self._times.append(latency_s / (self.FIXED_TOKENS + (tokens or 0)))
        if len(self._times) > self._window // 2:
            self._look(2.0 if told else 1.25)

    @property
    def _window(self) -> int:
        return max(16, self.limit // 2)

    def _look(self, growth: float) -> None:
        """Decide on the limit when half of the requests of a window have their answers.

        Waiting for all of them would be waiting for the slowest call.
        """
        median = sorted(self._times)[3 * len(self._times) // 4]
        self._begin()
        if not self._wanted:
            return
        self._wanted = False
        if self._settled:
            self._settled -= 1
            self._before = None
            return
        if self._before is None:
            self._before = self.limit, median
        grown, slower = self.limit / self._before[0], median / max(self._before[1], 1e-9)
        if slower > max(1.5, 1 + 0.54 * (grown - 1)):  # hardly more answers per second than before
            self._set(max(self._before[0], int(self.limit / slower)))
            self._before, self._settled = None, self._patience
            self._patience *= 2
            return
        if grown >= 2:
            self._before = self.limit, median
        self._set(math.ceil(self.limit * growth))

    def failed(self, sent_at: float) -> None:
        """A request failed: when it took far longer than answers do, the server is overloaded."""
        if self._clock() - sent_at > max(self.SLOW_S, 4 * self._slowest):
            self.overloaded(sent_at)

    def overloaded(self, sent_at: float) -> None:
        """Fewer, once for all requests that went out before this became known."""
        if self.fixed or sent_at < self._changed_at or 2 * self.busy < self.limit:
            return
        self._before, self._settled = None, 4
        self._set(int(self.limit * 0.75))

    def _set(self, limit: int) -> None:
        self.limit = min(max(1, limit), self.most)
        self._begin()

    def _begin(self) -> None:
        """Begin a new window of requests."""
        self._changed_at, self._asked_until, self._sent = self._clock(), math.inf, 0
        self._times.clear()


class Turn:
    """A request's stay at the gate: `async with gate.admit(tokens) as turn:` sends it inside."""

    __slots__ = ("_gate", "_ticket", "_tokens")

    def __init__(self, gate: Gate, tokens: int) -> None:
        self._gate, self._tokens = gate, tokens
        self._ticket: Ticket | None = None

    async def __aenter__(self) -> Turn:
        self._ticket = self._gate.enter(self._tokens) or await self._gate.wait(self._tokens)
        return self

    def answered(self, completion: Completion, latency_s: float) -> None:
        """Tell what came back, and after how many seconds."""
        assert self._ticket is not None
        self._gate.learn(self._ticket, completion, latency_s)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._ticket is not None
        self._gate.leave(self._ticket, error)


@dataclass(slots=True, eq=False)
class _Waiter:
    tokens: int
    turn: asyncio.Future[Ticket]
    back: bool  # it was refused before


class Gate:
    """Admits the requests to one model, in the order in which they ask, the refused ones first.

    One goes alone until the model has answered once, so a wrong key or name costs one request,
    however many wait. When that one takes long, a second one goes: one call that hangs holds
    nobody up, and a wrong key costs two requests at most.

    Then it eases in. As long as nobody knows whether the server limits requests, more than
    `EASE_FROM` of them are not sent in one go but spread over half a latency, as TCP paces its slow
    start: a refusal comes back sooner than an answer, and so finds most of them not sent yet.
    """

    def __init__(
        self, model: Model, connections: Connections | None = None, pacer: Pacer | None = None
    ) -> None:
        self.model = model
        self.connections = connections or Connections(
            start=model.connections, most=model.most_connections
        )
        self.pacer = pacer or Pacer()
        self.answered = False  # in this process
        self.proven = False  # in this run: set when an earlier process had an answer
        self.served_by: set[str] = set()  # model ids as the server reported them
        self._refused: ModelRefused | None = None
        self._rejected = 0  # requests, while none has succeeded
        self._out: dict[int, Ticket] = {}
        self._waiting: deque[_Waiter] = deque()
        # refused tasks, and from when they may ask again
        self._back: weakref.WeakKeyDictionary[asyncio.Task[Any], float] = (
            weakref.WeakKeyDictionary()
        )
        self._timer: asyncio.TimerHandle | None = None
        self._answers = 0
        self._quickest_s = math.inf  # latency
        self._easing = False
        self._next_at = -math.inf  # while it does
        self.connections.gates.append(self)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What tells the model from another; worked out once."""
        return self.model.identity()

    @property
    def limit(self) -> int:
        """How many requests may be at the model's server at once, now."""
        return self.connections.limit

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return sum(not waiter.turn.done() for waiter in self._waiting)

    @property
    def status(self) -> str:
        """A few words for the display: "12 of 32 in flight, 4 waiting, paced to 118/min"."""
        parts = []
        if self._out:
            parts.append(f"{len(self._out)} of {self.limit} in flight")
        if waiting := self.waiting:
            parts.append(f"{waiting} waiting")
        if per_minute := self.pacer.per_minute:
            parts.append(f"paced to {per_minute:.0f}/min")
        return ", ".join(parts)

    def admit(self, tokens: int = 0) -> Turn:
        """A turn for one request of about so many tokens, prompt and completion.

        Entering it waits for a connection and the pace. Raises ModelRefused at once when an earlier
        request was refused, RateLimited when the server has refused all requests for ten minutes
        or will for the next ten. Leaving it learns from what came of the request, and turns the
        RequestRejected of a model that never answered into ModelRefused. After RateLimited, enter
        again at once: the gate waits as long as the server asked, and lets it go first.
        """
        return Turn(self, tokens)

    def enter(self, tokens: int) -> Ticket | None:
        """Let a request out now, if nothing stands against it."""
        if self._refused:
            raise self._refused
        if self._waiting or self._back or self._blocked_s(tokens) > 0:
            return None
        return self._send(tokens)

    async def wait(self, tokens: int) -> Ticket:
        """Queue for a turn: behind those that were refused before, if this was not."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        due = self._back.pop(task, None) if task else None
        if due is not None:
            await asyncio.sleep(max(0.0, due - self.pacer.clock()))
        waiter = _Waiter(tokens, loop.create_future(), due is not None)
        if waiter.back and not self.pacer.probing:  # else another one tries
            place = 0
            while place < len(self._waiting) and self._waiting[place].back:
                place += 1
            self._waiting.insert(place, waiter)
        else:
            self._waiting.append(waiter)
        self.pump()
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled() and not waiter.turn.exception():
                ticket = waiter.turn.result()  # it had its turn, and did not take it
                self.pacer.unsent(ticket)
                self._release(ticket)
            else:
                self.pump()
            raise

    def pump(self) -> None:
        """Let out all that may go, and come back when the next one may."""
        while self._waiting:
            waiter = self._waiting[0]
            if waiter.turn.done():  # cancelled
                self._waiting.popleft()
                continue
            error = self._refused or self._hopeless()
            if error:
                self._waiting.popleft()
                waiter.turn.set_exception(error)
                continue
            blocked_s = self._blocked_s(waiter.tokens)
            if RETRY_AFTER_MAX_S < blocked_s < math.inf:
                self._waiting.popleft()
                waiter.turn.set_exception(self._too_long(blocked_s))
                continue
            if blocked_s > 0:
                self._come_back(blocked_s)
                return
            self._waiting.popleft()
            waiter.turn.set_result(self._send(waiter.tokens))

    def _blocked_s(self, tokens: int) -> float:
        """Seconds until a request may go, infinite when that is not a matter of time; 0.0: now."""
        if not self.answered and self._out:
            if len(self._out) > 1:
                return math.inf
            (first,) = self._out.values()
            if (left_s := first.at + SECOND_AFTER_S - self.pacer.clock()) > 0:
                return left_s
        if not self.connections.free():
            return math.inf
        blocked_s = self.pacer.wait_s(tokens)
        if self._easing and (left_s := self._next_at - self.pacer.clock()) > 0:
            return max(blocked_s, left_s, EASE_STEP_S)
        return blocked_s

    def _hopeless(self) -> RateLimited | None:
        """The error of requests that need not be sent any more."""
        since = self.pacer.refusing_since
        if since is None or self.pacer.clock() - since < RETRY_AFTER_MAX_S:
            return None
        minutes = RETRY_AFTER_MAX_S / 60
        return RateLimited(
            f"{self.model.name}: the server refused every request of the last {minutes:.0f} "
            "minutes (429); look at the account's limits, then run the same command again"
        )

    def _too_long(self, wait_s: float) -> RateLimited:
        return RateLimited(
            f"{self.model.name}: its rate limit lets the next request through in "
            f"{wait_s / 60:.0f} minutes; run the same command again then",
            retry_after_s=wait_s,
        )

    def _come_back(self, after_s: float) -> None:
        if math.isinf(after_s):
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + max(after_s, 0.001)
        if self._timer is not None:
            if self._timer.when() <= at and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer = loop.call_at(at, self._rung)

    def _rung(self) -> None:
        self._timer = None
        self.pump()

    def _send(self, tokens: int) -> Ticket:
        ticket = self.pacer.send(tokens)
        self.connections.take(ticket.at)
        self._out[ticket.number] = ticket
        if self._easing:
            apart_s = self._quickest_s / (2 * self.limit)
            self._next_at = max(self._next_at, ticket.at - 2 * EASE_STEP_S) + apart_s
        return ticket

    def learn(self, ticket: Ticket, completion: Completion, latency_s: float) -> None:
        """Take an answer in."""
        first, self.answered = not self.answered, True
        self._answers += 1
        self._quickest_s = min(self._quickest_s, latency_s)
        if completion.model:
            self.served_by.add(completion.model)
        self.pacer.answered(ticket, completion)
        self._easing = (
            self._answers < EASED_IN * self.limit
            and self.limit > EASE_FROM
            and not self.pacer.told
            and not self.pacer.limited
        )
        self.connections.answered(
            ticket.at, latency_s, completion.completion_tokens, self.pacer.told
        )
        if first:
            self.pump()

    def leave(self, ticket: Ticket, error: BaseException | None) -> None:
        """Learn from what went wrong, and give the connection back. Raises ModelRefused."""
        try:
            if isinstance(error, ModelError):
                self._failed(ticket, error)
            elif isinstance(error, HarnessError):  # a budget: nothing was sent
                self.pacer.unsent(ticket)
        finally:
            self._release(ticket)

    def _failed(self, ticket: Ticket, error: ModelError) -> None:
        if isinstance(error, RequestRejected) and not (self.answered or self.proven):
            self._rejected += 1
            if self._rejected >= REJECTIONS and len(self._out) == 1:
                # nothing has succeeded, or is about to: what is wrong is wrong with every request
                self._refused = ModelRefused(
                    f"the first {self._rejected} requests were rejected, and none has succeeded: "
                    f"{error}"
                )
                raise self._refused from error
        if isinstance(error, ModelRefused):
            self._refused = error
        elif isinstance(error, RateLimited):
            self.pacer.refused(ticket, error)
            self._easing = self._easing and not self.pacer.limited
            wait_s = error.retry_after_s or 0.0
            if (task := asyncio.current_task()) and wait_s <= RETRY_AFTER_MAX_S:
                self._back[task] = self.pacer.clock() + wait_s
            if not wait_s and self.pacer.limited and not self.pacer.told:  # or too many at once
                self.connections.overloaded(ticket.at)
        elif isinstance(error, ModelUnavailable):
            if error.limits is not None:
                self.pacer.tell(ticket, error.limits)
            self.connections.failed(ticket.at)

    def _release(self, ticket: Ticket) -> None:
        del self._out[ticket.number]
        self.connections.release()
