"""The session log as it is in other engines: all records, and one type for each field."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from lab import engines
from lab.cli import final
from lab.cli import lines
from lab.sessions import everything

MUST = bool(os.environ.get("FLOWTALLY_ENGINES"))
"""The environment is there for these tests: what is missing is a fault of it."""


def engine(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        if MUST:
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed; .ci/run has an environment for it")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log with all types of records, first 25,000 that say little: more than engines look at."""
    little = everything(1)[0]
    later = engines.one_log(tmp_path)[0].read_bytes()
    path = tmp_path / "all.jsonl"
    gap = {"type": "gap", "session": "00000009", "seq": 1, "time": little["time"], "dropped": 3}
    ended = final(*everything(30)[1:], session="00000009")
    start = {**little, "session": "00000009", "modes": ["regular"], "options": {"flowtally_x": "y"}}
    path.write_bytes(
        lines(start, *[{**gap, "seq": number + 2} for number in range(25_000)])
        + later[: later.rindex(b"\n") + 1]
        + lines({**ended, "seq": 30_000})
    )
    return path


def expected(log: Path) -> tuple[int, dict[str, int], int]:
    """How many records there are and flows of each outcome, and the sum of `response_bytes`."""
    records = [json.loads(line) for line in log.read_bytes().splitlines()]
    outcomes: dict[str, int] = {}
    for record in records:
        if record["type"] == "flow":
            outcomes[record["outcome"]] = outcomes.get(record["outcome"], 0) + 1
    return len(records), outcomes, sum(record.get("response_bytes", 0) for record in records)


OUTCOMES = "SELECT outcome, count(*) FROM {} WHERE type = 'flow' GROUP BY outcome"
SUMS = "SELECT count(*), sum(response_bytes) FROM {}"


def test_duckdb_reads_it_as_it_is(log: Path) -> None:
    duckdb = engine("duckdb")
    records, outcomes, received = expected(log)
    source = f"read_json('{log}', sample_size = -1)"
    assert duckdb.sql(SUMS.format(source)).fetchall() == [(records, received)]
    assert dict(duckdb.sql(OUTCOMES.format(source)).fetchall()) == outcomes
    types = {name: str(kind) for name, kind, *_ in duckdb.sql(f"DESCRIBE FROM {source}").fetchall()}
    assert (types["status"], types["wait_ms"], types["stream"], types["cause"]) == (
        "BIGINT",
        "DOUBLE",
        "BOOLEAN",
        "VARCHAR",
    )
    assert types["time"].startswith("TIMESTAMP")
    assert types["rows"].startswith("STRUCT(")


def test_polars_reads_it_as_it_is(log: Path) -> None:
    polars = engine("polars")
    records, outcomes, received = expected(log)
    frame = polars.read_ndjson(log, infer_schema_length=None)
    assert (len(frame), frame["response_bytes"].sum()) == (records, received)
    flows = frame.filter(polars.col("type") == "flow")
    assert dict(flows.group_by("outcome").len().iter_rows()) == outcomes
    types = {name: str(kind) for name, kind in frame.schema.items()}
    assert (types["time"], types["status"], types["wait_ms"], types["stream"], types["cause"]) == (
        "String",
        "Int64",
        "Float64",
        "Boolean",
        "String",
    )
    assert types["rows"].startswith("List(Struct(")


def test_pandas_reads_it_as_it_is(log: Path) -> None:
    pandas = engine("pandas")
    records, outcomes, received = expected(log)
    frame = pandas.read_json(log, lines=True)
    assert (len(frame), frame["response_bytes"].sum()) == (records, received)
    flows = frame[frame["type"] == "flow"]
    assert dict(flows.groupby("outcome").size()) == outcomes
    types = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert (types["seq"], types["status"], types["wait_ms"]) == ("int64", "float64", "float64")


def test_clickhouse_reads_it_as_it_is(log: Path) -> None:
    chdb = engine("chdb")
    records, outcomes, received = expected(log)
    source = f"file('{log}', 'JSONEachRow')"
    settings = "SETTINGS input_format_max_rows_to_read_for_schema_inference = 1000000"

    def ask(query: str) -> list[list[Any]]:
        said = str(chdb.query(f"{query} {settings}", "JSONCompactEachRow"))
        return [json.loads(line) for line in said.splitlines()]

    assert [list(map(int, row)) for row in ask(SUMS.format(source))] == [[records, received]]
    found = {outcome: int(count) for outcome, count in ask(OUTCOMES.format(source))}
    assert found == outcomes
    types = {name: kind for name, kind, *_ in ask(f"DESCRIBE {source}")}
    assert (types["status"], types["wait_ms"], types["cause"]) == (
        "Nullable(Int64)",
        "Nullable(Float64)",
        "Nullable(String)",
    )
    assert types["rows"].startswith("Array(Nullable(Tuple(")
