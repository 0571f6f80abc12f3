"""A real vLLM server under `vllm/NAME`: where there is a GPU and vLLM, and the hub can be reached.

What vLLM shares with llama.cpp's server and with our fault server is tested without a GPU in
test_models_real.py and test_models_faults.py.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import ModelRefused, ModelUnavailable, RequestRejected
from harness.models import Endpoint, resolve
from harness.types import Completion, Message, Model, Sampling

pytestmark = [pytest.mark.cuda, pytest.mark.timeout(1200)]

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
QUESTION: list[Message] = [{"role": "user", "content": "Which animal says meow?"}]
LOADING_S = 900.0


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Base URL and process of `vllm serve`."""
    if shutil.which("nvidia-smi") is None or subprocess.run(["nvidia-smi", "-L"]).returncode:
        pytest.skip("no CUDA device here")
    if shutil.which("vllm") is None:
        pytest.skip("vLLM is not installed: pip install 'flowreasoner-harness[vllm]'")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = ["vllm", "serve", NAME, "--host", "127.0.0.1", "--port", port]
    command += ["--max-model-len", "2048", "--gpu-memory-utilization", "0.3", "--api-key", "sk-own"]
    log = Path(tmp_path_factory.mktemp("vllm")) / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    deadline = time.monotonic() + LOADING_S
    while not healthy(port):
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(1)
    yield f"http://127.0.0.1:{port}/v1", process
    process.terminate()
    process.wait(60)


def healthy(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def open_model(url: str, name: str = NAME, key: str = "sk-own") -> Model:
    return resolve(f"vllm/{name}", endpoints={"vllm": Endpoint(url, key)})


async def test_a_vllm_answers_refuses_rejects_and_dies_as_a_model_of_the_harness(
    vllm: tuple[str, subprocess.Popen[bytes]],
) -> None:
    url, process = vllm
    model = open_model(url)
    asked = (model.complete(QUESTION, Sampling(0.0, 12), seed=1) for _ in range(64))
    for found in await asyncio.gather(*asked):
        assert isinstance(found, Completion)
        assert found.text
        assert found.prompt_tokens
        assert found.completion_tokens is not None
        assert 1 <= found.completion_tokens <= 12
        assert (found.model, found.ignored, model.price(found)) == (NAME, (), 0.0)
    warm = [await model.complete(QUESTION, Sampling(1.0, 24), seed=seed) for seed in (1, 2)]
    assert warm[0].text != warm[1].text
    with pytest.raises(RequestRejected, match="2048"):
        await model.complete([{"role": "user", "content": "word " * 5000}], Sampling(0.0, 12))
    with pytest.raises(RequestRejected):
        await model.complete(QUESTION, Sampling(0.0, -5))
    for refused in (open_model(url, name="nobody/nothing"), open_model(url, key="sk-wrong-012")):
        with pytest.raises(ModelRefused):
            await refused.complete(QUESTION, Sampling(0.0, 12))
        await refused.close()
    endless = Sampling(0.0, 1900, extra_body={"ignore_eos": True})
    task = asyncio.create_task(model.complete(QUESTION, endless))
    await asyncio.sleep(0.2)
    process.kill()
    with pytest.raises(ModelUnavailable):
        await task
    await model.close()
