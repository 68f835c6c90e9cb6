"""Clients that leave after the same wait, without a proxy: both sides of every threshold."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from flowtally.equal_waits import EqualWait
from flowtally.equal_waits import Wait
from flowtally.equal_waits import equal_waits
from flowtally.equal_waits import wait_of
from hypothesis import given
from hypothesis import strategies as st

ENDPOINT = "GET http://a/"


def left(wait: float, **more: Any) -> dict[str, Any]:
    """The record of a flow whose client left after so many ms."""
    return {"client": "10.0.0.1", "cause": "http_response_timeout", "duration_ms": wait, **more}


def find(*records: dict[str, Any], endpoint: str = ENDPOINT) -> list[EqualWait]:
    counts: Counter[Wait] = Counter()
    for record in records:
        if (wait := wait_of(record, record.get("endpoint", endpoint))) is not None:
            counts[wait] += 1
    return equal_waits(counts)


@pytest.mark.parametrize(
    ("waits", "count", "seconds"),
    [
        ([4000.0, 4010.2, 4003.0, 4001.7, 4025.0], 5, 4.0),
        ([1000.0, 1000.0, 1000.0], 3, 1.0),
        ([30_000.0, 30_900.0, 31_100.0], 3, 30.7),
        # Some after another wait.
        ([2000.0, 2000.0, 2000.0, 9000.0, 5000.0, 3000.0], 3, 2.0),
        ([10_000.0, 10_000.0, 10_400.0], 3, 10.1),
    ],
)
def test_a_timeout_of_the_clients(waits: list[float], count: int, seconds: float) -> None:
    (found,) = find(*map(left, waits))
    assert found[:-1] == ("10.0.0.1", ENDPOINT, count, len(waits))
    assert found.seconds == pytest.approx(seconds, rel=0.02)


@pytest.mark.parametrize(
    "waits",
    [
        [],
        [4000.0, 4000.0],
        [4000.0, 4000.0, 4205.0],  # 5.1 % apart
        [999.9, 999.9, 999.9],
        [2000.0, 2000.0, 2000.0, 9000.0, 5000.0, 3000.0, 7000.0],  # fewer than half
    ],
)
def test_no_habit(waits: list[float]) -> None:
    assert find(*map(left, waits)) == []


@pytest.mark.parametrize(
    "record",
    [
        left(4000.0, cause="connection_terminated"),
        {"client": "10.0.0.1", "duration_ms": 4000.0},
        {"cause": "client_cancelled", "duration_ms": 4000.0},
        {"client": "10.0.0.1", "cause": "client_cancelled"},
        # Not the client ended it.
        left(4000.0, reason="tcp_timeout"),
        left(131_000.0, cause="connection_timeout", detail="[Errno 110] Connect call failed"),
    ],
)
def test_what_is_no_wait(record: dict[str, Any]) -> None:
    assert wait_of(record, ENDPOINT) is None


@pytest.mark.parametrize(
    "cause",
    [
        "client_cancelled",
        "connection_timeout",
        "connection_read_timeout",
        "http_response_timeout",
    ],
)
def test_however_it_is_called_that_a_client_left(cause: str) -> None:
    assert find(*[left(4000.0, cause=cause)] * 3)


def test_clients_and_endpoints_are_told_apart() -> None:
    assert find(left(4000.0), left(4000.0), left(4000.0, client="10.0.0.2")) == []
    assert find(left(4000.0), left(4000.0), left(4000.0, endpoint="GET http://b/")) == []
    found = find(*[left(4000.0)] * 3, *[left(8000.0, client="10.0.0.2")] * 4)
    assert [(wait.client, wait.times) for wait in found] == [("10.0.0.2", 4), ("10.0.0.1", 3)]


@given(st.floats(1000, 1e9), st.floats(0, 0.05), st.floats(0, 1))
def test_waits_within_four_per_cent_are_equal_and_over_six_are_not(
    wait: float, near: float, between: float
) -> None:
    close = wait * (1 + 0.79 * near)
    assert find(left(wait), left(close), left(wait + (close - wait) * between))
    assert find(left(wait), left(wait), left(wait * (1.06 + near))) == []


@given(st.lists(st.floats(0, 1e12), max_size=20))
def test_counts_are_never_more_than_there_were(waits: list[float]) -> None:
    for found in find(*map(left, waits)):
        assert 3 <= found.times <= found.of <= len(waits)
