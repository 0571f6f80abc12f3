"""The Anthropic Messages API, through the vendor's SDK (never its retries: ours count).

API version 2026-10-21 and the SDK from 1.0 on know no temperature and no top_p. A benchmark needs
them, so requests carry version 2023-06-01 and put both beside the SDK's own fields; newer models
refuse them there too, which is learned from their first answer and recorded in
`Completion.ignored`. There is no seed. https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from harness.errors import ModelUnavailable
from harness.models import prices, wire
from harness.types import Completion, Message

if TYPE_CHECKING:
    from anthropic import APIStatusError, AsyncAnthropic

OFFICIAL_URL = "https://api.anthropic.com"

# How a model says that it takes no such setting at all; a value out of range sounds otherwise.
_NOT_TAKEN = ("deprecated", "not permitted", "not supported", "unsupported")
_FINISH = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}


def connect(
    name: str, base_url: str | None, api_key: str, *, timeout_s: float = wire.TIMEOUT_S
) -> AnthropicMessages:
    """A model at `base_url` (default: the official one). Nothing is sent yet."""
    import anthropic

    client = anthropic.AsyncAnthropic(
        api_key=api_key,
        base_url=(base_url or OFFICIAL_URL).rstrip("/").removesuffix("/v1"),
        max_retries=0,
        timeout=anthropic.Timeout(timeout_s, connect=min(timeout_s, wire.CONNECT_TIMEOUT_S)),
        http_client=anthropic.DefaultAioHttpClient(),
        default_headers={"anthropic-version": "2023-06-01"},
    )
    return AnthropicMessages(name, client)


class AnthropicMessages:
    """One model of one server. The client carries base URL, key and timeout."""

    samples_always = False

    def __init__(self, name: str, client: AsyncAnthropic, *, connections: int = 16) -> None:
        self.name = name  # "anthropic/claude-sonnet-4-5"
        self.connections = connections
        self._model = name.partition("/")[2]
        self._client = client
        self._url = str(client.base_url)
        self._untaken = {"seed"}  # settings that this model does not take

    def identity(self) -> dict[str, Any]:
        """Name and server. No key."""
        return {"name": self.name, "base_url": wire.public_url(self._url)}

    def price(self, completion: Completion) -> float | None:
        """Dollars at the server's list price; None for a server that the price table lacks."""
        return prices.price(completion, self._model, self._url)

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float,
        seed: int | None = None,
        top_p: float | None = None,
    ) -> Completion:
        """Answer once; one request. Raises ModelRefused, RequestRejected, ModelUnavailable."""
        import anthropic

        asked = {"temperature": temperature, "top_p": top_p, "seed": seed}
        settings = {key: value for key, value in asked.items() if value is not None}
        ignored = tuple(key for key in settings if key in self._untaken)
        for key in ignored:
            del settings[key]
        system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
        try:
            reply = await self._client.messages.create(
                model=self._model,
                messages=cast(Any, [m for m in messages if m["role"] != "system"]),
                max_tokens=max_tokens,
                system=system or anthropic.omit,
                extra_body=settings,
            )
        except anthropic.APIStatusError as error:
            raise self._fault(error, settings) from None  # its text may repeat the key
        except anthropic.APIConnectionError as error:
            raise wire.unreachable(self.name, self._url, error) from error
        except (anthropic.APIError, *wire.NO_JSON) as error:
            raise wire.unreadable(self.name, self._url) from error
        return self._completion(reply, ignored)

    def _fault(self, error: APIStatusError, sent: dict[str, Any]) -> Exception:
        words = wire.explain(error.body)
        named = {setting for setting in sent if setting in words}
        if error.status_code == 400 and named and any(sign in words for sign in _NOT_TAKEN):
            self._untaken |= named
            which = " and ".join(sorted(named))
            return ModelUnavailable(f"{self.name} takes no {which}: ask again without it", 0.0)
        key, status, headers = self._client.api_key or "", error.status_code, error.response.headers
        return wire.fault(self.name, self._url, status, error.body, headers, key=key)

    def _completion(self, reply: object, ignored: tuple[str, ...]) -> Completion:
        found = wire.plain(reply)
        text = wire.text_of(found.get("content"))
        if text is None:
            raise wire.unreadable(self.name, self._url)
        usage = wire.part(found, "usage")
        beside = (usage.get(f"cache_{kind}_input_tokens") for kind in ("read", "creation"))
        prompt = [wire.tokens(usage.get("input_tokens")), *(wire.tokens(n or 0) for n in beside)]
        reason = wire.word(found.get("stop_reason"))
        return Completion(
            text=text,
            prompt_tokens=None if None in prompt else wire.tokens(sum(n or 0 for n in prompt)),
            completion_tokens=wire.tokens(usage.get("output_tokens")),
            cached_tokens=wire.tokens(usage.get("cache_read_input_tokens")),
            finish=_FINISH.get(reason or "", reason),
            model=wire.word(found.get("model")),
            ignored=ignored,
        )

    async def close(self) -> None:
        await self._client.close()
