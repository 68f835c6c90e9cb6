"""The rows of the statistics: what each counts, how a table bounds them, how they are merged,
written and read back.

`tally` declares the tables that consist of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from operator import itemgetter
from typing import Any
from typing import NamedTuple

from .blocks import WIDTHS
from .blocks import Blocks
from .histogram import Histogram
from .moments import Moments
from .moments import unix_second
from .redaction import printable
from .vocabulary import BANDS

Record = Mapping[str, Any]
Example = dict[str, Any]
Key = tuple[str, ...]
"""What a row of a table is found by."""

OTHER = "(other)"
"""What a full table counts the rest under."""
EVENT = "event"
"""What the series of failures without a flow is called."""
SERIES = (*BANDS, "error", "cancelled", "ok", "unfinished", EVENT)
"""What can become of a flow, a complete response by its band."""

MAX_BUCKETS = 240
"""How many points of time the timeline holds; it gets coarser when there are more."""
MOST_GROUPS = 20
"""A table has at most so many times the rows that it may have of one group."""
MAX_EXAMPLE_URL = 512
"""In characters: a row with its examples must fit into a line of the log."""

COUNTS = (
    "flows",
    "failures",
    "unsuccessful",
    "cancelled",
    "events",
    "challenges",
    "collateral",
    "request_bytes",
    "response_bytes",
)
"""What every row counts. `failures`: flows with outcome `error`. `unsuccessful`: complete responses
with an error code. `cancelled`: flows with that outcome. `events`: failures without a flow.
`challenges`: of the unsuccessful, those that a later request answered with credentials.
`collateral`: of the failures, those that another stream of their connection had caused. Bytes are
those of bodies."""

EXAMPLE = (
    "time",
    "flow",
    "method",
    "url",
    "host",
    "port",
    "status",
    "cause",
    "reason",
    "detail",
    "wait_ms",
    "duration_ms",
)
"""The fields of a record that are kept of it as an example."""


def series(record: Record) -> str:
    """What became of a record's flow, one of SERIES."""
    outcome: str = record.get("outcome", EVENT)
    return record["band"] if outcome == "status" else outcome


class Table(NamedTuple):
    """How a table of the statistics comes about."""

    name: str
    parts: tuple[str, ...]
    """What the parts of a key are. All but the last make the group."""
    key: Callable[[Record], Key | None]
    """What a record is counted under; None: not in this table."""
    limit: int
    """How many rows of one group are named; the rest of the group is counted under (other)."""
    fields: Sequence[str] = ()
    """The fields of a flow on which the key depends; none where that cannot be said."""
    events: bool = False
    """It counts failures without a flow too."""
    waits: bool = False
    """It knows how `wait_ms` is distributed."""
    durations: bool = False
    """It knows how `duration_ms` is distributed."""
    moments: bool = False
    """It knows when its flows and events were."""
    blocks: bool = False
    """It knows how its flows and events fall into blocks of time."""
    description: str = ""
    """The field of the first record of a row that says what the key means."""
    examples: int = 0
    """How many records are kept as examples, those that come last in the order of `examples_by`."""
    examples_by: str = "time"
    """A field that they have. Of those that are equal in it, the latest are kept."""


_NOTHING = Histogram()
"""Stands in rows for the distribution that their table does not know; is never added to."""
_NEVER = Moments()
_NO_BLOCKS = Blocks()


class Row:
    """What is counted under a key."""

    __slots__ = (*COUNTS, "_examples", "blocks", "description", "duration", "moments", "wait")

    flows: int
    failures: int
    unsuccessful: int
    cancelled: int
    events: int
    challenges: int
    collateral: int
    request_bytes: int
    response_bytes: int

    def __init__(self, table: Table, description: str = "") -> None:
        self.flows = self.failures = self.unsuccessful = self.cancelled = self.events = 0
        self.challenges = self.collateral = self.request_bytes = self.response_bytes = 0
        self.description = description
        self.wait = Histogram() if table.waits else _NOTHING
        self.duration = Histogram() if table.durations else _NOTHING
        self.moments = Moments() if table.moments else _NEVER
        self.blocks = Blocks() if table.blocks else _NO_BLOCKS
        self._examples: list[tuple[tuple[Any, ...], Example]] = []
        """Each with its place in the table's order, ascending."""

    @property
    def count(self) -> int:
        """Flows, and failures without one."""
        return self.flows + self.events

    @property
    def problems(self) -> int:
        """All that went wrong here: not a challenge that was answered, not what happened to other
        streams of the connection."""
        wrong = self.failures + self.unsuccessful + self.events
        return max(0, wrong - self.challenges - self.collateral)

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
        if other.moments:
            self.moments.merge(other.moments)
        if other.blocks:
            self.blocks.merge(other.blocks)
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
        if self.moments:
            data |= self.moments.to_data()
        if self.blocks:
            data["blocks"] = self.blocks.to_data()
        if self._examples:
            data["examples"] = self.examples
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any], table: Table) -> Row:
        """What `to_data` made. Raises: ValueError."""
        self = cls(table, _text(data, "description"))
        for name in COUNTS:
            value = data.get(name, 0)
            if type(value) is not int or not 0 <= value < _MOST:
                raise ValueError(f"{name!r} must be a whole number, not {value!r:.40}")
            setattr(self, name, value)
        if table.waits and "wait" in data:
            self.wait = Histogram.from_data(data["wait"])
        if table.durations and "duration" in data:
            self.duration = Histogram.from_data(data["duration"])
        if table.moments:
            self.moments = Moments.from_data(data)
        if table.blocks and "blocks" in data:
            self.blocks = Blocks.from_data(data["blocks"])
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
        self.at_least: set[Key] = set()
        """Keys of rows that may be larger: of merged sessions, one had this key under (other)."""
        self._sizes: dict[Key, int] = {}
        """Group → how many of its rows are named."""

    def key(self, record: Record) -> Key | None:
        """What a record is counted under; None: not in this table."""
        return self.table.key(record)

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

    def hidden(self, *beginning: str) -> int:
        """How much is counted under (other) that may belong to the keys that begin so, and under
        none of them."""
        return sum(
            row.count
            for key, row in self.items()
            if key[: len(beginning)] != beginning
            and all(part in (OTHER, wanted) for part, wanted in zip(key, beginning, strict=False))
        )

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
        """The second of the last flow, RFC 3339: the next one is mostly from the same."""
        self._now: dict[str, Row] = {}
        """Series → the row of that second."""
        self._start = ""
        """Its point of time."""
        self.moment = 0
        """That second, Unix time."""

    @property
    def seconds(self) -> int:
        """How long a point of time is."""
        return WIDTHS[self.number]

    def key(self, record: Record) -> Key:
        return self._start_of(unix_second(record["time"])), series(record)

    def row(self, record: Record, name: str) -> Row:
        """The row of a record, whose series is known."""
        second = record["time"][:19]
        if second != self._second:
            self.moment = unix_second(record["time"])
            self._start = self._start_of(self.moment)
            self._second, self._now = second, {}
        row = self._now.get(name)
        if row is None:
            key = self._start, name
            row = self.get(key)
            if row is None:
                row = self.admit(key)
            self._now[name] = row
        return row

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
        self._second = ""

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
        while self.seconds < int(width):
            self._widen()
        row = Row.from_data(data, self.table)
        self.admit((self._start_of(int(start)), name)).merge(row, self.table)


def example(record: Record) -> Example:
    """What is kept of a record as an example."""
    kept = {name: record[name] for name in EXAMPLE if name in record}
    if len(kept.get("url", "")) > MAX_EXAMPLE_URL:
        kept["url"] = printable(kept["url"], MAX_EXAMPLE_URL)
    return kept


# --- checks of what a log says ---

_MOST = 10**30
"""What a count may be: it may be a sum of anything."""


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name!r} must be text, not {value!r:.40}")
    return value


_TEXTS = ("time", "flow", "method", "url", "host", "cause", "reason", "detail")


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
