"""What tables of faults share: a case, what it works with, and the ways to ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import clients
from . import dns
from . import servers
from .clients import Destination
from .clients import request_head
from .expected import Expected
from .factories import ServerFactory
from .laboratory import Laboratory
from .proxy import Mitmdump


@dataclass
class Bench:
    """What a case works with."""

    laboratory: Laboratory
    proxy: Mitmdump
    server: Any


Act = Callable[[Bench], None]


@dataclass(frozen=True)
class Case:
    name: str
    server: ServerFactory
    act: Act
    expected: tuple[Expected, ...]
    proxy: str = "regular"
    skip: str = ""


def get(bench: Bench) -> None:
    clients.get(bench.proxy, bench.server)


def get_tls(bench: Bench) -> None:
    clients.get_tls(bench.proxy, bench.server)


def get_http2(bench: Bench) -> None:
    with clients.open_http2(bench.proxy, bench.server) as client:
        client.request()
        client.read_to_end()


def send(data: bytes) -> Act:
    """Bytes without a server to go to."""

    def act(bench: Bench) -> None:
        clients.exchange(bench.proxy.port, data)

    return act


def post(*headers: str, body: bytes = b"") -> Act:
    """A POST whose headers may not fit its body."""

    def act(bench: Bench) -> None:
        authority = f"{bench.server.host}:{bench.server.port}"
        head = request_head("POST", f"http://{authority}/", authority, *headers)
        clients.exchange(bench.proxy.port, head + body)

    return act


def request_to_proxy_itself(bench: Bench) -> None:
    clients.get(bench.proxy, Destination("127.0.0.1", bench.proxy.port))


def through(mode: str, act: Callable[[int, Bench], object]) -> Act:
    """Uses the port of another mode than the regular one."""

    def through_mode(bench: Bench) -> None:
        act(bench.laboratory.port(_setup_of(bench), mode), bench)

    return through_mode


def _setup_of(bench: Bench) -> str:
    return bench.proxy.directory.name


def absolute_get(port: int, bench: Bench) -> None:
    clients.exchange(port, clients.absolute_get(bench.server))


def get_tls_through(port: int, bench: Bench) -> None:
    authority = f"{bench.server.host}:{bench.server.port}"
    connection = clients.open_connection(port)
    connection.sendall(request_head("CONNECT", authority, authority, keep_alive=True))
    if servers.read_until(connection, b"\r\n\r\n").split(b" ")[1] != b"200":
        connection.close()
        return
    context = clients.trusting(bench.proxy, "http/1.1")
    with context.wrap_socket(connection, server_hostname=bench.server.host) as tunnel:
        tunnel.sendall(request_head("GET", "/", authority))
        clients.read_to_end(tunnel)


def ask(name: str, answer: str) -> Act:
    def act(bench: Bench) -> None:
        assert dns.query(name, bench.laboratory.port("dns", "dns")) == answer

    return act


def case(
    name: str,
    server: ServerFactory,
    act: Act,
    *expected: Expected,
    proxy: str = "regular",
    skip: str = "",
) -> Case:
    return Case(name, server, act, expected, proxy, skip)
