"""A checkpoint: the statistics of a session up to one of its records, as its log has them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING
from typing import Any

from .shelf import Kept
from .shelf import Shelf
from .tally import Tally

if TYPE_CHECKING:
    from .source import Source

Record = dict[str, Any]


class Checkpoint:
    """The statistics of a session up to one of its records, as its records tell them."""

    def __init__(self, number: int, upto: int, source: Source, position: int) -> None:
        self.number = number
        """Later ones have higher numbers."""
        self.upto = upto
        """`seq` of the last record that the statistics hold."""
        self.place = source, position
        """Where one of its parts stands."""
        self.bytes = 0
        """How large its lines are."""
        self.final = False
        """It was written when the session ended."""
        self.tally: Tally | None = None
        """The statistics, once they are built, and until they are on a shelf."""
        self.kept: Kept | None = None
        """The statistics on a shelf."""
        self._parts: dict[int, Record] = {}
        self._rows: list[Record] = []
        """Of what the statistics were built."""
        self._size = 0
        """How many parts make it whole; 0 while that is not known."""

    def add(self, record: Record, size: int = 0) -> None:
        """Take in a part, a `stats` record; `size`: of its line, in bytes."""
        self.bytes += size
        self._parts.setdefault(record["part"], record)
        self._size = max(self._size, record.get("parts", 0))
        self.final |= record.get("final") is True

    @property
    def whole(self) -> bool:
        """Whether all parts are there."""
        numbers = self._parts.keys()
        return 0 < self._size == len(numbers) == max(numbers) and min(numbers) == 1

    def build(self, tables: Collection[str] = ()) -> None:
        """Make the statistics of a whole one, all or some tables, and let go of the parts, which
        are several times as large. Raises: ValueError, saying what is wrong with them."""
        if self.tally is not None or self.kept is not None:
            return
        tally = Tally()
        tally.challenges.resumed = True
        for _, part in sorted(self._parts.items()):
            self._rows += [row for row in part["rows"] if not tables or row.get("table") in tables]
        for row in self._rows:
            tally.take(row)
        first = self._parts[1]
        tally.dropped = first["dropped"]
        tally.first, tally.last = first.get("first", ""), first.get("last", "")
        self.tally = tally
        self._parts.clear()

    def shelve(self, shelf: Shelf) -> Kept:
        """Put the statistics that were built on a shelf; there they grow."""
        if self.kept is None:
            assert self.tally is not None
            self.kept, self.tally = shelf.put(self.tally, self._rows), None
            self._rows = []
        return self.kept
