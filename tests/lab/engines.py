"""What engines must say of session logs: what the report says of them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from flowtally import logs
from flowtally.report import data
from flowtally.report.sessions_text import Listed
from flowtally.rows import COUNTS

from .cli import Record
from .cli import answer
from .cli import answered
from .cli import cancelled
from .cli import event
from .cli import failed
from .cli import final
from .cli import lines
from .cli import start
from .sessions import everything

Row = Mapping[str, Any]
Ask = Callable[[str], Sequence[Row]]
"""A query → its rows."""

FLEET = 1000

KEYS = {
    "codes": ("band", "code"),
    "causes": ("error_code", "cause", "reason"),
    "incidents": ("error_code", "cause", "reason", "side", "host"),
    "hosts": ("host",),
    "endpoints": ("endpoint",),
    "media_types": ("media_type",),
    "methods": ("kind", "method"),
    "protocols": ("kind", "close_code"),
    "background": ("background",),
    "timeline": ("seconds", "start", "series"),
}
"""View that is a table of `report --json` → what a row is found by."""
FIGURES = {
    "codes": 9 + 9,
    "causes": 9 + 1,
    "incidents": 9 + 4,
    "hosts": 9 + 8,
    "endpoints": 9 + 4,
    "media_types": 9 + 4,
    "methods": 9,
    "protocols": 9 + 4,
    "background": 8,
    "timeline": 9,
}
"""How many figures of a row the report and the view both have: those that COUNTS names, and
descriptions, ids, first and last times, percentiles."""


def awkward() -> list[Record]:
    """What is counted in a way that one may get wrong."""
    ids = (
        "/17/4/x/0",
        "/a/b0e1b2c3-d4e5-46f7-88a9-b0c1d2e3f4a5",
        "/deadbeefdeadbeef",
        "/" + "9" * 250,
    )
    odd = ("//17/1", "/a:/17", "/1?x=/2", "/" + "z" * 300, "/" + "A1b2C3d4E5f6G7h8I9j0/1", "///5")
    return [
        *(answered(200, 40, url=f"http://shop.example{path}") for path in (*ids, *odd)),
        answered(401, 41, host="id.example"),
        answer(42, host="id.example"),
        answer(43, challenge=407, url="https://id.example/", host="id.example", port=443),
        answer(44, challenge=407, host="never.asked.example"),
        answered(404, 45, host="api.example", port=8443, url="https://api.example:8443/x"),
        answered(200, 46, error_code=-1, error_name="RequestException", cause="cors_blocked",
                 reason="origin_not_allowed", side="server"),
        failed("http_protocol_error", 47, reason="collateral"),
        failed("dns_error", 48, background="Google"),
        answered(404, 49, background="Google"),
        answer(50, background="Firefox"),
        cancelled(51, background="Firefox"),
        event(second=52, background="macOS"),
        event("http_protocol_error", 53, reason="surplus_bytes", port=8080),
        cancelled(54, stream=True, media_type="text/event-stream"),
        answered(200, 55, stream=True, media_type="text/event-stream", duration_ms=1e6),
        answered(799, 56),
        {**answered(200, 57), "outcome": "unfinished", "status": 200, "kind": "tcp"},
    ]  # fmt: skip


def one_log(folder: Path) -> list[Path]:
    """A log of one session with everything in it, whose end was torn off."""
    path = folder / "one.jsonl"
    path.write_bytes(lines(*everything(200), *awkward()) + b'{"type":"flow","sess')
    return [path]


def fleet(folder: Path) -> list[Path]:
    """As many logs of one session, all that can happen spread over them; every other one has ended,
    and some of its records stand in another file as well."""
    records = everything(1500)[1:] + awkward()
    paths = []
    for number in range(FLEET):
        session = f"{number:08x}"
        mine = [{**record, "session": session} for record in records[number::FLEET]]
        written = [start(session, number), *mine]
        if number % 2:
            written.append(final(*mine, session=session))
        paths.append(folder / f"{number}.jsonl")
        paths[-1].write_bytes(lines(*written))
        if number % 101 == 0:
            paths.append(folder / f"{number}.copy.jsonl")
            paths[-1].write_bytes(lines(*written[:-1]))
    return paths


def check(ask: Ask, paths: Sequence[Path]) -> None:
    """Hold every figure of `report --json` against the view's."""
    read = logs.read([(str(path), path) for path in paths])
    tally = read.merged()
    said = data.statistics(tally)
    for name, key in KEYS.items():
        _check_table(name, ask(f"SELECT * FROM {name}"), said[name], key)
    (totals,) = ask("SELECT * FROM totals")
    assert dict(totals) == said["totals"]
    _check_sums("errors", ask, said["causes"], "error_code")
    _check_sums("sides", ask, [row for row in said["incidents"] if row["error_code"]], "side")
    bands = {row["band"]: row for row in ask("SELECT * FROM bands")}
    assert {band: {name: bands[band][name] for name in COUNTS} for band in bands} == {
        band: {name: getattr(row, name) for name in COUNTS} for band, row, _ in tally.bands()
    }
    _check_sessions(ask("SELECT * FROM sessions"), read)
    flows = ask("SELECT endpoint, incident FROM flows WHERE background IS NULL")
    assert {row["endpoint"] for row in flows} <= {row["endpoint"] for row in said["endpoints"]}
    ids = {row["id"] for row in said["incidents"]}
    assert {row["incident"] for row in flows} - {None} <= ids


def _check_table(name: str, found: Sequence[Row], said: Sequence[Row], key: Sequence[str]) -> None:
    ours = {tuple(row[part] for part in key): row for row in found}
    theirs = {tuple(row[part] for part in key): row for row in said}
    assert len(found) == len(ours)
    assert not any(row.get("other") for row in said), f"{name} has overflowed: nothing to compare"
    assert ours.keys() == theirs.keys(), name
    assert theirs, f"{name} is empty: nothing to compare"
    for found_by, row in theirs.items():
        names = [figure for figure in row if figure in ours[found_by] and figure not in key]
        assert len(names) == FIGURES[name], names
        for figure in names:
            value = ours[found_by][figure]
            if figure.endswith("_ms") and row[figure] is not None:
                # Percentiles of the report are those of its buckets.
                value = pytest.approx(value, rel=0.0001 if "max" in figure else 0.0201, abs=0.06)
            if figure == "error_name" and not row["error_code"]:
                continue  # what is no problem has none
            assert row[figure] == value, f"{name}, {found_by}: {figure}"


def _check_sums(name: str, ask: Ask, said: Sequence[Row], key: str) -> None:
    """The sums of rows of a table against a view."""
    sums: dict[Any, dict[str, int]] = {}
    for row in said:
        if row.get("error_code") is not None:
            mine = sums.setdefault(row[key], dict.fromkeys(COUNTS, 0))
            for count in COUNTS:
                mine[count] += row[count]
    found = ask(f"SELECT * FROM {name}")
    assert {row[key]: {count: row[count] for count in COUNTS} for row in found} == sums, name


def _check_sessions(found: Sequence[Row], read: logs.Logs) -> None:
    ours = {row["session"]: row for row in found}
    assert ours.keys() == read.sessions.keys()
    for id, session in read.sessions.items():
        listed = Listed.of(session, Path())
        for name in ("begun", "flows", "failures", "events", "ended_cleanly"):
            assert ours[id][name] == getattr(listed, name), f"session {id}: {name}"
        assert ours[id]["missing"] == session.missing
        assert ours[id]["dropped"] == session.tally.dropped
