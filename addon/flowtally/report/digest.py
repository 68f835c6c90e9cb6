"""The digest: the incidents of a session in Markdown, short whatever the session.

For a person in a hurry, for what a CI shows of a run, and for a program that reads: at most
MAX_LINES lines, and about MAX_TOKENS of what a language model is given.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from collections.abc import Sequence

from ..budgets import Result
from ..examples import describe
from ..incidents import Counted
from ..incidents import Incident
from ..incidents import incidents
from ..tally import Tally
from .layout import cell
from .layout import clock
from .layout import percent
from .layout import period
from .markdown import MAX_CODE
from .markdown import and_more
from .markdown import budget
from .markdown import code
from .markdown import heading
from .markdown import plain
from .view import apart
from .view import in_words
from .view import view

MAX_LINES = 60
MAX_TOKENS = 800
MAX_BUDGETS = 10
"""How many broken budgets are named."""
MAX_WAITS = 2
"""How many clients that leave after equal waits are named."""
MAX_OTHERS = 6
"""How many sentences on what is no problem there are."""


def digest(tally: Tally, broken: Sequence[Result] = (), logs: Sequence[str] = ()) -> list[str]:
    """What went wrong. `broken`: the budgets that do not hold; `logs`: the names of the logs, none
    where it is the newest one."""
    shown = view(tally, tables=(), terminal=True)
    lines = heading(shown)
    if broken:
        lines += ["", "## Broken budgets", "", *map(budget, broken[:MAX_BUDGETS])]
        lines += and_more(len(broken) - MAX_BUDGETS, "budget")
    found = incidents(tally)
    # A reason in them may be what a log says.
    others = [code(sentence) for sentence in apart(shown, lambda *_: "")]
    waits = [f"Equal waits: {code(in_words(wait))}" for wait in shown.waits[:MAX_WAITS]]
    tail = _tail(found, others, waits, logs)
    lines += ["", "## Look at this first", ""] if found else ["", "No problems"]
    said: set[str] = set()
    brief = False
    # Of more there is no room, whatever they are.
    first = list(enumerate(found[:MAX_LINES], 1))
    titles = [_incident(number, incident, (), shown.dated)[0] for number, incident in first]
    end = [*_left_out(100, logs), *tail]
    for number, incident in first:
        block = _incident(number, incident, said, shown.dated)
        # What follows is named, too, before more is said of this one; but something of the first.
        rest = titles[number:] if number > 1 else []
        brief = brief or not _fits([*lines, *block, *rest, *end])
        block = block[:1] if brief else block
        if not _fits([*lines, *block, *end]):
            lines += _left_out(len(found) - number + 1, logs)
            break
        lines += block
        said |= {incident.advice, incident.client_words}
    return [*lines, *tail]


def _tail(
    found: Sequence[Incident], others: Sequence[str], waits: Sequence[str], logs: Sequence[str]
) -> list[str]:
    shown = others[:MAX_OTHERS]
    more = ["…"] if len(others) > MAX_OTHERS else []
    lines = ["", f"Not among the problems: {'; '.join([*shown, *more])}"] if others else []
    lines += [line for wait in waits for line in ("", wait)]
    if first := next((incident.id for incident in found if incident.id), ""):
        command = _command("flows", logs, "--incident", first)
        lines += ["", f"The requests of an incident: {command}"]
    return lines


def _left_out(count: int, logs: Sequence[str]) -> list[str]:
    """A line on the incidents for which there is no room, and on what lists them all."""
    return [f"{line}: {_command('report', logs, '--json')}" for line in and_more(count, "incident")]


def _command(name: str, logs: Sequence[str], *options: str) -> str:
    """A command on these logs; without them where it would get too long."""
    command = shlex.join(["flowtally", name, *logs, *options])
    return code(command if len(command) <= MAX_CODE else shlex.join(["flowtally", name, *options]))


def tokens(lines: Sequence[str]) -> int:
    """About how many tokens a language model takes lines for: four letters of a word, or a sign."""
    words = re.findall(r"\w{1,4}|[^\w\s]", "\n".join(lines))
    return len(words) + len(lines)


def _fits(lines: Sequence[str]) -> bool:
    return len(lines) <= MAX_LINES and tokens(lines) <= MAX_TOKENS


def _incident(number: int, incident: Incident, said: Collection[str], dated: bool) -> list[str]:
    """The first line says what, where, how often and when; those below it what to do. `said`: what
    need not be said again; `dated`: times have their date."""
    count = cell(incident.count, "count", incident.at_least)
    where = f" at {code(incident.host)}" if incident.host else ""
    share = f" of {incident.of} ({percent(incident.share)})" if incident.of else ""
    lines = [
        f"{number}. {code(_title(incident))}{where}: {count}{share}, {_when(incident, dated)}"
        + (f" [{incident.id}]" if incident.id else "")
    ]
    if incident.endpoints:
        lines.append(f"   - {_endpoints(incident.endpoints, incident.more_endpoints)}")
    for sentence in (incident.advice, incident.client_words):
        if sentence and sentence not in said:
            lines.append(f"   - {plain(sentence)}")
    for example in incident.examples[:1]:
        if what := describe(example):
            lines.append(f"   - {clock(example.get('time'), dated)} {code(what)}")
    return lines


def _title(incident: Incident) -> str:
    side = f", {incident.side}" if incident.side else ""
    return f"{incident.name} {incident.code or ''}".rstrip() + side


def _when(incident: Incident, dated: bool) -> str:
    when = period(incident.first, incident.last, dated)
    return f"{when}, new" if incident.new else when


def _endpoints(endpoints: Sequence[Counted], more: bool) -> str:
    first, *others = endpoints
    and_more = f" and {len(others)}{' or more' if more else ''} more" if others or more else ""
    return f"{code(first.name)} ({first.times}){and_more}"
