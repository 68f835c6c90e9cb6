"""Problems as lines of mitmproxy's own log, while it runs."""

from __future__ import annotations

import logging
from typing import Any

from mitmproxy.log import LegacyLogEvents

from .record import Record
from .tally import endpoint
from .tally import place
from .vocabulary import Tag
from .vocabulary import is_collateral

MAX_PROBLEMS = 10_000
"""For how many different problems it is known how often they were told of."""

logger = logging.getLogger("flowtally")


def is_read() -> bool:
    """Whether a warning would reach anybody: with -q it goes to mitmproxy's deprecated add_log hook
    alone, which costs a call of every addon."""
    return any(
        handler.level <= logging.WARNING and not isinstance(handler, LegacyLogEvents)
        for handler in logging.getLogger().handlers
    )


class ProblemLog:
    """Tells of a problem when it occurs the 1st, 10th, 100th, … time: one that floods the terminal
    hides all others."""

    def __init__(self) -> None:
        self._times: dict[tuple[Any, ...], int] = {}
        """Cause (or status), reason, host and endpoint → how often it occurred."""

    def tell(self, tag: Tag, entry: Record, client: Any) -> None:
        """Write a problem's line. `client`: the address (`peername`) that mitmproxy puts before
        it."""
        if "background" in tag or is_collateral(tag):
            return  # nobody's problem, or told of already
        times = self._count(tag, entry)
        if times != 10 ** (len(str(times)) - 1):
            return
        message = f"{tag['error_code']} {tag['error_name']}: "
        if "cause" in tag:
            more = ", ".join(tag[name] for name in ("reason", "side") if name in tag)
            message += f"{tag['cause']} ({more}): "
        if "status" in tag:
            message += f"{tag['status']} {tag['band']}, {tag['description']}: "
        message += _subject(entry)
        if "detail" in tag:
            message += f" ({tag['detail']})"
        if times > 1:
            message += f" [{times} times]"
        try:
            logger.warning(message, extra={"client": client} if client else None)
        except UnicodeError:  # a terminal that cannot print it
            logger.warning(ascii(message))

    def _count(self, tag: Tag, entry: Record) -> int:
        """How often this problem occurred, with this time."""
        what = tag.get("cause") or tag.get("status")
        of = endpoint(entry) if "kind" in entry else ""
        key = (what, tag.get("reason"), place(entry), of)
        if len(self._times) >= MAX_PROBLEMS and key not in self._times:
            self._times.clear()
        self._times[key] = times = self._times.get(key, 0) + 1
        return times


def _subject(entry: Record) -> str:
    """What a record is about: `GET http://host/`, `tcp host:port`, of an event the server."""
    host, port = entry.get("host", ""), entry.get("port")
    address = f"{host}:{port}" if port is not None else host
    if entry["type"] == "event":
        return address or "no flow"
    return f"{entry.get('method', entry['kind'])} {entry.get('url', address)}"
