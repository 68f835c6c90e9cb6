"""Servers on 127.0.0.1 that do exactly one thing wrong.

A `Server` accepts connections and hands each to a thread. What HTTP/1 servers say is data, an
`Answer`: the bytes to send and how to end. Everything ends when the server is closed.
"""

from __future__ import annotations

import queue
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from enum import auto
from typing import Self

WAIT_TIMEOUT = 15.0


class Server:
    """Accepts TCP connections until closed; subclasses say what happens on one of them."""

    scheme = "http"

    def __init__(
        self,
        host: str = "127.0.0.1",
        *,
        tls: ssl.SSLContext | None = None,
        name: str | None = None,
    ) -> None:
        self._tls = tls
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self.requests: queue.Queue[bytes] = queue.Queue()
        """The head of each request that arrived complete."""
        self.answers: queue.Queue[bytes] = queue.Queue()
        """The bytes of each answer, once they were handed to the kernel."""
        self._listener = socket.create_server((host, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.host = name or host
        """The name to put into URLs; for TLS the one that the certificate has to match."""

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else self.scheme}://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closing.set()
        # A plain close would leave accept() and recv() in the threads waiting.
        with self._lock:
            for connection in (self._listener, *self._connections):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=WAIT_TIMEOUT)
        self._listener.close()

    def hang_up(self) -> None:
        """Closes the connections there are, and goes on."""
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def wait_request(self) -> bytes:
        """Waits for the next complete request head."""
        return self.requests.get(timeout=WAIT_TIMEOUT)

    def wait_answer(self) -> bytes:
        """Waits until the next answer was sent."""
        return self.answers.get(timeout=WAIT_TIMEOUT)

    def serve(self, connection: socket.socket) -> None:
        raise NotImplementedError

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        thread.start()
        # One that has ended keeps its stack as long as it is known (Python 3.13).
        self._threads = [*filter(threading.Thread.is_alive, self._threads), thread]

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._spawn(self._run, connection)

    def _run(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        with self._lock:
            self._connections.add(connection)
        # A peer that resets or closes is part of the game.
        with suppress(OSError):
            if not isinstance(connection, ssl.SSLSocket) or shake_hands(connection):
                self.serve(connection)
        with self._lock:
            self._connections.discard(connection)
        connection.close()


def shake_hands(connection: ssl.SSLSocket) -> bool:
    """False when the handshake failed; then the peer has got the alert that says why."""
    try:
        connection.do_handshake()
    except ssl.SSLError:
        # A close with unread data would be a reset, which can overtake the alert.
        socket.socket.shutdown(connection, socket.SHUT_WR)
        while socket.socket.recv(connection, 65536):
            pass
        return False
    return True


def reset(connection: socket.socket) -> None:
    """Closes with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Then(Enum):
    """How an answer ends."""

    KEEP = auto()
    """Wait for the next request on the connection."""
    CLOSE = auto()
    RESET = auto()
    HOLD = auto()
    """Stay silent until the server is closed."""


@dataclass(frozen=True)
class Answer:
    data: bytes = b""
    then: Then = Then.KEEP
    delay: float = 0.0
    """Seconds between the request and the first byte."""


@dataclass(frozen=True)
class Request:
    head: bytes

    @property
    def path(self) -> str:
        """The path, also of a target in absolute form as an upstream proxy receives it."""
        target = self.head.split(b" ", 2)[1].decode("ascii", "replace")
        return "/" + target.split("/", 3)[3] if "://" in target else target


class AnsweringServer(Server):
    """Reads HTTP/1 requests and sends what `answer` says, whether that is HTTP or not."""

    def __init__(
        self,
        answer: Answer | Callable[[Request], Answer],
        host: str = "127.0.0.1",
        *,
        tls: ssl.SSLContext | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(host, tls=tls, name=name)
        self._answer = answer

    def serve(self, connection: socket.socket) -> None:
        while head := read_request(connection):
            self.requests.put(head)
            if not self.respond(connection, Request(head)):
                return

    def respond(self, connection: socket.socket, request: Request) -> bool:
        answer = self._answer(request) if callable(self._answer) else self._answer
        if answer.delay:
            self.closing.wait(answer.delay)
        connection.sendall(answer.data)
        self.answers.put(answer.data)
        if answer.then is Then.HOLD:
            self.closing.wait()
        elif answer.then is Then.RESET:
            reset(connection)
        return answer.then is Then.KEEP


class FirstBytesServer(AnsweringServer):
    """Answers the first bytes that arrive, whatever they are: a ClientHello for instance."""

    def serve(self, connection: socket.socket) -> None:
        data = connection.recv(65536)
        self.requests.put(data)
        self.respond(connection, Request(b"- / -"))


class EchoServer(Server):
    """Sends back what it receives, until the peer has sent everything."""

    scheme = "tcp"

    def serve(self, connection: socket.socket) -> None:
        while data := connection.recv(65536):
            connection.sendall(data)


class DeadPort:
    """A port that refuses connections. It stays bound, so that nobody else can open it."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._socket = socket.socket()
        self._socket.bind((host, 0))
        self.host = host
        self.port: int = self._socket.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class BlackHole:
    """A port whose SYN is never answered: Linux drops them while the accept queue is full."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.host = "127.0.0.1"
        self.port: int = self._listener.getsockname()[1]
        self._fill: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        for _ in range(16):
            filler = socket.socket()
            filler.settimeout(0.2)
            self._fill.append(filler)
            try:
                filler.connect((self.host, self.port))
            except TimeoutError:
                return self
        raise AssertionError("the accept queue never filled up")

    def __exit__(self, *_: object) -> None:
        for filler in self._fill:
            filler.close()
        self._listener.close()


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """Everything up to and including `end`, or less if the peer closes first."""
    data = b""
    while not data.endswith(end):
        # Byte by byte, so that nothing of what follows is taken.
        byte = connection.recv(1)
        if not byte:
            return data
        data += byte
    return data


def read_request(connection: socket.socket) -> bytes:
    """One request head; its body is read too and dropped. Empty when the peer has closed."""
    head = read_until(connection, b"\r\n\r\n")
    remaining = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            remaining = int(value)
    while remaining and (data := connection.recv(min(remaining, 65536))):
        remaining -= len(data)
    return head if head.endswith(b"\r\n\r\n") else b""


# -- what HTTP/1 servers answer

OK = Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
SLOW = Answer(OK.data, delay=0.5)
SILENT = Answer(then=Then.HOLD)
SILENT_AFTER_HEAD = Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Then.HOLD)
CLOSES = Answer(then=Then.CLOSE)
RESETS = Answer(then=Then.RESET)
GARBAGE_LINE = Answer(b"this is no HTTP\r\n\r\n", Then.CLOSE)
GARBAGE_WITHOUT_LINE_END = Answer(b"this is no HTTP", Then.CLOSE)
BAD_STATUS_LINE = Answer(b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n", Then.CLOSE)
SHORT_BODY = Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", Then.CLOSE)
SHORT_BODY_RESET = Answer(SHORT_BODY.data, Then.RESET)
CHUNKED = Answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
CHUNKED_CUT_OFF = Answer(
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc", Then.CLOSE
)
ILLEGAL_CHUNK_HEADER = Answer(
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n0\r\n\r\n", Then.CLOSE
)
CHUNKED_WITH_TRAILERS = Answer(
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nEtag: x\r\n\r\n",
    Then.CLOSE,
)
LENGTH_AND_CHUNKED = Answer(
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n0\r\n\r\n",
    Then.CLOSE,
)
# What browsers and `requests` accept, and mitmproxy does not.
TWO_EQUAL_LENGTHS = Answer(
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", Then.CLOSE
)
TWO_LENGTHS = Answer(
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 3\r\n\r\nhello", Then.CLOSE
)
NO_CONTENT_CHUNKED = Answer(
    b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Then.CLOSE
)
OLD_AND_CHUNKED = Answer(
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Then.CLOSE
)
NAME_WITH_SPACE = Answer(
    b"HTTP/1.1 200 OK\r\nX Note: from server, refusing\r\nContent-Length: 5\r\n\r\nhello",
    Then.CLOSE,
)
SSH_BANNER = Answer(b"SSH-2.0-OpenSSH_9.6 secret\r\n", Then.CLOSE)
LARGE_BODY = Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n" + b"x" * 4096, Then.CLOSE)
LARGE_CHUNKED_BODY = Answer(
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1000\r\n" + b"x" * 4096 + b"\r\n0\r\n\r\n",
    Then.CLOSE,
)
CONNECT_HOLDS = Answer(b"HTTP/1.1 200 OK\r\n\r\n", Then.HOLD)
CONNECT_FORBIDDEN = Answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", Then.CLOSE)
CONNECT_NEEDS_LOGIN = Answer(
    b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", Then.CLOSE
)


def tls_alert(number: int) -> Answer:
    """A fatal alert instead of a ServerHello (RFC 8446 §6)."""
    return Answer(bytes((0x15, 3, 3, 0, 2, 2, number)), Then.CLOSE)


def close_second(request: Request) -> Answer:
    """Answers a request for `/`, and closes instead of answering any other."""
    return OK if request.path == "/" else CLOSES


def site(request: Request) -> Answer:
    """A site of status codes and redirects; the path says what to answer."""
    path = request.path.partition("?")[0]
    kind, _, rest = path.lstrip("/").partition("/")
    match kind:
        case "status":
            return status_answer(rest)
        case "hop":
            left = int(rest.split("/")[0])
            tail = rest.partition("/")[2]
            if left == 0:
                return OK
            return redirect(f"/hop/{left - 1}" + (f"/{tail}" if tail else ""))
        case "self":
            return redirect("/self")
        case "loop":
            return redirect("/loop-back")
        case "loop-back":
            return redirect("/loop")
        case _:
            return OK


def status_answer(code: str) -> Answer:
    # RFC 9110 §6.4.1: these have no body, so a Content-Length would say something else.
    bodiless = code.startswith("1") or code in ("204", "304")
    head = f"HTTP/1.1 {code} Whatever\r\n" + ("" if bodiless else "Content-Length: 0\r\n")
    return Answer(f"{head}\r\n".encode("ascii"))


def redirect(location: str, code: int = 302) -> Answer:
    head = f"HTTP/1.1 {code} Whatever\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    return Answer(head.encode("ascii"))
