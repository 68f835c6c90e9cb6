"""Gives a flow its final tag, wherever it comes from: a live proxy, a file of flows.

`classify` looks at one flow by itself. What else belongs into its tag is added here: what the
session knew that saw a saved flow live, who answered it, the redirect chain that it is part of, why
a complete response is a failure all the same, the challenge that it answers, and whether a browser
or system sent it on its own.
"""

from __future__ import annotations

from mitmproxy import dns
from mitmproxy import flow as mflow
from mitmproxy import http

from . import overlays
from . import redaction
from .challenges import Challenges
from .classify import Note
from .classify import Rules
from .classify import classify
from .classify import exchange_failure
from .classify import explains
from .classify import failure_tag
from .classify import with_failure
from .classify import with_overlay
from .classify import with_reason
from .connections import Connections
from .defects import Defects
from .failures import Failure
from .faults import Faults
from .peers import client_of
from .peers import requested_host
from .redirects import Redirects
from .situation import Situation
from .situation import saved_tag
from .vocabulary import CHALLENGE_CODES
from .vocabulary import COLLATERAL
from .vocabulary import NOTE_MESSAGES
from .vocabulary import REASONS
from .vocabulary import REDIRECT_CODES
from .vocabulary import TIMED_OUT
from .vocabulary import Tag
from .vocabulary import Why

RACE = 1.0
"""Seconds after a request within which the end of a kept-alive connection, under way when the
request was sent, arrives: the longest round trip that is worth a thought."""


class Tagger:
    """Tags flows in the order in which they end; keeps the redirect chains under way, and the
    requests for credentials that wait for an answer.

    `rules` and `max_redirects` may be replaced between two flows.
    """

    def __init__(self, rules: Rules, max_redirects: int, defects: Defects) -> None:
        self.rules = rules
        self.max_redirects = max_redirects
        """Redirects that a client may follow in a row."""
        self.faults = Faults()
        """What mitmproxy knows of connections that broke."""
        self.connections = Connections()
        """Which connections to servers were used before; kept up to date by who records flows."""
        self._redirects = Redirects()
        self._challenges = Challenges()
        self._defects = defects

    def tag(
        self,
        flow: mflow.Flow,
        note: Note | None = None,
        by_proxy: bool = False,
        known: Tag | None = None,
    ) -> Tag:
        """The tag of a flow that has ended. Does not raise: files may hold any flow.

        `note`: a log line about the client's connection that may be why the flow failed.
        `by_proxy`: the hooks showed that mitmproxy or an addon answered it. `known`: what became of
        the flow, where somebody else than mitmproxy says so.
        """
        try:
            tag = self._classified(flow, note) if known is None else {**known}
            if by_proxy or _answered_by_proxy(flow, tag):
                tag["answered_by"] = "proxy"
        except Exception as problem:
            self._defects.tell("classify", problem)
            text = f"{type(problem).__name__}: {problem}"
            tag = exchange_failure(text, Situation(), self.rules)
        try:
            # First, as long as a chain still waits for this flow.
            whose = self._background(flow)
            # Answers that are no redirect count too, while a chain waits for one: they end it.
            if tag.get("status") in REDIRECT_CODES or self._redirects:
                tag = self._follow_redirect(flow, tag, bool(whose))
            # Then, for a redirect that broke the limit is that and nothing more.
            is_answer = tag["outcome"] == "status" and "cause" not in tag
            if is_answer and isinstance(flow, http.HTTPFlow):
                tag = overlays.explain(flow, tag, self.rules.urls)
            # Then, for what is another problem as well is no mere request for credentials.
            if tag.get("status") in CHALLENGE_CODES or self._challenges:
                tag |= self._challenges.take(flow, tag)
            if whose:
                tag = {**tag, "background": whose}
        except Exception as problem:
            self._defects.tell("tag", problem)
        return tag

    def _classified(self, flow: mflow.Flow, note: Note | None) -> Tag:
        """What became of a flow by itself, and what is known of its connection."""
        if note is None and not flow.live and _may_have_timed_out(flow):
            note = _note_seen_live(flow)
        tag = classify(flow, self.rules, note)
        # A note is fresher than what a file kept of an earlier one.
        if flow.error and note is None:
            tag = _as_seen_live(flow, tag)
        if flow.error and isinstance(flow, http.HTTPFlow):
            tag = self._of_connection(flow, tag)
        return tag

    def _background(self, flow: mflow.Flow) -> str:
        """Whose request a flow is that a browser or system sent on its own, or ""."""
        whose = self.rules.background.of(flow)
        if not whose or not self._redirects or not isinstance(flow, http.HTTPFlow):
            return whose
        # A redirect sends a page there, as a login does: then nobody went there on its own.
        request = flow.request
        url = "" if request.method == "CONNECT" else request.pretty_url
        sent = self._redirects.sent(
            client_of(flow), requested_host(flow), url, request.timestamp_start
        )
        return "" if sent else whose

    def tag_failure(self, failure: Failure) -> Failure:
        """A failure without a flow, its tag with what the failure itself does not show."""
        whose = self.rules.background.of_host(failure.host)
        if not whose or "background" in failure.tag:
            return failure
        return failure._replace(tag={**failure.tag, "background": whose})

    def tunnel_opened(self, flow: http.HTTPFlow) -> None:
        """A CONNECT succeeded, which nobody is to tag. Does not raise."""
        if self._challenges:
            self._defects.guard(self._challenges.tunnel, flow)

    def _of_connection(self, flow: http.HTTPFlow, tag: Tag) -> Tag:
        """The tag of a flow with an error, with what its connection to the server tells."""
        error, server = flow.error, flow.server_conn
        assert error is not None
        if (
            tag["cause"] == "connection_terminated"
            and tag.get("reason") == "closed"
            and not flow.response
            and error.timestamp - (flow.request.timestamp_end or 0.0) <= RACE
            and self.connections.were_used(server)
        ):
            tag = with_reason(tag, "reused_connection")
        return self.faults.with_collateral(flow, tag)

    def _follow_redirect(self, flow: mflow.Flow, tag: Tag, background: bool) -> Tag:
        if tag["outcome"] != "status" or not isinstance(flow, http.HTTPFlow):
            return tag
        response = flow.response
        assert response is not None
        is_redirect = tag["status"] in REDIRECT_CODES
        location = response.headers.get("location", "") if is_redirect else ""
        client = client_of(flow)
        if not location and not self._redirects.expects(client, requested_host(flow)):
            return tag
        ended = response.timestamp_end or response.timestamp_start or 0.0
        url, asked = flow.request.pretty_url, flow.request.timestamp_start
        if not location:
            self._redirects.answered(client, url, asked, flow.request.method)
            return tag
        cause = self._redirects.follow(
            client,
            url,
            location,
            asked,
            ended,
            self.max_redirects,
            method=flow.request.method,
            status=response.status_code,
            background=background,
        )
        return with_overlay(tag, Why(cause)) if cause else tag


def _as_seen_live(flow: mflow.Flow, tag: Tag) -> Tag:
    """The tag of a failed HTTP flow from a file, with what only the live session could know: the
    cause that a log line gave it, and which stream or connection was at fault."""
    saved = saved_tag(flow)
    if saved is None or not isinstance(flow, http.HTTPFlow):
        return tag
    cause, reason = saved.get("cause"), saved.get("reason", "")
    if not isinstance(cause, str) or not isinstance(reason, str):
        return tag
    if explains(cause, tag["cause"]):
        reason = reason if Why(cause, reason) in REASONS else ""
        detail = redaction.printable(str(saved.get("detail", ""))) or tag.get("detail", "")
        return with_failure(tag, failure_tag(Why(cause, reason), detail))
    if cause == tag["cause"] and reason in _SEEN_LIVE:
        return with_reason(tag, reason)
    return tag


def _may_have_timed_out(flow: mflow.Flow) -> bool:
    """Whether mitmproxy's own timeout may have ended a flow: it has no complete answer to show."""
    answered = getattr(flow, "response", None) is not None and flow.error is None
    return not answered or getattr(flow, "websocket", None) is not None


def _note_seen_live(flow: mflow.Flow) -> Note | None:
    """The log line of mitmproxy's own timeout, if the session had it that saw a saved flow live."""
    reason = (saved_tag(flow) or {}).get("reason")
    if isinstance(reason, str):
        for message in NOTE_MESSAGES:
            if message.server_before_head == Why(TIMED_OUT, reason):
                return Note(message, message.text)
    return None


_SEEN_LIVE = frozenset((COLLATERAL, "reused_connection"))
"""Reasons that only other flows of the session tell."""


def _answered_by_proxy(flow: mflow.Flow, tag: Tag) -> bool:
    """Whether a response came from mitmproxy or an addon, as far as the flow itself shows it."""
    if tag["outcome"] not in ("status", "ok"):
        return False
    # What it is, for flows are abstract base classes: what one is not takes Python long to say.
    if not isinstance(flow, (http.HTTPFlow, dns.DNSFlow)):
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
