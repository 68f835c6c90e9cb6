"""Budgets as JUnit XML, which build servers show as tests."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Sequence
from xml.etree import ElementTree

from ..budgets import INCIDENTS
from ..budgets import Result
from ..redaction import MAX_URL
from ..redaction import printable
from . import incidents_text
from .budgets_text import actual
from .budgets_text import limit

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 document can hold, not even as a reference (XML 1.0 §2.2)."""
_MARK = b'<testsuite name="flowtally"'


def is_ours(head: bytes) -> bool:
    """Whether a file that begins like this was written by `junit`."""
    return _MARK in head


def junit(results: Sequence[Result], logs: Iterable[str], sessions: Iterable[str]) -> bytes:
    """A test suite with one test a budget. `logs`: the names of the logs; `sessions`: the ids of
    their sessions."""
    failed = [result for result in results if not result.holds]
    counts = {
        "tests": str(len(results)),
        "failures": str(len(failed)),
        "errors": "0",
        "skipped": "0",
    }
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "flowtally", **counts, "time": "0"})
    properties = ElementTree.SubElement(suite, "properties")
    for name, values in (("log", logs), ("session", sessions)):
        for value in values:
            attributes = {"name": name, "value": _clean(value)}
            ElementTree.SubElement(properties, "property", attributes)
    for result in results:
        _case(suite, result)
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _case(suite: ElementTree.Element, result: Result) -> None:
    budget = result.budget
    case = ElementTree.SubElement(
        suite,
        "testcase",
        {
            "classname": "flowtally.check",
            "name": _clean(f"{budget.name} {limit(budget)}"),
            "time": "0",
        },
    )
    if not result.holds:
        message = f"{budget.name} {actual(result)}; the budget is {limit(budget)}"
        failure = ElementTree.SubElement(
            case, "failure", {"message": _clean(message), "type": result.verdict}
        )
        notes = [result.note] if result.note else []
        behind = incidents_text.lines(result.incidents, INCIDENTS)
        failure.text = "\n".join(map(_clean, [*notes, *result.slowest, *behind]))


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("", printable(text, MAX_URL))
