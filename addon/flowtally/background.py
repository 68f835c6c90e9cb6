"""Tells which requests a browser or an operating system makes on its own: update checks, safe
browsing, captive portals, telemetry. Pure functions.

Whom the client asks is known from `known/background.csv`. What it asks there may be a page's all
the same, or a person's, so a request has to look like a program's own, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from mitmproxy import dns
from mitmproxy import flow as mflow
from mitmproxy import http

from .peers import address_of
from .peers import is_proxy
from .vocabulary import BACKGROUND
from .vocabulary import BackgroundHost

MAX_HOSTS = 2048
"""For how many hosts it is remembered whether they are known."""
MAX_HOST = 255
"""Longer hosts are no names (RFC 1035 §2.3.4) and are not looked for, in characters."""


class Known(NamedTuple):
    """What is known of a host."""

    rows: tuple[BackgroundHost, ...] = ()
    """The rows that name it or a domain above it; the nearest first."""
    pattern: str = ""
    """The user's pattern that it falls under, which is all that has to be known."""


NOTHING = Known()


class Background:
    """Looks hosts up, one look for a host that was seen before."""

    def __init__(
        self, rows: Iterable[BackgroundHost] = BACKGROUND, patterns: Iterable[str] = ()
    ) -> None:
        """`patterns`: hosts of the user's, each with all that lie below it, in lower case."""
        self._rows: dict[str, list[BackgroundHost]] = {}
        for row in rows:
            self._rows.setdefault(row.host, []).append(row)
        self._patterns = frozenset(patterns)
        self._find = lru_cache(MAX_HOSTS)(self._search)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Background)
            and self._rows == other._rows
            and self._patterns == other._patterns
        )

    def of(self, flow: mflow.Flow) -> str:
        """Whose request a flow is, or "".

        Of a CONNECT and of what is not HTTP, there is only the host to go by.
        """
        if not isinstance(flow, http.HTTPFlow):
            return self.of_host(_other_host(flow))
        data = flow.request.data
        client = flow.client_conn
        # In reverse mode the user names the server, and clients choose the Host header freely.
        named = is_proxy(client) or client.proxy_mode.type_name == "reverse"
        host = data.host if named else flow.request.pretty_host
        found = self._find(host) if len(host) <= MAX_HOST else NOTHING
        if found is NOTHING:
            return ""
        if data.method == b"CONNECT":
            return _of_host(found)
        if found.pattern:
            return found.pattern
        for row in found.rows:
            if data.path.startswith(row.path) and not _is_a_pages(flow.request.headers):
                return row.whose
        return ""

    def of_host(self, host: str) -> str:
        """Who connects to a host on its own, or ""."""
        return _of_host(self._find(host)) if len(host) <= MAX_HOST else ""

    def _search(self, host: str) -> Known:
        """What is known of a host. Whole labels are compared: `evil-mozilla.org` is none of
        `mozilla.org`."""
        rows: list[BackgroundHost] = []
        for domain in _domains(host.lower().rstrip(".")):
            if domain in self._patterns:
                return Known(pattern=domain)
            rows += self._rows.get(domain, ())
        return Known(tuple(rows)) if rows else NOTHING


def _domains(host: str) -> Iterator[str]:
    """A host and the domains above it: `a.b.c`, `b.c`, `c`."""
    while host:
        yield host
        host = host.partition(".")[2]


def _of_host(found: Known) -> str:
    return found.pattern or next((row.whose for row in found.rows if row.tunnel), "")


def _other_host(flow: mflow.Flow) -> str:
    """The host of a flow that is not HTTP; "" where none is known."""
    if isinstance(flow, dns.DNSFlow):
        questions = flow.request.questions
        return questions[0].name if questions else ""
    return flow.client_conn.sni or address_of(flow.server_conn)[0]


def _is_a_pages(headers: http.Headers) -> bool:
    """Whether a page or a person asked, and not the browser on its own.

    No page can set these headers (Fetch standard, forbidden request headers). A browser sends no
    Sec-Fetch headers over plain http (Fetch Metadata §3).
    """
    site = headers.get("sec-fetch-site", "")
    if site == "none":
        # Nobody but the browser; a person who goes there activates it (Fetch Metadata §2.4). An
        # Origin may stand there nevertheless: Chromium's ListAccounts has one.
        return "sec-fetch-user" in headers
    if site in ("same-origin", "same-site") or "referer" in headers:
        return True
    # Firefox's own WebSocket to its push server has an Origin of scheme wss, which no page has.
    if headers.get("origin", "").startswith(("http", "null")):
        return True
    # Of a navigation over plain http (Upgrade Insecure Requests §3.2.1).
    return not site and "upgrade-insecure-requests" in headers
