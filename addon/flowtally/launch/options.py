"""The options of the commands that start a proxy, declared once."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from .outputs import Outputs
from .through import Wanted

_OPTIONS = (
    click.option(
        "--log",
        default="",
        metavar="FILE_OR_FOLDER",
        help="Where the session log goes (flowtally_log).",
    ),
    click.option(
        "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a web page."
    ),
    click.option(
        "--force", is_flag=True, help="Overwrite FILE even if flowtally did not write it."
    ),
    click.option(
        "--set", "settings", multiple=True, metavar="NAME=VALUE", help="An option of mitmproxy's."
    ),
    click.option("--insecure-upstream", is_flag=True, help="Accept any certificate of a server."),
    click.option(
        "--trust",
        "trusted",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Accept servers that these certificates vouch for (PEM).",
    ),
)


def launching(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options, as its arguments `wanted` and `outputs`."""

    @wraps(command)
    def with_options(
        log: str,
        html: Path | None,
        force: bool,
        settings: tuple[str, ...],
        insecure_upstream: bool,
        trusted: tuple[Path, ...],
        **others: Any,
    ) -> None:
        wanted = Wanted(log, settings, insecure_upstream, trusted)
        command(wanted=wanted, outputs=Outputs(html=html, force=force), **others)

    for option in reversed(_OPTIONS):
        with_options = option(with_options)
    return with_options
