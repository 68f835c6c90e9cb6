"""The newest records of a session that runs, read from the end of its log, a bounded piece at a
time: what the live page asks for."""

from __future__ import annotations

import errno
import io
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO
from typing import NamedTuple

from .filter_language import Filter
from .filters import is_problem
from .journal import NOT_REGULAR
from .moments import unix_second
from .redaction import MAX_URL
from .redaction import printable
from .rows import series
from .source import STATS
from .source import Record
from .source import parsed
from .tally import incident_of
from .tally import place

BLOCK = 128 * 1024
"""How much is read at once, in bytes; no line is longer (journal.py, MAX_LINE)."""
MOST = 200
"""How many records there are in one piece."""
LONGEST = 0.04
"""Seconds of processor time that one piece takes, but for its last block."""


class Query(NamedTuple):
    """What is asked for."""

    wanted: Filter
    before: int
    """Records from this `seq` on are not wanted; 0: all are."""
    after: int
    """Records up to this `seq` are not wanted."""
    at: int
    """Where to begin, in bytes: the end of what has not been looked at; 0: at the end."""


class Piece(NamedTuple):
    """Some records, newest first."""

    records: list[Record]
    before: int
    """With which `before` to go on; 0: there is nothing more."""
    at: int
    """With which `at`."""
    newest: int
    """The newest `seq` that was looked at, wanted or not: with which `after` to ask for what comes
    later. As `after` says where there is none."""


_CHECKS = {
    "incident": "[0-9a-f]{8}",
    "host": ".{1,300}",
    "series": ".{1,40}",
    "time": "[0-9]{1,11}-[0-9]{1,11}",
    "background": "with",
    "before": "[0-9]{1,15}",
    "after": "[0-9]{1,15}",
    "at": "[0-9]{1,15}",
}


def query(given: Mapping[str, str]) -> Query:
    """What a request asks for, by the names of the page's address; and `background`, which is left
    out unless it is asked for. Raises: ValueError."""
    for name, text in given.items():
        if name not in _CHECKS or not re.fullmatch(_CHECKS[name], text, re.DOTALL):
            raise ValueError(f"{name!r:.40} is not allowed, or not what it says")
    conditions: list[Filter] = []
    if "background" not in given:
        conditions.append(lambda record: "background" not in record)
    if "incident" in given:
        id = given["incident"]
        conditions.append(lambda record: is_problem(record) and incident_of(record) == id)
    if "host" in given:
        # The page knows it as it is shown (report/flows_data.py).
        conditions.append(lambda record: printable(place(record), MAX_URL) == given["host"])
    if "series" in given:
        conditions.append(lambda record: series(record) == given["series"])
    if "time" in given:
        begin, end = map(int, given["time"].split("-"))
        conditions.append(lambda record: begin <= unix_second(record["time"]) < end)
    before, after, at = (int(given.get(name, 0)) for name in ("before", "after", "at"))
    return Query(lambda record: all(holds(record) for holds in conditions), before, after, at)


def newest(log: Path, session: str, asked: Query) -> Piece:
    """The newest records of a session that are wanted. Raises: OSError."""
    found: list[Record] = []
    latest = asked.after
    end = time.thread_time() + LONGEST
    if log.is_fifo():  # to open it would wait for ever
        raise OSError(errno.EINVAL, NOT_REGULAR)
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        # A log that was made anew is shorter than it was.
        position = asked.at if 0 < asked.at <= size else size
        before = asked.before
        while position > 0:
            for start, line in _lines_before(file, position):
                position = start
                record = None if line.startswith(STATS) else parsed(line)
                if record is None or record["session"] != session:
                    continue
                seq = record["seq"]
                latest = max(latest, seq)
                if asked.before and seq >= asked.before:
                    continue
                if seq <= asked.after or record["type"] == "session_start":
                    return Piece(found, 0, 0, latest)
                before = seq
                if record["type"] in ("flow", "event") and asked.wanted(record):
                    found.append(record)
                    if len(found) == MOST:
                        return Piece(found, before, position, latest)
            if time.thread_time() > end:
                return Piece(found, before if position else 0, position, latest)
    return Piece(found, 0, 0, latest)


def _lines_before(file: BinaryIO, position: int) -> list[tuple[int, bytes]]:
    """Some whole lines that end at or before a position, the last first, each with where it
    begins. There is at least one."""
    begin = max(0, position - BLOCK)
    file.seek(begin)
    block = file.read(position - begin)
    if begin:  # within a line: all before its end is left for the next block
        cut = block.find(b"\n") + 1
        if 0 < cut < len(block):
            begin, block = begin + cut, block[cut:]
    lines = []
    for line in io.BytesIO(block):
        lines.append((begin, line))
        begin += len(line)
    return lines[::-1] or [(0, b"")]
