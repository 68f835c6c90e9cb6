"""Which test ran at which time. Pure.

Tests run one after the other, and a request belongs to the one during which it began, whoever made
it: the test's own thread, another one, or a process that the test started.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right

from .redaction import printable

MAX_NAME = 500
"""Longest name of a test that is kept, in characters."""
MAX_CHANGES = 10_000
"""How many beginnings and ends of tests are remembered: what began before has no test."""
_DIGITS = 8


def name_of(node: str) -> str:
    """The name under which records hold a test. `node`: pytest's node id, as it is in nearly all
    cases; one that is too long or cannot be printed gets a hash, so that no two are equal."""
    name = printable(node, MAX_NAME)
    if name == node:
        return name
    digest = hashlib.sha256(node.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return f"{printable(node, MAX_NAME - _DIGITS - 1)}#{digest}"


class CurrentTest:
    """The tests of a run, by time."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._tests: list[str] = []

    def change(self, test: str, time: float) -> None:
        """From `time` on (Unix time) this test runs, or "", none. Times do not go back, even where
        the clock is set back."""
        self._times.append(max(time, self._times[-1]) if self._times else time)
        self._tests.append(test)
        if len(self._times) > MAX_CHANGES:
            del self._times[0], self._tests[0]

    def at(self, time: float) -> str:
        """The test that ran at a time; "" where none did."""
        index = bisect_right(self._times, time) - 1
        return self._tests[index] if index >= 0 else ""
