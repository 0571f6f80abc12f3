"""A model that answers from a script: for tests, and for trying a method without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.models import wire
from harness.types import About, Completion, Message, Model, Sampling

Replies = Sequence[str | Exception] | Callable[[Sequence[Message]], str]


class ScriptedModel(Model):
    """Answers with `replies` in order, or with what the function makes of the messages.

    An exception among the replies is raised. Tokens are words; every answer is free.
    """

    connections = most_connections = 8
    simulated = True
    cacheable = False  # replies go by their number

    def __init__(self, name: str, replies: Replies) -> None:
        if not name.startswith("scripted/"):
            raise ValueError(f"{name!r}: the name of a scripted model begins with 'scripted/'")
        self.name = name
        self.requests: list[dict[str, Any]] = []  # every request, as it came
        self._replies = replies

    def identity(self) -> dict[str, Any]:
        return {"name": self.name}

    def price(self, completion: Completion) -> float | None:
        return 0.0

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        seed: int | None = None,
        about: About | None = None,
    ) -> Completion:
        """The next reply. Raises AssertionError when the script has run out."""
        number = len(self.requests)
        self.requests.append({"messages": list(messages), "seed": seed, **sampling.as_dict()})
        if callable(self._replies):
            reply: str | Exception = self._replies(messages)
        elif number < len(self._replies):
            reply = self._replies[number]
        else:
            raise AssertionError(f"{self.name}: request {number + 1}, but no reply is left for it")
        if isinstance(reply, Exception):
            raise reply
        prompt_tokens = sum(len(message["content"].split()) for message in messages)
        text = wire.clean(reply)
        return Completion(text, prompt_tokens, len(text.split()), finish="stop", model=self.name)

    async def close(self) -> None:
        pass
