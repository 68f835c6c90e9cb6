"""One session: from the start of the proxy, or of a new log, to its end."""

from __future__ import annotations

import platform
import secrets
import time
from pathlib import Path
from typing import Any

from mitmproxy import version as mitmproxy_version

from . import __version__
from . import journal
from .encoding import encode
from .record import Record
from .report import data
from .tally import Tally
from .times import timestamp

STATS_ROWS = 50
"""How many hosts and endpoints the `stats` records name; the final one names all."""
FOLD_AT_ONCE = 200
"""How many records are tallied in one go; a few milliseconds' work."""


class Session:
    """One session: its records go into the tally and the journal."""

    def __init__(self, location: str, modes: list[str], options: dict[str, Any]):
        self.id = secrets.token_hex(4)
        self.location = location
        self._tally = Tally()
        self._unfolded: list[Record] = []
        self._added = 0
        self._stated = 0
        """How many records the last statistics told of."""
        now = time.time()
        self.begun = timestamp(now)
        self.path = Path(location).expanduser()
        if journal.names_folder(location):
            moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
            self.path /= f"flowtally-{moment}-{self.id}{journal.SUFFIX}"
        self.journal = journal.Journal(
            self.path,
            {
                "type": "session_start",
                "session": self.id,
                "time": self.begun,
                "schema": journal.SCHEMA,
                "flowtally": __version__,
                "mitmproxy": mitmproxy_version.VERSION,
                "python": platform.python_version(),
                "platform": platform.platform(),
                "modes": modes,
                "options": options,
            },
        )

    def add(self, entry: Record) -> None:
        """Write a record, and tally it.

        A fold can wait, and many at once cost a fraction of as many one by one: between two flows
        mitmproxy runs so much code that the tally's has left the processor's caches.
        """
        self.journal.write(encode(entry))
        self._unfolded.append(entry)
        self._added += 1
        if len(self._unfolded) >= FOLD_AT_ONCE:
            self.fold()

    def fold(self) -> None:
        """Tally what has been written."""
        entries, self._unfolded = self._unfolded, []
        for entry in entries:
            self._tally.add(entry)

    @property
    def tally(self) -> Tally:
        """The statistics so far."""
        self.fold()
        self._tally.dropped = self.journal.missing
        return self._tally

    def tick(self) -> None:
        """Write the statistics so far, if they say anything new. To be called every few seconds."""
        if self._stated == self._added:
            return
        self._stated = self._added
        self.journal.write(encode(self._stats() | self.tally.to_data(STATS_ROWS)))

    def close(self) -> None:
        """Write the final statistics and close the log."""
        self.journal.close(self._stats() | {"final": True} | self.tally.to_data())

    def _stats(self) -> Record:
        return {"type": "stats", "session": self.id, "time": timestamp(time.time())}

    @property
    def version(self) -> str:
        """Changes whenever the statistics do."""
        return f"{self.id}-{self._added}-{self.journal.missing}"

    @property
    def about(self) -> str:
        """Which session it is, when it began and where its log is, for people."""
        return f"Session {self.id}, begun {self.begun}; log: {self.path}"

    def data(self) -> dict[str, Any]:
        """What `flowtally report --json` says, of the session so far."""
        listed = {"session": self.id, "begun": self.begun, "ended_cleanly": False}
        return data.report([listed], 0, self.tally)
