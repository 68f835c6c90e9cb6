"""The session log, written: JSON Lines, UTF-8, one record a line.

Written through: a record has reached the kernel when `write` returns, so that a killed process
loses none. That is done within the proxy's own thread: a file system that stands still (a network
drive whose server is gone) holds up the proxy until it moves again. `logs.py` reads the log.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable
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
"""Seconds between looks whether somebody removed the file, moved it away or cut it."""

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
OUTPUT = "that is where mitmproxy's own output goes"
LINK = "a link has taken its place"
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
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        return NOT_REGULAR
    if _is_output(status):
        return OUTPUT  # /dev/stdout, which may be led into a file
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


def _is_output(status: os.stat_result) -> bool:
    """Whether a file is what standard output or standard error go to."""
    for descriptor in (1, 2):
        try:
            if os.path.samestat(status, os.fstat(descriptor)):
                return True
        except OSError:
            pass  # it is closed
    return False


def read_log(path: Path, most: int) -> bytes | None:
    """What a log holds that may have become anything by now; None if it is larger than `most`
    bytes. Raises: OSError, also where it is no log any more."""
    file = os.open(path, os.O_RDONLY | _FLAGS)
    try:
        if reason := why_not_a_log(file):
            raise OSError(errno.EINVAL, reason)
        if os.fstat(file).st_size > most:
            return None
        os.lseek(file, 0, os.SEEK_SET)
        with open(file, "rb", closefd=False) as log:
            return log.read(most)
    finally:
        os.close(file)


# O_NONBLOCK: a named pipe must not stop the proxy before it is refused.
_FLAGS = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_BINARY", "O_NONBLOCK"))


def _is_json(line: bytes) -> bool:
    try:
        decode(line)
    except ValueError:
        return False
    return True


# --- writing ---


class Journal:
    """Writes one session's records and numbers them. It raises nothing of the disk's, and waits for
    nothing but the file system.

    While the log cannot be written, records are counted instead; as soon as it can be again, a
    `gap` record says how many are missing and why. Their numbers are missing, too.

    A log that is moved away (rotated) is begun anew under its name, and so is one that was cut
    (`copytruncate`), where it is: what was written before stands in the other file, and what does
    not (the copy came too early) a reader of both finds missing in the numbers.
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
        """How often a file was begun: the log may be removed, moved away or cut."""
        self.is_there = True
        """Whether the log was where `path` says when it was closed."""
        self._start = encode({**start, "seq": 1})
        self._session = start["session"]
        self._started = False
        self._file = -1
        self._follows = path.is_symlink()
        """A link was named by the user; one that takes the place of the log was not."""
        self._stayed = False
        """It was said that the log was moved away and cannot be begun anew."""
        self._tells = True
        """The file system gives a file one number, whoever asks; some over networks do not."""
        self._before = 0
        """How large the file is at least, in bytes, without what `log_bytes` counts."""
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
        checkpoint's record, encoded already. Raises: TypeError, ValueError, where the record is no
        plain data; nothing is written then, and no number given."""
        usual = self._started and not self.dropped and time.monotonic() < self._next_check
        # Before the number is given: a gap record that has to come first gets one, too.
        ready = usual or self._ready()
        record["seq"] = self.seq + 1
        line = encode(record)
        self.seq += 1
        if rows is not None:
            line = line[:-2] + b',"rows":[' + b",".join(rows) + b"]}\n"
        if not (ready and self._append(line)):
            self.dropped += 1

    def look(self) -> None:
        """Look with the next record whether the file is still there."""
        self._next_check = 0.0

    def close(self) -> None:
        """Write what is outstanding, and close the file."""
        if self._file >= 0 or self.dropped:
            self._ready()
        status = self._status() if self._file >= 0 else None
        self.is_there = status is not None and self._is_named(status)
        self._shut()

    def _ready(self) -> bool:
        """Whether the file is there, open, and tells of all that is missing."""
        now = time.monotonic()
        if now >= self._next_check:
            self._next_check = now + CHECK_INTERVAL
            if self._file >= 0:
                self._look()
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

    def _look(self) -> None:
        """See what became of the file that is open."""
        status = self._status()
        if status is None or status.st_nlink == 0:
            self.dropped += self._written
            self._say("the log file was removed")
            self._shut()
            return
        if self._tells and not self._is_named(status):
            self._move_on()
        elif status.st_size < self._before + self.log_bytes:
            self._torn = _ends_torn(self._file)
            self._before = status.st_size
            self._started = False
        else:
            self._before = status.st_size - self.log_bytes

    def _status(self) -> os.stat_result | None:
        """The state of the file that is open; None where a network file system lost it."""
        try:
            return os.fstat(self._file)
        except OSError:
            return None

    def _is_named(self, status: os.stat_result) -> bool:
        """Whether a file is the one that `path` names."""
        try:
            named = self.path.stat() if self._follows else self.path.lstat()
        except OSError:
            return False
        return os.path.samestat(status, named)

    def _move_on(self) -> None:
        """Begin the log anew, as it was moved away; where that cannot be, go on in the old file."""
        old = self._file
        if self._open(self._stay):
            os.close(old)
            self._stayed = False

    def _open(self, fail: Callable[[str], None] | None = None) -> bool:
        # Read as well: what stands there decides whether it may be written to.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | _FLAGS
        flags |= 0 if self._follows else getattr(os, "O_NOFOLLOW", 0)
        file, torn = -1, False
        try:
            file = os.open(self.path, flags, 0o600)
            reason = why_not_a_log(file)
            if not reason:
                torn = _ends_torn(file)
                status = os.fstat(file)
                self._before, self._tells = status.st_size, self._is_named(status)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            if getattr(error, "errno", None) == errno.ELOOP and self.path.is_symlink():
                reason = LINK
        if reason:
            (fail or self._say)(reason)
            if file >= 0:
                os.close(file)
            return False
        self._file, self._torn = file, torn
        self._started = False
        self._written = 0
        return True

    def _append(self, line: bytes) -> bool:
        if self._torn:
            line = b"\n" + line
        try:
            count = os.write(self._file, line)
        except OSError as error:
            # Another proxy that writes into this file may have had room for half a line.
            self._torn = True
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

    def _stay(self, reason: str) -> None:
        if not self._stayed:
            self._stayed = True
            logger.warning(
                f"flowtally: the log {self.path} was moved away, and cannot be begun anew: "
                f"{reason}. It is written on in the file that was moved."
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
