"""Any server with the OpenAI chat route, through the vendor's SDK (never its retries: ours count).

Reasoning models take no sampling settings; what was asked for and not sent stands in
`Completion.ignored`. https://platform.openai.com/docs/guides/reasoning
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from harness.errors import ModelUnavailable
from harness.models import prices, wire
from harness.types import Completion, Message

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

OFFICIAL_URL = "https://api.openai.com/v1"

_REASONING = ("o1", "o3", "o4", "gpt-5")
_CHAT = ("gpt-5-chat",)  # reasons not, in spite of its name
_NO_SYSTEM = ("o1-mini", "o1-preview")


def connect(
    name: str, base_url: str | None, api_key: str, *, timeout_s: float = wire.TIMEOUT_S
) -> OpenAIChat:
    """A model at `base_url` (default: the official one). Nothing is sent yet."""
    import openai

    client = openai.AsyncOpenAI(
        api_key=api_key,
        base_url=base_url or OFFICIAL_URL,
        max_retries=0,
        timeout=openai.Timeout(timeout_s, connect=min(timeout_s, wire.CONNECT_TIMEOUT_S)),
        http_client=openai.DefaultAioHttpClient(),
    )
    return OpenAIChat(name, client)


class OpenAIChat:
    """One model of one server. The client carries base URL, key and timeout."""

    def __init__(self, name: str, client: AsyncOpenAI, *, connections: int = 16) -> None:
        self.name = name  # "openai/gpt-4o-mini"
        self.connections = connections
        self._model = name.partition("/")[2]
        self._client = client
        self._url = str(client.base_url)
        family = self._model.rpartition("/")[2]
        reasoning = family.startswith(_REASONING) and not family.startswith(_CHAT)
        self.samples_always = reasoning  # whatever the temperature that it is asked with
        # Settings that this model is known not to take; grows when the server says so.
        self._untaken = {"temperature", "top_p", "max_tokens"} if reasoning else set[str]()
        if family.startswith(_NO_SYSTEM):
            self._untaken.add("system")

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
        import openai

        asked = {"temperature": temperature, "top_p": top_p, "seed": seed}
        settings: dict[str, Any] = {k: value for k, value in asked.items() if value is not None}
        ignored = [key for key in settings if key in self._untaken]
        for key in ignored:
            del settings[key]
        limit = "max_completion_tokens" if "max_tokens" in self._untaken else "max_tokens"
        settings[limit] = max_tokens
        if "system" in self._untaken and any(m["role"] == "system" for m in messages):
            messages = _without_system(messages)
            ignored.append("system")
        try:
            reply = await self._client.chat.completions.create(
                model=self._model, messages=cast(Any, list(messages)), **settings
            )
        except openai.APIStatusError as error:
            raise self._fault(error, settings) from None  # its text may repeat the key
        except openai.APIConnectionError as error:
            raise wire.unreachable(self.name, self._url, error) from error
        except (openai.APIError, *wire.NO_JSON) as error:
            raise wire.unreadable(self.name, self._url) from error
        return self._completion(reply, tuple(ignored))

    def _fault(self, error: APIStatusError, sent: dict[str, Any]) -> Exception:
        setting = error.param or ""
        if (
            error.status_code == 400
            and (error.code or "").startswith("unsupported")
            and setting in sent  # may be known by now: another request in flight was told
            and setting in ("temperature", "top_p", "seed", "max_tokens")
        ):
            self._untaken.add(setting)
            return ModelUnavailable(f"{self.name} takes no {setting}: ask again without it", 0.0)
        key, status, headers = self._client.api_key, error.status_code, error.response.headers
        return wire.fault(self.name, self._url, status, error.body, headers, key=key)

    def _completion(self, reply: object, ignored: tuple[str, ...]) -> Completion:
        found = wire.plain(reply)
        choices = found.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        message = first.get("message") if isinstance(first, Mapping) else None
        if not isinstance(first, Mapping) or not isinstance(message, Mapping):
            raise wire.unreadable(self.name, self._url)
        content = message.get("content")  # null where the model answered with no text at all
        text = "" if content is None else wire.text_of(content)
        if text is None:
            raise wire.unreadable(self.name, self._url)
        usage = wire.part(found, "usage")
        prompt = wire.part(usage, "prompt_tokens_details")
        completion = wire.part(usage, "completion_tokens_details")
        return Completion(
            text=text,
            prompt_tokens=wire.tokens(usage.get("prompt_tokens")),
            completion_tokens=wire.tokens(usage.get("completion_tokens")),
            cached_tokens=wire.tokens(prompt.get("cached_tokens")),
            reasoning_tokens=wire.tokens(completion.get("reasoning_tokens")),
            finish=wire.word(first.get("finish_reason")),
            model=wire.word(found.get("model")),
            ignored=ignored,
        )

    async def close(self) -> None:
        await self._client.close()


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """The same texts for a model without system role: in front of the first user message."""
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    rest = [m for m in messages if m["role"] != "system"]
    first = next((i for i, m in enumerate(rest) if m["role"] == "user"), None)
    if first is None:
        return [{"role": "user", "content": system}, *rest]
    joined: Message = {"role": "user", "content": f"{system}\n\n{rest[first]['content']}"}
    return [*rest[:first], joined, *rest[first + 1 :]]
