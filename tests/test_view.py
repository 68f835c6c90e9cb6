"""What a report says: nothing is lost on the way from the tally, and all is in its order."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from itertools import pairwise

import pytest
from flowtally import tally as tally_module
from flowtally.report.view import MAX_SLOTS
from flowtally.report.view import Line
from flowtally.report.view import Lines
from flowtally.report.view import Problem
from flowtally.report.view import durations
from flowtally.report.view import timeline
from flowtally.report.view import view
from flowtally.tally import OTHER
from flowtally.tally import SERIES
from flowtally.tally import Tally
from flowtally.vocabulary import CAUSES
from flowtally.vocabulary import UNSUCCESSFUL
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from lab.cli import BEGIN
from lab.cli import Record
from lab.cli import answered
from lab.cli import event
from lab.cli import failed
from lab.cli import tally

HOSTS = st.sampled_from(["", "a.example", "b.example", "c.example", "d.example", "e.example"])
SECONDS = st.integers(0, 5000) | st.integers(-BEGIN - 60_000_000_000, 200_000_000_000)
MILLISECONDS = st.none() | st.floats(0, 1e9) | st.sampled_from([0.0, 0.1, 0.101, 1e14])


@st.composite
def records(draw: st.DrawFn) -> Record:
    """A flow or an event."""
    host, second = draw(HOSTS), draw(SECONDS)
    which = draw(st.sampled_from(["answered", "failed", "event", "ok", "unfinished"]))
    if which == "event":
        return event(draw(st.sampled_from(sorted(CAUSES))), second, host=host)
    fields = {
        "host": host,
        "url": f"http://{host}/{draw(st.sampled_from('xyz'))}",
        "wait_ms": draw(MILLISECONDS),
        "duration_ms": draw(MILLISECONDS),
        "kind": draw(st.sampled_from(["http", "http", "websocket", "dns", "tcp"])),
        "method": draw(st.sampled_from(["GET", "POST", ""])),
        "port": draw(st.sampled_from([80, 8000, None])),
    }
    if which == "failed":
        record = failed(draw(st.sampled_from(sorted(CAUSES))), second)
    else:
        record = answered(draw(st.sampled_from([101, 200, 204, 302, 404, 503, 0, 999])), second)
        if which != "answered":
            record["outcome"] = which
            for name in ("status", "band", "description", "error_code", "error_name"):
                record.pop(name, None)
    return {k: v for k, v in (record | fields).items() if v is not None}


TALLIES = st.lists(records(), max_size=60).map(lambda found: tally(*found))


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Tables that overflow."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MAX_HOSTS", "MAX_ENDPOINTS", "MAX_CODES", "MAX_HOSTS_OF_A_CAUSE"):
            patch.setattr(tally_module, name, 4)
        yield


def flows(lines: Sequence[Line]) -> int:
    return sum(line.flows for line in lines)


@given(TALLIES)
@settings(deadline=None)
def test_the_sums_are_those_of_the_tally(found: Tally) -> None:
    shown = view(found, 1000, 1000)
    headline = shown.headline
    bands = [lines.band for lines in shown.bands]
    assert headline.flows == found.flows
    assert headline.flows == flows(bands) + headline.failures + headline.ok + headline.unfinished
    for name in Line.__dataclass_fields__:
        if name in ("flows", "unsuccessful", "request_bytes", "response_bytes"):
            for lines in shown.bands:
                codes = sum(getattr(code, name) for code in lines.codes)
                assert codes == getattr(lines.band, name)
    for rows in (shown.hosts.rows, [lines.band for lines in shown.bands]):
        assert sum(line.share for line in rows) == pytest.approx(
            flows(rows) / found.flows if found.flows else 0
        )
    hosts = shown.hosts.rows
    assert shown.hosts.more == shown.failing.more == shown.slow_endpoints.more == 0
    assert flows(hosts) == found.flows
    assert sum(line.events for line in hosts) == headline.events == found.events
    assert sum(line.failures for line in hosts) == headline.failures
    assert sum(line.unsuccessful for line in hosts) == headline.unsuccessful
    assert sum(line.failures for line in shown.failing.rows) == headline.failures
    assert sum(line.unsuccessful for line in shown.failing.rows) == headline.unsuccessful
    assert flows(shown.protocols) == sum(
        sum(counts.values()) for kind, counts in found.kinds.items() if kind != "http"
    )
    by_code = {
        code: sum(row.count for row in causes.values()) for code, causes in found.errors.items()
    }
    for code, count in by_code.items():
        assert sum(problem.count for problem in shown.problems if problem.code == code) == count
    assert sum(by_code.values()) == headline.failures + headline.unsuccessful + headline.events
    assert sum(p.count for p in shown.problems if not p.code) == headline.unfinished


@given(TALLIES, st.integers(2, 500))
@settings(deadline=None)
def test_the_timeline_counts_everything_once(found: Tally, slots: int) -> None:
    shown = timeline(found, slots)
    assert sum(map(sum, shown.series.values())) == found.flows + found.events
    assert list(shown.series) == [name for name in SERIES if name in shown.series]
    assert all(any(column) for column in shown.series.values())
    assert {len(column) for column in shown.series.values()} <= {len(shown.starts)}
    assert len(shown.starts) <= slots
    steps = {b - a for a, b in pairwise(shown.starts)}
    assert steps <= {shown.seconds}
    # It begins and ends with traffic.
    for end in (0, -1):
        assert not shown.starts or any(column[end] for column in shown.series.values())


def test_the_timeline_is_as_fine_as_there_is_room() -> None:
    found = tally(*(answered(second=second) for second in range(40)))
    assert [(timeline(found, n).seconds, len(timeline(found, n).starts)) for n in (40, 39, 5)] == [
        (1, 40),
        (2, 21),  # the first second is an odd one
        (10, 5),
    ]


def test_a_log_that_tells_of_other_ages_makes_no_endless_timeline() -> None:
    data = tally(answered()).to_data()
    data["timeline"]["buckets"] |= {str(second): [1] * 9 for second in (0, 10**12, -(10**12))}
    try:
        found = Tally.from_data(data)
    except ValueError:
        return  # or it is refused
    assert len(timeline(found).starts) <= MAX_SLOTS


@given(TALLIES)
@settings(deadline=None)
def test_the_distribution_holds_every_time_once(found: Tally) -> None:
    bars = durations(found)
    assert sum(bar.count for bar in bars) == sum(r.duration.count for r in found.hosts.values())
    for bar, following in pairwise(bars):
        assert bar.start < bar.end == following.start
    if bars:
        assert bars[0].count
        assert bars[-1].count


@given(st.floats(0, 1e7))
def test_a_time_is_within_its_bar(milliseconds: float) -> None:
    (bar,) = durations(tally(answered(duration_ms=milliseconds)))
    # The times are counted in microseconds.
    assert bar.start - 0.001 <= milliseconds <= bar.end + 0.001


@given(TALLIES, st.integers(0, 8), st.integers(0, 8))
@settings(deadline=None)
def test_what_is_left_out_is_counted(found: Tally, hosts: int, endpoints: int) -> None:
    shown, whole = view(found, hosts, endpoints), view(found, 1000, 1000)
    for part, full, limit in (
        (shown.hosts, whole.hosts, hosts),
        (shown.failing, whole.failing, endpoints),
        (shown.slow_endpoints, whole.slow_endpoints, endpoints),
    ):
        assert part.rows == full.rows[:limit]
        assert len(part.rows) + part.more == len(full.rows)


def rank(problem: Problem) -> tuple[int, int]:
    if not problem.code:
        return 2, 0
    return problem.code == UNSUCCESSFUL, -problem.count


@given(TALLIES)
@settings(deadline=None)
def test_order(found: Tally) -> None:
    shown = view(found, 1000, 1000)
    problems = list(map(rank, shown.problems))
    assert problems == sorted(problems)
    tables: list[tuple[Lines, Callable[[Line], int]]] = [
        (shown.hosts, lambda line: line.flows + line.events),
        (shown.failing, lambda line: line.problems),
    ]
    for lines, count in tables:
        rows = lines.rows
        assert OTHER not in [line.name for line in rows[:-1]]
        counts = [count(line) for line in rows if line.name != OTHER]
        assert counts == sorted(counts, reverse=True)
    assert all(line.problems for line in shown.failing.rows)
    assert OTHER not in [line.name for line in shown.slow_endpoints.rows]
    took = [request["duration_ms"] for request in shown.slowest]
    assert took == sorted(took, reverse=True)


def test_the_order_of_problems() -> None:
    unfinished = {**answered(), "outcome": "unfinished"}
    found = tally(
        *[unfinished] * 9,
        *[answered(404)] * 8,
        *[answered(503)] * 3,
        *[failed("connection_refused")] * 2,
        *[failed("http_response_timeout")] * 2,
        event("dns_error"),
        failed("connection_timeout"),
    )
    assert [(p.count, p.code, p.cause) for p in view(found, 0, 0).problems] == [
        (2, -2, "connection_refused"),
        (2, -6, "http_response_timeout"),
        (1, -2, "dns_error"),
        (1, -6, "connection_timeout"),
        (8, -3, "404"),
        (3, -3, "503"),
        (9, 0, "unfinished"),
    ]


def test_a_problem_says_what_is_known_of_it() -> None:
    found = tally(
        *(failed(host=f"h{n}", port=8000, second=n) for n in (1, 2, 3, 3)),
        answered(404, url="http://shop.example/x"),
    )
    refused, missing = view(found, 0, 0).problems
    assert (refused.name, refused.side, refused.band) == ("ConnectionErr", "server", "")
    assert refused.advice == CAUSES["connection_refused"].advice
    assert refused.hosts == [("h3:8000", 2), ("h1:8000", 1), ("h2:8000", 1)]
    assert refused.more_hosts == 0
    assert [example["host"] for example in refused.examples] == ["h3", "h2", "h1"]
    assert (missing.description, missing.band) == ("Not found", "Client error")
    assert (missing.side, missing.advice, missing.more_hosts) == ("", "", 0)


def test_other_hosts_of_a_problem_are_more_and_have_no_name() -> None:
    found = tally(*(failed(host=f"h{n}") for n in range(9)))
    (problem,) = view(found, 0, 0).problems
    assert problem.hosts == [(f"h{n}", 1) for n in range(4)]
    assert problem.more_hosts == 1
    shown = view(found, 10, 10)
    assert [line.name for line in shown.hosts.rows] == ["h0", "h1", "h2", "h3", OTHER]
    assert shown.hosts.rows[-1].flows == 5


def test_protocols() -> None:
    found = tally(
        *({**answered(), "kind": "dns", "method": m, "outcome": "ok"} for m in ("A", "AAAA", "A")),
        *({**answered(101), "kind": "websocket", "close_code": c} for c in (1000, 1006, 1000)),
        {**failed(), "kind": "connect", "method": "CONNECT"},
        answered(),
    )
    assert [(line.name, line.flows, line.note) for line in view(found, 0, 0).protocols] == [
        ("CONNECT refused", 1, "CONNECT (1)"),
        ("DNS", 3, "A (2), AAAA (1)"),
        ("WebSocket", 3, "closed with 1000 (2), closed with 1006 (1)"),
    ]
