"""What the vendors' SDKs have in common: one request, its reply, and failures as our own errors.

Requests go through the SDK's documented way to any route (`client.post`), which sends and checks
the status and leaves the reply as it came: its model classes check nothing and cost more CPU than
all the rest of a call. So whatever a server or a proxy sends with status 200 comes through to here.
"""

from __future__ import annotations

import asyncio
import email.utils
import functools
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from harness.errors import (
    ModelError,
    ModelRefused,
    ModelUnavailable,
    RateLimited,
    RequestRejected,
    UsageError,
)
from harness.types import Completion, Limits, Model, Sampling

if TYPE_CHECKING:
    from harness.models.prices import Prices

TIMEOUT_S = 600.0  # for one reply, from the first byte sent to the last received
CONNECT_TIMEOUT_S = 15.0

_REFUSED = {401, 402, 403, 404, 405}  # key, account, permission, model's name, base URL
_BUSY = {408, 409, 425, 429}
_OUT_OF_CREDIT = ("insufficient_quota", "credit balance")  # as OpenAI and Anthropic say it
_WORDS = 300  # characters of a server's own words in a message
_KEY = 8  # characters: what is shorter is no secret, and may be a word of any text

_REPLY = {"choices", "content", "error"}  # one of them stands in every reply of a model's server

# What of a request stands in a row under its own name, and how it is set; no `extra_body` may
# say otherwise.
_INSTEAD = {
    **dict.fromkeys(
        ("temperature", "top_p", "max_tokens", "reasoning_effort"), "use --sampling ROLE.{}"
    ),
    "max_completion_tokens": "use --sampling ROLE.max_tokens",
    "seed": "use --seed",
    **dict.fromkeys(("model", "messages", "system", "stream", "n"), "the harness sets it"),
}
RESERVED = frozenset(_INSTEAD)
# With any other value tokens have another price than the one that the row would show.
_USUAL = {"service_tier": {"auto", "default", "standard_only"}, "speed": {"standard"}}


def check_extra(body: Mapping[str, Any]) -> None:
    """Raises UsageError for an `extra_body` that would make a row say what was not asked."""
    for name in body:
        if name in RESERVED:
            raise UsageError(f"extra_body may not hold {name}: {_INSTEAD[name].format(name)}")
        if name in _USUAL and str(body[name]) not in _USUAL[name]:
            raise UsageError(
                f"extra_body may not hold {name}={body[name]}: its price is not known; leave it out"
            )


def public_url(url: str) -> str:
    """The URL without user, password and query: what may be written down."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/")


def clean(text: str) -> str:
    """`text` with every lone surrogate, which no UTF-8 can hold, replaced."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def plain(content: bytes) -> Mapping[str, Any]:
    """The JSON object of a reply; empty where it holds something else, or no JSON at all."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):  # a page, half a reply, other bytes, brackets without end
        return {}
    return found if isinstance(found, dict) else {}


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


def masked(text: str, key: str) -> str:
    """`text` without the key, wherever a server repeats it."""
    return text.replace(key, "[key]") if len(key) >= _KEY else text


def one_line(text: str, key: str = "") -> str:
    """`text` on one line of some length, without the key."""
    return " ".join(masked(text, key).split())[:_WORDS]  # a key that is cut would be left in part


def explain(body: object, key: str = "") -> str:
    """The server's own words in an error body of either vendor, on one line; may be empty."""
    while isinstance(body, Mapping):
        body = body.get("error") or body.get("message")
    return one_line(body, key) if isinstance(body, str) else ""


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait (RFC 9110, 10.2.3); None when it does not say."""
    milliseconds, value = _number(headers.get("retry-after-ms")), headers.get("retry-after")
    if milliseconds is not None:
        return milliseconds / 1000
    if value is None or _number(value) is not None:
        return _number(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - _now(headers))
    except ValueError:
        return None


def limits(headers: Mapping[str, str]) -> Limits | None:
    """What a reply's headers tell of rate limits; None where they tell nothing.

    OpenAI and those who follow it: `x-ratelimit-remaining-tokens`, with times as "6m0s" or "20ms";
    https://platform.openai.com/docs/guides/rate-limits. Anthropic:
    `anthropic-ratelimit-tokens-remaining`, with the moment of the reset (RFC 3339);
    https://platform.claude.com/docs/en/api/rate-limits. Of the limits for tokens read and tokens
    written, which it tells besides, the one of which less is left stands for a limit on tokens
    that it does not tell.
    """
    told = {key: value for key, value in headers.items() if "ratelimit-" in key}
    if not told:
        return None
    told["date"] = headers.get("date", "")
    requests, tokens = _limit(told, "requests"), _limit(told, "tokens")
    if tokens == _NOTHING:
        tokens = min(
            (_limit(told, f"{way}-tokens") for way in ("input", "output")),
            key=lambda one: math.inf if not one[0] or one[1] is None else one[1] / one[0],
        )
    found = Limits(*requests, *tokens)
    return None if found == Limits() else found


_NOTHING = (None, None, None)


def _limit(told: Mapping[str, str], what: str) -> tuple[float | None, float | None, float | None]:
    """The most, what is left, and the seconds until all is back."""
    openai, anthropic = f"x-ratelimit-{{}}-{what}", f"anthropic-ratelimit-{what}-{{}}"

    def get(part: str) -> str | None:
        return told.get(openai.format(part)) or told.get(anthropic.format(part))

    return _number(get("limit")), _number(get("remaining")), _reset_s(get("reset"), told)


def _number(text: str | None) -> float | None:
    """A number of 0 or more, else None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None


_UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|us|ns|d|h|m|s)")


def _reset_s(text: str | None, headers: Mapping[str, str]) -> float | None:
    """Seconds until a reset: "6m0s", plain seconds, or a moment."""
    if not text or _number(text) is not None:
        return _number(text)
    if _SPAN.sub("", text) == "":
        return sum(float(count) * _UNITS_S[unit] for count, unit in _SPAN.findall(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - _now(headers)) if moment.tzinfo else None


def _now(headers: Mapping[str, str]) -> float:
    """Unix seconds by the server's clock, where it tells, since its moments are of that clock."""
    try:
        return email.utils.parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return time.time()


def fault(
    where: str, status: int, body: object, headers: Mapping[str, str], *, key: str
) -> ModelError:
    """The error for an HTTP status. The key appears in none, even where the server repeats it."""
    words = explain(body, key)
    where = f"{where} answered {status}"
    if status == 401:  # servers repeat a part of the key here, so their words are left out
        return ModelRefused(f"{where}: the key is refused")
    message = f"{where}: {words}" if words else where
    if status in _REFUSED or any(sign in str(body) for sign in _OUT_OF_CREDIT):
        return ModelRefused(message)
    if status in _BUSY or status >= 500:
        kind = RateLimited if status == 429 else ModelUnavailable
        return kind(message, retry_after_s(headers), limits(headers))
    return RequestRejected(message)


class Wired(Model):
    """A model behind a vendor's SDK, which is imported with the first request: it takes 0.4 s."""

    default_url: str  # of the server that is meant where none is named

    def __init__(
        self,
        name: str,
        base_url: str | None,
        api_key: str,
        *,
        prices: Prices | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Nothing is sent yet."""
        from harness.models.prices import listed

        self.name = name
        self._model = name.partition("/")[2]  # as the server calls it
        self._url = base_url or self.default_url
        self._key = api_key
        self._prices = prices or listed()
        self._timeout_s = timeout_s
        self._untaken: set[str] = set()  # settings that this model is known not to take
        self._answered = False  # a completion has come, so name, key and URL are right
        self._known()

    def _known(self) -> None:
        """Set what is known of such models, and of this one by its name, before it is asked."""

    @functools.cached_property
    def _sdk(self) -> Any:
        """The vendor's module."""
        raise NotImplementedError

    @functools.cached_property
    def _client(self) -> Any:
        """The SDK's asynchronous client on its aiohttp transport; both vendors' are made alike."""
        raise NotImplementedError

    def _connection(self) -> dict[str, Any]:
        """What every SDK's client is opened with: no retries, up to 1,000 connections."""
        connect_s = min(self._timeout_s, CONNECT_TIMEOUT_S)
        return {
            "api_key": self._key,
            "base_url": self._url,
            "max_retries": 0,
            "timeout": self._sdk.Timeout(self._timeout_s, connect=connect_s),
            "http_client": self._sdk.DefaultAioHttpClient(follow_redirects=False),
        }

    def identity(self) -> dict[str, Any]:
        """Name and server. No key."""
        return {"name": self.name, "base_url": self.endpoint()}

    def endpoint(self) -> str:
        """Base URL, without what may not be written down."""
        return public_url(self._url)

    def price(self, completion: Completion) -> float | None:
        """Dollars at the server's list price; None for a server that the price table lacks."""
        return self._prices.price(completion, self.name, self._url)

    def _settings(self, sampling: Sampling, seed: int | None) -> tuple[dict[str, Any], list[str]]:
        """What this model takes of the settings that are given, and the names of the others."""
        given = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
            "reasoning_effort": sampling.reasoning_effort,
        }
        asked = {key: value for key, value in given.items() if value is not None}
        taken = {key: value for key, value in asked.items() if key not in self._untaken}
        return taken, [key for key in asked if key not in taken]

    async def _ask(
        self,
        path: str,
        body: Mapping[str, Any],
        settings: Mapping[str, Any],
        ignored: tuple[str, ...],
    ) -> Completion:
        """One request and its completion, in which the key stands nowhere.

        `settings` are those of `_settings` that the body carries, for the server to refuse;
        `ignored` are those that it carries not.
        """
        found, limits = await self._post(path, body, settings)
        completion = self._completion(found, ignored, limits)
        if completion is None:
            raise self._unreadable(found)
        self._answered = True
        return replace(
            completion,
            text=masked(completion.text, self._key),
            model=completion.model and masked(completion.model, self._key),
            finish=completion.finish and masked(completion.finish, self._key),
        )

    def _completion(
        self, found: Mapping[str, Any], ignored: tuple[str, ...], limits: Limits | None
    ) -> Completion | None:
        """What a reply's object says; None where it holds no completion."""
        raise NotImplementedError

    async def _post(
        self, path: str, body: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Limits | None]:
        """One request: the reply's JSON object, empty where it is none, and its rate limits."""
        import aiohttp
        import httpx2

        try:
            async with asyncio.timeout(self._timeout_s):  # the client's own is between two bytes
                response = await self._client.post(path, cast_to=httpx2.Response, body=body)
        except self._sdk.APIStatusError as error:
            status, headers = error.status_code, _headers(error.response)
            if 300 <= status < 400:
                raise self._redirected(headers.get("location", "")) from None
            if status == 400 and (learned := self._learn(error.body, settings)):
                raise ModelUnavailable(f"{self.name} takes no {learned}", 0.0) from None
            found = fault(self._where, status, error.body, headers, key=self._key)
            raise found from None  # its text may hold the key
        except (
            self._sdk.APIConnectionError,
            httpx2.HTTPError,
            aiohttp.ClientError,
            OSError,  # a TimeoutError is one
        ) as error:
            raise self._unreachable(error) from error
        return plain(response.content), limits(_headers(response))

    @property
    def _where(self) -> str:
        return f"{self.name}: {urlsplit(self.endpoint()).netloc}"

    def _learn(self, body: object, sent: Mapping[str, Any]) -> str:
        """What a 400 says that this model does not take, left out from now on; empty: nothing."""
        untaken = self._refused(body, sent)
        self._untaken |= untaken
        if "temperature" in untaken:
            self.samples_always = True
        which = " and ".join(sorted(untaken))
        return which and f"{which}: ask again without it"

    def _refused(self, body: object, sent: Mapping[str, Any]) -> set[str]:
        """Of the settings sent, those that the error of a 400 says this model never takes."""
        raise NotImplementedError

    def _unreachable(self, error: BaseException) -> ModelError:
        """The error for a time-out, a refused or a cut connection."""
        host = urlsplit(self.endpoint()).netloc
        if isinstance(error, TimeoutError):
            words = f"not whole after {self._timeout_s:g} s"
        else:
            cause = root(error)
            words = f"{type(cause).__name__}: {one_line(str(cause), self._key)}"
        return ModelUnavailable(f"{self.name}: no answer from {host}: {words}")

    def _unreadable(self, found: Mapping[str, Any]) -> ModelError:
        """The error for a reply of status 200 that is none: a proxy's page, half a JSON.

        No waiting helps where nothing has ever answered, nor looks like an answer of a model.
        """
        words = explain(found.get("error"), self._key)
        message = f"{self.name}: {self.endpoint()} sent no completion"
        kind = ModelUnavailable if self._answered or _REPLY & found.keys() else ModelRefused
        return kind(f"{message}: {words}" if words else f"{message}; is the base URL right?")

    def _redirected(self, location: str) -> ModelError:
        """The error for a redirect, which is not followed: the key would go along."""
        own = urlsplit(self.endpoint()).netloc
        try:
            host = urlsplit(location).netloc.rpartition("@")[2] or own
        except ValueError:
            host = "nowhere"
        kind = ModelUnavailable if self._answered else ModelRefused
        return kind(
            f"{self._where} answers with a redirect to {one_line(host, self._key)}: "
            "set the base URL to where it leads"
        )

    async def close(self) -> None:
        client = self.__dict__.pop("_client", None)  # a later request opens another
        if client is not None:
            await client.close()


def _headers(response: Any) -> dict[str, str]:
    """A reply's headers by their names in small letters; cheaper than the client's own view."""
    return {
        key.lower().decode("latin-1"): value.decode("latin-1")
        for key, value in response.headers.raw
    }


def root(error: BaseException) -> BaseException:
    """The first cause of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
