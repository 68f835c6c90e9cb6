"""A tally as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from textwrap import wrap

from ..redaction import printable
from ..tally import OTHER
from ..tally import CauseRow
from ..tally import Row
from ..tally import Tally
from ..vocabulary import CAUSES
from ..vocabulary import ERRORS

WIDTH = 100
"""Columns that a report fills at most; a narrower terminal gets less."""
NARROWEST = 80
HOSTS = 15
ENDPOINTS = 10
HOSTS_OF_A_CAUSE = 3

Cells = tuple[str, ...]


def summary(tally: Tally, width: int = WIDTH) -> list[str]:
    """What mitmdump prints when it ends: headline, problems, bands. `width`: in columns."""
    width = max(NARROWEST, min(width, WIDTH))
    return [*_headline(tally, width), *_problems(tally, width), *_bands(tally, width)]


def report(tally: Tally, width: int = WIDTH) -> list[str]:
    """The summary, then the hosts and the failing endpoints."""
    cells = max(NARROWEST, min(width, WIDTH))
    return [*summary(tally, width), *_hosts(tally, cells), *_endpoints(tally, cells)]


def _headline(tally: Tally, width: int) -> list[str]:
    words = [f"{tally.flows} flow{_s(tally.flows)}"]
    if tally.failures:
        words.append(f"{tally.failures} failed ({_share(tally.failures, tally.flows)})")
    if unsuccessful := sum(row.count for row in tally.errors.get(-3, {}).values()):
        words.append(f"{unsuccessful} with status 400 and up")
    if tally.events:
        words.append(f"{tally.events} failure{_s(tally.events)} without a flow")
    for outcome in ("ok", "unfinished"):
        if tally.outcomes[outcome]:
            words.append(f"{tally.outcomes[outcome]} {outcome}")
    if tally.first:
        first, last = (datetime.fromisoformat(t) for t in (tally.first, tally.last))
        words.append(f"over {_span((last - first).total_seconds())}")
    # Broken between the counts only.
    counts = ", ".join(word.replace(" ", "\xa0") for word in words)
    lines = wrap(f"flowtally: {counts}", width, subsequent_indent=" " * 11)
    lines = [line.replace("\xa0", " ") for line in lines]
    if not tally.flows and not tally.events:
        lines.append("Nothing came through: is the client pointed at the proxy?")
    if tally.dropped:
        lines.append(f"Records that could not be written to the log: {tally.dropped}")
    return lines


def _problems(tally: Tally, width: int) -> list[str]:
    lines = []
    for code in sorted(tally.errors, reverse=True):
        causes = tally.errors[code]
        name = ERRORS[code].name if code in ERRORS else OTHER
        total = sum(row.count for row in causes.values())
        lines.append(f"  {code} {name:<34} {total:>6}")
        for cause, row in sorted(causes.items(), key=lambda item: (-item[1].count, item[0])):
            start = f"     {_cause(cause, tally):<34} {row.count:>6}  "
            where = _where(row, width - len(start))
            lines.append(printable(start + where, width).rstrip())
            if cause in CAUSES:
                lines += _indented(CAUSES[cause].advice, width)
            lines += _latest(row, width)
    if lines:
        return ["", "Problems", *lines]
    if tally.outcomes["unfinished"]:
        return ["", "No failures; what is unfinished is in the log"]
    return ["", "No problems"]


def _cause(cause: str, tally: Tally) -> str:
    description = tally.descriptions.get(cause)
    return printable(f"{cause} {description}" if description else cause, 34)


def _where(row: CauseRow, width: int) -> str:
    """The hosts with the most of them, as many as there is room for."""
    hosts = sorted(row.hosts.items(), key=lambda item: (item[0] == OTHER, -item[1], item[0]))
    shown = [
        printable(host, max(12, min(40, width - 16))) + (f" ({count})" if len(hosts) > 1 else "")
        for host, count in hosts[:HOSTS_OF_A_CAUSE]
        if host and host != OTHER
    ]
    while shown:
        left = len(hosts) - len(shown)
        line = ", ".join([*shown, f"{left} more"] if left else shown)
        if len(line) <= width or len(shown) == 1:
            return line
        shown.pop()
    return ""


def _latest(row: CauseRow, width: int) -> list[str]:
    if not row.examples:
        return []
    example = row.examples[-1]
    what = " ".join(str(example[name]) for name in ("method", "url") if name in example)
    detail = example.get("detail", "")
    if not (what or detail):
        return []
    line = f"{what} ({detail})" if what and detail else what or str(detail)
    return [printable(f"       last: {line}", width)]


def _indented(sentence: str, width: int) -> list[str]:
    indent = " " * 7
    return wrap(
        sentence,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def _bands(tally: Tally, width: int) -> list[str]:
    rows = []
    for band, total, codes in tally.bands():
        rows.append(_timed(band, total, tally.flows))
        for code, row in codes.items():
            rows.append(_timed(f"  {code} {tally.descriptions[code]}", row, tally.flows))
    if not rows:
        return []
    head = ("Status", "flows", "share", "received", "p50", "p95", "p99", "max")
    return ["", *_table([head, *rows], width)]


def _timed(name: str, row: Row, flows: int) -> Cells:
    times: Cells = ("",) * 4
    if row.duration.count:
        data = row.duration.to_data()
        times = (*(_ms(data[p]) for p in ("p50", "p95", "p99")), _ms(data["max"]))
    return (name, str(row.flows), _share(row.flows, flows), _bytes(row.response_bytes), *times)


def _hosts(tally: Tally, width: int) -> list[str]:
    rows = [
        (
            host or "(none)",
            str(row.flows),
            str(row.failures),
            str(row.unsuccessful),
            str(row.events),
            _bytes(row.response_bytes),
            _ms(row.duration.percentiles()["p95"]) if row.duration.count else "",
        )
        for host, row in _largest(tally.hosts, HOSTS)
    ]
    head = ("Host", "flows", "failed", "400 and up", "without a flow", "received", "p95")
    return ["", *_table([head, *rows], width), *_more(tally.hosts, HOSTS, "host")] if rows else []


def _endpoints(tally: Tally, width: int) -> list[str]:
    failing = {k: row for k, row in tally.endpoints.items() if row.failures or row.unsuccessful}
    rows = [
        (key, str(row.flows), str(row.failures), str(row.unsuccessful))
        for key, row in _largest(failing, ENDPOINTS, by_problems=True)
    ]
    head = ("Failing endpoint", "flows", "failed", "400 and up")
    if not rows:
        return []
    return ["", *_table([head, *rows], width), *_more(failing, ENDPOINTS, "endpoint")]


def _largest(
    rows: dict[str, Row], count: int, by_problems: bool = False
) -> Iterable[tuple[str, Row]]:
    def order(item: tuple[str, Row]) -> tuple[bool, int, str]:
        key, row = item
        size = row.failures + row.unsuccessful if by_problems else row.flows + row.events
        return key == OTHER, -size, key

    return sorted(rows.items(), key=order)[:count]


def _more(rows: dict[str, Row], shown: int, what: str) -> list[str]:
    left = len(rows) - shown
    return [f"  and {left} more {what}{_s(left)}"] if left > 0 else []


def _table(rows: list[Cells], width: int) -> list[str]:
    """Columns, the first one left-aligned and shortened to fit, the others right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    room = max(20, width - sum(widths[1:]) - 2 * len(widths[1:]))
    names = [_shortened(row[0], room) for row in rows]
    widths[0] = max(map(len, names))
    lines = []
    for name, (_, *cells) in zip(names, rows, strict=True):
        numbers = [cell.rjust(size) for cell, size in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *numbers]).rstrip())
    return lines


def _shortened(name: str, room: int) -> str:
    """A name in at most `room` columns; the middle says least of a URL or a host."""
    name = printable(name, 1000)
    if len(name) <= room:
        return name
    end = room // 2
    return f"{name[: room - end - 1]}…{name[-end:]}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _ms(value: float) -> str:
    return f"{value / 1000:.1f} s" if value >= 10_000 else f"{value:.0f} ms"


def _span(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minute} min"
    return f"{minute} min {second} s" if minute else f"{seconds:.1f} s"
