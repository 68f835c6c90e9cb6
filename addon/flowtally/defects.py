"""What goes wrong in flowtally itself. No hook raises, and no defect hides or floods the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec

logger = logging.getLogger("flowtally")

P = ParamSpec("P")


class Defects:
    """Tells the first defect of each place as an error in mitmproxy's log."""

    def __init__(self) -> None:
        self._places: set[str] = set()

    def tell(self, place: str, problem: Exception) -> None:
        """`place`: the name of the step that failed; its later defects are not told."""
        if place not in self._places:
            self._places.add(place)
            logger.error(f"flowtally: defect in {place}: {problem!r}", exc_info=problem)

    def guard(self, step: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Take a step; if it raises, tell so."""
        try:
            step(*args, **kwargs)
        except Exception as problem:
            self.tell(getattr(step, "__name__", str(step)), problem)
