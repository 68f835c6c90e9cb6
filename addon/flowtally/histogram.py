"""How times are distributed: counts in buckets, from which percentiles are read."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from itertools import compress
from math import ceil
from typing import Any

FIRST = 100
"""The first bucket holds all up to this many microseconds."""
GROWTH = 1.04
"""Each bucket is so many times as wide as the one before: what stands for its values, the middle,
is within 2 % of each."""
SIZE = 530
"""How many buckets there are; the last begins later than a day."""
STARTS = [FIRST + 1, *(ceil(FIRST * GROWTH**number) for number in range(1, SIZE - 1))]
"""The least time of each bucket but the first, in microseconds."""
MOST = 2**31
"""What a bucket of a log may hold; it leaves room to count on."""
SPARSE = 24
"""Up to so many buckets are kept in a dictionary; an array of all would be no larger then."""

PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
"""Name of a percentile → the share of all values that do not exceed it."""
POINTS = (*PERCENTILES, "max")
"""What is said of a distribution, in this order."""


def bucket(microseconds: int) -> int:
    """The number of the bucket that holds a time."""
    return bisect_right(STARTS, microseconds)


def middle(number: int) -> float:
    """The time in ms that stands for all of a bucket."""
    return FIRST * GROWTH ** (number - 0.5 if number else 0) / 1000


def count_time(milliseconds: float, histograms: Iterable[Histogram]) -> int:
    """Count a time in several distributions: its bucket is the same in all of them. Returns the
    bucket's number."""
    microseconds = round(milliseconds * 1000)
    number = bucket(microseconds)
    for histogram in histograms:
        histogram.microseconds += microseconds
        if microseconds > histogram.longest:
            histogram.longest = microseconds
        try:
            histogram.buckets[number] += 1
        except KeyError:  # seldom: most times fall where others did
            histogram.begin(number, 1)
    return number


class Histogram:
    """A distribution of times. It counts whole microseconds, which add up exactly, and speaks of
    milliseconds; two of them can be added."""

    __slots__ = ("buckets", "longest", "microseconds")

    def __init__(self) -> None:
        self.buckets: dict[int, int] | array[int] = {}
        self.longest = 0
        """In microseconds."""
        self.microseconds = 0
        """The sum."""

    def __bool__(self) -> bool:
        """Whether anything was counted."""
        return bool(self.buckets)

    @property
    def count(self) -> int:
        """How many times were counted."""
        return sum(self.buckets if isinstance(self.buckets, array) else self.buckets.values())

    @property
    def maximum(self) -> float:
        """The longest time in ms."""
        return self.longest / 1000

    @property
    def mean(self) -> float:
        """The arithmetic mean in ms; 0 of nothing."""
        count = self.count
        return round(self.microseconds / count / 1000, 3) if count else 0.0

    def merge(self, other: Histogram) -> None:
        """Add what `other` counted."""
        for number, count in other.filled():
            try:
                self.buckets[number] = min(self.buckets[number] + count, MOST)
            except KeyError:
                self.begin(number, count)
        self.microseconds += other.microseconds
        self.longest = max(self.longest, other.longest)

    def begin(self, number: int, count: int) -> None:
        """Hold a bucket that the dictionary does not have."""
        self.buckets[number] = count
        if len(self.buckets) > SPARSE:
            self._densify()

    def filled(self) -> list[tuple[int, int]]:
        """The buckets that hold anything, in order: their numbers and counts."""
        if isinstance(self.buckets, array):
            numbers = compress(range(SIZE), self.buckets)
            return list(zip(numbers, filter(None, self.buckets), strict=True))
        return sorted(self.buckets.items())

    def percentiles(self) -> dict[str, float]:
        """PERCENTILES → the value in ms that this share of all values do not exceed; 0 of
        nothing."""
        found: dict[str, float] = {}
        of = self.count
        shares = iter(PERCENTILES.items())
        name, share = next(shares)
        passed = 0
        for number, count in self.filled():
            passed += count
            while passed >= share * of:
                # Of few times, a percentile is the longest one, which is known.
                is_longest = share * of > of - 1
                found[name] = round(
                    self.maximum if is_longest else min(middle(number), self.maximum), 3
                )
                following = next(shares, None)
                if following is None:
                    return found
                name, share = following
        return dict.fromkeys(PERCENTILES, 0.0)

    def points(self) -> dict[str, float]:
        """POINTS in ms; empty of nothing."""
        return {**self.percentiles(), "max": self.maximum} if self else {}

    def to_data(self) -> dict[str, Any]:
        """As it stands in the log: `count`; `sum_ms`, `max_ms`; `buckets`, for each that holds
        anything two numbers: how many empty ones lie before it, and its count."""
        buckets: list[int] = []
        before = 0
        for number, count in self.filled():
            buckets += (number - before, count)
            before = number + 1
        return {
            "count": self.count,
            "sum_ms": self.microseconds / 1000,
            "max_ms": self.longest / 1000,
            "buckets": buckets,
        }

    @classmethod
    def from_data(cls, data: Any) -> Histogram:
        """What `to_data` made. Raises: ValueError."""
        self = cls()
        if not isinstance(data, dict):
            raise ValueError("a distribution must be an object")
        buckets = data.get("buckets")
        if not isinstance(buckets, list) or len(buckets) % 2 or set(map(type, buckets)) - {int}:
            raise ValueError("'buckets' must be a list of pairs of whole numbers")
        gaps, counts = buckets[::2], buckets[1::2]
        if counts:
            if min(gaps) < 0 or sum(gaps) + len(gaps) > SIZE:
                raise ValueError("'buckets' has one that does not exist")
            if min(counts) <= 0 or max(counts) > MOST:
                raise ValueError("'buckets' has one that holds nothing or too much")
        if len(counts) > SPARSE:
            self._densify()
        number = -1
        for gap, count in zip(gaps, counts, strict=True):
            number += gap + 1
            self.buckets[number] = count
        self.microseconds = _microseconds(data, "sum_ms")
        self.longest = _microseconds(data, "max_ms")
        return self

    def _densify(self) -> None:
        filled = self.filled()
        self.buckets = array("I", bytes(4 * SIZE))
        for number, count in filled:
            self.buckets[number] = count


def _microseconds(data: dict[str, Any], name: str) -> int:
    value = data.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e30:
        raise ValueError(f"{name!r} must be a time in ms, not {value!r:.40}")
    return round(value * 1000)
