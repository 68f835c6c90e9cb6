"""Which browsers there are, and which of them is on this machine. `known/browsers.csv` has the
names and places."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from pathlib import PureWindowsPath
from typing import Literal
from typing import NamedTuple
from typing import cast

from .proxy import LaunchError

KNOWN = Path(__file__).parent.with_name("known")
# Only the starter needs the two files on browsers, so vocabulary.py does not read them: its tables
# take longer than finding a browser.

Kind = Literal["chromium", "firefox"]
"""Whose arguments and settings a browser understands."""

PROGRAM_FOLDERS = ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")
"""Variables that name the folders in which programs are on Windows."""
APPLICATIONS = ("/Applications", "~/Applications")
"""The folders in which they are on macOS."""
GECKO = ("omni.ja", "../Resources/omni.ja")
"""A file beside the program of any browser that is made of Firefox; on macOS, the second one."""
SNAP = Path("/snap/bin")
"""Where the commands of snaps are (snapd)."""


class Row(NamedTuple):
    """One row of `known/browsers.csv`."""

    name: str
    kind: Kind
    system: str
    """`sys.platform` of the systems where the browser is in that place; empty: `where` is a command
    on PATH."""
    where: str


class Browser(NamedTuple):
    """A browser on this machine."""

    name: str
    """One of the known names, or the path that the user gave."""
    kind: Kind
    program: Path

    @property
    def snap(self) -> str:
        """The name of the snap that it is, or "". One sees nothing of /tmp, nor hidden folders."""
        if self.program.parent == SNAP:
            return self.program.name
        try:
            with self.program.open("rb") as file:  # Ubuntu's /usr/bin/firefox starts the snap
                script = file.read(4096)
        except OSError:
            return ""
        for word in script.split() if script.startswith(b"#!") else ():
            if word.startswith(os.fsencode(SNAP) + b"/"):
                return os.fsdecode(word).removeprefix(f"{SNAP}/")
        return ""

    @property
    def home(self) -> Path | None:
        """The folder in which its private one has to be, where it is not free to choose."""
        return Path.home() / "snap" / self.snap / "common" if self.snap else None


class Machine(NamedTuple):
    """What finding a browser depends on."""

    environment: Mapping[str, str]
    system: str = sys.platform

    def on_path(self, command: str) -> Path | None:
        """The program that a command stands for; a path stands for itself."""
        found = shutil.which(command, path=self.environment.get("PATH"))
        return Path(found).absolute() if found else None

    def at(self, row: Row) -> Path | None:
        """The program of a row."""
        if not row.system:
            return self.on_path(row.where)
        if row.system != self.system:
            return None
        return next((path for path in self._places(row.where) if path.is_file()), None)

    def _places(self, where: str) -> Iterator[Path]:
        if self.system == "win32":
            for variable in PROGRAM_FOLDERS:
                if folder := self.environment.get(variable):
                    yield Path(folder, *PureWindowsPath(where).parts)
        else:
            for folder in APPLICATIONS:
                yield Path(folder).expanduser() / where


def rows() -> list[Row]:
    """What is known of browsers, in the order in which they are looked for."""
    with (KNOWN / "browsers.csv").open(encoding="utf-8", newline="") as file:
        return [
            Row(row["name"], cast(Kind, row["kind"]), row["system"], row["where"])
            for row in csv.DictReader(file)
        ]


def find(asked: str, machine: Machine) -> Browser:
    """The browser of that name or path; the first one that is there if `asked` is empty.

    Raises: LaunchError, with what is known and what is there.
    """
    known = rows()
    for row in known:
        if asked.lower() in ("", row.name) and (program := machine.at(row)):
            return Browser(row.name, row.kind, program)
    # Path.expanduser raises where there is no such user.
    program = machine.on_path(os.path.expanduser(asked)) if asked else None  # noqa: PTH111
    if program is not None:
        return Browser(asked, kind_of(program, known), program)
    raise LaunchError(_not_found(asked, known, machine.at))


def kind_of(program: Path, known: list[Row]) -> Kind:
    """The kind of a program that the user named."""
    if any((program.resolve().parent / file).is_file() for file in GECKO):
        return "firefox"
    # The command may be a script.
    return next((row.kind for row in known if row.where == program.stem), "chromium")


def _not_found(asked: str, known: list[Row], at: Callable[[Row], Path | None]) -> str:
    there = {row.name: program for row in known if (program := at(row))}
    names = ", ".join(dict.fromkeys(row.name for row in known))
    found = ", ".join(f"{name} ({program})" for name, program in there.items())
    if not asked:
        return f"no browser is found. Known are {names}; --browser takes a path, too"
    return f"--browser {asked!r}: there is no such program. Known are {names}, or a path; " + (
        f"found here: {found}" if found else "none of them is found here"
    )
