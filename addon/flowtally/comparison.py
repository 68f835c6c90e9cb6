"""Compares two tallies: what a change mended, and what it broke. Pure.

Two sessions are rarely of one size, so counts are compared as shares. What differs is held against
what chance does to two sessions of the same kind:

- Shares, by Fisher's exact test (two-sided: twice the smaller tail), which holds for any counts,
  also those too small for a z-test.
- Times, by Mood's quantile test: is the share of flows that are slower than the common p50 (or p95)
  of both sessions another one before than after? That is a comparison of two shares again, it asks
  for nothing about the distribution, it needs no more than a histogram's buckets, and unlike a
  comparison of ranks (Mann-Whitney) it sees a tail that got longer.

Both take flows for independent of one another. They are not quite: what fails, fails in rows. So
the threshold is strict, and what is small is no difference however certain it is.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from math import erfc
from math import exp
from math import lgamma
from math import sqrt
from typing import Any
from typing import Literal

from .examples import describe
from .tally import OTHER
from .tally import CauseRow
from .tally import Histogram
from .tally import Row
from .tally import Tally
from .tally import band_of_key
from .tally import endpoint
from .vocabulary import CAUSES
from .vocabulary import ERRORS
from .vocabulary import UNSUCCESSFUL

SCHEMA = 1
"""Version of `Comparison.to_data`."""

ALPHA = 0.01
"""How probable it may be that a table of two alike sessions has any line that claims a difference.
Each of its rows gets an equal part of it (Bonferroni): among hundreds of hosts there is always one
that differs by chance."""
ALPHA_LISTED = 0.05
"""A problem that appeared or vanished is listed anyway, as a single new 500 is worth a line; so is
an endpoint that always failed on one side and never on the other. From this probability on the line
says that it may be chance; as it speaks of itself only, it is not held to a part of ALPHA."""
MIN_CHANGE = 1.1
"""A share or a time changed if the larger is at least so many times the smaller. In a large session
a difference can be certain and mean nothing; a percentile is only known within 2 %."""
MIN_MS = 5.0
"""A time changed if it did by so much: nobody notices less, and a busy machine does it."""
MIN_SAMPLES = 20
"""With fewer times on a side nothing is said about times; a p95 of fewer would be the maximum."""
LARGE_VARIANCE = 10_000
"""From this variance on, the normal distribution stands for the hypergeometric one: up to the sixth
standard deviation they are the same for all that is asked here, and the sum would get long."""

Direction = Literal["appeared", "vanished", "more", "fewer"]
PERCENTILES = (("p50", 0.50), ("p95", 0.95))
"""The percentiles that are compared."""


@dataclass(frozen=True, slots=True)
class Part:
    """So many of so many."""

    count: int
    of: int

    @property
    def share(self) -> float:
        """0 to 1; of nothing 0."""
        return self.count / self.of if self.of else 0.0

    def to_data(self) -> dict[str, Any]:
        """As plain data."""
        return {"count": self.count, "of": self.of, "share": round(self.share, 6)}


@dataclass(frozen=True, slots=True)
class Change:
    """A count that is another one after than before."""

    name: str
    """A cause, status code, error code, host or endpoint, as the log has it: not fit for a
    terminal."""
    direction: Direction
    before: Part
    after: Part
    p: float
    """How probable such a difference is between two alike sessions."""
    clear: bool
    """It is beyond chance. See `ALPHA_LISTED` for what is listed without being."""
    error_code: int | None = None
    """Of a cause, and of a status code among the problems (-3)."""
    description: str = ""
    """Of a status code and an error code."""
    called: bool = True
    """Of a problem that vanished: its endpoints, or hosts, had traffic after. If not, nobody
    tried whether it is mended."""
    latest: str = ""
    """Of a problem that is there after: its latest example, as the log has it."""

    @property
    def advice(self) -> str:
        """What to do about a cause."""
        return CAUSES[self.name].advice if self.name in CAUSES else ""

    def to_data(self) -> dict[str, Any]:
        """As plain data; what has no value is left out."""
        data = {
            "name": self.name,
            "error_code": self.error_code,
            "description": self.description,
            "change": self.direction,
            "before": self.before.to_data(),
            "after": self.after.to_data(),
            "p": self.p,
            "clear": self.clear,
            "called_again": self.called if self.direction == "vanished" else None,
            "advice": self.advice,
            "latest": self.latest,
        }
        return {name: value for name, value in data.items() if value not in ("", None)}


@dataclass(frozen=True, slots=True)
class Shift:
    """A percentile of the duration that is another one after than before."""

    table: Literal["all", "band", "host", "endpoint"]
    name: str
    """Of the band, host or endpoint; of `all` flows, ""."""
    percentile: str
    before: float
    """In ms."""
    after: float
    samples_before: int
    samples_after: int
    p: float
    """How probable such a difference is between two alike sessions."""

    @property
    def slower(self) -> bool:
        """Or else faster."""
        return self.after > self.before

    def to_data(self) -> dict[str, Any]:
        """As plain data; times in ms."""
        return {
            "table": self.table,
            "name": self.name,
            "percentile": self.percentile,
            "before_ms": self.before,
            "after_ms": self.after,
            "samples_before": self.samples_before,
            "samples_after": self.samples_after,
            "p": self.p,
        }


@dataclass(frozen=True, slots=True)
class Traffic:
    """Hosts or endpoints that had traffic on one side only, the busiest first."""

    appeared: tuple[tuple[str, int], ...]
    """Name → flows and failures without a flow."""
    vanished: tuple[tuple[str, int], ...]
    complete: bool
    """False: a side had more of them than a tally keeps, so that what is not on it is not known,
    and left out."""

    def to_data(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "appeared": [{"name": name, "count": count} for name, count in self.appeared],
            "vanished": [{"name": name, "count": count} for name, count in self.vanished],
            "complete": self.complete,
        }


@dataclass(frozen=True, slots=True)
class Side:
    """The totals of a tally."""

    flows: int
    failures: int
    unsuccessful: int
    events: int
    unfinished: int
    first: str
    """Time of the earliest flow or event, RFC 3339."""
    last: str

    @property
    def attempts(self) -> int:
        """Flows, and failures without one: what a share is of."""
        return self.flows + self.events

    def to_data(self) -> dict[str, Any]:
        """As plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between two tallies. Of each kind, what is clear and large comes first."""

    before: Side
    after: Side
    problems: tuple[Change, ...]
    """By error code and cause; of -3, by status code. Shares of flows and failures without a
    flow."""
    error_codes: tuple[Change, ...]
    """The same by error code alone."""
    status_codes: tuple[Change, ...]
    """Complete responses with a status code. Shares of flows."""
    hosts: tuple[Change, ...]
    """Hosts with traffic on both sides: failures, with and without a flow, and status 400 and up;
    shares of what each host had."""
    endpoints: tuple[Change, ...]
    """The same by endpoint."""
    durations: tuple[Shift, ...]
    traffic_hosts: Traffic
    traffic_endpoints: Traffic

    @property
    def different(self) -> bool:
        """Whether anything is listed."""
        traffic = (self.traffic_hosts, self.traffic_endpoints)
        return bool(
            self.problems
            or self.error_codes
            or self.status_codes
            or self.hosts
            or self.endpoints
            or self.durations
            or any(each.appeared or each.vanished for each in traffic)
        )

    def to_data(self) -> dict[str, Any]:
        """As plain data: `schema`, `different`, `before` and `after` (`Side`); lists of `Change`:
        `problems`, `error_codes`, `status_codes`, `hosts`, `endpoints`; `durations` (`Shift`);
        `traffic`: `hosts` and `endpoints` (`Traffic`)."""
        return {
            "schema": SCHEMA,
            "different": self.different,
            "before": self.before.to_data(),
            "after": self.after.to_data(),
            "problems": [change.to_data() for change in self.problems],
            "error_codes": [change.to_data() for change in self.error_codes],
            "status_codes": [change.to_data() for change in self.status_codes],
            "hosts": [change.to_data() for change in self.hosts],
            "endpoints": [change.to_data() for change in self.endpoints],
            "durations": [shift.to_data() for shift in self.durations],
            "traffic": {
                "hosts": self.traffic_hosts.to_data(),
                "endpoints": self.traffic_endpoints.to_data(),
            },
        }


def compare(before: Tally, after: Tally) -> Comparison:
    """What is different in `after`."""
    old, new = _side(before), _side(after)
    return Comparison(
        before=old,
        after=new,
        problems=_problems(before, after, old.attempts, new.attempts),
        error_codes=_error_codes(before, after, old.attempts, new.attempts),
        status_codes=_status_codes(before, after),
        hosts=_failing(before.hosts, after.hosts),
        endpoints=_failing(before.endpoints, after.endpoints),
        durations=_durations(before, after),
        traffic_hosts=_traffic(before.hosts, after.hosts),
        traffic_endpoints=_traffic(before.endpoints, after.endpoints),
    )


def _side(tally: Tally) -> Side:
    return Side(
        flows=tally.flows,
        failures=tally.failures,
        unsuccessful=sum(row.count for row in tally.errors.get(UNSUCCESSFUL, {}).values()),
        events=tally.events,
        unfinished=tally.outcomes["unfinished"],
        first=tally.first,
        last=tally.last,
    )


# --- tables of counts ---

_Key = tuple[int | None, str]
"""Error code, where it belongs to the name; name."""
_Pairs = Mapping[_Key, tuple[Part, Part]]


def _changes(pairs: _Pairs, listed: Callable[[str, Part, Part], bool]) -> tuple[Change, ...]:
    """The pairs that differ. `listed`: whether what appeared or vanished, given its name and both
    sides, is among them even if that may be chance."""
    there = {key: pair for key, pair in pairs.items() if pair[0].count or pair[1].count}
    found = []
    for (error_code, name), (before, after) in there.items():
        p = chance(before, after)
        clear = p < ALPHA / len(there) and _changed(before.share, after.share)
        direction: Direction
        if before.count and after.count:
            if not clear:
                continue
            direction = "more" if after.share > before.share else "fewer"
        else:
            if not clear and not listed(name, before, after):
                continue
            direction = "vanished" if before.count else "appeared"
            clear = p < ALPHA_LISTED
        found.append(Change(name, direction, before, after, p, clear, error_code))
    found.sort(key=lambda c: (not c.clear, -abs(c.after.share - c.before.share), c.name))
    return tuple(found)


def _always(_name: str, _before: Part, _after: Part) -> bool:
    return True


def _is_problem(code: str, _before: Part, _after: Part) -> bool:
    return band_of_key(code) in ("Client error", "Server error")


def _flipped(_name: str, before: Part, after: Part) -> bool:
    """Whether all was well on one side and nothing on the other, if only once."""
    return {before.share, after.share} == {0.0, 1.0} and before.of > 0 and after.of > 0


def _changed(one: float, other: float) -> bool:
    return max(one, other) >= MIN_CHANGE * min(one, other)


def _paired(
    before: Mapping[_Key, int], after: Mapping[_Key, int], of_before: int, of_after: int
) -> dict[_Key, tuple[Part, Part]]:
    """Counts of both sides that are shares of the same wholes."""
    return {
        key: (Part(before.get(key, 0), of_before), Part(after.get(key, 0), of_after))
        for key in {**before, **after}
    }


def _problems(before: Tally, after: Tally, of_before: int, of_after: int) -> tuple[Change, ...]:
    old, new = _causes(before), _causes(after)
    changes = _changes(
        _paired(
            {key: row.count for key, row in old.items()},
            {key: row.count for key, row in new.items()},
            of_before,
            of_after,
        ),
        _always,
    )
    return tuple(
        _explained(change, old.get(key), new.get(key), before, after)
        for change in changes
        for key in [(change.error_code, change.name)]
    )


def _explained(
    change: Change, old: CauseRow | None, new: CauseRow | None, before: Tally, after: Tally
) -> Change:
    description = ""
    if change.error_code == UNSUCCESSFUL:
        description = _description(change.name, before, after)
    return replace(
        change,
        description=description,
        called=change.direction != "vanished" or old is None or _called(old, after),
        latest=describe(new.examples[-1]) if new and new.examples else "",
    )


def _causes(tally: Tally) -> dict[_Key, CauseRow]:
    return {
        (code, cause): row
        for code, causes in tally.errors.items()
        for cause, row in causes.items()
        if cause != OTHER
    }


def _called(row: CauseRow, after: Tally) -> bool:
    """Whether what had a problem has traffic after: one of the endpoints that are known, or, where
    none is, one of the hosts."""
    with_url = (example for example in row.examples if isinstance(example.get("url"), str))
    endpoints = {endpoint(example) for example in with_url}
    if endpoints:
        return OTHER in after.endpoints or not endpoints.isdisjoint(after.endpoints)
    if OTHER in row.hosts or OTHER in after.hosts:
        return True
    hosts = {host.rpartition(":")[0] or host for host in row.hosts}
    return not hosts.isdisjoint(after.hosts) or not row.hosts.keys().isdisjoint(after.hosts)


def _description(code: str, before: Tally, after: Tally) -> str:
    return after.descriptions.get(code) or before.descriptions.get(code, "")


def _error_codes(before: Tally, after: Tally, of_before: int, of_after: int) -> tuple[Change, ...]:
    def totals(tally: Tally) -> dict[_Key, int]:
        return {
            (None, str(code)): sum(row.count for row in causes.values())
            for code, causes in tally.errors.items()
        }

    changes = _changes(_paired(totals(before), totals(after), of_before, of_after), _always)
    named = {str(code): error.name for code, error in ERRORS.items()}
    return tuple(replace(change, description=named.get(change.name, "")) for change in changes)


def _status_codes(before: Tally, after: Tally) -> tuple[Change, ...]:
    def totals(tally: Tally) -> dict[_Key, int]:
        codes = tally.codes.items()
        return {(None, code): row.flows for code, row in codes if not code.startswith(OTHER)}

    pairs = _paired(totals(before), totals(after), before.flows, after.flows)
    changes = _changes(pairs, _is_problem)
    return tuple(
        replace(change, description=_description(change.name, before, after)) for change in changes
    )


def _failing(before: Mapping[str, Row], after: Mapping[str, Row]) -> tuple[Change, ...]:
    both = (before.keys() & after.keys()) - {OTHER}
    pairs: _Pairs = {(None, name): (_bad(before[name]), _bad(after[name])) for name in both}
    return _changes(pairs, _flipped)


def _bad(row: Row) -> Part:
    return Part(row.failures + row.unsuccessful + row.events, row.flows + row.events)


def _traffic(before: Mapping[str, Row], after: Mapping[str, Row]) -> Traffic:
    return Traffic(
        () if OTHER in before else _only(after, before),
        () if OTHER in after else _only(before, after),
        OTHER not in before and OTHER not in after,
    )


def _only(rows: Mapping[str, Row], others: Mapping[str, Row]) -> tuple[tuple[str, int], ...]:
    names = rows.keys() - others.keys() - {OTHER}
    counts = ((name, rows[name].flows + rows[name].events) for name in names)
    return tuple(sorted(counts, key=lambda item: (-item[1], item[0])))


# --- times ---


def _durations(before: Tally, after: Tally) -> tuple[Shift, ...]:
    old_bands = {band: row for band, row, _ in before.bands()}
    new_bands = {band: row for band, row, _ in after.bands()}
    return (
        *_shifts("all", {"": _all(before.hosts)}, {"": _all(after.hosts)}),
        *_shifts("band", old_bands, new_bands),
        *_shifts("host", before.hosts, after.hosts),
        *_shifts("endpoint", before.endpoints, after.endpoints),
    )


def _all(hosts: Mapping[str, Row]) -> Row:
    total = Row()
    for row in hosts.values():
        total.duration.merge(row.duration)
    return total


def _shifts(
    table: Literal["all", "band", "host", "endpoint"],
    before: Mapping[str, Row],
    after: Mapping[str, Row],
) -> list[Shift]:
    pairs = {
        name: (before[name].duration, after[name].duration)
        for name in sorted((before.keys() & after.keys()) - {OTHER})
        if min(before[name].duration.count, after[name].duration.count) >= MIN_SAMPLES
    }
    found = []
    for name, (old, new) in pairs.items():
        was, now = old.percentiles(), new.percentiles()
        for percentile, share in PERCENTILES:
            one, other = was[percentile], now[percentile]
            if abs(other - one) < MIN_MS or not _changed(one, other):
                continue
            slow_before, slow_after = _slow(old, new, share)
            p = chance(slow_before, slow_after)
            same_way = (slow_after.share > slow_before.share) == (other > one)
            if same_way and p < ALPHA / (len(pairs) * len(PERCENTILES)):
                found.append(Shift(table, name, percentile, one, other, old.count, new.count, p))
    found.sort(key=lambda shift: (-_ratio(shift), shift.name, shift.percentile))
    return found


def _ratio(shift: Shift) -> float:
    least = max(min(shift.before, shift.after), 0.001)
    return max(shift.before, shift.after) / least


def _slow(before: Histogram, after: Histogram, share: float) -> tuple[Part, Part]:
    """How many are slower than the `share` quantile of both together, on either side. As the
    quantile serves the end of a bucket, the one that comes nearest."""
    old, new = dict(before.filled()), dict(after.filled())
    of_old, of_new = sum(old.values()), sum(new.values())
    best, passed_old, passed_new = (2.0, 0, 0), 0, 0
    for index in sorted(old.keys() | new.keys())[:-1]:
        passed_old += old.get(index, 0)
        passed_new += new.get(index, 0)
        distance = abs((passed_old + passed_new) / (of_old + of_new) - share)
        if distance < best[0]:
            best = (distance, passed_old, passed_new)
    return Part(of_old - best[1], of_old), Part(of_new - best[2], of_new)


# --- the test ---


def chance(one: Part, other: Part) -> float:
    """How probable it is that two shares of one common share differ as much as these (Fisher's
    exact test, two-sided: twice the smaller tail)."""
    # In one order whichever comes first, so that rounding is the same, too.
    one, other = sorted((one, other), key=lambda part: (part.of, part.count))
    total, hits = one.of + other.of, one.count + other.count
    if not one.of or not other.of or not 0 < hits < total:
        return 1.0
    mean = hits * one.of / total
    variance = mean * (1 - one.of / total) * (total - hits) / max(total - 1, 1)
    if variance > LARGE_VARIANCE:
        return erfc(abs(one.count - mean) / sqrt(2 * variance))
    return min(1.0, 2 * _tail(one.count, one.of, other.of, hits, one.count > mean))


def _tail(count: int, size: int, other_size: int, hits: int, upwards: bool) -> float:
    """How probable `count` or what is farther out is, when `hits` are drawn from `size` and
    `other_size` together."""
    count = max(min(count, size, hits), hits - other_size)  # a log may say nonsense
    rest = hits - count
    term = exp(
        min(
            0.0,
            _log_choose(size, count)
            + _log_choose(other_size, rest)
            - _log_choose(size + other_size, hits),
        )
    )
    total = term
    # Each term of the hypergeometric distribution from the one before; outwards they only shrink.
    while term > total * 1e-12:
        if upwards:
            term *= (size - count) * rest / ((count + 1) * (other_size - rest + 1))
            count, rest = count + 1, rest - 1
        else:
            term *= count * (other_size - rest) / ((size - count + 1) * (rest + 1))
            count, rest = count - 1, rest + 1
        total += term
    return total


def _log_choose(size: int, count: int) -> float:
    return lgamma(size + 1) - lgamma(count + 1) - lgamma(size - count + 1)
