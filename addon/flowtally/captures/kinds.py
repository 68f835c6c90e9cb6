"""What a file holds, told by its first bytes: its name says nothing. Pure functions."""

from __future__ import annotations

import csv
import re
from enum import Enum
from functools import cache

from ..encoding import decode
from ..valid import TYPES
from ..vocabulary import KNOWN

HEAD = 256 * 1024
"""How many bytes at the beginning of a file are looked at."""
ACCEPTED = (
    "accepted are flowtally's session logs, HAR files and mitmproxy's flow files (mitmdump -w),"
    " as they are or compressed with gzip"
)

NO_HAR = "JSON, but no HAR: it has no log.entries"

_BOM = b"\xef\xbb\xbf"
# A flow's state is a dictionary of mitmproxy's tnetstrings: its length, then the first key's.
_FLOW_FILE = rb"[1-9][0-9]{1,11}:[0-9]{1,4}:[a-z_]"
_HAR = rb'"log"\s*:\s*\{|"entries"\s*:\s*\['
_MARKUP = rb"<\s*(!doctype html|html|head|body|\?xml|[a-z!])"
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")


class ForeignError(ValueError):
    """A file that is neither a log nor a capture; the message says what it seems to be."""


class Kind(Enum):
    """What is read, and how."""

    EMPTY = "empty"
    LOG = "log"
    HAR = "har"
    FLOWS = "flows"
    PACKED = "packed"
    """gzip (RFC 1952), or zlib (RFC 1950), with which mitmproxy writes a HAR whose name ends with
    `.zhar`."""
    FOREIGN = "foreign"


def kind_of(head: bytes) -> Kind:
    """What a file holds that begins with these bytes, as many as HEAD."""
    if not head.strip():
        return Kind.EMPTY
    if head[:2] == b"\x1f\x8b" or head[:2] in (b"\x78\x01", b"\x78\x9c", b"\x78\xda"):
        return Kind.PACKED
    text = head.removeprefix(_BOM).lstrip()
    if any(map(_is_record, text.splitlines()[:1000])):
        return Kind.LOG
    if text[:1] == b"{" and re.search(_HAR, text):
        return Kind.HAR
    if re.match(_FLOW_FILE, head):
        return Kind.FLOWS
    # A log of which only a piece of the first line was written.
    return Kind.LOG if text.startswith(b'{"type":"session_start"') else Kind.FOREIGN


def seems(head: bytes) -> str:
    """What a file that is none of ours seems to be, for people."""
    for at, begin, kind in _kinds():
        if head.startswith(begin, at):
            return kind
    text = head.removeprefix(_BOM).lstrip()
    if found := re.match(_MARKUP, text, re.IGNORECASE):
        word = found.group(1).lower()
        return "XML" if word == b"?xml" else "an HTML page" if len(word) > 1 else "HTML or XML"
    if _CONTROL.search(head):
        return "binary data"
    if text[:1] in (b"{", b"["):
        return NO_HAR
    return "text"


@cache
def _kinds() -> tuple[tuple[int, bytes, str], ...]:
    """Where known kinds of files have which bytes; read when a report needs them."""
    with (KNOWN / "file_kinds.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            (int(row["at"]), bytes.fromhex(row["bytes"]), row["what"])
            for row in csv.DictReader(file)
        )


def _is_record(line: bytes) -> bool:
    """Whether a line looks like one of a session log, of whatever schema."""
    if b'"session"' not in line:
        return False
    try:
        record = decode(line)
    except ValueError:
        return False
    return isinstance(record, dict) and record.get("type") in TYPES and "session" in record
