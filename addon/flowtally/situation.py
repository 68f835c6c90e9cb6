"""How an exchange stood when it broke: how far it had come, and who broke it. Pure functions.

mitmproxy leaves other traces of a failed request than of a refused CONNECT, a cut-off stream or a
handshake, so each of these has a function of its own. What a text of mitmproxy's means in a
situation is decided in `classify`; nothing here looks into `known/`.
"""

from __future__ import annotations

from typing import NamedTuple

from mitmproxy import connection
from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy.connection import ConnectionState

from .vocabulary import METADATA_KEY
from .vocabulary import Tag

GAVE_UP = frozenset(
    (
        "client_cancelled",
        "connection_timeout",
        "connection_read_timeout",
        "http_response_timeout",
    )
)
"""The causes of an exchange that ended because its client had left."""


PREFACE_METHOD = b"PRI"


class Situation(NamedTuple):
    """How far an exchange had come when it broke, and who broke it."""

    head: bool = False
    """A response head had arrived."""
    side: str = ""
    """Who broke it, `client` or `server`, where that is known; empty where the message says it."""
    waited: float = 0.0
    """Seconds from the first byte of the request, or the start of the connection."""
    connecting: bool = False
    """The TCP connection to the server was not up yet."""
    upstream: bool = False
    """The server is reached through an upstream proxy."""
    tunnelled: bool = False
    """That upstream proxy had already opened the tunnel."""
    forwarded: bool = False
    """That upstream proxy answers the request itself, for there is no tunnel: plain http."""
    unfinished: bool = False
    """The request was not complete."""
    denied: bool = False
    """Another addon forbade the connection to the server; the message is that addon's."""
    preface: bool = False
    """The request is the preface of cleartext HTTP/2 (RFC 9113 §3.4)."""
    quic: bool = False
    """QUIC is spoken with one of the peers, whose own words may be the message."""


def http_situation(flow: http.HTTPFlow) -> Situation:
    """The situation of an HTTP flow that has an error."""
    error, request, server = flow.error, flow.request, flow.server_conn
    assert error is not None
    ended = error.timestamp
    gone = flow.client_conn.timestamp_end
    if gone is not None and request.timestamp_start < gone < ended and not flow.is_replay:
        ended = gone  # the hook of some addon was slow to let go of the flow
    return Situation(
        head=flow.response is not None,
        side=_side(flow, error.msg),
        waited=ended - request.timestamp_start,
        connecting=(
            # The text of a connection attempt that was cancelled, proxy/server.py.
            error.msg in ("client disconnected", "connection cancelled")
            or (
                server.timestamp_start is not None
                and server.timestamp_tcp_setup is None
                and server.transport_protocol == "tcp"
            )
            or (
                server.timestamp_start is not None
                and server.timestamp_tls_setup is None
                and server.transport_protocol == "udp"
            )
        ),
        upstream=server.via is not None,
        tunnelled=server.timestamp_start is not None,
        forwarded=(
            server.via is not None
            and request.scheme == "http"
            and flow.client_conn.proxy_mode.type_name == "upstream"
        ),
        unfinished=request.timestamp_end is None,
        preface=request.data.method == PREFACE_METHOD,
        quic=request.is_http3 or server.transport_protocol == "udp",
    )


def connect_situation(flow: http.HTTPFlow) -> Situation:
    """The situation of a CONNECT whose response is mitmproxy's word for "I could not connect"."""
    response, server = flow.response, flow.server_conn
    assert response is not None
    ended = response.timestamp_end or response.timestamp_start or 0
    return Situation(
        waited=ended - flow.request.timestamp_start,
        connecting=server.timestamp_tcp_setup is None,
        upstream=server.via is not None,
        denied=server.timestamp_start is None,
    )


def stream_situation(flow: mflow.Flow) -> Situation:
    """The situation of a TCP or UDP flow that has an error."""
    assert flow.error is not None
    return Situation(
        waited=flow.error.timestamp - (flow.client_conn.timestamp_start or 0),
        connecting=flow.server_conn.timestamp_start is None,
    )


def server_situation(
    client: connection.Client, server: connection.Connection, now: float
) -> Situation:
    """The situation of a connection to a server, or its TLS handshake, that failed at `now` (Unix
    time)."""
    began = getattr(server, "timestamp_tcp_setup", None)
    return Situation(
        side="client" if client.timestamp_end is not None or not _is_readable(client) else "",
        waited=now - (began or server.timestamp_start or now),
        connecting=began is None,
        upstream=client.proxy_mode.type_name == "upstream",
        # mitmproxy takes this time when the hook that may forbid the connection is over.
        denied=server.timestamp_start is None and began is None,
        quic=server.transport_protocol == "udp",
    )


def handshake_situation(client: connection.Client, now: float) -> Situation:
    """The situation of a TLS handshake with a client that failed at `now` (Unix time)."""
    return Situation(waited=now - client.timestamp_start, quic=client.transport_protocol == "udp")


def hanging_situation(waited: float, connecting: bool) -> Situation:
    """The situation of a connection to a server that is not up after `waited` seconds.

    `connecting`: TCP is not up yet; otherwise, TLS. Nobody but the client can have given up.
    """
    return Situation(side="client", waited=waited, connecting=connecting)


def saved_tag(flow: mflow.Flow) -> Tag | None:
    """The tag that the session which saw a flow live left in it, for a flow from a file.

    That session knew more than the file shows: the states of connections, and mitmproxy's log.
    """
    saved = None if flow.live else flow.metadata.get(METADATA_KEY)
    return saved if isinstance(saved, dict) else None


def _side(flow: http.HTTPFlow, message: str) -> str:
    """Who broke an HTTP exchange, if a message can be said of both sides.

    mitmproxy words errors of both its connections alike. Only one of them may speak the protocol
    that the message is about; where both do, the request that never became complete tells the
    client, and on HTTP/2 the state of the two connections.
    """
    request, server = flow.request, flow.server_conn
    if flow.is_replay == "request":
        return "server"  # mitmproxy itself is the client
    client_multiplexed = request.is_http2 or request.is_http3
    server_multiplexed = (
        flow.response.is_http2 or flow.response.is_http3
        if flow.response is not None
        else server.alpn is not None and server.alpn.startswith(b"h") and server.alpn[:4] != b"http"
    )
    # First, as it names its protocol: of a mixed pair, it is the other side than below.
    if message.startswith("HTTP/1 protocol error"):
        if client_multiplexed:
            return "server"
        if server_multiplexed:
            return "client"
        return _by_completeness(request)
    # Before the protocols are compared: it is about the handshake, when neither is spoken yet.
    if message.startswith("connection closed"):
        # The handshake with the server ends as well when the client is gone.
        gone = flow.live and not _is_readable(flow.client_conn)
        return "client" if gone or _gave_up_live(flow) else "server"
    if client_multiplexed != server_multiplexed:
        return "client" if client_multiplexed else "server"
    # Before the states: a stream is reset while both connections are open, or right before one
    # closes.
    if message.startswith(("stream reset", "stream closed")):
        # Only clients take a request back.
        return "client" if "(CANCEL)" in message or "CANCELLED)" in message else "server"
    if flow.live:
        client_open, server_open = _is_readable(flow.client_conn), _is_readable(server)
        if client_open != server_open:
            return "server" if client_open else "client"
    elif _gave_up_live(flow):
        return "client"
    return _by_completeness(request)


def _by_completeness(request: http.Request) -> str:
    return "client" if request.timestamp_end is None else "server"


def _gave_up_live(flow: mflow.Flow) -> bool:
    """Whether the session that saw a saved flow live found that its client had left."""
    cause = (saved_tag(flow) or {}).get("cause")
    return isinstance(cause, str) and cause in GAVE_UP


def _is_readable(peer: connection.Connection) -> bool:
    return ConnectionState.CAN_READ in peer.state
