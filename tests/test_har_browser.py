"""The same fault, met by a real Chromium twice: through the proxy, and on its own with a HAR.

What the HAR says of it, in the manner of the browser's own export and of Playwright's recordHar,
must be what the proxy said; where a HAR cannot tell, the row says what is told instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import pytest
from h2.errors import ErrorCodes
from lab import browser as lab
from lab import http2
from lab import servers
from lab.factories import ServerFactory
from lab.factories import answering
from lab.factories import at
from lab.factories import dead
from lab.factories import in_handshake
from lab.factories import over_http2
from lab.factories import over_tls
from lab.factories import over_websocket
from lab.hars import DevTools
from lab.hars import told
from lab.laboratory import Laboratory
from lab.laboratory import Setup
from lab.servers import Answer
from lab.servers import Then
from lab.tls import HOST

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.timeout(240)

Record = dict[str, Any]


@dataclass(frozen=True)
class Case:
    name: str
    server: ServerFactory
    proxy: str
    """The cause that the proxy gives, or the status where there is none."""
    devtools: str = ""
    """What the browser's export says; empty: the same."""
    playwright: str = ""
    """What Playwright's HAR says; empty: the same as the export."""
    scheme: str = "http"
    trusting: bool = False
    """The browser does not mind the certificate."""
    more: str = "mode: 'no-cors'"
    """What else the page's fetch is given."""
    path: str = "/"


def answer(head: str, body: bytes = b"", then: Then = Then.KEEP) -> ServerFactory:
    text = head.replace("; ", "\r\n").encode()
    return answering(Answer(b"HTTP/1.1 " + text + b"\r\n\r\n" + body, then))


LOST = "connection_terminated"
CUT = "http_response_incomplete"
CERTIFICATE = "tls_certificate_error"
TEXT = "200 OK; Content-Type: text/plain"
LONG = f"{TEXT}; Content-Length: 100"
CHUNKED = f"{TEXT}; Transfer-Encoding: chunked"
ABORT = "mode: 'no-cors', signal: AbortSignal.timeout(400)"


# fmt: off
CASES = [
    Case("no fault", answer(f"{TEXT}; Content-Length: 5", b"hello"), "200"),
    Case("not found, no body", answer("404 Not Found; Content-Length: 0"), "404"),
    Case("server error", answer("500 Oh no; Content-Length: 3", b"abc"), "500"),
    Case("no content", answer("204 No Content"), "204"),
    Case("refused", dead, "connection_refused"),
    Case("no such host", at("nonexistent.invalid", 80), "dns_error"),
    Case("closed", answering(Answer(b"", Then.CLOSE)), LOST),
    Case("reset", answering(Answer(b"", Then.RESET)), LOST),
    Case("no HTTP", answering(Answer(b"garbage\r\n\r\n", Then.CLOSE)), "http_protocol_error"),
    Case("two lengths", answer("200 OK; Content-Length: 3; Content-Length: 5", b"abc", Then.CLOSE),
         "http_protocol_error"),
    Case("body cut off", answer(LONG, b"abc", Then.CLOSE), CUT),
    Case("reset in the body", answer(LONG, b"abc", Then.RESET), CUT),
    Case("chunks cut off", answer(CHUNKED, b"5\r\nhello\r\n", Then.CLOSE), CUT),
    Case("no chunk", answer(CHUNKED, b"ZZ\r\nhello\r\n", Then.CLOSE),
         "http_response_transfer_coding"),
    Case("redirect loop", answer("302 Found; Location: /; Content-Length: 0"), "redirect_loop"),
    Case("aborted", answering(Answer(b"", Then.HOLD)), "client_cancelled", more=ABORT),
    Case("aborted in the body", answer(LONG, b"abc", Then.HOLD), "client_cancelled", more=ABORT),
    # Playwright gives no status to what the browser keeps from the page.
    Case("CORS", answer(f"{TEXT}; Content-Length: 5", b"hello"), "cors_blocked",
         playwright="unknown", more=""),
    Case("expired", over_tls(servers.OK, lambda ca: ca.expired()), CERTIFICATE, scheme="https"),
    Case("self-signed", over_tls(servers.OK, lambda ca: ca.self_signed()), CERTIFICATE,
         scheme="https"),
    Case("other host", over_tls(servers.OK, lambda ca: ca.wrong_host()), CERTIFICATE,
         scheme="https"),
    Case("old TLS", over_tls(servers.OK, lambda ca: ca.outdated()), "tls_protocol_error",
         scheme="https"),
    Case("no TLS", in_handshake(Answer(b"HTTP/1.1 400 Bad\r\n\r\n", Then.CLOSE)),
         "tls_protocol_error", scheme="https"),
    # The browser does not say that it was in the handshake.
    Case("closed in the handshake", in_handshake(Answer(b"", Then.CLOSE)), "tls_protocol_error",
         LOST, scheme="https"),
    Case("stream reset", over_http2(http2.reset_before_head(ErrorCodes.INTERNAL_ERROR)),
         "http_protocol_error", scheme="https", trusting=True),
    Case("WebSocket, fine", over_websocket, "101", scheme="ws", path="/1000"),
    # A HAR has no close frames.
    Case("WebSocket, error", over_websocket, "websocket_error", "101", scheme="ws", path="/1011"),
    Case("WebSocket, cut off", over_websocket, LOST, "101", scheme="ws", path="/cut"),
    Case("WebSocket, refused", dead, "connection_refused", scheme="ws"),
    Case("WebSocket, forbidden", answer("403 Forbidden; Content-Length: 0"), "403", scheme="ws"),
]
# fmt: on

FETCH = """async ([url, init]) => {
  try { await (await fetch(url, init())).text(); } catch (error) { return String(error); }
}"""
SOCKET = """async (url) => new Promise((done) => {
  const socket = new WebSocket(url);
  socket.onmessage = () => socket.send("hello yourself");
  socket.onclose = () => done();
})"""


@pytest.fixture(scope="module")
def met(
    laboratory: Laboratory, tool: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[set[str], set[str], set[str]]]:
    """Case → what the proxy, the browser's export and Playwright's HAR say."""
    pytest.importorskip("playwright")
    folder = tmp_path_factory.mktemp("hars")
    with ExitStack() as stack:
        opened = {case.name: stack.enter_context(case.server(laboratory)) for case in CASES}
        ports = {name: server.port for name, server in opened.items()}
        proxy = stack.enter_context(laboratory.mitmdump("agreeing", Setup()))
        browser = stack.enter_context(lab.launch(tool(*lab.NAMES), lab.trusting(proxy.ca)))
        with lab.opened(browser, **lab.through(proxy.port)) as page:
            page.goto(f"{laboratory.origin.url}/hello")
            _meet(page, CASES, opened)
        proxy.wait_for(lambda _: set(ports.values()) <= set(_by_port(proxy.outcomes())))
        exported: list[Record] = []
        recorded: list[Record] = []
        for trusting in (False, True):
            path = folder / f"{trusting}.har"
            with lab.opened(browser, record_har_path=path, ignore_https_errors=trusting) as page:
                tools = DevTools(page.context.new_cdp_session(page))
                page.goto(f"{laboratory.origin.url}/hello")
                _meet(page, [case for case in CASES if case.trusting is trusting], opened)
                for _ in range(50):
                    page.wait_for_timeout(100)  # the last events of the protocol
                    if tools.is_complete:
                        break
                else:
                    raise AssertionError("the protocol's events did not end")
                exported += told(json.dumps(tools.har()).encode())[0]
            recorded += told(path.read_bytes())[0]
        found = [_by_port(records) for records in (proxy.outcomes(), exported, recorded)]
    return {
        name: tuple(each.get(port, set()) for each in found)  # type: ignore[misc]
        for name, port in ports.items()
    }


def _meet(page: Page, cases: Sequence[Case], opened: dict[str, Any]) -> None:
    for case in cases:
        server = opened[case.name]
        host = HOST if case.scheme == "https" else server.host
        url = f"{case.scheme}://{host}:{server.port}{case.path}"
        if case.scheme == "ws":
            page.evaluate(SOCKET, url)
        else:
            page.evaluate(FETCH.replace("init()", f"{{{case.more}}}"), [url, None])


def _by_port(records: Sequence[Record]) -> dict[int, set[str]]:
    """What is told of each server; of a chain of redirects, its problem."""
    found: dict[int, set[str]] = {}
    for record in records:
        said = found.setdefault(record.get("port", 0), set())
        if record.get("reason") != "collateral":
            said.add(record.get("cause") or str(record.get("status")))
    for said in found.values():
        if len(said) > 1:
            said.discard("302")
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_fault_has_the_same_cause(
    case: Case, met: dict[str, tuple[set[str], set[str], set[str]]]
) -> None:
    devtools = case.devtools or case.proxy
    assert met[case.name] == ({case.proxy}, {devtools}, {case.playwright or devtools})
