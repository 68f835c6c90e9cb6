"""An entry of a HAR, checked: what its producer wrote → what it says. Pure functions.

The format is HAR 1.2; each producer has its own way with what it does not know (-1, 0, null, "",
nothing at all). Whatever is not known is None or "" here, never 0. What an entry cannot do without
is checked, and a wrong one is refused with the field's name; anything else that has no sense is not
known.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from math import isfinite
from typing import Any
from urllib.parse import urlsplit

from ..bodies import MAX_BODY
from ..vocabulary import DEFAULT_PORTS
from ..vocabulary import REDIRECT_CODES

LONGEST_MS = 1e12
"""A longer time is none, in ms: 30 years."""
MAX_SIZE = 2**53
"""A larger size is none, in bytes: JSON's numbers are exact up to it."""
MAX_STATUS = 100_000
"""Of statuses, WebPageTest's own are the largest: 99999."""
MAX_HEADERS = 1000
MAX_VALUE = 64 * 1024
"""How much of a header is looked at, in characters."""
ERROR = -1
"""Chromium's opcode for what is no message of a WebSocket, but an error of its own."""
MAX_MESSAGES = 100_000
"""How many messages of a WebSocket are looked at."""

LOCAL_SCHEMES = frozenset(
    (
        *("about", "blob", "data", "file", "filesystem", "javascript", "view-source"),
        *("chrome", "chrome-extension", "chrome-untrusted", "devtools", "edge", "extension"),
        *("moz-extension", "resource", "safari-extension", "safari-web-extension"),
    )
)
"""Whoever asks for these asks no server."""
_SOCKETS = {"ws": "http", "wss": "https"}  # mitmproxy names a WebSocket after its handshake
_CACHES = ("Memory Cache", "Disk Cache")  # WebKit
_EMPTY = frozenset((204, 205, 304)) | REDIRECT_CODES
_HANDSHAKE = r"Error during WebSocket handshake: Unexpected response code: ([1-5][0-9]{2})\b.*"
_STATUS_TEXT = r"net::|ERR_|NS_ERROR_|NS_BINDING_"

Json = Mapping[str, Any]


class BadEntryError(ValueError):
    """An entry that cannot be used; the message names the field and what is wrong with it, and
    quotes nothing, for it may be a secret."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One exchange."""

    started: float
    """Unix time."""
    method: str
    scheme: str
    host: str
    port: int
    target: str
    """Path and query."""
    request_headers: list[tuple[bytes, bytes]]
    response_headers: list[tuple[bytes, bytes]]
    status: int
    """0 or less: no answer came."""
    words: str
    """What its producer says went wrong; "" of nothing."""
    answered: bool
    """The entry has a response at all."""
    http_version: str
    """As mitmproxy writes it; "" where it is not known."""
    duration: float | None
    """All of it, in ms; as all times here."""
    wait: float | None
    connect: float | None
    """TCP alone."""
    tls: float | None
    connection: str
    """Names the connection that was used; "" where that is not known."""
    cached: bool
    """The client had the answer already: no server was asked."""
    page: str
    request_size: int | None
    """Of the body, in bytes, as it was sent."""
    response_size: int | None
    received: int | None
    """Bytes of the response's body that the client had, without its content coding."""
    request_body: bytes | None
    """As far as it is short."""
    response_body: bytes | None
    """The same, without its content coding."""
    messages: list[Any] | None
    """Of a WebSocket; None: it is none."""

    @property
    def has_head(self) -> bool:
        """A response head had come."""
        return 0 < self.status < 10_000  # WebPageTest writes its errors as statuses from 12000 on

    @property
    def is_whole(self) -> bool:
        """All of the answer is there, also where its client says that it gave up: Chromium does so
        of what has no body. The status of an error is told, whatever came after it."""
        if self.status in _EMPTY or self.status >= 400 or self.method == "HEAD":
            return True
        length = _length(self.response_headers)
        return length is not None and (length == 0 or self.received == length)


def entry_of(data: Any) -> Entry | None:
    """What an entry says; None: it asks no server. Raises: BadEntryError."""
    entry = _object(data, "the entry")
    request = _object(entry.get("request"), "request")
    response = _object(entry.get("response") or {}, "response")
    method = _text(request.get("method"), "request.method")
    url = _text(request.get("url"), "request.url")
    if method == "CONNECT" and "://" not in url:
        url = f"https://{url}"
    if url.partition(":")[0].strip().lower() in LOCAL_SCHEMES:
        return None
    scheme, host, port, target = _split(url)
    timings = _soft(entry.get("timings"))
    content, cached = _soft(response.get("content")), _is_cached(entry)
    messages = entry.get("_webSocketMessages")
    messages = messages[:MAX_MESSAGES] if isinstance(messages, list) else None
    status = _status(response.get("status"))
    words = _words(entry, response, messages, status)
    if refused := re.fullmatch(_HANDSHAKE, words, re.DOTALL):
        status, words = int(refused.group(1)), ""
    if messages is None and status == 101 and entry.get("_resourceType") == "websocket":
        messages = []
    duration = _duration(entry.get("time"), timings)
    connect, tls = _connecting(timings, _time(entry.get("time")))
    request_headers = list(_headers(request.get("headers")))
    response_headers = list(_headers(response.get("headers")))
    _complete(response_headers, response, content, status)
    known = bool(duration) and not cached
    return Entry(
        started=_date(entry.get("startedDateTime")),
        method=method,
        scheme=scheme,
        host=host,
        port=port,
        target=target,
        request_headers=request_headers,
        response_headers=response_headers,
        status=status,
        words=words,
        answered=bool(response),
        http_version=_version(response, request, status),
        duration=duration if known else None,
        wait=_time(timings.get("wait")) if known else None,
        connect=connect if known else None,
        tls=tls if known else None,
        connection=_plain(entry.get("connection")),
        cached=cached,
        page=_plain(entry.get("pageref")),
        request_size=_request_size(request, request_headers),
        response_size=_response_size(response, content, response_headers) if not cached else None,
        received=_size(content.get("size")),
        request_body=_body(_soft(request.get("postData"))),
        response_body=_body(content),
        messages=messages if status in (101, 200) else None,
    )


# --- what an entry cannot do without ---


def _object(value: Any, field: str) -> Json:
    if not isinstance(value, dict):
        raise BadEntryError(f"{field} is {_kind(value)}, not an object")
    return value


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise BadEntryError(f"{field} is {_kind(value)}, not text")
    if not value.strip():
        raise BadEntryError(f"{field} is empty")
    return value.strip()


def _kind(value: Any) -> str:
    if value is None:
        return "missing or null"
    if isinstance(value, bool):
        return "true or false"
    kinds: tuple[tuple[Any, str], ...] = (
        ((int, float), "a number"),
        (str, "text"),
        (list, "a list"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "an object")


def _date(value: Any) -> float:
    """An ISO 8601 date → Unix time; one without a zone is in UTC."""
    text = _text(value, "startedDateTime")
    if (found := unix_time(text)) is None:
        raise BadEntryError("startedDateTime is no date in ISO 8601")
    return found


def unix_time(text: str) -> float | None:
    """The same, of any text; None of what is no date."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _split(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and target."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise BadEntryError("request.url is no URL") from None
    if not parts.scheme or not host:
        raise BadEntryError("request.url is no URL with a host")
    scheme = _SOCKETS.get(parts.scheme, parts.scheme)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return scheme, host, DEFAULT_PORTS.get(scheme, 0) if port is None else port, target


def _status(value: Any) -> int:
    """A status; nothing stands for 0."""
    if value is None or value == "":
        return 0
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,6}", value.strip()):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise BadEntryError(f"response.status is {_kind(value)}, not a whole number")
    if abs(value) > MAX_STATUS:
        raise BadEntryError("response.status is too large a number")
    return value


# --- what may be missing ---


def _soft(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> str:
    """A short word that names something."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MAX_SIZE:
        return str(value)
    return value.strip()[:500] if isinstance(value, str) else ""


def _time(value: Any) -> float | None:
    """In ms; -1 stands for what is not known or does not apply."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value <= LONGEST_MS and isfinite(value) else None


_PARTS = ("blocked", "dns", "connect", "send", "wait", "receive")  # `ssl` is one of `connect`


def _duration(value: Any, timings: Json) -> float | None:
    """The whole time. Where it is not told, the sum of its parts."""
    if (found := _time(value)) is not None:
        return found
    known = [time for name in _PARTS if (time := _time(timings.get(name))) is not None]
    return sum(known) if known else None


def _connecting(timings: Json, whole: float | None) -> tuple[float | None, float | None]:
    """How long TCP and TLS took to be set up; 0 stands for a connection that was there already.

    Firefox and mitmproxy leave TLS out of `connect`, unlike HAR 1.2: the `whole` time tells.
    """
    tcp, tls = _time(timings.get("connect")) or None, _time(timings.get("ssl")) or None
    if tcp is None or tls is None:
        return tcp, tls if tcp is not None else None
    parts = sum(_time(timings.get(name)) or 0.0 for name in _PARTS)
    apart = tls > tcp or (whole is not None and abs(whole - parts - tls) < tls / 4)
    return (tcp if apart else tcp - tls or None), tls


def _size(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < MAX_SIZE else None


def _headers(value: Any) -> Iterator[tuple[bytes, bytes]]:
    """Objects of `name` and `value`; some producers write pairs, or one object for all."""
    pairs = value.items() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for number, pair in enumerate(pairs):
        if number >= MAX_HEADERS:
            return
        if isinstance(pair, dict):
            name, text = pair.get("name"), pair.get("value")
        elif isinstance(pair, list | tuple) and len(pair) == 2:
            name, text = pair
        else:
            continue
        # What begins with a colon is no header of HTTP's, but HTTP/2's way to say the URL.
        if isinstance(name, str) and isinstance(text, str) and name[:1] not in ("", ":"):
            yield name.encode("utf-8", "replace"), text[:MAX_VALUE].encode("utf-8", "replace")


def _complete(
    headers: list[tuple[bytes, bytes]], response: Json, content: Json, status: int
) -> None:
    """Add headers that the producer tells elsewhere only."""
    names = {name.lower() for name, _ in headers}
    target, media_type = response.get("redirectURL"), content.get("mimeType")
    if b"location" not in names and 300 <= status < 400 and isinstance(target, str) and target:
        headers.append((b"Location", target[:MAX_VALUE].encode("utf-8", "replace")))
    if b"content-type" not in names and isinstance(media_type, str) and "/" in media_type:
        headers.append((b"Content-Type", media_type[:MAX_VALUE].encode("utf-8", "replace")))


def value_of(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    """The value of the first header of this name, given in lower case; b"" of none."""
    return next((value for field, value in headers if field.lower() == name), b"")


def _length(headers: list[tuple[bytes, bytes]]) -> int | None:
    value = value_of(headers, b"content-length").strip()
    return int(value) if value.isdigit() and len(value) < 16 else None


def _request_size(request: Json, headers: list[tuple[bytes, bytes]]) -> int | None:
    size, text = _size(request.get("bodySize")), _soft(request.get("postData")).get("text")
    if size is None or (size == 0 and text):
        size = _length(headers)
    if size is None and isinstance(text, str) and text:
        size = len(text.encode("utf-8", "replace"))
    return size


def _response_size(response: Json, content: Json, headers: list[tuple[bytes, bytes]]) -> int | None:
    """Of the body as it was sent: `content.size` is that only of one without a content coding."""
    size, plain = _size(response.get("bodySize")), _size(content.get("size"))
    if size == 0 and plain and response.get("status") != 304:
        size = None  # some write 0 for what they do not know
    if size is None and response.get("status") not in (0, -1, None):
        size = _length(headers)
        coded = value_of(headers, b"content-encoding").strip().lower() not in (b"", b"identity")
        if size is None and plain and not coded:
            size = plain
    return size


def _body(content: Json) -> bytes | None:
    """A short body as its producer kept it."""
    text = content.get("text")
    if not isinstance(text, str) or len(text) > 2 * MAX_BODY:
        return None
    if content.get("encoding") != "base64":
        return text.encode("utf-8", "replace")
    try:
        return a2b_base64(text.encode("ascii"))
    except (Base64Error, ValueError):
        return None


def _version(response: Json, request: Json, status: int) -> str:
    for message in (response, request) if status > 0 else (request,):
        name = message.get("httpVersion")
        if isinstance(name, str) and (found := _protocol(name.strip().lower())):
            return found
    return ""


def _protocol(name: str) -> str:
    """As mitmproxy writes it, mitmproxy/http.py: of HTTP/2, `HTTP/2.0`."""
    if name.startswith(("h3", "http/3", "quic", "http/2+quic")):
        return "HTTP/3"
    if name in ("h2", "h2c", "http/2", "http/2.0", "2", "2.0"):
        return "HTTP/2.0"
    if name in ("http/1.1", "1.1"):
        return "HTTP/1.1"
    return "HTTP/1.0" if name in ("http/1.0", "1.0") else ""


def _is_cached(entry: Json) -> bool:
    return (
        entry.get("_fromCache") in ("memory", "disk", True)
        or entry.get("_fromDiskCache") is True
        or entry.get("_fetchType") in _CACHES
    )


def _words(entry: Json, response: Json, messages: list[Any] | None, status: int) -> str:
    """What went wrong, in the producer's words."""
    for message in messages or ():
        if isinstance(message, dict) and message.get("opcode") == ERROR:
            words = message.get("data")
            return words.strip()[:4096] if isinstance(words, str) else ""
    for place in (response, entry):
        for name in ("_error", "_failureText", "_errorText", "_errorMessage"):
            value = place.get(name)
            if isinstance(value, str) and value.strip():
                return value.strip()[:4096]
    charles = response.get("_charlesStatus")
    if isinstance(charles, str) and charles.upper() not in ("", "COMPLETE"):
        return f"Charles: {charles.strip()[:100]}"
    text = response.get("statusText")
    if status <= 0 and isinstance(text, str) and re.match(_STATUS_TEXT, text):
        return text[:4096]
    return f"status {status}" if status >= 10_000 else ""
