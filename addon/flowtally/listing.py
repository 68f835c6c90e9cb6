"""Single flows and events, written to standard output: from logs, and as a session writes them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING
from typing import BinaryIO

from .encoding import encode
from .growing import Growing
from .inputs import NOTHING_MATCHES
from .inputs import Inputs
from .inputs import say_notes
from .report import flows_text
from .report.layout import several_days
from .report.layout import terminal_width
from .report.paint import paint_for
from .report.sessions_text import missing as missing_records
from .selection import Selection
from .source import Record
from .source import judged
from .terminal import show
from .terminal import tell

if TYPE_CHECKING:
    from .captures.lacking import Lacking

POLL = 0.2
"""Seconds between two looks at a log that grows."""


class Lines(Enum):
    """What is written of a record."""

    TABLE = "table"
    JSON = "json"
    CURL = "curl"


def show_logs(
    logs: Sequence[tuple[str, Path | BinaryIO]],
    inputs: Inputs,
    lines: Lines,
    follow: bool,
    background: bool,
    lacking: Lacking,
) -> None:
    """Write what is wanted of logs; with `follow`, go on with what is written to the first one.
    Says what cannot be read and what is missing; ends the program if there is no session and
    nothing to follow. `background`: with background traffic, else says how much was left out;
    `lacking`: of the captures that logs were made of.

    Raises: OSError, with the name of the log as its `filename`.
    """
    nothing = True
    with Selection(logs, inputs.matches, follow, background) as selection:
        missing = selection.missing
        selection.noted.lacking = lacking
        say_notes(selection.noted, [name for name, _ in logs], bool(missing) or follow)
        for session, count in missing.items():
            if count:
                tell(missing_records(session, count))
        write = _writer(lines, selection.first, selection.last)
        for record in selection:
            # The record alone cannot know that its challenge was answered later.
            challenge = (record["session"], record.get("flow", "")) in selection.answered
            if not (challenge and inputs.problems):
                write(record)
                nothing = False
        ended, size, left_out = selection.ended, selection.size, selection.left_out
        running = missing.keys() - ended
    if left_out:
        only = f"{NOTHING_MATCHES}; " if nothing else ""
        tell(f"{only}of background traffic, {left_out} left out: --background lists them")
    elif nothing and not follow:
        tell(NOTHING_MATCHES)
    if follow and (running or not ended):
        path = logs[0][1]
        assert isinstance(path, Path)
        for line in _growing(Growing(path, size), logs[0][0]):
            new, reason = judged(line + b"\n")
            if reason and line.strip():
                tell(f"{logs[0][0]}: {reason}; skipped")
            if reason:
                continue
            is_single = new["type"] in ("flow", "event") and inputs.matches(new)
            if is_single and (background or "background" not in new):
                write(new)
            if new.get("final"):
                ended.add(new["session"])
            running = (running | {new["session"]}) - ended
            if not running:
                break


def _growing(log: Growing, name: str) -> Iterator[bytes]:
    gone = False
    try:
        while True:
            yield from log.lines()
            if log.gone and not gone:
                tell(f"{name}: gone, or no file to read; waiting for it to be there again")
            gone = log.gone
            time.sleep(POLL)
    finally:
        log.close()


def _escaped(line: str) -> str:
    """A line of JSON that means the same, with what a terminal would obey as `\\u009b`."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in line)


def _writer(lines: Lines, first: str, last: str) -> Callable[[Record], None]:
    """`first`, `last`: the time of the earliest record, and of the latest one so far."""
    if lines is Lines.JSON:
        return lambda record: show(_escaped(encode(record).decode().rstrip("\n")))
    if lines is Lines.CURL:
        return lambda record: show("\n".join(flows_text.curl(record)))
    is_seen = sys.stdout is not None and sys.stdout.isatty()
    width = terminal_width() if is_seen else flows_text.WIDE
    paint = paint_for(sys.stdout)
    several = several_days(first, last)

    def write(record: Record) -> None:
        dated = several or several_days(first or record["time"], record["time"])
        show(flows_text.line(record, width, paint, dated))

    return write
