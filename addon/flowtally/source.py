"""A session log as a file that is looked at again and again, its lines, and what of it need not be
looked at: what a checkpoint vouches for."""

from __future__ import annotations

import gc
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import ExitStack
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from typing import BinaryIO
from typing import NamedTuple
from typing import Self

from .checkpoint import Checkpoint
from .encoding import decode
from .encoding import without_rows
from .valid import check

BLOCK = 256 * 1024
"""How much of a file is looked through at once, in bytes."""
MAX_LINE = 1024 * 1024
"""Longest line that is read, in bytes; flowtally's own are much shorter."""
MAX_SESSIONS = 10_000
"""Of how many sessions logs are read."""
_BOM = b"\xef\xbb\xbf"
STATS = b'{"type":"stats",'
"""What the addon's own lines of a checkpoint begin with."""

Record = dict[str, Any]


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
        self.path = log if isinstance(log, Path) else None
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
        if self.path is not None:
            self._file.close()

    def __enter__(self) -> Self:
        if self.path is not None:
            self._file = self.path.open("rb")
        return self

    def __exit__(self, *_: object) -> None:
        if self.path is not None:
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

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """The lines that have to be looked at, many at once, with the position of the first one;
        those longer than MAX_LINE are left out."""
        self._moved = True
        for position, end in self.ranges:
            while position < end:
                self._file.seek(position)
                block = self._file.read(min(MAX_LINE, end - position))
                bom = len(_BOM) if position == 0 and block.startswith(_BOM) else 0
                size = len(block) if position + len(block) >= end else block.rfind(b"\n") + 1
                if size:
                    yield position + bom, block[bom:size]
                while block and not size:
                    position += len(block)
                    block = self._file.read(min(MAX_LINE, end - position))
                    size = block.find(b"\n") + 1
                if not block:
                    break
                position += size

    def between(self, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
        """The lines of a range."""
        position = begin
        inside = False
        waiting: tuple[int, bytes] | None = None  # the blank beginning of a long line
        self._moved = True
        while position < end:
            if self._moved:  # to look elsewhere
                self._file.seek(position)
                self._moved = False
            line = self._file.readline(min(MAX_LINE, end - position))
            if not line:
                break
            blank = line.isspace()
            if inside:
                if waiting is not None and not blank:
                    yield waiting
                    waiting = None
            else:
                waiting = (position, line) if blank else None
                if not blank:
                    yield position, line if position else line.removeprefix(_BOM)
            position += len(line)
            inside = not line.endswith(b"\n")
            if not inside and blank:
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

    def unended(self) -> int:
        """Where the last line begins if it has no end; else `size`."""
        begin = max(0, self.size - MAX_LINE)
        self._moved = True
        self._file.seek(begin)
        return begin + self._file.read(self.size - begin).rfind(b"\n") + 1

    def plan(self, tables: Collection[str] = ()) -> Iterator[tuple[str, Checkpoint]]:
        """Leave out of `ranges` what checkpoints vouch for; these, built, with their sessions. Only
        when all have been taken, `ranges` says so. `tables`: which of their statistics are needed,
        none: all.

        A checkpoint says how much its session has written into the file before it. If that session
        began just so many bytes before, nobody else wrote in between, and the checkpoint holds all
        that stands there.
        """
        ranges: list[tuple[int, int]] = []
        found = 0
        end = self.size
        while end and found < MAX_SESSIONS:
            if (vouched := self._last_vouched(end, tables)) is None:
                break
            ranges += [(vouched.end, end), (vouched.begin, vouched.head)]
            found += 1
            end = vouched.begin
            yield vouched.session, vouched.checkpoint
        if end:
            ranges.append((0, end))
        self.ranges = ranges[::-1]

    def _last_vouched(self, end: int, tables: Collection[str]) -> Vouched | None:
        """What the last whole checkpoint before a position vouches for, if it does."""
        position: int | None = end
        while position is not None and (position := self._last_stats(position)) is not None:
            line = self.line(position)
            last = parsed(line)
            if last is None or last["type"] != "stats" or not last.get("parts"):
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
                if tables and not any(b'"table":"%s"' % name.encode() in other for name in tables):
                    other = without_rows(other)
                part = parsed(other) if other.startswith(STATS) else None
                if part is not None and _belongs(part, start["session"], checkpoint.number):
                    checkpoint.add(part)
                    parts.add(at)
            if not checkpoint.whole or last["session"] != start["session"]:
                return None
            try:
                checkpoint.build(tables)
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
            block = self._file.read(before - begin + len(STATS))
            at = block.rfind(b"\n" + STATS)
            if at >= 0:
                return begin + at + 1
            before = begin
        return 0 if end > 0 and self.line(0).startswith(STATS) else None


def _belongs(record: Record, session: str, checkpoint: int) -> bool:
    named = record["type"], record["session"], record.get("checkpoint")
    return named == ("stats", session, checkpoint)


def too_long(line: bytes) -> str:
    """What is to be said of a line of which only the beginning was read; "" of others."""
    cut = len(line) == MAX_LINE and not line.endswith(b"\n")
    return f"longer than {MAX_LINE} bytes" if cut else ""


def judged(line: bytes) -> tuple[Any, str]:
    """What a line holds, None if that is no JSON; and why it is no record that can be used, "" if
    it is one."""
    try:
        record = decode(line)
    except ValueError:
        return None, too_long(line) or ("not JSON" if line.endswith(b"\n") else "torn line")
    return record, check(record)


def parsed(line: bytes) -> Record | None:
    """The record that a line holds; None if it is none that can be used."""
    try:
        record: Record = decode(line)
    except ValueError:
        return None
    return None if check(record) else record


def records_at(
    sources: Sequence[Source], places: Iterable[tuple[int, int]]
) -> Iterator[Record | None]:
    """The records that stand at some places, each the number of its source and a position in bytes;
    None where there is none, for the file may be another one by now."""
    with ExitStack() as stack:
        opened: Source | None = None
        for number, position in places:
            if sources[number] is not opened:
                stack.close()
                opened = stack.enter_context(sources[number])
            yield parsed(sources[number].line(position))


def sources(logs: Sequence[tuple[str, Path | BinaryIO]], stack: ExitStack) -> list[Source]:
    """Logs that can be looked at again and again; `stack` closes what was copied.

    Raises: OSError, with the name of the log as its `filename`.
    """
    found = []
    for name, log in logs:
        try:
            found.append(Source(name, seekable(log, stack)))
        except OSError as error:
            error.filename = name
            raise
    return found


def seekable(log: Path | BinaryIO, stack: ExitStack) -> Path | BinaryIO:
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
def temporary_folder() -> Iterator[Path]:
    """A folder that is gone afterwards. Raises: OSError."""
    # Not tempfile's: it knows the folder's name only once that is there, and a signal may come in
    # between.
    path = Path(tempfile.gettempdir(), f"flowtally-{secrets.token_hex(8)}")
    try:
        path.mkdir(mode=0o700)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


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
