"""Single records of logs: those that are wanted, each once, in the order of their sessions."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO
from typing import Self

from .filter_language import Filter
from .latest import Numbers
from .logs import Logs
from .source import Record
from .source import records_at
from .source import sources
from .source import uncollected


class Selection:
    """The flows and events that are wanted.

    It holds where they stand, 25 bytes each, and reads them when they are asked for. As a context
    manager it lets go of the logs afterwards.
    """

    def __init__(
        self,
        logs: Sequence[tuple[str, Path | BinaryIO]],
        wanted: Filter,
        growing: bool = False,
        background: bool = False,
    ) -> None:
        """Look through logs. `growing`: what of them has no line end yet is left for later;
        `background`: with background traffic.

        Raises: OSError, with the name of the log as its `filename`.
        """
        self.answered: set[tuple[str, str]] = set()
        """Session and id of each flow that a later one answered with credentials."""
        self.ended: set[str] = set()
        """The sessions that are known to have ended."""
        self.first = self.last = ""
        """The times of the earliest and the latest record that is wanted; "" of none."""
        self.noted = Logs()
        """What could not be used; it has no sessions."""
        self._seen: dict[str, Numbers] = {}
        """Session → the `seq` of its records."""
        self._told: dict[str, int] = {}
        """Session → of how many missing records it tells."""
        self._begun: dict[str, str] = {}
        """Session → the time of its earliest record."""
        self.left_out = 0
        """How many would be wanted if they were not background traffic."""
        self._wanted = wanted
        self._background = background
        self._places: dict[str, tuple[array[int], array[int], array[int]]] = {}
        """Session → of each record `seq`, the number of its source, and where it stands there."""
        self._stack = ExitStack()
        self._sources = sources(logs, self._stack)
        with uncollected():
            for number, source in enumerate(self._sources):
                with source:
                    if growing:
                        source.ranges = [(0, source.unended())]
                    for position, record in self.noted.accepted(source):
                        self._take(record, number, position)

    @property
    def size(self) -> int:
        """Up to where the first log was read, in bytes."""
        return self._sources[0].ranges[-1][1]

    @property
    def missing(self) -> dict[str, int]:
        """Session → how many of its records are missing, see `logs.Session.missing`; in the order
        in which they began."""
        return {
            session: max(0, self._seen[session].missing - self._told.get(session, 0))
            for session in self._order(self._begun)
        }

    def _take(self, record: Record, number: int, position: int) -> None:
        session = record["session"]
        if record["time"] < self._begun.setdefault(session, record["time"]):
            self._begun[session] = record["time"]
        is_new = self._seen.setdefault(session, Numbers()).add(record["seq"])
        if record["type"] == "gap" and is_new:
            self._told[session] = self._told.get(session, 0) + record["dropped"]
        if record.get("final"):
            self.ended.add(session)
        if record["type"] not in ("flow", "event"):
            return
        if "answers" in record:
            self.answered.add((session, record["answers"]))
        if not self._wanted(record):
            return
        if "background" in record and not self._background:
            self.left_out += is_new
        else:
            time = record["time"]
            self.first, self.last = min(self.first or time, time), max(self.last, time)
            none: tuple[array[int], array[int], array[int]] = array("q"), array("q"), array("q")
            places = self._places.setdefault(session, none)
            for column, value in zip(places, (record["seq"], number, position), strict=True):
                column.append(value)

    def __iter__(self) -> Iterator[Record]:
        for session in self._order(self._places):
            yield from self._records(*self._places[session])

    def _order(self, sessions: Iterable[str]) -> list[str]:
        """Sessions as they began."""
        return sorted(sessions, key=lambda session: (self._begun[session], session))

    def _records(
        self, seqs: array[int], numbers: array[int], positions: array[int]
    ) -> Iterator[Record]:
        def places() -> Iterator[tuple[int, int]]:
            before = 0
            for index in sorted(range(len(seqs)), key=seqs.__getitem__):
                if seqs[index] != before:  # else it stands in several logs
                    before = seqs[index]
                    yield numbers[index], positions[index]

        for record in records_at(self._sources, places()):
            if record is not None:
                yield record

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
