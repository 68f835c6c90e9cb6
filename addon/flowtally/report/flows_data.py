"""The single flows that a page holds, small enough to be in it: JSON by columns, deflated.

The script of the page reads what `packed` makes. Every text is fit to be shown.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..filters import is_problem
from ..redaction import MAX_URL
from ..redaction import printable
from ..rows import series
from ..selection import Selection
from ..tally import incident_of
from ..tally import is_timed
from ..tally import place
from . import figures_data

Record = Mapping[str, Any]

MOST = 100_000
"""How many flows a page holds."""
MAX_BYTES = 4_000_000
"""How much of a page they take, in bytes; if they take more, there are fewer of them."""
_LEFT_OUT = ("seq", "flow", "time")
_DISTRIBUTED = ("wait_ms", "duration_ms")
"""Times of which the page tells percentiles: they are as the log has them, or a fast flow would be
counted in another bucket."""


@dataclass(frozen=True, slots=True)
class Flows:
    """What a page holds of the flows and events of logs."""

    of: int
    """How many the logs have."""
    held: int
    """How many of them the page holds."""
    problems: int
    """How many of those it holds are problems, which come before others."""
    data: str
    """What the script reads."""

    @property
    def note(self) -> str:
        """What people are told."""
        if self.held == self.of:
            return "newest first"
        only = self.problems == self.held
        which = "the latest problems" if only else "the problems, and the latest of the others"
        return f"newest first; {self.held:,} of {self.of:,}: {which}"


def flows(selection: Selection, most: int = MOST, max_bytes: int = MAX_BYTES) -> Flows:
    """The latest flows of logs, and their problems wherever they are."""
    while True:
        records = list(selection.latest(most))
        data = packed(records, selection.answered)
        if len(data) <= max_bytes or most <= 1:
            problems = sum(map(is_problem, records))
            return Flows(selection.count, len(records), problems, data)
        most = int(min(most, len(records)) * 0.95 * max_bytes / len(data))


def packed(records: Sequence[Record], answered: Iterable[tuple[str, str]] = ()) -> str:
    """Records, newest first, as base64 of what zlib makes of JSON: `count`, and `columns`,
    `derived` and `keys`, name → column. A column is `numbers`, null for none; `steps`, the first
    number and the difference of each to the one before; or `words`, and `at`, which of them, -1
    for none. `keys`: of each table for people, see `figures_data`.
    """
    known = set(answered)
    challenges = [(record["session"], record.get("flow", "")) in known for record in records]
    names = dict.fromkeys(name for record in records for name in record if name not in _LEFT_OUT)
    columns: dict[str, Any] = {
        "time": _steps([_milliseconds(record["time"]) for record in records]),
        "seq": _steps([record["seq"] for record in records]),
        # Of most it says nothing, and takes more than all else together.
        "flow": _column(
            [
                record.get("flow") if challenge or "error_code" in record else None
                for record, challenge in zip(records, challenges, strict=True)
            ]
        ),
    }
    columns |= {
        name: _column([record.get(name) for record in records], 3 if name in _DISTRIBUTED else 1)
        for name in names
    }
    derived: dict[str, list[Any]] = {
        "incident": [
            incident_of(record) if is_problem(record) and not challenge else None
            for record, challenge in zip(records, challenges, strict=True)
        ],
        "place": [place(record) or None for record in records],
        "series": [series(record) for record in records],
        "timed": [_timed(record) for record in records],
    }
    data = {
        "count": len(records),
        "columns": columns,
        "derived": {name: _column(values) for name, values in derived.items()},
        "keys": figures_data.columns(records),
    }
    text = json.dumps(data, separators=(",", ":"))
    return b64encode(zlib.compress(text.encode(), 9)).decode()


def shown(record: Record, challenge: bool = False) -> dict[str, Any]:
    """A single record, its texts fit to be shown, and with what `packed` derives of it."""
    found = {name: _fit(value) for name, value in record.items()}
    found["time"] = _milliseconds(record["time"])
    found["derived"] = {
        "incident": incident_of(record) if is_problem(record) and not challenge else None,
        "place": _fit(place(record)) or None,
        "series": _fit(series(record)),
        "timed": _timed(record),
    }
    found["keys"] = figures_data.shown_keys(record)
    return found


def _timed(record: Record) -> int | None:
    """1 where its times say how fast something is."""
    return 1 if record["type"] == "flow" and is_timed(record) else None


def _milliseconds(time: str) -> int:
    """RFC 3339 → Unix time in ms."""
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def _steps(values: Sequence[int]) -> dict[str, list[int]]:
    return {"steps": [value - before for before, value in zip((0, *values), values, strict=False)]}


def _column(values: Sequence[Any], digits: int = 1) -> dict[str, Any]:
    present = {type(value) for value in values} - {type(None)}
    if present <= {int, float}:
        return {"numbers": [round(v, digits) if isinstance(v, float) else v for v in values]}
    words: dict[str, int] = {}
    at = [
        -1 if value is None else words.setdefault(json.dumps(_fit(value)), len(words))
        for value in values
    ]
    return {"words": [json.loads(word) for word in words], "at": at}


def _fit(value: Any) -> Any:
    return printable(value, MAX_URL) if isinstance(value, str) else value
