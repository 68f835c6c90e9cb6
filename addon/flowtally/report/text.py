"""A tally as plain text, for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from ..examples import describe
from ..redaction import printable
from ..tally import Tally
from .layout import WIDTH
from .layout import Cells
from .layout import indented
from .layout import local_time
from .layout import ms
from .layout import s
from .layout import share
from .layout import size
from .layout import span
from .layout import table
from .layout import time_of_day
from .paint import Paint
from .paint import plain
from .view import Headline
from .view import Line
from .view import Lines
from .view import Problem
from .view import View
from .view import view

NARROWEST = 40
"""A terminal that is narrower gets lines that are too long."""
ROOMY = 96
"""Columns from which on all percentiles are shown."""
PERCENTILES = ("p50", "p95", "p99", "max")
HOSTS = 15
ENDPOINTS = 10
SLOTS = 20
"""Lines of the timeline."""
EXAMPLES = 3
"""How many examples of a problem the report shows; the summary shows one."""
BAR = 24
"""Columns of the longest bar of the timeline."""
BESIDE = 30
"""Columns that the hosts of a problem need beside it; where there are less, they go below."""


def columns(width: int) -> int:
    """The columns to fill of a terminal that has `width`."""
    return max(NARROWEST, min(width, WIDTH))


def summary(tally: Tally, width: int = WIDTH, paint: Paint = plain) -> list[str]:
    """What mitmdump prints when it ends: headline, problems, bands. `width`: in columns."""
    width = columns(width)
    shown = view(tally, 0, 0)
    return [
        *_headline(shown.headline, width, paint),
        *_problems(shown, 1, width, paint),
        *_bands(shown, width, paint),
        *_dropped(shown, width),
    ]


def report(tally: Tally, width: int = WIDTH, paint: Paint = plain) -> list[str]:
    """All that a terminal shows of a tally."""
    width = columns(width)
    shown = view(tally, HOSTS, ENDPOINTS, SLOTS)
    return [
        *_headline(shown.headline, width, paint),
        *_problems(shown, EXAMPLES, width, paint),
        *_bands(shown, width, paint),
        *_hosts(shown.hosts, width, paint),
        *_failing(shown.failing, width, paint),
        *_slowest(shown.slowest, width, paint),
        *_timeline(shown, width, paint),
        *_protocols(shown.protocols, width, paint),
        *_dropped(shown, width),
    ]


def _headline(headline: Headline, width: int, paint: Paint) -> list[str]:
    words = [f"{headline.flows} flow{s(headline.flows)}"]
    if headline.failures:
        words.append(f"{headline.failures} failed ({share(headline.failures, headline.flows)})")
    if headline.unsuccessful:
        words.append(f"{headline.unsuccessful} with status 400 and up")
    if headline.events:
        words.append(f"{headline.events} failure{s(headline.events)} without a flow")
    for name, count in (("ok", headline.ok), ("unfinished", headline.unfinished)):
        if count:
            words.append(f"{count} {name}")
    if headline.first:
        words.append(f"over {span(headline.seconds)}")
    # Broken between the counts only.
    counts = ", ".join(word.replace(" ", "\xa0") for word in words)
    lines = wrap(f"flowtally: {counts}", width, subsequent_indent=" " * 11)
    lines = [line.replace("\xa0", " ") for line in lines]
    if not headline.flows and not headline.events:
        lines += wrap("Nothing came through: is the client pointed at the proxy?", width)
    return [paint(line, "title") for line in lines]


def _problems(shown: View, examples: int, width: int, paint: Paint) -> list[str]:
    if not shown.problems:
        return ["", paint("No problems", "title")]
    lines = ["", paint("Problems", "title")]
    counts = max(len(str(problem.count)) for problem in shown.problems)
    for problem in shown.problems:
        indent = " " * (counts + 4)
        start = f"  {problem.count:>{counts}}  "
        title = wrap(_title(problem), width, initial_indent=start, subsequent_indent=indent)
        style = problem.band or ("failure" if problem.code else "")
        lines += [paint(line, style) for line in title]
        room = width - len(title[-1]) - 2
        hosts = _where(problem, room if room >= BESIDE else width - len(indent))
        if len(hosts) <= room:
            lines[-1] += f"  {hosts}" if hosts else ""
        elif hosts:
            lines.append(indent + hosts)
        if problem.advice:
            lines += indented(problem.advice, width, indent)
        for example in problem.examples[:examples]:
            if line := _example(example, indent, width):
                lines.append(paint(line, "dim"))
    return lines


def _title(problem: Problem) -> str:
    if not problem.code:
        return problem.cause
    name = f"{problem.cause} {problem.description}".rstrip()
    return printable(f"{problem.code} {problem.name}: {name}", 60)


def _where(problem: Problem, room: int) -> str:
    """The hosts with the most of it, as many as there is room for."""
    several = len(problem.hosts) + problem.more_hosts > 1
    shown = [
        printable(host, max(12, min(40, room - 16))) + (f" ({count})" if several else "")
        for host, count in problem.hosts
    ]
    while shown:
        left = len(problem.hosts) + problem.more_hosts - len(shown)
        line = ", ".join([*shown, f"{left} more"] if left else shown)
        if len(line) <= room:
            return line
        shown.pop()
    return ""


def _example(example: Mapping[str, Any], indent: str, width: int) -> str:
    what = describe(example)
    return printable(f"{indent}{time_of_day(example.get('time'))}  {what}", width) if what else ""


def _bands(shown: View, width: int, paint: Paint) -> list[str]:
    percentiles = PERCENTILES if width >= ROOMY else [p for p in PERCENTILES if p != "p99"]
    rows: list[Cells] = [("Status", "flows", "share", "received", *percentiles)]
    styles = ["title"]
    for band in shown.bands:
        rows.append(_timed(band.band, shown.headline.flows, percentiles))
        styles.append(band.band.name)
        for code in band.codes:
            rows.append(_timed(code, shown.headline.flows, percentiles, indent="  "))
            styles.append("")
    return _section(rows, width, paint, styles)


def _timed(line: Line, flows: int, percentiles: Sequence[str], indent: str = "") -> Cells:
    return (
        indent + line.name,
        str(line.flows),
        share(line.flows, flows),
        size(line.response_bytes),
        *_times(line, percentiles),
    )


def _times(line: Line, percentiles: Sequence[str] = PERCENTILES) -> Cells:
    return tuple(ms(line.duration[p]) if line.duration else "" for p in percentiles)


def _hosts(hosts: Lines, width: int, paint: Paint) -> list[str]:
    head = ("Host", "flows", "failed", "400 and up", "without a flow", "received", "p50", "p95")
    rows = [
        (
            line.name or "(none)",
            str(line.flows),
            str(line.failures),
            str(line.unsuccessful),
            str(line.events),
            size(line.response_bytes),
            *_times(line)[:2],
        )
        for line in hosts.rows
    ]
    return [*_section([head, *rows], width, paint), *_more(hosts, "host")]


def _failing(endpoints: Lines, width: int, paint: Paint) -> list[str]:
    head = ("Failing endpoint", "flows", "failed", "400 and up", "p95")
    rows = [
        (
            line.name,
            str(line.flows),
            str(line.failures),
            str(line.unsuccessful),
            _times(line)[1],
        )
        for line in endpoints.rows
    ]
    return [*_section([head, *rows], width, paint), *_more(endpoints, "endpoint")]


def _slowest(requests: Sequence[Mapping[str, Any]], width: int, paint: Paint) -> list[str]:
    head = ("Slowest request", "took", "wait", "status")
    rows = [
        (
            describe(request),
            ms(float(request["duration_ms"])),
            ms(float(request["wait_ms"])) if "wait_ms" in request else "",
            printable(str(request.get("status") or request.get("cause", "")), 24),
        )
        for request in requests
    ]
    return _section([head, *rows], width, paint)


def _timeline(shown: View, width: int, paint: Paint) -> list[str]:
    timeline = shown.timeline
    if not timeline.starts:
        return []
    most = max(map(sum, zip(*timeline.series.values(), strict=True)))
    days = {local_time(start)[:10] for start in timeline.starts}
    rows: list[Cells] = [(f"Time ({span(timeline.seconds)} each)", "flows", "failed", "400 and up")]
    bars = [""]
    for number, start in enumerate(timeline.starts):
        counts = Counter({name: column[number] for name, column in timeline.series.items()})
        flows = counts.total() - counts["event"]
        failed = counts["error"] + counts["event"]
        wrong = counts["Client error"] + counts["Server error"]
        moment = local_time(start)
        rows.append((moment if len(days) > 1 else moment[11:], str(flows), str(failed), str(wrong)))
        length = -(-BAR * counts.total() // most)
        bad = -(-BAR * (failed + wrong) // most)
        bars.append("█" * (length - bad) + paint("▒" * bad, "failure"))
    if width < 80:
        rows, bars = [row[:3] for row in rows], [""] * len(rows)
    lines = table(rows, width)
    widest = max(map(len, lines))
    painted = [paint(lines[0], "title"), *lines[1:]]
    padded = zip(painted, lines, bars, strict=True)
    return [
        "",
        *(f"{out}{' ' * (widest - len(line))}  {bar}".rstrip() for out, line, bar in padded),
    ]


def _protocols(protocols: Sequence[Line], width: int, paint: Paint) -> list[str]:
    head = ("Other protocols", "flows", "failed", "sent", "received", "p50", "p95")
    rows = [
        (
            f"{line.name}: {line.note}" if line.note else line.name,
            str(line.flows),
            str(line.failures),
            size(line.request_bytes),
            size(line.response_bytes),
            *_times(line)[:2],
        )
        for line in protocols
    ]
    return _section([head, *rows], width, paint)


def _dropped(shown: View, width: int) -> list[str]:
    if not shown.dropped:
        return []
    return ["", *wrap(f"Records that could not be written to the log: {shown.dropped}", width)]


def _section(
    rows: Sequence[Cells], width: int, paint: Paint, styles: Sequence[str] = ()
) -> list[str]:
    """A table below its head; nothing if there is no row but the head."""
    if len(rows) < 2:
        return []
    lines = table(rows, width)
    styles = styles or ["title", *[""] * (len(rows) - 1)]
    return ["", *(paint(line, style) for line, style in zip(lines, styles, strict=True))]


def _more(lines: Lines, what: str) -> list[str]:
    return [f"  and {lines.more} more {what}{s(lines.more)}"] if lines.more else []
