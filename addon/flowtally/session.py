"""A session: its records go into the log and into the tally, and the tally into checkpoints."""

from __future__ import annotations

import platform
import secrets
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mitmproxy import version as mitmproxy_version

from . import __version__
from . import journal
from .counted_challenges import MOST as MOST_CHALLENGES
from .defects import Defects
from .encoding import encode
from .redaction import printable
from .tally import Tally
from .times import timestamp
from .vocabulary import CHALLENGE_CODES
from .vocabulary import SCHEMA

FOLD_AT_ONCE = 200
"""How many records are tallied in one go; a few milliseconds' work."""
SLICE = 0.002
"""Seconds that the work on a checkpoint may take at a time."""
ROWS_OF_A_LINE = journal.MAX_LINE - 4096
"""Bytes of rows in one record of a checkpoint; what is left is for its other fields."""
SHARE = 0.1
"""The part of the log that checkpoints may take while the session runs."""
LEAST_GROWTH = 1024 * 1024
"""Bytes by which the log grows before a checkpoint is written; less is read in no time."""
USUAL_ROW = 400
"""Bytes that a row of a checkpoint takes, as long as none was written that tells."""
GROWING = 1.25
"""How many times larger the next checkpoint may be than the rows of the last one make expect."""
MAX_OPTION = 1000
"""Characters of an option's value that the log keeps."""
MAX_MODES, MAX_MODE = 16, 300
"""How many of mitmproxy's modes the log keeps, and characters of each."""


class Session:
    """One session of the addon."""

    def __init__(
        self,
        location: str,
        modes: Sequence[str],
        options: Mapping[str, Any],
        defects: Defects | None = None,
        id: str = "",
        begun: float | None = None,
    ) -> None:
        """`location`: the log, a file or a folder. `modes`: mitmproxy's. `options`: flowtally's,
        by name. `defects`: told of records that cannot be counted. `id` and `begun` (Unix time):
        of a session that is told by a file; else a new one begins now."""
        self.id = id or secrets.token_hex(4)
        self.location = location
        now = time.time() if begun is None else begun
        self.begun = timestamp(now)
        """RFC 3339."""
        self.path = Path(location).expanduser()
        if journal.names_folder(location):
            moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
            self.path /= f"flowtally-{moment}-{self.id}{journal.SUFFIX}"
        self._defects = defects or Defects()
        self._tally = Tally()
        self._unfolded: list[dict[str, Any]] = []
        """Records that are in the log and not in the tally yet."""
        self._challenges: dict[str, bool] = {}
        """The flows of this session that were challenged (401, 407), and not answered yet. The
        tally will have them as well, but it counts later, and a record is written at once."""
        self._folded = 0
        """How many records are in the tally."""
        self._stated = 0
        """How many records the last checkpoint holds."""
        self._checkpoint: Iterator[None] | None = None
        """What writes a checkpoint bit by bit; until it is done, nothing is tallied."""
        self._checkpoints = 0
        """How many were begun."""
        self._grown_from = 0
        """How large the log was when its last checkpoint was complete, in bytes."""
        self._checkpoint_bytes = 0
        """How much of the log are checkpoints."""
        self._row_bytes: float = USUAL_ROW
        """How large a row of the last checkpoint was."""
        self._journal = journal.Journal(
            self.path,
            {
                "type": "session_start",
                "session": self.id,
                "seq": 0,
                "time": self.begun,
                "schema": SCHEMA,
                "flowtally": __version__,
                "mitmproxy": mitmproxy_version.VERSION,
                "python": platform.python_version(),
                "platform": platform.platform(),
                "modes": [printable(mode, MAX_MODE) for mode in modes[:MAX_MODES]],
                "options": {name: _bounded(value) for name, value in options.items()},
            },
        )

    def add(self, record: dict[str, Any]) -> None:
        """Write a record, and tally it.

        The tally can wait: what it takes is spent on many records at once, and seldom while a
        client waits.
        """
        if "answers" in record or record.get("status") in CHALLENGE_CODES:
            self._note_challenge(record)
        self._journal.write(record)
        self._unfolded.append(record)
        if len(self._unfolded) >= FOLD_AT_ONCE and self._checkpoint is None:
            self._fold(FOLD_AT_ONCE)

    def _note_challenge(self, record: dict[str, Any]) -> None:
        """Take from a record that it answers what this session does not have: it was left out by a
        filter, or came before the session. Whoever reads on from a checkpoint cannot know that, and
        would take one off for it."""
        if "answers" in record and not self._challenges.pop(record["answers"], False):
            del record["answers"], record["challenge"]
        if record.get("status") in CHALLENGE_CODES and "flow" in record:
            if len(self._challenges) >= MOST_CHALLENGES:
                del self._challenges[next(iter(self._challenges))]
            self._challenges[record["flow"]] = True

    def _fold(self, most: int | None = None) -> None:
        """Tally what has been written: all of it, or at most so many records."""
        records = self._unfolded[:most]
        del self._unfolded[:most]
        for record in records:
            try:
                self._tally.add(record)
            except Exception as problem:  # the others count all the same
                self._defects.tell("tally", problem)
        self._folded += len(records)

    @property
    def tally(self) -> Tally:
        """The statistics so far; while a checkpoint is being written, those that it holds."""
        if self._checkpoint is None:
            self._fold()
        self._tally.dropped = self._journal.missing
        return self._tally

    @property
    def version(self) -> str:
        """Changes whenever `tally` does."""
        counted = self._folded
        if self._checkpoint is None:
            counted += len(self._unfolded)
        return f"{self.id}-{counted}-{self._journal.missing}"

    @property
    def about(self) -> str:
        """Which session this is and where its log is, for the foot of a report."""
        from .report.layout import session_begun  # as of `data`

        return f"{session_begun(self.id, self.begun)}; log: {self.path}"

    def data(self) -> dict[str, Any]:
        """What `flowtally report --json` says, of the session so far."""
        from .report import data  # what only a report needs is loaded for one

        listed = {"session": self.id, "begun": self.begun, "ended_cleanly": False}
        return data.report([listed], 0, self.tally)

    @property
    def log_is_there(self) -> bool:
        """Whether the log was where `path` says when the session was closed."""
        return self._journal.is_there

    # --- checkpoints ---

    def step(self) -> bool:
        """Write a checkpoint if one is due, for at most `SLICE`; whether there is more to do. To be
        called again and again, and soon while there is more."""
        if self._checkpoint is None:
            if not self._is_due():
                return False
            self._checkpoint = self._write_checkpoint(final=False)
        end = time.perf_counter() + SLICE
        for _ in self._checkpoint:
            if time.perf_counter() > end:
                return True
        self._checkpoint = None
        return False

    def close(self) -> None:
        """Write the final statistics, and close the log."""
        self._checkpoint = None  # readers pass over one that is not complete
        self._journal.look()
        for _ in self._write_checkpoint(final=True):
            pass
        self._journal.close()

    def _is_due(self) -> bool:
        if self._stated == self._folded + len(self._unfolded) or not self._is_affordable():
            return False
        self._fold()  # which may bring rows
        return self._is_affordable()

    def _is_affordable(self) -> bool:
        """Whether checkpoints stay under their share of the log with another one."""
        log_bytes = self._journal.log_bytes
        if log_bytes < self._grown_from:  # the log was made anew
            self._grown_from = self._checkpoint_bytes = 0
        rows = sum(map(len, self._tally.tables.values()))
        expected = GROWING * rows * self._row_bytes
        share = SHARE * (log_bytes + expected)
        grown = log_bytes - self._grown_from
        return grown >= LEAST_GROWTH and self._checkpoint_bytes + expected <= share

    def _write_checkpoint(self, final: bool) -> Iterator[None]:
        """Write the statistics as they are now. Pauses after each row; until it is exhausted, the
        tally must stay as it is."""
        self._fold()
        self._stated = self._folded
        self._checkpoints += 1
        writer = _Writer(self._journal, self._head(final))
        for row in self._tally.to_rows():
            writer.add(row)
            yield
        writer.write(last=True)
        self._checkpoint_bytes += writer.row_bytes
        self._row_bytes = writer.row_bytes / max(1, writer.rows)
        self._grown_from = self._journal.log_bytes

    def _head(self, final: bool) -> dict[str, Any]:
        """What all records of a checkpoint begin with."""
        head: dict[str, Any] = {
            "type": "stats",
            "session": self.id,
            "seq": 0,
            "time": timestamp(time.time()),
            "checkpoint": self._checkpoints,
            "upto": self._journal.seq,
            # What no gap record tells of yet, one after this checkpoint will.
            "dropped": self._journal.told,
        }
        if self._tally.first:
            head |= {"first": self._tally.first, "last": self._tally.last}
        if final:
            head["final"] = True
        return head


class _Writer:
    """Writes the rows of a checkpoint, as many to a record as fit into a line."""

    def __init__(self, log: journal.Journal, head: dict[str, Any]) -> None:
        self.rows = 0
        """How many were written."""
        self.row_bytes = 0
        """How large they were."""
        self._log = log
        self._head = head
        self._part = 0
        self._file = log.files
        self._begin = log.log_bytes
        """What the session has written into the file up to the last record that the rows hold:
        others may come before the first one of the checkpoint."""
        self._waiting: list[bytes] = []
        """Rows as JSON."""
        self._waiting_bytes = 0

    def add(self, row: dict[str, Any]) -> None:
        """Write a row, or let it wait for the next record."""
        line = encode(row)
        size = len(line)
        if self._waiting_bytes + size > ROWS_OF_A_LINE:
            self.write(last=False)
        self._waiting.append(line[:-1])
        self._waiting_bytes += size
        self.row_bytes += size
        self.rows += 1

    def write(self, last: bool) -> None:
        """Write what waits. The last record says how many there are: only then they count."""
        self._part += 1
        record = {
            **self._head,
            "part": self._part,
            "parts": self._part if last else 0,
            "log_bytes": self._log.log_bytes,
            # If the log was made anew meanwhile, it vouches for nothing that stands there.
            "checkpoint_bytes": self._log.log_bytes - self._begin
            if self._log.files == self._file
            else self._log.log_bytes,
        }
        self._log.write(record, self._waiting)
        self._waiting, self._waiting_bytes = [], 0


def _bounded(value: Any) -> Any:
    """A value that fits into the log, whoever set it."""
    return printable(value, MAX_OPTION) if isinstance(value, str) else value
