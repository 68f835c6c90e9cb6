"""A network without a way out: whatever is not on this machine refuses connections."""

from mitmproxy.proxy import server_hooks

NOBODY = ("127.0.0.1", 1)
"""tcpmux, which nobody runs."""


def server_connect(data: server_hooks.ServerConnectionHookData) -> None:
    if data.server.address and data.server.address[0] not in ("127.0.0.1", "localhost"):
        data.server.address = NOBODY
