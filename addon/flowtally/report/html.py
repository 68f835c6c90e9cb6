"""A report as one HTML page that needs nothing else: no network, no other file.

The template, the style and the script are in `page/`; charts are drawn by uPlot, inlined. A
Content-Security-Policy with the hashes of style and script keeps everything else from running.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Container
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from functools import cache
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any
from typing import BinaryIO

import jinja2
from markupsafe import Markup

from .. import __version__
from ..filter_language import Filter
from ..latest import Latest
from ..redaction import printable
from ..rows import EVENT
from ..rows import OTHER
from ..tally import Tally
from ..tally import place
from ..totals import InFlight
from ..totals import Totals
from .figures_data import declared
from .flows_data import MOST as MOST_FLOWS
from .flows_data import Flows
from .flows_data import flows
from .incidents_html import HEIGHT
from .incidents_html import MOST
from .incidents_html import WIDTH
from .incidents_html import shown_incidents
from .layout import at_least
from .layout import cell
from .layout import clock
from .layout import lasted
from .layout import local_time
from .layout import ms
from .layout import percent
from .layout import period
from .layout import s
from .layout import size
from .layout import span
from .tables import CANCELLED
from .tables import FAILED
from .tables import UNSUCCESSFUL_ONES
from .tables import Column
from .view import Line
from .view import Lines
from .view import OverTime
from .view import Problem
from .view import View
from .view import apart
from .view import in_words
from .view import view

_FOLDER = Path(__file__).with_name("page")
_GENERATOR = b'<meta name="generator" content="flowtally '

MOST_WAITS = 20
"""How many equal waits are shown."""
OPTIONAL = ("in_flight", "cancelled", "ok", "unfinished")
"""The totals that are shown only where there are any."""
COLOURS: Mapping[str, str] = {
    "Success": "success",
    "Redirection": "redirection",
    "Informational": "informational",
    "ok": "ok",
    "cancelled": "cancelled",
    "unfinished": "unfinished",
    "Client error": "client",
    "Server error": "server",
    "error": "failure",
    EVENT: "event",
}
"""Name of SERIES → the CSS class that gives it its colour, the lowest of a chart first."""
_NAMES = {"error": FAILED.title, "cancelled": CANCELLED.title, EVENT: "Failures without a flow"}
"""Name of SERIES → what people read, where that differs."""


@dataclass(frozen=True, slots=True)
class About:
    """What a report says of itself."""

    sessions: Sequence[str] = ()
    """A sentence on each session."""
    notes: Sequence[str] = ()
    """What could not be read, and so on."""
    unclean: int = 0
    """How many sessions did not end cleanly, or still run; the live page's does not count."""
    flows: Flows | None = None
    """The single flows; None: the page has no list of them, or asks the proxy for it."""
    mitmweb: str = ""
    """The URL of the mitmweb that has the flows; empty: none has."""
    session: str = ""
    """The id of the session that the live page is of; empty: it is a file."""


def is_ours(head: bytes) -> bool:
    """Whether a file that begins so is a report of flowtally's."""
    return head.startswith(b"<!doctype html>") and _GENERATOR in head


def flows_of(
    logs: Sequence[tuple[str, Path | BinaryIO]],
    wanted: Filter | None = None,
    of: Container[str] | None = None,
) -> Flows | None:
    """The single flows of logs for a page; None where there are none. `wanted`: which of them;
    `of`: of which sessions; None: all.

    Raises: OSError, with the name of the log as its `filename`.
    """
    with Latest(logs, MOST_FLOWS, wanted, of) as latest:
        return flows(latest) if latest.count else None


def flows_of_sessions(sessions: Mapping[str, str | Path]) -> Flows | None:
    """The single flows of sessions, each with its log; None where they cannot be read any more."""
    logs = dict.fromkeys(Path(log) for log in sessions.values())
    try:
        return flows_of([(str(log), log) for log in logs], of=sessions)
    except OSError:
        return None  # the statistics are there all the same


def page(tally: Tally, about: About) -> str:
    """A report on a tally."""
    return render(view(tally), about)


def render(shown: View, about: About, live: bool = False) -> str:
    """A report. `live`: one that refreshes itself."""
    series = _stacked(shown.timeline)
    # Where there is only background traffic, the page can list that.
    first = shown.totals.first or datetime.now(UTC).isoformat()
    moment = datetime.fromisoformat(first).astimezone() if _is_local(first) else None
    offset = moment.utcoffset() if moment else None
    data: dict[str, Any] = {
        "traffic": {
            "starts": shown.timeline.starts,
            "seconds": shown.timeline.seconds,
            "offset": int(offset.total_seconds()) if offset else 0,
            "series": [
                {"name": _NAMES.get(name, name), "colour": COLOURS[name], "values": values}
                for name, values in series.items()
            ],
        },
        "durations": {
            "bars": [[round(b.start, 3), round(b.end, 3), b.count] for b in shown.durations]
        },
    }
    data |= {
        "offset": data["traffic"]["offset"],
        "session": about.session,
        "dated": shown.dated,
        "background": shown.totals.background,
        "names": {name: [_NAMES.get(name, name), colour] for name, colour in COLOURS.items()},
    }
    segments = _segments(shown)
    return fill(
        "page.html.j2",
        live,
        live=live,
        title=f"flowtally: {_title(shown.totals)}",
        when=_when(shown, about),
        view=shown,
        flows=about.flows,
        mitmweb=about.mitmweb,
        flows_data=Markup(_json(_held(about.flows) if about.flows else {})),
        declared=Markup(_json(declared() | {"most": MOST_FLOWS, "optional": OPTIONAL})),
        bars=(WIDTH, HEIGHT),
        incidents=shown_incidents(shown),
        incidents_note=_incidents_note(len(shown.incidents)),
        apart=apart(shown, _at_hosts),
        apart_in_short=_apart_in_short(shown),
        waits=[in_words(wait) for wait in shown.waits[:MOST_WAITS]],
        totals=_totals(shown.totals, shown.in_flight),
        segments=segments,
        segments_label=", ".join(f"{each['name']} {percent(each['share'])}" for each in segments),
        tables=[lines for lines in shown.tables if lines.rows],
        series=[_NAMES.get(name, name) for name in series],
        timeline=[
            {"start": start, "text": local_time(start), "counts": counts}
            for start, *counts in zip(shown.timeline.starts, *series.values(), strict=True)
        ],
        notes=[*about.sessions, *_notes(shown), *about.notes, f"flowtally {__version__}"],
        data=Markup(_json(data)),
    )


# --- what the template is given ---


def _held(flows: Flows) -> dict[str, str]:
    return {"data": flows.data, "part": flows.part}


def _title(totals: Totals) -> str:
    counts = (totals.flows, "flow"), (totals.problems, "problem")
    return ", ".join(f"{count} {what}{s(count)}" for count, what in counts)


def _when(shown: View, about: About) -> str:
    words = [_span(shown.totals), f"Only what matches {shown.only}" if shown.only else ""]
    if about.unclean:
        every = len(about.sessions) == about.unclean
        which = "" if every else f"{about.unclean} of {len(about.sessions)} sessions "
        words.append(f"{which}did not end cleanly, or still running")
    return "; ".join(filter(None, words))


def _span(totals: Totals) -> str:
    if not _is_local(totals.first) or not _is_local(totals.last):
        return ""
    zone = datetime.fromisoformat(totals.first).astimezone().tzname()
    when = f"{period(totals.first, totals.last, dated=True)} ({zone})"
    return ", ".join(filter(None, (when, lasted(totals.first, totals.last))))


def _oldest(in_flight: InFlight) -> str:
    said = f"oldest {in_flight.oldest:.0f} s"
    return ", ".join(filter(None, (said, in_flight.host, in_flight.phase)))


def _totals(headline: Totals, in_flight: InFlight) -> list[dict[str, Any]]:
    def total(key: str, name: str, value: int, colour: str = "", note: str = "") -> dict[str, Any]:
        text = size(value) if key.endswith("bytes") else _thousands(value)
        colour = colour if value else ""
        return {
            "key": key,
            "name": name,
            "value": value,
            "text": text,
            "colour": colour,
            "note": note,
        }

    def share(count: int) -> str:
        return percent(count / headline.flows) if headline.flows and count else ""

    failed, wrong = headline.failures, headline.unsuccessful
    totals = [
        total("flows", "Flows", headline.flows),
        total("in_flight", "In flight", in_flight.flows, note=_oldest(in_flight)),
        total("failures", _NAMES["error"], failed, "failure", share(failed)),
        total("unsuccessful", UNSUCCESSFUL_ONES.title, wrong, "client", share(wrong)),
        total("events", _NAMES[EVENT], headline.events, "event"),
        total("cancelled", _NAMES["cancelled"], headline.cancelled),
        total("ok", "ok", headline.ok),
        total("unfinished", "Unfinished", headline.unfinished),
        total("request_bytes", "Sent", headline.request_bytes),
        total("response_bytes", "Received", headline.response_bytes),
    ]
    return [t for t in totals if t["value"] or t["key"] not in OPTIONAL]


def _incidents_note(count: int) -> str:
    said = f"{count} incident{s(count)}, most important first"
    return f"{said}; the first {MOST}, all are in the JSON and CSV" if count > MOST else said


def _apart_in_short(shown: View) -> str:
    totals = shown.totals
    counts = (
        (totals.cancelled, "cancelled"),
        (totals.unfinished, "unfinished"),
        (totals.challenges, f"login{s(totals.challenges)}"),
        (totals.collateral, "collateral"),
        (totals.background, "background"),
    )
    return ", ".join(f"{_thousands(count)} {what}" for count, what in counts if count)


def _at_hosts(problem: Problem, _said: str) -> str:
    names = [host.host for host in problem.hosts]
    if problem.more_hosts:
        names.append(f"{problem.more_hosts} more")
    return f": {', '.join(names)}" if names else ""


def _segments(shown: View) -> list[dict[str, Any]]:
    """What became of the flows, as segments of a bar of 1000."""
    headline = shown.totals
    counts: dict[str, Any] = {
        "cancelled": headline.cancelled,
        "ok": headline.ok,
        "unfinished": headline.unfinished,
        "error": headline.failures,
    }
    counts |= {line.name: line.values["flows"] for line in shown.lines("bands").rows if line.total}
    start = 0.0
    segments = []
    for name, colour in COLOURS.items():
        count = counts.get(name, 0)
        if count:
            share = count / max(1, headline.flows)
            segments.append(
                {
                    "name": _NAMES.get(name, name),
                    "colour": colour,
                    "count": count,
                    "share": share,
                    "start": round(start, 2),
                    "width": round(1000 * share, 2),
                }
            )
            start += 1000 * share
    return segments


def _stacked(timeline: OverTime) -> dict[str, Sequence[int]]:
    """The series from the lowest to the topmost."""
    return {name: timeline.series[name] for name in COLOURS if name in timeline.series}


def _notes(shown: View) -> list[str]:
    if not shown.totals.dropped:
        return []
    return [f"Records that could not be written to the log: {shown.totals.dropped}"]


# --- style, script, policy ---


def fill(template: str, live_policy: bool = False, **values: Any) -> str:
    """A page from a template, which is given `values` and what every page has."""
    return (
        _environment()
        .get_template(template)
        .render(
            version=__version__,
            policy=policy(live_policy),
            style=Markup(_style()),
            script=Markup(_script()),
            uplot=Markup(_uplot()),
            **values,
        )
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "visible": _visible,
        "thousands": _thousands,
        "at_least": at_least,
        "percent": percent,
        "ms": ms,
        "exact_ms": _exact_ms,
        "span": span,
        "clock": clock,
        "examples": _examples,
        "groups": _groups,
        "note": _note,
    }
    environment.globals |= {"cell": _cell, "colours": COLOURS, "period": period, "other": OTHER}
    return environment


@cache
def _style() -> str:
    return _read("uplot/uPlot.min.css") + _read("page.css")


@cache
def _script() -> str:
    scripts = "filter.js", "around.js", "flows.js", "figures.js", "page.js"
    return "".join(map(_read, scripts))


@cache
def _uplot() -> str:
    return _read("uplot/uPlot.iife.min.js")


def _read(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8")


@cache
def policy(live: bool = False) -> str:
    """The Content-Security-Policy of a page."""
    scripts = " ".join(_hash(script) for script in (_uplot(), _script()))
    rules = [
        "default-src 'none'",
        f"script-src {scripts}",
        f"style-src {_hash(_style())}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join([*rules, "connect-src 'self'"] if live else rules)


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _json(data: Any) -> str:
    """JSON that nothing in it can end."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# --- filters ---


def _visible(text: Any) -> str:
    return "" if isinstance(text, jinja2.Undefined) or text is None else printable(str(text), 2048)


def _thousands(number: int) -> str:
    return f"{number:,}"


def _exact_ms(value: float) -> str:
    return f"{value:,.1f} ms" if value < 100 else f"{value:,.0f} ms"


def _examples(examples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those that say more than when they were."""
    shown = []
    for example in examples:
        where = example.get("url") or place(example)
        if where or example.get("detail"):
            shown.append({**example, "where": where})
    return shown


# --- tables ---


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell behind the name of a row."""

    text: str
    value: Any
    """What the script sorts by, `data-value`; None: the text."""
    css_class: str


def _cell(line: Line, column: Column) -> Cell:
    value, unit = line.values[column.field], column.unit
    if unit in ("text", "word"):
        return Cell(_visible(value), None, "text" if unit == "text" else "")
    if isinstance(value, int) and unit in ("count", "problems"):
        text = at_least(_thousands(value)) if line.at_least else _thousands(value)
        return Cell(text, value, column.colour if value else "")
    return Cell(_visible(cell(value, unit)), -1 if value is None else value, "")


def _groups(lines: Lines) -> list[tuple[Line | None, list[Line]]]:
    """The rows of a table: a sum, and those that it sums up, it among them; None and all rows of a
    table without sums."""
    bands = groupby(lines.rows, key=lambda line: line.band)
    found = [list(rows) for _, rows in bands]
    return [(rows[0] if rows[0].total else None, rows) for rows in found]


def _note(lines: Lines) -> str:
    """What stands beside the title of a table."""
    notes = [lines.table.note]
    if lines.more:
        what = f"{lines.more} more {lines.table.what}{s(lines.more)}"
        verb = "is" if lines.more == 1 else "are"
        notes.append(f"the first {len(lines.rows)}; {what} {verb} in the JSON and CSV")
    return "; ".join(filter(None, notes))


def _is_local(time: str) -> bool:
    """Whether a time can be told in this machine's time zone."""
    try:
        datetime.fromisoformat(time).astimezone()
    except (OverflowError, ValueError, OSError):
        return False
    return True
