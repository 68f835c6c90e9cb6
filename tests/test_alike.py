"""Sessions in which nothing changed, cut in two, and one in which something did.

`bench.py --compare` does it a hundred times each.
"""

from __future__ import annotations

from random import Random

import pytest
from flowtally.comparison import compare
from flowtally.report.comparison_text import text
from lab import alike
from lab.cli import tally


@pytest.mark.parametrize("cut", alike.CUTS)
@pytest.mark.parametrize("log", alike.LOGS)
def test_halves_of_a_session_do_not_differ(log: str, cut: str) -> None:
    said = []
    for seed in range(2):
        random = Random(seed)
        halves = alike.CUTS[cut](random, alike.LOGS[log](random))
        said.append(alike.claims(compare(*(tally(*half) for half in halves))))
    assert not any(said), said


def test_an_endpoint_that_got_twice_as_slow_is_in_the_first_three_lines() -> None:
    found = 0
    for seed in range(4):
        comparison = compare(*(tally(*side) for side in alike.slower_endpoint(Random(seed))))
        if f"times: endpoint {alike.SLOWED}" in alike.claims(comparison):
            assert alike.SLOWED in " ".join(text(comparison)[:3])
            found += 1
    assert found >= 3
