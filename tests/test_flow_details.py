"""What is around a flow on the page: its login, its client's other requests, mitmweb's own page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import pytest
from lab import browser as lab
from lab import clients
from lab.cli import Record
from lab.cli import answer
from lab.cli import answered
from lab.cli import failed
from lab.cli import lines
from lab.cli import run
from lab.cli import start
from lab.mitmweb import mitmweb
from lab.mitmweb import records
from lab.servers import DeadPort

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page

OTHERS = ".around li button"


@contextmanager
def report(
    browser: Browser, folder: Path, *session: Record, size: tuple[int, int] = lab.WIDE
) -> Iterator[Page]:
    """The report on these records, which asks for nothing and says nothing."""
    log, written = folder / "log.jsonl", folder / "report.html"
    log.write_bytes(lines(start(), *session))
    done = run("report", log, "--html", written)
    assert done.returncode == 0, done.stderr
    with lab.opened(browser, size) as page:
        watched = lab.watch(page)
        page.goto(written.as_uri())
        yield page
        assert watched.requests == [written.as_uri()]
        assert watched.trouble == []


def request(number: float, path: str, took: float = 100, **fields: Any) -> Record:
    """What began at a second, and took so many ms."""
    url = f"http://shop.example/{path}"
    return answered(second=number + took / 1000, url=url, duration_ms=took, **fields)


def test_what_a_client_asked_for_around_a_flow(browser: Browser, tmp_path: Path) -> None:
    session = [
        request(10, "long-before"),
        request(12, "at-once", took=9000),
        request(20, "page", took=500),
        request(20.6, "style", took=50),
        failed(second=21.2, url="http://dead.example/late", duration_ms=100),
        request(20.7, "of-another", client="192.0.2.1"),
        request(30, "long-after"),
    ]
    with report(browser, tmp_path, *session) as page:
        page.locator("#flows .flow", has_text="/page").click()
        others = page.locator(OTHERS)
        assert [said.split(" ")[-1].rpartition("/")[2] for said in others.all_inner_texts()] == [
            "at-once",
            "page",
            "style",
            "late",
        ]
        assert others.evaluate_all(
            "(all) => all.map((each) => each.getAttribute('aria-label'))"
        ) == [
            "200 OK GET http://shop.example/at-once, begins 8000 ms before it, took 9000 ms",
            "200 OK GET http://shop.example/page, the chosen flow, took 500 ms",
            "200 OK GET http://shop.example/style, begins 600 ms after it, took 50 ms",
            "connection_refused -2 GET http://dead.example/late, begins 1100 ms after it,"
            " took 100 ms",
        ]
        places = others.locator(".span").evaluate_all(
            "(all) => all.map((bar) => [bar.style.marginLeft, bar.style.width].map(parseFloat))"
        )
        in_all = 21.2 - 12
        for (left, width), (began, took) in zip(
            places, [(12, 9), (20, 0.5), (20.6, 0.05), (21.1, 0.1)], strict=True
        ):
            assert left == pytest.approx(100 * (began - 12) / in_all, abs=0.01)
            assert width == pytest.approx(max(1, 100 * took / in_all), abs=0.01)
        assert "by time alone" in page.locator(".around").inner_text()

        others.nth(2).focus()
        page.keyboard.press("Enter")
        detail = page.get_by_role("region", name="The chosen flow")
        assert "url\nhttp://shop.example/style" in detail.inner_text()
        assert page.locator(OTHERS + "[aria-current]").inner_text() == (
            "200 OK GET http://shop.example/style"
        )
        assert page.evaluate(lab.WIDTHS) == {"scrolls": False, "outside": []}


@pytest.mark.parametrize("size", [lab.WIDE, lab.NARROW], ids=["wide", "narrow"])
def test_where_flows_are_of_several_days_the_list_has_dates(
    browser: Browser, tmp_path: Path, size: tuple[int, int]
) -> None:
    day = 24 * 3600
    for last, dates in ((5, []), (day, ["2026-01-03", "2026-01-02"])):
        session = [request(1, "page"), request(last, "later")]
        with report(browser, tmp_path, *session, size=size) as page:
            times = page.locator("#flows .flow time")
            times.nth(1).wait_for()  # what the list shows is unpacked beside
            told = times.all_inner_texts()
            assert len(told) == 2
            assert [time[:-9] for time in told if len(time) > len("hh:mm:ss")] == dates
            assert page.evaluate(lab.WIDTHS) == {"scrolls": False, "outside": []}
            cut = "(times) => times.some((each) => each.scrollWidth > each.clientWidth)"
            assert not times.evaluate_all(cut)


def test_of_many_around_a_flow_the_nearest_are_shown(browser: Browser, tmp_path: Path) -> None:
    with report(browser, tmp_path, *(request(n / 100, str(n), took=5) for n in range(100))) as page:
        page.locator("#flows .flow").first.click()
        assert page.locator(OTHERS).count() == 30
        assert "70 more are left out" in page.locator(".around").inner_text()


def test_a_narrowed_list_narrows_nothing_around_a_flow(browser: Browser, tmp_path: Path) -> None:
    session = [request(1, "page"), answered(404, 1.5, url="http://shop.example/none")]
    with report(browser, tmp_path, *session) as page:
        page.locator(".problem .pick").first.click()
        assert page.locator("#flows .flow").count() == 1
        page.locator("#flows .flow").click()
        assert page.locator(OTHERS).count() == 2


def test_a_challenge_and_its_answer_lead_to_each_other(browser: Browser, tmp_path: Path) -> None:
    url = "http://shop.example/secret"
    session = [answered(401, url=url, flow="asked"), answer(60, url=f"{url}?again=")]
    with report(browser, tmp_path, *session) as page:
        page.locator("#flows .flow", has_text="again").click()
        linked = page.locator(".around p", has_text="Answers the login that was asked for by")
        linked.get_by_role("button", name="401 Unauthorized").click()
        detail = page.get_by_role("region", name="The chosen flow")
        assert "status\n401" in detail.inner_text()
        page.locator(".around p", has_text="Its login was answered by").get_by_role(
            "button"
        ).click()
        assert "status\n200" in detail.inner_text()


def test_in_mitmweb_a_flow_leads_to_its_own_page_there(browser: Browser, tmp_path: Path) -> None:
    with mitmweb(tmp_path) as (web, port), DeadPort() as dead:
        clients.exchange(port, clients.absolute_get(dead))
        with lab.profile(browser, **lab.through(port)) as context:
            page = context.new_page()
            page.goto("http://flowtally.test/")
            assert web.token not in page.content() or not web.token
            page.locator("#flows .flow").first.click()
            link = page.get_by_role("link", name="In mitmweb")
            with context.expect_page() as opening:
                link.click()
            there = opening.value
            if web.token:  # its cookie is for links of its own alone
                there.locator("input[name=token]").fill(web.token)
                there.locator("input[type=submit]").click()
            there.get_by_text(f"127.0.0.1:{dead.port}").first.wait_for()
            there.locator(".flow-detail").get_by_text("GET").first.wait_for()
            (flow,) = (f["flow"] for f in records(tmp_path) if f.get("port") == dead.port)
            assert there.url == f"http://127.0.0.1:{web.port}/#/flows/{flow}/request"
