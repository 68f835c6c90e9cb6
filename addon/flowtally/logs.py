"""Session logs, read: leniently, in whatever order the lines come, in little memory.

A session is its last whole checkpoint and the records after it, in the order of their `seq`; what
comes twice counts once. So a log is looked through twice: for checkpoints first, then for what came
after them. What stands before a checkpoint that vouches for it is not even looked at. A torn line,
a wrong record or a foreign line is named and skipped.
"""

from __future__ import annotations

import gc
import os
import shutil
import stat
import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Callable
from collections.abc import Container
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import ExitStack
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any
from typing import BinaryIO
from typing import NamedTuple
from typing import Self

from .encoding import decode
from .filter_language import Filter
from .tally import Tally
from .tally import challenge_of
from .valid import check
from .valid import other_schema

BLOCK = 256 * 1024
"""How much of a file is looked through at once, in bytes."""
MAX_LINE = 1024 * 1024
"""Longest line that is read, in bytes; flowtally's own are much shorter."""
MAX_SESSIONS = 10_000
"""Of how many sessions logs are read."""
MAX_PENDING = 16 * 1024 * 1024
"""How much is kept of a session's checkpoints that are not whole yet, in bytes of their lines."""
MAX_PROBLEMS = 20
"""How many unreadable lines are named; all are counted."""

_BOM = b"\xef\xbb\xbf"
_STATS = b'{"type":"stats",'
"""What the addon's own lines of a checkpoint begin with."""
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
        """The statistics, once they are built."""
        self._parts: dict[int, Record] = {}
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

    def build(self) -> None:
        """Make the statistics of a whole one, and let go of the parts, which are several times as
        large. Raises: ValueError, saying what is wrong with them."""
        if self.tally is not None:
            return
        tally = Tally()
        for _, part in sorted(self._parts.items()):
            for row in part["rows"]:
                tally.take(row)
        first = self._parts[1]
        tally.dropped = first["dropped"]
        tally.first, tally.last = first.get("first", ""), first.get("last", "")
        self.tally = tally
        self._parts.clear()


@dataclass(slots=True)
class Session:
    """What logs hold of one session."""

    id: str
    tally: Tally = field(default_factory=Tally)
    start: Record | None = None
    """Its `session_start` record."""
    checkpoint: Checkpoint | None = None
    """With what `tally` began."""
    wanted: Filter | None = None
    """Which flows and events are counted; None: all."""
    disordered: bool = False
    """Some records came when their turn was over, and are not in `tally`."""
    _earliest: str = ""
    _pending: dict[int, Checkpoint] = field(default_factory=dict)
    _newest: int = 0
    """`seq` of the last record that was counted."""
    _holes: array[int] = field(default_factory=lambda: array("q"))
    """First and last `seq` of each run of records that were not there when their turn came."""
    _told: int = 0
    """Missing records of which `gap` records tell."""

    @property
    def time(self) -> str:
        """When it began, RFC 3339, or the time of the earliest record that is there."""
        return self.start["time"] if self.start is not None else self._earliest

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
        self.tally, self._newest = Tally(), 0
        self._pending.clear()
        # A checkpoint cannot be narrowed: it only tells how the session ended.
        if (checkpoint := self.checkpoint) is None or self.wanted is not None:
            return None
        try:
            checkpoint.build()
        except ValueError as error:
            self.checkpoint = None
            return *checkpoint.place, f"wrong statistics: {error}"
        assert checkpoint.tally is not None
        # From now on it grows, and is the checkpoint's no more.
        self.tally, checkpoint.tally = checkpoint.tally, None
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
        if self.wanted is None or record["type"] == "gap" or self.wanted(record):
            self.tally.add(record)
        elif "answers" in record and self.wanted(challenge_of(record)):
            self.tally.add_answer(record)
        if record["type"] == "gap":
            self._told += record["dropped"]


# --- files ---


class Vouched(NamedTuple):
    """A stretch of a file that a checkpoint vouches for: nobody but its session wrote there."""

    session: str
    checkpoint: Checkpoint
    begin: int
    """Where it begins, in bytes: with the `session_start` record."""
    head: int
    """Where that record ends."""
    end: int
    """Where it ends: all before is in the checkpoint, the checkpoint itself comes later."""


class Source:
    """A log that is read: a file that can be looked at again and again."""

    def __init__(self, name: str, log: Path | BinaryIO) -> None:
        """`log`: a path, which is open only while the source is entered, for there may be more
        logs than a process may have open; or a stream that can be looked at again. Raises: OSError.
        """
        self.name = name
        """For problems."""
        self._path = log if isinstance(log, Path) else None
        self._file: BinaryIO = log.open("rb") if isinstance(log, Path) else log
        self.size = self._file.seek(0, os.SEEK_END)
        self.ranges = [(0, self.size)]
        """What has to be looked at: where it begins and ends, in bytes."""
        self.planned: set[int] = set()
        """Where lines begin of checkpoints that need not be read again."""
        self.refused: set[str] = set()
        """Why lines cannot be used of which the first is to stand for all."""
        self._moved = True
        """The file is not where `between` left it."""
        self._numbered = (0, 1)
        """A position, and the number of the line that begins there."""
        if self._path is not None:
            self._file.close()

    def __enter__(self) -> Self:
        if self._path is not None:
            self._file = self._path.open("rb")
        return self

    def __exit__(self, *_: object) -> None:
        if self._path is not None:
            self._file.close()

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines that have to be looked at, each with its position in bytes. Of a longer one,
        the first MAX_LINE bytes and no line end."""
        for begin, end in self.ranges:
            yield from self.between(begin, end)

    def lines_near(self, text: bytes) -> Iterator[tuple[int, bytes]]:
        """Of `lines`, those in which a text stands, and some around them: where it does not stand
        for long, lines need not be told apart."""
        for begin, end in self.ranges:
            position = begin
            while position < end:
                self._file.seek(position)
                block = self._file.read(min(MAX_LINE, end - position))
                if not block:
                    break
                size = block.rfind(b"\n") + 1
                if not size:  # the end of the range, or a line of which there is more
                    yield from self.between(position, end)
                    break
                if block.find(text, 0, size) >= 0:
                    yield from self.between(position, position + size)
                position += size

    def between(self, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
        """The lines of a range."""
        position = begin
        inside = False
        self._moved = True
        while position < end:
            if self._moved:  # to look elsewhere
                self._file.seek(position)
                self._moved = False
            line = self._file.readline(min(MAX_LINE, end - position))
            if not line:
                break
            if not inside and not line.isspace():
                yield position, line if position else line.removeprefix(_BOM)
            position += len(line)
            inside = not line.endswith(b"\n")
            if not inside and line.isspace():
                position += self._blank(position, end)

    def _blank(self, begin: int, end: int) -> int:
        """How many bytes of a range are lines without anything in them, at its beginning: there may
        be millions of them, of which none is worth a look."""
        blank, step = 0, 1
        while step and begin + blank < end:
            self._file.seek(begin + blank)
            block = self._file.read(min(BLOCK, end - begin - blank))
            # What stands before the first word belongs to its line.
            step = block.rfind(b"\n", 0, len(block) - len(block.lstrip())) + 1
            blank += step
        self._file.seek(begin + blank)
        return blank

    def line(self, position: int) -> bytes:
        """The line that begins at a position."""
        self._moved = True
        self._file.seek(position)
        line = self._file.readline(MAX_LINE)
        return line if position else line.removeprefix(_BOM)

    def number(self, position: int) -> int:
        """The number of the line that begins at a position."""
        self._moved = True
        counted, number = self._numbered
        if counted > position:
            counted, number = 0, 1
        self._file.seek(counted)
        while counted < position and (block := self._file.read(min(BLOCK, position - counted))):
            counted += len(block)
            number += block.count(b"\n")
        self._numbered = counted, number
        return number

    def plan(self) -> list[tuple[str, Checkpoint]]:
        """Leave out of `ranges` what checkpoints vouch for; returns these, with their sessions.

        A checkpoint says how much its session has written into the file before it. If that session
        began just so many bytes before, nobody else wrote in between, and the checkpoint holds all
        that stands there.
        """
        ranges: list[tuple[int, int]] = []
        found: list[tuple[str, Checkpoint]] = []
        end = self.size
        while (
            end and len(found) < MAX_SESSIONS and (vouched := self._last_vouched(end)) is not None
        ):
            ranges += [(vouched.end, end), (vouched.begin, vouched.head)]
            found.append((vouched.session, vouched.checkpoint))
            end = vouched.begin
        if end:
            ranges.append((0, end))
        self.ranges = ranges[::-1]
        return found

    def _last_vouched(self, end: int) -> Vouched | None:
        """What the last whole checkpoint before a position vouches for, if it does."""
        position: int | None = end
        while position is not None and (position := self._last_stats(position)) is not None:
            line = self.line(position)
            last = parsed(line)
            if last is None or last["type"] != "stats" or not last["parts"]:
                continue  # its last parts were never written
            begin, end = position - last["log_bytes"], position - last["checkpoint_bytes"]
            if not 0 <= begin < end:
                return None
            head = self.line(begin)
            start = parsed(head)
            if start is None or start["type"] != "session_start":
                return None
            checkpoint = Checkpoint(last["checkpoint"], last["upto"], self, position)
            parts = set()
            for at, other in self.between(end, position + len(line)):
                part = parsed(other) if other.startswith(_STATS) else None
                if part is not None and _belongs(part, start["session"], checkpoint.number):
                    checkpoint.add(part)
                    parts.add(at)
            if not checkpoint.whole or last["session"] != start["session"]:
                return None
            try:
                checkpoint.build()
            except ValueError:
                return None  # it will be named when it is looked at
            self.planned |= parts
            return Vouched(start["session"], checkpoint, begin, begin + len(head), end)
        return None

    def _last_stats(self, end: int) -> int | None:
        """Where the last line before a position begins that is of a checkpoint."""
        before = end - 1  # the line end in front of it
        while before > 0:
            begin = max(0, before - BLOCK)
            self._moved = True
            self._file.seek(begin)
            block = self._file.read(before - begin + len(_STATS))
            at = block.rfind(b"\n" + _STATS)
            if at >= 0:
                return begin + at + 1
            before = begin
        return 0 if end > 0 and self.line(0).startswith(_STATS) else None


def _belongs(record: Record, session: str, checkpoint: int) -> bool:
    named = record["type"], record["session"], record.get("checkpoint")
    return named == ("stats", session, checkpoint)


def parsed(line: bytes) -> Record | None:
    """The record that a line holds; None if it is none that can be used."""
    try:
        record: Record = decode(line)
    except ValueError:
        return None
    return None if check(record) else record


# --- reading ---


class Logs:
    """The sessions of any number of logs. A session may be spread over several files, and a file
    may hold several sessions."""

    def __init__(self, wanted: Filter | None = None) -> None:
        """`wanted`: which flows and events are counted; None: all."""
        self._wanted = wanted
        self.sessions: dict[str, Session] = {}
        """Id → session, in the order in which they began."""
        self.problems: list[Problem] = []
        """The first of the unreadable lines."""
        self.unreadable = 0
        """How many lines were unreadable."""
        self.only = ""
        """What was wanted, in words."""

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
            for session in self.sessions.values():
                tally.merge(session.tally)
        tally.only = self.only
        return tally

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
        for id, checkpoint in source.plan():
            if of is not None and id not in of:
                continue
            if (session := self._session(id)) is not None:
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
        for position, line in source.lines():
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
            for index in sorted(range(len(seqs)), key=seqs.__getitem__):
                with sources[numbers[index]] as source:
                    record = parsed(source.line(positions[index]))
                if record is not None:  # the file is another one by now
                    session.add(record)

    def _record(self, source: Source, position: int, line: bytes) -> Record | None:
        """The record in a line; None if there is none."""
        try:
            record: Record = decode(line)
        except ValueError:
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                reason = f"longer than {MAX_LINE} bytes"
            else:
                reason = "not JSON" if line.endswith(b"\n") else "torn line"
            self._problem(source, position, reason)
            return None
        if reason := check(record):
            self._problem(source, position, reason, for_all=reason == _other_schema(record))
            return None
        return record

    def _session(self, id: str) -> Session | None:
        """A session by its id; None where there are too many."""
        if id not in self.sessions:
            if len(self.sessions) >= MAX_SESSIONS:
                return None
            self.sessions[id] = Session(id, wanted=self._wanted)
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
) -> Logs:
    """What logs hold, each given with its name for problems; a stream that cannot be looked at
    twice is copied into a temporary file. `progress` is told of bytes that were taken in. `wanted`:
    which flows and events are counted, which takes longer than all of them.

    Raises: OSError, with the name of the log as its `filename`.
    """
    found = Logs(wanted)
    with ExitStack() as stack, uncollected():
        found._read(sources(logs, stack), progress)
    return found


def sources(logs: Sequence[tuple[str, Path | BinaryIO]], stack: ExitStack) -> list[Source]:
    """Logs that can be looked at again and again; `stack` closes what was copied.

    Raises: OSError, with the name of the log as its `filename`.
    """
    found = []
    for name, log in logs:
        try:
            found.append(Source(name, _seekable(log, stack)))
        except OSError as error:
            error.filename = name
            raise
    return found


def _seekable(log: Path | BinaryIO, stack: ExitStack) -> Path | BinaryIO:
    """A log that can be looked at again and again. Raises: OSError."""
    if isinstance(log, Path):
        if stat.S_ISREG(log.stat().st_mode):
            return log
        log = stack.enter_context(log.open("rb"))
    elif log.seekable():
        return log
    copy = tempfile.TemporaryFile()  # noqa: SIM115  # the stack closes it
    stack.enter_context(copy)
    shutil.copyfileobj(log, copy, BLOCK)
    return copy


@contextmanager
def uncollected() -> Iterator[None]:
    """Without garbage collection, which would look through millions of new objects again and again
    and find nothing."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
