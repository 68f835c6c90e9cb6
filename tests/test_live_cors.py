"""CORS in a real Chromium: what flowtally says of an answer is what the browser's console says.

One row, one case: what a page does, what the server answers to its requests in turn, and why the
browser keeps an answer from the page, or "" where it does not.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from typing import TYPE_CHECKING
from typing import Any

import pytest
from lab import browser as lab
from lab.laboratory import SCRIPTS
from lab.laboratory import Laboratory
from lab.laboratory import Setup
from lab.proxy import Mitmdump
from lab.proxy import Record
from lab.servers import WAIT_TIMEOUT
from lab.servers import Answer
from lab.servers import AnsweringServer
from lab.servers import Request

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import ConsoleMessage
    from playwright.sync_api import Page

pytestmark = pytest.mark.timeout(120)

# What the console says, by the reason that it means.
SAYS = {
    "missing_allow_origin": r"No 'Access-Control-Allow-Origin' header is present",
    "origin_not_allowed": r"'Access-Control-Allow-Origin' header (has a value|contains)",
    "credentials_with_wildcard": r"must not be the wildcard '\*'",
    "credentials_not_allowed": r"'Access-Control-Allow-Credentials' header in the response is ",
    "preflight_status": r"does not have HTTP ok status|Redirect is not allowed for a preflight",
    "method_not_allowed": r"Method \S+ is not allowed|Cannot parse Access-Control-Allow-Methods",
    "header_not_allowed": r"Request header field \S+ is not allowed|"
    r"Cannot parse Access-Control-Allow-Headers",
}


def answer(*headers: str, status: int = 200) -> Answer:
    lines = [f"HTTP/1.1 {status} Whatever", "Content-Length: 2"]
    return Answer("\r\n".join([*lines, *headers, "", "{}"]).encode())


def script(*headers: str) -> Answer:
    return answer("Content-Type: text/javascript", *headers)


NOT_MODIFIED = Answer(b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n')
ANY = "Access-Control-Allow-Origin: *"
PAGE = "Access-Control-Allow-Origin: {page}"
CREDENTIALS = "Access-Control-Allow-Credentials: true"


@dataclass(frozen=True)
class Case:
    name: str
    act: str
    """What the page does: in JavaScript, a promise that holds if it gets what it asked for."""
    reason: str
    answers: tuple[Answer, ...]
    """To its requests, in turn; the last one also to those that follow."""
    host: str = "127.0.0.1"
    page: str = "127.0.0.1"
    detail: str | None = None

    @property
    def path(self) -> str:
        return "/" + re.sub("[^a-z0-9]+", "-", self.name.lower())


def fetch(name: str, init: str, reason: str, *answers: Answer, **more: Any) -> Case:
    return Case(name, f"fetch(url, {init})", reason, answers, **more)


def simple(name: str, reason: str, *headers: str, **more: Any) -> Case:
    """A GET that needs no preflight."""
    return fetch(name, "{}", reason, answer(*headers), **more)


def cookie(name: str, reason: str, *headers: str) -> Case:
    return fetch(name, '{credentials: "include"}', reason, answer(*headers))


def element(name: str, tag: str, attributes: str, reason: str, *answers: Answer) -> Case:
    return Case(name, f'load("{tag}", {attributes})', reason, answers)


PUT = '{method: "PUT"}'
HEADER = '{headers: {"X-Token": "1"}}'
AUTHORIZATION = '{headers: {"Authorization": "Bearer x"}}'
JSON = '{method: "POST", headers: {"Content-Type": "application/json"}, body: "{}"}'

# fmt: off
CASES = [
    simple("permitted to anyone", "", ANY),
    simple("permitted to the page", "", PAGE),
    simple("no header", "missing_allow_origin"),
    simple("no header on another site", "missing_allow_origin", host="localhost"),
    simple("permitted on another site", "", ANY, host="localhost"),
    simple("another origin", "origin_not_allowed",
           "Access-Control-Allow-Origin: http://elsewhere.example"),
    simple("a slash too much", "origin_not_allowed", PAGE + "/"),
    simple("in capitals", "origin_not_allowed", "Access-Control-Allow-Origin: {PAGE}"),
    simple("twice", "origin_not_allowed", ANY, ANY),
    simple("empty", "origin_not_allowed", "Access-Control-Allow-Origin: "),
    fetch("an error page", "{}", "missing_allow_origin", answer(status=500)),
    fetch("an error page that is permitted", "{}", "", answer(ANY, status=500)),
    fetch("a simple POST", '{method: "POST", body: "x"}', "missing_allow_origin", answer()),
    fetch("without cors", '{mode: "no-cors"}', "", answer()),
    cookie("cookies and a wildcard", "credentials_with_wildcard", ANY, CREDENTIALS),
    cookie("cookies not permitted", "credentials_not_allowed", PAGE),
    cookie("cookies not quite permitted", "credentials_not_allowed", PAGE,
           "Access-Control-Allow-Credentials: TRUE"),
    cookie("cookies permitted", "", PAGE, CREDENTIALS),
    fetch("PUT permitted", PUT, "",
          answer(ANY, "Access-Control-Allow-Methods: GET, PUT"), answer(ANY)),
    fetch("any method permitted", PUT, "",
          answer(ANY, "Access-Control-Allow-Methods: *"), answer(ANY)),
    fetch("PUT not permitted", PUT, "method_not_allowed",
          answer(ANY, "Access-Control-Allow-Methods: GET, POST"), detail="PUT"),
    fetch("no methods", PUT, "method_not_allowed", answer(ANY), detail="PUT"),
    fetch("methods in small letters", PUT, "method_not_allowed",
          answer(ANY, "Access-Control-Allow-Methods: put"), detail="PUT"),
    fetch("a list of methods that is none", PUT, "method_not_allowed",
          answer(ANY, "Access-Control-Allow-Methods: PUT; GET"), detail="PUT"),
    fetch("patch in small letters", '{method: "patch"}', "method_not_allowed",
          answer(ANY, "Access-Control-Allow-Methods: PATCH"), detail="patch"),
    fetch("a header permitted", HEADER, "",
          answer(ANY, "Access-Control-Allow-Headers: Accept, X-TOKEN"), answer(ANY)),
    fetch("any header permitted", HEADER, "",
          answer(ANY, "Access-Control-Allow-Headers: *"), answer(ANY)),
    fetch("a header not permitted", HEADER, "header_not_allowed",
          answer(ANY, "Access-Control-Allow-Headers: X-Other"), detail="x-token"),
    fetch("JSON without permission", JSON, "header_not_allowed", answer(ANY),
          detail="content-type"),
    fetch("JSON with permission", JSON, "",
          answer(ANY, "Access-Control-Allow-Headers: content-type"), answer(ANY)),
    fetch("a list of headers that is none", HEADER, "header_not_allowed",
          answer(ANY, "Access-Control-Allow-Headers: X-Token; X-Other")),
    fetch("authorization by its name", AUTHORIZATION, "",
          answer(ANY, "Access-Control-Allow-Headers: authorization"), answer(ANY)),
    # Against the standard; Firefox blocks it.
    fetch("authorization by a wildcard", AUTHORIZATION, "",
          answer(ANY, "Access-Control-Allow-Headers: *"), answer(ANY)),
    fetch("authorization not permitted", AUTHORIZATION, "header_not_allowed",
          answer(ANY, "Access-Control-Allow-Headers: x-token"), detail="authorization"),
    fetch("preflight without headers", PUT, "missing_allow_origin", answer(status=204)),
    fetch("preflight answered 405 without headers", PUT, "missing_allow_origin",
          answer(status=405)),
    fetch("preflight answered 405", PUT, "preflight_status", answer(ANY, status=405)),
    fetch("preflight answered 401", PUT, "preflight_status",
          answer(ANY, "Access-Control-Allow-Methods: PUT", status=401)),
    fetch("preflight redirected", PUT, "preflight_status",
          answer("Location: /elsewhere", status=302)),
    fetch("permitted before, not after", PUT, "missing_allow_origin",
          answer(ANY, "Access-Control-Allow-Methods: PUT"), answer()),
    simple("a public name", "missing_allow_origin", host="api.example", page="shop.example"),
    simple("a public name permitted", "", PAGE, host="api.example", page="shop.example"),
    fetch("preflight of a public name", PUT, "method_not_allowed", answer(PAGE),
          host="api.example", page="shop.example", detail="PUT"),
    fetch("a POST to a public name is not certain", '{method: "POST", body: "x"}',
          "missing_allow_origin", answer(), host="api.example", page="shop.example"),
    element("a script of another origin", "script", "{src: url}", "", script()),
    element("a module", "script", '{type: "module", src: url}', "missing_allow_origin", script()),
    element("a module that is permitted", "script", '{type: "module", src: url}', "", script(ANY)),
    element("a script with crossorigin", "script", '{crossOrigin: "anonymous", src: url}',
            "missing_allow_origin", script()),
    element("a script with crossorigin and cookies", "script",
            '{crossOrigin: "use-credentials", src: url}', "credentials_with_wildcard",
            script(ANY)),
    Case("a font", 'new FontFace("f", `url(${url})`).load()', "missing_allow_origin", (answer(),)),
    Case("an event stream", "listen(url)", "missing_allow_origin",
         (answer("Content-Type: text/event-stream"),)),
    Case("a request of a page without an origin", "framed(url)", "origin_not_allowed",
         (answer(PAGE),)),
    Case("permitted to a page without an origin", "framed(url)", "",
         (answer("Access-Control-Allow-Origin: null"),)),
    Case("a WebSocket that is refused", "shake_hands(url)", "", (answer(status=403),),
         host="api.example", page="shop.example"),
    fetch("a redirect without permission", "{}", "missing_allow_origin",
          answer("Location: {path}-next", status=302), answer(ANY)),
    fetch("a redirect with permission", "{}", "",
          answer("Location: {path}-next", ANY, status=302), answer(ANY)),
    fetch("a redirect to what is not permitted", "{}", "missing_allow_origin",
          answer("Location: {path}-next", ANY, status=302), answer()),
    fetch("a redirect to another origin hides the first", "{}", "origin_not_allowed",
          answer("Location: http://localhost:{port}{path}-next", ANY, status=302), answer(PAGE)),
    fetch("a redirect back to the page's origin", "{}", "missing_allow_origin",
          answer("Location: {page}{path}-next", ANY, status=302)),
    Case("what is cached was permitted", "fetch(url).then(() => fetch(url))", "",
         (answer(ANY, 'ETag: "1"', "Cache-Control: no-cache"), NOT_MODIFIED)),
    Case("a POST to the page's own origin", 'fetch(own, {method: "POST", body: "x"})', "", ()),
    Case("a PUT to the page's own origin", 'fetch(own, {method: "PUT", body: "x"})', "", ()),
    Case("a POST to the page's own public name", 'fetch(own, {method: "POST", body: "x"})', "",
         (), page="shop.example"),
]
# fmt: on
UNCERTAIN = {"a POST to a public name is not certain"}
"""The browser blocks these, and nothing in the traffic tells them from what it permits."""
BY_PATH = {case.path: case for case in CASES}
assert len(BY_PATH) == len(CASES)


class Api(AnsweringServer):
    """Answers what the case of the path says."""

    def __init__(self) -> None:
        super().__init__(self._respond)
        self._asked: Counter[str] = Counter()
        self.pages: dict[str, str] = {}

    def _respond(self, request: Request) -> Answer:
        case = BY_PATH.get(request.path.removesuffix("-next"))
        if case is None:
            return Answer(answer("Access-Control-Allow-Origin: *").data)
        self._asked[case.path] += 1
        given = case.answers[min(self._asked[case.path], len(case.answers)) - 1]
        page = self.pages[case.page]
        words = {"{page}": page, "{PAGE}": page.upper(), "{path}": case.path, "{port}": self.port}
        text = given.data.decode()
        for word, value in words.items():
            text = text.replace(word, str(value))
        return Answer(text.encode())


@pytest.fixture(scope="module")
def proxy(laboratory: Laboratory) -> Iterator[Mitmdump]:
    setup = Setup(scripts=[SCRIPTS / "everywhere_is_here.py"])
    with laboratory.mitmdump("cors", setup) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def shop() -> Iterator[AnsweringServer]:
    """Serves the pages."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n"
    page = Answer(head + b"\r\n<!doctype html>")
    with AnsweringServer(page) as server:
        yield server


@pytest.fixture(scope="module")
def api(shop: AnsweringServer) -> Iterator[Api]:
    with Api() as server:
        hosts = {case.page for case in CASES}
        server.pages = {host: f"http://{host}:{shop.port}" for host in hosts}
        yield server


@dataclass
class Tab:
    page: Page
    console: list[str] = field(default_factory=list)

    def note(self, message: ConsoleMessage) -> None:
        self.console.append(message.text)

    def said(self, path: str) -> tuple[list[str], list[str]]:
        """What the console says of a path, and what of it is of CORS."""
        console = [text for text in self.console if path in text]
        return console, [text for text in console if "blocked by CORS policy" in text]


@pytest.fixture(scope="module")
def tabs(browser: Browser, proxy: Mitmdump, api: Api) -> Iterator[dict[str, Tab]]:
    """A page of each host, in one profile."""
    with lab.profile(browser, **lab.through(proxy.port)) as context:
        hosts = ("127.0.0.1", "localhost")
        context.add_cookies(
            [{"name": "a", "value": "b", "url": f"http://{host}"} for host in hosts]
        )
        tabs = {}
        for host, url in api.pages.items():
            tab = tabs[host] = Tab(context.new_page())
            tab.page.on("console", tab.note)
            tab.page.goto(url)
        yield tabs


ACT = """
async ([url, act]) => {
  const own = new URL(url).pathname;
  const load = (name, attributes) => new Promise((loaded, failed) => {
    const element = Object.assign(document.createElement(name), attributes);
    element.onload = loaded;
    element.onerror = failed;
    document.head.append(element);
  });
  const listen = (url) => new Promise((opened, failed) => {
    const source = new EventSource(url);
    source.onopen = opened;
    source.onerror = () => { source.close(); failed(); };
  });
  const framed = (url) => new Promise((passed, failed) => {
    onmessage = ({ data }) => data ? passed() : failed();
    const frame = document.createElement("iframe");
    frame.sandbox = "allow-scripts";
    frame.srcdoc = `<script>fetch("${url}").then(() => true, () => false)
      .then((done) => parent.postMessage(done, "*"))</` + "script>";
    document.body.append(frame);
  });
  const shake_hands = (url) => new Promise((refused) => {
    new WebSocket(url.replace("http", "ws")).onerror = refused;
  });
  try { await eval(act); return true; } catch { return false; }
}
"""


def records_of(proxy: Mitmdump, path: str) -> list[Record]:
    """What the log says of a case: of its path, and where a redirect led."""
    ends = (path, f"{path}-next")

    def found() -> list[Record]:
        return [record for record in proxy.flows() if record["url"].endswith(ends)]

    proxy.wait_for(lambda _: found())
    return found()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_console_says_the_same(
    case: Case, tabs: dict[str, Tab], proxy: Mitmdump, api: Api
) -> None:
    tab = tabs[case.page]
    tab.console.clear()
    url = f"http://{case.host}:{api.port}{case.path}"
    handed_over = tab.page.evaluate(ACT, [url, case.act])
    console, blocked = tab.said(case.path)
    deadline = time.monotonic() + WAIT_TIMEOUT
    while case.reason and not blocked and time.monotonic() < deadline:
        tab.page.wait_for_timeout(20)  # the console is a step behind
        console, blocked = tab.said(case.path)

    assert handed_over == (not case.reason), console
    if case.reason:
        assert len(blocked) == 1, console
        assert re.search(SAYS[case.reason], blocked[0]), console
    else:
        assert blocked == []
    records = records_of(proxy, case.path)
    claimed = [record for record in records if record.get("cause") == "cors_blocked"]
    if not case.reason or case.name in UNCERTAIN:
        assert claimed == []
        return
    (record,) = claimed
    assert record is records[-1], "nothing follows what was blocked"
    code = -3 if record["status"] >= 400 else -1
    assert (record["outcome"], record["error_code"], record["side"]) == ("status", code, "server")
    assert record["reason"] == case.reason
    assert record.get("detail") == case.detail
