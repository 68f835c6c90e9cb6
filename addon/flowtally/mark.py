"""Writes the tag into the flow, where mitmproxy's filters, its views and other addons see it."""

from __future__ import annotations

from mitmproxy import flow as mflow

from .classify import status_of
from .vocabulary import METADATA_KEY
from .vocabulary import Tag

FAILURE = ":red_circle:"
"""The marker of a broken exchange."""
UNSUCCESSFUL = ":warning:"
"""The marker of a complete response that is a problem: status 400 and up, and overlays."""


def marker(tag: Tag) -> str:
    """The marker that a tag deserves; empty where all is well."""
    if tag["outcome"] == "error":
        return FAILURE
    return UNSUCCESSFUL if "error_code" in tag else ""


def comment(tag: Tag) -> str:
    """What a tag says in mitmproxy's list of flows, what matters most first, for the column is
    narrow; of a plain success, and of what has no status, nothing."""
    plain = tag["outcome"] == "ok" or tag.get("band") == "Success"
    return "" if plain and "cause" not in tag else status_of(tag)


def mark(flow: mflow.Flow, tag: Tag, visible: bool) -> None:
    """Put `tag` into the flow's metadata, and if `visible` into its comment and marker.

    What the user has written there stays; what flowtally wrote the last time (a replayed flow
    comes again) is replaced.
    """
    before = flow.metadata.get(METADATA_KEY)
    flow.metadata[METADATA_KEY] = tag
    if not visible:
        return
    commented, marked = "", ""
    if before is not None and flow.comment:
        try:
            commented, marked = comment(before), marker(before)
        except (KeyError, TypeError, AttributeError):
            pass  # somebody else's data under our key
    if flow.comment == commented:
        flow.comment = comment(tag)
    if flow.marked == marked:
        flow.marked = marker(tag)
