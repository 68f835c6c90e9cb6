"""Tells which request answers a 401 or 407: the one that repeats it with credentials.

To be asked for credentials is how authentication begins (RFC 9110 §11.1), so a challenge that is
answered is no problem. It is recorded at once all the same, for nobody knows yet whether it will
be; the request that answers it says so. In a scheme of several steps (NTLM: 401, 401, 200) each
challenge but the first answers the one before, as does a second try after a wrong password.
"""

from __future__ import annotations

from collections import Counter
from collections import OrderedDict
from typing import NamedTuple

from mitmproxy import flow as mflow
from mitmproxy import http

from . import redaction
from .headers import value_of
from .peers import client_of
from .peers import is_proxy
from .record import MAX_ID
from .vocabulary import CHALLENGE_CODES
from .vocabulary import Tag

MAX_AGE = 300.0
"""Seconds after which nobody answers any more: a person has to find the password first."""
MAX_CHALLENGES = 500
"""How many are kept, and how many tunnels; the oldest goes first."""
MAX_OF_A_REQUEST = 10
"""How many of one client, method and URL are kept: those that a page may ask for at once."""


class Challenge(NamedTuple):
    """A 401 or 407 that was not answered yet."""

    flow: str
    """The flow's id."""
    status: int
    time: float
    """When its head arrived, Unix time: a client may answer before the body is there."""


Key = tuple[str, int]
"""A client's address without port, and a hash of method and URL: nothing of a URL's length is
kept."""


class Challenges:
    """The challenges of all clients that wait for an answer, bounded in number and age.

    True while there is one.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[Key, list[Challenge]] = OrderedDict()
        """The latest challenge of a request stands last."""
        self._clients: Counter[str] = Counter()
        """Client's address → how many of its requests wait."""
        self._tunnels: OrderedDict[str, Challenge] = OrderedDict()
        """Id of a client's connection → challenge that the CONNECT on it answered."""

    def __bool__(self) -> bool:
        return bool(self._waiting or self._tunnels)

    def take(self, flow: mflow.Flow, tag: Tag) -> Tag:
        """Take in a flow that has ended; returns what it adds to its tag: `answers`, the id of the
        challenge that it answers, and `challenge`, the status of that one; or nothing."""
        answered = self._take_http(flow, tag) if isinstance(flow, http.HTTPFlow) else None
        if answered is None and self._tunnels:
            answered = self._tunnels.pop(flow.client_conn.id, None)
        return {"answers": answered.flow, "challenge": answered.status} if answered else {}

    def _take_http(self, flow: http.HTTPFlow, tag: Tag) -> Challenge | None:
        status, response = tag.get("status"), flow.response
        if status is None or response is None:
            return None
        answered = None
        client = client_of(flow)
        # Of all but a few flows, the client waits for nothing. Credentials are accepted when the
        # head of the answer says so, also of a download that its client cancels then.
        if client in self._clients and (status < 400 or status in CHALLENGE_CODES):
            answered = self._answered(_key(client, flow), flow)
        # With a cause it is another problem as well, which no credentials would mend.
        if status in CHALLENGE_CODES and tag["outcome"] == "status" and "cause" not in tag:
            arrived = response.timestamp_start or response.timestamp_end or 0.0
            challenge = Challenge(redaction.printable(flow.id, MAX_ID), status, arrived)
            self._keep(_key(client, flow), challenge)
        return answered

    def tunnel(self, flow: http.HTTPFlow) -> None:
        """Take in a CONNECT that opened a tunnel. Such a flow is recorded nowhere: if it answers a
        challenge, the first flow on the same connection tells."""
        client = client_of(flow)
        if client not in self._clients:
            return
        challenge = self._answered(_key(client, flow), flow)
        if challenge:
            self._tunnels[flow.client_conn.id] = challenge
            if len(self._tunnels) > MAX_CHALLENGES:
                self._tunnels.popitem(last=False)

    def _answered(self, key: Key, flow: http.HTTPFlow) -> Challenge | None:
        """The latest challenge that a request's credentials answer, which waits no more then. What
        had been asked before the challenge came knows nothing of it."""
        waiting = self._waiting.get(key)
        if not waiting:
            return None
        for number in range(len(waiting) - 1, -1, -1):
            challenge = waiting[number]
            age = flow.request.timestamp_start - challenge.time
            if 0 <= age <= MAX_AGE and _has_credentials(flow, challenge.status):
                del waiting[number]
                if not waiting:
                    del self._waiting[key]
                    self._forget(key)
                return challenge
        return None

    def _keep(self, key: Key, challenge: Challenge) -> None:
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = []
            self._clients[key[0]] += 1
        # A client that asks again and again without credentials leaves its last requests only.
        del waiting[: 1 - MAX_OF_A_REQUEST]
        waiting.append(challenge)
        self._waiting.move_to_end(key)
        while len(self._waiting) > MAX_CHALLENGES or self._is_old(challenge.time):
            oldest, _ = self._waiting.popitem(last=False)
            self._forget(oldest)

    def _is_old(self, now: float) -> bool:
        """Whether nobody will answer the requests that were challenged longest ago."""
        oldest = next(iter(self._waiting.values()), None)
        return oldest is not None and now - oldest[-1].time > MAX_AGE

    def _forget(self, key: Key) -> None:
        client = key[0]
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]


def _key(client: str, flow: http.HTTPFlow) -> Key:
    data = flow.request.data
    # Of programs that share an address, one does not log in for the other.
    program = value_of(data.headers, b"user-agent")
    return client, hash((data.method, data.scheme, data.host, data.port, data.path, program))


def _has_credentials(flow: http.HTTPFlow, status: int) -> bool:
    """Whether a request has the credentials that a challenge of this status asks for."""
    header = b"proxy-authorization" if status == 407 else b"authorization"
    if value_of(flow.request.headers, header) is not None:
        return True
    # mitmproxy's own login (option proxyauth) takes the header away, and leaves this mark; it asks
    # with a 401 where it is no proxy to its clients (addons/proxyauth.py, is_http_proxy).
    return "proxyauth" in flow.metadata and is_proxy(flow.client_conn) == (status == 407)
