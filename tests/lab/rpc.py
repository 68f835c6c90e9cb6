"""A gRPC service of bytes, and a client that calls it through the proxy."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from typing import Self

import grpc
from trustme import CA

from .proxy import Mitmdump
from .servers import WAIT_TIMEOUT
from .tls import HOST

SERVICE = "lab.Service"
LIMIT = 1000
"""Bytes of the largest message that the service takes."""


class Service:
    """Its methods: `Echo`, `Count` (a stream), `Raise`, and two that end with the status and text
    that the request names: `Fail`, and `FailLate`, a stream that has begun."""

    def __init__(self, authority: CA) -> None:
        certificate = authority.issue_cert(HOST)
        pair = (certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())
        self._server = grpc.server(
            ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", LIMIT)]
        )
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        handlers = {
            "Echo": unary(lambda request, _: request),
            "Fail": unary(self._fail),
            "Raise": unary(self._raise),
            "Count": stream(lambda request, _: iter([request] * 3)),
            "FailLate": stream(self._fail_late),
        }
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(SERVICE, handlers)]
        )
        self.host = HOST
        self.port: int = self._server.add_secure_port(
            "127.0.0.1:0", grpc.ssl_server_credentials([pair])
        )

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait(WAIT_TIMEOUT)

    @staticmethod
    def _fail(request: bytes, context: Any) -> bytes:
        name, _, message = request.decode().partition(" ")
        context.abort(grpc.StatusCode[name], message)
        return b""

    def _fail_late(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield b"begun"
        self._fail(request, context)

    @staticmethod
    def _raise(_request: bytes, _context: Any) -> bytes:
        raise ValueError("boom")


def call(
    proxy: Mitmdump, port: int, method: str, request: bytes = b"", timeout: float = WAIT_TIMEOUT
) -> Any:
    """Calls a method of the service; returns the status with which the call ended."""
    options = [("grpc.http_proxy", proxy.url), ("grpc.enable_retries", 0)]
    credentials = grpc.ssl_channel_credentials(proxy.ca.read_bytes())
    streams = method in ("Count", "FailLate")
    with grpc.secure_channel(f"{HOST}:{port}", credentials, options) as channel:
        make = channel.unary_stream if streams else channel.unary_unary
        try:
            answer = make(f"/{SERVICE}/{method}")(request, timeout=timeout)
            list(answer)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK
