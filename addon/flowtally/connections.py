"""Which request opened a connection to a server, and which ones used it again."""

from __future__ import annotations

from mitmproxy import connection
from mitmproxy import flow as mflow

MAX_CONNECTIONS = 4096
"""How many connections are remembered, those that were used last."""


class Connections:
    """The connections to servers that requests have used so far."""

    def __init__(self) -> None:
        self._openers: dict[str, str] = {}
        """Id of a connection → id of its first flow; the one used last at the end."""

    def were_used(self, server: connection.Connection) -> bool:
        """Whether a request has used a connection and ended before."""
        return server.id in self._openers

    def opened_by(self, flow: mflow.Flow) -> bool | None:
        """Whether a flow is the first one of its connection to the server; None if it has none.

        mitmproxy opens it when the tunnel is made or when the first request comes; either way that
        request had to wait for it. Of several requests at once (HTTP/2) it is the first to end.
        """
        server = flow.server_conn
        if server.timestamp_start is None:
            return None
        openers = self._openers
        opener = openers.pop(server.id, flow.id)
        openers[server.id] = opener
        if len(openers) > MAX_CONNECTIONS:
            del openers[next(iter(openers))]
        return opener == flow.id
