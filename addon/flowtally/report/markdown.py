"""A tally as GitHub-flavoured Markdown: for a file, a chat, or what a CI shows of a run.

Whatever the network may have chosen stands in code spans, in which nothing means anything: no link,
no HTML, no mention, no formatting (GitHub Flavored Markdown 0.29, §6.3).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..budgets import Result
from ..examples import describe
from ..redaction import printable
from ..tally import Tally
from .budgets_text import actual
from .budgets_text import limit
from .incidents_text import incident_ids
from .layout import cell
from .layout import clock
from .layout import s
from .tables import Column
from .view import Line
from .view import Lines
from .view import Problem
from .view import View
from .view import apart
from .view import headline
from .view import in_words
from .view import title
from .view import view

MARK = "<!-- Written by flowtally -->"
"""The first line of a file."""
MAX_PROBLEMS = 50
"""How many problems are shown."""
MAX_ROWS = 50
"""How many rows of a table are shown."""
MAX_WAITS = 5
MAX_CODE = 200
"""Characters of a text that the network chose."""
EXAMPLES = 3
"""How many examples of a problem are shown."""


def is_ours(head: bytes) -> bool:
    """Whether a file that begins like this was written by `report`."""
    return head.startswith(MARK.encode())


def report(tally: Tally, sessions: Sequence[str] = ()) -> list[str]:
    """The whole report. `sessions`: a sentence on each of them."""
    shown = view(tally, terminal=True)
    lines = [MARK, *heading(shown), "", *_problems_heading(shown)]
    for problem in shown.problems[:MAX_PROBLEMS]:
        lines += _problem(problem, EXAMPLES, shown.dated)
    lines += and_more(len(shown.problems) - MAX_PROBLEMS, "kind")
    waits = [f"- {code(in_words(wait))}" for wait in shown.waits[:MAX_WAITS]]
    lines += ["", "## Equal waits", "", *waits] if waits else []
    others = [f"- {code(sentence)}" for sentence in apart(shown, _at)]
    lines += ["", "## Not among the problems", "", *others] if others else []
    for table in shown.tables:
        if table.rows:
            lines += ["", f"## {table.table.title}", "", *_table(table)]
    if shown.totals.dropped:
        lines += ["", f"Records that could not be written to the log: {shown.totals.dropped}"]
    return [*lines, *(line for sentence in sessions for line in ("", code(sentence)))]


# --- text ---


def code(text: str) -> str:
    """Any text as a code span, in one line: it stands for nothing but itself."""
    text = printable(text, MAX_CODE).strip()
    if not text:
        return "(none)"
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    # A backtick at an end would belong to the fence; one space on both sides is not shown.
    space = " " if text[0] == "`" or text[-1] == "`" else ""
    return f"{fence}{space}{text}{space}{fence}"


def in_table(text: str) -> str:
    """What may stand in a table. There a bar ends the cell even within code, and behind two
    backslashes even if it has one (§4.10); so it gets a gap."""
    return text.replace("|", "¦")


def plain(sentence: str) -> str:
    """A sentence of flowtally's own. An underscore within a word is only itself (§6.2)."""
    return re.sub(r"[\\`*\[\]<>~|#&]|(?<!\w)_|_(?!\w)", r"\\\g<0>", sentence)


# --- parts ---


def heading(shown: View) -> list[str]:
    """What a report begins with."""
    lines = [f"# flowtally: {', '.join(headline(shown.totals))}"]
    if shown.only:
        lines += ["", f"Only what matches {code(shown.only)}"]
    if shown.nothing:
        lines += ["", plain(shown.nothing)]
    return lines


def _problems_heading(shown: View) -> list[str]:
    return ["## Problems", ""] if shown.problems else ["No problems"]


def _problem(problem: Problem, examples: int, dated: bool) -> list[str]:
    where = _where(problem)
    count = cell(problem.count, "count", problem.at_least)
    lines = [f"- **{count} ×** {code(title(problem))}" + (f" at {code(where)}" if where else "")]
    lines += [f"  - {plain(said)}" for said in (problem.advice, problem.client_words) if said]
    if problem.incidents:
        lines.append(f"  - {plain(incident_ids(problem.incidents))}")
    for example in problem.examples[:examples]:
        if what := describe(example):
            lines.append(f"  - {code(clock(example.get('time'), dated) + ' ' + what)}")
    return lines


def _at(problem: Problem, _said: str) -> str:
    where = _where(problem)
    return f" at {where}" if where else ""


def _where(problem: Problem) -> str:
    several = len(problem.hosts) + problem.more_hosts > 1
    hosts = [
        f"{printable(of.host, 60)} ({cell(of.times, 'count', of.at_least)})" if several else of.host
        for of in problem.hosts
    ]
    if problem.more_hosts:
        hosts.append(f"{problem.more_hosts} more")
    return ", ".join(hosts)


def budget(result: Result) -> str:
    """A budget and what it was held against."""
    name = f"{result.budget.name}: {limit(result.budget)}"
    return f"- {code(name)}, {plain(actual(result))}"


def _table(lines: Lines) -> list[str]:
    columns = lines.table.terminal or lines.table.columns
    rows = [
        f"| {lines.table.head} | {' | '.join(column.title for column in columns)} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    for line in lines.rows[:MAX_ROWS]:
        cells = (_cell(line, column) for column in columns)
        name = in_table(code(line.name))
        rows.append(f"| {f'**{name}**' if line.total else name} | {' | '.join(cells)} |")
    more = lines.more + max(0, len(lines.rows) - MAX_ROWS)
    return [*rows, *(["", f"and {more} more {lines.table.what}{s(more)}"] if more else [])]


def _cell(line: Line, column: Column) -> str:
    value = cell(line.values[column.field], column.unit, line.at_least)
    if not value or column.unit not in ("word", "text"):
        return value
    return in_table(code(value))


def and_more(count: int, what: str) -> list[str]:
    """A line on what is not shown; none where that is nothing."""
    return [f"- and {count} more {what}{s(count)}"] if count > 0 else []
