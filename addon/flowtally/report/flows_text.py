"""Single flows and events as lines for a terminal, and as commands that repeat them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from ..examples import subject
from ..redaction import BLANK
from ..redaction import printable
from . import layout
from .layout import cell
from .layout import in_brackets
from .layout import shortened
from .paint import Paint
from .paint import plain

Record = Mapping[str, Any]

RESULT = 38
"""Columns of what became of a flow."""
DATE = 11
"""Columns of a date before the time of day."""
TOOK = 8
"""Columns of how long it took."""
WIDE = 4096
"""What is no terminal gets lines up to that long, in characters."""
NARROWEST = 80
"""A terminal that is narrower gets lines that are too long."""
MAX_URL = 16_384
"""Longest URL of a command, in characters; the log's are shorter."""

_SCHEMES = ("http://", "https://")
_WORDS = re.compile(r"(?:[\w\s.:/,@%+=-]| \([\w ]+\))*", re.ASCII)
"""What does nothing in a shell: words, and a reason in brackets."""
_METHOD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,40}")
"""RFC 9110 §9.1, §5.6.2."""
_BLANKED = re.compile(rf"[?&][^=&]*=(?:&|$)|{re.escape(BLANK)}")
"""How the log writes what it does not keep."""


def line(record: Record, width: int, paint: Paint = plain, dated: bool = False) -> str:
    """A record in one line of at most `width` columns: when it ended, with the date if `dated`,
    what became of it, how long it took, whose background traffic it was, if of any, which request
    it was."""
    width = max(width, NARROWEST)
    time = layout.clock(record["time"], dated)
    # A narrow terminal has the columns of the date from here: the URL needs those that it has.
    room = RESULT - DATE if dated and width < layout.WIDTH else RESULT
    said = shortened(result(record), room)
    took = cell(record.get("duration_ms"), "ms")
    start = f"{time:8}  {said:{room}}  {took:>{TOOK}}  "
    what = subject(record) or str(record.get("detail", ""))
    if "background" in record:
        what = f"(background: {record['background']}) {what}"
    return paint(f"{start}{shortened(what, width - len(start))}".rstrip(), _style(record))


def result(record: Record) -> str:
    """What became of a flow, in a few words: `404 Not found`, `connection_refused -2`."""
    status = str(record.get("status", ""))
    cause = record.get("cause", "")
    if not cause:
        described = f"{status} {record.get('description', '')}".strip()
        return described or str(record.get("outcome", ""))
    code = record.get("error_code", "")
    words = (status, f"{cause}{in_brackets(record.get('reason', ''))}", str(code))
    return " ".join(filter(None, words))


def _style(record: Record) -> str:
    if "background" in record:
        return "dim"
    if "error_code" in record:
        # A band says what the status is; a problem inside a complete answer is one all the same.
        told_by_status = record.get("outcome") == "status" and "cause" not in record
        return str(record.get("band", "failure")) if told_by_status else "failure"
    return "dim" if record.get("outcome") in ("cancelled", "unfinished") else ""


def curl(record: Record) -> list[str]:
    """A command that asks for the same again, below a comment on what the log does not have of it.

    Each line may be pasted into a POSIX shell as it is.
    """
    method, url = str(record.get("method", "")), str(record.get("url", ""))
    what = _pasted(printable(subject(record) or "no request", layout.WIDTH))
    if record.get("kind") not in ("http", "websocket") or not url.startswith(_SCHEMES):
        return [f"# {what}: only an HTTP request can be repeated"]
    if not _METHOD.fullmatch(method):
        return [f"# {what}: the log does not have its method"]
    missing = ["headers"]
    if sent := record.get("request_bytes"):
        missing.append(f"the body ({layout.size(sent)})")
    if _BLANKED.search(url):
        missing.append("values in the URL")
    told = f"{layout.clock(record['time'])}  {result(record)}"
    said = _pasted(printable(told, layout.WIDTH))
    words = ["curl", "--globoff", "--path-as-is"]
    if method == "HEAD":
        words.append("--head")  # with --request HEAD it would wait for a body
    elif method != "GET":
        words += ["--request", method]
    words += ["--url", printable(url, MAX_URL)]
    return [f"# {said}; not in the log: {', '.join(missing)}", shlex.join(words)]


def _pasted(text: str) -> str:
    """A text for a comment, quoted if it is more than words: zsh has no comments where people
    type."""
    return text if _WORDS.fullmatch(text) else shlex.quote(text)
