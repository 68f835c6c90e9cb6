"""The summary of a session, as the last thing on standard error."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Sequence

from mitmproxy.options import Options

from .session import Session


def is_wanted(options: Options) -> bool:
    """Whether mitmproxy prints anything: mitmdump -q sets the log's verbosity to error, and the
    console has no such option."""
    return "termlog_verbosity" in options and options.termlog_verbosity != "error"


def show_summary(session: Session, process_ends: bool) -> None:
    """Print the summary of a session that has ended, and where its log is.

    If the process ends too, that is done at its very end. asyncio is still to cancel the tasks of
    the connections that are open, and up to Python 3.12 it prints a traceback for each
    (StreamReaderProtocol.connection_made asks the cancelled task for its exception): the summary
    would be buried.
    """
    from .report import text  # what only a report needs is loaded for one
    from .report.layout import terminal_width
    from .report.paint import paint_for

    width, paint = terminal_width(), paint_for(sys.stderr)
    lines = text.ending(session.tally, session.path, width, paint, session.log_is_there)
    if process_ends:
        atexit.register(_print, lines)
    else:
        _print(lines)


def _print(lines: Sequence[str]) -> None:
    try:
        print(*lines, sep="\n", file=sys.stderr, flush=True)
    except (OSError, ValueError):  # closed, or of an encoding that lacks a character
        pass  # nobody there to read it
