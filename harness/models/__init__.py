"""Models by name, `provider/rest`: `FORMS` lists them.

A new provider is one file and one line in `_PROVIDERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from harness.errors import UsageError
from harness.types import Model

if TYPE_CHECKING:
    from harness.models.prices import Prices

FORMS = (
    "openai/NAME",
    "anthropic/NAME",
    "vllm/NAME",
    "local/NAME",
    "local/PATH.gguf",
    "hf/PATH",
    "replay/FILE",
    "sim/skill=0.7,seed=1",
)


@dataclass(frozen=True)
class Endpoint:
    """Where a provider is asked, and with which key. None: the official server; no key."""

    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    origin: str | None = None  # what set `base_url`, "--base-url", for messages; None: its variable


def resolve(
    spec: str,
    *,
    endpoints: Mapping[str, Endpoint],
    cache_dir: Path | None = None,
    prices: Prices | None = None,
) -> Model:
    """The model of a name. Cheap: nothing is sent, and no weights are loaded before a request.

    `endpoints` is keyed by provider; `cache_dir` holds pulled weights (None: the user's cache);
    `prices` go for hosted models (None: the price table alone).
    Raises UsageError: unknown provider or local name, a base URL that is none, missing key,
    weights or recordings not on this machine.
    """
    provider, _, name = spec.partition("/")
    build = _PROVIDERS.get(provider)
    if build is None or not (name or spec == "sim/"):
        raise UsageError(
            f"unknown model {spec!r}: use {', '.join(FORMS[:-1])} or {FORMS[-1]}; "
            f"local names: {', '.join(local_names())}"
        )
    return build(_Wanted(spec, endpoints.get(provider, Endpoint()), cache_dir, prices))


@dataclass(frozen=True)
class _Wanted:
    """All that a provider may need to build a model."""

    spec: str
    endpoint: Endpoint
    cache_dir: Path | None
    prices: Prices | None


def local_names() -> tuple[str, ...]:
    """The names that `models pull` knows, without "local/"."""
    from harness.models.registry import WEIGHTS

    return tuple(WEIGHTS)


def _openai(wanted: _Wanted) -> Model:
    from harness.models import openai

    key = _key(wanted, "OPENAI", official_url=openai.OFFICIAL_URL)
    return openai.OpenAIChat(wanted.spec, wanted.endpoint.base_url, key, prices=wanted.prices)


def _anthropic(wanted: _Wanted) -> Model:
    from harness.models import anthropic

    key = _key(wanted, "ANTHROPIC", official_url=anthropic.OFFICIAL_URL)
    return anthropic.AnthropicMessages(
        wanted.spec, wanted.endpoint.base_url, key, prices=wanted.prices
    )


def _vllm(wanted: _Wanted) -> Model:
    from harness.models import vllm

    key = _key(wanted, "VLLM", official_url=None)
    return vllm.VLLM(wanted.spec, wanted.endpoint.base_url, key, prices=wanted.prices)


def _local(wanted: _Wanted) -> Model:
    from harness.models import local

    return local.open_local(wanted.spec, wanted.cache_dir)


def _hf(wanted: _Wanted) -> Model:
    from harness.models import hf

    return hf.open_hf(wanted.spec)


def _replay(wanted: _Wanted) -> Model:
    from harness.models import replay

    return replay.open_replay(wanted.spec)


def _sim(wanted: _Wanted) -> Model:
    from harness.models import sim

    return sim.open_sim(wanted.spec)


def _key(wanted: _Wanted, variable: str, *, official_url: str | None) -> str:
    """The key to send. `official_url` is the server that needs one; None: no server does."""
    endpoint = wanted.endpoint
    if endpoint.base_url:
        _check_url(endpoint.base_url, endpoint.origin or f"{variable}_BASE_URL")
    if endpoint.api_key:
        if not all("!" <= character <= "~" for character in endpoint.api_key):
            raise UsageError(f"{variable}_API_KEY holds characters that no key has")
        return endpoint.api_key
    own = endpoint.base_url and not endpoint.base_url.startswith(official_url or "")
    if own or official_url is None:
        return "none"  # a server of one's own asks for none, but the SDK does
    raise UsageError(
        f"{variable}_API_KEY is not set: {wanted.spec} needs a key; set it, or set "
        f"{variable}_BASE_URL to a server that needs none"
    )


def _check_url(url: str, origin: str) -> None:
    """Raises UsageError, without the URL, which may hold a password, unless it names a server."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")
        usable = url.isprintable() and " " not in url and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        wrong = "is no URL"
    elif parts.scheme not in ("http", "https"):
        wrong = "does not begin with http:// or https://"
    elif not parts.hostname:
        wrong = "names no host"
    elif parts.username is not None or parts.password is not None:
        wrong = "holds a user or a password, which cannot go beside a key: leave them out"
    elif "?" in url or "#" in url:  # routes are appended to it
        wrong = "holds a ? or a #, behind which no route can be added: leave out what follows it"
    else:
        return
    raise UsageError(f"{origin} {wrong}: expected one like http://127.0.0.1:8000/v1")


_PROVIDERS: dict[str, Callable[[_Wanted], Model]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "vllm": _vllm,
    "local": _local,
    "hf": _hf,
    "replay": _replay,
    "sim": _sim,
}
