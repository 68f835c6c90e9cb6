"""Shows what flowtally says about every kind of exchange.

    scripts/run.sh --demo [mitmdump arguments]

Servers and clients here, a real mitmdump with the addon between them; all on 127.0.0.1. Each line
tells what was done and what the session log then said of it. Ends with exit status 1 if a status
band or an error code was not seen.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import shlex
import signal
import socket
import socketserver
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from typing import NamedTuple

from cryptography import x509
from flowtally.launch.proxy import LaunchError
from flowtally.launch.proxy import Proxy
from flowtally.logs import read
from flowtally.report import text
from flowtally.report.layout import terminal_width
from flowtally.report.paint import paint_for
from mitmproxy import certs

BANDS = ["Informational", "Success", "Redirection", "Client error", "Server error"]
ERROR_CODES = [-1, -2, -3, -4, -5, -6]
GIVE_UP_SECONDS = 1
"""What flowtally_timeout is set to, so that nobody has to wait for the -6."""

MAX_REDIRECTS = 3
"""What flowtally_max_redirects is set to, so that the list of flows stays short."""

Record = dict[str, Any]


class Origin(socketserver.ThreadingTCPServer):
    """The server behind the proxy: the path of a request says how to behave."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Behaviour)
        self.context = context
        self.port: int = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection, in a thread of its own: so the handshake keeps nobody waiting."""
        with suppress(OSError):
            if self.context is not None:
                request = self.context.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)


class Behaviour(socketserver.StreamRequestHandler):
    """One request, then the connection ends."""

    def handle(self) -> None:
        """Answer `/<status>`, or what a name such as `/loop` or `/silence` says."""
        # A TLS handshake (RFC 8446 §5.1) may hold no line end, so nobody must wait for one.
        if self.rfile.peek(1)[:1] == b"\x16":  # type: ignore[attr-defined]  # it is buffered
            self.answer(400, "Content-Length: 0\r\n")
            return
        request_line = self.rfile.readline().decode("latin-1").split()
        if len(request_line) != 3:
            return
        headers = http.client.parse_headers(self.rfile)
        path = request_line[1].strip("/")
        if path == "loop":
            self.answer(302, "Location: /loop\r\n")
        elif path == "truncated":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        elif path == "silence":
            self.rfile.read(1)
        elif path == "login":
            known = "Authorization" in headers
            self.answer(200 if known else 401, "Content-Length: 0\r\nWWW-Authenticate: Basic\r\n")
        elif path == "grpc":
            self.answer(
                200, "Content-Length: 0\r\nContent-Type: application/grpc\r\ngrpc-status: 14\r\n"
            )
        elif path == "websocket":
            accept = hashlib.sha1(
                f"{headers['Sec-WebSocket-Key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()
            )
            self.answer(
                101,
                "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                f"Sec-WebSocket-Accept: {base64.b64encode(accept.digest()).decode()}\r\n",
            )
            self.rfile.read(1)
            self.wfile.write(b"\x88\x02\x03\xe8")  # close frame, code 1000: RFC 6455 §5.5.1
        else:
            self.answer(int(path), "Content-Length: 0\r\nLocation: /200\r\n")

    def answer(self, status: int, header_lines: str) -> None:
        """Write a response without a body."""
        self.wfile.write(f"HTTP/1.1 {status} Demo\r\n{header_lines}\r\n".encode())


class Client:
    """What a person's browser or app would do, with the standard library alone."""

    def __init__(self, proxy_port: int, trusted_ca: Path) -> None:
        self.proxy = ("127.0.0.1", proxy_port)
        self.trusted_ca = trusted_ca

    def get(self, url: str, times: int = 1, method: str = "GET", **headers: str) -> None:
        """Fetch `url` through the proxy, `times` times; failures are what this is for. In the
        names of `headers`, `_` stands for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for _ in range(times):
            connection = http.client.HTTPConnection(*self.proxy, timeout=10)
            with suppress(OSError, http.client.HTTPException):
                connection.request(method, url, headers=named)
                connection.getresponse().read()
            connection.close()

    def log_in(self, url: str) -> None:
        """Be asked for a password, and give it."""
        self.get(url)
        self.get(url, Authorization="Basic ZGVtbzpkZW1v")

    def get_and_leave(self, url: str, after: float) -> None:
        """Wait for `url` for so many seconds, then leave."""
        connection = http.client.HTTPConnection(*self.proxy, timeout=after)
        with suppress(TimeoutError):
            connection.request("GET", url)
            connection.getresponse()
        connection.close()

    def get_https(self, port: int, host: str = "localhost", trusting: bool = True) -> None:
        """Fetch https://`host`:`port`/200, `trusting` the proxy's certificate or not."""
        context = ssl.create_default_context(cafile=self.trusted_ca if trusting else None)
        connection = http.client.HTTPSConnection(*self.proxy, timeout=10, context=context)
        connection.set_tunnel(host, port)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/200")
            connection.getresponse().read()
        connection.close()

    def send(self, *messages: bytes) -> None:
        """Send `messages` as they are, waiting for something to come back after each."""
        with socket.create_connection(self.proxy, timeout=10) as connection:
            for message in messages:
                connection.sendall(message)
                connection.recv(65536)


class Exchange(NamedTuple):
    """One line of the demonstration."""

    done: str
    """What was done, for the reader."""
    act: Callable[[], None]
    records: int = 1
    """How many flows and events come of it."""


class Log:
    """The session log, read while it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0

    def wait_for(self, count: int) -> list[Record]:
        """Return the next `count` flows and events, or fewer if they take over 5 seconds."""
        found: list[Record] = []
        deadline = time.monotonic() + 5
        while len(found) < count and time.monotonic() < deadline:
            found += [r for r in self.read() if r["type"] in ("flow", "event")]
            time.sleep(0.02)
        return found

    def read(self) -> list[Record]:
        """Return the complete records since the last call."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.position)
            complete = file.read().rpartition(b"\n")[0]
        self.position += len(complete) + bool(complete)
        return [json.loads(line) for line in complete.splitlines()]


def describe(record: Record) -> str:
    """Put a record of the session log in one line."""
    parts = []
    if "status" in record:
        parts.append(f"{record['status']} {record['description']} ({record['band']})")
    if "error_code" in record:
        cause = f": {record['cause']}" if "cause" in record else ""
        reason = f", {record['reason']}" if "reason" in record else ""
        parts.append(f"{record['error_code']} {record['error_name']}{cause}{reason}")
    if "answers" in record:
        parts.append(f"answers the {record['challenge']}")
    return ", ".join(parts) or str(record.get("outcome", "nothing"))


def exchanges(client: Client, plain: Origin, secure: Origin) -> list[Exchange]:
    """List what to do, from the harmless to the broken."""
    host = f"127.0.0.1:{plain.port}"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed_port = unused.getsockname()[1]

    def answered(status: int) -> Exchange:
        return Exchange(
            f"The server answers {status}", lambda: client.get(f"http://{host}/{status}")
        )

    def open_and_close_websocket() -> None:
        client.send(
            f"GET http://{host}/websocket HTTP/1.1\r\nHost: {host}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ZGVtb25zdHJhdGlvbiE9PQ==\r\n"
            "\r\n".encode(),
            b"\x88\x82\x00\x00\x00\x00\x03\xe8",  # masked close frame, code 1000
        )

    return [
        Exchange("A WebSocket opens and closes", open_and_close_websocket),
        *map(answered, [200, 201, 204]),
        Exchange("https, the proxy's certificate trusted", lambda: client.get_https(secure.port)),
        *map(answered, [301, 304, 404, 429, 500, 503]),
        Exchange(
            "A login is asked for, and given", lambda: client.log_in(f"http://{host}/login"), 2
        ),
        Exchange(
            "The client leaves at once, of its own will",
            lambda: client.get_and_leave(f"http://{host}/silence", GIVE_UP_SECONDS / 4),
        ),
        Exchange(
            "200, but the gRPC call failed",
            lambda: client.get(f"http://{host}/grpc", method="POST"),
        ),
        Exchange(
            "200, but the browser keeps it from the page",
            lambda: client.get(
                f"http://{host}/200",
                Origin="http://app.example",
                Sec_Fetch_Mode="cors",
                Sec_Fetch_Site="cross-site",
            ),
        ),
        Exchange("The body stops short", lambda: client.get(f"http://{host}/truncated")),
        Exchange(
            "Nobody listens on the port", lambda: client.get(f"http://127.0.0.1:{closed_port}/")
        ),
        Exchange("Nor there, by https", lambda: client.get_https(closed_port)),
        Exchange("https to a port that speaks plain http", lambda: client.get_https(plain.port)),
        Exchange(
            "https, the certificate is for another host",
            lambda: client.get_https(secure.port, host="127.0.0.1"),
        ),
        Exchange(
            "https, the client rejects the proxy's certificate",
            lambda: client.get_https(secure.port, trusting=False),
        ),
        Exchange(
            "The URL has no host: http:///foo",
            lambda: client.send(b"GET http:///foo HTTP/1.1\r\nHost: foo\r\n\r\n"),
        ),
        Exchange(
            "A redirect leads back to itself",
            lambda: client.get(f"http://{host}/loop", MAX_REDIRECTS),
            MAX_REDIRECTS,
        ),
        Exchange(
            f"Silence; the client gives up after {GIVE_UP_SECONDS}.5 s",
            lambda: client.get_and_leave(f"http://{host}/silence", GIVE_UP_SECONDS + 0.5),
        ),
    ]


def make_secure_origin(folder: Path) -> tuple[Origin, Path]:
    """Start an https server for `localhost`; return it and the CA that vouches for it."""
    store = certs.CertStore.from_store(folder, "origin", 2048)
    certificate = folder / "localhost.pem"
    certificate.write_bytes(store.get_cert("localhost", [x509.DNSName("localhost")]).cert.to_pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # A certificate store signs every certificate for the CA's own key pair.
    context.load_cert_chain(certificate, folder / "origin-ca.pem")
    return Origin(context), folder / "origin-ca-cert.pem"


def settings(folder: Path, log: Path, trusted_ca: Path) -> list[str]:
    """The arguments of mitmdump that the demonstration needs."""
    options = {
        "confdir": folder,
        "flowtally_log": log,
        "flowtally_timeout": GIVE_UP_SECONDS,
        "flowtally_max_redirects": MAX_REDIRECTS,
        "ssl_verify_upstream_trusted_ca": trusted_ca,
    }
    return [part for name, value in options.items() for part in ("--set", f"{name}={value}")]


def demonstrate(arguments: list[str]) -> list[str]:
    """Run the demonstration; return the bands and error codes that were not seen."""
    log = Path(tempfile.mkdtemp(prefix="flowtally-demo-")) / "session.jsonl"
    seen: set[str | int] = set()
    with Proxy() as proxy:
        plain = Origin()
        secure, origin_ca = make_secure_origin(proxy.folder)
        proxy.start([*settings(proxy.folder, log, origin_ca), *arguments])
        reader = Log(log)
        client = Client(proxy.ready.port, proxy.ready.ca)
        for done, act, count in exchanges(client, plain, secure):
            act()
            records = reader.wait_for(count)
            for record in records:
                seen |= {record.get("band", ""), record.get("error_code", 0)}
            said = describe(records[-1]) if records else "nothing within 5 s"
            print(f"{done:<50} → {said}", flush=True)
        proxy.stop()
    tally = read([(str(log), log)]).merged()
    print(*text.ending(tally, log, terminal_width(), paint_for(sys.stdout)), sep="\n", flush=True)
    report = [Path(sys.executable).with_name("flowtally"), "report", log]
    command = shlex.join(map(str, report))
    print(f"\nThe same again, from the log:\n  {command}", flush=True)
    print(f"As a page:\n  {command} --html report.html\n", flush=True)
    return [str(wanted) for wanted in [*BANDS, *ERROR_CODES] if wanted not in seen]


def main() -> None:
    """Show everything, and fail if something was missing."""
    # So that the mitmdump is stopped in any case.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print("A real exchange through a real mitmdump → what flowtally says of it.\n", flush=True)
    try:
        missing = demonstrate(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    except LaunchError as error:
        sys.exit(f"demo.py: {error}")
    if missing:
        sys.exit(f"Not seen: {', '.join(missing)}")
    print("Every status band and every error code was seen.")


if __name__ == "__main__":
    main()
