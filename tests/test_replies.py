"""The cache of replies: one question is paid for once, by all tasks and processes together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import replies
from harness.errors import StoreError
from harness.replies import Kept, ReplyCache, reply_key
from harness.types import Completion, Message, Sampling

REPLY = Kept(
    Completion("def f(): ...", 12, 34, 5, 6, "stop", "m-2026-01-01", ("top_p",)),
    asked_at=1_790_000_000.5,
    latency_s=0.25,
)
QUESTION: list[Message] = [{"role": "user", "content": "Why?"}]
PATIENCE_S = 60.0  # no test waits so long unless it fails


def reply(text: str, **changes: Any) -> Kept:
    return replace(REPLY, completion=replace(REPLY.completion, text=text, **changes))


async def ask(cache: ReplyCache, key: str, answer: Kept = REPLY) -> bool:
    """Whether the question had to be asked."""
    async with cache.claim(key) as claim:
        if claim.kept is None:
            claim.keep(answer)
            return True
    return False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "replies.sqlite"


# -- keys ------------------------------------------------------------------------------------------


def test_everything_that_decides_a_reply_is_in_its_key() -> None:
    given: dict[str, Any] = {
        "identity": {"name": "openai/a", "base_url": "http://one"},
        "messages": QUESTION,
        "sampling": Sampling(),
        "seed": 0,
        "draw": (0, 0),
    }
    others: list[dict[str, Any]] = [
        {"identity": {"name": "openai/a", "base_url": "http://two"}},
        {"messages": [{"role": "system", "content": "Why?"}]},
        {"messages": [*QUESTION, *QUESTION]},
        {"sampling": Sampling(temperature=0.5)},
        {"sampling": Sampling(max_tokens=7)},
        {"sampling": Sampling(top_p=1.0)},
        {"sampling": Sampling(reasoning_effort="low")},
        {"sampling": Sampling(extra_body={"top_k": 1})},
        {"seed": 1},
        {"seed": None},
        {"draw": (0, 1)},
        {"draw": (1, 0)},
    ]
    keys = [reply_key(**given), *(reply_key(**given | other) for other in others)]
    assert len(set(keys)) == len(keys)


def test_one_question_written_in_two_ways_has_one_key() -> None:
    identity = {"name": "openai/a", "base_url": "http://one"}
    turned = dict(reversed(identity.items()))
    message: Message = {"content": "Why?", "role": "user"}
    first = reply_key(identity, QUESTION, Sampling(0.0, top_p=1.0), 0, [0, 0])
    assert reply_key(turned, [message], Sampling(0, top_p=1), 0, (0, 0)) == first


# -- what is kept ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kept",
    [REPLY, Kept(Completion("", None, None), 1.0, 0.0), reply("\ud83d \U0001f600 \0 é")],
    ids=["all fields", "nothing reported", "odd characters"],
)
async def test_a_reply_comes_back_as_it_was(path: Path, kept: Kept) -> None:
    with ReplyCache(path) as cache:
        assert await ask(cache, "a", kept)
    with ReplyCache(path) as cache:
        async with cache.claim("a") as claim:
            assert claim.kept == kept
        async with cache.claim("b") as claim:
            assert claim.kept is None


async def test_off_reads_writes_and_makes_nothing(path: Path) -> None:
    with ReplyCache(path) as cache:
        await ask(cache, "a")
    before = path.read_bytes()
    with ReplyCache(path, "off") as cache:
        assert [await ask(cache, "a"), await ask(cache, "b")] == [True, True]
        assert cache.info().replies == 0
    assert path.read_bytes() == before
    other = path.parent / "other" / "replies.sqlite"
    with ReplyCache(other, "off") as cache:
        assert await ask(cache, "a")
    assert not other.parent.exists()


async def test_read_takes_what_is_there_and_writes_nothing(path: Path) -> None:
    with ReplyCache(path) as cache:
        await ask(cache, "a")
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    with ReplyCache(path, "read") as cache:
        assert [await ask(cache, "a"), await ask(cache, "b"), await ask(cache, "b")] == [
            False,
            True,
            True,
        ]
        with pytest.raises(StoreError):
            cache.clear()
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


async def test_read_finds_what_a_running_process_keeps(path: Path) -> None:
    with ReplyCache(path) as cache, ReplyCache(path, "read") as reader:
        assert await ask(cache, "a")
        assert not await ask(reader, "a")


async def test_read_without_a_file_makes_none(path: Path) -> None:
    said: list[str] = []
    with ReplyCache(path, "read", said.append) as cache:
        assert await ask(cache, "a")
        assert cache.info().replies == 0
    assert (list(path.parent.iterdir()), said) == ([], [])


async def test_info_counts_by_model_and_clear_deletes_by_model_or_age(path: Path) -> None:
    with ReplyCache(path) as cache:
        for model, day, tokens in (("a/x", 30, 1), ("a/x", 10, 2), ("b/y", 30, None)):
            done = Completion("t", tokens, tokens, model="served")
            kept = Kept(done, time.time() - 86_400 * day, 1.0)
            async with cache.claim(f"{model} {day}", model=model) as claim:
                claim.keep(kept)
        async with cache.claim("no name") as claim:
            claim.keep(replace(REPLY, asked_at=time.time()))
        info = cache.info()
        assert info.replies == 4
        assert info.models == {"a/x": (2, 6), "b/y": (1, 0), "m-2026-01-01": (1, 46)}
        assert info.bytes >= path.stat().st_size
        assert info.oldest is not None
        assert info.newest is not None
        assert round((info.newest - info.oldest) / 86_400) == 30
        assert cache.clear(model="a/x", older_than_days=20) == 1
        assert cache.clear(older_than_days=20) == 1
        assert cache.clear(model="nobody") == 0
        assert cache.info().models == {"a/x": (1, 4), "m-2026-01-01": (1, 46)}
        assert cache.clear() == 2
        assert cache.info().replies == 0


async def test_clearing_gives_the_disk_back_and_a_running_process_asks_again(path: Path) -> None:
    with ReplyCache(path) as running:
        for number in range(200):
            await ask(running, str(number), reply(random.Random(number).randbytes(2000).hex()))
        with ReplyCache(path) as cache:
            full = cache.info().bytes
            assert cache.clear() == 200
            assert cache.info().bytes < full / 10
        assert [await ask(running, "7"), await ask(running, "7")] == [True, False]


# -- one asker at a time ---------------------------------------------------------------------------


async def test_ten_thousand_claims_of_five_hundred_questions_ask_each_once(path: Path) -> None:
    asked: Counter[str] = Counter()
    answers: list[str] = []

    async def one(key: str) -> None:
        async with cache.claim(key) as claim:
            if claim.kept is None:
                asked[key] += 1
                await asyncio.sleep(0)
                claim.keep(reply(key))
            else:
                answers.append("right" if claim.kept.completion.text == key else "wrong")

    with ReplyCache(path) as cache:
        await asyncio.gather(*(one(f"q{n % 500}") for n in range(10_000)))
        assert cache.info().replies == 500
    assert (len(asked), set(asked.values())) == (500, {1})
    assert Counter(answers) == {"right": 9_500}


async def test_two_caches_of_one_process_keep_each_other_out(path: Path) -> None:
    with ReplyCache(path) as one, ReplyCache(path) as other:
        async with one.claim("a") as claim:
            waiting = asyncio.create_task(ask(other, "a"))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            assert await ask(other, "b")  # another question does not wait
            claim.keep(REPLY)
        assert not await asyncio.wait_for(waiting, PATIENCE_S)


async def test_who_waits_for_another_process_long_is_told_why_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replies, "TOLD_S", 0.05)
    said: list[str] = []
    with ReplyCache(path) as one, ReplyCache(path, say=said.append) as other:
        async with one.claim("a"), one.claim("b"):
            waiting = [asyncio.create_task(ask(other, key)) for key in "ab"]
            while not said:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # both have waited long by now
        assert await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE_S) == [True, True]
    assert len(said) == 1
    assert "--cache off" in said[0]


async def test_many_may_hold_one_answer_at_once(path: Path) -> None:
    with ReplyCache(path) as cache:
        await ask(cache, "a")
        async with cache.claim("a") as first, cache.claim("a") as second:
            assert first.kept == second.kept == REPLY


async def test_those_who_waited_may_hold_the_answer_at_once(path: Path) -> None:
    together = asyncio.Barrier(3)

    async def wait() -> bool:
        async with cache.claim("a") as claim:
            await together.wait()  # passed only by three at a time
            return claim.kept == REPLY

    with ReplyCache(path) as cache:
        async with cache.claim("a") as claim:
            waiting = [asyncio.create_task(wait()) for _ in range(3)]
            await asyncio.sleep(0)
            claim.keep(REPLY)
        assert await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE_S) == [True] * 3


@pytest.mark.parametrize("end", ["fails", "is cancelled", "keeps nothing"])
async def test_an_asker_without_an_answer_lets_the_next_one_ask(path: Path, end: str) -> None:
    inside = asyncio.Event()

    async def asker() -> None:
        async with cache.claim("a") as claim:
            assert claim.kept is None
            inside.set()
            await asyncio.sleep(PATIENCE_S if end == "is cancelled" else 0.01)
            if end == "fails":
                raise RuntimeError("no answer")

    with ReplyCache(path) as cache:
        first = asyncio.create_task(asker())
        await inside.wait()
        others = [asyncio.create_task(ask(cache, "a")) for _ in range(20)]
        await asyncio.sleep(0)
        others.pop().cancel()  # one who waits may go without harm
        if end == "is cancelled":
            first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        asked = await asyncio.wait_for(asyncio.gather(*others), PATIENCE_S)
        assert asked.count(True) == 1
        with ReplyCache(path) as other:  # and nothing stays locked
            assert not await asyncio.wait_for(ask(other, "a"), PATIENCE_S)


# -- several processes -----------------------------------------------------------------------------

CROWD = """
import asyncio, sys
from pathlib import Path
from harness.replies import Kept, ReplyCache
from harness.types import Completion

async def one(cache, key):
    async with cache.claim(key) as claim:
        if claim.kept is None:
            print("asked", key, flush=True)
            await asyncio.sleep(0.02)
            claim.keep(Kept(Completion(f"answer to {key}", 1, 1), 1.0, 1.0))
        else:
            assert claim.kept.completion.text == f"answer to {key}"

async def main():
    with ReplyCache(Path(sys.argv[1]), say=print) as cache:
        print("ready", flush=True)
        sys.stdin.readline()
        await asyncio.gather(*(one(cache, f"q{n}") for n in range(500)))

asyncio.run(main())
"""


def start(program: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A process that waits for a line once it has printed "ready"."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("count", [2, 8])
def test_processes_with_the_same_questions_ask_each_once(path: Path, count: int) -> None:
    processes = [start(CROWD, path) for _ in range(count)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=PATIENCE_S)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    asked = Counter(line for lines in printed for line in lines)
    assert (len(asked), set(asked.values())) == (500, {1})
    assert all(line.startswith("asked q") for line in asked)


def test_processes_that_make_the_file_at_the_same_moment_all_use_it(path: Path) -> None:
    program = "print('ready', flush=True); input()\n" + CROWD
    processes = [start(program, path) for _ in range(6)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\ngo\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=PATIENCE_S)[0].splitlines() for process in processes]
    asked = Counter(line for lines in printed for line in lines if line != "ready")
    assert (len(asked), set(asked.values())) == (500, {1})


HOLDER = """
import asyncio, contextlib, sys
from pathlib import Path
from harness.replies import ReplyCache

async def main():
    async with contextlib.AsyncExitStack() as held:
        cache = ReplyCache(Path(sys.argv[1]), say=print)
        for number in range(100):
            await held.enter_async_context(cache.claim(f"q{number}"))
        print("ready", flush=True)
        sys.stdin.readline()

asyncio.run(main())
"""


async def test_claims_of_a_killed_process_are_free_at_once(path: Path) -> None:
    holder = start(HOLDER, path)
    with ReplyCache(path) as cache:
        waiting = [asyncio.create_task(ask(cache, f"q{n}")) for n in range(100) for _ in "12"]
        assert await asyncio.wait_for(ask(cache, "free"), PATIENCE_S)
        assert not any(task.done() for task in waiting)
        holder.kill()
        holder.wait()
        asked = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE_S)
        assert asked.count(True) == 100
        assert cache.info().replies == 101


WRITER = """
import asyncio, sys
from pathlib import Path
from harness.replies import Kept, ReplyCache
from harness.types import Completion

async def main():
    cache = ReplyCache(Path(sys.argv[1]), say=print)
    print("ready", flush=True)
    number = 0
    while True:
        async with cache.claim(f"{sys.argv[2]} {number}") as claim:
            claim.keep(Kept(Completion("x" * (number % 9000), 1, 1), 1.0, 1.0))
        print(number, flush=True)
        number += 1

asyncio.run(main())
"""


def test_kill_at_random_moments_loses_nothing_that_was_kept(path: Path) -> None:
    rng = random.Random(4)
    for turn in range(8):
        writers = [start(WRITER, path, f"{turn} {name}") for name in "ab"]
        time.sleep(rng.uniform(0.02, 0.2))
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
        for writer, name in zip(writers, "ab", strict=True):
            assert writer.stdout is not None
            kept = writer.stdout.read().split("\n")[:-1]
            writer.wait()
            with contextlib.closing(sqlite3.connect(path)) as db:
                prefix = f"{turn} {name} "
                found = {
                    row[0].removeprefix(prefix)
                    for row in db.execute(
                        "SELECT key FROM replies WHERE key GLOB ?", (f"{prefix}*",)
                    )
                }
                assert set(kept) <= found
                assert len(found) <= len(kept) + 1  # killed before it could say so
                assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# -- a file that cannot be used --------------------------------------------------------------------


async def works_without(path: Path, mode: Any = "on") -> str:
    """Claims go on over a file that cannot be used; the one line that was said."""
    said: list[str] = []
    with ReplyCache(path, mode, said.append) as cache:
        assert [await ask(cache, "a"), await ask(cache, "a")] == [True, True]
        with pytest.raises(StoreError):
            cache.info()
        with pytest.raises(StoreError):
            cache.clear()
    (line,) = said
    assert "\n" not in line
    assert str(path) in line
    return line


@pytest.mark.parametrize("mode", ["on", "read"])
async def test_a_damaged_file_costs_only_its_help(path: Path, mode: str) -> None:
    path.write_bytes(b"no database" * 1000)
    assert "a damaged file can be deleted" in await works_without(path, mode)


async def test_a_folder_in_place_of_the_file_costs_only_its_help(path: Path) -> None:
    path.mkdir()
    assert "not used" in await works_without(path)


async def test_a_path_below_a_file_costs_only_its_help(path: Path) -> None:
    path.write_text("")
    said: list[str] = []
    with ReplyCache(path / "replies.sqlite", say=said.append) as cache:
        assert [await ask(cache, "a"), await ask(cache, "a")] == [True, True]
    assert len(said) == 1


@pytest.mark.parametrize("mode", ["on", "read"])
async def test_a_file_of_a_newer_version_is_left_alone(path: Path, mode: str) -> None:
    with ReplyCache(path) as cache:
        await ask(cache, "a")
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    assert "newer version (99)" in await works_without(path, mode)
    assert path.read_bytes() == before


async def test_another_programs_database_is_left_alone(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (a)")
    before = path.read_bytes()
    assert "no cache of replies" in await works_without(path)
    assert path.read_bytes() == before


async def test_a_file_that_is_cut_off_meanwhile_costs_only_its_help(path: Path) -> None:
    said: list[str] = []
    with ReplyCache(path) as cache:
        for number in range(200):
            await ask(cache, str(number), reply(random.Random(number).randbytes(2000).hex()))
    os.truncate(path, path.stat().st_size // 3)
    with ReplyCache(path, say=said.append) as cache:
        asked = [await ask(cache, str(number)) for number in range(200)]
        assert asked.count(True) >= 1
    assert 1 <= len(said) <= 2
    assert all("a damaged file can be deleted" in line for line in said)


@pytest.mark.parametrize(
    "value",
    [b"", b"not zlib", replies.zlib.compress(b"not json"), replies.zlib.compress(b'[{"a": 1}, 2]')],
)
async def test_a_row_that_cannot_be_read_is_asked_again_and_replaced(
    path: Path, value: bytes
) -> None:
    with ReplyCache(path) as cache:
        await ask(cache, "a")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("UPDATE replies SET value = ?", (value,))
        assert [await ask(cache, "a"), await ask(cache, "a")] == [True, False]
        assert cache.info().replies == 1


async def test_a_file_that_somebody_holds_costs_one_reply_and_not_the_rest(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replies, "WRITE_WAIT_S", 0.05)
    said: list[str] = []
    with ReplyCache(path, say=said.append) as cache:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            assert [await ask(cache, "a"), await ask(cache, "a")] == [True, True]
            db.execute("ROLLBACK")
        assert [await ask(cache, "a"), await ask(cache, "a")] == [True, False]
    assert len(said) == 1
    assert "another program is holding the file" in said[0]


FULL = """
import asyncio, resource, sys
from pathlib import Path
from harness.replies import Kept, ReplyCache
from harness.types import Completion

async def main():
    cache = ReplyCache(Path(sys.argv[1]), say=lambda line: print("said", line))
    print("ready", flush=True)
    sys.stdin.readline()
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))  # as if the disk were full
    for turn in range(2):
        for number in range(300):
            async with cache.claim(str(number)) as claim:
                if claim.kept is None:
                    print(f"asked{turn}")
                    claim.keep(Kept(Completion("é" * 3 * number, 1, 1), 1.0, 1.0))
                    text = "\\n".join(map(str, range(number * 20)))
                    async with cache.claim(f"big {number}") as claim:
                        claim.keep(Kept(Completion(text, 1, 1), 1.0, 1.0))
    cache.close()

asyncio.run(main())
"""


async def test_a_full_disk_keeps_what_there_is_and_stops_nothing(path: Path) -> None:
    process = start(FULL, path)
    printed = process.communicate("", timeout=PATIENCE_S)[0].splitlines()
    assert process.returncode == 0
    said = [line for line in printed if line.startswith("said")]
    assert len(said) == 1
    assert "no reply is kept any more" in said[0]
    assert printed.count("asked0") == 300
    kept = 300 - printed.count("asked1")  # still read, although nothing more can be written
    assert 0 < kept < 300
    with ReplyCache(path) as cache:
        assert sum([not await ask(cache, str(number)) for number in range(300)]) == kept
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


READ_ONLY = """
import asyncio, os, sys
from pathlib import Path
from harness.replies import Kept, ReplyCache
from harness.types import Completion

async def main():
    if os.geteuid() == 0:  # root may write everywhere
        os.setuid(65534)
    said = []
    with ReplyCache(Path(sys.argv[1]), sys.argv[2], said.append) as cache:
        for key in ("a", "b", "b"):
            async with cache.claim(key) as claim:
                print(key, claim.kept is not None)
                claim.keep(Kept(Completion("", 1, 1), 1.0, 1.0))
    print(len(said), *said)

asyncio.run(main())
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize(("mode", "lines"), [("on", "1"), ("read", "0")])
async def test_a_read_only_folder_is_read(open_folder: Path, mode: str, lines: str) -> None:
    path = open_folder / "replies.sqlite"
    with ReplyCache(path) as cache:
        await ask(cache, "a")
    path.with_name(f"{path.name}.lock").unlink()
    open_folder.chmod(0o555)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", READ_ONLY, path, mode],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *found, said = done.stdout.splitlines()
    assert found == ["a True", "b False", "b False"]
    assert said.startswith(lines)
    assert [file.name for file in open_folder.iterdir()] == ["replies.sqlite"]


async def test_a_cache_closed_meanwhile_harms_no_one_who_asks(path: Path) -> None:
    cache = ReplyCache(path)
    async with cache.claim("a") as claim:
        cache.close()
        claim.keep(REPLY)
    assert await ask(cache, "a")
