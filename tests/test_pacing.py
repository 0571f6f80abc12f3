"""When requests go out: rate limits, connections, the first request. All in simulated time."""

import asyncio
import random

import pytest

from harness import pacing
from harness.errors import (
    BudgetReached,
    ModelRefused,
    ModelUnavailable,
    RateLimited,
    RequestRejected,
)
from harness.models.scripted import ScriptedModel
from harness.pacer import Pacer
from harness.pacing import Connections, Gate, backoff_s
from harness.types import Completion, Limits
from tests.sim_pacing import Server, play, simulate

FREE = 1e9  # requests a minute: no limit
DONE = Completion("x", 1, 1)


def gate_of(connections: Connections | None = None) -> Gate:
    """A gate in the simulated time of the running loop."""
    clock = asyncio.get_running_loop().time
    model = ScriptedModel("scripted/none", [])
    return Gate(model, connections or Connections(8, clock=clock), Pacer(clock))


async def ask(gate: Gate, seconds: float = 0.2, error: Exception | None = None) -> None:
    """One request that takes so long, and ends so."""
    async with gate.admit() as turn:
        await asyncio.sleep(seconds)
        if error:
            raise error
        turn.answered(DONE, seconds)


async def answered(gate: Gate) -> Gate:
    await ask(gate)
    return gate


def assert_well_paced(server, samples=200, at_once=64, sent=1.2, wall=1.1):
    found = play(server, samples, at_once)
    assert found.errors == 0
    assert found.sent <= sent * samples
    assert found.wall_s <= wall * found.best_s


# the pace


@pytest.mark.parametrize("jitter", [0.0, 0.5])
@pytest.mark.parametrize("latency_s", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("says", ["headers", "retry-after"])
@pytest.mark.parametrize("kind", ["bucket", "window"])
def test_few_requests_and_little_time_are_lost_to_a_rate_limit(kind, says, latency_s, jitter):
    assert_well_paced(Server(kind, says=says, latency_s=latency_s, jitter=jitter))


@pytest.mark.parametrize("latency_s", [0.05, 0.2, 1.0, 5.0])
def test_a_bucket_that_says_nothing_is_measured(latency_s):
    assert_well_paced(Server("bucket", says="nothing", latency_s=latency_s))


@pytest.mark.parametrize("latency_s", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("ends_s", [20.0, 40.0, 60.0])
def test_the_end_of_a_window_that_says_nothing_is_found(ends_s, latency_s):
    server = Server("window", says="nothing", latency_s=latency_s, ends_s=ends_s)
    assert_well_paced(server, sent=1.25, wall=1.2)


@pytest.mark.parametrize("says", ["headers", "retry-after", "nothing"])
@pytest.mark.parametrize("per_minute", [30, 300, 1000])
def test_the_pace_is_that_of_the_server_whatever_its_limit(per_minute, says):
    server = Server("bucket", per_minute, says=says, latency_s=1.0)
    assert_well_paced(server, samples=max(200, 2 * per_minute), at_once=100)


@pytest.mark.parametrize("says", ["headers", "retry-after", "nothing"])
def test_another_client_may_eat_half_of_the_limit(says):
    assert_well_paced(Server("bucket", says=says, other=60.0))


@pytest.mark.parametrize("kind", ["bucket", "window"])
def test_tokens_per_minute_are_kept_to_as_well(kind):
    server = Server(kind, 6000, tokens_per_minute=12_000, tokens=100)
    found = play(server)
    assert (found.sent, found.errors) == (200, 0)
    assert found.wall_s <= 1.1 * found.best_s


def test_wrong_estimates_of_tokens_are_corrected_by_what_answers_took():
    async def main():
        clock = asyncio.get_running_loop().time
        pacer = Pacer(clock)
        first = pacer.send(10)
        told = Limits(tokens=1000, tokens_left=990, tokens_reset_s=0.6)
        pacer.answered(first, Completion("x", 5, 5, limits=told))
        for _ in range(9):  # ten tokens as estimated, a hundred as it turned out
            assert pacer.wait_s(10) == 0
            pacer.answered(pacer.send(10), Completion("x", 50, 50))
        return pacer.wait_s(100)

    wait_s, _ = simulate(main())
    assert wait_s == pytest.approx((100 - 90) * 0.06, abs=0.01)


@pytest.mark.parametrize("says", ["retry-after", "nothing"])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
def test_refusals_by_accident_are_no_rate_limit(share, says):
    server = Server(per_minute=FREE, says=says, accident=share, refusal_s=None)
    found = play(server, 400, 100, fixed=True)
    assert found.errors == 0
    assert found.wall_s < 5  # a pace guessed from the first refusals would take minutes


@pytest.mark.parametrize("says", ["headers", "nothing"])
def test_without_a_limit_nothing_waits(says):
    found = play(Server(per_minute=FREE, says=says), 1000, 100, fixed=True)
    assert found.sent == 1000
    # the first alone, then a hundred at once, after they were spread over half a latency
    assert found.wall_s <= 0.2 * 11.5


@pytest.mark.parametrize("at_once", [100, 200])
@pytest.mark.parametrize("says", ["retry-after", "nothing"])
def test_the_first_burst_over_an_unknown_limit_is_not_sent_in_one_go(says, at_once):
    found = play(Server("bucket", says=says), 200, at_once, fixed=True)
    assert found.sent <= (1.2 if at_once == 100 else 1.25) * 200  # 283 in one go
    assert found.wall_s <= 1.1 * found.best_s


def test_after_a_429_everybody_waits_and_the_refused_one_goes_first():
    async def main():
        gate = await answered(gate_of())
        clock = asyncio.get_running_loop().time
        began, order = clock(), []

        async def call(name, refused):
            try:
                await ask(gate, 0.1, RateLimited("429", 7.0) if refused else None)
            except RateLimited:
                async with gate.admit() as turn:
                    order.append((name, round(clock() - began, 2)))
                    turn.answered(DONE, 0.1)
                return
            order.append((name, round(clock() - began, 2)))

        first = asyncio.create_task(call("refused", True))
        await asyncio.sleep(1)
        await asyncio.gather(first, *(call(f"later {n}", False) for n in range(2)))
        return order

    order, _ = simulate(main())
    assert order == [("refused", 7.1), ("later 0", 7.2), ("later 1", 7.2)]


def test_a_pause_of_more_than_ten_minutes_is_not_waited_for():
    async def main():
        gate = await answered(gate_of())
        for _ in range(5):
            with pytest.raises(RateLimited):
                await ask(gate, 0.1, RateLimited("429", 100_000.0))
        await ask(gate)

    _, seconds = simulate(main())
    assert seconds == pytest.approx(0.9)


def test_a_limit_that_is_spent_for_hours_ends_the_calls_that_wait_for_it():
    async def main():
        gate = gate_of()
        told = Limits(requests=50, requests_left=0, requests_reset_s=40_000)
        async with gate.admit() as turn:
            turn.answered(Completion("x", 1, 1, limits=told), 0.1)
        with pytest.raises(RateLimited, match="lets the next request through in 13 minutes"):
            await ask(gate)

    simulate(main())


def test_calls_end_without_a_request_when_the_server_refused_all_for_ten_minutes():
    async def main():
        gate = await answered(gate_of())
        sent = 0

        async def call():
            nonlocal sent
            for _ in range(20):
                try:
                    async with gate.admit():
                        sent += 1
                        raise RateLimited("429")
                except RateLimited as error:
                    last = error
            return str(last)

        errors = await asyncio.gather(*(call() for _ in range(100)))
        return sent, errors

    (sent, errors), seconds = simulate(main())
    assert sent < 200
    assert seconds < 900
    assert any("refused every request of the last 10 minutes" in error for error in errors)


def test_a_request_that_a_budget_stopped_counts_for_nothing():
    async def main():
        gate = gate_of()
        told = Limits(requests=60, requests_left=1, requests_reset_s=59)
        async with gate.admit() as turn:
            turn.answered(Completion("x", 1, 1, limits=told), 0.1)
        with pytest.raises(BudgetReached):
            async with gate.admit():
                raise BudgetReached("spent")
        assert gate.pacer.wait_s() == 0
        await ask(gate)
        assert gate.pacer.wait_s() > 0

    simulate(main())


# the first request


def test_a_wrong_key_costs_one_request_however_many_wait():
    async def main():
        gate = gate_of()
        sent = 0

        async def call():
            nonlocal sent
            async with gate.admit():
                sent += 1
                await asyncio.sleep(0.2)
                raise ModelRefused("401")

        found = await asyncio.gather(*(call() for _ in range(20)), return_exceptions=True)
        assert [str(error) for error in found] == ["401"] * 20
        with pytest.raises(ModelRefused, match="401"):
            await call()
        return sent

    assert simulate(main())[0] == 1


def test_a_wrong_key_costs_two_requests_at_most_when_the_answer_is_slow():
    async def main():
        gate = gate_of()
        sent = 0

        async def call():
            nonlocal sent
            async with gate.admit():
                sent += 1
                await asyncio.sleep(30)
                raise ModelRefused("401")

        await asyncio.gather(*(call() for _ in range(20)), return_exceptions=True)
        return sent

    assert simulate(main())[0] == 2


def test_a_first_call_that_hangs_does_not_hold_up_the_others():
    async def main():
        gate = gate_of()
        hanging = asyncio.create_task(ask(gate, 10_000))
        await asyncio.sleep(0)
        await asyncio.gather(*(ask(gate) for _ in range(50)))
        hanging.cancel()

    _, seconds = simulate(main())
    assert seconds == pytest.approx(pacing.SECOND_AFTER_S + 0.2 * 8, abs=0.01)


def test_a_rejected_request_is_fatal_only_while_nothing_has_succeeded():
    async def main():
        gate = gate_of()
        with pytest.raises(RequestRejected):
            await ask(gate, 0.1, RequestRejected("bad"))
        with pytest.raises(ModelRefused, match=r"the first 2 requests were rejected, and .*: bad"):
            await ask(gate, 0.1, RequestRejected("bad"))
        with pytest.raises(ModelRefused):
            await ask(gate)
        later = await answered(gate_of())
        with pytest.raises(RequestRejected):
            await ask(later, 0.1, RequestRejected("too long"))
        resumed = gate_of()
        resumed.proven = True
        with pytest.raises(RequestRejected):
            await ask(resumed, 0.1, RequestRejected("too long"))
        await ask(resumed)

    simulate(main())


def test_failures_of_a_server_that_starts_up_let_the_next_one_try():
    async def main():
        gate = gate_of()
        for _ in range(3):
            with pytest.raises(ModelUnavailable):
                await ask(gate, 0.1, ModelUnavailable("503"))
        await ask(gate)
        return gate.answered

    assert simulate(main())[0]


# connections


def test_requests_go_in_the_order_in_which_they_asked():
    async def main():
        gate = await answered(gate_of(Connections(1)))
        order = []

        async def call(number):
            async with gate.admit() as turn:
                order.append(number)
                await asyncio.sleep(0.1)
                turn.answered(DONE, 0.1)

        await asyncio.gather(*(call(n) for n in range(20)))
        return order

    assert simulate(main())[0] == list(range(20))


@pytest.mark.parametrize("seed", range(20))
def test_cancelled_calls_leak_no_connection(seed):
    """Calls of random lengths and ends, a third of them cancelled at a random moment."""

    async def main():
        chance = random.Random(seed)
        clock = asyncio.get_running_loop().time
        shared = Connections(chance.choice([1, 3, 8]), clock=clock)
        gates = [gate_of(shared), gate_of(shared)]
        ends = [None, None, RateLimited("429", 0.5), RateLimited("429"), ModelUnavailable("500")]

        async def call():
            await asyncio.sleep(chance.random() * 5)
            await ask(chance.choice(gates), chance.random(), chance.choice(ends))

        tasks = [asyncio.create_task(call()) for _ in range(200)]
        for task in tasks:
            if chance.random() < 0.35:
                asyncio.get_running_loop().call_later(chance.random() * 10, task.cancel)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert any(isinstance(error, asyncio.CancelledError) for error in found)
        assert shared.busy == 0
        assert [gate.waiting for gate in gates] == [0, 0]
        for gate in gates:
            assert gate.status.count("in flight") == 0
            await ask(gate)  # and the gates still open
        assert shared.busy == 0

    simulate(main())


def test_one_slow_call_never_stalls_the_rest():
    async def main():
        gate = await answered(gate_of(Connections(4)))
        slow = asyncio.create_task(ask(gate, 1000))
        await asyncio.sleep(0)
        await asyncio.gather(*(ask(gate) for _ in range(300)))
        assert not slow.done()
        slow.cancel()

    _, seconds = simulate(main())
    assert seconds == pytest.approx(0.2 + 100 * 0.2)


def test_connections_grow_while_the_server_keeps_up():
    found = play(Server(per_minute=FREE, says="nothing"), 4000, 200)
    assert found.limit == 200


@pytest.mark.parametrize("slots", [4, 20, 50])
def test_connections_settle_where_more_of_them_bring_nothing(slots):
    found = play(Server(per_minute=FREE, says="nothing", slots=slots), 4000, 200)
    assert found.limit <= 1.25 * max(16, 2.5 * slots)  # a quarter more is tried now and then
    assert found.wall_s <= 1.15 * 4000 / slots * 0.2


def test_long_answers_are_not_taken_for_a_slow_server():
    async def main():
        clock = asyncio.get_running_loop().time
        gate = gate_of(Connections(start=16, most=128, clock=clock))
        chance = random.Random(0)

        async def call(mean):
            tokens = int(chance.uniform(0.5, 1.5) * mean)
            seconds = 0.01 * (50 + tokens)
            async with gate.admit() as turn:
                await asyncio.sleep(seconds)
                turn.answered(Completion("x", 1, tokens), seconds)

        await asyncio.gather(*(call(20) for _ in range(100)))
        short = gate.limit
        await asyncio.gather(*(call(400) for _ in range(2000)))  # six times as long each
        return short, gate.limit

    (short, long), _ = simulate(main())
    assert short < long == 128


def test_a_server_that_refuses_or_runs_out_of_time_gets_fewer_at_once():
    async def main():
        clock = asyncio.get_running_loop().time
        gate = await answered(gate_of(Connections(start=16, most=200, clock=clock)))
        lost = [ask(gate, 60, ModelUnavailable("timed out")) for _ in range(16)]
        await asyncio.gather(*lost, return_exceptions=True)
        assert gate.limit == 12  # once for all that were under way
        refused = [ask(gate, 0.1, RateLimited("429")) for _ in range(12)]
        await asyncio.gather(*refused, return_exceptions=True)
        assert gate.limit == 9
        quick = [ask(gate, 0.1, ModelUnavailable("500")) for _ in range(9)]
        await asyncio.gather(*quick, return_exceptions=True)
        assert gate.limit == 9

    simulate(main())


def test_a_fixed_number_of_connections_stays():
    assert play(Server(says="nothing"), 200, 30, fixed=True).limit == 30
    assert play(Server(per_minute=FREE, says="nothing"), 1000, 30, fixed=True).peak == 30


def test_models_of_one_server_share_its_connections():
    async def main():
        clock = asyncio.get_running_loop().time
        shared = Connections(6, clock=clock)
        gates = [await answered(gate_of(shared)) for _ in range(2)]
        most, ended = 0, [[], []]

        async def call(which):
            nonlocal most
            async with gates[which].admit() as turn:
                most = max(most, shared.busy)
                await asyncio.sleep(0.2)
                turn.answered(DONE, 0.2)
                ended[which].append(clock())

        await asyncio.gather(*(call(n % 2) for n in range(60)))
        return most, [len(times) for times in ended], abs(ended[0][-1] - ended[1][-1])

    (most, counts, apart), _ = simulate(main())
    assert (most, counts) == (6, [30, 30])
    assert apart <= 0.2  # neither waits for the other's end


def test_a_model_that_waits_for_its_pace_leaves_the_connections_to_others():
    async def main():
        shared = Connections(2, clock=asyncio.get_running_loop().time)
        paced, free = gate_of(shared), await answered(gate_of(shared))
        told = Limits(requests=10, requests_left=0, requests_reset_s=60)
        async with paced.admit() as turn:
            turn.answered(Completion("x", 1, 1, limits=told), 0.1)
        waiting = [asyncio.create_task(ask(paced)) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.gather(*(ask(free) for _ in range(10)))
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()

    _, seconds = simulate(main())
    assert seconds == pytest.approx(0.2 + 1.0)


# the rest


def test_the_status_says_what_the_gate_does():
    async def main():
        gate = gate_of(Connections(2))
        assert gate.status == ""
        told = Limits(requests=120, requests_left=119, requests_reset_s=0.5)
        async with gate.admit() as turn:
            assert gate.status == "1 of 2 in flight"
            turn.answered(Completion("x", 1, 1, model="served-1", limits=told), 0.1)
        tasks = [asyncio.create_task(ask(gate)) for _ in range(5)]
        await asyncio.sleep(0.1)
        assert gate.status == "2 of 2 in flight, 3 waiting, paced to 120/min"
        await asyncio.gather(*tasks)
        assert gate.served_by == {"served-1"}
        assert gate.identity == {"name": "scripted/none"}

    simulate(main())


def test_the_backoff_doubles_has_full_jitter_and_a_cap():
    random.seed(1)
    for attempt, cap_s in ((1, 1), (2, 2), (3, 4), (7, 60), (50, 60)):
        waits = [backoff_s(attempt) for _ in range(500)]
        assert 0 <= min(waits) < 0.05 * cap_s
        assert 0.95 * cap_s < max(waits) <= cap_s
