"""Open flows: whose they are, and which of them no hook will ever finish."""

from __future__ import annotations

from typing import Any

import pytest
from flowtally.open_flows import OpenFlows
from flowtally.open_flows import is_unanswered_query
from flowtally.totals import InFlight
from mitmproxy import connection
from mitmproxy import dns
from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy.test import tflow

LOADED, ENDED, GONE = 1000.0, 1900.0, 2000.0


def left_behind(flow: mflow.Flow, **changes: Any) -> mflow.Flow:
    """A live flow from after the addon was loaded, whose client left long ago."""
    flow.live = True
    flow.timestamp_created = 1500.0
    flow.client_conn.timestamp_end = 1600.0
    for name, value in changes.items():
        setattr(flow, name, value)
    return flow


def client_left(flow: mflow.Flow, time: float | None) -> mflow.Flow:
    flow.client_conn.timestamp_end = time
    return flow


def ended(flow: mflow.Flow, time: float | None) -> mflow.Flow:
    """A live flow whose client is there, and which has ended at `time`."""
    left_behind(client_left(flow, None))
    flow.client_conn.timestamp_end = None
    if flow.error:
        assert time is not None
        flow.error.timestamp = time
    elif isinstance(flow, http.HTTPFlow):
        assert flow.response
        flow.response.timestamp_end = time
        if flow.websocket:
            flow.websocket.timestamp_end = time
            flow.response.timestamp_end = 0.0
    elif isinstance(flow, dns.DNSFlow) and flow.response and time is not None:
        flow.response.timestamp = time
    return flow


KILLED = mflow.Error(mflow.Error.KILLED_MESSAGE)


@pytest.mark.parametrize(
    ("flow", "abandoned"),
    [
        # killed while a hook of it was running
        (left_behind(tflow.tflow(), error=KILLED), True),
        (left_behind(tflow.tflow(), live=False), True),
        (left_behind(tflow.tflow()), False),
        (left_behind(tflow.ttcpflow()), False),
        # a query without an answer
        (left_behind(tflow.tdnsflow(resp=False)), True),
        (left_behind(tflow.tdnsflow(resp=False), error=KILLED), True),
        # the client is there, or left only now
        (client_left(left_behind(tflow.tflow(), error=KILLED), None), False),
        (client_left(left_behind(tflow.tflow(), error=KILLED), GONE), True),
        (client_left(left_behind(tflow.tflow(), error=KILLED), GONE + 0.1), False),
        # the user looks at it
        (left_behind(tflow.tflow(), error=KILLED, intercepted=True), False),
        # it has ended, and its hook does not come
        (ended(tflow.tflow(resp=True), ENDED), True),
        (ended(tflow.tflow(resp=True), ENDED + 0.1), False),
        (ended(tflow.tflow(resp=True), None), False),
        (ended(tflow.tflow(resp=True, ws=True), ENDED), True),
        (ended(tflow.tflow(resp=True, ws=True), None), False),
        (ended(tflow.tdnsflow(resp=True), ENDED), True),
        (ended(tflow.ttcpflow(err=True), ENDED), True),
        (ended(tflow.ttcpflow(err=True), ENDED + 0.1), False),
        (ended(tflow.ttcpflow(), None), False),
        (left_behind(tflow.tflow(resp=True)), True),
        (left_behind(ended(tflow.tflow(resp=True), None)), False),
        # from a file
        (left_behind(tflow.tflow(), error=KILLED, timestamp_created=LOADED - 0.1), False),
        (left_behind(tflow.tflow(), error=KILLED, timestamp_created=LOADED), True),
    ],
)
def test_flows_that_no_hook_will_finish(flow: mflow.Flow, abandoned: bool) -> None:
    flows = OpenFlows({flow.id: flow})
    assert flows.abandoned(LOADED, GONE, ENDED) == ([flow] if abandoned else [])
    assert flow.id in flows


@pytest.mark.parametrize(
    ("flow", "unanswered"),
    [
        (tflow.tdnsflow(resp=False), True),
        (tflow.tdnsflow(resp=True), False),
        (tflow.tdnsflow(resp=False, err=True), False),
        (tflow.tflow(), False),
    ],
)
def test_queries_without_an_answer(flow: mflow.Flow, unanswered: bool) -> None:
    assert is_unanswered_query(flow) == unanswered


def test_whose_they_are() -> None:
    flows = OpenFlows()
    assert flows.clients() == set()
    for port in (1, 2, 2):
        flow = tflow.tflow()
        flow.client_conn.peername = ("10.0.0.1", port)
        flows[flow.id] = flow
    assert flows.clients() == {("10.0.0.1", 1), ("10.0.0.1", 2)}


def test_what_is_in_flight() -> None:
    flows = OpenFlows()
    assert flows.in_flight(GONE) == InFlight(0, 0.0)
    for age in (3, 12, 7):
        flow = tflow.tflow()
        flow.live, flow.request.timestamp_start = True, GONE - age
        flows[flow.id] = flow
    from_file = tflow.tflow()
    from_file.live, from_file.request.timestamp_start = False, 1.0
    flows[from_file.id] = from_file
    assert flows.in_flight(GONE) == InFlight(3, 12.0, "address:22", "waiting for the response")
    stream = left_behind(tflow.ttcpflow())
    stream.timestamp_created = GONE - 20
    flows[stream.id] = stream
    assert flows.in_flight(GONE)[:2] == (4, 12.0)  # a stream is open, and does not hang
    assert flows.in_flight(0.0)[:2] == (4, 0.0)  # a clock that was set back


DEAD = connection.Server(address=("host", 443))


def to(flow: mflow.Flow, **attributes: Any) -> mflow.Flow:
    """A flow of a client; `attributes` are those of its connection to the server."""
    flow.client_conn.peername = ("10.0.0.1", 1)
    flow.server_conn = connection.Server(**{"address": None, **attributes})
    return flow


def asked_for(host: str) -> mflow.Flow:
    flow = tflow.tflow()
    flow.request.host, flow.request.port = host, 443
    return flow


@pytest.mark.parametrize(
    ("flow", "waits"),
    [
        (to(asked_for("host")), True),
        (to(asked_for("other")), False),
        (to(asked_for("other"), address=("host", 443)), True),
        (to(asked_for("other"), via=("http", ("host", 443))), True),
        (to(asked_for("other"), id=DEAD.id), True),
        (to(tflow.tdnsflow(), address=("host", 443)), True),
        (to(tflow.tudpflow(), address=("host", 443)), True),
        (to(tflow.tudpflow(), address=("host", 80)), False),
        # it has ended
        (to(tflow.tflow(resp=True), id=DEAD.id), False),
        (to(tflow.tflow(err=True), id=DEAD.id), False),
    ],
)
def test_flows_that_wait_for_a_dead_connection(flow: mflow.Flow, waits: bool) -> None:
    flows = OpenFlows({flow.id: flow})
    assert flows.waiting_for(("10.0.0.1", 1), DEAD) == ([flow] if waits else [])
    assert flows.waiting_for(("10.0.0.1", 2), DEAD) == []


def test_the_flow_that_a_connection_answers() -> None:
    waiting, answered, other = (tflow.tflow(resp=resp) for resp in (False, True, True))
    flows = OpenFlows()
    for flow in (waiting, other, answered):
        to(flow, id=DEAD.id)
        flows[flow.id] = flow
    to(other, id="another")
    assert flows.answered_by(("10.0.0.1", 1), DEAD) is answered
    assert flows.answered_by(("10.0.0.1", 2), DEAD) is None
    assert OpenFlows().answered_by(("10.0.0.1", 1), DEAD) is None
