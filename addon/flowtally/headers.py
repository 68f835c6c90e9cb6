"""Looks up one header of each flow, at little cost.

mitmproxy's `Headers.get()` looks at all fields, in Python, decodes each name and joins the values;
what is asked of every flow must not cost that.
"""

from __future__ import annotations

from mitmproxy import http


def value_of(headers: http.Headers, name: bytes) -> bytes | None:
    """The value of the first header of this name, which is given in lower case; None of none."""
    size = len(name)
    for field, value in headers.fields:
        if len(field) == size and field.lower() == name:
            return value
    return None
