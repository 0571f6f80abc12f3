"""What a completion costs: the table, and a file of prices before it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.models import Endpoint, resolve
from harness.models.prices import Prices
from harness.types import Completion

MINI = "openai/gpt-4o-mini"
MILLION = Completion("", 1_000_000, 1_000_000, cached_tokens=400_000)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a file of prices."""

    def write(text: str) -> Path:
        path = tmp_path / "prices.toml"
        path.write_text(text)
        return path

    return write


def test_a_price_worked_by_hand() -> None:
    # gpt-4o-mini: 0.15 $ per million tokens read, 0.075 when cached, 0.60 written.
    assert Prices().price(MILLION, MINI, "openai") == pytest.approx(0.09 + 0.03 + 0.60)
    assert Prices().price(MILLION, MINI, "https://api.openai.com/v1/") == pytest.approx(0.72)


def test_an_unknown_price_is_none_and_never_nothing() -> None:
    price = Prices().price
    completion = Completion("", 10, 10)
    for _ in range(2):  # the second time it is remembered
        assert price(completion, "openai/no-such-model", "openai") is None
    assert price(completion, MINI, "http://127.0.0.1:8000/v1") is None
    assert price(Completion("", None, 10), MINI, "openai") is None
    assert price(Completion("", 10, 10, cached_tokens=99), MINI, "openai") is None
    for odd in (-1, 2**63):
        assert price(Completion("", odd, 10), MINI, "openai") is None
        assert price(Completion("", 10, odd), MINI, "openai") is None
        assert price(Completion("", 10, 10, cached_tokens=odd), MINI, "openai") is None


def test_counts_that_no_price_fits_leave_the_model_known() -> None:
    prices = Prices()
    assert prices.price(Completion("", 10, 10, cached_tokens=99), MINI, "openai") is None
    assert prices.price(MILLION, MINI, "openai") == pytest.approx(0.72)


def test_the_model_that_the_server_reported_is_priced_before_the_one_asked_for() -> None:
    dated = Completion("", 1_000_000, 0, model="gpt-4o-2024-05-13")  # 5 $, later ones 2.50 $
    assert Prices().price(dated, "openai/gpt-4o", "openai") == pytest.approx(5.0)
    unknown = Completion("", 1_000_000, 0, model="somebody-else")
    assert Prices().price(unknown, "openai/gpt-4o", "openai") == pytest.approx(2.5)


def test_a_price_is_that_of_the_request_s_time() -> None:
    # o3: 10 $ per million tokens read until 2025-06-09, 2 $ from the next day on
    price = Prices().price
    read = Completion("", 1_000_000, 0)
    before, after = datetime(2025, 6, 9, tzinfo=UTC), datetime(2025, 6, 11, tzinfo=UTC)
    assert price(read, "openai/o3", "openai", at=before) == pytest.approx(10.0)
    assert price(read, "openai/o3", "openai", at=after) == pytest.approx(2.0)


def test_a_file_prices_a_model_that_the_table_lacks_and_goes_before_the_table(
    file: Callable[[str], Path],
) -> None:
    path = file(
        '["openai/my-finetune"]\ninput = 0.30\noutput = 1.20\ncached = 0.15\n'
        '["openai/gpt-4o-mini"]\ninput = 1\noutput = 0\n'
    )
    prices = Prices(path)
    own = prices.price(MILLION, "openai/my-finetune", "http://127.0.0.1:8000/v1")
    assert own == pytest.approx(0.6 * 0.30 + 0.4 * 0.15 + 1.20)
    assert prices.price(MILLION, MINI, "openai") == pytest.approx(1.0)  # cached as any other
    assert prices.price(Completion("", 10, 10, cached_tokens=99), MINI, "openai") is None
    assert prices.price(Completion("", 10, None), MINI, "openai") is None
    assert prices.price(MILLION, "openai/gpt-4o", "openai") is not None


def test_the_version_names_the_table_and_the_file_s_content(file: Callable[[str], Path]) -> None:
    table = Prices().version
    assert table.startswith("genai-prices ")
    one = Prices(file('["openai/x"]\ninput = 1\noutput = 1\n')).version
    other = Prices(file('["openai/x"]\ninput = 1\noutput = 2\n')).version
    assert one.startswith(f"{table} + prices.toml sha256:")
    assert one != other


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("input = ", "no TOML"),
        ('["gpt-4o"]\ninput = 1\noutput = 1', 'expected one of ["openai/NAME"]'),
        ('["local/x"]\ninput = 1\noutput = 1', "only hosted models have a price"),
        ('["openai/x"]\ninput = 1', "expected input and output"),
        ('["openai/x"]\ninput = 1\noutput = 1\ncache = 1', "found input, output, cache"),
        ('["openai/x"]', "found nothing"),
        ('"openai/x" = 3', "found 3"),
        ('["openai/x"]\ninput = "1"\noutput = 1', "input: expected dollars per million"),
        ('["openai/x"]\ninput = true\noutput = 1', "input: expected dollars per million"),
        ('["openai/x"]\ninput = 1\noutput = -1', "output: expected dollars per million"),
        ('["openai/x"]\ninput = nan\noutput = 1', "input: expected dollars per million"),
    ],
)
def test_a_mistake_in_a_file_of_prices_is_one_line_that_names_it(
    file: Callable[[str], Path], text: str, words: str
) -> None:
    path = file(text)
    with pytest.raises(UsageError) as caught:
        Prices(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_prices_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml: cannot read prices"):
        Prices(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("url", "usd"),
    [
        (None, 0.0),
        ("http://localhost:8000/v1", 0.0),
        ("http://10.1.2.3:8000/v1", 0.0),
        ("http://[fd00::1]:8000/v1", 0.0),
        ("http://100.64.0.9/v1", 0.0),
        ("http://gpu-node-12:8000/v1", 0.0),
        ("http://gpu.local/v1", 0.0),
        ("https://llm.example.com/v1", None),
        ("http://8.8.8.8/v1", None),
    ],
)
async def test_vllm_is_free_on_one_s_own_network_and_unknown_elsewhere(
    file: Callable[[str], Path], url: str | None, usd: float | None
) -> None:
    endpoints = {"vllm": Endpoint(url)}
    model = resolve("vllm/qwen", endpoints=endpoints)
    assert model.price(MILLION) == usd
    await model.close()
    prices = Prices(file('["vllm/qwen"]\ninput = 1\noutput = 1\n'))
    priced = resolve("vllm/qwen", endpoints=endpoints, prices=prices)
    assert priced.price(MILLION) == pytest.approx(2.0)
    await priced.close()


def test_tokens_that_are_written_to_the_providers_cache_have_a_price_of_their_own() -> None:
    # claude-sonnet-4-5: 3 $ per million tokens read, 3.75 when they are written to the cache
    url = "https://api.anthropic.com"
    written = Completion("", 1000, 0, cache_write_tokens=400)
    assert Prices().price(written, "anthropic/claude-sonnet-4-5", url) == pytest.approx(
        (600 * 3 + 400 * 3.75) / 1e6
    )
