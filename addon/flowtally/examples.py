"""What a tally keeps of single flows and events, in words.

The words are as the log has them: whoever shows them makes them printable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .tally import place


def describe(example: Mapping[str, Any]) -> str:
    """An example in one line: method and URL, or at least the host, and the detail; "" of one that
    has none of them."""
    url = example.get("url") or place(example)
    what = " ".join(str(part) for part in (example.get("method"), url) if part)
    detail = str(example.get("detail", ""))
    return f"{what} ({detail})" if what and detail else what or detail
