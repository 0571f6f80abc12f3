"""What a completion costs, from the price table of the package genai-prices (no network).

Unknown is None: a model or server without a list price is never counted as free.
"""

from __future__ import annotations

from harness.models import wire
from harness.types import Completion


def price(completion: Completion, model: str, provider: str) -> float | None:
    """Dollars at list price; None when the model, the server or a token count is unknown.

    `provider` is the table's id ("openai") or the base URL of the server. The model that the
    server reported goes before the one that was asked for: it names the dated snapshot.
    """
    from genai_prices import Usage, calc_price

    counts = completion.prompt_tokens, completion.completion_tokens, completion.cached_tokens or 0
    if None in map(wire.tokens, counts):
        return None
    usage = Usage(
        input_tokens=completion.prompt_tokens,
        output_tokens=completion.completion_tokens,
        cache_read_tokens=completion.cached_tokens,
    )
    for name in (completion.model, model):
        try:
            if not name:
                continue
            if "://" in provider:
                found = calc_price(usage, name, provider_api_url=provider)
            else:
                found = calc_price(usage, name, provider_id=provider)
            return float(found.total_price)
        except (LookupError, ValueError):  # not in the table; or counts that contradict each other
            continue
    return None


def table_version() -> str:
    """The package whose table the prices come from, with its version."""
    from importlib.metadata import version

    return f"genai-prices {version('genai-prices')}"
