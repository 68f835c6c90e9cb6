"""Generated sessions in which nothing changed, and how they are cut in two: what a comparison says
of the halves is a false alarm."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING
from typing import Any

from .cli import BEGIN
from .cli import Record
from .cli import answered
from .cli import failed
from .sessions import SECONDS
from .sessions import everything

if TYPE_CHECKING:  # `bench.py --addon` measures versions in which it is elsewhere
    from flowtally.differences import Comparison

PAGES = 120
"""How many pages a session of pages has."""
BETWEEN = 5.0
"""Seconds from a page to the next, on average."""


def mixed(random: Random) -> list[Record]:
    """Requests that have nothing to do with one another."""
    return sorted((_request(random, random.uniform(0, 600), 8, 40) for _ in range(2400)), key=_time)


def many_hosts(random: Random) -> list[Record]:
    """Requests to thousands of hosts, of which most are asked for seldom."""
    return sorted(
        (_request(random, random.uniform(0, 600), 4000, 8000) for _ in range(6000)), key=_time
    )


def bursts(random: Random) -> list[Record]:
    """Pages of which one in ten fails with all its requests."""

    def page(second: float) -> Iterator[Record]:
        broken = random.random() < 0.1
        for _ in range(random.randint(10, 30)):
            record = _request(random, second + random.uniform(0, 3), 6, 30)
            yield {**record, **_BROKEN} if broken else record

    return _pages(random, page)


def slow_pages(random: Random) -> list[Record]:
    """Pages whose requests are all slower or all faster than others."""

    def page(second: float) -> Iterator[Record]:
        factor = random.lognormvariate(0, 0.7)
        for _ in range(random.randint(10, 30)):
            record = _request(random, second + random.uniform(0, 3), 6, 30)
            if "duration_ms" in record:
                record["duration_ms"] = round(record["duration_ms"] * factor, 1)
            yield record

    return _pages(random, page)


def all_kinds(random: Random) -> list[Record]:
    """Everything that can happen, again and again, each time in ten minutes that begin at another
    point of it."""
    found = []
    for turn in range(6):
        first = random.uniform(0, SECONDS)
        for number, record in enumerate(everything(301 + random.randrange(10_000) % 60)):
            if record["type"] in ("flow", "event"):
                second = (_second(record) - first) % SECONDS + turn * SECONDS
                found.append(_moved(record, second, f"{turn} {number}"))
    return sorted(found, key=_time)


LOGS: dict[str, Callable[[Random], list[Record]]] = {
    "mixed": mixed,
    "thousands of hosts": many_hosts,
    "bursts of 500s by page": bursts,
    "latency shared by a page": slow_pages,
    "everything": all_kinds,
}


def by_flow(random: Random, records: list[Record]) -> tuple[list[Record], list[Record]]:
    """Each flow is on either side."""
    halves: tuple[list[Record], list[Record]] = ([], [])
    for record in records:
        halves[random.random() < 0.5].append(record)
    return halves


def by_time(_random: Random, records: list[Record]) -> tuple[list[Record], list[Record]]:
    """The first half of the time, and the second."""
    middle = (_second(records[0]) + _second(records[-1])) / 2
    return (
        [record for record in records if _second(record) < middle],
        [record for record in records if _second(record) >= middle],
    )


def by_minute(random: Random, records: list[Record]) -> tuple[list[Record], list[Record]]:
    """Each half minute, with all that is in it, is on either side."""
    sides: dict[int, bool] = {}
    halves: tuple[list[Record], list[Record]] = ([], [])
    for record in records:
        halves[sides.setdefault(int(_second(record) // 30), random.random() < 0.5)].append(record)
    return halves


CUTS = {"by flow": by_flow, "by time": by_time, "by half minute": by_minute}


def slower_endpoint(random: Random, sigma: float = 0.95) -> tuple[list[Record], list[Record]]:
    """Thirty endpoints with eighty requests a side; the first is twice as slow after. So spread,
    ranks of independent times would find it in 88 of 100."""

    def side(factor: float) -> list[Record]:
        found = []
        for number in range(30):
            for _ in range(80):
                ms = 50 * random.lognormvariate(0, sigma) * (1.0 if number else factor)
                url = f"http://shop.example/{chr(97 + number % 26)}{number}"
                second = random.uniform(0, 300)
                found.append(answered(second=second, url=url, duration_ms=round(ms, 1)))
        return sorted(found, key=_time)

    return side(1.0), side(2.0)


SLOWED = "GET http://shop.example/a0"


def claims(comparison: Comparison) -> list[str]:
    """What it says without a mark that it may be chance. What is on one side only counts where
    it can be marked."""
    data = comparison.to_data()
    tables = ("problems", "error_codes", "status_codes", "hosts", "endpoints")
    found = [f"{table}: {row['name']}" for table in tables for row in data[table] if row["clear"]]
    found += [f"times: {row['table']} {row['name']}" for row in data["durations"]]
    for name, traffic in data["traffic"].items():
        for row in (*traffic["appeared"], *traffic["vanished"]):
            if row.get("clear"):
                found.append(f"traffic of {name}: {row['name']}")
    return found


_BROKEN = {
    name: value
    for name, value in answered(500).items()
    if name in ("status", "band", "description", "outcome", "error_code", "error_name")
}


def _request(random: Random, second: float, hosts: int, endpoints: int) -> Record:
    # Some hosts and endpoints are asked for much more often than others.
    number = min(int(random.paretovariate(0.7)), endpoints) - 1 + random.randrange(5)
    host = f"h{number % hosts}.example"
    path = f"/{chr(97 + number % 26)}{number}"
    fields: dict[str, Any] = {"host": host, "url": f"http://{host}{path}"}
    ms = round((40 + 7 * (number % 11)) * random.lognormvariate(0, 0.8), 1)
    if random.random() < 0.04:
        return failed(
            random.choice(("connection_refused", "dns_error", "http_response_timeout")),
            second,
            duration_ms=ms,
            **fields,
        )
    status = random.choice((200,) * 30 + (204, 301, 302, 304, 304, 404, 500))
    return answered(status, second, duration_ms=ms, **fields)


def _pages(random: Random, page: Callable[[float], Iterator[Record]]) -> list[Record]:
    second = 0.0
    found: list[Record] = []
    for _ in range(PAGES):
        found += page(second)
        second += random.expovariate(1 / BETWEEN)
    return sorted(found, key=_time)


def _time(record: Record) -> str:
    return str(record["time"])


def _second(record: Record) -> float:
    return datetime.fromisoformat(record["time"]).timestamp() - BEGIN


def _moved(record: Record, second: float, flow: str) -> Record:
    moved = {**record, "time": answered(second=second)["time"]}
    return {**moved, "flow": flow} if "flow" in record else moved
