"""The command line `flowtally`: reads session logs, and says where the addon is."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO
from typing import NoReturn

import click

from . import __version__
from .budgets import Budget
from .budgets import BudgetError
from .budgets import UnknownNameError
from .budgets import evaluate
from .budgets import parse
from .budgets import status_codes
from .journal import SUFFIX
from .journal import default_folder
from .launch.browse import browse
from .logs import Logs
from .logs import read
from .output import ForeignFileError
from .output import OutputError
from .output import write
from .redaction import printable
from .report import budgets_text
from .report import sessions_text
from .report import text
from .report.layout import indented
from .report.layout import s
from .report.layout import terminal_width
from .report.paint import paint_for
from .report.sessions_text import Listed
from .vocabulary import CAPTURE_INCOMPLETE
from .vocabulary import error_fields

DEFAULT_CONFDIR = "~/.mitmproxy"
"""mitmproxy's own default, mitmproxy/options.py CONF_DIR."""
READ_IN_PART = (str(error_fields(CAPTURE_INCOMPLETE.cause)["error_code"]), *CAPTURE_INCOMPLETE)
"""The key of its cause, of a session whose flows came from a file that was not read to its end."""
MAX_NOTE = 4096
"""Characters of a line on standard error, in which a path may stand."""
UNCLEAN = "did not end cleanly, or is still running"
"""What is said of a session without a final checkpoint."""
SHOW_PROGRESS = 32 * 1024 * 1024
"""From so many bytes on, progress is shown."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """What became of every flow of a mitmproxy session."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not all can be written in every encoding


main.add_command(browse)


@main.command()
def script() -> None:
    """Print the path to give to mitmproxy: mitmdump -s "$(flowtally script)"."""
    here = Path(__file__).resolve().parent
    installed = here / "main.py"
    click.echo(installed if installed.is_file() else here.parent / "main.py")


@main.command()
@click.argument("logs", nargs=-1, metavar="[LOG]...")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a web page.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--force", is_flag=True, help="Overwrite FILE even if flowtally did not write it.")
def report(
    logs: tuple[str, ...], html: Path | None, as_json: bool, as_csv: bool, force: bool
) -> None:
    """Say what session logs hold: as text, or as --html, --json or --csv.

    LOG is a session log, or - for standard input; several are merged. Without one: the newest log
    in the default folder.
    """
    if (html is not None) + as_json + as_csv > 1:
        _stop("--html, --json and --csv: one of them at a time")
    found = _read(logs or (_newest(),))
    tally = found.merged()
    if html is not None:
        from .report import html as html_report  # Jinja2 takes a while to load

        unclean = sum(not session.final for session in found.sessions.values())
        about = html_report.About(_sessions(found), _notes(found), unclean)
        content = html_report.page(tally, about).encode("utf-8", "replace")
        _write(html, content, html_report.is_ours, force)
        return
    from .report import data

    if as_json:
        _note_unclean(found)
        listed = [
            {"session": session.id, "begun": session.time, "ended_cleanly": session.final}
            for session in found.sessions.values()
        ]
        said = data.report(listed, found.unreadable, tally, found.missing)
        _print(json.dumps(said, indent=1))
    elif as_csv:
        _note_unclean(found)
        _print(data.csv_text(tally), end="")
    else:
        lines = [*text.report(tally, terminal_width(), paint_for(sys.stdout)), ""]
        for line in _sessions(found):
            lines += indented(line, text.columns(terminal_width()), "")
        _print("\n".join(lines))


def _sessions(found: Logs) -> list[str]:
    """A sentence on each session."""
    return [
        f"Session {session.id:.40}, begun {session.time}"
        + ("" if session.final else f"; it {UNCLEAN}")
        for session in found.sessions.values()
    ]


def _notes(found: Logs) -> list[str]:
    """What logs do not tell, or what of them could not be used, a sentence each."""
    notes = [f"{p.source}, line {p.line}: {p.reason}; skipped" for p in found.problems]
    if found.unreadable:
        notes.append(f"{found.unreadable} unreadable line{s(found.unreadable)} skipped")
    for session in found.sessions.values():
        if count := session.missing:
            verb = "is" if count == 1 else "are"
            of = f"session {session.id:.40}"
            notes.append(f"{count} record{s(count)} of {of} {verb} missing in the logs")
    return notes


@main.command()
@click.argument("logs", nargs=-1, metavar="[LOG]...")
@click.option("--max", "maxima", multiple=True, metavar="NAME=NUMBER", help="At most so many.")
@click.option("--min", "minima", multiple=True, metavar="NAME=NUMBER", help="At least so many.")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write JUnit XML.")
@click.option("--force", is_flag=True, help="Overwrite FILE even if flowtally did not write it.")
def check(
    logs: tuple[str, ...],
    maxima: tuple[str, ...],
    minima: tuple[str, ...],
    junit: Path | None,
    force: bool,
) -> None:
    """Hold session logs against budgets: a gate for test runs.

    \b
    flowtally check --max 'Server error=0' --max -2=0 --max p95_ms=800 --min flows=1

    LOG is a session log, or - for standard input; several are merged. Without one: the newest log
    in the default folder. NAME is a status band, a status code, an error code (-1 to -6), a cause,
    a total (flows, failures, problems, ...) or a time (p95_ms, wait_p95_ms, ...); a wrong one gets
    the whole list.

    Exit status: 0 if all budgets hold, 1 if not, 2 if that could not be determined.
    """
    if not maxima and not minima:
        _stop(
            "no budget is given; for example: "
            "flowtally check --max 'Server error=0' --max -2=0 --min flows=1"
        )
    _budgets(maxima, minima, None)
    sources = logs or (_newest(),)
    found = _read(sources)
    tally = found.merged()
    results = evaluate(_budgets(maxima, minima, status_codes(tally)), tally, found.unreadable)
    _note_unclean(found)
    _print("\n".join(budgets_text.text(results, terminal_width())))
    if junit is not None:
        from .report import junit as xml

        _write(junit, xml.junit(results, sources, found.sessions), xml.is_ours, force)
    broken = [result for result in results if not result.holds]
    # What is missing can neither mend what is too much nor be counted.
    if READ_IN_PART in tally["causes"] and not any(r.budget.bound == "max" for r in broken):
        _stop("mitmproxy read a file of flows in part only: what is missing may break a budget")
    sys.exit(1 if broken else 0)


def _budgets(
    maxima: Iterable[str], minima: Iterable[str], codes: Collection[str] | None
) -> tuple[Budget, ...]:
    try:
        return parse(maxima, minima, codes)
    except UnknownNameError as error:
        _stop("\n".join([f"{error} There are", *budgets_text.known(terminal_width())]))
    except BudgetError as error:
        _stop(str(error))


@main.command()
@click.argument("before", metavar="BEFORE")
@click.argument("after", metavar="AFTER")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a web page.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--force", is_flag=True, help="Overwrite FILE even if flowtally did not write it.")
def compare(before: str, after: str, html: Path | None, as_json: bool, force: bool) -> None:
    """Print what differs between two session logs: what a change fixed, and what it broke.

    One of them may be - for standard input. Shares of flows are compared, and what may be chance is
    left out or said to be.
    """
    if before == after == "-":
        _stop("BEFORE and AFTER cannot both be standard input")
    if html is not None and as_json:
        _stop("--html and --json: one of them at a time")
    both = [_read([source]) for source in (before, after)]
    for logs in both:
        _note_unclean(logs)
    from .comparison import compare as compare_tallies
    from .report import comparison_text

    comparison = compare_tallies(*(logs.merged() for logs in both))
    if html is not None:
        from .report import comparison_html  # Jinja2 takes a while to load
        from .report.html import is_ours

        content = comparison_html.page(comparison, before, after).encode("utf-8", "replace")
        _write(html, content, is_ours, force)
    elif as_json:
        _print(json.dumps(comparison.to_data(), indent=2))
    else:
        _print("\n".join(comparison_text.text(comparison, terminal_width())))


@main.command()
@click.argument("locations", nargs=-1, metavar="[FOLDER_OR_LOG]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sessions(locations: tuple[str, ...], as_json: bool) -> None:
    """List the sessions in session logs, the newest first.

    A folder stands for the logs in it. Without one: the default folder.
    """
    folder = default_folder(DEFAULT_CONFDIR)
    if not locations and not folder.is_dir():
        _stop(f"no session log in {folder}; name one")
    wanted = [Path(location) for location in locations] or [folder]
    found: list[Listed] = []
    unreadable = False
    for location in wanted:
        try:
            paths = _logs_in(location)
        except OSError as error:
            _skip(location, error.strerror or str(error))
            unreadable = True
            continue
        for path in paths:
            try:
                logs = read([(os.fspath(path), path)])
            except OSError as error:
                _skip(path, error.strerror or str(error))
                unreadable |= path == location
                continue
            if not logs.sessions:
                _skip(path, "no flowtally session")
            found += [Listed.of(session, path) for session in logs.sessions.values()]
    if not found:
        _stop(f"no session log in {', '.join(map(os.fspath, wanted))}; name one")
    found.sort(key=Listed.order, reverse=True)
    if as_json:
        _print(json.dumps([listed.to_data() for listed in found], indent=2))
    else:
        _print("\n".join(sessions_text.text(found, terminal_width())))
    if unreadable:
        sys.exit(2)


def _logs_in(location: Path) -> list[Path]:
    """The logs in a folder; of what is no folder, itself. Raises: OSError."""
    if not location.is_dir():
        return [location]
    # Only files: a named pipe would be waited for.
    return sorted(p for p in location.iterdir() if p.name.endswith(SUFFIX) and p.is_file())


def _skip(path: Path, reason: str) -> None:
    _tell(f"{path}: {reason}; skipped")


def _read(sources: Sequence[str]) -> Logs:
    """The logs of that name, - being standard input. Says what could not be read and what is
    missing; ends the program if there is no session."""
    logs: list[tuple[str, Path | BinaryIO]] = [
        ("standard input", sys.stdin.buffer) if source == "-" else (source, Path(source))
        for source in _once(sources)
    ]
    try:
        with _progress(sources) as told:
            found = read(logs, told)
    except OSError as error:
        _stop(f"{error.filename}: {error.strerror or error}")
    for note in _notes(found):
        _tell(note)
    if not found.sessions:
        _stop(f"no flowtally session in {', '.join(sources)}")
    return found


def _once(sources: Sequence[str]) -> Iterator[str]:
    """Each file once, by whatever names it is given."""
    seen = set()
    for source in sources:
        real = os.path.realpath(source) if source != "-" else source
        if real in seen:
            _tell(f"{source}: given more than once; read once")
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


def _note_unclean(logs: Logs) -> None:
    for session in logs.sessions.values():
        if not session.final:
            _tell(f"Session {session.id:.40} {UNCLEAN}")


def _write(path: Path, content: bytes, is_ours: Callable[[bytes], bool], force: bool) -> None:
    """Write a file; ends the program if that fails."""
    try:
        write(path, content, is_ours, force)
    except ForeignFileError as error:
        _stop(f"{error}; --force overwrites it")
    except OutputError as error:
        _stop(str(error))


def _newest() -> str:
    """The newest log in the default folder."""
    folder = default_folder(DEFAULT_CONFDIR)
    found = (path for path in folder.glob(f"*{SUFFIX}") if path.is_file())
    logs = sorted(found, key=lambda path: path.stat().st_mtime)
    if not logs:
        _stop(f"no session log in {folder}; name one")
    _tell(f"Reading {logs[-1]}")
    return os.fspath(logs[-1])


def _print(text: str, end: str = "\n") -> None:
    """Write to standard output; ends the program if that fails."""
    try:
        click.echo(text + end, nl=False, color=True)  # whoever made the text saw to colours
    except BrokenPipeError:
        raise  # whoever read has seen enough; click ends the program
    except OSError as error:
        _stop(f"standard output cannot be written: {error.strerror or error}")


def _tell(text: str) -> None:
    """Write a line to standard error."""
    click.echo(printable(text, MAX_NOTE), err=True)


def _stop(message: str) -> NoReturn:
    for line in f"flowtally: {message}".split("\n"):
        _tell(line)
    sys.exit(2)
