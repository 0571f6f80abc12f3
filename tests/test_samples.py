"""Reading what other people exchange: formats, spellings of ids, and errors that name the line."""

import gzip
import json
import tracemalloc

import pytest

from harness.errors import UsageError
from harness.samples import program, read, survey
from harness.types import Assertions, Oracle, Problem, UnitTests

HUMANEVAL = {f"HumanEval/{n}" for n in range(164)}
MBPP = {f"Mbpp/{n}" for n in range(2, 500)}
HARD = {"BigCodeBench/13", "BigCodeBench/15"}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_human_eval_rows_hold_completions_and_several_rows_are_samples(tmp_path):
    rows = [
        {"task_id": "HumanEval/0", "completion": "    return 1\n"},
        {"task_id": "HumanEval/7", "completion": "    return 2\n"},
        {"task_id": "HumanEval/0", "completion": "    return 3\n"},
    ]
    found = list(read(write(tmp_path / "s.jsonl", *rows), HUMANEVAL, "HumanEval"))
    assert [(s.problem_id, s.sample, s.kind) for s in found] == [
        ("HumanEval/0", 0, "completion"),
        ("HumanEval/7", 0, "completion"),
        ("HumanEval/0", 1, "completion"),
    ]
    assert found[2].text == "    return 3\n"


def test_a_solution_counts_before_a_completion_as_in_evalplus(tmp_path):
    path = write(tmp_path / "s", {"task_id": "HumanEval/0", "completion": "a", "solution": "b"})
    (found,) = read(path, HUMANEVAL, "HumanEval")
    assert (found.kind, found.text) == ("solution", "b")
    path = write(tmp_path / "s", {"task_id": "HumanEval/0", "completion": "a", "solution": None})
    (found,) = read(path, HUMANEVAL, "HumanEval")
    assert (found.kind, found.text) == ("completion", "a")


def test_gzip_is_told_by_its_bytes_and_not_by_its_name(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_bytes(gzip.compress(b'\xef\xbb\xbf{"task_id": 0, "solution": "x"}\r\n\r\n'))
    assert [s.problem_id for s in read(path, HUMANEVAL, "HumanEval")] == ["HumanEval/0"]


def test_a_folder_of_evalplus_is_read_in_the_order_of_its_numbers(tmp_path):
    for name, text in (("10", "ten"), ("2", "two"), ("0", "zero")):
        folder = tmp_path / "HumanEval_3"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(text)
    (tmp_path / "eval_results.json").write_text("{}")
    (tmp_path / ".git").mkdir()
    found = list(read(tmp_path, HUMANEVAL, "HumanEval"))
    assert [(s.text, s.sample, s.kind) for s in found] == [
        ("zero", 0, "solution"),
        ("two", 1, "solution"),
        ("ten", 2, "solution"),
    ]
    assert survey(tmp_path, HUMANEVAL, "HumanEval").counts == {"HumanEval/3": 3}


@pytest.mark.parametrize("spelling", [2, "2", "Mbpp/2", "MBPP/2", "mbpp_2", " 2 "])
def test_mbpp_ids_are_taken_in_every_spelling(tmp_path, spelling):
    path = write(tmp_path / "s", {"task_id": spelling, "solution": "x"})
    assert [s.problem_id for s in read(path, MBPP, "Mbpp")] == ["Mbpp/2"]


def test_rows_of_other_suites_of_the_family_are_counted_and_left_out(tmp_path):
    rows = [{"task_id": f"BigCodeBench/{n}", "solution": "x"} for n in (13, 14, 14)]
    path = write(tmp_path / "s", *rows)
    found = survey(path, HARD, "BigCodeBench")
    assert found.counts == {"BigCodeBench/13": 1}
    assert found.left_out == {"BigCodeBench/14": 2}
    assert [s.problem_id for s in read(path, HARD, "BigCodeBench")] == ["BigCodeBench/13"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no samples in it"),
        (b"\n \n", "no samples in it"),
        (b'{"task_id": "HumanEval/0", "solution": "x"}\n{"task_id"\n', ":2: not JSON: "),
        (b'[{"task_id": "HumanEval/0"}]\n', ":1: expected one JSON object a line, found a list"),
        (b'{"solution": "x"}\n', ":1: no task_id"),
        (b'{"task_id": "HumanEval/0"}\n', ":1: neither completion nor solution"),
        (b'{"task_id": "HumanEval/0", "solution": ["x"]}', "solution is a list, not a string; rep"),
        (b'{"task_id": "HumanEval/999", "solution": "x"}', "unknown task_id 'HumanEval/999'"),
        (b'{"task_id": "Mbpp/2", "solution": "x"}', "it looks like --benchmark mbpp"),
        (b'{"task_id": true, "solution": "x"}', "unknown task_id True"),
        (b'{"task_id": null, "solution": "x"}', "unknown task_id None"),
        (b'{"task_id": "HumanEval/0", "solution": "\xff"}', ":1: not UTF-8 at byte 40"),
        (b"[" * 100_000, "not JSON"),
        (b"\x1f\x8b not gzip", "a damaged gzip file"),
        (gzip.compress(b'{"task_id": 0, "solution": "x"}')[:-12], "a damaged gzip file"),
    ],
)
def test_what_is_wrong_is_one_line_with_file_and_line(tmp_path, content, says):
    path = tmp_path / "samples.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        survey(path, HUMANEVAL, "HumanEval")
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nothing\.jsonl: cannot be read: No such file"):
        survey(tmp_path / "nothing.jsonl", HUMANEVAL, "HumanEval")


def test_many_rows_stream(tmp_path):
    path = tmp_path / "s.jsonl"
    line = json.dumps({"task_id": "HumanEval/5", "solution": "x = 1\n" * 50})
    path.write_text((line + "\n") * 20_000)
    tracemalloc.start()
    assert sum(1 for _ in read(path, HUMANEVAL, "HumanEval")) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


STUB = "import os\ndef task_func(a):\n"
BIGCODE = Problem("BigCodeBench/13", "bigcodebench", "text", "task_func", f"{STUB}\n    pass\n", ())
UNIT = Oracle(UnitTests("class TestCases: ...", ("test_a",)), "", 240)


def sample_of(tmp_path, **row):
    path = write(tmp_path / "s", row)
    (found,) = read(path, {row["task_id"]}, row["task_id"].partition("/")[0])
    return found


def test_a_bigcodebench_solution_is_calibrated_once_however_it_comes(tmp_path):
    plain = sample_of(tmp_path, task_id="BigCodeBench/13", solution="def task_func(a): return a")
    problem, _, code = program(plain, BIGCODE, UNIT, stub="")
    assert problem.prelude + code == f"{STUB}\n    pass\ndef task_func(a): return a"
    problem, _, raw = program(plain, BIGCODE, UNIT, stub="", calibrated=False)
    assert problem.prelude + raw == "def task_func(a): return a"
    done = sample_of(tmp_path, task_id="BigCodeBench/13", solution=BIGCODE.prelude + code)
    problem, _, again = program(done, BIGCODE, UNIT, stub="")
    assert problem.prelude + again == BIGCODE.prelude + code


def test_a_whole_program_gets_nothing_of_the_prompt_but_its_tests_do(tmp_path):
    prompt = "from typing import List\ndef helper(): ...\ndef f(x): ...\n"
    problem = Problem("HumanEval/38", "humaneval", prompt, "f", prompt, ())
    oracle = Oracle(Assertions(("check(candidate)",), "def check(candidate): ..."), "", 3)
    whole = sample_of(tmp_path, task_id="HumanEval/38", solution="def f(x): return x")
    alone, tested, code = program(whole, problem, oracle, stub=prompt)
    assert (alone.prelude, code) == ("", "def f(x): return x")
    assert isinstance(tested.tests, Assertions)
    assert tested.tests.setup == f"{prompt}\ndef check(candidate): ..."
    rest = sample_of(tmp_path, task_id="HumanEval/38", completion="    return x")
    alone, _, code = program(rest, problem, oracle, stub=prompt)
    assert (alone.prelude, code) == ("", prompt + "    return x")


def test_ids_without_a_prefix_are_found_as_numbers_and_as_text(tmp_path):
    for spelled in (3, "3"):
        path = write(tmp_path / "s", {"task_id": spelled, "solution": "x"})
        assert [s.problem_id for s in read(path, {"3": None}, "")] == ["3"]
    path = write(tmp_path / "s", {"task_id": 4, "solution": "x"})
    with pytest.raises(UsageError, match=r"unknown task_id 4; ids are like 3$"):
        survey(path, {"3": None}, "")


def test_the_recorded_sets_are_read_whole(shared):
    sizes = {}
    for path in sorted((shared / "parity").glob("*/*.jsonl.gz")):
        prefix = {"humaneval": "HumanEval", "mbpp": "Mbpp"}.get(path.parent.name, "BigCodeBench")
        ids = {f"{prefix}/{n}" for n in range(1200)}
        sizes[path.parent.name] = sizes.get(path.parent.name, 0) + survey(path, ids, prefix).total
    assert sizes == {"bigcodebench": 148, "humaneval": 6 * 164, "mbpp": 2 * 378}
