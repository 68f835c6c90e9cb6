"""In mitmdump's process: sends each connection through the proxy that the user's environment names
for it, or through none.

mitmproxy's mode `upstream` knows one proxy for everything, and its option `upstream_auth` would
send the login with every plain http request, to servers too. So the mode only says that proxies
are spoken to, and this addon says to which, and with which login.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mitmproxy import http
from mitmproxy.connection import Client
from mitmproxy.proxy.layers.http import HttpStream

from .upstream import Server
from .upstream import Upstream

_AUTHORIZATION = "Proxy-Authorization"


class Detour:
    """The addon. Behind others that change where a request goes, before those that look at it."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        either = upstream.https or upstream.http
        assert either is not None
        self.mode = f"upstream:{either.url}"
        """What mitmproxy's option `mode` has to be: in any other the addon does nothing."""
        self._tunnelled: set[str] = set()
        """Client connections with a tunnel in them, by id."""
        _tunnel_without_proxy()

    def http_connect(self, flow: http.HTTPFlow) -> None:
        request = flow.request
        if self._is_for(flow):
            _send(flow, self._upstream.via(True, request.host, request.port))

    def http_connected(self, flow: http.HTTPFlow) -> None:
        self._tunnelled.add(flow.client_conn.id)

    def http_connect_upstream(self, flow: http.HTTPFlow) -> None:
        """mitmproxy asks a proxy for a tunnel: only the one for tunnels is asked that."""
        server = self._upstream.https
        if server and server.authorization and self._is_for(flow):
            flow.request.headers[_AUTHORIZATION] = server.authorization

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        # In a tunnel all goes where the tunnel goes.
        if flow.client_conn.id in self._tunnelled or not self._is_for(flow):
            return
        request = flow.request
        tunnel = request.scheme == "https"
        server = self._upstream.via(tunnel, request.host, request.port)
        _send(flow, server)
        if server is None:
            # As in mitmproxy's regular mode: some servers do not take a whole URL.
            request.authority = ""
        elif server.authorization and not tunnel:
            request.headers[_AUTHORIZATION] = server.authorization

    def _is_for(self, flow: http.HTTPFlow) -> bool:
        return flow.client_conn.proxy_mode.full_spec == self.mode

    def client_disconnected(self, client: Client) -> None:
        self._tunnelled.discard(client.id)


def _send(flow: http.HTTPFlow, server: Server | None) -> None:
    # The object stands for all connections of this client until one is made, so what the last
    # request wanted has to be undone, too.
    flow.server_conn.via = server and (server.scheme, (server.host, server.port))  # type: ignore[assignment]


def _tunnel_without_proxy() -> None:
    """Have mitmproxy's mode `upstream` look whether there is a proxy before it speaks to one.

    For requests it does (HttpLayer.get_connection), for tunnels it takes the mode's word.
    """
    original = HttpStream.handle_connect_upstream

    def handle_connect_upstream(self: Any) -> Iterator[Any]:
        if self.context.server.via is None:
            yield from self.handle_connect_regular()
        else:
            yield from original(self)  # type: ignore[no-untyped-call]

    HttpStream.handle_connect_upstream = handle_connect_upstream  # type: ignore[method-assign]
