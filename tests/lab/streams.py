"""Servers that take their time, bodies that come piece by piece, and a proxy for tunnels."""

from __future__ import annotations

import queue
import socket
from contextlib import suppress

from .servers import WAIT_TIMEOUT
from .servers import Server
from .servers import read_request

PAUSE = 0.1
"""Seconds between two pieces."""

EVENT = b"data: tick\n\n"


class DrippingServer(Server):
    """Answers with an endless chunked body, a piece every `PAUSE` seconds, `count` of them; then it
    stays silent until it is closed."""

    def __init__(self, media_type: str, count: int, piece: bytes = EVENT) -> None:
        super().__init__()
        self._head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
        ).encode("ascii")
        self._count = count
        self._chunk = b"%x\r\n%s\r\n" % (len(piece), piece)
        self.pieces: queue.Queue[int] = queue.Queue()
        """The numbers of the pieces that were sent."""

    def serve(self, connection: socket.socket) -> None:
        while head := read_request(connection):
            self.requests.put(head)
            connection.sendall(self._head)
            for number in range(self._count):
                connection.sendall(self._chunk)
                self.pieces.put(number)
                if self.closing.wait(PAUSE):
                    return
            self.closing.wait()

    def wait_piece(self, number: int) -> None:
        while self.pieces.get(timeout=WAIT_TIMEOUT) != number:
            pass


class TunnellingServer(Server):
    """A proxy that opens the tunnel that CONNECT asks for, and takes nothing else."""

    def serve(self, connection: socket.socket) -> None:
        head = read_request(connection)
        if not head.startswith(b"CONNECT "):
            return
        host, _, port = head.split(b" ")[1].decode("ascii").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=WAIT_TIMEOUT) as origin:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            with self._lock:
                self._connections.add(origin)
            origin.settimeout(None)
            self._spawn(_pass_on, origin, connection)
            _pass_on(connection, origin)
            with self._lock:
                self._connections.discard(origin)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
