"""Budgets: how much of what a session may have, and whether a tally keeps to it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from .examples import describe
from .incidents import Incident
from .incidents import incidents
from .report.tables import TIMES
from .rows import COUNTS
from .rows import OTHER
from .rows import Key
from .rows import Row
from .tally import UNFINISHED
from .tally import Tally
from .totals import Totals
from .vocabulary import BANDS
from .vocabulary import CAPTURE_INCOMPLETE
from .vocabulary import CAUSES
from .vocabulary import ERRORS
from .vocabulary import band
from .vocabulary import band_of
from .vocabulary import error_fields

Bound = Literal["max", "min"]

INCIDENTS = 3
"""How many incidents a budget shows at most."""
EXAMPLES = 5
"""How many of the slowest requests it shows at most."""

IN_PART = "a capture was read in part only"
"""What is said where `read_in_part`."""

UNREADABLE = "unreadable"
"""The total that is none of the statistics: lines of logs that were skipped."""
_WRONG = tuple(name for name in COUNTS if name not in ("flows", "request_bytes", "response_bytes"))
"""Of COUNTS, those that a cause can be shown for."""
TOTALS = (*(name for name in Totals._fields if name not in ("first", "last")), UNREADABLE)
"""What of a whole session can have a budget, see `Totals`."""

_NAMES = {name.casefold(): name for name in (*BANDS, *map(str, ERRORS), *CAUSES, *TOTALS, *TIMES)}
_NAMES |= {f"{digit}xx": name for digit, name in enumerate(BANDS, 1)}  # as filters have them
_STATUS = re.compile(r"[1-9][0-9]{2}")
"""A code that a response can have (RFC 9112 §4)."""
_INTEGER = re.compile(r"-?[0-9]{1,9}")
_COUNT = re.compile(r"[0-9]{1,15}")
_TIME = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?|\.[0-9]{1,9}")


class BudgetError(ValueError):
    """A budget that makes no sense; the message says what is wrong with it."""


class UnknownNameError(BudgetError):
    """A budget for something that has none."""


@dataclass(frozen=True, slots=True)
class Budget:
    """At most (`max`) or at least (`min`) so much of something."""

    name: str
    """A band, status code, error code, cause, total or time, as flowtally writes it."""
    bound: Bound
    limit: float
    """A whole number, or of a time milliseconds."""


@dataclass(frozen=True, slots=True)
class Result:
    """A budget and what a tally has of it."""

    budget: Budget
    actual: float | None
    """None: a time, and no flow has one."""
    holds: bool
    incidents: Sequence[Incident] = ()
    """Of a budget that is exceeded: what is behind it, most important first."""
    slowest: Sequence[str] = ()
    """Of one for a time: the slowest requests, as the log has them; not fit for a terminal."""
    note: str = ""
    """What else there is to know about `actual`."""

    @property
    def verdict(self) -> Literal["ok", "EXCEEDED", "MISSED"]:
        """What is said of it: a `max` that does not hold is EXCEEDED, a `min` MISSED."""
        if self.holds:
            return "ok"
        return "EXCEEDED" if self.budget.bound == "max" else "MISSED"


def names() -> dict[str, str]:
    """What can have a budget, by group, in words."""
    return {
        "bands": ", ".join(BANDS),
        "status codes": "100 to 999, and any that the log holds",
        "error codes": ", ".join(map(str, sorted(ERRORS, reverse=True))),
        "causes": ", ".join(CAUSES),
        "totals": ", ".join(TOTALS),
        "times": ", ".join(TIMES),
    }


# --- budgets from what somebody wrote ---


def parse(
    maxima: Iterable[str], minima: Iterable[str], codes: Collection[str] | None = None
) -> tuple[Budget, ...]:
    """The budgets of `NAME=NUMBER` texts.

    `codes`: the status codes of the log, see `status_codes`; None while they are not known, which
    lets any whole number pass for one. A budget that is given twice is one.

    Raises: BudgetError; UnknownNameError.
    """
    budgets: dict[tuple[str, Bound], Budget] = {}
    bounds: tuple[tuple[Bound, Iterable[str]], ...] = (("max", maxima), ("min", minima))
    for bound, texts in bounds:
        for text in texts:
            budget = _parse(text, bound, codes)
            other = budgets.setdefault((budget.name, bound), budget)
            if other != budget:
                raise BudgetError(
                    f"--{bound} {budget.name} is given twice, "
                    f"as {number(other.limit)} and as {number(budget.limit)}"
                )
    for budget in budgets.values():
        least = budgets.get((budget.name, "min"))
        if budget.bound == "max" and least is not None and least.limit > budget.limit:
            raise BudgetError(
                f"{budget.name} cannot be at least {number(least.limit)} "
                f"and at most {number(budget.limit)}"
            )
    return tuple(budgets.values())


def _parse(text: str, bound: Bound, codes: Collection[str] | None) -> Budget:
    option = f"--{bound} {text!r}"
    wanted, equals, limit = (part.strip() for part in text.rpartition("="))
    if not equals or not wanted:
        raise BudgetError(f"{option}: a budget is NAME=NUMBER, such as 'Server error=0'")
    name = _name(wanted, codes)
    if name is None:
        close = get_close_matches(wanted.casefold(), _NAMES, 1)
        suggestion = f" Did you mean {_NAMES[close[0]]!r}?" if close else ""
        raise UnknownNameError(f"{option}: there is no budget for {wanted!r}.{suggestion}")
    if name in TIMES:
        if not _TIME.fullmatch(limit):
            raise BudgetError(f"{option}: {limit!r} is no number of milliseconds, 0 or more")
    elif not _COUNT.fullmatch(limit):
        raise BudgetError(f"{option}: {limit!r} is no whole number, 0 or more")
    return Budget(name, bound, float(limit))


def _name(wanted: str, codes: Collection[str] | None) -> str | None:
    if _STATUS.fullmatch(wanted):
        return wanted
    name = _NAMES.get(wanted.casefold())
    if name is None and _INTEGER.fullmatch(wanted) and (codes is None or wanted in codes):
        return wanted
    return name


def number(value: float) -> str:
    """A limit or an actual value as text, with as many decimals as it has, at most three."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


# --- what a tally makes of them ---


def status_codes(tally: Tally) -> set[str]:
    """The status codes that a tally has, as text."""
    return {code for _, code in tally["codes"]}


def evaluate(
    budgets: Sequence[Budget], tally: Tally, unreadable: int = 0, missing: int = 0
) -> tuple[Result, ...]:
    """Whether a tally keeps to each budget. `unreadable`: lines of its logs that were skipped;
    `missing`: records that are in none of them, beside those that the tally knows were dropped."""
    timed = any(budget.name in TIMES for budget in budgets)
    total = tally.total() if timed else None
    logs = {UNREADABLE: unreadable, "dropped": tally.dropped + missing}
    return tuple(
        _timed(budget, tally, total)
        if total is not None and budget.name in TIMES
        else _counted(budget, tally, logs)
        for budget in budgets
    )


def not_told(results: Iterable[Result], unreadable: int, missing: int) -> str:
    """What of logs may break a budget and is not known, in words; "" of nothing, and of what a
    budget says how much of it there may be. `missing`: with what was dropped."""
    allowed = {each.budget.name for each in results if each.holds and each.budget.bound == "max"}
    lines = "1 line is" if unreadable == 1 else f"{unreadable} lines are"
    records = "1 record is" if missing == 1 else f"{missing} records are"
    told = (
        (UNREADABLE, unreadable, f"{lines} unreadable"),
        ("dropped", missing, f"{records} missing"),
    )
    return ", ".join(
        f"{said} (--max {name}={count} allows that)"
        for name, count, said in told
        if count and name not in allowed
    )


def read_in_part(tally: Tally) -> bool:
    """Whether flows came from a file that mitmproxy could not read to its end."""
    code = error_fields(CAPTURE_INCOMPLETE.cause)["error_code"]
    return (str(code), *CAPTURE_INCOMPLETE) in tally["causes"]


def is_certain(result: Result) -> bool:
    """Whether a budget does not hold whatever may be missing: that cannot mend what is too much,
    and may be what is too little."""
    return not result.holds and result.budget.bound == "max"


def hold(results: Iterable[Result], whole: bool) -> bool | None:
    """Whether all budgets hold; None: that cannot be told. `whole`: nothing is missing of what they
    were held against."""
    broken = [result for result in results if not result.holds]
    if not whole and not any(map(is_certain, broken)):
        return None
    return not broken


def _timed(budget: Budget, tally: Tally, total: Row) -> Result:
    distribution, point = TIMES[budget.name]
    points = getattr(total, distribution).points()
    if not points:
        return Result(budget, None, budget.bound == "max", note="no flow had a time")
    actual = points[point]
    if budget.bound == "min" or actual <= budget.limit:
        return Result(budget, actual, budget.bound == "max" or actual >= budget.limit)
    return Result(
        budget, actual, False, slowest=_slowest(tally, f"{distribution}_ms", budget.limit)
    )


def _slowest(tally: Tally, field: str, limit: float) -> tuple[str, ...]:
    found = [
        (example[field], example)
        for row in tally["slowest"].values()
        for example in reversed(row.examples)
        if example.get(field, 0) > limit
    ]
    found.sort(key=lambda item: -item[0])
    return tuple(f"{number(time)} ms: {describe(example)}" for time, example in found[:EXAMPLES])


def _counted(budget: Budget, tally: Tally, logs: Mapping[str, int]) -> Result:
    """`logs`: what logs tell of themselves, by name."""
    name = budget.name
    actual, hidden = (logs[name], 0) if name in logs else _count(name, tally)
    note = f"up to {hidden} more may be among those counted under {OTHER}" if hidden else ""
    # What may be there counts against a limit: a gate that cannot tell does not open.
    if budget.bound == "min" or actual + hidden <= budget.limit:
        holds = budget.bound == "max" or actual >= budget.limit
        return Result(budget, actual, holds, note=note)
    return Result(budget, actual, False, incidents(tally, _counter(name)), note=note)


def _count(name: str, tally: Tally) -> tuple[int, int]:
    """How many there are, and how many more there may be among those under `(other)`."""
    if name in TOTALS:
        return getattr(tally.totals(), name), 0
    if name in BANDS:
        return tally.sum("flows", name), 0
    causes = tally["causes"]
    if name in CAUSES:
        count = sum(_count_of(row) for (_, cause, _), row in causes.items() if cause == name)
        error = CAUSES[name].error
        return count, causes.hidden(str(error.code) if error else "", name)
    if int(name) in ERRORS:
        count = sum(_count_of(row) for (code, *_), row in causes.items() if code == name)
        return count, causes.hidden(name)
    key = band(int(name)), name
    row = tally["codes"].get(key)
    return row.flows if row else 0, tally["codes"].hidden(*key)


def _count_of(row: Row) -> int:
    """Of a cause, what is a problem; of what is none, how often it was."""
    return row.problems or row.cancelled


def _counter(name: str) -> Callable[[Key, Row], int]:
    """How much of a row of incidents a budget counts. Of -3, too, the status codes."""

    def count(key: Key, row: Row) -> int:
        code, cause, *_ = key
        if key[:3] == UNFINISHED:
            return row.count if name == "unfinished" else 0
        if name == "problems" or name in _WRONG:
            return int(getattr(row, name))
        if name in TOTALS:
            return 0
        if name in BANDS:
            return row.count if band_of(cause) == name else 0
        if name in CAUSES or int(name) not in ERRORS:
            return _count_of(row) if cause == name else 0
        return _count_of(row) if code == name else 0

    return count
