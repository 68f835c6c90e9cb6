"""A command in the foreground: it has our standard streams and terminal, and gets our signals.

It stays in our process group, so Ctrl+C of a terminal reaches it without us. We note the signal,
and wait for what the command makes of it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..terminal import BY_SIGNAL
from .signals import Signals

NOT_FOUND = 127
"""The exit status of a shell where there is no such command (POSIX, XCU 2.8.2)."""
NOT_EXECUTABLE = 126
"""And of one that is there and cannot be run."""
_OF_THE_KEYBOARD = [
    getattr(signal, name) for name in ("SIGINT", "SIGQUIT") if hasattr(signal, name)
]


class CommandError(Exception):
    """A command cannot be run; the message says why."""

    def __init__(self, command: str, reason: str, status: int) -> None:
        super().__init__(f"{command!r}: {reason}")
        self.status = status
        """The exit status of a shell in that case."""


def find(command: str, environment: Mapping[str, str]) -> str:
    """The file that a command's name stands for. Raises: CommandError."""
    found = shutil.which(command, path=environment.get("PATH"))
    if found is not None:
        return found
    if not os.path.dirname(command):  # noqa: PTH120  # Path("./x") forgets that it has one
        raise CommandError(command, "there is no such command on PATH", NOT_FOUND)
    path = Path(command)
    if path.is_dir():
        raise CommandError(command, "is a folder, no command", NOT_EXECUTABLE)
    if path.exists():
        raise CommandError(command, "is not executable", NOT_EXECUTABLE)
    raise CommandError(command, "there is no such command", NOT_FOUND)


class Foreground(Signals):
    """While this is in use, signals do not end this process; the command gets them too."""

    def __init__(self) -> None:
        super().__init__()
        self._command: subprocess.Popen[bytes] | None = None

    def run(self, file: str, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run a command and wait for its end; returns its exit status, as a shell says it.

        `file`: what `find` found. Raises: CommandError; EndedError, where a signal came before.
        """
        self.end_if_came()
        try:
            self._command = subprocess.Popen(command, executable=file, env=environment)
        except OSError as error:
            raise CommandError(command[0], _reason(error), NOT_EXECUTABLE) from error
        except ValueError as error:  # a NUL byte in an argument
            raise CommandError(command[0], str(error), NOT_EXECUTABLE) from error
        for number in self.came:  # since the look above: it may not have reached the command
            self._pass_on(number)
        status = self._command.wait()
        return status if status >= 0 else BY_SIGNAL - status

    def noted(self, number: int) -> None:
        if not _came_from_the_terminal(number):
            self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        if self._command is not None and self._command.returncode is None:
            with suppress(OSError):  # it has just ended
                self._command.send_signal(number)


def _came_from_the_terminal(number: int) -> bool:
    """Whether the command has the signal already: a terminal sends it to all in the foreground."""
    if number not in _OF_THE_KEYBOARD:
        return False
    if sys.platform == "win32":
        return True  # a console sends it to all that are attached to it
    try:
        with open("/dev/tty", "rb") as terminal:  # noqa: PTH123  # as in a shell's `</dev/tty`
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False  # there is none


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):  # though the file is there
        return "cannot be run: the interpreter that its first line names is not there"
    return f"cannot be run: {error.strerror or error}"
