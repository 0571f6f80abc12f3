"""A model's rate limits, and when the next request fits into them.

`Pacer` is told of every request that goes out and of what came back. It learns the limits from
headers, from Retry-After, or from nothing but the refusals (429). Two kinds of servers are known: a
bucket that refills evenly, and a window at the end of which all is back at once. Of a server that
never refuses and tells no limits, no wait is asked for at all.

It neither sleeps nor knows of asyncio. Times are seconds of the clock that it is given.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import RateLimited
from harness.types import Completion, Limits

Clock = Callable[[], float]

RETRY_AFTER_MAX_S = 600.0  # a server that wants a longer pause gets none: the sample is given up
MINUTE_S = 60.0  # what rate limits are counted by, where a server does not say otherwise
LEAST_GUESS = 0.5  # requests a second: the slowest pace that a first guess begins with
BARE_HOLD_S = 0.5  # pause after a 429 that names none
PROOF = 3  # refusals, and as many as answers, that make a limit
CLOSER = 0.1  # share of the time it has been refusing after which a silent server is tried again


class _Allowance:
    """What a server lets through of one thing (requests, tokens), as far as it is known.

    A bucket refills at `rate` per second up to `size`; a window gives `size` back at `back_at`.
    """

    def __init__(self) -> None:
        self.known = False
        self.told = False  # by headers; else guessed from refusals
        self.size = math.inf
        self.level = math.inf  # what may be sent now; below 0 when more was sent than there was
        self.rate = math.inf
        self.told_rate = math.inf
        self.back_at: float | None = None  # set: a window
        self.closed = False  # nothing goes through: one at a time, to find out when it does
        self.at = 0.0  # of `level`
        self.turned_at = -math.inf  # when the last window ended
        self._full_at: float | None = None  # as last told
        self._votes = 0  # above 0: its reports are those of a window

    def bucket(self, rate: float, size: float, now: float, level: float = 0.0) -> None:
        self.known, self.back_at = True, None
        self.rate, self.size, self.level, self.at = rate, max(size, 1.0), level, now

    def window(self, size: float, back_at: float, now: float, level: float = 0.0) -> None:
        self.known, self.back_at = True, back_at
        self.size, self.level, self.at = max(size, 1.0), level, now
        self.rate = self.size / MINUTE_S

    def advance(self, now: float) -> None:
        """Bring the level up to the time `now`."""
        if not self.known:
            return
        if self.back_at is None:
            if now > self.at:
                most = 1.0 if self.closed else self.size
                self.level = min(most, self.level + (now - self.at) * self.rate)
        elif now >= self.back_at:
            self.turned_at = self.back_at
            while self.back_at <= now:
                self.back_at += MINUTE_S
            # one more than was let through before, so that a larger allowance is found out
            self.level = self.size + (0 if self.told else 1)
            self._full_at = None
        self.at = max(self.at, now)

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be sent; 0.0: now."""
        if not self.known:
            return 0.0
        self.advance(now)
        amount = min(amount, self.size)
        if self.level >= amount - 1e-6:
            return 0.0
        if self.back_at is not None:
            return self.back_at - now
        return (amount - self.level) / max(self.rate, 1e-6)

    def tell(
        self,
        limit: float | None,
        left: float | None,
        reset_s: float | None,
        *,
        sent_at: float,
        since: float,
        now: float,
    ) -> None:
        """Take a report; `since` is what was sent after the request that it came beside.

        (limit - left) / reset_s is the rate of a bucket. It is a window if that rate changes and
        the time at which all is back does not.
        """
        if limit is None or left is None or limit <= 0:
            return
        self.advance(now)
        if sent_at < self.turned_at:  # of the window before
            return
        used = max(0.0, limit - left)
        if reset_s is not None and reset_s > 0 and used > 0:
            if self._full_at is not None and self.told_rate < math.inf:
                as_bucket = abs(reset_s - used / self.told_rate)
                as_window = abs(now + reset_s - self._full_at)
                if abs(as_bucket - as_window) > 0.5:  # resets may be whole seconds
                    self._votes += 1 if as_window < as_bucket else -1
                    self._votes = max(-3, min(3, self._votes))
            full_at = now + reset_s
            if self._votes > 0:
                if self._full_at is not None and full_at - self._full_at < MINUTE_S / 4:
                    full_at = min(full_at, self._full_at)
                self.back_at = full_at
                self.rate = self.told_rate = limit / MINUTE_S
            else:
                shared = self.rate / self.told_rate if self.told else 1.0
                self.back_at = None
                self.told_rate = used / reset_s
                self.rate = min(1.0, shared) * self.told_rate
            self._full_at = full_at
        if math.isinf(self.rate):  # nothing used yet, or no reset told
            self.rate = limit / MINUTE_S
        low = left - since
        high = low if self.back_at is not None else low + self.rate * (now - sent_at)
        self.level = min(max(self.level if self.told else -math.inf, low), high)
        self.known = self.told = True
        self.size, self.at = limit, now


@dataclass(slots=True)
class Ticket:
    """One request that went out."""

    number: int  # 1, 2, ... in the order in which they were sent
    at: float
    tokens: int  # as estimated
    tokens_sent: float  # by all requests up to this one


@dataclass(slots=True)
class _Refusal:
    """The first request of a burst that was refused."""

    ticket: Ticket
    newest: int  # number of the last request that was sent before it was known
    retry_after_s: float | None
    known_at: float


class Pacer:
    """How many requests and tokens may be sent to one model, per time.

    Where headers tell the limits, it keeps to them. Where they do not, it learns from refusals:

    - one refusal among many answers is an accident: the others go on after a short pause;
    - when most requests after a refusal are refused too, there is a limit. A long Retry-After says
      that it is a window; else it is first taken for a bucket of one minute, and for a window when
      it stays closed for longer than such a bucket would;
    - from then on, what was let through between two refusals is the rate. It is tried a little
      faster as long as nothing is refused.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self.requests = _Allowance()
        self.tokens = _Allowance()
        self.refusing_since: float | None = None  # set while nothing was answered since a refusal
        self._number = 0
        self._tokens_sent = 0.0
        self._began: float | None = None
        self._active = False  # there is something to wait for
        self._hold_until = -math.inf
        self._refusal: _Refusal | None = None  # the first of the latest burst of refusals
        self._lost = 0  # refused since the one before
        self._suspects: list[Ticket] = []  # refused, and not known yet whether by accident
        self._recent: deque[int] = deque(maxlen=128)  # numbers of the latest answers
        self._last = Ticket(0, -math.inf, 0, 0.0)  # the last request that was refused
        self.limited = False  # refusals mean a limit
        self._measured = False  # its rate was measured, not guessed
        self._faster = 1.01  # what the pace is multiplied with next
        self._closed = 0  # refusals with nothing let through between them
        self._burst = 0.0  # let through before the last refusal
        self._streak = 0  # accepted since the pace was last changed
        self._beyond = 0  # number of the last request of what a window is known to let through
        self._asked_s: float | None = None  # the longest Retry-After of the suspects
        self._proof = PROOF  # refusals that it takes to believe in a limit
        self._guess = 0.0  # the rate at first
        self._waited = False  # the pace, not a lack of requests, decided when they were sent

    @property
    def told(self) -> bool:
        """Whether headers tell the limits."""
        return self.requests.told or self.tokens.told

    @property
    def probing(self) -> bool:
        """Whether requests go out one at a time only to find out when the server takes them."""
        return self.requests.closed

    @property
    def per_minute(self) -> float | None:
        """Requests a minute as they are let out; None: no limit is known."""
        return self.requests.rate * MINUTE_S if self.requests.known else None

    def wait_s(self, tokens: int = 0) -> float:
        """Seconds until a request of so many tokens may go out; 0.0: now."""
        if not self._active:
            return 0.0
        now = self.clock()
        wait = max(
            self._hold_until - now, self.requests.wait_s(1, now), self.tokens.wait_s(tokens, now)
        )
        if wait <= 0:
            return 0.0
        self._waited = True
        return wait

    def send(self, tokens: int = 0) -> Ticket:
        """Count a request as sent, now."""
        now = self.clock()
        if self._began is None:
            self._began = now
        self._number += 1
        self._tokens_sent += tokens
        if self._active:
            self.requests.level -= 1
            self.tokens.level -= tokens
            if self.requests.level < 1:
                self._beyond = self._number
        return Ticket(self._number, now, tokens, self._tokens_sent)

    def unsent(self, ticket: Ticket) -> None:
        """Take a request back that never went out."""
        self.requests.level += 1
        self.tokens.level += ticket.tokens
        self._tokens_sent -= ticket.tokens

    def answered(self, ticket: Ticket, completion: Completion) -> None:
        """Learn from an answer: its headers, the tokens that it really took, that there is one."""
        self._recent.append(ticket.number)
        if completion.limits is None and not self._active:
            return
        used = completion.prompt_tokens, completion.completion_tokens
        if self.tokens.known and used[0] is not None and used[1] is not None:
            more = used[0] + used[1] - ticket.tokens
            self.tokens.level -= more
            self._tokens_sent += more
        if completion.limits is not None:
            self.tell(ticket, completion.limits)
        self._accepted(ticket)

    def tell(self, ticket: Ticket, limits: Limits) -> None:
        """Take the limits that came beside an answer or a failure."""
        self._active = True
        now = self.clock()
        self.requests.tell(
            limits.requests,
            limits.requests_left,
            limits.requests_reset_s,
            sent_at=ticket.at,
            since=self._number - ticket.number,
            now=now,
        )
        self.tokens.tell(
            limits.tokens,
            limits.tokens_left,
            limits.tokens_reset_s,
            sent_at=ticket.at,
            since=self._tokens_sent - ticket.tokens_sent,
            now=now,
        )

    def refused(self, ticket: Ticket, error: RateLimited) -> None:
        """Learn from a 429: hold all requests back, and find out for how long."""
        if error.limits is not None:
            self.tell(ticket, error.limits)
        asked_s = error.retry_after_s
        if asked_s is not None and asked_s > RETRY_AFTER_MAX_S:
            return  # nobody waits for that
        now = self.clock()
        self._active = True
        if self.refusing_since is None:
            self.refusing_since = ticket.at
        if ticket.number > self._last.number:
            self._last = ticket
        if not self.limited:
            self._hold(now + (BARE_HOLD_S if asked_s is None else asked_s))
            self._suspects.append(ticket)
            self._asked_s = max(self._asked_s or 0.0, asked_s) if asked_s is not None else None
            self._judge(now)
            return
        self._hold(now + (asked_s or 0.0))
        before = self._refusal
        assert before is not None
        if ticket.number <= before.newest:  # of the same burst
            self._lost += 1
            if asked_s is not None:
                before.retry_after_s = max(asked_s, before.retry_after_s or 0.0)
                self._reopens(before, now)
            return
        self._refusal = _Refusal(ticket, self._number, asked_s, now)
        self._measure(before, self._refusal, now, told=error.limits is not None)
        self._lost = 0

    def _judge(self, now: float) -> None:
        """Whether refusals are accidents, or there is a limit: by what became of later requests."""
        first = min(self._suspects, key=lambda ticket: ticket.number)
        refused = len(self._suspects)
        accepted = sum(number > first.number for number in self._recent)
        if accepted >= 4 + 2 * refused:
            self._suspects.clear()
            self._hold_until = -math.inf
        elif refused >= max(self._proof, accepted * self._proof / PROOF):
            self._refusal = _Refusal(first, self._number, self._asked_s, now)
            self._lost = refused - 1
            self._suspects.clear()
            self._limit(self._refusal, now)

    def _hold(self, until: float) -> None:
        self._hold_until = max(self._hold_until, until)

    def _limit(self, refusal: _Refusal, now: float) -> None:
        """Refusals are no accident: guess the limit from what went through before the first."""
        self.limited = True
        began = self._began if self._began is not None else now
        elapsed = refusal.ticket.at - began
        self._burst = max(1.0, refusal.ticket.number - 1)
        if self.told:
            return
        rate = max(self._burst / (MINUTE_S + elapsed), LEAST_GUESS)
        self._guess, self._measured = rate, False
        self.requests.bucket(rate, self._burst / (1 + elapsed / MINUTE_S), now)
        self._reopens(refusal, now)

    def _reopens(self, refusal: _Refusal, now: float) -> None:
        """A Retry-After that no bucket of this rate would ask for is the end of a window."""
        if refusal.retry_after_s is None or self.told:
            return
        if refusal.retry_after_s > max(4 / self.requests.rate, 2.0):
            back_at = refusal.known_at + refusal.retry_after_s
            self.requests.window(self._burst, back_at, now)

    def _measure(self, before: _Refusal, refusal: _Refusal, now: float, *, told: bool) -> None:
        """Learn from what was let through between two refusals."""
        accepted = refusal.ticket.number - before.ticket.number - 1 - self._lost
        elapsed = refusal.ticket.at - before.ticket.at
        self._streak = 0
        if accepted > 0:
            self._burst, self._closed = float(accepted), 0
        if not (told and self.requests.level >= 1):  # else it was not requests that ran out
            self._pace(accepted, elapsed)
        if not self.limited:
            return
        allowance = self.requests
        if not told:  # by the refusal itself
            allowance.advance(now)
            allowance.level = min(allowance.level, 0.0)
        if allowance.back_at is not None and accepted > 0 and not allowance.told:
            allowance.size = accepted
        self._reopens(refusal, now)
        if accepted <= 0 and refusal.retry_after_s is None and self.refusing_since is not None:
            allowance.closed = True
            self._closed += 1
            slowly_s = min(4.0, 1 + 0.5 * self._closed) / allowance.rate
            until = now + max(slowly_s, CLOSER * (now - self.refusing_since))
            if self._began is not None and now < self._began + MINUTE_S < until:
                until = self._began + MINUTE_S  # when a window that began with us ends
            self._hold(until)

    def _pace(self, accepted: int, elapsed: float) -> None:
        """Move the rate of a bucket towards what was let through; the old one weighs 4 requests."""
        allowance = self.requests
        if not allowance.known or allowance.back_at is not None or accepted <= 0:
            return
        rate = (4 + accepted) / (4 / allowance.rate + elapsed)
        allowance.rate = min(rate, allowance.told_rate)
        if allowance.told:
            allowance.rate = max(allowance.rate, allowance.told_rate / 8)
        elif allowance.rate < self._guess / 4:  # slower is not better: no matter of pace
            self.limited, self._proof = False, 4 * PROOF
            self.requests = _Allowance()
            return
        self._measured, self._faster = True, 1.01

    def _accepted(self, ticket: Ticket) -> None:
        """A request was not refused."""
        refusal = self._refusal
        if self._suspects:
            self._judge(self.clock())
        if refusal is None or not self.limited or ticket.number < refusal.ticket.number:
            if ticket.number > self._last.number:
                self.refusing_since = None
            return
        closed_since = self.refusing_since
        allowance = self.requests
        allowance.closed = False
        if closed_since is not None:
            self.refusing_since = None if ticket.number > self._last.number else ticket.at
        now = self.clock()
        if allowance.told and allowance.back_at is not None:
            return
        if allowance.back_at is not None:
            if ticket.number == self._beyond:  # there is more than was known
                self._streak = max(1, 2 * self._streak)
                allowance.level += self._streak
                allowance.size += self._streak
            return
        if (
            closed_since is not None
            and ticket.number > self._last.number
            and refusal.retry_after_s is None
            and self._closed >= PROOF
            and (self._last.at - closed_since) * allowance.rate > 4
        ):  # no bucket stays closed for so long
            sent = self._number - ticket.number
            allowance.window(self._burst, ticket.at + MINUTE_S, now, self._burst - 1 - sent)
            return
        self._streak += 1
        if self._waited and self._streak >= (10 if self._measured else 4):
            if self._measured:  # bolder for as long as nothing is refused
                self._faster = min(1.25, 2 * self._faster - 1)
            faster = self._faster if self._measured else 1.25
            allowance.rate = min(allowance.rate * faster, allowance.told_rate)
            self._streak, self._waited = 0, False
