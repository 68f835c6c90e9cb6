"""The right one is blamed, in the right words: reasons, sides and details, live.

One row, one case, as in test_faults.py; these look at what refines a cause.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from contextlib import suppress
from typing import Any

import pytest
from h2.errors import ErrorCodes
from lab import clients
from lab import http2
from lab import servers
from lab.clients import Destination
from lab.clients import request_head
from lab.factories import answering
from lab.factories import at
from lab.factories import in_handshake
from lab.factories import nobody
from lab.factories import over_http2
from lab.factories import over_tls
from lab.faults import Act
from lab.faults import Bench
from lab.faults import Case
from lab.faults import absolute_get
from lab.faults import ask
from lab.faults import get
from lab.faults import get_http2
from lab.faults import get_tls
from lab.faults import get_tls_through
from lab.faults import post
from lab.faults import request_to_proxy_itself
from lab.faults import send
from lab.faults import through
from lab.laboratory import Laboratory
from lab.proxy import Record
from lab.servers import tls_alert
from lab.tls import Authority

pytestmark = pytest.mark.timeout(60)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


# -- what the client does


def preface_in_tunnel(bench: Bench) -> None:
    tunnel = clients.open_tunnel(bench.proxy, bench.server)
    assert tunnel is not None
    with closing(tunnel):
        tunnel.sendall(PREFACE)
        clients.read_to_end(tunnel)


def get_twice(bench: Bench) -> None:
    """The second request on a connection that the first one opened."""
    authority = f"{bench.server.host}:{bench.server.port}"
    with closing(clients.open_connection(bench.proxy.port)) as connection:
        for path, end in (("/", b"hello"), ("/second", b"</html>")):
            target = f"http://{authority}{path}"
            connection.sendall(request_head("GET", target, authority, keep_alive=True))
            servers.read_until(connection, end)


def refused_upload(bench: Bench) -> None:
    authority = f"{bench.server.host}:{bench.server.port}"
    head = request_head("POST", f"http://{authority}/", authority, "Content-Length: 1000000")
    with closing(clients.open_connection(bench.proxy.port)) as connection:
        connection.sendall(head + b"x" * 1000)
        clients.read_to_end(connection)


def distrust_named(name: str) -> Act:
    def act(bench: Bench) -> None:
        clients.distrust(bench.proxy, Destination(name, 443))

    return act


def socks_without_login(port: int, _: Bench) -> None:
    with closing(clients.open_connection(port)) as connection:
        connection.sendall(b"\x05\x01\x00")
        assert connection.recv(2) == b"\x05\xff"


def socks_with_wrong_login(port: int, _: Bench) -> None:
    with closing(clients.open_connection(port)) as connection:
        connection.sendall(b"\x05\x01\x02")
        assert connection.recv(2) == b"\x05\x02"
        connection.sendall(b"\x01\x04user\x05wrong")
        assert connection.recv(2) == b"\x01\x01"


def tell(cause: str, reason: str | None = None, side: str = "server", **more: Any) -> Record:
    return {"cause": cause, "reason": reason, "side": side, **more}


def certificate(reason: str) -> Record:
    return tell("tls_certificate_error", reason, error_code=-2)


def refused_response(status: int | None = 200) -> Record:
    return tell("http_protocol_error", "refused_by_mitmproxy", "proxy", status=status)


# fmt: off
CASES: list[tuple[Case, Record]] = [
    (Case(name, server, act, (), proxy), expected) for name, server, act, proxy, expected in [
    # cleartext HTTP/2
    ("the preface of HTTP/2 in clear text", nobody, send(PREFACE), "regular",
     tell("http_request_error", "h2c", "client", type="event")),
    ("the preface of HTTP/2 in a tunnel", answering(servers.OK), preface_in_tunnel, "lazy",
     tell("http_request_error", "h2c", "client", type="flow")),
    # what others accept
    ("two equal Content-Lengths", answering(servers.TWO_EQUAL_LENGTHS), get, "regular",
     refused_response(None)),
    ("two other Content-Lengths", answering(servers.TWO_LENGTHS), get, "regular",
     tell("http_protocol_error", status=None)),
    ("204 with Transfer-Encoding", answering(servers.NO_CONTENT_CHUNKED), get, "regular",
     refused_response(204)),
    ("HTTP/1.0 chunked", answering(servers.OLD_AND_CHUNKED), get, "regular", refused_response()),
    ("a header name with a space", answering(servers.NAME_WITH_SPACE), get, "regular",
     refused_response()),
    ("HTTP/2 value with white space", over_http2(http2.bad_header_on(0, of=1)), get_http2,
     "regular", tell("http_protocol_error", "refused_by_mitmproxy", "proxy")),
    ("a request with two Content-Lengths", answering(servers.OK),
     post("Content-Length: 0", "Content-Length: 0"), "regular",
     tell("http_request_error", "refused_by_mitmproxy", "client")),
    ("a request over body_size_limit", answering(servers.OK),
     post("Content-Length: 4096", body=b"x" * 4096), "limited",
     tell("http_request_error", "body_too_large", "client")),
    # no HTTP at all
    ("an SSH server", answering(servers.SSH_BANNER), get, "regular",
     tell("http_protocol_error", "not_http",
          detail="unexpected server response: SSH-2.0 (bytes not kept)")),
    # codes of HTTP/2
    *((f"RST_STREAM {code.name}", over_http2(http2.reset_before_head(code)), get_http2, "regular",
       tell("http_protocol_error", code.name.lower(),
            detail=f"stream reset by the server ({code.name})"))
      for code in (ErrorCodes.HTTP_1_1_REQUIRED, ErrorCodes.REFUSED_STREAM,
                   ErrorCodes.ENHANCE_YOUR_CALM, ErrorCodes.INADEQUATE_SECURITY)),
    ("GOAWAY with words", over_http2(http2.go_away_with(ErrorCodes.ENHANCE_YOUR_CALM, b"pings")),
     get_http2, "regular",
     tell("http_protocol_error", "enhance_your_calm",
          detail="HTTP/2 connection closed by the server (ENHANCE_YOUR_CALM)")),
    ("GOAWAY with words, all kept",
     over_http2(http2.go_away_with(ErrorCodes.ENHANCE_YOUR_CALM, b"pings")), get_http2, "full",
     tell("http_protocol_error", "enhance_your_calm",
          detail="HTTP/2 connection closed by the server (ENHANCE_YOUR_CALM): pings")),
    ("graceful GOAWAY", over_http2(http2.go_away_with(ErrorCodes.NO_ERROR)), get_http2, "regular",
     tell("proxy_internal_error", "goaway", "proxy")),
    # a body of another length than announced, however packets fall
    ("HTTP/2 body too short", over_http2(http2.body(b"abc")), get_http2, "regular",
     tell("http_response_incomplete", error_code=-1)),
    ("HTTP/2 body too short, in pieces", over_http2(http2.body(b"abc", separately=True)),
     get_http2, "regular", tell("http_response_incomplete", error_code=-1, status=200)),
    ("HTTP/2 body too long", over_http2(http2.body(b"abcdefg")), get_http2, "regular",
     tell("http_protocol_error", "surplus_bytes", error_code=-2)),
    ("HTTP/2 body too long, in pieces", over_http2(http2.body(b"abcdefg", separately=True)),
     get_http2, "regular", tell("http_protocol_error", "surplus_bytes", error_code=-2)),
    # when the server closed
    ("a refused upload, streamed", in_handshake(servers.CLOSES), refused_upload, "streaming",
     tell("connection_terminated", "request_unfinished")),
    # TLS
    ("TLS alert 112", in_handshake(tls_alert(112)), get_tls, "regular",
     tell("tls_alert_received", "unrecognized_name")),
    ("TLS alert 120", in_handshake(tls_alert(120)), get_tls, "regular",
     tell("tls_alert_received", "no_application_protocol")),
    ("TLS alert 40", in_handshake(tls_alert(40)), get_tls, "regular",
     tell("tls_alert_received", "handshake_failure")),
    ("TLS alert 70", in_handshake(tls_alert(70)), get_tls, "regular",
     tell("tls_protocol_error", "version")),
    ("TLS alert 116", in_handshake(tls_alert(116)), get_tls, "regular",
     tell("tls_alert_received", "certificate_required")),
    ("TLS alert 48", in_handshake(tls_alert(48)), get_tls, "regular",
     tell("tls_alert_received", "unknown_ca")),
    ("plain text on a TLS port", in_handshake(servers.BAD_STATUS_LINE), get_tls, "regular",
     tell("tls_protocol_error", "plain_text")),
    ("close in the TLS handshake", in_handshake(servers.CLOSES), get_tls, "regular",
     tell("tls_protocol_error", "closed_in_handshake")),
    ("server speaks old TLS only", over_tls(servers.OK, Authority.outdated), get_tls, "regular",
     tell("tls_protocol_error", "version")),
    ("client distrusts a host whose name holds words of rules", nobody,
     distrust_named("conversions.shop.example"), "lazy",
     tell("client_tls_rejected", "unknown_ca", "client", host="conversions.shop.example")),
    *((f"certificate: {reason}", over_tls(servers.OK, make), get_tls, "regular",
       certificate(reason)) for reason, make in (
        ("expired", Authority.expired), ("not_yet_valid", Authority.not_yet_valid),
        ("wrong_host", Authority.wrong_host), ("self_signed", Authority.self_signed),
        ("unknown_issuer", Authority.unknown_issuer), ("weak_key", Authority.weak_key))),
    # upstream proxies
    ("upstream proxy wants a login", over_tls(servers.OK),
     through("locked upstream", get_tls_through), "regular",
     tell("destination_unavailable", "login_required")),
    ("upstream proxy forbids", over_tls(servers.OK),
     through("forbidding upstream", get_tls_through), "regular",
     tell("destination_unavailable", "refused")),
    ("upstream proxy closes, https", over_tls(servers.OK),
     through("closing upstream", get_tls_through), "regular",
     tell("destination_unavailable", "closed")),
    ("upstream proxy closes, http", answering(servers.OK),
     through("closing upstream", absolute_get), "regular",
     tell("destination_unavailable", "closed")),
    # logins at the proxy
    ("SOCKS without a login", nobody, through("socks5", socks_without_login), "login",
     tell("http_request_denied", "login_required", "proxy", type="event")),
    ("SOCKS with a wrong login", nobody, through("socks5", socks_with_wrong_login), "login",
     tell("http_request_denied", "login_required", "proxy", type="event")),
    # another script forbids
    ("a script forbids the connection, http", at("127.0.0.3", 80), get, "intervening",
     tell("http_request_denied", None, "proxy", kind="http")),
    ("a script forbids the connection, https", at("127.0.0.3", 443), get_tls, "intervening",
     tell("http_request_denied", None, "proxy", kind="connect")),
    # destinations
    ("a request to the proxy itself", nobody, request_to_proxy_itself, "regular",
     tell("destination_not_found", "itself", "client")),
    ("no host", nobody, send(b"GET /first HTTP/1.1\r\n\r\n"), "regular",
     tell("destination_not_found", "no_host", "client")),
    ("unknown host", at("nonexistent.invalid", 80), get, "regular",
     tell("dns_error", "nxdomain", "network")),
    *((f"DNS {answer}", nobody, ask(f"{answer.lower()}.test", answer), "dns",
       tell("dns_error", answer.lower(), "network"))
      for answer in ("NXDOMAIN", "SERVFAIL", "REFUSED")),
    # words that tell nothing
    ("a method that nobody registered", answering(servers.CLOSES),
     send(b"SECRET-TOKEN http://127.0.0.1:1/a;sid=SECRET?b=SECRET HTTP/1.1\r\nHost: a\r\n\r\n"),
     "regular", tell("connection_refused", method="_OTHER", url="http://127.0.0.1:1/a;sid=?b=")),
    ("a scheme that nobody knows", nobody, send(b"GET secret://h:1/ HTTP/1.1\r\nHost: a\r\n\r\n"),
     "regular", tell("invalid_url", None, "client", url="*://h:1/",
                     detail="Invalid request scheme: (not kept)")),
    ("a bad request line", nobody, send(b"SECRET http:///foo;a=SECRET HTTP/1.1\r\n\r\n"),
     "regular", tell("invalid_url", None, "client", type="event",
                     detail="Bad HTTP request line: (not kept) http:///foo;a=")),
    ]
]
# fmt: on


@pytest.fixture
def bench(request: pytest.FixtureRequest, laboratory: Laboratory) -> Iterator[Bench]:
    case: Case = request.param
    with case.server(laboratory) as server:
        yield Bench(laboratory, laboratory.proxy(case.proxy), server)


@pytest.mark.parametrize(
    ("case", "expected", "bench"),
    [pytest.param(case, expected, case, id=case.name) for case, expected in CASES],
    indirect=["bench"],
)
def test_blame(case: Case, expected: Record, bench: Bench) -> None:
    (record,) = bench.laboratory.observe(bench.proxy, lambda: case.act(bench), 1)
    assert {name: record.get(name) for name in expected} == expected, record
    assert "SECRET" not in str(record)
    bench.proxy.assert_no_addon_error()


def test_a_kept_alive_connection_that_closes_as_the_next_request_is_sent(
    laboratory: Laboratory,
) -> None:
    with answering(servers.close_second)(laboratory) as server:
        proxy = laboratory.proxy("regular")
        bench = Bench(laboratory, proxy, server)
        first, second = laboratory.observe(proxy, lambda: get_twice(bench), 2)
    assert first["status"] == 200
    assert (second["cause"], second["reason"]) == ("connection_terminated", "reused_connection")
    assert second["reused"] is True


def several(bench: Bench, count: int) -> None:
    with clients.open_http2(bench.proxy, bench.server) as client:
        for number in range(count):
            client.request(f"/{number}")
        with suppress(socket.timeout, ConnectionError):
            client.wait_for_all(count)


@pytest.mark.parametrize(
    ("behaviour", "culprit", "cause", "reason"),
    [
        (http2.bad_header_on(3, of=6), "/3", "http_protocol_error", "refused_by_mitmproxy"),
        (http2.go_away_with(ErrorCodes.NO_ERROR, after=6), "/0", "proxy_internal_error", "goaway"),
        (
            http2.go_away_with(ErrorCodes.INTERNAL_ERROR, after=6),
            "/0",
            "http_protocol_error",
            "internal_error",
        ),
    ],
)
def test_one_fault_of_a_connection_is_told_once(
    laboratory: Laboratory,
    behaviour: http2.Behaviour,
    culprit: str,
    cause: str,
    reason: str,
) -> None:
    with over_http2(behaviour)(laboratory) as server:
        proxy = laboratory.proxy("regular")
        bench = Bench(laboratory, proxy, server)
        records = laboratory.observe(proxy, lambda: several(bench, 6), 6)
    assert len(records) == 6
    assert {record["cause"] for record in records} == {cause}
    reasons = {record["url"].rpartition("/")[2]: record["reason"] for record in records}
    assert reasons == {
        str(number): reason if culprit == f"/{number}" else "collateral" for number in range(6)
    }
