"""Colours for a terminal."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TextIO

Paint = Callable[[str, str], str]
"""A text and a style, the name of a band or one of STYLES → the text in its colour."""

STYLES = {
    "": "",
    "title": "1",
    "dim": "2",
    "failure": "1;31",
    "Informational": "36",
    "Success": "32",
    "Redirection": "34",
    "Client error": "33",
    "Server error": "31",
}
"""Style → SGR parameters (ECMA-48 §8.3.117)."""


def plain(text: str, _style: str) -> str:
    """No colours."""
    return text


def coloured(text: str, style: str) -> str:
    """With colours."""
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if text and STYLES[style] else text


def paint_for(stream: TextIO) -> Paint:
    """Colours if the stream is a terminal that can show them, and nobody minds (no-color.org)."""
    try:
        terminal = stream.isatty()
    except (AttributeError, ValueError, OSError):
        return plain  # closed, or none at all
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return coloured if terminal and wanted else plain
