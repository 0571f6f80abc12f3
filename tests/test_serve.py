"""`serve`: real servers in processes of their own, and what is left when they end: nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.errors import ModelError, RequestRejected, UsageError
from harness.models import Endpoint, resolve
from harness.models.pull import default_cache_dir, pull
from harness.serve import serve
from harness.types import Message, Sampling

NAME = "local/smollm2-135m-instruct"
KEY = "sk-a-key-0123456789"
QUESTION: list[Message] = [{"role": "user", "content": "Which animal says meow?"}]

# Beside its work it leaves its arguments and a child of its own, as vLLM's engine is one.
VLLM = """
#!{python}
import json, os, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer

arguments = sys.argv[1:]
sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
told = {{"arguments": arguments, "key": os.environ.get("VLLM_API_KEY"), "sleeper": sleeper.pid,
         "keys": [name for name in os.environ if name.endswith("_API_KEY")]}}
with open({told!r}, "w") as file:
    json.dump(told, file)
if "--fail" in arguments:
    print("ValueError: no such model;", "key", os.environ.get("VLLM_API_KEY"), flush=True)
    sys.exit(3)
begun = time.monotonic()

class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        loading = time.monotonic() - begun < 1
        self.send_response(503 if loading else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        if not loading and "--die" in arguments:
            os._exit(9)

port = int(arguments[arguments.index("--port") + 1])
HTTPServer(("127.0.0.1", port), Answers).serve_forever()
"""


@pytest.fixture(autouse=True)
def own_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of servers that failed are kept, here in the test's folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Any]]:
    """An executable named vllm, first on the path; the function tells how it was started."""
    program, told = tmp_path / "bin" / "vllm", tmp_path / "told.json"
    program.parent.mkdir()
    program.write_text(VLLM.lstrip().format(python=sys.executable, told=str(told)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return lambda: dict(json.loads(told.read_text()))


@pytest.fixture(scope="session")
def weights() -> Path:
    return pull(NAME, cache_dir=default_cache_dir(), say=print)


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Served:
    """`serve` in a process of its own, as the command line runs it."""

    def __init__(self, model: str, **options: Any) -> None:
        call = f"serve({model!r}, **{options!r})"
        code = f"import sys; from harness.serve import serve; sys.exit({call})"
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []

    def read_until(self, word: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if word in line:
                return self.lines[-1]
        raise AssertionError(f"no line with {word!r}: {self.lines}")

    def family(self) -> list[int]:
        return [p.pid for p in psutil.Process(self.process.pid).children(recursive=True)]

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        self.lines += self.process.communicate(timeout=30)[0].splitlines()
        return self.process.returncode


@pytest.fixture
def start() -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def make(model: str, **options: Any) -> Served:
        started.append(Served(model, **options))
        return started[-1]

    yield make
    for served in started:
        if served.process.poll() is None:
            served.end(signal.SIGTERM)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def gone(pids: Sequence[int]) -> bool:
    """Whether all have ended within moments; some wait for whoever has to collect them."""
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.model
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_local_model_is_served_by_its_name_until_it_is_told_to_end(
    weights: Path, start: Callable[..., Served], free_port: int, number: signal.Signals
) -> None:
    served = start(NAME, port=free_port)
    line = served.read_until("--worker")
    url = f"http://127.0.0.1:{free_port}/v1"
    assert line == (
        f"python -m harness eval --worker openai/smollm2-135m-instruct --base-url {url}"
    )
    words = line.split()
    worker = words[words.index("--worker") + 1]
    model = resolve(worker, endpoints={"openai": Endpoint(url)})
    completion = await model.complete(QUESTION, Sampling(0.0, 16))
    assert "cat" in completion.text.lower()
    assert completion.model == "smollm2-135m-instruct"
    await model.close()
    family = served.family()
    assert family
    assert served.end(number) == 0
    assert gone(family)
    assert not is_listening(free_port)


@pytest.mark.model
async def test_parallel_slots_have_the_whole_context_each_and_the_key_is_asked_for(
    weights: Path, start: Callable[..., Served], free_port: int
) -> None:
    options = {"extra": ["--parallel", "2", "--context", "512"], "api_key": KEY}
    served = start(str(weights), port=free_port, **options)
    url = served.read_until("--worker").split()[-1]
    assert served.read_until("OPENAI_API_KEY") == "with its key in OPENAI_API_KEY"
    model = resolve(f"openai/{weights.stem}", endpoints={"openai": Endpoint(url, KEY)})
    text = "word " * 400  # more than half of two slots' context, less than one slot's
    completion = await model.complete([{"role": "user", "content": text}], Sampling(0.0, 8))
    assert completion.prompt_tokens is not None
    assert completion.prompt_tokens > 400
    with pytest.raises(RequestRejected, match="context"):
        await model.complete([{"role": "user", "content": text * 2}], Sampling(0.0, 8))
    await model.close()
    arguments = [word for pid in served.family() for word in psutil.Process(pid).cmdline()]
    assert KEY not in " ".join([*arguments, *served.lines])


@pytest.mark.model
def test_the_server_ends_with_a_serve_that_is_killed(
    weights: Path, start: Callable[..., Served], free_port: int
) -> None:
    served = start(NAME, port=free_port)
    served.read_until("--worker")
    family = served.family()
    served.end(signal.SIGKILL)
    assert gone(family)
    assert not is_listening(free_port)


@pytest.mark.model
def test_a_port_in_use_is_said_before_anything_is_loaded(weights: Path) -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 .*choose another"):
            serve(NAME, port=port, say=said.append)
    assert said == []


def test_a_file_that_is_no_model_is_one_line_with_the_server_s_words(tmp_path: Path) -> None:
    file = tmp_path / "not.gguf"
    file.write_bytes(b"GGUF" + b"\0" * 4096)
    with pytest.raises(ModelError, match=r"ended with status 1 while loading: .*load") as caught:
        serve(str(file), port=0, say=lambda line: None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("local/nobody", {}, "unknown local model 'local/nobody'"),
        ("local/nobody.gguf", {}, "there is no file"),
        ("vllm/./nowhere", {}, "there is no folder"),
        ("local/x.gguf", {"tensor_parallel": 2}, "no tensor parallelism"),
        ("x", {"host": "host.invalid"}, "--host host.invalid: no such address"),
        ("x", {"port": 70_000}, "--port 70000: expected 0"),
    ],
)
def test_what_cannot_be_served_is_a_usage_error_of_one_line(
    model: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        serve(model, **{"port": 0} | options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_option_that_llama_cpp_has_not_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").touch()
    with pytest.raises(UsageError, match=r"takes --parallel, --context, --threads: .*--paralel"):
        serve(f"{tmp_path}/x.gguf", port=0, extra=["--paralel", "2"])


def test_weights_that_are_not_here_name_the_command_that_fetches_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="models pull smollm2-135m-instruct"):
        serve(NAME, port=0, cache_dir=tmp_path)


def test_without_vllm_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if Path(sys.executable).with_name("vllm").exists():
        pytest.skip("vLLM is installed here")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"pip install 'flowreasoner-harness\[vllm\]'"):
        serve("vllm/Qwen/Qwen2.5-Coder-7B-Instruct", port=0)


@pytest.mark.parametrize("prefix", ["vllm/", ""])
def test_vllm_gets_its_flags_waits_for_health_and_leaves_nothing(
    vllm: Callable[[], dict[str, Any]],
    start: Callable[..., Served],
    free_port: int,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    name, extra = "Qwen/Qwen2.5-Coder-7B-Instruct", ["--distributed-executor-backend", "ray"]
    served = start(prefix + name, port=free_port, tensor_parallel=4, extra=extra, api_key=KEY)
    line = served.read_until("--worker")
    assert line == (
        f"python -m harness eval --worker vllm/{name} --base-url http://127.0.0.1:{free_port}/v1"
    )
    told = vllm()
    assert told["arguments"] == [
        *("serve", name, "--host", "127.0.0.1", "--port", str(free_port)),
        *("--served-model-name", name, "--generation-config", "vllm"),
        *("--enable-prefix-caching", "--tensor-parallel-size", "4", *extra),
    ]
    assert told["key"] == KEY
    assert told["keys"] == ["VLLM_API_KEY"]
    family = served.family()
    assert told["sleeper"] in family
    assert served.end(signal.SIGINT) == 0
    assert gone(family)
    assert not is_listening(free_port)
    assert KEY not in "\n".join(served.lines)


def test_a_server_that_dies_while_loading_is_one_line_without_the_key(
    vllm: Callable[[], dict[str, Any]],
) -> None:
    with pytest.raises(ModelError) as caught:
        serve("vllm/x", port=0, extra=["--fail"], api_key=KEY, say=lambda line: None)
    assert str(caught.value).partition(" (log: ")[0] == (
        "x: the server ended with status 3 while loading: ValueError: no such model; key [key]"
    )
    assert gone([vllm()["sleeper"]])


def test_a_server_that_dies_later_is_told_too(vllm: Callable[[], dict[str, Any]]) -> None:
    said: list[str] = []
    with pytest.raises(ModelError, match="the server ended with status 9"):
        serve("vllm/x", port=0, extra=["--die"], say=said.append)
    assert any("ready at" in line for line in said)


def test_a_server_that_is_never_ready_is_given_up_and_ended(
    vllm: Callable[[], dict[str, Any]],
) -> None:
    with pytest.raises(ModelError, match=r"was not ready after 0\.5 s"):
        serve("vllm/x", port=0, wait_s=0.5, say=lambda line: None)


def test_ctrl_c_while_loading_ends_with_130(
    vllm: Callable[[], dict[str, Any]], start: Callable[..., Served], free_port: int
) -> None:
    served = start("vllm/x", port=free_port)
    served.read_until("loading")
    assert served.end(signal.SIGINT) == 130
    assert not is_listening(free_port)


def test_the_port_belongs_before_the_options_of_vllm(vllm: Callable[[], dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match="--port=9 belongs before the --"):
        serve("vllm/x", port=0, extra=["--port=9"])


@pytest.mark.cuda
@pytest.mark.slow
async def test_vllm_itself_serves_a_model(start: Callable[..., Served], free_port: int) -> None:
    if shutil.which("nvidia-smi") is None or shutil.which("vllm") is None:
        pytest.skip("needs an NVIDIA GPU and vLLM")
    name = "Qwen/Qwen2.5-0.5B-Instruct"
    served = start(f"vllm/{name}", port=free_port, extra=["--max-model-len", "4096"])
    url = served.read_until("--worker").split()[-1]
    model = resolve(f"vllm/{name}", endpoints={"vllm": Endpoint(url)})
    completion = await model.complete(QUESTION, Sampling(0.0, 32))
    assert "cat" in completion.text.lower()
    await model.close()
    family = served.family()
    assert served.end(signal.SIGTERM) == 0
    assert gone(family)
