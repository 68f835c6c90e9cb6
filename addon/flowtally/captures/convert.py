"""Captures → session logs, which all commands read: each capture is a session of its own.

The logs are temporary files. What a capture lacks is collected for whoever reads them. mitmproxy is
loaded only where there is a capture to read.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable
from collections.abc import Sequence
from contextlib import AbstractContextManager
from contextlib import ExitStack
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from typing import BinaryIO

from ..logs import BY_CLIENT
from ..source import seekable
from ..source import temporary_folder
from .kinds import ACCEPTED
from .kinds import HEAD
from .kinds import ForeignError
from .kinds import Kind
from .kinds import kind_of
from .kinds import seems
from .lacking import Lacking
from .packed import unpack

if TYPE_CHECKING:
    from ..session import Session

Log = tuple[str, Path | BinaryIO]
"""A name for problems, and the log."""

BLOCK = 1024 * 1024
BEGINNING = 8192
"""How many bytes a file is judged by first."""

_BY_MITMPROXY = re.compile(rb'"creator"\s*:\s*\{\s*"name"\s*:\s*"mitmproxy"')
"""What mitmproxy's own HARs begin with, addons/savehar.py."""


def as_logs(
    inputs: Sequence[Log], stack: ExitStack, lacking: Lacking, told: Callable[[int], None]
) -> list[Log]:
    """The inputs as session logs, those that are logs as they were. `stack` removes what was made
    for it; `lacking` is told what of captures cannot be used, `told` of bytes that were taken in.

    Raises: ForeignError; OSError, with the name of the input as its `filename`.
    """
    found = []
    for name, given in inputs:
        own = Lacking()  # what a capture lacks must not be told of the next one
        try:
            found.append((name, _as_log(name, given, stack, own, told)))
        except OSError as error:
            error.filename = name
            raise
        finally:
            lacking.add(own)
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
    if kind is Kind.PACKED:
        source = _unpacked(name, source, stack.enter_context(temporary_folder()), lacking)
        packed = "gzip of "
        with source.open("rb") as opened:
            head = _head(opened)
        kind = kind_of(head)
    if kind in (Kind.FOREIGN, Kind.PACKED):
        what = f"{packed}{'gzip' if kind is Kind.PACKED else seems(head)}"
        raise ForeignError(f"{name}: seems to be {what}; {ACCEPTED}")
    if kind is Kind.EMPTY:
        lacking.empty.append(name)
    if kind in (Kind.LOG, Kind.EMPTY):
        return source
    log = stack.enter_context(temporary_folder()) / "capture.jsonl"
    with _opened(source) as file:
        by_client = kind is Kind.HAR and not _BY_MITMPROXY.search(head)
        capture = _Capture(name, file, log, lacking, told, by_client)
        (_read_har if kind is Kind.HAR else _read_flows)(capture)
        capture.end()
    return log


def _opened(source: Path | BinaryIO) -> AbstractContextManager[BinaryIO]:
    """A file to be read, and closed again where it was not open."""
    return source.open("rb") if isinstance(source, Path) else nullcontext(source)


def _unpacked(name: str, source: Path | BinaryIO, folder: Path, lacking: Lacking) -> Path:
    found = folder / "unpacked"
    with _opened(source) as file, found.open("wb") as out:
        damage = unpack(file, out)
    if damage and not found.stat().st_size:
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
    found = flow_files.flows(capture.file, capture.name, capture.lacking, capture.told)
    for number, flow in found:
        try:
            session = capture.session(began(flow))
            flow_files.record(flow, tagger, recorder, session)
        except Exception as problem:  # one flow's own: the others are read
            reason = f"cannot be told ({type(problem).__name__})"
            capture.lacking.skip(capture.name, number, reason, "flow")
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
        by_client: bool,
    ) -> None:
        """`by_client`: no mitmproxy recorded it."""
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
        self._by_client = by_client
        self._session: Session | None = None

    def session(self, begun: float) -> Session:
        """The session, which `begun` then if it is a new one."""
        if self._session is None:
            from ..session import Session

            id, modes = self._digest(), [BY_CLIENT if self._by_client else "capture"]
            self._session = Session(
                os.fspath(self._log), modes, self._options, self.defects, id, begun
            )
        return self._session

    def end(self) -> None:
        """Write what is outstanding, and that something is missing if that is so. Raises: OSError,
        where not all could be written."""
        from ..classify import failure_tag
        from ..record import event_record
        from ..vocabulary import CAPTURE_INCOMPLETE

        session = self._session or self.session(os.fstat(self.file.fileno()).st_mtime)
        if lacking := self.lacking.in_part:
            tag = failure_tag(CAPTURE_INCOMPLETE, lacking)
            last = datetime.fromisoformat(session.tally.last or session.begun).timestamp()
            session.add(event_record(tag, session.id, last, None, "", None))
        session.close()
        if lost := session.tally.dropped:  # a proxy would go on; here it would be half an answer
            raise OSError(errno.ENOSPC, f"no room to convert it: {lost} records are lost")

    def _digest(self) -> str:
        """An id from what the file holds: a copy of it is no other session."""
        digest = hashlib.sha256()
        self.file.seek(0)
        while block := self.file.read(BLOCK):
            digest.update(block)
        return digest.hexdigest()[:8]
