"""The entries of a HAR in the order in which they began, whatever the order of the file: what a
login answers, and where a redirect leads, is what came before."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from math import inf
from typing import BinaryIO

from .entry import unix_time
from .scan import Place

BLOCK = 1024 * 1024
"""How much is read at once, in bytes."""
MAX_SORTED = 1_000_000
"""How many entries are put in order. What comes after them in the file is read after them."""
_LONGEST = 128
"""How much a field with its date takes, in bytes; one that takes more is not found."""

_STARTED = re.compile(rb'"startedDateTime"[ \t\r\n]{0,40}:[ \t\r\n]{0,40}"([^"\\]{1,40})"')


def in_order(file: BinaryIO, places: Iterator[Place]) -> Iterator[Place]:
    """The places in the order of time; of equal times, and where there are no dates, in that of the
    file. `places` must read the file from where it wants to."""
    if not _disordered(file):
        yield from places
        return
    times, numbers, begins, ends = array("d"), array("q"), array("q"), array("q")
    for place in places:
        times.append(_begun(file, place))
        numbers.append(place.number)
        begins.append(place.begin)
        ends.append(place.end)
        if len(times) == MAX_SORTED:
            break
    for index in sorted(range(len(times)), key=times.__getitem__):
        yield Place(numbers[index], begins[index], ends[index])
    yield from places


def _disordered(file: BinaryIO) -> bool:
    """Whether an entry began before one that stands before it. It is looked for in the bytes, which
    takes 2 % of the time that reading the entries does; a date that is no entry's makes them be
    sorted, no more."""
    file.seek(0)
    buffer, latest = b"", -inf
    while block := file.read(BLOCK):
        buffer += block
        end = 0
        for found in _STARTED.finditer(buffer):
            time, end = _time(found), found.end()
            if -inf < time < latest:
                return True
            latest = max(time, latest)
        buffer = buffer[max(end, len(buffer) - _LONGEST) :]
    return False


def _begun(file: BinaryIO, place: Place) -> float:
    """When an entry began, Unix time; -inf of one without a date, which is not used anyway."""
    file.seek(place.begin)
    left = place.end - place.begin
    buffer = b""
    while left and (block := file.read(min(left, BLOCK))):
        left -= len(block)
        buffer = buffer[-_LONGEST:] + block
        if found := _STARTED.search(buffer):
            return _time(found)
    return -inf


def _time(found: re.Match[bytes]) -> float:
    time = unix_time(found.group(1).decode("ascii", "replace"))
    return -inf if time is None else time
