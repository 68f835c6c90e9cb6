"""A WebSocket server that ends connections in the way its path says."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from typing import Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve

from .servers import WAIT_TIMEOUT


class WebSocketServer:
    """A path that ends with `/1000` or `/1011` closes with that code, with `/cut` without a close
    frame."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, name: str = "127.0.0.1") -> None:
        self._server = serve(self._handle, "127.0.0.1", 0, ssl=tls, compression=None)
        self.host = name
        self._scheme = "wss" if tls else "ws"
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(timeout=WAIT_TIMEOUT)

    @staticmethod
    def _handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        ending = connection.request.path.rpartition("/")[2]
        connection.send("hello")
        # The client's answer shows that the greeting has passed the proxy.
        with suppress(ConnectionClosed):
            connection.recv(timeout=WAIT_TIMEOUT)
        if ending == "cut":
            connection.socket.shutdown(socket.SHUT_RDWR)
        else:
            connection.close(int(ending), "as asked")


def talk(url: str, proxy: str, tls: ssl.SSLContext | None = None) -> None:
    """Greets the server and reads until the connection has ended."""
    with connect(url, proxy=proxy, ssl=tls, compression=None) as connection:
        assert connection.recv(timeout=WAIT_TIMEOUT) == "hello"
        connection.send("hello yourself")
        with suppress(ConnectionClosed):
            while True:
                connection.recv(timeout=WAIT_TIMEOUT)


def wait(url: str, proxy: str) -> None:
    """Greets nobody and waits until the connection has ended."""
    with (
        connect(url, proxy=proxy, compression=None, ping_interval=None) as connection,
        suppress(ConnectionClosed),
    ):
        while True:
            connection.recv(timeout=WAIT_TIMEOUT)


def cut_off(url: str, proxy: str) -> None:
    """Goes away after the greeting, without a close frame."""
    with (
        connect(url, proxy=proxy, compression=None) as connection,
        suppress(ConnectionClosed),
    ):
        assert connection.recv(timeout=WAIT_TIMEOUT) == "hello"
        connection.socket.shutdown(socket.SHUT_RDWR)
