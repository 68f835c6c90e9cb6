"""When something happened: bounded, and the same in whatever order it is counted."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from flowtally.blocks import MAX_BLOCKS as MAX_POINTS
from flowtally.blocks import WIDTHS
from flowtally.moments import Moments
from flowtally.moments import unix_second
from flowtally.times import timestamp
from hypothesis import given
from hypothesis import strategies as st

SECONDS = st.lists(st.floats(0, 4e9), max_size=80)


def at(*seconds: float) -> Moments:
    moments = Moments()
    for second in seconds:
        moments.add(timestamp(second))
    return moments


def test_nothing_happened() -> None:
    assert not Moments()
    assert at(0)


def test_points_are_a_second_wide_while_there_are_few() -> None:
    moments = at(100.9, 7.2, 7.8)
    assert (moments.first, moments.last) == (timestamp(7.2), timestamp(100.9))
    assert (moments.seconds, moments.points) == (1, {7: 2, 100: 1})


def test_points_get_wider_when_there_are_too_many() -> None:
    assert at(*range(MAX_POINTS)).seconds == 1
    moments = at(*range(MAX_POINTS + 1))
    assert moments.seconds == 2
    assert moments.points == {**{2 * n: 2 for n in range(MAX_POINTS // 2)}, MAX_POINTS: 1}


def test_what_comes_after_a_point_got_wider_is_counted_in_it() -> None:
    moments = at(*range(MAX_POINTS + 2))
    assert moments.points == {2 * n: 2 for n in range(MAX_POINTS // 2 + 1)}


def test_merged_points_are_as_wide_as_the_widest() -> None:
    merged = at(1)
    merged.merge(at(*range(MAX_POINTS + 1)))
    assert (merged.seconds, merged.points[0]) == (2, 3)


def test_there_is_a_widest_point() -> None:
    moments = Moments()
    for year in range(1000, 9000, 100):
        moments.add(f"{year}-01-01T00:00:00.000Z")
    assert moments.seconds == WIDTHS[-1]
    assert sum(moments.points.values()) == 80


@given(SECONDS, SECONDS)
def test_merged_is_counted_together(one: list[float], other: list[float]) -> None:
    together, merged = at(*one, *other), at(*one)
    merged.merge(at(*other))
    assert merged.to_data() == together.to_data() == at(*reversed(one + other)).to_data()
    assert sum(merged.points.values()) == len(one) + len(other)
    assert len(merged.points) <= MAX_POINTS


@given(SECONDS)
def test_it_is_read_back_as_it_was(seconds: list[float]) -> None:
    moments = at(*seconds)
    data = json.loads(json.dumps(moments.to_data())) if moments else {}
    assert Moments.from_data(data).to_data() == moments.to_data()


GOOD = {"first": "1970", "last": "1971", "seconds": 1, "points": [0, 1]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": 1},
        {"last": None},
        {"seconds": 3},
        {"seconds": True},
        {"seconds": []},
        {"points": None},
        {"points": [1]},
        {"points": [1, 0]},
        {"points": [1, -1]},
        {"points": [1, True]},
        {"points": [1.5, 1]},
        {"points": [10**16, 1]},
        {"points": [-(10**16), 1]},
        {"points": [0, 1] * (MAX_POINTS + 1)},
    ],
    ids=json.dumps,
)
def test_a_log_that_says_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    Moments.from_data(GOOD)
    with pytest.raises(ValueError, match=r"must|cannot|too many|nothing"):
        Moments.from_data(GOOD | wrong)


def test_a_row_that_says_nothing_of_times_is_read_as_that() -> None:
    assert not Moments.from_data({"flows": 1})


def test_each_width_is_a_multiple_of_the_one_before() -> None:
    assert all(wider % narrower == 0 for narrower, wider in pairwise(WIDTHS))


def test_a_second_is_the_one_that_a_time_is_in() -> None:
    assert unix_second("1970-01-01T00:01:01.999Z") == 61
