"""The command line `flowtally`: reads session logs, and says where the addon is.

What reads and reports is loaded by the commands that need it: `run` does so while its proxy starts.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING
from typing import BinaryIO

import click

from . import __version__
from .launch.command import run
from .terminal import CANNOT_BE_TOLD
from .terminal import IsOurs
from .terminal import budgets
from .terminal import show
from .terminal import stop
from .terminal import tell
from .terminal import write_file

if TYPE_CHECKING:
    from .logs import Logs

DEFAULT_CONFDIR = "~/.mitmproxy"
"""mitmproxy's own default, mitmproxy/options.py CONF_DIR."""
SHOW_PROGRESS = 32 * 1024 * 1024
"""From so many bytes on, progress is shown."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """What became of every flow of a mitmproxy session."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not all can be written in every encoding


main.add_command(run)


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
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown (GitHub's).")
@click.option("--force", is_flag=True, help="Overwrite FILE even if flowtally did not write it.")
def report(
    logs: tuple[str, ...],
    html: Path | None,
    as_json: bool,
    as_csv: bool,
    as_markdown: bool,
    force: bool,
) -> None:
    """Say what session logs hold: as text, or as --html, --json, --csv or --markdown.

    LOG is a session log, or - for standard input; several are merged. Without one: the newest log
    in the default folder.
    """
    if (html is not None) + as_json + as_csv + as_markdown > 1:
        stop("--html, --json, --csv and --markdown: one of them at a time")
    from .report import sessions_text
    from .report import text
    from .report.layout import indented
    from .report.layout import terminal_width
    from .report.paint import paint_for

    found = _read(logs or (_newest(),))
    tally = found.merged()
    if html is not None:
        from .report import html as html_report  # Jinja2 takes a while to load

        unclean = sum(not session.final for session in found.sessions.values())
        about = html_report.About(
            sessions_text.sentences(found), sessions_text.notes(found), unclean
        )
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
        show(json.dumps(said, indent=1))
    elif as_csv:
        _note_unclean(found)
        show(data.csv_text(tally), end="")
    elif as_markdown:
        from .report import markdown

        show("\n".join(markdown.report(tally, sessions_text.sentences(found))))
    else:
        lines = [*text.report(tally, terminal_width(), paint_for(sys.stdout)), ""]
        for line in sessions_text.sentences(found):
            lines += indented(line, text.columns(terminal_width()), "")
        show("\n".join(lines))


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
    from .budgets import IN_PART
    from .budgets import evaluate
    from .budgets import is_certain
    from .budgets import read_in_part
    from .budgets import status_codes
    from .report import budgets_text
    from .report.layout import terminal_width

    if not maxima and not minima:
        stop(
            "no budget is given; for example: "
            "flowtally check --max 'Server error=0' --max -2=0 --min flows=1"
        )
    budgets(maxima, minima, None)
    sources = logs or (_newest(),)
    found = _read(sources)
    tally = found.merged()
    results = evaluate(budgets(maxima, minima, status_codes(tally)), tally, found.unreadable)
    _note_unclean(found)
    show("\n".join(budgets_text.text(results, terminal_width())))
    if junit is not None:
        from .report import junit as xml

        _write(junit, xml.junit(results, sources, found.sessions), xml.is_ours, force)
    broken = [result for result in results if not result.holds]
    if read_in_part(tally) and not any(is_certain(result) for result in broken):
        stop(f"{IN_PART}: what is missing may break a budget")
    sys.exit(1 if broken else 0)


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
        stop("BEFORE and AFTER cannot both be standard input")
    if html is not None and as_json:
        stop("--html and --json: one of them at a time")
    both = [_read([source]) for source in (before, after)]
    for logs in both:
        _note_unclean(logs)
    from .comparison import compare as compare_tallies
    from .report import comparison_text
    from .report.layout import terminal_width

    comparison = compare_tallies(*(logs.merged() for logs in both))
    if html is not None:
        from .report import comparison_html  # Jinja2 takes a while to load
        from .report.html import is_ours

        content = comparison_html.page(comparison, before, after).encode("utf-8", "replace")
        _write(html, content, is_ours, force)
    elif as_json:
        show(json.dumps(comparison.to_data(), indent=2))
    else:
        show("\n".join(comparison_text.text(comparison, terminal_width())))


@main.command()
@click.argument("locations", nargs=-1, metavar="[FOLDER_OR_LOG]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sessions(locations: tuple[str, ...], as_json: bool) -> None:
    """List the sessions in session logs, the newest first.

    A folder stands for the logs in it. Without one: the default folder.
    """
    from .journal import default_folder
    from .logs import read
    from .report import sessions_text
    from .report.layout import terminal_width
    from .report.sessions_text import Listed

    folder = default_folder(DEFAULT_CONFDIR)
    if not locations and not folder.is_dir():
        stop(f"no session log in {folder}; name one")
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
        stop(f"no session log in {', '.join(map(os.fspath, wanted))}; name one")
    found.sort(key=Listed.order, reverse=True)
    if as_json:
        show(json.dumps([listed.to_data() for listed in found], indent=2))
    else:
        show("\n".join(sessions_text.text(found, terminal_width())))
    if unreadable:
        sys.exit(CANNOT_BE_TOLD)


def _logs_in(location: Path) -> list[Path]:
    """The logs in a folder; of what is no folder, itself. Raises: OSError."""
    from .journal import SUFFIX

    if not location.is_dir():
        return [location]
    # Only files: a named pipe would be waited for.
    return sorted(p for p in location.iterdir() if p.name.endswith(SUFFIX) and p.is_file())


def _skip(path: Path, reason: str) -> None:
    tell(f"{path}: {reason}; skipped")


def _read(sources: Sequence[str]) -> Logs:
    """The logs of that name, - being standard input. Says what could not be read and what is
    missing; ends the program if there is no session."""
    from .logs import read
    from .report import sessions_text

    logs: list[tuple[str, Path | BinaryIO]] = [
        ("standard input", sys.stdin.buffer) if source == "-" else (source, Path(source))
        for source in _once(sources)
    ]
    try:
        with _progress(sources) as told:
            found = read(logs, told)
    except OSError as error:
        stop(f"{error.filename}: {error.strerror or error}")
    for note in sessions_text.notes(found):
        tell(note)
    if not found.sessions:
        stop(f"no flowtally session in {', '.join(sources)}")
    return found


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


def _note_unclean(logs: Logs) -> None:
    from .report.sessions_text import UNCLEAN

    for session in logs.sessions.values():
        if not session.final:
            tell(f"Session {session.id:.40} {UNCLEAN}")


def _write(path: Path, content: bytes, is_ours: IsOurs, force: bool) -> None:
    """Write a file; ends the program if that fails."""
    if not write_file(path, content, is_ours, force):
        sys.exit(CANNOT_BE_TOLD)


def _newest() -> str:
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
