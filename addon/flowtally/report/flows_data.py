"""The single flows that a page holds, small enough to be in it: JSON by columns, deflated.

The script of the page reads what `packed` makes. Every text is fit to be shown.
"""

from __future__ import annotations

import json
import zlib
from array import array
from base64 import b64encode
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import nan
from typing import Any
from typing import NamedTuple

from ..filters import is_problem
from ..latest import Latest
from ..redaction import MAX_URL
from ..redaction import printable
from ..rows import series
from ..source import uncollected
from ..tally import incident_of
from ..tally import is_timed
from ..tally import place
from . import figures_data

Record = Mapping[str, Any]

MOST = 100_000
"""How many flows a page holds."""
MAX_BYTES = 4_000_000
"""How much of a page they take, in bytes; if they take more, there are fewer of them."""
LEVEL = 6
"""Of zlib: 9 takes three times as long for a fiftieth of the size."""
_SAMPLE = 20
"""Which part of them tells how much all take."""
MOST_COLUMNS = 200
"""Of how many fields the page has the values; a log that no flowtally wrote may have any number."""
_EXACT = 2**53
"""Up to here, numbers are what they are also in JavaScript."""
_FIRST = ("time", "seq")
_DERIVED = ("incident", "place", "series", "timed")
_DISTRIBUTED = ("wait_ms", "duration_ms")
"""Times of which the page tells percentiles: they are as the log has them, or a fast flow would be
counted in another bucket."""


@dataclass(frozen=True, slots=True)
class Flows:
    """What a page holds of the flows and events of logs."""

    of: int
    """How many the logs have."""
    held: int
    """How many of them the page holds."""
    problems: int
    """How many of those it holds are problems, which come before others."""
    data: str
    """What the script reads."""

    @property
    def part(self) -> str:
        """Which of them the page holds; "" where it holds all."""
        if self.held == self.of:
            return ""
        only = self.problems == self.held
        which = "the latest problems" if only else "the problems, and the latest of the others"
        return f"{self.held:,} of {self.of:,}: {which}"

    @property
    def note(self) -> str:
        """What people are told."""
        return "; ".join(filter(None, ("newest first", self.part)))


def flows(latest: Latest, max_bytes: int = MAX_BYTES) -> Flows:
    """The latest flows of logs, and their problems wherever they are."""
    with uncollected():
        table = Table(latest, latest.answered)
        held = table.count
        if held > _SAMPLE * _SAMPLE:
            of_sample = len(table.packed(table.chosen(held // _SAMPLE)))
            held = min(held, int(max_bytes / of_sample * (held // _SAMPLE)))
        while True:
            rows = table.chosen(held)
            data = table.packed(rows)
            if len(data) <= max_bytes or held <= 1:
                problems = sum(map(table.problems.__getitem__, rows))
                return Flows(latest.count, len(rows), problems, data)
            held = int(held * 0.98 * max_bytes / len(data))


class _Column:
    """The values of a field, as many as there were up to the last one that has it."""

    __slots__ = ("at", "numbers")

    def __init__(self) -> None:
        self.numbers: array[float] = array("d")
        """Not a number where there is none."""
        self.at: array[int] = array("i")
        """Which of all words; -1 where there is none."""

    def add_number(self, row: int, number: float) -> None:
        self.numbers.extend([nan] * (row - len(self.numbers)))
        self.numbers.append(number)

    def add_word(self, row: int, word: int) -> None:
        self.at.extend([-1] * (row - len(self.at)))
        self.at.append(word)

    def packed(
        self, rows: Sequence[int], words: Sequence[Any], digits: int
    ) -> dict[str, Any] | None:
        """As the script reads it; None if no row has a value. `digits`: of numbers, behind the
        point."""
        numbers = [number if number == number else None for number in _of(self.numbers, rows, nan)]
        short = [_short(number, digits) for number in numbers]
        at = _of(self.at, rows, -1)
        if max(at, default=-1) < 0:
            has = any(number is not None for number in numbers)
            return {"numbers": short} if has else None
        found: dict[Any, int] = {}
        places = []
        for word, number in zip(at, short, strict=True):
            if word >= 0:
                places.append(found.setdefault(words[word], len(found)))
            else:
                places.append(-1 if number is None else found.setdefault(number, len(found)))
        return {"words": [_plain(word) for word in found], "at": places}


class Table:
    """Records, newest first, by columns."""

    def __init__(self, records: Iterable[Record], answered: Iterable[tuple[str, str]] = ()) -> None:
        """`answered`: session and id of flows that later ones answered with credentials."""
        self.count = 0
        self.problems = bytearray()
        """Of each record, whether it is of a problem."""
        self._columns = {name: _Column() for name in _FIRST}
        self._derived = {name: _Column() for name in _DERIVED}
        self._keys = figures_data.Keys()
        self._words: dict[Any, int] = {}
        known = set(answered)
        for record in records:
            self._add(record, (record["session"], record.get("flow", "")) in known)

    def _add(self, record: Record, challenge: bool) -> None:
        row, columns, words = self.count, self._columns, self._words
        for name, value in record.items():
            if name == "time":
                value = _milliseconds(value)
            elif name == "flow" and not challenge:
                continue  # it leads nowhere from a file, and takes as much as all else together
            column = columns.get(name)
            if column is None:
                if len(columns) == MOST_COLUMNS:
                    continue
                column = columns[name] = _Column()
            kind = value.__class__
            if kind is str:
                column.add_word(row, words.setdefault(value, len(words)))
            elif (kind is int or kind is float) and abs(value) < _EXACT:
                column.add_number(row, value)
            elif value is not None:
                column.add_word(row, words.setdefault(_Odd(json.dumps(value)), len(words)))
        problem = is_problem(record)
        incident = incident_of(record) if problem and not challenge else ""
        for name, word in zip(_DERIVED, (incident, place(record), series(record)), strict=False):
            if word:
                self._derived[name].add_word(row, words.setdefault(word, len(words)))
        if _timed(record):
            self._derived["timed"].add_number(row, 1)
        self._keys.add(record)
        self.problems.append(problem)
        self.count += 1

    def chosen(self, most: int) -> Sequence[int]:
        """The numbers of the latest records, at most so many; problems come before all others."""
        if most >= self.count:
            return range(self.count)
        others = max(0, most - sum(self.problems))
        found: list[int] = []
        for number, problem in enumerate(self.problems):
            if problem or others:
                found.append(number)
                others -= not problem
                if len(found) == most:
                    break
        return found

    def packed(self, rows: Sequence[int] | None = None) -> str:
        """The records of these numbers, all without, as base64 of what zlib makes of JSON: `count`,
        and `columns`, `derived` and `keys`, name → column. A column is `numbers`, null for none;
        `steps`, the first number and the difference of each to the one before; or `words`, and
        `at`, which of them, -1 for none. `keys`: of each table for people, see `figures_data`.
        """
        rows = range(self.count) if rows is None else rows
        packer = zlib.compressobj(LEVEL)
        parts = [packer.compress(piece.encode()) for piece in self._json(rows)]
        return b64encode(b"".join([*parts, packer.flush()])).decode()

    def _json(self, rows: Sequence[int]) -> Iterator[str]:
        """Column by column, for all together are large."""
        text = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
        words = list(self._words)
        yield f'{{"count":{len(rows)}'
        for group, columns in (("columns", self._columns), ("derived", self._derived)):
            begin = f',"{group}":{{'
            for name, column in columns.items():
                if group == "columns" and name in ("time", "seq"):
                    yield f"{begin}{text(name)}:{text(_steps(column.numbers, rows))}"
                elif packed := column.packed(rows, words, 3 if name in _DISTRIBUTED else 1):
                    yield f"{begin}{text(name)}:{text(packed)}"
                else:
                    continue
                begin = ","
            yield "}" if begin == "," else f"{begin}}}"
        yield f',"keys":{text(self._keys.columns(rows))}}}'


def shown(record: Record, challenge: bool = False) -> dict[str, Any]:
    """A single record, its texts fit to be shown, and with what `packed` derives of it."""
    found = {name: _fit(value) for name, value in record.items()}
    found["time"] = _milliseconds(record["time"])
    found["derived"] = {
        "incident": incident_of(record) if is_problem(record) and not challenge else None,
        "place": _fit(place(record)) or None,
        "series": _fit(series(record)),
        "timed": _timed(record),
        "keys": figures_data.shown_keys(record),
    }
    return found


def _timed(record: Record) -> int | None:
    """1 where its times say how fast something is."""
    return 1 if record["type"] == "flow" and is_timed(record) else None


def _milliseconds(time: str) -> int:
    """RFC 3339 → Unix time in ms."""
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def _of(column: array[Any], rows: Sequence[int], none: float) -> list[Any]:
    """The values of some rows."""
    size = len(column)
    return [column[row] if row < size else none for row in rows]


def _short(number: float | None, digits: int) -> float | None:
    """A number as it takes the least room; most times have more digits than they mean."""
    if number is None:
        return None
    return int(number) if number.is_integer() else round(number, digits)


def _steps(column: array[float], rows: Sequence[int]) -> dict[str, list[int]]:
    values = [int(column[row]) for row in rows]
    return {"steps": [value - before for before, value in zip((0, *values), values, strict=False)]}


class _Odd(NamedTuple):
    """A value that is neither a text nor a number, as JSON: 1 and true are equal."""

    json: str


def _plain(word: Any) -> Any:
    # What is no number is no JSON for others than Python.
    return json.loads(word.json, parse_constant=str) if isinstance(word, _Odd) else _fit(word)


def _fit(value: Any) -> Any:
    return printable(value, MAX_URL) if isinstance(value, str) else value
