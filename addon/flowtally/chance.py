"""What chance does to two sessions of the same kind: the statistical tests of a comparison. Pure.

- Shares are compared by Fisher's exact test (two-sided: twice the smaller tail), which holds for
  any counts, also those too small for a z-test.
- Times are compared by their ranks (Mann-Whitney): do those after tend to be longer than those
  before? It asks for nothing about the distribution, it needs no more than a histogram's buckets,
  and hardly any other test sees so soon that something got slower.

Both take what they are given for independent, which requests are not quite: so they are given the
design effect (`dependence`). What of all the answers is more than chance is decided for all of them
at once (Benjamini-Hochberg): of hundreds of hosts there is always one that differs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import erfc
from math import exp
from math import lgamma
from math import sqrt
from typing import Any

from .histogram import Histogram

LARGE_VARIANCE = 10_000
"""From this variance on, the normal distribution stands for the hypergeometric one, whose sum would
get long. Far out they differ, by a third at six standard deviations, where either is far below any
threshold."""


@dataclass(frozen=True, slots=True)
class Proportion:
    """So many of so many."""

    count: int
    of: int

    @property
    def share(self) -> float:
        """0 to 1; of nothing 0."""
        return self.count / self.of if self.of else 0.0

    def to_data(self) -> dict[str, Any]:
        """For JSON; the share is rounded to a millionth."""
        return {"count": self.count, "of": self.of, "share": round(self.share, 6)}

    def effective(self, design_effect: float) -> Proportion:
        """How many independent ones it is worth, if so many are worth one."""
        if design_effect <= 1:
            return self
        return Proportion(round(self.count / design_effect), round(self.of / design_effect))


# --- all answers at once ---


def limit_of_chance(tests: Collection[float], alpha: float) -> float:
    """Up to which p an answer is more than chance, so that of all that are said to be, the part
    `alpha` is expected to be wrong, and no more (Benjamini and Hochberg, 1995); 0: none is."""
    limit = 0.0
    for number, p in enumerate(sorted(tests), 1):
        if p <= alpha * number / len(tests):
            limit = p
    return limit


# --- Mann-Whitney ---


def ranks(before: Histogram, after: Histogram, design_effect: float = 1.0) -> tuple[float, float]:
    """How probable it is that a time after is longer than one before (half of those that are equal
    counted in; 0 to 1), and how probable so uneven a probability is between two alike sessions
    (Mann-Whitney, two-sided, by the normal distribution, corrected for ties)."""
    old, new = dict(before.filled()), dict(after.filled())
    of_old, of_new = sum(old.values()), sum(new.values())
    of = of_old + of_new
    if not of_old or not of_new:
        return 0.5, 1.0
    passed = wins = ties = 0  # wins: twice the pairs
    for index in sorted(old.keys() | new.keys()):
        here, there = old.get(index, 0), new.get(index, 0)
        wins += there * (2 * passed + here)
        passed += here
        tied = here + there
        ties += tied**3 - tied
    pairs = of_old * of_new
    variance = pairs / 12 * (of + 1 - ties / (of * (of - 1)))
    if variance <= 0:
        return 0.5, 1.0
    far = abs(wins - pairs) / 2
    return wins / (2 * pairs), erfc(far / sqrt(2 * variance * design_effect))


# --- Fisher ---


def chance(one: Proportion, other: Proportion) -> float:
    """How probable it is that two shares of one common share differ as much as these (Fisher's
    exact test, two-sided: twice the smaller tail)."""
    # In one order whichever comes first, so that rounding is the same, too.
    one, other = sorted((one, other), key=lambda proportion: (proportion.of, proportion.count))
    total, hits = one.of + other.of, one.count + other.count
    if not one.of or not other.of or not 0 < hits < total:
        return 1.0
    mean = hits * one.of / total
    variance = mean * (1 - one.of / total) * (total - hits) / max(total - 1, 1)
    if variance > LARGE_VARIANCE:
        return erfc(abs(one.count - mean) / sqrt(2 * variance))
    return min(1.0, 2 * _tail(one.count, one.of, other.of, hits, one.count > mean))


def least_chance(one: Proportion, other: Proportion) -> float:
    """How improbable the most uneven shares are, of two sides as large and as many hits."""
    hits = one.count + other.count
    left, right = min(hits, one.of), min(hits, other.of)
    return min(
        chance(Proportion(left, one.of), Proportion(hits - left, other.of)),
        chance(Proportion(hits - right, one.of), Proportion(right, other.of)),
    )


def _tail(count: int, size: int, other_size: int, hits: int, upwards: bool) -> float:
    """How probable `count` or what is farther out is, when `hits` are drawn from `size` and
    `other_size` together."""
    count = max(min(count, size, hits), hits - other_size)  # a log may say nonsense
    rest = hits - count
    term = exp(
        min(
            0.0,
            _log_choose(size, count)
            + _log_choose(other_size, rest)
            - _log_choose(size + other_size, hits),
        )
    )
    total = term
    # Each term of the hypergeometric distribution from the one before; outwards they only shrink.
    while term > total * 1e-12:
        if upwards:
            term *= (size - count) * rest / ((count + 1) * (other_size - rest + 1))
            count, rest = count + 1, rest - 1
        else:
            term *= count * (other_size - rest) / ((size - count + 1) * (rest + 1))
            count, rest = count - 1, rest + 1
        total += term
    return total


def _log_choose(size: int, count: int) -> float:
    return lgamma(size + 1) - lgamma(count + 1) - lgamma(size - count + 1)
