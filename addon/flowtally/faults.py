"""What mitmproxy knows of a fault and does not say in its text.

A connection that breaks takes all its streams along, and mitmproxy gives each of them the same
text. That is one fault: the stream that caused it has it, the others are collateral. The words that
a QUIC peer closes a connection with stand in the text in place of the error code.

`internals.watch_faults` fills this in while a proxy runs; the flows of files know no more than
their text.
"""

from __future__ import annotations

from mitmproxy import http

from . import texts
from .classify import with_reason
from .situation import is_multiplexed
from .vocabulary import COLLATERAL
from .vocabulary import REASONS
from .vocabulary import Tag
from .vocabulary import Why

MAX_CONNECTIONS = 1000
"""How many broken connections are remembered, the latest."""
MAX_CLOSES = 1000
"""How many QUIC peers' words are remembered, the latest."""
MAX_WORDS = 4096
"""Longer words of a QUIC peer's are not remembered; a packet holds less."""


class Faults:
    """Whose fault it was that a connection broke, and the codes of QUIC."""

    def __init__(self) -> None:
        self._culprits: dict[str, str] = {}
        """Id of a connection → id of the flow whose stream broke it."""
        self.quic_closes: dict[str, int] = {}
        """The words with which a QUIC peer closed a connection → the error code beside them."""

    def broke(self, connection: str, flow: str) -> None:
        """A flow's stream broke its connection."""
        self._culprits.setdefault(connection, flow)
        if len(self._culprits) > MAX_CONNECTIONS:
            del self._culprits[next(iter(self._culprits))]

    def closed(self, words: str, code: int) -> None:
        """A QUIC peer closed a connection."""
        if words and len(words) <= MAX_WORDS:
            self.quic_closes.pop(words, None)
            self.quic_closes[words] = code
            if len(self.quic_closes) > MAX_CLOSES:
                del self.quic_closes[next(iter(self.quic_closes))]

    def with_collateral(self, flow: http.HTTPFlow, tag: Tag) -> Tag:
        """The tag of a flow with an error, which may be only collateral of another stream's.

        Where mitmproxy does not know whose stream broke the connection, or nobody's did, it is the
        first one's: mitmproxy ends them in the order in which they began.
        """
        assert flow.error is not None
        cause, message = tag.get("cause", ""), flow.error.msg
        by_client = tag.get("side") == "client"
        if not (flow.request.is_http2 or flow.request.is_http3) and by_client:
            return tag  # HTTP/1 has no streams
        if Why(cause, COLLATERAL) not in REASONS or not texts.ends_connection(message):
            return tag
        # Of a server, only where its connection was up.
        shared = flow.server_conn.timestamp_start is not None and is_multiplexed(flow.server_conn)
        if not (by_client or shared):
            return tag
        connection = (flow.client_conn if by_client else flow.server_conn).id
        if tag.get("reason") == COLLATERAL:
            return tag  # the session that saw it live found so
        self.broke(connection, flow.id)
        if self._culprits.get(connection, flow.id) == flow.id:
            return tag
        return with_reason(tag, COLLATERAL)
