"""What is taken from mitmproxy's internals: it is given back, and it may be missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated
from flowtally import internals
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._http2 import Http2Connection


@contextmanager
def watched() -> Iterator[list[tuple[Any, ...]]]:
    told: list[tuple[Any, ...]] = []
    undo = internals.watch_faults(lambda *at: told.append(at), lambda *at: told.append(at))
    yield told
    undo()


def test_the_watches_are_taken_away_again() -> None:
    before = (Http2Connection.protocol_error, QuicConnection._close_begin)
    with watched():
        assert Http2Connection.protocol_error is not before[0]
        assert QuicConnection._close_begin is not before[1]
    assert (Http2Connection.protocol_error, QuicConnection._close_begin) == before
    original = _http1.make_error_response
    undo = internals.watch_error_responses(lambda *_: None)
    assert _http1.make_error_response is not original
    undo()
    assert _http1.make_error_response is original


@pytest.mark.parametrize(
    ("owner", "name"), [(Http2Connection, "protocol_error"), (QuicConnection, "_close_begin")]
)
def test_without_one_the_other_is_watched(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(owner, name)
    with watched():
        assert not hasattr(owner, name)
    assert not hasattr(owner, name)


class Closing:
    """As much of a QUIC connection as is looked at."""

    def __init__(self, words: str, code: int) -> None:
        self._close_event = ConnectionTerminated(code, None, words)
        self._close_at: float | None = None
        self._loss = self

    def get_probe_timeout(self) -> float:
        return 1.0

    def _set_state(self, state: Any) -> None:
        self.state = state


@pytest.mark.parametrize(("by_us", "told"), [(False, [("going away", 0x100)]), (True, [])])
def test_only_a_peers_words_are_told(by_us: bool, told: list[tuple[Any, ...]]) -> None:
    closing: Any = Closing("going away", 0x100)
    with watched() as heard:
        QuicConnection._close_begin(closing, is_initiator=by_us, now=1.0)
    assert heard == told
    assert closing._close_at == 4.0  # what it did before, it does


def test_a_broken_watch_breaks_nothing() -> None:
    closing: Any = Closing("x", 1)

    def fail(*_: Any) -> None:
        raise RuntimeError

    undo = internals.watch_faults(fail, fail)
    QuicConnection._close_begin(closing, is_initiator=False, now=1.0)
    undo()
    assert closing._close_at == 4.0
