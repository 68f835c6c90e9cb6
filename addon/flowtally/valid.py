"""Whether something read from a log is a record that can be counted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from .vocabulary import CHALLENGE_CODES
from .vocabulary import ERRORS
from .vocabulary import KINDS
from .vocabulary import OUTCOMES
from .vocabulary import SCHEMA
from .vocabulary import band

TYPES = ("session_start", "flow", "event", "gap", "stats")
_TEXTS: Sequence[str] = (
    "host",
    "method",
    "url",
    "flow",
    "answers",
    "cause",
    "client",
    "side",
    "reason",
    "background",
    "detail",
    "description",
    "media_type",
    "test",
)
_NUMBERS: Sequence[str] = ("port", "client_port", "close_code")
SIZES: Sequence[str] = ("request_bytes", "response_bytes")
"""Fields of a flow that are whole numbers from 0."""
DURATIONS: Sequence[str] = ("wait_ms", "duration_ms")
"""Fields of a flow that are times in ms."""
PARTS: Sequence[str] = ("checkpoint", "upto", "part", "log_bytes", "checkpoint_bytes", "dropped")
"""Fields that each part of a checkpoint has, whole numbers from 0."""


def check(record: Any) -> str:
    """Why something read from a log is no record that can be counted; "" if it is one.

    Checks what the tally relies on; the whole format is `known/record.schema.json`.
    """
    if not isinstance(record, dict):
        return "not a record"
    get = record.get
    kind = get("type")
    if kind not in TYPES:
        return "not a flowtally record" if kind is None else f"unknown record type {kind!r:.40}"
    if not isinstance(get("session"), str):
        return "a record without a session"
    if reason := other_schema(record):
        return reason
    if not _is_count(get("seq")) or get("seq") == 0:
        return f"seq is {get('seq')!r:.40}, not a number from 1"
    if not _is_time(get("time")):
        return f"time is {get('time')!r:.40}, not RFC 3339 in UTC with milliseconds"
    if kind == "gap":
        return "" if _is_count(get("dropped")) else f"dropped is {get('dropped')!r:.40}"
    if kind == "stats":
        return _check_checkpoint(record)
    if kind == "session_start":
        return ""
    return _check_fields(record) or (_check_flow if kind == "flow" else _check_event)(record)


def _check_fields(record: dict[str, Any]) -> str:
    """What flows and events have in common."""
    for name in _TEXTS:
        if name in record and not isinstance(record[name], str):
            return f"{name} is {record[name]!r:.40}, not text"
    for name in _NUMBERS:
        if name in record and (type(record[name]) is not int or not 0 <= record[name] < 2**16):
            return f"{name} is {record[name]!r:.40}, not a number"
    error_code = record.get("error_code")
    if error_code is not None and (type(error_code) is not int or error_code not in ERRORS):
        return f"unknown error code {error_code!r:.40}"
    if "status" in record and type(record["status"]) is not int:
        return f"status is {record['status']!r:.40}, not a number"
    return ""


def _check_event(record: dict[str, Any]) -> str:
    fails = record.get("error_code") is not None and record.get("cause")
    return "" if fails else "an event without a cause"


def _check_flow(record: dict[str, Any]) -> str:
    get = record.get
    error_code = get("error_code")
    if get("outcome") not in OUTCOMES:
        return f"unknown outcome {get('outcome')!r:.40}"
    if get("kind") not in KINDS:
        return f"unknown kind {get('kind')!r:.40}"
    if record["outcome"] == "status":
        status = get("status")
        if type(status) is not int or get("band") != band(status) or "description" not in record:
            return f"status is {get('status')!r:.40} in band {get('band')!r:.40}"
    elif record["outcome"] == "cancelled":
        if error_code or not get("cause"):
            return "a cancelled flow with an error code, or without a cause"
    elif (error_code or record["outcome"] == "error") and not (error_code and get("cause")):
        return "a failure without a cause"
    if get("cause") and not error_code and record["outcome"] != "cancelled":
        return "a cause without an error code"
    if get("stream", True) is not True:
        return f"stream is {record['stream']!r:.40}, not true"
    if type(get("challenge", 401)) is not int or get("challenge", 401) not in CHALLENGE_CODES:
        return f"challenge is {record['challenge']!r:.40}, not 401 or 407"
    for name in SIZES:
        if name in record and not _is_count(record[name]):
            return f"{name} is {record[name]!r:.40}, not a count"
    for name in DURATIONS:
        if name in record:
            value = record[name]
            if type(value) not in (int, float) or not 0 <= value < 1e15:
                return f"{name} is {value!r:.40}, not a time"
    return ""


def other_schema(record: dict[str, Any]) -> str:
    """Why a record cannot be read although it is flowtally's: it is of another schema; "" if it is
    not. Records of schema 1 had no `seq`."""
    written = record.get("schema") if record.get("type") == "session_start" else SCHEMA
    if "seq" not in record:
        written = 1
    if type(written) is int and written == SCHEMA:
        return ""
    return f"written in schema {written!r:.20} of the session log; this flowtally reads {SCHEMA}"


def _check_checkpoint(record: dict[str, Any]) -> str:
    for name in PARTS:
        if not _is_count(record.get(name)):
            return f"{name} is {record.get(name)!r:.40}, not a number"
    if not _is_count(record.get("parts", 0)):
        return f"parts is {record['parts']!r:.40}, not a number"
    for name in ("first", "last"):
        if name in record and not _is_time(record[name]):
            return f"{name} is {record[name]!r:.40}, not a time"
    rows = record.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return "statistics without rows"
    return ""


def _is_time(value: Any) -> bool:
    if not isinstance(value, str) or len(value) != 24 or value[23] != "Z":
        return False
    # Python takes all that ISO 8601 has: weeks, commas, and from 3.14 on 24:00; and what follows a
    # NUL. Looked at one by one, because that costs least, and it is done for every record.
    if value[7] != "-" or value[10] != "T" or value[19] != ".":
        return False
    if value[12] == "4" and value[11] == "2":
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return value.isprintable()


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53
