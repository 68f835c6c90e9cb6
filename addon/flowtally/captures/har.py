"""HAR files → records: each entry becomes a flow of mitmproxy's and goes the way of all flows.

What mitmproxy's own reader of HARs drops is told here beside the flow: real times, sizes, what the
producer says went wrong. A HAR comes from the client's side: nothing in it was answered by a proxy.
"""

from __future__ import annotations

import json
import re
import struct
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Iterator
from copy import copy
from itertools import islice
from typing import Any
from typing import BinaryIO
from typing import TypeVar

from mitmproxy import connection
from mitmproxy import http
from mitmproxy.websocket import WebSocketData

from .. import overlays
from .. import redaction
from ..classify import Rules
from ..classify import exchange_failure
from ..classify import failure_tag
from ..classify import no_answer
from ..classify import with_overlay
from ..classify import with_reason
from ..record import Record
from ..record import flow_record
from ..redirects import normalize
from ..report.layout import s
from ..situation import NO_WAIT
from ..situation import Situation
from ..tagger import Tagger
from ..times import timestamp
from ..vocabulary import CANCELLED
from ..vocabulary import COLLATERAL
from ..vocabulary import REDIRECT_CODES
from ..vocabulary import STATUS_TAGS
from ..vocabulary import Tag
from ..vocabulary import status_tag
from .entry import ERROR
from .entry import BadEntryError
from .entry import Entry
from .entry import entry_of
from .entry import value_of
from .kinds import ACCEPTED
from .kinds import NO_HAR
from .kinds import ForeignError
from .lacking import Lacking
from .order import in_order
from .scan import MAX_DEPTH
from .scan import Scan
from .words import COMPLETE
from .words import shown
from .words import why_of

MAX_ENTRY = 64 * 1024 * 1024
"""Longest entry that is read, in bytes."""
MAX_TOKENS = 1_500_000
"""How many strings, brackets and commas an entry may have: each value takes Python many times the
memory of its text. A WebSocket's 100,000 messages have some 1.1 million."""
MAX_CONNECTIONS = 4096
"""How many connections are remembered, those that were used last."""
MAX_PAGE = 64
"""Longest name of a page that is kept, in characters."""

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{\[,]', re.DOTALL)
_decoder = json.JSONDecoder(strict=False)
REDIRECTS = "too_many_redirects"
_CLOSE, _TEXT = 8, 1  # opcodes, RFC 6455 §5.2


Message = TypeVar("Message", http.Request, http.Response)


class Har:
    """One HAR file, which is read once."""

    def __init__(self, file: BinaryIO, name: str, lacking: Lacking) -> None:
        """`name`: for what is said of it."""
        self._file = file
        self._name = name
        self._lacking = lacking
        self._connections: OrderedDict[tuple[str, int, str], None] = OrderedDict()
        """Those that were used before; the one used last at the end."""
        self._client = connection.Client(
            peername=None,  # type: ignore[arg-type]  # nobody knows
            sockname=None,  # type: ignore[arg-type]  # and nobody asks
            timestamp_start=0.0,
        )
        self._servers: dict[tuple[str, int], connection.Server] = {}
        self._given_up: set[str] = set()
        """Where redirects led that broke the limit of their chain."""
        self._local = 0

    def entries(self, told: Callable[[int], None]) -> Iterator[tuple[int, Entry]]:
        """The entries that can be used, each with its number, in the order in which they began.
        `told` of bytes that were taken in. Raises: ForeignError, where it is no HAR."""
        scan = Scan(self._file)
        for place in in_order(self._file, scan.places()):
            told(place.end - place.begin)
            try:
                entry = entry_of(self._read(place.begin, place.end))
            except BadEntryError as error:
                self._lacking.skip(self._name, place.number, str(error))
                continue
            if entry is None:
                self._local += 1
            else:
                yield place.number, entry
        if scan.broken:
            within = f"within entry {scan.within}" if scan.within else "before its end"
            deep = f", where more than {MAX_DEPTH} brackets are open" if scan.deep else ""
            self._lacking.break_off(self._name, f"{within}{deep}; what came before is read")
        elif scan.surplus and scan.found:
            where = "where something else follows; what came before is read"
            self._lacking.break_off(self._name, where)
        elif not scan.found:
            raise ForeignError(f"{self._name}: seems to be {NO_HAR}; {ACCEPTED}")
        if self._local:
            self._lacking.notes.append(
                f"{self._name}: {self._local} URL{s(self._local)} left out for which no server is"
                " asked, such as data:"
            )

    def _read(self, begin: int, end: int) -> Any:
        """What stands in the file. Raises: BadEntryError."""
        if end - begin > MAX_ENTRY:
            raise BadEntryError(f"the entry is longer than {MAX_ENTRY // 2**20} MiB")
        if begin == end:
            raise BadEntryError("the entry is no object")
        self._file.seek(begin)
        text = self._file.read(end - begin)
        # Shorter ones, which are nearly all, cannot have so many.
        if len(text) > MAX_TOKENS and any(islice(_TOKEN.finditer(text), MAX_TOKENS, None)):
            raise BadEntryError(f"the entry has more than {MAX_TOKENS} parts")
        try:
            return _decoder.decode(text.decode("utf-8", "replace"))
        except RecursionError:
            raise BadEntryError("the entry is nested too deeply") from None
        except ValueError:
            raise BadEntryError("the entry is not JSON") from None

    def record(self, number: int, entry: Entry, tagger: Tagger, session: str) -> Record | None:
        """The record of an entry; None of a tunnel that was opened, for what is asked inside it is
        told by itself."""
        flow = self._flow(number, entry)
        tag = tagger.tag(flow, known=_known(flow, entry, tagger.rules))
        tag = self._of_chain(flow, entry, tag)
        kind = _kind(entry)
        if kind == "connect" and tag["outcome"] == "status" and tag["band"] == "Success":
            tagger.tunnel_opened(flow)
            return None
        record = flow_record(flow, kind, tag, session, tagger.rules.urls)
        self._tell_more(record, entry)
        return record

    def _flow(self, number: int, entry: Entry) -> http.HTTPFlow:
        place = entry.host, entry.port
        if place not in self._servers:
            if len(self._servers) >= MAX_CONNECTIONS:
                self._servers.clear()
            # With an address, so that it is not taken for one that nobody asked.
            self._servers[place] = connection.Server(address=place)
        flow = http.HTTPFlow(self._client, self._servers[place])
        flow.id = f"entry-{number}"
        version = (entry.http_version or "HTTP/1.1").encode()
        posts = entry.method == "POST"  # of what else there is nobody looks into the body
        flow.request = _copy(
            _REQUEST,
            host=entry.host,
            port=entry.port,
            method=entry.method.encode("ascii", "replace"),
            scheme=entry.scheme.encode("ascii", "replace"),
            path=entry.target.encode("utf-8", "replace"),
            http_version=version,
            headers=http.Headers(entry.request_headers),
            content=entry.request_body if posts else None,
            timestamp_start=entry.started,
            timestamp_end=entry.started,
        )
        if entry.has_head:
            headers = entry.response_headers
            if posts:  # what a HAR keeps of a body has no coding any more
                headers = [each for each in headers if each[0].lower() != b"content-encoding"]
            flow.response = _copy(
                _RESPONSE,
                http_version=version,
                status_code=entry.status,
                headers=http.Headers(headers),
                content=entry.response_body if posts else None,
                timestamp_start=entry.started,
                timestamp_end=entry.started + (entry.duration or 0.0) / 1000,
            )
            flow.websocket = _websocket(entry)
        return flow

    def _of_chain(self, flow: http.HTTPFlow, entry: Entry, tag: Tag) -> Tag:
        """The tag of an entry that may end a chain of redirects: one problem a chain. A client asks
        once more than it follows, and says then that it gave up."""
        if tag.get("cause") in ("redirect_loop", REDIRECTS) and tag["outcome"] == "status":
            location = value_of(entry.response_headers, b"location").decode("utf-8", "replace")
            if len(self._given_up) >= MAX_CONNECTIONS:
                self._given_up.clear()
            self._given_up.add(normalize(location, flow.request.url))
            return tag
        why = why_of(entry.words, entry.has_head) if entry.words else None
        if why is None or why.cause != REDIRECTS:
            return tag
        told = normalize(flow.request.url) in self._given_up
        if tag["outcome"] != "status":
            return with_reason(tag, COLLATERAL) if told else tag
        # Else the chain did not begin in this file, or the limit is another one.
        return tag if told or "cause" in tag else with_overlay(tag, why)

    def _tell_more(self, record: Record, entry: Entry) -> None:
        """What the entry tells better than the flow that was made of it."""
        for name in ("wait_ms", "duration_ms", "request_bytes", "response_bytes"):
            record.pop(name, None)
        if not entry.http_version:
            record.pop("http_version", None)
        # To the nearest millisecond, which all of a HAR's dates are.
        record["time"] = timestamp(entry.started + (entry.duration or 0.0) / 1000 + 0.0005)
        wait = entry.wait if entry.has_head and record["kind"] != "connect" else None
        sent, received = entry.request_size, entry.response_size
        if entry.messages is not None and entry.has_head:
            record["stream"] = True
            sent, received = _message_sizes(entry.messages)
        elif not entry.has_head:
            received = None
        found = {
            "wait_ms": wait,
            "duration_ms": None if record["outcome"] == "unfinished" else entry.duration,
            "request_bytes": sent,
            "response_bytes": received,
            "connect_ms": entry.connect,
            "tls_ms": entry.tls,
            "reused": self._is_reused(entry) or None,
            "page": _page(entry.page) or None,
        }
        for name, value in found.items():
            if value is not None:
                record[name] = round(value, 3) if isinstance(value, float) else value

    def _is_reused(self, entry: Entry) -> bool:
        """Whether another entry had opened the connection. Some producers name it after its port,
        so that the name alone does not tell."""
        if not entry.connection or not entry.has_head or entry.cached:
            return False
        key = entry.host, entry.port, entry.connection
        seen = key in self._connections
        self._connections[key] = None
        self._connections.move_to_end(key)
        if len(self._connections) > MAX_CONNECTIONS:
            self._connections.popitem(last=False)
        return seen and entry.connect is None


_REQUEST = http.Request.make("GET", "http://h/")
_RESPONSE = http.Response.make()


def _copy(message: Message, **fields: Any) -> Message:
    """A request or response with other fields. mitmproxy checks the type of each field of a new
    one, which takes longer than all that is done with an entry; an `Entry` has the right ones."""
    made = copy(message)
    made.data = copy(message.data)
    made.data.__dict__.update(fields)
    return made


# --- what went wrong ---


def _known(flow: http.HTTPFlow, entry: Entry, rules: Rules) -> Tag | None:
    """The tag of an exchange that broke, without what other entries add; None of a complete
    answer."""
    if not entry.has_head:
        if not entry.answered:
            return {"outcome": "unfinished"}
        if not entry.words:
            return no_answer()
        return _failed(entry, entry.words, rules)
    words = entry.words
    if not words or _is_complete(flow, entry, words, rules.urls):
        return None
    status = STATUS_TAGS.get(entry.status) or status_tag(entry.status)
    head = {name: status[name] for name in ("status", "band", "description")}
    return {**head, **_failed(entry, words, rules)}


def _failed(entry: Entry, words: str, rules: Rules) -> Tag:
    why = why_of(words, entry.has_head)
    if why is not None:
        tag = failure_tag(why, redaction.detail(words, rules.urls))
    else:  # mitmproxy writes its own words into a HAR
        situation = Situation(head=entry.has_head, waited=NO_WAIT)
        tag = exchange_failure(words, situation, rules)
    # Anybody may have written them.
    return {**tag, "detail": shown(tag["detail"], rules.urls)} if "detail" in tag else tag


def _is_complete(flow: http.HTTPFlow, entry: Entry, words: str, urls: redaction.Urls) -> bool:
    """Whether an answer is there in spite of what the client says of it."""
    why = why_of(words, has_head=True)
    cause = why.cause if why else ""
    if cause == CANCELLED:
        return entry.is_whole
    if cause == "unknown":  # Chromium says no more of an answer that it keeps from the page
        origin = value_of(entry.request_headers, b"origin").decode("utf-8", "replace")
        return bool(origin and overlays.cors_blocked(flow, origin, {}, urls))
    return cause == COMPLETE or (cause == REDIRECTS and entry.status in REDIRECT_CODES)


# --- WebSocket ---


def _websocket(entry: Entry) -> WebSocketData | None:
    """How a WebSocket was closed; None where no message of it says so."""
    for message in reversed(entry.messages or ()):
        if isinstance(message, dict) and message.get("opcode") == _CLOSE:
            code, reason = _close_code(message)
            return WebSocketData(
                closed_by_client=message.get("type") == "send",
                close_code=code,
                close_reason=reason,
            )
    return None


def _close_code(message: dict[str, Any]) -> tuple[int, str]:
    """What a close frame holds (RFC 6455 §5.5.1): a code and a reason, or nothing, which is 1005.
    Some producers write the code beside it."""
    code, data = message.get("code"), message.get("data")
    if type(code) is int and 1000 <= code < 5000:
        return code, data if isinstance(data, str) else ""
    body = _bytes_of(message)
    if len(body) < 2:
        return 1005, ""
    (code,) = struct.unpack(">H", body[:2])
    return code, body[2:].decode("utf-8", "replace")


def _message_sizes(messages: list[Any]) -> tuple[int, int]:
    """Bytes of what was sent and of what was received."""
    sizes = {"send": 0, "receive": 0}
    for message in messages:
        if not isinstance(message, dict) or message.get("opcode") in (_CLOSE, ERROR):
            continue
        way = message.get("type")
        if way in ("send", "receive"):
            sizes[way] += len(_bytes_of(message))
    return sizes["send"], sizes["receive"]


def _bytes_of(message: dict[str, Any]) -> bytes:
    """What a message holds: text as it is, anything else in Base64."""
    data = message.get("data")
    if not isinstance(data, str):
        return b""
    if message.get("opcode") != _TEXT:
        try:
            return a2b_base64(data.encode("ascii"))
        except (Base64Error, ValueError):
            pass  # as it is
    return data.encode("utf-8", "replace")


def _kind(entry: Entry) -> str:
    if entry.method == "CONNECT":
        return "connect"
    return "websocket" if entry.messages is not None and entry.has_head else "http"


def _page(page: str) -> str:
    """The name of a page, which may be its URL."""
    return redaction.printable(
        redaction.redact(page, "redacted") if "://" in page else page, MAX_PAGE
    )
