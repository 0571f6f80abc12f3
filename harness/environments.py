"""Separate Python environments for grading. BigCodeBench's tasks need 63 packages at old versions.

`make` builds a virtual environment in the cache, so that those pins never touch the harness's own;
`find` gives one that is complete. Each is a folder whose name holds the digest of its requirements,
and counts only once its stamp is written: what an interrupted `make` left behind is never used, and
the next `make` goes on from there.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.benchmarks import bigcodebench_packages as packages
from harness.errors import BenchmarkError, UsageError
from harness.processes import child_environment

NAMES = ("bigcodebench",)
TIERS = ("light", "full")

_STAMP = "environment.json"
_NLTK_PARTS = ("corpora", "tokenizers", "taggers", "sentiment", "stemmers", "chunkers", "help")

Say = Callable[[str], None]
Progress = Callable[[int, int], None]  # packages seen so far, packages in all

# Run by the environment's own Python: what it is and holds, as JSON.
_FACTS = """
import importlib.metadata, importlib.util, json, os, sys, sysconfig
site = sysconfig.get_path("purelib")
modules = {name.partition(".")[0] for name in os.listdir(site)}
absent = [m for m in ("_tkinter", "_sqlite3", "_lzma", "_bz2", "_curses", "readline")
          if importlib.util.find_spec(m) is None]
print(json.dumps({
    "version": sys.version.split()[0], "prefix": os.path.realpath(sys.base_prefix), "site": site,
    "packages": {d.metadata["Name"]: d.version
                 for d in importlib.metadata.distributions(path=[site])},
    "modules": sorted(m for m in modules if m.isidentifier()),
    "standard": sorted(sys.stdlib_module_names), "absent": absent,
}))
"""


@dataclass(frozen=True)
class Environment:
    """A complete environment. `digest` stands for all in it that a verdict can depend on."""

    name: str  # "bigcodebench"
    tier: str  # "light" or "full"
    folder: Path  # the virtual environment; readable is all that a guest needs of it
    python: Path  # its interpreter
    prefix: Path  # the installation that this one belongs to
    site: Path  # where its packages are
    version: str  # of Python, "3.10.13"
    packages: Mapping[str, str]  # what is installed: name -> version
    missing: Mapping[str, str]  # packages of the tier that could not be installed: name -> why
    modules: frozenset[str]  # top-level names that can be imported, standard library included
    nltk: tuple[str, ...]  # NLTK's files that are here, "corpora/stopwords"
    digest: str

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules that a warm parent imports once."""
        return tuple(m for m in packages.PRELOAD if m.partition(".")[0] in self.modules)

    def lacks(self, program: str) -> tuple[str, ...]:
        """Top-level modules that a program imports and that are not here, sorted.

        Raises SyntaxError when it is no program.
        """
        return tuple(sorted(imports(program) - self.modules))


def imports(program: str) -> set[str]:
    """The top-level modules that a program imports anywhere. Raises SyntaxError."""
    found: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd escapes in texts that are not ours
        tree = ast.parse(program)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def default_cache_dir() -> Path:
    """The harness's cache folder of this user; environments are in `envs` below it."""
    from platformdirs import user_cache_path

    return user_cache_path("flowreasoner-harness")


def find(name: str, cache_dir: Path, tier: str | None = None) -> Environment | None:
    """The complete environment of this name, the fuller tier first; None when there is none.

    Raises UsageError for an unknown name or tier.
    """
    for wanted in reversed(TIERS) if tier is None else (tier,):
        _known(name, wanted)
        for version in packages.LOCKS:
            if environment := _read(_folder(name, wanted, version, cache_dir)):
                return environment
    return None


def make(
    name: str,
    tier: str = "light",
    *,
    cache_dir: Path,
    python: Path | None = None,
    nltk_data: Path | None = None,
    pip_args: Sequence[str] = (),
    say: Say,
    progress: Progress | None = None,
) -> Environment:
    """Build the environment in `cache_dir`, or complete it; one that is complete is kept.

    `python` names the interpreter to use (3.10 or 3.11); without it 3.10 is looked for, then 3.11.
    `nltk_data` is a folder laid out as NLTK's own (`corpora/stopwords.zip`, ...). In the full tier
    a package that cannot be installed is named and left out; in the light tier it is an error.
    Raises UsageError for an unknown name, tier or Python, BenchmarkError when it cannot be built.
    """
    _known(name, tier)
    if nltk_data is not None and not any((nltk_data / part).is_dir() for part in _NLTK_PARTS):
        raise UsageError(
            f"{nltk_data}: no NLTK data there: expected folders like {nltk_data}/corpora"
        )
    base, version = _interpreter(python)
    folder = _folder(name, tier, version, cache_dir)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder, say):
            environment = _read(folder)
            if environment is None:
                missing = _install(folder, base, tier, version, pip_args, say, progress)
                environment = _stamp(folder, name, tier, missing)
            if nltk_data is not None and _unpack(nltk_data, folder / "nltk_data", say):
                environment = _stamp(folder, name, tier, environment.missing)
    except OSError as error:
        raise BenchmarkError(f"{folder}: {error.strerror or error}") from error
    return environment


def _known(name: str, tier: str) -> None:
    if name not in NAMES:
        raise UsageError(f"no environment {name!r}; there is: {', '.join(NAMES)}")
    if tier not in TIERS:
        raise UsageError(f"no tier {tier!r}; there are: {', '.join(TIERS)}")


def _wanted(tier: str) -> list[str]:
    return [*packages.LIGHT, *(packages.FULL if tier == "full" else ())]


def _pins(version: str) -> dict[str, str]:
    """Lower-case name -> pinned requirement, for one minor version of Python."""
    lock = packages.LOCKS[version]
    return {requirement.partition("==")[0].lower(): requirement for requirement in lock}


def _folder(name: str, tier: str, version: str, cache_dir: Path) -> Path:
    text = "\n".join([*_wanted(tier), packages.EVALUATOR, *packages.LOCKS[version]])
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return cache_dir / "envs" / f"{name}-{tier}-{version}-{digest}"


# Interpreters


def _interpreter(chosen: Path | None) -> tuple[Path, str]:
    """(an interpreter, its minor version): the chosen one, or the best that is at hand."""
    if chosen is not None:
        version = _version(chosen)
        if version not in packages.LOCKS:
            known = " or ".join(packages.LOCKS)
            found = "no working interpreter" if version is None else f"Python {version}"
            raise UsageError(f"{chosen}: {found}; the packages are pinned for Python {known}")
        return chosen, version
    for version in packages.LOCKS:
        for candidate in _candidates(version):
            if _version(candidate) == version:
                return candidate, version
    raise UsageError(
        f"no Python {' or '.join(packages.LOCKS)} found; install one (uv python install 3.10) "
        "or name one with --python"
    )


def _candidates(version: str) -> Iterator[Path]:
    if on_path := shutil.which(f"python{version}"):
        yield Path(on_path)
    pyenv = Path.home() / ".pyenv" / "versions"
    for folder in sorted(pyenv.glob(f"{version}.*"), key=lambda p: len(p.name), reverse=True):
        yield folder / "bin" / "python"
    if uv := shutil.which("uv"):
        command = [uv, "python", "find", "--no-python-downloads", version]
        done = subprocess.run(command, env=child_environment(), capture_output=True, text=True)
        if done.returncode == 0:
            yield Path(done.stdout.strip())
    yield Path(getattr(sys, "_base_executable", None) or sys.executable)


def _version(python: Path) -> str | None:
    """Its "major.minor"; None when it does not run or can make no environment."""
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [python, "-I", "-c", code],
            env=child_environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout.strip() or None) if done.returncode == 0 else None


# Building


@contextlib.contextmanager
def _lock(folder: Path, say: Say) -> Iterator[None]:
    """One `make` of a folder at a time; the kernel frees the lock of one that was killed."""
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that makes {folder.name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install(
    folder: Path,
    base: Path,
    tier: str,
    version: str,
    pip_args: Sequence[str],
    say: Say,
    progress: Progress | None,
) -> dict[str, str]:
    """Install the tier's packages into `folder`; {package: why} of those that could not be."""
    python = folder / "bin" / "python"
    if _version(python) != version:
        shutil.rmtree(folder, ignore_errors=True)
        say(f"making {folder} with {base}")
        _run([str(base), "-m", "venv", str(folder)], f"{base} cannot make an environment")
    pins = _pins(version)
    wanted = [pins[name.lower()] for name in _wanted(tier)]
    light = [pins[name.lower()] for name in packages.LIGHT]
    with tempfile.TemporaryDirectory() as scratch:
        constraints = Path(scratch) / "lock.txt"
        constraints.write_text("\n".join(pins.values()) + "\n")
        limits = ["-c", str(constraints), *_sources(), *pip_args]
        ways = _ways(python, limits)
        say(f"installing {len(wanted)} packages and what they need")
        report = _Seen(len(pins) if tier == "full" else None, progress)
        missing = {}
        if failed := _try(ways, wanted, report):
            if tier == "light":
                raise BenchmarkError(f"{folder.name}: {failed}; run it again to go on from here")
            say(f"not all at once ({failed}): one by one")
            if failed := _try(ways, light, report):
                raise BenchmarkError(f"{folder.name}: {failed}; run it again to go on from here")
            for requirement in wanted[len(light) :]:
                if failed := _try(ways, [requirement], report):
                    missing[requirement.partition("==")[0]] = failed
                    say(f"left out: {requirement}: {failed}")
        evaluator = _ways(python, ["--no-deps", *pip_args])
        if failed := _try(evaluator, [packages.EVALUATOR], report):
            missing[packages.EVALUATOR.partition("==")[0]] = failed
            say(f"left out: {packages.EVALUATOR}: {failed}; `--official` will not work")
    return missing


def _sources() -> list[str]:
    """Wheels only, but for pure packages that have none: nothing is compiled here."""
    return ["--only-binary", ":all:", "--no-binary", ",".join(packages.SOURCE_ONLY)]


def _ways(python: Path, limits: Sequence[str]) -> list[list[str]]:
    """Commands that install requirements, quickest first."""
    pip = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    ways = [[*pip, *limits]]
    if uv := shutil.which(
        "uv"
    ):  # it does not read pip's settings, so pip may succeed where it fails
        ways.insert(
            0, [uv, "pip", "install", "--compile-bytecode", "--python", str(python), *limits]
        )
    return ways


class _Seen:
    """Counts the packages that an installer names, for the progress display."""

    def __init__(self, total: int | None, progress: Progress | None) -> None:
        self.total, self.progress, self.names = total, progress, set[str]()

    def line(self, text: str) -> None:
        found = re.match(r"(?:Collecting|Requirement already satisfied:| \+) ([\w.-]+)", text)
        if self.progress and found:
            self.names.add(found[1].lower())
            self.progress(len(self.names), max(self.total or 0, len(self.names)))


def _try(ways: Iterable[Sequence[str]], requirements: Sequence[str], report: _Seen) -> str | None:
    """None once one way has installed them; else why the last one could not, in one line."""
    why = ""
    for way in ways:
        command = [*way, *requirements]
        with subprocess.Popen(
            command,
            env=child_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                report.line(line)
                lines.append(line.strip())
        if process.returncode == 0:
            return None
        errors = [line for line in lines if line.startswith(("ERROR:", "error:", "╰─▶"))]
        last = lines[-1:] or [f"exit status {process.returncode}"]
        why = " ".join((errors or last)[0].split())[:300]
    return why.removeprefix("ERROR: ").rstrip(".")


def _run(command: Sequence[str], what: str) -> str:
    """Standard output. Raises BenchmarkError with the last line of what it said."""
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise BenchmarkError(f"{what}: {said}")
    return done.stdout


# NLTK


def _unpack(source: Path, target: Path, say: Say) -> int:
    """Unpack or copy NLTK's files that are not in `target` yet; how many came."""
    came = 0
    for part in _NLTK_PARTS:
        for entry in sorted((source / part).glob("*")):
            name = entry.stem if entry.suffix == ".zip" else entry.name
            place = target / part / name
            if place.exists() or not (entry.is_dir() or entry.suffix == ".zip"):
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target) as scratch:
                if entry.is_dir():
                    shutil.copytree(entry, Path(scratch) / name)
                else:
                    _unzip(entry, Path(scratch))
                    # NLTK itself looks for some of its files, vader's among them, in the archive
                    shutil.copyfile(entry, place.with_suffix(".zip"))
                made = Path(scratch) / name
                if not made.exists():
                    raise BenchmarkError(f"{entry}: holds no folder {name}; fetch it again")
                made.rename(place)
            came += 1
            say(f"NLTK: {part}/{name}")
    return came


def _unzip(path: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(target)  # members that lead out of it are put inside
    except zipfile.BadZipFile as error:
        raise BenchmarkError(f"{path}: no zip archive ({error}); fetch it again") from error


# Stamps


def _stamp(folder: Path, name: str, tier: str, missing: Mapping[str, str]) -> Environment:
    """Look at what is in a folder and write it down: from now on the environment is complete."""
    facts = json.loads(
        _run([str(folder / "bin" / "python"), "-I", "-c", _FACTS], f"{folder.name} does not run")
    )
    nltk = folder / "nltk_data"
    data = sorted(str(p.relative_to(nltk)) for p in nltk.glob("*/*") if p.is_dir())
    modules = (set(facts["modules"]) | set(facts["standard"])) - set(facts["absent"])
    if "_tkinter" in facts["absent"]:
        modules -= {"tkinter", "turtle"}
    kept = {
        "name": name,
        "tier": tier,
        "version": facts["version"],
        "prefix": facts["prefix"],
        "site": facts["site"],
        "packages": facts["packages"],
        "missing": dict(missing),
        "modules": sorted(modules),
        "nltk": data,
    }
    decides = {key: kept[key] for key in ("version", "packages", "nltk")}
    text = json.dumps([sys.platform, decides], sort_keys=True)
    kept["digest"] = hashlib.sha256(text.encode()).hexdigest()
    draft = folder / f"{_STAMP}.part"
    draft.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    os.replace(draft, folder / _STAMP)
    return _environment(folder, kept)


def _read(folder: Path) -> Environment | None:
    """The environment of a folder; None when it is not there or not complete."""
    try:
        kept = json.loads((folder / _STAMP).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    # the interpreter below can have been removed since
    return _environment(folder, kept) if (folder / "bin" / "python").exists() else None


def _environment(folder: Path, kept: Mapping[str, Any]) -> Environment:
    return Environment(
        name=kept["name"],
        tier=kept["tier"],
        folder=folder,
        python=folder / "bin" / "python",
        prefix=Path(kept["prefix"]),
        site=Path(kept["site"]),
        version=kept["version"],
        packages=kept["packages"],
        missing=kept["missing"],
        modules=frozenset(kept["modules"]),
        nltk=tuple(kept["nltk"]),
        digest=kept["digest"],
    )
