"""How an exchange stood when it broke: how far it had come, and who broke it. Pure functions.

mitmproxy leaves other traces of a failed request than of a refused CONNECT, a cut-off stream or a
handshake, so each of these has a function of its own. What a text of mitmproxy's means in a
situation is decided in `classify`.
"""

from __future__ import annotations

from typing import NamedTuple

from mitmproxy import connection
from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy.connection import ConnectionState

from . import internals
from . import texts
from .headers import EVENT_STREAM
from .headers import media_type_of
from .vocabulary import GAVE_UP
from .vocabulary import METADATA_KEY
from .vocabulary import Tag

NO_WAIT = float("-inf")
"""The wait of a client that cannot be shown to have waited for the server."""

# gRPC over HTTP/2, "Timeout": at most eight digits and a unit, in seconds.
_GRPC_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
# Clients round the header up, and reset a little before the time is over.
_DEADLINE_SHARE, _DEADLINE_SECONDS = 0.02, 0.03

PREFACE_METHOD = b"PRI"
"""The method of the preface of HTTP/2 (RFC 9113 §3.4), if it is read as a request of HTTP/1."""


class Situation(NamedTuple):
    """How far an exchange had come when it broke, and who broke it."""

    head: bool = False
    """A response head had arrived."""
    side: str = ""
    """Who broke it, `client` or `server`, where that is known; empty where the message says it."""
    waited: float = 0.0
    """Seconds for which nothing had come from the server: since the request was complete, or since
    the last byte of the response; of other connections, since they began. NO_WAIT: not known."""
    connecting: bool = False
    """The TCP connection to the server was not up yet."""
    securing: bool = False
    """TCP was up, and the TLS handshake with the server was not over."""
    upstream: bool = False
    """The server is reached through an upstream proxy."""
    tunnelled: bool = False
    """That upstream proxy had already opened the tunnel."""
    uploading: bool = False
    """The request was not complete."""
    overdue: bool = False
    """The deadline that the client had set for its gRPC call was over."""
    endless: bool = False
    """An event stream had begun: its client leaves it some time, whatever came."""
    buffered: bool = False
    """mitmproxy kept that event stream until its end, so that the client never saw an event."""
    forwarded: bool = False
    """That upstream proxy answers the request itself, for there is no tunnel: plain http."""
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
    response = flow.response
    endless = response is not None and media_type_of(response) == EVENT_STREAM
    # mitmproxy never tells when a CONNECT is complete, which has no body.
    uploading = request.timestamp_end is None and request.method != "CONNECT"
    return Situation(
        head=response is not None,
        side=_side(flow, error.msg),
        waited=NO_WAIT if uploading else ended - _last_heard(flow),
        connecting=_is_connecting(server, error.msg),
        securing=request.scheme == "https" and _is_securing(server, error.msg),
        upstream=server.via is not None,
        tunnelled=server.timestamp_start is not None,
        uploading=uploading,
        overdue=_is_overdue(request, ended),
        endless=endless,
        buffered=endless and _is_buffered(flow),
        forwarded=(
            server.via is not None
            and request.scheme == "http"
            and flow.client_conn.proxy_mode.type_name == "upstream"
        ),
        preface=request.data.method == PREFACE_METHOD,
        quic=request.is_http3 or server.transport_protocol == "udp",
    )


def _is_connecting(server: connection.Server, message: str) -> bool:
    # The text of a connection attempt that was cancelled, proxy/server.py.
    if message in ("client disconnected", "connection cancelled"):
        return True
    if server.timestamp_start is None:
        return False  # nobody tried
    if server.transport_protocol == "udp":
        return server.timestamp_tls_setup is None
    # Of a connection through an upstream proxy, only the tunnel's start is noted.
    return server.timestamp_tcp_setup is None and server.via is None


def _is_securing(server: connection.Server, message: str) -> bool:
    # The text of a handshake that is cut off, proxy/tunnel.py; with the lazy strategy the flow
    # knows nothing of the connection that was being made.
    if message == "connection closed":
        return server.via is None
    return server.timestamp_tcp_setup is not None and server.timestamp_tls_setup is None


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
    server = flow.server_conn
    # It has a start before it is there; of UDP, and of a tunnel, that is all that is noted.
    noted = server.transport_protocol == "tcp" and server.via is None
    there = server.timestamp_tcp_setup if noted else server.timestamp_start
    return Situation(
        waited=flow.error.timestamp - (flow.client_conn.timestamp_start or 0),
        connecting=there is None,
    )


def server_situation(
    client: connection.Client, server: connection.Connection, now: float
) -> Situation:
    """The situation of a connection to a server, or its TLS handshake, that failed at `now` (Unix
    time)."""
    began = getattr(server, "timestamp_tcp_setup", None)
    # Of a connection through an upstream proxy, only the tunnel's start is noted.
    through = getattr(server, "via", None) is not None
    tunnelled = through and server.timestamp_start is not None
    return Situation(
        side="client" if client.timestamp_end is not None or not _is_readable(client) else "",
        waited=now - (began or server.timestamp_start or now),
        connecting=began is None and not tunnelled,
        securing=began is not None,
        upstream=client.proxy_mode.type_name == "upstream",
        tunnelled=tunnelled,
        # mitmproxy takes this time when the hook that may forbid the connection is over.
        denied=server.timestamp_start is None and began is None and not through,
        quic=server.transport_protocol == "udp",
    )


def handshake_situation(client: connection.Client, now: float) -> Situation:
    """The situation of a TLS handshake with a client that failed at `now` (Unix time)."""
    return Situation(waited=now - client.timestamp_start, quic=client.transport_protocol == "udp")


def hanging_situation(waited: float, *, connecting: bool, securing: bool) -> Situation:
    """The situation of a connection to a server that is not up after `waited` seconds.

    `connecting`: TCP is not up yet; `securing`: it is, and TLS is not. Nobody but the client can
    have given up.
    """
    return Situation(side="client", waited=waited, connecting=connecting, securing=securing)


def saved_tag(flow: mflow.Flow) -> Tag | None:
    """The tag that the session which saw a flow live left in it, for a flow from a file.

    That session knew more than the file shows: the states of connections, and mitmproxy's log.
    """
    saved = None if flow.live else flow.metadata.get(METADATA_KEY)
    return saved if isinstance(saved, dict) else None


def grpc_timeout(value: str) -> float | None:
    """The seconds that a `grpc-timeout` header gives; None if it says nothing of the kind."""
    digits, unit = value[:-1], value[-1:]
    if unit not in _GRPC_UNITS or not (digits.isascii() and digits.isdigit() and len(digits) <= 8):
        return None
    return int(digits) * _GRPC_UNITS[unit] or None


def _is_overdue(request: http.Request, ended: float) -> bool:
    deadline = grpc_timeout(request.headers.get("grpc-timeout", ""))
    if deadline is None:
        return False
    # Of a very short one, half of it at least must be over.
    early = min(_DEADLINE_SHARE * deadline + _DEADLINE_SECONDS, deadline / 2)
    return ended - request.timestamp_start >= deadline - early


def _is_buffered(flow: http.HTTPFlow) -> bool:
    """Whether mitmproxy kept back what came of the response; a file does not tell."""
    if flow.live:
        return flow.response is not None and not flow.response.stream
    return (saved_tag(flow) or {}).get("reason") == "buffered"


def _last_heard(flow: http.HTTPFlow) -> float:
    """When the client began to wait for the server, or last got something from it; infinity if
    unknown. As long as a hook holds a flow, the server has nothing to do with it."""
    request, response = flow.request, flow.response
    asked = request.timestamp_end or request.timestamp_start
    heard = internals.last_byte(flow)
    if response is None:
        return max(asked, heard or asked)
    if heard is None and (saved_tag(flow) or {}).get("cause") == "connection_read_timeout":
        # The session that saw it live knew it; so long at least nothing can have come.
        heard = response.timestamp_start
    return -NO_WAIT if heard is None else max(asked, heard)


def _side(flow: http.HTTPFlow, message: str) -> str:
    """Who broke an HTTP exchange, if a message can be said of both sides.

    mitmproxy words errors of both its connections alike. The watch over its streams tells from
    which of them one came. Without that: only one of them may speak the protocol that the message
    is about; where both do, the request that never became complete tells the client, and on HTTP/2
    the state of the two connections.
    """
    request, server = flow.request, flow.server_conn
    if flow.is_replay == "request":
        return "server"  # mitmproxy itself is the client
    # The handshake with the server ends as well when the client is gone.
    if not message.startswith("connection closed") and (seen := internals.broken_by(flow)):
        return seen
    client_multiplexed = request.is_http2 or request.is_http3
    server_multiplexed = (
        flow.response.is_http2 or flow.response.is_http3
        if flow.response is not None
        else is_multiplexed(server)
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
        gone = flow.live and not _is_readable(flow.client_conn)
        return "client" if gone or _gave_up_live(flow) else "server"
    if client_multiplexed != server_multiplexed:
        return "client" if client_multiplexed else "server"
    # Before the states: a stream is reset while both connections are open, or right before one
    # closes.
    if texts.ends_stream(message):
        by_code = "client" if texts.cancels_stream(message) else "server"
        return _found_live(flow) or by_code
    if flow.live:
        client_open, server_open = _is_readable(flow.client_conn), _is_readable(server)
        if client_open != server_open:
            return "server" if client_open else "client"
    elif _gave_up_live(flow):
        return "client"
    return _by_completeness(request)


def is_multiplexed(server: connection.Connection) -> bool:
    """Whether streams share a connection: it speaks HTTP/2 or HTTP/3, of which there were drafts
    (`h3-29`)."""
    return server.alpn is not None and server.alpn.startswith((b"h2", b"h3"))


def _by_completeness(request: http.Request) -> str:
    return "client" if request.timestamp_end is None else "server"


def _gave_up_live(flow: mflow.Flow) -> bool:
    """Whether the session that saw a saved flow live found that its client had left."""
    cause = (saved_tag(flow) or {}).get("cause")
    return isinstance(cause, str) and cause in GAVE_UP


def _found_live(flow: mflow.Flow) -> str:
    """Who broke a saved exchange, as the session found that saw it live; "" if that is unknown."""
    if _gave_up_live(flow):
        return "client"  # the side of a timeout is the server's
    side = (saved_tag(flow) or {}).get("side")
    return side if side in ("client", "server") else ""


def _is_readable(peer: connection.Connection) -> bool:
    return ConnectionState.CAN_READ in peer.state
