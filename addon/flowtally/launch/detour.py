"""In mitmdump's process: sends each connection through the proxy that the user's environment names
for it, or through none.

mitmproxy's mode `upstream` knows one proxy for everything, and its option `upstream_auth` would
send the login with every plain http request, to servers too. So the mode only says that proxies
are spoken to, and this addon says to which, and with which login.
"""

from __future__ import annotations

import sys

from mitmproxy import http
from mitmproxy.connection import Client

from ..internals import tunnel_without_proxy
from .upstream import Server
from .upstream import Upstream

_AUTHORIZATION = "Proxy-Authorization"


class Detour:
    """The addon. Behind others that change where a request goes, before those that look at it."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        either = upstream.https or upstream.http
        assert either is not None
        self._either = either
        self.mode = f"upstream:{either.url}"
        """What mitmproxy's option `mode` has to be: in any other the addon does nothing."""
        self._tunnelled: set[str] = set()
        """Client connections with a tunnel in them, by id."""
        self._undo = tunnel_without_proxy()
        if self._undo is None:
            print(
                "With this version of mitmproxy, tunnels (https) to hosts that are to be reached "
                f"without a proxy go through {either.url} all the same.",
                file=sys.stderr,
            )

    def http_connect(self, flow: http.HTTPFlow) -> None:
        request = flow.request
        if self._is_for(flow):
            server = self._upstream.via(True, request.host, request.port)
            # A tunnel without a proxy may be impossible; one through a proxy may still work.
            _send(flow, self._either if server is None and self._undo is None else server)

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

    def done(self) -> None:
        if self._undo is not None:
            self._undo()


def _send(flow: http.HTTPFlow, server: Server | None) -> None:
    # The object stands for all connections of this client until one is made, so what the last
    # request wanted has to be undone, too.
    flow.server_conn.via = server and (server.scheme, (server.host, server.port))  # type: ignore[assignment]
