"""A flow and its tag → the record that is tallied and written. Pure functions.

A record is a dictionary of plain data, as it stands in the session log
(`known/record.schema.json`); a field without a value is left out.
"""

from __future__ import annotations

from typing import Any

from mitmproxy import dns
from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy import tcp
from mitmproxy import udp
from mitmproxy.net.dns import types as dns_types

from . import redaction
from .redaction import Urls
from .times import milliseconds
from .times import timestamp
from .vocabulary import Tag

Record = dict[str, Any]

_DEFAULT_PORTS = {"http": 80, "https": 443}


def address(peer: Any) -> str:
    """A socket address as `host:port`, IPv6 in brackets."""
    if not peer:
        return ""
    host, port = str(peer[0]), peer[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def flow_record(
    flow: mflow.Flow, kind: str, tag: Tag, session: str, urls: Urls, pretty: bool = False
) -> Record:
    """The `flow` record.

    `pretty`: name hosts after the Host header, as mitmproxy's option `showhost` does.
    """
    record: Record = {
        "type": "flow",
        "session": session,
        "time": "",
        "flow": flow.id,
        "kind": kind,
    }
    if client := address(flow.client_conn.peername):
        record["client"] = client
    if isinstance(flow, http.HTTPFlow):
        ended = _http_fields(record, flow, urls, pretty)
    elif isinstance(flow, dns.DNSFlow):
        ended = _dns_fields(record, flow)
    else:
        ended = _stream_fields(record, flow)
    record["time"] = timestamp(ended)
    record.update(tag)
    if flow.is_replay:
        record["replay"] = flow.is_replay
    return record


def event_record(
    tag: Tag, session: str, time: float, client: Any, host: str, port: int | None
) -> Record:
    """The `event` record: a failure without a flow."""
    record: Record = {"type": "event", "session": session, "time": timestamp(time)}
    if peer := address(client):
        record["client"] = peer
    if host:
        record["host"] = redaction.printable(host, redaction.MAX_HOST)
    if port is not None:
        record["port"] = port
    record.update(tag)
    del record["outcome"]
    return record


def url_of(scheme: str, host: str, port: int, target: str) -> str:
    """A URL from its parts, the scheme's default port left out."""
    if ":" in host and host[:1] != "[":
        host = f"[{host}]"
    if _DEFAULT_PORTS.get(scheme) == port:
        return f"{scheme}://{host}{target}"
    return f"{scheme}://{host}:{port}{target}"


def _http_fields(record: Record, flow: http.HTTPFlow, urls: Urls, pretty: bool) -> float:
    request, response, server = flow.request, flow.response, flow.server_conn
    data = request.data
    host = request.pretty_host if pretty else data.host
    if not (host.isprintable() and len(host) <= redaction.MAX_HOST):
        host = redaction.printable(host, redaction.MAX_HOST)
    method = data.method.decode("ascii", "replace")
    if not (method.isprintable() and len(method) <= 32):
        method = redaction.printable(method, 32)
    record["method"] = method
    if data.method == b"CONNECT":
        record["url"] = f"{host}:{data.port}"
    else:
        target = data.path.decode("utf-8", "replace")
        if urls == "origin":
            target = ""
        elif urls == "redacted" and ("?" in target or "#" in target):
            target = redaction.redact_target(target)
        scheme = data.scheme.decode("ascii", "replace")
        url = url_of(scheme, host, data.port, "" if target == "*" else target)
        if not (url.isprintable() and len(url) <= redaction.MAX_URL):
            url = redaction.printable(url, redaction.MAX_URL)
        record["url"] = url
    if host:
        record["host"] = host
        record["port"] = data.port
    version = data.http_version.decode("ascii", "replace")
    record["http_version"] = version if len(version) <= 32 else redaction.printable(version, 32)

    ended = flow.error.timestamp if flow.error else request.timestamp_end
    if flow.websocket is not None:
        sent = received = 0
        for message in flow.websocket.messages:
            if message.from_client:
                sent += len(message.content)
            else:
                received += len(message.content)
        record["request_bytes"], record["response_bytes"] = sent, received
    else:
        if data.content is not None:
            record["request_bytes"] = len(data.content)
        elif request.stream and (size := _announced(request)) is not None:
            record["request_bytes"] = size
    if response is not None:
        if flow.websocket is not None:
            ended = flow.websocket.timestamp_end or response.timestamp_end or ended
        else:
            if response.data.content is not None:
                record["response_bytes"] = len(response.data.content)
            elif not flow.error and (size := _announced(response)) is not None:
                record["response_bytes"] = size
            if not flow.error:
                ended = response.timestamp_end or ended
        # With a connection made for this request, the request was sent once that was up.
        sent_at = max(
            request.timestamp_end or request.timestamp_start,
            server.timestamp_tls_setup or server.timestamp_tcp_setup or 0.0,
        )
        if (wait := milliseconds(sent_at, response.timestamp_start)) is not None:
            record["wait_ms"] = wait
    if (duration := milliseconds(request.timestamp_start, ended)) is not None:
        record["duration_ms"] = duration
    return float(request.timestamp_start if ended is None else ended)


def _announced(message: http.Message) -> int | None:
    """The size of a streamed body, which mitmproxy does not keep: its Content-Length."""
    length = message.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 16 else None


def _dns_fields(record: Record, flow: dns.DNSFlow) -> float:
    request, response, server = flow.request, flow.response, flow.server_conn
    if request.questions:
        question = request.questions[0]
        record["method"] = dns_types.to_str(question.type)
        record["host"] = redaction.printable(question.name, redaction.MAX_HOST)
    if server.address:
        record["port"] = server.address[1]
    started = request.timestamp
    ended = started
    if response is not None:
        ended = response.timestamp
        if (wait := milliseconds(started, ended)) is not None:
            record["wait_ms"] = wait
    elif flow.error:
        ended = flow.error.timestamp
    if (duration := milliseconds(started, ended)) is not None:
        record["duration_ms"] = duration
    return ended


def _stream_fields(record: Record, flow: mflow.Flow) -> float:
    server = flow.server_conn
    if server.address:
        record["host"] = redaction.printable(str(server.address[0]), redaction.MAX_HOST)
        record["port"] = server.address[1]
    started = flow.timestamp_created
    ended = started
    if isinstance(flow, tcp.TCPFlow | udp.UDPFlow):
        sent = received = 0
        for message in flow.messages:
            if message.from_client:
                sent += len(message.content)
            else:
                received += len(message.content)
        record["request_bytes"], record["response_bytes"] = sent, received
        if flow.messages:
            ended = flow.messages[-1].timestamp
    if flow.error:
        ended = flow.error.timestamp
    if (duration := milliseconds(started, ended)) is not None:
        record["duration_ms"] = duration
    return ended
