"""The SQL of `known/`: the views, and what each engine needs beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Sequence

from ..vocabulary import KNOWN
from .schema import Engine
from .schema import declared

VIEWS = (
    *("flows", "events", "sessions", "totals", "bands", "codes", "errors", "causes", "sides"),
    *("hosts", "endpoints", "incidents", "media_types", "methods", "protocols", "background"),
    *("timeline", "otel"),
)
"""What a query can ask, beside `records`."""


def statements(engine: Engine) -> Iterator[str]:
    """What makes the views in an engine that has `lines`, statement by statement."""
    shared: dict[str, str] = {}
    for name in (f"engine.{engine}.sql", "views.sql"):
        text = (KNOWN / name).read_text(encoding="utf-8")
        for statement in re.split(r";$", text, flags=re.MULTILINE):
            code = re.sub(r"^\s*--.*\n", "", statement, flags=re.MULTILINE).strip()
            for brace, columns in shared.items():
                code = code.replace(brace, columns)
            if found := re.search(r"^-- (\{[a-z]+\})", statement, re.MULTILINE):
                shared[found[1]] = code
            elif code:
                yield code


def columns_of(engine: Engine) -> str:
    """The columns of `lines` as a declaration."""
    return ", ".join(f"`{name}` {kind}" for name, kind in declared(engine))


def spark_script(logs: Sequence[str]) -> str:
    """All that `spark-sql`, or a session of Spark's, needs to ask logs: paths, folders or
    patterns."""
    # Spark takes one path in an option: a list of them is to it one path with commas in it.
    names = ["lines"] if len(logs) == 1 else [f"lines{number}" for number in range(len(logs))]
    found = [_spark_view(name, log) for name, log in zip(names, logs, strict=True)]
    if len(logs) > 1:
        all_lines = "\nUNION ALL\n".join(f"SELECT * FROM {name}" for name in names)
        found.append(f"CREATE OR REPLACE TEMPORARY VIEW lines AS\n{all_lines}")
    return "".join(f"{statement};\n\n" for statement in (*found, *statements("spark")))


def _spark_view(name: str, log: str) -> str:
    path = log.replace("\\", "\\\\").replace("'", "\\'")
    return (
        f"CREATE OR REPLACE TEMPORARY VIEW {name} ({columns_of('spark')})\n"
        f"USING json OPTIONS (path '{path}')"
    )
