"""Clients that finish the TLS handshake with mitmproxy, and then leave without a word.

A client that compares a pinned key, or looks at the certificate, only when the handshake is over
shows mitmproxy nothing else: no alert, no failed handshake, no request. One that closes in the
handshake, without an alert, shows hardly more.

A browser that closes a connection which it did not need looks alike. But it keeps such a connection
for a while, or it uses another one to the same name, or it closes all that it has, because a window
or the browser itself is closed, and cancels what it had begun; or it takes back a request before it
was sent. Even one that says why it leaves may be back. Times are Unix times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

HESITATION = 2.0
"""Seconds after which a client that leaves without a word has not left because of what it saw in
the handshake. Chromium keeps an unused preconnect for ten seconds or more."""
PATIENCE = 3.0
"""Seconds in which another connection may show that the client does trust the proxy."""
TOGETHER = 0.5
"""Seconds between two connections that a client closes at once."""
EXCUSES = 2
"""How often a pair of client and name may leave for what may be another reason: three times is no
coincidence."""
MAX_SILENT = 10_000
"""How many connections are watched at once, the newest ones."""
MAX_NAMES = 4096
"""How many pairs of client and name are remembered to be well, those that were used last."""
MAX_LEFT = 1000
"""How many clients that left are kept; the oldest is told first if there are more."""


Pair = tuple[str, str, int | None]
"""A client without its port, and the name and port that it wants to reach."""


class Silent(NamedTuple):
    """A connection on which nothing was said yet after the handshake."""

    since: float
    """When the handshake was finished."""
    client: Any
    """The client's address (`peername`)."""
    host: str
    """What the client asked for (SNI), or the server's address."""
    port: int | None
    message: str = ""
    """mitmproxy's text if the client left in the handshake; else it left after that."""
    alert: bool = False
    """The client said that it will not have the proxy's certificate."""

    @property
    def pair(self) -> Pair:
        """Between whom it is."""
        return str(self.client[0]), self.host.lower(), self.port


class Handshakes:
    """Takes in handshakes and what follows them; tells which clients seem to distrust the proxy.

    True while it waits for a connection's first word.
    """

    def __init__(self) -> None:
        self._silent: dict[Any, Silent] = {}
        """Client address → its connection, while nothing was said on it."""
        self._left: list[tuple[float, Silent]] = []
        """When a client left, and what it left."""
        self._well: dict[Pair, None] = {}
        """Pairs of client and name between which something was said; the last one at the end."""
        self._closed: dict[str, float] = {}
        """Client without its port → when it closed something for reasons of its own."""
        self._excused: dict[Pair, int] = {}
        """Pair → how often it left for what may be another reason."""
        self._browsers: dict[Any, None] = {}
        """Addresses of clients with a ClientHello like a browser's that said nothing yet."""

    def __bool__(self) -> bool:
        return bool(self._silent)

    def __contains__(self, client: Any) -> bool:
        return client in self._silent

    def hello(self, client: Any, cipher_suites: Sequence[int]) -> None:
        """A client begins a handshake. Browsers put a reserved value first (GREASE, RFC 8701 §3.1),
        and they look at certificates within the handshake."""
        first = cipher_suites[0] if cipher_suites else 0
        if first & 0x0F0F == 0x0A0A:
            self._browsers[client] = None
            if len(self._browsers) > MAX_SILENT:
                del self._browsers[next(iter(self._browsers))]

    def finished(self, client: Any, host: str, port: int | None, now: float) -> None:
        """A client has finished the handshake of a connection to a server."""
        self._silent[client] = Silent(now, client, host, port)
        if len(self._silent) > MAX_SILENT:
            del self._silent[next(iter(self._silent))]

    def spoke(self, client: Any) -> None:
        """Something was said on a connection of a client: it trusts the proxy."""
        silent = self._silent.pop(client, None)
        if silent is None:
            return
        self._browsers.pop(client, None)
        pair = silent.pair
        self._well.pop(pair, None)
        self._well[pair] = None
        if len(self._well) > MAX_NAMES:
            del self._well[next(iter(self._well))]
        if self._left:
            self._left = [left for left in self._left if left[1].pair != pair]

    def gone(self, client: Any) -> Silent | None:
        """A client has left; returns its connection if nothing was said on it."""
        return self._silent.pop(client, None)

    def closed(self, client: Any, now: float) -> None:
        """A client has cancelled an exchange, or closed a connection that it had kept for
        `HESITATION`. What it closes together with that is not what it distrusts."""
        address = str(client[0])
        self._closed.pop(address, None)
        self._closed[address] = now
        if len(self._closed) > MAX_NAMES:
            del self._closed[next(iter(self._closed))]
        self._left = [
            (left, silent)
            for left, silent in self._left
            if silent.alert
            or silent.pair[0] != address
            or now - left > TOGETHER
            or not self._excuse(silent.pair)
        ]

    def suspect(self, silent: Silent, now: float) -> None:
        """Nothing else explains why a client left."""
        is_browser = silent.client in self._browsers
        self._browsers.pop(silent.client, None)
        if now - silent.since > HESITATION or silent.pair in self._well:
            return
        together = now - self._closed.get(silent.pair[0], float("-inf")) <= TOGETHER
        # A browser takes back what it had not sent yet; it does not do so again and again.
        if not (is_browser or together) or not self._excuse(silent.pair, is_browser):
            self._left.append((now, silent))

    def rejects(self, silent: Silent, now: float) -> bool:
        """Whether a client's alert has to wait for what it does next: a browser that was told to
        take any certificate (Playwright's `ignore_https_errors`) rejects each once, asks whoever
        told it, and is back at once with another connection, which it uses."""
        if silent.client not in self._browsers:
            return False
        del self._browsers[silent.client]
        self._left.append((now, silent._replace(alert=True)))
        return True

    def _excuse(self, pair: Pair, is_browser: bool = False) -> bool:
        """Whether a client may leave for another reason: it is a browser, or closes something else
        just then and trusts the proxy elsewhere; and it does not happen again and again."""
        if not is_browser and not any(client == pair[0] for client, _, _ in self._well):
            return False
        times = self._excused.get(pair, 0) + 1
        if len(self._excused) >= MAX_NAMES:
            self._excused.clear()
        self._excused[pair] = times
        return times <= EXCUSES

    def due(self, now: float) -> list[Silent]:
        """The connections that a client left because of the handshake, each once."""
        left = self._left
        told = 0
        while told < len(left) and (now - left[told][0] >= PATIENCE or len(left) - told > MAX_LEFT):
            told += 1
        self._left = left[told:]
        return [silent for _, silent in left[:told]]

    def at_end(self) -> list[Silent]:
        """All that nobody withdrew: the session ends."""
        return self.due(float("inf"))
