"""Compares two tallies: what a change fixed, and what it broke. Pure.

Two sessions are rarely of one size, so counts are compared as shares. What differs is held against
what chance does to two sessions of the same kind (`chance.py`), where requests that came together
share their fate (`dependence.py`). Nothing is said to be certain by itself: all that is tested is
judged at once. And what is small is no difference however certain it is.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from typing import Literal
from typing import NamedTuple

from .blocks import Block
from .blocks import Blocks
from .chance import Proportion
from .chance import chance
from .chance import least_chance
from .chance import limit_of_chance
from .chance import ranks
from .dependence import LEAN_OF_TIMES
from .dependence import Scatter
from .dependence import design_effects
from .dependence import of_parts
from .dependence import of_shares
from .dependence import of_times
from .differences import Change
from .differences import Comparison
from .differences import Direction
from .differences import End
from .differences import Seen
from .differences import Shift
from .differences import Traffic
from .examples import describe
from .histogram import Histogram
from .rows import OTHER
from .rows import Key
from .rows import Row
from .rows import Rows
from .tally import Tally
from .tally import endpoint
from .tally import id_of_row
from .vocabulary import ERROR_BANDS
from .vocabulary import ERRORS
from .vocabulary import band_of

ALPHA = 0.05
"""Which part of the differences that are said to be beyond chance may be chance
(Benjamini-Hochberg, over all that is tested). Of two alike
sessions, how often anything is said to differ.

A problem that appeared or vanished is listed anyway, as a single new 500 is worth a line; so is an
endpoint that always failed on one side and never on the other. Unless it is beyond chance, the line
says that it is not."""
MIN_CHANGE = 1.1
"""A share or a time changed if the larger is at least so many times the smaller. In a large session
a difference can be certain and mean nothing; a percentile is only known within 2 %."""
MIN_MS = 5.0
"""A time changed if it did by so much: nobody notices less, and a busy machine does it."""
MIN_SAMPLES = 20
"""With fewer times on a side nothing is said about times; a p95 of fewer would be the maximum."""
COMPARED = ("p50", "p95")
"""The percentiles that are compared."""


def compare(before: Tally, after: Tally) -> Comparison:
    """What is different in `after`."""
    old, new = _Side(before), _Side(after)
    problems, error_codes = _problems(old, new), _error_codes(old, new)
    status_codes = _status_codes(old, new)
    hosts, endpoints = _failing(old, new, "hosts"), _failing(old, new, "endpoints")
    durations = _durations(old, new)
    traffic_hosts, traffic_endpoints = _traffic(old, new, "hosts"), _traffic(old, new, "endpoints")
    # All that may be said is judged at once, so nothing is said before all of it is tested.
    counts = (problems, error_codes, status_codes, hosts, endpoints)
    lonely = (traffic_hosts, traffic_endpoints)
    limit = limit_of_chance(
        [
            *(test.p for tests in (*counts, *lonely) for test in tests.values() if test.telling),
            *(shift.p for shift in durations),
        ],
        ALPHA,
    )
    return Comparison(
        before=old.totals,
        after=new.totals,
        problems=_explained(_changes(problems, limit, _always), before, after),
        error_codes=tuple(
            replace(change, description=_ERROR_NAMES.get(change.name, ""))
            for change in _changes(error_codes, limit, _always)
        ),
        status_codes=tuple(
            replace(change, description=_description(change.name, before, after))
            for change in _changes(status_codes, limit, _is_problem)
        ),
        hosts=_changes(hosts, limit, _flipped),
        endpoints=_changes(endpoints, limit, _flipped),
        durations=_shifts(durations, limit),
        traffic_hosts=_lonely(traffic_hosts, limit, before["hosts"], after["hosts"]),
        traffic_endpoints=_lonely(
            traffic_endpoints, limit, before["endpoints"], after["endpoints"]
        ),
    )


class _Side:
    """One of the two tallies, and what is needed of it more than once."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.totals = tally.totals()
        self.total = tally.total()
        self.rows: dict[str, Mapping[Key, Row]] = {
            "all": {("",): self.total},
            "band": {(band,): row for band, row, _ in tally.bands()},
            "host": tally["hosts"],
            "endpoint": tally["endpoints"],
        }
        """What a `Shift` can be of, its rows by name."""

    def scatter(self, part: Blocks, count: Callable[[Block], int]) -> Scatter:
        """Of something as a share of the whole."""
        return of_parts(part, self.total.blocks, count)


def _count(block: Block) -> int:
    return block.flows


def _problems_of(block: Block) -> int:
    return block.problems


# --- tables of counts ---

_Name = tuple[int | None, str, str]
"""Error code, where it belongs to the name; name; reason, of a cause."""


class _Test(NamedTuple):
    """Two shares, and whether they are of one kind."""

    before: Proportion
    after: Proportion
    design_effect: float
    p: float
    telling: bool
    """It could have said something, had all hits been on one side."""


def _tested(
    pairs: Mapping[_Name, tuple[Proportion, Proportion]],
    old: Mapping[_Name, Scatter],
    new: Mapping[_Name, Scatter],
) -> dict[_Name, _Test]:
    """Each pair in which anything was counted. `old`, `new`: how far the blocks of time of either
    side differ in it."""
    effects = design_effects(old, new)
    found = {}
    for name, (before, after) in pairs.items():
        if before.count or after.count:
            effect = effects.get(name, 1.0)
            worth = before.effective(effect), after.effective(effect)
            telling = least_chance(*worth) <= ALPHA
            found[name] = _Test(before, after, effect, chance(*worth), telling)
    return found


def _changes(
    tests: Mapping[_Name, _Test],
    limit: float,
    listed: Callable[[str, Proportion, Proportion], bool],
) -> tuple[Change, ...]:
    """The pairs that differ. `limit`: up to which p that is beyond chance. `listed`: whether what
    appeared or vanished, given its name and both sides, is among them even if that may be
    chance."""
    found = []
    for (error_code, name, reason), (before, after, effect, p, telling) in tests.items():
        clear = telling and p <= limit and _changed(before.share, after.share)
        direction: Direction
        if before.count and after.count:
            direction = "more" if after.share > before.share else "fewer"
        else:
            direction = "vanished" if before.count else "appeared"
        if clear or (direction in ("appeared", "vanished") and listed(name, before, after)):
            found.append(
                Change(name, direction, before, after, p, clear, effect, error_code, reason)
            )
    found.sort(key=_order)
    return tuple(found)


def _order(change: Change) -> tuple[Any, ...]:
    effect = abs(change.after.share - change.before.share)
    return not change.clear, not change.worse, -effect, change.name, change.reason


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


def _problems(old: _Side, new: _Side) -> dict[_Name, _Test]:
    before, after = _causes(old.tally), _causes(new.tally)
    pairs = _paired(
        {key: row.problems for key, row in before.items()},
        {key: row.problems for key, row in after.items()},
        old.totals.attempts,
        new.totals.attempts,
    )
    for key in before.keys() ^ after.keys():
        lacking = (new if key in before else old).tally
        if lacking["causes"].may_hide((str(key[0]), *key[1:])):
            del pairs[key]  # it may be there under (other)
    return _tested(
        pairs,
        {key: old.scatter(row.blocks, _problems_of) for key, row in before.items()},
        {key: new.scatter(row.blocks, _problems_of) for key, row in after.items()},
    )


def _explained(changes: Iterable[Change], before: Tally, after: Tally) -> tuple[Change, ...]:
    """With what is known of problems beyond their counts."""
    old, new = _causes(before), _causes(after)
    ids = _incidents(before, after)
    found = []
    for change in changes:
        key = (change.error_code, change.name, change.reason)
        was, now = old.get(key), new.get(key)
        found.append(
            replace(
                change,
                description=_description(change.name, before, after),
                end="fixed" if was is None else _end(change, was, before, after),
                latest=describe(now.examples[-1]) if now and now.examples else "",
                incidents=tuple(ids.get(key, ())),
            )
        )
    return tuple(found)


def _incidents(before: Tally, after: Tally) -> dict[_Name, list[str]]:
    """Problem → the ids of its incidents on either side, the largest first."""
    counts: dict[_Name, dict[str, int]] = {}
    for tally in (before, after):
        for key, row in tally["incidents"].items():
            code, cause, reason = key[:3]
            if (id := id_of_row(key)) and row.problems:
                of = counts.setdefault((int(code), cause, reason), {})
                of[id] = of.get(id, 0) + row.problems
    return {name: sorted(of, key=lambda id: (-of[id], id)) for name, of in counts.items()}


def _causes(tally: Tally) -> dict[_Name, Row]:
    return {
        (int(code), cause, reason): row
        for (code, cause, reason), row in tally["causes"].items()
        if code not in ("", OTHER) and OTHER not in (cause, reason)
    }


def _end(change: Change, old: Row, before: Tally, after: Tally) -> End:
    """What became of what had a problem: of the endpoints that are known, or, where none is, of the
    hosts."""
    table = "endpoints"
    places: set[Key] = {(endpoint(each),) for each in old.examples if "url" in each}
    if not places:
        cause = str(change.error_code), change.name, change.reason
        table, places = "hosts", {key[-1:] for key in before["incidents"] if key[:3] == cause}
    now = _share(places, after[table])
    if now is None:
        # What is not named there may be under (other); without places, nobody knows what had it.
        known = places and (OTHER,) not in after[table].keys() | places
        return "not called again" if known else "fixed"
    return "fails otherwise" if now and now >= (_share(places, before[table]) or 0) else "fixed"


def _share(places: Iterable[Key], rows: Rows) -> float | None:
    """How much of what came there went wrong; None where nothing came."""
    found = [rows[place] for place in places if place in rows]
    count = sum(row.count for row in found)
    return sum(row.problems for row in found) / count if count else None


def _description(code: str, before: Tally, after: Tally) -> str:
    return after.description(code) or before.description(code)


_ERROR_NAMES = {str(code): error.name for code, error in ERRORS.items()}


def _error_codes(old: _Side, new: _Side) -> dict[_Name, _Test]:
    def totals(side: _Side) -> dict[_Name, Row]:
        rows = side.tally["causes"]
        found: dict[_Name, Row] = {}
        for (code, *_), row in sorted(rows.items()):
            if code not in ("", OTHER):
                found.setdefault((None, code, ""), Row(rows.table)).merge(row, rows.table)
        return found

    before, after = totals(old), totals(new)
    return _tested(
        _paired(
            {key: row.problems for key, row in before.items()},
            {key: row.problems for key, row in after.items()},
            old.totals.attempts,
            new.totals.attempts,
        ),
        {key: old.scatter(row.blocks, _problems_of) for key, row in before.items()},
        {key: new.scatter(row.blocks, _problems_of) for key, row in after.items()},
    )


def _status_codes(old: _Side, new: _Side) -> dict[_Name, _Test]:
    def rows(side: _Side) -> dict[_Name, Row]:
        return {
            (None, code, ""): row for (_, code), row in side.tally["codes"].items() if code != OTHER
        }

    before, after = rows(old), rows(new)
    return _tested(
        _paired(
            {key: row.flows for key, row in before.items()},
            {key: row.flows for key, row in after.items()},
            old.totals.flows,
            new.totals.flows,
        ),
        {key: old.scatter(row.blocks, _count) for key, row in before.items()},
        {key: new.scatter(row.blocks, _count) for key, row in after.items()},
    )


def _failing(old: _Side, new: _Side, table: str) -> dict[_Name, _Test]:
    """Of each host or endpoint with traffic on both sides, how much of it went wrong."""
    before, after = old.tally[table], new.tally[table]
    both = sorted((before.keys() & after.keys()) - {(OTHER,)})

    def scatters(rows: Rows) -> dict[_Name, Scatter]:
        return {(None, n, ""): of_shares(rows[n,].blocks.values(), _problems_of) for (n,) in both}

    pairs: dict[_Name, tuple[Proportion, Proportion]] = {
        (None, name, ""): (_bad(before[name,]), _bad(after[name,])) for (name,) in both
    }
    return _tested(pairs, scatters(before), scatters(after))


def _bad(row: Row) -> Proportion:
    return Proportion(row.problems, row.count)


def _traffic(old: _Side, new: _Side, table: str) -> dict[_Name, _Test]:
    """Hosts or endpoints that had traffic on one side only, where what the other had is known."""
    before, after = old.tally[table], new.tally[table]

    def alone(rows: Rows, others: Rows) -> dict[_Name, Row]:
        if (OTHER,) in others:
            return {}
        return {(None, n, ""): rows[n,] for (n,) in rows.keys() - others.keys() - {(OTHER,)}}

    only_before, only_after = alone(before, after), alone(after, before)
    return _tested(
        _paired(
            {key: row.count for key, row in only_before.items()},
            {key: row.count for key, row in only_after.items()},
            old.totals.attempts,
            new.totals.attempts,
        ),
        {key: old.scatter(row.blocks, _count) for key, row in only_before.items()},
        {key: new.scatter(row.blocks, _count) for key, row in only_after.items()},
    )


def _lonely(tests: Mapping[_Name, _Test], limit: float, before: Rows, after: Rows) -> Traffic:
    def seen(side: Callable[[_Test], Proportion]) -> tuple[Seen, ...]:
        found = [
            Seen(name, side(test).count, test.p, test.telling and test.p <= limit)
            for (_, name, _), test in tests.items()
            if side(test).count
        ]
        return tuple(sorted(found, key=lambda each: (not each.clear, -each.count, each.name)))

    complete = (OTHER,) not in before and (OTHER,) not in after
    return Traffic(seen(lambda test: test.after), seen(lambda test: test.before), complete)


# --- times ---


_TABLES: tuple[Literal["all", "band", "host", "endpoint"], ...]
_TABLES = ("endpoint", "host", "all", "band")
"""What times are compared of; what says most precisely where to look comes first."""


class _Ranked(NamedTuple):
    """Times of both sides, and whether they are of one kind."""

    table: Literal["all", "band", "host", "endpoint"]
    name: str
    before: Histogram
    after: Histogram
    longer: float
    p: float
    design_effect: float


def _durations(old: _Side, new: _Side) -> list[_Ranked]:
    found = []
    for table in _TABLES:
        before, after = old.rows[table], new.rows[table]
        both = {
            key: (before[key], after[key])
            for key in sorted((before.keys() & after.keys()) - {(OTHER,)})
            if min(before[key].duration.count, after[key].duration.count) >= MIN_SAMPLES
        }
        effects = design_effects(
            {key: of_times(row.blocks.values(), row.duration) for key, (row, _) in both.items()},
            {key: of_times(row.blocks.values(), row.duration) for key, (_, row) in both.items()},
            LEAN_OF_TIMES,
        )
        for key, (was, now) in both.items():
            longer, p = ranks(was.duration, now.duration, effects[key])
            found.append(
                _Ranked(table, key[0], was.duration, now.duration, longer, p, effects[key])
            )
    return found


def _shifts(tests: Iterable[_Ranked], limit: float) -> tuple[Shift, ...]:
    """The percentiles that moved the way in which the times as a whole did beyond chance."""
    found = []
    for table, name, old, new, longer, p, effect in tests:
        if p > limit:
            continue
        was, now = old.percentiles(), new.percentiles()
        for percentile in COMPARED:
            one, other = was[percentile], now[percentile]
            if abs(other - one) < MIN_MS or not _changed(one, other):
                continue
            if (other > one) == (longer > 0.5):
                found.append(
                    Shift(
                        table,
                        name,
                        percentile,
                        one,
                        other,
                        old.count,
                        new.count,
                        longer,
                        p,
                        effect,
                    )
                )
    found.sort(
        key=lambda shift: (
            not shift.slower,
            _TABLES.index(shift.table),
            -_ratio(shift),
            shift.name,
            shift.percentile,
        )
    )
    return tuple(found)


def _ratio(shift: Shift) -> float:
    least = max(min(shift.before, shift.after), 0.001)
    return max(shift.before, shift.after) / least
