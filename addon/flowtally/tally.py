"""The statistics: a fold over records.

A session's tally is what `add` makes of its records, one by one in the order of their `seq`,
wherever they come from. It consists of tables, each declared once in TABLES; what is declared there
is counted, merged, bounded, written into checkpoints and read back. Whatever the traffic, it is
bounded: what overflows a table is counted under `(other)`, so that every sum stays exact.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from math import floor
from operator import itemgetter
from typing import Any
from typing import NamedTuple

from .histogram import Histogram
from .histogram import bucket
from .redaction import printable
from .vocabulary import BANDS
from .vocabulary import DEFAULT_PORTS
from .vocabulary import ERRORS
from .vocabulary import KINDS
from .vocabulary import TOO_MANY_REDIRECTS
from .vocabulary import UNSUCCESSFUL

Record = Mapping[str, Any]
Example = dict[str, Any]
Key = tuple[str, ...]
"""What a row of a table is found by."""

OTHER = "(other)"
"""What a full table counts the rest under."""
UNFINISHED = ("", "unfinished")
"""The key of what was still open at the end among the causes: no error, but worth a look."""
EVENT = "event"
"""What the series of failures without a flow is called."""
SERIES = (*BANDS, "error", "ok", "unfinished", EVENT)
"""What can become of a flow, a complete response by its band."""

MAX_BUCKETS = 240
"""How many points of time the timeline holds; it gets coarser when there are more."""
WIDTHS = (1, 2, 10, 30, 60, 300, 900, 3600, 10800, 43200, 86400, 604800, 6048000, 604800000)
"""Seconds that a point of the timeline may span. Each is a multiple of the one before, so that any
two timelines can be merged."""
MOST_GROUPS = 20
"""A table has at most so many times the rows that it may have of one group."""
MAX_EXAMPLE_URL = 512
"""In characters: a row with its examples must fit into a line of the log."""

COUNTS = ("flows", "failures", "unsuccessful", "events", "request_bytes", "response_bytes")
"""What every row counts. `failures`: flows with outcome `error`. `unsuccessful`: complete responses
with error code -3. `events`: failures without a flow. Bytes are those of bodies."""

COMMON = (
    "kind",
    "method",
    "outcome",
    "status",
    "error_code",
    "cause",
    "close_code",
    "media_type",
)
"""Fields of which there are few sets of values, and that decide in which rows most tables count a
record."""
MAX_COMMON = 2000
"""For how many sets of common fields the rows are remembered."""

EXAMPLE = (
    "time",
    "flow",
    "method",
    "url",
    "host",
    "port",
    "status",
    "cause",
    "detail",
    "wait_ms",
    "duration_ms",
)
"""The fields of a record that are kept of it as an example."""


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


@lru_cache(maxsize=4096)  # many a URL is asked for again, and a look-up costs a third
def _endpoint_of(method: str, url: str) -> str:
    url = _ID.sub("/{id}", url.partition("?")[0])
    if len(url) > _MAX_ENDPOINT:
        url = f"{url[: _MAX_ENDPOINT - 1]}…"
    return f"{method} {url}"


def _endpoint(record: Record) -> Key:
    return (endpoint(record),)


def _host(record: Record) -> Key:
    return (place(record),)


def series(record: Record) -> str:
    """What became of a record's flow, one of SERIES."""
    outcome: str = record.get("outcome", EVENT)
    return record["band"] if outcome == "status" else outcome


def _code(record: Record) -> Key | None:
    if record["outcome"] != "status":
        return None
    return record["band"], str(record["status"])


def _cause(record: Record) -> Key | None:
    """Error code and cause; of -3, the status code takes the cause's place."""
    error_code = record.get("error_code")
    if error_code is None:
        return UNFINISHED if record.get("outcome") == "unfinished" else None
    return str(error_code), record.get("cause") or str(record["status"])


def _host_of_cause(record: Record) -> Key | None:
    cause = _cause(record)
    return cause and (*cause, place(record))


def _protocol(record: Record) -> Key | None:
    if record["kind"] == "http":
        return None
    return record["kind"], str(record.get("close_code", ""))


def _media_type(record: Record) -> Key | None:
    return (record["media_type"],) if "media_type" in record else None


def _slow(record: Record) -> Key | None:
    return () if record["kind"] == "http" and "duration_ms" in record else None


# --- the tables ---


class Table(NamedTuple):
    """How a table of the statistics comes about."""

    name: str
    parts: tuple[str, ...]
    """What the parts of a key are. All but the last make the group."""
    key: Callable[[Record], Key | None]
    """What a record is counted under; None: not in this table."""
    limit: int
    """How many rows of one group are named; the rest of the group is counted under (other)."""
    events: bool = False
    """It counts failures without a flow too."""
    common: bool = True
    """The key depends on nothing but the fields COMMON."""
    problems: bool = False
    """It holds only what went wrong, or is unfinished."""
    waits: bool = False
    """It knows how `wait_ms` is distributed."""
    durations: bool = False
    """It knows how `duration_ms` is distributed."""
    description: str = ""
    """The field of the first record of a row that says what the key means."""
    examples: int = 0
    """How many records are kept as examples, those that come last in the order of `examples_by`."""
    examples_by: str = "time"
    """A field that they have. Of those that are equal in it, the latest are kept."""


TABLES = (
    Table(
        "codes", ("band", "code"), _code, 100, waits=True, durations=True, description="description"
    ),
    Table("causes", ("error_code", "cause"), _cause, 200, True, examples=5),
    Table(
        "hosts_of_causes",
        ("error_code", "cause", "host"),
        _host_of_cause,
        100,
        events=True,
        common=False,
        problems=True,
    ),
    Table("hosts", ("host",), _host, 1500, events=True, common=False, waits=True, durations=True),
    Table("endpoints", ("endpoint",), _endpoint, 3000, common=False, durations=True),
    Table("media_types", ("media_type",), _media_type, 100, durations=True),
    Table("methods", ("kind", "method"), lambda r: (r["kind"], r.get("method", "")), 50),
    Table("protocols", ("kind", "close_code"), _protocol, 50, durations=True),
    Table("slowest", (), _slow, 1, common=False, examples=10, examples_by="duration_ms"),
)
"""All tables but the timeline. A record is in at most one row of each.

Of -3, the status code takes the cause's place among the causes; what was still open at the end is
there under UNFINISHED. A host has its port, unless that is usual. `protocols` has all kinds of flow
but `http`. `slowest` is one row, whose examples are the HTTP requests that took longest."""

TIMELINE = Table(
    "timeline",
    ("seconds", "start", "series"),
    lambda _: None,  # Timeline makes it, for it depends on the width
    MAX_BUCKETS,
    events=True,
    common=False,
)
"""Width of a point of time, its beginning (Unix time), and what became of the flows in it."""

_VALUES: Mapping[str, Collection[str]] = {
    "series": SERIES,
    "band": BANDS,
    "error_code": ("", *map(str, ERRORS)),
    "kind": KINDS,
    "seconds": tuple(map(str, WIDTHS)),
}
"""Part of a key → what it can be, beside OTHER, where not every text will do."""

_NOTHING = Histogram()
"""Stands in rows for the distribution that their table does not know; is never added to."""


class Row:
    """What is counted under a key."""

    __slots__ = (*COUNTS, "_examples", "description", "duration", "wait")

    flows: int
    failures: int
    unsuccessful: int
    events: int
    request_bytes: int
    response_bytes: int

    def __init__(self, table: Table, description: str = "") -> None:
        self.flows = self.failures = self.unsuccessful = self.events = 0
        self.request_bytes = self.response_bytes = 0
        self.description = description
        self.wait = Histogram() if table.waits else _NOTHING
        self.duration = Histogram() if table.durations else _NOTHING
        self._examples: list[tuple[tuple[Any, ...], Example]] = []
        """Each with its place in the table's order, ascending."""

    @property
    def count(self) -> int:
        """Flows, and failures without one."""
        return self.flows + self.events

    @property
    def problems(self) -> int:
        """All that went wrong, a redirect too many excepted."""
        return self.failures + self.unsuccessful + self.events

    @property
    def examples(self) -> list[Example]:
        """What was kept, in ascending order."""
        return [kept for _, kept in self._examples]

    def keep(self, record: Record, table: Table) -> None:
        """Keep a record as an example if it is among the last in the table's order."""
        rank, kept = record[table.examples_by], self._examples
        full = len(kept) >= table.examples
        if full and rank < kept[0][0][0]:  # nearly all are not among the slowest
            return
        order = rank, record["time"], record.get("flow", "")
        if full and order < kept[0][0]:
            return
        kept.append((order, example(record)))
        if len(kept) > 1 and kept[-2][0] > order:
            kept.sort(key=itemgetter(0))
        del kept[: -table.examples]

    def merge(self, other: Row, table: Table) -> None:
        """Add what `other` counted."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.description = self.description or other.description
        for name in ("wait", "duration"):
            theirs: Histogram = getattr(other, name)
            if theirs:
                getattr(self, name).merge(theirs)
        for kept in other.examples:
            self.keep(kept, table)

    def to_data(self) -> dict[str, Any]:
        """As plain data, without its key."""
        data: dict[str, Any] = {name: getattr(self, name) for name in COUNTS}
        if self.description:
            data["description"] = self.description
        if self.wait:
            data["wait"] = self.wait.to_data()
        if self.duration:
            data["duration"] = self.duration.to_data()
        if self._examples:
            data["examples"] = self.examples
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any], table: Table) -> Row:
        """What `to_data` made. Raises: ValueError."""
        self = cls(table, _text(data, "description"))
        for name in COUNTS:
            setattr(self, name, _count(data, name))
        if table.waits and "wait" in data:
            self.wait = Histogram.from_data(data["wait"])
        if table.durations and "duration" in data:
            self.duration = Histogram.from_data(data["duration"])
        kept = data.get("examples", [])
        if not isinstance(kept, list) or len(kept) > table.examples:
            raise ValueError(f"{table.name} has at most {table.examples} examples")
        for record in kept:
            _check_example(record, table)
            self.keep(record, table)
        return self


class Rows(dict[Key, Row]):
    """The rows of a table, those named first; when a group is full, `(other)` takes the rest."""

    def __init__(self, table: Table) -> None:
        super().__init__()
        self.table = table
        self.key = table.key
        self.at_least: set[Key] = set()
        """Keys of rows that may be larger: of merged sessions, one had this key under (other)."""
        self._sizes: dict[Key, int] = {}
        """Group → how many of its rows are named."""

    def admit(self, key: Key, description: str = "") -> Row:
        """The row for a key that has none, which is that of (other) where the table is full."""
        group, limit = key[:-1], self.table.limit
        if not key or key[-1] != OTHER:
            size = self._sizes.get(group, 0)
            if size < limit and len(self) < MOST_GROUPS * limit:
                self._sizes[group] = size + 1
                if self.may_hide(key):
                    self.at_least.add(key)
                row = self[key] = Row(self.table, description)
                return row
            key = (*group, OTHER) if size else (OTHER,) * len(key)
        if key not in self:
            self[key] = Row(self.table)
        return self[key]

    def may_hide(self, key: Key) -> bool:
        """Whether some of what belongs under a key may be counted under (other)."""
        return bool(key) and ((*key[:-1], OTHER) in self or (OTHER,) * len(key) in self)

    def merge(self, other: Rows) -> None:
        """Add what `other` counted."""
        # Looked at before rows of `other` come in: what is named here and not there may be there
        # under (other).
        if any(key[-1:] == (OTHER,) for key in other):
            self.at_least |= {k for k in self if k not in other and other.may_hide(k)}
        for key, row in other.items():
            mine = self.get(key)
            if mine is None:
                mine = self.admit(key, row.description)
            mine.merge(row, self.table)
        self.at_least |= other.at_least & self.keys()
        self.at_least = {key for key in self.at_least if OTHER not in key}

    def to_rows(self) -> Iterator[dict[str, Any]]:
        """Each row as plain data, with its table and key."""
        for key, row in self.items():
            yield {"table": self.table.name, "key": list(key), **row.to_data()}

    def take(self, key: Key, data: Mapping[str, Any]) -> None:
        """Put in a row of a checkpoint. Raises: ValueError."""
        if key in self:
            raise ValueError(f"{self.table.name} has {key!r:.60} twice")
        row = Row.from_data(data, self.table)
        admitted = self.admit(key)
        if key in self:
            self[key] = row
        else:
            admitted.merge(row, self.table)


class Timeline(Rows):
    """Points of time, equally wide; when there are too many of them they get wider."""

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self.number = 0
        """Which of WIDTHS a point spans."""
        self._starts: set[str] = set()
        self._second = ""
        """The second of the last record, RFC 3339, and its point of time: the next record is mostly
        from the same."""
        self._start = ""
        self.key = self._key

    @property
    def seconds(self) -> int:
        """How long a point of time is."""
        return WIDTHS[self.number]

    def _key(self, record: Record) -> Key:
        second = record["time"][:19]
        if second != self._second:
            self._start = self._start_of(floor(datetime.fromisoformat(f"{second}Z").timestamp()))
            self._second = second
        return self._start, series(record)

    def admit(self, key: Key, _description: str = "") -> Row:
        start, name = key
        self._enter(start)
        # Entering may have widened all points, and this one with them.
        key = self._start_of(int(start)), name
        row = self.get(key)
        if row is None:
            row = self[key] = Row(self.table)
        return row

    def _start_of(self, second: int) -> str:
        return str(second - second % self.seconds)

    def _enter(self, start: str) -> None:
        """Make room for a point of time."""
        self._starts.add(start)
        while len(self._starts) > MAX_BUCKETS and self.number < len(WIDTHS) - 1:
            self._widen()

    def _widen(self) -> None:
        self.number += 1
        old = dict(self)
        self.clear()
        for (start, name), row in old.items():
            self.setdefault((self._start_of(int(start)), name), Row(self.table)).merge(
                row, self.table
            )
        self._starts = {self._start_of(int(start)) for start in self._starts}
        if self._second:
            self._start = self._start_of(int(self._start))

    def merge(self, other: Rows) -> None:
        assert isinstance(other, Timeline)
        while self.number < other.number:
            self._widen()
        for (start, name), row in other.items():
            self.admit((self._start_of(int(start)), name)).merge(row, self.table)

    def to_rows(self) -> Iterator[dict[str, Any]]:
        width = str(self.seconds)
        for (start, name), row in self.items():
            key = [width, start, name]
            yield {"table": self.table.name, "key": key, **row.to_data()}

    def take(self, key: Key, data: Mapping[str, Any]) -> None:
        width, start, name = key
        if not re.fullmatch(r"-?[0-9]{1,12}", start):
            raise ValueError(f"the timeline cannot have a point at {start!r:.40}")
        other = Timeline(self.table)
        other.number = WIDTHS.index(int(width))
        other[start, name] = Row.from_data(data, self.table)
        self.merge(other)


# --- the whole ---


class Places(NamedTuple):
    """Where records that have their COMMON fields in common are counted."""

    rows: tuple[Row, ...]
    waits: tuple[Histogram, ...]
    durations: tuple[Histogram, ...]
    examples: tuple[tuple[Row, Table], ...]
    """The rows that keep examples."""


class Tally:
    """The statistics of one session or several."""

    def __init__(self) -> None:
        self.dropped = 0
        """Records that could not be written, as `gap` records say."""
        self.first = ""
        """Time of the earliest flow or event, RFC 3339."""
        self.last = ""
        self.tables: dict[str, Rows] = {table.name: Rows(table) for table in TABLES}
        """Name → rows of TABLES, and the timeline."""
        self.tables[TIMELINE.name] = Timeline(TIMELINE)
        self._apart = [
            (
                rows,
                rows.key,
                rows.table.problems,
                rows.table.waits,
                rows.table.durations,
                bool(rows.table.examples),
            )
            for rows in self.tables.values()
            if not rows.table.common
        ]
        """The tables in which a record's row depends on more than its COMMON fields: rows, how a
        key is made, and what the rows have."""
        self._places: dict[tuple[Any, ...], Places] = {}
        """COMMON fields → rows. To look each row up by a key of its own would cost a flow twice
        as much as to count it."""

    def __getitem__(self, name: str) -> Rows:
        """A table by its name."""
        return self.tables[name]

    # --- the fold ---

    def add(self, record: Record) -> None:
        """Count a record. Records other than flows, events and gaps change nothing."""
        kind = record["type"]
        if kind == "flow":
            self._add_flow(record)
        elif kind == "event":
            self._add_event(record)
        elif kind == "gap":
            self.dropped += record["dropped"]

    def _add_flow(self, record: Record) -> None:
        get = record.get
        common = tuple(map(get, COMMON))
        places = self._places.get(common)
        if places is None:
            places = self._find_places(common, record)
        rows, waits, durations = [*places.rows], [*places.waits], [*places.durations]
        problem = "error_code" in record or record["outcome"] == "unfinished"
        for apart, key_of, of_problems, has_waits, has_durations, has_examples in self._apart:
            if of_problems and not problem:
                continue
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
        sent, received = get("request_bytes", 0), get("response_bytes", 0)
        for row in rows:
            row.flows += 1
            row.request_bytes += sent
            row.response_bytes += received
        # In whole microseconds, which add up exactly; the bucket is the same in all rows.
        if (time := get("wait_ms")) is not None:
            time = round(time * 1000)
            number = bucket(time)
            for histogram in waits:
                histogram.add(time, number)
        if (time := get("duration_ms")) is not None:
            time = round(time * 1000)
            number = bucket(time)
            for histogram in durations:
                histogram.add(time, number)
        if problem:
            self._add_problem(record, rows)
        for row, table in places.examples:
            row.keep(record, table)
        self._span(record["time"])

    def _add_problem(self, record: Record, rows: Sequence[Row]) -> None:
        """Count what a flow that went wrong is beyond a flow."""
        if record["outcome"] == "error":
            for row in rows:
                row.failures += 1
        elif record.get("error_code") == UNSUCCESSFUL:
            for row in rows:
                row.unsuccessful += 1

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

    @property
    def flows(self) -> int:
        """All flows."""
        return self.sum("flows")

    @property
    def events(self) -> int:
        """Failures without a flow."""
        return self.sum("events")

    @property
    def failures(self) -> int:
        """Flows that broke."""
        return self.sum("failures")

    @property
    def unsuccessful(self) -> int:
        """Complete responses with error code -3."""
        return self.sum("unsuccessful")

    @property
    def problems(self) -> int:
        """All that went wrong: failures with and without a flow, unsuccessful responses, redirects
        that broke a limit."""
        too_many = self.errors().get(str(TOO_MANY_REDIRECTS), {})
        redirects = sum(row.count for row in too_many.values())
        return self.failures + self.unsuccessful + self.events + redirects

    def errors(self) -> dict[str, dict[str, Row]]:
        """Error code → cause (of -3: status code) → row, in the order of the codes."""
        found: dict[str, dict[str, Row]] = {}
        for (code, cause), row in self["causes"].items():
            if code:
                found.setdefault(code, {})[cause] = row
        return dict(sorted(found.items()))

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


def example(record: Record) -> Example:
    """What is kept of a record as an example."""
    kept = {name: record[name] for name in EXAMPLE if name in record}
    if len(kept.get("url", "")) > MAX_EXAMPLE_URL:
        kept["url"] = printable(kept["url"], MAX_EXAMPLE_URL)
    return kept


# --- checks of what a log says ---


def _count(data: Mapping[str, Any], name: str) -> int:
    value = data.get(name, 0)
    if type(value) is not int or not 0 <= value < 10**30:  # a sum may be of anything
        raise ValueError(f"{name!r} must be a whole number, not {value!r:.40}")
    return value


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name!r} must be text, not {value!r:.40}")
    return value


_TEXTS = ("time", "flow", "method", "url", "host", "cause", "detail")


def _check_example(record: Any, table: Table) -> None:
    if not isinstance(record, dict) or not isinstance(record.get("time"), str):
        raise ValueError(f"{table.name} has an example that is none")
    for name in _TEXTS:
        _text(record, name)
    for name in ("port", "status"):
        if type(record.get(name, 0)) is not int:
            raise ValueError(f"{name!r} of an example must be a whole number")
    for name in ("wait_ms", "duration_ms"):
        if type(record.get(name, 0)) not in (int, float) or not 0 <= record.get(name, 0) < 1e15:
            raise ValueError(f"{name!r} of an example must be a time in ms")
    if table.examples_by not in record:
        raise ValueError(f"{table.name} has an example without {table.examples_by!r}")
