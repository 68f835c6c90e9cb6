"""How an exchange stood when it broke, as tables: one row, one flow, one answer.

The tables say what differs from an exchange in which a live client asked, by HTTP/1 and completely,
a server whose connection was up, and got no answer. It ended ten seconds after it began and nine
after the request was complete, and all connections are open.
"""

from __future__ import annotations

from typing import Any

import pytest
from flowtally.internals import BROKEN as BROKEN_BY
from flowtally.internals import LAST_BYTE
from flowtally.situation import NO_WAIT
from flowtally.situation import Situation
from flowtally.situation import connect_situation
from flowtally.situation import grpc_timeout
from flowtally.situation import handshake_situation
from flowtally.situation import hanging_situation
from flowtally.situation import http_situation
from flowtally.situation import saved_tag
from flowtally.situation import server_situation
from flowtally.situation import stream_situation
from flowtally.vocabulary import GAVE_UP
from mitmproxy import connection
from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy.connection import ConnectionState
from mitmproxy.net.server_spec import ServerSpec
from mitmproxy.proxy import mode_specs
from mitmproxy.test import tflow

OPEN, CLOSED = ConnectionState.OPEN, ConnectionState.CLOSED
READABLE, WRITABLE = ConnectionState.CAN_READ, ConnectionState.CAN_WRITE
VIA: ServerSpec = ("http", ("proxy", 3128))

Changes = dict[str, Any]

# A connection that is open cannot be given another way.
UPSTREAM: Changes = {"server_conn__state": CLOSED, "server_conn__via": VIA}
FORWARDING: Changes = {
    "client_conn__proxy_mode": mode_specs.ProxyMode.parse("upstream:http://proxy")
}


def changed(flow: Any, changes: Changes) -> Any:
    """`flow` with attributes set: `request__timestamp_end` is its request's `timestamp_end`."""
    for name, value in changes.items():
        owner, _, attribute = name.rpartition("__")
        setattr(getattr(flow, owner) if owner else flow, attribute, value)
    return flow


def broken(message: str = "peer closed connection", **changes: Any) -> http.HTTPFlow:
    """An HTTP flow with an error. `answered`: the HTTP version of a response head that came."""
    answered = changes.pop("answered", None)
    flow = tflow.tflow(resp=answered is not None, err=True)
    assert flow.error
    flow.error.msg, flow.error.timestamp = message, 110.0
    flow.live = True
    flow.request.timestamp_start, flow.request.timestamp_end = 100.0, 101.0
    flow.client_conn.timestamp_end = None
    flow.client_conn.state = flow.server_conn.state = OPEN
    flow.server_conn.timestamp_start, flow.server_conn.timestamp_tcp_setup = 99.0, 99.5
    flow.server_conn.via = flow.server_conn.alpn = None
    if flow.response:
        flow.response.http_version = answered
    changed(flow, changes)
    return flow


BROKEN = Situation(head=False, side="server", waited=9.0, tunnelled=True)
STALLED = {"head": True, "waited": 4.0}
SAVED_STALL = {"live": False, "metadata": {"flowtally": {"cause": "connection_read_timeout"}}}


@pytest.mark.parametrize(
    ("message", "changes", "differs"),
    [
        ("peer closed connection", {}, {}),
        ("peer closed connection", {"answered": "HTTP/1.1"}, {"head": True, "waited": NO_WAIT}),
        # how long the client waited: since its request was complete
        ("Client disconnected.", {"error__timestamp": 101.5}, {"waited": 0.5}),
        ("Client disconnected.", {"request__timestamp_end": 108.0}, {"waited": 2.0}),
        # or since a hook let go of it: somebody may have held the request
        ("Client disconnected.", {LAST_BYTE: 107.0}, {"waited": 3.0}),
        ("Client disconnected.", {LAST_BYTE: 99.0}, {"waited": 9.0}),
        ("Client disconnected.", {LAST_BYTE: 112.0}, {"waited": -2.0}),
        (
            "Client disconnected.",
            {"request__timestamp_end": None, LAST_BYTE: 105.0},
            {"waited": NO_WAIT, "uploading": True, "side": "client"},
        ),
        (
            "Client disconnected.",
            {"request__timestamp_end": None, "request__method": "CONNECT"},
            {"waited": 10.0, "side": "client"},
        ),
        # or since the last byte of the response, if somebody saw it
        ("x", {"answered": "HTTP/1.1", LAST_BYTE: 106.0}, STALLED),
        ("x", {"answered": "HTTP/1.1", LAST_BYTE: 110.0}, STALLED | {"waited": 0.0}),
        (
            "x",
            {"answered": "HTTP/1.1", LAST_BYTE: 102.0, "request__timestamp_end": 106.0},
            STALLED,
        ),
        # a file does not tell, but the session that saw it live may have found it long enough
        (
            "x",
            {"answered": "HTTP/1.1", "response__timestamp_start": 106.0} | SAVED_STALL,
            STALLED | {"side": "client"},
        ),
        (
            "x",
            {"answered": "HTTP/1.1", "live": False, "response__timestamp_start": 106.0},
            {"head": True, "waited": NO_WAIT},
        ),
        # until it left, where the hook of another addon was slow
        ("Client disconnected.", {"client_conn__timestamp_end": 103.0}, {"waited": 2.0}),
        ("Client disconnected.", {"client_conn__timestamp_end": 100.25}, {"waited": -0.75}),
        ("Client disconnected.", {"client_conn__timestamp_end": 109.75}, {"waited": 8.75}),
        ("Client disconnected.", {"client_conn__timestamp_end": 110.25}, {}),
        ("Client disconnected.", {"client_conn__timestamp_end": 110.0}, {}),
        # the end of a connection from before this request (a file, a replay) says nothing
        ("Client disconnected.", {"client_conn__timestamp_end": 100.0}, {}),
        ("Client disconnected.", {"client_conn__timestamp_end": 0.0}, {}),
        ("Client disconnected.", {"client_conn__timestamp_end": 103.0, "is_replay": "request"}, {}),
        (
            "Client disconnected.",
            {"client_conn__timestamp_end": 103.0, "is_replay": "response"},
            {},
        ),
        # whether TCP was up: by mitmproxy's text
        ("client disconnected", {}, {"connecting": True}),
        ("connection cancelled", {}, {"connecting": True}),
        ("Client disconnected.", {}, {}),
        ("client disconnected.", {}, {}),
        # by the times of the connection
        ("x", {"server_conn__timestamp_tcp_setup": None}, {"connecting": True}),
        (
            "x",
            {"server_conn__timestamp_tcp_setup": None, "server_conn__timestamp_start": None},
            {"tunnelled": False},
        ),
        # TCP is up, TLS is not
        (
            "x",
            {"request__scheme": "https", "server_conn__timestamp_tls_setup": None},
            {"securing": True},
        ),
        ("x", {"request__scheme": "https", "server_conn__timestamp_tls_setup": 99.8}, {}),
        ("connection closed", {"request__scheme": "https"}, {"securing": True}),
        ("connection closed", {"request__scheme": "http"}, {}),
        ("x", {"server_conn__timestamp_start": None}, {"tunnelled": False}),
        (
            "x",
            {"server_conn__timestamp_tcp_setup": None, "server_conn__transport_protocol": "udp"},
            {"quic": True},
        ),
        # by QUIC, where the handshake is the connection
        (
            "x",
            {"server_conn__timestamp_tls_setup": None, "server_conn__transport_protocol": "udp"},
            {"quic": True, "connecting": True},
        ),
        (
            "x",
            {
                "server_conn__timestamp_start": None,
                "server_conn__timestamp_tls_setup": None,
                "server_conn__transport_protocol": "udp",
            },
            {"quic": True, "tunnelled": False},
        ),
        ("x", {"request__http_version": "HTTP/3"}, {"quic": True, "side": "client"}),
        # what the request was, and how far it had come
        ("x", {"request__method": "PRI"}, {"preface": True}),
        (
            "server closed connection",
            {"request__timestamp_end": None},
            {"waited": NO_WAIT, "uploading": True, "side": "client"},
        ),
        # plain http is answered by the upstream proxy itself
        ("x", UPSTREAM | FORWARDING, {"upstream": True, "forwarded": True}),
        (
            "x",
            UPSTREAM | FORWARDING | {"request__scheme": "https"},
            {"upstream": True},
        ),
        # the way to the server
        ("x", UPSTREAM, {"upstream": True}),
        # of which only the tunnel's start is known
        ("x", UPSTREAM | {"server_conn__timestamp_tcp_setup": None}, {"upstream": True}),
        (
            "client disconnected",
            UPSTREAM | {"server_conn__timestamp_tcp_setup": None},
            {"upstream": True, "connecting": True},
        ),
        (
            "x",
            UPSTREAM | {"server_conn__timestamp_start": None},
            {"upstream": True, "tunnelled": False},
        ),
    ],
)
def test_http(message: str, changes: Changes, differs: Changes) -> None:
    assert http_situation(broken(message, **changes)) == BROKEN._replace(**differs)


def headers(**fields: str) -> http.Headers:
    return http.Headers((), **fields)


def event_stream(**changes: Any) -> Changes:
    """A response head of an event stream; `content_type` where it is worded differently."""
    content_type = changes.pop("content_type", "text/event-stream")
    return {
        "answered": "HTTP/1.1",
        LAST_BYTE: 106.0,
        "response__headers": headers(content_type=content_type),
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "endless", "buffered"),
    [
        (event_stream(), True, True),
        (event_stream(response__stream=True), True, False),
        (event_stream(response__stream=lambda data: data), True, False),
        (event_stream(content_type="Text/Event-Stream; charset=utf-8"), True, True),
        (event_stream(content_type="text/event-streams"), False, False),
        (event_stream(content_type="text/plain"), False, False),
        # a file does not tell whether it was streamed
        (event_stream(live=False), True, False),
        (
            event_stream(live=False, metadata={"flowtally": {"reason": "buffered"}}),
            True,
            True,
        ),
        (
            event_stream(live=False, response__stream=True, metadata={"flowtally": {}}),
            True,
            False,
        ),
        ({}, False, False),
    ],
)
def test_event_streams(changes: Changes, endless: bool, buffered: bool) -> None:
    situation = http_situation(broken("Client disconnected.", **changes))
    assert (situation.endless, situation.buffered) == (endless, buffered)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1S", 1.0),
        ("2M", 120.0),
        ("1H", 3600.0),
        ("250m", 0.25),
        ("1500u", 0.0015),
        ("99999999n", 0.099999999),
        ("100000000n", None),  # nine digits
        ("0S", None),
        ("S", None),
        ("", None),
        ("5", None),
        ("1s", None),
        ("-1S", None),
        ("+1S", None),
        ("1.5S", None),
        (" 1S", None),
        ("1_0S", None),
        ("\u0661S", None),  # a digit, but not of ASCII
        ("1SS", None),
    ],
)
def test_grpc_timeouts(value: str, seconds: float | None) -> None:
    assert grpc_timeout(value) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("value", "elapsed", "overdue"),
    [
        # 2 % and 30 ms early
        ("5S", 10.0, True),
        ("10S", 9.7701, True),
        ("10S", 9.7699, False),
        ("1S", 0.9501, True),
        ("1S", 0.9499, False),
        # but half of it at least
        ("20m", 0.0101, True),
        ("20m", 0.0099, False),
        ("nonsense", 10.0, False),
    ],
)
def test_grpc_deadlines(value: str, elapsed: float, overdue: bool) -> None:
    changes = {
        "request__headers": headers(grpc_timeout=value),
        "error__timestamp": 100.0 + elapsed,
        # a stream of messages is never complete
        "request__timestamp_end": None,
    }
    assert http_situation(broken("Client disconnected.", **changes)).overdue == overdue


INCOMPLETE: Changes = {"request__timestamp_end": None}
CLIENT_H2: Changes = {"request__http_version": "HTTP/2.0"}
CLIENT_H3: Changes = {"request__http_version": "HTTP/3"}
SERVER_H1: Changes = {"answered": "HTTP/1.1"}
SERVER_H2: Changes = {"answered": "HTTP/2.0"}
SERVER_H3: Changes = {"answered": "HTTP/3"}
CLIENT_CLOSED: Changes = {"client_conn__state": CLOSED}
SERVER_CLOSED: Changes = {"server_conn__state": CLOSED}
SAVED: Changes = {"live": False}


def alpn(protocol: bytes) -> Changes:
    return {"server_conn__alpn": protocol}


def metadata(tag: Any) -> Changes:
    return {"metadata": {"flowtally": tag}}


def seen_from(message: str, side: str) -> Changes:
    return {BROKEN_BY: (message, side)}


CHUNK = "HTTP/1 protocol error: illegal chunk header: b'Z'"
HANDSHAKE = "connection closed"
CLOSES = "peer closed connection"
CANCEL = "stream reset by client (CANCEL)"
RESET = "stream reset by client (INTERNAL_ERROR)"


@pytest.mark.parametrize(
    ("message", "changes", "side"),
    [
        # where the watch over the streams saw from which connection the error came
        *(
            (message, seen_from(message, side) | changes, side)
            for message in (CLOSES, CHUNK, RESET, CANCEL)
            for side in ("client", "server")
            for changes in ({}, INCOMPLETE, CLIENT_H2, SERVER_H2, CLIENT_H2 | SERVER_H2)
        ),
        # not if it was another error, of a first attempt
        (CLOSES, seen_from("another", "client"), "server"),
        (CLOSES, seen_from("another", "server") | INCOMPLETE, "client"),
        # nor of a handshake, which ends as well when the client is gone
        (HANDSHAKE, seen_from(HANDSHAKE, "server") | CLIENT_CLOSED, "client"),
        # else, the request that never became complete
        (CLOSES, {}, "server"),
        (CLOSES, INCOMPLETE, "client"),
        # mitmproxy itself is the client of a replayed request, not of a replayed response
        (CLOSES, INCOMPLETE | {"is_replay": "request"}, "server"),
        (CANCEL, CLIENT_H2 | {"is_replay": "request"}, "server"),
        (CLOSES, INCOMPLETE | {"is_replay": "response"}, "client"),
        # a message about HTTP/1: who speaks it
        (CHUNK, {}, "server"),
        (CHUNK, INCOMPLETE, "client"),
        (CHUNK, CLIENT_H2, "server"),
        (CHUNK, CLIENT_H3, "server"),
        (CHUNK, CLIENT_H2 | INCOMPLETE, "server"),
        (CHUNK, CLIENT_H3 | SERVER_H1 | INCOMPLETE, "server"),
        (CHUNK, SERVER_H2, "client"),
        (CHUNK, SERVER_H3, "client"),
        (CHUNK, SERVER_H1, "server"),
        (CHUNK, CLIENT_H2 | SERVER_H2 | INCOMPLETE, "server"),
        # which neither connection's state changes
        (CHUNK, CLIENT_CLOSED, "server"),
        (CHUNK, INCOMPLETE | SERVER_CLOSED, "client"),
        # what the server speaks: its answer's version, before that what was agreed on
        (CHUNK, alpn(b"h2"), "client"),
        (CHUNK, alpn(b"h3"), "client"),
        (CHUNK, alpn(b"http/1.1"), "server"),
        (CHUNK, alpn(b"http/1.0"), "server"),
        (CHUNK, alpn(b"spdy/3"), "server"),
        (CHUNK, alpn(b""), "server"),
        (CHUNK, alpn(b"h2") | SERVER_H1, "server"),
        (CHUNK, alpn(b"http/1.1") | SERVER_H2, "client"),
        # the handshake with the server ends when the client is gone
        (HANDSHAKE, {}, "server"),
        (HANDSHAKE, CLIENT_CLOSED, "client"),
        (HANDSHAKE, {"client_conn__state": WRITABLE}, "client"),
        (HANDSHAKE, {"client_conn__state": READABLE}, "server"),
        (HANDSHAKE, SERVER_CLOSED, "server"),
        (HANDSHAKE, INCOMPLETE, "server"),
        (HANDSHAKE, CLIENT_H2, "server"),
        (HANDSHAKE, CLIENT_CLOSED | alpn(b"h2"), "client"),
        ("connection closed early", CLIENT_CLOSED, "client"),
        # of a saved flow, only its tag tells that
        (HANDSHAKE, SAVED | CLIENT_CLOSED, "server"),
        *(
            (HANDSHAKE, SAVED | metadata({"cause": cause}), "client")
            for cause in (
                "client_cancelled",
                "connection_timeout",
                "connection_read_timeout",
                "http_response_timeout",
            )
        ),
        (HANDSHAKE, SAVED | metadata({"cause": "connection_terminated"}), "server"),
        (HANDSHAKE, SAVED | metadata({"cause": ["client_cancelled"]}), "server"),
        (HANDSHAKE, SAVED | metadata({}), "server"),
        (HANDSHAKE, SAVED | metadata("client_cancelled"), "server"),
        (HANDSHAKE, metadata({"cause": "client_cancelled"}), "server"),  # a replayed flow's
        # only one of them speaks HTTP/2 or HTTP/3, and that one broke it
        (CLOSES, CLIENT_H2, "client"),
        (CLOSES, CLIENT_H3, "client"),
        (CLOSES, CLIENT_H2 | SERVER_H1, "client"),
        (CLOSES, SERVER_H2 | INCOMPLETE, "server"),
        (CLOSES, SERVER_H3 | INCOMPLETE, "server"),
        (CLOSES, alpn(b"h2") | INCOMPLETE, "server"),
        (RESET, CLIENT_H2, "client"),
        (CANCEL, SERVER_H2, "server"),
        (CLOSES, CLIENT_H2 | SERVER_CLOSED, "client"),
        (CLOSES, SERVER_H2 | CLIENT_CLOSED, "server"),
        # both do: only clients take a request back
        (CANCEL, CLIENT_H2 | SERVER_H2, "client"),
        (CANCEL, CLIENT_H2 | alpn(b"h2") | SERVER_CLOSED, "client"),
        ("stream closed by client (CANCEL)", CLIENT_H2 | alpn(b"h2"), "client"),
        ("stream reset by client (H3_REQUEST_CANCELLED)", CLIENT_H3 | SERVER_H3, "client"),
        ("stream closed by client (H3_REQUEST_CANCELLED)", CLIENT_H3 | SERVER_H2, "client"),
        (RESET, CLIENT_H2 | SERVER_H2, "server"),
        (RESET, CLIENT_H3 | SERVER_H2 | INCOMPLETE | CLIENT_CLOSED, "server"),
        ("stream closed by client (NO_ERROR)", CLIENT_H2 | SERVER_H2 | INCOMPLETE, "server"),
        ("a stream reset (CANCEL)", CLIENT_H2 | SERVER_H2, "server"),
        # but of a saved one, what the session found that saw it live
        (
            CANCEL,
            SAVED
            | CLIENT_H2
            | SERVER_H2
            | metadata({"cause": "http_protocol_error", "side": "server"}),
            "server",
        ),
        (
            CANCEL,
            SAVED
            | CLIENT_H2
            | SERVER_H2
            | metadata({"cause": "client_cancelled", "side": "client"}),
            "client",
        ),
        (
            RESET,
            SAVED
            | CLIENT_H2
            | SERVER_H2
            | metadata({"cause": "client_cancelled", "side": "client"}),
            "client",
        ),
        (
            RESET,
            SAVED
            | CLIENT_H2
            | SERVER_H2
            | metadata({"cause": "http_response_timeout", "side": "server"}),
            "client",
        ),
        (
            RESET,
            SAVED
            | CLIENT_H2
            | SERVER_H2
            | metadata({"cause": "http_request_error", "side": "client"}),
            "client",
        ),
        (
            CANCEL,
            SAVED | CLIENT_H2 | SERVER_H2 | metadata({"cause": "unknown", "side": "proxy"}),
            "client",
        ),
        (CANCEL, SAVED | CLIENT_H2 | SERVER_H2 | metadata({"side": ["server"]}), "client"),
        (RESET, SAVED | CLIENT_H2 | SERVER_H2 | metadata("client"), "server"),
        (RESET, CLIENT_H2 | SERVER_H2 | metadata({"side": "client"}), "server"),  # a replayed one
        # else, of a live exchange, whose connection is closed
        (CLOSES, CLIENT_CLOSED, "client"),
        (CLOSES, {"client_conn__state": WRITABLE}, "client"),
        (CLOSES, {"client_conn__state": READABLE}, "server"),
        (CLOSES, SERVER_CLOSED, "server"),
        (CLOSES, SERVER_CLOSED | INCOMPLETE, "server"),
        (CLOSES, {"server_conn__state": WRITABLE} | INCOMPLETE, "server"),
        (CLOSES, {"server_conn__state": READABLE} | INCOMPLETE, "client"),
        (CLOSES, CLIENT_CLOSED | CLIENT_H2 | SERVER_H2, "client"),
        (CLOSES, SERVER_CLOSED | CLIENT_H2 | SERVER_H2 | INCOMPLETE, "server"),
        (CLOSES, CLIENT_CLOSED | SERVER_CLOSED, "server"),
        (CLOSES, CLIENT_CLOSED | SERVER_CLOSED | INCOMPLETE, "client"),
        # of a saved one, what the session found that saw it live
        (CLOSES, SAVED | CLIENT_CLOSED, "server"),
        (CLOSES, SAVED | SERVER_CLOSED | INCOMPLETE, "client"),
        (CLOSES, SAVED | metadata({"cause": "client_cancelled"}), "client"),
        (CLOSES, SAVED | metadata({"cause": "connection_terminated"}), "server"),
        (CLOSES, SAVED | metadata({"cause": "connection_terminated"}) | INCOMPLETE, "client"),
        (CLOSES, metadata({"cause": "client_cancelled"}), "server"),
    ],
)
def test_side(message: str, changes: Changes, side: str) -> None:
    assert http_situation(broken(message, **changes)).side == side


def test_all_ways_to_give_up_are_in_the_table() -> None:
    assert len(GAVE_UP) == 4


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Situation(waited=10.0)),
        ({"response__timestamp_end": None}, Situation(waited=8.0)),
        (
            {"response__timestamp_end": None, "response__timestamp_start": None},
            Situation(waited=-100.0),
        ),
        ({"server_conn__timestamp_tcp_setup": None}, Situation(waited=10.0, connecting=True)),
        (UPSTREAM, Situation(waited=10.0, upstream=True)),
    ],
)
def test_connect(changes: Changes, expected: Situation) -> None:
    flow = broken(answered="HTTP/1.1", request__method="CONNECT")
    assert flow.response
    flow.response.timestamp_start, flow.response.timestamp_end = 108.0, 110.0
    assert connect_situation(changed(flow, changes)) == expected


@pytest.mark.parametrize("make", [tflow.ttcpflow, tflow.tudpflow])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Situation(waited=10.0)),
        ({"client_conn__timestamp_start": None}, Situation(waited=110.0)),
        # Of TCP there is a start when it is tried; of UDP, and of a tunnel, there is no more.
        ({"server_conn__timestamp_tcp_setup": None}, Situation(waited=10.0, connecting=True)),
        (
            {"server_conn__timestamp_tcp_setup": None, "server_conn__transport_protocol": "udp"},
            Situation(waited=10.0),
        ),
        (
            {"server_conn__timestamp_start": None, "server_conn__transport_protocol": "udp"},
            Situation(waited=10.0, connecting=True),
        ),
        (
            {"server_conn__timestamp_tcp_setup": None, "server_conn__via": VIA},
            Situation(waited=10.0),
        ),
        (
            {"server_conn__timestamp_start": None, "server_conn__via": VIA},
            Situation(waited=10.0, connecting=True),
        ),
    ],
)
def test_stream(make: Any, changes: Changes, expected: Situation) -> None:
    flow = make(err=True)
    flow.error.timestamp = 110.0
    flow.client_conn.timestamp_start, flow.server_conn.timestamp_start = 100.0, 100.5
    assert stream_situation(changed(flow, changes)) == expected


@pytest.mark.parametrize(
    ("of_client", "of_server", "expected"),
    [
        ({}, {}, Situation(waited=4.0, securing=True)),
        # who left
        ({"timestamp_end": 105.0}, {}, Situation(side="client", waited=4.0, securing=True)),
        ({"state": CLOSED}, {}, Situation(side="client", waited=4.0, securing=True)),
        ({"state": WRITABLE}, {}, Situation(side="client", waited=4.0, securing=True)),
        ({"state": READABLE}, {}, Situation(waited=4.0, securing=True)),
        ({}, {"state": CLOSED}, Situation(waited=4.0, securing=True)),
        # since when: TCP, else the attempt
        ({}, {"timestamp_tcp_setup": None}, Situation(waited=7.0, connecting=True)),
        (
            {},
            {"timestamp_tcp_setup": None, "timestamp_start": None},
            Situation(waited=0.0, connecting=True, denied=True),
        ),
        ({}, {"timestamp_start": None}, Situation(waited=4.0, securing=True)),
        ({}, {"transport_protocol": "udp"}, Situation(waited=4.0, securing=True, quic=True)),
        # the way to the server
        (
            {},
            {"timestamp_tcp_setup": None, "via": VIA},
            Situation(waited=7.0, tunnelled=True),
        ),
        (
            {},
            {"timestamp_tcp_setup": None, "timestamp_start": None, "via": VIA},
            Situation(waited=0.0, connecting=True),
        ),
        (
            {"proxy_mode": mode_specs.ProxyMode.parse("upstream:http://proxy")},
            {},
            Situation(waited=4.0, securing=True, upstream=True),
        ),
        (
            {"proxy_mode": mode_specs.ProxyMode.parse("reverse:http://server")},
            {},
            Situation(waited=4.0, securing=True),
        ),
    ],
)
def test_server_connection(of_client: Changes, of_server: Changes, expected: Situation) -> None:
    client, server = tflow.tclient_conn(), tflow.tserver_conn()
    client.timestamp_end, client.state = None, OPEN
    server.timestamp_start, server.timestamp_tcp_setup = 103.0, 106.0
    server.via = None
    changed(server, of_server).state = of_server.get("state", OPEN)
    assert server_situation(changed(client, of_client), server, 110.0) == expected


def test_a_connection_that_knows_nothing_of_tcp() -> None:
    client, other = tflow.tclient_conn(), tflow.tclient_conn()
    client.timestamp_end, client.state = None, OPEN
    other.timestamp_start = 103.0
    peer: connection.Connection = other
    assert server_situation(client, peer, 110.0) == Situation(waited=7.0, connecting=True)


def test_client_handshake() -> None:
    client = tflow.tclient_conn()
    client.timestamp_start, client.timestamp_end = 103.0, 105.0
    assert handshake_situation(client, 110.0) == Situation(waited=7.0)
    client.transport_protocol = "udp"
    assert handshake_situation(client, 110.0) == Situation(waited=7.0, quic=True)


@pytest.mark.parametrize("connecting", [True, False])
@pytest.mark.parametrize("securing", [True, False])
def test_a_connection_that_hangs(connecting: bool, securing: bool) -> None:
    how: dict[str, bool] = {"connecting": connecting, "securing": securing}
    assert hanging_situation(7.0, **how) == Situation(side="client", waited=7.0, **how)


@pytest.mark.parametrize(
    ("live", "saved", "found"),
    [
        (False, {"cause": "x"}, {"cause": "x"}),
        (False, {}, {}),
        (False, "somebody else's", None),
        (False, None, None),
        (True, {"cause": "x"}, None),
    ],
)
def test_saved_tags(live: bool, saved: Any, found: Any) -> None:
    flow: mflow.Flow = tflow.ttcpflow()
    assert saved_tag(flow) is None
    flow.live = live
    flow.metadata["flowtally"] = saved
    assert saved_tag(flow) == found
