"""What goes wrong in flowtally itself. No hook raises, and no defect hides or floods the log."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any
from typing import ParamSpec
from typing import TypeVar

logger = logging.getLogger("flowtally")

P = ParamSpec("P")
A = TypeVar("A")


class Defects:
    """Tells the first defect of each place as an error in mitmproxy's log."""

    def __init__(self) -> None:
        self._places: set[str] = set()

    def tell(self, place: str, problem: Exception) -> None:
        """`place`: the name of the step that failed; its later defects are not told."""
        if place not in self._places:
            self._places.add(place)
            self._say(place, problem)

    def _say(self, place: str, problem: Exception) -> None:
        logger.error(f"flowtally: defect in {place}: {problem!r}", exc_info=problem)

    def guard(self, step: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Take a step; if it raises, tell so."""
        try:
            step(*args, **kwargs)
        except Exception as problem:
            self.tell(getattr(step, "__name__", str(step)), problem)


def quiet(addon: type[A]) -> type[A]:
    """Have no hook of an addon raise that tells of a flow or a connection: it tells `_defects`.

    Other scripts may put anything into a flow, and mitmproxy may change what it hands out. That
    flow alone is to suffer, with one line in the log.
    """
    # Only with the addon: the first knows all hooks, and with them half of mitmproxy.
    from mitmproxy import eventsequence  # noqa: F401
    from mitmproxy import hooks

    for name in hooks.all_hooks.keys() - {"load", "configure", "running", "done"}:
        if hook := getattr(addon, name, None):
            setattr(addon, name, _quiet(name, hook))
    return addon


def _quiet(name: str, hook: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    @functools.wraps(hook)
    def step(self: Any, about: Any) -> Any:
        try:
            return hook(self, about)
        except Exception as problem:
            self._defects.tell(name, problem)

    return step
