"""A flow and its tag → the record that is tallied and written. Pure functions.

A record is a dictionary of plain data, as it stands in the session log
(`known/record.schema.json`); a field without a value is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mitmproxy import connection
from mitmproxy import dns
from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy import tcp
from mitmproxy import udp
from mitmproxy.net.dns import types as dns_types
from mitmproxy.tcp import TCPMessage
from mitmproxy.udp import UDPMessage
from mitmproxy.websocket import WebSocketMessage

from . import redaction
from .headers import EVENT_STREAM
from .headers import MAX_MEDIA_TYPE
from .headers import is_common
from .headers import media_type_of
from .redaction import Urls
from .times import milliseconds
from .times import timestamp
from .valid import check
from .vocabulary import DEFAULT_PORTS
from .vocabulary import Tag

Record = dict[str, Any]

MAX_ID = 64
"""Longest flow id that is kept, in characters: mitmproxy's are UUIDs, a file's may be anything."""
MAX_TARGET = 8192
"""How much of a request's target is looked at, in bytes: no more of it than MAX_URL is kept."""


def flow_record(
    flow: mflow.Flow,
    kind: str,
    tag: Tag,
    session: str,
    urls: Urls,
    pretty: bool = False,
    opened: bool | None = None,
) -> Record:
    """The `flow` record; its `seq` is given when it is written.

    `kind`: the record's field. `pretty`: name hosts after the Host header, as mitmproxy's option
    `showhost` does. `opened`: whether this flow's request opened the connection to its server, or
    another's had; None where that is not known.
    """
    record: Record = {
        "type": "flow",
        "session": session,
        "seq": 0,
        "time": "",
        "flow": redaction.printable(flow.id, MAX_ID),
        "kind": kind,
    }
    _client_fields(record, flow.client_conn.peername)
    if isinstance(flow, http.HTTPFlow):
        ended = _http_fields(record, flow, urls, pretty)
        if opened is not None:
            _connection_fields(record, flow.server_conn, opened)
    elif isinstance(flow, dns.DNSFlow):
        ended = _dns_fields(record, flow)
    else:
        ended = _stream_fields(record, flow)
    record["time"] = timestamp(ended)
    record.update(tag)
    if tag["outcome"] == "unfinished":
        record.pop("duration_ms", None)  # nobody knows it yet
    if flow.is_replay in ("request", "response"):  # another script may have put anything there
        record["replay"] = flow.is_replay
    return record


def bare_record(flow: mflow.Flow, kind: str, tag: Tag, session: str, broken: Tag) -> Record:
    """The `flow` record of a flow too broken for `flow_record`: that it was there, and its tag, or
    `broken` where that is none that can be read again."""
    created: Any = getattr(flow, "timestamp_created", 0)  # files may hold anything
    record: Record = {
        "type": "flow",
        "session": session,
        "seq": 0,
        "time": timestamp(created if isinstance(created, (int, float)) else 0),
        "flow": redaction.printable(str(flow.id), MAX_ID) or "-",
        "kind": kind,
    }
    complete = record | tag
    return record | broken if check(complete) else complete


def event_record(
    tag: Tag, session: str, time: float, client: Any, host: str, port: int | None
) -> Record:
    """The `event` record: a failure without a flow."""
    record: Record = {"type": "event", "session": session, "seq": 0, "time": timestamp(time)}
    _client_fields(record, client)
    if host:
        record["host"] = redaction.printable(host, redaction.MAX_HOST)
    _port(record, "port", port)
    record.update(tag)
    del record["outcome"]
    return record


def _client_fields(record: Record, peername: Any) -> None:
    """`client`, its address, and `client_port`."""
    if peername and len(peername) >= 2:  # of IPv6, a flow label and a scope follow
        record["client"] = redaction.printable(str(peername[0]), redaction.MAX_HOST)
        _port(record, "client_port", peername[1])


def _port(record: Record, name: str, port: Any) -> None:
    """Fill in a port, if it is one: readers refuse a record with another."""
    if type(port) is int and 0 <= port < 65536:
        record[name] = port


def _connection_fields(record: Record, server: connection.Server, opened: bool) -> None:
    """`connect_ms` and `tls_ms` of the request that opened the connection, `reused` of others."""
    if not opened:
        record["reused"] = True
        return
    connected, secured = server.timestamp_tcp_setup, server.timestamp_tls_setup
    if (spent := milliseconds(server.timestamp_start, connected)) is not None:
        record["connect_ms"] = spent
    if (spent := milliseconds(connected, secured)) is not None:
        record["tls_ms"] = spent


def url_of(scheme: str, host: str, port: int, target: str) -> str:
    """A URL from its parts, the scheme's default port left out."""
    if ":" in host and host[:1] != "[":
        host = f"[{host}]"
    if DEFAULT_PORTS.get(scheme) == port:
        return f"{scheme}://{host}{target}"
    return f"{scheme}://{host}:{port}{target}"


def _http_fields(record: Record, flow: http.HTTPFlow, urls: Urls, pretty: bool) -> float:
    """Fill in an HTTP flow; returns when it ended, Unix time."""
    request, response, error = flow.request, flow.response, flow.error
    data = request.data
    host = request.pretty_host if pretty else data.host
    if pretty and not _AUTHORITY.isdisjoint(host):
        host = data.host  # a Host header that is none
    record["method"] = _METHODS.get(data.method) or _method(data.method, urls)
    url = _url(data, host, urls)
    if not isinstance(host, str):
        raise TypeError(f"host is {host!r:.40}, not text")
    if len(url) > redaction.MAX_HOST or not url.isprintable():
        url = redaction.printable(url, redaction.MAX_URL)
        host = redaction.printable(host, redaction.MAX_HOST)
    record["url"] = url
    if host:
        record["host"] = host
        _port(record, "port", data.port)
    record["http_version"] = _VERSIONS.get(data.http_version) or _token(data.http_version)
    websocket = flow.websocket
    if websocket is not None:
        record["stream"] = True
        _message_bytes(record, websocket.messages)
    elif (size := _body_size(request, error)) is not None:
        record["request_bytes"] = size

    began, sent = data.timestamp_start, data.timestamp_end or data.timestamp_start
    ended = _end_of(flow, sent)
    # The answer to a CONNECT is mitmproxy's own word, in its own time.
    if response is not None and data.method != b"CONNECT":
        if websocket is None and (size := _body_size(response, error)) is not None:
            record["response_bytes"] = size
        media_type = media_type_of(response)
        if media_type and (urls != "origin" or is_common(media_type)):
            record["media_type"] = redaction.printable(media_type, MAX_MEDIA_TYPE)
        if media_type == EVENT_STREAM:
            record["stream"] = True
        # With a connection made for this request, the request was sent once that was up.
        server = flow.server_conn
        connected = server.timestamp_tls_setup or server.timestamp_tcp_setup
        if connected is not None and connected > sent:
            sent = connected
        if (wait := milliseconds(sent, response.data.timestamp_start)) is not None:
            record["wait_ms"] = wait
    if (duration := milliseconds(began, ended)) is not None:
        record["duration_ms"] = duration
    return ended


def _end_of(flow: http.HTTPFlow, sent: float) -> float:
    """When an HTTP flow ended. `sent`: when its request was complete."""
    websocket, response = flow.websocket, flow.response
    if flow.error:
        return flow.error.timestamp
    if websocket is not None and websocket.timestamp_end is not None:
        return websocket.timestamp_end
    if response is not None:
        return response.data.timestamp_end or response.data.timestamp_start or sent
    return sent


_AUTHORITY = frozenset("/?#@\\ ")
# What nearly every flow has, so that it costs a look-up.
_METHODS = {
    name.encode(): name for name in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
}
_SCHEMES = {b"http": "http", b"https": "https"}
_VERSIONS = {name.encode(): name for name in ("HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "HTTP/3")}


def _method(data: bytes, urls: Urls) -> str:
    return redaction.method(data.decode("ascii", "replace"), urls)


def _token(data: bytes) -> str:
    return redaction.printable(data.decode("ascii", "replace"), redaction.MAX_TOKEN)


def _url(data: http.RequestData, host: str, urls: Urls) -> str:
    if data.method == b"CONNECT":
        return f"{host}:{data.port}"
    target = "" if urls == "origin" else data.path[:MAX_TARGET].decode("utf-8", "replace")
    if target == "*":  # OPTIONS * asks about the server as a whole, RFC 9112 §3.2.4
        target = ""
    if urls == "redacted" and redaction.may_need_redaction(target):
        target = redaction.redact_target(target)
    return url_of(_SCHEMES.get(data.scheme) or _scheme(data.scheme, urls), host, data.port, target)


def _scheme(data: bytes, urls: Urls) -> str:
    return redaction.scheme(data.decode("ascii", "replace"), urls) if data else ""


def _body_size(message: http.Message, error: mflow.Error | None) -> int | None:
    """Size of a body in bytes; of a streamed one, which mitmproxy does not keep, its
    Content-Length once it is complete."""
    content = message.data.content
    if content is not None:
        return len(content)
    if error is not None:
        return None
    length = message.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 16 else None


def _message_bytes(
    record: Record, messages: Sequence[TCPMessage | UDPMessage | WebSocketMessage]
) -> None:
    total = sent = 0
    for message in messages:
        size = len(message.content)
        total += size
        if message.from_client:
            sent += size
    record["request_bytes"], record["response_bytes"] = sent, total - sent


def _dns_fields(record: Record, flow: dns.DNSFlow) -> float:
    request, response, server = flow.request, flow.response, flow.server_conn
    if request.questions:
        question = request.questions[0]
        record["method"] = dns_types.to_str(question.type)
        # The root has a name without a letter.
        record["host"] = redaction.printable(question.name, redaction.MAX_HOST) or "."
    if server.address:
        _port(record, "port", server.address[1])
    started = ended = request.timestamp or flow.timestamp_created
    if response is not None:
        ended = response.timestamp or started
        if (wait := milliseconds(started, ended)) is not None:
            record["wait_ms"] = wait
    elif flow.error:
        ended = flow.error.timestamp
    else:  # nobody answered, and the client left
        ended = flow.client_conn.timestamp_end or started
    if (duration := milliseconds(started, ended)) is not None:
        record["duration_ms"] = duration
    return ended


def _stream_fields(record: Record, flow: mflow.Flow) -> float:
    server = flow.server_conn
    if server.address:
        if host := redaction.printable(str(server.address[0]), redaction.MAX_HOST):
            record["host"] = host
        _port(record, "port", server.address[1])
    started = flow.timestamp_created
    ended = started
    if isinstance(flow, tcp.TCPFlow | udp.UDPFlow):
        _message_bytes(record, flow.messages)
        if flow.messages:
            ended = flow.messages[-1].timestamp
    if flow.error:
        ended = flow.error.timestamp
    if (duration := milliseconds(started, ended)) is not None:
        record["duration_ms"] = duration
    return ended
