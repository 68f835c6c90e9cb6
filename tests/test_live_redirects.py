"""Redirect chains through a real mitmdump."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from lab import clients
from lab.expected import redirected
from lab.expected import status
from lab.laboratory import Laboratory
from lab.proxy import Record

pytestmark = pytest.mark.timeout(60)

FOUND = status(302, "Found")
OK = status(200, "OK")
TOO_MANY = redirected("too_many_redirects")
LOOP = redirected("redirect_loop")
LIMIT = 20


def follow(
    laboratory: Laboratory, paths: Sequence[str], sources: Sequence[str] = ("127.0.0.1",)
) -> list[Record]:
    """GETs the paths in this order, each over a connection of its own, from each source in turn."""
    proxy = laboratory.proxy("regular")

    def act() -> None:
        for path in paths:
            for source in sources:
                clients.get(proxy, laboratory.origin, path, source=source)

    records = laboratory.observe(proxy, act, len(paths) * len(sources))
    assert len(records) == len(paths) * len(sources)
    proxy.assert_no_addon_error()
    return records


def hops(count: int, name: str) -> list[str]:
    """The paths of a chain with that many redirects and an answer at its end."""
    return [f"/hop/{left}/{name}" for left in range(count, -1, -1)]


def test_short_chain(laboratory: Laboratory) -> None:
    *redirects, end = follow(laboratory, hops(5, "short"))
    for record in redirects:
        FOUND.check(record)
    OK.check(end)


def test_chain_of_the_limit(laboratory: Laboratory) -> None:
    for record in follow(laboratory, hops(LIMIT, "limit"))[:-1]:
        FOUND.check(record)


def test_chain_over_the_limit(laboratory: Laboratory) -> None:
    records = follow(laboratory, hops(LIMIT + 2, "long"))
    for record in records[:LIMIT]:
        FOUND.check(record)
    for record in records[LIMIT:-1]:
        TOO_MANY.check(record)
    assert len(records[LIMIT:-1]) == 2
    OK.check(records[-1])


def test_redirect_to_itself(laboratory: Laboratory) -> None:
    first, second, *rest = follow(laboratory, ["/self"] * 4)
    FOUND.check(first)
    FOUND.check(second)
    for record in rest:
        LOOP.check(record)


def test_redirect_in_a_circle(laboratory: Laboratory) -> None:
    records = follow(laboratory, ["/loop", "/loop-back"] * 3)
    for record in records[:4]:
        FOUND.check(record)
    for record in records[4:]:
        LOOP.check(record)


def test_the_same_chain_again_is_no_loop(laboratory: Laboratory) -> None:
    for record in follow(laboratory, hops(3, "again") * 4):
        assert "error_code" not in record, record


def test_interleaved_chains_of_one_client(laboratory: Laboratory) -> None:
    """Two tabs: the chains are told apart by where they lead, not by connection or time."""
    pairs = zip(hops(LIMIT + 1, "left"), hops(LIMIT + 1, "right"), strict=True)
    records = follow(laboratory, [path for pair in pairs for path in pair])
    for chain in (records[0::2], records[1::2]):
        *within, over, end = chain
        for record in within:
            FOUND.check(record)
        TOO_MANY.check(over)
        OK.check(end)


def test_the_same_chain_of_several_clients(laboratory: Laboratory) -> None:
    """Taken together these would be a loop and over the limit."""
    sources = [f"127.0.0.{last}" for last in range(1, 5)]
    records = follow(laboratory, hops(6, "shared"), sources)
    assert len({record["client"] for record in records}) == len(sources)
    for record in records:
        assert "error_code" not in record, record
