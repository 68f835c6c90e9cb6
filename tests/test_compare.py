"""What is different between two sessions, and what only looks so."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from html import unescape
from math import comb
from pathlib import Path
from random import Random
from typing import Any

import pytest
from flowtally import chance as module
from flowtally import tally as tally_module
from flowtally.chance import Proportion
from flowtally.chance import chance
from flowtally.comparison import compare
from flowtally.differences import Change
from flowtally.differences import Comparison
from flowtally.differences import Shift
from flowtally.report.comparison_text import text
from flowtally.rows import OTHER
from flowtally.tally import Tally
from flowtally.vocabulary import CAUSES
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from lab.cli import FAILURES
from lab.cli import HOSTILE
from lab.cli import Record
from lab.cli import answer
from lab.cli import answered
from lab.cli import cancelled
from lab.cli import event
from lab.cli import failed
from lab.cli import final
from lab.cli import limited
from lab.cli import lines
from lab.cli import run
from lab.cli import start
from lab.cli import tally

PAY = "http://shop.example/pay"
LIST = "http://shop.example/list"
OLD = "http://old.example/logo.png"

BEFORE = [
    *(answered(200, second, url=LIST, duration_ms=20.0 + second % 7) for second in range(60)),
    *(failed(second=5 * turn, detail="no one there", url=PAY) for turn in range(12)),
    *(answered(200, 1, url=PAY) for _ in range(8)),
    answered(404, 5, url=OLD, host="old.example"),
    *(answered(500, 6) for _ in range(3)),
]
AFTER = [
    *(answered(200, second, url=LIST, duration_ms=30.0 + second % 7) for second in range(90)),
    *(answered(200, 1, url=PAY) for _ in range(30)),
    answered(503, 7, url=PAY),
    *(answered(500, 6) for _ in range(3)),
    *(event(second=8) for _ in range(6)),
    *(answered(200, 9, url=f"http://new.example/{name}", host="new.example") for name in "ab"),
]

SLOWER = "Slower: GET http://shop.example/list (p50 23 ms → 33 ms), and 3 more."

COMPARED = """\
Slower: GET http://shop.example/list (p50 23 ms → 33 ms), and 3 more. Fixed: 1 problem gone. New: 2
problems, all too rare, or too close together in time, to be sure. Gone: 1 problem, but what had it
was not called again, too rare to be sure. Failed 14.3 % → 0.0 % of flows. Unsuccessful
4.8 % → 3.2 % of flows.

Before: 84 flows, 12 failed (14.3 %), 4 unsuccessful, over 59.0 s
After:  126 flows, 4 unsuccessful, 6 failures without a flow, over 1 min 29 s

Endpoint: problems               before    after
  GET http://shop.example/pay  12 of 20  1 of 31

Duration                             before  after
  GET http://shop.example/list  p50   23 ms  33 ms  +42 %
  GET http://shop.example/list  p95   26 ms  36 ms  +40 %
  shop.example                  p95   26 ms  36 ms  +40 %
  shop.example                  p50   24 ms  33 ms  +37 %
  All flows                     p95   26 ms  36 ms  +40 %
  All flows                     p50   24 ms  33 ms  +37 %
  Success                       p50   23 ms  33 ms  +42 %
  Success                       p95   26 ms  36 ms  +40 %

Fixed                         before  after
  -2 connection_refused  12 (14.3 %)      0
       incident [a1ec4aca]

New                           before      after
  -2 client_tls_rejected           0  6 (4.5 %)  may be chance
       Install mitmproxy's CA certificate on the client (http://mitm.it); an app that pins its
       certificate must be rebuilt without pinning, or its host excluded with ignore_hosts.
       last: pinned.example
       incident [125a36ca]
  -3 503 Service unavailable       0  1 (0.8 %)  may be chance
       last: GET http://shop.example/pay
       incident [e611d7b3]

Gone, but not called again     before  after
  -3 404 Not found          1 (1.2 %)      0  may be chance
       incident [a2592f5e]

Host only after   flows
  pinned.example      6  may be chance
  new.example         2  may be chance

Host only before  flows
  old.example         1  may be chance
"""


def flipped(comparison: Comparison) -> Comparison:
    """The same, seen from the other side; `end` and `latest` are of one side only."""
    ways: dict[str, Any] = {
        "appeared": "vanished",
        "vanished": "appeared",
        "more": "fewer",
        "fewer": "more",
    }

    def changes(found: tuple[Change, ...]) -> tuple[Change, ...]:
        return tuple(
            replace(c, direction=ways[c.direction], before=c.after, after=c.before) for c in found
        )

    return replace(
        comparison,
        before=comparison.after,
        after=comparison.before,
        problems=changes(comparison.problems),
        error_codes=changes(comparison.error_codes),
        status_codes=changes(comparison.status_codes),
        hosts=changes(comparison.hosts),
        endpoints=changes(comparison.endpoints),
        durations=tuple(
            replace(
                shift,
                before=shift.after,
                after=shift.before,
                samples_before=shift.samples_after,
                samples_after=shift.samples_before,
            )
            for shift in comparison.durations
        ),
        traffic_hosts=replace(
            comparison.traffic_hosts,
            appeared=comparison.traffic_hosts.vanished,
            vanished=comparison.traffic_hosts.appeared,
        ),
        traffic_endpoints=replace(
            comparison.traffic_endpoints,
            appeared=comparison.traffic_endpoints.vanished,
            vanished=comparison.traffic_endpoints.appeared,
        ),
    )


def two_sided(comparison: Comparison) -> Comparison:
    """Without what is said of one side only, and in an order that does not mind what is worse."""

    def changes(found: tuple[Change, ...]) -> tuple[Change, ...]:
        plain = (replace(c, end="fixed", latest="", description="") for c in found)
        return tuple(sorted(plain, key=lambda c: (c.name, c.reason, c.error_code or 0)))

    def shifts(found: tuple[Shift, ...]) -> tuple[Shift, ...]:
        # The probability of the other way round is rounded otherwise.
        plain = (replace(shift, longer=0.0) for shift in found)
        return tuple(sorted(plain, key=lambda s: (s.table, s.name, s.percentile)))

    return replace(
        comparison,
        problems=changes(comparison.problems),
        error_codes=changes(comparison.error_codes),
        status_codes=changes(comparison.status_codes),
        hosts=changes(comparison.hosts),
        endpoints=changes(comparison.endpoints),
        durations=shifts(comparison.durations),
    )


# --- the test statistic ---


def exactly(one: Proportion, other: Proportion) -> Fraction:
    """Fisher's exact test in whole numbers: twice the smaller tail."""
    total, hits = one.of + other.of, one.count + other.count
    ways = {
        x: comb(one.of, x) * comb(other.of, hits - x)
        for x in range(max(0, hits - other.of), min(hits, one.of) + 1)
    }
    low = sum(count for x, count in ways.items() if x <= one.count)
    high = sum(count for x, count in ways.items() if x >= one.count)
    return min(Fraction(1), Fraction(2 * min(low, high), comb(total, hits)))


PROPORTIONS = st.integers(0, 200).flatmap(
    lambda of: st.builds(Proportion, st.integers(0, of), st.just(of)),
)


@given(PROPORTIONS, PROPORTIONS)
def test_the_test_is_fishers(one: Proportion, other: Proportion) -> None:
    assert chance(one, other) == pytest.approx(float(exactly(one, other)), rel=1e-6)


@given(PROPORTIONS, PROPORTIONS)
def test_the_test_does_not_mind_the_order(one: Proportion, other: Proportion) -> None:
    assert chance(one, other) == chance(other, one)


def test_from_a_large_variance_on_it_is_approximate(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Proportion(50_600, 100_000), Proportion(50_000, 100_000)
    approximate = chance(one, other)
    monkeypatch.setattr(module, "LARGE_VARIANCE", 10**9)
    assert approximate == pytest.approx(chance(one, other), rel=0.02)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Proportion(2**60, 2**62), Proportion(2**61, 2**62)),
        (Proportion(1, 2**62), Proportion(5, 2**62)),
        (Proportion(9, 3), Proportion(0, 3)),
        (Proportion(2**62, 5), Proportion(3, 2**62)),
        (Proportion(0, 0), Proportion(0, 0)),
    ],
)
def test_numbers_that_no_session_has(one: Proportion, other: Proportion) -> None:
    assert 0 <= chance(one, other) <= 1


# --- properties ---

HOSTS = st.sampled_from(["a.example", "b.example", "c.example"])
RECORDS = st.lists(
    st.one_of(
        st.builds(
            lambda status, host, ms: answered(
                status, host=host, url=f"http://{host}/{status}", duration_ms=ms
            ),
            st.sampled_from([200, 204, 304, 404, 500, 999]),
            HOSTS,
            st.floats(0, 1e5),
        ),
        st.builds(lambda cause, host: failed(cause, host=host), st.sampled_from(FAILURES), HOSTS),
        st.builds(
            lambda cause, reason: failed(cause, reason=reason),
            st.sampled_from(["connection_terminated", "connection_refused"]),
            st.sampled_from(["reset", "collateral", "x"]),
        ),
        st.builds(lambda host: event(host=host), HOSTS),
        st.builds(lambda host: cancelled(host=host), HOSTS),
        st.builds(lambda host: answered(401, host=host, flow=f"asked {host}"), HOSTS),
        st.builds(lambda host: answer(host=host, answers=f"asked {host}"), HOSTS),
        st.just(failed(background="Windows")),
    ),
    max_size=30,
)
TALLIES = st.builds(
    lambda records, times: tally(*(records * times)), RECORDS, st.sampled_from([1, 3, 40])
)


@given(TALLIES)
@settings(max_examples=40)
def test_a_session_does_not_differ_from_itself(found: Tally) -> None:
    comparison = compare(found, found)
    assert not comparison.different
    assert text(comparison)[0].startswith(("No difference", "Nothing came through"))


@given(TALLIES, TALLIES)
@settings(max_examples=60)
def test_swapped_sides_swap_what_is_found(before: Tally, after: Tally) -> None:
    there, back = compare(before, after), compare(after, before)
    assert two_sided(flipped(there)) == two_sided(back)


@given(TALLIES, TALLIES, st.sampled_from([1, 80, 90, 300]))
@settings(max_examples=40)
def test_nothing_is_wider_than_the_terminal(before: Tally, after: Tally, width: int) -> None:
    found = text(compare(before, after), width)
    assert max(map(len, found)) <= min(100, max(80, width))
    assert all(line.isprintable() for line in found)


@given(TALLIES, TALLIES)
@settings(max_examples=40)
def test_the_data_is_plain_and_says_the_same(before: Tally, after: Tally) -> None:
    comparison = compare(before, after)
    data = json.loads(json.dumps(comparison.to_data()))
    assert data["different"] == comparison.different
    listed = [data[name] for name in ("problems", "hosts", "endpoints", "durations")]
    assert [len(rows) for rows in listed] == [
        len(comparison.problems),
        len(comparison.hosts),
        len(comparison.endpoints),
        len(comparison.durations),
    ]


# --- chance, and what is none ---


def session(
    random: Random, flows: int, slower: float = 1.0, failing: float = 0.05, tail: float = 1.0
) -> Tally:
    """Flows to five endpoints, log-normally distributed in time, some of which fail."""
    records = []
    for number in range(flows):
        ms = 50 * slower * random.lognormvariate(0, 0.35)
        if random.random() < 0.1:
            ms *= tail
        url = f"http://shop.example/{'abcde'[number % 5]}"
        make: Callable[..., Record] = failed if random.random() < failing else answered
        records.append(make(second=number % 60, url=url, duration_ms=ms))
    return tally(*records)


def test_two_sessions_of_a_kind_do_not_differ() -> None:
    random = Random(1)
    different = [
        compare(session(random, 200), session(random, flows)).certain
        for flows in (200, 400, 1000)
        for _ in range(20)
    ]
    assert sum(different) <= 4  # of sixty; one in twenty is what is allowed for


def test_a_shift_of_a_third_with_200_samples_is_found() -> None:
    random = Random(2)
    for _ in range(20):
        found = compare(session(random, 200), session(random, 200, slower=1.3))
        (shift,) = (s for s in found.durations if (s.table, s.percentile) == ("all", "p50"))
        assert shift.slower
        assert (shift.samples_before, shift.samples_after) == (200, 200)
        assert shift.after / shift.before == pytest.approx(1.3, rel=0.25)


def test_a_longer_tail_is_found_where_the_median_stays() -> None:
    random = Random(3)
    found = compare(session(random, 4000), session(random, 4000, tail=20))
    assert {(s.percentile, s.slower) for s in found.durations if s.table == "all"} == {
        ("p95", True)
    }


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ((10, 100), (20, 200), []),  # twice as much of twice as much
        ((10, 100), (10, 1000), ["fewer"]),
        ((10, 100), (60, 200), ["more"]),
        ((10, 100), (13, 100), []),
        ((50_000, 1_000_000), (51_500, 1_000_000), []),  # certain, and too small to matter
        ((0, 100), (1, 100), ["appeared"]),
        ((1, 100), (0, 100), ["vanished"]),
        ((0, 100), (0, 500), []),
        ((5, 5), (0, 0), ["vanished"]),
    ],
)
def test_shares_are_compared(
    before: tuple[int, int], after: tuple[int, int], found: list[str]
) -> None:
    def side(failures: int, flows: int) -> Tally:
        made = Tally()
        rows = [
            {"table": "timeline", "key": ["1", "0", "Success"], "flows": flows - failures},
            {"table": "timeline", "key": ["1", "0", "error"], "flows": failures},
            {
                "table": "causes",
                "key": ["-2", "connection_refused", ""],
                "flows": failures,
                "failures": failures,
            },
        ]
        for row in rows:
            if row["flows"]:
                made.take(row)
        return made

    comparison = compare(side(*before), side(*after))
    assert [change.direction for change in comparison.problems] == found
    assert [change.direction for change in comparison.error_codes] == found


def _fails(number: int, failures: int, flows: int) -> bool:
    """Whether a flow is one of so many failures, which are spread evenly over all flows."""
    return (number + 1) * failures // flows > number * failures // flows


def test_one_of_many_hosts_that_differs_by_chance_is_no_difference() -> None:
    def side(failing: dict[int, int]) -> Tally:
        return tally(
            *(
                (failed if _fails(number, failing.get(host, 5), 30) else answered)(
                    second=7 * number, host=f"h{host}", url="http://h/"
                )
                for host in range(100)
                for number in range(30)
            )
        )

    assert compare(side({}), side({7: 13})).hosts == ()  # p = 0.05, of a hundred
    assert [change.name for change in compare(side({}), side({7: 28})).hosts] == ["h7"]


@pytest.mark.parametrize(
    ("before", "after", "listed"),
    [
        ((0, 1), (1, 1), ["appeared"]),
        ((2, 2), (0, 3), ["vanished"]),
        ((0, 40), (1, 40), []),
        ((0, 40), (20, 40), ["appeared"]),
        ((3, 3), (5, 5), []),
    ],
)
def test_an_endpoint_that_broke_or_was_fixed(
    before: tuple[int, int], after: tuple[int, int], listed: list[str]
) -> None:
    def side(failures: int, flows: int) -> Tally:
        # The problem as such is there on both sides.
        return tally(
            *(answered(500, url="http://shop.example/always") for _ in range(9)),
            *(
                answered(500 if _fails(n, failures, flows) else 200, 7 * n, url=PAY)
                for n in range(flows)
            ),
        )

    found = compare(side(*before), side(*after)).endpoints
    assert [change.direction for change in found] == listed
    assert {change.name for change in found} <= {f"GET {PAY}"}


def test_few_times_say_nothing() -> None:
    def side(count: int, ms: float) -> Tally:
        return tally(*(answered(second=second, duration_ms=ms) for second in range(count)))

    assert compare(side(19, 10.0), side(500, 1000.0)).durations == ()
    assert len(compare(side(20, 10.0), side(500, 1000.0)).durations) == 8
    assert compare(side(500, 1.0), side(500, 4.0)).durations == ()  # nobody notices
    assert compare(side(500, 1000.0), side(500, 1070.0)).durations == ()


def test_what_was_not_called_again_is_not_fixed() -> None:
    before = tally(
        failed(url="http://a.example/x", host="a.example"),
        failed("dns_error", url="http://b.example/x", host="b.example"),
        event(host="c.example"),
        event("tls_protocol_error", host="d.example", port=8443),
        event("tls_alert_received", host="e.example", port=8443),
    )
    after = tally(
        answered(url="http://a.example/x?y=1", host="a.example"),
        answered(url="http://b.example/other", host="b.example"),
        answered(url="http://d.example:8443/", host="d.example", port=8443),
        answered(url="http://e.example/", host="e.example"),
    )
    ends = {change.name: change.end for change in compare(before, after).problems}
    assert ends == {
        "connection_refused": "fixed",
        "dns_error": "not called again",
        "client_tls_rejected": "not called again",
        "tls_protocol_error": "fixed",
        "tls_alert_received": "not called again",  # another port is another host
    }


@pytest.mark.parametrize(
    ("before", "after", "end"),
    [
        ([failed()], [failed("dns_error")], "fails otherwise"),
        ([failed(), answered()], [failed("dns_error"), answered()], "fails otherwise"),
        ([failed(), failed("dns_error"), answered()], [failed("dns_error"), answered()], "fixed"),
        ([failed()], [answered(), failed("dns_error")], "fixed"),
        ([failed()], [answered(), failed("dns_error", url=LIST)], "fixed"),
        ([event(), event()], [event("tls_alert_received")], "fails otherwise"),
    ],
    ids=["all", "as often", "less", "seldom", "elsewhere", "host"],
)
def test_what_fails_as_often_with_another_cause_is_not_fixed(
    before: list[Record], after: list[Record], end: str
) -> None:
    comparison = compare(tally(*before), tally(*after))
    gone = {change.end for change in comparison.problems if change.direction == "vanished"}
    assert gone == {end}
    said = text(comparison)
    assert ("Fixed:" in said[0]) is (end == "fixed")
    assert any("Gone, but fails otherwise now" in line for line in said) is (end != "fixed")


@pytest.mark.parametrize(
    ("failures", "why"),
    [(1, "too rare to be sure"), (20, "too rare, or too close together in time, to be sure")],
)
def test_why_something_may_be_chance(failures: int, why: str) -> None:
    calm = [answered(second=second) for second in range(0, 600, 5)]
    burst = [failed(second=300 + number / 10) for number in range(failures)]
    comparison = compare(tally(*calm), tally(*calm, *burst))
    assert [new.clear for new in comparison.problems] == [False]
    assert f"New: 1 problem, {why}." in " ".join(text(comparison))


def test_reasons_are_compared_one_by_one() -> None:
    before = tally(*[failed(reason="reset")] * 30, *[failed()] * 30)
    after = tally(*[failed(reason="expired")] * 30, *[failed()] * 30)
    found = compare(before, after)
    assert {(c.name, c.reason): c.direction for c in found.problems} == {
        ("connection_refused", "reset"): "vanished",
        ("connection_refused", "expired"): "appeared",
    }
    assert found.error_codes == ()
    said = text(found)
    assert any("-2 connection_refused (reset)" in line for line in said)
    assert any("-2 connection_refused (expired)" in line for line in said)
    assert [problem["reason"] for problem in found.to_data()["problems"]] == ["expired", "reset"]


def test_a_reason_has_its_own_advice() -> None:
    (change,) = compare(
        tally(answered()), tally(failed("connection_terminated", reason="reset"))
    ).problems
    assert change.advice != CAUSES["connection_terminated"].advice
    assert change.advice.startswith("The server reset")


def test_what_is_no_problem_is_no_difference_in_problems() -> None:
    asked = [answered(401, flow=f"{n}") for n in range(50)]
    calm = asked + [answer(answers=f"{n}") for n in range(50)]
    others = [
        *[cancelled()] * 30,
        *[failed(reason="collateral")] * 30,
        *[failed(background="Windows")] * 30,
        *[answered(500, background="Windows")] * 30,
    ]
    found = compare(tally(*[answered()] * 100), tally(*calm, *others))
    assert found.problems == found.hosts == found.endpoints == found.error_codes == ()
    wrong = [answered(401, flow="asked")] * 60
    found = compare(tally(*[answered()] * 100), tally(*wrong, answer()))
    assert [(c.name, c.after.count) for c in found.problems] == [("401", 59)]


def test_a_reason_that_may_stand_under_other_neither_came_nor_went(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tally_module, "TABLES", limited(2, "causes"))
    before = tally(*(failed(reason=reason) for reason in "aabc"))
    after = tally(*(failed(reason=reason) for reason in "aacb"), failed("dns_error"))
    for one, other in ((before, after), (after, before)):
        # Of b and c, each side has one under (other).
        assert [change.name for change in compare(one, other).problems] == ["dns_error"]


def test_what_a_full_table_counts_under_other_is_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally_module, "TABLES", limited(1))
    before = tally(answered(200, url="http://a/", host="a"))
    after = tally(
        *(answered(500 + n % 3, url=f"http://{n}/", host=str(n)) for n in range(50)),
        *(failed("dns_error", host="z"), failed(host="z")),
    )
    for comparison in (compare(before, after), compare(after, before)):
        data = json.dumps(comparison.to_data())
        assert OTHER not in data
        assert not comparison.traffic_hosts.complete
        assert any("is not known for all" in line for line in text(comparison))


# --- what is printed ---


def test_the_text() -> None:
    assert "\n".join(text(compare(tally(*BEFORE), tally(*AFTER)))) + "\n" == COMPARED


def write_logs(folder: Path, before: list[Record], after: list[Record]) -> tuple[Path, Path]:
    for name, records in (("before", before), ("after", after)):
        (folder / name).write_bytes(lines(start(), *records, final(*records)))
    return folder / "before", folder / "after"


def test_compare_of_two_logs(tmp_path: Path) -> None:
    before, after = write_logs(tmp_path, BEFORE, AFTER)
    done = run("compare", before, after)
    assert (done.returncode, done.stdout, done.stderr) == (0, COMPARED, "")
    for arguments in (("-", after), (before, "-")):
        stdin = (before if arguments[0] == "-" else after).read_bytes()
        assert run("compare", *arguments, stdin=stdin).stdout == COMPARED


def test_compare_as_json(tmp_path: Path) -> None:
    before, after = write_logs(tmp_path, BEFORE, AFTER)
    done = run("compare", before, after, "--json")
    data = json.loads(done.stdout)
    assert (done.returncode, data["schema"], data["different"]) == (0, 1, True)
    assert data["before"]["flows"] == 84
    (refused,) = (row for row in data["problems"] if row["name"] == "connection_refused")
    assert refused == {
        "name": "connection_refused",
        "error_code": -2,
        "change": "vanished",
        "before": {"count": 12, "of": 84, "share": 0.142857},
        "after": {"count": 0, "of": 132, "share": 0.0},
        "p": pytest.approx(2.64783e-4, rel=1e-4),
        "clear": True,
        "design_effect": 1.325,
        "incidents": ["a1ec4aca"],
        "called_again": True,
        "fails_otherwise": False,
        "advice": CAUSES["connection_refused"].advice,
    }
    assert data["traffic"]["hosts"]["vanished"] == [
        {"name": "old.example", "count": 1, "p": pytest.approx(0.777778), "clear": False}
    ]
    done = run("compare", before, before, "--json")
    assert not json.loads(done.stdout)["different"]


def test_a_log_with_itself(tmp_path: Path) -> None:
    before, _ = write_logs(tmp_path, BEFORE, AFTER)
    side = "84 flows, 12 failed (14.3 %), 4 unsuccessful, over 59.0 s"
    assert run("compare", before, before).stdout == (
        "No difference. Failed 14.3 % → 14.3 % of flows. "
        "Unsuccessful 4.8 % → 4.8 % of flows.\n\n"
        f"Before: {side}\nAfter:  {side}\n"
    )


def test_nothing_to_compare() -> None:
    assert text(compare(tally(*BEFORE), Tally()))[0] == (
        "Nothing came through after the change: there is nothing to compare."
    )


def test_a_session_that_did_not_end_cleanly_is_said(tmp_path: Path) -> None:
    before, after = write_logs(tmp_path, BEFORE, AFTER)
    after.write_bytes(lines(start(), *AFTER) + b"{")
    done = run("compare", before, after)
    assert (done.returncode, done.stdout) == (0, COMPARED)
    assert done.stderr.splitlines() == [
        f"{after}, line {len(AFTER) + 2}: torn line; skipped",
        "1 unreadable line skipped",
        "Session 00000001 did not end cleanly, or is still running",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("- -", "flowtally: BEFORE and AFTER cannot both be standard input\n"),
        ("{log}", "flowtally: two logs are compared, BEFORE and AFTER; given: 1\n"),
        ("{log} {none}", "flowtally: {none}: No such file or directory\n"),
        ("{none} {log}", "flowtally: {none}: No such file or directory\n"),
        ("{log} /dev/null", "flowtally: no flowtally session in /dev/null: it is empty\n"),
        ("{log} -", "flowtally: no flowtally session in -: it is empty\n"),
        ("{log} {log} {log}", "flowtally: two logs are compared, BEFORE and AFTER; given: 3\n"),
    ],
)
def test_bad_usage(tmp_path: Path, words: str, message: str) -> None:
    log, _ = write_logs(tmp_path, BEFORE, AFTER)
    none = tmp_path / "none"
    done = run("compare", *(word.format(log=log, none=none) for word in words.split()))
    assert (done.returncode, done.stdout) == (2, "")
    assert message.format(none=none) in done.stderr


@pytest.mark.parametrize("width", [80, 100])
def test_a_hostile_log(width: int) -> None:
    evil: Any = {
        "host": HOSTILE,
        "method": HOSTILE,
        "url": f"http://{HOSTILE}/{'x' * 200}",
        "detail": HOSTILE,
    }
    records = [
        *(answered(299, **evil | {"description": HOSTILE, "duration_ms": 99.0}) for _ in range(30)),
        answered(500, **evil | {"description": HOSTILE}),
        failed(**evil),
        event(**evil) | {"cause": HOSTILE},
    ]
    for sides in ((records, []), ([], records), (records, BEFORE), (BEFORE, records)):
        comparison = compare(*(tally(*side) for side in sides))
        for line in text(comparison, width):
            assert line.isprintable()
            assert len(line) <= width
        json.dumps(comparison.to_data()).encode()


def test_long_lists_are_cut() -> None:
    many = [
        answered(400 + number, url=f"http://h{number}/", host=f"h{number}") for number in range(30)
    ]
    found = text(compare(tally(*BEFORE), tally(*BEFORE, *many)))
    assert "  and 19 more problems" in found
    assert "  and 20 more hosts" in found
    assert len(found) < 70


# --- as a page ---


def logs(folder: Path, before: list[Record], after: list[Record]) -> tuple[Path, Path]:
    both = folder / "before.jsonl", folder / "after.jsonl"
    for path, records in zip(both, (before, after), strict=True):
        path.write_bytes(lines(start(), *records, final(*records)))
    return both


def text_of(page: str) -> str:
    """What a person reads of a page."""
    body = page[page.index("<main") : page.index("</main>")]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_html(tmp_path: Path) -> None:
    before, after = logs(tmp_path, BEFORE, AFTER)
    page = tmp_path / "page.html"
    done = run("compare", before, after, "--html", page)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    content = page.read_text("utf-8")
    assert f"<title>flowtally: {SLOWER}</title>" in content
    said = text_of(content)
    for expected in (
        "Fixed: 1 problem gone. New: 2 problems, all too rare, or too close together in time, to be"
        " sure. Gone: 1 problem",
        f"Before: {before} 84 12 4 0 0 0 2026-01-02T03:04:05.000Z",
        f"After: {after} 126 0 4 6 0 0 2026-01-02T03:04:05.000Z",
        "New client_tls_rejected -2 0 (0.0 %) → 6 (4.5 %) may be chance Install mitmproxy's CA",
        "503 Service unavailable -3 0 (0.0 %) → 1 (0.8 %) may be chance incident [e611d7b3] GET",
        "Fixed connection_refused -2 12 (14.3 %) → 0 (0.0 %)",
        "Gone, but not called again 404 Not found -3 1 (1.2 %) → 0 (0.0 %) may be chance",
        "GET http://shop.example/pay 12 of 20 1 of 31",
        "All flows p95 26 ms 36 ms",
        "Hosts only after Name Flows pinned.example may be chance 6 new.example may be chance 2",
        "Hosts only before Name Flows old.example may be chance 1",
    ):
        assert expected in said
    order = [said.index(title) for title in ("Fixed connection", "New client_tls", "Gone, but")]
    assert order == sorted(order)


def test_html_needs_nothing_else_and_lets_nothing_else_run(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    run("compare", *logs(tmp_path, BEFORE, AFTER), "--html", page)
    content = page.read_text("utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', content)
    for element in ("script", "style"):
        for inlined in re.findall(rf"<{element}>(.*?)</{element}>", content, re.DOTALL):
            digest = b64encode(sha256(inlined.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in unescape(policy)
    assert "default-src 'none'" in unescape(policy)
    assert not re.search(r'(?:src|href)="(?!data:|#)', content.split("<script>")[0])


def test_hostile_names_in_a_page(tmp_path: Path) -> None:
    hostile = [
        failed(host=HOSTILE, url=f"http://{HOSTILE}/", detail=HOSTILE, method=HOSTILE),
        answered(418, host=HOSTILE, description=HOSTILE, url=HOSTILE),
        {**event(host=HOSTILE), "cause": HOSTILE},
    ]
    for before, after in ((hostile, BEFORE), (BEFORE, hostile), (hostile, hostile)):
        page = tmp_path / "<x>&.html"
        one, two = logs(tmp_path, before, after)
        named = one.rename(tmp_path / "<script>alert(1)<" if before is hostile else one)
        done = run("compare", named, two, "--html", page)
        assert (done.returncode, done.stderr) == (0, "")
        content = page.read_text("utf-8")
        assert before is after or "owned" in content
        assert "<x>" not in content
        assert "<script>alert" not in content
        assert not set("\x1b\x07\x9b\u202e\ufffe\x00") & set(content)


def test_a_page_is_no_file_of_somebody_elses(tmp_path: Path) -> None:
    before, after = logs(tmp_path, BEFORE, AFTER)
    page = tmp_path / "page.html"
    page.write_text("mine")
    done = run("compare", before, after, "--html", page)
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        f"flowtally: {page}: exists, and flowtally did not write it; --force overwrites it\n",
    )
    assert page.read_text() == "mine"
    assert run("compare", before, after, "--html", page, "--force").returncode == 0
    # A comparison and a report may take each other's place.
    assert run("report", after, "--html", page).returncode == 0
    assert run("compare", before, after, "--html", page).returncode == 0
    assert f"<title>flowtally: {SLOWER}</title>" in page.read_text("utf-8")
    gone = tmp_path / "none" / "page.html"
    done = run("compare", before, after, "--html", gone)
    assert (done.returncode, done.stderr) == (
        2,
        f"flowtally: {gone}: cannot be written: there is no folder {gone.parent}\n",
    )
    done = run("compare", before, after, "--html", page, "--json")
    assert (done.returncode, done.stderr) == (
        2,
        "flowtally: --html and --json: one of them at a time\n",
    )


def test_a_page_of_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert run("compare", *logs(tmp_path, [], AFTER), "--html", page).returncode == 0
    assert "Nothing came through before the change" in text_of(page.read_text("utf-8"))
