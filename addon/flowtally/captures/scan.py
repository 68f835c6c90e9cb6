"""Finds the entries of a HAR without reading it as a whole: where each begins and ends.

Only brackets and strings are looked at, so that a file of any size takes a block of memory, and a
few bytes for each bracket that is open; one with too many of these is read up to there. What stands
between the brackets of an entry is read as JSON by whoever wants it. A file may be cut off
anywhere, and may hold anything.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import BinaryIO
from typing import NamedTuple

BLOCK = 1024 * 1024
"""How much is read at once, in bytes."""
LONG = 4096
"""From so many bytes on, the beginning of a string is not kept until its end is there."""
MAX_BETWEEN = 1024 * 1024
"""How much of what stands between two entries is looked into, in bytes."""
MAX_DEPTH = 1_000_000
"""How many brackets may be open at once: what has more is no HAR, and would take a minute and
hundreds of megabytes. JSON is read no deeper than a few thousand."""

_SPACE = b" \t\r\n"
# Possessive, all of them: nothing is read twice.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_PLAIN = rb'(?:[^"{}\[\]]++|' + _STRING + rb")*+"
_TO_BRACKET = re.compile(_PLAIN, re.DOTALL)
"""All up to the next bracket; strings are passed over as a whole."""
_TO_NESTED = re.compile(rb'(?:[^"{}\[\]]++|' + _STRING + rb"|\{" + _PLAIN + rb"\})*+", re.DOTALL)
"""The same, and objects with no bracket in them, such as headers are, are passed over too."""
_ENTRIES = [b"", b"log", b"entries"]
_OPENING = (b"{", b"[")
_STRING_END = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_KEY = re.compile(rb'"([^"\\]{0,32})"[ \t\r\n]*:[ \t\r\n]*$')


class Place(NamedTuple):
    """Where an entry stands in the file, in bytes."""

    number: int
    """From 1."""
    begin: int
    end: int
    """Equal to `begin` of an entry that is no object and no list."""


class Scan:
    """Looks through a HAR once. After `places` is exhausted, the attributes tell how it was."""

    def __init__(self, file: BinaryIO) -> None:
        self.found = False
        """There is a list `log.entries`."""
        self.broken = False
        """The file ended before the last bracket was closed, or the reading, see `deep`."""
        self.deep = False
        """More brackets are open than MAX_DEPTH: what follows is not read."""
        self.surplus = False
        """Something follows behind the last bracket, such as another HAR."""
        self.within = 0
        """The number of the entry within which it ended; 0: within none."""
        self._file = file
        self._buffer = b""
        self._at = 0
        """How much of the buffer was looked at."""
        self._begin = 0
        """Where the buffer begins in the file."""
        self._names: list[bytes] = []
        """The keys that lead to where the reading is, one for each open bracket."""
        self._number = 0

    def places(self) -> Iterator[Place]:
        """The entries, in the order of the file. The file may be read elsewhere meanwhile."""
        entry = -1
        while True:
            between, bracket, at = self._next(within=len(self._names) > len(_ENTRIES))
            if not bracket:
                break
            inside = self._in_entries()
            if inside:
                yield from self._loose(between, at)
            if bracket in _OPENING:
                self.deep = len(self._names) == MAX_DEPTH
                if self.deep:
                    break
                if inside:
                    self._number += 1
                    entry = at
                self._open(between, bracket)
                continue
            if self._names:
                self._names.pop()
            if entry >= 0 and self._in_entries():
                yield Place(self._number, entry, at + 1)
                entry = -1
            if not self._names:
                self.surplus = self._has_more()
                return
        self.broken = True
        self.within = self._number if entry >= 0 else 0

    def _has_more(self) -> bool:
        """Whether anything but space follows."""
        while not self._buffer[self._at :].strip(_SPACE):
            self._at = len(self._buffer)
            if not self._fill():
                return False
        return True

    def _in_entries(self) -> bool:
        return self._names == _ENTRIES

    def _open(self, between: bytes, bracket: bytes) -> None:
        depth = len(self._names)
        name = b""
        if 1 <= depth <= 2 and (key := _KEY.search(between)):
            name = key.group(1)
            # A HAR's log is an object, its entries are a list.
            if bracket != (b"{", b"[")[depth - 1]:
                name = b""
        self._names.append(name)
        self.found |= self._in_entries()

    def _loose(self, between: bytes, at: int) -> Iterator[Place]:
        """Entries that are no objects, such as `null`: places without length."""
        text = between.strip(_SPACE + b",")
        if not text:
            return
        try:
            count = len(json.loads(b"[" + text + b"]"))
        except (ValueError, RecursionError):
            count = 1
        for _ in range(count):
            self._number += 1
            yield Place(self._number, at, at)

    # --- the file ---

    def _next(self, within: bool) -> tuple[bytes, bytes, int]:
        """What stands before the next bracket, as far as it is short; the bracket; its position. No
        bracket at the end of the file. `within` an entry, all that matters is where it ends."""
        before = b""
        pattern = _TO_NESTED if within else _TO_BRACKET
        while True:
            buffer, at = self._buffer, self._at
            match = pattern.match(buffer, at)
            assert match is not None  # nothing is a match too
            end = match.end()
            bracket = buffer[end : end + 1]
            if not within and len(before) < MAX_BETWEEN:
                before += buffer[at:end]
            self._at = end
            if bracket and bracket != b'"':
                self._at += 1
                return before, bracket, self._begin + end
            if bracket and len(buffer) - end > LONG:
                self._at += 1
                if not self._pass_string():
                    return before, b"", self._begin + self._at
                before += b'""'
            elif not self._fill():
                return before, b"", self._begin + self._at

    def _pass_string(self) -> bool:
        """Pass over the rest of a string; whether it has an end."""
        while (match := _STRING_END.match(self._buffer, self._at)) is None:
            rest = self._buffer[self._at :]
            # A backslash at the end belongs to what follows.
            slashes = len(rest) - len(rest.rstrip(b"\\"))
            self._at = len(self._buffer) - slashes % 2
            if not self._fill():
                return False
        self._at = match.end()
        return True

    def _fill(self) -> bool:
        """Let go of what was looked at, and read on; whether there is more."""
        self._file.seek(self._begin + len(self._buffer), os.SEEK_SET)
        block = self._file.read(BLOCK)
        self._begin += self._at
        self._buffer = self._buffer[self._at :] + block
        self._at = 0
        return bool(block)
