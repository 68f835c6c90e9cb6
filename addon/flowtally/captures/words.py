"""What a client's words for a failure mean: `net::ERR_CONNECTION_REFUSED` → connection_refused.

The words are those of the programs that write HARs; what they mean is in
`known/network_errors.csv`.
"""

from __future__ import annotations

import csv
import re
from functools import cache
from typing import NamedTuple

from ..redaction import Urls
from ..redaction import peer_text
from ..vocabulary import KNOWN
from ..vocabulary import TIMED_OUT
from ..vocabulary import Why

COMPLETE = "complete"
"""Stands in the file where nothing failed: the answer is there."""
# Chromium's and Firefox's names, which others wrap into a sentence of their own.
_NAME = r"(?:.{0,200}: )?(?:net::)?((?:ERR|NS_ERROR|NS_BINDING)_[A-Z0-9_]+)\b.*"

# A name that stands by itself; what is glued to it is none of the client's own words.
_SHOWN = r"(|.{0,200}: )((?:net::)?[A-Z]{2,10}_[A-Z0-9_]+)((?:[\s)].*)?)"


class Meaning(NamedTuple):
    """One row of `known/network_errors.csv`."""

    before_head: Why
    """Where no response head had come."""
    after_head: Why
    """Where one had; COMPLETE in it: nothing failed."""


def why_of(words: str, has_head: bool) -> Why | None:
    """Why an exchange failed, in a client's words; None of words that nobody knows. COMPLETE stands
    for a cause where the words are about no failure."""
    found = _meaning(words)
    if found is None:
        return None
    why = found.after_head if has_head else found.before_head
    if why.cause == TIMED_OUT:
        # Which part of it took too long, the words do not say.
        return Why("connection_read_timeout" if has_head else "http_response_timeout")
    return why


def shown(words: str, urls: Urls) -> str:
    """The words as a record may hold them. Those that are known tell nothing of the peers; what
    else there is may be anything, such as a URL or a header that was to be sent."""
    if words in _rows()[0]:
        return words
    found = re.fullmatch(_SHOWN, words, re.DOTALL)
    if found is None or _meaning(found.group(2)) is None:
        return peer_text(words, urls)
    before, known, after = found.groups()
    return peer_text(before, urls) + known + peer_text(after, urls)


def _meaning(words: str) -> Meaning | None:
    exact, beginnings = _rows()
    name = re.fullmatch(_NAME, words, re.DOTALL)
    text = name.group(1) if name else words.strip()
    if text in exact:
        return exact[text]
    return next((found for begin, found in beginnings if text.startswith(begin)), None)


@cache
def _rows() -> tuple[dict[str, Meaning], tuple[tuple[str, Meaning], ...]]:
    """The rows that compare all of the words, and those that compare how they begin."""
    exact: dict[str, Meaning] = {}
    beginnings: list[tuple[str, Meaning]] = []
    with (KNOWN / "network_errors.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            meaning = Meaning(_why(row["before_head"]), _why(row["after_head"]))
            if row["match"] == "is":
                exact[row["text"]] = meaning
            else:
                beginnings.append((row["text"], meaning))
    return exact, tuple(beginnings)


def _why(cell: str) -> Why:
    cause, _, reason = cell.partition(":")
    return Why(cause, reason)
