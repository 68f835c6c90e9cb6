"""Times as records hold them: RFC 3339 in UTC, and milliseconds between two timestamps."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from functools import lru_cache

# A float: to compare a flow's times with a large integer takes Python long.
_LAST_SECOND = 253402300799.0  # 9999-12-31T23:59:59Z, the last one that RFC 3339 can write
_LONGEST = _LAST_SECOND * 1e6


_MILLISECONDS = tuple(f".{number:03d}Z" for number in range(1000))
"""How each of a second's milliseconds is written."""


@lru_cache(maxsize=64)
def whole_second(second: int) -> str:
    """Unix time → RFC 3339 up to the second, without zone."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def timestamp(seconds: float) -> str:
    """Unix time → RFC 3339, UTC, with milliseconds. What no date can hold becomes the nearest."""
    if not 0.0 <= seconds <= _LAST_SECOND:
        seconds = _LAST_SECOND if seconds > _LAST_SECOND else 0.0
    second = int(seconds)
    return whole_second(second) + _MILLISECONDS[int((seconds - second) * 1000.0)]


def milliseconds(start: float | None, end: float | None) -> float | None:
    """The time between two timestamps in ms, never negative; None where one is missing."""
    if start is None or end is None:
        return None
    elapsed = (end - start) * 1e6 + 0.5
    if 0.0 < elapsed < _LONGEST:
        return elapsed // 1.0 / 1000.0
    # Clocks can be set back; infinity and NaN come only from broken files.
    return 0.0 if elapsed <= 0.0 else None
