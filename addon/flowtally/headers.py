"""What flowtally asks the headers of every flow, made to cost little. Pure functions."""

from __future__ import annotations

from functools import lru_cache

from mitmproxy import http

MAX_MEDIA_TYPE = 100
"""Longest media type that is told, in characters; registered ones are shorter (RFC 6838 §4.2)."""
EVENT_STREAM = "text/event-stream"
"""The media type of a response that is endless by nature (HTML standard, server-sent events)."""


def media_type_of(response: http.Response) -> str:
    """The media type of a response without parameters, in lower case; "" where it has none."""
    # Not Headers.get(), which looks at all of them, in Python, for each flow.
    for name, value in response.data.headers.fields:
        if len(name) == 12 and name.lower() == b"content-type":
            return _media_type(value[: 2 * MAX_MEDIA_TYPE])
    return ""


@lru_cache(maxsize=256)
def _media_type(content_type: bytes) -> str:
    """RFC 9110 §8.3.1."""
    return content_type.partition(b";")[0].strip().lower().decode("utf-8", "replace")
