"""Which request opened a connection, and what its record says of that."""

from __future__ import annotations

import pytest
from flowtally import connections
from flowtally.classify import Rules
from flowtally.classify import classify
from flowtally.connections import Connections
from flowtally.record import flow_record
from flowtally.vocabulary import STATUS_TAGS
from mitmproxy import http
from mitmproxy.connection import Server
from mitmproxy.test import tflow


def request_over(server: Server) -> http.HTTPFlow:
    flow = tflow.tflow(resp=True)
    flow.server_conn = server
    return flow


def test_the_first_request_opened_the_connection() -> None:
    used = Connections()
    first, second = tflow.tserver_conn(), tflow.tserver_conn()
    flows = [request_over(server) for server in (first, first, second, first, second)]
    assert [used.opened_by(flow) for flow in flows] == [True, False, True, False, False]
    # As often as one asks: a flow that was open when a session ended is recorded twice.
    assert [used.opened_by(flow) for flow in flows[:3]] == [True, False, True]


def test_no_connection_was_made() -> None:
    server = tflow.tserver_conn()
    server.timestamp_start = None
    assert Connections().opened_by(request_over(server)) is None


def test_those_used_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 2)
    used = Connections()
    servers = [tflow.tserver_conn() for _ in range(3)]
    asked = [0, 1, 0, 2, 0, 1]
    found = [used.opened_by(request_over(servers[number])) for number in asked]
    # The second one was used least lately when the third came.
    assert found == [True, True, False, True, False, True]


@pytest.mark.parametrize(
    ("opened", "timestamps", "fields"),
    [
        (True, (1.0, 1.25, 1.75), {"connect_ms": 250.0, "tls_ms": 500.0}),
        (True, (1.0, 1.25, None), {"connect_ms": 250.0}),
        (True, (1.0, None, None), {}),
        (True, (1.0, None, 1.75), {}),
        (False, (1.0, 1.25, 1.75), {"reused": True}),
        (None, (None, None, None), {}),
    ],
)
def test_what_a_record_says(
    opened: bool | None,
    timestamps: tuple[float | None, ...],
    fields: dict[str, float | bool],
) -> None:
    flow = tflow.tflow(resp=True)
    server = flow.server_conn
    server.timestamp_start, server.timestamp_tcp_setup, server.timestamp_tls_setup = timestamps
    tag = classify(flow, Rules(STATUS_TAGS, 5.0))
    record = flow_record(flow, "http", tag, "00000000", "redacted", opened=opened)
    names = ("connect_ms", "tls_ms", "reused")
    assert {name: record[name] for name in names if name in record} == fields


@pytest.mark.parametrize(
    ("header", "media_type"),
    [
        (b"text/html", "text/html"),
        (b"Text/HTML; charset=utf-8", "text/html"),
        (b" application/json ;x", "application/json"),
        (b"", None),
        (b"; charset=utf-8", None),
        (b"text/\x1b[31m", "text/\ufffd[31m"),
        (b"x" * 200, "x" * 99 + "…"),
        (b"\xff", "\ufffd"),
    ],
)
def test_media_types(header: bytes, media_type: str | None) -> None:
    flow = tflow.tflow(resp=True)
    assert flow.response
    flow.response.headers = http.Headers(((b"X-Content-Typ", b"no"), (b"Content-TYPE", header)))
    tag = classify(flow, Rules(STATUS_TAGS, 5.0))
    record = flow_record(flow, "http", tag, "00000000", "redacted")
    assert record.get("media_type") == media_type
    peer = flow.client_conn.peername
    assert (record["client"], record["client_port"]) == (peer[0], peer[1])
