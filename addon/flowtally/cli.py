"""The command line `flowtally`: reads session logs and captures, and says where the addon is.

What reads and reports is loaded by the commands that need it: `run` does so while its proxy starts.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import __version__
from .engines.command import export
from .engines.command import sql
from .folders import expanded
from .folders import logs_in
from .inputs import DEFAULT_CONFDIR
from .inputs import NOTHING_MATCHES
from .inputs import Inputs
from .inputs import named
from .inputs import narrowed
from .inputs import read
from .inputs import reading
from .launch.browse import browse
from .launch.command import run
from .terminal import CANNOT_BE_TOLD
from .terminal import EXIT_STATUS
from .terminal import IsOurs
from .terminal import budgets
from .terminal import show
from .terminal import stop
from .terminal import tell
from .terminal import write_file

if TYPE_CHECKING:
    from .logs import Logs
    from .tally import Tally


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """What became of every flow of a mitmproxy session."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not all can be written in every encoding


main.add_command(run)
main.add_command(browse)
main.add_command(sql)
main.add_command(export)


@main.command()
def script() -> None:
    """Print the path to give to mitmproxy: mitmdump -s "$(flowtally script)"."""
    here = Path(__file__).resolve().parent
    installed = here / "main.py"
    click.echo(installed if installed.is_file() else here.parent / "main.py")


@main.command()
@click.argument("inputs", nargs=-1, metavar="[LOG]... [FILTER]...")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a web page.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown (GitHub's).")
@click.option("--force", is_flag=True, help="Overwrite FILE even if flowtally did not write it.")
@narrowed
def report(
    inputs: Inputs,
    html: Path | None,
    as_json: bool,
    as_csv: bool,
    as_markdown: bool,
    force: bool,
) -> None:
    """Say what session logs hold: as text, or as --html, --json, --csv or --markdown.

    LOG is a session log, a folder of logs (*.jsonl, rotated ones too), a HAR file, or a flow file
    of mitmproxy's (mitmdump -w), as it is or compressed with gzip, whatever its name; or - for
    standard input. Several are merged. Without one: the newest log in the default folder. FILTER is
    an expression of mitmproxy's, such as '~d shop.example & ~c 404'; it narrows the report as the
    options do.
    """
    if (html is not None) + as_json + as_csv + as_markdown > 1:
        stop("--html, --json, --csv and --markdown: one of them at a time")
    from .report import sessions_text
    from .report import text
    from .report.layout import indented
    from .report.layout import terminal_width
    from .report.paint import paint_for

    if html is not None:
        from .report import html as html_report  # Jinja2 takes a while to load

        with reading(inputs) as (found, opened):
            tally = found.merged()
            _note_nothing(tally)
            unclean = sum(not session.final for session in found.sessions.values())
            single = html_report.flows_of(opened, inputs.wanted)
        about = html_report.About(
            sessions_text.sentences(found), sessions_text.notes(found), unclean, single
        )
        content = html_report.page(tally, about).encode("utf-8", "replace")
        _write(html, content, html_report.is_ours, force)
        return
    found = read(inputs)
    tally = found.merged()
    _note_nothing(tally)
    from .report import data

    if as_json:
        _note_unclean(found)
        listed = [
            {"session": session.id, "begun": session.time, "ended_cleanly": session.final}
            for session in found.sessions.values()
        ]
        said = data.report(listed, found.skipped, tally, found.missing)
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
@click.argument("inputs", nargs=-1, metavar="[LOG]... [FILTER]...")
@click.option("--max", "maxima", multiple=True, metavar="NAME=NUMBER", help="At most so many.")
@click.option("--min", "minima", multiple=True, metavar="NAME=NUMBER", help="At least so many.")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write JUnit XML.")
@click.option("--force", is_flag=True, help="Overwrite FILE even if flowtally did not write it.")
@narrowed
def check(
    inputs: Inputs,
    maxima: tuple[str, ...],
    minima: tuple[str, ...],
    junit: Path | None,
    force: bool,
) -> None:
    """Hold session logs against budgets: a gate for test runs.

    \b
    flowtally check --max 'Server error=0' --max -2=0 --max p95_ms=800 --min flows=1

    LOG is a session log, a HAR file or a flow file (mitmdump -w), also with gzip, or - for standard
    input; several are merged. Without one: the newest log in the default folder. FILTER, an
    expression of mitmproxy's, and the options that narrow say which flows the budgets are for. NAME
    is a status band, a status code, an error code (-1 to -6), a cause, a total (flows, failures,
    problems, ...) or a time (p95_ms, wait_p95_ms, ...); a wrong one gets the whole list.

    Exit status: 0 if all budgets hold, 1 if not, 2 if that could not be determined.
    """
    from .budgets import IN_PART
    from .budgets import evaluate
    from .budgets import hold
    from .budgets import not_told
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
    sources = inputs.sources
    found = read(inputs, sources)
    tally = found.merged()
    if _note_nothing(tally):
        sys.exit(CANNOT_BE_TOLD)
    given = budgets(maxima, minima, status_codes(tally))
    results = evaluate(given, tally, found.skipped, found.missing)
    _note_unclean(found)
    show("\n".join(budgets_text.text(results, terminal_width())))
    if junit is not None:
        from .report import junit as xml

        _write(junit, xml.junit(results, sources, found.sessions), xml.is_ours, force)
    # A filter may have left out the event that tells so.
    lacking = (
        (found.lacking.in_part if found.lacking else "")
        or (IN_PART if read_in_part(tally) else "")
        or not_told(results, found.doubtful, found.missing + tally.dropped)
    )
    held = hold(results, whole=not lacking)
    if held is None:
        stop(f"{lacking}: what is missing may break a budget")
    sys.exit(EXIT_STATUS[held])


@main.command()
@click.argument("inputs", nargs=-1, metavar="BEFORE AFTER [FILTER]...")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a web page.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--force", is_flag=True, help="Overwrite FILE even if flowtally did not write it.")
@narrowed
def compare(inputs: Inputs, html: Path | None, as_json: bool, force: bool) -> None:
    """Print what differs between two session logs: what a change fixed, and what it broke.

    BEFORE and AFTER are session logs, HAR files or flow files (mitmdump -w), also with gzip; one of
    them may be - for standard input. Shares of flows are compared, and times by their ranks;
    what came together counts as less, and what may be chance is left out or said to be. FILTER, an
    expression of mitmproxy's, and the options that narrow say which flows are compared.
    """
    if len(inputs.names) != 2:
        stop(f"two logs are compared, BEFORE and AFTER; given: {len(inputs.names)}")
    before, after = inputs.names
    if before == after == "-":
        stop("BEFORE and AFTER cannot both be standard input")
    if html is not None and as_json:
        stop("--html and --json: one of them at a time")
    both = [read(inputs, expanded([source])) for source in (before, after)]
    tallies = [logs.merged() for logs in both]
    for logs, tally in zip(both, tallies, strict=True):
        _note_unclean(logs)
        _note_nothing(tally)
    from .comparison import compare as compare_tallies
    from .report import comparison_text
    from .report.layout import terminal_width

    comparison = compare_tallies(*tallies)
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
@click.argument("inputs", nargs=-1, metavar="[LOG]... [FILTER]...")
@narrowed
def why(inputs: Inputs) -> None:
    """Say in at most 60 lines what went wrong, what to look at first, and what to do.

    Markdown for people, job summaries and programs. Each incident, problems of one cause, side and
    host, has an id that is the same in every session; `flowtally flows --incident ID` has its
    requests. LOG and FILTER are as in `flowtally report`. The file SKILL.md in flowtally's folder
    tells a program how to use it.
    """
    from .report.digest import digest

    found = read(inputs)
    _note_unclean(found)
    tally = found.merged()
    _note_nothing(tally)
    show("\n".join(digest(tally, logs=inputs.names)))


@main.command()
@click.argument("inputs", nargs=-1, metavar="[LOG]... [FILTER]...")
@click.option("--json", "as_json", is_flag=True, help="Print the records as the log has them.")
@click.option("--curl", "as_curl", is_flag=True, help="Print commands that repeat the requests.")
@click.option("--follow", is_flag=True, help="Go on until its sessions end, or Ctrl+C.")
@click.option("--background", is_flag=True, help="With what browsers and systems do on their own.")
@narrowed
def flows(inputs: Inputs, as_json: bool, as_curl: bool, follow: bool, background: bool) -> None:
    """List single flows, and failures without a flow, in the order in which they were recorded.

    \b
    flowtally flows --problems --host api.example
    flowtally flows session.jsonl '~m POST & ~c 500' --curl

    LOG is a session log, a HAR file or a flow file (mitmdump -w), also with gzip, or - for standard
    input. Without one: the newest log in the default folder. A log has its flows as they ended, a
    HAR file is read as they began, a flow file as it has them. FILTER is an expression of
    mitmproxy's. Those that mean the same in a log are ~all, ~c, ~d, ~dns, ~http, ~m, ~replay,
    ~replayq, ~replays, ~src, ~tcp, ~u, ~udp and ~websocket, with !, &, | and brackets. Of several
    options of one kind any may hold, of several kinds all must.
    """
    if as_json and as_curl:
        stop("--json and --curl: one of them at a time")
    sources = inputs.sources
    if follow and (len(sources) != 1 or sources[0] == "-"):
        stop("--follow needs one log that is a file")
    from .captures.lacking import Lacking
    from .listing import Lines
    from .listing import show_logs

    lacking = Lacking()
    lines = Lines.JSON if as_json else Lines.CURL if as_curl else Lines.TABLE
    with named(sources, lacking) as (opened, _), suppress(KeyboardInterrupt):
        show_logs(opened, inputs, lines, follow, background, lacking)


@main.command()
@click.argument("locations", nargs=-1, metavar="[FOLDER_OR_LOG]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def sessions(locations: tuple[str, ...], as_json: bool) -> None:
    """List the sessions in session logs, the newest first; a capture is a session, too.

    A folder stands for the logs in it, rotated ones too. Without one: the default folder.
    """
    from . import logs
    from .captures.convert import as_logs
    from .captures.kinds import ForeignError
    from .captures.lacking import Lacking
    from .journal import default_folder
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
        if os.fspath(location) == "-":
            _skip(location, "standard input is not accepted here")
            unreadable = True
            continue
        try:
            paths = logs_in(location)
        except OSError as error:
            _skip(location, error.strerror or str(error))
            unreadable = True
            continue
        for path in paths:
            lacking = Lacking()
            try:
                with ExitStack() as stack:
                    opened = as_logs([(os.fspath(path), path)], stack, lacking, lambda _: None)
                    held = logs.read(opened, tables=Listed.TABLES)
                    held.lacking = lacking
            except ForeignError as error:
                tell(f"{error}; skipped")
                continue
            except OSError as error:
                _skip(path, error.strerror or str(error))
                unreadable |= path == location
                continue
            for note in sessions_text.notes(held):
                tell(note)
            if not held.sessions:
                _skip(path, "no flowtally session")
            found += [Listed.of(session, path) for session in held.sessions.values()]
    if not found:
        stop(f"no session log in {', '.join(map(os.fspath, wanted))}; name one")
    found.sort(key=Listed.order, reverse=True)
    if as_json:
        show(json.dumps([listed.to_data() for listed in found], indent=2))
    else:
        show("\n".join(sessions_text.text(found, terminal_width())))
    if unreadable:
        sys.exit(CANNOT_BE_TOLD)


def _skip(path: Path, reason: str) -> None:
    tell(f"{path}: {reason}; skipped")


def _note_nothing(tally: Tally) -> bool:
    """Say so where a filter leaves nothing; whether it does."""
    totals = tally.totals()
    nothing = bool(tally.only) and not (totals.attempts or totals.background)
    if nothing:
        tell(NOTHING_MATCHES)
    return nothing


def _note_unclean(logs: Logs) -> None:
    from .report.sessions_text import UNCLEAN

    for session in logs.sessions.values():
        if not session.final:
            tell(f"Session {session.id:.40} {UNCLEAN}")


def _write(path: Path, content: bytes, is_ours: IsOurs, force: bool) -> None:
    """Write a file; ends the program if that fails."""
    if not write_file(path, content, is_ours, force):
        sys.exit(CANNOT_BE_TOLD)
