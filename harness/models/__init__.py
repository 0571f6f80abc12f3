"""Models by name: `openai/NAME`, `anthropic/NAME`, `local/NAME` or `local/PATH.gguf`.

A new provider is one file and one line in `_PROVIDERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from harness.errors import UsageError
from harness.types import Model


@dataclass(frozen=True)
class Endpoint:
    """Where a provider is asked, and with which key. None: the official server; no key."""

    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)


def resolve(
    spec: str, *, endpoints: Mapping[str, Endpoint], cache_dir: Path | None = None
) -> Model:
    """The model of a name. Cheap: nothing is sent, and no weights are loaded before a request.

    `endpoints` is keyed by provider; `cache_dir` holds pulled weights (None: the user's cache).
    Raises UsageError: unknown provider or local name, a base URL that is none, missing key,
    weights not on this machine.
    """
    provider, _, name = spec.partition("/")
    build = _PROVIDERS.get(provider)
    if build is None or not name:
        raise UsageError(
            f"unknown model {spec!r}: use openai/NAME, anthropic/NAME, local/NAME or "
            f"local/PATH.gguf; local names: {', '.join(local_names())}"
        )
    return build(spec, endpoints.get(provider, Endpoint()), cache_dir)


def local_names() -> tuple[str, ...]:
    """The names that `models pull` knows, without "local/"."""
    from harness.models.registry import WEIGHTS

    return tuple(WEIGHTS)


def _openai(spec: str, endpoint: Endpoint, cache_dir: Path | None) -> Model:
    from harness.models import openai

    key = _key(spec, endpoint, openai.OFFICIAL_URL, "OPENAI")
    return openai.connect(spec, endpoint.base_url, key)


def _anthropic(spec: str, endpoint: Endpoint, cache_dir: Path | None) -> Model:
    from harness.models import anthropic

    key = _key(spec, endpoint, anthropic.OFFICIAL_URL, "ANTHROPIC")
    return anthropic.connect(spec, endpoint.base_url, key)


def _local(spec: str, endpoint: Endpoint, cache_dir: Path | None) -> Model:
    from harness.models import local

    return local.open_local(spec, cache_dir)


def _key(spec: str, endpoint: Endpoint, official_url: str, variable: str) -> str:
    if endpoint.base_url:
        _check_url(endpoint.base_url, variable)
    if endpoint.api_key:
        if not all("!" <= character <= "~" for character in endpoint.api_key):
            raise UsageError(f"{variable}_API_KEY holds characters that no key has")
        return endpoint.api_key
    if endpoint.base_url and not endpoint.base_url.startswith(official_url):
        return "none"  # a server of one's own asks for none, but the SDK does
    raise UsageError(
        f"{variable}_API_KEY is not set: {spec} needs a key; set it, or set {variable}_BASE_URL "
        "to a server that needs none"
    )


def _check_url(url: str, variable: str) -> None:
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
    else:
        return
    raise UsageError(f"{variable}_BASE_URL {wrong}: expected one like http://127.0.0.1:8000/v1")


_PROVIDERS: dict[str, Callable[[str, Endpoint, Path | None], Model]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "local": _local,
}
