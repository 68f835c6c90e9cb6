"""What goes wrong in flowtally itself. No hook raises, and no defect hides or floods the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Container
from functools import wraps
from inspect import isfunction
from typing import Any
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


def guard_hooks(addon: type, others: Container[str]) -> None:
    """Keep the hooks of an addon's class from raising: what they raise is told as a defect.

    Its public methods are hooks that are given one thing, but for `others` and its commands. The
    addon has its `Defects` in `_defects`.
    """
    for name in dir(addon):
        if not name.startswith(("_", "command_")) and name not in others:
            hook = getattr(addon, name)
            if isfunction(hook):
                setattr(addon, name, _guarded(hook))


def _guarded(hook: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    @wraps(hook)
    def guarded(addon: Any, given: Any) -> Any:
        try:
            return hook(addon, given)
        except Exception as problem:
            addon._defects.tell(hook.__name__, problem)
            return None

    return guarded
