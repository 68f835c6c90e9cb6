"""Clients that ask through a proxy as fast as they can, in every protocol, and time each answer."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import time
from collections.abc import Callable
from collections.abc import Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived
from h2.events import StreamEnded
from h2.events import StreamReset

from ._origin import BODIES
from ._origin import BODY
from ._origin import GRPC
from ._origin import Ports

WAIT = 30
"""Seconds to wait for an answer."""
MESSAGE = b"a message of a usual length, as a chat has it"


class Load(Enum):
    """What is asked for: name, mode of the proxy, protocol, path."""

    REVERSE = ("HTTP/1, reverse", "reverse", "http1", "/items/1")
    REGULAR = ("HTTP/1", "regular", "http1", "/items/1")
    TLS = ("HTTP/1 over TLS", "regular", "tls", "/items/1")
    HTTP2 = ("HTTP/2", "regular", "http2", "/items/1")
    GRPC = ("gRPC", "regular", "grpc", "/lab.Service/Echo")
    LARGE = ("HTTP/1, large bodies", "regular", "http1", "/large")
    STREAMED = ("HTTP/1, streamed bodies", "regular", "http1", "/streamed")
    WEBSOCKET = ("WebSocket messages", "regular", "websocket", "/messages")

    def __init__(self, title: str, mode: str, protocol: str, path: str) -> None:
        self.title, self.mode, self.protocol, self.path = title, mode, protocol, path


@dataclass
class Answers:
    """What came back."""

    latencies: list[float]
    """Seconds that each answer took."""
    seconds: float
    """How long all of it took, connecting left out."""


class _Turns:
    """Tells clients when to begin and whether to go on, and takes what they measured."""

    def __init__(self, requests: int, connections: int, begin: Callable[[], None]) -> None:
        self._left = requests
        self._connected = asyncio.Barrier(connections)
        self._begin = begin
        self.begun = 0.0
        self.latencies: list[float] = []

    async def begin(self) -> None:
        """Wait until all clients are connected."""
        if await self._connected.wait() == 0:
            self._begin()
            self.begun = time.perf_counter()

    def next(self) -> bool:
        """Whether to ask once more."""
        self._left -= 1
        return self._left >= 0


def ask(
    load: Load,
    port: int,
    ports: Ports,
    requests: int,
    connections: int,
    begin: Callable[[], None] = lambda: None,
) -> Answers:
    """Ask so many times, over so many connections. `port`: of the proxy, in the load's mode.
    `begin`: called when all are connected.

    Raises: ConnectionError or TimeoutError where an answer was not what the origin sends.
    """

    async def all_clients() -> Answers:
        turns = _Turns(requests, connections, begin)
        clients = [_CLIENTS[load.protocol](load, port, ports, turns) for _ in range(connections)]
        await asyncio.gather(*clients)
        return Answers(turns.latencies, time.perf_counter() - turns.begun)

    return asyncio.run(all_clients())


async def _http1(load: Load, port: int, ports: Ports, turns: _Turns) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    target = load.path if load.mode == "reverse" else f"http://127.0.0.1:{ports.plain}{load.path}"
    await _ask_http1(load, target, f"127.0.0.1:{ports.plain}", reader, writer, turns)


async def _tls(load: Load, port: int, ports: Ports, turns: _Turns) -> None:
    reader, writer = await _tunnel(port, ports, "http/1.1")
    await _ask_http1(load, load.path, f"localhost:{ports.tls}", reader, writer, turns)


async def _ask_http1(
    load: Load,
    target: str,
    host: str,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    turns: _Turns,
) -> None:
    request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    body = BODIES.get(load.path, BODY)
    await turns.begin()
    while turns.next():
        begun = time.perf_counter()
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT)
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"{load.title}: answered {head!r}")
        if await asyncio.wait_for(reader.readexactly(len(body)), WAIT) != body:
            raise ConnectionError(f"{load.title}: answered with another body")
        turns.latencies.append(time.perf_counter() - begun)
    writer.close()


async def _tunnel(
    port: int, ports: Ports, protocol: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection by CONNECT, with TLS in it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    authority = f"localhost:{ports.tls}"
    writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT)
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise ConnectionError(f"CONNECT was answered {head!r}")
    context = ssl.create_default_context()
    # The proxy's certificate is a new one each time.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    await writer.start_tls(context, server_hostname="localhost")
    return reader, writer


async def _http2(load: Load, port: int, ports: Ports, turns: _Turns) -> None:
    reader, writer = await _tunnel(port, ports, "h2")
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    grpc = load.protocol == "grpc"
    head = [
        (":method", "POST" if grpc else "GET"),
        (":scheme", "https"),
        (":authority", f"localhost:{ports.tls}"),
        (":path", load.path),
        *([("content-type", "application/grpc"), ("te", "trailers")] if grpc else []),
    ]
    await turns.begin()
    while turns.next():
        begun = time.perf_counter()
        stream = connection.get_next_available_stream_id()
        connection.send_headers(stream, head, end_stream=not grpc)
        if grpc:
            connection.send_data(stream, GRPC, end_stream=True)
        writer.write(connection.data_to_send())
        body = await _http2_answer(connection, reader, writer)
        if body != (GRPC if grpc else BODY):
            raise ConnectionError(f"{load.title}: answered with {body[:200]!r}")
        turns.latencies.append(time.perf_counter() - begun)
    writer.close()


async def _http2_answer(
    connection: H2Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bytes:
    """The body that came."""
    body = b""
    while True:
        data = await asyncio.wait_for(reader.read(65536), WAIT)
        if not data:
            raise ConnectionError("the proxy closed an HTTP/2 connection")
        ended = False
        for event in connection.receive_data(data):
            if isinstance(event, DataReceived):
                body += event.data
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamReset):
                raise ConnectionError("a stream was reset")
            ended |= isinstance(event, StreamEnded)
        writer.write(connection.data_to_send())
        if ended:
            return body


async def _websocket(load: Load, port: int, ports: Ports, turns: _Turns) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    host = f"127.0.0.1:{ports.plain}"
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET http://{host}{load.path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        "".encode()
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT)
    if not head.startswith(b"HTTP/1.1 101"):
        raise ConnectionError(f"{load.title}: answered {head!r}")
    # Masked with zeros (RFC 6455 §5.3), which leaves the text as it is.
    frame = bytes([0x81, 0x80 | len(MESSAGE), 0, 0, 0, 0]) + MESSAGE
    await turns.begin()
    while turns.next():
        begun = time.perf_counter()
        writer.write(frame)
        answer = await asyncio.wait_for(reader.readexactly(2 + len(MESSAGE)), WAIT)
        if answer[2:] != MESSAGE:
            raise ConnectionError(f"{load.title}: answered {answer!r}")
        turns.latencies.append(time.perf_counter() - begun)
    writer.write(bytes([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8]))
    await asyncio.wait_for(reader.read(), WAIT)
    writer.close()


_CLIENTS: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "http1": _http1,
    "tls": _tls,
    "http2": _http2,
    "grpc": _http2,
    "websocket": _websocket,
}
