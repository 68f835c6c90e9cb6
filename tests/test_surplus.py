"""Bytes behind an answer: which are a part of it, and too many."""

from __future__ import annotations

import pytest
from flowtally.surplus import KEPT
from flowtally.surplus import WITHIN
from flowtally.surplus import LastAnswers
from mitmproxy import http
from mitmproxy.test import tflow

NOW = 1000.0

CASES = [
    ("GET", 200, True),
    ("GET", 206, True),
    ("POST", 404, True),
    ("GET", 204, False),
    ("GET", 304, False),
    ("HEAD", 200, False),
    ("GET", 103, False),
    ("GET", 101, False),
]


def answer(method: str = "GET", status: int = 200, ended: float | None = NOW) -> http.HTTPFlow:
    flow = tflow.tflow(resp=http.Response.make(status))
    assert flow.response
    flow.request.method, flow.response.timestamp_end = method, ended
    return flow


@pytest.mark.parametrize(("method", "status", "surplus"), CASES)
def test_behind_an_answer_that_is_known(method: str, status: int, surplus: bool) -> None:
    answers, flow = LastAnswers(), answer(method, status)
    answers.complete(flow)
    assert answers.is_surplus(None, flow.server_conn, NOW) == surplus


@pytest.mark.parametrize(("method", "status", "surplus"), CASES)
def test_behind_an_answer_whose_hook_is_to_come(method: str, status: int, surplus: bool) -> None:
    flow = answer(method, status, None)
    answers = LastAnswers(lambda client, server: flow if client == "client" and server else None)
    assert answers.is_surplus("client", flow.server_conn, NOW) == surplus
    assert not answers.is_surplus("another", flow.server_conn, NOW)


@pytest.mark.parametrize(("later", "surplus"), [(WITHIN, True), (WITHIN + 0.1, False)])
def test_a_server_that_speaks_later_speaks_of_itself(later: float, surplus: bool) -> None:
    answers, flow = LastAnswers(), answer()
    answers.complete(flow)
    assert answers.is_surplus(None, flow.server_conn, NOW + later) == surplus


def test_the_last_answer_of_the_connection_counts() -> None:
    answers, first, last, other = LastAnswers(), answer(), answer(status=204), answer()
    last.server_conn = first.server_conn
    for flow in (first, last, other):
        answers.complete(flow)
    assert not answers.is_surplus(None, first.server_conn, NOW)
    assert answers.is_surplus(None, other.server_conn, NOW)


def test_a_server_that_answered_nothing_greets() -> None:
    answers, flow = LastAnswers(), answer()
    assert not answers.is_surplus(None, flow.server_conn, NOW)
    flow.response = None
    answers.complete(flow)
    assert not answers.is_surplus(None, flow.server_conn, NOW)


def test_they_are_not_remembered_for_ever() -> None:
    answers, flows = LastAnswers(), [answer() for _ in range(KEPT + 1)]
    for flow in flows:
        answers.complete(flow)
    found = [answers.is_surplus(None, flow.server_conn, NOW) for flow in flows]
    assert found == [False] + [True] * KEPT
