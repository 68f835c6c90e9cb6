"""The records that a running session adds to its log, read as they come."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from typing import BinaryIO

from ..logs import parsed

BLOCK = 1024 * 1024
"""How much is read at once, in bytes."""
_BEFORE = 80
"""In how many bytes of a line, its first ones, the session is named."""


class Tail:
    """What one session writes into its log from now on. Other sessions may write there, too."""

    def __init__(self, path: Path, session: str) -> None:
        """Raises: OSError."""
        self._path = path
        self._session = session.encode()
        self._file: BinaryIO = path.open("rb")
        self._file.seek(0, os.SEEK_END)
        self._rest = b""

    def read(self) -> Iterator[dict[str, Any]]:
        """The flows, events and gaps that were written since the last call."""
        yield from self._lines()
        if self._was_removed():
            try:
                file = self._path.open("rb")
            except OSError:
                return  # it has not been made anew yet
            self._file.close()
            self._file, self._rest = file, b""
            yield from self._lines()

    def _lines(self) -> Iterator[dict[str, Any]]:
        while block := self._file.read(BLOCK):
            *lines, self._rest = (self._rest + block).split(b"\n")
            for line in lines:
                record = parsed(line) if self._session in line[:_BEFORE] else None
                if record is not None and record["type"] in ("flow", "event", "gap"):
                    yield record

    def _was_removed(self) -> bool:
        """Whether another file is in its place by now."""
        try:
            there = self._path.stat()
        except OSError:
            return False
        mine = os.fstat(self._file.fileno())
        return (mine.st_ino, mine.st_dev) != (there.st_ino, there.st_dev)

    def close(self) -> None:
        self._file.close()
