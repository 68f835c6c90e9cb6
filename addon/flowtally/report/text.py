"""A tally as plain text, for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from ..examples import describe
from ..redaction import printable
from ..rows import EVENT
from ..tally import Tally
from . import layout
from .incidents_text import incident_ids
from .layout import WIDTH
from .layout import Cells
from .layout import cell
from .layout import clock
from .layout import indented
from .layout import local_time
from .layout import s
from .layout import span
from .paint import Paint
from .paint import plain
from .tables import FAILED
from .tables import FLOWS
from .tables import STATUS
from .tables import UNSUCCESSFUL_ONES
from .tables import WITHOUT_FLOW
from .tables import Column
from .view import HostCount
from .view import Line
from .view import Lines
from .view import Problem
from .view import View
from .view import apart
from .view import headline
from .view import in_words
from .view import title
from .view import view

NARROWEST = 40
"""A terminal that is narrower gets lines that are too long."""
ROOMY = 96
"""Terminal columns from which on a table shows those of its columns that are wide."""
BESIDE_BARS = 80
"""Terminal columns from which on the timeline has bars, and all its columns."""
MAX_WORD = 24
"""Longest word in a table, in characters."""
SLOTS = 20
"""Lines of the timeline."""
EXAMPLES = 3
"""How many examples of a problem the report shows; the summary shows one."""
MOST_WAITS = 5
"""How many equal waits are shown."""
BAR = 24
"""Columns of the longest bar of the timeline."""
BESIDE = 30
"""Columns that the hosts of a problem need beside it; where there are less, they go below."""
CONSOLE = 80
"""Columns of the box in which mitmproxy's console shows what a command returns."""


def columns(width: int) -> int:
    """The columns to fill of a terminal that has `width`."""
    return layout.columns(width, NARROWEST)


def summary(tally: Tally, width: int = WIDTH, paint: Paint = plain) -> list[str]:
    """What mitmdump prints when it ends: headline, problems, bands. `width`: in columns."""
    width = columns(width)
    shown = view(tally, tables=(STATUS,), terminal=True)
    return [
        *_headline(shown, width, paint),
        *_problems(shown, 1, width, paint),
        *_waits(shown, width, paint),
        *_apart(shown, width, paint),
        *_tables(shown.tables, width, paint),
        *_dropped(shown, width),
    ]


def nothing(reasons: Sequence[str], log: Path, width: int = WIDTH) -> list[str]:
    """What stands there instead where nothing came through. `reasons`: sentences, why that may
    be."""
    width = columns(width)
    said = [line for reason in reasons for line in indented(reason, width, "  ")]
    return ["", "flowtally: nothing came through the proxy", *said, "", _log(log)]


def _log(log: Path) -> str:
    return f"Session log: {printable(str(log), 4096)}"


def ending(
    tally: Tally, log: Path, width: int = WIDTH, paint: Paint = plain, is_there: bool = True
) -> list[str]:
    """What stands at the end of a session: its summary, and where its log is, if `is_there`."""
    where = _log(log)
    if not is_there:
        where = f"No session log: {printable(str(log), 4096)} could not be written, or was removed"
    return ["", *summary(tally, width, paint), "", where]


def report(tally: Tally, width: int = WIDTH, paint: Paint = plain) -> list[str]:
    """All that a terminal shows of a tally."""
    width = columns(width)
    shown = view(tally, terminal=True, slots=SLOTS)
    of_http = [lines for lines in shown.tables if not lines.table.other_protocols]
    of_others = [lines for lines in shown.tables if lines.table.other_protocols]
    return [
        *_headline(shown, width, paint),
        *_problems(shown, EXAMPLES, width, paint),
        *_waits(shown, width, paint),
        *_apart(shown, width, paint),
        *_tables(of_http, width, paint),
        *_timeline(shown, width, paint),
        *_tables(of_others, width, paint),
        *_dropped(shown, width),
    ]


def _headline(shown: View, width: int, paint: Paint) -> list[str]:
    # Broken between the counts only.
    counts = ", ".join(word.replace(" ", "\xa0") for word in headline(shown.totals))
    lines = wrap(f"flowtally: {counts}", width, subsequent_indent=" " * 11)
    lines = [line.replace("\xa0", " ") for line in lines]
    only = f"Only what matches {shown.only}" if shown.only else ""
    for sentence in filter(None, (only, shown.nothing)):
        lines += wrap(sentence, width)
    return [paint(line, "title") for line in lines]


# --- problems ---


def _problems(shown: View, examples: int, width: int, paint: Paint) -> list[str]:
    if not shown.problems:
        return ["", paint("No problems", "title")]
    lines = ["", paint("Problems", "title")]
    counts = [cell(problem.count, "count", problem.at_least) for problem in shown.problems]
    room_of_counts = max(map(len, counts))
    indent = " " * (room_of_counts + 4)
    for problem, count in zip(shown.problems, counts, strict=True):
        start = f"  {count:>{room_of_counts}}  "
        named = wrap(
            printable(title(problem), 80), width, initial_indent=start, subsequent_indent=indent
        )
        style = problem.band or ("failure" if problem.code else "")
        lines += [paint(line, style) for line in named]
        room = width - len(named[-1]) - 2
        hosts = _where(problem, room if room >= BESIDE else width - len(indent))
        if len(hosts) <= room:
            lines[-1] += f"  {hosts}" if hosts else ""
        elif hosts:
            lines.append(indent + hosts)
        if problem.advice:
            lines += indented(problem.advice, width, indent)
        if problem.client_words:
            said = _client_words(problem.client_words, width, indent)
            lines += [paint(line, "dim") for line in said]
        if problem.incidents:
            lines += indented(incident_ids(problem.incidents), width, indent)
        for example in problem.examples[:examples]:
            if line := _example(example, shown.dated, indent, width):
                lines.append(paint(line, "dim"))
    return lines


def _client_words(sentence: str, width: int, indent: str) -> list[str]:
    """In lines that end between what two clients say, not within it, if it fits into a line."""
    lead, _, words = sentence.partition(": ")
    room = width - len(indent) - len(" ·")
    said = " · ".join(
        each.replace(" ", "\xa0") if len(each) <= room else each for each in words.split(" · ")
    ).replace(" · ", "\xa0· ")
    lines = wrap(
        f"{lead}: {said}",
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )
    return [line.replace("\xa0", " ") for line in lines]


def _waits(shown: View, width: int, paint: Paint) -> list[str]:
    """Who leaves again and again after the same wait: a setting of the client's, not of a person's
    patience."""
    sentences = map(in_words, shown.waits[:MOST_WAITS])
    lines = [line for sentence in sentences for line in indented(sentence, width, "  ")]
    return ["", paint("Equal waits", "title"), *lines] if lines else []


def _apart(shown: View, width: int, paint: Paint) -> list[str]:
    """What is no problem, in a line each: nobody has to do anything about it."""

    def where(each: Problem, said: str) -> str:
        hosts = _where(each, max(BESIDE, width - len(said) - 4))
        return f"  {hosts}" if hosts else ""

    lines = [line for said in apart(shown, where) for line in indented(said, width, "  ")]
    return ["", paint("Not among the problems", "title"), *lines] if lines else []


def _where(problem: Problem, room: int) -> str:
    """The hosts with the most of it, as many as there is room for."""
    several = len(problem.hosts) + problem.more_hosts > 1
    shown = [_host(host, room, several) for host in problem.hosts]
    while shown:
        left = len(problem.hosts) + problem.more_hosts - len(shown)
        line = ", ".join([*shown, f"{left} more"] if left else shown)
        if len(line) <= room:
            return line
        shown.pop()
    return ""


def _host(host: HostCount, room: int, several: bool) -> str:
    name = printable(host.host, max(12, min(40, room - 16)))
    return f"{name} ({cell(host.times, 'count', host.at_least)})" if several else name


def _example(example: Mapping[str, Any], dated: bool, indent: str, width: int) -> str:
    what = describe(example)
    time = clock(example.get("time"), dated)
    return printable(f"{indent}{time}  {what}", width) if what else ""


# --- tables ---


def _tables(tables: Sequence[Lines], width: int, paint: Paint) -> list[str]:
    found = []
    for lines in tables:
        if lines.rows and lines.table.terminal_title:
            found += ["", *_table(lines, width, paint)]
    return found


def _table(lines: Lines, width: int, paint: Paint) -> list[str]:
    declared = lines.table
    texts = [column for column in declared.terminal if column.unit == "text"]
    shown = [
        column
        for column in declared.terminal
        if column.unit != "text" and (width >= ROOMY or not column.wide)
    ]
    indent = "  " if any(line.total for line in lines.rows) else ""
    rows: list[Cells] = [(declared.terminal_title, *map(_head, shown))]
    styles = ["title"]
    for line in lines.rows:
        name = "" if line.total else indent
        name += ": ".join([line.name or "(none)", *(filter(None, (_cell(line, c) for c in texts)))])
        rows.append((name, *(printable(_cell(line, column), MAX_WORD) for column in shown)))
        styles.append(line.band if line.total else "")
    printed = [
        paint(row, style) for row, style in zip(layout.table(rows, width), styles, strict=True)
    ]
    if lines.more:
        printed.append(f"  and {lines.more} more {declared.what}{s(lines.more)}")
    return printed


def _head(column: Column) -> str:
    return column.title[:1].lower() + column.title[1:]


def _cell(line: Line, column: Column) -> str:
    return cell(line.values[column.field], column.unit, line.at_least)


def _timeline(shown: View, width: int, paint: Paint) -> list[str]:
    timeline = shown.timeline
    if not timeline.starts:
        return []
    heads = [FLOWS, FAILED, UNSUCCESSFUL_ONES]
    if EVENT in timeline.series:
        heads.append(WITHOUT_FLOW)
    rows: list[Cells] = [(f"Time ({span(timeline.seconds)} each)", *map(_head, heads))]
    days = {local_time(start)[:10] for start in timeline.starts}
    lengths = [(0, 0)]
    for number, start in enumerate(timeline.starts):
        counts = Counter({name: column[number] for name, column in timeline.series.items()})
        events = counts[EVENT]
        unsuccessful = timeline.unsuccessful[number]
        moment = local_time(start)
        cells = (counts.total() - events, counts["error"], unsuccessful, events)[: len(heads)]
        rows.append((moment if len(days) > 1 else moment[11:], *map(str, cells)))
        lengths.append((counts.total(), counts["error"] + unsuccessful + events))
    if width < BESIDE_BARS:
        lines = layout.table([row[:3] for row in rows], width)
        return ["", paint(lines[0], "title"), *lines[1:]]
    lines = layout.table(rows, width)
    bars = _bars(lengths, min(BAR, width - max(map(len, lines)) - 2), paint)
    widest = max(map(len, lines))
    painted = [paint(lines[0], "title"), *lines[1:]]
    return [
        "",
        *(
            f"{out}{' ' * (widest - len(line))}  {bar}".rstrip()
            for out, line, bar in zip(painted, lines, bars, strict=True)
        ),
    ]


def _bars(counts: Sequence[tuple[int, int]], longest: int, paint: Paint) -> list[str]:
    """A bar for each count of all and of problems; `longest`: columns of the longest."""
    most = max(total for total, _ in counts) or 1  # a log may say anything
    bars = []
    for total, problems in counts:
        length, bad = (-(-longest * count // most) for count in (total, problems))
        bars.append("█" * (length - bad) + paint("▒" * bad, "failure"))
    return bars


def _dropped(shown: View, width: int) -> list[str]:
    if not shown.totals.dropped:
        return []
    sentence = f"Records that could not be written to the log: {shown.totals.dropped}"
    return ["", *wrap(sentence, width)]
