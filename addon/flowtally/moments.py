"""When something happened: the first and the last time, and how often in between.

Bounded: there are at most MAX_POINTS points of time, which get wider when there are more.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from math import floor
from typing import Any

MAX_POINTS = 24
WIDTHS = (1, 2, 10, 30, 60, 300, 900, 3600, 10800, 43200, 86400, 604800, 6048000, 604800000)
"""Seconds that a point of time may span. Each is a multiple of the one before, so that any two
series of points can be merged."""


class Moments:
    """Times at which something happened."""

    __slots__ = ("first", "last", "number", "points")

    def __init__(self) -> None:
        self.first = ""
        """RFC 3339; "" of nothing."""
        self.last = ""
        self.number = 0
        """Which of WIDTHS a point spans."""
        self.points: dict[int, int] = {}
        """Where a point begins, Unix time → how often it happened in it."""

    def __bool__(self) -> bool:
        return bool(self.first)

    @property
    def seconds(self) -> int:
        """How long a point of time is."""
        return WIDTHS[self.number]

    def add(self, time: str) -> None:
        """Count something that happened at `time`, RFC 3339."""
        self._span(time, time)
        self._count(unix_second(time), 1)

    def merge(self, other: Moments) -> None:
        """Add what `other` counted."""
        if not other:
            return
        self._span(other.first, other.last)
        self._widen(other.number)
        for start, times in other.points.items():
            self._count(start, times)

    def _span(self, first: str, last: str) -> None:
        if not self.first or first < self.first:
            self.first = first
        if last > self.last:
            self.last = last

    def _count(self, second: int, times: int) -> None:
        start = second - second % self.seconds
        self.points[start] = self.points.get(start, 0) + times
        while len(self.points) > MAX_POINTS and self.number < len(WIDTHS) - 1:
            self._widen(self.number + 1)

    def _widen(self, number: int) -> None:
        if number <= self.number:
            return
        self.number = number
        points, self.points = self.points, {}
        for start, times in points.items():
            wider = start - start % self.seconds
            self.points[wider] = self.points.get(wider, 0) + times

    def to_data(self) -> dict[str, Any]:
        """As it stands in the log: `first`, `last`; `seconds`, how long a point of time is;
        `points`, for each its beginning, Unix time, and a count."""
        points = [number for point in sorted(self.points.items()) for number in point]
        return {"first": self.first, "last": self.last, "seconds": self.seconds, "points": points}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Moments:
        """What `to_data` made, from the row of which it is a part; nothing where that says nothing.

        Raises: ValueError.
        """
        self = cls()
        if "first" not in data:
            return self
        for name in ("first", "last"):
            if not isinstance(data.get(name), str):
                raise ValueError(f"{name!r} must be a time, not {data.get(name)!r:.40}")
        if data.get("seconds") not in WIDTHS or isinstance(data["seconds"], bool):
            raise ValueError(f"a point of time cannot span {data.get('seconds')!r:.40} seconds")
        points = data.get("points")
        if not isinstance(points, list) or len(points) % 2 or set(map(type, points)) - {int}:
            raise ValueError("'points' must be a list of pairs of whole numbers")
        if len(points) > 2 * MAX_POINTS or any(abs(number) > 10**15 for number in points):
            raise ValueError("'points' has too many of them, or one that cannot be")
        if any(times <= 0 for times in points[1::2]):
            raise ValueError("'points' has one in which nothing happened")
        self.first, self.last = data["first"], data["last"]
        self.number = WIDTHS.index(data["seconds"])
        for start, times in zip(points[::2], points[1::2], strict=True):
            self._count(start, times)
        return self


def unix_second(time: str) -> int:
    """RFC 3339 in UTC → Unix time, of the second that it is in. Raises: ValueError."""
    return floor(datetime.fromisoformat(f"{time[:19]}Z").timestamp())
