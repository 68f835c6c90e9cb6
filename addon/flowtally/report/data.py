"""A tally for other programs: JSON and CSV. Both have every table of the statistics."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from .. import __version__
from ..redaction import printable
from ..rows import Example
from ..rows import Rows
from ..tally import Tally
from ..vocabulary import SCHEMA
from .tables import EXAMPLE_COLUMNS
from .tables import Column
from .tables import Entry
from .tables import Value
from .tables import columns_of
from .tables import entries_of
from .view import waits


def report(
    sessions: list[dict[str, Any]], unreadable: int, tally: Tally, missing: int = 0
) -> dict[str, Any]:
    """What `flowtally report --json` prints. `sessions`: id, begin and whether it ended cleanly.
    `unreadable`: lines that could not be used; `missing`: records that are in no log. `only`:
    the filter, if there was one."""
    return {
        "flowtally": __version__,
        "schema": SCHEMA,
        **({"only": tally.only} if tally.only else {}),
        "sessions": sessions,
        "unreadable": unreadable,
        "missing": missing,
        "statistics": statistics(tally),
    }


def statistics(tally: Tally) -> dict[str, Any]:
    """`totals`, an object, and each table as a list of objects of one shape, the largest first.

    Field names are those of columns; what has no value is null. Times are in ms.
    """
    return {
        "totals": {
            name: None if value == "" else value for name, value in tally.totals()._asdict().items()
        },
        **{name: list(_objects(tally, rows)) for name, rows in tally.tables.items()},
        "equal_waits": [wait._asdict() for wait in waits(tally)],
    }


def _objects(tally: Tally, rows: Rows) -> Iterator[dict[str, Any]]:
    table, columns = rows.table, columns_of(rows.table)
    for entry in entries_of(tally, table.name):
        found = _object(entry, columns)
        if table.examples and table.parts:
            found["examples"] = [_example(example) for example in reversed(entry.row.examples)]
        yield found


def _object(entry: Entry, columns: Sequence[Column]) -> dict[str, Any]:
    return {column.field: column.value(entry) for column in columns}


def _example(example: Example) -> dict[str, Any]:
    return _object(Entry("", example=example), EXAMPLE_COLUMNS)


# --- CSV ---


def header(tally: Tally) -> tuple[str, ...]:
    """The columns of the CSV: the name of a table, and what any table has, first the parts of
    keys."""
    tables = [rows.table for rows in tally.tables.values()]
    parts = [part for table in tables for part in table.parts]
    fields = [column.field for table in tables for column in columns_of(table)]
    return "table", *dict.fromkeys([*parts, *fields])


def csv_text(tally: Tally) -> str:
    """The statistics as one CSV (RFC 4180), a line for each row of each table; what a table does
    not have is empty."""
    import csv  # what only a report needs is loaded for one

    buffer = io.StringIO()
    writer = csv.writer(buffer)
    fields = header(tally)
    writer.writerow(fields)
    for name, rows in tally.tables.items():
        columns = columns_of(rows.table)
        for entry in entries_of(tally, name):
            cells = {"table": name, **_object(entry, columns)}
            writer.writerow([cell(cells.get(field)) for field in fields])
    return buffer.getvalue()


def cell(value: Value) -> str | int | float:
    """A value as it stands in CSV: what no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return value
    return _FORMULA.sub(r"\1'\2", printable(value, 2048))


# Also where a spreadsheet separates at semicolons: it ends a cell there, quoted or not.
_FORMULA = re.compile(r"((?:^|;)\s*)([=+@-])")
