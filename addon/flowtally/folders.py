"""Folders and patterns as inputs: they stand for the logs in them, and for the files they match."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from glob import glob
from pathlib import Path

from .terminal import stop
from .terminal import tell

NONE = (
    "no session log (*.jsonl, *.jsonl.gz, rotated ones) in it; folders in it, and files of other"
    " kinds, have to be named, also by patterns such as '*/*.har'"
)
"""What is said of a folder without logs."""
CAPTURES = "captures have to be named, also by patterns such as '*.har'"
"""What is said of a folder that has some."""

_ROTATED = r"(?:[.-][0-9]+)*(?:\.gz)?"
"""What rotation leaves behind a log's name: `.1`, `.2.gz`, `-20261126`, `.2026-11-26.gz`."""
_PACKED = r"\.(?:xz|lzma|bz2|zst|zstd|lz4|br|Z|zip|7z)"
"""What other programs than gzip leave behind the name of what they pack."""
PACKED = "of packed logs, those of gzip are read"
"""What is said of a folder that has such logs."""
_CAPTURE = r".*\.(?:z?har|mitm|flows?)(?:\.gz)?"
"""As captures are often named. They may be large, and not of what the logs beside them are of."""


def logs_in(location: Path) -> list[Path]:
    """The logs in a folder, by name; of what is no folder, itself. Says what is left out. Raises:
    OSError."""
    from .journal import SUFFIX

    if not location.is_dir():
        return [location]
    log = re.compile(f".*{re.escape(SUFFIX)}{_ROTATED}", re.DOTALL)
    capture = re.compile(_CAPTURE, re.DOTALL | re.IGNORECASE)
    with os.scandir(location) as entries:
        files = [each.name for each in entries if _is_file(each)]
    packed = re.compile(f".*{re.escape(SUFFIX)}{_ROTATED}{_PACKED}", re.DOTALL | re.IGNORECASE)
    for kind, why in ((capture, CAPTURES), (packed, PACKED)):
        if left := sorted(filter(kind.fullmatch, files)):
            more = f", and {len(left) - 1} more" if left[1:] else ""
            tell(f"{location}: left out: {left[0]}{more}; {why}")
    return [location / name for name in sorted(filter(log.fullmatch, files))]


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
