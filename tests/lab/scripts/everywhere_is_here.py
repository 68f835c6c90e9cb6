"""Connects to 127.0.0.1 whatever host a request names, so that public names can be tested."""

from mitmproxy.proxy import server_hooks


def server_connect(data: server_hooks.ServerConnectionHookData) -> None:
    assert data.server.address is not None
    data.server.address = ("127.0.0.1", data.server.address[1])
