"""The Anthropic Messages API, through the vendor's SDK (never its retries: ours count).

API version 2026-10-21 and the SDK's own calls from 1.0 on know no temperature and no top_p. A
benchmark needs them, so requests carry version 2023-06-01 and put both beside the other fields;
newer models refuse them there too, or both at once, which is learned from their first answer and
recorded in `Completion.ignored`. There is no seed. Reasoning effort is `output_config.effort`,
refused by models that do not know it. The key goes as `x-api-key`, which that version asks for (the
SDK's own way from 1.0 on is a bearer's). https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.models import wire
from harness.types import About, Completion, Limits, Message, Sampling

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic


OFFICIAL_URL = "https://api.anthropic.com"

# How a model says that it takes no such setting at all; a value out of range sounds otherwise.
_NOT_TAKEN = ("deprecated", "not permitted", "not supported", "unsupported", "not support")
_SPELLED = {"reasoning_effort": ("effort", "output_config")}  # in its messages, where it differs
_FINISH = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}


class AnthropicMessages(wire.Wired):
    """One model of one server with the messages route."""

    default_url = OFFICIAL_URL

    def _known(self) -> None:
        self._url = self._url.rstrip("/").removesuffix("/v1")  # which the SDK puts there itself
        self._untaken |= {"seed"}
        self._one_of_two = False  # it takes temperature or top_p, never both

    @functools.cached_property
    def _sdk(self) -> Any:
        import anthropic

        return anthropic

    @functools.cached_property
    def _client(self) -> AsyncAnthropic:
        import anthropic

        client = anthropic.AsyncAnthropic(
            **self._connection(),
            open_telemetry=False,  # else it asks the environment
        )
        client.api_key = None  # it would go as a bearer's, which is not how 2023-06-01 wants it
        # these alone, and none of ANTHROPIC_CUSTOM_HEADERS, which it reads by itself
        client._custom_headers = {"anthropic-version": "2023-06-01", "X-Api-Key": self._key}
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
        system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [m for m in messages if m["role"] != "system"],
            "max_tokens": sampling.max_tokens,
            **({"system": system} if system else {}),
            **{key: value for key, value in settings.items() if key != "reasoning_effort"},
            **sampling.extra_body,
        }
        if "reasoning_effort" in settings:
            effort = {"effort": settings["reasoning_effort"]}
            body["output_config"] = dict(wire.part(body, "output_config")) | effort
        return await self._ask("/v1/messages", body, settings, tuple(ignored))

    def _settings(self, sampling: Sampling, seed: int | None) -> tuple[dict[str, Any], list[str]]:
        """As of any model; of temperature and top_p the one that decides, where one may go."""
        settings, ignored = super()._settings(sampling, seed)
        idle = _idle(settings)
        if self._one_of_two and idle is not None:
            del settings[idle]
            ignored.append(idle)
        return settings, ignored

    def _learn(self, body: object, sent: Mapping[str, Any]) -> str:
        if "cannot both be specified" in wire.explain(body) and _idle(sent) is not None:
            self._one_of_two = True
            return "temperature and top_p together: ask again with one of them"
        return super()._learn(body, sent)

    def _refused(self, body: object, sent: Mapping[str, Any]) -> set[str]:
        """By the words of its message, which has neither code nor parameter."""
        words = wire.explain(body)
        if not any(sign in words for sign in _NOT_TAKEN):
            return set()
        named = {
            key for key in sent if any(spelled in words for spelled in _SPELLED.get(key, (key,)))
        }
        effort = str(sent.get("reasoning_effort"))
        if re.search(rf"\b{re.escape(effort)}\b", words):  # this level of it is not taken
            named.discard("reasoning_effort")
        return named

    def _completion(
        self, found: Mapping[str, Any], ignored: tuple[str, ...], limits: Limits | None
    ) -> Completion | None:
        text = wire.text_of(found.get("content"))
        if text is None:
            return None
        usage = wire.part(found, "usage")
        beside = (usage.get(f"cache_{kind}_input_tokens") for kind in ("read", "creation"))
        prompt = [wire.tokens(usage.get("input_tokens")), *(wire.tokens(n or 0) for n in beside)]
        reason = wire.word(found.get("stop_reason"))
        return Completion(
            text=text,
            prompt_tokens=None if None in prompt else wire.tokens(sum(n or 0 for n in prompt)),
            completion_tokens=wire.tokens(usage.get("output_tokens")),
            cached_tokens=wire.tokens(usage.get("cache_read_input_tokens")),
            cache_write_tokens=wire.tokens(usage.get("cache_creation_input_tokens")),
            finish=_FINISH.get(reason or "", reason),
            model=wire.word(found.get("model")),
            ignored=ignored,
            limits=limits,
        )


def _idle(settings: Mapping[str, Any]) -> str | None:
    """Of temperature and top_p, where both are given, the one that changes nothing; else None.

    Greedy answers have no tail to cut, a temperature of 1 is what no temperature means, and so is
    a top_p of 1. Where both matter the request can only be rejected.
    """
    if not {"temperature", "top_p"} <= settings.keys():
        return None
    if settings["temperature"] == 0 or settings["top_p"] == 1:
        return "top_p"
    return "temperature" if settings["temperature"] == 1 else None
