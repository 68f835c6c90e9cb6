"""The statistics: a fold that can be merged, saved and bounded without losing a count."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any
from unittest import mock

import pytest
from flowtally import counted_challenges
from flowtally import rows as rows_module
from flowtally import tally as module
from flowtally.rows import COUNTS
from flowtally.rows import EVENT
from flowtally.rows import MAX_EXAMPLE_URL
from flowtally.rows import OTHER
from flowtally.rows import Row
from flowtally.rows import Rows
from flowtally.tally import TABLES
from flowtally.tally import UNFINISHED
from flowtally.tally import Tally
from flowtally.tally import endpoint
from flowtally.tally import place
from flowtally.times import timestamp
from flowtally.valid import check
from flowtally.vocabulary import CAUSES
from flowtally.vocabulary import STATUS_TAGS
from flowtally.vocabulary import error_fields
from flowtally.vocabulary import status_tag
from hypothesis import given
from hypothesis import strategies as st
from lab.tallies import plain

Record = dict[str, Any]


def flow(number: int = 0, **fields: Any) -> Record:
    record: Record = {
        "type": "flow",
        "session": "0",
        "seq": number + 1,
        "time": timestamp(1_000_000 + number),
        "flow": str(number),
        "kind": "http",
        "method": "GET",
        "url": f"http://host/{number}",
        "host": "host",
        "media_type": "text/html",
        "request_bytes": 1,
        "response_bytes": 10,
        "wait_ms": 5.0,
        "duration_ms": 7.5,
        **STATUS_TAGS[200],
    }
    record.update(fields)
    return record


def failed(cause: str = "connection_refused", **fields: Any) -> Record:
    record = flow(**fields)
    for name in ("status", "band", "description"):
        del record[name]
    record |= {"outcome": "error", **error_fields(cause)}
    return record | {"cause": cause, "side": CAUSES[cause].side}


def cancelled(**fields: Any) -> Record:
    record = flow(cause="client_cancelled", side="client", **fields)
    for name in ("status", "band", "description"):
        del record[name]
    return record | {"outcome": "cancelled"}


def event(cause: str = "client_tls_rejected", **fields: Any) -> Record:
    return {
        "type": "event",
        "session": "0",
        "seq": 1,
        "time": timestamp(1_000_000),
        **error_fields(cause),
        "cause": cause,
        "side": CAUSES[cause].side,
        **fields,
    }


def fold(records: list[Record]) -> Tally:
    tally = Tally()
    for record in records:
        assert check(record) == ""
        tally.add(record)
    return tally


def loaded(tally: Tally) -> Tally:
    """Saved as JSON and read back."""
    again = Tally()
    for row in json.loads(json.dumps(list(tally.to_rows()))):
        again.take(row)
    again.dropped, again.first, again.last = tally.dropped, tally.first, tally.last
    return again


# Any status, any cause, any kind of flow, with any of the optional fields.
STATUS = st.builds(
    lambda code: flow(**status_tag(code)),
    st.one_of(st.sampled_from(list(STATUS_TAGS)), st.integers(-10, 10_000)),
)
BROKEN = [cause for cause, known in CAUSES.items() if known.error]
REASONS = st.sampled_from(["", "reset", "collateral", "out of the blue"])
FAILURE = st.builds(
    lambda cause, reason: failed(cause) | ({"reason": reason} if reason else {}),
    st.sampled_from(BROKEN),
    REASONS,
)
CANCELLED = st.builds(
    lambda kind, head: cancelled(kind=kind) | ({} if head is None else status_tag(head)),
    st.sampled_from(["http", "websocket"]),
    st.sampled_from([None]),
)
OVERLAY = st.builds(
    lambda status, cause: (
        flow(**status_tag(status), cause=cause, side="server")
        | error_fields("grpc_error" if status >= 400 else cause)
    ),
    st.sampled_from([200, 404]),
    st.sampled_from(["grpc_error", "cors_blocked"]),
)
CHALLENGE = st.builds(lambda code: flow(**STATUS_TAGS[code]), st.sampled_from([401, 407]))
ANSWER = st.builds(
    lambda status, code: flow(**STATUS_TAGS[status], answers="x", challenge=code),
    st.sampled_from([200, 401]),
    st.sampled_from([401, 407]),
)
STREAM = st.just(flow(stream=True))
PLAIN = st.builds(
    lambda outcome, kind: {
        name: value
        for name, value in flow(outcome=outcome, kind=kind).items()
        if name not in ("status", "band", "description", "url", "method", "media_type")
    },
    st.sampled_from(["ok", "unfinished"]),
    st.sampled_from(["dns", "tcp", "udp"]),
)
WEBSOCKET = st.builds(
    lambda code: flow(kind="websocket", close_code=code, **STATUS_TAGS[101]),
    st.integers(1000, 1004),
)
OPEN = st.builds(lambda host: flow(outcome="unfinished", host=host), st.sampled_from("abcd"))
REDIRECT = st.builds(
    lambda tag: tag | {"error_code": -5, "error_name": "TooManyRedirects", "side": "server"},
    st.just(flow(cause="redirect_loop", **STATUS_TAGS[302])),
)
EVENT_RECORD = st.builds(event, st.sampled_from(BROKEN))
RECORDS = st.lists(
    st.builds(
        lambda record, extra: record | extra,
        st.one_of(
            st.one_of(STATUS, FAILURE, PLAIN, WEBSOCKET, OPEN, REDIRECT, EVENT_RECORD),
            st.one_of(CANCELLED, OVERLAY, CHALLENGE, ANSWER, STREAM),
        ),
        st.fixed_dictionaries(
            {"time": st.integers(0, 2**31).map(timestamp)},
            optional={
                "host": st.sampled_from(["a", "b", "c"]),
                "port": st.sampled_from([80, 443, 8080]),
                "media_type": st.sampled_from(["text/css", "image/png"]),
                "flow": st.sampled_from(["x", "y", "<z>"]),
                "wait_ms": st.floats(0, 1e9),
                "duration_ms": st.floats(0, 1e9),
                "response_bytes": st.integers(0, 2**40),
                "background": st.sampled_from(["Chromium", "Windows"]),
            },
        ),
    )
)


def answered_challenges(flows: list[Record]) -> int:
    """How many challenges were counted before a flow answered them."""
    waiting: set[str] = set()
    found = 0
    for record in flows:
        if record.get("answers") in waiting:
            waiting.remove(record["answers"])
            found += 1
        if record.get("status") in (401, 407):
            waiting.add(record["flow"])
    return found


def assert_sums(tally: Tally, records: list[Record]) -> None:
    """Nothing is counted twice, nothing is left out, in whatever table it is counted."""
    apart = [record for record in records if "background" in record]
    rows = tally["background"].values()
    assert sum(row.count for row in rows) == tally.totals().background == len(apart)
    assert sum(row.events for row in rows) == sum(r["type"] == "event" for r in apart)
    records = [record for record in records if "background" not in record]
    flows = [record for record in records if record["type"] == "flow"]
    events = len(records) - len(flows)
    received = sum(record.get("response_bytes", 0) for record in flows)
    outcomes = [record["outcome"] for record in flows]
    totals = tally.totals()
    assert (tally.flows, totals.flows, totals.events) == (len(flows), len(flows), events)
    for name in ("hosts", "timeline"):
        assert sum(row.flows for row in tally[name].values()) == len(flows)
        assert sum(row.events for row in tally[name].values()) == events
        assert sum(row.response_bytes for row in tally[name].values()) == received
    for name in ("endpoints", "methods"):
        assert sum(row.flows for row in tally[name].values()) == len(flows)
        assert sum(row.response_bytes for row in tally[name].values()) == received
    complete = outcomes.count("status")
    assert sum(row.flows for row in tally["codes"].values()) == complete
    assert sum(row.flows for _, row, _ in tally.bands()) == complete
    assert totals.failures == outcomes.count("error")
    assert totals.cancelled == outcomes.count("cancelled")
    for outcome in ("ok", "unfinished", "error", "cancelled"):
        assert tally.sum("flows", outcome) == outcomes.count(outcome)
    assert tally.sum("events", EVENT) == events
    wrong = [record for record in records if "error_code" in record]
    no_problem = outcomes.count("unfinished") + outcomes.count("cancelled")
    answers = answered_challenges(flows)
    collateral = sum(
        record["outcome"] == "error" and record.get("reason") == "collateral" for record in flows
    )
    for name in ("causes", "incidents"):
        of = tally[name].items()
        if not any(key[0] == OTHER for key, _ in of):
            assert sum(row.count for key, row in of if key[0]) == len(wrong)
            assert sum(row.count for key, row in of if not key[0]) == no_problem
        assert sum(row.challenges for _, row in of) == answers
        assert sum(row.collateral for _, row in of) == collateral
    for name in ("hosts", "timeline", "endpoints"):
        assert sum(row.challenges for row in tally[name].values()) == answers
        assert sum(row.collateral for row in tally[name].values()) == collateral
        assert sum(row.cancelled for row in tally[name].values()) == totals.cancelled
    assert (totals.challenges, totals.collateral) == (answers, collateral)
    assert totals.unsuccessful == sum(
        record["type"] == "flow" and record["outcome"] == "status" for record in wrong
    )
    assert totals.problems == max(0, len(wrong) - answers - collateral)
    others = sum(record["kind"] != "http" for record in flows)
    assert sum(row.flows for row in tally["protocols"].values()) == others


@given(RECORDS)
def test_nothing_is_counted_twice_or_left_out(records: list[Record]) -> None:
    assert_sums(fold(records), records)


@given(RECORDS, st.data())
def test_a_merge_is_the_fold_of_both(records: list[Record], data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(records)), max_size=3).map(sorted))
    merged = Tally()
    for begin, end in pairwise([0, *cuts, len(records)]):
        merged.merge(fold(records[begin:end]))
    assert plain(merged) == plain(fold(records))


@given(RECORDS)
def test_saved_and_loaded(records: list[Record]) -> None:
    tally = fold(records)
    assert plain(loaded(tally)) == plain(tally)
    again = loaded(tally)
    for record in records:
        again.add(record)
    tally.merge(fold(records))
    assert plain(again) == plain(tally)


@given(RECORDS)
def test_the_fields_of_a_table_decide_where_a_record_is_counted(records: list[Record]) -> None:
    """Tables whose key looks at other fields must say so, or records are counted elsewhere."""
    for record in records:
        if record["type"] != "flow" or "background" in record:
            continue
        for table in TABLES:
            known = {name: record[name] for name in (*table.fields, "band") if name in record}
            assert table.key(known) == table.key(record)


@given(RECORDS)
def test_what_is_remembered_of_records_changes_nothing(records: list[Record]) -> None:
    with mock.patch.object(module, "MAX_REMEMBERED", 1):
        forgetful = fold(records)
    assert plain(forgetful) == plain(fold(records))


@given(RECORDS)
def test_rows_have_one_shape(records: list[Record]) -> None:
    for row in fold(records).to_rows():
        assert list(row)[: 2 + len(COUNTS)] == ["table", "key", *COUNTS]
        assert all(type(row[name]) is int for name in COUNTS)
        assert row.keys() - {"table", "key", *COUNTS} <= {
            "description",
            "wait",
            "duration",
            "first",
            "last",
            "seconds",
            "blocks",
            "points",
            "examples",
        }


def test_the_tables() -> None:
    tally = fold(
        [
            flow(1, port=8080),
            flow(2, **status_tag(404, "Not found"), port=443),
            failed(number=3, port=80),
            flow(4, **STATUS_TAGS[302], error_code=-5, error_name="x", cause="redirect_loop"),
            event(host="pinned", port=8443),
        ]
    )
    assert {key: row.flows for key, row in tally["codes"].items()} == {
        ("Success", "200"): 1,
        ("Client error", "404"): 1,
        ("Redirection", "302"): 1,
    }
    assert tally.description("404") == "Not found"
    assert [(name, list(codes)) for name, _, codes in tally.bands()] == [
        ("Success", ["200"]),
        ("Redirection", ["302"]),
        ("Client error", ["404"]),
    ]
    assert {key: row.count for key, row in tally["causes"].items()} == {
        ("-2", "connection_refused", ""): 1,
        ("-2", "client_tls_rejected", ""): 1,
        ("-3", "404", ""): 1,
        ("-5", "redirect_loop", ""): 1,
    }
    assert {key: row.count for key, row in tally["incidents"].items()} == {
        ("-2", "connection_refused", "", "server", "host"): 1,
        ("-2", "client_tls_rejected", "", "client", "pinned:8443"): 1,
        ("-3", "404", "", "", "host"): 1,
        ("-5", "redirect_loop", "", "", "host"): 1,
    }
    assert {key: (row.flows, row.events) for key, row in tally["hosts"].items()} == {
        ("host:8080",): (1, 0),
        ("host",): (3, 0),
        ("pinned:8443",): (0, 1),
    }
    host = tally["hosts"]["host",]
    assert (host.failures, host.unsuccessful, host.problems) == (1, 2, 3)
    total = tally.total()
    assert (total.request_bytes, total.response_bytes) == (4, 40)
    assert (total.wait.count, total.duration.count) == (4, 4)
    # 404, refused, redirect loop, event.
    assert tally.totals().problems == 4
    assert (tally.first, tally.last) == (timestamp(1_000_000), timestamp(1_000_004))


def test_protocols_and_unfinished() -> None:
    socket = flow(1, kind="websocket", close_code=1001, **STATUS_TAGS[101])
    abnormal = failed(number=2, kind="websocket", close_code=1006)
    still_open = flow(3, outcome="unfinished", host="slow", port=8000)
    tally = fold([socket, abnormal, still_open, flow(4, kind="connect"), flow(5)])
    assert {key: row.flows for key, row in tally["protocols"].items()} == {
        ("websocket", "1001"): 1,
        ("websocket", "1006"): 1,
        ("connect", ""): 1,
    }
    assert tally["protocols"]["websocket", "1006"].failures == 1
    assert tally["causes"][UNFINISHED].flows == 1
    assert [kept["flow"] for kept in tally["causes"][UNFINISHED].examples] == ["3"]
    assert tally["incidents"][*UNFINISHED, "", "slow:8000"].flows == 1
    assert tally.totals().problems == 1


# --- what is no problem ---


def problems_of(tally: Tally, name: str) -> dict[Any, int]:
    return {key: row.problems for key, row in tally[name].items() if row.problems}


def test_what_a_client_cancelled_is_no_failure() -> None:
    partly = cancelled(number=2, reason="left_upload") | {"status": 200}
    tally = fold([cancelled(number=1), partly, failed(number=3)])
    totals = tally.totals()
    assert (totals.flows, totals.failures, totals.cancelled, totals.problems) == (3, 1, 2, 1)
    assert totals.unsuccessful == 0
    assert {key: (row.cancelled, row.problems) for key, row in tally["causes"].items()} == {
        ("", "client_cancelled", ""): (1, 0),
        ("", "client_cancelled", "left_upload"): (1, 0),
        ("-2", "connection_refused", ""): (0, 1),
    }
    left = tally["incidents"]["", "client_cancelled", "left_upload", "client", "host"]
    assert left.cancelled == 1
    assert {name: row.flows for (_, name), row in tally["timeline"].items()} == {
        "cancelled": 1,
        "error": 1,
    } | {"cancelled": 1}
    assert not tally["codes"]


def test_a_cause_has_its_reasons() -> None:
    records = [failed(number=n, reason=reason) for n, reason in enumerate(("reset", "reset", "x"))]
    tally = fold([*records, failed(number=4), event("tls_alert_received", reason="reset")])
    assert problems_of(tally, "causes") == {
        ("-2", "connection_refused", "reset"): 2,
        ("-2", "connection_refused", "x"): 1,
        ("-2", "connection_refused", ""): 1,
        ("-2", "tls_alert_received", "reset"): 1,
    }
    kept = tally["causes"]["-2", "connection_refused", "x"].examples
    assert [example["reason"] for example in kept] == ["x"]


def test_a_complete_response_may_be_a_failure_all_the_same() -> None:
    ours = {"cause": "cors_blocked", "side": "server", **error_fields("cors_blocked")}
    both = status_tag(404) | {"cause": "grpc_error", "reason": "not_found"}
    tally = fold([flow(1, **ours), flow(2, **both), flow(3, **status_tag(500))])
    totals = tally.totals()
    assert (totals.failures, totals.unsuccessful, totals.problems) == (0, 3, 3)
    assert problems_of(tally, "causes") == {
        ("-1", "cors_blocked", ""): 1,
        ("-3", "grpc_error", "not_found"): 1,
        ("-3", "500", ""): 1,
    }
    assert {key: row.flows for key, row in tally["codes"].items()} == {
        ("Success", "200"): 1,
        ("Client error", "404"): 1,
        ("Server error", "500"): 1,
    }


def asked(number: int, code: int = 401, **fields: Any) -> Record:
    return flow(number, url="http://host/login", **STATUS_TAGS[code], **fields)


def test_a_challenge_that_was_answered_is_no_problem() -> None:
    login = {"url": "http://host/login", "answers": "1", "challenge": 401}
    tally = fold([asked(1), asked(2), flow(3, **login, media_type="text/plain")])
    totals = tally.totals()
    assert (totals.unsuccessful, totals.challenges, totals.problems) == (2, 1, 1)
    assert problems_of(tally, "causes") == {("-3", "401", ""): 1}
    assert problems_of(tally, "incidents") == {("-3", "401", "", "", "host"): 1}
    assert problems_of(tally, "hosts") == {("host",): 1}
    assert problems_of(tally, "endpoints") == {("GET http://host/login",): 1}
    # It was another response than the one that its answer got.
    counted = {key: (row.unsuccessful, row.challenges) for key, row in tally["codes"].items()}
    assert counted == {("Client error", "401"): (2, 1), ("Success", "200"): (0, 0)}
    assert tally["media_types"]["text/plain",].challenges == 0


def test_each_challenge_of_a_chain_is_taken_out_once() -> None:
    """As with NTLM: the answer to the first challenge is challenged again."""
    last = {"url": "http://host/login", "answers": "2", "challenge": 401}
    chain = [asked(1), asked(2, answers="1", challenge=401), flow(3, **last)]
    tally = fold([*chain, asked(4)])
    assert tally.totals().challenges == 2
    for name in ("causes", "incidents", "hosts", "endpoints", "codes"):
        assert list(problems_of(tally, name).values()) == [1], name


def test_an_answer_that_fails_is_a_problem() -> None:
    """Credentials were asked for and given; what came then is another matter."""
    broken = status_tag(404) | {"url": "http://host/login", "answers": "1", "challenge": 407}
    tally = fold([asked(1, 407), flow(2, **broken)])
    assert tally.totals().problems == 1
    assert problems_of(tally, "causes") == {("-3", "404", ""): 1}
    assert tally["causes"]["-3", "407", ""].challenges == 1


def test_the_challenge_of_a_connect_is_answered_where_it_was_counted() -> None:
    connect = flow(1, kind="connect", method="CONNECT", url="host:443", port=443)
    connect |= status_tag(407)
    inside = flow(2, url="https://host/", port=443, answers="1", challenge=407) | status_tag(500)
    tally = fold([connect, inside])
    problems = {key[0]: row.problems for key, row in tally["endpoints"].items()}
    assert problems == {"CONNECT host:443": 0, "GET https://host/": 1}
    assert {key: row.problems for key, row in tally["methods"].items()} == {
        ("connect", "CONNECT"): 0,
        ("http", "GET"): 1,
    }
    assert tally.totals().problems == 1


def test_an_answer_to_a_challenge_that_was_not_counted_hides_no_problem() -> None:
    """As where a filter left it out, or no log has it."""
    answer = flow(2, url="http://host/login", answers="1", challenge=401)
    tally = fold([answer, flow(3, **status_tag(404))])
    assert (tally.totals().challenges, tally.totals().problems) == (0, 1)


def test_an_answer_comes_once() -> None:
    login = {"url": "http://host/login", "answers": "1", "challenge": 401}
    tally = fold([asked(1), flow(2, **login), flow(3, **login), asked(4)])
    assert (tally.totals().challenges, tally.totals().problems) == (1, 1)


def test_as_many_challenges_are_remembered_as_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted_challenges, "MOST", 2)
    logins = [{"url": "http://host/login", "answers": str(n), "challenge": 401} for n in (1, 2, 3)]
    answers = [flow(number, **login) for number, login in enumerate(logins, 4)]
    tally = fold([asked(1), asked(2), asked(3), *answers])
    assert (tally.totals().challenges, tally.totals().problems) == (2, 1)


def test_what_another_stream_caused_is_a_failure_and_no_problem() -> None:
    collateral = [failed(number=n, reason="collateral") for n in (1, 2)]
    told = event("connection_terminated", reason="collateral")  # no stream of a connection
    named = flow(4, **status_tag(500), reason="collateral")  # nor is a response
    tally = fold([*collateral, failed(number=3), told, named])
    totals = tally.totals()
    assert (totals.failures, totals.collateral, totals.problems) == (3, 2, 3)
    row = tally["causes"]["-2", "connection_refused", "collateral"]
    assert (row.failures, row.collateral, row.problems) == (2, 2, 0)
    assert tally["hosts"]["host",].problems == 2


def test_background_traffic_is_counted_by_itself() -> None:
    own = [
        flow(1, background="Chromium"),
        failed(number=2, reason="collateral") | {"background": "Chromium"},
        cancelled(number=3, background="Chromium"),
        flow(4, background="Windows", **status_tag(404)),
        flow(5, background="Windows", outcome="unfinished"),
        event(background="Windows"),
    ]
    tally = fold(own)
    assert {name for name, rows in tally.tables.items() if rows} == {"background"}
    said = {
        key[0]: {name: getattr(row, name) for name in COUNTS if getattr(row, name)}
        for key, row in tally["background"].items()
    }
    assert said == {
        "Chromium": {
            "flows": 3,
            "failures": 1,
            "collateral": 1,
            "cancelled": 1,
            "request_bytes": 3,
            "response_bytes": 30,
        },
        "Windows": {
            "flows": 2,
            "unsuccessful": 1,
            "events": 1,
            "request_bytes": 2,
            "response_bytes": 20,
        },
    }
    totals = tally.totals()
    assert (totals.flows, totals.events, totals.problems, totals.background) == (0, 0, 0, 6)
    assert (totals.attempts, totals.first, totals.last) == (0, "", "")
    assert fold([flow(1)]).totals().background == 0
    sizeless = flow(background="Windows")
    del sizeless["request_bytes"], sizeless["response_bytes"]
    row = fold([sizeless])["background"]["Windows",]
    assert (row.flows, row.request_bytes, row.response_bytes) == (1, 0, 0)


@pytest.mark.parametrize(
    "record",
    [
        flow(stream=True),
        flow(kind="websocket", **STATUS_TAGS[101]),
        cancelled(),
        failed(kind="websocket"),
    ],
)
def test_some_times_do_not_say_how_fast_anything_is(record: Record) -> None:
    tally = fold([record | {"duration_ms": 1e9}, flow(1)])
    for name, rows in tally.tables.items():
        for row in rows.values():
            assert max(row.duration.points().get("max", 0), row.wait.points().get("max", 0)) < 10
            assert all(kept["flow"] == "1" for kept in row.examples if name == "slowest")
    assert (tally.total().duration.count, tally.total().wait.count) == (1, 1)
    assert tally.total().flows == 2


def test_times_are_of_everything_else() -> None:
    records = [flow(1), failed(number=2), flow(3, **status_tag(404)), flow(4, kind="dns")]
    assert fold(records).total().duration.count == 4


def test_the_totals() -> None:
    gap: Record = {"type": "gap", "session": "0", "seq": 9, "time": timestamp(5), "dropped": 4}
    background = flow(6, background="Chromium")
    answer = flow(5, answers="1", challenge=401)
    records = [asked(1), flow(2, outcome="unfinished"), flow(3, outcome="ok", kind="dns")]
    tally = fold([*records, cancelled(number=4), answer, background, gap, event(), failed()])
    assert tally.totals()._asdict() == {
        "flows": 6,
        "failures": 1,
        "unsuccessful": 1,
        "cancelled": 1,
        "events": 1,
        "challenges": 1,
        "collateral": 0,
        "problems": 2,
        "ok": 1,
        "unfinished": 1,
        "background": 1,
        "request_bytes": 6,
        "response_bytes": 60,
        "dropped": 4,
        "first": timestamp(1_000_000),
        "last": timestamp(1_000_005),
    }
    assert tally.totals().attempts == 7


def test_a_gap_is_no_background_traffic() -> None:
    tally = fold(
        [
            {
                "type": t,
                "session": "0",
                "seq": 1,
                "time": timestamp(1),
                "schema": 2,
                "dropped": 1,
                "background": "Chromium",
            }
            for t in ("gap", "session_start")
        ]
    )
    assert (tally.dropped, tally.totals().background) == (1, 0)


def test_the_latest_examples_are_kept() -> None:
    tally = fold([failed(number=number) for number in (9, 1, 8, 2, 7, 3, 6)])
    examples = tally["causes"]["-2", "connection_refused", ""].examples
    assert [kept["flow"] for kept in examples] == ["3", "6", "7", "8", "9"]


def test_examples_are_saved() -> None:
    tally = loaded(fold([failed(number=number, reason="reset") for number in range(7)]))
    examples = tally["causes"]["-2", "connection_refused", "reset"].examples
    assert [kept["flow"] for kept in examples] == ["2", "3", "4", "5", "6"]
    assert [kept["flow"] for kept in tally["slowest"][()].examples] == list("0123456")


def test_the_slowest_requests_are_kept() -> None:
    durations = [5.0, 900.5, 3.0, *range(100, 112), 900.5, 1.25]
    records = [flow(number, duration_ms=ms) for number, ms in enumerate(durations)]
    records += [flow(99, duration_ms=10**6, kind="connect"), failed(number=98, duration_ms=901)]
    slowest = fold(records)["slowest"][()].examples[::-1]
    assert [kept["duration_ms"] for kept in slowest] == [901, 900.5, 900.5, *range(111, 104, -1)]
    assert [kept["flow"] for kept in slowest[:3]] == ["98", "15", "1"]
    assert slowest[0]["cause"] == "connection_refused"
    assert slowest[1]["status"] == 200


def test_a_long_url_is_shortened_in_an_example() -> None:
    tally = fold([failed(url="http://h/" + "é" * 5000)])
    (kept,) = tally["causes"]["-2", "connection_refused", ""].examples
    assert len(kept["url"]) == MAX_EXAMPLE_URL
    assert kept["url"].endswith("é…")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"host": "h", "port": 80}, "h"),
        ({"host": "h", "port": 443}, "h"),
        ({"host": "h", "port": 8080}, "h:8080"),
        ({"host": "h"}, "h"),
        ({"port": 5}, ":5"),
        ({}, ""),
    ],
)
def test_places(record: Record, expected: str) -> None:
    assert place(record) == expected


# --- bounds ---


def tiny(monkeypatch: pytest.MonkeyPatch, limit: int = 2) -> None:
    """Tables that are full at once."""
    tables = [table._replace(limit=limit) for table in TABLES]
    monkeypatch.setattr(module, "TABLES", tuple(tables))


def test_full_tables_keep_the_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(monkeypatch, 3)
    monkeypatch.setattr(rows_module, "MAX_BUCKETS", 3)
    records = [
        flow(i * 1000, **status_tag(i), method=f"M{i}", host=f"h{i}", url=f"http://h{i}/p")
        for i in range(700)
    ]
    tally = fold(records)
    assert_sums(tally, records)
    for name in ("hosts", "endpoints", "methods"):
        assert len(tally[name]) == 4
        assert (*next(iter(tally[name]))[:-1], OTHER) in tally[name]
    # The first three codes of each band are named.
    assert len(tally["codes"]) == 5 * 4
    assert ("Client error", "402") in tally["codes"]
    assert tally["codes"]["Client error", OTHER].flows == 97
    assert len({start for start, _ in tally["timeline"]}) <= 3
    assert plain(loaded(tally)) == plain(tally)
    tally.merge(loaded(tally))
    assert_sums(tally, records * 2)


@given(RECORDS, RECORDS)
def test_merged_tables_that_are_full(first: list[Record], second: list[Record]) -> None:
    """Each row that a merge names is exact, or marked as one that may be larger."""
    # A session's logins are answered in it, or not at all.
    ids = ("flow", "answers")
    second = [r | {name: f"second {r[name]}" for name in ids if name in r} for r in second]
    with pytest.MonkeyPatch.context() as patch:
        tiny(patch)
        merged = fold(first)
        merged.merge(fold(second))
        assert_sums(merged, first + second)
    true = fold(first + second)  # whose tables have room for all
    for name, rows in merged.tables.items():
        for key, row in rows.items():
            if OTHER in key:
                continue
            exact = true[name][key]
            if key in rows.at_least:
                assert row.count <= exact.count
            else:
                assert [getattr(row, n) for n in COUNTS] == [getattr(exact, n) for n in COUNTS]


def test_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(monkeypatch)

    def hosts(names: str) -> Tally:
        return fold([flow(number, host=name) for number, name in enumerate(names)])

    def named(tally: Tally) -> dict[str, tuple[int, bool]]:
        rows = tally["hosts"]
        return {key[0]: (row.flows, key in rows.at_least) for key, row in rows.items()}

    merged = hosts("aab")
    merged.merge(hosts("bbcc"))  # both full, and both know all there is
    assert named(merged) == {"a": (2, False), "b": (3, False), OTHER: (2, False)}
    merged.merge(hosts("bcaaa"))  # has `a` under (other)
    assert named(merged) == {"a": (2, True), "b": (4, False), OTHER: (6, False)}
    # What is marked stays so in what it is merged into.
    whole = Tally()
    whole.merge(merged)
    assert named(whole) == named(merged)
    # A name that comes after something went under (other) may have been there.
    late = Tally()
    late.merge(hosts("abc"))
    late["hosts"].pop(("a",))
    late["hosts"]._sizes.clear()
    late.merge(hosts("d"))
    assert named(late)["d"] == (1, True)


def test_a_group_does_not_take_the_room_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(monkeypatch)
    records = [failed("dns_error", number=number, host=f"no{number}") for number in range(9)]
    tally = fold([*records, failed(host="shop"), *records])
    rows = tally["incidents"]
    assert rows["-2", "connection_refused", "", "server", "shop"].flows == 1
    assert rows["-2", "dns_error", "", "network", OTHER].flows == 14


def test_reasons_without_end_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GraphQL operation's name may be anything."""
    tiny(monkeypatch)
    tag = {"cause": "graphql_error", "side": "server", **error_fields("graphql_error")}
    records = [flow(n, **tag, reason=f"query{n}") for n in range(9)]
    causes = fold([*records, failed(), failed(reason="reset")])["causes"]
    assert {key: row.problems for key, row in causes.items()} == {
        ("-3", "graphql_error", "query0"): 1,
        ("-3", "graphql_error", "query1"): 1,
        ("-3", "graphql_error", OTHER): 7,
        ("-2", "connection_refused", ""): 1,
        ("-2", "connection_refused", "reset"): 1,
    }
    # What is hidden of a reason is none of it hidden of the cause.
    assert causes.hidden("-3", "graphql_error", "query9") == 7
    assert causes.hidden("-3", "graphql_error", "") == 7
    assert causes.hidden("-3", "graphql_error") == causes.hidden("-3") == 0
    assert causes.hidden("-2", "connection_refused", "closed") == 0
    causes.admit((OTHER, OTHER, OTHER)).flows += 5
    assert causes.hidden("-3", "graphql_error") == causes.hidden("-3") == 5
    assert causes.hidden("-3", "graphql_error", "query9") == 12


def test_groups_without_end_are_bounded_too() -> None:
    """Only a log that somebody else wrote has causes without end."""
    rows = Rows(TABLES[0]._replace(limit=2))
    for number in range(100):
        rows.admit((f"group {number}", "x")).flows += 1
    assert len(rows) == 2 * rows_module.MOST_GROUPS + 1
    assert rows[OTHER, OTHER].flows == 100 - 2 * rows_module.MOST_GROUPS


# --- the timeline ---


def test_times_are_read_in_utc_whatever_the_zone_of_the_machine() -> None:
    assert list(fold([flow(0)])["timeline"]) == [("1000000", "Success")]


@pytest.mark.parametrize("turn", [1, -1])
def test_each_record_is_counted_in_its_own_second(turn: int) -> None:
    times = {
        "1969-12-31T23:59:59.000Z": "-1",
        "1969-12-31T23:59:59.999Z": "-1",
        "1970-01-01T00:00:00.999Z": "0",
        "1970-01-01T00:00:00.000Z": "0",
        "1970-01-01T00:00:01.000Z": "1",
        "0001-01-01T00:00:00.000Z": "-62135596800",
        "9999-12-31T23:59:59.999Z": "253402300799",
    }
    for first, second in pairwise([*times][::turn]):
        tally = fold([flow(time=first), flow(time=second)])
        assert {start for start, _ in tally["timeline"]} == {times[first], times[second]}


def test_the_timeline_gets_coarser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "MAX_BUCKETS", 3)
    tally = fold([flow(number) for number in range(3)])
    assert tally["timeline"].seconds == 1  # type: ignore[attr-defined]
    tally.add(flow(3))
    assert tally["timeline"].seconds == 2  # type: ignore[attr-defined]
    assert {key: row.flows for key, row in tally["timeline"].items()} == {
        ("1000000", "Success"): 2,
        ("1000002", "Success"): 2,
    }
    tally.add(flow(100))
    tally.add(failed(number=100))
    tally.add(event(time=timestamp(1_000_101)))
    assert tally["timeline"]["1000100", EVENT].events == 1
    tally.add(flow(200))
    assert tally["timeline"].seconds == 10  # type: ignore[attr-defined]
    assert tally["timeline"]["1000000", "Success"].flows == 4
    coarse = fold([flow(7)])
    coarse.merge(tally)
    assert coarse["timeline"]["1000000", "Success"].flows == 5
    tally.merge(fold([flow(7)]))
    assert plain(coarse)[0] == plain(tally)[0]


# --- endpoints ---


@pytest.mark.parametrize(
    ("url", "folded"),
    [
        ("http://h/users/42", "GET http://h/users/{id}"),
        ("http://h/users/42/posts/7?x=1", "GET http://h/users/{id}/posts/{id}"),
        ("http://h/o/123e4567-e89b-12d3-a456-426614174000", "GET http://h/o/{id}"),
        ("http://h/c/5f3759df5f3759df5f37", "GET http://h/c/{id}"),
        ("http://h/t/dQw4w9WgXcQdQw4w9WgXcQ", "GET http://h/t/{id}"),
        ("http://h/v1/index.html", "GET http://h/v1/index.html"),
        ("http://h/a-rather-long-name-in-words", "GET http://h/a-rather-long-name-in-words"),
        ("http://h", "GET http://h"),
        ("http://h/", "GET http://h/"),
        ("http://h/a//b", "GET http://h/a//b"),
        ("http://12/7", "GET http://12/{id}"),
        ("h:443", "GET h:443"),
    ],
)
def test_endpoints_fold_ids(url: str, folded: str) -> None:
    assert endpoint(flow(url=url)) == folded


DIGITS = set("0123456789")
HEX = DIGITS | set("abcdefABCDEF-")
WORD = DIGITS | set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
SEGMENTS = st.one_of(
    st.text(st.sampled_from("0123456789"), max_size=25),
    st.text(st.sampled_from("0123456789abcdefF-"), min_size=14, max_size=40),
    st.text(st.sampled_from("0aZ_"), min_size=18, max_size=22),
    st.text(st.sampled_from("0aZ_-.:?é٣²\t"), max_size=25),
    st.sampled_from(
        ["", "http:", "h", "abcdefabcdefabcdef", "d-e-a-d-b-e-e-f-d-e-a-d", "?", "x" * 99]
    ),
)


def is_id(segment: str) -> bool:
    """A number; a UUID, a hash, an object id; random text such as a base64url token."""
    letters = set(segment)
    if not letters & DIGITS:
        return False
    return (
        letters <= DIGITS
        or (len(segment) >= 16 and letters <= HEX)
        or (len(segment) >= 20 and letters <= WORD)
    )


@given(st.lists(SEGMENTS, min_size=1).map("/".join))
def test_endpoints_are_folded_as_said(url: str) -> None:
    segments = url.partition("?")[0].split("/")
    parts = segments[:1]
    for number, (before, segment) in enumerate(pairwise(segments)):
        starts_host = before.endswith(":") or (number and not before)
        parts.append("{id}" if is_id(segment) and not starts_host else segment)
    folded = "/".join(parts)
    expected = folded if len(folded) <= 200 else folded[:199] + "…"
    assert endpoint(flow(url=url)) == f"GET {expected}"


def test_endpoints_without_a_url() -> None:
    assert endpoint({"kind": "tcp", "host": "h", "port": 5}) == "TCP h:5"
    assert endpoint({"kind": "dns", "method": "A", "host": "h"}) == "A h"


# --- what cannot be statistics ---


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.dictionaries(st.text(), x)))
def test_what_is_no_row_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="a row of statistics without a"):
        Tally().take(data)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"table": 5}, "without a table"),
        ({"key": "host"}, "without a key"),
        ({"key": [5]}, "without a key"),
        ({"key": []}, "no key of 0 parts"),
        ({"key": ["a", "b"]}, "no key of 2 parts"),
        ({"flows": -1}, "'flows' must be"),
        ({"flows": True}, "'flows' must be"),
        ({"events": "1"}, "'events' must be"),
        ({"response_bytes": 10**30}, "'response_bytes' must be"),
        ({"description": 5}, "'description' must be text"),
        ({"wait": 5}, "must be an object"),
        ({"duration": {"buckets": [0, -1], "sum_ms": 1, "max_ms": 1}}, "holds nothing"),
        ({"examples": [{"time": "x"}]}, "at most 0 examples"),
        ({"table": "codes", "key": ["nope", "200"]}, "cannot have the band 'nope'"),
        ({"table": "causes", "key": ["-7", "x", ""]}, "cannot have the error_code '-7'"),
        ({"table": "causes", "key": ["-2", "x", ""], "examples": {}}, "at most 5"),
        ({"table": "causes", "key": ["-2", "x", ""], "examples": [5]}, "an example that is none"),
        ({"table": "causes", "key": ["-2", "x", ""], "examples": [{"time": 5}]}, "is none"),
        (
            {"table": "causes", "key": ["-2", "x", ""], "examples": [{"time": "", "url": 5}]},
            "'url'",
        ),
        (
            {"table": "causes", "key": ["-2", "x", ""], "examples": [{"time": "", "port": ""}]},
            "'port'",
        ),
        ({"table": "slowest", "key": [], "examples": [{"time": ""}]}, "without 'duration_ms'"),
        ({"table": "slowest", "key": [], "examples": [{"time": "", "duration_ms": ""}]}, "in ms"),
        ({"table": "timeline", "key": ["7", "0", "ok"]}, "cannot have the seconds '7'"),
        ({"table": "timeline", "key": ["1", "x", "ok"]}, "cannot have a point at 'x'"),
        ({"table": "timeline", "key": ["1", "0", "nope"]}, "cannot have the series 'nope'"),
        ({"table": "methods", "key": ["gopher", "GET"]}, "cannot have the kind 'gopher'"),
    ],
)
def test_one_wrong_value_is_refused(changes: dict[str, Any], says: str) -> None:
    row = {"table": "hosts", "key": ["host"], **Row(TABLES[0]).to_data(), **changes}
    with pytest.raises(ValueError, match=says):
        Tally().take(row)


def test_a_row_comes_once() -> None:
    tally = Tally()
    row = {"table": "hosts", "key": ["host"], **Row(TABLES[0]).to_data()}
    tally.take(row)
    with pytest.raises(ValueError, match="twice"):
        tally.take(row)


def test_a_table_of_a_later_version_is_passed_over() -> None:
    tally = Tally()
    tally.take({"table": "countries", "key": ["AT"], "flows": 1})
    assert list(tally.to_rows()) == []
