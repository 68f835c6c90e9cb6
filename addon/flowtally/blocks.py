"""How what is counted falls into blocks of time: what a comparison needs to see that requests of
one page, or of one outage, share their fate, and what tells when something happened.

Bounded: there are at most MAX_BLOCKS, which get wider when there are more. Any two series of blocks
can be added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

WIDTHS = (1, 2, 10, 30, 60, 300, 900, 3600, 10800, 43200, 86400, 604800, 6048000, 604800000)
"""Seconds that a block of time may span. Each is a multiple of the one before, so that any two
series of them can be merged."""

MAX_BLOCKS = 24
"""Enough to see how far blocks differ, and few enough that one is longer than a page takes."""

COUNT, PROBLEMS, UNTIMED, BUCKETS = range(4)
"""What is counted of a block, in this order: flows and failures without a flow; of these, what went
wrong, and those without a time that counts; the sum of the numbers of the buckets (`histogram`)
that the times of the others are in, which is as good as their logarithm."""

_MOST = 10**30


class Block(NamedTuple):
    """A block of time."""

    flows: int
    problems: int
    untimed: int
    buckets: int

    @property
    def timed(self) -> int:
        """How many have a time that counts."""
        return self.flows - self.untimed


class Blocks:
    """Blocks of time in which something happened."""

    __slots__ = ("_blocks", "block", "number", "second")

    def __init__(self) -> None:
        self.number = 0
        """Which of WIDTHS a block spans."""
        self._blocks: dict[int, list[int]] = {}
        """Where a block begins, Unix time → its counts."""
        self.second: int | None = None
        """The second that was asked for last: the next one is mostly the same."""
        self.block: list[int] = []
        """Its block."""

    def __bool__(self) -> bool:
        return bool(self._blocks)

    @property
    def seconds(self) -> int:
        """How long a block is."""
        return WIDTHS[self.number]

    def at(self, second: int) -> list[int]:
        """The counts of the block with a second, Unix time; to be added to."""
        if second != self.second:
            self.block = self._at(second)
            self.second = second
        return self.block

    def _at(self, second: int) -> list[int]:
        start = second - second % self.seconds
        block = self._blocks.get(start)
        if block is not None:
            return block
        self._blocks[start] = block = [0, 0, 0, 0]
        if len(self._blocks) > MAX_BLOCKS and (wider := range(self.number + 1, len(WIDTHS))):
            # At once: to add up all blocks for each width would hold up the proxy for longer.
            self._widen(next(filter(self._fits, wider), wider[-1]))
            block = self._blocks[second - second % self.seconds]
        return block

    def _fits(self, number: int) -> bool:
        """Whether blocks that span this one of WIDTHS are few enough."""
        return len({start - start % WIDTHS[number] for start in self._blocks}) <= MAX_BLOCKS

    def merge(self, other: Blocks) -> None:
        """Add what `other` counted."""
        self._widen(other.number)
        for start, counts in other._blocks.items():
            _add(self._at(start), counts)
        self.second = None

    def _widen(self, number: int) -> None:
        if number > self.number:
            self._blocks = self.widened(number)
            self.number = number
            self.second = None

    def starts(self) -> Mapping[int, list[int]]:
        """Where each block begins, Unix time → its counts."""
        return self._blocks

    def widened(self, number: int) -> dict[int, list[int]]:
        """Where a block begins → its counts, in blocks that span this one of WIDTHS, or as wide as
        they are."""
        seconds = max(WIDTHS[number], self.seconds)
        found: dict[int, list[int]] = {}
        for start, counts in self._blocks.items():
            _add(found.setdefault(start - start % seconds, [0, 0, 0, 0]), counts)
        return found

    def values(self) -> list[Block]:
        """The blocks, in no order."""
        return [Block(*counts) for counts in self._blocks.values()]

    def to_data(self) -> dict[str, Any]:
        """As it stands in the log: `seconds`, how long a block is; `counts`, for each block five
        numbers: how many blocks after the one before it begins (the first: after 1970), and its
        counts."""
        counts: list[int] = []
        before = 0
        for start, block in sorted(self._blocks.items()):
            counts += ((start - before) // self.seconds, *block)
            before = start
        return {"seconds": self.seconds, "counts": counts}

    @classmethod
    def from_data(cls, data: Any) -> Blocks:
        """What `to_data` made. Raises: ValueError."""
        self = cls()
        if not isinstance(data, Mapping):
            raise ValueError("'blocks' must be an object")
        seconds, counts = data.get("seconds"), data.get("counts")
        if seconds not in WIDTHS or isinstance(seconds, bool):
            raise ValueError(f"a block of time cannot span {seconds!r:.40} seconds")
        if not isinstance(counts, list) or len(counts) % 5 or set(map(type, counts)) - {int}:
            raise ValueError("'counts' must be a list of whole numbers, five a block")
        if len(counts) > 5 * MAX_BLOCKS or max(map(abs, counts), default=0) >= _MOST:
            raise ValueError("'counts' has too many blocks, or a number that cannot be")
        self.number = WIDTHS.index(seconds)
        start = 0
        for place in range(0, len(counts), 5):
            start += counts[place] * seconds
            block = counts[place + 1 : place + 5]
            if start in self._blocks:
                _add(block, self._blocks[start])
            self._blocks[start] = block
        return self


def _add(counts: list[int], others: list[int]) -> None:
    for place, number in enumerate(others):
        counts[place] += number
