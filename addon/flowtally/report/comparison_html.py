"""A comparison as one HTML page, made as `html.py` makes a report."""

from __future__ import annotations

from ..differences import Change
from ..differences import Comparison
from ..vocabulary import band_of
from .comparison_text import ENDS
from .comparison_text import PROBLEMS
from .comparison_text import ended
from .comparison_text import verdict
from .html import COLOURS
from .html import fill
from .incidents_text import incident_ids

ROWS = 200
"""How many rows a table has at most."""


def page(comparison: Comparison, before: str, after: str) -> str:
    """What differs between two sessions; `before` and `after` are the names of their logs."""
    hosts, endpoints = comparison.traffic_hosts, comparison.traffic_endpoints
    return fill(
        "comparison.html.j2",
        change_colour=_colour,
        problems_are=PROBLEMS,
        verdict=verdict(comparison),
        sides=[(f"Before: {before}", comparison.before), (f"After: {after}", comparison.after)],
        incident_ids=incident_ids,
        problems=[*_problems(comparison, True), *_problems(comparison, False)],
        failing=[
            ("endpoints", "Endpoints", comparison.endpoints[:ROWS]),
            ("hosts", "Hosts", comparison.hosts[:ROWS]),
        ],
        codes=[
            ("error-codes", "Error codes", comparison.error_codes),
            ("status-codes", "Status codes", comparison.status_codes),
        ],
        durations=comparison.durations[:ROWS],
        traffic=[
            ("hosts-after", "Hosts only after", hosts.appeared[:ROWS]),
            ("hosts-before", "Hosts only before", hosts.vanished[:ROWS]),
            ("endpoints-after", "Endpoints only after", endpoints.appeared[:ROWS]),
            ("endpoints-before", "Endpoints only before", endpoints.vanished[:ROWS]),
        ],
        complete=hosts.complete and endpoints.complete,
    )


def _problems(comparison: Comparison, clear: bool) -> list[tuple[str, str, list[Change]]]:
    """`clear`: what is beyond chance, or else what is not."""
    problems = [change for change in comparison.problems if change.clear == clear]
    gone = [change for change in problems if change.direction == "vanished"]

    def moved(direction: str) -> list[Change]:
        return [change for change in problems if change.direction == direction]

    sections = [
        ("new", "New", moved("appeared")),
        ("worse", "Worse", moved("more")),
        *((end.replace(" ", "-"), title, ended(gone, end)) for end, title in ENDS.items()),
        ("better", "Better", moved("fewer")),
    ]
    suffix = "" if clear else "-or-chance"
    return [(id + suffix, title, changes) for id, title, changes in sections]


def _colour(change: Change) -> str:
    """The CSS class that gives a problem its colour."""
    if change.direction in ("vanished", "fewer"):
        return "success"
    band = band_of(change.name)
    return COLOURS[band] if band else "failure"
