"""What servers answered last, to judge bytes that come behind an answer.

mitmproxy logs them as unexpected and closes the connection. Behind most answers they are a fault of
the server's: it announced fewer bytes than it sent. Times are Unix times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from mitmproxy import connection
from mitmproxy import http

WITHIN = 1.0
"""Seconds after an answer in which what comes is still a part of it. Later, the server speaks of
itself: 408 on an idle connection (RFC 9110 §15.5.9), or the final answer behind a 1xx."""
KEPT = 256
"""How many answers are remembered."""
BODILESS = frozenset((204, 304))
"""Answers that end with the head (RFC 9112 §6.3): what a server sends behind it is its body, which
no client expects."""

Answer = tuple[str, int, bytes, float]
"""Id of the connection, status, method of the request, time of the end."""


class LastAnswers:
    """Remembers the answers that came last, of all connections."""

    def __init__(
        self,
        pending: Callable[[Any, connection.Connection], http.HTTPFlow | None] = lambda *_: None,
    ) -> None:
        """`pending`: the flow of a client whose answer a connection has just completed, if its
        hook is still to come."""
        self._pending = pending
        self._last: deque[Answer] = deque(maxlen=KEPT)

    def complete(self, flow: http.HTTPFlow) -> None:
        """A flow has its answer."""
        response = flow.response
        if response is not None:
            ended = response.data.timestamp_end or 0.0
            self._last.append(
                (flow.server_conn.id, response.data.status_code, flow.request.data.method, ended)
            )

    def is_surplus(self, client: Any, server: connection.Connection, now: float) -> bool:
        """Whether bytes that come now belong to an answer that is complete, and should not."""
        flow = self._pending(client, server)
        if flow is not None and flow.response is not None:
            return _has_body(flow.response.status_code, flow.request.data.method)
        for connection_id, status, method, ended in reversed(self._last):
            if connection_id == server.id:
                return _has_body(status, method) and now - ended <= WITHIN
        return False


def _has_body(status: int, method: bytes) -> bool:
    return status >= 200 and status not in BODILESS and method != b"HEAD"
