"""What the script of a page needs to sum up the flows that the page holds, when it is narrowed: the
keys under which the statistics count each of them, and how the tables for people are made of these.

The keys come from the statistics' own declarations, so that the script knows none.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from functools import cache
from typing import Any

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


def columns(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """The same of many: name of a table → `words`, keys that differ, and `at`, for each record
    which of them; -1 for none."""
    found: dict[str, dict[str, Any]] = {name: {"words": [], "at": []} for name in sorted(_NAMES)}
    numbers: dict[str, dict[Key | None, int]] = {name: {None: -1} for name in found}
    fit: dict[str, dict[Key, int]] = {name: {} for name in found}
    for record in records:
        for name, key in keys(record).items():
            number = numbers[name].get(key)
            if number is None and key is not None:
                # Two that look alike are one.
                words = _fit(key)
                number = numbers[name][key] = fit[name].setdefault(tuple(words), len(fit[name]))
                if number == len(found[name]["words"]):
                    found[name]["words"].append(words)
            found[name]["at"].append(number)
    return found


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
