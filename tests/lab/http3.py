"""An HTTP/3 server whose streams and connections fail on purpose, and clients for it.

aioquic comes with mitmproxy. It wants an event loop, so a server runs one in a thread of its own.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from typing import Self

import trustme
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.h3.connection import H3_ALPN
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.events import HandshakeCompleted
from aioquic.quic.events import QuicEvent
from aioquic.quic.events import StreamDataReceived
from aioquic.quic.events import StreamReset

from .servers import WAIT_TIMEOUT
from .tls import HOST

Behaviour = Callable[[QuicConnectionProtocol, H3Connection, int], None]
"""What to do with a stream whose request has arrived."""

_HEAD = [(b":status", b"200"), (b"content-length", b"5")]


def answer(_protocol: QuicConnectionProtocol, h3: H3Connection, stream: int) -> None:
    h3.send_headers(stream, _HEAD)
    h3.send_data(stream, b"hello", end_stream=True)


def stay_silent(_protocol: QuicConnectionProtocol, _h3: H3Connection, _stream: int) -> None:
    pass


def head_only(_protocol: QuicConnectionProtocol, h3: H3Connection, stream: int) -> None:
    h3.send_headers(stream, _HEAD)


def reset(code: int, *, after_head: bool = False) -> Behaviour:
    def act(protocol: QuicConnectionProtocol, h3: H3Connection, stream: int) -> None:
        if after_head:
            h3.send_headers(stream, _HEAD)
        protocol._quic.reset_stream(stream, code)

    return act


def close(code: int, words: str = "", *, frame_type: int | None = None) -> Behaviour:
    """Closes the connection. `frame_type`: None for a code of the application's, HTTP/3's."""

    def act(protocol: QuicConnectionProtocol, _h3: H3Connection, _stream: int) -> None:
        protocol._quic.close(code, frame_type, words)

    return act


def body(data: bytes) -> Behaviour:
    """A body that need not be as long as announced."""

    def act(_protocol: QuicConnectionProtocol, h3: H3Connection, stream: int) -> None:
        h3.send_headers(stream, _HEAD)
        h3.send_data(stream, data, end_stream=True)

    return act


class Http3Server:
    """Speaks HTTP/3 on 127.0.0.1; the path of a request names the behaviour of its stream."""

    def __init__(
        self,
        behaviours: dict[str, Behaviour],
        issued: trustme.LeafCert,
        *,
        idle_timeout: float = 60.0,
    ) -> None:
        self.host = HOST
        self.port = 0
        self._behaviours = behaviours
        self._configuration = QuicConfiguration(
            alpn_protocols=H3_ALPN, is_client=False, idle_timeout=idle_timeout
        )
        with tempfile.TemporaryDirectory() as folder:
            certificate, key = Path(folder, "certificate"), Path(folder, "key")
            issued.cert_chain_pems[0].write_to_path(certificate)
            issued.private_key_pem.write_to_path(key)
            self._configuration.load_cert_chain(certificate, key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: Any = None

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.run_coroutine_threadsafe(self._start(), self._loop)
        starting.result(WAIT_TIMEOUT)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(WAIT_TIMEOUT)

    async def _start(self) -> None:
        behaviours = self._behaviours

        class Protocol(QuicConnectionProtocol):
            def quic_event_received(self, event: QuicEvent) -> None:
                if isinstance(event, HandshakeCompleted):
                    self.h3 = H3Connection(self._quic)
                if not hasattr(self, "h3"):
                    return
                for h3_event in self.h3.handle_event(event):
                    if isinstance(h3_event, HeadersReceived):
                        path = dict(h3_event.headers)[b":path"].decode()
                        behaviours[path](self, self.h3, h3_event.stream_id)
                        self.transmit()

        # Not the port 0 that serve() would take: which one it got, it does not tell.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._server = await serve(
            "127.0.0.1",
            self.port,
            configuration=self._configuration,
            create_protocol=Protocol,
        )

    def _stop(self) -> None:
        self._server.close()
        self._loop.call_soon(self._loop.stop)


class DeadUdpPort:
    """A port on which nobody listens. It stays bound, so that nobody else can open it."""

    def __init__(self) -> None:
        # Bound to another address of the loopback network than the one that is asked for.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.9", 0))
        self.host = HOST
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class _Client(QuicConnectionProtocol):
    """Sends one request, and knows when its stream or the connection is over."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.over = asyncio.Event()
        self.answered = False

    def quic_event_received(self, event: QuicEvent) -> None:
        ended = isinstance(event, StreamDataReceived) and event.end_stream
        self.answered |= ended
        if ended or isinstance(event, ConnectionTerminated | StreamReset):
            self.over.set()

    def request(self, authority: str, path: str) -> int:
        h3 = H3Connection(self._quic)
        stream = self._quic.get_next_available_stream_id()
        head = [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", authority.encode()),
            (b":path", path.encode()),
        ]
        h3.send_headers(stream, head, end_stream=True)
        self.transmit()
        return stream


def _configuration(ca: Path | None) -> QuicConfiguration:
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN,
        is_client=True,
        server_name=HOST,
        verify_mode=ssl.CERT_REQUIRED,
        cafile=str(ca) if ca else None,
    )
    # Another CA than mitmproxy's would do, but certifi's take long to load.
    configuration.cadata = None
    return configuration


def get(port: int, ca: Path, path: str = "/answer", wait: float = WAIT_TIMEOUT) -> bool:
    """A GET through the proxy's `port`; waits until it is over, for `wait` seconds at most. Returns
    whether an answer came to its end."""

    async def run() -> bool:
        async with connect(
            "127.0.0.1", port, configuration=_configuration(ca), create_protocol=_Client
        ) as client:
            assert isinstance(client, _Client)
            client.request(f"{HOST}:{port}", path)
            try:
                await asyncio.wait_for(client.over.wait(), wait)
            except TimeoutError:
                pass
            return client.answered

    try:
        return asyncio.run(run())
    except ConnectionError:
        return False  # the proxy gave no connection


def get_and_close(port: int, ca: Path, path: str, code: int, words: str, wait: float) -> None:
    """A GET whose client closes the connection after `wait` seconds."""

    async def run() -> None:
        async with connect(
            "127.0.0.1", port, configuration=_configuration(ca), create_protocol=_Client
        ) as client:
            assert isinstance(client, _Client)
            client.request(f"{HOST}:{port}", path)
            try:
                await asyncio.wait_for(client.over.wait(), wait)
            except TimeoutError:
                pass
            client._quic.close(code, None, words)
            client.transmit()

    asyncio.run(run())


def distrust(port: int, other_ca: Path) -> None:
    """A client that trusts another CA than the proxy's: it closes with an alert and its words."""

    async def run() -> None:
        async with connect("127.0.0.1", port, configuration=_configuration(other_ca)):
            raise AssertionError("the client trusted the proxy")

    try:
        asyncio.run(run())
    except ConnectionError:
        pass


def close_in_handshake(port: int, code: int, words: str = "") -> None:
    """A client that closes as soon as it has the proxy's first answer."""

    class Closing(QuicConnectionProtocol):
        def datagram_received(self, data: bytes | str, addr: Any) -> None:
            if not self.closed_it:
                self.closed_it = True
                super().datagram_received(data, addr)
                self._quic._close_event = None  # whatever the certificate was worth
                self._quic.close(code, 6, words)
                self.transmit()
            else:
                super().datagram_received(data, addr)

        closed_it = False

    async def run() -> None:
        configuration = _configuration(None)
        configuration.verify_mode = ssl.CERT_NONE
        async with connect(
            "127.0.0.1",
            port,
            configuration=configuration,
            create_protocol=Closing,
            wait_connected=False,
        ) as client:
            client.transmit()  # the ClientHello
            try:
                await asyncio.wait_for(client.wait_closed(), 2.0)
            except TimeoutError:
                pass

    try:
        asyncio.run(run())
    except ConnectionError:
        pass
