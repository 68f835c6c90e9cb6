"""The lines that a log gets while a session writes it, also where it is rotated or begun anew."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

BLOCK = 64 * 1024
"""How much is read at once, in bytes; no line of flowtally's is longer (journal.py, MAX_LINE)."""
MAX_LINE = 1024 * 1024
"""How much is kept of a line that has no end yet, in bytes; a longer one is passed over."""


class Growing:
    """A log that grows.

    Where it is moved away it is read to its end, then the one that has its name; where it was cut,
    it is read from its beginning.
    """

    def __init__(self, path: Path, position: int | None = None) -> None:
        """`position`: what was read before, in bytes; the line that it is within comes whole.
        Without one it is all that is there now. Raises: OSError."""
        self._path = path
        self._file: BinaryIO = path.open("rb")
        end = os.fstat(self._file.fileno()).st_size
        self._file.seek(_line_start(self._file, end if position is None else position))
        self._begun = b""
        """What there is of a line that has no end yet."""
        self._too_long = False
        """The line that has no end yet is passed over."""
        self.gone = False
        """When it was last looked for, nothing had its name."""

    def lines(self) -> Iterator[bytes]:
        """Those that were finished since the last call."""
        while True:
            yield from self._finished()
            successor = self._successor()
            if successor is None:
                return
            yield from self._finished()  # what was written before it was moved away
            self._file.close()
            self._file, self._begun, self._too_long = successor, b"", False

    def _finished(self) -> Iterator[bytes]:
        while block := self._file.read(BLOCK):
            *whole, self._begun = (self._begun + block).split(b"\n")
            if whole and self._too_long:
                self._too_long = False
                del whole[0]  # the end of that line
            if self._too_long or len(self._begun) > MAX_LINE:
                self._begun, self._too_long = b"", True
            yield from whole

    def _successor(self) -> BinaryIO | None:
        """The file to go on with, if it is another one by now, or has been cut."""
        try:
            there, mine = self._path.stat(), os.fstat(self._file.fileno())
            self.gone = not stat.S_ISREG(there.st_mode)  # to open a named pipe would wait
            if self.gone or (os.path.samestat(there, mine) and mine.st_size >= self._file.tell()):
                return None
            return self._path.open("rb")
        except OSError:
            self.gone = True  # it has not been made anew yet, or cannot be read
            return None

    def close(self) -> None:
        self._file.close()


def _line_start(file: BinaryIO, position: int) -> int:
    """Where the line begins that a position is within."""
    start = max(0, position - BLOCK)
    file.seek(start)
    return start + file.read(position - start).rfind(b"\n") + 1
