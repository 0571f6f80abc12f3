"""The command as its user meets it: a real process, a real small model, real exit codes."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import psutil
import pytest

import baselines
from harness.journal import read_run
from tests.fault_server import start

ROOT = Path(__file__).parents[1]
SMALL = "local/smollm2-135m-instruct"


def environment(**extra):
    dropped = ("OPENAI_", "ANTHROPIC_", "VLLM_", "HARNESS_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    return {**kept, **extra}


def harness(*arguments, check=None, **extra):
    done = subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=ROOT,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=240,
    )
    if check is not None:
        assert done.returncode == check, done.stderr
    return done


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("eval", "--method", "magic"), "unknown method 'magic': use one of"),
        (("eval", "--benchmark", "magic"), "unknown benchmark 'magic': use one of"),
        (("eval", "--worker", "magic/x"), "unknown model 'magic/x'"),
        (("eval", "--worker", "local/magic"), "qwen2.5-coder-1.5b-instruct"),
        (("eval", "-A", "magic=1"), "has no knob 'magic'; its knobs: rounds=10"),
        (("eval", "-A", "rounds"), "-A wants name=value, not 'rounds'"),
        (("eval", "--worker", "openai/gpt-4o-mini"), "OPENAI_API_KEY"),
        (("eval", "--worker", "anthropic/claude-x"), "ANTHROPIC_API_KEY"),
        (("eval", "--no-such-flag"), "--no-such-flag"),
        (("eval", "--n-samples", "some"), "--n-samples"),
        (("list", "wishes"), "use methods, benchmarks, models, suites or runs"),
        (("show", "nothing"), "nothing"),
        (("models", "pull", "magic"), "qwen2.5-coder-0.5b-instruct"),
        (("export", "--format", "pdf"), "pdf"),
        (("score",), "score wants --samples FILE with --benchmark, or the name of a run"),
        (("score", "--samples", "x.jsonl"), "score --samples wants --benchmark"),
        (("score", "-b", "humaneval", "-s", "x.jsonl"), "x.jsonl: cannot be read: No such file"),
        (("score", "-b", "humaneval", "-s", "x", "--jobs", "0"), "--jobs is at least 1, not 0"),
        (("score", "-b", "magic", "-s", "x.jsonl"), "unknown benchmark 'magic'"),
        (("score", "some-run"), "some-run: no run of that name"),
        (("check", "magic"), "unknown benchmark 'magic'"),
        (("check", "humaneval", "--repeat", "0"), "--repeat is at least 1, not 0"),
        (("env", "magic"), "magic"),
        (("suite", "nothing"), "no shipped suite of that name: fig4a, fig4a-local"),
        (("resume", "nothing"), "nothing: no run of that name"),
        (("delete", "nothing", "--yes"), "nothing: no run of that name"),
        (("cache", "clear", "--older-than", "-1", "--yes"), "--older-than is at least 0 days"),
        (("eval", "--sampling", "meta.magic=1"), "unknown setting 'magic': use one of extra_body"),
        (("eval", "--cache", "maybe"), "--cache is one of off, read, on, not 'maybe'"),
        (("eval", "--prices", "nothing.toml"), "nothing.toml"),
        (("serve", "vllm/x"), "vllm"),
        (("serve", "local/magic"), "qwen2.5-coder-1.5b-instruct"),
        (("serve", "vllm/x", "--magic", "1"), "--magic"),
        (("env", "bigcodebench", "--tier", "heavy"), "heavy"),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_exit_2(tmp_path, arguments, says):
    takes_out = arguments[0] not in ("models", "check", "env", "cache", "serve")
    out = ("--out", str(tmp_path / "results")) if takes_out else ()
    done = harness(*arguments, *out, check=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert done.stdout == ""


def test_a_damaged_or_newer_database_is_one_line_and_left_alone(tmp_path):
    (tmp_path / "harness.duckdb").write_bytes(b"not a database" * 1000)
    done = harness("export", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "rebuild" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "harness.duckdb").read_bytes() == b"not a database" * 1000


def test_doctor_reports_the_tier_and_never_a_key(tmp_path):
    done = harness("doctor", "--out", str(tmp_path), OPENAI_API_KEY="sk-canary")
    assert "sandbox" in done.stdout
    assert "prevented" in done.stdout
    assert "humaneval: 164 problems" in done.stdout
    assert "OPENAI_API_KEY   set" in done.stdout
    assert "sk-canary" not in done.stdout + done.stderr


def test_lists_name_what_there_is(tmp_path):
    methods = harness("list", "methods", check=0).stdout
    for name in ("vanilla", "self-refine", "llm-debate", "flowreasoner", "rounds=10"):
        assert name in methods
    assert "humaneval" in harness("list", "benchmarks", check=0).stdout
    assert SMALL in harness("list", "models", check=0).stdout
    assert "table1-local" in harness("list", "suites", check=0).stdout
    assert "no runs" in harness("list", "runs", "--out", str(tmp_path), check=0).stdout


def test_a_dry_run_spends_nothing_and_names_calls_and_minutes(tmp_path):
    out = tmp_path / "results"
    done = harness("eval", "--dry-run", "--json", "--out", str(out), check=0)
    plan = json.loads(done.stdout)
    jsonschema.validate(plan, json.loads((ROOT / "docs/schemas/dry_run.json").read_text()))
    assert plan["calls"]["meta"][0] == 2 * plan["problems"] == 6
    assert plan["minutes"][0] > 0
    assert "all 164 problems" in done.stderr
    assert "to start that: python -m harness eval --method flowreasoner" in done.stderr
    assert not out.exists()


def test_a_dry_run_needs_no_key_and_says_what_is_left_of_a_run_that_was_begun(tmp_path):
    where = ("--out", str(tmp_path / "results"), "--cache-dir", str(tmp_path / "cache"))
    for worker in ("openai/gpt-4o-mini", "anthropic/claude-haiku-4-5", "local/" + SMALL[6:]):
        flags = ("--method", "vanilla", "--worker", worker, "--limit", "3", *where)
        plan = json.loads(harness("eval", "--dry-run", "--json", *flags, check=0).stdout)
        assert (plan["done"], plan["samples"]) == (0, 3)
    simulated(tmp_path)
    flags = ("--method", "vanilla", "--worker", "sim/skill=1", "--limit", "10", *where)
    begun = harness("eval", "--dry-run", "--json", *flags, check=0)
    assert "4 of 10 samples are done; the rest: 6 worker calls" in begun.stderr
    plan = json.loads(begun.stdout)
    jsonschema.validate(plan, json.loads((ROOT / "docs/schemas/dry_run.json").read_text()))
    assert (plan["done"], plan["ahead"]["calls"]) == (4, {"worker": [6, 6]})
    left = harness("resume", "latest", "--dry-run", "--json", *where, check=0)
    assert json.loads(left.stdout)["done"] == 4
    assert "4 of 4 samples are done; the rest: 0 worker calls" in left.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("eval", "--method", "magic"), 2),
        (("eval", "--no-such-flag"), 2),
        (("eval", "--worker", "openai/x"), 2),
        (("eval", "--data-dir", "/nowhere"), 2),
        (("eval", "--out", "/dev/null"), 2),
        (("eval", "--out", "/dev/null", "--dry-run"), 2),
        (("eval", "--n-samples", "some"), 2),
        (("resume", "nothing"), 2),
        (("suite", "nothing"), 2),
        (("score", "-b", "humaneval", "-s", "nothing.jsonl"), 2),
        (("check", "magic"), 2),
        (("delete", "nothing", "--yes"), 2),
    ],
)
def test_json_is_one_object_also_where_nothing_was_run(tmp_path, arguments, code):
    (tmp_path / "some.toml").write_text("json = true")
    takes_out = "--out" not in arguments and arguments[0] in ("eval", "resume", "suite", "delete")
    out = ("--out", str(tmp_path / "results")) if takes_out else ()
    done = harness(*arguments, *out, "--json", check=code)
    found = json.loads(done.stdout)
    jsonschema.validate(found, json.loads((ROOT / "docs/schemas/error.json").read_text()))
    assert done.stderr == f"error: {found['error']}\n"
    assert found["exit_code"] == code
    if arguments[0] == "eval":
        config = ("--config", str(tmp_path / "some.toml"))
        for asked in (
            harness(*arguments, *out, HARNESS_JSON="1"),
            harness(*arguments, *out, *config),
        ):
            if "--no-such-flag" not in arguments:  # which is met before either is read
                assert asked.stdout == done.stdout


def samples_file(path, *programs):
    rows = [{"task_id": task_id, "solution": code} for task_id, code in programs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_score_prints_one_object_and_exits_0_whatever_the_verdicts(tmp_path):
    programs = [("HumanEval/53", "def add(x, y): return 0"), ("HumanEval/23", "strlen = len")]
    path = samples_file(tmp_path / "s.jsonl", *programs)
    command = ("score", "-b", "humaneval", "-s", path, "--cache-dir", str(tmp_path / "cache"))
    found = json.loads(harness(*command, "--json", check=0).stdout)
    jsonschema.validate(found, json.loads((ROOT / "docs/schemas/score.json").read_text()))
    verdicts = {row["problem_id"]: row["verdict"] for row in found["problems"]}
    assert verdicts == {"HumanEval/53": "wrong", "HumanEval/23": "passed"}
    assert (found["pass@1"]["value"], found["pass@1"]["problems"]) == (0.5, 2)
    page = harness(*command, check=0).stdout
    assert "pass@1           50.0% [" in page
    assert "verdicts         " in page


def test_score_names_the_line_that_cannot_be_read(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text('{"task_id": "HumanEval/0", "completion": ""}\n{"task_id": "HumanEval/1"}\n')
    done = harness("score", "-b", "humaneval", "-s", str(path), check=2)
    assert done.stderr == f"error: {path}:2: neither completion nor solution\n"


def test_a_damaged_file_of_verdicts_is_one_line_that_says_what_to_do_and_no_more(tmp_path):
    path = samples_file(tmp_path / "s.jsonl", ("HumanEval/23", "strlen = len"))
    (tmp_path / "verdicts.sqlite").write_bytes(b"no database" * 1000)
    done = harness("score", "-b", "humaneval", "-s", path, "--cache-dir", str(tmp_path), check=0)
    line = next(line for line in done.stderr.splitlines() if "no verdicts are kept" in line)
    assert str(tmp_path / "verdicts.sqlite") in line
    assert "passed 1" in done.stdout


def test_data_comes_from_the_folder_and_the_variables_that_people_use(tmp_path, shared):
    data = {"HARNESS_DATA_DIR": str(shared / "data"), "HF_HUB_OFFLINE": "1"}
    programs = [("Mbpp/2", "def similar_elements(a, b): return set(a) & set(b)")]
    path = samples_file(tmp_path / "s.jsonl", *programs)
    command = ("score", "-b", "mbpp+", "-s", path, "--json", "--cache-dir", str(tmp_path / "c"))
    found = json.loads(harness(*command, check=0, **data).stdout)
    assert [(row["base"], row["plus"]) for row in found["problems"]] == [("passed", "passed")]
    assert not found["custom"]
    rows = gzip.decompress((shared / "data/MbppPlus.jsonl.gz").read_bytes()).splitlines(True)
    (tmp_path / "mine.jsonl").write_bytes(rows[0])
    mine = {"MBPP_OVERRIDE_PATH": str(tmp_path / "mine.jsonl"), "HF_HUB_OFFLINE": "1"}
    assert json.loads(harness(*command, check=0, **mine).stdout)["custom"]
    absent = harness(*command, check=1, HF_HUB_OFFLINE="1", HARNESS_DATA_DIR=str(tmp_path))
    (line,) = absent.stderr.splitlines()
    assert "MbppPlus.jsonl.gz is not at hand" in line
    assert "--data-dir" in line


def test_check_prints_one_object_and_answers_from_its_cache_the_second_time(tmp_path):
    command = ("check", "humaneval", "--json", "--cache-dir", str(tmp_path))
    first = json.loads(harness(*command, check=0).stdout)
    jsonschema.validate(first, json.loads((ROOT / "docs/schemas/check.json").read_text()))
    assert first["references"] == {"run": 164, "passed": 164}
    assert first["trivial"] == {"run": 164 * 7, "passed": {}}
    assert json.loads(harness(*command, check=0).stdout) == {**first, "cached": True}


def sleeping_score(folder):
    """A `score` of samples that sleep, under way, and the processes below it."""
    sleepers = [
        ("HumanEval/53", f"import time\ndef add(x, y): time.sleep({9 + n})") for n in range(16)
    ]
    path = samples_file(folder / "s.jsonl", *sleepers)
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "score", "-b", "humaneval", "-s", path, "--no-check"],
        cwd=ROOT, env=environment(HARNESS_CACHE_DIR=str(folder)), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not children(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2)
    below = children(process.pid)
    return process, below


def test_ctrl_c_ends_a_score_with_130_and_leaves_nothing_running(tmp_path):
    process, below = sleeping_score(tmp_path)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), errors
    assert "interrupted: the same command goes on" in errors
    assert "Traceback" not in errors
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(pid) for pid in below) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(psutil.pid_exists(pid) for pid in below)


STUBBORN = """
import asyncio
from harness import command

async def work():
    try:
        print('working', flush=True)
        await asyncio.sleep(60)
    finally:
        print('clearing up', flush=True)
        await asyncio.sleep(60 if %s else 0)

try:
    command.run_to_end(work())
except KeyboardInterrupt:
    print('stopped in order', flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_the_work_end_and_the_second_does_not_wait(number):
    for stubborn in (False, True):
        process = subprocess.Popen(
            [sys.executable, "-c", STUBBORN % stubborn],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout.readline() == "working\n"
        process.send_signal(number)
        assert process.stdout.readline() == "clearing up\n"
        if stubborn:
            process.send_signal(number)
        process.wait(timeout=30)
        out, errors = process.stdout.read(), process.stderr.read()
        if stubborn:
            assert (process.returncode, out) == (130, "")
            assert errors == "interrupted at once: the same command goes on from here\n"
        else:
            assert (process.returncode, out, errors) == (0, "stopped in order\n", "")


def test_a_second_ctrl_c_leaves_nothing_running(tmp_path):
    process, below = sleeping_score(tmp_path)
    assert below
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)  # two of one kind may arrive as one
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    # at once, unless the end in order was quicker than the second signal
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(pid) for pid in below) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(psutil.pid_exists(pid) for pid in below)


def children(pid):
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def test_help_imports_nothing_heavy():
    code = "import harness.cli, sys; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    heavy = {"asyncio", "duckdb", "numpy", "openai", "anthropic", "psutil", "pyarrow", "sqlite3"}
    assert heavy.isdisjoint(done.stdout.split())


def simulated(folder, *flags, check=0):
    """A run of the simulated worker on four problems, as `eval --json` prints it."""
    where = ("--out", str(folder / "results"), "--cache-dir", str(folder / "cache"))
    worker = ("--method", "vanilla", "--worker", "sim/skill=1", "--limit", "4", "--json")
    return json.loads(harness("eval", *worker, *where, *flags, check=check).stdout)


def test_resume_goes_on_as_the_run_was_started_with_what_is_given_now(tmp_path):
    began = simulated(tmp_path, "--budget-tokens", "1", check=3)
    assert began["status"] == "budget"
    run, out = began["run"], ("--out", str(tmp_path / "results"))
    assert harness("resume", run, *out, HARNESS_BUDGET_TOKENS="99999").returncode == 3
    done = harness("resume", run, *out, "--budget-tokens", "99999", "--json", check=0)
    found = json.loads(done.stdout)
    assert (found["run"], found["calls"]) == (run, 4)
    assert [row["verdict"] for row in found["problems"]] == ["passed"] * 4
    again = json.loads(harness("resume", run, *out, "--json", check=0).stdout)
    assert again["calls"] == 4
    absent = harness("resume", "some-run", *out, check=2)
    (line,) = absent.stderr.splitlines()
    assert run in line
    folder = str(tmp_path / "results" / "runs" / run)
    for named in (("latest", *out), (run[:-1], *out), (folder,)):
        found = json.loads(harness("resume", *named, "--json", check=0).stdout)
        assert (found["run"], found["calls"]) == (run, 4)
        assert run in harness("show", *named, check=0).stdout
    unpriced = harness("resume", "latest", *out, "--prices", "nothing.toml", check=2)
    assert "nothing.toml" in unpriced.stderr
    newer = simulated(tmp_path, "--seed", "1")["run"]
    assert json.loads(harness("resume", "latest", *out, "--json", check=0).stdout)["run"] == newer


def test_a_budget_that_allows_nothing_is_said(tmp_path):
    where = ("--out", str(tmp_path / "results"), "--cache-dir", str(tmp_path / "cache"))
    flags = ("--method", "vanilla", "--worker", "sim/skill=1", "--limit", "4", *where)
    done = harness("eval", *flags, "--budget-tokens", "0", check=3)
    assert "stopped: --budget-tokens 0 is spent" in done.stderr


def test_delete_wants_a_yes_and_takes_only_the_run_that_is_named(tmp_path):
    gone = simulated(tmp_path)["run"]
    kept = simulated(tmp_path, "--seed", "1")["run"]
    out = ("--out", str(tmp_path / "results"))
    asked = harness("delete", gone, *out, check=2)
    assert "--yes" in asked.stderr
    assert gone in harness("list", "runs", *out, check=0).stdout
    found = json.loads(harness("delete", gone, "--yes", "--json", *out, check=0).stdout)
    assert found["run"] == gone
    assert found["bytes"] > 0
    assert found["rows"] > 4
    listed = harness("list", "runs", *out, check=0).stdout
    assert gone not in listed
    assert kept in listed
    assert harness("delete", gone, "--yes", *out, check=2).stdout == ""


def test_the_cache_says_what_it_holds_and_is_cleared_on_request_alone(tmp_path):
    where = ("--cache-dir", str(tmp_path / "cache"))
    empty = json.loads(harness("cache", "info", "--json", *where, check=0).stdout)
    assert empty["replies"] == 0
    assert not (tmp_path / "cache").exists()
    simulated(tmp_path)  # whose answers are free, and not kept
    with start() as server:
        flags = ("--worker", "openai/gpt-x", "--base-url", server.openai_url, "--limit", "4")
        harness(
            "eval", "--method", "vanilla", *flags, "--out", str(tmp_path / "out"), *where, check=0
        )
    held = json.loads(harness("cache", "info", "--json", *where, check=0).stdout)
    ((model, of_model),) = held["models"].items()
    assert (held["replies"], of_model["replies"], model) == (4, 4, "openai/gpt-x")
    assert held["others"]["verdicts.sqlite"] > 0
    assert "4 replies" in harness("cache", "info", *where, check=0).stdout
    assert "--yes" in harness("cache", "clear", *where, check=2).stderr
    clear = ("cache", "clear", "--yes", "--json", *where)
    for flags, deleted in (
        (("--older-than", "1"), 0),
        (("--model", "openai/x"), 0),
        (("--model", model), 4),
    ):
        assert json.loads(harness(*clear, *flags, check=0).stdout)["deleted"] == deleted
    assert json.loads(harness("cache", "info", "--json", *where, check=0).stdout)["replies"] == 0


GRID = """
name = "mine"
[defaults]
limit = 2
worker = "sim/skill=1"
[grid]
seed = [0, 1]
[[row]]
method = ["vanilla", "self-refine"]
"""


def test_a_suite_says_what_is_missing_stops_at_its_budget_and_goes_on(tmp_path):
    (tmp_path / "grid.toml").write_text(GRID)
    where = ("--out", str(tmp_path / "results"), "--cache-dir", str(tmp_path / "cache"))
    command = ("suite", str(tmp_path / "grid.toml"), "--json", *where)

    def left(*flags, check=0, **extra):
        found = json.loads(harness(*command, *flags, check=check, **extra).stdout)
        return [cell["left"] for cell in found["cells"]]

    assert left("--missing") == left("--dry-run") == [2, 2, 2, 2]
    assert not (tmp_path / "results").exists()
    assert sum(left(check=3, HARNESS_BUDGET_TOKENS="1")) in (6, 7)
    assert sum(left("--missing")) in (6, 7)
    # a variable fills what the file leaves open, and replaces nothing that it says
    told = {"HARNESS_WORKER": "magic/x", "HARNESS_LIMIT": "1", "HARNESS_CACHE": "off"}
    assert left("--budget-tokens", "99999", HARNESS_BUDGET_TOKENS="1", **told) == [0, 0, 0, 0]
    assert left("--missing") == [0, 0, 0, 0]
    shown = harness("suite", str(tmp_path / "grid.toml"), "--missing", *where, check=0)
    assert shown.stdout.splitlines()[-1] == "mine: 4 of 4 cells are complete"


def test_list_models_names_every_form_of_a_name():
    listed = harness("list", "models", check=0).stdout
    for form in ("local/PATH", "openai/", "anthropic/", "vllm/", "hf/", "replay/", "sim/"):
        assert form in listed


@pytest.mark.model
def test_a_real_run_prints_one_json_object_and_fills_store_show_and_export(tmp_path):
    harness("models", "pull", SMALL, check=0)
    flags = ("--worker", SMALL, "--limit", "2", "--max-tokens", "60", "--out", str(tmp_path))
    command = ("eval", "--method", "flowreasoner", "-A", "rounds=1", *flags, "--json")
    done = harness(*command, check=0)
    found = json.loads(done.stdout)
    schema = json.loads((ROOT / "docs/schemas/eval.json").read_text())
    jsonschema.validate(found, schema)
    assert [p["problem_id"] for p in found["problems"]] == ["HumanEval/0", "HumanEval/1"]
    assert found["calls"] >= 4
    again = json.loads(harness(*command, check=0).stdout)
    assert (again["run"], again["calls"]) == (found["run"], found["calls"])
    shown = harness("show", found["run"], "--problem", "HumanEval/0", "--out", str(tmp_path))
    assert "round 1" in shown.stdout
    assert "class Workflow" in shown.stdout
    assert found["run"] in harness("list", "runs", "--out", str(tmp_path), check=0).stdout
    board = harness("export", "--format", "csv", "--out", str(tmp_path), check=0).stdout
    assert "flowreasoner" in board
    rebuilt = harness("rebuild", "--out", str(tmp_path), check=0)
    assert rebuilt.stdout.startswith("1 runs")
    assert harness("export", "--format", "csv", "--out", str(tmp_path), check=0).stdout == board


@pytest.mark.model
def test_ctrl_c_exits_130_and_the_same_command_goes_on(tmp_path):
    harness("models", "pull", SMALL, check=0)
    command = ("eval", "--method", "vanilla", "--worker", SMALL, "--max-tokens", "80")
    flags = ("--limit", "6", "--out", str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *command, *flags],
        cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def results():
        runs = list(tmp_path.glob("runs/*"))
        return [r for r in read_run(runs[0]) if r["kind"] == "result"] if runs else []

    deadline = time.monotonic() + 120
    while not results() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "are done; the same command goes on" in errors
    before = {r["problem_id"] for r in results()}
    done = harness(*command, *flags, "--json", check=0)
    assert f"resuming: {len(before)} of 6 samples are done" in done.stderr
    assert len(json.loads(done.stdout)["problems"]) == 6
    keys = [r["result_key"] for r in results()]
    assert len(keys) == len(set(keys)) == 6


def test_a_refused_key_is_one_request_one_line_and_exit_4(tmp_path):
    """A real HTTP server that answers 401 to everything and counts."""
    server = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import http.server, sys\n"
            "class H(http.server.BaseHTTPRequestHandler):\n"
            "    def do_POST(self):\n"
            "        print('request', flush=True)\n"
            "        body = b'{\"error\": {\"message\": \"bad key\"}}'\n"
            "        self.send_response(401)\n"
            "        self.send_header('Content-Length', str(len(body)))\n"
            "        self.end_headers()\n"
            "        self.wfile.write(body)\n"
            "    def log_message(self, *a): pass\n"
            "s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), H)\n"
            "print(s.server_address[1], flush=True)\n"
            "s.serve_forever()\n",
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        done = harness(
            "eval", "--method", "vanilla", "--worker", "openai/gpt-4o-mini", "--limit", "20",
            "--base-url", f"http://127.0.0.1:{port}/v1", "--out", str(tmp_path),
            OPENAI_API_KEY="sk-canary-key",
        )  # fmt: skip
    finally:
        server.terminate()
        rest = server.communicate()[0]
    assert done.returncode == 4
    assert rest.count("request") <= 2
    assert "sk-canary-key" not in done.stderr
    assert sum(line.startswith("error:") for line in done.stderr.splitlines()) == 1
    written = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"sk-canary-key" not in written


def test_all_commands_share_one_cache_folder(tmp_path):
    path = samples_file(tmp_path / "s.jsonl", ("HumanEval/53", "def add(x, y): return x + y"))
    where = environment(XDG_CACHE_HOME=str(tmp_path / "cache"))
    for command in (("score", "-b", "humaneval", "-s", path), ("check", "humaneval")):
        done = subprocess.run(
            [sys.executable, "-m", "harness", *command],
            cwd=ROOT, env=where, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    folder = tmp_path / "cache" / "flowreasoner-harness"
    kept = {path.name for path in folder.iterdir() if "-wal" not in path.name}
    assert kept - {"verdicts.sqlite-shm"} == {"verdicts.sqlite", "checks"}


FLOW = """\
class Workflow:
    async def __call__(self, problem, entry_point):
        draft = await self.custom_code_generate(
            problem=problem, entry_point=entry_point, instruction=prompt_custom.PLAIN
        )
        return draft["response"], self.llm.cost_manager.total_cost
"""


def test_a_workflow_file_is_run_on_one_problem_and_leaves_no_run(tmp_path):
    flow, prompts = tmp_path / "flow.py", tmp_path / "prompts.py"
    flow.write_text(FLOW)
    prompts.write_text('PLAIN = "Be plain."\n')
    told = ["--prompts", str(prompts), "--worker", "sim/skill=1", "--problem", "0"]
    told += ["--cache-dir", str(tmp_path / "cache")]
    before = set((ROOT / "results").rglob("*"))
    done = harness("run-workflow", str(flow), *told, "--json")
    found = json.loads(done.stdout)
    jsonschema.validate(found, json.loads((ROOT / "docs/schemas/run_workflow.json").read_text()))
    assert (found["verdict"], found["calls"], found["error"]) == ("passed", 1, None)
    assert found["operators"] == ["custom_code_generate"]
    assert set((ROOT / "results").rglob("*")) == before
    words = harness("run-workflow", str(flow), *told).stdout
    assert "HumanEval/0: passed" in words
    prompts.write_text("")
    broken = harness("run-workflow", str(flow), *told, "--json")
    assert broken.returncode == 1
    assert "PLAIN" in json.loads(broken.stdout)["error"]
    absent = harness("run-workflow", str(tmp_path / "no.py"), *told, "--json")
    assert (absent.returncode, absent.stderr.count("\n")) == (2, 1)
    assert json.loads(absent.stdout)["exit_code"] == 2


def test_a_search_is_begun_by_fit_goes_on_by_resume_and_is_drawn(tmp_path):
    told = ["--out", str(tmp_path), "--cache-dir", str(tmp_path / "cache")]
    search = ["--method", "aflow", "-A", "max_rounds=2", "-A", "evals=1", "--limit", "3"]
    search += ["--worker", "sim/skill=0.5", *told]
    planned = json.loads(harness("fit", *search, "--dry-run", "--json").stdout)
    assert planned["search"]["done"] is False
    assert harness("fit", *search, "--budget-tokens", "50").returncode == 3
    done = harness("resume", "latest", *told, "--budget-tokens", "1000000", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    jsonschema.validate(found, json.loads((ROOT / "docs/schemas/fit.json").read_text()))
    shown = harness("show", found["run"], "--out", str(tmp_path)).stdout
    assert "one call of the code generator" in shown
    assert "command    python -m harness fit --method aflow" in shown
    assert harness("fit", *search, "--limit", "0").returncode == 2
    nothing = harness("fit", "--method", "vanilla", "--worker", "sim/skill=0.5", *told)
    assert nothing.returncode == 2
    assert "vanilla has nothing to search or train first" in nothing.stderr


def test_list_methods_verbose_tells_every_knob_of_every_method():
    page = harness("list", "methods", "--verbose").stdout
    parts = {part.partition(" ")[0]: part for part in page.split("\n\n")}
    for name in baselines.REGISTRY:
        for knob in baselines.known_knobs(baselines.load(name)):
            assert f"\n  -A {knob}=" in parts[name]
    assert "sources: 4 (paper); 3 (AFlow's version for code)" in page
