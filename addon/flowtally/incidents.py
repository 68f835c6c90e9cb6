"""Incidents: problems that belong together, in the order of what to look at first.

An incident is what has the same cause and reason, or status code, the same side and the same host.
Its id says so too, and is equal in every session, so that a report, a comparison and a test's
failure name the same thing alike.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from typing import NamedTuple

from .examples import distinct
from .rows import OTHER
from .rows import Key
from .rows import Row
from .rows import Rows
from .rows import Table
from .tally import Tally
from .tally import id_of_row
from .vocabulary import Why
from .vocabulary import advice
from .vocabulary import band_of
from .vocabulary import client_words
from .vocabulary import error_of
from .vocabulary import side_of

LONG = 60.0
"""Seconds that a session lasts before anything in it can be new."""
BEGINNING = 1 / 3
"""What part of a session is its beginning: what is new began later."""
STOPPED = NEW = 2.0
"""By how much an incident's weight is multiplied of a host of which nothing was right, and one that
is new."""
OF_THE_CLIENT = 0.25
"""And one that the client is to blame for: even one that is new, or all of a host, weighs less than
a server's of as many flows that is neither."""


class Counted(NamedTuple):
    """An endpoint or a client, and how often it had an incident."""

    name: str
    times: int


@dataclass(frozen=True, slots=True)
class Incident:
    """Problems that belong together."""

    id: str
    """Eight hexadecimal digits; "" of what a full table counts together."""
    code: int
    """The error code; 0 of what is no problem, and of what a full table holds no code of."""
    error_name: str
    cause: str
    """The cause, or the status code."""
    reason: str
    description: str
    """Of a status code."""
    band: str
    """Of a status code."""
    side: str
    """Where to look."""
    host: str
    """With its port unless that is usual; "" of one that is not known."""
    count: int
    at_least: bool
    """There may be more, see `Rows.at_least`."""
    of: int
    """How many flows, and failures without one, the host has; 0 where that is not known: of a tally
    that was narrowed, which may have no more of the host than the problems themselves."""
    stopped: bool
    """Nothing of the host's was right."""
    new: bool
    """It began when the session had been going well."""
    first: str
    """RFC 3339."""
    last: str
    seconds: int
    """How long a point of time is."""
    points: Mapping[int, int]
    """Where a point of time begins, Unix time → how often it happened in it."""
    endpoints: Sequence[Counted]
    """The most frequent first."""
    more_endpoints: bool
    clients: Sequence[Counted]
    more_clients: bool
    examples: Sequence[Mapping[str, Any]]
    """The latest, newest first: fields of records."""
    client_words: str
    """What clients would have said without a proxy, as a sentence; "" where nothing, and where
    they told it themselves."""

    @property
    def name(self) -> str:
        """`404 Not found`, `tls_certificate_error (expired)`."""
        return named(self.cause, self.description, self.reason)

    @property
    def why(self) -> Why:
        return Why(self.cause, self.reason)

    @property
    def advice(self) -> str:
        """What to do; "" of nothing that is known."""
        return advice(self.why)

    @property
    def share(self) -> float:
        """Of what was asked of the host, 0 to 1."""
        return min(1.0, self.count / self.of) if self.of else 1.0


def named(cause: str, description: str, reason: str) -> str:
    """What a problem or an incident is called: its cause, or its status code with what that means;
    and the reason. (other) has its brackets."""
    known = f"{cause} {description}".rstrip()
    if not reason:
        return known
    return f"{known} {reason}" if reason == OTHER else f"{known} ({reason})"


def weight(incident: Incident) -> float:
    """How much an incident matters; the one that weighs most is looked at first.

    Each flow that failed is one that the page or the app had to do without, so the count is what
    everything else is measured in. It counts twice where nothing of the host was right, for what
    depends on that host is not hampered but stopped; and twice where it is new, for what was right
    before was changed by somebody. It counts a quarter where the client is to blame, which HTTP
    says of 4xx: a server, a proxy or a network fails everybody.
    """
    weighs = float(incident.count)
    if incident.stopped:
        weighs *= STOPPED
    if incident.new:
        weighs *= NEW
    if incident.side == "client" or incident.band == "Client error":
        weighs *= OF_THE_CLIENT
    return weighs


def problems(key: Key, row: Row) -> int:
    """How much of a row is problems: of what has no error code, nothing."""
    return row.problems if key[0] else 0


def incidents(tally: Tally, counted: Callable[[Key, Row], int] = problems) -> list[Incident]:
    """The incidents of a session or several, the most important first.

    `counted`: how much of a row counts. What clients cancelled and what is unfinished can be had
    too; it has no id.
    """
    within = _Within(
        _by_incident(tally["endpoints_of_incidents"]), _by_incident(tally["clients_of_incidents"])
    )
    found = [_incident(part, tally, within) for part in _parts(tally["incidents"], counted)]
    found.sort(key=lambda each: (each.host == OTHER, -weight(each), each.first, each.id))
    return found


class _Part(NamedTuple):
    """What is one incident of a table's rows."""

    key: Key
    row: Row
    times: int
    """How much of it counts."""


def _parts(rows: Rows, counted: Callable[[Key, Row], int]) -> list[_Part]:
    """A row is one incident; so are those of one id, for a cause can have several error codes."""
    found: dict[object, _Part] = {}
    for key, row in rows.items():
        if not (times := counted(key, row)):
            continue
        name = id_of_row(key) or key
        part = _Part(key, row, times)
        found[name] = _together(found[name], part, rows.table) if name in found else part
    return list(found.values())


def _together(one: _Part, other: _Part, table: Table) -> _Part:
    """Two rows as one, which has the code of the larger."""
    row = Row(table)
    for part in (one, other):
        row.merge(part.row, table)
    return _Part(max(one, other, key=lambda part: part.times).key, row, one.times + other.times)


class _Within(NamedTuple):
    """What belongs to which incident, by its id."""

    endpoints: Mapping[str, Sequence[Counted]]
    clients: Mapping[str, Sequence[Counted]]


def _by_incident(rows: Rows) -> dict[str, list[Counted]]:
    found: dict[str, list[Counted]] = {}
    for key, row in rows.items():
        found.setdefault(key[0], []).append(Counted(key[1], row.problems))
    return found


def _incident(part: _Part, tally: Tally, within: _Within) -> Incident:
    key, row, count = part
    code, cause, reason, side, host = key
    why, band = Why(cause, reason), band_of(cause)
    error, id = error_of(code), id_of_row(key)
    of = None if tally.only else tally["hosts"].get((host,))
    endpoints, more_endpoints = _counted(
        within.endpoints.get(id, ()), (OTHER, OTHER) in tally["endpoints_of_incidents"]
    )
    clients, more_clients = _counted(
        within.clients.get(id, ()), (OTHER, OTHER) in tally["clients_of_incidents"]
    )
    return Incident(
        id=id,
        code=error.code if error else 0,
        error_name=error.name if error else "",
        cause=cause,
        reason=reason,
        description=tally.description(cause) if band else "",
        band=band,
        side=side or side_of(why),
        host=host,
        count=count,
        at_least=key in tally["incidents"].at_least,
        of=of.count if of else 0,
        stopped=of is not None and of.problems + of.cancelled >= of.count,
        new=_is_new(row.moments.first, tally),
        first=row.moments.first,
        last=row.moments.last,
        seconds=row.moments.seconds,
        points=dict(sorted(row.moments.points.items())),
        endpoints=endpoints,
        more_endpoints=more_endpoints,
        clients=clients,
        more_clients=more_clients,
        examples=distinct(row.examples[::-1]),
        client_words="" if tally.direct else client_words(why),
    )


def _counted(mine: Sequence[Counted], overflows: bool) -> tuple[list[Counted], bool]:
    """What belongs to an incident, the most frequent first, and whether there is more.
    `overflows`: the table took no more incidents."""
    found = [each for each in mine if each.name != OTHER and each.times]
    found.sort(key=lambda each: (-each.times, each.name))
    return found, overflows or any(each.name == OTHER for each in mine)


def _is_new(first: str, tally: Tally) -> bool:
    try:
        begun, began, ended = map(datetime.fromisoformat, (tally.first, first, tally.last))
        lasted = (ended - begun).total_seconds()
        return lasted >= LONG and (began - begun).total_seconds() > BEGINNING * lasted
    except (ValueError, TypeError):  # a log may say anything
        return False
