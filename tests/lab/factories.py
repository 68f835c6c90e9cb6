"""Makes the server of a case, which needs the laboratory for its certificates and ports."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextlib import nullcontext
from typing import Any

from .clients import Destination
from .http2 import Behaviour
from .http2 import Http2Server
from .laboratory import RAW_TCP_HOST
from .laboratory import Laboratory
from .servers import Answer
from .servers import AnsweringServer
from .servers import BlackHole
from .servers import DeadPort
from .servers import EchoServer
from .servers import FirstBytesServer
from .servers import Request
from .tls import HOST
from .tls import Authority
from .websocket import WebSocketServer

ServerFactory = Callable[[Laboratory], AbstractContextManager[Any]]


def nobody(_: Laboratory) -> AbstractContextManager[None]:
    return nullcontext()


def answering(answer: Answer | Callable[[Request], Answer]) -> ServerFactory:
    return lambda _: AnsweringServer(answer)


def over_tls(
    answer: Answer, certificate: Callable[[Authority], ssl.SSLContext] = Authority.good
) -> ServerFactory:
    return lambda laboratory: AnsweringServer(
        answer, tls=certificate(laboratory.authority), name=HOST
    )


def in_handshake(answer: Answer) -> ServerFactory:
    """What comes instead of a ServerHello."""
    return lambda _: FirstBytesServer(answer, name=HOST)


def at(host: str, port: int) -> ServerFactory:
    return lambda _: Destination(host, port)


def dead(_: Laboratory) -> DeadPort:
    return DeadPort()


def dead_by_name(laboratory: Laboratory) -> AbstractContextManager[Destination]:
    return Destination(HOST, laboratory.dead.port)


def black_hole(_: Laboratory) -> BlackHole:
    return BlackHole()


def over_http2(behaviour: Behaviour) -> ServerFactory:
    return lambda laboratory: Http2Server(behaviour, tls=laboratory.authority.http2(), name=HOST)


def raw_tcp(_: Laboratory) -> EchoServer:
    return EchoServer(RAW_TCP_HOST)


def over_websocket(_: Laboratory) -> WebSocketServer:
    return WebSocketServer()


def over_secure_websocket(laboratory: Laboratory) -> WebSocketServer:
    return WebSocketServer(tls=laboratory.authority.good(), name=HOST)
