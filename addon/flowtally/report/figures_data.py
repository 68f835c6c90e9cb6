"""What the script of a page needs to sum up the flows that the page holds, when it is narrowed: the
keys under which the statistics count each of them, and how the tables for people are made of these.

The keys come from the statistics' own declarations, so that the script knows none.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import cache
from typing import Any

from ..blocks import MAX_BLOCKS
from ..histogram import FIRST
from ..histogram import GROWTH
from ..histogram import PERCENTILES
from ..histogram import STARTS
from ..redaction import MAX_URL
from ..redaction import printable
from ..rows import OTHER
from ..rows import Key
from ..tally import TABLES
from ..vocabulary import BANDS
from ..vocabulary import CAUSES
from . import incidents_html
from . import tables
from .tables import Column
from .tables import ReportTable
from .view import BUCKETS_OF_A_BAR

Record = Mapping[str, Any]

_NAMES = {"methods", *(table.of for table in tables.TABLES)}
_COUNTED = tuple(table for table in TABLES if table.name in _NAMES)
"""The tables that people see, and the methods that a note names."""


def keys(record: Record) -> dict[str, Key | None]:
    """Name of a table → what it counts a record under; None: nowhere."""
    if "background" in record:
        return dict.fromkeys(_NAMES)
    is_flow = record["type"] == "flow"
    return {
        table.name: table.key(record) if is_flow or table.events else None for table in _COUNTED
    }


def shown_keys(record: Record) -> dict[str, list[str]]:
    """The same of a single record, fit to be shown, without those that there are none of."""
    return {name: _fit(key) for name, key in keys(record).items() if key is not None}


class Keys:
    """The same of many."""

    def __init__(self) -> None:
        self._at: dict[str, array[int]] = {name: array("i") for name in sorted(_NAMES)}
        """Name of a table → for each record which of its keys; -1 for none."""
        self._words: dict[str, dict[Key, int]] = {name: {} for name in self._at}

    def add(self, record: Record) -> None:
        """Take in the next record."""
        for name, key in keys(record).items():
            words = self._words[name]
            self._at[name].append(-1 if key is None else words.setdefault(key, len(words)))

    def columns(self, rows: Iterable[int]) -> dict[str, dict[str, Any]]:
        """Of records by their numbers: name of a table → `words`, keys that differ, and `at`, for
        each record which of them; -1 for none."""
        return {name: _packed(at, list(self._words[name]), rows) for name, at in self._at.items()}


def _packed(at: Sequence[int], words: Sequence[Key], rows: Iterable[int]) -> dict[str, Any]:
    found: dict[tuple[str, ...], int] = {}
    numbers = {-1: -1}
    places = []
    for row in rows:
        word = at[row]
        if word not in numbers:
            # Two that look alike are one.
            numbers[word] = found.setdefault(tuple(_fit(words[word])), len(found))
        places.append(numbers[word])
    return {"words": [list(key) for key in found], "at": places}


def _fit(key: Key) -> list[str]:
    return [printable(part, MAX_URL) for part in key]


@cache
def declared() -> dict[str, Any]:
    """What is the same in all pages: the tables and their columns, and how times are counted."""
    return {
        "keys": sorted(_NAMES),
        "tables": [_table(table) for table in tables.TABLES],
        "times": {name: list(of) for name, of in tables.TIMES.items()},
        "percentiles": PERCENTILES,
        "buckets": {"starts": STARTS, "first": FIRST, "growth": GROWTH, "bar": BUCKETS_OF_A_BAR},
        "bands": list(BANDS),
        "kinds": tables.PROTOCOLS,
        "in_note": tables.IN_NOTE,
        "other": OTHER,
        "stages": {name: cause.stage for name, cause in CAUSES.items() if cause.stage},
        "incidents": {
            "named": incidents_html.NAMED,
            "points": MAX_BLOCKS,
            "width": incidents_html.WIDTH,
            "height": incidents_html.HEIGHT,
        },
    }


def _table(table: ReportTable) -> dict[str, Any]:
    examples = next(each.examples for each in _COUNTED if each.name == table.of)
    return {
        "id": table.id,
        "of": table.of,
        "order": table.order,
        "what": table.what,
        "note": table.note,
        "pick": table.pick,
        "most": examples if table.order == "longest" else table.most,
        "columns": [_column(column) for column in table.columns],
    }


def _column(column: Column) -> dict[str, str]:
    return {"field": column.field, "unit": column.unit, "colour": column.colour}
