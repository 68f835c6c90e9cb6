"""The flows that are open: those that had a hook, and have no record yet."""

from __future__ import annotations

from typing import Any

from mitmproxy import connection
from mitmproxy import dns
from mitmproxy import flow as mflow
from mitmproxy import http

from .redaction import MAX_HOST
from .redaction import printable
from .tally import place
from .totals import InFlight

GRACE = 5.0
"""Seconds that a flow may outlive its client, in the hooks of slow addons."""
LINGER = 10.0
"""Seconds that a flow may outlive its end; then its last hook does not come any more."""


class OpenFlows(dict[str, mflow.Flow]):
    """Flow id → flow. A dictionary, for every flow is put in and taken out."""

    def clients(self) -> set[Any]:
        """The addresses (`peername`) of the clients that have a flow here."""
        return {flow.client_conn.peername for flow in self.values()}

    def in_flight(self, now: float) -> InFlight:
        """How many flows are open at `now` (Unix time); those of a file are not, nobody waits."""
        waiting = [flow for flow in self.values() if flow.live]
        if not waiting:
            return InFlight(0, 0.0)
        oldest = min(waiting, key=began)
        return InFlight(len(waiting), max(0.0, now - began(oldest)), _host(oldest))

    def answered_by(self, client: Any, server: connection.Connection) -> http.HTTPFlow | None:
        """The flow of a client whose answer has begun on a connection to a server.

        mitmproxy's client may have read all of it before the first hook tells of it.
        """
        for flow in self.values():
            if flow.server_conn.id != server.id or flow.client_conn.peername != client:
                continue
            if isinstance(flow, http.HTTPFlow) and flow.response is not None:
                return flow
        return None

    def waiting_for(self, client: Any, server: connection.Connection) -> list[mflow.Flow]:
        """The flows of a client that wait for a connection to a server, which will not come."""
        address = getattr(server, "address", None)
        return [
            flow
            for flow in self.values()
            if flow.client_conn.peername == client
            and _end(flow) is None
            and (flow.server_conn.id == server.id or address in _destinations(flow))
        ]

    def abandoned(self, created: float, gone: float, ended: float) -> list[mflow.Flow]:
        """Flows that no hook will finish: their client left at `gone` or before, or they ended at
        `ended` or before.

        mitmproxy tells nothing more of a DNS query without an answer, and of a flow that was killed
        while a hook of it was running; and if another script raises in a hook, it is not told to
        the scripts behind that one. Flows created before `created` are left alone: they come
        from a file, where their client is long gone, and their hooks are still to come. All Unix
        times.
        """
        found = []
        for flow in self.values():
            try:
                if flow.intercepted or flow.timestamp_created < created:
                    continue
                end, left = _end(flow), flow.client_conn.timestamp_end
                over = end is not None and end <= ended
                if left is not None and left <= gone:
                    over |= end is not None or not flow.live or is_unanswered_query(flow)
            except (TypeError, AttributeError):
                continue  # another script has put something odd there: that flow alone suffers
            if over:
                found.append(flow)
        return found


def began(flow: mflow.Flow) -> float:
    """When a flow began, Unix time: of HTTP, with the first byte of its request."""
    if isinstance(flow, http.HTTPFlow):
        return flow.request.timestamp_start
    return flow.timestamp_created


def _host(flow: mflow.Flow) -> str:
    """Where a flow goes to, for people."""
    if isinstance(flow, http.HTTPFlow):
        host, port = flow.request.host, flow.request.port
    else:
        host, port = (flow.server_conn.address or ("", 0))[:2]
    return place({"host": printable(str(host), MAX_HOST), "port": port})


def _end(flow: mflow.Flow) -> float | None:
    """When a flow ended, Unix time, whether or not a hook told so; None: it has not, or it is a
    stream, which does not say."""
    if flow.error:
        return flow.error.timestamp
    if isinstance(flow, dns.DNSFlow):
        return flow.response.timestamp if flow.response else None
    return _answered(flow) if isinstance(flow, http.HTTPFlow) else None


def _answered(flow: http.HTTPFlow) -> float | None:
    if flow.websocket is not None:
        return flow.websocket.timestamp_end
    return flow.response.timestamp_end if flow.response else None


def _destinations(flow: mflow.Flow) -> list[Any]:
    """Host and port of what a flow is for, and of the upstream proxy."""
    server = flow.server_conn
    found: list[Any] = [server.address] if server.address else []
    if server.via:
        found.append(server.via[1])
    if isinstance(flow, http.HTTPFlow):
        found.append((flow.request.host, flow.request.port))
    return found


def is_unanswered_query(flow: mflow.Flow) -> bool:
    """Whether a flow is a DNS query that nothing has become of."""
    return isinstance(flow, dns.DNSFlow) and not flow.response and not flow.error
