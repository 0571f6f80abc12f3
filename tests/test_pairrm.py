"""PairRM: the published form of its input and head, on a tiny DeBERTa of the same layout."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.models import pairrm
from harness.models.pairrm import ALL_TOKENS, SOURCE_TOKENS, available, compare

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.torch

WORDS = [
    "return",
    "2",
    "x",
    "*",
    "+",
    "add",
    "two",
    "sort",
    "list",
    "of",
    "a",
    "b",
    "def",
    "f",
    "0",
]
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
FIELDS: dict[str, Any] = {  # the published configuration, but for its sizes
    "attention_probs_dropout_prob": 0.1, "drop_out": 0.05, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "hidden_size": 16, "initializer_range": 0.5,
    "intermediate_size": 32, "layer_norm_eps": 1e-07, "max_position_embeddings": 512,
    "max_relative_positions": -1, "model_type": "deberta-v2", "n_tasks": 2,
    "norm_rel_ebd": "layer_norm", "num_attention_heads": 2, "num_hidden_layers": 2,
    "pad_token_id": 0, "pooler_dropout": 0, "pooler_hidden_act": "gelu", "pooler_hidden_size": 16,
    "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "position_buckets": 8,
    "relative_attention": True, "share_att_key": True, "torch_dtype": "float32",
    "type_vocab_size": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random PairRM, saved as the published one is, with one more layer's name than is read."""
    path = tmp_path_factory.mktemp("PairRM")
    vocabulary = [(piece, 0.0) for piece in SPECIAL]
    vocabulary += [(f"▁{word}", -1.0 - i / 100) for i, word in enumerate(WORDS)] + [("▁", -9.0)]
    tokenizer = transformers.DebertaV2Tokenizer(vocab=vocabulary, unk_id=3)
    tokenizer.add_tokens([*pairrm.PREFIXES.values(), "<|candidate|>"], special_tokens=True)
    tokenizer.save_pretrained(path)
    ids = {name: tokenizer.convert_tokens_to_ids(p) for name, p in pairrm.PREFIXES.items()}
    fields = {**FIELDS, **ids, "vocab_size": len(tokenizer)}
    torch.manual_seed(7)
    config = transformers.DebertaV2Config.from_dict(fields)
    body = transformers.DebertaV2Model(config)
    head = torch.nn.ModuleDict({"1": torch.nn.Linear(32, 16), "4": torch.nn.Linear(16, 2)})
    weights = {f"pretrained_model.{k}": v for k, v in body.state_dict().items()}
    weights |= {f"head_layer.{k}": v for k, v in head.state_dict().items()}
    # older versions stored what is no weight
    weights["pretrained_model.embeddings.position_ids"] = torch.arange(512)[None]
    from safetensors.torch import save_file

    save_file(weights, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(fields))
    return path


def by_hand(folder: Path, source: str, first: str, second: str) -> float:
    """One logit alone: transformers' own tokenizer and body, the head in plain Python."""
    from safetensors.torch import load_file

    fields = json.loads((folder / "config.json").read_text())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.encode("<|source|>" + source, max_length=1224, truncation=True)
    most = (2048 - len(ids)) // 2
    for prefix, text in (("<|candidate1|>", first), ("<|candidate2|>", second)):
        ids = ids + tokenizer.encode(prefix + text, max_length=most, truncation=True)
    weights = load_file(folder / "model.safetensors")
    body = transformers.DebertaV2Model(transformers.DebertaV2Config.from_dict(fields)).eval()
    stem = "pretrained_model."
    kept = {k.removeprefix(stem): v for k, v in weights.items() if k.startswith(stem)}
    body.load_state_dict({k: v for k, v in kept.items() if k != "embeddings.position_ids"})
    padded = torch.tensor([ids + [0] * (2048 - len(ids))])
    mask = (torch.arange(2048) < len(ids)).long()[None]
    states = body(input_ids=padded, attention_mask=mask).last_hidden_state[0].tolist()

    def row(matrix: list[list[float]], bias: list[float], values: list[float]) -> list[float]:
        return [
            b + math.fsum(map(float.__mul__, m, values)) for m, b in zip(matrix, bias, strict=True)
        ]

    w = {k: v.tolist() for k, v in weights.items() if k.startswith("head_layer")}

    def score(prefix: str) -> float:
        at = [ids.index(fields[name]) for name in ("source_prefix_id", prefix)]
        inner = row(w["head_layer.1.weight"], w["head_layer.1.bias"], states[at[0]] + states[at[1]])
        outer = row(w["head_layer.4.weight"], w["head_layer.4.bias"], list(map(math.tanh, inner)))
        return sum(outer) / len(outer)

    return score("cand1_prefix_id") - score("cand2_prefix_id")


def text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


async def test_logits_are_those_of_a_computation_by_hand(folder):
    rng = random.Random(1)
    source, candidates = text(rng, 40), [text(rng, n) for n in (3, 60, 17)]
    matrix = await compare(source, candidates, folder=folder)
    for i in range(3):
        assert matrix[i][i] == 0.0
        for j in {0, 1, 2} - {i}:
            expected = by_hand(folder, source, candidates[i], candidates[j])
            assert abs(expected) > 1e-3  # the head tells the two apart
            assert matrix[i][j] == pytest.approx(expected, abs=1e-4)
    assert matrix[0][1] != pytest.approx(-matrix[1][0], abs=1e-3)  # order matters to it


@pytest.mark.parametrize(
    ("source_words", "words"), [(1500, 700), (1221, 700), (1222, 410), (1223, 411), (300, 1500)]
)
async def test_what_is_too_long_is_cut_as_the_published_code_cuts_it(folder, source_words, words):
    rng = random.Random(2)
    source, first, second = text(rng, source_words), text(rng, words), text(rng, words)
    matrix = await compare(source, [first, second], folder=folder)
    assert matrix[0][1] == pytest.approx(by_hand(folder, source, first, second), abs=1e-4)


def test_lengths_keep_to_the_source_first_and_share_the_rest(folder):
    model = pairrm._PairRM(folder)
    long = " ".join(["x"] * 3000)
    ids, places = model._sequence(long, long, long)
    assert (len(ids), places) == (ALL_TOKENS, [1, SOURCE_TOKENS + 1, SOURCE_TOKENS + 412 + 1])
    ids, places = model._sequence("x", long, long)  # [CLS] prefix x [SEP]: 1022 for each
    assert (len(ids), places) == (ALL_TOKENS, [1, 5, 5 + 1022])
    ids, places = model._sequence("", "", "")
    assert (len(ids), places) == (9, [1, 4, 7])


async def test_batches_change_no_logit(folder, monkeypatch):
    rng = random.Random(3)
    source, candidates = text(rng, 30), [text(rng, n) for n in (5, 200, 80, 1)]
    together = await compare(source, candidates, folder=folder)
    monkeypatch.setitem(pairrm._ATTENDED, "cpu", 1)
    monkeypatch.setitem(pairrm._ATTENDED, "cuda", 1)
    alone = await compare(source, candidates, folder=folder)
    for a, b in zip(together, alone, strict=True):
        assert a == pytest.approx(b, abs=1e-4)


async def test_a_program_that_contains_a_prefix_is_read_like_any_other(folder):
    plain = await compare("sort a list", ["x", "return 2 <|candidate2|> x"], folder=folder)
    assert all(math.isfinite(value) for row in plain for value in row)
    swapped = await compare("sort a list", ["return 2 <|candidate2|> x", "x"], folder=folder)
    assert plain[0][1] == pytest.approx(swapped[1][0], abs=1e-5)


async def test_one_candidate_or_none_needs_no_comparison(folder):
    assert await compare("sort", ["x"], folder=folder) == [[0.0]]
    assert await compare("sort", [], folder=folder) == []


def test_it_is_available_only_when_all_its_files_are(folder, tmp_path):
    assert available(tmp_path) is None
    there = tmp_path / "models" / "PairRM"
    there.mkdir(parents=True)
    for file in folder.iterdir():
        assert available(tmp_path) is None or file.name not in (
            "config.json", "tokenizer.json", "model.safetensors",
        )  # fmt: skip
        (there / file.name).symlink_to(file)
    assert available(tmp_path) == there


async def test_pickled_weights_are_not_taken(folder, tmp_path):
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).symlink_to(folder / name)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"holds no \*\.safetensors: hf download"):
        await compare("sort", ["x", "a"], folder=tmp_path)


async def test_weights_of_another_model_are_one_line_that_says_so(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).symlink_to(folder / name)
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "head" not in k}, tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match=r"lacks weights: head_layer\.1\.weight"):
        await compare("sort", ["x", "a"], folder=tmp_path)
    (tmp_path / "m.safetensors").write_bytes(b"not weights")
    with pytest.raises(UsageError, match="cannot load") as caught:
        await compare("sort", ["x", "a"], folder=tmp_path)
    assert "\n" not in str(caught.value)


async def test_the_published_weights_give_the_logits_of_their_card():
    from platformdirs import user_cache_path

    weights = available(user_cache_path("flowreasoner-harness"))
    if weights is None:
        pytest.skip("the weights of PairRM (1.7 GB) are not on this machine")
    first = await compare("hello!", ["hi!", "f**k off!"], folder=weights)
    second = await compare("I love you!", ["I hate you!", "I love you, too!"], folder=weights)
    assert first[0][1] == pytest.approx(1.9003, abs=0.01)
    assert second[0][1] == pytest.approx(-1.2547, abs=0.01)
