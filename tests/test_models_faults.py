"""The SDK-backed models against a server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from email.utils import formatdate
from time import time
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from harness.errors import ModelRefused, ModelUnavailable, RequestRejected, UsageError
from harness.models import Endpoint, resolve
from harness.models.anthropic import connect as connect_anthropic
from harness.models.openai import connect as connect_openai
from harness.types import Completion, Message, Model

KEY = "sk-secret-0123456789"
QUESTION: list[Message] = [{"role": "user", "content": "2 + 2?"}]

CHAT = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "4"}}
    ],
    "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 6},
    },
}
MESSAGES = {
    "id": "1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [{"type": "text", "text": "4"}],
    "stop_reason": "max_tokens",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 10,
        "output_tokens": 7,
        "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 2,
    },
}

Answer = Callable[[web.Request], web.StreamResponse]


class Faults:
    """A server that answers every request as `answer` says, and remembers the requests."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Answer = lambda request: web.json_response(CHAT)
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.headers.append({key.lower(): value for key, value in request.headers.items()})
        return self.answer(request)

    def says(self, status: int, body: object, **headers: str) -> None:
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        self.answer = lambda request: web.json_response(body, status=status, headers=sent)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Faults]:
    faults = Faults()
    app = web.Application()
    app.router.add_post("/{path:.*}", faults.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    faults.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield faults
    await runner.cleanup()


def openai(server: Faults, name: str = "gpt-4o-mini") -> Model:
    return resolve(f"openai/{name}", endpoints={"openai": Endpoint(f"{server.url}/v1", KEY)})


def anthropic(server: Faults) -> Model:
    return resolve("anthropic/claude-x", endpoints={"anthropic": Endpoint(server.url, KEY)})


async def ask(model: Model, messages: list[Message] = QUESTION, **settings: Any) -> Completion:
    try:
        return await model.complete(messages, **{"max_tokens": 16, "temperature": 0.0, **settings})
    finally:
        await model.close()


@pytest.mark.parametrize("vendor", [openai, anthropic])
@pytest.mark.parametrize("status", [401, 402, 403, 404, 405])
async def test_a_refusal_ends_after_one_request_and_shows_no_key(
    server: Faults, vendor: Callable[[Faults], Model], status: int
) -> None:
    server.says(status, {"error": {"message": f"Incorrect API key provided: {KEY}"}})
    with pytest.raises(ModelRefused) as caught:
        await ask(vendor(server))
    assert len(server.bodies) == 1
    assert KEY not in str(caught.value)
    assert caught.value.__suppress_context__
    assert str(status) in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize("vendor", [openai, anthropic])
@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_rejected_request_says_why(
    server: Faults, vendor: Callable[[Faults], Model], status: int
) -> None:
    server.says(status, {"error": {"message": "prompt is\ntoo long"}})
    with pytest.raises(RequestRejected, match="prompt is too long"):
        await ask(vendor(server))


@pytest.mark.parametrize("vendor", [openai, anthropic])
@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
async def test_a_busy_server_is_asked_once_and_may_be_asked_again(
    server: Faults, vendor: Callable[[Faults], Model], status: int
) -> None:
    server.says(status, {"error": {"message": "busy"}})
    with pytest.raises(ModelUnavailable, match=f"{status}: busy") as caught:
        await ask(vendor(server))
    assert caught.value.retry_after_s is None
    assert len(server.bodies) == 1


@pytest.mark.parametrize("vendor", [openai, anthropic])
async def test_the_wait_that_a_server_asks_for_is_told(
    server: Faults, vendor: Callable[[Faults], Model]
) -> None:
    date = formatdate(time() + 60, usegmt=True)
    for headers, low, high in (
        ({"Retry_After": "7"}, 7.0, 7.0),
        ({"Retry_After_Ms": "250"}, 0.25, 0.25),
        ({"Retry_After": date}, 50.0, 61.0),
    ):
        server.says(429, {"error": {"message": "slow down"}}, **headers)
        with pytest.raises(ModelUnavailable) as caught:
            await ask(vendor(server))
        assert caught.value.retry_after_s is not None
        assert low <= caught.value.retry_after_s <= high


async def test_an_empty_account_is_permanent(server: Faults) -> None:
    server.says(429, {"error": {"code": "insufficient_quota", "message": "check your plan"}})
    with pytest.raises(ModelRefused, match="check your plan"):
        await ask(openai(server))
    server.says(400, {"error": {"message": "Your credit balance is too low"}})
    with pytest.raises(ModelRefused, match="credit balance"):
        await ask(anthropic(server))


@pytest.mark.parametrize("vendor", [openai, anthropic])
async def test_a_cut_connection_is_worth_another_try(
    server: Faults, vendor: Callable[[Faults], Model]
) -> None:
    def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    server.answer = cut
    with pytest.raises(ModelUnavailable, match=r"no answer from 127\.0\.0\.1"):
        await ask(vendor(server))
    assert len(server.bodies) == 1


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_a_server_that_is_not_there_is_unavailable(provider: str) -> None:
    endpoints = {provider: Endpoint("http://127.0.0.1:9/v1", KEY)}
    with pytest.raises(ModelUnavailable, match=r"no answer from 127\.0\.0\.1:9"):
        await ask(resolve(f"{provider}/x", endpoints=endpoints))


@pytest.mark.parametrize("vendor", [openai, anthropic])
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<html>sign in</html>", "text/html"),
        ('{"choices": [{"mess', "application/json"),
        ('{"error": "no model loaded"}', "application/json"),
    ],
)
async def test_a_page_or_half_a_reply_is_no_completion(
    server: Faults, vendor: Callable[[Faults], Model], text: str, kind: str
) -> None:
    server.answer = lambda request: web.Response(text=text, content_type=kind)
    with pytest.raises(ModelUnavailable, match="sent no completion"):
        await ask(vendor(server))


async def test_a_reply_without_usage_has_unknown_tokens_and_price(server: Faults) -> None:
    server.says(200, {key: value for key, value in CHAT.items() if key != "usage"})
    model = openai(server)
    completion = await ask(model)
    assert completion.text == "4"
    assert completion.prompt_tokens is None
    assert completion.completion_tokens is None
    assert model.price(completion) is None
    server.says(200, {key: value for key, value in MESSAGES.items() if key != "usage"})
    completion = await ask(anthropic(server))
    assert (completion.prompt_tokens, completion.completion_tokens) == (None, None)


def spots(reply: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a reply."""
    yield path
    below = enumerate(reply) if isinstance(reply, list) else ()
    for key, value in reply.items() if isinstance(reply, dict) else below:
        yield from spots(value, *path, key)


def with_value(reply: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The reply with another value in one spot."""
    if not path:
        return value
    changed = dict(reply) if isinstance(reply, dict) else list(reply)
    changed[path[0]] = with_value(reply[path[0]], path[1:], value)
    return changed


ODD = (None, True, -1, 2**63, 0.5, "\ud800", [], [1], [None], {}, {"type": "text"})


@pytest.mark.parametrize(("vendor", "reply"), [(openai, CHAT), (anthropic, MESSAGES)])
async def test_an_odd_value_anywhere_in_a_reply_is_read_as_unknown_or_is_no_completion(
    server: Faults, vendor: Callable[[Faults], Model], reply: dict[str, Any]
) -> None:
    model = vendor(server)
    for path in spots(reply):
        for value in ODD:
            server.says(200, with_value(reply, path, value))
            try:
                found = await model.complete(QUESTION, max_tokens=16, temperature=0.0)
            except ModelUnavailable:
                continue
            for text in (found.text, found.finish or "", found.model or ""):
                text.encode()
            for count in (found.prompt_tokens, found.completion_tokens, found.cached_tokens,
                          found.reasoning_tokens):  # fmt: skip
                assert count is None or 0 <= count < 2**63
            assert (model.price(found) or 0.0) >= 0.0
    await model.close()


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"model": "\xff"}'])
@pytest.mark.parametrize("vendor", [openai, anthropic])
async def test_bytes_that_are_no_json_are_no_completion(
    server: Faults, vendor: Callable[[Faults], Model], body: bytes
) -> None:
    server.answer = lambda request: web.Response(body=body, content_type="application/json")
    with pytest.raises(ModelUnavailable, match="sent no completion"):
        await ask(vendor(server))


async def test_content_in_parts_is_joined_and_content_of_another_type_is_no_completion(
    server: Faults,
) -> None:
    content = ("choices", 0, "message", "content")
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b\ud800"}]
    server.says(200, with_value(CHAT, content, parts))
    assert (await ask(openai(server))).text == "ab\ufffd\ufffd\ufffd"
    server.says(200, with_value(MESSAGES, ("content",), parts))
    assert (await ask(anthropic(server))).text == "ab\ufffd\ufffd\ufffd"
    for odd in (5, {"text": "a"}, ["a"], [{"type": "text", "text": 5}]):
        server.says(200, with_value(CHAT, content, odd))
        with pytest.raises(ModelUnavailable, match="sent no completion"):
            await ask(openai(server))
        server.says(200, with_value(MESSAGES, ("content",), odd))
        with pytest.raises(ModelUnavailable, match="sent no completion"):
            await ask(anthropic(server))


@pytest.mark.parametrize("count", [-1, 2**63, "many", 0.5, [7]])
async def test_a_count_of_tokens_that_can_be_none_is_unknown_and_so_is_the_price(
    server: Faults, count: object
) -> None:
    server.says(200, with_value(CHAT, ("usage", "completion_tokens"), count))
    model = openai(server)
    found = await ask(model)
    assert (found.text, found.prompt_tokens, found.completion_tokens) == ("4", 10, None)
    assert model.price(found) is None
    server.says(200, with_value(MESSAGES, ("usage", "cache_read_input_tokens"), count))
    found = await ask(anthropic(server))
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == (None, 7, None)


async def test_the_openai_request_and_reply_are_mapped(server: Faults) -> None:
    completion = await ask(openai(server), seed=5, top_p=0.9)
    assert server.bodies == [
        {
            "model": "gpt-4o-mini",
            "messages": QUESTION,
            "max_tokens": 16,
            "temperature": 0.0,
            "seed": 5,
            "top_p": 0.9,
        }
    ]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert completion == Completion(
        text="4",
        prompt_tokens=10,
        completion_tokens=7,
        cached_tokens=4,
        reasoning_tokens=6,
        finish="stop",
        model="gpt-4o-mini-2024-07-18",
    )


async def test_o1_mini_takes_neither_sampling_nor_a_system_message(server: Faults) -> None:
    messages: list[Message] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "Sure?"},
    ]
    completion = await ask(openai(server, "o1-mini"), messages, top_p=0.5)
    assert server.bodies == [
        {
            "model": "o1-mini",
            "messages": [{"role": "user", "content": "Be brief.\n\n2 + 2?"}, *messages[2:]],
            "max_completion_tokens": 16,
        }
    ]
    assert completion.ignored == ("temperature", "top_p", "system")


async def test_a_reasoning_model_keeps_its_system_message(server: Faults) -> None:
    messages: list[Message] = [{"role": "system", "content": "Be brief."}, *QUESTION]
    completion = await ask(openai(server, "gpt-5-mini"), messages, seed=1)
    assert server.bodies[0] == {
        "model": "gpt-5-mini",
        "messages": messages,
        "max_completion_tokens": 16,
        "seed": 1,
    }
    assert completion.ignored == ("temperature",)


async def test_a_setting_that_a_new_openai_model_refuses_is_left_out_the_next_time(
    server: Faults,
) -> None:
    model = openai(server, "gpt-next")

    def choosy(request: web.Request) -> web.StreamResponse:
        for setting in ("max_tokens", "temperature"):
            if setting in server.bodies[-1]:
                error = {"code": "unsupported_value", "param": setting, "message": "no"}
                return web.json_response({"error": error}, status=400)
        return web.json_response(CHAT)

    server.answer = choosy
    for setting in ("max_tokens", "temperature"):
        with pytest.raises(ModelUnavailable, match=f"takes no {setting}") as caught:
            await model.complete(QUESTION, max_tokens=16, temperature=0.0)
        assert caught.value.retry_after_s == 0.0
    completion = await ask(model)
    assert completion.ignored == ("temperature",)
    assert server.bodies[-1] == {
        "model": "gpt-next",
        "messages": QUESTION,
        "max_completion_tokens": 16,
    }


@pytest.mark.parametrize("vendor", [openai, anthropic])
async def test_all_requests_in_flight_with_a_refused_setting_may_be_asked_again(
    server: Faults, vendor: Callable[[Faults], Model]
) -> None:
    model = vendor(server)
    message = "temperature is not supported"
    error = {"code": "unsupported_value", "param": "temperature", "message": message}
    server.says(400, {"error": error})
    asked = (model.complete(QUESTION, max_tokens=16, temperature=0.0) for _ in range(3))
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(fault) for fault in found] == [ModelUnavailable] * 3
    assert [getattr(fault, "retry_after_s", None) for fault in found] == [0.0] * 3
    with pytest.raises(RequestRejected):  # this one did not carry it: nothing is left to try
        await ask(model)
    assert ["temperature" in body for body in server.bodies] == [True, True, True, False]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("key", ["sk-ключ", "sk-1\n", "sk 1", "“sk-1”"])
def test_a_key_that_can_be_none_is_a_usage_error_that_does_not_show_it(
    provider: str, key: str
) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(f"{provider}/x", endpoints={provider: Endpoint(api_key=key)})
    assert str(caught.value) == f"{provider.upper()}_API_KEY holds characters that no key has"


async def test_the_anthropic_request_and_reply_are_mapped(server: Faults) -> None:
    server.says(200, MESSAGES)
    messages: list[Message] = [{"role": "system", "content": "Be brief."}, *QUESTION]
    completion = await ask(anthropic(server), messages, seed=5, top_p=0.9)
    assert server.bodies == [
        {
            "model": "claude-x",
            "system": "Be brief.",
            "messages": QUESTION,
            "max_tokens": 16,
            "temperature": 0.0,
            "top_p": 0.9,
        }
    ]
    assert server.headers[0]["anthropic-version"] == "2023-06-01"
    assert completion == Completion(
        text="4",
        prompt_tokens=16,
        completion_tokens=7,
        cached_tokens=4,
        finish="length",
        model="claude-x",
        ignored=("seed",),
    )


async def test_a_claude_that_refuses_temperature_is_asked_without_it_the_next_time(
    server: Faults,
) -> None:
    model = anthropic(server)
    server.says(400, {"error": {"message": "`temperature` is deprecated for this model."}})
    with pytest.raises(ModelUnavailable, match="takes no temperature") as caught:
        await model.complete(QUESTION, max_tokens=16, temperature=0.0)
    assert caught.value.retry_after_s == 0.0
    server.says(200, MESSAGES)
    completion = await ask(model)
    assert "temperature" not in server.bodies[-1]
    assert completion.ignored == ("temperature",)


async def test_a_temperature_out_of_range_is_rejected_and_not_dropped(server: Faults) -> None:
    server.says(400, {"error": {"message": "temperature: range: 0..1"}})
    with pytest.raises(RequestRejected, match="range"):
        await ask(anthropic(server), temperature=1.5)


@pytest.mark.parametrize("connect", [connect_openai, connect_anthropic])
async def test_a_server_that_is_silent_is_unavailable_after_the_timeout(
    connect: Callable[..., Model],
) -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(listen, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    with pytest.raises(ModelUnavailable, match="no answer from"):
        await asyncio.wait_for(ask(connect("any/x", url, KEY, timeout_s=0.2)), 5)
    silent.close()
    await silent.wait_closed()


@pytest.mark.parametrize("vendor", [openai, anthropic])
async def test_the_identity_holds_no_key(server: Faults, vendor: Callable[[Faults], Model]) -> None:
    model = vendor(server)
    assert KEY not in json.dumps(model.identity())
    assert model.identity()["base_url"].startswith(server.url)
    await model.close()
