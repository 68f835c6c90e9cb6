"""The page of a report: hostile ones, and what their figures have to be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from typing import Any

import pytest
from flowtally.examples import describe
from flowtally.report import data as data_module
from flowtally.report.tables import Entry
from flowtally.report.tables import columns_of
from flowtally.rows import EVENT
from flowtally.tally import place
from flowtally.vocabulary import BANDS

from . import browser as lab
from .cli import Record
from .cli import answered
from .cli import event
from .cli import failed
from .cli import start
from .cli import tally

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page

Data = dict[str, Any]


def statistics(*records: Record) -> Data:
    """What JSON says of records; and the bands, which are sums of their codes there."""
    counted = tally(*records)
    found: Data = json.loads(json.dumps(data_module.statistics(counted)))
    codes = columns_of(counted["codes"].table)
    for band, row, _ in counted.bands():
        entry = Entry(band, row, (band, ""))
        found.setdefault("bands", {})[band] = {c.field: c.value(entry) for c in codes}
    return {"bands": {}, **found}


@contextmanager
def shown(browser: Browser, address: str, *arguments: Any, **settings: Any) -> Iterator[Page]:
    """An open page; at the end it must have asked for nothing but itself, and must have kept
    silent."""
    with lab.opened(browser, *arguments, **settings) as page:
        watched = lab.watch(page)
        page.goto(address)
        yield page
        assert watched.requests == [address]
        assert watched.trouble == []
        assert page.evaluate("window.hacked ?? []") == []


def read(page: Page) -> Data:
    found: Data = page.evaluate(lab.READ)
    return found


def check_totals(totals: Data, data: Data) -> None:
    counted = {name: value for name, value in data["totals"].items() if name in totals}
    assert {name: int(total["value"]) for name, total in totals.items()} == counted
    for name, value in data["totals"].items():
        elsewhere = ("dropped", "first", "last", "problems", "challenges", "collateral")
        left_out = name in (*elsewhere, "background") or (
            name in ("cancelled", "ok", "unfinished") and not value
        )
        assert (name in totals) != left_out, name
    for total in totals.values():
        assert reads_as(total["text"], float(total["value"])), total


def problems_of(row: Data) -> int:
    """How much of what a row counts is a problem."""
    wrong = row["failures"] + row["unsuccessful"] + row["events"]
    return max(0, int(wrong - row["challenges"] - row["collateral"]))


def check_problems(problems: Data, data: Data) -> None:
    wanted = {row["id"]: row for row in data["incidents"] if row["error_code"] and problems_of(row)}
    assert problems.keys() == wanted.keys()
    for key, row in wanted.items():
        said, count = problems[key], problems_of(row)
        assert reads_as(said["text"], count), key
        assert int(said["value"]) == count, key
        examples = [{k: v for k, v in e.items() if v is not None} for e in row["examples"]]
        distinct = {(describe(example), place(example)) for example in examples}
        assert said["examples"] == len(distinct - {("", "")}), key
        assert said["title"].split(" ")[0] == row["cause"]
        assert (said["reason"], said["host"], said["id"]) == (row["reason"], row["host"], key)
        assert 1 <= said["bars"] <= 24


def bands(data: Data) -> dict[str, list[Data]]:
    """Band → its row, and those of its codes; in the order in which they are shown."""
    codes = sorted(data["codes"], key=lambda row: (row["other"], row["code"] or 0))
    return {
        band: [total, *(code for code in codes if code["band"] == band)]
        for band, total in data["bands"].items()
    }


def code_name(row: Data) -> str:
    """What a row of the table of codes is called."""
    return "(other)" if row["other"] else f"{row['code']} {row['description']}"


def check_bands(table: Data | None, data: Data) -> None:
    wanted: Data = {}
    for band, (total, *codes) in bands(data).items():
        wanted[band] = total
        wanted |= {code_name(row): row for row in codes}
    assert [row["key"] for row in table["rows"]] == list(wanted) if table else not wanted
    for row in table["rows"] if table else ():
        of = wanted[row["key"]]
        assert row["total"] == (row["key"] in BANDS)
        numbers = [of["flows"], of["flows"] / data["totals"]["flows"], of["unsuccessful"]]
        numbers += [of["request_bytes"], of["response_bytes"]]
        check_cells(row, [*numbers, *times(of, "wait_p50", "wait_p95"), *times(of)])


def by_name(data: Data, table: str, part: str) -> dict[str, Data]:
    """The rows of a table whose keys have one part."""
    return {row[part]: row for row in data[table]}


def check_hosts(table: Data | None, data: Data, rows: int) -> None:
    hosts = by_name(data, "hosts", "host")
    if not hosts:
        assert table is None
        return
    assert table is not None
    assert len(table["rows"]) == min(rows, len(hosts))
    for row in table["rows"]:
        of = hosts[row["key"]]
        numbers = [of[n] for n in ("flows", "failures", "unsuccessful", "events", "cancelled")]
        numbers += [of["request_bytes"], of["response_bytes"]]
        check_cells(row, [*numbers, *times(of, "wait_p50", "wait_p95"), *times(of)])
    shown = [hosts[row["key"]] for row in table["rows"] if row["key"] != "(other)"]
    counts = [of["flows"] + of["events"] for of in shown]
    assert counts == sorted(counts, reverse=True)


def check_endpoints(tables: Data, data: Data, rows: int) -> None:
    endpoints = by_name(data, "endpoints", "endpoint")
    failing = {name: row for name, row in endpoints.items() if problems_of(row)}
    table = tables.get("failing", {"rows": []})
    assert len(table["rows"]) == min(rows, len(failing))
    for row in table["rows"]:
        of = failing[row["key"]]
        numbers = [of[n] for n in ("flows", "failures", "unsuccessful")]
        check_cells(row, [*numbers, *times(of, "p50", "p95", "max")])
    for row in tables.get("slow-endpoints", {"rows": []})["rows"]:
        of = endpoints[row["key"]]
        check_cells(row, [of["flows"], *times(of)])


NAMES = {"error": "Failed", "cancelled": "Cancelled", EVENT: "Failures without a flow"}
"""What a series of the chart is called, where it is not its own name."""


def check_charts(tables: Data, data: Data) -> None:
    """The numbers beside the charts add up."""
    wanted: dict[str, int] = {}
    for point in data["timeline"]:
        name = NAMES.get(point["series"], point["series"])
        wanted[name] = wanted.get(name, 0) + point["flows"] + point["events"]
    traffic = tables["traffic"]
    names = traffic["head"][1:]
    found = {
        name: sum(int(row["cells"][column]["value"]) for row in traffic["rows"])
        for column, name in enumerate(names, 1)
    }
    assert found == wanted
    assert sum(found.values()) == data["totals"]["flows"] + data["totals"]["events"]
    assert found.get("Failed", 0) == data["totals"]["failures"]
    bars = sum(int(row["cells"][2]["value"]) for row in tables["durations"]["rows"])
    assert 0 <= bars <= data["totals"]["flows"]


def times(row: Data, *names: str) -> list[float]:
    """Those of a row; -1 stands for none."""
    found = (row[f"{name}_ms"] for name in names or ("p50", "p95", "p99", "max"))
    return [-1 if time is None else time for time in found]


def check_cells(row: Data, numbers: list[float]) -> None:
    """The cells behind the name of a row."""
    cells = row["cells"][1:]
    assert [float(cell["value"]) for cell in cells] == pytest.approx(numbers), row["key"]
    for cell, number in zip(cells, numbers, strict=True):
        assert reads_as(cell["text"], number) if number >= 0 else cell["text"] == "", row


UNITS = {"": 1, "%": 0.01, "ms": 1, "s": 1000, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def reads_as(text: str, value: float) -> bool:
    """Whether a number as people read it is `value`, within half of its last digit."""
    match = re.fullmatch(r"([\d,]+)(\.\d+)? ?(\D*)", text)
    assert match is not None, text
    whole, decimals, unit = match.groups()
    last = 0.1 ** (len(decimals) - 1) if decimals else 1
    number = float(whole.replace(",", "") + (decimals or ""))
    return abs(number - value / UNITS[unit]) <= last / 2 + 1e-9


def column(page: Page, section: str, number: int) -> list[str]:
    """What stands in a column, from the top to the bottom; without the rows that are sums."""
    cells = page.locator(f"#{section} tbody tr:not(.total) > :nth-child({number})")
    found: list[str] = cells.evaluate_all(
        "(cells) => cells.map((cell) => cell.dataset.value ?? cell.textContent)"
    )
    return found


EVIL = (
    "<script>hacked.push('script')</script>",
    "\"><img src=x onerror=hacked.push('img')>",
    "'><svg onload=hacked.push('svg')>",
    "</script><script>hacked.push('end')</script>",
    "</style><style>*{display:none}</style>",
    "]]><!--<base href=//evil.example/>",
    "-->\"'`${hacked.push('template')}",
    "{{ 7*191 }}{% raw %}{# #}",
    "javascript:hacked.push('url')",
    "\u202egnirts a si siht\u2066\u200b\ufeff",
    "nul \x00 bell \x07 escape \x1b]0;owned\x07 line\r\n\u2028\u2029 end",
    "lone \ud800 and \udfff surrogates",
    "&lt;b&gt; &amp; &#60;i>",
    "__proto__",
    "constructor",
    "x" * 100_000,
    "\U0001f4a5\u0301" * 500,
)


def hostile(texts: tuple[str, ...]) -> list[Record]:
    """A session in which everything that a log can name is one of `texts`."""
    records = [{**start(session=texts[0][:40]), "modes": list(texts)}]
    for number, text in enumerate(texts):
        url = f"http://{text}/{text}"
        found = [
            answered(404, number, host=text, method=text, url=url, description=text),
            answered(599, number + 0.1, host=text, url=text, description=text),
            failed(
                second=number + 0.2, cause="connection_refused", host=text, url=url, detail=text
            ),
            {**failed(second=number + 0.3), "cause": text, "host": text, "detail": text},
            event(second=number + 0.4, host=text, detail=text, client=text),
            answered(101, number + 0.5, kind="websocket", close_code=number, close_reason=text),
            {**answered(200, number + 0.6, kind="dns", outcome="ok", host=text, method=text)},
            {**answered(200, number + 0.7, kind="tcp", outcome="unfinished", host=text)},
            answered(200, number + 0.8, host=text, url=url, flow=text, duration_ms=1e6 + number),
        ]
        records += [{**record, "flow": text} for record in found]
    return [{**record, "session": texts[0]} for record in records]


HARMLESS = tuple(f"text{number}" for number in range(len(EVIL)))
