"""What a session comes to, in a few numbers."""

from __future__ import annotations

from typing import NamedTuple


class Totals(NamedTuple):
    """What a session comes to; the background but for its number left out."""

    flows: int
    failures: int
    """Flows that broke."""
    unsuccessful: int
    """Complete responses with an error code."""
    cancelled: int
    """Flows that their clients ended of their own will."""
    events: int
    """Failures without a flow."""
    challenges: int
    """Of the unsuccessful, 401s and 407s that were answered."""
    collateral: int
    """Of the failures, those that another stream of the connection had caused."""
    problems: int
    """All that went wrong: failures with and without a flow and unsuccessful responses, but for
    answered challenges and collateral."""
    ok: int
    unfinished: int
    background: int
    """Flows, and failures without one, of which each is somebody's background traffic."""
    request_bytes: int
    response_bytes: int
    dropped: int
    """Records that could not be written to the log."""
    first: str
    """Time of the earliest flow or event but those of the background, RFC 3339; "" of none."""
    last: str

    @property
    def attempts(self) -> int:
        """Flows, and failures without one: what a share is of."""
        return self.flows + self.events


class InFlight(NamedTuple):
    """The flows that wait for their end, and are counted then."""

    flows: int
    oldest: float
    """How long the oldest has been waiting, in seconds; 0 if there is none."""
    host: str = ""
    """For which host the oldest is, with its port unless that is usual."""
    phase: str = ""
    """Where the oldest is, for people."""
