"""What must not outlive a session: a process that was started for it, its folder.

Whoever starts a session sees to that. Where that one is killed, mitmdump's process does it
(process.py), which finds the other process by a file in the folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import suppress
from pathlib import Path

COMPANION = "companion.pid"
"""The file in the private folder with the number of a process that ends with the session. On POSIX
it leads a process group."""
PATIENCE = 5.0
"""Seconds that a process gets to end when it is asked to."""
REMOVAL = 3.0
"""Seconds in which a folder that is written to is tried to be removed."""
STEP = 0.02
"""Seconds between two looks, where nothing can be waited for: at a process of somebody else's, or
at a folder."""


@contextmanager
def companion(folder: Path, number: int) -> Iterator[None]:
    """Within this, the process of that number ends also where this one is killed."""
    file = folder / COMPANION
    file.write_text(str(number), encoding="ascii")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # the number may be given to another


def end_companion(folder: Path) -> None:
    """End the process that `companion` noted, if there is one."""
    try:
        number = int((folder / COMPANION).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return
    end(number, lambda: not _is_there(number))


def end(number: int, has_ended: Callable[[], bool]) -> None:
    """Have a process end, by force if it does not, and with it those of its group."""
    _signal(number, signal.SIGTERM)
    _wait_until(has_ended, PATIENCE)
    # Its children may be slower, or be hanging.
    _signal(number, getattr(signal, "SIGKILL", signal.SIGTERM))


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, also one that is written to for a while yet."""

    def is_gone() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    _wait_until(is_gone, REMOVAL)


def _signal(number: int, signal_number: int) -> None:
    with suppress(OSError):  # it has ended
        if sys.platform == "win32":
            os.kill(number, signal_number)  # ends it without asking: there is no other way
        else:
            os.killpg(number, signal_number)


def _is_there(number: int) -> bool:
    if sys.platform == "win32":
        return False  # `end` has ended it
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(STEP)
