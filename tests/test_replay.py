"""Recorded calls as a model: found by what was asked, paid for by nobody."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import RequestRejected, UsageError
from harness.journal import Journal, canonical
from harness.models import resolve
from harness.pacing import Gate
from harness.types import About, Completion, Message, Model, Sampling
from tests.support import Desk

GREEDY = Sampling(0.0, 16)
WARM = Sampling(0.7, 16)


def chat(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def line(question: str, response: str, **fields: Any) -> dict[str, Any]:
    return {"messages": chat(question), "response": response, **fields}


@pytest.fixture
def replay(tmp_path: Path) -> Callable[..., Model]:
    """Opens these lines, or this text, as a recording."""

    def open_lines(*lines: dict[str, Any] | str) -> Model:
        path = tmp_path / "calls.jsonl"
        texts = [one if isinstance(one, str) else json.dumps(one) for one in lines]
        path.write_text("\n".join(texts))
        return resolve(f"replay/{path}", endpoints={})

    return open_lines


async def ask(
    model: Model,
    question: str,
    sampling: Sampling = GREEDY,
    *,
    seed: int | None = None,
    about: About | None = None,
) -> str:
    return (await model.complete(chat(question), sampling, seed=seed, about=about)).text


async def test_a_recorded_request_gets_its_answer_with_tokens_and_price(
    replay: Callable[..., Model],
) -> None:
    counts = {"prompt_tokens": 9, "completion_tokens": 4, "cached_tokens": 2, "cost_usd": 0.5}
    model = replay(
        line("a", "one", **counts, reasoning_tokens=1, finish="length", model="gpt-4o-2024"),
        line("b", "two"),
    )
    found = await model.complete(chat("a"), GREEDY)
    assert found == Completion("one", 9, 4, 2, 1, "length", "gpt-4o-2024")
    assert model.price(found) == 0.5
    unpriced = await model.complete(chat("b"), GREEDY)
    assert (unpriced.text, unpriced.prompt_tokens, model.price(unpriced)) == ("two", None, None)
    assert (model.repeats, model.recorded, model.cacheable) == (True, True, False)
    assert not model.simulated


@pytest.mark.parametrize(
    ("fields", "asked", "seed", "why"),
    [
        ({}, "other", None, "no answer to this request was recorded"),
        ({"sampling": {"temperature": 0.7, "max_tokens": 16}}, "a", None, "sampling"),
        ({"sampling": {"max_tokens": 16}, "seed": 7}, "a", 8, "recorded with the seed 7"),
        ({"seed": None}, "a", 8, "recorded with the seed None"),
    ],
)
async def test_a_request_that_was_not_recorded_is_rejected_and_told_why(
    replay: Callable[..., Model], fields: dict[str, Any], asked: str, seed: int | None, why: str
) -> None:
    model = replay(line("a", "one", **fields))
    with pytest.raises(RequestRejected, match=why) as caught:
        await ask(model, asked, seed=seed)
    assert "\n" not in str(caught.value)


async def test_what_a_line_does_not_say_may_be_anything(replay: Callable[..., Model]) -> None:
    model = replay(line("a", "one"), line("b", "two", sampling={"max_tokens": 16}))
    assert await ask(model, "a", WARM, seed=3) == "one"
    assert await ask(model, "b", GREEDY, seed=3) == "two"
    with pytest.raises(RequestRejected):
        await ask(model, "b", WARM)


async def test_seeds_and_settings_tell_equal_messages_apart(replay: Callable[..., Model]) -> None:
    warm = {"temperature": 0.7, "max_tokens": 16}
    effort = {"max_tokens": 16, "reasoning_effort": "low"}
    model = replay(
        line("a", "one", sampling=warm, seed=1),
        line("a", "two", sampling=warm, seed=2),
        line("a", "three", sampling=effort),
    )
    assert await ask(model, "a", WARM, seed=2) == "two"
    assert await ask(model, "a", WARM, seed=1) == "one"
    assert await ask(model, "a", Sampling(0.0, 16, reasoning_effort="low")) == "three"


async def test_several_answers_to_one_request_come_in_the_file_s_order_and_the_last_repeats(
    replay: Callable[..., Model],
) -> None:
    model = replay(line("a", "one"), line("a", "two"), line("b", "other"))
    assert [await ask(model, "a") for _ in range(3)] == ["one", "two", "two"]
    for _ in range(2):  # by what the request is for, however often it is asked
        by_place = [
            await ask(model, "a", about=About("P", sample, "worker", occurrence))
            for sample, occurrence in ((0, 0), (0, 1), (1, 0), (2, 0))
        ]
        assert by_place == ["one", "two", "two", "two"]


async def test_an_answer_goes_to_what_it_was_recorded_for(replay: Callable[..., Model]) -> None:
    model = replay(
        line("a", "late", problem_id="P", sample=1),
        line("a", "early", problem_id="P", sample=0),
        line("a", "again", problem_id="P", sample=0, occurrence=1),
        line("a", "judged", problem_id="P", sample=0, role="judge"),
    )
    for role, sample, occurrence, text in (
        ("worker", 1, 0, "late"),
        ("worker", 0, 1, "again"),
        ("worker", 0, 0, "early"),
        ("judge", 0, 0, "judged"),
        ("worker", 9, 0, "late"),  # not recorded: the last in order of sample and occurrence
    ):
        assert await ask(model, "a", about=About("P", sample, role, occurrence)) == text


async def test_a_run_s_journal_answers_as_its_model_did(
    desk: Callable[..., Desk], tmp_path: Path
) -> None:
    made = desk("one", "two", "three", sampling={"worker": WARM})
    for question in ("a", "a", "b"):
        await made.ctx.ask(question)
    made.journal.close()
    seeds = [record["seed"] for record in made.records("call")]
    for name in (made.folder, made.folder / "0001.jsonl"):
        model = resolve(f"replay/{name}", endpoints={})
        for question, seed, occurrence, text in zip(
            "aab", seeds, (0, 1, 0), ("one", "two", "three"), strict=True
        ):
            about = About("Test/0", 0, "worker", occurrence)
            found = await model.complete(chat(question), WARM, seed=seed, about=about)
            assert (found.text, found.prompt_tokens, found.finish) == (text, 1, "stop")
            assert model.price(found) == 0.0
        assert model.simulated  # the model that was recorded is a script
        assert model.identity()["simulated"] is True


async def test_a_sample_that_is_replayed_asks_the_same_and_pays_nothing(
    desk: Callable[..., Desk],
) -> None:
    first = desk("one", "two", "three", sampling={"worker": WARM})
    texts = [(await first.ctx.ask(question)).text for question in "aab"]
    first.journal.close()
    model = resolve(f"replay/{first.folder / '0001.jsonl'}", endpoints={})
    again = desk("never asked", sampling={"worker": WARM})
    again.ctx.gates = {"worker": Gate(model)}
    assert [(await again.ctx.ask(question)).text for question in "aab"] == texts
    assert (again.ctx.totals.calls, again.ctx.totals.cached_calls) == (3, 3)
    assert again.ctx.totals.cost_usd == 0.0
    with pytest.raises(RequestRejected):
        await again.ctx.ask("c")
    again.journal.close()


def journal(folder: Path, **fields: Any) -> Path:
    """A run's folder with one call by a real provider's model."""
    made = Journal(folder)
    question = {"messages": chat("a"), "sampling": GREEDY.as_dict()}
    sha = made.artifact(canonical({"model": "openai/gpt-4o", **question}))
    call = {
        "problem_id": "P",
        "sample": 0,
        "role": "worker",
        "model": "openai/gpt-4o",
        "request_sha": sha,
        "seed": None,
        "finish": "stop",
        "error": None,
        "cost_usd": 0.25,
    }
    failed = {"error": "busy", "response_sha": None, "cost_usd": None}
    made.write("call", **call | failed)
    made.write("call", **call, response_sha=made.artifact("one"), **fields)
    made.close()
    return folder


async def test_a_cached_call_costs_what_it_cost_fresh(tmp_path: Path) -> None:
    for name, fields, usd in (
        ("paid", {}, 0.25),
        ("cached", {"cached": True, "fresh_cost_usd": 0.5}, 0.5),
        ("unknown", {"cached": True, "fresh_cost_usd": None}, None),
    ):
        model = resolve(f"replay/{journal(tmp_path / name, **fields)}", endpoints={})
        found = await model.complete(chat("a"), GREEDY)
        assert (found.text, model.price(found)) == ("one", usd)
        assert not model.simulated


async def test_a_model_that_took_no_temperature_is_not_greedy_when_it_is_replayed(
    tmp_path: Path,
) -> None:
    for name, ignored, samples in (("o1", ["temperature"], True), ("4o", ["seed"], False)):
        model = resolve(f"replay/{journal(tmp_path / name, ignored=ignored)}", endpoints={})
        assert model.samples_always is samples
        assert (await model.complete(chat("a"), GREEDY)).ignored == tuple(ignored)


def test_the_identity_is_of_the_content(tmp_path: Path, replay: Callable[..., Model]) -> None:
    digests = [replay(line("a", text)).identity()["sha256"] for text in ("one", "two", "one")]
    assert digests[0] == digests[2] != digests[1]


async def test_a_line_torn_at_the_end_is_left_out(tmp_path: Path) -> None:
    folder = journal(tmp_path / "run")
    with (folder / "0001.jsonl").open("a") as file:
        file.write('{"kind": "call", "at": 1, "resu')
    Journal(folder).close()  # the process that went on; its segment is empty
    model = resolve(f"replay/{folder}", endpoints={})
    assert await ask(model, "a") == "one"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ('{"messages": [', "damaged"),
        ("[" * 100_000, "damaged"),
        ("[]", "expected an object"),
        ('{"response": "x"}', "no 'messages'"),
        ('{"messages": [{"role": "user"}], "response": "x"}', "messages: expected a list"),
        ('{"messages": [], "response": "x"}', "messages: expected a list"),
        (line("a", "x", prompt_tokens=-1), "prompt_tokens: expected a number of tokens"),
        (line("a", "x", cost_usd="1"), "cost_usd: expected dollars"),
        (line("a", "x", cost_usd=float("nan")), "cost_usd: expected dollars"),
        (line("a", "x", problem_id="P", sample="1"), "sample: expected a whole number"),
        (line("a", "x", model=3), "model: expected a text"),
        (line("a", "x", sampling={"temp": 1}), "sampling: expected some of temperature"),
        (line("a", "x", answer="y"), "unknown answer"),
        ({"kind": "call", "error": None, "request_sha": "0"}, "the text 0 is missing"),
    ],
)
def test_a_broken_line_elsewhere_is_an_error_that_names_it(
    replay: Callable[..., Model], broken: Any, words: str
) -> None:
    with pytest.raises(UsageError, match=r"calls\.jsonl, line 2: ") as caught:
        replay(line("a", "one"), broken, line("b", "two"))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recording_that_is_not_there_or_holds_nothing_is_named(
    tmp_path: Path, replay: Callable[..., Model]
) -> None:
    with pytest.raises(UsageError, match="is not there"):
        resolve(f"replay/{tmp_path}/none.jsonl", endpoints={})
    with pytest.raises(UsageError, match="a folder without journal segments"):
        resolve(f"replay/{tmp_path}", endpoints={})
    with pytest.raises(UsageError, match="no recorded answer"):
        replay({"kind": "session", "event": "start"})


def harness(*arguments: str | Path, code: int = 0) -> str:
    """What the command says on both streams."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_replay_of_a_replay_of_a_simulation_is_a_simulation_and_is_never_exported(
    tmp_path: Path,
) -> None:
    out, worker = tmp_path / "out", "sim/skill=1"
    folders: list[Path] = []
    for _ in range(3):
        harness(
            "eval", "--worker", worker, "--method", "vanilla", "--limit", "2", "--out", out,
            "--cache-dir", tmp_path / "cache", "--jobs", "1",
        )  # fmt: skip
        (made,) = set((out / "runs").iterdir()) - set(folders)
        assert json.loads((made / "run.json").read_text())["kind"] == "simulated"
        folders.append(made)
        worker = f"replay/{made}"
    assert "every run is simulated" in harness("export", "--out", out, code=2)

    journal = (folders[2] / "0001.jsonl").read_text()  # of the replay of a replay
    assert '"model":"sim/' not in journal.replace(" ", "")
    lonely, told = tmp_path / "lonely.jsonl", tmp_path / "told"
    lonely.write_text(journal)  # who answered stands beside each call
    assert resolve(f"replay/{lonely}", endpoints={}).simulated
    told.mkdir()
    silent = [json.loads(line) for line in journal.splitlines()]
    for record in silent:
        record.pop("served_by", None)
    (told / "0001.jsonl").write_text("\n".join(map(json.dumps, silent)))
    assert not resolve(f"replay/{told}", endpoints={}).simulated
    head = json.loads((folders[2] / "run.json").read_text())
    roles = head["roles"]
    for said in ({"kind": "simulated"}, {"roles": roles}, {"roles": {"meta": {"model": "sim/"}}}):
        (told / "run.json").write_text(json.dumps(said))
        assert resolve(f"replay/{told}", endpoints={}).simulated
        assert resolve(f"replay/{told}/0001.jsonl", endpoints={}).simulated
    (told / "run.json").write_text(json.dumps({"kind": "measured", "roles": {"worker": {}}}))
    assert not resolve(f"replay/{told}", endpoints={}).simulated


@pytest.mark.parametrize("head", ["{", "[]", "[" * 100_000])
def test_a_run_that_cannot_be_read_is_not_replayed(tmp_path: Path, head: str) -> None:
    folder = journal(tmp_path / "run")
    (folder / "run.json").write_text(head)
    with pytest.raises(
        UsageError, match=r"run\.json: cannot read the run of these calls"
    ) as caught:
        resolve(f"replay/{folder}", endpoints={})
    assert "\n" not in str(caught.value)
