"""Secrets: a token of its own in every place where a secret can stand, and a search for each.

What is done: for each value of `flowtally_urls`, a mitmdump gets requests, answers, connections,
WebSockets, HTTP/2 and gRPC streams, logins and SOCKS names with tokens in them; then all that
flowtally wrote is searched for each token, also in lower case, as hexadecimal and as Base64: the
log, its lines in mitmproxy's log, the summary, the live page, what it put into the flows that
mitmproxy saves, and the command line's text, HTML, JSON, CSV, Markdown, JUnit, tables and shell
commands. Files and folders are looked at: who may read them, and what a planted link does.

What is bounded: each place is tried once; an exchange ends when nothing comes for half a second.

How it can fail: a token is found that is not kept by design (`KEPT`), a place named there is not
found any more (so the search itself is tested), a file is readable by others, a link is followed
into a file of somebody else's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import closing
from contextlib import suppress
from pathlib import Path

from h2.connection import H2Connection
from h2.errors import ErrorCodes
from lab import clients
from lab import http2
from lab.http2 import Http2Server
from lab.proxy import ADDON
from lab.proxy import MITMDUMP
from lab.proxy import Mitmdump
from lab.servers import Answer
from lab.servers import AnsweringServer
from lab.servers import Server
from lab.servers import Then
from lab.servers import read_until
from lab.tls import HOST
from lab.tls import Authority
from mitmproxy.io import FlowReader

from ._files import PRINTING
from .result import Result

MODES = ("redacted", "origin", "full")

KEPT = {
    "redacted": {
        "path segment": "the path is what a report is about",
        "name of a query value": "names are no values",
        "host name": "kept at every setting",
        "CONNECT host name": "kept at every setting",
        "SOCKS host name": "kept at every setting",
        "media type": "the type without its parameters, from the answer's head",
        "plain word of a close reason": "close reasons and grpc-messages are kept, bounded",
        "GraphQL operation": "the reason names the operation",
    },
    "origin": {
        "host name": "scheme, host and port are all that is kept",
        "CONNECT host name": "scheme, host and port are all that is kept",
        "SOCKS host name": "scheme, host and port are all that is kept",
    },
    "full": {
        place: why
        for why, places in {
            "host names are kept at every setting": (
                *("host name", "CONNECT host name", "SOCKS host name"),
            ),
            "the target of a request, as it was sent": (
                *("path segment", "query value", "query without a name", "name of a query value"),
                *("matrix parameter", "matrix parameter, escaped", "session parameter"),
                *("query, escaped", "JWT segment", "JWT signature", "fragment", "userinfo"),
                *("query of a WebSocket", "query over a bad certificate", "CONNECT target"),
                *("userinfo of CONNECT", "query of an odd URL", "query of a URL with a bad port"),
                *("query of a URL without a host", "userinfo of a URL without a host", "scheme"),
                *("malformed target with :// in its query", "target that is a query"),
                *("target that is nothing", "host and what is no port"),
            ),
            "a word of a request line, or what a peer says is wrong with it": (
                *("method", "asked method", "first word", "only word", "media type"),
                "GraphQL operation",
            ),
            "a peer's words, bounded": (
                *("plain word of a close reason", "token in a close reason", "grpc-message"),
                *("password in a close reason", "query in a close reason", "debug data of GOAWAY"),
                *("bearer token of a grpc-message", "userinfo in a grpc-message"),
                *("query in a grpc-message", "value in a grpc-message", "JSON in a grpc-message"),
                "escaped value in a grpc-message",
            ),
        }.items()
        for place in places
    },
}
"""Setting → place that is kept by design, with the reason."""

WATCHER = """
import logging

class Keeper(logging.Handler):
    def emit(self, record):
        with open({file!r}, "a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(self.format(record) + "\\n")

logging.getLogger("flowtally").addHandler(Keeper())
"""
"""A script that keeps flowtally's own lines of mitmproxy's log: mitmproxy's may hold anything."""

REFUSED = ("that file exists and is no", "flowtally did not write it", "there is no folder")
"""What is said of a link that leads to a file of somebody else's, or nowhere."""


class Tokens:
    """Gives out tokens, and knows where each was put."""

    def __init__(self) -> None:
        self.places: dict[str, str] = {}
        """Token → place."""

    def __call__(self, place: str, *, word: bool = False) -> str:
        """`word`: letters only, what nothing can tell from a word of a language."""
        number = len(self.places)
        token = f"Zq{number:03d}xK9w7Rt5Bv3Lm"
        if word:
            token = "sesame" + "".join("bcdfghjklm"[int(digit)] for digit in f"{number:03d}")
        self.places[token] = place
        return token


def forms(token: str) -> Iterator[bytes]:
    """A token as it may have been written."""
    data = token.encode()
    yield data
    yield token.lower().encode()
    yield token.upper().encode()
    yield data.hex().encode()
    for shift in range(3):  # what is safe to look for, wherever in the text the token began
        encoded = base64.b64encode(b"\0" * shift + data)
        yield encoded[4 if shift else 0 : -4]


class Bench:
    """A proxy, servers as they are needed, and tokens."""

    def __init__(self, folder: Path, urls: str, authority: Authority) -> None:
        self.token = Tokens()
        self.authority = authority
        self._resources = ExitStack()
        self.own_lines = folder / "own.txt"
        self.saved = folder / "saved.flows"
        folder.mkdir()
        self.own_lines.touch()
        watcher = folder / "watcher.py"
        watcher.write_text(WATCHER.format(file=str(self.own_lines)))
        self._refusing = Answer(
            f"HTTP/1.1 407 {self.token('reason phrase of an upstream proxy')}\r\n"
            "Content-Length: 0\r\n\r\n".encode(),
            Then.CLOSE,
        )
        self.upstream = self.open(AnsweringServer(self._refusing))
        login = f"{self.token('login of an upstream proxy')}:pass"
        self.proxy = Mitmdump(
            folder / "proxy",
            modes=("regular", "socks5", f"upstream:{self.upstream.url}"),
            options={
                "flowtally_timeout": "1",
                "flowtally_urls": urls,
                "ssl_verify_upstream_trusted_ca": str(authority.bundle),
                "upstream_auth": login,
            },
            arguments=["-w", str(self.saved)],
            scripts=[watcher],
            confdir=folder.parent / "confdir",
        )

    def __enter__(self) -> Bench:
        self.proxy.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.proxy.running:
            self.proxy.stop()
        self._resources.close()

    def open(self, server: AnsweringServer) -> AnsweringServer:
        return self._resources.enter_context(server)

    def serve(self, head: str, body: bytes = b"", then: Then = Then.KEEP) -> AnsweringServer:
        """A server that answers this: a status line, header lines without Content-Length."""
        data = f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        return self.raw(data, then)

    def raw(self, data: bytes, then: Then = Then.CLOSE) -> AnsweringServer:
        return self.open(AnsweringServer(Answer(data, then)))

    def send(self, data: str | bytes, mode: str = "regular") -> bytes:
        """Bytes to the proxy; returns what came until nothing did for half a second."""
        given = data.encode("latin-1") if isinstance(data, str) else data
        with closing(clients.open_connection(self.proxy.ports[mode])) as connection:
            connection.settimeout(0.5)
            answer = b""
            with suppress(OSError):
                connection.sendall(given)
                while piece := connection.recv(65536):
                    answer += piece
        return answer

    def ask(self, server: Server, path: str = "/", *lines: str, method: str = "GET") -> None:
        """A request in absolute form with these header lines."""
        authority = f"{server.host}:{server.port}"
        head = [f"{method} http://{authority}{path} HTTP/1.1", f"Host: {authority}", *lines]
        close = [] if "Connection: Upgrade" in lines else ["Connection: close"]
        self.send("\r\n".join([*head, *close, "", ""]))

    def post(self, server: Server, body: str, *lines: str) -> None:
        authority = f"{server.host}:{server.port}"
        head = [f"POST http://{authority}/ HTTP/1.1", f"Host: {authority}", *lines]
        head += [f"Content-Length: {len(body)}", "Connection: close", "", body]
        self.send("\r\n".join(head))


# -- the places


def in_requests(bench: Bench) -> None:
    token, fine = bench.token, bench.serve("404 Not Found")
    authority = f"{fine.host}:{fine.port}"
    bench.ask(fine, f"/?q={token('query value')}&{token('query without a name')}")
    bench.ask(fine, f"/?{token('name of a query value', word=True)}=1")
    bench.ask(fine, f"/a/{token('path segment', word=True)}/b")
    bench.ask(fine, f"/p;m={token('matrix parameter')}/b;jsessionid={token('session parameter')}")
    bench.ask(fine, f"/p%3Bm%3D{token('matrix parameter, escaped')}")
    bench.ask(fine, f"/p%3Ftoken={token('query, escaped')}")
    bench.ask(fine, f"/eyJhbGciOiJub25lIn0.{token('JWT segment')}.{token('JWT signature')}/x")
    bench.ask(fine, f"/p#{token('fragment')}")
    bench.ask(
        fine,
        "/",
        f"Authorization: Bearer {token('Authorization')}",
        f"Cookie: a={token('cookie')}",
        f"Referer: http://h/?{token('Referer')}",
        f"X-Api-Key: {token('own header')}",
        f"{token('header name')}: 1",
        f"Proxy-Authorization: Basic {base64.b64encode(token('proxy login').encode()).decode()}",
        f"User-Agent: {token('user agent')}",
    )
    bench.post(fine, f"password={token('form body')}", "Content-Type: application/json")
    bench.ask(fine, "/", method=token("method"))
    for line in (
        f"GET http://u:{token('userinfo')}@{authority}/ HTTP/1.1\r\nHost: {authority}\r\n\r\n",
        f"GET http://{authority}/ HTTP/1.1\r\nHost: u:{token('userinfo in Host')}@h\r\n\r\n",
        f"GET {token('scheme').lower()}://{authority}/ HTTP/1.1\r\nHost: a\r\n\r\n",
        f"GET http://{authority}/ HTTP/{token('version')}\r\nHost: {authority}\r\n\r\n",
        f"GET http://{authority}/ HTTP/1.1\r\nHost: a\r\nB N: {token('bad header')}\r\n\r\n",
        f"GET http://{authority}/ HTTP/1.1\r\nHost: a\r\n{token('header without colon')}\r\n\r\n",
    ):
        bench.send(line)
    for name in ("Content-Length", "Transfer-Encoding"):
        bench.send(
            f"POST http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n"
            f"{name}: {token(f'bad {name}')}\r\n\r\n"
        )
    bench.send(
        f"POST http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n"
        f"Transfer-Encoding: chunked\r\n\r\n{token('chunk header')}\r\n"
    )
    bench.send(f"GET http://{token('host name', word=True)}.invalid/ HTTP/1.1\r\nHost: a\r\n\r\n")


def in_malformed_targets(bench: Bench) -> None:
    token = bench.token
    for target, place in (
        ("/{}", "path without a host"),
        ("?{}", "target that is a query"),
        ("foo?a=http://b/{}", "malformed target with :// in its query"),
        ("x://y?token={}", "query of an odd URL"),
        ("http://h:99999/?t={}", "query of a URL with a bad port"),
        ("http:///p?t={}", "query of a URL without a host"),
        ("host:{}", "host and what is no port"),
        ("{}", "target that is nothing"),
        ("http://u:{}@:1/", "userinfo of a URL without a host"),
    ):
        bench.send(f"GET {target.format(token(place))} HTTP/1.1\r\n\r\n")
    bench.send(f"{token('first word')} {token('second word')}\r\n\r\n")
    bench.send(f"{token('only word')}\r\n\r\n")
    bench.send(f"CONNECT {token('CONNECT target')} HTTP/1.1\r\n\r\n")
    bench.send(f"CONNECT u:{token('userinfo of CONNECT')}@127.0.0.1:1 HTTP/1.1\r\n\r\n")
    name = token("CONNECT host name", word=True)
    bench.send(f"CONNECT {name}.invalid:443 HTTP/1.1\r\nHost: a\r\n\r\n")
    name = f"{token('SOCKS host name', word=True)}.invalid"
    socks = b"\x05\x01\x00\x03" + bytes([len(name)]) + name.encode() + b"\x01\xbb"
    with closing(clients.open_connection(bench.proxy.ports["socks5"])) as connection:
        connection.sendall(b"\x05\x01\x00")
        connection.recv(2)
        connection.sendall(socks)
        connection.recv(10)
    user, password = token("SOCKS user"), token("SOCKS password")
    login = bytes([1, len(user)]) + user.encode() + bytes([len(password)]) + password.encode()
    bench.send(b"\x05\x01\x02" + login, "socks5")
    bench.send(f"GET /{token('HTTP on SOCKS')} HTTP/1.1\r\n\r\n", "socks5")


def in_answers(bench: Bench) -> None:
    token = bench.token
    ask, serve, raw = bench.ask, bench.serve, bench.raw
    ask(serve(f"200 {token('reason phrase')}", b"x"))
    ask(serve(f"302 Found\r\nLocation: http://h/?t={token('Location')}"))
    ask(serve(f'401 No\r\nWWW-Authenticate: Basic realm="{token("realm")}"'))
    ask(serve(f"200 OK\r\nSet-Cookie: s={token('Set-Cookie')}", token("body").encode()))
    ask(serve(f"200 OK\r\nContent-Type: text/x; token={token('media type parameter')}", b"x"))
    ask(serve(f"200 OK\r\nContent-Type: {token('media type', word=True)}/x", b"x"))
    for head, place in (
        ("HTTP/1.1 abc {}", "bad status line"),
        ("{}", "no status line"),
        ("SSH-2.0-{}", "banner"),
        ("HTTP/1.1 200 OK\r\nX X: {}", "bad header of an answer"),
        ("HTTP/1.1 200 OK\r\nContent-Length: {}", "bad length of an answer"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: {}", "bad coding of an answer"),
    ):
        ask(raw(f"{head.format(token(place))}\r\n\r\n".encode()))
    chunk = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{token('chunk of an answer')}"
    ask(raw(f"{chunk}\r\n".encode()))
    surplus = f"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx{token('surplus')}"
    ask(raw(surplus.encode(), Then.KEEP))
    bench.send("CONNECT h.example:443 HTTP/1.1\r\nHost: h.example\r\n\r\n", bench.proxy.modes[2])
    bench.send("GET http://h.example/ HTTP/1.1\r\nHost: a\r\n\r\n", bench.proxy.modes[2])


def in_overlays(bench: Bench) -> None:
    token, serve = bench.token, bench.serve
    failed = json.dumps({"errors": [{"message": token("GraphQL message")}]})
    graphql = serve("200 OK\r\nContent-Type: application/json", failed.encode())
    asked = {"query": "query {a}", "variables": {"p": token("GraphQL variable")}}
    json_type = "Content-Type: application/json"
    bench.post(graphql, json.dumps(asked), json_type)
    operation = token("GraphQL operation", word=True)
    bench.post(graphql, json.dumps({"query": f"query {operation} {{a}}"}), json_type)
    for message, place in (
        ("{}", "grpc-message"),
        ("Bearer%20{}", "bearer token of a grpc-message"),
        ("http://u:{}@h/", "userinfo in a grpc-message"),
        ("http://h/?a={}", "query in a grpc-message"),
        ("token={}", "value in a grpc-message"),
        ("%22pw%22:%22{}%22", "JSON in a grpc-message"),
        ("pw%3D{}", "escaped value in a grpc-message"),
    ):
        said = message.format(token(place))
        head = "200 OK\r\nContent-Type: application/grpc-web\r\ngrpc-status: 7"
        bench.post(serve(f"{head}\r\ngrpc-message: {said}"), "")
    cors = ("Origin: https://a.example", "Sec-Fetch-Mode: cors", "Sec-Fetch-Site: cross-site")
    allow = "200 OK\r\nAccess-Control-Allow-Origin: "
    bench.ask(serve(f"{allow}https://{token('allowed origin')}"), "/", *cors)
    wanted = f"Access-Control-Request-Method: {token('asked method')}"
    bench.ask(serve(f"{allow}*"), "/", *cors, wanted, method="OPTIONS")
    wanted = f"Access-Control-Request-Headers: {token('asked header').lower()}"
    more = ("Access-Control-Request-Method: PUT", wanted)
    bench.ask(serve(f"{allow}*"), "/", *cors, *more, method="OPTIONS")


class Closing(Server):
    """A WebSocket server that closes with 1008 and these words."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words.encode()

    def serve(self, connection: socket.socket) -> None:
        head = read_until(connection, b"\r\n\r\n")
        found = re.search(rb"(?i)sec-websocket-key: (\S+)", head)
        key = found.group(1) if found else b""
        accept = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        connection.sendall(
            b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(accept) + b"\r\n\r\n"
        )
        payload = (1008).to_bytes(2, "big") + self._words
        connection.sendall(bytes([0x88, len(payload)]) + payload)
        connection.recv(100)


def in_streams(bench: Bench) -> None:
    token = bench.token
    for words in (
        f"session {token('token in a close reason')}",
        f"go {token('plain word of a close reason', word=True)}",
        f"wrong password: {token('password in a close reason')}",
        f"http://h/?t={token('query in a close reason')}",
    ):
        with Closing(words) as server:
            bench.ask(
                server,
                f"/?t={token('query of a WebSocket')}",
                "Upgrade: websocket",
                "Connection: Upgrade",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Version: 13",
            )
    debug = token("debug data of GOAWAY").encode()
    header = token("bad header of HTTP/2")

    def bad_header(connection: H2Connection, stream: int) -> None:
        connection.send_headers(stream, [(":status", "200"), ("x-bad", f" {header} ")])

    for behaviour in (http2.go_away_with(ErrorCodes.ENHANCE_YOUR_CALM, debug), bad_header):
        tls = bench.authority.http2()
        with (
            Http2Server(behaviour, tls=tls, name=HOST) as streams,
            clients.open_http2(bench.proxy, streams) as client,
        ):
            client.request()
            client.wait(0.3)
    # A name that no certificate fits.
    secure = AnsweringServer(Answer(b""), tls=bench.authority.wrong_host(), name=HOST)
    with secure, suppress(OSError):
        clients.get_tls(bench.proxy, secure, f"/?t={token('query over a bad certificate')}")


PLACES = (in_requests, in_malformed_targets, in_answers, in_overlays, in_streams)


# -- what flowtally wrote


def written(bench: Bench, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of all that flowtally wrote; the proxy is stopped on the way."""
    for path in ("/", "/report.json", "/session.jsonl", "/flows"):
        head = f"GET http://flowtally.test{path} HTTP/1.1\r\nHost: flowtally.test\r\n"
        head += "Connection: close\r\n\r\n"
        answer = clients.exchange(bench.proxy.port, head.encode())
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
        yield f"live page {path}", answer
    bench.proxy.stop()
    yield "log", bench.proxy.log.read_bytes()
    yield "lines in mitmproxy's log", bench.own_lines.read_bytes()
    yield "summary", bench.proxy.stderr.text.encode("utf-8", "replace")
    log = str(bench.proxy.log)
    yield "comments, marks and tags in a flow file", b"".join(marks(bench.saved))
    for command in PRINTING.values():
        yield " ".join(command), call(*command, log)
    yield "sql", call("sql", log, "FROM flows")
    for name, option in (("report", "--html"), ("check", "--junit"), ("compare", "--html")):
        file = folder / f"{name}.out"
        more = [log] if name == "compare" else []
        more += ["--max", "problems=0"] if name == "check" else []
        said = call(name, option, str(file), log, *more)
        yield f"{name} {option}", said + file.read_bytes()


def marks(saved: Path) -> Iterator[bytes]:
    """What flowtally put into the flows that mitmproxy saved."""
    with saved.open("rb") as file:
        for flow in FlowReader(file).stream():
            own = {key: value for key, value in flow.metadata.items() if "flowtally" in str(key)}
            yield repr((flow.comment, flow.marked, own)).encode()


def call(*arguments: str | Path) -> bytes:
    """Runs the command line; returns what it said on both streams."""
    command = [sys.executable, "-m", "flowtally", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=120)
    # 1: a budget is broken, which is an answer, too.
    assert done.returncode in (0, 1), f"{arguments} ended with {done.returncode}: {done.stderr!r}"
    return done.stdout + done.stderr


def try_mode(urls: str, folder: Path, authority: Authority, result: Result) -> None:
    """One setting."""
    found: dict[str, list[str]] = {}
    with Bench(folder / urls, urls, authority) as bench:
        for put in PLACES:
            put(bench)
        for name, data in written(bench, folder / urls):
            for token, place in bench.token.places.items():
                if any(form in data for form in forms(token)):
                    found.setdefault(place, []).append(name)
        bench.proxy.assert_no_addon_error()
        places = set(bench.token.places.values())
    kept = ", ".join(sorted(found)) or "none"
    result.figures.append(
        (f"Secrets, {urls}", f"{len(places)} places, {len(found)} of them kept: {kept}")
    )
    allowed = set(KEPT[urls])
    result.failures += [
        f"{urls}: {place} is not found, so nothing can be concluded from the search"
        for place in sorted(allowed - set(found))
    ]
    result.failures += [
        f"{urls}: {place} is found in {', '.join(where)}"
        for place, where in sorted(found.items())
        if place not in allowed
    ]


# -- files


def try_files(folder: Path, result: Result) -> None:
    """Who may read what is written, and what a planted link does."""
    confdir = folder / "confdir-of-files"
    empty = folder / "empty.flows"
    empty.touch()
    victim = folder / "victim"
    victim.write_text("somebody else's\n")

    def run_with(*options: str) -> str:
        command: list[str | Path] = [MITMDUMP, "-n", "-r", empty, "-s", ADDON]
        command += ["--set", f"confdir={confdir}", *options]
        # What the umask would allow must not matter.
        script = ["sh", "-c", 'umask 0; exec "$0" "$@" 2>&1', *command]
        return subprocess.run(script, stdout=subprocess.PIPE, text=True, timeout=60).stdout

    run_with()
    made = sorted((confdir / "flowtally").iterdir())
    if len(made) != 1:
        result.failures.append(f"{len(made)} logs in the default folder")
    for path, mode in ((confdir / "flowtally", 0o700), *((log, 0o600) for log in made)):
        found = stat.S_IMODE(path.stat().st_mode)
        result.figures.append(
            (f"Mode of the log's {'folder' if mode == 0o700 else 'file'}", f"{found:o}")
        )
        if found != mode or path.stat().st_uid != os.geteuid():
            result.failures.append(f"{path.name}: mode {found:o}, owner {path.stat().st_uid}")
    link = folder / "linked.jsonl"
    link.symlink_to(victim)
    said = {"the log": run_with("--set", f"flowtally_log={link}")}
    dangling, target = folder / "dangling.html", folder / "elsewhere" / "new"
    dangling.symlink_to(target)
    for name in (link, dangling):
        files = map(str, (name, *made[:1]))
        command = [sys.executable, "-m", "flowtally", "report", "--html", *files]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        said[f"a page, {name.name}"] = done.stderr
    for what, words in said.items():
        if not any(reason in words for reason in REFUSED):
            result.failures.append(f"{what}: a planted link is not refused: {words!r}")
    if victim.read_text() != "somebody else's\n":
        result.failures.append("a planted link led into a file of somebody else's")
    if target.exists():
        result.failures.append("a dangling link made a file elsewhere")


def run(quick: bool, folder: Path, result: Result) -> None:
    """Does all of it; quick is the same: it is about places, not about numbers."""
    del quick
    authority = Authority.create(folder)
    for urls in MODES:
        try_mode(urls, folder, authority, result)
    try_files(folder, result)
