"""The journal: what a kill, a full disk or a stranger's line can do to it."""

import fcntl
import os
import threading

import pytest

from harness.errors import StoreError
from harness.journal import (
    Journal,
    read_run,
    read_segment,
    regraded,
    segments,
    whole,
    write_atomically,
)


def test_a_torn_last_line_is_not_read_and_the_next_process_writes_elsewhere(tmp_path):
    journal = Journal(tmp_path)
    journal.write("note", result_key="k", n=1)
    journal.close()
    with segments(tmp_path)[0].open("ab") as file:
        file.write(b'{"kind": "note", "n"')
    journal = Journal(tmp_path)
    journal.write("note", result_key="k", n=2)
    journal.close()
    assert [r["n"] for r in read_run(tmp_path)] == [1, 2]


def test_a_foreign_line_is_reported_as_none_and_costs_only_itself(tmp_path):
    path = tmp_path / "0001.jsonl"
    note = '{"kind": "note", "result_key": "k"}'
    path.write_text(f"{note}\nnonsense\n[1]\n{note}\n")
    records = [record for _, _, record in read_segment(path)]
    assert [r is None for r in records] == [False, True, True, False]


def test_reading_goes_on_from_an_offset(tmp_path):
    journal = Journal(tmp_path)
    journal.write("note", result_key="k", n=1)
    (path,) = segments(tmp_path)
    ((_, end, _),) = list(read_segment(path))
    journal.write("note", result_key="k", n=2)
    journal.close()
    assert [r["n"] for _, _, r in read_segment(path, end) if r] == [2]


def test_a_text_is_stored_once(tmp_path):
    journal = Journal(tmp_path)
    assert journal.artifact("same") == journal.artifact("same")
    journal.close()
    assert len(list(read_run(tmp_path))) == 1


def test_what_a_model_wrote_survives_whatever_its_characters(tmp_path):
    text = "nul \x00, escape \x1b[2J, line \u2028, half a pair \ud800, \N{PILE OF POO}"
    journal = Journal(tmp_path)
    journal.artifact(text)
    journal.close()
    assert [r["text"] for r in read_run(tmp_path)] == [text]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is not there")
def test_a_full_disk_is_one_line(tmp_path):
    journal = Journal(tmp_path)
    os.dup2(os.open("/dev/full", os.O_WRONLY), journal._file)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        journal.write("note")
    assert "\n" not in str(caught.value)


def test_a_closed_journal_writes_into_no_other_file(tmp_path):
    closed, other = Journal(tmp_path / "a"), None
    closed.close()
    other = Journal(tmp_path / "b")  # likely to get the same descriptor
    with pytest.raises(StoreError, match="its journal is closed"):
        closed.write("note")
    other.close()
    assert list(read_run(tmp_path / "b")) == []


def test_what_is_no_data_is_refused(tmp_path):
    journal = Journal(tmp_path)
    with pytest.raises(StoreError, match="a note that is no data"):
        journal.write("note", value=float("nan"))
    journal.close()


def test_a_reader_that_looks_who_writes_keeps_no_writer_out(tmp_path):
    Journal(tmp_path).close()
    reader = os.open(tmp_path / ".lock", os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_SH)
    done = threading.Timer(0.2, os.close, [reader])
    done.start()
    Journal(tmp_path).close()
    done.join()


def test_a_second_writer_is_told_who_writes(tmp_path):
    journal = Journal(tmp_path)
    with pytest.raises(StoreError, match=f"process {os.getpid()} is writing this run"):
        Journal(tmp_path)
    journal.close()
    Journal(tmp_path).close()


def test_only_files_with_a_number_are_segments_and_the_next_one_is_the_highest(tmp_path):
    for name in ("0002.jsonl", "10.jsonl", "\u00b2.jsonl", "99999999999.jsonl", "old.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "0011.jsonl").mkdir()
    assert [path.name for path in segments(tmp_path)] == ["0002.jsonl", "10.jsonl"]
    (tmp_path / "0011.jsonl").rmdir()
    Journal(tmp_path).close()
    assert [path.name for path in segments(tmp_path)][2:] == ["0011.jsonl"]


def test_what_resuming_reads_is_there_and_of_its_type():
    call = {"kind": "call", "at": 1.0, "result_key": "k", "request_sha": "a", "model": "m",
            **dict.fromkeys(("response_sha", "error", "latency_s", "prompt_tokens", "cost_usd",
                             "completion_tokens", "cached_tokens", "reasoning_tokens",
                             "finish"))}  # fmt: skip
    assert whole(call)
    assert whole({**call, "charged_usd": 0.5, "occurrence": 1})
    assert not whole({**call, "charged_usd": "much"})
    assert not whole({**call, "occurrence": [1]})
    assert not whole({**call, "model": None})
    assert not whole({name: value for name, value in call.items() if name != "finish"})
    assert not whole({"kind": "session", "event": "end", "at": 1.0, "elapsed_s": "long"})
    assert whole({"kind": "vote", "result_key": "k"})


def test_a_result_that_was_graded_again_counts_how_often_and_keeps_its_further_runs():
    made = {"kind": "result", "verdict": "wrong", "solution_sha": "s", "reruns": ["wrong"]}
    later = {"kind": "verdict", "verdict": "passed", "solution_sha": "s", "grader_version": "3"}
    twice = regraded(regraded(made, later), later)
    assert (twice["verdict"], twice["reruns"], twice["regrades"]) == ("passed", ["wrong"], 2)
    assert regraded(made, {**later, "solution_sha": "t"}) is made


def test_a_small_file_that_cannot_be_replaced_leaves_nothing_beside_it(tmp_path):
    (tmp_path / "run.json").mkdir()
    with pytest.raises(StoreError, match="cannot write: Is a directory"):
        write_atomically(tmp_path / "run.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
