"""The fault server of the engine's tests keeps its own promises."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import aiohttp
import pytest

from tests.fault_server import Allowance, Server, start


async def ask(server: Server, count: int, *, path: str = "/v1/chat/completions") -> list[Any]:
    """(status, headers, JSON) of `count` different questions, all at once; None: cut off."""

    async def one(session: aiohttp.ClientSession, number: int) -> Any:
        body = {"model": "m", "messages": [{"role": "user", "content": f"question {number}"}]}
        headers = {"authorization": "Bearer sk-planted"}
        try:
            async with session.post(server.url + path, json=body, headers=headers) as reply:
                return reply.status, reply.headers, json.loads(await reply.text())
        except aiohttp.ClientPayloadError:
            return None

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        return await asyncio.gather(*(one(session, number) for number in range(count)))


def statuses(replies: list[Any]) -> Counter[Any]:
    return Counter(reply and reply[0] for reply in replies)


async def test_faults_are_those_of_the_seed_and_only_on_first_attempts() -> None:
    options = {"status_rate": {500: 0.2, 429: 0.1}, "cut": 0.1, "first_only": True}
    failed = []
    for seed in (1, 1, 2):
        with start(**options, seed=seed) as server:
            first, second = await ask(server, 200), await ask(server, 200)
            failed.append([n for n, reply in enumerate(first) if not reply or reply[0] != 200])
            told = server.stats()
        assert statuses(second) == {200: 200}
        assert 20 <= statuses(first)[500] <= 60
        assert 5 <= statuses(first)[429] <= 40
        assert 5 <= statuses(first)[None] <= 40
        assert told["requests"] == 400
        assert told["unique"] == told["answered"] == 200
        assert told["attempts"] == {"2": 200}
        assert told["paid_twice"] == statuses(first)[200]
        assert told["statuses"]["cut"] == statuses(first)[None]
    assert failed[0] == failed[1] != failed[2]


async def test_a_bucket_lets_its_size_through_and_says_so_in_both_protocols() -> None:
    with start(rpm=5, headers=True, retry_after=True) as server:
        replies = await ask(server, 8)
        (refused,) = await ask(server, 1, path="/v1/messages")
    assert statuses(replies) == {200: 5, 429: 3}
    left = [int(reply[1]["x-ratelimit-remaining-requests"]) for reply in replies if reply[0] == 200]
    assert sorted(left) == [0, 1, 2, 3, 4]
    assert {reply[1]["retry-after"] for reply in replies if reply[0] == 429} == {"12"}
    assert refused[1]["anthropic-ratelimit-requests-limit"] == "5"
    assert refused[1]["anthropic-ratelimit-requests-reset"].endswith("Z")


def test_a_bucket_refills_evenly_and_a_window_all_at_once() -> None:
    bucket, window = Allowance(120, None, None), Allowance(120, None, 60)
    for allowed in (bucket, window):
        allowed.look(0.0)
        allowed.left -= 120
    assert bucket.wait_s(1, 0.0) == pytest.approx(0.5)
    assert window.wait_s(1, 0.0) == 60
    for allowed in (bucket, window):
        allowed.look(30.0)
    assert bucket.left == 60
    assert window.left == 0
    assert window.wait_s(1, 30.0) == 30
    window.look(61.0)
    assert window.left == 120
    assert window.reset_s(61.0) == 59


async def test_slots_hold_requests_back_and_hangs_are_let_go_with_their_client() -> None:
    with start(slots=2, hang=1.0, first_only=True) as server:
        asking = asyncio.create_task(ask(server, 5))
        while server.stats()["in_flight"] < 5:
            await asyncio.sleep(0.01)
        assert server.stats()["statuses"] == {"hang": 2}  # the others wait for a slot
        asking.cancel()
        await asyncio.wait([asking])
        while server.stats()["in_flight"]:
            await asyncio.sleep(0.01)
        assert server.stats()["abandoned"] == 5
        assert statuses(await ask(server, 5)) == {200: 5}  # second attempts, and free slots


async def test_a_refusal_repeats_the_key_and_a_rejection_names_the_context_length() -> None:
    with start(refuse=True) as server:
        ((status, _, body),) = await ask(server, 1)
    assert status == 401
    assert "sk-planted" in body["error"]["message"]
    with start(reject_matching="question 1") as server:
        replies = await ask(server, 3)
    assert [reply[0] for reply in replies] == [200, 400, 200]
    assert replies[1][2]["error"]["code"] == "context_length_exceeded"


async def test_canned_replies_go_by_the_text_of_the_question(tmp_path: Any) -> None:
    canned = tmp_path / "canned.jsonl"
    canned.write_text(json.dumps({"match": "question 2", "reply": 'say "two"\n'}) + "\n")
    with start(canned=canned, reply="other") as server:
        replies = await ask(server, 3)
        (claude,) = await ask(server, 1, path="/v1/messages")
    texts = [reply[2]["choices"][0]["message"]["content"] for reply in replies]
    assert texts == ["other", "other", 'say "two"\n']
    assert claude[2]["content"][0]["text"] == "other"
