"""The records that a running session adds to its log, read as they come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..growing import Growing
from ..source import parsed

_BEFORE = 80
"""In how many bytes of a line, its first ones, the session is named."""


class Tail:
    """What one session writes into its log from now on. Other sessions may write there, too."""

    def __init__(self, path: Path, session: str) -> None:
        """Raises: OSError."""
        self._log = Growing(path)
        self._session = session.encode()

    def read(self) -> Iterator[dict[str, Any]]:
        """The flows, events and gaps that were written since the last call."""
        for line in self._log.lines():
            record = parsed(line) if self._session in line[:_BEFORE] else None
            if record is not None and record["type"] in ("flow", "event", "gap"):
                yield record

    def close(self) -> None:
        self._log.close()
