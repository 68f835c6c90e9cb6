"""Records as lines of JSON."""

from __future__ import annotations

import json
import re
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
    """A record as a line of the log."""
    text = "".join(_encode_c(record, 0)) if _encode_c else _encoder.encode(record)
    return (text + "\n").encode("utf-8", "replace")


PLAIN = (
    '{"type":"flow","session":"%s","time":"%s","flow":"%s","kind":"http","client":"%s:%s",'
    '"method":"%s","url":"%s","host":"%s","port":%d,"http_version":"%s","request_bytes":%d,'
    '"response_bytes":%d,"wait_ms":%d.%03d,"duration_ms":%d.%03d,%s}\n'
)
"""The line of a plain HTTP exchange, which most are; what is left open at its end is the tag."""
PLAIN_FIELDS = frozenset(re.findall(r'"(\w+)":', PLAIN))

# What is looked at must be read as JSON, which knows escapes; what is not must have none.
_TEXT, _PLAIN_TEXT = rb'[^"\n]*+', rb'[^"\\\n]*+'
_COUNT, _TIME = rb"(0|[1-9]\d{0,14})", rb"((?:0|[1-9]\d{0,8})\.\d{3})"
PLAIN_LINE = re.compile(
    rb'\{"type":"flow","session":"(' + _TEXT + rb')",'
    rb'"time":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z","flow":"' + _PLAIN_TEXT + rb')",'
    rb'"kind":"http","client":"' + _PLAIN_TEXT + rb'",'
    rb'"method":"([A-Z]++","url":"' + _TEXT + rb')",'
    rb'("host":"' + _TEXT + rb'","port":\d{1,5}),"http_version":"' + _PLAIN_TEXT + rb'",'
    rb'"request_bytes":' + _COUNT + rb',"response_bytes":' + _COUNT + rb","
    rb'"wait_ms":' + _TIME + rb',"duration_ms":' + _TIME + rb","
    rb'("outcome":"status",[^{}\n]*+)\}\n'
    rb"|([^\n]++\n?|\n)"
)
"""Each line of a log: of those that `PLAIN` makes, session, time with flow, method with URL, the
fields host and port, bytes sent and received, wait, duration and the fields of the tag; last, any
other line. Whether the pieces are JSON, and UTF-8, is left to be found out."""


def decode(line: bytes) -> Any:
    """What a line of a log holds. Control characters may stand in strings. Raises: ValueError."""
    try:
        return _decoder.decode(line.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
