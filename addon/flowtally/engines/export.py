"""Session logs as Parquet: a folder that is written whole or not at all."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ..output import OutputError
from .asking import one_line

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TABLES = ("flows", "events", "sessions")
"""Each becomes a folder, with one for each day in it: `flows/day=2026-11-26/data_0.parquet`. The
day is UTC's, of a flow when it ended, of a session when it began."""


def check(folder: Path) -> None:
    """Whether something may be written there: nothing is there, or an empty folder.

    Raises: OutputError.
    """
    try:
        if folder.is_dir():
            if any(folder.iterdir()):
                raise OutputError(f"{folder}: is not empty; name a folder that is not there yet")
        elif folder.exists() or folder.is_symlink():
            raise OutputError(f"{folder}: is no folder; name one that is not there yet")
        elif not folder.absolute().parent.is_dir():
            raise OutputError(f"{folder}: there is no folder {folder.absolute().parent}")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    except OutputError:
        raise
    except ValueError as error:  # a NUL byte
        raise OutputError(f"{str(folder)!r}: no folder can have that name") from error


def export(connection: DuckDBPyConnection, folder: Path) -> dict[str, int]:
    """Write TABLES, and return how many rows each has. Raises: OutputError."""
    import duckdb

    check(folder)
    target = folder.resolve()
    temporary = target.with_name(f".flowtally-{secrets.token_hex(8)}.tmp")
    try:
        temporary.mkdir()
        counts = {name: _write(connection, name, temporary / name) for name in TABLES}
        temporary.replace(target)  # which an empty folder lets happen
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    except duckdb.Error as error:
        raise OutputError(f"{folder}: cannot be written: {one_line(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return counts


def _write(connection: DuckDBPyConnection, name: str, folder: Path) -> int:
    """A table; one without rows is a file that says which columns there would be."""
    to = str(folder).replace("'", "''")
    ((count,),) = connection.execute(
        f"COPY (SELECT * FROM {name}) TO '{to}'"
        " (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (day))"
    ).fetchall()
    if not count:
        query = "SELECT coalesce(min(day), '1970-01-01') FROM sessions"
        ((day,),) = connection.execute(query).fetchall()
        (folder / f"day={day}").mkdir(parents=True, exist_ok=True)
        connection.execute(
            f"COPY (SELECT * EXCLUDE (day) FROM {name}) TO '{to}/day={day}/data_0.parquet'"
            " (FORMAT parquet)"
        )
    return int(count)
