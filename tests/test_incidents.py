"""Incidents: what belongs together, under the same name everywhere; what to look at first."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from flowtally.incidents import Incident
from flowtally.incidents import incidents
from flowtally.incidents import weight
from flowtally.rows import MOST_GROUPS
from flowtally.rows import OTHER
from flowtally.tally import Tally
from flowtally.tally import incident_id
from flowtally.tally import incident_of
from flowtally.times import timestamp
from flowtally.vocabulary import CAUSES
from flowtally.vocabulary import STATUS_TAGS
from flowtally.vocabulary import error_fields
from lab.cli import limited

Record = dict[str, Any]

START = 1_700_000_000


def flow(second: float = 0, host: str = "shop", path: str = "/", **fields: Any) -> Record:
    return {
        "type": "flow",
        "session": "0",
        "seq": 1,
        "time": timestamp(START + second),
        "flow": f"{host}{second}{path}",
        "kind": "http",
        "method": "GET",
        "url": f"http://{host}{path}",
        "host": host,
        "client": "127.0.0.1",
        **STATUS_TAGS[200],
    } | fields


def failed(second: float = 0, cause: str = "connection_refused", **fields: Any) -> Record:
    record = flow(second, **({"side": CAUSES[cause].side} | fields))
    for name in ("status", "band", "description"):
        del record[name]
    return record | {"outcome": "error", "cause": cause} | error_fields(cause)


def missing(second: float = 0, **fields: Any) -> Record:
    return flow(second, **STATUS_TAGS[404], **fields)


def found(*records: Record) -> list[Incident]:
    tally = Tally()
    for record in records:
        tally.add(record)
    return incidents(tally)


# --- what belongs together ---


@pytest.mark.parametrize(
    ("other", "together"),
    [
        ({}, True),
        ({"path": "/elsewhere", "second": 9, "client": "10.0.0.1"}, True),
        ({"host": "other"}, False),
        ({"port": 8080}, False),
        ({"port": 80}, True),
        ({"reason": "reset"}, False),
        ({"cause": "dns_error"}, False),
        ({"side": "network"}, False),
    ],
    ids=str,
)
def test_the_same_cause_reason_side_and_host_are_one(other: Record, together: bool) -> None:
    assert len(found(failed(), failed(**other))) == (1 if together else 2)
    ids = {incident_of(failed()), incident_of(failed(**other))}
    assert len(ids) == (1 if together else 2)


def test_one_of_several_error_codes_is_one() -> None:
    blocked = {"cause": "cors_blocked", "reason": "missing_allow_origin", "side": "server"}
    preflight = STATUS_TAGS[405] | blocked
    answer = STATUS_TAGS[200] | blocked | error_fields("cors_blocked")
    records = [flow(n, path=f"/{n}", **(preflight if n == 1 else answer)) for n in range(3)]
    (incident,) = found(*records)
    assert {incident_of(record) for record in records} == {incident.id}
    assert (incident.count, incident.code) == (3, -1)
    assert incident.first < incident.last
    assert [example["url"] for example in incident.examples] == ["http://shop/2", "http://shop/1"]


def test_a_status_code_takes_the_place_of_the_cause() -> None:
    (incident,) = found(missing(), missing(path="/b"))
    assert (incident.cause, incident.description, incident.band) == (
        "404",
        "Not found",
        "Client error",
    )
    assert (incident.code, incident.count, incident.side) == (-3, 2, "")


def test_an_id_depends_on_nothing_but_what_belongs_together() -> None:
    (incident,) = found(failed())
    assert incident.id == incident_of(failed(5)) == "36fa8c7c"
    assert incident.id == incident_id("connection_refused", "", "server", "shop")
    # What stands in one part cannot pass for another.
    assert incident_id("a", "b", "", "c") != incident_id("a", "", "b", "c")


def test_what_is_no_problem_is_none() -> None:
    cancelled = failed(cause="client_cancelled") | {"outcome": "cancelled"}
    cancelled.pop("error_code", None)
    collateral = failed(reason="collateral")
    login = missing() | STATUS_TAGS[401]
    answer = flow(1, answers=login["flow"], challenge=401)
    assert not found(flow(), cancelled, collateral, login, answer)
    assert incident_of(flow()) == incident_of(cancelled) == ""


def test_it_says_where_when_and_of_whom() -> None:
    (incident,) = found(
        failed(1, path="/a/1"),
        failed(3, path="/a/2", client="10.0.0.1"),
        failed(2, path="/b"),
        flow(0),
        flow(9),
    )
    assert (incident.first, incident.last) == (timestamp(START + 1), timestamp(START + 3))
    assert incident.points == {START + 1: 1, START + 2: 1, START + 3: 1}
    assert incident.seconds == 1
    assert incident.endpoints == [("GET http://shop/a/{id}", 2), ("GET http://shop/b", 1)]
    assert incident.clients == [("127.0.0.1", 2), ("10.0.0.1", 1)]
    assert not incident.more_endpoints
    assert not incident.more_clients
    assert (incident.count, incident.of, incident.share) == (3, 5, 0.6)
    assert [example["url"] for example in incident.examples] == [
        "http://shop/a/2",
        "http://shop/b",
    ]
    assert incident.advice == CAUSES["connection_refused"].advice
    assert "ECONNREFUSED" in incident.client_words


def test_endpoints_without_end_are_said_to_be_more() -> None:
    (incident,) = found(*(failed(path=f"/{'x' * n}") for n in range(30)))
    assert len(incident.endpoints) == 20
    assert incident.more_endpoints
    assert not incident.more_clients


def test_a_failure_without_a_flow_is_one_too() -> None:
    event = {
        "type": "event",
        "time": timestamp(START),
        "cause": "client_tls_rejected",
        "side": "client",
        "host": "shop",
        "client": "127.0.0.1",
        **error_fields("client_tls_rejected"),
    }
    (incident,) = found(event)
    assert (incident.count, incident.of, incident.stopped) == (1, 1, True)
    assert (incident.endpoints, incident.clients) == ([], [("127.0.0.1", 1)])


def test_where_the_record_names_no_side_it_is_the_usual_one() -> None:
    record = failed()
    del record["side"]
    assert [incident.side for incident in found(record)] == ["server"]


def test_an_endpoint_whose_challenges_were_all_answered_is_none() -> None:
    login = {"outcome": "status", **STATUS_TAGS[401]}
    asked = flow(1, path="/b", **login)
    answer = flow(2, path="/b", answers=asked["flow"], challenge=401)
    (incident,) = found(flow(0, path="/a", **login), asked, answer)
    assert incident.count == 1
    assert incident.endpoints == [("GET http://shop/a", 1)]
    assert not incident.more_endpoints


def test_where_the_table_of_endpoints_is_full_there_may_be_more() -> None:
    many = [failed(host=f"h{n}", path=f"/{'x' * m}") for n in range(30) for m in range(20)]
    last = {incident.host: incident for incident in found(*many)}["h29"]
    assert (last.endpoints, last.more_endpoints) == ([], True)


def test_what_a_full_table_holds_no_cause_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtally.tally.TABLES", limited(1, "incidents"))
    last = found(*(failed(reason=f"r{n}") for n in range(MOST_GROUPS + 2)))[-1]
    assert (last.code, last.error_name, last.cause, last.id) == (0, "", OTHER, "")
    assert last.count == 2


def test_of_merged_sessions_a_count_may_be_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtally.tally.TABLES", limited(1, "incidents"))
    one, other = Tally(), Tally()
    one.add(failed())
    for host in ("other", "shop"):
        other.add(failed(host=host))
    assert [incident.at_least for incident in incidents(one)] == [False]
    one.merge(other)
    assert {incident.host: incident.at_least for incident in incidents(one)}["shop"]


def test_a_share_is_at_most_all() -> None:
    (incident,) = found(failed())
    assert replace(incident, count=3, of=4).share == 0.75
    assert replace(incident, count=3, of=2).share == 1
    assert replace(incident, of=0).share == 1  # the host is not known any more


def test_what_was_narrowed_says_nothing_of_all_that_the_host_was_asked() -> None:
    tally = Tally()
    tally.add(failed())
    tally.only = "--incident 0"
    (incident,) = incidents(tally)
    assert (incident.count, incident.of, incident.stopped) == (1, 0, False)


@pytest.mark.parametrize("first", ["", "then", "2026-01-02T03:04:05"])
def test_a_session_of_which_nobody_knows_when_it_was_has_nothing_new(first: str) -> None:
    tally = Tally()
    for record in (flow(0), failed(60), flow(120)):
        tally.add(record)
    assert incidents(tally)[0].new
    tally.first = first
    assert not incidents(tally)[0].new


def test_hosts_without_end_are_counted_together_and_last() -> None:
    many = [failed(host=f"h{n}") for n in range(150)]
    last = found(*many)[-1]
    assert (last.host, last.id, last.count) == (OTHER, "", 50)


def test_sessions_merge_as_if_they_were_one() -> None:
    records = [failed(n, path=f"/{n % 3}", client=f"c{n % 2}") for n in range(100)]
    one, other, both = Tally(), Tally(), Tally()
    for number, record in enumerate(records):
        (one if number % 3 else other).add(record)
        both.add(record)
    one.merge(other)
    again = Tally()
    for row in json.loads(json.dumps(list(one.to_rows()))):
        again.take(row)
    again.first, again.last = one.first, one.last
    assert incidents(again) == incidents(one) == incidents(both)


# --- what to look at first ---

HEALTHY = [flow(n, host=host) for host in ("shop", "api") for n in (0, 119)]
"""Two hosts that answer, over two minutes."""


def order(*records: Record) -> list[str]:
    return [f"{each.cause} {each.host}" for each in found(*HEALTHY, *records)]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        # The more flows, the sooner, whatever the kind of failure.
        (
            [failed(1), *(missing(n, host="api") for n in range(5))],
            ["404 api", "connection_refused shop"],
        ),
        # A host of which nothing was right before one that fails now and then.
        (
            [
                *(failed(n, host="down") for n in (1, 2)),
                *(failed(n, cause="dns_error") for n in range(3)),
            ],
            ["connection_refused down", "dns_error shop"],
        ),
        # What began when all had been well before what was always so.
        (
            [*(failed(n, host="api") for n in (90, 91)), *(failed(n) for n in (1, 90, 110))],
            ["connection_refused api", "connection_refused shop"],
        ),
        # Server, proxy and network before the client.
        (
            [
                failed(1, cause="tls_protocol_error"),
                failed(1, cause="connection_refused", side="client", host="api"),
            ],
            ["tls_protocol_error shop", "connection_refused api"],
        ),
        # Also where HTTP says so, in a trickle that never ends: what is down, then what is broken.
        (
            [
                *(missing(n / 2) for n in range(150)),
                *(failed(n, host="down") for n in range(40)),
                *(flow(n, host="api", **STATUS_TAGS[500]) for n in range(1, 61)),
            ],
            ["connection_refused down", "500 api", "404 shop"],
        ),
        # Even if the client's is new.
        (
            [flow(1, **STATUS_TAGS[500]), missing(90, host="api")],
            ["500 shop", "404 api"],
        ),
        # Equals by when they began.
        (
            [failed(2), failed(1, host="api")],
            ["connection_refused api", "connection_refused shop"],
        ),
    ],
    ids=["count", "stopped", "new", "side", "trickle", "new client", "first"],
)
def test_the_order(records: list[Record], expected: list[str]) -> None:
    assert order(*records) == expected


@pytest.mark.parametrize(
    ("lasts", "begins", "new"),
    [(60, 21, True), (60, 20, False), (59.9, 50, False), (120, 60, True)],
)
def test_what_began_after_the_beginning_of_a_long_session_is_new(
    lasts: float, begins: float, new: bool
) -> None:
    (incident,) = found(flow(0), failed(begins), flow(lasts))
    assert incident.new is new


def test_how_much_each_thing_weighs() -> None:
    plain, stopped = found(flow(), failed())[0], found(failed())[0]
    assert (weight(plain), weight(stopped)) == (1, 2)
    assert weight(found(flow(), failed(), failed(70), flow(90))[0]) == 2
    assert weight(found(flow(), failed(70), flow(90))[0]) == 2
    assert weight(found(flow(), failed(side="client"))[0]) == 0.25
    assert weight(found(flow(), missing())[0]) == 0.25
    assert weight(found(flow(), failed(side="network"))[0]) == 1
    cancelled = failed(cause="client_cancelled") | {"outcome": "cancelled"}
    cancelled.pop("error_code", None)
    assert weight(found(cancelled, failed())[0]) == 2
