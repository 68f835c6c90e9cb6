"""A client that leaves: it cancelled, or it waited in vain. Live, a row for each way to leave.

Nothing here depends on how long a machine takes for something: a client leaves when it has seen, or
its server has done, what the row is about.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from flowtally import internals
from h2.errors import ErrorCodes
from lab import clients
from lab import http2
from lab import servers
from lab import websocket
from lab.clients import request_head
from lab.expected import Expected
from lab.expected import cancelled
from lab.expected import failure
from lab.expected import flow_or_event
from lab.expected import status
from lab.factories import ServerFactory
from lab.factories import answering
from lab.factories import over_http2
from lab.factories import over_tls
from lab.factories import over_websocket
from lab.factories import raw_tcp
from lab.laboratory import SCRIPTS
from lab.laboratory import TOO_LONG
from lab.laboratory import Laboratory
from lab.laboratory import Setup
from lab.proxy import Mitmdump
from lab.servers import read_until
from lab.streams import PAUSE
from lab.streams import DrippingServer
from mitmproxy.options import Options
from mitmproxy.proxy.layers.http import HttpStream

pytestmark = pytest.mark.timeout(60)

EVENTS, BYTES = "text/event-stream", "application/octet-stream"
FOREVER = 10**6
LONG = round(TOO_LONG / PAUSE) + 1
"""So many pieces take longer than the timeout."""


def dripping(media_type: str, count: int) -> ServerFactory:
    return lambda _: DrippingServer(media_type, count)


Act = Callable[[Mitmdump, Any], None]


def send_get(proxy: Mitmdump, server: Any) -> socket.socket:
    connection = clients.open_connection(proxy.port)
    connection.sendall(clients.absolute_get(server))
    return connection


def leave_while_it_flows(proxy: Mitmdump, server: DrippingServer) -> None:
    """Long after the request, right after a piece of the body."""
    with closing(send_get(proxy, server)):
        server.wait_piece(LONG)


def leave_while_it_stalls(proxy: Mitmdump, server: DrippingServer) -> None:
    with closing(send_get(proxy, server)):
        server.wait_piece(1)
        time.sleep(TOO_LONG)


def upload(proxy: Mitmdump, server: Any, size: int) -> socket.socket:
    """Three bytes of a body of `size`, as slowly as the timeout."""
    authority = f"{server.host}:{server.port}"
    head = request_head("POST", f"http://{authority}/", authority, f"Content-Length: {size}")
    connection = clients.open_connection(proxy.port)
    connection.sendall(head + b"a")
    time.sleep(TOO_LONG)
    connection.sendall(b"bc")
    return connection


def leave_after_a_slow_upload(proxy: Mitmdump, server: Any) -> None:
    with closing(upload(proxy, server, 3)):
        server.wait_request()


def leave_within_a_slow_upload(proxy: Mitmdump, server: Any) -> None:
    upload(proxy, server, 100).close()


def leave_within_a_slow_upload_over_http2(proxy: Mitmdump, server: Any) -> None:
    with clients.open_http2(proxy, server) as client:
        stream = client.request("/", whole=False)
        client.wait(TOO_LONG)
        client.cancel(stream)


def reset_over_http2(code: ErrorCodes) -> Act:
    def act(proxy: Mitmdump, server: Any) -> None:
        with clients.open_http2(proxy, server) as client:
            stream = client.request()
            server.wait_request()
            client.cancel(stream, code)

    return act


def get_over_http2(proxy: Mitmdump, server: Any) -> None:
    with clients.open_http2(proxy, server) as client:
        client.request()
        client.read_to_end()


def call(deadline: str, waits: float) -> Act:
    """A gRPC call over HTTP/2, taken back after that many seconds."""

    def act(proxy: Mitmdump, server: Any) -> None:
        headers = ("content-type", "application/grpc"), ("grpc-timeout", deadline)
        with clients.open_http2(proxy, server) as client:
            stream = client.request("/Service/Method", *headers)
            server.wait_request()
            if waits:
                client.wait(waits)
            client.cancel(stream)

    return act


def wait_for_the_proxy(proxy: Mitmdump, server: Any) -> None:
    """The client has all the time in the world."""
    with closing(send_get(proxy, server)) as connection:
        clients.read_to_end(connection)


def upload_and_wait_for_the_proxy(proxy: Mitmdump, server: Any) -> None:
    authority = f"{server.host}:{server.port}"
    head = request_head("POST", f"http://{authority}/", authority, "Content-Length: 100")
    clients.exchange(proxy.port, head + b"abc")


def wait_in_websocket(proxy: Mitmdump, server: Any) -> None:
    websocket.wait(f"{server.url}/1000", proxy.url)


def cut_off_websocket(proxy: Mitmdump, server: Any) -> None:
    websocket.cut_off(f"{server.url}/1000", proxy.url)


def lose_websocket(proxy: Mitmdump, server: Any) -> None:
    websocket.talk(f"{server.url}/cut", proxy.url)


def wait_in_tunnel(proxy: Mitmdump, server: Any) -> None:
    tunnel = clients.open_tunnel(proxy, server)
    assert tunnel is not None
    with closing(tunnel):
        tunnel.sendall(b"\x00\x01raw bytes")
        clients.read_to_end(tunnel)


def keep_alive_and_wait(proxy: Mitmdump, server: Any) -> None:
    """Idle between two requests: nobody's failure."""
    authority = f"{server.host}:{server.port}"
    head = request_head("GET", f"http://{authority}/", authority, keep_alive=True)
    clients.exchange(proxy.port, head)


TCP_TIMEOUT = pytest.mark.skipif(
    "tcp_timeout" not in Options(), reason="the option tcp_timeout came with mitmproxy 12.2.1"
)

NO_ANSWER = failure(-6, "http_response_timeout", "server")
READ_TIMEOUT = failure(-6, "connection_read_timeout", "server", after=200)
CANCELLED_BODY = cancelled(after=200)
CUT_BY_PROXY = failure(-6, "connection_read_timeout", "proxy", after=200, reason="tcp_timeout")


def event_stream_cancelled(**more: Any) -> Expected:
    return cancelled(after=200, stream=True, media_type=EVENTS, **more)


def case(
    name: str,
    server: ServerFactory,
    act: Act,
    expected: Expected,
    proxy: str,
    *,
    needs_tcp_timeout: bool = False,
) -> Any:
    marks = [TCP_TIMEOUT] if needs_tcp_timeout else []
    return pytest.param(server, act, expected, proxy, id=name, marks=marks)


# fmt: off
CASES = [
    # A body that keeps coming is no wait, however long it takes, and whether it is passed on.
    case("event stream, buffered", dripping(EVENTS, FOREVER), leave_while_it_flows,
         event_stream_cancelled(reason="buffered"), "attentive"),
    case("event stream, streamed", dripping(EVENTS, FOREVER), leave_while_it_flows,
         event_stream_cancelled(), "attentive and streaming"),
    case("event stream without news, streamed", dripping(EVENTS, 2), leave_while_it_stalls,
         event_stream_cancelled(), "attentive and streaming"),
    case("event stream without news, buffered", dripping(EVENTS, 2), leave_while_it_stalls,
         event_stream_cancelled(reason="buffered"), "attentive"),
    case("download, streamed", dripping(BYTES, FOREVER), leave_while_it_flows,
         CANCELLED_BODY, "attentive and streaming"),
    case("download, buffered", dripping(BYTES, FOREVER), leave_while_it_flows,
         CANCELLED_BODY, "attentive"),
    case("download that stalls, streamed", dripping(BYTES, 2), leave_while_it_stalls,
         READ_TIMEOUT, "attentive and streaming"),
    case("download that stalls, buffered", dripping(BYTES, 2), leave_while_it_stalls,
         READ_TIMEOUT, "attentive"),
    # The wait begins when the request is complete.
    case("left after a slow upload", answering(servers.SILENT), leave_after_a_slow_upload,
         cancelled(), "attentive"),
    case("left within a slow upload", answering(servers.SILENT), leave_within_a_slow_upload,
         cancelled(), "attentive"),
    case("left within a slow upload, HTTP/2", over_http2(http2.stay_silent),
         leave_within_a_slow_upload_over_http2, cancelled(), "attentive"),
    # Who resets a stream, where both speak HTTP/2.
    case("reset by the client, CANCEL", over_http2(http2.stay_silent),
         reset_over_http2(ErrorCodes.CANCEL),
         cancelled(detail="stream reset by the client (CANCEL)"), "attentive"),
    case("reset by the client, another code", over_http2(http2.stay_silent),
         reset_over_http2(ErrorCodes.INTERNAL_ERROR),
         cancelled(detail="stream reset by the client (INTERNAL_ERROR)"), "attentive"),
    case("reset by the server, CANCEL",
         over_http2(http2.reset_before_head(ErrorCodes.CANCEL)), get_over_http2,
         failure(-2, "http_protocol_error", "server", reason="cancel",
                 detail="stream reset by the server (CANCEL)"),
         "attentive"),
    case("reset by the server after the head, CANCEL",
         over_http2(http2.reset_after_head(ErrorCodes.CANCEL)), get_over_http2,
         failure(-1, "http_response_incomplete", "server", after=200, reason="cancel",
                 detail="stream reset by the server (CANCEL)"),
         "attentive"),
    # A gRPC call has a timeout of its own; the proxy's is 60 s here.
    case("gRPC deadline", over_http2(http2.stay_silent), call("500m", 0.5),
         failure(-6, "http_response_timeout", "server", reason="deadline_exceeded"), "regular"),
    case("gRPC deadline, a little early", over_http2(http2.stay_silent), call("1050m", 1.02),
         failure(-6, "http_response_timeout", "server", reason="deadline_exceeded"), "regular"),
    case("gRPC deadline, after the head", over_http2(http2.begin), call("500m", 0.5),
         failure(-6, "connection_read_timeout", "server", after=200, reason="deadline_exceeded"),
         "regular"),
    case("gRPC deadline, cancelled long before", over_http2(http2.stay_silent), call("30S", 0.0),
         cancelled(), "regular"),
    case("gRPC deadline, server speaks HTTP/1.1", over_tls(servers.SILENT), call("500m", 0.5),
         failure(-6, "http_response_timeout", "server", reason="deadline_exceeded"), "lazy"),
    # mitmproxy itself gives up, after a second.
    case("inactivity, no answer", answering(servers.SILENT), wait_for_the_proxy,
         failure(-6, "http_response_timeout", "server", reason="tcp_timeout",
                 detail="Closing connection due to inactivity"), "inactivity",
         needs_tcp_timeout=True),
    case("inactivity, after the head", answering(servers.SILENT_AFTER_HEAD), wait_for_the_proxy,
         CUT_BY_PROXY, "inactivity", needs_tcp_timeout=True),
    case("inactivity, event stream", dripping(EVENTS, 2), wait_for_the_proxy,
         CUT_BY_PROXY, "inactivity", needs_tcp_timeout=True),
    case("inactivity, unfinished upload", answering(servers.SILENT), upload_and_wait_for_the_proxy,
         failure(-6, "http_response_timeout", "client", reason="tcp_timeout"), "inactivity",
         needs_tcp_timeout=True),
    case("inactivity, HTTP/2", over_http2(http2.stay_silent), get_over_http2,
         failure(-6, "http_response_timeout", "server", reason="tcp_timeout"), "inactivity",
         needs_tcp_timeout=True),
    case("inactivity, WebSocket", over_websocket, wait_in_websocket,
         failure(-6, "connection_read_timeout", "proxy", after=101, kind="websocket", stream=True,
                 reason="tcp_timeout", close_code=1006), "inactivity", needs_tcp_timeout=True),
    case("inactivity, raw TCP", raw_tcp, wait_in_tunnel,
         failure(-6, "connection_read_timeout", "proxy", kind="tcp", reason="tcp_timeout"),
         "inactivity", needs_tcp_timeout=True),
    case("inactivity, between two requests", answering(servers.OK), keep_alive_and_wait,
         status(200, "OK"), "inactivity", needs_tcp_timeout=True),
    # A WebSocket without a close frame.
    case("WebSocket cut off by the client", over_websocket, cut_off_websocket,
         cancelled(after=101, kind="websocket", stream=True, close_code=1006), "attentive"),
    case("WebSocket cut off by the server", over_websocket, lose_websocket,
         failure(-2, "connection_terminated", "server", after=101, kind="websocket", stream=True,
                 close_code=1006), "attentive"),
]
# fmt: on


@pytest.mark.parametrize(("factory", "act", "expected", "setup"), CASES)
def test_leaving(
    laboratory: Laboratory, factory: ServerFactory, act: Act, expected: Expected, setup: str
) -> None:
    proxy = laboratory.proxy(setup)
    with factory(laboratory) as server:
        (record,) = laboratory.observe(proxy, lambda: act(proxy, server), 1)
    expected.check(record)
    if "reason" not in expected.fields:
        assert "reason" not in record
    proxy.assert_no_addon_error()


def test_each_stream_of_a_connection_has_its_own_wait(laboratory: Laboratory) -> None:
    """Both speak HTTP/2: one stream is fed all the time, the other one has begun and stalls."""
    proxy = laboratory.proxy("attentive")
    pokes = LONG // 2

    def act() -> None:
        with clients.open_http2(proxy, server) as client:
            streams = [client.request("/fed"), client.request("/stalled")]
            for _ in range(pokes):
                client.request("/poke")
                client.read_to_end()
                client.wait(2 * PAUSE)
            client.request("/poke")
            client.read_to_end()
            for stream in streams:
                client.cancel(stream)

    with over_http2(http2.Dripping())(laboratory) as server:
        records = laboratory.observe(proxy, act, pokes + 3)
    *answered, fed, stalled = records
    assert [record["status"] for record in answered] == [200] * (pokes + 1)
    assert [fed["url"].rpartition("/")[2], stalled["url"].rpartition("/")[2]] == ["fed", "stalled"]
    CANCELLED_BODY.check(fed)
    READ_TIMEOUT.check(stalled)


# -- through an upstream proxy, where mitmproxy does not note when TCP came up


def leave_late(port: int, data: bytes) -> None:
    connection = clients.open_connection(port)
    connection.sendall(data)
    clients.wait_in_vain(connection, TOO_LONG)


def test_a_silent_origin_behind_an_upstream_proxy(laboratory: Laboratory) -> None:
    proxy = laboratory.proxy("attentive")
    port = laboratory.port("attentive", "silent upstream")
    request = clients.absolute_get(laboratory.origin)
    (record,) = laboratory.observe(proxy, lambda: leave_late(port, request), 1)
    NO_ANSWER.check(record)


def open_tunnel_through(port: int, authority: str) -> socket.socket:
    connection = clients.open_connection(port)
    connection.sendall(request_head("CONNECT", authority, authority, keep_alive=True))
    assert read_until(connection, b"\r\n\r\n").split(b" ")[1] == b"200"
    return connection


def test_a_silent_origin_in_a_tunnel_through_an_upstream_proxy(laboratory: Laboratory) -> None:
    proxy = laboratory.proxy("attentive")
    port = laboratory.port("attentive", "tunnelling upstream")

    def act() -> None:
        authority = f"{server.host}:{server.port}"
        context = clients.trusting(proxy, "http/1.1")
        tunnel = open_tunnel_through(port, authority)
        connection = context.wrap_socket(tunnel, server_hostname=server.host)
        connection.sendall(request_head("GET", "/", authority))
        clients.wait_in_vain(connection, TOO_LONG)

    with over_tls(servers.SILENT)(laboratory) as server:
        (record,) = laboratory.observe(proxy, act, 1)
    NO_ANSWER.check(record)


def test_a_silent_handshake_behind_an_upstream_proxy(laboratory: Laboratory) -> None:
    proxy = laboratory.proxy("attentive")
    port = laboratory.port("attentive", "upstream to a silent handshake")

    def act() -> None:
        with closing(open_tunnel_through(port, "localhost:443")) as tunnel:
            tunnel.sendall(clients.client_hello("localhost"))
            laboratory.holding_upstream.wait_request()
            time.sleep(TOO_LONG)
        # mitmproxy notices that the client has left when the server closes.
        clients.get(proxy, laboratory.beacon)
        laboratory.holding_upstream.hang_up()

    (record,) = [
        record
        for record in laboratory.observe(proxy, act, 1)
        if record.get("port") != laboratory.beacon.port
    ]
    flow_or_event(-6, "http_response_timeout", "server").check(record)


def test_a_client_that_leaves_while_its_request_is_held_waits_for_no_server(
    laboratory: Laboratory,
) -> None:
    setup = Setup(scripts=[SCRIPTS / "hold_requests.py"], options={"flowtally_timeout": "0.5"})
    server = laboratory.beacon
    with laboratory.mitmdump("holding", setup) as proxy:
        with closing(clients.open_connection(proxy.port)) as client:
            client.sendall(clients.absolute_get(server))
            clients.wait_in_vain(client, 1.0)
        proxy.wait_for(lambda _: proxy.flows())
        (record,) = proxy.flows()
    cancelled().check(record)


# -- the watch over mitmproxy's streams


def test_the_watch_leaves_everything_as_it_was() -> None:
    before = dict(vars(HttpStream))
    undo = internals.watch_streams()
    changed = {name for name, value in vars(HttpStream).items() if before[name] is not value}
    assert changed == {
        "check_killed",
        "state_wait_for_response_headers",
        "state_stream_response_body",
        "state_consume_response_body",
        "handle_protocol_error",
    }
    undo()
    assert dict(vars(HttpStream)) == before


def test_two_watches_at_once() -> None:
    before = dict(vars(HttpStream))
    first, second = internals.watch_streams(), internals.watch_streams()
    second()
    first()
    assert dict(vars(HttpStream)) == before


@pytest.mark.parametrize("missing", ["state_stream_response_body", "handle_protocol_error"])
def test_without_the_internals_nothing_is_watched(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delattr(HttpStream, missing)
    before = dict(vars(HttpStream))
    internals.watch_streams()()
    assert dict(vars(HttpStream)) == before
