"""Any server with the OpenAI chat route, through the vendor's SDK (never its retries: ours count).

Reasoning models take no sampling settings; what was asked for and not sent stands in
`Completion.ignored`. https://platform.openai.com/docs/guides/reasoning
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.models import wire
from harness.types import About, Completion, Limits, Message, Sampling

if TYPE_CHECKING:
    from openai import AsyncOpenAI


OFFICIAL_URL = "https://api.openai.com/v1"

_REASONING = ("o1", "o3", "o4", "gpt-5")
_CHAT = ("gpt-5-chat",)  # reasons not, in spite of its name
_EARLY = ("o1-mini", "o1-preview")  # reason, and take neither system message nor effort
_SETTINGS = {"temperature", "top_p", "seed", "max_tokens", "reasoning_effort"}


class OpenAIChat(wire.Wired):
    """One model of one server with the chat route."""

    _unasked: Mapping[str, Any] = {}  # sent where a sampling does not say otherwise

    default_url = OFFICIAL_URL

    def _known(self) -> None:
        family = self._model.rpartition("/")[2]
        if family.startswith(_REASONING) and not family.startswith(_CHAT):
            self.samples_always = True  # whatever the temperature that it is asked with
            self._untaken |= {"temperature", "top_p", "max_tokens"}
        if family.startswith(_EARLY):
            self._untaken |= {"system", "reasoning_effort"}

    @functools.cached_property
    def _sdk(self) -> Any:
        import openai

        return openai

    @functools.cached_property
    def _client(self) -> AsyncOpenAI:
        import openai

        client = openai.AsyncOpenAI(**self._connection())
        # It reads OPENAI_ORG_ID, OPENAI_PROJECT_ID, OPENAI_ADMIN_KEY and OPENAI_CUSTOM_HEADERS by
        # itself: none of them may go to whatever server this is.
        client.organization = client.project = client.admin_api_key = None
        client._custom_headers = {}
        return client

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        seed: int | None = None,
        about: About | None = None,
    ) -> Completion:
        """Answer once; one request.

        Raises ModelRefused, RequestRejected, RateLimited, ModelUnavailable.
        """
        settings, ignored = self._settings(sampling, seed)
        limit = "max_completion_tokens" if "max_tokens" in self._untaken else "max_tokens"
        settings[limit] = sampling.max_tokens
        if "system" in self._untaken and any(m["role"] == "system" for m in messages):
            messages = _without_system(messages)
            ignored.append("system")
        body = {
            "model": self._model,
            "messages": messages,
            **self._unasked,
            **self._going_on(messages),
            **settings,
            **sampling.extra_body,
        }
        return await self._ask("/chat/completions", body, settings, tuple(ignored))

    def _going_on(self, messages: Sequence[Message]) -> Mapping[str, Any]:
        """What tells a server to go on with a last message of the assistant's."""
        return {}

    def _refused(self, body: object, sent: Mapping[str, Any]) -> set[str]:
        """By code and parameter; of an argument unknown to a model the message alone tells."""
        error = body if isinstance(body, Mapping) else {}
        code, setting = str(error.get("code") or ""), error.get("param")
        words = wire.explain(body)
        # a level of effort that the model does not know is no refusal of all levels
        value = setting == "reasoning_effort" and code == "unsupported_value"
        if setting in _SETTINGS & sent.keys() and code.startswith("unsupported") and not value:
            return {str(setting)}
        if words.startswith("Unrecognized request argument"):
            return {name for name in _SETTINGS & sent.keys() if name in words}
        return set()

    def _completion(
        self, found: Mapping[str, Any], ignored: tuple[str, ...], limits: Limits | None
    ) -> Completion | None:
        choices = found.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        message = first.get("message") if isinstance(first, Mapping) else None
        if not isinstance(first, Mapping) or not isinstance(message, Mapping):
            return None
        content = message.get("content")  # null where the model answered with no text at all
        text = "" if content is None else wire.text_of(content)
        if text is None:
            return None
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
            limits=limits,
        )


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """The same texts for a model without system role: in front of the first user message."""
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    rest = [m for m in messages if m["role"] != "system"]
    first = next((i for i, m in enumerate(rest) if m["role"] == "user"), None)
    if first is None:
        return [{"role": "user", "content": system}, *rest]
    joined: Message = {"role": "user", "content": f"{system}\n\n{rest[first]['content']}"}
    return [*rest[:first], joined, *rest[first + 1 :]]
