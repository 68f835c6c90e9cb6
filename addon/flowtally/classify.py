"""A flow → its tag. Pure functions: no state, no clock, no I/O.

What a text of mitmproxy's means stands in `known/`; this module adds what no table can show: which
side broke an exchange, how far it had come, and how long the client had waited.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mitmproxy import dns
from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy import tcp
from mitmproxy import udp
from mitmproxy.connection import ConnectionState
from mitmproxy.net.dns import response_codes

from . import redaction
from . import vocabulary
from .vocabulary import CAUSES
from .vocabulary import Message
from .vocabulary import Tag

TIMEOUT_TOLERANCE = 0.1
"""Seconds by which a wait may look shorter than the client meant it: its clock starts when it
connects to the proxy, mitmproxy's when the first byte of the request is there."""

_OS_ERROR = re.compile(r"\[(Errno|WinError) (-?\d+)\]")
_REQUEST_LINE = re.compile(r"Bad HTTP request line: b['\"](\S+)\s+(\S+)\s+HTTP/\d\.\d['\"]$")

# Several addresses of a host were tried: the error that says most about the server.
_MOST_TELLING = (
    "connection_refused",
    "connection_timeout",
    "connection_terminated",
    "destination_ip_unroutable",
)
# Said of a connection to an upstream proxy, these mean that the proxy cannot be used (RFC 9209
# §2.3.4).
_NOT_REACHED = frozenset(
    ("connection_refused", "dns_error", "dns_timeout", "destination_ip_unroutable")
)
_GAVE_UP = frozenset(
    (
        "client_disconnected",
        "connection_timeout",
        "connection_read_timeout",
        "http_response_timeout",
    )
)
# What a log line said is the reason only of the vague failure that follows from it.
_EXPLAINS: Mapping[str, frozenset[str]] = {
    # After an alert mitmproxy overlooks that the server closed, so that the client waits in vain.
    "tls_alert_received": _GAVE_UP | {"connection_terminated", "tls_protocol_error"},
    "proxy_configuration_error": frozenset(("tls_protocol_error",)),
    "proxy_internal_error": _GAVE_UP | {"connection_terminated", "http_response_incomplete"},
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What the user's options say about classification."""

    statuses: Mapping[int, Tag]
    """Status code → ready-made tag, see `vocabulary.STATUS_TAGS`."""
    timeout: float
    """Option `flowtally_timeout`, in seconds."""
    urls: redaction.Urls = "redacted"
    raw_tcp: bool = True
    """mitmproxy's `rawtcp`: whether a switch to an unknown protocol leads anywhere."""


@dataclass(frozen=True, slots=True)
class Note:
    """A log line about this client's connection that explains what follows."""

    message: Message
    text: str


@dataclass(frozen=True, slots=True)
class Situation:
    """How far an exchange had come when it broke."""

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


def classify(flow: mflow.Flow, rules: Rules, note: Note | None = None) -> Tag:
    """The tag of a flow that has ended.

    A flow that has neither a response nor an error is tagged `unfinished`.
    """
    if isinstance(flow, http.HTTPFlow):
        return _http(flow, rules, note)
    if isinstance(flow, dns.DNSFlow):
        return _dns(flow, rules)
    if flow.error:
        connecting = flow.server_conn.timestamp_start is None
        waited = flow.error.timestamp - (flow.client_conn.timestamp_start or 0)
        return failure(flow.error.msg, Situation(waited=waited, connecting=connecting), rules)
    return {"outcome": "ok"}


def kind(flow: mflow.Flow) -> str:
    """The record field `kind`."""
    if isinstance(flow, http.HTTPFlow):
        if flow.websocket is not None:
            return "websocket"
        return "connect" if flow.request.data.method == b"CONNECT" else "http"
    if isinstance(flow, dns.DNSFlow):
        return "dns"
    if isinstance(flow, tcp.TCPFlow):
        return "tcp"
    return "udp" if isinstance(flow, udp.UDPFlow) else flow.type


def unfinished(flow: mflow.Flow, rules: Rules) -> Tag:
    """The tag of a flow that is still open when the session ends."""
    tag: Tag = {"outcome": "unfinished"}
    if isinstance(flow, http.HTTPFlow) and flow.response:
        tag.update(_head(flow.response, rules))
    return tag


def unanswered() -> Tag:
    """The tag of a DNS query whose client went away without an answer."""
    return _failed("dns_timeout", "the name server did not answer")


def failure(message: str, situation: Situation, rules: Rules, note: Note | None = None) -> Tag:
    """What a failure's message means, for `flow.error` and for failures without a flow."""
    row = vocabulary.find_message(vocabulary.EXCHANGE_MESSAGES, message)
    return _tag_failure(row, message, situation, rules, note)


def handshake_failure(message: str, situation: Situation, rules: Rules) -> Tag:
    """What a failed TLS handshake with the client means."""
    row = vocabulary.find_message(vocabulary.HANDSHAKE_MESSAGES, message)
    return _tag_failure(row, message, situation, rules, None)


def log_failure(row: Message, text: str, rules: Rules) -> Tag:
    """What a log line means that is mitmproxy's only word on a failure.

    A request line of three words that ends in an HTTP version is a request whose target is no URL;
    any other is no HTTP at all.
    """
    if request_line := _REQUEST_LINE.match(text[:8192]):
        method, target = request_line.groups()
        target = redaction.redact(target, rules.urls)
        detail = redaction.printable(f"Bad HTTP request line: {method} {target}".rstrip())
        return _failed("invalid_url", detail)
    return _failed(row.client, redaction.detail(text, rules.urls))


def noted_failure(note: Note, rules: Rules) -> Tag:
    """What a note means if no flow came of it."""
    return _failed(note.message.client, redaction.detail(note.text, rules.urls))


def with_redirect_limit(tag: Tag, cause: str) -> Tag:
    """The tag of a redirect that broke a limit: its status, plus -5."""
    error = CAUSES[cause].error
    return {
        **tag,
        "error_code": error.code,
        "error_name": error.name,
        "cause": cause,
        "side": CAUSES[cause].side,
    }


def _http(flow: http.HTTPFlow, rules: Rules, note: Note | None) -> Tag:
    response = flow.response
    if flow.error:
        return _http_failure(flow, flow.error.msg, flow.error.timestamp, rules, note)
    if response is None:
        return {"outcome": "unfinished"}
    if flow.websocket is not None:
        return _websocket(flow, rules)
    if flow.request.data.method == b"CONNECT" and (problem := flow.server_conn.error):
        # The 502 is mitmproxy's own word for "I could not connect", not a server's answer.
        ended = response.timestamp_end or response.timestamp_start or 0
        situation = Situation(
            waited=ended - flow.request.timestamp_start,
            connecting=flow.server_conn.timestamp_tcp_setup is None,
            upstream=flow.server_conn.via is not None,
        )
        return failure(problem, situation, rules, note)
    code = response.status_code
    if code == 101 and not rules.raw_tcp:
        return {
            **_head(response, rules),
            **_failed("http_upgrade_failed", "no protocol is enabled to upgrade to"),
        }
    ready = rules.statuses.get(code)
    return ready.copy() if ready is not None else vocabulary.status_tag(code)


def _http_failure(
    flow: http.HTTPFlow, message: str, ended: float, rules: Rules, note: Note | None
) -> Tag:
    server = flow.server_conn
    gone = flow.client_conn.timestamp_end
    if gone is not None and flow.request.timestamp_start < gone < ended and not flow.is_replay:
        ended = gone  # the hook of some addon was slow to let go of the flow
    situation = Situation(
        head=flow.response is not None,
        side=_side(flow, message),
        waited=ended - flow.request.timestamp_start,
        connecting=(
            # The text of a connection attempt that was cancelled, proxy/server.py.
            message in ("client disconnected", "connection cancelled")
            or (
                server.timestamp_start is not None
                and server.timestamp_tcp_setup is None
                and server.transport_protocol == "tcp"
            )
        ),
        upstream=server.via is not None,
        tunnelled=server.timestamp_start is not None,
    )
    tag = failure(message, situation, rules, note)
    if flow.response is not None:
        tag = {**_head(flow.response, rules), **tag}
    saved = flow.metadata.get("flowtally")
    if note is None and not flow.live and isinstance(saved, dict):
        # The session that saw the flow live knew more than the file shows.
        cause = saved.get("cause")
        if isinstance(cause, str) and tag["cause"] in _EXPLAINS.get(cause, ()):
            tag |= _failed(cause, redaction.printable(str(saved.get("detail", ""))))
    return tag


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
    if message.startswith("HTTP/1 protocol error"):
        if client_multiplexed:
            return "server"
        if server_multiplexed:
            return "client"
        return "client" if request.timestamp_end is None else "server"
    if message.startswith("connection closed"):
        # In the handshake with the server; it ends as well when the client is gone.
        gone = flow.live and ConnectionState.CAN_READ not in flow.client_conn.state
        return "client" if gone or _saved_gave_up(flow) else "server"
    if client_multiplexed != server_multiplexed:
        return "client" if client_multiplexed else "server"
    if message.startswith(("stream reset", "stream closed")):
        # Only clients take a request back.
        return "client" if "(CANCEL)" in message or "CANCELLED)" in message else "server"
    if flow.live:
        client_open = ConnectionState.CAN_READ in flow.client_conn.state
        server_open = ConnectionState.CAN_READ in server.state
        if client_open != server_open:
            return "server" if client_open else "client"
    elif _saved_gave_up(flow):
        return "client"
    return "client" if request.timestamp_end is None else "server"


def _saved_gave_up(flow: mflow.Flow) -> bool:
    """Whether the session that saw a saved flow live found that its client had left."""
    saved = None if flow.live else flow.metadata.get("flowtally")
    cause = saved.get("cause") if isinstance(saved, dict) else None
    return isinstance(cause, str) and cause in _GAVE_UP


def _websocket(flow: http.HTTPFlow, rules: Rules) -> Tag:
    websocket, response = flow.websocket, flow.response
    assert websocket is not None
    assert response is not None
    code = websocket.close_code
    tag = _head(response, rules)
    if code is None:
        return {**tag, "outcome": "unfinished"}
    if code == 1006:
        # RFC 6455 §7.4.1: the connection was closed without a close frame.
        by = "client" if websocket.closed_by_client else "server"
        tag |= _failed("connection_terminated", f"WebSocket connection cut off by the {by}")
    else:
        tag["outcome"] = "status"
    tag["close_code"] = code
    if websocket.close_reason:
        tag["close_reason"] = redaction.detail(websocket.close_reason, rules.urls)
    return tag


def _dns(flow: dns.DNSFlow, rules: Rules) -> Tag:
    if flow.error:
        return failure(flow.error.msg, Situation(), rules)
    if flow.response is None:
        return {"outcome": "unfinished"}
    code = flow.response.response_code
    if code == response_codes.NOERROR:
        return {"outcome": "ok"}
    return _failed("dns_error", response_codes.to_str(code))


def _head(response: http.Response, rules: Rules) -> Tag:
    """The status fields of a response head that did not lead to a complete response."""
    code = response.status_code
    ready = rules.statuses.get(code) or vocabulary.status_tag(code)
    return {name: ready[name] for name in ("status", "band", "description")}


def _failed(cause: str, detail: str, side: str = "") -> Tag:
    row = CAUSES[cause]
    tag: Tag = {
        "outcome": "error",
        "error_code": row.error.code,
        "error_name": row.error.name,
        "cause": cause,
        "side": side or row.side,
    }
    if detail:
        tag["detail"] = detail
    return tag


def _tag_failure(
    row: Message | None, message: str, situation: Situation, rules: Rules, note: Note | None
) -> Tag:
    cause = _os_error(message)
    by_client = False
    if not cause and row is not None:
        in_client = row.client and (
            situation.side == "client" or not (row.server_before_head or row.server_after_head)
        )
        if in_client:
            cause, by_client = row.client, True
        else:
            cause = row.server_after_head if situation.head else row.server_before_head
    if cause == vocabulary.CLIENT_GAVE_UP:
        cause = _gave_up(situation, rules.timeout)
        by_client = False  # the side of a timeout is the server's
    elif situation.upstream and not by_client:
        closed = message == "connection closed" and not situation.tunnelled
        if closed or cause in _NOT_REACHED:
            cause = "destination_unavailable"
    cause = cause or "unknown"
    detail = redaction.detail(message, rules.urls)
    if note is not None:
        reason = note.message.server_before_head
        if cause in _EXPLAINS.get(reason, ()):
            cause = reason
            detail = redaction.printable(f"{detail} ({redaction.detail(note.text, rules.urls)})")
    # A TLS error of the client's own handshake is not the server's.
    return _failed(cause, detail, "client" if by_client else "")


def _gave_up(situation: Situation, timeout: float) -> str:
    if situation.waited < timeout - TIMEOUT_TOLERANCE:
        return "client_disconnected"
    if situation.head:
        return "connection_read_timeout"
    return "connection_timeout" if situation.connecting else "http_response_timeout"


def _os_error(message: str) -> str:
    # Only where it is mitmproxy's own word: a server could send the same text.
    if not message.startswith(("[Errno ", "[WinError ", "Multiple exceptions: [")):
        return ""
    found = [
        vocabulary.OS_ERRORS.get((family, int(number)), "")
        for family, number in _OS_ERROR.findall(message[:4096])
    ]
    return next((cause for cause in _MOST_TELLING if cause in found), found[0] if found else "")


def status_of(tag: Mapping[str, Any]) -> str:
    """What a tag says in one line, for people: `404 Client error, Not found`."""
    if tag["outcome"] == "status" and "cause" not in tag and "close_code" not in tag:
        return f"{tag['status']} {tag['band']}, {tag['description']}"
    parts = []
    if "status" in tag:
        parts.append(f"{tag['status']} {tag['band']}, {tag['description']}")
    if "cause" in tag:
        parts.append(f"{tag['error_code']} {tag['error_name']}: {tag['cause']}")
    if not parts or tag["outcome"] == "unfinished":
        parts.append(tag["outcome"])
    if "close_code" in tag:
        parts.append(f"WebSocket close {tag['close_code']}")
    return ", ".join(parts)
