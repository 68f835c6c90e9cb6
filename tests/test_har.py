"""HARs of every producer → records: what each writes, and what is told of it.

The entries are made by hand, in the manner of the program that each row names; HARs of a real
Chromium are held against the proxy in test_har_browser.py.
"""

from __future__ import annotations

import base64
import csv
import json
import re
import time
from typing import Any
from unittest import mock

import pytest
from flowtally.captures import har
from flowtally.captures.words import COMPLETE
from flowtally.captures.words import why_of
from flowtally.valid import check
from flowtally.vocabulary import CAUSES
from flowtally.vocabulary import CLIENTS
from flowtally.vocabulary import KNOWN
from flowtally.vocabulary import REASONS
from flowtally.vocabulary import TIMED_OUT
from flowtally.vocabulary import Why
from flowtally.vocabulary import advice
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from lab.hars import har_of
from lab.hars import told

Json = dict[str, Any]


def entry(status: Any = 200, url: str = "https://shop.example/cart", **more: Any) -> Json:
    """An entry as HAR 1.2 has it. `more` goes into the response where its name is one of those of
    responses, into the request where it begins with `request_`, else into the entry."""
    made: Json = {
        "startedDateTime": "2026-01-02T03:04:05.000Z",
        "time": 100,
        "request": {"method": "GET", "url": url, "httpVersion": "HTTP/1.1", "headers": []},
        "response": {"status": status, "headers": [], "content": {}},
        "cache": {},
        "timings": {"blocked": -1, "dns": -1, "connect": -1, "send": 1, "wait": 60, "receive": 9},
    }
    for name, value in more.items():
        if name.startswith("request_"):
            made["request"][name.removeprefix("request_")] = value
        elif name in _RESPONSE:
            made["response"][name] = value
        else:
            made[name] = value
    return made


_RESPONSE = frozenset(
    (
        *("_error", "_failureText", "_charlesStatus", "_transferSize", "statusText", "headers"),
        *("content", "bodySize", "httpVersion", "redirectURL", "comment"),
    )
)


def flow_of(*entries: Any, creator: str = "WebInspector") -> Json:
    """The record of the last of these entries."""
    records, lacking = told(har_of(*entries, creator=creator))
    assert not lacking.skipped, lacking.problems
    return records[-1]


def pairs(**headers: str) -> list[Json]:
    return [{"name": name.replace("_", "-"), "value": value} for name, value in headers.items()]


REFUSED = {"outcome": "error", "error_code": -2, "cause": "connection_refused", "side": "server"}
CANCELLED = {"outcome": "cancelled", "cause": "client_cancelled", "side": "client"}
NOBODY_KNOWS = {"outcome": "error", "error_code": -1, "cause": "unknown", "reason": "no_status"}
BLOCKED = {"cause": "http_request_denied", "reason": "blocked_by_client", "side": "client"}

PRODUCERS: list[tuple[str, Json, Json]] = [
    (
        "WebInspector",  # Chrome, Edge and Opera
        entry(
            httpVersion="h3",
            connection="17",
            timings={"blocked": 2, "dns": 3, "connect": 40, "ssl": 30, "wait": 60.25, "send": 0},
            bodySize=-1,
            content={"size": 500, "mimeType": "text/html"},
            time=120.5,
            pageref="page_1",
        ),
        {
            "status": 200,
            "http_version": "HTTP/3",
            "wait_ms": 60.25,
            "duration_ms": 120.5,
            "connect_ms": 10,
            "tls_ms": 30,
            "response_bytes": 500,
            "media_type": "text/html",
            "page": "page_1",
            "reused": None,
            "request_bytes": None,
            "answered_by": None,
        },
    ),
    ("WebInspector", entry(0, _error="net::ERR_CONNECTION_REFUSED"), REFUSED),
    ("WebInspector", entry(0, _error="net::ERR_ABORTED"), CANCELLED),
    ("WebInspector", entry(0, _error="net::ERR_BLOCKED_BY_CLIENT"), BLOCKED),
    ("WebInspector", entry(0, _error=None), NOBODY_KNOWS),
    (
        "WebInspector",
        entry(200, _error="net::ERR_CONTENT_LENGTH_MISMATCH"),
        {"outcome": "error", "status": 200, "cause": "http_response_incomplete"},
    ),
    (
        "WebInspector",
        entry(200, _fromCache="disk", bodySize=0, content={"size": 99}),
        {"status": 200, "wait_ms": None, "duration_ms": None, "response_bytes": None},
    ),
    (
        "Firefox",
        entry(
            httpVersion="HTTP/2",
            startedDateTime="2026-01-02T05:04:05.000+02:00",
            bodySize=321,
            connection="443",
            timings={"blocked": 0, "dns": 0, "connect": 0, "ssl": 0, "wait": 5, "receive": 0},
        ),
        {
            "http_version": "HTTP/2.0",
            "response_bytes": 321,
            "connect_ms": None,
            "time": "2026-01-02T03:04:05.100Z",
            "wait_ms": 5,
            "reused": None,
        },
    ),
    ("Firefox", entry(0, statusText="", httpVersion="", time=0, timings={}), NOBODY_KNOWS),
    (
        "Firefox",
        entry(0, time=0),
        {"duration_ms": None, "wait_ms": None, "http_version": "HTTP/1.1"},
    ),
    (
        "WebKit Web Inspector",  # Safari
        entry(httpVersion="HTTP/2", _fetchType="Network Load", bodySize=7, _serverPort=443),
        {"status": 200, "http_version": "HTTP/2.0", "response_bytes": 7},
    ),
    (
        "WebKit Web Inspector",
        entry(0, _error="Could not connect to the server."),
        {**REFUSED, "detail": "Could not connect to the server."},
    ),
    ("WebKit Web Inspector", entry(0, _error="cancelled"), CANCELLED),
    (
        "WebKit Web Inspector",
        entry(_fetchType="Memory Cache"),
        {"status": 200, "wait_ms": None, "duration_ms": None},
    ),
    (
        "WebPagetest",
        entry(12007, url="http://nowhere.example/", time=0),
        {"outcome": "error", "cause": "dns_error", "status": None, "detail": "status 12007"},
    ),
    ("WebPagetest", entry(-1), NOBODY_KNOWS),
    ("WebPagetest", entry("200", time="1500"), {"status": 200, "duration_ms": 70}),
    (
        "BrowserMob Proxy",
        entry(0, httpVersion="unknown", _error="Unable to resolve host: nowhere.example"),
        {"cause": "dns_error", "outcome": "error"},
    ),
    (
        "BrowserMob Proxy",
        entry(0, _error="Response timed out"),
        {"cause": "http_response_timeout", "error_code": -6},
    ),
    ("BrowserMob Proxy", entry(-999), NOBODY_KNOWS),
    (
        "Charles Proxy",
        entry(
            _charlesStatus="COMPLETE",
            statusText=None,
            headers=[{"name": ":status", "value": "200"}],
        ),
        {"outcome": "status", "status": 200, "cause": None},
    ),
    (
        "Charles Proxy",
        entry(0, _charlesStatus="EXCEPTION"),
        {"outcome": "error", "cause": "unknown", "detail": "Charles: EXCEPTION"},
    ),
    (
        "Fiddler",
        entry(
            504,
            startedDateTime="2026-01-02T05:04:05.1234567+02:00",
            timings={"dns": -1, "connect": -1, "ssl": -1, "send": 0, "wait": 21, "receive": 0},
            headers=pairs(Content_Length="7"),
            bodySize=-1,
        ),
        {"status": 504, "error_code": -3, "wait_ms": 21, "response_bytes": 7},
    ),
    (
        "Proxyman",
        entry(headers=pairs(Content_Encoding="gzip"), bodySize=0, content={"size": 900}),
        {"status": 200, "response_bytes": None},
    ),
    (
        "Insomnia REST Client",
        entry(0, statusText="ERR_NAME_NOT_RESOLVED", time=12),
        {"cause": "dns_error", "duration_ms": 12},
    ),
    (
        "Insomnia REST Client",
        entry(headers=[["Content-Type", "application/json"]]),
        {"media_type": "application/json"},
    ),
    (
        "Playwright",
        entry(-1, _failureText="net::ERR_NAME_NOT_RESOLVED", time=-1, timings={"wait": -1}),
        {"cause": "dns_error", "duration_ms": None, "status": None},
    ),
    (
        "Playwright",  # with Firefox
        entry(-1, _failureText="NS_ERROR_NET_RESET"),
        {"cause": "connection_terminated", "reason": "reset"},
    ),
    (
        "Playwright",  # with WebKit
        entry(-1, _failureText="Server returned nothing (no headers, no data)"),
        {"cause": "connection_terminated", "reason": "closed"},
    ),
    (
        "Playwright",
        entry(
            101,
            url="wss://chat.example/socket",
            _resourceType="websocket",
            _webSocketMessages=[
                {"type": "send", "time": 1, "opcode": 1, "data": "héllo"},
                {"type": "receive", "time": 2, "opcode": 2, "data": "AAEC"},
            ],
        ),
        {
            "kind": "websocket",
            "status": 101,
            "stream": True,
            "close_code": None,
            "url": "https://chat.example/socket",
            "request_bytes": 6,
            "response_bytes": 3,
        },
    ),
    (
        "Puppeteer",
        entry(0, _failureText="net::ERR_CERT_DATE_INVALID"),
        {"cause": "tls_certificate_error", "error_code": -2},
    ),
    (
        "Postman",
        entry(0, _error="connect ECONNREFUSED 127.0.0.1:8080"),
        REFUSED,
    ),
    (
        "mitmproxy",
        entry(0, _error="[Errno 111] Connect call failed ('127.0.0.1', 35055)"),
        REFUSED,
    ),
    (
        "Firefox",
        entry(time=247, timings={"blocked": 89, "connect": 32, "ssl": 66, "wait": 60, "dns": 0}),
        {"connect_ms": 32, "tls_ms": 66},
    ),
    (
        "Charles Proxy",
        entry(time=107, timings={"dns": 43, "connect": 37, "ssl": 26, "wait": 24, "receive": 3}),
        {"connect_ms": 11, "tls_ms": 26},
    ),
    (
        "mitmproxy",
        entry(time=57, timings={"connect": 30, "ssl": 20, "send": 1, "wait": 5, "receive": 1}),
        {"connect_ms": 30, "tls_ms": 20, "wait_ms": 5, "answered_by": None},
    ),
    (
        "mitmproxy",
        entry(0, _error="Client disconnected."),
        CANCELLED,
    ),
]


@pytest.mark.parametrize(
    ("creator", "made", "expected"),
    PRODUCERS,
    ids=[f"{creator} {number}" for number, (creator, *_) in enumerate(PRODUCERS)],
)
def test_what_each_producer_writes(creator: str, made: Json, expected: Json) -> None:
    record = flow_of(made, creator=creator)
    assert {name: record.get(name) for name in expected} == expected


@pytest.mark.parametrize("part", ["{}", "[]", "0", '""', '{"a":[1]}'])
def test_an_entry_of_countless_parts_is_not_made_into_objects(part: str) -> None:
    usual = json.dumps(entry())
    many = f'{usual[:-1]}, "x": [{",".join([part] * 10_000)}]}}'
    content = har_of().replace(b"[]", f"[{usual}, {many}, {usual}]".encode())
    with mock.patch.object(har, "MAX_TOKENS", 10_000):
        records, lacking = told(content)
    assert lacking.problems == ["har, entry 2: the entry has more than 10000 parts; skipped"]
    assert [record["type"] for record in records] == ["flow", "flow", "event"]


def test_a_long_body_is_one_part() -> None:
    text = json.dumps([{"a": 1}] * 10_000)
    with mock.patch.object(har, "MAX_TOKENS", 10_000):
        assert flow_of(entry(content={"text": text}))["status"] == 200


SAYS_A_SECRET = [
    "request with Bearer s3cr3t failed",
    "cannot connect: token=s3cr3t",
    "net::ERR_FAILED at https://shop.example/?key=s3cr3t",
    "net::ERR_FAILED=s3cr3t",
    "page.goto: net::ERR_FAILED key=s3cr3t",
    "apikey=s3cr3t: net::ERR_FAILED",
    "Unable to resolve host: password=s3cr3t",
    "ERR_FAILED (secret=s3cr3t)",
]


@pytest.mark.parametrize("words", SAYS_A_SECRET)
@pytest.mark.parametrize("status", [0, 200])
def test_the_words_for_a_failure_tell_no_secret(words: str, status: int) -> None:
    for field in ("_error", "_failureText", "_errorText", "_charlesStatus"):
        record = flow_of(entry(status, **{field: words}))
        assert "s3cr3t" not in json.dumps(record)
    assert "s3cr3t" not in json.dumps(flow_of(entry(0, statusText=f"net::{words}")))
    message = {"opcode": -1, "data": words}
    assert "s3cr3t" not in json.dumps(flow_of(entry(101, _webSocketMessages=[message])))


@pytest.mark.parametrize(
    "words",
    [
        *("net::ERR_CONNECTION_REFUSED", "net::ERR_HTTP2_INADEQUATE_TRANSPORT_SECURITY"),
        *("NS_ERROR_NET_RESET", "MOZILLA_PKIX_ERROR_SELF_SIGNED_CERT"),
        *("page.goto: net::ERR_FAILED at https://shop.example/", "Charles: EXCEPTION"),
        *("connect ECONNREFUSED 127.0.0.1:8080", "Unable to resolve host: nowhere.example"),
    ],
)
def test_known_words_are_told_whole(words: str) -> None:
    assert flow_of(entry(0, _error=words))["detail"] == words


# --- rules that a table of producers cannot show ---


def test_a_connection_is_reused_where_another_entry_had_it() -> None:
    first = entry(connection="7", timings={"connect": 30, "ssl": 20, "wait": 5})
    assert flow_of(first).get("reused") is None
    assert flow_of(first, entry(connection="7"))["reused"] is True
    assert flow_of(first, first).get("reused") is None, "another connection of that name was made"
    other = entry(connection="7", url="https://other.example/")
    assert flow_of(first, other).get("reused") is None, "a port is no name of a connection"


@pytest.mark.parametrize(
    ("made", "outcome"),
    [
        (entry(204), "status"),
        (entry(404), "status"),
        (entry(200, headers=pairs(Content_Length="0")), "status"),
        (entry(200, headers=pairs(Content_Length="9"), content={"size": 9}), "status"),
        (entry(200, request_method="HEAD", headers=pairs(Content_Length="9")), "status"),
        (entry(200, headers=pairs(Content_Length="9"), content={"size": 3}), "cancelled"),
        (entry(200), "cancelled"),
    ],
)
def test_an_answer_that_is_there_was_not_cancelled(made: Json, outcome: str) -> None:
    made["response"]["_error"] = "net::ERR_ABORTED"
    assert flow_of(made)["outcome"] == outcome


ORIGIN = pairs(Origin="https://page.example", Sec_Fetch_Mode="cors", Sec_Fetch_Site="cross-site")


def test_cors_is_claimed_only_where_the_headers_show_it() -> None:
    failed: Json = {"_error": "net::ERR_FAILED"}
    shown = flow_of(entry(200, request_headers=ORIGIN, **failed))
    assert (shown["cause"], shown["reason"]) == ("cors_blocked", "missing_allow_origin")
    assert shown["outcome"] == "status"
    hidden = flow_of(entry(0, request_headers=ORIGIN, **failed))
    assert (hidden["cause"], hidden["reason"]) == ("unknown", "not_told")
    allowed = pairs(Access_Control_Allow_Origin="*")
    permitted = flow_of(entry(200, request_headers=ORIGIN, headers=allowed, **failed))
    assert (permitted["outcome"], permitted["cause"]) == ("error", "unknown")


def _redirects(count: int, last: Json) -> list[Json]:
    chain = [entry(302, headers=pairs(Location="/cart")) for _ in range(count)]
    return [*chain, last]


@pytest.mark.parametrize("status", [-1, 302])
def test_a_chain_of_redirects_is_one_problem(status: int) -> None:
    words: Json = {"_error": "net::ERR_TOO_MANY_REDIRECTS", "headers": pairs(Location="/cart")}
    records, _ = told(har_of(*_redirects(20, entry(status, **words))))
    problems = [r for r in records if "error_code" in r and r.get("reason") != "collateral"]
    assert [r["cause"] for r in problems] == ["redirect_loop"]
    assert problems[0]["flow"] == "entry-20"
    # Of a chain that began before the file, the client's word is all there is.
    alone = flow_of(entry(status, **words))
    assert (alone["cause"], alone["error_code"]) == ("too_many_redirects", -5)


def test_a_challenge_that_is_answered_is_told() -> None:
    credentials = entry(200, request_headers=pairs(Authorization="Basic eDp5"))
    record = flow_of(entry(401), credentials)
    assert (record["answers"], record["challenge"]) == ("entry-1", 401)


def test_graphql_and_grpc_are_looked_into() -> None:
    query = {"mimeType": "application/json", "text": '{"query": "query Cart { items }"}'}
    answer = base64.b64encode(b'{"errors": [{"message": "no"}]}').decode()
    content = {"mimeType": "application/json", "text": answer, "encoding": "base64"}
    posted: Json = {"request_method": "POST", "request_postData": query}
    packed = pairs(Content_Encoding="gzip", Content_Type="application/json")
    record = flow_of(entry(200, **posted, content=content, headers=packed))
    assert (record["cause"], record["reason"]) == ("graphql_error", "Cart")
    headers = pairs(Content_Type="application/grpc", grpc_status="14")
    record = flow_of(entry(200, request_method="POST", headers=headers))
    assert (record["cause"], record["reason"]) == ("grpc_error", "unavailable")
    silent = flow_of(entry(200, request_method="POST", headers=headers[:1]))
    assert silent.get("cause") is None, "a HAR knows no trailers"


@pytest.mark.parametrize(
    ("messages", "status", "expected"),
    [
        ([{"opcode": 8, "type": "receive", "data": "A/M="}], 101, ("websocket_error", 1011)),
        ([{"opcode": 8, "type": "send", "data": "A+g="}], 101, (None, 1000)),
        ([{"opcode": 8, "type": "send", "data": ""}], 101, (None, 1005)),
        ([{"opcode": 8, "type": "receive", "code": 1008}], 101, ("websocket_error", 1008)),
        ([{"opcode": -1, "data": "Invalid frame header"}], 101, ("websocket_error", None)),
        (
            [
                {
                    "opcode": -1,
                    "data": "Error in connection establishment: net::ERR_CONNECTION_REFUSED",
                }
            ],
            0,
            ("connection_refused", None),
        ),
    ],
)
def test_how_a_websocket_ended(messages: list[Json], status: int, expected: Any) -> None:
    socket: Json = {"_resourceType": "websocket", "_webSocketMessages": messages}
    record = flow_of(entry(status, url="ws://chat.example/", **socket))
    assert (record.get("cause"), record.get("close_code")) == expected


def test_a_refused_handshake_has_its_status() -> None:
    words = "Error during WebSocket handshake: Unexpected response code: 403"
    record = flow_of(entry(-1, _failureText=words, _resourceType="websocket"))
    assert (record["outcome"], record["status"], record["kind"]) == ("status", 403, "http")


def test_what_asks_no_server_is_left_out_and_said() -> None:
    urls = ("data:text/plain,hello", "blob:https://a.example/1", "chrome-extension://x/y.js")
    records, lacking = told(har_of(*(entry(url=url) for url in urls), entry()))
    assert [record["flow"] for record in records] == ["entry-4"]
    assert lacking.notes == ["har: 3 URLs left out for which no server is asked, such as data:"]


def test_a_tunnel_that_was_opened_is_left_out() -> None:
    opened = entry(200, url="https://shop.example:443/", request_method="CONNECT")
    refused = entry(407, url="shop.example:443", request_method="CONNECT")
    records, _ = told(har_of(opened, refused))
    assert [(r["kind"], r["status"], r["url"]) for r in records] == [
        ("connect", 407, "shop.example:443")
    ]


def test_secrets_stay_out() -> None:
    url = "https://user:s3cret@shop.example/p;v=s3cret?token=s3cret#s3cret"
    made = entry(0, url=url, _error="failed to load https://shop.example/?k=s3cret", pageref=url)
    made["request"]["headers"] = pairs(Cookie="s3cret", Authorization="s3cret")
    assert "s3cret" not in json.dumps(flow_of(made))


# --- what is wrong with an entry ---

WRONG: list[tuple[Any, str]] = [
    (None, "the entry is no object"),
    ("text {}", "the entry is no object"),
    ([1], "the entry is a list, not an object"),
    ({}, "request is missing or null, not an object"),
    ({**entry(), "request": "none"}, "request is text, not an object"),
    ({**entry(), "response": 5}, "response is a number, not an object"),
    (entry(url=""), "request.url is empty"),
    (entry(url="/cart"), "request.url is no URL with a host"),
    (entry(url="http://[half/"), "request.url is no URL"),
    (entry(url="http://a.example:99999/"), "request.url is no URL"),
    (entry(request_url=5), "request.url is a number, not text"),
    (entry(request_method=None), "request.method is missing or null, not text"),
    (entry("OK"), "response.status is text, not a whole number"),
    (entry(200.5), "response.status is a number, not a whole number"),
    (entry(True), "response.status is true or false, not a whole number"),
    (entry(10**9), "response.status is too large a number"),
    (entry(startedDateTime=None), "startedDateTime is missing or null, not text"),
    (entry(startedDateTime="yesterday"), "startedDateTime is no date in ISO 8601"),
    (entry(startedDateTime=1735787045000), "startedDateTime is a number, not text"),
]


@pytest.mark.parametrize(("made", "reason"), WRONG, ids=str)
def test_a_bad_entry_is_named_and_the_rest_is_read(made: Any, reason: str) -> None:
    records, lacking = told(har_of(entry(), made, entry(404)))
    assert lacking.problems == [f"har, entry 2: {reason}; skipped"]
    assert [record.get("status") for record in records if record["type"] == "flow"] == [200, 404]
    event = records[-1]
    assert (event["cause"], event["reason"]) == ("proxy_internal_error", "capture_incomplete")
    assert event["detail"] == "1 entry could not be read"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (entry(time=None), {"duration_ms": 70, "wait_ms": 60}),
        (entry(time=-1), {"duration_ms": 70}),
        (entry(time=None, timings=None), {"duration_ms": None, "wait_ms": None}),
        (entry(timings=[]), {"duration_ms": 100, "wait_ms": None}),
        (entry(timings={"wait": "60"}), {"wait_ms": None}),
        (entry(time=float("nan")), {"duration_ms": 70}),
        (entry(startedDateTime="1951-01-02T03:04:05Z"), {"time": "1970-01-01T00:00:00.000Z"}),
        (entry(headers="none", content="none"), {"status": 200, "media_type": None}),
        (entry(content={"encoding": "base64", "text": "%%%"}), {"status": 200}),
        (entry(bodySize="12"), {"response_bytes": None}),
        (entry(None), {"cause": "unknown", "reason": "no_status"}),
        ({**entry(), "response": None}, {"outcome": "unfinished"}),
        (entry(799), {"status": 799, "band": "Server error", "error_code": -3}),
        (entry(url="ftp://a.example/x"), {"url": "ftp://a.example:0/x", "status": 200}),
        (entry(pageref=5), {"page": "5"}),
    ],
)
def test_what_is_not_known_is_not_known(made: Json, expected: Json) -> None:
    record = flow_of(made)
    assert {name: record.get(name) for name in expected} == expected


def test_a_time_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XYZ-5:30")
        time.tzset()
        record = flow_of(entry(startedDateTime="2026-01-02 03:04:05"))
    time.tzset()
    assert record["time"] == "2026-01-02T03:04:05.100Z"


def test_of_a_key_that_stands_twice_the_last_counts() -> None:
    text = har_of(entry(200)).replace(b'"status": 200', b'"status": 200, "status": 404')
    records, _ = told(text)
    assert [record["status"] for record in records] == [404]


def test_bytes_that_are_no_utf8_cost_nothing_else() -> None:
    text = har_of(entry(content={"text": "x"})).replace(b'"x"', b'"\xff\xfe"')
    records, lacking = told(text)
    assert (len(records), lacking.told()) == (1, [])


def test_one_cause_has_all_that_is_wrong_with_json() -> None:
    text = har_of(entry(), entry(), entry()).replace(b'"time": 100', b'"time": 1e, 5', 2)
    records, lacking = told(text)
    assert lacking.problems == [
        f"har, entry {number}: the entry is not JSON; skipped" for number in (1, 2)
    ]
    deep = b"[" * 200_000 + b"]" * 200_000
    text = har_of(entry(), entry()).replace(b'"cache": {}', b'"cache": ' + deep, 1)
    records, lacking = told(text)
    assert lacking.problems == ["har, entry 1: the entry is nested too deeply; skipped"]
    assert len(records) == 2


def test_a_har_breaks_off_where_too_many_brackets_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtally.captures.scan.MAX_DEPTH", 1000)
    monkeypatch.setattr("flowtally.captures.har.MAX_DEPTH", 1000)
    deep = b"[" * 2000 + b"]" * 2000
    text = har_of(entry(), entry(), entry()).replace(b'"cache": {}', b'"cache": ' + deep, 2)
    text = text.replace(b'"cache": ' + deep, b'"cache": {}', 1)
    records, lacking = told(text)
    assert lacking.told() == [
        "har: breaks off within entry 2, where more than 1000 brackets are open;"
        " what came before is read"
    ]
    assert lacking.breaks == 1
    assert len(records) == 2  # with the one that says so


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 2)
    | st.floats()
    | st.text()
    | st.sampled_from(["", "-1", "http://a.example/", "net::ERR_FAILED", "2026-01-02T03:04:05Z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FULL = entry(
    200,
    url="https://a.example/x?y=1",
    request_method="POST",
    request_headers=ORIGIN,
    request_bodySize=3,
    request_postData={"mimeType": "application/json", "text": '{"query": "{a}"}'},
    headers=pairs(Content_Type="application/json"),
    bodySize=5,
    content={"size": 5, "mimeType": "application/json", "text": "e30=", "encoding": "base64"},
    redirectURL="/x",
    httpVersion="h2",
    _error=None,
    _failureText=None,
    _charlesStatus="COMPLETE",
    statusText="",
    _webSocketMessages=[{"type": "send", "opcode": 8, "data": "A+g=", "code": None}],
    _resourceType="websocket",
    _fromCache=None,
    connection="1",
    pageref="page_1",
    serverIPAddress="::1",
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a value something stands."""
    found = [path] if path else []
    if isinstance(value, dict):
        items: Any = value.items()
    else:
        items = enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += _places(inner, (*path, key))
    return found


@given(
    place=st.sampled_from(_places(FULL)), value=json_values, status=st.sampled_from([0, 101, 302])
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_anything_in_any_field_is_a_record_or_a_named_skip(
    place: tuple[Any, ...], value: Any, status: int
) -> None:
    made = json.loads(json.dumps(FULL))
    made["response"]["status"] = status
    inner = made
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    records, lacking = told(har_of(entry(), made, entry(404)))
    assert lacking.skipped == len(lacking.problems) <= 1
    assert all(problem.startswith("har, entry 2: ") for problem in lacking.problems)
    assert all("cannot be told" not in said for said in lacking.told()), lacking.told()
    # What asks no server, and a tunnel that was opened, are left out.
    assert 2 <= len(records) <= 3
    assert not any(map(check, records))


# --- the words ---


def rows() -> list[dict[str, str]]:
    with (KNOWN / "network_errors.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def names_in(file: str) -> set[str]:
    with (KNOWN / file).open(encoding="utf-8", newline="") as lines:
        return {row["name"].lower().removeprefix("h3_") for row in csv.DictReader(lines)}


def test_every_word_leads_to_a_cause_that_there_is() -> None:
    # Names that a protocol registered need no row of their own.
    registered = {
        "tls_alert_received": names_in("tls_alerts.csv"),
        "http_protocol_error": names_in("protocol_codes.csv"),
        "websocket_error": names_in("close_codes.csv"),
    }
    for row in rows():
        assert row["match"] in ("is", "starts"), row
        for cell in (row["before_head"], row["after_head"]):
            cause, _, reason = cell.partition(":")
            assert cause in (*CAUSES, TIMED_OUT, COMPLETE), row
            known = Why(cause, reason) in REASONS or reason in registered.get(cause, ())
            assert not reason or known, row
        assert row["before_head"] != COMPLETE, row


def test_what_is_advised_to_whoever_has_a_har_needs_no_mitmproxy() -> None:
    """What of mitmproxy's may be set stands in brackets."""
    whys = {Why("unknown", "no_status"), Why("redirect_loop"), Why("cors_blocked")}
    for row in rows():
        for cell in (row["before_head"], row["after_head"]):
            cause, _, reason = cell.partition(":")
            whys |= {Why(cause, reason)} if cause in CAUSES else set()
    for why in whys - {Why("unknown")}:
        assert "mitmproxy" not in re.sub(r"\([^)]*\)", "", advice(why)), why


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("net::ERR_NAME_NOT_RESOLVED", "dns_error"),
        ("ERR_NAME_NOT_RESOLVED", "dns_error"),
        ("net::ERR_NAME_NOT_RESOLVED at https://a.example/", "dns_error"),
        ("Error in connection establishment: net::ERR_NAME_NOT_RESOLVED", "dns_error"),
        ("net::ERR_CERT_OF_TOMORROW", "tls_certificate_error"),
        ("net::ERR_TIMED_OUT", "http_response_timeout"),
        ("NS_ERROR_UNKNOWN_HOST", "dns_error"),
        ("getaddrinfo ENOTFOUND nowhere.example", "dns_error"),
    ],
)
def test_how_words_are_recognized(words: str, cause: str) -> None:
    why = why_of(words, has_head=False)
    assert why is not None
    assert why.cause == cause


@pytest.mark.parametrize("words", ["", "net::ERR_OF_TOMORROW", "my ERR_FAILED", "x" * 10_000])
def test_words_that_nobody_knows(words: str) -> None:
    assert why_of(words, has_head=False) is None


# What Chromium says of a fault, the proxy sees better: several causes have one word.
_COARSE = {
    "client_tls_rejected": "tls_certificate_error",
    "connection_read_timeout": "http_response_timeout",
    "destination_not_found": "invalid_url",
    "destination_unavailable": "connection_terminated",
    "redirect_loop": "too_many_redirects",
    "tls_alert_received": "tls_protocol_error",
}


def test_what_clients_say_is_understood() -> None:
    """clients.csv is the way from the cause to the words."""
    with (KNOWN / "clients.csv").open(encoding="utf-8", newline="") as file:
        said = [row for row in csv.DictReader(file) if row["client"] == "chromium"]
    for row in said:
        for word in row["says"].split(" or "):
            if not word.startswith("ERR_"):
                continue
            why = why_of(CLIENTS["chromium"].format(word), has_head=False)
            assert why is not None, row
            assert why.cause in (row["cause"], _COARSE.get(row["cause"])), row
