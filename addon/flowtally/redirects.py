"""Follows redirect chains, to tell when one reaches the limit.

A chain is redirect responses of one client in which each request is for the URL that the last
`Location` named. A client keeps several chains at once, one a tab, over several connections; what
identifies a chain is the client's address and the URL it waits for.

The limit alone makes a chain a problem, as it does in clients: they follow a login that visits the
same page three times, or a page that sends them to itself until something is ready, and the cookies
that decide how that ends are none of a proxy's business. A client that follows nothing, but repeats
a request that is redirected to itself, looks like one that follows; below the limit that is no
problem either way.
"""

from __future__ import annotations

from collections import Counter
from collections import OrderedDict
from urllib.parse import quote
from urllib.parse import urljoin
from urllib.parse import urlsplit

from .vocabulary import DEFAULT_PORTS

MAX_AGE = 60.0
"""Seconds after which nobody follows a redirect any more."""
MAX_AGE_AT_LIMIT = 5.0
"""The same once the limit was reached: most clients give up there, and whoever asks again later
begins anew."""
MAX_CHAINS = 500
"""How many chains are kept; the one that waited longest goes first."""
MAX_URLS = 100
"""How many URLs of one chain are remembered, the first ones, to see one of them come back."""
MAX_LENGTH = 8192
"""Longer URLs are not followed, in characters."""

# Kept as they are by clients that repair a Location, RFC 3986 §2.2 and §2.3.
_SAFE = "!#$%&'()*+,/:;=?@[]~"


class Chain:
    """One client's way from redirect to redirect."""

    __slots__ = ("background", "by_get", "came_back", "length", "seen", "time", "told")

    def __init__(self) -> None:
        self.by_get = False
        """Nobody follows its last redirect but with GET or HEAD."""
        self.background = False
        """Its last redirect was the answer to a request that a browser or system sent on its
        own."""
        self.length = 0
        self.time = 0.0
        """When the last redirect arrived, Unix time."""
        self.seen: set[int] = set()
        """Hashes of the URLs that were answered by a redirect."""
        self.came_back = False
        """One of them was named by a later `Location`."""
        self.told = False
        """It reached the limit before; what follows is the same problem."""


def normalize(url: str, base: str = "") -> str:
    """The URL a client requests when it is told to go to `url` from `base`; "" if none.

    Scheme and host in lower case, default port, fragment left out, path percent-encoded, without
    `.` and `..`.
    """
    try:
        parts = urlsplit(urljoin(base, url.strip()))
        port = parts.port
        host = parts.hostname or ""
    except ValueError:
        return ""
    if parts.scheme not in DEFAULT_PORTS or not host:
        return ""
    if ":" in host:  # an IPv6 address, whose brackets `hostname` leaves out
        host = f"[{host}]"
    path = quote(_without_dots(parts.path or "/"), _SAFE, errors="replace")
    query = quote(parts.query, _SAFE, errors="replace")
    return (
        f"{parts.scheme}://{host}:{port or DEFAULT_PORTS[parts.scheme]}{path}"
        f"{'?' if query else ''}{query}"
    )


def _without_dots(path: str) -> str:
    """An absolute path, its dot segments resolved: RFC 3986 §5.2.4, and as URL standard §4.1 has
    it, also encoded ones. `urljoin` does so with relative references alone."""
    if "/." not in path and "/%2" not in path:
        return path
    kept: list[str] = []
    dots = ""
    for segment in path.split("/"):
        dots = segment.replace("%2e", ".").replace("%2E", ".")
        if dots == "..":
            del kept[max(1, len(kept) - 1) :]
        elif dots != ".":
            kept.append(segment)
    return "/".join([*kept, ""] if dots in (".", "..") else kept)


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

    def sent(self, client: str, host: str, url: str, time: float) -> bool:
        """Whether a redirect sent this client to `url` not long before `time`, and not a browser or
        system that went on its own. An empty URL stands for any of the host: of a CONNECT there is
        no more to go by."""
        if not self.expects(client, host):
            return False
        if url:
            found = self._waiting.get((client, normalize(url)), [])
        else:
            of = client, host.lower()
            found = [
                chain
                for key, chains in self._waiting.items()
                if _host(key) == of
                for chain in chains
            ]
        return any(not chain.background and time - chain.time <= MAX_AGE for chain in found)

    def follow(
        self,
        client: str,
        url: str,
        location: str,
        asked: float,
        time: float,
        limit: int,
        *,
        method: str = "GET",
        status: int = 302,
        background: bool = False,
    ) -> str:
        """Take in one redirect response; a cause if the chain reaches the limit with it, else "".

        `client`: the client's address without port. `url`: what was requested. `location`: the
        header's value. `asked`, `time`: of the request and of the response, Unix time. `limit`:
        how many redirects in a row are too many; browsers give up at the response that is the 20th
        (Fetch standard, HTTP-redirect fetch), without asking for what it names. `method` of the
        request and `status` of the response: what was a POST is followed with GET (RFC 9110
        §15.4), so that a client that follows nothing may post a form again and again.
        `background`: a browser or system sent the request on its own.
        """
        if len(url) > MAX_LENGTH or len(location) > MAX_LENGTH:
            return ""
        url = normalize(url)
        chain = self._take((client, url), asked, method) or Chain()
        chain.length += 1
        chain.time = time
        chain.background = background
        chain.by_get = status == 303 or (status in (301, 302) and method == "POST")
        target = normalize(location, url)
        if not chain.told:
            if len(chain.seen) < MAX_URLS:
                chain.seen.add(hash(url))
            if target and hash(target) in chain.seen:
                chain.came_back = True
        if target:
            self._keep((client, target), chain)
        if chain.told or chain.length < limit:
            return ""
        chain.told = True
        chain.seen.clear()
        return "redirect_loop" if chain.came_back else "too_many_redirects"

    def answered(self, client: str, url: str, asked: float, method: str = "GET") -> None:
        """Take in a response that is no redirect: it ends the chain that led to `url`. `asked`:
        when it was asked for, Unix time."""
        if len(url) <= MAX_LENGTH:
            self._take((client, normalize(url)), asked, method)

    def _take(self, key: tuple[str, str], asked: float, method: str) -> Chain | None:
        chains = self._waiting.get(key)
        gets = method in ("GET", "HEAD")
        while chains:
            at = next((n for n, chain in enumerate(chains) if gets or not chain.by_get), None)
            if at is None:
                return None
            chain = chains.pop(at)
            self._chains -= 1
            if not chains:
                del self._waiting[key]
                self._forget(key)
            # How long a server takes says nothing of its client.
            if asked - chain.time <= (MAX_AGE_AT_LIMIT if chain.told else MAX_AGE):
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
