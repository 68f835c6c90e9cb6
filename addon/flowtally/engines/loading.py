"""Session logs in DuckDB, which reads them itself: the same lines as everybody else's.

DuckDB takes no offence where a field is of another type, and passes over what is no JSON without
a word. So each line that it is not sure of makes its log one that Python reads, which names what
cannot be used; all other logs it reads alone. A torn end alone, as a killed session leaves it, is
only looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import ExitStack
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import BinaryIO

from ..encoding import encode
from ..logs import Logs
from ..source import MAX_LINE
from ..source import Source
from ..source import sources
from ..source import temporary_folder
from ..valid import DURATIONS
from ..valid import PARTS
from ..valid import SIZES
from ..valid import TYPES
from ..vocabulary import BANDS
from ..vocabulary import CHALLENGE_CODES
from ..vocabulary import ERRORS
from ..vocabulary import KINDS
from ..vocabulary import SCHEMA
from .schema import Kind
from .schema import columns
from .schema import declared
from .views import columns_of
from .views import statements

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY = "1GB"
"""How much DuckDB may hold in memory; what is more goes into temporary files."""
MOST_AT_ONCE = 1000
"""How many logs DuckDB is given in one go."""

_WRONG = {
    "text": ("BOOLEAN", "UBIGINT", "BIGINT", "HUGEINT", "DOUBLE", "NULL", "OBJECT", "ARRAY"),
    "integer": ("VARCHAR", "BOOLEAN", "HUGEINT", "DOUBLE", "NULL", "OBJECT", "ARRAY"),
    "number": ("VARCHAR", "BOOLEAN", "HUGEINT", "NULL", "OBJECT", "ARRAY"),
    "true": ("VARCHAR", "UBIGINT", "BIGINT", "HUGEINT", "DOUBLE", "NULL", "OBJECT", "ARRAY"),
}
"""What a field is → what JSON may not have in its place, as DuckDB's json_type calls it."""
_TIME = "[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{3}Z"

_SIGNS = "*?["
"""What makes a pattern of a name."""


@contextmanager
def loaded(
    logs: Sequence[tuple[str, Path | BinaryIO]], noted: Logs
) -> Iterator[DuckDBPyConnection]:
    """A connection to a database of one's own that has the records of logs, each once, and the
    views. `noted` is told of what could not be used.

    Raises: OSError, with the name of the log as its `filename`; ImportError without DuckDB.
    """
    import duckdb

    with ExitStack() as stack:
        found = sources(logs, stack)
        folder = stack.enter_context(temporary_folder())
        connection = stack.enter_context(duckdb.connect(folder / "logs.duckdb"))
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        connection.execute("SET preserve_insertion_order = false")
        connection.execute("SET enable_progress_bar = false")  # it goes to standard output
        connection.execute(f"CREATE TABLE loaded ({columns_of('duckdb')}, log VARCHAR, sure BOOL)")
        _load(connection, found, folder, noted)
        _once(connection)
        connection.execute("CREATE VIEW lines AS SELECT * EXCLUDE (log, sure) FROM loaded")
        for statement in statements("duckdb"):
            connection.execute(statement)
        yield connection


def locked(connection: DuckDBPyConnection) -> None:
    """From now on, a query reaches nothing but what is loaded: no file, no network, no setting."""
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def missing(connection: DuckDBPyConnection) -> list[tuple[str, int]]:
    """The sessions of which records are in no log, and how many."""
    query = "SELECT session, missing FROM sessions WHERE missing > 0 ORDER BY session"
    return connection.execute(query).fetchall()


# --- reading ---


def _load(
    connection: DuckDBPyConnection, found: Sequence[Source], folder: Path, noted: Logs
) -> None:
    """Put the records of logs into the table `loaded`."""
    by_name = {str(source.path.resolve()): source for source in found if source.path is not None}
    names = [name for name in by_name if _can_be_named(name)]
    for begin in range(0, len(names), MOST_AT_ONCE):
        _read(connection, names[begin : begin + MOST_AT_ONCE])
    query = "SELECT log, count(*) FROM loaded WHERE NOT sure GROUP BY log"
    unsure = dict(connection.execute(query).fetchall())
    again = [source for source in found if source.path is None]
    again += [source for name, source in by_name.items() if not _can_be_named(name)]
    for name, count in unsure.items():
        if count == 1 and _only_torn(by_name[name], noted):
            connection.execute("DELETE FROM loaded WHERE log = ? AND NOT sure", [name])
        else:
            connection.execute("DELETE FROM loaded WHERE log = ?", [name])
            again.append(by_name[name])
    for number, source in enumerate(again):
        path = folder / f"{number}.jsonl"
        _rewrite(source, path, noted)
        _read(connection, [str(path)])
        path.unlink()


def _only_torn(source: Source, noted: Logs) -> bool:
    """Whether the last line of a log has no end and cannot be used, which is noted."""
    with source:
        begin = source.unended()
        if begin == source.size:
            return False
        whole, source.ranges = source.ranges, [(begin, source.size)]
        torn = next(noted.accepted(source), None) is None
        source.ranges = whole
    return torn


def _rewrite(source: Source, path: Path, noted: Logs) -> None:
    """Write what can be used of a log into a file that DuckDB reads as it is meant."""
    names = columns().keys()
    with source, path.open("wb") as file:
        for _, record in noted.accepted(source):
            known = {name: record[name] for name in names if name in record}
            file.write(encode(known))


def _read(connection: DuckDBPyConnection, names: Sequence[str]) -> None:
    """Let DuckDB read logs into the table `loaded`."""
    import duckdb

    try:
        connection.execute(_insert(names))
    except duckdb.InvalidInputException:
        # It names no log. One that it cannot read at all is one that it is not sure of.
        if len(names) > 1:
            middle = len(names) // 2
            _read(connection, names[:middle])
            _read(connection, names[middle:])
        else:
            twice = "INSERT INTO loaded (log, sure) VALUES ($1, false), ($1, false)"
            connection.execute(twice, [names[0]])


def _insert(names: Sequence[str]) -> str:
    shape = "{" + ",".join(f'"{name}":"{kind}"' for name, kind in declared("duckdb")) + "}"
    paths = ", ".join(f"'$.{name}'" for name in _by_kind())
    files = ", ".join(_text(_pattern(name)) for name in names)
    listed = ", ".join(f"`{name}`" for name in columns())
    return (
        f"INSERT INTO loaded SELECT {listed}, log, coalesce({_sure()}, false) FROM ("
        "SELECT unnest(record), kinds, size, log FROM ("
        f"SELECT json_transform(json, '{shape}') AS record, json_type(json, [{paths}]) AS kinds,"
        f" strlen(json) AS size, filename AS log FROM read_ndjson_objects([{files}],"
        # A folder that is called json=1 would put its 1 in the place of the lines.
        " filename = true, hive_partitioning = false, ignore_errors = true,"
        f" compression = 'uncompressed', maximum_object_size = {MAX_LINE})))"
    )


def _can_be_named(name: str) -> bool:
    """Whether DuckDB can be told of a file: a name is text to it, and a backslash that stands in a
    pattern is no part of a name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return not ("\\" in name and any(each in name for each in _SIGNS))


def _pattern(name: str) -> str:
    """A pattern that one file matches."""
    return "".join(f"[{each}]" if each in _SIGNS else each for each in name)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


# --- what DuckDB is sure of ---


def _by_kind() -> list[str]:
    """The columns that can be of a wrong type, those of one kind together."""
    found = columns()
    return [name for kind in _WRONG for name in found if found[name] == kind]


def _sure() -> str:
    """What holds of a line that `valid.check` accepts, whatever else it says: the same or more."""
    names = _by_kind()
    kinds = columns()
    checks = [
        f"size < {MAX_LINE}",
        "session IS NOT NULL",
        "seq BETWEEN 1 AND 9007199254740991",
        f"regexp_full_match(time, '{_TIME}') AND time > '0001'",
        "TRY_CAST(time[1:10] AS DATE) IS NOT NULL",
        f"(error_code IS NULL OR error_code IN ({_list(ERRORS)}))",
    ]
    for kind, wrong in _WRONG.items():
        numbers = [number for number, name in enumerate(names, 1) if kinds[name] == kind]
        said = f"kinds[{numbers[0]}:{numbers[-1]}]"
        checks.append(f"NOT list_has_any({said}, [{_list(wrong)}])")
    checks += [f"coalesce({name}, true)" for name in _of(kinds, "true")]
    checks.append(
        f"CASE type WHEN 'session_start' THEN schema = {SCHEMA}"
        f" WHEN 'event' THEN {_sure_failure()} AND {_sure_numbers()}"
        f" WHEN 'flow' THEN {_sure_flow()} AND {_sure_numbers()}"
        " WHEN 'gap' THEN dropped >= 0"
        f" WHEN 'stats' THEN {' AND '.join(f'{name} >= 0' for name in (*PARTS, 'parts'))} END"
    )
    assert set(TYPES) == {"session_start", "flow", "event", "gap", "stats"}
    return " AND ".join(checks)


def _of(kinds: Any, kind: Kind) -> list[str]:
    return [name for name, of in kinds.items() if of == kind]


def _sure_failure() -> str:
    return "error_code IS NOT NULL AND cause <> ''"


def _sure_numbers() -> str:
    ports = ("port", "client_port", "close_code")
    return " AND ".join(f"({name} IS NULL OR {name} BETWEEN 0 AND 65535)" for name in ports)


def _sure_flow() -> str:
    bands = " ".join(
        f"WHEN status BETWEEN {100 * number} AND {100 * number + 99} THEN '{band}'"
        for number, band in enumerate(BANDS, 1)
    )
    counts = [f"({name} IS NULL OR {name} BETWEEN 0 AND 9007199254740991)" for name in SIZES]
    times = [f"({name} IS NULL OR ({name} >= 0 AND {name} < 1e15))" for name in DURATIONS]
    return (
        f"kind IN ({_list(KINDS)}) AND CASE outcome"
        " WHEN 'status' THEN description IS NOT NULL"
        f" AND band = CASE {bands} ELSE '{BANDS[-1]}' END"
        " AND (cause IS NULL OR error_code IS NOT NULL)"
        " AND (error_code IS NULL OR coalesce(cause <> '', true))"
        " WHEN 'cancelled' THEN error_code IS NULL AND cause <> ''"
        f" WHEN 'error' THEN {_sure_failure()}"
        " WHEN 'ok' THEN error_code IS NULL AND cause IS NULL"
        " WHEN 'unfinished' THEN error_code IS NULL AND cause IS NULL END"
        f" AND (challenge IS NULL OR challenge IN ({_list(CHALLENGE_CODES)}))"
        f" AND {' AND '.join([*counts, *times])}"
    )


def _list(values: Any) -> str:
    return ", ".join(
        _text(value) if isinstance(value, str) else str(value) for value in sorted(values)
    )


# --- each record once ---


def _once(connection: DuckDBPyConnection) -> None:
    """Let go of copies of records. Most sessions have none, and are only counted."""
    connection.execute(
        "CREATE TEMPORARY TABLE copied AS"
        " SELECT session FROM loaded GROUP BY session HAVING count(*) <> count(DISTINCT seq)"
    )
    connection.execute(
        "DELETE FROM loaded WHERE session IN (FROM copied) AND rowid NOT IN ("
        "SELECT min(rowid) FROM loaded WHERE session IN (FROM copied) GROUP BY session, seq)"
    )
    connection.execute("DROP TABLE copied")
