"""Secrets through a real proxy: a token of its own stands wherever a secret can stand, and what
flowtally writes is searched for it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from contextlib import suppress

import pytest
from h2.errors import ErrorCodes
from lab import clients
from lab import servers
from lab.clients import Destination
from lab.http2 import Http2Server
from lab.http2 import go_away_with
from lab.laboratory import Laboratory
from lab.laboratory import Setup
from lab.proxy import Mitmdump
from lab.servers import AnsweringServer
from lab.tls import HOST

pytestmark = pytest.mark.timeout(90)

OWN = Destination("flowtally.test", 80)


def token(number: int) -> str:
    return f"zq{number:03}Secretzq"


JSON_WEB_TOKEN = ".".join(
    base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
    for part in ({"alg": "HS256"}, {"sub": "zq900Secretzq"}, {"x": "zq901Secretzq"})
)

PATHS = [
    f"/status/404?a={token(1)}&{token(2)}",
    f"/status/404/x;token={token(3)}/y;jsessionid={token(4)}",
    f"/status/404/x%3Ftoken={token(5)}",
    f"/status/404/x%3Ftoken%3D{token(6)}",
    f"/status/404/x%3Btoken%3D{token(7)}",
    f"/status/404/v/{JSON_WEB_TOKEN}/x",
    f"/status/404/#{token(8)}",
    f"/status/404?next=http://u:{token(9)}@h/",
    f"/status/404/x%26token={token(18)}",
]
RAW: list[Callable[[str], bytes]] = [
    lambda a: f"{token(20)} http://{a}/status/404 HTTP/1.1\r\nHost: {a}\r\n\r\n".encode(),
    lambda a: f"GET {token(21)}://{a}/ HTTP/1.1\r\nHost: {a}\r\n\r\n".encode(),
    lambda a: f"GET host:{token(22)} HTTP/1.1\r\nHost: {a}\r\n\r\n".encode(),
    lambda _: f"{token(23)} is no request\r\n\r\n".encode(),
    lambda _: f"{token(24)}\r\n\r\n".encode(),
    lambda a: f"GET http://{a}:x{token(25)}/?a={token(26)} HTTP/1.1\r\nHost: {a}\r\n\r\n".encode(),
    lambda a: f"GET ://?a={token(27)} HTTP/1.1\r\nHost: {a}\r\n\r\n".encode(),
    lambda a: f"GET http:///?a={token(28)}://x HTTP/1.1\r\nHost: {a}\r\n\r\n".encode(),
    lambda a: f"CONNECT user:{token(29)}@{a} HTTP/1.1\r\nHost: {a}\r\n\r\n".encode(),
    lambda a: f"CONNECT {a}?t={token(30)} HTTP/1.1\r\nHost: {a}\r\n\r\n".encode(),
    lambda a: f"GET http://{a}/ {token(31)}\r\nHost: {a}\r\n\r\n".encode(),
    lambda a: f"GET http://{a}/ HTTP/1.1\r\n{token(32)}\r\n\r\n".encode(),
    lambda a: (
        f"POST http://{a}/ HTTP/1.1\r\nHost: {a}\r\nContent-Length: {token(33)}\r\n\r\n".encode()
    ),
    lambda a: (
        f"POST http://{a}/ HTTP/1.1\r\nHost: {a}\r\nTransfer-Encoding: {token(34)}\r\n\r\n".encode()
    ),
    lambda a: (
        f"GET http://{a}/status/404 HTTP/1.1\r\nHost: {a}\r\nAuthorization: Bearer {token(35)}\r\n"
        f"Cookie: s={token(36)}\r\nX-Key: {token(37)}\r\nConnection: close\r\n\r\n".encode()
    ),
]
ANSWERS = [
    f"HTTP/1.1 200 {token(40)}\r\nX: {token(41)}\r\nContent-Length: 17\r\n\r\n{token(42)}",
    f"HTTP/1.1 302 Found\r\nLocation: /?t={token(43)}\r\nContent-Length: 0\r\n\r\n",
    f"{token(44)} 200 OK\r\n\r\n",
    f"HTTP/1.1 {token(45)} OK\r\n\r\n",
    f"HTTP/1.1 200 OK\r\nContent-Length: {token(46)}\r\n\r\n",
    f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{token(47)}\r\n",
    f"HTTP/1.1 200 OK\r\n{token(48)}\r\n\r\n",
    f"HTTP/1.1 200 OK\r\nContent-Type: text/html; t={token(49)}\r\nContent-Length: 0\r\n\r\n",
    f"HTTP/1.1 200 OK\r\nSet-Cookie: s={token(50)}\r\nContent-Length: 0\r\n\r\n{token(51)}",
    f"SSH-2.0-{token(52)}\r\n",
    f"HTTP/1.1 401 X\r\nWWW-Authenticate: {token(53)}\r\nContent-Length: 0\r\n\r\n",
]
NEVER = {*range(32, 38), *range(41, 44), *range(46, 52), 53}
"""Of headers and bodies nothing is kept, whatever the option says."""


@pytest.mark.parametrize("urls", ["redacted", "origin", "full"])
def test_no_secret_is_written(laboratory: Laboratory, urls: str) -> None:
    setup = Setup(options={"flowtally_urls": urls})
    with laboratory.mitmdump(f"secrets-{urls}", setup) as proxy:
        _tell(proxy, laboratory)
        page = clients.get(proxy, OWN) + clients.get(proxy, OWN, "/report.json")
        page += clients.get(proxy, OWN, "/session.jsonl")
        assert proxy.stop() == 0
        log = proxy.log.read_bytes()
        assert len(proxy.outcomes()) > len(PATHS) + len(ANSWERS)
        reports = b"".join(
            subprocess.run(
                [sys.executable, "-m", "flowtally", *command, str(proxy.log)],
                capture_output=True,
                check=True,
            ).stdout
            for command in (["report", "--json"], ["flows"], ["why"])
        )
        # What mitmproxy logs by itself is its own.
        lines = (proxy.stdout.text + proxy.stderr.text).splitlines()
        own = "\n".join(line for line in lines if "Err: " in line or "] -" in line).encode()
        summary = proxy.stderr.text.partition("\nflowtally: ")[2].encode()
    written = {"log": log, "page": page, "reports": reports, "warnings": own, "summary": summary}
    for where, text in written.items():
        found = {number for number in range(1000) if _stands(token(number).encode(), text)}
        found &= NEVER if urls == "full" else set(range(1000))
        assert not found, (where, sorted(found))
    assert urls != "full" or b"Secretzq" in log


def _stands(secret: bytes, text: bytes) -> bool:
    """Whether a secret stands in a text, as it is or in hexadecimal digits."""
    return secret.lower() in text.lower() or secret.hex().encode() in text


def _send(proxy: Mitmdump, request: bytes) -> None:
    """Send a request, and see whether there is an answer: mitmproxy drops some without a word."""
    with closing(clients.open_connection(proxy.port)) as connection:
        connection.settimeout(0.5)
        with suppress(OSError):
            connection.sendall(request)
            connection.recv(4096)


def _tell(proxy: Mitmdump, laboratory: Laboratory) -> None:
    """Have a secret stand wherever one can."""
    authority = f"127.0.0.1:{laboratory.origin.port}"
    for path in PATHS:
        clients.get(proxy, laboratory.origin, path)
    for raw in RAW:
        _send(proxy, raw(authority))
    for answer in ANSWERS:
        with AnsweringServer(servers.Answer(answer.encode(), servers.Then.CLOSE)) as server:
            _send(proxy, clients.absolute_get(server))
    words = token(60).encode()
    behaviour = go_away_with(ErrorCodes.ENHANCE_YOUR_CALM, words)
    with (
        Http2Server(behaviour, tls=laboratory.authority.http2(), name=HOST) as speaker,
        suppress(OSError),
        clients.open_http2(proxy, speaker) as client,
    ):
        client.request("/")
        client.wait(2)
