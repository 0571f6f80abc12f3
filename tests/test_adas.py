"""ADAS: the search over agents, on hand-made replies; its formulas against brute force."""

import itertools
import json
import math
import statistics

import pytest

import baselines
from baselines.adas import METHOD, bootstrap, fit, percentile, solve
from baselines.adas_agents import CHAIN_OF_THOUGHT, SEEDS
from harness.errors import ModelUnavailable, RequestRejected, UsageError
from harness.models.sim import AGENTS, BROKEN_AGENTS, open_sim
from harness.types import About, Level, Problem, Sampling
from tests.support import DOUBLE, Desk, FitDesk

TRIPLE = Problem(
    problem_id="Test/1",
    benchmark="test",
    prompt='def triple(x: int) -> int:\n    """Return three times x."""\n',
    entry_point="triple",
    prelude="",
    examples=("assert triple(2) == 6",),
)
RIGHT = {"double": "def double(x):\n    return 2 * x", "triple": "def triple(x):\n    return 3 * x"}
ORACLE = "You are a oracle"  # the role that gets right programs
DIRECT = (
    "def forward(self, taskInfo):\n"
    "    return LLMAgentBase(['code'], 'A', role='ROLE')([taskInfo], 'go')[0]\n"
)
BEST = DIRECT.replace("ROLE", "oracle")


def agent(name, code, **more):
    return json.dumps({"thought": f"why {name}", "name": name, "code": code, **more})


def worker(*knows):
    """Right programs for whoever is an oracle, or asks about an entry point of `knows`."""

    def reply(messages):
        text = messages[-1]["content"]
        name = next(n for n in RIGHT if f"function `{n}`" in text)
        right = text.startswith(ORACLE) or name in knows
        code = RIGHT[name] if right else f"def {name}(x):\n    return x"
        return json.dumps(dict.fromkeys(("thinking", "principles"), "hm") | {"code": code})

    return reply


@pytest.fixture
def one_seed(monkeypatch):
    """A search that begins with chain of thought alone: seven take their time."""
    monkeypatch.setattr("baselines.adas.SEEDS", SEEDS[:1])


def table(folder, grader, meta, knows=("double",)):
    return FitDesk(
        folder / "fit",
        grader,
        {"worker": worker(*knows), "meta": meta},
        problems=(DOUBLE, TRIPLE),
        level=Level.L0,
        sampling=METHOD.sampling,
    )


async def search(folder, grader, meta, *, knows=("double",), **knobs):
    made = table(folder, grader, meta, knows)
    return made, await fit(made.problems, made.ctx, **knobs)


def new(desk):
    """(name, score, error) of every node after the seeds."""
    nodes = [r for r in desk.records("node") if r["generation"]]
    return [(r["label"], r["score"], r["error"]) for r in nodes]


# --- the loop ---


async def test_a_generation_is_proposed_reflected_on_twice_and_evaluated(tmp_path, grader):
    replies = [agent("A", DIRECT), agent("A", DIRECT, reflection="fine"), agent("B", BEST)]
    made, found = await search(tmp_path, grader, replies, generations=1)
    assert (found["name"], found["code"], found["score"]) == ("B", BEST.strip(), 1.0)
    assert [one["score"] for one in found["archive"]] == [1.0] + [0.5] * 7
    assert found["archive"][0]["generation"] == 1
    requests = made.models["meta"].requests
    roles = [[m["role"] for m in r["messages"]] for r in requests]
    assert roles == [
        ["user"],
        ["user", "assistant"] * 1 + ["user"],
        ["user", "assistant"] * 2 + ["user"],
    ]
    assert {(r["temperature"], r["max_tokens"]) for r in requests} == {(0.8, 4096)}
    proposal, reflection, check = made.asked("meta")
    assert all(name in proposal and json.dumps(code)[1:-1] in proposal for name, _, code in SEEDS)
    assert proposal.count("median 50.0% of the tasks, 95% interval 0.0% to 100.0%") == 7
    assert '"generation": "initial"' in proposal
    assert "The agent before it" not in reflection
    assert reflection.endswith("with the fields: reflection, thought, name, code.")
    assert check.endswith("with the fields: reflection, thought, name, code.")
    assert new(made) == [("B", 1.0, None)]
    trials = made.records("trial")
    assert len(trials) == 8 * 2
    assert {r["label"] for r in trials} == {f"seed {n}" for n, _, _ in SEEDS} | {
        "attempt 1, version 0"
    }


@pytest.mark.usefixtures("one_seed")
async def test_from_the_second_generation_on_the_one_before_is_shown(tmp_path, grader):
    replies = [agent("First", DIRECT)] * 3 + [agent("Second", BEST)] * 3
    made, found = await search(tmp_path, grader, replies, generations=2)
    assert [one["name"] for one in found["archive"][:1]] == ["Second"]
    proposal, reflection, _ = made.asked("meta")[3:]
    assert '"name": "First"' in proposal
    assert '"generation": 1' in reflection
    assert "The agent before it in the archive was:" in reflection


@pytest.mark.usefixtures("one_seed")
async def test_an_agent_that_fails_is_mended_with_its_error(tmp_path, grader):
    broken = "def forward(self, taskInfo):\n    return program\n"
    replies = [agent("A", broken)] * 3 + [agent("A", BEST, debug_thought="a name")]
    made, found = await search(tmp_path, grader, replies, generations=1)
    assert found["code"] == BEST.strip()
    assert "\nrun: NameError: name 'program' is not defined (line 2)\n" in made.asked("meta")[3]
    assert made.asked("meta")[3].endswith("fields: debug_thought, thought, name, code.")
    assert new(made) == [("A", 1.0, None)]


@pytest.mark.usefixtures("one_seed")
async def test_an_agent_that_does_not_load_is_tried_on_one_problem_only(tmp_path, grader):
    replies = [agent("A", "def forward(self:\n")] * 4
    made, _ = await search(tmp_path, grader, replies, generations=1, attempts=1, debugging=1)
    assert [r["problem_id"] for r in made.records("trial")] == ["Test/0", "Test/1", "Test/0"]
    ((name, score, error),) = new(made)
    assert (name, score) == ("A", None)
    assert error.startswith("load: SyntaxError")


@pytest.mark.usefixtures("one_seed")
async def test_all_zero_is_an_error_too_but_the_agent_stays_in_the_archive(tmp_path, grader):
    versions = [DIRECT + f"# {i}\n" for i in range(4)]
    replies = [agent("A", versions[0])] * 3 + [agent("A", v) for v in versions[1:]]
    made, found = await search(tmp_path, grader, replies, knows=(), generations=1)
    assert [one["name"] for one in found["archive"]] == ["Chain of thought", "A"]
    assert all("no task was solved" in text for text in made.asked("meta")[3:])
    assert new(made) == [("A", 0.0, None)]
    assert found["archive"][-1]["code"] == versions[3].strip()


@pytest.mark.usefixtures("one_seed")
async def test_a_code_that_was_not_mended_is_not_run_again(tmp_path, grader):
    replies = [agent("A", DIRECT)] * 3 + ["I cannot", agent("A", DIRECT), agent("A", BEST)]
    made, found = await search(tmp_path, grader, replies, knows=(), generations=1)
    assert found["code"] == BEST.strip()
    labels = {r["label"] for r in made.records("trial")[2:]}
    assert labels == {"attempt 1, version 0", "attempt 1, version 3"}


@pytest.mark.usefixtures("one_seed")
async def test_a_failed_generation_does_not_count_and_attempts_are_bounded(tmp_path, grader):
    replies = ["no agent"] * 3 + [agent("A", BEST)] * 3 + ["nothing"] * 3
    made, found = await search(tmp_path, grader, replies, generations=2, attempts=3, debugging=0)
    missing = "reply: NoAgent: the answer holds no field `code` with a program"
    assert new(made) == [("unnamed", None, missing), ("A", 1.0, None), ("unnamed", None, missing)]
    assert [r["generation"] for r in made.records("node")] == [0, 1, 1, 2]
    assert [r["round"] for r in made.records("call") if r["role"] == "meta"] == [1] * 3 + [
        2
    ] * 3 + [3] * 3
    assert found["score"] == 1.0


@pytest.mark.usefixtures("one_seed")
async def test_a_reflection_without_code_leaves_the_proposal_as_it_is(tmp_path, grader):
    replies = [agent("A", BEST), "It is fine as it is.", json.dumps({"reflection": "fine"})]
    _, found = await search(tmp_path, grader, replies, generations=1)
    assert (found["name"], found["code"]) == ("A", BEST.strip())
    assert found["archive"][0]["thought"] == "why A"


@pytest.mark.usefixtures("one_seed")
async def test_a_rejected_request_of_the_meta_agent_is_that_attempts_failure(tmp_path, grader):
    replies = [RequestRejected("too long"), *[agent("A", BEST)] * 3]
    made, found = await search(tmp_path, grader, replies, generations=1)
    assert new(made) == [("unnamed", None, "reply: Rejected: too long"), ("A", 1.0, None)]
    assert found["score"] == 1.0


@pytest.mark.usefixtures("one_seed")
async def test_a_providers_failure_ends_the_search_and_the_next_goes_on_with_it(
    tmp_path, grader, monkeypatch
):
    monkeypatch.setattr("harness.pacing.BACKOFF_S", 0.001)
    replies = [agent("A", DIRECT)] * 2 + [ModelUnavailable("down")] * 5
    first = table(tmp_path, grader, replies)
    with pytest.raises(ModelUnavailable):
        await fit(first.problems, first.ctx, generations=1)
    first.journal.close()
    made, found = await search(tmp_path, grader, [agent("A", BEST)], generations=1)
    assert len(made.models["meta"].requests) == 1
    assert len(made.models["worker"].requests) == 2  # of the new agent only
    assert found["name"] == "A"


@pytest.mark.parametrize(("shown", "names"), [(1, {"Best"}), (0, {"Best", "Chain of thought"})])
@pytest.mark.usefixtures("one_seed")
async def test_the_meta_agent_sees_as_many_of_the_best_as_asked_for(tmp_path, grader, shown, names):
    replies = [agent("Best", BEST)] * 3 + [agent("B", DIRECT)] * 3
    made, _ = await search(tmp_path, grader, replies, generations=2, shown=shown)
    proposal = made.asked("meta")[3]
    assert names == {n for n in ("Best", "Chain of thought") if f'"name": "{n}"' in proposal}


@pytest.mark.usefixtures("one_seed")
async def test_an_agent_that_loops_is_ended_and_mended(tmp_path, grader):
    endless = (
        "def forward(self, taskInfo):\n    a = LLMAgentBase(['code'], 'A')\n"
        "    while True: a([taskInfo], 'go')\n"
    )
    replies = [agent("A", endless)] * 3 + [agent("A", BEST)]
    made, found = await search(tmp_path, grader, replies, generations=1, agent_calls=9)
    assert "limit: CallLimit: more than 9 model calls" in made.asked("meta")[3]
    assert found["code"] == BEST.strip()


@pytest.mark.usefixtures("one_seed")
async def test_without_problems_there_is_no_search(tmp_path, grader):
    made = FitDesk(tmp_path, grader, {"worker": [], "meta": []}, problems=())
    with pytest.raises(UsageError, match="search list is empty"):
        await fit((), made.ctx)


# --- the answer ---


async def test_the_best_agent_answers_once(tmp_path, grader):
    artifact = {"archive": [{"code": BEST}, {"code": CHAIN_OF_THOUGHT}]}
    made = Desk(tmp_path, grader, {"worker": worker()}, artifact=artifact)
    assert (await solve(DOUBLE, made.ctx)).code == RIGHT["double"]
    assert len(made.asked()) == 1


async def test_a_lower_rank_answers_instead_when_asked_for(tmp_path, grader):
    artifact = {"archive": [{"code": BEST}, {"code": CHAIN_OF_THOUGHT}]}
    made = Desk(tmp_path, grader, {"worker": worker()}, artifact=artifact)
    assert (await solve(DOUBLE, made.ctx, rank=2)).code == "def double(x):\n    return x"
    with pytest.raises(UsageError, match="rank 3, the archive has 2 agents"):
        await solve(DOUBLE, made.ctx, rank=3)


async def test_an_agent_that_fails_on_a_problem_gives_no_answer(tmp_path, grader):
    artifact = {"archive": [{"code": "def forward(self, taskInfo):\n    return 1 / 0\n"}]}
    made = Desk(tmp_path, grader, {"worker": []}, artifact=artifact)
    assert (await solve(DOUBLE, made.ctx)).code == ""
    (record,) = made.records("workflow")
    assert record["error"] == "run: ZeroDivisionError: division by zero (line 2)"


async def test_without_a_search_it_says_what_to_do(tmp_path, grader):
    made = Desk(tmp_path, grader, {"worker": []})
    with pytest.raises(UsageError, match="there is no archive: fit first"):
        await solve(DOUBLE, made.ctx)


# --- formulas ---


def exact(scores):
    """The means of all len(scores) ** len(scores) resamples, ascending."""
    size = len(scores)
    return sorted(sum(draw) / size for draw in itertools.product(scores, repeat=size))


@pytest.mark.parametrize("scores", [(0, 0, 0, 1, 1, 1), (0, 1, 1, 1, 1), (0.0, 0.2, 0.5, 1.0, 0.7)])
def test_the_bootstrap_comes_to_what_all_resamples_say(scores):
    means = exact(scores)
    low, median, high = bootstrap(scores, 20_000)
    # the share of all resamples at or below each end, whatever the jumps between values
    for value, share in ((low, 0.025), (median, 0.5), (high, 0.975)):
        below = sum(m < value - 1e-9 for m in means) / len(means)
        upto = sum(m <= value + 1e-9 for m in means) / len(means)
        assert below - 0.01 <= share <= upto + 0.01


def test_the_bootstrap_of_many_scores_is_the_normal_interval():
    scores = [1.0] * 120 + [0.0] * 180
    deviation = math.sqrt(0.4 * 0.6 / 300)
    low, median, high = bootstrap(scores, 10_000)
    assert median == pytest.approx(0.4, abs=0.005)
    assert low == pytest.approx(0.4 - 1.96 * deviation, abs=0.006)
    assert high == pytest.approx(0.4 + 1.96 * deviation, abs=0.006)


def test_the_bootstrap_is_the_same_every_time_in_any_order():
    scores = [1.0, 0.0, 1.0, 0.0, 0.0]
    assert bootstrap(scores, 500) == bootstrap(scores[::-1], 500)
    assert bootstrap([1.0] * 4, 100) == (1.0, 1.0, 1.0)


def test_a_percentile_lies_between_its_neighbours():
    values = [0.0, 1.0, 2.0, 4.0]
    found = [percentile(values, share) for share in (0, 0.5, 0.75, 1)]
    assert found == [0.0, 1.5, 2.5, 4.0]
    values = [float(i * i) for i in range(41)]
    cuts = statistics.quantiles(values, n=40, method="inclusive")
    assert [percentile(values, share) for share in (0.025, 0.5, 0.975)] == pytest.approx(
        [cuts[0], cuts[19], cuts[38]]
    )


# --- what the harness is told ---


def test_the_call_plan_covers_the_search():
    knobs = baselines.knobs(METHOD, {})
    assert METHOD.calls(knobs) == {"worker": (1, 9)}
    plan = METHOD.fit_calls(knobs, 86)
    assert plan["meta"] == (90, (2 + 4) * 45)
    assert plan["worker"][0] == 86 * (23 + 30)
    assert plan["worker"][1] > plan["worker"][0]


@pytest.mark.parametrize("name", ["release", "aflow"])
def test_the_presets_lose_what_fails(name):
    knobs = baselines.knobs(METHOD, {"preset": name})
    assert knobs["attempts"] == knobs["generations"] == 30


def test_every_knob_that_the_sources_speak_of_exists():
    assert set(METHOD.paper) <= set(baselines.known_knobs(METHOD))


# --- with simulated models ---


async def sim_reply(model, messages, problem_id="search"):
    about = About(problem_id, 0, "meta", 0)
    return (await model.complete(messages, Sampling(0.8, 4096), seed=1, about=about)).text


async def test_a_simulated_meta_agent_writes_agents_keeps_and_mends_them():
    model = open_sim("sim/")
    ask = "Answer with one JSON object that describes one agent, with the fields: {}."
    chat = [{"role": "user", "content": ask.format("thought, name, code")}]
    first = await sim_reply(model, chat)
    assert AGENTS[json.loads(first)["name"]] == json.loads(first)["code"]
    chat += [{"role": "assistant", "content": first}]
    kept = await sim_reply(model, [*chat, {"role": "user", "content": ask.format("reflection")}])
    assert kept == first
    other = await sim_reply(
        model, [*chat, {"role": "user", "content": ask.format("debug_thought")}]
    )
    assert json.loads(other)["name"] in AGENTS.keys() - {json.loads(first)["name"]}
    broken = json.loads(await sim_reply(open_sim("sim/broken=1"), chat[:1]))
    assert broken["code"] in BROKEN_AGENTS


@pytest.mark.parametrize("code", AGENTS.values())
@pytest.mark.parametrize(("skill", "passes"), [(1, True), (0, False)])
async def test_a_simulated_worker_answers_agents_in_form(tmp_path, grader, code, skill, passes):
    model = open_sim(f"sim/skill={skill}")
    model.learn({"Test/0": (DOUBLE, RIGHT["double"])})
    made = Desk(tmp_path, grader, {"worker": []}, artifact={"archive": [{"code": code}]})
    made.models["worker"].complete = model.complete
    solution = await solve(DOUBLE, made.ctx)
    assert (await made.ctx.run_feedback(solution.code)).score == float(passes)
    assert made.records("workflow")[0]["error"] is None
    assert made.records("fields") == []
