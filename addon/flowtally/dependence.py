"""How far requests share their fate: the design effect. Pure.

A page that fails takes all its requests along, and a slow moment slows all that falls into it. A
test that takes requests for independent sees a hundred failures where there was one. The design
effect (Kish; Rao and Scott, 1992) says how many requests are worth one that is independent: so
many times the variance between blocks of time is larger than that of independent requests. Counts
divided by it can be tested as if they were independent.

It is estimated from the blocks of both sides, each around its own mean, so that a difference
between the sides does not pass for dependence. One row alone tells little, so each leans on all the
rows of its table, and where these tell nothing either, all of a block counts as one.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from .blocks import Block
from .blocks import Blocks
from .histogram import Histogram

Name = TypeVar("Name", bound=Hashable)

LEAN = 4.0
"""How much the rows of a table weigh beside one of them, in its degrees of freedom."""
LEAN_OF_TIMES = 60.0
"""The same for times: what slows one endpoint slows others, while often one alone fails."""

CAUTION = 5.0
"""An estimate of few degrees of freedom may be far too small, so it is made larger: with this much,
the normal distribution comes near to Student's where p is about 0.003."""


@dataclass(frozen=True, slots=True)
class Scatter:
    """How far blocks of time differ from one another."""

    found: float = 0.0
    """The sum of squares around the mean."""
    expected: float = 0.0
    """What it would be of independent requests."""
    freedom: float = 0.0
    """How many degrees of freedom there are to tell."""
    lump: float = 1.0
    """The design effect if all of a block shared one fate."""

    @property
    def ratio(self) -> float:
        """The design effect, as far as this tells; 1 where it tells nothing."""
        return self.found / self.expected if self.expected > 0 else 1.0

    def __add__(self, other: Scatter) -> Scatter:
        """Of both, each around its own mean."""
        return Scatter(
            self.found + other.found,
            self.expected + other.expected,
            self.freedom + other.freedom,
            max(self.lump, other.lump),
        )


def pooled(scatters: Iterable[Scatter]) -> Scatter:
    """Of all rows of a table."""
    total = Scatter()
    for scatter in scatters:
        total += scatter
    return total


def design_effect(own: Scatter, table: Scatter, lean: float = LEAN) -> float:
    """So many requests are worth one that is independent; 1 or more."""
    ignorance = max(0.0, 1 - table.freedom / LEAN)
    known = ignorance * own.lump + (1 - ignorance) * table.ratio
    weight = own.freedom
    effect = (weight * own.ratio + lean * known) / (weight + lean)
    effect *= 1 + CAUTION / (1 + table.freedom)
    return max(1.0, min(effect, own.lump))


def of_shares(blocks: Iterable[Block], count: Callable[[Block], int]) -> Scatter:
    """Of a share of what is in each block."""
    return _shares([(block.flows, count(block)) for block in blocks])


def of_parts(part: Blocks, whole: Blocks, count: Callable[[Block], int]) -> Scatter:
    """Of a share of the whole, which may have blocks in which there is nothing of the part."""
    number = max(part.number, whole.number)
    counts = part.widened(number)
    return _shares(
        [
            (block[0], count(Block(*counts[start])) if start in counts else 0)
            for start, block in whole.widened(number).items()
        ]
    )


def _shares(pairs: list[tuple[int, int]]) -> Scatter:
    of = sum(size for size, _ in pairs)
    count = sum(part for _, part in pairs)
    if not count > 0 or not of:
        return Scatter()
    share = min(1.0, count / of)
    found = sum((part - share * size) ** 2 for size, part in pairs)
    lumps = sum(size * size for size, _ in pairs) / of
    expected = share * (1 - share) * (of - lumps)
    # Few problems tell as little as few blocks.
    freedom = max(0.0, min(of / lumps - 1, expected))
    return Scatter(found, expected, freedom, sum(part * part for _, part in pairs) / count)


def of_times(blocks: Iterable[Block], times: Histogram) -> Scatter:
    """Of the times, as their buckets have them, in terms of their variance."""
    filled = times.filled()
    of = sum(count for _, count in filled)
    if of < 2:
        return Scatter()
    mean = sum(number * count for number, count in filled) / of
    variance = sum((number - mean) ** 2 * count for number, count in filled) / (of - 1)
    timed = [block for block in blocks if block.timed]
    lumps = sum(block.timed**2 for block in timed) / of
    if not variance or not lumps:
        return Scatter(lump=max(1.0, lumps))
    found = sum((block.buckets - mean * block.timed) ** 2 for block in timed) / variance
    return Scatter(found, max(0.0, of - lumps), max(0.0, of / lumps - 1), max(1.0, lumps))


def design_effects(
    before: Mapping[Name, Scatter], after: Mapping[Name, Scatter], lean: float = LEAN
) -> dict[Name, float]:
    """The rows of a table, by what they are found by → their design effects."""
    nothing = Scatter()
    both = {
        name: before.get(name, nothing) + after.get(name, nothing) for name in {**before, **after}
    }
    table = pooled(both.values())
    return {name: design_effect(own, table, lean) for name, own in both.items()}
