"""Session logs, read: leniently, in whatever order the lines come, in little memory.

A session is its last whole checkpoint and the records after it, in the order of their `seq`; what
comes twice counts once. So a log is looked through twice: for checkpoints first, then for what came
after them. What stands before a checkpoint that vouches for it is not even looked at. A torn line,
a wrong record or a foreign line is named and skipped.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Container
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import BinaryIO
from typing import NamedTuple

from .checkpoint import Checkpoint
from .encoding import without_rows
from .filter_language import Filter
from .shelf import Kept
from .shelf import Shelf
from .source import MAX_SESSIONS
from .source import Source
from .source import judged
from .source import parsed
from .source import records_at
from .source import sources
from .source import uncollected
from .tally import Tally
from .valid import other_schema

if TYPE_CHECKING:
    from .captures.lacking import Lacking

TIDY_EVERY = 10_000
"""Records between two looks how much the statistics of all sessions have grown."""
MAX_PENDING = 16 * 1024 * 1024
"""How much is kept of a session's checkpoints that are not whole yet, in bytes of their lines."""
BY_CLIENT = "har"
"""Stands in a `session_start` in the place of mitmproxy's modes, see `Session.direct`."""
MAX_PROBLEMS = 20
"""How many unreadable lines are named; all are counted."""

_NAMED = b'"stats"'
"""What stands in all lines of a checkpoint."""

Record = dict[str, Any]
Progress = Callable[[int], None]


class Problem(NamedTuple):
    """A line that could not be used."""

    source: str
    line: int
    """Its number, from 1."""
    reason: str


# --- sessions ---


@dataclass(slots=True)
class Session:
    """What logs hold of one session."""

    id: str
    shelf: Shelf
    """Where its statistics are."""
    start: Record | None = None
    """Its `session_start` record."""
    checkpoint: Checkpoint | None = None
    """With what the statistics began."""
    wanted: Filter | None = None
    """Which flows and events are counted; None: all."""
    disordered: bool = False
    """Some records came when their turn was over, and are not in the statistics."""
    _earliest: str = ""
    _pending: dict[int, Checkpoint] = field(default_factory=dict)
    _newest: int = 0
    """`seq` of the last record that was counted."""
    _holes: array[int] = field(default_factory=lambda: array("q"))
    """First and last `seq` of each run of records that were not there when their turn came."""
    _told: int = 0
    """Missing records of which `gap` records tell."""
    _kept: Kept | None = None

    @property
    def kept(self) -> Kept:
        """The statistics, on their shelf."""
        if self._kept is None:
            tally = Tally()
            tally.challenges.narrowed = self.wanted is not None
            self._kept = self.shelf.put(tally)
        return self._kept

    @property
    def tally(self) -> Tally:
        """The statistics."""
        return self.kept.tally

    @property
    def time(self) -> str:
        """When it began, RFC 3339, or the time of the earliest record that is there."""
        return self.start["time"] if self.start is not None else self._earliest

    @property
    def direct(self) -> bool:
        """Whether its client told it, in a HAR: there was no mitmproxy."""
        return self.start is not None and self.start.get("modes") == [BY_CLIENT]

    @property
    def final(self) -> bool:
        """Whether its final statistics are there: it ended cleanly."""
        return self.checkpoint is not None and self.checkpoint.final

    @property
    def missing(self) -> int:
        """How many records are in no log and in no statistics, and no `gap` record says why."""
        firsts, lasts = self._holes[::2], self._holes[1::2]
        return max(0, sum(lasts) - sum(firsts) + len(firsts) - self._told)

    def add_part(self, record: Record, source: Source, position: int, size: int) -> None:
        """Take in a part of a checkpoint, where it stands, and the size of its line in bytes."""
        number = record["checkpoint"]
        checkpoint = self._pending.get(number)
        if checkpoint is None:
            checkpoint = Checkpoint(number, record["upto"], source, position)
            self._pending[number] = checkpoint
        checkpoint.add(record, size)
        if checkpoint.whole:
            self.offer(checkpoint)
        while sum(pending.bytes for pending in self._pending.values()) > MAX_PENDING:
            del self._pending[min(self._pending)]

    def offer(self, checkpoint: Checkpoint) -> None:
        """Take in a whole checkpoint: those before it are not needed any more."""
        if self.checkpoint is None or checkpoint.number > self.checkpoint.number:
            self.checkpoint = checkpoint
            self._pending = {n: c for n, c in self._pending.items() if n > checkpoint.number}

    def begin(self) -> tuple[Source, int, str] | None:
        """Begin with the checkpoint, or with nothing. Where the checkpoint cannot be used: the log
        and position of a part of it, and why."""
        self._holes, self._told = array("q"), 0
        self.disordered = False
        self._newest = 0
        self._pending.clear()
        # A checkpoint cannot be narrowed: it only tells how the session ended.
        if (checkpoint := self.checkpoint) is None or self.wanted is not None:
            self._kept = None
            return None
        try:
            checkpoint.build()
        except ValueError as error:
            self.checkpoint = self._kept = None
            return *checkpoint.place, f"wrong statistics: {error}"
        self._kept = checkpoint.shelve(self.shelf)
        self._newest = checkpoint.upto
        return None

    def add(self, record: Record) -> None:
        """Count a record if it is its turn."""
        seq = record["seq"]
        if not self._earliest or record["time"] < self._earliest:
            self._earliest = record["time"]
        if record["type"] == "session_start":
            self.start = record
        if seq <= self._newest:
            # In the statistics, or come before; in a hole, others should have waited for it.
            at = bisect_right(self._holes, seq)
            self.disordered |= at % 2 == 1 or (at > 0 and self._holes[at - 1] == seq)
            return
        if seq > self._newest + 1:
            self._holes.extend((self._newest + 1, seq - 1))
        self._newest = seq
        # Only for what they count: statistics that are packed would be unpacked.
        if record["type"] == "gap":
            self._told += record["dropped"]
            self.tally.add(record)
        elif record["type"] in ("flow", "event"):
            if self.wanted is None or self.wanted(record):
                self.tally.add(record)
            elif "answers" in record:
                self.tally.add_answer(record)


# --- reading ---


class Logs:
    """The sessions of any number of logs. A session may be spread over several files, and a file
    may hold several sessions."""

    def __init__(self, wanted: Filter | None = None, tables: Collection[str] = ()) -> None:
        """`wanted`: which flows and events are counted; None: all. `tables`: as of `read`."""
        self._wanted = wanted
        self._tables = tables
        self._shelf = Shelf()
        self.sessions: dict[str, Session] = {}
        """Id → session, in the order in which they began."""
        self.problems: list[Problem] = []
        """The first of the unreadable lines."""
        self.unreadable = 0
        """How many lines were unreadable."""
        self.only = ""
        """What was wanted, in words."""
        self.lacking: Lacking | None = None
        """What of captures could not be used, where logs were made of some."""

    @property
    def skipped(self) -> int:
        """How many lines, and entries of captures, could not be used."""
        return self.unreadable + (self.lacking.skipped if self.lacking else 0)

    @property
    def doubtful(self) -> int:
        """How many of the unreadable lines may hold what nothing else tells. None, where all
        sessions ended and miss nothing: such a line is no record of theirs."""
        known = all(each.final and not each.missing for each in self.sessions.values())
        return 0 if known else self.unreadable

    @property
    def missing(self) -> int:
        """How many records are missing, see `Session.missing`."""
        return sum(session.missing for session in self.sessions.values())

    def merged(self) -> Tally:
        """The tally of all sessions."""
        if len(self.sessions) == 1:
            tally = next(iter(self.sessions.values())).tally
        else:
            tally = Tally()
            with uncollected():
                for session in self.sessions.values():
                    tally.merge(session.kept.look())
        tally.only = self.only
        tally.direct = bool(self.sessions) and all(each.direct for each in self.sessions.values())
        return tally

    def accepted(self, source: Source) -> Iterator[tuple[int, Record]]:
        """The records of a log, each with its position in bytes, for others that count; what cannot
        be used is noted."""
        for position, line in source.lines():
            if (record := self._record(source, position, line)) is not None:
                yield position, record

    # --- building ---

    def _read(self, sources: Sequence[Source], progress: Progress) -> None:
        for source in sources:
            with source:
                self._plan(source)
                self._read_checkpoints(source)
        for session in self.sessions.values():
            if wrong := session.begin():
                source, position, reason = wrong
                with source:
                    self._problem(source, position, reason)
        for source in sources:
            with source:
                self._read_records(source)
            progress(source.size)
        if any(session.disordered for session in self.sessions.values()):
            self._read_in_order(sources)
        ordered = sorted(self.sessions.values(), key=lambda session: (session.time, session.id))
        self.sessions = {session.id: session for session in ordered}

    def _plan(self, source: Source, of: Container[str] | None = None) -> None:
        """Leave out what checkpoints vouch for, where they will be used."""
        if self._wanted is not None:
            return
        for id, checkpoint in source.plan(self._tables):
            if of is not None and id not in of:
                continue
            if (session := self._session(id)) is not None:
                checkpoint.shelve(self._shelf)
                session.offer(checkpoint)

    def _read_checkpoints(self, source: Source, of: Container[str] | None = None) -> None:
        """Take in the checkpoints of all sessions, or of some."""
        for position, line in source.lines_near(_NAMED):
            # Most lines are of flows, and need not be read as JSON twice.
            wanted = _NAMED in line and position not in source.planned
            record = parsed(line) if wanted else None
            if record is None or record["type"] != "stats":
                continue
            if of is not None and record["session"] not in of:
                continue
            if (session := self._session(record["session"])) is not None:
                session.add_part(record, source, position, len(line))

    def _read_records(self, source: Source) -> None:
        for number, (position, line) in enumerate(source.lines()):
            if number % TIDY_EVERY == 0:
                self._shelf.tidy()
            if position in source.planned:
                line = without_rows(line)  # they are known
            if (record := self._record(source, position, line)) is not None:
                if (session := self._session(record["session"])) is not None:
                    session.add(record)
                else:
                    reason = f"of another session than the first {MAX_SESSIONS}"
                    self._problem(source, position, reason)

    def _read_in_order(self, sources: Sequence[Source]) -> None:
        """Count the records of sessions again whose records came in no order."""
        found: dict[str, tuple[array[int], array[int], array[int]]] = {
            id: (array("q"), array("q"), array("q"))
            for id, session in self.sessions.items()
            if session.disordered
        }
        for id in found:
            self.sessions[id].checkpoint = None  # whose statistics have grown
        for number, source in enumerate(sources):
            with source:
                self._plan(source, found)
                self._read_checkpoints(source, found)
                for position, line in source.lines():
                    record = parsed(line)
                    if record is not None and (columns := found.get(record["session"])):
                        for column, value in zip(
                            columns, (record["seq"], number, position), strict=True
                        ):
                            column.append(value)
        for id, (seqs, numbers, positions) in found.items():
            session = self.sessions[id]
            session.begin()
            in_order = sorted(range(len(seqs)), key=seqs.__getitem__)
            places = ((numbers[index], positions[index]) for index in in_order)
            for record in records_at(sources, places):
                if record is not None:  # the file is another one by now
                    session.add(record)

    def _record(self, source: Source, position: int, line: bytes) -> Record | None:
        """The record in a line; None if there is none."""
        record: Record | None
        record, reason = judged(line)
        if reason:
            self._problem(source, position, reason, for_all=reason == _other_schema(record))
            return None
        return record

    def _session(self, id: str) -> Session | None:
        """A session by its id; None where there are too many."""
        if id not in self.sessions:
            if len(self.sessions) >= MAX_SESSIONS:
                return None
            self.sessions[id] = Session(id, self._shelf, wanted=self._wanted)
        return self.sessions[id]

    def _problem(self, source: Source, position: int, reason: str, for_all: bool = False) -> None:
        """Note a line that cannot be used. `for_all`: the first of a source stands for all whose
        reason is the same."""
        self.unreadable += 1
        if for_all and reason in source.refused:
            return
        source.refused.add(reason)
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(source.name, source.number(position), reason))


def _other_schema(record: Any) -> str:
    return other_schema(record) if isinstance(record, dict) else ""


def read(
    logs: Sequence[tuple[str, Path | BinaryIO]],
    progress: Progress = lambda _: None,
    wanted: Filter | None = None,
    tables: Collection[str] = (),
) -> Logs:
    """What logs hold, each given with its name for problems; a stream that cannot be looked at
    twice is copied into a temporary file. `progress` is told of bytes that were taken in. `wanted`:
    which flows and events are counted, which takes longer than all of them. `tables`: which tables
    of the statistics are needed, which takes less time; none: all.

    Raises: OSError, with the name of the log as its `filename`.
    """
    found = Logs(wanted, tables)
    with ExitStack() as stack, uncollected():
        found._read(sources(logs, stack), progress)
    return found
