"""Which request opened a connection to a server, and which ones used it again."""

from __future__ import annotations

from mitmproxy import flow as mflow

MAX_CONNECTIONS = 4096
"""How many connections are remembered, those that were used last."""


class Connections:
    """The connections that requests have used so far."""

    def __init__(self) -> None:
        self._used: dict[str, None] = {}
        """Ids of connections, the one used last at the end."""

    def opened_by(self, flow: mflow.Flow) -> bool | None:
        """Whether a flow that has ended is the first one of its connection to the server; None if
        it has none.

        mitmproxy opens it when the tunnel is made or when the first request comes; either way that
        request had to wait for it. Of several requests at once (HTTP/2) it is the first to end.
        """
        server = flow.server_conn
        if server.timestamp_start is None:
            return None
        used, known = self._used, server.id in self._used
        if known:
            del used[server.id]
        elif len(used) >= MAX_CONNECTIONS:
            del used[next(iter(used))]
        used[server.id] = None
        return not known
