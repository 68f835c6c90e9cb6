"""The latest flows and events of logs, and their problems wherever they are, without reading every
line as JSON.

What the addon itself wrote begins with what decides where a record belongs: its type, session,
`seq` and time. What else has to be known beforehand, names tell that stand in a line or do not: a
record without `error_code` is of no problem. Only where such a name leaves a doubt is a line read
whole, and where it begins otherwise; and in the end, those that were chosen.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Container
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import ExitStack
from heapq import merge
from pathlib import Path
from typing import BinaryIO
from typing import Self

from .filter_language import Filter
from .filters import is_problem
from .source import STATS
from .source import Record
from .source import Source
from .source import parsed
from .source import records_at
from .source import sources
from .source import uncollected
from .vocabulary import COLLATERAL

_OWN = re.compile(
    rb'\{"type":"(?:flow|event)","session":"([0-9a-f]+)","seq":([1-9][0-9]{0,14}),"time":"'
)
"""How a flow or an event of the addon's begins (record.py, journal.py)."""
_FAILED, _ANSWERS = b'"error_code"', b'"answers"'
_ESCAPE = b"\\"
"""Where it stands in a line, a name may be written otherwise."""
_DOUBTS = (b'"background"', b'"%b"' % COLLATERAL.encode())
"""What stands in a line with an error code if it is not of a problem."""
_SPARE = 4
"""Of places, such a part more than are needed is kept, before some are let go."""


class _Hits:
    """Where a name stands in a block: to search all of it is much faster than each line."""

    def __init__(self, block: bytes, name: bytes) -> None:
        self._block, self._name = block, name
        self.at = 0
        """Where it stands next; behind the block where it does not."""
        self.passed(0)

    def passed(self, position: int) -> bool:
        """Go on from a position; True, for what comes before it has the name."""
        found = self._block.find(self._name, position)
        self.at = found if found >= 0 else len(self._block)
        return True


class Numbers:
    """Which numbers were there, in little room where most follow each other."""

    def __init__(self) -> None:
        self.count = 0
        """How many."""
        self._firsts: array[int] = array("q")
        self._ends: array[int] = array("q")
        """Of each run, its first number, and the one behind its last."""

    def add(self, number: int) -> bool:
        """Take in a number; whether it is a new one."""
        firsts, ends = self._firsts, self._ends
        if ends and number == ends[-1]:
            ends[-1] += 1
            self.count += 1
            return True
        at = bisect_right(firsts, number) - 1
        """The run that it is in or behind."""
        if at >= 0 and number < ends[at]:
            return False
        self.count += 1
        if at >= 0 and number == ends[at]:
            ends[at] += 1
        else:
            at += 1
            firsts.insert(at, number)
            ends.insert(at, number + 1)
        if at + 1 < len(firsts) and ends[at] == firsts[at + 1]:  # all that was between two
            del ends[at], firsts[at + 1]
        return True

    @property
    def missing(self) -> int:
        """How many were not there, from 1 to the highest one that was."""
        return self._ends[-1] - 1 - self.count if self._ends else 0


class _Places:
    """Where the latest of some records of a session stand: at least `most`, or all."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._columns = array("q"), array("q"), array("q")
        """Of each its `seq`, the number of its source, and where it stands there."""

    def __len__(self) -> int:
        return len(self._columns[0])

    def add(self, seq: int, number: int, position: int) -> None:
        seqs, numbers, positions = self._columns
        seqs.append(seq)
        numbers.append(number)
        positions.append(position)
        if len(seqs) > self._most + self._most // _SPARE:
            kept = sorted(range(len(seqs)), key=seqs.__getitem__)[-self._most :]
            for column in self._columns:
                column[:] = array("q", map(column.__getitem__, kept))

    def latest(self, most: int) -> Iterator[tuple[int, int, int]]:
        """The latest ones, the last first."""
        seqs, numbers, positions = self._columns
        for index in sorted(range(len(seqs)), key=seqs.__getitem__, reverse=True)[:most]:
            yield seqs[index], numbers[index], positions[index]


class _Session:
    """What is known of the records of a session."""

    def __init__(self, most: int) -> None:
        self.first, self.begun = 2**63, b""
        """Of the first one its `seq`, and its time."""
        self.seen = Numbers()
        self.problems = _Places(most)
        self.others = _Places(most)
        self.answers = _Places(most)


class Latest:
    """The latest records that are wanted; problems come before all others.

    As a context manager it lets go of the logs afterwards.
    """

    def __init__(
        self,
        logs: Sequence[tuple[str, Path | BinaryIO]],
        most: int,
        wanted: Filter | None = None,
        of: Container[str] | None = None,
    ) -> None:
        """Look through logs for `most` records. `wanted`: which flows and events, for which all
        have to be read; None: all. `of`: ids of sessions; None: all.

        Raises: OSError, with the name of the log as its `filename`.
        """
        self._most = max(1, most)
        self._wanted = wanted
        self._of = of
        self._wrong = 0
        """How many were chosen that are no records."""
        self._sessions: dict[bytes, _Session] = {}
        self._stack = ExitStack()
        self._sources = sources(logs, self._stack)
        with uncollected():
            for number, source in enumerate(self._sources):
                with source:
                    self._look_through(source, number)

    @property
    def count(self) -> int:
        """How many there are; what stands in several logs counts once. Of lines that only begin
        like a record, those that were chosen are left out."""
        return sum(session.seen.count for session in self._sessions.values()) - self._wrong

    def _look_through(self, source: Source, number: int) -> None:
        for offset, block in source.blocks():
            failed, answers, escape = (_Hits(block, n) for n in (_FAILED, _ANSWERS, _ESCAPE))
            begin = 0
            while begin < len(block):
                end = block.find(b"\n", begin) + 1 or len(block)
                fails = failed.at < end and failed.passed(end)
                is_answer = answers.at < end and answers.passed(end)
                in_doubt = self._wanted is not None or not block.startswith(b"}\n", end - 2)
                in_doubt |= escape.at < end and escape.passed(end)
                in_doubt |= fails and any(block.find(d, begin, end) >= 0 for d in _DOUBTS)
                place = number, offset + begin
                if own := _OWN.match(block, begin):
                    if in_doubt:
                        self._take(block[begin:end], *place)
                    else:
                        self._take_own(own, fails, is_answer, *place)
                elif not block.startswith(STATS, begin):
                    self._take(block[begin:end], *place)
                begin = end

    def _take_own(
        self, own: re.Match[bytes], fails: bool, is_answer: bool, number: int, position: int
    ) -> None:
        """Take in a line that has not to be read: how it begins, and which names stand in it."""
        id, digits = own.groups()
        session = self._sessions.get(id) or self._session(id)
        if session is None:
            return
        seq = int(digits)
        if seq < session.first:
            session.first, session.begun = seq, own.string[own.end() : own.end() + 24]
        if is_answer:
            session.answers.add(seq, number, position)
        if session.seen.add(seq):
            (session.problems if fails else session.others).add(seq, number, position)

    def _take(self, line: bytes, number: int, position: int) -> None:
        """Take in a line that has to be read."""
        record = parsed(line)
        if record is None:
            return
        session = self._session(record["session"].encode("utf-8", "surrogatepass"))
        if session is None:
            return
        seq = record["seq"]
        if seq < session.first:
            session.first, session.begun = seq, record["time"].encode()
        if record["type"] not in ("flow", "event"):
            return
        if "answers" in record:
            session.answers.add(seq, number, position)
        if (self._wanted is None or self._wanted(record)) and session.seen.add(seq):
            places = session.problems if is_problem(record) else session.others
            places.add(seq, number, position)

    def _session(self, id: bytes) -> _Session | None:
        """A session by its id; None if it is not wanted."""
        if id not in self._sessions:
            if self._of is not None and id.decode("utf-8", "surrogatepass") not in self._of:
                return None
            self._sessions[id] = _Session(self._most)
        return self._sessions[id]

    @property
    def answered(self) -> set[tuple[str, str]]:
        """Session and id of flows that later ones answered with credentials: of all that are among
        the latest."""
        places = (session.answers.latest(self._most) for session in self._sessions.values())
        answers = self._read(place for each in places for place in each)
        return {(record["session"], record["answers"]) for record in answers if record is not None}

    def __iter__(self) -> Iterator[Record]:
        """The latest first."""
        order = [
            session
            for _, _, session in sorted(
                ((session.begun, id, session) for id, session in self._sessions.items()),
                key=lambda each: each[:2],
                reverse=True,
            )
        ]
        left = max(0, self._most - sum(len(session.problems) for session in order))
        problems = self._most
        for session in order:
            chosen = session.problems.latest(problems), session.others.latest(left)
            problems = max(0, problems - len(session.problems))
            left = max(0, left - len(session.others))
            for record in self._read(merge(*chosen, reverse=True)):
                if record is None:
                    self._wrong += 1
                else:
                    yield record

    def _read(self, places: Iterator[tuple[int, int, int]]) -> Iterator[Record | None]:
        return records_at(self._sources, ((number, position) for _, number, position in places))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
