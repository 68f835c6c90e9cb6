"""Makes text from the network fit to be kept: no secrets, no control characters, bounded."""

from __future__ import annotations

import re
from typing import Literal

Urls = Literal["full", "redacted", "origin"]
"""How much of a URL is kept, the values of option `flowtally_urls`."""

MAX_URL = 2048
MAX_TEXT = 300
MAX_HOST = 255
MAX_TOKEN = 32
"""Longest method or HTTP version that is kept, in characters."""

# Patterns as text: most sessions need none of them, and to compile one takes longer than to load
# this module.
_BYTES_LITERAL = r"""(?:bytearray\()?b(?:'(?:[^'\\]|\\.)*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$))\)?"""
_HEADER_VALUE = (
    r"""(headers?: |transfer-encoding )\[?(?:'(?:[^'\\]|\\.)*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$))"""
)
_CLIENT_HELLO = r"(Cannot parse ClientHello: )[0-9a-f]+"
_URL = r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s<>]+"  # a password may hold quotes


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """`text` in at most `limit` characters, each control character and other character without a
    printed form replaced by U+FFFD."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def detail(message: str, urls: Urls = "redacted") -> str:
    """A message of mitmproxy's without the bytes it quotes from the peer.

    Those bytes are pieces of headers and bodies, which flowtally never keeps.
    """
    # A quotation can be megabytes long, and only its beginning could be shown anyway.
    message = message[:4096]
    if "b'" in message or 'b"' in message:
        message = re.sub(_BYTES_LITERAL, "(bytes not kept)", message)
    message = re.sub(_HEADER_VALUE, r"\1(value not kept)", message)
    message = re.sub(_CLIENT_HELLO, r"\1(bytes not kept)", message)
    if "://" in message:
        message = re.sub(_URL, lambda match: redact(match.group(), urls), message)
    return printable(message)


def redact(address: str, urls: Urls) -> str:
    """A whole URL as `urls` says: `redacted` drops userinfo, query values and fragment, `origin`
    everything behind the port."""
    if urls == "full":
        return address
    scheme, separator, rest = address.partition("://")
    if not separator:
        # No URL, but what stands for one in a malformed request: a host at best.
        return "" if urls == "origin" else re.split("[/?#]", address.rpartition("@")[2])[0]
    cut = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    authority = rest[:cut].rpartition("@")[2]
    if urls == "origin":
        return f"{scheme}://{authority}"
    return f"{scheme}://{authority}{redact_target(rest[cut:])}"


def redact_target(target: str) -> str:
    """A path with query, without the query's values and the fragment: `/p?a=1&b=2` → `/p?a=&b=`.

    What stands in a query without a name (`/p?secret`) is a value too.
    """
    target, _, _ = target.partition("#")
    path, question, query = target.partition("?")
    if not question:
        return path
    names = [
        name + "=" for name, equals, _ in (p.partition("=") for p in query.split("&")) if equals
    ]
    return f"{path}?{'&'.join(names)}"
