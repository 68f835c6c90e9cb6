"""Where the status of a gRPC call stands. Pure functions.

gRPC sends it as a trailer, or beside the head where there is nothing else to send; gRPC-Web, whose
clients cannot see trailers, as the last frame of the body (PROTOCOL-HTTP2.md and PROTOCOL-WEB.md of
the gRPC project).
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from typing import Literal
from typing import NamedTuple
from urllib.parse import unquote

from mitmproxy import http

from .bodies import decoded

Kind = Literal["grpc", "grpc-web", "grpc-web-text"]

MAX_FRAMES = 10_000
"""Frames, or pieces of Base64, of one body that are looked at."""
MAX_TRAILERS = 16_384
"""Bytes of a body's trailers that are looked at."""
MAX_MESSAGE = 4096
"""Characters of a grpc-message that are looked at."""

_TRAILERS = 0x80
"""The bit of a frame's first byte that says that it holds trailers."""
_COMPRESSED = 0x01


class Status(NamedTuple):
    """How a call ended."""

    number: int | None
    """None: what stands there is no number, which clients take for `unknown`."""
    message: str
    """The decoded grpc-message, as the peer chose it."""


def status_of(response: http.Response, kind: Kind) -> Status | Literal["missing", "hidden"]:
    """The status of a call.

    `missing`: the answer is complete and has none. `hidden`: it may have one where nobody can see
    it: the body was not kept, is too large, compressed, or came by a protocol without trailers.
    """
    for headers in (response.trailers, response.headers):
        if headers is not None and (values := headers.get_all("grpc-status")):
            return _status(values[0], headers.get("grpc-message", ""))
    if kind == "grpc":
        # mitmproxy drops the trailers of HTTP/1.
        return "missing" if response.is_http2 or response.is_http3 else "hidden"
    body = decoded(response.raw_content, response.headers.get("content-encoding", ""))
    if body is not None and kind == "grpc-web-text":
        body = _from_base64(body)
    return "hidden" if body is None else _last_frame(body)


def _status(number: str, message: str) -> Status:
    number = number.strip()
    readable = number.isascii() and number.isdigit() and len(number) < 10
    message = unquote(message[:MAX_MESSAGE], errors="replace")
    return Status(int(number) if readable else None, message)


def _from_base64(body: bytes) -> bytes | None:
    """The bytes of a gRPC-Web text body, in which each piece may end with padding of its own."""
    pieces = []
    for number, piece in enumerate(re.finditer(rb"[A-Za-z0-9+/]+={0,2}", body)):
        if number >= MAX_FRAMES:
            return None
        try:
            pieces.append(a2b_base64(piece.group()))
        except ValueError:
            return None
    return b"".join(pieces)


def _last_frame(body: bytes) -> Status | Literal["missing", "hidden"]:
    at, frames, flags, start = 0, 0, 0, 0
    while at + 5 <= len(body):
        if frames >= MAX_FRAMES:
            return "hidden"
        frames += 1
        flags, start = body[at], at + 5
        at = start + int.from_bytes(body[at + 1 : start], "big")
    if at != len(body) or not flags & _TRAILERS:
        return "missing"  # cut off within a frame, or before the last one
    if flags & _COMPRESSED:
        return "hidden"
    found = {}
    for line in body[start : start + MAX_TRAILERS].splitlines():
        name, _, value = line.partition(b":")
        found[name.strip().lower()] = value.strip().decode("utf-8", "replace")
    number = found.get(b"grpc-status")
    return "missing" if number is None else _status(number, found.get(b"grpc-message", ""))
