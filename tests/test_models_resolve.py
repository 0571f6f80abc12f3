"""Names to models, prices and the scripted model. No network, no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import ModelRefused, ModelUnavailable, UsageError
from harness.models import FORMS, Endpoint, local_names, resolve
from harness.models.local import LocalModel
from harness.models.registry import find
from harness.models.scripted import ScriptedModel
from harness.models.wire import RESERVED, check_extra
from harness.types import Message, Model, Sampling

QUESTION: list[Message] = [{"role": "user", "content": "two and two ?"}]


@pytest.mark.parametrize(
    "spec", ["gpt-4o", "nobody/x", "openai/", "vllm/", "local/", "replay/", "sim", ""]
)
def test_an_unknown_model_lists_the_valid_forms(spec: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(spec, endpoints={})
    assert all(form in str(caught.value) for form in FORMS)
    assert all(name in str(caught.value) for name in local_names())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_missing_key_names_its_variable(provider: str) -> None:
    with pytest.raises(UsageError, match=f"{provider.upper()}_API_KEY is not set"):
        resolve(f"{provider}/x", endpoints={})


@pytest.mark.parametrize("provider", ["openai", "anthropic", "vllm"])
async def test_a_server_of_one_s_own_needs_no_key(provider: str) -> None:
    endpoints = {provider: Endpoint("http://127.0.0.1:1/v1")}
    model = resolve(f"{provider}/x", endpoints=endpoints)
    assert model.name == f"{provider}/x"
    assert model.endpoint() == model.identity()["base_url"]
    await model.close()


async def test_vllm_needs_neither_key_nor_url() -> None:
    model = resolve("vllm/Qwen/Qwen2.5-Coder-7B-Instruct", endpoints={})
    assert model.endpoint() == "http://127.0.0.1:8000/v1"
    assert (model.connections, model.most_connections) == (32, 256)
    await model.close()


async def test_models_of_one_server_share_an_endpoint_and_others_do_not() -> None:
    endpoints = {"openai": Endpoint("http://127.0.0.1:1/v1"), "vllm": Endpoint("http://[::1]/v1")}
    models = [resolve(spec, endpoints=endpoints) for spec in ("openai/a", "openai/b", "vllm/a")]
    a, b, other = (model.endpoint() for model in models)
    assert a == b != other
    for model in models:
        await model.close()


@pytest.mark.parametrize("provider", ["openai", "anthropic", "vllm"])
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
        ("http://user:secret@host/v1", "holds a user or a password, which cannot go beside a key:"),
        ("http://host/v1?token=secret", "holds a ? or a #"),
        ("http://host/v1#secret", "holds a ? or a #"),
        ("http://host/v1?", "holds a ? or a #"),
    ],
)
def test_a_base_url_that_is_none_says_what_is_wrong_and_shows_no_secret(
    provider: str, url: str, wrong: str
) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(f"{provider}/x", endpoints={provider: Endpoint(url, "sk-1")})
    assert str(caught.value).startswith(f"{provider.upper()}_BASE_URL {wrong}")
    assert ": expected one like http://127.0.0.1:8000/v1" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_base_url_of_a_flag_is_named_by_the_flag() -> None:
    endpoints = {"openai": Endpoint("127.0.0.1:1", "sk-1", origin="--base-url")}
    with pytest.raises(UsageError, match=r"^--base-url does not begin with http"):
        resolve("openai/x", endpoints=endpoints)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_an_extra_body_that_says_what_a_row_claims_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"^extra_body may not hold {name}: "):
        check_extra({"stop": ["x"], name: 1})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"temperature": 1}, "use --sampling ROLE.temperature"),
        ({"max_completion_tokens": 1}, "use --sampling ROLE.max_tokens"),
        ({"service_tier": "flex"}, "service_tier=flex: its price is not known"),
        ({"speed": "fast"}, "speed=fast: its price is not known"),
        ({"service_tier": ["flex"]}, "its price is not known"),
    ],
)
def test_what_to_do_instead_of_an_extra_body_is_said(body: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_extra(body)
    assert words in str(caught.value)


def test_any_other_extra_body_is_taken() -> None:
    check_extra({"top_k": 20, "service_tier": "default", "output_config": {"format": {}}})


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
        ("vllm/o3-distilled", False),
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
        await model.complete([{"role": "user", "content": "x"}], Sampling(0.0, 1))


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


async def test_a_script_is_answered_in_order_and_recorded() -> None:
    model = ScriptedModel("scripted/a", ["four", ModelUnavailable("busy"), "not five"])
    typed: Model = model
    first = await typed.complete(QUESTION, Sampling(0.0, 8))
    assert (first.text, first.prompt_tokens, first.completion_tokens) == ("four", 4, 1)
    with pytest.raises(ModelUnavailable):
        await model.complete(QUESTION, Sampling(0.0, 8))
    assert (await model.complete(QUESTION, Sampling(1.0, 8))).text == "not five"
    assert [request["temperature"] for request in model.requests] == [0.0, 0.0, 1.0]
    assert model.price(first) == 0.0


async def test_a_script_that_ran_out_fails_loudly() -> None:
    model = ScriptedModel("scripted/a", [])
    with pytest.raises(AssertionError, match="request 1"):
        await model.complete(QUESTION, Sampling(0.0, 8))


async def test_a_script_may_be_a_function_of_the_messages() -> None:
    model = ScriptedModel("scripted/a", lambda messages: messages[-1]["content"].upper())
    assert (await model.complete(QUESTION, Sampling(0.0, 8))).text == "TWO AND TWO ?"


async def test_a_lone_surrogate_in_a_script_is_replaced() -> None:
    model = ScriptedModel("scripted/a", ["a\ud800b"])
    found = await model.complete(QUESTION, Sampling(0.0, 8))
    assert found.text == "a\ufffd\ufffd\ufffdb"
    assert not model.samples_always
