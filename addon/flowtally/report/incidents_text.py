"""Incidents as plain text, below what they are behind."""

from __future__ import annotations

from collections.abc import Sequence

from ..examples import describe
from ..incidents import Incident
from ..redaction import printable
from .layout import WIDTH
from .layout import cell
from .layout import indented
from .layout import s

IDS = 3
"""How many incidents of a problem are named at most."""


def lines(
    incidents: Sequence[Incident], most: int, width: int = WIDTH, said: set[str] | None = None
) -> list[str]:
    """Incidents, each with an example, advice, and what the client would have said without the
    proxy; at most `most` of them. `width`: in columns. `said`: what need not be said again, to
    which this adds."""
    said = set() if said is None else said
    found = []
    for incident in incidents[:most]:
        found.append(title(incident, width))
        example = next(filter(None, map(describe, incident.examples)), "")
        if example and f"{incident.id} {example}" not in said:
            found.append(printable(f"      {example}", width))
        for sentence in filter(None, (incident.advice, incident.client_words)):
            if sentence not in said:
                found += indented(sentence, width, "      ")
        said |= {f"{incident.id} {example}", incident.advice, incident.client_words}
    return found + more(len(incidents) - most, "incident")


def title(incident: Incident, width: int = WIDTH) -> str:
    """An incident in one line: count, code, cause or status, reason, side, host, id."""
    name = incident.name
    if incident.code:
        name = f"{incident.code} {incident.error_name}: {name}"
    # Of a status the side is not known.
    parts = [name, incident.side, incident.host]
    count = cell(incident.count, "count", incident.at_least)
    id = f"  [{incident.id}]" if incident.id else ""
    said = f"  {count:>2}  " + "  ".join(part for part in parts if part)
    return printable(said, max(1, width - len(id))) + id


def incident_ids(ids: Sequence[str]) -> str:
    """The incidents of a problem, by what `--incident` takes, in a few words."""
    shown = " ".join(f"[{id}]" for id in ids[:IDS])
    left = len(ids) - IDS
    return f"incident{s(len(ids))} {shown}" + (f" and {left} more" if left > 0 else "")


def more(count: int, what: str) -> list[str]:
    """What is left out, if anything."""
    return [f"  and {count} more {what}{s(count)}"] if count > 0 else []
