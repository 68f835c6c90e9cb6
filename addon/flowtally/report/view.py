"""What a report says, in the order in which it says it: a tally, sorted and cut to size.

All that shows a report to people (text, HTML, the live page) renders this, so that all say the
same. It holds no part of the tally, which may change meanwhile. Names and examples are as the
network gave them: whoever shows them makes them fit for it.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import NamedTuple

from ..blocks import WIDTHS
from ..equal_waits import EqualWait
from ..equal_waits import Wait
from ..equal_waits import equal_waits
from ..examples import distinct
from ..histogram import FIRST
from ..histogram import GROWTH
from ..incidents import Incident
from ..incidents import incidents
from ..incidents import named
from ..incidents import weight
from ..redaction import printable
from ..rows import MAX_BUCKETS
from ..rows import OTHER
from ..rows import SERIES
from ..rows import Key
from ..rows import Row
from ..rows import Timeline
from ..tally import UNFINISHED
from ..tally import Tally
from ..totals import InFlight
from ..totals import Totals
from ..vocabulary import REASONS
from ..vocabulary import Why
from ..vocabulary import advice
from ..vocabulary import band_of
from ..vocabulary import client_words
from ..vocabulary import error_of
from ..vocabulary import side_of
from .layout import cell
from .layout import counted
from .layout import in_brackets
from .layout import lasted
from .layout import s
from .layout import several_days
from .tables import TABLES
from .tables import Entry
from .tables import ReportTable
from .tables import Value

BUCKETS_OF_A_BAR = 6
"""How many buckets of a histogram make a bar of the distribution: each bar is 27 % wider than the
one before."""
NOTHING_IN_FLIGHT = InFlight(0, 0.0)
HOSTS_OF_A_PROBLEM = 5
"""How many hosts of a problem are named."""


class HostCount(NamedTuple):
    """How often a host had a problem."""

    host: str
    """With its port unless that is usual."""
    times: int
    at_least: bool
    """It may have been more often."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A cause and its reason, or a status code of 400 and up; also what was cancelled, or is
    unfinished."""

    code: int
    """The error code; 0 of what is no failure, and of what a full table holds no code of."""
    name: str
    """The error code's."""
    cause: str
    """The cause, or the status code."""
    reason: str
    description: str
    """Of a status code."""
    band: str
    """Of a status code."""
    side: str
    """Where to look."""
    advice: str
    client_words: str
    """As of an `Incident`."""
    count: int
    at_least: bool
    """There may be more, see `Rows.at_least`."""
    hosts: Sequence[HostCount]
    """The largest first."""
    more_hosts: int
    """How many other hosts there are."""
    examples: Sequence[Mapping[str, Any]]
    """The latest, newest first: fields of records."""
    incidents: Sequence[str]
    """The ids of its incidents, the most important first."""
    apart: bool
    """It is no problem."""


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table."""

    key: str
    """Tells it from all others of its table."""
    name: str
    """What stands in its first column."""
    values: Mapping[str, Value]
    """Field of a column → what stands there."""
    at_least: bool
    """Its counts may be larger, see `Rows.at_least`."""
    band: str
    """Of a band or a status code."""
    total: bool
    """It is the sum of those that follow, up to the next sum."""


@dataclass(frozen=True, slots=True)
class Lines:
    """A table, cut to size."""

    table: ReportTable
    rows: Sequence[Line]
    more: int
    """How many are left out."""


@dataclass(frozen=True, slots=True)
class OverTime:
    """Traffic over time, without gaps."""

    seconds: int
    """How long a point of time is."""
    starts: Sequence[int]
    """Unix times."""
    series: Mapping[str, Sequence[int]]
    """Name of SERIES → flows, or failures without one; what never occurred is left out."""
    unsuccessful: Sequence[int]
    """Complete responses with an error code."""


@dataclass(frozen=True, slots=True)
class Bar:
    """How many flows took from `start` to less than `end` ms."""

    start: float
    end: float
    count: int


NOTHING_CAME = "Nothing came through: is the client pointed at the proxy?"
NOTHING_RECORDED = "Nothing was recorded."
NOTHING_MATCHES = "Nothing matches."
MAX_ONLY = 300
"""Characters that are shown of what a report was narrowed to."""


@dataclass(frozen=True, slots=True)
class View:
    """A report."""

    totals: Totals
    direct: bool
    """As of a `Tally`."""
    only: str
    """What the report was narrowed to, as on the command line; "" of all."""
    problems: Sequence[Problem]
    apart: Sequence[Problem]
    """What is no problem: what clients cancelled, and what is unfinished."""
    incidents: Sequence[Incident]
    """The most important first. None for a terminal."""
    waits: Sequence[EqualWait]
    """Clients that leave an endpoint again and again after the same wait."""
    in_flight: InFlight
    """Flows that have not ended yet; only the live page knows."""
    tables: Sequence[Lines]
    """Those that were asked for, also where they are empty."""
    timeline: OverTime
    durations: Sequence[Bar]
    """None for a terminal, which does not show them."""

    @property
    def nothing(self) -> str:
        """What is to be said where there is nothing to report; "" where there is."""
        if self.totals.attempts or self.totals.background or self.in_flight.flows:
            return ""
        if self.only:
            return NOTHING_MATCHES
        return NOTHING_RECORDED if self.direct else NOTHING_CAME

    @property
    def dated(self) -> bool:
        """Times are told with their date."""
        return several_days(self.totals.first, self.totals.last)

    def lines(self, id: str) -> Lines:
        """A table, by the id of its declaration."""
        return next(lines for lines in self.tables if lines.table.id == id)


def view(
    tally: Tally,
    rows: int | None = None,
    *,
    tables: Sequence[ReportTable] = TABLES,
    terminal: bool = False,
    slots: int = MAX_BUCKETS,
    in_flight: InFlight = NOTHING_IN_FLIGHT,
) -> View:
    """Sort a tally. `rows`: at most so many rows of those tables that are cut at all. `terminal`:
    as few as a terminal shows. `slots`: points of the timeline, two at the least."""
    found = _problems(tally)
    return View(
        totals=tally.totals(),
        direct=tally.direct,
        only=printable(tally.only, MAX_ONLY),
        problems=[problem for problem in found if not problem.apart],
        apart=[problem for problem in found if problem.apart],
        incidents=[] if terminal else incidents(tally),
        waits=waits(tally),
        in_flight=in_flight,
        tables=[
            _lines(table, tally, table.terminal_most if terminal else table.most, rows)
            for table in tables
        ],
        timeline=timeline(tally, slots),
        durations=[] if terminal else durations(tally),
    )


# --- problems ---

_STILL_OPEN = "Still open when the session ended: the answer, or its end, had not come yet."


_ByCause = dict[tuple[int, str, str], list[Incident]]
"""Error code, cause and reason → their incidents."""


def _problems(tally: Tally) -> list[Problem]:
    """The most important first, as its incidents weigh together; then what is no problem."""
    hosts = _hosts_of_causes(tally)
    by_cause: _ByCause = {}
    for incident in incidents(tally):
        by_cause.setdefault((incident.code, incident.cause, incident.reason), []).append(incident)
    weights = {key: sum(map(weight, of)) for key, of in by_cause.items()}
    found = [
        _problem(key, row, hosts.get(key, ()), by_cause, tally)
        for key, row in tally["causes"].items()
    ]

    def order(problem: Problem) -> tuple[bool, float, int, str, str]:
        key = problem.code, problem.cause, problem.reason
        return problem.apart, -weights.get(key, problem.count), -problem.code, *key[1:]

    found.sort(key=order)
    return [problem for problem in found if problem.count]


def _hosts_of_causes(tally: Tally) -> dict[Key, list[HostCount]]:
    """Key among the causes → hosts, the largest first. Whatever side is to blame: a person who
    looks for the host looks for one line."""
    rows = tally["incidents"]
    found: dict[Key, dict[str, HostCount]] = {}
    for key, row in rows.items():
        times = row.problems if key[0] else row.count
        if times:
            hosts = found.setdefault(key[:3], {})
            before = hosts.get(key[-1], HostCount(key[-1], 0, False))
            at_least = before.at_least or key in rows.at_least
            hosts[key[-1]] = HostCount(key[-1], before.times + times, at_least)
    return {
        cause: sorted(hosts.values(), key=lambda of: (of.host == OTHER, -of.times, of.host))
        for cause, hosts in found.items()
    }


def _problem(
    key: Key, row: Row, hosts: Sequence[HostCount], by_cause: _ByCause, tally: Tally
) -> Problem:
    code, cause, reason = key
    error = error_of(code)
    number = error.code if error else 0
    why = Why(cause, reason)
    band = band_of(cause)
    named = [of for of in hosts[:HOSTS_OF_A_PROBLEM] if of.host not in ("", OTHER)]
    return Problem(
        code=number,
        name=error.name if error else "",
        cause=cause,
        reason=reason,
        description=tally.description(cause) if band else "",
        band=band,
        side=side_of(why),
        advice=_STILL_OPEN if key == UNFINISHED else advice(why),
        client_words="" if tally.direct else client_words(why),
        count=row.problems if code else row.count,
        at_least=key in tally["causes"].at_least,
        hosts=named,
        more_hosts=sum(of.host != "" for of in hosts) - len(named),
        examples=distinct(row.examples[::-1]),
        incidents=[each.id for each in by_cause.get((number, cause, reason), ()) if each.id],
        apart=not code,
    )


def headline(totals: Totals) -> list[str]:
    """What a report begins with: counts, in words."""
    words = counted(totals)
    for name, count in (("ok", totals.ok), ("unfinished", totals.unfinished)):
        if count:
            words.append(f"{count} {name}")
    if time := lasted(totals.first, totals.last):
        words.append(f"over {time}")
    return words


def title(problem: Problem) -> str:
    """What a problem is called."""
    name = named(problem.cause, problem.description, problem.reason)
    return f"{problem.code} {problem.name}: {name}" if problem.code else name


def apart(shown: View, where: Callable[[Problem, str], str]) -> list[str]:
    """What is no problem of anybody's, in a sentence each. `where`: the hosts of it, to stand
    behind what has been said so far."""
    sentences = []
    for each in shown.apart:
        name = "unfinished" if each.cause == UNFINISHED[1] else "cancelled by the client"
        times = cell(each.count, "count", each.at_least)
        sentence = f"{times} {name}{in_brackets(each.reason)}"
        sentences.append(f"{sentence}{where(each, sentence)}")
        if Why(each.cause, each.reason) in REASONS:
            sentences.append(each.advice)
    totals = shown.totals
    for count, what in (
        (totals.challenges, f"login{s(totals.challenges)} asked for, and given"),
        (totals.collateral, "failed only because another one did"),
        (
            totals.background,
            "that browsers and systems made on their own, not counted above",
        ),
    ):
        if count:
            sentences.append(f"{count} {what}")
    return sentences


def waits(tally: Tally) -> list[EqualWait]:
    """Clients that leave an endpoint again and again after the same wait."""
    counts = {
        Wait(client, of, int(step)): row.flows
        for (client, of, step), row in tally["waits"].items()
        # What else may stand there is (other), or the word of a log that says anything.
        if step.isascii() and step.isdecimal() and len(step) <= 4
    }
    return equal_waits(counts)


def in_words(wait: EqualWait) -> str:
    """An equal wait in a sentence."""
    often = f"{wait.times} of {wait.of} after {wait.seconds:.1f} s: the client's own timeout"
    return f"{wait.endpoint}: {wait.client} left {often}"


# --- tables ---


def _lines(table: ReportTable, tally: Tally, *limits: int | None) -> Lines:
    entries = table.entries(tally)
    most = len(entries) if limits[0] is None else min(n for n in limits if n is not None)
    return Lines(
        table, [_line(entry, table) for entry in entries[:most]], max(0, len(entries) - most)
    )


def _line(entry: Entry, table: ReportTable) -> Line:
    return Line(
        key="/".join(entry.key),
        name=entry.name,
        values={column.field: column.value(entry) for column in table.columns},
        at_least=entry.at_least,
        band=entry.band,
        total=entry.total,
    )


# --- charts ---


def timeline(tally: Tally, slots: int = MAX_BUCKETS) -> OverTime:
    """The timeline in at most `slots` points of time, those without traffic among them."""
    rows = tally["timeline"]
    assert isinstance(rows, Timeline)
    number = rows.number
    found = {(int(start), name): row for (start, name), row in rows.items() if name in SERIES}
    if not found:
        return OverTime(WIDTHS[number], [], {}, [])
    earliest, latest = min(found)[0], max(found)[0]
    width = next((w for w in WIDTHS[number:] if latest // w - earliest // w < slots), WIDTHS[-1])
    while latest // width - earliest // width >= slots:  # a log may say anything
        width *= 2
    first = earliest - earliest % width
    starts = list(range(first, latest + 1, width))
    columns = {name: [0] * len(starts) for name in SERIES}
    unsuccessful = [0] * len(starts)
    for (start, name), row in found.items():
        columns[name][(start - first) // width] += row.count
        unsuccessful[(start - first) // width] += row.unsuccessful
    series = {name: column for name, column in columns.items() if any(column)}
    return OverTime(width, starts, series, unsuccessful)


def durations(tally: Tally) -> list[Bar]:
    """How the durations of all flows are distributed."""
    bars: dict[int, int] = {}
    for bucket, count in tally.total().duration.filled():
        number = -(-bucket // BUCKETS_OF_A_BAR)
        bars[number] = bars.get(number, 0) + count
    if not bars:
        return []
    return [
        Bar(_limit(number - 1), _limit(number), bars.get(number, 0))
        for number in range(min(bars), max(bars) + 1)
    ]


def _limit(bar: int) -> float:
    """Where a bar ends, in ms."""
    return FIRST * GROWTH ** (bar * BUCKETS_OF_A_BAR) / 1000 if bar >= 0 else 0.0
