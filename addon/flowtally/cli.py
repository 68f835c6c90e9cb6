"""The command line `flowtally`: reads session logs, and says where the addon is."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from . import __version__
from .journal import SUFFIX
from .journal import Logs
from .journal import default_folder
from .redaction import printable
from .report import text

DEFAULT_CONFDIR = "~/.mitmproxy"
"""mitmproxy's own default, mitmproxy/options.py CONF_DIR."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """What became of every flow of a mitmproxy session."""


@main.command()
def script() -> None:
    """Print the path to give to mitmproxy: mitmdump -s "$(flowtally script)"."""
    here = Path(__file__).resolve().parent
    installed = here / "main.py"
    click.echo(installed if installed.is_file() else here.parent / "main.py")


@main.command()
@click.argument("logs", nargs=-1, metavar="[LOG]...")
def report(logs: tuple[str, ...]) -> None:
    """Print what session logs hold.

    LOG is a session log, or - for standard input; several are merged. Without one: the newest log
    in the default folder.
    """
    found = Logs()
    sources = logs or (_newest(),)
    for source in sources:
        try:
            if source == "-":
                found.read(sys.stdin.buffer, "standard input")
            else:
                with Path(source).open("rb") as file:
                    found.read(file, source)
        except OSError as error:
            _stop(f"{source}: {error.strerror or error}")
    for problem in found.problems:
        click.echo(f"{problem.source}, line {problem.line}: {problem.reason}; skipped", err=True)
    if found.unreadable:
        lines = "line" if found.unreadable == 1 else "lines"
        click.echo(f"{found.unreadable} unreadable {lines} skipped", err=True)
    if not found.sessions:
        _stop(f"no flowtally session in {', '.join(sources)}")
    width = shutil.get_terminal_size(fallback=(text.WIDTH, 24)).columns
    click.echo("\n".join(text.report(found.merged(), width)))
    click.echo()
    for session in found.sessions.values():
        end = "" if session.final else "; it did not end cleanly, or is still running"
        click.echo(printable(f"Session {session.id:.40}, begun {session.time}{end}"))


def _newest() -> str:
    """The newest log in the default folder."""
    folder = default_folder(DEFAULT_CONFDIR)
    logs = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime)
    if not logs:
        _stop(f"no session log in {folder}; name one")
    return os.fspath(logs[-1])


def _stop(message: str) -> None:
    click.echo(f"flowtally: {message}", err=True)
    sys.exit(2)
