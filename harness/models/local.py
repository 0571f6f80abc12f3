"""Weights that run on this machine's CPU, in this process, through llama.cpp (package xllamacpp).

Answers repeat exactly: the same request and seed give the same text, whatever was asked before.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import ModelRefused, ModelUnavailable, RequestRejected, UsageError
from harness.models import trained, wire
from harness.models.pull import cached, default_cache_dir, file_sha256
from harness.models.registry import Weights, find
from harness.types import About, Completion, Message, Model, Sampling

_UNKNOWN_CONTEXT = 8192  # tokens, for a file that the registry does not know


def open_local(name: str, cache_dir: Path | None = None) -> LocalModel:
    """The model of `local/NAME` or `local/PATH.gguf`; its weights are loaded by the first request.

    The file of a registered name may still be absent (`absent`): `models pull` fetches it.
    Raises UsageError: unknown name, no such .gguf file, llama.cpp not installed.
    """
    from importlib.util import find_spec

    which = name.removeprefix("local/")
    if which.endswith(".gguf"):
        weights, path = None, Path(which).expanduser().resolve()
        if not path.is_file():
            raise UsageError(f"{name}: there is no file {path}")
    else:
        weights = find(name)
        path = (cache_dir or default_cache_dir()) / weights.file
    if find_spec("xllamacpp") is None:
        raise UsageError(f"{name} needs llama.cpp: pip install 'flowreasoner-harness[local]'")
    return LocalModel(name, path, weights)


def cores() -> int:
    """Physical cores that this process may use."""
    import psutil

    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


class LocalModel(Model):
    """One GGUF file. Requests are answered one at a time: more slots are no faster on a CPU."""

    connections = most_connections = 1
    repeats = True

    def __init__(self, name: str, path: Path, weights: Weights | None) -> None:
        self.name = name
        self._path = path
        self._weights = weights  # None for a file that the registry does not know
        self._context = weights.context if weights else _UNKNOWN_CONTEXT
        self._sha256 = weights.sha256 if weights else None
        told = trained.read(path)
        self.trained_knobs, self.trained_on = told.knobs, told.problems

    @property
    def absent(self) -> bool:
        """Whether its registered weights still have to be fetched."""
        return self._weights is not None and cached(self._weights, self._path.parent) is None

    def identity(self) -> dict[str, Any]:
        """Digest of the weights, context and version of the binding. Reads an unknown file once."""
        from importlib.metadata import version

        if self._sha256 is None:
            self._sha256 = file_sha256(self._path)
        return {
            "name": self.name,
            "sha256": self._sha256,
            "n_ctx": self._context,
            "binding": f"xllamacpp {version('xllamacpp')}",
        }

    def price(self, completion: Completion) -> float | None:
        return 0.0

    def seconds_per(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        """Seconds that one request will take here, from measured rates; None for an unknown file.

        Rates were measured on two cores and are scaled to this process's.
        """
        if self._weights is None:
            return None
        on_two = (
            prompt_tokens / self._weights.prompt_tokens_per_s
            + completion_tokens / self._weights.completion_tokens_per_s
        )
        return on_two * 2 / cores()

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        seed: int | None = None,
        about: About | None = None,
    ) -> Completion:
        """Answer once. Cancelling it stops the generation and harms no other request.

        Raises ModelRefused (weights do not load), RequestRejected (too long), ModelUnavailable.
        """
        request: dict[str, Any] = {
            "messages": list(messages),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            # llama.cpp cuts the tail of the distribution by default (top_k 40, top_p 0.95,
            # min_p 0.05). Off, so that a temperature means here what it means elsewhere.
            "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
            "top_k": 0,
            "min_p": 0.0,
            # With the prompt cache on, the same greedy question was answered differently depending
            # on what was asked before it. Without it answers repeat exactly.
            "cache_prompt": False,
        }
        if seed is not None:
            request["seed"] = seed % (2**32 - 1)  # 2**32 - 1 itself asks for a random one
        request |= sampling.extra_body
        request |= {"stream": True, "stream_options": {"include_usage": True}}
        # chat templates that know levels of effort have no common word for them: `extra_body`
        # reaches them as {"chat_template_kwargs": {...}}
        ignored = () if sampling.reasoning_effort is None else ("reasoning_effort",)
        engine = _engine(self._path, self._context, self._weights)
        stop = threading.Event()
        try:
            completion = await asyncio.get_running_loop().run_in_executor(
                engine.thread, engine.answer, self.name, request, stop
            )
            return replace(completion, ignored=ignored)
        finally:
            stop.set()

    async def close(self) -> None:
        """Nothing: the weights stay loaded for the next run of this process."""


class _Engine:
    """A loaded file and the one thread that asks it."""

    def __init__(self, path: Path, context: int, weights: Weights | None) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=path.stem)
        self._path, self._context, self._weights = path, context, weights
        self._server: Any = None

    def answer(self, name: str, request: dict[str, Any], stop: threading.Event) -> Completion:
        if self._server is None:
            self._server = self._load(name)
        text: list[str] = []
        last: dict[str, Any] = {}

        def take(chunk: dict[str, Any]) -> bool:
            for choice in chunk.get("choices", ()):
                text.append(choice["delta"].get("content") or "")
                last["finish"] = choice["finish_reason"] or last.get("finish")
            last.update({key: chunk[key] for key in ("usage", "error") if key in chunk})
            return stop.is_set()  # true ends the generation

        if not stop.is_set():
            try:
                self._server.handle_chat_completions(request, take)
            except ValueError as error:  # messages that the chat template cannot take
                raise RequestRejected(f"{name}: {error}") from error
        if "error" in last:
            code, words = last["error"].get("code"), last["error"].get("message")
            kind = RequestRejected if code == 400 else ModelUnavailable
            raise kind(f"{name}: llama.cpp answered {code}: {words}")
        usage = last.get("usage")
        if usage is None and not stop.is_set():
            raise ModelUnavailable(f"{name}: llama.cpp broke off without a word")
        usage = usage or {}
        return Completion(
            wire.clean("".join(text)),
            usage.get("prompt_tokens"),
            usage.get("completion_tokens"),
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
            finish=last.get("finish"),
            model=name,
        )

    def _load(self, name: str) -> Any:
        # Before the import, which starts the threads: waiting ones spin by default, and beside any
        # other load on the machine that made generation twenty times slower.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        import xllamacpp

        if self._weights and cached(self._weights, self._path.parent) is None:
            raise ModelRefused(
                f"{name} is not on this machine, or not the file of SHA-256 "
                f"{self._weights.sha256}: python -m harness models pull {self._weights.name}"
            )
        params = xllamacpp.CommonParams()
        params.model.path = str(self._path)
        params.model_alias = {name}
        params.n_ctx = self._context
        params.n_parallel = 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = cores()
        params.use_jinja = True
        params.verbosity = -1
        params.cache_prompt = False
        params.cache_ram_mib = 0
        # The binding always listens on a port of the loopback interface; a key that nobody knows
        # keeps everyone else out.
        params.api_keys = [secrets.token_hex(16)]
        try:
            return xllamacpp.Server(params)
        except RuntimeError as error:
            raise ModelRefused(f"{name}: llama.cpp cannot load {self._path}: {error}") from error


_engines: dict[Path, _Engine] = {}
_engines_lock = threading.Lock()


def _engine(path: Path, context: int, weights: Weights | None) -> _Engine:
    with _engines_lock:
        if path not in _engines:
            _engines[path] = _Engine(path, context, weights)
        return _engines[path]
