"""`show` tells a run from its journal alone, and lets no model steer the terminal."""

import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.command import named_run
from harness.errors import StoreError, UsageError
from harness.journal import Journal, segments
from harness.show import list_runs, show_run
from harness.show_sample import call_line
from harness.store import called, find_run

HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold red]not markup[/] \u202e"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "runs" / "20260101-direct")
    head = {"run_id": "20260101-direct", "benchmark": "humaneval", "list": "full",
            "benchmark_digest": "7dce6050a7d6", "protocol": "public", "level": "L2",
            "method": "flow", "knobs": {"rounds": 2}, "n_samples": 1, "seed": 0,
            "roles": {"worker": {"model": "local/small", "sampling": {"temperature": 0.0}}},
            "sandbox": "bubblewrap", "grader_version": "1", "kind": "measured",
            "harness_version": "0.1.0", "commit": "0123456789abcdef", "dirty": True,
            "started_at": 1762000000}  # fmt: skip
    (journal.run_dir / "run.json").write_text(json.dumps(head))
    journal.write("session", event="start", problems=3, samples=3)
    key: dict[str, Any] = {"result_key": "k0", "problem_id": "HumanEval/0", "sample": 0}
    journal.write("call", **key, call_no=1, attempt=1, round=1, role="meta", model="taken over")
    journal.write("round", **key, round=1, parent=None, modification="cut off", score=None)
    journal.close()  # the first try ended here; its replies are taken over, its rounds done again
    journal = Journal(journal.run_dir)
    journal.write("session", event="start", problems=3, samples=3)
    request = {"messages": [{"role": "user", "content": "x" * 5000 + "Double the list."}]}
    journal.write(
        "call", **key, call_no=2, attempt=1, round=1, role="meta", model="local/small",
        request_sha=journal.artifact(json.dumps(request)), response_sha=journal.artifact(HOSTILE),
        prompt_tokens=12, completion_tokens=None, cost_usd=None, latency_s=0.5, finish="length",
    )  # fmt: skip
    journal.write("workflow", **key, round=1, calls=2, operators=["Custom"], error="run: KeyError")
    journal.write("feedback", **key, round=1, passed=1, total=2, verdict="wrong", errors=["f() 3"])
    journal.write(
        "round", **key, round=1, parent=None, modification="add a review", score=0.5,
        workflow_sha=journal.artifact("class Workflow: ..."), error=None,
    )  # fmt: skip
    journal.write("ensemble", **key, round=None, winner=2)
    journal.write(
        "result", **key, verdict="wrong", detail=HOSTILE, calls=1, cost_usd=None, wall_s=2.0,
        solution_sha=journal.artifact("def f(): return 3"),
    )  # fmt: skip
    for number, verdict in ((1, "passed"), (2, "invalid")):
        journal.write("result", result_key=f"k{number}", problem_id=f"HumanEval/{number}",
                      sample=0, verdict=verdict, calls=1, cost_usd=0.5, wall_s=1.0)  # fmt: skip
    journal.write("session", event="end", status="partial")
    journal.close()
    return tmp_path


def shown(results: Path, run_id: str = "20260101-direct", **options: Any) -> str:
    console = Console(file=io.StringIO(), width=160, force_terminal=False)
    show_run(results, run_id, console, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_run_is_told_with_score_interval_and_verdicts(results: Path) -> None:
    text = shown(results)
    assert "humaneval, list full, digest 7dce6050" in text
    assert "flow (rounds=2)" in text
    assert "local/small (temperature 0.0)" in text
    assert "commit 0123456789ab, with uncommitted changes" in text
    assert "partial, 3 of 3 samples" in text
    assert "pass@1 50.0 % (95% interval 9.5 to 90.5), 2 problems, 2 samples; 1 errored" in text
    assert "between 33.3 and 66.7 % were they graded" in text
    assert "1 wrong, 1 passed, 1 invalid" in text
    (line,) = [x for x in text.splitlines() if x.strip().startswith("HumanEval/0")]
    assert "unknown" in line


def test_a_run_in_rounds_tells_what_became_of_each_rounds_workflows(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "runs" / "20260101-direct")
    (journal.run_dir / "run.json").write_text(json.dumps({"run_id": "20260101-direct"}))
    for key, number, score, error, same in (
        ("a", 1, 0.5, None, True),
        ("b", 1, None, None, True),
        ("a", 2, 0.0, "run: KeyError", False),
        ("a", 2, 1.0, None, False),  # the last one holds
        ("b", 2, 0.0, "load: SyntaxError", False),
    ):
        journal.write("round", result_key=key, problem_id=key, sample=0, round=number,
                      score=score, error=error, same_as_template=same)  # fmt: skip
    journal.close()
    lines = [" ".join(line.split()) for line in shown(tmp_path).splitlines()]
    assert "1 50.0 % 50.0 % 2 100 % 0 %" in lines
    assert "2 50.0 % 50.0 % 2 50 % 50 %" in lines


def test_a_problem_is_told_round_by_round(results: Path) -> None:
    text = shown(results, problem="HumanEval/0")
    for part in (
        "round 1 · score 50 %",
        "add a review",
        "class Workflow: ...",
        "run: KeyError",
        "call 1 · meta · taken over",
        "call 2 · meta · local/small · 12 + unknown tokens · 0.5 s · unknown",
        "Double the list.",
        "workflow executed: 2 model calls; operators: Custom",
        "feedback: 1 of 2 passed, wrong",
        "f() 3",
        "stopped by: length",
        'ensemble: {"winner": 2}',
        "def f(): return 3",
        "verdict: wrong",
        "(an earlier, unfinished try is left out, but for its calls)",
    ):
        assert part in text
    assert "cut off" not in text


def test_a_plain_function_gets_the_text_line_by_line(results: Path) -> None:
    lines: list[str] = []
    show_run(results, "20260101-direct", lines.append, problem="HumanEval/0")
    assert "verdict: wrong" in lines


def test_long_texts_are_shortened_with_the_loss_counted(results: Path) -> None:
    short, whole = shown(results, problem="HumanEval/0"), None
    assert "characters before this; --full shows all" in short
    whole = shown(results, problem="HumanEval/0", full=True)
    assert "--full" not in whole
    assert whole.count("x" * 100) > short.count("x" * 100)


def test_a_model_cannot_steer_the_terminal(results: Path) -> None:
    for text in (shown(results), shown(results, problem="HumanEval/0", full=True)):
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
        assert r"\x1b[2J\x1b]0;owned\x07[bold red]not markup[/] \u202e" in text


def test_an_unknown_run_names_the_nearest(results: Path) -> None:
    with pytest.raises(UsageError, match="near it: 20260101-direct"):
        shown(results, "2026010-direct")
    with pytest.raises(UsageError, match="holds none"):
        shown(results / "elsewhere")


def test_one_rule_says_which_run_a_name_means() -> None:
    known = ["humaneval-flow-1111", "humaneval-direct-2222", "mbpp-flow-11"]
    meant = {
        "humaneval-flow-1111": known[:1],
        "mbpp": known[2:],  # a beginning
        "1111": known[:1],  # an end of one, and of no other
        "11": [known[0], known[2]],
        "direct": known[1:2],  # a part
        "-flow-": [known[0], known[2]],
        "humaneval": known[:2],
        "2222": known[1:2],
        "": [],
        "other": [],
    }
    assert {name: called(name, known) for name in meant} == meant
    # the name itself comes before what begins so, an end before a part
    assert called("a", ["ab", "a", "ca"]) == ["a"]
    assert called("b", ["ab", "abc"]) == ["ab"]


def test_a_run_is_found_by_a_part_of_its_name_its_folder_or_as_the_latest(results: Path) -> None:
    folder = results / "runs" / "20260101-direct"
    whole = (results, folder.name)
    for name in ("0101-dir", "2026", "direct", folder.name, "latest"):
        assert named_run(results, name) == whole
    assert named_run(Path("elsewhere"), str(folder)) == whole
    assert named_run(results, "absent") == (results, "absent")  # for whoever takes it to refuse
    assert find_run(results, "0101-dir") == folder
    assert shown(results, "0101-dir") == shown(results)
    with pytest.raises(UsageError, match="near it: 20260101-direct"):
        find_run(results, "0101-dir", exact=True)


def test_a_command_to_paste_holds_names_as_single_words(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "runs" / "odd run; true")
    (journal.run_dir / "run.json").write_text('{"run_id": "odd run; true"}')
    hostile = "a/0; touch /tmp/owned #\x1b[31m $(id) 'x'"
    journal.write("session", event="start", problems=2, samples=2)
    journal.write("result", result_key="a", problem_id=hostile, sample=0, verdict="passed")
    journal.write("session", event="end", status="partial")
    journal.close()
    commands = [x.partition("python -m ")[2] for x in shown(tmp_path, "odd").splitlines()
                if "python -m" in x]  # fmt: skip
    words = [shlex.split(command) for command in commands]
    out = ["--out", str(tmp_path)]
    assert words == [
        ["harness", "resume", "odd run; true", *out],
        ["harness", "show", "odd run; true", "--problem", hostile.replace("\x1b", r"\x1b"), *out],
    ]


def test_a_sample_is_asked_for_with_its_problem(results: Path) -> None:
    with pytest.raises(UsageError, match="--sample is one draw of a problem: add --problem"):
        shown(results, sample=0)


def test_an_unknown_problem_says_how_to_list_them(results: Path) -> None:
    with pytest.raises(UsageError, match=r"show 20260101-direct --out .*` lists its samples"):
        shown(results, problem="HumanEval/9")


def test_a_run_that_was_killed_is_interrupted(results: Path) -> None:
    run_dir = results / "runs" / "20260101-direct"
    journal = Journal(run_dir)
    journal.write("session", event="start", problems=3, samples=3)
    assert "running, 3 of 3" in shown(results)
    journal.close()  # its lock is free, and it did not say how it ended
    assert "interrupted, 3 of 3" in shown(results)


def resumed(results: Path, status: str = "complete", **session: Any) -> None:
    """One more session of the fixture's run, which grades one more sample."""
    journal = Journal(results / "runs" / "20260101-direct")
    journal.write("session", event="start", **session)
    journal.write("result", result_key="k9", problem_id="HumanEval/9", sample=0, verdict="passed")
    journal.write("session", event="end", status=status)
    journal.close()


def test_a_shorter_command_does_not_complete_a_long_run(results: Path) -> None:
    resumed(results, "interrupted", problems=164, samples=164, command="eval -b humaneval")
    resumed(results, problems=1, samples=1, command="eval --problems 9")
    text = shown(results)
    assert "partial, 4 of 164 samples" in text
    assert "command    eval -b humaneval\n" in text


def test_a_run_in_two_sandboxes_says_so_and_is_not_ranked(results: Path) -> None:
    resumed(results, problems=1, samples=1, sandbox="rlimits", commit="f" * 40, dirty=False)
    text = shown(results)
    assert "mixed: bubblewrap, rlimits, grader 1" in text
    assert "[not ranked: sandbox mixed: bubblewrap, rlimits]" in text
    assert f"commit mixed: 0123456789ab, {'f' * 12}, with uncommitted changes" in text


def test_a_first_look_is_no_score(results: Path) -> None:
    path = results / "runs" / "20260101-direct" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"first_look": True}))
    assert "[first look, not a score]" in shown(results)
    assert "[first look, not a score]" in listed(results)


def listed(results: Path) -> str:
    console = Console(file=io.StringIO(), width=160, force_terminal=False)
    list_runs(results, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    "text", ["{", "[]", "[" * 100_000, '{"run_id": "odd", "started_at": "today"}',
             '{"run_id": "odd", "roles": ["worker"]}', "\udcff"],
)  # fmt: skip
def test_one_unreadable_run_json_is_one_line_and_the_others_are_listed(
    results: Path, text: str
) -> None:
    odd = results / "runs" / "odd"
    odd.mkdir()
    (odd / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    first, second = listed(results).splitlines()
    assert first.startswith("20260101-direct  partial 3/3, 1 left  public L2  pass@1 50.0 %")
    assert "odd/run.json: not readable as a run" in second
    with pytest.raises(StoreError, match="not readable as a run"):
        shown(results, "odd")


def test_a_problem_is_found_by_its_number(results: Path) -> None:
    assert shown(results, problem="0") == shown(results, problem="HumanEval/0")
    for wrong in ("12", "HumanEvl/12"):
        with pytest.raises(UsageError, match=f"no record of {wrong}; near it: HumanEval/[12], "):
            shown(results, problem=wrong)
    with pytest.raises(UsageError, match="no sample 3 of 0; it has 0"):
        shown(results, problem="0", sample=3)


def test_a_call_given_up_in_flight_is_shown_as_cancelled(results: Path) -> None:
    journal = Journal(results / "runs" / "20260101-direct")
    journal.write("call", result_key="k0", problem_id="HumanEval/0", sample=0, call_no=3, attempt=1,
                  round=1, role="worker", model="local/small", prompt_tokens=None,
                  completion_tokens=None, cost_usd=None, latency_s=0.5, error="given up in flight",
                  error_kind="cancelled")  # fmt: skip
    journal.close()
    line = "call 3 · worker · local/small · unknown + unknown tokens · 0.5 s · unknown · cancelled"
    assert line in shown(results, problem="HumanEval/0")


def test_a_session_of_other_problems_adds_to_what_was_asked_for(tmp_path: Path) -> None:
    for number in (0, 5):
        ids = [f"HumanEval/{n}" for n in range(number, number + 2)]
        journal = Journal(tmp_path / "runs" / "a")
        (journal.run_dir / "run.json").write_text('{"run_id": "a"}')
        journal.write("session", event="start", problems=2, samples=2, asked=ids, n_samples=1,
                      command=f"eval --problems {number}")  # fmt: skip
        for problem_id in ids:
            journal.write("result", result_key=problem_id, problem_id=problem_id, sample=0,
                          verdict="passed")  # fmt: skip
        journal.write("session", event="end", status="complete")
        journal.close()
    text = shown(tmp_path, "a")
    assert "complete, 4 of 4 samples" in text
    assert "command    eval --problems 5, and others\n" in text


def test_every_command_that_is_named_finds_the_same_results(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"--problem HumanEval/0 --out {results}\n" in shown(results)
    with pytest.raises(UsageError, match=f"show 20260101-direct --out {results}` lists"):
        shown(results, problem="12")
    with pytest.raises(UsageError, match=f"list runs --out {results}` names all"):
        shown(results, "20269999")
    monkeypatch.chdir(results)
    Path("results").symlink_to(results)
    assert "--problem HumanEval/0\n" in shown(Path("results"))


def graded(results: Path, *rows: dict[str, Any]) -> None:
    """A run `parts` whose samples have these fields."""
    journal = Journal(results / "runs" / "parts")
    head = {"run_id": "parts", "protocol": "aflow", "level": "L3", "custom": True,
            "environment": "0123456789ab", "sandbox": "bubblewrap", "grader_version": "1",
            "benchmark": "humaneval+"}  # fmt: skip
    (journal.run_dir / "run.json").write_text(json.dumps(head))
    out = {f"HumanEval/{n}": "needs network" for n in range(100, 112)} | {"HumanEval/38": "no test"}
    asked = [f"HumanEval/{n}" for n in range(len(rows))]
    journal.write("session", event="start", problems=len(rows), samples=len(rows), asked=asked,
                  n_samples=1, left_out=out)  # fmt: skip
    for number, row in enumerate(rows):
        journal.write("result", result_key=f"k{number}", problem_id=asked[number], sample=0, **row)
    journal.write("session", event="end", status="complete")
    journal.close()


def test_the_scores_on_fresh_base_and_plus_tests_stand_beside_pass_at_1(tmp_path: Path) -> None:
    graded(
        tmp_path,
        {"verdict": "passed", "fresh": "passed", "base": "passed", "plus": "passed"},
        {"verdict": "wrong", "fresh": "wrong", "base": "passed", "plus": "wrong"},
        {"verdict": "no_code", "fresh": "no_code", "base": "no_code", "plus": "no_code"},
        {"verdict": "passed", "fresh": None, "base": "passed", "plus": "passed"},
        {"verdict": "invalid", "fresh": None, "base": None, "plus": None},
    )
    text = shown(tmp_path, "parts")
    assert "on hidden tests that no feedback test repeats: pass@1 33.3 %" in text
    assert "3 problems, 3 samples" in text
    assert "on base tests: pass@1 75.0 %" in text
    assert "on plus tests: pass@1 50.0 %" in text
    line = "verdict: wrong (base passed, plus wrong, overlap-free wrong)"
    assert line in shown(tmp_path, "parts", problem="1")


def test_a_run_without_a_fresh_test_says_that_none_is_left(tmp_path: Path) -> None:
    graded(tmp_path, {"verdict": "passed", "fresh": None})
    assert "on hidden tests that no feedback test repeats: none is left" in shown(tmp_path, "parts")


def test_an_older_run_says_nothing_of_fresh_tests(results: Path) -> None:
    assert "no feedback test repeats" not in shown(results)


def test_what_was_left_out_and_where_programs_ran_is_told(tmp_path: Path) -> None:
    graded(tmp_path, {"verdict": "passed"})
    text = shown(tmp_path, "parts")
    first = ", ".join(f"HumanEval/{n}" for n in range(100, 110))
    assert f"left out   13: needs network ({first} and 2 more); no test (HumanEval/38)" in text
    assert "grader 1, environment 0123456789ab" in text
    assert "humaneval+, custom data" in text
    assert "[custom data]" in text
    assert "aflow L3  pass@1 100.0 %" in listed(tmp_path)


def priced(results: Path, *rows: dict[str, Any], status: str = "complete", **end: Any) -> None:
    """A run `priced` of these results, two more than which were asked for unless complete."""
    journal = Journal(results / "runs" / "priced")
    (journal.run_dir / "run.json").write_text(json.dumps({"run_id": "priced"}))
    asked = [f"HumanEval/{n}" for n in range(len(rows) + (0 if status == "complete" else 2))]
    journal.write("session", event="start", problems=len(asked), samples=len(asked), asked=asked,
                  n_samples=1)  # fmt: skip
    for number, row in enumerate(rows):
        shared = {"prompt_tokens": 100, "completion_tokens": 50, "wall_s": 1.0}
        journal.write("result", result_key=f"k{number}", problem_id=asked[number], sample=0,
                      **{"verdict": "passed", **shared, **row})  # fmt: skip
    journal.write("session", event="end", status=status, **end)
    journal.close()


def test_what_was_paid_stands_beside_the_fresh_price(tmp_path: Path) -> None:
    priced(
        tmp_path,
        {"calls": 800, "cached_calls": 700, "cost_usd": 0.1, "fresh_cost_usd": 0.25},
        {"calls": 400, "cached_calls": 112, "cost_usd": 0.02, "fresh_cost_usd": 0.15},
    )
    text = shown(tmp_path, "priced")
    assert "took 1,200 calls, 300 tokens, $0.400" in text
    assert "paid $0.120 of $0.400: 812 of 1,200 calls came from the cache" in text
    (line,) = [x for x in text.splitlines() if x.strip().startswith("HumanEval/0")]
    assert "$0.250" in line


def test_where_nothing_came_from_the_cache_only_the_price_is_told(tmp_path: Path) -> None:
    priced(tmp_path, {"calls": 2, "cost_usd": 0.5}, {"calls": 1, "cost_usd": None})
    text = shown(tmp_path, "priced")
    assert "took 3 calls, 300 tokens, unknown" in text
    assert "cache" not in text


def test_a_call_that_a_kept_reply_answered_says_so_and_its_fresh_price() -> None:
    call = {"call_no": 1, "role": "worker", "model": "m", "latency_s": 1.0, "prompt_tokens": 1,
            "completion_tokens": 2, "cost_usd": 0.0}  # fmt: skip
    kept = call_line(call | {"cached": True, "fresh_cost_usd": 0.5})
    assert kept.endswith("1 + 2 tokens · 1.0 s · $0.500 · from the cache")
    assert call_line(call).endswith("1.0 s · $0.00")


def test_what_errored_is_told_by_kind_and_what_is_left_with_the_command_to_go_on(
    tmp_path: Path,
) -> None:
    invalid = {"verdict": "invalid", "calls": 1, "cost_usd": 0.0}
    priced(
        tmp_path,
        {"calls": 1, "cost_usd": 0.0},
        {**invalid, "error_kind": "sandbox"},
        {**invalid, "error_kind": "rate_limited"},
        {**invalid, "error_kind": "rate_limited"},
        status="budget",
    )
    text = shown(tmp_path, "priced")
    assert "errors: 2 rate_limited, 1 sandbox" in text
    assert "between 25.0 and 100.0 % were they graded" in text
    assert "budget, 4 of 6 samples, 5 left" in text
    assert f"python -m harness resume priced --out {tmp_path}" in text
    assert listed(tmp_path).startswith("priced  budget 4/6, 5 left")


def test_a_complete_run_is_held_against_its_forecast(tmp_path: Path) -> None:
    told = {"calls": {"worker": [1, 4]}, "tokens": [100.0, 1200.0], "usd": [0.0, 0.0],
            "minutes": None, "detectable_difference": None, "basis": "typical calls"}  # fmt: skip
    priced(tmp_path, {"calls": 2, "cost_usd": 0.0}, forecast=told)
    text = shown(tmp_path, "priced")
    assert "predicted 1 to 4 calls, 100 to 1.2k tokens; took 2, 150" in text
    priced(tmp_path, {"calls": 2, "cost_usd": 0.0}, forecast={"of": "a newer harness"})
    assert "predicted" not in shown(tmp_path, "priced")


def test_a_run_with_a_simulated_role_says_so_whatever_its_kind(results: Path) -> None:
    path = results / "runs" / "20260101-direct" / "run.json"
    head = json.loads(path.read_text())
    head["roles"]["judge"] = {"model": "sim/skill=1"}
    path.write_text(json.dumps(head))
    assert "[simulated: says nothing about a model]" in shown(results)


WORKER = {"worker": {"model": "local/small"}}
SHARED = {"benchmark": "humaneval", "benchmark_digest": "7dce", "list": "full",
          "protocol": "public", "grader_version": "1", "roles": WORKER}  # fmt: skip


def in_rounds(
    results: Path, run_id: str, samples: dict[str, list[tuple[float, str, int]]], **head: Any
) -> None:
    """A run in rounds: (feedback score, hidden verdict, calls) of each, by problem."""
    journal = Journal(results / "runs" / run_id)
    (journal.run_dir / "run.json").write_text(json.dumps(SHARED | {"run_id": run_id} | head))
    for problem_id, rounds in samples.items():
        key = {"result_key": problem_id, "problem_id": problem_id, "sample": 0}
        for number, (score, verdict, calls) in enumerate(rounds, 1):
            for _ in range(calls):
                journal.write("call", **key, round=number, role="worker", error=None)
            code = journal.artifact(f"program {number}")
            journal.write("round", **key, round=number, score=score, scores=[score], error=None,
                          code_sha=code)  # fmt: skip
            journal.write("hidden", **key, round=number, code_sha=code, verdict=verdict)
        journal.write("result", **key, verdict=rounds[-1][1], calls=1, cost_usd=0.0, wall_s=1.0)
    journal.close()


def rounds_table(results: Path, run_id: str) -> list[str]:
    lines = [" ".join(line.split()) for line in shown(results, run_id).splitlines()]
    return lines[lines.index("rounds") :]


FLOW = {"a/0": [(0.0, "wrong", 1), (1.0, "wrong", 5)], "a/1": [(1.0, "passed", 1)] * 2}
DRAWS = {f"a/{n}": [(0.0, "wrong", 1), (1.0, "passed", 1), (0.0, "wrong", 9)] for n in range(3)}


def test_feedback_and_hidden_score_stand_round_by_round_beside_best_of_n(tmp_path: Path) -> None:
    in_rounds(tmp_path, "flow", FLOW, method="flow")
    lines = rounds_table(tmp_path, "flow")
    names = "round all hidden gap all feedback feedback best so far calls samples"
    assert names in " ".join(lines)
    assert "1 50.0 % 0.0 50.0 % 50.0 % 50.0 % 1 2" in lines
    assert "2 50.0 % +50.0 100.0 % 100.0 % 100.0 % 4 2" in lines
    assert "best-of-n at equal calls: no such run on these problems with this worker, here" in lines
    in_rounds(tmp_path, "draws", DRAWS, method="best-of-n", config={"knobs": {"n": 3}})
    lines = rounds_table(tmp_path, "flow")
    assert "1 50.0 % 0.0 0.0 % at 1 50.0 % 50.0 % 50.0 % 1 2" in lines
    assert "2 50.0 % +50.0 100.0 % at 2 100.0 % 100.0 % 100.0 % 4 2" in lines
    told = "best-of-n: all hidden of best-of-n n=3 (draws), where a sample takes no more than here"
    assert told in lines
    assert "0.0 % at" not in " ".join(rounds_table(tmp_path, "draws"))


@pytest.mark.parametrize(
    "head",
    [{"roles": {"worker": {"model": "local/other"}}}, {"protocol": "split"}, {"list": "paper"},
     {"grader_version": "2"}, {"method": "best-of-none"}, {"stage": "fit"}],
)  # fmt: skip
def test_best_of_n_is_set_beside_a_run_that_it_may_be_compared_with_only(
    tmp_path: Path, head: dict[str, Any]
) -> None:
    in_rounds(tmp_path, "flow", FLOW, method="flow")
    in_rounds(tmp_path, "draws", DRAWS, **{"method": "best-of-n"} | head)
    assert "no such run" in shown(tmp_path, "flow")
    in_rounds(tmp_path, "fewer", {"a/0": DRAWS["a/0"]}, method="best-of-n")
    assert "no such run" in shown(tmp_path, "flow")
    in_rounds(tmp_path, "short", {n: r[:1] for n, r in DRAWS.items()}, method="best-of-n")
    assert "all hidden of best-of-n (short)" in shown(tmp_path, "flow")
    in_rounds(tmp_path, "long", DRAWS, method="best-of-n")
    assert "all hidden of best-of-n (long)" in shown(tmp_path, "flow")


def test_a_run_without_hidden_verdicts_has_no_column_of_them(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "runs" / "old")
    (journal.run_dir / "run.json").write_text('{"run_id": "old"}')
    journal.write("round", result_key="a", problem_id="a", sample=0, round=1, score=1.0)
    journal.close()
    text = shown(tmp_path, "old")
    assert "best so far" in text
    assert not any(word in text for word in ("hidden", "gap", "best-of-n", "calls  "))


GRAPH = (
    "class Workflow:\n"
    "    async def __call__(self, problem, entry_point):\n"
    "        s = await self.custom_code_generate(problem=problem, model='big')\n"
    "        return await self.test(solution=s), 0\n"
)


def test_a_problems_workflows_are_drawn_with_the_tree_of_their_rounds(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "runs" / "flow")
    (journal.run_dir / "run.json").write_text('{"run_id": "flow"}')
    key: dict[str, Any] = {"result_key": "k", "problem_id": "a/0", "sample": 0}
    for number, parent, code, error in (
        (1, None, GRAPH, None),
        (2, 1, "class Workflow(:", f"load: SyntaxError {HOSTILE}"),
        (3, 1, GRAPH.replace("big", HOSTILE.replace("\x1b", "\\x1b").replace("\x07", "")), None),
    ):
        sha = journal.artifact(code)
        journal.write("round", **key, round=number, parent=parent, modification=HOSTILE,
                      score=number / 3, error=error, workflow_sha=sha)  # fmt: skip
    journal.write("result", result_key="l", problem_id="a/1", sample=0, verdict="passed")
    journal.close()
    text = shown(tmp_path, "flow", problem="a/0", workflow=True)
    assert "├─ 2 66.7 % failed: load: SyntaxError" in text
    assert "└─ 3 * 100.0 %" in text
    assert "1 custom_code_generate (model=big)\n      2 test <- 1\n      return <- 2" in text
    assert "not drawn: SyntaxError" in text
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    with pytest.raises(UsageError, match="a/1 has no workflow of its own to draw"):
        shown(tmp_path, "flow", problem="a/1", workflow=True)
    with pytest.raises(UsageError, match="--workflow draws one problem's workflows: add --problem"):
        shown(tmp_path, "flow", workflow=True)


def searched(results: Path, *, ended: str | None = "complete") -> None:
    """A search `fit-a` of three rounds, and a row `row` that rests on it."""
    journal = Journal(results / "runs" / "fit-a")
    head = SHARED | {"run_id": "fit-a", "stage": "fit", "method": "aflow", "list": "search"}
    (journal.run_dir / "run.json").write_text(json.dumps(head))
    journal.write("session", event="start", problems=2, samples=2)
    desk: dict[str, Any] = {"result_key": "desk", "problem_id": "search", "sample": 0}
    call: dict[str, Any] = {"attempt": 1, "error": None, "prompt_tokens": 300, "cost_usd": 0.25,
                            "completion_tokens": 200, "fresh_cost_usd": 0.25,
                            "latency_s": 1.0}  # fmt: skip
    for number, parent, score, error in ((1, None, 0.5, None), (2, 1, 1.0, None),
                                         (3, 1, 0.0, f"load: {HOSTILE}")):  # fmt: skip
        journal.write("call", **desk, **call, call_no=number, role="meta", model="big",
                      round=number)  # fmt: skip
        for problem in ("a/8", "a/9"):
            key = {"result_key": f"{problem}:{number}", "problem_id": problem, "sample": number * 7}
            journal.write("call", **key, **call, call_no=1, role="worker", model="local/small",
                          round=number)  # fmt: skip
            passed = number == 2 or (number, problem) == (1, "a/8")
            journal.write("trial", **key, label=f"round {number}, run 1", round=number,
                          passed=passed, share=float(passed), detail="" if passed else HOSTILE,
                          code_sha=journal.artifact(f"program of {key['result_key']}"), calls=1,
                          tokens=500, usd=0.25, wall_s=1.0, facts={})  # fmt: skip
        journal.write("node", **desk, round=number, number=number, parent=parent, label=HOSTILE,
                      score=score, low=None, high=None, error=error,
                      workflow_sha=journal.artifact(GRAPH))  # fmt: skip
        journal.write("step", **desk, round=number, number=number, loss=1 / number, name="x")
    if ended:
        journal.write("session", event="end", status=ended)
    journal.close()
    spent = {"calls": 9, "tokens": 4500, "cost_usd": 2.0, "fresh_cost_usd": 2.25, "wall_s": 61.0}
    artifact = {"run": "fit-a", "file": None, "digest": "d", "list_digest": "l", "problems": 2,
                "spent": spent}  # fmt: skip
    solved = {"a/1": [(1.0, "passed", 1)]}
    in_rounds(results, "row", solved, method="aflow", artifact=artifact)


def test_a_search_is_told_with_its_tree_its_attempts_its_steps_and_its_cost(tmp_path: Path) -> None:
    searched(tmp_path)
    text = shown(tmp_path, "fit-a")
    for part in (
        "status     complete, after",
        "best 2: 100.0 %",
        "6 attempts at 2 problems, 50.0 % passed all tests",
        "took 9 calls, 4,500 tokens, $2.25",
        "1 50.0 %",
        "├─ 2 * 100.0 %",
        "└─ 3 0.0 % failed: load:",
        f"python -m harness show fit-a --problem a/8 --out {tmp_path}",
    ):
        assert part in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[lines.index("steps") + 2] == "number loss"
    assert "3 0.3333" in lines
    assert "pass@1" not in text
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert "1 custom_code_generate (model=big)" not in text
    assert shown(tmp_path, "fit-a", workflow=True).count("1 custom_code_generate (model=big)") == 1
    drawn = shown(tmp_path, "fit-a", workflow=True, full=True)
    assert drawn.count("1 custom_code_generate (model=big)") == 3


def test_a_searchs_attempts_at_a_problem_are_told_one_by_one(tmp_path: Path) -> None:
    searched(tmp_path)
    text = shown(tmp_path, "fit-a", problem="9")
    assert "a/9, round 1, run 1: \\x1b[2J" in text
    assert "a/9, round 2, run 1: passed" in text
    assert text.count("call 1 · worker · local/small") == 3
    desk = shown(tmp_path, "fit-a", problem="search")
    assert "search: calls of the search itself" in desk
    assert desk.count("· meta · big ·") == 3


def test_a_row_names_the_search_behind_it_and_what_it_took(tmp_path: Path) -> None:
    searched(tmp_path)
    text = shown(tmp_path, "row")
    assert "search     fit-a, on 2 problems: took 9 calls, 4,500 tokens, $2.25, 1 min 1 s" in text
    assert "took 1 call, " in text  # of the row itself: the search is not in it
    assert "1 custom_code_generate (model=big)" in shown(tmp_path, "row", workflow=True)
    (tmp_path / "runs" / "fit-a").rename(tmp_path / "runs" / "fit-b")
    with pytest.raises(UsageError, match=r"row: its search, fit-a, is not under .*runs"):
        shown(tmp_path, "row", workflow=True)


def test_a_search_is_listed_as_one_and_a_killed_one_is_interrupted(tmp_path: Path) -> None:
    searched(tmp_path)
    lines = listed(tmp_path).splitlines()
    assert lines[0].startswith("fit-a  complete  search: 6 attempts at 2 problems")
    assert "best 2: 100.0 %" in lines[0]
    assert "simulated" not in lines[0]
    assert "pass@1" not in lines[0]
    searched(tmp_path / "other", ended=None)
    assert listed(tmp_path / "other").startswith("fit-a  interrupted  search:")


def test_a_simulated_search_says_so(tmp_path: Path) -> None:
    searched(tmp_path)
    path = tmp_path / "runs" / "fit-a" / "run.json"
    head = json.loads(path.read_text()) | {"roles": {"worker": {"model": "sim/skill=1"}}}
    path.write_text(json.dumps(head))
    assert "[simulated: says nothing about a model]" in listed(tmp_path).splitlines()[0]
    assert "[simulated: says nothing about a model]" in shown(tmp_path, "fit-a")


def test_a_long_curve_is_told_by_twenty_of_its_steps(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "runs" / "fit-a")
    (journal.run_dir / "run.json").write_text('{"run_id": "fit-a", "stage": "fit"}')
    for number in range(1, 346):
        journal.write("step", result_key="d", problem_id="search", sample=0, number=number,
                      utility=float(number))  # fmt: skip
    journal.close()
    lines = [x.split() for x in shown(tmp_path, "fit-a").splitlines() if x.strip()[:1].isdigit()]
    assert [lines[0], lines[-1], len(lines)] == [["1", "1"], ["345", "345"], 20]


def test_a_call_of_a_node_says_which_operator_made_it() -> None:
    call = {"call_no": 1, "role": "worker", "model": "m", "operator": "custom",
            "output_format": "json\x1b", "latency_s": 1.0}  # fmt: skip
    assert call_line(call).startswith("call 1 · worker · m · custom as json\\x1b · unknown")


def test_further_final_runs_stand_beside_the_verdict(tmp_path: Path) -> None:
    graded(
        tmp_path,
        {"verdict": "passed", "reruns": ["wrong", "passed"]},
        {"verdict": "wrong", "reruns": ["wrong", "passed"]},
    )
    assert "over all final runs: pass@1 50.0 %" in shown(tmp_path, "parts")
    assert "verdict: passed (run again: wrong, passed)" in shown(tmp_path, "parts", problem="0")


def test_an_interrupted_search_tells_how_long_it_worked_and_how_to_go_on(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "fit-a"
    run_dir.mkdir(parents=True)
    (run_dir / "run.json").write_text('{"run_id": "fit-a", "stage": "fit"}')
    records: list[dict[str, Any]] = [
        {"kind": "session", "event": "start", "at": 100.0},
        {"kind": "step", "at": 107.0, "result_key": "d", "problem_id": "s", "sample": 0},
        {"kind": "session", "event": "start", "at": 500.0},  # the one before was killed
        {"kind": "step", "at": 505.0, "result_key": "d", "problem_id": "s", "sample": 0},
    ]
    write_segment(run_dir, records)
    text = shown(tmp_path, "fit-a")
    assert "status     interrupted, after 12.0 s" in text
    assert f"go on      python -m harness resume fit-a --out {tmp_path}\n" in text
    write_segment(run_dir, [{"kind": "session", "event": "start", "at": 600.0},
                            {"kind": "session", "event": "end", "status": "complete",
                             "at": 601.0}])  # fmt: skip
    text = shown(tmp_path, "fit-a")
    assert "status     complete, after 13.0 s" in text
    assert "go on" not in text


def write_segment(run_dir: Path, records: list[dict[str, Any]]) -> None:
    """A process's part of a journal, with times of one's own."""
    journal = Journal(run_dir)
    journal.close()
    last = segments(run_dir)[-1]
    last.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_an_attempt_of_a_search_is_not_told_to_lack_a_verdict(tmp_path: Path) -> None:
    searched(tmp_path)
    assert "no verdict yet" not in shown(tmp_path, "fit-a", problem="9")


def test_a_search_of_workflows_for_single_problems_claims_no_best(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "runs" / "fit-s")
    (journal.run_dir / "run.json").write_text('{"run_id": "fit-s", "stage": "fit"}')
    for number, problem in enumerate(("a/0", "a/1")):
        journal.write("node", result_key="desk", problem_id="search", sample=0, number=number,
                      label="w", score=float(number), about=problem,
                      workflow_sha=journal.artifact(GRAPH))  # fmt: skip
    journal.close()
    for text in (shown(tmp_path, "fit-s"), listed(tmp_path)):
        assert "workflows of single problems" in text
        assert "best 1" not in text
    assert "--full draws each" in shown(tmp_path, "fit-s", workflow=True)
    drawn = shown(tmp_path, "fit-s", workflow=True, full=True)
    assert drawn.count("1 custom_code_generate (model=big)") == 2


def test_a_list_of_runs_tells_knobs_and_what_a_search_took(tmp_path: Path) -> None:
    searched(tmp_path)
    path = tmp_path / "runs" / "row" / "run.json"
    head = json.loads(path.read_text()) | {"config": {"knobs": {"rounds": "3"}}}
    path.write_text(json.dumps(head))
    search, row = sorted(listed(tmp_path).splitlines())
    assert search.endswith("took 9 calls, 4,500 tokens, $2.25")
    assert row.startswith("row  aflow rounds=3  ")
    assert row.endswith("search before it: $2.25")
    head["artifact"]["spent"] = {"calls": 9, "tokens": None, "fresh_cost_usd": None}
    path.write_text(json.dumps(head))
    assert listed(tmp_path).splitlines()[-1].endswith("search before it: 9 calls, price unknown")


def test_rounds_of_other_problems_are_said_to_be_so(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "runs" / "shuffled")
    (journal.run_dir / "run.json").write_text('{"run_id": "shuffled"}')
    journal.write("round", result_key="a", problem_id="a/0", sample=0, round=1, score=1.0)
    journal.close()
    assert "of other problems" not in shown(tmp_path, "shuffled")
    journal = Journal(tmp_path / "runs" / "shuffled")
    journal.write("round", result_key="a", problem_id="a/0", sample=0, round=1, score=1.0,
                  about="a/3")  # fmt: skip
    journal.close()
    assert "these rounds are of other problems" in shown(tmp_path, "shuffled")


def test_one_of_a_thing_is_no_several(tmp_path: Path) -> None:
    in_rounds(tmp_path, "row", {"a/1": [(1.0, "passed", 1)]}, method="flow")
    text = shown(tmp_path, "row")
    assert "1 problem, 1 sample" in text
    assert "took 1 call, " in text
