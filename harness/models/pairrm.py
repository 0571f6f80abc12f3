"""PairRM: a cross-encoder that says which of two answers to a request is the better one.

Jiang et al. 2023, arXiv:2306.02561, section 3.2; weights and form of the input as published under
llm-blender/PairRM-hf (DeBERTa-v3-large, 434 million parameters). It reads
`[CLS]<|source|>...[SEP][CLS]<|candidate1|>...[SEP][CLS]<|candidate2|>...[SEP]`; the head scores the
last hidden states at source and candidate together, and the logit is the first candidate's score
less the second's. Its tokenizer turns every run of white space into one space: it does not see how
a program is indented.

Differs from the published code: a prefix counts only where it begins its part, so that a program
which contains one is read like any other; sequences of like length share a batch, and none is
padded to 2048 tokens. Runs as float32; N candidates take N(N-1) sequences, each of which takes
seconds on a CPU.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness.errors import UsageError

SOURCE_TOKENS, CANDIDATE_TOKENS = 1224, 412
ALL_TOKENS = SOURCE_TOKENS + 2 * CANDIDATE_TOKENS
PREFIXES = {  # field of the configuration -> its token
    "source_prefix_id": "<|source|>",
    "cand1_prefix_id": "<|candidate1|>",
    "cand2_prefix_id": "<|candidate2|>",
}
_PACKAGES = ("torch", "transformers", "safetensors", "tokenizers")
_ATTENDED = {"cpu": ALL_TOKENS**2, "cuda": 8 * ALL_TOKENS**2}  # rows x tokens^2 in one batch


def available(cache_dir: Path) -> Path | None:
    """The folder of the weights, when they and what runs them are on this machine."""
    folder = cache_dir / "models" / "PairRM"
    return None if _missing(folder) else folder


async def compare(source: str, candidates: Sequence[str], *, folder: Path) -> list[list[float]]:
    """Logits M[i][j]: above 0, candidate i (shown first) beats j; 0 on the diagonal.

    Raises UsageError: weights or packages are missing, or the weights are another model's.
    """
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_thread, _matrix, source, tuple(candidates), folder)


_thread = ThreadPoolExecutor(1, thread_name_prefix="pairrm")  # one comparison at a time
_loaded: dict[Path, _PairRM] = {}


def _matrix(source: str, candidates: Sequence[str], folder: Path) -> list[list[float]]:
    if folder not in _loaded:
        if missing := _missing(folder):
            raise UsageError(missing)
        _loaded[folder] = _PairRM(folder)
    model, every = _loaded[folder], range(len(candidates))
    pairs = [(i, j) for i in every for j in every if i != j]
    logits = model.logits([(source, candidates[i], candidates[j]) for i, j in pairs])
    found = dict(zip(pairs, logits, strict=True))
    return [[found.get((i, j), 0.0) for j in every] for i in every]


def _missing(folder: Path) -> str:
    """What has to be done before PairRM runs; empty when nothing has."""
    from importlib.util import find_spec

    if any(find_spec(package) is None for package in _PACKAGES):
        return "PairRM needs torch and transformers: pip install 'flowreasoner-harness[train]'"
    names = ("config.json", "tokenizer.json", "*.safetensors")
    absent = [name for name in names if not any(folder.glob(name))]
    if absent:
        return (
            f"PairRM: {folder} holds no {absent[0]}: "
            f"hf download llm-blender/PairRM-hf --local-dir {folder}"
        )
    return ""


class _PairRM:
    """The weights of one folder."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError: files damaged, or not those of PairRM."""
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file
        from tokenizers import Tokenizer
        from transformers import DebertaV2Config, DebertaV2Model

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            fields = json.loads((folder / "config.json").read_bytes())
            self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._prefix_ids = {PREFIXES[name]: int(fields[name]) for name in PREFIXES}
            self._body = DebertaV2Model(DebertaV2Config.from_dict(fields))
            size, tasks = int(fields["hidden_size"]), int(fields["n_tasks"])
            self._head = torch.nn.Sequential(
                torch.nn.Identity(),  # a dropout while it was trained, as is the fourth
                torch.nn.Linear(2 * size, size),
                torch.nn.Tanh(),
                torch.nn.Identity(),
                torch.nn.Linear(size, tasks),
            )
            weights: dict[str, Any] = {}
            for file in sorted(folder.glob("*.safetensors")):
                weights |= load_file(file)
            whole = torch.nn.ModuleDict({"pretrained_model": self._body, "head_layer": self._head})
            unfilled = whole.load_state_dict(weights, strict=False).missing_keys
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UsageError(f"PairRM: cannot load {folder}: {words}; download it again") from error
        if unfilled:
            raise UsageError(f"PairRM: {folder} lacks weights: {', '.join(unfilled[:3])}")
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        known = {token: self._tokenizer.token_to_id(token) for token in self._prefix_ids}
        if known != self._prefix_ids:
            raise UsageError(f"PairRM: {folder}: its tokenizer gives {known}: download it again")
        self._ends = [self._tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]")]
        whole.eval().to(self._device)

    def logits(self, triples: Sequence[tuple[str, str, str]]) -> list[float]:
        """One logit for each (source, first candidate, second candidate)."""
        sequences = [self._sequence(*triple) for triple in triples]
        found = [0.0] * len(triples)
        batch: list[int] = []
        for index in sorted(range(len(triples)), key=lambda i: -len(sequences[i][0])):
            widest = len(sequences[batch[0] if batch else index][0])
            if batch and (len(batch) + 1) * widest**2 > _ATTENDED[self._device]:
                self._fill(found, sequences, batch)
                batch = []
            batch.append(index)
        if batch:
            self._fill(found, sequences, batch)
        return found

    def _sequence(self, source: str, first: str, second: str) -> tuple[list[int], list[int]]:
        """(tokens, where its three prefixes stand). Each candidate has half of what is left."""
        prefixes = iter(self._prefix_ids)
        ids, marks = self._part(next(prefixes), source, SOURCE_TOKENS)
        places = [marks]
        most = (ALL_TOKENS - len(ids)) // 2
        for text in (first, second):
            part, mark = self._part(next(prefixes), text, most)
            places.append(len(ids) + mark)
            ids += part
        return ids, places

    def _part(self, prefix: str, text: str, most: int) -> tuple[list[int], int]:
        opening, closing = self._ends
        ids = self._tokenizer.encode(prefix + text, add_special_tokens=False).ids[: most - 2]
        return [opening, *ids, closing], 1 + ids.index(self._prefix_ids[prefix])

    def _fill(
        self,
        found: list[float],
        sequences: Sequence[tuple[list[int], list[int]]],
        batch: Sequence[int],
    ) -> None:
        """Put the logits of one batch in their places."""
        import torch

        rows = [sequences[index] for index in batch]
        width = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows])
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows])
        places = torch.tensor([places for _, places in rows], device=self._device)
        with torch.inference_mode():
            states = self._body(
                input_ids=ids.to(self._device), attention_mask=mask.to(self._device)
            ).last_hidden_state
            each = torch.arange(len(rows), device=self._device)
            source, first, second = (states[each, places[:, k]] for k in range(3))
            scores = [self._head(torch.cat([source, one], dim=-1)) for one in (first, second)]
            logits = (scores[0] - scores[1]).mean(dim=-1)
        for index, logit in zip(batch, logits.tolist(), strict=True):
            found[index] = logit
