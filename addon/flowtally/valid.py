"""Whether something read from a log is a record that can be counted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from .vocabulary import BANDS
from .vocabulary import ERRORS
from .vocabulary import KINDS
from .vocabulary import OUTCOMES

_TYPES = ("flow", "event", "stats", "session_start", "gap")
_TEXTS: Sequence[str] = ("host", "method", "url", "flow", "cause", "detail", "description")


def check(record: Any) -> str:
    """Why something read from a log is no record that can be counted; "" if it is one.

    Checks what the tally relies on; the whole format is `known/record.schema.json`.
    """
    if not isinstance(record, dict):
        return "not a record"
    get = record.get
    kind = get("type")
    if kind not in _TYPES:
        return "not a flowtally record" if kind is None else f"unknown record type {kind!r:.40}"
    if not isinstance(get("session"), str):
        return "a record without a session"
    try:
        if datetime.fromisoformat(record["time"]).utcoffset() is None:
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return f"time is {get('time')!r:.40}, not RFC 3339"
    if kind == "gap":
        return "" if _is_count(get("dropped")) else f"dropped is {get('dropped')!r:.40}"
    if kind == "stats":
        return "" if _is_count(get("log_bytes", 0)) else f"log_bytes is {get('log_bytes')!r:.40}"
    if kind not in ("flow", "event"):
        return ""
    for name in _TEXTS:
        if not isinstance(get(name, ""), str):
            return f"{name} is {get(name)!r:.40}, not text"
    for name in ("port", "close_code"):
        if type(get(name, 0)) is not int or not 0 <= get(name, 0) < 2**16:
            return f"{name} is {get(name)!r:.40}, not a number"
    error_code = get("error_code")
    if error_code is not None and (type(error_code) is not int or error_code not in ERRORS):
        return f"unknown error code {error_code!r:.40}"
    if kind == "event":
        return "" if error_code is not None and get("cause") else "an event without a cause"
    if get("outcome") not in OUTCOMES:
        return f"unknown outcome {get('outcome')!r:.40}"
    if get("kind") not in KINDS:
        return f"unknown kind {get('kind')!r:.40}"
    if record["outcome"] == "status":
        if (
            type(get("status")) is not int
            or get("band") not in BANDS
            or "description" not in record
        ):
            return f"status is {get('status')!r:.40} in band {get('band')!r:.40}"
    elif (error_code or record["outcome"] == "error") and not (error_code and get("cause")):
        return "a failure without a cause"
    for name in ("request_bytes", "response_bytes"):
        if not _is_count(get(name, 0)):
            return f"{name} is {get(name)!r:.40}, not a count"
    for name in ("wait_ms", "duration_ms"):
        value = get(name, 0)
        if type(value) not in (int, float) or not 0 <= value < 1e15:
            return f"{name} is {value!r:.40}, not a time"
    return ""


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53
