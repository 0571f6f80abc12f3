"""A real model of 135 million parameters: in this process, and behind a real server.

The server is llama.cpp's own, which speaks both vendors' protocols; where it has to load or die
before our eyes it runs in a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.errors import ModelError, ModelRefused, ModelUnavailable, RequestRejected
from harness.models import Endpoint, resolve
from harness.models.pull import default_cache_dir, pull
from harness.types import Completion, Message, Model, Sampling

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


KEY = "sk-right-0123456789"
SERVE = """
import os, sys
os.environ["OMP_WAIT_POLICY"] = "passive"
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.api_keys = sys.argv[1], int(sys.argv[2]), [sys.argv[3]]
params.model_alias = {"smol"}
params.n_ctx, params.n_parallel, params.verbosity = 2048, 1, -1
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print(flush=True)  # loaded
sys.stdin.read()
"""


@dataclass
class Child:
    """The server in a process of its own, which asks for a key."""

    process: subprocess.Popen[str]
    port: int

    def models(self, key: str = KEY) -> list[Model]:
        """It under every provider's protocol."""
        base = f"http://127.0.0.1:{self.port}"
        endpoints = {
            "openai": Endpoint(f"{base}/v1", key),
            "anthropic": Endpoint(base, key),
            "vllm": Endpoint(f"{base}/v1", key),
        }
        return [resolve(f"{provider}/smol", endpoints=endpoints) for provider in endpoints]

    def wait_until_loaded(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def wait_until_listening(self) -> None:
        """It listens before it has loaded its weights."""
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            assert time.monotonic() < deadline


@pytest.fixture
def child(weights: Path) -> Iterator[Child]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(weights), str(port), KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield Child(process, port)
    process.kill()
    process.communicate()


async def faults(
    models: list[Model], sampling: Sampling, question: list[Message] = QUESTION
) -> list[Completion | BaseException]:
    """What each model answers to a question, or raises."""
    asked = (model.complete(question, sampling) for model in models)
    return await asyncio.gather(*asked, return_exceptions=True)


async def close(models: list[Model]) -> None:
    for model in models:
        await model.close()


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
    completion = await model.complete(QUESTION, Sampling(0.0, 12), seed=1)
    is_a_short_answer(completion)
    assert completion.ignored == ()
    assert model.price(completion) is None
    with pytest.raises(RequestRejected, match="context"):
        await model.complete(TOO_LONG, Sampling(0.0, 12))
    await model.close()


async def test_the_anthropic_route_answers(url: str) -> None:
    model = resolve("anthropic/smol", endpoints={"anthropic": Endpoint(url)})
    completion = await model.complete(QUESTION, Sampling(0.0, 12))
    is_a_short_answer(completion)
    with pytest.raises(RequestRejected, match="context"):
        await model.complete(TOO_LONG, Sampling(0.0, 12))
    await model.close()


async def test_the_vllm_route_answers_for_nothing(url: str) -> None:
    model = resolve("vllm/smol", endpoints={"vllm": Endpoint(f"{url}/v1")})
    completion = await model.complete(QUESTION, Sampling(0.0, 12, reasoning_effort="low"), seed=1)
    is_a_short_answer(completion)
    assert model.price(completion) == 0.0
    assert completion.model == "smol"
    with pytest.raises(RequestRejected, match="context"):
        await model.complete(TOO_LONG, Sampling(0.0, 12))
    await model.close()


@pytest.mark.parametrize("provider", ["openai", "anthropic", "vllm"])
async def test_a_setting_that_can_be_none_is_rejected_with_the_server_s_words(
    url: str, provider: str
) -> None:
    base = url if provider == "anthropic" else f"{url}/v1"
    model = resolve(f"{provider}/smol", endpoints={provider: Endpoint(base)})
    for odd in (Sampling(0.0, -5), Sampling(0.0, 8, extra_body={"max_tokens": "eight"})):
        with pytest.raises(RequestRejected, match="max_tokens"):
            await model.complete(QUESTION, odd)
    await model.close()


async def test_a_wrong_key_is_refused_and_the_right_one_is_not(child: Child) -> None:
    child.wait_until_loaded()
    wrong, right = child.models("sk-wrong-0123456789"), child.models()
    for fault in await faults(wrong, Sampling(0.0, 8)):
        assert isinstance(fault, ModelRefused)
        assert "401: the key is refused" in str(fault)
        assert "sk-wrong" not in str(fault)
    for answer in await faults(right, Sampling(0.0, 8)):
        assert isinstance(answer, Completion)
    await close([*wrong, *right])


async def test_a_server_that_still_loads_is_worth_another_try_until_it_answers(
    child: Child,
) -> None:
    child.wait_until_listening()
    models = child.models()
    seen: list[set[str]] = [set() for _ in models]
    deadline = time.monotonic() + 60
    while not all("answered" in one for one in seen):
        assert time.monotonic() < deadline
        for one, found in zip(seen, await faults(models, Sampling(0.0, 4)), strict=True):
            assert isinstance(found, Completion | ModelUnavailable)
            one.add("answered" if isinstance(found, Completion) else str(found))
        await asyncio.sleep(0.05)
    for one in seen:
        assert any("503" in words for words in one)
    await close(models)


async def test_a_server_that_dies_in_the_middle_of_an_answer_is_worth_another_try(
    child: Child,
) -> None:
    child.wait_until_loaded()
    models = child.models()
    for answer in await faults(models, Sampling(0.0, 4)):
        assert isinstance(answer, Completion)
    long: list[Message] = [{"role": "user", "content": "word " * 1900}]  # seconds to read, each
    asked = asyncio.create_task(faults(models, Sampling(0.0, 64), long))
    await asyncio.sleep(0.3)
    assert not asked.done()
    child.process.kill()
    for fault in [*await asked, *await faults(models, Sampling(0.0, 4))]:
        assert isinstance(fault, ModelError)
        assert isinstance(fault, ModelUnavailable)
        assert f"no answer from 127.0.0.1:{child.port}" in str(fault)
    await close(models)


async def test_both_vendors_and_the_process_itself_agree(url: str, model: Model) -> None:
    endpoints = {
        "openai": Endpoint(f"{url}/v1"),
        "anthropic": Endpoint(url),
        "vllm": Endpoint(f"{url}/v1"),
    }
    others = [resolve(f"{provider}/smol", endpoints=endpoints) for provider in endpoints]
    here = await model.complete(QUESTION, Sampling(0.0, 12))
    for other in others:
        there = await other.complete(QUESTION, Sampling(0.0, 12))
        assert there.prompt_tokens == here.prompt_tokens
        await other.close()


async def test_a_local_model_repeats_itself_exactly(model: Model) -> None:
    first = await model.complete(QUESTION, Sampling(0.0, 32))
    await model.complete([QUESTION[0], QUESTION[0]], Sampling(1.0, 8))
    await model.complete([*QUESTION, QUESTION[1]], Sampling(0.0, 8))
    assert await model.complete(QUESTION, Sampling(0.0, 32)) == first
    assert first.prompt_tokens
    assert first.completion_tokens
    assert first.finish in ("stop", "length")
    assert model.price(first) == 0.0


async def test_a_seed_repeats_and_another_differs(model: Model) -> None:
    story: list[Message] = [{"role": "user", "content": "Tell me a story."}]
    texts = [
        (await model.complete(story, Sampling(1.0, 24), seed=seed)).text for seed in (1, 1, 2, -1)
    ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


async def test_a_local_model_takes_extra_settings_and_says_that_it_knows_no_effort(
    model: Model,
) -> None:
    short = Sampling(0.0, 32, reasoning_effort="low", extra_body={"max_tokens": 2})
    found = await model.complete(QUESTION, short)
    assert found.completion_tokens == 2
    assert found.ignored == ("reasoning_effort",)


async def test_a_prompt_beyond_the_context_is_rejected(model: Model) -> None:
    with pytest.raises(RequestRejected, match="context"):
        await model.complete(TOO_LONG, Sampling(0.0, 8))


async def test_messages_that_the_template_cannot_take_are_rejected(model: Model) -> None:
    with pytest.raises(RequestRejected):
        await model.complete([{"role": "user"}], Sampling(0.0, 8))  # type: ignore[typeddict-item]


async def test_a_cancelled_request_stops_and_harms_no_later_one(model: Model) -> None:
    first = await model.complete(QUESTION, Sampling(0.0, 16))
    story: list[Message] = [{"role": "user", "content": "Write a very long story."}]
    for wait_s in (0.0, 0.05, 0.3):
        tasks = [asyncio.create_task(model.complete(story, Sampling(0.0, 4000))) for _ in range(3)]
        await asyncio.sleep(wait_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        after = await asyncio.wait_for(model.complete(QUESTION, Sampling(0.0, 16)), timeout=20)
        assert after == first


def test_the_same_model_serves_one_event_loop_after_another(model: Model) -> None:
    texts = [asyncio.run(model.complete(QUESTION, Sampling(0.0, 8))).text for _ in range(2)]
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
        await model.complete(QUESTION, Sampling(0.0, 8))


async def test_weights_that_changed_in_the_cache_are_refused(weights: Path, tmp_path: Path) -> None:
    (tmp_path / weights.name).write_bytes(b"GGUF" + b"\0" * 4096)
    model = resolve(NAME, endpoints={}, cache_dir=tmp_path)
    with pytest.raises(ModelRefused, match="models pull smollm2-135m-instruct"):
        await model.complete(QUESTION, Sampling(0.0, 8))


def test_loading_and_answering_print_nothing(weights: Path) -> None:
    program = (
        "import asyncio; from harness.models import resolve; from harness.types import Sampling\n"
        f"model = resolve({NAME!r}, endpoints={{}})\n"
        f"asyncio.run(model.complete({QUESTION!r}, Sampling(0.0, 8)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert (result.stdout, result.stderr) == ("", "")
