"""What `eval` says before, while and after it runs."""

import io
from pathlib import Path
from typing import Any

import pytest

from harness import api
from harness.display import Display
from harness.errors import RequestRejected
from harness.forecast import read_past
from harness.models.scripted import ScriptedModel
from harness.run import Progress
from harness.sandbox import Sandbox

EMPTY = "```python\ndef f(): ...\n```"


def planned(out: Path, replies: Any = lambda messages: EMPTY, **config: Any) -> api.Plan:
    model = ScriptedModel("scripted/known", replies)
    made = api.Config(method="vanilla", out=out, **config)
    return api.prepare(made, models={"worker": model}, cache_dir=out / "cache")


def said(*steps: Any) -> str:
    """All that a display prints while each step is done with it."""
    stream = io.StringIO()
    display = Display(stream)
    for step in steps:
        step(display)
    return stream.getvalue()


def test_a_plan_says_what_it_takes_what_it_can_show_and_where_it_stops(tmp_path: Path) -> None:
    plan = planned(tmp_path, limit="20", budget_tokens=5000, budget_minutes=2.5)
    text = said(lambda display: display.plan(plan))
    assert "this run: 20 worker calls, " in text
    assert "time unknown" in text
    assert "it stops at 5,000 tokens or 2.5 min" in text
    assert "worker: typical calls; difference: two methods differ on 15%" in text
    assert "a difference of 34.8 points in pass@1 is found" in text
    assert "all 164 problems: 164 worker calls" in text
    assert "a difference of 8.4 points" in text


async def test_a_run_is_held_against_its_forecast_and_errors_are_told_by_kind(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    def second_rejected(messages: Any) -> str:
        if "separate_paren_groups" in messages[-1]["content"]:
            raise RequestRejected("too long")
        return EMPTY

    plan = planned(tmp_path, second_rejected, limit="3", jobs=1, budget_tokens=100_000)
    summary = await api.execute(plan, sandbox=sandbox)
    text = said(lambda display: display.summary(summary))
    assert (
        "1 errored (1 rejected) and are in no mean; graded, they could make it 0.0 to 33.3%" in text
    )
    assert summary.forecast is not None
    assert "predicted 3 calls, " in text
    assert "; took 2, " in text
    tokens = summary.progress.tokens
    assert f"budget spent: {tokens:,} of 100,000 tokens" in text
    assert "came from the cache" not in text
    past = read_past(planned(tmp_path, limit="3"))
    again = said(lambda display: display.plan(planned(tmp_path, limit="3"), past))
    assert "2 samples of 1 run of the same method, model and benchmark" in again


def row(number: int, **fields: Any) -> dict[str, Any]:
    shared = {"problem_id": f"a/{number}", "sample": 0, "verdict": "passed", "detail": "",
              "calls": 2, "prompt_tokens": 10, "completion_tokens": 5, "cost_usd": 0.0,
              "wall_s": 1.0, "error_kind": None}  # fmt: skip
    return shared | fields


@pytest.mark.parametrize(
    ("cached", "part"), [(0, "  4 calls  "), (1, "  4 calls (25% cached)  ")]
)  # fmt: skip
def test_the_live_line_tells_the_cached_share_and_the_kinds_of_errors(
    cached: int, part: str
) -> None:
    progress = Progress(5)
    progress.rows = {
        "a": row(0, cached_calls=cached, fresh_cost_usd=0.5),
        "b": row(1, verdict="invalid", error_kind="sandbox", cached_calls=0, fresh_cost_usd=0.5),
    }
    display = Display(io.StringIO())
    display.update(progress, None)
    line = str(display._status())
    assert line.startswith("2/5  pass@1 ")
    assert part in line
    assert "errored: 1 sandbox" in line
