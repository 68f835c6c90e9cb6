"""Folders and patterns as inputs: they stand for the logs in them, and for the files they match."""

from __future__ import annotations

import os
from collections.abc import Iterable
from glob import glob
from pathlib import Path

from .terminal import stop

NONE = (
    "no session log (*.jsonl, *.jsonl.gz) in it; folders in it, and files of other kinds, have to"
    " be named, also by patterns such as '*/*.har'"
)
"""What is said of a folder without logs."""


def logs_in(location: Path) -> list[Path]:
    """The logs in a folder, by name; of what is no folder, itself. Raises: OSError."""
    from .journal import SUFFIX

    if not location.is_dir():
        return [location]
    suffixes = SUFFIX, f"{SUFFIX}.gz"  # as rotation leaves them
    with os.scandir(location) as entries:
        names = [each.name for each in entries if each.name.endswith(suffixes) and _is_file(each)]
    return [location / name for name in sorted(names)]


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file: a named pipe would be waited for."""
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False


def expanded(names: Iterable[str]) -> list[str]:
    """The names of logs, folders replaced by the logs in them, patterns by the files that they
    match: a list that is too long for a command line fits into one. Ends the program if a folder
    cannot be read or has none."""
    found: list[str] = []
    for name in names:
        if not name:
            stop("an input has no name; a variable of the shell may be empty")
        try:
            if name == "-" or not Path(name).is_dir():
                is_one = name == "-" or Path(name).exists()
                # Not Path.glob, which takes none that is absolute.
                matched = [] if is_one else sorted(filter(os.path.isfile, glob(name)))  # noqa: PTH207
                found += matched or [name]
                continue
            logs = logs_in(Path(name))
        except OSError as error:
            stop(f"{name}: {error.strerror or error}")
        if not logs:
            stop(f"{name}: {NONE}")
        found += map(os.fspath, logs)
    return found
