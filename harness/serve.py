"""`python -m harness serve MODEL`: a server of one model, until Ctrl-C.

`vllm/NAME`, or a bare hub name or folder, is vLLM's own `vllm serve`; `local/NAME` or a .gguf file
is llama.cpp's server in a child process (`main` below). Both are started so that no sampling
default of a checkpoint or a server applies: a temperature means there what it means elsewhere.
Flags: https://docs.vllm.ai/en/stable/cli/serve.html, read in vLLM 0.33.0.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from harness.errors import ModelError, UsageError
from harness.processes import child_environment

USUAL_PORT = 8000  # where `vllm/NAME` looks by itself

_POLL_S = 0.2
_TELL_S = 10.0  # between two lines of progress
_STOP_S = 10.0  # for a clean end, before it is killed
_UNKNOWN_CONTEXT = 8192  # tokens, as for `local/PATH.gguf`
_LINE = 300  # characters of a server's log in a message
_HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True)
class _Server:
    name: str  # that it goes by
    worker: str  # the same, as `eval` wants it
    command: tuple[str, ...]
    ours: bool  # `main` below: wants its key on standard input, and ends with it


def serve(
    model: str,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    tensor_parallel: int | None = None,
    extra: Sequence[str] = (),
    api_key: str | None = None,
    say: Callable[[str], None] = print,
    wait_s: float = 1800.0,
    cache_dir: Path | None = None,
) -> int:
    """Serve a model until Ctrl-C or SIGTERM; 0, or 130 when that came before it was ready.

    `port` None is 8000, or a free one when that is taken. `extra` goes to vLLM untouched, or is
    --parallel, --context and --threads of llama.cpp. Clients then need `api_key`. `cache_dir`
    holds pulled weights (None: the user's).
    Raises UsageError: unknown name, package missing, port taken, bad option. Raises ModelError: it
    died, or was not ready after `wait_s`.
    """
    port = _free_port(host, port)
    if model.startswith("local/") or (model.endswith(".gguf") and not model.startswith("vllm/")):
        if tensor_parallel is not None:
            raise UsageError(f"{model}: llama.cpp has no tensor parallelism here; use vllm/NAME")
        server = _llama(model, host, port, extra, cache_dir)
    else:
        server = _vllm(model.removeprefix("vllm/"), host, port, tensor_parallel, extra)
    handle, path = tempfile.mkstemp(prefix="serve-", suffix=".log")
    log = Path(path)
    child: subprocess.Popen[bytes] | None = None
    ready = False
    with _ending():
        try:
            child = _start(server, handle, api_key)
            _wait(server, child, host, port, log, api_key, say, wait_s)
            ready = True
            _tell(server, host, port, api_key, say)
            status = child.wait()
            raise ModelError(_died(server, f"ended with status {status}", log, api_key))
        except KeyboardInterrupt:
            say(f"{server.name}: stopping")
            log.unlink()
            return 0 if ready else 130
        finally:
            os.close(handle)
            if child is not None:
                _stop(child)


def _vllm(
    name: str, host: str, port: int, tensor_parallel: int | None, extra: Sequence[str]
) -> _Server:
    if name.startswith((".", "/", "~")):
        name = str(Path(name).expanduser())
        if not Path(name).is_dir():
            raise UsageError(f"vllm/{name}: there is no folder {Path(name).resolve()}")
    if taken := [word for word in extra if word.partition("=")[0] in ("--host", "--port")]:
        raise UsageError(f"{taken[0]} belongs before the --: it is a flag of `serve` itself")
    beside = Path(sys.executable).with_name("vllm")
    program = shutil.which("vllm") or (str(beside) if os.access(beside, os.X_OK) else None)
    if program is None:
        raise UsageError(
            f"vllm/{name} needs vLLM, and most models a GPU: "
            "pip install 'flowreasoner-harness[vllm]'"
        )
    command = [program, "serve", name, "--host", host, "--port", str(port)]
    command += ["--served-model-name", name]
    # Else the temperature, top_k and so on of the checkpoint's generation_config.json apply
    # wherever a request is silent about them.
    command += ["--generation-config", "vllm", "--enable-prefix-caching"]
    if tensor_parallel is not None:
        command += ["--tensor-parallel-size", str(tensor_parallel)]
    return _Server(name, f"vllm/{name}", (*command, *extra), ours=False)


def _llama(
    model: str, host: str, port: int, extra: Sequence[str], cache_dir: Path | None
) -> _Server:
    from importlib.util import find_spec

    from harness.models.pull import cached, default_cache_dir
    from harness.models.registry import find

    name, context = model.removeprefix("local/"), _UNKNOWN_CONTEXT
    if name.endswith(".gguf"):
        file = Path(name).expanduser().resolve()
        if not file.is_file():
            raise UsageError(f"{model}: there is no file {file}")
        name = file.stem
    else:
        weights = find(model)
        kept = cached(weights, cache_dir or default_cache_dir())
        if kept is None:
            raise UsageError(f"{model} is not here yet: python -m harness models pull {name}")
        file, context = kept, weights.context
    if find_spec("xllamacpp") is None:
        raise UsageError(f"{model} needs llama.cpp: pip install 'flowreasoner-harness[local]'")
    arguments = [str(file), "--alias", name, "--host", host, "--port", str(port)]
    arguments += ["--context", str(context), *extra]
    _parser().parse_args(arguments)  # here, so that a bad option is one line
    command = (sys.executable, "-m", "harness.serve", *arguments)
    return _Server(name, f"openai/{name}", command, ours=True)


def _free_port(host: str, port: int | None) -> int:
    """The port, or one that is free. Raises UsageError: taken, or no address of this machine."""
    if port is not None and not 0 <= port < 65536:
        raise UsageError(f"--port {port}: expected 0 (any free one) to 65535")
    for wanted in (USUAL_PORT, 0) if port is None else (port,):
        try:
            family, *_, address = socket.getaddrinfo(host, wanted, type=socket.SOCK_STREAM)[0]
            with socket.create_server(address[:2], family=family) as found:
                return int(found.getsockname()[1])
        except OSError as error:
            reason = error
    if isinstance(reason, socket.gaierror):
        raise UsageError(f"--host {host}: no such address: {reason.strerror}") from reason
    raise UsageError(
        f"cannot listen on port {port} of {host} ({reason.strerror}): "
        "choose another with --port, or stop what uses it"
    ) from reason


def _start(server: _Server, log: int, api_key: str | None) -> subprocess.Popen[bytes]:
    """The server in a process group of its own.

    Of all secrets it gets only those it asks for: its clients' key, and vLLM the hub's, without
    which it can fetch no gated weights.
    """
    environment = child_environment(keep=() if server.ours else _HUB_TOKENS)
    if api_key and not server.ours:
        environment["VLLM_API_KEY"] = api_key  # not as an argument: all users see those
    child = subprocess.Popen(
        server.command,
        env=environment,
        stdin=subprocess.PIPE if server.ours else subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    if child.stdin:
        with contextlib.suppress(BrokenPipeError):  # it died: `_wait` says so
            child.stdin.write(f"{api_key or ''}\n".encode())
            child.stdin.flush()
    return child


def _wait(
    server: _Server,
    child: subprocess.Popen[bytes],
    host: str,
    port: int,
    log: Path,
    api_key: str | None,
    say: Callable[[str], None],
    wait_s: float,
) -> None:
    """Come back when it answers on /health."""
    begun = told = time.monotonic()
    say(f"{server.name}: loading; its log is {log}")
    while not _healthy(host, port):
        now = time.monotonic()
        if child.poll() is not None:
            status = f"ended with status {child.returncode} while loading"
            raise ModelError(_died(server, status, log, api_key))
        if now - begun > wait_s:
            raise ModelError(_died(server, f"was not ready after {wait_s:g} s", log, api_key))
        if now - told >= _TELL_S:
            told = now
            say(f"{server.name}: loading for {now - begun:.0f} s: {_last_line(log, api_key)}")
        time.sleep(_POLL_S)


def _healthy(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(_reachable(host), port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _reachable(host: str) -> str:
    """Where a server that listens on `host` is asked from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def _tell(
    server: _Server, host: str, port: int, api_key: str | None, say: Callable[[str], None]
) -> None:
    address = _reachable(host)
    url = f"http://{f'[{address}]' if ':' in address else address}:{port}/v1"
    provider = server.worker.partition("/")[0].upper()
    say(f"{server.name}: ready at {url}; Ctrl-C ends it")
    say(f"python -m harness eval --worker {server.worker} --base-url {url}")
    if api_key:
        say(f"with its key in {provider}_API_KEY")


def _died(server: _Server, what: str, log: Path, api_key: str | None) -> str:
    return f"{server.name}: the server {what}: {_last_line(log, api_key)} (log: {log})"


def _last_line(log: Path, api_key: str | None) -> str:
    """The last line of the log that tells of an error, or else the last; never the key."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65536))
        text = file.read().decode("utf-8", "replace")
    if api_key:
        text = text.replace(api_key, "[key]")
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower()]
    return (telling or lines or ["nothing in its log"])[-1][:_LINE]


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """SIGTERM and a closed terminal end the block as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # a notebook's thread: whoever started it has the signals
        return
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End the server with all that it started; Ctrl-C meanwhile kills at once."""
    import psutil

    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(child.pid)
        family = [root, *root.children(recursive=True)]
    try:
        _signal_group(child, signal.SIGTERM)
        psutil.wait_procs(family, timeout=_STOP_S)
    except KeyboardInterrupt:
        pass
    finally:
        _signal_group(child, signal.SIGKILL)
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        child.wait()
        if child.stdin:
            child.stdin.close()


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM when all is gone
        os.killpg(child.pid, number)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"llama.cpp's server takes --parallel, --context, --threads: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="harness.serve", add_help=False, allow_abbrev=False)
    parser.add_argument("file")
    parser.add_argument("--alias", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--context", type=int, required=True, help="tokens of one request")
    parser.add_argument("--parallel", type=int, default=1, help="requests at once")
    parser.add_argument("--threads", type=int, help="default: physical cores")
    return parser


def main(arguments: Sequence[str]) -> int:
    """llama.cpp's server. Its key is the first line of standard input; it ends at the end of it."""
    from harness.models.local import cores

    asked = _parser().parse_args(arguments)
    key = sys.stdin.readline().strip()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before the import: see models/local.py
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = asked.file
    params.model_alias = {asked.alias}
    params.hostnames, params.port = [asked.host], asked.port
    params.api_keys = [key] if key else []
    params.n_parallel = asked.parallel
    params.n_ctx = asked.context * asked.parallel  # it is divided among them
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = asked.threads or cores()
    params.use_jinja = True
    params.verbosity = 2  # errors and warnings
    params.ui = False
    # As for `local/`: the whole distribution, and answers that do not depend on what came before.
    params.sampling.top_k, params.sampling.top_p, params.sampling.min_p = 0, 1.0, 0.0
    params.cache_prompt, params.cache_ram_mib = False, 0
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdin.read()
    del server
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
