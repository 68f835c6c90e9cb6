"""Decodes a body as far as one may: what a peer sent can unpack to a thousand times its size."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

MAX_BODY = 256_000
"""Bodies that are larger, as sent or as decoded, are not looked into, in bytes."""

_WINDOW_LOG = 23
"""The window that a decoder of zstd has to have: 8 MB (RFC 9659 §3)."""
_BROTLI_STEP = 16
"""Bytes that Brotli is given at a time: they hold no more than a block or two, of at most 16 MB."""


def decoded(body: bytes | None, coding: str) -> bytes | None:
    """A body without its content coding (RFC 9110 §8.4); None where it cannot be told, is not
    there, is damaged or is larger than `MAX_BODY`. Never raises.

    `coding`: value of Content-Encoding.
    """
    if body is None or len(body) > MAX_BODY:
        return None
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return body
    decode = _DECODERS.get(coding)
    if decode is None:
        return None
    try:
        plain = decode(body)
    except Exception:  # each library raises errors of its own
        return None
    return plain if len(plain) <= MAX_BODY else None


def _gzip(body: bytes) -> bytes:
    return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, MAX_BODY + 1)


def _deflate(body: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(body, MAX_BODY + 1)
    except zlib.error:  # many servers leave out the frame of zlib (RFC 9110 §8.4.1.2)
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, MAX_BODY + 1)


def _brotli(body: bytes) -> bytes:
    import brotli  # type: ignore[import-untyped, unused-ignore]  # comes with mitmproxy

    decompressor: Any = brotli.Decompressor()
    if hasattr(decompressor, "can_accept_more_data"):  # since Brotli 1.2
        bounded: bytes = decompressor.process(body, output_buffer_limit=MAX_BODY + 1)
        return bounded
    plain = bytearray()
    # The library of mitmproxy 11 cannot bound what comes out, so what goes in is.
    for at in range(0, len(body), _BROTLI_STEP):
        plain += decompressor.process(body[at : at + _BROTLI_STEP])
        if len(plain) > MAX_BODY:
            break
    return bytes(plain)


def _zstd(body: bytes) -> bytes:
    # What mitmproxy ships: since 12.2 the standard library's, or what stands in for it.
    zstd: Any
    try:
        from compression import zstd  # type: ignore[import-not-found, no-redef, unused-ignore]
    except ImportError:
        try:
            from backports import zstd  # type: ignore[import-not-found, no-redef, unused-ignore]
        except ImportError:
            import zstandard  # type: ignore[import-not-found, unused-ignore]

            bounded: Any = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG)
            reader = bounded.stream_reader(body)
            plain: bytes = reader.read(MAX_BODY + 1)
            return plain
    options = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
    decompressed: bytes = zstd.ZstdDecompressor(options=options).decompress(body, MAX_BODY + 1)
    return decompressed


_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
