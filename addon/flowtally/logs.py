"""Session logs, read: leniently, fast, in little memory.

A torn line, a wrong record or a foreign line is named and skipped. Where a session's final
statistics are there, its records are not read again; of others, plain lines are counted in groups
(`alike.py`), and a large file in parts by several processes. The outcome is in each case that of a
fold over the records, one by one.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import stat
import sys
from bisect import insort
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from itertools import pairwise
from multiprocessing.connection import Connection
from operator import attrgetter
from pathlib import Path
from typing import Any
from typing import BinaryIO
from typing import NamedTuple

from .alike import Alike
from .alike import Columns
from .alike import PlainLine
from .encoding import PLAIN_LINE
from .encoding import decode
from .tally import Tally
from .valid import check

BLOCK = 4 * 1024 * 1024
"""How much of a log is read at once, in bytes."""
HEAD = 8 * 1024 * 1024
"""How much of a large log is read before the rest is parted, in bytes."""
LARGE = 64 * 1024 * 1024
"""From this size on, in bytes, it pays to start another process."""
MOST_PARTS = 4
MOST_ALIKE = 8
"""Of how many sessions plain lines are held back at a time."""
MAX_LINE = 32 * 1024 * 1024
"""Longest line that is read, in bytes; the longest written is a final `stats` record."""
MAX_SESSIONS = 10_000
"""Of how many sessions a log is read."""
MAX_PROBLEMS = 20
"""How many unreadable lines of a log are named; all are counted."""

Record = dict[str, Any]
Progress = Callable[[int], None]


@dataclass(slots=True)
class Session:
    """What a log holds of one session."""

    id: str
    tally: Tally = field(default_factory=Tally)
    start: dict[str, Any] | None = None
    """Its `session_start` record."""
    final: bool = False
    """Its final statistics are there: it ended cleanly."""
    time: str = ""
    """When it began: time of its first record."""


class Problem(NamedTuple):
    """A line that could not be used."""

    source: str
    line: int
    reason: str


class Logs:
    """The sessions of any number of logs. A session may be spread over several files, and a file
    may hold several sessions."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.problems: list[Problem] = []
        """The first of the unreadable lines."""
        self.unreadable = 0
        """How many lines were unreadable."""
        self._earlier = 0
        """How many of `problems` stand before what is read now."""
        self._alike: dict[bytes, Alike] = {}
        """Session → its plain lines."""

    def read_file(self, path: Path, source: str, progress: Progress = lambda _: None) -> None:
        """Take in a log. `source`: its name, for problems. `progress` is told how many bytes were
        taken in, again and again. Raises: OSError."""
        with path.open("rb") as file:
            settled, end = _settled(file)
            processes = min(os.cpu_count() or 1, MOST_PARTS)
            if end is not None and end >= LARGE and processes > 1:
                # In another process /dev/fd/3 is another file.
                self._read_parts(path.resolve(), source, end, processes, progress)
            else:
                self._read_range(file, source, 0, end, progress)
        for start, final in settled:
            self._take(start)
            self._take(final)

    def read(self, file: BinaryIO, source: str, progress: Progress = lambda _: None) -> None:
        """Take in a stream, such as standard input. Raises: OSError."""
        self._read_range(file, source, 0, None, progress)

    def merged(self) -> Tally:
        """The tally of all sessions."""
        if len(self.sessions) == 1:
            return next(iter(self.sessions.values())).tally
        tally = Tally()
        for session in self.sessions.values():
            tally.merge(session.tally)
        return tally

    # --- blocks of lines ---

    def _read_range(
        self, file: BinaryIO, source: str, number: int, size: int | None, progress: Progress
    ) -> int:
        """Take in the next `size` bytes, or all. `number`: lines before them; returns the number of
        the last line."""
        self._earlier = len(self.problems)
        left = sys.maxsize if size is None else size
        while left and (block := file.read(min(BLOCK, left))):
            left -= len(block)
            if left and not block.endswith(b"\n"):
                rest = file.readline(min(MAX_LINE, left))
                left -= len(rest)
                block += rest
            whole = block.rfind(b"\n") + 1
            if len(block) - whole < MAX_LINE:
                number = self._read_lines(block, source, number)
                progress(len(block))
                continue
            number = self._read_lines(block[:whole], source, number) + 1
            self._problem(source, number, f"longer than {MAX_LINE} bytes")
            progress(len(block))
            while left and (rest := file.readline(min(BLOCK, left))):
                left -= len(rest)
                progress(len(rest))
                if rest.endswith(b"\n"):
                    break
        self._flush()
        return number

    def _read_lines(self, block: bytes, source: str, number: int) -> int:
        """Take in whole lines; `number` lines were before them."""
        lines = PLAIN_LINE.findall(block)
        utf8 = _is_utf8(block)
        others: dict[int, Record] = {}
        start = 0
        texts: list[bytes] = []

        def count(end: int) -> None:
            """Count the lines from `start` on."""
            if start < end and not (utf8 and self._count_alike(lines, start, end, others)):
                if not texts:
                    texts.extend(block.split(b"\n"))
                for index in range(start, end):
                    record = others.get(index)
                    if not lines[index][-1]:
                        record = self._parse(texts[index] + b"\n", source, number + index + 1)
                    if record is not None:
                        self._session(record).tally.add(record)

        for index in [index for index, line in enumerate(lines) if line[-1]]:
            record = self._parse(lines[index][-1], source, number + index + 1)
            if record is None:
                continue
            if record["type"] in ("flow", "event"):
                others[index] = record
                continue
            count(index)
            start, others = index + 1, {}
            if record.get("final"):
                self._flush()
            if reason := self._take(record):
                self._problem(source, number + index + 1, reason)
        count(len(lines))
        return number + len(lines)

    def _flush(self) -> None:
        """Count what is held back."""
        for alike in self._alike.values():
            alike.flush()
        self._alike.clear()

    def _count_alike(
        self, lines: Sequence[PlainLine], start: int, end: int, others: dict[int, Record]
    ) -> bool:
        """Count some lines, all of a kind at once; False if they must be counted one by one."""
        positions = [index for index in range(start, end) if not lines[index][-1]]
        plain = [lines[index] for index in positions]
        sessions = {line[0] for line in plain}
        if len(sessions) != 1:
            return False
        name = sessions.pop()
        try:
            if any(record["session"].encode() != name for record in others.values()):
                return False
            if (alike := self._alike.get(name)) is not None:
                alike.add(plain, positions, others)
                return True
            early = others and min(others) < positions[0]
            first = others[min(others)] if early else Columns(plain[:1]).record(0)
            if self._is_full(first):
                return False
            session = self.sessions.get(first["session"]) or self._begun(first)
            alike = Alike(session.tally)
            alike.add(plain, positions, others)
        except ValueError:
            return False
        if len(self._alike) >= MOST_ALIKE:
            self._flush()
        self._alike[name] = alike
        self.sessions[session.id] = session
        return True

    def _parse(self, text: bytes, source: str, number: int) -> Record | None:
        """The record in a line; None if there is none."""
        if text.isspace():
            return None
        try:
            record: Record = decode(text)
        except ValueError:
            torn = not text.endswith(b"\n")
            self._problem(source, number, "torn line" if torn else "not JSON")
            return None
        reason = check(record)
        if not reason and self._is_full(record):
            reason = f"of another session than the first {MAX_SESSIONS}"
        if reason:
            self._problem(source, number, reason)
            return None
        return record

    def _is_full(self, record: Record) -> bool:
        return len(self.sessions) >= MAX_SESSIONS and record["session"] not in self.sessions

    def _session(self, record: Record) -> Session:
        session = self.sessions.get(record["session"])
        if session is None:
            session = self.sessions[record["session"]] = self._begun(record)
        return session

    def _begun(self, record: Record) -> Session:
        """The session whose first record this is."""
        return Session(record["session"], time=record["time"])

    def _take(self, record: Record) -> str:
        """Take in a record that was checked; why it cannot be, or ""."""
        session = self._session(record)
        if not session.time:
            session.time = record["time"]
        if record["type"] == "session_start":
            session.start = record
        elif record["type"] != "stats":
            session.tally.add(record)
        elif record.get("final"):
            # Says more than the records where some could not be written.
            try:
                session.tally = Tally.from_data(record)
            except ValueError as error:
                return f"wrong statistics: {error}"
            session.final = True
        return ""

    def _problem(self, source: str, line: int, reason: str) -> None:
        self.unreadable += 1
        # A plain line that is not what it seems is found out after others that follow it.
        insort(self.problems, Problem(source, line, reason), self._earlier, key=attrgetter("line"))
        del self.problems[MAX_PROBLEMS:]

    # --- parts of a large file ---

    def _read_parts(
        self, path: Path, source: str, end: int, processes: int, progress: Progress
    ) -> None:
        """Take in a large file up to `end`: its beginning and the first part here, the other parts
        in other processes at the same time."""
        with path.open("rb") as file:
            begin = _line_start(file, HEAD, end)
            file.seek(0)
            number = self._read_range(file, source, 0, begin, progress)
            cuts = [
                _line_start(file, begin + (end - begin) * part // processes, end)
                for part in range(1, processes)
            ]
            file.seek(begin)
            known = {session.id: session.tally for session in self.sessions.values()}
            with _readers(path, source, [*cuts, end], self._part()) as readers:
                size = (cuts[0] if readers else end) - begin

                def told(count: int) -> None:
                    progress(count + sum(reader.progress() for reader in readers))

                number = self._read_range(file, source, number, size, told)
                for reader in readers:
                    part = reader.result(progress)
                    if part is not None and self._fits(part, known):
                        self._merge(part, number)
                        number += part.lines
                    else:
                        file.seek(reader.begin)
                        size = reader.end - reader.begin
                        number = self._read_range(file, source, number, size, lambda _: None)

    def _part(self) -> Part:
        """What a part of a file is to be read into."""
        part = Part()
        for session in self.sessions.values():
            part.sessions[session.id] = Session(session.id, session.tally.part())
        return part

    def _fits(self, part: Part, known: Mapping[str, Tally]) -> bool:
        """Whether to merge a part is to read it. `known`: tallies of which the part was told; final
        statistics may have put others in their place."""
        for theirs in part.sessions.values():
            mine = self.sessions.get(theirs.id)
            tally = Tally() if mine is None else mine.tally
            told = known.get(theirs.id, tally)
            if not theirs.final and not (told is tally and tally.fits(theirs.tally)):
                return False
        return True

    def _merge(self, part: Part, number: int) -> None:
        """Take in a part; `number` lines are before it."""
        for theirs in part.sessions.values():
            mine = self.sessions.get(theirs.id)
            if mine is None:
                mine = self.sessions[theirs.id] = Session(theirs.id, time=theirs.time)
            mine.start = theirs.start or mine.start
            if theirs.final:
                mine.final = True
                mine.tally = theirs.tally
            else:
                mine.tally.merge(theirs.tally)
        for problem in part.problems:
            self._problem(problem.source, number + problem.line, problem.reason)
        self.unreadable += part.unreadable - len(part.problems)


class Part(Logs):
    """What a part of a file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = 0

    def _begun(self, record: Record) -> Session:
        session = super()._begun(record)
        session.tally = Tally().part()
        return session


class Reader:
    """Another process that reads a part of a file."""

    def __init__(self, path: Path, source: str, begin: int, end: int, part: Part) -> None:
        """Raises: OSError, where no process can be started."""
        self.begin = begin
        self.end = end
        # Not forked: other threads may be about, and forking is not to be had everywhere.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe(duplex=False)
        arguments = (theirs, path, source, begin, end, part)
        self._process = context.Process(target=_read_part, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._part: Part | None = None

    def progress(self) -> int:
        """How many bytes it has read since the last call."""
        count = 0
        try:
            while self._part is None and self._connection.poll():
                count += self._receive()
        except (EOFError, OSError):
            pass
        return count

    def result(self, progress: Progress) -> Part | None:
        """Wait for what it has read; None if it failed."""
        try:
            while self._part is None:
                progress(self._receive())
        except (EOFError, OSError):
            return None
        return self._part

    def stop(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.kill()
        self._process.join()

    def _receive(self) -> int:
        message = self._connection.recv()
        if isinstance(message, Part):
            self._part = message
            return 0
        count: int = message
        return count


@contextmanager
def _readers(path: Path, source: str, cuts: Sequence[int], part: Part) -> Iterator[list[Reader]]:
    """A reader for each range between two `cuts`; none where processes cannot be started."""
    readers: list[Reader] = []
    try:
        try:
            for begin, end in pairwise(cuts):
                readers.append(Reader(path, source, begin, end, part))
        except (OSError, AssertionError):  # AssertionError: this process must not have children
            while readers:
                readers.pop().stop()
        yield readers
    finally:
        for reader in readers:
            reader.stop()


def _read_part(
    connection: Connection, path: Path, source: str, begin: int, end: int, part: Part
) -> None:
    """Read a part of a file; send the bytes read, again and again, and the part at last."""
    gc.disable()  # see cli.py
    with path.open("rb") as file:
        file.seek(begin)
        part.lines = part._read_range(file, source, 0, end - begin, connection.send)
    connection.send(part)


def _line_start(file: BinaryIO, position: int, end: int) -> int:
    """The first beginning of a line at or after a position."""
    if position >= end:
        return end
    file.seek(position - 1)
    while (line := file.readline(BLOCK)) and not line.endswith(b"\n"):
        pass
    return min(file.tell(), end)


# --- sessions that need not be read ---


def _settled(file: BinaryIO) -> tuple[list[tuple[Record, Record]], int | None]:
    """The sessions at the end of a file that need not be read because their final statistics are
    there, each by its first and its last record; and how many bytes before them are to be read,
    None for all of what is no regular file.

    The final statistics say how much their session has written. If a session begins just so many
    bytes before, nobody else wrote in between. The file is left at its beginning.
    """
    settled: list[tuple[Record, Record]] = []
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return [], None
    end = file.seek(0, os.SEEK_END)
    while end and (found := _last_session(file, end)) is not None:
        start, final, end = found
        settled.insert(0, (start, final))
    file.seek(0)
    return settled, end


def _last_session(file: BinaryIO, end: int) -> tuple[Record, Record, int] | None:
    """First and last record of the session whose final statistics end at `end`, and where it
    begins; None if there is no such session, or if others wrote in between."""
    line = _last_line(file, end)
    if b'"final":true' not in line[:200]:
        return None
    final = _parsed(line)
    if final.get("type") != "stats" or not final.get("final"):
        return None
    first = end - len(line) - final.get("log_bytes", sys.maxsize)
    if first < 0:
        return None
    file.seek(first)
    head = file.readline(MAX_LINE)
    if head == b"\n":  # put there because the line before was torn
        head = file.readline(MAX_LINE)
    start = _parsed(head)
    if start.get("type") != "session_start" or start["session"] != final["session"]:
        return None
    try:
        Tally.from_data(final)
    except ValueError:
        return None
    return start, final, first


def _last_line(file: BinaryIO, end: int) -> bytes:
    """The line that ends at `end`; empty if that is within a line."""
    pieces: list[bytes] = []  # from the last to the first
    length = 0
    while end and length < MAX_LINE:
        size = min(1 << 18, end)
        end -= size
        file.seek(end)
        piece = file.read(size)
        if not pieces and not piece.endswith(b"\n"):
            return b""
        newline = piece.rfind(b"\n", 0, size if pieces else size - 1)
        pieces.append(piece[newline + 1 :])
        length += size
        if newline >= 0 or not end:
            return b"".join(reversed(pieces))
    return b""


def _parsed(line: bytes) -> Record:
    """The record that a line holds; {} if it is none."""
    try:
        record = decode(line)
    except ValueError:
        return {}
    return {} if check(record) else record


def _is_utf8(data: bytes) -> bool:
    try:
        return data.isascii() or bool(data.decode())
    except UnicodeDecodeError:
        return False
