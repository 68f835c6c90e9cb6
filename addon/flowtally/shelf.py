"""The statistics of thousands of sessions at once: only some of them are unpacked at a time."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from .counted_challenges import CountedChallenges
from .tally import Tally

MOST_ROWS = 80_000
"""How many rows of statistics are held unpacked, each of some 0.8 kB."""
LEAST = 32
"""How many rows a tally counts for at the least: an empty one takes room, too."""
LEVEL = 1
"""Of zlib: rows are a tenth then, and more takes longer than it is worth."""


class Shelf:
    """Holds tallies; packs those that nobody asked for lately."""

    def __init__(self, most: int = MOST_ROWS) -> None:
        self._most = most
        self._open: list[Kept] = []
        """Those that are unpacked, the one that was opened last at the end."""
        self._rows = 0
        """How many rows they have, as far as that was looked at."""

    def put(self, tally: Tally, rows: Sequence[Mapping[str, Any]] = ()) -> Kept:
        """Hold a tally. `rows`: what it was made of, if it was made of rows: where there is no room
        any more, they are packed in no time."""
        kept = Kept(tally, self._opened)
        if rows and self._rows + kept.rows > self._most:
            kept.pack(rows)
        else:
            self._opened(kept)
        return kept

    def tidy(self) -> None:
        """Have a look how much they have grown, and pack what is too much."""
        self._rows = sum(kept.rows for kept in self._open)
        if self._rows > self._most:
            # All but the last, which may be in use: to pack a few would be due again at once.
            *others, last = self._open
            for kept in others:
                kept.pack()
            self._open, self._rows = [last], last.rows

    def _opened(self, kept: Kept) -> None:
        self._open.append(kept)
        self._rows += kept.rows
        if self._rows > self._most:
            self.tidy()


class Kept:
    """A tally on a shelf."""

    __slots__ = ("_opened", "_packed", "_tally")

    def __init__(self, tally: Tally, opened: Callable[[Kept], None]) -> None:
        self._tally: Tally | None = tally
        self._packed = b""
        self._opened = opened

    @property
    def rows(self) -> int:
        """How many rows it takes room for; 0 while it is packed."""
        if self._tally is None:
            return 0
        return LEAST + sum(map(len, self._tally.tables.values()))

    @property
    def tally(self) -> Tally:
        """The tally, which may be added to until another one is asked for."""
        if self._tally is None:
            self._tally, self._packed = _unpacked(self._packed), b""
            self._opened(self)
        return self._tally

    def look(self) -> Tally:
        """The tally, only to be read: it stays packed if it is."""
        return self._tally if self._tally is not None else _unpacked(self._packed)

    def pack(self, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        """Let it take less room. `rows`: all that it has, if that is known."""
        if self._tally is not None:
            self._packed, self._tally = _packed(self._tally, rows), None


def _packed(tally: Tally, rows: Sequence[Mapping[str, Any]]) -> bytes:
    data = {
        "dropped": tally.dropped,
        "first": tally.first,
        "last": tally.last,
        "challenges": tally.challenges.to_data(),
        "rows": rows or list(tally.to_rows()),
    }
    return zlib.compress(json.dumps(data, separators=(",", ":")).encode(), LEVEL)


def _unpacked(packed: bytes) -> Tally:
    data = json.loads(zlib.decompress(packed))
    tally = Tally()
    for row in data["rows"]:
        tally.take(row)
    tally.dropped, tally.first, tally.last = data["dropped"], data["first"], data["last"]
    tally.challenges = CountedChallenges(**data["challenges"])
    return tally
