"""Reads plain records of a log many at once.

Most lines of a log are plain HTTP exchanges (`encoding.PLAIN`). Reading one as JSON and counting it
costs several times what it costs to recognise it; so the plain lines of a block are taken apart
into columns, sorted by what they have in common, and counted many at once. The outcome is that of
`Tally.add` for each line.
"""

from __future__ import annotations

from collections import Counter
from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from heapq import nlargest
from typing import Any

from .encoding import PLAIN_FIELDS
from .encoding import decode
from .tally import EXAMPLES
from .tally import SLOWEST
from .tally import Histogram
from .tally import Row
from .tally import Tally
from .tally import endpoint_name
from .tally import fold_many
from .tally import place as place_of
from .valid import check
from .vocabulary import UNSUCCESSFUL

MAX_KNOWN = 30_000
"""How many endpoints are known at a time; a new one has to be looked at."""
MAX_HELD = 100_000
"""How many lines are held back before they are counted."""

PlainLine = tuple[bytes, ...]
"""What PLAIN_LINE finds in a line."""
Record = dict[str, Any]
_TARGET = '","url":"'
"""What stands between method and URL."""


class Times:
    """Times in microseconds: their buckets, sum and maximum."""

    __slots__ = ("buckets", "longest", "total")

    def __init__(self) -> None:
        self.buckets: list[int] = []
        self.total = 0
        self.longest = 0

    def add(self, times: Sequence[int], buckets: Iterable[int]) -> None:
        """Take in times and their buckets."""
        self.buckets += buckets
        self.total += sum(times)
        self.longest = max(self.longest, *times)

    def merge(self, other: Times) -> None:
        """Take in other times."""
        self.buckets += other.buckets
        self.total += other.total
        self.longest = max(self.longest, other.longest)


class Group:
    """Lines with the same tag, host and port that are not counted yet."""

    __slots__ = ("durations", "flows", "received", "record", "sent", "waits")

    def __init__(self, record: Record) -> None:
        self.record = record
        """The first of them."""
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.flows = 0
        self.sent = 0
        self.received = 0
        self.waits = Times()
        self.durations = Times()


class Alike:
    """The plain lines of a session."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._targets: dict[bytes, tuple[Row, str]] = {}
        """Method with folded URL → the endpoint's row, and the method."""
        self._groups: dict[tuple[bytes, bytes], Group] = {}
        """Tag, host and port → lines."""
        self._held = 0

    def add(
        self, lines: Sequence[PlainLine], positions: Sequence[int], others: Mapping[int, Record]
    ) -> None:
        """Take in lines. `positions`: where they are among all, ascending. `others`: position →
        record that is not plain, to be counted with them.

        Raises: ValueError, if one is not what it seems, and then takes in none.
        """
        columns = Columns(lines)
        for key, numbers in columns.groups.items():
            if key not in self._groups and not _is_plain(columns.record(numbers[0]), key[0]):
                raise ValueError("the tag says more than it should")
        self._admit(columns, positions, others)

        tally = self._tally
        endpoints, methods = zip(*map(self._targets.__getitem__, columns.targets), strict=True)
        for method, count in Counter(methods).items():
            tally.methods("http").count(method, count)
        columns.count_each(endpoints)
        bands = {tag: columns.record(number)["band"] for tag, number in columns.first.items()}
        for (second, tag), count in columns.per_second.items():
            tally.add_time(f"{second.decode()}Z", bands[tag], count)
        tally.span(*columns.span)
        latest: defaultdict[bytes, list[int]] = defaultdict(list)
        for key, numbers in columns.groups.items():
            group = self._groups[key]
            columns.collect(numbers, group)
            if "error_code" in group.record:
                latest[key[0]] += numbers
                if group.record["error_code"] == UNSUCCESSFUL:
                    for number in numbers:
                        endpoints[number].unsuccessful += 1
        self._keep_examples(columns, latest)
        for record in others.values():
            tally.add(record)
        self._held += len(lines)
        if self._held > MAX_HELD:
            self.flush()

    def flush(self) -> None:
        """Count what is held back."""
        tally = self._tally
        held: dict[int, tuple[Row, Times, Times]] = {}
        for group in self._groups.values():
            if not group.flows:
                continue
            record, flows = group.record, group.flows
            unsuccessful = flows if record.get("error_code") == UNSUCCESSFUL else 0
            if (cause := tally.cause_of(record)) is not None:
                cause.count += flows
                cause.hosts.count(place_of(record), flows)
            for row in tally.add_alike(record, flows, group.sent, group.received):
                row.unsuccessful += unsuccessful
                _, waits, durations = held.setdefault(id(row), (row, Times(), Times()))
                waits.merge(group.waits)
                durations.merge(group.durations)
            group.clear()
        for row, waits, durations in held.values():
            row.wait.add_many(waits.buckets, waits.total, waits.longest)
            row.duration.add_many(durations.buckets, durations.total, durations.longest)
        self._held = 0
        if len(self._groups) > MAX_KNOWN:
            self._groups.clear()

    def _admit(
        self, columns: Columns, positions: Sequence[int], others: Mapping[int, Record]
    ) -> None:
        """Make sure of the rows, in the order of the lines: full tables hold what came first."""
        if len(self._targets) > MAX_KNOWN:
            self._targets.clear()
        expected: dict[int, Record] = {**others}
        for key, numbers in columns.groups.items():
            if key not in self._groups:
                record = columns.record(numbers[0])
                self._groups[key] = Group(record)
                expected[positions[numbers[0]]] = record
        unknown = {
            positions[number]: target
            for number, target in enumerate(columns.targets)
            if target not in self._targets
        }
        known = set()
        for position in sorted({*expected, *unknown}):
            if position in expected:
                self._tally.expect(expected[position])
            if (target := unknown.get(position)) is not None:
                method, _, url = target.decode().partition(_TARGET)
                if method not in known:
                    known.add(method)
                    self._tally.methods("http").count(method, 0)
                row = self._tally.endpoints[endpoint_name(method, url)]
                self._targets[target] = row, method

    def _keep_examples(self, columns: Columns, latest: Mapping[bytes, list[int]]) -> None:
        for numbers in latest.values():
            cause = self._tally.cause_of(columns.record(numbers[0]))
            if cause is not None:
                for number in columns.latest(numbers, EXAMPLES):
                    cause.add_example(columns.record(number))
        if self._tally.is_slow(max(columns.durations)):
            least = nlargest(SLOWEST, columns.durations)[-1]
            for number, duration in enumerate(columns.durations):
                if duration >= least and self._tally.is_slow(duration):
                    self._tally.add_slow(columns.record(number))


class Columns:
    """Plain lines, taken apart."""

    def __init__(self, lines: Sequence[PlainLine]) -> None:
        """Raises: ValueError, if one is not what it seems."""
        self._lines = lines
        columns = zip(*lines, strict=True)
        _, self._times, targets, places, sent, received, waits, durations, tags, _ = columns
        seconds = [time[:19] for time in self._times]
        for second in set(seconds):
            datetime.fromisoformat(second.decode())
        self.span = _text(min(self._times)[:24]), _text(max(self._times)[:24])
        self._sent, self._received = list(map(int, sent)), list(map(int, received))
        # Milliseconds with three decimals.
        self._waits = list(map(int, b" ".join(waits).replace(b".", b"").split()))
        self.durations = list(map(int, b" ".join(durations).replace(b".", b"").split()))
        self._wait_buckets = Histogram.indices(self._waits)
        self._duration_buckets = Histogram.indices(self.durations)
        self.per_second = Counter(zip(seconds, tags, strict=True))
        self.groups: defaultdict[tuple[bytes, bytes], list[int]] = defaultdict(list)
        """Tag, host and port → numbers of the lines."""
        for number, group in enumerate(zip(tags, places, strict=True)):
            self.groups[group].append(number)
        self.first: dict[bytes, int] = {}
        """Tag → number of its first line."""
        for (tag, _), numbers in self.groups.items():
            self.first.setdefault(tag, numbers[0])
        self.targets = fold_many(targets)
        """Method with URL, folded."""
        for number, target in enumerate(targets):
            if b"\\" in target:
                data = _data(b'"method":"%b"' % target)
                self.targets[number] = _TARGET.join((data["method"], data["url"])).encode()

    def record(self, number: int) -> Record:
        """A line's record, as far as it is counted. Raises: ValueError."""
        session, time, target, place, *_, tag, _ = self._lines[number]
        return {
            "type": "flow",
            "session": _text(session),
            **_data(b'"time":"%b"' % time),
            "kind": "http",
            **_data(b'"method":"%b",%b' % (target, place)),
            "request_bytes": self._sent[number],
            "response_bytes": self._received[number],
            "wait_ms": self._waits[number] / 1000,
            "duration_ms": self.durations[number] / 1000,
            **_data(tag),
        }

    def count_each(self, rows: Iterable[Row]) -> None:
        """Add each line to a row, but for `unsuccessful` and `wait`."""
        columns = zip(
            rows,
            self._sent,
            self._received,
            self.durations,
            self._duration_buckets,
            strict=True,
        )
        for row, sent, received, duration, bucket in columns:
            row.flows += 1
            row.request_bytes += sent
            row.response_bytes += received
            row.duration.add(duration, bucket)

    def collect(self, numbers: Sequence[int], group: Group) -> None:
        """Add some lines to a group."""
        group.flows += len(numbers)
        group.sent += sum([self._sent[number] for number in numbers])
        group.received += sum([self._received[number] for number in numbers])
        group.waits.add(
            [self._waits[number] for number in numbers],
            [self._wait_buckets[number] for number in numbers],
        )
        group.durations.add(
            [self.durations[number] for number in numbers],
            [self._duration_buckets[number] for number in numbers],
        )

    def latest(self, numbers: Iterable[int], count: int) -> list[int]:
        """Of some lines, the numbers of the latest; of the same time, the last ones."""
        latest = nlargest(count, [(self._times[number], number) for number in numbers])
        return sorted(number for _, number in latest)


def _is_plain(record: Record, tag: bytes) -> bool:
    """Whether a line is what it looks like: a foreign tag may name a field twice."""
    seems = record["outcome"] == "status" and PLAIN_FIELDS.isdisjoint(_data(tag))
    return seems and not check(record)


def _data(fields: bytes) -> Record:
    """Some fields of a line, as data. Raises: ValueError."""
    data: Record = decode(b"{%b}" % fields)
    return data


def _text(content: bytes) -> str:
    """What stands between the quotes of a string. Raises: ValueError."""
    return str(decode(b'"%b"' % content)) if b"\\" in content else content.decode()
