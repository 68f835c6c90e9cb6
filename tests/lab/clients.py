"""Clients that speak through the proxy: well-behaved ones, impatient ones and broken ones."""

from __future__ import annotations

import socket
import ssl
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol
from typing import Self

from .http2 import Http2Client
from .proxy import Mitmdump
from .servers import WAIT_TIMEOUT
from .servers import read_until


class Address(Protocol):
    """Whatever a client can be sent to."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


@dataclass(frozen=True)
class Destination:
    """An address at which the laboratory runs no server."""

    host: str
    port: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def open_connection(port: int, source: str = "127.0.0.1") -> socket.socket:
    """A connection to the proxy; on Linux all of 127.0.0.0/8 can be the `source`."""
    connection = socket.create_connection(
        ("127.0.0.1", port), timeout=WAIT_TIMEOUT, source_address=(source, 0)
    )
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    """Everything until the peer closes or resets."""
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
    except ConnectionResetError:
        pass
    except ssl.SSLError:
        # mitmproxy closes without close_notify.
        pass
    return data


def exchange(port: int, data: bytes, source: str = "127.0.0.1") -> bytes:
    """Sends `data` as it is and returns all that comes back."""
    with closing(open_connection(port, source)) as connection:
        connection.sendall(data)
        return read_to_end(connection)


def request_head(
    method: str, target: str, authority: str, *headers: str, keep_alive: bool = False
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {authority}", *headers]
    if not keep_alive:
        # So that the proxy closes and `read_to_end` ends.
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def get(proxy: Mitmdump, server: Address, path: str = "/", *, source: str = "127.0.0.1") -> bytes:
    """A GET in absolute form."""
    return exchange(proxy.port, absolute_get(server, path), source)


def absolute_get(server: Address, path: str = "/") -> bytes:
    authority = f"{server.host}:{server.port}"
    return request_head("GET", f"http://{authority}{path}", authority)


def open_tunnel(proxy: Mitmdump, server: Address) -> socket.socket | None:
    """CONNECT; None when the proxy answered with anything but a success."""
    connection = open_connection(proxy.port)
    authority = f"{server.host}:{server.port}"
    connection.sendall(request_head("CONNECT", authority, authority, keep_alive=True))
    if read_until(connection, b"\r\n\r\n").split(b" ")[1] == b"200":
        return connection
    connection.close()
    return None


def trusting(proxy: Mitmdump, *protocols: str) -> ssl.SSLContext:
    """The TLS settings of a client on which the proxy's CA is installed."""
    context = ssl.create_default_context(cafile=str(proxy.ca))
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


def open_tls(proxy: Mitmdump, server: Address, *protocols: str) -> ssl.SSLSocket:
    """CONNECT and a TLS handshake with the proxy, which has to succeed."""
    tunnel = open_tunnel(proxy, server)
    assert tunnel is not None, "the proxy refused the tunnel"
    return trusting(proxy, *protocols).wrap_socket(tunnel, server_hostname=server.host)


def get_tls(proxy: Mitmdump, server: Address, path: str = "/") -> bytes:
    """A GET inside a tunnel; empty when there was no tunnel."""
    tunnel = open_tunnel(proxy, server)
    if tunnel is None:
        return b""
    context = trusting(proxy, "http/1.1")
    with context.wrap_socket(tunnel, server_hostname=server.host) as connection:
        connection.sendall(request_head("GET", path, f"{server.host}:{server.port}"))
        return read_to_end(connection)


def connect_without_request(proxy: Mitmdump, server: Address) -> None:
    """Sets up a tunnel with TLS in it, and goes away."""
    open_tls(proxy, server, "http/1.1").close()


def distrust(proxy: Mitmdump, server: Address) -> None:
    """A client without the proxy's CA: it ends the handshake with an alert."""
    tunnel = open_tunnel(proxy, server)
    assert tunnel is not None
    with closing(tunnel):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(tunnel, server_hostname=server.host)
        except ssl.SSLCertVerificationError:
            return
    raise AssertionError("the client trusted the proxy")


def client_hello(server_name: str) -> bytes:
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    handshake = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    try:
        handshake.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def start_handshake(proxy: Mitmdump, server: Address) -> socket.socket:
    """A tunnel in which the client has sent its ClientHello."""
    tunnel = open_tunnel(proxy, server)
    assert tunnel is not None, "the proxy refused the tunnel"
    tunnel.sendall(client_hello(server.host))
    return tunnel


def hang_up_in_handshake(proxy: Mitmdump, server: Address) -> None:
    """A client that pins its certificate: it sees the proxy's one and closes without a word."""
    with closing(start_handshake(proxy, server)) as tunnel:
        assert tunnel.recv(1), "the proxy did not answer the ClientHello"


def open_http2(proxy: Mitmdump, server: Address) -> Http2Client:
    connection = open_tls(proxy, server, "h2", "http/1.1")
    return Http2Client(connection, f"{server.host}:{server.port}")


def wait_in_vain(connection: socket.socket, seconds: float) -> None:
    """Waits that long for an answer, which has not to come, and leaves."""
    with closing(connection):
        connection.settimeout(seconds)
        try:
            data = connection.recv(65536)
        except TimeoutError:
            return
    raise AssertionError(f"an answer came: {data!r}")


def open_socks(proxy_port: int, server: Address) -> tuple[socket.socket, int]:
    """SOCKS 5 without a login; returns the connection and the reply code (RFC 1928 §6)."""
    connection = open_connection(proxy_port)
    connection.sendall(b"\x05\x01\x00")
    assert connection.recv(2) == b"\x05\x00"
    host = server.host.encode("ascii")
    connection.sendall(
        b"\x05\x01\x00\x03" + bytes([len(host)]) + host + server.port.to_bytes(2, "big")
    )
    reply = b""
    while len(reply) < 10 and (data := connection.recv(10 - len(reply))):
        reply += data
    return connection, reply[1]
