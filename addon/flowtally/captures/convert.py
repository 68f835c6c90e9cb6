"""Captures → session logs, which all commands read: each capture is a session of its own.

The logs are temporary files. What a capture lacks is collected for whoever reads them. mitmproxy is
loaded only where there is a capture to read.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from typing import BinaryIO

from ..source import seekable
from .kinds import ACCEPTED
from .kinds import HEAD
from .kinds import ForeignError
from .kinds import Kind
from .kinds import kind_of
from .kinds import seems
from .lacking import Lacking
from .packed import unpacked

if TYPE_CHECKING:
    from ..session import Session

Log = tuple[str, Path | BinaryIO]
"""A name for problems, and the log."""

BLOCK = 1024 * 1024
BEGINNING = 8192
"""How many bytes a file is judged by first."""


def as_logs(
    inputs: Sequence[Log], stack: ExitStack, lacking: Lacking, told: Callable[[int], None]
) -> list[Log]:
    """The inputs as session logs, those that are logs as they were. `stack` removes what was made
    for it; `lacking` is told what of captures cannot be used, `told` of bytes that were taken in.

    Raises: ForeignError; OSError, with the name of the input as its `filename`.
    """
    found = []
    for name, given in inputs:
        try:
            found.append((name, _as_log(name, given, stack, lacking, told)))
        except OSError as error:
            error.filename = name
            raise
    return found


def _as_log(
    name: str,
    given: Path | BinaryIO,
    stack: ExitStack,
    lacking: Lacking,
    told: Callable[[int], None],
) -> Path | BinaryIO:
    source = seekable(given, stack)
    if isinstance(source, Path):
        with source.open("rb") as opened:  # and closed: there may be more logs than open files
            head = _head(opened)
    else:
        head = _head(source)
    kind, packed = kind_of(head), ""
    before = lacking.skipped, lacking.breaks
    if kind is Kind.PACKED:
        source = _unpacked(name, source, stack, lacking)
        head, packed = _head(source), "gzip of "
        kind = kind_of(head)
    if kind in (Kind.FOREIGN, Kind.PACKED):
        what = f"{packed}{'gzip' if kind is Kind.PACKED else seems(head)}"
        raise ForeignError(f"{name}: seems to be {what}; {ACCEPTED}")
    if kind is Kind.EMPTY:
        lacking.empty.append(name)
    if kind in (Kind.LOG, Kind.EMPTY):
        return source
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowtally-")))
    file = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
    capture = _Capture(name, file, folder / "capture.jsonl", lacking, told)
    (_read_har if kind is Kind.HAR else _read_flows)(capture)
    capture.end(incomplete=(lacking.skipped, lacking.breaks) != before)
    return folder / "capture.jsonl"


def _unpacked(name: str, source: Path | BinaryIO, stack: ExitStack, lacking: Lacking) -> BinaryIO:
    with ExitStack() as opened:
        file = opened.enter_context(source.open("rb")) if isinstance(source, Path) else source
        found, damage = unpacked(file)
    stack.enter_context(found)
    if damage and not found.seek(0, os.SEEK_END):
        raise ForeignError(f"{name}: seems to be gzip, but {damage}; {ACCEPTED}")
    if damage:
        lacking.break_off(name, f"where {damage}; what came before is read")
    return found


def _head(file: BinaryIO) -> bytes:
    """The first bytes, fewer of what is known at once: there may be thousands of logs."""
    file.seek(0)
    head = file.read(BEGINNING)
    return head if kind_of(head) is Kind.LOG else head + file.read(HEAD - BEGINNING)


def _read_har(capture: _Capture) -> None:
    from .har import Har

    har = Har(capture.file, capture.name, capture.lacking)
    for number, entry in har.entries(capture.told):
        session = capture.session(entry.started)
        try:
            record = har.record(number, entry, capture.tagger, session.id)
        except Exception as problem:  # one entry's own: the others are read
            reason = f"cannot be told ({type(problem).__name__})"
            capture.lacking.skip(capture.name, number, reason)
            continue
        if record is not None:
            session.add(record)


def _read_flows(capture: _Capture) -> None:
    from ..open_flows import began
    from ..recorder import Recorder
    from . import flow_files

    tagger = capture.tagger
    recorder = Recorder(capture.defects, tagger.connections)
    for flow in flow_files.flows(capture.file, capture.name, capture.lacking, capture.told):
        session = capture.session(began(flow))
        flow_files.record(flow, tagger, recorder, session)
    capture.lacking.notes.append(f"{capture.name}: {flow_files.NOT_SAVED}")


class _Capture:
    """A capture that is read, and the session that it becomes."""

    def __init__(
        self,
        name: str,
        file: BinaryIO,
        log: Path,
        lacking: Lacking,
        told: Callable[[int], None],
    ) -> None:
        from ..settings import OPTIONS
        from ..settings import rules
        from ..tagger import Tagger
        from .quiet import Quiet

        self.name, self.file = name, file
        self.lacking, self.told = lacking, told
        self.defects = Quiet(name, lacking)
        values = {option.name: option.check(option.default) for option in OPTIONS}
        self.tagger = Tagger(rules(values), values["flowtally_max_redirects"], self.defects)
        self._options = {option.name: option.default for option in OPTIONS}
        self._log = log
        self._session: Session | None = None

    def session(self, begun: float) -> Session:
        """The session, which `begun` then if it is a new one."""
        if self._session is None:
            from ..session import Session

            id, modes = self._digest(), ["capture"]
            self._session = Session(
                os.fspath(self._log), modes, self._options, self.defects, id, begun
            )
        return self._session

    def end(self, incomplete: bool) -> None:
        """Write what is outstanding, and that something is missing if the capture is incomplete."""
        from ..classify import failure_tag
        from ..record import event_record
        from ..vocabulary import CAPTURE_INCOMPLETE

        session = self._session or self.session(os.fstat(self.file.fileno()).st_mtime)
        if incomplete:
            tag = failure_tag(CAPTURE_INCOMPLETE, self.lacking.in_part)
            last = datetime.fromisoformat(session.tally.last or session.begun).timestamp()
            session.add(event_record(tag, session.id, last, None, "", None))
        session.close()

    def _digest(self) -> str:
        """An id from what the file holds: a copy of it is no other session."""
        digest = hashlib.sha256()
        self.file.seek(0)
        while block := self.file.read(BLOCK):
            digest.update(block)
        return digest.hexdigest()[:8]
