"""The list of the live page in a window, over a log that grows as a test wants it to: no proxy."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from flowtally import ranges
from flowtally.report import html
from lab import browser as lab
from lab.cli import Record
from lab.cli import answer
from lab.cli import answered
from lab.cli import failed
from lab.cli import lines
from lab.cli import start
from lab.proxy import WAIT_TIMEOUT
from test_live import Live

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page
    from playwright.sync_api import Route

ADDRESS = "http://flowtally.test/"
EVERY = 2000
"""ms between two refreshes (page.js)."""


class Session:
    """A session, its page, and what was asked of it."""

    def __init__(self, log: Path) -> None:
        self.live = Live(log)
        self.asked: list[str] = []
        self._seq = 0
        log.write_bytes(b"")
        self.write(start())

    def write(self, *records: Record) -> None:
        """Put records into the log, and count them."""
        numbered = [{**record, "seq": seq} for seq, record in enumerate(records, self._seq + 1)]
        self._seq += len(numbered)
        for record in numbered:
            self.live.tally.add(record)
        with self.live.log.open("ab") as file:
            file.write(lines(*numbered))
        self.live.version = f"00000001-{self._seq}-0"

    def answer(self, route: Route) -> None:
        """What a proxy would."""
        path = "/" + route.request.url.removeprefix(ADDRESS)
        etag = {"if_none_match": route.request.headers.get("if-none-match", "")}
        with ThreadPoolExecutor(1) as thread:  # in this one an event loop runs
            given = thread.submit(self.live.get, path, **etag).result()
        headers = {name: text for name, text in given.headers.items() if name != "content-length"}
        route.fulfill(status=given.status_code, headers=headers, body=given.content or b"")
        self.asked.append(path)

    @contextmanager
    def watched(self, browser: Browser, hash: str = "") -> Iterator[Page]:
        """The live page, with a clock that can be put forward."""
        with lab.opened(browser) as page:
            watched = lab.watch(page)
            page.clock.install()
            page.route(f"{ADDRESS}**", self.answer)
            page.goto(ADDRESS + hash)
            yield page
            assert watched.trouble == []

    def goes_on(self, page: Page, *records: Record) -> None:
        """What comes, until the page has asked for it."""
        self.write(*records)
        before = len(self.asks("after="))
        page.clock.fast_forward(EVERY)
        deadline = time.monotonic() + WAIT_TIMEOUT
        while len(self.asks("after=")) == before:
            assert time.monotonic() < deadline, self.asked
            page.wait_for_timeout(5)

    def asks(self, what: str) -> list[str]:
        """What was asked for of flows."""
        return [path for path in self.asked if path.startswith("/flows?") and what in path]


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setattr("flowtally.live.EVERY", 0.0)
    monkeypatch.setattr("flowtally.live.SHARE", 1.0)
    return Session(tmp_path / "session.jsonl")


def rows(page: Page) -> list[str]:
    return page.locator("#flows .flow .subject").all_inner_texts()


def test_what_comes_is_asked_for_from_where_the_page_has_looked(
    browser: Browser, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However old the newest flow is that matches: what came since may be much."""
    monkeypatch.setattr(ranges, "LONGEST", 0.0)  # a piece is a block
    session.write(failed(url="http://dead.example/old", host="dead.example"))
    session.write(*(answered(second=n / 10) for n in range(900)))
    with session.watched(browser, "#series=error") as page:
        page.locator("#flows .flow", has_text="/old").wait_for()
        page.locator("#flows .figures", has_text="1 flow").wait_for()
        session.asked.clear()
        for second in range(3):
            session.goes_on(page, answered(second=100 + second))
        assert rows(page) == ["GET http://dead.example/old"]
        assert session.asks("after=") == [
            f"/flows?series=error&after={902 + number}" for number in range(3)
        ]
        assert session.asks("before=") == []
        session.goes_on(page, failed(second=104, url="http://dead.example/new"))
        page.locator("#flows .flow", has_text="/new").wait_for()
        assert rows(page) == ["GET http://dead.example/new", "GET http://dead.example/old"]


def test_more_than_a_piece_begins_the_list_anew_with_that_piece(
    browser: Browser, session: Session
) -> None:
    """A busy proxy is asked for one piece every two seconds, and not for what is older as well."""
    session.write(*(answered(second=n / 10) for n in range(900)))
    with session.watched(browser) as page:
        page.locator("#flows .flow").first.wait_for()
        session.asked.clear()
        new = (answered(second=100 + n / 10, url="http://shop.example/new") for n in range(500))
        session.goes_on(page, *new)
        page.locator("#flows .flow", has_text="/new").first.wait_for()
        assert session.asks("") == ["/flows?after=901"]
        told = page.locator("#flows .figures")
        told.filter(has_text=f"the latest {ranges.MOST}").wait_for()
        session.goes_on(page, answered(second=200))
        told.filter(has_text=f"the latest {2 * ranges.MOST + 1}").wait_for()
        assert len(session.asks("before=")) == 1


def test_where_nothing_matches_the_log_is_looked_through_once(
    browser: Browser, session: Session
) -> None:
    session.write(*(answered(second=n / 10) for n in range(900)))
    with session.watched(browser, "#series=error") as page:
        page.locator("#flows .figures", has_text="No flow here").wait_for()
        session.asked.clear()
        session.goes_on(page, answered(second=100))
        session.goes_on(page, answered(second=101))
        assert session.asks("") == [
            "/flows?series=error&after=901",
            "/flows?series=error&after=902",
        ]


def test_what_comes_is_shown_while_what_is_older_is_still_looked_for(
    browser: Browser, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "LONGEST", 0.0)
    monkeypatch.setattr(ranges, "BLOCK", 4096)
    session.write(*(answered(second=n / 10) for n in range(900)))
    with session.watched(browser, "#series=error") as page:
        page.locator("#flows .figures", has_text="Looking").wait_for()
        session.goes_on(page, failed(second=100, url="http://dead.example/new"))
        page.locator("#flows .flow", has_text="/new").wait_for()
        assert page.locator("#flows .figures").inner_text() == "the latest 1"


def test_of_more_than_a_page_holds_the_oldest_are_let_go_of(
    browser: Browser, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "MOST_FLOWS", 300)
    hosts = ("a.example", "b.example")

    def flows(begin: int, number: int) -> list[Record]:
        return [
            answered(second=n, url=f"http://h/{n}", host=hosts[n % 2])
            for n in range(begin, begin + number)
        ]

    session.write(failed(second=0, host="dead.example", url="http://dead.example/old"))
    session.write(*flows(1, 150))
    with session.watched(browser) as page:
        said = page.locator("#flows .figures")
        page.locator("#flows .figures", has_text="151 flows").wait_for()
        for begin in range(151, 751, 150):
            session.goes_on(page, *flows(begin, 150))
        page.locator("#flows .figures", has_text="the page holds no more").wait_for()
        assert said.inner_text() == "the latest 300; the page holds no more"
        page.locator("#flows .flow", has_text="http://h/750").wait_for()  # the newest is there
        page.locator("#flows .flow").first.focus()
        page.keyboard.press("End")
        page.locator("#flows .flow", has_text="http://h/451").wait_for()
        assert "http://h/451" in page.locator("#flows .flow").last.inner_text()
        asked = len(session.asks("before="))
        session.goes_on(page, *flows(751, 10))
        page.keyboard.press("End")
        page.locator("#flows .flow", has_text="http://h/461").wait_for()
        assert len(session.asks("before=")) == asked, "nothing is taken in to be let go of"

        # What is picked has its figures, also where all else that the page holds is newer.
        page.evaluate("filter.set('host', 'dead.example')")
        page.locator("#flows .flow", has_text="/old").wait_for()
        picks = page.locator("#picks .note", has_text=re.compile(r"^1 flow or failure"))
        picks.wait_for()
        session.goes_on(page, *flows(761, 150))
        session.goes_on(page, failed(second=911, host="dead.example"))
        page.locator("#picks .note", has_text=re.compile(r"^2 flows and failures")).wait_for()
        assert page.locator("[data-total=failures]").inner_text() == "2"

        page.evaluate("filter.set('host', 'a.example')")
        page.locator("#picks .note", has_text="; the page holds the latest only").wait_for()
        picked, of = map(int, re.findall(r"\d+", page.locator("#picks .note").inner_text()))
        assert said.inner_text() == "the latest 300; the page holds no more"
        assert 300 <= picked <= of <= 375


def test_a_flow_that_is_asked_for_twice_counts_once(browser: Browser, session: Session) -> None:
    session.write(*(answered(second=n) for n in range(3)), answered(404, 4))
    with session.watched(browser) as page:
        page.locator("#flows .figures", has_text="4 flows").wait_for()
        page.evaluate("filter.set('series', 'Success')")
        page.locator("#picks .note", has_text=re.compile(r"^3 flows")).wait_for()
        assert page.locator("[data-total=flows]").inner_text() == "3"


@pytest.mark.parametrize("first", ["the challenge", "its answer"])
def test_a_challenge_is_no_problem_once_it_is_answered(
    browser: Browser, session: Session, first: str
) -> None:
    """Whichever of both the page knows first."""
    session.write(answered(401, flow="asked"), answered(401, 1, flow="no"))
    if first == "its answer":  # the newest flow is the first
        session.write(answer(2))
    with session.watched(browser, "#host=shop.example") as page:
        incident = page.locator(".problem .count")
        if first == "the challenge":
            page.locator("#picks .note", has_text=re.compile(r"^2 flows")).wait_for()
            assert incident.inner_text() == "2"
            session.goes_on(page, answer(2))
        page.locator("#picks .note", has_text=re.compile(r"^3 flows")).wait_for()
        assert incident.inner_text() == "1"


def test_a_challenge_stays_answered_when_the_page_lets_go_of_its_answer(
    browser: Browser, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "MOST_FLOWS", 190)
    challenges = [answered(401, flow="asked"), answered(401, 1, flow="no")]
    session.write(*challenges, answer(2), *(answered(second=n) for n in range(3, 170)))
    with session.watched(browser) as page:
        page.locator("#flows .figures", has_text="170 flows").wait_for()
        page.evaluate("filter.set('series', 'Client error')")
        session.goes_on(page, *(answered(404, n) for n in range(170, 250)))
        page.locator("#picks .note", has_text=re.compile(r"^82 flows")).wait_for()
        of_401 = page.locator(".problem", has_text="401").locator(".count")
        assert of_401.inner_text() == "1"
