"""Unpacks gzip and zlib into another file, as far as it goes."""

from __future__ import annotations

import zlib
from typing import BinaryIO

BLOCK = 256 * 1024
_ANY = 32 + zlib.MAX_WBITS
"""zlib's word for both formats, told by their first bytes."""

_MEMBER = b"\x1f\x8b"
"""What every member of a gzip file begins with; zlib has one stream only."""


def unpack(file: BinaryIO, out: BinaryIO) -> str:
    """Write what a file holds, one member after the other, and say why there is no more, "" where
    that is all. Raises: OSError, where the disk is full."""
    file.seek(0)
    member = zlib.decompressobj(_ANY)
    rest = b""
    while block := rest or file.read(BLOCK):
        rest = b""
        try:
            while True:
                # Bounded: what was packed may be a thousand times as large.
                out.write(member.decompress(block, BLOCK))
                block = member.unconsumed_tail
                if not block or member.eof:
                    break
        except zlib.error:
            return "the compressed data is damaged"
        if member.eof:
            rest = member.unused_data.lstrip(b"\0")  # padding
            while len(rest) < 2 and (more := file.read(BLOCK)):
                rest = (rest + more).lstrip(b"\0")
            if not rest:
                return ""
            if not rest.startswith(_MEMBER):
                cut = _MEMBER.startswith(rest)
                return f"the compressed data {'breaks off' if cut else 'is followed by other data'}"
            member = zlib.decompressobj(_ANY)
    return "" if member.eof else "the compressed data breaks off"
