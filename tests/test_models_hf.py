"""`hf/PATH`: a real model of 135 million parameters, decoded in batches by transformers."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.api import evaluate_async
from harness.errors import ModelRefused, RequestRejected, UsageError
from harness.models import hf
from harness.models.hf import HFModel, _choose, _Row, open_hf
from harness.models.pull import default_cache_dir, pull
from harness.types import Completion, Message, Sampling

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.torch, pytest.mark.model]

GREEDY = Sampling(0.0, 16)
# bfloat16, which a GPU computes with, rounds so coarsely that batches change answers
on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="float32 is the CPU's")


def ask(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


CAT = ask("Which animal says meow?")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The weights of the registry as a checkpoint that training would have written."""
    weights = pull("local/smollm2-135m-instruct", cache_dir=default_cache_dir(), say=print)
    source = {"pretrained_model_name_or_path": weights.parent, "gguf_file": weights.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    model = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    del model.config.quantization_config  # else it cannot be saved: it counts as quantized
    model.hf_quantizer, model.is_quantized = None, False
    path = tmp_path_factory.mktemp("smol")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def model(folder: Path) -> HFModel:
    return open_hf(f"hf/{folder}")


@pytest.fixture
def variant(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """The same checkpoint with some fields of its JSON files changed."""

    def make(leave_out: str = "", **changes: dict[str, Any]) -> Path:
        path = tmp_path / "variant"
        path.mkdir()
        for file in folder.iterdir():
            found = changes.get(file.stem)
            if file.name == leave_out:
                continue
            if file.suffix != ".json" or found is None:
                (path / file.name).symlink_to(file)
                continue
            (path / file.name).write_text(json.dumps(json.loads(file.read_text()) | found))
        return path

    return make


async def alone(model: HFModel, requests: list[tuple[str, Sampling]]) -> list[Completion]:
    return [
        await model.complete(ask(text), sampling, seed=seed)
        for seed, (text, sampling) in enumerate(requests)
    ]


async def together(model: HFModel, requests: list[tuple[str, Sampling]]) -> list[Completion]:
    tasks = (
        model.complete(ask(text), sampling, seed=seed)
        for seed, (text, sampling) in enumerate(requests)
    )
    return await asyncio.gather(*tasks)


async def test_it_answers_and_counts_every_token(model: HFModel, folder: Path) -> None:
    completion = await model.complete(CAT, Sampling(0.0, 40))
    assert "cat" in completion.text.lower()
    assert completion.finish == "stop"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(CAT, add_generation_prompt=True)["input_ids"]
    assert completion.prompt_tokens == len(prompt)
    written = tokenizer(completion.text)["input_ids"]
    assert completion.completion_tokens == len(written) + 1  # and the token that ends it
    assert model.price(completion) == 0.0
    cut = await model.complete(CAT, Sampling(0.0, 3))
    assert (cut.finish, cut.completion_tokens) == ("length", 3)
    assert completion.text.startswith(cut.text)


MIXED = [
    ("Which animal says meow?", Sampling(0.0, 24)),
    ("Tell me a story about a " + "very " * 40 + "old tree.", Sampling(0.0, 30)),
    ("Name a colour.", Sampling(1.0, 20)),
    ("Write one line of Python that prints the number 3.", Sampling(0.7, 25, top_p=0.9)),
    ("What is two plus two?", Sampling(0.0, 5)),
    ("Count from one to ten.", Sampling(1.3, 15)),
]


@on_cpu
async def test_a_last_message_of_the_assistant_is_continued(model: HFModel) -> None:
    begun: list[Message] = [*CAT, {"role": "assistant", "content": "The animal that says meow is"}]
    anew = await model.complete(CAT, Sampling(0.0, 12))
    on = await model.complete(begun, Sampling(0.0, 12))
    assert on.prompt_tokens is not None
    assert anew.prompt_tokens is not None
    # the words themselves: no end of turn after them, and no turn that begins anew
    assert on.prompt_tokens == anew.prompt_tokens + 7
    assert "cat" in on.text.lower()


async def test_requests_that_wait_are_one_batch_in_which_each_is_answered_as_if_alone(
    model: HFModel,
) -> None:
    expected = await alone(model, MIXED)
    before = model.counts()["prefills"]
    assert await together(model, MIXED) == expected
    assert model.counts()["prefills"] == before + 1
    assert model.counts()["widest"] >= len(MIXED)


@on_cpu
async def test_requests_join_a_batch_that_is_under_way_and_leave_before_its_end(
    model: HFModel,
) -> None:
    long = ("Tell me a long story about the sea.", Sampling(0.0, 120))
    expected = await alone(model, [long, *MIXED])
    before = model.counts()
    first = asyncio.create_task(model.complete(ask(long[0]), long[1], seed=0))
    while model.counts()["steps"] < before["steps"] + 5:
        await asyncio.sleep(0.01)
    rest = [
        await model.complete(ask(text), sampling, seed=seed)
        for seed, (text, sampling) in enumerate(MIXED[:4], start=1)
    ]
    assert not first.done()
    assert rest == expected[1:5]
    assert await first == expected[0]
    steps = model.counts()["steps"] - before["steps"]
    assert steps < 120 + 10  # the others were answered within the steps of the first


async def test_a_cancelled_request_leaves_and_the_others_stay_as_they_are(model: HFModel) -> None:
    expected = await model.complete(CAT, GREEDY)
    before = model.counts()["steps"]
    story = ask("Write a very long story.")
    endless = [asyncio.create_task(model.complete(story, Sampling(1.0, 4000))) for _ in range(3)]
    while model.counts()["steps"] < before + 3:
        await asyncio.sleep(0.01)
    beside = asyncio.create_task(model.complete(CAT, GREEDY))
    for task in endless:
        task.cancel()
    await asyncio.gather(*endless, return_exceptions=True)
    assert all(task.cancelled() for task in endless)
    assert (await beside).text == expected.text
    assert (await model.complete(CAT, GREEDY)).text == expected.text
    idle = model.counts()
    assert idle["steps"] < before + 400
    await asyncio.sleep(0.5)
    assert model.counts() == idle


async def test_a_request_that_is_cancelled_while_it_waits_is_never_read(model: HFModel) -> None:
    await model.complete(CAT, GREEDY)
    before = model.counts()["prefills"]
    task = asyncio.create_task(model.complete(CAT, GREEDY))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await model.complete(CAT, GREEDY)
    assert model.counts()["prefills"] <= before + 2
    assert task.cancelled()


async def test_a_seed_repeats_and_another_differs(model: HFModel) -> None:
    hot = Sampling(1.0, 24)
    texts = [
        (await model.complete(ask("Tell me a story."), hot, seed=seed)).text
        for seed in (1, 1, 2, -1, None, None)
    ]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 5


async def test_the_smallest_top_p_is_greedy(model: HFModel) -> None:
    expected = await model.complete(CAT, GREEDY)
    narrow = replace(GREEDY, temperature=1.0, top_p=0.0)
    assert (await model.complete(CAT, narrow, seed=3)).text == expected.text


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(1.0), [0.09003, 0.24473, 0.66524]),
        (Sampling(2.0), [0.18632, 0.30720, 0.50648]),
        (Sampling(1.0, top_p=0.7), [0.0, 0.26894, 0.73106]),  # 0.665 is not enough, two are
        (Sampling(1.0, top_p=0.6), [0.0, 0.0, 1.0]),
    ],
)
def test_tokens_are_drawn_as_often_as_their_probability_says(
    sampling: Sampling, expected: list[float]
) -> None:
    draws = 4000
    row = _Row("hf/x", [], sampling, 0, {}, ())
    row.generator = torch.Generator().manual_seed(0)
    for _ in range(draws):
        _choose([row], torch.tensor([[1.0, 2.0, 3.0]]))
    for token, share in enumerate(expected):
        error = 4 * math.sqrt(share * (1 - share) / draws)
        assert row.tokens.count(token) / draws == pytest.approx(share, abs=error)


async def test_what_it_does_not_take_is_recorded(model: HFModel) -> None:
    extra = {"top_k": 20, "chat_template_kwargs": {"date": "today"}}
    sampling = replace(GREEDY, reasoning_effort="low", extra_body=extra)
    assert (await model.complete(CAT, sampling)).ignored == ("top_k", "reasoning_effort")


async def test_arguments_of_the_chat_template_are_passed_on(variant: Callable[..., Path]) -> None:
    path = variant(leave_out="chat_template.jinja")
    (path / "chat_template.jinja").write_text("{{ shout }}{{ messages[0]['content'] }}")
    model = open_hf(f"hf/{path}")
    plain = await model.complete(CAT, GREEDY)
    extra = {"chat_template_kwargs": {"shout": "Hear, hear! "}}
    shouted = await model.complete(CAT, replace(GREEDY, extra_body=extra))
    assert plain.prompt_tokens is not None
    assert shouted.prompt_tokens is not None
    assert shouted.prompt_tokens > plain.prompt_tokens


async def test_the_context_bounds_prompt_and_answer(variant: Callable[..., Path]) -> None:
    model = open_hf(f"hf/{variant(config={'max_position_embeddings': 64})}")
    with pytest.raises(RequestRejected, match=r"prompt of \d+ tokens .* context of 64"):
        await model.complete(ask("word " * 100), GREEDY)
    story = await model.complete(ask("Write a long story."), Sampling(0.0, 500))
    assert story.finish == "length"
    assert (story.prompt_tokens or 0) + (story.completion_tokens or 0) == 64


async def test_a_rejected_request_harms_none_beside_it(variant: Callable[..., Path]) -> None:
    path = variant(leave_out="chat_template.jinja")
    (path / "chat_template.jinja").write_text(
        "{% if messages[0]['content'] == 'no' %}{{ raise_exception('not this') }}{% endif %}"
        "{{ messages[0]['content'] }}"
    )
    model = open_hf(f"hf/{path}")
    refused, right, empty = await asyncio.gather(
        model.complete(ask("no"), GREEDY),
        model.complete(ask("The sky is"), GREEDY),
        model.complete(CAT, Sampling(0.0, 0)),
        return_exceptions=True,
    )
    assert isinstance(refused, RequestRejected)
    assert "not this" in str(refused)
    assert isinstance(right, Completion)
    assert isinstance(empty, RequestRejected)
    assert "max_tokens 0" in str(empty)


async def test_the_end_of_a_turn_is_known_from_the_template_alone(
    variant: Callable[..., Path],
) -> None:
    path = variant(
        config={"eos_token_id": 0},  # <|endoftext|>; a turn ends with <|im_end|>
        generation_config={"eos_token_id": 0},
        tokenizer_config={"eos_token": "<|endoftext|>"},
    )
    completion = await open_hf(f"hf/{path}").complete(CAT, Sampling(0.0, 60))
    assert completion.finish == "stop"
    assert "cat" in completion.text.lower()


async def test_a_checkpoint_without_a_chat_template_is_refused(
    variant: Callable[..., Path],
) -> None:
    model = open_hf(f"hf/{variant(leave_out='chat_template.jinja')}")
    with pytest.raises(ModelRefused, match=r"no chat template; put .* chat_template\.jinja"):
        await model.complete(CAT, GREEDY)


async def test_damaged_or_missing_weights_are_refused_in_one_line(
    variant: Callable[..., Path],
) -> None:
    path = variant(leave_out="model.safetensors")
    requests = (open_hf(f"hf/{path}").complete(CAT, GREEDY) for _ in range(2))
    for error in await asyncio.gather(*requests, return_exceptions=True):
        assert isinstance(error, ModelRefused)
        assert f"cannot load {path}" in str(error)
        assert "\n" not in str(error)
    (path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      no")
    with pytest.raises(ModelRefused, match=r"cannot load|lacks weights"):
        await open_hf(f"hf/{path}").complete(CAT, GREEDY)


async def test_models_that_are_loaded_at_once_leave_later_ones_whole(
    variant: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    intact = transformers.PreTrainedModel.tie_weights
    damaged = variant(leave_out="model.safetensors")
    (damaged / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      no")
    paths = [damaged]
    for number in range(2):
        paths.append(tmp_path / f"copy{number}")
        paths[-1].mkdir()
        for file in folder.iterdir():
            (paths[-1] / file.name).symlink_to(file)
    for _ in range(3):
        asked = (open_hf(f"hf/{path}").complete(CAT, Sampling(0.0, 1)) for path in paths)
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in found] == [ModelRefused, Completion, Completion]
        assert transformers.PreTrainedModel.tie_weights is intact
        for path in paths:
            hf._engines.pop(path.resolve(), None)  # loaded again


async def test_a_checkpoint_that_lacks_some_weights_is_refused(
    folder: Path, variant: Callable[..., Path]
) -> None:
    from safetensors.torch import load_file, save_file

    path = variant(leave_out="model.safetensors")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.7.mlp.up_proj.weight"]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelRefused, match=r"lacks weights: model\.layers\.7\.mlp\.up_proj"):
        await open_hf(f"hf/{path}").complete(CAT, GREEDY)


async def test_a_model_that_is_no_plain_attention_is_refused(folder: Path, tmp_path: Path) -> None:
    config = transformers.MambaConfig(vocab_size=64, hidden_size=8, num_hidden_layers=1)
    transformers.MambaForCausalLM(config).save_pretrained(tmp_path)
    for file in [*folder.glob("tokenizer*"), *folder.glob("*.jinja")]:
        (tmp_path / file.name).symlink_to(file)
    with pytest.raises(ModelRefused, match=r"plain attention only, found .*serve it with vLLM"):
        await open_hf(f"hf/{tmp_path}").complete(CAT, GREEDY)


def test_a_folder_without_a_model_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        open_hf(f"hf/{tmp_path}/nowhere")
    with pytest.raises(UsageError, match="holds neither config"):
        open_hf(f"hf/{tmp_path}")


def test_the_identity_is_of_what_decides_an_answer(
    model: HFModel, folder: Path, tmp_path: Path
) -> None:
    first = model.identity()
    assert first["dtype"] == ("bfloat16" if torch.cuda.is_available() else "float32")
    assert first["torch"] == torch.__version__
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "README.md").write_text("a model card")
    (tmp_path / "optimizer.pt").write_bytes(b"state")
    copy = open_hf(f"hf/{tmp_path}")
    assert copy.identity()["sha256"] == first["sha256"]
    template = tmp_path / "chat_template.jinja"
    text = template.read_text()
    template.unlink()
    template.write_text(text + " ")
    assert copy.identity()["sha256"] != first["sha256"]


async def test_an_adapter_is_run_on_its_base_and_both_are_its_identity(
    model: HFModel, folder: Path, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    tuned = peft.get_peft_model(base, config)
    tuned.save_pretrained(tmp_path / "adapter")
    merged = tuned.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    for file in [*folder.glob("tokenizer*"), *folder.glob("*.jinja")]:
        (tmp_path / "merged" / file.name).symlink_to(file)
    adapter = open_hf(f"hf/{tmp_path}/adapter")
    answer = await adapter.complete(CAT, GREEDY)
    whole = await open_hf(f"hf/{tmp_path}/merged").complete(CAT, GREEDY)
    assert answer.text == whole.text
    assert answer.text != (await model.complete(CAT, GREEDY)).text
    assert adapter.identity()["sha256"] != model.identity()["sha256"]
    settings = tmp_path / "adapter" / "adapter_config.json"
    found = json.loads(settings.read_text()) | {"base_model_name_or_path": "nobody/nothing"}
    settings.write_text(json.dumps(found))
    lost = open_hf(f"hf/{tmp_path}/adapter")
    with pytest.raises(ModelRefused, match="hf download nobody/nothing"):
        await lost.complete(CAT, GREEDY)
    with pytest.raises(ModelRefused, match="hf download nobody/nothing"):
        lost.identity()


async def test_a_run_s_rows_come_from_one_batch(folder: Path, tmp_path: Path) -> None:
    model = open_hf(f"hf/{folder}")
    await model.complete(CAT, GREEDY)
    before = model.counts()["prefills"]
    summary = await evaluate_async(
        "vanilla",
        limit="2",
        max_tokens=24,
        models={"worker": model},
        cache="off",
        out=tmp_path / "results",
        cache_dir=tmp_path / "cache",
    )
    rows = summary.progress.rows.values()
    assert [(row["calls"], row["cost_usd"]) for row in rows] == [(1, 0.0), (1, 0.0)]
    assert all(row["verdict"] != "invalid" for row in rows)
    assert model.counts()["prefills"] in (before + 1, before + 2)


def test_the_same_model_serves_one_event_loop_after_another(model: HFModel) -> None:
    texts = [asyncio.run(model.complete(CAT, GREEDY)).text for _ in range(2)]
    assert texts[0] == texts[1]


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    start = (
        "import asyncio, resource, sys\n"
        "from harness.models.hf import open_hf\n"
        "from harness.types import Sampling\n"
        f"model = open_hf({f'hf/{folder}'!r})\n"
        "def ask(text, tokens=8):\n"
        "    message = {'role': 'user', 'content': text}\n"
        "    return model.complete([message], Sampling(0.0, tokens))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", start + program], capture_output=True, text=True, timeout=240
    )


def test_loading_and_answering_print_nothing(folder: Path) -> None:
    done = run("asyncio.run(ask('Which animal says meow?'))\n", folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


SHORT_OF_MEMORY = """
from harness.errors import ModelUnavailable

async def main():
    long, warm = "word " * 700, [ask("word " * 300) for _ in range(2)]
    await asyncio.gather(*warm)
    now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 200 * 2**20,) * 2)
    answers = await asyncio.gather(*(ask(long) for _ in range(8)))
    print(len({answer.text for answer in answers}), len(answers), model._engine._most)
    try:
        await ask("word " * 7000)
    except ModelUnavailable as error:
        print(error)
    print((await ask(long)).text == answers[0].text, model._engine._most)

asyncio.run(main())
"""


@pytest.mark.slow
@on_cpu
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_short_of_memory_it_goes_on_with_half_of_the_batch(folder: Path) -> None:
    done = run(SHORT_OF_MEMORY, folder)
    assert done.returncode == 0, done.stderr
    counts, words, again = done.stdout.splitlines()
    texts, answers, most = map(int, counts.split())
    assert (texts, answers) == (1, 8)
    assert 1 <= most <= 4
    assert "out of memory (cpu) with one request" in words
    assert again == "True 8"  # it was the one, not their number
