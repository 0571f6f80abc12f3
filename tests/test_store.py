"""The database counts each record of the journals exactly once, and can always be made again."""

import contextlib
import errno
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest

from harness import api
from harness.errors import StoreError, UsageError
from harness.ingest import Batch
from harness.journal import Journal, canonical, last_results, read_run, segments, write_atomically
from harness.merge import merge
from harness.models.scripted import ScriptedModel
from harness.plan import Plan
from harness.sandbox import Sandbox
from harness.schema import Damaged
from harness.score import Keeper, of_run
from harness.show import list_runs, show_run
from harness.store import (
    SCHEMA_VERSION,
    TABLES,
    Store,
    current_snapshot,
    delete_run,
    gradings,
    named,
    named_in,
    open_snapshot,
    plain,
    read_artifact,
    read_run_json,
    trajectory,
    writer_is_gone,
)


def begin(results_dir: Path, run_id: str = "run-a", **fields: Any) -> Journal:
    """A run folder with its run.json and an open journal."""
    journal = Journal(results_dir / "runs" / run_id)
    found = {"run_id": run_id, "benchmark": "humaneval", "method": "direct", "kind": "measured",
             "roles": {"worker": {"model": "local/small"}}, "started_at": 1.0, "n_samples": 1,
             **fields}  # fmt: skip
    (journal.run_dir / "run.json").write_text(json.dumps(found))
    return journal


def result(journal: Journal, number: int, verdict: str = "passed", **fields: Any) -> None:
    key = {"result_key": f"key-{number}", "problem_id": f"HumanEval/{number}", "sample": 0}
    usual: dict[str, Any] = {"verdict": verdict, "calls": 1, "cost_usd": 0.01}
    journal.write("result", **{**key, **usual, **fields})


def rows(store: Store, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(store.path), read_only=True) as connection:
        return connection.execute(query).fetchall()


def verdicts(store: Store) -> list[tuple[Any, ...]]:
    return rows(store, "SELECT problem_id, verdict FROM results ORDER BY problem_id")


def everything(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """All facts, without the times that say when they were read."""
    return {
        table: rows(store, f"SELECT {less} FROM {table} ORDER BY ALL")
        for table in TABLES
        if table != "meta_schema"
        for less in ["* EXCLUDE (updated_at)" if table == "segments" else "*"]
    }


def test_each_record_is_counted_once_however_often_it_is_ingested(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    result(journal, 0)
    assert store.ingest().records == 1
    assert store.ingest().records == 0
    result(journal, 1, "wrong")
    assert store.ingest(journal.run_dir).records == 1
    assert verdicts(store) == [("HumanEval/0", "passed"), ("HumanEval/1", "wrong")]


def test_the_last_result_of_a_sample_holds(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    result(journal, 0, "invalid")
    result(journal, 0, "wrong")
    store.ingest()
    assert verdicts(store) == [("HumanEval/0", "wrong")]
    result(journal, 0, "passed")
    store.ingest()
    assert verdicts(store) == [("HumanEval/0", "passed")]


def test_a_torn_tail_waits_and_a_broken_line_is_counted_and_left_out(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    result(journal, 0)
    segment = journal.run_dir / "0001.jsonl"
    with segment.open("a") as file:
        file.write(
            'not json\n{"kind": "result", "sample": "seven", "result_key": "k"}\n{"kind": "re'
        )
    report = store.ingest()
    assert (report.records, report.broken) == (1, 2)
    assert "0001.jsonl: 2 lines left out" in report.problems[0]
    with segment.open("a") as file:
        file.write('sult", "result_key": "key-1", "problem_id": "HumanEval/1", "sample": 0}\n')
    assert store.ingest().records == 1
    assert len(verdicts(store)) == 2


def test_a_run_killed_while_writing_loses_no_whole_record_and_is_interrupted(
    tmp_path: Path,
) -> None:
    begin(tmp_path).close()
    code = (
        "import sys, pathlib; from harness.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "journal.write('session', event='start', problems=9, samples=9)\n"
        "for n in range(10**9):\n"
        "    journal.write('result', result_key=f'k{n}', problem_id=f'p{n}', sample=0)\n"
        "    print(n, flush=True)\n"
    )
    run_dir = tmp_path / "runs" / "run-a"
    child = subprocess.Popen([sys.executable, "-c", code, run_dir], stdout=subprocess.PIPE)
    store, acknowledged = Store(tmp_path), -1
    assert child.stdout is not None
    try:
        for line in child.stdout:
            acknowledged = int(line)
            if acknowledged == 50:
                store.ingest()  # beside the writer
                assert rows(store, "SELECT status FROM runs") == [("running",)]
            if acknowledged >= 300:
                break
    finally:
        child.send_signal(signal.SIGKILL)
        acknowledged = int(child.stdout.read().split()[-1] or acknowledged)
        child.wait()
    store.ingest()
    ((found, distinct),) = rows(store, "SELECT count(*), count(DISTINCT result_key) FROM results")
    assert found == distinct >= acknowledged + 1
    assert rows(store, "SELECT status, problems_asked FROM runs") == [("interrupted", 9)]


def test_rebuild_says_the_same_as_ingesting_piece_by_piece(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("run-a", "run-b"):
        journal = begin(tmp_path, name, knobs={"rounds": 3})
        key: dict[str, Any] = {"result_key": "k", "problem_id": "HumanEval/0", "sample": 0}
        journal.write("session", event="start", problems=1, samples=1)
        sha = journal.artifact("def f(): ...")
        journal.write("call", **key, call_no=1, attempt=1, response_sha=sha, prompt_tokens=None)
        journal.write("round", **key, round=1, score=0.5, scores=[0.5], workflow_sha=sha)
        store.ingest()
        journal.write("feedback", **key, round=1, passed=1, total=2, errors=["assert f() == 1"])
        journal.write("workflow", **key, round=1, calls=1, operators=["Custom"])
        journal.write("ensemble", **key, winner=2)
        result(journal, 0)
        journal.write("session", event="end", status="complete")
        journal.close()
        store.ingest()
    before = everything(store)
    assert store.rebuild().records == 18
    assert everything(store) == before
    assert rows(store, "SELECT DISTINCT kind, fields FROM notes") == [("ensemble", '{"winner":2}')]
    assert rows(store, "SELECT DISTINCT status, knobs FROM runs") == [("complete", '{"rounds":3}')]


def test_a_run_whose_folder_was_taken_away_stays_until_a_rebuild(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    result(journal, 0)
    store.ingest()
    for path in journal.run_dir.iterdir():
        path.unlink()
    journal.run_dir.rmdir()
    assert store.ingest().problems == []
    assert len(verdicts(store)) == 1
    store.rebuild()
    assert verdicts(store) == []


def test_unknown_stays_null_and_is_never_zero(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    result(journal, 0, cost_usd=None, prompt_tokens=None)
    result(journal, 1, cost_usd=0.0, prompt_tokens=0)
    store.ingest()
    found = rows(store, "SELECT cost_usd, prompt_tokens FROM results ORDER BY problem_id")
    assert found == [(None, None), (0.0, 0)]


def test_a_newer_database_is_refused_and_left_untouched(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    result(journal, 0)
    store.ingest()
    with duckdb.connect(str(store.path)) as connection:
        connection.execute("UPDATE meta_schema SET version = ?", [SCHEMA_VERSION + 1])
    before = store.path.read_bytes()
    actions: list[Callable[[], object]] = [store.ingest, store.rebuild, store.snapshot]
    for action in actions:
        with pytest.raises(StoreError, match="newer harness"):
            action()
    assert store.path.read_bytes() == before


def test_an_older_database_is_made_again_from_the_journals(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    result(journal, 0)
    with duckdb.connect(str(store.path)) as connection:
        connection.execute("CREATE TABLE meta_schema AS SELECT 0 AS version, 0.0 AS applied_at")
    store.ingest()
    assert verdicts(store) == [("HumanEval/0", "passed")]


def test_a_damaged_database_is_named_in_one_line_and_kept_by_rebuild(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    result(journal, 0)
    store.path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="python -m harness rebuild") as caught:
        store.ingest()
    assert "\n" not in str(caught.value)
    assert "kept as" in store.rebuild().problems[0]
    (aside,) = tmp_path.glob("harness.duckdb.damaged-*")
    assert aside.read_bytes().startswith(b"no database")
    assert len(verdicts(store)) == 1


def test_a_rebuild_that_fails_leaves_the_old_database(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    result(journal, 0)
    store.ingest()
    (tmp_path / "harness.rebuild.duckdb").mkdir()
    with pytest.raises(StoreError):
        store.rebuild()
    assert len(verdicts(store)) == 1


def test_a_second_writer_waits_and_then_says_who_holds_the_lock(tmp_path: Path) -> None:
    begin(tmp_path).close()
    with Store(tmp_path)._locked():
        with pytest.raises(StoreError, match=f"process {os.getpid()}"):
            Store(tmp_path, lock_wait_s=0.1).ingest()
        late: list[int] = []
        waiting = threading.Thread(target=lambda: late.append(Store(tmp_path).ingest().runs))
        waiting.start()
    waiting.join(20)
    assert late == [1]


def test_a_foreign_folder_is_reported_and_never_fatal(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    result(journal, 0)
    (tmp_path / "runs" / "holiday").mkdir()
    (tmp_path / "runs" / "odd").mkdir()
    (tmp_path / "runs" / "odd" / "run.json").write_text('{"run_id": "even"}')
    report = store.ingest()
    assert (report.runs, report.records, len(report.problems)) == (1, 1, 2)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"run_id": "odd", "started_at": 1e12}'])
def test_an_unreadable_run_json_leaves_the_other_runs_readable(tmp_path: Path, text: str) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    result(journal, 0)
    (tmp_path / "runs" / "odd").mkdir()
    (tmp_path / "runs" / "odd" / "run.json").write_text(text)
    for report in (store.ingest(), store.rebuild()):
        (problem,) = report.problems
        assert "odd/run.json: not readable as a run" in problem
        assert "\n" not in problem
    assert len(verdicts(store)) == 1


def test_a_run_has_a_writer_as_long_as_its_lock_is_held(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    (journal.run_dir / ".lock").write_text("process 4194999")  # whatever it says
    assert not writer_is_gone(journal.run_dir)
    journal.close()
    assert writer_is_gone(journal.run_dir)
    Journal(journal.run_dir).close()  # looking kept nobody out
    assert writer_is_gone(tmp_path)  # nobody ever wrote here


STATUS = "SELECT status, complete, problems_asked, samples_asked, sandbox, command FROM runs"


def session(
    results_dir: Path,
    numbers: Iterable[int],
    status: str,
    *,
    samples: int,
    resumed: int = 0,
    **fields: Any,
) -> list[tuple[Any, ...]]:
    """What the run is after one more session, which grades the samples with these numbers."""
    journal = Journal(results_dir / "runs" / "run-a")
    journal.write("session", event="start", problems=samples, samples=samples, resumed=resumed,
                  **fields)  # fmt: skip
    for number in numbers:
        result(journal, number)
    journal.write("session", event="end", status=status)
    journal.close()
    Store(results_dir).ingest()
    return rows(Store(results_dir), STATUS)


def test_a_run_is_what_its_largest_session_asked_for(tmp_path: Path) -> None:
    begin(tmp_path, command="short", sandbox="bubblewrap").close()
    found = session(tmp_path, range(2), "complete", samples=2, command="short")
    assert found == [("complete", True, 2, 2, "bubblewrap", "short")]
    found = session(tmp_path, range(2, 4), "interrupted", samples=6, resumed=2, command="long")
    assert found == [("interrupted", False, 6, 6, "bubblewrap", "long")]
    found = session(tmp_path, range(10, 15), "complete", samples=5, command="others")
    assert found == [("partial", False, 6, 6, "bubblewrap", "long")]  # nine graded, not those six
    found = session(tmp_path, range(4, 6), "complete", samples=6, resumed=4, command="longer")
    assert found == [("complete", True, 6, 6, "bubblewrap", "longer")]
    before = everything(Store(tmp_path))
    Store(tmp_path).rebuild()
    assert everything(Store(tmp_path)) == before


def asking(
    results_dir: Path, asked: Sequence[int], graded: Sequence[int], status: str, **fields: Any
) -> list[tuple[Any, ...]]:
    """What the run is after a session that asked for these problems and graded those."""
    ids = [f"HumanEval/{number}" for number in asked]
    samples = len(ids) * fields.get("n_samples", 1)
    return session(results_dir, graded, status, samples=samples, asked=ids, **fields)


def test_what_was_asked_for_is_the_union_of_the_sessions(tmp_path: Path) -> None:
    begin(tmp_path).close()
    found = asking(tmp_path, (0, 1, 2), (0, 1, 2), "complete", command="first")
    assert found == [("complete", True, 3, 3, None, "first")]
    found = asking(tmp_path, (0, 1, 2), (), "complete", command="again", resumed=3)
    assert found == [("complete", True, 3, 3, None, "again")]  # the same samples, in no way others
    found = asking(tmp_path, (5, 6, 7), (5, 6, 7), "complete", command="second")
    assert found == [("complete", True, 6, 6, None, "second, and others")]
    before = everything(Store(tmp_path))
    Store(tmp_path).rebuild()
    assert everything(Store(tmp_path)) == before


def test_a_session_that_was_cut_off_is_completed_by_no_other_problems(tmp_path: Path) -> None:
    begin(tmp_path).close()
    asking(tmp_path, (0, 1, 2), (0, 1), "interrupted", command="first")
    found = asking(tmp_path, (5, 6, 7), (5, 6, 7), "complete", command="second")
    assert found == [("partial", False, 6, 6, None, "second, and others")]
    assert rows(Store(tmp_path), "SELECT count(*) FROM results") == [(5,)]
    found = asking(tmp_path, (2,), (2,), "complete", command="third")
    assert found == [("complete", True, 6, 6, None, "second, and others")]


def test_every_draw_of_every_problem_is_asked_for(tmp_path: Path) -> None:
    begin(tmp_path).close()
    found = asking(tmp_path, (0, 1), (0, 1), "complete", n_samples=2)
    assert found[0][:4] == ("partial", False, 2, 4)  # the second draws are not there


def test_a_session_that_names_no_problems_goes_by_the_largest(tmp_path: Path) -> None:
    begin(tmp_path).close()
    session(tmp_path, range(3), "complete", samples=3, command="old")
    found = asking(tmp_path, range(5), (3, 4), "complete", command="new", resumed=3)
    assert found == [("complete", True, 5, 5, None, "new")]


def test_a_list_of_problems_that_is_none_is_a_broken_line(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    journal.write("session", event="start", problems=1, samples=1, asked=[0])
    report = Store(tmp_path).ingest()
    assert report.broken == 1
    assert "asked: expected a list of ids" in report.problems[0]


def test_a_folder_that_is_not_there_is_said_and_not_made(tmp_path: Path) -> None:
    store = Store(tmp_path / "resluts")
    for read in (store.ingest, store.rebuild, store.snapshot):
        with pytest.raises(UsageError, match=r"no results under .*resluts: there is no such"):
            read()
    assert not store.results_dir.exists()


def test_a_sandbox_that_graded_nothing_does_not_mix_a_run(tmp_path: Path) -> None:
    begin(tmp_path, sandbox="bubblewrap").close()  # an older journal: run.json alone says it
    session(tmp_path, range(2), "complete", samples=2)
    again = session(tmp_path, range(0), "complete", samples=2, resumed=2, sandbox="rlimits")
    assert again[0][4] == "bubblewrap"
    more = session(tmp_path, range(2, 3), "complete", samples=3, resumed=2, sandbox="rlimits")
    assert more[0][4] == "mixed: bubblewrap, rlimits"


def test_hostile_text_is_stored_and_read_back(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    text = "\x00\x1b[31m '); DROP TABLE results; -- \ud800 \u202e é"
    journal.artifact(text)
    result(journal, 0, detail=text)
    store.ingest()
    ((path, start, size),) = rows(store, "SELECT path, start, bytes FROM artifacts")
    assert read_artifact(tmp_path, path, start, size) == text
    ((detail,),) = rows(store, "SELECT detail FROM results")
    assert detail == text.replace("\ud800", "\\ud800")
    with pytest.raises(StoreError, match="no artifact at byte 1"):
        read_artifact(tmp_path, path, 1, size)


def test_plain_text_steers_no_terminal() -> None:
    assert plain("a\tb\n\x1b[2J\u202e\ud800é漢") == "a\tb\n\\x1b[2J\\u202e\\ud800é漢"


def test_a_snapshot_is_readable_while_the_database_is_being_written(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    with pytest.raises(StoreError, match="no snapshot yet"):
        open_snapshot(tmp_path)
    result(journal, 0)
    store.ingest()
    store.snapshot()
    with duckdb.connect(str(store.path)) as writer, open_snapshot(tmp_path) as reader:
        writer.execute("DELETE FROM results")
        assert reader.execute("SELECT count(*) FROM results").fetchall() == [(1,)]
        with pytest.raises(duckdb.InvalidInputException):
            reader.execute("DELETE FROM results")


def test_two_snapshots_stay_and_the_pointer_names_the_newest(tmp_path: Path) -> None:
    begin(tmp_path).close()
    store = Store(tmp_path)
    store.ingest()
    for _ in range(4):
        store.snapshot()
    pointer = current_snapshot(tmp_path)
    assert pointer is not None
    assert (pointer.seq, pointer.path.name) == (4, "board-4.duckdb")
    assert sorted(p.name for p in tmp_path.glob("*board-*")) == ["board-3.duckdb", "board-4.duckdb"]


LEFT_OUT = "SELECT left_out, environment, custom, needs_environment FROM runs"


def test_what_is_left_out_is_what_no_session_ran(tmp_path: Path) -> None:
    begin(tmp_path, custom=True, needs_environment=False, environment="aaa").close()
    asking(tmp_path, (0,), (0,), "complete")
    assert rows(Store(tmp_path), LEFT_OUT) == [(None, "aaa", True, False)]  # no session says
    asking(tmp_path, (1,), (1,), "complete", left_out={"HumanEval/2": "no library x"})
    found = rows(Store(tmp_path), LEFT_OUT)
    assert found == [('{"HumanEval/2":"no library x"}', "aaa", True, False)]
    asking(tmp_path, (2,), (2,), "complete", left_out={}, environment="bbb")
    assert rows(Store(tmp_path), LEFT_OUT) == [("{}", "mixed: aaa, bbb", True, False)]
    before = everything(Store(tmp_path))
    Store(tmp_path).rebuild()
    assert everything(Store(tmp_path)) == before


@pytest.mark.parametrize("left_out", [["HumanEval/2"], {"HumanEval/2": 7}])
def test_problems_left_out_without_a_reason_are_a_broken_line(
    tmp_path: Path, left_out: Any
) -> None:
    journal = begin(tmp_path)
    journal.write("session", event="start", problems=1, samples=1, left_out=left_out)
    report = Store(tmp_path).ingest()
    assert report.broken == 1
    assert "left_out: expected" in report.problems[0]


def test_a_journal_of_before_the_cache_paid_for_everything(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    key: dict[str, Any] = {"result_key": "k", "problem_id": "HumanEval/0", "sample": 0}
    journal.write("call", **key, call_no=1, cost_usd=0.5)
    journal.write("call", **key, call_no=2, cost_usd=0.0, fresh_cost_usd=0.5, cached=True)
    journal.write("call", **key, call_no=3, cost_usd=0.0, fresh_cost_usd=None, cached=True)
    result(journal, 0, cost_usd=0.3)
    result(journal, 1, cost_usd=0.1, fresh_cost_usd=0.7, cached_calls=2, price_table="t 1")
    store.ingest()
    calls = rows(store, "SELECT cached, cost_usd, fresh_cost_usd FROM calls ORDER BY call_no")
    assert calls == [(False, 0.5, 0.5), (True, 0.0, 0.5), (True, 0.0, None)]
    found = "SELECT cached_calls, cost_usd, fresh_cost_usd, price_table FROM results ORDER BY ALL"
    assert rows(store, found) == [(0, 0.3, 0.3, None), (2, 0.1, 0.7, "t 1")]


def test_sessions_keep_their_config_forecast_and_who_answered(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    journal.write("session", event="start", config={"method": "direct"})
    told = {"calls": {"worker": [1, 2]}}
    journal.write("session", event="end", status="complete", forecast=told,
                  served_by={"openai/x": ["x-2026"]})  # fmt: skip
    store.ingest()
    assert rows(store, "SELECT config, forecast, served_by FROM sessions ORDER BY event DESC") == [
        ('{"method":"direct"}', None, None),
        (None, '{"calls":{"worker":[1,2]}}', '{"openai/x":["x-2026"]}'),
    ]


def test_verdicts_priced_by_two_tables_are_mixed(tmp_path: Path) -> None:
    journal, store = begin(tmp_path, price_table="t 1"), Store(tmp_path)
    result(journal, 0)  # of before results said it
    result(journal, 1, price_table="t 1")
    store.ingest()
    assert rows(store, "SELECT price_table FROM runs") == [("t 1",)]
    result(journal, 2, price_table="t 2")
    store.ingest()
    assert rows(store, "SELECT price_table FROM runs") == [("mixed: t 1, t 2",)]


LEFT = "SELECT samples_asked, samples_left FROM runs"


def test_what_is_left_is_what_was_asked_for_and_has_no_verdict(tmp_path: Path) -> None:
    begin(tmp_path).close()
    asking(tmp_path, range(5), (0, 1), "interrupted")
    assert rows(Store(tmp_path), LEFT) == [(5, 3)]
    asking(tmp_path, range(5), (2, 3, 4), "complete", resumed=2)
    assert rows(Store(tmp_path), LEFT) == [(5, 0)]
    begin(tmp_path, "older").close()
    journal = Journal(tmp_path / "runs" / "older")
    journal.write("session", event="start", problems=4, samples=4)
    result(journal, 0, "invalid")
    result(journal, 1)
    Store(tmp_path).ingest()
    assert rows(Store(tmp_path), f"{LEFT} WHERE run_id = 'older'") == [(4, 3)]


@pytest.mark.parametrize(
    "role",
    [{"model": "sim/skill=1"}, {"model": "scripted/x"},
     {"model": "replay/old.jsonl", "identity": {"simulated": True}}],
)  # fmt: skip
def test_a_run_with_a_simulated_role_is_simulated_whatever_it_says(
    tmp_path: Path, role: dict[str, Any]
) -> None:
    roles = {"worker": {"model": "local/small"}, "judge": role}
    begin(tmp_path, roles=roles, kind="measured").close()
    begin(tmp_path, "real", roles={"worker": {"model": "replay/x", "identity": {}}}).close()
    store = Store(tmp_path)
    store.ingest()
    assert rows(store, "SELECT run_id, kind FROM runs ORDER BY run_id") == [
        ("real", "measured"), ("run-a", "simulated"),
    ]  # fmt: skip


def two_runs(tmp_path: Path) -> Store:
    """`run-a` of two results and a session, `run-b` of one; ingested and shown."""
    store = Store(tmp_path)
    for name, count in (("run-a", 2), ("run-b", 1)):
        journal = begin(tmp_path, name)
        journal.write("session", event="start", problems=count, samples=count)
        for number in range(count):
            result(journal, number)
        journal.artifact("def f(): ...")
        journal.close()
    store.ingest()
    store.snapshot()
    return store


def holds_only(store: Store, run_id: str) -> None:
    """Every table, folder and the board hold this one run, as a rebuild would."""
    assert rows(store, "SELECT run_id FROM runs") == [(run_id,)]
    assert [p.name for p in (store.results_dir / "runs").iterdir()] == [run_id]
    assert [
        p for p in store.results_dir.iterdir() if p.name.startswith((".deleted", ".gone"))
    ] == []

    def facts() -> dict[str, list[tuple[Any, ...]]]:
        return {table: [row[1:] if table != "segments" else row for row in found]
                for table, found in everything(store).items()}  # fmt: skip

    before = facts()
    store.rebuild()
    assert facts() == before


def test_deleting_a_run_takes_its_folder_rows_and_board_row_and_no_others(tmp_path: Path) -> None:
    store = two_runs(tmp_path)
    size = sum(p.stat().st_size for p in (tmp_path / "runs" / "run-a").iterdir())
    deleted = delete_run(tmp_path, "run-a")
    assert (deleted.run_id, deleted.bytes, deleted.rows) == ("run-a", size, 5)
    with open_snapshot(tmp_path) as board:
        assert board.execute("SELECT run_id FROM runs").fetchall() == [("run-b",)]
    holds_only(store, "run-b")


def test_a_run_is_deleted_without_a_database_and_with_an_older_one(tmp_path: Path) -> None:
    for name in ("run-a", "run-b"):
        begin(tmp_path, name).close()
    assert delete_run(tmp_path, "run-a").rows == 0
    store = Store(tmp_path)
    assert not store.path.exists()
    begin(tmp_path, "run-c").close()
    with duckdb.connect(str(store.path)) as connection:
        connection.execute("CREATE TABLE meta_schema AS SELECT 0 AS version, 0.0 AS applied_at")
    delete_run(tmp_path, "run-c")
    holds_only(store, "run-b")


def test_a_run_that_is_being_written_is_not_deleted(tmp_path: Path) -> None:
    store = two_runs(tmp_path)
    before = everything(store)
    journal = Journal(tmp_path / "runs" / "run-a")
    with pytest.raises(StoreError, match=f"run-a: process {os.getpid()} is writing this run"):
        delete_run(tmp_path, "run-a")
    journal.close()
    assert everything(store) == before
    assert (tmp_path / "runs" / "run-a").is_dir()


def test_nothing_is_deleted_beside_a_damaged_database(tmp_path: Path) -> None:
    store = two_runs(tmp_path)
    store.path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="python -m harness rebuild"):
        delete_run(tmp_path, "run-a")
    assert (tmp_path / "runs" / "run-a").is_dir()


def test_deleting_an_unknown_run_names_the_nearest_and_a_foreign_folder_stays(
    tmp_path: Path,
) -> None:
    two_runs(tmp_path)
    (tmp_path / "runs" / "holiday").mkdir()
    with pytest.raises(UsageError, match=r"near it: run-[ab], run-[ab]"):
        delete_run(tmp_path, "run-x")
    with pytest.raises(UsageError, match="holds nothing of a run"):
        delete_run(tmp_path, "holiday")
    assert len(list((tmp_path / "runs").iterdir())) == 3


@pytest.mark.parametrize(
    "moment", ["before the move", "after it", "rows are gone", "half the files"]
)
def test_a_deletion_that_is_killed_loses_nothing_else_and_is_finished(
    tmp_path: Path, moment: str
) -> None:
    store = two_runs(tmp_path)
    code = (  # Python tells a hook of each rename, listing and removal before it happens
        "import os, pathlib, signal, sys; from harness.store import delete_run\n"
        "moves = []\n"
        "def watch(event, args):\n"
        "    if event == 'os.rename' and 'run-a' in str(args[0]):\n"
        "        moves.append('before the move' if not moves else 'rows are gone')\n"
        "    now = moves[-1:]\n"
        "    if event == 'os.scandir' and len(moves) == 1:\n"
        "        now = ['after it']\n"
        "    elif event == 'os.remove' and 'jsonl' in str(args[0]):\n"
        "        now = ['half the files']\n"
        "    if now == [sys.argv[2]] and event != 'os.kill':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(watch)\n"
        "delete_run(pathlib.Path(sys.argv[1]), 'run-a')\n"
    )
    child = subprocess.run([sys.executable, "-c", code, tmp_path, moment])
    assert child.returncode == -signal.SIGKILL
    if moment == "before the move":
        assert (tmp_path / "runs" / "run-a").is_dir()
        delete_run(tmp_path, "run-a")
    else:
        assert not (tmp_path / "runs" / "run-a").exists()
        store.ingest()
    holds_only(store, "run-b")


def test_a_run_begun_anew_after_a_deletion_that_was_cut_off_keeps_its_rows(tmp_path: Path) -> None:
    store = two_runs(tmp_path)
    (tmp_path / "runs" / "run-a").rename(tmp_path / ".deleted-run-a")
    journal = begin(tmp_path, "run-a")
    result(journal, 7)
    journal.close()
    store.ingest(journal.run_dir)
    found = "SELECT problem_id FROM results JOIN runs USING (run_no) WHERE run_id = 'run-a'"
    assert rows(store, found) == [("HumanEval/7",)]
    assert not (tmp_path / ".deleted-run-a").exists()


def search(tmp_path: Path, status: str | None = "complete") -> Store:
    """The journal of a search `fit-a`, ingested."""
    journal = begin(tmp_path, "fit-a", stage="fit")
    journal.write("session", event="start", problems=2, samples=2, asked=["a/1", "a/2"])
    desk: dict[str, Any] = {"result_key": "desk", "problem_id": "search", "sample": 0}
    key: dict[str, Any] = {"result_key": "k", "problem_id": "a/1", "sample": 2**28 - 1}
    journal.write("call", **key, round=2, operator="custom", output_format="json", about="a/7")
    journal.write("trial", **key, label="round 2, run 1", round=2, passed=True, share=1.0,
                  detail="", code_sha=journal.artifact("x"), calls=1, tokens=12.0, usd=None,
                  wall_s=0.5, facts={"layers": [["a"]]}, cached_calls=0)  # fmt: skip
    journal.write("node", **desk, round=2, number=2, parent=1, label="b", score=0.5, low=None,
                  high=0.75, error=None, workflow_sha=journal.artifact("y"))  # fmt: skip
    journal.write("step", **desk, round=2, number=1, loss=0.5)
    if status:
        journal.write("session", event="end", status=status)
    journal.close()
    Store(tmp_path).ingest()
    return Store(tmp_path)


def test_a_search_is_kept_with_its_attempts_nodes_and_steps(tmp_path: Path) -> None:
    store = search(tmp_path)
    assert rows(store, "SELECT label, round, passed, tokens, usd, facts, sample FROM trials") == [
        ("round 2, run 1", 2, True, 12.0, None, '{"layers":[["a"]]}', 2**28 - 1)
    ]
    assert rows(store, "SELECT number, parent, label, score, low, high FROM nodes") == [
        (2, 1, "b", 0.5, None, 0.75)
    ]
    assert rows(store, "SELECT kind, fields FROM notes") == [
        ("step", '{"round":2,"number":1,"loss":0.5}')
    ]
    assert rows(store, "SELECT operator, output_format, about FROM calls") == [
        ("custom", "json", "a/7")
    ]
    before = everything(store)
    store.rebuild()
    assert everything(store) == before
    assert delete_run(tmp_path, "fit-a").rows == 9


@pytest.mark.parametrize(
    ("ended", "expected"),
    [("complete", ("fit", "complete", True)), ("budget", ("fit", "budget", False)),
     (None, ("fit", "interrupted", False))],
)  # fmt: skip
def test_a_search_is_complete_when_its_last_session_says_so(
    tmp_path: Path, ended: str | None, expected: tuple[str, str, bool]
) -> None:
    store = search(tmp_path, ended)
    assert rows(store, "SELECT stage, status, complete FROM runs") == [expected]
    assert rows(store, LEFT) == [(None, None)]


def test_a_row_keeps_its_search_its_hidden_verdicts_and_its_further_runs(tmp_path: Path) -> None:
    artifact = {"run": "fit-a", "spent": {"calls": 3}}
    journal, store = begin(tmp_path, artifact=artifact), Store(tmp_path)
    result(journal, 0, reruns=["passed", "wrong"])
    journal.write("hidden", result_key="key-0", problem_id="HumanEval/0", sample=0, round=3,
                  code_sha=journal.artifact("x"), verdict="wrong")  # fmt: skip
    store.ingest()
    assert rows(store, "SELECT stage, artifact FROM runs") == [
        ("eval", '{"run":"fit-a","spent":{"calls":3}}')
    ]
    assert rows(store, "SELECT reruns FROM results") == [('["passed","wrong"]',)]
    assert rows(store, "SELECT round, verdict FROM hidden") == [(3, "wrong")]


@pytest.mark.parametrize("artifact", ["fit-a", {"spent": 3}])
def test_an_artifact_that_is_no_object_makes_the_run_unreadable(
    tmp_path: Path, artifact: Any
) -> None:
    begin(tmp_path, artifact=artifact).close()
    (problem,) = Store(tmp_path).ingest().problems
    assert "run.json: not readable as a run: " in problem


def test_hidden_verdicts_are_of_the_last_grading_and_hide_no_round() -> None:
    key: dict[str, Any] = {"problem_id": "a", "sample": 0}
    records = [
        (1, {"kind": "round", **key, "round": 1}),
        (1, {"kind": "hidden", **key, "round": 1, "verdict": "invalid"}),
        (2, {"kind": "hidden", **key, "round": 1, "verdict": "wrong"}),
    ]
    found = trajectory("run", "a", 0, records)
    assert [r["verdict"] for r in found.hidden] == ["wrong"]
    assert (len(found.of_round(1).rounds), found.earlier) == (1, 0)
    assert found.of_round(2).hidden == []


def test_a_row_is_called_by_the_knobs_that_were_given_to_it() -> None:
    assert named("vanilla") == named("vanilla", {}, {"x": 1}) == named("vanilla", None) == "vanilla"
    given = {"rounds": "4", "alpha": 0.5, "workflow": "shuffled", "early_stop": True}
    assert named("flowreasoner", given) == (
        "flowreasoner workflow=shuffled alpha=0.5 early_stop=true rounds=4"
    )
    settled = {"ranker": "judge", "candidates": 3}
    assert named("llm-blender", {}, settled) == "llm-blender ranker=judge"
    assert named("llm-blender", {"ranker": "auto"}, settled) == "llm-blender ranker=judge"
    assert named_in({"method": "aflow", "config": {"knobs": {"rounds": 3}}}) == "aflow rounds=3"
    assert named_in({"config": None}) == "unknown"


def test_a_node_for_one_problem_says_which(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "runs" / "fit-s")
    (journal.run_dir / "run.json").write_text('{"run_id": "fit-s", "stage": "fit"}')
    journal.write("node", result_key="d", problem_id="search", sample=0, number=1, about="a/3")
    journal.close()
    store = Store(tmp_path)
    store.ingest()
    assert rows(store, "SELECT number, about FROM nodes") == [(1, "a/3")]


def verdict(journal: Journal, number: int, found: str = "passed", **fields: Any) -> None:
    journal.write(
        "verdict", result_key=f"key-{number}", problem_id=f"HumanEval/{number}", sample=0,
        verdict=found, detail=None, fresh=None, base=None, plus=None,
        **{"grader_version": "5", "environment": "e2", "sandbox": "bubblewrap", **fields},
    )  # fmt: skip


HELD = "SELECT problem_id, verdict, grader_version, regrades FROM results ORDER BY problem_id"
HISTORY = (
    "SELECT problem_id, first, verdict, grader_version, environment FROM verdicts ORDER BY rowid"
)
WHERE_GRADED = "SELECT grader_version, environment, sandbox, complete FROM runs"


def test_a_later_grading_holds_and_the_first_one_stays(tmp_path: Path) -> None:
    asked = {"asked": ["HumanEval/0", "HumanEval/1"], "n_samples": 1}
    journal = begin(tmp_path, grader_version="4", environment="e1", sandbox="bubblewrap")
    journal.write("session", event="start", problems=2, samples=2, **asked)
    result(journal, 0, "wrong")
    result(journal, 1, "passed", fresh="passed")
    journal.write("session", event="end", status="complete")
    store = Store(tmp_path)
    store.ingest()
    assert rows(store, HISTORY) == []
    assert rows(store, WHERE_GRADED) == [("4", "e1", "bubblewrap", True)]
    verdict(journal, 0)
    store.ingest()
    assert rows(store, HELD) == [
        ("HumanEval/0", "passed", "5", 1), ("HumanEval/1", "passed", "4", 0),
    ]  # fmt: skip
    mixed = ("mixed: 4, 5", "mixed: e1, e2", "bubblewrap", True)
    assert rows(store, WHERE_GRADED) == [mixed]
    verdict(journal, 1, "timeout")
    verdict(journal, 0, "exception", grader_version="6")
    verdict(journal, 0, "passed")
    store.ingest()
    assert rows(store, HELD) == [
        ("HumanEval/0", "passed", "5", 3), ("HumanEval/1", "timeout", "5", 1),
    ]  # fmt: skip
    assert rows(store, HISTORY) == [
        ("HumanEval/0", True, "wrong", "4", "e1"),
        ("HumanEval/0", False, "passed", "5", "e2"),
        ("HumanEval/1", True, "passed", "4", "e1"),
        ("HumanEval/1", False, "timeout", "5", "e2"),
        ("HumanEval/0", False, "exception", "6", "e2"),
        ("HumanEval/0", False, "passed", "5", "e2"),
    ]
    assert rows(store, WHERE_GRADED) == [("5", "e2", "bubblewrap", True)]
    assert rows(store, "SELECT fresh_graded, graded, passed FROM problem_rollup ORDER BY ALL") == [
        (0, 1, 0), (0, 1, 1),
    ]  # fmt: skip
    before = everything(store)
    store.rebuild()
    assert everything(store) == before


def test_a_later_grading_that_is_no_verdict_or_of_another_program_does_not_hold(
    tmp_path: Path,
) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    result(journal, 0, "wrong", solution_sha="a")
    verdict(journal, 0, "invalid", solution_sha="a")
    verdict(journal, 0, "passed", solution_sha="b")
    verdict(journal, 1, "passed")  # its result is not here yet
    store.ingest()
    assert rows(store, HELD) == [("HumanEval/0", "wrong", None, 0)]
    result(journal, 1, "wrong")
    result(journal, 0, "wrong", solution_sha="b")
    store.ingest()
    verdict(journal, 0, "passed", solution_sha="b")
    store.ingest()
    assert rows(store, HELD) == [
        ("HumanEval/0", "passed", "5", 1), ("HumanEval/1", "wrong", None, 0),
    ]  # fmt: skip
    assert [row[:3] for row in rows(store, HISTORY)] == [
        ("HumanEval/0", True, "wrong"),
        ("HumanEval/0", False, "invalid"),
        ("HumanEval/0", False, "passed"),
        ("HumanEval/1", False, "passed"),
        ("HumanEval/1", True, "wrong"),
        ("HumanEval/0", True, "wrong"),
        ("HumanEval/0", False, "passed"),
    ]
    before = everything(store)
    store.rebuild()
    assert everything(store) == before


def test_the_sums_of_a_problem_are_unknown_as_soon_as_a_part_is(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    spent: dict[str, Any] = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "rounds": 2,
        "wall_s": 0.5,
    }
    for sample, cost in enumerate((0.25, 0.5)):
        result(journal, 0, "wrong" if sample else "passed", sample=sample,
               **spent, result_key=f"a{sample}", cost_usd=cost)  # fmt: skip
    result(journal, 1, "invalid", **spent)
    store.ingest()
    found = (
        "SELECT problem_id, samples, graded, passed, calls, tokens, cost_usd, wall_s, rounds "
        "FROM problem_rollup JOIN problems USING (problem_no) ORDER BY problem_no"
    )
    assert rows(store, found) == [
        ("HumanEval/0", 2, 2, 1, 2, 30, 0.75, 1.0, 4.0),
        ("HumanEval/1", 1, 0, 0, 1, 15, 0.01, 0.5, 2.0),
    ]
    result(journal, 0, sample=2, result_key="a2", cost_usd=None, **spent)
    result(journal, 1, calls=None, **spent)
    store.ingest()
    assert rows(store, found) == [
        ("HumanEval/0", 3, 3, 2, 3, 45, None, 1.5, 6.0),
        ("HumanEval/1", 1, 1, 1, None, 15, 0.01, 0.5, 2.0),
    ]


def test_a_problem_has_one_number_in_all_runs_of_its_benchmark(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for run_id, benchmark in (("a", "humaneval"), ("b", "mbpp"), ("c", "humaneval"), ("d", None)):
        journal = begin(tmp_path, run_id, benchmark=benchmark)
        result(journal, 1)
        result(journal, 0)
        journal.close()
        store.ingest()
    found = rows(store, "SELECT run_id, problem_id, problem_no FROM results JOIN runs "
                        "USING (run_no) ORDER BY ALL")  # fmt: skip
    numbers = {(run_id, problem_id[-1]): number for run_id, problem_id, number in found}
    assert numbers == {("a", "0"): 2, ("a", "1"): 1, ("b", "0"): 4, ("b", "1"): 3,
                       ("c", "0"): 2, ("c", "1"): 1, ("d", "0"): 6, ("d", "1"): 5}  # fmt: skip
    assert rows(store, "SELECT count(*), count(DISTINCT problem_no) FROM problem_rollup") == [
        (8, 6)
    ]
    delete_run(tmp_path, "b")
    assert rows(store, "SELECT DISTINCT benchmark FROM problems ORDER BY 1 NULLS FIRST") == [
        (None,), ("humaneval",),
    ]  # fmt: skip


def test_a_run_that_turns_out_to_be_of_another_benchmark_is_read_anew(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    result(journal, 0)
    store.ingest()
    told = json.loads((journal.run_dir / "run.json").read_text())
    (journal.run_dir / "run.json").write_text(
        json.dumps({**told, "benchmark": "mbpp", "grader_version": "7"})
    )
    store.ingest()
    assert rows(store, "SELECT benchmark FROM problems") == [("mbpp",)]
    assert rows(store, HELD) == [("HumanEval/0", "passed", "7", 0)]
    before = everything(store)
    store.rebuild()
    assert everything(store) == before


def test_an_imported_run_says_where_it_is_from(tmp_path: Path) -> None:
    origin = {"format": "evalplus", "file": "a.json", "sha256": "0", "tool": None}
    begin(tmp_path, kind="imported", origin=origin).close()
    begin(tmp_path, "run-b", origin="a.json").close()
    store = Store(tmp_path)
    (problem,) = store.ingest().problems
    assert "run-b/run.json: not readable as a run: origin: expected an object" in problem
    assert rows(store, "SELECT run_id, kind, origin ->> '$.format' FROM runs") == [
        ("run-a", "imported", "evalplus")
    ]


def test_a_sample_keeps_every_grading_in_its_trajectory() -> None:
    key: dict[str, Any] = {"result_key": "k", "problem_id": "a", "sample": 0}
    made = {"kind": "result", **key, "verdict": "wrong", "calls": 1, "solution_sha": "x"}
    later = {"kind": "verdict", **key, "verdict": "passed", "solution_sha": "x"}
    assert trajectory("run", "a", 0, [(1, made)]).verdicts == []
    tried = (1, {"kind": "round", **key, "round": 1})
    invalid = {**later, "verdict": "invalid"}
    found = trajectory("run", "a", 0, [tried, (1, made), (2, later), (2, invalid)])
    assert [r["verdict"] for r in found.verdicts] == ["wrong", "passed", "invalid"]
    assert found.result is not None
    assert (found.result["verdict"], found.result["calls"]) == ("passed", 1)
    assert (len(found.rounds), found.notes, found.earlier) == (1, [], 0)


def test_gradings_are_read_from_a_snapshot(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    result(journal, 0, "wrong")
    result(journal, 1, "wrong")
    verdict(journal, 0)
    store.ingest()
    store.snapshot()
    with open_snapshot(tmp_path) as board:
        assert gradings(board, "run-a", "HumanEval/1", 0) == []
        found = gradings(board, "run-a", "HumanEval/0", 0)
    assert [(one["first"], one["verdict"]) for one in found] == [(True, "wrong"), (False, "passed")]


SIDE_BY_SIDE = """
import pathlib, sys
from harness.store import Store, delete_run, open_snapshot
from harness.journal import Journal
from harness.merge import merge
part, results, others = sys.argv[1], *map(pathlib.Path, sys.argv[2:])
store = Store(results, lock_wait_s=60.0)
if part == "board":  # one that opens a snapshot, and holds it while many newer ones are made
    held = open_snapshot(results)
    print("open", flush=True)
    sys.stdin.readline()
    assert held.execute("SELECT count(*) FROM results").fetchall() == [(3,)]
    held.close()
elif part == "boards":  # one that goes with the pointer
    seen = set()
    while not (results / "done").exists():
        with open_snapshot(results) as found:
            seen.add(found.execute("SELECT count(*) FROM results").fetchone()[0])
    assert len(seen) > 3, seen
elif part == "run":
    journal = Journal(results / "runs" / "live")
    (journal.run_dir / "run.json").write_text('{"run_id": "live", "benchmark": "humaneval"}')
    for number in range(8):
        journal.write("result", result_key=f"k{number}", problem_id=f"p{number}", sample=0,
                      verdict="passed")
        store.ingest(journal.run_dir)
        store.snapshot()
    journal.close()
elif part == "rebuild":
    for _ in range(3):
        store.rebuild()
        store.snapshot()
elif part == "merge":
    merge(results, [others])
else:
    delete_run(results, "run-b")
"""


def test_board_run_rebuild_merge_and_delete_work_side_by_side(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    two_runs(here)
    two_runs(there)
    (there / "runs" / "run-a").rename(there / "runs" / "run-c")
    told = json.loads((there / "runs" / "run-c" / "run.json").read_text())
    (there / "runs" / "run-c" / "run.json").write_text(json.dumps({**told, "run_id": "run-c"}))

    def start(part: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SIDE_BY_SIDE, part, str(here), str(there)]
        return subprocess.Popen(
            command, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    board = start("board")
    assert board.stdout is not None
    assert board.stdout.readline() == "open\n"
    parts = {part: start(part) for part in ("boards", "run", "rebuild", "merge", "delete")}
    for part in ("run", "rebuild", "merge", "delete"):
        parts[part].wait(120)
    (here / "done").touch()
    said = {part: child.communicate(timeout=120)[1] for part, child in parts.items()}
    assert said == dict.fromkeys(parts, "")
    assert [child.returncode for child in parts.values()] == [0] * 5
    assert board.communicate("\n", timeout=60)[1] == ""
    assert board.returncode == 0
    copies = sorted(int(p.stem[6:]) for p in here.glob("board-*.duckdb"))
    assert len(copies) == 2
    with open_snapshot(here) as board_now:
        found = board_now.execute("SELECT run_id FROM runs ORDER BY ALL").fetchall()
    assert {"live", "run-a", "run-c"} <= {run_id for (run_id,) in found}


def test_a_snapshot_that_is_replaced_while_it_is_opened_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = two_runs(tmp_path)
    old = current_snapshot(tmp_path)
    told = [old, old]  # it is looked at, and then replaced twice
    for _ in range(2):
        store.snapshot()
    assert old is not None
    assert not old.path.exists()
    monkeypatch.setattr(
        "harness.store.current_snapshot",
        lambda folder: told.pop() if len(told) == 2 else current_snapshot(folder),
    )
    with open_snapshot(tmp_path) as board:
        assert board.execute("SELECT count(*) FROM runs").fetchall() == [(2,)]
    newest = current_snapshot(tmp_path)
    assert newest is not None
    newest.path.unlink()
    with pytest.raises(StoreError, match="the snapshot is gone"):
        open_snapshot(tmp_path)


class FullDisk:
    """While it is on, no file of this process grows beyond a size: what a full disk does."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def in_words(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """All facts with ids in the place of the numbers that the database gave."""
    ids = {
        "run_no": "(SELECT run_id FROM runs AS r WHERE r.run_no = t.run_no)",
        "problem_no": "(SELECT benchmark || ' ' || problem_id FROM problems AS p "
                      "WHERE p.problem_no = t.problem_no)",
        "updated_at": "0",
    }  # fmt: skip
    found = {}
    with duckdb.connect(str(store.path), read_only=True) as connection:
        for table, columns in TABLES.items():
            if table not in ("meta_schema", "meta_reported", "reported"):
                chosen = ", ".join(ids.get(name, f'"{name}"') for name in columns)
                query = f"SELECT {chosen} FROM {table} AS t ORDER BY ALL"
                found[table] = connection.execute(query).fetchall()
    return found


def as_a_rebuild_says(store: Store) -> bool:
    """Whether what was read piece by piece is what a rebuild says."""
    before = in_words(store)
    store.rebuild()
    return in_words(store) == before


def with_an_earlier_segment_that_grew(results_dir: Path) -> Store:
    """A run whose first segment got a line after its second one was read."""
    store = Store(results_dir)
    journal = begin(results_dir, grader_version="2")
    result(journal, 0, "wrong", solution_sha="s")
    journal.close()
    journal = Journal(journal.run_dir)
    verdict(journal, 0, solution_sha="s")
    result(journal, 1, "wrong")
    journal.close()
    store.ingest()
    with (journal.run_dir / "0001.jsonl").open("a") as file:
        file.write('{"kind": "result", "result_key": "key-1", "problem_id": "HumanEval/1", '
                   '"sample": 0, "verdict": "passed"}\n')  # fmt: skip
    return store


def test_an_earlier_segment_that_grew_is_read_with_all_that_came_after_it(tmp_path: Path) -> None:
    store = with_an_earlier_segment_that_grew(tmp_path)
    report = store.ingest()
    assert (report.runs, report.records, report.problems) == (1, 4, [])
    assert verdicts(store) == [("HumanEval/0", "passed"), ("HumanEval/1", "wrong")]
    assert as_a_rebuild_says(store)
    with (tmp_path / "runs" / "run-a" / "0001.jsonl").open("a") as file:
        file.write('{"kind": "resu')  # a torn tail is nothing to read all anew for
    assert store.ingest().records == 0


def test_reading_a_run_anew_is_whole_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = with_an_earlier_segment_that_grew(tmp_path)
    before = in_words(store)

    def cut_off(self: Batch, *arguments: Any) -> None:
        write(self, *arguments)
        raise KeyboardInterrupt

    write = Batch.write
    with monkeypatch.context() as patched:
        patched.setattr(Batch, "write", cut_off)
        with pytest.raises(KeyboardInterrupt):
            store.ingest()
    assert in_words(store) == before
    store.ingest()
    assert as_a_rebuild_says(store)


def test_a_line_that_is_finished_while_it_is_read_is_read_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    result(journal, 0)
    line = '{"kind": "call", "result_key": "k", "problem_id": "HumanEval/1", "sample": 0}\n'
    segment = journal.run_dir / "0001.jsonl"
    with segment.open("a") as file:
        file.write(line[:40])

    def beside_its_writer(self: Batch, *arguments: Any) -> None:
        made(self, *arguments)
        with segment.open("a") as file:
            file.write(line[40:] + line)

    made = Batch.__init__
    with monkeypatch.context() as patched:
        patched.setattr(Batch, "__init__", beside_its_writer)
        report = store.ingest()
    assert (report.records, report.broken) == (1, 0)
    report = store.ingest()
    assert (report.records, report.broken) == (2, 0)
    assert rows(store, "SELECT read_bytes FROM segments") == [(segment.stat().st_size,)]
    assert as_a_rebuild_says(store)


def test_a_problem_that_went_with_its_run_gets_a_number_again(tmp_path: Path) -> None:
    a, b = begin(tmp_path, "run-a"), begin(tmp_path, "run-b")
    result(a, 1)
    result(b, 2)
    store = Store(tmp_path)
    store.ingest()
    result(a, 3)  # read first, and with it all numbers of the benchmark
    head = json.loads((b.run_dir / "run.json").read_text())
    (b.run_dir / "run.json").write_text(json.dumps({**head, "grader_version": "3"}))
    store.ingest()
    found = rows(store, "SELECT p.problem_id FROM results AS r LEFT JOIN problems AS p "
                        "USING (problem_no) ORDER BY ALL")  # fmt: skip
    assert found == [(f"HumanEval/{number}",) for number in (1, 2, 3)]
    assert as_a_rebuild_says(store)


def test_half_a_pair_anywhere_is_json_that_the_database_reads(tmp_path: Path) -> None:
    journal, store = begin(tmp_path, config={"knobs": {"\ud800": "\udfff"}}), Store(tmp_path)
    begin(tmp_path, "run-b").close()
    journal.write("session", event="start", problems=1, config={"x": "\ud800"})
    result(journal, 0, "wrong", reruns=["wrong"], solution_sha="s")
    journal.write("thought", result_key="key-0", text="\ud800 \\ud800 \\\\")
    verdict(journal, 0, solution_sha="s")
    for _ in range(2):
        assert store.ingest().problems == []
    texts = {
        "runs": ("run_json",), "notes": ("fields",), "sessions": ("config",),
        "results": ("reruns",),
    }  # fmt: skip
    for table, columns in texts.items():
        for column in columns:
            assert rows(store, f"SELECT bool_and(json_valid({column})) FROM {table}") == [(True,)]
    assert rows(store, "SELECT fields ->> '$.text' FROM notes") == [
        ("\\ud800 \\ud800 \\\\",),
    ]  # fmt: skip
    assert rows(store, "SELECT run_json ->> '$.config.knobs.\"\\ud800\"' FROM runs "
                       "WHERE run_id = 'run-a'") == [("\\udfff",)]  # fmt: skip


def test_bytes_that_are_no_text_are_kept_in_run_json_and_refused_as_a_folder(
    tmp_path: Path,
) -> None:
    journal = begin(tmp_path)
    word = os.fsdecode(b"a\xff")
    head = json.loads((journal.run_dir / "run.json").read_text())
    write_atomically(journal.run_dir / "run.json", canonical({**head, "command": ["eval", word]}))
    assert read_run_json(journal.run_dir)["command"][1] == word
    store = Store(tmp_path)
    assert store.ingest().problems == []
    assert rows(store, "SELECT command FROM runs") == [("eval a\\udcff",)]
    odd = tmp_path / word
    odd.mkdir()
    with pytest.raises(UsageError, match=r"a\\udcff: a name that is no UTF-8.*use another --out"):
        Store(odd).ingest()
    (odd / "board.json").write_text('{"seq": 1, "file": "board-1.duckdb"}')
    (odd / "board-1.duckdb").touch()
    with pytest.raises(StoreError, match="is no UTF-8"):
        open_snapshot(odd)


def test_a_run_that_cannot_be_read_is_reported_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run-a", "run-b"):
        journal = begin(tmp_path, name)
        result(journal, 0)
        (journal.run_dir / "0002.jsonl").mkdir()  # none of these is a segment
        for other in ("\u00b2.jsonl", "99999999999.jsonl"):
            (journal.run_dir / other).write_text('{"kind": "note", "result_key": "k"}\n')
    store = Store(tmp_path)
    read = Path.open

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.match("run-a/0001.jsonl"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        report = store.ingest()
    assert (report.runs, report.records) == (1, 1)
    (said,) = report.problems
    assert said.startswith(f"not read to its end: {tmp_path / 'runs' / 'run-a'}: ")
    assert said.endswith("0001.jsonl: Permission denied")
    assert store.ingest().records == 1
    store.snapshot()
    (tmp_path / "board-\u00b2.duckdb").touch()
    assert store.snapshot().name == "board-2.duckdb"
    assert Journal(tmp_path / "runs" / "run-c").run_dir.is_dir()


def test_a_grading_of_another_program_says_nothing_of_where_the_run_was_graded(
    tmp_path: Path,
) -> None:
    journal, store = begin(tmp_path, environment="e1"), Store(tmp_path)
    result(journal, 0, "wrong", solution_sha="s")
    verdict(journal, 0, solution_sha="s", environment="e1")
    verdict(journal, 0, "wrong", solution_sha="other", environment="e9")
    store.ingest()
    assert rows(store, "SELECT environment FROM runs") == [("e1",)]
    assert rows(store, 'SELECT "first", held, environment FROM verdicts ORDER BY rowid') == [
        (True, True, "e1"), (False, True, "e1"), (False, False, "e9"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ['{"seq": 1e999, "file": "a"}', '{"seq": 1, "file": 5}', "[" * 9999]
)
def test_a_pointer_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "board.json").write_text(text)
    with pytest.raises(StoreError, match=r"board.json: not readable .* run `python -m harness"):
        current_snapshot(tmp_path)


def test_a_full_disk_is_named_and_what_was_written_stays(tmp_path: Path) -> None:
    store = two_runs(tmp_path)
    before = everything(store)
    journal = Journal(tmp_path / "runs" / "run-a")
    for number in range(2, 400):
        result(journal, number, detail=f"{number} " * 200)
    with FullDisk(4096):
        for action in (store.ingest, store.rebuild, store.snapshot):
            with pytest.raises(StoreError, match=r"File too large") as caught:
                action()
            assert "rebuild`" not in str(caught.value)
            assert not isinstance(caught.value, Damaged)
            assert not [*tmp_path.glob(".board-*"), *tmp_path.glob("harness.rebuild*")]
    assert everything(store) == before
    assert store.ingest().records == 398
    (tmp_path / ".board-7.duckdb").touch()  # by one that was killed
    (tmp_path / "harness.rebuild.duckdb.wal").touch()
    store.snapshot()
    assert not [*tmp_path.glob(".board-*"), *tmp_path.glob("harness.rebuild*")]


def test_a_database_that_was_begun_on_a_full_disk_is_begun_again(tmp_path: Path) -> None:
    journal, store = begin(tmp_path), Store(tmp_path)
    result(journal, 0)
    with FullDisk(0), pytest.raises(StoreError, match="File too large"):
        store.ingest()
    store.path.touch()
    assert store.ingest().records == 1


def test_deleting_a_run_on_a_full_disk_makes_room(tmp_path: Path) -> None:
    store = two_runs(tmp_path)
    with FullDisk(1):
        with pytest.raises(
            StoreError, match=r"run-a: its files are gone, 0\.0 MB, but not its rows"
        ):
            delete_run(tmp_path, "run-a")
        assert not (tmp_path / "runs" / "run-a").exists()
        assert [*(tmp_path / ".deleted-run-a").iterdir()] == []
        with pytest.raises(StoreError, match="run-b: its files are gone"):
            delete_run(tmp_path, "run-b")
    assert rows(store, "SELECT count(*) FROM runs") == [(2,)]
    journal = begin(tmp_path, "run-b")
    result(journal, 7)
    store.ingest()
    store.snapshot()
    assert verdicts(store) == [("HumanEval/7", "passed")]
    holds_only(store, "run-b")


HOSTILE = [
    *(f'{{"kind": "{kind}", "at": 1, "result_key": "key-0", "problem_id": "HumanEval/0", '
      f'"sample": 0, "grader_version": "9", {odd}}}' for kind, odd in (
        ("verdict", '"verdict": ["passed"]'), ("verdict", '"verdict": "fine"'),
        ("result", '"verdict": "solved"'), ("result", '"verdict": "passed", "fresh": "yes"'),
        ("result", '"verdict": "passed", "base": 1'), ("result", '"verdict": "wrong", "plus": ""'),
        ("result", '"verdict": "wrong", "reruns": 5'), ("result", '"reruns": ["wrong", null]'),
        ("result", '"calls": "many"'), ("result", '"wall_s": NaN'),
        ("hidden", '"round": [1], "verdict": "passed"'), ("hidden", '"verdict": "solved"'),
        ("thought", '"round": [1]'), ("thought", '"round": "last"'), ("round", '"scores": 5'),
        ("round", '"round": {"a": 1}'), ("feedback", '"errors": 5'), ("feedback", '"errors": [1]'),
        ("workflow", '"operators": {"a": 1}'), ("call", '"cached": 1'), ("call", '"error": ["x"]'),
        ("call", '"cost_usd": "free"'), ("trial", '"passed": "yes"'), ("node", '"number": "x"'),
    )),
    *(f'{{"kind": "{kind}", {rest}}}' for kind in ("result", "call", "hidden", "round", "verdict")
      for rest in (
        '"verdict": "passed"', '"result_key": "key-0"',
        '"result_key": "key-0", "problem_id": "HumanEval/0"',
        '"result_key": ["key-0"], "problem_id": "HumanEval/0", "sample": 0',
        '"result_key": "key-0", "problem_id": ["HumanEval/0"], "sample": 0',
        '"result_key": "key-0", "problem_id": "HumanEval/0", "sample": {"a": 1}',
    )),
    '{"kind": "call", "result_key": {"a": 1}}', '{"kind": "thought", "result_key": 5}',
    '{"kind": "artifact"}', '{"kind": "artifact", "sha256": "a"}',
    '{"kind": "artifact", "sha256": "a", "text": "b"}', '{"kind": "artifact", "text": ["b"]}',
    '{"kind": "session", "event": ["start"]}', '{"kind": "session", "at": "now"}',
    '{"kind": "session", "event": "start", "asked": 5}',
    '{"kind": "session", "event": "start", "left_out": [1]}',
    '{"kind": "session", "event": "start", "config": [1]}',
    '{"kind": "session", "event": "start", "forecast": 5}',
    '{"kind": "session", "event": "start", "problems": "all"}',
    '{"kind": ["result"]}', "[1]", "null", '{"kind": "result"', "\x00", "[" * 9999,
]  # fmt: skip


async def test_what_the_database_leaves_out_no_command_stumbles_over(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    def plan(limit: str) -> Plan:
        model = ScriptedModel("scripted/known", lambda messages: "def f(): pass")
        config = api.Config(method="vanilla", out=tmp_path, limit=limit)
        return api.prepare(config, models={"worker": model})

    summary = await api.execute(plan("2"), sandbox=sandbox)
    (run_dir,) = (tmp_path / "runs").iterdir()
    store, said, before = Store(tmp_path), list[str](), list[str]()
    show_run(tmp_path, run_dir.name, before.append)
    clean = in_words(store)
    (made, *_) = (r for r in read_run(run_dir) if r["kind"] == "result")
    lines = [one.replace("key-0", made["result_key"]) for one in HOSTILE]
    (run_dir / "0002.jsonl").write_text("\n".join(lines) + "\n")
    report = store.ingest()
    assert (report.records, report.broken) == (0, len(lines))
    del clean["segments"]
    for read in (store.ingest, store.rebuild):
        read()
        found = in_words(store)
        del found["segments"]
        assert found == clean
    show_run(tmp_path, run_dir.name, said.append)
    assert said == before
    for problem in ("0", "1"):
        show_run(tmp_path, run_dir.name, said.append, problem)
    with contextlib.redirect_stdout(io.StringIO()) as listed:
        list_runs(tmp_path)
    assert run_dir.name in listed.getvalue()
    assert len(of_run(tmp_path, run_dir.name)[1]) == 2
    with Keeper(run_dir, environment="e") as keeper:
        keeper.expect([])
    again = await api.execute(plan("3"), sandbox=sandbox)
    assert (again.run_id, again.status) == (summary.run_id, "complete")
    assert len([r for r in read_run(run_dir) if r["kind"] == "result"]) == 3
    api.resumed(tmp_path, run_dir.name)


class Chances:
    """Two results folders that live through what results folders live through, by a seed."""

    VERDICTS = ("passed", "wrong", "invalid", "timeout")

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.stores = [Store(folder / name) for name in ("a", "b")]
        for store in self.stores:
            (store.results_dir / "runs").mkdir(parents=True)

    def step(self, store: Store) -> None:
        """One thing that happens to a folder."""
        other = self.stores[store is self.stores[0]]
        runs = sorted((store.results_dir / "runs").iterdir())
        match self.chance.choices(
            ["write", "read", "grow", "head", "merge", "delete", "copy"], [6, 4, 4, 2, 2, 1, 1]
        )[0]:
            case "write":
                self.write(store.results_dir)
            case "read":
                store.ingest()
            case "grow":
                for run_dir in runs:
                    self.grow(segments(run_dir)[:-1])
            case "head" if runs:
                path = self.chance.choice(runs) / "run.json"
                told = json.loads(path.read_text())
                path.write_text(json.dumps({**told, "grader_version": self.chance.choice("23")}))
            case "merge":
                merge(store.results_dir, [other.results_dir])
            case "delete" if runs:
                store.delete(self.chance.choice(runs).name)
            case "copy" if store.path.exists():
                store.snapshot()

    def result(self, run_id: str) -> dict[str, Any]:
        """A result of one of some samples, as strange as one may be."""
        pick, problem, sample = (
            self.chance.choice,
            self.chance.randrange(5),
            self.chance.randrange(2),
        )
        return {
            "kind": "result", "result_key": f"{run_id} {problem} {sample}",
            "problem_id": f"P/{problem}", "sample": sample, "verdict": pick(self.VERDICTS),
            "fresh": pick([None, "passed", "wrong"]), "calls": pick([None, 1, 2]),
            "prompt_tokens": pick([None, 5]), "completion_tokens": 7, "cached_calls": 0,
            "cost_usd": pick([None, 0.5]), "fresh_cost_usd": 0.5, "wall_s": pick([None, 0.25]),
            "solution_sha": pick("st"), "rounds": pick([None, 1]),
            **pick([{}, {}, {"grader_version": "9"}]),
        }  # fmt: skip

    def write(self, results_dir: Path) -> None:
        """A process that writes one of some runs, and ends well or does not."""
        run_id = f"run-{self.chance.randrange(3)}"
        run_dir = results_dir / "runs" / run_id
        if run_dir.exists():
            journal = Journal(run_dir)
        else:
            journal = begin(results_dir, run_id, benchmark=f"bench {run_id < 'run-2'}",
                            config_hash="c", n_samples=2, grader_version="2")  # fmt: skip
        journal.write("session", event="start", problems=4, samples=8, n_samples=2,
                      asked=[f"P/{number}" for number in range(4)], environment="e1")  # fmt: skip
        for _ in range(self.chance.randrange(1, 10)):
            made = self.result(run_id)
            journal.write(made.pop("kind"), **made)
            if self.chance.random() < 0.5:
                graded = self.result(run_id)
                names = ("result_key", "problem_id", "sample", "verdict", "fresh", "solution_sha")
                journal.write("verdict", **{name: graded[name] for name in names},
                              grader_version="3", environment="e2")  # fmt: skip
            if self.chance.random() < 0.1:
                journal.write("result", result_key=5)
        if self.chance.random() < 0.7:
            journal.write("session", event="end", status="complete")
        journal.close()
        if self.chance.random() < 0.2:
            with segments(run_dir)[-1].open("a") as file:
                file.write('{"kind": "resu')

    def grow(self, earlier: Sequence[Path]) -> None:
        """An earlier segment of a run gets a line, as by a merge of a copy that was longer."""
        for path in earlier:
            if self.chance.random() < 0.3:
                text = path.read_text()
                line = json.dumps(self.result(path.parent.name))
                path.write_text(text[: text.rfind("\n") + 1] + line + "\n")


def worked_out(results_dir: Path) -> tuple[set[tuple[Any, ...]], set[tuple[Any, ...]]]:
    """(what each sample counts as, the sums of each problem), from the journals by hand."""
    held, by_problem = set(), dict[tuple[str, str], list[dict[str, Any]]]()
    for run_dir in (results_dir / "runs").iterdir():
        told = json.loads((run_dir / "run.json").read_text())
        for row in last_results(read_run(run_dir)).values():
            grader = row.get("grader_version") or told["grader_version"]
            sample = f"{row['problem_id']} {row['sample']}"
            held.add((run_dir.name, sample, row["verdict"], row["fresh"], grader))
            by_problem.setdefault((run_dir.name, row["problem_id"]), []).append(row)
    sums = set()
    for names, found in by_problem.items():

        def total(*parts: str, found: list[dict[str, Any]] = found) -> float | None:
            values = [row[part] for row in found for part in parts]
            return None if None in values else sum(values)

        graded = [row["verdict"] for row in found if row["verdict"] != "invalid"]
        counts = len(found), len(graded), graded.count("passed")
        spent = total("calls"), total("prompt_tokens", "completion_tokens"), total("cost_usd")
        sums.add((*names, *counts, *spent, total("wall_s"), total("rounds")))
    return held, sums


HOLDS = (
    "SELECT run_id, problem_id || ' ' || sample, verdict, fresh, r.grader_version "
    "FROM results AS r JOIN runs USING (run_no)"
)
SUMS = (
    "SELECT run_id, problem_id, samples, graded, passed, calls, tokens, cost_usd, wall_s, rounds "
    "FROM problem_rollup JOIN runs USING (run_no) JOIN problems USING (problem_no, benchmark)"
)


@pytest.mark.parametrize("seed", [12])  # in which all happens that once went wrong
def test_whatever_happens_the_database_says_what_the_journals_say(
    tmp_path: Path, seed: int
) -> None:
    lives = Chances(tmp_path, seed)
    for number in range(24):
        store = lives.chance.choice(lives.stores)
        lives.step(store)
        if number % 6 != 5:
            continue
        store.ingest()
        with duckdb.connect(str(store.path), read_only=True) as connection:
            held, sums = (connection.execute(query).fetchall() for query in (HOLDS, SUMS))
        assert (set(held), set(sums)) == worked_out(store.results_dir)
        assert len(held) == len(set(held))
        assert as_a_rebuild_says(store)
