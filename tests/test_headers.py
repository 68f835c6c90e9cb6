"""One header of a flow, whatever its case and however many there are."""

from __future__ import annotations

import pytest
from flowtally.headers import value_of
from mitmproxy import http


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ([], None),
        ([(b"origin", b"a")], b"a"),
        ([(b"ORIGIN", b"a")], b"a"),
        ([(b"Accept", b"b"), (b"Origin", b"")], b""),
        ([(b"Origin", b"a"), (b"origin", b"b")], b"a"),
        ([(b"origins", b"b"), (b"origi", b"c")], None),
    ],
)
def test_the_first_of_a_name(fields: list[tuple[bytes, bytes]], value: bytes | None) -> None:
    assert value_of(http.Headers(fields), b"origin") == value
