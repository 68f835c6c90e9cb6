"""Failures that mitmproxy hands to no hook, live: each is recorded, and recorded once.

One row, one case, as in test_faults.py: name, server, what the client does, the records to expect,
the proxy's settings.
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import closing
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3
from conftest import CI
from lab import browser
from lab import clients
from lab import faults
from lab import http2
from lab import servers
from lab.clients import request_head
from lab.factories import ServerFactory
from lab.factories import answering
from lab.factories import nobody
from lab.factories import over_http2
from lab.factories import over_tls
from lab.laboratory import SCRIPTS
from lab.laboratory import Laboratory
from lab.laboratory import Setup
from lab.proxy import Mitmdump
from lab.proxy import Record
from lab.servers import Answer
from lab.servers import AnsweringServer
from lab.servers import Request
from lab.servers import Then
from mitmproxy import io
from mitmproxy.test import tflow

pytestmark = pytest.mark.timeout(60)


@dataclass
class Bench(faults.Bench):
    tool: Callable[..., Path]

    def port(self, mode: str) -> int:
        return self.laboratory.port(self.proxy.directory.name, mode)


Act = Callable[[Bench], None]
Fields = dict[str, Any]


@dataclass(frozen=True)
class Case:
    name: str
    server: ServerFactory
    act: Act
    expected: tuple[Fields, ...]
    proxy: str = "regular"
    here: bool = True
    """The server's port stands in the record."""


# -- clients that look at the certificate when the handshake is over


def curl_pinned(bench: Bench) -> None:
    curl(bench, "--pinnedpubkey", "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", code=90)


def curl(bench: Bench, *arguments: str, code: int = 0) -> None:
    program = bench.tool("curl")
    url = f"https://{bench.server.host}:{bench.server.port}/"
    command = [str(program), "-sS", "--proxy", bench.proxy.url, "--cacert", str(bench.proxy.ca)]
    done = subprocess.run([*command, *arguments, url], capture_output=True, check=False, timeout=30)
    assert done.returncode == code, done


def urllib3_pinned(bench: Bench) -> None:
    fingerprint = "00" * 32
    with (
        urllib3.ProxyManager(
            bench.proxy.url, ca_certs=str(bench.proxy.ca), assert_fingerprint=fingerprint
        ) as manager,
        pytest.raises(urllib3.exceptions.MaxRetryError, match="Fingerprints did not match"),
    ):
        manager.request(
            "GET", f"https://{bench.server.host}:{bench.server.port}/", retries=False or 0
        )


def gnutls_wget(bench: Bench) -> None:
    program = bench.tool("wget")
    version = subprocess.run([program, "--version"], capture_output=True, check=True).stdout
    if b"+ssl/gnutls" not in version:
        pytest.skip("this wget does not use GnuTLS")
    done = subprocess.run(
        [
            *(str(program), "-q", "-t1", "-O", "-", "-e", f"https_proxy={bench.proxy.url}"),
            f"https://{bench.server.host}:{bench.server.port}/",
        ],
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 5, done  # SSL verification failure


def leave_after_handshake(bench: Bench) -> None:
    clients.connect_without_request(bench.proxy, bench.server)


def one_preconnect_too_many(bench: Bench) -> None:
    """Two connections are made for one request."""
    spare = clients.open_tls(bench.proxy, bench.server, "http/1.1")
    clients.get_tls(bench.proxy, bench.server)
    spare.close()


def preconnect_then_request(bench: Bench) -> None:
    """The request comes on a later connection."""
    clients.connect_without_request(bench.proxy, bench.server)
    clients.get_tls(bench.proxy, bench.server)


def preface_only(bench: Bench) -> None:
    """HTTP/2 says something before there is a request."""
    with clients.open_http2(bench.proxy, bench.server):
        pass


# -- bytes behind an answer


def get(bench: Bench) -> None:
    with closing(clients.open_connection(bench.proxy.port)) as connection:
        send_get(connection, bench)


def send_get(connection: socket.socket, bench: Bench, method: str = "GET") -> None:
    """A request on a connection that stays; ends when mitmproxy has found the bytes behind it."""
    found = "Unexpected data from server"
    before = bench.proxy.output.count(found)
    authority = f"{bench.server.host}:{bench.server.port}"
    target = f"http://{authority}/"
    connection.sendall(request_head(method, target, authority, keep_alive=True))
    servers.read_until(connection, b"\r\n\r\n")
    bench.proxy.wait_until(lambda: bench.proxy.output.count(found) > before)


def head(bench: Bench) -> None:
    with closing(clients.open_connection(bench.proxy.port)) as connection:
        send_get(connection, bench, "HEAD")


class LateServer(AnsweringServer):
    """Sends a second piece `pause` seconds after its answer."""

    def __init__(self, data: bytes, pause: float) -> None:
        super().__init__(servers.OK)
        self._data = data
        self._pause = pause

    def respond(self, connection: socket.socket, _: Request) -> bool:
        connection.sendall(servers.OK.data)
        self.answers.put(servers.OK.data)
        self.closing.wait(self._pause)
        connection.sendall(self._data)
        return True


def answer_with(data: bytes) -> ServerFactory:
    return answering(Answer(data, Then.KEEP))


# -- tasks that die


def socks(host: str) -> Act:
    def act(bench: Bench) -> None:
        with closing(clients.open_connection(bench.port("socks5"))) as connection:
            ask_socks(connection, host)

    return act


def ask_socks(connection: socket.socket, host: str) -> None:
    connection.sendall(b"\x05\x01\x00")
    assert connection.recv(2) == b"\x05\x00"
    name = host.encode("ascii")
    connection.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + b"\x00\x50")


def socks_request(host: str) -> Act:
    """With the lazy strategy, the server is looked for when there is a request."""

    def act(bench: Bench) -> None:
        before = len(bench.proxy.outcomes())
        with closing(clients.open_connection(bench.port("socks5"))) as connection:
            ask_socks(connection, host)
            assert connection.recv(10)[1] == 0
            connection.sendall(request_head("GET", "/", "name.example"))
            # At once, and not when the client leaves.
            bench.proxy.wait_for(lambda _: len(bench.proxy.outcomes()) > before)

    return act


def datagram(mode: str, data: bytes) -> Act:
    def act(bench: Bench) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(data, ("127.0.0.1", bench.port(mode)))

    return act


def find_closed(mode: str) -> Act:
    def act(bench: Bench) -> None:
        # An error in the log while mitmproxy starts would end it.
        bench.proxy.wait_for(lambda records: records)
        clients.get(bench.proxy, bench.laboratory.beacon)
        assert clients.exchange(bench.port(mode), b"GET / HTTP/1.1\r\n\r\n") == b""

    return act


QUERY = bytes.fromhex("1234010000010000000000000474657374046e616d650000010001")

DISTRUST = {
    "type": "event",
    "error_code": -2,
    "cause": "client_tls_rejected",
    "reason": "after_handshake",
    "side": "client",
    "host": "localhost",
}
SURPLUS = {
    "type": "event",
    "error_code": -2,
    "cause": "http_protocol_error",
    "reason": "surplus_bytes",
    "side": "server",
    "host": "127.0.0.1",
    "detail": "Unexpected data from server: (bytes not kept)",
}
OK = {"type": "flow", "outcome": "status", "status": 200}
BAD_HOST = {
    "error_code": -4,
    "cause": "invalid_url",
    "reason": "bad_host",
    "side": "client",
    "port": 80,
}
NO_NAME = {"outcome": "error", "error_code": -2, "cause": "dns_error", "side": "network"}


def answered(status: int) -> Fields:
    return {"type": "flow", "outcome": "status", "status": status}


def case(
    name: str,
    server: ServerFactory,
    act: Act,
    *expected: Fields,
    proxy: str = "regular",
    here: bool = True,
) -> Case:
    return Case(name, server, act, expected, proxy, here)


GOOD = over_tls(servers.OK)
LONG = "a" * 64

# fmt: off
CASES = [
    case("curl --pinnedpubkey", GOOD, curl_pinned, DISTRUST),
    case("urllib3 assert_fingerprint", GOOD, urllib3_pinned, DISTRUST),
    case("GnuTLS's wget distrusts the CA", GOOD, gnutls_wget, DISTRUST),
    case("leaves after the handshake", GOOD, leave_after_handshake, DISTRUST),
    case("one preconnect too many", GOOD, one_preconnect_too_many, OK, proxy="spare"),
    case("preconnect, then a request", GOOD, preconnect_then_request, OK, proxy="spare"),
    case("HTTP/2 without a request", over_http2(http2.answer), preface_only, proxy="spare"),

    case("more bytes than Content-Length", answer_with(servers.OK.data + b"rest"), get,
         OK, SURPLUS),
    case("an empty line behind the answer", answer_with(servers.OK.data + b"\r\n"), get, OK),
    case("more bytes, a moment later", lambda _: LateServer(b"rest", 0.2), get, OK, SURPLUS),
    case("more bytes, much later", lambda _: LateServer(b"HTTP/1.1 408 Request Timeout\r\n\r\n", 2),
         get, OK),
    case("a body behind 204", answer_with(b"HTTP/1.1 204 No Content\r\n\r\nrest"), get,
         answered(204)),
    case("a body behind 304", answer_with(b"HTTP/1.1 304 Not Modified\r\n\r\nrest"), get,
         answered(304)),
    case("a body behind HEAD", answer_with(servers.OK.data), head, OK),
    case("the final answer behind a 103",
         answer_with(b"HTTP/1.1 103 Early Hints\r\n\r\n" + servers.OK.data), get,
         {"type": "flow", "status": 103}),

    case("SOCKS, empty label", nobody, socks("a..b"),
         {**BAD_HOST, "type": "event", "host": "a..b"}, proxy="socks", here=False),
    case("SOCKS, 64-character label", nobody, socks(LONG),
         {**BAD_HOST, "type": "event", "host": LONG}, proxy="socks", here=False),
    case("SOCKS, empty label, lazy", nobody, socks_request("a..b"),
         {**BAD_HOST, "type": "flow", "outcome": "error"}, proxy="lazy socks", here=False),
    case("UDP, unknown host", nobody, datagram("udp", b"\x01\x02"),
         {**NO_NAME, "type": "flow", "kind": "udp"}, proxy="datagrams", here=False),
    case("DNS, unknown name server", nobody, datagram("nowhere", QUERY),
         {**NO_NAME, "type": "flow", "kind": "dns"}, proxy="datagrams", here=False),
    case("DNS, malformed query", nobody, datagram("nowhere", QUERY[:5]),
         {"type": "event", "error_code": -1, "cause": "http_request_error",
          "reason": "malformed_dns", "side": "client"}, proxy="datagrams", here=False),
    case("DNS, malformed answer", nobody, datagram("garbage", QUERY),
         {"type": "flow", "kind": "dns", "error_code": -2, "cause": "dns_error",
          "reason": "malformed_answer", "side": "server"}, proxy="datagrams", here=False),
    case("transparent mode without a redirection", nobody, find_closed("transparent"),
         {"type": "event", "error_code": -1, "cause": "proxy_configuration_error",
          "reason": "transparent_mode", "side": "proxy"}, proxy="transparent", here=False),
]
# fmt: on


@pytest.fixture
def bench(
    request: pytest.FixtureRequest, laboratory: Laboratory, tool: Callable[..., Path]
) -> Iterator[Bench]:
    case: Case = request.param
    proxy = laboratory.proxy(case.proxy)
    # A client that trusted the proxy at a port trusts it there again, also minutes later, when the
    # system hands the port out once more.
    known = {record.get("port") for record in proxy.records()}
    with ExitStack() as stack:
        server = stack.enter_context(case.server(laboratory))
        while server is not None and server.port in known:
            server = stack.enter_context(case.server(laboratory))
        yield Bench(laboratory, proxy, server, tool)


@pytest.mark.parametrize(
    ("case", "bench"),
    [pytest.param(case, case, id=case.name) for case in CASES],
    indirect=["bench"],
)
def test_silent_failure(case: Case, bench: Bench) -> None:
    records = bench.laboratory.observe(bench.proxy, lambda: case.act(bench), len(case.expected))
    assert matches(records, case.expected)
    if bench.server is not None and case.here:
        assert {record["port"] for record in records} <= {bench.server.port}
    bench.proxy.assert_no_addon_error()


def matches(records: list[Record], expected: tuple[Fields, ...]) -> bool:
    """In any order: an event may come before the flow that it has to do with."""
    by_type = sorted(records, key=lambda record: record["type"], reverse=True)
    wanted = sorted(expected, key=lambda fields: fields["type"], reverse=True)
    assert len(records) == len(expected), "\n".join(map(str, records))
    for record, fields in zip(by_type, wanted, strict=True):
        assert {name: record.get(name) for name in fields} == fields, record
    return True


# -- what takes a proxy of its own


@pytest.mark.parametrize(
    ("kind", "flows"),
    [
        ("whole", 3),
        ("cut off", 2),
        ("HAR with a bad entry", 1),
        ("no flows at all", 0),
    ],
)
def test_a_capture_that_is_read_in_part(tmp_path: Path, kind: str, flows: int) -> None:
    capture = tmp_path / "capture"
    write_capture(capture, kind)
    proxy = Mitmdump(tmp_path / "proxy", listens=False, arguments=["-n", "-r", str(capture)])
    proxy.start()
    proxy.wait()
    assert len(proxy.flows()) == flows
    found = [(event["cause"], event["reason"], event["detail"]) for event in proxy.events()]
    incomplete = (
        "proxy_internal_error",
        "capture_incomplete",
        "mitmproxy could not read the file of flows to its end",
    )
    assert found == ([] if kind == "whole" else [incomplete])


def write_capture(path: Path, kind: str) -> None:
    if kind == "HAR with a bad entry":
        path.write_text(json.dumps({"log": {"entries": [HAR_ENTRY, {"request": "none"}]}}))
        return
    with path.open("wb") as file:
        writer = io.FlowWriter(file)
        for _ in range(0 if kind == "no flows at all" else 3):
            writer.add(tflow.tflow(resp=True))
        if kind != "whole":
            file.write(b"garbage")
            if kind == "cut off":
                file.truncate(file.tell() - 100)


HAR_ENTRY = {
    "startedDateTime": "2026-01-01T00:00:00.000Z",
    "time": 1,
    "request": {
        "method": "GET",
        "url": "http://a.example/",
        "httpVersion": "HTTP/1.1",
        "headers": [],
        "queryString": [],
        "cookies": [],
        "headersSize": 0,
        "bodySize": 0,
    },
    "response": {
        "status": 200,
        "statusText": "OK",
        "httpVersion": "HTTP/1.1",
        "headers": [],
        "cookies": [],
        "content": {"size": 0, "mimeType": "", "text": ""},
        "redirectURL": "",
        "headersSize": 0,
        "bodySize": 0,
    },
    "timings": {"send": 0, "wait": 1, "receive": 0, "connect": 0, "ssl": 0},
    "cache": {},
}


@pytest.mark.parametrize("strategy", ["eager", "lazy"])
@pytest.mark.parametrize("leaves", [True, False])
def test_an_upstream_proxy_that_never_answers_connect(
    laboratory: Laboratory, strategy: str, leaves: bool
) -> None:
    with AnsweringServer(servers.SILENT) as upstream:
        mode = f"upstream:{upstream.url}"
        name = f"silent upstream {strategy} {leaves}"
        options = {"connection_strategy": strategy, "flowtally_timeout": "0.2"}
        setup = Setup(modes={"upstream": mode}, options=options)
        with laboratory.mitmdump(name, setup) as proxy:
            connection = clients.open_connection(proxy.port)
            authority = "origin.example:443"
            connection.sendall(request_head("CONNECT", authority, authority, keep_alive=True))
            assert b" 200 " in servers.read_until(connection, b"\r\n\r\n")
            tls = clients.trusting(proxy).wrap_bio(
                incoming := ssl.MemoryBIO(), outgoing := ssl.MemoryBIO(), False, "origin.example"
            )
            shake_hands(tls, incoming, outgoing, connection, 0.6)
            if leaves:
                connection.close()
            if leaves and strategy == "lazy":
                proxy.wait_for(lambda _: proxy.outcomes())
            proxy.stop()
            connection.close()
        (found,) = proxy.outcomes()
    if strategy == "lazy" and not leaves:
        assert found["outcome"] == "unfinished"
        return
    assert found["cause"] == "http_response_timeout"
    assert found["side"] == "server"
    assert found["type"] == ("event" if strategy == "eager" else "flow")
    if strategy == "eager":
        assert (found["host"], found["port"]) == ("127.0.0.1", upstream.port)
        assert found["detail"] == "the upstream proxy has still not answered CONNECT"


def shake_hands(
    tls: ssl.SSLObject,
    incoming: ssl.MemoryBIO,
    outgoing: ssl.MemoryBIO,
    connection: socket.socket,
    patience: float,
) -> None:
    """Shakes hands and asks for something, until nothing has come for `patience` seconds."""
    connection.settimeout(patience)
    asked = False
    while True:
        try:
            tls.do_handshake()
            if not asked:
                tls.write(request_head("GET", "/", "origin.example"))
                asked = True
        except ssl.SSLWantReadError:
            pass
        connection.sendall(outgoing.read())
        try:
            data = connection.recv(65536)
        except TimeoutError:
            return
        assert data
        incoming.write(data)


@contextmanager
def beside(laboratory: Laboratory, script: str) -> Iterator[Mitmdump]:
    """A proxy with a script that raises, loaded before flowtally; its errors are in the log."""
    setup = Setup(scripts=[SCRIPTS / f"{script}.py"])
    proxy = laboratory.mitmdump(script, setup)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


@pytest.fixture(scope="module")
def raising(laboratory: Laboratory) -> Iterator[Mitmdump]:
    with beside(laboratory, "raise_in_hooks") as proxy:
        yield proxy


@pytest.mark.parametrize("hook", ["requestheaders", "request", "responseheaders", "response"])
def test_another_script_that_raises_hides_no_flow(
    laboratory: Laboratory, raising: Mitmdump, hook: str
) -> None:
    with AnsweringServer(servers.OK) as server, AnsweringServer(servers.CLOSES) as closing_server:

        def act() -> None:
            clients.get(raising, server, f"/{hook}")
            clients.get(raising, closing_server, f"/{hook}")

        records = laboratory.observe(raising, act, 2)
        assert [(r["port"], r["outcome"], r.get("cause")) for r in by_port(records, server)] == [
            (server.port, "status", None),
            (closing_server.port, "error", "connection_terminated"),
        ]
        assert not [record for record in records if record.get("answered_by")]


def by_port(records: list[Record], first: AnsweringServer) -> list[Record]:
    return sorted(records, key=lambda record: record["port"] != first.port)


def test_a_script_that_raises_in_error_hides_no_flow(
    laboratory: Laboratory, raising: Mitmdump
) -> None:
    with AnsweringServer(servers.CLOSES) as server:
        (found,) = laboratory.observe(raising, lambda: clients.get(raising, server, "/error"), 1)
    assert found["cause"] == "connection_terminated"


def test_the_live_page_is_no_flow_beside_a_script_that_raises(
    laboratory: Laboratory, raising: Mitmdump
) -> None:
    page = clients.Destination("flowtally.test", 80)

    def act() -> None:
        # In `request`, the page is not even served.
        for hook in ("requestheaders", "responseheaders", "response"):
            assert clients.get(raising, page, f"/{hook}").startswith(b"HTTP/1.1 404")

    assert laboratory.observe(raising, act, 0) == []


def test_a_script_that_raises_in_hooks_of_tunnels_hides_no_flow(laboratory: Laboratory) -> None:
    nowhere = clients.Destination("localhost", laboratory.dead.port)
    with (
        over_tls(servers.OK)(laboratory) as server,
        beside(laboratory, "raise_in_tunnels") as proxy,
    ):
        (found,) = laboratory.observe(proxy, lambda: clients.get_tls(proxy, nowhere), 1)
        assert (found["kind"], found["cause"]) == ("connect", "connection_refused")
        (found,) = laboratory.observe(proxy, lambda: clients.get_tls(proxy, server), 1)
        assert (found["kind"], found["status"]) == ("http", 200)
        # Who has spoken trusts the proxy.
        clients.connect_without_request(proxy, server)
        proxy.stop()
        assert proxy.events() == []


def test_a_browsing_session_makes_no_false_alarm(
    laboratory: Laboratory, tool: Callable[..., Path]
) -> None:
    """Preconnects that are not needed, fetches that are aborted, pages and windows that are closed
    while they load. HTTP/1.1 only, for over HTTP/2 a browser speaks first."""
    if not CI:
        pytest.importorskip("playwright", reason="Playwright is not installed")
    executable = tool(*browser.NAMES)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    laboratory.authority.trusted.issue_cert("*.example").configure_cert(tls)
    tls.set_alpn_protocols(["http/1.1"])
    with AnsweringServer(busy_page, tls=tls) as server:
        setup = Setup(
            scripts=[SCRIPTS / "route_names.py"],
            options={"route_names": str(server.port), "ssl_insecure": "true"},
        )
        with (
            laboratory.mitmdump("browsing", setup) as proxy,
            browser.launch(executable, browser.trusting(proxy.ca)) as chromium,
        ):
            for visit in range(4):
                through = browser.through(proxy.port)["proxy"]
                with browser.profile(chromium, proxy=through) as profile:
                    page = profile.new_page()
                    for until in ("commit", "domcontentloaded", "load"):
                        page.goto(f"https://shop.example/{visit}/{until}", wait_until=until)
                    page.evaluate(OPEN_AND_CLOSE, f"https://other.example/{visit}")
            proxy.wait_idle()
            used = {flow["client_port"] for flow in proxy.flows()}
            silent = proxy.output.count("client connect") - len(used)
    assert len(used) > 20
    assert silent > 10, "the browser made no preconnects that it did not need"
    assert [describe(event) for event in proxy.events()] == []


# By the page itself: Playwright's own way to close a window may wait for ever while that loads.
OPEN_AND_CLOSE = """
(url) => new Promise((closed) => {
  const other = window.open(url);
  setTimeout(() => { other.close(); closed(); }, 100);
})
"""


def describe(event: Record) -> str:
    return " ".join(str(event.get(name)) for name in ("cause", "reason", "host", "detail"))


def busy_page(request: Request) -> Answer:
    """A page that wants more than it needs, and what it asks for."""
    name = "-".join(request.path.strip("/").split("/"))
    if not request.path[1:2].isdigit():
        slow = 0.3 if request.path.startswith("/slow") else 0.0
        return Answer(servers.OK.data, delay=slow)
    links = "".join(
        f'<link rel=preconnect href="https://spare{number}-{name}.example">'
        f'<link rel=preconnect crossorigin href="https://spare{number}-{name}.example">'
        f'<img src="https://used{number}-{name}.example/image"><img src="/slow/{number}">'
        for number in range(3)
    )
    script = (
        "const controller = new AbortController();"
        f"fetch('https://aborted-{name}.example/slow', {{signal: controller.signal}});"
        "setTimeout(() => controller.abort(), 5);"
    )
    body = f"<!doctype html><title>{name}</title>{links}<script>{script}</script>".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n"
    return Answer(head.encode() + body)


def test_out_of_file_descriptors_is_told_once(laboratory: Laboratory) -> None:
    with AnsweringServer(servers.SILENT) as server, AnsweringServer(servers.OK) as healthy:
        proxy = laboratory.mitmdump("few files", Setup(), files=FILES)
        with proxy:
            waiting: list[socket.socket] = []
            for _ in range(2 * FILES):
                connection = clients.open_connection(proxy.port)
                connection.sendall(clients.absolute_get(server))
                waiting.append(connection)
            proxy.wait_for(lambda _: proxy.events())
            for connection in waiting:
                connection.close()
            # Those that mitmproxy accepts only now.
            proxy.wait_for(lambda _: proxy.flows())
            proxy.wait_until(lambda: b" 200 " in clients.get(proxy, healthy))
            proxy.wait_idle()
        (event,) = proxy.events()
        assert (event["cause"], event["reason"]) == ("proxy_internal_error", "out_of_files")
        late = [flow for flow in proxy.flows() if flow.get("reason") == "out_of_files"]
        assert late
        assert {flow["side"] for flow in late} == {"proxy"}


FILES = 72
"""File descriptors that mitmproxy may have; it starts with some thirty."""
