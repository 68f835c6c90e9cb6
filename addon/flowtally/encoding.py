"""Records as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)

_decoder = json.JSONDecoder(strict=False)

# json.JSONEncoder makes a new one of these for each call; a Python without the C accelerator has
# none.
_make_c_encoder: Any = getattr(json.encoder, "c_make_encoder", None)
_encode_c: Any = _make_c_encoder and _make_c_encoder(
    None, _encoder.default, json.encoder.encode_basestring, None, ":", ",", False, False, True
)


def encode(record: Mapping[str, Any]) -> bytes:
    """A record as a line of the log: JSON, in UTF-8, with its line end. Half of a surrogate pair
    becomes a question mark."""
    text = "".join(_encode_c(record, 0)) if _encode_c else _encoder.encode(record)
    return (text + "\n").encode("utf-8", "replace")


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


def without_rows(line: bytes) -> bytes:
    """A record of a checkpoint, as the addon writes it, with its rows left out: they come last, and
    are most of it. A text cannot hold what they begin with, for its quotes are escaped."""
    head, begin, _ = line.partition(b',"rows":[')
    return head + begin + b"]}" if begin else line
