"""Grading environments: complete or not used; what is missing is named; told apart by digest."""

from __future__ import annotations

import gzip
import json
import subprocess
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import environments
from harness.benchmarks import bigcodebench_packages as packages
from harness.environments import Environment
from harness.errors import BenchmarkError, UsageError

Make = Callable[..., Environment]


def wheel(folder: Path, name: str, version: str, source: str = "") -> None:
    """A package of one module, ready to be installed."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", source)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """`environments.make` on a small index of our own, told in `say`."""
    index = tmp_path / "index"
    wheel(index, "one", "1.0")
    wheel(index, "two", "2.0")
    wheel(index, "official", "0.1")
    monkeypatch.setattr(packages, "LIGHT", ["one"])
    monkeypatch.setattr(packages, "FULL", ["absent", "two"])
    monkeypatch.setattr(packages, "EVALUATOR", "official==0.1")
    monkeypatch.setattr(packages, "SOURCE_ONLY", ("nothing",))
    monkeypatch.setattr(packages, "PRELOAD", ["one", "two", "json.decoder"])
    lock = ["one==1.0", "two==2.0", "absent==3.0"]
    monkeypatch.setattr(packages, "LOCKS", {v: lock for v in packages.LOCKS})

    def made(tier: str = "light", **options: object) -> Environment:
        arguments = {"cache_dir": tmp_path / "cache", "say": lambda line: None, **options}
        pip_args = ["--no-index", "--find-links", str(index)]
        return environments.make("bigcodebench", tier, pip_args=pip_args, **arguments)  # type: ignore[arg-type]

    return made


def found(tmp_path: Path, tier: str | None = None) -> Environment | None:
    return environments.find("bigcodebench", tmp_path / "cache", tier)


def test_an_environment_is_made_once_and_found_again(make: Make, tmp_path: Path) -> None:
    assert found(tmp_path) is None
    made = make()
    assert made.packages.items() >= {("one", "1.0"), ("official", "0.1")}
    assert made.preload == ("one", "json.decoder")
    assert made.site.is_dir()
    assert made.missing == {}
    said: list[str] = []
    assert make(say=said.append) == made
    assert said == []
    assert found(tmp_path) == made
    done = subprocess.run(
        [made.python, "-c", "import one, sys; print(sys.prefix)"], capture_output=True
    )
    assert done.stdout.decode().strip() == str(made.folder)


def test_the_full_tier_names_what_it_leaves_out_and_goes_on(make: Make, tmp_path: Path) -> None:
    said: list[str] = []
    made = make("full", say=said.append)
    assert list(made.missing) == ["absent"]
    assert "absent==3.0" in made.missing["absent"]
    assert any(line.startswith("left out: absent==3.0: ") for line in said)
    assert made.packages["two"] == "2.0"
    light = make("light")
    assert found(tmp_path) == made  # the fuller one first
    assert found(tmp_path, "light") == light
    assert light.digest != made.digest


def test_a_build_that_fails_is_not_used_and_the_next_one_goes_on_from_it(
    make: Make, tmp_path: Path
) -> None:
    there = tmp_path / "index" / "one-1.0-py3-none-any.whl"
    away = there.rename(tmp_path / "away.whl")
    with pytest.raises(
        BenchmarkError, match=r"one==1.0.*run it again to go on from here"
    ) as failed:
        make()
    assert "\n" not in str(failed.value)
    assert found(tmp_path) is None
    away.rename(there)
    folders = list((tmp_path / "cache" / "envs").glob("bigcodebench-*"))
    said: list[str] = []
    made = make(say=said.append)
    assert folders == [made.folder]
    assert not any(line.startswith("making") for line in said)


def test_a_damaged_stamp_or_a_lost_interpreter_is_no_environment(
    make: Make, tmp_path: Path
) -> None:
    made = make()
    stamp = made.folder / "environment.json"
    text = stamp.read_text()
    stamp.write_text(text[: len(text) // 2])
    assert found(tmp_path) is None
    assert make() == made
    made.python.unlink()
    assert found(tmp_path) is None


def test_two_at_once_make_one(make: Make, tmp_path: Path) -> None:
    said: list[str] = []
    made: list[Environment] = []
    threads = [
        threading.Thread(target=lambda: made.append(make(say=said.append))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made[0] == made[1]
    assert sum(line.startswith("making") for line in said) == 1


def test_nltk_data_come_from_a_folder_and_change_the_digest(make: Make, tmp_path: Path) -> None:
    data = tmp_path / "nltk"
    (data / "corpora").mkdir(parents=True)
    with zipfile.ZipFile(data / "corpora" / "stopwords.zip", "w") as archive:
        archive.writestr("stopwords/english", "the\n")
    without = make()
    made = make(nltk_data=data)
    assert made.nltk == ("corpora/stopwords",)
    assert (made.folder / "nltk_data/corpora/stopwords/english").read_text() == "the\n"
    assert made.digest != without.digest
    assert make(nltk_data=data) == made
    (data / "corpora" / "words.zip").write_bytes(b"PK damaged")
    with pytest.raises(BenchmarkError, match=r"words.zip: no zip archive"):
        make(nltk_data=data)
    with pytest.raises(UsageError, match="no NLTK data there"):
        make(nltk_data=tmp_path)


def test_wrong_words_are_usage_errors(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no environment 'humaneval'; there is: bigcodebench"):
        environments.find("humaneval", tmp_path)
    with pytest.raises(UsageError, match="no tier 'huge'; there are: light, full"):
        make("huge")
    with pytest.raises(UsageError, match="no working interpreter; the packages are pinned for"):
        make(python=Path("/bin/true"))


def test_what_a_program_lacks_is_told_by_import_name(make: Make) -> None:
    made = make()
    program = "import one.part, os\ndef f():\n    from two.x import y\n    import sklearn as s\n"
    assert made.lacks(program) == ("sklearn", "two")
    assert environments.imports("from . import a\nimport b.c") == {"b"}


def test_every_package_is_pinned_for_every_python() -> None:
    for lock in packages.LOCKS.values():
        pinned = {requirement.partition("==")[0].lower() for requirement in lock}
        assert all("==" in requirement for requirement in lock)
        assert {n.lower() for n in (*packages.LIGHT, *packages.FULL)} <= pinned


def test_the_light_tier_has_the_libraries_of_most_tasks(shared: Path) -> None:
    here = environments.find("bigcodebench", environments.default_cache_dir(), "light")
    if here is None:
        pytest.skip("no light environment: python -m harness env bigcodebench")
    with gzip.open(shared / "data" / "BigCodeBench-v0.1.4.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    whole = [f"{r['complete_prompt']}{r['canonical_solution']}\n{r['test']}" for r in rows]
    graded = sum(not here.lacks(program) for program in whole)
    assert graded >= 0.94 * len(rows), f"{graded} of {len(rows)}"
