"""The addon: mitmproxy's hooks and options.

It passes each flow along the line (classify, record, mark, tally, journal) and decides nothing
itself. It keeps the few things that only the stream of hooks can tell: which flows are open, which
failures no flow has claimed yet, which redirect chains are under way.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import secrets
import shutil
import sys
import time
from collections import deque
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import NamedTuple
from typing import cast

import mitmproxy.types
from mitmproxy import command
from mitmproxy import connection
from mitmproxy import ctx
from mitmproxy import dns
from mitmproxy import exceptions
from mitmproxy import flow as mflow
from mitmproxy import flowfilter
from mitmproxy import http
from mitmproxy import tcp
from mitmproxy import tls
from mitmproxy import udp
from mitmproxy import version as mitmproxy_version
from mitmproxy.addonmanager import Loader
from mitmproxy.log import ALERT
from mitmproxy.log import LegacyLogEvents
from mitmproxy.proxy import server_hooks
from mitmproxy.utils import human

from . import __version__
from . import internals
from . import journal
from . import page
from . import record
from . import redaction
from . import settings
from . import vocabulary
from .classify import Note
from .classify import Rules
from .classify import classify
from .classify import exchange_failure
from .classify import explains
from .classify import failure_tag
from .classify import flow_kind
from .classify import handshake_failure
from .classify import log_failure
from .classify import noted_failure
from .classify import unanswered_query
from .classify import unfinished
from .classify import with_redirect_limit
from .encoding import encode
from .mark import mark
from .output import OutputError
from .output import write
from .page import Page
from .page import Source
from .redirects import Redirects
from .report import data
from .report import text
from .report.layout import WIDTH
from .report.paint import paint_for
from .report.view import view
from .situation import Situation
from .situation import handshake_situation
from .situation import hanging_situation
from .situation import saved_tag
from .situation import server_situation
from .tally import Tally
from .times import timestamp
from .unclaimed import Failure
from .unclaimed import Unclaimed
from .vocabulary import METADATA_KEY
from .vocabulary import Tag

STATS_INTERVAL = 10.0
"""Seconds between `stats` records, while anything changes."""
STATS_ROWS = 50
"""How many hosts and endpoints those name; the final one names all."""
FOLD_AT_ONCE = 200
"""How many records are tallied in one go; a few milliseconds' work."""
ADDRESS_MODES = ("transparent", "wireguard", "local", "tun", "osproxy")
"""Modes in which a flow knows its host by the Host header alone."""
CONSOLE = 80
"""Columns of the box in which mitmproxy's console shows what a command returns."""
GRACE = 5.0
"""Seconds that a flow may outlive its client, in the hooks of slow addons."""
MAX_NOTES = MAX_TOLD = 1000

logger = logging.getLogger("flowtally")


class Session:
    """One session: its records go into the tally and the journal."""

    def __init__(self, location: str, modes: list[str], options: dict[str, Any]):
        self.id = secrets.token_hex(4)
        self.location = location
        self._tally = Tally()
        self._unfolded: list[record.Record] = []
        self._added = 0
        self._stated = 0
        """How many records the last statistics told of."""
        now = time.time()
        self.begun = timestamp(now)
        self.path = Path(location).expanduser()
        if journal.names_folder(location):
            moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
            self.path /= f"flowtally-{moment}-{self.id}{journal.SUFFIX}"
        self.journal = journal.Journal(
            self.path,
            {
                "type": "session_start",
                "session": self.id,
                "time": self.begun,
                "schema": journal.SCHEMA,
                "flowtally": __version__,
                "mitmproxy": mitmproxy_version.VERSION,
                "python": platform.python_version(),
                "platform": platform.platform(),
                "modes": modes,
                "options": options,
            },
        )

    def add(self, entry: record.Record, line: bytes) -> None:
        """Write a record's line, and tally it.

        A fold can wait, and many at once cost a fraction of as many one by one: between two flows
        mitmproxy runs so much code that the tally's has left the processor's caches.
        """
        self.journal.write(line)
        self._unfolded.append(entry)
        self._added += 1
        if len(self._unfolded) >= FOLD_AT_ONCE:
            self.fold()

    def fold(self) -> None:
        """Tally what has been written."""
        entries, self._unfolded = self._unfolded, []
        for entry in entries:
            self._tally.add(entry)

    @property
    def tally(self) -> Tally:
        """The statistics so far."""
        self.fold()
        self._tally.dropped = self.journal.missing
        return self._tally

    def write_stats(self) -> None:
        """Write the statistics so far, if they say anything new."""
        if self._stated == self._added:
            return
        self._stated = self._added
        self.journal.write(encode(self._stats() | self.tally.to_data(STATS_ROWS)))

    def close(self) -> None:
        """Write the final statistics and close the log."""
        self.journal.close(self._stats() | {"final": True} | self.tally.to_data())

    def _stats(self) -> record.Record:
        return {"type": "stats", "session": self.id, "time": timestamp(time.time())}

    @property
    def version(self) -> str:
        """Changes whenever the statistics do."""
        return f"{self.id}-{self._added}-{self.journal.missing}"

    @property
    def about(self) -> str:
        """A sentence."""
        return f"Session {self.id}, begun {self.begun}; log: {self.path}"

    def data(self) -> dict[str, Any]:
        """What `flowtally report --json` says, of the session so far."""
        listed = {"session": self.id, "begun": self.begun, "ended_cleanly": False}
        return data.report([listed], 0, self.tally)


class Connecting(NamedTuple):
    """A connection to a server that is being made."""

    since: float
    """Unix time."""
    client: connection.Client
    server: connection.Connection
    protocol: str
    """`TCP`, or `TLS` once that is up."""


class Flowtally:
    """Tags every flow with what became of it, and keeps the statistics of the session."""

    name = "flowtally"

    def __init__(self) -> None:
        self.session: Session | None = None
        self.rules = Rules(vocabulary.STATUS_TAGS, 5.0)
        self._values: dict[str, Any] = {o.name: o.check(o.default) for o in settings.OPTIONS}
        """Option → its checked value."""
        self._refused = False
        """A bad option was given: mitmproxy is about to stop."""
        self._pretty = False
        """mitmproxy's `showhost`."""
        self._loaded = time.time()
        self._open: dict[str, mflow.Flow] = {}
        """Flow id → flow, from its first hook to its record."""
        self._by_proxy: set[str] = set()
        """Ids of open flows that mitmproxy answered itself."""
        self._told_in_response: set[str] = set()
        """Ids of flows recorded in `response` although they carry an error."""
        self._unclaimed = Unclaimed()
        self._notes: dict[Any, Note] = {}
        self._connecting: dict[str, Connecting] = {}
        """Connection id → connection to a server that is being made."""
        self._settled: deque[Any] = deque(maxlen=100)
        """Clients that left before mitmproxy told of the failure they waited for."""
        self._redirects = Redirects()
        self._page: Page | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._undo: list[internals.Undo] = []
        self._stumbled: set[str] = set()

    # --- options, life cycle ---

    def load(self, loader: Loader) -> None:
        for reason in internals.refuse_options(loader.master.options, settings.refuse):
            # An error in the log keeps mitmproxy from starting (addons/errorcheck.py).
            logger.error(reason)
            self._refused = True
        for option in settings.OPTIONS:
            loader.add_option(option.name, option.type, option.default, option.help, option.choices)

    def configure(self, updated: set[str]) -> None:
        checked: dict[str, Any] = {}
        for option in settings.OPTIONS:
            if option.name in updated:
                value = getattr(ctx.options, option.name)
                try:
                    checked[option.name] = option.check(value)
                except ValueError as error:
                    message = f"{option.name}={value!r}: {error}"
                    raise exceptions.OptionsError(message) from None
        self._values |= checked
        if "showhost" in updated:
            self._pretty = ctx.options.showhost
        if checked or "rawtcp" in updated:
            self.rules = Rules(
                self._values["flowtally_catalog"],
                self._values["flowtally_timeout"],
                self._values["flowtally_urls"],
                ctx.options.rawtcp,
            )
        if self.session is not None and self.session.location != self._location():
            self._end_session()
            self._begin_session()

    def running(self) -> None:
        if self._refused:
            return
        self._page = Page(
            Source(
                version=lambda: self._live().version,
                view=lambda: view(self._live().tally, page.ROWS, page.ROWS),
                data=lambda: self._live().data(),
                log=lambda: self._live().path,
                about=lambda: [self._live().about],
            )
        )
        self._undo = [
            internals.watch_log(self._log_line),
            internals.watch_error_responses(self._error_response),
        ]
        self._begin_session()
        self._schedule()
        if self._host and ctx.options.server and not all(map(_is_reverse, ctx.options.mode)):
            logger.info(f"flowtally: live page, through the proxy, at http://{self._host}/")

    def done(self) -> None:
        for undo in self._undo:
            undo()
        self._undo = []
        if self._tick is not None:
            self._tick.cancel()
        if self.session is None:
            return
        session = self.session
        self._end_session()
        # mitmdump -q sets the log's verbosity to error; the console has no such option.
        if "termlog_verbosity" in ctx.options and ctx.options.termlog_verbosity != "error":
            width = shutil.get_terminal_size(fallback=(WIDTH, 24)).columns
            summary = text.summary(session.tally, width, paint_for(sys.stderr))
            lines = [*summary, "", f"Session log: {session.path}"]
            try:
                print("", *lines, sep="\n", file=sys.stderr, flush=True)
            except (OSError, UnicodeError):
                pass  # nobody there to read it

    def _live(self) -> Session:
        """The session that runs."""
        if self.session is None:
            raise exceptions.CommandError("no session is running")
        return self.session

    # --- the live page, commands ---

    @property
    def _host(self) -> str:
        """Where the live page is; "" if it is nowhere."""
        host: str = self._values["flowtally_host"]
        return host

    def _is_own(self, flow: http.HTTPFlow) -> bool:
        """Whether a request is for the live page.

        What a reverse proxy serves is for others, and its clients choose the Host header freely.
        """
        host = self._host
        if not host:
            return False
        kind = flow.client_conn.proxy_mode.type_name
        if kind in ADDRESS_MODES:
            return flow.request.pretty_host.lower() == host
        return flow.request.data.host.lower() == host and kind != "reverse"

    def _is_host(self, server: connection.Server) -> bool:
        """Whether a connection is to the live page's host."""
        address = server.address
        return bool(self._host and address and address[0].lower() == self._host)

    @command.command("flowtally.summary")
    def command_summary(self) -> Sequence[str]:
        """Show what became of the flows of this session so far."""
        return text.summary(self._live().tally, CONSOLE)

    @command.command("flowtally.report")
    def command_report(self, path: mitmproxy.types.Path) -> None:
        """Write a report on this session so far to an HTML file."""
        from .report import html  # Jinja2 takes a while to load

        session = self._live()
        content = html.page(session.tally, html.About([session.about]))
        try:
            write(Path(path), content.encode("utf-8", "replace"), html.is_ours, force=False)
        except OutputError as error:
            raise exceptions.CommandError(str(error)) from None
        logger.log(ALERT, f"flowtally: report written to {path}")

    @command.command("flowtally.new")
    def command_new(self) -> None:
        """End this session and begin another one, with a log of its own in a folder of logs."""
        self._live()
        self._end_session()
        self._begin_session()
        logger.log(ALERT, f"flowtally: a new session began; log: {self._live().path}")

    def _location(self) -> str:
        """Where the log is to go: a file, or a folder."""
        location: str = self._values["flowtally_log"]
        return location or f"{journal.default_folder(ctx.options.confdir)}/"

    def _begin_session(self) -> None:
        self.session = Session(
            self._location(),
            list(ctx.options.mode),
            {option.name: getattr(ctx.options, option.name) for option in settings.OPTIONS},
        )

    def _end_session(self) -> None:
        """What is still open is told as `unfinished`; if it ends later, a new session tells how."""
        assert self.session is not None
        self._guard(self._sweep, 0)
        for failure in (*self._unclaimed.release_all(), *self._hanging()):
            self._guard(self._event, failure)
        for flow in self._open.values():
            self._guard(self._record, flow, flow_kind(flow), unfinished(flow, self.rules))
        self._guard(self.session.close)
        self.session = None

    def _schedule(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._tick = loop.call_later(STATS_INTERVAL, self._on_tick)

    def _on_tick(self) -> None:
        self._guard(self._sweep, GRACE)
        if self.session is not None:
            self._guard(self.session.write_stats)
            self._schedule()

    # --- HTTP ---

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        if self._is_own(flow):
            return
        self._open[flow.id] = flow
        if self._told_in_response:
            self._told_in_response.discard(flow.id)

    def request(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        # Almost no flow is for the live page, and to wait for nothing would cost all of them.
        if flow.id not in self._open and flow.live and self._is_own(flow):
            return self._serve(flow)
        return None

    async def _serve(self, flow: http.HTTPFlow) -> None:
        if flow.response or flow.error or self._page is None:
            return
        try:
            flow.response = await self._page.answer(flow.request)
        except Exception as problem:
            self._stumble("page", problem)
            flow.response = page.refuse(500, "flowtally cannot show this; the log says why.")

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        # A server's response has no end yet when its head is there; one that an addon made, has.
        made = flow.response is not None and flow.response.timestamp_end is not None
        if made and flow.live and flow.id in self._open:
            self._by_proxy.add(flow.id)

    def response(self, flow: http.HTTPFlow) -> None:
        if flow.websocket is not None:
            return  # websocket_end follows
        if flow.error and flow.id in self._open:
            # A flow killed by an addon gets no other hook; one read from a file gets `error` next.
            if len(self._told_in_response) >= MAX_TOLD:
                self._told_in_response.clear()
            self._told_in_response.add(flow.id)
        try:
            self._finish(flow)
        except Exception as problem:
            self._stumble("response", problem)

    def error(self, flow: http.HTTPFlow) -> None:
        if flow.id in self._told_in_response:
            self._told_in_response.remove(flow.id)
            return
        self._guard(self._finish, flow)

    def websocket_end(self, flow: http.HTTPFlow) -> None:
        self._guard(self._finish, flow)

    def http_connect(self, flow: http.HTTPFlow) -> None:
        if self._is_own(flow):
            # There is no server to connect to.
            flow.response = flow.response or http.Response.make(200, b"")
            return
        self._open[flow.id] = flow
        if flow.error:
            self._guard(self._finish, flow)  # killed: no other hook follows

    def http_connected(self, flow: http.HTTPFlow) -> None:
        self._open.pop(flow.id, None)

    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        server = data.context.server
        if self._is_host(server):
            server.tls = False  # or else mitmproxy would look for it (addons/tlsconfig.py)

    def http_connect_error(self, flow: http.HTTPFlow) -> None:
        if flow.id in self._open and flow.server_conn.error is None:
            self._by_proxy.add(flow.id)
        self._guard(self._finish, flow)

    # --- DNS, TCP, UDP ---

    def dns_request(self, flow: dns.DNSFlow) -> None:
        self._open[flow.id] = flow

    def dns_response(self, flow: dns.DNSFlow) -> None:
        if not flow.error:  # a flow read from a file; dns_error follows
            self._guard(self._finish, flow)

    def dns_error(self, flow: dns.DNSFlow) -> None:
        self._guard(self._finish, flow)

    def tcp_start(self, flow: tcp.TCPFlow) -> None:
        if self._is_host(flow.server_conn):
            return
        self._open[flow.id] = flow

    def tcp_end(self, flow: tcp.TCPFlow) -> None:
        self._guard(self._finish, flow)

    def tcp_error(self, flow: tcp.TCPFlow) -> None:
        self._guard(self._finish, flow)

    def udp_start(self, flow: udp.UDPFlow) -> None:
        self._open[flow.id] = flow

    def udp_end(self, flow: udp.UDPFlow) -> None:
        self._guard(self._finish, flow)

    def udp_error(self, flow: udp.UDPFlow) -> None:
        self._guard(self._finish, flow)

    # --- failures that may have no flow ---

    def client_connected(self, client: connection.Client) -> None:
        if client.error:
            self._guard(self._refused_client, client)

    def client_disconnected(self, client: connection.Client) -> None:
        if self._unclaimed or self._notes:
            self._guard(self._settle, client.peername)

    def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        self._connecting[data.server.id] = Connecting(time.time(), data.client, data.server, "TCP")

    def server_connected(self, data: server_hooks.ServerConnectionHookData) -> None:
        self._connecting.pop(data.server.id, None)

    def server_connect_error(self, data: server_hooks.ServerConnectionHookData) -> None:
        self._connecting.pop(data.server.id, None)
        self._guard(self._server_failed, data.client, data.server)

    def tls_start_server(self, data: tls.TlsData) -> None:
        client, server = data.context.client, data.conn
        self._connecting[server.id] = Connecting(time.time(), client, server, "TLS")

    def tls_established_server(self, data: tls.TlsData) -> None:
        self._connecting.pop(data.conn.id, None)

    def tls_failed_server(self, data: tls.TlsData) -> None:
        self._connecting.pop(data.conn.id, None)
        self._guard(self._server_failed, data.context.client, data.conn)

    def tls_failed_client(self, data: tls.TlsData) -> None:
        self._guard(self._client_handshake_failed, data)

    def _refused_client(self, client: connection.Client) -> None:
        tag = exchange_failure("Connection killed.", Situation(), self.rules)
        tag["detail"] = redaction.detail(client.error or "", self.rules.urls)
        self._event(Failure("", time.time(), tag, client.peername))

    def _server_failed(self, client: connection.Client, server: connection.Connection) -> None:
        message = server.error or ""
        now = time.time()
        situation = server_situation(client, server, now)
        host, port = _target(server)
        tag = exchange_failure(message, situation, self.rules)
        failure = Failure(message, now, tag, client.peername, host, port)
        if crowded_out := self._unclaimed.add(failure):
            self._event(crowded_out)
        if client.timestamp_end is not None:
            self._settle(client.peername)

    def _client_handshake_failed(self, data: tls.TlsData) -> None:
        client = data.context.client
        message = data.conn.error or ""
        known = client.peername in self._unclaimed or client.peername in self._settled
        if message == "connection closed early" and known:
            return  # it left because of a failure of the server's
        now = time.time()
        situation = handshake_situation(client, now)
        tag = handshake_failure(message, situation, self.rules)
        host, port = _target(data.context.server)
        self._event(Failure(message, now, tag, client.peername, client.sni or host, port))

    def _hanging(self) -> Iterator[Failure]:
        """Connections to servers that hang when the session ends, and that no flow waits for.

        mitmproxy does not notice that the client left until the attempt ends.
        """
        waiting = {flow.client_conn.peername for flow in self._open.values()}
        now = time.time()
        for attempt in self._connecting.values():
            waited, client = now - attempt.since, attempt.client
            if waited >= self.rules.timeout and client.peername not in waiting:
                situation = hanging_situation(waited, attempt.protocol == "TCP")
                tag = exchange_failure("Client disconnected.", situation, self.rules)
                tag["detail"] = f"{attempt.protocol} connection to the server still not up"
                host, port = _target(attempt.server)
                yield Failure("", now, tag, client.peername, host, port)

    def _log_line(self, client: Any, message: str) -> None:
        """A line of mitmproxy's log about a client's connection."""
        if message.startswith("TLS Error:"):
            row = vocabulary.find_message(vocabulary.TLS_LOG_MESSAGES, message)
        else:
            row = vocabulary.find_message(vocabulary.NOTE_MESSAGES, message)
        if row is not None:
            if client is not None and len(self._notes) < MAX_NOTES:
                self._notes[client] = Note(row, message)
            return
        prefix = f"{human.format_address(client)}: " if client else ""
        message = message.removeprefix(prefix)
        row = vocabulary.find_message(vocabulary.LOG_MESSAGES, message)
        if row is None:
            return
        failure = Failure(message, time.time(), log_failure(row, message, self.rules), client)
        if crowded_out := self._unclaimed.add(failure):
            self._event(crowded_out)

    def _error_response(self, client: Any, message: str) -> None:
        """mitmproxy answered an HTTP/1 request with an error page of its own."""
        if message == internals.NO_HOST:
            tag = exchange_failure(message, Situation(), self.rules)
            self._event(Failure(message, time.time(), tag, client))

    def _settle(self, client: Any) -> None:
        """A client is gone. What no flow of its can claim any more becomes events."""
        if any(flow.client_conn.peername == client for flow in self._open.values()):
            return
        failures = self._unclaimed.release(client)
        if failures:
            self._settled.append(client)
        for failure in failures:
            self._event(failure)
        note = self._notes.pop(client, None)
        if note is not None and note.message.client:
            self._event(Failure(note.text, time.time(), noted_failure(note, self.rules), client))

    # --- the line: classify → record → mark, tally, journal ---

    def _finish(self, flow: mflow.Flow, tag: Tag | None = None) -> None:
        """A flow has ended."""
        known = self._open.pop(flow.id, None) is not None
        by_proxy = flow.id in self._by_proxy
        if by_proxy:
            self._by_proxy.remove(flow.id)
        # A flow from before the addon was loaded is not known, and is recorded all the same.
        if self.session is None or not (known or flow.timestamp_created < self._loaded):
            return
        if not known and isinstance(flow, http.HTTPFlow) and self._is_own(flow):
            return
        client = flow.client_conn.peername
        note = self._notes.get(client) if self._notes else None
        if tag is None:
            try:
                tag = classify(flow, self.rules, note)
                if by_proxy or _answered_by_proxy(flow, tag):
                    tag["answered_by"] = "proxy"
            except Exception as problem:
                self._stumble("classify", problem)
                tag = exchange_failure(
                    f"{type(problem).__name__}: {problem}", Situation(), self.rules
                )
            tag = _as_seen_live(flow, tag, note)
            if tag.get("status") in vocabulary.REDIRECT_CODES or self._redirects:
                try:
                    tag = self._follow_redirect(flow, tag)
                except Exception as problem:
                    self._stumble("redirects", problem)
        kind = flow_kind(flow)
        if kind == "connect" and tag.get("band") == "Success" and tag["outcome"] == "status":
            return  # what happens inside the tunnel is what counts
        if note is not None and (
            tag["outcome"] != "error" or tag["cause"] == note.message.server_before_head
        ):
            del self._notes[client]  # it explains this flow, or nothing
        if tag["outcome"] == "error" and self._unclaimed:
            tag = self._claim(flow, tag)
        self._record(flow, kind, tag)
        if (self._unclaimed or self._notes) and flow.client_conn.timestamp_end is not None:
            self._settle(client)

    def _claim(self, flow: mflow.Flow, tag: Tag) -> Tag:
        """A flow failed: what was known of its failure before is this flow's, and nobody else's."""
        message = (flow.error.msg if flow.error else flow.server_conn.error) or ""
        if isinstance(flow, http.HTTPFlow):
            host, port = flow.request.host, flow.request.port
        else:
            host, port = flow.server_conn.address or ("", 0)
        # Another addon may have killed the flow or changed its error, after it had failed.
        changed = tag["cause"] in ("http_request_denied", "unknown")
        destination = (host, port) if changed else None
        failure = self._unclaimed.claim(flow.client_conn.peername, message, destination)
        return {**tag, **failure.tag} if changed and failure is not None else tag

    def _follow_redirect(self, flow: mflow.Flow, tag: Tag) -> Tag:
        if tag["outcome"] != "status" or not isinstance(flow, http.HTTPFlow):
            return tag
        response = flow.response
        assert response is not None
        is_redirect = tag["status"] in vocabulary.REDIRECT_CODES
        location = response.headers.get("location", "") if is_redirect else ""
        client = str(flow.client_conn.peername[0]) if flow.client_conn.peername else ""
        ended = response.timestamp_end or response.timestamp_start or 0.0
        url = flow.request.pretty_url
        if not location:
            self._redirects.answered(client, url, ended)
            return tag
        limit: int = self._values["flowtally_max_redirects"]
        cause = self._redirects.follow(client, url, location, ended, limit)
        return with_redirect_limit(tag, cause) if cause else tag

    def _record(self, flow: mflow.Flow, kind: str, tag: Tag) -> None:
        assert self.session is not None
        mark(flow, tag, self._values["flowtally_mark"])
        wanted: flowfilter.TFilter | None = self._values["flowtally_filter"]
        if wanted is not None and not flowfilter.match(wanted, flow):
            return
        session, urls = self.session, self.rules.urls
        plain = None
        if kind == "http" and not flow.error and not self._pretty:
            plain = record.plain_record(cast(http.HTTPFlow, flow), tag, session.id, urls)
        if plain is None:
            try:
                entry = record.flow_record(flow, kind, tag, session.id, urls, self._pretty)
            except Exception as problem:  # a broken flow from a file is counted all the same
                self._stumble("flow_record", problem)
                entry = record.bare_record(flow, kind, tag, session.id)
            session.add(entry, encode(entry))
        else:
            entry, line = plain
            session.add(entry, line)
        if "error_code" in tag and _log_is_read():
            where = f"{entry.get('method', kind)} {entry.get('url', _place(entry))}"
            self._warn(tag, where, flow.client_conn.peername)

    def _event(self, failure: Failure) -> None:
        if self.session is None or (self._host and failure.host.lower() == self._host):
            return
        wanted: flowfilter.TFilter | None = self._values["flowtally_filter"]
        if wanted is not None and not flowfilter.match(wanted, _stand_in(failure)):
            return
        entry = record.event_record(
            failure.tag, self.session.id, failure.time, failure.client, failure.host, failure.port
        )
        self.session.add(entry, encode(entry))
        if _log_is_read():
            self._warn(failure.tag, _place(entry) or "no flow", failure.client)

    def _warn(self, tag: Tag, what: str, client: Any) -> None:
        """Each problem is one line in mitmproxy's log."""
        message = f"{tag['error_code']} {tag['error_name']}: "
        if "cause" in tag:
            message += f"{tag['cause']} ({tag['side']}): "
        if "status" in tag:
            message += f"{tag['status']} {tag['band']}, {tag['description']}: "
        message += what
        if "detail" in tag:
            message += f" ({tag['detail']})"
        try:
            logger.warning(message, extra={"client": client} if client else None)
        except UnicodeError:  # a terminal that cannot print it
            logger.warning(ascii(message))

    def _sweep(self, grace: float) -> None:
        """Finish flows whose client is gone for `grace` seconds and that no hook will finish.

        mitmproxy tells nothing of a DNS query without an answer, and of a flow that was killed
        while a hook of it was running.
        """
        limit = time.time() - grace
        for flow in list(self._open.values()):
            gone = flow.client_conn.timestamp_end
            if gone is None or gone > limit or flow.intercepted:
                continue
            if flow.timestamp_created < self._loaded:
                continue  # from a file: its client is long gone, and its hooks are still to come
            if isinstance(flow, dns.DNSFlow) and not flow.response and not flow.error:
                self._finish(flow, unanswered_query())
            elif flow.error or not flow.live:
                self._finish(flow)

    # --- a hook never raises ---

    def _guard(self, step: Callable[..., None], *args: Any) -> None:
        try:
            step(*args)
        except Exception as problem:
            self._stumble(getattr(step, "__name__", str(step)), problem)

    def _stumble(self, where: str, problem: Exception) -> None:
        """A defect of flowtally's own: told once, so that it neither hides nor floods."""
        if where not in self._stumbled:
            self._stumbled.add(where)
            logger.error(f"flowtally: defect in {where}: {problem!r}", exc_info=problem)


def _as_seen_live(flow: mflow.Flow, tag: Tag, note: Note | None) -> Tag:
    """The tag of a flow from a file, with what the session that saw it live knew of its cause."""
    saved = saved_tag(flow)
    if saved is None or note is not None or not flow.error or flow.type != "http":
        return tag
    cause = saved.get("cause")
    if isinstance(cause, str) and explains(cause, tag["cause"]):
        tag |= failure_tag(cause, redaction.printable(str(saved.get("detail", ""))))
    return tag


def _answered_by_proxy(flow: mflow.Flow, tag: Tag) -> bool:
    """Whether a response came from mitmproxy or an addon, as far as the flow itself shows it."""
    if tag["outcome"] not in ("status", "ok") or isinstance(flow, (tcp.TCPFlow, udp.UDPFlow)):
        return False
    server = flow.server_conn
    if flow.is_replay == "response" or (server.timestamp_start is None and flow.live):
        return True
    if flow.live:
        return False
    # From a file; one made from a HAR names the server, but has no times of the connection.
    saved = saved_tag(flow)
    if saved is not None:
        return saved.get("answered_by") == "proxy"
    return server.timestamp_start is None and server.address is None


def _log_is_read() -> bool:
    """Whether a warning would reach anybody: with -q it goes to mitmproxy's deprecated add_log hook
    alone, which costs a call of every addon."""
    return any(
        handler.level <= logging.WARNING and not isinstance(handler, LegacyLogEvents)
        for handler in logging.getLogger().handlers
    )


def _is_reverse(mode: str) -> bool:
    return mode.startswith("reverse:")


def _target(server: connection.Connection) -> tuple[str, int | None]:
    address = getattr(server, "address", None)
    return (str(address[0]), int(address[1])) if address else ("", None)


def _place(entry: record.Record) -> str:
    host, port = entry.get("host", ""), entry.get("port")
    return f"{host}:{port}" if port is not None else host


def _stand_in(failure: Failure) -> http.HTTPFlow:
    """A flow that filters can look at in place of a failure without one."""
    client = connection.Client(
        peername=failure.client or ("", 0), sockname=("", 0), timestamp_start=failure.time
    )
    server = connection.Server(address=(failure.host, failure.port or 0))
    flow = http.HTTPFlow(client, server)
    flow.request = http.Request(
        failure.host,
        failure.port or 0,
        b"",
        b"",
        b"",
        b"",
        b"",
        http.Headers(),
        b"",
        None,
        failure.time,
        failure.time,
    )
    flow.error = mflow.Error(failure.tag.get("detail", failure.message), failure.time)
    flow.metadata[METADATA_KEY] = failure.tag
    return flow
