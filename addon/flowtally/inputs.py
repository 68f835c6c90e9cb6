"""What the command line reads: which logs, and which of their flows and events.

What reads is loaded when it is needed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import ExitStack
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import BinaryIO

import click

from .folders import expanded
from .terminal import ends_in_order
from .terminal import stop
from .terminal import tell

if TYPE_CHECKING:
    from .captures.lacking import Lacking
    from .filter_language import Filter
    from .filter_language import Record
    from .logs import Logs
    from .logs import Progress

DEFAULT_CONFDIR = "~/.mitmproxy"
"""mitmproxy's own default, mitmproxy/options.py CONF_DIR."""
SHOW_PROGRESS = 32 * 1024 * 1024
"""From so many bytes on, progress is shown."""
EXPRESSION = ("~", "!", "(")
"""What an argument begins with that is a filter and no file."""
NOTHING_MATCHES = "no flow and no event matches"

_OPTIONS = (
    click.option("--cause", "causes", multiple=True, metavar="CAUSE[:REASON]", help="Of a cause."),
    click.option(
        "--status", "statuses", multiple=True, metavar="404|4xx|BAND", help="Of a status."
    ),
    click.option(
        "--host", "hosts", multiple=True, help="Of a host, and those below it; * and port."
    ),
    click.option("--path", "paths", multiple=True, help="Of a path, such as '/api/*'."),
    click.option("--since", default="", metavar="TIME", help="From 14:30 on, a date, or 10m ago."),
    click.option("--until", default="", metavar="TIME", help="Up to a time."),
    click.option("--problems", is_flag=True, help="Only problems."),
    click.option("--incident", "incidents", multiple=True, metavar="ID", help="Of an incident."),
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is to be read."""

    names: tuple[str, ...]
    """Files, folders, and - for standard input. Empty: the newest log in the default folder."""
    wanted: Filter | None
    """Which flows and events; None: all."""
    only: str
    """The same in words; "" of all."""
    problems: bool
    """Only problems."""

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(expanded(self.names)) or (newest(),)

    def matches(self, record: Record) -> bool:
        """Whether a record of a flow or an event is wanted."""
        return self.wanted is None or self.wanted(record)


def narrowed(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that narrow what is read; its arguments `inputs` become Inputs.

    An argument that begins like one of EXPRESSION is a filter, and all of them must hold.
    """

    @wraps(command)
    def with_inputs(
        inputs: tuple[str, ...],
        causes: tuple[str, ...],
        statuses: tuple[str, ...],
        hosts: tuple[str, ...],
        paths: tuple[str, ...],
        since: str,
        until: str,
        problems: bool,
        incidents: tuple[str, ...],
        **others: Any,
    ) -> None:
        from .filter_language import FilterError
        from .filters import Given
        from .filters import in_words
        from .filters import wanted

        expressions = [each for each in inputs if each.startswith(EXPRESSION)]
        names = tuple(each for each in inputs if not each.startswith(EXPRESSION))
        given = Given(
            causes, statuses, hosts, paths, since, until, problems, incidents, expressions
        )
        try:
            found = wanted(given, datetime.now(UTC))
        except FilterError as error:
            stop(str(error))
        command(inputs=Inputs(names, found, in_words(given), problems), **others)

    for option in reversed(_OPTIONS):
        with_inputs = option(with_inputs)
    return with_inputs


def read(inputs: Inputs, sources: Sequence[str] = ()) -> Logs:
    """What is to be read, or of it the logs and captures of these names, - being standard input.
    Says what could not be read and what is missing; ends the program if there is no session."""
    with reading(inputs, sources) as (found, _):
        return found


@contextmanager
def reading(
    inputs: Inputs, sources: Sequence[str] = ()
) -> Iterator[tuple[Logs, list[tuple[str, Path | BinaryIO]]]]:
    """The same, and the logs themselves, for whoever has to look at them again: what captures and
    standard input were made into is there as long."""
    from . import logs
    from .captures.lacking import Lacking

    sources = sources or inputs.sources
    lacking = Lacking()
    with named(sources, lacking) as (opened, told):
        found = logs.read(opened, told, inputs.wanted)
        found.only, found.lacking = inputs.only, lacking
        say_notes(found, sources, bool(found.sessions))
        yield found, opened


def say_notes(found: Logs, sources: Sequence[str], some: bool) -> None:
    """Say what logs do not tell, and what of them could not be used. Ends the program unless they
    have `some` session."""
    from .report import sessions_text

    why = {problem.reason for problem in found.problems}
    if not some and len(why) <= 1:  # one line says it all
        is_empty = found.lacking is not None and len(sources) == len(found.lacking.empty) == 1
        reason = "".join(f": {each}" for each in why) or ": it is empty" * is_empty
        stop(f"no flowtally session in {', '.join(sources)}{reason}")
    for note in sessions_text.notes(found):
        tell(note)
    if not some:
        stop(f"no flowtally session in {', '.join(sources)}")


@contextmanager
def named(
    sources: Sequence[str], lacking: Lacking | None = None
) -> Iterator[tuple[list[tuple[str, Path | BinaryIO]], Progress]]:
    """The logs and captures of that name, all of them as logs, for whoever reads them, and what is
    to be told of progress. Ends the program if one cannot be read, and at a signal, when what is
    temporary was removed. What captures lack is told to `lacking`; without one, it is said."""
    from .captures.convert import as_logs
    from .captures.kinds import ForeignError
    from .captures.lacking import Lacking

    found = Lacking() if lacking is None else lacking
    opened: list[tuple[str, Path | BinaryIO]] = [
        ("standard input", sys.stdin.buffer) if source == "-" else (source, Path(source))
        for source in _once(sources)
    ]
    try:
        with ends_in_order(), _progress(sources) as told, ExitStack() as stack:
            logs = as_logs(opened, stack, found, told)
            for note in found.told() if lacking is None else ():
                tell(note)
            yield logs, told
    except ForeignError as error:
        stop(str(error))
    except BrokenPipeError:
        raise  # of standard output, see `show`
    except OSError as error:
        stop(f"{error.filename}: {error.strerror or error}")


def _once(sources: Sequence[str]) -> Iterator[str]:
    """Each file once, by whatever names it is given."""
    seen = set()
    for source in sources:
        real = os.path.realpath(source) if source != "-" else source
        if real in seen:
            tell(f"{source}: given more than once; read once")
        else:
            seen.add(real)
            yield source


@contextmanager
def _progress(sources: Sequence[str]) -> Iterator[Callable[[int], None]]:
    """Shows on a terminal how far the reading is, if there is much to read."""
    total = 0
    for source in sources:
        try:
            total += Path(source).stat().st_size if source != "-" else 0
        except OSError:
            pass  # reading it will say why
    if total < SHOW_PROGRESS or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=total, label="Reading", file=sys.stderr) as bar:
        yield bar.update


def newest() -> str:
    """The newest log in the default folder."""
    from .journal import SUFFIX
    from .journal import default_folder

    folder = default_folder(DEFAULT_CONFDIR)
    found = (path for path in folder.glob(f"*{SUFFIX}") if path.is_file())
    logs = sorted(found, key=lambda path: path.stat().st_mtime)
    if not logs:
        stop(f"no session log in {folder}; name one")
    tell(f"Reading {logs[-1]}")
    return os.fspath(logs[-1])
