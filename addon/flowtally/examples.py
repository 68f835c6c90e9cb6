"""What a tally keeps of single flows and events, as one line of text.

The text is as the log has it: whoever shows it makes it printable.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from .tally import place


def subject(example: Mapping[str, Any]) -> str:
    """Which request an example is of: method and URL, or at least the host; "" where nothing of
    them is known."""
    url = example.get("url") or place(example)
    return " ".join(str(word) for word in (example.get("method"), url) if word)


def describe(example: Mapping[str, Any]) -> str:
    """An example in one line: its subject and the detail; "" of one that has neither."""
    what, detail = subject(example), str(example.get("detail", ""))
    return f"{what} ({detail})" if what and detail else what or detail


def distinct(examples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that do not say the same again at another time."""
    said: dict[tuple[str, str], Mapping[str, Any]] = {}
    for each in examples:
        said.setdefault((describe(each), place(each)), each)
    return list(said.values())
