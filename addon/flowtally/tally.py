"""The statistics: a fold over records.

A session's tally is what `add` makes of its records, one by one, wherever they come from: live,
from a log, merged from several logs. It is bounded whatever the traffic; what overflows a bound is
counted under `(other)`, so that every sum stays exact.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections import Counter
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from itertools import repeat
from math import ceil
from math import floor
from typing import Any
from typing import ClassVar
from typing import Generic
from typing import TypeVar

from .vocabulary import BANDS
from .vocabulary import ERRORS
from .vocabulary import OUTCOMES
from .vocabulary import band as band_of

OTHER = "(other)"
"""What a full table counts the rest under."""

MAX_HOSTS = 1500
MAX_ENDPOINTS = 3000
MAX_CODES = 200
MAX_METHODS = 50
MAX_CAUSES = 60
MAX_HOSTS_OF_A_CAUSE = 100
MAX_CLOSE_CODES = 50
EXAMPLES = 5
"""How many of the latest examples of each cause are kept."""
SLOWEST = 10
"""How many of the slowest requests are kept."""
MAX_BUCKETS = 240
"""How many points of time the timeline holds; it gets coarser when there are more."""

SERIES = (*BANDS, "error", "ok", "unfinished", "event")
"""What the timeline counts."""

WIDTHS = (1, 2, 10, 30, 60, 300, 900, 3600, 10800, 43200, 86400, 604800, 6048000, 604800000)
"""Seconds that a bucket of the timeline may span. Each is a multiple of the one before, so that
buckets of any two timelines can be merged."""

_SERIES_INDEX = {name: index for index, name in enumerate(SERIES)}


WIDER = 8
"""How many times more the tables of a part hold, see `Tally.part`."""

Value = TypeVar("Value")


class Table(dict[str, Value], Generic[Value]):
    """A bounded dictionary: `table[key]` makes what is missing, and for a key that comes when it is
    full it is what stands under `(other)`."""

    def __init__(self, make: Callable[[], Value], limit: int) -> None:
        self.make = make
        self.limit = limit
        self.overflowed = False
        """Something had to go under `(other)`."""

    def __missing__(self, key: str) -> Value:
        if len(self) >= self.limit:
            self.overflowed = True
            key = OTHER
            if key in self:
                return self[key]
        value = self[key] = self.make()
        return value

    def part(self, table: Table[Value]) -> Table[Value]:
        """Make `table`, of the same kind, know the keys that are known here; see `Tally.part`."""
        for key in self:
            table[key] = table.make()
        if len(self) >= self.limit:
            table.limit = 0
        return table

    @property
    def exact(self) -> bool:
        """Whether what is under `(other)` would be there in the whole, too."""
        return not (self.overflowed and self.limit)


class Counts(Table[int]):
    """A bounded dictionary of counts."""

    def __init__(self, limit: int) -> None:
        super().__init__(int, limit)

    def count(self, key: str, count: int = 1) -> None:
        """Add to a count."""
        if key not in self and len(self) >= self.limit:
            self.overflowed = True
            key = OTHER
        self[key] = self.get(key, 0) + count


class Histogram:
    """How a time is distributed, in buckets that grow by 4 %: a percentile is within 2 % of the
    true one, and two histograms can be added. It counts whole microseconds, and speaks of
    milliseconds."""

    __slots__ = ("_dense", "buckets", "count", "longest", "microseconds")

    FIRST = 100
    """The first bucket holds all up to this many microseconds."""
    GROWTH = 1.04
    SIZE = 530
    """The last bucket begins later than a day."""
    STARTS: ClassVar = [FIRST + 1, *(ceil(100 * 1.04**number) for number in range(1, SIZE - 1))]
    """The least time of each bucket but the first, in microseconds."""
    MOST = 2**31
    """What a bucket of a log can hold; it leaves room to count on."""
    SPARSE = 24
    """Up to so many buckets are kept in a dictionary; an array of all would be no larger then."""
    PERCENTILES = (("p50", 0.50), ("p95", 0.95), ("p99", 0.99))

    def __init__(self) -> None:
        self.buckets: defaultdict[int, int] | array[int] = defaultdict(int)
        self.count = 0
        self.longest = 0
        """In microseconds."""
        self.microseconds = 0
        """The sum."""
        self._dense = False

    @classmethod
    def index(cls, microseconds: int) -> int:
        """The bucket of a time."""
        return bisect_right(cls.STARTS, microseconds)

    @classmethod
    def indices(cls, times: Sequence[int]) -> list[int]:
        """The bucket of each of many times."""
        return list(map(bisect_right, repeat(cls.STARTS), times))

    @property
    def maximum(self) -> float:
        """The longest time in ms."""
        return self.longest / 1000

    @property
    def mean(self) -> float:
        """In ms."""
        return round(self.microseconds / self.count / 1000, 3) if self.count else 0.0

    @classmethod
    def middle(cls, index: int) -> float:
        """The time in ms that stands for all of a bucket."""
        return cls.FIRST * cls.GROWTH ** (index - 0.5 if index else 0) / 1000

    def add(self, microseconds: int, index: int) -> None:
        """Count a time whose bucket is `index`."""
        self.buckets[index] += 1
        self.count += 1
        self.microseconds += microseconds
        if microseconds > self.longest:
            self.longest = microseconds
        if not self._dense and len(self.buckets) > self.SPARSE:
            self._densify()

    def add_many(self, indices: Sequence[int], microseconds: int, longest: int) -> None:
        """Count many times: their buckets, their sum, and the longest."""
        for index, count in Counter(indices).items():
            self.buckets[index] += count
        self.count += len(indices)
        self.microseconds += microseconds
        self.longest = max(self.longest, longest)
        if not self._dense and len(self.buckets) > self.SPARSE:
            self._densify()

    def merge(self, other: Histogram) -> None:
        """Add what `other` counted."""
        for index, count in other.filled():
            self.buckets[index] = min(self.buckets[index] + count, self.MOST)
        self.count += other.count
        self.microseconds += other.microseconds
        self.longest = max(self.longest, other.longest)
        if not self._dense and len(self.buckets) > self.SPARSE:
            self._densify()

    def filled(self) -> list[tuple[int, int]]:
        """The buckets that hold anything, in order: their numbers and counts."""
        if isinstance(self.buckets, array):
            return [(index, count) for index, count in enumerate(self.buckets) if count]
        return sorted(self.buckets.items())

    def percentiles(self) -> dict[str, float]:
        """Name → the value in ms that this share of all values do not exceed."""
        found: dict[str, float] = {}
        names = iter(self.PERCENTILES)
        name, share = next(names)
        passed = 0
        for index, count in self.filled():
            passed += count
            while passed >= share * self.count:
                found[name] = round(min(self.middle(index), self.maximum), 3)
                following = next(names, None)
                if following is None:
                    return found
                name, share = following
        return dict.fromkeys((name for name, _ in self.PERCENTILES), 0.0)

    def to_data(self) -> dict[str, Any]:
        """As plain data; times in ms."""
        return {
            "count": self.count,
            "mean": self.mean,
            **self.percentiles(),
            "max": self.maximum,
            "microseconds": self.microseconds,
            "buckets": {str(index): count for index, count in self.filled()},
        }

    @classmethod
    def from_data(cls, data: Any) -> Histogram:
        """What `to_data` made. Raises: ValueError."""
        self = cls()
        for key, count in _mapping(data, "buckets").items():
            index = int(key) if key.isascii() and key.isdigit() else -1
            if not 0 <= index < cls.SIZE:
                raise ValueError(f"histogram bucket {key!r} does not exist")
            if not 0 < _whole(count, "bucket") <= cls.MOST:
                raise ValueError(f"histogram bucket {key} holds too much")
            self.buckets[index] = count
            self.count += count
        if len(self.buckets) > cls.SPARSE:
            self._densify()
        self.microseconds = _count(data, "microseconds")
        self.longest = round(_number(data, "max") * 1000)
        return self

    def _densify(self) -> None:
        filled = self.filled()
        self.buckets = array("I", bytes(4 * self.SIZE))
        for index, count in filled:
            self.buckets[index] = count
        self._dense = True


class Row:
    """What is counted of each status code, host and endpoint."""

    __slots__ = (
        "duration",
        "events",
        "failures",
        "flows",
        "request_bytes",
        "response_bytes",
        "unsuccessful",
        "wait",
    )

    COUNTS = ("flows", "failures", "unsuccessful", "events", "request_bytes", "response_bytes")

    def __init__(self) -> None:
        self.flows = 0
        self.failures = 0
        """Flows with outcome `error`."""
        self.unsuccessful = 0
        """Complete responses with error code -3."""
        self.events = 0
        self.request_bytes = 0
        self.response_bytes = 0
        self.wait = Histogram()
        self.duration = Histogram()

    def merge(self, other: Row) -> None:
        """Add what `other` counted."""
        self.flows += other.flows
        self.failures += other.failures
        self.unsuccessful += other.unsuccessful
        self.events += other.events
        self.request_bytes += other.request_bytes
        self.response_bytes += other.response_bytes
        self.wait.merge(other.wait)
        self.duration.merge(other.duration)

    def to_data(self) -> dict[str, Any]:
        """As plain data."""
        data: dict[str, Any] = {name: getattr(self, name) for name in self.COUNTS}
        for name in ("wait", "duration"):
            histogram: Histogram = getattr(self, name)
            if histogram.count:
                data[f"{name}_ms"] = histogram.to_data()
        return data

    @classmethod
    def from_data(cls, data: Any) -> Row:
        """What `to_data` made. Raises: ValueError."""
        self = cls()
        for name in cls.COUNTS:
            setattr(self, name, _count(data, name))
        for name in ("wait", "duration"):
            if f"{name}_ms" in data:
                setattr(self, name, Histogram.from_data(data[f"{name}_ms"]))
        return self


class CauseRow:
    """What is counted of each cause (of error code -3: of each status code)."""

    __slots__ = ("count", "examples", "hosts")

    def __init__(self, hosts: int = MAX_HOSTS_OF_A_CAUSE) -> None:
        self.count = 0
        self.hosts = Counts(hosts)
        """Host, with its port unless that is 80 or 443 → count."""
        self.examples: list[dict[str, Any]] = []
        """The latest, oldest first."""

    def add(self, record: Mapping[str, Any]) -> None:
        """Count a record."""
        self.count += 1
        self.hosts.count(place(record))
        self.add_example(record)

    def add_example(self, record: Mapping[str, Any]) -> None:
        """Keep a record as an example if it is among the latest."""
        examples = self.examples
        examples.append(example(record))
        if len(examples) > 1 and _example_order(examples[-2]) > _example_order(examples[-1]):
            examples.sort(key=_example_order)
        if len(examples) > EXAMPLES:
            del examples[0]

    def merge(self, other: CauseRow) -> None:
        """Add what `other` counted."""
        self.count += other.count
        for host, count in other.hosts.items():
            self.hosts.count(host, count)
        for record in other.examples:
            self.add_example(record)

    def to_data(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "count": self.count,
            "hosts": dict(self.hosts),
            "examples": self.examples.copy(),
        }

    @classmethod
    def from_data(cls, data: Any) -> CauseRow:
        """What `to_data` made. Raises: ValueError."""
        self = cls()
        self.count = _count(data, "count")
        for host, count in _mapping(data, "hosts").items():
            self.hosts.count(host, _whole(count, "hosts"))
        for record in _objects(data, "examples"):
            self.add_example(record)
        return self


def place(record: Mapping[str, Any]) -> str:
    """A record's host, with its port unless that is 80 or 443."""
    host, port = record.get("host", ""), record.get("port")
    return host if port in (None, 80, 443) else f"{host}:{port}"


_EXAMPLE = ("time", "flow", "method", "url", "host", "port", "status", "detail")
_SLOW = ("time", "flow", "method", "url", "status", "cause", "wait_ms", "duration_ms")


def example(record: Mapping[str, Any], names: tuple[str, ...] = _EXAMPLE) -> dict[str, Any]:
    """What is kept of a record as an example."""
    return {name: record[name] for name in names if name in record}


def _slow_order(example: dict[str, Any]) -> tuple[float, str, str]:
    return -example["duration_ms"], *_example_order(example)


def _example_order(example: dict[str, Any]) -> tuple[str, str]:
    return str(example.get("time", "")), str(example.get("flow", ""))


class Tally:
    """The statistics of one session or several."""

    def __init__(self, wider: int = 1) -> None:
        """`wider`: by how much the bounds of the tables are raised."""
        self._wider = wider
        self.flows = 0
        self.events = 0
        self.dropped = 0
        """Records that could not be written, as `gap` records say."""
        self.first = ""
        """Time of the earliest flow or event, RFC 3339."""
        self.last = ""
        self.request_bytes = 0
        self.response_bytes = 0
        self.outcomes: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        self.codes = Table(Row, MAX_CODES * wider)
        """Status code → its complete responses; per band one `(other)`, see `code_key`."""
        self.descriptions: dict[str, str] = {}
        self.errors: dict[int, Table[CauseRow]] = {}
        """Error code → cause → count; of -3, the status code takes the cause's place."""
        self.hosts = Table(Row, MAX_HOSTS * wider)
        self.endpoints = Table(Row, MAX_ENDPOINTS * wider)
        self.kinds: dict[str, Counts] = {}
        """Kind → method → flows."""
        self.protocols: dict[str, Row] = {}
        """Kind → its flows, for what is not `http`."""
        self.close_codes = Counts(MAX_CLOSE_CODES * wider)
        """Close code of a WebSocket → how many ended with it."""
        self.unfinished = CauseRow(MAX_HOSTS_OF_A_CAUSE * wider)
        """Flows that were still open."""
        self.slowest: list[dict[str, Any]] = []
        """The HTTP requests that took longest, the slowest first."""
        self._slow = -1
        """Microseconds from which on a request is among them."""
        self.width = 0
        """Index into the widths that a bucket of the timeline may have."""
        self.timeline: dict[int, list[int]] = {}
        """Start of a bucket, Unix time → count of each of SERIES."""
        self._recent: tuple[str, list[int]] = "", []
        """The second of the last record and its bucket: the next is mostly from the same."""

    # --- the fold ---

    def add(self, record: Mapping[str, Any]) -> None:
        """Count a record. Records other than flows, events and gaps change nothing."""
        kind = record["type"]
        if kind == "flow":
            self._add_flow(record)
        elif kind == "event":
            self._add_event(record)
        elif kind == "gap":
            self.dropped += record["dropped"]

    def _add_flow(self, record: Mapping[str, Any]) -> None:
        get = record.get
        outcome = record["outcome"]
        self.flows += 1
        self.outcomes[outcome] += 1
        sent = get("request_bytes", 0)
        received = get("response_bytes", 0)
        self.request_bytes += sent
        self.response_bytes += received

        kind = record["kind"]
        self.methods(kind).count(get("method", ""))
        wait, duration = get("wait_ms"), get("duration_ms")
        if wait is not None:
            wait = round(wait * 1000)
            wait_index = Histogram.index(wait)
        if duration is not None:
            duration = round(duration * 1000)
            duration_index = Histogram.index(duration)
            if kind == "http" and duration >= self._slow:
                self.add_slow(record)
        of_endpoint = self.endpoints[endpoint(record)]
        rows = [of_endpoint, self.hosts[get("host", "")]]
        series = outcome
        if outcome == "status":
            series = record["band"]
            rows.append(self._code(record["status"], record["description"]))
        elif outcome == "unfinished":
            self.unfinished.add(record)
        if kind != "http":
            rows.append(self._protocol(record))
        error_code = get("error_code")
        for row in rows:
            row.flows += 1
            row.request_bytes += sent
            row.response_bytes += received
            if wait is not None and row is not of_endpoint:
                row.wait.add(wait, wait_index)
            if duration is not None:
                row.duration.add(duration, duration_index)
            if error_code is not None:
                if outcome == "error":
                    row.failures += 1
                elif error_code == -3:
                    row.unsuccessful += 1
        if (errors := self.cause_of(record)) is not None:
            errors.add(record)
        self.span(record["time"], record["time"])
        self.add_time(record["time"], series)

    def add_alike(
        self, record: Mapping[str, Any], flows: int, sent: int, received: int
    ) -> tuple[Row, Row]:
        """Count many `flow` records at once that have their tag and host in common, each a complete
        HTTP response; all but methods, endpoints, errors and times. Returns the rows of their code
        and host, which are to get their waits and durations.

        `record`: one of them. `sent`, `received`: bytes.
        """
        self.flows += flows
        self.outcomes["status"] += flows
        self.request_bytes += sent
        self.response_bytes += received
        rows = self._code(record["status"], record["description"]), self.hosts[record["host"]]
        for row in rows:
            row.flows += flows
            row.request_bytes += sent
            row.response_bytes += received
        return rows

    def cause_of(self, record: Mapping[str, Any]) -> CauseRow | None:
        """What counts a record as an error, if it is one."""
        error_code = record.get("error_code")
        if error_code is None:
            return None
        return self._causes(error_code)[record.get("cause") or str(record["status"])]

    def expect(self, record: Mapping[str, Any]) -> None:
        """Make sure of the rows of a record that is added later: full tables hold what came
        first."""
        get = record.get
        self.hosts[get("host", "")]
        if record["type"] == "flow":
            self.endpoints[endpoint(record)]
            self.methods(record["kind"]).count(get("method", ""), 0)
            if record["outcome"] == "status":
                self._code(record["status"], record["description"])
            elif record["outcome"] == "unfinished":
                self.unfinished.hosts.count(place(record), 0)
            if record["kind"] != "http" and (code := get("close_code")) is not None:
                self.close_codes.count(str(code), 0)
        if (errors := self.cause_of(record)) is not None:
            errors.hosts.count(place(record), 0)

    def is_slow(self, microseconds: int) -> bool:
        """Whether a request that took so long is among the slowest."""
        return microseconds >= self._slow

    def methods(self, kind: str) -> Counts:
        methods = self.kinds.get(kind)
        if methods is None:
            methods = self.kinds[kind] = Counts(MAX_METHODS * self._wider)
        return methods

    def _protocol(self, record: Mapping[str, Any]) -> Row:
        if (code := record.get("close_code")) is not None:
            self.close_codes.count(str(code))
        return self.protocols.setdefault(record["kind"], Row())

    def add_slow(self, record: Mapping[str, Any]) -> None:
        """Keep a request if it is among the slowest."""
        slowest = self.slowest
        slowest.append(example(record, _SLOW))
        slowest.sort(key=_slow_order)
        del slowest[SLOWEST:]
        if len(slowest) == SLOWEST:
            self._slow = round(slowest[-1]["duration_ms"] * 1000)

    def _add_event(self, record: Mapping[str, Any]) -> None:
        self.events += 1
        host = record.get("host", "")
        self.hosts[host].events += 1
        self._causes(record["error_code"])[record["cause"]].add(record)
        self.span(record["time"], record["time"])
        self.add_time(record["time"], "event")

    def _causes(self, code: int) -> Table[CauseRow]:
        causes = self.errors.get(code)
        if causes is None:
            row = partial(CauseRow, MAX_HOSTS_OF_A_CAUSE * self._wider)
            causes = self.errors[code] = Table(row, MAX_CAUSES * self._wider)
        return causes

    def span(self, first: str, last: str) -> None:
        """Count in that something happened at these times."""
        if last > self.last:
            self.last = last
        if not self.first or first < self.first:
            self.first = first

    def add_time(self, time: str, series: str, count: int = 1) -> None:
        """Count into the timeline what happened at a time, one of SERIES."""
        second, recent = self._recent
        if time[:19] == second and time.endswith("Z"):
            recent[_SERIES_INDEX[series]] += count
            return
        width = WIDTHS[self.width]
        seconds = floor(datetime.fromisoformat(time).timestamp())
        start = seconds - seconds % width
        bucket = self.timeline.get(start)
        if bucket is None:
            bucket = self.timeline[start] = [0] * len(SERIES)
            bucket[_SERIES_INDEX[series]] = count
            if len(self.timeline) > MAX_BUCKETS:
                self._widen()
                return
        else:
            bucket[_SERIES_INDEX[series]] += count
        if time.endswith("Z"):
            self._recent = time[:19], bucket

    def _widen(self, to: int | None = None) -> None:
        """Make the timeline coarser, until it fits its bound or its width is number `to`."""
        while self.width < (len(WIDTHS) - 1 if to is None else to):
            if to is None and len(self.timeline) <= MAX_BUCKETS:
                return
            self.width += 1
            self._recent = "", []
            width = WIDTHS[self.width]
            coarse: dict[int, list[int]] = {}
            for start, counts in self.timeline.items():
                _add_counts(coarse, start - start % width, counts)
            self.timeline = coarse

    def _code(self, code: int, description: str) -> Row:
        key = str(code)
        row = self.codes.get(key)
        if row is not None:
            return row
        if len(self.codes) >= self.codes.limit:
            self.codes.overflowed = True
            key, description = f"{OTHER} {band_of(code)}", "Other codes"
        self.descriptions.setdefault(key, description)
        return self.codes.setdefault(key, Row())

    # --- views ---

    @property
    def failures(self) -> int:
        """Flows that broke."""
        return self.outcomes["error"]

    def bands(self) -> Iterator[tuple[str, Row, dict[str, Row]]]:
        """Each band that occurred, in order: its name, its row, its codes' rows."""
        for band in BANDS:
            codes = {key: self.codes[key] for key in sorted(self.codes) if band_of_key(key) == band}
            if codes:
                total = Row()
                for row in codes.values():
                    total.merge(row)
                yield band, total, codes

    # --- merging, parts, plain data ---

    def part(self) -> Tally:
        """A tally to fold what comes later, somewhere else, and then merge: the outcome is that of
        a fold here as long as the part is `exact`.

        In full tables it knows what will go under `(other)`; all others hold more than the whole
        can take.
        """
        part = Tally(WIDER)
        for name in ("codes", "hosts", "endpoints", "close_codes"):
            getattr(self, name).part(getattr(part, name))
        for code, causes in self.errors.items():
            for cause, row in causes.part(part._causes(code)).items():
                causes[cause].hosts.part(row.hosts)
        for kind, methods in self.kinds.items():
            methods.part(part.methods(kind))
        self.unfinished.hosts.part(part.unfinished.hosts)
        part.descriptions = self.descriptions.copy()
        return part

    @property
    def exact(self) -> bool:
        """Whether a part holds all that the whole may need."""
        tables: list[Table[Any]] = [self.codes, self.hosts, self.endpoints, self.close_codes]
        tables += [self.unfinished.hosts, *self.errors.values(), *self.kinds.values()]
        tables += [row.hosts for causes in self.errors.values() for row in causes.values()]
        return all(table.exact for table in tables)

    def fits(self, part: Tally) -> bool:
        """Whether to merge a part is to fold its records."""
        if not part.exact:
            return False
        for code, causes in part.errors.items():
            # Under `(other)` the hosts of several causes must come in the order of the records.
            mine = self._causes(code)
            if causes.limit and len(mine.keys() | causes.keys()) > mine.limit:
                return False
        return True

    def merge(self, other: Tally) -> None:
        """Add what `other` counted."""
        for name in ("flows", "events", "dropped", "request_bytes", "response_bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.first:
            self.span(other.first, other.last)
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] += count
        for key, row in other.codes.items():
            description = other.descriptions[key]
            if key.startswith(OTHER):
                self.descriptions[key] = description
                self.codes.setdefault(key, Row()).merge(row)
            else:
                self._code(int(key), description).merge(row)
        for error, causes in other.errors.items():
            mine = self._causes(error)
            for cause, counted in causes.items():
                mine[cause].merge(counted)
        for host, row in other.hosts.items():
            self.hosts[host].merge(row)
        for key, row in other.endpoints.items():
            self.endpoints[key].merge(row)
        for kind, methods in other.kinds.items():
            counts = self.methods(kind)
            for method, count in methods.items():
                counts.count(method, count)
        for kind, row in other.protocols.items():
            self.protocols.setdefault(kind, Row()).merge(row)
        for code, count in other.close_codes.items():
            self.close_codes.count(code, count)
        self.unfinished.merge(other.unfinished)
        for slow in other.slowest:
            self.add_slow(slow)
        if other.width > self.width:
            self._widen(other.width)
        width = WIDTHS[self.width]
        for start, series in other.timeline.items():
            _add_counts(self.timeline, start - start % width, series)
        self._widen()

    def to_data(self, limit: int | None = None) -> dict[str, Any]:
        """As plain data, the body of a `stats` record; what it holds does not change any more.

        `limit`: at most this many hosts and endpoints, those with the most flows; the rest is
        merged under `(other)`, so that the sums stay exact.
        """
        return {
            "flows": self.flows,
            "events": self.events,
            "dropped": self.dropped,
            "first": self.first,
            "last": self.last,
            "request_bytes": self.request_bytes,
            "response_bytes": self.response_bytes,
            "outcomes": self.outcomes.copy(),
            "bands": {
                band: {
                    **total.to_data(),
                    "codes": {
                        key: {"description": self.descriptions[key], **row.to_data()}
                        for key, row in codes.items()
                    },
                }
                for band, total, codes in self.bands()
            },
            "errors": {
                str(code): {
                    "name": ERRORS[code].name if code in ERRORS else OTHER,
                    "count": sum(row.count for row in causes.values()),
                    "causes": {cause: row.to_data() for cause, row in causes.items()},
                }
                for code, causes in sorted(self.errors.items(), reverse=True)
            },
            "hosts": _rows_to_data(self.hosts, limit),
            "endpoints": _rows_to_data(self.endpoints, limit),
            "kinds": {kind: dict(methods) for kind, methods in self.kinds.items()},
            "protocols": {kind: row.to_data() for kind, row in self.protocols.items()},
            "close_codes": dict(self.close_codes),
            "unfinished": self.unfinished.to_data(),
            "slowest": self.slowest.copy(),
            "timeline": {
                "seconds": WIDTHS[self.width],
                "series": list(SERIES),
                "buckets": {
                    str(start): self.timeline[start].copy() for start in sorted(self.timeline)
                },
            },
        }

    @classmethod
    def from_data(cls, data: Any) -> Tally:
        """What `to_data` made. Raises: ValueError, naming what is wrong."""
        self = cls()
        for name in ("flows", "events", "dropped", "request_bytes", "response_bytes"):
            setattr(self, name, _count(data, name))
        for name in ("first", "last"):
            value = data.get(name)
            if not isinstance(value, str) or (value and not _is_time(value)):
                raise ValueError(f"{name!r} must be a time")
            setattr(self, name, value)
        if bool(self.first) != bool(self.last):
            raise ValueError("'first' and 'last' go together")
        for outcome, count in _mapping(data, "outcomes").items():
            if outcome not in self.outcomes:
                raise ValueError(f"unknown outcome {outcome!r}")
            self.outcomes[outcome] = _whole(count, outcome)
        for band in _mapping(data, "bands").values():
            for key, row in _mapping(band, "codes").items():
                if band_of_key(key) not in BANDS:
                    raise ValueError(f"unknown status code {key!r}")
                self.codes[key] = Row.from_data(row)
                self.descriptions[key] = str(row.get("description", ""))
        for key, error in _mapping(data, "errors").items():
            try:
                code = int(key)
            except ValueError:
                raise ValueError(f"unknown error code {key!r}") from None
            causes = self._causes(code)
            for cause, row in _mapping(error, "causes").items():
                causes[cause] = CauseRow.from_data(row)
        for host, row in _mapping(data, "hosts").items():
            self.hosts[host] = Row.from_data(row)
        for key, row in _mapping(data, "endpoints").items():
            self.endpoints[key] = Row.from_data(row)
        for kind, methods in _mapping(data, "kinds").items():
            if not isinstance(methods, dict):
                raise ValueError(f"kind {kind!r} must be an object")
            for method, count in methods.items():
                self.methods(kind).count(method, _whole(count, method))
        for kind, row in _mapping(data, "protocols").items():
            self.protocols[kind] = Row.from_data(row)
        for key, count in _mapping(data, "close_codes").items():
            self.close_codes.count(key, _whole(count, key))
        if "unfinished" in data:
            self.unfinished = CauseRow.from_data(data["unfinished"])
        for slow in _objects(data, "slowest"):
            _number(slow, "duration_ms", required=True)
            self.add_slow(slow)
        timeline = _mapping(data, "timeline")
        if timeline.get("seconds") not in WIDTHS or timeline.get("series") != list(SERIES):
            raise ValueError("the timeline has an unknown width or series")
        self.width = WIDTHS.index(timeline["seconds"])
        for start, counts in _mapping(timeline, "buckets").items():
            if not start.lstrip("-").isdigit() or not isinstance(counts, list):
                raise ValueError(f"the timeline has an unknown bucket {start!r}")
            if len(counts) != len(SERIES):
                raise ValueError(f"bucket {start} of the timeline has {len(counts)} numbers")
            self.timeline[int(start)] = [_whole(n, "bucket") for n in counts]
        return self


# --- endpoints ---

_MAX_ENDPOINT = 200
_ID = (
    r"/(?<![:/]/)(?:[0-9]++"
    r"|(?=[^/\n]{16})(?=[^/\n]*[0-9])(?:[0-9a-fA-F-]{16,}+|[0-9A-Za-z_]{20,}+))(?![^/\n])"
)
"""A path segment that names one thing of many: a number; a UUID, a hash, an object id; random text
such as a base64url token. Not what stands after `//`."""
_ID_IN_TEXT = re.compile(_ID)
_ID_IN_BYTES = re.compile(_ID.encode())
_QUERY_IN_BYTES = re.compile(rb"\?[^\n]*")


def endpoint(record: Mapping[str, Any]) -> str:
    """The endpoint of a record: method, host and path, with ids folded."""
    url = record.get("url")
    if url is None:
        host, port = record.get("host", ""), record.get("port")
        url = host if port is None else f"{host}:{port}"
        return f"{record.get('method') or record['kind'].upper()} {url}"
    return endpoint_name(record.get("method", ""), url)


def endpoint_name(method: str, url: str) -> str:
    """The endpoint of a URL: `GET http://host/users/{id}`."""
    url = _ID_IN_TEXT.sub("/{id}", url.partition("?")[0])
    return f"{method} {url if len(url) <= _MAX_ENDPOINT else f'{url[: _MAX_ENDPOINT - 1]}…'}"


def fold_many(urls: Sequence[bytes]) -> list[bytes]:
    """URLs, without line ends, with queries cut off and ids folded."""
    path = _QUERY_IN_BYTES.sub(b"", b"\n".join(urls))
    return _ID_IN_BYTES.sub(b"/{id}", path).split(b"\n")


def band_of_key(key: str) -> str:
    """The band of a key of `Tally.codes`; "" if it is none."""
    if key.startswith(OTHER):
        return key[len(OTHER) + 1 :]
    try:
        return band_of(int(key))
    except ValueError:
        return ""


# --- bounds and checks ---


def _add_counts(timeline: dict[int, list[int]], start: int, counts: list[int]) -> None:
    mine = timeline.get(start)
    if mine is None:
        timeline[start] = counts.copy()
    else:
        for index, count in enumerate(counts):
            mine[index] += count


def _rows_to_data(rows: dict[str, Row], limit: int | None) -> dict[str, Any]:
    if limit is None or len(rows) <= limit:
        return {key: row.to_data() for key, row in rows.items()}
    ranked = sorted(rows.items(), key=lambda item: (item[0] == OTHER, -item[1].flows))
    rest = Row()
    for _, row in ranked[limit:]:
        rest.merge(row)
    return {key: row.to_data() for key, row in [*ranked[:limit], (OTHER, rest)]}


def _mapping(data: Any, name: str) -> dict[str, Any]:
    value = data.get(name, {}) if isinstance(data, dict) else None
    if not isinstance(value, dict):
        raise ValueError(f"{name!r} must be an object")
    return value


def _whole(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError(f"{name!r} must be a whole number, not {value!r:.40}")
    return value


def _count(data: Any, name: str) -> int:
    return _whole(data.get(name, 0) if isinstance(data, dict) else None, name)


def _objects(data: Any, name: str) -> list[dict[str, Any]]:
    value = data.get(name, [])
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ValueError(f"{name!r} must be a list of objects")
    return value


def _number(data: Any, name: str, required: bool = False) -> float:
    value = data.get(name, None if required else 0.0)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e15:
        raise ValueError(f"{name!r} must be a number, not {value!r:.40}")
    return float(value)


def _is_time(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).utcoffset() is not None
    except ValueError:
        return False
