"""MaAS: what the controller draws, what a team does, and what training makes of trials."""

import itertools
import json
import math
import random
import re
from collections import Counter
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from baselines import maas  # noqa: E402
from baselines.maas import costs, fit, solve  # noqa: E402
from baselines.maas_controller import Controller, choose, first_layer  # noqa: E402
from baselines.maas_operators import (  # noqa: E402
    DESCRIPTIONS,
    IMPROVE,
    INSTRUCTIONS,
    STEPS,
    described,
    execute,
    instructions,
)
from baselines.operators import solve_prompt  # noqa: E402
from harness.context import Aids  # noqa: E402
from harness.errors import ModelRefused, RequestRejected, UsageError  # noqa: E402
from harness.models.sim import open_sim  # noqa: E402
from harness.types import About, Level, Sampling, Trial  # noqa: E402
from tests.support import DOUBLE, RIGHT, WRONG, Desk, FitDesk  # noqa: E402

pytestmark = pytest.mark.torch

NAMES = list(DESCRIPTIONS)
TRIPLE = replace(
    DOUBLE,
    problem_id="Test/1",
    prompt="def triple(x): ...",
    entry_point="triple",
    examples=("assert triple(1) == 3",),
)


class Words(Aids):
    """An embedding by hand: each word adds one to a number that its letters name; length 1."""

    size = 384

    async def embed(self, texts):
        found = []
        for text in texts:
            row = [0.0] * self.size
            for word in re.findall(r"\w+", text.lower()):
                row[sum(ord(letter) * 31**i for i, letter in enumerate(word)) % self.size] += 1
            length = math.sqrt(sum(x * x for x in row))
            found.append([x / length for x in row])
        return found


class Places(Aids):
    """Operator i lies on axis i, and every query on axis 9: weights can then be read off."""

    async def embed(self, texts):
        places = [described().index(text) if text in described() else 9 for text in texts]
        return [[float(axis == place) for axis in range(10)] for place in places]


def pointing_at(*layers):
    """A controller over `Places` that likes one operator best in each layer, by name."""
    weights = {}
    for layer, liked in enumerate(layers):
        inputs = 10 if layer == 0 else 20
        weights[f"{layer}/operators/weight"] = torch.eye(7, inputs)
        weights[f"{layer}/operators/bias"] = torch.zeros(7)
        query = torch.zeros(7, 10)
        query[NAMES.index(liked), 9] = 1.0
        weights[f"{layer}/query/weight"] = query
        weights[f"{layer}/query/bias"] = torch.zeros(7)
    return Controller(weights)


def artifact_of(controller):
    return {"controller": controller.as_dict(), "instructions": INSTRUCTIONS}


def selections(probabilities, threshold):
    """Every ordered selection with its exact probability, by enumeration."""
    found = {}
    for count in range(1, len(probabilities) + 1):
        for order in itertools.permutations(range(len(probabilities)), count):
            sums = list(itertools.accumulate(probabilities[i] for i in order))
            if any(s >= threshold for s in sums[:-1]):
                continue
            if sums[-1] < threshold and count < len(probabilities):
                continue
            chance, left = 1.0, 1.0
            for i in order:
                chance *= probabilities[i] / left
                left -= probabilities[i]
            found[order] = chance
    return found


UNEVEN = [0.05, 0.22, 0.11, 0.31, 0.08, 0.19, 0.04]


def agree(drawn, exact, draws):
    """Each count within 5 standard deviations of what its exact probability says."""
    assert set(drawn) <= set(exact)
    assert sum(exact.values()) == pytest.approx(1)
    for key, chance in exact.items():
        width = 5 * math.sqrt(draws * chance * (1 - chance)) + 1
        assert abs(drawn[key] - draws * chance) <= width, key


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5])
def test_selections_come_as_often_as_enumeration_says(threshold):
    rng = random.Random(1)
    drawn = Counter(tuple(choose(UNEVEN, threshold, rng)) for _ in range(20_000))
    agree(drawn, selections(UNEVEN, threshold), 20_000)


def test_seven_equal_operators_make_layers_of_three():
    assert {len(choose([1 / 7] * 7, 0.3, random.Random(i))) for i in range(50)} == {3}


@pytest.mark.parametrize(
    ("threshold", "chosen"), [(0.0, [3]), (0.3, [3]), (0.5, [3, 1]), (1.0, [3, 1, 5, 2, 4, 0, 6])]
)
def test_without_a_draw_the_likeliest_come_first(threshold, chosen):
    assert choose(UNEVEN, threshold, None) == chosen
    assert choose([0.25] * 4, 0.5, None) == [0, 1]


@pytest.mark.parametrize(
    ("drawn", "done", "ends"),
    [
        (["Generate"], ["Generate"], False),
        (["Test", "GenerateCoT", "Generate"], ["GenerateCoT", "Test", "Generate"], False),
        (["ScEnsemble", "MultiGenerateCoT"], ["MultiGenerateCoT", "ScEnsemble"], False),
        (["Test", "SelfRefine"], ["Generate"], False),
        (["EarlyStop", "GenerateCoT"], ["Generate"], True),
        (["GenerateCoT", "EarlyStop"], ["Generate"], True),
    ],
)
def test_layer_one_begins_with_a_generator_and_stops_only_with_generate(drawn, done, ends):
    assert first_layer(drawn) == (done, ends)


async def test_a_whole_team_comes_as_often_as_enumeration_says():
    """One layer: what the rules make of each selection, and the softmax of the projections."""
    *rows, query = await Words().embed([*described(), DOUBLE.prompt])
    known = dict(zip(NAMES, rows, strict=True))
    controller = Controller.fresh(random.Random(3), size=384, layers=1, hidden=32)
    logs = controller.scores(0, torch.tensor(query), torch.tensor(rows))
    exact = Counter()
    for order, chance in selections(logs.exp().tolist(), 0.3).items():
        done, _ = first_layer([NAMES[i] for i in order])
        exact[tuple(done)] += chance
    rng = random.Random(5)
    drawn = Counter()
    for _ in range(2000):
        with torch.no_grad():
            drawn[tuple(controller.draw(query, known, 0.3, rng).layers[0])] += 1
    agree(drawn, exact, 2000)


async def test_log_pi_is_what_the_layers_say_one_by_one():
    *rows, query = await Words().embed([*described(), DOUBLE.prompt])
    known = dict(zip(NAMES, rows, strict=True))
    controller = Controller.fresh(random.Random(0), size=384, layers=4, hidden=32)
    seen = set()
    for seed in range(60):
        team = controller.draw(query, known, 0.3, random.Random(seed))
        total = 0.0
        for layer, names in enumerate(team.layers):
            before = [] if layer == 0 else known[team.layers[layer - 1][0]]
            dots = []
            for name in NAMES:
                a = by_hand(controller, layer, "operators", [*known[name], *before])
                b = by_hand(controller, layer, "query", query)
                dots.append(sum(x * y for x, y in zip(a, b, strict=True)))
            whole = math.log(sum(math.exp(dot) for dot in dots))
            total += sum(dots[NAMES.index(name)] - whole for name in names)
        stopped_at_once = team.layers == [["Generate"]]
        assert float(team.log_pi.detach()) == pytest.approx(total - 1.5 * stopped_at_once, abs=1e-4)
        assert all("EarlyStop" not in names for names in team.layers[:-1])
        assert len(team.layers) == 4 or stopped_at_once or "EarlyStop" in team.layers[-1]
        seen.add(len(team.layers))
    assert seen == {1, 2, 3, 4}


def by_hand(controller, layer, name, inputs):
    weight = controller.weights[f"{layer}/{name}/weight"].tolist()
    bias = controller.weights[f"{layer}/{name}/bias"].tolist()
    out = [
        sum(w * x for w, x in zip(row, inputs, strict=True)) + b
        for row, b in zip(weight, bias, strict=True)
    ]
    length = math.sqrt(sum(x * x for x in out))
    return [x / length for x in out]


def test_a_controller_is_what_its_data_say():
    made = Controller.fresh(random.Random(0), size=384, layers=4, hidden=32)
    shapes = {name: tuple(values.shape) for name, values in made.weights.items()}
    assert shapes["0/operators/weight"] == (32, 384)
    assert {shapes[f"{n}/operators/weight"] for n in (1, 2, 3)} == {(32, 768)}
    assert {shapes[f"{n}/query/weight"] for n in range(4)} == {(32, 384)}
    again = Controller.from_dict(json.loads(json.dumps(made.as_dict())))
    assert again.layers == 4
    assert all(torch.equal(again.weights[name], made.weights[name]) for name in made.weights)
    same = Controller.fresh(random.Random(0), size=384, layers=4, hidden=32)
    assert same.as_dict() == made.as_dict()


# --- what a team does ---------------------------------------------------------------------------


@pytest.fixture
def make(tmp_path, grader):
    def made(*replies, **options):
        options = {"level": Level.L3, "aids": Places(), **options}
        return Desk(tmp_path / "run", grader, {"worker": list(replies)}, **options)

    return made


def versions(count, right=()):
    """Replies that differ, each of which passes where its number is in `right`."""
    return [
        (RIGHT if i in right else WRONG).replace("return", f"v = {i}\n    return")
        for i in range(count)
    ]


async def run(made, *layers, archive=False, **knobs):
    told = instructions(archive)
    return await execute(made.ctx, layers, told, archive=archive, **knobs)


async def test_generate_sends_everybodys_first_prompt_and_the_others_ask_for_steps(make):
    made = make(RIGHT, RIGHT)
    assert "2 * x" in await run(made, ["Generate", "GenerateCoT"])
    assert made.asked() == [solve_prompt(DOUBLE), solve_prompt(DOUBLE, STEPS)]


async def test_as_released_every_generator_sends_the_same_prompt(make):
    made = make(*[RIGHT] * 5)
    await run(made, ["Generate", "GenerateCoT", "MultiGenerateCoT"], archive=True)
    assert set(made.asked()) == {solve_prompt(DOUBLE)}
    assert len(made.asked()) == 5


async def test_the_pool_grows_by_layer_and_the_ensembles_choice_replaces_it(make):
    made = make(*versions(4, {2}), "CHOICE: C", "CHOICE: A")
    final = await run(
        made, ["Generate", "MultiGenerateCoT"], ["ScEnsemble"], ["ScEnsemble"], archive=True
    )
    asked = made.asked()
    assert len(asked) == 5  # one program is left: nothing to choose from
    assert [f"v = {i}" in asked[4] for i in range(4)] == [True] * 4
    assert "v = 2" in final


async def test_empty_replies_leave_an_ensemble_nothing_to_choose_from(make):
    made = make("", "", RIGHT)
    assert "2 * x" in await run(made, ["Generate"], ["ScEnsemble"], rewrites=1)
    assert len(made.asked()) == 3  # a program, its rewrite, one anew


async def test_an_ensemble_chooses_among_the_programs_that_there_are(make):
    made = make("", RIGHT)
    assert "2 * x" in await run(made, ["Generate", "GenerateCoT"], ["ScEnsemble"])


async def test_the_latest_solution_is_the_current_one(make):
    first, second, mended = versions(3, {0, 1, 2})
    made = make(first, second, mended)
    assert "v = 2" in await run(made, ["Generate"], ["GenerateCoT", "SelfRefine"])
    assert "v = 1" in made.asked()[2]
    assert INSTRUCTIONS["SelfRefine"] in made.asked()[2]


@pytest.mark.parametrize(
    ("worker", "several"), [(0.0, [0.0, 0.7, 0.7, 0.7]), (0.4, [0.4, 0.4, 0.4, 0.4])]
)
async def test_a_greedy_worker_is_asked_for_several_at_a_temperature(make, worker, several):
    made = make(*[RIGHT] * 4, sampling={"worker": Sampling(temperature=worker)})
    await run(made, ["Generate", "MultiGenerateCoT"])
    assert [r["temperature"] for r in made.models["worker"].requests] == several


async def test_a_test_inside_the_team_mends_and_the_last_test_finds_nothing_to_do(make):
    made = make(WRONG, RIGHT)
    assert "2 * x" in await run(made, ["Generate", "Test"])
    assert len(made.asked()) == 2
    assert "assert double(2) == 4" in made.asked()[1]


async def test_early_stop_asks_nothing(make):
    made = make(RIGHT)
    await run(made, ["Generate"], ["EarlyStop"])
    assert len(made.asked()) == 1


async def test_what_three_rewrites_do_not_mend_is_written_anew_with_the_failing_program(make):
    made = make(*versions(5))
    assert "v = 4" in await run(made, ["Generate"])  # it is not tested again
    last = made.asked()[-1]
    assert len(made.asked()) == 5
    assert IMPROVE in last
    assert "v = 3" in last
    assert "assert double(2) == 4" in last
    assert last.endswith(solve_prompt(DOUBLE))
    assert len(made.records("feedback")) == 4


async def test_as_released_the_last_call_does_not_see_the_failing_program(make):
    made = make(*versions(2, {1}))
    assert "v = 1" in await run(made, ["Generate"], archive=True, rewrites=0)
    assert made.asked()[-1] == solve_prompt(DOUBLE, IMPROVE)


async def test_a_last_answer_without_a_program_leaves_the_tested_one(make):
    made = make(WRONG, "I give up.")
    assert "return x" in await run(made, ["Generate"], rewrites=0)


async def test_without_tests_nothing_is_mended(make):
    made = make(WRONG, level=Level.L0)
    assert "return x" in await run(made, ["Generate", "Test"])
    assert len(made.asked()) == 1


async def test_replies_without_a_program_end_in_an_empty_answer(make):
    made = make(
        "I do not know.", "Nor do I.", aids=Places(), artifact=artifact_of(pointing_at("Generate"))
    )
    assert (await solve(DOUBLE, made.ctx, mode="argmax", rewrites=0)).code == ""


async def test_the_controllers_likeliest_team_is_at_work(make):
    controller = pointing_at("GenerateCoT", "SelfRefine", "EarlyStop", "Test")
    made = make(WRONG, RIGHT, artifact=artifact_of(controller))
    assert "2 * x" in (await solve(DOUBLE, made.ctx, mode="argmax")).code
    [noted] = made.records("architecture")
    assert noted["layers"] == [["GenerateCoT"], ["SelfRefine"], ["EarlyStop"]]
    liked = math.e / (math.e + 6)
    assert noted["probability"] == pytest.approx(liked**3, rel=1e-5)
    assert [STEPS in text for text in made.asked()] == [True, False]


async def test_a_draw_is_the_samples_own_and_repeats(tmp_path, grader):
    controller = Controller.fresh(random.Random(0), size=10, layers=4, hidden=32)
    teams = []
    for number, seed in enumerate([0, 0, 1, 2, 3]):
        made = Desk(
            tmp_path / str(number),
            grader,
            {"worker": lambda messages: RIGHT},
            level=Level.L3,
            seed=seed,
            aids=Places(),
            artifact=artifact_of(controller),
        )
        await solve(DOUBLE, made.ctx)
        teams.append(json.dumps(made.records("architecture")[0]["layers"]))
    assert teams[0] == teams[1]
    assert len(set(teams)) > 2


async def test_instructions_are_the_artifacts(make):
    found = artifact_of(pointing_at("Generate"))
    made = make(RIGHT, artifact={**found, "instructions": {**INSTRUCTIONS, "Generate": "Be kind."}})
    await solve(DOUBLE, made.ctx, mode="argmax")
    assert made.asked() == [solve_prompt(DOUBLE, "Be kind.")]


async def test_without_a_fit_it_says_what_to_do(make):
    with pytest.raises(UsageError, match="run `harness fit` first"):
        await solve(DOUBLE, make().ctx)


# --- training -----------------------------------------------------------------------------------


def trial(passed=True, tokens=1000.0, usd=0.0):
    return Trial("p", "", passed, float(passed), "", {}, 1, tokens, usd, 0.0)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("auto", [0.25, 0.0006, 0.0006, 0.0]),
        ("usd", [0.25, 0.0, 0.125, 0.0]),
        ("tokens", [0.0003, 0.0006, 0.0006, 0.0]),
        ("none", [0.0] * 4),
    ],
)
def test_a_trial_costs_its_dollars_or_its_tokens(rule, expected):
    trials = [
        trial(usd=0.25),
        trial(usd=0.0, tokens=2000),
        trial(usd=None, tokens=2000),
        trial(usd=0.0, tokens=0),
    ]
    expected = expected if rule != "usd" else [0.25, 0.0, 0.25 / 3, 0.0]
    assert costs(trials, rule, 0.3) == pytest.approx(expected)


def test_an_unknown_cost_is_the_others_mean_and_the_score_alone_where_all_are():
    unknown = trial(usd=None, tokens=None)
    assert costs([trial(usd=0.2), unknown, trial(usd=0.4)], "auto", 0.3) == pytest.approx(
        [0.2, 0.3, 0.4]
    )
    assert costs([unknown, unknown], "auto", 0.3) == [0.0, 0.0]


@pytest.fixture
def search(tmp_path, grader):
    def made(worker, *meta, name="fit", problems=(DOUBLE, TRIPLE), **options):
        roles = {"worker": worker, "meta": list(meta)}
        return FitDesk(tmp_path / name, grader, roles, problems=problems, aids=Words(), **options)

    return made


def half(messages):
    """The worker can double, and cannot triple."""
    name = "double" if "def double" in messages[-1]["content"] else "triple"
    return f"```python\ndef {name}(x):\n    return 2 * x\n```"


async def test_a_step_is_the_policy_gradient_of_score_minus_cost(search):
    made = search(half)
    found = await fit(made.problems, made.ctx, passes=1, weight=100.0, cost="tokens", token_usd=1.0)
    # the same again, by hand
    rng = search(half, name="other").ctx.rng
    *rows, first, second = await Words().embed(
        [*described(), *(problem.prompt for problem in made.problems)]
    )
    known = dict(zip(NAMES, rows, strict=True))
    controller = Controller.fresh(rng, size=384, layers=4, hidden=32)
    teams = [controller.draw(query, known, 0.3, rng) for query in (first, second)]
    trials = {r["problem_id"]: r for r in made.records("trial")}
    doubled, tripled = trials["Test/0"], trials["Test/1"]
    assert (doubled["passed"], tripled["passed"]) == (True, False)
    assert [doubled["facts"]["layers"], tripled["facts"]["layers"]] == [t.layers for t in teams]
    gains = [1 - 100 * doubled["tokens"] / 1e6, 0 - 100 * tripled["tokens"] / 1e6]
    log_pis = [float(team.log_pi.detach()) for team in teams]
    loss = -(log_pis[0] * gains[0] + log_pis[1] * gains[1]) / 2
    [noted] = made.records("step")
    assert noted["loss"] == pytest.approx(loss, rel=1e-5)
    assert noted["utility"] == pytest.approx(sum(gains) / 2)
    assert (noted["number"], noted["score"], noted["usd"]) == (1, 0.5, 0.0)
    assert noted["layers"] == sum(len(team.layers) for team in teams) / 2
    assert noted["tokens"] == (doubled["tokens"] + tripled["tokens"]) / 2
    # Adam's first step moves each weight by the learning rate against its gradient's sign
    ((-teams[0].log_pi * gains[0] - teams[1].log_pi * gains[1]) / 2).backward()
    after = Controller.from_dict(found["controller"]).weights
    for name, before in controller.weights.items():
        if before.grad is None:  # a layer that neither team reached
            assert torch.equal(after[name], before.detach())
            continue
        clear = before.grad.abs() > 1e-5
        moved = (after[name] - before.detach())[clear]
        assert torch.allclose(moved, -0.01 * before.grad.sign()[clear], atol=2e-5)


async def test_what_pays_becomes_likelier(search):
    made = search(half, problems=[DOUBLE])
    found = await fit(made.problems, made.ctx, passes=3, cost="none", layers=1)
    layers = [trial["facts"]["layers"] for trial in made.records("trial")]
    assert all(trial["passed"] for trial in made.records("trial"))
    *rows, query = await Words().embed([*described(), DOUBLE.prompt])
    rows = torch.tensor(rows)
    before = Controller.fresh(search(half, name="o").ctx.rng, size=384, layers=1, hidden=32)
    after = Controller.from_dict(found["controller"])
    chosen = {name for layer in layers for name in layer[0]}
    gain = (
        after.scores(0, torch.tensor(query), rows) - before.scores(0, torch.tensor(query), rows)
    ).detach()
    gains = {name: float(one) for name, one in zip(NAMES, gain, strict=True)}
    others = set(NAMES) - chosen
    assert chosen
    assert others
    assert min(gains[name] for name in chosen) > max(gains[name] for name in others)


async def test_batches_cover_each_pass_and_passes_have_means(search):
    problems = [replace(DOUBLE, problem_id=f"Test/{i}") for i in range(3)]
    made = search(half, problems=problems)
    found = await fit(made.problems, made.ctx, passes=2, batch=2)
    assert [r["number"] for r in made.records("step")] == [1, 2, 3, 4]
    assert len(made.records("trial")) == 6
    assert [one["score"] for one in found["passes"]] == [1.0, 1.0]
    assert found["rewritten"] is None
    assert found["instructions"] == INSTRUCTIONS
    json.dumps(found)


async def test_a_search_that_was_killed_ends_where_it_would_have(search):
    made = search(half, name="whole")
    whole = await fit(made.problems, made.ctx, passes=3)

    def dies(messages):
        if made.ctx.round == 3:
            raise ModelRefused("403")
        return half(messages)

    made = search(dies, name="cut")
    with pytest.raises(ModelRefused):
        await fit(made.problems, made.ctx, passes=3)
    await made.ctx.finish()
    made.journal.close()
    done = len(made.records("trial"))
    made = search(half, name="cut")
    assert await fit(made.problems, made.ctx, passes=3) == whole
    assert (done, len(made.records("trial"))) == (4, 6)


async def test_a_trial_that_broke_off_counts_as_score_zero(search):
    def breaks(messages):
        if "triple" in messages[-1]["content"]:
            raise RequestRejected("too long")
        return half(messages)

    made = search(breaks)
    made.ctx.desk.gates["worker"].proven = True
    found = await fit(made.problems, made.ctx, passes=1)
    assert found["passes"][0]["score"] == 0.5
    [noted] = made.records("step")
    assert noted["layers"] >= 1
    broken = next(r for r in made.records("trial") if r["problem_id"] == "Test/1")
    assert (broken["passed"], broken["facts"]["error_class"]) == (False, "rejected")


def worse(made):
    """A worker that is right in the first pass alone."""

    def answer(messages):
        found = half(messages)
        return found if made[0].ctx.round == 1 else found.replace("2 * x", "x")

    return answer


async def falls(search, *meta, passes=4, **knobs):
    desk = []
    desk.append(search(worse(desk), *meta, problems=[DOUBLE]))
    found = await fit(desk[0].problems, desk[0].ctx, passes=passes, textual=True, **knobs)
    return desk[0], found


async def test_the_first_fall_of_the_mean_has_one_instruction_rewritten_once(search):
    made, found = await falls(search, "Sure.\n<prompt>\nCount twice.\n</prompt>")
    assert [one["score"] for one in found["passes"]] == [1.0, 0.0, 0.0, 0.0]
    [asked] = made.asked("meta")
    assert "fell from 1.00 to 0.00" in asked
    assert "wrong: " in asked
    assert "return x" in asked  # the program that failed
    name = found["rewritten"]
    assert f"Operator {name}: " in asked
    assert found["instructions"] == {**INSTRUCTIONS, name: "Count twice."}
    assert made.records("rewrite")[0]["operator"] == name


async def test_the_rewritten_instruction_is_used_from_then_on(search):
    made, _ = await falls(search, "<prompt>Count twice.</prompt>", passes=12)
    assert any("Count twice." in text for text in made.asked())


@pytest.mark.parametrize(
    ("replies", "requests"),
    [
        (["No idea.", "None."], 2),
        (["No idea.", "<prompt> </prompt>"], 2),
        ([RequestRejected("too long")], 1),
        (["Hm.", "<think><prompt>no</prompt></think><prompt>Count twice.</prompt>"], 2),
    ],
)
async def test_a_meta_model_that_gives_no_instruction_is_asked_once_more(search, replies, requests):
    desk = []
    desk.append(search(worse(desk), *replies, problems=[DOUBLE]))
    desk[0].ctx.desk.gates["meta"].proven = True
    found = await fit(desk[0].problems, desk[0].ctx, passes=2, textual=True)
    assert len(desk[0].asked("meta")) == requests
    new = "Count twice." if "Count twice." in str(replies[-1]) else None
    assert found["instructions"] == INSTRUCTIONS | ({found["rewritten"]: new} if new else {})


async def test_without_the_textual_gradient_the_meta_model_is_not_asked(search):
    desk = []
    desk.append(search(worse(desk), problems=[DOUBLE]))
    await fit(desk[0].problems, desk[0].ctx, passes=3)
    assert desk[0].asked("meta") == []


async def test_a_simulated_meta_model_writes_an_instruction():
    text = maas.GRADIENT.format(
        before=1, after=0, name="Generate", does="writes", instruction="-", failures="-"
    )
    model = open_sim("sim/")
    reply = await model.complete(
        [{"role": "user", "content": text}], Sampling(), about=About("search", 0, "meta", 0)
    )
    assert re.fullmatch(r"<prompt>\n.+\n</prompt>", reply.text)
