"""The addon's commands, in mitmproxy's console and in mitmweb."""

from __future__ import annotations

import logging
from abc import ABC
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import mitmproxy.types
from mitmproxy import command
from mitmproxy import exceptions
from mitmproxy.log import ALERT

from .live import saved_page
from .output import OutputError
from .output import write
from .session import Session

logger = logging.getLogger("flowtally")


class Commands(ABC):
    """A part of the addon."""

    @abstractmethod
    def _running_session(self) -> Session:
        """Raises: CommandError, where none is running."""

    @abstractmethod
    def _begin_session(self) -> None: ...

    @abstractmethod
    def _end_session(self) -> None: ...

    @command.command("flowtally.summary")
    def command_summary(self) -> Sequence[str]:
        """Show what became of the flows of this session so far."""
        from .report import text  # what only a report needs is loaded for one

        return text.summary(self._running_session().tally, text.CONSOLE)

    @command.command("flowtally.report")
    def command_report(self, path: mitmproxy.types.Path) -> None:
        """Write a report on this session so far to an HTML file."""
        from .report import html  # Jinja2 takes a while to load

        try:
            write(Path(path), saved_page(self._running_session()), html.is_ours, force=False)
        except OutputError as error:
            raise exceptions.CommandError(str(error)) from None
        logger.log(ALERT, f"flowtally: report written to {path}")

    @command.command("flowtally.new")
    def command_new(self) -> None:
        """End this session and begin another one, with a log of its own in a folder of logs."""
        self._running_session()
        self._end_session()
        self._begin_session()
        logger.log(ALERT, f"flowtally: a new session began; log: {self._running_session().path}")
