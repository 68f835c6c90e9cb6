"""What mitmproxy logs of its own troubles, where no hook tells of them.

Each kind is told as often as it happens, up to a limit; running out of file descriptors, of which
asyncio logs a thousand lines a second, is told once. Times are Unix times.
"""

from __future__ import annotations

import asyncio
import errno
from types import TracebackType

from . import vocabulary
from .vocabulary import CRASHED
from .vocabulary import Why

RETRY = 2.0
"""Seconds after which a client that had to wait for a file descriptor has been accepted: asyncio
tries again after one (asyncio/constants.py, ACCEPT_RETRY_DELAY)."""
QUIET = 60.0
"""Seconds without a line after which running out of file descriptors is told anew."""
MAX_TOLD = 100
"""How many lines of a kind are told."""

OUT_OF_FILES = vocabulary.OS_ERRORS["Errno", errno.EMFILE]

_OUT_OF_FILES = frozenset((errno.EMFILE, errno.ENFILE))


class Troubles:
    """Takes in log lines; tells which of them stand for a failure.

    True while mitmproxy has, or had a moment ago, no file descriptors left.
    """

    def __init__(self) -> None:
        self._first = self._last = 0.0
        """When file descriptors ran out, and when that was last logged; 0: they did not."""
        self._told: dict[Why, int] = {}
        """How many lines of each kind were told."""

    def __bool__(self) -> bool:
        return self._last > 0

    def log_line(
        self, logger: str, message: str, exception: BaseException | None, now: float
    ) -> Why | None:
        """Why something failed, if a line has to be told."""
        if isinstance(exception, OSError) and exception.errno in _OUT_OF_FILES:
            begins = not self._last or now - self._last > QUIET
            if begins:
                self._first = now
            self._last = now
            return OUT_OF_FILES if begins else None
        if exception is not None and _is_handler(exception):
            why = CRASHED
        else:
            row = vocabulary.find_message(vocabulary.ERROR_MESSAGES, f"{logger}: {message}")
            if row is None:
                return None
            why = row.client
        told = self._told.get(why, 0)
        self._told[why] = told + 1
        return why if told < MAX_TOLD else None

    def starved(self, accepted: float) -> bool:
        """Whether a client that was accepted at `accepted` had to wait for a file descriptor."""
        return self._last > 0 and self._first <= accepted <= self._last + RETRY

    def settle(self, now: float) -> None:
        """Forget what is over."""
        if self._last and now - self._last > QUIET:
            self._first = self._last = 0.0


def _is_handler(exception: BaseException) -> bool:
    """Whether the handler of a client's connection (proxy/mode_servers.py) died of it. Other tasks
    are told otherwise, or belong to somebody's script."""
    trace: TracebackType | None = exception.__traceback__
    # Python 3.11 and 3.12 log a CancelledError of each connection that is open at the end.
    if trace is None or isinstance(exception, asyncio.CancelledError):
        return False
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_name == "handle_stream" and code.co_filename.endswith("mode_servers.py"):
            return True
        trace = trace.tb_next
    return False
