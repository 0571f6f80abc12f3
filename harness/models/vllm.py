"""A vLLM server of one's own: the OpenAI chat route, without the vendor's limits and prices.

`python -m harness serve NAME` starts one; https://docs.vllm.ai/en/latest/serving/openai_compatible_server
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from harness.errors import ModelError, ModelRefused
from harness.models import wire
from harness.models.openai import OpenAIChat
from harness.types import Completion, Message

if TYPE_CHECKING:
    pass

DEFAULT_URL = "http://127.0.0.1:8000/v1"

_OWN_NAMES = (".local", ".localhost", ".internal", ".lan", ".home.arpa")


class VLLM(OpenAIChat):
    """One model that a vLLM server serves."""

    connections = 32  # it batches what arrives together: few in flight leave it idle
    most_connections = 256  # its own default for what it computes at once (--max-num-seqs)
    # Where a request says nothing, vLLM takes a checkpoint's own generation_config.json: cut tails,
    # and for some a penalty that changes greedy answers too. Off, so that a temperature means here
    # what it means elsewhere.
    _unasked = MappingProxyType(
        {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    )

    default_url = DEFAULT_URL

    def _going_on(self, messages: Sequence[Message]) -> Mapping[str, Any]:
        if messages[-1]["role"] != "assistant":
            return {}
        return {"add_generation_prompt": False, "continue_final_message": True}

    def _known(self) -> None:
        """Nothing: whatever its name recalls, the server takes all settings."""

    def price(self, completion: Completion) -> float | None:
        """0.0 on a machine or network of one's own, unless a file of prices says otherwise.

        Nobody bills such tokens, and what the hardware costs no request can tell: tokens and
        minutes are the cost, and stand beside. A server at a public address may be rented by the
        token: its price is unknown (None) until a file tells it.
        """
        if self._prices.own(self.name) or not _is_own(self._url):
            return super().price(completion)
        return 0.0

    def _unreachable(self, error: BaseException) -> ModelError:
        """Where nothing has ever listened, no waiting helps, and the run ends with what does."""
        if isinstance(wire.root(error), ConnectionRefusedError) and not self._answered:
            return ModelRefused(
                f"{self._where}: nothing listens there: start it with `python -m harness serve "
                f"{self.name}`, or set VLLM_BASE_URL (--base-url) to a server that runs"
            )
        return super()._unreachable(error)


def _is_own(url: str) -> bool:
    """Whether the host is this machine, or one of a private network."""
    host = (urlsplit(url).hostname or "").lower()
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:  # a name
        return "." not in host or host.endswith(_OWN_NAMES)
