"""A real model of 135 million parameters: in this process, and behind a real server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import ModelRefused, RequestRejected
from harness.models import Endpoint, resolve
from harness.models.pull import default_cache_dir, pull
from harness.types import Completion, Message, Model

pytestmark = pytest.mark.model

NAME = "local/smollm2-135m-instruct"
QUESTION: list[Message] = [
    {"role": "system", "content": "You answer in one short sentence."},
    {"role": "user", "content": "Which animal says meow?"},
]
TOO_LONG: list[Message] = [{"role": "user", "content": "word " * 20_000}]


@pytest.fixture(scope="session")
def weights() -> Path:
    return pull(NAME, cache_dir=default_cache_dir(), say=print)


@pytest.fixture(scope="session")
def url(weights: Path) -> Iterator[str]:
    """Base URL of llama.cpp's own server: it speaks both vendors' routes."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.model_alias = {"smol"}
    params.n_ctx, params.n_parallel, params.verbosity = 2048, 1, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    server = xllamacpp.Server(params)
    yield server.listening_address
    del server


@pytest.fixture
def model(weights: Path) -> Model:
    return resolve(NAME, endpoints={})


def is_a_short_answer(completion: Completion) -> None:
    assert completion.text
    assert completion.prompt_tokens is not None
    assert completion.prompt_tokens > 10
    assert completion.completion_tokens is not None
    assert 1 <= completion.completion_tokens <= 12
    assert completion.finish in ("stop", "length")


async def test_the_openai_route_answers(url: str) -> None:
    model = resolve("openai/smol", endpoints={"openai": Endpoint(f"{url}/v1")})
    completion = await model.complete(QUESTION, max_tokens=12, temperature=0.0, seed=1)
    is_a_short_answer(completion)
    assert completion.ignored == ()
    assert model.price(completion) is None
    with pytest.raises(RequestRejected, match="context"):
        await model.complete(TOO_LONG, max_tokens=12, temperature=0.0)
    await model.close()


async def test_the_anthropic_route_answers(url: str) -> None:
    model = resolve("anthropic/smol", endpoints={"anthropic": Endpoint(url)})
    completion = await model.complete(QUESTION, max_tokens=12, temperature=0.0)
    is_a_short_answer(completion)
    with pytest.raises(RequestRejected, match="context"):
        await model.complete(TOO_LONG, max_tokens=12, temperature=0.0)
    await model.close()


async def test_both_vendors_and_the_process_itself_agree(url: str, model: Model) -> None:
    endpoints = {"openai": Endpoint(f"{url}/v1"), "anthropic": Endpoint(url)}
    others = [resolve(spec, endpoints=endpoints) for spec in ("openai/smol", "anthropic/smol")]
    here = await model.complete(QUESTION, max_tokens=12, temperature=0.0)
    for other in others:
        there = await other.complete(QUESTION, max_tokens=12, temperature=0.0)
        assert there.prompt_tokens == here.prompt_tokens
        await other.close()


async def test_a_local_model_repeats_itself_exactly(model: Model) -> None:
    first = await model.complete(QUESTION, max_tokens=32, temperature=0.0)
    await model.complete([QUESTION[0], QUESTION[0]], max_tokens=8, temperature=1.0)
    await model.complete([*QUESTION, QUESTION[1]], max_tokens=8, temperature=0.0)
    assert await model.complete(QUESTION, max_tokens=32, temperature=0.0) == first
    assert first.prompt_tokens
    assert first.completion_tokens
    assert first.finish in ("stop", "length")
    assert model.price(first) == 0.0


async def test_a_seed_repeats_and_another_differs(model: Model) -> None:
    story: list[Message] = [{"role": "user", "content": "Tell me a story."}]
    texts = [
        (await model.complete(story, max_tokens=24, temperature=1.0, seed=seed)).text
        for seed in (1, 1, 2, -1)
    ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


async def test_a_prompt_beyond_the_context_is_rejected(model: Model) -> None:
    with pytest.raises(RequestRejected, match="context"):
        await model.complete(TOO_LONG, max_tokens=8, temperature=0.0)


async def test_messages_that_the_template_cannot_take_are_rejected(model: Model) -> None:
    with pytest.raises(RequestRejected):
        await model.complete([{"role": "user"}], max_tokens=8, temperature=0.0)  # type: ignore[typeddict-item]


async def test_a_cancelled_request_stops_and_harms_no_later_one(model: Model) -> None:
    first = await model.complete(QUESTION, max_tokens=16, temperature=0.0)
    story: list[Message] = [{"role": "user", "content": "Write a very long story."}]
    for wait_s in (0.0, 0.05, 0.3):
        tasks = [
            asyncio.create_task(model.complete(story, max_tokens=4000, temperature=0.0))
            for _ in range(3)
        ]
        await asyncio.sleep(wait_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        after = await asyncio.wait_for(
            model.complete(QUESTION, max_tokens=16, temperature=0.0), timeout=20
        )
        assert after == first


def test_the_same_model_serves_one_event_loop_after_another(model: Model) -> None:
    texts = [
        asyncio.run(model.complete(QUESTION, max_tokens=8, temperature=0.0)).text for _ in range(2)
    ]
    assert texts[0] == texts[1]


def test_the_identity_names_the_weights(model: Model, weights: Path) -> None:
    by_path = resolve(f"local/{weights}", endpoints={})
    assert by_path.identity()["sha256"] == model.identity()["sha256"]
    assert model.identity()["n_ctx"] == 8192
    assert model.identity()["binding"].startswith("xllamacpp 20")


async def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "not.gguf").write_bytes(b"GGUF" + b"\0" * 4096)
    model = resolve(f"local/{tmp_path}/not.gguf", endpoints={})
    with pytest.raises(ModelRefused, match="cannot load"):
        await model.complete(QUESTION, max_tokens=8, temperature=0.0)


async def test_weights_that_changed_in_the_cache_are_refused(weights: Path, tmp_path: Path) -> None:
    (tmp_path / weights.name).write_bytes(b"GGUF" + b"\0" * 4096)
    model = resolve(NAME, endpoints={}, cache_dir=tmp_path)
    with pytest.raises(ModelRefused, match="models pull smollm2-135m-instruct"):
        await model.complete(QUESTION, max_tokens=8, temperature=0.0)


def test_loading_and_answering_print_nothing(weights: Path) -> None:
    program = (
        "import asyncio; from harness.models import resolve\n"
        f"model = resolve({NAME!r}, endpoints={{}})\n"
        f"asyncio.run(model.complete({QUESTION!r}, max_tokens=8, temperature=0.0))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert (result.stdout, result.stderr) == ("", "")
