"""The static site says what the board says, runs nothing, leads nowhere else, and is whole."""

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from harness.errors import UsageError
from harness.journal import Journal
from harness.store import Store, open_snapshot
from leaderboard.site import FORMAT, MARK, _letters, write_site
from leaderboard.site_html import MOST_TEXT, POLICY, STYLE, Cell, block, table, text
from tests.results_maker import HOSTILE, in_rounds, published, run, search

OWNED = '<meta http-equiv=refresh content="0;url=http://127.0.0.1:9/owned">'
VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """A page's elements, links, texts and tables; that every element is closed is checked."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(path.read_text())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{self.path}: {tag} closes something else"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def links(self) -> list[str]:
        return [str(attrs["href"]) for tag, attrs in self.tags if tag == "a"]

    def rows(self, caption: str) -> list[list[str]]:
        """The cells of the rows of the table with such a caption, tags left out."""
        (body,) = re.findall(
            rf"<caption>[^<]*{re.escape(caption)}[^<]*</caption>.*?<tbody>(.*?)</tbody>",
            self.path.read_text(), re.DOTALL,
        )  # fmt: skip
        return [
            [" ".join(re.sub(r"<[^>]*>", " ", cell).split())
             for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.DOTALL)]
            for line in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
        ]  # fmt: skip


def site(results_dir: Path, folder: Path, **options: int) -> dict[str, Page]:
    """Write the site; its pages by their place in it."""
    with open_snapshot(results_dir) as connection:
        first = write_site(connection, results_dir, folder, **options)
    assert first == folder / "index.html"
    return {str(path.relative_to(folder)): Page(path) for path in sorted(folder.rglob("*.html"))}


FOUR = [f"HumanEval/{n}" for n in range(4)]


def solving(which: str) -> dict[str, list[str]]:
    return {name: ["passed" if mark == "1" else "wrong"] for name, mark in
            zip(FOUR, which, strict=True)}  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods on one ranking, several samples on another, rounds, a search, odd names."""
    folder = tmp_path_factory.mktemp("results")
    run(folder, "he-vanilla", solving("1000"), method="vanilla", cost=0.01)
    run(folder, "he-draws", solving("1100"), method="best-of-n", cost=0.04)
    run(folder, "he-flow", solving("1111"), method="flowreasoner", cost=0.02)
    run(folder, "he-made-up", solving("1111"), method="vanilla", kind="simulated")
    run(folder, "odd. name&<b>", {"</td><script>x</script>": ["passed", "wrong", "wrong"],
                                  "a b": ["invalid"]}, method="<i>own</i>", benchmark="mbpp",
        worker="w", n_samples=3)  # fmt: skip
    in_rounds(folder, "rounds", {"a/0": [(0.0, "wrong"), (1.0, "passed")]}, list="paper")
    search(folder)
    journal = Journal(folder / "runs" / "fit-a")
    journal.write("step", result_key="desk", problem_id="search", sample=0, number=4,
                  **{OWNED: 0.5})  # fmt: skip
    journal.close()
    return published(folder)


@pytest.fixture(scope="module")
def pages(results: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    return site(results, tmp_path_factory.mktemp("site"))


def test_nothing_on_the_site_can_run_and_no_text_of_a_model_is_markup(
    pages: dict[str, Page],
) -> None:
    allowed = "html head meta title style body a nav main h1 h2 h3 p ul li strong abbr table"
    allowed += " caption thead tbody tr th td div span section details summary pre figure svg g"
    allowed += " path text line rect circle small sup"
    for page in pages.values():
        for tag, attrs in page.tags:
            assert tag in allowed.split(), (page.path, tag)
            assert not any(name.startswith("on") or name in ("style", "src") for name in attrs)
        policies = [a["content"] for t, a in page.tags if a.get("http-equiv")]
        assert policies == [POLICY]
        assert "\x1b" not in page.path.read_text()
        assert not any(tag in ("b", "i", "img") for tag, _ in page.tags)
    sample = next(p for name, p in pages.items() if name.startswith("runs/he-flow/HumanEval-0"))
    assert "<script>document.title='owned'</script>" in sample.words
    assert "\\x1b[31mred" in sample.words
    training = next(page for page in pages.values() if "Training" in page.words)
    assert OWNED in training.words  # the name of a column
    assert training.rows("Numbers by step")[-1][-1] == "0.5"


def test_a_cell_is_markup_only_where_it_says_so() -> None:
    made = table("C", ["<b>", "<td"], [["a", "<td>b"], ["c", Cell("d", "wide")]], numbers=["<td"])
    assert '<th scope="col">&lt;b&gt;</th>' in made
    assert '<td class="number"><td>b</td>' in made  # its caller's mark-up, in a cell of ours
    assert '<td class="wide">d</td>' in made
    assert '<th scope="col"><b></th>' in table("C", ["<b>"], [["a"]], marked=True)


def test_the_policy_names_the_one_style_sheet_and_no_script() -> None:
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in POLICY
    assert "default-src 'none'" in POLICY
    assert "script" not in POLICY
    assert "prefers-color-scheme:dark" in STYLE
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_every_link_is_relative_and_leads_to_a_file_of_the_site(pages: dict[str, Page]) -> None:
    reached = {"index.html"}
    root = next(iter(pages.values())).path.parent
    for page in pages.values():
        for to in page.links():
            parts = urlsplit(to)
            assert (parts.scheme, parts.netloc) == ("", ""), to
            if not parts.path:
                assert f'id="{parts.fragment}"' in page.path.read_text()
                continue
            target = (page.path.parent / unquote(parts.path)).resolve()
            assert target.is_file(), (page.path, to)
            reached.add(str(target.relative_to(root.resolve())))
    assert set(pages) <= reached


def test_tables_have_captions_and_scopes_and_the_score_stands_second(
    pages: dict[str, Page],
) -> None:
    for page in pages.values():
        tables = [tag for tag, _ in page.tags].count("table")
        assert [tag for tag, _ in page.tags].count("caption") == tables
        assert all(attrs.get("scope") in ("col", "row") for tag, attrs in page.tags if tag == "th")
    rows = pages["index.html"].rows("Scores: humaneval, list full")
    assert [row[:2] for row in rows[:3]] == [
        ["flowreasoner", "100.0 ★"], ["best-of-n", "50.0"], ["vanilla", "25.0"],
    ]  # fmt: skip
    assert sorted(row[:2] for row in rows[3:]) == [
        ["aflow (only 1 of 4 problems)", "100.0"], ["vanilla (simulated)", "100.0"],
    ]  # fmt: skip


def test_costs_stand_with_their_front_and_as_a_drawing_in_both_themes(
    pages: dict[str, Page],
) -> None:
    rows = {
        row[0]: row[1:]
        for row in pages["index.html"].rows(
            "pass@1 against dollars of a sample: humaneval, list full"
        )
    }
    assert rows["best-of-n"][1] == "$0.0400"
    assert rows["best-of-n"][3] == "below flowreasoner"
    assert rows["flowreasoner"][3] == "on the front"
    drawings = [attrs for tag, attrs in pages["index.html"].tags if tag == "svg"]
    assert len(drawings) == 2  # one ranking has two rows of known cost: for a desk and a phone
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawings)
    source = pages["index.html"].path.read_text()
    assert '"var(--flowreasoner)"' in source
    assert not re.search(r'(?:fill|stroke)="#(?!0000)', source.lower())


def test_rows_are_set_beside_the_controls_with_holm(pages: dict[str, Page]) -> None:
    rows = pages["index.html"].rows("Paired differences to vanilla: humaneval")
    # flow: three flips of one kind, mid-p 2 x 1/8 - 1/8 = 0.125, doubled; draws: one, 0.5
    assert [row[:2] + row[3:6] for row in rows] == [
        ["flowreasoner", "+75.0", "0.125", "0.250", "3 / 0"],
        ["best-of-n", "+25.0", "0.500", "0.500", "1 / 0"],
    ]
    beside = pages["index.html"].rows("Paired differences to best-of-n: humaneval")
    assert [row[:2] for row in beside] == [["flowreasoner", "+50.0"], ["vanilla", "-25.0"]]


def test_the_matrix_says_in_marks_what_colours_say(pages: dict[str, Page]) -> None:
    rows = {row[0]: row[1:] for row in pages["problems.html"].rows("Who solves what: mbpp, list")}
    assert rows == {"</td><script>x</script>".replace("<", "&lt;").replace(">", "&gt;"):
                    ["1 of 1", "1/3"], "a b": ["0 of 0", "?"]}  # fmt: skip
    source = pages["problems.html"].path.read_text()
    assert '<td class="solved"><a href="runs/he-flow/' in source
    assert [_letters(n) for n in (0, 25, 26, 701, 702)] == ["A", "Z", "AA", "ZZ", "AAA"]


def test_the_paper_and_the_runs_have_their_pages(pages: dict[str, Page]) -> None:
    paper = pages["paper.html"]
    assert "Table 1" in paper.words
    assert "63.53" in paper.words  # what the paper prints for FlowReasoner on BigCodeBench
    assert "Measured on list full, protocol public" in paper.words
    assert "table 2: no complete measured run of flowreasoner with --list paper" in paper.words
    runs = {row[0] for row in pages["runs.html"].rows("Runs and searches")}
    assert {"he-flow", "fit-a", "found", "rounds"} <= runs


def test_a_search_has_a_page_with_its_tree_and_attempts_and_rows_lead_to_it(
    pages: dict[str, Page],
) -> None:
    found = pages["searches/fit-a.html"]
    assert "its best candidate solves 100.0 % of its problems" in found.words
    assert "3 attempts at 1 problem; 3 calls, 1,500 tokens, $0.750." in found.words
    assert "../runs/found/index.html" in found.links()
    assert "2 * 100.0 %" in found.words
    attempts = found.rows("Attempts")
    assert [row[1:4] for row in attempts] == [
        ["round 1, run 1", "✗", "50.0"], ["round 2, run 1", "✓", "100.0"],
        ["round 3, run 1", "✗", "0.0"],
    ]  # fmt: skip
    assert [row[0] for row in found.rows("Numbers by step")] == ["1", "2", "3", "4"]
    assert "searches/fit-a.html" in pages["runs.html"].links()
    assert "../../searches/fit-a.html" in pages["runs/found/index.html"].links()


def test_a_samples_page_has_rounds_calls_feedback_and_the_program(pages: dict[str, Page]) -> None:
    told = {"runs/rounds/a-0-0": ("✓ passed", "Round 1 · feedback 0 % · hidden tests: wrong",
                                  "Round 2 · feedback 100 % · hidden tests: passed", "Solve a/0."),
            "runs/he-flow/HumanEval-0-0": ("Feedback: 1 of 2 tests passed", "class Workflow(: ...",
                                           "Noted: ensemble", "def f(): ... # HumanEval/0",
                                           "Call 1 · meta · local/big · 70 + 30 tokens · 0.5 s",
                                           "failed", "reply to HumanEval/0")}  # fmt: skip
    for name, parts in told.items():
        (sample,) = [page for place, page in pages.items() if place.startswith(name)]
        for part in parts:
            assert part in sample.words, part


def test_failures_get_their_pages_first_and_the_rest_is_counted(
    results: Path, tmp_path: Path
) -> None:
    pages = site(results, tmp_path / "site", sample_pages=2)
    made = [name for name in pages if name.startswith("runs/he-draws/H")]
    assert [re.sub(r"-[0-9a-f]{10}\.html", "", name) for name in made] == [
        "runs/he-draws/HumanEval-2-0", "runs/he-draws/HumanEval-3-0",
    ]  # fmt: skip
    index = pages["runs/he-draws/index.html"]
    assert "2 of 4 samples have a page here" in index.words
    assert len(index.rows("Samples of best-of-n")) == 4
    none = site(results, tmp_path / "none", sample_pages=0)
    assert {name for name in none if name.startswith("runs/he-draws/")} == {
        "runs/he-draws/index.html"
    }


def test_the_same_snapshot_makes_the_same_bytes(results: Path, tmp_path: Path) -> None:
    def bytes_of(folder: Path) -> dict[str, bytes]:
        site(results, folder, sample_pages=1)
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.*")
                if p.is_file()}  # fmt: skip

    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_a_site_is_replaced_whole_and_anything_else_is_left_alone(
    results: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "board"
    folder.mkdir()  # empty: may be used
    site(results, folder, sample_pages=0)
    (folder / "stale.html").write_text("old")
    assert json.loads((folder / MARK).read_text())["format"] == FORMAT
    site(results, folder, sample_pages=0)
    assert not (folder / "stale.html").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["board"]  # nothing is left beside it
    assert folder.stat().st_mode & 0o777 == 0o755
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.tex").write_text("work of years")
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(folder)
    for other, why in (("thesis", "no such site"), ("file", "no folder"), ("link", "no folder")):
        with pytest.raises(UsageError, match=why) as refused:
            site(results, tmp_path / other)
        assert "\n" not in str(refused.value)
    assert (thesis / "chapter.tex").read_text() == "work of years"
    with pytest.raises(UsageError, match="cannot be written"):
        site(results, tmp_path / "file" / "below")


def test_a_site_that_fails_half_way_leaves_the_one_before(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "board"
    site(results, folder, sample_pages=0)
    before = (folder / "index.html").read_bytes()
    with open_snapshot(results) as connection:
        connection.close()
        with pytest.raises(Exception, match=r"[Cc]losed"):
            write_site(connection, results, folder)
    assert (folder / "index.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["board"]


def test_a_journal_that_is_gone_is_said_in_place_of_its_texts(tmp_path: Path) -> None:
    run(tmp_path, "flow", {"a/0": ["passed"]})
    published(tmp_path)
    for segment in (tmp_path / "runs" / "flow").glob("*.jsonl"):
        segment.unlink()
    pages = site(tmp_path, tmp_path / "site")
    (sample,) = [page for name, page in pages.items() if name.startswith("runs/flow/a-0")]
    assert "no longer in the run's journal" in sample.words
    assert "✓ passed" in sample.words


@pytest.mark.parametrize("name", ["altair", "vl_convert"])
def test_a_site_without_what_draws_its_charts_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run(tmp_path, "flow", {"a/0": ["passed"]})
    published(tmp_path)
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(UsageError) as error:
        site(tmp_path, tmp_path / "site")
    assert str(error.value) == (
        f"the site needs {name}: `pip install 'flowreasoner-harness[leaderboard]'`"
    )
    assert not (tmp_path / "site").exists()


def test_a_board_without_a_run_is_a_site_that_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    journal = Journal(tmp_path / "runs" / "empty")
    (journal.run_dir / "run.json").write_text(json.dumps({"run_id": "empty", "stage": "fit"}))
    journal.close()
    store.ingest()
    store.snapshot()
    pages = site(tmp_path, tmp_path / "site")
    assert "There is no run yet." in pages["index.html"].words
    assert "No problem was attempted yet." in pages["problems.html"].words


def test_long_texts_are_cut_and_what_is_lost_is_counted() -> None:
    assert block("") == block(None) == ""
    assert "left out" not in block("x" * MOST_TEXT)
    assert "2,500 more characters are left out here" in block("x" * (MOST_TEXT + 2500))
    assert text(HOSTILE).startswith("&lt;script&gt;document.title=&#x27;owned")
