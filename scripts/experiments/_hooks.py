"""Odd flows through the addon's hooks, in odd orders; `abuse.py` runs it in processes of its own.

    PYTHONPATH=addon:scripts .venv/bin/python -m experiments._hooks FIRST BLOCKS

A block is a session of its own: `INPUTS` hooks of flows that are made from its number alone, so
each can be repeated. Values are of two kinds: what a peer can bring about, and (in every second
block) what another script can set, which is anything. Prints one JSON object: how many inputs, and
each finding with its block, how often, and where it came from.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import fields
from dataclasses import is_dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from flowtally.addon import Flowtally
from flowtally.valid import check
from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy.log import MitmLogHandler
from mitmproxy.proxy import server_hooks
from mitmproxy.test import taddons
from mitmproxy.test import tflow

INPUTS = 500
"""Hooks of a block."""
MAX_LINE = 65536
"""The longest line that a log may have, in bytes."""

TEXTS = (
    *("", "a", "\0", "\ud800", "é" * 5, "x" * 5000, "[::1]", "1.2.3.4", " ", "%00", "..", "*"),
    *("\r\n", "collateral", "buffered", "tcp_timeout", "http://u:p@h/?q=1", "\x1b[31m", "\u202e"),
)
ODD: tuple[Callable[[], Any], ...] = (
    *(lambda: None, lambda: 0, lambda: -1, lambda: math.inf, lambda: math.nan, lambda: "x"),
    *(lambda: b"x", list, dict, lambda: (1, 2), lambda: True, lambda: 2**70, lambda: -5.5),
    *(lambda: "404", lambda: ["127.0.0.1", 1], lambda: {"a": []}, object, lambda: "\ud800"),
    *(
        lambda: 65536,
        lambda: 70000,
        lambda: b"\xff\xfe",
        lambda: ("x",),
        lambda: [None],
        lambda: set,
    ),
)
HEADERS = (
    *(b"host", b"origin", b"content-type", b"content-encoding", b"content-length", b"location"),
    *(
        b"sec-fetch-mode",
        b"sec-fetch-site",
        b"access-control-request-method",
        b"cookie",
        b"upgrade",
    ),
    *(b"access-control-request-headers", b"access-control-allow-origin", b"authorization"),
    *(b"access-control-allow-methods", b"access-control-allow-headers", b"proxy-authorization"),
    *(b"access-control-allow-credentials", b"www-authenticate", b"grpc-status", b"grpc-message"),
    *(b"grpc-timeout", b"sec-fetch-user", b"transfer-encoding", b"range"),
)
VALUES = (
    *(b"", b"*", b"cors", b"cross-site", b"same-origin", b"none", b"null", b"https://a.example"),
    *(b"http://[", b"http://[::1]:99999/", b"application/json", b"application/grpc", b"gzip"),
    *(b"application/grpc-web+proto", b"application/grpc-web-text", b"text/event-stream", b"br"),
    *(b"zstd", b"deflate", b"PUT", b"x-a, ,b(", b"\xff\xff", b"0", b"13", b"99999999999", b"-1"),
    *(b"\xb2", b"1S", b"99999999H", b"localhost", b"%ff%41", b"a" * 9000, b"//[", b"/self"),
    *(b"http://b\xc3\xbc.example/", b"\xed\xa0\x80", b"chunked", b"h2c", b"Basic eDp5", b"NTLM"),
)
BODIES = (
    *(b"", None, b'{"query":"{a}"}', b'{"errors":[1]}', b"\0\0\0\0\1x", b"\x1f\x8b\x08junk"),
    *(b'[{"query":"query Q{a}","operationName":"collateral"}]', b'[{"errors":[{}]}]'),
    *(
        b"\x80\0\0\0\x0fgrpc-status: 5\r",
        b"gAAAAA9ncnBjLXN0YXR1czogNQ==",
        b'{"query":' + b"[" * 5000,
    ),
    *(b'{"errors":' + b"[" * 9999, b'{"query":"\\ud800","errors":[null]}'),
)
BYTES = (
    *(b"", b"GET", b"\xff\xfe", b"x" * 3000, b"PRI", b"CONNECT", b"/;a=1?b=2", b"http", b"HTTP/9"),
    *(b"\0", b"HTTP/2.0", b"OPTIONS", b"POST", b"HEAD", b"/", b"h:99999", b"https"),
)
PAGES = (
    *(b"/", b"/report.json", b"/session.jsonl", b"/flows", b"/flows?from=-1", b"/flows?from=x"),
    *(b"/flows?from=99999999999999999999", b"/\xff", b"/?\x1b[31m", b"/flows?" + b"a=1&" * 999),
)
"""Paths of the live page's."""
ERRORS = (
    *("Client disconnected.", "peer closed connection", "Connection killed.", "", "x"),
    *("stream reset by client (CANCEL)", "stream reset by client (INTERNAL_ERROR)", "Unexpected"),
    *("[Errno 111] x", "[Errno -2] x", "connection closed", "client disconnected", "\ud800"),
    "OpenSSL Error([('a', 'b', 'tlsv1 alert unknown ca')])",
    "HTTP/2 connection closed: <ConnectionTerminated error_code:11, last_stream_id:0, "
    "additional_data:41>",
    "Received HTTP/2 data frame, expected headers.",
)
LINES = (
    "TLS Error: [('SSL routines', '', 'tlsv1 alert unknown ca')]",
    "Unexpected data from server: b'x'",
    "x sent an invalid message: y",
    "Bad HTTP request line: b'word / HTTP/1.1'",
    "Closing connection due to inactivity: x",
    "mitmproxy has crashed!",
    "Client does not support SOCKS5 with no authentication.",
)
TAGS: tuple[Any, ...] = (
    *({}, "x", None, {"cause": []}, {"outcome": "error", "cause": 5, "reason": 5}),
    {"answered_by": "proxy", "reason": "buffered"},
)
STATUSES = (200, 200, 101, 103, 204, 206, 301, 302, 307, 401, 407, 403, 500, 599, 999, 0, 100000)
HOOKS = {
    "HTTPFlow": (
        *("requestheaders", "request", "responseheaders", "response", "error", "http_connect"),
        *("http_connected", "http_connect_error", "websocket_end", "http_connect_upstream"),
    ),
    "DNSFlow": ("dns_request", "dns_response", "dns_error"),
    "TCPFlow": ("tcp_start", "tcp_end", "tcp_error"),
    "UDPFlow": ("udp_start", "udp_end", "udp_error"),
}


class Maker:
    """Makes flows."""

    def __init__(self, random: Random, odd: bool) -> None:
        self.random = random
        self.odd = odd
        """Also what only another script can bring about."""

    def text(self) -> str:
        return self.random.choice(TEXTS)

    def when(self) -> float | None:
        now = time.time()
        if self.random.random() < 0.7:
            return now - self.random.random()
        return self.random.choice((None, 0.0, now - 5, now + 5, 1e12, -1e12, math.nan, math.inf))

    def headers(self) -> http.Headers:
        count = self.random.randrange(8)
        pairs = ((self.random.choice(HEADERS), self.random.choice(VALUES)) for _ in range(count))
        return http.Headers(tuple(pairs))

    def flow(self) -> Any:
        random = self.random
        kind = random.choice(("http",) * 8 + ("websocket", "dns", "tcp", "udp"))
        error = random.random() < 0.35
        flow: Any
        if kind == "dns":
            flow = tflow.tdnsflow(resp=random.random() < 0.5, err=error)
        elif kind == "tcp":
            flow = tflow.ttcpflow(err=error)
        elif kind == "udp":
            flow = tflow.tudpflow(err=error)
        else:
            flow = tflow.tflow(ws=kind == "websocket", resp=random.random() < 0.7)
            self._request(flow.request.data)
            if flow.response:
                self._response(flow.response.data)
            if flow.websocket:
                self._websocket(flow.websocket)
            flow.error = mflow.Error(random.choice(ERRORS), self.when() or 0.0) if error else None
        self._connections(flow)
        flow.live = random.random() < 0.8
        if random.random() < 0.1:
            flow.is_replay = random.choice(("request", "response"))
        if self.odd:
            self._spoil(flow)
        return flow

    def _request(self, data: Any) -> None:
        random = self.random
        for name in ("method", "path", "scheme", "authority", "http_version"):
            if random.random() < 0.3:
                setattr(data, name, random.choice(BYTES))
        if random.random() < 0.3:
            data.host = self.text()
        data.port = random.choice((0, 65535, 80, 443))
        data.headers, data.content = self.headers(), random.choice(BODIES)
        if random.random() < 0.05:
            data.host, data.path = "flowtally.test", random.choice(PAGES)
            data.method, data.port = b"GET", 80
        data.timestamp_start, data.timestamp_end = self.when() or 0.0, self.when()

    def _response(self, data: Any) -> None:
        random = self.random
        data.status_code = random.choice(STATUSES)
        data.headers, data.content = self.headers(), random.choice(BODIES)
        data.timestamp_start, data.timestamp_end = self.when() or 0.0, self.when()
        if random.random() < 0.3:
            data.trailers = self.headers()
            data.reason, data.http_version = random.choice(BYTES), random.choice(BYTES)

    def _websocket(self, websocket: Any) -> None:
        random = self.random
        websocket.close_code = random.choice((None, 1000, 1006, 1002, 4000, 65535, 0))
        websocket.closed_by_client = random.choice((None, True, False))
        websocket.close_reason = random.choice((None, self.text()))
        websocket.timestamp_end = self.when()

    def _connections(self, flow: Any) -> None:
        random = self.random
        client, server = tflow.tclient_conn(), tflow.tserver_conn()
        addresses: tuple[Any, ...] = (
            ("127.0.0.1", random.randrange(1, 65535)),
            ("::1", 5, 0, 0),
            ("127.0.0.1", 7),
        )
        client.peername = random.choice(addresses)
        client.timestamp_end = random.choice((None, time.time()))
        client.sni = random.choice((None, "h", self.text()))
        server.id = random.choice(("s1", "s2", str(random.random())))
        server.address = random.choice((None, ("h", 80), ("::1", 443), (self.text(), 0)))
        server.error = random.choice((None, None, random.choice(ERRORS)))
        server.via = random.choice((None, None, ("http", ("p", 3128))))
        server.alpn = random.choice((None, b"h2", b"http/1.1", b"h3", b"\xff"))
        server.transport_protocol = random.choice(("tcp", "tcp", "udp"))
        for name in ("timestamp_start", "timestamp_tcp_setup", "timestamp_tls_setup"):
            setattr(server, name, self.when())
        flow.client_conn, flow.server_conn = client, server

    def _spoil(self, flow: Any) -> None:
        """Sets attributes to anything, as another script can."""
        random = self.random
        if random.random() < 0.15:
            name = random.choice(("flowtally", "proxyauth", "flowtally.page"))
            flow.metadata[name] = random.choice(TAGS)
        for _ in range(random.randrange(3)):
            parts = [flow, flow.client_conn, flow.server_conn, flow.error]
            for name in ("request", "response", "websocket"):
                part = getattr(flow, name, None)
                parts.append(getattr(part, "data", part))
            part = random.choice([part for part in parts if part is not None])
            # mitmproxy itself needs the identity.
            names = [name for name in attributes(part) if name not in ("id", "metadata")]
            try:
                setattr(part, random.choice(names), random.choice(ODD)())
            except Exception:
                pass  # it has a setter that refuses it


def attributes(part: Any) -> list[str]:
    named = (
        [field.name for field in fields(part)]
        if is_dataclass(part)
        else list(getattr(part, "__dict__", ()))
    )
    return [name for name in named if not name.startswith("_")] or ["x"]


class Findings(logging.Handler):
    """What must not happen: text → how often, and the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, tuple[int, int, str]] = {}
        self.block = 0

    def add(self, what: str, where: str) -> None:
        count, block, first = self.found.get(what, (0, self.block, where))
        self.found[what] = (count + 1, block, first)

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        # What another script did wrong may be told as a defect, once.
        if "defect" in message and self.block % 2 == 0:
            trace = (
                "".join(traceback.format_exception(record.exc_info[1])) if record.exc_info else ""
            )
            self.add(message[:150], trace[-900:])


CONNECTION_HOOKS = (
    *("client_connected", "client_disconnected", "next_layer", "server_connect"),
    *("server_connected", "server_connect_error", "server_disconnected"),
    *("tls_clienthello", "tls_start_server", "tls_established_server", "tls_failed_server"),
    *("tls_established_client", "tls_failed_client"),
)
OTHERS = ("log", "error", "page", "tick", "new")
"""What stands for a line of mitmproxy's log, for a page of its errors, and for time."""


def connection_hook(addon: Any, random: Random, flow: Any, runner: asyncio.Runner) -> str:
    """Calls a hook of a connection, or what stands for something else that happens."""
    client, server = flow.client_conn, flow.server_conn
    name = random.choice(CONNECTION_HOOKS + OTHERS)
    if name in CONNECTION_HOOKS:
        data: Any = SimpleNamespace(
            context=SimpleNamespace(client=client, server=server),
            conn=client if name.endswith("_client") else server,
            client_hello=SimpleNamespace(cipher_suites=random.choice(((), (0x0A0A, 0x1301), None))),
            data_client=lambda: random.choice(BYTES),
            data_server=lambda: random.choice(BYTES),
        )
        if name.startswith("server"):
            data = server_hooks.ServerConnectionHookData(client=client, server=server)
        elif name in ("client_connected", "client_disconnected"):
            data = client

        async def call() -> None:  # one of them looks for the task that it is called in
            getattr(addon, name)(data)

        runner.run(call())
        return name
    failures, record = addon.failures, addon._record_events
    peername = getattr(flow.client_conn, "peername", None)
    problem = random.choice((None, OSError(24, "x"), ValueError("x")))
    if name == "log":
        client = random.choice((None, peername))
        record(failures.log_line, client, random.choice(LINES), problem)
    elif name == "error":
        logger = random.choice(("asyncio", "mitmproxy.addons.readfile", ""))
        record(failures.error_line, logger, random.choice(LINES), problem)
    elif name == "page":
        text = "HTTP request has no host header, destination unknown."
        record(failures.error_response, peername, text, random.choice(BYTES))
    elif name == "tick":
        addon._on_timer()
    elif random.random() < 0.02:
        addon._end_session()
        addon._begin_session()
    return name


def play(number: int, folder: Path, findings: Findings) -> None:
    """One block."""
    random = Random(number)
    findings.block = number
    maker = Maker(random, odd=number % 2 == 1)
    addon = Flowtally()
    log = folder / f"{number}.jsonl"
    with taddons.context(addon) as context, asyncio.Runner() as runner:
        for handler in list(logging.getLogger().handlers):
            if isinstance(handler, MitmLogHandler):
                logging.getLogger().removeHandler(handler)
        urls = random.choice(("redacted", "full", "origin"))
        context.configure(addon, flowtally_log=str(log), flowtally_urls=urls)
        addon.running()
        flows: list[Any] = []
        for _ in range(INPUTS):
            flow = random.choice(flows) if flows and random.random() < 0.5 else maker.flow()
            flows = [*flows[-20:], flow]
            name = random.choice(HOOKS[type(flow).__name__])
            try:
                if random.random() < 0.15:
                    name = connection_hook(addon, random, flow, runner)
                else:
                    waiting = getattr(addon, name)(flow)
                    if waiting is not None:  # a request for the live page, which is answered
                        runner.run(waiting)
            except Exception as problem:
                where = traceback.format_exc()
                frame = traceback.extract_tb(problem.__traceback__)[-1]
                at = f"{Path(frame.filename).name}:{frame.lineno}"
                findings.add(f"raises: {name}: {type(problem).__name__} at {at}", where[-900:])
        good = tflow.tflow(resp=True)
        good.client_conn.peername = ("127.0.0.9", 9)
        addon.requestheaders(good)
        addon.response(good)
        addon.done()
    judge(log, findings, good.id)
    log.unlink()


def judge(log: Path, findings: Findings, good: str) -> None:
    """The log must be readable by flowtally itself, and end with statistics; the flow `good`, which
    came last, must be what it was."""
    last: dict[str, Any] = {}
    told = 0
    for line in log.read_bytes().splitlines():
        if len(line) > MAX_LINE:
            findings.add("a line is too long", line[:300].decode("utf-8", "replace"))
        last = json.loads(line)
        told += last.get("flow") == good and last.get("status") == 200
        if reason := check(last):
            findings.add(f"record refused: {reason[:100]}", line[:600].decode("utf-8", "replace"))
    if told != 1:
        findings.add("a good flow after odd ones is not told as what it was", str(told))
    if not last.get("final"):
        findings.add("no final statistics", str(last)[:300])


def main(first: int, blocks: int) -> None:
    findings = Findings()
    logging.getLogger("flowtally").addHandler(findings)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + blocks):
            play(number, Path(folder), findings)
    found = [
        {"what": what, "times": count, "block": block, "where": where}
        for what, (count, block, where) in sorted(findings.found.items())
    ]
    print(json.dumps({"inputs": blocks * INPUTS, "found": found}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
