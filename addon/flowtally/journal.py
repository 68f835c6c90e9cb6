"""The session log, written: JSON Lines, UTF-8, one record a line.

Written through: a record has reached the kernel when `write` returns, so that a killed process
loses none. `logs.py` reads it.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .encoding import decode
from .encoding import encode
from .times import timestamp
from .valid import TYPES
from .valid import other_schema

SUFFIX = ".jsonl"
MAX_LINE = 64 * 1024
"""Longest line of a log, in bytes."""
CHECK_INTERVAL = 0.2
"""Seconds between looks whether somebody removed the file."""

logger = logging.getLogger("flowtally")

# --- where logs are ---


def default_folder(confdir: str) -> Path:
    """Where logs go by default, given mitmproxy's option `confdir`."""
    return Path(confdir).expanduser() / "flowtally"


def names_folder(location: str) -> bool:
    """Whether a value of `flowtally_log` means a folder: it is one, or ends like one."""
    # Path.is_dir raises where a folder may not be looked into.
    return location.endswith(("/", os.sep)) or os.path.isdir(  # noqa: PTH112
        Path(location).expanduser()
    )


def check_location(location: str) -> str:
    """Why `location` can never be a log; "" if it can.

    A log that cannot be written now (no permission, no space) is no reason: that can change while
    the proxy runs, the value cannot.
    """
    path = Path(location)
    try:
        path = path.expanduser()
        if path.exists() and not path.is_dir():
            if not path.is_file():
                return NOT_REGULAR  # and opening it might wait, or do something
            return _look(path)
        for parent in path.absolute().parents:
            if parent.exists():
                if not parent.is_dir():
                    return f"{parent} is no folder"
                break
        path.stat()
    except FileNotFoundError:
        pass
    except (RuntimeError, ValueError, OSError) as error:
        # No such user, a NUL byte; of the errors of the disk only those that the value causes.
        if not isinstance(error, OSError) or error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            return str(getattr(error, "strerror", None) or error)
    return ""


NOT_REGULAR = "that is no regular file"
FOREIGN = "that file exists and is no flowtally log"
_BEGINNING = b'{"type":"session_start","session":"'
"""How the addon's own logs begin."""


def _look(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return why_not_a_log(file.fileno())
    except OSError:
        return ""  # it cannot be read; whether it can be written will be seen


def why_not_a_log(file: int) -> str:
    """Why an open file is no session log that can be gone on with; "" if it is one, or empty.

    Its first line decides. Raises: OSError.
    """
    if not stat.S_ISREG(os.fstat(file).st_mode):
        return NOT_REGULAR
    os.lseek(file, 0, os.SEEK_SET)
    *lines, last = os.read(file, 2 * MAX_LINE).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    # A process that was killed while it wrote the first line of all left a piece of it; what comes
    # next stands on a line of its own.
    if lines and _BEGINNING.startswith(lines[0][: len(_BEGINNING)]):
        lines = [line for line in lines if _is_json(line)] or lines
    if not lines:
        return "" if _BEGINNING.startswith(last[: len(_BEGINNING)]) else FOREIGN
    try:
        record = decode(lines[0])
    except ValueError:
        return FOREIGN
    if not isinstance(record, dict) or record.get("type") not in TYPES or "session" not in record:
        return FOREIGN
    reason = other_schema(record)
    return f"that file was {reason}" if reason else ""


def _is_json(line: bytes) -> bool:
    try:
        decode(line)
    except ValueError:
        return False
    return True


# --- writing ---


class Journal:
    """Writes one session's records and numbers them. Never raises, and waits for nothing but the
    file system.

    While the log cannot be written, records are counted instead; as soon as it can be again, a
    `gap` record says how many are missing and why. Their numbers are missing, too.
    """

    def __init__(self, path: Path, start: Mapping[str, Any]) -> None:
        """`path`: the file, appended to. `start`: the `session_start` record; written first, and
        again if the file has to be made anew."""
        self.path = path
        self.seq = 1
        """Number of the last record; the first one is `start`."""
        self.dropped = 0
        """Records that no `gap` record accounts for yet."""
        self.told = 0
        """Records that `gap` records account for."""
        self.log_bytes = 0
        """What the session has written into the file that is open."""
        self.files = 0
        """How many files were begun: the log may be removed, and made anew."""
        self._start = encode({**start, "seq": 1})
        self._session = start["session"]
        self._started = False
        self._file = -1
        self._written = 0
        self._torn = False
        self._reason = ""
        self._said = False
        self._next_check = 0.0
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            pass  # opening the file will say why
        self._ready()

    @property
    def missing(self) -> int:
        """All records that are not in the log."""
        return self.told + self.dropped

    def write(self, record: dict[str, Any], rows: Sequence[bytes] | None = None) -> None:
        """Give a record its number, the field `seq`, and append it. `rows`: the last field of a
        checkpoint's record, encoded already."""
        usual = self._started and not self.dropped and time.monotonic() < self._next_check
        # Before the number is given: a gap record that has to come first gets one, too.
        ready = usual or self._ready()
        self.seq += 1
        record["seq"] = self.seq
        line = encode(record)
        if rows is not None:
            line = line[:-2] + b',"rows":[' + b",".join(rows) + b"]}\n"
        if not (ready and self._append(line)):
            self.dropped += 1

    def close(self) -> None:
        """Write what is outstanding, and close the file."""
        if self._file >= 0 or self.dropped:
            self._ready()
        self._shut()

    def _ready(self) -> bool:
        """Whether the file is there, open, and tells of all that is missing."""
        now = time.monotonic()
        if now >= self._next_check:
            self._next_check = now + CHECK_INTERVAL
            if self._file >= 0 and self._removed():
                self.dropped += self._written
                self._say("the log file was removed")
                self._shut()
        if self._file < 0 and not self._open():
            return False
        if not self._started:
            self.log_bytes = 0
            if not self._append(self._start):
                return False
            # Without the line end that a torn line before it may have got: readers look here.
            self.log_bytes = len(self._start)
            self.files += 1
            self._started = True
            self._written = 0
        return not self.dropped or self._gap()

    def _removed(self) -> bool:
        try:
            return os.fstat(self._file).st_nlink == 0
        except OSError:
            return True  # a network file system that lost the file

    def _open(self) -> bool:
        # Read as well: what stands there decides whether it may be written to.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        for name in ("O_CLOEXEC", "O_BINARY", "O_NONBLOCK"):
            # O_NONBLOCK: a named pipe must not stop the proxy before it is refused.
            flags |= getattr(os, name, 0)
        try:
            self._file = os.open(self.path, flags, 0o600)
            reason = why_not_a_log(self._file)
            self._torn = _ends_torn(self._file) if not reason else False
        except (OSError, ValueError) as error:
            self._fail(error)
            self._shut()
            return False
        self._started = False
        self._written = 0
        if reason:
            self._say(reason)
            self._shut()
        return not reason

    def _append(self, line: bytes) -> bool:
        if self._torn:
            line = b"\n" + line
        try:
            count = os.write(self._file, line)
        except OSError as error:
            self._fail(error)
            return False
        self.log_bytes += count
        # Half a line: the disk is full. What comes next must not be read as its end.
        self._torn = count < len(line)
        if count < len(line) - 1:
            self._fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            return False
        self._written += 1
        return True

    def _gap(self) -> bool:
        gap = {
            "type": "gap",
            "session": self._session,
            "seq": self.seq + 1,
            "time": timestamp(time.time()),
            "dropped": self.dropped,
            "reason": self._reason,
        }
        if not self._append(encode(gap)):
            return False
        self.seq += 1
        self._written -= 1  # it holds the place of others, which are counted already
        self.told += self.dropped
        self.dropped = 0
        self._said = False
        return True

    def _fail(self, error: OSError | ValueError) -> None:
        self._say(getattr(error, "strerror", None) or str(error))
        if getattr(error, "errno", None) not in (errno.ENOSPC, errno.EAGAIN, errno.EDQUOT):
            self._shut()

    def _say(self, reason: str) -> None:
        self._reason = reason
        if not self._said:
            self._said = True
            logger.warning(
                f"flowtally cannot write {self.path}: {reason}. "
                f"It goes on counting, and writes again when it can."
            )

    def _shut(self) -> None:
        self._started = False
        if self._file >= 0:
            file, self._file = self._file, -1
            try:
                os.close(file)
            except OSError:
                pass  # nothing is buffered: what was said to be written, was


def _ends_torn(file: int) -> bool:
    """Whether a file ends within a line, which a killed process or a full disk leaves behind."""
    if not os.lseek(file, 0, os.SEEK_END):
        return False
    os.lseek(file, -1, os.SEEK_END)
    return os.read(file, 1) != b"\n"
