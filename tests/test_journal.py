"""The journal: what a kill, a full disk or a stranger's line can do to it."""

import fcntl
import os
import threading

import pytest

from harness.errors import StoreError
from harness.journal import Journal, read_run, read_segment, segments


def test_a_torn_last_line_is_not_read_and_the_next_process_writes_elsewhere(tmp_path):
    journal = Journal(tmp_path)
    journal.write("note", n=1)
    journal.close()
    with segments(tmp_path)[0].open("ab") as file:
        file.write(b'{"kind": "note", "n"')
    journal = Journal(tmp_path)
    journal.write("note", n=2)
    journal.close()
    assert [r["n"] for r in read_run(tmp_path)] == [1, 2]


def test_a_foreign_line_is_reported_as_none_and_costs_only_itself(tmp_path):
    path = tmp_path / "0001.jsonl"
    path.write_text('{"kind": "note"}\nnonsense\n[1]\n{"kind": "note"}\n')
    records = [record for _, _, record in read_segment(path)]
    assert [r is None for r in records] == [False, True, True, False]


def test_reading_goes_on_from_an_offset(tmp_path):
    journal = Journal(tmp_path)
    journal.write("note", n=1)
    (path,) = segments(tmp_path)
    ((_, end, _),) = list(read_segment(path))
    journal.write("note", n=2)
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
