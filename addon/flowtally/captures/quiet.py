"""What goes wrong in flowtally itself while a capture is read."""

from __future__ import annotations

from ..defects import Defects
from .lacking import Lacking


class Quiet(Defects):
    """Tells what goes wrong to whoever reads the capture: there is no log of mitmproxy's."""

    def __init__(self, name: str, lacking: Lacking) -> None:
        super().__init__()
        self._name = name
        self._lacking = lacking

    def _say(self, place: str, problem: Exception) -> None:
        note = f"{self._name}: {place} cannot be told whole ({type(problem).__name__})"
        self._lacking.notes.append(note)
