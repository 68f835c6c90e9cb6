"""The columns of the session log as engines declare them, taken from `known/record.schema.json`.

A column is there for each field of a record that is a value: the rows of checkpoints and the
options of a session, whose fields are others each time, are left out. Pure, and without an engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from collections.abc import Mapping
from functools import cache
from typing import Any
from typing import Literal

from ..vocabulary import KNOWN

Kind = Literal["text", "integer", "number", "true", "texts"]
"""What a field is: `true` stands for one that is true or left out, `texts` for a list of texts."""
Engine = Literal["duckdb", "spark"]

TYPES: Mapping[Engine, Mapping[Kind, str]] = {
    "duckdb": {
        "text": "VARCHAR",
        "integer": "BIGINT",
        "number": "DOUBLE",
        "true": "BOOLEAN",
        "texts": "VARCHAR[]",
    },
    "spark": {
        "text": "STRING",
        "integer": "BIGINT",
        "number": "DOUBLE",
        "true": "BOOLEAN",
        "texts": "ARRAY<STRING>",
    },
}
"""Engine → what it calls each kind of field."""

_RECORDS = ("session_start", "flow", "event", "gap", "stats")


@cache
def columns() -> Mapping[str, Kind]:
    """Field → what it is, of all types of records together: a field is the same everywhere."""
    schema = json.loads((KNOWN / "record.schema.json").read_text(encoding="utf-8"))
    definitions = schema["$defs"]
    found: dict[str, Kind] = {}
    for properties in [schema, *(definitions[name] for name in _RECORDS)]:
        for name, said in _properties(properties, definitions):
            kind = _kind(said, definitions)
            if kind is not None and found.setdefault(name, kind) != kind:
                raise ValueError(
                    f"{name} is {found[name]} in one type of record, {kind} in another"
                )
    return found


def declared(engine: Engine) -> Iterator[tuple[str, str]]:
    """The columns, each with its type as an engine calls it."""
    for name, kind in columns().items():
        yield name, TYPES[engine][kind]


def _properties(
    said: Mapping[str, Any], definitions: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The fields of an object, those of what it refers to first."""
    if "$ref" in said:
        yield from _properties(_referred(said, definitions), definitions)
    yield from said.get("properties", {}).items()


def _kind(said: Mapping[str, Any], definitions: Mapping[str, Any]) -> Kind | None:
    """What a field is; None of what is no column."""
    while "$ref" in said:
        said = _referred(said, definitions)
    values = said.get("enum", [said["const"]] if "const" in said else [])
    if values:
        return "true" if values == [True] else "integer" if type(values[0]) is int else "text"
    if said["type"] == "array":
        is_text = said["items"].get("type") == "string"
        return "texts" if is_text else None
    kinds: Mapping[str, Kind] = {"string": "text", "integer": "integer", "number": "number"}
    return kinds.get(said["type"])


def _referred(said: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    name: str = said["$ref"].rpartition("/")[2]
    found: Mapping[str, Any] = definitions[name]
    return found
