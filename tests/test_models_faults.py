"""The SDK-backed models against a server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from email.utils import formatdate
from time import time
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from harness.errors import (
    ModelError,
    ModelRefused,
    ModelUnavailable,
    RateLimited,
    RequestRejected,
    UsageError,
)
from harness.models import Endpoint, resolve
from harness.models.anthropic import AnthropicMessages
from harness.models.openai import OpenAIChat
from harness.types import Completion, Limits, Message, Model, Sampling

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
        self.handle_as: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.headers.append({key.lower(): value for key, value in request.headers.items()})
        return await self.handle_as(request) if self.handle_as else self.answer(request)

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


def vllm(server: Faults) -> Model:
    return resolve("vllm/qwen", endpoints={"vllm": Endpoint(f"{server.url}/v1", KEY)})


async def ask(
    model: Model,
    messages: list[Message] = QUESTION,
    *,
    seed: int | None = None,
    **settings: Any,
) -> Completion:
    try:
        return await model.complete(messages, Sampling(max_tokens=16, **settings), seed=seed)
    finally:
        await model.close()


@pytest.mark.parametrize("vendor", [openai, anthropic, vllm])
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


@pytest.mark.parametrize("vendor", [openai, anthropic, vllm])
async def test_a_key_that_a_long_message_repeats_is_masked_before_it_is_cut(
    server: Faults, vendor: Callable[[Faults], Model]
) -> None:
    for status in (400, 403, 429, 500):
        for before in range(280, 300):
            server.says(status, {"error": {"message": f"{'x' * before}{KEY} may not"}})
            with pytest.raises(ModelError) as caught:
                await ask(vendor(server))
            assert KEY[:4] not in str(caught.value)


@pytest.mark.parametrize("vendor", [openai, anthropic, vllm])
async def test_a_reply_that_repeats_the_key_is_read_without_it(
    server: Faults, vendor: Callable[[Faults], Model]
) -> None:
    reply = json.dumps(MESSAGES if vendor is anthropic else CHAT)
    for said in ('"4"', '"gpt-4o-mini-2024-07-18"', '"claude-x"', '"stop"', '"max_tokens"'):
        reply = reply.replace(said, f'"yours is {KEY}"')
    server.answer = lambda request: web.Response(text=reply, content_type="application/json")
    found = await ask(vendor(server))
    assert (found.text, found.model, found.finish) == ("yours is [key]",) * 3


@pytest.mark.parametrize("connect", [OpenAIChat, AnthropicMessages])
async def test_a_failure_that_repeats_the_key_is_told_without_it(
    connect: Callable[..., Model],
) -> None:
    server, url = await raw(f"HTTP/1.1 {KEY}\r\n\r\n".encode())
    with pytest.raises(ModelUnavailable, match="no answer from") as caught:
        await ask(connect("any/x", url, KEY))
    assert KEY not in str(caught.value)
    server.close()


@pytest.mark.parametrize("vendor", [openai, anthropic, vllm])
async def test_nothing_of_the_environment_goes_to_a_server(
    server: Faults, vendor: Callable[[Faults], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.says(200, MESSAGES if vendor is anthropic else CHAT)
    await ask(vendor(server))
    planted = "planted"
    for name in ("ORG_ID", "PROJECT_ID", "ADMIN_KEY", "API_KEY", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"OPENAI_{name}", planted)
    for name in ("AUTH_TOKEN", "API_KEY", "WEBHOOK_SIGNING_KEY", "PROFILE", "ORGANIZATION_ID"):
        monkeypatch.setenv(f"ANTHROPIC_{name}", planted)
    headers = "\n".join(
        f"{name}: {planted}"
        for name in ("Authorization", "x-api-key", "anthropic-version", "x-stainless-lang", "x-own")
    )
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", headers)
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", headers)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    await ask(vendor(server))
    before, after = server.headers
    assert before.keys() == after.keys()
    assert planted not in str(after)
    ours = {"authorization", "x-api-key", "anthropic-version"} & after.keys()
    assert ours == (
        {"x-api-key", "anthropic-version"} if vendor is anthropic else {"authorization"}
    )
    assert {name: before[name] for name in ours} == {name: after[name] for name in ours}


@pytest.mark.parametrize("vendor", [openai, anthropic, vllm])
@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_rejected_request_says_why(
    server: Faults, vendor: Callable[[Faults], Model], status: int
) -> None:
    server.says(status, {"error": {"message": "prompt is\ntoo long"}})
    with pytest.raises(RequestRejected, match="prompt is too long"):
        await ask(vendor(server))


@pytest.mark.parametrize("vendor", [openai, anthropic, vllm])
@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
async def test_a_busy_server_is_asked_once_and_may_be_asked_again(
    server: Faults, vendor: Callable[[Faults], Model], status: int
) -> None:
    server.says(status, {"error": {"message": "busy"}})
    with pytest.raises(ModelUnavailable, match=f"{status}: busy") as caught:
        await ask(vendor(server))
    assert caught.value.retry_after_s is None
    assert caught.value.limits is None
    assert isinstance(caught.value, RateLimited) is (status == 429)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("vendor", [openai, anthropic, vllm])
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


OPENAI_LIMITS = {
    "X_Ratelimit_Limit_Requests": "500",
    "X_Ratelimit_Limit_Tokens": "200000",
    "X_Ratelimit_Remaining_Requests": "498",
    "X_Ratelimit_Remaining_Tokens": "199500",
    "X_Ratelimit_Reset_Requests": "240ms",
    "X_Ratelimit_Reset_Tokens": "6m0.5s",
}
TOLD = Limits(500, 498, 0.24, 200_000, 199_500, 360.5)


@pytest.mark.parametrize("vendor", [openai, anthropic, vllm])
@pytest.mark.parametrize("status", [429, 503])
async def test_rate_limits_are_told_beside_a_reply_and_beside_a_refusal(
    server: Faults, vendor: Callable[[Faults], Model], status: int
) -> None:
    reply = MESSAGES if vendor is anthropic else CHAT
    server.says(200, reply, **OPENAI_LIMITS)
    assert (await ask(vendor(server))).limits == TOLD
    server.says(status, {"error": {"message": "slow down"}}, **OPENAI_LIMITS)
    with pytest.raises(ModelUnavailable) as caught:
        await ask(vendor(server))
    assert caught.value.limits == TOLD
    server.says(200, reply)
    assert (await ask(vendor(server))).limits is None


async def test_anthropic_s_resets_are_moments_of_the_server_s_clock(server: Faults) -> None:
    def headers(**parts: str) -> dict[str, str]:
        return {f"Anthropic_Ratelimit_{key}": value for key, value in parts.items()}

    clock = {"Date": "Fri, 20 Nov 2026 12:00:00 GMT"}  # whatever it is here
    requests = headers(
        Requests_Limit="50", Requests_Remaining="49", Requests_Reset="2026-11-20T12:00:01Z"
    )
    tokens = headers(
        Tokens_Limit="1000", Tokens_Remaining="600", Tokens_Reset="2026-11-20T13:00:30+01:00"
    )
    parts = headers(
        Input_Tokens_Limit="800",
        Input_Tokens_Remaining="800",
        Input_Tokens_Reset="2026-11-20T11:59:00Z",
        Output_Tokens_Limit="200",
        Output_Tokens_Remaining="20",
        Output_Tokens_Reset="2026-11-20T12:00:54Z",
    )
    server.says(200, MESSAGES, **clock, **requests, **tokens, **parts)
    assert (await ask(anthropic(server))).limits == Limits(50, 49, 1, 1000, 600, 30)
    server.says(200, MESSAGES, **clock, **requests, **parts)  # the tightest of the two
    assert (await ask(anthropic(server))).limits == Limits(50, 49, 1, 200, 20, 54)
    server.says(200, MESSAGES, **clock, Retry_After="Fri, 20 Nov 2026 12:00:09 GMT")
    assert (await ask(anthropic(server))).limits is None
    server.says(429, {}, **clock, Retry_After="Fri, 20 Nov 2026 12:00:09 GMT")
    with pytest.raises(RateLimited) as caught:
        await ask(anthropic(server))
    assert caught.value.retry_after_s == 9


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1s", 1.0),
        ("20ms", 0.02),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("1d", 86400.0),
        ("500us", 0.0005),
        ("0", 0.0),
        ("59", 59.0),
        ("soon", None),
        ("1s ago", None),
        ("-3", None),
        ("nan", None),
        ("inf", None),
        ("2026-11-20T12:00:00", None),  # of which zone?
    ],
)
async def test_a_reset_that_cannot_be_read_is_unknown(
    server: Faults, reset: str, seconds: float | None
) -> None:
    server.says(200, CHAT, X_Ratelimit_Limit_Requests="9", X_Ratelimit_Reset_Requests=reset)
    found = (await ask(openai(server))).limits
    assert found is not None
    assert found == Limits(requests=9, requests_reset_s=found.requests_reset_s)
    assert found.requests_reset_s == (None if seconds is None else pytest.approx(seconds))


async def test_an_empty_account_is_permanent(server: Faults) -> None:
    server.says(429, {"error": {"code": "insufficient_quota", "message": "check your plan"}})
    with pytest.raises(ModelRefused, match="check your plan"):
        await ask(openai(server))
    server.says(400, {"error": {"message": "Your credit balance is too low"}})
    with pytest.raises(ModelRefused, match="credit balance"):
        await ask(anthropic(server))


@pytest.mark.parametrize("vendor", [openai, anthropic, vllm])
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


async def raw(*pieces: bytes, last: bool = True) -> tuple[asyncio.Server, str]:
    """A server that answers any request with these bytes, whatever they are."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if last:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize("connect", [OpenAIChat, AnthropicMessages])
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        OK + b"content-length: 100\r\n\r\n{}",
        OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}",
        OK + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
        OK + b"x: " + b"y" * 70_000 + b"\r\n\r\n",
    ],
)
async def test_an_answer_that_is_no_http_is_worth_another_try(
    connect: Callable[..., Model], answer: bytes
) -> None:
    server, url = await raw(answer)
    with pytest.raises(ModelUnavailable, match="no answer from 127") as caught:
        await ask(connect("any/x", url, KEY))
    assert "\n" not in str(caught.value)
    server.close()


@pytest.mark.parametrize("vendor", [openai, anthropic, vllm])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize(
    ("location", "host"),
    [
        (f"http://user:{KEY}@elsewhere:9/v1?token={KEY}", "elsewhere:9"),
        (f"/login/{KEY}", "127.0.0.1"),
        (f"http://{KEY}/", "[key]"),
        ("http://[::1", "nowhere"),
        ("ftp://x/", "x"),
    ],
)
async def test_a_redirect_is_not_followed_and_ends_the_run_with_where_it_leads(
    server: Faults, vendor: Callable[[Faults], Model], status: int, location: str, host: str
) -> None:
    model = vendor(server)
    redirect = web.Response(status=status, headers={"location": location})
    server.answer = lambda request: redirect
    with pytest.raises(ModelRefused, match="answers with a redirect to ") as caught:
        await ask(model)
    assert f"a redirect to {host}" in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("vendor", [openai, anthropic, vllm])
async def test_once_a_server_has_answered_a_page_or_a_redirect_is_worth_another_try(
    server: Faults, vendor: Callable[[Faults], Model]
) -> None:
    model = vendor(server)
    server.says(200, MESSAGES if vendor is anthropic else CHAT)
    assert (await model.complete(QUESTION, Sampling(0.0, 16))).text == "4"
    server.answer = lambda request: web.Response(text="<html>back soon</html>")
    with pytest.raises(ModelUnavailable, match="sent no completion"):
        await model.complete(QUESTION, Sampling(0.0, 16))
    redirect = web.Response(status=302, headers={"location": "http://elsewhere/"})
    server.answer = lambda request: redirect
    with pytest.raises(ModelUnavailable, match="a redirect to elsewhere"):
        await ask(model)


@pytest.mark.parametrize("connect", [OpenAIChat, AnthropicMessages])
async def test_a_server_that_drips_is_unavailable_after_the_timeout(
    connect: Callable[..., Model],
) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"transfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"1\r\n \r\n")
                await writer.drain()
                await asyncio.sleep(0.02)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(ModelUnavailable, match=r"not whole after 0\.3 s"):
        await asyncio.wait_for(ask(connect("any/x", url, KEY, timeout_s=0.3)), 5)
    server.close()


@pytest.mark.parametrize("vendor", [openai, anthropic, vllm])
async def test_the_client_caps_no_number_of_connections_that_the_harness_allows(
    server: Faults, vendor: Callable[[Faults], Model]
) -> None:
    model = vendor(server)
    here, wanted, all_here = 0, 256, asyncio.Event()

    async def wait_for_all(request: web.Request) -> web.StreamResponse:
        nonlocal here
        here += 1
        if here == wanted:
            all_here.set()
        await all_here.wait()
        return web.json_response(MESSAGES if vendor is anthropic else CHAT)

    server.handle_as = wait_for_all
    asked = (model.complete(QUESTION, Sampling(0.0, 16)) for _ in range(wanted))
    found = await asyncio.wait_for(asyncio.gather(*asked), 60)
    assert {completion.text for completion in found} == {"4"}
    await model.close()


async def test_a_vllm_that_never_listened_ends_the_run_with_the_command_that_starts_it() -> None:
    model = resolve("vllm/a/b", endpoints={"vllm": Endpoint("http://127.0.0.1:9/v1")})
    with pytest.raises(ModelRefused) as caught:
        await ask(model)
    assert "127.0.0.1:9: nothing listens" in str(caught.value)
    assert "`python -m harness serve vllm/a/b`" in str(caught.value)
    assert "VLLM_BASE_URL" in str(caught.value)


async def test_a_vllm_that_went_away_is_worth_another_try() -> None:
    reply = json.dumps(CHAT).encode()
    server, url = await raw(OK + b"content-length: %d\r\n\r\n" % len(reply) + reply)
    model = resolve("vllm/a", endpoints={"vllm": Endpoint(f"{url}/v1")})
    assert (await model.complete(QUESTION, Sampling(0.0, 16))).text == "4"
    server.close()
    await server.wait_closed()
    for _ in range(2):  # on the connection that was kept, and on a new one
        with pytest.raises(ModelUnavailable, match="no answer from"):
            await model.complete(QUESTION, Sampling(0.0, 16))
    await model.close()


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_a_server_that_is_not_there_is_unavailable(provider: str) -> None:
    endpoints = {provider: Endpoint("http://127.0.0.1:9/v1", KEY)}
    with pytest.raises(ModelUnavailable, match=r"no answer from 127\.0\.0\.1:9"):
        await ask(resolve(f"{provider}/x", endpoints=endpoints))


@pytest.mark.parametrize("vendor", [openai, anthropic, vllm])
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<html>sign in</html>", "text/html"),
        ('{"choices": [{"mess', "application/json"),
        ('{"status": "ok"}', "application/json"),
        ("[]", "application/json"),
    ],
)
async def test_a_page_or_half_a_reply_where_nothing_ever_answered_ends_the_run(
    server: Faults, vendor: Callable[[Faults], Model], text: str, kind: str
) -> None:
    server.answer = lambda request: web.Response(text=text, content_type=kind)
    with pytest.raises(ModelRefused, match="sent no completion; is the base URL right"):
        await ask(vendor(server))


@pytest.mark.parametrize("vendor", [openai, anthropic, vllm])
async def test_an_error_of_status_200_is_worth_another_try_and_says_why(
    server: Faults, vendor: Callable[[Faults], Model]
) -> None:
    for error in ("upstream is busy", {"code": 429, "message": f"upstream is busy {KEY}"}):
        server.says(200, {"error": error})
        with pytest.raises(
            ModelUnavailable, match="sent no completion: upstream is busy"
        ) as caught:
            await ask(vendor(server))
        assert KEY not in str(caught.value)


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
    server.says(200, reply)
    await model.complete(QUESTION, Sampling(0.0, 16))
    for path in spots(reply):
        for value in ODD:
            server.says(200, with_value(reply, path, value))
            try:
                found = await model.complete(QUESTION, Sampling(0.0, 16))
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
@pytest.mark.parametrize("vendor", [openai, anthropic, vllm])
async def test_bytes_that_are_no_json_are_no_completion(
    server: Faults, vendor: Callable[[Faults], Model], body: bytes
) -> None:
    server.answer = lambda request: web.Response(body=body, content_type="application/json")
    with pytest.raises(ModelRefused, match="sent no completion"):
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


async def test_vllm_is_asked_for_a_plain_distribution_unless_told_otherwise(
    server: Faults,
) -> None:
    plain = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    base = {"model": "qwen", "messages": QUESTION, "max_tokens": 16, "temperature": 0.0}
    found = await ask(vllm(server))
    await ask(vllm(server), top_p=0.9, reasoning_effort="low", extra_body={"top_k": 20})
    assert server.bodies == [
        {**base, **plain},
        {**base, **plain, "top_p": 0.9, "reasoning_effort": "low", "top_k": 20},
    ]
    assert found.model == "gpt-4o-mini-2024-07-18"  # as the server calls what it serves
    assert found.ignored == ()


async def test_effort_and_extra_body_are_put_into_the_request(server: Faults) -> None:
    extra = {"service_tier": "flex", "temperature": 1}
    await ask(openai(server, "o3"), reasoning_effort="low", extra_body=extra)
    assert server.bodies == [
        {
            "model": "o3",
            "messages": QUESTION,
            "max_completion_tokens": 16,
            "reasoning_effort": "low",
            **extra,
        }
    ]
    server.says(200, MESSAGES)
    extra = {"output_config": {"format": {"type": "json_schema"}}, "thinking": {"type": "adaptive"}}
    completion = await ask(anthropic(server), reasoning_effort="low", extra_body=extra)
    assert server.bodies[1]["output_config"] == {"effort": "low", **extra["output_config"]}
    assert server.bodies[1]["thinking"] == {"type": "adaptive"}
    assert "reasoning_effort" not in server.bodies[1]
    assert completion.ignored == ()


@pytest.mark.parametrize(
    ("vendor", "error"),
    [
        (
            openai,
            {
                "message": "Unrecognized request argument supplied: reasoning_effort",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            },
        ),
        (
            openai,
            {
                "message": "Unsupported parameter: 'reasoning_effort' is not supported with this "
                "model.",
                "param": "reasoning_effort",
                "code": "unsupported_parameter",
            },
        ),
        (anthropic, {"message": "This model does not support the effort parameter."}),
        (anthropic, {"message": "output_config: Extra inputs are not permitted"}),
    ],
)
async def test_a_model_that_takes_no_effort_is_asked_without_it_the_next_time(
    server: Faults, vendor: Callable[[Faults], Model], error: dict[str, Any]
) -> None:
    model = vendor(server)
    server.says(400, {"error": error})
    sampling = Sampling(0.0, 16, reasoning_effort="low")
    with pytest.raises(ModelUnavailable, match="takes no reasoning_effort") as caught:
        await model.complete(QUESTION, sampling)
    assert caught.value.retry_after_s == 0.0
    server.says(200, MESSAGES if vendor is anthropic else CHAT)
    assert (await model.complete(QUESTION, sampling)).ignored == ("reasoning_effort",)
    assert not server.bodies[-1].keys() & {"reasoning_effort", "output_config"}
    assert (await ask(model)).ignored == ()  # nothing was asked for


@pytest.mark.parametrize(
    ("vendor", "error"),
    [
        (
            openai,
            {
                "message": "Unsupported value: 'reasoning_effort' does not support 'xhigh' with "
                "this model. Supported values are: 'low', 'medium', and 'high'.",
                "param": "reasoning_effort",
                "code": "unsupported_value",
            },
        ),
        (anthropic, {"message": "effort level 'xhigh' is not supported by this model"}),
    ],
)
async def test_a_level_of_effort_that_a_model_does_not_know_is_rejected_and_not_dropped(
    server: Faults, vendor: Callable[[Faults], Model], error: dict[str, Any]
) -> None:
    server.says(400, {"error": error})
    with pytest.raises(RequestRejected, match="xhigh"):
        await ask(vendor(server), reasoning_effort="xhigh")


async def test_o1_mini_takes_neither_sampling_nor_a_system_message(server: Faults) -> None:
    messages: list[Message] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "Sure?"},
    ]
    completion = await ask(openai(server, "o1-mini"), messages, top_p=0.5, reasoning_effort="low")
    assert server.bodies == [
        {
            "model": "o1-mini",
            "messages": [{"role": "user", "content": "Be brief.\n\n2 + 2?"}, *messages[2:]],
            "max_completion_tokens": 16,
        }
    ]
    assert completion.ignored == ("temperature", "top_p", "reasoning_effort", "system")


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
        assert not model.samples_always
        with pytest.raises(ModelUnavailable, match=f"takes no {setting}") as caught:
            await model.complete(QUESTION, Sampling(0.0, 16))
        assert caught.value.retry_after_s == 0.0
    assert model.samples_always  # a model without a temperature is never greedy
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
    asked = (model.complete(QUESTION, Sampling(0.0, 16)) for _ in range(3))
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
        cache_write_tokens=2,
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
        await model.complete(QUESTION, Sampling(0.0, 16))
    assert caught.value.retry_after_s == 0.0
    server.says(200, MESSAGES)
    completion = await ask(model)
    assert "temperature" not in server.bodies[-1]
    assert completion.ignored == ("temperature",)
    assert model.samples_always


@pytest.mark.parametrize(
    ("temperature", "top_p", "sent", "ignored"),
    [
        (0.0, 0.9, {"temperature": 0.0}, "top_p"),  # greedy: no tail to cut
        (0.7, 1.0, {"temperature": 0.7}, "top_p"),
        (1.0, 0.9, {"top_p": 0.9}, "temperature"),  # what no temperature means
    ],
)
async def test_a_claude_that_takes_one_of_two_settings_is_asked_with_the_one_that_decides(
    server: Faults, temperature: float, top_p: float, sent: dict[str, float], ignored: str
) -> None:
    model = anthropic(server)
    words = "`temperature` and `top_p` cannot both be specified for this model. Use only one."
    server.says(400, {"error": {"message": words}})
    sampling = Sampling(temperature, 16, top_p)
    with pytest.raises(ModelUnavailable, match="takes no temperature and top_p together") as caught:
        await model.complete(QUESTION, sampling)
    assert caught.value.retry_after_s == 0.0
    server.says(200, MESSAGES)
    found = await model.complete(QUESTION, sampling)
    assert {k: v for k, v in server.bodies[-1].items() if k in ("temperature", "top_p")} == sent
    assert found.ignored == (ignored,)
    assert not model.samples_always
    assert (await ask(model)).ignored == ()  # one of them alone is sent


async def test_a_claude_that_takes_one_of_two_settings_rejects_two_that_both_matter(
    server: Faults,
) -> None:
    server.says(400, {"error": {"message": "`temperature` and `top_p` cannot both be specified"}})
    with pytest.raises(RequestRejected, match="cannot both be specified"):
        await ask(anthropic(server), temperature=0.7, top_p=0.9)


async def test_a_temperature_out_of_range_is_rejected_and_not_dropped(server: Faults) -> None:
    server.says(400, {"error": {"message": "temperature: range: 0..1"}})
    with pytest.raises(RequestRejected, match="range"):
        await ask(anthropic(server), temperature=1.5)


@pytest.mark.parametrize("connect", [OpenAIChat, AnthropicMessages])
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
