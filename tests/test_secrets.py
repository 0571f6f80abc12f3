"""A key is planted wherever one may stand; then every byte that a run wrote is searched for it.

Real commands against a server that misbehaves: files, databases (unpacked too), terminal output.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness import benchmarks
from harness.journal import read_run
from tests import fault_server
from tests.fault_server import Server

ROOT = Path(__file__).parents[1]
PATIENCE_S = 120.0
KEY = "sk-canary-5f0e1c8a7b934d26"  # of every provider
PASSWORD = "pw-canary-91c3d07be2f84a65"  # in a base URL
USER = "user-canary-3b7"
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "VLLM_API_KEY", "HF_TOKEN")
SECRETS = {
    KEY.encode(),
    PASSWORD.encode(),
    base64.b64encode(KEY.encode())[:-4],
    base64.b64encode(f"{USER}:{PASSWORD}".encode())[:-4],  # as an Authorization header has it
}
# what a solution or a workflow can reach of its surroundings; `look()` says how often a secret was
# in it, in few words, which no shortening of messages can cut off
LOOK = """
import os, sys
def look():
    seen = [repr(dict(os.environ)), repr(sys.argv)]
    for pid in [n for n in os.listdir("/proc") if n.isdigit()] + ["self", "thread-self"]:
        for name in ("environ", "cmdline"):
            try:
                seen.append(open(f"/proc/{pid}/{name}", errors="replace").read())
            except OSError:
                pass
    print(*seen)
    found = sum(text.count("-can" + "ary-") for text in seen)
    return f"LOOKED at {len(seen)} places: {found} secrets" + " ".join(seen)
"""
LOOKED = re.compile(r"LOOKED at \d+ places: 0 secrets")


@dataclass
class Desk:
    """The command line with keys in its environment, over folders of its own."""

    folder: Path
    said: list[str] = field(default_factory=list)  # all terminal output
    begun: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        kept = {k: v for k, v in os.environ.items() if not k.endswith("_BASE_URL")}
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", *arguments],
            cwd=ROOT,
            env={**kept, **dict.fromkeys(KEYS, KEY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.begun.append(process)
        return process

    def end(self, process: subprocess.Popen[str]) -> str:
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
        self.said += [stdout, stderr]
        return stdout + stderr

    def run(self, *arguments: str, code: int = 0) -> str:
        process = self.start(*arguments)
        said = self.end(process)
        assert process.returncode == code, said
        return said

    def eval(self, server: Server, *arguments: str, provider: str = "openai") -> tuple[str, ...]:
        url = server.url if provider == "anthropic" else server.openai_url
        return (
            "eval", "--worker", f"{provider}/fault", "--base-url", url,
            "--out", str(self.folder / "out"), "--cache-dir", str(self.folder / "cache"),
            *arguments,
        )  # fmt: skip

    def written(self) -> Iterator[tuple[str, bytes]]:
        """(where, content) of all that was written, packed texts unpacked."""
        for number, text in enumerate(self.said):
            yield f"terminal output {number}", text.encode()
        for path in sorted(self.folder.rglob("*")):
            if not path.is_file():
                continue
            yield str(path), path.read_bytes()
            if path.suffix == ".sqlite":
                yield from unpacked_sqlite(path)
            elif path.suffix == ".duckdb":
                yield from unpacked_duckdb(path)

    def finds_none(self) -> None:
        """No secret stands anywhere."""
        places = list(self.written())
        assert [
            (where, secret) for where, content in places for secret in SECRETS if secret in content
        ] == []

    def records(self, kind: str) -> list[dict[str, object]]:
        folders = (self.folder / "out" / "runs").iterdir()
        return [r for folder in folders for r in read_run(folder) if r["kind"] == kind]


def unpacked_sqlite(path: Path) -> Iterator[tuple[str, bytes]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
            for row in db.execute(f"SELECT * FROM {table}"):
                for value in row:
                    content = value if isinstance(value, bytes) else str(value).encode()
                    with contextlib.suppress(zlib.error):
                        content = zlib.decompress(content)
                    yield f"{path}: {table}", content


def unpacked_duckdb(path: Path) -> Iterator[tuple[str, bytes]]:
    import duckdb

    with duckdb.connect(str(path), read_only=True) as db:
        for (table,) in db.execute("SELECT table_name FROM information_schema.tables").fetchall():
            for row in db.execute(f'SELECT * FROM "{table}"').fetchall():
                yield f"{path}: {table}", repr(row).encode("utf-8", "surrogatepass")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    for process in made.begun:  # those of a test that failed
        process.kill()


class Repeater:
    """A server that says the key of every request, in a reply or at the end of a long refusal."""

    def __init__(self, *, refuses: bool) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                key = (self.headers["authorization"] or self.headers["x-api-key"]).split()[-1]
                reply: dict[str, object] = {"error": {"message": f"{'x' * 290}{key} may not"}}
                if not refuses:
                    text = f"Your key is {key}.\n```python\nkey = {key!r}\n```"
                    content: object = [{"type": "text", "text": text}]
                    message = {"role": "assistant", "content": text}
                    reply = {
                        "model": f"model-{key}",
                        "content": content,
                        "choices": [{"message": message, "finish_reason": key}],
                        "stop_reason": key,
                    }
                body = json.dumps(reply).encode()
                self.send_response(403 if refuses else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def canned(folder: Path, *pairs: tuple[str, str]) -> Path:
    """A file of replies to requests that hold a text."""
    path = folder.parent / f"{folder.name}-canned.jsonl"
    path.write_text("".join(json.dumps({"match": m, "reply": r}) + "\n" for m, r in pairs))
    return path


def test_the_search_finds_a_key_that_was_packed_away(desk: Desk) -> None:
    """A test of the test: nothing is hidden from it by compression."""
    import duckdb

    with contextlib.closing(sqlite3.connect(desk.folder / "a.sqlite")) as db:
        db.execute("CREATE TABLE t (v BLOB)")
        db.execute("INSERT INTO t VALUES (?)", (zlib.compress(f"x {KEY} y".encode()),))
        db.commit()
    with pytest.raises(AssertionError, match="canary"):
        desk.finds_none()
    (desk.folder / "a.sqlite").unlink()
    with duckdb.connect(str(desk.folder / "b.duckdb")) as duck:
        duck.execute("CREATE TABLE t AS SELECT ? AS v FROM range(5000)", [f"x {PASSWORD} y"])
    with pytest.raises(AssertionError, match="canary"):
        desk.finds_none()


@pytest.mark.parametrize("provider", ["openai", "anthropic", "vllm"])
def test_a_run_that_goes_well_writes_no_key(desk: Desk, provider: str) -> None:
    with fault_server.start() as server:
        command = desk.eval(server, "--method", "vanilla", "--limit", "3", provider=provider)
        plan = json.loads(desk.run(*command, "--dry-run", "--json").splitlines()[0])
        assert plan["problems"] == 3
        desk.run(*command)
        desk.run(*command, "--fresh", "--json")
        assert server.stats()["requests"] == 3
    out = ("--out", str(desk.folder / "out"))
    name = max(path.name for path in (desk.folder / "out" / "runs").iterdir())
    for look in (("show", name), ("show", name, "--problem", "0", "--full"), ("list", "runs")):
        desk.run(*look, *out)
    desk.run("export", *out)
    desk.run("cache", "info", "--cache-dir", str(desk.folder / "cache"))
    desk.run("resume", name, *out)
    assert len(desk.records("result")) >= 6
    desk.finds_none()


@pytest.mark.parametrize("provider", ["openai", "anthropic", "vllm"])
def test_a_refusal_that_repeats_the_key_is_told_without_it(desk: Desk, provider: str) -> None:
    with fault_server.start(refuse=True) as server:
        command = desk.eval(server, "--method", "vanilla", "--limit", "3", provider=provider)
        said = desk.run(*command, code=4)
        desk.run(*command, "--json", code=4)
    assert "error: " in said
    assert desk.records("call")
    desk.finds_none()


def test_faults_of_every_kind_are_told_without_a_key(desk: Desk) -> None:
    with fault_server.start(
        status_rate={500: 0.2, 429: 0.2}, cut=0.2, first_only=True, reject_matching="truncate"
    ) as server:
        command = desk.eval(server, "--method", "vanilla", "--limit", "20", "--fresh")
        desk.run(*command, code=1)
        assert {"200", "400", "429", "500", "cut"} <= server.stats()["statuses"].keys()
    kinds = {call["error_kind"] for call in desk.records("call")}
    assert kinds == {None, "rejected", "rate_limited", "unavailable"}
    desk.finds_none()


def test_a_killed_run_and_one_that_goes_on_after_it_write_no_key(desk: Desk) -> None:
    with fault_server.start(latency=0.1) as server:
        command = desk.eval(server, "--method", "vanilla", "--limit", "30")
        for number in (signal.SIGKILL, signal.SIGINT):
            process = desk.start(*command, "--max-connections", "2")
            asked = server.stats()["requests"]
            deadline = time.monotonic() + PATIENCE_S
            while server.stats()["requests"] < asked + 5:
                assert process.poll() is None, desk.end(process)
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(number)
            desk.end(process)
        desk.finds_none()
        desk.run(*command)
    desk.finds_none()


@pytest.mark.parametrize("provider", ["openai", "anthropic", "vllm"])
def test_a_password_in_a_base_url_is_written_nowhere(desk: Desk, provider: str) -> None:
    with fault_server.start() as server:
        plain = desk.eval(server, "--method", "vanilla", "--limit", "2", provider=provider)
        secret = [part.replace("http://", f"http://{USER}:{PASSWORD}@") for part in plain]
        for more in ((), ("--json",), ("--dry-run",)):
            process = desk.start(*secret, *more)
            said = desk.end(process)
            assert process.returncode in (0, 2), said  # it is used, or the user is told
            assert "Traceback" not in said
    desk.finds_none()


@pytest.mark.parametrize(
    "url",
    [
        f"http://{USER}:{PASSWORD}@[::1",
        f"ftp://{USER}:{PASSWORD}@nowhere/v1",
        f"http://127.0.0.1:9/v1?token={PASSWORD}",
        f"http://127.0.0.1:9/v1#{PASSWORD}",
    ],
)
def test_a_base_url_that_is_none_is_told_without_its_password(desk: Desk, url: str) -> None:
    process = desk.start(
        "eval", "--worker", "openai/fault", "--base-url", url, "--method", "vanilla",
        "--limit", "1", "--out", str(desk.folder / "out"),
        "--cache-dir", str(desk.folder / "cache"),
    )  # fmt: skip
    said = desk.end(process)
    assert process.returncode in (2, 4), said
    assert "Traceback" not in said
    desk.finds_none()


def test_a_program_that_the_command_starts_gets_no_key(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = desk.folder / "bin"
    programs.mkdir()
    git = programs / "git"
    git.write_text(f'#!/bin/sh\nenv > "{desk.folder}/git-$$"\n')
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    with fault_server.start() as server:
        desk.run(*desk.eval(server, "--method", "vanilla", "--limit", "1"))
    assert list(desk.folder.glob("git-*"))
    desk.finds_none()


@pytest.mark.parametrize("provider", ["openai", "anthropic", "vllm"])
@pytest.mark.parametrize("faults", ["repeats", "refuses"])
def test_a_server_that_repeats_the_key_puts_it_nowhere(
    desk: Desk, provider: str, faults: str
) -> None:
    """In a reply of status 200, and at the very place where a long message is cut."""
    with Repeater(refuses=faults == "refuses") as url:
        base = url if provider == "anthropic" else f"{url}/v1"
        process = desk.start(
            "eval", "--worker", f"{provider}/fault", "--base-url", base, "--method", "vanilla",
            "--limit", "2", "--out", str(desk.folder / "out"),
            "--cache-dir", str(desk.folder / "cache"),
        )  # fmt: skip
        said = desk.end(process)
    assert process.returncode == (4 if faults == "refuses" else 0), said
    assert desk.records("call")
    desk.finds_none()
    parts = {KEY.encode()[:12], KEY.encode()[-12:]}
    assert [(w, p) for w, content in desk.written() for p in parts if p in content] == []


def test_a_solution_that_looks_around_finds_no_key(desk: Desk) -> None:
    (item, *_) = benchmarks.load("humaneval").items.values()
    code = f"{LOOK}\ndef {item.problem.entry_point}(*given):\n    raise ValueError(look())"
    replies = canned(desk.folder, (item.problem.prompt, f"```python\n{code}\n```"))
    with fault_server.start(canned=replies) as server:
        desk.run(*desk.eval(server, "--method", "vanilla", "--limit", "1"))
        desk.run(*desk.eval(server, "--method", "self-refine", "--limit", "1"))
    details = [str(row["detail"]) for row in desk.records("result")]
    assert details
    assert all(LOOKED.search(detail) for detail in details), details
    desk.finds_none()


def test_a_workflow_that_looks_around_finds_no_key(desk: Desk) -> None:
    graph = (
        f"{LOOK}\nclass Workflow:\n"
        "    async def __call__(self, problem, entry_point):\n        raise ValueError(look())\n"
    )
    reply = f"<modification>look</modification>\n<graph>\n{graph}</graph>\n<prompt>\n</prompt>"
    replies = canned(desk.folder, ("You design workflows", reply))
    with fault_server.start(canned=replies) as server:
        command = desk.eval(
            server, "--method", "flowreasoner", "--limit", "1", "--meta", "openai/meta",
            "-A", "rounds=2",
        )  # fmt: skip
        desk.run(*command)
    errors = [str(record["error"]) for record in desk.records("round")]
    assert any(LOOKED.search(error) for error in errors), errors
    desk.finds_none()
