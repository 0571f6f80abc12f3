"""A trajectory is followed to the line that failed; it bears any size; nothing in it can inject."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.journal import Journal
from harness.store import open_snapshot
from leaderboard.records import (
    Texts,
    gradings,
    is_search,
    neighbours,
    read_sample,
    some_samples,
    source_of,
    verdict_counts,
)
from tests.results_maker import drawn, published, search, text_of

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

EVIL = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> "
    "&lt;b&gt; **bold** _it_ `code` $x^2$ $$y$$ [link](http://evil.example) "
    "![image](http://evil.example/i.png) :smile: :red[red] :material/home: http://evil.example/a "
    "<http://evil.example> # head\n# head\n- item\n| a | b |\n|---|---|\n\x1b[31mred\x07 "
    "\u202erevo\u2066 \u200b\x00 \ud800 ~~gone~~"
)
HALF = "\ud800"  # of a character: no code that Python reads holds one
RAW = ("<", "`", "$", "**bold", "_it", "~~", "![", "](http", "&lt;", ":smile:", ":red[",
       ":material/home", "://", "\n#", "\n|")  # fmt: skip
# what would mean something to Markdown, once all that is escaped is taken away
SILENT = "\n\t\u2060\u00a0"  # of ours: what keeps links from being made, and short cells together
ID = f"a/{EVIL}"
WORKFLOW = """\
class Workflow:
    async def __call__(self, problem, entry_point):
        solution = await self.custom_code_generate(problem=problem)
        return solution - 1
"""


class Made:
    """A run whose records are written one by one."""

    def __init__(self, results_dir: Path, run_id: str, **fields: Any) -> None:
        self.journal = Journal(results_dir / "runs" / run_id)
        head = {"run_id": run_id, "benchmark": "humaneval", "benchmark_digest": "7dce",
                "list": "full", "protocol": "public", "level": "L2", "method": "flow",
                "knobs": {}, "roles": {"worker": {"model": "local/small"}}, "n_samples": 1,
                "seed": 0, "grader_version": "1", "price_table": "none", "kind": "measured",
                "started_at": 1762000000.0}  # fmt: skip
        (self.journal.run_dir / "run.json").write_text(json.dumps(head | fields))
        self.journal.write("session", event="start", problems=1, samples=1)
        self.key: dict[str, Any] = {}
        self.at("HumanEval/3")

    def at(self, problem_id: str, sample: int = 0) -> None:
        self.key = {"result_key": f"{problem_id}:{sample}", "problem_id": problem_id,
                    "sample": sample}  # fmt: skip

    def add(self, kind: str, **fields: Any) -> None:
        """A record; what `texts` names becomes artifacts."""
        texts = {f"{name}_sha": self.journal.artifact(text)
                 for name, text in fields.pop("texts", {}).items()}  # fmt: skip
        self.journal.write(kind, **self.key, **texts, **fields)

    def call(self, number: int, **fields: Any) -> None:
        told = {"call_no": number, "attempt": 1, "role": "worker", "model": "local/small",
                "prompt_tokens": 10, "completion_tokens": 5, "cost_usd": 0.25,
                "fresh_cost_usd": 0.25, "latency_s": 1.0}  # fmt: skip
        self.add("call", **{**told, **fields})

    def end(self) -> None:
        self.journal.write("session", event="end", status="complete")
        self.journal.close()


def failing(results_dir: Path) -> None:
    """A run with one sample: the template, then a workflow that fails at its line 4."""
    made = Made(results_dir, "flow")
    made.call(1, round=1, operator="custom_code_generate",
              texts={"request": json.dumps({"messages": [{"role": "user", "content": "solve it"}]}),
                     "response": "<think>hm, a sum</think>def f(): return 1"})  # fmt: skip
    made.add("workflow", round=1, calls=1, operators=["custom_code_generate"])
    made.add("feedback", round=1, passed=0, total=2, verdict="wrong", errors=["assert f() == 2"])
    made.add("round", round=1, score=0.0, scores=[0.0], same_as_template=True,
             texts={"workflow": WORKFLOW.replace(" - 1", ""),
                    "code": "def f(): return 1"})  # fmt: skip
    made.call(2, round=2, role="meta", texts={"request": "{}", "response": "<think>why</think>w"})
    made.add("workflow", round=2, calls=0, operators=[],
             error="run: TypeError: unsupported operand (line 4)")  # fmt: skip
    made.add("round", round=2, parent=1, modification="subtract", score=0.0, scores=[0.0],
             error="run: TypeError: unsupported operand (line 4)",
             texts={"workflow": WORKFLOW, "reply": "<think>why</think>w"})  # fmt: skip
    made.add("hidden", round=1, verdict="wrong")
    made.add("result", verdict="wrong", detail="f() gave 1, not 2", calls=2, prompt_tokens=20,
             completion_tokens=10, cost_usd=0.5, fresh_cost_usd=0.5, wall_s=2.5,
             texts={"solution": "def f(): return 1"})  # fmt: skip
    made.end()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run `flow`, a search `fit-a`, and a row `found` that rests on it; only read."""
    results_dir = tmp_path_factory.mktemp("small")
    failing(results_dir)
    search(results_dir)
    return published(results_dir)


def test_a_sample_is_followed_to_the_line_of_the_workflow_that_failed(small: Path) -> None:
    app = drawn(small, "trajectory", run="flow", sample="HumanEval/3:0")
    text = text_of(app)
    assert "run: TypeError: unsupported operand (line 4)" in text
    assert "Line 4 failed" in text
    assert "→ 4          return solution - 1" in text
    marked = [
        one.proto.body for one in app.get("html") if "<style>.st-key-workflow" in one.proto.body
    ]
    assert len(marked) == 1
    assert "code > span:nth-of-type(4) {background:" in marked[0]
    labels = [one.label.replace("\\", "") for one in app.expander]
    (second,) = [label for label in labels if label.startswith("**Round 2**")]
    assert "from round 1 · feedback 0 % · failed at line 4 · 1 call · 15 tokens · $0.250" in second
    for said in ("✗ wrong", "Test output", "f() gave 1, not 2", "assert f() == 2", "subtract"):
        assert said in text, said
    assert str(app.code[-1].value) == "def f(): return 1"


def test_only_the_decisive_stages_are_open_unless_the_address_says_which(small: Path) -> None:
    query = {"run": "flow", "sample": "HumanEval/3:0"}
    assert opened(drawn(small, "trajectory", **query)) == ["Round 1", "Round 2"]
    assert opened(drawn(small, "trajectory", **query, open="2")) == ["Round 2"]
    app = drawn(small, "trajectory", **query, open="none")
    assert opened(app) == []
    assert "Failing tests" not in text_of(app)


def opened(app: "AppTest") -> list[str]:
    """The stages that are unfolded."""
    stages = [one for one in app.expander if re.match(r"\*\*(Round|What|Before|After)", one.label)]
    return [one.label.split("**")[1] for one in stages if one.proto.expanded]


def test_a_text_is_read_only_when_it_is_unfolded(tmp_path: Path) -> None:
    made = Made(tmp_path, "flow")
    for number in range(1, 31):
        said = {"request": f"ask {number}" * 2_000, "response": f"answer {number}" * 2_000}
        made.call(number, texts=said)
    made.add("result", verdict="passed")
    made.end()
    with open_snapshot(published(tmp_path)) as connection:
        found = read_sample(connection, "flow", "HumanEval/3", 0)
        assert len(found.calls) == 30
        assert found.texts == {}
        texts = Texts(tmp_path, connection, "flow")
        texts.find(call["request_sha"] for call in found.calls)
        assert texts.read_bytes == 0
        assert texts.read(found.calls[6]["request_sha"]) == "ask 7" * 2_000
        assert 10_000 < texts.read_bytes < 11_000
        assert texts.read("f" * 64) is None
    app = drawn(tmp_path, "trajectory", run="flow", sample="HumanEval/3:0")
    assert "ask 7" not in text_of(app)
    assert sum("call " in one.label for one in app.expander) == 30


def test_two_thousand_calls_are_shown_fifty_at_a_time(tmp_path: Path) -> None:
    made = Made(tmp_path, "flow")
    for number in range(1, 2_001):
        made.call(number)
    made.add("result", verdict="passed")
    made.end()
    published(tmp_path)
    app = drawn(tmp_path, "trajectory", run="flow", sample="HumanEval/3:0")
    assert calls_shown(app) == list(range(1, 51))
    assert "2,000" in [metric.value for metric in app.metric]
    app = drawn(tmp_path, "trajectory", run="flow", sample="HumanEval/3:0", **{"calls-alone": "40"})
    assert calls_shown(app) == list(range(1_951, 2_001))


def calls_shown(app: "AppTest") -> list[int]:
    found = (re.match(r"call (\d+)", one.label) for one in app.expander)
    return [int(one.group(1)) for one in found if one]


def test_a_text_of_five_megabytes_is_cut_with_its_length_said_and_can_be_downloaded(
    tmp_path: Path,
) -> None:
    made = Made(tmp_path, "flow")
    made.call(1, texts={"request": "{}", "response": "x" * 5_000_000})
    made.add("feedback", passed=0, total=1, errors=["y" * 5_000_000])
    made.add("result", verdict="wrong", detail="z" * 5_000_000,
             texts={"solution": "pass  # " + "w" * 5_000_000})  # fmt: skip
    made.end()
    app = drawn(published(tmp_path), "trajectory", run="flow", sample="HumanEval/3:0")
    text = text_of(app)
    assert "Reply: 5,000,000 characters, of which the first 20,000 are shown" in text
    assert "Test output: 5,000,000 characters" in text
    assert "Failing tests: 5,000,000 characters" in text
    assert max(len(str(one.value)) for one in app.code) == 20_000
    assert len(app.get("download_button")) == 4
    assert len(text) < 100_000


def test_the_workflow_of_a_search_is_shown_with_the_line_that_failed_in_a_row(
    tmp_path: Path,
) -> None:
    search(tmp_path)
    folder = tmp_path / "runs" / "fit-a"
    made = Made(tmp_path, "row", artifact={"run": "fit-a"}, method="aflow")
    made.add("workflow", calls=0, operators=[], error="run: TypeError: no (line 4)")
    made.add("result", verdict="no_code")
    made.end()
    query = {"run": "row", "sample": "HumanEval/3:0"}
    text = text_of(drawn(published(tmp_path), "trajectory", **query))
    assert "the search fit-a is not among these results" in text
    (folder / "artifact.json").write_text(json.dumps({"content": {"graph": WORKFLOW}}))
    text = text_of(drawn(tmp_path, "trajectory", **query))
    assert "→ 4          return solution - 1" in text
    with open_snapshot(tmp_path) as connection:
        assert source_of(connection, tmp_path, "fit-a") == (None, None)
        for name in ("../../secret", "..", "a/b"):
            told = json.dumps({"run": name})
            assert source_of(_Answer(told), tmp_path, "row")[0] is None  # type: ignore[arg-type]


class _Answer:
    """A connection that gives one artifact, whatever is asked."""

    def __init__(self, told: str) -> None:
        self.told = told

    def execute(self, *_: Any) -> "_Answer":
        return self

    def fetchone(self) -> tuple[str]:
        return (self.told,)


def test_samples_are_counted_filtered_paged_and_have_neighbours(tmp_path: Path) -> None:
    made = Made(tmp_path, "flow")
    for number, verdict in ((10, "passed"), (2, "wrong"), (1, "wrong"), (9, "passed")):
        made.at(f"a/{number}")
        made.add("result", verdict=verdict)
    made.end()
    with open_snapshot(published(tmp_path)) as connection:
        assert verdict_counts(connection, "flow") == {"passed": 2, "wrong": 2}
        assert names(some_samples(connection, "flow")) == ["a/1", "a/2", "a/9", "a/10"]
        assert names(some_samples(connection, "flow", ["passed"])) == ["a/9", "a/10"]
        assert names(some_samples(connection, "flow", first=1, most=2)) == ["a/2", "a/9"]
        assert neighbours(connection, "flow", "a/2", 0) == ("a/1:0", "a/9:0")
        assert neighbours(connection, "flow", "a/10", 0) == ("a/9:0", None)
        assert neighbours(connection, "flow", "a/2", 0, ["passed"]) == (None, "a/9:0")
        assert neighbours(connection, "flow", "b/7", 0) == (None, None)
        assert not is_search(connection, "flow")
        assert gradings(connection, "flow", "a/1", 0) == []


def test_the_address_says_which_verdicts_are_shown(tmp_path: Path) -> None:
    made = Made(tmp_path, "flow")
    for number, verdict in enumerate(["passed", "no_code", "no_code", EVIL]):
        made.at(f"a/{number}")
        made.add("result", verdict=verdict)
    made.end()
    published(tmp_path)
    app = drawn(tmp_path, "trajectory", run="flow", verdict="no_code")
    assert list(app.dataframe[0].value["Problem"]) == ["a/1", "a/2"]
    assert "2 no_code, 1 " in text_of(app)
    both = drawn(tmp_path, "trajectory", run="flow", verdict=["no_code", "passed"])
    assert list(both.dataframe[0].value["Problem"]) == ["a/0", "a/1", "a/2"]


def names(rows: list[Any]) -> list[str]:
    return [row.problem_id for row in rows]


def test_an_address_that_names_nothing_is_answered_in_words(small: Path) -> None:
    asked = {
        ("trajectory", "none", ""): "names a run that is not in the results",
        ("trajectory", "flow", "HumanEval/9:0"): "no such sample",
        ("trajectory", "flow", "HumanEval/3:²"): "names no sample",
        ("searches", "flow", ""): "names a search that is not in the results",
        ("searches", "fit-a", "a/8:1"): "names an attempt that is not in the search",
        ("searches", "fit-a", "a/8"): "names no attempt",
    }
    for (view, run_id, sample), said in asked.items():
        query = {"run": run_id, **({"sample": sample} if sample else {})}
        assert said in text_of(drawn(small, view, **query)), (view, run_id, sample)


def test_a_run_that_is_a_search_goes_on_to_its_page(small: Path) -> None:
    text = text_of(drawn(small, "trajectory", run="fit-a", sample="a/8:1002"))
    assert "round 2, run 1: passed" in text


def test_a_lost_journal_is_said_and_the_page_still_stands(tmp_path: Path) -> None:
    failing(tmp_path)
    published(tmp_path)
    (tmp_path / "runs" / "flow" / "0001.jsonl").unlink()
    app = drawn(tmp_path, "trajectory", run="flow", sample="HumanEval/3:0")
    assert "A text cannot be read from the journal." in text_of(app)
    assert "✗ wrong" in text_of(app)


def test_an_unfinished_sample_is_shown_as_far_as_it_came(tmp_path: Path) -> None:
    made = Made(tmp_path, "flow")
    made.call(1, round=1)
    made.add("round", round=1, score=0.5, scores=[0.5])
    made.call(2, round=2, error="given up in flight", error_kind="cancelled")
    made.journal.close()
    app = drawn(published(tmp_path), "trajectory", run="flow", sample="HumanEval/3:0")
    assert "no verdict yet" in text_of(app)
    assert opened(app) == ["Round 2"]
    assert "given up in flight" not in text_of(app)  # its call is folded
    assert any("call 2" in one.label and "cancelled" in one.label for one in app.expander)


def test_a_search_shows_its_tree_its_cost_its_rows_and_a_candidate(small: Path) -> None:
    app = drawn(small, "searches", run="fit-a", candidate="3")
    text = text_of(app)
    assert app.selectbox[0].value == 3
    chosen = app.selectbox[0].select_index(0).run()
    assert chosen.query_params["candidate"] == "1"
    assert drawn(small, "searches", run="fit-a", candidate="9").selectbox[0].value == 2  # the best
    assert "Search of aflow on humaneval" in text
    assert {one.label: one.value for one in app.metric}["Best"].replace("\\", "") == "100.0 %"
    assert any("Row: found" in one.label.replace("\\", "") for one in app.button)
    assert len(app.get("graphviz_chart")) == 1
    assert "It has no code." in text
    assert [one.label for one in app.selectbox] == ["Candidate"]
    assert len(drawings(app)) == 1  # the loss


def test_a_training_of_any_named_numbers_is_drawn_under_their_names(tmp_path: Path) -> None:
    made = Made(tmp_path, "train", stage="fit", method="grpo")
    made.at("search")
    for number in range(3):
        parts = {"reward": number / 2, "reward/pass_rate": 0.5, "kl": 0.01 * number,
                 "valid_workflow_rate": 1.0, EVIL.replace(HALF, ""): 3.0,
                 "words": "no number"}  # fmt: skip
        made.add("step", number=number, **parts)
    made.end()
    app = drawn(published(tmp_path), "searches", run="train")
    assert "3 steps; 5 numbers at each." in text_of(app)
    assert len(drawings(app)) == 5
    made = Made(tmp_path, "wide", stage="fit", method="grpo")
    made.at("search")
    for number in range(2):
        made.add("step", number=number, **{f"number {n}": float(n) for n in range(20)})
    made.end()
    app = drawn(published(tmp_path), "searches", run="wide", numbers=["number 3", "number 19"])
    assert len(drawings(app)) == 2


def drawings(app: "AppTest") -> list[Any]:
    return [*app.get("arrow_vega_lite_chart"), *app.get("vega_lite_chart")]


def test_a_sample_stands_in_a_column_twice_on_one_page(small: Path) -> None:
    from streamlit.testing.v1 import AppTest

    app = AppTest.from_string(
        "import pathlib\nimport streamlit as st\nfrom harness.store import open_snapshot\n"
        "from leaderboard.views.trajectory import sample_part\n"
        "from leaderboard.widgets import Results\n"
        f"folder = pathlib.Path({str(small)!r})\n"
        "results = Results(folder, open_snapshot(folder), 1)\n"
        "for place, problem in zip(st.columns(2), ('HumanEval/3', 'HumanEval/4')):\n"
        "    with place:\n        sample_part(results, 'flow', problem, 0)\n",
        default_timeout=60,
    ).run()
    assert not app.exception
    text = text_of(app)
    assert "→ 4          return solution - 1" in text
    assert "2 calls · 30 tokens · $0.500 · 2.0 s of model time" in text
    assert "This run has no such sample." in text


def hostile(results_dir: Path) -> None:
    """A run and a search in which every field that others write is hostile.

    But verdicts: the store takes none that is not one of ours.
    """
    code = EVIL.replace(HALF, "")
    texts = {"request": json.dumps({"messages": [{"role": EVIL, "content": EVIL}]}),
             "response": f"<think>{EVIL}</think>{EVIL}"}  # fmt: skip
    head = {"method": code, "benchmark": code, "list": code, "protocol": code, "level": code,
            "grader_version": code, "price_table": code, "knobs": {code: code},
            "roles": {"worker": {"model": code}, "meta": {"model": code}}, "command": [code],
            "sandbox": code, "commit": code, "kind": code}  # fmt: skip
    for run_id, stage in (("evil", "eval"), ("fit-evil", "fit")):
        made = Made(results_dir, run_id, stage=stage, **head)
        made.at(ID)
        for number, error in ((1, None), (2, EVIL)):
            made.call(number, round=number, role=EVIL, model=EVIL, operator=EVIL, finish=EVIL,
                      output_format=EVIL, about=EVIL, error=error, error_kind=error,
                      texts=texts)  # fmt: skip
            made.add("workflow", round=number, calls=1, operators=[EVIL, EVIL, "other"],
                     error=f"{EVIL} (line 1)", error_class=EVIL, about=EVIL,
                     texts={"answer": EVIL})  # fmt: skip
            made.add("feedback", round=number, passed=0, total=1, verdict="wrong",
                     errors=[EVIL, EVIL], about=EVIL, texts={"code": EVIL})  # fmt: skip
            made.add("round", round=number, parent=2, modification=EVIL, score=0.5, scores=[0.5, 1],
                     error=f"{EVIL} (line 2)", error_class=EVIL, about=EVIL,
                     texts={"workflow": f"{WORKFLOW}# {code}" if number == 1 else EVIL,
                            "prompts": EVIL, "reply": texts["response"], "code": EVIL})  # fmt: skip
            made.add("hidden", round=number, verdict="wrong")
        made.add(EVIL, **{EVIL: EVIL, "list": [EVIL, {EVIL: EVIL}]},
                 texts={EVIL.replace("_", ""): EVIL})  # fmt: skip
        if stage == "eval":
            made.add("result", verdict="wrong", detail=EVIL, fresh="wrong", error_kind=EVIL,
                     price_table=EVIL, reruns=[EVIL],
                     texts={"solution": EVIL})  # fmt: skip
        else:
            made.add("trial", round=1, label=EVIL, passed=False, share=0.5, detail=EVIL,
                     facts={EVIL: EVIL}, texts={"code": EVIL})  # fmt: skip
            made.at("search")
            for number in (1, 2):
                made.add("node", number=number, parent=1, label=EVIL, score=0.5, error=EVIL,
                         texts={"workflow": f"{WORKFLOW}# {code}", "reply": EVIL})  # fmt: skip
                made.add("step", number=number, **{code: 1.0})
        made.end()
    published(results_dir)


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results_dir = tmp_path_factory.mktemp("evil")
    hostile(results_dir)
    return results_dir


@pytest.mark.parametrize(
    ("view", "query"),
    [
        ("trajectory", {}),
        ("trajectory", {"run": "evil"}),
        ("trajectory", {"run": "evil", "sample": f"{ID.replace(HALF, chr(92) + 'ud800')}:0"}),
        ("searches", {}),
        ("searches", {"run": "fit-evil"}),
        ("searches", {"run": "fit-evil", "sample": f"{ID.replace(HALF, chr(92) + 'ud800')}:0"}),
        ("searches", {"run": "fit-evil", "sample": "search:0"}),
        ("trajectory", {"run": EVIL.replace(HALF, "")}),
    ],
)
def test_nothing_that_others_wrote_is_markup_on_any_page(
    evil: Path, view: str, query: dict[str, str]
) -> None:
    app = drawn(evil, view, **query)
    if query.get("sample", "").startswith("a/"):
        assert len(app.expander) > 10  # it is there, and open
        unfold(app)
        unfold(app)  # what was inside of it
        assert sum(EVIL.splitlines()[1] in str(one.value) for one in app.code) > 20
    seen = 0
    for kind, proto in elements(app):
        seen += 1
        for path, text in strings(proto):
            assert not [
                ch for ch in text if not ch.isprintable() and ch not in "\n\t\u2060\u00a0"
            ], (
                kind,
                path,
            )
            if markdown(kind, path):
                found = [raw for raw in RAW if raw in unescaped(text)]
                assert not found, (kind, path, found, text)
        if kind == "markdown":
            assert not proto.allow_html
        if kind == "html":
            link = r'<a href="[a-z]+\?[\w%&;=+.~*-]+" target="_self">[^<>]*</a>'
            folded = rf"<details><summary>[^<>]*</summary><ul>(<li>{link}</li>)+</ul></details>"
            ours = rf'<span id="stage-[a-z0-9]+"></span>|<style>[^<]*</style>|{folded}'
            assert re.fullmatch(ours, proto.body.strip(), re.DOTALL), proto.body
    assert seen > 3


def unfold(app: "AppTest") -> None:
    """Open all that is folded, so that its texts are drawn."""
    for one in app.expander:
        if found := re.search(r"(fold|stage)-[0-9a-f]{8}-.*$", one.proto.id):
            app.session_state[found.group()] = True
    app.run()
    assert not app.exception


def elements(app: "AppTest") -> Iterator[tuple[str, Any]]:
    """(kind, message) of everything on the page, blocks with a label among them."""
    waiting: list[Any] = [app._tree]
    while waiting:
        node = waiting.pop()
        children = getattr(node, "children", None)
        if children:
            waiting += list(children.values())
        proto = getattr(node, "proto", None)
        if proto is not None:
            yield str(getattr(node, "type", "block")), proto


def strings(proto: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, text) of every text in a message; tables are read cell by cell."""
    import pyarrow as pa

    for field, value in proto.ListFields():
        name = f"{path}.{field.name}"
        repeated = not isinstance(value, str | bytes) and hasattr(value, "__iter__")
        if hasattr(value, "items"):  # a map
            for key, one in value.items():
                yield name, str(key)
                yield name, str(one)
            continue
        for one in value if repeated else [value]:
            if isinstance(one, str):
                yield name, one
            elif isinstance(one, bytes) and one:
                try:
                    rows = pa.ipc.open_stream(one).read_all().to_pylist()
                except pa.ArrowInvalid:
                    continue
                for row in rows:
                    for cell in row.values():
                        yield f"{name}.cell", str(cell)
            elif hasattr(one, "ListFields"):
                yield from strings(one, name)


def markdown(kind: str, path: str) -> bool:
    """Whether the page reads a text as Markdown."""
    if kind in ("markdown", "heading", "alert", "success", "error", "info", "warning", "title",
                "subheader", "caption"):  # fmt: skip
        return path.endswith("body")
    if kind in ("table", "arrow_table"):
        return path.endswith("cell")
    return path.endswith((".label", ".help", ".content", "content_icon"))


def unescaped(text: str) -> str:
    """What Markdown reads as marks: without what is escaped, and the bars of ours, which are code.

    An icon that is ours is no mark.
    """
    return re.sub(r"\\[!-/:-@\[-`{-~]|`[█░]+`|:material/(star|error|sync|forum):", "", text)
