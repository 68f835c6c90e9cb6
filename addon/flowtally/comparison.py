"""Compares two tallies: what a change fixed, and what it broke. Pure.

Two sessions are rarely of one size, so counts are compared as shares. What differs is held against
what chance does to two sessions of the same kind (`chance.py`). The tests take flows for
independent of one another, which they are not quite, so the threshold is strict; and what is small
is no difference however certain it is.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from typing import Any
from typing import Literal

from .chance import Proportion
from .chance import chance
from .chance import slower
from .examples import describe
from .histogram import PERCENTILES
from .rows import OTHER
from .rows import Key
from .rows import Row
from .rows import Rows
from .tally import Tally
from .tally import Totals
from .tally import endpoint
from .vocabulary import ERROR_BANDS
from .vocabulary import ERRORS
from .vocabulary import Why
from .vocabulary import advice
from .vocabulary import band_of

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
Direction = Literal["appeared", "vanished", "more", "fewer"]
COMPARED = {name: PERCENTILES[name] for name in ("p50", "p95")}
"""The percentiles that are compared."""


@dataclass(frozen=True, slots=True)
class Change:
    """A count that is another one after than before."""

    name: str
    """A cause, status code, error code, host (with its port unless that is usual) or endpoint, as
    the log has it: not fit for a terminal."""
    direction: Direction
    before: Proportion
    after: Proportion
    p: float
    """How probable such a difference is between two alike sessions."""
    clear: bool
    """It is beyond chance; what is not is listed if it appeared or vanished, see `ALPHA_LISTED`."""
    error_code: int | None = None
    """Of a cause, and of a status code among the problems (-3)."""
    reason: str = ""
    """Of a cause."""
    description: str = ""
    """Of a status code and an error code."""
    called: bool = True
    """Of a problem that vanished: its endpoints, or hosts, had traffic after. If not, nobody
    tried whether it is fixed."""
    latest: str = ""
    """Of a problem that is there after: its latest example, as the log has it."""

    @property
    def advice(self) -> str:
        """What to do about a cause."""
        return advice(Why(self.name, self.reason))

    def to_data(self) -> dict[str, Any]:
        """For JSON; what has no value is left out."""
        data = {
            "name": self.name,
            "reason": self.reason,
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
        """For JSON; times in ms."""
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
        """For JSON: a list of objects for each side, as no name of a field may be data."""
        return {
            "appeared": [{"name": name, "count": count} for name, count in self.appeared],
            "vanished": [{"name": name, "count": count} for name, count in self.vanished],
            "complete": self.complete,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between two tallies. Of each kind, what is clear and large comes first."""

    before: Totals
    after: Totals
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
        """For JSON: `schema`, `different`, `before` and `after` (`Totals`); lists of `Change`:
        `problems`, `error_codes`, `status_codes`, `hosts`, `endpoints`; `durations` (`Shift`);
        `traffic`: `hosts` and `endpoints` (`Traffic`)."""
        return {
            "schema": SCHEMA,
            "different": self.different,
            "before": self.before._asdict(),
            "after": self.after._asdict(),
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
    old, new = before.totals(), after.totals()
    return Comparison(
        before=old,
        after=new,
        problems=_problems(before, after, old.attempts, new.attempts),
        error_codes=_error_codes(before, after, old.attempts, new.attempts),
        status_codes=_status_codes(before, after),
        hosts=_failing(before["hosts"], after["hosts"]),
        endpoints=_failing(before["endpoints"], after["endpoints"]),
        durations=_durations(before, after),
        traffic_hosts=_traffic(before["hosts"], after["hosts"]),
        traffic_endpoints=_traffic(before["endpoints"], after["endpoints"]),
    )


# --- tables of counts ---

_Name = tuple[int | None, str, str]
"""Error code, where it belongs to the name; name; reason, of a cause."""
_Pairs = Mapping[_Name, tuple[Proportion, Proportion]]


def _changes(
    pairs: _Pairs, listed: Callable[[str, Proportion, Proportion], bool]
) -> tuple[Change, ...]:
    """The pairs that differ. `listed`: whether what appeared or vanished, given its name and both
    sides, is among them even if that may be chance."""
    there = {key: pair for key, pair in pairs.items() if pair[0].count or pair[1].count}
    found = []
    for (error_code, name, reason), (before, after) in there.items():
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
        found.append(Change(name, direction, before, after, p, clear, error_code, reason))
    found.sort(key=lambda c: (not c.clear, -abs(c.after.share - c.before.share), c.name, c.reason))
    return tuple(found)


def _always(_name: str, _before: Proportion, _after: Proportion) -> bool:
    return True


def _is_problem(code: str, _before: Proportion, _after: Proportion) -> bool:
    return band_of(code) in ERROR_BANDS


def _flipped(_name: str, before: Proportion, after: Proportion) -> bool:
    """Whether all was well on one side and nothing on the other, if only once."""
    return {before.share, after.share} == {0.0, 1.0} and before.of > 0 and after.of > 0


def _changed(one: float, other: float) -> bool:
    return max(one, other) >= MIN_CHANGE * min(one, other)


def _paired(
    before: Mapping[_Name, int], after: Mapping[_Name, int], of_before: int, of_after: int
) -> dict[_Name, tuple[Proportion, Proportion]]:
    """Counts of both sides that are shares of the same wholes."""
    return {
        key: (Proportion(before.get(key, 0), of_before), Proportion(after.get(key, 0), of_after))
        for key in {**before, **after}
    }


def _problems(before: Tally, after: Tally, of_before: int, of_after: int) -> tuple[Change, ...]:
    old, new = _causes(before), _causes(after)
    pairs = _paired(
        {key: row.problems for key, row in old.items()},
        {key: row.problems for key, row in new.items()},
        of_before,
        of_after,
    )
    for key in old.keys() ^ new.keys():
        lacking = after if key in old else before
        if lacking["causes"].may_hide((str(key[0]), *key[1:])):
            del pairs[key]  # it may be there under (other)
    changes = _changes(pairs, _always)
    return tuple(
        _explained(change, old.get(key), new.get(key), before, after)
        for change in changes
        for key in [(change.error_code, change.name, change.reason)]
    )


def _explained(
    change: Change, old: Row | None, new: Row | None, before: Tally, after: Tally
) -> Change:
    description = _description(change.name, before, after)
    called = True
    if change.direction == "vanished" and old is not None:
        called = _is_called(change, old, before, after)
    latest = describe(new.examples[-1]) if new and new.examples else ""
    return replace(change, description=description, called=called, latest=latest)


def _causes(tally: Tally) -> dict[_Name, Row]:
    return {
        (int(code), cause, reason): row
        for (code, cause, reason), row in tally["causes"].items()
        if code not in ("", OTHER) and OTHER not in (cause, reason)
    }


def _is_called(change: Change, old: Row, before: Tally, after: Tally) -> bool:
    """Whether what had a problem has traffic after: one of the endpoints that are known, or, where
    none is, one of the hosts."""
    endpoints = {(endpoint(example),) for example in old.examples if "url" in example}
    if endpoints:
        return (OTHER,) in after["endpoints"] or not endpoints.isdisjoint(after["endpoints"])
    cause = str(change.error_code), change.name, change.reason
    hosts = {key[-1:] for key in before["incidents"] if key[:3] == cause}
    hosts = hosts or {(OTHER,)}  # the table was full
    return not hosts.isdisjoint({(OTHER,), *after["hosts"]})


def _description(code: str, before: Tally, after: Tally) -> str:
    return after.description(code) or before.description(code)


def _error_codes(before: Tally, after: Tally, of_before: int, of_after: int) -> tuple[Change, ...]:
    def totals(tally: Tally) -> dict[_Name, int]:
        found: dict[_Name, int] = {}
        for (code, *_), row in tally["causes"].items():
            if code not in ("", OTHER):
                found[None, code, ""] = found.get((None, code, ""), 0) + row.problems
        return dict(sorted(found.items()))

    changes = _changes(_paired(totals(before), totals(after), of_before, of_after), _always)
    named = {str(code): error.name for code, error in ERRORS.items()}
    return tuple(replace(change, description=named.get(change.name, "")) for change in changes)


def _status_codes(before: Tally, after: Tally) -> tuple[Change, ...]:
    def totals(tally: Tally) -> dict[_Name, int]:
        return {
            (None, code, ""): row.flows
            for (_, code), row in tally["codes"].items()
            if code != OTHER
        }

    pairs = _paired(totals(before), totals(after), before.flows, after.flows)
    changes = _changes(pairs, _is_problem)
    return tuple(
        replace(change, description=_description(change.name, before, after)) for change in changes
    )


def _failing(before: Rows, after: Rows) -> tuple[Change, ...]:
    both = (before.keys() & after.keys()) - {(OTHER,)}
    pairs: _Pairs = {
        (None, name, ""): (_bad(before[name,]), _bad(after[name,])) for (name,) in both
    }
    return _changes(pairs, _flipped)


def _bad(row: Row) -> Proportion:
    return Proportion(row.problems, row.count)


def _traffic(before: Rows, after: Rows) -> Traffic:
    lost_before, lost_after = (OTHER,) in before, (OTHER,) in after
    return Traffic(
        () if lost_before else _only(after, before),
        () if lost_after else _only(before, after),
        not lost_before and not lost_after,
    )


def _only(rows: Rows, others: Rows) -> tuple[tuple[str, int], ...]:
    counts = ((key[0], rows[key].count) for key in rows.keys() - others.keys() - {(OTHER,)})
    return tuple(sorted(counts, key=lambda item: (-item[1], item[0])))


# --- times ---


def _durations(before: Tally, after: Tally) -> tuple[Shift, ...]:
    old_bands: dict[Key, Row] = {(band,): row for band, row, _ in before.bands()}
    new_bands: dict[Key, Row] = {(band,): row for band, row, _ in after.bands()}
    return (
        *_shifts("all", {("",): before.total()}, {("",): after.total()}),
        *_shifts("band", old_bands, new_bands),
        *_shifts("host", before["hosts"], after["hosts"]),
        *_shifts("endpoint", before["endpoints"], after["endpoints"]),
    )


def _shifts(
    table: Literal["all", "band", "host", "endpoint"],
    before: Mapping[Key, Row],
    after: Mapping[Key, Row],
) -> list[Shift]:
    pairs = {
        key[0]: (before[key].duration, after[key].duration)
        for key in sorted((before.keys() & after.keys()) - {(OTHER,)})
        if min(before[key].duration.count, after[key].duration.count) >= MIN_SAMPLES
    }
    found = []
    for name, (old, new) in pairs.items():
        was, now = old.percentiles(), new.percentiles()
        for percentile, share in COMPARED.items():
            one, other = was[percentile], now[percentile]
            if abs(other - one) < MIN_MS or not _changed(one, other):
                continue
            slow_before, slow_after = slower(old, new, share)
            p = chance(slow_before, slow_after)
            same_way = (slow_after.share > slow_before.share) == (other > one)
            if same_way and p < ALPHA / (len(pairs) * len(COMPARED)):
                found.append(Shift(table, name, percentile, one, other, old.count, new.count, p))
    found.sort(key=lambda shift: (-_ratio(shift), shift.name, shift.percentile))
    return found


def _ratio(shift: Shift) -> float:
    least = max(min(shift.before, shift.after), 0.001)
    return max(shift.before, shift.after) / least
