"""Names to models, prices and the scripted model. No network, no weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ModelRefused, ModelUnavailable, UsageError
from harness.models import Endpoint, local_names, resolve
from harness.models.local import LocalModel
from harness.models.prices import price, table_version
from harness.models.registry import find
from harness.models.scripted import ScriptedModel
from harness.types import Completion, Message, Model

QUESTION: list[Message] = [{"role": "user", "content": "two and two ?"}]


@pytest.mark.parametrize("spec", ["gpt-4o", "nobody/x", "openai/", "local/", ""])
def test_an_unknown_model_lists_the_valid_forms(spec: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(spec, endpoints={})
    assert "openai/NAME, anthropic/NAME, local/NAME" in str(caught.value)
    assert all(name in str(caught.value) for name in local_names())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_missing_key_names_its_variable(provider: str) -> None:
    with pytest.raises(UsageError, match=f"{provider.upper()}_API_KEY is not set"):
        resolve(f"{provider}/x", endpoints={})


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_a_server_of_one_s_own_needs_no_key(provider: str) -> None:
    endpoints = {provider: Endpoint("http://user:pass@127.0.0.1:1/v1?token=x")}
    model = resolve(f"{provider}/x", endpoints=endpoints)
    assert model.name == f"{provider}/x"
    assert "pass" not in str(model.identity())
    assert "token" not in str(model.identity())
    await model.close()


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("http://[::1", "is no URL"),
        ("http://x:port", "is no URL"),
        ("http://x:99999", "is no URL"),
        ("http://a b/v1", "is no URL"),
        ("http://a..b/v1", "is no URL"),
        ("http://x\n/v1", "is no URL"),
        ("localhost:8000", "does not begin with http:// or https://"),
        ("sk-secret", "does not begin with http:// or https://"),
        ("ftp://secret@x", "does not begin with http:// or https://"),
        ("http:///v1", "names no host"),
        ("http://user:secret@:80/v1", "names no host"),
    ],
)
def test_a_base_url_that_is_none_says_what_is_wrong_and_shows_no_secret(
    provider: str, url: str, wrong: str
) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(f"{provider}/x", endpoints={provider: Endpoint(url, "sk-1")})
    assert str(caught.value).startswith(f"{provider.upper()}_BASE_URL {wrong}: expected one like ")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "always"),
    [
        ("openai/o1-mini", True),
        ("openai/o3", True),
        ("openai/o4-mini", True),
        ("openai/gpt-5-nano", True),
        ("openai/gpt-5-chat-latest", False),
        ("openai/gpt-4o-mini", False),
        ("openai/meta-llama/llama-3", False),
        ("anthropic/claude-sonnet-4-5", False),
        ("local/smollm2-135m-instruct", False),
    ],
)
async def test_only_a_reasoning_model_of_openai_samples_whatever_its_temperature(
    tmp_path: Path, spec: str, always: bool
) -> None:
    endpoints = {provider: Endpoint(api_key="sk-1") for provider in ("openai", "anthropic")}
    model = resolve(spec, endpoints=endpoints, cache_dir=tmp_path)
    assert model.samples_always is always
    await model.close()


def test_an_endpoint_does_not_show_its_key() -> None:
    assert "sk-1" not in repr(Endpoint(api_key="sk-1"))


def test_an_unknown_local_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"local/smollm2-135m-instruct"):
        resolve("local/nothing", endpoints={}, cache_dir=tmp_path)


async def test_weights_that_are_absent_are_told_and_asking_them_names_the_command(
    tmp_path: Path,
) -> None:
    model = resolve("local/qwen2.5-coder-0.5b-instruct", endpoints={}, cache_dir=tmp_path)
    assert isinstance(model, LocalModel)
    assert model.absent
    with pytest.raises(
        ModelRefused, match=r"python -m harness models pull qwen2\.5-coder-0\.5b-instruct$"
    ):
        await model.complete([{"role": "user", "content": "x"}], max_tokens=1, temperature=0)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        resolve(f"local/{tmp_path}/none.gguf", endpoints={}, cache_dir=tmp_path)


def test_the_dry_run_estimate_is_unknown_for_an_unknown_file(tmp_path: Path) -> None:
    weights = find("smollm2-135m-instruct")
    known = LocalModel("local/smollm2-135m-instruct", tmp_path / weights.file, weights)
    once, twice = known.seconds_per(100, 100), known.seconds_per(200, 200)
    assert once is not None
    assert twice == pytest.approx(2 * once)
    assert LocalModel("local/x.gguf", tmp_path / "x.gguf", None).seconds_per(1, 1) is None


def test_a_price_worked_by_hand() -> None:
    # gpt-4o-mini: 0.15 $ per million tokens read, 0.075 when cached, 0.60 written.
    completion = Completion("", 1_000_000, 1_000_000, cached_tokens=400_000)
    assert price(completion, "gpt-4o-mini", "openai") == pytest.approx(0.09 + 0.03 + 0.60)
    url = "https://api.openai.com/v1/"
    assert price(completion, "gpt-4o-mini", url) == pytest.approx(0.72)


def test_an_unknown_price_is_none_and_never_nothing() -> None:
    completion = Completion("", 10, 10)
    assert price(completion, "no-such-model", "openai") is None
    assert price(completion, "gpt-4o-mini", "http://127.0.0.1:8000/v1") is None
    assert price(Completion("", None, 10), "gpt-4o-mini", "openai") is None
    assert price(Completion("", 10, 10, cached_tokens=99), "gpt-4o-mini", "openai") is None
    for odd in (-1, 2**63):
        assert price(Completion("", odd, 10), "gpt-4o-mini", "openai") is None
        assert price(Completion("", 10, odd), "gpt-4o-mini", "openai") is None
        assert price(Completion("", 10, 10, cached_tokens=odd), "gpt-4o-mini", "openai") is None
    assert table_version().startswith("genai-prices ")


async def test_a_script_is_answered_in_order_and_recorded() -> None:
    model = ScriptedModel("scripted/a", ["four", ModelUnavailable("busy"), "not five"])
    typed: Model = model
    first = await typed.complete(QUESTION, max_tokens=8, temperature=0.0)
    assert (first.text, first.prompt_tokens, first.completion_tokens) == ("four", 4, 1)
    with pytest.raises(ModelUnavailable):
        await model.complete(QUESTION, max_tokens=8, temperature=0.0)
    assert (await model.complete(QUESTION, max_tokens=8, temperature=1.0)).text == "not five"
    assert [request["temperature"] for request in model.requests] == [0.0, 0.0, 1.0]
    assert model.price(first) == 0.0


async def test_a_script_that_ran_out_fails_loudly() -> None:
    model = ScriptedModel("scripted/a", [])
    with pytest.raises(AssertionError, match="request 1"):
        await model.complete(QUESTION, max_tokens=8, temperature=0.0)


async def test_a_script_may_be_a_function_of_the_messages() -> None:
    model = ScriptedModel("scripted/a", lambda messages: messages[-1]["content"].upper())
    assert (await model.complete(QUESTION, max_tokens=8, temperature=0.0)).text == "TWO AND TWO ?"


async def test_a_lone_surrogate_in_a_script_is_replaced() -> None:
    model = ScriptedModel("scripted/a", ["a\ud800b"])
    found = await model.complete(QUESTION, max_tokens=8, temperature=0.0)
    assert found.text == "a\ufffd\ufffd\ufffdb"
    assert not model.samples_always
