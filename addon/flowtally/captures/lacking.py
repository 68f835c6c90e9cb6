"""What of captures could not be used, for whoever says so and whoever must not pass over it."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field

from ..logs import MAX_PROBLEMS


@dataclass
class Lacking:
    """Of any number of captures; grows while they are read."""

    problems: list[str] = field(default_factory=list)
    """Why, of the first ones."""
    skipped: int = 0
    """How many entries and flows could not be used."""
    breaks: int = 0
    """How many files broke off, or were damaged from somewhere on."""
    empty: list[str] = field(default_factory=list)
    """Which files hold nothing."""
    notes: list[str] = field(default_factory=list)
    """What else is to be said, in the order of the files."""

    def skip(self, source: str, number: int, reason: str, what: str = "entry") -> None:
        """Something could not be used."""
        self.skipped += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(f"{source}, {what} {number}: {reason}; skipped")

    def break_off(self, source: str, where: str) -> None:
        """A file ends too early. `where`: after the word "breaks off"."""
        self.breaks += 1
        self.notes.append(f"{source}: breaks off {where}")

    def add(self, other: Lacking) -> None:
        """Take over what another one holds."""
        self.problems += other.problems[: MAX_PROBLEMS - len(self.problems)]
        self.skipped += other.skipped
        self.breaks += other.breaks
        self.empty += other.empty
        self.notes += other.notes

    def told(self) -> list[str]:
        """All of it, a sentence each."""
        told = list(self.problems)
        if self.skipped > len(self.problems):
            told.append(f"{self.skipped} unreadable entries skipped")
        return told + self.notes

    @property
    def in_part(self) -> str:
        """Why figures may not be of all that was recorded, "" where they are."""
        if self.breaks:
            return "a capture was read in part only"
        if not self.skipped:
            return ""
        return f"{self.skipped} entr{'y' if self.skipped == 1 else 'ies'} could not be read"
