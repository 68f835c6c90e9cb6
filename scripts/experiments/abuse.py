"""Abuse: odd flows at the hooks, odd bytes at the sockets, hostile servers, hostile logs.

What is done: hooks of the addon get flows of every kind with odd values in odd orders
(`_hooks.py`); a mitmdump gets connections that begin as HTTP/1, HTTP/2, HTTP/3, TLS, WebSocket,
SOCKS, CONNECT or DNS and go on with bytes changed, cut, doubled and spliced, and servers that
answer so; among them good requests, which are counted at both ends; the command line reads logs,
HARs and flow files with changes of every kind (`_files.py`), and logs that are nothing but size.

What is bounded: inputs by number (quick: 20,000 hooks, 2,000 connections, 300 files of each kind;
else 1,000,000, 100,000 and 5,000), each wait for an answer by 0.3 s, a command by 20 s and 2 GB of
address space.

How it can fail: a hook raises, a defect or a traceback of flowtally's stands in mitmproxy's log, a
good request is missing or told twice, a record is refused by flowtally's own reader, a command
crashes or takes too long or too much, something of a peer's becomes a formula, markup, a control
character of the terminal, or runs in a shell. Hooks and files follow from their number, which is
told; of connections, what is random in TLS and QUIC does not, and what a server answers follows
from the order in which it is asked.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextlib import closing
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from flowtally.valid import check
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from lab import clients
from lab import http2
from lab import servers
from lab.clients import Address
from lab.dns import NameServer
from lab.http2 import Behaviour
from lab.http2 import Http2Server
from lab.proxy import Mitmdump
from lab.servers import Answer
from lab.servers import AnsweringServer
from lab.servers import Request
from lab.servers import Then
from lab.tls import HOST
from lab.tls import Authority

from . import _files
from . import _http3
from .result import Result

WORKERS = 32
PATIENCE = 0.3
"""Seconds for which a connection is read from."""
GOOD_EVERY = 20
"""One connection of so many is a good request."""
SPOKEN = ("http", "websocket", "tcp", "dns", "HTTP/1.1", "HTTP/2.0", "HTTP/3")
"""Kinds and versions that some of the records must have, or these were not tried."""
HTTP3_SHARE, TLS_SHARE = 0.03, 0.1
"""Of the connections; one with HTTP/3 costs as much as ten others."""
PIECES = (
    *(b"\r\n", b"\n", b"\0", b"\xff", b":", b" ", b"\t", b"%", b"?", b"#", b"@", b"//", b"[", b"]"),
    *(b"\r\n\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: a\r\n"),
    *(
        b"0\r\n\r\n",
        b"\x1b[31m",
        b"HTTP/1.1",
        b"://",
        b"99999999999999999999",
        b"-1",
        b"\xe2\x80\xae",
    ),
    *(b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"x" * 70_000, b"\x16\x03\x01\x02\x00"),
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
"""RFC 9113 §3.4, with empty settings."""
CHUNKED = "Transfer-Encoding: chunked"
WEBSOCKET = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)
DNS_QUERY = bytes.fromhex("123401000001000000000000") + b"\7noerror\4test\0\0\1\0\1"
ANSWERS = (
    servers.OK.data,
    servers.CHUNKED.data,
    servers.CHUNKED_WITH_TRAILERS.data,
    servers.LARGE_BODY.data,
    b"HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n",
    b'HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="x", nonce="y"\r\n'
    b"Content-Length: 0\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + servers.OK.data,
    b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc-web\r\nContent-Length: 20\r\n\r\n"
    b"\x80\0\0\0\x0fgrpc-status: 5\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"
    b'{"errors":[1]}',
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: tick\n\n",
    b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x05hello\x88\x02\x03\xe8",
)


def mutated(data: bytes, random: Random, times: int = 3) -> bytes:
    """The bytes with some changes; often with none, so that what comes later is reached."""
    for _ in range(random.randrange(times)):
        at = random.randrange(len(data) + 1)
        to = min(len(data), at + random.choice((1, 1, 4, 40)))
        way = random.randrange(6)
        if way == 0:
            data = data[:at] + random.choice(PIECES) + data[at:]
        elif way == 1:
            data = data[:at] + data[to:]
        elif way == 2:
            data = data[:to] + data[at:]
        elif way == 3:
            data = data[:at]
        elif way == 4:
            data = data[:at] + random.randbytes(to - at) + data[to:]
        else:
            data = data[:at] + random.choice(PIECES) + data[to:]
    return data


class OddNames(NameServer):
    """A name server that repeats the question as if it were an answer."""

    def _serve(self) -> None:
        while True:
            data, address = self._socket.recvfrom(65536)
            if not data:
                return
            self._socket.sendto(data[:2] + b"\x80" + data[3:], address)


class Traffic:
    """A proxy, hostile servers behind it, and connections, each made from its number."""

    def __init__(
        self,
        proxy: Mitmdump,
        hostile: AnsweringServer,
        secure: Mapping[str, Address],
        good: AnsweringServer,
    ) -> None:
        self.proxy = proxy
        self.hostile = hostile
        self.secure = secure
        """Hostile servers over TLS, by what they agree to speak."""
        self.good = good
        self.answered = 0
        """Good requests that got their answer."""
        self.errors: Counter[str] = Counter()
        self._lock = threading.Lock()

    def begin(self, random: Random, number: int) -> tuple[str, list[bytes]]:
        """The mode whose port gets a connection, and what is sent, piece by piece."""
        server = f"{self.hostile.host}:{self.hostile.port}"
        url = f"http://{server}/{number}"
        get = clients.request_head("GET", url, server, "Accept: */*", keep_alive=True)
        kind = random.randrange(12)
        if kind <= 2:
            return self.proxy.modes[0], [get]
        if kind == 3:
            head = clients.request_head("POST", url, server, CHUNKED, "Cookie: a=b")
            return self.proxy.modes[0], [head, b"5\r\nhello\r\n0\r\n\r\n", get]
        if kind == 4:
            frames = b"\x81\x85\0\0\0\0hello\x88\x82\0\0\0\0\x03\xe8"
            upgrade = clients.request_head("GET", url, server, *WEBSOCKET, keep_alive=True)
            return self.proxy.modes[0], [upgrade, frames]
        if kind == 5:
            connect = clients.request_head("CONNECT", server, server, keep_alive=True)
            inside = random.choice((clients.client_hello(HOST), get, PREFACE, b"\0\1raw"))
            return self.proxy.modes[0], [connect, inside]
        if kind == 6:
            return self.proxy.modes[0], [PREFACE]
        if kind == 7:
            return self.proxy.modes[0], [clients.client_hello(HOST)]
        if kind == 8:
            own = clients.request_head("GET", "http://flowtally.test/report.json", "flowtally.test")
            return self.proxy.modes[0], [own]
        if kind == 9:
            return self.proxy.modes[1], [clients.request_head("GET", f"/{number}", "a.example")]
        if kind == 10:
            port = self.hostile.port.to_bytes(2, "big")
            host = self.hostile.host.encode()
            name = b"\x05\x01\x00\x03" + bytes([len(host)]) + host + port
            return self.proxy.modes[2], [b"\x05\x01\x00", name, get]
        return self.proxy.modes[3], [DNS_QUERY]

    def connect(self, number: int) -> None:
        """One connection."""
        if number % GOOD_EVERY == 0:
            self._ask_well(number)
            return
        random = Random(number)
        chance = random.random()
        if chance < HTTP3_SHARE:
            self._connect_http3(random, number)
            return
        if chance < HTTP3_SHARE + TLS_SHARE:
            # The proxy may have no tunnel, or no handshake, to offer.
            with suppress(OSError, AssertionError):
                self._connect_tls(random, number)
            return
        mode, pieces = self.begin(random, number)
        port = self.proxy.ports[mode]
        # TimeoutError, a reset, or a proxy that does not take it: what is judged is the log.
        with suppress(OSError):
            if mode.startswith("reverse:dns"):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.sendto(mutated(pieces[0], random), ("127.0.0.1", port))
                return
            with closing(socket.create_connection(("127.0.0.1", port), 5)) as client:
                client.settimeout(PATIENCE)
                for piece in pieces:
                    client.sendall(mutated(piece, random))
                    client.recv(65536)
                    if random.random() < 0.2:
                        servers.reset(client)
                        return

    def _connect_tls(self, random: Random, number: int) -> None:
        protocol = random.choice(list(self.secure))
        server = self.secure[protocol]
        path, host = f"/{number}", f"{server.host}:{server.port}"
        pieces = [clients.request_head("GET", path, host, keep_alive=True)] * 2
        if protocol == "h2":
            pieces = list(http2_requests(path, host))
        with closing(clients.open_tls(self.proxy, server, protocol)) as client:
            client.settimeout(PATIENCE)
            for piece in pieces:
                client.sendall(mutated(piece, random))
            # HTTP/2 has answers of the proxy's own before that of the server.
            while client.recv(65536):
                pass

    def _connect_http3(self, random: Random, number: int) -> None:
        port = self.proxy.ports[self.proxy.modes[4]]
        if random.random() < 0.2:
            datagram = mutated(_http3.first_datagram(port), random)
            with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(datagram, ("127.0.0.1", port))
            return
        streams = {
            _http3.CONTROL_STREAM: _http3.SETTINGS,
            _http3.REQUEST_STREAM: _http3.request(f"{HOST}:{port}", f"/{number}"),
        }
        streams = {stream: mutated(data, random) for stream, data in streams.items()}
        _http3.speak(port, streams, random, PATIENCE)

    def _ask_well(self, number: int) -> None:
        try:
            answer = clients.get(self.proxy, self.good, f"/good/{number}")
        except OSError as error:
            answer = repr(error).encode()
        with self._lock:
            if answer.startswith(b"HTTP/1.1 200"):
                self.answered += 1
            else:
                self.errors[repr(answer[:80])] += 1


def http2_requests(path: str, authority: str) -> Iterator[bytes]:
    """What an HTTP/2 client sends first, and then."""
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    for method, body in (("GET", b""), ("POST", b"hello")):
        head = [(":method", method), (":scheme", "https"), (":authority", authority)]
        stream = connection.get_next_available_stream_id()
        connection.send_headers(stream, [*head, (":path", path)], end_stream=not body)
        if body:
            connection.send_data(stream, body, end_stream=True)
        yield connection.data_to_send()


def http2_behaviour() -> Behaviour:
    """What a hostile HTTP/2 server does, each time something else."""
    numbers = count()

    def act(connection: H2Connection, stream: int) -> None:
        random = Random(next(numbers))
        way = random.randrange(6)
        if way == 0:
            connection.reset_stream(stream, random.choice(list(ErrorCodes)))
        elif way == 1:
            words = random.choice((b"", b"\x1b[31m", b"token=hunter2"))
            connection.close_connection(random.choice(list(ErrorCodes)), words)
        else:
            http2.answer(connection, stream)
            http2.flush(connection, lambda data: mutated(data, random))

    return act


def hostile_answers() -> Callable[[Request], Answer]:
    """What a hostile server says, each time something else."""
    numbers = count()

    def answer(_: Request) -> Answer:
        random = Random(next(numbers))
        data = mutated(random.choice(ANSWERS), random)
        return Answer(data, random.choice((Then.KEEP, Then.CLOSE, Then.CLOSE, Then.RESET)))

    return answer


def try_sockets(number: int, folder: Path, result: Result) -> Path:
    """Connections to a mitmdump; returns its log."""
    with ExitStack() as resources:
        authority = Authority.create(folder)
        hostile = resources.enter_context(AnsweringServer(hostile_answers()))
        good = resources.enter_context(AnsweringServer(servers.OK))
        names = resources.enter_context(OddNames())
        plain = AnsweringServer(hostile_answers(), tls=authority.good(), name=HOST)
        streams = Http2Server(http2_behaviour(), tls=authority.http2(), name=HOST)
        secure = {"http/1.1": plain, "h2": streams}
        for server in (plain, streams):
            resources.enter_context(server)
        quic = resources.enter_context(_http3.server(authority, mutated))
        behind = (hostile.url, f"dns://127.0.0.1:{names.port}", f"http3://{HOST}:{quic.port}")
        web, dns, http3 = (f"reverse:{url}" for url in behind)
        proxy = Mitmdump(
            folder / "sockets",
            modes=("regular", web, "socks5", dns, http3),
            options={
                "ssl_verify_upstream_trusted_ca": str(authority.bundle),
                "flowtally_timeout": "0.1",
                "body_size_limit": "1m",
            },
        )
        proxy.start()
        resources.callback(lambda: proxy.running and proxy.kill())
        traffic = Traffic(proxy, hostile, secure, good)
        began = time.monotonic()
        with ThreadPoolExecutor(WORKERS) as workers:
            for done, _ in enumerate(workers.map(traffic.connect, range(number)), 1):
                if done % 1000 == 0:
                    print(f"{done} of {number} connections", file=sys.stderr, flush=True)
        rate = number / (time.monotonic() - began)
        if not proxy.running:
            result.failures.append(f"mitmdump ended: {proxy.output[-600:]}")
        proxy.stop()
        lines = proxy.log.read_bytes().splitlines()
        result.failures += judge_log(lines, good.port, traffic.answered, traffic.errors)
        if error := proxy.addon_error():
            result.failures.append(f"in mitmproxy's log: {error[-600:]}")
    flows = sum(b'"type":"flow"' in line for line in lines)
    events = sum(b'"type":"event"' in line for line in lines)
    result.figures.append(
        (
            "Odd connections",
            f"{number:,} ({rate:.0f} a second): {flows:,} flows, {events:,} events; "
            f"{traffic.answered:,} good requests answered",
        )
    )
    return proxy.log


def judge_log(
    lines: Sequence[bytes], port: int, answered: int, errors: Mapping[str, int]
) -> Iterator[str]:
    """Every record must be readable, and each good request told once. `port`: of the good server;
    `answered`: how many requests to it were answered well; `errors`: what else came, how often."""
    told: Counter[str] = Counter()
    kinds: Counter[Any] = Counter()
    last: dict[str, Any] = {}
    for line in lines:
        try:
            last = json.loads(line)
        except ValueError:
            yield f"a line that is no JSON: {line[:200]!r}"
            continue
        # A preface in the clear is a request of that version, too: to mitmproxy it is HTTP/1.
        if last.get("method") != "PRI":
            kinds.update((last.get("kind"), last.get("http_version")))
        if reason := check(last):
            yield f"own record refused: {reason}: {line[:300]!r}"
        if last.get("status") == 200 and last.get("port") == port:
            told[last["url"]] += 1
    if not last.get("final"):
        yield "no final statistics"
    if twice := [url for url, times in told.items() if times > 1]:
        yield f"good requests told more than once: {twice[:3]}"
    if len(told) != answered:
        yield f"{answered} good requests were answered, {len(told)} are told"
    if errors:
        yield f"good requests without a good answer: {dict(errors)}"
    if unseen := [kind for kind in SPOKEN if not kinds[kind]]:
        yield f"no record of {', '.join(unseen)}, so these were not tried"


def try_workers(
    module: str, inputs: int, block: int, *arguments: str | Path
) -> tuple[int, list[str]]:
    """Two processes of a module at a time, a block of numbers each; returns how many inputs there
    were, and what was found."""
    done = 0
    found: dict[str, str] = {}

    def work(first: int) -> dict[str, Any]:
        size = min(block, inputs - first)
        command = [sys.executable, "-W", "ignore", "-m", f"experiments.{module}"]
        command += [*map(str, arguments), str(first), str(size)]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            ran = subprocess.run(
                command, capture_output=True, text=True, env=environment, timeout=BLOCK_SECONDS
            )
        except subprocess.TimeoutExpired:
            what = f"block {first} takes longer than {BLOCK_SECONDS} s"
            return {"inputs": 0, "found": [{"what": what, "where": ""}]}
        if ran.returncode or not ran.stdout:
            what = f"block {first} ended with {ran.returncode}: {ran.stderr[-300:]}"
            return {"inputs": 0, "found": [{"what": what, "where": ""}]}
        told: dict[str, Any] = json.loads(ran.stdout)
        return told

    with ThreadPoolExecutor(2) as workers:
        for told in workers.map(work, range(0, inputs, block)):
            done += told["inputs"]
            for one in told["found"]:
                number = one.get("block", one.get("input", "?"))
                found.setdefault(
                    one["what"], f"{one['what']} (input {number}) {one['where'][-300:]}"
                )
    return done, list(found.values())


BOMBS: dict[str, Callable[[bytes, dict[str, Any]], bytes]] = {
    "lines without anything": lambda log, _: log + b"\n" * 5_000_000,
    "final statistics again and again": lambda log, last: (
        log + (json.dumps({**last, "part": 1, "parts": 1}).encode() + b"\n") * 2000
    ),
    "20,000 sessions": lambda *_: b"".join(
        b'{"type":"session_start","session":"%08x","seq":1,"time":"2026-01-02T03:04:05.000Z",'
        b'"schema":2,"version":"1","mitmproxy":"12"}\n' % number
        for number in range(20_000)
    ),
}
BOMB_MEMORY = 256
"""MB that reading one may take."""
BOMB_SECONDS = 60
BLOCK_SECONDS = 3600
"""For the inputs of one block."""


def try_bombs(log: Path, folder: Path, result: Result) -> None:
    """Logs that are nothing but size."""
    data = log.read_bytes()
    last = json.loads(data.splitlines()[-1])
    code = (
        # Not what getrusage says: that of the process that forked counts in it.
        "import atexit, pathlib, re, runpy, sys\n"
        "status = lambda: pathlib.Path('/proc/self/status').read_text()\n"
        "peak = lambda: re.search(r'VmHWM:\\s+(\\d+)', status()).group(1)\n"
        "atexit.register(lambda: print(peak(), file=sys.stderr))\n"
        "sys.argv[0] = 'flowtally'\n"
        "runpy.run_module('flowtally', run_name='__main__')\n"
    )
    for name, make in BOMBS.items():
        bomb = folder / "bomb.jsonl"
        bomb.write_bytes(make(data, last))
        began = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, "-c", code, "report", bomb],
                capture_output=True,
                text=True,
                timeout=4 * BOMB_SECONDS,
            )
        except subprocess.TimeoutExpired:
            result.failures.append(f"{name}: not read in {4 * BOMB_SECONDS} s")
            continue
        spent = time.monotonic() - began
        if done.returncode:
            result.failures.append(f"{name}: ended with {done.returncode}: {done.stderr[-300:]}")
            continue
        megabytes = int(done.stderr.split()[-1]) / 1024
        size = bomb.stat().st_size / 1e6
        result.figures.append(
            (f"A log of {name}", f"{size:.0f} MB: {spent:.1f} s, {megabytes:.0f} MB")
        )
        if megabytes > BOMB_MEMORY or spent > BOMB_SECONDS:
            result.failures.append(f"{name}: {megabytes:.0f} MB, {spent:.0f} s")


def run(quick: bool, folder: Path, result: Result) -> None:
    """Does all of it."""
    blocks, connections, files = (40, 2000, 300) if quick else (2000, 100_000, 5000)
    log = try_sockets(connections, folder, result)
    done, wrong = try_workers("_hooks", blocks, max(1, blocks // 8))
    result.figures.append(("Odd hooks", f"{done:,} calls, {len(wrong)} findings"))
    result.failures += wrong
    small = folder / "small.jsonl"
    small.write_bytes(shortened(log.read_bytes()))
    seeds = {"logs": small, "HARs": folder / "small.har", "flow files": folder / "small.flows"}
    seeds["HARs"].write_bytes(_files.har())
    seeds["flow files"].write_bytes(_files.flow_file())
    for kind, seed in seeds.items():
        done, wrong = try_workers("_files", files, max(1, files // 8), seed)
        told = f"{done:,}, each read by two commands; {len(wrong)} findings"
        result.figures.append((f"Hostile {kind}", told))
        result.failures += wrong
    try_bombs(small, folder, result)


def shortened(log: bytes) -> bytes:
    """A log's first records, and its last checkpoint."""
    lines = log.splitlines(keepends=True)
    final = [line for line in lines[-100:] if b'"type":"stats"' in line and b'"final":true' in line]
    return b"".join([*lines[:150], *final])
