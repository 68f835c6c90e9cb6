"""What the logs of a run of tests hold, taken together once it is over."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from typing import NamedTuple

from ..incidents import Incident
from ..incidents import incidents
from ..logs import read
from ..report.layout import session_begun
from ..source import Source
from ..source import parsed
from ..tally import Tally

MAX_TESTS = 200
"""Of how many tests the incidents are kept."""
MAX_NAMES = 10_000
"""How many tests with incidents are counted."""
_TELLING = (b'"error_code"', b'"answers"')
"""What stands in every record that makes an incident, or takes one back."""


class Found(NamedTuple):
    """A test and what went wrong in it."""

    name: str
    """"" of what began outside of any test."""
    incidents: list[Incident]


class Summary(NamedTuple):
    """What a run of tests comes to."""

    tally: Tally
    tests: list[Found]
    """Those with incidents, in the order in which these came."""
    more: int
    """How many more tests have some."""
    about: list[str]
    """A sentence on each session."""
    unclean: int
    """How many sessions did not end cleanly."""


def summary(sessions: Mapping[str, str]) -> Summary:
    """Of sessions, and the log in which each is. Raises: OSError."""
    logs = sorted(set(sessions.values()))
    found = read([(log, Path(log)) for log in logs])
    mine = [session for session in found.sessions.values() if session.id in sessions]
    whole = Tally()
    for session in mine:
        whole.merge(session.tally)
    tests, more = _tests(logs, sessions)
    about = [f"{session_begun(each.id, each.time)}; log: {sessions[each.id]}" for each in mine]
    return Summary(whole, tests, more, about, sum(not session.final for session in mine))


def _tests(logs: list[str], sessions: Collection[str]) -> tuple[list[Found], int]:
    tallies: dict[str, Tally] = {}
    others: set[str] = set()
    for record in _telling(logs, sessions):
        name = record.get("test", "")
        tally = tallies.get(name)
        if tally is None:
            if len(tallies) >= MAX_TESTS:
                if len(others) < MAX_NAMES and "error_code" in record:
                    others.add(name)
                continue
            tally = tallies[name] = Tally()
        tally.add(record)
    tests = [Found(name, incidents(tally)) for name, tally in tallies.items()]
    return [test for test in tests if test.incidents], len(others)


def _telling(logs: list[str], sessions: Collection[str]) -> Iterator[dict[str, Any]]:
    """The records that make incidents, or take them back."""
    for log in logs:
        with Source(log, Path(log)) as source:
            for _, line in source.lines():
                if not any(word in line for word in _TELLING):
                    continue
                record = parsed(line)
                if record is None or record["type"] not in ("flow", "event"):
                    continue
                if record["session"] in sessions:
                    yield record
