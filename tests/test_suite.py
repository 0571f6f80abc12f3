"""Suites of runs: what a file may say, and that all of its cells run once, under one budget."""

import asyncio
import io
import itertools
import json
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

import baselines
from harness import grid, suite
from harness.benchmarks import DataSources
from harness.errors import UsageError
from harness.journal import Journal, read_run
from harness.models import Endpoint
from harness.store import writer_is_gone
from tests.fault_server import start

SMALL = """
name = "small"
[defaults]
limit = 2
temperature = 0.5
[grid]
seed = [0, 1]
[[row]]
method = ["vanilla", "self-refine"]
worker = ["sim/skill=0.5,seed=1", "sim/skill=0.5,seed=2"]
"""


@pytest.fixture
def file(tmp_path):
    def write(text, name="suite.toml"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


@pytest.fixture
def small(file, tmp_path):
    """Eight cells of two samples each: 2 methods x 2 workers x 2 seeds."""
    return suite.load(file(SMALL), out=tmp_path / "results")


def records(out, kind):
    return [r for run in sorted(out.glob("runs/*")) for r in read_run(run) if r["kind"] == kind]


def paid(out):
    """Tokens of all calls that were asked anew."""
    calls = [r for r in records(out, "call") if not r["cached"]]
    return sum(r["prompt_tokens"] + r["completion_tokens"] for r in calls)


# --- files ---


def configs(source, **changes):
    return [cell.config for cell in suite.load(source, **changes).cells()]


def test_rows_are_crossed_with_the_grid_and_with_their_own_lists(file):
    cells = suite.load(file(SMALL)).cells()
    assert len(cells) == len({cell.label for cell in cells}) == 8
    assert cells[0].label == "humaneval vanilla skill=0.5,seed=1 seed 0"
    assert {(c.config.limit, c.config.temperature, c.row) for c in cells} == {("2", 0.5, 1)}


def test_a_row_goes_before_the_grid_and_that_before_the_defaults_and_tables_are_merged(file):
    found = configs(
        file("""
        [defaults]
        worker = "openai/a"
        n_samples = 3
        meta = "openai/m"
        sampling = { meta = { temperature = 0.1, max_tokens = 9 }, worker = { top_p = 0.5 } }
        [grid]
        worker = ["openai/b"]
        [[row]]
        method = "vanilla"
        [[row]]
        method = "flowreasoner"
        worker = "openai/c"
        knobs = { rounds = 2 }
        sampling = { meta = { temperature = 0.2 } }
        """)
    )
    vanilla, flow = found
    assert (vanilla.worker, flow.worker) == ("openai/b", "openai/c")
    assert (vanilla.roles, flow.roles) == ({}, {"meta": "openai/m"})
    assert vanilla.sampling == {"worker": {"top_p": 0.5}}
    meta = {"temperature": 0.2, "max_tokens": 9}
    assert flow.sampling == {"meta": meta, "worker": {"top_p": 0.5}}
    assert {c.n_samples for c in found} == {3}


def test_a_yaml_file_says_the_same_as_a_toml_file(file):
    text = """
    defaults: {limit: 2, temperature: 0.5, cache: off}
    grid: {seed: [0, 1]}
    row:
    - method: [vanilla, self-refine]
      worker: ["sim/skill=0.5,seed=1", "sim/skill=0.5,seed=2"]
    """
    expected = SMALL.replace("limit = 2", 'limit = 2\ncache = "off"')
    assert configs(file(text, "suite.yml")) == configs(file(expected))


def test_what_the_command_line_says_goes_into_every_cell_and_makes_equal_ones_one(file):
    found = configs(file(SMALL), worker="sim/", limit="5", meta="sim/seed=4", budget_usd=3.0)
    assert len(found) == 4
    assert {(c.worker, c.limit, c.budget_usd) for c in found} == {("sim/", "5", None)}
    assert suite.load(file(SMALL), budget_usd=3.0).budget == {"usd": 3.0}


def test_a_role_has_a_server_of_its_own_that_goes_with_the_files_model(file):
    path = file("""
    [defaults]
    worker = "openai/a"
    base-urls = { meta = "http://localhost:8000/v1" }
    [[row]]
    method = "vanilla"
    [[row]]
    method = "flowreasoner"
    meta = "vllm/m"
    worker = "vllm/w"
    base-urls = { worker = "http://localhost:8001/v1" }
    """)
    vanilla, flow = configs(path)
    assert vanilla.base_urls == {}
    both = {"meta": "http://localhost:8000/v1", "worker": "http://localhost:8001/v1"}
    assert flow.base_urls == both
    assert configs(path, worker="openai/b")[1].base_urls == {"meta": both["meta"]}
    elsewhere = {"worker": "http://gpu:1/v1"}
    assert configs(path, base_urls=elsewhere)[1].base_urls == {**both, **elsewhere}
    with pytest.raises(UsageError, match=r"\[\[row\]\] 1: base-urls\.worker wants a URL, not 8000"):
        suite.load(file(ROW + "base-urls = { worker = 8000 }"))


def test_the_papers_tables_give_worker_and_meta_agent_servers_of_their_own():
    served = {
        name: {
            (role, config.base_urls.get(role))
            for config in configs(name)
            for role, model in {"worker": config.worker, **config.roles}.items()
            if model.startswith("vllm/")
        }
        for name in ("table2", "table3")
    }
    meta = ("meta", "http://localhost:8000/v1")
    assert served == {"table2": {meta}, "table3": {meta, ("worker", "http://localhost:8001/v1")}}


ROW = '[[row]]\nmethod = "vanilla"\nworker = "sim/"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[grids]\n" + ROW, "unknown key 'grids': did you mean 'grid'?"),
        (ROW + "sead = 1", "[[row]] 1: unknown key 'sead': did you mean 'seed'?"),
        (ROW + 'seed = "x"', "[[row]] 1: seed wants a whole number, not 'x'"),
        (ROW + ROW.replace("vanilla", "vanila"), "[[row]] 2: unknown method 'vanila': use one of"),
        (ROW + 'benchmark = "humanval"', "[[row]] 1: unknown benchmark 'humanval': did you mean"),
        (ROW + 'protocol = "private"', "[[row]] 1: unknown protocol 'private': use one of"),
        (ROW + "knobs = { rounds = 1 }", "[[row]] 1: vanilla has no knob 'rounds'"),
        (ROW + "seed = []", "[[row]] 1: seed is an empty list: no cell would be left"),
        (ROW + "budget_usd = 1", "a suite has one budget for all: put it in [budget]"),
        ("[budget]\nusd = -1\n" + ROW, "[budget]: usd is a number of at least 0, not -1"),
        ("[grid]\nseed = 1\n" + ROW, "[grid]: seed wants a list, not 1"),
        ("[defaults]\nseed = [1]\n" + ROW, "[defaults]: seed is one value: a list belongs in"),
        ('[[row]]\nmethod = "vanilla"', "[[row]] 1: no worker: name one in the row, [grid] or"),
        (ROW + ROW, "[[row]] 2: the cell 'humaneval vanilla sim/ seed 0' is in row 1 already"),
        ('name = "empty"', "wants one [[row]] or more"),
        ("[[row]", "not TOML"),
    ],
)
def test_a_mistake_is_told_in_one_line_that_names_the_file(file, text, said):
    path = file(text)
    with pytest.raises(UsageError) as caught:
        suite.load(path)
    assert str(caught.value).startswith(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_suite_is_told_with_those_that_are_shipped():
    with pytest.raises(UsageError, match="no shipped suite of that name: fig4a, fig4a-local"):
        suite.load("table9")
    with pytest.raises(UsageError, match=r"table9\.toml: cannot be read"):
        suite.load("table9.toml")


# --- shipped files ---

SHIPPED = ["fig4a", "fig4b", "table1", "table2", "table3"]


def test_every_grid_of_the_paper_is_shipped_and_in_small_for_local_models():
    assert sorted(suite.shipped()) == sorted([*SHIPPED, *(f"{name}-local" for name in SHIPPED)])
    for name in SHIPPED:
        here = configs(f"{name}-local")
        models = {model for c in here for model in (c.worker, *c.roles.values())}
        assert {model.partition("/")[0] for model in models} == {"local"}
        assert {c.limit for c in here} == {"10"}
        whole = configs(name)
        assert {(c.list, c.protocol, c.limit) for c in whole} == {("paper", "split", None)}
        assert {c.seed for c in whole} == {0, 1, 2}


@pytest.mark.parametrize("name", [*SHIPPED, *(f"{name}-local" for name in SHIPPED)])
def test_a_dry_run_of_a_shipped_suite_says_what_it_takes(name, tmp_path):
    changes = {"worker": "sim/latency=0.5,usd=1", "meta": "sim/seed=1,latency=1,usd=1"}
    told = suite.load(
        name, **changes, benchmark="humaneval", seed=0, limit="2", max_tokens=64, out=tmp_path
    )
    found = suite.survey(told, forecasts=True)
    assert [row.left for row in found.rows] == [2] * len(told.cells())
    for row in found.rows:
        low, high = map(sum, zip(*row.plan.calls().values(), strict=True))
        assert row.ahead()["calls"][0] >= low > 0
        assert row.ahead()["usd"][1] >= row.ahead()["usd"][0] > 0
        assert row.ahead()["calls"][1] >= high
    total = found.ahead()["calls"][1]
    assert total == sum(row.ahead()["calls"][1] for row in found.rows)
    assert list(tmp_path.iterdir()) == []


def test_table_1_has_every_row_of_the_paper(shared):
    rows = json.loads((shared / "paper_tables.json").read_text())["tables"]["table1"]["rows"]
    methods = {"Aflow": "aflow", "o1-mini": "vanilla", "GPT-4o-mini": "vanilla"}
    methods["FlowReasoner-14B"] = "flowreasoner"
    expected = {
        (methods.get(row["method"], row["method"].lower()), row["worker"] or "gpt-4o-mini")
        for row in rows.values()
    }
    found = Counter((c.method, c.worker.removeprefix("openai/")) for c in configs("table1"))
    assert found == dict.fromkeys(expected, 9)  # 3 benchmarks x 3 seeds


def test_a_cell_that_cannot_be_made_here_is_told_by_file_and_row(file, tmp_path):
    path = file('[defaults]\nbenchmark = "humaneval"\n' + ROW + 'list = "papers"')
    with pytest.raises(UsageError, match=r"suite\.toml: \[\[row\]\] 1: humaneval has no list"):
        suite.survey(suite.load(path, out=tmp_path))


def test_a_survey_needs_no_environment_and_no_cache(shared, file, tmp_path):
    text = ROW + 'benchmark = "bigcodebench"\nlist = "paper"\nlimit = 2'
    told = suite.load(file(text), out=tmp_path / "out", data=DataSources(data_dir=shared / "data"))
    empty = tmp_path / "cache"
    for forecasts in (True, False):
        (row,) = suite.survey(told, cache_dir=empty, forecasts=forecasts).rows
        assert (row.left, row.plan.environment) == (2, "not made")
    with pytest.raises(UsageError, match="env bigcodebench"):
        asyncio.run(suite.run_suite(told, cache_dir=empty))


# --- runs ---


async def test_an_interrupted_suite_says_what_is_missing_and_goes_on(small, tmp_path):
    out = tmp_path / "results"
    finished = 0

    def count(progress, row):
        nonlocal finished
        finished += row is not None
        if finished == 5:
            running.cancel()

    running = asyncio.create_task(suite.run_suite(small, listen=count))
    with pytest.raises(asyncio.CancelledError):
        await running
    done = records(out, "result")
    missing = suite.survey(small)
    assert sum(row.left for row in missing.rows) == 16 - len(done)
    assert [row.status for row in missing.rows[:2]] == ["complete", "complete"]
    assert missing.rows[-1].left == 2
    text = io.StringIO()
    suite.show(missing, text, missing=True)
    assert len(text.getvalue().splitlines()) == 3 + sum(row.left > 0 for row in missing.rows)
    assert f"cells are complete; {16 - len(done)} samples are left" in text.getvalue()

    summary = await suite.run_suite(small)
    assert (summary.exit_code, summary.stopped) == (0, None)
    assert [row.status for row in summary.rows] == ["complete"] * 8
    keys = Counter(r["result_key"] for r in records(out, "result"))
    assert (len(keys), set(keys.values())) == (16, {1})
    assert {r["result_key"] for r in done} <= keys.keys()
    assert sum(row.left for row in suite.survey(small).rows) == 0


class Forbidden:
    """A sandbox that nobody may touch."""

    def __getattr__(self, name):
        raise AssertionError(f"the sandbox was asked for {name}")


async def test_a_complete_cell_is_skipped_without_a_sandbox(file, tmp_path):
    told = suite.load(file(ROW + "limit = 2"), out=tmp_path / "results")
    with pytest.raises(AssertionError, match="the sandbox was asked"):
        await suite.run_suite(told, sandbox=Forbidden())
    first = await suite.run_suite(told)
    again = await suite.run_suite(told, sandbox=Forbidden())
    assert again.as_dict() == first.as_dict()
    assert len(records(tmp_path / "results", "session")) == 2  # the start and the end of one


async def test_problems_that_cannot_be_graded_here_are_not_left(file, tmp_path):
    told = suite.load(file(ROW + "limit = 3"), out=tmp_path / "results")
    (row,) = (await suite.run_suite(told)).rows
    journal = Journal(row.run_dir)
    journal.write(
        "session",
        event="start",
        environment=row.plan.environment,
        left_out={"HumanEval/3": "its reference fails here"},
    )
    journal.close()
    longer = suite.load(str(told.file), out=tmp_path / "results", limit="5")
    (again,) = suite.survey(longer).rows
    assert (again.done, again.left, again.progress.total) == (3, 1, 4)


async def test_the_budget_holds_over_all_cells_and_over_later_processes(file, tmp_path):
    path, out = file(SMALL), tmp_path / "results"
    four = {"worker": "sim/skill=0.5,seed=1", "cache": "off"}  # cells
    whole = await suite.run_suite(suite.load(path, out=tmp_path / "whole", **four))
    needed = sum(row.progress.tokens for row in whole.rows)
    limit = int(needed * 0.4)
    cut = suite.load(path, out=out, jobs=1, max_connections=1, budget_tokens=limit, **four)
    first = await suite.run_suite(cut)
    assert (first.exit_code, first.rows[-1].status) == (3, "left")
    assert "--budget-tokens" in first.stopped
    largest = max(r["prompt_tokens"] + r["completion_tokens"] for r in records(out, "call"))
    assert limit <= paid(out) < limit + largest
    again = await suite.run_suite(cut, sandbox=Forbidden())
    assert again.exit_code == 3
    more = suite.load(path, out=out, budget_tokens=10 * needed, **four)
    assert (await suite.run_suite(more)).exit_code == 0
    assert paid(out) == needed


async def test_a_damaged_line_of_a_journal_costs_no_budget_and_ends_nothing(file, tmp_path):
    told = suite.load(file(ROW + "limit = 2"), out=tmp_path / "results", budget_tokens=10_000)
    (row,) = (await suite.run_suite(told)).rows
    segment = sorted(row.run_dir.glob("*.jsonl"))[0]
    call = {"kind": "call", "prompt_tokens": 50_000, "completion_tokens": 50_000}  # lacks the rest
    with segment.open("a") as journal:
        journal.write(json.dumps(call) + '\n{"kind": "result", "at"\n' + json.dumps([1]) + "\n")
    longer = suite.load(str(told.file), out=tmp_path / "results", limit="3", budget_tokens=10_000)
    summary = await suite.run_suite(longer)
    assert (summary.exit_code, summary.stopped) == (0, None)
    assert [(one.done, one.left) for one in summary.rows] == [(3, 0)]


async def test_a_budget_in_dollars_counts_all_models_and_wants_their_prices(file, tmp_path):
    text = SMALL.replace("sim/skill=0.5", "sim/usd=1e6")  # a dollar a token
    told = suite.load(file(text), out=tmp_path / "results", budget_usd=500, jobs=1)
    summary = await suite.run_suite(told)
    assert summary.exit_code == 3
    assert 500 <= sum(r["cost_usd"] for r in records(tmp_path / "results", "call")) < 800
    unpriced = file(ROW.replace("sim/", "openai/nobody-knows-it"), "unpriced.toml")
    with pytest.raises(UsageError, match="the price of openai/nobody-knows-it is unknown"):
        await suite.run_suite(
            suite.load(unpriced, out=tmp_path, budget_usd=1),
            endpoints={"openai": Endpoint("http://127.0.0.1:9/v1", "none")},
        )


async def test_a_refused_model_ends_its_cells_and_the_others_go_on(file, tmp_path):
    told = suite.load(
        file("""
        [defaults]
        method = "vanilla"
        limit = 2
        [grid]
        worker = ["openai/gpt-4o-mini", "sim/skill=1"]
        seed = [0, 1]
        [[row]]
        [[row]]
        method = "self-refine"
        """),
        out=tmp_path / "results",
    )
    said = []
    with start(refuse=True) as server:
        summary = await suite.run_suite(
            told, endpoints={"openai": Endpoint(f"{server.url}/v1", "key")}, warn=said.append
        )
        assert server.stats()["requests"] <= 2
    states = Counter((row.cell.config.worker, row.status) for row in summary.rows)
    assert states == {
        ("openai/gpt-4o-mini", "refused"): 1,
        ("openai/gpt-4o-mini", "skipped"): 3,
        ("sim/skill=1", "complete"): 4,
    }
    assert summary.exit_code == 4
    assert sum("refused" in line for line in said) == 1
    text = io.StringIO()
    suite.show(summary, text)
    assert "skipped: openai/gpt-4o-mini was refused before" in text.getvalue()


OTHER = """
import asyncio, sys
from pathlib import Path
from harness import suite

told = suite.load(sys.argv[1], out=Path(sys.argv[2]), cache="off")
summary = asyncio.run(suite.run_suite(told, cache_dir=Path(sys.argv[3])))
raise SystemExit(summary.exit_code)
"""


def elsewhere(*arguments):
    """Another process that runs the suite."""
    root = Path(suite.__file__).parents[1]
    command = [sys.executable, "-c", OTHER, *map(str, arguments)]
    return subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)


async def test_two_processes_share_a_suite_and_do_each_cell_once(file, tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "BUSY_S", 0.1)
    text = SMALL.replace(', "sim/skill=0.5,seed=2"', "").replace("seed=1", "seed=1,latency=0.6")
    path, out, cache = file(text), tmp_path / "results", tmp_path / "cache"
    told = suite.load(path, out=out, cache="off")
    (first, *_) = suite.survey(told, cache_dir=cache).rows
    with elsewhere(path, out, cache) as other:
        while writer_is_gone(first.run_dir):
            assert other.poll() is None, other.stderr.read()
            await asyncio.sleep(0.02)
        said = []
        summary = await suite.run_suite(told, cache_dir=cache, warn=said.append)
        assert other.wait(timeout=120) == 0, other.stderr.read()
    assert summary.exit_code == 0
    assert said[0].startswith("cell 1 of 4")
    assert "another process is at it" in said[0]
    assert {row.status for row in summary.rows} == {"complete"}
    keys = Counter(r["result_key"] for r in records(out, "result"))
    assert (len(keys), set(keys.values())) == (8, {1})
    asked = Counter((r["result_key"], r["call_no"]) for r in records(out, "call"))
    assert set(asked.values()) == {1}


async def test_a_table_fits_its_width_and_says_what_every_cell_came_to(file, tmp_path):
    text = """
    name = "wide"
    [[row]]
    method = "flowreasoner"
    limit = 1
    worker = ["sim/skill=0.5,seed=1,latency_sd=0.0001", "sim/skill=0.5,seed=2,latency_sd=0.0001"]
    meta = "sim/seed=3,latency_sd=0.0001,judge=0.25"
    knobs = { rounds = 2 }
    """
    told = suite.load(file(text), out=tmp_path / "results")
    summary = await suite.run_suite(told)
    shown = io.StringIO()
    suite.show(summary, shown)
    suite.show(suite.survey(told, forecasts=True), shown)
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= suite.WIDTH
    assert lines[0].split()[:5] == ["benchmark", "method", "worker", "meta", "seed"]
    assert all("1/1" in line and "[" in line for line in lines[1:3])
    assert "wide: 2 of 2 cells are complete" in lines
    found = json.loads(json.dumps(summary.as_dict()))
    assert [cell["pass@1"]["problems"] for cell in found["cells"]] == [1, 1]
    assert found["left"] == 0


def table(source, tmp_path, shared, **changes):
    """The lines of a dry run's table."""
    told = suite.load(source, out=tmp_path, data=DataSources(data_dir=shared / "data"), **changes)
    shown = io.StringIO()
    suite.show(suite.survey(told, cache_dir=tmp_path / "cache", forecasts=True), shown)
    return shown.getvalue().splitlines()


@pytest.mark.parametrize("name", [*SHIPPED, *(f"{name}-local" for name in SHIPPED)])
def test_a_shipped_suites_table_tells_its_models_apart(name, tmp_path, shared):
    head, *lines = table(name, tmp_path, shared)
    cells = suite.load(name).cells()
    lines = lines[: len(cells)]
    assert max(map(len, [head, *lines])) <= suite.WIDTH
    columns = [head.index(title) for title in ("worker", "meta", "seed")]
    worker, meta = ([line[a:b].strip() for line in lines] for a, b in itertools.pairwise(columns))
    for shown, models in (
        (worker, [cell.config.worker for cell in cells]),
        (meta, [_meta(cell.config) for cell in cells]),
    ):
        pairs = set(zip(shown, models, strict=True))
        assert len(pairs) == len(set(shown)) == len(set(models))


def _meta(config):
    """The model of role meta: the worker's where none is named; None: there is no such role."""
    has_meta = "meta" in baselines.load(config.method).roles
    return config.roles.get("meta", config.worker) if has_meta else None


def test_names_that_share_their_ends_are_cut_to_what_tells_them_apart():
    names = ["qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct", "o1-mini"]
    assert list(suite._cut(names, 15).values()) == ["qwen2.5..0.5b..", "qwen2.5..1.5b..", "o1-mini"]
    assert suite._cut(names, 5) is None
    unlike = ["a" * 20 + "1", "b" * 20 + "2"]
    assert list(suite._cut(unlike, 9).values()) == ["aaa..aaa1", "bbb..bbb2"]


async def test_copies_of_one_greedy_run_are_told(file, tmp_path, shared):
    told = "greedy and exactly repeatable: seeds 0, 1 are one and the same run"
    path = file(SMALL)
    assert not [line for line in table(path, tmp_path, shared) if told in line]
    greedy = table(path, tmp_path, shared, temperature=0.0)
    assert len([line for line in greedy if told in line]) == 4
    one_seed = table(path, tmp_path, shared, temperature=0.0, seed=1)
    assert not [line for line in one_seed if told in line]


def test_a_long_name_keeps_its_ends():
    assert suite._fitted("claude-3-5-sonnet-20241022", 18) == "claude-3..20241022"
    assert suite._fitted("o1-mini", 7) == "o1-mini"
    assert grid.short("local/a/b.gguf") == "b"


def test_problems_that_one_row_leaves_out_stay_in_the_others(file, tmp_path):
    pytest.importorskip("xllamacpp")
    (tmp_path / "meta.gguf").write_bytes(b"GGUF")
    told = {"format": 1, "knobs": {}, "problems": ["HumanEval/0", "HumanEval/2"]}
    (tmp_path / "meta.flowreasoner.json").write_text(json.dumps(told))
    text = f"""
[defaults]
worker = "sim/skill=0.5"
benchmark = "humaneval"
limit = 4
[[row]]
method = "flowreasoner"
meta = "local/{tmp_path}/meta.gguf"
[[row]]
method = "aflow"
knobs = {{ search_problems = 1 }}
[[row]]
method = "vanilla"
"""
    found = suite.survey(suite.load(file(text), out=tmp_path / "out"), forecasts=True)
    assert [row.left for row in found.rows] == [2, 4, 4]
    assert found.rows[1].search is not None
    assert found.rows[1].ahead()["calls"][1] > found.rows[1].forecast.calls["worker"][1]


async def test_a_cell_that_fails_while_it_runs_ends_alone(file, tmp_path, monkeypatch):
    text = """
[defaults]
worker = "sim/skill=0.5"
benchmark = "humaneval"
limit = 2
[[row]]
method = "self-refine"
[[row]]
method = "vanilla"
"""
    run = suite.api.execute

    async def execute(plan, **options):
        if plan.method.name == "self-refine":  # as a fit that finds nothing does
            raise UsageError("nothing was found")
        return await run(plan, **options)

    monkeypatch.setattr(suite.api, "execute", execute)
    told = suite.load(file(text), out=tmp_path / "out")
    found = await suite.run_suite(told, cache_dir=tmp_path / "cache")
    assert [row.status for row in found.rows] == ["failed", "complete"]
    assert (found.rows[0].reason, found.exit_code) == ("nothing was found", 1)


async def test_a_cell_whose_search_another_process_makes_is_come_back_to(file, tmp_path):
    text = """
[[row]]
method = "aflow"
worker = "sim/skill=0.5"
benchmark = "humaneval"
limit = 2
knobs = { search_problems = 1, max_rounds = 1, evals = 1 }
"""
    told = suite.load(file(text), out=tmp_path / "out")
    (row,) = suite.survey(told, cache_dir=tmp_path / "cache").rows
    held = Journal(suite.api.fit_folder(row.plan))
    said = []
    task = asyncio.create_task(
        suite.run_suite(told, cache_dir=tmp_path / "cache", warn=said.append)
    )
    while not any("another process is at it" in line for line in said):
        await asyncio.sleep(0.05)
    held.close()
    found = await task
    assert [row.status for row in found.rows] == ["complete"]
