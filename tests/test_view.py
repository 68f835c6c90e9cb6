"""What a report says: nothing is lost on the way from the tally, and all is in its order."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from itertools import pairwise

import pytest
from flowtally import tally as tally_module
from flowtally.incidents import incidents
from flowtally.incidents import weight
from flowtally.report.view import Line
from flowtally.report.view import Problem
from flowtally.report.view import apart
from flowtally.report.view import durations
from flowtally.report.view import in_words
from flowtally.report.view import timeline
from flowtally.report.view import view
from flowtally.rows import COUNTS
from flowtally.rows import MAX_BUCKETS
from flowtally.rows import OTHER
from flowtally.rows import SERIES
from flowtally.tally import Tally
from flowtally.vocabulary import CAUSES
from flowtally.vocabulary import Why
from flowtally.vocabulary import client_words
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from lab.cli import BEGIN
from lab.cli import FAILURES
from lab.cli import Record
from lab.cli import answer
from lab.cli import answered
from lab.cli import cancelled
from lab.cli import event
from lab.cli import failed
from lab.cli import limited
from lab.cli import tally

HOSTS = st.sampled_from(["", "a.example", "b.example", "c.example", "d.example", "e.example"])
SECONDS = st.integers(0, 5000) | st.integers(-BEGIN - 60_000_000_000, 200_000_000_000)
MILLISECONDS = st.none() | st.floats(0, 1e9) | st.sampled_from([0.0, 0.1, 0.101, 1e14])


@st.composite
def records(draw: st.DrawFn) -> Record:
    """A flow or an event."""
    host, second = draw(HOSTS), draw(SECONDS)
    which = draw(
        st.sampled_from(
            ["answered", "failed", "cancelled", "overlay", "answer", "event", "ok", "unfinished"]
        )
    )
    background = draw(st.sampled_from([{}, {}, {}, {"background": "Chromium"}]))
    if which == "event":
        return event(draw(st.sampled_from(FAILURES)), second, host=host, **background)
    fields = {
        "host": host,
        "url": f"http://{host}/{draw(st.sampled_from('xyz'))}",
        "wait_ms": draw(MILLISECONDS),
        "duration_ms": draw(MILLISECONDS),
        "kind": draw(st.sampled_from(["http", "http", "websocket", "dns", "tcp"])),
        "method": draw(st.sampled_from(["GET", "POST", ""])),
        "port": draw(st.sampled_from([80, 8000, None])),
    }
    fields |= background
    if which == "failed":
        record = failed(draw(st.sampled_from(FAILURES)), second)
        record |= draw(st.sampled_from([{}, {"reason": "reset"}, {"reason": "collateral"}]))
    elif which == "cancelled":
        record = cancelled(second)
    elif which == "overlay":
        record = answered(200, second) | {"cause": "cors_blocked", "error_code": -1}
    elif which == "answer":
        # Of a challenge that was counted too: the sums are exact.
        record = answered(401, second, answers="x", challenge=401)
        fields["kind"] = "http"
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
        names = ("hosts", "endpoints", "codes", "incidents")
        patch.setattr(tally_module, "TABLES", limited(4, *names))
        yield


def total(lines: Iterable[Line], field: str = "flows") -> float:
    """The sum of a column."""
    return sum(number(line, field) for line in lines)


def number(line: Line, field: str) -> float:
    value = line.values[field]
    assert isinstance(value, int | float)
    return value


@given(TALLIES)
@settings(deadline=None)
def test_the_sums_are_those_of_the_tally(found: Tally) -> None:
    shown = view(found, 1000)
    headline = shown.totals
    status, hosts = shown.lines("bands").rows, shown.lines("hosts").rows
    bands = [line for line in status if line.total]
    assert headline.flows == found.flows
    assert headline == found.totals()
    rest = headline.failures + headline.cancelled + headline.ok + headline.unfinished
    assert headline.flows == total(bands) + rest
    for band in bands:
        codes = [line for line in status if line.band == band.band and not line.total]
        for field in ("flows", "request_bytes", "response_bytes"):
            assert total(codes, field) == band.values[field]
    assert total(bands, "share") * found.flows == pytest.approx(total(bands))
    for field in ("flows", "failures", "unsuccessful", "events", "cancelled"):
        assert total(hosts, field) == getattr(headline, field)
    assert all(lines.more == 0 for lines in shown.tables)
    assert total(shown.lines("protocols").rows) == sum(
        row.flows for (kind, _), row in found["methods"].items() if kind != "http"
    )
    by_code: dict[int, int] = {}
    for (text, *_), row in found["causes"].items():
        code = int(text or 0)
        by_code[code] = by_code.get(code, 0) + row.problems
    for code, count in by_code.items():
        assert sum(problem.count for problem in shown.problems if problem.code == code) == count
    assert sum(problem.count for problem in shown.problems) == headline.problems
    assert sum(p.count for p in shown.apart) == headline.unfinished + headline.cancelled
    assert all(problem.code and not problem.apart for problem in shown.problems)
    assert all(each.apart and not each.code for each in shown.apart)
    for problem in (*shown.problems, *shown.apart):
        assert sum(host.times for host in problem.hosts) <= problem.count
        assert all(host.times for host in problem.hosts)


@given(TALLIES, st.integers(2, 500))
@settings(deadline=None)
def test_the_timeline_counts_everything_once(found: Tally, slots: int) -> None:
    shown = timeline(found, slots)
    totals = found.totals()
    assert sum(map(sum, shown.series.values())) == totals.attempts
    assert sum(shown.unsuccessful) == totals.unsuccessful
    assert len(shown.unsuccessful) == len(shown.starts)
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
    found = tally(answered())
    for second in (0, 10**11, -(10**11)):
        key = ["1", str(second), "Success"]
        found.take({"table": "timeline", "key": key, "flows": 1})
    assert len(timeline(found).starts) <= MAX_BUCKETS


@given(TALLIES)
@settings(deadline=None)
def test_the_distribution_holds_every_time_once(found: Tally) -> None:
    bars = durations(found)
    assert sum(bar.count for bar in bars) == sum(
        row.duration.count for row in found["hosts"].values()
    )
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


@given(TALLIES, st.integers(0, 8))
@settings(deadline=None)
def test_what_is_left_out_is_counted(found: Tally, rows: int) -> None:
    for cut, full in zip(view(found, rows).tables, view(found, 1000).tables, strict=True):
        limit = len(full.rows) if cut.table.most is None else rows
        assert cut.rows == full.rows[:limit]
        assert len(cut.rows) + cut.more == len(full.rows)


def weights_of(found: Tally) -> dict[tuple[int, str, str], float]:
    """What the incidents of each problem weigh together."""
    weights: dict[tuple[int, str, str], float] = {}
    for each in incidents(found):
        key = each.code, each.cause, each.reason
        weights[key] = weights.get(key, 0) + weight(each)
    return weights


@given(TALLIES)
@settings(deadline=None)
def test_order(found: Tally) -> None:
    shown = view(found, 1000)
    weights = weights_of(found)
    problems = [weights.get((p.code, p.cause, p.reason), p.count) for p in shown.problems]
    assert problems == sorted(problems, reverse=True)
    for id, fields in (
        ("hosts", ("flows", "events")),
        ("failing", ("failures", "unsuccessful")),
    ):
        rows = shown.lines(id).rows
        assert OTHER not in [line.name for line in rows[:-1]]
        counts = [sum(number(line, f) for f in fields) for line in rows if line.name != OTHER]
        # What was answered, and what is collateral, does not push an endpoint up.
        assert id == "failing" or counts == sorted(counts, reverse=True)
        assert id != "failing" or all(counts)
    assert OTHER not in [line.name for line in shown.lines("slow-endpoints").rows]
    took = [number(line, "duration_ms") for line in shown.lines("slowest").rows]
    assert took == sorted(took, reverse=True)


def test_the_order_of_problems() -> None:
    unfinished = {**answered(), "outcome": "unfinished"}
    found = tally(
        *[unfinished] * 9,
        *[cancelled()] * 20,
        *[answered(404)] * 16,  # a quarter of its weight each, as it is the client's
        *[answered(503)] * 3,
        *[failed("connection_refused")] * 2,
        *[failed("http_response_timeout")] * 2,
        event("dns_error"),
        *[failed("dns_error", reason="nxdomain")] * 2,
        failed("connection_timeout"),
        *[failed("dns_error", reason="collateral")] * 7,
    )
    shown = view(found, 0)
    # One that has twice the weight of others because nothing of its host was right comes before
    # them; equals by their codes.
    assert [(p.count, p.code, p.cause, p.reason) for p in shown.problems] == [
        (16, -3, "404", ""),
        (3, -3, "503", ""),
        (2, -2, "connection_refused", ""),
        (1, -2, "dns_error", ""),
        (2, -2, "dns_error", "nxdomain"),
        (2, -6, "http_response_timeout", ""),
        (1, -6, "connection_timeout", ""),
    ]
    assert [(each.count, each.cause) for each in shown.apart] == [
        (20, "client_cancelled"),
        (9, "unfinished"),
    ]


def test_a_problem_says_what_is_known_of_it() -> None:
    found = tally(
        *(failed(host=f"h{n}", port=8000, second=n) for n in (1, 2, 3, 3)),
        answered(404, url="http://shop.example/x"),
    )
    refused, missing = view(found, 0).problems
    assert (refused.name, refused.side, refused.band) == ("ConnectionErr", "server", "")
    assert refused.advice == CAUSES["connection_refused"].advice
    assert refused.hosts == [("h3:8000", 2, False), ("h1:8000", 1, False), ("h2:8000", 1, False)]
    assert refused.more_hosts == 0
    assert [example["host"] for example in refused.examples] == ["h3", "h2", "h1"]
    assert (missing.description, missing.band) == ("Not found", "Client error")
    assert (missing.side, missing.advice, missing.more_hosts) == ("", "", 0)


def test_a_reason_has_words_of_its_own() -> None:
    found = tally(failed("connection_terminated"), failed("connection_terminated", reason="reset"))
    general, reset = view(found, 0).problems
    assert (general.reason, reset.reason) == ("", "reset")
    assert general.advice == CAUSES["connection_terminated"].advice != reset.advice
    assert reset.client_words == client_words(Why("connection_terminated", "reset"))
    assert reset.client_words != general.client_words == client_words(Why(general.cause))


def test_hosts_whose_challenges_were_answered_have_no_problem() -> None:
    found = tally(
        *(answered(401, host="a", url="http://a/", flow=f"a{n}") for n in range(9)),
        *(answer(host="a", url="http://a/", answers=f"a{n}") for n in range(9)),
        *(answered(401, host="b", url="http://b/", flow=f"b{n}") for n in range(3)),
        answer(host="b", url="http://b/", answers="b1"),
    )
    shown = view(found)
    (problem,) = shown.problems
    assert (problem.cause, problem.count, problem.more_hosts) == ("401", 2, 0)
    assert problem.hosts == [("b", 2, False)]
    assert [line.name for line in shown.lines("failing").rows] == ["GET http://b/"]


def test_what_is_no_problem_is_said_in_a_sentence_each() -> None:
    def where(each: Problem, said: str) -> str:
        return f" at {each.hosts[0].host} ({len(said)})"

    found = tally(
        cancelled(host="a"),
        *[cancelled(reason="left_upload", host="b")] * 2,
        {**answered(), "outcome": "unfinished"},
        answered(401, flow="asked"),
        answer(),
        failed(reason="collateral"),
        answered(background="Chromium"),
        event(background="Chromium"),
    )
    assert apart(view(found), where) == [
        "2 cancelled by the client (left_upload) at b (39)",
        "1 cancelled by the client at a (25)",
        "1 unfinished at shop.example (12)",
        "1 login asked for, and given",
        "1 failed only because another one did",
        "2 that browsers and systems made on their own, not counted above",
    ]
    assert apart(view(tally(failed(), answered(401))), where) == []


def test_other_hosts_of_a_problem_are_more_and_have_no_name() -> None:
    found = tally(*(failed(host=f"h{n}") for n in range(9)))
    (problem,) = view(found, 0).problems
    assert problem.hosts == [(f"h{n}", 1, False) for n in range(4)]
    assert problem.more_hosts == 1
    shown = view(found, 10)
    rows = shown.lines("hosts").rows
    assert [line.name for line in rows] == ["h0", "h1", "h2", "h3", OTHER]
    assert rows[-1].values["flows"] == 5


def test_protocols() -> None:
    found = tally(
        *({**answered(), "kind": "dns", "method": m, "outcome": "ok"} for m in ("A", "AAAA", "A")),
        *({**answered(101), "kind": "websocket", "close_code": c} for c in (1000, 1006, 1000)),
        {**failed(), "kind": "connect", "method": "CONNECT"},
        answered(),
    )
    rows = view(found, 0).lines("protocols").rows
    assert [(line.name, line.values["flows"], line.values["note"]) for line in rows] == [
        ("CONNECT refused", 1, "CONNECT (1)"),
        ("DNS", 3, "A (2), AAAA (1)"),
        ("WebSocket", 3, "closed with 1000 (2), closed with 1006 (1)"),
    ]


def test_a_host_has_its_port_unless_that_is_usual() -> None:
    found = tally(*(answered(port=port) for port in (80, 443, 8443, 8443)))
    rows = view(found).lines("hosts").rows
    assert [(line.name, line.values["flows"]) for line in rows] == [
        ("shop.example", 2),
        ("shop.example:8443", 2),
    ]


def test_the_slowest_requests_say_when_they_began() -> None:
    found = tally(answered(second=20, duration_ms=12_500.0))
    (line,) = view(found).lines("slowest").rows
    assert line.values["started"] == "2026-01-02T03:04:12.500Z"


@pytest.mark.parametrize("time", ["", "yesterday", "0001-01-01T00:00:00.000Z"])
def test_a_request_of_which_nobody_knows_when_it_began(time: str) -> None:
    row = {"table": "slowest", "key": [], "examples": [{"time": time, "duration_ms": 1e14}]}
    found = tally()
    found.take(row)
    (line,) = view(found).lines("slowest").rows
    assert line.values["started"] in (time, "1970-01-01T00:00:00.000Z")


def test_what_another_session_may_hold_under_other_is_at_least() -> None:
    found = tally(*(failed(host="new") for _ in range(9)))
    found.merge(tally(*(failed(host=f"h{n}") for n in range(6))))
    shown = view(found)
    marked = {line.name: line.at_least for line in shown.lines("hosts").rows}
    assert marked["new"]
    assert not marked[OTHER]
    (problem,) = shown.problems
    assert problem.hosts[0] == ("new", 9, True)
    assert not problem.at_least


def test_equal_waits() -> None:
    left = {"client": "10.0.0.1", "url": "http://shop.example/slow"}
    found = view(
        tally(
            *(failed("http_response_timeout", n, duration_ms=4000.0 + n, **left) for n in range(3)),
            *(cancelled(10 + n, duration_ms=4010.0, **left) for n in range(2)),
            # Somebody else, at once, and a failure that nobody waited for.
            cancelled(20, duration_ms=4000.0, **left | {"client": "10.0.0.2"}),
            cancelled(21, duration_ms=40.0, **left),
            failed("connection_refused", 22, duration_ms=4000.0, **left),
        )
    ).waits
    assert [in_words(wait) for wait in found] == [
        "GET http://shop.example/slow: 10.0.0.1 left 5 of 5 after 4.0 s: the client's own timeout"
    ]


@pytest.mark.parametrize("step", [OTHER, "", "x", "99999", "-1"])
def test_a_log_may_say_anything_of_waits(step: str) -> None:
    found = Tally()
    row = {"table": "waits", "key": ["10.0.0.1", "GET http://a/", step]}
    found.take(row | dict.fromkeys(COUNTS, 9))
    assert view(found).waits == []
