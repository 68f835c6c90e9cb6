"""Complete responses that are failures all the same, as tables: one row, one case.

Real peers are in test_live_overlays.py, and what a browser says in test_live_cors.py.
"""

from __future__ import annotations

import gzip
import json
import struct
import tracemalloc
import zlib
from base64 import b64encode
from typing import Any

import brotli  # type: ignore[import-untyped, unused-ignore]
import pytest
from flowtally import bodies
from flowtally import grpc_status
from flowtally import overlays
from flowtally import vocabulary
from flowtally.classify import Rules
from flowtally.classify import classify
from flowtally.defects import Defects
from flowtally.redaction import Urls
from flowtally.tagger import Tagger
from flowtally.vocabulary import Tag
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import http
from mitmproxy.net import encoding
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import tflow

RULES = Rules(vocabulary.STATUS_TAGS, 5.0)
OVERLAYS = (
    *("grpc_error", "graphql_error", "websocket_error", "cors_blocked", "interim_response"),
    *("http_upgrade_failed", "http_response_transfer_coding"),
)

Headers = dict[str, str]


def fields_of(headers: Headers) -> http.Headers:
    return http.Headers([(name.encode(), value.encode()) for name, value in headers.items()])


def answered(
    status: int = 200,
    headers: Headers | None = None,
    body: bytes | None = b"",
    *,
    trailers: Headers | None = None,
    version: str = "HTTP/2.0",
    request: Headers | None = None,
    method: str = "GET",
    sent: bytes | None = b"",
    url: str = "https://api.example/graphql",
) -> http.HTTPFlow:
    flow = tflow.tflow(resp=True)
    flow.request = http.Request.make(method, url)
    flow.request.headers = fields_of({"Host": flow.request.host_header or "", **(request or {})})
    flow.request.data.content = sent
    response = http.Response.make(status)
    response.headers = fields_of(headers or {})
    response.data.content = body
    response.http_version = version
    if trailers is not None:
        response.trailers = fields_of(trailers)
    flow.response = response
    return flow


def explained(flow: http.HTTPFlow, urls: Urls = "redacted") -> Tag:
    return overlays.explain(flow, classify(flow, RULES), urls)


def why(tag: Tag) -> tuple[Any, ...]:
    return tag.get("cause"), tag.get("reason"), tag.get("side"), tag.get("error_code")


# --- gRPC ---

GRPC = {"content-type": "application/grpc"}
WEB = {"content-type": "application/grpc-web+proto"}
TEXT = {"content-type": "application/grpc-web-text+proto"}


def call(headers: Headers, **more: Any) -> http.HTTPFlow:
    return answered(headers=headers, method="POST", **more)


def frame(flags: int, data: bytes) -> bytes:
    return struct.pack("!BI", flags, len(data)) + data


MESSAGE = frame(0, b"hello")
DENIED = frame(0x80, b"grpc-status: 7\r\n")
FINE = frame(0x80, b"grpc-status: 0\r\n")


@pytest.mark.parametrize(
    ("number", "name", "side"),
    [
        ("1", "cancelled", "client"),
        ("2", "unknown", "server"),
        ("3", "invalid_argument", "client"),
        ("4", "deadline_exceeded", "server"),
        ("5", "not_found", "server"),
        ("7", "permission_denied", "client"),
        ("8", "resource_exhausted", "server"),
        ("12", "unimplemented", "server"),
        ("13", "internal", "server"),
        ("14", "unavailable", "server"),
        ("16", "unauthenticated", "client"),
        ("17", "unknown", "server"),
        ("999", "unknown", "server"),
    ],
)
def test_grpc_status_in_trailers(number: str, name: str, side: str) -> None:
    tag = explained(call(GRPC, trailers={"grpc-status": number}))
    assert why(tag) == ("grpc_error", name, side, -3)
    assert (tag["outcome"], tag["status"], tag["grpc_status"]) == ("status", 200, int(number))


@pytest.mark.parametrize("number", ["", "-1", "x", "1.0", "²", "9" * 20, "5, 5"])
def test_a_grpc_status_that_is_no_number_is_unknown(number: str) -> None:
    tag = explained(call(GRPC, trailers={"grpc-status": number}))
    assert why(tag) == ("grpc_error", "unknown", "server", -3)
    assert "grpc_status" not in tag


@pytest.mark.parametrize(
    "media_type",
    [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc+json",
        "application/grpc; charset=utf-8",
        "Application/GRPC",
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpc-web-text",
        "application/grpc-web-text+proto",
    ],
)
@pytest.mark.parametrize("name", ["content-type", "Content-Type", "Content-type", "CONTENT-TYPE"])
def test_media_types_of_grpc(media_type: str, name: str) -> None:
    assert explained(call({name: media_type, "grpc-status": "5"}))["reason"] == "not_found"


@pytest.mark.parametrize("media_type", ["application/grpcfoo", "text/plain", "application/json"])
def test_a_grpc_status_elsewhere_is_just_a_header(media_type: str) -> None:
    tag = explained(call({"content-type": media_type, "grpc-status": "5"}))
    assert tag == vocabulary.STATUS_TAGS[200]


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        # trailers before head before body
        (call({**GRPC, "grpc-status": "5"}, trailers={"grpc-status": "0"}), 0),
        (call({**GRPC, "grpc-status": "5"}), 5),
        (call({**WEB, "grpc-status": "5"}, body=DENIED), 5),
        (call(WEB, body=DENIED), 7),
        (call(WEB, body=MESSAGE + MESSAGE + DENIED), 7),
        (call(WEB, body=MESSAGE + frame(0x80, b"Grpc-Status:16")), 16),
        (call(WEB, body=MESSAGE + frame(0x80, b"a: b\ngrpc-status:16\n")), 16),
        (call(WEB, body=MESSAGE + FINE), 0),
        (call(TEXT, body=b64encode(MESSAGE + DENIED)), 7),
        (call(TEXT, body=b64encode(MESSAGE) + b64encode(DENIED)), 7),
        (call(TEXT, body=b64encode(MESSAGE) + b"\r\n" + b64encode(DENIED) + b"\r\n"), 7),
        (
            call(
                {**WEB, "content-encoding": "gzip"}, body=gzip.compress(MESSAGE + DENIED, mtime=0)
            ),
            7,
        ),
        # by whatever protocol it came, and whoever answered
        (call(WEB, body=DENIED, version="HTTP/1.1"), 7),
        (call({**GRPC, "grpc-status": "5"}, version="HTTP/1.1"), 5),
    ],
)
def test_where_a_grpc_status_stands(flow: http.HTTPFlow, expected: int) -> None:
    tag = explained(flow)
    assert tag["grpc_status"] == expected
    assert tag.get("cause") == ("grpc_error" if expected else None)


@pytest.mark.parametrize(
    "flow",
    [
        call(GRPC, body=MESSAGE),
        call(GRPC, body=None),  # streamed; trailers are seen all the same
        call(GRPC, body=b"", trailers={"a": "b"}),
        call(WEB, body=b""),
        call(WEB, body=MESSAGE),
        call(WEB, body=(MESSAGE + DENIED)[:-1]),
        call(WEB, body=MESSAGE + DENIED[:3]),
        call(WEB, body=MESSAGE + frame(0x80, b"grpc-message: x")),
        call(WEB, body=DENIED + MESSAGE),
        call(TEXT, body=b64encode(MESSAGE)),
    ],
)
def test_grpc_answer_that_ended_without_a_status(flow: http.HTTPFlow) -> None:
    tag = explained(flow)
    assert why(tag) == ("http_response_incomplete", "no_grpc_status", "server", -1)
    assert (tag["outcome"], tag["status"], tag["band"]) == ("error", 200, "Success")
    assert "grpc_status" not in tag
    # Scripts know no trailers.
    assert "cause" not in Tagger(RULES, 20, Defects()).tag(flow, by_proxy=True)


def of_a_har() -> http.HTTPFlow:
    flow = call(GRPC)
    flow.server_conn.timestamp_start = None
    return flow


@pytest.mark.parametrize(
    "flow",
    [
        call(WEB, body=None),  # streamed
        call(WEB, body=MESSAGE + frame(0x81, b"compressed")),
        call({**WEB, "content-encoding": "strange"}, body=MESSAGE),
        call({**WEB, "content-encoding": "br"}, body=MESSAGE),
        call(WEB, body=frame(0, bytes(bodies.MAX_BODY))),
        call(WEB, body=frame(0, b"") * (grpc_status.MAX_FRAMES + 1)),
        call(TEXT, body=b"A"),
        call(TEXT, body=b"AA==" * (grpc_status.MAX_FRAMES + 1)),
        call(GRPC, version="HTTP/1.1"),  # mitmproxy drops its trailers
        of_a_har(),
        answered(headers=GRPC),  # no call, which is a POST
    ],
)
def test_a_grpc_status_that_nobody_saw_is_not_missing(flow: http.HTTPFlow) -> None:
    assert explained(flow) == vocabulary.STATUS_TAGS[200]


def test_frames_up_to_the_limit_are_looked_at() -> None:
    body = frame(0, b"") * (grpc_status.MAX_FRAMES - 1)
    assert explained(call(WEB, body=body + DENIED))["grpc_status"] == 7
    assert "grpc_status" not in explained(call(WEB, body=frame(0, b"") + body + DENIED))


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_a_grpc_status_says_that_a_call_failed_whatever_its_method(method: str) -> None:
    tag = explained(answered(headers={**GRPC, "grpc-status": "14"}, method=method))
    assert why(tag) == ("grpc_error", "unavailable", "server", -3)
    assert "cause" not in explained(answered(headers={**GRPC, "grpc-status": "0"}, method=method))


@pytest.mark.parametrize("status", [404, 503])
def test_an_unsuccessful_status_keeps_its_code_and_is_explained(status: int) -> None:
    tag = explained(answered(status, {**GRPC, "grpc-status": "14"}, method="POST"))
    assert why(tag) == ("grpc_error", "unavailable", "server", -3)
    # Without a grpc-status, the HTTP status says what went wrong.
    assert explained(answered(status, GRPC, method="POST")) == vocabulary.STATUS_TAGS[status]


@pytest.mark.parametrize(
    ("message", "urls", "detail"),
    [
        ("no such user", "redacted", "no such user"),
        ("J%C3%B6rg, 100 %", "redacted", "Jörg, 100 %"),
        ("%FF%0a", "redacted", "\ufffd\ufffd"),
        ("at https://u:p@a.example/x?t=1", "redacted", "at https://a.example/x?t="),
        ("at https://u:p@a.example/x?t=1", "full", "at https://u:p@a.example/x?t=1"),
        ("no such user", "origin", None),
        ("", "redacted", None),
        ("no such user, " * 10_000, "redacted", ("no such user, " * 100)[:299] + "…"),
        ("bad token=SECRET", "redacted", "bad token=*"),
    ],
)
def test_grpc_message(message: str, urls: Urls, detail: str | None) -> None:
    flow = call(GRPC, trailers={"grpc-status": "5", "grpc-message": message})
    assert explained(flow, urls).get("detail") == detail


# --- GraphQL ---

JSON = {"content-type": "application/json"}
QUERY: dict[str, Any] = {"query": "query Cart { cart }"}
ERRORS: dict[str, Any] = {"data": None, "errors": [{"message": "m"}]}


def asked(question: Any, answer: Any, headers: Headers = JSON, **more: Any) -> http.HTTPFlow:
    sent, body = (
        part if isinstance(part, bytes) else json.dumps(part).encode()
        for part in (question, answer)
    )
    return answered(headers=headers, body=body, sent=sent, **{"method": "POST", **more})


@pytest.mark.parametrize(
    ("question", "answer", "reason", "detail"),
    [
        (QUERY, ERRORS, "Cart", "1 error"),
        (QUERY, {"errors": [1, 2]}, "Cart", "2 errors"),
        ({**QUERY, "operationName": "Other"}, ERRORS, "Other", "1 error"),
        ({**QUERY, "operationName": None}, ERRORS, "Cart", "1 error"),
        ({**QUERY, "operationName": "no name!"}, ERRORS, "Cart", "1 error"),
        ({**QUERY, "operationName": 5}, ERRORS, "Cart", "1 error"),
        ({**QUERY, "operationName": "x" * 100}, ERRORS, "x" * 64, "1 error"),
        ({"query": "{ cart }"}, ERRORS, None, "1 error"),
        ({"query": "query { cart }"}, ERRORS, None, "1 error"),
        ({"query": "query($a: Int) { cart }"}, ERRORS, None, "1 error"),
        ({"query": "\n # why\n\n mutation  Pay($a: Int) { pay }"}, ERRORS, "Pay", "1 error"),
        ({"query": "subscription Ticks { t }"}, ERRORS, "Ticks", "1 error"),
        ({"query": "fragment A on B { c }"}, ERRORS, None, "1 error"),
        ({"query": "\ufeff, query\tNamed{a}"}, ERRORS, "Named", "1 error"),
        ({"query": '"what for" query Named { a }'}, ERRORS, None, "1 error"),
        ([QUERY, {"query": "query Two { a }"}], [{"data": 1}, ERRORS], "Two", "1 error"),
        ([QUERY, QUERY], [ERRORS, ERRORS], "Cart", "2 errors"),
        ([QUERY, QUERY], ERRORS, "Cart", "1 error"),
    ],
)
def test_graphql_errors(question: Any, answer: Any, reason: str | None, detail: str) -> None:
    tag = explained(asked(question, answer))
    assert why(tag) == ("graphql_error", reason, "server", -3)
    assert tag["detail"] == detail


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (QUERY, {"data": {"errors": [1]}}),
        (QUERY, {"errors": []}),
        (QUERY, {"errors": None}),
        (QUERY, {"errors": "none"}),
        (QUERY, {"errors": {"a": 1}}),
        (QUERY, {"error": [1]}),
        (QUERY, []),
        (QUERY, [[{"errors": [1]}]]),
        (QUERY, b"[" * 100_000 + b'"errors"'),
        (QUERY, b'{"errors": [1]'),
        (QUERY, b'\xff{"errors": [1]}'),
        (QUERY, b'{"errors": [' + b"9" * 5000 + b"]}"),
        (QUERY, json.dumps({**ERRORS, "pad": "x" * bodies.MAX_BODY}).encode()),
        ({**QUERY, "pad": "x" * bodies.MAX_BODY}, ERRORS),
        ({"query": None}, ERRORS),
        ({"query": "words of a search"}, ERRORS),
        ({"query": "queryless"}, ERRORS),
        ({"query": ""}, ERRORS),
        ({"query": "#" + "x" * overlays.MAX_DOCUMENT + "\n{ a }"}, ERRORS),
        ({"query": {"match": "all"}}, ERRORS),
        ({"query": 1}, ERRORS),
        ({"a": "query"}, ERRORS),
        ({"a": {"query": "x"}}, ERRORS),
        ([], ERRORS),
        ("query", ERRORS),
        (b"query=x", ERRORS),
        (b'{"query"', ERRORS),
        (b"", ERRORS),
    ],
)
def test_what_is_no_graphql_error(question: Any, answer: Any) -> None:
    assert explained(asked(question, answer)) == vocabulary.STATUS_TAGS[200]


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"headers": {"content-type": "application/json; charset=utf-8"}}, True),
        ({"headers": {"content-type": "application/graphql-response+json"}}, True),
        ({"headers": {"content-type": "application/graphql+json"}}, True),
        ({"headers": {"content-type": "text/html"}}, False),
        ({"headers": {}}, False),
        ({"method": "GET"}, False),
        ({"method": "PUT"}, False),
    ],
)
def test_graphql_is_a_post_that_is_answered_by_json(more: Any, found: bool) -> None:
    assert explained(asked(QUERY, ERRORS, **more)).get("cause") == (
        "graphql_error" if found else None
    )


def test_of_a_batch_so_many_queries_are_looked_at() -> None:
    fine, most = {"data": 1}, overlays.MAX_BATCH
    for before, found in ((most - 1, True), (most, False)):
        flow = asked([QUERY] * (most + 1), [fine] * before + [ERRORS])
        assert ("cause" in explained(flow)) == found


def test_the_name_of_an_operation_is_the_clients_word() -> None:
    assert "reason" not in explained(asked(QUERY, ERRORS), "origin")


def test_graphql_errors_explain_an_unsuccessful_status() -> None:
    tag = explained(asked(QUERY, ERRORS, status=400))
    assert why(tag) == ("graphql_error", "Cart", "server", -3)
    assert tag["status"] == 400


def test_bodies_that_were_not_kept_are_no_errors() -> None:
    for part in ("request", "response"):
        flow = asked(QUERY, ERRORS)
        getattr(flow, part).data.content = None
        assert explained(flow) == vocabulary.STATUS_TAGS[200]


# --- bodies ---

PLAIN = json.dumps(ERRORS).encode()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("", PLAIN),
        ("identity", PLAIN),
        ("gzip", gzip.compress(PLAIN, mtime=0)),
        ("GZIP ", gzip.compress(PLAIN, mtime=0)),
        ("x-gzip", gzip.compress(PLAIN, mtime=0)),
        ("deflate", zlib.compress(PLAIN)),
        ("deflate", zlib.compress(PLAIN)[2:-4]),
        ("br", brotli.compress(PLAIN)),
        ("zstd", encoding.encode(PLAIN, "zstd")),
    ],
)
def test_content_codings(coding: str, body: bytes) -> None:
    assert bodies.decoded(body, coding) == PLAIN
    flow = asked(QUERY, body, {**JSON, "content-encoding": coding})
    assert explained(flow)["cause"] == "graphql_error"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_body_that_unpacks_to_too_much_costs_little(coding: str) -> None:
    limit = bodies.MAX_BODY
    for size, expected in ((limit, limit), (limit + 1, None)):
        body: Any = encoding.encode(bytes(size), coding)
        plain = bodies.decoded(body, coding)
        assert (plain and len(plain)) == expected
    bomb: Any = encoding.encode(bytes(100 * limit), coding)
    tracemalloc.start()
    try:
        assert bodies.decoded(bomb, coding) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    may_be_bounded = coding != "br" or hasattr(brotli.Decompressor, "can_accept_more_data")
    assert peak < (4_000_000 if may_be_bounded else 40_000_000)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "none"])
def test_bodies_that_are_damaged_are_told_by_none(coding: str) -> None:
    assert bodies.decoded(b"\xff" * 100, coding) is None


# --- WebSocket ---


def closed(code: int | None, reason: str | None = "", by_client: bool | None = False) -> Tag:
    flow = tflow.twebsocketflow()
    assert flow.websocket
    flow.websocket.close_code = code
    flow.websocket.close_reason = reason
    flow.websocket.closed_by_client = by_client
    return Tagger(RULES, 20, Defects()).tag(flow)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        *[(code, name) for code, name in vocabulary.CLOSE_CODES.items() if code > 1006],
        (1002, "protocol_error"),
        (1003, "unsupported_data"),
        (1004, "reserved"),
        (999, "unassigned"),
        (1016, "unassigned"),
        (2999, "unassigned"),
        (3999, "unassigned"),
        (4000, "private_use"),
        (4999, "private_use"),
        (5000, "unassigned"),
    ],
)
def test_close_codes_that_are_errors(code: int, name: str) -> None:
    for by_client, side in ((True, "client"), (False, "server"), (None, "server")):
        tag = closed(code, "why", by_client)
        assert why(tag) == ("websocket_error", name, side, -3)
        assert (tag["outcome"], tag["status"], tag["close_code"]) == ("status", 101, code)
        assert tag["detail"] == "why"


@pytest.mark.parametrize("code", [1000, 1001, 1005])
def test_close_codes_that_are_none(code: int) -> None:
    assert "cause" not in closed(code)


def test_other_ends_of_a_websocket_are_others() -> None:
    assert closed(1006)["cause"] != "websocket_error"
    assert closed(None)["outcome"] == "unfinished"
    assert "detail" not in closed(1011, None)


# --- CORS ---

PAGE = "https://shop.example"
BROWSER = {"Origin": PAGE, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "cross-site"}
PREFLIGHT = {**BROWSER, "Access-Control-Request-Method": "PUT"}
ANY = {"Access-Control-Allow-Origin": "*"}


def without(headers: Headers, *names: str) -> Headers:
    return {name: value for name, value in headers.items() if name not in names}


@pytest.mark.parametrize(
    ("request_", "more", "certain"),
    [
        (BROWSER, {}, True),
        ({**BROWSER, "Sec-Fetch-Site": "same-site"}, {}, True),
        ({name.lower(): value for name, value in BROWSER.items()}, {}, True),
        ({**BROWSER, "Origin": "null"}, {}, True),
        (BROWSER, {"method": "POST"}, True),
        (BROWSER, {"status": 302}, True),
        (BROWSER, {"status": 500}, True),
        # what a browser hands over without asking
        ({**BROWSER, "Sec-Fetch-Site": "same-origin"}, {"method": "POST"}, False),
        ({**BROWSER, "Sec-Fetch-Site": "none"}, {}, False),
        ({**BROWSER, "Sec-Fetch-Mode": "no-cors"}, {}, False),
        ({**BROWSER, "Sec-Fetch-Mode": "navigate"}, {"method": "POST"}, False),
        ({**BROWSER, "Sec-Fetch-Mode": "websocket"}, {}, False),
        (without(BROWSER, "Origin"), {}, False),
        ({**BROWSER, "Origin": "chrome-extension://abc"}, {}, False),
        ({**BROWSER, "Origin": "moz-extension://abc"}, {}, False),
        ({**BROWSER, "Origin": "file://"}, {}, False),
        # what is cached counts, and what the proxy demands is not the server's
        (BROWSER, {"status": 304}, False),
        (BROWSER, {"status": 407}, False),
        # no browser: Node's fetch imitates the mode; any program may send an Origin
        (without(BROWSER, "Sec-Fetch-Site"), {}, False),
        ({"Origin": PAGE}, {}, False),
        # browsers before Sec-Fetch, or over plain HTTP
        ({"Origin": PAGE}, {"url": "http://api.example/"}, True),
        ({"Origin": PAGE}, {"url": "http://api.example/", "method": "HEAD"}, True),
        ({"Origin": PAGE}, {"url": "http://api.example/", "method": "POST"}, False),
        ({"Origin": PAGE, "Upgrade": "websocket"}, {"url": "http://api.example/"}, False),
        ({"Origin": "http://api.example"}, {"url": "http://api.example/"}, False),
        ({"Origin": "http://api.example"}, {"url": "http://API.example:80/"}, False),
        ({"Origin": "http://api.example:81"}, {"url": "http://api.example:81/"}, False),
        ({"Origin": "http://api.example"}, {"url": "http://api.example:81/"}, True),
        ({"Origin": "https://api.example"}, {"url": "http://api.example/"}, True),
        ({"Origin": "null"}, {"url": "http://api.example/"}, True),
        ({"Origin": PAGE}, {"url": "http://localhost:3000/"}, False),
        ({"Origin": PAGE}, {"url": "http://a.localhost/"}, False),
        ({"Origin": PAGE}, {"url": "http://127.0.0.1:3000/"}, False),
        ({"Origin": PAGE}, {"url": "http://127.0.0.1.example/"}, True),
        ({"Origin": PAGE}, {"url": "http://[::1]/"}, False),
        ({"Origin": "http://[2001:db8::1]"}, {"url": "http://[2001:db8::1]/"}, False),
        ({"Origin": "http://[2001:db8::1]:81"}, {"url": "http://[2001:db8::1]:81/"}, False),
        ({"Origin": "http://[2001:db8::1]"}, {"url": "http://[2001:db8::2]/"}, True),
    ],
)
def test_whether_it_is_certain_that_a_permission_is_needed(
    request_: Headers, more: dict[str, Any], certain: bool
) -> None:
    tag = explained(answered(request=request_, **more))
    assert tag.get("cause") == ("cors_blocked" if certain else None)
    if certain:
        code = -3 if tag["status"] >= 400 else -1
        assert why(tag) == ("cors_blocked", "missing_allow_origin", "server", code)
    permitted = explained(answered(request=request_, headers=ANY, **more))
    assert "cause" not in permitted


def test_in_reverse_mode_the_browser_knows_the_server_by_another_name() -> None:
    flow = answered(request={"Origin": "http://localhost:8080"}, url="http://backend/")
    flow.client_conn.proxy_mode = ProxyMode.parse("reverse:http://backend")
    assert "cause" not in explained(flow)
    for headers in (BROWSER, PREFLIGHT):
        flow.request.headers = fields_of(headers)
        assert explained(flow)["cause"] == "cors_blocked"


COOKIE = {**BROWSER, "Cookie": "a=b"}


@pytest.mark.parametrize(
    ("request_", "headers", "reason"),
    [
        (BROWSER, {}, "missing_allow_origin"),
        (BROWSER, {"Access-Control-Allow-Credentials": "true"}, "missing_allow_origin"),
        (BROWSER, ANY, None),
        (BROWSER, {"access-control-allow-origin": PAGE}, None),
        (BROWSER, {"access-control-allow-origin": f" {PAGE} "}, None),
        (BROWSER, {"access-control-allow-origin": f"{PAGE}/"}, "origin_not_allowed"),
        (BROWSER, {"access-control-allow-origin": PAGE.upper()}, "origin_not_allowed"),
        (BROWSER, {"access-control-allow-origin": f"{PAGE}, {PAGE}"}, "origin_not_allowed"),
        (BROWSER, {"access-control-allow-origin": "*, *"}, "origin_not_allowed"),
        (BROWSER, {"access-control-allow-origin": "null"}, "origin_not_allowed"),
        (BROWSER, {"access-control-allow-origin": ""}, "origin_not_allowed"),
        ({**BROWSER, "Origin": "null"}, {"access-control-allow-origin": "null"}, None),
        (COOKIE, ANY, "credentials_with_wildcard"),
        (COOKIE, {**ANY, "access-control-allow-credentials": "true"}, "credentials_with_wildcard"),
        (COOKIE, {"access-control-allow-origin": PAGE}, "credentials_not_allowed"),
        ({**BROWSER, "Authorization": "Bearer x"}, ANY, None),  # a script may have set it
        (
            COOKIE,
            {"access-control-allow-origin": PAGE, "access-control-allow-credentials": "True"},
            "credentials_not_allowed",
        ),
        (
            COOKIE,
            {"access-control-allow-origin": PAGE, "access-control-allow-credentials": "true"},
            None,
        ),
    ],
)
def test_the_cors_check(request_: Headers, headers: Headers, reason: str | None) -> None:
    tag = explained(answered(request=request_, headers=headers))
    assert tag.get("reason") == reason
    assert tag.get("cause") == ("cors_blocked" if reason else None)


def preflight(asked_for: Headers, headers: Headers, status: int = 204) -> http.HTTPFlow:
    request = {**PREFLIGHT, **asked_for}
    return answered(status, {**ANY, **headers}, request=request, method="OPTIONS")


METHOD, NAMES = "Access-Control-Request-Method", "Access-Control-Request-Headers"
METHODS, HEADERS = "Access-Control-Allow-Methods", "Access-Control-Allow-Headers"


@pytest.mark.parametrize(
    ("flow", "reason", "detail"),
    [
        (preflight({}, {METHODS: "PUT"}), None, None),
        (preflight({}, {METHODS: "GET,PUT , DELETE"}, 200), None, None),
        (preflight({}, {METHODS: "PUT"}, 299), None, None),
        (preflight({}, {METHODS: "PUT"}, 300), "preflight_status", None),
        (preflight({}, {METHODS: "PUT"}, 404), "preflight_status", None),
        (preflight({}, {METHODS: "PUT"}, 302), "preflight_status", None),
        # Chromium looks for a redirect before, and for other statuses after the CORS check.
        (answered(302, request=PREFLIGHT, method="OPTIONS"), "preflight_status", None),
        (answered(405, request=PREFLIGHT, method="OPTIONS"), "missing_allow_origin", None),
        (preflight({}, {METHODS: "*"}), None, None),
        (preflight({}, {}), "method_not_allowed", "PUT"),
        (preflight({}, {METHODS: "put"}), "method_not_allowed", "PUT"),
        (preflight({}, {METHODS: "PUT; GET"}), "method_not_allowed", "PUT"),
        (preflight({}, {METHODS: ",, PUT,"}), None, None),
        (preflight({METHOD: "GET"}, {}), None, None),
        (preflight({METHOD: "POST"}, {METHODS: "PUT"}), None, None),
        (preflight({METHOD: "HEAD"}, {}), None, None),
        (preflight({METHOD: "POST"}, {METHODS: "a b"}), "method_not_allowed", "POST"),
        (preflight({NAMES: "x-a"}, {METHODS: "PUT"}), "header_not_allowed", "x-a"),
        (preflight({NAMES: "x-a"}, {METHODS: "PUT", HEADERS: "X-A"}), None, None),
        (
            preflight({NAMES: "x-a,x-b"}, {METHODS: "*", HEADERS: "x-a"}),
            "header_not_allowed",
            "x-b",
        ),
        (preflight({NAMES: "x-a,x-b"}, {METHODS: "*", HEADERS: "x-b, x-a"}), None, None),
        (preflight({NAMES: "x-a"}, {METHODS: "PUT", HEADERS: "*"}), None, None),
        (
            preflight({NAMES: "x-a"}, {METHODS: "*", HEADERS: "x-a; x-b"}),
            "header_not_allowed",
            None,
        ),
        # Browsers differ over these: not certain.
        (preflight({NAMES: "authorization"}, {METHODS: "*", HEADERS: "*"}), None, None),
        (
            preflight({NAMES: "authorization"}, {METHODS: "*", HEADERS: "x-a"}),
            "header_not_allowed",
            "authorization",
        ),
        (preflight({}, {METHODS: "A," * 10_000}), None, None),
    ],
)
def test_the_checks_of_a_preflight(
    flow: http.HTTPFlow, reason: str | None, detail: str | None
) -> None:
    tag = explained(flow)
    assert (tag.get("reason"), tag.get("detail")) == (reason, detail)
    assert "detail" not in explained(flow, "origin")


def test_a_method_that_nobody_registered_is_kept_only_if_the_user_wants_so() -> None:
    flow = preflight({METHOD: "SECRET123"}, {METHODS: "PUT"})
    assert explained(flow)["detail"] == "_OTHER"
    assert explained(flow, "full")["detail"] == "SECRET123"
    assert explained(preflight({METHOD: "patch"}, {METHODS: "PATCH"}))["detail"] == "patch"


def test_a_preflight_is_one_also_where_the_browser_does_not_say_the_site() -> None:
    for request in (
        without(PREFLIGHT, "Sec-Fetch-Site"),
        without(PREFLIGHT, "Sec-Fetch-Site", "Sec-Fetch-Mode"),
    ):
        flow = answered(204, request=request, method="OPTIONS", url="http://api.example/")
        assert explained(flow)["reason"] == "missing_allow_origin"
    # Over TLS, a browser would say the mode.
    flow = answered(204, request=request, method="OPTIONS")
    assert "cause" not in explained(flow)
    # An OPTIONS without a method to ask for is a request like any other.
    flow = answered(405, ANY, request=BROWSER, method="OPTIONS")
    assert "cause" not in explained(flow)


def test_what_the_proxy_answered_is_the_proxys() -> None:
    tagger = Tagger(RULES, 20, Defects())
    tag = tagger.tag(answered(request=BROWSER), by_proxy=True)
    assert why(tag) == ("cors_blocked", "missing_allow_origin", "proxy", -1)
    # block_list and the like: that they deny is all there is to say.
    assert "cause" not in tagger.tag(answered(403, request=BROWSER), by_proxy=True)


# --- WebSocket handshakes ---

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


@pytest.mark.parametrize(
    ("status", "fails"),
    [(200, True), (204, True), (101, False), (302, False), (401, False), (404, False)],
)
def test_a_handshake_that_gets_the_answer_of_a_page(status: int, fails: bool) -> None:
    tag = explained(answered(status, request=HANDSHAKE, version="HTTP/1.1"))
    assert tag.get("cause") == ("http_upgrade_failed" if fails else None)
    if fails:
        assert why(tag) == ("http_upgrade_failed", None, "server", -1)


def test_whoever_does_not_ask_for_a_websocket_gets_a_page() -> None:
    for other in ("Sec-WebSocket-Key", "Upgrade"):
        asked = without(HANDSHAKE, "Sec-WebSocket-Key", other)
        assert "cause" not in explained(answered(200, request=asked, version="HTTP/1.1"))


# --- content codings ---


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip"])
@pytest.mark.parametrize(
    ("body", "more", "fails"),
    [
        (b"<html>", {}, True),
        (b"\x1f", {}, False),
        (b"\x1fx", {}, True),
        (gzip.compress(b"<html>", mtime=0), {}, False),
        (gzip.compress(b"<html>", mtime=0)[:5], {}, False),  # clients take what they get
        (b"", {}, False),
        (None, {}, False),  # streamed: nobody knows
        (b"<html>", {"method": "HEAD"}, False),
        (b"<html>", {"status": 206}, False),
    ],
)
def test_a_body_that_is_not_gzip(
    coding: str, body: bytes | None, more: dict[str, Any], fails: bool
) -> None:
    headers = {"Content-Encoding": coding, "Content-Type": "text/html"}
    tag = explained(answered(**{"status": 200, "headers": headers, "body": body, **more}))
    expected = ("http_response_transfer_coding", "content_coding", "server", -1)
    if fails:
        assert why(tag) == expected
    else:
        assert "cause" not in tag


@pytest.mark.parametrize("coding", ["br", "identity", "deflate", "gzip, br", ""])
def test_other_codings_do_not_tell(coding: str) -> None:
    assert "cause" not in explained(answered(200, {"Content-Encoding": coding}, b"<html>"))


# --- interim responses ---


@pytest.mark.parametrize("status", [100, 102, 103, 199])
def test_interim_responses(status: int) -> None:
    tag = explained(answered(status, version="HTTP/1.1"))
    assert why(tag) == ("interim_response", None, "proxy", -1)
    assert tag["band"] == "Informational"


def test_what_is_no_interim_response() -> None:
    assert "cause" not in explained(answered(101, version="HTTP/1.1"))
    assert "cause" not in explained(answered(200, version="HTTP/1.1"))
    assert "cause" not in explained(answered(103, version="HTTP/2.0"))
    assert "cause" not in explained(answered(103, version="HTTP/3"))
    of_a_har = answered(103, version="HTTP/1.1")
    of_a_har.server_conn.timestamp_start = None
    assert "cause" not in explained(of_a_har)
    flow = answered(103, version="HTTP/1.1")
    assert "cause" not in Tagger(RULES, 20, Defects()).tag(flow, by_proxy=True)


# --- one overlay a flow ---


def test_the_first_of_the_table_counts() -> None:
    everything = asked(QUERY, ERRORS, status=103, version="HTTP/1.1", request=BROWSER)
    assert explained(everything)["cause"] == "graphql_error"
    everything.request.method = "GET"
    assert explained(everything)["cause"] == "cors_blocked"
    del everything.request.headers["origin"]
    assert explained(everything)["cause"] == "interim_response"


def test_a_grpc_call_that_went_well_may_be_blocked() -> None:
    tag = explained(call(WEB, body=FINE, request=BROWSER))
    assert (tag["cause"], tag["grpc_status"]) == ("cors_blocked", 0)
    tag = explained(call(WEB, body=DENIED, request=BROWSER))
    assert (tag["cause"], tag["grpc_status"]) == ("grpc_error", 7)


def test_a_redirect_that_broke_the_limit_is_that_and_nothing_more() -> None:
    tagger = Tagger(RULES, 2, Defects())
    tags = []
    for number in range(3):
        flow = answered(
            302,
            {"location": f"https://api.example/{number + 1}"},
            request=BROWSER,
            url=f"https://api.example/{number}",
        )
        tags.append(tagger.tag(flow))
    causes = [tag["cause"] for tag in tags]
    assert causes == ["cors_blocked", "too_many_redirects", "cors_blocked"]


def test_a_broken_exchange_has_no_overlay() -> None:
    flow = call(GRPC, trailers={"grpc-status": "5"})
    flow.error = tflow.terr("Client disconnected.")
    tag = Tagger(RULES, 20, Defects()).tag(flow)
    assert tag["outcome"] != "status"
    assert "grpc_status" not in tag


# --- whatever the network sends ---

NASTY = st.binary(max_size=200) | st.sampled_from(
    [MESSAGE + DENIED, b64encode(DENIED), PLAIN, json.dumps(QUERY).encode(), b"[" * 5000, b"{}"]
)
NAMES_ = st.sampled_from(
    [
        "content-type", "content-encoding", "grpc-status", "grpc-message", "origin", "cookie",
        "sec-fetch-mode", "sec-fetch-site", "access-control-request-method",
        "access-control-request-headers", "access-control-allow-origin", "upgrade",
        "access-control-allow-methods", "access-control-allow-headers",
    ]
)  # fmt: skip
VALUES = st.binary(max_size=30) | st.sampled_from(
    [
        b"application/grpc", b"application/grpc-web", b"application/grpc-web-text", b"0", b"7",
        b"application/json", b"gzip", b"br", b"zstd", b"deflate", b"null", b"*", b"cors",
        b"cross-site", b"PUT", b"x-a", PAGE.encode(),
    ]
)  # fmt: skip
FIELDS = st.lists(
    st.tuples(NAMES_.map(str.encode) | st.binary(max_size=12), VALUES), max_size=8
).map(tuple)


@given(
    fields=FIELDS,
    request_fields=FIELDS,
    trailers=st.none() | FIELDS,
    body=st.none() | NASTY,
    sent=st.none() | NASTY,
    method=st.sampled_from(["GET", "POST", "OPTIONS", "\xff"]),
    status=st.sampled_from([100, 101, 103, 200, 204, 302, 304, 405, 500, 999]),
    version=st.sampled_from(["HTTP/1.1", "HTTP/2.0", "HTTP/3", "x"]),
    url=st.sampled_from(["https://a.example/", "http://a.example/", "http://localhost/"]),
)
def test_no_bytes_make_an_overlay_raise(
    fields: Any, request_fields: Any, trailers: Any, body: Any, sent: Any, **more: Any
) -> None:
    flow = answered(body=body, sent=sent, **more)
    assert flow.response
    flow.response.headers = http.Headers(fields)
    flow.request.headers = http.Headers(request_fields)
    flow.response.trailers = None if trailers is None else http.Headers(trailers)
    tag = explained(flow)
    if "cause" in tag:
        assert tag["cause"] in (*OVERLAYS, "http_response_incomplete")
        assert tag["side"] in ("client", "proxy", "server")
        assert all(text.isprintable() and len(text) <= 300 for text in map(str, tag.values()))


TEXT_ = st.text(max_size=60) | st.sampled_from(
    ["grpc-status: 7", "application/grpc", '"errors"', "server received unexpected unmasked frame"]
)


@given(text=TEXT_, number=st.integers(1, 16))
def test_what_a_peer_says_of_a_call_does_not_change_why_it_failed(text: str, number: int) -> None:
    def failed(message: str) -> http.HTTPFlow:
        return call(GRPC, trailers={"grpc-status": str(number), "grpc-message": message})

    assert why(explained(failed(text))) == why(explained(failed("")))


@given(text=TEXT_, code=st.integers(0, 5000), by_client=st.booleans())
def test_what_a_peer_says_of_a_close_does_not_change_why_it_closed(
    text: str, code: int, by_client: bool
) -> None:
    assert why(closed(code, text, by_client)) == why(closed(code, "", by_client))


@given(text=TEXT_)
def test_phrases_and_hosts_say_nothing(text: str) -> None:
    for flow in (
        answered(request={"Origin": PAGE}),
        answered(103, version="HTTP/1.1"),
        answered(request=BROWSER),
        call(GRPC, trailers={"grpc-status": "5"}),
        asked(QUERY, ERRORS),
    ):
        before = explained(flow)
        assert flow.response
        flow.response.data.reason = text.encode("utf-8", "replace")
        flow.server_conn.sni = text
        flow.request.data.path = text.encode("utf-8", "replace")
        flow.request.data.host = text
        assert explained(flow) == before


@given(
    body=st.binary(max_size=300),
    headers=st.dictionaries(st.sampled_from(["server", "etag"]), st.text("abc/+")),
)
def test_a_plain_answer_is_left_as_it_is(body: bytes, headers: Headers) -> None:
    for media_type in ("text/html", "image/png", "application/json", "application/octet-stream"):
        flow = answered(headers={"content-type": media_type, **headers}, body=body)
        assert explained(flow) == vocabulary.STATUS_TAGS[200]
