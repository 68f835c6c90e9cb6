"""The statistics: a fold over records.

A session's tally is what `add` makes of its records, one by one, wherever they come from: live,
from a log, merged from several logs. It is bounded whatever the traffic; what overflows a bound is
counted under `(other)`, so that every sum stays exact.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Mapping
from datetime import datetime
from math import exp
from math import log
from typing import Any

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
EXAMPLES = 5
"""How many of the latest examples of each cause are kept."""
MAX_BUCKETS = 240
"""How many points of time the timeline holds; it gets coarser when there are more."""

SERIES = (*BANDS, "error", "ok", "unfinished", "event")
"""What the timeline counts."""

# Seconds a bucket of the timeline may span. Each is a multiple of the one before, so that buckets
# of any two timelines can be merged.
_WIDTHS = (1, 2, 10, 30, 60, 300, 900, 3600, 10800, 43200, 86400, 604800, 6048000, 604800000)

_SERIES_INDEX = {name: index for index, name in enumerate(SERIES)}


class Histogram:
    """How a time in milliseconds is distributed, in buckets that grow by 4 %: a percentile is
    within 2 % of the true one, and two histograms can be added."""

    __slots__ = ("_dense", "buckets", "count", "maximum", "microseconds")

    FIRST = 0.1
    """The first bucket holds all up to this many ms."""
    GROWTH = log(1.04)
    SIZE = 530
    """The last bucket begins at a day."""
    MOST = 2**31
    """What a bucket of a log can hold; it leaves room to count on."""
    SPARSE = 24
    """Up to so many buckets are kept in a dictionary; an array of all would be no larger then."""
    PERCENTILES = (("p50", 0.50), ("p95", 0.95), ("p99", 0.99))

    def __init__(self) -> None:
        self.buckets: defaultdict[int, int] | array[int] = defaultdict(int)
        self.count = 0
        self.maximum = 0.0
        self.microseconds = 0
        self._dense = False

    @classmethod
    def index(cls, value: float) -> int:
        """The bucket of a value in ms."""
        if value <= 0.1:
            return 0
        return min(int(log(value * 10) / cls.GROWTH) + 1, cls.SIZE - 1)

    def add(self, value: float, index: int, microseconds: int) -> None:
        """Count a value in ms whose bucket is `index`; `microseconds` is the same value."""
        self.buckets[index] += 1
        self.count += 1
        self.microseconds += microseconds
        if value > self.maximum:
            self.maximum = value
        if not self._dense and len(self.buckets) > self.SPARSE:
            self._densify()

    def merge(self, other: Histogram) -> None:
        """Add what `other` counted."""
        for index, count in other.filled():
            self.buckets[index] = min(self.buckets[index] + count, self.MOST)
        self.count += other.count
        self.microseconds += other.microseconds
        self.maximum = max(self.maximum, other.maximum)
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
                middle = self.FIRST * exp((index - 0.5) * self.GROWTH) if index else self.FIRST
                found[name] = round(min(middle, self.maximum), 3)
                following = next(names, None)
                if following is None:
                    return found
                name, share = following
        return dict.fromkeys((name for name, _ in self.PERCENTILES), 0.0)

    def to_data(self) -> dict[str, Any]:
        """As plain data; times in ms."""
        return {
            "count": self.count,
            "mean": round(self.microseconds / self.count / 1000, 3) if self.count else 0.0,
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
        self.maximum = _number(data, "max")
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
        for name in self.COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
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

    def __init__(self) -> None:
        self.count = 0
        self.hosts: dict[str, int] = {}
        """Host, with its port unless that is 80 or 443 → count."""
        self.examples: list[dict[str, Any]] = []
        """The latest, oldest first."""

    def add_host(self, host: str, count: int = 1) -> None:
        """Count a host."""
        if host not in self.hosts and len(self.hosts) >= MAX_HOSTS_OF_A_CAUSE:
            host = OTHER
        self.hosts[host] = self.hosts.get(host, 0) + count

    def add_example(self, example: dict[str, Any]) -> None:
        """Keep an example if it is among the latest."""
        examples = self.examples
        examples.append(example)
        if len(examples) > 1 and _example_order(examples[-2]) > _example_order(example):
            examples.sort(key=_example_order)
        if len(examples) > EXAMPLES:
            del examples[0]

    def merge(self, other: CauseRow) -> None:
        """Add what `other` counted."""
        self.count += other.count
        for host, count in other.hosts.items():
            self.add_host(host, count)
        for example in other.examples:
            self.add_example(example)

    def to_data(self) -> dict[str, Any]:
        """As plain data."""
        return {"count": self.count, "hosts": self.hosts, "examples": self.examples}

    @classmethod
    def from_data(cls, data: Any) -> CauseRow:
        """What `to_data` made. Raises: ValueError."""
        self = cls()
        self.count = _count(data, "count")
        for host, count in _mapping(data, "hosts").items():
            self.add_host(host, _whole(count, "hosts"))
        examples = data.get("examples", [])
        if not isinstance(examples, list):
            raise ValueError("'examples' must be a list")
        for example in examples:
            if not isinstance(example, dict):
                raise ValueError("an example must be an object")
            self.add_example(example)
        return self


def _example_order(example: dict[str, Any]) -> tuple[str, str]:
    return str(example.get("time", "")), str(example.get("flow", ""))


class Tally:
    """The statistics of one session or several."""

    def __init__(self) -> None:
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
        self.codes: dict[str, Row] = {}
        """Status code → its complete responses; per band one `(other)`, see `code_key`."""
        self.descriptions: dict[str, str] = {}
        self.errors: dict[int, dict[str, CauseRow]] = {}
        """Error code → cause → count; of -3, the status code takes the cause's place."""
        self.hosts: dict[str, Row] = {}
        self.endpoints: dict[str, Row] = {}
        self.kinds: dict[str, dict[str, int]] = {}
        """Kind → method → flows."""
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

        kind, method = record["kind"], get("method", "")
        methods = self.kinds.get(kind)
        if methods is None:
            methods = self.kinds[kind] = {}
        if method not in methods and len(methods) >= MAX_METHODS:
            method = OTHER
        methods[method] = methods.get(method, 0) + 1

        wait, duration = get("wait_ms"), get("duration_ms")
        if wait is not None:
            wait_index, wait_us = Histogram.index(wait), round(wait * 1000)
        if duration is not None:
            duration_index, duration_us = Histogram.index(duration), round(duration * 1000)
        host = get("host", "")
        of_endpoint = self._endpoint(endpoint(record))
        rows = [of_endpoint, self._host(host)]
        code, series = "", outcome
        if outcome == "status":
            code, series = str(record["status"]), record["band"]
            rows.append(self._code(record["status"], record["description"]))
        error_code = get("error_code")
        for row in rows:
            row.flows += 1
            row.request_bytes += sent
            row.response_bytes += received
            if wait is not None and row is not of_endpoint:
                row.wait.add(wait, wait_index, wait_us)
            if duration is not None:
                row.duration.add(duration, duration_index, duration_us)
            if error_code is not None:
                if outcome == "error":
                    row.failures += 1
                elif error_code == -3:
                    row.unsuccessful += 1
        if error_code is not None:
            self._add_error(error_code, get("cause") or code, record)
        self._add_time(record["time"], series)

    def _add_event(self, record: Mapping[str, Any]) -> None:
        self.events += 1
        host = record.get("host", "")
        self._host(host).events += 1
        self._add_error(record["error_code"], record["cause"], record)
        self._add_time(record["time"], "event")

    def _add_error(self, code: int, cause: str, record: Mapping[str, Any]) -> None:
        causes = self.errors.get(code)
        if causes is None:
            causes = self.errors[code] = {}
        row = causes.get(cause)
        if row is None:
            if len(causes) >= MAX_CAUSES:
                cause = OTHER
            row = causes.setdefault(cause, CauseRow())
        row.count += 1
        host, port = record.get("host", ""), record.get("port")
        row.add_host(host if port in (None, 80, 443) else f"{host}:{port}")
        row.add_example(
            {
                name: record[name]
                for name in ("time", "flow", "method", "url", "host", "port", "status", "detail")
                if name in record
            }
        )

    def _add_time(self, time: str, series: str) -> None:
        if time > self.last:
            self.last = time
        if not self.first or time < self.first:
            self.first = time
        second, recent = self._recent
        if time[:19] == second:
            recent[_SERIES_INDEX[series]] += 1
            return
        width = _WIDTHS[self.width]
        seconds = int(datetime.fromisoformat(time).timestamp())
        start = seconds - seconds % width
        bucket = self.timeline.get(start)
        if bucket is None:
            bucket = self.timeline[start] = [0] * len(SERIES)
            bucket[_SERIES_INDEX[series]] = 1
            if len(self.timeline) > MAX_BUCKETS:
                self._widen()
                return
        else:
            bucket[_SERIES_INDEX[series]] += 1
        if time.endswith("Z"):
            self._recent = time[:19], bucket

    def _widen(self, to: int | None = None) -> None:
        """Make the timeline coarser, until it fits its bound or its width is number `to`."""
        while self.width < (len(_WIDTHS) - 1 if to is None else to):
            if to is None and len(self.timeline) <= MAX_BUCKETS:
                return
            self.width += 1
            self._recent = "", []
            width = _WIDTHS[self.width]
            coarse: dict[int, list[int]] = {}
            for start, counts in self.timeline.items():
                _add_counts(coarse, start - start % width, counts)
            self.timeline = coarse

    # --- rows, bounded ---

    def _host(self, host: str) -> Row:
        row = self.hosts.get(host)
        return row if row is not None else _admit(self.hosts, host, MAX_HOSTS)

    def _endpoint(self, key: str) -> Row:
        row = self.endpoints.get(key)
        return row if row is not None else _admit(self.endpoints, key, MAX_ENDPOINTS)

    def _code(self, code: int, description: str) -> Row:
        key = str(code)
        row = self.codes.get(key)
        if row is not None:
            return row
        if len(self.codes) >= MAX_CODES:
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

    # --- merging, plain data ---

    def merge(self, other: Tally) -> None:
        """Add what `other` counted."""
        for name in ("flows", "events", "dropped", "request_bytes", "response_bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.first = min(filter(None, (self.first, other.first)), default="")
        self.last = max(self.last, other.last)
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
            mine = self.errors.setdefault(error, {})
            for cause, counted in causes.items():
                key = cause if cause in mine or len(mine) < MAX_CAUSES else OTHER
                mine.setdefault(key, CauseRow()).merge(counted)
        for host, row in other.hosts.items():
            self._host(host).merge(row)
        for key, row in other.endpoints.items():
            self._endpoint(key).merge(row)
        for kind, methods in other.kinds.items():
            counts = self.kinds.setdefault(kind, {})
            for method, count in methods.items():
                key = method if method in counts or len(counts) < MAX_METHODS else OTHER
                counts[key] = counts.get(key, 0) + count
        if other.width > self.width:
            self._widen(other.width)
        width = _WIDTHS[self.width]
        for start, series in other.timeline.items():
            _add_counts(self.timeline, start - start % width, series)
        self._widen()

    def to_data(self, limit: int | None = None) -> dict[str, Any]:
        """As plain data, the body of a `stats` record.

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
            "outcomes": self.outcomes,
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
            "kinds": self.kinds,
            "timeline": {
                "seconds": _WIDTHS[self.width],
                "series": list(SERIES),
                "buckets": {str(start): self.timeline[start] for start in sorted(self.timeline)},
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
            self.errors[code] = {
                cause: CauseRow.from_data(row) for cause, row in _mapping(error, "causes").items()
            }
        self.hosts = {k: Row.from_data(row) for k, row in _mapping(data, "hosts").items()}
        self.endpoints = {k: Row.from_data(row) for k, row in _mapping(data, "endpoints").items()}
        for kind, methods in _mapping(data, "kinds").items():
            if not isinstance(methods, dict):
                raise ValueError(f"kind {kind!r} must be an object")
            self.kinds[kind] = {m: _whole(n, m) for m, n in methods.items()}
        timeline = _mapping(data, "timeline")
        if timeline.get("seconds") not in _WIDTHS or timeline.get("series") != list(SERIES):
            raise ValueError("the timeline has an unknown width or series")
        self.width = _WIDTHS.index(timeline["seconds"])
        for start, counts in _mapping(timeline, "buckets").items():
            if not start.lstrip("-").isdigit() or not isinstance(counts, list):
                raise ValueError(f"the timeline has an unknown bucket {start!r}")
            if len(counts) != len(SERIES):
                raise ValueError(f"bucket {start} of the timeline has {len(counts)} numbers")
            self.timeline[int(start)] = [_whole(n, "bucket") for n in counts]
        return self


# --- endpoints ---

_HEX = frozenset("0123456789abcdefABCDEF-")
_DIGITS = frozenset("0123456789")
_MAX_ENDPOINT = 200

_folded: dict[str, str] = {}


def endpoint(record: Mapping[str, Any]) -> str:
    """Method, host and path of a record, with ids folded: `GET http://host/users/{id}`."""
    url = record.get("url")
    if url is None:
        host, port = record.get("host", ""), record.get("port")
        url = host if port is None else f"{host}:{port}"
        return f"{record.get('method') or record['kind'].upper()} {url}"
    return f"{record.get('method', '')} {_fold(url)}"


def _fold(url: str) -> str:
    url = url.partition("?")[0]
    folded = _folded.get(url)
    if folded is None:
        scheme, separator, rest = url.partition("://")
        head, *segments = rest.split("/") if separator else [url]
        path = "/".join([head, *["{id}" if _is_id(segment) else segment for segment in segments]])
        folded = scheme + separator + path if separator else head
        if len(folded) > _MAX_ENDPOINT:
            folded = folded[: _MAX_ENDPOINT - 1] + "…"
        if len(_folded) >= 2048:
            _folded.clear()
        _folded[url] = folded
    return folded


def _is_id(segment: str) -> bool:
    """Whether a path segment names one thing of many: a number, a UUID, a long token."""
    if not segment:
        return False
    if segment.isdigit():
        return True
    if len(segment) < 16:
        return False
    characters = set(segment)
    if not characters & _DIGITS:
        return False
    # A UUID, a hash, an object id; or random text such as a base64url token.
    return characters <= _HEX or (len(segment) >= 20 and segment.replace("_", "").isalnum())


def band_of_key(key: str) -> str:
    """The band of a key of `Tally.codes`; "" if it is none."""
    if key.startswith(OTHER):
        return key[len(OTHER) + 1 :]
    try:
        return band_of(int(key))
    except ValueError:
        return ""


# --- bounds and checks ---


def _admit(rows: dict[str, Row], key: str, limit: int) -> Row:
    if len(rows) >= limit:
        key = OTHER
    return rows.setdefault(key, Row())


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


def _number(data: Any, name: str) -> float:
    value = data.get(name, 0.0)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e15:
        raise ValueError(f"{name!r} must be a number, not {value!r:.40}")
    return float(value)


def _is_time(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).utcoffset() is not None
    except ValueError:
        return False
