"""What a report says, in the order in which it says it: a tally, sorted and cut to size.

All that shows a report (text, HTML, the live page) renders this, so that all say the same. Names
and examples are as the network gave them: whoever shows them makes them fit for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..examples import describe
from ..tally import OTHER
from ..tally import SERIES
from ..tally import WIDTHS
from ..tally import CauseRow
from ..tally import Histogram
from ..tally import Row
from ..tally import Tally
from ..tally import band_of_key
from ..tally import place
from ..vocabulary import BANDS
from ..vocabulary import CAUSES
from ..vocabulary import ERRORS
from ..vocabulary import UNSUCCESSFUL

MAX_SLOTS = 240
"""How many points of time a timeline shows."""
BUCKETS_OF_A_BAR = 6
"""How many buckets of a histogram make a bar of the distribution: each is 27 % wider than the one
before."""


@dataclass(frozen=True, slots=True)
class Headline:
    """The totals."""

    flows: int
    failures: int
    unsuccessful: int
    """Complete responses with a status of 400 and up."""
    events: int
    """Failures without a flow."""
    ok: int
    unfinished: int
    request_bytes: int
    response_bytes: int
    first: str
    """Time of the earliest flow or event, RFC 3339; "" of none."""
    last: str
    seconds: float
    """From the first to the last."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A cause, or a status code of 400 and up."""

    code: int
    """The error code; 0 of what is unfinished."""
    name: str
    """The error code's."""
    cause: str
    """The cause, or the status code."""
    description: str
    """Of a status code."""
    band: str
    """Of a status code."""
    side: str
    """Where to look."""
    advice: str
    count: int
    hosts: Sequence[tuple[str, int]]
    """Host, with its port unless that is usual, and how many; the largest first."""
    more_hosts: int
    """How many other hosts there are."""
    examples: Sequence[Mapping[str, Any]]
    """The latest, newest first: fields of records."""


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table of bands, codes, hosts, endpoints or protocols."""

    name: str
    band: str
    """Of a band or a code."""
    flows: int
    share: float
    """Of all flows, 0 to 1."""
    failures: int
    unsuccessful: int
    events: int
    request_bytes: int
    response_bytes: int
    wait: Mapping[str, float]
    """p50, p95, p99, max in ms; empty if there were no times."""
    duration: Mapping[str, float]
    note: str = ""
    """Of a protocol: methods or close codes."""

    @property
    def problems(self) -> int:
        """All that went wrong."""
        return self.failures + self.unsuccessful + self.events


@dataclass(frozen=True, slots=True)
class Lines:
    """The rows of a table, the most important first."""

    rows: Sequence[Line]
    more: int
    """How many are left out."""


@dataclass(frozen=True, slots=True)
class BandLines:
    """A band and its codes."""

    band: Line
    codes: Sequence[Line]


@dataclass(frozen=True, slots=True)
class Timeline:
    """Traffic over time, without gaps."""

    seconds: int
    """How long a point of time is."""
    starts: Sequence[int]
    """Unix times."""
    series: Mapping[str, Sequence[int]]
    """Name of SERIES → flows, or events; those that never occurred are left out."""


@dataclass(frozen=True, slots=True)
class Bar:
    """How many flows took from `start` to less than `end` ms."""

    start: float
    end: float
    count: int


@dataclass(frozen=True, slots=True)
class View:
    """A report."""

    headline: Headline
    problems: Sequence[Problem]
    bands: Sequence[BandLines]
    hosts: Lines
    failing: Lines
    """Endpoints."""
    slow_endpoints: Lines
    slowest: Sequence[Mapping[str, Any]]
    """Single requests, see `Tally.slowest`."""
    timeline: Timeline
    durations: Sequence[Bar]
    protocols: Sequence[Line]
    """What is not HTTP."""
    dropped: int


def view(tally: Tally, hosts: int, endpoints: int, slots: int = MAX_SLOTS) -> View:
    """Sort a tally. `hosts`, `endpoints`: rows of the tables; `slots`: points of the timeline, two
    at the least."""
    return View(
        headline=_headline(tally),
        problems=_problems(tally),
        bands=[
            BandLines(
                _line(band, total, tally.flows, band),
                [
                    _line(f"{_code(key)}{tally.descriptions[key]}", row, tally.flows, band)
                    for key, row in codes.items()
                ],
            )
            for band, total, codes in tally.bands()
        ],
        hosts=_largest(tally.hosts, hosts, tally.flows),
        failing=_failing(tally, endpoints),
        slow_endpoints=_slow_endpoints(tally, min(endpoints, 20)),
        slowest=tally.slowest.copy(),
        timeline=timeline(tally, slots),
        durations=durations(tally),
        protocols=_protocols(tally),
        dropped=tally.dropped,
    )


def _code(key: str) -> str:
    return "" if key.startswith(OTHER) else f"{key} "


def _headline(tally: Tally) -> Headline:
    seconds = 0.0
    if tally.first:
        first, last = (datetime.fromisoformat(time) for time in (tally.first, tally.last))
        seconds = (last - first).total_seconds()
    return Headline(
        flows=tally.flows,
        failures=tally.failures,
        unsuccessful=sum(row.count for row in tally.errors.get(UNSUCCESSFUL, {}).values()),
        events=tally.events,
        ok=tally.outcomes["ok"],
        unfinished=tally.outcomes["unfinished"],
        request_bytes=tally.request_bytes,
        response_bytes=tally.response_bytes,
        first=tally.first,
        last=tally.last,
        seconds=seconds,
    )


def _problems(tally: Tally) -> list[Problem]:
    """Failures first, then status codes, then what is unfinished; the most frequent first."""
    found = [
        _problem(code, cause, row, tally)
        for code, causes in tally.errors.items()
        for cause, row in causes.items()
    ]
    found.sort(key=lambda p: (p.code == UNSUCCESSFUL, -p.count, -p.code, p.cause))
    if tally.unfinished.count:
        found.append(_problem(0, "unfinished", tally.unfinished, tally))
    return found


HOSTS_OF_A_PROBLEM = 5
_UNFINISHED = "Still open when the session ended: the answer, or its end, had not come yet."


def _problem(code: int, cause: str, row: CauseRow, tally: Tally) -> Problem:
    hosts = sorted(row.hosts.items(), key=lambda item: (item[0] == OTHER, -item[1], item[0]))
    named = [(host, count) for host, count in hosts[:HOSTS_OF_A_PROBLEM] if host and host != OTHER]
    known = CAUSES.get(cause)
    status = code == UNSUCCESSFUL
    band = band_of_key(cause)
    return Problem(
        code=code,
        name=ERRORS[code].name if code in ERRORS else "",
        cause=cause,
        description=tally.descriptions.get(cause, "") if status else "",
        band=band if status and band in BANDS else "",
        side=known.side if known else "",
        advice=known.advice if known else _UNFINISHED if not code else "",
        count=row.count,
        hosts=named,
        more_hosts=len([host for host, _ in hosts if host]) - len(named),
        examples=_distinct(row.examples[::-1]),
    )


def _distinct(examples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that do not say the same again at another time."""
    said: dict[tuple[str, str], Mapping[str, Any]] = {}
    for example in examples:
        said.setdefault((describe(example), place(example)), example)
    return list(said.values())


def _line(name: str, row: Row, flows: int, band: str = "", note: str = "") -> Line:
    return Line(
        name=name,
        band=band,
        flows=row.flows,
        share=row.flows / flows if flows else 0.0,
        failures=row.failures,
        unsuccessful=row.unsuccessful,
        events=row.events,
        request_bytes=row.request_bytes,
        response_bytes=row.response_bytes,
        wait=_times(row.wait),
        duration=_times(row.duration),
        note=note,
    )


def _times(histogram: Histogram) -> dict[str, float]:
    if not histogram.count:
        return {}
    return {**histogram.percentiles(), "max": histogram.maximum}


def _largest(rows: Mapping[str, Row], count: int, flows: int) -> Lines:
    """Those with the most flows."""
    ordered = sorted(
        rows.items(), key=lambda item: (item[0] == OTHER, -item[1].flows - item[1].events, item[0])
    )
    return Lines(
        [_line(name, row, flows) for name, row in ordered[:count]], max(0, len(rows) - count)
    )


def _failing(tally: Tally, count: int) -> Lines:
    def problems(row: Row) -> int:
        return row.failures + row.unsuccessful

    failing = [(key, row) for key, row in tally.endpoints.items() if problems(row)]
    failing.sort(key=lambda item: (item[0] == OTHER, -problems(item[1]), item[0]))
    rows = [_line(key, row, tally.flows) for key, row in failing[:count]]
    return Lines(rows, max(0, len(failing) - count))


def _slow_endpoints(tally: Tally, count: int) -> Lines:
    """Those where a request takes longest on average; the percentiles of all would take long."""
    timed = [
        (key, row) for key, row in tally.endpoints.items() if row.duration.count and key != OTHER
    ]
    timed.sort(key=lambda item: (-item[1].duration.mean, item[0]))
    rows = [_line(key, row, tally.flows) for key, row in timed[:count]]
    return Lines(rows, max(0, len(timed) - count))


def _protocols(tally: Tally) -> list[Line]:
    lines = []
    for kind, row in sorted(tally.protocols.items()):
        counts: Mapping[str, int] = tally.kinds.get(kind, {})
        if kind == "websocket":
            counts = {f"closed with {code}": n for code, n in tally.close_codes.items()}
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        note = ", ".join(f"{name} ({count})" for name, count in ordered[:5] if name)
        lines.append(_line(_PROTOCOLS.get(kind, kind), row, tally.flows, note=note))
    return lines


_PROTOCOLS = {
    "websocket": "WebSocket",
    "connect": "CONNECT refused",
    "dns": "DNS",
    "tcp": "TCP",
    "udp": "UDP",
}


def timeline(tally: Tally, slots: int = MAX_SLOTS) -> Timeline:
    """The timeline in at most `slots` points of time, those without traffic among them."""
    if not tally.timeline:
        return Timeline(WIDTHS[tally.width], [], {})
    earliest, latest = min(tally.timeline), max(tally.timeline)
    width = next(
        (w for w in WIDTHS[tally.width :] if latest // w - earliest // w < slots), WIDTHS[-1]
    )
    while latest // width - earliest // width >= slots:  # a log may say anything
        width *= 2
    first = earliest - earliest % width
    starts = list(range(first, latest + 1, width))
    columns = [[0] * len(starts) for _ in SERIES]
    for start, counts in tally.timeline.items():
        for column, count in zip(columns, counts, strict=True):
            column[(start - first) // width] += count
    series = {name: column for name, column in zip(SERIES, columns, strict=True) if any(column)}
    return Timeline(width, starts, series)


def durations(tally: Tally) -> list[Bar]:
    """How the durations of all flows are distributed."""
    total = Histogram()
    for row in tally.hosts.values():  # each flow is in one of them
        total.merge(row.duration)
    bars: dict[int, int] = {}
    for index, count in total.filled():
        number = -(-index // BUCKETS_OF_A_BAR)
        bars[number] = bars.get(number, 0) + count
    if not bars:
        return []
    return [
        Bar(_limit(number - 1), _limit(number), bars.get(number, 0))
        for number in range(min(bars), max(bars) + 1)
    ]


def _limit(bar: int) -> float:
    """Where a bar ends, in ms."""
    if bar < 0:
        return 0.0
    return Histogram.FIRST * Histogram.GROWTH ** (bar * BUCKETS_OF_A_BAR) / 1000
