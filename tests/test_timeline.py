"""A sample's records become stages with their calls, their bill, and the line that failed."""

from typing import Any

import pytest

from harness.errors import WorkflowError
from harness.extract import strip_reasoning
from harness.store import Trajectory, trajectory
from leaderboard.timeline import (
    Call,
    Execution,
    Feedback,
    Note,
    Timeline,
    failed_line,
    numbered,
    split_reasoning,
    timeline,
)


class Records:
    """Records of a sample, each a second after the one before."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.segment, self.calls = 1, 0

    def add(self, kind: str, **fields: Any) -> None:
        record = {"kind": kind, "at": float(len(self.rows)), "segment": self.segment, **fields}
        self.rows.append((self.segment, record))

    def call(self, **fields: Any) -> None:
        self.calls += 1
        told = {"call_no": self.calls, "attempt": 1, "role": "worker", "model": "m",
                "prompt_tokens": 10, "completion_tokens": 5, "cost_usd": 0.25,
                "fresh_cost_usd": 0.5, "latency_s": 2.0, "cached": False,
                "error": None}  # fmt: skip
        self.add("call", **{**told, **fields})

    def read(self) -> Timeline:
        return timeline(self.found())

    def found(self) -> Trajectory:
        return trajectory("run", "a/0", 0, self.rows)


def rounds_of_two() -> Records:
    """A search of two rounds: the template, then a workflow that fails at its line 6."""
    made = Records()
    made.call(round=1, operator="custom_code_generate")
    made.add("workflow", round=1, calls=1, operators=["custom_code_generate"])
    made.add("feedback", round=1, passed=1, total=2, verdict="wrong", errors=["assert f() == 1"])
    made.add("round", round=1, score=0.5, scores=[0.5], code_sha="program-1", workflow_sha="w1")
    made.call(round=2, role="meta", response_sha="reply-2", cached=True, cost_usd=0.0)
    made.add("workflow", round=2, calls=0, operators=[], error="run: TypeError: no (line 6)")
    made.add("round", round=2, parent=1, score=0.0, scores=[0.0], reply_sha="reply-2",
             workflow_sha="w2", error="run: TypeError: no (line 6)")  # fmt: skip
    made.add("hidden", round=1, verdict="passed")
    made.add("result", verdict="passed", solution_sha="program-1")
    return made


def test_a_search_is_told_round_by_round_with_what_each_took() -> None:
    line = rounds_of_two().read()
    first, second = line.stages
    assert [(s.place, s.number, s.score, s.hidden, s.chosen) for s in line.stages] == [
        ("round", 1, 0.5, "passed", True), ("round", 2, 0.0, None, False),
    ]  # fmt: skip
    assert [type(event) for event in first.events] == [Execution, Feedback]
    (execution, feedback) = first.events
    assert isinstance(execution, Execution)
    assert [step.operator for step in execution.steps] == ["custom_code_generate"]
    assert [call.number for call in execution.calls] == [1]
    assert isinstance(feedback, Feedback)
    assert (feedback.passed, feedback.errors, feedback.inside) == (1, ("assert f() == 1",), False)
    assert (second.spent.calls, second.spent.tokens, second.spent.cached) == (1, 15, 1)
    assert (second.total.calls, second.total.tokens) == (2, 30)
    assert (second.total.fresh_cost_usd, second.total.cost_usd, second.total.model_s) == (
        1.0, 0.25, 4.0,
    )  # fmt: skip
    assert line.spent == second.total
    assert (second.errors, second.lines) == (("run: TypeError: no (line 6)",), (6,))
    assert [call.wrote for call in second.calls] == [True]
    assert line.decisive == {0, 1}


def test_a_sum_with_an_unknown_part_is_unknown_from_there_on() -> None:
    made = Records()
    made.call(round=1)
    made.add("round", round=1, score=1.0)
    made.call(round=2, fresh_cost_usd=None, cost_usd=None, completion_tokens=None)
    made.add("round", round=2, score=1.0)
    made.call(round=3)
    made.add("round", round=3, score=1.0)
    stages = made.read().stages
    assert [s.spent.fresh_cost_usd for s in stages] == [0.5, None, 0.5]
    assert [s.total.fresh_cost_usd for s in stages] == [0.5, None, None]
    assert [s.total.tokens for s in stages] == [15, None, None]
    assert [s.total.prompt_tokens for s in stages] == [10, 20, 30]
    assert [s.total.model_s for s in stages] == [2.0, 4.0, 6.0]


def test_a_failed_attempt_is_counted_and_adds_to_no_sum() -> None:
    made = Records()
    made.call(attempt=1, error="server error 500", error_kind="provider", prompt_tokens=None,
              completion_tokens=None, fresh_cost_usd=None, cost_usd=None)  # fmt: skip
    made.call(call_no=1, attempt=2)
    spent = made.read().spent
    assert (spent.calls, spent.failed, spent.tokens, spent.fresh_cost_usd) == (1, 1, 15, 0.5)


def test_operators_stand_in_their_order_with_the_calls_that_they_made() -> None:
    made = Records()
    made.call(round=1, operator="generate")
    made.call(round=1, operator="test")
    made.add("feedback", round=1, passed=0, total=1)  # asked for by `test`
    made.call(round=1, operator="test")
    made.call(round=1, operator="generate")
    made.add("workflow", round=1, calls=4, operators=["generate", "test", "format", "generate"])
    made.add("feedback", round=1, passed=1, total=1)
    (execution, feedback) = made.read().stages[0].events
    assert isinstance(execution, Execution)
    assert isinstance(feedback, Feedback)
    told = [(step.operator, [c.number for c in step.calls]) for step in execution.steps]
    assert told == [("generate", [1]), ("test", [2, 3]), ("format", []), ("generate", [4])]
    assert [told.passed for told in execution.feedback] == [0]
    assert execution.feedback[0].inside
    assert execution.spent.fresh_cost_usd == 2.0
    assert (feedback.passed, feedback.inside) == (1, False)


def test_steps_that_share_their_calls_say_so() -> None:
    made = Records()
    for _ in range(3):
        made.call(round=1, operator="test")
    made.add("workflow", round=1, calls=3, operators=["test", "test"])
    (execution,) = made.read().stages[0].events
    assert isinstance(execution, Execution)
    assert [(len(step.calls), step.several) for step in execution.steps] == [(3, 2), (0, 2)]
    assert execution.spent.calls == 3


def test_calls_that_are_not_known_to_be_an_executions_own_stand_beside_it() -> None:
    made = Records()
    made.call(round=1, operator="generate")
    made.call(round=1, operator="generate")  # of another execution, at the same time
    made.add("workflow", round=1, calls=1, operators=["generate"])
    made.add("workflow", round=1, calls=1, operators=["generate"])
    events = made.read().stages[0].events
    assert [type(event) for event in events] == [Call, Call, Execution, Execution]
    assert [event.known for event in events if isinstance(event, Execution)] == [False, False]
    assert made.read().spent.calls == 2


def test_several_executions_of_a_round_keep_their_own_calls() -> None:
    made = Records()
    for number in (1, 2, 3):
        made.call(round=1, operator="generate")
        made.add("workflow", round=1, calls=1, operators=["generate"])
        made.add("feedback", round=1, passed=number, total=3)
    made.add("round", round=1, score=2 / 3, scores=[1 / 3, 2 / 3, 1.0])
    events = made.read().stages[0].events
    runs = [event for event in events if isinstance(event, Execution)]
    assert [[call.number for call in run.calls] for run in runs] == [[1], [2], [3]]
    assert [run.feedback for run in runs] == [(), (), ()]
    assert [type(event).__name__ for event in events] == ["Execution", "Feedback"] * 3


def test_a_method_without_rounds_has_one_stage_in_order() -> None:
    made = Records()
    made.add("architecture", layers=[["Generate"]])
    made.call()
    made.add("feedback", passed=1, total=2)
    made.call()
    made.add("ensemble", winner=1, plan_sha="plan")
    line = made.read()
    (stage,) = line.stages
    assert (stage.place, stage.number) == ("alone", None)
    kinds = [event.kind if isinstance(event, Note) else type(event).__name__
             for event in stage.events]  # fmt: skip
    assert kinds == ["architecture", "Call", "Feedback", "Call", "ensemble"]
    note = stage.events[-1]
    assert isinstance(note, Note)
    assert (note.fields, note.texts) == ({"winner": 1}, (("plan", "plan"),))
    assert line.decisive == {0}


def test_what_lies_outside_of_rounds_comes_before_or_after_them() -> None:
    made = Records()
    made.call(role="meta")
    made.call(round=1)
    made.add("round", round=1, score=1.0)
    made.add("chosen", round=1, final="rerun")
    made.call(operator="generate")
    made.add("workflow", calls=1, operators=["generate"])
    line = made.read()
    assert [(s.place, s.number) for s in line.stages] == [
        ("before", None), ("round", 1), ("after", None),
    ]  # fmt: skip
    assert [s.chosen for s in line.stages] == [False, True, False]
    assert [type(event) for event in line.stages[2].events] == [Note, Execution]


def test_draws_that_end_out_of_order_stand_by_their_number() -> None:
    made = Records()
    for number in (2, 1, 3):
        made.call(round=number)
    for number, code in ((3, "same"), (1, "other"), (2, "same")):
        made.add("round", round=number, score=1.0, scores=[1.0], code_sha=code)
    made.add("result", verdict="passed", solution_sha="same")
    line = made.read()
    assert [s.number for s in line.stages] == [1, 2, 3]
    assert [s.chosen for s in line.stages] == [False, True, False]  # the earliest of equals
    assert [s.spent.calls for s in line.stages] == [1, 1, 1]
    assert [s.total.calls for s in line.stages] == [1, 2, 3]


def test_a_sample_that_is_not_done_opens_at_its_last_stage() -> None:
    made = rounds_of_two()
    made.rows = [row for row in made.rows if row[1]["kind"] not in ("result", "hidden")]
    made.call(round=3, role="meta", error="given up in flight", error_kind="cancelled")
    line = made.read()
    assert line.result is None
    assert line.decisive == {1, 2}  # the failed one, and where it stopped
    assert (line.stages[2].spent.calls, line.stages[2].spent.failed) == (0, 1)


def test_many_failed_rounds_do_not_all_open() -> None:
    made = Records()
    for number in range(1, 8):
        made.add("round", round=number, score=0.0, error="load: SyntaxError: no (line 1)")
    made.add("round", round=8, score=1.0, code_sha="it")
    made.add("result", verdict="passed", solution_sha="it")
    assert made.read().decisive == {0, 7}


def test_an_earlier_try_leaves_its_calls_and_says_so() -> None:
    made = Records()
    made.call(round=1, operator="generate")
    made.add("round", round=1, score=0.0)
    made.segment = 2
    made.add("workflow", round=1, calls=1, operators=["generate"])
    made.add("round", round=1, score=1.0)
    line = made.read()
    assert line.earlier == 1
    (execution,) = line.stages[0].events
    assert isinstance(execution, Execution)
    assert [(call.number, call.earlier) for call in execution.calls] == [(1, True)]
    assert line.stages[0].score == 1.0


def test_a_call_at_another_problem_names_it() -> None:
    made = Records()
    made.call(round=1, about="a/9")
    made.add("round", round=1, score=1.0, about="a/9")
    (stage,) = made.read().stages
    assert [call.about for call in stage.calls] == ["a/9"]
    assert stage.design is not None
    assert stage.design.about == "a/9"


def test_an_attempt_of_a_search_ends_in_its_trial() -> None:
    made = Records()
    made.call(round=4)
    made.add("trial", round=4, label="round 4, run 1", passed=False, detail="assert 1 == 2")
    line = made.read()
    assert line.trial is not None
    assert line.trial["label"] == "round 4, run 1"
    assert [(s.place, s.number, len(s.events)) for s in line.stages] == [("round", 4, 1)]


def test_records_of_any_shape_are_read() -> None:
    made = Records()
    made.add("workflow", round=1, calls=None, operators={"not": "a list"}, error=None)
    made.add("feedback", round=1, errors="no list either")
    made.add("round", round=1, scores=["x", True, 0.5], score=None)
    made.add("odd", **{"a": None, "b_sha": 3, "c": [1]})
    line = made.read()
    execution, feedback = line.stages[0].events
    assert isinstance(execution, Execution)
    assert [step.operator for step in execution.steps] == ['{"not": "a list"}']
    assert isinstance(feedback, Feedback)
    assert feedback.errors == ("no list either",)
    assert line.stages[0].design is not None
    assert line.stages[0].design.scores == (0.5,)
    note = line.stages[1].events[0]
    assert isinstance(note, Note)
    assert note.fields == {"c": [1]}


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (str(WorkflowError("run", "TypeError", "unsupported operand", 6)), 6),
        (str(WorkflowError("load", "SyntaxError", "bad (line 3)", 12)), 12),
        (str(WorkflowError("limit", "TimeLimit", "more than 20 s")), None),
        ("run: X: (line 5) and more", None),
        ("run: X: y (line 0)", None),
        (None, None),
    ],
)
def test_the_failed_line_is_the_one_that_a_workflows_error_ends_with(
    error: str | None, line: int | None
) -> None:
    assert failed_line(error) == line


def test_lines_are_counted_as_python_counts_them() -> None:
    code = "a = 1\r\nb = '\x0c\u2028'\rc = 3\nd = 4"
    assert numbered(code, 3, around=1) == "  2  b = '\x0c\u2028'\n→ 3  c = 3\n  4  d = 4"
    assert numbered(code, 5) is None
    assert numbered(code, 0) is None


@pytest.mark.parametrize(
    ("reply", "reasoning"),
    [
        ("<think>I weigh it.</think>\nAnswer", "I weigh it."),
        ("no opening tag</think>Answer", "no opening tag"),
        ("<think>one</think>A<reasoning>two</reasoning>B", "one\n\ntwo"),
        ("<think>outer <think>inner</think> rest", "outer <think>inner"),
        ("plain", ""),
        ("<think>never closed", ""),
        ("a</think>b</think>c", "ab"),
    ],
)
def test_reasoning_is_apart_and_the_rest_is_what_extraction_reads(
    reply: str, reasoning: str
) -> None:
    found, rest = split_reasoning(reply)
    assert found == reasoning
    assert rest == strip_reasoning(reply)
