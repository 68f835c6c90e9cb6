"""HTTP/3 and QUIC get the same causes as HTTP/1 and TCP: real peers, made with aioquic.

One row, one case. A QUIC peer that closes says a number, and may say words of its own, which stand
in mitmproxy's text instead of the number: they must not decide anything.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from aioquic.h3.connection import ErrorCode
from aioquic.quic.packet import QuicErrorCode
from lab import http3
from lab.http3 import DeadUdpPort
from lab.http3 import Http3Server
from lab.laboratory import Laboratory
from lab.laboratory import Setup
from lab.proxy import Mitmdump
from lab.proxy import Record
from lab.tls import HOST

pytestmark = pytest.mark.timeout(90)

# Words that are mitmproxy's own elsewhere.
MISLEADING = "Connection killed."
WAIT = 2.0
"""Longer than the proxy's flowtally_timeout."""

BEHAVIOURS = {
    "/answer": http3.answer,
    "/silent": http3.stay_silent,
    "/head": http3.head_only,
    "/short": http3.body(b"abc"),
    "/rejected": http3.reset(ErrorCode.H3_REQUEST_REJECTED),
    "/fallback": http3.reset(ErrorCode.H3_VERSION_FALLBACK),
    "/closed": http3.close(ErrorCode.H3_NO_ERROR),
    "/closed-with-words": http3.close(ErrorCode.H3_NO_ERROR, MISLEADING),
    "/load": http3.close(ErrorCode.H3_EXCESSIVE_LOAD, f"token=hunter2 {MISLEADING}"),
    "/internal": http3.close(QuicErrorCode.INTERNAL_ERROR, MISLEADING, frame_type=0),
    "/alert": http3.close(0x174, frame_type=6),
}


@dataclass
class Bench:
    proxy: Mitmdump
    ports: dict[str, int]
    other_ca: Path

    @property
    def ca(self) -> Path:
        return self.proxy.ca


@pytest.fixture(scope="module")
def bench(laboratory: Laboratory) -> Iterator[Bench]:
    trusted, unknown = laboratory.authority.trusted, laboratory.authority.unknown

    def server(ca: trustme.CA, host: str = HOST, **more: Any) -> Http3Server:
        idle = more.pop("idle_timeout", 60.0)
        return Http3Server(BEHAVIOURS, ca.issue_cert(host, **more), idle_timeout=idle)

    with ExitStack() as resources:
        servers: dict[str, Http3Server | DeadUdpPort] = {
            "good": server(trusted),
            "idle": server(trusted, idle_timeout=1.0),
            "unknown issuer": server(unknown),
            "expired": server(trusted, not_after=datetime(2020, 1, 1, tzinfo=UTC)),
            "wrong host": server(trusted, "elsewhere.example"),
            "dead": DeadUdpPort(),
        }
        for one in servers.values():
            resources.enter_context(one)
        modes = {name: f"reverse:http3://{one.host}:{one.port}" for name, one in servers.items()}
        setup = Setup(modes=modes, options={"flowtally_timeout": "1.5"}, datagrams=True)
        proxy = resources.enter_context(laboratory.mitmdump("http3", setup))
        ports = {name: proxy.ports[mode] for name, mode in modes.items()}
        yield Bench(proxy, ports, laboratory.authority.bundle)


Act = Callable[[Bench], object]


def get(path: str, server: str = "good") -> Act:
    return lambda bench: http3.get(bench.ports[server], bench.ca, path, 10.0)


def leave(path: str, wait: float, words: str = "") -> Act:
    code = ErrorCode.H3_NO_ERROR
    return lambda bench: http3.get_and_close(bench.ports["good"], bench.ca, path, code, words, wait)


def close_handshake(code: int, words: str = "") -> Act:
    return lambda bench: http3.close_in_handshake(bench.ports["good"], code, words)


def tell(cause: str, reason: str | None = None, side: str = "server", **more: Any) -> Record:
    return {"type": "flow", "cause": cause, "reason": reason, "side": side, **more}


def rejected(reason: str, cause: str = "client_tls_rejected", **more: Any) -> Record:
    return tell(cause, reason, "client", **{"type": "event", **more})


# fmt: off
CASES: list[tuple[str, Act, Record]] = [
    ("no fault", get("/answer"), {"status": 200, "outcome": "status", "cause": None}),
    # certificates
    ("unknown issuer", get("/answer", "unknown issuer"),
     tell("tls_certificate_error", "unknown_issuer")),
    ("expired", get("/answer", "expired"), tell("tls_certificate_error", "expired")),
    ("wrong host", get("/answer", "wrong host"), tell("tls_certificate_error", "wrong_host")),
    # no server, or a silent one
    ("refused", get("/answer", "dead"), tell("connection_refused")),
    ("idle before the head", get("/silent", "idle"), tell("http_response_timeout")),
    ("idle after the head", get("/head", "idle"), tell("connection_read_timeout", status=200)),
    # streams that are reset
    ("request rejected", get("/rejected"),
     tell("http_protocol_error", "request_rejected",
          detail="stream closed by the server (H3_REQUEST_REJECTED)")),
    ("another version wanted", get("/fallback"), tell("http_protocol_error", "version_fallback")),
    ("short body", get("/short"), tell("http_response_incomplete")),
    # connections that are closed
    ("closed by the server", get("/closed"),
     tell("connection_terminated", "closed", detail="H3_NO_ERROR")),
    ("closed with words", get("/closed-with-words"),
     tell("connection_terminated", "closed", detail=f"H3_NO_ERROR: {MISLEADING}")),
    ("too much load", get("/load"),
     tell("http_protocol_error", "excessive_load",
          detail=f"H3_EXCESSIVE_LOAD: token=* {MISLEADING}")),
    ("internal error of QUIC", get("/internal"),
     tell("http_protocol_error", "internal_error", detail=f"INTERNAL_ERROR: {MISLEADING}")),
    ("a TLS alert", get("/alert"),
     tell("tls_alert_received", "certificate_required",
          detail="TLS alert 116, certificate_required")),
    # the client leaves
    ("client leaves early", leave("/silent", 0.1, MISLEADING),
     tell("client_cancelled", None, "client", outcome="cancelled")),
    ("client leaves late", leave("/silent", WAIT, MISLEADING), tell("http_response_timeout")),
    ("client leaves late after the head", leave("/head", WAIT),
     tell("connection_read_timeout", status=200)),
    # the client does not like the proxy's certificate
    ("client distrusts", lambda bench: http3.distrust(bench.ports["good"], bench.other_ca),
     rejected("bad_certificate")),
    ("unknown_ca", close_handshake(0x130),
     rejected("unknown_ca", detail="TLS alert 48, unknown_ca")),
    ("certificate_unknown, with words", close_handshake(0x12E, "no shared cipher"),
     rejected("certificate_unknown")),
    ("no_application_protocol, with words", close_handshake(0x178, "Cannot parse ClientHello"),
     rejected("no_application_protocol", "tls_protocol_error")),
]
# fmt: on


@pytest.mark.parametrize(("act", "expected"), [pytest.param(*row[1:], id=row[0]) for row in CASES])
def test_http3(act: Act, expected: Record, bench: Bench) -> None:
    before = len(bench.proxy.outcomes())
    act(bench)
    bench.proxy.wait_for(lambda _: len(bench.proxy.outcomes()) > before)
    (record,) = bench.proxy.outcomes()[before:]
    assert {name: record.get(name) for name in expected} == expected, record
    assert "hunter2" not in str(record)
