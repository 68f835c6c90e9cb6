"""Signals that are to end what is under way, noted, so that it is ended in order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from typing import Self

from ..terminal import BY_SIGNAL

INTERRUPTED = BY_SIGNAL + signal.SIGINT

_NOTED = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
    if hasattr(signal, name)  # Windows has two of them
]


class EndedError(Exception):
    """A signal came that is to end what is under way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = BY_SIGNAL + number
        """The exit status of what ended by it."""


class Signals:
    """While this is in use, signals do not end this process."""

    def __init__(self) -> None:
        self.came: list[int] = []
        """The signals that came."""
        self._before: dict[int, Any] = {}
        self._raises = False

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl+C was pressed, or the like of it."""
        return signal.SIGINT in self.came

    def __enter__(self) -> Self:
        for number in _NOTED:
            # One that is ignored, as by nohup, shall stay so, also for what is started.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    @contextmanager
    def may_end(self) -> Iterator[None]:
        """Within this, a signal raises EndedError, also one that came before."""
        self._raises = True
        try:
            self.end_if_came()
            yield
        finally:
            self._raises = False

    def end_if_came(self) -> None:
        """Raises: EndedError, where a signal came."""
        if self.came:
            raise EndedError(self.came[0])

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.came.append(number)
        if self._raises:
            self._raises = False  # a second one must not keep things from being ended in order
            raise EndedError(number)
        self.noted(number)

    def noted(self, number: int) -> None:
        """A signal came that did not raise."""
