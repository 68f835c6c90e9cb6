"""The statistics: a fold over records.

A session's tally is what `add` makes of its records, one by one in the order of their `seq`,
wherever they come from. It consists of tables, each declared once in TABLES; what is declared there
is counted, merged, bounded, written into checkpoints and read back. Whatever the traffic, it is
bounded: what overflows a table is counted under `(other)`, so that every sum stays exact.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from typing import NamedTuple

from .blocks import BUCKETS
from .blocks import COUNT
from .blocks import PROBLEMS
from .blocks import UNTIMED
from .blocks import WIDTHS
from .blocks import Blocks
from .counted_challenges import CountedChallenges
from .equal_waits import wait_of
from .histogram import Histogram
from .histogram import count_time
from .moments import unix_second
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
from .rows import series
from .totals import Totals
from .vocabulary import BANDS
from .vocabulary import DEFAULT_PORTS
from .vocabulary import ERRORS
from .vocabulary import KINDS
from .vocabulary import is_collateral

UNFINISHED = ("", "unfinished", "")
"""The key of what was still open at the end among the causes: no error, but worth a look."""
MAX_REMEMBERED = 4096
"""For how many sets of values of the same fields it is remembered in which rows they count."""

# --- what a record is counted under ---


def place(record: Record) -> str:
    """A record's host, with its port unless that is 80 or 443; "" of none."""
    host, port = record.get("host", ""), record.get("port")
    return host if port is None or port in DEFAULT_PORTS.values() else f"{host}:{port}"


_MAX_ENDPOINT = 200
_ID = re.compile(
    r"/(?<![:/]/)(?:[0-9]++"
    r"|(?=[^/\n]{16})(?=[^/\n]*[0-9])(?:[0-9a-fA-F-]{16,}+|[0-9A-Za-z_]{20,}+))(?![^/\n])"
)
"""A path segment that names one thing of many: a number; a UUID, a hash, an object id; random text
such as a base64url token. Not what stands after `//`."""


def folded(path: str) -> str:
    """A path, or a URL without query, with `{id}` for each segment that names one thing of many."""
    return _ID.sub("/{id}", path)


def endpoint(record: Record) -> str:
    """The endpoint of a record, method, host and path with ids folded: `GET http://h/users/{id}`."""
    url = record.get("url")
    if url is None:
        host, port = record.get("host", ""), record.get("port")
        url = host if port is None else f"{host}:{port}"
        return f"{record.get('method') or record['kind'].upper()} {url}"
    url = folded(url.partition("?")[0])
    if len(url) > _MAX_ENDPOINT:
        url = f"{url[: _MAX_ENDPOINT - 1]}…"
    return f"{record.get('method', '')} {url}"


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
    cause, or the status code; `host`: with its port unless that is usual.

    MD5, for that is what all engines of SQL have (`known/views.sql`).
    """
    said = "|".join((why, reason, side, host)).encode("utf-8", "surrogatepass")
    return hashlib.md5(said, usedforsecurity=False).hexdigest()[:8]


def id_of_row(key: Key) -> str:
    """The id of a row of the table `incidents`; "" of what is no problem, and of all others."""
    return incident_id(*key[1:]) if key[0] and OTHER not in key else ""


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
    return () if is_request and is_timed(record) else None


def is_timed(record: Record) -> bool:
    """Whether its times say how fast something is: not of what is endless by nature, and not of
    what the client cut short."""
    return (
        record["kind"] != "websocket"
        and record["outcome"] != "cancelled"
        and "stream" not in record
    )


def _is_wrong(record: Record) -> bool:
    """Whether a flow is a problem of what it was for, as far as it tells alone."""
    if record["outcome"] == "error":
        return not is_collateral(record)
    return record["outcome"] != "cancelled" and "error_code" in record


def _wait(record: Record) -> Key | None:
    wait = wait_of(record, endpoint(record)) if "cause" in record else None
    return wait and (wait.client, wait.endpoint, str(wait.step))


def _background(record: Record) -> Key | None:
    return (record["background"],) if "background" in record else None


# --- the tables ---


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
    "duration_ms",
)
"""Fields of which there are few sets of values, and that decide in which rows most tables count a
record; of the last, whether it is there."""
SITE = ("kind", "method", "url", "host", "port")
"""The same of what a flow is for: many a URL is asked for again."""
PROBLEM = (
    *("outcome", "error_code", "cause", "reason", "side", "status", "client", "duration_ms"),
    *SITE,
)
"""Those that tell in which rows of its own a problem counts. It is looked for each time."""

TABLES = (
    Table(
        "codes",
        ("band", "code"),
        _code,
        100,
        COMMON,
        waits=True,
        durations=True,
        blocks=True,
        description="description",
    ),
    Table(
        "causes",
        ("error_code", "cause", "reason"),
        _cause,
        100,
        COMMON,
        events=True,
        blocks=True,
        examples=5,
    ),
    Table(
        "incidents",
        ("error_code", "cause", "reason", "side", "host"),
        _incident,
        100,
        PROBLEM,
        events=True,
        moments=True,
        examples=2,
    ),
    Table(
        "endpoints_of_incidents",
        ("incident", "endpoint"),
        _endpoint_of_incident,
        20,
        PROBLEM,
    ),
    Table(
        "clients_of_incidents",
        ("incident", "client"),
        _client_of_incident,
        20,
        PROBLEM,
        events=True,
    ),
    Table(
        "hosts",
        ("host",),
        _host,
        1500,
        SITE,
        events=True,
        waits=True,
        durations=True,
        blocks=True,
    ),
    Table("endpoints", ("endpoint",), _endpoint, 3000, SITE, durations=True, blocks=True),
    Table("media_types", ("media_type",), _media_type, 100, COMMON, durations=True),
    Table("methods", ("kind", "method"), lambda r: (r["kind"], r.get("method", "")), 50, COMMON),
    Table("protocols", ("kind", "close_code"), _protocol, 50, COMMON, durations=True),
    Table("waits", ("client", "endpoint", "step"), _wait, 20, PROBLEM),
    Table("slowest", (), _slow, 1, COMMON, examples=10, examples_by="duration_ms"),
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
)
"""Width of a point of time, its beginning (Unix time), and what became of the flows in it."""

BACKGROUND = Table("background", ("background",), _background, 50, events=True)
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


Places = tuple[tuple[Row, ...], tuple[Histogram, ...], tuple[Histogram, ...], tuple[Blocks, ...]]
"""Where records are counted that have some fields in common: rows, and of these the distributions
of `wait_ms` and of `duration_ms`, and the blocks of time."""


class Fate(NamedTuple):
    """What the fields COMMON say of a record."""

    places: Places
    examples: tuple[tuple[Row, Table], ...]
    """The rows that keep examples."""
    series: str
    special: bool
    """It has an error code or a cause, or is unfinished."""
    timed: bool
    """Its times are counted."""


def _places(found: Iterable[tuple[Row, Table]]) -> Places:
    return (
        tuple([row for row, _ in found]),
        tuple([row.wait for row, table in found if table.waits]),
        tuple([row.duration for row, table in found if table.durations]),
        tuple([row.blocks for row, table in found if table.blocks]),
    )


class Tally:
    """The statistics of one session or several."""

    def __init__(self) -> None:
        self.dropped = 0
        """Records that could not be written, as `gap` records say."""
        self.only = ""
        """What its records were narrowed to, in words; "" of all."""
        self.direct = False
        """Clients told all of it themselves, in HARs: there was no mitmproxy."""
        self.first = ""
        """Time of the earliest flow or event but those of the background, RFC 3339."""
        self.last = ""
        self.tables: dict[str, Rows] = {table.name: Rows(table) for table in TABLES}
        """Name → rows of TABLES, of the timeline and the background."""
        self.tables[TIMELINE.name] = self._timeline = Timeline(TIMELINE)
        self.tables[BACKGROUND.name] = Rows(BACKGROUND)
        self._by_fields: dict[Sequence[str], list[tuple[Rows, Table]]] = {}
        """What the keys of tables depend on → these tables."""
        for rows in self.tables.values():
            self._by_fields.setdefault(rows.table.fields, []).append((rows, rows.table))
        self._fates: dict[tuple[Any, ...], Fate] = {}
        """Values of COMMON → what they say, so that a flow need not look its rows up by keys."""
        self._sites: dict[tuple[Any, ...], Places] = {}
        """Values of SITE → where they count."""
        self.challenges = CountedChallenges()

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
        if "background" in record:
            self._add_background(record)
            return
        get = record.get
        kind, method = record["kind"], get("method")
        common = (
            kind,
            method,
            record["outcome"],
            get("status"),
            get("error_code"),
            get("cause"),
            get("reason"),
            "stream" in record,
            get("close_code"),
            get("media_type"),
            "duration_ms" in record,
        )
        fate = self._fates.get(common)
        if fate is None:
            fate = self._fate(common, record)
        (rows_of_fate, waits, durations, blocks), examples, series, special, timed = fate
        site = kind, method, get("url"), get("host"), get("port")
        places = self._sites.get(site)
        if places is None:
            if len(self._sites) >= MAX_REMEMBERED:
                self._sites.clear()
            self._sites[site] = places = _places(self._find_rows(SITE, record))
        rows_of_site, waits_of_site, durations_of_site, blocks_of_site = places
        time = record["time"]
        rows = [*rows_of_fate, *rows_of_site, self._timeline.row(record, series)]
        if special:
            rows += self._rows_of_problem(record)
            self._add_special(record, rows)
        sent, received = get("request_bytes", 0), get("response_bytes", 0)
        for row in rows:
            row.flows += 1
            row.request_bytes += sent
            row.response_bytes += received
        for row, table in examples:
            row.keep(record, table)
        if "answers" in record:
            self.add_answer(record)
        if special:
            self.challenges.add(record)
        if time > self.last:
            self.last = time
        if time < self.first or not self.first:
            self.first = time
        bucket = None
        if timed:
            if (time := get("wait_ms")) is not None:
                count_time(time, [*waits, *waits_of_site])
            if (time := get("duration_ms")) is not None:
                bucket = count_time(time, [*durations, *durations_of_site])
        second = self._timeline.moment
        wrong = special and _is_wrong(record)
        for each in (*blocks, *blocks_of_site):
            block = each.block if each.second == second else each.at(second)
            block[COUNT] += 1
            if bucket is None:
                block[UNTIMED] += 1
            else:
                block[BUCKETS] += bucket
            if wrong:
                block[PROBLEMS] += 1

    def _rows_of_problem(self, record: Record) -> list[Row]:
        """The rows in which problems alone are counted; what they keep, they keep."""
        found = self._find_rows(PROBLEM, record)
        for row, table in found:
            if table.examples:
                row.keep(record, table)
            if table.moments:
                row.moments.add(record["time"])
        return [row for row, _ in found]

    def _add_special(self, record: Record, rows: Sequence[Row]) -> None:
        """Count what a flow is beyond a flow."""
        if record["outcome"] == "error":
            collateral = is_collateral(record)
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
        """Count that a request answered the challenge of an earlier one, where that one was
        counted."""
        challenge = self.challenges.answered_by(record)
        if challenge is None:
            return
        for rows in self.tables.values():
            if (key := rows.key(challenge)) is not None:
                row = rows.get(key)
                if row is None:
                    row = rows.admit(key, challenge.get(rows.table.description, ""))
                row.challenges += 1
                if rows.table.blocks:
                    row.blocks.at(unix_second(challenge["time"]))[PROBLEMS] -= 1

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

    def _fate(self, common: tuple[Any, ...], record: Record) -> Fate:
        """What is said of a record by its fields COMMON; remembered."""
        found = self._find_rows(COMMON, record)
        fate = Fate(
            _places(found),
            tuple((row, table) for row, table in found if table.examples),
            series(record),
            "cause" in record or "error_code" in record or record["outcome"] == "unfinished",
            is_timed(record),
        )
        if len(self._fates) >= MAX_REMEMBERED:
            self._fates.clear()
        self._fates[common] = fate
        return fate

    def _find_rows(self, fields: Sequence[str], record: Record) -> list[tuple[Row, Table]]:
        """The rows of a record in the tables whose keys depend on these fields."""
        found = []
        for rows, table in self._by_fields[fields]:
            if (key := rows.key(record)) is not None:
                row = rows.get(key)
                if row is None:
                    row = rows.admit(key, record.get(table.description, ""))
                found.append((row, table))
        return found

    def _add_event(self, record: Record) -> None:
        if "background" in record:
            self._add_background(record)
            return
        second = unix_second(record["time"])
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
                if rows.table.blocks:
                    block = row.blocks.at(second)
                    for what in (COUNT, PROBLEMS, UNTIMED):
                        block[what] += 1
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
