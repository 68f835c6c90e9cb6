"""A report as one HTML page that needs nothing else: no network, no other file.

The template, the style and the script are in `page/`; charts are drawn by uPlot, inlined. A
Content-Security-Policy with the hashes of style and script keeps everything else from running.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from .. import __version__
from ..redaction import printable
from ..tally import Tally
from ..tally import place
from ..vocabulary import UNSUCCESSFUL
from .layout import local_time
from .layout import ms
from .layout import s
from .layout import size
from .layout import span
from .layout import time_of_day
from .view import Headline
from .view import Lines
from .view import Problem
from .view import Timeline
from .view import View
from .view import view

HOSTS = 200
ENDPOINTS = 200
_FOLDER = Path(__file__).with_name("page")
_GENERATOR = b'<meta name="generator" content="flowtally '

# From the bottom to the top.
_STACK = (
    "Success",
    "Redirection",
    "Informational",
    "ok",
    "unfinished",
    "Client error",
    "Server error",
    "Failed",
)
KINDS = {
    "Informational": "informational",
    "Success": "success",
    "Redirection": "redirection",
    "Client error": "client",
    "Server error": "server",
    "Failed": "failure",
    "ok": "ok",
    "unfinished": "unfinished",
}
"""Band or outcome → the class that gives it its colour."""


@dataclass(frozen=True, slots=True)
class About:
    """What a report says of itself."""

    sessions: Sequence[str] = ()
    """A sentence on each session."""
    notes: Sequence[str] = ()
    """What could not be read, and so on."""
    unclean: int = 0
    """How many sessions did not end cleanly, or still run; the live page's does not count."""


def is_ours(head: bytes) -> bool:
    """Whether a file that begins so is a report of flowtally's."""
    return head.startswith(b"<!doctype html>") and _GENERATOR in head


def page(tally: Tally, about: About) -> str:
    """A report on a tally."""
    return render(view(tally, HOSTS, ENDPOINTS), about)


def render(shown: View, about: About, live: bool = False) -> str:
    """A report. `live`: one that refreshes itself."""
    timeline = _stacked(shown.timeline)
    first = shown.headline.first
    moment = datetime.fromisoformat(first).astimezone() if _fits(first) else None
    offset = moment.utcoffset() if moment else None
    data = {
        "traffic": {
            "starts": shown.timeline.starts,
            "seconds": shown.timeline.seconds,
            "offset": int(offset.total_seconds()) if offset else 0,
            "series": [
                {"name": name, "kind": KINDS[name], "values": values}
                for name, values in timeline.items()
            ],
        },
        "durations": {
            "bars": [[round(b.start, 3), round(b.end, 3), b.count] for b in shown.durations]
        },
    }
    parts = _parts(shown)
    return fill(
        "page.html.j2",
        live,
        live=live,
        title=f"flowtally: {_title(shown)}",
        when=_when(shown, about),
        view=shown,
        totals=_totals(shown),
        parts=parts,
        parts_label=", ".join(f"{part['name']} {_percent(part['share'])}" for part in parts),
        series=list(timeline),
        timeline=[
            {"start": start, "text": local_time(start), "counts": counts}
            for start, *counts in zip(shown.timeline.starts, *timeline.values(), strict=True)
        ],
        notes=[*about.sessions, *_notes(shown), *about.notes, f"flowtally {__version__}"],
        data=Markup(_json(data)),
    )


# --- what the template is given ---


def _title(shown: View) -> str:
    headline = shown.headline
    flows = f"{headline.flows} flow{s(headline.flows)}"
    return f"{flows}, {headline.failures + headline.events} failed"


def _when(shown: View, about: About) -> str:
    parts = [_span(shown.headline)]
    if about.unclean:
        every = len(about.sessions) == about.unclean
        which = "" if every else f"{about.unclean} of {len(about.sessions)} sessions "
        parts.append(f"{which}did not end cleanly, or still running")
    return "; ".join(filter(None, parts))


def _span(headline: Headline) -> str:
    if not _fits(headline.first) or not _fits(headline.last):
        return ""
    first, last = (
        datetime.fromisoformat(time).astimezone() for time in (headline.first, headline.last)
    )
    until = f"{last:%H:%M:%S}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M:%S}"
    return f"{first:%Y-%m-%d %H:%M:%S} to {until} ({first:%Z}), {span(headline.seconds)}"


def _totals(shown: View) -> list[dict[str, Any]]:
    headline = shown.headline
    flows = headline.flows

    def total(key: str, name: str, value: int, kind: str = "", note: str = "") -> dict[str, Any]:
        text = size(value) if key.endswith("bytes") else _thousands(value)
        kind = kind if value else ""
        return {"key": key, "name": name, "value": value, "text": text, "kind": kind, "note": note}

    def share(count: int) -> str:
        return _percent(count / flows) if flows and count else ""

    totals = [
        total("flows", "Flows", flows),
        total("failures", "Failed", headline.failures, "failure", share(headline.failures)),
        total(
            "unsuccessful",
            "Status 400 and up",
            headline.unsuccessful,
            "client",
            share(headline.unsuccessful),
        ),
        total("events", "Failures without a flow", headline.events, "failure"),
        total("ok", "ok", headline.ok),
        total("unfinished", "Unfinished", headline.unfinished),
        total("request_bytes", "Sent", headline.request_bytes),
        total("response_bytes", "Received", headline.response_bytes),
    ]
    return [t for t in totals if t["value"] or t["key"] not in ("ok", "unfinished")]


def _parts(shown: View) -> list[dict[str, Any]]:
    """What became of the flows, as parts of a bar of 1000."""
    headline = shown.headline
    counts = {lines.band.name: lines.band.flows for lines in shown.bands}
    counts |= {"ok": headline.ok, "unfinished": headline.unfinished, "Failed": headline.failures}
    start = 0.0
    parts = []
    for name in _STACK:
        count = counts.get(name, 0)
        if count:
            width = 1000 * count / max(1, headline.flows)
            parts.append(
                {
                    "name": name,
                    "kind": KINDS[name],
                    "count": count,
                    "share": count / max(1, headline.flows),
                    "start": round(start, 2),
                    "width": round(width, 2),
                }
            )
            start += width
    return parts


def _stacked(timeline: Timeline) -> dict[str, list[int]]:
    """Name → counts, from the bottom to the top, with the failures on top."""
    columns = {name: list(counts) for name, counts in timeline.series.items()}
    failed = [columns.pop(name) for name in ("error", "event") if name in columns]
    if failed:
        columns["Failed"] = [sum(counts) for counts in zip(*failed, strict=True)]
    return {name: columns[name] for name in _STACK if name in columns}


def _notes(shown: View) -> list[str]:
    if not shown.dropped:
        return []
    return [f"Records that could not be written to the log: {shown.dropped}"]


# --- the page's parts ---


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
        "percent": _percent,
        "size": size,
        "ms": ms,
        "exact_ms": _exact_ms,
        "span": span,
        "clock": time_of_day,
        "examples": _examples,
        "problem_kind": _problem_kind,
        "band_kind": KINDS.get,
        "more": _more,
    }
    return environment


@cache
def _style() -> str:
    return _read("uplot/uPlot.min.css") + _read("page.css")


@cache
def _script() -> str:
    return _read("page.js")


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


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _exact_ms(value: float) -> str:
    return f"{value:,.1f} ms" if value < 100 else f"{value:,.0f} ms"


def _examples(examples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those that say more than a host."""
    shown = []
    for example in examples:
        where = example.get("url") or place(example)
        if where or example.get("detail"):
            shown.append({**example, "place": where})
    return shown


def _problem_kind(problem: Problem) -> str:
    if problem.code == UNSUCCESSFUL:
        return KINDS.get(problem.band, "server")
    return "failure" if problem.code else "unfinished"


def _more(lines: Lines, what: str) -> str:
    if not lines.more:
        return ""
    return f"the first {len(lines.rows)}; {lines.more} more {what} are in the JSON and CSV"


def _fits(time: str) -> bool:
    """Whether a time can be told in this machine's time zone."""
    try:
        datetime.fromisoformat(time).astimezone()
    except (OverflowError, ValueError, OSError):
        return False
    return True
