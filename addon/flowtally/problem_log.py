"""Problems as lines of mitmproxy's own log, while it runs."""

from __future__ import annotations

import logging
from typing import Any

from mitmproxy.log import LegacyLogEvents

from .record import Record
from .vocabulary import Tag

logger = logging.getLogger("flowtally")


def is_read() -> bool:
    """Whether a warning would reach anybody: with -q it goes to mitmproxy's deprecated add_log hook
    alone, which costs a call of every addon."""
    return any(
        handler.level <= logging.WARNING and not isinstance(handler, LegacyLogEvents)
        for handler in logging.getLogger().handlers
    )


def tell(tag: Tag, entry: Record, client: Any) -> None:
    """Write a problem's line. `client`: the address (`peername`) that mitmproxy puts before it."""
    message = f"{tag['error_code']} {tag['error_name']}: "
    if "cause" in tag:
        message += f"{tag['cause']} ({tag['side']}): "
    if "status" in tag:
        message += f"{tag['status']} {tag['band']}, {tag['description']}: "
    message += _subject(entry)
    if "detail" in tag:
        message += f" ({tag['detail']})"
    try:
        logger.warning(message, extra={"client": client} if client else None)
    except UnicodeError:  # a terminal that cannot print it
        logger.warning(ascii(message))


def _subject(entry: Record) -> str:
    """What a record is about: `GET http://host/`, `tcp host:port`, of an event the server."""
    host, port = entry.get("host", ""), entry.get("port")
    address = f"{host}:{port}" if port is not None else host
    if entry["type"] == "event":
        return address or "no flow"
    return f"{entry.get('method', entry['kind'])} {entry.get('url', address)}"
