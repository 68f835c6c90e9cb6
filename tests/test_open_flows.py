"""Open flows: whose they are, and which of them no hook will ever finish."""

from __future__ import annotations

from typing import Any

import pytest
from flowtally.open_flows import OpenFlows
from flowtally.open_flows import is_unanswered_query
from mitmproxy import flow as mflow
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
