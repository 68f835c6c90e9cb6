"""One query to what was loaded, and its answer as a table, as JSON or as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import isfinite
from typing import TYPE_CHECKING
from typing import Any

from ..redaction import printable
from ..report.data import cell

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

AT_ONCE = 1000
"""How many rows are in memory at a time; the widths of a table's columns are those of the first."""
MAX_CELL = 200
"""In characters, of a cell of a table."""


class QueryError(ValueError):
    """A query that cannot be answered; the message is one line that says why."""


class Answer:
    """What a query came to."""

    def __init__(self, connection: DuckDBPyConnection, query: str) -> None:
        """Ask. Raises: QueryError."""
        import duckdb

        try:
            asked = connection.extract_statements(query)
            if len(asked) != 1 or asked[0].type != duckdb.StatementType.SELECT:
                raise QueryError("one SELECT is asked at a time, which changes nothing")
            self._found = _executed(connection, asked[0])
        except duckdb.Error as error:
            raise QueryError(one_line(error)) from None
        self.columns = [column[0] for column in self._found.description or ()]

    def rows(self) -> Iterator[list[tuple[Any, ...]]]:
        """Up to AT_ONCE rows at a time. Raises: QueryError."""
        import duckdb

        try:
            while rows := self._found.fetchmany(AT_ONCE):
                yield rows
        except duckdb.Error as error:
            raise QueryError(one_line(error)) from None


def _executed(connection: DuckDBPyConnection, query: Any) -> DuckDBPyConnection:
    """Ask in another thread: while DuckDB works in this one, no signal would end the program."""
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(connection.execute, query)
        try:
            return found.result()
        except BaseException:
            connection.interrupt()
            raise


def one_line(error: Exception) -> str:
    """What DuckDB says, without the query and the arrow below it."""
    said = str(error).partition("\n\nLINE ")[0]
    return " ".join(said.split())


def table(answer: Answer) -> Iterator[str]:
    """Lines, columns aligned: numbers on the right. Nothing in them moves a terminal's cursor."""
    widths: list[int] = []
    for rows in answer.rows():
        lines = [[_shown(value) for value in row] for row in rows]
        if not widths:
            widths = [max(map(len, column)) for column in zip(answer.columns, *lines, strict=True)]
            right = [isinstance(value, int | float) for value in rows[0]]
            yield _aligned([printable(name, MAX_CELL) for name in answer.columns], widths, right)
        for line in lines:
            yield _aligned(line, widths, right)
    if not widths:
        yield "  ".join(printable(name, MAX_CELL) for name in answer.columns)


def _shown(value: Any) -> str:
    return "" if value is None else printable(str(value), MAX_CELL)


def _aligned(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    found = [
        cell.rjust(width) if is_right else cell.ljust(width)
        for cell, width, is_right in zip(cells, widths, right, strict=True)
    ]
    return "  ".join(found).rstrip()


def as_json(answer: Answer) -> Iterator[str]:
    """Lines of one JSON list, an object for each row. Raises: QueryError, also where two columns
    have one name."""
    for name, count in Counter(answer.columns).items():
        if count > 1:
            raise QueryError(f"{count} columns are called {name}: name each otherwise with AS")
    before = "["
    for rows in answer.rows():
        for row in rows:
            values = map(_in_json, row)
            yield before + json.dumps(dict(zip(answer.columns, values, strict=True)))
            before = ","
    yield "]" if before == "," else "[]"


def _in_json(value: Any) -> Any:
    """A value as JSON has it: NaN and infinity, for which it has nothing, are null, a BLOB is hex,
    and what else it does not know is text."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, list | tuple):
        return [_in_json(each) for each in value]
    if isinstance(value, dict):  # of a MAP, whose keys can be anything
        return {str(key): _in_json(each) for key, each in value.items()}
    return value.hex() if isinstance(value, bytes) else str(value)


def as_csv(answer: Answer) -> Iterator[str]:
    """Lines of CSV (RFC 4180), without their ends."""
    yield _csv(answer.columns)
    for rows in answer.rows():
        for row in rows:
            yield _csv([cell(value if _is_plain(value) else str(value)) for value in row])


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _csv(cells: Sequence[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(cells)
    return buffer.getvalue()
