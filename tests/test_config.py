"""Where a flag's value comes from: the command line, a file, a variable, or `.env` for keys."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness import config
from harness.errors import UsageError

ROOT = Path(__file__).parents[1]
FLAGS = [
    config.Flag("method", ("method",), "one"),
    config.Flag("n_samples", ("n-samples",), "one"),
    config.Flag("problems", ("problems",), "one"),
    config.Flag("cache", ("cache",), "one"),
    config.Flag("knob", ("A", "knob"), "many"),
    config.Flag("role", ("role",), "many"),
    config.Flag("sampling", ("sampling",), "many"),
    config.Flag("fresh", ("fresh",), "switch"),
    config.Flag("budget_usd", ("budget-usd",), "one", variable=False),
]
TOML = """
method = "vanilla"
n-samples = 3
problems = ["HumanEval/0", 7]
cache = "off"
knobs = { rounds = 3, init_template = false }
role = { judge = "openai/x" }
fresh = true
sampling = { meta = { temperature = 0.7, extra_body = { top_k = 20 } } }
"""
YAML = """
--method: vanilla
epochs: 3
problems: [HumanEval/0, 7]
cache: off
A: {rounds: 3, init_template: false}
role: [judge=openai/x]
fresh: true
sampling:
  meta: {temperature: 0.7, extra_body: {top_k: 20}}
"""


def harness(*arguments, cwd=ROOT, **extra):
    dropped = ("OPENAI_", "ANTHROPIC_", "VLLM_", "HARNESS_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=cwd, env={**kept, "PYTHONPATH": str(ROOT), **extra},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def planned(*arguments, **extra):
    """What a dry run would do."""
    worker = ("--worker", "openai/x", "--base-url", "http://127.0.0.1:9/v1")
    done = harness("eval", "--dry-run", "--json", *worker, *arguments, **extra)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("name", "text"), [("a.toml", TOML), ("a.yaml", YAML), ("a.yml", YAML)])
def test_toml_and_yaml_give_what_a_command_line_would_hold(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    assert config.from_file(path, FLAGS) == {
        "method": "vanilla",
        "n_samples": "3",
        "problems": "HumanEval/0,7",
        "cache": "off",
        "knob": ["rounds=3", "init_template=false"],
        "role": ["judge=openai/x"],
        "fresh": True,
        "sampling": ["meta.temperature=0.7", 'meta.extra_body={"top_k": 20}'],
    }


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.toml", "temprature = 1", "unknown key 'temprature': use one of A, budget-usd"),
        ("a.toml", "n_sample = 1", "unknown key 'n_sample': did you mean 'n-samples'?"),
        ("a.toml", "n-samples = 1\nn_samples = 2", "'n_samples' sets --n-samples a second time"),
        ("a.toml", "method = ", "not TOML: Invalid value (at end of document)"),
        ("a.toml", "fresh = 1", "fresh: wants true or false, not 1"),
        ("a.toml", "method = { a = 1 }", "method: wants one value, not a table"),
        ("a.yaml", "a: [1\nb: 2", "not YAML: while parsing a flow sequence"),
        ("a.yaml", "- method", "wants flags and their values, not a list"),
        ("a.json", "{}", "its name ends in .toml, .yaml or .yml"),
        ("a.toml", b"\xff", "cannot be read: it is not UTF-8 text"),
        ("a.toml", None, "cannot be read: No such file or directory"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_that_names_it(tmp_path, name, text, says):
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as caught:
        config.from_file(path, FLAGS)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_words_stay_what_the_flag_means(tmp_path):
    """YAML reads on, off as booleans and an absent value as null."""
    path = tmp_path / "a.yaml"
    path.write_text("cache: on\nmethod:\nproblems: none\n")
    assert config.from_file(path, FLAGS) == {"cache": "on", "problems": "none"}


def test_variables_set_every_flag_that_they_may_and_empty_ones_none():
    environment = {
        "HARNESS_N_SAMPLES": "3",
        "HARNESS_KNOB": "rounds=3 'note=two words'",
        "HARNESS_METHOD": "",
        "HARNESS_BUDGET_USD": "1",
        "N_SAMPLES": "9",
    }
    found = config.from_environment(environment, FLAGS)
    assert found == {"n_samples": "3", "knob": ["rounds=3", "note=two words"]}
    with pytest.raises(UsageError, match="HARNESS_KNOB: cannot be split"):
        config.from_environment({"HARNESS_KNOB": "note='two"}, FLAGS)


def test_sampling_settings_have_their_types():
    given = ["meta.temperature=0.7", "judge.max-tokens=99", 'meta.extra_body={"stop": ["a=b"]}']
    given += ["meta.reasoning_effort=low", "meta.temperature=0.2"]
    assert config.sampling(given) == {
        "meta": {
            "temperature": 0.2,
            "extra_body": {"stop": ["a=b"]},
            "reasoning_effort": "low",
        },
        "judge": {"max_tokens": 99},
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("temperature=1", "--sampling wants role.setting=value"),
        ("meta.temprature=1", "unknown setting 'temprature': did you mean 'temperature'?"),
        ("meta.max_tokens=1.5", "--sampling meta.max_tokens is a whole number in 1 to"),
        ("meta.extra_body=[1]", "--sampling meta.extra_body is a JSON object, not '[1]'"),
        ("meta.extra_body={", "--sampling meta.extra_body is a JSON object, not '{'"),
        ("meta.temperature", "--sampling wants name=value, not 'meta.temperature'"),
    ],
)
def test_a_wrong_sampling_setting_is_named(text, says):
    with pytest.raises(UsageError) as caught:
        config.sampling([text])
    assert says in str(caught.value)


def test_a_flag_goes_before_the_file_and_the_file_before_the_variable(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('limit = 3\nprotocol = "none"\nA = { rounds = 3 }\n')
    told = {
        "HARNESS_LIMIT": "5",
        "HARNESS_PROTOCOL": "split",
        "HARNESS_METHOD": "llm-debate",
        "HARNESS_KNOB": "agents=2 rounds=1",
        "HARNESS_CONFIG": str(path),
    }
    found = planned("--limit", "2", "-A", "rounds=4", **told)
    assert (found["problems"], found["protocol"]) == (2, "none")
    assert found["method"] == "llm-debate"
    assert (found["knobs"]["rounds"], found["knobs"]["agents"]) == (4, 2)
    again = planned("--config", str(path), "-A", "agents=4", "--method", "llm-debate")
    assert (again["knobs"]["rounds"], again["knobs"]["agents"]) == (3, 4)


def test_names_of_other_harnesses_are_understood(tmp_path):
    ours = planned(
        "--method", "llm-debate", "-b", "humaneval", "--problems", "0,1", "-A", "agents=2"
    )
    theirs = planned("--solver", "llm-debate", "--tasks", "humaneval", "--task-id", "0,1",
                     "-S", "agents=2", "--model", "openai/x")  # fmt: skip
    assert theirs == ours


@pytest.mark.parametrize("command", [("eval",), ("score",), ("check", "humaneval"), ("suite", "x")])
def test_an_unknown_key_or_a_bad_value_is_exit_2_and_one_line(tmp_path, command):
    unknown, bad = tmp_path / "unknown.toml", tmp_path / "bad.yaml"
    unknown.write_text("ouut = 'x'\ndata_dirr = 'x'")
    bad.write_text("json: many\n")
    for path, says in ((unknown, "unknown key"), (bad, "json: wants true or false, not 'many'")):
        done = harness(*command, "--config", str(path))
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {path}: ")
        assert says in line


def test_a_bad_value_names_where_it_stood(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('n-samples = "two"')
    done = harness("eval", "--config", str(path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}: Invalid value for '--n-samples'")
    done = harness("eval", HARNESS_SEED="two")
    assert done.returncode == 2
    assert done.stderr.startswith("error: HARNESS_SEED: Invalid value for '--seed'")
    done = harness("eval", "--seed", "three", HARNESS_SEED="two")
    assert done.stderr.startswith("error: Invalid value for '--seed'")


@pytest.fixture
def server():
    """Refuses everybody, and remembers who asked with which key: [(variable's provider, key)]."""
    asked = []

    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.headers.get("Authorization", "").removeprefix("Bearer "))
            body = b'{"error": {"message": "bad key"}}'
            self.send_response(401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}/v1", asked
        running.shutdown()


def test_keys_and_urls_come_from_dotenv_and_nothing_else_does(tmp_path, server):
    url, asked = server
    (tmp_path / ".env").write_text(
        f"export OPENAI_API_KEY='sk-canary-$HOME'\nOPENAI_BASE_URL={url}\nHARNESS_METHOD=magic\n"
    )
    command = ("eval", "--method", "vanilla", "--worker", "openai/x", "--limit", "1")
    flags = ("--out", str(tmp_path / "results"), "--cache-dir", str(tmp_path / "cache"))
    done = harness(*command, *flags, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert set(asked) == {"sk-canary-$HOME"}
    assert "sk-canary" not in done.stderr
    asked.clear()
    done = harness(*command, *flags, cwd=tmp_path, OPENAI_API_KEY="sk-from-the-environment")
    assert done.returncode == 4, done.stderr
    assert set(asked) == {"sk-from-the-environment"}


def test_what_dotenv_holds_does_not_enter_the_environment(tmp_path):
    (tmp_path / ".env").write_text("VLLM_API_KEY=sk-canary\nSECRET=x\n")
    before = dict(os.environ)
    found = config.with_dotenv({"OTHER": "y"}, tmp_path, ["VLLM_API_KEY", "OTHER", "ABSENT"])
    assert found == {"VLLM_API_KEY": "sk-canary", "OTHER": "y"}
    assert dict(os.environ) == before
    (tmp_path / ".env").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"\.env: cannot be read: it is not UTF-8 text"):
        config.with_dotenv({}, tmp_path, ["VLLM_API_KEY"])


def test_a_variable_that_sets_nothing_is_said_once_with_the_one_that_was_meant():
    done = harness("list", "methods", HARNESS_WROKER="sim/", HARNESS_LIMIT="3")
    assert done.returncode == 0
    assert done.stderr == (
        "HARNESS_WROKER sets no flag and is not read: did you mean 'HARNESS_WORKER'?\n"
    )
