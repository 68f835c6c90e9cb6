"""Requests for credentials through a real mitmdump, answered by real clients."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import browser
from lab import servers
from lab.expected import Expected
from lab.expected import status
from lab.factories import over_tls
from lab.laboratory import Laboratory
from lab.laboratory import Setup
from lab.proxy import Mitmdump
from lab.proxy import Record

pytestmark = pytest.mark.timeout(60)

OK = status(200, "OK")
UNAUTHORIZED = status(401, "Unauthorized")
LOGIN = Setup(options={"proxyauth": "user:secret"})
# Just the fields that a client needs to go on (MS-NLMP §2.2.1.2).
NTLM_CHALLENGE = base64.b64encode(
    b"NTLMSSP\0" + b"\2\0\0\0" + b"\0" * 8 + b"\1\x02\0\0" + b"12345678" + b"\0" * 16
)


def challenge(scheme: bytes) -> servers.Answer:
    head = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: "
    return servers.Answer(head + scheme + b"\r\n\r\n")


def login(scheme: bytes) -> Callable[[servers.Request], servers.Answer]:
    """Lets in whoever logs in by this scheme with any user and the password `secret`."""

    def answer(request: servers.Request) -> servers.Answer:
        lines = request.head.split(b"\r\n")
        given = next((line for line in lines if line.lower().startswith(b"authorization:")), b"")
        token = given.rpartition(b" ")[2]
        match scheme.split()[0]:
            case b"Basic" if given and base64.b64decode(token).endswith(b":secret"):
                return servers.OK
            case b"Digest" if b"response=" in given:
                return servers.OK
            case b"NTLM" if given:
                # The second message of the client's, or its third and last.
                first = base64.b64decode(token)[8:12] == b"\1\0\0\0"
                return challenge(b"NTLM " + NTLM_CHALLENGE) if first else servers.OK
        return challenge(scheme)

    return answer


def curl_by(tool: Callable[..., Path], proxy: Mitmdump, *arguments: str) -> None:
    command = [str(tool("curl")), "-sS", "-x", proxy.url, "--cacert", str(proxy.ca), *arguments]
    subprocess.run(command, capture_output=True, timeout=30, check=True)


def assert_chain(records: list[Record], expected: list[Expected]) -> None:
    """Each record is as expected, and answers the one before, which only the first does not."""
    for record, wanted in zip(records, expected, strict=True):
        wanted.check(record)
    assert [record.get("answers") for record in records] == [
        None,
        *(record["flow"] for record in records[:-1]),
    ]
    assert [record.get("challenge") for record in records] == [
        None,
        *(record["status"] for record in records[:-1]),
    ]


@pytest.mark.parametrize(
    ("scheme", "arguments", "expected"),
    [
        (b'Basic realm="x"', ["--anyauth", "-u", "user:secret"], [UNAUTHORIZED, OK]),
        (b'Digest realm="x", nonce="y"', ["--digest", "-u", "user:secret"], [UNAUTHORIZED, OK]),
        (b"NTLM", ["--anyauth", "-u", "user:secret"], [UNAUTHORIZED, UNAUTHORIZED, OK]),
        # The password is wrong: the last one is a problem.
        (b'Basic realm="x"', ["--anyauth", "-u", "user:wrong"], [UNAUTHORIZED, UNAUTHORIZED]),
        # Credentials without having been asked.
        (b'Basic realm="x"', ["-u", "user:secret"], [OK]),
        (b'Basic realm="x"', [], [UNAUTHORIZED]),
    ],
    ids=["basic", "digest", "ntlm", "wrong password", "unasked", "none"],
)
def test_login_to_a_server(
    laboratory: Laboratory,
    tool: Callable[..., Path],
    scheme: bytes,
    arguments: list[str],
    expected: list[Expected],
) -> None:
    proxy = laboratory.proxy("regular")
    with servers.AnsweringServer(login(scheme)) as server:
        records = laboratory.observe(
            proxy, lambda: curl_by(tool, proxy, *arguments, server.url), len(expected)
        )
    assert_chain(records, expected)


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_login_to_the_proxy(
    laboratory: Laboratory, tool: Callable[..., Path], secure: bool
) -> None:
    """Of a tunnel that was opened there is no record: the request in it answers for it."""
    proxy = laboratory.mitmdump(f"login {secure}", LOGIN)
    server = over_tls(servers.OK) if secure else lambda _: servers.AnsweringServer(servers.OK)
    with proxy, server(laboratory) as origin:
        # Inside a tunnel a second request is not asked again.
        urls = [origin.url, origin.url] if secure else [origin.url]
        curl_by(tool, proxy, "--proxy-anyauth", "-U", "user:secret", *urls)
        proxy.wait_for(lambda _: len(proxy.flows()) > len(urls))
    chain, rest = proxy.flows()[:2], proxy.flows()[2:]
    kind = "connect" if secure else "http"
    needed = status(407, "Proxy authentication required", kind=kind, answered_by="proxy")
    assert_chain(chain, [needed, OK])
    for record in rest:
        OK.check(record)
        assert "answers" not in record


def test_login_in_chromium(laboratory: Laboratory, tool: Callable[..., Path]) -> None:
    proxy = laboratory.proxy("regular")
    executable = tool(*browser.NAMES)
    with servers.AnsweringServer(login(b'Basic realm="x"')) as server:

        def act() -> None:
            credentials = {"username": "user", "password": "secret"}
            settings = browser.through(proxy.port) | {"http_credentials": credentials}
            with (
                browser.launch(executable) as chromium,
                browser.opened(chromium, **settings) as page,
            ):
                page.goto(f"{server.url}/page")

        records = laboratory.observe(proxy, act, 2)
    pages = [record for record in records if record.get("url", "").endswith("/page")]
    assert_chain(pages, [UNAUTHORIZED, OK])
