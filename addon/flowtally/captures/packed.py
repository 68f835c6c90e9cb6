"""Unpacks gzip and zlib into a file of its own, as far as it goes."""

from __future__ import annotations

import tempfile
import zlib
from typing import BinaryIO

BLOCK = 256 * 1024
_ANY = 32 + zlib.MAX_WBITS
"""zlib's word for both formats, told by their first bytes."""


def unpacked(file: BinaryIO) -> tuple[BinaryIO, str]:
    """What a file holds, one member after the other; and why there is no more, "" where that is
    all. The caller closes it. Raises: OSError, where the disk is full."""
    out: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    try:
        return out, _unpack(file, out)
    except BaseException:
        out.close()
        raise


def _unpack(file: BinaryIO, out: BinaryIO) -> str:
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
            rest = member.unused_data.lstrip(b"\0") or file.read(BLOCK).lstrip(b"\0")  # padding
            if not rest:
                return ""
            member = zlib.decompressobj(_ANY)
            if rest[:2] != b"\x1f\x8b":
                return ""  # as gzip does: what follows is none of it
    return "" if member.eof else "the compressed data breaks off"
