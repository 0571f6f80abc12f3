"""What a completion costs: list prices of the package genai-prices (no network), or a file's own.

Unknown is None: a model or server without a price is never counted as free. Prices are dated: the
table holds several for models whose price has changed, and the time of the request chooses.

A file of prices goes before the table. It is TOML, one table per model as the user writes it, in
dollars per million tokens; `cached` are prompt tokens that the provider's own cache served, which
cost as much as the others where it is left out:

    ["openai/ft:gpt-4o-mini:me"]
    input = 0.30
    cached = 0.15
    output = 1.20
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.models import wire
from harness.types import Completion

_PRICED = ("openai", "anthropic", "vllm")  # providers whose models may be priced by a file
_NEEDED, _OPTIONAL = {"input", "output"}, {"cached"}


@dataclass(frozen=True)
class _Rate:
    """Dollars per million tokens."""

    input: float
    output: float
    cached: float | None = None


class Prices:
    """The price table, and before it the prices of a file where one is given."""

    def __init__(self, overrides: Path | None = None) -> None:
        """Reads the file. Raises UsageError that names the file, the model and what is expected."""
        self._rates: Mapping[str, _Rate] = {}
        self._file: str | None = None
        self._unknown: set[tuple[str, str]] = set()  # names that the table lacks, by server
        if overrides is not None:
            try:
                content = overrides.read_bytes()
            except OSError as error:
                raise UsageError(f"{overrides}: cannot read prices: {error.strerror}") from error
            self._rates = _read(content, overrides)
            self._file = f"{overrides.name} sha256:{hashlib.sha256(content).hexdigest()[:8]}"

    @property
    def version(self) -> str:
        """The package and version of the table; with a file, also its name and digest."""
        from importlib.metadata import version

        table = f"genai-prices {version('genai-prices')}"
        return table if self._file is None else f"{table} + {self._file}"

    def own(self, name: str) -> bool:
        """Whether the file prices this model, so that the table is not asked."""
        return name in self._rates

    def price(
        self, completion: Completion, name: str, server: str, *, at: datetime | None = None
    ) -> float | None:
        """Dollars for one completion; None when the model, the server or a count is unknown.

        `name` is the model as the user wrote it, `server` its base URL or the table's id
        ("openai"), `at` the time of the request (None: now). In the table, the model that the
        server reported goes before the one that was asked for: it names the dated snapshot.
        """
        prompt, written = completion.prompt_tokens, completion.completion_tokens
        if None in map(wire.tokens, (prompt, written, completion.cached_tokens or 0)):
            return None
        assert prompt is not None
        assert written is not None
        rate = self._rates.get(name)
        if rate is not None:
            cached = completion.cached_tokens or 0
            at_cached = rate.input if rate.cached is None else rate.cached
            if cached > prompt:
                return None
            return (
                (prompt - cached) * rate.input + cached * at_cached + written * rate.output
            ) / 1e6
        for model in (completion.model, name.partition("/")[2]):
            if model and (model, server) not in self._unknown:
                found = self._listed(completion, model, server, at)
                if found is not None:
                    return found
        return None

    def _listed(
        self, completion: Completion, model: str, server: str, at: datetime | None
    ) -> float | None:
        from genai_prices import Usage, calc_price

        usage = Usage(
            input_tokens=completion.prompt_tokens,
            output_tokens=completion.completion_tokens,
            cache_read_tokens=completion.cached_tokens,
            cache_write_tokens=completion.cache_write_tokens,
        )
        where: dict[str, Any] = {
            "provider_api_url" if "://" in server else "provider_id": server,
            "genai_request_timestamp": at,
        }
        try:
            return float(calc_price(usage, model, **where).total_price)
        except LookupError:
            self._unknown.add((model, server))
        except ValueError:  # counts that contradict each other
            pass
        return None


@cache
def listed() -> Prices:
    """The table alone: what models are priced by where nobody gives other prices."""
    return Prices()


def _read(content: bytes, path: Path) -> dict[str, _Rate]:
    try:
        found = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: prices are no TOML: {error}") from error
    return {name: _rate(rates, f'{path}: ["{name}"]', name) for name, rates in found.items()}


def _rate(rates: object, where: str, name: str) -> _Rate:
    provider, _, model = name.partition("/")
    if provider not in _PRICED or not model:
        forms = ", ".join(f'["{known}/NAME"]' for known in _PRICED)
        raise UsageError(f"{where}: only hosted models have a price: expected one of {forms}")
    if not isinstance(rates, dict) or not _NEEDED <= rates.keys() <= _NEEDED | _OPTIONAL:
        keys = ", ".join(rates) if isinstance(rates, dict) else repr(rates)
        raise UsageError(
            f"{where}: expected input and output, and cached where it differs, in dollars per "
            f"million tokens; found {keys or 'nothing'}"
        )
    for key, value in rates.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0:
            raise UsageError(
                f"{where}: {key}: expected dollars per million tokens, 0 or more; found {value!r}"
            )
    return _Rate(**{key: float(value) for key, value in rates.items()})
