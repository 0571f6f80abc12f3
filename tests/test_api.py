"""The Python API as people call it: forgiving forms, one-line errors, types, notebooks."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import jsonschema
import pytest

from harness import Endpoint, api, evaluate, evaluate_async
from harness.errors import ModelRefused, UsageError
from harness.journal import read_run
from harness.models.scripted import ScriptedModel
from harness.options import Config, Options
from tests import fault_server

ROOT = Path(__file__).parents[1]
SCHEMA = json.loads((ROOT / "docs/schemas/eval.json").read_text())


def scripted():
    return {"worker": ScriptedModel("scripted/known", lambda messages: "no code")}


async def test_every_form_of_a_value_that_is_plain_to_read_is_the_same_run(tmp_path, sandbox):
    forms = [
        {"problems": ["HumanEval/0", "1"], "out": tmp_path, "seed": 0, "n_samples": 2},
        {"problems": "0, 1", "out": str(tmp_path), "seed": "0", "n_samples": "2"},
        {"problems": [0, 1], "out": tmp_path, "limit": 2, "n_samples": 2.0},
        {"limit": "2", "out": tmp_path, "temperature": "0", "n_samples": 2},
    ]
    runs = []
    for form in forms:
        models = scripted()
        summary = await evaluate_async(
            "vanilla", models=models, cache_dir=str(tmp_path / "cache"), **form
        )
        runs.append((summary.run_id, len(models["worker"].requests), summary.progress.total))
    (run_id,) = {name for name, _, _ in runs}
    assert runs == [(run_id, 4, 4), *[(run_id, 0, 4)] * 3]


def test_the_keywords_of_evaluate_are_the_fields_of_its_config():
    names = {field.name for field in fields(Config)}
    assert Options.__annotations__.keys() == names - {"method"} | {"meta"}


def test_meta_and_a_worker_among_the_roles_are_taken_as_meant():
    config = Config(roles={"worker": "sim/skill=1", "judge": "sim/"}, meta="openai/x")
    assert config.worker == "sim/skill=1"
    assert config.roles == {"judge": "sim/", "meta": "openai/x"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"limitt": 3}, "evaluate has no keyword 'limitt': did you mean 'limit'?"),
        ({"temprature": 1}, "did you mean 'temperature'?"),
        ({"out": 5}, "--out is a path, not 5"),
        ({"prices": 5}, "--prices is a path, not 5"),
        ({"n_samples": "some"}, "--n-samples is a whole number, not 'some'"),
        ({"n_samples": True}, "--n-samples is a whole number, not True"),
        ({"n_samples": None}, "--n-samples is a whole number, not None"),
        ({"seed": 1.5}, "--seed is a whole number, not 1.5"),
        ({"limit": [3]}, "--limit is a number, a range like 10-19, or a share, not [3]"),
        ({"problems": [0.5]}, "--problems names ids, as in 0,3,HumanEval/7, not [0.5]"),
        ({"problems": 0.5}, "--problems names ids"),
        ({"temperature": "hot"}, "--temperature is a number in 0 to 2, not 'hot'"),
        ({"budget_usd": "much"}, "--budget-usd is a number of at least 0, not 'much'"),
        ({"roles": ["meta=x"]}, "--roles is a table of names and values, not ['meta=x']"),
        ({"roles": {"meta": 3}}, "--roles meta is a text, not 3"),
        ({"knobs": "rounds=3"}, "--knobs is a table of names and values"),
        ({"sampling": {"worker": 3}}, "--sampling worker is a table of names and values"),
        ({"worker": 3}, "--worker is a text, not 3"),
        ({"fresh": "yes"}, "--fresh is true or false, not 'yes'"),
        ({"data": 5}, "--data-dir is a path, not 5"),
        ({"models": {"worker": "openai/x"}}, "a model's name goes to worker=, meta= or roles="),
        ({"endpoints": {"openia": Endpoint()}}, "no provider 'openia': did you mean 'openai'?"),
        ({"worker": "openai/x"}, 'openai/x needs a key: endpoints={"openai": Endpoint(api_key=...'),
    ],
)
def test_what_is_wrong_is_one_line_that_says_so(tmp_path, given, says):
    with pytest.raises(UsageError) as caught:
        evaluate("vanilla", **{"out": tmp_path / "results", **given})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


def test_a_key_in_the_wrong_place_is_not_repeated():
    with pytest.raises(UsageError) as caught:
        evaluate("vanilla", worker="openai/x", endpoints={"openai": "sk-canary"})
    assert str(caught.value) == 'endpoints wants {"openai": Endpoint(api_key=...)}'


async def test_summaries_and_plans_read_well(tmp_path, sandbox):
    config = Config(method="vanilla", out=tmp_path, limit=2)
    plan = api.prepare(config, models=scripted())
    assert repr(plan) == "<Plan: vanilla on humaneval, 2 problems; worker scripted/known>"
    summary = await api.execute(plan, sandbox=sandbox)
    assert repr(summary) == (
        f"<Summary: {summary.run_id}: complete, pass@1 0.0% [0.0, 65.8] of 2 problems>"
    )


async def test_how_far_a_plan_is_comes_from_its_journal(tmp_path, sandbox):
    def plan(**config):
        told = Config(method="vanilla", out=tmp_path, **config)
        return api.prepare(told, models=scripted())

    progress = api.begun(plan(limit=5))
    assert (api.done(progress), progress.total) == (0, 5)
    await api.execute(plan(limit=3), sandbox=sandbox)
    found = plan(limit=5).as_dict()
    assert (found["done"], found["samples"]) == (3, 5)
    assert (found["calls"], found["ahead"]["calls"]) == ({"worker": [5, 5]}, {"worker": [2, 2]})
    assert found["ahead"]["tokens"][1] == pytest.approx(found["tokens"][1] * 2 / 5, abs=1)
    assert plan(limit=5, fresh=True).as_dict()["done"] == 0
    assert plan(limit=3).as_dict()["ahead"]["calls"] == {"worker": [0, 0]}


async def test_a_run_that_ends_by_an_exception_says_what_it_came_to(tmp_path, sandbox):
    replies = ["no code", "no code", ModelRefused("no credit is left")]
    model = ScriptedModel("scripted/known", replies)
    plan = api.prepare(
        Config(method="vanilla", out=tmp_path, limit=5, jobs=1), models={"worker": model}
    )
    ended = []
    with pytest.raises(ModelRefused):
        await api.execute(plan, sandbox=sandbox, unfinished=ended.append)
    (summary,) = ended
    found = summary.as_dict()
    jsonschema.validate(found, SCHEMA)
    assert (found["status"], found["reason"]) == ("refused", "no credit is left")
    assert (len(found["problems"]), found["calls"], summary.exit_code) == (2, 2, 4)
    assert found["spent"]["tokens"] == found["tokens"] > 0


async def test_the_python_api_evaluates_in_a_notebook(tmp_path, sandbox):
    models = scripted()
    summary = evaluate("vanilla", models=models, limit=1, out=tmp_path)  # beside a running loop
    assert (summary.status, len(models["worker"].requests)) == ("complete", 1)
    again = await evaluate_async("vanilla", models=models, limit=1, out=tmp_path)
    assert (again.run_id, len(models["worker"].requests)) == (summary.run_id, 1)


NOTEBOOK = """
import asyncio, sys
from harness import Endpoint, evaluate

def work():
    evaluate('vanilla', worker='openai/x', base_url=sys.argv[1], limit=40, max_connections=2,
             endpoints={'openai': Endpoint(api_key='none')}, out=sys.argv[2],
             cache_dir=sys.argv[3])

async def cell():
    work()

try:
    if sys.argv[4] == 'notebook':
        asyncio.new_event_loop().run_until_complete(cell())
    else:
        work()
except KeyboardInterrupt:
    print('interrupted', flush=True)
    sys.exit(9)
print('complete', flush=True)
"""


@pytest.mark.parametrize("where", ["notebook", "script"])
def test_an_interrupt_ends_an_evaluation_in_order_and_the_same_call_goes_on(tmp_path, where):
    with fault_server.start(latency=0.1) as server:
        command = [sys.executable, "-c", NOTEBOOK, server.openai_url, str(tmp_path / "out"),
                   str(tmp_path / "cache"), where]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while server.stats()["requests"] < 6 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
        assert (process.returncode, out) == (9, "interrupted\n"), errors
        stopped = server.stats()["requests"]
        assert stopped < 20
        (run_dir,) = (tmp_path / "out" / "runs").iterdir()
        ends = [r for r in read_run(run_dir) if r.get("event") == "end"]
        assert [end["status"] for end in ends] == ["interrupted"]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.stdout == "complete\n", done.stderr
        stats = server.stats()
    assert stats["unique"] == 40
    assert stats["requests"] <= 40 + 2


def test_a_type_checker_catches_a_misspelt_keyword_and_a_wrong_value(tmp_path):
    text = (
        "from harness import Endpoint, evaluate\n"
        "evaluate('vanilla', limitt=3)\n"
        "evaluate('vanilla', out=5)\n"
        "good = evaluate('vanilla', limit=3, problems='0,1', out='x', meta='sim/',\n"
        "                endpoints={'openai': Endpoint(api_key='k')})\n"
        "reveal_type(good)\n"
    )
    (tmp_path / "use.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--follow-imports=silent", "--cache-dir",
         str(tmp_path / "cache"), str(tmp_path / "use.py")],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    errors = [line.partition("use.py:")[2] for line in done.stdout.splitlines() if "error" in line]
    assert errors[0].startswith('2: error: Unexpected keyword argument "limitt"'), done.stdout
    assert errors[1].startswith('3: error: Argument "out" to "evaluate" has incompatible type')
    assert 'use.py:6: note: Revealed type is "harness.api.Summary"' in done.stdout
    assert [line for line in errors if line] == errors[:2]


FAKE_GIT = "#!/bin/sh\nenv > '{dump}'\necho 0123456789\n"


def test_git_is_asked_without_the_keys_of_the_environment(tmp_path, monkeypatch):
    from harness import provenance

    dump, git = tmp_path / "dump", tmp_path / "bin" / "git"
    git.parent.mkdir()
    git.write_text(FAKE_GIT.format(dump=dump))
    git.chmod(0o755)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "VLLM_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, f"canary-{name}")
    monkeypatch.setenv("HARMLESS", "kept")
    monkeypatch.setenv("PATH", f"{git.parent}:{os.environ['PATH']}")
    assert provenance.commit() == ("0123456789", True)
    assert "HARMLESS=kept" in dump.read_text()
    assert "canary" not in dump.read_text()
