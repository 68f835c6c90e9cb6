"""What came through the proxy during a test: the fixture `flowtally`."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING
from typing import Any

from ..current_test import name_of
from ..incidents import Incident
from ..incidents import incidents
from ..tally import Tally

if TYPE_CHECKING:
    from .run import Run

MAX_RECORDS = 10_000
"""How many records of a test are kept, the latest ones; all are counted."""


class Watch:
    """A test's own flows so far. Each look is a fresh one."""

    def __init__(self, run: Run, node: str) -> None:
        self.node = node
        self.name = name_of(node)
        """As records have it."""
        self.over = False
        self._run = run
        self._tally = Tally()
        self._records: deque[dict[str, Any]] = deque(maxlen=MAX_RECORDS)

    def add(self, record: dict[str, Any]) -> None:
        """Count a record of the session, if it is of this test. What could not be written may have
        been."""
        if record["type"] == "gap" or record.get("test") == self.name:
            self._tally.add(record)
            self._records.append(record)

    @property
    def flows(self) -> list[dict[str, Any]]:
        """The records of flows that have ended, the oldest first (known/record.schema.json)."""
        return self._of_type("flow")

    @property
    def events(self) -> list[dict[str, Any]]:
        """The records of failures without a flow."""
        return self._of_type("event")

    @property
    def incidents(self) -> list[Incident]:
        """What went wrong, the most important first."""
        return incidents(self.tally)

    @property
    def tally(self) -> Tally:
        """The statistics, which do not change any more."""
        self._look()
        copy = Tally()
        copy.merge(self._tally)
        return copy

    @property
    def proxy(self) -> str:
        """The proxy's URL, for a client that does not look at the environment."""
        return self._run.url

    def settle(self) -> int:
        """Wait until no flow of this test is open any more, for 0.3 s at most; returns how many
        still are."""
        return 0 if self.over else self._run.settle(self)

    def _of_type(self, kind: str) -> list[dict[str, Any]]:
        self._look()
        return [dict(record) for record in self._records if record["type"] == kind]

    def _look(self) -> None:
        if not self.over:
            self._run.look()
