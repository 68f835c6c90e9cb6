"""One header of a flow, whatever its case and however many there are."""

from __future__ import annotations

import pytest
from flowtally.headers import is_common
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


@pytest.mark.parametrize(
    ("media_type", "common"),
    [
        ("text/html", True),
        ("application/json", True),
        ("image/png", True),
        ("text/event-stream", True),
        ("application/grpc", True),
        ("hunter2/x", False),
        ("text/hunter2", False),
        ("", False),
    ],
)
def test_media_types_that_a_peer_made_up(media_type: str, common: bool) -> None:
    assert is_common(media_type) == common
