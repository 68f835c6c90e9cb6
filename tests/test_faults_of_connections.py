"""One fault of a connection is told once, and a connection used before tells the keep-alive race.

The live laboratory shows the same with real peers (test_blame.py); here stand the thresholds, the
bounds, and flows from files.
"""

from __future__ import annotations

from typing import Any

import pytest
from flowtally import faults
from flowtally.classify import Rules
from flowtally.defects import Defects
from flowtally.faults import Faults
from flowtally.tagger import RACE
from flowtally.tagger import Tagger
from flowtally.vocabulary import STATUS_TAGS
from flowtally.vocabulary import Tag
from mitmproxy import connection
from mitmproxy import http
from mitmproxy.test import tflow

RULES = Rules(STATUS_TAGS, 5.0)
BAD_HEADER = "HTTP/2 protocol error: Received header value surrounded by whitespace b' x'"


def tagger() -> Tagger:
    return Tagger(RULES, 20, Defects())


def stream(
    message: str,
    server: connection.Server,
    client: connection.Client | None = None,
    version: str = "HTTP/2.0",
    alpn: bytes | None = b"h2",
) -> http.HTTPFlow:
    """A flow that failed before its head came."""
    flow = tflow.tflow(err=True)
    assert flow.error
    flow.error.msg, flow.server_conn, flow.live = message, server, False
    flow.client_conn = client or flow.client_conn
    flow.request.http_version = version
    server.alpn = alpn
    return flow


INVALID_NAME = (
    "Received invalid header name: b'x y' from server, refusing to prevent request smuggling "
    "attacks. Disable the validate_inbound_headers option to skip this security check."
)


def reasons(flows: list[http.HTTPFlow], using: Tagger | None = None) -> list[str | None]:
    using = using or tagger()
    return [using.tag(flow).get("reason") for flow in flows]


def three(message: str, **more: Any) -> list[http.HTTPFlow]:
    server = tflow.tserver_conn()
    return [stream(message, server, **more) for _ in range(3)]


COLLATERAL = "collateral"


@pytest.mark.parametrize(
    ("message", "more", "found"),
    [
        (BAD_HEADER, {}, ["refused_by_mitmproxy", COLLATERAL, COLLATERAL]),
        ("peer closed connection", {}, ["closed", COLLATERAL, COLLATERAL]),
        ("H3_EXCESSIVE_LOAD", {"alpn": b"h3"}, ["excessive_load", COLLATERAL, COLLATERAL]),
        # a client of HTTP/1 has a connection to the server for itself, or one after another
        ("peer closed connection", {"version": "HTTP/1.1"}, ["closed", COLLATERAL, COLLATERAL]),
        ("Received HTTP/2 data frame x", {}, [None, COLLATERAL, COLLATERAL]),
        ("Received unexpected HTTP/2 response x", {}, [None, COLLATERAL, COLLATERAL]),
        # each by itself
        ("HTTP/1 protocol error: x", {"alpn": b"h2", "version": "HTTP/1.1"}, [None] * 3),
        ("Response body exceeds x", {}, [None] * 3),
        ("Request body exceeds x", {}, ["body_too_large"] * 3),
        (INVALID_NAME, {}, ["refused_by_mitmproxy"] * 3),
        ("stream reset by client (REFUSED_STREAM)", {}, ["refused_stream"] * 3),
        (
            "stream closed by client (H3_REQUEST_REJECTED)",
            {"alpn": b"h3"},
            ["request_rejected"] * 3,
        ),
        ("Connection killed.", {}, [None] * 3),
        # HTTP/1 has no streams
        ("server closed connection", {"alpn": b"http/1.1"}, ["closed"] * 3),
        ("server closed connection", {"alpn": None}, ["closed"] * 3),
        # nobody's fault
        ("Client disconnected.", {}, [None] * 3),
    ],
)
def test_streams_of_one_connection(
    message: str, more: dict[str, Any], found: list[str | None]
) -> None:
    assert reasons(three(message, **more)) == found


def test_connections_are_told_apart() -> None:
    flows = [stream(BAD_HEADER, tflow.tserver_conn()) for _ in range(2)]
    flows[1].server_conn.id = "another"
    assert COLLATERAL not in reasons(flows)


def test_whose_stream_it_was_is_known_while_a_proxy_runs() -> None:
    flows, using = three(BAD_HEADER), tagger()
    using.faults.broke(flows[0].server_conn.id, flows[2].id)
    assert reasons(flows, using) == [COLLATERAL, COLLATERAL, "refused_by_mitmproxy"]


def test_a_client_that_breaks_the_protocol_breaks_its_own_connection() -> None:
    client = tflow.tclient_conn()
    flows = []
    for number in range(2):
        server = tflow.tserver_conn()
        server.id = f"server {number}"
        flows.append(stream("HTTP/2 protocol error: x", server, client, alpn=b"http/1.1"))
    using = tagger()
    tags = [using.tag(flow) for flow in flows]
    assert [tag["cause"] for tag in tags] == ["http_request_error"] * 2
    assert [tag.get("reason") for tag in tags] == [None, COLLATERAL]


def test_a_client_of_http_1_has_one_exchange_at_a_time() -> None:
    client, flows = tflow.tclient_conn(), []
    for _ in range(2):
        flow = stream("invalid content-length header: x", tflow.tserver_conn(), client, "HTTP/1.1")
        flow.request.timestamp_end = None
        flow.server_conn.alpn = b"http/1.1"
        flows.append(flow)
    assert [tagger().tag(flow)["side"] for flow in flows] == ["client"] * 2
    assert reasons(flows) == [None] * 2


def test_connections_that_were_never_up_failed_each_by_itself() -> None:
    flows = three("[Errno 104] Connection reset by peer")
    flows[0].server_conn.timestamp_start = None
    assert reasons(flows) == ["reset"] * 3


def test_a_file_keeps_what_the_live_session_knew() -> None:
    flows, using = three(BAD_HEADER), tagger()
    using.faults.broke(flows[0].server_conn.id, flows[2].id)
    for flow in flows:
        flow.metadata["flowtally"] = using.tag(flow)
    # In another order, and without the first of them.
    assert reasons([flows[2], flows[1]]) == ["refused_by_mitmproxy", COLLATERAL]
    assert reasons([flows[1], flows[2]]) == [COLLATERAL, "refused_by_mitmproxy"]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(faults, "MAX_CLOSES", 2)
    monkeypatch.setattr(faults, "MAX_WORDS", 5)
    known = Faults()
    for number in range(4):
        known.broke(f"connection {number}", "flow")
        known.closed(f"w{number}", number)
    known.closed("", 1)
    known.closed("longer", 1)
    assert known.quic_closes == {"w2": 2, "w3": 3}
    assert len(known._culprits) == 2


# --- the keep-alive race ---


def closed_after(seconds: float, message: str = "server closed connection") -> http.HTTPFlow:
    flow = stream(message, tflow.tserver_conn(), version="HTTP/1.1", alpn=None)
    assert flow.error
    flow.request.timestamp_start = 100.0
    flow.request.timestamp_end = 101.0
    flow.error.timestamp = 101.0 + seconds
    return flow


def after_another(flow: http.HTTPFlow) -> Tag:
    using, before = tagger(), tflow.tflow(resp=True)
    before.server_conn = flow.server_conn
    using.connections.opened_by(before)
    return using.tag(flow)


@pytest.mark.parametrize(
    ("seconds", "reason"),
    [(0.0, "reused_connection"), (RACE, "reused_connection"), (1.01, "closed")],
)
def test_a_connection_that_closes_as_the_next_request_is_sent(seconds: float, reason: str) -> None:
    tag = after_another(closed_after(seconds))
    assert (tag["cause"], tag["reason"]) == ("connection_terminated", reason)


def test_it_is_no_race_on_a_new_connection() -> None:
    assert tagger().tag(closed_after(0.0))["reason"] == "closed"


def test_it_is_no_race_once_the_answer_began() -> None:
    flow = closed_after(0.0)
    flow.response = tflow.tflow(resp=True).response
    assert after_another(flow)["cause"] == "http_response_incomplete"
