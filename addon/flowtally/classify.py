"""What mitmproxy says of a flow, in its situation → a tag. Pure functions: no state, no clock, no
I/O.

What a text of mitmproxy's means stands in `known/`; how the exchange stood when the text came is
told by `situation`. The tag is the flow's own: what other flows add to it, `tagger` knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from typing import NamedTuple

from mitmproxy import dns
from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy import tcp
from mitmproxy import udp
from mitmproxy.net.dns import response_codes

from . import redaction
from . import texts
from . import vocabulary
from .background import Background
from .situation import Situation
from .situation import connect_situation
from .situation import http_situation
from .situation import stream_situation
from .vocabulary import CAUSES
from .vocabulary import CLIENT_GAVE_UP
from .vocabulary import CRASHED
from .vocabulary import GAVE_UP
from .vocabulary import NOBODY
from .vocabulary import Message
from .vocabulary import Tag
from .vocabulary import Why

TIMEOUT_TOLERANCE = 0.1
"""Seconds by which a wait may look shorter than the client meant it: its clock starts when it
connects to the proxy, mitmproxy's when the first byte of the request is there."""

# As text: they are compiled when the first failure needs them.
_FIRST_WORD = r"(Bad HTTP request line: )b['\"]([^\s'\"\\]{1,32})"
_REQUEST_LINE = r"Bad HTTP request line: b['\"](\S+)\s+(\S+)\s+HTTP/\d\.\d['\"]$"

# Said of a connection to an upstream proxy, these mean that the proxy cannot be used (RFC 9209
# §2.3.4).
_NOT_REACHED = frozenset(
    ("connection_refused", "dns_error", "dns_timeout", "destination_ip_unroutable")
)
# What a log line said is the reason only of the vague failure that follows from it.
_EXPLAINS: Mapping[str, frozenset[str]] = {
    # mitmproxy closes on its client, and goes on as if that had left.
    vocabulary.TIMED_OUT: GAVE_UP,
    # After an alert mitmproxy overlooks that the server closed, so that the client waits in vain.
    "tls_alert_received": GAVE_UP | {"connection_terminated", "tls_protocol_error"},
    "proxy_configuration_error": frozenset(("tls_protocol_error",)),
    "proxy_internal_error": GAVE_UP | {"connection_terminated", "http_response_incomplete"},
}


class Rules(NamedTuple):
    """What the user's options say about classification."""

    statuses: Mapping[int, Tag]
    """Status code → ready-made tag, see `vocabulary.STATUS_TAGS`."""
    timeout: float
    """Option `flowtally_timeout`, in seconds."""
    urls: redaction.Urls = "redacted"
    """Option `flowtally_urls`: how much of a URL may stand in `detail`."""
    raw_tcp: bool = True
    """mitmproxy's `rawtcp`: whether a switch to an unknown protocol leads anywhere."""
    background: Background = Background()
    """Option `flowtally_background`: whose requests are a browser's or system's own."""
    quic_closes: Mapping[str, int] = MappingProxyType({})
    """The words with which QUIC peers lately closed a connection → the error code beside them."""


class Note(NamedTuple):
    """A log line about this client's connection that explains what follows."""

    message: Message
    """The row that the line matched: its causes, of a flow that follows and of none."""
    text: str
    """The line, not redacted."""


def classify(flow: mflow.Flow, rules: Rules, note: Note | None = None) -> Tag:
    """The tag of a flow that has ended.

    A flow that has neither a response nor an error is tagged `unfinished`.
    """
    if not isinstance(flow, http.HTTPFlow):
        return _classify_other(flow, rules, note)
    response = flow.response
    # The error first: a response may have begun before it, and a WebSocket's is complete.
    if flow.error:
        tag = exchange_failure(flow.error.msg, http_situation(flow), rules, note)
        return tag if response is None else {**_head(response, rules), **tag}
    if response is None:
        return {"outcome": "unfinished"}
    if flow.websocket is not None:
        return _websocket(flow, rules, note)
    # Before the status: the 502 is mitmproxy's own word for "I could not connect", not a server's
    # answer.
    if flow.request.data.method == b"CONNECT" and (problem := flow.server_conn.error):
        return exchange_failure(problem, connect_situation(flow), rules, note)
    code = response.status_code
    # What browsers write into a HAR for a request that got no answer; mitmproxy's reader drops why.
    if code <= 0 and not flow.live:
        return no_answer()
    if code == 101 and not rules.raw_tcp:
        return {
            **_head(response, rules),
            **failure_tag(Why("http_upgrade_failed"), "no protocol is enabled to upgrade to"),
        }
    ready = rules.statuses.get(code)
    return ready.copy() if ready is not None else vocabulary.status_tag(code)


def _classify_other(flow: mflow.Flow, rules: Rules, note: Note | None) -> Tag:
    if isinstance(flow, dns.DNSFlow):
        return _dns(flow, rules)
    if flow.error:
        return exchange_failure(flow.error.msg, stream_situation(flow), rules, note)
    if note is not None and _is_inactivity(note):
        return _noted_timeout(note, Situation(head=True))  # both ends could still send
    return {"outcome": "ok"}


def flow_kind(flow: mflow.Flow) -> str:
    """What a flow is, for the record's field `kind`."""
    if isinstance(flow, http.HTTPFlow):
        if flow.websocket is not None:
            return "websocket"
        try:
            return "connect" if flow.request.data.method == b"CONNECT" else "http"
        except AttributeError:
            return "http"  # another script has put something odd there
    if isinstance(flow, dns.DNSFlow):
        return "dns"
    if isinstance(flow, tcp.TCPFlow):
        return "tcp"
    return "udp" if isinstance(flow, udp.UDPFlow) else flow.type


def unfinished(flow: mflow.Flow, rules: Rules) -> Tag:
    """The tag of a flow that is still open when the session ends."""
    tag: Tag = {"outcome": "unfinished"}
    if isinstance(flow, http.HTTPFlow) and flow.response is not None:
        try:
            tag.update(_head(flow.response, rules))
        except (AttributeError, TypeError):
            pass  # another script has put something odd there
    return tag


def broken_flow() -> Tag:
    """The tag of a flow into which another script put what nobody can make sense of."""
    return failure_tag(Why("unknown"), "the flow is broken: another script changed it")


def unanswered_query() -> Tag:
    """The tag of a DNS query whose client went away without an answer."""
    return failure_tag(Why("dns_timeout"), "the name server did not answer")


def exchange_failure(
    message: str, situation: Situation, rules: Rules, note: Note | None = None
) -> Tag:
    """What a failure's message means, for `flow.error` and for failures without a flow."""
    return _tag_failure(texts.exchange, message, situation, rules, note)


def handshake_failure(message: str, situation: Situation, rules: Rules) -> Tag:
    """What a failed TLS handshake with the client means."""
    return _tag_failure(texts.handshake, message, situation, rules, None)


def log_failure(row: Message, text: str, rules: Rules) -> Tag:
    """What a log line means that is mitmproxy's only word on a failure.

    A request line of three words that ends in an HTTP version is a request whose target is no URL;
    any other is no HTTP at all.
    """
    if request_line := re.match(_REQUEST_LINE, text[:8192]):
        method, target = request_line.groups()
        if rules.urls != "full" and method not in vocabulary.METHODS:
            method = redaction.NOT_KEPT
        target = redaction.redact(target, rules.urls)
        detail = redaction.printable(f"Bad HTTP request line: {method} {target}".rstrip())
        return failure_tag(Why("invalid_url"), detail)
    if rules.urls == "full" and (first := re.match(_FIRST_WORD, text)):
        detail = redaction.printable(f"{first.group(1)}{first.group(2)} (bytes not kept)")
        return failure_tag(row.client, detail)
    return failure_tag(row.client, redaction.detail(text, rules.urls))


def task_failure(exception: BaseException, rules: Rules) -> Tag:
    """What it means that the task of a connection to a server died of an exception."""
    text = f"{type(exception).__name__}: {exception}"
    row = vocabulary.find_message(vocabulary.TASK_MESSAGES, text)
    why = row.client if row is not None else CRASHED
    # What follows is a backtrace of mitmproxy_rs.
    detail = redaction.detail(str(exception).split("\n", 1)[0] or text, rules.urls)
    return failure_tag(why, detail)


def noted_failure(note: Note, rules: Rules) -> Tag:
    """What a note means if no flow came of it."""
    return failure_tag(note.message.client, redaction.detail(note.text, rules.urls))


def no_answer() -> Tag:
    """The tag of an exchange of which a file has neither a status nor a word on why."""
    return failure_tag(Why("unknown", "no_status"), "the file has no status: no answer came")


def failure_tag(why: Why, detail: str, side: str = "") -> Tag:
    """The tag of an exchange that broke, or that its client cancelled.

    `side`: where the evidence tells another than that of the cause and reason.
    """
    outcome = "error" if CAUSES[why.cause].error else "cancelled"
    return {"outcome": outcome, **_why_fields(why, detail, side)}


def with_failure(tag: Tag, failure: Tag) -> Tag:
    """`tag` with another reason why the exchange broke, and nothing left of the one it had."""
    return {name: value for name, value in tag.items() if name not in _WHY} | failure


def with_overlay(tag: Tag, why: Why, detail: str = "", side: str = "") -> Tag:
    """The tag of a complete response that is a failure all the same: its status, and why.

    A status that is an error by itself keeps its code, -3.
    """
    found = {**tag, **_why_fields(why, detail, side)}
    if tag.get("error_code") is not None:
        found["error_code"], found["error_name"] = tag["error_code"], tag["error_name"]
    return found


_WHY = frozenset(("error_code", "error_name", "cause", "reason", "side", "detail"))
"""What `_why_fields` may fill in."""


def with_reason(tag: Tag, reason: str) -> Tag:
    """The tag of a failure for whose cause something else than its text gives the reason."""
    return {**tag, "reason": reason}


def _why_fields(why: Why, detail: str, side: str) -> Tag:
    fields = {**vocabulary.error_fields(why.cause), "cause": why.cause}
    if why.reason:
        fields["reason"] = why.reason
    fields["side"] = side or vocabulary.side_of(why)
    if detail:
        fields["detail"] = detail
    return fields


def explains(noted: str, cause: str) -> bool:
    """Whether the cause that a log line tells (`noted`) is why a failure was taken for `cause`."""
    return cause in _EXPLAINS.get(noted, ())


def _websocket(flow: http.HTTPFlow, rules: Rules, note: Note | None) -> Tag:
    websocket, response = flow.websocket, flow.response
    assert websocket is not None
    assert response is not None
    code = websocket.close_code
    tag = _head(response, rules)
    if code is None:
        return {**tag, "outcome": "unfinished"}
    if code == 1006:
        # RFC 6455 §7.4.1: the connection was closed without a close frame.
        if note is not None and _is_inactivity(note):
            tag |= _noted_timeout(note, Situation(head=True))
        elif websocket.closed_by_client:
            detail = "WebSocket connection cut off by the client"
            tag |= failure_tag(Why(vocabulary.CANCELLED), detail)
        else:
            detail = "WebSocket connection cut off by the server"
            tag |= failure_tag(Why("connection_terminated"), detail)
    else:
        tag["outcome"] = "status"
    if isinstance(code, int) and 0 <= code < 2**16:
        # Another script's may be anything, True too; wsproto's own are an enumeration's.
        tag["close_code"] = int(code)
    if reason := redaction.peer_text(websocket.close_reason or "", rules.urls):
        tag["close_reason"] = reason
    return tag


def _dns(flow: dns.DNSFlow, rules: Rules) -> Tag:
    if flow.error:
        return exchange_failure(flow.error.msg, Situation(), rules)
    if flow.response is None:
        return {"outcome": "unfinished"}
    code = flow.response.response_code
    if code == response_codes.NOERROR:
        return {"outcome": "ok"}
    name = response_codes.to_str(code)
    return failure_tag(Why("dns_error", name.lower() if name.isalpha() else ""), name)


def _head(response: http.Response, rules: Rules) -> Tag:
    """The status fields of a response head that did not lead to a complete response."""
    code = response.status_code
    ready = rules.statuses.get(code) or vocabulary.status_tag(code)
    return {name: ready[name] for name in ("status", "band", "description")}


def _tag_failure(
    read: Callable[[str], Message | None],
    message: str,
    situation: Situation,
    rules: Rules,
    note: Note | None,
) -> Tag:
    """`read` tells what the message means, as far as it is mitmproxy's."""
    words = ""
    # A QUIC peer's words stand where its code would.
    if situation.quic and (code := rules.quic_closes.get(message)) is not None:
        words, message = message, texts.quic_code(code)
    # Another addon's words: mitmproxy's own addon forbids one thing.
    known = not situation.denied or message.startswith(texts.SELF_CONNECT)
    row = read(message) if known else None
    foreign = known and row is None and situation.quic and bool(message)
    if foreign:  # aioquic's words, or a peer's
        with_client = read is texts.handshake
        in_handshake = with_client or situation.connecting
        row = texts.QUIC_HANDSHAKE_BROKEN if in_handshake else texts.QUIC_BROKEN
        if with_client:
            situation = situation._replace(side="client")
    if known or not message:
        why, side = _blamed(row, message, situation, rules.timeout)
    else:
        why, side = Why("http_request_denied"), ""
    detail = _detail(message, words, foreign, situation, rules.urls)
    # Last, for a note explains a cause, not a message.
    if note is not None:
        noted = note.message.server_before_head
        if _is_inactivity(note) and explains(noted.cause, why.cause):
            return _noted_timeout(note, situation)
        if explains(noted.cause, why.cause):
            why = noted
            detail = f"{detail} ({redaction.detail(note.text, rules.urls)})"
    # A TLS error of the client's own handshake is not the server's.
    return failure_tag(why, redaction.printable(detail), side)


def _blamed(
    row: Message | None, message: str, situation: Situation, timeout: float
) -> tuple[Why, str]:
    """What a row means in a situation, and `client` where the client is to blame whatever the
    cause."""
    why, by_client = _why(row, situation)
    if situation.overdue and texts.cancels_stream(message):
        why = Why(CLIENT_GAVE_UP)  # both ends know the deadline, and either may be the first
    if situation.preface and why.cause == "http_request_denied":
        return Why("http_request_error", "h2c"), ""
    if why.cause == CLIENT_GAVE_UP:
        return _gave_up(situation, timeout), ""  # the side of a timeout is the server's
    if by_client:
        return why, "client"
    why = _of_connection(why, message, situation)
    return (why if why.cause else Why("unknown")), ""


def _detail(
    message: str, words: str, foreign: bool, situation: Situation, urls: redaction.Urls
) -> str:
    """A message as it may be kept. `words`: what a QUIC peer said beside it. `foreign`: none of it
    is mitmproxy's."""
    if foreign:
        return redaction.peer_text(message, urls)
    side = "client" if situation.side == "client" else "server"
    detail = redaction.detail(texts.made_true(message, side, urls == "full"), urls)
    words = redaction.peer_text(words, urls)
    return f"{detail}: {words}" if words else detail


def _why(row: Message | None, situation: Situation) -> tuple[Why, bool]:
    """What a row says in a situation, and whether it says so of the client."""
    if row is None:
        return NOBODY, False
    if row.client.cause and (
        situation.side == "client"
        or not (row.server_before_head.cause or row.server_after_head.cause)
    ):
        return row.client, True
    return row.server_after_head if situation.head else row.server_before_head, False


def _of_connection(why: Why, message: str, situation: Situation) -> Why:
    """What else is known of a connection to a server that failed: the way to it, what it did."""
    # Else only: a client may give up on an upstream proxy as on any server.
    if situation.upstream:
        if message == "connection closed" and not situation.tunnelled:
            return Why("destination_unavailable", "closed")
        if situation.forwarded and why.cause == "connection_terminated":
            return Why("destination_unavailable", "closed")
        if why.cause in _NOT_REACHED:
            return Why("destination_unavailable")
    if situation.quic and message == "connection closed":
        return Why("connection_refused")  # the machine said that nobody listens there (ICMP)
    if why.cause == "http_response_timeout" and situation.connecting:
        return Why("connection_timeout")
    if why.cause == "connection_terminated" and situation.uploading:
        return Why("connection_terminated", "request_unfinished")
    return why


def _gave_up(situation: Situation, timeout: float) -> Why:
    if situation.overdue:
        return Why(_timeout(situation), "deadline_exceeded")
    if situation.endless:
        return Why(vocabulary.CANCELLED, "buffered" if situation.buffered else "")
    if situation.waited < timeout - min(TIMEOUT_TOLERANCE, timeout / 2):
        return Why(vocabulary.CANCELLED)
    if situation.securing and not situation.head:
        return Why("http_response_timeout", "tls_handshake")
    return Why(_timeout(situation))


def _timeout(situation: Situation) -> str:
    """The timeout that it is by how far the exchange had come."""
    if situation.head:
        return "connection_read_timeout"
    return "connection_timeout" if situation.connecting else "http_response_timeout"


def _is_inactivity(note: Note) -> bool:
    return note.message.server_before_head.cause == vocabulary.TIMED_OUT


def _noted_timeout(note: Note, situation: Situation) -> Tag:
    """What mitmproxy ended itself, because nothing came any more."""
    reason = note.message.server_before_head.reason
    side = "client" if situation.uploading else ""  # it is its turn to send
    # What else stands in the line describes the connection.
    return failure_tag(Why(_timeout(situation), reason), note.message.text, side)


@lru_cache(maxsize=256)
def _status_line(status: int, band: str, description: str) -> str:
    return f"{status} {band}, {description}"


def status_of(tag: Mapping[str, Any]) -> str:
    """What a tag says in one line, for people: `404 Client error, Not found`."""
    if tag["outcome"] == "status" and "cause" not in tag and "close_code" not in tag:
        return _status_line(tag["status"], tag["band"], tag["description"])
    parts = []
    if "status" in tag:
        parts.append(_status_line(tag["status"], tag["band"], tag["description"]))
    if "cause" in tag:
        why = Why(tag["cause"], tag.get("reason", ""))
        code = f" {tag['error_code']} {tag['error_name']}" if "error_code" in tag else ""
        parts.insert(0, f"{why}{code}")
    if not parts or tag["outcome"] == "unfinished":
        parts.append(tag["outcome"])
    if "close_code" in tag:
        parts.append(f"WebSocket close {tag['close_code']}")
    return ", ".join(parts)
