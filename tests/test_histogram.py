"""Distributions: buckets, percentiles, and what a log holds of them."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from flowtally.histogram import MOST
from flowtally.histogram import PERCENTILES
from flowtally.histogram import SIZE
from flowtally.histogram import SPARSE
from flowtally.histogram import STARTS
from flowtally.histogram import Histogram
from flowtally.histogram import bucket
from flowtally.histogram import count_time
from hypothesis import given
from hypothesis import strategies as st

TIMES = st.lists(st.integers(0, 10**14) | st.sampled_from(STARTS), max_size=60)
"""In microseconds."""


def histogram(*times: int) -> Histogram:
    made = Histogram()
    for time in times:
        count_time(time / 1000, [made])
    return made


def test_the_buckets() -> None:
    assert len(STARTS) == SIZE - 1
    assert sorted(set(STARTS)) == STARTS
    for number, start in enumerate(STARTS):
        assert (bucket(start - 1), bucket(start)) == (number, number + 1)
    assert STARTS[-1] >= 86_400_000_000  # a day
    assert bucket(10**18) == SIZE - 1


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], list(range(1, 1001)), [0.05, 9e7, 1e12]])
def test_percentiles_are_within_two_percent(values: list[float]) -> None:
    made = histogram(*(round(value * 1000) for value in values))
    ordered = sorted(values)
    for name, share in PERCENTILES.items():
        true = ordered[max(0, -(-round(share * 100) * len(values) // 100) - 1)]
        if 0.1 <= true < 8e7:
            assert made.percentiles()[name] == pytest.approx(true, rel=0.0201)
    assert made.maximum == ordered[-1]


def test_mean_and_points() -> None:
    made = histogram(1000, 2000, 6000)
    assert made.mean == 3.0
    assert list(made.points()) == ["p50", "p95", "p99", "max"]
    assert made.points()["max"] == 6.0
    nothing = Histogram()
    assert (nothing.mean, nothing.points(), bool(nothing)) == (0.0, {}, False)


@given(TIMES, TIMES)
def test_a_merge_counts_as_one_by_one(first: list[int], second: list[int]) -> None:
    expected = histogram(*first, *second)
    merged = histogram(*first)
    merged.merge(histogram(*second))
    assert merged.to_data() == expected.to_data()
    assert merged.count == len(first) + len(second)
    assert bool(merged) == bool(first or second)


@given(TIMES)
def test_saved_and_loaded(times: list[int]) -> None:
    data = histogram(*times).to_data()
    loaded = Histogram.from_data(data)
    assert loaded.to_data() == data
    assert loaded.filled() == histogram(*times).filled()
    count_time(1.0, [loaded])
    assert loaded.count == len(times) + 1


@pytest.mark.parametrize(("buckets", "dense"), [(SPARSE, False), (SPARSE + 1, True)])
def test_many_buckets_are_kept_in_an_array(buckets: int, dense: bool) -> None:
    made = histogram(*STARTS[:buckets])
    assert isinstance(made.buckets, array) is dense
    assert isinstance(Histogram.from_data(made.to_data()).buckets, array) is dense
    merged = Histogram()
    merged.merge(made)
    assert isinstance(merged.buckets, array) is dense


def test_what_stands_in_the_log() -> None:
    times = [0, 100, 101, STARTS[9]]
    assert histogram(*times).to_data() == {
        "count": 4,
        "sum_ms": sum(times) / 1000,
        "max_ms": STARTS[9] / 1000,
        # Two in bucket 0, one in the next one, eight empty ones, one.
        "buckets": [0, 2, 0, 1, 8, 1],
    }


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"buckets": 5}, "list of pairs"),
        ({"buckets": [1]}, "list of pairs"),
        ({"buckets": [0, True]}, "list of pairs"),
        ({"buckets": [0, 1.5]}, "list of pairs"),
        ({"buckets": [-1, 1]}, "does not exist"),
        ({"buckets": [SIZE, 1]}, "does not exist"),
        ({"buckets": [SIZE - 2, 1, 1, 1]}, "does not exist"),
        ({"buckets": [0, 0]}, "holds nothing"),
        ({"buckets": [0, MOST + 1]}, "too much"),
        ({"sum_ms": "x"}, "time in ms"),
        ({"sum_ms": -1}, "time in ms"),
        ({"max_ms": None}, "time in ms"),
        ({"max_ms": 1e30}, "time in ms"),
    ],
)
def test_wrong_data_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Histogram.from_data({**histogram(5, 500).to_data(), **wrong})


def test_what_is_no_distribution_is_refused() -> None:
    with pytest.raises(ValueError, match="must be an object"):
        Histogram.from_data([])


def test_the_last_bucket_can_be_read_back() -> None:
    made = histogram(10**14)
    assert made.to_data()["buckets"] == [SIZE - 1, 1]
    assert Histogram.from_data(made.to_data()).filled() == [(SIZE - 1, 1)]


def test_a_percentile_that_is_the_longest_time_is_exact() -> None:
    """Twenty times: the 95th percentile is the nineteenth of them, the 99th the last."""
    for times, exact in (([2008.0], {"p50", "p95", "p99"}), ([5.0] * 19 + [2008.0], {"p99"})):
        histogram = Histogram()
        for time in times:
            count_time(time, [histogram])
        found = histogram.percentiles()
        assert {point for point, value in found.items() if value == 2008.0} == exact
