"""Single flows and events, written to standard output: from logs, and as a session writes them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from .encoding import encode
from .inputs import NOTHING_MATCHES
from .inputs import Inputs
from .logs import Record
from .logs import parsed
from .report import flows_text
from .report.layout import terminal_width
from .report.paint import paint_for
from .selection import Selection
from .terminal import show
from .terminal import tell

POLL = 0.2
"""Seconds between two looks at a log that grows."""
BLOCK = 64 * 1024


class Lines(Enum):
    """What is written of a record."""

    TABLE = "table"
    JSON = "json"
    CURL = "curl"


def show_logs(
    logs: Sequence[tuple[str, Path | BinaryIO]], inputs: Inputs, lines: Lines, follow: bool
) -> None:
    """Write what is wanted of logs; with `follow`, go on with what is written to the first one.

    Raises: OSError, with the name of the log as its `filename`.
    """
    write = _writer(lines)
    nothing = True
    with Selection(logs, inputs.matches) as selection:
        for record in selection:
            # The record alone cannot know that its challenge was answered later.
            challenge = (record["session"], record.get("flow", "")) in selection.answered
            if not (challenge and inputs.problems):
                write(record)
                nothing = False
        ended, size = selection.ended, selection.size
    if follow and not ended:
        path = logs[0][1]
        assert isinstance(path, Path)
        for line in Growing(path, size):
            if (new := parsed(line)) is None:
                continue
            if new["type"] in ("flow", "event") and inputs.matches(new):
                write(new)
            if new.get("final"):
                break
    elif nothing:
        tell(NOTHING_MATCHES)


def _writer(lines: Lines) -> Callable[[Record], None]:
    if lines is Lines.JSON:
        return lambda record: show(encode(record).decode(), end="")
    if lines is Lines.CURL:
        return lambda record: show("\n".join(flows_text.curl(record)))
    width = terminal_width() if sys.stdout.isatty() else flows_text.WIDE
    paint = paint_for(sys.stdout)
    return lambda record: show(flows_text.line(record, width, paint))


class Growing:
    """The lines that a file gets, also where it is rotated or begun anew. Iterating does not end.

    A file that is moved away is read to its end, then the one that is in its place.
    """

    def __init__(
        self, path: Path, position: int, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """`position`: what was read, in bytes; the line that it is within comes whole."""
        self._path = path
        self._position = position
        self._sleep = sleep

    def __iter__(self) -> Iterator[bytes]:
        file: BinaryIO = self._path.open("rb")
        try:
            file.seek(_line_start(file, self._position))
            begun = b""
            while True:
                block = file.read(BLOCK)
                *whole, begun = (begun + block).split(b"\n")
                yield from whole
                if block:
                    continue
                successor = self._successor(file)
                if successor is not None:
                    file.close()
                    file, begun = successor, b""
                    continue
                self._sleep(POLL)
        finally:
            file.close()

    def _successor(self, file: BinaryIO) -> BinaryIO | None:
        """The file to go on with, where it is another one by now or was begun anew."""
        try:
            now = self._path.stat()
            then = os.fstat(file.fileno())
            if os.path.samestat(now, then) and then.st_size >= file.tell():
                return None
            return self._path.open("rb")
        except FileNotFoundError:
            return None  # it may come again


def _line_start(file: BinaryIO, position: int) -> int:
    """Where the line begins that a position is within; a line is no longer than BLOCK
    (journal.py)."""
    start = max(0, position - BLOCK)
    file.seek(start)
    return start + file.read(position - start).rfind(b"\n") + 1
