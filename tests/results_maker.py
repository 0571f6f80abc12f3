"""Folders of results for tests of the board: real journals, real databases, hostile texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.journal import Journal
from harness.store import Store

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    " **bold** $x^2$ [link](http://example.com) \x1b[31mred \ud800 :smile:"
)

HALF = "\ud800"  # of a character: no code that Python reads holds one
LABEL = "</text><script>document.title='owned'</script>"
WORKFLOW = f"""\
class Workflow:
    async def __call__(self, problem, entry_point):
        solution = await self.custom_code_generate(problem=problem, model={LABEL!r})
        while solution == "\\"]; n9 [URL=\\"javascript:alert(1)\\"];":
            solution = await self.test(solution=solution)
        return solution, 0  # {HOSTILE.replace(HALF, "")}
"""


def run(results_dir: Path, run_id: str, outcomes: dict[str, list[str]], **fields: Any) -> Path:
    """A finished run: the verdicts of each problem's samples, every sample with a trajectory."""
    journal = Journal(results_dir / "runs" / run_id)
    asked = fields.pop("asked", sum(map(len, outcomes.values())))
    cost = fields.pop("cost", 0.25)
    session = fields.pop("session", {})
    calls = fields.pop("calls", 1)  # of a sample, as its result says
    head = {"run_id": run_id, "benchmark": "humaneval", "benchmark_digest": "7dce6050a7d6",
            "list": "full", "protocol": "public", "level": "L2", "method": "flow", "knobs": {},
            "roles": {"worker": {"model": "local/small"}, "meta": {"model": "local/big"}},
            "n_samples": 1, "seed": 0, "grader_version": "1", "price_table": "none",
            "kind": "measured", "started_at": 1762000000.0}  # fmt: skip
    (journal.run_dir / "run.json").write_text(json.dumps(head | fields))
    journal.write("session", event="start", problems=len(outcomes), samples=asked,
                  **session)  # fmt: skip
    for problem_id, verdicts in outcomes.items():
        for sample, verdict in enumerate(verdicts):
            key = {"result_key": f"{problem_id}:{sample}", "problem_id": problem_id,
                   "sample": sample}  # fmt: skip
            request = {"messages": [{"role": "user", "content": f"Solve {problem_id}. {HOSTILE}"}]}
            journal.write(
                "call", **key, call_no=1, attempt=1, round=1, role="meta", model="local/big",
                request_sha=journal.artifact(json.dumps(request)),
                response_sha=journal.artifact(f"reply to {problem_id} {HOSTILE}"),
                prompt_tokens=70, completion_tokens=30, cost_usd=cost, latency_s=0.5,
            )  # fmt: skip
            workflow_sha = journal.artifact(WORKFLOW)
            journal.write("round", **key, round=1, modification=HOSTILE, score=0.5, scores=[0.5],
                          workflow_sha=workflow_sha)  # fmt: skip
            broken = journal.artifact(f"class Workflow(: ...  # {HOSTILE.replace(HALF, '')}")
            journal.write("round", **key, round=2, parent=1, modification=HOSTILE, score=0.0,
                          scores=[0.0], workflow_sha=broken, error=HOSTILE)  # fmt: skip
            journal.write("feedback", **key, round=1, passed=1, total=2, errors=[HOSTILE])
            journal.write("ensemble", **key, winner=HOSTILE)
            journal.write(
                "result", **key, verdict=verdict, detail=HOSTILE, calls=calls,
                prompt_tokens=70, completion_tokens=30, cost_usd=cost, wall_s=3.0,
                solution_sha=journal.artifact(f"def f(): ...  # {problem_id} {HOSTILE}"),
            )  # fmt: skip
    journal.write("session", event="end", status="complete")
    journal.close()
    return journal.run_dir


def published(results_dir: Path) -> Path:
    store = Store(results_dir)
    store.ingest()
    store.snapshot()
    return results_dir


def in_rounds(
    results_dir: Path, run_id: str, samples: dict[str, list[tuple[float, str]]], **fields: Any
) -> None:
    """A finished run in rounds of one call each: (feedback score, hidden verdict) by problem."""
    outcomes = {name: [rounds[-1][1]] for name, rounds in samples.items()}
    journal = Journal(run(results_dir, run_id, outcomes, **fields))
    for problem_id, rounds in samples.items():
        key = {"result_key": f"{problem_id}:0", "problem_id": problem_id, "sample": 0}
        for number, (score, verdict) in enumerate(rounds, 1):
            code = journal.artifact(f"program {number}")
            if number > 1:  # the first round has its call already
                journal.write("call", **key, call_no=number, round=number, role="worker")
            journal.write("round", **key, round=number, score=score, scores=[score],
                          code_sha=code)  # fmt: skip
            journal.write("hidden", **key, round=number, code_sha=code, verdict=verdict)
    journal.write("session", event="start", problems=len(samples), samples=len(samples),
                  resumed=len(samples))  # fmt: skip
    journal.write("session", event="end", status="complete")
    journal.close()


def search(results_dir: Path, *, ended: str = "complete", **fields: Any) -> None:
    """A search `fit-a`, and a row `found` that rests on it."""
    journal = Journal(results_dir / "runs" / "fit-a")
    head = {"run_id": "fit-a", "stage": "fit", "benchmark": "humaneval", "method": "aflow",
            "list": "search", "roles": {"worker": {"model": "local/small"}}, "knobs": {},
            "kind": "measured", "started_at": 1762000000.0}  # fmt: skip
    (journal.run_dir / "run.json").write_text(json.dumps(head | fields))
    journal.write("session", event="start", problems=2, samples=2)
    desk: dict[str, Any] = {"result_key": "desk", "problem_id": "search", "sample": 0}
    for number, parent, score in ((1, None, 0.5), (2, 1, 1.0), (3, 2, 0.0)):
        key = {"result_key": f"t{number}", "problem_id": "a/8", "sample": 1000 + number}
        journal.write("call", **key, call_no=1, round=number, role="worker", prompt_tokens=300,
                      completion_tokens=200, cost_usd=0.25, latency_s=1.0,
                      response_sha=journal.artifact(f"reply {number}"))  # fmt: skip
        journal.write("trial", **key, label=f"round {number}, run 1", round=number,
                      passed=score > 0.5, share=score, detail=HOSTILE, calls=1, tokens=500.0,
                      code_sha=journal.artifact(f"program {number}"), usd=0.25)  # fmt: skip
        journal.write("node", **desk, number=number, parent=parent, label=LABEL, score=score,
                      error=HOSTILE if number == 3 else None)  # fmt: skip
        journal.write("step", **desk, number=number, loss=1 / number)
    journal.write("session", event="end", status=ended)
    journal.close()
    spent = {"calls": 9, "tokens": 4500, "cost_usd": 0.0, "fresh_cost_usd": 2.25, "wall_s": 61.0}
    artifact = {"run": "fit-a", "digest": "d", "problems": 2, "spent": spent}
    run(results_dir, "found", {"a/0": ["passed"]}, artifact=artifact, method="aflow")


FLOW = {"a/0": [(0.0, "wrong"), (1.0, "wrong")], "a/1": [(1.0, "passed")] * 2}
DRAWS = {f"a/{n}": [(0.0, "wrong"), (1.0, "passed"), (0.0, "wrong")] for n in range(3)}


def drawn(results_dir: Path, view: str = "", **query: str | list[str]) -> AppTest:
    """The page at the path `view` (a view's PATH; "" is the board), drawn without a browser.

    Where the page goes on to another one, that one is drawn.
    """
    from streamlit.testing.v1 import AppTest
    from streamlit.util import calc_hash

    script = (
        "import pathlib\nfrom leaderboard.app import main\n"
        f"main(pathlib.Path({str(results_dir)!r}))\n"
    )
    app = AppTest.from_string(script, default_timeout=60)
    if view:  # AppTest knows pages by their files, and these are functions
        app._page_hash = calc_hash(view)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def text_of(app: AppTest) -> str:
    """All that a page says outside of tables, without the escapes of Markdown."""
    parts = [*app.title, *app.subheader, *app.info, *app.warning, *app.error, *app.success,
             *app.caption, *app.code]  # fmt: skip
    return "\n".join(str(part.value) for part in parts).replace("\\", "")


def app_text(results_dir: Path, view: str = "", **query: str | list[str]) -> str:
    """All that the page at a path says outside of tables, without the escapes of Markdown."""
    return text_of(drawn(results_dir, view, **query))
