"""What hangs, on the live page: how many flows, for how long the oldest one, and where."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from contextlib import contextmanager

import pytest
from lab import clients
from lab.clients import Destination
from lab.laboratory import Laboratory
from lab.laboratory import Setup
from lab.proxy import WAIT_TIMEOUT
from lab.proxy import Mitmdump
from lab.websocket import WebSocketServer
from websockets.sync.client import connect

pytestmark = pytest.mark.timeout(60)
PAGE = Destination("flowtally.test", 80)


@pytest.fixture
def proxy(laboratory: Laboratory) -> Iterator[Mitmdump]:
    with laboratory.mitmdump("in flight", Setup()) as proxy:
        yield proxy


@contextmanager
def silent() -> Iterator[Destination]:
    """A server that takes connections and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield Destination("127.0.0.1", server.getsockname()[1])


def until(proxy: Mitmdump, said: str) -> str:
    """What the page says of what is in flight, once that is so."""
    deadline = time.monotonic() + WAIT_TIMEOUT
    while True:
        page = clients.exchange(proxy.port, clients.absolute_get(PAGE)).decode()
        found = re.search('data-total="in_flight".*?</div>', page, re.DOTALL)
        text = re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", found[0])) if found else ""
        if re.search(said, text):
            return text
        assert time.monotonic() < deadline, (text, proxy.output)
        time.sleep(0.1)


def test_a_request_without_an_answer(proxy: Mitmdump) -> None:
    with silent() as server, socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.sendall(clients.absolute_get(server))
        until(proxy, rf"1 oldest [1-9]\d* s, 127\.0\.0\.1:{server.port}, waiting for the response")
    until(proxy, "^$")


def test_a_tls_handshake_that_the_server_does_not_answer(proxy: Mitmdump) -> None:
    with silent() as server:
        tunnel = clients.open_tunnel(proxy, server)
        assert tunnel is not None
        with tunnel:
            tunnel.sendall(clients.client_hello("127.0.0.1"))
            until(proxy, rf"1 oldest \d+ s, 127\.0\.0\.1:{server.port}, in the TLS handshake with")
    until(proxy, "^$")


def test_a_websocket_is_open_and_hangs_not(proxy: Mitmdump) -> None:
    with WebSocketServer() as server, silent() as dumb:
        with connect(f"{server.url}/echo", proxy=proxy.url, compression=None):
            until(proxy, r"1 oldest \d+ s, .*, open by its nature")
            with socket.create_connection(("127.0.0.1", proxy.port)) as client:
                client.sendall(clients.absolute_get(dumb))
                until(proxy, rf"2 oldest \d+ s, 127\.0\.0\.1:{dumb.port}, waiting for the response")
        until(proxy, "^$")
