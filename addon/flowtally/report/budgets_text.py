"""Budgets as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from ..budgets import INCIDENTS
from ..budgets import Budget
from ..budgets import Result
from ..budgets import names
from ..budgets import number
from ..redaction import printable
from . import incidents_text
from .layout import WIDTH
from .layout import columns
from .layout import indented

_BOUNDS = {"max": "at most", "min": "at least"}


def text(results: Sequence[Result], width: int = WIDTH) -> list[str]:
    """A line for each budget, and below one that does not hold what there is to know."""
    width = columns(width)
    rows = [
        (
            result.verdict,
            printable(result.budget.name),
            limit(result.budget),
            actual(result),
        )
        for result in results
    ]
    sizes = [max(len(row[i]) for row in rows) for i in range(4)] if rows else []
    lines = []
    said: set[str] = set()
    for row, result in zip(rows, results, strict=True):
        cells = [cell.ljust(size) for cell, size in zip(row, sizes, strict=True)]
        lines.append("  ".join(cells).rstrip())
        if result.note and result.actual is not None:
            lines += indented(result.note, width, "  ")
        lines += [printable(f"  {request}", width) for request in result.slowest]
        lines += incidents_text.lines(result.incidents, INCIDENTS, width, said)
    return lines


def limit(budget: Budget) -> str:
    """What a budget allows: `at most 3`."""
    return f"{_BOUNDS[budget.bound]} {number(budget.limit)}"


def actual(result: Result) -> str:
    """What a tally has of a budget: `is 3`, or why there is nothing."""
    return f"is {number(result.actual)}" if result.actual is not None else result.note


def known(width: int = WIDTH) -> list[str]:
    """What can have a budget, a line or more for each group of names."""
    lines = []
    for group, members in names().items():
        lines += wrap(
            f"{group}: {members}",
            columns(width),
            initial_indent="  ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        )
    return lines
