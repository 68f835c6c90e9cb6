"""What is said of sessions: in sentences, and in a list, for a terminal and for JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from typing import ClassVar

from ..logs import Logs
from ..logs import Session
from ..redaction import printable
from .layout import NARROWEST
from .layout import WIDTH
from .layout import s
from .layout import seconds_between
from .layout import session_begun
from .layout import shortened
from .layout import span
from .layout import zoned

ID = 8
"""How many characters of a session's id are shown; flowtally gives it as many."""
UNCLEAN = "did not end cleanly, or is still running"
"""What is said of a session without a final checkpoint."""


def sentences(found: Logs) -> list[str]:
    """A sentence on each session."""
    return [
        session_begun(session.id, session.time) + ("" if session.final else f"; it {UNCLEAN}")
        for session in found.sessions.values()
    ]


def notes(found: Logs) -> list[str]:
    """What logs do not tell, or what of them could not be used, a sentence each."""
    notes = [f"{p.source}, line {p.line}: {p.reason}; skipped" for p in found.problems]
    if found.unreadable:
        notes.append(f"{found.unreadable} unreadable line{s(found.unreadable)} skipped")
    if found.lacking:
        notes += found.lacking.told()
    for session in found.sessions.values():
        if count := session.missing:
            notes.append(missing(session.id, count))
    return notes


def missing(session: str, count: int) -> str:
    """That so many records of a session are in no log."""
    verb = "is" if count == 1 else "are"
    return f"{count} record{s(count)} of session {session:.40} {verb} missing in the logs"


@dataclass(frozen=True, slots=True)
class Listed:
    """What a list says of a session."""

    id: str
    path: Path
    begun: str
    """RFC 3339, as the log has it."""
    seconds: float
    """From its first flow or event to the last."""
    flows: int
    failures: int
    """Flows that failed."""
    events: int
    """Failures without a flow."""
    problems: int
    """What of all that is a problem, with unsuccessful answers."""
    ended_cleanly: bool

    TABLES: ClassVar = ("timeline",)
    """The statistics that are needed for it, see `logs.read`: in a file whose session has ended,
    they are in the last few lines."""

    @classmethod
    def of(cls, session: Session, path: Path) -> Listed:
        """A session that was found in the log `path`."""
        totals = session.tally.totals()
        return cls(
            id=session.id,
            path=path,
            begun=session.time,
            seconds=seconds_between(totals.first, totals.last),
            flows=totals.flows,
            failures=totals.failures,
            events=totals.events,
            problems=totals.problems,
            ended_cleanly=session.final,
        )

    def order(self) -> tuple[float, str]:
        """Sorts by the time of the beginning."""
        try:
            return datetime.fromisoformat(self.begun).timestamp(), self.id
        except OverflowError:  # the year 1, somewhere east of Greenwich
            return 0.0, self.id

    def to_data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "session": self.id,
            "begun": self.begun,
            "seconds": self.seconds,
            "flows": self.flows,
            "failures": self.failures,
            "events": self.events,
            "problems": self.problems,
            "ended_cleanly": self.ended_cleanly,
            "log": os.fspath(self.path),
        }


def text(sessions: Sequence[Listed], width: int = WIDTH) -> list[str]:
    """A row for each session. Where the terminal is too narrow for it, the path stands below."""
    width = max(NARROWEST, width)
    head = ("Begun", "over", "flows", "problems", "events", "ended", "session")
    rows = [head, *map(_cells, sessions)]
    sizes = [max(len(row[i]) for row in rows) for i in range(len(head))]
    starts = ["  ".join(map(_aligned, row, sizes, range(len(head)))) for row in rows]
    paths = ["log", *(printable(os.fspath(listed.path), 4096) for listed in sessions)]
    if len(starts[0]) + 2 + max(map(len, paths)) <= width:
        return [f"{start}  {path}" for start, path in zip(starts, paths, strict=True)]
    lines = [printable(starts[0].rstrip(), width)]
    for start, path in zip(starts[1:], paths[1:], strict=True):
        lines += [printable(start.rstrip(), width), f"  {shortened(path, width - 2)}"]
    return lines


def _cells(listed: Listed) -> tuple[str, ...]:
    return (
        zoned(listed.begun),
        span(listed.seconds),
        str(listed.flows),
        str(listed.problems),
        str(listed.events),
        "yes" if listed.ended_cleanly else "no",
        printable(listed.id, ID),
    )


def _aligned(cell: str, size: int, column: int) -> str:
    """Numbers stand on the right."""
    return cell.rjust(size) if 1 <= column <= 4 else cell.ljust(size)
