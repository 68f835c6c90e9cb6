"""`flowtally run`: a command whose traffic goes through a proxy of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

from .. import terminal
from ..terminal import CANNOT_BE_TOLD
from . import nothing
from . import through
from .child import CommandError
from .child import Foreground
from .child import find
from .options import launching
from .outputs import Outputs
from .proxy import LaunchError
from .proxy import Proxy
from .signals import INTERRUPTED
from .signals import EndedError
from .through import Wanted


class Asked(NamedTuple):
    """What the user asks for."""

    command: Sequence[str]
    wanted: Wanted
    outputs: Outputs = Outputs()


@click.command(
    # All behind the command's name is the command's.
    context_settings={"allow_interspersed_args": False}
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.option("--max", "maxima", multiple=True, metavar="NAME=NUMBER", help="At most so many.")
@click.option("--min", "minima", multiple=True, metavar="NAME=NUMBER", help="At least so many.")
@click.option("--markdown", type=click.Path(path_type=Path), metavar="FILE", help="Write Markdown.")
@click.option(
    "--junit",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the budgets (JUnit XML).",
)
@launching
def run(
    command: tuple[str, ...],
    maxima: tuple[str, ...],
    minima: tuple[str, ...],
    markdown: Path | None,
    junit: Path | None,
    wanted: Wanted,
    outputs: Outputs,
) -> None:
    """Run a command through a proxy of its own, and say what became of its requests.

    \b
    flowtally run -- curl https://example.com/
    flowtally run --max 'Server error=0' --min flows=1 -- npm test

    The proxy listens on a free port of 127.0.0.1 while the command runs. The command and its
    children get the environment with which programs go through it and trust it; its standard
    streams are those of flowtally, which prints on standard error alone, and at the end.

    In GitHub Actions, and any other CI that sets GITHUB_STEP_SUMMARY, problems are appended to that
    file. Budgets are those of `flowtally check`.

    Exit status: the command's (128 + n where signal n ended it, 127 where it is not found, 126
    where it cannot be run); where that is 0: 1 if a budget does not hold, 2 if something could not
    be determined or written. 130 after Ctrl+C.
    """
    if not command:
        terminal.stop(
            "no command is given; for example: flowtally run -- curl https://example.com/"
        )
    # No session is there yet that could have a code of its own.
    budgets = terminal.budgets(maxima, minima, codes=()) if maxima or minima else ()
    outputs = outputs._replace(budgets=budgets, junit=junit, markdown=markdown)
    asked = Asked(command, wanted, outputs)
    sys.exit(launched(asked, os.environ))


def launched(asked: Asked, environment: Mapping[str, str]) -> int:
    """Do what is asked for; returns the exit status."""
    if asked.outputs.files:
        from . import aftermath

        if not aftermath.can_write(asked.outputs):
            return CANNOT_BE_TOLD
    try:
        return _launched(asked, environment)
    except CommandError as error:
        terminal.complain(str(error))
        return error.status
    except LaunchError as error:
        terminal.complain(str(error))
        return CANNOT_BE_TOLD
    except EndedError as error:
        return error.status


def _launched(asked: Asked, environment: Mapping[str, str]) -> int:
    file = find(asked.command[0], environment)
    with Foreground() as foreground, Proxy() as proxy:
        through.start(proxy, asked.wanted, environment)
        from . import aftermath  # takes nearly as long as the proxy, which starts meanwhile

        with foreground.may_end():
            changed = through.through(proxy, environment)
        status = foreground.run(file, asked.command, changed)
        why_nothing = partial(nothing.why_nothing, asked.command, environment)
        what = " ".join(asked.command)
        failed = status != 0 and not foreground.interrupted
        told = aftermath.tell(proxy, asked.outputs, what, why_nothing, environment, failed)
        return exit_status(status, foreground.interrupted, told)


def exit_status(command: int, interrupted: bool, told: int) -> int:
    """The exit status of all. `command`: the command's; `told`: what it would be without that."""
    return INTERRUPTED if interrupted else command or told
