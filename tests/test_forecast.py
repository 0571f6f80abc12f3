"""A forecast is the method's call plan times what past runs took, and holds what runs come to."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness import api, overhead
from harness.forecast import (
    FEW,
    as_dict,
    compared,
    difference,
    forecast,
    from_dict,
    read_past,
    rounded,
    span,
    words,
)
from harness.journal import Journal, canonical
from harness.metrics import DISCORDANT, detectable_difference
from harness.past import family
from harness.store import Store
from harness.types import Completion, Model


class Priced(Model):
    """A model of known price (dollars a token) that nobody asks."""

    def __init__(self, name: str, price: float | None, *, simulated: bool = False) -> None:
        self.name, self._price, self.simulated = name, price, simulated
        self.connections, self.most_connections = 4, 8

    def identity(self) -> dict[str, Any]:
        return {"name": self.name}

    def price(self, completion: Completion) -> float | None:
        tokens = (completion.prompt_tokens or 0) + (completion.completion_tokens or 0)
        return None if self._price is None else self._price * tokens


class Rated(Priced):
    """One of this machine: it says how long a request takes."""

    def seconds_per(self, prompt_tokens: float, completion_tokens: float) -> float:
        return completion_tokens / 10


def planned(
    out: Path, model: Model | None = None, limit: str = "20", method: str = "vanilla", **config: Any
) -> Any:
    worker = model or Priced("openai/small", 1e-6)
    made = api.Config(method=method, out=out, limit=limit, **config)
    return api.prepare(made, models={"worker": worker})


def ran(
    results_dir: Path, run_id: str, *, samples: int = 50, calls: int = 1, tokens: int = 100,
    wobble: int = 0, solved: int = 2, latency_s: float = 2.0, cached: bool = False, **fields: Any,
) -> None:  # fmt: skip
    """A past run: each sample `calls` (and every other one `wobble` more) calls of these tokens."""
    journal = Journal(results_dir / "runs" / run_id)
    head: dict[str, Any] = {
        "run_id": run_id, "benchmark": "humaneval", "benchmark_digest": "d", "protocol": "public",
        "method": "vanilla", "knobs": {}, "kind": "measured", "started_at": 1.0,
        "roles": {"worker": {"model": "openai/small"}}, "n_samples": 1,
    }  # fmt: skip
    role = fields.pop("role", "worker")
    head |= fields
    (journal.run_dir / "run.json").write_text(json.dumps(head))
    ids = [f"HumanEval/{n}" for n in range(samples)]
    journal.write("session", event="start", problems=samples, samples=samples, asked=ids)
    for number, problem_id in enumerate(ids):
        key = {"result_key": problem_id, "problem_id": problem_id, "sample": 0}
        for call_no in range(calls + (wobble if number % 2 else 0)):
            journal.write(
                "call", **key, call_no=call_no, role=role,
                model=head["roles"].get(role, head["roles"]["worker"])["model"],
                prompt_tokens=tokens, completion_tokens=tokens, latency_s=latency_s, error=None,
                cached=cached,
            )  # fmt: skip
        journal.write("call", **key, call_no=99, role=role, model="openai/small",
                      latency_s=60.0, error="no answer", error_kind="unavailable")  # fmt: skip
        verdict = "passed" if number % solved == 0 else "wrong"
        journal.write("result", **key, verdict=verdict, calls=calls)
    journal.write("session", event="end", status="complete")
    journal.close()
    store = Store(results_dir)
    store.ingest()
    store.snapshot()


def seen(plan: Any) -> Any:
    return forecast(plan, past=read_past(plan))


def test_without_past_runs_calls_are_the_methods_and_tokens_typical(tmp_path: Path) -> None:
    plan = planned(tmp_path / "results")
    assert read_past(plan) is None
    found = seen(plan)
    assert found.calls == plan.calls() == {"worker": (20, 20)}
    low, high = found.tokens
    assert low < 20 * (250 + 230) < high
    assert found.usd == pytest.approx((low * 1e-6, high * 1e-6), rel=0.01)
    assert found.minutes is None  # nothing tells how long a call takes
    assert "worker: typical calls" in found.basis
    assert not (tmp_path / "results").exists()


def test_an_unknown_price_is_unknown_and_a_free_model_costs_nothing(tmp_path: Path) -> None:
    assert seen(planned(tmp_path, Priced("openai/new", None))).usd is None
    assert seen(planned(tmp_path, Priced("vllm/own", 0.0))).usd == (0.0, 0.0)
    assert "price unknown" in words(seen(planned(tmp_path, Priced("openai/new", None))))


def test_the_likest_runs_are_taken_and_the_less_like_the_wider(tmp_path: Path) -> None:
    widths = []
    for run_id, tokens, fields, basis in (
        ("other-model-method", 999, {"method": "x", "roles": {"worker": {"model": "y/z"}}},
         "typical"),
        ("model", 100, {"method": "self-refine"}, "of the same model"),
        ("method", 150, {"roles": {"worker": {"model": "openai/other"}}}, "of the same method"),
        ("both", 200, {"benchmark": "mbpp"}, "of the same method and model"),
        ("all", 300, {"benchmark": "humaneval+"}, "of the same method, model and benchmark"),
    ):  # fmt: skip
        ran(tmp_path, run_id, tokens=tokens, **fields)
        found = seen(planned(tmp_path))
        assert basis in found.basis
        low, high = found.tokens
        expected = (250 + 230 if basis == "typical" else 2 * tokens) * 20
        assert low < expected < high
        widths.append(high / low)
    assert widths == sorted(widths, reverse=True)


def test_a_forecast_holds_what_the_same_run_comes_to_again(tmp_path: Path) -> None:
    ran(tmp_path, "a", calls=3, wobble=2, tokens=120, latency_s=4.0, samples=100)
    found = seen(planned(tmp_path, limit="100"))
    calls, tokens = 100 * 4, 100 * 4 * 240
    low, high = found.calls["worker"]
    assert low < calls < high < 1.1 * calls
    assert found.tokens[0] < tokens < found.tokens[1] < 2 * tokens
    least, most = (60 * minutes for minutes in found.minutes)
    assert least < calls * 4.0 / 6 < most  # between 4 and 8 at once
    assert most < calls * 4.0


def test_calls_of_other_knobs_or_of_few_samples_are_not_taken_for_the_methods(
    tmp_path: Path,
) -> None:
    ran(tmp_path, "knobs", calls=7, knobs={"rounds": 9})
    ran(tmp_path, "few", calls=7, samples=FEW - 1)
    assert seen(planned(tmp_path)).calls == {"worker": (20, 20)}
    ran(tmp_path, "enough", calls=7, samples=FEW)
    assert seen(planned(tmp_path)).calls == {"worker": (140, 140)}


def test_samples_that_ask_a_role_nothing_count_as_nothing(tmp_path: Path) -> None:
    ran(tmp_path, "a", calls=0, wobble=2, samples=40)
    (row,) = read_past(planned(tmp_path)).calls
    assert (row.samples, row.calls) == (40, 1.0)
    assert row.calls_deviation == pytest.approx((40 / 39) ** 0.5)


def test_replies_from_the_cache_tell_tokens_but_no_seconds(tmp_path: Path) -> None:
    ran(tmp_path, "a", cached=True)
    found = seen(planned(tmp_path))
    assert "of the same method, model and benchmark" in found.basis
    assert found.minutes is None


def test_the_run_that_is_to_be_foretold_tells_nothing_of_itself(tmp_path: Path) -> None:
    ran(tmp_path, "a")
    assert len(read_past(planned(tmp_path)).calls) == 1
    assert read_past(planned(tmp_path), besides="a").calls == ()


def test_simulated_runs_tell_of_simulated_ones_only(tmp_path: Path) -> None:
    ran(tmp_path, "sim", kind="simulated", roles={"worker": {"model": "sim/skill=1"}}, tokens=7)
    assert "typical" in seen(planned(tmp_path)).basis
    simulated = Priced("sim/skill=1", 0.0, simulated=True)
    assert "50 samples" in seen(planned(tmp_path, simulated)).basis


def test_a_model_of_this_machine_is_as_fast_as_it_says(tmp_path: Path) -> None:
    plan = planned(tmp_path, Rated("local/x", 0.0))
    low, high = seen(plan).minutes
    assert low < 20 * 230 / 10 / 60 < high


def test_more_connections_or_jobs_take_less_time(tmp_path: Path) -> None:
    ran(tmp_path, "a", samples=100)
    _, grading = overhead.expected((), benchmark="humaneval", knobs="", samples=100, workflows=0)

    def asking(**config: Any) -> float:
        _, most = seen(planned(tmp_path, limit="100", **config)).minutes
        return float(60 * most) - grading - overhead.START_S[1]

    assert asking(max_connections=1) == pytest.approx(4 * asking(), rel=0.01)
    assert asking(max_connections=10, jobs=2) == pytest.approx(asking(max_connections=2))


def test_a_fast_model_takes_the_time_of_starting_grading_and_workflows(tmp_path: Path) -> None:
    ran(tmp_path, "a", samples=100, latency_s=1e-6)
    least, most = (60 * end for end in seen(planned(tmp_path, limit="1")).minutes)
    assert least > overhead.START_S[0]
    assert most > overhead.START_S[1]

    def seconds(method: str, temperature: float) -> float:
        plan = planned(tmp_path, method=method, temperature=temperature)
        return float(60 * seen(plan).minutes[1])

    one = seconds("flowreasoner", 0.0) - seconds("vanilla", 0.0)
    three = seconds("flowreasoner", 0.5) - seconds("vanilla", 0.5)
    assert one > 200 * overhead.WORKFLOW_S[0]  # 20 samples of 10 workflows, each run once
    assert three == pytest.approx(3 * one, rel=0.01)
    graded = [
        overhead.expected((), benchmark=name, knobs="", samples=9, workflows=0)
        for name in ("humaneval", "mbpp+", "bigcodebench-hard")
    ]
    assert graded == sorted(set(graded))


def session(out: Path, run_id: str, *, seconds: float, asked: float, cached: bool = False) -> None:
    """A past run of 20 samples of 30 s each, during `asked` of which calls are under way."""
    journal = Journal(out / "runs" / run_id)
    head = {"run_id": run_id, "benchmark": "humaneval", "method": "vanilla", "knobs": {},
            "kind": "measured", "roles": {"worker": {"model": "openai/small"}}}  # fmt: skip
    (journal.run_dir / "run.json").write_text(json.dumps({**head, "n_samples": 1}))
    journal.write("session", at=1000.0, event="start", problems=20, samples=20)
    for number in range(20):
        key = {"result_key": str(number), "problem_id": f"HumanEval/{number}", "sample": 0}
        for start, end in ((0.0, 0.8), (0.2, 1.0), (0.3, 0.7)):  # beside each other
            journal.write(
                "call", at=1000 + end * asked, **key, call_no=0, role="worker",
                model="openai/small", latency_s=(end - start) * asked, error=None, cached=cached,
            )  # fmt: skip
        journal.write("result", at=1000 + seconds, **key, verdict="wrong", calls=3, wall_s=30.0)
    journal.write("session", at=1000 + seconds, event="end", status="complete")
    journal.close()
    killed = Journal(out / "runs" / run_id)
    killed.write("session", at=2000.0, event="start", problems=21, samples=21)
    killed.write("result", at=2001.0, result_key="x", problem_id="HumanEval/99", sample=0,
                 verdict="wrong", calls=0, wall_s=9.0)  # fmt: skip
    killed.close()
    store = Store(out)
    store.ingest()
    store.snapshot()


@pytest.mark.parametrize(
    ("asked", "cached", "share"), [(0.0, False, 1.0), (10.0, False, 2 / 3), (10.0, True, 1.0)]
)
def test_what_a_past_run_took_beside_its_calls_is_what_it_took_less_the_asking(
    tmp_path: Path, asked: float, cached: bool, share: float
) -> None:
    session(tmp_path, "a", seconds=60.0, asked=asked, cached=cached)
    (one,) = overhead.read(tmp_path, method="vanilla", simulated=False)
    assert (one.samples, one.family, one.knobs) == (20, "humaneval", "{}")
    assert one.seconds == pytest.approx(share * 60.0 / 20, rel=1e-3)
    assert overhead.read(tmp_path, method="vanilla", simulated=True) == ()
    assert overhead.read(tmp_path, method="vanilla", simulated=False, besides="a") == ()

    def most(knobs: str, benchmark: str = "humaneval", samples: int = 1000) -> float:
        return overhead.expected(
            [one], benchmark=benchmark, knobs=knobs, samples=samples, workflows=0
        )[1]

    assert most("{}", "humaneval+") == pytest.approx(1000 * one.seconds * overhead.OFF)
    assert most('{"rounds":9}') == most("{}", "mbpp") != most("{}")
    assert most("{}", samples=1) >= one.seconds * overhead.OFF


@pytest.mark.parametrize("method", ["llm-debate", "flowreasoner"])
async def test_a_forecast_holds_what_simulated_runs_take(tmp_path: Path, method: str) -> None:
    async def take(limit: str, known: bool, **fields: Any) -> None:
        for _ in range(3):  # on a shared machine one run in many is held up by what is beside it
            config = api.Config(
                worker="sim/skill=0.5", limit=limit, out=tmp_path / "results", cache="off",
                fresh=True, **fields,
            )  # fmt: skip
            plan = api.prepare(config, cache_dir=tmp_path / "cache")
            told = seen(plan).minutes
            summary = await api.execute(plan)
            assert (told is not None) == known
            if told is None or 60 * told[0] < summary.wall_s < 60 * told[1]:
                return
        raise AssertionError(f"told {told} minutes, took {summary.wall_s} s")

    await take("4", False, method="vanilla")  # so it is known how fast the model answers
    knobs = {"rounds": 3} if method == "flowreasoner" else {}
    await take("3", True, method=method, knobs=knobs)  # by what was measured once
    await take("12", True, method=method, knobs=knobs)  # by the run before


def test_the_whole_run_is_forecast_beside_its_part(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    part, whole = forecast(plan), forecast(plan, full=True)
    assert whole.calls == {"worker": (164, 164)}
    assert (part.detectable, whole.detectable) == (
        detectable_difference(20), detectable_difference(164),
    )  # fmt: skip


def test_how_much_methods_differ_is_measured_where_pairs_of_runs_tell_it(tmp_path: Path) -> None:
    assert f"{DISCORDANT:.0%}" in seen(planned(tmp_path)).basis
    ran(tmp_path, "a", samples=60, solved=2)
    ran(tmp_path, "other-worker", samples=60, solved=60, roles={"worker": {"model": "y/z"}})
    assert read_past(planned(tmp_path)).discordant is None
    ran(tmp_path, "b", samples=60, solved=4, method="self-refine")
    assert read_past(planned(tmp_path)).discordant == pytest.approx(0.25)
    found = seen(planned(tmp_path, limit="100"))
    assert found.detectable == detectable_difference(100, 0.25)
    assert "differ on 25% of the problems, as runs here did" in found.basis


def test_a_forecast_is_plain_data_and_comes_back(tmp_path: Path) -> None:
    ran(tmp_path, "a")
    found = seen(planned(tmp_path))
    again = from_dict(json.loads(canonical(as_dict(found))))
    assert as_dict(again) == as_dict(found)
    with pytest.raises(ValueError, match="not a forecast"):
        from_dict({"calls": [1]})


def test_predicted_and_actual_stand_in_one_line(tmp_path: Path) -> None:
    ran(tmp_path, "a", calls=2, wobble=1, samples=50)
    found = seen(planned(tmp_path, limit="100"))
    line = compared(found, calls=251, tokens=50_200, usd=0.0502, wall_s=130.0)
    low, high = found.calls["worker"]
    assert line.startswith(f"predicted {low} to {high} calls, ")
    assert line.endswith("; took 251, 50k, $0.0502, 2 min 10 s")
    bare = forecast(planned(tmp_path / "none", Priced("openai/new", None)))
    line = compared(bare, calls=20, tokens=None, usd=None, wall_s=1.0)
    assert line.startswith("predicted 20 calls, ")
    assert line.endswith("; took 20, unknown")


def test_so_few_problems_show_no_difference(tmp_path: Path) -> None:
    assert forecast(planned(tmp_path, limit="3")).detectable is None
    assert "no difference" in difference(forecast(planned(tmp_path, limit="3")))
    assert "24.2 points" in difference(forecast(planned(tmp_path, limit="30")))


def test_numbers_are_rounded_to_what_matters() -> None:
    assert [rounded(n) for n in (7.4, 950, 1234, 12_345, 3_400_000)] == [
        "7", "950", "1.2k", "12k", "3.4M",
    ]  # fmt: skip
    assert span((1000.0, 1001.0)) == "1.0k"
    assert [family(n) for n in ("humaneval+", "mbpp-full", "bigcodebench-hard-complete")] == [
        "humaneval", "mbpp", "bigcodebench",
    ]  # fmt: skip
