"""Every page of the board in a real browser: drawn, quiet, narrow, dark, by keyboard, as text.

One server and one browser for all. `BOARD_SCREENSHOTS` names a folder that pictures of each page
are written to, for the documentation.
"""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from harness.journal import Journal
from tests.browser import Board, cell, chromium, page, serve_board, settled
from tests.results_maker import DRAWS, FLOW, HALF, HOSTILE, LABEL, in_rounds, published, run, search

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Page, ViewportSize

__all__ = ["chromium", "page", "serve_board"]  # fixtures

pytestmark = pytest.mark.browser

LINKS = "http://evil.example www.evil.example me@evil.example :material/home: &lt; a -> b"
QUESTION = "Does this workflow solve more than one call of the same model?"
SIZES: dict[str, tuple[ViewportSize, Literal["dark", "light"]]] = {
    "wide": ({"width": 1280, "height": 900}, "light"),
    "phone": ({"width": 390, "height": 844}, "dark"),
}
MOST = 6000  # pixels of a picture
ADDRESSES = {  # of each view, and what its main heading says
    "board": ("", QUESTION), "board-filtered": ("?method=flow&reported=true", QUESTION),
    "cost": ("cost", "What does a score cost?"),
    "compare": ("compare?a=rounds-run&b=draws-run", "Is one better than the other?"),
    "problems": ("problems", "Problems"),
    "trajectory-run": ("trajectory?run=flow-run", "flow on humaneval"),
    "trajectory": ("trajectory?run=flow-run&sample=HumanEval/1:0", "HumanEval/1"),
    "searches": ("searches?run=fit-a", "Search of aflow on humaneval"),
    "paper": ("paper", "The paper's tables, measured"),
    "runs": ("runs", "Runs"), "runs-one": ("runs?run=live-run", "Runs"),
}  # fmt: skip


@pytest.fixture(scope="module")
def address(
    tmp_path_factory: pytest.TempPathFactory, serve_board: Callable[[Path], Board]
) -> Iterator[str]:
    """A served board over runs of every sort, one of which goes on."""
    folder = tmp_path_factory.mktemp("results")
    problems = {"HumanEval/0": ["passed"], "HumanEval/1": ["wrong"], "HumanEval/2": ["passed"]}
    run(folder, "flow-run", problems, host={"cpu": HOSTILE.replace(HALF, "")})
    run(folder, "direct-run", {**problems, "HumanEval/0": ["wrong"]}, method="direct", level="L0",
        roles={"worker": {"model": "openai/gpt-4o-mini"}}, cost=0.1)  # fmt: skip
    run(folder, "sim-run", {"HumanEval/0": ["passed"]}, kind="simulated",
        method=f"{LABEL} {LINKS}")  # fmt: skip
    search(folder)
    in_rounds(folder, "rounds-run", FLOW, benchmark="mbpp")
    in_rounds(folder, "draws-run", DRAWS, benchmark="mbpp", method="best-of-n")
    live = Journal(run(folder, "live-run", {"HumanEval/0": ["passed"]}, method="slow", asked=4))
    live.write("session", event="start", problems=4, samples=4, resumed=1,
               config={"budget_usd": 2.0})  # fmt: skip
    yield serve_board(folder).url
    live.close()


class Watched:
    """What a page does beside being drawn: errors in its console, requests, dialogs."""

    def __init__(self, page: Page, address: str) -> None:
        self.wrong: list[str] = []
        page.on("console", self.said)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self.asked(request.url, address))

    def said(self, message: ConsoleMessage) -> None:
        url = message.location["url"]
        if message.type == "error" and not self.looks_for_its_root(url):
            self.wrong.append(f"console: {message.text} {url}")

    def looks_for_its_root(self, url: str) -> bool:
        """Streamlit's page asks under its own path first, is told 404, and asks at the root."""
        return re.search(r"/[a-z]+/_stcore/(health|host-config)$", url) is not None

    def asked(self, url: str, address: str) -> None:
        if not url.startswith((address, "blob:", "data:")):
            self.wrong.append(f"request: {url}")


@pytest.mark.parametrize("size", SIZES)
def test_every_page_is_drawn_without_an_error_and_fits_its_window(
    address: str, page: Page, size: str
) -> None:
    viewport, scheme = SIZES[size]
    page.set_viewport_size(viewport)
    page.emulate_media(color_scheme=scheme)
    watched = Watched(page, address)
    for name, (path, heading) in ADDRESSES.items():
        page.goto(f"{address}/{path}")
        page.locator(".stMain h1").first.wait_for()
        settled(page)
        assert heading in page.locator(".stMain h1").first.inner_text(), name
        assert page.title().endswith("Workflow board"), name
        assert page.locator(".stException").count() == 0, name
        assert page.get_by_text("Deploy", exact=True).count() == 0
        widths = page.evaluate(
            "[document.documentElement, document.querySelector('.stMain')]"
            ".map(one => one.scrollWidth - one.clientWidth)"
        )
        assert widths == [0, 0], name
        assert page.locator(".stMain a[href*='example.com'], .stMain img").count() == 0, name
        assert page.locator(".stMain .katex, .stMain script").count() == 0, name
        picture(page, f"{name}-{size}", viewport)
    assert watched.wrong == []


def picture(page: Page, name: str, viewport: ViewportSize) -> None:
    """Write the whole page as a picture, where a folder is given."""
    folder = os.environ.get("BOARD_SCREENSHOTS")
    if not folder:
        return
    height = page.evaluate("document.querySelector('.stMain').scrollHeight")
    tall = max(viewport["height"], min(height, MOST))
    page.set_viewport_size({"width": viewport["width"], "height": tall})
    settled(page)
    page.wait_for_timeout(700)  # charts are drawn anew in the new size
    page.screenshot(path=Path(folder) / f"{name}.png")
    page.set_viewport_size(viewport)


def test_a_click_leads_from_the_score_to_the_run_and_a_reload_keeps_the_view(
    address: str, page: Page
) -> None:
    page.goto(address)
    cell(page, "66.7").wait_for(state="attached")
    page.locator(".stDataFrameGlideDataEditor").first.click(position={"x": 300, "y": 52})
    page.wait_for_url("**/trajectory?run=flow-run")
    settled(page)
    here = page.locator(".stMain h1").first.inner_text()
    assert "flow" in here
    page.reload()
    page.locator(".stMain h1").first.wait_for()
    settled(page)
    assert page.locator(".stMain h1").first.inner_text() == here
    assert page.url.endswith("/trajectory?run=flow-run")


def test_filters_go_into_the_address_and_come_back_from_it(address: str, page: Page) -> None:
    page.goto(address)
    cell(page, "66.7").wait_for(state="attached")
    page.get_by_text("Complete only").click()
    page.wait_for_url("**complete=true")
    page.get_by_role("radio", name="Equal level").click()
    page.wait_for_url("**rank=Equal+level*")
    page.get_by_role("textbox", name="Search").fill("direct")
    page.keyboard.press("Enter")
    page.wait_for_url("**search=direct*")
    page.get_by_text("1 of 7 runs shown").wait_for()
    page.reload()
    page.get_by_text("1 of 7 runs shown").wait_for()
    page.get_by_role("heading", name="level L0").wait_for()
    page.wait_for_function("document.querySelector('input[aria-label=Search]')?.value == 'direct'")


def test_a_search_on_one_page_is_none_on_another(address: str, page: Page) -> None:
    page.goto(address)
    cell(page, "66.7").wait_for(state="attached")
    page.get_by_role("textbox", name="Search").fill("flow")
    page.keyboard.press("Enter")
    page.wait_for_url("**search=flow*")
    seen = []
    for name in ("Cost", "Compare", "Problems", "Trajectory", "Searches", "Paper", "Runs", "Board"):
        page.get_by_role("link", name=name, exact=True).first.click()
        page.wait_for_function(
            "path => location.pathname == path", arg="/" if name == "Board" else f"/{name.lower()}"
        )
        page.locator(".stMain h1").first.wait_for()
        settled(page)
        assert page.locator(".stException").count() == 0, name
        assert "search=" not in page.url, name
        seen += page.locator(".stMain input[type=text]").evaluate_all(
            "all => all.map(one => one.value).filter(one => one == 'flow')"
        )
    assert seen == []


def test_a_click_on_a_hard_problem_shows_it_alone(address: str, page: Page) -> None:
    for table in (0, 1):
        page.goto(f"{address}/problems")
        settled(page)
        page.locator(".stDataFrameGlideDataEditor").nth(table).click(position={"x": 60, "y": 52})
        page.wait_for_url("**search=HumanEval*")
        page.get_by_text(re.compile("1 of [0-9]+ problems")).wait_for()
        assert page.locator(".stException").count() == 0


def test_a_table_is_read_and_left_by_its_plain_links(address: str, page: Page) -> None:
    page.goto(f"{address}/trajectory?run=flow-run")
    page.locator("details summary", has_text="As plain links").focus()
    page.keyboard.press("Enter")
    page.get_by_role("link", name="HumanEval/1").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/trajectory?run=flow-run&sample=*")
    page.get_by_role("heading", name="HumanEval/1").wait_for()


def test_an_address_of_before_leads_to_the_sample_and_back_is_the_board(
    address: str, page: Page
) -> None:
    page.goto(f"{address}/?run=flow-run&sample=HumanEval/1:0")
    page.wait_for_url("**/trajectory?run=flow-run&sample=*")
    page.get_by_role("heading", name="HumanEval/1").wait_for()
    page.go_back()
    page.get_by_role("heading", name=QUESTION).wait_for()


def test_a_cell_of_the_matrix_leads_to_its_trajectory(address: str, page: Page) -> None:
    page.goto(f"{address}/problems")
    settled(page)
    last = page.locator(".stDataFrameGlideDataEditor").last
    last.scroll_into_view_if_needed()
    last.click(position={"x": 1000, "y": 52})  # the first problem, the last system
    page.wait_for_url(re.compile(r"/trajectory\?run=[a-z-]+&sample=HumanEval%2F0%3A0"))


def test_filters_and_tables_are_reached_by_the_keyboard_in_their_order(
    address: str, page: Page
) -> None:
    page.goto(address)
    cell(page, "66.7").wait_for(state="attached")
    reached: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(one => [one.tagName, one.getAttribute('aria-label') || one.innerText || '']"
                ".join(' ').slice(0, 60))(document.activeElement)"
            )
        )
        if "CANVAS" in reached[-1]:
            break
    order = ["A Board", "A Runs", "INPUT Search", "INPUT Benchmark", "INPUT Method", "INPUT Worker",
             "BUTTON All", "INPUT Complete", "More filters", "plain tables", "CANVAS"]  # fmt: skip
    places = [next((n for n, one in enumerate(reached) if part.casefold() in one.casefold()), None)
              for part in order]  # fmt: skip
    assert None not in places, reached
    assert places == sorted(places, key=lambda n: n or 0), reached
    page.locator("details summary").focus()
    page.keyboard.press("Enter")
    first = page.locator("details table a").first
    first.wait_for()
    assert page.locator("details table caption").first.inner_text().startswith("humaneval")
    first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/trajectory?run=*")


def test_what_a_model_wrote_is_shown_as_text_and_runs_nothing(address: str, page: Page) -> None:
    watched = Watched(page, address)
    page.goto(f"{address}/trajectory?run=flow-run&sample=HumanEval/1:0")
    page.get_by_text("Round 1").first.click()
    page.get_by_text("def f(): ...").first.wait_for()
    settled(page)
    body = page.locator(".stMain").evaluate("one => one.textContent")
    assert "**bold** $x^2$ [link](http://example.com) \\x1b[31mred \\ud800 :smile:" in body
    assert page.locator(".stMain a[href*='example.com'], .stMain img, .stMain .katex").count() == 0
    for path in ("", "runs?run=flow-run", "?search=%3Cscript%3E", "runs?run=%3Cscript%3E"):
        page.goto(f"{address}/{path}")
        settled(page)
    assert page.title().endswith("Workflow board")
    assert watched.wrong == []


def test_a_label_of_others_holds_no_link_no_icon_and_no_sign_but_its_own(
    address: str, page: Page
) -> None:
    watched = Watched(page, address)
    for path in ("trajectory?run=sim-run", "runs?run=sim-run", "cost?benchmark=humaneval"):
        page.goto(f"{address}/{path}")
        settled(page)
        body = page.locator(".stMain").evaluate("one => one.textContent").replace("\u2060", "")
        if "run=" in path:
            assert f"{LABEL} {LINKS}" in body
        assert page.locator(".stMain a[href*='evil'], .stMain a[href^='mailto']").count() == 0
    page.goto(f"{address}/trajectory?run=sim-run")
    settled(page)
    assert page.locator(".stMain h1 [data-testid=stIconMaterial]").count() == 0
    assert watched.wrong == []


def test_every_address_of_the_board_shows_what_was_chosen(address: str, page: Page) -> None:
    for rank in ("Equal level", "Equal calls", "Equal dollars"):
        page.goto(f"{address}/?rank={rank.replace(' ', '+')}")
        page.locator(f"[role=radio][aria-checked=true]:has-text('{rank}')").wait_for()
    for typed, printed in (("?rank=level", "Equal level"), ("cost?over=tokens", "Tokens"),
                           ("paper?table=3", "Table 3")):  # fmt: skip
        page.goto(f"{address}/{typed}")
        page.locator(f"[role=radio][aria-checked=true]:has-text('{printed}')").wait_for()
        settled(page)
        page.reload()
        page.locator(f"[role=radio][aria-checked=true]:has-text('{printed}')").wait_for()
    page.goto(f"{address}/trajectory?run=flow-run&verdict=wrong")
    cell(page, "HumanEval/1").wait_for(state="attached")
    assert cell(page, "HumanEval/0").count() == 0
    page.get_by_role("button", name="passed", exact=True).click()
    page.wait_for_url("**verdict=passed*")
    page.goto(f"{address}/searches?run=fit-a&candidate=3")
    page.get_by_text("It has no code.").wait_for()
    settled(page)
    assert "candidate=3" in page.url


def test_graphs_are_drawn_offline_and_a_label_that_a_model_wrote_is_text_in_them(
    address: str, page: Page
) -> None:
    watched = Watched(page, address)
    page.goto(f"{address}/searches?run=fit-a")
    page.locator(".stMain svg").get_by_text("100.0 %").wait_for()
    assert page.locator(".stMain svg g.node").count() == 3
    assert page.locator(".stMain svg g.edge").count() == 2
    page.goto(f"{address}/trajectory?run=flow-run&sample=HumanEval/1:0")
    page.get_by_text("Round 1").first.click()
    page.locator(".stMain svg g.node text").get_by_text("custom_code_generate").first.wait_for()
    drawn = page.locator(".stMain svg")
    assert drawn.get_by_text("model=</text><script>document.title").count() >= 1
    assert page.locator(".stMain svg script, .stMain svg a, .stMain svg image").count() == 0
    assert watched.wrong == []


def test_downloads_are_the_exported_tables(address: str, page: Page) -> None:
    page.goto(address)
    cell(page, "66.7").wait_for(state="attached")
    for name, suffix, part in (("CSV", "csv", "run_id,benchmark"), ("LaTeX", "tex", "booktabs")):
        with page.expect_download() as caught:
            page.get_by_role("button", name=f"Download {name}").click()
        assert caught.value.suggested_filename == f"board.{suffix}"
        assert part in caught.value.path().read_text()


def answer(address: str, **headers: str) -> int:
    """The status that the server gives a page that wants to be drawn."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", **headers}  # fmt: skip
    try:
        connection.request("GET", "/_stcore/stream", headers=upgrade)
        return connection.getresponse().status
    finally:
        connection.close()


def test_no_web_site_can_ask_a_board_on_this_machine(address: str) -> None:
    own = address.removeprefix("http://")
    assert answer(address, Host=own, Origin=address) == 101
    assert answer(address, Host=own, Origin="http://evil.example") == 403  # of another page
    assert answer(address, Host="evil.example", Origin="http://evil.example") == 403  # rebinding


def test_a_board_that_is_interrupted_ends_cleanly(tmp_path: Path) -> None:
    board = Board(tmp_path)
    assert board.stop() == 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(board.url, timeout=5)


@pytest.mark.slow
def test_a_new_snapshot_appears_on_the_page_by_itself(
    tmp_path: Path, serve_board: Callable[[Path], Board], page: Page
) -> None:
    run(tmp_path, "early", {"a/0": ["passed"]}, method="early")
    page.goto(serve_board(tmp_path).url)
    page.get_by_text("1 of 1 run shown").wait_for()
    run(tmp_path, "late", {"a/0": ["passed"]}, method="late")
    published(tmp_path)
    page.get_by_text("2 of 2 runs shown").wait_for()
