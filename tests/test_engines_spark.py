"""Session logs in Spark: every figure of the report, from a Spark of one's own on this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from flowtally.engines.views import VIEWS
from lab import engines
from lab.cli import run

MUST = bool(os.environ.get("FLOWTALLY_ENGINES"))
"""The environment is there for these tests: what is missing is a fault of it."""
QUICK = {
    # There is little data: what compiles takes longer than what it makes faster.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.files.openCostInBytes": "1024",
    "spark.sql.shuffle.partitions": "2",
    "spark.driver.memory": "1g",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        _without("pyspark")
    if shutil.which("java") is None:
        _without("Java")
    building = SparkSession.builder.master("local[2]")
    for name, value in QUICK.items():
        building = building.config(name, value)
    session = building.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


def _without(what: str) -> None:
    if MUST:
        pytest.fail(f"{what} is not installed")
    pytest.skip(f"{what} is not installed; .ci/run has an environment for it")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("make", [engines.one_log, engines.fleet])
def test_every_figure_is_that_of_the_report(
    spark: Any, make: Callable[[Path], list[Path]], tmp_path: Path
) -> None:
    paths = make(tmp_path)
    # Two paths, each with some of the logs, or one.
    patterns = [tmp_path / "*[0-4].jsonl", tmp_path / "*[!0-4].jsonl"]
    given = patterns if len(paths) > 1 else [tmp_path]
    for statement in run("sql", "--spark", *given).stdout.split(";\n\n"):
        if statement.strip():
            spark.sql(statement)
    spark.catalog.cacheTable("records")

    def ask(query: str) -> Sequence[engines.Row]:
        return [row.asDict() for row in spark.sql(query).collect()]

    try:
        engines.check(ask, paths)
        assert all(spark.sql(f"SELECT * FROM {view} LIMIT 1").columns for view in VIEWS)
        (exchange,) = ask("SELECT * FROM otel WHERE `http.response.status_code` = 503 LIMIT 1")
        assert (exchange["error.type"], exchange["server.port"]) == ("503", 80)
    finally:
        spark.catalog.clearCache()
