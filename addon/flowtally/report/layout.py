"""How text is laid out for a terminal: widths, columns, numbers with their units.

Everything that comes from a log passes through `printable` here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from textwrap import wrap
from typing import Any
from typing import Protocol

from ..redaction import printable
from ..rows import OTHER

WIDTH = 100
"""Columns that a report fills at most; a narrower terminal gets less."""
NARROWEST = 80
"""A terminal that is narrower gets lines that are too long."""

LEAST = 20
"""Columns that a name gets at least."""

BRIEFEST = 0.05
"""What is shorter, in seconds, `span` shows as nothing."""

Cells = tuple[str, ...]
"""What stands in a row."""


def terminal_width() -> int:
    """The columns that the terminal has, or WIDTH where there is none."""
    return shutil.get_terminal_size(fallback=(WIDTH, 24)).columns


def columns(width: int, narrowest: int = NARROWEST) -> int:
    """The columns to fill of a terminal that has `width`."""
    return max(narrowest, min(width, WIDTH))


def table(rows: Sequence[Cells], width: int, indent: str = "") -> list[str]:
    """Columns, the first one left-aligned and shortened to fit, the others right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    # On a narrow terminal the last columns are left out.
    while len(widths) > 2 and width - len(indent) - sum(widths[1:]) - 2 * len(widths[1:]) < LEAST:
        widths.pop()
    rows = [row[: len(widths)] for row in rows]
    room = max(LEAST, width - len(indent) - sum(widths[1:]) - 2 * len(widths[1:]))
    names = [shortened(row[0], room) for row in rows]
    widths[0] = max(map(len, names))
    lines = []
    for name, (_, *cells) in zip(names, rows, strict=True):
        numbers = [cell.rjust(size) for cell, size in zip(cells, widths[1:], strict=True)]
        lines.append(indent + "  ".join([name.ljust(widths[0]), *numbers]).rstrip())
    return lines


def shortened(name: str, room: int) -> str:
    """A name in at most `room` columns; the middle says least of a URL, a host or a path."""
    name = printable(name, 4096)
    if len(name) <= room:
        return name
    end = room // 2
    return f"{name[: room - end - 1]}…{name[-end:]}"


def indented(sentence: str, width: int, indent: str) -> list[str]:
    """A sentence in as many lines as it takes."""
    return wrap(
        printable(sentence, 4096),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def in_brackets(reason: str) -> str:
    """The reason behind a cause; (other) has its brackets."""
    if not reason:
        return ""
    return f" {reason}" if reason == OTHER else f" ({reason})"


def s(count: int) -> str:
    """The ending of the noun that is counted."""
    return "" if count == 1 else "s"


def percent(share: float) -> str:
    """A share, 0 to 1, in per cent."""
    return f"{100 * share:.1f} %"


def share(some: int, whole: int) -> str:
    """`some` of `whole` in per cent; "" of nothing."""
    return percent(some / whole) if whole else ""


def ms(value: float) -> str:
    """A time in ms."""
    return f"{value / 1000:.1f} s" if value >= 10_000 else f"{value:.0f} ms"


def span(seconds: float) -> str:
    """A stretch of time."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if days := hours // 24:
        return f"{days} d {hours % 24} h" if hours % 24 else f"{days} d"
    if hours:
        return f"{hours} h {minute} min" if minute else f"{hours} h"
    if minute:
        return f"{minute} min {second} s" if second else f"{minute} min"
    return f"{seconds:.0f} s" if isinstance(seconds, int) else f"{seconds:.1f} s"


def size(count: float) -> str:
    """A number of bytes."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def at_least(count: str) -> str:
    """A count that may be larger."""
    return f"≥ {count}"


_NUMBERS: Mapping[str, Callable[[float], str]] = {"share": percent, "bytes": size, "ms": ms}


def cell(value: str | float | None, unit: str, more: bool = False) -> str:
    """A value as people read it. `unit`: see `tables.Unit`; `more`: if it is a count, it may be
    larger."""
    if value is None:
        return ""
    if isinstance(value, str):
        return clock(value) if unit == "time" else value
    if unit in _NUMBERS:
        return _NUMBERS[unit](value)
    return at_least(str(value)) if more else str(value)


class Totals(Protocol):
    """The counts that a headline begins with."""

    @property
    def flows(self) -> int: ...
    @property
    def failures(self) -> int: ...
    @property
    def unsuccessful(self) -> int: ...
    @property
    def cancelled(self) -> int: ...
    @property
    def events(self) -> int: ...


def counted(totals: Totals) -> list[str]:
    """How many flows there were, and what went wrong, in the words of every report."""
    words = [f"{totals.flows} flow{s(totals.flows)}"]
    if totals.failures:
        words.append(f"{totals.failures} failed ({share(totals.failures, totals.flows)})")
    if totals.unsuccessful:
        words.append(f"{totals.unsuccessful} unsuccessful")
    if totals.events:
        words.append(f"{totals.events} failure{s(totals.events)} without a flow")
    if totals.cancelled:
        words.append(f"{totals.cancelled} cancelled")
    return words


def seconds_between(first: str, last: str) -> float:
    """From one RFC 3339 time to another, in seconds; 0 where there are none."""
    if not first or not last:
        return 0.0
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


def lasted(first: str, last: str) -> str:
    """How long it was from one RFC 3339 time to another; "" of what is too short to be told."""
    seconds = seconds_between(first, last)
    return span(seconds) if seconds >= BRIEFEST else ""


def clock(time: Any, dated: bool = False) -> str:
    """Of an RFC 3339 time, the time of day on this machine, with its date if `dated`; "?" of what
    is none."""
    try:
        local = datetime.fromisoformat(time).astimezone()
        return local.strftime("%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S")
    except (TypeError, ValueError, OverflowError, OSError):
        return "?"


def zoned(time: str) -> str:
    """An RFC 3339 time as date and time on this machine, with its zone."""
    try:
        return datetime.fromisoformat(time).astimezone().isoformat(" ", "seconds")
    except (OverflowError, ValueError, OSError):
        return printable(time, 25)  # a date that no clock of this machine can show


def session_begun(id: str, time: str) -> str:
    """Which session it is, and when it began."""
    return f"Session {id:.40}, begun {zoned(time)}"


def several_days(first: str, last: str) -> bool:
    """Whether two RFC 3339 times are of different days on this machine. Where what is told goes
    from one to the other, a time of day alone does not say when."""
    return clock(first, dated=True)[:10] != clock(last, dated=True)[:10]


def period(first: str, last: str, dated: bool) -> str:
    """From one RFC 3339 time to another on this machine."""
    begin = clock(first, dated)
    if clock(first, dated=True) == clock(last, dated=True):
        return begin
    return f"{begin} to {clock(last, several_days(first, last))}"


def local_time(second: int) -> str:
    """Unix time → date and time on this machine; "?" of what it cannot show."""
    try:
        return datetime.fromtimestamp(second).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return "?"
