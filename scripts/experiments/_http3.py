"""Odd HTTP/3 for `abuse.py`: streams of real QUIC connections that hold any bytes, at both ends."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from random import Random
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN
from aioquic.h3.connection import H3Connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent
from lab.http3 import Behaviour
from lab.http3 import Http3Server
from lab.tls import HOST
from lab.tls import Authority

Mutated = Callable[[bytes, Random], bytes]

REQUEST_STREAM, CONTROL_STREAM = 0, 2
"""The first streams that a client opens, to send and receive and to send alone: RFC 9000 §2.1."""
SETTINGS = b"\x00\x04\x00"
"""What a control stream begins with: its type, and settings without anything. RFC 9114 §6.2.1."""
GIVE_UP = 5.0
"""Seconds for a connection, handshake and all."""
CODES = (0, 0x100, 0x101, 0x10B, 0x10C, 0x110, 0x174, 2**40)
WORDS = ("", "Connection killed.", "\x1b[31m\u202e", "token=hunter2", "x" * 900)


def request(authority: str, path: str) -> bytes:
    """The frames of a request with a body. Its fields are static ones of RFC 9204, appendix A."""
    fields = b"\0\0\xd4\xd7\x50" + _string(authority) + b"\x51" + _string(path)
    return _frame(1, fields) + _frame(0, b"hello")


def _answer() -> bytes:
    return _frame(1, b"\0\0\xd9\x54" + _string("5")) + _frame(0, b"hello")


def _frame(kind: int, payload: bytes) -> bytes:
    return bytes([kind]) + (len(payload) | 0x4000).to_bytes(2, "big") + payload


def _string(text: str) -> bytes:
    """A string without Huffman's code: RFC 7541 §5.2; up to 126 bytes."""
    return bytes([len(text)]) + text.encode()


def server(authority: Authority, mutated: Mutated) -> Http3Server:
    """One that answers each request in another odd way."""
    return Http3Server(_Ways(mutated), authority.trusted.issue_cert(HOST))


class _Ways(dict[str, Behaviour]):
    """Whatever the path, the next way."""

    def __init__(self, mutated: Mutated) -> None:
        super().__init__()
        self._mutated = mutated
        self._numbers = count()

    def __missing__(self, _: str) -> Behaviour:
        random = Random(next(self._numbers))

        def act(protocol: QuicConnectionProtocol, _: H3Connection, stream: int) -> None:
            way = random.randrange(6)
            if way == 0:
                protocol._quic.reset_stream(stream, random.choice(CODES))
            elif way == 1:
                protocol._quic.close(random.choice(CODES), None, random.choice(WORDS))
            else:
                data = self._mutated(_answer(), random)
                protocol._quic.send_stream_data(stream, data, end_stream=way > 2)

        return act


class _Deaf(QuicConnectionProtocol):
    def quic_event_received(self, event: QuicEvent) -> None:
        """Makes no stream of what comes: that one would raise when it is let go of."""


def speak(port: int, streams: dict[int, bytes], random: Random, patience: float) -> None:
    """A client that sends this on its streams, waits for `patience` seconds, and may say why it
    leaves."""

    async def run() -> None:
        async with connect(
            "127.0.0.1", port, configuration=_configuration(), create_protocol=_Deaf
        ) as client:
            for stream, data in streams.items():
                client._quic.send_stream_data(stream, data, end_stream=stream == REQUEST_STREAM)
            client.transmit()
            with suppress(TimeoutError):
                await asyncio.wait_for(client.wait_closed(), patience)
            if random.random() < 0.5:
                client._quic.close(random.choice(CODES), None, random.choice(WORDS))

    async def bounded() -> None:
        await asyncio.wait_for(run(), GIVE_UP)

    # ConnectionError: the proxy gave no connection.
    with suppress(ConnectionError, TimeoutError):
        asyncio.run(bounded())


def first_datagram(port: int) -> bytes:
    """With which a connection begins; its keys are random."""
    connection = QuicConnection(configuration=_configuration())
    connection.connect(("127.0.0.1", port), now=time.time())
    datagrams: list[tuple[bytes, Any]] = connection.datagrams_to_send(now=time.time())
    return datagrams[0][0]


def _configuration() -> QuicConfiguration:
    return QuicConfiguration(
        alpn_protocols=H3_ALPN, is_client=True, server_name=HOST, verify_mode=ssl.CERT_NONE
    )
