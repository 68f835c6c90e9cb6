"""Failures that have no flow, or none yet: which of them become events.

mitmproxy tells of a failed connection before it tells the flow that wanted it, if there is one; of
a request that it cannot read, only its log tells. A failure that also reaches a flow is recorded on
the flow alone. It stays unclaimed until its flow ends, or until its client has left and no flow of
that client is open any more; then it is an event. Times are Unix times.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Container
from typing import Any
from typing import NamedTuple

from mitmproxy import connection
from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy.utils import human

from . import internals
from . import redaction
from . import texts
from . import vocabulary
from .classify import Note
from .classify import Rules
from .classify import exchange_failure
from .classify import failure_tag
from .classify import handshake_failure
from .classify import log_failure
from .classify import noted_failure
from .classify import task_failure
from .classify import with_failure
from .handshakes import Handshakes
from .handshakes import Silent
from .peers import address_of
from .situation import PREFACE_METHOD
from .situation import Situation
from .situation import handshake_situation
from .situation import hanging_situation
from .situation import server_situation
from .surplus import LastAnswers
from .troubles import OUT_OF_FILES
from .troubles import Troubles
from .vocabulary import CANCELLED
from .vocabulary import CAPTURE_INCOMPLETE
from .vocabulary import METADATA_KEY
from .vocabulary import Tag
from .vocabulary import Why

MAX_FAILURES_OF_A_CLIENT = 100
"""How many unclaimed failures of one client are kept; the oldest becomes an event first."""
MAX_NOTES = 1000
"""How many clients' notes are kept."""
MAX_SETTLED = 100
"""How many clients are remembered whose failures have become events."""

Client = Any
"""A client's address (`peername`). Connections of a replayed flow have no other common name."""


class Failure(NamedTuple):
    """A failure without a flow, as far as one can see."""

    message: str
    """mitmproxy's text; a flow that fails with the same text is the one it belongs to."""
    time: float
    """When it happened, Unix time."""
    tag: Tag
    client: Client
    host: str = ""
    """Of the server; empty where none is known, and then there is no port either."""
    port: int | None = None
    server: connection.Connection | None = None
    """The connection that is dead: flows that wait for it have failed with it, and there is no
    event then."""

    def as_flow(self) -> http.HTTPFlow:
        """A flow that mitmproxy's filters can look at in its place."""
        client = connection.Client(
            peername=self.client or ("", 0), sockname=("", 0), timestamp_start=self.time
        )
        server = connection.Server(address=(self.host, self.port or 0))
        flow = http.HTTPFlow(client, server)
        flow.request = http.Request(
            host=self.host,
            port=self.port or 0,
            method=b"",
            scheme=b"",
            authority=b"",
            path=b"",
            http_version=b"",
            headers=http.Headers(),
            content=b"",
            trailers=None,
            timestamp_start=self.time,
            timestamp_end=self.time,
        )
        flow.error = mflow.Error(self.tag.get("detail", self.message), self.time)
        flow.metadata[METADATA_KEY] = self.tag
        return flow


class Attempt(NamedTuple):
    """A connection to a server that is being made."""

    since: float
    """When it was begun, Unix time."""
    client: Client
    server: connection.Connection
    handshake: bool
    """TCP is up, and TLS is what is being made."""
    tunnel: tuple[str, int] | None = None
    """TCP is up, and the upstream proxy was asked for a tunnel to this host and port."""


class Failures:
    """Takes in what mitmproxy tells of failures; what a method returns is to be recorded as events.

    True while a flow that ends, or a client that leaves, can make a difference: the failures and
    log lines that are kept are few and rare, and all other flows need not ask for them.
    """

    def __init__(
        self,
        rules: Rules,
        open_clients: Callable[[], Container[Client]],
        clock: Callable[[], float] = time.time,
        answers: LastAnswers | None = None,
    ) -> None:
        self.rules = rules
        self.answers = answers or LastAnswers()
        self.handshakes = Handshakes()
        self._troubles = Troubles()
        self._open_clients = open_clients
        """The clients of the flows that are open."""
        self._clock = clock
        self._unclaimed: dict[Client, list[Failure]] = {}
        self._notes: dict[Client, Note] = {}
        self._attempts: dict[str, Attempt] = {}
        """Connection id → connection to a server that is being made."""
        self._told: set[str] = set()
        """Ids of those of them that an earlier session told of when it ended."""
        self._settled: deque[Client] = deque(maxlen=MAX_SETTLED)
        """Clients that left because of a failure that is an event by now."""

    def __bool__(self) -> bool:
        return bool(self._unclaimed or self._notes or self._troubles)

    # --- what happened ---

    def connecting(
        self,
        client: connection.Client,
        server: connection.Connection,
        *,
        handshake: bool,
    ) -> None:
        """A connection to a server is being made, or its TLS `handshake`."""
        self._attempts[server.id] = Attempt(self._clock(), client.peername, server, handshake)
        via = getattr(server, "via", None)
        if handshake and via:
            self._tunnelled(client.peername, getattr(server, "address", None))

    def tunnelling(
        self, client: connection.Client, server: connection.Connection, host: str, port: int
    ) -> None:
        """An upstream proxy is asked for a tunnel. A flow that waits for it tells what comes of it;
        without one, TLS follows."""
        if client.peername not in self._open_clients():
            self._attempts[server.id] = Attempt(
                self._clock(), client.peername, server, handshake=False, tunnel=(host, port)
            )

    def _tunnelled(self, client: Client, address: tuple[str, int] | None) -> None:
        for id, attempt in list(self._attempts.items()):
            if attempt.client == client and attempt.tunnel == address:
                del self._attempts[id]

    @property
    def attempts(self) -> Collection[Attempt]:
        """The connections to servers that are being made."""
        return self._attempts.values()

    def connected(self, server: connection.Connection) -> None:
        """The connection or handshake is up, or the attempt has ended otherwise."""
        self._attempts.pop(server.id, None)
        self._told.discard(server.id)

    def server_failed(
        self, client: connection.Client, server: connection.Connection
    ) -> list[Failure]:
        """A connection to a server, or its TLS handshake, failed."""
        told = server.id in self._told
        self.connected(server)
        if told:
            return []
        message, now = server.error or "", self._clock()
        situation, note = server_situation(client, server, now), self._notes.get(client.peername)
        tag = exchange_failure(message, situation, self.rules, note)
        events = self._keep(Failure(message, now, tag, client.peername, *address_of(server)))
        # After it is kept: nothing else will come of a client that is gone, to settle it later.
        if client.timestamp_end is not None:
            events += self.client_gone(client.peername)
        return events

    def task_died(
        self,
        client: connection.Client,
        server: connection.Connection,
        exception: BaseException,
    ) -> list[Failure]:
        """mitmproxy's task for a connection to a server died, and no hook will tell."""
        self.connected(server)
        tag = task_failure(exception, self.rules)
        address = address_of(server)
        return [Failure("", self._clock(), tag, client.peername, *address, server=server)]

    def client_refused(self, client: connection.Client) -> list[Failure]:
        """mitmproxy refused a client's connection (block_global, block_private)."""
        tag = exchange_failure("Connection killed.", Situation(), self.rules)
        tag["detail"] = redaction.detail(client.error or "", self.rules.urls)
        return [Failure("", self._clock(), tag, client.peername)]

    def client_shook_hands(self, client: connection.Client, server: connection.Server) -> None:
        """The TLS handshake with a client is finished, who wants to reach `server`."""
        if client.transport_protocol == "tcp" and client.peername:
            host, port = address_of(server)
            self.handshakes.finished(client.peername, client.sni or host, port, self._clock())

    def client_handshake_failed(
        self,
        client: connection.Client,
        server: connection.Connection,
        message: str,
    ) -> list[Failure]:
        """The TLS handshake with a client failed, who had wanted to reach `server`."""
        known = client.peername in self._unclaimed or client.peername in self._settled
        if message == texts.CLOSED_EARLY and known:
            return []  # it left because of a failure of the server's
        now = self._clock()
        host, port = address_of(server)
        if message.startswith(texts.HUNG_UP) and client.peername:
            # Without an alert: perhaps it did not need the connection any more.
            left = Silent(now, client.peername, client.sni or host, port, message)
            self.handshakes.suspect(left, now)
            return []
        tag = handshake_failure(message, handshake_situation(client, now), self.rules)
        if tag["cause"] == "client_tls_rejected" and client.peername:
            left = Silent(now, client.peername, client.sni or host, port, message)
            if self.handshakes.rejects(left, now):
                return []
        return [Failure(message, now, tag, client.peername, client.sni or host, port)]

    def log_line(
        self, client: Client, message: str, exception: BaseException | None = None
    ) -> list[Failure]:
        """mitmproxy logged a line about a client's connection."""
        if exception is not None:
            failures = self.error_line("", message, exception)
            # Without file descriptors mitmproxy crashes in many ways: that is said once.
            if self._troubles.starved(self._clock()):
                return failures
        if message.startswith(texts.SURPLUS):
            if message == texts.EMPTY_LINE:
                return []
            return self._surplus(client, message)
        if texts.INVALID_DNS in message and (failures := self._invalid_dns(client, message)):
            return failures
        row = texts.tls_log_line(message)
        if row is None:
            row = vocabulary.find_message(vocabulary.NOTE_MESSAGES, message)
        if row is not None:
            if client is not None and len(self._notes) < MAX_NOTES:
                self._notes[client] = Note(row, message)
            return []
        prefix = f"{human.format_address(client)}: " if client else ""
        message = message.removeprefix(prefix)
        row = vocabulary.find_message(vocabulary.LOG_MESSAGES, message)
        if row is None:
            return []
        return self._keep(
            Failure(message, self._clock(), log_failure(row, message, self.rules), client)
        )

    def _surplus(self, client: Client, message: str) -> list[Failure]:
        """A server sent something that was not asked for."""
        server, now = internals.speaking(), self._clock()
        if not isinstance(server, connection.Server):
            return []
        if not self.answers.is_surplus(client, server, now):
            return []
        detail = redaction.detail(message, self.rules.urls)
        tag = failure_tag(Why("http_protocol_error", "surplus_bytes"), detail)
        return [Failure("", now, tag, client, *address_of(server))]

    def _invalid_dns(self, client: Client, message: str) -> list[Failure]:
        """A client or a name server sent a message that is no DNS."""
        peer = internals.speaking()
        if peer is None or not message.startswith(f"{peer}{texts.INVALID_DNS}"):
            return []
        detail = redaction.detail(message, self.rules.urls)
        if isinstance(peer, connection.Client):
            tag = failure_tag(Why("http_request_error", "malformed_dns"), detail)
            return [Failure("", self._clock(), tag, client)]
        tag = failure_tag(Why("dns_error", "malformed_answer"), detail)
        return [Failure("", self._clock(), tag, client, *address_of(peer), server=peer)]

    def error_line(
        self, logger: str, message: str, exception: BaseException | None
    ) -> list[Failure]:
        """mitmproxy logged an error of its own, about no connection that it names."""
        now = self._clock()
        why = self._troubles.log_line(logger, message, exception, now)
        if why is None:
            return []
        if why == CAPTURE_INCOMPLETE:
            detail = "mitmproxy could not read the file of flows to its end"  # its words quote it
        elif exception is not None:
            detail = redaction.detail(f"{type(exception).__name__}: {exception}", self.rules.urls)
        else:
            detail = redaction.detail(message.split("\n", 1)[0], self.rules.urls)
        tag = failure_tag(why, detail)
        return [Failure("", now, tag, None)]

    def error_response(self, client: Client, message: str, method: bytes = b"") -> list[Failure]:
        """mitmproxy answered an HTTP/1 request with an error page of its own.

        All but one of these are told otherwise as well.
        """
        if message != texts.NO_HOST:
            return []
        if method == PREFACE_METHOD:
            detail = "the client began with the preface of cleartext HTTP/2"
            tag = failure_tag(Why("http_request_error", "h2c"), detail)
        else:
            tag = exchange_failure(message, Situation(), self.rules)
        return [Failure(message, self._clock(), tag, client)]

    def client_gone(self, client: Client) -> list[Failure]:
        """A client has left. What no flow of its can claim any more becomes events."""
        silent = self.handshakes.gone(client)
        # First, for its flows may end after it, where the hook of another addon is slow.
        if client in self._open_clients():
            return []
        failures = self._unclaimed.pop(client, [])
        if failures:
            self._settled.append(client)
        note = self._notes.pop(client, None)
        if note is not None and note.message.client.cause:
            failures.append(self._noted(client, note, silent))
        if silent is not None and not failures:
            self.handshakes.suspect(silent, self._clock())
        return failures

    def _noted(self, client: Client, note: Note, silent: Silent | None) -> Failure:
        tag = noted_failure(note, self.rules)
        if silent is None:
            return Failure(note.text, self._clock(), tag, client)
        # An alert that came when the handshake was over.
        if tag["cause"] == "client_tls_rejected":
            tag.setdefault("reason", "after_handshake")
        return Failure(note.text, self._clock(), tag, client, silent.host, silent.port)

    def due(self) -> list[Failure]:
        """What is certain after a while; to be called every second."""
        now = self._clock()
        self._troubles.settle(now)
        return [self._left_after_handshake(silent) for silent in self.handshakes.due(now)]

    def cancelled(self, client: Client) -> None:
        """A client has cancelled an exchange: it may be about to close all that it has."""
        if client:
            self.handshakes.closed(client, self._clock())

    def at_end(self) -> list[Failure]:
        """The session ends: what is unclaimed, and connections to servers that hang."""
        failures = [failure for of_client in self._unclaimed.values() for failure in of_client]
        self._unclaimed.clear()
        failures += map(self._left_after_handshake, self.handshakes.at_end())
        return failures + self._hanging()

    def _left_after_handshake(self, silent: Silent) -> Failure:
        if silent.message:
            tag = handshake_failure(silent.message, Situation(), self.rules)
            return Failure("", silent.since, tag, silent.client, silent.host, silent.port)
        detail = "the client left without a request right after the TLS handshake"
        tag = failure_tag(Why("client_tls_rejected", "after_handshake"), detail)
        return Failure("", silent.since, tag, silent.client, silent.host, silent.port)

    # --- what flows claim ---

    def note(self, client: Client) -> Note | None:
        """The log line about a client's connection that may explain what follows."""
        return self._notes.get(client)

    def claim(self, flow: mflow.Flow, tag: Tag) -> Tag:
        """A flow has ended: what was known of its failure before is its own, and nobody else's.

        Returns its tag; where another addon hid why the flow failed, with what was known of it.
        """
        client = flow.client_conn.peername
        note = self._notes.get(client)
        if note is not None and (
            "cause" not in tag or tag["cause"] == note.message.server_before_head.cause
        ):
            del self._notes[client]  # it explains this flow, or nothing
        if tag.get("cause") == CANCELLED and self._starved(flow):
            text = "the client left before mitmproxy had a file descriptor for it"
            return with_failure(tag, failure_tag(OUT_OF_FILES, text))
        if "cause" not in tag or client not in self._unclaimed:
            return tag
        message = (flow.error.msg if flow.error else flow.server_conn.error) or ""
        # Another addon may have killed the flow or changed its error, after it had failed.
        hidden = tag["cause"] in ("http_request_denied", "unknown")
        claimed = self._take(client, message, _destination(flow) if hidden else None)
        return with_failure(tag, claimed.tag) if hidden and claimed is not None else tag

    def _starved(self, flow: mflow.Flow) -> bool:
        """Whether the client of a flow waited for mitmproxy, and not for the server."""
        began = flow.client_conn.timestamp_start
        return bool(self._troubles) and began is not None and self._troubles.starved(began)

    def _take(
        self, client: Client, message: str, destination: tuple[str, int] | None
    ) -> Failure | None:
        """Forget the failures that are a flow's; returns the last of them.

        `message`: the flow's. `destination`: host and port, where that message may be another
        addon's and says nothing.
        """
        # A connection that another addon forbade is told with a prefix on the flow.
        message = message.removeprefix(texts.KILLED)
        claimed: Failure | None = None
        left = []
        for failure in self._unclaimed.pop(client):
            if failure.message == message or (failure.host, failure.port) == destination:
                claimed = failure
            else:
                left.append(failure)
        if left:
            self._unclaimed[client] = left
        return claimed

    def _keep(self, failure: Failure) -> list[Failure]:
        """Keep a failure; returns the one that has to go in its place, if any."""
        failures = self._unclaimed.setdefault(failure.client, [])
        failures.append(failure)
        return [failures.pop(0)] if len(failures) > MAX_FAILURES_OF_A_CLIENT else []

    def _hanging(self) -> list[Failure]:
        """Connections to servers that hang, and that no flow waits for.

        mitmproxy does not notice that the client left until the attempt ends.
        """
        waiting, now = self._open_clients(), self._clock()
        failures = []
        for attempt in self._attempts.values():
            waited = now - attempt.since
            if waited < self.rules.timeout or attempt.client in waiting:
                continue
            if attempt.server.id in self._told:
                continue  # when an earlier session ended
            connecting = not attempt.handshake and attempt.tunnel is None
            situation = hanging_situation(waited, connecting=connecting, securing=attempt.handshake)
            tag = exchange_failure("Client disconnected.", situation, self.rules)
            if attempt.tunnel is not None:
                tag["detail"] = "the upstream proxy has still not answered CONNECT"
            else:
                protocol = "TLS" if attempt.handshake else "TCP"
                tag["detail"] = f"{protocol} connection to the server still not up"
            failures.append(Failure("", now, tag, attempt.client, *address_of(attempt.server)))
            self._told.add(attempt.server.id)
        return failures


def _destination(flow: mflow.Flow) -> tuple[str, int]:
    if isinstance(flow, http.HTTPFlow):
        return flow.request.host, flow.request.port
    address = flow.server_conn.address
    return (address[0], address[1]) if address else ("", 0)
