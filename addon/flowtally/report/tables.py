"""The tables of a report and their columns, each declared once.

Text and HTML show TABLES to people; JSON and CSV have every table of the statistics, with the
columns that `columns_of` derives from its declaration. All four walk the columns and name none.

A new table of the statistics is in JSON and CSV as soon as `tally.TABLES` has it. People see it
once it has an entry in TABLES here.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from functools import cached_property
from functools import partial
from operator import attrgetter
from typing import Literal

from ..examples import subject
from ..histogram import POINTS
from ..rows import COUNTS
from ..rows import EXAMPLE
from ..rows import OTHER
from ..rows import Example
from ..rows import Key
from ..rows import Row
from ..rows import Rows
from ..rows import Table
from ..rows import Timeline
from ..tally import TIMELINE
from ..tally import Tally
from ..tally import id_of_row
from ..times import timestamp
from ..vocabulary import CLIENTS
from ..vocabulary import Why
from ..vocabulary import advice
from ..vocabulary import error_of
from ..vocabulary import side_of
from ..vocabulary import words_of

Value = str | int | float | None
"""What stands in a cell. None: there is nothing to say, such as a percentile of no times."""
Unit = Literal["count", "problems", "share", "bytes", "ms", "time", "word", "text"]
"""What a value is, which decides how people see it. `problems`: a count that has a colour unless
it is 0. `share`: 0 to 1. `time`: RFC 3339. `word`: a short text; `text` may be a sentence."""

_NOTHING = Row(TIMELINE)


@dataclass(eq=False)
class Entry:
    """A row of the statistics as columns look at it, or a single request."""

    name: str
    """What people know it by, as the network gave it; "" of a host that is not known."""
    row: Row = _NOTHING
    key: Key = ()
    """What it is found by in its table. Of single requests, and of rows that have another name for
    people: what tells it from all others."""
    at_least: bool = False
    """Its counts may be larger, see `Rows.at_least`."""
    share: float = 0.0
    """Of all flows."""
    band: str = ""
    """Of a band or a status code."""
    total: bool = False
    """It is the sum of those that follow, up to the next sum."""
    note: str = ""
    """What else there is to say: of a protocol its methods or close codes, of a status code that
    takes a cause's place what it means."""
    example: Example = field(default_factory=dict)
    """The fields of a single request."""

    @cached_property
    def wait(self) -> Mapping[str, float]:
        """POINTS of the wait in ms; empty if there were no times."""
        return self.row.wait.points()

    @cached_property
    def duration(self) -> Mapping[str, float]:
        """POINTS of the duration in ms; empty if there were no times."""
        return self.row.duration.points()


@dataclass(frozen=True, slots=True)
class Column:
    """A column: what it is called, and how to get its values."""

    field: str
    """Its name in JSON and CSV."""
    title: str
    """What people read above it."""
    unit: Unit
    value: Callable[[Entry], Value]
    colour: str = ""
    """Of `problems`: the CSS class of those that are not 0."""
    wide: bool = False
    """A terminal shows it only where there is room."""


# --- the columns ---

_PEOPLE: Mapping[str, tuple[str, Unit, str]] = {
    "flows": ("Flows", "count", ""),
    "failures": ("Failed", "problems", "failure"),
    "unsuccessful": ("Unsuccessful", "problems", "unsuccessful"),
    "cancelled": ("Cancelled", "count", ""),
    "events": ("Without a flow", "problems", "event"),
    "request_bytes": ("Sent", "bytes", ""),
    "response_bytes": ("Received", "bytes", ""),
}
"""Name of COUNTS → title, unit, colour."""


def _counted(name: str) -> Column:
    title, unit, colour = _PEOPLE.get(name, (name, "count", ""))
    return Column(name, title, unit, attrgetter(f"row.{name}"), colour)


COUNTED = {name: _counted(name) for name in COUNTS}
FLOWS = COUNTED["flows"]
FAILED = COUNTED["failures"]
UNSUCCESSFUL_ONES = COUNTED["unsuccessful"]
CANCELLED = COUNTED["cancelled"]
WITHOUT_FLOW = COUNTED["events"]
SENT = COUNTED["request_bytes"]
RECEIVED = COUNTED["response_bytes"]
SHARE = Column("share", "Share", "share", attrgetter("share"))
NOTE = Column("note", "What", "text", attrgetter("note"))

TIMES = {
    f"{prefix}{point}_ms": (distribution, point)
    for prefix, distribution in (("", "duration"), ("wait_", "wait"))
    for point in POINTS
}
"""What is said of times, `p95_ms` of the duration and `wait_p95_ms` of the wait → which of a row's
distributions it is of, and which point of it."""


def _timed(name: str, distribution: str, point: str) -> Column:
    def value(entry: Entry) -> Value:
        times: Mapping[str, float] = getattr(entry, distribution)
        return times.get(point)

    title = point if distribution == "duration" else f"{distribution.capitalize()} {point}"
    return Column(name, title, "ms", value, wide=point == "p99")


TIMED = {name: _timed(name, *of) for name, of in TIMES.items()}
WAITS = (TIMED["wait_p50_ms"], TIMED["wait_p95_ms"])
P50, P95, P99, MAX = DURATIONS = tuple(TIMED[f"{point}_ms"] for point in POINTS)


def _from_example(name: str, title: str, unit: Unit) -> Column:
    return Column(name, title, unit, lambda entry: entry.example.get(name))


def _started(entry: Entry) -> str:
    """When a request began: a record's time is that of its end."""
    ended: str = entry.example["time"]
    try:
        end = datetime.fromisoformat(ended).timestamp()
    except (ValueError, OverflowError):
        return ended  # a log may say anything
    return timestamp(end - entry.example.get("duration_ms", 0) / 1000)


def _status_or_cause(entry: Entry) -> str:
    return str(entry.example.get("status") or entry.example.get("cause", ""))


STARTED = Column("started", "Began", "time", _started)
STATUS_OR_CAUSE = Column("status", "Status", "word", _status_or_cause)
WAITED = _from_example("wait_ms", "Wait", "ms")
TOOK = _from_example("duration_ms", "Took", "ms")


# --- for people ---

Order = Literal["count", "problems", "mean", "bands", "kinds", "longest"]
"""`count`: all rows, the largest first. `problems`: those that have any, by how many. `mean`: those
with times, the slowest first. `bands`: in the order of bands, below the sum of each. `kinds`: one
for each first part of the keys. `longest`: a row for each single request."""


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table that people see."""

    id: str
    """Of its section in HTML."""
    title: str
    head: str
    """What stands above the names."""
    what: str
    """What one of its rows is, in the singular."""
    columns: Sequence[Column]
    of: str
    """The table of the statistics whose keys its rows are."""
    order: Order
    """How its rows are made of those, and ordered."""
    most: int | None = 200
    """How many rows a page shows; None: all."""
    note: str = ""
    terminal_title: str = ""
    """What stands above the names on a terminal; "": the table is not shown there."""
    terminal: Sequence[Column] = ()
    """The columns that a terminal shows: if it is narrow, only the first of them."""
    terminal_most: int | None = 10
    other_protocols: bool = False
    """It is not about HTTP: on a terminal it stands at the end."""
    pick: str = ""
    """What the page can be narrowed to by a row, or by a sum where there are any; "": nothing."""

    def entries(self, tally: Tally) -> Sequence[Entry]:
        """Its rows, the most important first; if some are sums, each before those it sums up."""
        return _ORDERS[self.order](tally, self.of)


def largest(rows: Rows, size: Callable[[Row], int] = attrgetter("count")) -> list[tuple[Key, Row]]:
    """Rows with their keys, the largest first; what is counted under (other) comes last."""
    return sorted(rows.items(), key=lambda item: (OTHER in item[0], -size(item[1]), item[0]))


def _entries(tally: Tally, rows: Rows, chosen: Sequence[tuple[Key, Row]]) -> list[Entry]:
    flows = tally.flows or 1
    return [
        Entry(key[-1], row, key, at_least=key in rows.at_least, share=row.flows / flows)
        for key, row in chosen
    ]


def _all_of(tally: Tally, name: str) -> list[Entry]:
    return _entries(tally, tally[name], largest(tally[name]))


def _status(tally: Tally, name: str) -> list[Entry]:
    found = []
    at_least, flows = tally[name].at_least, tally.flows or 1
    for band, total, codes in tally.bands():
        found.append(Entry(band, total, (band,), False, total.flows / flows, band, total=True))
        for code, row in sorted(codes.items(), key=lambda item: (item[0] == OTHER, item[0])):
            said = f"{code} {row.description}".rstrip()
            marked = (band, code) in at_least
            found.append(Entry(said, row, (said,), marked, row.flows / flows, band))
    return found


def _failing(tally: Tally, name: str) -> list[Entry]:
    rows = tally[name]
    chosen = [item for item in largest(rows, attrgetter("problems")) if item[1].problems]
    return _entries(tally, rows, chosen)


def _slow(tally: Tally, name: str) -> list[Entry]:
    """Rows by their mean: the percentiles of all would take long."""
    rows = tally[name]
    timed = [item for item in rows.items() if item[1].duration and OTHER not in item[0]]
    timed.sort(key=lambda item: (-item[1].duration.mean, item[0]))
    return _entries(tally, rows, timed)


def _slowest(tally: Tally, name: str) -> list[Entry]:
    """Of requests that took as long, the first comes first."""
    found = _of_examples(tally[name])[::-1]
    return sorted(found, key=lambda entry: -entry.example["duration_ms"])


def _of_examples(rows: Rows) -> list[Entry]:
    """The examples of a table that consists of them, those with the largest order first."""
    return [
        Entry(subject(example), key=(example.get("flow", ""), example["time"]), example=example)
        for row in rows.values()
        for example in reversed(row.examples)
    ]


PROTOCOLS = {
    "websocket": "WebSocket",
    "connect": "CONNECT refused",
    "dns": "DNS",
    "tcp": "TCP",
    "udp": "UDP",
}
"""Kind of flow → what people call it."""
IN_NOTE = 5
"""How many methods or close codes the note on a protocol names."""


def _protocols(tally: Tally, name: str) -> list[Entry]:
    """A row for each kind of flow, and a note on its methods, or on how WebSockets were closed."""
    rows = tally[name]
    totals: dict[str, Row] = {}
    notes: dict[str, dict[str, int]] = {}
    for (kind, close_code), row in rows.items():
        totals.setdefault(kind, Row(rows.table)).merge(row, rows.table)
        if close_code:
            notes.setdefault(kind, {})[f"closed with {close_code}"] = row.flows
    for (kind, method), row in tally["methods"].items():
        if method and kind != "websocket":
            notes.setdefault(kind, {})[method] = row.flows
    found = []
    for kind, total in sorted(totals.items()):
        counts = sorted(notes.get(kind, {}).items(), key=lambda item: (-item[1], item[0]))
        note = ", ".join(f"{what} ({count})" for what, count in counts[:IN_NOTE])
        said = PROTOCOLS.get(kind, kind)
        at_least = any(key[0] == kind for key in rows.at_least)
        found.append(Entry(said, total, (said,), at_least, note=note))
    return found


_ORDERS: Mapping[Order, Callable[[Tally, str], list[Entry]]] = {
    "count": _all_of,
    "problems": _failing,
    "mean": _slow,
    "bands": _status,
    "kinds": _protocols,
    "longest": _slowest,
}


STATUS = ReportTable(
    "bands",
    "Status",
    "Band and code",
    "code",
    (FLOWS, SHARE, UNSUCCESSFUL_ONES, SENT, RECEIVED, *WAITS, *DURATIONS),
    "codes",
    "bands",
    most=None,
    note="complete responses; times from the first byte of the request to the end",
    terminal_title="Status",
    terminal=(FLOWS, SHARE, RECEIVED, *DURATIONS),
    terminal_most=None,
    pick="series",
)
TABLES = (
    STATUS,
    ReportTable(
        "hosts",
        "Hosts",
        "Host",
        "host",
        (
            *(FLOWS, FAILED, UNSUCCESSFUL_ONES, WITHOUT_FLOW, CANCELLED, SENT, RECEIVED),
            *(*WAITS, *DURATIONS),
        ),
        "hosts",
        "count",
        terminal_title="Host",
        terminal=(FLOWS, FAILED, UNSUCCESSFUL_ONES, WITHOUT_FLOW, RECEIVED, P50, P95),
        terminal_most=15,
        pick="host",
    ),
    ReportTable(
        "failing",
        "Failing endpoints",
        "Endpoint",
        "endpoint",
        (FLOWS, FAILED, UNSUCCESSFUL_ONES, P50, P95, MAX),
        "endpoints",
        "problems",
        terminal_title="Failing endpoint",
        terminal=(FLOWS, FAILED, UNSUCCESSFUL_ONES, P95),
    ),
    ReportTable(
        "slowest",
        "Slowest requests",
        "Request",
        "request",
        (STARTED, STATUS_OR_CAUSE, WAITED, TOOK),
        "slowest",
        "longest",
        terminal_title="Slowest request",
        terminal=(TOOK, WAITED, STATUS_OR_CAUSE),
    ),
    ReportTable(
        "slow-endpoints",
        "Slowest endpoints",
        "Endpoint",
        "endpoint",
        (FLOWS, *DURATIONS),
        "endpoints",
        "mean",
        most=20,
        note="by the mean",
    ),
    ReportTable(
        "media-types",
        "Media types",
        "Media type",
        "media type",
        (FLOWS, SHARE, FAILED, UNSUCCESSFUL_ONES, RECEIVED, *DURATIONS),
        "media_types",
        "count",
        note="of responses that named one; shares of all flows",
        terminal_title="Media type",
        terminal=(FLOWS, SHARE, FAILED, UNSUCCESSFUL_ONES, RECEIVED, P50, P95),
    ),
    ReportTable(
        "protocols",
        "Other protocols",
        "Protocol",
        "protocol",
        (FLOWS, FAILED, SENT, RECEIVED, P50, P95, MAX, NOTE),
        "protocols",
        "kinds",
        most=None,
        terminal_title="Other protocols",
        terminal=(FLOWS, FAILED, SENT, RECEIVED, P50, P95, NOTE),
        terminal_most=None,
        other_protocols=True,
    ),
)
"""The tables that people see, in the order in which they see them."""


# --- for other programs ---

_NUMBERS = ("error_code", "code", "close_code", "seconds", "start")
"""Parts of keys that are numbers in JSON and CSV; what is none there is null, such as the close
code of a WebSocket that was never closed."""


def _part(name: str, position: int) -> Column:
    def text(entry: Entry) -> Value:
        return entry.key[position]

    def number(entry: Entry) -> Value:
        part = entry.key[position]
        is_number = part.isascii() and part.removeprefix("-").isdecimal() and len(part) <= 15
        return int(part) if is_number else None

    return Column(name, name, "word", number if name in _NUMBERS else text)


def _error_name(entry: Entry) -> Value:
    error = error_of(entry.key[0])
    return error.name if error else None


def _status_description(entry: Entry) -> Value:
    return entry.note or None


def _known(name: Callable[[Why], str]) -> Callable[[Entry], Value]:
    return lambda entry: name(Why(entry.key[1], entry.key[2])) or None


def _id(entry: Entry) -> Value:
    return id_of_row(entry.key) or None


def _moment(which: str) -> Callable[[Entry], Value]:
    return lambda entry: getattr(entry.row.moments, which) or None


_EXPLAINED: Mapping[str, Sequence[Column]] = {
    "causes": (
        Column("error_name", "Error", "word", _error_name),
        Column("description", "Description", "text", _status_description),
        Column("side", "Look at", "word", _known(side_of)),
        Column("advice", "Advice", "text", _known(advice)),
        *(Column(client, client, "text", _known(partial(words_of, client))) for client in CLIENTS),
    ),
    "incidents": (
        Column("id", "Id", "word", _id),
        Column("error_name", "Error", "word", _error_name),
        Column("advice", "Advice", "text", _known(advice)),
    ),
}
"""Name of a table → what the vocabulary knows of its keys; `description`: of a status code that
takes the cause's place. A client's column has what it would have said without the proxy."""
_DESCRIPTION = Column(
    "description", "Description", "text", lambda entry: entry.row.description or None
)
_MOMENTS = tuple(Column(of, of, "time", _moment(of)) for of in ("first", "last"))
_OTHER = Column("other", "Other", "word", lambda entry: OTHER in entry.key)
_AT_LEAST = Column("at_least", "At least", "word", attrgetter("at_least"))

_UNITS: Mapping[str, Unit] = {"time": "time", "wait_ms": "ms", "duration_ms": "ms"}
EXAMPLE_COLUMNS = tuple(_from_example(name, name, _UNITS.get(name, "word")) for name in EXAMPLE)
"""Of an example, or of a table that consists of examples."""


def columns_of(table: Table) -> tuple[Column, ...]:
    """All that the statistics have in a table, but for the examples of its rows. `other`: the row
    stands for the rest of a full table; `at_least`: its counts may be larger."""
    if not table.parts:
        return EXAMPLE_COLUMNS
    return (
        *(_part(name, position) for position, name in enumerate(table.parts)),
        *((_DESCRIPTION,) if table.description else ()),
        *_EXPLAINED.get(table.name, ()),
        *COUNTED.values(),
        *(_MOMENTS if table.moments else ()),
        _AT_LEAST,
        _OTHER,
        *(TIMED[name] for name, (of, _) in TIMES.items() if getattr(table, f"{of}s")),
    )


def entries_of(tally: Tally, name: str) -> list[Entry]:
    """What a table of the statistics consists of, for `columns_of`: the largest first, points of
    time in their order."""
    rows = tally[name]
    if not rows.table.parts:
        return _of_examples(rows)
    if isinstance(rows, Timeline):
        points = sorted(rows.items(), key=lambda item: (int(item[0][0]), item[0]))
        return [Entry("", row, (str(rows.seconds), *key)) for key, row in points]
    found = _entries(tally, rows, largest(rows))
    for entry in found if name == "causes" else ():
        entry.note = tally.description(entry.key[1])
    return found
