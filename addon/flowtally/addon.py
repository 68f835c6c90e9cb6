"""The addon: mitmproxy's hooks, options and commands.

It passes each flow along the line (tag → record → mark, journal and tally) and decides nothing
itself: what a flow's tag says is decided by `tagger`, which failures without a flow are events by
`failures`, which requests are for the live page by `live`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from collections.abc import Callable
from typing import Any

from mitmproxy import connection
from mitmproxy import ctx
from mitmproxy import dns
from mitmproxy import exceptions
from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy import tcp
from mitmproxy.addonmanager import Loader

from . import internals
from . import journal
from . import settings
from .classify import Rules
from .classify import broken_flow
from .classify import flow_kind
from .classify import unanswered_query
from .classify import unfinished
from .commands import Commands
from .connection_hooks import ConnectionHooks
from .defects import Defects
from .defects import P
from .defects import quiet
from .failures import Failure
from .failures import Failures
from .farewell import is_wanted
from .farewell import show_summary
from .live import OWN_KEY
from .live import LivePage
from .open_flows import GRACE
from .open_flows import LINGER
from .open_flows import OpenFlows
from .open_flows import is_unanswered_query
from .recorder import Recorder
from .session import SLICE
from .session import Session
from .surplus import LastAnswers
from .tagger import Tagger
from .vocabulary import METADATA_KEY
from .vocabulary import Tag

TICK = 1.0
"""Seconds between two looks for flows that nobody will finish, and for a checkpoint that is due."""
PAUSE = 10 * SLICE
"""Seconds between two steps of writing a checkpoint: nine tenths of them are the proxy's."""
MAX_TOLD_IN_RESPONSE = 1000
"""How many flows with an error are remembered that `response` recorded."""

logger = logging.getLogger("flowtally")


@quiet
class Flowtally(ConnectionHooks, Commands):
    """Tags every flow with what became of it, and keeps the statistics of the session."""

    name = "flowtally"

    def __init__(self, strict: bool = False) -> None:
        """`strict`: an option of the command line that nobody has keeps mitmproxy from starting."""
        self._strict = strict
        self.session: Session | None = None
        self._values: dict[str, Any] = {o.name: o.check(o.default) for o in settings.OPTIONS}
        """Option → its checked value."""
        self._refused = False
        """A bad option was given: mitmproxy is about to stop."""
        self._loaded = time.time()
        self._defects = Defects()
        self.open_flows = OpenFlows()
        self._by_proxy: set[str] = set()
        """Ids of open flows that mitmproxy answered itself."""
        self._told_in_response: set[str] = set()
        """Ids of flows with an error that `response` recorded, and `error` may follow."""
        rules = settings.rules(self._values)
        self.tagger = Tagger(rules, self._values["flowtally_max_redirects"], self._defects)
        answers = LastAnswers(self.open_flows.answered_by)
        self.failures = Failures(rules, self.open_flows.clients, answers=answers)
        self.open_flows.attempts = self.failures.attempts  # a view: it follows
        self.live = LivePage(
            self._running_session, lambda: self.open_flows.in_flight(time.time()), self._defects
        )
        self.recorder = Recorder(self._defects, self.tagger.connections)
        self._timer: asyncio.TimerHandle | None = None
        self._undo: list[internals.Undo] = []
        self._apply(rules)

    # --- options, life cycle ---

    def load(self, loader: Loader) -> None:
        self._refused = settings.refused(loader.master.options)
        for option in settings.OPTIONS:
            loader.add_option(option.name, option.type, option.default, option.help, option.choices)

    def configure(self, updated: set[str]) -> None:
        try:
            checked = settings.check(ctx.options, updated)
        except ValueError as error:
            raise exceptions.OptionsError(str(error)) from None
        # Only now: of several options that are set at once, a bad one leaves all as they were.
        self._values |= checked
        if "showhost" in updated:
            self.recorder.pretty = ctx.options.showhost
        if checked or "rawtcp" in updated:
            self._apply(settings.rules(self._values, ctx.options.rawtcp))
        if self.session is not None and self.session.location != self._location():
            self._end_session()
            self._begin_session()

    def _apply(self, rules: Rules) -> None:
        rules = rules._replace(quic_closes=self.tagger.faults.quic_closes)
        self.tagger.rules = self.failures.rules = rules
        self.tagger.max_redirects = self._values["flowtally_max_redirects"]
        self.recorder.filter = self._values["flowtally_filter"]
        self.recorder.marks = self._values["flowtally_mark"]
        self.recorder.urls = self._values["flowtally_urls"]
        self.live.host = self._values["flowtally_host"]

    def running(self) -> None:
        # Some may have been given since `load`.
        self._refused = self._refused or settings.refused(ctx.options, self._strict)
        if self._refused:
            return
        self._undo = self._watch_internals()
        self._begin_session()
        self._call_later(TICK, self._on_timer)
        if ctx.options.server and (url := self.live.url(ctx.options.mode)):
            logger.info(f"flowtally: live page, through the proxy, at {url}")

    def done(self) -> None:
        for undo in self._undo:
            undo()
        self._undo = []
        if self._timer is not None:
            self._timer.cancel()
        if (session := self.session) is None:
            return
        self._end_session()
        if is_wanted(ctx.options):
            show_summary(session, process_ends=ctx.master.should_exit.is_set())

    def _running_session(self) -> Session:
        if self.session is None:
            raise exceptions.CommandError("no session is running")
        return self.session

    def _location(self) -> str:
        """Where the log is to go: a file, or a folder."""
        return str(
            self._values["flowtally_log"] or f"{journal.default_folder(ctx.options.confdir)}/"
        )

    def _begin_session(self) -> None:
        self.session = Session(
            self._location(),
            list(ctx.options.mode),
            {option.name: getattr(ctx.options, option.name) for option in settings.OPTIONS},
            self._defects,
        )

    def _end_session(self) -> None:
        """Tell what is still open, and close the log."""
        assert self.session is not None
        # Flows whose client is gone end first, for they may claim failures; what is left of these
        # are events. Open flows come last: they tell which connections nobody waits for.
        self._defects.guard(self._sweep, 0.0, 0.0)
        self._record_events(self.failures.at_end)
        # They stay in the table: if one ends later, a new session tells how.
        for flow in self.open_flows.values():
            tag = self.tagger.tag(flow, known=unfinished(flow, self.tagger.rules))
            self._defects.guard(self.recorder.record_flow, self.session, flow, flow_kind(flow), tag)
        self._defects.guard(self.session.close)
        self.session = None

    def _call_later(self, seconds: float, step: Callable[[], None]) -> None:
        try:
            self._timer = asyncio.get_running_loop().call_later(seconds, step)
        except RuntimeError:
            pass  # no loop runs: mitmproxy's test harness

    def _on_timer(self) -> None:
        # Before the step, so that its statistics hold what was swept.
        self._defects.guard(self._sweep, GRACE, LINGER)
        self._record_events(self.failures.due)
        self._step()

    def _step(self) -> None:
        more = False
        try:
            more = self.session is not None and self.session.step()
        except Exception as problem:
            self._defects.tell("step", problem)
        if self.session is not None:
            self._call_later(*((PAUSE, self._step) if more else (TICK, self._on_timer)))

    # --- HTTP ---

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        if self.live.is_own(flow):
            flow.metadata[OWN_KEY] = True
            return
        self.open_flows[flow.id] = flow
        if handshakes := self.failures.handshakes:
            handshakes.spoke(flow.client_conn.peername)
        if self._told_in_response:
            self._told_in_response.discard(flow.id)

    def request(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        # Almost no flow is for the live page, and to wait for nothing would cost all of them.
        if flow.id not in self.open_flows and flow.live:
            if self.live.is_own(flow):
                return self.live.serve(flow)
            self._meet(flow)
        return None

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        if flow.id not in self.open_flows:
            self._meet(flow)
        # A server's response has no end yet when its head is there; one that an addon made, has.
        made = flow.response is not None and flow.response.timestamp_end is not None
        if made and flow.live and flow.id in self.open_flows:
            self._by_proxy.add(flow.id)

    def response(self, flow: http.HTTPFlow) -> None:
        if flow.websocket is not None:
            return  # websocket_end follows
        # Before it is finished, which takes it out of the table.
        if flow.error and flow.id in self.open_flows:
            # A flow killed by an addon gets no other hook; one read from a file gets `error` next.
            if len(self._told_in_response) >= MAX_TOLD_IN_RESPONSE:
                self._told_in_response.clear()
            self._told_in_response.add(flow.id)
        self._finish(flow)
        # Last: of an odd flow it may raise, and that one is recorded all the same.
        self.failures.answers.complete(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        if flow.id in self._told_in_response:
            self._told_in_response.remove(flow.id)
            return
        self._finish(flow)

    def http_connect(self, flow: http.HTTPFlow) -> None:
        if self.live.is_own(flow):
            flow.metadata[OWN_KEY] = True
            self.live.answer_tunnel(flow)
            return
        self.open_flows[flow.id] = flow
        if flow.error:
            self._finish(flow)  # killed: no other hook follows

    def http_connected(self, flow: http.HTTPFlow) -> None:
        self.tagger.tunnel_opened(flow)
        self.open_flows.pop(flow.id, None)

    def http_connect_error(self, flow: http.HTTPFlow) -> None:
        if flow.id in self.open_flows and flow.server_conn.error is None:
            self._by_proxy.add(flow.id)
        self._finish(flow)

    # --- DNS, TCP, UDP, and what all flows have in common ---

    def _begins(self, flow: mflow.Flow) -> None:
        self.open_flows[flow.id] = flow

    dns_request = udp_start = _begins

    def dns_response(self, flow: dns.DNSFlow) -> None:
        if not flow.error:  # a flow read from a file; dns_error follows
            self._finish(flow)

    def tcp_start(self, flow: tcp.TCPFlow) -> None:
        if not self.live.is_own_server(flow.server_conn):
            self.open_flows[flow.id] = flow

    # --- the line: tag → mark and record ---

    def _finish(self, flow: mflow.Flow, known: Tag | None = None) -> None:
        """A flow has ended. `known`: what became of it, where mitmproxy does not say so."""
        # Out of the tables first, whatever follows: a second hook of the flow must not record it
        # again, and it must not be one of its client's open flows any more when that one is gone.
        was_open = self.open_flows.pop(flow.id, None) is not None
        by_proxy = flow.id in self._by_proxy
        if by_proxy:
            self._by_proxy.remove(flow.id)
        # A flow from before the addon was loaded is not known, and is recorded all the same.
        if self.session is None or not (was_open or self._is_new(flow)):
            return
        pending = bool(self.failures)  # False for all but a few flows
        kind, tag = flow_kind(flow), known
        try:
            client = flow.client_conn.peername
            # The note before it is claimed, as the tag tells whether it explains this flow.
            note = self.failures.note(client) if pending else None
            tag = self.tagger.tag(flow, note, by_proxy, known)
            if kind == "connect" and tag.get("band") == "Success" and tag["outcome"] == "status":
                return  # what happens inside the tunnel is what counts
            # Before it is recorded, as it may change the tag; and before its client is settled, or
            # what is this flow's own would be told once more, as an event.
            if pending:
                tag = self.failures.claim(flow, tag)
            if tag["outcome"] == "cancelled":
                self.failures.cancelled(client)
        except Exception as problem:  # it is counted all the same
            self._defects.tell("finish", problem)
            pending, tag = False, tag or broken_flow()
        self.recorder.record_flow(self.session, flow, kind, tag)
        # Last: with this flow, its client may have had its last one.
        if pending and flow.client_conn.timestamp_end is not None:
            self._record_events(self.failures.client_gone, client)

    websocket_end = dns_error = tcp_end = tcp_error = udp_end = udp_error = _finish

    def _is_new(self, flow: mflow.Flow) -> bool:
        """Whether a flow without a first hook is to be recorded: it is from before the addon was
        loaded, or another script raised in that hook. One that has a tag was recorded."""
        if isinstance(flow, http.HTTPFlow) and (OWN_KEY in flow.metadata or self.live.is_own(flow)):
            return False
        if METADATA_KEY not in flow.metadata:
            return True
        # A live one had its end told by the addon's instance before a reload, or that it was open.
        tag = flow.metadata[METADATA_KEY]
        was_open = isinstance(tag, dict) and tag.get("outcome") == "unfinished"
        return flow.timestamp_created < self._loaded and (was_open or not flow.live)

    def _meet(self, flow: http.HTTPFlow) -> None:
        """A flow's first hook was kept from us."""
        if flow.timestamp_created >= self._loaded and self._is_new(flow):
            self.open_flows[flow.id] = flow

    def _record_events(
        self, happened: Callable[P, list[Failure]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        try:
            failures = happened(*args, **kwargs)
        except Exception as problem:
            self._defects.tell(happened.__name__, problem)
            return
        for failure in failures:
            self._defects.guard(self._record_event, failure)

    def _record_event(self, failure: Failure) -> None:
        if self.session is None or self.live.is_own_host(failure.host):
            return
        if failure.server is None or not self._fail_with(failure.server, failure):
            self.recorder.record_failure(self.session, self.tagger.tag_failure(failure))

    def _fail_with(self, server: connection.Connection, failure: Failure) -> bool:
        """Finish the flows that wait for a dead connection; whether there are any."""
        waiting = self.open_flows.waiting_for(failure.client, server)
        for flow in waiting:
            self._defects.guard(self._finish, flow, failure.tag)
        return bool(waiting)

    def _sweep(self, grace: float, linger: float) -> None:
        """Finish flows that no hook will finish, and whose client is gone for `grace` seconds, or
        that have ended for `linger` seconds."""
        now = time.time()
        for flow in self.open_flows.abandoned(self._loaded, now - grace, now - linger):
            tag = unanswered_query() if is_unanswered_query(flow) else None
            self._defects.guard(self._finish, flow, tag)
