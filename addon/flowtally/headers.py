"""What flowtally asks the headers of every flow, made to cost little. Pure functions.

mitmproxy's `Headers.get()` looks at all fields, in Python, decodes each name and joins the values;
what is asked of every flow must not cost that.
"""

from __future__ import annotations

import mimetypes
from functools import lru_cache

from mitmproxy import http

MAX_MEDIA_TYPE = 100
"""Longest media type that is told, in characters; registered ones are shorter (RFC 6838 §4.2)."""
EVENT_STREAM = "text/event-stream"
"""The media type of a response that is endless by nature (HTML standard, server-sent events)."""


def value_of(headers: http.Headers, name: bytes) -> bytes | None:
    """The value of the first header of this name, which is given in lower case; None of none."""
    size = len(name)
    for field, value in headers.fields:
        if len(field) == size and field.lower() == name:
            return value
    return None


def media_type_of(response: http.Response) -> str:
    """The media type of a response without parameters, in lower case; "" where it has none."""
    content_type = value_of(response.data.headers, b"content-type")
    return _media_type(content_type[: 2 * MAX_MEDIA_TYPE]) if content_type else ""


@lru_cache(maxsize=256)
def is_common(media_type: str) -> bool:
    """Whether a media type is one that many servers send, and so no word that a peer made up."""
    return media_type in _PROTOCOLS_OWN or media_type in mimetypes.types_map.values()


_PROTOCOLS_OWN = frozenset(
    (
        EVENT_STREAM,
        "application/grpc",
        "application/grpc-web",
        "application/grpc-web-text",
        "application/x-www-form-urlencoded",
        "application/problem+json",
        "multipart/form-data",
        "multipart/byteranges",
        "text/plain",
    )
)
"""Those of protocols, which no file has and `mimetypes` does not know."""


@lru_cache(maxsize=256)
def _media_type(content_type: bytes) -> str:
    """RFC 9110 §8.3.1."""
    return content_type.partition(b";")[0].strip().lower().decode("utf-8", "replace")
