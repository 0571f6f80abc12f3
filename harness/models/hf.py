"""A Hugging Face folder, or a LoRA adapter's, answered in this process by transformers in batches.

Requests that wait join the batch at its next token, and a row leaves it with its last one, so
nobody waits for the longest answer. Decoding is done here and not by `generate`: each row has its
own temperature, top_p, seed and limit, and nothing of the checkpoint's own sampling defaults
(top_k, repetition penalty) applies, so that a temperature means here what it means elsewhere.

Weights run as bfloat16 on CUDA and as float32 on a CPU, because rounding lets a batch change its
rows' answers. Measured with SmolLM2-135M on two cores, HumanEval prompts, 96 and 128 tokens, eight
at a time against alone: float32 changed 0 of 40 greedy and 0 of 16 seeded answers, bfloat16 3 of
16 and 12 of 16. A CPU with AVX-512 BF16 pays 2.4 times for it (48 against 118 tokens per CPU
second in batches of eight, 21 both ways alone); one without emulates bfloat16.

Sampling takes the largest of logits / temperature plus Gumbel noise (Maddison et al. 2014,
arXiv:1411.0030, section 2), drawn by a generator of the row's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import (
    ModelRefused,
    ModelUnavailable,
    RequestRejected,
    UsageError,
)
from harness.models import trained, wire
from harness.models.pull import file_sha256
from harness.types import About, Completion, Message, Model, Sampling

_ROWS = {"cpu": 8, "cuda": 64}  # in one batch
_CALM = 64  # answers after which a batch that was halved may double again
_GATHER_S = 0.005  # the first request of a batch waits so long for others
# What decides an answer; optimizer states, logs and model cards beside it do not.
_FILES = (
    "*.safetensors*",
    "pytorch_model*.bin*",
    "adapter_model.bin",
    "adapter_config.json",
    "config.json",
    "*token*.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
    "*.jinja",
)


def open_hf(spec: str) -> HFModel:
    """The model of `hf/PATH`; its weights are loaded by the first request.

    Raises UsageError: no such folder, no model in it, a package is missing.
    """
    path = Path(spec.removeprefix("hf/")).expanduser().resolve()
    if not path.is_dir():
        raise UsageError(f"{spec}: there is no folder {path}")
    adapter = (path / "adapter_config.json").is_file()
    if not adapter and not (path / "config.json").is_file():
        raise UsageError(f"{spec}: {path} holds neither config.json nor adapter_config.json")
    from importlib.util import find_spec

    packages = ("torch", "transformers", "accelerate", *(("peft",) if adapter else ()))
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UsageError(
            f"{spec} needs {' and '.join(missing)}: pip install 'flowreasoner-harness[train]'"
        )
    return HFModel(spec, path)


class HFModel(Model):
    """One folder of weights on this machine's GPU, or else its CPU.

    `repeats` is False: the rows beside it change the last bits of a row's logits, and where two
    tokens are all but equal that changes a greedy answer (how often: see above).
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._device = _device()
        self._engine: _Engine | None = None
        told = trained.read(path)
        self.trained_knobs, self.trained_on = told.knobs, told.problems
        self.connections = self.most_connections = _ROWS[self._device]

    def identity(self) -> dict[str, Any]:
        """Digest of weights, configuration and tokenizer, versions, dtype and kind of device.

        Reads all files, once for as long as they do not change. Raises ModelRefused when the base
        of an adapter is not on this machine.
        """
        from importlib.metadata import version

        return {
            "name": self.name,
            "sha256": _digest(_folders(self.name, self._path)),
            "torch": version("torch"),
            "transformers": version("transformers"),
            "dtype": _DTYPES[self._device],
            "device": self._device,
        }

    def price(self, completion: Completion) -> float | None:
        return 0.0

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        seed: int | None = None,
        about: About | None = None,
    ) -> Completion:
        """Answer once; the end token counts as one. Cancelling drops the row at the next token.

        Of `extra_body` only `chat_template_kwargs` is taken; the rest is `ignored`, as is
        `reasoning_effort`. Raises ModelRefused (weights do not load, no chat template),
        RequestRejected (too long, messages that the template cannot take), ModelUnavailable (out
        of memory with one row).
        """
        extra = dict(sampling.extra_body)
        template = extra.pop("chat_template_kwargs", {})
        if sampling.reasoning_effort is not None:
            extra["reasoning_effort"] = None
        row = _Row(self.name, list(messages), sampling, seed, template, tuple(extra))
        if self._engine is None:
            self._engine = _engine(self.name, self._path, self._device)
        self._engine.submit(row)
        return await asyncio.wrap_future(row.future)

    def counts(self) -> dict[str, int]:
        """What was computed so far: `prefills`, `steps`, and the most rows in one of them."""
        engine = self._engine or _engine(self.name, self._path, self._device)
        return {"prefills": engine.prefills, "steps": engine.steps, "widest": engine.widest}

    async def close(self) -> None:
        """Nothing: the weights stay loaded for the next run of this process."""


_DTYPES = {"cpu": "float32", "cuda": "bfloat16"}


def _device() -> str:
    # Before the import, which starts the threads: see harness/models/local.py.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import torch
    except (ImportError, OSError) as error:
        raise UsageError(f"torch cannot be imported: {error}; install it again") from error
    return "cuda" if torch.cuda.is_available() else "cpu"


def _folders(name: str, path: Path) -> list[Path]:
    """The folder, and behind an adapter's that of its base model, which must be on this machine."""
    config = path / "adapter_config.json"
    if not config.is_file():
        return [path]
    try:
        base = str(json.loads(config.read_bytes())["base_model_name_or_path"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelRefused(f"{name}: {config} names no base_model_name_or_path") from error
    if Path(base).is_dir():
        return [path, Path(base).resolve()]
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return [path, Path(snapshot_download(base, local_files_only=True))]
    except (OSError, HFValidationError) as error:
        raise ModelRefused(
            f"{name}: its base {base} is neither a folder nor in the cache of the hub: "
            f"hf download {base}"
        ) from error


def _files(folders: Sequence[Path]) -> list[Path]:
    return [
        file
        for folder in folders
        for file in sorted({file for pattern in _FILES for file in folder.glob(pattern)})
        if file.is_file()
    ]


def _stamps(files: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    found = [(file, file.stat()) for file in files]
    return tuple((str(file), stat.st_mtime_ns, stat.st_size) for file, stat in found)


def _digest(folders: Sequence[Path]) -> str:
    """SHA-256 over the names and SHA-256 of all files that decide an answer."""
    files = _files(folders)
    whole = hashlib.sha256()
    for file, stamp in zip(files, _stamps(files), strict=True):
        if stamp not in _digests:
            _digests[stamp] = file_sha256(file)
        whole.update(f"{file.name}:{_digests[stamp]}\n".encode())
    return whole.hexdigest()


_digests: dict[tuple[str, int, int], str] = {}  # by path, time of change and size


@dataclass(eq=False)
class _Row:
    """One request on its way through a batch."""

    name: str  # of the model
    messages: list[Message]
    sampling: Sampling
    seed: int | None
    template: dict[str, Any]  # further arguments of the chat template
    ignored: tuple[str, ...]
    future: Future[Completion] = field(default_factory=Future)
    prompt: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)  # written so far
    most: int = 0  # tokens that it may write
    generator: Any = None  # None: greedy

    def fail(self, error: BaseException) -> None:
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class _Batch:
    """Rows that are decoded together: one key-value cache, padded on the left."""

    def __init__(self, model: Any) -> None:
        self.rows: list[_Row] = []
        self._model = model
        self._cache: Any = None
        self._mask: Any = None  # rows x tokens in the cache; 0 is padding

    def add(self, rows: list[_Row]) -> None:
        """Read the prompts of new rows, write their first tokens, and join them to the others."""
        import torch
        from transformers import DynamicCache

        width = max(len(row.prompt) for row in rows)
        pads = [width - len(row.prompt) for row in rows]
        ids = [[0] * pad + row.prompt for pad, row in zip(pads, rows, strict=True)]
        ones = [[0] * pad + [1] * (width - pad) for pad in pads]
        mask = torch.tensor(ones, device=self._model.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = DynamicCache()  # whole, also for layers with a window: the mask keeps it
        logits = self._forward(ids, mask, positions, cache)
        _choose(rows, logits)
        self._join(cache, mask)
        self.rows = [*self.rows, *rows]

    def step(self) -> None:
        """Write one more token of every row."""
        import torch

        ones = self._mask.new_ones((len(self.rows), 1))
        mask = torch.cat([self._mask, ones], dim=1)
        positions = mask.sum(1, keepdim=True) - 1
        ids = [row.tokens[-1:] for row in self.rows]
        logits = self._forward(ids, mask, positions, self._cache)
        self._mask = mask
        _choose(self.rows, logits)

    def keep(self, rows: list[_Row]) -> None:
        """Go on with these rows alone, without the columns that are padding in all of them."""
        import torch

        if len(rows) == len(self.rows):
            return
        where = [self.rows.index(row) for row in rows]
        self.rows = rows
        if not rows:
            self._cache = self._mask = None
            return
        index = torch.tensor(where, device=self._model.device)
        mask = self._mask[index]
        start = int(mask.argmax(dim=1).min())
        self._mask = mask[:, start:]
        for layer in self._layers(self._cache):
            layer.keys = layer.keys[index, :, start:]
            layer.values = layer.values[index, :, start:]

    def _forward(self, ids: list[list[int]], mask: Any, positions: Any, cache: Any) -> Any:
        import torch

        with torch.inference_mode():
            out = self._model(
                input_ids=torch.tensor(ids, device=self._model.device),
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            return out.logits[:, -1].float()

    def _join(self, cache: Any, mask: Any) -> None:
        if self._cache is None:
            self._cache, self._mask = cache, mask
            return
        import torch
        from torch.nn.functional import pad

        width = max(self._mask.shape[1], mask.shape[1])
        old, new = width - self._mask.shape[1], width - mask.shape[1]
        self._mask = torch.cat([pad(self._mask, (old, 0)), pad(mask, (new, 0))])
        for here, there in zip(self._layers(self._cache), self._layers(cache), strict=True):
            for part in ("keys", "values"):
                ours = pad(getattr(here, part), (0, 0, old, 0))
                theirs = pad(getattr(there, part), (0, 0, new, 0))
                setattr(here, part, torch.cat([ours, theirs]))

    @staticmethod
    def _layers(cache: Any) -> list[Any]:
        return [layer for layer in cache.layers if layer.is_initialized]


def _choose(rows: list[_Row], logits: Any) -> None:
    """Append to each row its next token: the likeliest, or one drawn by its own generator."""
    import torch

    chosen = logits.argmax(dim=1)
    for at, row in enumerate(rows):
        if row.generator is None:
            continue
        scores = logits[at] / row.sampling.temperature
        top_p = row.sampling.top_p
        if top_p is not None and top_p < 1:
            ordered, index = scores.sort(descending=True)
            share = ordered.softmax(0)
            out = share.cumsum(0) - share >= top_p  # what stands before it is enough
            out[0] = False
            scores[index[out]] = -torch.inf
        noise = torch.empty_like(scores).exponential_(generator=row.generator)
        chosen[at] = (scores - noise.clamp_min(1e-30).log()).argmax()
    for row, token in zip(rows, chosen.tolist(), strict=True):
        row.tokens.append(token)


class _Engine:
    """A loaded folder and the one thread that computes with it."""

    def __init__(self, name: str, path: Path, device: str) -> None:
        self.prefills = self.steps = self.widest = 0
        self._name, self._path, self._device = name, path, device
        self._most = _ROWS[device]  # rows; halved when the memory does not do
        self._calm = 0  # answers since then
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=path.name)
        self._waiting: deque[_Row] = deque()
        self._model: Any = None
        self._tokenizer: Any = None
        self._ends: frozenset[int] = frozenset()
        self._context: int | None = None

    def submit(self, row: _Row) -> None:
        """Answer the row's future, from any thread."""
        self._waiting.append(row)
        self._thread.submit(self._work)

    def _work(self) -> None:
        """Decode until nothing waits; for most requests another's turn has done it already."""
        rows: list[_Row] = []
        try:
            if self._waiting and self._model is None:
                with _loading:
                    self._load()
            if 0 < len(self._waiting) < self._most:
                time.sleep(_GATHER_S)
            batch = _Batch(self._model)
            while True:
                rows = list(batch.rows)
                self._take(rows)
                if not rows:
                    return
                if self._advance(batch, rows[len(batch.rows) :]):
                    batch.keep([row for row in rows if not self._finished(row)])
                else:
                    batch = _Batch(self._model)
                    self._halve(rows)
        except Exception as error:
            while self._waiting:  # else the next turn would try in vain for them
                rows.append(self._waiting.popleft())
            for row in rows:  # it is theirs to raise; nobody reads it here
                row.fail(error)
            raise

    def _take(self, rows: list[_Row]) -> None:
        """Fill up with waiting rows, ready to be read; those that cannot be have failed."""
        while len(rows) < self._most and self._waiting:
            row = self._waiting.popleft()
            if row.future.done():
                continue
            rows.append(row)
            try:
                self._prepare(row)
            except RequestRejected as error:
                rows.remove(row)
                row.fail(error)

    def _prepare(self, row: _Row) -> None:
        import torch
        from jinja2 import TemplateError

        goes_on = row.messages[-1]["role"] == "assistant"  # it continues what it has begun
        turn = {"add_generation_prompt": not goes_on, "continue_final_message": goes_on}
        try:
            text = self._tokenizer.apply_chat_template(
                row.messages, **row.template | {"tokenize": False} | turn
            )
        except (TemplateError, TypeError, KeyError, ValueError) as error:
            words = " ".join(str(error).split())[:300]
            raise RequestRejected(f"{row.name}: the chat template refuses: {words}") from error
        row.prompt = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        row.tokens, row.most, row.generator = [], row.sampling.max_tokens, None
        if row.most < 1 or not row.prompt:
            raise RequestRejected(f"{row.name}: max_tokens {row.most}: expected 1 or more")
        if self._context is not None:
            row.most = min(row.most, self._context - len(row.prompt))
        if row.most < 1:
            raise RequestRejected(
                f"{row.name}: a prompt of {len(row.prompt)} tokens leaves no room for an answer in "
                f"its context of {self._context}"
            )
        if row.sampling.temperature > 0:
            row.generator = torch.Generator(self._model.device)
            seed = secrets.randbits(63) if row.seed is None else row.seed % 2**63
            row.generator.manual_seed(seed)

    def _advance(self, batch: _Batch, fresh: list[_Row]) -> bool:
        """One token for every row; False when the memory is not enough."""
        import torch

        try:
            if batch.rows:
                batch.step()
                self.steps += 1
                self.widest = max(self.widest, len(batch.rows))
            if fresh:
                batch.add(fresh)
                self.prefills += 1
                self.widest = max(self.widest, len(batch.rows))
        except (RuntimeError, MemoryError) as error:
            out = isinstance(error, (torch.OutOfMemoryError, MemoryError))
            if not out and "DefaultCPUAllocator" not in str(error):
                raise
            return False
        return True

    def _halve(self, rows: list[_Row]) -> None:
        """Begin these rows again, in batches half as large; a row that was alone has failed."""
        import torch

        if self._device == "cuda":
            torch.cuda.empty_cache()
        self._calm = 0
        if len(rows) > 1:
            self._most = len(rows) // 2
            self._waiting.extendleft(reversed(rows))
            return
        self._most = _ROWS[self._device]  # it was this row and not the number of them
        words = f"{rows[0].name}: out of memory ({self._device}) with one request"
        rows[0].fail(ModelUnavailable(f"{words}: use a smaller model or max_tokens"))

    def _finished(self, row: _Row) -> bool:
        """Whether the row is done with: answered now, or cancelled."""
        if row.future.cancelled():
            return True
        stopped = row.tokens[-1] in self._ends
        if not stopped and len(row.tokens) < row.most:
            return False
        written = row.tokens[:-1] if stopped else row.tokens
        text = self._tokenizer.decode(
            written, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        completion = Completion(
            wire.clean(text),
            len(row.prompt),
            len(row.tokens),
            finish="stop" if stopped else "length",
            model=row.name,
            ignored=row.ignored,
        )
        if row.future.set_running_or_notify_cancel():
            row.future.set_result(completion)
        self._calm += 1
        if self._calm == _CALM:
            self._calm, self._most = 0, min(2 * self._most, _ROWS[self._device])
        return True

    def _load(self) -> None:
        """Raises ModelRefused: files damaged or incomplete, no chat template, another design."""
        import torch
        import transformers
        from safetensors import SafetensorError

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        folders = _folders(self._name, self._path)
        try:
            model, loading = transformers.AutoModelForCausalLM.from_pretrained(
                folders[-1],
                dtype=getattr(torch, _DTYPES[self._device]),
                device_map=None if self._device == "cpu" else self._device,
                local_files_only=True,
                output_loading_info=True,
            )
            beside = any(self._path.glob("tokenizer*"))  # an adapter may come without one
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                self._path if beside else folders[-1], local_files_only=True
            )
            if len(folders) > 1:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, str(self._path)).merge_and_unload()
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            words = " ".join(str(error).split())[:300]
            raise ModelRefused(f"{self._name}: cannot load {self._path}: {words}") from error
        if loading["missing_keys"]:
            some = ", ".join(sorted(loading["missing_keys"])[:3])
            raise ModelRefused(f"{self._name}: {folders[-1]} lacks weights: {some}; save it again")
        kinds = {
            type(layer).__name__ for layer in transformers.DynamicCache(config=model.config).layers
        }
        if odd := kinds - {"DynamicLayer", "DynamicSlidingWindowLayer"}:
            raise ModelRefused(
                f"{self._name}: hf/ decodes models of plain attention only, found "
                f"{', '.join(sorted(odd))}: serve it with vLLM (python -m harness serve)"
            )
        if not tokenizer.chat_template:
            raise ModelRefused(
                f"{self._name}: its tokenizer has no chat template; put the one that it was "
                "trained with into chat_template.jinja beside its config.json"
            )
        config = model.config.get_text_config()
        self._context = getattr(config, "max_position_embeddings", None)
        self._ends = _ends(model, tokenizer)
        self._tokenizer, self._model = tokenizer, model.eval()


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer: the configuration's, and what the template puts after one.

    The tokenizer's own end token counts only where it is a special one: some versions of
    transformers give tokenizers that come from GGUF files a wrong one.
    """
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    ends = {tokenizer.eos_token_id} & special
    for config in (model.generation_config, model.config.get_text_config()):
        found = getattr(config, "eos_token_id", None)
        ends |= set(found) if isinstance(found, (list, tuple)) else {found}
    from jinja2 import TemplateError

    mark = "flowreasoner"
    turn = [{"role": "user", "content": "?"}, {"role": "assistant", "content": mark}]
    with contextlib.suppress(TemplateError):  # a template may want other turns; ends are known
        _, found, after = tokenizer.apply_chat_template(turn, tokenize=False).rpartition(mark)
        first = tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"][:1]
        ends |= set(first) & special if found else set()
    return frozenset(token for token in ends if token is not None)


# While transformers loads a model it puts functions of its own aside for the whole process: two
# threads that load at once may leave it so, and later models without the weights that they share.
_loading = threading.Lock()
_engines: dict[Path, tuple[object, _Engine]] = {}
_engines_lock = threading.Lock()


def _engine(name: str, path: Path, device: str) -> _Engine:
    """The engine of a folder; a new one when its files have changed."""
    stamps = _stamps(_files([path]))
    with _engines_lock:
        if path not in _engines or _engines[path][0] != stamps:
            _engines[path] = (stamps, _Engine(name, path, device))
        return _engines[path][1]
