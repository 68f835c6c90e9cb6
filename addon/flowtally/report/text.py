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
"""Where sentences are broken, in columns."""
HOSTS = 15
ENDPOINTS = 10
HOSTS_OF_A_CAUSE = 3

Cells = tuple[str, ...]


def summary(tally: Tally) -> list[str]:
    """What mitmdump prints when it ends: headline, problems, bands."""
    return [*_headline(tally), *_problems(tally), *_bands(tally)]


def report(tally: Tally) -> list[str]:
    """The summary, then the hosts and the failing endpoints."""
    return [*summary(tally), *_hosts(tally), *_endpoints(tally)]


def _headline(tally: Tally) -> list[str]:
    words = [f"{tally.flows} flow{_s(tally.flows)}"]
    if tally.failures:
        words.append(f"{tally.failures} failed ({_share(tally.failures, tally.flows)})")
    if tally.events:
        words.append(f"{tally.events} failure{_s(tally.events)} without a flow")
    for outcome in ("ok", "unfinished"):
        if tally.outcomes[outcome]:
            words.append(f"{tally.outcomes[outcome]} {outcome}")
    if tally.first:
        first, last = (datetime.fromisoformat(t) for t in (tally.first, tally.last))
        words.append(f"over {_span((last - first).total_seconds())}")
    lines = [f"flowtally: {', '.join(words)}"]
    if tally.dropped:
        lines.append(f"Records that could not be written to the log: {tally.dropped}")
    return lines


def _problems(tally: Tally) -> list[str]:
    lines = []
    for code in sorted(tally.errors, reverse=True):
        causes = tally.errors[code]
        name = ERRORS[code].name if code in ERRORS else OTHER
        total = sum(row.count for row in causes.values())
        lines.append(f"  {code:>2} {name:<33} {total:>7}")
        for cause, row in sorted(causes.items(), key=lambda item: (-item[1].count, item[0])):
            line = f"       {_cause(cause, tally):<31} {row.count:>7}  {_where(row)}"
            lines.append(line.rstrip())
            if cause in CAUSES:
                lines += wrap(
                    CAUSES[cause].advice,
                    WIDTH,
                    initial_indent=" " * 9,
                    subsequent_indent=" " * 9,
                    break_on_hyphens=False,
                )
    return ["", "Problems", *lines] if lines else ["", "No problems"]


def _cause(cause: str, tally: Tally) -> str:
    description = tally.descriptions.get(cause)
    return printable(f"{cause} {description}" if description else cause)


def _where(row: CauseRow) -> str:
    hosts = sorted(row.hosts.items(), key=lambda item: (item[0] == OTHER, -item[1], item[0]))
    names = [printable(host) for host, _ in hosts[:HOSTS_OF_A_CAUSE] if host]
    if len(hosts) > HOSTS_OF_A_CAUSE:
        names.append("…")
    return ", ".join(names)


def _bands(tally: Tally) -> list[str]:
    rows = []
    for band, total, codes in tally.bands():
        rows.append(_timed(band, total, tally.flows))
        for code, row in codes.items():
            rows.append(_timed(f"  {code} {tally.descriptions[code]}", row, tally.flows))
    if not rows:
        return []
    head = ("Status", "flows", "share", "received", "p50", "p95", "p99", "max")
    return ["", *_table([head, *rows])]


def _timed(name: str, row: Row, flows: int) -> Cells:
    times: Cells = ("",) * 4
    if row.duration.count:
        data = row.duration.to_data()
        times = (*(_ms(data[p]) for p in ("p50", "p95", "p99")), _ms(data["max"]))
    return (
        printable(name),
        str(row.flows),
        _share(row.flows, flows),
        _bytes(row.response_bytes),
        *times,
    )


def _hosts(tally: Tally) -> list[str]:
    rows = [
        (
            printable(host, 60) or "(none)",
            str(row.flows),
            str(row.failures + row.events),
            str(row.unsuccessful),
            _bytes(row.response_bytes),
            _ms(row.duration.percentiles()["p95"]) if row.duration.count else "",
        )
        for host, row in _largest(tally.hosts, HOSTS)
    ]
    head = ("Host", "flows", "failed", "status 400+", "received", "p95")
    return ["", *_table([head, *rows]), *_more(tally.hosts, HOSTS, "host")] if rows else []


def _endpoints(tally: Tally) -> list[str]:
    failing = {k: row for k, row in tally.endpoints.items() if row.failures or row.unsuccessful}
    rows = [
        (printable(key, 90), str(row.flows), str(row.failures), str(row.unsuccessful))
        for key, row in _largest(failing, ENDPOINTS, by_problems=True)
    ]
    head = ("Failing endpoint", "flows", "failed", "status 400+")
    return ["", *_table([head, *rows]), *_more(failing, ENDPOINTS, "endpoint")] if rows else []


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


def _table(rows: list[Cells]) -> list[str]:
    """Columns, the first one left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for name, *cells in rows:
        numbers = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *numbers]).rstrip())
    return lines


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
