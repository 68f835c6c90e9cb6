"""Complete responses that are failures all the same, live: real peers, a real mitmdump.

What a browser makes of an answer without permission is in test_live_cors.py.
"""

from __future__ import annotations

import gzip
import json
import struct
from base64 import b64encode
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha1
from typing import TYPE_CHECKING
from typing import Any

import pytest
from conftest import CI
from h2.connection import H2Connection
from lab import clients
from lab import servers
from lab import websocket
from lab.expected import Expected
from lab.expected import failure
from lab.expected import overlaid
from lab.expected import status
from lab.http2 import Behaviour
from lab.http2 import Http2Server
from lab.http2 import stay_silent
from lab.laboratory import LATE
from lab.laboratory import Laboratory
from lab.proxy import Record
from lab.servers import Answer
from lab.servers import AnsweringServer
from lab.servers import Request
from lab.servers import Then
from lab.tls import HOST
from lab.websocket import WebSocketServer
from websockets.sync.client import connect

if TYPE_CHECKING:
    # A machine without grpcio skips the tests that use it.
    from lab.rpc import Service

pytestmark = pytest.mark.timeout(60)

OK = status(200, "OK")


def observe(laboratory: Laboratory, act: Callable[[], Any], name: str = "regular") -> Record:
    """The record of the one flow that `act` makes, through the proxy of that name."""
    proxy = laboratory.proxy(name)
    records = laboratory.observe(proxy, act, 1)
    assert len(records) == 1, "\n".join(map(str, records))
    proxy.assert_no_addon_error()
    return records[0]


# --- gRPC ---


@pytest.fixture(scope="module")
def service(laboratory: Laboratory) -> Iterator[Service]:
    if not CI:
        pytest.importorskip("grpc", reason="grpcio is not installed")
    from lab import rpc

    with rpc.Service(laboratory.authority.trusted) as service:
        yield service


def grpc_error(number: int, name: str, side: str = "server", **more: Any) -> Expected:
    return overlaid(200, "OK", -3, "grpc_error", side, reason=name, grpc_status=number, **more)


CALLS = [
    ("Echo", b"hello", "OK", status(200, "OK", grpc_status=0)),
    ("Count", b"hello", "OK", status(200, "OK", grpc_status=0)),
    ("Fail", b"NOT_FOUND no such user: J\xc3\xb6rg", "NOT_FOUND",
     grpc_error(5, "not_found", detail="no such user: Jörg")),
    ("Fail", b"INVALID_ARGUMENT", "INVALID_ARGUMENT", grpc_error(3, "invalid_argument", "client")),
    ("Fail", b"PERMISSION_DENIED 100 % yours", "PERMISSION_DENIED",
     grpc_error(7, "permission_denied", "client", detail="100 % yours")),
    ("Fail", b"UNAUTHENTICATED see https://a.example/?token=x", "UNAUTHENTICATED",
     grpc_error(16, "unauthenticated", "client", detail="see https://a.example/?token=")),
    ("Fail", b"UNAVAILABLE", "UNAVAILABLE", grpc_error(14, "unavailable")),
    ("Fail", b"DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", grpc_error(4, "deadline_exceeded")),
    ("FailLate", b"INTERNAL in the middle", "INTERNAL",
     grpc_error(13, "internal", detail="in the middle")),
    ("Raise", b"", "UNKNOWN",
     grpc_error(2, "unknown", detail="Exception calling application: boom")),
    ("NoSuchMethod", b"", "UNIMPLEMENTED", grpc_error(12, "unimplemented")),
    ("Echo", b"x" * 2000, "RESOURCE_EXHAUSTED", grpc_error(8, "resource_exhausted")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "request_", "code", "expected"), CALLS, ids=lambda value: str(value)[:30]
)
def test_grpc_call(
    laboratory: Laboratory,
    service: Service,
    method: str,
    request_: bytes,
    code: str,
    expected: Expected,
) -> None:
    from lab import rpc

    ended: list[Any] = []
    proxy = laboratory.proxy("regular")
    record = observe(
        laboratory, lambda: ended.append(rpc.call(proxy, service.port, method, request_))
    )
    assert [status.name for status in ended] == [code], "what the client saw"
    expected.check(record)


def test_grpc_status_of_a_body_that_is_not_kept(laboratory: Laboratory, service: Service) -> None:
    from lab import rpc

    proxy = laboratory.proxy("streaming")
    for method, request, expected in (
        ("FailLate", b"INTERNAL", grpc_error(13, "internal")),
        ("Count", b"hello", status(200, "OK", grpc_status=0)),
    ):

        def act(method: str = method, request: bytes = request) -> None:
            rpc.call(proxy, service.port, method, request)

        expected.check(observe(laboratory, act, "streaming"))


def without_status(connection: H2Connection, stream: int) -> None:
    connection.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
    connection.send_data(stream, b"\0\0\0\0\0", end_stream=True)


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("behaviour", "code"), [(without_status, "UNKNOWN"), (stay_silent, "DEADLINE_EXCEEDED")]
)
def test_grpc_call_that_got_no_status(
    laboratory: Laboratory, behaviour: Behaviour, code: str
) -> None:
    from lab import rpc

    ended: list[Any] = []
    proxy = laboratory.proxy("regular")
    with Http2Server(behaviour, tls=laboratory.authority.http2(), name=HOST) as server:
        record = observe(
            laboratory,
            lambda: ended.append(rpc.call(proxy, server.port, "Echo", timeout=LATE)),
        )
    assert [status.name for status in ended] == [code], "what the client saw"
    assert "grpc_status" not in record
    if behaviour is without_status:
        NO_STATUS.check(record)
    else:
        assert record["outcome"] != "status"


def frame(flags: int, data: bytes) -> bytes:
    return struct.pack("!BI", flags, len(data)) + data


MESSAGE = frame(0, b"hello")
DENIED = frame(0x80, b"grpc-status: 7\r\ngrpc-message: not%20yours\r\n")
FINE = frame(0x80, b"grpc-status:0\r\n")
NO_STATUS = failure(-1, "http_response_incomplete", "server", after=200, reason="no_grpc_status")
DENIED_ERROR = grpc_error(7, "permission_denied", "client", detail="not yours")


@pytest.mark.parametrize(
    ("media_type", "body", "expected"),
    [
        ("application/grpc-web+proto", MESSAGE + DENIED, DENIED_ERROR),
        ("application/grpc-web+proto", MESSAGE + FINE, status(200, "OK", grpc_status=0)),
        ("application/grpc-web+proto", MESSAGE, NO_STATUS),
        ("application/grpc-web+proto", (MESSAGE + DENIED)[:-1], NO_STATUS),
        ("application/grpc-web-text", b64encode(MESSAGE + DENIED), DENIED_ERROR),
        ("application/grpc-web-text", b64encode(MESSAGE) + b64encode(DENIED), DENIED_ERROR),
    ],
)
def test_grpc_web(laboratory: Laboratory, media_type: str, body: bytes, expected: Expected) -> None:
    expected.check(post(laboratory, b"", answering(media_type, body)))


def answering(media_type: str, body: bytes, *headers: str) -> Answer:
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {media_type}", f"Content-Length: {len(body)}"]
    return Answer("\r\n".join([*lines, *headers, "", ""]).encode() + body)


def post(laboratory: Laboratory, body: bytes, answer: Answer) -> Record:
    """The record of a POST of JSON."""
    proxy = laboratory.proxy("regular")
    with AnsweringServer(answer) as server:
        authority = f"{server.host}:{server.port}"
        headers = ("Content-Type: application/json", f"Content-Length: {len(body)}")
        head = clients.request_head("POST", f"http://{authority}/", authority, *headers)
        return observe(laboratory, lambda: clients.exchange(proxy.port, head + body))


# --- GraphQL ---

QUERY = json.dumps({"query": "query Cart { cart { items } }", "variables": {}}).encode()
FAILED = json.dumps({"data": {"cart": None}, "errors": [{"message": "secret"}]}).encode()
CART = overlaid(200, "OK", -3, "graphql_error", "server", reason="Cart", detail="1 error")
JSON, GRAPHQL = "application/json", "application/graphql-response+json; charset=utf-8"


@pytest.mark.parametrize(
    ("body", "answer", "expected"),
    [
        (QUERY, answering(JSON, FAILED), CART),
        (QUERY, answering(GRAPHQL, FAILED), CART),
        (QUERY, answering(JSON, gzip.compress(FAILED, mtime=0), "Content-Encoding: gzip"), CART),
        (QUERY, answering(JSON, b'{"data": {"cart": {"errors": []}}}'), OK),
        (b'{"question": 1}', answering(JSON, FAILED), OK),
    ],
)
def test_graphql(laboratory: Laboratory, body: bytes, answer: Answer, expected: Expected) -> None:
    record = post(laboratory, body, answer)
    expected.check(record)
    assert "secret" not in str(record)


# --- WebSocket ---


def closed(code: int, name: str, side: str, **more: Any) -> Expected:
    return overlaid(
        101,
        "Switching protocols",
        -3,
        "websocket_error",
        side,
        kind="websocket",
        reason=name,
        close_code=code,
        **more,
    )


def closed_well(code: int) -> Expected:
    return status(101, "Switching protocols", kind="websocket", close_code=code)


CODES = [
    (1000, None),
    (1001, None),
    (1003, "unsupported_data"),
    (1008, "policy_violation"),
    (1009, "message_too_big"),
    (1011, "internal_error"),
    (1012, "service_restart"),
    (1013, "try_again_later"),
    (3000, "unauthorized"),
    (3001, "unassigned"),
    (4001, "private_use"),
    (4999, "private_use"),
]


@pytest.mark.parametrize(("code", "name"), CODES)
def test_websocket_closed_by_the_server(
    laboratory: Laboratory, code: int, name: str | None
) -> None:
    proxy = laboratory.proxy("regular")
    with WebSocketServer() as server:
        url = f"{server.url}/{code}"
        record = observe(laboratory, lambda: websocket.talk(url, proxy.url))
    if name is None:
        closed_well(code).check(record)
    else:
        closed(code, name, "server", detail="as asked", close_reason="as asked").check(record)


@pytest.mark.parametrize(
    ("code", "name"), [(1000, None), (1011, "internal_error"), (4001, "private_use")]
)
def test_websocket_closed_by_the_client(
    laboratory: Laboratory, code: int, name: str | None
) -> None:
    proxy = laboratory.proxy("regular")

    def act() -> None:
        with connect(f"{server.url}/1000", proxy=proxy.url, compression=None) as connection:
            assert connection.recv() == "hello"
            connection.close(code, "token expired")

    with WebSocketServer() as server:
        record = observe(laboratory, act)
    if name is None:
        closed_well(code).check(record)
    else:
        closed(code, name, "client", detail="token expired").check(record)


DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"
MASK = b"\0\0\0\0"
PROTOCOL, PAYLOAD = (1002, "protocol_error"), (1007, "invalid_frame_payload_data")
BROKEN = [
    ("server", "masked", b"\x81\x81" + MASK + b"a", PROTOCOL),
    ("server", "RSV1 without compression", b"\xc1\x01a", PROTOCOL),
    ("server", "no UTF-8", b"\x81\x01\xff", PAYLOAD),
    ("server", "unknown opcode", b"\x83\x00", PROTOCOL),
    ("server", "close code 1014, which wsproto does not know", b"\x88\x02\x03\xf6", PROTOCOL),
    ("server", "broken deflate", b"\xc1\x04\xff\xff\xff\xff", PAYLOAD),
    ("client", "unmasked", b"\x81\x01a", PROTOCOL),
    ("client", "RSV1 without compression", b"\xc1\x81" + MASK + b"a", PROTOCOL),
    ("client", "no UTF-8", b"\x81\x81" + MASK + b"\xff", PAYLOAD),
    ("client", "broken deflate", b"\xc1\x84" + MASK + b"\xff\xff\xff\xff", PAYLOAD),
]


@pytest.mark.parametrize(
    ("sender", "what", "data", "expected"), BROKEN, ids=lambda value: str(value)[:40]
)
def test_frame_that_mitmproxy_refuses_is_its_senders(
    laboratory: Laboratory, sender: str, what: str, data: bytes, expected: tuple[int, str]
) -> None:
    proxy = laboratory.proxy("regular")
    extension = [DEFLATE] if "deflate" in what else []

    def switch(request: Request) -> Answer:
        lines = ["HTTP/1.1 101 Switching Protocols", *UPGRADE, *extension]
        lines.append(f"Sec-WebSocket-Accept: {accept_of(request.head)}")
        head = "\r\n".join([*lines, "", ""]).encode()
        return Answer(head + (data if sender == "server" else b""), Then.HOLD)

    def act() -> None:
        authority = f"{server.host}:{server.port}"
        key = f"Sec-WebSocket-Key: {b64encode(b'0' * 16).decode()}"
        head = clients.request_head(
            "GET", f"http://{authority}/", authority, *UPGRADE, key,
            "Sec-WebSocket-Version: 13", *extension, keep_alive=True,
        )  # fmt: skip
        with closing(clients.open_connection(proxy.port)) as connection:
            connection.sendall(head)
            assert servers.read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 101")
            if sender == "client":
                connection.sendall(data)
            clients.read_to_end(connection)

    with AnsweringServer(switch) as server:
        record = observe(laboratory, act)
    closed(*expected, sender).check(record)
    assert record["detail"], "mitmproxy's words"


UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")


def accept_of(head: bytes) -> str:
    """The value of Sec-WebSocket-Accept (RFC 6455 §4.2.2)."""
    key = next(
        value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n"))
        if name.lower() == b"sec-websocket-key"
    )
    return b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()


# --- interim responses ---


@pytest.mark.parametrize(
    ("code", "description"), [(100, "Continue"), (103, "Early hints"), (102, "Processing")]
)
def test_interim_response_before_the_final_one(
    laboratory: Laboratory, code: int, description: str
) -> None:
    proxy = laboratory.proxy("regular")
    interim = f"HTTP/1.1 {code} Whatever\r\n\r\n".encode()
    with AnsweringServer(Answer(interim + servers.OK.data)) as server:
        answered: list[bytes] = []
        record = observe(laboratory, lambda: answered.append(clients.get(proxy, server)))
    assert b"hello" not in answered[0], "the final answer got through"
    overlaid(code, description, -1, "interim_response", "proxy").check(record)


def hint_and_answer(connection: H2Connection, stream: int) -> None:
    connection.send_headers(stream, [(":status", "103"), ("link", "</a.css>; rel=preload")])
    connection.send_headers(stream, [(":status", "200"), ("content-length", "5")])
    connection.send_data(stream, b"hello", end_stream=True)


def test_interim_response_over_http2_is_no_failure(laboratory: Laboratory) -> None:
    proxy = laboratory.proxy("regular")
    server = Http2Server(hint_and_answer, tls=laboratory.authority.http2(), name=HOST)

    def act() -> None:
        with clients.open_http2(proxy, server) as client:
            client.request()
            client.read_to_end()

    with server:
        OK.check(observe(laboratory, act))
