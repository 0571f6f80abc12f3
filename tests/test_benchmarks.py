"""Where benchmark files come from, what is refused, and HumanEval's examples."""

from __future__ import annotations

import ast
import dataclasses
import functools
import gzip
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from harness import benchmarks
from harness.benchmarks import Benchmark, DataSources, humaneval_plus, source
from harness.benchmarks.examples import examples
from harness.benchmarks.humaneval import CONTRADICTED, SOURCE
from harness.benchmarks.source import read, rows_digest
from harness.errors import BenchmarkError, UsageError
from harness.types import Assertions, Problem

WITHOUT_EXAMPLES = [38, 41, 50, 80, 81, 83, 105, 116, 149, 160]
ROWS: list[dict[str, Any]] = [
    {"task_id": "T/0", "text": "é", "n": 1},
    {"task_id": "T/1", "text": "b", "n": 2.5},
]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
PACKED = gzip.compress(LINES, mtime=0)
SMALL = source.Source(
    file="small.jsonl.gz",
    sha256=hashlib.sha256(PACKED).hexdigest(),
    digest=rows_digest(ROWS),
    rows=2,
    fields={"task_id": str, "text": str, "n": (int, float)},
    licence="MIT",
    revision="v1",
    override="mbpp+",
)
AT_HAND = {
    "the pinned bytes": PACKED,
    "lines, not packed": LINES,
    "keys in another order": gzip.compress(
        b"".join(json.dumps(r, sort_keys=True).encode() + b"\n\n" for r in ROWS)
    ),
    "one array": json.dumps(ROWS, indent=1).encode(),
    "one array, packed": gzip.compress(json.dumps(ROWS).encode()),
    "letters escaped or not": json.dumps(ROWS, ensure_ascii=False).encode(),
}
DAMAGED = {
    "a cut gzip": (PACKED[:-9], r"damaged gzip \(.*\); get the file again"),
    "a row that is cut": (LINES[:-4], r"row 2: not JSON \(.*\); correct it"),
    "no JSON": (b"<html>", r"row 1: not JSON \(.*\); correct it"),
    "a damaged Parquet": (b"PAR1 and no more", r"damaged Parquet \(.*\); get the file again"),
    "deep nesting": (b"[" * 100_000, r"row 1: not JSON \(.*\); correct it"),
}
BAD_ROWS: dict[str, tuple[list[Any], str]] = {
    "a missing field": ([{"task_id": "T/0", "n": 1}], "row 1: no field 'text'"),
    "another type": ([ROWS[0], ROWS[1] | {"text": 7}], "row 2: field 'text' is of type int"),
    "no object": ([7], "row 1: expected an object, found int"),
    "an id twice": ([ROWS[0], ROWS[0]], "row 2: task_id 'T/0' occurs twice"),
    "nothing": ([], "no rows for small.jsonl.gz"),
}


@pytest.fixture(scope="module")
def humaneval() -> Benchmark:
    """HumanEval under protocol `public`, out of the package that carries it."""
    return benchmarks.apply(benchmarks.load("humaneval"), "public")


def one_line(error: pytest.ExceptionInfo[BenchmarkError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", AT_HAND)
def test_any_spelling_of_the_pinned_rows_will_do(name: str, tmp_path: Path) -> None:
    (tmp_path / SMALL.file).write_bytes(AT_HAND[name])
    data = read(SMALL, DataSources(tmp_path))
    assert (list(data.rows()), data.digest, data.custom) == (ROWS, SMALL.digest, False)


def test_a_parquet_file_of_the_pinned_rows_will_do(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{**row, "n": float(str(row["n"]))} for row in ROWS]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / SMALL.file)
    pinned = dataclasses.replace(SMALL, digest=rows_digest(rows))
    assert list(read(pinned, DataSources(tmp_path)).rows()) == rows


def test_the_name_without_gz_is_looked_for_too(tmp_path: Path) -> None:
    (tmp_path / "small.jsonl").write_bytes(LINES)
    assert list(read(SMALL, DataSources(tmp_path)).rows()) == ROWS


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named_in_one_line(name: str, tmp_path: Path) -> None:
    data, message = DAMAGED[name]
    path = tmp_path / SMALL.file
    path.write_bytes(data)
    for sources in (DataSources(tmp_path), DataSources(overrides={"mbpp+": path})):
        with pytest.raises(BenchmarkError, match=message) as error:
            read(SMALL, sources)
        assert str(path) in one_line(error)


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_row_that_will_not_do_is_named(name: str, tmp_path: Path) -> None:
    rows, message = BAD_ROWS[name]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BenchmarkError, match=message) as error:
        read(SMALL, DataSources(overrides={"mbpp+": path}))
    assert one_line(error).startswith(str(path))


def test_other_rows_in_the_data_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / SMALL.file).write_bytes(b'{"task_id": "T/0", "text": "x", "n": 1}\n')
    with pytest.raises(BenchmarkError, match=f"expected SHA-256 {SMALL.sha256}") as error:
        read(SMALL, DataSources(tmp_path))
    assert "found" in one_line(error)
    assert "name it in MBPP_OVERRIDE_PATH to use it as it is" in str(error.value)


def test_other_rows_in_an_override_are_marked_custom(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n")
    data = read(SMALL, DataSources(overrides={"mbpp+": path}))
    assert (data.custom, data.digest) == (True, rows_digest(ROWS[:1]))
    path.write_bytes(LINES)
    assert not read(SMALL, DataSources(overrides={"mbpp+": path})).custom


def test_an_override_that_is_not_there_names_its_variable(tmp_path: Path) -> None:
    sources = DataSources(overrides={"mbpp+": tmp_path / "none.jsonl"})
    with pytest.raises(BenchmarkError, match="not there, though MBPP_OVERRIDE_PATH names it"):
        read(SMALL, sources)


def test_places_are_tried_in_the_order_that_is_promised(tmp_path: Path) -> None:
    places = [tmp_path / "mine", tmp_path / "folder" / SMALL.file]
    places.append(tmp_path / "cache" / "data" / SMALL.file)
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(PACKED)
    sources = DataSources(
        tmp_path / "folder", tmp_path / "cache", {"mbpp+": tmp_path / "mine"}, offline=True
    )
    for place in places:
        assert read(SMALL, sources).path == str(place)
        place.unlink()
        sources = dataclasses.replace(sources, overrides={})
    with pytest.raises(BenchmarkError):
        read(SMALL, sources)


def test_a_package_stands_in_for_a_file_that_is_nowhere_else(tmp_path: Path) -> None:
    data = read(SOURCE, DataSources(tmp_path, tmp_path, offline=True))
    assert Path(data.path).name == SOURCE.file
    assert tmp_path not in Path(data.path).parents


def test_a_data_folder_that_is_none_is_an_error_even_where_the_file_is_found_elsewhere(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / SMALL.file).write_bytes(PACKED)
    assert read(SMALL, DataSources(None, tmp_path, offline=True)).digest == SMALL.digest
    for wrong in (tmp_path / "nowhere", tmp_path / "data" / SMALL.file):
        with pytest.raises(BenchmarkError) as error:
            read(SMALL, DataSources(wrong, tmp_path, offline=True))
        advice = "correct --data-dir or HARNESS_DATA_DIR"
        assert one_line(error) == f"{wrong}: no such folder; {advice}"


def test_an_absent_file_offline_is_one_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(BenchmarkError) as error:
        benchmarks.load("humaneval+", DataSources(tmp_path / "a", tmp_path / "b", offline=True))
    message = one_line(error)
    for part in (
        "HumanEvalPlus.jsonl.gz is not at hand",
        f"SHA-256 {humaneval_plus.SOURCE.sha256}",
        humaneval_plus.SOURCE.urls[0],
        "--data-dir, HARNESS_DATA_DIR",
        str(tmp_path / "b" / "data"),
        "HUMANEVAL_OVERRIDE_PATH",
        "downloads are switched off",
    ):
        assert part in message
    assert not (tmp_path / "b").exists()


@pytest.fixture
def release(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which a server of ours gives its files."""
    folder = tmp_path / "release"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_download_is_kept_in_the_cache(release: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = release
    (folder / "given").write_bytes(LINES)
    pinned = dataclasses.replace(SMALL, urls=(f"{address}/absent", f"{address}/given"))
    sources = DataSources(cache_dir=tmp_path / "cache")
    assert list(read(pinned, sources).rows()) == ROWS
    assert [p.name for p in (tmp_path / "cache" / "data").iterdir()] == [SMALL.file]
    (folder / "given").unlink()
    assert list(read(pinned, dataclasses.replace(sources, offline=True)).rows()) == ROWS


def test_a_wrong_download_is_not_kept(release: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = release
    (folder / "given").write_bytes(b'{"task_id": "T/0"}\n')
    pinned = dataclasses.replace(SMALL, urls=(f"{address}/given",))
    with pytest.raises(BenchmarkError, match="expected SHA-256"):
        read(pinned, DataSources(cache_dir=tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_a_failed_download_says_why(release: tuple[Path, str], tmp_path: Path) -> None:
    pinned = dataclasses.replace(SMALL, urls=(f"{release[1]}/absent",))
    with pytest.raises(BenchmarkError, match="absent: File not found") as error:
        read(pinned, DataSources(cache_dir=tmp_path))
    assert SMALL.sha256 in one_line(error)


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / SMALL.file).write_bytes(b'{"task_id": "T/0"}')
    with pytest.raises(BenchmarkError, match="delete it"):
        read(SMALL, DataSources(cache_dir=tmp_path))


def test_a_row_that_makes_no_problem_is_named(tmp_path: Path, shared: Path) -> None:
    packed = (shared / "data" / "BigCodeBench-Hard-v0.1.4.jsonl.gz").read_bytes()
    rows: list[dict[str, Any]] = [json.loads(r) for r in gzip.decompress(packed).splitlines()[:2]]
    rows[1]["test"] = "class TestCases(:"
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BenchmarkError, match="row 2: SyntaxError") as error:
        benchmarks.load("bigcodebench", DataSources(overrides={"bigcodebench": path}))
    assert one_line(error).startswith(str(path))


def test_an_unknown_benchmark_is_a_usage_error_that_names_the_known() -> None:
    with pytest.raises(UsageError, match=r"'humanevil': use one of bigcodebench-complete, .*mbpp"):
        benchmarks.load("humanevil")


def test_the_digest_is_of_the_content_not_of_its_spelling() -> None:
    one, two = [{"a": 1, "b": "é"}], [{"b": "é", "a": 1}]
    assert rows_digest(one) == rows_digest(two)
    assert rows_digest(one) != rows_digest([{"a": 2, "b": "é"}])


def test_what_a_method_sees_holds_no_reference_and_no_hidden_test(humaneval: Benchmark) -> None:
    assert {f.name for f in dataclasses.fields(Problem)} == {
        "problem_id", "benchmark", "prompt", "entry_point", "prelude", "examples",
    }  # fmt: skip
    for item in humaneval.items.values():
        seen = "\n".join(str(value) for value in dataclasses.asdict(item.problem).values())
        assert isinstance(item.oracle.tests, Assertions)
        assert item.oracle.tests.setup.strip() not in seen
        assert item.oracle.reference.removeprefix(item.problem.prompt).strip() not in seen


def test_the_problems_without_an_example_are_these(humaneval: Benchmark) -> None:
    found = [n for n, i in enumerate(humaneval.items.values()) if not i.problem.examples]
    assert found == WITHOUT_EXAMPLES


def test_examples_come_from_the_prompt_alone(humaneval: Benchmark) -> None:
    for item in humaneval.items.values():
        problem = item.problem
        made = examples(problem.prompt, problem.entry_point)
        assert set(problem.examples) <= set(made)
        left_out = set(made) - set(problem.examples)
        assert left_out == set(CONTRADICTED.get(problem.problem_id, ()))


def test_each_value_of_an_example_is_in_the_prompt(humaneval: Benchmark) -> None:
    for item in humaneval.items.values():
        prompt = item.problem.prompt
        shown = "".join(prompt.split())
        for example in item.problem.examples:
            for node in ast.walk(ast.parse(example)):
                if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
                    value = repr(node.value)
                    words = {"True": "true", "False": "false", "None": "none"}
                    assert value in shown or words.get(value, value) in shown.lower(), example
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    text = "".join(node.value.split())
                    forms = (text, "".join(repr(node.value)[1:-1].split()))
                    assert any(form in shown for form in forms), example


def test_every_example_is_one_assertion_on_the_entry_point(humaneval: Benchmark) -> None:
    for item in humaneval.items.values():
        assert len(set(item.problem.examples)) == len(item.problem.examples)
        for example in item.problem.examples:
            (node,) = ast.parse(example).body
            assert isinstance(node, ast.Assert)
            assert item.problem.entry_point in example


PROMPTS = {
    "doctest": (">>> f(1)\n    2", ("assert f(1) == 2",)),
    "doctest on one line": (">>> f(1) 2", ("assert f(1) == 2",)),
    "doctest that prints nothing": (">>> f(1)\n\n", ("assert f(1) is None",)),
    "equality": ("f(1) == 2", ("assert f(1) == 2",)),
    "arrow": ("f([1, 2], 'a') ➞ [2]", ("assert f([1, 2], 'a') == [2]",)),
    "double arrow": ("* f(1) => True", ("assert f(1) is True",)),
    "words": ("f(1) should return 'a b'.", ("assert f(1) == 'a b'",)),
    "returns": ("f(1) returns 2", ("assert f(1) == 2",)),
    "lower-case words of other languages": ("f(1) -> true", ("assert f(1) is True",)),
    "comment": ("f(1) == 2 # one and one", ("assert f(1) == 2",)),
    "nested call": (">>> f(f(1))\n    3", ("assert f(f(1)) == 3",)),
    "input and output": ("Input: a = 1, b = [2]\n    Output: 3", ("assert f(1, [2]) == 3",)),
    "twice the same": (">>> f(1)\n    2\n    >>> f(1)\n    2", ("assert f(1) == 2",)),
    "no literal": ("f(1) == g(2)", ()),
    "unknown name": ("f(xs) == 2", ()),
    "mention": ("f(1) is called twice", ()),
    "not a call": ("f is 2", ()),
    "another function": (">>> g(1)\n    2\n    xf(1) == 2", ()),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_an_example_is_read_as_it_is_written(name: str) -> None:
    text, expected = PROMPTS[name]
    prompt = f'def f(*args):\n    """Do it.\n    {text}\n    """\n'
    assert examples(prompt, "f") == expected


def test_a_prompt_without_a_docstring_has_no_example() -> None:
    assert examples("def f(x):\n    # f(1) == 2\n", "f") == ()
