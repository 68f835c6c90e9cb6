"""Incidents as the page shows them: each with a small chart over the time of the whole report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..incidents import Counted
from ..incidents import Incident
from .layout import in_brackets
from .layout import local_time
from .layout import s
from .view import OverTime
from .view import View

MOST = 100
"""How many incidents a page shows; the rest is counted."""
OPEN = 2
"""How many of them show all that is known of them; the others are folded."""
NAMED = 5
"""How many endpoints and clients of an incident are named."""
WIDTH, HEIGHT = 120, 20
"""Of the small chart, in its own units."""
NARROWEST = 1.5
"""A bar is at least that wide, or it could not be seen."""


class Bar(NamedTuple):
    """A bar of the small chart."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Shown:
    """An incident, and what the page needs beside it."""

    incident: Incident
    key: str
    """Tells it from all others, also from those without an id."""
    title: str
    colour_of: str
    """The band of a status, else "error"; of a code that is not known "unfinished"."""
    bars: Sequence[Bar]
    bars_in_words: str
    open: bool
    """All that is known of it is shown at once."""
    endpoints: Sequence[Counted]
    more_endpoints: str
    """The end of the sentence; "" where all are named."""
    clients: Sequence[Counted]
    more_clients: str


def shown_incidents(view: View) -> list[Shown]:
    """The first incidents of a report."""
    return [
        _shown(incident, view, number < OPEN)
        for number, incident in enumerate(view.incidents[:MOST])
    ]


def _shown(incident: Incident, view: View, is_open: bool) -> Shown:
    parts = (incident.code, incident.cause, incident.reason, incident.side, incident.host)
    return Shown(
        incident=incident,
        key=incident.id or "/".join(map(str, parts)),
        title=f"{incident.cause} {incident.description}".rstrip(),
        colour_of=incident.band or ("error" if incident.code else "unfinished"),
        bars=_bars(incident, view.timeline),
        bars_in_words=_in_words(incident, view.dated),
        open=is_open,
        endpoints=incident.endpoints[:NAMED],
        more_endpoints=_more(len(incident.endpoints) - NAMED, incident.more_endpoints, "endpoint"),
        clients=incident.clients[:NAMED],
        more_clients=_more(len(incident.clients) - NAMED, incident.more_clients, "client"),
    )


def _more(count: int, overflows: bool, what: str) -> str:
    if count <= 0:
        return "and others" if overflows else ""
    return f"and {count}{' or more' if overflows else ''} more {what}{s(count)}"


def _bars(incident: Incident, timeline: OverTime) -> list[Bar]:
    """When it happened, within the time of the whole report."""
    if not timeline.starts or not incident.points:
        return []
    begin = timeline.starts[0]
    lasts = timeline.starts[-1] + timeline.seconds - begin
    most = max(incident.points.values())
    bars = []
    for start, times in incident.points.items():
        x = WIDTH * (start - begin) / lasts
        width = max(NARROWEST, WIDTH * incident.seconds / lasts)
        left, right = max(0.0, min(x, WIDTH - NARROWEST)), min(WIDTH, x + width)
        height = HEIGHT * max(0.1, times / most)
        bar = Bar(left, HEIGHT - height, max(NARROWEST, right - left), height)
        bars.append(Bar(*(round(number, 2) for number in bar)))
    return bars


def _in_words(incident: Incident, dated: bool) -> str:
    if not incident.points:
        return ""
    start, times = max(incident.points.items(), key=lambda point: point[1])
    name = f"{incident.cause}{in_brackets(incident.reason)}"
    when = local_time(start) if dated else local_time(start)[11:]
    return f"{name} over time: most at {when}, {times}"
