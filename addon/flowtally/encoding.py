"""Records as lines of JSON.

Records of a kind have the same fields in the same order, and hardly a text of theirs has anything
to escape. So a line is made from a template of its shape, which costs half of what the `json`
module takes for it. What a template cannot hold is left to `json`, value by value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any
from typing import NamedTuple

MAX_SHAPES = 500
"""How many shapes of records are remembered; the addon makes a few dozen."""

_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)
_decoder = json.JSONDecoder(strict=False)

_ESCAPED = bytes([*range(0x20), *b"\\"])
"""What must be escaped within a string, beside the quotation mark (RFC 8259 §7)."""
_PLACES = {str: '"%s"', int: "%d", float: "%r"}
"""Type of a value → its place in a template. Values of other types are encoded beforehand."""


class Encoded(str):
    """JSON already, which goes into a line as it is."""

    __slots__ = ()


class Shape(NamedTuple):
    """What lines have in common whose records have the same fields, of the same types."""

    template: str
    quotes: int
    """How many quotation marks it makes where no text holds any."""
    others: tuple[int, ...]
    """Which values have no place in it as they are."""


_shapes: dict[tuple[Any, ...], Shape] = {}
"""Names of the fields and types of their values → shape."""


def encode(record: Mapping[str, Any]) -> bytes:
    """A record as a line of the log: JSON, in UTF-8, with its line end.

    Values are what JSON knows, or `Encoded`; floats are finite. Half of a surrogate pair becomes a
    question mark.
    """
    values = list(record.values())
    key = tuple(record), tuple(map(type, values))
    shape = _shapes.get(key)
    if shape is None:
        shape = _remember(key, record)
    quotes = shape.quotes
    for number in shape.others:
        value = values[number]
        values[number] = text = value if type(value) is Encoded else _encoder.encode(value)
        quotes += text.count('"')
    line = (shape.template % tuple(values)).encode("utf-8", "replace")
    # Whether a text holds what must be escaped is seen in the line faster than in each of them.
    if line.count(b'"') == quotes and len(line.translate(None, _ESCAPED)) == len(line) - 1:
        return line
    for number, value in enumerate(values):
        if key[1][number] is str:
            values[number] = encode_basestring(value)[1:-1]
    return (shape.template % tuple(values)).encode("utf-8", "replace")


def _remember(key: tuple[Any, ...], record: Mapping[str, Any]) -> Shape:
    fields = [
        f"{_encoder.encode(name).replace('%', '%%')}:{_PLACES.get(type(value), '%s')}"
        for name, value in record.items()
    ]
    template = "{" + ",".join(fields) + "}\n"
    others = (number for number, kind in enumerate(key[1]) if kind not in _PLACES)
    shape = Shape(template, template.count('"'), tuple(others))
    if len(_shapes) >= MAX_SHAPES:
        _shapes.clear()
    _shapes[key] = shape
    return shape


def decode(line: bytes) -> Any:
    """What a line of a log holds. Control characters may stand in strings. Raises: ValueError."""
    text = line.decode().strip()
    try:
        value, end = _decoder.raw_decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if end != len(text):
        raise ValueError("more than one value")
    return value
