"""What chance does to two sessions of the same kind: the statistical tests of a comparison. Pure.

- Shares are compared by Fisher's exact test (two-sided: twice the smaller tail), which holds for
  any counts, also those too small for a z-test.
- Times are compared by Mood's quantile test: is the share of flows that are slower than the common
  p50 (or p95) of both sessions another one before than after? That is a comparison of two shares
  again, it asks for nothing about the distribution, it needs no more than a histogram's buckets,
  and unlike a comparison of ranks (Mann-Whitney) it sees a tail that got longer.

Both take flows for independent of one another. They are not quite: what fails, fails in rows. So
whoever compares needs a strict threshold.
"""

from __future__ import annotations

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


# --- Mood ---


def slower(before: Histogram, after: Histogram, share: float) -> tuple[Proportion, Proportion]:
    """How many are slower than the quantile `share` (0 to 1) of both together, on either side. As
    the quantile serves the end of a bucket, the one that comes nearest."""
    old, new = dict(before.filled()), dict(after.filled())
    of_old, of_new = sum(old.values()), sum(new.values())
    passed_old = passed_new = 0
    best = (2.0, 0, 0)  # distance from `share`, and how many of either side passed
    for index in sorted(old.keys() | new.keys())[:-1]:
        passed_old += old.get(index, 0)
        passed_new += new.get(index, 0)
        distance = abs((passed_old + passed_new) / (of_old + of_new) - share)
        if distance < best[0]:
            best = (distance, passed_old, passed_new)
    return Proportion(of_old - best[1], of_old), Proportion(of_new - best[2], of_new)


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
