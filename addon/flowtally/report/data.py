"""A tally for other programs: JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from .. import __version__
from ..journal import SCHEMA
from ..redaction import printable
from ..tally import CauseRow
from ..tally import Row
from ..tally import Tally
from ..vocabulary import CAUSES
from ..vocabulary import ERRORS

TIMES = ("p50", "p95", "p99", "max")
COUNTS = ("flows", "failures", "unsuccessful", "events", "request_bytes", "response_bytes")
COLUMNS = (
    "table",
    "name",
    "description",
    "count",
    *COUNTS,
    *(f"wait_{name}_ms" for name in TIMES),
    *(f"duration_{name}_ms" for name in TIMES),
)
"""The columns of the CSV: one table after the other, of bands, codes, error codes, causes, hosts,
endpoints and kinds. `count` is that of error codes and causes; all others have flows."""


def report(sessions: list[dict[str, Any]], unreadable: int, tally: Tally) -> dict[str, Any]:
    """What `flowtally report --json` prints. `sessions`: id, begin and whether it ended cleanly.
    `statistics` is the body of a `stats` record."""
    return {
        "flowtally": __version__,
        "schema": SCHEMA,
        "sessions": sessions,
        "unreadable": unreadable,
        "statistics": tally.to_data(),
    }


def csv_text(tally: Tally) -> str:
    """The statistics as one CSV (RFC 4180), a line for each band, code, cause and so on."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    writer.writerows(_lines(tally))
    return buffer.getvalue()


def _lines(tally: Tally) -> Iterator[list[Any]]:
    for band, total, codes in tally.bands():
        yield _line("band", band, "", total)
        for key, row in codes.items():
            yield _line("status", key, tally.descriptions[key], row)
    for code, causes in sorted(tally.errors.items(), reverse=True):
        error = ERRORS.get(code)
        yield _count("error_code", str(code), error.name if error else "", causes.values())
        for cause, counted in causes.items():
            known = CAUSES.get(cause)
            advice = known.advice if known else tally.descriptions.get(cause, "")
            yield _count("cause", cause, advice, [counted])
    tables: Mapping[str, Mapping[str, Row]] = {
        "host": tally.hosts,
        "endpoint": tally.endpoints,
        "kind": tally.protocols,
    }
    for name, rows in tables.items():
        for key, row in sorted(rows.items(), key=lambda item: (-item[1].flows, item[0])):
            yield _line(name, key, "", row)


def _line(table: str, name: str, description: str, row: Row) -> list[Any]:
    times: list[float | str] = []
    for histogram in (row.wait, row.duration):
        if histogram.count:
            values = {**histogram.percentiles(), "max": histogram.maximum}
            times += [values[percentile] for percentile in TIMES]
        else:
            times += [""] * len(TIMES)
    counts = [getattr(row, count) for count in COUNTS]
    return [table, _cell(name), _cell(description), "", *counts, *times]


def _count(table: str, name: str, description: str, rows: Iterable[CauseRow]) -> list[Any]:
    count = sum(row.count for row in rows)
    return [table, _cell(name), _cell(description), count, *[""] * (len(COLUMNS) - 4)]


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    text = printable(text, 2048)
    number = text[1:].isdecimal()  # an error code
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") and not number else text
