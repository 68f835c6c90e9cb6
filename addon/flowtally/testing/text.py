"""What the pytest plugin says: why a test failed, and what the whole run came to."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence

from ..budgets import Result
from ..incidents import Incident
from ..redaction import printable
from ..report import budgets_text
from ..report import incidents_text
from ..report.layout import counted
from ..report.layout import s
from ..totals import Totals
from .summary import Found

MOST_INCIDENTS = 10
"""How many incidents of a test are told of."""
MOST_TESTS = 20
"""Of how many tests the terminal summary tells."""
MOST_OF_A_TEST = 3
"""How many incidents of each."""
MAX_TITLE = 200
NOWHERE = "(outside of tests)"


def verdict(results: Sequence[Result], incidents: Sequence[Incident], still_open: int) -> str:
    """Why a test failed. The first line stands in pytest's short summary, so it says what there is
    to say in one."""
    broken = [result for result in results if not result.holds]
    said = [
        f"{result.budget.name} {budgets_text.limit(result.budget)}, {budgets_text.actual(result)}"
        for result in broken
    ]
    lines = [f"flowtally: {'; '.join(said)}", "", *budgets_text.text(broken)]
    said_already = {incident.id for result in broken for incident in result.incidents}
    if others := [incident for incident in incidents if incident.id not in said_already]:
        lines += ["", "Besides", *details(others)]
    if still_open:
        lines += ["", _still_open(still_open)]
    return "\n".join(lines)


def details(incidents: Sequence[Incident]) -> list[str]:
    """The incidents of a test."""
    return incidents_text.lines(incidents, MOST_INCIDENTS)


def _still_open(count: int) -> str:
    verb = "was" if count == 1 else "were"
    return f"{count} flow{s(count)} {verb} still open when the test ended"


# --- the terminal summary ---


def headline(totals: Totals) -> str:
    """What all tests come to."""
    return f"flowtally: {', '.join(counted(totals))}"


def by_test(found: Iterable[Found], more: int) -> list[str]:
    """The incidents of each test. `more`: of how many tests nothing is known but that they have
    some."""
    lines = []
    tests = list(found)
    for test in tests[:MOST_TESTS]:
        lines.append(printable(test.name or NOWHERE, MAX_TITLE))
        lines += map(incidents_text.title, test.incidents[:MOST_OF_A_TEST])
        lines += incidents_text.more(len(test.incidents) - MOST_OF_A_TEST, "incident")
    return lines + incidents_text.more(more + max(0, len(tests) - MOST_TESTS), "test")
