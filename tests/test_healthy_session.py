"""A real browser on a site that works: whatever it aborts and leaves, nobody was at fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from typing import NamedTuple

import pytest
from conftest import CI
from flowtally.tally import Tally
from lab import browser as lab
from lab import servers
from lab.factories import over_tls
from lab.healthy import HealthySite
from lab.laboratory import Laboratory
from lab.laboratory import Setup
from lab.proxy import Record
from lab.streams import PAUSE
from lab.websocket import WebSocketServer

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

pytestmark = pytest.mark.timeout(120)

TIMEOUT = 3
"""`flowtally_timeout`: longer than the browser needs for a step, shorter than the event stream."""

# Path → outcome → how many. A path that is not here is a complete response.
LEFT = {
    **{f"/suggest/{number}": {"cancelled": 1} for number in range(3)},
    **{f"/image/{number}": {"cancelled": 1} for number in range(4)},
    "/events": {"cancelled": 1},
    "/video": {"cancelled": 1},
    "/never": {"cancelled": 1},
    "/big": {"cancelled": 1},
    "/poll": {"cancelled": 1},
}
# Challenges that the browser answers: their own records keep -3, and the request that answers one
# names it (`answers`), so that the statistics take it out of the problems.
CHALLENGED = ("/basic", "/digest")

TYPE_AHEAD = """
async (wait) => {
  let controller;
  for (const word of ["0", "1", "2", "last"]) {
    controller?.abort();
    controller = new AbortController();
    window.suggested = fetch(`/suggest/${word}`, { signal: controller.signal });
    window.suggested.catch(() => {});
    await wait(`/suggest/${word}`);
  }
  await window.suggested;
}
"""
OPEN_EVENTS = "() => { window.events = new EventSource('/events'); }"
CLOSE_EVENTS = "() => window.events.close()"
OPEN_WEBSOCKET = """
(url) => new Promise((resolve) => {
  window.socket = new WebSocket(url);
  window.socket.onmessage = resolve;
})
"""
STOP_VIDEO = """
() => { const video = document.querySelector("video"); video.removeAttribute("src"); video.load(); }
"""
USE_WORKER = """
async () => {
  await navigator.serviceWorker.register("/worker.js");
  await navigator.serviceWorker.ready;
  if (!navigator.serviceWorker.controller)
    await new Promise((resolve) => navigator.serviceWorker.oncontrollerchange = resolve);
  await fetch("/through-worker");
}
"""
POLL = """
() => {
  window.poll = new AbortController();
  fetch("/poll", { signal: poll.signal }).catch(() => {});
}
"""
PREFLIGHT = """
(url) => fetch(url, { method: "PUT", headers: { "x-asked": "1" } }).then((answer) => answer.status)
"""
CACHED = "() => fetch('/cached', { cache: 'no-cache' }).then((answer) => answer.text())"
PRECONNECT = """
(urls) => { for (const url of urls) {
  const link = document.createElement("link");
  [link.rel, link.href] = ["preconnect", url];
  document.head.append(link);
} }
"""


class Session(NamedTuple):
    """What is left of a session."""

    records: list[Record]
    ports: set[int]
    """Those of the site."""
    summary: str
    """What mitmdump printed."""


def spend_time_on(context: BrowserContext, site: HealthySite, other: HealthySite, ws: str) -> None:
    # A video and a download, which go on meanwhile.
    player, files, page = context.new_page(), context.new_page(), context.new_page()
    player.goto(f"{site.url}/player", wait_until="commit")
    files.goto(f"{site.url}/files")
    with files.expect_download() as started:
        files.click("a")
    page.expose_function("asked", site.wait)
    page.goto(site.url)
    # Words are typed faster than suggestions come.
    page.evaluate(f"() => ({TYPE_AHEAD})(window.asked)")
    # All of them come for longer than the timeout; mitmproxy keeps events and video back.
    page.evaluate(OPEN_EVENTS)
    for path in ("/events", "/video", "/big"):
        site.wait(f"{path} piece", round(TIMEOUT / PAUSE) + 5)
    page.evaluate(CLOSE_EVENTS)
    player.evaluate(STOP_VIDEO)
    started.value.cancel()
    # A long poll is given up for another one, and preflights are answered.
    page.evaluate(POLL)
    site.wait("/poll")
    page.evaluate("() => poll.abort()")
    assert page.evaluate(PREFLIGHT, f"{other.url}/cors") == 200
    assert [page.evaluate(CACHED) for _ in range(2)] == ["cached", "cached"]
    page.evaluate(USE_WORKER)
    # A page is left whose images still load.
    page.goto(f"{site.url}/gallery", wait_until="commit")
    for number in range(4):
        site.wait(f"/image/{number} piece")
    page.goto(f"{site.url}/prefetching")
    site.wait("/prefetched")
    # One is left with a WebSocket.
    page.evaluate(OPEN_WEBSOCKET, f"{ws}/1000")
    page.goto(f"{site.url}/next")
    # A tab is closed before its page has come.
    tab = context.new_page()
    tab.goto(f"{site.url}/next")
    tab.evaluate("() => { location.href = '/never'; }")
    site.wait("/never")
    tab.close()


def log_in(context: BrowserContext, site: HealthySite) -> None:
    page = context.new_page()
    for path in CHALLENGED:
        page.goto(site.url + path)
        assert page.title() == "in"


@pytest.fixture(scope="module")
def session(laboratory: Laboratory, tool: Callable[..., Path]) -> Iterator[Session]:
    """All that the session recorded, also of the browser's own requests."""
    if not CI:
        pytest.importorskip("playwright", reason="Playwright is not installed")
    setup = Setup(options={"flowtally_timeout": str(TIMEOUT), "stream_large_bodies": "1m"})
    with (
        laboratory.mitmdump("healthy", setup) as proxy,
        HealthySite() as site,
        HealthySite() as other,
        WebSocketServer() as websockets,
        over_tls(servers.OK)(laboratory) as secure,
    ):
        way = {"proxy": lab.through(proxy.port)["proxy"]}
        with lab.launch(tool(*lab.NAMES), lab.trusting(proxy.ca)) as browser:
            with lab.profile(browser, **way) as context:
                idle = context.new_page()
                idle.goto(site.url)
                idle.evaluate(PRECONNECT, [other.url, secure.url])
                spend_time_on(context, site, other, websockets.url)
            # Another profile, for Playwright answers challenges only where nothing is cached.
            login = {"username": "user", "password": "secret"}
            with lab.profile(browser, http_credentials=login, **way) as context:
                log_in(context, site)
        proxy.wait_idle()
        assert proxy.stop() == 0
        ours = {site.port, other.port, websockets.port, secure.port}
        yield Session(proxy.outcomes(), ours, proxy.stderr.text)


@pytest.fixture
def records(session: Session) -> list[Record]:
    """What it recorded of the site."""
    return [record for record in session.records if record.get("port") in session.ports]


def test_the_session_has_no_problems(session: Session) -> None:
    tally = Tally()
    for record in session.records:
        tally.add(record)
    totals = tally.totals()
    assert totals.problems == 0, session.summary
    assert totals.challenges == len(CHALLENGED)
    # The browser asks for a favicon when it likes, and may leave it with the page.
    assert totals.cancelled >= sum(found["cancelled"] for found in LEFT.values())
    assert "\nNo problems\n" in session.summary


def path_of(record: Record) -> str:
    return "/" + str(record["url"]).split("/", 3)[3]


def test_nothing_is_a_problem_but_the_challenges(records: list[Record]) -> None:
    problems = [record for record in records if "error_code" in record]
    assert [(path_of(record), record["error_code"]) for record in problems] == [
        (path, -3) for path in CHALLENGED
    ], problems


def test_what_the_browser_left_it_cancelled(records: list[Record]) -> None:
    outcomes: dict[str, Counter[str]] = {}
    for record in records:
        assert record["type"] == "flow", record
        outcomes.setdefault(path_of(record), Counter())[record["outcome"]] += 1
    outcomes.pop("/favicon.ico", None)  # asked for when the browser likes, and left with the page
    assert {
        path: dict(found) for path, found in outcomes.items() if set(found) != {"status"}
    } == LEFT
    assert outcomes["/cached"] == {"status": 2}
    statuses = {path_of(record): record["status"] for record in records if "status" in record}
    assert statuses["/cached"] == 304
    assert statuses["/1000"] == 101
    assert statuses["/worked"] == statuses["/cors"] == statuses["/prefetched"] == 200


def test_event_streams_and_websockets_are_streams(records: list[Record]) -> None:
    streams = [record for record in records if record.get("stream")]
    assert sorted(path_of(record) for record in streams) == ["/1000", "/events"]
    (events,) = (record for record in streams if path_of(record) == "/events")
    assert events["reason"] == "buffered"
