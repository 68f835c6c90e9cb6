"""What all commands say, and how they end: lines on standard error, text on standard output, files.

Nothing is imported here that takes a while: what a command needs is loaded when it needs it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from typing import NoReturn

import click

if TYPE_CHECKING:
    from .budgets import Budget

MAX_NOTE = 4096
"""Characters of a line on standard error, in which a path may stand."""
CANNOT_BE_TOLD = 2
"""The exit status where a command could not do what it was asked for."""

EXIT_STATUS = {True: 0, False: 1, None: CANNOT_BE_TOLD}
"""Whether budgets hold (`budgets.hold`) → the exit status."""

BY_SIGNAL = 128
"""Added to a signal's number: the exit status of what ended by it."""

IsOurs = Callable[[bytes], bool]
"""Whether a file that begins like this was written by flowtally."""


def tell(text: str) -> None:
    """Write a line to standard error."""
    from .redaction import printable

    with suppress(OSError):  # closed: nobody there to read it
        click.echo(printable(text, MAX_NOTE), err=True)


def complain(message: str) -> None:
    """Say on standard error what is wrong."""
    for line in f"flowtally: {message}".split("\n"):
        tell(line)


def stop(message: str) -> NoReturn:
    """Say what is wrong, and end the program."""
    complain(message)
    sys.exit(CANNOT_BE_TOLD)


@contextmanager
def ends_in_order() -> Iterator[None]:
    """Within this, what else ends a program at once ends it as Ctrl+C does: files that were made
    for a while are removed. It raises SystemExit, which nobody takes for a file's own fault."""
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.getsignal(getattr(signal, name)) for name in names}
    for name, known in before.items():
        if known is signal.SIG_DFL:  # one that is ignored, as by nohup, stays so
            signal.signal(getattr(signal, name), _end)
    try:
        yield
    finally:
        for name, known in before.items():
            signal.signal(getattr(signal, name), known)


def _end(number: int, _frame: object) -> NoReturn:
    sys.exit(BY_SIGNAL + number)


def show(text: str, end: str = "\n") -> None:
    """Write to standard output; ends the program if that fails."""
    try:
        click.echo(text + end, nl=False, color=True)  # whoever made the text saw to colours
    except BrokenPipeError:
        raise  # whoever read has seen enough; click ends the program
    except OSError as error:
        stop(f"standard output cannot be written: {error.strerror or error}")


def write_file(path: Path, content: bytes, is_ours: IsOurs, force: bool) -> bool:
    """Write a file; where that fails, say so and return False."""
    from .output import write

    return _succeeds(lambda: write(path, content, is_ours, force))


def can_write_file(path: Path, is_ours: IsOurs, force: bool) -> bool:
    """Whether `write_file` will succeed, as far as that can be told; says why not."""
    from .output import check

    return _succeeds(lambda: check(path, is_ours, force))


def _succeeds(write: Callable[[], None]) -> bool:
    from .output import ForeignFileError
    from .output import OutputError

    try:
        write()
    except ForeignFileError as error:
        complain(f"{error}; --force overwrites it")
    except OutputError as error:
        complain(str(error))
    else:
        return True
    return False


def budgets(
    maxima: Iterable[str], minima: Iterable[str], codes: Collection[str] | None
) -> tuple[Budget, ...]:
    """The budgets of --max and --min, see `budgets.parse`; ends the program if one is none."""
    from .budgets import BudgetError
    from .budgets import UnknownNameError
    from .budgets import parse
    from .report import budgets_text
    from .report.layout import terminal_width

    try:
        return parse(maxima, minima, codes)
    except UnknownNameError as error:
        stop("\n".join([f"{error} There are", *budgets_text.known(terminal_width())]))
    except BudgetError as error:
        stop(str(error))
