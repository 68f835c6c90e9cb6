"""The entries of a HAR, found without reading it as a whole."""

from __future__ import annotations

import io
import json
import tracemalloc
from typing import Any
from unittest import mock

import pytest
from flowtally.captures import scan
from flowtally.captures.scan import Place
from flowtally.captures.scan import Scan
from hypothesis import given
from hypothesis import strategies as st

ENTRIES: list[Any] = [
    {"text": 'quotes \\" and } ] {', "list": [1, {"x": "\\"}]},
    {"long": "x" * 10_000, "headers": [{"name": "a", "value": "{"}, {"name": "b"}]},
    None,
    5,
    "}]",
    [1, {"y": 2}],
    {},
]
DECOYS = {"version": "1.2", "pages": [{"entries": [{"no": 1}]}], "comment": '"entries": [{}]'}
HAR = json.dumps({"comment": {"entries": [{}]}, "log": {**DECOYS, "entries": ENTRIES, "z": [{}]}})


def scanned(content: bytes, block: int = scan.BLOCK) -> tuple[Scan, list[Place]]:
    with mock.patch.object(scan, "BLOCK", block):
        found = Scan(io.BytesIO(content))
        return found, list(found.places())


def texts(content: bytes, places: list[Place]) -> list[Any]:
    """What stands at the places; of what is no object and no list, None."""
    return [json.loads(content[p.begin : p.end]) if p.end > p.begin else None for p in places]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 100, 4096, 5000, scan.BLOCK])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("begin", ["", "\ufeff", "\n  "])
def test_entries_are_found_wherever_a_block_ends(
    block: int, indent: int | None, begin: str
) -> None:
    content = (begin + json.dumps(json.loads(HAR), indent=indent)).encode()
    found, places = scanned(content, block)
    assert texts(content, places) == [*ENTRIES[:2], None, None, None, *ENTRIES[5:]]
    assert [place.number for place in places] == list(range(1, 8))
    assert (found.found, found.broken) == (True, False)


@pytest.mark.parametrize(
    ("content", "entries"),
    [
        ('{"log": {"entries": []}}', 0),
        ('{"log": {"entries": [{}], "entries": [{}, {}]}}', 3),
        ('{"log": {"entries": [{}]}} behind it {"log": {"entries": [{}]}}', 1),
        ('{"log": {"entries": {"a": {}}}}', None),
        ('{"log": [{"entries": [{}]}]}', None),
        ('{"entries": [{}]}', None),
        ('[{"log": {"entries": [{}]}}]', None),
        ("[]", None),
        ("", None),
    ],
)
def test_only_log_entries_count(content: str, entries: int | None) -> None:
    found, places = scanned(content.encode())
    assert (found.found, len(places)) == (entries is not None, entries or 0)


@given(st.integers(0, len(HAR) - 1))
def test_a_file_may_end_anywhere(size: int) -> None:
    content = HAR.encode()[:size]
    found, places = scanned(content)
    assert found.broken
    assert texts(content, places) == [*ENTRIES[:2], None, None, None, *ENTRIES[5:]][: len(places)]
    assert not found.within or found.within == len(places) + 1


@given(st.text(alphabet='{}[]",:\\ax0 ', max_size=60), st.sampled_from([1, 3, scan.BLOCK]))
def test_anything_may_stand_in_the_file(junk: str, block: int) -> None:
    content = f'{{"log": {{"entries": [{{}}, {junk}]}}}}'.encode()
    found, places = scanned(content, block)
    assert found.found
    assert places[0].number == 1
    assert all(p.begin <= p.end <= len(content) for p in places)


@pytest.mark.parametrize(("depth", "deep"), [(96, False), (97, False), (98, True), (5000, True)])
def test_what_has_too_many_brackets_open_is_read_up_to_there(depth: int, deep: bool) -> None:
    nested = "[" * depth + "]" * depth
    with mock.patch.object(scan, "MAX_DEPTH", 100):
        found, places = scanned(f'{{"log": {{"entries": [{{}}, {nested}, {{}}]}}}}'.encode())
        assert (found.deep, found.broken, found.within) == (deep, deep, 2 if deep else 0)
        assert len(places) == (1 if deep else 3)
        found, places = scanned(f'{{"log": {{"a": 1, "x": [{nested}], "entries": []}}}}'.encode())
        assert (found.deep, found.broken, found.within) == (deep, deep, 0)
        assert (found.found, places) == (not deep, [])


def test_brackets_without_an_end_take_little_memory() -> None:
    content = b'{"log": {"entries": [' + b"[" * (3 * scan.MAX_DEPTH)
    tracemalloc.start()
    try:
        found, places = scanned(content)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
    assert (found.deep, found.within, places) == (True, 1, [])


def test_a_string_without_an_end_takes_no_memory() -> None:
    class Endless(io.RawIOBase):
        """A file of 64 MB, none of which is there."""

        read_to = 0

        def seek(self, position: int, whence: int = 0) -> int:  # noqa: ARG002
            self.read_to = position
            return position

        def read(self, size: int = -1) -> bytes:
            if self.read_to == 0:
                return b'{"log": {"entries": [{"text": "'
            return b"x" * size if self.read_to < 64 * 2**20 else b""

    found = Scan(Endless())  # type: ignore[arg-type]
    assert list(found.places()) == []
    assert (found.broken, found.within) == (True, 1)
    assert len(found._buffer) <= 2 * scan.BLOCK
