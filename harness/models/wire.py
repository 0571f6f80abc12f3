"""What the vendors' SDKs have in common: reading a reply, and failures as our own errors.

The SDKs check no reply: whatever a server or a proxy sends with status 200 comes through.
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from harness.errors import ModelError, ModelRefused, ModelUnavailable, RequestRejected

TIMEOUT_S = 600.0
CONNECT_TIMEOUT_S = 15.0

NO_JSON = (json.JSONDecodeError, UnicodeDecodeError, RecursionError)  # as the SDKs let them pass

_REFUSED = {401, 402, 403, 404, 405}  # key, account, permission, model's name, base URL
_BUSY = {408, 409, 425, 429}
_OUT_OF_CREDIT = ("insufficient_quota", "credit balance")  # as OpenAI and Anthropic say it


def public_url(url: str) -> str:
    """The URL without user, password and query: what may be written down."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/")


def clean(text: str) -> str:
    """`text` with every lone surrogate, which no UTF-8 can hold, replaced."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def plain(reply: object) -> Mapping[str, Any]:
    """What an SDK made of a reply, as plain data; empty where the reply was no JSON object."""
    from pydantic import BaseModel

    return reply.model_dump(warnings=False) if isinstance(reply, BaseModel) else {}


def part(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object under a name; empty where there is none, or something else."""
    value = found.get(name)
    return value if isinstance(value, Mapping) else {}


def text_of(content: object) -> str | None:
    """A reply's text: a string, or the text parts of a list; None for anything else."""
    if isinstance(content, str):
        return clean(content)
    if not isinstance(content, list) or not all(isinstance(one, Mapping) for one in content):
        return None
    texts = [one.get("text") for one in content if one.get("type") == "text"]
    if not all(isinstance(text, str) for text in texts):
        return None
    return clean("".join(map(str, texts)))


def word(value: object) -> str | None:
    """A short text of a reply, as its model or its reason to stop; None for anything else."""
    return clean(value) if isinstance(value, str) else None


def tokens(value: object) -> int | None:
    """A count of tokens that can be one, else None: unknown."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        return None
    return value


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
