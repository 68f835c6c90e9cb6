"""The flows that are open: those that had a hook, and have no record yet."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any
from typing import TypeVar

from mitmproxy import connection
from mitmproxy import dns
from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy import tcp
from mitmproxy import udp

from .failures import Attempt
from .headers import EVENT_STREAM
from .headers import media_type_of
from .redaction import MAX_HOST
from .redaction import printable
from .tally import place
from .totals import InFlight

T = TypeVar("T")

GRACE = 5.0
"""Seconds that a flow may outlive its client, in the hooks of slow addons."""
OPEN = "open by its nature"
CONNECTING, HANDSHAKE = "connecting", "in the TLS handshake with the server"
SENDING, WAITING = "the request is not complete", "waiting for the response"
RECEIVING = "the response is not complete"
"""Where a flow is."""
LINGER = 10.0
"""Seconds that a flow may outlive its end; then its last hook does not come any more."""


class OpenFlows(dict[str, mflow.Flow]):
    """Flow id → flow. A dictionary, for every flow is put in and taken out."""

    attempts: Collection[Attempt] = ()
    """The connections to servers that are being made."""

    def clients(self) -> set[Any]:
        """The addresses (`peername`) of the clients that have a flow here."""
        return set().union(*self._of_each(lambda flow: {flow.client_conn.peername}))

    def in_flight(self, now: float) -> InFlight:
        """How many flows are open at `now` (Unix time), and tunnels that wait for their server
        before their first one; flows of a file are not, nobody waits."""

        def waits(flow: mflow.Flow) -> tuple[str, float, str] | None:
            if not flow.live:
                return None
            return _phase(flow, self.attempts), min(now, began(flow)), _host(flow)

        waiting = list(self._of_each(waits))
        clients = self.clients()
        waiting += [
            (_phase_of(attempt), attempt.since, _named(*_address(attempt.server)))
            for attempt in self.attempts
            if _is_without_flow(attempt.client, clients)
        ]
        if not waiting:
            return InFlight(0, 0.0)
        # What is open by its nature does not hang.
        phase, since, host = min(waiting, key=lambda each: (each[0] == OPEN, each[1]))
        return InFlight(len(waiting), max(0.0, now - since), host, phase)

    def _of_each(self, ask: Callable[[mflow.Flow], T | None]) -> Iterator[T]:
        """What `ask` finds in each flow. Another script may have put something odd into one, which
        is passed over."""
        for flow in self.values():
            try:
                found = ask(flow)
            except Exception:
                continue
            if found is not None:
                yield found

    def answered_by(self, client: Any, server: connection.Connection) -> http.HTTPFlow | None:
        """The flow of a client whose answer has begun on a connection to a server.

        mitmproxy's client may have read all of it before the first hook tells of it.
        """

        def answered(flow: mflow.Flow) -> http.HTTPFlow | None:
            if flow.server_conn.id != server.id or flow.client_conn.peername != client:
                return None
            return flow if isinstance(flow, http.HTTPFlow) and flow.response is not None else None

        return next(self._of_each(answered), None)

    def waiting_for(self, client: Any, server: connection.Connection) -> list[mflow.Flow]:
        """The flows of a client that wait for a connection to a server, which will not come."""
        address = getattr(server, "address", None)

        def waits(flow: mflow.Flow) -> mflow.Flow | None:
            if flow.client_conn.peername != client or _end(flow) is not None:
                return None
            mine = flow.server_conn.id == server.id or address in _destinations(flow)
            return flow if mine else None

        return list(self._of_each(waits))

    def abandoned(self, created: float, gone: float, ended: float) -> list[mflow.Flow]:
        """Flows that no hook will finish: their client left at `gone` or before, or they ended at
        `ended` or before.

        mitmproxy tells nothing more of a DNS query without an answer, and of a flow that was killed
        while a hook of it was running; and if another script raises in a hook, it is not told to
        the scripts behind that one. Flows created before `created` are left alone: they come
        from a file, where their client is long gone, and their hooks are still to come. All Unix
        times.
        """

        def is_over(flow: mflow.Flow) -> mflow.Flow | None:
            if flow.intercepted or flow.timestamp_created < created:
                return None
            end, left = _end(flow), flow.client_conn.timestamp_end
            over = end is not None and end <= ended
            if left is not None and left <= gone:
                over |= end is not None or not flow.live or is_unanswered_query(flow)
            return flow if over else None

        return list(self._of_each(is_over))


def _is_without_flow(client: Any, clients: set[Any]) -> bool:
    """Whether a client is none of `clients`; of an address that another script made odd, nothing
    is known."""
    try:
        return client not in clients
    except Exception:
        return False


def began(flow: mflow.Flow) -> float:
    """When a flow began, Unix time: of HTTP, with the first byte of its request."""
    if isinstance(flow, http.HTTPFlow):
        return flow.request.timestamp_start
    return flow.timestamp_created


def _host(flow: mflow.Flow) -> str:
    """Where a flow goes to, for people."""
    if isinstance(flow, http.HTTPFlow):
        return _named(flow.request.host, flow.request.port)
    return _named(*_address(flow.server_conn))


def _address(server: connection.Connection) -> tuple[str, int]:
    return (getattr(server, "address", None) or ("", 0))[:2]


def _named(host: str, port: int) -> str:
    return place({"host": printable(str(host), MAX_HOST), "port": port})


def _phase(flow: mflow.Flow, attempts: Iterable[Attempt]) -> str:
    """What a flow waits for."""
    if not isinstance(flow, http.HTTPFlow):
        return OPEN if isinstance(flow, tcp.TCPFlow | udp.UDPFlow) else WAITING
    if flow.websocket is not None:
        return OPEN
    if flow.response is not None:
        return OPEN if media_type_of(flow.response) == EVENT_STREAM else RECEIVING
    destinations = _destinations(flow)
    for attempt in attempts:
        if attempt.client == flow.client_conn.peername and (
            attempt.server.id == flow.server_conn.id or _address(attempt.server) in destinations
        ):
            return _phase_of(attempt)
    return WAITING if flow.request.timestamp_end else SENDING


def _phase_of(attempt: Attempt) -> str:
    return HANDSHAKE if attempt.handshake else CONNECTING


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
