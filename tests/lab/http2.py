"""An HTTP/2 server whose streams fail on purpose, and a client that can cancel one."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import Self
from weakref import WeakKeyDictionary

from h2.config import H2Configuration
from h2.connection import ConnectionState
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated
from h2.events import Event
from h2.events import RequestReceived
from h2.events import ResponseReceived
from h2.events import StreamEnded
from h2.events import StreamReset

from .servers import WAIT_TIMEOUT
from .servers import Server

Behaviour = Callable[[H2Connection, int], None]
"""What to do with a stream whose request has arrived."""

_HEAD = [(":status", "200"), ("content-length", "5")]


def answer(connection: H2Connection, stream: int) -> None:
    connection.send_headers(stream, _HEAD)
    connection.send_data(stream, b"hello", end_stream=True)


def stay_silent(_connection: H2Connection, _stream: int) -> None:
    pass


def begin(connection: H2Connection, stream: int) -> None:
    """A response that never ends."""
    connection.send_headers(stream, [(":status", "200")])
    connection.send_data(stream, b"begun")


class Dripping:
    """The first stream gets another piece with each request after the second, which are answered;
    the second one has begun and gets nothing more."""

    def __init__(self) -> None:
        self._seen: list[int] = []

    def __call__(self, connection: H2Connection, stream: int) -> None:
        self._seen.append(stream)
        if len(self._seen) <= 2:
            begin(connection, stream)
        else:
            connection.send_data(self._seen[0], b"more")
            answer(connection, stream)


def reset_before_head(code: ErrorCodes) -> Behaviour:
    def reset(connection: H2Connection, stream: int) -> None:
        connection.reset_stream(stream, code)

    return reset


def reset_after_head(code: ErrorCodes) -> Behaviour:
    def reset(connection: H2Connection, stream: int) -> None:
        connection.send_headers(stream, _HEAD)
        connection.reset_stream(stream, code)

    return reset


def go_away(connection: H2Connection, _stream: int) -> None:
    connection.close_connection(ErrorCodes.INTERNAL_ERROR, last_stream_id=0)


def go_away_with(code: ErrorCodes, words: bytes = b"", *, after: int = 1) -> Behaviour:
    """GOAWAY once that many requests have come; those stay without an answer."""
    came: list[int] = []

    def act(connection: H2Connection, stream: int) -> None:
        came.append(stream)
        if len(came) == after:
            connection.close_connection(code, words, last_stream_id=stream)

    return act


def body(data: bytes, *, separately: bool = False) -> Behaviour:
    """A body that need not be as long as announced; `separately`: each frame in its own packet."""

    def act(connection: H2Connection, stream: int) -> None:
        connection.send_headers(stream, _HEAD)
        if separately:
            flush(connection)
        connection.send_data(stream, data)
        if separately:
            flush(connection)
        connection.end_stream(stream)

    return act


def bad_header_on(number: int, *, of: int) -> Behaviour:
    """A header value with white space around it on one stream, once `of` requests have come."""
    came: list[int] = []

    def act(connection: H2Connection, stream: int) -> None:
        came.append(stream)
        if len(came) == of:
            connection.send_headers(came[number], [*_HEAD, ("x-note", " spaced ")])

    return act


def flush(connection: H2Connection, change: Callable[[bytes], bytes] = bytes) -> None:
    """Sends what is ready, or what `change` makes of it, and waits until it has left in a packet of
    its own."""
    data = connection.data_to_send()
    _SOCKETS[connection].sendall(change(data))
    time.sleep(0.05)


_SOCKETS: WeakKeyDictionary[H2Connection, socket.socket] = WeakKeyDictionary()
"""The socket of each connection of a server's."""


class Http2Server(Server):
    """Speaks HTTP/2 over TLS; `behaviour` decides over each stream."""

    def __init__(self, behaviour: Behaviour, *, tls: ssl.SSLContext, name: str) -> None:
        super().__init__(tls=tls, name=name)
        self._behaviour = behaviour

    def serve(self, connection: socket.socket) -> None:
        # What h2 would refuse to send, servers send.
        h2 = H2Connection(
            H2Configuration(
                client_side=False, validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        _SOCKETS[h2] = connection
        h2.initiate_connection()
        connection.sendall(h2.data_to_send())
        while data := connection.recv(65536):
            # Closed by a behaviour: h2 takes what the client sent before it knew for a fault.
            if h2.state_machine.state is ConnectionState.CLOSED:
                return
            for event in h2.receive_data(data):
                if isinstance(event, ConnectionTerminated):
                    return
                if isinstance(event, RequestReceived):
                    assert event.stream_id is not None
                    self._behaviour(h2, event.stream_id)
                    self.requests.put(b"HTTP/2 request")
            connection.sendall(h2.data_to_send())


class Http2Client:
    """Speaks HTTP/2 over a TLS connection that already negotiated it."""

    def __init__(self, connection: ssl.SSLSocket, authority: str) -> None:
        assert connection.selected_alpn_protocol() == "h2", "the proxy did not offer HTTP/2"
        self._connection = connection
        self._authority = authority
        self._h2 = H2Connection(H2Configuration(client_side=True))
        self._h2.initiate_connection()
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def request(self, path: str = "/", *more: tuple[str, str], whole: bool = True) -> int:
        """Sends a GET, or only its head; returns the stream's number."""
        stream: int = self._h2.get_next_available_stream_id()
        headers = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", self._authority),
            (":path", path),
            *more,
        ]
        self._h2.send_headers(stream, headers, end_stream=whole)
        self._flush()
        return stream

    def cancel(self, stream: int, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        self._h2.reset_stream(stream, code)
        self._flush()

    def wait_for_all(self, streams: int) -> None:
        """Reads until that many streams, or the connection, have ended."""
        self._connection.settimeout(WAIT_TIMEOUT)
        left = streams
        while left > 0 and (data := self._connection.recv(65536)):
            for event in self._h2.receive_data(data):
                if isinstance(event, ConnectionTerminated):
                    return
                left -= isinstance(event, StreamEnded | StreamReset)
            self._flush()

    def read_to_end(self) -> list[Event]:
        """Reads until a stream or the connection has ended; returns the events."""
        self._connection.settimeout(WAIT_TIMEOUT)
        events: list[Event] = []
        ends = (StreamEnded, StreamReset, ConnectionTerminated)
        while not any(isinstance(event, ends) for event in events):
            data = self._connection.recv(65536)
            if not data:
                break
            events += self._h2.receive_data(data)
            self._flush()
        return events

    def status(self) -> int:
        """Reads to the end; returns the status of the response, 0 if there was none."""
        for event in self.read_to_end():
            if isinstance(event, ResponseReceived):
                return int(dict(event.headers or ())[b":status"])
        return 0

    def wait(self, seconds: float) -> None:
        """Waits for an answer that is not expected to come, taking what else arrives."""
        self._connection.settimeout(seconds)
        try:
            while data := self._connection.recv(65536):
                self._h2.receive_data(data)
                self._flush()
        except TimeoutError:
            pass

    def _flush(self) -> None:
        self._connection.sendall(self._h2.data_to_send())
