"""A HAR's entries are read in the order in which they began, whatever the order of the file."""

from __future__ import annotations

import io
import json
import random
from datetime import UTC
from datetime import datetime
from typing import Any
from unittest import mock

import pytest
from flowtally.captures import order
from flowtally.captures.scan import Scan
from hypothesis import given
from hypothesis import strategies as st
from lab.hars import har_of
from lab.hars import told

Json = dict[str, Any]

BEGUN = 1_767_322_980.0


def entry(second: float | None, status: int = 200, answer: Json | None = None, **more: Any) -> Json:
    headers = [{"name": name, "value": value} for name, value in (answer or {}).items()]
    date = None if second is None else datetime.fromtimestamp(BEGUN + second, UTC).isoformat()
    return {
        "startedDateTime": date,
        "time": 10,
        "request": {"method": "GET", "url": "https://shop.example/cart", "headers": [], **more},
        "response": {"status": status, "headers": headers},
        "timings": {"wait": 5},
    }


def in_order(entries: list[Any], block: int = order.BLOCK) -> list[int]:
    """The numbers of entries as they are read."""
    file = io.BytesIO(json.dumps({"log": {"entries": entries}}).encode())
    with mock.patch.object(order, "BLOCK", block):
        return [place.number for place in order.in_order(file, Scan(file).places())]


LOGIN = [{"name": "Authorization", "value": "Basic eDp5"}]


def test_a_login_is_answered_by_what_came_later_not_by_what_stands_later() -> None:
    records, _ = told(har_of(entry(2, headers=LOGIN), entry(1, 401)))
    assert [record.get("answers") for record in records] == [None, "entry-2"]


def test_a_chain_of_redirects_is_one_problem_also_of_newest_first() -> None:
    chain = [entry(n, 302, {"Location": "/cart"}) for n in range(20)]
    newest_first = [{**entry(20, -1), "_error": "net::ERR_TOO_MANY_REDIRECTS"}, *chain[::-1]]
    records, _ = told(har_of(*newest_first))
    problems = [r for r in records if "error_code" in r and r.get("reason") != "collateral"]
    assert [record["cause"] for record in problems] == ["redirect_loop"]


@given(st.permutations(range(12)), st.sampled_from([1, 7, 100, 333, order.BLOCK]))
def test_whatever_the_order_of_the_file_it_is_read_in_that_of_time(
    seconds: list[int], block: int
) -> None:
    numbers = in_order([entry(second) for second in seconds], block)
    assert [seconds[number - 1] for number in numbers] == sorted(seconds)


@given(st.permutations(range(12)))
def test_the_records_are_those_of_a_sorted_file(seconds: list[int]) -> None:
    entries = [entry(0, 401), entry(1, headers=LOGIN), *(entry(n, 302) for n in range(2, 12))]
    sorted_ones, _ = told(har_of(*entries))
    mixed, _ = told(har_of(*(entries[second] for second in seconds)))
    what = ("time", "status", "challenge", "cause")
    assert [[record.get(name) for name in what] for record in mixed] == [
        [record.get(name) for name in what] for record in sorted_ones
    ]


@pytest.mark.parametrize(
    ("entries", "numbers"),
    [
        ([entry(1), entry(1), entry(2)], [1, 2, 3]),
        ([entry(2), entry(1), entry(1)], [2, 3, 1]),  # equals as in the file
        # Zones are looked at, and what has none is in UTC.
        (
            [
                {"startedDateTime": "2026-01-02T05:00:00+03:00"},
                {"startedDateTime": "2026-01-02T01:00:00Z"},
                {"startedDateTime": "2026-01-02T01:30:00"},
            ],
            [2, 3, 1],
        ),
        # What has no date is named and skipped by whoever reads it.
        ([entry(2), None, entry(None), entry(1), {}], [2, 3, 5, 4, 1]),
        ([entry(1), None, entry(None), entry(2), {}], [1, 2, 3, 4, 5]),
        ([{"startedDateTime": "soon"}, entry(1), {"startedDateTime": 7}], [1, 2, 3]),
        ([], []),
    ],
)
def test_the_order(entries: list[Any], numbers: list[int]) -> None:
    assert in_order(entries) == numbers


def test_what_is_put_in_order_is_bounded_and_nothing_is_lost() -> None:
    seconds = random.Random(1).sample(range(9), 9)
    with mock.patch.object(order, "MAX_SORTED", 4):
        numbers = in_order([entry(second) for second in seconds])
    assert sorted(numbers[:4]) == [1, 2, 3, 4]
    assert [seconds[number - 1] for number in numbers[:4]] == sorted(seconds[:4])
    assert numbers[4:] == [5, 6, 7, 8, 9]
