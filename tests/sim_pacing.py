"""Rate-limited servers in simulated time, and a table of what the gate makes of them.

    python tests/sim_pacing.py [--all]

Prints, for each kind of server, the requests sent and the seconds taken, both over those of the
best policy: one that knows the server's state. Nothing here sleeps or asks the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import math
import selectors
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from harness.errors import ModelUnavailable, RateLimited
from harness.pacer import Pacer
from harness.pacing import Connections, Gate
from harness.types import Completion, Limits, Model

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Lets the simulated time pass in place of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


def simulate(main: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """What a coroutine returns, and the simulated seconds that it took."""
    selector = _Selector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    try:
        return loop.run_until_complete(main), selector.now
    finally:
        loop.close()


@dataclass(frozen=True)
class Server:
    """A rate-limited server, and what stands in its headers."""

    kind: str = "bucket"  # or "window"
    per_minute: float = 120.0
    burst: float | None = None  # size of the bucket; None: a minute's worth
    ends_s: float = 40.0  # the first window ends after so many seconds
    window_s: float = 60.0
    latency_s: float = 0.2
    refusal_s: float | None = 0.02  # how long a 429 takes; None: as long as an answer
    says: str = "headers"  # or "retry-after" (whole seconds), "nothing"
    other: float = 0.0  # requests a minute of another client, evenly spaced
    tokens_per_minute: float | None = None
    tokens: int = 100  # of each answer, prompt included
    slots: int | None = None  # answers at once; the others wait
    jitter: float = 0.0  # latencies are spread evenly by this share of them, to both sides
    accident: float = 0.0  # share of requests that are refused for no reason


class Allowance:
    """The truth about one limit."""

    def __init__(self, server: Server, per_minute: float, other: float = 0.0) -> None:
        self.window = server.kind == "window"
        scale = server.window_s / 60 if self.window else 1.0
        self.size = per_minute * scale
        if not self.window and server.burst:
            self.size = server.burst
        self.rate = per_minute / 60
        self.left, self.at = self.size, 0.0
        self.ends, self.period = server.ends_s, server.window_s
        self.other_s = 60 / other if other else math.inf
        self.other_at = self.other_s

    def look(self, now: float) -> None:
        while self.other_at <= now:
            at = self.other_at
            self.other_at += self.other_s
            self._look(at)
            if self.left >= 1 or not self.window:
                self.left -= 1  # it gets its share of a bucket whatever we do
        self._look(now)

    def _look(self, now: float) -> None:
        if self.window:
            while now >= self.ends:
                self.left, self.ends = self.size, self.ends + self.period
        else:
            self.left = min(self.size, self.left + (now - self.at) * self.rate)
        self.at = max(now, self.at)

    def wait_s(self, amount: float) -> float:
        if self.left >= amount - 1e-6:
            return 0.0
        return self.ends - self.at if self.window else (amount - self.left) / self.rate

    def reset_s(self) -> float:
        return self.ends - self.at if self.window else (self.size - self.left) / self.rate


class Simulated(Model):
    """A model behind such a server; counts what it is sent."""

    def __init__(self, server: Server) -> None:
        self.name, self.server = "simulated/server", server
        self.requests = Allowance(server, server.per_minute, server.other)
        self.tokens = server.tokens_per_minute and Allowance(server, server.tokens_per_minute)
        self.sent = self.refused = self.busy = self.peak = 0
        self.free_at = [0.0] * (server.slots or 0)

    async def complete(self, *_: Any, **__: Any) -> Completion:
        server, now = self.server, asyncio.get_running_loop().time()
        self.sent += 1
        self.busy += 1
        self.peak = max(self.peak, self.busy)
        try:
            both = [(self.requests, 1)] + ([(self.tokens, server.tokens)] if self.tokens else [])
            for allowance, _amount in both:
                allowance.look(now)
            wait_s = max(allowance.wait_s(amount) for allowance, amount in both)
            accident = server.accident and (self.sent * 0.61803) % 1 < server.accident
            if wait_s == 0 and not accident:
                for allowance, amount in both:
                    allowance.left -= amount
            limits = self._limits() if server.says == "headers" else None
            if wait_s > 0 or accident:
                self.refused += 1
                took_s = server.latency_s if server.refusal_s is None else server.refusal_s
                await asyncio.sleep(took_s)
                after_s = math.ceil(max(wait_s, 0.01)) if server.says != "nothing" else None
                raise RateLimited("429", after_s, limits)
            queued_s = 0.0
            if self.free_at:
                queued_s = max(0.0, self.free_at[0] - now)
                heapq.heapreplace(self.free_at, now + queued_s + server.latency_s)
            spread = 1 + server.jitter * (2 * (self.sent * 0.754877 % 1) - 1)
            await asyncio.sleep(queued_s + server.latency_s * spread)
            return Completion("x", server.tokens // 2, server.tokens // 2, limits=limits)
        finally:
            self.busy -= 1

    def _limits(self) -> Limits:
        told: list[float | None] = []
        for allowance in (self.requests, self.tokens):
            if allowance:
                told += [allowance.size, math.floor(allowance.left), allowance.reset_s()]
            else:
                told += [None, None, None]
        return Limits(*told)

    def price(self, completion: Completion) -> float | None:
        return 0.0

    async def close(self) -> None:
        pass


def best_s(server: Server, samples: int, at_once: int) -> float:
    """Seconds of a policy that knows the server: one request alone, then each as soon as it may."""
    requests = Allowance(server, server.per_minute, server.other)
    tokens = server.tokens_per_minute and Allowance(server, server.tokens_per_minute)
    free = [server.latency_s] * at_once  # after the first
    end = 0.0
    for number in range(samples):
        now = max(requests.at, heapq.heappop(free)) if number else 0.0
        while True:
            both = [(requests, 1)] + ([(tokens, server.tokens)] if tokens else [])
            for allowance, _ in both:
                allowance.look(now)
            wait_s = max(allowance.wait_s(amount) for allowance, amount in both)
            if wait_s == 0:
                break
            now += wait_s + 1e-9
        for allowance, amount in both:
            allowance.left -= amount
        end = max(end, now + server.latency_s)
        if number:
            heapq.heappush(free, now + server.latency_s)
    return end


@dataclass(frozen=True)
class Outcome:
    sent: int
    wall_s: float
    errors: int  # calls that were given up
    peak: int
    best_s: float
    most_refusals: int  # of one call
    limit: int  # connections at the end


def play(server: Server, samples: int = 200, at_once: int = 64, *, fixed: bool = False) -> Outcome:
    """`samples` calls through a gate, retried as a run does it."""

    async def main() -> tuple[int, int, int, int, int]:
        clock = asyncio.get_running_loop().time
        model = Simulated(server)
        start = min(16, at_once)
        connections = (
            Connections(at_once, clock=clock)
            if fixed
            else Connections(start=start, most=at_once, clock=clock)
        )
        gate = Gate(model, connections, Pacer(clock))
        worst = 0

        async def call() -> bool:
            nonlocal worst
            for attempt in range(1, 21):
                try:
                    async with gate.admit(server.tokens) as turn:
                        began = clock()
                        completion = await model.complete()
                        turn.answered(completion, clock() - began)
                        return True
                except ModelUnavailable:
                    worst = max(worst, attempt)
            return False

        found = await asyncio.gather(*(call() for _ in range(samples)))
        return model.sent, found.count(False), model.peak, worst, connections.limit

    (sent, errors, peak, worst, limit), wall_s = simulate(main())
    return Outcome(sent, wall_s, errors, peak, best_s(server, samples, at_once), worst, limit)


def cases() -> list[tuple[Server, int, int, bool]]:
    """The variants of "120 requests a minute, 200 samples": (server, samples, at once, fixed)."""
    found = []
    for kind, says, latency in itertools.product(
        ("bucket", "window"), ("headers", "retry-after", "nothing"), (0.05, 0.2, 1.0, 5.0)
    ):
        server = Server(kind=kind, says=says, latency_s=latency)
        found.append((server, 200, 64, False))
    return found


def more() -> list[tuple[Server, int, int, bool]]:
    """Other limits, other latencies, more in flight, another client, tokens."""
    found = []
    base = [
        Server(kind=kind, says=says)
        for kind in ("bucket", "window")
        for says in ("headers", "retry-after", "nothing")
    ]
    for server in base:
        for per_minute in (30, 300, 1000):
            for latency in (0.05, 1.0, 5.0):
                changed = replace(server, per_minute=per_minute, latency_s=latency)
                samples = max(200, 2 * per_minute)
                found.append((changed, samples, 100, False))
        for at_once in (10, 200):
            found.append((server, 200, at_once, False))
            found.append((server, 200, at_once, True))
        found.append((replace(server, other=60), 200, 64, False))
        found.append((replace(server, refusal_s=None, latency_s=5.0), 200, 64, False))
        found.append((replace(server, ends_s=1.0), 200, 64, False))
        found.append((replace(server, burst=10.0), 200, 64, False))
        found.append((replace(server, per_minute=6000, tokens_per_minute=12_000), 200, 64, False))
    return found


def row(server: Server, samples: int, at_once: int, fixed: bool) -> str:
    found = play(server, samples, at_once, fixed=fixed)
    names = [f"{server.kind}", f"{server.per_minute:.0f}/min", server.says]
    names += [f"{server.latency_s} s", f"{at_once}{' fixed' if fixed else ''}"]
    notes = []
    if server.other:
        notes.append(f"other {server.other:.0f}/min")
    if server.refusal_s is None:
        notes.append("slow 429")
    if server.burst:
        notes.append(f"burst {server.burst:.0f}")
    if server.ends_s != Server.ends_s:
        notes.append(f"window ends at {server.ends_s:g} s")
    if server.tokens_per_minute:
        notes.append(f"{server.tokens_per_minute:.0f} tokens/min")
    over_sent, over_wall = found.sent / samples, found.wall_s / found.best_s
    good = over_sent <= 1.2 and over_wall <= 1.1 and not found.errors
    cells = [*names, ", ".join(notes), str(samples), str(found.sent), f"{over_sent:.2f}"]
    cells += [f"{found.best_s:.1f}", f"{found.wall_s:.1f}", f"{over_wall:.2f}"]
    cells += [str(found.errors), str(found.most_refusals), str(found.limit), "" if good else "over"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="other limits and clients too")
    options = parser.parse_args()
    heads = "server limit says latency at-once notes samples sent x best-s wall-s x"
    heads += " errors most-429s limit verdict"
    print("| " + " | ".join(heads.split()) + " |")
    print("|" + "---|" * len(heads.split()))
    for case in cases() + (more() if options.all else []):
        print(row(*case), flush=True)


if __name__ == "__main__":
    main()
