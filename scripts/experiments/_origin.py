"""The servers behind the proxies of an experiment: a process of its own on 127.0.0.1.

It answers whatever comes in as fast as it can, so that the proxy is what is measured: HTTP/1 in the
clear; HTTP/1, HTTP/2 and gRPC over TLS. What asks for a WebSocket gets its messages back.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import multiprocessing
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived
from h2.events import RequestReceived
from h2.events import StreamEnded
from h2.exceptions import ProtocolError
from lab.tls import Authority

BODY = b'{"items": [' + b'"item", ' * 100 + b"null]}"
BODIES = {"/large": b"x" * 200_000, "/streamed": b"x" * 1_000_000}
"""Those of some paths; `BODY` is that of all others."""
GRPC = b"\x00\x00\x00\x00\x05hello"
"""A gRPC message, with its prefix."""
TRAILERS = [("grpc-status", "0")]
UPGRADE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n"
)


def _answer(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    return head % (len(body), body)


ANSWERS = {path.encode(): _answer(body) for path, body in BODIES.items()}
USUAL = _answer(BODY)


class Http1(asyncio.Protocol):
    """Answers requests without bodies."""

    def __init__(self) -> None:
        self._received = b""
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each complete request head, or send messages back."""
        if self._upgraded:
            for frame in _frames(data):
                self.transport.write(frame)
            return
        *complete, self._received = (self._received + data).split(b"\r\n\r\n")
        for head in complete:
            key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
            if key:
                digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
                self.transport.write(UPGRADE % base64.b64encode(digest))
                self._upgraded = True
            else:
                path = head.split(b" ", 2)[1]
                self.transport.write(ANSWERS.get(path, USUAL))


def _frames(data: bytes) -> Iterator[bytes]:
    """A client's short frames as a server sends them back (RFC 6455 §5.2)."""
    while data:
        size = data[1] & 0x7F
        first, mask, text, data = data[:1], data[2:6], data[6 : 6 + size], data[6 + size :]
        yield first + bytes([size]) + bytes(b ^ mask[at % 4] for at, b in enumerate(text))


class Http2(asyncio.Protocol):
    """Answers each stream with `BODY`, or as a gRPC service does."""

    def __init__(self) -> None:
        self._connection = H2Connection(H2Configuration(client_side=False))
        self._calls: set[int] = set()
        """Streams that are calls of gRPC."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with the settings."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._connection.initiate_connection()
        transport.write(self._connection.data_to_send())

    def data_received(self, data: bytes) -> None:
        """Answer the streams that have ended."""
        with suppress(ProtocolError):
            for event in self._connection.receive_data(data):
                if isinstance(event, DataReceived):
                    size = event.flow_controlled_length
                    self._connection.acknowledge_received_data(size, event.stream_id)
                elif isinstance(event, RequestReceived):
                    if (b"content-type", b"application/grpc") in event.headers:
                        self._calls.add(event.stream_id)
                elif isinstance(event, StreamEnded):
                    self._answer(event.stream_id)
        self.transport.write(self._connection.data_to_send())

    def _answer(self, stream: int) -> None:
        grpc = stream in self._calls
        self._calls.discard(stream)
        kind = "application/grpc" if grpc else "application/json"
        self._connection.send_headers(stream, [(":status", "200"), ("content-type", kind)])
        self._connection.send_data(stream, GRPC if grpc else BODY, end_stream=not grpc)
        if grpc:
            self._connection.send_headers(stream, TRAILERS, end_stream=True)


class Either(asyncio.Protocol):
    """Speaks what was agreed upon in the TLS handshake."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the connection to who speaks its protocol."""
        assert isinstance(transport, asyncio.Transport)
        agreed = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        protocol = Http2() if agreed == "h2" else Http1()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


@dataclass(frozen=True)
class Ports:
    """Where the servers are, on 127.0.0.1."""

    plain: int
    tls: int


def _serve(ports: Connection, certificate: Path) -> None:
    async def serve() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.set_alpn_protocols(["h2", "http/1.1"])
        loop = asyncio.get_running_loop()
        plain = await loop.create_server(Http1, "127.0.0.1", 0, backlog=1024)
        tls = await loop.create_server(Either, "127.0.0.1", 0, ssl=context, backlog=1024)
        ports.send(Ports(*(server.sockets[0].getsockname()[1] for server in (plain, tls))))
        await asyncio.Event().wait()

    asyncio.run(serve())


@contextmanager
def origin(folder: Path) -> Iterator[Ports]:
    """The servers, for as long as they are needed. `folder`: for their certificate."""
    issued = Authority.create(folder).trusted.issue_cert("localhost", "127.0.0.1")
    certificate = folder / "origin.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(certificate)
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, certificate), daemon=True)
    process.start()
    there.close()  # so that recv fails, rather than waits, when the process does
    try:
        yield here.recv()
    finally:
        process.kill()
        process.join()
