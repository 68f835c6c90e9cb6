"""The statistics: a fold over records.

A session's tally is what `add` makes of its records, one by one in the order of their `seq`,
wherever they come from. It consists of tables, each declared once in TABLES; what is declared there
is counted, merged, bounded, written into checkpoints and read back. Whatever the traffic, it is
bounded: what overflows a table is counted under `(other)`, so that every sum stays exact.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from typing import NamedTuple

from .equal_waits import wait_of
from .histogram import Histogram
from .histogram import count_time
from .moments import WIDTHS
from .rows import COUNTS
from .rows import MAX_BUCKETS
from .rows import OTHER
from .rows import SERIES
from .rows import Key
from .rows import Record
from .rows import Row
from .rows import Rows
from .rows import Table
from .rows import Timeline
from .vocabulary import BANDS
from .vocabulary import COLLATERAL
from .vocabulary import DEFAULT_PORTS
from .vocabulary import ERRORS
from .vocabulary import KINDS
from .vocabulary import STATUS_TAGS
from .vocabulary import status_tag

UNFINISHED = ("", "unfinished", "")
"""The key of what was still open at the end among the causes: no error, but worth a look."""
COMMON = (
    "kind",
    "method",
    "outcome",
    "status",
    "error_code",
    "cause",
    "reason",
    "stream",
    "close_code",
    "media_type",
)
"""Fields of which there are few sets of values, and that decide in which rows most tables count a
record."""
MAX_COMMON = 2000
"""For how many sets of common fields the rows are remembered."""

# --- what a record is counted under ---


def place(record: Record) -> str:
    """A record's host, with its port unless that is 80 or 443; "" of none."""
    return _place_of(record.get("host", ""), record.get("port"))


@lru_cache(maxsize=4096)
def _place_of(host: str, port: int | None) -> str:
    return host if port is None or port in DEFAULT_PORTS.values() else f"{host}:{port}"


_MAX_ENDPOINT = 200
_ID = re.compile(
    r"/(?<![:/]/)(?:[0-9]++"
    r"|(?=[^/\n]{16})(?=[^/\n]*[0-9])(?:[0-9a-fA-F-]{16,}+|[0-9A-Za-z_]{20,}+))(?![^/\n])"
)
"""A path segment that names one thing of many: a number; a UUID, a hash, an object id; random text
such as a base64url token. Not what stands after `//`."""


def endpoint(record: Record) -> str:
    """The endpoint of a record, method, host and path with ids folded: `GET http://h/users/{id}`."""
    url = record.get("url")
    if url is None:
        host, port = record.get("host", ""), record.get("port")
        url = host if port is None else f"{host}:{port}"
        return f"{record.get('method') or record['kind'].upper()} {url}"
    return _endpoint_of(record.get("method", ""), url)


@lru_cache(maxsize=4096)  # many a URL is asked for again, and its ids need not be looked for
def _endpoint_of(method: str, url: str) -> str:
    url = _ID.sub("/{id}", url.partition("?")[0])
    if len(url) > _MAX_ENDPOINT:
        url = f"{url[: _MAX_ENDPOINT - 1]}…"
    return f"{method} {url}"


def _endpoint(record: Record) -> Key:
    return (endpoint(record),)


def _host(record: Record) -> Key:
    return (place(record),)


def _code(record: Record) -> Key | None:
    if record["outcome"] != "status":
        return None
    return record["band"], str(record["status"])


def _cause(record: Record) -> Key | None:
    """Error code ("" of what is no failure), cause and reason; the status code takes the place of a
    cause that there is none of."""
    error_code, cause = record.get("error_code"), record.get("cause")
    if error_code is None and cause is None:
        return UNFINISHED if record.get("outcome") == "unfinished" else None
    code = "" if error_code is None else str(error_code)
    return code, cause or str(record["status"]), record.get("reason", "")


def _incident(record: Record) -> Key | None:
    cause = _cause(record)
    return cause and (*cause, record.get("side", ""), place(record))


@lru_cache(maxsize=4096)
def incident_id(why: str, reason: str, side: str, host: str) -> str:
    """What is found by it belongs together, and has the same name in every session. `why`: the
    cause, or the status code; `host`: with its port unless that is usual."""
    said = "\0".join((why, reason, side, host)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(said).hexdigest()[:8]


def incident_of(record: Record) -> str:
    """The id of the incident that a record belongs to; "" where it is no problem."""
    key = _incident(record)
    return incident_id(*key[1:]) if key and key[0] else ""


def _endpoint_of_incident(record: Record) -> Key | None:
    id = incident_of(record)
    return (id, endpoint(record)) if id and "kind" in record else None


def _client_of_incident(record: Record) -> Key | None:
    id = incident_of(record)
    return (id, record["client"]) if id and "client" in record else None


def _protocol(record: Record) -> Key | None:
    if record["kind"] == "http":
        return None
    return record["kind"], str(record.get("close_code", ""))


def _media_type(record: Record) -> Key | None:
    return (record["media_type"],) if "media_type" in record else None


def _slow(record: Record) -> Key | None:
    is_request = record["kind"] == "http" and "duration_ms" in record
    return () if is_request and _is_timed(record) else None


def _is_timed(record: Record) -> bool:
    """Whether its times say how fast something is: not of what is endless by nature, and not of
    what the client cut short."""
    return (
        record["kind"] != "websocket"
        and record["outcome"] != "cancelled"
        and "stream" not in record
    )


def _wait(record: Record) -> Key | None:
    wait = wait_of(record, endpoint(record))
    return wait and (wait.client, wait.endpoint, str(wait.step))


def _background(record: Record) -> Key | None:
    return (record["background"],) if "background" in record else None


def challenge_of(record: Record) -> Record:
    """The challenge that a request answered, as far as it decides where it was counted: it was the
    same request, and got another answer.

    But for a CONNECT: where a proxy's challenge is answered in what is no plain http, the client
    had asked for the tunnel, of which the first flow in it tells.
    """
    status = record.get("challenge", 401)
    asked = {"time", "client", "method", "url", "host", "port"} & record.keys()
    challenge = {"kind": "http"} | {name: record[name] for name in asked}
    if status == 407 and not record.get("url", "").startswith("http://"):
        address = f"{record.get('host', '')}:{record.get('port')}"
        challenge |= {"kind": "connect", "method": "CONNECT", "url": address}
    return challenge | (STATUS_TAGS.get(status) or status_tag(status))


# --- the tables ---


TABLES = (
    Table(
        "codes", ("band", "code"), _code, 100, waits=True, durations=True, description="description"
    ),
    Table("causes", ("error_code", "cause", "reason"), _cause, 100, True, examples=5),
    Table(
        "incidents",
        ("error_code", "cause", "reason", "side", "host"),
        _incident,
        100,
        events=True,
        common=False,
        problems=True,
        moments=True,
        examples=2,
    ),
    Table(
        "endpoints_of_incidents",
        ("incident", "endpoint"),
        _endpoint_of_incident,
        20,
        common=False,
        problems=True,
    ),
    Table(
        "clients_of_incidents",
        ("incident", "client"),
        _client_of_incident,
        20,
        events=True,
        common=False,
        problems=True,
    ),
    Table("hosts", ("host",), _host, 1500, events=True, common=False, waits=True, durations=True),
    Table("endpoints", ("endpoint",), _endpoint, 3000, common=False, durations=True),
    Table("media_types", ("media_type",), _media_type, 100, durations=True),
    Table("methods", ("kind", "method"), lambda r: (r["kind"], r.get("method", "")), 50),
    Table("protocols", ("kind", "close_code"), _protocol, 50, durations=True),
    Table("waits", ("client", "endpoint", "step"), _wait, 20, common=False, problems=True),
    Table("slowest", (), _slow, 1, common=False, examples=10, examples_by="duration_ms"),
)
"""All tables but the timeline and the background. A record is in at most one row of each.

Where there is no cause, the status code takes its place among the causes; what the client cancelled
and what was still open at the end is there without an error code. A host has its port, unless that
is usual. `protocols` has all kinds of flow but `http`. `waits` has the flows that their clients
left, by how long they had waited, see `equal_waits`. `slowest` is one row, whose examples are the
HTTP requests that took longest."""

TIMELINE = Table(
    "timeline",
    ("seconds", "start", "series"),
    lambda _: None,  # Timeline makes it, for it depends on the width
    MAX_BUCKETS,
    events=True,
    common=False,
)
"""Width of a point of time, its beginning (Unix time), and what became of the flows in it."""

BACKGROUND = Table(
    "background",
    ("background",),
    _background,
    50,
    events=True,
    common=False,
)
"""Whose: what browsers and systems ask for on their own is counted here, and nowhere else."""

_VALUES: Mapping[str, Collection[str]] = {
    "series": SERIES,
    "band": BANDS,
    "error_code": ("", *map(str, ERRORS)),
    "kind": KINDS,
    "seconds": tuple(map(str, WIDTHS)),
}
"""Part of a key → what it can be, beside OTHER, where not every text will do."""

# --- the whole ---


class Totals(NamedTuple):
    """What a session comes to; the background but for its number left out."""

    flows: int
    failures: int
    """Flows that broke."""
    unsuccessful: int
    """Complete responses with an error code."""
    cancelled: int
    """Flows that their clients ended of their own will."""
    events: int
    """Failures without a flow."""
    challenges: int
    """Of the unsuccessful, 401s and 407s that were answered."""
    collateral: int
    """Of the failures, those that another stream of the connection had caused."""
    problems: int
    """All that went wrong: failures with and without a flow and unsuccessful responses, but for
    answered challenges and collateral."""
    ok: int
    unfinished: int
    background: int
    """Flows, and failures without one, of which each is somebody's background traffic."""
    request_bytes: int
    response_bytes: int
    dropped: int
    """Records that could not be written to the log."""
    first: str
    """Time of the earliest flow or event, RFC 3339; "" of none."""
    last: str

    @property
    def attempts(self) -> int:
        """Flows, and failures without one: what a share is of."""
        return self.flows + self.events


class InFlight(NamedTuple):
    """The flows that wait for their end, and are counted then."""

    flows: int
    oldest: float
    """How long the oldest has been waiting, in seconds; 0 if there is none."""


class Places(NamedTuple):
    """Where records that have their COMMON fields in common are counted."""

    rows: tuple[Row, ...]
    waits: tuple[Histogram, ...]
    durations: tuple[Histogram, ...]
    examples: tuple[tuple[Row, Table], ...]
    """The rows that keep examples."""
    timed: bool
    """Their times are counted."""


class Apart(NamedTuple):
    """A table in which a record's row depends on more than its COMMON fields."""

    rows: Rows
    key: Callable[[Record], Key | None]
    waits: bool
    durations: bool
    examples: bool
    moments: bool


class Tally:
    """The statistics of one session or several."""

    def __init__(self) -> None:
        self.dropped = 0
        """Records that could not be written, as `gap` records say."""
        self.first = ""
        """Time of the earliest flow or event, RFC 3339."""
        self.last = ""
        self.tables: dict[str, Rows] = {table.name: Rows(table) for table in TABLES}
        """Name → rows of TABLES, of the timeline and the background."""
        self.tables[TIMELINE.name] = Timeline(TIMELINE)
        self.tables[BACKGROUND.name] = Rows(BACKGROUND)
        self._apart: list[Apart] = []
        """The tables in which a plain flow is looked up by a key of its own."""
        self._apart_of_problems: list[Apart] = []
        """Those of any other flow."""
        for rows in self.tables.values():
            table = rows.table
            if table.common or table is BACKGROUND:
                continue
            has = table.waits, table.durations, bool(table.examples), table.moments
            apart = Apart(rows, rows.key, *has)
            self._apart_of_problems.append(apart)
            if not table.problems:
                self._apart.append(apart)
        self._places: dict[tuple[Any, ...], Places] = {}
        """COMMON fields → rows, so that a flow need not look each of them up by a key."""

    def __getitem__(self, name: str) -> Rows:
        """A table by its name."""
        return self.tables[name]

    # --- the fold ---

    def add(self, record: Record) -> None:
        """Count a record. Records other than flows, events and gaps change nothing."""
        kind = record["type"]
        if kind == "gap":
            self.dropped += record["dropped"]
        elif kind in ("flow", "event") and "background" in record:
            self._add_background(record)
        elif kind == "flow":
            self._add_flow(record)
        elif kind == "event":
            self._add_event(record)

    def _add_flow(self, record: Record) -> None:
        get = record.get
        common = tuple(map(get, COMMON))
        places = self._places.get(common)
        if places is None:
            places = self._find_places(common, record)
        rows, waits, durations = [*places.rows], [*places.waits], [*places.durations]
        # What has an error code, was cancelled or is unfinished.
        special = "cause" in record or "error_code" in record or record["outcome"] == "unfinished"
        tables = self._apart_of_problems if special else self._apart
        for apart, key_of, has_waits, has_durations, has_examples, has_moments in tables:
            key = key_of(record)
            if key is None:
                continue
            row = apart.get(key)
            if row is None:
                row = apart.admit(key)
            rows.append(row)
            if has_waits:
                waits.append(row.wait)
            if has_durations:
                durations.append(row.duration)
            if has_examples:
                row.keep(record, apart.table)
            if has_moments:
                row.moments.add(record["time"])
        sent, received = get("request_bytes", 0), get("response_bytes", 0)
        for row in rows:
            row.flows += 1
            row.request_bytes += sent
            row.response_bytes += received
        if special:
            self._add_special(record, rows)
        if "answers" in record:
            self.add_answer(record)
        for row, table in places.examples:
            row.keep(record, table)
        self._span(record["time"])
        if not places.timed:
            return
        if (time := get("wait_ms")) is not None:
            count_time(time, waits)
        if (time := get("duration_ms")) is not None:
            count_time(time, durations)

    def _add_special(self, record: Record, rows: Sequence[Row]) -> None:
        """Count what a flow is beyond a flow."""
        if record["outcome"] == "error":
            collateral = record.get("reason") == COLLATERAL
            for row in rows:
                row.failures += 1
                row.collateral += collateral
        elif record["outcome"] == "cancelled":
            for row in rows:
                row.cancelled += 1
        elif "error_code" in record:
            for row in rows:
                row.unsuccessful += 1

    def add_answer(self, record: Record) -> None:
        """Count that a request answered the challenge of an earlier one, wherever that one was
        counted."""
        challenge = challenge_of(record)
        for rows in self.tables.values():
            if (key := rows.key(challenge)) is not None:
                row = rows.get(key)
                if row is None:
                    row = rows.admit(key, challenge.get(rows.table.description, ""))
                row.challenges += 1

    def _add_background(self, record: Record) -> None:
        """Count a flow, or a failure without one, that nobody debugs."""
        rows = self[BACKGROUND.name]
        row = rows.get((record["background"],)) or rows.admit((record["background"],))
        if record["type"] == "event":
            row.events += 1
        else:
            row.flows += 1
            row.request_bytes += record.get("request_bytes", 0)
            row.response_bytes += record.get("response_bytes", 0)
            if record["outcome"] in ("error", "cancelled") or "error_code" in record:
                self._add_special(record, [row])
        self._span(record["time"])

    def _find_places(self, common: tuple[Any, ...], record: Record) -> Places:
        """Where records with these common fields are counted."""
        found: list[tuple[Row, Table]] = []
        for rows in self.tables.values():
            table = rows.table
            if table.common and (key := rows.key(record)) is not None:
                row = rows.get(key)
                if row is None:
                    row = rows.admit(key, record.get(table.description, ""))
                found.append((row, table))
        places = Places(
            tuple(row for row, _ in found),
            tuple(row.wait for row, table in found if table.waits),
            tuple(row.duration for row, table in found if table.durations),
            tuple((row, table) for row, table in found if table.examples),
            _is_timed(record),
        )
        if len(self._places) >= MAX_COMMON:
            self._places.clear()
        self._places[common] = places
        return places

    def _add_event(self, record: Record) -> None:
        for rows in self.tables.values():
            if rows.table.events and (key := rows.key(record)) is not None:
                row = rows.get(key)
                if row is None:
                    row = rows.admit(key)
                row.events += 1
                if rows.table.examples:
                    row.keep(record, rows.table)
                if rows.table.moments:
                    row.moments.add(record["time"])
        self._span(record["time"])

    def _span(self, time: str) -> None:
        if time > self.last:
            self.last = time
        if time < self.first or not self.first:
            self.first = time

    def merge(self, other: Tally) -> None:
        """Add what `other` counted."""
        self.dropped += other.dropped
        if other.first:
            self._span(other.first)
            self._span(other.last)
        for name, rows in other.tables.items():
            self.tables[name].merge(rows)

    # --- what follows from the tables ---

    def total(self) -> Row:
        """All that is counted of hosts, and each record is of one: the whole, with its times."""
        table = self["hosts"].table
        total = Row(table)
        for row in self["hosts"].values():
            total.merge(row, table)
        return total

    def sum(self, count: str, *names: str) -> int:
        """One of COUNTS, of some of SERIES or of all."""
        return sum(
            getattr(row, count)
            for (_, name), row in self["timeline"].items()
            if not names or name in names
        )

    def totals(self) -> Totals:
        """What the whole session comes to."""
        whole = Row(TIMELINE)
        for row in self["timeline"].values():
            whole.merge(row, TIMELINE)
        return Totals(
            **{name: getattr(whole, name) for name in COUNTS},
            problems=whole.problems,
            ok=self.sum("flows", "ok"),
            unfinished=self.sum("flows", "unfinished"),
            background=sum(row.count for row in self[BACKGROUND.name].values()),
            dropped=self.dropped,
            first=self.first,
            last=self.last,
        )

    @property
    def flows(self) -> int:
        """All flows but those of the background."""
        return self.sum("flows")

    def bands(self) -> Iterator[tuple[str, Row, dict[str, Row]]]:
        """Each band that occurred, in order: its name, its row, its codes' rows."""
        table = self["codes"].table
        for band in BANDS:
            codes = {code: row for (of, code), row in self["codes"].items() if of == band}
            if codes:
                total = Row(table)
                for row in codes.values():
                    total.merge(row, table)
                yield band, total, dict(sorted(codes.items()))

    def description(self, code: str) -> str:
        """What a status code means; "" of one that did not occur."""
        for (_, known), row in self["codes"].items():
            if known == code:
                return row.description
        return ""

    # --- checkpoints ---

    def to_rows(self) -> Iterator[dict[str, Any]]:
        """All tables as rows of one shape: `table`, `key`, COUNTS, and what else a row has."""
        for rows in self.tables.values():
            yield from rows.to_rows()

    def take(self, data: Any) -> None:
        """Put in a row of a checkpoint. Raises: ValueError, saying what is wrong."""
        if not isinstance(data, dict) or not isinstance(data.get("table"), str):
            raise ValueError("a row of statistics without a table")
        key = data.get("key")
        if not isinstance(key, list) or not all(isinstance(part, str) for part in key):
            raise ValueError("a row of statistics without a key")
        rows = self.tables.get(data["table"])
        if rows is None:
            return  # a table of a later version
        names = rows.table.parts
        if len(key) != len(names):
            raise ValueError(f"{rows.table.name} has no key of {len(key)} parts")
        for name, part in zip(names, key, strict=True):
            if part not in _VALUES.get(name, (part,)) and part != OTHER:
                raise ValueError(f"{rows.table.name} cannot have the {name} {part!r:.40}")
        rows.take(tuple(key), data)
