"""`flowtally sql` and `flowtally export`: session logs in DuckDB, an extra of the command line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..inputs import named
from ..inputs import newest
from ..inputs import say_notes
from ..terminal import show
from ..terminal import stop
from ..terminal import tell

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

NEEDS = "this needs DuckDB: pip install 'flowtally[duckdb]'"


@click.command()
@click.argument("inputs", nargs=-1, metavar="[FOLDER_OR_LOG]... QUERY")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a list of objects.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--spark", is_flag=True, help="Print what Spark's SQL needs for the same views.")
def sql(inputs: tuple[str, ...], as_json: bool, as_csv: bool, spark: bool) -> None:
    """Ask session logs in SQL; needs pip install 'flowtally[duckdb]'.

    \b
    flowtally sql logs "SELECT * FROM causes ORDER BY problems DESC"
    flowtally sql logs "FROM incidents WHERE host = 'api.example'" --json

    The views, each as in the report: totals, bands, codes, errors, causes, sides, hosts, endpoints,
    incidents, media_types, methods, protocols, background, timeline (narrow as 240 points allow);
    flows, events, sessions: a row each; otel: HTTP exchanges in OpenTelemetry's names; records: the
    log as it is. They count what is in the log, and each record once.

    A folder stands for the logs in it, rotated ones too, a pattern ('logs/2026-11-*.jsonl') for
    what it matches, - for standard input. Without one: the newest log in the default folder. The
    query reads nothing else, and changes nothing. With --spark there is no QUERY: what is printed
    makes the views of these logs in Spark 4.
    """
    from .asking import Answer
    from .asking import QueryError
    from .asking import as_csv as csv_lines
    from .asking import as_json as json_lines
    from .asking import table
    from .loading import locked

    if as_json + as_csv + spark > 1:
        stop("--json, --csv and --spark: one of them at a time")
    if spark:
        _show_spark(inputs)
        return
    # Not Path.exists, which raises where a query is too long for a name.
    if not inputs or os.path.exists(inputs[-1]):  # noqa: PTH110
        stop('the query is missing; for example: flowtally sql session.jsonl "FROM causes"')
    *given, query = inputs
    with _opened(given) as connection:
        locked(connection)
        try:
            answer = Answer(connection, query)
            write = json_lines if as_json else csv_lines if as_csv else table
            for line in write(answer):
                show(line)
        except QueryError as error:
            stop(str(error))


@click.command()
@click.argument("inputs", nargs=-1, metavar="[FOLDER_OR_LOG]...")
@click.option(
    "--parquet",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    required=True,
    help="Where to write: a folder that is not there yet, or empty.",
)
def export(inputs: tuple[str, ...], parquet: Path) -> None:
    """Write session logs as Parquet; needs pip install 'flowtally[duckdb]'.

    The folder gets flows, events and sessions, each with a folder for each day (UTC):
    flows/day=2026-11-26/data_0.parquet. A flow has its endpoint and the id of its incident with it.
    The folder is there whole, or not at all. LOG is as in flowtally sql.
    """
    from ..output import OutputError
    from ..report.layout import s
    from .export import check
    from .export import export as write

    try:
        check(parquet)
        with _opened(inputs) as connection:
            counts = write(connection, parquet)
    except OutputError as error:
        stop(str(error))
    said = ", ".join(
        f"{count} {name.removesuffix('s')}{s(count)}" for name, count in counts.items()
    )
    tell(f"{parquet}: {said}")


def _show_spark(inputs: Sequence[str]) -> None:
    from .views import spark_script

    if not inputs:
        stop("--spark: name the logs, as Spark is to find them")
    for name in inputs:
        if name == "-":
            stop("--spark: Spark reads no standard input; name the logs, as Spark is to find them")
        if re.match(r"\s*(FROM|SELECT|WITH)\s", name, re.IGNORECASE):
            stop(f"--spark takes no query, only the names of logs: {name}")
    show(spark_script(inputs), end="")


@contextmanager
def _opened(inputs: Sequence[str]) -> Iterator[DuckDBPyConnection]:
    """A database with the records of logs. Says what could not be read and what is missing; ends
    the program if there is no session."""
    from ..captures.lacking import Lacking
    from ..folders import expanded
    from ..logs import Logs
    from ..report import sessions_text
    from .asking import one_line
    from .loading import loaded
    from .loading import missing

    try:
        import duckdb
    except ImportError:
        stop(NEEDS)
    sources = expanded(inputs) or [newest()]
    noted = Logs()
    noted.lacking = lacking = Lacking()
    try:
        with named(sources, lacking) as (opened, _), loaded(opened, noted) as connection:
            some = connection.execute("SELECT 1 FROM records LIMIT 1").fetchall()
            say_notes(noted, inputs or sources, bool(some))
            for session, count in missing(connection):
                tell(sessions_text.missing(session, count))
            yield connection
    except duckdb.Error as error:  # no room for its temporary files
        stop(one_line(error))
