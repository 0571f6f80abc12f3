"""What the vendors' SDKs have in common: how a failed request becomes one of our errors."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from harness.errors import ModelError, ModelRefused, ModelUnavailable, RequestRejected

TIMEOUT_S = 600.0
CONNECT_TIMEOUT_S = 15.0

_REFUSED = {401, 402, 403, 404, 405}  # key, account, permission, model's name, base URL
_BUSY = {408, 409, 425, 429}
_OUT_OF_CREDIT = ("insufficient_quota", "credit balance")  # as OpenAI and Anthropic say it


def public_url(url: str) -> str:
    """The URL without user, password and query: what may be written down."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/")


def explain(body: object) -> str:
    """The server's own words in an error body of either vendor, on one line; may be empty."""
    while isinstance(body, Mapping):
        body = body.get("error") or body.get("message")
    return " ".join(body.split())[:300] if isinstance(body, str) else ""


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait (RFC 9110, 10.2.3); None when it does not say."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after")
    try:
        if milliseconds is not None:
            return max(0.0, float(milliseconds) / 1000)
        if value is None:
            return None
        if value.strip().isdigit():
            return float(value)
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def fault(
    name: str, url: str, status: int, body: object, headers: Mapping[str, str], *, key: str
) -> ModelError:
    """The error for an HTTP status. The key appears in none, even where the server repeats it."""
    words = explain(body)
    if len(key) >= 8:
        words = words.replace(key, "[key]")
    where = f"{name}: {urlsplit(public_url(url)).netloc} answered {status}"
    if status == 401:  # servers repeat a part of the key here, so their words are left out
        return ModelRefused(f"{where}: the key is refused")
    message = f"{where}: {words}" if words else where
    if status in _REFUSED or any(sign in str(body) for sign in _OUT_OF_CREDIT):
        return ModelRefused(message)
    if status in _BUSY or status >= 500:
        return ModelUnavailable(message, retry_after_s(headers))
    return RequestRejected(message)


def unreachable(name: str, url: str, error: Exception) -> ModelUnavailable:
    """The error for a time-out, a refused or a cut connection."""
    cause = error.__cause__ or error
    words = " ".join(str(cause).split())[:300] or "no further word"
    host = urlsplit(public_url(url)).netloc
    return ModelUnavailable(f"{name}: no answer from {host}: {type(cause).__name__}: {words}")


def unreadable(name: str, url: str) -> ModelUnavailable:
    """The error for a reply of status 200 that is no completion: a proxy's page, half a JSON."""
    return ModelUnavailable(f"{name}: {public_url(url)} sent no completion; is the base URL right?")
