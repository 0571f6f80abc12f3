"""Runs of other machines come into ours: whole or not at all, once, and named when refused."""

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from harness.errors import StoreError, UsageError
from harness.journal import Journal
from harness.merge import MergeReport, merge
from harness.store import Store, open_snapshot

ALL = [f"HumanEval/{number}" for number in range(4)]


def begin(results_dir: Path, run_id: str = "run-a", **fields: Any) -> Journal:
    """A run folder with its run.json and an open journal, as some machine made it."""
    journal = Journal(results_dir / "runs" / run_id)
    head = {"run_id": run_id, "config_hash": "c" * 64, "benchmark": "humaneval", "method": "direct",
            "benchmark_digest": "d" * 64, "kind": "measured", "started_at": 1.0, "n_samples": 1,
            "roles": {"worker": {"model": "local/small", "sampling": {"seed": 1}}},
            **fields}  # fmt: skip
    if not (path := journal.run_dir / "run.json").exists():
        path.write_text(json.dumps(head))
    return journal


def shard(
    results_dir: Path, numbers: Iterable[int], verdict: str = "passed", **fields: Any
) -> Path:
    """A session of run-a that does these problems; the run's folder."""
    journal = begin(results_dir, **fields)
    asked = [ALL[number] for number in numbers]
    journal.write("session", event="start", problems=len(asked), samples=len(asked), asked=asked)
    for problem_id in asked:
        key: dict[str, Any] = {"result_key": f"key {problem_id}", "problem_id": problem_id,
                               "sample": 0}  # fmt: skip
        journal.write("call", **key, call_no=1, cost_usd=0.5)
        journal.write("result", **key, verdict=verdict, calls=1, cost_usd=0.5,
                      solution_sha=journal.artifact(f"{verdict} {problem_id}"))  # fmt: skip
    journal.write("session", event="end", status="complete")
    journal.close()
    return journal.run_dir


def rows(results_dir: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(results_dir / "harness.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


HELD = "SELECT problem_id, verdict FROM results ORDER BY ALL"


def files(results_dir: Path) -> dict[str, bytes]:
    """Everything under `runs`, and what a merge may leave behind beside it."""
    return {
        path.relative_to(results_dir).as_posix(): path.read_bytes()
        for place in ("runs/*/*", "runs/*/.merge-*", ".merge-*/*")
        for path in results_dir.glob(place)
        if path.name != ".lock"
    }


def told(report: MergeReport) -> list[tuple[str, str, int, int, int]]:
    return [(one.run_id, one.outcome, one.segments, one.samples, one.again)
            for one in report.merged]  # fmt: skip


def test_a_new_run_comes_as_it_is_and_stands_on_the_board(tmp_path: Path) -> None:
    there = shard(tmp_path / "there", range(4))
    (there / "artifact.json").write_text("{}")
    report = merge(tmp_path / "here", [tmp_path / "there"])
    assert told(report) == [("run-a", "new", 1, 4, 0)]
    assert files(tmp_path / "here") == files(tmp_path / "there")
    with open_snapshot(tmp_path / "here") as board:
        assert board.execute("SELECT run_id, complete FROM runs").fetchall() == [("run-a", True)]
    assert [*report.lines()] == [
        f"run-a: new from {tmp_path / 'there'}, 1 segments with 4 samples",
        "1 new, 0 extended, 0 as before, 0 left out",
    ]


def test_two_shards_become_one_run_and_the_same_merge_again_changes_nothing(
    tmp_path: Path,
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shard(here, (0, 1))
    shard(there, (2, 3), limit=7, host="another", started_at=2.0)
    assert told(merge(here, [there])) == [("run-a", "extended", 1, 2, 0)]
    assert rows(here, "SELECT run_id, samples_asked, complete FROM runs") == [("run-a", 4, True)]
    assert rows(here, HELD) == [(problem_id, "passed") for problem_id in ALL]
    before = files(here)
    assert sorted(before) == ["runs/run-a/0001.jsonl", "runs/run-a/0002.jsonl",
                              "runs/run-a/run.json"]  # fmt: skip
    assert told(merge(here, [there, there])) == [("run-a", "same", 0, 0, 0)] * 2
    assert files(here) == before
    assert told(merge(there, [here])) == [("run-a", "extended", 1, 2, 0)]  # and back
    assert rows(there, "SELECT count(*), sum(cost_usd) FROM calls") == [(4, 2.0)]


def test_of_samples_that_both_sides_graded_what_comes_last_holds_and_that_is_said(
    tmp_path: Path,
) -> None:
    here = tmp_path / "here"
    shard(here, (0, 1, 2), "wrong")
    shard(tmp_path / "b", (2, 3), "passed")
    shard(tmp_path / "c", (2,), "timeout")
    report = merge(here, [tmp_path / "b", tmp_path / "c"])
    assert told(report) == [("run-a", "extended", 1, 2, 1), ("run-a", "extended", 1, 1, 1)]
    assert [verdict for _, verdict in rows(here, HELD)] == ["wrong", "wrong", "timeout", "passed"]
    assert "1 of them graded here already: the new ones hold" in next(report.lines())
    before = rows(here, HELD)
    Store(here).rebuild()
    assert rows(here, HELD) == before


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"config_hash": "e" * 64}, "config_hash is"), ({"benchmark_digest": "0"}, "benchmark_digest"),
     ({"kind": "simulated"}, "kind"), ({"origin": {"format": "evalplus"}}, "origin"),
     ({"roles": {"worker": {"model": "local/large"}}}, "roles.worker"),
     ({"roles": {"worker": {"model": "local/small", "sampling": {"seed": 1}}, "meta": {}}},
      "roles is")],
)  # fmt: skip
def test_another_run_of_the_same_name_is_refused_and_nothing_of_it_is_taken(
    tmp_path: Path, fields: dict[str, Any], named: str
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shard(here, (0, 1))
    before = files(here)
    other = shard(there, (2, 3), **fields)
    report = merge(here, [there])
    assert list(report.refused) == [str(other)]
    assert f"another run of the same name: {named}" in report.refused[str(other)]
    assert files(here) == before
    assert [*report.lines()][-1] == "0 new, 0 extended, 0 as before, 1 left out"


def test_without_a_config_hash_only_the_very_same_run_is_extended(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shard(here, (0,), config_hash=None)
    shard(there, (1,), config_hash=None, commit="another")
    assert "no config_hash says" in next(iter(merge(here, [there]).refused.values()))
    shutil.rmtree(there)
    shard(there, (1,), config_hash=None)
    assert told(merge(here, [there])) == [("run-a", "extended", 1, 1, 0)]


def test_a_file_that_was_imported_on_two_machines_is_counted_once(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for place, at in ((here, 1.0), (there, 2.0)):
        origin = {"format": "evalplus", "sha256": "0", "file": str(place), "imported_at": at}
        fields = {"config_hash": None, "kind": "imported", "origin": origin}
        shard(place, (0,), "passed" if place == here else "wrong", **fields)
    (reason,) = merge(here, [there]).refused.values()
    assert "the same file was imported on both sides" in reason
    shutil.rmtree(there)
    shutil.copytree(here, there)
    shard(there, (1,))  # it went on there, with later gradings say
    assert told(merge(here, [there])) == [("run-a", "extended", 1, 1, 0)]


@pytest.mark.parametrize("written", ["here", "there"])
def test_a_run_that_is_being_written_is_left_out_by_name_and_the_others_come(
    tmp_path: Path, written: str
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shard(here, (0,))
    shard(there, (1,))
    begin(there, "run-b").close()
    writer = begin(tmp_path / written)
    before = files(here)
    report = merge(here, [there])
    assert told(report) == [("run-b", "new", 0, 0, 0)]
    assert "writ" in report.refused[str(there / "runs" / "run-a")]
    now = files(here)
    del now["runs/run-b/run.json"]
    assert now == before
    writer.close()
    assert merge(here, [there]).refused == {}


def test_of_a_torn_segment_the_whole_lines_come_and_the_rest_when_it_has_grown(
    tmp_path: Path,
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    segment = shard(there, (0, 1)) / "0001.jsonl"
    whole = segment.read_bytes()
    cut = whole.rindex(b'"HumanEval/1"')  # in the middle of a line, as a copy of a live run is
    segment.write_bytes(whole[:cut])
    assert told(merge(here, [there])) == [("run-a", "new", 1, 1, 0)]
    ours = here / "runs" / "run-a" / "0001.jsonl"
    assert ours.read_bytes() == whole[: whole[:cut].rindex(b"\n") + 1]
    assert told(merge(here, [there])) == [("run-a", "same", 0, 0, 0)]
    segment.write_bytes(whole)
    assert told(merge(here, [there])) == [("run-a", "extended", 1, 1, 0)]
    assert ours.read_bytes() == whole
    assert rows(here, "SELECT count(*) FROM calls") == [(2,)]  # counted once
    segment.write_bytes(whole[:cut])  # an older copy has nothing that is not here
    assert told(merge(here, [there])) == [("run-a", "same", 0, 0, 0)]


def test_what_describes_no_run_and_what_leads_elsewhere_is_left_out_by_name(
    tmp_path: Path,
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    runs = there / "runs"
    shard(there, (0,))
    (runs / "half").mkdir()  # a copy that has not got as far as run.json
    (runs / "half" / "0001.jsonl").write_text("")
    shutil.copytree(runs / "run-a", runs / "renamed")
    (runs / "linked").symlink_to(runs / "run-a")
    secret = tmp_path / "secret.jsonl"
    secret.write_text('{"kind": "secret"}\n')
    begin(there, "linking").close()
    (runs / "linking" / "0002.jsonl").symlink_to(secret)
    begin(there, "deep").close()
    (runs / "deep" / "folder").mkdir()
    (runs / "notes.txt").write_text("not a run")
    report = merge(here, [there])
    assert told(report) == [("run-a", "new", 1, 1, 0)]
    assert {Path(place).name: reason.partition(":")[0] for place, reason in
            report.refused.items()} == {
        "deep": "folder in it is no plain file",
        "half": f"{runs / 'half' / 'run.json'}",
        "linked": "is a symbolic link; merge the folder that it leads to",
        "linking": "0002.jsonl in it is no plain file",
        "renamed": "its run.json holds the id 'run-a'",
    }  # fmt: skip
    assert [path.name for path in (here / "runs").iterdir()] == ["run-a"]


def test_a_half_copied_folder_of_ours_is_not_filled_up(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shard(there, (0,))
    (here / "runs" / "run-a").mkdir(parents=True)
    (reason,) = merge(here, [there]).refused.values()
    assert "not readable as a run" in reason
    assert files(here) == {}


def test_folders_that_are_no_results_are_refused_before_anything_is_taken(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    run_dir = shard(there, (0,))
    (tmp_path / "empty").mkdir()
    for wrong, said in (
        (tmp_path / "mistyped", "there is no such folder"),
        (tmp_path / "empty", "holds no folder `runs`"),
        (run_dir, "give the results folder"),
        (there / "runs", "give the results folder"),
        (here, "is the folder to merge into"),
    ):
        here.mkdir(exist_ok=True)
        with pytest.raises(UsageError, match=said):
            merge(here, [there, wrong])
    assert list(here.iterdir()) == []
    (tmp_path / "empty" / "runs").mkdir()
    report = merge(here, [tmp_path / "empty", there])
    assert (report.refused, told(report)) == (
        {str(tmp_path / "empty"): "holds no runs"}, [("run-a", "new", 1, 1, 0)],
    )  # fmt: skip


def test_a_search_is_taken_when_it_went_on_and_refused_when_it_is_another(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shard(here, (0,), stage="fit")
    shutil.copytree(here, there)
    shard(there, (1,))
    (here / "runs" / "run-a" / "artifact.json").write_text('{"found": 0}')
    (there / "runs" / "run-a" / "artifact.json").write_text('{"found": 1}')
    head = json.loads((there / "runs" / "run-a" / "run.json").read_text())
    (there / "runs" / "run-a" / "run.json").write_text(json.dumps({**head, "started_at": 5.0}))
    report = merge(here, [there])
    assert told(report) == [("run-a", "extended", 1, 1, 0)]
    assert (here / "runs" / "run-a" / "artifact.json").read_text() == '{"found": 1}'
    assert rows(here, "SELECT started_at FROM runs") == [(5.0,)]
    assert told(merge(here, [there])) == [("run-a", "same", 0, 0, 0)]
    shard(tmp_path / "other", (2,), stage="fit")
    (reason,) = merge(here, [tmp_path / "other"]).refused.values()
    assert "another search of the same name" in reason


def test_a_first_look_that_was_extended_elsewhere_is_none_any_more(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shard(here, (0,), first_look=True)
    shard(there, (1,), first_look=False)
    merge(here, [there])
    assert rows(here, "SELECT first_look FROM runs") == [(False,)]


def test_only_one_merge_is_under_way(tmp_path: Path) -> None:
    from harness.merge import _only_merge

    shard(tmp_path / "there", (0,))
    (tmp_path / "here").mkdir()
    with _only_merge(tmp_path / "here"), pytest.raises(StoreError, match="another merge"):
        merge(tmp_path / "here", [tmp_path / "there"])


KILLED = """
import os, pathlib, signal, sys
from harness.merge import merge
left = int(sys.argv[3])
def watch(event, args):
    global left
    opened = event == "open" and ".merge-" in str(args[0]) and "w" in str(args[1])
    renamed = event == "os.rename" and ".merge-" in str(args[0])
    if opened or renamed:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
merge(pathlib.Path(sys.argv[1]), [pathlib.Path(sys.argv[2])])
"""


def test_a_merge_that_is_killed_leaves_nothing_half_and_the_next_one_does_the_rest(
    tmp_path: Path,
) -> None:
    there = tmp_path / "there"
    shard(there, (2,))
    shard(there, (3,))
    journal = begin(there, "run-b")
    journal.artifact("x")
    journal.close()
    whole = {name: text for name, text in files(there).items() if name.startswith("runs/run-b/")}
    segments = set(files(there).values())
    for point in (1, 3, 6, 7):  # of 7 files begun or renamed: inside a segment, between two, inside
        here = tmp_path / f"here{point}"  # a new folder, and none
        shard(here, (0, 1))
        first = files(here)
        child = subprocess.run([sys.executable, "-c", KILLED, here, there, str(point)])
        assert child.returncode == (0 if point == 7 else -signal.SIGKILL)
        found = {name: text for name, text in files(here).items() if "/.merge-" not in f"/{name}"}
        assert first.items() <= found.items()
        came = {name: text for name, text in found.items() if name not in first}
        assert set(came.values()) <= segments  # each one whole
        if any(name.startswith("runs/run-b/") for name in came):
            assert whole.items() <= came.items()
        merge(here, [there])
        assert sorted(files(here)) == [
            *(f"runs/run-a/000{number}.jsonl" for number in (1, 2, 3)), "runs/run-a/run.json",
            "runs/run-b/0001.jsonl", "runs/run-b/run.json",
        ]  # fmt: skip
        assert rows(here, HELD) == [(problem_id, "passed") for problem_id in ALL]
        assert rows(here, "SELECT count(*) FROM calls") == [(4,)]


def test_a_sample_counts_once_however_often_its_run_says_it(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shard(there, (0, 1))
    shard(there, (1, 2), "wrong")
    assert told(merge(here, [there])) == [("run-a", "new", 2, 3, 0)]
    with (there / "runs" / "run-a" / "0001.jsonl").open("a") as file:  # one that is here, one new
        for problem_id in (ALL[0], ALL[3]):
            made = {"kind": "result", "result_key": f"key {problem_id}", "problem_id": problem_id}
            file.write(json.dumps({**made, "sample": 0, "verdict": "timeout"}) + "\n")
        file.write('{"kind": "result", "result_key": ["none"]}\n')
    assert told(merge(here, [there])) == [("run-a", "extended", 1, 2, 1)]
    assert rows(here, HELD) == [(ALL[0], "timeout"), (ALL[1], "wrong"), (ALL[2], "wrong"),
                                (ALL[3], "timeout")]  # fmt: skip


def test_a_merge_onto_a_full_disk_leaves_nothing_half(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shard(here, (0,))
    shard(there, range(4))
    shard(there, range(4), run_id="run-b")
    before = files(here)
    most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        for _ in range(2):
            with pytest.raises(StoreError, match="File too large"):
                merge(here, [there])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    assert files(here) == before
    assert [one.outcome for one in merge(here, [there]).merged] == ["extended", "new"]
