"""What the pytest plugin says: why a test failed, and what the whole run came to."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence

from ..budgets import Result
from ..budgets import number
from ..examples import describe
from ..incidents import Incident
from ..redaction import printable
from ..report import budgets_text
from ..report.layout import WIDTH
from ..report.layout import cell
from ..report.layout import counted
from ..report.layout import indented
from ..report.layout import named
from ..report.layout import s
from ..tally import Totals
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
        f"{result.budget.name} {budgets_text.BOUNDS[result.budget.bound]} "
        f"{number(result.budget.limit)}, {budgets_text.actual(result)}"
        for result in broken
    ]
    lines = [f"flowtally: {'; '.join(said)}", "", *budgets_text.text(broken)]
    if found := details(incidents):
        lines += ["", "Incidents", *found]
    if still_open:
        lines += ["", _still_open(still_open)]
    return "\n".join(lines)


def details(incidents: Sequence[Incident]) -> list[str]:
    """Incidents, each with an example, advice, and what the client would have said."""
    lines = []
    for incident in incidents[:MOST_INCIDENTS]:
        lines.append(title(incident))
        if example := next(filter(None, map(describe, incident.examples)), ""):
            lines.append(printable(f"      {example}", WIDTH))
        for sentence in (incident.advice, incident.client_words):
            if sentence:
                lines += indented(sentence, WIDTH, "      ")
    return lines + _more(len(incidents) - MOST_INCIDENTS, "incident")


def title(incident: Incident) -> str:
    """An incident in one line: count, code, cause or status, reason, side, host, id."""
    name = named(incident.cause, incident.description, incident.reason)
    if incident.code:
        name = f"{incident.code} {incident.error_name}: {name}"
    # Of a status the side is not known.
    parts = [name, incident.side, incident.host, incident.id and f"[{incident.id}]"]
    count = cell(incident.count, "count", incident.at_least)
    return printable(f"  {count:>2}  " + "  ".join(part for part in parts if part), MAX_TITLE)


def _still_open(count: int) -> str:
    verb = "was" if count == 1 else "were"
    return f"{count} flow{s(count)} {verb} still open when the test ended"


def _more(count: int, what: str) -> list[str]:
    return [f"  and {count} more {what}{s(count)}"] if count > 0 else []


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
        lines += map(title, test.incidents[:MOST_OF_A_TEST])
        lines += _more(len(test.incidents) - MOST_OF_A_TEST, "incident")
    return lines + _more(more + max(0, len(tests) - MOST_TESTS), "test")
