"""The end of a run: its logs are read, the page is written, and the terminal told."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ..launch.aftermath import ANSWERED_IN_PLACE
from ..output import OutputError
from ..output import write
from ..redaction import printable
from .summary import Summary
from .summary import summary
from .text import by_test
from .text import headline

MAX_LINE = 4096


class Ending(NamedTuple):
    """What the terminal is told, and whether something that was asked for could not be done."""

    lines: list[str]
    failed: bool


def ending(sessions: Mapping[str, str], html: Path | None, troubles: Iterable[str]) -> Ending:
    """`sessions`: session → its log. `troubles`: what went wrong with proxies."""
    lines = [line for trouble in troubles for line in trouble.splitlines()]
    if lines:
        lines.append("What went through it from then on is not known.")
    if not sessions:
        return Ending(lines, False)
    try:
        found = summary(sessions)
    except OSError as error:
        lines.append(f"flowtally: {error.filename}: {error.strerror or error}")
        return Ending([printable(line, MAX_LINE) for line in lines], True)
    totals = found.tally.totals()
    lines += [headline(totals), *by_test(found.tests, found.more)]
    if totals.failures:
        lines.append(ANSWERED_IN_PLACE)
    lines += [f"Log: {log}" for log in sorted(set(sessions.values()))]
    failed = False
    if html is not None:
        try:
            _write(html, found, sessions)
            lines.append(f"Report: {html}")
        except OutputError as error:
            lines.append(f"flowtally: {error}")
            failed = True
    return Ending([printable(line, MAX_LINE) for line in lines], failed)


def _write(path: Path, found: Summary, sessions: Mapping[str, str]) -> None:
    """Raises: OutputError."""
    from ..report import html  # Jinja2 takes a while to load

    flows = html.flows_of_sessions(sessions)
    page = html.page(found.tally, html.About(found.about, unclean=found.unclean, flows=flows))
    write(path, page.encode("utf-8", "replace"), html.is_ours, force=False)
