"""When something happened: the first and the last time, and how often in between.

Bounded, as blocks of time are.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from math import floor
from typing import Any

from .blocks import COUNT
from .blocks import MAX_BLOCKS
from .blocks import WIDTHS
from .blocks import Blocks


class Moments:
    """Times at which something happened."""

    __slots__ = ("_blocks", "first", "last")

    def __init__(self) -> None:
        self.first = ""
        """RFC 3339; "" of nothing."""
        self.last = ""
        self._blocks = Blocks()

    def __bool__(self) -> bool:
        return bool(self.first)

    @property
    def seconds(self) -> int:
        """How long a point of time is."""
        return self._blocks.seconds

    @property
    def points(self) -> dict[int, int]:
        """Where a point of time begins, Unix time → how often it happened in it."""
        return {start: counts[COUNT] for start, counts in self._blocks.starts().items()}

    def add(self, time: str) -> None:
        """Count something that happened at `time`, RFC 3339."""
        self._span(time, time)
        self._blocks.at(unix_second(time))[COUNT] += 1

    def merge(self, other: Moments) -> None:
        """Add what `other` counted."""
        if not other:
            return
        self._span(other.first, other.last)
        self._blocks.merge(other._blocks)

    def _span(self, first: str, last: str) -> None:
        if not self.first or first < self.first:
            self.first = first
        if last > self.last:
            self.last = last

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
        if len(points) > 2 * MAX_BLOCKS or any(abs(number) > 10**15 for number in points):
            raise ValueError("'points' has too many of them, or one that cannot be")
        if any(times <= 0 for times in points[1::2]):
            raise ValueError("'points' has one in which nothing happened")
        self.first, self.last = data["first"], data["last"]
        self._blocks.number = WIDTHS.index(data["seconds"])
        for start, times in zip(points[::2], points[1::2], strict=True):
            self._blocks.at(start)[COUNT] += times
        return self


def unix_second(time: str) -> int:
    """RFC 3339 in UTC → Unix time, of the second that it is in. Raises: ValueError."""
    return floor(datetime.fromisoformat(f"{time[:19]}Z").timestamp())
