"""Follows redirect chains, to tell when one breaks a limit.

A chain is redirect responses of one client in which each request is for the URL that the last
`Location` named. A client keeps several chains at once, one a tab, over several connections; what
identifies a chain is the client's address and the URL it waits for.
"""

from __future__ import annotations

from collections import Counter
from collections import OrderedDict
from urllib.parse import quote
from urllib.parse import urljoin
from urllib.parse import urlsplit

from .vocabulary import DEFAULT_PORTS

LOOP = 3
"""The same URL answered by a redirect this often in one chain is a loop."""
MAX_AGE = 60.0
"""Seconds after which nobody follows a redirect any more."""
MAX_CHAINS = 500
"""How many chains are kept; the one that waited longest goes first."""
MAX_URLS = 100
"""How many URLs of one chain are remembered for loops."""

MAX_LENGTH = 8192
"""Longer URLs are not followed, in characters."""

# Kept as they are by clients that repair a Location, RFC 3986 §2.2 and §2.3.
_SAFE = "!#$%&'()*+,/:;=?@[]~"


class Chain:
    """One client's way from redirect to redirect."""

    __slots__ = ("answered", "length", "time")

    def __init__(self) -> None:
        self.length = 0
        self.time = 0.0
        """When the last redirect arrived, Unix time."""
        self.answered: dict[int, int] = {}
        """Hash of a URL → how often it was answered by a redirect."""


def normalize(url: str, base: str = "") -> str:
    """The URL a client requests when it is told to go to `url` from `base`; "" if none.

    Scheme and host in lower case, default port, fragment left out, path percent-encoded.
    """
    try:
        parts = urlsplit(urljoin(base, url.strip()))
        port = parts.port
        host = parts.hostname or ""
    except ValueError:
        return ""
    if parts.scheme not in DEFAULT_PORTS or not host:
        return ""
    path = quote(parts.path or "/", _SAFE, errors="replace")
    query = quote(parts.query, _SAFE, errors="replace")
    return (
        f"{parts.scheme}://{host}:{port or DEFAULT_PORTS[parts.scheme]}{path}"
        f"{'?' if query else ''}{query}"
    )


class Redirects:
    """The chains of all clients, bounded in number and age."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[str, str], list[Chain]] = OrderedDict()
        """Client's address and URL → chains that wait for it."""
        self._chains = 0
        self._hosts: Counter[tuple[str, str]] = Counter()
        """Client's address and host → for how many URLs of it chains wait."""

    def __len__(self) -> int:
        return self._chains

    def expects(self, client: str, host: str) -> bool:
        """Whether a chain of this client waits for a URL of this host: for all others, and they are
        nearly all, nobody has to look at the URL."""
        return (client, host.lower()) in self._hosts

    def follow(self, client: str, url: str, location: str, time: float, limit: int) -> str:
        """Take in one redirect response; the cause that it broke, or "".

        `client`: the client's address without port. `url`: what was requested. `location`: the
        header's value. `time`: of the response, Unix time. `limit`: redirects allowed in a row.
        """
        if len(url) > MAX_LENGTH or len(location) > MAX_LENGTH:
            return ""
        url = normalize(url)
        chain = self._take((client, url), time) or Chain()
        chain.length += 1
        chain.time = time
        key = hash(url)
        times = chain.answered.get(key, 0) + 1
        if times > 1 or len(chain.answered) < MAX_URLS:
            chain.answered[key] = times
        if target := normalize(location, url):
            self._keep((client, target), chain)
        if times >= LOOP:
            return "redirect_loop"
        return "too_many_redirects" if chain.length > limit else ""

    def answered(self, client: str, url: str, time: float) -> None:
        """Take in a response that is no redirect: it ends the chain that led to `url`."""
        if len(url) <= MAX_LENGTH:
            self._take((client, normalize(url)), time)

    def _take(self, key: tuple[str, str], time: float) -> Chain | None:
        chains = self._waiting.get(key)
        while chains:
            chain = chains.pop(0)
            self._chains -= 1
            if not chains:
                del self._waiting[key]
                self._forget(key)
            if time - chain.time <= MAX_AGE:
                return chain
        return None

    def _keep(self, key: tuple[str, str], chain: Chain) -> None:
        if key not in self._waiting:
            self._waiting[key] = []
            self._hosts[_host(key)] += 1
        self._waiting[key].append(chain)
        self._waiting.move_to_end(key)
        self._chains += 1
        while self._waiting:
            oldest = next(iter(self._waiting.values()))
            if self._chains <= MAX_CHAINS and chain.time - oldest[-1].time <= MAX_AGE:
                break
            key, _ = self._waiting.popitem(last=False)
            self._forget(key)
            self._chains -= len(oldest)

    def _forget(self, key: tuple[str, str]) -> None:
        host = _host(key)
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]


def _host(key: tuple[str, str]) -> tuple[str, str]:
    """Client's address and host, of a client's address and URL."""
    client, url = key
    return client, urlsplit(url).hostname or ""
