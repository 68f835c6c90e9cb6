"""Blocks of time, what they tell of dependence, and what is made of it."""

from __future__ import annotations

import json
from random import Random
from typing import Any
from unittest import mock

import pytest
from flowtally.blocks import MAX_BLOCKS
from flowtally.blocks import Block
from flowtally.blocks import Blocks
from flowtally.chance import Proportion
from flowtally.chance import limit_of_chance
from flowtally.chance import ranks
from flowtally.dependence import Scatter
from flowtally.dependence import design_effect
from flowtally.dependence import of_parts
from flowtally.dependence import of_shares
from flowtally.dependence import of_times
from flowtally.histogram import Histogram
from flowtally.histogram import count_time
from hypothesis import given
from hypothesis import strategies as st

SECONDS = st.lists(st.integers(0, 10**7), max_size=60)


def blocks(seconds: list[int], problems: int = 0) -> Blocks:
    found = Blocks()
    for second in seconds:
        for place, number in enumerate((1, problems, 0, 7)):
            found.at(second)[place] += number
    return found


# --- blocks ---


@given(SECONDS, SECONDS)
def test_blocks_can_be_added(one: list[int], other: list[int]) -> None:
    both = blocks(one)
    both.merge(blocks(other))
    assert both.to_data() == blocks(one + other).to_data()


@given(SECONDS)
def test_blocks_are_bounded_and_lose_nothing(seconds: list[int]) -> None:
    found = blocks(seconds, problems=1)
    assert len(found.values()) <= MAX_BLOCKS
    assert sum(block.flows for block in found.values()) == len(seconds)
    assert sum(block.problems for block in found.values()) == len(seconds)


@given(SECONDS)
def test_blocks_are_saved_and_read(seconds: list[int]) -> None:
    data = json.loads(json.dumps(blocks(seconds).to_data()))
    assert Blocks.from_data(data).to_data() == data


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "must be an object"),
        ({"seconds": 3, "counts": []}, "cannot span 3"),
        ({"seconds": True, "counts": []}, "cannot span True"),
        ({"seconds": 1, "counts": [1]}, "five a block"),
        ({"seconds": 1, "counts": [1, 1, 1, 1, 1.0]}, "five a block"),
        ({"seconds": 1, "counts": [1] * 5 * (MAX_BLOCKS + 1)}, "too many"),
        ({"seconds": 1, "counts": [1, 1, 1, 1, 10**30]}, "cannot be"),
    ],
)
def test_what_are_no_blocks_is_refused(data: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Blocks.from_data(data)


# --- the design effect ---


def shares(*pairs: tuple[int, int]) -> Scatter:
    return of_shares([Block(of, hits, 0, 0) for hits, of in pairs], lambda block: block.problems)


def test_a_burst_counts_as_one() -> None:
    scatter = shares((20, 20), *[(0, 20)] * 19)
    assert scatter.ratio == pytest.approx(20, rel=0.06)
    assert scatter.lump == 20


def test_what_is_spread_evenly_counts_in_full() -> None:
    assert design_effect(shares(*[(1, 20)] * 20), shares(*[(1, 20)] * 20)) == 1.0


def test_independent_problems_have_no_design_effect() -> None:
    random = Random(1)
    pairs = [(sum(random.random() < 0.2 for _ in range(20)), 20) for _ in range(500)]
    assert shares(*pairs).ratio == pytest.approx(1, abs=0.15)


def test_of_a_single_block_nothing_is_known() -> None:
    scatter = shares((3, 20))
    assert (scatter.expected, scatter.ratio, scatter.freedom) == (0, 1, 0)
    # So all that failed in it is taken for one.
    assert design_effect(scatter, scatter) == 3
    known = design_effect(scatter, Scatter(100, 50, 100, 10))  # the table knows
    assert 2 < known < 2.2


def test_a_part_is_missed_where_it_is_not() -> None:
    whole = blocks([second for second in range(20) for _ in range(10)])
    together, spread = blocks([5] * 10), blocks(list(range(0, 20, 2)))
    assert of_parts(together, whole, lambda block: block.flows).ratio > 9
    assert of_parts(spread, whole, lambda block: block.flows).ratio < 1


@pytest.mark.parametrize(("shared", "least", "most"), [(False, 0.5, 1.8), (True, 6.0, 10.5)])
def test_times_that_share_a_factor(shared: bool, least: float, most: float) -> None:
    random = Random(2)
    times, found = Histogram(), Blocks()
    for second in range(0, 240, 10):
        factor = random.gauss(0, 1)
        for _ in range(10):
            ms = 50 * 2.7 ** (factor if shared else random.gauss(0, 1))
            block = found.at(second)
            block[0] += 1
            block[3] += count_time(ms, [times])
    assert least < of_times(found.values(), times).ratio < most


# --- the tests ---


def histogram(*times: float) -> Histogram:
    found = Histogram()
    for ms in times:
        count_time(ms, [found])
    return found


def test_ranks_by_hand() -> None:
    longer, p = ranks(histogram(1, 2, 3), histogram(2, 4, 6))
    assert longer == pytest.approx(7.5 / 9)  # pairs in which the later is longer; a half of a tie
    assert 0.15 < p < 0.2
    assert ranks(histogram(1, 2, 3), histogram(1, 2, 3)) == (0.5, 1.0)
    assert ranks(histogram(), histogram(1)) == ranks(histogram(1), histogram(1)) == (0.5, 1.0)


def test_dependence_makes_a_difference_less_certain() -> None:
    sides = histogram(*range(1, 50)), histogram(*range(20, 70))
    assert ranks(*sides)[1] < ranks(*sides, design_effect=4)[1]


@pytest.mark.parametrize(
    ("tests", "limit"),
    [
        ([], 0),
        ([0.05], 0.05),
        ([0.051], 0),
        ([0.025, 0.9], 0.025),
        ([0.026, 0.9], 0),
        ([0.03, 0.05], 0.05),  # the second takes the first along
        ([0.01, 0.02, 0.03, 0.9], 0.03),
        ([0.01, 0.02, 0.038, 0.9], 0.02),
    ],
)
def test_all_that_is_said_is_judged_at_once(tests: list[float], limit: float) -> None:
    assert limit_of_chance(tests, 0.05) == limit


def test_effective_counts() -> None:
    assert Proportion(9, 30).effective(3) == Proportion(3, 10)
    assert Proportion(9, 30).effective(0.5) == Proportion(9, 30)


def test_blocks_get_as_wide_as_they_must_at_once() -> None:
    """Step by step, a row whose times are minutes apart held up the proxy six times as long."""
    found = Blocks()
    with mock.patch.object(Blocks, "widened", autospec=True, side_effect=Blocks.widened) as widened:
        for number in range(MAX_BLOCKS + 1):
            found.at(3600 * number)[0] += 1
    assert widened.call_count == 1
    assert found.seconds == 10800
    assert sum(block.flows for block in found.values()) == MAX_BLOCKS + 1
