"""Finds clients that leave an endpoint again and again after the same wait: their own timeout.

A person who leaves does so sooner or later; a program that gives up does so on time. Pure
functions: `wait_of` says of a record what to count, and `equal_waits` finds what stands out among
the counts, so that a session's counts can be kept, bounded and merged as any other table.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from math import floor
from math import log
from typing import Any
from typing import NamedTuple

from .vocabulary import GAVE_UP
from .vocabulary import INACTIVITY

LEAST = 1000.0
"""Shorter waits are not looked at, in ms: many things end within a second."""
STEP = 1.01
"""A wait is counted in steps of one per cent."""
SPAN = 4
"""Waits that are so many steps apart, or fewer, are the same: those within four per cent are, and
none that are more than 5.1 per cent apart."""
ENOUGH = 3
"""How many equal waits are a habit."""

MAX_STEP = 2000
"""Longer waits are counted in this step; it is some days."""


class Wait(NamedTuple):
    """What the flows of a client are counted by that it left."""

    client: str
    """Address without port."""
    endpoint: str
    step: int
    """In which step of STEP the wait lies."""


class EqualWait(NamedTuple):
    """One client's timeout at one endpoint."""

    client: str
    """Address without port."""
    endpoint: str
    times: int
    """How many flows it left after that wait."""
    of: int
    """How many it left in all, after a second or more."""
    seconds: float
    """The wait."""


def wait_of(record: Mapping[str, Any], endpoint: str) -> Wait | None:
    """What a record adds to the counts; None of one whose client did not leave, or at once.

    The wait is `duration_ms`, from the first byte of the request until the client was gone. That is
    what a limit for the whole exchange measures (curl's --max-time, AbortSignal.timeout), and, as
    long as no response has begun, a limit for the silence as well.
    """
    if record.get("cause") not in GAVE_UP or "client" not in record:
        return None
    # mitmproxy ended it, or the operating system, whose number stands before its words.
    if record.get("reason") == INACTIVITY or record.get("detail", "")[:1] == "[":
        return None
    wait = record.get("duration_ms", 0)
    return Wait(record["client"], endpoint, step(wait)) if wait >= LEAST else None


def step(milliseconds: float) -> int:
    """The number of the step in which a wait of LEAST or more lies."""
    return min(floor(log(milliseconds / LEAST) / log(STEP) + 1e-9), MAX_STEP)


def equal_waits(counts: Mapping[Wait, int]) -> list[EqualWait]:
    """Each client and endpoint where at least ENOUGH of the waits, and at least half of them, are
    the same; the most frequent first.

    `counts`: how many records there were of each `wait_of`. Half, because among many waits some
    are equal by chance.
    """
    by_place: dict[tuple[str, str], dict[int, int]] = {}
    for (client, endpoint, number), count in counts.items():
        steps = by_place.setdefault((client, endpoint), {})
        steps[number] = steps.get(number, 0) + count
    found = []
    for (client, endpoint), steps in by_place.items():
        most, first = _fullest(steps)
        of = sum(steps.values())
        if most >= ENOUGH and 2 * most >= of:
            within = {n: steps[n] for n in range(first, first + SPAN + 1) if n in steps}
            middle = sum(_middle(n) * count for n, count in within.items()) / most
            found.append(EqualWait(client, endpoint, most, of, round(middle / 1000, 1)))
    return sorted(found, key=lambda wait: (-wait.times, wait.client, wait.endpoint))


def _fullest(steps: Mapping[int, int]) -> tuple[int, int]:
    """The largest count within SPAN steps, and the first of them."""
    return max(_spans(steps), key=lambda span: (span[0], -span[1]))


def _spans(steps: Mapping[int, int]) -> Iterable[tuple[int, int]]:
    for first in steps:
        yield sum(steps.get(first + number, 0) for number in range(SPAN + 1)), first


def _middle(number: int) -> float:
    """The time in ms that stands for all of a step."""
    return float(LEAST * STEP ** (number + 0.5))
