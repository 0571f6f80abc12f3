"""LLM-Blender: candidates, ranking by a judge or by logits, fusion, and what each falls back to."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence

import pytest

import baselines
from baselines import llm_blender
from baselines.llm_blender import FORM, METHOD, bubble, max_logits, max_wins
from harness.context import Aids
from harness.errors import ModelRefused, RequestRejected, UsageError
from harness.models.sim import open_sim
from harness.pacing import Gate
from harness.types import About, Sampling
from tests.support import DOUBLE, Desk

LOGITS = [[0, 2, 1], [-1, 0, 0.5], [-2, -0.5, 0]]


def program(number: int) -> str:
    return f"```python\ndef double(x):\n    return 2 * x + {number}\n```"


def shown(text: str) -> list[int]:
    """The numbers of the programs in a request, in order."""
    return [int(line.rpartition("+ ")[2]) for line in text.splitlines() if "2 * x +" in line]


def sampled(desk: Callable[..., Desk], *replies: str | Exception, **options: object) -> Desk:
    return desk(*replies, sampling={"worker": Sampling(temperature=0.7)}, **options)


class Logits(Aids):
    """Stands for PairRM's weights, which are 1.7 GB: a program's logit is its own number's."""

    def __init__(self) -> None:
        self.compared: list[list[int]] = []

    async def compare(self, source: str, candidates: Sequence[str]) -> list[list[float]]:
        assert source == DOUBLE.prompt
        numbers = shown("\n".join(candidates))
        self.compared.append(numbers)
        return [[float(a - b) for b in numbers] for a in numbers]


def test_aggregations_give_the_test_vector():
    assert [score * 3 for score in max_logits(LOGITS)] == pytest.approx([6, -2, -4])
    assert max_wins(LOGITS) == [4, 2, 0]


def test_aggregations_agree_with_brute_force():
    rng = random.Random(0)
    for _ in range(200):
        n = rng.randint(1, 6)
        matrix = [
            [rng.choice([-1.5, -1, 0, 0.5, 2]) * (i != j) for j in range(n)] for i in range(n)
        ]
        wins, margins = [0] * n, [0.0] * n
        for first, second in itertools.permutations(range(n), 2):  # each showing, one at a time
            logit = matrix[first][second]
            wins[first if logit > 0 else second] += logit != 0
            margins[first] += logit
            margins[second] -= logit
        assert max_wins(matrix) == wins
        assert max_logits(matrix) == pytest.approx([margin / n for margin in margins])


async def test_a_sample_without_the_function_is_no_candidate(desk):
    of_a_class = "```python\nclass Solution:\n    def double(self, x):\n        return 2 * x\n```"
    made = desk(of_a_class, program(0), of_a_class, sampling={"worker": Sampling(0.7)})
    solution = await llm_blender.solve(DOUBLE, made.ctx, n=3, ranker="judge")
    assert solution.code == "def double(x):\n    return 2 * x + 0"
    assert len(made.asked()) == 3  # one is left: nothing to rank or to fuse


async def test_bubble_finds_the_best_in_one_comparison_less_than_there_are_programs():
    for seed in range(50):
        aids = Logits()
        numbers = random.Random(seed).sample(range(100), 6)
        programs = [program(number) for number in numbers]

        async def compare(pair: Sequence[str], aids: Logits = aids) -> list[list[float]]:
            return await aids.compare(DOUBLE.prompt, pair)

        order = await bubble(programs, compare, random.Random(seed))
        assert len(aids.compared) == 5
        assert sorted(order) == list(range(6))
        assert numbers[order[0]] == max(numbers)
        assert order[1] in [numbers.index(n) for n in aids.compared[-1]]  # who lost last


async def test_bubble_keeps_the_leader_on_a_tie():
    async def tied(pair: Sequence[str]) -> list[list[float]]:
        return [[0, 1], [1, 0]]  # whoever is shown first looks better

    first = list(range(5))
    random.Random(3).shuffle(first)
    assert (await bubble([program(i) for i in range(5)], tied, random.Random(3)))[0] == first[0]


async def test_a_judge_sees_every_pair_in_both_orders_and_the_fuser_the_best_first(desk):
    def reply(messages: Sequence[dict[str, str]]) -> str:
        text = messages[-1]["content"]
        if text.endswith(FORM):
            first, second = shown(text)
            return f"Hm.\nBETTER: {'A' if first > second else 'B'}"
        if "improved program" in text:
            return "```python\ndef double(x):\n    return x + x\n```"
        return program(next(numbers))

    numbers = iter([3, 1, 4, 0, 5])
    made = sampled(desk)
    made.models["worker"]._replies = reply
    assert "x + x" in (await llm_blender.solve(DOUBLE, made.ctx)).code
    asked = made.asked()
    assert len(asked) == 5 + 20 + 1
    assert sorted(tuple(shown(text)) for text in asked[5:25]) == sorted(
        itertools.permutations([3, 1, 4, 0, 5], 2)
    )
    assert shown(asked[25]) == [5, 4, 3]
    temperatures = [request["temperature"] for request in made.models["worker"].requests]
    assert temperatures == [0.7] * 5 + [0.0] * 21
    [note] = made.records("ranking")
    assert (note["order"], note["candidates"], note["answer"]) == ([4, 2, 0, 1, 3], 5, "fused")


async def test_a_judge_that_answers_nonsense_is_asked_once_more_and_then_counts_as_a_tie(desk):
    odd = ["Both are nice.", "I said both."] * 2
    made = sampled(desk, program(1), program(2), *odd, "no program")
    assert "+ 1" in (await llm_blender.solve(DOUBLE, made.ctx, n=2)).code  # a tie: the earlier
    assert sum(text == FORM for text in made.asked()) == 2
    assert made.records("ranking")[0]["logits"] == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("said", "logit"),
    [
        ("BETTER: A", 1),
        ("First BETTER: A.\nNo: **Better:** b", -1),
        ("better: TIE", 0),
        ("B, because it handles zero.", -1),
        ("A.\n\nIt handles zero.", 1),
        (" **B**", -1),
        ("A good start, but BETTER: B", -1),
    ],
)
async def test_a_verdict_is_read_where_small_models_put_it(desk, said, logit):
    made = sampled(desk, program(1), program(2), said, said)
    await llm_blender.solve(DOUBLE, made.ctx, n=2, fuse="top1")
    assert made.records("ranking")[0]["logits"] == [[0, logit], [logit, 0]]
    assert len(made.asked()) == 4  # none is asked twice


async def test_words_that_only_begin_like_a_verdict_are_none(desk):
    made = sampled(
        desk, program(1), program(2), *["A good program counts.", "Both A and B do."] * 2
    )
    await llm_blender.solve(DOUBLE, made.ctx, n=2, fuse="top1")
    assert len(made.asked()) == 6
    assert made.records("ranking")[0]["logits"] == [[0, 0], [0, 0]]


async def test_a_verdict_on_the_second_asking_counts(desk):
    made = sampled(desk)
    replies = {1: program(1), 2: program(2)}

    def reply(messages: Sequence[dict[str, str]]) -> str:
        text = messages[-1]["content"]
        if text == FORM:
            return "<think>BETTER: A</think> **BETTER: B**"
        if FORM in text:
            return "I prefer B." if shown(text) == [1, 2] else "BETTER: tie"
        return replies[len(made.asked())]

    made.models["worker"]._replies = reply
    assert "+ 2" in (await llm_blender.solve(DOUBLE, made.ctx, n=2, fuse="top1")).code
    assert made.records("ranking")[0]["logits"] == [[0, -1], [0, 0]]


@pytest.mark.parametrize(
    "fused",
    [
        "no code",
        "```python\ndef halve(x):\n    return x / 2\n```",
        "```python\ndef double(x)\n    return 2 * x\n```",
        "",
    ],
)
async def test_a_fused_program_without_the_function_gives_way_to_the_first_in_rank(desk, fused):
    made = sampled(desk, program(1), program(9), program(2), fused, aids=Logits())
    solution = await llm_blender.solve(DOUBLE, made.ctx, n=3, ranker="pairrm")
    assert "+ 9" in solution.code
    assert made.records("ranking")[0]["answer"] == "first in rank"
    assert len(made.asked()) == 4  # PairRM costs no call


async def test_a_rejected_fusion_gives_way_to_the_first_in_rank(desk):
    rejected = RequestRejected("too long")
    made = sampled(desk, program(1), program(9), program(2), rejected, aids=Logits())
    solution = await llm_blender.solve(DOUBLE, made.ctx, n=3, ranker="pairrm")
    assert "+ 9" in solution.code
    assert made.records("ranking")[0]["answer"] == "first in rank"
    assert made.records("rejected")[0]["step"] == "fusion"


async def test_a_rejected_comparison_is_a_tie(desk):
    rejected = RequestRejected("too long")
    made = sampled(desk, program(1), program(2), rejected, "BETTER: A", "no program")
    assert "+ 2" in (await llm_blender.solve(DOUBLE, made.ctx, n=2)).code
    assert made.records("ranking")[0]["logits"] == [[0, 0], [1, 0]]
    assert [note["step"] for note in made.records("rejected")] == ["comparison"]


async def test_top_limits_what_is_fused_and_top1_fuses_nothing(desk, tmp_path, grader):
    made = sampled(desk, *map(program, range(5)), program(7), aids=Logits())
    await llm_blender.solve(DOUBLE, made.ctx, ranker="pairrm", top=2)
    assert shown(made.asked()[-1]) == [4, 3]
    alone = Desk(tmp_path / "top1", grader, {"worker": [*map(program, range(5))]},
                 sampling={"worker": Sampling(0.7)}, aids=Logits())  # fmt: skip
    solution = await llm_blender.solve(DOUBLE, alone.ctx, ranker="pairrm", fuse="top1")
    assert "+ 4" in solution.code
    assert len(alone.asked()) == 5


@pytest.mark.parametrize("aggregation", ["max_logits", "max_wins", "bubble"])
async def test_every_aggregation_puts_the_best_first(desk, aggregation):
    aids = Logits()
    made = sampled(desk, *map(program, [2, 0, 8, 1]), aids=aids)
    solution = await llm_blender.solve(
        DOUBLE, made.ctx, n=4, ranker="pairrm", aggregation=aggregation, fuse="top1"
    )
    assert "+ 8" in solution.code
    assert [len(found) for found in aids.compared] == (
        [2, 2, 2] if aggregation == "bubble" else [4]
    )


async def test_one_program_in_other_words_is_ranked_once(desk):
    same = '```python\ndef double(x):\n    """Twice."""\n    # by adding\n    return  2*x+1\n```'
    made = sampled(desk, program(1), same, program(2), same, program(2), aids=(aids := Logits()))
    await llm_blender.solve(DOUBLE, made.ctx, ranker="pairrm", fuse="top1")
    assert aids.compared == [[1, 2]]


async def test_one_program_alone_is_the_answer_and_none_is_an_empty_one(desk, tmp_path, grader):
    made = sampled(desk, *[program(1)] * 3)
    assert "+ 1" in (await llm_blender.solve(DOUBLE, made.ctx, n=3)).code
    assert len(made.asked()) == 3
    none = Desk(tmp_path / "none", grader, {"worker": ["I do not know."] * 3},
                sampling={"worker": Sampling(0.7)})  # fmt: skip
    assert (await llm_blender.solve(DOUBLE, none.ctx, n=3)).code == ""


async def test_the_pool_is_asked_in_turn(tmp_path, grader):
    made = Desk(
        tmp_path / "run", grader,
        {"worker": [program(1), program(3), program(9)], "second": [program(2), program(4)]},
        sampling={role: Sampling(0.7) for role in ("worker", "second")}, aids=(aids := Logits()),
    )  # fmt: skip
    await llm_blender.solve(DOUBLE, made.ctx, n=4, ranker="pairrm")
    assert aids.compared == [[1, 2, 3, 4]]
    assert (len(made.asked()), len(made.asked("second"))) == (3, 2)  # the worker fuses


async def test_a_greedy_model_is_sampled_once(tmp_path, grader):
    made = Desk(tmp_path / "run", grader, {"worker": [program(1)], "second": [program(2)]},
                aids=Logits())  # fmt: skip
    await llm_blender.solve(DOUBLE, made.ctx, ranker="pairrm", fuse="top1")
    assert (len(made.asked()), len(made.asked("second"))) == (1, 1)


async def test_a_model_whose_request_fails_is_left_out_unless_all_do(desk, tmp_path, grader):
    made = sampled(desk, program(1), RequestRejected("too long"), program(2), aids=Logits())
    made.ctx.gates["worker"].proven = True
    assert (
        "+ 2" in (await llm_blender.solve(DOUBLE, made.ctx, n=3, ranker="pairrm", fuse="top1")).code
    )
    for error in (RequestRejected("too long"), ModelRefused("403")):
        other = Desk(tmp_path / type(error).__name__, grader, {"worker": [error] * 3},
                     sampling={"worker": Sampling(0.7)})  # fmt: skip
        with pytest.raises(type(error)):
            await llm_blender.solve(DOUBLE, other.ctx, n=3)


async def test_a_refusal_ends_the_run_whatever_others_said(desk):
    made = sampled(desk, program(1), ModelRefused("403"), program(2))
    with pytest.raises(ModelRefused):
        await llm_blender.solve(DOUBLE, made.ctx, n=3)


def test_auto_comes_to_what_is_on_this_machine():
    assert METHOD.settle is not None
    knobs = baselines.knobs(METHOD, {})
    assert METHOD.settle(knobs, lambda name: name == "pairrm") == {"ranker": "pairrm"}
    assert METHOD.settle(knobs, lambda name: False) == {"ranker": "judge"}
    for ranker in ("judge", "pairrm"):
        assert METHOD.settle({**knobs, "ranker": ranker}, lambda name: True) == {}
    with pytest.raises(UsageError, match="ranker=judge"):
        METHOD.settle({**knobs, "ranker": "pairrm"}, lambda name: False)


@pytest.mark.parametrize(
    ("given", "plan"),
    [
        ({"ranker": "judge"}, (5, 26)),
        ({"ranker": "pairrm"}, (5, 6)),
        ({"ranker": "judge", "aggregation": "bubble", "fuse": "top1"}, (5, 13)),
        ({"ranker": "judge", "n": "1"}, (1, 1)),
    ],
)
def test_the_call_plan_counts_what_solve_asks(given, plan):
    assert METHOD.calls(baselines.knobs(METHOD, given)) == {"worker": plan}


@pytest.mark.parametrize(("judge", "expected"), [(1, 1 - 0.5**3), (0, 0.5**3)])
async def test_a_judge_of_known_skill_solves_what_theory_says(tmp_path, grader, judge, expected):
    """One right sample is enough for a judge that is always right; else all have to be."""
    model = open_sim(f"sim/skill=0.5,judge={judge}")
    model.learn({"Test/0": (DOUBLE, "def double(x):\n    return 2 * x")})
    solved, trials = 0, 100
    for seed in range(trials):
        folder = tmp_path / str(seed)
        made = Desk(folder, grader, {"worker": []}, seed=seed, sampling={"worker": Sampling(0.7)})
        made.ctx.gates = {"worker": Gate(model)}
        solved += "2 * x" in (await llm_blender.solve(DOUBLE, made.ctx, n=3)).code
    assert abs(solved - expected * trials) < 4 * (expected * (1 - expected) * trials) ** 0.5


async def test_a_simulated_judge_names_the_right_one_of_two():
    model = open_sim("sim/")
    model.learn({"Test/0": (DOUBLE, "def double(x):\n    return 2 * x")})
    right, wrong = "def double(x):\n    return 2 * x  # twice", "def double(x):\n    return x"

    async def verdict(first: str, second: str) -> str:
        text = llm_blender.COMPARE.format(prompt="", first=first, second=second, form=FORM)
        chat = [{"role": "user", "content": text}, {"role": "assistant", "content": "?"},
                {"role": "user", "content": FORM}]  # fmt: skip
        about = About("Test/0", 0, "worker", 0)
        once, again = await asyncio.gather(
            *(model.complete(c, Sampling(), about=about) for c in (chat[:1], chat))
        )
        assert once.text == again.text
        return once.text

    assert await verdict(right, wrong) == "BETTER: A"
    assert await verdict(wrong, right) == "BETTER: B"
    assert await verdict(right, right) == await verdict(wrong, wrong) == "BETTER: tie"
